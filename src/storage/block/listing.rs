//! Listings of one block: names and values of labels, and label sets.

use std::collections::BTreeSet;
use std::sync::Arc;

use hashbrown::HashSet;

use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::read::{ListingOf, ReadBudget, ReadError, Scope};
use crate::storage::block::index_read::{IndexReader, Next, SymbolMemo};
use crate::storage::block::notes::Notes;
use crate::storage::block::pairing::{self, Worth, fulfilling};
use crate::storage::block::read::Block;
use crate::storage::block::select::{is_exact, is_true_of_all, listed_places, select_ids};
use crate::storage::block::series::{each_series, is_wanted};

/// Steps between two looks at the budget.
const CHECK_EVERY: usize = 256;
/// Series whose labels are read before it is thought over how to go on.
const FIRST_SERIES: usize = 64;
/// Lists of postings that are looked at first, where it is known which there are.
const FIRST_LISTS: usize = 8;
/// What it takes to read the labels of a series as symbols, in postings that are held against a set.
const SERIES_COST: usize = 150;
/// What it takes to find the postings of a value, likewise.
const VALUE_COST: usize = 100;

/// What it takes to hand on a value, and to hold it against a matcher, in nanoseconds.
const VALUE_NS: usize = 60;
const MATCHED_NS: usize = 100;
/// To read a series or a posting, likewise.
const SERIES_NS: usize = 3_000;
const POSTING_NS: usize = 2;

/// Takes texts, which mostly come in order.
pub(super) type Add<'a> = &'a mut dyn FnMut(&str) -> Result<(), ReadError>;

fn series_count(index: &IndexReader) -> Result<usize, ReadError> {
    Ok(index.place_of_all()?.map_or(Ok(0), |place| index.postings_len(place))?)
}

/// The matchers that are not true of all series.
fn telling<'a>(index: &IndexReader, matchers: &'a [Matcher]) -> Result<Vec<&'a Matcher>, ReadError> {
    let mut telling = Vec::with_capacity(matchers.len());
    for matcher in matchers {
        if !is_true_of_all(index, matcher)? {
            telling.push(matcher);
        }
    }
    Ok(telling)
}

/// Names of labels of the series in the scope.
pub(super) fn names(
    block: &Arc<Block>,
    scope: &Scope<'_>,
    budget: &dyn ReadBudget,
    add: Add<'_>,
) -> Result<(), ReadError> {
    let index = &block.index;
    if telling(index, scope.matchers)?.is_empty() {
        return index.names().try_for_each(add);
    }
    let ids = select_ids(index, scope.matchers, budget)?;
    // Mostly the first series have all the names there are.
    let mut known = KnownNames::default();
    let (first, others) = ids.split_at(ids.len().min(FIRST_SERIES));
    known.add_of(index, first, budget, add)?;
    let unknown: Vec<&str> = index.names().filter(|name| !known.names.contains(*name)).collect();
    let values: usize = unknown.iter().map(|name| index.values_len(name)).sum();
    if values * VALUE_COST + unknown.len() * series_count(index)? > others.len() * SERIES_COST {
        return known.add_of(index, others, budget, add);
    }
    let Some(set) = IdSet::of(others, budget)? else { return Ok(()) };
    for name in unknown {
        let mut is_there = false;
        index.values_from(name, "", &mut |_, place| {
            is_there = set.has_any(index, place, budget)?;
            Ok(if is_there { Next::Stop } else { Next::Go })
        })?;
        if is_there {
            add(name)?;
        }
    }
    Ok(())
}

/// Names that some series have.
#[derive(Default)]
struct KnownNames {
    names: BTreeSet<String>,
    symbols: HashSet<u64, foldhash::fast::RandomState>,
}

impl KnownNames {
    /// Adds the names of labels of some series, looking at each, but those that are known.
    fn add_of(
        &mut self,
        index: &IndexReader,
        ids: &[u32],
        budget: &dyn ReadBudget,
        add: Add<'_>,
    ) -> Result<(), ReadError> {
        let (mut memo, mut labels) = (SymbolMemo::default(), Vec::new());
        for (number, id) in ids.iter().enumerate() {
            if number % CHECK_EVERY == 0 {
                budget.check()?;
            }
            index.label_symbols(*id, &mut memo, &mut labels)?;
            for (name, value) in &labels {
                // What is empty is none.
                if self.symbols.contains(name) || index.symbol_text(*value, &mut memo)?.is_empty() {
                    continue;
                }
                self.symbols.insert(*name);
                let name = index.symbol_text(*name, &mut memo)?;
                add(name)?;
                self.names.insert(name.to_owned());
            }
        }
        Ok(())
    }
}

