//! Operations on ascending lists of series.

/// What two ascending lists have in common.
pub(crate) fn intersect(small: &[u32], large: &[u32]) -> Vec<u32> {
    if large.len() < small.len() {
        return intersect(large, small);
    }
    let mut kept = Vec::with_capacity(small.len());
    let mut rest = large;
    for position in small {
        rest = skip_below(rest, *position);
        match rest.first() {
            Some(found) if found == position => kept.push(*position),
            Some(_) => {}
            None => break,
        }
    }
    kept
}

/// `base` without the elements of `away`; both ascending.
pub(crate) fn subtract(mut base: Vec<u32>, away: &[u32]) -> Vec<u32> {
    let mut rest = away;
    base.retain(|position| {
        rest = skip_below(rest, *position);
        rest.first() != Some(position)
    });
    base
}

/// What several ascending lists have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Common {
    /// This is the first.
    First(u32),
    Nothing,
    /// It would take more steps.
    Unknown,
}

/// The first element that all lists have, found by steps from one to the next. Each step takes one of `steps`; the lists begin where it ended.
pub(crate) fn first_common(lists: &mut [&[u32]], steps: &mut usize) -> Common {
    let (mut bound, mut agreed, mut at) = (0, 0, 0);
    while 0 < *steps {
        let Some(list) = lists.get_mut(at) else { return Common::Nothing };
        *steps -= 1;
        *list = skip_below(list, bound);
        let Some(first) = list.first() else { return Common::Nothing };
        agreed = if *first == bound { agreed + 1 } else { 1 };
        bound = *first;
        if agreed == lists.len() {
            return Common::First(bound);
        }
        at = (at + 1) % lists.len();
    }
    Common::Unknown
}

/// The part of an ascending list that is not below `bound`; doubles its steps, so near ends are found quickly.
pub(crate) fn skip_below(list: &[u32], bound: u32) -> &[u32] {
    let mut step = 1;
    while step < list.len() && list[step] < bound {
        step *= 2;
    }
    let from = step / 2;
    let window = &list[from..list.len().min(step + 1)];
    &list[from + window.partition_point(|position| *position < bound)..]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ascending() -> impl Strategy<Value = Vec<u32>> {
        proptest::collection::btree_set(0u32..500, 0..200).prop_map(|set| set.into_iter().collect())
    }

    proptest! {
        #[test]
        fn set_operations_agree_with_plain_ones(a in ascending(), b in ascending()) {
            let both: Vec<u32> = a.iter().copied().filter(|x| b.contains(x)).collect();
            let only_a: Vec<u32> = a.iter().copied().filter(|x| !b.contains(x)).collect();
            let mut steps = usize::MAX;
            let first = both.first().map_or(Common::Nothing, |first| Common::First(*first));
            prop_assert_eq!(first_common(&mut [&a, &b], &mut steps), first);
            let three = first_common(&mut [&a, &b, &a], &mut steps);
            prop_assert_eq!(three, first);
            let few = first_common(&mut [&a, &b], &mut 2);
            prop_assert!(few == first || few == Common::Unknown);
            prop_assert_eq!(intersect(&a, &b), both);
            prop_assert_eq!(subtract(a, &b), only_a);
        }
    }
}
