//! Names in a log's folder: segments `00000012`, checkpoints `checkpoint.00000012`, and what is unfinished (`….tmp`).

use std::io;
use std::path::{Path, PathBuf};

use crate::storage::fs::{Fs, SharedFs};
use crate::storage::wal::tail::Tail;
use crate::storage::wal::writer::Position;
use crate::storage::wal::{IoContext, WalError};

const CHECKPOINT_PREFIX: &str = "checkpoint.";

/// A segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentFile {
    /// Its number.
    pub segment: u64,
    /// Its length in bytes.
    pub len: u64,
}

/// Name of a segment's file.
pub fn segment_name(segment: u64) -> String {
    format!("{segment:08}")
}

/// Name of the folder of the checkpoint that stands for all segments up to `segment`.
pub fn checkpoint_name(segment: u64) -> String {
    format!("{CHECKPOINT_PREFIX}{segment:08}")
}

/// The segments of a folder, ascending.
pub fn list_segments(fs: &dyn Fs, dir: &Path) -> Result<Vec<SegmentFile>, WalError> {
    let mut segments = Vec::new();
    for entry in fs.list(dir).context("list", dir)? {
        if let Some(segment) = number(&entry.name).filter(|_| !entry.is_dir) {
            segments.push(SegmentFile { segment, len: entry.len });
        }
    }
    segments.sort_unstable();
    Ok(segments)
}

/// The checkpoints of a folder, ascending.
pub fn list_checkpoints(fs: &dyn Fs, dir: &Path) -> Result<Vec<u64>, WalError> {
    let mut checkpoints = Vec::new();
    for entry in fs.list(dir).context("list", dir)? {
        if entry.is_dir {
            checkpoints.extend(entry.name.strip_prefix(CHECKPOINT_PREFIX).and_then(number));
        }
    }
    checkpoints.sort_unstable();
    Ok(checkpoints)
}

/// The files of a log, for those who read it beside its writer.
#[derive(Clone)]
pub struct LogFiles {
    fs: SharedFs,
    dir: PathBuf,
}

impl LogFiles {
    /// The log in the folder `dir`.
    pub fn new(fs: SharedFs, dir: PathBuf) -> Self {
        Self { fs, dir }
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The file system that it stands on.
    pub fn fs(&self) -> &SharedFs {
        &self.fs
    }

    /// Its segments, ascending.
    pub fn segments(&self) -> Result<Vec<SegmentFile>, WalError> {
        list_segments(&*self.fs, &self.dir)
    }

    /// Its checkpoints, ascending.
    pub fn checkpoints(&self) -> Result<Vec<u64>, WalError> {
        list_checkpoints(&*self.fs, &self.dir)
    }

    /// Length of a segment; `None` if it is not there.
    pub fn len_of(&self, segment: u64) -> Result<Option<u64>, WalError> {
        let path = self.dir.join(segment_name(segment));
        match self.fs.open(&path) {
            Ok(file) => file.len().map(Some).context("read", &path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(WalError::Io { action: "open", path, source }),
        }
    }

    /// Bytes of all its files.
    pub fn total_len(&self) -> Result<u64, WalError> {
        storage_len(&*self.fs, &self.dir)
    }

    /// Reads the segments in `dir`, which is the log's folder or that of a checkpoint, from `at` on.
    pub fn tail(&self, dir: &Path, at: Position) -> Tail {
        Tail::new(SharedFs::clone(&self.fs), dir, at)
    }
}

/// Removes what an interrupted repair or checkpoint left.
pub(crate) fn remove_unfinished(fs: &dyn Fs, dir: &Path) -> Result<(), WalError> {
    for entry in fs.list(dir).context("list", dir)? {
        let Some(stem) = entry.name.strip_suffix(".tmp") else { continue };
        let path = dir.join(&entry.name);
        if entry.is_dir && stem.starts_with(CHECKPOINT_PREFIX) {
            fs.remove_dir_all(&path).context("remove", &path)?;
        } else if !entry.is_dir && number(stem).is_some() {
            fs.remove_file(&path).context("remove", &path)?;
        }
    }
    Ok(())
}

/// Bytes of all files in a folder and in those within it.
pub(crate) fn storage_len(fs: &dyn Fs, dir: &Path) -> Result<u64, WalError> {
    let mut len = 0;
    for entry in fs.list(dir).context("list", dir)? {
        len += entry.len;
        if entry.is_dir {
            let inner = dir.join(&entry.name);
            len += fs.list(&inner).context("list", &inner)?.iter().map(|e| e.len).sum::<u64>();
        }
    }
    Ok(len)
}

fn number(name: &str) -> Option<u64> {
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    name.parse().ok()
}
