//! Series that were written before, by a hash of their labels as they were encoded: a known series needs neither labels
//! nor a lookup by them.
//!
//! The hash has 128 bits and a random seed, and stands for the bytes: among ten million encodings the chance that any two
//! collide is below 10⁻²⁴. Entries stand in the order in which they came; senders repeat theirs, so the entry after the
//! last one found is mostly the next one wanted.

use hashbrown::HashTable;
use parking_lot::{RwLock, RwLockReadGuard};
use twox_hash::XxHash3_128;

use crate::model::append::{SeriesHandle, ShardId};
use crate::model::random::Random;
use crate::model::sample::SeriesRef;

/// Entries in one page: growing never moves what is there.
const PAGE_LEN: usize = 1 << 12;
/// Parts of the table of hashes, so that no single growth takes long.
const PARTS: usize = 64;
const SHARD_BITS: u32 = 16;
/// Entries after which a long lookup lets writers in.
const FINDS_PER_TURN: u32 = 1 << 11;
/// Entries that are always kept.
const LEN_MIN: u64 = 1 << 14;

/// A hash of encoded labels. Those of the two versions of the protocol are never equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CacheKey([u64; 2]);

#[derive(Clone, Copy, Debug)]
struct Entry {
    key: CacheKey,
    /// Reference and shard.
    handle: u64,
}

#[derive(Default)]
struct Table {
    pages: Vec<Vec<Entry>>,
    len: usize,
    by_key: Vec<HashTable<u32>>,
}

/// The series of all senders. Bounded by what the head holds.
pub struct SeriesCache {
    seeds: [u64; 2],
    table: RwLock<Table>,
}

impl std::fmt::Debug for SeriesCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SeriesCache").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Default for SeriesCache {
    fn default() -> Self {
        Self::new()
    }
}

impl SeriesCache {
    /// An empty cache.
    pub fn new() -> Self {
        let mut random = Random::from_process();
        Self { seeds: [random.next_u64(), random.next_u64()], table: RwLock::default() }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.table.read().len
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The key of labels as remote write 1.0 encodes them.
    #[inline]
    pub(super) fn key_v1(&self, labels: &[u8]) -> CacheKey {
        key(self.seeds[0], labels)
    }

    /// The key of labels with each of their strings after its length.
    #[inline]
    pub(super) fn key_v2(&self, labels: &[u8]) -> CacheKey {
        key(self.seeds[1], labels)
    }

    pub(super) fn reader(&self) -> Reader<'_> {
        Reader { table: self.table.read(), last: 0, finds: 0 }
    }

    /// Enters series; they replace others of the same key. When the cache holds twice as many as the head, which has
    /// `series_in_head`, it begins anew.
    pub(super) fn enter(&self, found: impl Iterator<Item = (CacheKey, SeriesHandle)>, series_in_head: u64) {
        let mut dropped = None;
        let mut table = self.table.write();
        for (key, handle) in found {
            if series_in_head.saturating_mul(2).max(LEN_MIN) <= table.len as u64 {
                dropped = Some(std::mem::take(&mut *table));
            }
            table.enter(Entry { key, handle: pack(handle) });
        }
        drop(table);
        // Giving so much memory back takes time; nobody waits for it.
        drop(dropped);
    }
}

fn key(seed: u64, labels: &[u8]) -> CacheKey {
    let wide = XxHash3_128::oneshot_with_seed(seed, labels);
    CacheKey([(wide >> 64) as u64, wide as u64])
}

fn pack(handle: SeriesHandle) -> u64 {
    handle.series.0 << SHARD_BITS | u64::from(handle.shard.0)
}

fn unpack(packed: u64) -> SeriesHandle {
    SeriesHandle { series: SeriesRef(packed >> SHARD_BITS), shard: ShardId((packed & 0xffff) as u16) }
}

fn part_of(key: CacheKey) -> usize {
    key.0[0] as usize % PARTS
}

impl Table {
    #[inline]
    fn get(&self, at: usize) -> Option<&Entry> {
        self.pages.get(at / PAGE_LEN)?.get(at % PAGE_LEN)
    }

