//! Listings that want label sets, names and values alone, or only the first of them: what nobody asked for is not put together.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::names::Names;
use crate::model::read::{ReadBudget, ReadError};
use crate::model::time::TimeRange;
use crate::storage::head::index::segment::{PairId, Segment};
use crate::storage::head::index::select::{PositionSet, Ticker, positions};
use crate::storage::head::view::{Among, CHARGED_AT_ONCE, Found, HeadView, ViewInner, is_exact};

/// Postings that are looked at between two looks at the budget.
const LOOKED_AT: usize = 64;

/// Series of a segment in the order of their labels, of which the next one is wanted.
struct Run<'a> {
    shard: usize,
    segment: &'a Segment,
    positions: Positions<'a>,
    next: usize,
}

/// Positions in a segment, ascending.
enum Positions<'a> {
    All,
    Of(&'a [u32]),
    Own(Vec<u32>),
}

impl<'a> Positions<'a> {
    fn new(segment: &'a Segment, matchers: &[Matcher], ticker: &mut Ticker<'_>) -> Result<Self, ReadError> {
        Ok(match matchers {
            [] => Self::All,
            [one] if is_exact(one) => {
                let pair = segment.pair_with_value(&segment.pairs_of_name(one.name()), one.value());
                Self::Of(pair.map_or(&[], |pair| segment.postings(pair)))
            }
            _ => Self::Own(positions(segment, matchers, ticker)?),
        })
    }

    fn get(&self, segment: &Segment, place: usize) -> Option<u32> {
        match self {
            Self::All => u32::try_from(place).ok().filter(|_| place < segment.len()),
            Self::Of(postings) => postings.get(place).copied(),
            Self::Own(positions) => positions.get(place).copied(),
        }
    }
}

impl Run<'_> {
    /// The labels of the next series that has samples in the range.
    fn step(
        &mut self,
        view: &ViewInner,
        range: TimeRange,
        ticker: &mut Ticker<'_>,
    ) -> Result<Option<Labels>, ReadError> {
        while let Some(position) = self.positions.get(self.segment, self.next) {
            self.next += 1;
            ticker.tick()?;
            if view.has_samples(self.shard, self.segment.cell(position), range)? {
                return Ok(Some(self.segment.labels(position)));
            }
        }
        Ok(None)
    }
}

/// Label sets as they are charged.
struct Listed<'a> {
    labels: Vec<Labels>,
    budget: &'a dyn ReadBudget,
    uncharged: usize,
}

impl Listed<'_> {
    fn push(&mut self, labels: Labels) -> Result<(), ReadError> {
        self.uncharged += labels.encoded_len() + 2 * size_of::<Labels>();
        self.labels.push(labels);
        if CHARGED_AT_ONCE < self.uncharged { self.charge() } else { Ok(()) }
    }

    fn charge(&mut self) -> Result<(), ReadError> {
        self.budget.charge(std::mem::take(&mut self.uncharged))
    }
}

