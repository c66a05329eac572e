//! Quantiles of plain values.

use std::cmp::Ordering;

/// Order in which NaN comes before everything.
pub(crate) fn nan_first(a: &f64, b: &f64) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (false, false) => a.partial_cmp(b).unwrap_or(Ordering::Equal),
        (a_is_nan, b_is_nan) => b_is_nan.cmp(&a_is_nan),
    }
}

/// The quantile `q` of `values`, which change their order on the way. NaN without values or for NaN, an infinity for `q`
/// outside of 0 to 1. Between two values it is interpolated.
pub(crate) fn quantile(q: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    let n = values.len() as f64;
    let rank = q * (n - 1.0);
    let lower = rank.floor().max(0.0);
    let upper = (n - 1.0).min(lower + 1.0);
    let weight = rank - rank.floor();
    let (at_lower, at_upper) = two_of(values, lower as usize, upper as usize);
    at_lower * (1.0 - weight) + at_upper * weight
}

/// The values at two places, of which the second is the first or the one behind it, once the values are sorted. Only
/// what is needed is sorted.
fn two_of(values: &mut [f64], lower: usize, upper: usize) -> (f64, f64) {
    if values.iter().fold(false, |found, v| found | v.is_nan()) {
        return two_by(values, lower, upper, nan_first);
    }
    two_by(values, lower, upper, f64::total_cmp)
}

fn two_by(
    values: &mut [f64],
    lower: usize,
    upper: usize,
    compare: impl Fn(&f64, &f64) -> Ordering + Copy,
) -> (f64, f64) {
    if values.len() <= lower {
        return (f64::NAN, f64::NAN);
    }
    let (_, at_lower, above) = values.select_nth_unstable_by(lower, compare);
    let least = above.iter().copied().min_by(compare);
    (*at_lower, if upper == lower { *at_lower } else { least.unwrap_or(f64::NAN) })
}

/// The median of the absolute deviations from the median; NaN if one value is.
pub(crate) fn median_absolute_deviation(values: &mut [f64]) -> f64 {
    if values.iter().any(|v| v.is_nan()) {
        return f64::NAN;
    }
    let median = quantile(0.5, values);
    for value in values.iter_mut() {
        *value = (*value - median).abs();
    }
    quantile(0.5, values)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn interpolates_between_values() {
        assert_eq!(quantile(0.5, &mut [3.0, 1.0, 2.0, 10.0]), 2.5);
        assert_eq!(quantile(1.0, &mut [3.0, 1.0]), 3.0);
        assert_eq!(quantile(-0.1, &mut [3.0]), f64::NEG_INFINITY);
        assert!(quantile(0.5, &mut []).is_nan() && quantile(f64::NAN, &mut [1.0]).is_nan());
        assert!(quantile(0.0, &mut [1.0, f64::NAN]).is_nan());
    }

    proptest! {
        #[test]
        fn it_is_that_of_sorted_values(raw in prop::collection::vec(-4i8..6, 1..40), q in 0.0f64..=1.0) {
            // 5 stands for NaN.
            let mut values: Vec<f64> = raw.iter().map(|v| if *v == 5 { f64::NAN } else { f64::from(*v) }).collect();
            let mut sorted = values.clone();
            sorted.sort_by(nan_first);
            let rank = q * (sorted.len() - 1) as f64;
            let (low, weight) = (rank.floor() as usize, rank - rank.floor());
            let expected = sorted[low] * (1.0 - weight) + sorted[(low + 1).min(sorted.len() - 1)] * weight;
            let found = quantile(q, &mut values);
            prop_assert!(found == expected || (found.is_nan() && expected.is_nan()));
        }
    }

    #[test]
    fn deviation_from_the_median() {
        assert_eq!(median_absolute_deviation(&mut [1.0, 2.0, 2.0, 4.0, 6.0, 9.0, 4.0]), 2.0);
        assert!(median_absolute_deviation(&mut [1.0, f64::NAN]).is_nan());
    }
}