    fn find(&self, key: CacheKey) -> Option<usize> {
        let same = |at: &u32| self.get(*at as usize).is_some_and(|entry| entry.key == key);
        self.by_key.get(part_of(key))?.find(key.0[1], same).map(|at| *at as usize)
    }

    fn enter(&mut self, entry: Entry) {
        if let Some(at) = self.find(entry.key) {
            if let Some(known) = self.pages.get_mut(at / PAGE_LEN).and_then(|page| page.get_mut(at % PAGE_LEN)) {
                *known = entry;
            }
            return;
        }
        // Four billion entries do not fit into memory; should they, the others do without.
        let Ok(at) = u32::try_from(self.len) else { return };
        if self.by_key.is_empty() {
            self.by_key.resize_with(PARTS, HashTable::new);
        }
        match self.pages.last_mut().filter(|page| page.len() < PAGE_LEN) {
            Some(page) => page.push(entry),
            None => {
                // The first page grows as it is needed.
                let mut page = Vec::with_capacity(if self.pages.is_empty() { 0 } else { PAGE_LEN });
                page.push(entry);
                self.pages.push(page);
            }
        }
        self.len += 1;
        let Self { pages, by_key, .. } = self;
        let hash = |at: &u32| {
            let at = *at as usize;
            pages.get(at / PAGE_LEN).and_then(|page| page.get(at % PAGE_LEN)).map_or(0, |entry| entry.key.0[1])
        };
        if let Some(part) = by_key.get_mut(part_of(entry.key)) {
            part.insert_unique(entry.key.0[1], at, hash);
        }
    }
}

/// Lookups of one request.
pub(super) struct Reader<'a> {
    table: RwLockReadGuard<'a, Table>,
    last: usize,
    finds: u32,
}

impl Reader<'_> {
    /// The series with this key.
    #[inline]
    pub(super) fn find(&mut self, key: CacheKey) -> Option<SeriesHandle> {
        self.finds += 1;
        if self.finds == FINDS_PER_TURN {
            self.finds = 0;
            RwLockReadGuard::bump(&mut self.table);
        }
        if let Some(entry) = self.table.get(self.last + 1).filter(|entry| entry.key == key) {
            self.last += 1;
            return Some(unpack(entry.handle));
        }
        let at = self.table.find(key)?;
        self.last = at;
        self.table.get(at).map(|entry| unpack(entry.handle))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handle(n: u64) -> SeriesHandle {
        SeriesHandle { series: SeriesRef(n), shard: ShardId((n % 7) as u16) }
    }

    fn key_of(cache: &SeriesCache, n: u64) -> CacheKey {
        cache.key_v1(format!("labels of {n}").as_bytes())
    }

    #[test]
    fn what_was_entered_is_found_in_any_order() {
        let cache = SeriesCache::new();
        let all = 0..3 * PAGE_LEN as u64;
        cache.enter(all.clone().map(|n| (key_of(&cache, n), handle(n))), 1 << 20);
        let mut reader = cache.reader();
        for n in all.clone().chain(all.clone().rev()).chain([5, 5, 9000, 1]) {
            assert_eq!(reader.find(key_of(&cache, n)), Some(handle(n)));
        }
        assert_eq!(reader.find(key_of(&cache, 1 << 40)), None);
        drop(reader);
        cache.enter([(key_of(&cache, 3), handle(77))].into_iter(), 1 << 20);
        assert_eq!((cache.reader().find(key_of(&cache, 3)), cache.len()), (Some(handle(77)), 3 * PAGE_LEN));
    }

    #[test]
    fn it_holds_no_more_than_twice_what_the_head_holds() {
        let cache = SeriesCache::new();
        for n in 0..5 * LEN_MIN {
            cache.enter([(key_of(&cache, n), handle(n))].into_iter(), LEN_MIN);
        }
        assert_eq!(cache.len() as u64, LEN_MIN);
        assert_eq!(cache.reader().find(key_of(&cache, 1)), None);
    }

    #[test]
    fn versions_have_keys_of_their_own() {
        let cache = SeriesCache::new();
        assert_ne!(cache.key_v1(b"a"), cache.key_v2(b"a"));
    }
}
