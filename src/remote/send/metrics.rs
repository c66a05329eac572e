//! Prometheus's metrics of remote write, and ours. Those of a destination go with it.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::model::append::AppendBatch;
use crate::telemetry::metrics::{Counter, Gauge, Histogram, MetricFamily, MetricKind, Registry};

const LENGTHS: [f64; 15] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 120.0, 300.0];

const SENT_BATCH: [&str; 2] = ["sent_batch_duration_seconds", "Duration of send calls to the remote storage."];

#[rustfmt::skip]
const COUNTERS: [[&str; 2]; 15] = [
    ["samples_total", "Total number of samples sent to remote storage."],
    ["exemplars_total", "Total number of exemplars sent to remote storage."],
    ["histograms_total", "Total number of histograms sent to remote storage."],
    ["metadata_total", "Total number of metadata entries sent to remote storage."],
    ["samples_failed_total", "Total number of samples which failed on send to remote storage, non-recoverable errors."],
    ["exemplars_failed_total", "Total number of exemplars which failed on send to remote storage, non-recoverable errors."],
    ["histograms_failed_total", "Total number of histograms which failed on send to remote storage, non-recoverable errors."],
    ["metadata_failed_total", "Total number of metadata entries which failed on send to remote storage, non-recoverable errors."],
    ["samples_retried_total", "Total number of samples which failed on send to remote storage but were retried because the send error was recoverable."],
    ["exemplars_retried_total", "Total number of exemplars which failed on send to remote storage but were retried because the send error was recoverable."],
    ["histograms_retried_total", "Total number of histograms which failed on send to remote storage but were retried because the send error was recoverable."],
    ["metadata_retried_total", "Total number of metadata entries which failed on send to remote storage but were retried because the send error was recoverable."],
    ["enqueue_retries_total", "Total number of times enqueue has failed because a shards queue was full."],
    ["bytes_total", "The total number of bytes of data (not metadata) sent by the queue after compression. Note that when exemplars over remote write is enabled the exemplars included in a remote write request count towards this metric."],
    ["metadata_bytes_total", "The total number of bytes of metadata sent by the queue after compression."],
];

#[rustfmt::skip]
const GAUGES: [[&str; 2]; 11] = [
    ["queue_highest_timestamp_seconds", "Highest timestamp that was enqueued, in seconds since epoch. Initialized to 0 when no data has been received yet."],
    ["queue_highest_sent_timestamp_seconds", "Highest timestamp successfully sent by this queue, in seconds since epoch. Initialized to 0 when no data has been sent yet."],
    ["samples_pending", "The number of samples pending in the queues shards to be sent to the remote storage."],
    ["exemplars_pending", "The number of exemplars pending in the queues shards to be sent to the remote storage."],
    ["histograms_pending", "The number of histograms pending in the queues shards to be sent to the remote storage."],
    ["shard_capacity", "The capacity of each shard of the queue used for parallel sending to the remote storage."],
    ["shards", "The number of shards used for parallel sending to the remote storage."],
    ["shards_max", "The maximum number of shards that the queue is allowed to run."],
    ["shards_min", "The minimum number of shards that the queue is allowed to run."],
    ["shards_desired", "The number of shards that the queues shard calculation wants to run based on the rate of samples in vs. samples out."],
    ["max_samples_per_send", "The maximum number of samples to be sent, in a single request, to the remote storage. Note that, when sending of exemplars over remote write is enabled, exemplars count towards this limit."],
];

#[rustfmt::skip]
const DROPPED: [[&str; 2]; 3] = [
    ["samples_dropped_total", "Total number of samples which were dropped after being read from the WAL before being sent via remote write, either via relabelling, due to being too old or unintentionally because of an unknown reference ID."],
    ["exemplars_dropped_total", "Total number of exemplars which were dropped after being read from the WAL before being sent via remote write, either via relabelling, due to being too old or unintentionally because of an unknown reference ID."],
    ["histograms_dropped_total", "Total number of histograms which were dropped after being read from the WAL before being sent via remote write, either via relabelling, due to being too old or unintentionally because of an unknown reference ID."],
];

/// Ours, by destination.
const MISSED: [&str; 2] = [
    "watchfire_remote_write_missed_samples_total",
    "Samples that the log gave up before they were sent; histograms and exemplars count as well.",
];
const WATCHER_RECORDS: [&str; 2] =
    ["prometheus_wal_watcher_records_read_total", "Number of records read by the WAL watcher from the WAL."];
