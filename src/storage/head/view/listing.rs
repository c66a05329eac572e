//! Listings of names and values of labels: what nobody asked for is not put together.

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use hashbrown::HashSet;
use parking_lot::Mutex;

use crate::model::matcher::{MatchOp, Matcher};
use crate::model::names::{Names, Part};
use crate::model::read::{ReadBudget, ReadError, Scope};
use crate::storage::head::index::segment::{AsOf, PairId, Seen, Segment};
use crate::storage::head::index::select::{
    Conditions, PositionSet, Ticker, candidates, fulfilling, is_true_of_all, listed_pairs, positions,
};
use crate::storage::head::view::{Found, HeadView, ViewInner};
use crate::storage::postings::{Common, first_common};

/// Postings that are looked at between two looks at the budget.
const LOOKED_AT: usize = 64;
/// Series of a value that are looked at first.
const FIRST_POSTINGS: usize = 4;
/// Series that take less than a table.
const FEW: usize = 64;
/// Steps from list to list that are taken for a value.
const LEAPS_MAX: usize = 24;
/// What it costs to look at the labels of a series, in postings that are held against a set.
const STEP_COST: usize = 16;
/// Postings to be looked at that are worth the start of another thread.
const SHARED_FROM: usize = 200_000;

/// Which series of a segment are meant.
enum Among<'a> {
    All,
    Some(Chosen<'a>),
    /// All but those at these positions, which ascend.
    AllBut(&'a [u32]),
}

impl Among<'_> {
    /// `None` for all.
    fn set(&self, segment: &Segment) -> Option<PositionSet> {
        match self {
            Self::All => None,
            Self::Some(chosen) => Some(PositionSet::of(segment, chosen.lists())),
            Self::AllBut(away) => {
                let mut set = PositionSet::all(segment);
                away.iter().for_each(|position| set.remove(*position));
                Some(set)
            }
        }
    }
}

/// A listing of values of a segment under way.
enum Stage<'a> {
    Done(Part<'a>),
    /// Some values have not been found yet.
    Open(Look<'a>),
}

/// What a first look at the values of a label, which are few, has found.
struct Look<'a> {
    shard: usize,
    segment: &'a Segment,
    of_name: Range<PairId>,
    /// Of each pair, whether it is there.
    has: Vec<bool>,
    /// Those of which it is not known yet, ascending.
    open: Vec<PairId>,
    /// Postings of those.
    postings: usize,
}

/// What the tables of values that occur together say of the values of a label.
struct Paired {
    /// Whether series with the value may fulfil all matchers.
    may: Vec<bool>,
    /// Those that may do, and the view sees them.
    is_exact: bool,
}

impl<'a> Look<'a> {
    fn values(self) -> Part<'a> {
        let away = self.of_name.clone().zip(self.has).filter(|(_, has)| !has).map(|(pair, _)| pair);
        let away: Vec<PairId> = away.collect();
        without(self.segment, self.of_name, &away)
    }
}

/// Positions in a segment: lists that do not overlap, each ascending.
struct Chosen<'a> {
    of_pairs: Vec<&'a [u32]>,
    own: Vec<u32>,
    len: usize,
}

impl Chosen<'_> {
    fn lists(&self) -> impl Iterator<Item = &[u32]> {
        self.of_pairs.iter().copied().chain([self.own.as_slice()])
    }

    /// So few that each is looked at for its own sake.
    fn are_few(&self, segment: &Segment) -> bool {
        self.len <= segment.len() / 64
    }
}

impl HeadView {
    /// See `ReadView::label_names`.
    pub(super) fn list_names(&self, scope: &Scope<'_>, budget: &dyn ReadBudget) -> Result<Names, ReadError> {
        // A shard that is away must not look like one without samples.
        self.inner.check_shards(budget)?;
        if !self.inner.overlaps(scope.range) {
            return Ok(Names::default());
        }
        self.inner.names_of(scope.matchers, budget)
    }

