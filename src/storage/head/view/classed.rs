//! Selections of the head for whoever looks at some labels alone: a series is a place in a segment and the number of its class,
//! twelve bytes; its samples are looked for when they are decoded.
//!
//! A view sees what it saw when it opened for as long as it is there: chunks are dropped when no older view is left. So nothing of
//! a series has to be held from the selection on.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use hashbrown::HashMap;

use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::read::{ClassedSeries, LookedAt, ReadBudget, ReadError, SampleColumn, SampleSource, Wanted};
use crate::model::time::TimeRange;
use crate::storage::head::column::{Output, SeriesCell};
use crate::storage::head::index::classes::Classes;
use crate::storage::head::index::order::{Member, NO_CLASS, Ranks, leading, merged};
use crate::storage::head::index::segment::Segment;
use crate::storage::head::index::select::{Ticker, positions};
use crate::storage::head::index::tail::Tail;
use crate::storage::head::view::{HeadView, KnownSeries, ViewInner, corrupt};

/// Series whose memory is looked at side by side before they are decoded one by one, so that the processor waits for it once. No
/// more than there are columns that a thread can hold without counting references.
const BATCH_LEN: usize = 8;
/// More series than these have no marks: they would only push each other out.
const MARKED_MAX: usize = 1 << 14;
/// A selection of at least one in so many series of the segments is put in order by ranks.
const RANKED_SHARE: usize = 8;
/// Classes that are worth their numbers, whatever the number of series.
const CLASSES_MIN: usize = 4096;
/// What a class takes beside the text of its labels.
const CLASS_LEN: usize = 128;

/// See the module's text.
struct Selected {
    view: Arc<ViewInner>,
    /// Runs are numbered as segments are, shard by shard; behind those come the tails.
    members: Vec<Member>,
    classes: Vec<Labels>,
}

/// Members in the order of their labels, each with the number of its class in its run: one list, or a list for each run.
type Found<'a> = (Vec<Vec<Member>>, Vec<Classes<'a>>);

impl HeadView {
    /// See `ReadView::select_classed`.
    pub(super) fn classed(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        looked_at: LookedAt<'_>,
        budget: &dyn ReadBudget,
    ) -> Result<Option<Box<dyn ClassedSeries>>, ReadError> {
        let view = &self.inner;
        view.check_shards(budget)?;
        if !view.overlaps(range) {
            return Ok(None);
        }
        let mut ticker = Ticker::new(budget);
        let segments = view.segments();
        let found = match view.known(matchers, &mut ticker)? {
            Some(known) => view.classes_of_known(&known, &segments, looked_at, budget)?,
            None => classes_of_all(&segments, matchers, looked_at, budget)?,
        };
        let Some((mut found, classes)) = found else { return Ok(None) };
        let mut numbers = Numbers::default();
        numbers.renumber(&mut found, &classes, budget)?;
        let members = view.in_order(&segments, found, budget)?;
        let number = |labels: &Labels| numbers.of(looked_at.part_of(labels), budget);
        let members = view.with_tails(members, &segments, matchers, number, budget)?;
        budget.check()?;
        Ok(Some(Box::new(Selected { view: Arc::clone(view), members, classes: numbers.labels })))
    }
}

/// True if there are so many classes among the first series that each may as well be looked at by itself.
fn are_too_many(classes: &Classes<'_>, members: &[Member]) -> bool {
    CLASSES_MIN + members.len() / 4 < classes.len()
}

/// The classes of the series that fulfil all matchers, run by run; `None` if they are too many.
fn classes_of_all<'a>(
    segments: &[&'a Segment],
    matchers: &[Matcher],
    looked_at: LookedAt<'_>,
    budget: &dyn ReadBudget,
) -> Result<Option<Found<'a>>, ReadError> {
    type OfRun<'a> = Result<Option<(Vec<Member>, Classes<'a>)>, ReadError>;
    let slots: Vec<OnceLock<OfRun<'a>>> = segments.iter().map(|_| OnceLock::new()).collect();
    let of_run = |number: usize, segment: &'a Segment| {
        let (mut ticker, mut classes) = (Ticker::new(budget), Classes::new(segment, looked_at));
        let positions = positions(segment, matchers, &mut ticker)?;
        budget.charge(positions.len() * (size_of::<Member>() + size_of::<u32>()))?;
        let mut members = Vec::with_capacity(positions.len());
        for position in positions {
            ticker.tick()?;
            members.push(Member { run: number as u32, position, class: classes.number(position) });
            if are_too_many(&classes, &members) {
                return Ok(None);
            }
        }
        budget.charge(classes.len() * CLASS_LEN)?;
        Ok(Some((members, classes)))
    };
    budget.run_each(slots.len(), &|number| {
        if let (Some(slot), Some(segment)) = (slots.get(number), segments.get(number)) {
            slot.get_or_init(|| of_run(number, segment));
        }
    });
    let mut found = (Vec::with_capacity(slots.len()), Vec::with_capacity(slots.len()));
    for of_run in slots.into_iter().filter_map(OnceLock::into_inner) {
        let Some((members, classes)) = of_run? else { return Ok(None) };
        found.0.push(members);
        found.1.push(classes);
    }
    Ok(Some(found))
}

