//! Which series of a segment fulfil all matchers (Prometheus's `PostingsForMatchers`): a matcher that the empty value
//! fulfils takes away the series whose value does not match, any other keeps those whose value does.

use hashbrown::HashMap;

use crate::model::matcher::{MatchOp, Matcher};
use crate::model::read::{ReadBudget, ReadError};
use crate::storage::head::index::pairing::row_len;
use crate::storage::head::index::segment::{PairId, Segment};
use crate::storage::pattern::{Shape, shape_of};
use crate::storage::postings::{intersect, subtract};

/// How many steps a loop takes between two looks at the budget.
pub(crate) const CHECK_EVERY: usize = 1024;

/// Asks the budget every so often.
pub(crate) struct Ticker<'a> {
    budget: &'a dyn ReadBudget,
    steps: usize,
}

impl<'a> Ticker<'a> {
    pub(crate) fn new(budget: &'a dyn ReadBudget) -> Self {
        Self { budget, steps: 0 }
    }

    /// Takes `len` bytes of the budget.
    pub(crate) fn charge(&self, len: usize) -> Result<(), ReadError> {
        self.budget.charge(len)
    }

    /// Asks the budget now.
    pub(crate) fn check(&self) -> Result<(), ReadError> {
        self.budget.check()
    }

    #[inline]
    pub(crate) fn tick(&mut self) -> Result<(), ReadError> {
        self.steps += 1;
        if self.steps.is_multiple_of(CHECK_EVERY) { self.budget.check() } else { Ok(()) }
    }
}

/// Positions of the series of `segment` that fulfil all `matchers`, ascending, which is the order of their labels.
pub(crate) fn positions(
    segment: &Segment,
    matchers: &[Matcher],
    ticker: &mut Ticker<'_>,
) -> Result<Vec<u32>, ReadError> {
    let mut base: Option<Vec<u32>> = None;
    let mut rest: Vec<Filter<'_>> = Vec::new();
    let mut exact: Vec<&[u32]> = Vec::new();
    for matcher in matchers {
        let filter = Filter::new(segment, matcher);
        match filter.exact_values() {
            Some(values) if !filter.matches_empty => {
                let pairs = filter.pairs_of(segment, &values);
                match pairs.as_slice() {
                    [] => return Ok(Vec::new()),
                    [pair] if segment.postings(*pair).len() == segment.len() => {}
                    [pair] => exact.push(segment.postings(*pair)),
                    _ => rest.push(Filter { known: Some(pairs), ..filter }),
                }
            }
            _ if filter.keeps_all(segment) => {}
            _ => rest.push(filter),
        }
    }
    exact.sort_by_key(|postings| postings.len());
    for postings in exact {
        base = Some(match base {
            None => postings.to_vec(),
            Some(base) => intersect(&base, postings),
        });
    }
    // What is cheap and keeps little goes first.
    rest.sort_by_key(|filter| (filter.known.is_none(), filter.matches_empty, filter.upper_bound(segment)));
    for filter in rest {
        base = Some(filter.apply(segment, base, ticker)?);
    }
    Ok(base.unwrap_or_else(|| all(segment)))
}

/// The pairs of which each series has one that fulfils `matcher`, where it lists their values.
pub(crate) fn listed_pairs(segment: &Segment, matcher: &Matcher) -> Option<Vec<PairId>> {
    let filter = Filter::new(segment, matcher);
    let values = filter.exact_values().filter(|_| !filter.matches_empty)?;
    Some(filter.pairs_of(segment, &values))
}

/// Whether all series fulfil a matcher that lists its values.
pub(crate) fn is_true_of_all(segment: &Segment, matcher: &Matcher) -> bool {
    let count = |pairs: Vec<PairId>| pairs.iter().map(|pair| segment.postings(*pair).len()).sum::<usize>();
    listed_pairs(segment, matcher).is_some_and(|pairs| count(pairs) == segment.len())
}

