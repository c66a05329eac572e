//! The life of alerts: pending, firing, resolved. Times are nanoseconds since the epoch.
//!
//! Invariant: an alert is in the map as long as it is pending or firing, and for [`RESOLVED_RETENTION`] after it was
//! resolved, so that its end is sent more than once.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::alert::Alert;
use crate::model::labels::{Labels, LabelsBuilder, METRIC_NAME};
use crate::model::time::TimestampMs;
use crate::rules::spec::{AlertSpec, RuleSpec, nanos};
use crate::rules::{RuleError, exceeds};

/// How long a resolved alert is kept, and sent again.
pub const RESOLVED_RETENTION: Duration = Duration::from_secs(15 * 60);

/// Label that holds the name of an alert.
pub const ALERT_NAME: &str = "alertname";
/// Name of the series that say which alerts there are.
pub const ALERTS: &str = "ALERTS";
/// Name of the series whose values are the seconds since which alerts are active.
pub const ALERTS_FOR_STATE: &str = "ALERTS_FOR_STATE";
const ALERT_STATE: &str = "alertstate";

/// Where an alert stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlertState {
    /// It is over.
    Inactive,
    /// Its condition holds, but not for long enough.
    Pending,
    /// It fires.
    Firing,
}

impl AlertState {
    /// The word for it, as the label `alertstate` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Pending => "pending",
            Self::Firing => "firing",
        }
    }
}

/// One alert of a rule.
#[derive(Clone, Debug, PartialEq)]
pub struct ActiveAlert {
    /// Where it stands.
    pub state: AlertState,
    /// Annotations, expanded; values may be empty.
    pub annotations: Labels,
    /// Value of its element when the condition held last.
    pub value: f64,
    /// Since when the condition holds.
    pub active_at: i64,
    /// Since when it fires.
    pub fired_at: Option<i64>,
    /// When it was resolved.
    pub resolved_at: Option<i64>,
    /// When it was sent last.
    pub last_sent_at: Option<i64>,
    /// Since when it fires only because of `keep_firing_for`.
    pub keep_firing_since: Option<i64>,
}

/// The alerts of a rule, by their labels.
pub type ActiveAlerts = BTreeMap<Labels, ActiveAlert>;

/// An element of the expression's result as an alert.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) annotations: Labels,
    pub(crate) value: f64,
}

/// The alerts after an evaluation at `at` that has seen these.
pub(crate) fn advance(
    alert: &AlertSpec,
    limit: i64,
    before: &ActiveAlerts,
    seen: BTreeMap<Labels, Seen>,
    at: i64,
) -> Result<ActiveAlerts, RuleError> {
    let hold = nanos(alert.hold);
    let mut after = ActiveAlerts::new();
    for (labels, known) in before {
        if !seen.contains_key(labels)
            && let Some(unseen) = unseen(known, alert, at)
        {
            after.insert(labels.clone(), unseen);
        }
    }
    for (labels, Seen { annotations, value }) in seen {
        let known = before.get(&labels).filter(|known| known.state != AlertState::Inactive);
        let next = match known {
            Some(known) => ActiveAlert { annotations, value, keep_firing_since: None, ..known.clone() },
            None => ActiveAlert {
                state: AlertState::Pending,
                annotations,
                value,
                active_at: at,
                fired_at: None,
                resolved_at: None,
                last_sent_at: None,
                keep_firing_since: None,
            },
        };
        after.insert(labels, next);
    }
    let mut active = 0;
    for alert in after.values_mut().filter(|alert| alert.state != AlertState::Inactive) {
        active += 1;
        let held = at.saturating_sub(alert.active_at);
        if held < 0 {
            // The clock was set back. What fires goes on; what pends begins anew.
            if alert.state == AlertState::Firing {
                continue;
            }
            alert.active_at = at;
        }
        let held = held.max(0);
        if alert.state == AlertState::Pending && hold <= held {
            (alert.state, alert.fired_at) = (AlertState::Firing, Some(at));
        }
        if alert.state == AlertState::Firing && held < hold {
            // A longer `for` than before, or one that was restored.
            alert.state = AlertState::Pending;
            (alert.fired_at, alert.last_sent_at, alert.keep_firing_since) = (None, None, None);
        }
    }
    if exceeds(limit, active) {
        return Err(RuleError::TooManyAlerts { limit, count: active });
    }
    Ok(after)
}

