//! Quantiles, fractions and variances of native histograms, and their sums and means over a window.

use crate::model::go_math;
use crate::model::histogram::{Bucket, Combined, CounterResetHint, FloatHistogram, HistogramMean, HistogramSum};
use crate::promql::functions::kahan::KahanSum;
use crate::promql::functions::note::{HistogramUse, Note};

/// The quantile `q`. Inside of a bucket it is interpolated: linearly between listed bounds and in the zero bucket, else on a
/// logarithmic scale. Observations that are not numbers are taken to be the largest.
pub(crate) fn quantile(q: f64, histogram: &FloatHistogram, notes: &mut Vec<Note>) -> f64 {
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    if histogram.count == 0.0 || q.is_nan() {
        return f64::NAN;
    }
    let has_nan = histogram.sum.is_nan();
    let is_forward = has_nan || q < 0.5;
    let mut buckets = histogram.buckets();
    let mut rank = q * histogram.count;
    if !is_forward {
        buckets.reverse();
        rank = (1.0 - q) * histogram.count;
    }
    let mut rest = buckets.into_iter();
    let mut bucket = Bucket { lower: 0.0, upper: 0.0, lower_inclusive: false, upper_inclusive: false, count: 0.0 };
    let mut count = 0.0;
    for next in rest.by_ref() {
        bucket = next;
        if bucket.count == 0.0 {
            continue;
        }
        count += bucket.count;
        if count >= rank {
            break;
        }
    }
    if histogram.uses_custom_buckets() {
        if bucket.lower == f64::NEG_INFINITY {
            if bucket.upper <= 0.0 {
                return bucket.upper;
            }
            bucket.lower = 0.0;
        } else if bucket.upper == f64::INFINITY {
            return bucket.lower;
        }
    } else if bucket.lower < 0.0 && bucket.upper > 0.0 {
        narrow_zero_bucket(histogram, &mut bucket);
    }
    if count > histogram.count {
        count = histogram.count;
    }
    if count < rank {
        if has_nan {
            notes.push(Note::QuantileIsNan);
            return f64::NAN;
        }
        return bucket.upper;
    }
    // The rank within the bucket, counted from its lower bound.
    rank = if is_forward { rank - (count - bucket.count) } else { count - rank };
    let in_bucket = bucket;
    if has_nan {
        for next in rest {
            bucket = next;
            count += bucket.count;
        }
        if count < histogram.count {
            notes.push(Note::QuantileIsSkewed);
        }
    }
    // Prometheus goes on with the last bucket it has looked at.
    let bucket = if has_nan { bucket } else { in_bucket };
    let fraction = rank / bucket.count;
    if histogram.uses_custom_buckets() || (bucket.lower <= 0.0 && bucket.upper >= 0.0) {
        return bucket.lower + (bucket.upper - bucket.lower) * fraction;
    }
    let (lower, upper) = (go_math::log2(bucket.lower.abs()), go_math::log2(bucket.upper.abs()));
    if bucket.lower > 0.0 {
        go_math::exp2(lower + (upper - lower) * fraction)
    } else {
        -go_math::exp2(upper + (lower - upper) * (1.0 - fraction))
    }
}

/// With buckets on one side of zero alone, the zero bucket is taken to lie on that side.
fn narrow_zero_bucket(histogram: &FloatHistogram, bucket: &mut Bucket) {
    match (histogram.negative_buckets.is_empty(), histogram.positive_buckets.is_empty()) {
        (true, false) => bucket.lower = 0.0,
        (false, true) => bucket.upper = 0.0,
        _ => {}
    }
}

