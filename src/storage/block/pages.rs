//! Pages of index files, read at their places and kept in a bounded cache that all blocks share.
//!
//! Why not a map: a file that shrinks or cannot be read under a map ends the process with a signal; a read ends in an error.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::model::labels::Labels;
use crate::storage::block::chunks::ChunkMeta;
use crate::storage::block::index_read::Next;
use crate::storage::block::pairing::Pairings;
use crate::storage::block::{BlockError, IoContext, read_at};
use crate::storage::fs::{File, Fs};
use crate::storage::selections::Selections;

/// Bytes of a page.
const PAGE_LEN: u64 = 16 << 10;

/// Bytes of selections that are remembered.
const KNOWN_LEN_MAX: usize = 16 << 20;

/// What selectors found in indexes, by the number of the file.
pub(super) type KnownInBlocks = Selections<u64, KnownInBlock>;

/// A series of a block as its index names it.
#[derive(Debug)]
pub(super) struct KnownInBlock {
    pub(super) id: u32,
    pub(super) labels: Labels,
    pub(super) chunks: Box<[ChunkMeta]>,
}

/// Pages that were read lately, and what selectors and listings found in them.
pub struct PageCache {
    pages_max: usize,
    pub(super) known: KnownInBlocks,
    pairings: Pairings,
    next_file: AtomicU64,
    state: Mutex<CacheState>,
}

#[derive(Default)]
struct CacheState {
    pages: HashMap<(u64, u64), Cached>,
    /// Oldest first; a page that was used since gets another turn.
    turns: VecDeque<(u64, u64)>,
}

struct Cached {
    data: Arc<[u8]>,
    used: bool,
}

impl PageCache {
    /// A cache of at most about `len_max` bytes.
    pub fn new(len_max: u64) -> Arc<Self> {
        let pages_max = usize::try_from(len_max / PAGE_LEN).unwrap_or(usize::MAX).max(16);
        let known = KnownInBlocks::new(KNOWN_LEN_MAX);
        let pairings = Pairings::default();
        Arc::new(Self { pages_max, known, pairings, next_file: AtomicU64::new(0), state: Mutex::default() })
    }

    /// Bytes that it holds at most now.
    pub fn held_len(&self) -> u64 {
        self.state.lock().pages.len() as u64 * PAGE_LEN
    }

    fn get(&self, key: (u64, u64)) -> Option<Arc<[u8]>> {
        let mut state = self.state.lock();
        let cached = state.pages.get_mut(&key)?;
        cached.used = true;
        Some(Arc::clone(&cached.data))
    }

    fn put(&self, key: (u64, u64), data: &Arc<[u8]>) {
        let mut state = self.state.lock();
        if state.pages.insert(key, Cached { data: Arc::clone(data), used: false }).is_none() {
            state.turns.push_back(key);
        }
        while self.pages_max < state.pages.len() {
            let Some(oldest) = state.turns.pop_front() else { break };
            match state.pages.get_mut(&oldest) {
                Some(cached) if cached.used => {
                    cached.used = false;
                    state.turns.push_back(oldest);
                }
                _ => drop(state.pages.remove(&oldest)),
            }
        }
    }
}

/// A file that is read by pages.
pub(super) struct PagedFile {
    file: Box<dyn File>,
    path: PathBuf,
    len: u64,
    id: u64,
    cache: Arc<PageCache>,
}

impl PagedFile {
    pub(super) fn open(fs: &dyn Fs, path: &Path, cache: &Arc<PageCache>) -> Result<Self, BlockError> {
        let file = fs.open(path).context("open", path)?;
        let len = file.len().context("read", path)?;
        let id = cache.next_file.fetch_add(1, Ordering::Relaxed);
        Ok(Self { file, path: path.to_path_buf(), len, id, cache: Arc::clone(cache) })
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn corrupt(&self, offset: u64, reason: impl Into<String>) -> BlockError {
        BlockError::corrupt(&self.path, offset, reason)
    }

    /// What is remembered of all files, and the number of this one there.
    pub(super) fn known(&self) -> (&KnownInBlocks, u64) {
        (&self.cache.known, self.id)
    }

    /// Which values occur together in all files, as far as it is remembered, and the number of this one there.
    pub(super) fn pairings(&self) -> (&Pairings, u64) {
        (&self.cache.pairings, self.id)
    }

    /// `len` bytes from `offset` on, past the cache: for what is read once. Errors before it allocates if the file is shorter.
    pub(super) fn read_once(&self, offset: u64, len: u64) -> Result<Vec<u8>, BlockError> {
        if self.len.saturating_sub(offset) < len {
            return Err(self.corrupt(offset, format!("{len} bytes are asked for, the file has {}", self.len)));
        }
        let mut data =
            vec![0; usize::try_from(len).map_err(|_| self.corrupt(offset, "a section does not fit in memory"))?];
        let read = read_at(&*self.file, &self.path, &mut data, offset)?;
        if read < data.len() {
            return Err(self.corrupt(offset + read as u64, "the file has become shorter"));
        }
        Ok(data)
    }

    /// Reads on from `offset`.
    pub(super) fn cursor(&self, offset: u64) -> Cursor<'_> {
        self.cursor_on(offset, HeldPage::default())
    }

