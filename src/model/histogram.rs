//! Native histograms with float counts: exponential buckets (schemas -4 to 8) or listed bounds (schema -53).

use std::collections::BTreeMap;

/// Schema of histograms whose bounds are listed.
pub const CUSTOM_BUCKETS_SCHEMA: i32 = -53;

/// What is known of a counter reset between this histogram and the one before it in its series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CounterResetHint {
    /// Nothing: the buckets have to be compared.
    #[default]
    Unknown,
    /// There was one.
    Reset,
    /// There was none.
    NotReset,
    /// A gauge has no resets.
    Gauge,
}

/// A run of neighbouring buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// Gap to the span before; in the first span, the index of the first bucket.
    pub offset: i32,
    /// Number of buckets.
    pub length: u32,
}

/// A histogram with absolute counts. All values are possible here; storage checks what it takes in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FloatHistogram {
    /// What is known of a counter reset.
    pub counter_reset_hint: CounterResetHint,
    /// Resolution: bounds grow by a factor of 2^(2^-schema).
    pub schema: i32,
    /// Width of the zero bucket on either side of zero.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: f64,
    /// All observations.
    pub count: f64,
    /// Sum of all observations.
    pub sum: f64,
    /// Which positive buckets there are.
    pub positive_spans: Vec<Span>,
    /// Counts of the positive buckets.
    pub positive_buckets: Vec<f64>,
    /// Which negative buckets there are.
    pub negative_spans: Vec<Span>,
    /// Counts of the negative buckets.
    pub negative_buckets: Vec<f64>,
    /// Upper bounds of listed buckets, ascending and without infinity.
    pub custom_values: Vec<f64>,
}

/// Exponential and listed buckets do not mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot apply this operation on histograms with a mix of exponential and custom bucket schemas")]
pub struct IncompatibleSchemas;

/// Counts by bucket index.
type Buckets = BTreeMap<i64, f64>;

impl FloatHistogram {
    /// True if the bounds are listed in `custom_values`.
    pub fn uses_custom_buckets(&self) -> bool {
        self.schema == CUSTOM_BUCKETS_SCHEMA
    }

    /// Adds `other` times `factor`, which is 1 for a sum and -1 for a difference. The result has the coarser resolution
    /// and the wider zero bucket of the two, or those of the listed bounds that both have.
    pub fn add_scaled(&mut self, other: &Self, factor: f64) -> Result<(), IncompatibleSchemas> {
        if self.uses_custom_buckets() != other.uses_custom_buckets() {
            return Err(IncompatibleSchemas);
        }
        self.counter_reset_hint = merge_hints(self.counter_reset_hint, other.counter_reset_hint);
        if self.uses_custom_buckets() {
            self.add_custom_buckets(other, factor);
        } else {
            self.zero_count += factor * self.match_zero_buckets(other);
            self.add_exponential_buckets(other, factor);
        }
        self.count += factor * other.count;
        self.sum += factor * other.sum;
        Ok(())
    }

    fn add_exponential_buckets(&mut self, other: &Self, factor: f64) {
        let schema = self.schema.min(other.schema);
        let (threshold, from, other_from) = (self.zero_threshold, self.schema, other.schema);
        let add = |spans: &mut Vec<Span>, buckets: &mut Vec<f64>, other_spans: &[Span], other_buckets: &[f64]| {
            let mut sum = reduce(&unpack(spans, buckets), from, schema);
            let added = reduce(&unpack(other_spans, other_buckets), other_from, schema);
            // What lies in the zero bucket has been counted there.
            for (index, count) in added.into_iter().skip_while(|(index, _)| bound(*index, schema) <= threshold) {
                *sum.entry(index).or_default() += factor * count;
            }
            (*spans, *buckets) = pack(&sum);
        };
        add(&mut self.positive_spans, &mut self.positive_buckets, &other.positive_spans, &other.positive_buckets);
        add(&mut self.negative_spans, &mut self.negative_buckets, &other.negative_spans, &other.negative_buckets);
        self.schema = schema;
    }

