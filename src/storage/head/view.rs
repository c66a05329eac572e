//! Read views of the head: a few reference counts and one commit number for all shards. Nothing here takes a lock that a
//! writer takes, but that of a series' pointer for some instructions; everything is decoded on the reader's thread.

mod classed;
mod listing;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use hashbrown::HashSet;
use parking_lot::Mutex;

use crate::model::labels::Labels;
use crate::model::matcher::{MatchOp, Matcher};
use crate::model::names::{Names, Part};
use crate::model::read::{
    ClassedSeries, FloatColumn, LookedAt, ReadBudget, ReadError, ReadView, SampleColumn, SampleSource, SelectedSeries,
};
use crate::model::sample::SeriesRef;
use crate::model::time::{TimeRange, TimestampMs};
use crate::storage::block::merged::{Begin, settle_source};
use crate::storage::block::tombstones::{Interval, Tombstones};
use crate::storage::chunk::ChunkError;
use crate::storage::chunk::written::ChunkPlace;
use crate::storage::head::column::{Column, Output, SeriesCell, SeriesMarks};
use crate::storage::head::commit::{CommitId, ViewPin};
use crate::storage::head::deletion;
use crate::storage::head::index::Index;
use crate::storage::head::index::order::KnownRanks;
use crate::storage::head::index::segment::{AsOf, PairId, Seen, Segment, SegmentId};
use crate::storage::head::index::select::{PositionSet, Ticker, listed_pairs, positions};
use crate::storage::head::index::tail::TailEntry;
use crate::storage::head::late::LateChunks;
use crate::storage::head::late::table::LateTable;
use crate::storage::head::marks::Marks;
use crate::storage::head::shard::{Shard, ShardReaders};
use crate::storage::head::shared::HeadShared;
use crate::storage::head::starts::{Run, start_at};
use crate::storage::head_chunk_mending::{Lost, LostSamples};
use crate::storage::postings::intersect;
use crate::storage::selections::Selections;

/// What a selected series takes beside its label text: the entry, the source behind it, and what the allocator adds.
const SELECTED_LEN: usize = size_of::<SelectedSeries>() + size_of::<HeadSeries>() + 64;

/// Bytes that are gathered before they are charged.
const CHARGED_AT_ONCE: usize = 4 << 10;

/// Lost chunks that a view names at most.
const LEFT_OUT_MAX: usize = 20;

/// Series of a list of postings that an estimate looks at.
const INTERSECTED_MAX: usize = 1024;

/// What a remembered series takes at least.
const KNOWN_LEN: usize = size_of::<KnownSeries>() + 64;

/// What selectors found in the segments of all shards, in the order of labels. The key names the segments, shard by shard.
pub(crate) type KnownSelections = Selections<Box<[SegmentId]>, KnownSeries>;

/// A series of a segment, with its labels.
#[derive(Debug)]
pub(crate) struct KnownSeries {
    labels: Labels,
    shard: u16,
    segment: u16,
    position: u32,
}

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
    known: Arc<KnownSelections>,
    ranks: Arc<KnownRanks>,
    /// Ranges that are deleted.
    deleted: Arc<Tombstones>,
    /// Samples that were lost to damage, and what reads have left out of them.
    lost: Arc<Lost>,
    left_out: Mutex<BTreeMap<ChunkPlace, LostSamples>>,
}

#[derive(Debug)]
struct ShardView {
    readers: Arc<ShardReaders>,
    generation: u64,
    index: Arc<Index>,
    tail_len: usize,
    late: Arc<LateTable>,
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
            let late = shard.readers.late.load_full();
            ShardView { readers: Arc::clone(&shard.readers), generation, index, tail_len, late }
        };
        let shards = shards.iter().map(open_shard).collect();
        let min_valid = shared.min_valid();
        let span = shared
            .time_span()
            .and_then(|(min, max)| TimeRange::new(TimestampMs(min.max(min_valid)), TimestampMs(max)).ok());
        let (marks, known, ranks) = (Arc::clone(&shared.marks), Arc::clone(&shared.known), Arc::clone(&shared.ranks));
        let lost = shared.chunk_store().map_or_else(Arc::default, |store| store.files().stand_ins().lost());
        let left_out = Mutex::default();
        Self { inner: Arc::new(ViewInner { pin, span, shards, marks, known, ranks, deleted, lost, left_out }) }
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

