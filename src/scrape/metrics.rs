//! Prometheus's own counters about scrapes.

use crate::scrape::cache::Confirmed;
use crate::scrape::error::ScrapeError;
use crate::scrape::reader::ReadCounts;
use crate::scrape::settings::Extras;
use crate::telemetry::metrics::{Counter, Registry};

/// Counters that all targets share.
#[derive(Clone, Debug)]
pub struct ScrapeMetrics {
    body_size_limit: Counter,
    sample_limit: Counter,
    label_limits: Counter,
    duplicates: Counter,
    out_of_order: Counter,
    out_of_bounds: Counter,
    exemplars: Counter,
    late_exemplars: Counter,
    bucket_limit: Counter,
    failures_not_logged: Counter,
}

impl ScrapeMetrics {
    /// The counters of `registry`.
    pub fn new(registry: &Registry) -> Self {
        let counter = |name: &str, help: &str| registry.counter(name, help, &[]);
        Self {
            body_size_limit: counter(
                "prometheus_target_scrapes_exceeded_body_size_limit_total",
                "Total number of scrapes that hit the body size limit",
            ),
            sample_limit: counter(
                "prometheus_target_scrapes_exceeded_sample_limit_total",
                "Total number of scrapes that hit the sample limit and were rejected.",
            ),
            label_limits: counter(
                "prometheus_target_scrape_pool_exceeded_label_limits_total",
                "Total number of times scrape pools hit the label limits, during sync or config reload.",
            ),
            duplicates: counter(
                "prometheus_target_scrapes_sample_duplicate_timestamp_total",
                "Total number of samples rejected due to duplicate timestamps but different values.",
            ),
            out_of_order: counter(
                "prometheus_target_scrapes_sample_out_of_order_total",
                "Total number of samples rejected due to not being out of the expected order.",
            ),
            out_of_bounds: counter(
                "prometheus_target_scrapes_sample_out_of_bounds_total",
                "Total number of samples rejected due to timestamp falling outside of the time bounds.",
            ),
            exemplars: counter(
                "watchfire_scrape_exemplars_dropped_total",
                "Exemplars of scrapes that were not stored, as exemplar storage is off.",
            ),
            late_exemplars: counter(
                "prometheus_target_scrapes_exemplar_out_of_order_total",
                "Total number of exemplar rejected due to not being out of the expected order.",
            ),
            bucket_limit: counter(
                "prometheus_target_scrapes_exceeded_native_histogram_bucket_limit_total",
                "Total number of scrapes that hit the native histogram bucket limit and were rejected.",
            ),
            failures_not_logged: counter(
                "watchfire_scrape_failures_not_logged_total",
                "Lines of scrape failure logs that were not written.",
            ),
        }
    }

    /// Counts a failed scrape.
    pub(super) fn failed(&self, error: &ScrapeError) {
        match error {
            ScrapeError::BodySizeLimit => self.body_size_limit.inc(),
            ScrapeError::SampleLimit => self.sample_limit.inc(),
            ScrapeError::BucketLimit => self.bucket_limit.inc(),
            ScrapeError::LabelLimit { .. }
            | ScrapeError::LabelNameLength { .. }
            | ScrapeError::LabelValueLength { .. } => self.label_limits.inc(),
            _ => {}
        }
    }

    /// Counts what was read and is not stored: second samples of a series, exemplars without storage for them.
    pub(super) fn read(&self, counts: &ReadCounts, extras: Extras) {
        self.duplicates.add(counts.duplicates);
        if !extras.exemplars {
            self.exemplars.add(counts.exemplars);
        }
    }

    /// Counts lines that did not reach the log of failed scrapes.
    pub fn failures_not_logged(&self, lines: u64) {
        self.failures_not_logged.add(lines);
    }

    /// Counts what storage refused.
    pub fn confirmed(&self, confirmed: &Confirmed) {
        self.duplicates.add(confirmed.duplicates);
        self.out_of_order.add(confirmed.out_of_order);
        self.out_of_bounds.add(confirmed.out_of_bounds);
        self.late_exemplars.add(confirmed.late_exemplars);
    }
}
