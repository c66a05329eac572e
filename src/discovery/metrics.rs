//! Metrics of discovery managers and of sources; names and help texts are Prometheus's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::model::clock::SharedClock;
use crate::telemetry::metrics::{Counter, Gauge, Histogram, Registry};
use crate::telemetry::summary::Summary;

const DISCOVERED: [&str; 2] = ["prometheus_sd_discovered_targets", "Current number of discovered targets."];
const LAST_UPDATE: [&str; 2] =
    ["prometheus_sd_last_update_timestamp_seconds", "Timestamp of the last update sent to the SD consumers."];
const FAILING: [&str; 2] = ["watchfire_sd_provider_failing", "Whether the last look of the provider failed."];
const REFRESH_FAILURES: [&str; 2] =
    ["prometheus_sd_refresh_failures_total", "Number of refresh failures for the given SD mechanism."];
const REFRESH_DURATION: [&str; 2] =
    ["prometheus_sd_refresh_duration_seconds", "The duration of a refresh in seconds for the given SD mechanism."];
const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];

/// Metrics of one manager, told apart by its name: `scrape` or `notify`.
pub struct ManagerMetrics {
    registry: Arc<Registry>,
    clock: SharedClock,
    name: &'static str,
    /// Configurations without a provider.
    pub failed_configs: Gauge,
    /// Looks of all providers.
    pub received: Counter,
    /// Changes that had to wait.
    pub delayed: Counter,
    /// Changes that were handed on.
    pub sent: Counter,
}

impl ManagerMetrics {
    /// The metrics of the manager called `name`.
    pub fn new(registry: &Arc<Registry>, clock: &SharedClock, name: &'static str) -> Self {
        let labels = [("name", name)];
        let counter = |name: &str, help: &str| registry.counter(name, help, &labels);
        let help = "Current number of service discovery configurations that failed to load.";
        Self {
            failed_configs: registry.gauge("prometheus_sd_failed_configs", help, &labels),
            received: counter(
                "prometheus_sd_received_updates_total",
                "Total number of update events received from the SD providers.",
            ),
            delayed: counter(
                "prometheus_sd_updates_delayed_total",
                "Total number of update events that couldn't be sent immediately.",
            ),
            sent: counter("prometheus_sd_updates_total", "Total number of update events sent to the SD consumers."),
            registry: Arc::clone(registry),
            clock: SharedClock::clone(clock),
            name,
        }
    }

    /// The set `set` has so many targets, and they are handed on.
    pub fn discovered(&self, set: &str, targets: usize) {
        let labels = [("name", self.name), ("config", set)];
        self.registry.gauge(DISCOVERED[0], DISCOVERED[1], &labels).set(targets as f64);
        self.registry.gauge(LAST_UPDATE[0], LAST_UPDATE[1], &labels).set(self.clock.now().as_seconds());
    }

    /// The set is gone.
    pub fn removed(&self, set: &str) {
        for [name, _] in [DISCOVERED, LAST_UPDATE] {
            self.registry.remove(name, &[("name", self.name), ("config", set)]);
        }
    }

    /// Whether the last look of a provider failed.
    pub fn failing(&self, provider: &str, failing: bool) {
        let labels = [("name", self.name), ("provider", provider)];
        self.registry.gauge(FAILING[0], FAILING[1], &labels).set(f64::from(u8::from(failing)));
    }

    /// The provider is gone.
    pub fn provider_removed(&self, provider: &str) {
        self.registry.remove(FAILING[0], &[("name", self.name), ("provider", provider)]);
    }
}

