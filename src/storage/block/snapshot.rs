//! Copies of blocks that take no room: their files stand in the copy as well.

use std::path::Path;

use crate::storage::block::meta::META_FILE;
use crate::storage::block::tombstones::TOMBSTONES_FILE;
use crate::storage::block::{BlockError, CHUNKS_DIR, INDEX_FILE, IoContext};
use crate::storage::fs::Fs;

/// Links the files of the block in `block` into a folder of the same name in `to`, durably. Files of a block are never written to
/// once they stand, so neither copy changes with the other.
pub fn link_block(fs: &dyn Fs, block: &Path, to: &Path) -> Result<(), BlockError> {
    let name = block.file_name().unwrap_or_default();
    let (copy, chunks) = (to.join(name), to.join(name).join(CHUNKS_DIR));
    fs.create_dir_all(&chunks).context("create", &chunks)?;
    let link = |from: &Path, to: &Path| fs.hard_link(from, to).context("link", to);
    for file in [META_FILE, INDEX_FILE] {
        link(&block.join(file), &copy.join(file))?;
    }
    let tombstones = block.join(TOMBSTONES_FILE);
    if fs.exists(&tombstones).context("read", &tombstones)? {
        link(&tombstones, &copy.join(TOMBSTONES_FILE))?;
    }
    let from = block.join(CHUNKS_DIR);
    for entry in fs.list(&from).context("list", &from)? {
        link(&from.join(&entry.name), &chunks.join(&entry.name))?;
    }
    fs.sync_dir(&chunks).context("sync", &chunks)?;
    fs.sync_dir(&copy).context("sync", &copy)?;
    fs.sync_dir(to).context("sync", to)
}
