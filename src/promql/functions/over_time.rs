//! Aggregations of a window: `avg_over_time` and its kin.
//!
//! Sums are taken in order with compensation, window by window: that is what gives Prometheus's bits. Minimum and
//! maximum do not depend on the way, so they slide.

use std::collections::VecDeque;

use crate::model::read::FloatColumn;
use crate::promql::functions::kahan::{KahanMean, KahanSum};
use crate::promql::functions::window::{Window, WindowKernel};

/// `sum_over_time`
pub(crate) fn sum(values: &[f64]) -> f64 {
    let sum = values.iter().fold(KahanSum::default(), |sum, v| sum.plus(*v));
    if sum.sum.is_infinite() { sum.sum } else { sum.total() }
}

/// `avg_over_time`; NaN without values.
pub(crate) fn avg(values: &[f64]) -> f64 {
    let Some((first, rest)) = values.split_first() else { return f64::NAN };
    let mut mean = KahanMean::of(*first);
    rest.iter().for_each(|v| mean.add(*v));
    mean.mean()
}

/// Windows that are summed side by side.
pub(crate) const LANES: usize = 4;

/// Sums and means of several windows at a time: each addition waits for the one before it in its window, but not for those
/// of other windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Summed {
    /// `sum_over_time`
    Sum,
    /// `avg_over_time`
    Avg,
}

impl Summed {
    /// The value of one window.
    pub(crate) fn of(self, values: &[f64]) -> f64 {
        match self {
            Self::Sum => sum(values),
            Self::Avg => avg(values),
        }
    }

    /// The values of several windows, none of them empty: the bits that [`Self::of`] gives for each.
    #[expect(clippy::needless_range_loop, reason = "the lanes are walked side by side, not one after the other")]
    pub(crate) fn of_all(self, windows: [&[f64]; LANES]) -> [f64; LANES] {
        let common = windows.iter().map(|values| values.len()).min().unwrap_or(0);
        let heads = windows.map(|values| &values[..common]);
        let (mut sums, mut compensations) = ([0.0; LANES], [0.0; LANES]);
        let mut from = 0;
        if self == Self::Avg {
            sums = heads.map(|values| values.first().copied().unwrap_or(0.0));
            from = 1;
        }
        for at in from..common {
            for lane in 0..LANES {
                let (sum, value) = (sums[lane], heads[lane][at]);
                let total = sum + value;
                let (large, small) = if sum.abs() >= value.abs() { (sum, value) } else { (value, sum) };
                compensations[lane] += (large - total) + small;
                sums[lane] = total;
            }
        }
        std::array::from_fn(|lane| {
            let values = windows[lane];
            let mut acc = KahanSum { sum: sums[lane], compensation: compensations[lane] };
            for value in &values[common..] {
                acc = acc.plus(*value);
            }
            // What was infinite once, or no number, is so in the end: then the other way is the right one.
            match self {
                _ if !acc.sum.is_finite() => self.of(values),
                Self::Sum => acc.total(),
                Self::Avg => {
                    let count = values.len() as f64;
                    acc.sum / count + acc.compensation / count
                }
            }
        })
    }
}

/// `stdvar_over_time`: population variance.
pub(crate) fn variance(window: Window<'_>) -> Option<f64> {
    let mut count = 0.0;
    let (mut mean, mut squares) = (KahanSum::default(), KahanSum::default());
    for v in window.values() {
        count += 1.0;
        let delta = v - mean.total();
        mean = mean.plus(delta / count);
        squares = squares.plus(delta * (v - mean.total()));
    }
    Some(squares.total() / count)
}

/// The extreme value of a window, and when it was: `min_over_time`, `max_over_time`, `ts_of_min_over_time`,
/// `ts_of_max_over_time`. NaN counts only where there is nothing else.
#[derive(Debug)]
pub(crate) struct Extreme {
    rule: ExtremeRule,
    /// Indexes of samples that may be the extreme of this or a later window, best first.
    candidates: VecDeque<usize>,
    next: usize,
}

/// Which extreme, and which of several equal ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExtremeRule {
    /// The first of the smallest.
    Min,
    /// The first of the largest.
    Max,
    /// Time of the last of the smallest.
    TimeOfMin,
    /// Time of the last of the largest.
    TimeOfMax,
}

impl Extreme {
    /// A kernel for one of the four.
    pub(crate) fn new(rule: ExtremeRule) -> Self {
        Self { rule, candidates: VecDeque::new(), next: 0 }
    }

