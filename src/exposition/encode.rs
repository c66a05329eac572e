//! Encoders of text 0.0.4 and OpenMetrics, for our own `/metrics`.
//!
//! Families and their metrics come in the order of [`Registry::gather`](crate::telemetry::metrics::Registry::gather);
//! the text is what Prometheus's own client libraries write, so `promtool check metrics` reads it. Both formats name the
//! same series: a counter without `_total` has no place in OpenMetrics and is of unknown type there.

use crate::exposition::negotiate::Written;
use crate::exposition::text::format_bound;
use crate::model::go;
use crate::model::labels::{Labels, is_legacy_label_name, is_legacy_metric_name};
use crate::telemetry::metrics::{MetricFamily, MetricKind, MetricValue};

const TOTAL: &str = "_total";

/// All families in a format, which is a text.
pub fn encode(families: &[MetricFamily], format: Written) -> String {
    let mut out = String::with_capacity(4096);
    let open = matches!(format, Written::OpenMetrics001 | Written::OpenMetrics100);
    for family in families {
        push_family(&mut out, family, open);
    }
    if open {
        out.push_str("# EOF\n");
    }
    out
}

fn push_family(out: &mut String, family: &MetricFamily, open: bool) {
    let mut family_name = family.name.as_str();
    let kind = match family.kind {
        MetricKind::Counter if open => match family.name.strip_suffix(TOTAL) {
            Some(base) => {
                family_name = base;
                "counter"
            }
            None => "unknown",
        },
        MetricKind::Counter => "counter",
        MetricKind::Gauge => "gauge",
        MetricKind::Histogram => "histogram",
        MetricKind::Summary => "summary",
    };
    if !family.help.is_empty() {
        out.push_str("# HELP ");
        push_family_name(out, family_name);
        out.push(' ');
        push_escaped(out, &family.help, open);
        out.push('\n');
    }
    push_type(out, family_name, kind);
    for (labels, value) in &family.metrics {
        push_metric(out, &family.name, labels, value, open);
    }
}

fn push_metric(out: &mut String, name: &str, labels: &Labels, value: &MetricValue, open: bool) {
    let float = |v: f64| if open { format_bound(v) } else { go::format_float_g(v) };
    let count = |n: u64| if open { n.to_string() } else { go::format_float_g(n as f64) };
    match value {
        MetricValue::Number(number) => push_sample(out, name, "", labels, None, &float(*number)),
        MetricValue::Histogram { buckets, sum, count: observed } => {
            for (bound, cumulative) in buckets {
                push_sample(out, name, "_bucket", labels, Some(("le", &float(*bound))), &count(*cumulative));
            }
            push_sample(out, name, "_sum", labels, None, &float(*sum));
            push_sample(out, name, "_count", labels, None, &count(*observed));
        }
        MetricValue::Summary { quantiles, sum, count: observed } => {
            for (quantile, value) in quantiles {
                push_sample(out, name, "", labels, Some(("quantile", &float(*quantile))), &float(*value));
            }
            push_sample(out, name, "_sum", labels, None, &float(*sum));
            push_sample(out, name, "_count", labels, None, &count(*observed));
        }
    }
}

fn push_sample(out: &mut String, name: &str, suffix: &str, labels: &Labels, bound: Option<(&str, &str)>, value: &str) {
    let mut list = LabelList::begin(out, name, suffix);
    for (label, text) in labels {
        list.push(label, text);
    }
    if let Some((label, bound)) = bound {
        list.push(label, bound);
    }
    list.end();
    out.push(' ');
    out.push_str(value);
    out.push('\n');
}

/// A metric's name and labels as they are written, one label after the other.
pub(super) struct LabelList<'a> {
    out: &'a mut String,
    separator: char,
}

impl<'a> LabelList<'a> {
    /// Writes the name; one that old readers do not know goes into the braces.
    pub(super) fn begin(out: &'a mut String, name: &str, suffix: &str) -> Self {
        if is_legacy_metric_name(name) {
            out.push_str(name);
            out.push_str(suffix);
            return Self { out, separator: '{' };
        }
        out.push('{');
        push_quoted(out, &format!("{name}{suffix}"));
        Self { out, separator: ',' }
    }

    pub(super) fn push(&mut self, name: &str, value: &str) {
        self.out.push(self.separator);
        self.separator = ',';
        push_label(self.out, name, value);
    }

    pub(super) fn end(self) {
        if self.separator == ',' {
            self.out.push('}');
        }
    }
}

/// Writes the line that names a family's type.
pub(super) fn push_type(out: &mut String, name: &str, kind: &str) {
    out.push_str("# TYPE ");
    push_family_name(out, name);
    out.push(' ');
    out.push_str(kind);
    out.push('\n');
}

fn push_family_name(out: &mut String, name: &str) {
    if is_legacy_metric_name(name) { out.push_str(name) } else { push_quoted(out, name) }
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
        assert_eq!(encode(&registry.gather(), Written::Text), expected);
    }

    #[test]
    fn writes_openmetrics() {
        let registry = Registry::default();
        registry.counter("a_total", "Counts \"\n.", &[("x", "1")]).add(3);
        registry.counter("b", "", &[]).add(1);
        registry.gauge("g", "", &[]).set(f64::NAN);
        registry.histogram("h", "", &[], &[1.0]).observe(0.75);
        let expected = "# HELP a Counts \\\"\\n.\n# TYPE a counter\na_total{x=\"1\"} 3.0\n\
                        # TYPE b unknown\nb 1.0\n# TYPE g gauge\ng NaN\n\
                        # TYPE h histogram\nh_bucket{le=\"1.0\"} 1\nh_bucket{le=\"+Inf\"} 1\nh_sum 0.75\nh_count 1\n# EOF\n";
        assert_eq!(encode(&registry.gather(), Written::OpenMetrics100), expected);
    }

    #[test]
    fn writes_summaries_and_names_outside_ascii() {
        let value = MetricValue::Summary { quantiles: vec![(0.9, f64::NAN)], sum: 0.0, count: 0 };
        let expected = "# TYPE \"a.b\" summary\n{\"a.b\",\"c d\"=\"e\",quantile=\"0.9\"} NaN\n\
                        {\"a.b_sum\",\"c d\"=\"e\"} 0\n{\"a.b_count\",\"c d\"=\"e\"} 0\n";
        let families = [family("a.b", "", MetricKind::Summary, &[("c d", "e")], value)];
        assert_eq!(encode(&families, Written::Text), expected);
    }

    proptest! {
        #[test]
        fn round_trips(
            name in "[a-z_:.é\"\\\\]{1,8}", help: String, label in "[a-z.\"]{1,5}", value in "\\PC{1,9}|[\\n\\\\\"]{1,4}", number: f64,
        ) {
            // Blank help texts lose their blanks in any reader of the format.
            let help = help.trim().to_owned();
            let families = [family(&name, &help, MetricKind::Gauge, &[(&label, &value)], MetricValue::Number(number))];
            let encoded = encode(&families, Written::Text);
            let mut parser = TextParser::new();
            let mut at = 0;
            let mut seen = 0;
            while let Step::Entry { entry, next } = parser.next_entry(encoded.as_bytes(), at, true).unwrap() {
                match entry {
                    Entry::Help { text, .. } => {
                        prop_assert_eq!(unescape_help(std::str::from_utf8(text).unwrap()), Cow::Borrowed(help.as_str()));
                    }
                    Entry::Type { .. } | Entry::Unit { .. } | Entry::Comment => {}
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
