//! What a rule file says of a group, with the defaults filled in. Two specifications are equal exactly when evaluating
//! them is the same, so a reload can tell which groups it does not touch.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::config::rules::{Rule, RuleGroup, RuleKind as ConfigKind};
use crate::model::duration::PromDuration;
use crate::model::labels::Labels;
use crate::model::time::TimestampMs;
use crate::promql::parser::{ParseOptions, parse_expr};

/// What a group takes from elsewhere where its file says nothing.
#[derive(Clone, Copy, Debug)]
pub struct GroupDefaults {
    /// `global.evaluation_interval`.
    pub interval: PromDuration,
    /// `global.rule_query_offset`.
    pub query_offset: PromDuration,
    /// How expressions are read.
    pub parser: ParseOptions,
}

/// A group of rules that are evaluated one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSpec {
    /// The file that it stands in.
    pub file: String,
    /// Its name, unique in the file.
    pub name: String,
    /// Time between evaluations, more than zero.
    pub interval: PromDuration,
    /// How far before the evaluation the rules look and write.
    pub query_offset: PromDuration,
    /// Most series or alerts of a rule; 0 for no limit.
    pub limit: i64,
    /// The rules, in order.
    pub rules: Vec<RuleSpec>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSpec {
    /// Name of the series or of the alerts.
    pub name: String,
    /// The expression as the printer prints it.
    pub expr: String,
    /// Labels as written, the group's among them. Values may be empty: such a label is taken away.
    pub labels: Labels,
    /// What comes of it.
    pub kind: RuleKind,
}

/// What comes of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleKind {
    /// Series.
    Recording,
    /// Alerts.
    Alerting(AlertSpec),
}

/// What an alerting rule has and a recording rule has not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertSpec {
    /// `for`.
    pub hold: PromDuration,
    /// `keep_firing_for`.
    pub keep_firing_for: PromDuration,
    /// Annotations as written; values may be empty.
    pub annotations: Labels,
}

impl GroupSpec {
    /// The group of a checked file.
    pub fn new(file: &str, group: &RuleGroup, defaults: &GroupDefaults) -> Self {
        let interval = if group.interval.is_zero() { defaults.interval } else { group.interval };
        Self {
            file: file.to_owned(),
            name: group.name.clone(),
            interval,
            query_offset: group.query_offset.unwrap_or(defaults.query_offset),
            limit: group.limit,
            rules: group.rules.iter().map(|rule| RuleSpec::new(rule, &group.labels, &defaults.parser)).collect(),
        }
    }

    /// Identifies the group among all files, in metrics and across reloads.
    pub fn key(&self) -> String {
        format!("{};{}", self.file, self.name)
    }

    /// The time at which rules look and write when they are evaluated at `at_nanos`.
    pub fn data_time(&self, at_nanos: i64) -> TimestampMs {
        TimestampMs(at_nanos.saturating_sub(nanos(self.query_offset)).div_euclid(1_000_000))
    }
}

impl RuleSpec {
    fn new(rule: &Rule, of_group: &BTreeMap<String, String>, parser: &ParseOptions) -> Self {
        let mut labels = of_group.clone();
        labels.extend(rule.labels.iter().map(|(name, value)| (name.clone(), value.clone())));
        let kind = match &rule.kind {
            ConfigKind::Record(_) => RuleKind::Recording,
            ConfigKind::Alert { hold, keep_firing_for, annotations, .. } => RuleKind::Alerting(AlertSpec {
                hold: *hold,
                keep_firing_for: *keep_firing_for,
                annotations: as_written(annotations),
            }),
        };
        // An expression that does not parse keeps its text; its evaluation says why.
        let expr = parse_expr(&rule.expr, parser).map_or_else(|_| rule.expr.clone(), |expr| expr.to_string());
        Self { name: rule.name().to_owned(), expr, labels: as_written(&labels), kind }
    }

    /// What an alerting rule has and a recording rule has not.
    pub fn alerting(&self) -> Option<&AlertSpec> {
        match &self.kind {
            RuleKind::Recording => None,
            RuleKind::Alerting(alert) => Some(alert),
        }
    }

    /// Rules that are equal in this keep what they remember across a reload.
    pub fn identity(&self) -> (&str, &Labels) {
        (&self.name, &self.labels)
    }

    /// The link to the expression that goes out with alerts, below the external URL.
    pub fn table_link(&self) -> String {
        format!("/graph?g0.expr={}&g0.tab=1", query_escape(&self.expr))
    }
}

/// All pairs, those with empty values too.
fn as_written(pairs: &BTreeMap<String, String>) -> Labels {
    Labels::from_sorted(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())))
}

/// A configured duration in nanoseconds.
pub(crate) fn nanos(duration: PromDuration) -> i64 {
    duration.as_ms_i64().saturating_mul(1_000_000)
}

/// Go's `url.QueryEscape`.
fn query_escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => escaped.push(char::from(byte)),
            b' ' => escaped.push('+'),
            _ => {
                let _ = write!(escaped, "%{byte:02X}");
            }
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::group;

    #[test]
    fn defaults_fill_in_what_the_file_leaves_out() {
        let spec = group("groups: [{name: g, rules: [{record: r, expr: up}]}]");
        assert_eq!((spec.interval, spec.query_offset), (PromDuration::from_secs(60), PromDuration::from_secs(5)));
        let own = group("groups: [{name: g, interval: 10s, query_offset: 0s, rules: [{record: r, expr: up}]}]");
        assert_eq!((own.interval, own.query_offset), (PromDuration::from_secs(10), PromDuration::ZERO));
        assert_eq!(own.key(), "rules.yml;g");
        assert_eq!(spec.data_time(10_000_000_000), TimestampMs(5_000));
        assert_eq!(own.data_time(-1), TimestampMs(-1));
    }

    #[test]
    fn a_rules_labels_override_the_groups() {
        let text = "groups: [{name: g, labels: {a: group, b: group}, rules: [{record: r, expr: up, labels: {b: own, c: ''}}]}]";
        let labels: Vec<_> = group(text).rules[0].labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        let expected = [("a", "group"), ("b", "own"), ("c", "")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!(labels, expected);
    }

    #[test]
    fn groups_that_are_evaluated_the_same_way_are_equal() {
        let one = group("groups: [{name: g, rules: [{alert: A, expr: 'up  ==  0', for: 60s}]}]");
        let same = group("groups: [{name: g, interval: 1m, rules: [{alert: A, for: 1m, expr: up == 0}]}]");
        assert_eq!(one, same);
        for other in [
            "groups: [{name: g, rules: [{alert: A, expr: up == 1, for: 60s}]}]",
            "groups: [{name: g, rules: [{alert: A, expr: up == 0, for: 61s}]}]",
            "groups: [{name: g, limit: 1, rules: [{alert: A, expr: up == 0, for: 60s}]}]",
            "groups: [{name: g, interval: 1s, rules: [{alert: A, expr: up == 0, for: 60s}]}]",
            "groups: [{name: g, rules: [{alert: A, expr: up == 0, for: 60s, annotations: {a: ''}}]}]",
        ] {
            assert_ne!(one, group(other), "{other}");
        }
    }

    #[test]
    fn links_are_escaped_as_in_go() {
        let spec = group("groups: [{name: g, rules: [{alert: A, expr: 'up{a=~\"x|y\"} > 0.5'}]}]");
        let expected = "/graph?g0.expr=up%7Ba%3D~%22x%7Cy%22%7D+%3E+0.5&g0.tab=1";
        assert_eq!(spec.rules[0].table_link(), expected);
    }
}
