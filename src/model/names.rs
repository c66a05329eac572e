//! Names and values of labels as listings hand them on: sorted, without repetition, side by side in one text. A million values
//! take two allocations and are copied by runs.
//! Invariant: ascending, each once; kept by [`Names::merged`] and [`FromIterator`], and by whoever calls [`Names::push`].

use std::cmp::Ordering;
use std::ops::Range;

/// See the module's text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    text: String,
    /// Where each ends.
    ends: Vec<usize>,
}

impl Names {
    /// Number of names.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The name at a place.
    pub fn get(&self, place: usize) -> Option<&str> {
        let to = *self.ends.get(place)?;
        self.text.get(self.start_of(place)..to)
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &str> + ExactSizeIterator {
        (0..self.len()).map(|place| self.get(place).unwrap_or_default())
    }

    /// The greatest.
    pub fn last(&self) -> Option<&str> {
        self.get(self.len().checked_sub(1)?)
    }

    /// The place of `name`, or the one where it belongs.
    pub fn place_of(&self, name: &str) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.get(middle).map_or(Ordering::Greater, |found| found.cmp(name)) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Ok(middle),
                Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    /// Bytes that they take.
    pub fn memory_len(&self) -> usize {
        self.text.capacity() + self.ends.capacity() * size_of::<usize>()
    }

    /// Keeps the first `len`.
    pub fn truncate(&mut self, len: usize) {
        self.text.truncate(self.start_of(len.min(self.len())));
        self.ends.truncate(len);
    }

    /// Appends a name, greater than all before.
    pub fn push(&mut self, name: &str) {
        self.text.push_str(name);
        self.ends.push(self.text.len());
    }

    /// Appends names that stand side by side in `text` and end at `ends`; the first of them is greater than all before.
    pub fn push_run(&mut self, text: &str, ends: impl ExactSizeIterator<Item = usize>) {
        let begin = self.text.len();
        self.text.push_str(text);
        self.ends.extend(ends.map(|end| begin + end));
    }

    /// What any of the lists holds.
    pub fn merged(lists: Vec<Self>) -> Self {
        Self::merged_parts(lists.into_iter().map(Part::Own).collect())
    }

    /// What any of the parts holds.
    pub fn merged_parts(mut parts: Vec<Part<'_>>) -> Self {
        parts.retain(|part| part.len() != 0);
        // The longest first, so that short ones are merged with short ones.
        parts.sort_by_key(|part| std::cmp::Reverse(part.len()));
        while 1 < parts.len() {
            let (Some(a), Some(b)) = (parts.pop(), parts.pop()) else { break };
            if a.is_same(&b) {
                // As for a label of which each part has all values.
                parts.push(a);
                continue;
            }
            let both = Part::Own(Self::of_two(&a, &b));
            let place = parts.partition_point(|part| both.len() <= part.len());
            parts.insert(place, both);
        }
        match parts.pop() {
            None => Self::default(),
            Some(Part::Own(names)) => names,
            Some(part) => {
                let mut names = Self::default();
                part.copy(0..part.len(), &mut names);
                names
            }
        }
    }

    fn of_two(a: &Part<'_>, b: &Part<'_>) -> Self {
        let mut both = Self {
            text: String::with_capacity(a.text_len() + b.text_len()),
            ends: Vec::with_capacity(a.len() + b.len()),
        };
        let (mut at_a, mut at_b) = (0, 0);
        while let (Some(next_a), Some(next_b)) = (a.get(at_a), b.get(at_b)) {
            match next_a.cmp(next_b) {
                Ordering::Less => {
                    let to = a.first_from(at_a + 1, next_b);
                    a.copy(at_a..to, &mut both);
                    at_a = to;
                }
                Ordering::Greater => {
                    let to = b.first_from(at_b + 1, next_a);
                    b.copy(at_b..to, &mut both);
                    at_b = to;
                }
                Ordering::Equal => {
                    both.push(next_a);
                    (at_a, at_b) = (at_a + 1, at_b + 1);
                }
            }
        }
        a.copy(at_a..a.len(), &mut both);
        b.copy(at_b..b.len(), &mut both);
        both
    }

    /// Appends the names at these places to a list whose names are all less.
    fn copy(&self, places: Range<usize>, to: &mut Self) {
        let begin = self.start_of(places.start);
        let Some(ends) = self.ends.get(places) else { return };
        let Some(text) = ends.last().and_then(|end| self.text.get(begin..*end)) else { return };
        to.push_run(text, ends.iter().map(|end| end - begin));
    }

    fn start_of(&self, place: usize) -> usize {
        place.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0)
    }
}

/// A sorted list that is merged with others.
pub enum Part<'a> {
    /// A list of its own.
    Own(Names),
    /// Names that stand side by side elsewhere.
    Run(Run<'a>),
}

/// Names side by side in a text of others, ascending, each once.
pub struct Run<'a> {
    text: &'a str,
    /// Where each ends, counted from where `begin` is the first byte of `text`.
    ends: &'a [u32],
    begin: u32,
}

impl<'a> Run<'a> {
    /// The names of `text` that end at `ends`, counted from where `begin` is its first byte.
    pub fn new(text: &'a str, ends: &'a [u32], begin: u32) -> Self {
        Self { text, ends, begin }
    }

    /// Number of names.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all names.
    pub fn text_len(&self) -> usize {
        self.text.len()
    }

