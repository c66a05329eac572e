//! Requests of remote write: `prometheus.WriteRequest` of version 1 and `io.prometheus.write.v2.Request`, as one block of
//! snappy. As in Prometheus each item is a time series of its own.
//!
//! ```text
//! WriteRequest { 1 TimeSeries …, 3 MetricMetadata … }
//! TimeSeries   { 1 Label { 1 name, 2 value } …, 2 Sample { 1 value, 2 ms }, 3 Exemplar { 1 Label …, 2 value, 3 ms },
//!                4 Histogram }       MetricMetadata { 1 type, 2 family, 4 help, 5 unit }
//! Request (2)  { 4 symbol …, 5 TimeSeries … }
//! TimeSeries   { 1 refs …, 2 Sample { 1 value, 2 ms, 3 start ms }, 3 Histogram { …, 17 start ms }, 4 Exemplar { 1 refs …, 2 value, 3 ms },
//!                5 Metadata { 1 type, 3 help ref, 4 unit ref } }
//! ```
//! Histograms are those of `remote::receive`, which reads the same messages.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::collections::HashMap;

use crate::model::append::HistogramValue;
use crate::model::histogram::{CounterResetHint, Span};
use crate::model::labels::Labels;
use crate::remote::send::queue::{Item, ItemValue};
use crate::remote::send::reader::{SentLabels, SentSeries};

/// A metric's description, for version 1.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Description {
    /// Number of the type, as in [`kind_number`].
    pub kind: u8,
    /// Name of the family.
    pub family: String,
    /// What it means.
    pub help: String,
    /// Unit of its values.
    pub unit: String,
}

/// The number of a type in both versions, by the name of the metadata API.
pub fn kind_number(name: &str) -> u8 {
    match name {
        "counter" => 1,
        "gauge" => 2,
        "histogram" => 3,
        "gaugehistogram" => 4,
        "summary" => 5,
        "info" => 6,
        "stateset" => 7,
        _ => 0,
    }
}

/// Labels as messages of version 1.
pub fn labels_v1(labels: &Labels) -> Box<[u8]> {
    let (mut out, mut label) = (Vec::new(), Vec::new());
    for (name, value) in labels {
        label.clear();
        put_bytes(1, name.as_bytes(), &mut label);
        put_bytes(2, value.as_bytes(), &mut label);
        put_message(1, &label, &mut out);
    }
    out.into()
}

/// A compressed request of these items. Series have labels for the same version.
pub fn encode<'a>(items: impl IntoIterator<Item = &'a Item>, version_2: bool) -> Vec<u8> {
    let message = if version_2 { message_v2(items) } else { message_v1(items) };
    compress(&message)
}

/// A compressed request with descriptions alone.
pub fn encode_descriptions(descriptions: &[Description]) -> Vec<u8> {
    let (mut out, mut body) = (Vec::new(), Vec::new());
    for one in descriptions {
        body.clear();
        put_number(1, u64::from(one.kind), &mut body);
        put_text(2, &one.family, &mut body);
        put_text(4, &one.help, &mut body);
        put_text(5, &one.unit, &mut body);
        put_message(3, &body, &mut out);
    }
    compress(&out)
}

fn compress(message: &[u8]) -> Vec<u8> {
    // It fails for more than 4 GiB alone, and a batch has a bound far below.
    snap::raw::Encoder::new().compress_vec(message).unwrap_or_default()
}

fn message_v1<'a>(items: impl IntoIterator<Item = &'a Item>) -> Vec<u8> {
    let (mut out, mut body, mut part) = (Vec::new(), Vec::new(), Vec::new());
    for item in items {
        body.clear();
        part.clear();
        if let SentLabels::V1(labels) = &item.series.labels {
            body.extend_from_slice(labels);
        }
        match &item.value {
            ItemValue::Float(value) => {
                put_double(1, *value, &mut part);
                put_number(2, item.t.cast_unsigned(), &mut part);
                put_message(2, &part, &mut body);
            }
            ItemValue::Exemplar(exemplar) => {
                part.extend_from_slice(&labels_v1(&exemplar.labels));
                put_double(2, exemplar.value, &mut part);
                put_number(3, item.t.cast_unsigned(), &mut part);
                put_message(3, &part, &mut body);
            }
            ItemValue::Histogram(histogram) => {
                put_histogram(item.t, histogram, &mut part);
                put_message(4, &part, &mut body);
            }
        }
        put_message(1, &body, &mut out);
    }
    out
}

