//! Summaries: sum and count since the start, quantiles over the last ten minutes.
//!
//! Observations of the window fall into five slots of two minutes; each slot counts them in buckets whose bounds grow by
//! 2 %, so a quantile is within about 1 % of the true one and a slot's size is bounded by the range of its values,
//! never by their number. Values of zero and below share one bucket.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::model::clock::SharedClock;
use crate::telemetry::metrics::MetricValue;

/// How far back quantiles look.
pub const WINDOW: Duration = Duration::from_secs(600);
const SLOT_COUNT: usize = 5;
const SLOT: Duration = Duration::from_secs(WINDOW.as_secs() / SLOT_COUNT as u64);
/// Ratio of neighbouring bucket bounds.
const GROWTH: f64 = 1.02;

/// Sum, count and sliding quantiles of observations. Clones share the values.
#[derive(Clone)]
pub struct Summary {
    inner: Arc<Inner>,
}

struct Inner {
    quantiles: Box<[f64]>,
    clock: SharedClock,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sum: f64,
    count: u64,
    slots: [Slot; SLOT_COUNT],
}

#[derive(Default)]
struct Slot {
    /// Which two minutes since the clock's origin the counts belong to.
    epoch: u64,
    counts: BTreeMap<i32, u64>,
}

impl Summary {
    /// A summary that reports `quantiles` (ascending; may be none).
    pub fn new(quantiles: &[f64], clock: SharedClock) -> Self {
        Self { inner: Arc::new(Inner { quantiles: quantiles.into(), clock, state: Mutex::default() }) }
    }

    /// Counts one observation; NaN is counted in the sum, as Prometheus's client does, and in no quantile.
    pub fn observe(&self, value: f64) {
        let epoch = self.epoch();
        let mut state = self.inner.state.lock();
        state.sum += value;
        state.count += 1;
        if self.inner.quantiles.is_empty() || value.is_nan() {
            return;
        }
        let slot = &mut state.slots[slot_index(epoch)];
        if slot.epoch != epoch {
            slot.epoch = epoch;
            slot.counts.clear();
        }
        *slot.counts.entry(bucket(value)).or_default() += 1;
    }

    pub(crate) fn gather(&self) -> MetricValue {
        let epoch = self.epoch();
        let state = self.inner.state.lock();
        let mut window: BTreeMap<i32, u64> = BTreeMap::new();
        for slot in state.slots.iter().filter(|slot| epoch < slot.epoch + SLOT_COUNT as u64) {
            for (bucket, count) in &slot.counts {
                *window.entry(*bucket).or_default() += count;
            }
        }
        let quantiles = self.inner.quantiles.iter().map(|q| (*q, quantile(&window, *q))).collect();
        MetricValue::Summary { quantiles, sum: state.sum, count: state.count }
    }

    fn epoch(&self) -> u64 {
        self.inner.clock.monotonic().as_secs() / SLOT.as_secs()
    }
}

impl std::fmt::Debug for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Summary").field("quantiles", &self.inner.quantiles).finish_non_exhaustive()
    }
}

fn slot_index(epoch: u64) -> usize {
    usize::try_from(epoch % SLOT_COUNT as u64).unwrap_or(0)
}

fn bucket(value: f64) -> i32 {
    // The cast saturates: infinite and huge values share the last bucket.
    if value <= 0.0 { i32::MIN } else { (value.ln() / GROWTH.ln()).ceil() as i32 }
}

fn quantile(window: &BTreeMap<i32, u64>, q: f64) -> f64 {
    let total: u64 = window.values().sum();
    if total == 0 {
        return f64::NAN;
    }
    let rank = ((q * total as f64).ceil() as u64).max(1);
    let mut seen = 0;
    for (bucket, count) in window {
        seen += count;
        if rank <= seen {
            return if *bucket == i32::MIN { 0.0 } else { GROWTH.powi(*bucket) * (1.0 + 1.0 / GROWTH) / 2.0 };
        }
    }
    f64::NAN
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::clock::ManualClock;
    use crate::model::time::TimestampMs;

    fn quantiles(summary: &Summary) -> Vec<f64> {
        match summary.gather() {
            MetricValue::Summary { quantiles, .. } => quantiles.into_iter().map(|(_, value)| value).collect(),
            other => panic!("not a summary: {other:?}"),
        }
    }

    #[test]
    fn quantiles_are_within_one_percent() {
        let summary = Summary::new(&[0.5, 0.9, 0.99], ManualClock::at(TimestampMs(0)));
        (1..=1000).for_each(|n| summary.observe(f64::from(n) / 1000.0));
        for (got, want) in quantiles(&summary).into_iter().zip([0.5, 0.9, 0.99]) {
            assert!((got / want - 1.0).abs() < 0.011, "{got} is not {want}");
        }
        match summary.gather() {
            MetricValue::Summary { sum, count, .. } => {
                assert!((sum - 500.5).abs() < 1e-9);
                assert_eq!(count, 1000);
            }
            other => panic!("not a summary: {other:?}"),
        }
    }

    #[test]
    fn old_observations_leave_the_quantiles_and_stay_in_the_sum() {
        let clock = ManualClock::at(TimestampMs(0));
        let summary = Summary::new(&[0.5], clock.clone());
        summary.observe(5.0);
        clock.advance(WINDOW);
        assert!(quantiles(&summary)[0].is_nan());
        assert!(matches!(summary.gather(), MetricValue::Summary { sum: 5.0, count: 1, .. }));
        summary.observe(0.0);
        assert_eq!(quantiles(&summary), vec![0.0]);
    }
}
