//! Samples that several selectors look at: decoded for the first of them, and kept for those that follow.
//!
//! Only floats without start times are kept, as what else is decoded of a series may depend on the range that is asked for.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError, Weak};

use crate::model::read::{FloatColumn, ReadError, SampleColumn, SampleSource, SelectedSeries};
use crate::model::time::{TimeRange, TimestampMs};
use crate::promql::eval::common::Room;
use crate::promql::eval::exec::Selection;
use crate::promql::eval::ledger::{Charge, QueryLedger};
use crate::promql::plan::Read;

/// What the series of one read have in common.
pub(crate) struct KeptSamples {
    range: TimeRange,
    decodes: u32,
    ledger: Arc<QueryLedger>,
    room: (Arc<AtomicUsize>, usize),
    /// Set when it has turned out that there is nothing to keep.
    is_off: AtomicBool,
    sources: Mutex<(Vec<Weak<KeptSource>>, Option<Charge>)>,
}

impl std::fmt::Debug for KeptSamples {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeptSamples").field("range", &self.range).finish_non_exhaustive()
    }
}

/// What a series takes, its samples aside.
const SOURCE_LEN: usize = size_of::<KeptSource>() + 3 * size_of::<usize>();

/// The samples of one series.
struct KeptSource {
    inner: Arc<dyn SampleSource>,
    common: Arc<KeptSamples>,
    state: Mutex<State>,
}

struct State {
    /// How often the series is still decoded.
    left: u32,
    kept: Option<Kept>,
}

struct Kept {
    timestamps: Box<[i64]>,
    values: Box<[f64]>,
    _held: (Charge, Room),
}

impl KeptSamples {
    /// Keeps nothing yet; `None` if the read is of no time. `room` is shared by all reads of a query, and bounded.
    pub(crate) fn new(read: Read, ledger: Arc<QueryLedger>, room: (Arc<AtomicUsize>, usize)) -> Option<Arc<Self>> {
        let range = TimeRange::new(TimestampMs(read.range_ms.0), TimestampMs(read.range_ms.1)).ok()?;
        let (is_off, sources) = (AtomicBool::new(false), Mutex::default());
        Some(Arc::new(Self { range, decodes: read.decodes, ledger, room, is_off, sources }))
    }

    /// The same series, whose samples are kept, if nobody else has them and there is memory to spare.
    pub(crate) fn keeping(self: &Arc<Self>, selection: Selection) -> Option<Selection> {
        let held = self.ledger.charge_spare(selection.series().len().saturating_mul(SOURCE_LEN))?;
        let mut sources = Vec::with_capacity(selection.series().len());
        let kept = selection.map(|series| {
            let state = Mutex::new(State { left: self.decodes, kept: None });
            let source = Arc::new(KeptSource { inner: series.samples, common: Arc::clone(self), state });
            sources.push(Arc::downgrade(&source));
            SelectedSeries { labels: series.labels, samples: source }
        });
        *self.sources.lock().unwrap_or_else(PoisonError::into_inner) = (sources, Some(held));
        kept
    }

    /// Lets go of all samples, and keeps no more.
    pub(crate) fn forget(&self) {
        self.is_off.store(true, Ordering::Relaxed);
        let (sources, _held) = std::mem::take(&mut *self.sources.lock().unwrap_or_else(PoisonError::into_inner));
        for source in sources.iter().filter_map(Weak::upgrade) {
            // One that is being decoded is not waited for.
            match source.state.try_lock() {
                Ok(mut state) => state.kept = None,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().kept = None,
                Err(TryLockError::WouldBlock) => {}
            }
        }
    }
}

impl KeptSource {
    /// Decodes everything that the selectors want, and leaves in `out` what this one wants.
    fn decode_first(&self, range: TimeRange, out: &mut SampleColumn) -> Result<Option<Kept>, ReadError> {
        let common = &*self.common;
        let has_starts = |out: &SampleColumn| !out.float_starts.is_empty();
        let is_decoded = self.inner.decode_all(common.range, out).is_ok();
        if !is_decoded || !out.histograms.is_empty() || has_starts(out) {
            // An error here may lie outside of what is asked for.
            common.is_off.store(true, Ordering::Relaxed);
            out.clear();
            self.inner.decode_all(range, out)?;
            return Ok(None);
        }
        let floats = &mut out.floats;
        let bytes = floats.len() * 16;
        let kept = Room::take(&common.room.0, bytes, common.room.1).and_then(|room| {
            let held = common.ledger.charge_spare(bytes)?;
            let (timestamps, values) = (floats.timestamps.as_slice().into(), floats.values.as_slice().into());
            Some(Kept { timestamps, values, _held: (held, room) })
        });
        let (from, to) = within(&floats.timestamps, range);
        cut(&mut floats.timestamps, from, to);
        cut(&mut floats.values, from, to);
        Ok(kept)
    }
}

fn cut<T: Copy>(values: &mut Vec<T>, from: usize, to: usize) {
    values.copy_within(from..to, 0);
    values.truncate(to - from);
}

