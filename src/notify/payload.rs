//! The body of a notification: alerts as JSON for `POST /api/v2/alerts`, byte for byte as Prometheus writes it. Keys stand
//! in the order of Alertmanager's generated model; empty annotations and an empty generator URL are left out; times have
//! three decimals; `<`, `>` and `&` are escaped, as Go's encoder does.

use std::fmt::Write as _;

use bytes::Bytes;

use crate::model::alert::Alert;
use crate::model::go_json::{push_labels, push_text};
use crate::model::go_time;
use crate::model::time::TimestampMs;

/// A body that is being written.
#[derive(Debug)]
pub struct Payload {
    text: String,
}

impl Default for Payload {
    fn default() -> Self {
        Self { text: "[".to_owned() }
    }
}

impl Payload {
    /// Adds an alert.
    pub fn push(&mut self, alert: &Alert) {
        self.text.push_str(if self.text.len() == 1 { "{" } else { ",{" });
        if !alert.annotations.is_empty() {
            self.text.push_str("\"annotations\":");
            push_labels(&mut self.text, &alert.annotations);
            self.text.push(',');
        }
        for (name, at) in [("endsAt", alert.ends_at), ("startsAt", alert.starts_at)] {
            let _ = write!(self.text, "\"{name}\":\"{}\",", time(at));
        }
        if !alert.generator_url.is_empty() {
            self.text.push_str("\"generatorURL\":");
            push_text(&mut self.text, &alert.generator_url);
            self.text.push(',');
        }
        self.text.push_str("\"labels\":");
        push_labels(&mut self.text, &alert.labels);
        self.text.push('}');
    }

    /// The whole body.
    pub fn finish(mut self) -> Bytes {
        self.text.push(']');
        self.text.into()
    }
}

/// RFC 3339 in UTC with milliseconds, zeros included.
fn time(TimestampMs(at): TimestampMs) -> String {
    let (seconds, ms) = (at.div_euclid(1000), at.rem_euclid(1000));
    let mut text = go_time::format_rfc3339_nano(seconds.saturating_mul(1_000_000_000));
    text.truncate(text.trim_end_matches('Z').len());
    let _ = write!(text, ".{ms:03}Z");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::labels::Labels;

    #[track_caller]
    fn check(alerts: &[Alert], expected: &str) {
        let mut payload = Payload::default();
        alerts.iter().for_each(|alert| payload.push(alert));
        assert_eq!(payload.finish(), expected);
    }

    #[test]
    fn alerts_are_written_as_by_prometheus() {
        let full = Alert {
            labels: Labels::from_pairs([("alertname", "a"), ("instance", "h:1")]),
            annotations: Labels::from_pairs([("summary", "1 < 2 & \"up\"\n\u{1}\u{8}\u{2028}é")]),
            starts_at: TimestampMs(1_435_781_430_000),
            ends_at: TimestampMs(1_435_781_430_045),
            generator_url: "http://p:9090/graph?g0.expr=up+%3D%3D+0&g0.tab=1".to_owned(),
        };
        let bare = Alert {
            labels: Labels::empty(),
            annotations: Labels::empty(),
            starts_at: TimestampMs(-1),
            ends_at: TimestampMs(0),
            generator_url: String::new(),
        };
        check(&[], "[]");
        let expected_bare =
            r#"{"endsAt":"1970-01-01T00:00:00.000Z","startsAt":"1969-12-31T23:59:59.999Z","labels":{}}"#;
        let expected_full = concat!(
            r#"{"annotations":{"summary":"1 \u003c 2 \u0026 \"up\"\n\u0001\b\u2028é"},"#,
            r#""endsAt":"2015-07-01T20:10:30.045Z","startsAt":"2015-07-01T20:10:30.000Z","#,
            r#""generatorURL":"http://p:9090/graph?g0.expr=up+%3D%3D+0\u0026g0.tab=1","#,
            r#""labels":{"alertname":"a","instance":"h:1"}}"#
        );
        check(std::slice::from_ref(&bare), &format!("[{expected_bare}]"));
        check(&[full, bare], &format!("[{expected_full},{expected_bare}]"));
    }
}
