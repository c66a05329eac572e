//! An immutable part of the index. Series stand in label order, so selections come out sorted; label pairs are numbered
//! in (name, value) order, so comparing two series means comparing two runs of `u32`.
//! ```text
//! names      name → its first pair                      pairs of one name are neighbours, sorted by value
//! pairs      pair → value text, postings                postings: positions of series, ascending
//! series     position → cell, pairs                     sorted by labels
//! lookup     hash of labels → position                  open addressing
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::labels::{Labels, LabelsRoom};
use crate::storage::head::column::SeriesCell;

/// Number of a (name, value) pair within a segment.
pub(crate) type PairId = u32;

/// Names a segment for as long as the process lives: no other gets the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentId(u64);

impl Default for SegmentId {
    /// A new one.
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
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

    /// Name and value of a pair.
    pub(crate) fn pair(&self, pair: PairId) -> (&str, &str) {
        let name = self.name_starts.partition_point(|start| *start <= pair) - 1;
        (self.names.get(name), self.value(pair))
    }

    /// The label set of the series at `position`.
    pub(crate) fn labels(&self, position: u32) -> Labels {
        let mut room = LabelsRoom::default();
        // Pairs ascend, and so do their names.
        let mut name = 0;
        for pair in self.pairs(position) {
            while self.name_starts.get(name + 1).is_some_and(|next| next <= pair) {
                name += 1;
            }
            room.push(self.names.get(name), self.value(*pair));
        }
        room.take()
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

    /// The pair by which the series at `position` has this label.
    pub(crate) fn pair_of_name(&self, position: u32, name: &str) -> Option<PairId> {
        let of_name = self.pairs_of_name(name);
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

/// Binary search over indexes.
fn search(len: usize, compare: impl Fn(usize) -> std::cmp::Ordering) -> Result<usize, usize> {
    let (mut low, mut high) = (0, len);
    while low < high {
        let middle = low + (high - low) / 2;
        match compare(middle) {
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Equal => return Ok(middle),
            std::cmp::Ordering::Greater => high = middle,
        }
    }
    Err(low)
}
