//! Prometheus's metrics about rules. Those with a `rule_group` label go with the group.

use std::sync::Arc;
use std::time::Duration;

use crate::model::clock::SharedClock;
use crate::telemetry::metrics::{Counter, Gauge, Histogram, Registry};
use crate::telemetry::summary::Summary;

/// Classic buckets of histograms of durations, in seconds.
const DURATIONS: [f64; 4] = [0.01, 0.1, 1.0, 10.0];

const MISSED: [&str; 2] = [
    "prometheus_rule_group_iterations_missed_total",
    "The total number of rule group evaluations missed due to slow rule group evaluation.",
];
const SCHEDULED: [&str; 2] = [
    "prometheus_rule_group_iterations_total",
    "The total number of scheduled rule group evaluations, whether executed or missed.",
];
const EVALUATIONS: [&str; 2] = ["prometheus_rule_evaluations_total", "The total number of rule evaluations."];
const FAILURES: [&str; 2] =
    ["prometheus_rule_evaluation_failures_total", "The total number of rule evaluation failures."];
const INTERVAL: [&str; 2] = ["prometheus_rule_group_interval_seconds", "The interval of a rule group."];
const LAST_EVALUATION: [&str; 2] = [
    "prometheus_rule_group_last_evaluation_timestamp_seconds",
    "The timestamp of the last rule group evaluation in seconds.",
];
const LAST_DURATION: [&str; 2] =
    ["prometheus_rule_group_last_duration_seconds", "The duration of the last rule group evaluation."];
const LAST_RULE_SUM: [&str; 2] = [
    "prometheus_rule_group_last_rule_duration_sum_seconds",
    "The sum of time in seconds it took to evaluate each rule in the group regardless of concurrency. This should be higher than the group duration if rules are evaluated concurrently.",
];
const LAST_RESTORE: [&str; 2] = [
    "prometheus_rule_group_last_restore_duration_seconds",
    "The duration of the last alert rules alerts restoration using the `ALERTS_FOR_STATE` series.",
];
const RULES: [&str; 2] = ["prometheus_rule_group_rules", "The number of rules."];
const SAMPLES: [&str; 2] = [
    "prometheus_rule_group_last_evaluation_samples",
    "The number of samples returned during the last rule group evaluation.",
];

/// Metrics of all groups.
#[derive(Clone)]
pub struct RuleMetrics {
    registry: Arc<Registry>,
    rule_summary: Summary,
    rule_histogram: Histogram,
    group_summary: Summary,
    group_histogram: Histogram,
    expansions: Counter,
    expansion_failures: Counter,
}

impl RuleMetrics {
    /// The metrics of `registry`.
    pub fn new(registry: &Arc<Registry>, clock: &SharedClock) -> Self {
        let summary = |name: &str, help: &str, quantiles: &[f64]| registry.summary(name, help, &[], quantiles, clock);
        let histogram = |name: &str, help: &str| registry.histogram(name, help, &[], &DURATIONS);
        let rule = "The duration for a rule to execute.";
        let group = "The duration of rule group evaluations.";
        Self {
            rule_summary: summary("prometheus_rule_evaluation_duration_seconds", rule, &[0.5, 0.9, 0.99]),
            rule_histogram: histogram("prometheus_rule_evaluation_duration_histogram_seconds", rule),
            group_summary: summary("prometheus_rule_group_duration_seconds", group, &[0.01, 0.05, 0.5, 0.9, 0.99]),
            group_histogram: histogram("prometheus_rule_group_duration_histogram_seconds", group),
            expansions: registry.counter(
                "prometheus_template_text_expansions_total",
                "The total number of template text expansions.",
                &[],
            ),
            expansion_failures: registry.counter(
                "prometheus_template_text_expansion_failures_total",
                "The total number of template text expansion failures.",
                &[],
            ),
            registry: Arc::clone(registry),
        }
    }