/// What becomes of an alert that was not seen.
fn unseen(known: &ActiveAlert, alert: &AlertSpec, at: i64) -> Option<ActiveAlert> {
    let mut next = known.clone();
    match known.state {
        AlertState::Pending => return None,
        AlertState::Firing => {
            let keep = nanos(alert.keep_firing_for);
            if 0 < keep {
                let since = *next.keep_firing_since.get_or_insert(at);
                if at.saturating_sub(since) < keep {
                    return Some(next);
                }
            }
            (next.state, next.resolved_at) = (AlertState::Inactive, Some(at));
        }
        AlertState::Inactive => {
            let retention = i64::try_from(RESOLVED_RETENTION.as_nanos()).unwrap_or(i64::MAX);
            if known.resolved_at.is_some_and(|resolved| retention < at.saturating_sub(resolved)) {
                return None;
            }
        }
    }
    Some(next)
}

/// The series that tell of these alerts, with their values.
pub(crate) fn samples(rule: &RuleSpec, alerts: &ActiveAlerts) -> Vec<(Labels, f64)> {
    let mut samples = Vec::with_capacity(2 * alerts.len());
    for (labels, alert) in alerts.iter().filter(|(_, alert)| alert.state != AlertState::Inactive) {
        let mut told = told(rule, labels, ALERTS);
        samples.push((told.set(ALERT_STATE, alert.state.as_str()).build(), 1.0));
        samples.push((for_state(rule, labels), alert.active_at.div_euclid(1_000_000_000) as f64));
    }
    samples
}

/// The series that holds since when the alert with these labels is active.
pub(crate) fn for_state(rule: &RuleSpec, labels: &Labels) -> Labels {
    told(rule, labels, ALERTS_FOR_STATE).build()
}

/// A rule's label whose template came to nothing stands there as written, as in Prometheus.
fn told(rule: &RuleSpec, labels: &Labels, name: &str) -> LabelsBuilder {
    let mut builder = LabelsBuilder::new();
    for (name, value) in rule.labels.iter().chain(labels) {
        builder.set(name, value);
    }
    builder.set(METRIC_NAME, name).set(ALERT_NAME, &rule.name);
    builder
}

/// How alerts are sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sending<'a> {
    /// Least time between two messages about an alert that has not changed.
    pub(crate) resend_delay: i64,
    /// Interval of the group.
    pub(crate) interval: i64,
    /// The link that goes with them.
    pub(crate) generator_url: &'a str,
}

/// The alerts that are to be sent at `at`; they count as sent.
pub(crate) fn take_due(alerts: &mut ActiveAlerts, at: i64, sending: &Sending<'_>) -> Vec<Alert> {
    // Two evaluations, or two messages, may fail before anybody takes it for resolved.
    let valid_for = sending.interval.max(sending.resend_delay).saturating_mul(4);
    let mut due = Vec::new();
    for (labels, alert) in alerts.iter_mut().filter(|(_, alert)| is_due(alert, at, sending.resend_delay)) {
        alert.last_sent_at = Some(at);
        due.push(Alert {
            labels: labels.clone(),
            annotations: alert.annotations.clone(),
            starts_at: ms(alert.fired_at.unwrap_or(alert.active_at)),
            ends_at: ms(alert.resolved_at.unwrap_or(at.saturating_add(valid_for))),
            generator_url: sending.generator_url.to_owned(),
        });
    }
    due
}

fn is_due(alert: &ActiveAlert, at: i64, resend_delay: i64) -> bool {
    if alert.state == AlertState::Pending {
        return false;
    }
    let Some(sent) = alert.last_sent_at else { return true };
    let changed = alert.resolved_at.is_some_and(|resolved| sent < resolved);
    // One that was sent later than now was sent before the clock was set back.
    changed || at < sent || sent.saturating_add(resend_delay) < at
}

