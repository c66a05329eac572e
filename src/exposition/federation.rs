//! The answer of `/federate`: the newest sample of each series, untyped and with its time, as Prometheus writes it.
//!
//! Floats and histograms of one name, and gauge histograms and counters, stand in families of their own, so a name may
//! come more than once. Histograms with exponential buckets have no form in these formats and are left out; those with
//! listed bounds are written as classic ones.

use crate::exposition::encode::{LabelList, push_type};
use crate::exposition::escape::Escaping;
use crate::exposition::negotiate::{Negotiated, Written};
use crate::exposition::text::format_bound;
use crate::model::go;
use crate::model::histogram::{CounterResetHint, FloatHistogram};
use crate::model::labels::{Labels, METRIC_NAME};
use crate::model::read::NewestSample;

/// Writes `samples`, sorted by metric name, with `external` labels where a series has none of that name (sorted by name).
pub fn encode_newest(samples: &[NewestSample], external: &[(String, String)], negotiated: &Negotiated) -> String {
    let mut writer = Writer {
        out: String::with_capacity(4096),
        open: matches!(negotiated.format, Written::OpenMetrics001 | Written::OpenMetrics100),
        escaping: negotiated.escaping,
        external,
    };
    let mut family: Option<(&str, Family)> = None;
    for sample in samples {
        let name = sample.labels.get(METRIC_NAME).unwrap_or_default();
        let kind = match &sample.histogram {
            None => Family::Float,
            Some(histogram) if !histogram.uses_custom_buckets() => continue,
            Some(histogram) if histogram.counter_reset_hint == CounterResetHint::Gauge => Family::Gauge,
            Some(_) => Family::Counter,
        };
        if name.is_empty() {
            tracing::warn!(component = "web", metric = %sample.labels, "Ignoring nameless metric during federation");
            continue;
        }
        if family != Some((name, kind)) {
            writer.begin(name, kind);
            family = Some((name, kind));
        }
        match &sample.histogram {
            None => writer.sample(name, "", sample, None, sample.value),
            Some(histogram) => writer.histogram(name, sample, histogram),
        }
    }
    if writer.open {
        writer.out.push_str("# EOF\n");
    }
    writer.out
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Float,
    Counter,
    Gauge,
}

struct Writer<'a> {
    out: String,
    open: bool,
    escaping: Escaping,
    external: &'a [(String, String)],
}

impl Writer<'_> {
    fn begin(&mut self, name: &str, family: Family) {
        let kind = match (family, self.open) {
            (Family::Float, false) => "untyped",
            (Family::Float, true) => "unknown",
            (Family::Gauge, true) => "gaugehistogram",
            (Family::Counter, _) | (Family::Gauge, false) => "histogram",
        };
        push_type(&mut self.out, &self.escaping.escape(name), kind);
    }

    fn histogram(&mut self, name: &str, sample: &NewestSample, histogram: &FloatHistogram) {
        let mut cumulative = 0.0;
        let mut buckets = histogram.positive().peekable();
        for bound in &histogram.custom_values {
            while let Some(bucket) = buckets.next_if(|bucket| bucket.upper <= *bound) {
                cumulative += bucket.count;
            }
            self.sample(name, "_bucket", sample, Some(*bound), cumulative);
        }
        self.sample(name, "_bucket", sample, Some(f64::INFINITY), histogram.count);
        self.sample(name, "_sum", sample, None, histogram.sum);
        self.sample(name, "_count", sample, None, histogram.count);
    }

    fn sample(&mut self, name: &str, suffix: &str, sample: &NewestSample, le: Option<f64>, value: f64) {
        let Self { out, open, escaping, external } = self;
        let float = |v: f64| if *open { format_bound(v) } else { go::format_float_g(v) };
        let own = sample.labels.iter().filter(|(label, text)| *label != METRIC_NAME && !text.is_empty());
        let external = external.iter().filter(|(label, _)| !has(&sample.labels, label));
        let mut list = LabelList::begin(out, &escaping.escape(name), suffix);
        for (label, text) in own.chain(external.map(|(label, text)| (&**label, &**text))) {
            list.push(&escaping.escape(label), text);
        }
        if let Some(bound) = le {
            list.push("le", &float(bound));
        }
        list.end();
        let at = if *open { float(sample.at_ms as f64 / 1000.0) } else { sample.at_ms.to_string() };
        out.push_str(&format!(" {} {at}\n", float(value)));
    }
}