/// A bit for each value of the matcher's label that fulfils it, and one behind them for series without that label.
pub(crate) fn fulfilling(segment: &Segment, matcher: &Matcher, ticker: &mut Ticker<'_>) -> Result<Vec<u64>, ReadError> {
    let filter = Filter::new(segment, matcher);
    let mut bits = vec![0u64; row_len(&filter.of_name)];
    let without = filter.matches_empty.then_some(filter.of_name.end);
    for pair in filter.matching_pairs(segment, ticker)?.into_iter().chain(without) {
        let at = pair - filter.of_name.start;
        bits[at as usize / 64] |= 1 << (at % 64);
    }
    Ok(bits)
}

/// Says of single series whether they fulfil matchers. Each value is matched once.
pub(crate) struct Conditions<'a>(Vec<(Filter<'a>, Verdicts)>);

/// Whether the values of pairs match.
type Verdicts = HashMap<PairId, bool, foldhash::fast::RandomState>;

impl<'a> Conditions<'a> {
    pub(crate) fn new(segment: &Segment, matchers: impl Iterator<Item = &'a Matcher>) -> Self {
        let filter = |matcher: &'a Matcher| {
            let filter = Filter::new(segment, matcher);
            let known = filter.exact_values().map(|values| filter.pairs_of(segment, &values));
            (Filter { known, ..filter }, Verdicts::default())
        };
        Self(matchers.map(filter).collect())
    }

    /// True if any series does.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the series at a position fulfils all of them.
    pub(crate) fn hold(&mut self, segment: &Segment, position: u32) -> bool {
        self.0.iter_mut().all(|(filter, verdicts)| filter.holds(segment, position, verdicts))
    }
}

/// Positions among which are all that fulfil the matchers, in order, `None` for all there are; and what else they have to fulfil.
/// `None` if no list is known beforehand.
pub(crate) fn candidates<'a>(
    segment: &'a Segment,
    matchers: &'a [Matcher],
) -> Option<(Option<&'a [u32]>, Conditions<'a>)> {
    let exact = |matcher: &Matcher| match listed_pairs(segment, matcher)?.as_slice() {
        [] => Some(&[] as &[u32]),
        [pair] => Some(segment.postings(*pair)),
        _ => None,
    };
    let lists = matchers.iter().enumerate().filter_map(|(number, matcher)| Some((exact(matcher)?, number)));
    let Some((list, number)) = lists.min_by_key(|(list, _)| list.len()) else {
        let hold_for_most = matchers.iter().all(Matcher::matches_empty);
        return hold_for_most.then(|| (None, Conditions::new(segment, matchers.iter())));
    };
    let others = matchers.iter().enumerate().filter(|(other, _)| *other != number).map(|(_, matcher)| matcher);
    Some((Some(list), Conditions::new(segment, others)))
}

fn all(segment: &Segment) -> Vec<u32> {
    (0..segment.cells.len() as u32).collect()
}

/// A matcher and what it may touch in one segment.
struct Filter<'a> {
    matcher: &'a Matcher,
    matches_empty: bool,
    /// All pairs of the label.
    of_name: std::ops::Range<PairId>,
    /// The pairs that match, where they are known without looking at all.
    known: Option<Vec<PairId>>,
}

impl<'a> Filter<'a> {
    fn new(segment: &Segment, matcher: &'a Matcher) -> Self {
        let of_name = segment.pairs_of_name(matcher.name());
        Self { matcher, matches_empty: matcher.matches_empty(), of_name, known: None }
    }