    fn add_custom_buckets(&mut self, other: &Self, factor: f64) {
        let mine = unpack(&self.positive_spans, &self.positive_buckets);
        let theirs = unpack(&other.positive_spans, &other.positive_buckets);
        let mut sum = mine.clone();
        if self.custom_values == other.custom_values {
            for (index, count) in theirs {
                *sum.entry(index).or_default() += factor * count;
            }
        } else {
            let common: Vec<f64> =
                self.custom_values.iter().copied().filter(|b| other.custom_values.contains(b)).collect();
            sum = Buckets::new();
            for (buckets, bounds, factor) in [(mine, &self.custom_values, 1.0), (theirs, &other.custom_values, factor)]
            {
                for (index, count) in buckets {
                    *sum.entry(index_in(&common, bounds, index)).or_default() += factor * count;
                }
            }
            sum.retain(|_, count| *count != 0.0);
            self.custom_values = common;
        }
        (self.positive_spans, self.positive_buckets) = pack(&sum);
    }

    /// Widens the zero buckets of both until they are equally wide; returns the count of `other`'s.
    fn match_zero_buckets(&mut self, other: &Self) -> f64 {
        let (mut other_count, mut other_threshold) = (other.zero_count, other.zero_threshold);
        loop {
            if other_threshold < self.zero_threshold {
                (other_count, other_threshold) = other.zero_bucket_up_to(self.zero_threshold);
            } else if self.zero_threshold < other_threshold {
                (self.zero_count, self.zero_threshold) = self.zero_bucket_up_to(other_threshold);
                self.drop_buckets_in_zero_bucket();
            } else {
                return other_count;
            }
        }
    }

    /// Count and width of a zero bucket that reaches up to `threshold`, or further if that lies within a filled bucket.
    fn zero_bucket_up_to(&self, mut threshold: f64) -> (f64, f64) {
        let positive = unpack(&self.positive_spans, &self.positive_buckets);
        let negative = unpack(&self.negative_spans, &self.negative_buckets);
        loop {
            let (mut count, begin) = (self.zero_count, threshold);
            for buckets in [&positive, &negative] {
                let reach = threshold;
                for (index, bucket) in buckets.iter().take_while(|(index, _)| bound(**index - 1, self.schema) < reach) {
                    count += bucket;
                    let end = bound(*index, self.schema);
                    if reach < end && *bucket != 0.0 {
                        threshold = end;
                    }
                }
            }
            // What widened the zero bucket may have brought further buckets into it.
            if threshold == begin {
                return (count, threshold);
            }
        }
    }

    fn drop_buckets_in_zero_bucket(&mut self) {
        let (schema, threshold) = (self.schema, self.zero_threshold);
        let keep = |spans: &mut Vec<Span>, buckets: &mut Vec<f64>| {
            let mut all = unpack(spans, buckets);
            all.retain(|index, count| threshold <= bound(*index - 1, schema) && *count != 0.0);
            (*spans, *buckets) = pack(&all);
        };
        keep(&mut self.positive_spans, &mut self.positive_buckets);
        keep(&mut self.negative_spans, &mut self.negative_buckets);
    }
}

/// What is known of the sum of two histograms: a gauge wins, then not knowing; contradictions are not knowing either.
fn merge_hints(a: CounterResetHint, b: CounterResetHint) -> CounterResetHint {
    if a == b {
        a
    } else if a == CounterResetHint::Gauge || b == CounterResetHint::Gauge {
        CounterResetHint::Gauge
    } else {
        CounterResetHint::Unknown
    }
}

fn unpack(spans: &[Span], counts: &[f64]) -> Buckets {
    let (mut buckets, mut index, mut counts) = (Buckets::new(), 0_i64, counts.iter());
    for span in spans {
        index += i64::from(span.offset);
        // As many as there are counts, whatever length the span claims.
        for (_, count) in (0..span.length).zip(counts.by_ref()) {
            buckets.insert(index, *count);
            index += 1;
        }
    }
    buckets
}

fn pack(buckets: &Buckets) -> (Vec<Span>, Vec<f64>) {
    let (mut spans, mut next): (Vec<Span>, i64) = (Vec::new(), 0);
    for index in buckets.keys() {
        match spans.last_mut() {
            Some(span) if *index == next => span.length += 1,
            _ => spans.push(Span { offset: i32::try_from(index - next).unwrap_or(i32::MAX), length: 1 }),
        }
        next = index + 1;
    }
    (spans, buckets.values().copied().collect())
}

