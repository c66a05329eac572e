//! Metrics of a discovery manager; names and help texts are Prometheus's.

use std::sync::Arc;

use crate::model::clock::SharedClock;
use crate::telemetry::metrics::{Counter, Gauge, Registry};

const DISCOVERED: [&str; 2] = ["prometheus_sd_discovered_targets", "Current number of discovered targets."];
const LAST_UPDATE: [&str; 2] =
    ["prometheus_sd_last_update_timestamp_seconds", "Timestamp of the last update sent to the SD consumers."];
const FAILING: [&str; 2] = ["watchfire_sd_provider_failing", "Whether the last look of the provider failed."];

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
