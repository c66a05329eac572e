//! Opening the data directory: refuse what cannot be read, lock it, open the blocks, read the log back.

use std::path::PathBuf;
use std::sync::Arc;

use crate::cli::flags::{StorageFlags, WalSync};
use crate::config::StorageConfig;
use crate::model::time::TimestampMs;
use crate::storage::block::catalog::Catalog;
use crate::storage::fs::SharedFs;
use crate::storage::head::Head;
use crate::storage::head_chunks::{self, HeadChunksReport};
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

/// Exemplars that are held unless the configuration says how many.
const EXEMPLARS_MAX: i64 = 100_000;

/// Gives exemplars the room that the configuration wants for them.
pub(super) fn settle_exemplars(head: &Head, config: &StorageConfig) {
    let wanted = config.exemplars.as_ref().map_or(EXEMPLARS_MAX, |exemplars| exemplars.max_exemplars);
    let (before, wanted) = (head.exemplars().capacity(), usize::try_from(wanted).unwrap_or(0));
    let window_ms = config.tsdb.as_ref().map_or(0, |tsdb| tsdb.out_of_order_time_window.as_ms_i64());
    head.exemplars().set_window(window_ms);
    let migrated = head.exemplars().resize(wanted);
    if before != wanted {
        tracing::info!(component = "tsdb", from = before, to = wanted, migrated, "Exemplar storage resized");
    }
}

/// Opens the directory that the flags name; the error is what the operator reads.
pub(super) fn open(
    flags: &StorageFlags,
    head: &Arc<Head>,
    catalog: &Catalog,
    metrics: &WalMetrics,
    oldest: TimestampMs,
) -> Result<OpenStorage, String> {
    let fs = catalog.fs().clone();
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
    catalog.open().map_err(|error| error.to_string())?;
    let blocks = catalog.state();
    // What stands in blocks is not needed in the head as well.
    let oldest = oldest.max(TimestampMs(blocks.whole_until().unwrap_or(i64::MIN)));
    let opened = replay::open(&fs, &dir, options, metrics, head, oldest);
    let (writer, report) = opened.map_err(|error| error.to_string())?;
    let head_chunks = head_chunks::check(&fs, &dir, head, &report.head.aliases, oldest.0);
    let head_chunks = head_chunks.map_err(|error| error.to_string())?;
    if head_chunks != HeadChunksReport::default() {
        tracing::info!(component = "tsdb", ?head_chunks, "Head chunks of another program are left as they are");
    }
    for damage in &report.log.damage {
        tracing::error!(component = "tsdb", ?damage, "The log was damaged and has been repaired");
    }
    tracing::info!(
        component = "tsdb",
        blocks = blocks.blocks.len(),
        series = report.head.series,
        samples = report.head.samples,
        took = ?report.took,
        "WAL replay completed"
    );
    Ok(OpenStorage { lock, writer, fs, dir, aliases: report.head.aliases })
}