/// The share of observations between `lower` and `upper`.
pub(crate) fn fraction(lower: f64, upper: f64, histogram: &FloatHistogram, notes: &mut Vec<Note>) -> f64 {
    if histogram.count == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    let is_custom = histogram.uses_custom_buckets();
    let (mut count, mut rank) = (0.0, 0.0);
    let (mut lower_rank, mut upper_rank) = (None, None);
    let mut rest = histogram.buckets().into_iter();
    for mut bucket in rest.by_ref() {
        count += bucket.count;
        let is_zero = bucket.lower <= 0.0 && bucket.upper >= 0.0;
        if is_zero {
            narrow_zero_bucket(histogram, &mut bucket);
        }
        for (at, found) in [(lower, &mut lower_rank), (upper, &mut upper_rank)] {
            if found.is_none() && bucket.lower >= at {
                *found = Some(rank);
            }
        }
        for (at, found) in [(lower, &mut lower_rank), (upper, &mut upper_rank)] {
            if found.is_none() && bucket.lower < at && bucket.upper > at {
                let is_linear = is_custom || is_zero;
                *found = Some(if is_linear && bucket.lower == f64::NEG_INFINITY {
                    bucket.count
                } else {
                    rank + bucket.count * bucket.fraction_below(at, is_linear)
                });
            }
        }
        if lower_rank.is_some() && upper_rank.is_some() {
            break;
        }
        rank += bucket.count;
    }
    if histogram.sum.is_nan() {
        count = rest.fold(count, |count, bucket| count + bucket.count);
        if count < histogram.count {
            notes.push(Note::FractionWithoutNan);
        }
    } else {
        count = histogram.count;
    }
    let bounded = |rank: Option<f64>| rank.map_or(count, |rank| if rank > count { count } else { rank });
    (bounded(upper_rank) - bounded(lower_rank)) / histogram.count
}

/// Estimated variance: all observations of a bucket are taken to be at its middle.
pub(crate) fn variance(histogram: &FloatHistogram) -> f64 {
    let mean = histogram.sum / histogram.count;
    let mut variance = KahanSum::default();
    for bucket in histogram.buckets().into_iter().filter(|bucket| bucket.count != 0.0) {
        let value = if histogram.uses_custom_buckets() {
            (bucket.upper + bucket.lower) / 2.0
        } else if bucket.lower <= 0.0 && bucket.upper >= 0.0 {
            0.0
        } else {
            let middle = (bucket.upper * bucket.lower).sqrt();
            if bucket.upper < 0.0 { -middle } else { middle }
        };
        let delta = value - mean;
        variance = variance.plus(bucket.count * delta * delta);
    }
    variance.total() / histogram.count
}

/// What was noticed while many histograms were combined.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Noticed {
    has_reset: bool,
    has_no_reset: bool,
    bounds_reconciled: bool,
}

impl Noticed {
    /// Notes the hint of a histogram.
    pub(crate) fn hint(&mut self, histogram: &FloatHistogram) {
        match histogram.counter_reset_hint {
            CounterResetHint::Reset => self.has_reset = true,
            CounterResetHint::NotReset => self.has_no_reset = true,
            CounterResetHint::Unknown | CounterResetHint::Gauge => {}
        }
    }

    /// Notes how a histogram was added.
    pub(crate) fn combined(&mut self, combined: Combined) {
        self.bounds_reconciled |= combined.bounds_reconciled;
    }

    /// The remarks about all of them, each where it applies: collision of hints, reconciled bounds.
    pub(crate) fn notes(self) -> impl Iterator<Item = Note> {
        let collision = (self.has_reset && self.has_no_reset).then_some(Note::ResetsCollide(HistogramUse::Aggregation));
        let reconciled = self.bounds_reconciled.then_some(Note::BoundsReconciled(HistogramUse::Aggregation));
        collision.into_iter().chain(reconciled)
    }
}

/// `sum_over_time` of histograms; there is at least one.
pub(crate) fn sum<'a>(
    mut histograms: impl Iterator<Item = &'a FloatHistogram>,
    notes: &mut Vec<Note>,
) -> Option<FloatHistogram> {
    let first = histograms.next()?;
    let mut sum = HistogramSum::of(first);
    fold(first, histograms, notes, |next| sum.add(next).ok())?;
    Some(sum.total())
}