/// What the tables of values that occur together say of the values of a label.
struct Paired {
    /// Whether series with the value may fulfil all matchers.
    may: Vec<bool>,
    /// Those that may do.
    is_exact: bool,
}

impl Paired {
    /// `None` if nothing is known. `matchers` are not all of the label itself.
    fn of(
        index: &IndexReader,
        name: &str,
        matchers: &[&Matcher],
        budget: &dyn ReadBudget,
    ) -> Result<Option<Self>, ReadError> {
        let mut others = matchers
            .iter()
            .map(|matcher| matcher.name())
            .filter(|label| *label != name && index.values_len(label) != 0);
        // Tables of several labels do not tell all, so none is found out for them.
        let is_of_many = others.next().is_some_and(|first| others.any(|label| label != first));
        let mut may = vec![true; index.values_len(name)];
        let (mut tables, mut is_whole) = (0, true);
        for (number, matcher) in matchers.iter().enumerate() {
            let label = matcher.name();
            if matchers.iter().take(number).any(|before| before.name() == label) {
                continue;
            }
            // One series has to fulfil all that is asked of a label.
            let of_label: Vec<&Matcher> = matchers.iter().copied().filter(|other| other.name() == label).collect();
            let match_empty = of_label.iter().all(|matcher| matcher.matches_empty());
            if index.values_len(label) == 0 {
                // No series has the label.
                if !match_empty {
                    return Ok(Some(Self { may: Vec::new(), is_exact: true }));
                }
                continue;
            }
            if label == name {
                let wanted = fulfilling(index, label, &of_label, budget)?;
                for (at, may) in may.iter_mut().enumerate() {
                    *may &= wanted.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 != 0);
                }
                continue;
            }
            let table = if is_of_many {
                index.known_pairing(name, label)
            } else {
                // Where the empty value is wanted, nearly all series would have to be looked at.
                let worth = if match_empty { Worth::AtOnce } else { Worth::TheSecondTime };
                index.pairing(name, label, worth, budget)?
            };
            let Some(table) = table else {
                is_whole = false;
                continue;
            };
            let wanted = fulfilling(index, label, &of_label, budget)?;
            may.iter_mut().enumerate().for_each(|(value, may)| *may &= table.has_any(value, &wanted));
            tables += 1;
        }
        // Each of two conditions may be fulfilled by another series.
        Ok((0 < tables || is_whole).then_some(Self { may, is_exact: is_whole && tables <= 1 }))
    }

    fn may_have(&self, value: usize) -> bool {
        self.may.get(value).copied().unwrap_or_default()
    }
}

