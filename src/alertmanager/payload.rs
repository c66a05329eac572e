//! The message of webhooks, version 4, byte for byte as Alertmanager writes it.

use crate::alertmanager::dedup::Reason;
use crate::alertmanager::group::FlushAlert;
use crate::model::go_json::{push_labels, push_text};
use crate::model::go_time::format_rfc3339_nano;
use crate::model::labels::Labels;
use crate::model::time::TimestampMs;

/// What a message is about, beside the alerts.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// Name of the receiver.
    pub receiver: &'a str,
    /// Why there is a message.
    pub reason: Reason,
    /// Labels of the group.
    pub group_labels: &'a Labels,
    /// Key of the group.
    pub group_key: &'a str,
    /// Where users find us.
    pub external_url: &'a str,
}

/// The alerts that a message holds: the first `max_alerts`, or all for 0.
pub fn kept(alerts: &[FlushAlert], max_alerts: u64) -> &[FlushAlert] {
    match usize::try_from(max_alerts) {
        Ok(max) if 0 < max => alerts.get(..max).unwrap_or(alerts),
        _ => alerts,
    }
}

/// The body of a message, which holds the alerts that are [`kept`].
pub fn webhook(about: About<'_>, alerts: &[FlushAlert], max_alerts: u64) -> String {
    let kept = kept(alerts, max_alerts);
    let mut out = String::with_capacity(512 + 512 * kept.len());
    out.push_str("{\"receiver\":");
    push_text(&mut out, &quote_meta(about.receiver));
    out.push_str(",\"status\":");
    push_text(&mut out, status(kept.iter().all(|alert| alert.resolved)));
    out.push_str(",\"alerts\":[");
    for (index, alert) in kept.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        push_alert(&mut out, alert);
    }
    out.push_str("],\"notification_reason\":");
    push_text(&mut out, about.reason.as_str());
    out.push_str(",\"groupLabels\":");
    push_labels(&mut out, about.group_labels);
    out.push_str(",\"commonLabels\":");
    push_labels(&mut out, &common(kept.iter().map(|alert| &alert.alert.labels)));
    out.push_str(",\"commonAnnotations\":");
    push_labels(&mut out, &common(kept.iter().map(|alert| &alert.alert.annotations)));
    out.push_str(",\"routeLabels\":{},\"externalURL\":");
    push_text(&mut out, about.external_url);
    out.push_str(",\"version\":\"4\",\"groupKey\":");
    push_text(&mut out, about.group_key);
    out.push_str(&format!(",\"truncatedAlerts\":{}}}\n", alerts.len() - kept.len()));
    out
}

fn status(resolved: bool) -> &'static str {
    if resolved { "resolved" } else { "firing" }
}

fn push_alert(out: &mut String, told: &FlushAlert) {
    let alert = &told.alert;
    out.push_str("{\"status\":");
    push_text(out, status(told.resolved));
    out.push_str(",\"labels\":");
    push_labels(out, &alert.labels);
    out.push_str(",\"annotations\":");
    push_labels(out, &alert.annotations);
    out.push_str(",\"startsAt\":");
    push_text(out, &time(alert.starts_at));
    out.push_str(",\"endsAt\":");
    if told.resolved {
        push_text(out, &time(alert.ends_at));
    } else {
        // The end of what fires is not known; this is Go's zero time.
        push_text(out, "0001-01-01T00:00:00Z");
    }
    out.push_str(",\"generatorURL\":");
    push_text(out, &alert.generator_url);
    out.push_str(",\"fingerprint\":");
    push_text(out, &alert.fingerprint().to_string());
    out.push('}');
}

fn time(at: TimestampMs) -> String {
    format_rfc3339_nano(at.0.saturating_mul(1_000_000))
}

/// The labels that all sets have with the same value.
fn common<'a>(mut sets: impl Iterator<Item = &'a Labels>) -> Labels {
    let Some(first) = sets.next() else { return Labels::empty() };
    let mut common: Vec<(&str, &str)> = first.iter().collect();
    for set in sets {
        common.retain(|(name, value)| set.get(name) == Some(value));
    }
    Labels::from_sorted(common)
}

/// Go's `regexp.QuoteMeta`.
fn quote_meta(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if "\\.+*?()|[]{}^$".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::alert::Alert;

    fn alert(pairs: &[(&str, &str)], resolved: bool) -> FlushAlert {
        let alert = Alert {
            labels: Labels::from_pairs(pairs.iter().copied()),
            annotations: Labels::from_pairs([("summary", "<a> & \"b\"\u{2028}"), ("n", pairs[0].1)]),
            starts_at: TimestampMs(1_700_000_000_120),
            ends_at: TimestampMs(1_700_000_060_000),
            generator_url: "http://h/g?a=1&b=2".to_owned(),
        };
        FlushAlert::new(alert, resolved)
    }

    fn about<'a>(group_labels: &'a Labels, reason: Reason) -> About<'a> {
        let group_key = "{}:{alertname=\"A\"}";
        About { receiver: "team.a", reason, group_labels, group_key, external_url: "http://am:9093" }
    }

    #[test]
    fn messages_are_byte_exact() {
        let group = Labels::from_pairs([("alertname", "A")]);
        let alerts = [alert(&[("a", "1"), ("alertname", "A")], false), alert(&[("a", "2"), ("alertname", "A")], true)];
        let expected = concat!(
            r#"{"receiver":"team\\.a","status":"firing","alerts":["#,
            r#"{"status":"firing","labels":{"a":"1","alertname":"A"},"#,
            r#""annotations":{"n":"1","summary":"\u003ca\u003e \u0026 \"b\"\u2028"},"#,
            r#""startsAt":"2023-11-14T22:13:20.12Z","endsAt":"0001-01-01T00:00:00Z","#,
            r#""generatorURL":"http://h/g?a=1\u0026b=2","fingerprint":"FP1"},"#,
            r#"{"status":"resolved","labels":{"a":"2","alertname":"A"},"#,
            r#""annotations":{"n":"2","summary":"\u003ca\u003e \u0026 \"b\"\u2028"},"#,
            r#""startsAt":"2023-11-14T22:13:20.12Z","endsAt":"2023-11-14T22:14:20Z","#,
            r#""generatorURL":"http://h/g?a=1\u0026b=2","fingerprint":"FP2"}],"#,
            r#""notification_reason":"first notification","groupLabels":{"alertname":"A"},"#,
            r#""commonLabels":{"alertname":"A"},"commonAnnotations":{"summary":"\u003ca\u003e \u0026 \"b\"\u2028"},"#,
            r#""routeLabels":{},"externalURL":"http://am:9093","version":"4","#,
            r#""groupKey":"{}:{alertname=\"A\"}","truncatedAlerts":0}"#,
            "\n"
        );
        let expected = expected
            .replace("FP1", &alerts[0].alert.fingerprint().to_string())
            .replace("FP2", &alerts[1].alert.fingerprint().to_string());
        assert_eq!(webhook(about(&group, Reason::FirstNotification), &alerts, 0), expected);
    }

    #[test]
    fn what_is_common_and_the_status_are_those_of_the_alerts_kept() {
        let alerts = [alert(&[("a", "1")], true), alert(&[("a", "2")], false)];
        let body = webhook(about(&Labels::empty(), Reason::SomeResolved), &alerts, 1);
        let json: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(json["status"], "resolved");
        assert_eq!(json["truncatedAlerts"], 1);
        assert_eq!(json["commonLabels"], serde_json::json!({"a": "1"}));
        assert_eq!(json["alerts"].as_array().unwrap().len(), 1);
    }
}