/// Texts by number; the empty one is 0.
struct Symbols<'a> {
    numbers: HashMap<&'a str, u32, foldhash::fast::FixedState>,
    texts: Vec<&'a str>,
}

impl<'a> Symbols<'a> {
    fn new() -> Self {
        let mut symbols = Self { numbers: HashMap::default(), texts: Vec::new() };
        symbols.number("");
        symbols
    }

    fn number(&mut self, text: &'a str) -> u32 {
        let next = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
        let number = *self.numbers.entry(text).or_insert(next);
        if number == next {
            self.texts.push(text);
        }
        number
    }

    fn put_refs(&mut self, labels: &'a Labels, out: &mut Vec<u8>) {
        let mut refs = Vec::new();
        for (name, value) in labels {
            put_varint(u64::from(self.number(name)), &mut refs);
            put_varint(u64::from(self.number(value)), &mut refs);
        }
        if !refs.is_empty() {
            put_bytes(1, &refs, out);
        }
    }
}

fn message_v2<'a>(items: impl IntoIterator<Item = &'a Item>) -> Vec<u8> {
    let mut symbols = Symbols::new();
    let (mut series, mut body, mut part) = (Vec::new(), Vec::new(), Vec::new());
    for item in items {
        body.clear();
        part.clear();
        let sent: &'a SentSeries = &item.series;
        if let SentLabels::V2(labels) = &sent.labels {
            symbols.put_refs(labels, &mut body);
        }
        match &item.value {
            ItemValue::Float(value) => {
                put_double(1, *value, &mut part);
                put_number(2, item.t.cast_unsigned(), &mut part);
                put_number(3, item.start.cast_unsigned(), &mut part);
                put_message(2, &part, &mut body);
            }
            ItemValue::Histogram(histogram) => {
                put_histogram(item.t, histogram, &mut part);
                put_number(17, item.start.cast_unsigned(), &mut part);
                put_message(3, &part, &mut body);
            }
            ItemValue::Exemplar(exemplar) => {
                symbols.put_refs(&exemplar.labels, &mut part);
                put_double(2, exemplar.value, &mut part);
                put_number(3, item.t.cast_unsigned(), &mut part);
                put_message(4, &part, &mut body);
            }
        }
        part.clear();
        if let Some(metadata) = &sent.metadata {
            put_number(1, u64::from(metadata.kind), &mut part);
            put_number(3, u64::from(symbols.number(&metadata.help)), &mut part);
            put_number(4, u64::from(symbols.number(&metadata.unit)), &mut part);
        }
        put_message(5, &part, &mut body);
        put_message(5, &body, &mut series);
    }
    let mut out = Vec::with_capacity(series.len() + symbols.texts.len() * 16);
    for text in &symbols.texts {
        // The empty text is written as well: others are counted from it.
        put_bytes(4, text.as_bytes(), &mut out);
    }
    out.extend_from_slice(&series);
    out
}

