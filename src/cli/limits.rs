//! The limits that keep us alive (`--watchfire.limit.*`): what was written, or what fits the memory that there is.

use crate::cli::flag_parser::Values;
use crate::scrape::settings::NewSeriesLimit;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// Memory to plan with when neither flag, cgroup nor machine tell.
const MEMORY_FALLBACK: u64 = 1 << 30;

/// Limits in bytes. `None`: lifted, as in Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResourceLimits {
    /// Memory that all others are planned with.
    pub memory: u64,
    /// Largest scrape after decompression.
    pub scrape_body: Option<u64>,
    /// Longest line of a scrape.
    pub scrape_line: Option<u64>,
    /// Samples of all scrapes in flight.
    pub scrape_staged_total: Option<u64>,
    /// New series of one scrape.
    pub scrape_new_series: NewSeriesLimit,
    /// Largest header of an HTTP request.
    pub http_header: Option<u64>,
    /// Largest body of an HTTP request.
    pub http_body: Option<u64>,
    /// Memory of remote write requests in flight.
    pub remote_write: Option<u64>,
    /// Memory of one query.
    pub query_memory: Option<u64>,
    /// Memory of all queries.
    pub query_memory_total: Option<u64>,
}

impl ResourceLimits {
    /// The limits for a process that may use `detected` bytes, if that is known.
    pub fn from_values(values: &Values, detected: Option<u64>) -> Self {
        let written = values.size("watchfire.memory-limit").filter(|bytes| 0 < *bytes);
        let memory = written.or(detected).unwrap_or(MEMORY_FALLBACK);
        let limit = |name: &str, automatic: u64| match values.size(name) {
            None => Some(automatic),
            Some(0) => None,
            Some(bytes) => Some(bytes),
        };
        let query_memory_total = limit("watchfire.limit.query.memory-total", memory / 4);
        Self {
            memory,
            scrape_body: limit("watchfire.limit.scrape.body", (memory / 64).max(64 * MIB)),
            scrape_line: limit("watchfire.limit.scrape.line", MIB),
            scrape_staged_total: limit("watchfire.limit.scrape.staged-total", memory / 32),
            scrape_new_series: match u64::try_from(values.integer("watchfire.limit.scrape.new-series")) {
                Ok(written) => NewSeriesLimit::Fixed(written),
                Err(_) => NewSeriesLimit::Automatic,
            },
            http_header: limit("watchfire.limit.http.header", 64 * KIB),
            http_body: limit("watchfire.limit.http.body", 32 * MIB),
            remote_write: limit("watchfire.limit.remote-write", (memory / 16).max(64 * MIB)),
            query_memory: limit("watchfire.limit.query.memory", query_memory_total.unwrap_or(memory) / 4),
            query_memory_total,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::flag_parser::{Outcome, parse};
    use crate::cli::flag_table::FLAGS;

    fn limits(args: &[&str], detected: Option<u64>) -> ResourceLimits {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        match parse(FLAGS, &args) {
            Ok(Outcome::Values(values)) => ResourceLimits::from_values(&values, detected),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn automatic_limits_follow_memory() {
        let small = limits(&[], Some(512 * MIB));
        assert_eq!((small.scrape_body, small.query_memory_total), (Some(64 * MIB), Some(128 * MIB)));
        assert_eq!(small.query_memory, Some(32 * MIB));
        let large = limits(&[], Some(64 << 30));
        assert_eq!(large.scrape_body, Some(1 << 30));
        assert_eq!(large.scrape_new_series, NewSeriesLimit::Automatic);
        assert_eq!(limits(&[], None).memory, MEMORY_FALLBACK);
    }

    #[test]
    fn written_limits_win_and_zero_lifts() {
        let written = limits(
            &["--watchfire.memory-limit=2GB", "--watchfire.limit.scrape.body=0", "--watchfire.limit.http.body=1MB"],
            Some(1 << 40),
        );
        let new_series = |value: &str| limits(&[&format!("--watchfire.limit.scrape.new-series={value}")], None);
        assert_eq!(new_series("5000").scrape_new_series, NewSeriesLimit::Fixed(5000));
        assert_eq!(new_series("0").scrape_new_series, NewSeriesLimit::Fixed(0));
        assert_eq!((written.memory, written.scrape_body, written.http_body), (2 << 30, None, Some(MIB)));
    }
}
