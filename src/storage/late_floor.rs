//! Up to where the files of head chunks hold samples that came out of order and that stand in blocks by now, in the file
//! `watchfire-late-chunks.json` of the data directory. Such chunks stay in their files until those go: without this a start would
//! put them into blocks again, and bring back what was deleted of those meanwhile. Prometheus does not look at it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::storage::chunk::written::ChunkPlace;
use crate::storage::fs::{Fs, parent_of};
use crate::storage::wal::{IoContext, WalError};

/// Longer than any that is written.
const LEN_MAX: usize = 1 << 12;

#[derive(Serialize, Deserialize)]
struct Floor {
    file: u64,
    offset: u64,
}

fn path_of(data_dir: &Path) -> PathBuf {
    data_dir.join("watchfire-late-chunks.json")
}

/// The place before which such chunks are not needed; the first of all if nothing is known.
pub fn load(fs: &dyn Fs, data_dir: &Path) -> ChunkPlace {
    let read = || -> std::io::Result<Floor> {
        let file = fs.open(&path_of(data_dir))?;
        let mut raw = vec![0; LEN_MAX];
        let read = file.read_at(&mut raw, 0)?;
        serde_json::from_slice(raw.get(..read).unwrap_or_default()).map_err(std::io::Error::from)
    };
    read().ok().and_then(|floor| ChunkPlace::new(floor.file, floor.offset)).unwrap_or_default()
}

/// Replaces it; it survives a power cut when this returns.
pub fn save(fs: &dyn Fs, data_dir: &Path, floor: ChunkPlace) -> Result<(), WalError> {
    let path = path_of(data_dir);
    let temporary = path.with_extension("tmp");
    let raw = serde_json::to_vec(&Floor { file: floor.file(), offset: floor.offset() });
    let raw = raw.map_err(std::io::Error::from).context("write", &path)?;
    let file = fs.create(&temporary).context("create", &temporary)?;
    file.write_all_at(&raw, 0).context("write", &temporary)?;
    file.sync_data().context("sync", &temporary)?;
    drop(file);
    fs.rename(&temporary, &path).context("rename", &temporary)?;
    let folder = parent_of(&path);
    fs.sync_dir(&folder).context("sync", &folder)
}