/// Values of a label of the series in the scope, the first `limit` at least.
pub(super) fn values(
    block: &Arc<Block>,
    name: &str,
    scope: &Scope<'_>,
    budget: &dyn ReadBudget,
    add: Add<'_>,
) -> Result<(), ReadError> {
    let index = &block.index;
    let mut left = scope.limit;
    let mut take = |value: &str| {
        add(value)?;
        left = left.saturating_sub(1);
        Ok(if left == 0 { Next::Stop } else { Next::Go })
    };
    let telling = telling(index, scope.matchers)?;
    // Only the values are asked for, which are not empty.
    let are_of_name = telling.iter().all(|matcher| matcher.name() == name);
    let paired = if are_of_name { None } else { Paired::of(index, name, &telling, budget)? };
    let is_exact = paired.as_ref().is_some_and(|paired| paired.is_exact);
    if are_of_name || is_exact {
        let mut steps = 0;
        return index.values_from(name, "", &mut |value, _| {
            let is_there = match &paired {
                Some(paired) => paired.may_have(steps),
                None => telling.iter().all(|matcher| matcher.matches(value)),
            };
            steps += 1;
            if steps % CHECK_EVERY == 0 {
                budget.check()?;
            }
            if is_there { take(value) } else { Ok(Next::Go) }
        });
    }
    let are_few = index.values_len(name) <= FIRST_SERIES;
    if are_few
        && let [one] = telling.as_slice()
        && let Some(places) = listed_places(index, one, budget)?
    {
        // Not all ids are wanted yet.
        let mut first = Vec::new();
        for place in places.into_iter().take(FIRST_LISTS) {
            let len_max = first.len() + FIRST_SERIES;
            index.each_posting(place, |id| {
                first.push(id);
                if first.len() < len_max { Next::Go } else { Next::Stop }
            })?;
        }
        if let Some(found) = all_values(index, name, &first)? {
            return found.iter().try_for_each(|value| add(value));
        }
    }
    let ids = select_ids(index, scope.matchers, budget)?;
    if are_few && let Some(found) = all_values(index, name, ids.get(..FIRST_SERIES).unwrap_or(&ids))? {
        return found.iter().try_for_each(|value| add(value));
    }
    let Some(set) = IdSet::of(&ids, budget)? else { return Ok(()) };
    let by_value = index.values_len(name) * VALUE_COST + series_count(index)?;
    if by_value < ids.len() * SERIES_COST || scope.limit < usize::MAX {
        let mut number = 0;
        return index.values_from(name, "", &mut |value, place| {
            let may = paired.as_ref().is_none_or(|paired| paired.may_have(number));
            number += 1;
            if may && set.has_any(index, place, budget)? { take(value) } else { Ok(Next::Go) }
        });
    }
    let mut wanted = ValueSymbols::new(name);
    for some in ids.chunks(CHECK_EVERY) {
        budget.check()?;
        let before = wanted.found.len();
        some.iter().try_for_each(|id| wanted.look_at(index, *id))?;
        budget.charge((wanted.found.len() - before) * 3 * size_of::<u64>())?;
    }
    for symbol in wanted.sorted() {
        add(index.symbol_text(symbol, &mut wanted.memo)?)?;
    }
    Ok(())
}

/// The values of a label that some series have, as symbols.
struct ValueSymbols<'a> {
    name: &'a str,
    /// The symbol of the name, once it was found.
    symbol: Option<u64>,
    found: HashSet<u64, foldhash::fast::RandomState>,
    memo: SymbolMemo,
    labels: Vec<(u64, u64)>,
}

impl<'a> ValueSymbols<'a> {
    fn new(name: &'a str) -> Self {
        Self { name, symbol: None, found: HashSet::default(), memo: SymbolMemo::default(), labels: Vec::new() }
    }

    fn look_at(&mut self, index: &IndexReader, id: u32) -> Result<(), ReadError> {
        index.label_symbols(id, &mut self.memo, &mut self.labels)?;
        for (name, value) in &self.labels {
            if self.symbol.is_none() && index.symbol_text(*name, &mut self.memo)? == self.name {
                self.symbol = Some(*name);
            }
            if self.symbol == Some(*name) {
                self.found.insert(*value);
                break;
            }
        }
        Ok(())
    }

    /// Mostly in the order of their texts.
    fn sorted(&self) -> Vec<u64> {
        let mut sorted: Vec<u64> = self.found.iter().copied().collect();
        sorted.sort_unstable();
        sorted
    }
}

/// The values of a label that some series have, if these are all there are.
fn all_values(index: &IndexReader, name: &str, ids: &[u32]) -> Result<Option<BTreeSet<String>>, ReadError> {
    let mut values = ValueSymbols::new(name);
    for id in ids {
        values.look_at(index, *id)?;
        if index.values_len(name) <= values.found.len() {
            break;
        }
    }
    let mut found = BTreeSet::new();
    for symbol in values.sorted() {
        let value = index.symbol_text(symbol, &mut values.memo)?;
        if !value.is_empty() {
            found.insert(value.to_owned());
        }
    }
    Ok((found.len() == index.values_len(name)).then_some(found))
}

