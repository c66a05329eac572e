//! Since when alerts were active before a restart, from the series `ALERTS_FOR_STATE`.

use std::collections::HashMap;

use crate::model::labels::{Labels, METRIC_NAME};
use crate::model::matcher::Matcher;
use crate::model::sample::{Sample, is_stale};
use crate::model::time::{TimeRange, TimestampMs};
use crate::rules::alerting::{ActiveAlerts, for_state};
use crate::rules::query::{QueryError, RuleQueries};
use crate::rules::spec::{AlertSpec, RuleSpec, nanos};

/// How much is restored. Nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct RestoreLimits {
    /// Longest outage after which anything is.
    pub outage_tolerance: i64,
    /// Least time between the restart and an alert that was pending before; alerts with a shorter `for` begin anew.
    pub grace_period: i64,
}

/// The alerts with the times at which they became active before the restart, as far as storage knows them.
pub fn restore(
    rule: &RuleSpec,
    alert: &AlertSpec,
    alerts: &ActiveAlerts,
    now: i64,
    limits: &RestoreLimits,
    queries: &dyn RuleQueries,
) -> Result<ActiveAlerts, QueryError> {
    let mut restored = alerts.clone();
    let hold = nanos(alert.hold);
    if hold < limits.grace_period || alerts.is_empty() {
        return Ok(restored);
    }
    let ms = |nanos: i64| TimestampMs(nanos.div_euclid(1_000_000));
    let Ok(range) = TimeRange::new(ms(now.saturating_sub(limits.outage_tolerance)), ms(now)) else {
        return Ok(restored);
    };
    let stored: HashMap<Labels, Sample> = queries
        .newest(&matchers(rule), range)?
        .into_iter()
        .map(|(labels, sample)| (labels.without(&[METRIC_NAME]), sample))
        .collect();
    for (labels, active) in &mut restored {
        if let Some(sample) = stored.get(labels).filter(|sample| !is_stale(sample.value)) {
            active.active_at = active_at(*sample, hold, now, limits.grace_period);
        }
    }
    Ok(restored)
}

/// Matches all series of the rule. Labels with templates differ from alert to alert.
fn matchers(rule: &RuleSpec) -> Vec<Matcher> {
    let all = for_state(rule, &Labels::empty());
    all.iter().filter(|(_, value)| !value.contains("{{")).map(|(name, value)| Matcher::equal(name, value)).collect()
}

/// When the alert counts as having become active. The outage does not count as time that it was pending.
fn active_at(stored: Sample, hold: i64, now: i64, grace_period: i64) -> i64 {
    const SECOND: i64 = 1_000_000_000;
    let down_at = (stored.at.0 / 1000).saturating_mul(SECOND);
    let was_active_at = (stored.value as i64).saturating_mul(SECOND);
    let left = hold.saturating_sub(down_at.saturating_sub(was_active_at));
    if left <= 0 {
        // It fired, and does so again at the next evaluation.
        was_active_at
    } else if left < grace_period {
        now.saturating_add(grace_period).saturating_sub(hold)
    } else {
        was_active_at.saturating_add(now.saturating_sub(down_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::sample::stale_nan;
    use crate::rules::testing::{FakeQueries, group, labels, pending};

    const SECOND: i64 = 1_000_000_000;
    const HOUR: i64 = 3600;

    /// `for` of the rule, time and value of the stored sample, and since when the alert is active then; seconds, and the
    /// restart is at 10,000.
    #[track_caller]
    fn check(hold: &str, stored: Option<(i64, f64)>, expected: i64) {
        let text = format!(
            "groups: [{{name: g, rules: [{{alert: A, expr: x, for: {hold}, labels: {{team: t, at: '{{{{ $value }}}}'}}}}]}}]"
        );
        let spec = group(&text);
        let own = "alertname=\"A\",team=\"t\",at=\"7\",n=\"1\"";
        let series = labels(&format!("ALERTS_FOR_STATE{{{own}}}"));
        let sample = |(at, value): (i64, f64)| (series.clone(), Sample { at: TimestampMs(at * 1000), value });
        let queries = FakeQueries { stored: stored.map(sample).into_iter().collect(), ..FakeQueries::default() };
        let limits = RestoreLimits { outage_tolerance: HOUR * SECOND, grace_period: 600 * SECOND };
        let alerts = ActiveAlerts::from([(labels(&format!("{{{own}}}")), pending(9_990_000))]);
        let rule = &spec.rules[0];
        let restored = restore(rule, rule.alerting().unwrap(), &alerts, 10_000 * SECOND, &limits, &queries).unwrap();
        let at: Vec<_> = restored.values().map(|alert| alert.active_at / SECOND).collect();
        assert_eq!(at, [expected], "for {hold}, stored {stored:?}");
    }

    #[test]
    fn the_outage_does_not_count() {
        // Pending for 100 of 3600 seconds when it went down at 9,000: it is 1,000 later now.
        check("1h", Some((9_000, 8_900.0)), 9_900);
        // Pending for 1,000 of 1,200: the rest is less than the grace period.
        check("20m", Some((9_000, 8_000.0)), 10_000 + 600 - 1_200);
        // It was firing.
        check("20m", Some((9_000, 7_000.0)), 7_000);
        check("20m", Some((9_000, 7_800.0)), 7_800);
    }

    #[test]
    fn nothing_is_restored_where_nothing_is_known_or_wanted() {
        check("1h", None, 9_990);
        check("1h", Some((9_000, stale_nan())), 9_990);
        // Before the tolerated outage.
        check("1h", Some((6_000, 5_900.0)), 9_990);
        // Less than the grace period anyway.
        check("5m", Some((9_000, 8_900.0)), 9_990);
    }

    #[test]
    fn labels_with_templates_are_not_looked_for() {
        let spec = group("groups: [{name: g, rules: [{alert: A, expr: x, labels: {a: b, c: '{{ $value }}', d: ''}}]}]");
        let found: Vec<_> = matchers(&spec.rules[0]).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["__name__=\"ALERTS_FOR_STATE\"", "a=\"b\"", "alertname=\"A\""]);
    }
}
