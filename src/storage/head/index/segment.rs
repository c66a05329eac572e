//! An immutable part of the index. Series stand in label order, so selections come out sorted; label pairs are numbered
//! in (name, value) order, so comparing two series means comparing two runs of `u32`.
//! ```text
//! names      name → its first pair                      pairs of one name are neighbours, sorted by value
//! pairs      pair → value text, postings                postings: positions of series, ascending
//! series     position → cell, pairs                     sorted by labels
//! lookup     hash of labels → position                  open addressing
//! ```

use std::cmp::Ordering;
use std::sync::Arc;
use std::sync::atomic::{self, AtomicU64};

use arc_swap::ArcSwapOption;
use memchr::memmem;

use crate::model::labels::{Labels, LabelsRoom};
use crate::model::names::Run;
use crate::storage::head::column::SeriesCell;
use crate::storage::head::commit::CommitId;
use crate::storage::head::index::pairing::Pairings;

/// Number of a (name, value) pair within a segment.
pub(crate) type PairId = u32;

/// Values that are searched between two looks at the budget.
const PAIRS_AT_A_TIME: PairId = 1 << 16;

/// Names a segment for as long as the process lives: no other gets the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentId(u64);

impl Default for SegmentId {
    /// A new one.
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, atomic::Ordering::Relaxed))
    }
}

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Segment {
    pub(super) id: SegmentId,
    pub(super) names: Texts,
    /// First pair of each name, and one past the last pair at the end.
    pub(super) name_starts: Box<[PairId]>,
    pub(super) values: Texts,
    /// Start of each pair's postings, and their end at the end.
    pub(super) posting_starts: Box<[u32]>,
    pub(super) postings: Box<[u32]>,
    pub(crate) cells: Box<[Arc<SeriesCell>]>,
    /// Start of each series' pairs, and their end at the end.
    pub(super) label_starts: Box<[u32]>,
    pub(super) label_pairs: Box<[PairId]>,
    pub(super) lookup: Lookup,
    /// Which of its series views see, if that is known.
    pub(super) seen: ArcSwapOption<Seen>,
    pub(super) pairings: Pairings,
}

/// When something was found out: after so many losses of the shard, as a view of `commit` sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AsOf {
    pub(crate) losses: u64,
    pub(crate) commit: CommitId,
}

/// Which series views see. What one view sees, later ones see as well until the shard loses samples.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) as_of: AsOf,
    /// Positions of those that were not seen and may be by now, ascending.
    pub(crate) not_yet: Box<[u32]>,
    /// Positions of those that are gone, ascending.
    pub(crate) gone: Box<[u32]>,
}

impl Seen {
    /// What `sees` says of each series.
    pub(crate) fn of(segment: &Segment, as_of: AsOf, mut sees: impl FnMut(&SeriesCell) -> bool) -> Self {
        let (mut not_yet, mut gone) = (Vec::new(), Vec::new());
        for (position, cell) in (0u32..).zip(&segment.cells) {
            if cell.is_gone() {
                gone.push(position);
            } else if !sees(cell) {
                not_yet.push(position);
            }
        }
        Self { as_of, not_yet: not_yet.into(), gone: gone.into() }
    }
}

/// Strings in one buffer.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    text: Box<str>,
    ends: Box<[u32]>,
}