/// About how many microseconds a listing takes, if that is little, and nothing else of the block has to be read.
pub(super) fn estimate(
    block: &Arc<Block>,
    listing: ListingOf<'_>,
    scope: &Scope<'_>,
) -> Result<Option<usize>, ReadError> {
    let index = &block.index;
    if let ListingOf::Names = listing
        && scope.matchers.is_empty()
    {
        return Ok(Some(index.names().count() * VALUE_NS / 1_000));
    }
    let telling = telling(index, scope.matchers)?;
    let of_few = few_series(index, &telling)?;
    let name = match listing {
        // With a limit, values are looked for one by one.
        ListingOf::Values(name) if of_few.is_none() || scope.limit < usize::MAX => name,
        _ => return Ok(of_few),
    };
    let values_len = index.values_len(name);
    if values_len == 0 {
        return Ok(Some(0));
    }
    let mut of_matchers = 0;
    let mut row_len = 0;
    let other = telling.iter().map(|matcher| matcher.name()).find(|label| *label != name);
    for matcher in &telling {
        if matcher.name() != name && Some(matcher.name()) != other {
            return Ok(None);
        }
        of_matchers += index.values_len(matcher.name()) * MATCHED_NS;
    }
    if let Some(other) = other.filter(|other| 0 < index.values_len(other)) {
        if index.known_pairing(name, other).is_none() {
            return Ok(None);
        }
        row_len = pairing::row_len(index.values_len(other));
    }
    let len = if telling.is_empty() { values_len.min(scope.limit) } else { values_len };
    Ok(Some((of_matchers + len * (VALUE_NS + row_len)) / 1_000))
}

/// What it takes to read the series that fulfil the matchers, in microseconds, where each asks for one value and they are few.
fn few_series(index: &IndexReader, matchers: &[&Matcher]) -> Result<Option<usize>, ReadError> {
    let (mut least, mut all) = (usize::MAX, 0);
    for matcher in matchers {
        if !is_exact(matcher) {
            return Ok(None);
        }
        let Some(place) = index.postings_of(matcher.name(), matcher.value())? else { return Ok(Some(0)) };
        let len = index.postings_len(place)?;
        least = least.min(len);
        all += len;
    }
    Ok((least <= FIRST_SERIES).then(|| (least * SERIES_NS + all * POSTING_NS) / 1_000))
}

/// Label sets of the series in the scope, sorted: the first `limit`.
pub(super) fn series(
    block: &Arc<Block>,
    scope: &Scope<'_>,
    budget: &dyn ReadBudget,
    notes: &Notes,
) -> Result<Vec<Labels>, ReadError> {
    let mut listed: Vec<Labels> = Vec::new();
    if scope.limit == 0 {
        return Ok(listed);
    }
    each_series(block, scope.matchers, budget, notes, |id, chunks, labels| {
        let deleted = block.tombstones.of_series(u64::from(id));
        if chunks.iter().any(|chunk| is_wanted(chunk, scope.range, deleted)) {
            budget.charge(labels.encoded_len() + 2 * size_of::<Labels>())?;
            listed.push(labels.clone());
        }
        Ok(if listed.len() < scope.limit { Next::Go } else { Next::Stop })
    })?;
    Ok(listed)
}

/// Some of the ids of an index, as bits from the first one on.
struct IdSet {
    first: u32,
    bits: Vec<u64>,
}

impl IdSet {
    /// The set of these ids, which ascend; `None` if there is none.
    fn of(ids: &[u32], budget: &dyn ReadBudget) -> Result<Option<Self>, ReadError> {
        let (Some(first), Some(last)) = (ids.first(), ids.last()) else { return Ok(None) };
        let words = ((last - first) / 64) as usize + 1;
        budget.charge(words * size_of::<u64>())?;
        let mut bits = vec![0; words];
        for id in ids {
            if let Some(word) = bits.get_mut(((id - first) / 64) as usize) {
                *word |= 1 << ((id - first) % 64);
            }
        }
        Ok(Some(Self { first: *first, bits }))
    }

    fn has(&self, id: u32) -> bool {
        let Some(at) = id.checked_sub(self.first) else { return false };
        self.bits.get((at / 64) as usize).is_some_and(|word| word >> (at % 64) & 1 != 0)
    }

    /// Whether any id of a postings list is there.
    fn has_any(&self, index: &IndexReader, place: u64, budget: &dyn ReadBudget) -> Result<bool, ReadError> {
        budget.check()?;
        let mut has = false;
        index.each_posting(place, |id| {
            has = self.has(id);
            if has { Next::Stop } else { Next::Go }
        })?;
        Ok(has)
    }
}