/// Samples of a series in order, and others.
type Parts = (Option<Arc<Column>>, Option<Arc<LateChunks>>);

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

    /// The late samples of a series.
    fn late_of(&self, shard: usize, cell: &SeriesCell) -> Option<Arc<LateChunks>> {
        cell.has_late().then(|| self.shards.get(shard)?.late.get(cell.series())).flatten()
    }

    /// True if the view sees a sample of the series.
    fn sees(&self, shard: usize, cell: &SeriesCell) -> bool {
        cell.is_visible(self.commit()) || self.late_of(shard, cell).is_some_and(|late| late.has_visible(self.commit()))
    }

    /// True if the head may hold samples in `range`.
    fn overlaps(&self, range: TimeRange) -> bool {
        let late = |shard: &ShardView| shard.late.span().is_some_and(|span| range.overlaps(span.min(), span.max()));
        self.clamp(range).is_some() || self.shards.iter().any(late)
    }

    fn deleted_of(&self, series: SeriesRef) -> &[Interval] {
        self.deleted.of_series(series.0)
    }

    /// Notes that samples of the series are left out, if some of it were lost in `range`; true if any of it were.
    fn leaves_out(&self, series: SeriesRef, range: TimeRange) -> bool {
        if self.lost.is_empty() {
            return false;
        }
        let Some(lost) = self.lost.get(&series) else { return false };
        for one in lost.iter().filter(|one| range.overlaps(TimestampMs(one.range.0), TimestampMs(one.range.1))) {
            let mut left_out = self.left_out.lock();
            if left_out.len() < LEFT_OUT_MAX {
                left_out.insert(one.place, *one);
            }
        }
        true
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
        self.check_shards(budget)?;
        self.for_each_in_segments(matchers, &mut ticker, &mut take)?;
        self.for_each_in_tails(matchers, &mut ticker, &mut take)
    }

    fn check_shards(&self, budget: &dyn ReadBudget) -> Result<(), ReadError> {
        budget.check()?;
        self.check_generations()
    }

    /// Errors if a shard is away, or was since the view opened.
    fn check_generations(&self) -> Result<(), ReadError> {
        self.shards.iter().try_for_each(|shard| shard.readers.check(shard.generation))
    }

    /// The samples of a series, if it may have any in `range` that the view sees.
    fn samples_of(
        self: &Arc<Self>,
        shard: usize,
        cell: &SeriesCell,
        range: TimeRange,
    ) -> Result<Option<HeadSeries>, ReadError> {
        let (column, late) = self.parts_of(shard, cell, range)?;
        let (series, has_any) = (cell.series(), column.is_some() || late.is_some());
        Ok(has_any.then(|| HeadSeries { view: Arc::clone(self), shard, series, column, late }))
    }

    /// Whether there would be any.
    fn has_samples(&self, shard: usize, cell: &SeriesCell, range: TimeRange) -> Result<bool, ReadError> {
        let (column, late) = self.parts_of(shard, cell, range)?;
        Ok(column.is_some() || late.is_some())
    }

    /// What a series has in `range`: samples in order, and others.
    fn parts_of(&self, shard: usize, cell: &SeriesCell, range: TimeRange) -> Result<Parts, ReadError> {
        let series = cell.series();
        let deleted = self.deleted_of(series);
        let mut column = None;
        if let Some(range) = self.clamp(range) {
            let marks = self.marks_of(shard, series);
            column = cell.samples_in(self.commit(), range, Some(marks)).map_err(|e| corrupt(series, e))?;
            if let Some(found) = &column
                && !deleted.is_empty()
                && !found.is_left_in(range, deleted).map_err(|e| corrupt(series, e))?
            {
                column = None;
            }
        }
        let is_left = |late: &Arc<LateChunks>| {
            late.reaches_into(range, self.commit())
                && late.spans(u64::MAX).any(|(min_t, max_t)| !deletion::covers(deleted, min_t, max_t))
        };
        Ok((column, self.late_of(shard, cell).filter(is_left)))
    }

    fn for_each_in_segments<'a>(
        &'a self,
        matchers: &[Matcher],
        ticker: &mut Ticker<'_>,
        mut take: impl FnMut(usize, Found<'a>) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        (0..self.shards.len()).try_for_each(|number| self.for_each_in_shard(number, matchers, ticker, &mut take))
    }

    fn for_each_in_shard<'a>(
        &'a self,
        number: usize,
        matchers: &[Matcher],
        ticker: &mut Ticker<'_>,
        take: &mut impl FnMut(usize, Found<'a>) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        for segment in self.shards.get(number).iter().flat_map(|shard| &shard.index.segments) {
            for position in positions(segment, matchers, ticker)? {
                ticker.tick()?;
                take(number, Found::InSegment(segment, position))?;
            }
        }
        Ok(())
    }

    fn for_each_in_tails<'a>(
        &'a self,
        matchers: &[Matcher],
        ticker: &mut Ticker<'_>,
        mut take: impl FnMut(usize, Found<'a>) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        for (number, shard) in self.shards.iter().enumerate() {
            for entry in shard.index.tail.iter(shard.tail_len) {
                ticker.tick()?;
                if matchers.iter().all(|matcher| matcher.matches_labels(&entry.labels)) {
                    take(number, Found::InTail(entry))?;
                }
            }
        }
        Ok(())
    }

    /// The series of the segments that fulfil all `matchers`, in the order of their labels; from memory where they are known.
    /// `None` if they are too many to be remembered.
    fn known(&self, matchers: &[Matcher], ticker: &mut Ticker<'_>) -> Result<Option<Arc<[KnownSeries]>>, ReadError> {
        let segments = || self.shards.iter().flat_map(|shard| &shard.index.segments);
        let key: Box<[SegmentId]> = segments().map(|segment| segment.id()).collect();
        if let Some(found) = self.known.get(&key, matchers) {
            return Ok(Some(found));
        }
        let count_max = self.known.one_len_max() / KNOWN_LEN;
        let mut places: Vec<(u16, u16, Vec<u32>)> = Vec::with_capacity(key.len());
        let mut count = 0;
        for (number, shard) in (0u16..).zip(&self.shards) {
            for (segment_number, segment) in (0u16..).zip(&shard.index.segments) {
                let found = positions(segment, matchers, ticker)?;
                count += found.len();
                if count_max < count {
                    return Ok(None);
                }
                places.push((number, segment_number, found));
            }
        }
        let (mut all, mut len) = (Vec::with_capacity(count), 0);
        for ((shard, segment, positions), source) in places.into_iter().zip(segments()) {
            let living = source.living(positions);
            source.look_ahead(&living);
            for position in living {
                ticker.tick()?;
                let labels = source.labels(position);
                len += KNOWN_LEN + labels.encoded_len();
                all.push(KnownSeries { labels, shard, segment, position });
            }
        }
        // Runs that are sorted already, one for each segment: the sort finds and merges them.
        all.sort_by(|a, b| a.labels.cmp(&b.labels));
        let all: Arc<[KnownSeries]> = all.into();
        self.known.put(key, matchers, Arc::clone(&all), len);
        Ok(Some(all))
    }
}

