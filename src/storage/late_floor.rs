//! Up to where the files of head chunks hold samples that came out of order and that stand in blocks by now, in the file
//! `watchfire-late-chunks.json` of the data directory. Such chunks stay in their files until those go: without this a start would
//! put them into blocks again, and bring back what was deleted of those meanwhile. Prometheus does not look at it.

use std::io::{self, ErrorKind};
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

/// The place before which such chunks are not needed; the first of all if nothing is known. A file that cannot be read is told of.
pub fn load(fs: &dyn Fs, data_dir: &Path) -> ChunkPlace {
    let path = path_of(data_dir);
    read(fs, &path).unwrap_or_else(|error| {
        if error.kind() != ErrorKind::NotFound {
            tracing::warn!(component = "tsdb", file = %path.display(), err = %error,
                "It is not known which late samples stand in blocks; all of them are looked at, deleted ones may come back");
        }
        ChunkPlace::default()
    })
}

fn read(fs: &dyn Fs, path: &Path) -> io::Result<ChunkPlace> {
    let file = fs.open(path)?;
    let mut raw = vec![0; LEN_MAX];
    let len = file.read_at(&mut raw, 0)?;
    let floor: Floor = serde_json::from_slice(raw.get(..len).unwrap_or_default())?;
    let place = ChunkPlace::new(floor.file, floor.offset);
    place.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "no file of chunks has such a place"))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::fs::sim::SimFs;

    #[test]
    fn what_was_saved_is_read_and_anything_else_is_an_error() {
        let (fs, dir) = (SimFs::new(), Path::new("/"));
        let path = path_of(dir);
        assert_eq!(load(&fs, dir), ChunkPlace::default());
        assert_eq!(read(&fs, &path).unwrap_err().kind(), ErrorKind::NotFound);
        let place = ChunkPlace::new(3, 40).unwrap();
        save(&fs, dir, place).unwrap();
        assert_eq!(load(&fs, dir), place);
        for broken in ["", "{}", "{\"file\":3", "{\"file\":18446744073709551615,\"offset\":18446744073709551615}"] {
            let file = fs.create(&path).unwrap();
            file.write_all_at(broken.as_bytes(), 0).unwrap();
            assert_ne!(read(&fs, &path).unwrap_err().kind(), ErrorKind::NotFound, "{broken}");
            assert_eq!(load(&fs, dir), ChunkPlace::default(), "{broken}");
        }
    }
}
