//! Figures of the head, for its metrics (`prometheus_tsdb_head_*`) and for the status page.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::storage::head::shared::{HeadShared, LATE_BOUNDS_S};

/// A reading of the head's counters. Counters start with the process; gauges are as of now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeadStats {
    /// `prometheus_tsdb_head_series`: series in the head.
    pub series: u64,
    /// `prometheus_tsdb_head_chunks`: chunks in the head, open ones included.
    pub chunks: u64,
    /// `prometheus_tsdb_head_min_time`: oldest sample, or the bound of the last truncation; milliseconds.
    pub min_time: Option<i64>,
    /// `prometheus_tsdb_head_max_time`: newest sample; milliseconds.
    pub max_time: Option<i64>,
    /// `prometheus_tsdb_head_samples_appended_total{type="float"}`.
    pub samples_appended: u64,
    /// `prometheus_tsdb_head_samples_appended_total{type="histogram"}`.
    pub histograms_appended: u64,
    /// `prometheus_tsdb_head_series_created_total`.
    pub series_created: u64,
    /// `prometheus_tsdb_head_series_removed_total`.
    pub series_removed: u64,
    /// `prometheus_tsdb_head_series_not_found_total`.
    pub series_not_found: u64,
    /// `prometheus_tsdb_head_chunks_created_total`.
    pub chunks_created: u64,
    /// `prometheus_tsdb_head_chunks_removed_total`.
    pub chunks_removed: u64,
    /// `prometheus_tsdb_mmap_chunks_total`: finished chunks that were written to files.
    pub chunks_written: u64,
    /// `watchfire_head_chunk_writes_failed_total`.
    pub chunk_writes_failed: u64,
    /// `prometheus_tsdb_out_of_order_samples_total`, of both types.
    pub out_of_order: u64,
    /// Of these, histograms.
    pub out_of_order_histograms: u64,
    /// `prometheus_tsdb_too_old_samples_total{type="float"}`.
    pub too_old: u64,
    /// `prometheus_tsdb_too_old_samples_total{type="histogram"}`.
    pub too_old_histograms: u64,
    /// `prometheus_tsdb_head_out_of_order_samples_appended_total{type="float"}`.
    pub late_floats: u64,
    /// `prometheus_tsdb_head_out_of_order_samples_appended_total{type="histogram"}`.
    pub late_histograms: u64,
    /// `prometheus_tsdb_sample_ooo_delta`: samples by how late they came.
    pub late_by: LateCounts,
    /// Series that have late samples.
    pub late_series: u64,
    /// `prometheus_tsdb_out_of_bound_samples_total{type="float"}`.
    pub out_of_bounds: u64,
    /// Samples refused because another value stands at their time.
    pub duplicates: u64,
    /// Series refused for want of room or labels.
    pub series_refused: u64,
    /// Staged slices that were given up.
    pub commits_abandoned: u64,
    /// `prometheus_tsdb_head_truncations_total`, counted for each shard.
    pub truncations: u64,
    /// Bytes of the index segments.
    pub index_bytes: usize,
    /// Live read views.
    pub views: usize,
    /// `prometheus_tsdb_isolation_low_watermark`.
    pub low_watermark: u64,
    /// `prometheus_tsdb_isolation_high_watermark`.
    pub high_watermark: u64,
}

/// Samples by how far they lay behind the newest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LateCounts {
    /// Upper bound in seconds (`None`: none), and how many are within it.
    pub cumulative: Vec<(Option<i64>, u64)>,
    /// Sum in milliseconds.
    pub sum_ms: u64,
}

impl HeadStats {
    pub(crate) fn of(shared: &HeadShared) -> Self {
        let counters = &shared.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let span = shared.time_span();
        let (created, removed) = (read(&counters.chunks_created), read(&counters.chunks_removed));
        Self {
            series: shared.series_count(),
            chunks: created.saturating_sub(removed),
            min_time: span.map(|(min, _)| min),
            max_time: span.map(|(_, max)| max),
            samples_appended: read(&counters.samples_appended),
            histograms_appended: read(&counters.histograms_appended),
            series_created: read(&counters.series_created),
            series_removed: read(&counters.series_removed),
            series_not_found: read(&counters.series_not_found),
            chunks_created: created,
            chunks_removed: removed,
            chunks_written: shared.chunk_store().map_or(0, |store| store.written()),
            chunk_writes_failed: shared.chunk_store().map_or(0, |store| store.failed()),
            out_of_order: read(&counters.out_of_order),
            out_of_order_histograms: read(&counters.out_of_order_histograms),
            too_old: read(&counters.too_old),
            too_old_histograms: read(&counters.too_old_histograms),
            late_floats: read(&counters.late_floats),
            late_histograms: read(&counters.late_histograms),
            late_by: late_counts(shared),
            late_series: 0,
            out_of_bounds: read(&counters.out_of_bounds),
            duplicates: read(&counters.duplicates),
            series_refused: read(&counters.series_refused),
            commits_abandoned: read(&counters.commits_abandoned),
            truncations: read(&counters.truncations),
            index_bytes: 0,
            views: shared.horizon.view_count(),
            low_watermark: shared.horizon.low_watermark().get(),
            high_watermark: shared.horizon.newest().get(),
        }
    }
}

fn late_counts(shared: &HeadShared) -> LateCounts {
    let late_by = &shared.counters.late_by;
    let mut all = 0;
    let bounds = LATE_BOUNDS_S.into_iter().map(Some).chain([None]);
    let cumulative = bounds.zip(&late_by.buckets).map(|(bound, bucket)| {
        all += bucket.load(Ordering::Relaxed);
        (bound, all)
    });
    LateCounts { cumulative: cumulative.collect(), sum_ms: late_by.sum_ms.load(Ordering::Relaxed) }
}
