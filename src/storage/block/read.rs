//! An open block.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::read::Unlimited;
use crate::storage::block::chunks::{ChunkMeta, ChunkReader, ReadAhead};
use crate::storage::block::index_read::{IndexReader, SymbolMemo};
use crate::storage::block::meta::BlockMeta;
use crate::storage::block::pages::PageCache;
use crate::storage::block::select::select_ids;
use crate::storage::block::tombstones::Tombstones;
use crate::storage::block::{BlockError, CHUNKS_DIR, INDEX_FILE};
use crate::storage::fs::Fs;

/// An open block. Its files stay readable while it is held, even if its folder is removed.
pub struct Block {
    meta: BlockMeta,
    dir: PathBuf,
    pub(crate) index: Arc<IndexReader>,
    pub(crate) chunks: Arc<ChunkReader>,
    pub(crate) tombstones: Tombstones,
    /// Bytes of index and chunks.
    data_len: u64,
    len: u64,
}

impl std::fmt::Debug for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Block").field("meta", &self.meta).finish_non_exhaustive()
    }
}

impl Block {
    /// Opens the block in `dir` and checks all that its index lists at once; series, postings and chunks are checked as they are
    /// read.
    pub fn open(fs: &dyn Fs, dir: &Path, cache: &Arc<PageCache>) -> Result<Self, BlockError> {
        let meta = BlockMeta::read(fs, dir)?;
        Self::open_as(fs, dir, meta, cache)
    }

    pub(super) fn open_as(
        fs: &dyn Fs,
        dir: &Path,
        meta: BlockMeta,
        cache: &Arc<PageCache>,
    ) -> Result<Self, BlockError> {
        let index = IndexReader::open(fs, &dir.join(INDEX_FILE), cache)?;
        let chunks = ChunkReader::open(fs, &dir.join(CHUNKS_DIR))?;
        let (tombstones, tombstones_len) = Tombstones::read(fs, dir)?;
        let data_len = index.len() + chunks.len();
        let len = data_len + tombstones_len + meta.to_json().len() as u64;
        let (index, chunks) = (Arc::new(index), Arc::new(chunks));
        Ok(Self { meta, dir: dir.to_path_buf(), index, chunks, tombstones, data_len, len })
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
            data_len: self.data_len,
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
    pub fn each_series(
        &self,
        matchers: &[Matcher],
        take: &mut dyn FnMut(&Labels, &[ChunkMeta]) -> Result<(), String>,
    ) -> Result<usize, String> {
        let ids = select_ids(&self.index, matchers, &Unlimited).map_err(|error| error.to_string())?;
        let mut memo = SymbolMemo::default();
        for id in &ids {
            let series = self.index.series(*id, &mut memo).map_err(|error| error.to_string())?;
            take(&series.labels, &series.chunks)?;
        }
        Ok(ids.len())
    }

    /// Calls `take` with encoding and data of each of a series' chunks.
    pub fn each_chunk(
        &self,
        chunks: &[ChunkMeta],
        take: &mut dyn FnMut(u8, &[u8]) -> Result<(), String>,
    ) -> Result<(), String> {
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
