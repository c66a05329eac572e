//! The write-ahead log, in Prometheus's format: what the head holds in memory stands here as well.
//!
//! ```text
//! wal/checkpoint.00000011/00000000   what is still needed of the segments up to 11
//! wal/00000012  wal/00000013 …       segments: pages of fragments (`fragment`), which make up records (`record`)
//! wal.damaged/00000012               originals of repaired segments
//! ```
//! Data flow: staged slices → [`record::encode_staged`] → [`writer::Writer::append`] → applied to the head. At start,
//! [`Log::open`] passes all records to a [`RecordSink`] (see `storage::replay`), repairs what is damaged, and begins a
//! new segment behind the last.

use std::io;
use std::path::{Path, PathBuf};

use crate::storage::fs::SharedFs;
use crate::storage::reserve;

mod ahead;
pub mod checkpoint;
mod compare;
pub mod cursor;
pub mod exemplar_record;
pub mod fragment;
mod held;
pub mod histogram_record;
mod load;
pub mod loss;
mod manifest;
pub mod marker_record;
pub mod metadata_record;
pub mod metrics;
pub mod progress;
pub mod reader;
pub mod record;
mod repair;
pub mod segments;
mod start_record;
pub mod tail;
pub mod tombstone_record;
pub mod writer;

pub(crate) use held::Held;
pub(crate) use load::load_and_repair;
pub use load::{LoadReport, MissingPart, RecordSink, SegmentDamage, pass_on, read_until};
pub(crate) use manifest::Manifest;

use crate::storage::wal::fragment::{Compression, PAGE_LEN};
use crate::storage::wal::metrics::WalMetrics;
use crate::storage::wal::writer::{Position, Writer};

/// Name of the log's folder in the data directory.
pub const WAL_DIR: &str = "wal";
/// Name of the folder for originals of repaired segments.
pub const DAMAGED_DIR: &str = "wal.damaged";
/// Usual length of a segment.
pub const SEGMENT_LEN: u64 = 128 << 20;

/// How a log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalOptions {
    /// Longest segment in bytes, a multiple of a page (`--storage.tsdb.wal-segment-size`).
    pub segment_len: u64,
    /// How records are compressed (`--storage.tsdb.wal-compression`, `--storage.tsdb.wal-compression-type`); one that does not
    /// become smaller is written as it is. Records of all kinds are read.
    pub compression: Compression,
    /// Whether records are kept in memory until they are synced, so that a failed sync loses none. Without it nothing
    /// is synced but whole segments (`--storage.tsdb.wal-sync=off`).
    pub hold_unsynced: bool,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self { segment_len: SEGMENT_LEN, compression: Compression::Snappy, hold_unsynced: true }
    }
}

/// Why the log cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
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
    /// A batch does not fit into a segment; none of it was written.
    #[error("a batch of {len} bytes does not fit into a segment of {max} bytes")]
    BatchTooLong {
        /// Its length at most.
        len: u64,
        /// The segment's.
        max: u64,
    },
    /// Not a whole number of pages.
    #[error("invalid segment size: {len} is not a multiple of the page size {}", PAGE_LEN)]
    SegmentLen {
        /// The length asked for.
        len: u64,
    },
    /// Sound records cannot be told from lost ones there without a repair, which the next start does.
    #[error("segment {} is damaged at byte {offset}: {reason}", path.display())]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// Samples came out of order where nothing was set up for them.
    #[error("there is no log for samples that come out of order")]
    NoLateLog,
    /// A checkpoint was given up: which series are in use is not known now.
    #[error("a part of the head is being restored")]
    Unsettled,
}

/// Gives I/O errors their place.
pub(crate) trait IoContext<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T, WalError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T, WalError> {
        self.map_err(|source| WalError::Io { action, path: path.to_path_buf(), source })
    }
}

/// A log as a whole.
pub struct Log;

impl Log {
    /// Reads the log in `data_dir` into `sink`, repairs it, and begins a new segment. Errors when the disk does; damage
    /// is no error but stands in the report.
    pub fn open(
        fs: &SharedFs,
        data_dir: &Path,
        options: WalOptions,
        metrics: &WalMetrics,
        sink: &mut dyn RecordSink,
    ) -> Result<(Writer, LoadReport), WalError> {
        Self::open_from(fs, data_dir, options, metrics, sink, None)
    }

    /// The same for a log of which what stands before `from` is known already; checkpoints are.
    pub fn open_from(
        fs: &SharedFs,
        data_dir: &Path,
        options: WalOptions,
        metrics: &WalMetrics,
        sink: &mut dyn RecordSink,
        from: Option<Position>,
    ) -> Result<(Writer, LoadReport), WalError> {
        if options.segment_len == 0 || !options.segment_len.is_multiple_of(PAGE_LEN as u64) {
            return Err(WalError::SegmentLen { len: options.segment_len });
        }
        let dir = data_dir.join(WAL_DIR);
        fs.create_dir_all(&dir).context("create", &dir)?;
        fs.sync_dir(data_dir).context("sync", data_dir)?;
        segments::remove_unfinished(&**fs, &dir)?;
        let (report, manifest) = load::load_and_repair(fs, data_dir, &dir, metrics, sink, from)?;
        let checkpoint = segments::list_checkpoints(&**fs, &dir)?.last().copied();
        let newest = segments::list_segments(&**fs, &dir)?.last().map(|s| s.segment);
        let next = newest.max(checkpoint).map_or(0, |newest| newest + 1);
        let begin = || Writer::create(fs.clone(), &dir, next, options, metrics.clone());
        let writer = reserve::with_room(fs, data_dir, begin)?;
        reserve::hold(fs, data_dir);
        metrics.progress.read(next);
        Ok((writer.with_reserve(data_dir).with_manifest(manifest.shared()), report))
    }
}

#[cfg(test)]
mod power_tests;
#[cfg(test)]
mod tests;