/// `avg_over_time` of histograms; there is at least one.
pub(crate) fn mean<'a>(
    mut histograms: impl Iterator<Item = &'a FloatHistogram>,
    notes: &mut Vec<Note>,
) -> Option<FloatHistogram> {
    let first = histograms.next()?;
    let mut mean = HistogramMean::of(first);
    fold(first, histograms, notes, |next| mean.add(next).ok())?;
    Some(mean.mean())
}

fn fold<'a>(
    first: &FloatHistogram,
    rest: impl Iterator<Item = &'a FloatHistogram>,
    notes: &mut Vec<Note>,
    mut add: impl FnMut(&FloatHistogram) -> Option<Combined>,
) -> Option<()> {
    let mut noticed = Noticed::default();
    noticed.hint(first);
    for next in rest {
        noticed.hint(next);
        match add(next) {
            Some(combined) => noticed.combined(combined),
            None => {
                notes.push(Note::MixedSchemas);
                return None;
            }
        }
    }
    notes.extend(noticed.notes());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::histogram::{CUSTOM_BUCKETS_SCHEMA, Span};

    fn histogram(schema: i32, bounds: &[f64], counts: &[f64]) -> FloatHistogram {
        FloatHistogram {
            schema,
            count: counts.iter().sum(),
            custom_values: bounds.to_vec(),
            positive_spans: vec![Span { offset: 0, length: u32::try_from(counts.len()).unwrap() }],
            positive_buckets: counts.to_vec(),
            ..FloatHistogram::default()
        }
    }

    #[test]
    fn listed_buckets_are_interpolated_on_a_line() {
        let listed = histogram(CUSTOM_BUCKETS_SCHEMA, &[1.0, 2.0], &[2.0, 2.0, 4.0]);
        let of = |q| quantile(q, &listed, &mut Vec::new());
        assert_eq!(
            [of(0.125), of(0.375), of(0.9), of(-1.0), of(2.0)],
            [0.5, 1.5, 2.0, f64::NEG_INFINITY, f64::INFINITY]
        );
        assert_eq!(fraction(0.5, 1.5, &listed, &mut Vec::new()), 0.25);
    }

    #[test]
    fn exponential_buckets_are_interpolated_on_a_logarithmic_scale() {
        // Bounds are 0.5, 1 and 2.
        let exponential = histogram(0, &[], &[2.0, 2.0]);
        let of = |q| quantile(q, &exponential, &mut Vec::new());
        assert_eq!([of(0.0), of(0.5), of(1.0)], [0.5, 1.0, 2.0]);
        assert!((of(0.75) - 2f64.sqrt()).abs() < 1e-15);
        assert!((variance(&exponential) - 1.25).abs() < 1e-12);
    }

    #[test]
    fn observations_that_are_no_numbers_are_remarked() {
        let mut broken = histogram(0, &[], &[1.0, 1.0]);
        (broken.count, broken.sum) = (4.0, f64::NAN);
        let mut notes = Vec::new();
        assert!(quantile(0.9, &broken, &mut notes).is_nan());
        assert_eq!(notes, [Note::QuantileIsNan]);
        notes.clear();
        assert_eq!(fraction(f64::NEG_INFINITY, f64::INFINITY, &broken, &mut notes), 0.5);
        assert_eq!(notes, [Note::FractionWithoutNan]);
    }

    #[test]
    fn hints_and_layouts_that_do_not_fit_are_remarked() {
        let hinted = |hint| FloatHistogram { counter_reset_hint: hint, ..histogram(0, &[], &[1.0]) };
        let both = [hinted(CounterResetHint::Reset), hinted(CounterResetHint::NotReset)];
        let mut notes = Vec::new();
        assert_eq!(sum(both.iter(), &mut notes).map(|h| h.count), Some(2.0));
        assert_eq!(notes, [Note::ResetsCollide(HistogramUse::Aggregation)]);
        let listed = [histogram(0, &[], &[1.0]), histogram(CUSTOM_BUCKETS_SCHEMA, &[1.0], &[1.0])];
        notes.clear();
        assert_eq!(mean(listed.iter(), &mut notes), None);
        assert_eq!(notes, [Note::MixedSchemas]);
    }
}
