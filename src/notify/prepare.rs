//! What becomes of an alert's labels before it is sent, as in Prometheus `notifier/alert.go`.

use std::sync::Arc;

use crate::config::relabel::{RelabelConfig, relabel};
use crate::model::alert::Alert;
use crate::model::labels::Labels;

/// What holds for alerts to everybody.
#[derive(Clone, Debug, Default)]
pub struct AlertRules {
    /// Labels of this server, for alerts that have none of the name.
    pub external_labels: Labels,
    /// The global `alert_relabel_configs`.
    pub relabel: Arc<[RelabelConfig]>,
}

impl AlertRules {
    /// The alerts with external labels, relabelled; those that a rule drops are left out.
    pub fn prepare(&self, alerts: Vec<Alert>) -> Vec<Arc<Alert>> {
        let prepare = |mut alert: Alert| {
            let is_missing = |(name, _): &(&str, &str)| alert.labels.get(name).unwrap_or("").is_empty();
            let missing: Vec<_> = self.external_labels.iter().filter(is_missing).collect();
            if !missing.is_empty() {
                let mut labels = alert.labels.to_builder();
                for (name, value) in missing {
                    labels.set(name, value);
                }
                alert.labels = labels.build();
            }
            alert.labels = relabel(alert.labels, &self.relabel)?;
            Some(Arc::new(alert))
        };
        alerts.into_iter().filter_map(prepare).collect()
    }
}

/// Prepared alerts after one configuration's own `alert_relabel_configs`. What no rule changes is shared, not copied.
pub fn relabel_shared(alerts: &[Arc<Alert>], rules: &[RelabelConfig]) -> Vec<Arc<Alert>> {
    if rules.is_empty() {
        return alerts.to_vec();
    }
    let relabel = |alert: &Arc<Alert>| {
        let labels = relabel(alert.labels.clone(), rules)?;
        if labels == alert.labels {
            return Some(Arc::clone(alert));
        }
        Some(Arc::new(Alert { labels, ..Alert::clone(alert) }))
    };
    alerts.iter().filter_map(relabel).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LoadOptions, load_str};
    use crate::model::time::TimestampMs;

    /// Rules as they stand in a file.
    fn rules(yaml: &str) -> Arc<[RelabelConfig]> {
        let text = format!("alerting:\n  alert_relabel_configs: {yaml}\n");
        load_str("a.yml", &text, &LoadOptions::default()).unwrap().config.alerting.alert_relabel_configs.into()
    }

    fn alert<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Alert {
        Alert {
            labels: Labels::from_pairs(labels),
            annotations: Labels::empty(),
            starts_at: TimestampMs(1),
            ends_at: TimestampMs(2),
            generator_url: String::new(),
        }
    }

    fn labels(alerts: &[Arc<Alert>]) -> Vec<String> {
        alerts.iter().map(|alert| alert.labels.to_string()).collect()
    }

    #[test]
    fn external_labels_fill_gaps_and_rules_see_them() {
        let external_labels = Labels::from_pairs([("dc", "east"), ("env", "prod")]);
        let relabel = rules("[{source_labels: [env], regex: test, action: drop}, {regex: dc, action: labeldrop}]");
        let rules = AlertRules { external_labels, relabel };
        let alerts = vec![
            alert([("alertname", "a")]),
            alert([("alertname", "b"), ("env", "test")]),
            alert([("alertname", "c"), ("env", "own")]),
        ];
        let prepared = rules.prepare(alerts);
        assert_eq!(labels(&prepared), ["{alertname=\"a\", env=\"prod\"}", "{alertname=\"c\", env=\"own\"}"]);
    }

    #[test]
    fn what_a_configuration_does_not_change_is_shared() {
        let prepared = AlertRules::default().prepare(vec![alert([("a", "1")]), alert([("a", "2")])]);
        let own =
            relabel_shared(&prepared, &rules("[{source_labels: [a], regex: 2, target_label: b, replacement: x}]"));
        assert!(Arc::ptr_eq(&own[0], &prepared[0]));
        assert_eq!(labels(&own), ["{a=\"1\"}", "{a=\"2\", b=\"x\"}"]);
        assert_eq!(labels(&prepared), ["{a=\"1\"}", "{a=\"2\"}"], "others see none of it");
        assert!(relabel_shared(&prepared, &rules("[{source_labels: [a], regex: '.*', action: drop}]")).is_empty());
    }
}
