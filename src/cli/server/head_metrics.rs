//! Prometheus's metrics about the head, read from storage when they are gathered.

use parking_lot::Mutex;

use crate::actors::storage_client::StorageClient;
use crate::model::labels::Labels;
use crate::storage::head::exemplars::ExemplarStats;
use crate::storage::head::stats::LateCounts;
use crate::telemetry::metrics::{MetricFamily, MetricKind, MetricValue, Registry};

/// Registers the figures of the head.
pub(super) fn register(registry: &Registry, storage: &StorageClient) {
    let storage = storage.clone();
    let for_exemplars = storage.clone();
    registry.collect_with(move || families(&storage));
    registry.collect_with(move || exemplar_families(for_exemplars.exemplar_stats()));
}

fn exemplar_families(stats: ExemplarStats) -> Vec<MetricFamily> {
    let single = |name: &str, help: &str, kind: MetricKind, value: f64| {
        MetricFamily::single(&format!("prometheus_tsdb_exemplar_{name}"), help, kind, value)
    };
    use MetricKind::{Counter, Gauge};
    vec![
        single("exemplars_appended_total", "Total number of appended exemplars.", Counter, stats.appended as f64),
        single("exemplars_in_storage", "Number of exemplars currently in circular storage.", Gauge, stats.held as f64),
        single(
            "series_with_exemplars_in_storage",
            "Number of series with exemplars currently in circular storage.",
            Gauge,
            stats.series as f64,
        ),
        single(
            "last_exemplars_timestamp_seconds",
            "The timestamp of the oldest exemplar stored in circular storage. Useful to check for what timerange the current exemplar buffer limit allows. This usually means the last timestampfor all exemplars for a typical setup. This is not true though if one of the series timestamp is in future compared to rest series.",
            Gauge,
            stats.oldest_at as f64 / 1000.0,
        ),
        single(
            "out_of_order_exemplars_total",
            "Total number of out of order exemplar ingestion failed attempts.",
            Counter,
            stats.out_of_order as f64,
        ),
        single(
            "max_exemplars",
            "Total number of exemplars the exemplar storage can store, resizeable.",
            Gauge,
            stats.capacity as f64,
        ),
    ]
}

/// Names of the server's metrics and the agent's for the same.
const AGENT_NAMES: [(&str, &str); 11] = [
    ("prometheus_tsdb_checkpoint_creations_failed_total", "prometheus_agent_checkpoint_creations_failed_total"),
    ("prometheus_tsdb_checkpoint_creations_total", "prometheus_agent_checkpoint_creations_total"),
    ("prometheus_tsdb_checkpoint_deletions_failed_total", "prometheus_agent_checkpoint_deletions_failed_total"),
    ("prometheus_tsdb_checkpoint_deletions_total", "prometheus_agent_checkpoint_deletions_total"),
    ("prometheus_tsdb_clean_start", "prometheus_agent_clean_start"),
    ("prometheus_tsdb_data_replay_duration_seconds", "prometheus_agent_data_replay_duration_seconds"),
    ("prometheus_tsdb_exemplar_exemplars_appended_total", "prometheus_agent_exemplars_appended_total"),
    ("prometheus_tsdb_head_series", "prometheus_agent_active_series"),
    ("prometheus_tsdb_out_of_order_samples_total", "prometheus_agent_out_of_order_samples_total"),
    ("prometheus_tsdb_wal_corruptions_total", "prometheus_agent_corruptions_total"),
    ("prometheus_tsdb_wal_truncate_duration_seconds", "prometheus_agent_truncate_duration_seconds"),
];
/// Begins of names that an agent does not have, and of those among them that it has.
const NOT_OF_AGENTS: [&str; 4] = ["prometheus_tsdb_", "prometheus_engine_", "prometheus_rule_", "alertmanager_"];
const OF_AGENTS: [&str; 1] = ["prometheus_tsdb_wal_"];