fn has(labels: &Labels, name: &str) -> bool {
    labels.get(name).is_some_and(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::exposition::negotiate::negotiate;
    use crate::model::histogram::{CUSTOM_BUCKETS_SCHEMA, Span};

    fn float(labels: &[(&str, &str)], at_ms: i64, value: f64) -> NewestSample {
        NewestSample { labels: Labels::from_pairs(labels.iter().copied()), at_ms, value, histogram: None }
    }

    fn samples() -> Vec<NewestSample> {
        let listed = FloatHistogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            count: 7.0,
            sum: 2.5,
            positive_spans: vec![Span { offset: 0, length: 1 }, Span { offset: 1, length: 1 }],
            positive_buckets: vec![2.0, 4.0],
            custom_values: vec![0.1, 1.0, 5.0],
            ..FloatHistogram::default()
        };
        let exponential = FloatHistogram::default();
        let mut listed_sample = float(&[("__name__", "h"), ("le_", "x")], 2, 0.0);
        listed_sample.histogram = Some(Arc::new(listed));
        let mut native = float(&[("__name__", "h")], 3, 0.0);
        native.histogram = Some(Arc::new(exponential));
        vec![
            float(&[("__name__", "a.b"), ("c.d", "e\"")], 1_435_781_451_781, 1e7),
            float(&[("__name__", "a.b"), ("instance", "i"), ("x", "")], -1, f64::INFINITY),
            listed_sample,
            native,
            float(&[("instance", "nameless")], 4, 4.0),
        ]
    }

    #[test]
    fn writes_text() {
        let external = [("instance".to_owned(), String::new()), ("region".to_owned(), "r".to_owned())];
        let expected = concat!(
            "# TYPE a_b untyped\n",
            "a_b{c_d=\"e\\\"\",instance=\"\",region=\"r\"} 1e+07 1435781451781\n",
            "a_b{instance=\"i\",region=\"r\"} +Inf -1\n",
            "# TYPE h histogram\n",
            "h_bucket{le_=\"x\",instance=\"\",region=\"r\",le=\"0.1\"} 2 2\n",
            "h_bucket{le_=\"x\",instance=\"\",region=\"r\",le=\"1\"} 2 2\n",
            "h_bucket{le_=\"x\",instance=\"\",region=\"r\",le=\"5\"} 6 2\n",
            "h_bucket{le_=\"x\",instance=\"\",region=\"r\",le=\"+Inf\"} 7 2\n",
            "h_sum{le_=\"x\",instance=\"\",region=\"r\"} 2.5 2\n",
            "h_count{le_=\"x\",instance=\"\",region=\"r\"} 7 2\n",
        );
        assert_eq!(encode_newest(&samples(), &external, &negotiate(None)), expected);
    }

    #[test]
    fn writes_openmetrics_with_names_as_they_are() {
        let negotiated = negotiate(Some("application/openmetrics-text;version=1.0.0;escaping=allow-utf-8"));
        let expected = concat!(
            "# TYPE \"a.b\" unknown\n",
            "{\"a.b\",\"c.d\"=\"e\\\"\"} 1e+07 1.435781451781e+09\n",
            "{\"a.b\",instance=\"i\"} +Inf -0.001\n# EOF\n",
        );
        assert_eq!(encode_newest(&samples()[..2], &[], &negotiated), expected);
    }
}
