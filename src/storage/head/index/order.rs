//! The order of series of several segments by their labels. Within a segment their positions say it; across segments it is found
//! by merging, and kept as a rank for each series: a selection of many is put in order without looking at a label again.

use std::cmp::Ordering;
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use crate::model::read::ReadError;
use crate::storage::head::index::segment::{Segment, SegmentId};
use crate::storage::head::index::select::Ticker;

/// A series of one of several segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// Number of the segment.
    pub(crate) run: u32,
    pub(crate) position: u32,
    /// Whatever the caller knows of it; less than [`NO_CLASS`].
    pub(crate) class: u32,
}

/// No class.
pub(crate) const NO_CLASS: u32 = u32::MAX;

/// Where the series of some segments stand among all of them: four bytes for each.
#[derive(Debug)]
pub(crate) struct Ranks {
    key: Box<[SegmentId]>,
    of: Vec<Box<[u32]>>,
}

/// The ranks that were found last.
pub(crate) type KnownRanks = ArcSwapOption<Ranks>;

impl Ranks {
    /// The ranks of the series of all segments, as they are known or found now.
    pub(crate) fn of(
        known: &KnownRanks,
        segments: &[&Segment],
        ticker: &mut Ticker<'_>,
    ) -> Result<Arc<Self>, ReadError> {
        let key: Box<[SegmentId]> = segments.iter().map(|segment| segment.id()).collect();
        if let Some(ranks) = known.load_full().filter(|ranks| ranks.key == key) {
            return Ok(ranks);
        }
        let members = |(run, segment): (u32, &&Segment)| {
            (0..segment.len() as u32).map(|position| Member { run, position, class: 0 }).collect()
        };
        let all = merged(segments, (0..).zip(segments).map(members).collect(), ticker)?;
        let mut of: Vec<Box<[u32]>> = segments.iter().map(|segment| vec![0; segment.len()].into()).collect();
        for (rank, member) in (0u32..).zip(all) {
            if let Some(place) = of.get_mut(member.run as usize).and_then(|run| run.get_mut(member.position as usize)) {
                *place = rank;
            }
        }
        let ranks = Arc::new(Self { key, of });
        known.store(Some(Arc::clone(&ranks)));
        Ok(ranks)
    }

    /// The members in the order of their labels. Takes a place for each series of the segments meanwhile.
    pub(crate) fn sorted(&self, members: Vec<Vec<Member>>) -> Vec<Member> {
        let len = self.of.iter().map(|run| run.len()).sum();
        let mut places = vec![Member { run: 0, position: 0, class: NO_CLASS }; len];
        for (ranks, members) in self.of.iter().zip(members) {
            for member in members {
                let rank = ranks.get(member.position as usize);
                if let Some(place) = rank.and_then(|rank| places.get_mut(*rank as usize)) {
                    *place = member;
                }
            }
        }
        places.retain(|place| place.class != NO_CLASS);
        places
    }
}

/// Runs of members, each of one segment and in the order of their labels, as one such run.
pub(crate) fn merged(
    segments: &[&Segment],
    mut runs: Vec<Vec<Member>>,
    ticker: &mut Ticker<'_>,
) -> Result<Vec<Member>, ReadError> {
    let order = ByLabels::of(segments);
    runs.retain(|run| !run.is_empty());
    loop {
        // The shortest two first.
        runs.sort_by_key(|run| std::cmp::Reverse(run.len()));
        let Some(small) = runs.pop() else { return Ok(Vec::new()) };
        let Some(large) = runs.pop() else { return Ok(small) };
        runs.push(order.merge(&small, &large, ticker)?);
    }
}

/// Number of leading items for which `is_before` holds; it holds for no item behind one for which it does not. Doubles its
/// steps, so that near ends are found quickly.
pub(crate) fn leading<T>(items: &[T], is_before: impl Fn(&T) -> bool) -> usize {
    let mut step = 1;
    while items.get(step - 1).is_some_and(&is_before) {
        step *= 2;
    }
    let from = step / 2;
    from + items.get(from..items.len().min(step)).unwrap_or_default().partition_point(is_before)
}

/// Compares series of several segments.
struct ByLabels<'a> {
    segments: &'a [&'a Segment],
    /// All segments have the same names of labels, so the number of a name says its order.
    same_names: bool,
}

