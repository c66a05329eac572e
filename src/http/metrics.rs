//! Metrics of the server: requests, durations and sizes by handler, connections, panics.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::telemetry::metrics::{Counter, Gauge, Histogram, Registry};

const DURATIONS: [f64; 9] = [0.1, 0.2, 0.4, 1.0, 3.0, 8.0, 20.0, 60.0, 120.0];
const SIZES: [f64; 8] = [1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];

/// Handles of the server's metrics.
pub(super) struct HttpMetrics {
    pub(super) registry: Arc<Registry>,
    handlers: Mutex<HashMap<&'static str, HandlerMetrics>>,
    pub(super) connections_accepted: Counter,
    pub(super) connections_closed: Counter,
    pub(super) connections_refused: Counter,
    pub(super) scrapes_in_flight: Gauge,
    pub(super) federation_errors: Counter,
}

#[derive(Clone)]
struct HandlerMetrics {
    duration: Histogram,
    size: Histogram,
}

impl HttpMetrics {
    pub(super) fn new(registry: &Arc<Registry>) -> Self {
        let connections = |what: &str, of: &str| {
            let name = format!("net_conntrack_listener_conn_{what}_total");
            let help = format!("Total number of connections {of} to the listener of a given name.");
            registry.counter(&name, &help, &[("listener_name", "http")])
        };
        let help = "Current number of scrapes being served.";
        let metrics = Self {
            handlers: Mutex::default(),
            connections_accepted: connections("accepted", "opened"),
            connections_closed: connections("closed", "closed that were made"),
            connections_refused: registry.counter(
                "watchfire_http_connections_refused_total",
                "Connections closed at once as nearly all open files were taken.",
                &[],
            ),
            federation_errors: registry.counter(
                "prometheus_web_federation_errors_total",
                "Total number of errors that occurred while sending federation responses.",
                &[],
            ),
            scrapes_in_flight: registry.gauge("promhttp_metric_handler_requests_in_flight", help, &[]),
            registry: Arc::clone(registry),
        };
        let help = "Total number of warnings that occurred while sending federation responses.";
        registry.counter("prometheus_web_federation_warnings_total", help, &[]);
        ["200", "500", "503"].into_iter().for_each(|code| drop(metrics.scrape_served(code)));
        metrics
    }

    /// Makes the metrics of a handler visible before its first request.
    pub(super) fn announce(&self, handler: &'static str) {
        self.requests(handler, "200");
    }

    /// Counts an answered request. Answers with where the size of its body is to be observed.
    pub(super) fn served(&self, handler: &'static str, code: &str, took: Duration) -> Histogram {
        self.requests(handler, code).inc();
        let metrics = self.handlers.lock().entry(handler).or_insert_with(|| self.handler(handler)).clone();
        metrics.duration.observe(took.as_secs_f64());
        metrics.size
    }

    /// The counter of scrapes answered with a code.
    pub(super) fn scrape_served(&self, code: &str) -> Counter {
        let help = "Total number of scrapes by HTTP status code.";
        self.registry.counter("promhttp_metric_handler_requests_total", help, &[("code", code)])
    }

    /// The counter of panics of a handler.
    pub(super) fn panics(&self, handler: &'static str) -> Counter {
        let help = "Panics of HTTP handlers; each was answered with 500.";
        self.registry.counter("watchfire_http_panics_total", help, &[("handler", handler)])
    }

    fn requests(&self, handler: &'static str, code: &str) -> Counter {
        let labels = [("handler", handler), ("code", code)];
        self.registry.counter("prometheus_http_requests_total", "Counter of HTTP requests.", &labels)
    }

    fn handler(&self, handler: &'static str) -> HandlerMetrics {
        let labels = [("handler", handler)];
        let name = "prometheus_http_request_duration_seconds";
        let duration = self.registry.histogram(name, "Histogram of latencies for HTTP requests.", &labels, &DURATIONS);
        let name = "prometheus_http_response_size_bytes";
        let size = self.registry.histogram(name, "Histogram of response size for HTTP requests.", &labels, &SIZES);
        HandlerMetrics { duration, size }
    }
}
