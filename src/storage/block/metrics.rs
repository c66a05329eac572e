//! Prometheus's metrics about blocks, compactions and retention.

use crate::storage::block::catalog::CatalogState;
use crate::storage::block::retention::RetentionRule;
use crate::telemetry::metrics::{Counter, Gauge, Histogram, Registry};

/// Handles of the metrics.
#[derive(Clone)]
pub struct BlockMetrics {
    loaded: Gauge,
    bytes: Gauge,
    symbol_bytes: Gauge,
    damaged: Gauge,
    pub(super) corruptions: Counter,
    limit_bytes: Gauge,
    limit_seconds: Gauge,
    limit_percent: Gauge,
    /// Stays zero: compaction is always on.
    #[expect(dead_code, reason = "a counter that clients look for")]
    skipped: Counter,
    pub(super) reloads: Counter,
    pub(super) reloads_failed: Counter,
    pub(super) time_retentions: Counter,
    pub(super) size_retentions: Counter,
    /// Rounds of compaction begun.
    pub triggered: Counter,
    /// Rounds that ended in an error.
    pub failed: Counter,
    /// Blocks written.
    pub compactions: Counter,
    /// Blocks written from overlapping ones.
    pub vertical: Counter,
    /// 1 while a block is being written.
    pub populating: Gauge,
    /// Seconds that writing a block took.
    pub duration: Histogram,
    /// Seconds that writing blocks anew without deleted samples took.
    pub tombstone_cleanup: Histogram,
    /// Series of the head that had ended when it was last looked.
    pub ended: Gauge,
    /// Compactions of series that have ended, begun.
    pub ended_triggered: Counter,
    /// Those that ended in an error.
    pub ended_failed: Counter,
    /// Seconds that they took.
    pub ended_duration: Histogram,
    /// Of chunks that leave the head: bytes.
    pub chunk_size: Histogram,
    /// Samples.
    pub chunk_samples: Histogram,
    /// Milliseconds, as in Prometheus, whatever the name says.
    pub chunk_range: Histogram,
}

/// `count` bounds from `start` on, each `factor` times the one before.
fn exponential(start: f64, factor: f64, count: usize) -> Vec<f64> {
    std::iter::successors(Some(start), |bound| Some(bound * factor)).take(count).collect()
}

impl BlockMetrics {
    /// Registers them.
    pub fn new(registry: &Registry) -> Self {
        let gauge = |name: &str, help: &str| registry.gauge(name, help, &[]);
        let counter = |name: &str, help: &str| registry.counter(name, help, &[]);
        let histogram = |name: &str, help: &str, bounds: Vec<f64>| registry.histogram(name, help, &[], &bounds);
        Self {
            loaded: gauge("prometheus_tsdb_blocks_loaded", "Number of currently loaded data blocks"),
            bytes: gauge(
                "prometheus_tsdb_storage_blocks_bytes",
                "The number of bytes that are currently used for local storage by all blocks.",
            ),
            symbol_bytes: gauge(
                "prometheus_tsdb_symbol_table_size_bytes",
                "Size of symbol table in memory for loaded blocks",
            ),
            damaged: gauge("watchfire_blocks_damaged", "Blocks that cannot be read and are left out."),
            corruptions: counter(
                "watchfire_block_corruptions_total",
                "Damage found in blocks: blocks that cannot be opened, and parts that cannot be read.",
            ),
            limit_bytes: gauge(
                "prometheus_tsdb_retention_limit_bytes",
                "Max number of bytes to be retained in the tsdb blocks, configured 0 means disabled",
            ),
            limit_percent: gauge(
                "prometheus_tsdb_retention_limit_percentage",
                "Max percentage of total storage space to be retained in the tsdb blocks, configured 0 means disabled",
            ),
            limit_seconds: gauge("prometheus_tsdb_retention_limit_seconds", "How long to retain samples in storage."),
            skipped: counter(
                "prometheus_tsdb_compactions_skipped_total",
                "Total number of skipped compactions due to disabled auto compaction.",
            ),
            reloads: counter(
                "prometheus_tsdb_reloads_total",
                "Number of times the database reloaded block data from disk.",
            ),
            reloads_failed: counter(
                "prometheus_tsdb_reloads_failures_total",
                "Number of times the database failed to reloadBlocks block data from disk.",
            ),
            time_retentions: counter(
                "prometheus_tsdb_time_retentions_total",
                "The number of times that blocks were deleted because the maximum time limit was exceeded.",
            ),
            size_retentions: counter(
                "prometheus_tsdb_size_retentions_total",
                "The number of times that blocks were deleted because the maximum number of bytes was exceeded.",
            ),
            triggered: counter(
                "prometheus_tsdb_compactions_triggered_total",
                "Total number of triggered compactions for the partition.",
            ),
            failed: counter(
                "prometheus_tsdb_compactions_failed_total",
                "Total number of compactions that failed for the partition.",
            ),
            compactions: counter(
                "prometheus_tsdb_compactions_total",
                "Total number of compactions that were executed for the partition.",
            ),
            vertical: counter(
                "prometheus_tsdb_vertical_compactions_total",
                "Total number of compactions done on overlapping blocks.",
            ),
            populating: gauge(
                "prometheus_tsdb_compaction_populating_block",
                "Set to 1 when a block is currently being written to the disk.",
            ),
            duration: histogram(
                "prometheus_tsdb_compaction_duration_seconds",
                "Duration of compaction runs",
                exponential(1.0, 2.0, 14),
            ),
            tombstone_cleanup: histogram(
                "prometheus_tsdb_tombstone_cleanup_seconds",
                "The time taken to recompact blocks to remove tombstones.",
                Vec::new(),
            ),
            ended: gauge("prometheus_tsdb_head_stale_series", "Total number of stale series in the head block."),
            ended_triggered: counter(
                "prometheus_tsdb_stale_series_compactions_triggered_total",
                "Total number of triggered stale series compactions.",
            ),
            ended_failed: counter(
                "prometheus_tsdb_stale_series_compactions_failed_total",
                "Total number of stale series compactions that failed.",
            ),
            ended_duration: histogram(
                "prometheus_tsdb_stale_series_compaction_duration_seconds",
                "Duration of stale series compaction runs.",
                exponential(1.0, 2.0, 14),
            ),
            chunk_size: histogram(
                "prometheus_tsdb_compaction_chunk_size_bytes",
                "Final size of chunks on their first compaction",
                exponential(32.0, 1.5, 12),
            ),
            chunk_samples: histogram(
                "prometheus_tsdb_compaction_chunk_samples",
                "Final number of samples on their first compaction",
                exponential(4.0, 1.5, 12),
            ),
            chunk_range: histogram(
                "prometheus_tsdb_compaction_chunk_range_seconds",
                "Final time range of chunks on their first compaction",
                exponential(100.0, 4.0, 10),
            ),
        }
    }

    /// Shows the limits in effect.
    pub fn set_retention(&self, retention: RetentionRule) {
        self.limit_percent.set(retention.disk_percent);
        self.limit_bytes.set(retention.len_max as f64);
        self.limit_seconds.set(retention.time_ms as f64 / 1000.0);
    }

    pub(super) fn measure(&self, state: &CatalogState) {
        self.loaded.set(state.blocks.len() as f64);
        self.bytes.set(state.len() as f64);
        self.symbol_bytes.set(state.blocks.iter().map(|block| block.index.symbol_steps_len()).sum::<usize>() as f64);
        self.damaged.set(state.damaged.len() as f64);
    }
}