    /// See `ReadView::label_values`.
    pub(super) fn list_values(
        &self,
        name: &str,
        scope: &Scope<'_>,
        budget: &dyn ReadBudget,
    ) -> Result<Names, ReadError> {
        let view = &self.inner;
        view.check_shards(budget)?;
        if !view.overlaps(scope.range) {
            return Ok(Names::default());
        }
        let mut ticker = Ticker::new(budget);
        let (mut lists, mut looks) = (Vec::new(), Vec::new());
        for (number, shard) in view.shards.iter().enumerate() {
            for segment in &shard.index.segments {
                match view.values_in((number, segment), name, scope, &mut ticker)? {
                    Stage::Done(found) => lists.push(found),
                    Stage::Open(look) => looks.push(Mutex::new(look)),
                }
            }
        }
        let postings: usize = looks.iter().map(|look| look.lock().postings).sum();
        let failed = OnceLock::new();
        let settle = |number: usize| {
            let Some(look) = looks.get(number) else { return };
            if let Err(error) = view.settle(&mut look.lock(), scope, &mut Ticker::new(budget)) {
                failed.get_or_init(|| error);
            }
        };
        if SHARED_FROM <= postings {
            budget.run_each(looks.len(), &settle)
        } else {
            (0..looks.len()).for_each(settle)
        }
        if let Some(error) = failed.into_inner() {
            return Err(error);
        }
        lists.extend(looks.into_iter().map(|look| look.into_inner().values()));
        for found in &lists {
            budget.charge(found.memory_len())?;
        }
        let mut few = Vec::new();
        view.for_each_in_tails(scope.matchers, &mut ticker, |shard, found| {
            if let Found::InTail(entry) = found
                && let Some(value) = entry.labels.get(name)
                && view.sees(shard, &entry.cell)
            {
                few.push(value);
            }
            Ok(())
        })?;
        budget.charge(few.iter().map(|value| value.len() + 2 * size_of::<&str>()).sum())?;
        lists.push(Part::Own(few.into_iter().collect()));
        let mut values = Names::merged_parts(lists);
        values.truncate(scope.limit);
        budget.charge(values.memory_len())?;
        Ok(values)
    }
}

/// The postings of the one value that a matcher asks for.
fn one_list<'a>(segment: &'a Segment, matcher: &Matcher) -> Option<&'a [u32]> {
    match listed_pairs(segment, matcher)?.as_slice() {
        [] => Some(&[]),
        [pair] => Some(segment.postings(*pair)),
        _ => None,
    }
}

/// The series of a segment that fulfil the matchers.
fn among<'a>(segment: &'a Segment, matchers: &[Matcher], ticker: &mut Ticker<'_>) -> Result<Among<'a>, ReadError> {
    if matchers.is_empty() {
        return Ok(Among::All);
    }
    let mut chosen = Chosen { of_pairs: Vec::new(), own: Vec::new(), len: 0 };
    // What is true of all series says nothing.
    let telling: Vec<&Matcher> = matchers.iter().filter(|matcher| !is_true_of_all(segment, matcher)).collect();
    match telling.as_slice() {
        [] => return Ok(Among::All),
        [one] if one.op() == MatchOp::NotEqual && !one.value().is_empty() => {
            let pair = segment.pair_with_value(&segment.pairs_of_name(one.name()), one.value());
            return Ok(pair.map_or(Among::All, |pair| Among::AllBut(segment.postings(pair))));
        }
        [one] if let Some(pairs) = listed_pairs(segment, one) => {
            // Those of one label do not overlap.
            chosen.of_pairs = pairs.into_iter().map(|pair| segment.postings(pair)).collect();
        }
        _ => chosen.own = positions(segment, matchers, ticker)?,
    }
    chosen.len = chosen.lists().map(<[u32]>::len).sum();
    Ok(if chosen.len == segment.len() { Among::All } else { Among::Some(chosen) })
}