/// Numbers of classes that all runs have in common.
#[derive(Default)]
struct Numbers {
    labels: Vec<Labels>,
    of: HashMap<Labels, u32, foldhash::fast::RandomState>,
}

impl Numbers {
    fn of(&mut self, labels: Labels, budget: &dyn ReadBudget) -> Result<u32, ReadError> {
        if let Some(number) = self.of.get(&labels) {
            return Ok(*number);
        }
        budget.charge(labels.encoded_len() + CLASS_LEN)?;
        let number = self.labels.len() as u32;
        self.labels.push(labels.clone());
        self.of.insert(labels, number);
        Ok(number)
    }

    /// Gives members that have numbers of their runs those in common.
    fn renumber(
        &mut self,
        found: &mut [Vec<Member>],
        classes: &[Classes<'_>],
        budget: &dyn ReadBudget,
    ) -> Result<(), ReadError> {
        let mut number_of: Vec<Vec<u32>> = classes.iter().map(|classes| vec![NO_CLASS; classes.len()]).collect();
        for member in found.iter_mut().flatten() {
            let run = member.run as usize;
            let number = number_of.get_mut(run).and_then(|numbers| numbers.get_mut(member.class as usize));
            let (Some(number), Some(classes)) = (number, classes.get(run)) else { continue };
            if *number == NO_CLASS {
                *number = self.of(classes.labels(member.class), budget)?;
            }
            member.class = *number;
        }
        Ok(())
    }
}

/// A part of the index of one shard.
#[derive(Clone, Copy)]
enum Source<'a> {
    Segment(&'a Segment),
    Tail(&'a Tail),
}

impl<'a> Source<'a> {
    fn cell(self, position: u32) -> Option<&'a Arc<SeriesCell>> {
        match self {
            Self::Segment(segment) => segment.cells.get(position as usize),
            Self::Tail(tail) => tail.get(position as usize).map(|entry| &entry.cell),
        }
    }
}

impl ViewInner {
    fn segments(&self) -> Vec<&Segment> {
        self.shards.iter().flat_map(|shard| &shard.index.segments).map(|segment| &**segment).collect()
    }

    /// What the numbers of runs mean: a shard and a part of its index.
    fn sources(&self) -> Vec<(usize, Source<'_>)> {
        let shards = || self.shards.iter().enumerate();
        let segments = shards().flat_map(|(number, shard)| {
            shard.index.segments.iter().map(move |segment| (number, Source::Segment(segment)))
        });
        segments.chain(shards().map(|(number, shard)| (number, Source::Tail(&shard.index.tail)))).collect()
    }

    /// The classes of series that are known to fulfil all matchers; `None` if they are too many.
    fn classes_of_known<'a>(
        &self,
        known: &[KnownSeries],
        segments: &[&'a Segment],
        looked_at: LookedAt<'_>,
        budget: &dyn ReadBudget,
    ) -> Result<Option<Found<'a>>, ReadError> {
        let mut classes: Vec<Classes<'a>> = segments.iter().map(|segment| Classes::new(segment, looked_at)).collect();
        let mut before = 0;
        let mut first_runs = Vec::with_capacity(self.shards.len());
        for shard in &self.shards {
            first_runs.push(before);
            before += shard.index.segments.len();
        }
        budget.charge(known.len() * size_of::<Member>())?;
        let mut members = Vec::with_capacity(known.len());
        for one in known {
            let first = first_runs.get(usize::from(one.shard)).copied().unwrap_or(0);
            let run = first + usize::from(one.segment);
            if let Some(classes) = classes.get_mut(run) {
                let class = classes.number(one.position);
                members.push(Member { run: run as u32, position: one.position, class });
                if are_too_many(classes, &members) {
                    return Ok(None);
                }
            }
        }
        budget.charge(classes.iter().map(Classes::len).sum::<usize>() * CLASS_LEN)?;
        Ok(Some((vec![members], classes)))
    }

    /// Lists of members as one, in the order of their labels.
    fn in_order(
        &self,
        segments: &[&Segment],
        mut found: Vec<Vec<Member>>,
        budget: &dyn ReadBudget,
    ) -> Result<Vec<Member>, ReadError> {
        if found.iter().filter(|members| !members.is_empty()).count() <= 1 {
            found.retain(|members| !members.is_empty());
            return Ok(found.pop().unwrap_or_default());
        }
        let mut ticker = Ticker::new(budget);
        let all: usize = segments.iter().map(|segment| segment.len()).sum();
        let count: usize = found.iter().map(Vec::len).sum();
        if all / RANKED_SHARE <= count {
            budget.charge(all * size_of::<Member>())?;
            return Ok(Ranks::of(&self.ranks, segments, &mut ticker)?.sorted(found));
        }
        budget.charge(count * size_of::<Member>())?;
        merged(segments, found, &mut ticker)
    }