fn ms(nanos: i64) -> TimestampMs {
    TimestampMs(nanos.div_euclid(1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{group, labels, pending};

    const SECOND: i64 = 1_000_000_000;

    /// A rule with one alert, told at each step whether the condition holds.
    struct Play {
        rule: RuleSpec,
        alerts: ActiveAlerts,
    }

    impl Play {
        fn new(fields: &str) -> Self {
            let spec = group(&format!("groups: [{{name: g, rules: [{{alert: A, expr: x, {fields}}}]}}]"));
            Self { rule: spec.rules[0].clone(), alerts: ActiveAlerts::new() }
        }

        fn step(&mut self, seconds: i64, holds: bool) -> Option<AlertState> {
            let seen = Seen { annotations: Labels::empty(), value: seconds as f64 };
            let seen = holds.then(|| (labels("{alertname=\"A\"}"), seen)).into_iter().collect();
            let alert = self.rule.alerting().unwrap();
            self.alerts = advance(alert, 0, &self.alerts, seen, seconds * SECOND).unwrap();
            self.alerts.values().next().map(|alert| alert.state)
        }

        fn alert(&mut self) -> &mut ActiveAlert {
            self.alerts.values_mut().next().unwrap()
        }

        fn sent(&mut self, seconds: i64) -> Vec<Alert> {
            let sending = Sending { resend_delay: 60 * SECOND, interval: 10 * SECOND, generator_url: "http://here" };
            take_due(&mut self.alerts, seconds * SECOND, &sending)
        }
    }

    /// Steps are written as `seconds condition expected state`.
    #[track_caller]
    fn play(fields: &str, script: &[(i64, bool, Option<AlertState>)]) -> Play {
        let mut play = Play::new(fields);
        for (seconds, holds, expected) in script {
            assert_eq!(play.step(*seconds, *holds), *expected, "{fields} at {seconds}");
        }
        play
    }

    const INACTIVE: Option<AlertState> = Some(AlertState::Inactive);
    const PENDING: Option<AlertState> = Some(AlertState::Pending);
    const FIRING: Option<AlertState> = Some(AlertState::Firing);

    #[test]
    fn without_for_an_alert_fires_at_once() {
        let mut play = play("for: 0s", &[(10, true, FIRING), (20, true, FIRING), (30, false, INACTIVE)]);
        let alert = play.alert();
        assert_eq!((alert.active_at, alert.fired_at), (10 * SECOND, Some(10 * SECOND)));
        assert_eq!((alert.resolved_at, alert.value), (Some(30 * SECOND), 20.0));
    }

    #[test]
    fn an_alert_pends_until_its_condition_has_held_for_long_enough() {
        let script = [(10, true, PENDING), (39, true, PENDING), (40, true, FIRING), (50, true, FIRING)];
        assert_eq!(play("for: 30s", &script).alert().fired_at, Some(40 * SECOND));
        // A gap forgets a pending alert, and begins a firing one anew.
        play("for: 30s", &[(10, true, PENDING), (20, false, None), (30, true, PENDING), (45, true, PENDING)]);
        let script = [(10, true, PENDING), (40, true, FIRING), (50, false, INACTIVE), (60, true, PENDING)];
        let mut again = play("for: 30s", &script);
        assert_eq!((again.alert().active_at, again.alert().resolved_at), (60 * SECOND, None));
    }

    #[test]
    fn an_alert_keeps_firing_for_as_long_as_it_is_told() {
        let script = [
            (10, true, FIRING),
            (20, false, FIRING),
            (30, true, FIRING),
            (40, false, FIRING),
            (99, false, FIRING),
            (100, false, INACTIVE),
        ];
        let mut kept = play("keep_firing_for: 1m", &script);
        assert_eq!((kept.alert().keep_firing_since, kept.alert().resolved_at), (Some(40 * SECOND), Some(100 * SECOND)));
        // What has not fired is not kept.
        play("for: 1m, keep_firing_for: 1m", &[(10, true, PENDING), (20, false, None)]);
    }

    #[test]
    fn resolved_alerts_are_kept_for_a_quarter_of_an_hour() {
        let script = [(10, true, FIRING), (20, false, INACTIVE), (920, false, INACTIVE), (921, false, None)];
        play("for: 0s", &script);
    }

    #[test]
    fn a_longer_for_puts_a_firing_alert_back() {
        let mut firing = play("for: 10s", &[(10, true, PENDING), (20, true, FIRING)]);
        assert_eq!(firing.sent(20).len(), 1);
        firing.rule = Play::new("for: 1m").rule;
        assert_eq!(firing.step(30, true), PENDING);
        let alert = firing.alert();
        assert_eq!((alert.fired_at, alert.last_sent_at, alert.active_at), (None, None, 10 * SECOND));
        assert_eq!(firing.step(70, true), FIRING);
    }

    #[test]
    fn a_clock_that_is_set_back_resolves_nothing() {
        let mut firing = play("for: 10s", &[(1000, true, PENDING), (1010, true, FIRING)]);
        assert_eq!(firing.sent(1010).len(), 1);
        assert_eq!(firing.step(500, true), FIRING);
        assert_eq!(firing.sent(500).len(), 1, "it is sent on, or others take it for resolved");
        play("for: 10s", &[(1000, true, PENDING), (500, true, PENDING), (510, true, FIRING)]);
        play("for: 0s", &[(1000, true, FIRING), (500, true, FIRING), (510, false, INACTIVE)]);
    }

    #[test]
    fn too_many_alerts_are_an_error_that_takes_them_all_away() {
        let rule = Play::new("for: 0s").rule;
        let seen = |n: usize| -> BTreeMap<Labels, Seen> {
            let seen = Seen { annotations: Labels::empty(), value: 1.0 };
            (0..n).map(|n| (Labels::from_pairs([("n", n.to_string())]), seen.clone())).collect()
        };
        let alert = rule.alerting().unwrap();
        assert_eq!(advance(alert, 2, &ActiveAlerts::new(), seen(2), 0).unwrap().len(), 2);
        let error = advance(alert, 2, &ActiveAlerts::new(), seen(3), 0).unwrap_err();
        assert!(error.clears_alerts());
        assert_eq!(error.to_string(), "exceeded limit of 2 with 3 alerts");
        // Resolved ones do not count.
        let resolved = ActiveAlert { state: AlertState::Inactive, resolved_at: Some(0), ..pending(0) };
        let before = ActiveAlerts::from([(Labels::from_pairs([("n", "9")]), resolved)]);
        assert_eq!(advance(alert, 2, &before, seen(2), SECOND).unwrap().len(), 3);
    }

    #[test]
    fn firing_and_resolved_alerts_are_sent_and_sent_again() {
        let mut play = Play::new("for: 10s");
        let mut sent = Vec::new();
        for seconds in (0..=200).step_by(10) {
            play.step(seconds, seconds < 100);
            sent.extend(play.sent(seconds).into_iter().map(|alert| (seconds, alert)));
        }
        let told: Vec<_> = sent.iter().map(|(at, alert)| (*at, alert.starts_at.0, alert.ends_at.0)).collect();
        let expected = [(10, 10_000, 250_000), (80, 10_000, 320_000), (100, 10_000, 100_000), (170, 10_000, 100_000)];
        assert_eq!(told, expected);
        assert_eq!(sent[0].1.generator_url, "http://here");
    }

    #[test]
    fn alerts_are_told_by_two_series_each() {
        let spec =
            group("groups: [{name: g, rules: [{alert: A, expr: x, labels: {team: '{{ $labels.none }}', a: b}}]}]");
        let firing = ActiveAlert { state: AlertState::Firing, ..pending(1_500) };
        let resolved = ActiveAlert { state: AlertState::Inactive, ..pending(0) };
        let alerts = ActiveAlerts::from([
            (labels("{alertname=\"A\",a=\"b\",n=\"1\"}"), firing),
            (labels("{alertname=\"A\",a=\"b\",n=\"2\"}"), resolved),
        ]);
        let own = "alertname=\"A\",a=\"b\",n=\"1\",team=\"{{ $labels.none }}\"";
        let expected = [
            (labels(&format!("ALERTS{{{own},alertstate=\"firing\"}}")), 1.0),
            (labels(&format!("ALERTS_FOR_STATE{{{own}}}")), 1.0),
        ];
        assert_eq!(samples(&spec.rules[0], &alerts), expected);
    }
}
