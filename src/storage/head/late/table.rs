//! The late samples of all series of a shard.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use hashbrown::HashMap;

use crate::model::sample::SeriesRef;
use crate::model::time::{TimeRange, TimestampMs};
use crate::storage::chunk::written::ChunkPlace;
use crate::storage::head::commit::CommitId;
use crate::storage::head::late::{Inserted, LateChunk, LateChunks, LateRules, LateSample, Written, WrittenLate};
use crate::storage::head_chunk_store::Files;

/// Parts of the table: one is copied when a series gets its first late sample.
const PARTS: usize = 1024;

/// One series' late samples, replaced with each new one.
#[derive(Debug, Default)]
struct LateSeries {
    chunks: ArcSwap<LateChunks>,
}

type Part = HashMap<SeriesRef, Arc<LateSeries>, foldhash::fast::FixedState>;

/// The late samples of one shard. Written by the shard alone; readers load.
#[derive(Debug)]
pub(crate) struct LateTable {
    /// Made when the first sample comes.
    parts: OnceLock<Box<[ArcSwap<Part>]>>,
    series: AtomicU64,
    chunks: AtomicU64,
    min_t: AtomicI64,
    max_t: AtomicI64,
}

impl Default for LateTable {
    fn default() -> Self {
        Self {
            parts: OnceLock::new(),
            series: AtomicU64::new(0),
            chunks: AtomicU64::new(0),
            min_t: AtomicI64::new(i64::MAX),
            max_t: AtomicI64::new(i64::MIN),
        }
    }
}

impl LateTable {
    fn part(&self, series: SeriesRef) -> Option<&ArcSwap<Part>> {
        // References follow each other.
        self.parts.get()?.get((series.0 % PARTS as u64) as usize)
    }

    fn series_of(&self, series: SeriesRef) -> Option<Arc<LateSeries>> {
        self.part(series)?.load().get(&series).map(Arc::clone)
    }

    /// The late samples of a series as they are now.
    pub(crate) fn get(&self, series: SeriesRef) -> Option<Arc<LateChunks>> {
        self.series_of(series).map(|series| series.chunks.load_full())
    }

    /// True if the open chunk of the series has a sample at `t`, so that another one would be a repetition.
    pub(crate) fn repeats(&self, series: SeriesRef, t: i64, epoch: u64) -> bool {
        let Some(series) = self.series_of(series) else { return false };
        let chunks = series.chunks.load();
        chunks.open_epoch == epoch && chunks.open.binary_search_by_key(&t, |held| held.t).is_ok()
    }

    /// The place of a series' newest chunk if all its late samples stand in files.
    pub(crate) fn all_in_files(&self, series: SeriesRef) -> Option<ChunkPlace> {
        self.series_of(series)?.chunks.load().all_in_files()
    }

    /// Times of a series' late samples that are in memory alone, leaving out the first `from` closed chunks, and how many closed
    /// ones are in memory.
    pub(crate) fn times_in_memory(&self, series: SeriesRef, from: usize) -> (usize, Vec<i64>) {
        self.get(series).map_or_else(Default::default, |late| late.times_in_memory(from))
    }

    /// Closed chunks of a series that are to be written; see [`LateChunks::to_write`].
    pub(crate) fn to_write(&self, series: SeriesRef, epoch: u64, low: CommitId) -> (Vec<Arc<LateChunk>>, bool) {
        self.get(series).map_or_else(Default::default, |late| late.to_write(epoch, low))
    }

    /// Lets a series give chunks back that stand in files from now on. Only who holds the partition may call it.
    pub(crate) fn set_written(&self, series: SeriesRef, chunks: &[(Arc<LateChunk>, ChunkPlace)], files: &Arc<Files>) {
        if let Some(series) = self.series_of(series)
            && let Some(after) = series.chunks.load().with_written(chunks, files)
        {
            series.chunks.store(Arc::new(after));
        }
    }

