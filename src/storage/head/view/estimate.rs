//! How much work a listing is, found out at next to no cost, so that what is little is done by who asks.

use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::read::{ListingOf, Scope};
use crate::storage::head::index::segment::{PairId, Segment};
use crate::storage::head::index::select::{is_true_of_all, listed_pairs};
use crate::storage::head::view::{ViewInner, is_exact};
use crate::storage::postings::intersect;

/// Series of a list of postings that an estimate looks at.
const INTERSECTED_MAX: usize = 1024;

/// What steps take, in nanoseconds: a series that is looked at, or its labels put together.
const SERIES_NS: usize = 1_000;
/// A series of which it is asked whether it fulfils conditions.
const ASKED_NS: usize = 100;
/// A series of the tail.
const TAIL_NS: usize = 100;
/// A value whose first series are looked at.
const LOOKED_AT_NS: usize = 200;
/// A value of which a table tells, or that is copied.
const VALUE_NS: usize = 30;
/// A value that is held against an expression.
const MATCHED_NS: usize = 100;

impl ViewInner {
    /// About how many microseconds a listing takes.
    pub(super) fn estimate(&self, listing: ListingOf<'_>, scope: &Scope<'_>) -> usize {
        let runs: usize = self.shards.iter().map(|shard| shard.index.segments.len()).sum();
        let mut all_ns: usize = 0;
        for (number, shard) in self.shards.iter().enumerate() {
            for segment in &shard.index.segments {
                all_ns = all_ns.saturating_add(match listing {
                    ListingOf::Values(name) => self.values_ns((number, segment), name, scope),
                    ListingOf::LabelSets if scope.limit < usize::MAX => first_sets_ns(segment, scope, runs),
                    ListingOf::Names if scope.matchers.is_empty() => segment.names().count() * LOOKED_AT_NS,
                    ListingOf::Names | ListingOf::LabelSets => series_ns(segment, scope.matchers),
                });
            }
            all_ns = all_ns.saturating_add(shard.tail_len * TAIL_NS);
            if matches!(listing, ListingOf::LabelSets) {
                let fits = |labels: &Labels| scope.matchers.iter().all(|matcher| matcher.matches_labels(labels));
                let found = shard.index.tail.iter(shard.tail_len).filter(|entry| fits(&entry.labels)).count();
                all_ns = all_ns.saturating_add(found * SERIES_NS);
            }
        }
        all_ns / 1_000
    }

    /// As the listing goes about it.
    fn values_ns(&self, (shard, segment): (usize, &Segment), name: &str, scope: &Scope<'_>) -> usize {
        let of_name = segment.pairs_of_name(name);
        if of_name.is_empty() {
            return 0;
        }
        let are_many = segment.len() / 8 < of_name.len();
        let knows_seen = self.knows_unseen(shard, segment);
        let rechecked_ns = segment.seen().filter(|_| knows_seen).map_or(0, |seen| seen.not_yet.len()) * ASKED_NS;
        let telling: Vec<&Matcher> = scope.matchers.iter().filter(|one| !is_true_of_all(segment, one)).collect();
        if telling.is_empty() && (are_many || scope.matchers.is_empty()) {
            return match scope.limit {
                usize::MAX if knows_seen => of_name.len() * VALUE_NS + rechecked_ns,
                usize::MAX if are_many => segment.len() * ASKED_NS,
                limit => of_name.len().min(limit) * LOOKED_AT_NS,
            };
        }
        // The labels of few are looked at, or it is asked of each whether it fulfils the conditions.
        let of_series = series_ns(segment, scope.matchers).min(segment.len() * ASKED_NS);
        let by_series = of_series + of_name.len() * LOOKED_AT_NS;
        if are_many {
            return by_series;
        }
        let first_other = telling.iter().map(|matcher| matcher.name()).find(|label| *label != name);
        let is_of_two = |matcher: &&&Matcher| matcher.name() == name || Some(matcher.name()) == first_other;
        if telling.iter().filter(is_of_two).count() < telling.len() {
            return by_series;
        }
        let row_len = match first_other.map(|label| segment.pairs_of_name(label)) {
            Some(others) if others.is_empty() => 0,
            Some(others) if segment.knows_pairing(&of_name, &others) && knows_seen => others.len() / 64 + 1,
            Some(_) => return by_series,
            None => 0,
        };
        let of_matcher = |matcher: &&Matcher| match listed_pairs(segment, matcher) {
            Some(pairs) => pairs.len() * LOOKED_AT_NS,
            None => segment.pairs_of_name(matcher.name()).len() * MATCHED_NS,
        };
        let of_value = if knows_seen { VALUE_NS + row_len } else { LOOKED_AT_NS };
        telling.iter().map(of_matcher).sum::<usize>() + of_name.len() * of_value + rechecked_ns
    }
}

/// Series that fulfil those of the matchers that ask for one value, or some more.
pub(super) fn series_in(segment: &Segment, exact: &[&Matcher]) -> usize {
    let with = |matcher: &&Matcher| -> &[u32] {
        let pair = segment.pair_with_value(&segment.pairs_of_name(matcher.name()), matcher.value());
        pair.map_or(&[], |pair| segment.postings(pair))
    };
    let mut lists: Vec<&[u32]> = exact.iter().map(with).collect();
    lists.sort_by_key(|postings| postings.len());
    match lists.as_slice() {
        [] => segment.len(),
        [least, rest @ ..] if least.len() <= INTERSECTED_MAX => {
            rest.iter().fold(least.to_vec(), |both, next| intersect(&both, next)).len()
        }
        [least, ..] => least.len(),
    }
}

fn series_ns(segment: &Segment, matchers: &[Matcher]) -> usize {
    let has_none = |matcher: &Matcher| !matcher.matches_empty() && segment.pairs_of_name(matcher.name()).is_empty();
    if matchers.iter().any(has_none) {
        return 0;
    }
    let (exact, others): (Vec<&Matcher>, Vec<&Matcher>) = matchers.iter().partition(|matcher| is_exact(matcher));
    let len = |pairs: Vec<PairId>| pairs.iter().map(|pair| segment.postings(*pair).len()).sum();
    let of_lists = others.iter().filter_map(|matcher| listed_pairs(segment, matcher).map(len)).min();
    series_in(segment, &exact).min(of_lists.unwrap_or(usize::MAX)).saturating_mul(SERIES_NS)
}

/// What the first label sets take, which are merged with those of as many segments as there are `runs`.
fn first_sets_ns(segment: &Segment, scope: &Scope<'_>, runs: usize) -> usize {
    let all = series_ns(segment, scope.matchers);
    if !scope.matchers.iter().all(is_exact) {
        return all;
    }
    let len = |matcher: &Matcher| {
        listed_pairs(segment, matcher).map_or(0, |pairs| match pairs.as_slice() {
            [pair] => segment.postings(*pair).len(),
            _ => 0,
        })
    };
    let mut lens: Vec<usize> = scope.matchers.iter().map(len).collect();
    lens.sort_unstable();
    let (least, others) = lens.split_first().map_or((segment.len(), &[][..]), |(least, others)| (*least, others));
    let wanted = least.min(scope.limit / runs.max(1) + 1);
    // As if none of the labels said anything of another; and twice as many.
    let rate: f64 = others.iter().map(|len| *len as f64 / segment.len() as f64).product();
    let asked = if others.is_empty() { 0 } else { least.min((2.0 * wanted as f64 / rate) as usize) };
    all.min((wanted * SERIES_NS).saturating_add(asked * ASKED_NS))
}
