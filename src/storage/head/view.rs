//! Read views of the head: a few reference counts and one commit number for all shards. Nothing here takes a lock that a
//! writer takes, and everything is decoded on the reader's thread.

use std::sync::Arc;

use hashbrown::HashSet;

use crate::model::labels::Labels;
use crate::model::matcher::{MatchOp, Matcher};
use crate::model::read::{FloatColumn, ReadBudget, ReadError, ReadView, SampleColumn, SampleSource, SelectedSeries};
use crate::model::sample::SeriesRef;
use crate::model::time::{TimeRange, TimestampMs};
use crate::storage::block::tombstones::{Interval, Tombstones};
use crate::storage::chunk::ChunkError;
use crate::storage::head::column::{Column, Output, SeriesCell, SeriesMarks};
use crate::storage::head::commit::{CommitId, ViewPin};
use crate::storage::head::deletion;
use crate::storage::head::index::Index;
use crate::storage::head::index::segment::{PairId, Segment};
use crate::storage::head::index::select::{Ticker, positions};
use crate::storage::head::index::tail::TailEntry;
use crate::storage::head::marks::Marks;
use crate::storage::head::shard::{Shard, ShardReaders};
use crate::storage::head::shared::HeadShared;

/// What a selected series takes beside its label text: the entry, the source behind it, and what the allocator adds.
const SELECTED_LEN: usize = size_of::<SelectedSeries>() + size_of::<HeadSeries>() + 64;

/// Bytes that are gathered before they are charged.
const CHARGED_AT_ONCE: usize = 4 << 10;

/// A view of the head.
#[derive(Debug)]
pub(crate) struct HeadView {
    inner: Arc<ViewInner>,
}

#[derive(Debug)]
struct ViewInner {
    pin: ViewPin,
    /// Samples that the head holds lie in this range; `None` while it is empty.
    span: Option<TimeRange>,
    shards: Vec<ShardView>,
    marks: Arc<Marks>,
    /// Ranges that are deleted.
    deleted: Arc<Tombstones>,
}

#[derive(Debug)]
struct ShardView {
    readers: Arc<ShardReaders>,
    generation: u64,
    index: Arc<Index>,
    tail_len: usize,
}

impl HeadView {
    pub(crate) fn open(shared: &Arc<HeadShared>, shards: &[Arc<Shard>]) -> Self {
        // The commit number is fixed first: what is loaded after it holds all that the view must see.
        let pin = ViewPin::open(&shared.horizon);
        // Before the lower bound: what is forgotten of it lies below.
        let deleted = shared.deleted.load();
        let open_shard = |shard: &Arc<Shard>| {
            let generation = shard.readers.generation();
            let index = shard.readers.index.load_full();
            let tail_len = index.tail.len();
            ShardView { readers: Arc::clone(&shard.readers), generation, index, tail_len }
        };
        let shards = shards.iter().map(open_shard).collect();
        let min_valid = shared.min_valid();
        let span = shared
            .time_span()
            .and_then(|(min, max)| TimeRange::new(TimestampMs(min.max(min_valid)), TimestampMs(max)).ok());
        Self { inner: Arc::new(ViewInner { pin, span, shards, marks: Arc::clone(&shared.marks), deleted }) }
    }
}

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