/// Families as an agent shows them.
fn agent_view(mut family: MetricFamily) -> Option<MetricFamily> {
    if let Some((_, name)) = AGENT_NAMES.iter().find(|(of_server, _)| *of_server == family.name) {
        let help = match *name {
            "prometheus_agent_active_series" => "Number of active series being tracked by the WAL storage",
            "prometheus_agent_exemplars_appended_total" => "Total number of exemplars appended to the storage",
            "prometheus_agent_out_of_order_samples_total" => {
                let number = |value: &MetricValue| if let MetricValue::Number(n) = value { *n } else { 0.0 };
                let all = family.metrics.iter().map(|(_, value)| number(value)).sum();
                family.metrics = vec![(Labels::empty(), MetricValue::Number(all))];
                "Total number of out of order samples ingestion failed attempts."
            }
            _ => family.help.as_str(),
        };
        return Some(MetricFamily { help: help.to_owned(), name: (*name).to_owned(), ..family });
    }
    let begins = |names: &[&str]| names.iter().any(|begin| family.name.starts_with(begin));
    (begins(&OF_AGENTS) && !family.name.ends_with("_unknown_refs_total") || !begins(&NOT_OF_AGENTS)).then_some(family)
}

/// Registers what Prometheus's agent says of its storage, and shows the rest as it does.
pub(super) fn register_agent(registry: &Registry, storage: &StorageClient) {
    registry.set_view(agent_view);
    let storage = storage.clone();
    let help = "Total number of checkpoint creations attempted.";
    let checkpoints = registry.counter("prometheus_tsdb_checkpoint_creations_total", help, &[]);
    // What was removed at the last checkpoint that was seen: the log does not name it any more.
    let forgotten = Mutex::new((0, 0));
    registry.collect_with(move || {
        let stats = storage.stats();
        let made = checkpoints.get();
        let mut forgotten = forgotten.lock();
        if forgotten.0 < made {
            *forgotten = (made, stats.series_removed);
        }
        let deleted = stats.series_removed.saturating_sub(forgotten.1);
        let help = "Total number of samples appended to the storage";
        let appended = [("float", stats.samples_appended), ("histogram", stats.histograms_appended)];
        let of_kind = |(kind, n): (&str, u64)| (Labels::from_pairs([("type", kind)]), MetricValue::Number(n as f64));
        vec![
            MetricFamily::single(
                "prometheus_agent_deleted_series",
                "Number of series pending deletion from the WAL",
                MetricKind::Gauge,
                deleted as f64,
            ),
            MetricFamily {
                name: "prometheus_agent_samples_appended_total".to_owned(),
                help: help.to_owned(),
                kind: MetricKind::Counter,
                metrics: appended.into_iter().filter(|(kind, n)| *kind == "float" || 0 < *n).map(of_kind).collect(),
            },
        ]
    });
}

