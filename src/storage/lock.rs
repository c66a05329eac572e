//! Who may write a data directory: one process at a time, and only if it understands what stands there.

use std::io;
use std::path::{Path, PathBuf};

use crate::storage::fs::{FileLock, SharedFs};

const LOCK_FILE: &str = "lock";

/// Why a data directory is not opened.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("lock DB directory: {}: another process holds the lock", path.display())]
    Held {
        /// The lock file.
        path: PathBuf,
    },
    /// The disk says no.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// How the lock file was found; the value of `prometheus_tsdb_clean_start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CleanStart {
    /// No lock is used.
    Disabled,
    /// A lock file of an earlier process stood there: it did not end in order.
    Replaced,
    /// There was none.
    Clean,
}

impl CleanStart {
    /// The metric's value: -1, 0 or 1.
    pub fn value(self) -> f64 {
        match self {
            Self::Disabled => -1.0,
            Self::Replaced => 0.0,
            Self::Clean => 1.0,
        }
    }
}

/// A data directory that is ours. Dropping it removes the lock file and gives the lock back.
pub struct DirLock {
    fs: SharedFs,
    path: PathBuf,
    held: Option<Box<dyn FileLock>>,
    found: CleanStart,
}

impl DirLock {
    /// Makes `data_dir` if need be and locks it. Errors when another process holds it.
    pub fn acquire(fs: &SharedFs, data_dir: &Path) -> Result<Self, LockError> {
        let failed = |action, path: &Path| {
            let path = path.to_path_buf();
            move |source| LockError::Io { action, path, source }
        };
        fs.create_dir_all(data_dir).map_err(failed("create", data_dir))?;
        let path = data_dir.join(LOCK_FILE);
        let existed = fs.exists(&path).map_err(failed("read", &path))?;
        let held = match fs.lock(&path) {
            Ok(held) => held,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(LockError::Held { path }),
            Err(source) => return Err(LockError::Io { action: "lock", path, source }),
        };
        if existed {
            tracing::warn!(component = "tsdb", file = %path.display(),
                "A lockfile from a previous execution already existed. It was replaced");
        }
        let found = if existed { CleanStart::Replaced } else { CleanStart::Clean };
        Ok(Self { fs: fs.clone(), path, held: Some(held), found })
    }

    /// No lock at all, for `--storage.tsdb.no-lockfile`; makes `data_dir` if need be.
    pub fn disabled(fs: &SharedFs, data_dir: &Path) -> Result<Self, LockError> {
        let path = data_dir.to_path_buf();
        let failed = |source| LockError::Io { action: "create", path: data_dir.to_path_buf(), source };
        fs.create_dir_all(data_dir).map_err(failed)?;
        Ok(Self { fs: fs.clone(), path, held: None, found: CleanStart::Disabled })
    }

    /// How the lock file was found.
    pub fn clean_start(&self) -> CleanStart {
        self.found
    }
}

impl Drop for DirLock {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            // Removed while it is still held: whoever opens it meanwhile notices that it is gone (`Fs::lock`).
            if let Err(error) = self.fs.remove_file(&self.path) {
                tracing::warn!(component = "tsdb", file = %self.path.display(), %error, "cannot remove the lock file");
            }
            drop(held);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::fs::RealFs;

    #[test]
    fn a_directory_belongs_to_one_process_and_tells_how_the_last_one_ended() {
        let dir = tempfile::tempdir().unwrap();
        let (fs, data) = (RealFs::shared(), dir.path().join("data"));
        let held = DirLock::acquire(&fs, &data).unwrap();
        assert_eq!(held.clean_start(), CleanStart::Clean);
        let error = DirLock::acquire(&fs, &data).err().unwrap();
        assert!(matches!(&error, LockError::Held { .. }), "{error}");
        assert_eq!(DirLock::disabled(&fs, &data).unwrap().clean_start().value(), -1.0);
        drop(held);
        assert!(!data.join("lock").exists());
        std::fs::write(data.join("lock"), "").unwrap();
        assert_eq!(DirLock::acquire(&fs, &data).unwrap().clean_start(), CleanStart::Replaced);
    }
}
