//! Counters of the connections that clients make, by who makes them; names and help texts are Prometheus's.

use crate::client::Failure;
use crate::telemetry::metrics::{Counter, Registry};

/// Counters of one dialer.
pub(super) struct DialerMetrics {
    attempted: Counter,
    established: Counter,
    closed: Counter,
    refused: Counter,
    resolution: Counter,
    timeout: Counter,
    unknown: Counter,
}

impl DialerMetrics {
    pub(super) fn new(registry: &Registry, dialer: &str) -> Self {
        let counter = |what: &str, help: &str, labels: &[(&str, &str)]| {
            registry.counter(&format!("net_conntrack_dialer_conn_{what}_total"), help, labels)
        };
        let labels = [("dialer_name", dialer)];
        let failed = |reason: &str| {
            let help = "Total number of connections failed to dial by the dialer a given name.";
            counter("failed", help, &[("dialer_name", dialer), ("reason", reason)])
        };
        Self {
            attempted: counter(
                "attempted",
                "Total number of connections attempted by the given dialer a given name.",
                &labels,
            ),
            established: counter(
                "established",
                "Total number of connections successfully established by the given dialer a given name.",
                &labels,
            ),
            closed: counter(
                "closed",
                "Total number of connections closed which originated from the dialer of a given name.",
                &labels,
            ),
            refused: failed("refused"),
            resolution: failed("resolution"),
            timeout: failed("timeout"),
            unknown: failed("unknown"),
        }
    }

    /// A connection is about to be made.
    pub(super) fn attempt(&self) -> Attempt<'_> {
        self.attempted.inc();
        Attempt { metrics: self, is_over: false }
    }
}

/// A connection that is being made; nobody waits for it any more once it is dropped.
pub(super) struct Attempt<'a> {
    metrics: &'a DialerMetrics,
    is_over: bool,
}

impl Attempt<'_> {
    /// There is a connection. What it answers with is to be kept as long.
    pub(super) fn established(mut self) -> Open {
        self.is_over = true;
        self.metrics.established.inc();
        Open(self.metrics.closed.clone())
    }

    /// There is none.
    pub(super) fn failed(mut self, failure: &Failure) {
        self.is_over = true;
        let metrics = self.metrics;
        match failure {
            Failure::Dial { reason, .. } if reason.starts_with("lookup ") => return metrics.resolution.inc(),
            // One that is refused counts as both, as in Prometheus.
            Failure::Dial { reason, .. } if reason == "connect: connection refused" => metrics.refused.inc(),
            _ => {}
        }
        metrics.unknown.inc();
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.metrics.timeout.inc();
        }
    }
}

/// An open connection.
pub(super) struct Open(Counter);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.inc();
    }
}