    /// A series gets these chunks, which stand in files, before its others. Nobody reads it yet.
    pub(crate) fn begin_with(&self, series: SeriesRef, chunks: Vec<WrittenLate>, files: &Arc<Files>) {
        self.parts.get_or_init(|| (0..PARTS).map(|_| ArcSwap::default()).collect());
        let Some(part) = self.part(series) else { return };
        let known = self.series_of(series);
        let before = known.as_ref().map_or_else(Arc::default, |known| known.chunks.load_full());
        self.chunks.fetch_add(chunks.len() as u64, Ordering::Relaxed);
        for WrittenLate { chunk, .. } in &chunks {
            self.max_t.fetch_max(chunk.max_t, Ordering::SeqCst);
            self.min_t.fetch_min(chunk.min_t, Ordering::SeqCst);
        }
        // Of a series with two references each has its own.
        let mut all = [before.written(), &chunks].concat();
        all.sort_by_key(|one| one.chunk.place);
        let written = Written::of(all, files, None);
        let after = LateChunks {
            written,
            ..before.followed_by(Arc::clone(&before.closed), before.open.clone(), before.open_epoch)
        };
        let Some(known) = known else {
            let mut with = Part::clone(&part.load());
            with.insert(series, Arc::new(LateSeries { chunks: ArcSwap::from_pointee(after) }));
            part.store(Arc::new(with));
            self.series.fetch_add(1, Ordering::Relaxed);
            return;
        };
        known.chunks.store(Arc::new(after));
    }

    /// Puts a sample to those of its series. Only who holds the partition may call it.
    pub(crate) fn insert(&self, series: SeriesRef, sample: LateSample, rules: LateRules) -> Inserted {
        let parts = || (0..PARTS).map(|_| ArcSwap::default()).collect();
        self.parts.get_or_init(parts);
        let t = sample.t;
        let (new_chunks, has_closed) = match self.series_of(series) {
            Some(known) => {
                let before = known.chunks.load();
                let Some(after) = before.with(sample, rules) else { return Inserted::Repeated };
                let new_chunks = after.chunk_count() - before.chunk_count();
                let has_closed = before.closed.len() < after.closed.len();
                known.chunks.store(Arc::new(after));
                (new_chunks, has_closed)
            }
            None => {
                let Some(part) = self.part(series) else { return Inserted::Repeated };
                let Some(first) = LateChunks::default().with(sample, rules) else { return Inserted::Repeated };
                let has_closed = !first.closed.is_empty();
                let mut with = Part::clone(&part.load());
                with.insert(series, Arc::new(LateSeries { chunks: ArcSwap::from_pointee(first) }));
                part.store(Arc::new(with));
                self.series.fetch_add(1, Ordering::Relaxed);
                (1, has_closed)
            }
        };
        self.chunks.fetch_add(new_chunks, Ordering::Relaxed);
        self.max_t.fetch_max(t, Ordering::SeqCst);
        self.min_t.fetch_min(t, Ordering::SeqCst);
        Inserted::Taken { new_chunks, has_closed }
    }

    /// Times of the oldest and newest sample, or a wider range; `None` while there is none.
    pub(crate) fn span(&self) -> Option<TimeRange> {
        let (min, max) = (self.min_t.load(Ordering::SeqCst), self.max_t.load(Ordering::SeqCst));
        TimeRange::new(TimestampMs(min), TimestampMs(max)).ok()
    }

    /// Chunks in the table.
    pub(crate) fn chunk_count(&self) -> u64 {
        self.chunks.load(Ordering::Relaxed)
    }

    /// Series with late samples.
    pub(crate) fn series_count(&self) -> u64 {
        self.series.load(Ordering::Relaxed)
    }

    /// Number of parts that may hold something.
    pub(crate) fn part_count(&self) -> usize {
        self.parts.get().map_or(0, |parts| parts.len())
    }

