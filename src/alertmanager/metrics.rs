//! Alertmanager's metrics, by its names.

use std::time::Duration;

use crate::alertmanager::retry::FailureReason;
use crate::model::clock::SharedClock;
use crate::telemetry::metrics::{Counter, Gauge, Histogram, Registry};
use crate::telemetry::summary::Summary;

/// All kinds of integrations that Alertmanager has; those that are not built stay at 0.
const INTEGRATIONS: [&str; 18] = [
    "email",
    "pagerduty",
    "wechat",
    "pushover",
    "slack",
    "opsgenie",
    "webhook",
    "victorops",
    "sns",
    "telegram",
    "discord",
    "webex",
    "msteams",
    "msteamsv2",
    "incidentio",
    "jira",
    "rocketchat",
    "mattermost",
];

/// Metrics of one kind of integration.
#[derive(Clone, Debug)]
pub struct IntegrationMetrics {
    /// Notifications attempted.
    pub notifications: Counter,
    /// Attempts.
    pub requests: Counter,
    /// Attempts that failed.
    pub requests_failed: Counter,
    /// How long attempts took, in seconds.
    pub latency: Histogram,
    failed: Vec<(FailureReason, Counter)>,
}

impl IntegrationMetrics {
    fn new(registry: &Registry, integration: &str) -> Self {
        let labels = [("integration", integration)];
        let counter = |name: &str, help: &str| registry.counter(name, help, &labels);
        let failed = |reason: FailureReason| {
            let labels = [("integration", integration), ("reason", reason.as_str())];
            let help = "The total number of failed notifications.";
            (reason, registry.counter("alertmanager_notifications_failed_total", help, &labels))
        };
        Self {
            notifications: counter("alertmanager_notifications_total", "The total number of attempted notifications."),
            requests: counter(
                "alertmanager_notification_requests_total",
                "The total number of attempted notification requests.",
            ),
            requests_failed: counter(
                "alertmanager_notification_requests_failed_total",
                "The total number of failed notification requests.",
            ),
            latency: registry.histogram(
                "alertmanager_notification_latency_seconds",
                "The latency of notifications in seconds.",
                &labels,
                &[1.0, 5.0, 10.0, 15.0, 20.0],
            ),
            failed: FailureReason::ALL.into_iter().map(failed).collect(),
        }
    }

    /// Counts a notification that failed.
    pub fn failed(&self, reason: FailureReason) {
        if let Some((_, counter)) = self.failed.iter().find(|(of, _)| *of == reason) {
            counter.inc();
        }
    }
}

/// All metrics.
#[derive(Clone)]
pub struct AlertmanagerMetrics {
    /// Of webhooks.
    pub webhook: IntegrationMetrics,
    /// Alerts that fire, received.
    pub received_firing: Counter,
    /// Alerts that are over, received.
    pub received_resolved: Counter,
    /// Alerts that the full queue has lost.
    pub dropped: Counter,
    /// How long sorting an alert into its groups takes, in seconds.
    pub processing: Summary,
    /// Receivers and integrations configured.
    pub receivers: Gauge,
    /// The same of integrations.
    pub integrations: Gauge,
    /// Of the notification log.
    pub nflog: NflogMetrics,
    /// Whether the last configuration was good, and when one was.
    pub reload: (Gauge, Gauge),
}

/// Metrics of the notification log.
#[derive(Clone)]
pub struct NflogMetrics {
    /// Look-ups.
    pub queries: Counter,
    /// Look-ups that failed; there are none.
    pub query_errors: Counter,
    /// Duration of look-ups, in seconds.
    pub query_duration: Histogram,
    /// Rewrites of the file.
    pub maintenance: Counter,
    /// Rewrites that failed.
    pub maintenance_errors: Counter,
    /// Length of the last rewritten file.
    pub snapshot_len: Gauge,
    /// Duration of rewrites, in seconds.
    pub snapshot_duration: Summary,
    /// Duration of forgetting, in seconds.
    pub gc_duration: Summary,
}

impl AlertmanagerMetrics {
    /// The metrics of `registry`.
    pub fn new(registry: &Registry, clock: &SharedClock) -> Self {
        for integration in INTEGRATIONS {
            IntegrationMetrics::new(registry, integration);
        }
        let received = |status: &str| {
            let labels = [("status", status), ("version", "v2")];
            registry.counter("alertmanager_alerts_received_total", "The total number of received alerts.", &labels)
        };
        let gauge = |name: &str, help: &str| registry.gauge(name, help, &[]);
        let name = "alertmanager_dispatcher_alert_processing_duration_seconds";
        let help = "Summary of latencies for the processing of alerts.";
        Self {
            webhook: IntegrationMetrics::new(registry, "webhook"),
            received_firing: received("firing"),
            received_resolved: received("resolved"),
            dropped: registry.counter(
                "watchfire_dispatcher_alerts_dropped_total",
                "Alerts that the dispatcher's full queue has lost, oldest first.",
                &[],
            ),
            processing: registry.summary(name, help, &[], &[], clock),
            receivers: gauge("alertmanager_receivers", "Number of configured receivers."),
            integrations: gauge("alertmanager_integrations", "Number of configured integrations."),
            nflog: NflogMetrics::new(registry, clock),
            reload: (
                gauge(
                    "alertmanager_config_last_reload_successful",
                    "Whether the last configuration reload attempt was successful.",
                ),
                gauge(
                    "alertmanager_config_last_reload_success_timestamp_seconds",
                    "Timestamp of the last successful configuration reload.",
                ),
            ),
        }
    }
}

impl NflogMetrics {
    fn new(registry: &Registry, clock: &SharedClock) -> Self {
        const BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
        let name = |rest: &str| format!("alertmanager_nflog_{rest}");
        let counter = |rest: &str, help: &str| registry.counter(&name(rest), help, &[]);
        let summary = |rest: &str, help: &str| registry.summary(&name(rest), help, &[], &[], clock);
        Self {
            queries: counter("queries_total", "Number of notification log queries were received."),
            query_errors: counter("query_errors_total", "Number notification log received queries that failed."),
            query_duration: registry.histogram(
                &name("query_duration_seconds"),
                "Duration of notification log query evaluation.",
                &[],
                &BUCKETS,
            ),
            maintenance: counter("maintenance_total", "How many maintenances were executed for the notification log."),
            maintenance_errors: counter(
                "maintenance_errors_total",
                "How many maintenances were executed for the notification log that failed.",
            ),
            snapshot_len: registry.gauge(
                &name("snapshot_size_bytes"),
                "Size of the last notification log snapshot in bytes.",
                &[],
            ),
            snapshot_duration: summary("snapshot_duration_seconds", "Duration of the last notification log snapshot."),
            gc_duration: summary(
                "gc_duration_seconds",
                "Duration of the last notification log garbage collection cycle.",
            ),
        }
    }

    /// Counts a look-up.
    pub fn queried(&self, took: Duration) {
        self.queries.inc();
        self.query_duration.observe(took.as_secs_f64());
    }
}
