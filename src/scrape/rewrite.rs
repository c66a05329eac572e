//! Lines of a scrape that differs from the last one: the new sequence, and where each old line went.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::scrape::error::ScrapeError;
use crate::scrape::sequence::{Entry, Line, Role, Sequence};

/// Marks a line of the last scrape that was not met yet.
pub(super) const UNSEEN: u32 = u32::MAX;
/// Bytes of a table for each entry: the hash, the index and its control byte.
const TABLE_ENTRY_BYTES: usize = size_of::<Indexed>() + 1;

/// A line by the hash of its bytes.
#[derive(Clone, Copy)]
struct Indexed {
    hash: u64,
    index: u32,
}

/// The new lines so far.
pub(super) struct Rewrite {
    pub(super) next: Sequence,
    /// For each line of the last scrape its index in `next`, or [`UNSEEN`].
    pub(super) moved: Vec<u32>,
    /// Series lines of the last scrape by their bytes; made when the cursor misses for the first time.
    old_index: Option<HashTable<Indexed>>,
    /// Series lines of `next` that the last scrape did not have.
    new_index: HashTable<Indexed>,
    /// The line that was taken over last.
    kept: Line,
}

impl Rewrite {
    /// Starts with the lines of `old` before `cursor`, all of which this scrape has.
    pub(super) fn new(old: &Sequence, cursor: usize) -> Self {
        let moved = (0..old.len()).map(|i| if i < cursor { i as u32 } else { UNSEEN }).collect();
        Self { next: old.head(cursor), moved, old_index: None, new_index: HashTable::new(), kept: Line::default() }
    }

    /// Takes a line of the last scrape over; answers its index in this one.
    pub(super) fn keep(&mut self, old: &Sequence, index: usize, entry: Entry) -> Result<usize, ScrapeError> {
        let place = self.next.push_copy(self.kept.read(old, index), entry)?;
        if let Some(moved) = self.moved.get_mut(index) {
            *moved = place as u32;
        }
        Ok(place)
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        let indexed = self.new_index.capacity() + self.old_index.as_ref().map_or(0, HashTable::capacity);
        self.next.heap_bytes() + self.moved.capacity() * size_of::<u32>() + indexed * TABLE_ENTRY_BYTES
    }

    /// Notes that these lines are tracked now, or no longer.
    pub(super) fn flip_tracked(&mut self, lines: &[u32]) {
        for line in lines {
            if let Some(entry) = self.next.get_mut(*line as usize) {
                entry.set_tracked(!entry.tracked());
            }
        }
    }

    /// A series line of the last scrape. A dropped series may stand there more than once; any of its lines will do.
    pub(super) fn find_old(&mut self, old: &Sequence, raw: &[u8], hash: u64, hasher: &RandomState) -> Option<usize> {
        let index = self.old_index.get_or_insert_with(|| index_series(old, hasher));
        index.find(hash, |line| line.is(hash, raw, old)).map(|line| line.index as usize)
    }

    /// A series line of this scrape that the last one did not have.
    pub(super) fn find_new(&self, raw: &[u8], hash: u64) -> Option<usize> {
        self.new_index.find(hash, |line| line.is(hash, raw, &self.next)).map(|line| line.index as usize)
    }

    /// Makes line `index` of `next` known to [`Self::find_new`].
    pub(super) fn index_new(&mut self, index: usize, hash: u64) {
        self.new_index.insert_unique(hash, Indexed { hash, index: index as u32 }, |line| line.hash);
    }
}

impl Indexed {
    fn is(&self, hash: u64, raw: &[u8], lines: &Sequence) -> bool {
        self.hash == hash && lines.raw(self.index as usize) == raw
    }
}

fn index_series(lines: &Sequence, hasher: &RandomState) -> HashTable<Indexed> {
    let mut table = HashTable::with_capacity(lines.len());
    let mut line = Line::default();
    for (index, entry) in (0_u32..).zip(lines.iter()) {
        if matches!(entry.role(), Role::Series | Role::Dropped) {
            let hash = hasher.hash_one(line.read(lines, index as usize));
            table.insert_unique(hash, Indexed { hash, index }, |line| line.hash);
        }
    }
    table
}