/// The buckets at a coarser resolution.
fn reduce(buckets: &Buckets, from: i32, to: i32) -> Buckets {
    let shift = from.saturating_sub(to).clamp(0, 62);
    let mut reduced = Buckets::new();
    for (index, count) in buckets {
        *reduced.entry(((index - 1) >> shift) + 1).or_default() += count;
    }
    reduced
}

/// Upper bound of the exponential bucket at `index`; infinite only for the one behind the last finite float.
fn bound(index: i64, schema: i32) -> f64 {
    let exponent = index as f64 * f64::from(-schema).exp2();
    if exponent == 1024.0 { f64::MAX } else { exponent.exp2() }
}

/// Which of the `common` bounds holds the bucket at `index` of a histogram with the bounds `own`.
fn index_in(common: &[f64], own: &[f64], index: i64) -> i64 {
    let own_bound = usize::try_from(index).ok().and_then(|i| own.get(i));
    let place = own_bound.and_then(|own| common.iter().position(|b| own <= b)).unwrap_or(common.len());
    i64::try_from(place).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(schema: i32, offset: i32, buckets: &[f64]) -> FloatHistogram {
        FloatHistogram {
            schema,
            count: buckets.iter().sum(),
            positive_spans: vec![Span { offset, length: u32::try_from(buckets.len()).unwrap() }],
            positive_buckets: buckets.to_vec(),
            ..FloatHistogram::default()
        }
    }

    #[test]
    fn sums_have_the_coarser_resolution() {
        let mut sum = histogram(0, 0, &[5.0]);
        sum.add_scaled(&histogram(1, 0, &[1.0, 2.0]), 1.0).unwrap();
        assert_eq!(sum, histogram(0, 0, &[6.0, 2.0]));
        let mut sum = histogram(1, 0, &[1.0, 2.0]);
        sum.add_scaled(&histogram(0, 0, &[5.0]), 1.0).unwrap();
        assert_eq!(sum, histogram(0, 0, &[6.0, 2.0]));
    }

    #[test]
    fn distant_buckets_make_two_spans() {
        let mut sum = histogram(0, 0, &[1.0]);
        sum.add_scaled(&histogram(0, 3, &[2.0]), -1.0).unwrap();
        assert_eq!(sum.positive_spans, [Span { offset: 0, length: 1 }, Span { offset: 2, length: 1 }]);
        assert_eq!((sum.positive_buckets.as_slice(), sum.count), (&[1.0, -2.0][..], -1.0));
    }

    #[test]
    fn the_wider_zero_bucket_swallows_buckets() {
        // Bounds of schema 0 are powers of two: the buckets reach up to 1, 2 and 4.
        let mut sum = FloatHistogram { zero_threshold: 0.5, zero_count: 1.0, ..histogram(0, 0, &[1.0, 2.0, 4.0]) };
        let wide = FloatHistogram { zero_threshold: 1.5, zero_count: 8.0, ..FloatHistogram::default() };
        sum.add_scaled(&wide, 1.0).unwrap();
        // 1.5 lies within the second bucket, so the zero bucket grows to its bound.
        assert_eq!((sum.zero_threshold, sum.zero_count), (2.0, 12.0));
        assert_eq!((sum.positive_spans[0].offset, sum.positive_buckets.as_slice()), (2, &[4.0][..]));
    }

    #[test]
    fn listed_bounds_are_reduced_to_common_ones() {
        let custom = |bounds: &[f64], buckets: &[f64]| FloatHistogram {
            custom_values: bounds.to_vec(),
            ..histogram(CUSTOM_BUCKETS_SCHEMA, 0, buckets)
        };
        let mut sum = custom(&[1.0, 2.0, 4.0], &[1.0, 2.0, 3.0, 4.0]);
        sum.add_scaled(&custom(&[2.0, 3.0], &[10.0, 20.0, 30.0]), 1.0).unwrap();
        assert_eq!((sum.custom_values.as_slice(), sum.positive_buckets.as_slice()), (&[2.0][..], &[13.0, 57.0][..]));
        assert_eq!(sum.add_scaled(&histogram(0, 0, &[1.0]), 1.0), Err(IncompatibleSchemas));
    }
}
