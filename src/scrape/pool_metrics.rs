//! Prometheus's metrics about scrape pools and the pace of their targets. Those with a `scrape_job` label go with the job.

use std::sync::Arc;
use std::time::Duration;

use crate::model::clock::{Clock, SharedClock};
use crate::model::go_time;
use crate::model::labels::Labels;
use crate::scrape::cache::MetadataSize;
use crate::telemetry::metrics::{Counter, Histogram, MetricFamily, MetricKind, MetricValue, Registry};
use crate::telemetry::summary::Summary;

const QUANTILES: [f64; 5] = [0.01, 0.05, 0.5, 0.9, 0.99];
/// Classic buckets of histograms of lengths, in seconds.
const LENGTHS: [f64; 4] = [0.01, 0.1, 1.0, 10.0];

const TARGET_LIMIT: [&str; 2] =
    ["prometheus_target_scrape_pool_target_limit", "Maximum number of targets allowed in this scrape pool."];
const TARGETS: [&str; 2] = ["prometheus_target_scrape_pool_targets", "Current number of targets in this scrape pool."];
/// Of a table that Prometheus has in some builds only; in those that it ships it stands at zero, too.
const SYMBOLS: [&str; 2] =
    ["prometheus_target_scrape_pool_symboltable_items", "Current number of symbols in table for this scrape pool."];
const METADATA_ENTRIES: [&str; 2] =
    ["prometheus_target_metadata_cache_entries", "Total number of metric metadata entries in the cache"];
const METADATA_BYTES: [&str; 2] = [
    "prometheus_target_metadata_cache_bytes",
    "The number of bytes that are currently used for storing metric metadata in the cache",
];
const SYNCS: [&str; 2] =
    ["prometheus_target_scrape_pool_sync_total", "Total number of syncs that were executed on a scrape pool."];
const SYNC_LENGTH: [&str; 2] = ["prometheus_target_sync_length_seconds", "Actual interval to sync the scrape pool."];
const SYNC_LENGTH_HISTOGRAM: [&str; 2] =
    ["prometheus_target_sync_length_histogram_seconds", "Actual interval to sync the scrape pool."];
const SYNC_FAILED: [&str; 2] = ["prometheus_target_sync_failed_total", "Total number of target sync failures."];

/// Metrics of all pools.
#[derive(Clone)]
pub struct PoolMetrics {
    registry: Arc<Registry>,
    clock: SharedClock,
    created: Counter,
    reloads: Counter,
    over_target_limit: Counter,
    scrape_duration: Histogram,
}

/// What one synchronisation of a pool came to.
#[derive(Clone, Copy, Debug)]
pub struct Synced {
    /// Targets that are scraped.
    pub targets: usize,
    /// `target_limit`; 0 for none.
    pub target_limit: u64,
    /// Targets that could not be made.
    pub failures: usize,
    /// How long it took.
    pub took: Duration,
}

/// Time between the scrapes of targets that share an interval.
#[derive(Clone)]
pub struct IntervalMetrics {
    lengths: Summary,
    histogram: Histogram,
}

impl IntervalMetrics {
    /// Notes that a scrape began so long after the one before it.
    pub fn observe(&self, since_last: Duration) {
        self.lengths.observe(since_last.as_secs_f64());
        self.histogram.observe(since_last.as_secs_f64());
    }
}

impl PoolMetrics {
    /// The metrics of `registry`.
    pub fn new(registry: &Arc<Registry>, clock: &SharedClock) -> Self {
        let counter = |name: &str, help: &str| registry.counter(name, help, &[]);
        // What cannot fail or is not built yet stands at zero, as in a Prometheus to which it does not happen.
        for [name, help] in [
            ["prometheus_target_scrape_pools_failed_total", "Total number of scrape pool creations that failed."],
            ["prometheus_target_scrape_pool_reloads_failed_total", "Total number of failed scrape pool reloads."],
            [
                "prometheus_target_scrapes_cache_flush_forced_total",
                "How many times a scrape cache was flushed due to getting big while scrapes are failing.",
            ],
            [
                "prometheus_target_scrapes_exemplar_out_of_order_total",
                "Total number of exemplar rejected due to not being out of the expected order.",
            ],
        ] {
            counter(name, help);
        }
        Self {
            created: counter("prometheus_target_scrape_pools_total", "Total number of scrape pool creation attempts."),
            reloads: counter("prometheus_target_scrape_pool_reloads_total", "Total number of scrape pool reloads."),
            over_target_limit: counter(
                "prometheus_target_scrape_pool_exceeded_target_limit_total",
                "Total number of times scrape pools hit the target limit, during sync or config reload.",
            ),
            scrape_duration: registry.histogram(
                "prometheus_target_scrape_duration_seconds",
                "Total duration of the scrape from start to commit completion in seconds.",
                &[],
                &[],
            ),
            registry: Arc::clone(registry),
            clock: SharedClock::clone(clock),
        }
    }

    /// The clock that lengths are measured by.
    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// A pool is made.
    pub fn created(&self) {
        self.created.inc();
    }

    /// A pool with this scrape interval has taken a new configuration.
    pub fn reloaded(&self, interval: Duration, took: Duration) {
        self.reloads.inc();
        let name = "prometheus_target_reload_length_seconds";
        let help = "Actual interval to reload the scrape pool with a given configuration.";
        let interval = interval_text(interval);
        let labels = [("interval", interval.as_str())];
        self.registry.summary(name, help, &labels, &QUANTILES, &self.clock).observe(took.as_secs_f64());
    }