/// Where the times of a range begin and end.
fn within(timestamps: &[i64], range: TimeRange) -> (usize, usize) {
    let from = timestamps.partition_point(|at_ms| *at_ms < range.min().0);
    let to = timestamps.partition_point(|at_ms| *at_ms <= range.max().0);
    (from, to.max(from))
}

impl SampleSource for KeptSource {
    fn decode(&self, range: TimeRange, out: &mut FloatColumn) -> Result<(), ReadError> {
        self.inner.decode(range, out)
    }

    fn decode_all(&self, range: TimeRange, out: &mut SampleColumn) -> Result<(), ReadError> {
        let common = &*self.common;
        if common.is_off.load(Ordering::Relaxed) || !out.is_empty() {
            return self.inner.decode_all(range, out);
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.left = state.left.saturating_sub(1);
        let has_more = 0 < state.left;
        match &state.kept {
            Some(kept) => {
                let (from, to) = within(&kept.timestamps, range);
                out.floats.timestamps.extend_from_slice(kept.timestamps.get(from..to).unwrap_or(&[]));
                out.floats.values.extend_from_slice(kept.values.get(from..to).unwrap_or(&[]));
            }
            None if has_more => state.kept = self.decode_first(range, out)?,
            None => return self.inner.decode_all(range, out),
        }
        if !has_more {
            state.kept = None;
        }
        Ok(())
    }

    fn decode_newest(&self, range: TimeRange, out: &mut SampleColumn) -> Result<(), ReadError> {
        self.inner.decode_newest(range, out)
    }

    fn whole_histogram_times(&self, range: TimeRange, out: &mut Vec<i64>) -> Result<(), ReadError> {
        self.inner.whole_histogram_times(range, out)
    }

    fn reference(&self) -> Option<u64> {
        self.inner.reference()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::labels::Labels;
    use crate::promql::eval::ledger::MemoryPool;

    /// A sample each second, and how often it was decoded.
    struct Counted(AtomicUsize);

    impl SampleSource for Counted {
        fn decode(&self, range: TimeRange, out: &mut FloatColumn) -> Result<(), ReadError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            (0..100).map(|second| second * 1000).filter(|at| (range.min().0..=range.max().0).contains(at)).for_each(
                |at| {
                    out.push(at, at as f64);
                },
            );
            Ok(())
        }
    }

    fn source(decodes: u32, ledger: &Arc<QueryLedger>, room: usize) -> (Arc<Counted>, Arc<KeptSamples>, Selection) {
        let inner = Arc::new(Counted(AtomicUsize::new(0)));
        let read = Read { range_ms: (0, 90_000), selectors: decodes, decodes };
        let kept = KeptSamples::new(read, Arc::clone(ledger), (Arc::new(AtomicUsize::new(0)), room)).unwrap();
        let series = vec![SelectedSeries { labels: Labels::empty(), samples: Arc::clone(&inner) as _ }];
        let selection = Selection::new(series, ledger.charge(0).unwrap());
        let selection = kept.keeping(selection).unwrap();
        (inner, kept, selection)
    }

    #[track_caller]
    fn check(selection: &Selection, from_s: i64, to_s: i64) {
        let range = TimeRange::new(TimestampMs(from_s * 1000), TimestampMs(to_s * 1000)).unwrap();
        let mut out = SampleColumn::default();
        selection.series()[0].samples.decode_all(range, &mut out).unwrap();
        let expected: Vec<i64> = (from_s..=to_s).map(|second| second * 1000).collect();
        assert_eq!(out.floats.timestamps, expected);
        assert_eq!(out.floats.values, expected.iter().map(|at| *at as f64).collect::<Vec<_>>());
    }

    #[test]
    fn samples_are_decoded_once_and_go_with_the_last_who_wants_them() {
        let ledger = QueryLedger::unlimited();
        let (inner, _kept, selection) = source(3, &ledger, 1 << 20);
        check(&selection, 10, 20);
        assert_eq!(ledger.used(), SOURCE_LEN + 91 * 16);
        check(&selection, 0, 90);
        check(&selection, 15, 40);
        assert_eq!((inner.0.load(Ordering::Relaxed), ledger.used()), (1, SOURCE_LEN));
        check(&selection, 3, 4);
        assert_eq!(inner.0.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn without_room_or_after_they_were_let_go_they_are_decoded_again() {
        let ledger = QueryLedger::unlimited();
        let (inner, kept, selection) = source(3, &ledger, 100);
        check(&selection, 10, 20);
        check(&selection, 10, 30);
        assert_eq!((inner.0.load(Ordering::Relaxed), ledger.used()), (2, SOURCE_LEN));
        drop((kept, selection));
        let tight = QueryLedger::open(&MemoryPool::new(0), SOURCE_LEN + 100);
        let (_, _kept, selection) = source(3, &tight, 1 << 20);
        check(&selection, 10, 20);
        assert_eq!(tight.used(), SOURCE_LEN);
        let (inner, kept, selection) = source(3, &ledger, 1 << 20);
        check(&selection, 10, 20);
        kept.forget();
        assert_eq!(ledger.used(), 0);
        check(&selection, 10, 30);
        assert_eq!(inner.0.load(Ordering::Relaxed), 2);
    }
}