fn put_histogram(t: i64, histogram: &HistogramValue, out: &mut Vec<u8>) {
    match histogram {
        HistogramValue::Integer(h) => {
            // Which of the counts is there tells the kind, so it is written even if it is 0.
            put_tag(1, 0, out);
            put_varint(h.count, out);
            put_double(3, h.sum, out);
            put_number(4, zigzag(i64::from(h.schema)), out);
            put_double(5, h.zero_threshold, out);
            put_tag(6, 0, out);
            put_varint(h.zero_count, out);
            put_spans(8, &h.negative_spans, out);
            put_deltas(9, &h.negative_buckets, out);
            put_spans(11, &h.positive_spans, out);
            put_deltas(12, &h.positive_buckets, out);
            put_end(t, h.counter_reset_hint, &h.custom_values, out);
        }
        HistogramValue::Float(h) => {
            put_fixed(2, h.count, out);
            put_double(3, h.sum, out);
            put_number(4, zigzag(i64::from(h.schema)), out);
            put_double(5, h.zero_threshold, out);
            put_fixed(7, h.zero_count, out);
            put_spans(8, &h.negative_spans, out);
            put_doubles(10, &h.negative_buckets, out);
            put_spans(11, &h.positive_spans, out);
            put_doubles(13, &h.positive_buckets, out);
            put_end(t, h.counter_reset_hint, &h.custom_values, out);
        }
    }
}

fn put_end(t: i64, hint: CounterResetHint, custom_values: &[f64], out: &mut Vec<u8>) {
    let hint = match hint {
        CounterResetHint::Unknown => 0,
        CounterResetHint::Reset => 1,
        CounterResetHint::NotReset => 2,
        CounterResetHint::Gauge => 3,
    };
    put_number(14, hint, out);
    put_number(15, t.cast_unsigned(), out);
    put_doubles(16, custom_values, out);
}

fn put_spans(field: u32, spans: &[Span], out: &mut Vec<u8>) {
    for span in spans {
        let mut body = Vec::with_capacity(8);
        put_number(1, zigzag(i64::from(span.offset)), &mut body);
        put_number(2, u64::from(span.length), &mut body);
        put_message(field, &body, out);
    }
}

fn put_deltas(field: u32, deltas: &[i64], out: &mut Vec<u8>) {
    if !deltas.is_empty() {
        let mut body = Vec::with_capacity(deltas.len() * 2);
        deltas.iter().for_each(|delta| put_varint(zigzag(*delta), &mut body));
        put_bytes(field, &body, out);
    }
}

fn put_doubles(field: u32, values: &[f64], out: &mut Vec<u8>) {
    if !values.is_empty() {
        put_tag(field, 2, out);
        put_varint(values.len() as u64 * 8, out);
        values.iter().for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
    }
}

fn zigzag(n: i64) -> u64 {
    (n << 1 ^ n >> 63).cast_unsigned()
}