impl ViewInner {
    /// Positions of the series of a segment that the view does not see, ascending.
    fn unseen(&self, shard: usize, segment: &Segment, ticker: &mut Ticker<'_>) -> Result<Vec<u32>, ReadError> {
        let losses = self.shards.get(shard).map_or(0, |shard| shard.readers.losses.load(Ordering::Acquire));
        let as_of = AsOf { losses, commit: self.commit() };
        let known = segment.seen().filter(|seen| seen.as_of.losses == losses && seen.as_of.commit <= self.commit());
        let Some(known) = known else {
            let mut stopped = Ok(());
            let seen = Seen::of(segment, as_of, |cell| {
                stopped = std::mem::replace(&mut stopped, Ok(())).and_then(|()| ticker.tick());
                self.sees(shard, cell)
            });
            stopped?;
            let unseen = both(&seen.not_yet, &seen.gone);
            segment.set_seen(seen);
            return Ok(unseen);
        };
        let mut not_yet = Vec::new();
        for position in &known.not_yet {
            ticker.tick()?;
            if !self.sees(shard, segment.cell(*position)) {
                not_yet.push(*position);
            }
        }
        let unseen = both(&not_yet, &known.gone);
        if not_yet.len() < known.not_yet.len() / 2 {
            segment.set_seen(Seen { as_of, not_yet: not_yet.into(), gone: known.gone.clone() });
        }
        Ok(unseen)
    }

