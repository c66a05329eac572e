//! Encoder of the text format 0.0.4, for our own `/metrics`.
//!
//! Families and their metrics come in the order of [`Registry::gather`](crate::telemetry::metrics::Registry::gather);
//! the text is what Prometheus's own client libraries write, so `promtool check metrics` reads it.

use crate::model::go;
use crate::model::labels::{Labels, is_legacy_label_name, is_legacy_metric_name};
use crate::telemetry::metrics::{MetricFamily, MetricKind, MetricValue};

/// `Content-Type` of what [`text`] returns.
pub const TEXT_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How names that are not plain are to be written. All of ours are plain, so the answer only repeats what was asked for.
const ESCAPINGS: [&str; 4] = ["allow-utf-8", "underscores", "dots", "values"];

/// The content type for a request with this `Accept` header: with the first known way of escaping that it names.
pub fn text_content_type(accept: Option<&str>) -> String {
    let named = accept.unwrap_or("").split([',', ';']).find_map(|part| {
        let value = part.trim().strip_prefix("escaping=")?;
        ESCAPINGS.into_iter().find(|known| *known == value)
    });
    format!("{TEXT_CONTENT_TYPE}; escaping={}", named.unwrap_or("underscores"))
}

/// All families as text.
pub fn text(families: &[MetricFamily]) -> String {
    let mut out = String::with_capacity(4096);
    for family in families {
        push_family(&mut out, family);
    }
    out
}

fn push_family(out: &mut String, family: &MetricFamily) {
    let name = if is_legacy_metric_name(&family.name) {
        family.name.clone()
    } else {
        let mut quoted = String::new();
        push_quoted(&mut quoted, &family.name);
        quoted
    };
    if !family.help.is_empty() {
        out.push_str("# HELP ");
        out.push_str(&name);
        out.push(' ');
        push_escaped(out, &family.help, false);
        out.push('\n');
    }
    let kind = match family.kind {
        MetricKind::Counter => "counter",
        MetricKind::Gauge => "gauge",
        MetricKind::Histogram => "histogram",
        MetricKind::Summary => "summary",
    };
    out.push_str("# TYPE ");
    out.push_str(&name);
    out.push(' ');
    out.push_str(kind);
    out.push('\n');
    for (labels, value) in &family.metrics {
        push_metric(out, &family.name, labels, value);
    }
}

fn push_metric(out: &mut String, name: &str, labels: &Labels, value: &MetricValue) {
    match value {
        MetricValue::Number(number) => push_sample(out, name, "", labels, None, *number),
        MetricValue::Histogram { buckets, sum, count } => {
            for (bound, cumulative) in buckets {
                push_sample(out, name, "_bucket", labels, Some(("le", *bound)), *cumulative as f64);
            }
            push_sample(out, name, "_sum", labels, None, *sum);
            push_sample(out, name, "_count", labels, None, *count as f64);
        }
        MetricValue::Summary { quantiles, sum, count } => {
            for (quantile, value) in quantiles {
                push_sample(out, name, "", labels, Some(("quantile", *quantile)), *value);
            }
            push_sample(out, name, "_sum", labels, None, *sum);
            push_sample(out, name, "_count", labels, None, *count as f64);
        }
    }
}

fn push_sample(out: &mut String, name: &str, suffix: &str, labels: &Labels, bound: Option<(&str, f64)>, value: f64) {
    let bare = is_legacy_metric_name(name);
    let mut separator = '{';
    if bare {
        out.push_str(name);
        out.push_str(suffix);
    } else {
        out.push('{');
        push_quoted(out, &format!("{name}{suffix}"));
        separator = ',';
    }
    for (label, text) in labels {
        out.push(separator);
        separator = ',';
        push_label(out, label, text);
    }
    if let Some((label, bound)) = bound {
        out.push(separator);
        separator = ',';
        push_label(out, label, &go::format_float_g(bound));
    }
    if separator == ',' {
        out.push('}');
    }
    out.push(' ');
    out.push_str(&go::format_float_g(value));
    out.push('\n');
}

fn push_label(out: &mut String, name: &str, value: &str) {
    if is_legacy_label_name(name) {
        out.push_str(name);
    } else {
        push_quoted(out, name);
    }
    out.push('=');
    push_quoted(out, value);
}

fn push_quoted(out: &mut String, text: &str) {
    out.push('"');
    push_escaped(out, text, true);
    out.push('"');
}