    /// The metrics of the group with this key.
    pub fn group(&self, key: &str) -> GroupMetrics {
        let labels = [("rule_group", key)];
        let counter = |[name, help]: [&str; 2]| self.registry.counter(name, help, &labels);
        let gauge = |[name, help]: [&str; 2]| self.registry.gauge(name, help, &labels);
        GroupMetrics {
            all: self.clone(),
            key: key.to_owned(),
            missed: counter(MISSED),
            scheduled: counter(SCHEDULED),
            evaluations: counter(EVALUATIONS),
            failures: counter(FAILURES),
            interval: gauge(INTERVAL),
            last_evaluation: gauge(LAST_EVALUATION),
            last_duration: gauge(LAST_DURATION),
            last_rule_sum: gauge(LAST_RULE_SUM),
            rules: gauge(RULES),
            samples: gauge(SAMPLES),
        }
    }

    /// The group is gone, and so are its figures.
    pub fn removed(&self, key: &str) {
        for [name, _] in [
            MISSED,
            SCHEDULED,
            EVALUATIONS,
            FAILURES,
            INTERVAL,
            LAST_EVALUATION,
            LAST_DURATION,
            LAST_RULE_SUM,
            LAST_RESTORE,
            RULES,
            SAMPLES,
        ] {
            self.registry.remove(name, &[("rule_group", key)]);
        }
    }
}

/// Metrics of one group.
pub struct GroupMetrics {
    all: RuleMetrics,
    key: String,
    /// Due times that were passed over.
    pub missed: Counter,
    /// Due times.
    pub scheduled: Counter,
    /// Evaluations of rules.
    pub evaluations: Counter,
    /// Those that failed.
    pub failures: Counter,
    interval: Gauge,
    last_evaluation: Gauge,
    last_duration: Gauge,
    last_rule_sum: Gauge,
    rules: Gauge,
    samples: Gauge,
}

/// What one evaluation of a group came to.
#[derive(Clone, Copy, Debug)]
pub struct Iteration {
    /// When it began, in seconds since the epoch.
    pub began_seconds: f64,
    /// How long it took.
    pub took: Duration,
    /// How long its rules took together.
    pub rules_took: Duration,
    /// Samples that the rules gave.
    pub samples: usize,
}

impl GroupMetrics {
    /// What the group is.
    pub fn describe(&self, rules: usize, interval_seconds: f64) {
        self.rules.set(rules as f64);
        self.interval.set(interval_seconds);
    }

    /// A rule's templates were expanded.
    pub fn expanded(&self, count: u64, failed: u64) {
        self.all.expansions.add(count);
        self.all.expansion_failures.add(failed);
    }

    /// A rule took so long.
    pub fn rule_took(&self, took: Duration) {
        self.all.rule_summary.observe(took.as_secs_f64());
        self.all.rule_histogram.observe(took.as_secs_f64());
    }

    /// All rules were evaluated.
    pub fn iterated(&self, iteration: &Iteration) {
        let took = iteration.took.as_secs_f64();
        self.all.group_summary.observe(took);
        self.all.group_histogram.observe(took);
        self.last_duration.set(took);
        self.last_evaluation.set(iteration.began_seconds);
        self.last_rule_sum.set(iteration.rules_took.as_secs_f64());
        self.samples.set(iteration.samples as f64);
    }

    /// The `for` of alerts was looked up.
    pub fn restored(&self, took: Duration) {
        let [name, help] = LAST_RESTORE;
        self.all.registry.gauge(name, help, &[("rule_group", self.key.as_str())]).set(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::clock::ManualClock;
    use crate::model::time::TimestampMs;

    #[test]
    fn a_groups_figures_go_with_it() {
        let registry = Registry::shared();
        let clock: SharedClock = ManualClock::at(TimestampMs(0));
        let metrics = RuleMetrics::new(&registry, &clock);
        let of = |key: &str| -> Vec<String> {
            let of_group = |family: &crate::telemetry::metrics::MetricFamily| {
                family.metrics.iter().any(|(labels, _)| labels.get("rule_group") == Some(key))
            };
            registry.gather().into_iter().filter(of_group).map(|family| family.name).collect()
        };
        let (gone, stays) = (metrics.group("f;gone"), metrics.group("f;stays"));
        assert_eq!(of("f;gone").len(), 10, "all but the restoration, which not every group has");
        gone.restored(Duration::from_millis(3));
        assert_eq!(of("f;gone").len(), 11);
        metrics.removed("f;gone");
        gone.evaluations.inc();
        stays.rule_took(Duration::from_millis(5));
        assert!(of("f;gone").is_empty());
        assert_eq!(of("f;stays").len(), 10);
    }
}
