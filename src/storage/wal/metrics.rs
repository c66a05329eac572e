//! The log's own metrics, under Prometheus's names.

use std::sync::Arc;

use crate::model::clock::SharedClock;
use crate::storage::head_chunk_store::ChunkCounters;
use crate::storage::wal::fragment::Compression;
use crate::storage::wal::progress::ReplayProgress;
use crate::telemetry::metrics::{Counter, Gauge, Registry};
use crate::telemetry::summary::Summary;

/// Handles of the log's metrics. Clones share the values.
#[derive(Clone)]
pub struct WalMetrics {
    /// `prometheus_tsdb_wal_fsync_duration_seconds`.
    pub fsync_seconds: Summary,
    /// `prometheus_tsdb_wal_page_flushes_total`.
    pub page_flushes: Counter,
    /// `prometheus_tsdb_wal_completed_pages_total`.
    pub completed_pages: Counter,
    /// `prometheus_tsdb_wal_truncations_failed_total`.
    pub truncations_failed: Counter,
    /// `prometheus_tsdb_wal_truncations_total`.
    pub truncations: Counter,
    /// `prometheus_tsdb_wal_segment_current`.
    pub segment_current: Gauge,
    /// `prometheus_tsdb_wal_writes_failed_total`.
    pub writes_failed: Counter,
    /// `prometheus_tsdb_wal_storage_size_bytes`.
    pub storage_bytes: Gauge,
    /// `prometheus_tsdb_wal_record_part_writes_total`.
    pub part_writes: Counter,
    /// `prometheus_tsdb_wal_record_parts_bytes_written_total`.
    pub part_bytes: Counter,
    /// `prometheus_tsdb_wal_record_bytes_saved_total`, for the compression in use.
    pub bytes_saved: Counter,
    /// `prometheus_tsdb_wal_corruptions_total`.
    pub corruptions: Counter,
    /// `prometheus_tsdb_mmap_chunk_corruptions_total`.
    pub chunk_corruptions: Counter,
    /// `prometheus_tsdb_snapshot_replay_error_total`.
    pub snapshot_errors: Counter,
    /// `watchfire_wal_refusing`.
    pub refusing: Gauge,
    /// `watchfire_wal_lost_samples_total`.
    pub lost_samples: Counter,
    /// `prometheus_tsdb_checkpoint_creations_total`.
    pub checkpoints: Counter,
    /// `prometheus_tsdb_checkpoint_creations_failed_total`.
    pub checkpoints_failed: Counter,
    /// `prometheus_tsdb_checkpoint_deletions_total`.
    pub checkpoint_deletions: Counter,
    /// `prometheus_tsdb_checkpoint_deletions_failed_total`.
    pub checkpoint_deletions_failed: Counter,
    /// `prometheus_tsdb_wal_truncate_duration_seconds`.
    pub truncate_seconds: Summary,
    /// `prometheus_tsdb_clean_start`.
    pub clean_start: Gauge,
    /// `prometheus_tsdb_data_replay_duration_seconds`.
    pub replay_seconds: Gauge,
    /// `prometheus_tsdb_wal_replay_unknown_refs_total{type="samples"}`.
    pub unknown_sample_refs: Counter,
    /// How far reading the log back is.
    pub progress: Arc<ReplayProgress>,
    /// Metadata whose series the log does not name.
    pub unknown_metadata_refs: Counter,
    /// Exemplars whose series the log does not name.
    pub unknown_exemplar_refs: Counter,
    pub(crate) clock: SharedClock,
}

impl WalMetrics {
    /// Registers the metrics, at zero, for a log that is compressed with Snappy.
    pub fn new(registry: &Registry, clock: &SharedClock) -> Self {
        Self::of(registry, clock, Compression::Snappy)
    }

    /// The same for a log that is compressed as given.
    pub fn of(registry: &Registry, clock: &SharedClock, compression: Compression) -> Self {
        Self::named(["prometheus_tsdb_wal"; 2], registry, clock, compression)
    }

    /// The metrics of the log of samples that came out of order.
    pub fn of_late(registry: &Registry, clock: &SharedClock, compression: Compression) -> Self {
        Self::named(["prometheus_tsdb_out_of_order_wbl", "prometheus_tsdb_wbl"], registry, clock, compression)
    }