fn families(storage: &StorageClient) -> Vec<MetricFamily> {
    let stats = storage.stats();
    let gauge = |name: &str, help: &str, value: f64| MetricFamily::single(name, help, MetricKind::Gauge, value);
    let counter =
        |name: &str, help: &str, value: u64| MetricFamily::single(name, help, MetricKind::Counter, value as f64);
    let floats = |name: &str, help: &str, value: u64| MetricFamily {
        name: name.to_owned(),
        help: help.to_owned(),
        kind: MetricKind::Counter,
        metrics: vec![(Labels::from_pairs([("type", "float")]), MetricValue::Number(value as f64))],
    };
    let both = |name: &str, help: &str, values: [u64; 2]| MetricFamily {
        name: name.to_owned(),
        help: help.to_owned(),
        kind: MetricKind::Counter,
        metrics: ["float", "histogram"]
            .into_iter()
            .zip(values)
            .map(|(kind, n)| (Labels::from_pairs([("type", kind)]), MetricValue::Number(n as f64)))
            .collect(),
    };
    // An empty head reports the extremes, as Prometheus does.
    let min_ms = stats.min_time.unwrap_or(i64::MAX);
    let max_ms = stats.max_time.unwrap_or(i64::MIN);
    let lowest_ms = storage.blocks_min_time().map_or(min_ms, |blocks_ms| blocks_ms.min(min_ms));
    let seconds = |ms: i64| (ms / 1000) as f64;
    vec![
        gauge("prometheus_tsdb_head_series", "Total number of series in the head block.", stats.series as f64),
        gauge("prometheus_tsdb_head_chunks", "Total number of chunks in the head block.", stats.chunks as f64),
        gauge(
            "prometheus_tsdb_head_min_time",
            "Minimum time bound of the head block. The unit is decided by the library consumer.",
            min_ms as f64,
        ),
        gauge(
            "prometheus_tsdb_head_max_time",
            "Maximum timestamp of the head block. The unit is decided by the library consumer.",
            max_ms as f64,
        ),
        gauge("prometheus_tsdb_head_min_time_seconds", "Minimum time bound of the head block.", seconds(min_ms)),
        gauge("prometheus_tsdb_head_max_time_seconds", "Maximum timestamp of the head block.", seconds(max_ms)),
        gauge(
            "prometheus_tsdb_lowest_timestamp",
            "Lowest timestamp value stored in the database. The unit is decided by the library consumer.",
            lowest_ms as f64,
        ),
        gauge(
            "prometheus_tsdb_lowest_timestamp_seconds",
            "Lowest timestamp value stored in the database.",
            seconds(lowest_ms),
        ),
        both(
            "prometheus_tsdb_head_samples_appended_total",
            "Total number of appended samples.",
            [stats.samples_appended, stats.histograms_appended],
        ),
        counter(
            "prometheus_tsdb_head_series_created_total",
            "Total number of series created in the head",
            stats.series_created,
        ),
        counter(
            "prometheus_tsdb_head_series_removed_total",
            "Total number of series removed in the head",
            stats.series_removed,
        ),
        counter(
            "prometheus_tsdb_head_series_not_found_total",
            "Total number of requests for series that were not found.",
            stats.series_not_found,
        ),
        counter(
            "prometheus_tsdb_head_chunks_created_total",
            "Total number of chunks created in the head",
            stats.chunks_created,
        ),
        counter(
            "prometheus_tsdb_head_chunks_removed_total",
            "Total number of chunks removed in the head",
            stats.chunks_removed,
        ),
        counter(
            "prometheus_tsdb_mmap_chunks_total",
            "Total number of chunks that were memory-mapped.",
            stats.chunks_written,
        ),
        counter(
            "watchfire_head_chunk_writes_failed_total",
            "Writes of finished head chunks that the disk did not take; the chunks stay in memory.",
            stats.chunk_writes_failed,
        ),
        counter(
            "prometheus_tsdb_head_truncations_total",
            "Total number of head truncations attempted.",
            stats.truncations,
        ),
        // Nothing of it can fail.
        counter("prometheus_tsdb_head_truncations_failed_total", "Total number of head truncations that failed.", 0),
        both(
            "prometheus_tsdb_out_of_order_samples_total",
            "Total number of out of order samples ingestion failed attempts due to out of order being disabled.",
            [stats.out_of_order.saturating_sub(stats.out_of_order_histograms), stats.out_of_order_histograms],
        ),
        both(
            "prometheus_tsdb_too_old_samples_total",
            "Total number of out of order samples ingestion failed attempts with out of support enabled, but sample outside of time window.",
            [stats.too_old, stats.too_old_histograms],
        ),
        both(
            "prometheus_tsdb_head_out_of_order_samples_appended_total",
            "Total number of appended out of order samples.",
            [stats.late_floats, stats.late_histograms],
        ),
        delta(&stats.late_by),
        floats(
            "prometheus_tsdb_out_of_bound_samples_total",
            "Total number of out of bound samples ingestion failed attempts with out of order support disabled.",
            stats.out_of_bounds,
        ),
        gauge(
            "prometheus_tsdb_isolation_low_watermark",
            "The lowest TSDB append ID that is still referenced.",
            stats.low_watermark as f64,
        ),
        gauge(
            "prometheus_tsdb_isolation_high_watermark",
            "The highest TSDB append ID that has been given out.",
            stats.high_watermark as f64,
        ),
        gauge("watchfire_head_index_bytes", "Bytes of the head's index segments.", stats.index_bytes as f64),
        gauge(
            "watchfire_head_late_series",
            "Series of the head that hold samples which came out of order.",
            stats.late_series as f64,
        ),
        gauge("watchfire_head_views", "Read views of the head that are open.", stats.views as f64),
        counter("watchfire_head_series_refused_total", "Series refused for want of room.", stats.series_refused),
    ]
}

/// How late samples came that did not come in order.
fn delta(late_by: &LateCounts) -> MetricFamily {
    let bucket = |(bound, count): &(Option<i64>, u64)| (bound.map_or(f64::INFINITY, |bound| bound as f64), *count);
    let buckets: Vec<(f64, u64)> = late_by.cumulative.iter().map(bucket).collect();
    let count = buckets.last().map_or(0, |(_, count)| *count);
    let value = MetricValue::Histogram { buckets, sum: late_by.sum_ms as f64 / 1000.0, count };
    MetricFamily {
        name: "prometheus_tsdb_sample_ooo_delta".to_owned(),
        help: "Delta in seconds by which a sample is considered out of order (reported regardless of OOO time window and whether sample is accepted or not).".to_owned(),
        kind: MetricKind::Histogram,
        metrics: vec![(Labels::empty(), value)],
    }
}
