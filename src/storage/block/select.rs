//! Which series of a block fulfil all matchers, by Prometheus's rule: a matcher that the empty value fulfils takes away the
//! series whose value does not match, any other keeps those whose value does.

use memchr::memmem;

use crate::model::matcher::{MatchOp, Matcher};
use crate::model::read::{ReadBudget, ReadError};
use crate::storage::block::index_read::{IndexReader, Next};
use crate::storage::pattern::{Shape, shape_of};
use crate::storage::postings::{intersect, subtract};

/// Steps between two looks at the budget.
const CHECK_EVERY: usize = 1024;

/// Ids of the series that fulfil all `matchers`, in the order of their labels.
pub(super) fn select_ids(
    index: &IndexReader,
    matchers: &[Matcher],
    budget: &dyn ReadBudget,
) -> Result<Vec<u32>, ReadError> {
    let mut base: Option<Vec<u32>> = None;
    let (away, keep): (Vec<_>, Vec<_>) = matchers.iter().partition(|matcher| matcher.matches_empty());
    for matcher in keep {
        budget.check()?;
        if is_true_of_all(index, matcher)? {
            continue;
        }
        let places = places(index, matcher, Wanted::Matching, budget)?;
        let kept = union(index, &places, budget)?;
        let kept = match &base {
            Some(base) => intersect(base, &kept),
            None => kept,
        };
        if kept.is_empty() {
            return Ok(kept);
        }
        base = Some(kept);
    }
    for matcher in away {
        if matcher.op() == MatchOp::Regex && matcher.value() == ".*" {
            continue;
        }
        budget.check()?;
        let places = places(index, matcher, Wanted::NotMatching, budget)?;
        let from = match base {
            Some(base) => base,
            None => all(index, budget)?,
        };
        base = Some(if places.is_empty() { from } else { subtract(from, &union(index, &places, budget)?) });
    }
    match base {
        Some(base) => Ok(base),
        None => all(index, budget),
    }
}

/// Whether a matcher asks for a value that all series have.
pub(super) fn is_true_of_all(index: &IndexReader, matcher: &Matcher) -> Result<bool, ReadError> {
    if !is_exact(matcher) {
        return Ok(false);
    }
    let len = |place: Option<u64>| place.map_or(Ok(0), |place| index.postings_len(place));
    Ok(len(index.postings_of(matcher.name(), matcher.value())?)? == len(index.place_of_all()?)?)
}

/// Whether the series that fulfil a matcher are one list of postings.
pub(super) fn is_exact(matcher: &Matcher) -> bool {
    matcher.op() == MatchOp::Equal && !matcher.value().is_empty()
}

/// Where the postings of the series that fulfil a matcher stand, if it lists their values.
pub(super) fn listed_places(
    index: &IndexReader,
    matcher: &Matcher,
    budget: &dyn ReadBudget,
) -> Result<Option<Vec<u64>>, ReadError> {
    let lists = match matcher.op() {
        MatchOp::Equal => true,
        MatchOp::Regex => matches!(shape_of(matcher.value()), Shape::OneOf(_)),
        MatchOp::NotEqual | MatchOp::NotRegex => false,
    };
    if !lists || matcher.matches_empty() {
        return Ok(None);
    }
    places(index, matcher, Wanted::Matching, budget).map(Some)
}

/// Calls `take` with the ids of the series that fulfil all `matchers`, in the order of their labels, until it has enough.
pub(super) fn each_id(
    index: &IndexReader,
    matchers: &[Matcher],
    budget: &dyn ReadBudget,
    mut take: impl FnMut(u32) -> Result<Next, ReadError>,
) -> Result<(), ReadError> {
    let list = match matchers {
        [] => index.place_of_all()?,
        [one] if is_exact(one) => index.postings_of(one.name(), one.value())?,
        _ => {
            for id in select_ids(index, matchers, budget)? {
                if take(id)? == Next::Stop {
                    break;
                }
            }
            return Ok(());
        }
    };
    let mut taken = Ok(());
    if let Some(place) = list {
        index.each_posting(place, |id| match take(id) {
            Ok(next) => next,
            Err(error) => {
                taken = Err(error);
                Next::Stop
            }
        })?;
    }
    taken
}

fn all(index: &IndexReader, budget: &dyn ReadBudget) -> Result<Vec<u32>, ReadError> {
    let ids = index.all_postings()?;
    budget.charge(size_of_val(&*ids))?;
    Ok(ids)
}

/// Which values of the label.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Matching,
    NotMatching,
}

/// Where the postings of the wanted values stand.
fn places(
    index: &IndexReader,
    matcher: &Matcher,
    wanted: Wanted,
    budget: &dyn ReadBudget,
) -> Result<Vec<u64>, ReadError> {
    let positive = matches!(matcher.op(), MatchOp::Equal | MatchOp::Regex);
    let shape = match matcher.op() {
        MatchOp::Equal | MatchOp::NotEqual => Shape::OneOf(vec![matcher.value()]),
        MatchOp::Regex | MatchOp::NotRegex => shape_of(matcher.value()),
    };
    // What the pattern itself says of the wanted values.
    let in_pattern = positive == (wanted == Wanted::Matching);
    let mut places = Vec::new();
    if let (Shape::OneOf(values), true) = (&shape, in_pattern) {
        let mut values = values.clone();
        values.sort_unstable();
        values.dedup();
        for value in values.into_iter().filter(|value| !value.is_empty()) {
            budget.check()?;
            places.extend(index.postings_of(matcher.name(), value)?);
        }
        return Ok(places);
    }
    // Where the wanted values follow the pattern they begin with its literal start.
    let prefix = match (&shape, in_pattern) {
        (Shape::Prefix(prefix) | Shape::Other { prefix }, true) => *prefix,
        _ => "",
    };
    let contained = match &shape {
        Shape::Contains(text) => Some(memmem::Finder::new(text)),
        _ => None,
    };
    if let (Some(finder), true) = (&contained, in_pattern) {
        index.values_containing(matcher.name(), finder, budget, &mut |place| places.push(place))?;
        return Ok(places);
    }
    let fits = |value: &str| match &contained {
        Some(finder) => finder.find(value.as_bytes()).is_some() == in_pattern,
        None => matcher.matches(value) == (wanted == Wanted::Matching),
    };
    let mut steps = 0;
    index.values_from(matcher.name(), prefix, &mut |value, place| {
        if !value.starts_with(prefix) {
            return Ok(Next::Stop);
        }
        steps += 1;
        if steps % CHECK_EVERY == 0 {
            budget.check()?;
        }
        if fits(value) {
            places.push(place);
        }
        Ok(Next::Go)
    })?;
    Ok(places)
}

/// The postings at these places, which are of one label and so do not overlap.
fn union(index: &IndexReader, places: &[u64], budget: &dyn ReadBudget) -> Result<Vec<u32>, ReadError> {
    let mut merged = Vec::new();
    for (number, place) in places.iter().enumerate() {
        if number % CHECK_EVERY == 0 {
            budget.check()?;
        }
        let ids = index.postings(*place)?;
        budget.charge(size_of_val(&*ids))?;
        if merged.is_empty() { merged = ids } else { merged.extend(ids) }
    }
    if 1 < places.len() {
        // Runs that are sorted already: the sort finds and merges them.
        merged.sort();
        merged.dedup();
    }
    Ok(merged)
}
