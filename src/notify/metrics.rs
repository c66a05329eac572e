//! Prometheus's metrics of notifications. Those with an `alertmanager` label, which is its URL, go with the last notifier
//! to that URL.

use std::sync::Arc;
use std::time::Duration;

use crate::model::clock::{Clock, SharedClock};
use crate::telemetry::metrics::{Counter, Gauge, Registry};

const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];
const LENGTHS: [f64; 4] = [0.01, 0.1, 1.0, 10.0];

const LATENCY: [&str; 2] =
    ["prometheus_notifications_latency_seconds", "Latency quantiles for sending alert notifications."];
const LATENCY_HISTOGRAM: [&str; 2] =
    ["prometheus_notifications_latency_histogram_seconds", "Latency histogram for sending alert notifications."];
const ERRORS: [&str; 2] = ["prometheus_notifications_errors_total", "Total number of sent alerts affected by errors."];
const SENT: [&str; 2] = ["prometheus_notifications_sent_total", "Total number of alerts sent."];
const DROPPED: [&str; 2] = [
    "prometheus_notifications_dropped_total",
    "Total number of alerts dropped due to errors when sending to Alertmanager.",
];
const QUEUE_LENGTH: [&str; 2] =
    ["prometheus_notifications_queue_length", "The number of alert notifications in the queue."];

/// Metrics of all notifiers.
#[derive(Clone)]
pub struct NotifyMetrics {
    registry: Arc<Registry>,
    clock: SharedClock,
    discovered: Gauge,
}

/// Metrics of one Alertmanager; shared by all notifiers to its URL.
#[derive(Clone)]
pub struct EndpointMetrics {
    /// Alerts that a failed request took with it.
    pub errors: Counter,
    /// Alerts delivered.
    pub sent: Counter,
    /// Alerts given up: by a failed request, for want of room, at the end.
    pub dropped: Counter,
    /// Alerts that wait. Each notifier adds its own changes.
    pub queue_len: Gauge,
    url: String,
    all: NotifyMetrics,
}

impl NotifyMetrics {
    /// The metrics of `registry`.
    pub fn new(registry: &Arc<Registry>, clock: &SharedClock, capacity: usize) -> Self {
        let gauge = |name: &str, help: &str| registry.gauge(name, help, &[]);
        gauge("prometheus_notifications_queue_capacity", "The capacity of the alert notifications queue.")
            .set(capacity as f64);
        let discovered = gauge(
            "prometheus_notifications_alertmanagers_discovered",
            "The number of alertmanagers discovered and active.",
        );
        Self { registry: Arc::clone(registry), clock: SharedClock::clone(clock), discovered }
    }

    /// The clock that latencies are measured by.
    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// So many Alertmanagers are sent to.
    pub fn discovered(&self, count: usize) {
        self.discovered.set(count as f64);
    }

    /// The metrics of the Alertmanager at `url`.
    pub fn endpoint(&self, url: &str) -> EndpointMetrics {
        let labels = [("alertmanager", url)];
        let counter = |[name, help]: [&str; 2]| self.registry.counter(name, help, &labels);
        EndpointMetrics {
            errors: counter(ERRORS),
            sent: counter(SENT),
            dropped: counter(DROPPED),
            queue_len: self.registry.gauge(QUEUE_LENGTH[0], QUEUE_LENGTH[1], &labels),
            url: url.to_owned(),
            all: self.clone(),
        }
    }

    /// Nothing is sent to `url` any more, and its figures are gone.
    pub fn removed(&self, url: &str) {
        for [name, _] in [LATENCY, LATENCY_HISTOGRAM, ERRORS, SENT, DROPPED, QUEUE_LENGTH] {
            self.registry.remove(name, &[("alertmanager", url)]);
        }
    }
}

impl EndpointMetrics {
    /// So many alerts were delivered within `took`.
    pub fn delivered(&self, count: usize, took: Duration) {
        self.sent.add(count as u64);
        let (registry, labels) = (&self.all.registry, [("alertmanager", self.url.as_str())]);
        let seconds = took.as_secs_f64();
        registry.summary(LATENCY[0], LATENCY[1], &labels, &QUANTILES, &self.all.clock).observe(seconds);
        registry.histogram(LATENCY_HISTOGRAM[0], LATENCY_HISTOGRAM[1], &labels, &LENGTHS).observe(seconds);
    }

    /// A request with so many alerts has failed; they are given up.
    pub fn failed(&self, count: usize) {
        self.errors.add(count as u64);
        self.dropped.add(count as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::clock::ManualClock;
    use crate::model::time::TimestampMs;

    #[test]
    fn an_alertmanagers_figures_go_with_it() {
        let registry = Registry::shared();
        let clock: SharedClock = ManualClock::at(TimestampMs(0));
        let metrics = NotifyMetrics::new(&registry, &clock, 10_000);
        let names = || registry.gather().into_iter().map(|family| family.name).collect::<Vec<_>>();
        let always = ["prometheus_notifications_alertmanagers_discovered", "prometheus_notifications_queue_capacity"];
        assert_eq!(names(), always);
        metrics.endpoint("http://a").delivered(2, Duration::from_millis(5));
        metrics.endpoint("http://a").failed(3);
        let all =
            [always[0], DROPPED[0], ERRORS[0], LATENCY_HISTOGRAM[0], LATENCY[0], always[1], QUEUE_LENGTH[0], SENT[0]];
        assert_eq!(names(), all);
        let endpoint = metrics.endpoint("http://a");
        assert_eq!((endpoint.sent.get(), endpoint.errors.get(), endpoint.dropped.get()), (2, 3, 3));
        metrics.removed("http://a");
        assert_eq!(names(), always);
    }
}