impl ViewInner {
    /// Positions of the series of a segment that the view does not see, ascending.
    pub(super) fn unseen(
        &self,
        shard: usize,
        segment: &Segment,
        ticker: &mut Ticker<'_>,
    ) -> Result<Vec<u32>, ReadError> {
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

    /// The values of a label in a segment that the view sees, the first `limit` of them at least.
    fn values_in<'a>(
        &self,
        of: (usize, &'a Segment),
        name: &str,
        scope: &Scope<'_>,
        ticker: &mut Ticker<'_>,
    ) -> Result<Stage<'a>, ReadError> {
        let (shard, segment) = of;
        let of_name = segment.pairs_of_name(name);
        let are_many = segment.len() / 8 < of_name.len();
        if !are_many && !scope.matchers.is_empty() && !of_name.is_empty() {
            let look = self.first_look(of, name, of_name, scope, ticker)?;
            return Ok(if look.open.is_empty() { Stage::Done(look.values()) } else { Stage::Open(look) });
        }
        let among = among(segment, scope.matchers, ticker)?;
        Ok(Stage::Done(match &among {
            Among::All if scope.limit == usize::MAX && (are_many || self.knows_unseen(shard, segment)) => {
                let unseen = self.unseen(shard, segment, ticker)?;
                let mut away: Vec<PairId> = Vec::new();
                for position in &unseen {
                    ticker.tick()?;
                    away.extend(segment.pair_in(*position, &of_name));
                }
                away.sort_unstable();
                away.dedup();
                let is_seen = |position: &u32| unseen.binary_search(position).is_err();
                away.retain(|pair| !segment.postings(*pair).iter().any(is_seen));
                without(segment, of_name, &away)
            }
            Among::Some(chosen) if are_many && chosen.are_few(segment) => {
                let mut values = Vec::new();
                for position in chosen.lists().flatten() {
                    ticker.tick()?;
                    if self.sees(shard, segment.cell(*position)) {
                        values.extend(segment.pair_in(*position, &of_name).map(|pair| segment.value(pair)));
                    }
                }
                Part::Own(values.into_iter().collect())
            }
            Among::Some(_) | Among::AllBut(_) if scope.limit == usize::MAX => {
                // It is cheaper to know which series are seen than to look at each.
                let mut seen = among.set(segment).unwrap_or_else(|| PositionSet::all(segment));
                self.unseen(shard, segment, ticker)?.iter().for_each(|position| seen.remove(*position));
                let is_seen = |pair: &PairId| segment.postings(*pair).iter().any(|position| seen.has(*position));
                let mut away = Vec::new();
                for pair in of_name.clone() {
                    ticker.tick()?;
                    if !is_seen(&pair) {
                        away.push(pair);
                    }
                }
                without(segment, of_name, &away)
            }
            _ => {
                let set = among.set(segment);
                let (mut values, mut left) = (Names::default(), scope.limit);
                for pair in of_name {
                    if left == 0 {
                        break;
                    }
                    if self.sees_any(of, pair, set.as_ref(), ticker)? {
                        values.push(segment.value(pair));
                        left -= 1;
                    }
                }
                Part::Own(values)
            }
        }))
    }

