//! Protocol buffers as we send them: families one after the other, each with its length ahead, for `/metrics` and `/federate`.
//!
//! ```text
//! │ length uvarint │ MetricFamily { 1 name, 2 help, 3 type enum, 4 metric Metric … } │ …
//! Metric    { 1 label LabelPair …, 2 gauge │ 3 counter │ 4 summary │ 5 untyped │ 7 histogram, 6 timestamp_ms int64 }
//! Summary   { 1 sample_count uint64, 2 sample_sum double, 3 quantile { 1 quantile, 2 value } … }
//! Histogram { 1 sample_count uint64, 4 sample_count_float, 2 sample_sum, 3 bucket …, 5 schema sint32, 6 zero_threshold,
//!             8 zero_count_float, 9 negative_span …, 11 negative_count …, 12 positive_span …, 14 positive_count … }
//! Bucket    { 1 cumulative_count uint64, 4 cumulative_count_float, 2 upper_bound }
//! ```
//! As in Prometheus the last bucket, whose bound is infinite, is left out: the count says it.

use crate::exposition::escape::Escaping;
use crate::model::histogram::{CounterResetHint, FloatHistogram, Span};
use crate::model::labels::METRIC_NAME;
use crate::model::read::NewestSample;
use crate::telemetry::metrics::{MetricFamily, MetricKind, MetricValue};

/// Numbers of the types of families.
const COUNTER: u64 = 0;
const GAUGE: u64 = 1;
const SUMMARY: u64 = 2;
const UNTYPED: u64 = 3;
const HISTOGRAM: u64 = 4;
const GAUGE_HISTOGRAM: u64 = 5;

/// Our own metrics.
pub fn encode(families: &[MetricFamily], escaping: Escaping) -> Vec<u8> {
    let (mut out, mut message) = (Vec::new(), Vec::new());
    for family in families {
        begin_family(&mut message, &escaping.escape(&family.name), &family.help, kind_of(family.kind));
        for (labels, value) in &family.metrics {
            let mut metric = Vec::new();
            labels.iter().for_each(|(name, text)| push_label(&mut metric, &escaping.escape(name), text));
            match value {
                MetricValue::Number(number) => {
                    let mut one = Vec::new();
                    push_double(&mut one, 1, *number);
                    push_bytes(&mut metric, if family.kind == MetricKind::Counter { 3 } else { 2 }, &one);
                }
                MetricValue::Summary { quantiles, sum, count } => {
                    let mut one = Vec::new();
                    push_number(&mut one, 1, *count);
                    push_double(&mut one, 2, *sum);
                    for (quantile, value) in quantiles {
                        let mut pair = Vec::new();
                        push_double(&mut pair, 1, *quantile);
                        push_double(&mut pair, 2, *value);
                        push_bytes(&mut one, 3, &pair);
                    }
                    push_bytes(&mut metric, 4, &one);
                }
                MetricValue::Histogram { buckets, sum, count } => {
                    let mut one = Vec::new();
                    push_number(&mut one, 1, *count);
                    push_double(&mut one, 2, *sum);
                    for (bound, cumulative) in buckets.iter().filter(|(bound, _)| bound.is_finite()) {
                        let mut bucket = Vec::new();
                        push_number(&mut bucket, 1, *cumulative);
                        push_double(&mut bucket, 2, *bound);
                        push_bytes(&mut one, 3, &bucket);
                    }
                    push_bytes(&mut metric, 7, &one);
                }
            }
            push_bytes(&mut message, 4, &metric);
        }
        end_family(&mut out, &mut message);
    }
    out
}

fn kind_of(kind: MetricKind) -> u64 {
    match kind {
        MetricKind::Counter => COUNTER,
        MetricKind::Gauge => GAUGE,
        MetricKind::Summary => SUMMARY,
        MetricKind::Histogram => HISTOGRAM,
    }
}