    /// Reads on from `offset`, with a page of this file that an earlier cursor had.
    pub(super) fn cursor_on(&self, offset: u64, page: HeldPage) -> Cursor<'_> {
        Cursor { file: self, page: page.0, at: offset }
    }

    fn page(&self, number: u64) -> Result<Arc<[u8]>, BlockError> {
        let key = (self.id, number);
        if let Some(page) = self.cache.get(key) {
            return Ok(page);
        }
        let offset = number * PAGE_LEN;
        let page: Arc<[u8]> = self.read_once(offset, PAGE_LEN.min(self.len.saturating_sub(offset)))?.into();
        self.cache.put(key, &page);
        Ok(page)
    }
}

/// The page that a cursor was at.
#[derive(Default)]
pub(super) struct HeldPage(Option<(u64, Arc<[u8]>)>);

/// Reads from a place on; errors at the end of the file.
pub(super) struct Cursor<'a> {
    file: &'a PagedFile,
    page: Option<(u64, Arc<[u8]>)>,
    at: u64,
}

impl Cursor<'_> {
    /// The page that it is at, for the next cursor of this file.
    pub(super) fn into_page(self) -> HeldPage {
        HeldPage(self.page)
    }

    /// What is left of the current page.
    pub(super) fn rest(&mut self) -> Result<&[u8], BlockError> {
        let number = self.at / PAGE_LEN;
        if self.page.as_ref().is_none_or(|(current, _)| *current != number) {
            if self.file.len <= self.at {
                return Err(self.file.corrupt(self.at, "the file ends"));
            }
            self.page = Some((number, self.file.page(number)?));
        }
        let from = usize::try_from(self.at % PAGE_LEN).unwrap_or(0);
        let rest = self.page.as_ref().and_then(|(_, page)| page.get(from..)).unwrap_or(&[]);
        if rest.is_empty() { Err(self.file.corrupt(self.at, "the file ends")) } else { Ok(rest) }
    }

    pub(super) fn u8(&mut self) -> Result<u8, BlockError> {
        let byte = self.rest()?.first().copied().unwrap_or(0);
        self.at += 1;
        Ok(byte)
    }

    pub(super) fn uvarint(&mut self) -> Result<u64, BlockError> {
        let from = self.at;
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.u8()?;
            if shift == 63 && 1 < byte {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.file.corrupt(from, "a varint does not end"))
    }

    /// Its place in the file.
    pub(super) fn place(&self) -> u64 {
        self.at
    }

    /// Calls `take` with the next `len` bytes as they stand on pages, piece by piece. Errors if the file is shorter.
    pub(super) fn pass(&mut self, len: u64, take: &mut dyn FnMut(&[u8]) -> Next) -> Result<(), BlockError> {
        if self.file.len.saturating_sub(self.at) < len {
            return Err(self.file.corrupt(self.at, format!("{len} bytes are announced, the file ends before")));
        }
        let end = self.at + len;
        while self.at < end {
            let left = usize::try_from(end - self.at).unwrap_or(usize::MAX);
            let rest = self.rest()?;
            let piece = rest.get(..left).unwrap_or(rest);
            let (n, next) = (piece.len(), take(piece));
            self.at += n as u64;
            if next == Next::Stop {
                break;
            }
        }
        Ok(())
    }

    /// Goes to another place.
    pub(super) fn move_to(&mut self, at: u64) {
        self.at = at;
    }

    pub(super) fn skip(&mut self, len: u64) {
        self.at = self.at.saturating_add(len);
    }

    /// Appends the next `len` bytes to `out`. Errors before it allocates if the file is shorter.
    pub(super) fn bytes(&mut self, len: u64, out: &mut Vec<u8>) -> Result<(), BlockError> {
        if self.file.len.saturating_sub(self.at) < len {
            return Err(self.file.corrupt(self.at, format!("{len} bytes are announced, the file ends before")));
        }
        let mut left = usize::try_from(len).unwrap_or(usize::MAX);
        while 0 < left {
            let rest = self.rest()?;
            let taken = rest.get(..left).unwrap_or(rest);
            let n = taken.len();
            out.extend_from_slice(taken);
            left -= n;
            self.at += n as u64;
        }
        Ok(())
    }

    /// The next text, into `out`.
    pub(super) fn text<'b>(&mut self, out: &'b mut Vec<u8>) -> Result<&'b str, BlockError> {
        let from = self.at;
        let len = self.uvarint()?;
        out.clear();
        self.bytes(len, out)?;
        std::str::from_utf8(out).map_err(|_| self.file.corrupt(from, "a text is not UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::fs::sim::SimFs;

    #[test]
    fn pages_are_read_once_and_the_cache_stays_within_its_bound() {
        let sim = SimFs::new();
        let data: Vec<u8> = (0..100 * PAGE_LEN).map(|i| (i / 7) as u8).collect();
        sim.put(Path::new("/index"), &data).unwrap();
        let cache = PageCache::new(20 * PAGE_LEN);
        let file = PagedFile::open(&sim, Path::new("/index"), &cache).unwrap();
        let mut out = Vec::new();
        for from in [0, PAGE_LEN - 3, 50 * PAGE_LEN + 1, 3] {
            out.clear();
            file.cursor(from).bytes(PAGE_LEN * 3, &mut out).unwrap();
            let from = usize::try_from(from).unwrap();
            assert_eq!(out, data[from..from + out.len()]);
        }
        file.cursor(0).bytes(file.len(), &mut out).unwrap();
        assert!(cache.held_len() <= 20 * PAGE_LEN);
        assert!(file.cursor(file.len() - 1).bytes(2, &mut out).is_err());
        assert!(file.cursor(file.len()).u8().is_err());
    }
}