    /// What is known of the values of a label without a look at series; `None` if that is nothing.
    fn paired(
        &self,
        (shard, segment): (usize, &Segment),
        name: &str,
        of_name: &Range<PairId>,
        matchers: &[Matcher],
        ticker: &mut Ticker<'_>,
    ) -> Result<Option<Paired>, ReadError> {
        let telling: Vec<&Matcher> = matchers.iter().filter(|matcher| !is_true_of_all(segment, matcher)).collect();
        // Of few series the labels are looked at sooner than a table is found out.
        let are_few = telling.iter().filter_map(|matcher| one_list(segment, matcher)).any(|list| list.len() <= FEW);
        let mut may = vec![true; of_name.len()];
        let (mut tables, mut is_whole) = (0, true);
        for (number, matcher) in telling.iter().enumerate() {
            let label = matcher.name();
            if telling.iter().take(number).any(|before| before.name() == label) {
                continue;
            }
            let others = segment.pairs_of_name(label);
            if others.is_empty() {
                // No series has the label.
                if !telling.iter().filter(|other| other.name() == label).all(|other| other.matches_empty()) {
                    return Ok(Some(Paired { may: vec![false; of_name.len()], is_exact: true }));
                }
                continue;
            }
            let table = match label == name || (are_few && !segment.knows_pairing(of_name, &others)) {
                true => None,
                false => segment.pairing(of_name, &others, ticker)?,
            };
            if table.is_none() && label != name {
                is_whole = false;
                continue;
            }
            // One series has to fulfil all that is asked of a label.
            let mut wanted = fulfilling(segment, matcher, ticker)?;
            for other in telling.iter().skip(number + 1).filter(|other| other.name() == label) {
                let also = fulfilling(segment, other, ticker)?;
                wanted.iter_mut().zip(also).for_each(|(wanted, also)| *wanted &= also);
            }
            for (pair, may) in of_name.clone().zip(&mut may) {
                let at = (pair - of_name.start) as usize;
                *may &= match &table {
                    Some(table) => table.has_any(pair, &wanted),
                    None => wanted.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 != 0),
                };
            }
            tables += usize::from(table.is_some());
        }
        if tables == 0 && !is_whole {
            return Ok(None);
        }
        // Where it takes a look at all series to know what is seen, the values may be found sooner.
        let is_exact = is_whole
            && tables <= 1
            && (tables == 1 || self.knows_unseen(shard, segment))
            && self.unseen(shard, segment, ticker)?.is_empty();
        Ok(Some(Paired { may, is_exact }))
    }

    /// Looks at the first series of each value of a label, which are few: most values that are there show it in these. Those behind the
    /// first `limit` that are there are not looked at.
    fn first_look<'a>(
        &self,
        (shard, segment): (usize, &'a Segment),
        name: &str,
        of_name: Range<PairId>,
        scope: &Scope<'_>,
        ticker: &mut Ticker<'_>,
    ) -> Result<Look<'a>, ReadError> {
        let (mut has, mut open) = (vec![false; of_name.len()], Vec::new());
        let mut left = scope.limit;
        // Or only the values are asked for, which are not empty.
        let are_of_name = scope.matchers.iter().all(|matcher| matcher.name() == name);
        let paired = self.paired((shard, segment), name, &of_name, scope.matchers, ticker)?;
        let mut conditions = Conditions::new(segment, scope.matchers.iter());
        let exact: Vec<&[u32]> = scope.matchers.iter().filter_map(|matcher| one_list(segment, matcher)).collect();
        for (pair, has) in of_name.clone().zip(&mut has) {
            if left == 0 {
                break;
            }
            ticker.tick()?;
            let at = (pair - of_name.start) as usize;
            let may = paired.as_ref().map(|paired| paired.may.get(at).copied().unwrap_or_default());
            if may == Some(false) || paired.as_ref().is_some_and(|paired| paired.is_exact) {
                *has = may == Some(true);
            } else if are_of_name {
                *has = self.sees_any((shard, segment), pair, None, ticker)?;
            } else {
                let fits = |at: &u32| conditions.hold(segment, *at) && self.sees(shard, segment.cell(*at));
                let postings = segment.postings(pair);
                *has = postings.iter().take(FIRST_POSTINGS).any(fits);
                if !*has && FIRST_POSTINGS < postings.len() {
                    match self.leap((shard, segment), postings, &exact, &mut conditions) {
                        Some(found) => *has = found,
                        None => open.push(pair),
                    }
                }
            }
            left -= usize::from(*has);
        }
        let postings = open.iter().map(|pair| segment.postings(*pair).len()).sum();
        Ok(Look { shard, segment, of_name, has, open, postings })
    }

    /// Whether any of these series is in the lists as well, which belong to some of the conditions, fulfils the others, and is seen; found by some steps
    /// from list to list. `None` if these do not tell.
    fn leap(
        &self,
        (shard, segment): (usize, &Segment),
        postings: &[u32],
        exact: &[&[u32]],
        conditions: &mut Conditions<'_>,
    ) -> Option<bool> {
        if exact.is_empty() {
            return None;
        }
        let mut lists: Vec<&[u32]> = exact.iter().copied().chain([postings]).collect();
        let mut steps = LEAPS_MAX;
        loop {
            match first_common(&mut lists, &mut steps) {
                Common::Nothing => return Some(false),
                Common::Unknown => return None,
                Common::First(at) if conditions.hold(segment, at) && self.sees(shard, segment.cell(at)) => {
                    return Some(true);
                }
                // All stand at it.
                Common::First(_) => lists.iter_mut().for_each(|list| *list = list.get(1..).unwrap_or_default()),
            }
        }
    }

    /// Finds out of the values that were not found by a first look. There are three ways, of which the one is taken that looks at
    /// least: at all their series; at the series that fulfil the matchers, until each value has been found; or at the set of
    /// these, against which the postings are held.
    fn settle(&self, look: &mut Look<'_>, scope: &Scope<'_>, ticker: &mut Ticker<'_>) -> Result<(), ReadError> {
        let (shard, segment, open) = (look.shard, look.segment, std::mem::take(&mut look.open));
        let first = look.of_name.start;
        let place = |pair: PairId| (pair - first) as usize;
        let list = candidates(segment, scope.matchers).and_then(|(list, _)| list);
        if look.postings * STEP_COST < list.map_or(segment.len(), <[u32]>::len) {
            let mut conditions = Conditions::new(segment, scope.matchers.iter());
            for pair in open {
                for some in segment.postings(pair).chunks(LOOKED_AT) {
                    ticker.tick()?;
                    let fits = |at: &u32| conditions.hold(segment, *at) && self.sees(shard, segment.cell(*at));
                    look.has[place(pair)] = some.iter().any(fits);
                    if look.has[place(pair)] {
                        break;
                    }
                }
            }
            return Ok(());
        }
        let among = among(segment, scope.matchers, ticker)?;
        if let Among::Some(chosen) = &among
            && chosen.len * STEP_COST < look.postings
        {
            return self.walk(look, &open, chosen, ticker);
        }
        let set = among.set(segment);
        for pair in open {
            look.has[place(pair)] = self.sees_any((shard, segment), pair, set.as_ref(), ticker)?;
        }
        Ok(())
    }

    /// Walks the chosen series until each of the open pairs has been found, and notes those that were.
    fn walk(
        &self,
        look: &mut Look<'_>,
        open: &[PairId],
        chosen: &Chosen<'_>,
        ticker: &mut Ticker<'_>,
    ) -> Result<(), ReadError> {
        let first = look.of_name.start;
        let place = |pair: PairId| (pair - first) as usize;
        let mut is_open = vec![false; look.has.len()];
        open.iter().for_each(|pair| is_open[place(*pair)] = true);
        let mut left = open.len();
        for position in chosen.lists().flatten() {
            if left == 0 {
                break;
            }
            ticker.tick()?;
            let Some(pair) = look.segment.pair_in(*position, &look.of_name) else { continue };
            if is_open[place(pair)] && self.sees(look.shard, look.segment.cell(*position)) {
                (look.has[place(pair)], is_open[place(pair)]) = (true, false);
                left -= 1;
            }
        }
        Ok(())
    }

    /// Whether [`Self::unseen`] takes little.
    pub(super) fn knows_unseen(&self, shard: usize, segment: &Segment) -> bool {
        let losses = self.shards.get(shard).map_or(0, |shard| shard.readers.losses.load(Ordering::Acquire));
        segment.seen().is_some_and(|seen| seen.as_of.losses == losses && seen.as_of.commit <= self.commit())
    }

    /// Whether the view sees any series with the pair, of all or of those in `among`.
    fn sees_any(
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

    /// The names of labels of series that fulfil all matchers and that the view sees.
    fn names_of(&self, matchers: &[Matcher], budget: &dyn ReadBudget) -> Result<Names, ReadError> {
        let mut ticker = Ticker::new(budget);
        let mut names: HashSet<&str, foldhash::fast::RandomState> = HashSet::default();
        for (number, shard) in self.shards.iter().enumerate() {
            for segment in &shard.index.segments {
                let among = among(segment, matchers, &mut ticker)?;
                if let Among::Some(chosen) = &among
                    && chosen.are_few(segment)
                {
                    self.names_of_each((number, segment), chosen, &mut names, &mut ticker)?;
                    continue;
                }
                let set = among.set(segment);
                for range in segment.name_ranges() {
                    let name = segment.pair(range.start).0;
                    for pair in range {
                        if names.contains(name) {
                            break;
                        }
                        if self.sees_any((number, segment), pair, set.as_ref(), &mut ticker)? {
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

    /// Adds the names of labels of some series, looking at each.
    fn names_of_each<'a>(
        &self,
        (shard, segment): (usize, &'a Segment),
        chosen: &Chosen<'_>,
        names: &mut HashSet<&'a str, foldhash::fast::RandomState>,
        ticker: &mut Ticker<'_>,
    ) -> Result<(), ReadError> {
        // The pairs of names that are in the list, ascending.
        let mut known: Vec<Range<PairId>> = Vec::new();
        for position in chosen.lists().flatten() {
            ticker.tick()?;
            let mut at = 0;
            let is_known = |pair: &PairId| {
                while known.get(at).is_some_and(|range| range.end <= *pair) {
                    at += 1;
                }
                known.get(at).is_some_and(|range| range.start <= *pair)
            };
            if segment.pairs(*position).iter().all(is_known) || !self.sees(shard, segment.cell(*position)) {
                continue;
            }
            for pair in segment.pairs(*position) {
                let at = known.partition_point(|range| range.end <= *pair);
                if known.get(at).is_none_or(|range| *pair < range.start) {
                    let name = segment.pair(*pair).0;
                    names.insert(name);
                    known.insert(at, segment.pairs_of_name(name));
                }
            }
        }
        Ok(())
    }
}

/// The values of the pairs of a name but those in `away`, which ascend.
fn without<'a>(segment: &'a Segment, of_name: Range<PairId>, away: &[PairId]) -> Part<'a> {
    let all = segment.values(of_name.clone());
    if away.is_empty() {
        return Part::Run(all);
    }
    let mut values = Names::default();
    let mut from = 0;
    for pair in away.iter().copied().chain([of_name.end]) {
        let to = (pair - of_name.start) as usize;
        if from < to {
            all.copy(from..to, &mut values);
        }
        from = to + 1;
    }
    Part::Own(values)
}

/// Two ascending lists as one.
fn both(a: &[u32], b: &[u32]) -> Vec<u32> {
    let mut all = [a, b].concat();
    all.sort_unstable();
    all
}
