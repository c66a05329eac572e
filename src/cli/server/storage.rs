//! Opening the data directory: refuse what is not ours, lock it, read the log back.

use std::path::PathBuf;
use std::sync::Arc;

use crate::cli::flags::{StorageFlags, WalSync};
use crate::model::time::TimestampMs;
use crate::storage::fs::{RealFs, SharedFs};
use crate::storage::head::Head;
use crate::storage::lock::{DirLock, refuse_foreign};
use crate::storage::replay::{self, Aliases};
use crate::storage::wal::fragment::Compression;
use crate::storage::wal::metrics::WalMetrics;
use crate::storage::wal::writer::Writer;
use crate::storage::wal::{SEGMENT_LEN, WalOptions};

/// An open data directory.
pub(super) struct OpenStorage {
    pub(super) lock: DirLock,
    pub(super) writer: Writer,
    pub(super) fs: SharedFs,
    pub(super) dir: PathBuf,
    pub(super) aliases: Aliases,
}

/// Opens the directory that the flags name; the error is what the operator reads.
pub(super) fn open(
    flags: &StorageFlags,
    head: &Arc<Head>,
    metrics: &WalMetrics,
    oldest: TimestampMs,
) -> Result<OpenStorage, String> {
    let fs = RealFs::shared();
    let dir = flags.path.clone();
    refuse_foreign(&fs, &dir).map_err(|error| error.to_string())?;
    let lock = if flags.lockfile { DirLock::acquire(&fs, &dir) } else { DirLock::disabled(&fs, &dir) };
    let lock = lock.map_err(|error| error.to_string())?;
    let options = WalOptions {
        segment_len: if flags.wal_segment_len == 0 { SEGMENT_LEN } else { flags.wal_segment_len },
        // zstd is read by nobody here yet: the records are written as snappy, which every reader knows.
        compression: if flags.wal_compression.is_some() { Compression::Snappy } else { Compression::None },
        hold_unsynced: flags.wal_sync != WalSync::Off,
    };
    let opened = replay::open(&fs, &dir, options, metrics, head, oldest);
    let (writer, report) = opened.map_err(|error| error.to_string())?;
    for damage in &report.log.damage {
        tracing::error!(component = "tsdb", ?damage, "The log was damaged and has been repaired");
    }
    tracing::info!(
        component = "tsdb",
        series = report.head.series,
        samples = report.head.samples,
        took = ?report.took,
        "WAL replay completed"
    );
    Ok(OpenStorage { lock, writer, fs, dir, aliases: report.head.aliases })
}
