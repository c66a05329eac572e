//! Read views of the head: a few reference counts and one commit number for all shards. Nothing here takes a lock that a
//! writer takes, but that of a series' pointer for some instructions; everything is decoded on the reader's thread.

mod classed;
mod estimate;
mod listing;
mod series;
mod series_list;
mod walk;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::model::labels::Labels;
use crate::model::matcher::{MatchOp, Matcher};
use crate::model::names::Names;
use crate::model::read::{ClassedSeries, ListingOf, LookedAt, ReadBudget, ReadError, ReadView, Scope, SelectedSeries};
use crate::model::sample::SeriesRef;
use crate::model::time::{TimeRange, TimestampMs};
use crate::storage::block::tombstones::{Interval, Tombstones};
use crate::storage::chunk::ChunkError;
use crate::storage::chunk::written::ChunkPlace;
use crate::storage::head::column::sink::SeriesMarks;
use crate::storage::head::column::{Column, SeriesCell};
use crate::storage::head::commit::{CommitId, ViewPin};
use crate::storage::head::deletion;
use crate::storage::head::index::Index;
use crate::storage::head::index::order::KnownRanks;
use crate::storage::head::index::segment::{Segment, SegmentId};
use crate::storage::head::index::select::{Ticker, positions};
use crate::storage::head::index::tail::TailEntry;
use crate::storage::head::late::LateChunks;
use crate::storage::head::late::table::LateTable;
use crate::storage::head::marks::Marks;
use crate::storage::head::shard::{Shard, ShardReaders};
use crate::storage::head::shared::HeadShared;
use crate::storage::head::view::estimate::series_in;
use crate::storage::head::view::series::HeadSeries;
use crate::storage::head_chunk_mending::{Lost, LostSamples};
use crate::storage::selections::Selections;

pub(crate) use walk::Place;

/// What a selected series takes beside its label text: the entry, the source behind it, and what the allocator adds.
const SELECTED_LEN: usize = size_of::<SelectedSeries>() + size_of::<HeadSeries>() + 64;

/// Bytes that are gathered before they are charged.
const CHARGED_AT_ONCE: usize = 4 << 10;

/// Lost chunks that a view names at most.
const LEFT_OUT_MAX: usize = 20;

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
    /// None before that are about to be dropped.
    is_whole: bool,
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
        let shards: Vec<ShardView> = shards.iter().map(open_shard).collect();
        let min_valid = shared.min_valid();
        let is_whole = shards.iter().all(|shard| min_valid <= shard.readers.dropped_before.load(Ordering::Acquire));
        let times = shared.time_span();
        let span = times.and_then(|(min, max)| TimeRange::new(TimestampMs(min.max(min_valid)), TimestampMs(max)).ok());
        let (marks, known, ranks) = (Arc::clone(&shared.marks), Arc::clone(&shared.known), Arc::clone(&shared.ranks));
        let lost = shared.chunk_store().map_or_else(Arc::default, |store| store.files().stand_ins().lost());
        let left_out = Mutex::default();
        Self {
            inner: Arc::new(ViewInner { pin, span, is_whole, shards, marks, known, ranks, deleted, lost, left_out }),
        }
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

    fn label_names(&self, scope: &Scope<'_>, budget: &dyn ReadBudget) -> Result<Names, ReadError> {
        self.list_names(scope, budget)
    }

    fn label_values(&self, name: &str, scope: &Scope<'_>, budget: &dyn ReadBudget) -> Result<Names, ReadError> {
        self.list_values(name, scope, budget)
    }

    fn series_labels(&self, scope: &Scope<'_>, budget: &dyn ReadBudget) -> Result<Vec<Labels>, ReadError> {
        self.list_series(scope, budget)
    }

    fn warnings(&self) -> Vec<String> {
        let text = |one: &LostSamples| {
            let (file, offset, samples) = (one.place.file(), one.place.offset(), one.samples);
            format!("{samples} samples are lost to damage of file {file} of chunks_head at byte {offset}")
        };
        self.inner.left_out.lock().values().map(text).collect()
    }

    fn series_estimate(&self, matchers: &[Matcher], _: TimeRange) -> Result<Option<usize>, ReadError> {
        let exact: Vec<&Matcher> = matchers.iter().filter(|m| is_exact(m)).collect();
        let mut count: usize = 0;
        for shard in &self.inner.shards {
            count += shard.index.segments.iter().map(|segment| series_in(segment, &exact)).sum::<usize>();
            let entries = shard.index.tail.iter(shard.tail_len);
            count += entries.filter(|entry| exact.iter().all(|m| m.matches_labels(&entry.labels))).count();
        }
        Ok(Some(count))
    }

    fn listing_estimate(&self, listing: ListingOf<'_>, scope: &Scope<'_>) -> Result<Option<usize>, ReadError> {
        Ok(Some(self.inner.estimate(listing, scope)))
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

fn corrupt(series: SeriesRef, error: ChunkError) -> ReadError {
    ReadError::Corrupt(format!("head chunk of series {}: {error}", series.0))
}
