//! Blocks: immutable folders of series over a range of time, byte for byte Prometheus's.
//!
//! ```text
//! 01J…ULID/meta.json        what it is and where it came from (`meta`)
//! 01J…ULID/index            symbols, series, postings (`index_write`, `index_read`)
//! 01J…ULID/chunks/000001 …  chunks, in the order of their series (`chunks`)
//! 01J…ULID/tombstones       ranges of series that are deleted (`tombstones`)
//! 01J….tmp-for-creation/    half-written; .tmp-for-deletion/ half-removed: both are removed at a start
//! ```
//! Data flow: a compaction fills a [`write::BlockWriter`], whose publication is one rename → [`catalog::Catalog`] opens it →
//! [`view::StoreQueryable`] merges the head's and the blocks' series.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::io;
use std::path::{Path, PathBuf};

use crate::model::read::{ReadError, may_read_files};
use crate::storage::fs::File;

mod bytes;
pub mod catalog;
pub(crate) mod chain;
pub mod chunks;
pub mod deletion;
pub mod index_read;
pub mod index_write;
mod listing;
pub mod merged;
pub mod meta;
pub mod metrics;
mod notes;
mod pages;
mod pairing;
pub mod read;
pub mod retention;
pub(crate) mod rewrite;
mod select;
mod series;
pub mod snapshot;
pub mod tombstones;
pub mod ulid;
mod verify;
pub mod view;
pub mod write;

#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod native_tests;
#[cfg(test)]
mod select_tests;

pub use pages::PageCache;

/// Name of the index within a block.
pub const INDEX_FILE: &str = "index";
/// Name of the folder of chunk segments within a block.
pub const CHUNKS_DIR: &str = "chunks";
/// What the folder of a block is called, behind its name, until it is whole.
pub const CREATION_SUFFIX: &str = ".tmp-for-creation";
/// What the folder of a block is called, behind its name, while it is removed.
pub const DELETION_SUFFIX: &str = ".tmp-for-deletion";

/// Why a block cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
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
    /// The bytes are not what a writer has written.
    #[error("{} is damaged at byte {offset}: {reason}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// A part of a file outgrows what its format can say.
    #[error("{} would outgrow its format: {what}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Which part.
        what: &'static str,
    },
    /// Whoever reads cannot wait for a disk.
    #[error("{} would have to be read", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
    },
    /// Series or chunks come in an order that no block has, or series hold what cannot be compacted.
    #[error("series cannot be written: {reason}")]
    Input {
        /// What is wrong.
        reason: String,
    },
}

impl BlockError {
    pub(crate) fn corrupt(path: &Path, offset: u64, reason: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_path_buf(), offset, reason: reason.into() }
    }

    pub(crate) fn input(reason: impl Into<String>) -> Self {
        Self::Input { reason: reason.into() }
    }
}

impl From<BlockError> for ReadError {
    fn from(error: BlockError) -> Self {
        match error {
            BlockError::Refused { .. } => Self::Interrupted(error.to_string()),
            error => Self::Corrupt(error.to_string()),
        }
    }
}

/// Reads at a place of a file, if the caller may wait for it.
pub(crate) fn read_at(file: &dyn File, path: &Path, buffer: &mut [u8], offset: u64) -> Result<usize, BlockError> {
    if !may_read_files() {
        return Err(BlockError::Refused { path: path.to_path_buf() });
    }
    file.read_at(buffer, offset).context("read", path)
}

/// Gives I/O errors their place.
pub(crate) trait IoContext<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T, BlockError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T, BlockError> {
        self.map_err(|source| BlockError::Io { action, path: path.to_path_buf(), source })
    }
}
