//! The head: the newest samples, in memory, in shards that append independently of each other.
//!
//! ```text
//! AppendBatch ─ Head::begin ─ Head::route ─┬─ Shard::stage ─ (log) ─ Shard::apply ─┐
//!                                          └─ Shard::stage ─ (log) ─ Shard::apply ─┴─ visible
//! Head::queryable ─ view ─ select ─ decode, on the reader's thread
//! ```
//! Invariants: a shard has one writer; readers never wait for it nor it for them; a view sees each commit whole or not
//! at all; a series reference is never used twice.
//!
//! Where the log comes in: between `stage`, which names the records ([`shard::Staged`]), and `apply`, which cannot fail.

use std::sync::Arc;

use crate::model::append::{AppendBatch, AppendReport, ShardId};
use crate::model::clock::SharedClock;
use crate::model::read::{Queryable, ReadError, ReadView, SampleColumn};
use crate::model::sample::SeriesRef;
use crate::model::time::{TimeRange, TimestampMs};

pub mod bounds;
pub mod cardinality;
mod chunk_damage;
mod chunk_writes;
mod column;
pub mod commit;
pub mod deletion;
pub mod ended;
mod exemplar_restore;
pub mod exemplars;
pub mod export;
pub mod image;
mod index;
pub mod late;
mod late_export;
mod marks;
mod native;
mod partition;
mod ref_places;
mod ref_table;
pub mod restore;
pub mod route;
mod series;
pub mod shard;
mod shared;
mod slot;
pub mod starts;
pub mod stats;
mod table;
mod truncate;
mod view;

pub(crate) use chunk_damage::DamagedSeries;
pub use chunk_writes::{ChunkJob, ChunkStep, Marked};
pub use index::{LookJob, MergeJob, MergedSegment};
pub use late_export::{LateCut, LateExport};
pub use partition::staged::{NewSeries, StagedExemplar, StagedHistogram, StagedLate, StagedMetadata, StagedSample};
pub use truncate::Reclaimed;

use crate::storage::chunk::cut::CutRules;
use crate::storage::head::bounds::AppendBounds;
use crate::storage::head::column::Output;
use crate::storage::head::commit::Commit;
use crate::storage::head::route::Slice;
use crate::storage::head::shard::{HeadCommit, Shard};
use crate::storage::head::shared::HeadShared;
use crate::storage::head::starts::StartPolicy;
use crate::storage::head::stats::HeadStats;
use crate::storage::head::view::HeadView;

/// How a head is set up.
#[derive(Clone)]
pub struct HeadOptions {
    /// Number of shards, at least 1.
    pub shards: u16,
    /// Most series in all shards together; 0 for no limit.
    pub series_limit: u64,
    /// When chunks are cut, and with the chunk range how old a sample may be.
    pub rules: CutRules,
    /// The first series reference to hand out: above every one that the data directory has seen.
    pub first_ref: u64,
    /// What becomes of start times.
    pub starts: StartPolicy,
    /// Samples of a chunk of those that come out of order.
    pub late_chunk_len: usize,
    /// Bytes of selections that are remembered, about so many at most.
    pub known_len_max: usize,
    /// Tells which samples lie in the future.
    pub clock: SharedClock,
}

impl HeadOptions {
    /// One shard, no limit, Prometheus's default chunks.
    pub fn new(clock: SharedClock) -> Self {
        let (rules, starts) = (CutRules::default(), StartPolicy::default());
        let (late_chunk_len, known_len_max) = (late::LATE_CHUNK_LEN, shared::KNOWN_LEN_MAX);
        Self { shards: 1, series_limit: 0, rules, first_ref: 1, starts, late_chunk_len, known_len_max, clock }
    }
}

/// Why the head cannot take samples.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// A shard is being rebuilt or has failed; none of the samples was stored.
    #[error("shard {shard} is not available: {reason}")]
    ShardUnavailable {
        /// Which shard.
        shard: u16,
        /// What it is doing instead.
        reason: String,
    },
}

/// The newest samples, in memory.
pub struct Head {
    shared: Arc<HeadShared>,
    shards: Vec<Arc<Shard>>,
    clock: SharedClock,
}

impl Head {
    /// An empty head.
    pub fn new(options: HeadOptions) -> Self {
        let shared = HeadShared::new(options.rules, options.series_limit, options.first_ref);
        let shared = shared.with_late(options.starts, options.late_chunk_len).remembering(options.known_len_max);
        let shared = Arc::new(shared);
        let shards = (0..options.shards.max(1)).map(|id| Arc::new(Shard::new(ShardId(id), &shared))).collect();
        Self { shared, shards, clock: options.clock }
    }

    /// Its shards, by number; each is written by one thread.
    pub fn shards(&self) -> &[Arc<Shard>] {
        &self.shards
    }

    /// Begins a commit. `first` is the time of the batch's first sample: it sets the bounds while the head is empty;
    /// without it everything up to the clock's bound is accepted then.
    pub fn begin(&self, first: Option<TimestampMs>) -> HeadCommit {
        // The number comes first: whoever has seen it begin after a time knows bounds that were taken after that time.
        let commit = Commit::begin(&self.shared.horizon);
        let now = self.clock.now();
        let newest = self.shared.time_span().map(|(_, max)| max);
        let range_ms = self.shared.rules.chunk_range_ms;
        let bounds = AppendBounds::new(newest, first, now, self.shared.min_valid(), range_ms);
        let bounds = bounds.with_window(self.late_window_ms(), self.late_epoch());
        let bounds = bounds.with_known_return(self.clock.was_ahead_until());
        HeadCommit { commit, bounds }
    }