    fn place(&self, end: u32) -> usize {
        end.wrapping_sub(self.begin) as usize
    }

    fn start_of(&self, place: usize) -> usize {
        let before = place.checked_sub(1).and_then(|before| self.ends.get(before));
        before.map_or(0, |end| self.place(*end))
    }

    fn get(&self, place: usize) -> Option<&str> {
        self.text.get(self.start_of(place)..self.place(*self.ends.get(place)?))
    }

    /// Appends the names at these places to a list whose names are all less.
    pub fn copy(&self, places: Range<usize>, to: &mut Names) {
        let begin = self.start_of(places.start);
        let Some(ends) = self.ends.get(places) else { return };
        let Some(text) = ends.last().and_then(|end| self.text.get(begin..self.place(*end))) else { return };
        to.push_run(text, ends.iter().map(|end| self.place(*end) - begin));
    }
}

impl Part<'_> {
    /// Bytes that its names take, or would as a list of their own.
    pub fn memory_len(&self) -> usize {
        self.text_len() + self.len() * size_of::<usize>()
    }

    fn len(&self) -> usize {
        match self {
            Self::Own(names) => names.len(),
            Self::Run(run) => run.len(),
        }
    }

    fn text_len(&self) -> usize {
        match self {
            Self::Own(names) => names.text.len(),
            Self::Run(run) => run.text_len(),
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        self.len() == other.len()
            && self.text_len() == other.text_len()
            && (0..self.len()).all(|place| self.get(place) == other.get(place))
    }

    fn get(&self, place: usize) -> Option<&str> {
        match self {
            Self::Own(names) => names.get(place),
            Self::Run(run) => run.get(place),
        }
    }

    fn copy(&self, places: Range<usize>, to: &mut Names) {
        match self {
            Self::Own(names) => names.copy(places, to),
            Self::Run(run) => run.copy(places, to),
        }
    }

    /// The first place from `from` on whose name is not below `bound`; doubles its steps, so that near ones are found quickly.
    fn first_from(&self, from: usize, bound: &str) -> usize {
        let is_below = |place: usize| self.get(place).is_some_and(|name| name < bound);
        if !is_below(from) {
            return from.min(self.len());
        }
        let (mut low, mut step) = (from, 1);
        while is_below(low + step) {
            low += step;
            step *= 2;
        }
        // The name at `low` is below, the one a step further is not.
        let (mut low, mut high) = (low + 1, low + step);
        while low < high {
            let middle = low + (high - low) / 2;
            if is_below(middle) { low = middle + 1 } else { high = middle }
        }
        low
    }
}

impl<T: AsRef<str> + Ord> FromIterator<T> for Names {
    /// Sorts them and drops repetitions.
    fn from_iter<I: IntoIterator<Item = T>>(names: I) -> Self {
        let mut sorted: Vec<T> = names.into_iter().collect();
        sorted.sort_unstable();
        sorted.dedup();
        let mut all = Self::default();
        sorted.iter().for_each(|name| all.push(name.as_ref()));
        all
    }
}

impl<T: AsRef<str>> PartialEq<Vec<T>> for Names {
    fn eq(&self, other: &Vec<T>) -> bool {
        self == other.as_slice()
    }
}

impl<T: AsRef<str>, const N: usize> PartialEq<[T; N]> for Names {
    fn eq(&self, other: &[T; N]) -> bool {
        self == other.as_slice()
    }
}

impl<T: AsRef<str>> PartialEq<[T]> for Names {
    fn eq(&self, other: &[T]) -> bool {
        self.iter().eq(other.iter().map(AsRef::as_ref))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_found_by_place_and_cut() {
        let mut names: Names = ["b", "", "é", "b"].into_iter().collect();
        assert_eq!((names.len(), names.get(1), names.get(3)), (3, Some("b"), None));
        assert_eq!(names.iter().rev().collect::<Vec<_>>(), ["é", "b", ""]);
        assert_eq!((names.place_of("b"), names.place_of("c"), names.place_of("ü")), (Ok(1), Err(2), Err(3)));
        assert_eq!((names.last(), Names::default().last()), (Some("é"), None));
        names.truncate(7);
        names.truncate(2);
        assert_eq!(names, ["", "b"]);
        names.push_run("xyz", [1, 3].into_iter());
        assert_eq!(names, ["", "b", "x", "yz"]);
        names.truncate(0);
        assert!(names.is_empty() && Names::merged(vec![]).is_empty());
    }

    proptest! {
        #[test]
        fn lists_are_merged(lists in proptest::collection::vec(proptest::collection::vec("[a-cé]{0,3}", 0..60), 0..5)) {
            let all: BTreeSet<&String> = lists.iter().flatten().collect();
            let lists: Vec<Names> = lists.iter().map(|list| list.iter().collect()).collect();
            let all: Vec<&String> = all.into_iter().collect();
            // The same as runs in the middle of another text.
            let runs: Vec<(String, Vec<u32>)> = lists
                .iter()
                .map(|list| (format!("x{}", list.text), list.ends.iter().map(|end| 1 + *end as u32).collect()))
                .collect();
            let parts = runs.iter().map(|(text, ends)| Part::Run(Run::new(&text[1..], ends, 1))).collect();
            for merged in [Names::merged_parts(parts), Names::merged(lists)] {
                prop_assert_eq!(merged.iter().collect::<Vec<_>>(), all.clone());
            }
        }
    }
}
