//! What the process knows of itself: since when it runs and with which configuration.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config::inactive::Inactive;
use crate::config::{LoadedConfig, ScrapeConfig};
use crate::http::api::types::{Runtime, UnixNanos};
use crate::model::clock::Clock;
use crate::model::duration::PromDuration;
use crate::model::labels::Labels;
use crate::telemetry::metrics::{Gauge, Registry};

/// The configuration in effect, as users see it.
#[derive(Clone, Debug, Default)]
pub(super) struct LoadedText {
    /// YAML with defaults, secrets replaced.
    pub(super) yaml: String,
    /// Of all files that it consists of.
    pub(super) digest: String,
    /// What it sets without effect.
    pub(super) inactive: Vec<Inactive>,
    /// How long and how much data is kept; flags count where the file says nothing.
    pub(super) retention: (PromDuration, u64),
    /// Its jobs, those of further files included.
    pub(super) jobs: Vec<Arc<ScrapeConfig>>,
    /// `external_labels`, sorted by name.
    pub(super) external_labels: Labels,
}

impl LoadedText {
    pub(super) fn of(loaded: LoadedConfig, digest: String, inactive: Vec<Inactive>) -> Self {
        let retention = loaded.config.retention();
        let size = u64::try_from(retention.size.bytes()).unwrap_or(0);
        let yaml = loaded.config.to_yaml();
        let external_labels = loaded.config.global.external_labels.labels();
        let jobs = loaded.scrape_configs.into_iter().map(Arc::new).collect();
        Self { yaml, digest, inactive, retention: (retention.time, size), jobs, external_labels }
    }
}

/// State for `status/runtimeinfo` and `status/config`.
pub(super) struct Running {
    start: UnixNanos,
    config: ArcSwap<LoadedText>,
    success: Gauge,
    success_seconds: Gauge,
}

impl Running {
    pub(super) fn new(clock: &dyn Clock, registry: &Registry) -> Self {
        let help = "Whether the last configuration reload attempt was successful.";
        let success = registry.gauge("prometheus_config_last_reload_successful", help, &[]);
        let help = "Timestamp of the last successful configuration reload.";
        let name = "prometheus_config_last_reload_success_timestamp_seconds";
        let success_seconds = registry.gauge(name, help, &[]);
        Self { start: UnixNanos(clock.unix_nanos()), config: ArcSwap::default(), success, success_seconds }
    }

    /// A configuration is in effect.
    pub(super) fn loaded(&self, config: LoadedText) {
        self.config.store(std::sync::Arc::new(config));
    }

    /// Loading it was a success, or not.
    pub(super) fn reloaded(&self, is_success: bool, clock: &dyn Clock) {
        self.success.set(if is_success { 1.0 } else { 0.0 });
        if is_success {
            self.success_seconds.set(clock.now().as_seconds());
        }
    }

    pub(super) fn config(&self) -> std::sync::Arc<LoadedText> {
        self.config.load_full()
    }

    pub(super) fn runtime(&self) -> Runtime {
        let loaded_ms = (self.success_seconds.get() * 1000.0) as i64;
        Runtime {
            start_time: self.start,
            reload_success: self.success.get() == 1.0,
            last_config_time: (0 < loaded_ms).then(|| UnixNanos(loaded_ms.saturating_mul(1_000_000))),
            corruption_count: 0,
            storage_retention: retention_text(self.config().retention),
        }
    }
}

/// `15d`, `1GiB` or `15d or 1GiB`.
fn retention_text((time, size): (PromDuration, u64)) -> String {
    let time = (!time.is_zero()).then(|| time.to_string());
    let size = (0 < size).then(|| crate::config::ByteSize::new(i64::try_from(size).unwrap_or(i64::MAX)).to_string());
    [time, size].into_iter().flatten().collect::<Vec<_>>().join(" or ")
}