    /// Drops the chunks up to `epoch` in one part: calls `emptied` with each series that has no other. Returns how many chunks
    /// and how many series were looked at. Only who holds the partition may call it.
    pub(crate) fn drop_epochs(&self, part: usize, epoch: u64, mut emptied: impl FnMut(SeriesRef)) -> (u64, usize) {
        let Some(slot) = self.parts.get().and_then(|parts| parts.get(part)) else { return (0, 0) };
        let before = slot.load_full();
        if before.is_empty() {
            return (0, 0);
        }
        let (mut kept, mut dropped) = (Part::default(), 0);
        for (series, late) in before.iter() {
            let chunks = late.chunks.load();
            let rest = chunks.without_epochs(epoch);
            dropped += chunks.chunk_count() - rest.chunk_count();
            if rest.is_empty() {
                emptied(*series);
                continue;
            }
            if rest.chunk_count() < chunks.chunk_count() {
                late.chunks.store(Arc::new(rest));
            }
            kept.insert(*series, Arc::clone(late));
        }
        let gone = (before.len() - kept.len()) as u64;
        slot.store(Arc::new(kept));
        self.chunks.fetch_sub(dropped, Ordering::Relaxed);
        if self.series.fetch_sub(gone, Ordering::Relaxed) == gone {
            self.min_t.store(i64::MAX, Ordering::SeqCst);
            self.max_t.store(i64::MIN, Ordering::SeqCst);
        }
        (dropped, before.len())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::model::read::SampleColumn;
    use crate::storage::head::late::LateValue;

    const SERIES: SeriesRef = SeriesRef(9);

    fn rules(epoch: u64, low: u64) -> LateRules {
        LateRules { epoch, low: CommitId(low), chunk_len: 4 }
    }

    fn insert(table: &LateTable, (t, value): (i64, f64), commit: u64, rules: LateRules) -> Inserted {
        let value = LateValue::Float(value);
        table.insert(SERIES, LateSample { t, start: t - 7, commit: CommitId(commit), value }, rules)
    }

    fn seen(table: &LateTable, commit: u64) -> Vec<(i64, f64)> {
        let mut out = SampleColumn::default();
        if let Some(chunks) = table.get(SERIES) {
            chunks.decode(TimeRange::ALL, CommitId(commit), &mut out).unwrap();
        }
        assert!(out.floats.timestamps.iter().map(|t| t - 7).eq(out.float_starts.iter().copied()));
        out.floats.timestamps.into_iter().zip(out.floats.values).collect()
    }

    #[test]
    fn a_sample_is_small() {
        assert_eq!((size_of::<LateValue>(), size_of::<LateSample>()), (16, 40));
    }

    #[test]
    fn repetitions_count_within_the_open_chunk_alone() {
        let table = LateTable::default();
        let taken = |new_chunks, has_closed| Inserted::Taken { new_chunks, has_closed };
        assert_eq!(insert(&table, (50, 1.0), 1, rules(0, 0)), taken(1, false));
        assert_eq!(insert(&table, (50, 2.0), 1, rules(0, 0)), Inserted::Repeated);
        assert!(table.repeats(SERIES, 50, 0) && !table.repeats(SERIES, 51, 0) && !table.repeats(SeriesRef(8), 50, 0));
        for (t, is_last) in [(20, false), (40, false), (30, true)] {
            assert_eq!(insert(&table, (t, 1.0), 1, rules(0, 0)), taken(0, is_last));
        }
        // The chunk is full: the next one does not know it.
        assert!(!table.repeats(SERIES, 50, 0));
        assert_eq!(insert(&table, (50, 3.0), 2, rules(0, 0)), taken(1, false));
        assert_eq!(seen(&table, 1), [(20, 1.0), (30, 1.0), (40, 1.0), (50, 1.0)]);
        assert_eq!(seen(&table, 2), [(20, 1.0), (30, 1.0), (40, 1.0), (50, 1.0)]);
        assert_eq!((table.chunk_count(), table.series_count(), seen(&table, 0)), (2, 1, vec![]));
    }

    #[test]
    fn epochs_are_dropped_and_later_samples_stay() {
        let table = LateTable::default();
        for t in 0..6 {
            insert(&table, (t, 0.0), 1, rules(0, 9));
        }
        insert(&table, (10, 1.0), 2, rules(1, 9));
        // A commit of the epoch before that is applied late.
        insert(&table, (7, 2.0), 1, rules(0, 9));
        assert_eq!(seen(&table, 9).len(), 8);
        let spans: Vec<_> = table.get(SERIES).unwrap().spans(0).collect();
        assert_eq!(spans, [(0, 3), (4, 5), (7, 7)]);
        let part = (SERIES.0 % PARTS as u64) as usize;
        assert_eq!(table.drop_epochs(part, 0, |_| panic!("one is left")), (3, 1));
        assert_eq!((seen(&table, 9), table.chunk_count()), (vec![(10, 1.0)], 1));
        let mut emptied = Vec::new();
        table.drop_epochs(part, 1, |series| emptied.push(series));
        assert_eq!((emptied, table.series_count(), table.span()), (vec![SERIES], 0, None));
    }

    proptest! {
        #[test]
        fn views_see_their_commits(samples in proptest::collection::vec((0i64..200, 1u64..9, 0u64..3), 1..120)) {
            let table = LateTable::default();
            let (mut expected, mut commit) = (BTreeMap::<u64, BTreeMap<i64, f64>>::new(), 0);
            for (number, (t, step, low)) in samples.into_iter().enumerate() {
                commit += step / 8;
                let value = number as f64;
                if let Inserted::Taken { .. } = insert(&table, (t, value), commit, rules(0, commit.min(low))) {
                    expected.entry(commit).or_default().entry(t).or_insert(value);
                }
            }
            for view in 2..=commit {
                let mut all = BTreeMap::new();
                for own in expected.range(..=view).map(|(_, own)| own) {
                    for (t, value) in own {
                        all.entry(*t).or_insert(*value);
                    }
                }
                prop_assert_eq!(seen(&table, view), all.into_iter().collect::<Vec<_>>());
            }
        }
    }
}
