//! Start times: when what a sample counts has begun. Series that have none take nothing for them.
//!
//! Of a series that has some, a run is kept for each change: from a time on, its samples have this start. The chunks of the head
//! have no room for starts; they get them when a block is written. Readers hold the lock to copy the runs of one series.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::model::append::{HistogramValue, SampleRejection};
use crate::model::histogram::{CounterResetHint, FloatHistogram, Histogram};
use crate::model::sample::SeriesRef;
use crate::model::time::TimestampMs;
use crate::storage::chunk::Encoding;

/// What becomes of start times that come with samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StartPolicy {
    /// A zero is stored at the start, if that is newer than the series' newest sample (`created-timestamp-zero-ingestion`).
    pub zero_samples: bool,
    /// They are stored (`st-storage`).
    pub stored: bool,
}

/// Encodings of the blocks that the head becomes; a configuration may change them.
#[derive(Debug, Default)]
pub(crate) struct BlockEncodings {
    floats_with_starts: AtomicBool,
    histograms_with_starts: AtomicBool,
}

impl BlockEncodings {
    pub(crate) fn set(&self, floats_with_starts: bool, histograms_with_starts: bool) {
        self.floats_with_starts.store(floats_with_starts, Ordering::Relaxed);
        self.histograms_with_starts.store(histograms_with_starts, Ordering::Relaxed);
    }

    /// Whether a chunk of this encoding is to have room for start times.
    pub(crate) fn wants_starts(&self, encoding: Encoding) -> bool {
        let wanted = match encoding {
            Encoding::Xor | Encoding::Xor2 => &self.floats_with_starts,
            _ => &self.histograms_with_starts,
        };
        wanted.load(Ordering::Relaxed)
    }
}

/// A run: its first time and the start of its samples, 0 if that is not known.
pub(crate) type Run = (i64, i64);

/// The start times of one shard's series.
#[derive(Debug, Default)]
pub(crate) struct Starts {
    /// Whether there is any run.
    any: AtomicBool,
    runs: Mutex<HashMap<SeriesRef, Vec<Run>, foldhash::fast::FixedState>>,
}

impl Starts {
    /// Notes the start of a sample that is newer than those noted before.
    pub(crate) fn note(&self, series: SeriesRef, t: i64, start: i64) {
        if start == 0 && !self.any.load(Ordering::Relaxed) {
            return;
        }
        let mut all = self.runs.lock();
        let known = all.get(&series).and_then(|runs| runs.last()).map_or(0, |run| run.1);
        if known != start {
            all.entry(series).or_default().push((t, start));
            self.any.store(true, Ordering::Relaxed);
        }
    }

    /// The runs of a series, oldest first.
    pub(crate) fn runs(&self, series: SeriesRef) -> Vec<Run> {
        if !self.any.load(Ordering::Relaxed) {
            return Vec::new();
        }
        self.runs.lock().get(&series).cloned().unwrap_or_default()
    }

    /// Forgets all, as the partition is thrown away.
    pub(crate) fn clear(&self) {
        self.runs.lock().clear();
    }

    /// Forgets what ends before `min_valid`, and series that are gone.
    pub(crate) fn truncate(&self, min_valid: i64, is_there: impl Fn(SeriesRef) -> bool) {
        if !self.any.load(Ordering::Relaxed) {
            return;
        }
        self.runs.lock().retain(|series, runs| {
            let ended = runs.partition_point(|run| run.0 <= min_valid).saturating_sub(1);
            runs.drain(..ended);
            is_there(*series)
        });
    }
}

/// The start of a sample; 0 if it is not known.
pub(crate) fn start_at(runs: &[Run], t: i64) -> i64 {
    let after = runs.partition_point(|run| run.0 <= t);
    after.checked_sub(1).and_then(|at| runs.get(at)).map_or(0, |run| run.1)
}

/// The histogram that stands at the start of another: nothing was counted yet.
pub(super) fn zero_of(value: &HistogramValue) -> HistogramValue {
    match value {
        HistogramValue::Integer(h) => Histogram {
            counter_reset_hint: CounterResetHint::Reset,
            schema: h.schema,
            zero_threshold: h.zero_threshold,
            custom_values: h.custom_values.clone(),
            ..Histogram::default()
        }
        .into(),
        HistogramValue::Float(h) => FloatHistogram {
            counter_reset_hint: CounterResetHint::Reset,
            schema: h.schema,
            zero_threshold: h.zero_threshold,
            custom_values: h.custom_values.clone(),
            ..FloatHistogram::default()
        }
        .into(),
    }
}

/// Whether a zero may stand at `start`: before its sample, behind the newest of the series, within the bounds.
pub(super) fn takes_zero(
    start: i64,
    t: TimestampMs,
    newest: Option<i64>,
    admits: impl Fn(TimestampMs) -> bool,
) -> Result<(), SampleRejection> {
    if !admits(TimestampMs(start)) {
        return Err(SampleRejection::OutOfBounds);
    }
    if t.0 <= start || newest.is_some_and(|newest| start <= newest) {
        return Err(SampleRejection::OutOfOrder);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_say_which_start_holds_when() {
        let starts = Starts::default();
        let (a, b) = (SeriesRef(1), SeriesRef(2));
        starts.note(a, 5, 0);
        assert_eq!(starts.runs(a), []);
        for (t, start) in [(10, 7), (20, 7), (30, 25), (40, 0), (50, 0)] {
            starts.note(a, t, start);
        }
        starts.note(b, 10, 3);
        let runs = starts.runs(a);
        assert_eq!(runs, [(10, 7), (30, 25), (40, 0)]);
        assert_eq!([5, 10, 29, 30, 39, 40, 99].map(|t| start_at(&runs, t)), [0, 7, 7, 25, 25, 0, 0]);
        starts.truncate(35, |series| series == a);
        assert_eq!((starts.runs(a), starts.runs(b)), (vec![(30, 25), (40, 0)], vec![]));
        starts.clear();
        assert_eq!(starts.runs(a), []);
    }
}
