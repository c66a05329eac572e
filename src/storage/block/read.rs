//! An open block.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::storage::block::chunks::ChunkReader;
use crate::storage::block::index_read::IndexReader;
use crate::storage::block::meta::BlockMeta;
use crate::storage::block::pages::PageCache;
use crate::storage::block::tombstones::{TOMBSTONES_FILE, Tombstones};
use crate::storage::block::verify::{Content, verify};
use crate::storage::block::{BlockError, CHUNKS_DIR, INDEX_FILE};
use crate::storage::fs::Fs;
use crate::telemetry::metrics::Counter;

/// Places of damage that are remembered of one block; more are counted, but not logged.
const KNOWN_MAX: usize = 100;

/// An open block. Its files stay readable while it is held, even if its folder is removed.
pub struct Block {
    meta: BlockMeta,
    dir: PathBuf,
    pub(crate) index: IndexReader,
    pub(crate) chunks: ChunkReader,
    pub(crate) tombstones: Tombstones,
    content: Content,
    len: u64,
    /// Damage that reads have met, in words.
    met: Mutex<BTreeSet<String>>,
    corruptions: Option<Counter>,
}

impl std::fmt::Debug for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Block").field("meta", &self.meta).finish_non_exhaustive()
    }
}

impl Block {
    /// Opens the block in `dir` and checks all that its index lists at once, and that its parts fit each other; what of it is large
    /// is checked as it is read.
    pub fn open(fs: &dyn Fs, dir: &Path, cache: &Arc<PageCache>) -> Result<Self, BlockError> {
        let meta = BlockMeta::read(fs, dir)?;
        Self::open_as(fs, dir, meta, cache, None)
    }

    pub(super) fn open_as(
        fs: &dyn Fs,
        dir: &Path,
        meta: BlockMeta,
        cache: &Arc<PageCache>,
        corruptions: Option<Counter>,
    ) -> Result<Self, BlockError> {
        let index = IndexReader::open(fs, &dir.join(INDEX_FILE), cache)?;
        let chunks = ChunkReader::open(fs, &dir.join(CHUNKS_DIR))?;
        let (tombstones, tombstones_len) = Tombstones::read(fs, dir)?;
        if tombstones_len == 0 && 0 < meta.stats.num_tombstones {
            // Without them, what was deleted would be back.
            return Err(BlockError::corrupt(&dir.join(TOMBSTONES_FILE), 0, "the file is missing"));
        }
        let content = verify(dir, &meta, &index, &chunks)?;
        let len = index.len() + chunks.len() + tombstones_len + meta.to_json().len() as u64;
        let (dir, met) = (dir.to_path_buf(), Mutex::default());
        Ok(Self { meta, dir, index, chunks, tombstones, content, len, met, corruptions })
    }

    /// What it is.
    pub fn meta(&self) -> &BlockMeta {
        &self.meta
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The time before which it holds all samples, by what its index lists: a description that is damaged may say more.
    pub fn holds_until(&self) -> i64 {
        self.content.span.map_or(i64::MIN, |(_, max_t)| self.meta.max_time.min(max_t.saturating_add(1)))
    }

    /// Takes note of damage that a read has met: logged the first time.
    pub(crate) fn report(&self, damage: &str) {
        let mut met = self.met.lock();
        if KNOWN_MAX <= met.len() || !met.insert(damage.to_owned()) {
            return;
        }
        if let Some(corruptions) = &self.corruptions {
            corruptions.inc();
        }
        tracing::error!(component = "tsdb", block = %self.meta.ulid, err = damage,
            "A block is damaged in a part; queries that need it fail, the block is kept as it is");
    }

    /// Damage that reads have met so far.
    pub fn damage(&self) -> Vec<String> {
        self.met.lock().iter().cloned().collect()
    }

    /// Bytes of its files.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True if it holds no series.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Its index.
    pub fn index(&self) -> &IndexReader {
        &self.index
    }

    /// True if a read of `min ..= max` has to look at it.
    pub fn overlaps(&self, min: i64, max: i64) -> bool {
        self.meta.min_time <= max && min < self.meta.max_time
    }
}
