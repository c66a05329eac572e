//! Gives memory back: chunks that end before the head's lower bound, then series without samples, then their place in
//! the index.
//!
//! The bound hides old samples from new views at once. What is hidden is dropped when the last view that was opened
//! before is gone, in steps, so that a shard is never busy for long and an old view never misses anything.

use crate::storage::head::index::{MergeJob, MergedSegment};
use crate::storage::head::partition::Partition;
use crate::storage::head::series::NOT_STAGED;
use crate::storage::head::shared::count;

/// An ordered truncation.
#[derive(Debug)]
pub(crate) struct Truncation {
    min_valid: i64,
    /// Views older than this may still read what is to be dropped.
    stamp: u64,
    /// Next place in the table.
    next_slot: usize,
}

/// What a step of a truncation has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reclaimed {
    /// Nothing is ordered, or all is done.
    Done,
    /// A view still needs what is to be dropped.
    Waiting,
    /// There is more to do.
    More,
}

impl Partition {
    /// Orders the removal of everything before the head's bound as it is now.
    pub(crate) fn truncate(&mut self) {
        let (min_valid, stamp) = (self.shared.min_valid(), self.shared.horizon.stamp());
        // One that is under way is overtaken: it starts anew with the higher bound.
        self.truncation = Some(Truncation { min_valid, stamp, next_slot: 0 });
    }

    pub(crate) fn reclaim(&mut self, series_max: usize) -> Reclaimed {
        let Some(truncation) = &mut self.truncation else { return Reclaimed::Done };
        if !self.shared.horizon.has_passed(truncation.stamp) {
            return Reclaimed::Waiting;
        }
        let (min_valid, from) = (truncation.min_valid, truncation.next_slot);
        let to = from.saturating_add(series_max).min(self.table.slot_count());
        truncation.next_slot = to;
        let (mut chunks, mut removed) = (0, 0);
        for slot in from..to {
            let id = self.table.id_at(slot);
            let Some(series) = self.table.get_mut(id) else { continue };
            chunks += series.truncate(min_valid);
            if series.column().is_some() || series.staged != NOT_STAGED {
                continue;
            }
            series.cell.set_gone();
            if series.indexed {
                self.gone_in_index += 1;
            }
            self.table.remove(id);
            removed += 1;
        }
        count(&self.shared.counters.chunks_removed, chunks as u64);
        count(&self.shared.counters.series_removed, removed);
        self.shared.release_series(removed);
        if 0 < removed {
            self.forget_removed();
        }
        if to < self.table.slot_count() {
            return Reclaimed::More;
        }
        self.truncation = None;
        let table = &self.table;
        self.readers.starts.truncate(min_valid, |series| table.find(series).is_some());
        count(&self.shared.counters.truncations, 1);
        Reclaimed::Done
    }

    pub(crate) fn merge_job(&self) -> Option<MergeJob> {
        // Series that are gone cost memory and time; a rebuild costs more, so it waits for an eighth of them.
        if self.table.len() / 8 < self.gone_in_index {
            return self.index.plan_rebuild();
        }
        self.index.plan_merge()
    }

    pub(crate) fn install(&mut self, merged: MergedSegment) {
        let whole = merged.source_count() == self.index.segments.len();
        if let Some(index) = self.index.with_merged(merged) {
            self.publish(index);
            if whole {
                self.gone_in_index = self.index.gone_count();
            }
        }
    }
}