/// `samples`, sorted by metric name, with `external` labels where a series has none of that name (sorted by name). Floats and
/// histograms of one name, and gauge histograms and counters, make families of their own.
pub fn encode_newest(samples: &[NewestSample], external: &[(String, String)], escaping: Escaping) -> Vec<u8> {
    let (mut out, mut message) = (Vec::new(), Vec::new());
    let mut family: Option<(&str, u64)> = None;
    for sample in samples {
        let name = sample.labels.get(METRIC_NAME).unwrap_or_default();
        if name.is_empty() {
            tracing::warn!(component = "web", metric = %sample.labels, "Ignoring nameless metric during federation");
            continue;
        }
        let kind = match &sample.histogram {
            None => UNTYPED,
            Some(histogram) if histogram.counter_reset_hint == CounterResetHint::Gauge => GAUGE_HISTOGRAM,
            Some(_) => HISTOGRAM,
        };
        if family != Some((name, kind)) {
            end_family(&mut out, &mut message);
            begin_family(&mut message, &escaping.escape(name), "", kind);
            family = Some((name, kind));
        }
        let mut metric = Vec::new();
        let has = |label: &str| sample.labels.get(label).is_some_and(|text| !text.is_empty());
        for (label, text) in sample.labels.iter().filter(|(label, text)| *label != METRIC_NAME && !text.is_empty()) {
            push_label(&mut metric, &escaping.escape(label), text);
        }
        for (label, text) in external.iter().filter(|(label, _)| !has(label)) {
            push_label(&mut metric, &escaping.escape(label), text);
        }
        match &sample.histogram {
            None => {
                let mut one = Vec::new();
                push_double(&mut one, 1, sample.value);
                push_bytes(&mut metric, 5, &one);
            }
            Some(histogram) => push_bytes(&mut metric, 7, &histogram_message(histogram)),
        }
        push_number(&mut metric, 6, sample.at_ms.cast_unsigned());
        push_bytes(&mut message, 4, &metric);
    }
    end_family(&mut out, &mut message);
    out
}

fn histogram_message(histogram: &FloatHistogram) -> Vec<u8> {
    let mut out = Vec::new();
    push_double(&mut out, 4, histogram.count);
    push_double(&mut out, 2, histogram.sum);
    if histogram.uses_custom_buckets() {
        let mut cumulative = 0.0;
        let mut buckets = histogram.positive().peekable();
        for bound in &histogram.custom_values {
            while let Some(bucket) = buckets.next_if(|bucket| bucket.upper <= *bound) {
                cumulative += bucket.count;
            }
            let mut bucket = Vec::new();
            push_double(&mut bucket, 4, cumulative);
            push_double(&mut bucket, 2, *bound);
            push_bytes(&mut out, 3, &bucket);
        }
        return out;
    }
    push_varint(&mut out, 5 << 3);
    push_varint(&mut out, zigzag(histogram.schema));
    push_double(&mut out, 6, histogram.zero_threshold);
    push_double(&mut out, 8, histogram.zero_count);
    push_spans(&mut out, 9, &histogram.negative_spans);
    histogram.negative_buckets.iter().for_each(|count| push_double(&mut out, 11, *count));
    push_spans(&mut out, 12, &histogram.positive_spans);
    histogram.positive_buckets.iter().for_each(|count| push_double(&mut out, 14, *count));
    out
}

fn push_spans(out: &mut Vec<u8>, field: u8, spans: &[Span]) {
    for span in spans {
        let mut one = Vec::new();
        push_varint(&mut one, 1 << 3);
        push_varint(&mut one, zigzag(span.offset));
        push_number(&mut one, 2, u64::from(span.length));
        push_bytes(out, field, &one);
    }
}

fn zigzag(value: i32) -> u64 {
    u64::from(((value << 1) ^ (value >> 31)).cast_unsigned())
}

fn begin_family(message: &mut Vec<u8>, name: &str, help: &str, kind: u64) {
    push_bytes(message, 1, name.as_bytes());
    if !help.is_empty() {
        push_bytes(message, 2, help.as_bytes());
    }
    push_number(message, 3, kind);
}

fn end_family(out: &mut Vec<u8>, message: &mut Vec<u8>) {
    if !message.is_empty() {
        push_varint(out, message.len() as u64);
        out.append(message);
    }
}

fn push_label(out: &mut Vec<u8>, name: &str, value: &str) {
    let mut pair = Vec::with_capacity(name.len() + value.len() + 8);
    push_bytes(&mut pair, 1, name.as_bytes());
    push_bytes(&mut pair, 2, value.as_bytes());
    push_bytes(out, 1, &pair);
}

fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while 0x80 <= value {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn push_number(out: &mut Vec<u8>, field: u8, value: u64) {
    push_varint(out, u64::from(field) << 3);
    push_varint(out, value);
}

fn push_double(out: &mut Vec<u8>, field: u8, value: f64) {
    push_varint(out, u64::from(field) << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

fn push_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    push_varint(out, u64::from(field) << 3 | 2);
    push_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::exposition::packed;
    use crate::exposition::protobuf::{FamilyReader, Item, NativePart, ProtobufError};
    use crate::model::append::HistogramValue;
    use crate::model::histogram::CUSTOM_BUCKETS_SCHEMA;
    use crate::model::labels::Labels;
    use crate::telemetry::metrics::Registry;

    /// What our own reader, which reads other servers, makes of it.
    fn read(body: &[u8]) -> Vec<String> {
        let mut items = Vec::new();
        let mut reader = FamilyReader::default();
        let mut sink = |item: Item<'_>| {
            let text = |raw| packed::parts(raw).unwrap().collect::<Vec<_>>().join("|");
            items.push(match item {
                Item::Help { raw } => format!("help {}", text(raw)),
                Item::Unit { raw } | Item::Type { raw, .. } => format!("type {}", text(raw)),
                Item::Series(line) => format!("{} {} {:?}", text(line.raw), line.value, line.timestamp_ms),
                Item::Native(sample) => {
                    let HistogramValue::Float(histogram) = sample.histogram else { panic!("whole counts") };
                    format!("native {} {} {:?}", text(sample.raw), histogram.count, histogram.positive_buckets)
                }
            });
            Ok::<(), ProtobufError>(())
        };
        let mut at = 0;
        while let Some(read) = reader.step(&body[at..], NativePart::Wanted, &mut sink).unwrap() {
            at += read;
        }
        reader.finish(&body[at..]).unwrap();
        items
    }

    #[test]
    fn our_own_metrics_are_read_back() {
        let registry = Registry::default();
        registry.counter("a_total", "Counts.", &[("x", "1")]).add(3);
        registry.gauge("b", "", &[]).set(-1.5);
        registry.histogram("h", "", &[("y", "z")], &[0.5, 1.0]).observe(0.75);
        let read = read(&encode(&registry.gather(), Escaping::AllowUtf8));
        for expected in [
            "help a_total|Counts.",
            "type a_total|counter",
            "a_total|x|1 3 None",
            "b -1.5 None",
            "h_count|y|z 1 None",
            "h_sum|y|z 0.75 None",
            "h_bucket|y|z|le|1.0 1 None",
            "h_bucket|y|z|le|+Inf 1 None",
        ] {
            assert!(read.iter().any(|item| item == expected), "{expected} {read:#?}");
        }
    }

    #[test]
    fn newest_samples_keep_their_time_and_histograms_their_buckets() {
        let sample = |labels: &[(&str, &str)], histogram: Option<FloatHistogram>| NewestSample {
            labels: Labels::from_pairs(labels.iter().copied()),
            at_ms: -7,
            value: 2.0,
            histogram: histogram.map(Arc::new),
        };
        let native = FloatHistogram {
            count: 3.5,
            sum: 1.0,
            zero_threshold: 0.001,
            schema: -1,
            positive_spans: vec![Span { offset: -2, length: 2 }],
            positive_buckets: vec![1.0, 2.5],
            ..FloatHistogram::default()
        };
        let listed = FloatHistogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            count: 5.0,
            positive_spans: vec![Span { offset: 1, length: 1 }],
            positive_buckets: vec![4.0],
            custom_values: vec![0.5, 1.0],
            ..FloatHistogram::default()
        };
        let samples = [
            sample(&[("__name__", "a.b"), ("instance", "i")], None),
            sample(&[("__name__", "h")], Some(native)),
            sample(&[("__name__", "h"), ("l", "c")], Some(listed)),
            sample(&[("nameless", "x")], None),
        ];
        let external = [("instance".to_owned(), String::new()), ("r".to_owned(), "e".to_owned())];
        let read = read(&encode_newest(&samples, &external, Escaping::Underscores));
        for expected in [
            "type a_b|unknown",
            "a_b|instance|i|r|e 2 Some(-7)",
            "type h|histogram",
            "native h|instance||r|e 3.5 [1.0, 2.5]",
            "h_bucket|l|c|instance||r|e|le|0.5 0 Some(-7)",
            "h_bucket|l|c|instance||r|e|le|1.0 4 Some(-7)",
            "h_bucket|l|c|instance||r|e|le|+Inf 5 Some(-7)",
        ] {
            assert!(read.iter().any(|item| item == expected), "{expected} {read:#?}");
        }
        assert!(!read.iter().any(|item| item.contains("nameless")));
    }
}