    /// The values of a label in a segment that the view sees, of all series or of those in `among`.
    fn values_in<'a>(
        &self,
        (shard, segment): (usize, &'a Segment),
        name: &str,
        among: Option<PositionSet>,
        ticker: &mut Ticker<'_>,
        budget: &dyn ReadBudget,
    ) -> Result<Part<'a>, ReadError> {
        let of_name = segment.pairs_of_name(name);
        let mut away: Vec<PairId> = Vec::new();
        if segment.len() / 8 < of_name.len() {
            // So many values that it is cheaper to know which series are seen.
            let unseen = self.unseen(shard, segment, ticker)?;
            let is_part = among.is_some();
            let mut seen = among.unwrap_or_else(|| PositionSet::all(segment));
            unseen.iter().for_each(|position| seen.remove(*position));
            if is_part {
                away.extend(of_name.clone());
            } else {
                for position in &unseen {
                    ticker.tick()?;
                    away.extend(segment.pair_in(*position, &of_name));
                }
                away.sort_unstable();
                away.dedup();
            }
            away.retain(|pair| !segment.postings(*pair).iter().any(|position| seen.has(*position)));
        } else {
            for pair in of_name.clone() {
                if !self.sees_any((shard, segment), pair, among.as_ref(), ticker)? {
                    away.push(pair);
                }
            }
        }
        let all = segment.values(of_name.clone());
        budget.charge(all.text_len() + all.len() * size_of::<usize>())?;
        if away.is_empty() {
            return Ok(Part::Run(all));
        }
        let mut values = Names::default();
        let mut from = 0;
        for pair in away.into_iter().chain([of_name.end]) {
            let to = (pair - of_name.start) as usize;
            if from < to {
                all.copy(from..to, &mut values);
            }
            from = to + 1;
        }
        Ok(Part::Own(values))
    }

    /// The series of a segment that fulfil the matchers.
    fn among(&self, segment: &Segment, matchers: &[Matcher], ticker: &mut Ticker<'_>) -> Result<Among, ReadError> {
        if matchers.is_empty() {
            return Ok(Among::All);
        }
        let few = segment.len() / 64;
        if let [one] = matchers
            && let Some(pairs) = listed_pairs(segment, one)
        {
            // Those of one label do not overlap.
            let len: usize = pairs.iter().map(|pair| segment.postings(*pair).len()).sum();
            if len == segment.len() {
                return Ok(Among::All);
            }
            if few < len {
                return Ok(Among::Many(PositionSet::of_pairs(segment, &pairs)));
            }
        }
        let found = positions(segment, matchers, ticker)?;
        Ok(match found.len() {
            len if len == segment.len() => Among::All,
            len if len <= few => Among::Few(found),
            _ => Among::Many(PositionSet::of(segment, &found)),
        })
    }

    /// The values of a label over series that fulfil all matchers and that the view sees.
    fn values_of(&self, name: &str, matchers: &[Matcher], budget: &dyn ReadBudget) -> Result<Names, ReadError> {
        let mut ticker = Ticker::new(budget);
        let (mut lists, mut few) = (Vec::new(), Vec::new());
        self.check_shards(budget)?;
        for (number, shard) in self.shards.iter().enumerate() {
            for segment in &shard.index.segments {
                let among = match self.among(segment, matchers, &mut ticker)? {
                    Among::All => None,
                    Among::Many(among) => Some(among),
                    Among::Few(found) => {
                        let of_name = segment.pairs_of_name(name);
                        for position in found {
                            ticker.tick()?;
                            if self.sees(number, segment.cell(position)) {
                                few.extend(segment.pair_in(position, &of_name).map(|pair| segment.value(pair)));
                            }
                        }
                        continue;
                    }
                };
                lists.push(self.values_in((number, segment), name, among, &mut ticker, budget)?);
            }
        }
        self.for_each_in_tails(matchers, &mut ticker, |shard, found| {
            if let Found::InTail(entry) = found
                && let Some(value) = entry.labels.get(name)
                && self.sees(shard, &entry.cell)
            {
                few.push(value);
            }
            Ok(())
        })?;
        budget.charge(few.iter().map(|value| value.len() + 2 * size_of::<&str>()).sum())?;
        lists.push(Part::Own(few.into_iter().collect()));
        let values = Names::merged_parts(lists);
        budget.charge(values.memory_len())?;
        Ok(values)
    }

    /// The names of labels of series that fulfil all matchers and that the view sees.
    fn names_of(&self, matchers: &[Matcher], budget: &dyn ReadBudget) -> Result<Names, ReadError> {
        let mut ticker = Ticker::new(budget);
        let mut names: HashSet<&str, foldhash::fast::RandomState> = HashSet::default();
        self.check_shards(budget)?;
        for (number, shard) in self.shards.iter().enumerate() {
            for segment in &shard.index.segments {
                let among = match self.among(segment, matchers, &mut ticker)? {
                    Among::All => None,
                    Among::Many(among) => Some(among),
                    Among::Few(found) => {
                        // The pairs of names that are in the list, ascending.
                        let mut known: Vec<Range<PairId>> = Vec::new();
                        for position in found {
                            ticker.tick()?;
                            if !self.sees(number, segment.cell(position)) {
                                continue;
                            }
                            let mut at = 0;
                            for pair in segment.pairs(position) {
                                while known.get(at).is_some_and(|range| range.end <= *pair) {
                                    at += 1;
                                }
                                if known.get(at).is_none_or(|range| *pair < range.start) {
                                    let name = segment.pair(*pair).0;
                                    names.insert(name);
                                    known.insert(at, segment.pairs_of_name(name));
                                }
                            }
                        }
                        continue;
                    }
                };
                for range in segment.name_ranges() {
                    let name = segment.pair(range.start).0;
                    for pair in range {
                        if names.contains(name) {
                            break;
                        }
                        if self.sees_any((number, segment), pair, among.as_ref(), &mut ticker)? {
                            names.insert(name);
                        }
                    }
                }
            }
        }
        self.for_each_in_tails(matchers, &mut ticker, |shard, found| {
            if let Found::InTail(entry) = found
                && entry.labels.iter().any(|(name, _)| !names.contains(name))
                && self.sees(shard, &entry.cell)
            {
                names.extend(entry.labels.iter().map(|(name, _)| name));
            }
            Ok(())
        })?;
        budget.charge(names.iter().map(|name| name.len() + 3 * size_of::<&str>()).sum())?;
        Ok(names.into_iter().collect())
    }
}