impl Texts {
    pub(super) fn from_strs<'a>(texts: impl Iterator<Item = &'a str>) -> Self {
        let (mut text, mut ends) = (String::new(), Vec::new());
        for one in texts {
            text.push_str(one);
            ends.push(u32::try_from(text.len()).expect("the distinct label values of a segment stay below 4 GiB"));
        }
        Self { text: text.into(), ends: ends.into() }
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The texts of a range, side by side.
    pub(crate) fn run(&self, range: std::ops::Range<usize>) -> Run<'_> {
        let from = range.start.checked_sub(1).map_or(0, |before| self.ends[before]);
        let ends = &self.ends[range];
        let to = ends.last().copied().unwrap_or(from);
        Run::new(&self.text[from as usize..to as usize], ends, from)
    }

    /// Calls `take` for each text of the range in which `finder` finds something. They are searched as one.
    fn containing(&self, range: std::ops::Range<usize>, finder: &memmem::Finder<'_>, mut take: impl FnMut(usize)) {
        let Some(last) = range.end.checked_sub(1).filter(|last| range.start <= *last) else { return };
        let text = self.text.as_bytes();
        let end = self.ends[last] as usize;
        let mut from = range.start.checked_sub(1).map_or(0, |before| self.ends[before]) as usize;
        let mut index = range.start;
        while let Some(at) = finder.find(&text[from..end]) {
            let at = from + at;
            index += behind(&self.ends[index..range.end], at);
            let ends_at = self.ends[index] as usize;
            if at + finder.needle().len() <= ends_at {
                take(index);
                from = ends_at;
            } else {
                // It reaches into the next text.
                from = at + 1;
            }
        }
    }

    pub(crate) fn get(&self, index: usize) -> &str {
        let from = index.checked_sub(1).map_or(0, |before| self.ends[before]) as usize;
        &self.text[from..self.ends[index] as usize]
    }
}

/// Hash table over positions: 32 bits of the hash, then position + 1; zero is empty.
#[derive(Debug, Default)]
pub(crate) struct Lookup {
    slots: Box<[u64]>,
}

impl Lookup {
    /// A table of the hashes of positions 0, 1, ….
    pub(super) fn new(hashes: &[u32]) -> Self {
        // Filled to four fifths at most.
        let mut slots = vec![0u64; hashes.len() + hashes.len() / 4 + 1];
        for (position, hash) in (1u64..).zip(hashes) {
            let mut at = start_of(*hash, slots.len());
            while slots[at] != 0 {
                at = if at + 1 == slots.len() { 0 } else { at + 1 };
            }
            slots[at] = u64::from(*hash) << 32 | position;
        }
        Self { slots: slots.into() }
    }

    /// The hashes of all positions.
    pub(super) fn hashes(&self, len: usize) -> Vec<u32> {
        let mut hashes = vec![0; len];
        for slot in self.slots.iter().filter(|slot| **slot != 0) {
            hashes[(*slot as u32 - 1) as usize] = (*slot >> 32) as u32;
        }
        hashes
    }

    fn candidates(&self, hash: u32) -> impl Iterator<Item = usize> + '_ {
        let start = start_of(hash, self.slots.len());
        let (before, from) = self.slots.split_at(start.min(self.slots.len()));
        from.iter()
            .chain(before)
            .take_while(|slot| **slot != 0)
            .filter(move |slot| **slot >> 32 == u64::from(hash))
            .map(|slot| (*slot as u32 - 1) as usize)
    }
}

fn start_of(hash: u32, len: usize) -> usize {
    ((u64::from(hash) * len as u64) >> 32) as usize
}

/// The bits of a label hash that [`Lookup`] keeps.
pub(crate) fn lookup_hash(hash: u64) -> u32 {
    (hash >> 32) as u32
}

impl Segment {
    /// Its name.
    pub(crate) fn id(&self) -> SegmentId {
        self.id
    }

    /// Number of series.
    pub(crate) fn len(&self) -> usize {
        self.cells.len()
    }

    pub(crate) fn cell(&self, position: u32) -> &Arc<SeriesCell> {
        &self.cells[position as usize]
    }

    /// The pairs of the series at `position`, ascending.
    pub(crate) fn pairs(&self, position: u32) -> &[PairId] {
        let position = position as usize;
        &self.label_pairs[self.label_starts[position] as usize..self.label_starts[position + 1] as usize]
    }

    pub(crate) fn value(&self, pair: PairId) -> &str {
        self.values.get(pair as usize)
    }