fn push_escaped(out: &mut String, text: &str, quotes: bool) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            _ => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use proptest::prelude::*;

    use super::*;
    use crate::exposition::text::{Entry, Step, TextParser, unescape_help};
    use crate::telemetry::metrics::Registry;

    #[test]
    fn the_content_type_repeats_the_escaping_that_was_asked_for() {
        for (accept, escaping) in [
            (None, "underscores"),
            (Some("*/*"), "underscores"),
            (Some("text/plain;version=1.0.0;escaping=allow-utf-8"), "allow-utf-8"),
            (Some("text/html, text/plain; escaping=dots;q=0.5"), "dots"),
            (Some("text/plain;escaping=other"), "underscores"),
        ] {
            let expected = format!("text/plain; version=0.0.4; charset=utf-8; escaping={escaping}");
            assert_eq!(text_content_type(accept), expected, "{accept:?}");
        }
    }

    fn family(name: &str, help: &str, kind: MetricKind, labels: &[(&str, &str)], value: MetricValue) -> MetricFamily {
        let metrics = vec![(Labels::from_pairs(labels.iter().copied()), value)];
        MetricFamily { name: name.to_owned(), help: help.to_owned(), kind, metrics }
    }

    #[test]
    fn writes_each_kind() {
        let registry = Registry::default();
        registry.counter("a_total", "Counts \\ and\nlines.", &[("x", "1\"\\\n")]).add(1_234_567);
        registry.gauge("b", "", &[]).set(f64::NEG_INFINITY);
        registry.histogram("h_seconds", "Times.", &[("y", "z")], &[0.5, 1.0]).observe(0.75);
        let expected = "# HELP a_total Counts \\\\ and\\nlines.\n# TYPE a_total counter\n\
                        a_total{x=\"1\\\"\\\\\\n\"} 1.234567e+06\n\
                        # TYPE b gauge\nb -Inf\n\
                        # HELP h_seconds Times.\n# TYPE h_seconds histogram\n\
                        h_seconds_bucket{y=\"z\",le=\"0.5\"} 0\nh_seconds_bucket{y=\"z\",le=\"1\"} 1\n\
                        h_seconds_bucket{y=\"z\",le=\"+Inf\"} 1\nh_seconds_sum{y=\"z\"} 0.75\nh_seconds_count{y=\"z\"} 1\n";
        assert_eq!(text(&registry.gather()), expected);
    }

    #[test]
    fn writes_summaries_and_names_outside_ascii() {
        let value = MetricValue::Summary { quantiles: vec![(0.9, f64::NAN)], sum: 0.0, count: 0 };
        let expected = "# TYPE \"a.b\" summary\n{\"a.b\",\"c d\"=\"e\",quantile=\"0.9\"} NaN\n\
                        {\"a.b_sum\",\"c d\"=\"e\"} 0\n{\"a.b_count\",\"c d\"=\"e\"} 0\n";
        assert_eq!(text(&[family("a.b", "", MetricKind::Summary, &[("c d", "e")], value)]), expected);
    }

    proptest! {
        #[test]
        fn round_trips(
            name in "[a-z_:.é\"\\\\]{1,8}", help: String, label in "[a-z.\"]{1,5}", value in "\\PC{1,9}|[\\n\\\\\"]{1,4}", number: f64,
        ) {
            // Blank help texts lose their blanks in any reader of the format.
            let help = help.trim().to_owned();
            let encoded = text(&[family(&name, &help, MetricKind::Gauge, &[(&label, &value)], MetricValue::Number(number))]);
            let mut parser = TextParser::new();
            let mut at = 0;
            let mut seen = 0;
            while let Step::Entry { entry, next } = parser.next_entry(encoded.as_bytes(), at, true).unwrap() {
                match entry {
                    Entry::Help { text, .. } => {
                        prop_assert_eq!(unescape_help(std::str::from_utf8(text).unwrap()), Cow::Borrowed(help.as_str()));
                    }
                    Entry::Type { .. } | Entry::Comment => {}
                    Entry::Series(line) => {
                        let mut labels = Vec::new();
                        prop_assert!(TextParser::new().series_labels(line.raw, parser.kind(), &mut labels));
                        let wanted = vec![
                            (Cow::Borrowed("__name__"), Cow::Owned(name.clone())),
                            (Cow::Owned(label.clone()), Cow::Owned(value.clone())),
                        ];
                        prop_assert_eq!(labels, wanted);
                        prop_assert!(line.value == number || (line.value.is_nan() && number.is_nan()));
                        seen += 1;
                    }
                }
                at = next;
            }
            prop_assert_eq!(seen, 1);
        }
    }
}