const WATCHER_FAILURES: [&str; 2] = [
    "prometheus_wal_watcher_record_decode_failures_total",
    "Number of records read by the WAL watcher that resulted in an error when decoding.",
];
const WATCHER_EARLY: [&str; 2] = [
    "prometheus_wal_watcher_samples_sent_pre_tailing_total",
    "Number of sample records read by the WAL watcher and sent to remote write during replay of existing WAL.",
];
const WATCHER_SKIPPED: [&str; 2] = [
    "prometheus_wal_watcher_notifications_skipped_total",
    "The number of WAL write notifications that the Watcher has skipped due to already being in a WAL read routine.",
];
const WATCHER_SEGMENT: [&str; 2] =
    ["prometheus_wal_watcher_current_segment", "Current segment the WAL watcher is reading records from."];
const PREFIX: &str = "prometheus_remote_storage_";

/// What an item of a queue is, as metrics tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A float sample.
    Sample,
    /// An exemplar.
    Exemplar,
    /// A native histogram.
    Histogram,
}

/// All classes, in the order of [`Counts`].
pub const CLASSES: [Class; 3] = [Class::Sample, Class::Exemplar, Class::Histogram];

/// A number for each class.
pub type Counts = [u64; 3];

/// Why an item is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Older than `sample_age_limit`.
    TooOld,
    /// `write_relabel_configs` drop its series.
    DroppedSeries,
    /// The log does not name its series.
    UnknownSeries,
    /// Listed bounds, which version 1 of the protocol does not know.
    CustomBuckets,
}

impl Reason {
    fn as_str(self) -> &'static str {
        match self {
            Self::TooOld => "too_old",
            Self::DroppedSeries => "dropped_series",
            Self::UnknownSeries => "unintentionally_dropped_series",
            Self::CustomBuckets => "nhcb_in_rw1_not_supported",
        }
    }
}

/// Metrics of one destination.
pub struct QueueMetrics {
    registry: Arc<Registry>,
    name: String,
    url: String,
    /// By class: sent, every attempt counts.
    pub sent: [Counter; 3],
    /// By class: given up.
    pub failed: [Counter; 3],
    /// By class: sent again.
    pub retried: [Counter; 3],
    /// Metadata entries sent, failed, sent again.
    pub metadata: [Counter; 3],
    /// A queue was full.
    pub enqueue_retries: Counter,
    /// Bytes sent.
    pub bytes: Counter,
    /// Bytes of metadata sent.
    pub metadata_bytes: Counter,
    /// Newest item that was read, in seconds.
    pub highest: Gauge,
    /// Newest item that was answered for.
    pub highest_sent: Gauge,
    /// By class: waiting or under way.
    pub pending: [Gauge; 3],
    /// Shards that there are.
    pub shards: Gauge,
    /// Shards that there should be.
    pub shards_desired: Gauge,
    /// Capacity, most shards, fewest shards, items of a request.
    settings: [Gauge; 4],
    /// Seconds of each request.
    pub seconds: Histogram,
    /// Items that the log gave up.
    pub missed: Counter,
    /// Records that could not be read.
    pub undecodable: Counter,
    /// The segment that is read.
    pub segment: Gauge,
    /// Samples that were read before the end of the log was reached.
    pub early: Counter,
    /// By class and reason, made at the first call.
    dropped: [[OnceLock<Counter>; 4]; 3],
    /// By type of record, the same.
    records: [OnceLock<Counter>; RECORD_TYPES.len()],
    highest_ms: AtomicI64,
    highest_sent_ms: AtomicI64,
    without_series: AtomicU64,
}

