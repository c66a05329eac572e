//! Writes a block: into a folder with a temporary name, made durable file by file, then renamed in one step.

use std::path::{Path, PathBuf};

use crate::model::labels::Labels;
use crate::storage::block::chunks::{ChunkData, ChunkWriter};
use crate::storage::block::index_write::IndexWriter;
use crate::storage::block::meta::BlockMeta;
use crate::storage::block::tombstones::Tombstones;
use crate::storage::block::{BlockError, CHUNKS_DIR, CREATION_SUFFIX, INDEX_FILE, IoContext};
use crate::storage::fs::{Fs, SharedFs};

/// Writes a file of `dir` so that it is there whole, durably, or as before.
pub(super) fn write_in_one_step(fs: &dyn Fs, dir: &Path, name: &str, data: &[u8]) -> Result<(), BlockError> {
    let (path, temporary) = (dir.join(name), dir.join(format!("{name}.tmp")));
    let file = fs.create(&temporary).context("create", &temporary)?;
    file.write_all_at(data, 0).context("write", &temporary)?;
    file.sync_data().context("sync", &temporary)?;
    fs.rename(&temporary, &path).context("rename", &temporary)?;
    fs.sync_dir(dir).context("sync", dir)
}

/// A block that is being written. Dropped before it is published, it is removed.
pub struct BlockWriter {
    fs: SharedFs,
    meta: BlockMeta,
    dir: PathBuf,
    temporary: PathBuf,
    /// Taken when they are finished.
    files: Option<(ChunkWriter, IndexWriter)>,
    published: bool,
}

impl BlockWriter {
    /// Begins the block `meta`, whose figures are counted here, in the data directory. `symbols` are those of
    /// [`IndexWriter::create`], `segment_len` that of [`ChunkWriter::create`].
    pub fn create(
        fs: &SharedFs,
        data_dir: &Path,
        meta: BlockMeta,
        symbols: Vec<String>,
        segment_len: u64,
    ) -> Result<Self, BlockError> {
        let dir = data_dir.join(meta.ulid.to_string());
        let temporary = data_dir.join(format!("{}{CREATION_SUFFIX}", meta.ulid));
        let mut writer = Self { fs: fs.clone(), meta, dir, temporary, files: None, published: false };
        fs.create_dir_all(&writer.temporary).context("create", &writer.temporary)?;
        let chunks = ChunkWriter::create(fs, &writer.temporary.join(CHUNKS_DIR), segment_len)?;
        let index = IndexWriter::create(&**fs, &writer.temporary.join(INDEX_FILE), symbols)?;
        writer.files = Some((chunks, index));
        Ok(writer)
    }

    /// Adds a series with its chunks, which do not overlap; one without chunks is left out. Series come in the order of their
    /// labels.
    pub fn add_series(&mut self, labels: &Labels, chunks: &[ChunkData]) -> Result<(), BlockError> {
        let Some((chunk_writer, index)) = self.files.as_mut().filter(|_| !chunks.is_empty()) else { return Ok(()) };
        let metas = chunk_writer.write_series(chunks)?;
        index.add_series(labels, &metas)?;
        let stats = &mut self.meta.stats;
        stats.num_series += 1;
        stats.num_chunks += chunks.len() as u64;
        for chunk in chunks {
            let count = u64::from(chunk.sample_count());
            stats.num_samples += count;
            if chunk.is_float() {
                stats.num_float_samples += count;
            } else {
                stats.num_histogram_samples += count;
            }
        }
        Ok(())
    }

    /// What the block is so far.
    pub fn meta(&self) -> &BlockMeta {
        &self.meta
    }

    /// Makes the block durable and visible; `None` if there are no samples, which makes no block. On an error there is none
    /// either, unless the very last step failed: then it may be there, whole, and the next look at the folder tells.
    pub fn publish(mut self) -> Result<Option<BlockMeta>, BlockError> {
        let Some((chunks, index)) = self.files.take() else { return Ok(None) };
        if self.meta.stats.num_samples == 0 {
            return Ok(None);
        }
        chunks.finish()?;
        index.finish()?;
        self.meta.write(&*self.fs, &self.temporary)?;
        Tombstones::default().write(&*self.fs, &self.temporary)?;
        self.fs.sync_dir(&self.temporary).context("sync", &self.temporary)?;
        self.fs.rename(&self.temporary, &self.dir).context("rename", &self.temporary)?;
        self.published = true;
        let data_dir = crate::storage::fs::parent_of(&self.dir);
        self.fs.sync_dir(&data_dir).context("sync", &data_dir)?;
        Ok(Some(self.meta.clone()))
    }
}

impl Drop for BlockWriter {
    fn drop(&mut self) {
        // Files first, then their folder; what cannot be removed now is removed at the next start.
        self.files = None;
        if !self.published {
            let _ = self.fs.remove_dir_all(&self.temporary);
        }
    }
}