fn put_varint(mut n: u64, out: &mut Vec<u8>) {
    while 0x80 <= n {
        // The low seven bits, with the mark that more follow.
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn put_tag(field: u32, wire: u32, out: &mut Vec<u8>) {
    put_varint(u64::from(field << 3 | wire), out);
}

/// A number that is left out if it is 0.
fn put_number(field: u32, n: u64, out: &mut Vec<u8>) {
    if n != 0 {
        put_tag(field, 0, out);
        put_varint(n, out);
    }
}

fn put_fixed(field: u32, value: f64, out: &mut Vec<u8>) {
    put_tag(field, 1, out);
    out.extend_from_slice(&value.to_le_bytes());
}

/// A double that is left out if it is 0, but not if it is −0.
fn put_double(field: u32, value: f64, out: &mut Vec<u8>) {
    if value.to_bits() != 0 {
        put_fixed(field, value, out);
    }
}

/// Bytes with their length, even if there are none.
fn put_bytes(field: u32, bytes: &[u8], out: &mut Vec<u8>) {
    put_tag(field, 2, out);
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn put_text(field: u32, text: &str, out: &mut Vec<u8>) {
    if !text.is_empty() {
        put_bytes(field, text.as_bytes(), out);
    }
}

fn put_message(field: u32, body: &[u8], out: &mut Vec<u8>) {
    put_bytes(field, body, out);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::histogram::{FloatHistogram, Histogram};
    use crate::model::sample::SeriesRef;
    use crate::remote::send::queue::SentExemplar;
    use crate::remote::send::reader::SentMetadata;
    use crate::storage::wal::cursor::Place;

    fn item(labels: &Labels, version_2: bool, t: i64, value: ItemValue) -> Item {
        let metadata = version_2.then(|| SentMetadata { kind: 1, help: "h".into(), unit: "s".into() });
        let labels = if version_2 { SentLabels::V2(labels.clone()) } else { SentLabels::V1(labels_v1(labels)) };
        let series = Arc::new(SentSeries { labels, metadata });
        Item { series, reference: SeriesRef(1), place: Place::default(), t, start: 0, value }
    }

    fn message(items: &[Item], version_2: bool) -> Vec<u8> {
        let packed = encode(items, version_2);
        snap::raw::Decoder::new().decompress_vec(&packed).unwrap()
    }

    #[test]
    fn samples_have_the_bytes_of_the_format() {
        let labels = Labels::from_pairs([("a", "b")]);
        let bytes = message(&[item(&labels, false, 5, ItemValue::Float(0.0))], false);
        assert_eq!(bytes, b"\x0a\x0c\x0a\x06\x0a\x01a\x12\x01b\x12\x02\x10\x05");
        let bytes = message(&[item(&labels, true, 5, ItemValue::Float(0.0))], true);
        let series = b"\x2a\x10\x0a\x02\x01\x02\x12\x02\x10\x05\x2a\x06\x08\x01\x18\x03\x20\x04";
        assert_eq!(bytes, [&b"\x22\x00\x22\x01a\x22\x01b\x22\x01h\x22\x01s"[..], &series[..]].concat());
        let started = Item { start: 4, ..item(&labels, true, 5, ItemValue::Float(0.0)) };
        assert!(message(&[started], true).windows(6).any(|part| part == b"\x12\x04\x10\x05\x18\x04"));
        let described = Description { kind: 2, family: "f".into(), help: "h".into(), unit: String::new() };
        let packed = encode_descriptions(&[described]);
        let bytes = snap::raw::Decoder::new().decompress_vec(&packed).unwrap();
        assert_eq!(bytes, b"\x1a\x08\x08\x02\x12\x01f\x22\x01h");
    }

    /// What is written is what the receiving side reads.
    #[test]
    fn histograms_are_read_back() {
        use crate::remote::receive::read_histogram;
        let spans = vec![Span { offset: -3, length: 2 }];
        let whole = Histogram {
            counter_reset_hint: CounterResetHint::Gauge,
            schema: -2,
            zero_threshold: 0.5,
            zero_count: 0,
            count: 10,
            sum: -0.0,
            positive_spans: spans.clone(),
            positive_buckets: vec![3, -1],
            negative_spans: spans.clone(),
            negative_buckets: vec![2, 0],
            custom_values: vec![],
        };
        let float = FloatHistogram {
            schema: -53,
            count: 2.5,
            positive_spans: spans,
            positive_buckets: vec![1.0, 1.5],
            custom_values: vec![7.0],
            ..FloatHistogram::default()
        };
        for value in [HistogramValue::from(whole), HistogramValue::from(float)] {
            let mut out = Vec::new();
            put_histogram(77, &value, &mut out);
            assert_eq!(read_histogram(&out).unwrap(), (77, 0, value));
        }
    }

    #[test]
    fn exemplars_go_with_the_labels_of_their_series() {
        let labels = Labels::from_pairs([("a", "b")]);
        let exemplar = Arc::new(SentExemplar { labels: Labels::from_pairs([("t", "1")]), value: 1.0 });
        let one = f64::to_le_bytes(1.0);
        let bytes = message(&[item(&labels, false, 5, ItemValue::Exemplar(Arc::clone(&exemplar)))], false);
        let head = b"\x0a\x1d\x0a\x06\x0a\x01a\x12\x01b\x1a\x13\x0a\x06\x0a\x01t\x12\x011\x11";
        assert_eq!(bytes, [&head[..], &one, b"\x18\x05"].concat());
        let bytes = message(&[item(&labels, true, 5, ItemValue::Exemplar(exemplar))], true);
        assert!(bytes.starts_with(b"\x22\x00\x22\x01a\x22\x01b\x22\x01t\x22\x011"));
    }
}
