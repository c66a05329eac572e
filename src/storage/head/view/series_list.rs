//! Listings of label sets: nothing of samples is held. Where a limit is given, the first series alone are put together; else shard
//! by shard, side by side where threads are free.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::hint::black_box;
use std::sync::OnceLock;

use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::read::{ReadBudget, ReadError, Scope};
use crate::model::time::TimeRange;
use crate::storage::head::index::segment::Segment;
use crate::storage::head::index::select::{Conditions, Ticker, candidates, positions};
use crate::storage::head::view::{CHARGED_AT_ONCE, HeadView, KnownSeries, ViewInner};
use crate::storage::label_sets::merged;

/// Series whose memory is looked at side by side before they are put together one by one, so that the processor waits for it once.
const BATCH_LEN: usize = 64;

/// Series of which it is asked one by one whether they fulfil the matchers, before all that do are looked for at once.
const ASKED_MAX: usize = 1 << 12;

/// Series of a segment that fulfil matchers, in the order of their labels.
struct Run<'a> {
    view: &'a ViewInner,
    shard: usize,
    segment: &'a Segment,
    matchers: &'a [Matcher],
    having: Having,
    /// The place behind the last one that was taken.
    next: usize,
    source: Source<'a>,
    /// Positions that were taken last.
    batch: Vec<u32>,
}

/// Where the positions of a run come from, ascending.
enum Source<'a> {
    /// These fulfil the matchers.
    Known(Cow<'a, [u32]>),
    /// Those of these, or of all, for which the conditions hold; so many more are asked.
    Asked(Option<&'a [u32]>, Conditions<'a>, usize),
}

impl<'a> Run<'a> {
    fn new(
        view: &'a ViewInner,
        (shard, segment): (usize, &'a Segment),
        scope: &Scope<'a>,
        ticker: &mut Ticker<'_>,
    ) -> Result<Self, ReadError> {
        let matchers = scope.matchers;
        let source = match candidates(segment, matchers) {
            Some((list, conditions)) if scope.limit < usize::MAX => Source::Asked(list, conditions, ASKED_MAX),
            Some((list, conditions)) if conditions.is_empty() => Source::Asked(list, conditions, usize::MAX),
            _ => Source::Known(positions(segment, matchers, ticker)?.into()),
        };
        let having = if view.is_within(scope.range) && view.knows_unseen(shard, segment) {
            Having::AllBut(view.unseen(shard, segment, ticker)?)
        } else {
            Having::In(scope.range)
        };
        Ok(Self { view, shard, segment, matchers, having, next: 0, source, batch: Vec::new() })
    }

    /// Takes the positions of at most `len` of the next series that have samples in the range; false behind the last one.
    fn next_batch(&mut self, len: usize, ticker: &mut Ticker<'_>) -> Result<bool, ReadError> {
        ticker.check()?;
        self.batch.clear();
        while self.batch.is_empty() {
            if !self.take_positions(len, ticker)? {
                return Ok(false);
            }
            self.keep_having(ticker)?;
        }
        Ok(true)
    }

    fn take_positions(&mut self, len: usize, ticker: &mut Ticker<'_>) -> Result<bool, ReadError> {
        if let Source::Asked(list, conditions, left) = &mut self.source {
            while self.batch.len() < len && 0 < *left {
                let position = match list {
                    Some(list) => list.get(self.next).copied(),
                    None => u32::try_from(self.next).ok().filter(|_| self.next < self.segment.len()),
                };
                let Some(position) = position else { return Ok(!self.batch.is_empty()) };
                self.next += 1;
                ticker.tick()?;
                if !conditions.is_empty() {
                    *left -= 1;
                    if !conditions.hold(self.segment, position) {
                        continue;
                    }
                }
                self.batch.push(position);
            }
            if 0 < *left {
                return Ok(true);
            }
            // They are too few among the others to go on like this.
            ticker.check()?;
            let asked = self.next;
            let list = *list;
            let all = positions(self.segment, self.matchers, ticker)?;
            let behind = list.map_or(asked as u32, |list| list.get(asked - 1).map_or(u32::MAX, |last| last + 1));
            self.next = all.partition_point(|position| *position < behind);
            self.source = Source::Known(all.into());
            if !self.batch.is_empty() {
                return Ok(true);
            }
        }
        if let Source::Known(all) = &self.source {
            let some = all.get(self.next..).unwrap_or_default();
            self.batch.extend(some.iter().take(len));
            self.next += self.batch.len();
        }
        Ok(!self.batch.is_empty())
    }

    /// Drops the positions of series that have no samples in the range.
    fn keep_having(&mut self, ticker: &mut Ticker<'_>) -> Result<(), ReadError> {
        let range = match &self.having {
            Having::AllBut(unseen) if unseen.is_empty() => return Ok(()),
            Having::AllBut(unseen) => {
                self.batch.retain(|position| unseen.binary_search(position).is_err());
                return Ok(());
            }
            Having::In(range) => *range,
        };
        let cells = || self.batch.iter().map(|position| self.segment.cell(*position));
        black_box(cells().fold(0, |all, cell| all ^ cell.touch()));
        let columns = cells().map(|cell| cell.column().as_ref().map_or(0, |column| column.touch()));
        black_box(columns.fold(0, |all, column| all ^ column));
        let mut kept = Vec::with_capacity(self.batch.len());
        for position in &self.batch {
            ticker.tick()?;
            if self.view.has_samples(self.shard, self.segment.cell(*position), range)? {
                kept.push(*position);
            }
        }
        self.batch = kept;
        Ok(())
    }

    /// The label sets of the batch.
    fn labels(&self) -> impl Iterator<Item = Labels> {
        if 1 < self.batch.len() {
            self.segment.look_ahead(&self.batch);
        }
        self.batch.iter().map(|position| self.segment.labels(*position))
    }
}

/// A run as it is merged with others: label sets that are ready, last ones first.
struct Ready<'a> {
    run: Run<'a>,
    labels: Vec<Labels>,
}

