//! An open block.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::read::Unlimited;
use crate::storage::block::chunks::{ChunkMeta, ChunkReader, ReadAhead};
use crate::storage::block::index_read::{IndexReader, SymbolMemo};
use crate::storage::block::meta::BlockMeta;
use crate::storage::block::pages::PageCache;
use crate::storage::block::select::select_ids;
use crate::storage::block::tombstones::{TOMBSTONES_FILE, Tombstones};
use crate::storage::block::verify::{Content, verify};
use crate::storage::block::{BlockError, CHUNKS_DIR, INDEX_FILE};
use crate::storage::fs::Fs;
use crate::telemetry::metrics::Counter;

/// Places of damage that are remembered of one block; more are counted, but not logged.
const KNOWN_MAX: usize = 100;

/// Takes labels and chunks of a series.
pub type SeriesSink<'a> = dyn FnMut(&Labels, &[ChunkMeta]) -> Result<(), String> + 'a;
/// Takes encoding and data of a chunk.
pub type ChunkSink<'a> = dyn FnMut(u8, &[u8]) -> Result<(), String> + 'a;

/// An open block. Its files stay readable while it is held, even if its folder is removed.
pub struct Block {
    meta: BlockMeta,
    dir: PathBuf,
    pub(crate) index: Arc<IndexReader>,
    pub(crate) chunks: Arc<ChunkReader>,
    pub(crate) tombstones: Tombstones,
    content: Content,
    /// Bytes of index and chunks.
    data_len: u64,
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
        let data_len = index.len() + chunks.len();
        let len = data_len + tombstones_len + meta.to_json().len() as u64;
        let (index, chunks) = (Arc::new(index), Arc::new(chunks));
        let (dir, met) = (dir.to_path_buf(), Mutex::default());
        Ok(Self { meta, dir, index, chunks, tombstones, content, data_len, len, met, corruptions })
    }

    /// The same block with other deleted ranges, of which the file has `tombstones_len` bytes.
    pub(super) fn with_tombstones(&self, tombstones: Tombstones, tombstones_len: u64, meta: BlockMeta) -> Self {
        Self {
            len: self.data_len + tombstones_len + meta.to_json().len() as u64,
            meta,
            dir: self.dir.clone(),
            index: Arc::clone(&self.index),
            chunks: Arc::clone(&self.chunks),
            tombstones,
            content: self.content,
            data_len: self.data_len,
            met: Mutex::new(self.met.lock().clone()),
            corruptions: self.corruptions.clone(),
        }
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

    /// Calls `take` with the labels and chunks of each series that fulfils all `matchers`, in their order; returns how many.
    pub fn each_series(&self, matchers: &[Matcher], take: &mut SeriesSink<'_>) -> Result<usize, String> {
        let ids = select_ids(&self.index, matchers, &Unlimited).map_err(|error| error.to_string())?;
        let mut memo = SymbolMemo::default();
        for id in &ids {
            let series = self.index.series(*id, &mut memo).map_err(|error| error.to_string())?;
            take(&series.labels, &series.chunks)?;
        }
        Ok(ids.len())
    }

    /// Calls `take` with encoding and data of each of a series' chunks.
    pub fn each_chunk(&self, chunks: &[ChunkMeta], take: &mut ChunkSink<'_>) -> Result<(), String> {
        let until = chunks.last().map_or(0, |chunk| chunk.reference);
        let mut ahead = ReadAhead::default();
        for chunk in chunks {
            let read = self.chunks.read(chunk.reference, until, &mut ahead);
            let (encoding, data) = read.map_err(|error| error.to_string())?;
            take(encoding, data)?;
        }
        Ok(())
    }

    /// What is deleted of it.
    pub fn tombstones(&self) -> &Tombstones {
        &self.tombstones
    }

    /// True if a read of `min ..= max` has to look at it.
    pub fn overlaps(&self, min: i64, max: i64) -> bool {
        self.meta.min_time <= max && min < self.meta.max_time
    }
}
