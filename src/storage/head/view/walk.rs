//! The view as compactions, exports and deletions read it: place by place, or every series at once.

use std::sync::Arc;

use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::read::{ReadBudget, ReadError};
use crate::model::sample::SeriesRef;
use crate::storage::block::tombstones::Interval;
use crate::storage::head::column::SeriesCell;
use crate::storage::head::commit::CommitId;
use crate::storage::head::late::LateChunks;
use crate::storage::head::starts::Run;
use crate::storage::head::view::{Found, HeadView, corrupt};

/// A series' place in a view; places of one run follow each other in the order of labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    shard: usize,
    /// Number of the segment, or [`IN_TAIL`].
    segment: usize,
    position: u32,
}

/// In place of a segment's number: the series stands in the tail, which is a run for each of its series.
const IN_TAIL: usize = usize::MAX;

impl Place {
    /// The place behind this one in the same run.
    pub(crate) fn next(self) -> Self {
        // A series of the tail has no successor.
        let position = if self.segment == IN_TAIL { u32::MAX } else { self.position + 1 };
        Self { position, ..self }
    }
}

impl HeadView {
    /// The first place of each run.
    pub(crate) fn first_places(&self) -> Vec<Place> {
        let mut places = Vec::new();
        for (shard, view) in self.inner.shards.iter().enumerate() {
            places.extend((0..view.index.segments.len()).map(|segment| Place { shard, segment, position: 0 }));
            let tail_len = u32::try_from(view.tail_len).unwrap_or(u32::MAX);
            places.extend((0..tail_len).map(|position| Place { shard, segment: IN_TAIL, position }));
        }
        places
    }

    fn found(&self, place: &Place) -> Option<Found<'_>> {
        let view = self.inner.shards.get(place.shard)?;
        if place.segment == IN_TAIL {
            let position = usize::try_from(place.position).ok()?;
            return view.index.tail.iter(view.tail_len).nth(position).map(Found::InTail);
        }
        let segment = view.index.segments.get(place.segment)?;
        ((place.position as usize) < segment.len()).then(|| Found::InSegment(segment, place.position))
    }

    /// Calls `take` with the labels and the late samples of each series that has any.
    pub(crate) fn for_each_late(&self, mut take: impl FnMut(SeriesRef, Labels, Arc<LateChunks>)) {
        for (shard, view) in self.inner.shards.iter().enumerate() {
            let mut take_found = |found: Found<'_>| {
                if let Some(late) = self.inner.late_of(shard, found.cell()).filter(|_| !found.cell().is_gone()) {
                    take(found.cell().series(), found.labels(), late);
                }
            };
            for segment in &view.index.segments {
                (0..segment.len() as u32).for_each(|position| take_found(Found::InSegment(segment, position)));
            }
            view.index.tail.iter(view.tail_len).for_each(|entry| take_found(Found::InTail(entry)));
        }
    }

    /// Labels of the series at a place; `None` past the end of its run.
    pub(crate) fn labels_at(&self, place: &Place) -> Option<Labels> {
        self.found(place).map(|found| found.labels())
    }

    /// The series at a place.
    pub(crate) fn cell_at(&self, place: &Place) -> Option<&Arc<SeriesCell>> {
        let view = self.inner.shards.get(place.shard)?;
        if place.segment == IN_TAIL {
            let position = usize::try_from(place.position).ok()?;
            return view.index.tail.iter(view.tail_len).nth(position).map(|entry| &entry.cell);
        }
        let segment = view.index.segments.get(place.segment)?;
        ((place.position as usize) < segment.len()).then(|| segment.cell(place.position))
    }

    /// The start times of the series at a place.
    pub(crate) fn starts_at(&self, place: &Place, series: SeriesRef) -> Vec<Run> {
        self.inner.shards.get(place.shard).map_or_else(Vec::new, |view| view.readers.starts.runs(series))
    }

    /// Calls `pair` with the texts of each label pair that a living series of a segment has, `labels` with the label set of
    /// each living series of a tail.
    pub(crate) fn for_each_live<'a>(&'a self, mut pair: impl FnMut([&'a str; 2]), mut labels: impl FnMut(&'a Labels)) {
        for view in &self.inner.shards {
            for segment in &view.index.segments {
                for range in segment.name_ranges() {
                    for id in range {
                        if segment.postings(id).iter().any(|position| !segment.cell(*position).is_gone()) {
                            let (name, value) = segment.pair(id);
                            pair([name, value]);
                        }
                    }
                }
            }
            view.index.tail.iter(view.tail_len).filter(|e| !e.cell.is_gone()).for_each(|e| labels(&e.labels));
        }
    }

    /// Calls `take` with every series, and with what gives its labels.
    pub(crate) fn for_each_named(&self, mut take: impl FnMut(&SeriesCell, &dyn Fn() -> Labels)) {
        for view in &self.inner.shards {
            for segment in &view.index.segments {
                let found = (0..segment.len() as u32).map(|position| Found::InSegment(segment, position));
                found.for_each(|found| take(found.cell(), &|| found.labels()));
            }
            let found = view.index.tail.iter(view.tail_len).map(Found::InTail);
            found.for_each(|found| take(found.cell(), &|| found.labels()));
        }
    }

    /// Calls `take` with every series.
    pub(crate) fn for_each_cell(&self, mut take: impl FnMut(&SeriesCell)) {
        for view in &self.inner.shards {
            for segment in &view.index.segments {
                (0..segment.len() as u32).for_each(|position| take(segment.cell(position)));
            }
            view.index.tail.iter(view.tail_len).for_each(|entry| take(&entry.cell));
        }
    }

    /// Calls `take` with the series that fulfil all `matchers`, and the last of its times if the head has samples of it.
    pub(crate) fn each_selected(
        &self,
        matchers: &[Matcher],
        budget: &dyn ReadBudget,
        mut take: impl FnMut(SeriesRef, Option<i64>),
    ) -> Result<(), ReadError> {
        let view = &self.inner;
        view.for_each(matchers, budget, |shard, found| {
            let cell = found.cell();
            let own = cell.newest_visible(view.commit()).map_err(|error| corrupt(cell.series(), error))?;
            let late = view.late_of(shard, cell).filter(|late| late.has_visible(view.commit()));
            let late = late.and_then(|late| late.spans(u64::MAX).map(|(_, last)| last).max());
            take(cell.series(), own.max(late));
            Ok(())
        })
    }

    /// The deleted ranges of a series, ascending.
    pub(crate) fn deleted_of(&self, series: SeriesRef) -> &[Interval] {
        self.inner.deleted_of(series)
    }

    /// The newest commit that the view sees.
    pub(crate) fn commit(&self) -> CommitId {
        self.inner.commit()
    }

    /// Errors if a shard is away, or was since the view opened.
    pub(crate) fn check(&self) -> Result<(), ReadError> {
        self.inner.shards.iter().try_for_each(|shard| shard.readers.check(shard.generation))
    }
}
