//! Quantiles and fractions of classic histograms: buckets with cumulative counts.

use std::cmp::Ordering;

use crate::model::sample::is_stale;

/// One bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bucket {
    /// Largest value that is counted.
    pub(crate) upper_bound: f64,
    /// Observations up to the bound.
    pub(crate) count: f64,
}

/// Relative difference of two counts below which they are taken as equal.
const COUNT_TOLERANCE: f64 = 1e-12;

/// A quantile, and what was repaired in the buckets to find it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct BucketQuantile {
    /// The quantile.
    pub(crate) value: f64,
    /// Raised counts, if there were any.
    pub(crate) repair: Option<RaisedCounts>,
}

/// Counts that were smaller than that of a lower bound, and were raised to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RaisedCounts {
    /// Lowest bound.
    pub(crate) min_bound: f64,
    /// Highest bound.
    pub(crate) max_bound: f64,
    /// Largest raise.
    pub(crate) max_raise: f64,
}

/// Reads the value of an `le` label as Go's `ParseFloat` does.
pub(crate) fn parse_bound(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let is_word = unsigned.starts_with(|c: char| c.is_ascii_alphabetic());
    if is_word && unsigned.len() != text.len() && unsigned.eq_ignore_ascii_case("nan") {
        return None;
    }
    let value: f64 = text.parse().ok()?;
    // Digits that denote more than a float holds are an error, the word is not.
    (is_word || value.is_finite()).then_some(value)
}

/// The quantile `q`, interpolated linearly inside of a bucket. `buckets` are sorted and repaired on the way; there is at
/// least one.
pub(crate) fn bucket_quantile(q: f64, buckets: &mut Vec<Bucket>) -> BucketQuantile {
    let plain = |value| BucketQuantile { value, repair: None };
    if q.is_nan() {
        return plain(f64::NAN);
    }
    if q < 0.0 {
        return plain(f64::NEG_INFINITY);
    }
    if q > 1.0 {
        return plain(f64::INFINITY);
    }
    if !sort_and_join(buckets) {
        return plain(f64::NAN);
    }
    let repair = raise_counts(buckets);
    BucketQuantile { value: interpolate(q, buckets), repair }
}

fn interpolate(q: f64, buckets: &[Bucket]) -> f64 {
    let [.., before_last, last] = buckets else { return f64::NAN };
    if last.count == 0.0 {
        return f64::NAN;
    }
    let mut rank = q * last.count;
    let at = buckets[..buckets.len() - 1]
        .partition_point(|bucket| bucket.count < rank || bucket.count.is_nan() || rank.is_nan());
    if at == buckets.len() - 1 {
        return before_last.upper_bound;
    }
    let bucket = buckets[at];
    if at == 0 && bucket.upper_bound <= 0.0 {
        return bucket.upper_bound;
    }
    let (mut lower_bound, mut count) = (0.0, bucket.count);
    if let Some(below) = at.checked_sub(1).and_then(|i| buckets.get(i)) {
        lower_bound = below.upper_bound;
        count -= below.count;
        rank -= below.count;
    }
    lower_bound + (bucket.upper_bound - lower_bound) * (rank / count)
}

/// The share of observations between `lower` and `upper`. `buckets` are sorted on the way; there is at least one.
pub(crate) fn bucket_fraction(lower: f64, upper: f64, buckets: &mut Vec<Bucket>) -> f64 {
    if !sort_and_join(buckets) {
        return f64::NAN;
    }
    let total = buckets.last().map_or(0.0, |bucket| bucket.count);
    if total == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    // With a first bound above zero all observations are taken to be positive.
    let first_bound = buckets.first().map_or(f64::NAN, |bucket| bucket.upper_bound);
    let mut below = Bucket { upper_bound: if first_bound <= 0.0 { f64::NEG_INFINITY } else { 0.0 }, count: 0.0 };
    let (mut lower_rank, mut upper_rank) = (None, None);
    for bucket in buckets.iter() {
        lower_rank = lower_rank.or_else(|| rank_of(lower, below, *bucket));
        upper_rank = upper_rank.or_else(|| rank_of(upper, below, *bucket));
        below = *bucket;
    }
    let bounded = |rank: Option<f64>| rank.map_or(total, |rank| if rank > total { total } else { rank });
    (bounded(upper_rank) - bounded(lower_rank)) / total
}

/// Number of observations below `value` if it lies at or above the bound of `below` and below that of `bucket`.
fn rank_of(value: f64, below: Bucket, bucket: Bucket) -> Option<f64> {
    if below.upper_bound >= value {
        return Some(below.count);
    }
    // Neither bound is NaN here, as infinity is the last.
    if bucket.upper_bound <= value {
        return None;
    }
    if below.upper_bound == f64::NEG_INFINITY {
        return Some(bucket.count);
    }
    let share = (bucket.count - below.count) * (value - below.upper_bound);
    Some(below.count + share / (bucket.upper_bound - below.upper_bound))
}

