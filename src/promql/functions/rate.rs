//! How fast series grow: `rate`, `increase`, `delta`, `irate`, `idelta`.

use crate::model::read::FloatColumn;
use crate::promql::functions::window::{Window, WindowKernel};

/// The three functions that extrapolate to the window's edges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RateKind {
    /// Of a counter, per second.
    Rate,
    /// Of a counter.
    Increase,
    /// Of a gauge.
    Delta,
}

impl RateKind {
    /// True if a smaller value means that the series began anew at zero.
    pub(crate) fn is_counter(self) -> bool {
        self != Self::Delta
    }
}

/// `rate`, `increase` and `delta`. Resets are found once per series; a window adds up only its own.
#[derive(Debug)]
pub(crate) struct ExtrapolatedRate {
    kind: RateKind,
    /// Indexes of samples that are smaller than the sample before them, ascending.
    resets: Vec<usize>,
    /// Resets before this one lie before all further windows.
    first_reset: usize,
    /// What was computed for the times of the last window. The windows of a regular series are mostly alike.
    spread: Option<Spread>,
}

/// Times of a window's samples, relative to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Times {
    before_ms: i64,
    span_ms: i64,
    after_ms: i64,
    intervals: usize,
}

/// What follows from the times of a window's samples alone.
#[derive(Clone, Copy, Debug)]
struct Spread {
    times: Times,
    /// Seconds from the first sample to the last.
    sampled: f64,
    /// How far the line is drawn beyond them.
    to_start: f64,
    to_end: f64,
    /// Length of the window in seconds.
    window: f64,
}

impl Spread {
    fn of(times: Times) -> Self {
        let sampled = times.span_ms as f64 / 1000.0;
        let average = sampled / times.intervals as f64;
        let threshold = average * 1.1;
        // A sample missing at an edge means that the series begins or ends in the window, about half an interval away.
        let reach = |ms: i64| {
            let seconds = ms as f64 / 1000.0;
            if seconds >= threshold { average / 2.0 } else { seconds }
        };
        let window = duration_seconds(times.before_ms + times.span_ms + times.after_ms);
        Self { times, sampled, to_start: reach(times.before_ms), to_end: reach(times.after_ms), window }
    }
}

impl ExtrapolatedRate {
    /// A kernel for one of the three.
    pub(crate) fn new(kind: RateKind) -> Self {
        Self { kind, resets: Vec::new(), first_reset: 0, spread: None }
    }

    /// Difference of last and first value, plus what was lost at each reset in between.
    fn grown(&mut self, window: &Window<'_>) -> f64 {
        let values = &window.column.values;
        let mut grown = values[window.to - 1] - values[window.from];
        if !self.kind.is_counter() {
            return grown;
        }
        while self.resets.get(self.first_reset).is_some_and(|index| *index <= window.from) {
            self.first_reset += 1;
        }
        for index in self.resets[self.first_reset..].iter().take_while(|index| **index < window.to) {
            grown += values[index - 1];
        }
        grown
    }
}

impl WindowKernel for ExtrapolatedRate {
    fn load(&mut self, column: &FloatColumn) {
        self.resets.clear();
        self.first_reset = 0;
        let values = &column.values;
        let falls = values.iter().zip(values.iter().skip(1)).fold(false, |found, (before, now)| found | (now < before));
        if self.kind.is_counter() && falls {
            let pairs = values.windows(2).enumerate();
            self.resets.extend(pairs.filter(|(_, pair)| pair[1] < pair[0]).map(|(index, _)| index + 1));
        }
    }

    fn value(&mut self, window: Window<'_>) -> Option<f64> {
        let intervals = window.len() - 1;
        if intervals == 0 {
            return None;
        }
        let grown = self.grown(&window);
        let timestamps = window.timestamps();
        let (first_ms, last_ms) = (timestamps[0], timestamps[intervals]);
        let times = Times {
            before_ms: first_ms - window.start_ms,
            span_ms: last_ms - first_ms,
            after_ms: window.end_ms - last_ms,
            intervals,
        };
        let spread = match self.spread {
            Some(spread) if spread.times == times => spread,
            _ => *self.spread.insert(Spread::of(times)),
        };
        let Spread { sampled, mut to_start, to_end, .. } = spread;
        if self.kind.is_counter() {
            // A counter is not negative: the series begins no earlier than where the line crosses zero.
            let first = window.values()[0];
            if grown > 0.0 && first >= 0.0 {
                let to_zero = sampled * (first / grown);
                if to_zero < to_start {
                    to_start = to_zero;
                }
            }
        }
        let mut factor = if sampled == 0.0 { 1.0 } else { (sampled + to_start + to_end) / sampled };
        if self.kind == RateKind::Rate {
            factor /= spread.window;
        }
        Some(grown * factor)
    }
}

