//! An open block.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::storage::block::chunks::ChunkReader;
use crate::storage::block::index_read::IndexReader;
use crate::storage::block::meta::BlockMeta;
use crate::storage::block::pages::PageCache;
use crate::storage::block::tombstones::Tombstones;
use crate::storage::block::{BlockError, CHUNKS_DIR, INDEX_FILE};
use crate::storage::fs::Fs;

/// An open block. Its files stay readable while it is held, even if its folder is removed.
pub struct Block {
    meta: BlockMeta,
    dir: PathBuf,
    pub(crate) index: IndexReader,
    pub(crate) chunks: ChunkReader,
    pub(crate) tombstones: Tombstones,
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
        let len = index.len() + chunks.len() + tombstones_len + meta.to_json().len() as u64;
        Ok(Self { meta, dir: dir.to_path_buf(), index, chunks, tombstones, len })
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

    /// True if a read of `min ..= max` has to look at it.
    pub fn overlaps(&self, min: i64, max: i64) -> bool {
        self.meta.min_time <= max && min < self.meta.max_time
    }
}
