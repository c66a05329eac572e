//! Listings of one block: names and values of labels, and label sets.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::read::{ReadBudget, ReadError, Scope};
use crate::storage::block::index_read::{IndexReader, Next, SymbolMemo};
use crate::storage::block::notes::Notes;
use crate::storage::block::read::Block;
use crate::storage::block::select::{each_id, is_exact, is_true_of_all, select_ids};
use crate::storage::block::series::{each_series, is_wanted};

/// Steps between two looks at the budget.
const CHECK_EVERY: usize = 256;
/// Series whose labels are read before it is thought over how to go on.
const FIRST_SERIES: usize = 64;
/// What it takes to read the labels of a series, in postings that are held against a set.
const SERIES_COST: usize = 1000;
/// What it takes to find the postings of a value, likewise.
const VALUE_COST: usize = 100;

/// Takes texts, which mostly come in order.
pub(super) type Add<'a> = &'a mut dyn FnMut(&str) -> Result<(), ReadError>;

/// The series of a block that fulfil matchers.
enum Meant {
    All,
    Some(Vec<u32>),
}

impl Meant {
    fn of(index: &IndexReader, matchers: &[Matcher], budget: &dyn ReadBudget) -> Result<Self, ReadError> {
        if matchers.is_empty() {
            return Ok(Self::All);
        }
        for matcher in matchers {
            if !is_true_of_all(index, matcher)? {
                return Ok(Self::Some(select_ids(index, matchers, budget)?));
            }
        }
        Ok(Self::All)
    }
}

fn series_count(index: &IndexReader) -> Result<usize, ReadError> {
    Ok(index.place_of_all()?.map_or(Ok(0), |place| index.postings_len(place))?)
}

/// Names of labels of the series in the scope.
pub(super) fn names(
    block: &Arc<Block>,
    scope: &Scope<'_>,
    budget: &dyn ReadBudget,
    add: Add<'_>,
) -> Result<(), ReadError> {
    let index = &block.index;
    let ids = match Meant::of(index, scope.matchers, budget)? {
        Meant::All => return index.names().try_for_each(add),
        Meant::Some(ids) => ids,
    };
    // Mostly the first series have all the names there are.
    let mut known = BTreeSet::new();
    let (first, others) = ids.split_at(ids.len().min(FIRST_SERIES));
    add_names(index, first, &mut known, budget, add)?;
    let unknown: Vec<&str> = index.names().filter(|name| !known.contains(*name)).collect();
    let values: usize = unknown.iter().map(|name| index.values_len(name)).sum();
    if values * VALUE_COST + unknown.len() * series_count(index)? > others.len() * SERIES_COST {
        return add_names(index, others, &mut known, budget, add);
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

/// Adds the names of labels of some series, looking at each, but those that are known.
fn add_names(
    index: &IndexReader,
    ids: &[u32],
    known: &mut BTreeSet<String>,
    budget: &dyn ReadBudget,
    add: Add<'_>,
) -> Result<(), ReadError> {
    let mut memo = SymbolMemo::default();
    for (number, id) in ids.iter().enumerate() {
        if number % CHECK_EVERY == 0 {
            budget.check()?;
        }
        for (name, _) in index.series(*id, &mut memo)?.labels.iter() {
            if !known.contains(name) {
                known.insert(name.to_owned());
                add(name)?;
            }
        }
    }
    Ok(())
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
    // Only the values are asked for.
    let is_of_name = |matcher: &Matcher| matcher.name() == name && !matcher.matches_empty();
    if scope.matchers.iter().all(is_of_name) {
        let mut steps = 0;
        return index.values_from(name, "", &mut |value, _| {
            steps += 1;
            if steps % CHECK_EVERY == 0 {
                budget.check()?;
            }
            if scope.matchers.iter().all(|matcher| matcher.matches(value)) { take(value) } else { Ok(Next::Go) }
        });
    }
    let are_few = index.values_len(name) <= FIRST_SERIES;
    if let [one] = scope.matchers
        && is_exact(one)
        && are_few
    {
        // Not all ids are wanted yet.
        let mut first = Vec::new();
        each_id(index, scope.matchers, budget, |id| {
            first.push(id);
            Ok(if first.len() < FIRST_SERIES { Next::Go } else { Next::Stop })
        })?;
        if let Some(found) = all_values(index, name, &first)? {
            return found.iter().try_for_each(|value| add(value));
        }
    }
    let ids = match Meant::of(index, scope.matchers, budget)? {
        Meant::All => return values(block, name, &Scope::first(scope.limit, &[], scope.range), budget, add),
        Meant::Some(ids) => ids,
    };
    if are_few && let Some(found) = all_values(index, name, ids.get(..FIRST_SERIES).unwrap_or(&ids))? {
        return found.iter().try_for_each(|value| add(value));
    }
    let Some(set) = IdSet::of(&ids, budget)? else { return Ok(()) };
    let by_value = index.values_len(name) * VALUE_COST + series_count(index)?;
    if by_value < ids.len() * SERIES_COST || scope.limit < usize::MAX {
        return index.values_from(name, "", &mut |value, place| {
            if set.has_any(index, place, budget)? { take(value) } else { Ok(Next::Go) }
        });
    }
    let mut memo = SymbolMemo::default();
    for (number, id) in ids.iter().enumerate() {
        if number % CHECK_EVERY == 0 {
            budget.check()?;
        }
        add(index.series(*id, &mut memo)?.labels.get(name).unwrap_or(""))?;
    }
    Ok(())
}

/// The values of a label that some series have, if these are all there are.
fn all_values(index: &IndexReader, name: &str, ids: &[u32]) -> Result<Option<BTreeSet<String>>, ReadError> {
    let (mut found, mut memo) = (BTreeSet::new(), SymbolMemo::default());
    for id in ids {
        if let Some(value) = index.series(*id, &mut memo)?.labels.get(name)
            && !found.contains(value)
        {
            found.insert(value.to_owned());
            if found.len() == index.values_len(name) {
                return Ok(Some(found));
            }
        }
    }
    Ok(None)
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
