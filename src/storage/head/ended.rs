//! Series that have ended, whose newest sample is the marker that says so, leave the head before their time once blocks stand for
//! them. Where most of a head is such series, that frees memory hours earlier.
//!
//! ```text
//! look    [`Head::ended_series`], in steps; those with late samples, or with samples on their way, count and stay
//! export  [`Head::export_ended`]: their samples up to the marker, for a block of each aligned range that has any
//! evict   [`Head::evict_ended`]: those that have got nothing since leave when no view is left that was opened before
//! ```
//! The log still has samples of them, so a checkpoint keeps their names as long as the head holds their times. A start reads them
//! from there once more, and they leave again: a deletion in the log would hide late samples that came afterwards.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::read::ReadError;
use crate::model::sample::{SeriesRef, is_stale};
use crate::storage::head::Head;
use crate::storage::head::native::Newest;
use crate::storage::head::partition::Partition;
use crate::storage::head::series::NOT_STAGED;
use crate::storage::head::shared::count;
use crate::storage::head::truncate::Reclaimed;

/// Series that are looked at while a shard waits: a fraction of a millisecond.
const LOOKED_AT_ONCE: usize = 1000;

/// Time of the newest sample by series.
pub(crate) type Newests = HashMap<SeriesRef, i64, foldhash::fast::FixedState>;

/// What a look at all series has found.
#[derive(Clone, Debug, Default)]
pub struct EndedSeries {
    /// Series with samples in order.
    pub series: u64,
    /// Of these, those that have ended.
    pub ended: u64,
    /// Of these, those that may leave.
    newest: Newests,
}

impl EndedSeries {
    /// Share of the series that have ended; 0 if there are none.
    pub fn share(&self) -> f64 {
        if self.series == 0 { 0.0 } else { self.ended as f64 / self.series as f64 }
    }

    /// How many may leave.
    pub fn len(&self) -> usize {
        self.newest.len()
    }

    /// True if none may leave.
    pub fn is_empty(&self) -> bool {
        self.newest.is_empty()
    }

    pub(super) fn newest(&self) -> Arc<Newests> {
        Arc::new(self.newest.clone())
    }
}

impl Head {
    /// Looks for series that have ended.
    pub fn ended_series(&self) -> EndedSeries {
        let mut found = EndedSeries::default();
        for shard in self.shards() {
            let mut next = Some(0);
            while let Some(from) = next {
                next = shard.lock_partition().look_for_ended(from, &mut found);
            }
        }
        found
    }

    /// Time of their oldest sample from `from` on; `None` if there is none.
    pub fn next_of_ended(&self, ended: &EndedSeries, from: i64) -> Result<Option<i64>, ReadError> {
        self.export_ended(ended, from, i64::MAX).first_t()
    }

    /// Lets those leave that get nothing until then; [`crate::storage::head::shard::Shard::reclaim`] does it.
    pub fn evict_ended(&self, ended: &EndedSeries) {
        let mut all: Vec<(SeriesRef, i64)> = ended.newest.iter().map(|(series, newest)| (*series, *newest)).collect();
        // Others may go by, which only one shard has.
        all.sort_unstable();
        let all: Arc<[(SeriesRef, i64)]> = all.into();
        self.shards().iter().for_each(|shard| shard.lock_partition().evict(Arc::clone(&all)));
    }
}

/// Series that are to leave.
#[derive(Debug)]
pub(crate) struct Eviction {
    series: Arc<[(SeriesRef, i64)]>,
    /// Views older than this may not know the blocks.
    stamp: u64,
    next: usize,
}

fn has_ended(newest: Newest<'_>) -> bool {
    match newest {
        Newest::Float(bits) => is_stale(f64::from_bits(bits)),
        Newest::Whole(histogram) => histogram.is_stale(),
        Newest::FloatHistogram(histogram) => histogram.is_stale(),
    }
}

impl Partition {
    /// Looks at some series from a place on; returns the next place, or `None` at the end.
    fn look_for_ended(&self, from: usize, found: &mut EndedSeries) -> Option<usize> {
        let to = from.saturating_add(LOOKED_AT_ONCE).min(self.table.slot_count());
        let waiting = self.staged_late();
        for slot in from..to {
            let id = self.table.id_at(slot);
            let Some(series) = self.table.get(id) else { continue };
            let Some((newest_t, newest)) = series.last() else { continue };
            found.series += 1;
            if !has_ended(newest) {
                continue;
            }
            found.ended += 1;
            if series.staged == NOT_STAGED && series.logged && !series.cell.has_late() && !waiting.contains(&id) {
                found.newest.insert(series.cell.series(), newest_t);
            }
        }
        (to < self.table.slot_count()).then_some(to)
    }

    fn evict(&mut self, series: Arc<[(SeriesRef, i64)]>) {
        let stamp = self.shared.horizon.stamp();
        self.eviction = Some(Eviction { series, stamp, next: 0 });
    }

    /// Does the next step of an ordered eviction.
    pub(super) fn reclaim_ended(&mut self, series_max: usize) -> Reclaimed {
        let Some(order) = &mut self.eviction else { return Reclaimed::Done };
        if !self.shared.horizon.has_passed(order.stamp) {
            return Reclaimed::Waiting;
        }
        let (all, from) = (Arc::clone(&order.series), order.next);
        let to = from.saturating_add(series_max).min(all.len());
        order.next = to;
        let waiting = self.staged_late();
        let (mut chunks, mut removed) = (0, 0);
        for (reference, newest) in all.get(from..to).unwrap_or_default() {
            let Some(id) = self.table.find(*reference) else { continue };
            let Some(series) = self.table.get_mut(id) else { continue };
            let is_as_it_was = series.last().is_some_and(|(t, value)| t == *newest && has_ended(value));
            if !is_as_it_was || series.staged != NOT_STAGED || series.cell.has_late() || waiting.contains(&id) {
                continue;
            }
            chunks += series.truncate(i64::MAX);
            series.cell.set_gone();
            self.gone_in_index += usize::from(series.indexed);
            self.evicted.insert(*reference, *newest);
            self.table.remove(id);
            removed += 1;
        }
        count(&self.shared.counters.chunks_removed, chunks as u64);
        count(&self.shared.counters.series_removed, removed);
        self.shared.release_series(removed);
        if 0 < removed {
            self.forget_removed();
            self.readers.losses.fetch_add(1, std::sync::atomic::Ordering::Release);
        }
        if to < all.len() {
            return Reclaimed::More;
        }
        self.eviction = None;
        Reclaimed::Done
    }
}