impl Ready<'_> {
    fn next(&mut self, len: usize, ticker: &mut Ticker<'_>) -> Result<Option<Labels>, ReadError> {
        if self.labels.is_empty() && self.run.next_batch(len, ticker)? {
            self.labels.extend(self.run.labels());
            self.labels.reverse();
        }
        Ok(self.labels.pop())
    }
}

/// Which series of a segment have samples in a range.
enum Having {
    /// All but those at these positions, which ascend.
    AllBut(Vec<u32>),
    /// Those that are found to have some in this range.
    In(TimeRange),
}

/// Label sets as they are charged.
struct Listed<'a> {
    labels: Vec<Labels>,
    budget: &'a dyn ReadBudget,
    uncharged: usize,
}

impl<'a> Listed<'a> {
    fn new(budget: &'a dyn ReadBudget) -> Self {
        Self { labels: Vec::new(), budget, uncharged: 0 }
    }

    fn push(&mut self, labels: Labels) -> Result<(), ReadError> {
        self.uncharged += labels.encoded_len() + 2 * size_of::<Labels>();
        self.labels.push(labels);
        if CHARGED_AT_ONCE < self.uncharged { self.charge() } else { Ok(()) }
    }

    fn charge(&mut self) -> Result<(), ReadError> {
        self.budget.charge(std::mem::take(&mut self.uncharged))
    }

    fn finish(mut self) -> Result<Vec<Labels>, ReadError> {
        self.charge().map(|()| self.labels)
    }
}

impl HeadView {
    /// See `ReadView::series_labels`.
    pub(super) fn list_series(&self, scope: &Scope<'_>, budget: &dyn ReadBudget) -> Result<Vec<Labels>, ReadError> {
        let view = &self.inner;
        view.check_shards(budget)?;
        if !view.overlaps(scope.range) {
            return Ok(Vec::new());
        }
        let mut ticker = Ticker::new(budget);
        let mut of_tails = Listed::new(budget);
        view.for_each_in_tails(scope.matchers, &mut ticker, |shard, found| {
            if view.has_samples(shard, found.cell(), scope.range)? { of_tails.push(found.labels()) } else { Ok(()) }
        })?;
        let mut of_tails = of_tails.finish()?;
        of_tails.sort_unstable();
        let of_segments = if scope.limit < usize::MAX {
            view.list_first(scope, budget)?
        } else if let Some(known) = view.known(scope.matchers, &mut ticker)? {
            view.list_known(&known, scope.range, budget)?
        } else {
            view.list_all(scope, budget)?
        };
        let mut listed = merged(vec![of_segments, of_tails], budget)?;
        listed.truncate(scope.limit);
        view.check_generations()?;
        Ok(listed)
    }
}

