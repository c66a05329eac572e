//! Lines of a scrape that differs from the last one: the new sequence, and where each old line went.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::scrape::sequence::{Role, Sequence};

/// Marks a line of the last scrape that was not met yet.
pub(super) const UNSEEN: u32 = u32::MAX;
/// Bytes of a table for each entry: the index and its control byte.
const TABLE_ENTRY_BYTES: usize = 5;

/// The new lines so far.
pub(super) struct Rewrite {
    pub(super) next: Sequence,
    /// For each line of the last scrape its index in `next`, or [`UNSEEN`].
    pub(super) moved: Vec<u32>,
    /// Series lines of the last scrape by their bytes; made when the cursor misses for the first time.
    old_index: Option<HashTable<u32>>,
    /// Series lines of `next` that the last scrape did not have.
    new_index: HashTable<u32>,
}

impl Rewrite {
    /// Starts with the lines of `old` before `cursor`, all of which this scrape has.
    pub(super) fn new(old: &Sequence, cursor: usize) -> Self {
        let moved = (0..old.len()).map(|i| if i < cursor { i as u32 } else { UNSEEN }).collect();
        Self { next: old.head(cursor), moved, old_index: None, new_index: HashTable::new() }
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
        index.find(hash, |i| is_line(old, *i, raw)).map(|i| *i as usize)
    }

    /// A series line of this scrape that the last one did not have.
    pub(super) fn find_new(&self, raw: &[u8], hash: u64) -> Option<usize> {
        self.new_index.find(hash, |i| is_line(&self.next, *i, raw)).map(|i| *i as usize)
    }

    /// Makes line `index` of `next` known to [`Self::find_new`].
    pub(super) fn index_new(&mut self, index: usize, hash: u64, hasher: &RandomState) {
        let next = &self.next;
        self.new_index.insert_unique(hash, index as u32, |i| hash_line(next, *i, hasher));
    }
}

fn index_series(lines: &Sequence, hasher: &RandomState) -> HashTable<u32> {
    let mut index = HashTable::with_capacity(lines.len());
    for (i, entry) in (0_u32..).zip(lines.iter()) {
        if matches!(entry.role(), Role::Series | Role::Dropped) {
            index.insert_unique(hash_line(lines, i, hasher), i, |i| hash_line(lines, *i, hasher));
        }
    }
    index
}

fn is_line(lines: &Sequence, index: u32, raw: &[u8]) -> bool {
    lines.get(index as usize).is_some_and(|entry| lines.raw(entry) == raw)
}

fn hash_line(lines: &Sequence, index: u32, hasher: &RandomState) -> u64 {
    lines.get(index as usize).map_or(0, |entry| hasher.hash_one(lines.raw(entry)))
}