    /// The values of pairs of one name.
    pub(crate) fn values(&self, pairs: std::ops::Range<PairId>) -> Run<'_> {
        self.values.run(pairs.start as usize..pairs.end as usize)
    }

    /// The pairs, out of those of one name, whose values have `text` in them, which is not empty. Calls `check` every so often.
    pub(crate) fn pairs_containing<E>(
        &self,
        of_name: &std::ops::Range<PairId>,
        text: &str,
        mut check: impl FnMut() -> Result<(), E>,
    ) -> Result<Vec<PairId>, E> {
        let finder = memmem::Finder::new(text);
        let mut pairs = Vec::new();
        let mut first = of_name.start;
        while first < of_name.end {
            check()?;
            let last = of_name.end.min(first.saturating_add(PAIRS_AT_A_TIME));
            self.values.containing(first as usize..last as usize, &finder, |pair| pairs.push(pair as PairId));
            first = last;
        }
        Ok(pairs)
    }

    /// Which of its series views see, if that is known.
    pub(crate) fn seen(&self) -> Option<Arc<Seen>> {
        self.seen.load_full()
    }

    /// Keeps what was found out.
    pub(crate) fn set_seen(&self, seen: Seen) {
        self.seen.store(Some(Arc::new(seen)));
    }

    /// Name and value of a pair.
    pub(crate) fn pair(&self, pair: PairId) -> (&str, &str) {
        let name = self.name_starts.partition_point(|start| *start <= pair) - 1;
        (self.names.get(name), self.value(pair))
    }

    /// The names of all labels, sorted.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        (0..self.names.len()).map(|number| self.names.get(number))
    }

    /// The name with this number.
    pub(crate) fn name(&self, number: usize) -> &str {
        self.names.get(number)
    }

    /// The pairs of the series at `position`, ascending, with the numbers of their names.
    pub(crate) fn numbered_pairs(&self, position: u32) -> impl Iterator<Item = (usize, PairId)> + '_ {
        // Pairs ascend, and so do their names.
        let mut name = 0;
        self.pairs(position).iter().map(move |pair| {
            while self.name_starts.get(name + 1).is_some_and(|next| next <= pair) {
                name += 1;
            }
            (name, *pair)
        })
    }

    /// Those of the positions whose series are not gone.
    pub(crate) fn living(&self, positions: Vec<u32>) -> Vec<u32> {
        positions.into_iter().filter(|position| !self.cell(*position).is_gone()).collect()
    }

    /// Looks once at what the label sets of the series at these positions are made of, table by table: the processor waits for many
    /// places of one table side by side, and one after the other for those of a single set.
    pub(crate) fn look_ahead(&self, positions: &[u32]) {
        let starts: Vec<usize> = positions
            .iter()
            .filter_map(|position| self.label_starts.get(*position as usize + 1))
            .map(|end| *end as usize)
            .collect();
        // The last pair of a series is the one that most often is its own.
        let last = |end: &usize| end.checked_sub(1).and_then(|last| self.label_pairs.get(last)).copied();
        let pairs: Vec<PairId> = starts.iter().filter_map(last).collect();
        let ends = pairs.iter().filter_map(|pair| self.values.ends.get(*pair as usize));
        let text = self.values.text.as_bytes();
        let seen = ends.filter_map(|end| text.get((*end as usize).saturating_sub(1))).fold(0, |sum, byte| sum ^ byte);
        std::hint::black_box(seen);
    }

    /// The label set of the series at `position`.
    pub(crate) fn labels(&self, position: u32) -> Labels {
        let mut room = LabelsRoom::default();
        for (name, pair) in self.numbered_pairs(position) {
            room.push(self.names.get(name), self.value(pair));
        }
        room.take()
    }

    /// How the label set of the series at `position` stands to another.
    pub(crate) fn compare(&self, position: u32, labels: &Labels) -> Ordering {
        let mut others = labels.iter_raw();
        for (name, pair) in self.numbered_pairs(position) {
            let Some(other) = others.next() else { return Ordering::Greater };
            // Texts are ordered as their bytes are.
            let names = self.names.get(name).as_bytes().cmp(other.name);
            let order = names.then_with(|| self.value(pair).as_bytes().cmp(other.value));
            if order.is_ne() {
                return order;
            }
        }
        if others.next().is_some() { Ordering::Less } else { Ordering::Equal }
    }

    /// The pairs with this name; empty if there is none.
    pub(crate) fn pairs_of_name(&self, name: &str) -> std::ops::Range<PairId> {
        match search(self.names.len(), |i| self.names.get(i).cmp(name)) {
            Ok(i) => self.name_starts[i]..self.name_starts[i + 1],
            Err(_) => 0..0,
        }
    }

    /// The pair of this name (given as its range) and value.
    pub(crate) fn pair_with_value(&self, of_name: &std::ops::Range<PairId>, value: &str) -> Option<PairId> {
        let first = of_name.start;
        let found = search(of_name.len(), |i| self.value(first + i as u32).cmp(value)).ok()?;
        Some(first + found as u32)
    }

    /// The pairs of each name.
    pub(crate) fn name_ranges(&self) -> impl Iterator<Item = std::ops::Range<PairId>> + '_ {
        self.name_starts.windows(2).map(|bounds| bounds[0]..bounds[1])
    }

    /// The pair out of those of a name that the series at `position` has.
    pub(crate) fn pair_in(&self, position: u32, of_name: &std::ops::Range<PairId>) -> Option<PairId> {
        self.pairs(position).iter().copied().find(|pair| of_name.contains(pair))
    }

    /// Series that are gone.
    pub(crate) fn gone_count(&self) -> usize {
        self.cells.iter().filter(|cell| cell.is_gone()).count()
    }

    /// Positions of the series that have a pair, ascending.
    pub(crate) fn postings(&self, pair: PairId) -> &[u32] {
        let pair = pair as usize;
        &self.postings[self.posting_starts[pair] as usize..self.posting_starts[pair + 1] as usize]
    }

    /// Number of series that have any of the pairs, which belong to one name.
    pub(crate) fn postings_len(&self, pairs: &std::ops::Range<PairId>) -> usize {
        (self.posting_starts[pairs.end as usize] - self.posting_starts[pairs.start as usize]) as usize
    }

    /// The series with exactly these labels, dead or alive.
    pub(crate) fn find(&self, labels: &Labels, hash: u64) -> impl Iterator<Item = &Arc<SeriesCell>> {
        self.lookup
            .candidates(lookup_hash(hash))
            .filter(|position| self.has_labels(*position as u32, labels))
            .map(|position| &self.cells[position])
    }

    fn has_labels(&self, position: u32, labels: &Labels) -> bool {
        self.pairs(position).iter().map(|pair| self.pair(*pair)).eq(labels.iter())
    }

    /// Bytes on the heap, without the cells that it shares.
    pub(crate) fn heap_len(&self) -> usize {
        self.names.text.len()
            + self.values.text.len()
            + size_of_val(&*self.names.ends)
            + size_of_val(&*self.values.ends)
            + size_of_val(&*self.name_starts)
            + size_of_val(&*self.posting_starts)
            + size_of_val(&*self.postings)
            + size_of_val(&*self.cells)
            + size_of_val(&*self.label_starts)
            + size_of_val(&*self.label_pairs)
            + size_of_val(&*self.lookup.slots)
    }
}

