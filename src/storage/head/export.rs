//! Takes series out of the head for a block: in the order of their labels, with the chunks of a range of time.
//!
//! The range must be settled: no commit that is still open may append to it ([`Head::settling`]). Chunks that lie in the range go
//! out as they are; one that reaches beyond is written anew with the samples inside, as Prometheus does.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeSet, BinaryHeap};

use crate::model::labels::Labels;
use crate::model::read::ReadError;
use crate::storage::block::chunks::ChunkData;
use crate::storage::block::rewrite;
use crate::storage::chunk::decode::ChunkDecoder;
use crate::storage::chunk::{ChunkError, Encoding};
use crate::storage::head::Head;
use crate::storage::head::bounds::FUTURE_MS_MAX;
use crate::storage::head::column::SeriesCell;
use crate::storage::head::commit::CommitId;
use crate::storage::head::deletion::hits;
use crate::storage::head::ended::{EndedSeries, Newests};
use crate::storage::head::shared::HeadShared;
use crate::storage::head::starts::start_at;
use crate::storage::head::view::{HeadView, Place};

/// Commits that had begun when a range was looked at; see [`Head::settling`].
#[derive(Clone, Copy, Debug)]
pub struct Settling {
    newest: CommitId,
}

/// Half-open range of time of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRange {
    /// Oldest sample.
    pub min_time: i64,
    /// Samples are older than this.
    pub max_time: i64,
}

impl Head {
    /// The range that the next block should have: up to the next multiple of `range_ms` behind the oldest sample, once the head
    /// spans one and a half of them. By then no new commit is allowed to append to it.
    pub fn compactable(&self, range_ms: i64) -> Option<BlockRange> {
        let (min_time, newest) = self.shared.time_span()?;
        // What is dated ahead of the clock makes nothing old.
        let newest = newest.min(self.clock.now().0.saturating_add(FUTURE_MS_MAX));
        let max_time = self.shared.rules.end_of_range(min_time, range_ms);
        let spans_enough = range_ms / 2 * 3 < newest.saturating_sub(min_time);
        (spans_enough && max_time <= newest.saturating_sub(range_ms / 2)).then_some(BlockRange { min_time, max_time })
    }

    /// Start of the range of its oldest sample, for whoever has found the ranges before it empty; `None` if there is none.
    pub fn next_range(&self, range_ms: i64) -> Result<Option<i64>, ReadError> {
        let first = self.export(i64::MAX).first_t()?;
        Ok(first.map(|t| self.shared.rules.end_of_range(t, range_ms).saturating_sub(range_ms)))
    }

    /// What has to be over before a compactable range is taken out: commits that have begun by now and may append to it.
    pub fn settling(&self) -> Settling {
        Settling { newest: self.shared.horizon.newest() }
    }

    /// True once those commits are complete or given up.
    pub fn is_settled(&self, settling: Settling) -> bool {
        settling.newest <= self.shared.horizon.visible()
    }

    /// Begins to take out the samples before `until`, which must be settled.
    pub fn export(&self, until: i64) -> HeadExport {
        self.begin_export(until, Commits::All)
    }

    /// Begins to take out all samples that a view sees which is opened now; with the time behind the newest. `None` while there
    /// is none.
    pub fn export_visible(&self) -> Option<(HeadExport, i64)> {
        let (_, newest) = self.shared.time_span()?;
        let until = newest.saturating_add(1);
        Some((self.begin_export(until, Commits::Visible), until))
    }

    /// Begins to take out the samples of series that have ended, from `from` and before `until`, up to the markers that were found.
    /// Commits that had begun when they were found must be settled.
    pub fn export_ended(&self, ended: &EndedSeries, from: i64, until: i64) -> HeadExport {
        let mut export = self.begin_export(until, Commits::All);
        export.from = export.from.max(from);
        export.only = Some(ended.newest());
        export
    }

    fn begin_export(&self, until: i64, commits: Commits) -> HeadExport {
        let view = HeadView::open(&self.shared, self.shards());
        let (from, shared) = (self.shared.min_valid(), std::sync::Arc::clone(&self.shared));
        let mut export = HeadExport { places: BinaryHeap::new(), from, until, commits, only: None, view, shared };
        for place in export.view.first_places() {
            export.enter(place);
        }
        export
    }
}

/// Series on their way out. Holds a view: nothing of it is dropped meanwhile.
pub struct HeadExport {
    view: HeadView,
    shared: std::sync::Arc<HeadShared>,
    from: i64,
    until: i64,
    commits: Commits,
    /// Nothing of others, nor of these behind such a time.
    only: Option<std::sync::Arc<Newests>>,
    places: BinaryHeap<Reverse<Entry>>,
}

/// Samples of which commits are taken out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Commits {
    /// Of all: the range is settled.
    All,
    /// Of those that the view sees.
    Visible,
}

/// The next series of one sorted run.
struct Entry {
    labels: Labels,
    place: Place,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.labels.cmp(&other.labels).then_with(|| self.place.cmp(&other.place))
    }
}

