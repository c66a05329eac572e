//! What a group remembers from one evaluation to the next, and what of it a reload keeps.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::model::labels::Labels;
use crate::rules::alerting::ActiveAlerts;
use crate::rules::spec::{GroupSpec, RuleSpec};

/// Series of a rule.
pub type SeriesSet = HashSet<Labels>;

/// How the last evaluation went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// There was none.
    #[default]
    Unknown,
    /// Well.
    Good,
    /// Not well.
    Bad,
}

/// What is known of one rule. A snapshot: whoever changes anything makes a new one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleState {
    /// How the last evaluation went.
    pub health: Health,
    /// Why it did not go well; empty if it did.
    pub last_error: String,
    /// When the last evaluation began, in nanoseconds since the epoch.
    pub evaluated_at: Option<i64>,
    /// How long it took.
    pub took: Duration,
    /// Series that the rule has written and not ended; after an append of unknown outcome, those too that it may have
    /// written.
    pub series: Arc<SeriesSet>,
    /// Pending, firing and recently resolved alerts, by their labels.
    pub alerts: Arc<ActiveAlerts>,
    /// The `for` of alerts has been looked up in storage, or need not be; before that no alert is written.
    pub restored: bool,
}

impl RuleState {
    /// A rule that was never evaluated.
    pub fn new(restored: bool) -> Self {
        Self { restored, ..Self::default() }
    }
}

/// What a changed group takes over.
#[derive(Debug, Default, PartialEq)]
pub struct CarriedOver {
    /// States of the new rules, in their order.
    pub rules: Vec<RuleState>,
    /// Series of rules that are gone.
    pub leftover: Vec<Labels>,
}

/// Matches rules by name and labels, repeated ones in their order: those keep series and alerts. Health and times begin
/// anew.
pub fn carry_over(from: &GroupSpec, states: &[Arc<RuleState>], to: &GroupSpec) -> CarriedOver {
    let mut known: HashMap<_, VecDeque<(&RuleSpec, &Arc<RuleState>)>> = HashMap::new();
    for (rule, state) in from.rules.iter().zip(states) {
        known.entry(rule.identity()).or_default().push_back((rule, state));
    }
    let mut carried = CarriedOver::default();
    for rule in &to.rules {
        let found = known.get_mut(&rule.identity()).and_then(VecDeque::pop_front);
        let mut next =
            RuleState::new(found.is_none_or(|(before, state)| before.alerting().is_none() || state.restored));
        if let Some((before, state)) = found {
            next.series = Arc::clone(&state.series);
            if before.alerting().is_some() && rule.alerting().is_some() {
                next.alerts = Arc::clone(&state.alerts);
            }
        }
        carried.rules.push(next);
    }
    let gone = known.into_values().flatten();
    carried.leftover = gone.flat_map(|(_, state)| state.series.iter().cloned()).collect();
    carried.leftover.sort_unstable();
    carried
}

/// Series of `before` that are not in `now`, sorted.
pub(crate) fn ended(before: &SeriesSet, now: &SeriesSet) -> Vec<Labels> {
    let mut ended: Vec<_> = before.iter().filter(|labels| !now.contains(*labels)).cloned().collect();
    ended.sort_unstable();
    ended
}

/// The union of both; the older set itself when the newer adds nothing.
pub(crate) fn union(before: &Arc<SeriesSet>, now: &SeriesSet) -> Arc<SeriesSet> {
    if now.iter().all(|labels| before.contains(labels)) {
        return Arc::clone(before);
    }
    Arc::new(before.union(now).cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{group, labels, pending};

    fn state(series: &[&str]) -> Arc<RuleState> {
        let series = series.iter().map(|text| labels(text)).collect();
        Arc::new(RuleState { series: Arc::new(series), health: Health::Good, ..RuleState::new(true) })
    }

    fn rules(rules: &str) -> GroupSpec {
        group(&format!("groups: [{{name: g, rules: [{rules}]}}]"))
    }

    #[test]
    fn rules_of_the_same_name_and_labels_keep_their_series_in_order() {
        let from = rules(
            "{record: a, expr: x}, {record: a, expr: y}, {record: b, expr: x, labels: {l: '1'}}, {record: c, expr: x}",
        );
        let to = rules(
            "{record: b, expr: z, labels: {l: '1'}}, {record: a, expr: z}, {record: b, expr: x}, {record: a, expr: x}",
        );
        let states =
            [state(&["a{n=\"1\"}"]), state(&["a{n=\"2\"}"]), state(&["b{l=\"1\"}"]), state(&["c", "c{n=\"3\"}"])];
        let carried = carry_over(&from, &states, &to);
        let series: Vec<Vec<_>> = carried.rules.iter().map(|rule| rule.series.iter().cloned().collect()).collect();
        assert_eq!(
            series,
            [vec![labels("b{l=\"1\"}")], vec![labels("a{n=\"1\"}")], vec![], vec![labels("a{n=\"2\"}")]]
        );
        assert_eq!(carried.leftover, [labels("c"), labels("c{n=\"3\"}")]);
        assert!(carried.rules.iter().all(|rule| rule.health == Health::Unknown));
    }

    #[test]
    fn alerts_go_from_alerting_rules_to_alerting_rules_only() {
        let alerts = Arc::new(ActiveAlerts::from([(labels("{alertname=\"A\"}"), pending(5))]));
        let before = Arc::new(RuleState { alerts: Arc::clone(&alerts), ..RuleState::new(false) });
        let from = rules("{alert: A, expr: x, for: 5m}");
        let kept = carry_over(&from, std::slice::from_ref(&before), &rules("{alert: A, expr: x, for: 1m}"));
        assert_eq!((&kept.rules[0].alerts, kept.rules[0].restored), (&alerts, false));
        let other = carry_over(&from, std::slice::from_ref(&before), &rules("{record: A, expr: x}"));
        assert!(other.rules[0].alerts.is_empty());
        let renamed = carry_over(&from, &[before], &rules("{alert: B, expr: x}"));
        assert!(renamed.rules[0].alerts.is_empty() && renamed.rules[0].restored);
    }

    #[test]
    fn a_union_that_adds_nothing_is_the_older_set() {
        let before = Arc::clone(&state(&["a", "b"]).series);
        let fewer: SeriesSet = [labels("a")].into();
        assert!(Arc::ptr_eq(&before, &union(&before, &fewer)));
        let more: SeriesSet = [labels("a"), labels("c")].into();
        assert_eq!(union(&before, &more).len(), 3);
        assert_eq!(ended(&before, &more), [labels("b")]);
    }
}