/// Which series of a segment are meant.
enum Among {
    All,
    Many(PositionSet),
    /// Their positions.
    Few(Vec<u32>),
}

/// Two ascending lists as one.
fn both(a: &[u32], b: &[u32]) -> Vec<u32> {
    let mut all = [a, b].concat();
    all.sort_unstable();
    all
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
        // Shards are asked even where the range is empty: one that is away must not look like one without samples.
        view.check_shards(budget)?;
        if !view.overlaps(range) {
            return Ok(Vec::new());
        }
        let mut ticker = Ticker::new(budget);
        let mut picked = Picked::new(view, range, budget);
        let known = view.known(matchers, &mut ticker)?;
        match &known {
            Some(known) => {
                picked.selected.reserve_exact(known.len());
                for one in known.iter() {
                    ticker.tick()?;
                    let shard = usize::from(one.shard);
                    let segments = view.shards.get(shard).map(|shard| &shard.index.segments);
                    let Some(segment) = segments.and_then(|all| all.get(usize::from(one.segment))) else { continue };
                    picked.take(shard, segment.cell(one.position), || one.labels.clone())?;
                }
            }
            None => picked.selected = select_many(view, matchers, range, budget)?,
        }
        let from_segments = picked.selected.len();
        view.for_each_in_tails(matchers, &mut ticker, |shard, found| {
            picked.take(shard, found.cell(), || found.labels())
        })?;
        budget.charge(picked.uncharged)?;
        budget.check()?;
        let mut selected = picked.selected;
        if known.is_none() || from_segments < selected.len() {
            // Runs that are sorted already, one for each segment: the sort finds and merges them.
            selected.sort_by(|a, b| a.labels.cmp(&b.labels));
        }
        Ok(selected)
    }

    fn select_classed(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        looked_at: LookedAt<'_>,
        budget: &dyn ReadBudget,
    ) -> Result<Option<Box<dyn ClassedSeries>>, ReadError> {
        self.classed(matchers, range, looked_at, budget)
    }

    fn label_names(&self, matchers: &[Matcher], range: TimeRange, budget: &dyn ReadBudget) -> Result<Names, ReadError> {
        if !self.inner.overlaps(range) {
            // A shard that is away must not look like one without samples.
            return self.inner.check_shards(budget).map(|()| Names::default());
        }
        self.inner.names_of(matchers, budget)
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        range: TimeRange,
        budget: &dyn ReadBudget,
    ) -> Result<Names, ReadError> {
        if !self.inner.overlaps(range) {
            return self.inner.check_shards(budget).map(|()| Names::default());
        }
        self.inner.values_of(name, matchers, budget)
    }

    fn warnings(&self) -> Vec<String> {
        let text = |one: &LostSamples| {
            let (file, offset, samples) = (one.place.file(), one.place.offset(), one.samples);
            format!("{samples} samples are lost to damage of file {file} of chunks_head at byte {offset}")
        };
        self.inner.left_out.lock().values().map(text).collect()
    }

    fn series_labels(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        limit: usize,
        budget: &dyn ReadBudget,
    ) -> Result<Vec<Labels>, ReadError> {
        self.labels_of(matchers, range, limit, budget)
    }

    fn first_label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        range: TimeRange,
        limit: usize,
        budget: &dyn ReadBudget,
    ) -> Result<Names, ReadError> {
        self.first_values(name, matchers, range, limit, budget)
    }

    fn series_estimate(&self, matchers: &[Matcher], _: TimeRange) -> Result<Option<usize>, ReadError> {
        let exact: Vec<&Matcher> = matchers.iter().filter(|m| is_exact(m)).collect();
        let mut count: usize = 0;
        for shard in &self.inner.shards {
            for segment in &shard.index.segments {
                let with = |matcher: &&Matcher| -> &[u32] {
                    let pair = segment.pair_with_value(&segment.pairs_of_name(matcher.name()), matcher.value());
                    pair.map_or(&[], |pair| segment.postings(pair))
                };
                let mut lists: Vec<&[u32]> = exact.iter().map(with).collect();
                lists.sort_by_key(|postings| postings.len());
                count += match lists.as_slice() {
                    [] => segment.len(),
                    [least, rest @ ..] if least.len() <= INTERSECTED_MAX => {
                        rest.iter().fold(least.to_vec(), |both, next| intersect(&both, next)).len()
                    }
                    [least, ..] => least.len(),
                };
            }
            let entries = shard.index.tail.iter(shard.tail_len);
            count += entries.filter(|entry| exact.iter().all(|m| m.matches_labels(&entry.labels))).count();
        }
        Ok(Some(count))
    }
}

