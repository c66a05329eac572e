//! Opening the data directory: lock it, open the blocks, read the log back.

use std::path::PathBuf;
use std::sync::Arc;

use crate::actors::storage_shard::Journal;
use crate::cli::flags::{ServerFlags, StorageFlags, WalCompression, WalSync};
use crate::cli::server::upkeep::Retention;
use crate::config::StorageConfig;
use crate::model::clock::{Clock, SharedClock};
use crate::model::steady_clock::SteadyClock;
use crate::model::time::TimestampMs;
use crate::storage::block::catalog::Catalog;
use crate::storage::chunk_snapshot::{self, Stop};
use crate::storage::clock_file;
use crate::storage::fs::SharedFs;
use crate::storage::head::Head;
use crate::storage::head_chunk_store;
use crate::storage::head_chunks::{self, HeadChunksError, HeadChunksReport};
use crate::storage::lock::DirLock;
use crate::storage::replay::{self, Aliases, ReadFrom, ReplayReport};
use crate::storage::wal::fragment::Compression;
use crate::storage::wal::loss::Loss;
use crate::storage::wal::metrics::WalMetrics;
use crate::storage::wal::writer::{Position, Writer};
use crate::storage::wal::{SEGMENT_LEN, SegmentDamage, WalOptions};
use crate::storage::wbl::LateLog;

/// An open data directory.
pub(super) struct OpenStorage {
    pub(super) lock: DirLock,
    pub(super) writer: Writer,
    pub(super) late_log: LateLog,
    pub(super) late_chunk_file: Option<u64>,
    pub(super) fs: SharedFs,
    pub(super) dir: PathBuf,
    pub(super) aliases: Aliases,
}

/// Whether floats of new blocks are written as XOR2.
pub(super) fn writes_xor2(is_preferred: bool, config: &StorageConfig) -> bool {
    match config.tsdb.as_ref().map_or("", |tsdb| tsdb.chunk_encoding.floats.as_str()) {
        "" => is_preferred,
        floats => floats == "xor2",
    }
}

/// Refuses start times where their chunks have no room for them. The text is Prometheus's.
pub(super) fn check_starts(flags: &ServerFlags, config: &StorageConfig) -> Result<(), String> {
    have_starts_room(flags.features.is_enabled("st-storage"), flags.features.is_enabled("xor2-encoding"), config)
}

fn have_starts_room(are_stored: bool, is_preferred: bool, config: &StorageConfig) -> Result<(), String> {
    if are_stored && !writes_xor2(is_preferred, config) {
        let reason = "XOR chunks do not store start timestamps, use \"xor2\"";
        return Err(format!("float chunk encoding \"xor\" is incompatible with start-timestamp storage; {reason}"));
    }
    Ok(())
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
    if head.stores_starts() {
        // The format has no room for start times, which the log has.
        tracing::info!(component = "tsdb", "No chunk snapshot is written, as start timestamps are stored");
        return;
    }
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
    (metrics, late_metrics): (&WalMetrics, &WalMetrics),
    (steady, retention): (&SteadyClock, &Retention),
) -> Result<OpenStorage, String> {
    let fs = catalog.fs().clone();
    let dir = flags.path.clone();
    let lock = if flags.lockfile { DirLock::acquire(&fs, &dir) } else { DirLock::disabled(&fs, &dir) };
    let lock = lock.map_err(|error| error.to_string())?;
    metrics.clean_start.set(lock.clean_start().value());
    if let Some(memory) = clock_file::load(&*fs, &dir) {
        steady.remember(&memory);
    }
    let begun = steady.monotonic();
    let options = options_of(flags);
    catalog.open().map_err(|error| error.to_string())?;
    let blocks = catalog.state();
    // What stands in blocks is not needed in the head as well.
    let oldest = TimestampMs(blocks.whole_until().unwrap_or(i64::MIN));
    let opened = replay::open(&fs, &dir, options, metrics, head, oldest);
    let (writer, report) = opened.map_err(|error| error.to_string())?;
    metrics.replay_seconds.set(steady.monotonic().saturating_sub(begun).as_secs_f64());
    // By the clock alone, one that is a year ahead would hide everything.
    let newest = head.stats().max_time.max(blocks.blocks.iter().map(|block| block.meta().max_time).max());
    let mut oldest = oldest;
    if let Some(newest) = newest.map(TimestampMs) {
        steady.compare(newest);
        if let Some(bound) = retention.bound(newest.min(steady.aging())) {
            oldest = oldest.max(bound);
            head.truncate_blocking(oldest);
        }
    }
    // Chunks that were read are in the head.
    if report.from == ReadFrom::Log {
        let head_chunks = head_chunks::check(&fs, &dir, head, &report.head.aliases, oldest.0);
        let log_is_damaged = report.log.lost != Loss::default() || 0 < report.head.unknown_refs;
        let head_chunks = match head_chunks {
            // What damage of the log has cost is told; the files stay, should somebody read them.
            Err(error @ HeadChunksError::NotInLog { .. }) if log_is_damaged => {
                tracing::error!(component = "tsdb", err = %error, "The log was damaged, and head chunks hold more than is left of it");
                HeadChunksReport::default()
            }
            checked => {
                let checked = checked.map_err(|error| error.to_string())?;
                // Chunks that were not used would stand beside those that are written from now on.
                if !log_is_damaged {
                    // Nor would a snapshot go with what is left, for a program that does not look.
                    if let Err(error) = chunk_snapshot::remove_all(&fs, &dir, None) {
                        tracing::warn!(component = "tsdb", err = %error, "A chunk snapshot cannot be removed");
                    }
                    match head_chunk_store::begin_anew(&fs, &dir, metrics.of_chunks()) {
                        Ok(store) => head.attach_chunks(store),
                        Err(error) => {
                            tracing::warn!(component = "tsdb", err = %error, "Head chunks cannot be removed");
                        }
                    }
                }
                checked
            }
        };
        metrics.chunk_corruptions.add(head_chunks.damaged);
        tracing::warn!(
            component = "tsdb",
            ?head_chunks,
            "Head chunks do not go with the log, which holds their samples"
        );
    }
    late_metrics.unknown_sample_refs.add(report.head.late_unknown_refs);
    for damage in report.log.damage.iter().chain(&report.late_log.damage) {
        tracing::error!(component = "tsdb", ?damage, "The log was damaged and has been repaired");
    }
    metrics.progress.found(damage_of(&report));
    if 0 < report.head.unknown_refs {
        tracing::warn!(component = "tsdb", samples = report.head.unknown_refs, range = ?report.head.unknown_span,
            "The log holds samples of series that it does not name; they are not shown");
    }
    tracing::info!(
        component = "tsdb",
        blocks = blocks.blocks.len(),
        series = report.head.series,
        samples = report.head.samples,
        late_samples = report.head.late,
        from = ?report.from,
        took = ?report.took,
        "WAL replay completed"
    );
    let mut late_log = LateLog::new(fs.clone(), &dir, options, late_metrics.clone());
    if let Err(error) = late_log.repeat(&report.late_again) {
        // Only chunks that are written make it matter.
        tracing::error!(component = "tsdb", err = %error,
            "The log of late samples is not written: head chunks stay in memory until the next start");
        head.chunk_store().iter().for_each(|store| store.give_up());
    }
    let (aliases, late_chunk_file) = (report.head.aliases, report.late_chunk_file);
    Ok(OpenStorage { lock, writer, late_log, late_chunk_file, fs, dir, aliases })
}