    /// The only values that match, if the matcher lists them.
    fn exact_values(&self) -> Option<Vec<&'a str>> {
        match self.matcher.op() {
            MatchOp::Equal => Some(vec![self.matcher.value()]),
            MatchOp::Regex => match shape_of(self.matcher.value()) {
                Shape::OneOf(values) => Some(values),
                _ => None,
            },
            MatchOp::NotEqual | MatchOp::NotRegex => None,
        }
    }

    /// True for `=~".*"`, for `=~".+"` on a label that all series have, and for conditions on a label that no series has and
    /// that the empty value fulfils.
    fn keeps_all(&self, segment: &Segment) -> bool {
        let is_regex = self.matcher.op() == MatchOp::Regex;
        (is_regex && self.matcher.value() == ".*")
            || (is_regex && self.matcher.value() == ".+" && segment.postings_len(&self.of_name) == segment.len())
            || (self.matches_empty && self.of_name.is_empty())
    }

    fn pairs_of(&self, segment: &Segment, values: &[&str]) -> Vec<PairId> {
        let mut pairs: Vec<PairId> =
            values.iter().filter_map(|value| segment.pair_with_value(&self.of_name, value)).collect();
        pairs.sort_unstable();
        pairs.dedup();
        pairs
    }

    /// Postings to be collected at most.
    fn upper_bound(&self, segment: &Segment) -> usize {
        match &self.known {
            Some(pairs) => pairs.iter().map(|pair| segment.postings(*pair).len()).sum(),
            // Those that it takes away.
            None if self.matcher.op() == MatchOp::NotEqual && self.matches_empty => {
                let pair = segment.pair_with_value(&self.of_name, self.matcher.value());
                pair.map_or(0, |pair| segment.postings(pair).len())
            }
            None => segment.postings_len(&self.of_name),
        }
    }

    fn apply(&self, segment: &Segment, base: Option<Vec<u32>>, ticker: &mut Ticker<'_>) -> Result<Vec<u32>, ReadError> {
        match base {
            // Few series are left: it is cheaper to look at their values than to collect postings.
            Some(base) if base.len() < self.upper_bound(segment) / 4 + 1 => self.keep_by_value(segment, base, ticker),
            base => {
                let pairs = match &self.known {
                    Some(pairs) => pairs.clone(),
                    None => self.matching_pairs(segment, ticker)?,
                };
                if self.matches_empty {
                    let away = union(segment, &self.complement(&pairs), ticker)?;
                    Ok(subtract(base.unwrap_or_else(|| all(segment)), &away))
                } else {
                    let keep = union(segment, &pairs, ticker)?;
                    Ok(match base {
                        Some(base) => intersect(&base, &keep),
                        None => keep,
                    })
                }
            }
        }
    }

    /// Looks at the label of each series in `base`; each value is matched once.
    fn keep_by_value(&self, segment: &Segment, base: Vec<u32>, ticker: &mut Ticker<'_>) -> Result<Vec<u32>, ReadError> {
        let mut verdicts = Verdicts::default();
        let mut kept = Vec::new();
        for position in base {
            ticker.tick()?;
            if self.holds(segment, position, &mut verdicts) {
                kept.push(position);
            }
        }
        Ok(kept)
    }

    /// Whether a series fulfils the matcher.
    fn holds(&self, segment: &Segment, position: u32, verdicts: &mut Verdicts) -> bool {
        let pairs = segment.pairs(position);
        let at = pairs.partition_point(|pair| *pair < self.of_name.start);
        match pairs.get(at).filter(|pair| **pair < self.of_name.end) {
            None => self.matches_empty,
            Some(pair) => match &self.known {
                Some(known) => known.binary_search(pair).is_ok(),
                None => *verdicts.entry(*pair).or_insert_with(|| self.matcher.matches(segment.value(*pair))),
            },
        }
    }

    /// The pairs whose values match, ascending.
    fn matching_pairs(&self, segment: &Segment, ticker: &mut Ticker<'_>) -> Result<Vec<PairId>, ReadError> {
        let shape = match self.matcher.op() {
            MatchOp::Regex | MatchOp::NotRegex => shape_of(self.matcher.value()),
            MatchOp::Equal | MatchOp::NotEqual => Shape::OneOf(vec![self.matcher.value()]),
        };
        let negated = matches!(self.matcher.op(), MatchOp::NotEqual | MatchOp::NotRegex);
        let positive = match shape {
            Shape::OneOf(values) => self.pairs_of(segment, &values),
            Shape::Prefix(prefix) => self.with_prefix(segment, prefix).collect(),
            Shape::Contains(text) => segment.pairs_containing(&self.of_name, text, || ticker.check())?,
            Shape::Other { prefix } => {
                let mut pairs = Vec::new();
                for pair in self.with_prefix(segment, prefix) {
                    ticker.tick()?;
                    if self.matcher.matches(segment.value(pair)) != negated {
                        pairs.push(pair);
                    }
                }
                pairs
            }
        };
        Ok(if negated { self.complement(&positive) } else { positive })
    }

    fn with_prefix(&self, segment: &Segment, prefix: &str) -> std::ops::Range<PairId> {
        let all = self.of_name.clone();
        let count = |below: &dyn Fn(&str) -> bool| {
            let (mut low, mut high) = (all.start, all.end);
            while low < high {
                let middle = low + (high - low) / 2;
                if below(segment.value(middle)) { low = middle + 1 } else { high = middle }
            }
            low
        };
        let from = count(&|value| value < prefix);
        from..count(&|value| value < prefix || value.starts_with(prefix)).max(from)
    }

    /// The pairs of the name that are not in `pairs`, which is sorted.
    fn complement(&self, pairs: &[PairId]) -> Vec<PairId> {
        let mut pairs = pairs.iter().peekable();
        self.of_name.clone().filter(|pair| pairs.next_if_eq(&pair).is_none()).collect()
    }
}