/// The series of the segments that fulfil all `matchers`: those of each shard sorted by labels, one shard after the other.
fn select_many(
    view: &Arc<ViewInner>,
    matchers: &[Matcher],
    range: TimeRange,
    budget: &dyn ReadBudget,
) -> Result<Vec<SelectedSeries>, ReadError> {
    let of_shards: Vec<OnceLock<Result<Vec<SelectedSeries>, ReadError>>> =
        view.shards.iter().map(|_| OnceLock::new()).collect();
    let of_shard = |number: usize| {
        let (mut picked, mut ticker) = (Picked::new(view, range, budget), Ticker::new(budget));
        view.for_each_in_shard(number, matchers, &mut ticker, &mut |shard, found| {
            picked.take(shard, found.cell(), || found.labels())
        })?;
        budget.charge(picked.uncharged)?;
        picked.selected.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(picked.selected)
    };
    budget.run_each(of_shards.len(), &|number| {
        if let Some(slot) = of_shards.get(number) {
            slot.get_or_init(|| of_shard(number));
        }
    });
    let mut all = Vec::new();
    for selected in of_shards.into_iter().filter_map(OnceLock::into_inner) {
        let mut selected = selected?;
        if all.is_empty() { all = selected } else { all.append(&mut selected) }
    }
    Ok(all)
}

