//! Orders of `sort`, `sort_by_label`, `topk` and their kin.

use std::cmp::Ordering;

use crate::model::labels::Labels;

/// Which way to sort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Smallest first.
    Ascending,
    /// Largest first.
    Descending,
}

impl Direction {
    /// `ordering`, turned around for descending order.
    pub(crate) fn apply(self, ordering: Ordering) -> Ordering {
        match self {
            Self::Ascending => ordering,
            Self::Descending => ordering.reverse(),
        }
    }
}

/// Order of values with NaN last in either direction.
pub(crate) fn by_value(direction: Direction, a: f64, b: f64) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (false, false) => direction.apply(a.partial_cmp(&b).unwrap_or(Ordering::Equal)),
        (a_is_nan, b_is_nan) => a_is_nan.cmp(&b_is_nan),
    }
}

/// Order of label sets by the values of `names`, numbers inside of the values compared as numbers; sets that are equal in
/// those are ordered as a whole.
pub(crate) fn by_labels(direction: Direction, names: &[String], a: &Labels, b: &Labels) -> Ordering {
    for name in names {
        let (left, right) = (a.get(name).unwrap_or(""), b.get(name).unwrap_or(""));
        if left != right {
            return direction.apply(natural(left, right));
        }
    }
    direction.apply(a.cmp(b))
}

/// Natural order: runs of digits compare as numbers, everything else by its bytes.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a.as_bytes(), b.as_bytes());
    loop {
        let (chunk_a, rest_a) = chunk(left);
        let (chunk_b, rest_b) = chunk(right);
        if chunk_a.is_empty() || chunk_b.is_empty() {
            // The shorter one first; of two spellings of the same numbers, the smaller text.
            return chunk_a.len().cmp(&chunk_b.len()).then_with(|| a.cmp(b));
        }
        let both_numbers = chunk_a[0].is_ascii_digit() && chunk_b[0].is_ascii_digit();
        let ordering = if both_numbers { numeric(chunk_a, chunk_b) } else { chunk_a.cmp(chunk_b) };
        if ordering != Ordering::Equal {
            return ordering;
        }
        (left, right) = (rest_a, rest_b);
    }
}

/// The longest start of `text` that is all digits or has none.
fn chunk(text: &[u8]) -> (&[u8], &[u8]) {
    let is_number = text.first().is_some_and(u8::is_ascii_digit);
    let len = text.iter().take_while(|b| b.is_ascii_digit() == is_number).count();
    text.split_at(len)
}

fn numeric(a: &[u8], b: &[u8]) -> Ordering {
    let significant = |digits: &[u8]| digits.iter().position(|d| *d != b'0').unwrap_or(digits.len());
    let (a, b) = (&a[significant(a)..], &b[significant(b)..]);
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

/// A heap of limited size as Go's `container/heap` keeps it, so that of several equal elements the same ones stay.
#[derive(Debug)]
pub(crate) struct BoundedHeap {
    /// Value and series of each element; the worst is first.
    elements: Vec<(f64, usize)>,
    /// Elements that sort first here are worse.
    direction: Direction,
}

impl BoundedHeap {
    /// An empty heap that keeps the largest (`Descending`) or the smallest values (`Ascending`).
    pub(crate) fn keeping(direction: Direction) -> Self {
        Self { elements: Vec::new(), direction }
    }

    /// Number of elements.
    pub(crate) fn len(&self) -> usize {
        self.elements.len()
    }

    /// Empties the heap.
    pub(crate) fn clear(&mut self) {
        self.elements.clear();
    }

    /// Adds an element in any case.
    pub(crate) fn push(&mut self, value: f64, series: usize) {
        self.elements.push((value, series));
        self.sift_up(self.elements.len() - 1);
    }

    /// Puts an element in the place of the worst one if it is better.
    pub(crate) fn replace_worst(&mut self, value: f64, series: usize) {
        let Some(worst) = self.elements.first_mut() else { return };
        let is_better = match self.direction {
            Direction::Descending => worst.0 < value,
            Direction::Ascending => worst.0 > value,
        };
        if is_better || worst.0.is_nan() && !value.is_nan() {
            *worst = (value, series);
            self.sift_down();
        }
    }

    /// The elements, best first.
    pub(crate) fn best_first(&mut self) -> &[(f64, usize)] {
        let direction = self.direction;
        self.elements.sort_by(|a, b| by_value(direction, a.0, b.0));
        &self.elements
    }

    /// The elements in the order of the heap.
    pub(crate) fn elements(&self) -> &[(f64, usize)] {
        &self.elements
    }

    /// True if `a` is worse than `b`; NaN is worse than everything, another NaN included.
    fn is_worse(&self, a: usize, b: usize) -> bool {
        let (a, b) = (self.elements[a].0, self.elements[b].0);
        a.is_nan()
            || match self.direction {
                Direction::Descending => a < b,
                Direction::Ascending => a > b,
            }
    }

    fn sift_up(&mut self, mut child: usize) {
        while child > 0 {
            let parent = (child - 1) / 2;
            if !self.is_worse(child, parent) {
                break;
            }
            self.elements.swap(parent, child);
            child = parent;
        }
    }

    fn sift_down(&mut self) {
        let mut parent = 0;
        loop {
            let left = 2 * parent + 1;
            if left >= self.elements.len() {
                break;
            }
            let right = left + 1;
            let child = if right < self.elements.len() && self.is_worse(right, left) { right } else { left };
            if !self.is_worse(child, parent) {
                break;
            }
            self.elements.swap(parent, child);
            parent = child;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_in_names_count_as_numbers() {
        let mut names = vec!["node10", "node9", "node", "node9a", "2", "10", "node09", "a"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["2", "10", "a", "node", "node09", "node9", "node9a", "node10"]);
    }

    #[test]
    fn nan_is_last_both_ways() {
        let mut values = [2.0, f64::NAN, 1.0];
        values.sort_by(|a, b| by_value(Direction::Descending, *a, *b));
        assert_eq!(values[..2], [2.0, 1.0]);
        values.sort_by(|a, b| by_value(Direction::Ascending, *a, *b));
        assert_eq!(values[..2], [1.0, 2.0]);
    }

    proptest! {
        #[test]
        fn natural_order_is_an_order(a in "[a-c0-3]{0,6}", b in "[a-c0-3]{0,6}", c in "[a-c0-3]{0,6}") {
            prop_assert_eq!(natural(&a, &b), natural(&b, &a).reverse());
            if natural(&a, &b) != Ordering::Greater && natural(&b, &c) != Ordering::Greater {
                prop_assert!(natural(&a, &c) != Ordering::Greater);
            }
        }

        #[test]
        fn heap_keeps_the_best(values in prop::collection::vec(-5i8..6, 0..40), k in 1usize..8) {
            for direction in [Direction::Ascending, Direction::Descending] {
                let mut heap = BoundedHeap::keeping(direction);
                for (series, value) in values.iter().enumerate() {
                    if heap.len() < k {
                        heap.push(f64::from(*value), series);
                    } else {
                        heap.replace_worst(f64::from(*value), series);
                    }
                }
                let mut expected: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
                expected.sort_by(|a, b| by_value(direction, *a, *b));
                expected.truncate(k);
                let kept: Vec<f64> = heap.best_first().iter().map(|(v, _)| *v).collect();
                prop_assert_eq!(kept, expected);
            }
        }
    }
}
