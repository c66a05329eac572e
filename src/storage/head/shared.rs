//! What all shards of a head share: bounds, counters, the source of series references.

use std::collections::HashSet;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::model::sample::SeriesRef;
use crate::storage::chunk::cut::CutRules;
use crate::storage::head::commit::Horizon;
use crate::storage::head::deletion::Deleted;
use crate::storage::head::exemplars::Exemplars;
use crate::storage::head::index::order::KnownRanks;
use crate::storage::head::late::LATE_CHUNK_LEN;
use crate::storage::head::marks::Marks;
use crate::storage::head::starts::{BlockEncodings, StartPolicy};
use crate::storage::head::table::SERIES_REF_MAX;
use crate::storage::head::view::KnownSelections;
use crate::storage::head_chunk_store::ChunkStore;

/// State of a head beside its shards. All but the exemplars and what is seldom asked is atomics: shards and readers use it without
/// waiting.
#[derive(Debug)]
pub(crate) struct HeadShared {
    pub(crate) horizon: Arc<Horizon>,
    pub(crate) rules: CutRules,
    pub(crate) series_limit: u64,
    next_ref: AtomicU64,
    series_count: AtomicU64,
    /// Oldest and newest sample; `MAX` and `MIN` while there is none.
    min_t: AtomicI64,
    max_t: AtomicI64,
    /// Older samples are neither accepted nor shown.
    min_valid: AtomicI64,
    pub(crate) counters: Counters,
    pub(crate) marks: Arc<Marks>,
    pub(crate) known: Arc<KnownSelections>,
    pub(crate) ranks: Arc<KnownRanks>,
    pub(crate) deleted: Deleted,
    pub(crate) exemplars: Exemplars,
    /// How far behind the newest sample others may come out of order; 0 for not at all.
    pub(crate) late_window_ms: AtomicI64,
    /// Where late samples of new commits belong; see `late`.
    pub(crate) late_epoch: AtomicU64,
    /// Samples of an open chunk of late ones.
    pub(crate) late_chunk_len: usize,
    pub(crate) starts: StartPolicy,
    pub(crate) encodings: BlockEncodings,
    /// Files of finished chunks, once the head has been opened over some.
    chunk_store: OnceLock<Arc<ChunkStore>>,
    /// Series that the log names by other references as well.
    with_aliases: Mutex<HashSet<SeriesRef>>,
}

/// Bytes of selections that are remembered: those of some hundred thousand series.
pub(crate) const KNOWN_LEN_MAX: usize = 32 << 20;

/// Counts since the process started.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) samples_appended: AtomicU64,
    pub(crate) histograms_appended: AtomicU64,
    pub(crate) series_created: AtomicU64,
    pub(crate) series_removed: AtomicU64,
    pub(crate) series_not_found: AtomicU64,
    pub(crate) chunks_created: AtomicU64,
    pub(crate) chunks_removed: AtomicU64,
    pub(crate) out_of_order: AtomicU64,
    pub(crate) out_of_bounds: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    pub(crate) invalid_histograms: AtomicU64,
    pub(crate) series_refused: AtomicU64,
    pub(crate) commits_abandoned: AtomicU64,
    pub(crate) truncations: AtomicU64,
    pub(crate) out_of_order_histograms: AtomicU64,
    pub(crate) too_old: AtomicU64,
    pub(crate) too_old_histograms: AtomicU64,
    pub(crate) late_floats: AtomicU64,
    pub(crate) late_histograms: AtomicU64,
    /// How far samples that did not come in order lay behind the newest.
    pub(crate) late_by: LateBy,
}

/// Upper bounds of the buckets of [`LateBy`], in seconds; Prometheus's.
pub(crate) const LATE_BOUNDS_S: [i64; 7] = [600, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200];

/// Counts of samples by how late they came.
#[derive(Debug, Default)]
pub(crate) struct LateBy {
    pub(crate) buckets: [AtomicU64; LATE_BOUNDS_S.len() + 1],
    pub(crate) sum_ms: AtomicU64,
}

impl LateBy {
    /// Counts a sample; one that is not late at all does not count.
    pub(crate) fn observe(&self, behind_ms: i64) {
        let Some(late_ms) = u64::try_from(behind_ms).ok().filter(|ms| 0 < *ms) else { return };
        let bucket = LATE_BOUNDS_S.partition_point(|bound| bound * 1000 < behind_ms);
        if let Some(bucket) = self.buckets.get(bucket) {
            count(bucket, 1);
        }
        count(&self.sum_ms, late_ms);
    }
}

/// Adds to a counter.
pub(crate) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