/// A selection as it grows.
struct Picked<'a> {
    view: &'a Arc<ViewInner>,
    range: TimeRange,
    budget: &'a dyn ReadBudget,
    selected: Vec<SelectedSeries>,
    uncharged: usize,
}

impl<'a> Picked<'a> {
    fn new(view: &'a Arc<ViewInner>, range: TimeRange, budget: &'a dyn ReadBudget) -> Self {
        Self { view, range, budget, selected: Vec::new(), uncharged: 0 }
    }

    /// Takes a series that has samples in the range.
    fn take(&mut self, shard: usize, cell: &SeriesCell, labels: impl FnOnce() -> Labels) -> Result<(), ReadError> {
        if let Some(samples) = self.view.samples_of(shard, cell, self.range)? {
            let labels = labels();
            self.uncharged += labels.encoded_len() + SELECTED_LEN;
            if CHARGED_AT_ONCE < self.uncharged {
                self.budget.charge(std::mem::take(&mut self.uncharged))?;
            }
            self.selected.push(SelectedSeries { labels, samples: Arc::new(samples) });
        }
        Ok(())
    }
}

/// A selected series: keeps its view, and so all that the view pins.
#[derive(Debug)]
struct HeadSeries {
    view: Arc<ViewInner>,
    shard: usize,
    series: SeriesRef,
    /// Its samples when it was selected: all that the view sees are there.
    column: Option<Arc<Column>>,
    /// Those that came out of order.
    late: Option<Arc<LateChunks>>,
}

impl HeadSeries {
    /// Errors if the shard is away.
    fn check(&self) -> Result<(), ReadError> {
        if let Some(shard) = self.view.shards.get(self.shard) {
            shard.readers.check(shard.generation)?;
        }
        Ok(())
    }