impl QueueMetrics {
    /// The metrics of the destination with these labels.
    pub fn new(registry: &Arc<Registry>, name: &str, url: &str) -> Self {
        let labels = [("remote_name", name), ("url", url)];
        let counter = |index: usize| {
            let [of, help] = COUNTERS[index];
            registry.counter(&format!("{PREFIX}{of}"), help, &labels)
        };
        let gauge = |index: usize| {
            let [of, help] = GAUGES[index];
            registry.gauge(&format!("{PREFIX}{of}"), help, &labels)
        };
        let three = |first: usize| [counter(first), counter(first + 1), counter(first + 2)];
        let consumer = [("consumer", name)];
        // None is ever skipped: whoever reads looks how far the log is.
        registry.counter(WATCHER_SKIPPED[0], WATCHER_SKIPPED[1], &consumer);
        Self {
            sent: three(0),
            failed: three(4),
            retried: three(8),
            metadata: [counter(3), counter(7), counter(11)],
            enqueue_retries: counter(12),
            bytes: counter(13),
            metadata_bytes: counter(14),
            highest: gauge(0),
            highest_sent: gauge(1),
            pending: [gauge(2), gauge(3), gauge(4)],
            shards: gauge(6),
            shards_desired: gauge(9),
            settings: [gauge(5), gauge(7), gauge(8), gauge(10)],
            seconds: registry.histogram(&format!("{PREFIX}{}", SENT_BATCH[0]), SENT_BATCH[1], &labels, &LENGTHS),
            missed: registry.counter(MISSED[0], MISSED[1], &labels),
            undecodable: registry.counter(WATCHER_FAILURES[0], WATCHER_FAILURES[1], &consumer),
            segment: registry.gauge(WATCHER_SEGMENT[0], WATCHER_SEGMENT[1], &consumer),
            early: registry.counter(WATCHER_EARLY[0], WATCHER_EARLY[1], &consumer),
            dropped: Default::default(),
            records: Default::default(),
            highest_ms: AtomicI64::new(0),
            highest_sent_ms: AtomicI64::new(0),
            without_series: AtomicU64::new(0),
            registry: Arc::clone(registry),
            name: name.to_owned(),
            url: url.to_owned(),
        }
    }

    /// Shows settings: capacity, most shards, fewest shards, items of a request.
    pub fn configured(&self, values: [f64; 4]) {
        self.settings.iter().zip(values).for_each(|(gauge, value)| gauge.set(value));
    }

    /// Items that are not sent.
    pub fn dropped(&self, class: Class, reason: Reason, count: u64) {
        if matches!(reason, Reason::DroppedSeries | Reason::UnknownSeries) {
            self.without_series.fetch_add(count, Ordering::Relaxed);
        }
        let counter = self.dropped[class as usize][reason as usize].get_or_init(|| {
            let [of, help] = DROPPED[class as usize];
            let labels = [("remote_name", self.name.as_str()), ("url", self.url.as_str()), ("reason", reason.as_str())];
            self.registry.counter(&format!("{PREFIX}{of}"), help, &labels)
        });
        counter.add(count);
    }

    /// Items that were dropped with their series.
    pub fn without_series(&self) -> u64 {
        self.without_series.load(Ordering::Relaxed)
    }

    /// Time of the newest item that was answered for, in milliseconds.
    pub fn highest_sent_ms(&self) -> i64 {
        self.highest_sent_ms.load(Ordering::Relaxed)
    }

    /// A record was read that begins with this byte.
    pub fn read(&self, first: Option<u8>) {
        let kind = first.map(usize::from).filter(|kind| *kind < RECORD_TYPES.len()).unwrap_or(0);
        let counter = self.records[kind].get_or_init(|| {
            let labels = [("consumer", self.name.as_str()), ("type", RECORD_TYPES[kind])];
            self.registry.counter(WATCHER_RECORDS[0], WATCHER_RECORDS[1], &labels)
        });
        counter.inc();
    }

    /// An item of this time was read.
    pub fn saw(&self, t: i64) {
        raise(&self.highest_ms, t, &self.highest);
    }

    /// Items up to this time were answered for.
    pub fn delivered(&self, t: i64) {
        raise(&self.highest_sent_ms, t, &self.highest_sent);
    }

    /// Forgets the destination's figures.
    pub fn remove(&self) {
        let labels = [("remote_name", self.name.as_str()), ("url", self.url.as_str())];
        let of = COUNTERS.iter().chain(&GAUGES).chain([&SENT_BATCH]);
        of.for_each(|[name, _]| self.registry.remove(&format!("{PREFIX}{name}"), &labels));
        self.registry.remove(MISSED[0], &labels);
        for [name, _] in DROPPED {
            for reason in [Reason::TooOld, Reason::DroppedSeries, Reason::UnknownSeries, Reason::CustomBuckets] {
                let labels = [labels[0], labels[1], ("reason", reason.as_str())];
                self.registry.remove(&format!("{PREFIX}{name}"), &labels);
            }
        }
        let consumer = [("consumer", self.name.as_str())];
        for [name, _] in [WATCHER_FAILURES, WATCHER_SEGMENT, WATCHER_EARLY, WATCHER_SKIPPED] {
            self.registry.remove(name, &consumer);
        }
        for kind in RECORD_TYPES {
            self.registry.remove(WATCHER_RECORDS[0], &[consumer[0], ("type", kind)]);
        }
    }
}