/// What reading the directory back has found damaged or missing, one place a line.
fn damage_of(report: &ReplayReport) -> Vec<String> {
    let (log, late) = (&report.log, &report.late_log);
    let place = |damage: &SegmentDamage| {
        let SegmentDamage { path, offset, error, loss, .. } = damage;
        format!("{}, byte {offset}: {error}; {loss}", path.display())
    };
    // The unfinished end that a crash leaves is none.
    let damaged = log.damage.iter().chain(&late.damage).filter(|damage| !damage.torn_end);
    let mut lines: Vec<String> = damaged.map(place).collect();
    let missing = [&log.missing, &log.missing_files, &late.missing, &late.missing_files];
    lines.extend(missing.into_iter().flatten().map(|one| format!("{} is missing; {}", one.path.display(), one.loss)));
    if 0 < report.head.unknown_refs {
        let loss = Loss { samples: report.head.unknown_refs, range: report.head.unknown_span, ..Loss::default() };
        lines.push(format!("series that the log does not name any more: {loss}"));
    }
    lines.extend(report.chunk_damage.iter().map(|damage| match damage.len {
        0 => format!("{} is missing; {}", damage.path.display(), damage.loss),
        len => format!("{}, byte {}: {len} bytes are damaged; {}", damage.path.display(), damage.offset, damage.loss),
    }));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::storage::{ChunkEncodingConfig, TsdbConfig};

    #[test]
    fn the_encoding_of_floats_is_what_configuration_or_feature_say() {
        let said = |floats: &str| {
            let chunk_encoding = ChunkEncodingConfig { floats: floats.to_owned() };
            StorageConfig {
                tsdb: Some(TsdbConfig { chunk_encoding, ..TsdbConfig::default() }),
                ..StorageConfig::default()
            }
        };
        let nothing = StorageConfig::default();
        for (is_preferred, config, is_xor2) in [
            (false, &nothing, false),
            (true, &nothing, true),
            (false, &said(""), false),
            (true, &said(""), true),
            (true, &said("xor"), false),
            (false, &said("xor2"), true),
        ] {
            assert_eq!(writes_xor2(is_preferred, config), is_xor2);
            assert_eq!(have_starts_room(false, is_preferred, config), Ok(()));
            let refused = "float chunk encoding \"xor\" is incompatible with start-timestamp storage; \
                           XOR chunks do not store start timestamps, use \"xor2\"";
            let expected = if is_xor2 { Ok(()) } else { Err(refused.to_owned()) };
            assert_eq!(have_starts_room(true, is_preferred, config), expected);
        }
    }
}