impl ViewInner {
    /// The first series of the segments.
    fn list_first(&self, scope: &Scope<'_>, budget: &dyn ReadBudget) -> Result<Vec<Labels>, ReadError> {
        let mut ticker = Ticker::new(budget);
        let mut runs = Vec::new();
        for (shard, of_shard) in self.shards.iter().enumerate() {
            for segment in &of_shard.index.segments {
                let run = Run::new(self, (shard, segment), scope, &mut ticker)?;
                runs.push(Ready { run, labels: Vec::new() });
            }
        }
        // What is put together and not wanted is little.
        let len = (scope.limit / runs.len().max(1) + 1).min(BATCH_LEN);
        let mut heads = BinaryHeap::with_capacity(runs.len());
        for (number, run) in runs.iter_mut().enumerate() {
            heads.extend(run.next(len, &mut ticker)?.map(|labels| Reverse((labels, number))));
        }
        let mut listed = Listed::new(budget);
        while listed.labels.len() < scope.limit {
            let Some(mut least) = heads.peek_mut() else { break };
            let next = match runs.get_mut(least.0.1) {
                Some(run) => run.next(len, &mut ticker)?,
                None => None,
            };
            let labels = match next {
                Some(next) => std::mem::replace(&mut least.0.0, next),
                None => PeekMut::pop(least).0.0,
            };
            listed.push(labels)?;
        }
        listed.finish()
    }

    /// Those of the known series that have samples in the range.
    fn list_known(
        &self,
        known: &[KnownSeries],
        range: TimeRange,
        budget: &dyn ReadBudget,
    ) -> Result<Vec<Labels>, ReadError> {
        let (mut ticker, mut listed) = (Ticker::new(budget), Listed::new(budget));
        listed.labels.reserve_exact(known.len());
        for one in known {
            ticker.tick()?;
            let shard = usize::from(one.shard);
            let segments = self.shards.get(shard).map(|shard| &shard.index.segments);
            let Some(segment) = segments.and_then(|all| all.get(usize::from(one.segment))) else { continue };
            if self.has_samples(shard, segment.cell(one.position), range)? {
                listed.push(one.labels.clone())?;
            }
        }
        listed.finish()
    }

    /// All series of the segments.
    fn list_all(&self, scope: &Scope<'_>, budget: &dyn ReadBudget) -> Result<Vec<Labels>, ReadError> {
        let segments: Vec<_> = (0..self.shards.len())
            .zip(&self.shards)
            .flat_map(|(number, shard)| shard.index.segments.iter().map(move |segment| (number, &**segment)))
            .collect();
        let slots: Vec<OnceLock<Result<Vec<Labels>, ReadError>>> = segments.iter().map(|_| OnceLock::new()).collect();
        budget.run_each(slots.len(), &|number| {
            if let (Some(slot), Some(of)) = (slots.get(number), segments.get(number)) {
                slot.get_or_init(|| self.list_segment(*of, scope, budget));
            }
        });
        let lists: Result<Vec<_>, _> = slots.into_iter().filter_map(OnceLock::into_inner).collect();
        merged(lists?, budget)
    }

    fn list_segment(
        &self,
        of: (usize, &Segment),
        scope: &Scope<'_>,
        budget: &dyn ReadBudget,
    ) -> Result<Vec<Labels>, ReadError> {
        let mut ticker = Ticker::new(budget);
        let mut run = Run::new(self, of, scope, &mut ticker)?;
        let mut listed = Listed::new(budget);
        while run.next_batch(BATCH_LEN, &mut ticker)? {
            run.labels().try_for_each(|labels| listed.push(labels))?;
        }
        listed.finish()
    }

    /// Whether all that the view sees lies in the range, so that a series which it sees has samples there.
    fn is_within(&self, range: TimeRange) -> bool {
        let contains = |span: TimeRange| range.min() <= span.min() && span.max() <= range.max();
        self.is_whole
            && self.deleted.is_empty()
            && self.span.is_none_or(contains)
            && self.shards.iter().all(|shard| shard.late.span().is_none_or(contains))
    }
}
