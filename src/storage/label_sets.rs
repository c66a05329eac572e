//! Sorted lists of label sets.

use std::cmp::Ordering;

use crate::model::labels::Labels;
use crate::model::read::{ReadBudget, ReadError};

/// Steps between two looks at the budget.
const CHECK_EVERY: usize = 1024;

/// Lists that are sorted, as one, in which each set stands once.
pub(crate) fn merged(mut lists: Vec<Vec<Labels>>, budget: &dyn ReadBudget) -> Result<Vec<Labels>, ReadError> {
    lists.retain(|list| !list.is_empty());
    loop {
        // The shortest two first.
        lists.sort_by_key(|list| std::cmp::Reverse(list.len()));
        let Some(small) = lists.pop() else { return Ok(Vec::new()) };
        let Some(large) = lists.pop() else { return Ok(small) };
        lists.push(of_two(small, large, budget)?);
    }
}

fn of_two(a: Vec<Labels>, b: Vec<Labels>, budget: &dyn ReadBudget) -> Result<Vec<Labels>, ReadError> {
    // The merged list stands beside its parts for a moment.
    let len = a.len() + b.len();
    budget.charge(len * size_of::<Labels>())?;
    let mut both = Vec::with_capacity(len);
    let (mut a, mut b) = (a.into_iter(), b.into_iter());
    let (mut next_a, mut next_b) = (a.next(), b.next());
    while let (Some(one), Some(other)) = (&next_a, &next_b) {
        if both.len().is_multiple_of(CHECK_EVERY) {
            budget.check()?;
        }
        match one.cmp(other) {
            Ordering::Less => both.extend(std::mem::replace(&mut next_a, a.next())),
            Ordering::Greater => both.extend(std::mem::replace(&mut next_b, b.next())),
            Ordering::Equal => {
                both.extend(std::mem::replace(&mut next_a, a.next()));
                next_b = b.next();
            }
        }
    }
    both.extend(next_a.into_iter().chain(a));
    both.extend(next_b.into_iter().chain(b));
    Ok(both)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::read::Unlimited;

    proptest! {
        #[test]
        fn merged_lists_are_sorted_and_without_repetitions(
            lists in prop::collection::vec(prop::collection::btree_set(0u32..40, 0..20), 0..5),
        ) {
            let of = |n: &u32| Labels::from_pairs([("a", format!("{n:02}"))]);
            let all: std::collections::BTreeSet<Labels> = lists.iter().flatten().map(of).collect();
            let lists = lists.iter().map(|list| list.iter().map(of).collect()).collect();
            prop_assert!(merged(lists, &Unlimited).unwrap().into_iter().eq(all));
        }
    }
}