impl HeadExport {
    /// All names and values of the head's series, sorted, and the empty text: also of those without samples in the range, as in
    /// Prometheus's blocks.
    pub fn symbols(&self) -> Vec<String> {
        let mut symbols = BTreeSet::from([""]);
        let mut in_tails = Vec::new();
        self.view.for_each_live(|pairs| symbols.extend(pairs), |labels| in_tails.push(labels));
        symbols.extend(in_tails.iter().flat_map(|labels| labels.iter()).flat_map(|(name, value)| [name, value]));
        symbols.into_iter().map(str::to_owned).collect()
    }

    /// Time of the oldest sample, or `None` if there is none before the end.
    pub fn first_t(&self) -> Result<Option<i64>, ReadError> {
        let mut first = None;
        let mut error = None;
        self.view.for_each_cell(|cell| match cell.first_t(self.from) {
            Ok(Some(t)) if t < self.until && self.newest_of(cell).is_some_and(|newest| t <= newest) => {
                first = Some(first.map_or(t, |first: i64| first.min(t)))
            }
            Ok(_) => {}
            Err(found) => error = Some(corrupt(cell, found)),
        });
        self.view.check()?;
        error.map_or(Ok(first), Err)
    }

    /// The next series that has samples in the range, with its chunks; `None` at the end.
    pub fn next_series(&mut self) -> Result<Option<(Labels, Vec<ChunkData>)>, ReadError> {
        while let Some(Reverse(Entry { labels, place })) = self.places.pop() {
            let mut chunks = self.chunks(&place)?;
            self.enter_next(&place);
            // A series that left the head and came back stands in two runs for a while.
            while self.places.peek().is_some_and(|Reverse(next)| next.labels == labels) {
                let Some(Reverse(again)) = self.places.pop() else { break };
                chunks.extend(self.chunks(&again.place)?);
                chunks.sort_by_key(|chunk| chunk.min_t);
                self.enter_next(&again.place);
            }
            if !chunks.is_empty() {
                return Ok(Some((labels, chunks)));
            }
        }
        // A shard that was torn or rebuilt meanwhile may have shown too little.
        self.view.check()?;
        Ok(None)
    }

    /// Up to when samples of a series are wanted; `None` for not at all.
    fn newest_of(&self, cell: &SeriesCell) -> Option<i64> {
        self.only.as_ref().map_or(Some(i64::MAX), |only| only.get(&cell.series()).copied())
    }

    fn enter(&mut self, place: Place) {
        if let Some(labels) = self.view.labels_at(&place) {
            self.places.push(Reverse(Entry { labels, place }));
        }
    }

    fn enter_next(&mut self, place: &Place) {
        self.enter(place.next());
    }

    fn chunks(&self, place: &Place) -> Result<Vec<ChunkData>, ReadError> {
        let Some(cell) = self.view.cell_at(place) else { return Ok(Vec::new()) };
        let Some(newest) = self.newest_of(cell) else { return Ok(Vec::new()) };
        let mut chunks = Vec::new();
        let deleted = self.view.deleted_of(cell.series());
        let (until, visible) = match self.commits {
            Commits::All => (i64::MAX, None),
            Commits::Visible => cell.visible_times(self.view.commit()).map_err(|error| corrupt(cell, error))?,
        };
        let keeps = |t: i64| {
            self.from <= t
                && t < self.until
                && t <= until.min(newest)
                && !hits(deleted, t)
                && visible.as_ref().is_none_or(|times| times.binary_search(&t).is_ok())
        };
        let runs = self.view.starts_at(place, cell.series());
        cell.for_each_chunk(&mut |encoding, data| {
            let cut = cut_to(encoding, data, keeps)?;
            if !self.shared.encodings.wants_starts(encoding) {
                chunks.extend(cut);
                return Ok(());
            }
            for chunk in &cut {
                chunks.push(rewrite::with_starts(chunk, |t| start_at(&runs, t))?);
            }
            Ok(())
        })
        .map_err(|error| corrupt(cell, error))?;
        Ok(chunks)
    }
}

/// The part of a chunk with samples at times that are kept; more than one if what is left does not fit together any more.
fn cut_to(encoding: Encoding, data: &[u8], keeps: impl Fn(i64) -> bool) -> Result<Vec<ChunkData>, ChunkError> {
    let mut decoder = ChunkDecoder::of_chunk(encoding, data)?;
    let (mut range, mut is_cut) = (None, false);
    while let Some(t) = decoder.next_t()? {
        if keeps(t) {
            range = Some((range.map_or(t, |(min_t, _)| min_t), t));
        } else {
            is_cut = true;
        }
    }
    let Some((min_t, max_t)) = range else { return Ok(Vec::new()) };
    if is_cut {
        return rewrite::without(encoding, data, |t| !keeps(t));
    }
    Ok(vec![ChunkData { min_t, max_t, encoding: encoding.id(), data: data.to_vec() }])
}

fn corrupt(cell: &SeriesCell, error: ChunkError) -> ReadError {
    ReadError::Corrupt(format!("head chunk of series {}: {error}", cell.series().0))
}