fn raise(highest: &AtomicI64, t: i64, shown: &Gauge) {
    if highest.fetch_max(t, Ordering::Relaxed) < t {
        shown.set((t / 1000) as f64);
    }
}

/// Types of records by their first byte, as Prometheus calls them.
const RECORD_TYPES: [&str; 12] = [
    "unknown",
    "series",
    "samples",
    "tombstones",
    "exemplars",
    "mmapmarkers",
    "metadata",
    "histogram_samples",
    "float_histogram_samples",
    "custom_buckets_histogram_samples",
    "custom_buckets_float_histogram_samples",
    "samples_v2",
];

/// What comes into storage, whoever it is sent to.
#[derive(Debug, Default)]
pub struct Intake {
    counts: [AtomicU64; 3],
    highest_ms: AtomicI64,
}

impl Intake {
    /// Makes the figures known to `registry`.
    pub fn register(self: &Arc<Self>, registry: &Registry) {
        let this = Arc::clone(self);
        registry.collect_with(move || {
            let total = |of: &str, what: &str, class: Class| {
                let name = format!("{PREFIX}{of}_in_total");
                let help = format!(
                    "{what} in to remote storage, compare to {of} out for queue managers. Deprecated, check \
                     prometheus_wal_watcher_records_read_total and prometheus_remote_storage_{of}_dropped_total"
                );
                let value = this.counts[class as usize].load(Ordering::Relaxed) as f64;
                MetricFamily::single(&name, &help, MetricKind::Counter, value)
            };
            let help = "Highest timestamp that has come into the remote storage via the Appender interface, in seconds \
                        since epoch. Initialized to 0 when no data has been received yet. Deprecated, check \
                        prometheus_remote_storage_queue_highest_timestamp_seconds which is more accurate.";
            let name = format!("{PREFIX}highest_timestamp_in_seconds");
            // There is no such table, so that none is released from it.
            let interner = MetricFamily::single(
                &format!("{PREFIX}string_interner_zero_reference_releases_total"),
                "The number of times release has been called for strings that are not interned.",
                MetricKind::Counter,
                0.0,
            );
            vec![
                interner,
                total("samples", "Samples", Class::Sample),
                total("exemplars", "Exemplars", Class::Exemplar),
                total("histograms", "HistogramSamples", Class::Histogram),
                MetricFamily::single(&name, help, MetricKind::Gauge, this.highest().as_secs_f64().floor()),
            ]
        });
    }

    /// A batch came in.
    pub fn took(&self, batch: &AppendBatch) {
        self.counts[Class::Sample as usize].fetch_add(batch.samples.len() as u64, Ordering::Relaxed);
        self.counts[Class::Histogram as usize].fetch_add(batch.histograms.len() as u64, Ordering::Relaxed);
        self.counts[Class::Exemplar as usize].fetch_add(batch.exemplars.len() as u64, Ordering::Relaxed);
        let times = batch.samples.iter().map(|sample| sample.at.0);
        let newest = times.chain(batch.histograms.iter().map(|sample| sample.at.0)).max();
        self.highest_ms.fetch_max(newest.unwrap_or(0), Ordering::Relaxed);
    }

    /// How much came in, histograms and exemplars included.
    pub fn total(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// The newest time that came in.
    pub fn highest(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.highest_ms.load(Ordering::Relaxed)).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destinations_figures_go_with_it() {
        let registry = Registry::shared();
        let metrics = QueueMetrics::new(&registry, "n", "http://u");
        metrics.dropped(Class::Exemplar, Reason::TooOld, 2);
        metrics.read(Some(2));
        metrics.read(None);
        metrics.saw(5_999);
        metrics.delivered(4_000);
        let families = registry.gather();
        assert!(families.iter().any(|f| f.name == "prometheus_remote_storage_samples_pending"));
        assert_eq!(families.len(), COUNTERS.len() + GAUGES.len() + 1 + 1 + 1 + 3 + 2);
        assert_eq!((metrics.highest.get(), metrics.highest_sent.get()), (5.0, 4.0));
        metrics.remove();
        assert!(registry.gather().is_empty());
    }
}