    /// Of a log and of reading it back. Damage and checkpoints are counted for all logs together.
    fn named([written, read]: [&str; 2], registry: &Registry, clock: &SharedClock, compression: Compression) -> Self {
        let name = |name: &str| format!("{written}_{name}");
        let counter = |of: &str, help: &str| registry.counter(&name(of), help, &[]);
        let gauge = |of: &str, help: &str| registry.gauge(&name(of), help, &[]);
        let quantiles = [0.5, 0.9, 0.99];
        let fsync = "Duration of write log fsync.";
        let log = if written == read { "WAL" } else { "WBL" };
        let unknown = &format!("Total number of unknown series references encountered during {log} replay.");
        let part_bytes =
            "Total number of record part bytes written before flushing, including CRC and compression headers.";
        let saved = "Total number of bytes saved by the optional record compression. Use this metric to learn about the effectiveness compression.";
        let total = |of: &str, help: &str| registry.counter(&format!("prometheus_tsdb_checkpoint_{of}"), help, &[]);
        Self {
            fsync_seconds: registry.summary(&name("fsync_duration_seconds"), fsync, &[], &quantiles, clock),
            page_flushes: counter("page_flushes_total", "Total number of page flushes."),
            completed_pages: counter("completed_pages_total", "Total number of completed pages."),
            truncations_failed: counter(
                "truncations_failed_total",
                "Total number of write log truncations that failed.",
            ),
            truncations: counter("truncations_total", "Total number of write log truncations attempted."),
            segment_current: gauge("segment_current", "Write log segment index that TSDB is currently writing to."),
            writes_failed: counter("writes_failed_total", "Total number of write log writes that failed."),
            storage_bytes: gauge("storage_size_bytes", "Size of the write log directory."),
            part_writes: counter("record_part_writes_total", "Total number of record parts written before flushing."),
            part_bytes: counter("record_parts_bytes_written_total", part_bytes),
            bytes_saved: registry.counter(
                &name("record_bytes_saved_total"),
                saved,
                &[("compression", compression.as_str())],
            ),
            corruptions: registry.counter(
                "prometheus_tsdb_wal_corruptions_total",
                "Total number of WAL corruptions.",
                &[],
            ),
            chunk_corruptions: registry.counter(
                "prometheus_tsdb_mmap_chunk_corruptions_total",
                "Total number of memory-mapped chunk corruptions.",
                &[],
            ),
            snapshot_errors: registry.counter(
                "prometheus_tsdb_snapshot_replay_error_total",
                "Total number snapshot replays that failed.",
                &[],
            ),
            refusing: registry.gauge(
                "watchfire_wal_refusing",
                "1 while the disk does not take the write log, so that samples are refused.",
                &[],
            ),
            lost_samples: registry.counter(
                "watchfire_wal_lost_samples_total",
                "Samples that damage of the write log has cost, as far as it can be told.",
                &[],
            ),
            checkpoints: total("creations_total", "Total number of checkpoint creations attempted."),
            checkpoints_failed: total("creations_failed_total", "Total number of checkpoint creations that failed."),
            checkpoint_deletions: total("deletions_total", "Total number of checkpoint deletions attempted."),
            checkpoint_deletions_failed: total(
                "deletions_failed_total",
                "Total number of checkpoint deletions that failed.",
            ),
            truncate_seconds: registry.summary(
                "prometheus_tsdb_wal_truncate_duration_seconds",
                "Duration of WAL truncation.",
                &[],
                &[],
                clock,
            ),
            clean_start: registry.gauge(
                "prometheus_tsdb_clean_start",
                "-1: lockfile is disabled. 0: a lockfile from a previous execution was replaced. 1: lockfile creation was clean",
                &[],
            ),
            replay_seconds: registry.gauge(
                "prometheus_tsdb_data_replay_duration_seconds",
                "Time taken to replay the data on disk.",
                &[],
            ),
            unknown_sample_refs: registry.counter(
                &format!("{read}_replay_unknown_refs_total"),
                unknown,
                &[("type", "samples")],
            ),
            unknown_metadata_refs: registry.counter(
                &format!("{read}_replay_unknown_refs_total"),
                unknown,
                &[("type", "metadata")],
            ),
            unknown_exemplar_refs: registry.counter(
                &format!("{read}_replay_unknown_refs_total"),
                unknown,
                &[("type", "exemplars")],
            ),
            progress: Arc::default(),
            clock: clock.clone(),
        }
    }

    /// What counts damage of head chunks.
    pub fn of_chunks(&self) -> ChunkCounters {
        ChunkCounters { damaged: self.chunk_corruptions.clone(), lost_samples: self.lost_samples.clone() }
    }
}