impl HeadShared {
    pub(crate) fn new(rules: CutRules, series_limit: u64, first_ref: u64) -> Self {
        Self {
            horizon: Arc::default(),
            rules,
            series_limit,
            next_ref: AtomicU64::new(first_ref),
            series_count: AtomicU64::new(0),
            min_t: AtomicI64::new(i64::MAX),
            max_t: AtomicI64::new(i64::MIN),
            min_valid: AtomicI64::new(i64::MIN),
            counters: Counters::default(),
            marks: Arc::default(),
            known: Arc::new(KnownSelections::new(KNOWN_LEN_MAX)),
            ranks: Arc::default(),
            deleted: Deleted::default(),
            exemplars: Exemplars::default(),
            late_window_ms: AtomicI64::new(0),
            late_epoch: AtomicU64::new(0),
            late_chunk_len: LATE_CHUNK_LEN,
            starts: StartPolicy::default(),
            encodings: BlockEncodings::default(),
            chunk_store: OnceLock::new(),
            with_aliases: Mutex::default(),
        }
    }

    /// The same with a policy for start times, and with late chunks of so many samples.
    pub(crate) fn with_late(self, starts: StartPolicy, late_chunk_len: usize) -> Self {
        Self { starts, late_chunk_len, ..self }
    }

    /// Takes note of series that the log names by other references as well.
    pub(crate) fn note_aliases<'a>(&self, of: impl IntoIterator<Item = &'a SeriesRef>) {
        self.with_aliases.lock().extend(of);
    }

    /// True if the log names a series by another reference as well.
    pub(crate) fn has_aliases(&self, series: SeriesRef) -> bool {
        self.with_aliases.lock().contains(&series)
    }

    pub(crate) fn chunk_store(&self) -> Option<&Arc<ChunkStore>> {
        self.chunk_store.get()
    }

    /// False if there is one already.
    pub(crate) fn set_chunk_store(&self, store: ChunkStore) -> bool {
        self.chunk_store.set(Arc::new(store)).is_ok()
    }

    /// The same with room for so many bytes of selections.
    pub(crate) fn remembering(self, known_len_max: usize) -> Self {
        Self { known: Arc::new(KnownSelections::new(known_len_max)), ..self }
    }

    pub(crate) fn new_ref(&self) -> SeriesRef {
        let next = self.next_ref.fetch_add(1, Ordering::Relaxed);
        assert!(next < SERIES_REF_MAX, "series references are used up");
        SeriesRef(next)
    }

    /// References below `above` are taken from now on.
    pub(crate) fn raise_next_ref(&self, above: u64) {
        self.next_ref.fetch_max(above, Ordering::Relaxed);
    }

    /// The reference that comes next.
    pub(crate) fn next_ref(&self) -> u64 {
        self.next_ref.load(Ordering::Relaxed)
    }

    /// Counts a series that comes from the log, whatever the limit.
    pub(crate) fn restored_series(&self) {
        self.series_count.fetch_add(1, Ordering::Relaxed);
        count(&self.counters.series_created, 1);
    }

    /// Takes room for one series; on failure tells how many there are.
    pub(crate) fn reserve_series(&self) -> Result<(), u64> {
        let limit = self.series_limit;
        let take = |held| (limit == 0 || held < limit).then(|| held + 1);
        self.series_count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).map(|_| ())
    }

    pub(crate) fn release_series(&self, number: u64) {
        self.series_count.fetch_sub(number, Ordering::Relaxed);
    }

    pub(crate) fn series_count(&self) -> u64 {
        self.series_count.load(Ordering::Relaxed)
    }

    /// Oldest and newest sample, or `None` while the head is empty.
    pub(crate) fn time_span(&self) -> Option<(i64, i64)> {
        let (min, max) = (self.min_t.load(Ordering::SeqCst), self.max_t.load(Ordering::SeqCst));
        (min <= max).then_some((min, max))
    }

    pub(crate) fn widen_span(&self, min: i64, max: i64) {
        // The newest first, as whoever sees an oldest sample relies on the newest.
        self.max_t.fetch_max(max, Ordering::SeqCst);
        self.min_t.fetch_min(min, Ordering::SeqCst);
    }

    pub(crate) fn min_valid(&self) -> i64 {
        self.min_valid.load(Ordering::SeqCst)
    }

    /// Raises the bound below which samples are neither accepted nor shown.
    pub(crate) fn raise_min_valid(&self, min_valid: i64) {
        self.min_valid.fetch_max(min_valid, Ordering::SeqCst);
        if self.time_span().is_some() {
            self.min_t.fetch_max(min_valid, Ordering::SeqCst);
            self.max_t.fetch_max(min_valid, Ordering::SeqCst);
        }
    }
}