    fn decode_to(&self, range: TimeRange, out: Output<'_>) -> Result<(), ReadError> {
        self.check()?;
        self.view.leaves_out(self.series, range);
        let Some(late) = &self.late else { return self.decode_in_order(range, out) };
        match out {
            Output::Floats(out) => {
                // A float may give way to a histogram of the same time, so histograms are looked at as well.
                let mut all = SampleColumn::default();
                self.decode_merged(late, range, &mut all)?;
                out.timestamps.append(&mut all.floats.timestamps);
                out.values.append(&mut all.floats.values);
                Ok(())
            }
            Output::All(out) => self.decode_merged(late, range, out),
        }
    }

    fn decode_in_order(&self, range: TimeRange, out: Output<'_>) -> Result<(), ReadError> {
        let (Some(column), Some(range)) = (&self.column, self.view.clamp(range)) else { return Ok(()) };
        let marks = self.view.marks_of(self.shard, self.series);
        let decode = |out: Output<'_>| column.decode(self.view.commit(), range, Some(marks), out);
        let Output::All(out) = out else { return decode(out).map_err(|e| corrupt(self.series, e)) };
        let from = (out.floats.len(), out.histograms.len());
        decode(Output::All(out)).map_err(|e| corrupt(self.series, e))?;
        let shard = self.view.shards.get(self.shard);
        let runs = shard.map_or_else(Vec::new, |shard| shard.readers.starts.runs(self.series));
        if !runs.is_empty() {
            set_starts(&runs, from.0, &out.floats.timestamps, &mut out.float_starts);
            set_starts(&runs, from.1, &out.histograms.timestamps, &mut out.histogram_starts);
        }
        Ok(())
    }

    /// Merges what came in order and what did not; of samples with the same time the one that came in order stays.
    fn decode_merged(&self, late: &LateChunks, range: TimeRange, out: &mut SampleColumn) -> Result<(), ReadError> {
        let begin = Begin::of(out);
        self.decode_in_order(range, Output::All(out))?;
        let of_late = Begin::of(out);
        late.decode(range, self.view.commit(), out).map_err(|e| corrupt(self.series, e))?;
        settle_source(out, begin, of_late);
        if !out.float_starts.is_empty() {
            out.float_starts.resize(out.floats.len(), 0);
        }
        if !out.histogram_starts.is_empty() {
            out.histogram_starts.resize(out.histograms.len(), 0);
        }
        Ok(())
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

    fn whole_histogram_times(&self, range: TimeRange, out: &mut Vec<i64>) -> Result<(), ReadError> {
        let of_column = self.column.as_ref().map_or(Ok(()), |column| column.whole_histogram_times(out));
        let of_late = |late: &LateChunks| late.whole_histogram_times(range, self.view.commit(), out);
        of_column.and_then(|()| self.late.as_deref().map_or(Ok(()), of_late)).map_err(|e| corrupt(self.series, e))
    }

    fn reference(&self) -> Option<u64> {
        Some(self.series.0)
    }

    fn decode_newest(&self, range: TimeRange, out: &mut SampleColumn) -> Result<(), ReadError> {
        let is_simple = self.late.is_none() && self.view.deleted_of(self.series).is_empty();
        if !is_simple || self.view.leaves_out(self.series, range) {
            return self.decode_all(range, out);
        }
        self.check()?;
        let (Some(column), Some(range)) = (&self.column, self.view.clamp(range)) else { return Ok(()) };
        let marks = self.view.marks_of(self.shard, self.series);
        column.decode_newest(self.view.commit(), range, Some(marks), out).map_err(|e| corrupt(self.series, e))
    }
}

/// Gives the samples from number `from` on the starts of the runs.
fn set_starts(runs: &[Run], from: usize, times: &[i64], starts: &mut Vec<i64>) {
    starts.resize(from, 0);
    starts.extend(times.iter().skip(from).map(|t| start_at(runs, *t)));
}

fn corrupt(series: SeriesRef, error: ChunkError) -> ReadError {
    ReadError::Corrupt(format!("head chunk of series {}: {error}", series.0))
}
