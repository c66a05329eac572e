//! Native histograms with whole counts, as clients expose them. Counts of buckets are kept as differences to the bucket
//! before, which is how scrape formats, log and chunks have them.

use crate::model::histogram::{CUSTOM_BUCKETS_SCHEMA, CounterResetHint, FloatHistogram, Span, layout};
use crate::model::sample::is_stale;

/// A histogram with whole counts. All values are possible here; storage checks what it takes in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// What is known of a counter reset.
    pub counter_reset_hint: CounterResetHint,
    /// Resolution: bounds grow by a factor of 2^(2^-schema).
    pub schema: i32,
    /// Width of the zero bucket on either side of zero.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: u64,
    /// All observations.
    pub count: u64,
    /// Sum of all observations; the stale marker ends the series.
    pub sum: f64,
    /// Which positive buckets there are.
    pub positive_spans: Vec<Span>,
    /// Counts of the positive buckets, each less that of the bucket before.
    pub positive_buckets: Vec<i64>,
    /// Which negative buckets there are.
    pub negative_spans: Vec<Span>,
    /// Counts of the negative buckets, each less that of the bucket before.
    pub negative_buckets: Vec<i64>,
    /// Upper bounds of listed buckets, ascending and without infinity.
    pub custom_values: Vec<f64>,
}

/// Largest count that a float tells from its neighbours.
const COUNT_MAX: f64 = 9_007_199_254_740_992.0;

/// Counts of buckets from differences.
pub fn absolute(deltas: &[i64]) -> impl Iterator<Item = i64> + '_ {
    deltas.iter().scan(0i64, |count, delta| {
        *count = count.wrapping_add(*delta);
        Some(*count)
    })
}

/// Differences from counts of buckets.
pub fn deltas(counts: impl IntoIterator<Item = i64>) -> Vec<i64> {
    let mut before = 0i64;
    let delta = |count: i64| count.wrapping_sub(std::mem::replace(&mut before, count));
    counts.into_iter().map(delta).collect()
}

impl Histogram {
    /// The marker that ends a series of histograms.
    pub fn stale(marker: f64) -> Self {
        Self { sum: marker, ..Self::default() }
    }

    /// True if the bounds are listed in `custom_values`.
    pub fn uses_custom_buckets(&self) -> bool {
        self.schema == CUSTOM_BUCKETS_SCHEMA
    }

    /// True for the marker that ends a series of histograms.
    pub fn is_stale(&self) -> bool {
        is_stale(self.sum)
    }

    /// The same with counts as floats.
    pub fn to_float(&self) -> FloatHistogram {
        let floats = |deltas: &[i64]| absolute(deltas).map(|count| count as f64).collect();
        FloatHistogram {
            counter_reset_hint: self.counter_reset_hint,
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count: self.zero_count as f64,
            count: self.count as f64,
            sum: self.sum,
            positive_spans: self.positive_spans.clone(),
            positive_buckets: floats(&self.positive_buckets),
            negative_spans: self.negative_spans.clone(),
            negative_buckets: floats(&self.negative_buckets),
            custom_values: self.custom_values.clone(),
        }
    }

    /// The same as one with float counts; `None` unless all of its counts are whole numbers that a float holds exactly.
    pub fn of_whole(float: &FloatHistogram) -> Option<Self> {
        let whole =
            |count: f64| (0.0..=COUNT_MAX).contains(&count).then_some(count as i64).filter(|n| *n as f64 == count);
        let side = |counts: &[f64]| counts.iter().map(|count| whole(*count)).collect::<Option<Vec<i64>>>().map(deltas);
        Some(Self {
            counter_reset_hint: float.counter_reset_hint,
            schema: float.schema,
            zero_threshold: float.zero_threshold,
            zero_count: whole(float.zero_count)?.unsigned_abs(),
            count: whole(float.count)?.unsigned_abs(),
            sum: float.sum,
            positive_spans: float.positive_spans.clone(),
            positive_buckets: side(&float.positive_buckets)?,
            negative_spans: float.negative_spans.clone(),
            negative_buckets: side(&float.negative_buckets)?,
            custom_values: float.custom_values.clone(),
        })
    }

    /// Bytes that the histogram takes in memory.
    pub fn memory_len(&self) -> usize {
        let spans = self.positive_spans.capacity() + self.negative_spans.capacity();
        let counts =
            self.positive_buckets.capacity() + self.negative_buckets.capacity() + self.custom_values.capacity();
        size_of::<Self>() + 16 + spans * size_of::<Span>() + counts * size_of::<i64>()
    }