    /// Parts `batch` into slices for the shards; samples keep their index in the batch.
    pub fn route(&self, batch: AppendBatch) -> Vec<(ShardId, Slice)> {
        route::route(batch, self.shard_count())
    }

    /// The exemplars of its series; nothing is stored there before it is given room.
    pub fn exemplars(&self) -> &exemplars::Exemplars {
        &self.shared.exemplars
    }

    /// Whether start times are stored.
    pub fn stores_starts(&self) -> bool {
        self.shared.starts.stored
    }

    /// Whether chunks of blocks that the head becomes have room for start times, from now on.
    pub fn set_block_encodings(&self, floats_with_starts: bool, histograms_with_starts: bool) {
        self.shared.encodings.set(floats_with_starts, histograms_with_starts);
    }

    /// Opens read views.
    pub fn queryable(&self) -> Arc<dyn Queryable> {
        Arc::new(HeadQueryable { shared: Arc::clone(&self.shared), shards: self.shards.clone() })
    }

    /// Appends `batch` on the caller's thread, without a log: for tests and tools. It is visible on return, unless
    /// another thread has staged something before it and not applied it yet. Errors when a shard is not ready; then
    /// nothing was stored.
    pub fn append_blocking(&self, batch: AppendBatch) -> Result<AppendReport, HeadError> {
        let commit = self.begin(batch.first_at());
        let mut staged = Vec::new();
        for (shard, slice) in self.route(batch) {
            let shard = &self.shards[usize::from(shard.0)];
            staged.push((shard, shard.stage(&commit, slice)?));
        }
        // Only now, as none of the parts can fail any more.
        drop(commit);
        let mut report = AppendReport::default();
        for (shard, part) in staged {
            report.absorb(shard.apply(part)?);
        }
        report.sort();
        for shard in &self.shards {
            while let Some(job) = shard.merge_job() {
                shard.install(job.run());
            }
        }
        Ok(report)
    }

    /// Hides samples before `min_valid` from views to come, and refuses them from now on; each shard's
    /// [`Shard::truncate`] and [`Shard::reclaim`] then give the memory back.
    pub fn raise_min_valid(&self, min_valid: TimestampMs) {
        self.shared.raise_min_valid(min_valid.0);
    }

    /// Drops what lies before `min_valid`, on the caller's thread; true if no view held it up.
    pub fn truncate_blocking(&self, min_valid: TimestampMs) -> bool {
        self.raise_min_valid(min_valid);
        let mut done = true;
        for shard in &self.shards {
            shard.truncate();
            done &= loop {
                match shard.reclaim(usize::MAX) {
                    Reclaimed::Done => break true,
                    Reclaimed::Waiting => break false,
                    Reclaimed::More => {}
                }
            };
            while let Some(job) = shard.merge_job() {
                shard.install(job.run());
            }
        }
        done
    }

    /// References up to `taken` are not handed out any more.
    pub fn reserve_refs(&self, taken: u64) {
        if taken < table::SERIES_REF_MAX - 1 {
            self.shared.raise_next_ref(taken + 1);
        }
    }

    /// The reference that the next new series would get.
    pub fn next_ref(&self) -> u64 {
        self.shared.next_ref()
    }

    /// How many samples of `from ..= to` the series with this reference has; `None` if there is no such series.
    pub fn count_samples(&self, series: SeriesRef, from: i64, to: i64) -> Option<u64> {
        let range = TimeRange::new(TimestampMs(from), TimestampMs(to)).ok()?;
        let cell = self.shards.iter().find_map(|shard| shard.cell(series))?;
        let mut column = SampleColumn::default();
        cell.decode(self.shared.horizon.visible(), range, Output::All(&mut column)).ok()?;
        Some(column.len() as u64)
    }

    /// Series in all shards.
    pub fn series_count(&self) -> u64 {
        self.shared.series_count()
    }

    /// Series that the budget still has room for; `None` without a budget.
    pub fn series_room(&self) -> Option<u64> {
        let limit = Some(self.shared.series_limit).filter(|limit| 0 < *limit)?;
        Some(limit.saturating_sub(self.shared.series_count()))
    }

    /// Its figures.
    pub fn stats(&self) -> HeadStats {
        let index_bytes = self.shards.iter().map(|shard| shard.readers.index.load().heap_len()).sum();
        let late_series = self.shards.iter().map(|shard| shard.readers.late.load().series_count()).sum();
        HeadStats { index_bytes, late_series, ..HeadStats::of(&self.shared) }
    }

    fn shard_count(&self) -> u16 {
        u16::try_from(self.shards.len()).expect("made from a 16-bit count")
    }
}

struct HeadQueryable {
    shared: Arc<HeadShared>,
    shards: Vec<Arc<Shard>>,
}

impl Queryable for HeadQueryable {
    fn view(&self) -> Result<Arc<dyn ReadView>, ReadError> {
        Ok(Arc::new(HeadView::open(&self.shared, &self.shards)))
    }
}

#[cfg(test)]
mod cut_tests;
#[cfg(test)]
mod late_tests;
#[cfg(test)]
pub(in crate::storage) mod listing_tests;
#[cfg(test)]
mod native_tests;
#[cfg(test)]
mod size_tests;
#[cfg(test)]
mod slot_tests;
#[cfg(test)]
mod tests;