impl<'a> ByLabels<'a> {
    fn of(segments: &'a [&'a Segment]) -> Self {
        let same_names = segments.windows(2).all(|pair| matches!(pair, [a, b] if a.names().eq(b.names())));
        Self { segments, same_names }
    }

    fn merge(&self, small: &[Member], large: &[Member], ticker: &mut Ticker<'_>) -> Result<Vec<Member>, ReadError> {
        let mut all = Vec::with_capacity(small.len() + large.len());
        let mut rest = large;
        for member in small {
            ticker.tick()?;
            let (before, behind) = rest.split_at(leading(rest, |other| self.compare(other, member) == Ordering::Less));
            all.extend_from_slice(before);
            all.push(*member);
            rest = behind;
        }
        all.extend_from_slice(rest);
        Ok(all)
    }

    fn compare(&self, a: &Member, b: &Member) -> Ordering {
        let (Some(left), Some(right)) = (self.segments.get(a.run as usize), self.segments.get(b.run as usize)) else {
            return Ordering::Equal;
        };
        let (mut left_pairs, mut right_pairs) = (left.numbered_pairs(a.position), right.numbered_pairs(b.position));
        loop {
            let (x, y) = match (left_pairs.next(), right_pairs.next()) {
                (Some(x), Some(y)) => (x, y),
                (x, y) => return x.is_some().cmp(&y.is_some()),
            };
            let names = if self.same_names { x.0.cmp(&y.0) } else { left.name(x.0).cmp(right.name(y.0)) };
            let order = names.then_with(|| left.value(x.1).cmp(right.value(y.1)));
            if order.is_ne() {
                return order;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::labels::Labels;
    use crate::model::read::Unlimited;
    use crate::model::sample::SeriesRef;
    use crate::storage::head::column::SeriesCell;
    use crate::storage::head::index::build::from_tail;
    use crate::storage::head::index::tail::TailEntry;

    fn segment(all: &[Labels]) -> Segment {
        let entry = |labels: &Labels| TailEntry {
            labels: labels.clone(),
            hash: labels.hash64(),
            cell: Arc::new(SeriesCell::new(SeriesRef(1))),
        };
        let entries: Vec<TailEntry> = all.iter().map(entry).collect();
        from_tail(entries.iter())
    }

    proptest! {
        #[test]
        fn ranks_and_merges_give_the_order_of_labels(
            sets in prop::collection::btree_set(prop::collection::btree_map("[ab]{1,2}", "[xy]{1,2}", 1..4), 0..40),
            parts in 1usize..4,
            keeps in 1usize..3,
        ) {
            let all: Vec<Labels> = sets.iter().map(Labels::from_pairs).collect();
            let own = |part: usize| all.iter().skip(part).step_by(parts).cloned().collect::<Vec<_>>();
            let segments: Vec<Segment> = (0..parts).map(|part| segment(&own(part))).collect();
            let segments: Vec<&Segment> = segments.iter().collect();
            let mut ticker = Ticker::new(&Unlimited);
            let member = |run: u32, position: u32| Member { run, position, class: 7 };
            let runs: Vec<Vec<Member>> = (0..).zip(&segments).map(|(run, segment)| {
                (0..segment.len() as u32).step_by(keeps).map(|position| member(run, position)).collect()
            }).collect();
            let known = KnownRanks::empty();
            let labels = |members: Vec<Member>| -> Vec<Labels> {
                members.iter().map(|m| segments[m.run as usize].labels(m.position)).collect()
            };
            let mut expected: Vec<Labels> = labels(runs.concat());
            expected.sort();
            prop_assert_eq!(&labels(merged(&segments, runs.clone(), &mut ticker).unwrap()), &expected);
            let ranks = Ranks::of(&known, &segments, &mut ticker).unwrap();
            prop_assert_eq!(&labels(ranks.sorted(runs)), &expected);
            for segment in segments.iter().filter(|segment| 0 < segment.len()) {
                prop_assert!(all.iter().all(|labels| segment.compare(0, labels) == segment.labels(0).cmp(labels)));
            }
            prop_assert!(Arc::ptr_eq(&ranks, &Ranks::of(&known, &segments, &mut ticker).unwrap()));
        }

        #[test]
        fn leading_items_are_counted(len in 0usize..70, end in 0usize..80) {
            let items: Vec<usize> = (0..len).collect();
            prop_assert_eq!(leading(&items, |item| *item < end), len.min(end));
        }
    }
}