/// Sorts by bound and joins buckets with the same bound. False if the last bound is not infinity.
fn sort_and_join(buckets: &mut Vec<Bucket>) -> bool {
    // A bound that is not a number has no place; it goes to the end, where infinity should be.
    buckets.sort_by(|a, b| match (a.upper_bound.is_nan(), b.upper_bound.is_nan()) {
        (false, false) => a.upper_bound.partial_cmp(&b.upper_bound).unwrap_or(Ordering::Equal),
        (a_is_nan, b_is_nan) => a_is_nan.cmp(&b_is_nan),
    });
    if buckets.last().is_none_or(|bucket| bucket.upper_bound != f64::INFINITY) {
        return false;
    }
    buckets.dedup_by(|next, kept| {
        let same = next.upper_bound == kept.upper_bound;
        if same {
            kept.count += next.count;
        }
        same
    });
    true
}

/// Makes counts grow with the bounds: tiny differences are ignored, decreases are raised to the count before them.
fn raise_counts(buckets: &mut [Bucket]) -> Option<RaisedCounts> {
    let mut raised: Option<RaisedCounts> = None;
    let mut before = buckets.first()?.count;
    for bucket in buckets.iter_mut().skip(1) {
        let count = bucket.count;
        if count == before {
            continue;
        }
        if almost_equal(before, count, COUNT_TOLERANCE) {
            bucket.count = before;
        } else if count < before {
            bucket.count = before;
            let bound = bucket.upper_bound;
            let known = raised.unwrap_or(RaisedCounts { min_bound: bound, max_bound: bound, max_raise: 0.0 });
            raised = Some(RaisedCounts {
                min_bound: known.min_bound.min(bound),
                max_bound: known.max_bound.max(bound),
                max_raise: known.max_raise.max(before - count),
            });
        } else {
            before = count;
        }
    }
    raised
}

/// True if two numbers differ by less than their sum times `tolerance`, or both are NaN.
pub(crate) fn almost_equal(a: f64, b: f64, tolerance: f64) -> bool {
    if is_stale(a) || is_stale(b) {
        return is_stale(a) && is_stale(b);
    }
    if a == b || (a.is_nan() && b.is_nan()) {
        return true;
    }
    let sum = a.abs() + b.abs();
    let difference = (a - b).abs();
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < tolerance * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < tolerance
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(pairs: &[(f64, f64)]) -> Vec<Bucket> {
        pairs.iter().map(|(upper_bound, count)| Bucket { upper_bound: *upper_bound, count: *count }).collect()
    }

    const INF: f64 = f64::INFINITY;

    #[test]
    fn bounds_are_read_as_in_go() {
        assert_eq!(parse_bound("+Inf"), Some(INF));
        assert_eq!(parse_bound("0.1"), Some(0.1));
        assert_eq!(parse_bound("1e3"), Some(1000.0));
        assert!(parse_bound("NaN").unwrap().is_nan());
        for bad in ["", "abc", "+NaN", "1e999", "0.1 ", "Inf1"] {
            assert_eq!(parse_bound(bad), None, "{bad}");
        }
    }

    #[test]
    fn interpolates_inside_of_a_bucket() {
        let q = |q, pairs: &[(f64, f64)]| bucket_quantile(q, &mut buckets(pairs)).value;
        let histogram = [(INF, 10.0), (1.0, 2.0), (2.0, 8.0)];
        assert_eq!(q(0.5, &histogram), 1.5);
        assert_eq!(q(0.1, &histogram), 0.5);
        assert_eq!(q(1.0, &histogram), 2.0);
        assert_eq!(q(0.1, &[(-1.0, 5.0), (INF, 6.0)]), -1.0);
        assert_eq!((q(-1.0, &histogram), q(2.0, &histogram)), (f64::NEG_INFINITY, INF));
        for nan in
            [q(f64::NAN, &histogram), q(0.5, &[(1.0, 2.0)]), q(0.5, &[(INF, 2.0)]), q(0.5, &[(1.0, 0.0), (INF, 0.0)])]
        {
            assert!(nan.is_nan());
        }
    }

    #[test]
    fn decreasing_counts_are_raised_and_reported() {
        let result = bucket_quantile(0.5, &mut buckets(&[(1.0, 6.0), (2.0, 4.0), (3.0, 5.0), (INF, 10.0)]));
        let expected = RaisedCounts { min_bound: 2.0, max_bound: 3.0, max_raise: 2.0 };
        assert_eq!(result.repair, Some(expected));
        let tiny = bucket_quantile(0.5, &mut buckets(&[(1.0, 6.0), (2.0, 6.0 - 1e-13), (INF, 10.0)]));
        assert_eq!(tiny.repair, None);
    }

    #[test]
    fn fractions_between_bounds() {
        let fraction =
            |lower, upper| bucket_fraction(lower, upper, &mut buckets(&[(1.0, 2.0), (2.0, 8.0), (INF, 10.0)]));
        assert_eq!(fraction(1.0, 2.0), 0.6);
        assert_eq!(fraction(0.0, 1.5), 0.5);
        assert_eq!((fraction(2.0, 1.0), fraction(f64::NEG_INFINITY, INF)), (0.0, 1.0));
        assert_eq!(fraction(3.0, INF), 0.2);
        assert!(fraction(f64::NAN, 1.0).is_nan());
    }

    #[test]
    fn negative_zero_and_zero_are_one_bound() {
        let mut both = buckets(&[(0.0, 1.0), (-0.0, 2.0), (INF, 5.0)]);
        assert!(sort_and_join(&mut both));
        assert_eq!(both, buckets(&[(0.0, 3.0), (INF, 5.0)]));
    }
}