impl HeadView {
    /// See `ReadView::series_labels`.
    pub(super) fn labels_of(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        limit: usize,
        budget: &dyn ReadBudget,
    ) -> Result<Vec<Labels>, ReadError> {
        let view = &self.inner;
        view.check_shards(budget)?;
        if !view.overlaps(range) {
            return Ok(Vec::new());
        }
        let mut ticker = Ticker::new(budget);
        let mut listed = Listed { labels: Vec::new(), budget, uncharged: 0 };
        view.for_each_in_tails(matchers, &mut ticker, |shard, found| {
            if view.has_samples(shard, found.cell(), range)? { listed.push(found.labels()) } else { Ok(()) }
        })?;
        // From here on those of the tails come one by one as well.
        listed.labels.sort_unstable_by(|a, b| b.cmp(a));
        let mut of_tails = std::mem::take(&mut listed.labels);
        if limit == usize::MAX
            && let Some(known) = view.known(matchers, &mut ticker)?
        {
            for one in known.iter() {
                ticker.tick()?;
                let shard = usize::from(one.shard);
                let segments = view.shards.get(shard).map(|shard| &shard.index.segments);
                let Some(segment) = segments.and_then(|all| all.get(usize::from(one.segment))) else { continue };
                if view.has_samples(shard, segment.cell(one.position), range)? {
                    listed.push(one.labels.clone())?;
                }
            }
            if !of_tails.is_empty() {
                listed.labels.append(&mut of_tails);
                listed.labels.sort();
            }
            listed.charge()?;
            return Ok(listed.labels);
        }
        let mut runs = Vec::new();
        for (shard, of_shard) in view.shards.iter().enumerate() {
            for segment in &of_shard.index.segments {
                let positions = Positions::new(segment, matchers, &mut ticker)?;
                runs.push(Run { shard, segment, positions, next: 0 });
            }
        }
        let mut heads = BinaryHeap::with_capacity(runs.len() + 1);
        for (number, run) in runs.iter_mut().enumerate() {
            heads.extend(run.step(view, range, &mut ticker)?.map(|labels| Reverse((labels, number))));
        }
        heads.extend(of_tails.pop().map(|labels| Reverse((labels, usize::MAX))));
        while listed.labels.len() < limit {
            let Some(mut least) = heads.peek_mut() else { break };
            let next = match runs.get_mut(least.0.1) {
                Some(run) => run.step(view, range, &mut ticker)?,
                None => of_tails.pop(),
            };
            let labels = match next {
                Some(next) => std::mem::replace(&mut least.0.0, next),
                None => std::collections::binary_heap::PeekMut::pop(least).0.0,
            };
            listed.push(labels)?;
        }
        listed.charge()?;
        view.check_generations()?;
        Ok(listed.labels)
    }

    /// See `ReadView::first_label_values`.
    pub(super) fn first_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        range: TimeRange,
        limit: usize,
        budget: &dyn ReadBudget,
    ) -> Result<Names, ReadError> {
        let view = &self.inner;
        view.check_shards(budget)?;
        if !view.overlaps(range) {
            return Ok(Names::default());
        }
        let mut ticker = Ticker::new(budget);
        let mut found: Vec<&str> = Vec::new();
        for (number, shard) in view.shards.iter().enumerate() {
            for segment in &shard.index.segments {
                let of_name = segment.pairs_of_name(name);
                let among = match view.among(segment, matchers, &mut ticker)? {
                    Among::All => None,
                    Among::Many(among) => Some(among),
                    Among::Few(few) => {
                        for position in few {
                            ticker.tick()?;
                            if view.sees(number, segment.cell(position)) {
                                found.extend(segment.pair_in(position, &of_name).map(|pair| segment.value(pair)));
                            }
                        }
                        continue;
                    }
                };
                let mut left = limit;
                for pair in of_name {
                    if left == 0 {
                        break;
                    }
                    if view.sees_any((number, segment), pair, among.as_ref(), &mut ticker)? {
                        found.push(segment.value(pair));
                        left -= 1;
                    }
                }
            }
        }
        view.for_each_in_tails(matchers, &mut ticker, |shard, one| {
            if let Found::InTail(entry) = one
                && let Some(value) = entry.labels.get(name)
                && view.sees(shard, &entry.cell)
            {
                found.push(value);
            }
            Ok(())
        })?;
        budget.charge(found.iter().map(|value| value.len() + 2 * size_of::<&str>()).sum())?;
        let mut values: Names = found.into_iter().collect();
        values.truncate(limit);
        Ok(values)
    }
}

impl ViewInner {
    /// Whether the view sees any series with the pair, of all or of those in `among`.
    pub(super) fn sees_any(
        &self,
        (shard, segment): (usize, &Segment),
        pair: PairId,
        among: Option<&PositionSet>,
        ticker: &mut Ticker<'_>,
    ) -> Result<bool, ReadError> {
        for some in segment.postings(pair).chunks(LOOKED_AT) {
            ticker.tick()?;
            // Mostly there is none of them, or the first one is.
            if among.is_none_or(|among| among.has_any(some))
                && some.iter().any(|position| {
                    among.is_none_or(|among| among.has(*position)) && self.sees(shard, segment.cell(*position))
                })
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
