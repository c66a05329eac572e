//! Room on the disk that is kept for when it is full: as much as repairing the largest segment of the log takes, or writing again
//! what a failed sync has left in doubt.
//!
//! It is a file of its own in the data directory, whose space is taken and which holds nothing. Whoever may use it removes it; it is
//! made again when there is room.

use std::io;
use std::path::{Path, PathBuf};

use crate::storage::fs::{Fs, SharedFs};
use crate::storage::wal::segments::list_segments;
use crate::storage::wal::{WAL_DIR, WalError};

/// Name of the file in the data directory.
pub const RESERVE_FILE: &str = "reserved";
/// Bytes beside those for the largest segment.
const BESIDE_LEN: u64 = 1 << 20;
/// Of a small disk no more than this share is taken.
const DISK_SHARE: u64 = 16;

/// True if there is no room on the disk.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Takes the room, or changes how much it is. What cannot be had now is had another time.
pub fn hold(fs: &SharedFs, data_dir: &Path) {
    let path = path(data_dir);
    let wanted = wanted(&**fs, data_dir);
    let taken = || -> io::Result<()> {
        let file = if fs.exists(&path)? { fs.open_write(&path)? } else { fs.create(&path)? };
        match file.len()? {
            len if len == wanted => Ok(()),
            len if wanted < len => file.truncate(wanted),
            _ => file.allocate(wanted),
        }
    };
    if let Err(error) = taken() {
        tracing::debug!(component = "tsdb", path = %path.display(), %error, "no room is kept for a full disk");
        let _ = fs.remove_file(&path);
    }
}

/// Gives the room back; true if there was any.
pub fn release(fs: &SharedFs, data_dir: &Path) -> bool {
    let path = path(data_dir);
    let held = fs.open(&path).and_then(|file| file.len()).is_ok_and(|len| 0 < len);
    held && fs.remove_file(&path).is_ok()
}

/// Does what may use the room: should the disk be full, once more without it.
pub fn with_room<T>(
    fs: &SharedFs,
    data_dir: &Path,
    mut work: impl FnMut() -> Result<T, WalError>,
) -> Result<T, WalError> {
    match work() {
        Err(WalError::Io { source, .. }) if is_full(&source) && release(fs, data_dir) => {
            tracing::warn!(component = "tsdb", "The disk is full; the room that was kept for that is used now");
            work()
        }
        done => done,
    }
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(RESERVE_FILE)
}

/// A copy of the largest segment and a new one in its place.
fn wanted(fs: &dyn Fs, data_dir: &Path) -> u64 {
    let segments = list_segments(fs, &data_dir.join(WAL_DIR)).unwrap_or_default();
    let largest = segments.iter().map(|segment| segment.len).max().unwrap_or(0);
    let wanted = largest.saturating_mul(2).saturating_add(BESIDE_LEN);
    fs.capacity(data_dir).map_or(wanted, |capacity| wanted.min(capacity / DISK_SHARE))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::storage::fs::RealFs;
    use crate::storage::fs::sim::SimFs;

    #[test]
    fn room_is_taken_given_back_and_taken_again() {
        let dir = tempfile::tempdir().unwrap();
        let (fs, path) = (RealFs::shared(), dir.path().join(RESERVE_FILE));
        std::fs::create_dir(dir.path().join(WAL_DIR)).unwrap();
        hold(&fs, dir.path());
        assert_eq!(std::fs::metadata(&path).unwrap().len(), BESIDE_LEN);
        std::fs::write(dir.path().join("wal/00000000"), [1; 1000]).unwrap();
        hold(&fs, dir.path());
        assert_eq!(std::fs::metadata(&path).unwrap().len(), BESIDE_LEN + 2000);
        assert!(release(&fs, dir.path()) && !release(&fs, dir.path()) && !path.exists());
    }

    #[test]
    fn work_that_finds_the_disk_full_is_done_again_once_if_there_was_room() {
        let sim = SimFs::new();
        let (fs, data): (SharedFs, _) = (Arc::new(sim.clone()), Path::new("/data"));
        sim.put(&data.join("wal/00000000"), b"").unwrap();
        let full = || WalError::Io { action: "write", path: PathBuf::new(), source: io::ErrorKind::StorageFull.into() };
        let mut tries = 0;
        let mut work = || {
            tries += 1;
            if tries == 1 { Err(full()) } else { Ok(tries) }
        };
        assert!(with_room(&fs, data, &mut work).is_err());
        hold(&fs, data);
        tries = 0;
        let mut work = || {
            tries += 1;
            if tries == 1 { Err(full()) } else { Ok(tries) }
        };
        assert_eq!(with_room(&fs, data, &mut work).unwrap(), 2);
        assert!(!sim.exists(&data.join(RESERVE_FILE)).unwrap());
    }
}
