//! The series that a scrape reports about itself.

use crate::model::time::TimestampMs;
use crate::scrape::settings::ScrapeSettings;

/// Names of all report series, in the order in which they are appended. The last three are the extra ones.
pub(super) const NAMES: [&str; 8] = [
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
    "scrape_timeout_seconds",
    "scrape_sample_limit",
    "scrape_body_size_bytes",
];
const PLAIN_COUNT: usize = 5;

/// False for names that are none of [`NAMES`], nearly all of them.
#[inline]
pub(super) fn may_be_name(metric: &[u8]) -> bool {
    metric == b"up" || metric.starts_with(b"scrape_")
}

/// Number of report series under these settings.
pub(super) fn count(settings: &ScrapeSettings) -> usize {
    if settings.extra_scrape_metrics { NAMES.len() } else { PLAIN_COUNT }
}

/// What the report series of one scrape say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Report {
    pub(super) at: TimestampMs,
    pub(super) up: bool,
    pub(super) duration_seconds: f64,
    pub(super) scraped: u64,
    pub(super) post_relabel: u64,
    pub(super) series_added: u64,
    pub(super) timeout_seconds: f64,
    pub(super) sample_limit: u64,
    /// Bytes after decompression, -1 when a body limit was exceeded.
    pub(super) body_len: i64,
}

impl Report {
    /// Values in the order of [`NAMES`].
    pub(super) fn values(&self) -> [f64; NAMES.len()] {
        [
            f64::from(u8::from(self.up)),
            self.duration_seconds,
            self.scraped as f64,
            self.post_relabel as f64,
            self.series_added as f64,
            self.timeout_seconds,
            self.sample_limit as f64,
            self.body_len as f64,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_finds_all_names() {
        assert!(NAMES.iter().all(|name| may_be_name(name.as_bytes())) && !may_be_name(b"upper"));
    }
}