/// Metrics of all sources, told apart by mechanism and set.
pub struct SourceMetrics {
    registry: Arc<Registry>,
    clock: SharedClock,
    /// Mechanisms and sets that are shown.
    shown: Mutex<BTreeSet<(&'static str, String)>>,
    /// Failed looks of HTTP discovery.
    pub http_failures: Counter,
    /// Questions to Consul that failed.
    pub consul_failures: Counter,
    /// How long Consul takes to list services.
    pub consul_services: Summary,
    /// How long Consul takes to list the instances of a service.
    pub consul_service: Summary,
    /// Lists and watches of Kubernetes's objects that failed.
    pub kubernetes_failures: Counter,
    /// Changes of Kubernetes's objects, by role and event.
    kubernetes_events: BTreeMap<(&'static str, &'static str), Counter>,
    /// Questions to DNS servers.
    pub dns_lookups: Counter,
    /// Those without an answer.
    pub dns_lookup_failures: Counter,
}

/// Metrics of one source that is asked anew each interval.
#[derive(Clone)]
pub struct RefreshMetrics {
    /// Looks that failed.
    pub failures: Counter,
    duration: Summary,
    durations: Histogram,
}

impl RefreshMetrics {
    /// A look took so long.
    pub fn observe(&self, seconds: f64) {
        self.duration.observe(seconds);
        self.durations.observe(seconds);
    }
}

impl SourceMetrics {
    /// Registers what is shown from the start.
    pub fn new(registry: &Arc<Registry>, clock: &SharedClock) -> Self {
        let counter = |name: &str, help: &str| registry.counter(name, help, &[]);
        let consul = |call: &str| {
            let (name, help) =
                ("prometheus_sd_consul_rpc_duration_seconds", "The duration of a Consul RPC call in seconds.");
            registry.summary(name, help, &[("endpoint", "catalog"), ("call", call)], &QUANTILES, clock)
        };
        let event = |role: &'static str, event: &'static str| {
            let (name, help) = ("prometheus_sd_kubernetes_events_total", "The number of Kubernetes events handled.");
            ((role, event), registry.counter(name, help, &[("role", role), ("event", event)]))
        };
        let roles = ["endpointslice", "endpoints", "node", "pod", "service", "ingress"];
        Self {
            kubernetes_failures: counter(
                "prometheus_sd_kubernetes_failures_total",
                "The number of failed WATCH/LIST requests.",
            ),
            kubernetes_events: roles
                .into_iter()
                .flat_map(|role| ["add", "delete", "update"].map(|name| event(role, name)))
                .collect(),
            consul_failures: counter(
                "prometheus_sd_consul_rpc_failures_total",
                "The number of Consul RPC call failures.",
            ),
            consul_services: consul("services"),
            consul_service: consul("service"),
            http_failures: counter(
                "prometheus_sd_http_failures_total",
                "Number of HTTP service discovery refresh failures.",
            ),
            dns_lookups: counter("prometheus_sd_dns_lookups_total", "The number of DNS-SD lookups."),
            dns_lookup_failures: counter(
                "prometheus_sd_dns_lookup_failures_total",
                "The number of DNS-SD lookup failures.",
            ),
            shown: Mutex::default(),
            registry: Arc::clone(registry),
            clock: SharedClock::clone(clock),
        }
    }

    /// Where the metrics are.
    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The metrics of the sources of one mechanism in one set.
    pub fn refresh(&self, mechanism: &'static str, set: &str) -> RefreshMetrics {
        self.shown.lock().insert((mechanism, set.to_owned()));
        let labels = [("mechanism", mechanism), ("config", set)];
        let [name, help] = REFRESH_DURATION;
        RefreshMetrics {
            failures: self.registry.counter(REFRESH_FAILURES[0], REFRESH_FAILURES[1], &labels),
            duration: self.registry.summary(name, help, &labels, &QUANTILES, &self.clock),
            durations: self.registry.histogram(
                "prometheus_sd_refresh_duration_histogram_seconds",
                "The duration of a refresh for the given SD mechanism.",
                &[("mechanism", mechanism)],
                &[0.01, 0.1, 1.0, 10.0],
            ),
        }
    }

    /// An object of Kubernetes was added, updated or deleted.
    pub(super) fn kubernetes_event(&self, role: &'static str, event: &'static str) {
        if let Some(counter) = self.kubernetes_events.get(&(role, event)) {
            counter.inc();
        }
    }

    /// Kubernetes has answered a request for `path` with the status `code`, or not at all.
    pub(super) fn kubernetes_request(&self, path: &str, code: Option<u16>, seconds: f64) {
        let code = code.map_or("<error>".to_owned(), |code| code.to_string());
        let help = "Total number of HTTP requests to the Kubernetes API by status code.";
        let name = "prometheus_sd_kubernetes_http_request_total";
        self.registry.counter(name, help, &[("status_code", &code)]).inc();
        let help = "Summary of latencies for HTTP requests to the Kubernetes API by endpoint.";
        let name = "prometheus_sd_kubernetes_http_request_duration_seconds";
        self.registry.summary(name, help, &[("endpoint", path)], &[], &self.clock).observe(seconds);
    }

    /// The set is gone.
    pub fn removed(&self, set: &str) {
        let gone: Vec<_> = self.shown.lock().extract_if(.., |(_, shown)| shown == set).collect();
        for (mechanism, set) in gone {
            for [name, _] in [REFRESH_FAILURES, REFRESH_DURATION] {
                self.registry.remove(name, &[("mechanism", mechanism), ("config", &set)]);
            }
        }
    }
}