    /// True if a later value makes an earlier one irrelevant.
    fn replaces(rule: ExtremeRule, later: f64, earlier: f64) -> bool {
        match rule {
            _ if earlier.is_nan() => true,
            ExtremeRule::Min => later < earlier,
            ExtremeRule::Max => later > earlier,
            ExtremeRule::TimeOfMin => later <= earlier,
            ExtremeRule::TimeOfMax => later >= earlier,
        }
    }
}

impl WindowKernel for Extreme {
    fn load(&mut self, _: &FloatColumn) {
        self.candidates.clear();
        self.next = 0;
    }

    fn value(&mut self, window: Window<'_>) -> Option<f64> {
        let values = &window.column.values;
        let rule = self.rule;
        self.next = self.next.max(window.from);
        while self.next < window.to {
            let value = values[self.next];
            while self.candidates.back().is_some_and(|index| Self::replaces(rule, value, values[*index])) {
                self.candidates.pop_back();
            }
            self.candidates.push_back(self.next);
            self.next += 1;
        }
        while self.candidates.front().is_some_and(|index| *index < window.from) {
            self.candidates.pop_front();
        }
        let best = *self.candidates.front()?;
        match rule {
            ExtremeRule::Min | ExtremeRule::Max => Some(values[best]),
            ExtremeRule::TimeOfMin | ExtremeRule::TimeOfMax => Some(window.column.timestamps[best] as f64 / 1000.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promql::functions::window::testing;
    use proptest::prelude::*;

    /// The extreme by a scan of the window, as Prometheus finds it.
    fn scan(rule: ExtremeRule, values: &[f64], timestamps: &[i64]) -> f64 {
        let (mut best, mut at) = (values[0], timestamps[0]);
        for (value, time) in values.iter().zip(timestamps) {
            if Extreme::replaces(rule, *value, best) {
                (best, at) = (*value, *time);
            }
        }
        if matches!(rule, ExtremeRule::Min | ExtremeRule::Max) { best } else { at as f64 / 1000.0 }
    }

    proptest! {
        #[test]
        fn sliding_finds_the_same_extremes(raw in prop::collection::vec(-3i8..6, 1..40), len in 1usize..8) {
            // 5 stands for NaN, so that NaN comes at every place.
            let values: Vec<f64> = raw.iter().map(|v| if *v == 5 { f64::NAN } else { f64::from(*v) }).collect();
            let column = testing::column(7, &values);
            for rule in [ExtremeRule::Min, ExtremeRule::Max, ExtremeRule::TimeOfMin, ExtremeRule::TimeOfMax] {
                for (last, slid) in testing::slide(&mut Extreme::new(rule), &column, len).into_iter().enumerate() {
                    let from = (last + 1).saturating_sub(len);
                    let expected = scan(rule, &values[from..=last], &column.timestamps[from..=last]);
                    prop_assert_eq!(slid.map(f64::to_bits), Some(expected.to_bits()));
                }
            }
        }
    }

    #[test]
    fn sums_keep_small_values_between_large_ones() {
        let column = testing::column(1, &[1.0, 1e100, 1.0, -1e100]);
        let whole = Window { column: &column, from: 0, to: 4, start_ms: 0, end_ms: 4, at_ms: 4 };
        assert_eq!((sum(whole.values()), avg(whole.values())), (2.0, 0.5));
    }

    proptest! {
        #[test]
        fn side_by_side_gives_the_same_bits(
            values in prop::collection::vec(prop_oneof![
                -1e3f64..1e3, any::<f64>(), Just(-0.0), Just(f64::MAX), Just(f64::INFINITY), Just(1e-300)
            ], 8..40),
            lens in [1usize..9, 1usize..9, 1usize..9, 1usize..9],
        ) {
            let windows: [&[f64]; LANES] = std::array::from_fn(|lane| {
                let from = (lane * 3) % (values.len() - 7);
                &values[from..(from + lens[lane]).min(values.len())]
            });
            for summed in [Summed::Sum, Summed::Avg] {
                let expected = windows.map(|values| summed.of(values));
                for (found, expected) in summed.of_all(windows).iter().zip(expected) {
                    prop_assert!(found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan()));
                }
            }
        }
    }

    #[test]
    fn variance_of_a_population() {
        let column = testing::column(1, &[0.0, 8.0, 8.0, 2.0, 3.0]);
        let whole = Window { column: &column, from: 0, to: 5, start_ms: 0, end_ms: 5, at_ms: 5 };
        let value = variance(whole).unwrap();
        assert!((value - 10.56).abs() < 1e-12, "{value}");
    }
}