/// The view as a compaction reads it.
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

    /// Calls `take` with every series.
    pub(crate) fn for_each_cell(&self, mut take: impl FnMut(&SeriesCell)) {
        for view in &self.inner.shards {
            for segment in &view.index.segments {
                (0..segment.len() as u32).for_each(|position| take(segment.cell(position)));
            }
            view.index.tail.iter(view.tail_len).for_each(|entry| take(&entry.cell));
        }
    }

    /// Calls `take` with the series that fulfil all `matchers`, and the first and the last of its times in `range`.
    pub(crate) fn for_each_selected(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        budget: &dyn ReadBudget,
        mut take: impl FnMut(SeriesRef, i64, i64),
    ) -> Result<(), ReadError> {
        let view = &self.inner;
        let Some(range) = view.clamp(range) else { return Ok(()) };
        view.for_each(matchers, budget, |_, found| {
            let cell = found.cell();
            let ends = cell.newest_visible(view.commit()).and_then(|last| Ok((cell.first_t(i64::MIN)?, last)));
            if let (Some(first), Some(last)) = ends.map_err(|error| corrupt(cell.series(), error))? {
                let (min_t, max_t) = (first.max(range.min().0), last.min(range.max().0));
                if min_t <= max_t {
                    take(cell.series(), min_t, max_t);
                }
            }
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

/// A series of a segment or of the tail.
enum Found<'a> {
    InSegment(&'a Segment, u32),
    InTail(&'a TailEntry),
}

impl Found<'_> {
    fn cell(&self) -> &Arc<SeriesCell> {
        match self {
            Self::InSegment(segment, position) => segment.cell(*position),
            Self::InTail(entry) => &entry.cell,
        }
    }

    fn labels(&self) -> Labels {
        match self {
            Self::InSegment(segment, position) => segment.labels(*position),
            Self::InTail(entry) => entry.labels.clone(),
        }
    }
}

impl ViewInner {
    fn commit(&self) -> CommitId {
        self.pin.commit()
    }

    fn deleted_of(&self, series: SeriesRef) -> &[Interval] {
        self.deleted.of_series(series.0)
    }

    fn marks_of(&self, shard: usize, series: SeriesRef) -> SeriesMarks<'_> {
        let generation = self.shards.get(shard).map_or(0, |shard| shard.generation);
        SeriesMarks { marks: &self.marks, series, generation }
    }

    /// The part of `range` in which the head holds samples.
    fn clamp(&self, range: TimeRange) -> Option<TimeRange> {
        let span = self.span?;
        TimeRange::new(range.min().max(span.min()), range.max().min(span.max())).ok()
    }

    /// Calls `take` for each series that fulfils all `matchers`, shard by shard; within a segment in label order.
    fn for_each<'a>(
        &'a self,
        matchers: &[Matcher],
        budget: &dyn ReadBudget,
        mut take: impl FnMut(usize, Found<'a>) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        let mut ticker = Ticker::new(budget);
        for (number, shard) in self.shards.iter().enumerate() {
            budget.check()?;
            shard.readers.check(shard.generation)?;
            for segment in &shard.index.segments {
                for position in positions(segment, matchers, &mut ticker)? {
                    ticker.tick()?;
                    take(number, Found::InSegment(segment, position))?;
                }
            }
            for entry in shard.index.tail.iter(shard.tail_len) {
                ticker.tick()?;
                if matchers.iter().all(|matcher| matcher.matches_labels(&entry.labels)) {
                    take(number, Found::InTail(entry))?;
                }
            }
        }
        Ok(())
    }

    /// Calls `take` for each pair, out of those that `pairs` picks from a segment, that a visible series has, and for
    /// each label set in the tails that a visible series has. Of each range of pairs all are taken, or the first alone.
    fn for_each_pair<'a>(
        &'a self,
        budget: &dyn ReadBudget,
        of_each: OfEach,
        pairs: impl Fn(&'a Segment) -> Vec<std::ops::Range<PairId>>,
        mut take: impl FnMut(PairOrLabels<'a>) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        let mut ticker = Ticker::new(budget);
        for shard in &self.shards {
            budget.check()?;
            shard.readers.check(shard.generation)?;
            for segment in &shard.index.segments {
                for range in pairs(segment) {
                    for pair in range {
                        ticker.tick()?;
                        let mut postings = segment.postings(pair).iter();
                        if postings.any(|position| segment.cell(*position).is_visible(self.commit())) {
                            take(PairOrLabels::Pair(segment, pair))?;
                            if of_each == OfEach::First {
                                break;
                            }
                        }
                    }
                }
            }
            for entry in shard.index.tail.iter(shard.tail_len) {
                ticker.tick()?;
                if entry.cell.is_visible(self.commit()) {
                    take(PairOrLabels::Labels(&entry.labels))?;
                }
            }
        }
        Ok(())
    }
}

/// Which of the visible pairs of a range are wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OfEach {
    All,
    First,
}

enum PairOrLabels<'a> {
    Pair(&'a Segment, PairId),
    Labels(&'a Labels),
}

/// Texts, charged as they come; those of a segment come in order and without repetition.
struct Listed<'a> {
    budget: &'a dyn ReadBudget,
    texts: Vec<String>,
    /// Texts of the tails so far.
    of_tails: HashSet<&'a str, foldhash::fast::RandomState>,
}

impl<'a> Listed<'a> {
    fn new(budget: &'a dyn ReadBudget) -> Self {
        Self { budget, texts: Vec::new(), of_tails: HashSet::default() }
    }

    fn add(&mut self, text: &str) -> Result<(), ReadError> {
        if !text.is_empty() && self.texts.last().is_none_or(|last| last != text) {
            self.budget.charge(text.len() + size_of::<String>())?;
            self.texts.push(text.to_owned());
        }
        Ok(())
    }

    fn add_of_tail(&mut self, text: &'a str) -> Result<(), ReadError> {
        if self.of_tails.contains(text) {
            return Ok(());
        }
        self.budget.charge(2 * size_of::<&str>())?;
        self.of_tails.insert(text);
        self.add(text)
    }

    fn sorted(mut self) -> Vec<String> {
        // Sorted runs, which the sort finds.
        self.texts.sort();
        self.texts.dedup();
        self.texts
    }
}

/// Texts without repetition, charged as they come.
struct Gathered<'a> {
    budget: &'a dyn ReadBudget,
    texts: HashSet<String, foldhash::fast::RandomState>,
}

impl<'a> Gathered<'a> {
    fn new(budget: &'a dyn ReadBudget) -> Self {
        Self { budget, texts: HashSet::default() }
    }

    fn add(&mut self, text: &str) -> Result<(), ReadError> {
        if !text.is_empty() && !self.texts.contains(text) {
            self.budget.charge(text.len() + 2 * size_of::<String>())?;
            self.texts.insert(text.to_owned());
        }
        Ok(())
    }

    fn sorted(self) -> Vec<String> {
        let mut texts: Vec<String> = self.texts.into_iter().collect();
        texts.sort_unstable();
        texts
    }
}

/// Whether the series that fulfil a matcher are one list of postings.
fn is_exact(matcher: &Matcher) -> bool {
    matcher.op() == MatchOp::Equal && !matcher.value().is_empty()
}

impl ReadView for HeadView {
    fn select(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        budget: &dyn ReadBudget,
    ) -> Result<Vec<SelectedSeries>, ReadError> {
        let view = &self.inner;
        let mut selected: Vec<SelectedSeries> = Vec::new();
        let mut uncharged = 0;
        // Shards are asked even where the range is empty: one that is away must not look like one without samples.
        let wanted = view.clamp(range);
        view.for_each(matchers, budget, |shard, found| {
            let cell = found.cell();
            let Some(range) = wanted else { return Ok(()) };
            let series = cell.series();
            let marks = view.marks_of(shard, series);
            let column = cell.samples_in(view.commit(), range, Some(marks)).map_err(|e| corrupt(series, e))?;
            let deleted = view.deleted_of(series);
            if let Some(column) = column
                && (deleted.is_empty() || column.is_left_in(range, deleted).map_err(|e| corrupt(series, e))?)
            {
                let labels = found.labels();
                uncharged += labels.encoded_len() + SELECTED_LEN;
                if CHARGED_AT_ONCE < uncharged {
                    budget.charge(std::mem::take(&mut uncharged))?;
                }
                let samples = HeadSeries { view: Arc::clone(view), shard, series, column };
                selected.push(SelectedSeries { labels, samples: Arc::new(samples) });
            }
            Ok(())
        })?;
        budget.charge(uncharged)?;
        budget.check()?;
        // Runs that are sorted already, one for each segment: the sort finds and merges them.
        selected.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(selected)
    }

    fn label_names(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        budget: &dyn ReadBudget,
    ) -> Result<Vec<String>, ReadError> {
        let view = &self.inner;
        let overlaps = view.clamp(range).is_some();
        if matchers.is_empty() {
            let mut names = Listed::new(budget);
            view.for_each_pair(
                budget,
                OfEach::First,
                |segment| segment.name_ranges().collect(),
                |found| match found {
                    _ if !overlaps => Ok(()),
                    PairOrLabels::Pair(segment, pair) => names.add(segment.pair(pair).0),
                    PairOrLabels::Labels(labels) => labels.iter().try_for_each(|(name, _)| names.add_of_tail(name)),
                },
            )?;
            Ok(names.sorted())
        } else {
            let mut names = Gathered::new(budget);
            view.for_each(matchers, budget, |_, found| {
                if !overlaps || !found.cell().is_visible(view.commit()) {
                    return Ok(());
                }
                match found {
                    Found::InSegment(segment, position) => {
                        segment.pairs(position).iter().try_for_each(|pair| names.add(segment.pair(*pair).0))
                    }
                    Found::InTail(entry) => entry.labels.iter().try_for_each(|(name, _)| names.add(name)),
                }
            })?;
            Ok(names.sorted())
        }
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        range: TimeRange,
        budget: &dyn ReadBudget,
    ) -> Result<Vec<String>, ReadError> {
        let view = &self.inner;
        let overlaps = view.clamp(range).is_some();
        if matchers.is_empty() {
            let mut values = Listed::new(budget);
            view.for_each_pair(
                budget,
                OfEach::All,
                |segment| vec![segment.pairs_of_name(name)],
                |found| match found {
                    _ if !overlaps => Ok(()),
                    PairOrLabels::Pair(segment, pair) => values.add(segment.value(pair)),
                    PairOrLabels::Labels(labels) => values.add_of_tail(labels.get(name).unwrap_or("")),
                },
            )?;
            Ok(values.sorted())
        } else {
            let mut values = Gathered::new(budget);
            view.for_each(matchers, budget, |_, found| {
                if !overlaps || !found.cell().is_visible(view.commit()) {
                    return Ok(());
                }
                match found {
                    Found::InSegment(segment, position) => {
                        segment.pair_of_name(position, name).map_or(Ok(()), |pair| values.add(segment.value(pair)))
                    }
                    Found::InTail(entry) => values.add(entry.labels.get(name).unwrap_or("")),
                }
            })?;
            Ok(values.sorted())
        }
    }

    fn series_estimate(&self, matchers: &[Matcher], _: TimeRange) -> Result<Option<usize>, ReadError> {
        let exact: Vec<&Matcher> = matchers.iter().filter(|m| is_exact(m)).collect();
        let mut count: usize = 0;
        for shard in &self.inner.shards {
            for segment in &shard.index.segments {
                let with = |matcher: &&Matcher| {
                    let pair = segment.pair_with_value(&segment.pairs_of_name(matcher.name()), matcher.value());
                    pair.map_or(0, |pair| segment.postings(pair).len())
                };
                count += exact.iter().map(with).min().unwrap_or(segment.len());
            }
            let entries = shard.index.tail.iter(shard.tail_len);
            count += entries.filter(|entry| exact.iter().all(|m| m.matches_labels(&entry.labels))).count();
        }
        Ok(Some(count))
    }
}

/// A selected series: keeps its view, and so all that the view pins.
#[derive(Debug)]
struct HeadSeries {
    view: Arc<ViewInner>,
    shard: usize,
    series: SeriesRef,
    /// Its samples when it was selected: all that the view sees are there.
    column: Arc<Column>,
}

impl HeadSeries {
    fn decode_to(&self, range: TimeRange, out: Output<'_>) -> Result<(), ReadError> {
        if let Some(shard) = self.view.shards.get(self.shard) {
            shard.readers.check(shard.generation)?;
        }
        let Some(range) = self.view.clamp(range) else { return Ok(()) };
        let marks = self.view.marks_of(self.shard, self.series);
        self.column.decode(self.view.commit(), range, Some(marks), out).map_err(|e| corrupt(self.series, e))
    }
}

impl SampleSource for HeadSeries {
    fn decode(&self, range: TimeRange, out: &mut FloatColumn) -> Result<(), ReadError> {
        let from = out.len();
        self.decode_to(range, Output::Floats(out))?;
        match self.view.deleted_of(self.series) {
            [] => {}
            deleted => deletion::drop_floats(deleted, from, out),
        }
        Ok(())
    }

    fn decode_all(&self, range: TimeRange, out: &mut SampleColumn) -> Result<(), ReadError> {
        let from = (out.floats.len(), out.histograms.len());
        self.decode_to(range, Output::All(out))?;
        match self.view.deleted_of(self.series) {
            [] => {}
            deleted => deletion::drop_samples(deleted, from, out),
        }
        Ok(())
    }

    fn whole_histogram_times(&self, _: TimeRange, out: &mut Vec<i64>) -> Result<(), ReadError> {
        self.column.whole_histogram_times(out).map_err(|error| corrupt(self.series, error))
    }

    fn reference(&self) -> Option<u64> {
        Some(self.series.0)
    }
}

fn corrupt(series: SeriesRef, error: ChunkError) -> ReadError {
    ReadError::Corrupt(format!("head chunk of series {}: {error}", series.0))
}