    /// True if the two are the same data: the same buckets, empty ones included. Hints do not count.
    pub fn equals(&self, other: &Self) -> bool {
        self.schema == other.schema
            && self.count == other.count
            && self.sum.to_bits() == other.sum.to_bits()
            && (!self.uses_custom_buckets() || self.custom_values == other.custom_values)
            && self.zero_threshold == other.zero_threshold
            && self.zero_count == other.zero_count
            && layout::same_spans(&self.negative_spans, &other.negative_spans)
            && self.negative_buckets == other.negative_buckets
            && layout::same_spans(&self.positive_spans, &other.positive_spans)
            && self.positive_buckets == other.positive_buckets
    }

    /// Drops empty buckets.
    pub fn compact(&mut self) {
        compact(&mut self.positive_spans, &mut self.positive_buckets);
        compact(&mut self.negative_spans, &mut self.negative_buckets);
    }

    /// Lowers the resolution to `schema`; does nothing for listed bounds or a schema that is not lower.
    pub fn reduce_resolution(&mut self, schema: i32) {
        if self.uses_custom_buckets() || self.schema <= schema {
            return;
        }
        let shift = u32::try_from(self.schema.saturating_sub(schema)).unwrap_or(0);
        reduce(&mut self.positive_spans, &mut self.positive_buckets, shift);
        reduce(&mut self.negative_spans, &mut self.negative_buckets, shift);
        self.schema = schema;
    }
}

fn compact(spans: &mut Vec<Span>, buckets: &mut Vec<i64>) {
    let is_filled = absolute(buckets).all(|count| count != 0);
    let is_tidy = spans.iter().all(|span| span.length > 0) && spans.iter().skip(1).all(|span| span.offset > 0);
    if is_filled && is_tidy {
        return;
    }
    let filled: Vec<(i64, i64)> = layout::indexes(spans, buckets.len())
        .zip(absolute(buckets))
        .map(|((_, index), count)| (index, count))
        .filter(|(_, count)| *count != 0)
        .collect();
    *spans = layout::spans_of(filled.iter().map(|(index, _)| *index));
    *buckets = deltas(filled.into_iter().map(|(_, count)| count));
}

fn reduce(spans: &mut Vec<Span>, buckets: &mut Vec<i64>, shift: u32) {
    let mut merged: Vec<(i64, i64)> = Vec::with_capacity(buckets.len());
    for ((_, index), count) in layout::indexes(spans, buckets.len()).zip(absolute(buckets)) {
        let target = layout::reduced_index(index, shift);
        match merged.last_mut() {
            Some((index, sum)) if *index == target => *sum = sum.wrapping_add(count),
            _ => merged.push((target, count)),
        }
    }
    *spans = layout::spans_of(merged.iter().map(|(index, _)| *index));
    *buckets = deltas(merged.into_iter().map(|(_, count)| count));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram() -> Histogram {
        Histogram {
            schema: 1,
            count: 10,
            sum: 2.5,
            positive_spans: vec![Span { offset: -2, length: 2 }, Span { offset: 1, length: 2 }],
            positive_buckets: vec![1, 1, -2, 5],
            negative_spans: vec![Span { offset: 0, length: 1 }],
            negative_buckets: vec![2],
            ..Histogram::default()
        }
    }

    #[test]
    fn counts_add_up_and_come_back() {
        assert_eq!(absolute(&[1, 1, -2, 5]).collect::<Vec<_>>(), [1, 2, 0, 5]);
        assert_eq!(deltas([1, 2, 0, 5]), [1, 1, -2, 5]);
        let float = histogram().to_float();
        assert_eq!((float.positive_buckets, float.negative_buckets), (vec![1.0, 2.0, 0.0, 5.0], vec![2.0]));
    }

    #[test]
    fn resolution_and_empty_buckets_change_as_those_of_floats() {
        let (mut whole, mut float) = (histogram(), histogram().to_float());
        whole.compact();
        float.compact(0);
        assert_eq!(whole.to_float(), float);
        whole.reduce_resolution(0);
        float.reduce_resolution(0);
        assert_eq!(whole.to_float(), float);
        assert_eq!(whole.schema, 0);
    }

    #[test]
    fn floats_that_are_whole_come_back_as_whole_counts() {
        assert_eq!(Histogram::of_whole(&histogram().to_float()), Some(histogram()));
        for broken in [0.5, -1.0, f64::NAN, 1e300] {
            let mut float = histogram().to_float();
            float.positive_buckets[1] = broken;
            assert_eq!(Histogram::of_whole(&float), None);
        }
    }
}