    /// The pool of `job` has made its targets what they should be.
    pub fn synced(&self, job: &str, synced: Synced) {
        let labels = [("scrape_job", job)];
        let registry = &self.registry;
        registry.gauge(TARGET_LIMIT[0], TARGET_LIMIT[1], &labels).set(synced.target_limit as f64);
        registry.gauge(TARGETS[0], TARGETS[1], &labels).set(synced.targets as f64);
        registry.gauge(SYMBOLS[0], SYMBOLS[1], &labels).set(0.0);
        registry.counter(SYNCS[0], SYNCS[1], &labels).inc();
        registry.counter(SYNC_FAILED[0], SYNC_FAILED[1], &labels).add(synced.failures as u64);
        let seconds = synced.took.as_secs_f64();
        registry.summary(SYNC_LENGTH[0], SYNC_LENGTH[1], &labels, &QUANTILES, &self.clock).observe(seconds);
        registry.histogram(SYNC_LENGTH_HISTOGRAM[0], SYNC_LENGTH_HISTOGRAM[1], &labels, &LENGTHS).observe(seconds);
    }

    /// A pool has more targets than it may have.
    pub fn over_target_limit(&self) {
        self.over_target_limit.inc();
    }

    /// The pool of `job` is gone, and so are its figures.
    pub fn removed(&self, job: &str) {
        for [name, _] in [TARGET_LIMIT, TARGETS, SYMBOLS, SYNCS, SYNC_LENGTH, SYNC_LENGTH_HISTOGRAM, SYNC_FAILED] {
            self.registry.remove(name, &[("scrape_job", job)]);
        }
    }

    /// Tells how much metadata each job has, from `sizes` as they are when metrics are asked for.
    pub fn tell_metadata(&self, sizes: impl Fn() -> Vec<(String, MetadataSize)> + Send + Sync + 'static) {
        self.registry.collect_with(move || {
            let sizes = sizes();
            let family = |[name, help]: [&str; 2], of: fn(MetadataSize) -> u64| MetricFamily {
                name: name.to_owned(),
                help: help.to_owned(),
                kind: MetricKind::Gauge,
                metrics: sizes
                    .iter()
                    .map(|(job, size)| {
                        let labels = Labels::from_pairs([("scrape_job", job.as_str())]);
                        (labels, MetricValue::Number(of(*size) as f64))
                    })
                    .collect(),
            };
            vec![family(METADATA_ENTRIES, |size| size.entries), family(METADATA_BYTES, |size| size.bytes)]
        });
    }

    /// The metrics of targets that are scraped each `interval`.
    pub fn interval(&self, interval: Duration) -> IntervalMetrics {
        let text = interval_text(interval);
        let labels = [("interval", text.as_str())];
        let help = "Actual intervals between scrapes.";
        let name = "prometheus_target_interval_length_seconds";
        let lengths = self.registry.summary(name, help, &labels, &QUANTILES, &self.clock);
        let name = "prometheus_target_interval_length_histogram_seconds";
        IntervalMetrics { lengths, histogram: self.registry.histogram(name, help, &labels, &LENGTHS) }
    }

    /// A scrape took so long from its start to storage's answer; counted with `extra_scrape_metrics` only.
    pub fn scraped(&self, took: Duration) {
        self.scrape_duration.observe(took.as_secs_f64());
    }
}

fn interval_text(interval: Duration) -> String {
    go_time::format_duration(i64::try_from(interval.as_nanos()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::clock::ManualClock;
    use crate::model::time::TimestampMs;

    fn names(registry: &Registry, job: &str) -> Vec<String> {
        let of_job = |family: &crate::telemetry::metrics::MetricFamily| {
            family.metrics.iter().any(|(labels, _)| labels.get("scrape_job") == Some(job))
        };
        registry.gather().into_iter().filter(of_job).map(|family| family.name).collect()
    }

    #[test]
    fn a_pools_figures_go_with_it() {
        let registry = Registry::shared();
        let clock: SharedClock = ManualClock::at(TimestampMs(0));
        let metrics = PoolMetrics::new(&registry, &clock);
        let synced = Synced { targets: 3, target_limit: 2, failures: 1, took: Duration::from_millis(20) };
        metrics.synced("gone", synced);
        metrics.synced("stays", synced);
        metrics.synced("stays", synced);
        let expected = [
            "prometheus_target_scrape_pool_symboltable_items",
            "prometheus_target_scrape_pool_sync_total",
            "prometheus_target_scrape_pool_target_limit",
            "prometheus_target_scrape_pool_targets",
            "prometheus_target_sync_failed_total",
            "prometheus_target_sync_length_histogram_seconds",
            "prometheus_target_sync_length_seconds",
        ];
        assert_eq!(names(&registry, "gone"), expected);
        metrics.removed("gone");
        assert!(names(&registry, "gone").is_empty());
        assert_eq!(names(&registry, "stays"), expected);
        let number = |name: &str| registry.gather().into_iter().find(|f| f.name == name).unwrap().metrics[0].1.clone();
        assert_eq!(number(SYNCS[0]), MetricValue::Number(2.0));
        assert_eq!(number(SYNC_FAILED[0]), MetricValue::Number(2.0));
        assert_eq!(number(TARGETS[0]), MetricValue::Number(3.0));
    }

    #[test]
    fn intervals_are_written_as_in_go() {
        let registry = Registry::shared();
        let clock: SharedClock = ManualClock::at(TimestampMs(0));
        let metrics = PoolMetrics::new(&registry, &clock);
        metrics.interval(Duration::from_secs(60)).observe(Duration::from_secs(59));
        let family = registry.gather().into_iter().find(|f| f.name == "prometheus_target_interval_length_seconds");
        assert_eq!(family.unwrap().metrics[0].0.get("interval"), Some("1m0s"));
    }
}