/// Number of texts that end at `at` or before; doubles its steps, so that near ones are found quickly.
fn behind(ends: &[u32], at: usize) -> usize {
    let mut step = 1;
    while step < ends.len() && ends[step] as usize <= at {
        step *= 2;
    }
    let from = step / 2;
    from + ends[from..ends.len().min(step + 1)].partition_point(|end| *end as usize <= at)
}

/// Binary search over indexes.
fn search(len: usize, compare: impl Fn(usize) -> Ordering) -> Result<usize, usize> {
    let (mut low, mut high) = (0, len);
    while low < high {
        let middle = low + (high - low) / 2;
        match compare(middle) {
            Ordering::Less => low = middle + 1,
            Ordering::Equal => return Ok(middle),
            Ordering::Greater => high = middle,
        }
    }
    Err(low)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn texts_are_searched_as_one(texts in proptest::collection::vec("[ab]{0,4}", 0..40), needle in "[ab]{1,3}") {
            let all = Texts::from_strs(texts.iter().map(String::as_str));
            for from in 0..=texts.len() {
                let mut found = Vec::new();
                all.containing(from..texts.len(), &memmem::Finder::new(&needle), |index| found.push(index));
                let want: Vec<usize> = (from..texts.len()).filter(|index| texts[*index].contains(&needle)).collect();
                prop_assert_eq!(found, want);
                prop_assert_eq!(all.run(from..texts.len()).text_len(), texts[from..].concat().len());
            }
        }
    }
}