/// Seconds, computed as Go's `Duration.Seconds` does: whole seconds and the rest apart.
pub(crate) fn duration_seconds(ms: i64) -> f64 {
    (ms / 1000) as f64 + ((ms % 1000) * 1_000_000) as f64 / 1e9
}

/// `irate`: growth per second between the last two samples; after a reset from zero.
pub(crate) fn irate(window: Window<'_>) -> Option<f64> {
    let (before, last, elapsed_ms) = last_two(&window)?;
    let grown = if last < before { last } else { last - before };
    Some(grown / (elapsed_ms as f64 / 1000.0))
}

/// `idelta`: difference of the last two samples.
pub(crate) fn idelta(window: Window<'_>) -> Option<f64> {
    let (before, last, _) = last_two(&window)?;
    Some(last - before)
}

fn last_two(window: &Window<'_>) -> Option<(f64, f64, i64)> {
    match (window.values(), window.timestamps()) {
        ([.., before, last], [.., before_ms, last_ms]) if before_ms != last_ms => {
            Some((*before, *last, last_ms - before_ms))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promql::functions::window::testing;
    use proptest::prelude::*;

    fn window(column: &FloatColumn, start_ms: i64, end_ms: i64) -> Window<'_> {
        Window { column, from: 0, to: column.len(), start_ms, end_ms, at_ms: end_ms }
    }

    #[test]
    fn extrapolates_to_near_edges_and_not_below_zero() {
        let column = testing::column(10_000, &[0.0, 10.0, 20.0, 5.0, 15.0]);
        let mut kernel = ExtrapolatedRate::new(RateKind::Increase);
        kernel.load(&column);
        // 15 - 0 + 20 over 40 s; the start is where the counter was zero, the end 5 s on.
        let value = kernel.value(window(&column, 0, 55_000)).unwrap();
        assert_eq!(value, 35.0 * 45.0 / 40.0);
        let mut delta = ExtrapolatedRate::new(RateKind::Delta);
        delta.load(&column);
        assert_eq!(delta.value(window(&column, 0, 50_000)), Some(15.0 * 50.0 / 40.0));
    }

    #[test]
    fn one_sample_has_no_rate() {
        let column = testing::column(10_000, &[1.0]);
        let mut kernel = ExtrapolatedRate::new(RateKind::Rate);
        kernel.load(&column);
        assert_eq!(kernel.value(window(&column, 0, 60_000)), None);
        assert_eq!(irate(window(&column, 0, 60_000)), None);
    }

    #[test]
    fn irate_after_a_reset_counts_from_zero() {
        let column = testing::column(10_000, &[5.0, 30.0, 20.0]);
        assert_eq!(irate(window(&column, 0, 60_000)), Some(2.0));
        assert_eq!(idelta(window(&column, 0, 60_000)), Some(-10.0));
    }

    proptest! {
        #[test]
        fn sliding_gives_what_a_rescan_gives(values in prop::collection::vec(-3i8..20, 2..40), len in 2usize..12) {
            let values: Vec<f64> = values.into_iter().map(f64::from).collect();
            let column = testing::column(1000, &values);
            let slid = testing::slide(&mut ExtrapolatedRate::new(RateKind::Rate), &column, len);
            for (last, slid) in slid.into_iter().enumerate() {
                let from = (last + 1).saturating_sub(len);
                let mut fresh = ExtrapolatedRate::new(RateKind::Rate);
                fresh.load(&column);
                let (start_ms, end_ms) = (column.timestamps[from] - 1, column.timestamps[last]);
                let rescan = fresh.value(Window { column: &column, from, to: last + 1, start_ms, end_ms, at_ms: end_ms });
                prop_assert_eq!(slid, rescan);
            }
        }
    }
}