/// Some positions of a segment.
pub(crate) struct PositionSet(Vec<u64>);

impl PositionSet {
    /// All positions.
    pub(crate) fn all(segment: &Segment) -> Self {
        Self(vec![u64::MAX; segment.len().div_ceil(64)])
    }

    /// The positions of these lists.
    pub(crate) fn of<'a>(segment: &Segment, lists: impl Iterator<Item = &'a [u32]>) -> Self {
        let mut bits = vec![0; segment.len().div_ceil(64)];
        for list in lists {
            list.iter().for_each(|position| bits[*position as usize / 64] |= 1 << (position % 64));
        }
        Self(bits)
    }

    pub(crate) fn remove(&mut self, position: u32) {
        self.0[position as usize / 64] &= !(1 << (position % 64));
    }

    pub(crate) fn has(&self, position: u32) -> bool {
        self.0[position as usize / 64] & 1 << (position % 64) != 0
    }

    /// Whether any of these, which ascend, is there. Looks at all of them, which is faster than to decide after each; where they
    /// stand close together and nothing is there from the first to the last, at none.
    pub(crate) fn has_any(&self, positions: &[u32]) -> bool {
        let (Some(first), Some(last)) = (positions.first(), positions.last()) else { return false };
        let around = self.0.get(*first as usize / 64..=*last as usize / 64).unwrap_or_default();
        if around.len() < positions.len() / 4 && around.iter().all(|word| *word == 0) {
            return false;
        }
        let bit = |position: u32| self.0.get(position as usize / 64).map_or(0, |word| word >> (position % 64));
        positions.iter().fold(0, |any, position| any | bit(*position)) & 1 != 0
    }
}

/// The postings of pairs of one name, which do not overlap.
fn union(segment: &Segment, pairs: &[PairId], ticker: &mut Ticker<'_>) -> Result<Vec<u32>, ReadError> {
    if let [pair] = pairs {
        return Ok(segment.postings(*pair).to_vec());
    }
    let total: usize = pairs.iter().map(|pair| segment.postings(*pair).len()).sum();
    let mut merged = Vec::with_capacity(total);
    if total < segment.len() / 64 {
        for pair in pairs {
            ticker.tick()?;
            merged.extend_from_slice(segment.postings(*pair));
        }
        merged.sort_unstable();
        return Ok(merged);
    }
    let mut bits = vec![0u64; segment.len().div_ceil(64)];
    for pair in pairs {
        ticker.tick()?;
        for position in segment.postings(*pair) {
            bits[*position as usize / 64] |= 1 << (position % 64);
        }
    }
    for (word, first) in bits.into_iter().zip((0u32..).step_by(64)) {
        let mut left = word;
        while left != 0 {
            merged.push(first + left.trailing_zeros());
            left &= left - 1;
        }
    }
    Ok(merged)
}
