//! Opening the data directory: refuse what cannot be read, lock it, open the blocks, read the log back.

use std::path::PathBuf;
use std::sync::Arc;

use crate::actors::storage_shard::Journal;
use crate::cli::flags::{StorageFlags, WalCompression, WalSync};
use crate::config::StorageConfig;
use crate::model::clock::SharedClock;
use crate::model::time::TimestampMs;
use crate::storage::block::catalog::Catalog;
use crate::storage::chunk_snapshot::{self, Stop};
use crate::storage::fs::SharedFs;
use crate::storage::head::Head;
use crate::storage::head_chunks::{self, HEAD_CHUNKS_DIR, HeadChunksError};
use crate::storage::lock::{DirLock, refuse_foreign};
use crate::storage::replay::{self, Aliases, ReadFrom};
use crate::storage::wal::fragment::Compression;
use crate::storage::wal::metrics::WalMetrics;
use crate::storage::wal::writer::{Position, Writer};
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

/// Leaves a snapshot of a head that is written no more. Without one the next start reads the log.
pub(super) fn write_snapshot(
    flags: &StorageFlags,
    journal: &Journal,
    head: &Head,
    position: Position,
    clock: &SharedClock,
) {
    let begun = clock.monotonic();
    let aliases = journal.aliases.lock();
    let stop = Stop { position, options: options_of(flags), aliases: &aliases, clock };
    match chunk_snapshot::write(&journal.fs, &journal.data_dir, head, &stop) {
        Ok(num_series) => {
            let duration = clock.monotonic().saturating_sub(begun);
            tracing::info!(component = "tsdb", ?duration, num_series, "chunk snapshot complete");
        }
        Err(error) => tracing::error!(component = "tsdb", err = %error, "No chunk snapshot was written"),
    }
}

fn options_of(flags: &StorageFlags) -> WalOptions {
    WalOptions {
        segment_len: if flags.wal_segment_len == 0 { SEGMENT_LEN } else { flags.wal_segment_len },
        compression: compression_of(flags),
        hold_unsynced: flags.wal_sync != WalSync::Off,
    }
}

/// How the log is to be compressed.
pub(super) fn compression_of(flags: &StorageFlags) -> Compression {
    match flags.wal_compression {
        None => Compression::None,
        Some(WalCompression::Snappy) => Compression::Snappy,
        Some(WalCompression::Zstd) => Compression::Zstd,
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
    let options = options_of(flags);
    catalog.open().map_err(|error| error.to_string())?;
    let blocks = catalog.state();
    // What stands in blocks is not needed in the head as well.
    let oldest = oldest.max(TimestampMs(blocks.whole_until().unwrap_or(i64::MIN)));
    let opened = replay::open(&fs, &dir, options, metrics, head, oldest);
    let (writer, report) = opened.map_err(|error| error.to_string())?;
    if report.late_chunks {
        return Err(HeadChunksError::OutOfOrder { path: dir.join(HEAD_CHUNKS_DIR) }.to_string());
    }
    // Chunks that were read are in the head.
    if report.from == ReadFrom::Log {
        let head_chunks = head_chunks::check(&fs, &dir, head, &report.head.aliases, oldest.0);
        let head_chunks = head_chunks.map_err(|error| error.to_string())?;
        tracing::warn!(
            component = "tsdb",
            ?head_chunks,
            "Head chunks do not go with the log and were left as they are"
        );
    }
    for damage in &report.log.damage {
        tracing::error!(component = "tsdb", ?damage, "The log was damaged and has been repaired");
    }
    tracing::info!(
        component = "tsdb",
        blocks = blocks.blocks.len(),
        series = report.head.series,
        samples = report.head.samples,
        from = ?report.from,
        took = ?report.took,
        "WAL replay completed"
    );
    Ok(OpenStorage { lock, writer, fs, dir, aliases: report.head.aliases })
}