    /// The members with the series of the tails that fulfil all matchers, in the order of their labels.
    fn with_tails(
        &self,
        members: Vec<Member>,
        segments: &[&Segment],
        matchers: &[Matcher],
        mut number: impl FnMut(&Labels) -> Result<u32, ReadError>,
        budget: &dyn ReadBudget,
    ) -> Result<Vec<Member>, ReadError> {
        let mut more: Vec<(&Labels, Member)> = Vec::new();
        let mut ticker = Ticker::new(budget);
        for (run, shard) in (segments.len() as u32..).zip(&self.shards) {
            for (position, entry) in (0..).zip(shard.index.tail.iter(shard.tail_len)) {
                ticker.tick()?;
                if matchers.iter().all(|matcher| matcher.matches_labels(&entry.labels)) {
                    if more.len() == more.capacity() {
                        let room = more.len().max(4);
                        budget.charge(2 * room * size_of::<(&Labels, Member)>())?;
                        more.reserve_exact(room);
                    }
                    more.push((&entry.labels, Member { run, position, class: number(&entry.labels)? }));
                }
            }
        }
        if more.is_empty() {
            return Ok(members);
        }
        more.sort_by(|a, b| a.0.cmp(b.0));
        budget.charge((members.len() + more.len()) * size_of::<Member>())?;
        let mut all = Vec::with_capacity(members.len() + more.len());
        let mut rest = members.as_slice();
        for (labels, member) in more {
            ticker.tick()?;
            let is_before = |other: &Member| {
                let segment = segments.get(other.run as usize);
                segment.is_some_and(|segment| segment.compare(other.position, labels) == Ordering::Less)
            };
            let (before, behind) = rest.split_at(leading(rest, is_before));
            all.extend_from_slice(before);
            all.push(member);
            rest = behind;
        }
        all.extend_from_slice(rest);
        Ok(all)
    }
}

impl Selected {
    /// Puts the wanted samples of one series into `column`.
    fn decode_one(
        &self,
        (shard, cell): (usize, &Arc<SeriesCell>),
        column: Option<&super::Column>,
        (range, in_order): (TimeRange, Option<TimeRange>),
        wanted: Wanted,
        out: &mut SampleColumn,
    ) -> Result<(), ReadError> {
        let view = &self.view;
        let series = cell.series();
        if cell.has_late() || !view.deleted_of(series).is_empty() {
            let Some(samples) = view.samples_of(shard, cell, range)? else { return Ok(()) };
            return match wanted {
                Wanted::All => samples.decode_all(range, out),
                Wanted::Newest => samples.decode_newest(range, out),
            };
        }
        let (Some(column), Some(range)) = (column, in_order) else { return Ok(()) };
        let wanted = if view.leaves_out(series, range) { Wanted::All } else { wanted };
        let marks = (self.members.len() <= MARKED_MAX).then(|| view.marks_of(shard, series));
        let decoded = match wanted {
            Wanted::All => column.decode(view.commit(), range, marks, Output::All(out)),
            Wanted::Newest => column.decode_newest(view.commit(), range, marks, out),
        };
        decoded.map_err(|error| corrupt(series, error))
    }
}

impl ClassedSeries for Selected {
    fn series_count(&self) -> usize {
        self.members.len()
    }

    fn classes(&self) -> &[Labels] {
        &self.classes
    }

    fn decode(
        &self,
        numbers: Range<usize>,
        range: TimeRange,
        wanted: Wanted,
        column: &mut SampleColumn,
        take: &mut dyn FnMut(u32, &mut SampleColumn) -> bool,
    ) -> Result<(), ReadError> {
        let sources = self.view.sources();
        let in_order = self.view.clamp(range);
        let mut cells: Vec<(usize, &Arc<SeriesCell>, u32)> = Vec::with_capacity(BATCH_LEN);
        let mut columns = Vec::with_capacity(BATCH_LEN);
        for batch in self.members.get(numbers).unwrap_or_default().chunks(BATCH_LEN) {
            self.view.check_generations()?;
            columns.clear();
            cells.clear();
            cells.extend(batch.iter().filter_map(|member| {
                let (shard, source) = sources.get(member.run as usize)?;
                Some((*shard, source.cell(member.position)?, member.class))
            }));
            // One kind of memory after the other, each for all series of the batch.
            let mut touched = cells.iter().fold(0, |all, (_, cell, _)| all ^ cell.touch());
            columns.extend(cells.iter().map(|(_, cell, _)| cell.column()));
            let present = || columns.iter().filter_map(|column| column.as_deref());
            touched = present().fold(touched, |all, column| all ^ column.touch());
            touched = present().fold(touched, |all, column| all ^ column.touch_words());
            std::hint::black_box(touched);
            for ((shard, cell, class), own) in cells.iter().zip(&columns) {
                column.clear();
                self.decode_one((*shard, cell), own.as_deref(), (range, in_order), wanted, column)?;
                if !take(*class, column) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}
