//! Gives memory back: chunks that end before the head's lower bound, then series without samples, then their place in
//! the index.
//!
//! The bound hides old samples from new views at once. What is hidden is dropped when the last view that was opened
//! before is gone, in steps, so that a shard is never busy for long and an old view never misses anything.

use std::sync::atomic::Ordering;

use crate::storage::head::index::segment::AsOf;
use crate::storage::head::index::{LookJob, MergeJob, MergedSegment};
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

/// An ordered removal of late samples.
#[derive(Debug)]
pub(crate) struct LateDrop {
    epoch: u64,
    /// Views older than this may still read what is to be dropped.
    stamp: u64,
    /// Next part of the table.
    next_part: usize,
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

    /// Orders the removal of late samples up to `epoch`.
    pub(crate) fn drop_late(&mut self, epoch: u64) {
        let stamp = self.shared.horizon.stamp();
        self.late_drop = Some(LateDrop { epoch, stamp, next_part: 0 });
    }

    /// Does the next step of what is ordered.
    pub(crate) fn reclaim(&mut self, series_max: usize) -> Reclaimed {
        let done = [self.reclaim_late(series_max), self.reclaim_ended(series_max), self.reclaim_in_order(series_max)];
        let worst = [Reclaimed::More, Reclaimed::Waiting].into_iter().find(|one| done.contains(one));
        worst.unwrap_or(Reclaimed::Done)
    }

    fn reclaim_late(&mut self, series_max: usize) -> Reclaimed {
        let Some(order) = &mut self.late_drop else { return Reclaimed::Done };
        if !self.shared.horizon.has_passed(order.stamp) {
            return Reclaimed::Waiting;
        }
        let late = self.readers.late.load_full();
        let (mut chunks, mut seen) = (0, 0);
        while order.next_part < late.part_count() && seen < series_max {
            let table = &self.table;
            let (dropped, looked_at) = late.drop_epochs(order.next_part, order.epoch, |series| {
                if let Some(series) = table.find(series).and_then(|id| table.get(id)) {
                    series.cell.set_late(false);
                }
            });
            chunks += dropped;
            seen += looked_at;
            order.next_part += 1;
        }
        let is_done = late.part_count() <= order.next_part;
        count(&self.shared.counters.chunks_removed, chunks);
        if 0 < chunks {
            self.readers.losses.fetch_add(1, Ordering::Release);
        }
        if !is_done {
            return Reclaimed::More;
        }
        self.late_drop = None;
        Reclaimed::Done
    }

    fn reclaim_in_order(&mut self, series_max: usize) -> Reclaimed {
        let Some(truncation) = &mut self.truncation else { return Reclaimed::Done };
        if !self.shared.horizon.has_passed(truncation.stamp) {
            return Reclaimed::Waiting;
        }
        let (min_valid, from) = (truncation.min_valid, truncation.next_slot);
        let to = from.saturating_add(series_max).min(self.table.slot_count());
        truncation.next_slot = to;
        let (mut chunks, mut removed) = (0, 0);
        let waiting = self.staged_late();
        for slot in from..to {
            let id = self.table.id_at(slot);
            let Some(series) = self.table.get_mut(id) else { continue };
            chunks += series.truncate(min_valid);
            let is_needed = series.cell.has_late() || waiting.contains(&id);
            if series.column().is_some() || series.staged != NOT_STAGED || is_needed {
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
            // What selections have found of them would stay until others take its room.
            self.shared.known.clear();
        }
        if 0 < chunks {
            self.readers.losses.fetch_add(1, Ordering::Release);
        }
        if to < self.table.slot_count() {
            return Reclaimed::More;
        }
        self.truncation = None;
        self.readers.dropped_before.fetch_max(min_valid, Ordering::AcqRel);
        self.evicted.retain(|_, newest| min_valid <= *newest);
        let table = &self.table;
        self.readers.starts.truncate(min_valid, |series| table.find(series).is_some());
        count(&self.shared.counters.truncations, 1);
        Reclaimed::Done
    }

    fn as_of(&self) -> AsOf {
        AsOf { losses: self.readers.losses.load(Ordering::Acquire), commit: self.shared.horizon.visible() }
    }

    /// None while samples are being dropped: it would be out of date at once.
    pub(crate) fn look_job(&self) -> Option<LookJob> {
        let drops = self.truncation.is_some() || self.eviction.is_some() || self.late_drop.is_some();
        if drops { None } else { self.index.plan_look(self.as_of()) }
    }

    pub(crate) fn merge_job(&self) -> Option<MergeJob> {
        let as_of = self.as_of();
        // Series that are gone cost memory and time; a rebuild costs more, so it waits for an eighth of them.
        if self.table.len() / 8 < self.gone_in_index {
            return self.index.plan_rebuild(as_of);
        }
        self.index.plan_merge(as_of)
    }

    pub(crate) fn install(&mut self, merged: MergedSegment) {
        let whole = merged.source_count() == self.index.segments.len();
        if let Some(index) = self.index.with_merged(merged) {
            self.publish(index);
            if whole {
                self.gone_in_index = self.index.gone_count();
                self.shared.known.clear();
            }
        }
    }
}
