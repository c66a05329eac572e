//! Families made by a small encoder, read back as series.

use proptest::prelude::*;

use super::*;
use crate::model::histogram::{self, CounterResetHint, Span};

/// A message under construction.
#[derive(Clone, Default)]
struct Message(Vec<u8>);

impl Message {
    fn number(mut self, field: u64, value: u64) -> Self {
        push_varint(&mut self.0, field << 3);
        push_varint(&mut self.0, value);
        self
    }

    fn double(mut self, field: u64, value: f64) -> Self {
        push_varint(&mut self.0, field << 3 | 1);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn bytes(mut self, field: u64, value: &[u8]) -> Self {
        push_varint(&mut self.0, field << 3 | 2);
        push_varint(&mut self.0, value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    fn message(self, field: u64, value: Self) -> Self {
        self.bytes(field, &value.0)
    }
}

fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while 0x80 <= value {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn new() -> Message {
    Message::default()
}

fn label(name: &str, value: &str) -> Message {
    new().bytes(1, name.as_bytes()).bytes(2, value.as_bytes())
}

fn family(name: &str, kind: u64, metric: Message) -> Message {
    new().bytes(1, name.as_bytes()).number(3, kind).message(4, metric)
}

fn read(family: &Message, native: NativePart) -> Result<Vec<String>, ProtobufError> {
    let mut items = Vec::new();
    let mut body = Vec::new();
    push_varint(&mut body, family.0.len() as u64);
    body.extend_from_slice(&family.0);
    let mut reader = FamilyReader::default();
    let mut sink = |item: Item<'_>| {
        let text = |raw| packed::parts(raw).unwrap().collect::<Vec<_>>().join("|");
        items.push(match item {
            Item::Help { raw } => format!("help {}", text(raw)),
            Item::Unit { raw } => format!("unit {}", text(raw)),
            Item::Type { raw, .. } => format!("type {}", text(raw)),
            Item::Series(SeriesLine { raw, value, timestamp_ms, exemplar, .. }) => {
                let at = timestamp_ms.map(|at| format!(" @{at}")).unwrap_or_default();
                format!("{} {value}{at}{}", text(raw), if exemplar.is_some() { " exemplar" } else { "" })
            }
            Item::Native(NativeSample { raw, histogram, timestamp_ms, exemplars, .. }) => {
                format!("native {} {histogram:?} {timestamp_ms:?} {}", text(raw), exemplars.len())
            }
        });
        Ok::<(), ProtobufError>(())
    };
    let mut at = 0;
    while let Some(read) = reader.step(&body[at..], native, &mut sink)? {
        at += read;
    }
    reader.finish(&body[at..])?;
    Ok(items)
}

#[track_caller]
fn check(family: &Message, expected: &[&str]) {
    assert_eq!(read(family, NativePart::Ignored).unwrap(), expected);
}

#[track_caller]
fn check_error(family: &Message, expected: &str) {
    assert_eq!(read(family, NativePart::Wanted).unwrap_err().to_string(), expected);
}

#[test]
fn reads_numbers_and_metadata() {
    let metric = new().message(1, label("b", "c")).message(3, new().double(1, 2.5).message(2, new())).number(6, 17);
    let counter = new().bytes(1, b"a_total").bytes(2, b"Help\n.").message(4, metric).bytes(5, b"bytes");
    check(
        &counter,
        &["help a_total|Help\n.", "type a_total|counter", "a_total|b|c 2.5 @17 exemplar", "unit a_total|bytes"],
    );
    check(&family("g", 1, new().message(2, new().double(1, -1.0))), &["type g|gauge", "g -1"]);
    check(&family("u.x", 3, new().message(5, new())), &["type u.x|unknown", "u.x 0"]);
    check(&new().bytes(1, b"\xff"), &[]);
}

#[test]
fn summaries_and_histograms_become_series() {
    let quantile = |q, v| new().double(1, q).double(2, v);
    let summary = new().number(1, 3).double(2, 4.5).message(3, quantile(0.5, 1.0)).message(3, quantile(1.0, 2.0));
    check(
        &family("s", 2, new().message(4, summary)),
        &["type s|summary", "s_count 3", "s_sum 4.5", "s|quantile|0.5 1", "s|quantile|1.0 2"],
    );
    let bucket = |le: f64, n| new().number(1, n).double(2, le);
    let histogram = new().number(1, 9).double(2, 1.0).message(3, bucket(1e6, 4));
    check(
        &family("h", 4, new().message(1, label("x", "y")).message(7, histogram.clone())),
        &["type h|histogram", "h_count|x|y 9", "h_sum|x|y 1", "h_bucket|x|y|le|1e+06 4", "h_bucket|x|y|le|+Inf 9"],
    );
    // Buckets after that of +Inf are not looked at.
    let float = histogram.double(4, 9.5).message(3, bucket(f64::INFINITY, 8).double(4, 8.5)).message(3, bucket(2.0, 1));
    check(
        &family("h", 5, new().message(7, float)),
        &["type h|gaugehistogram", "h_count 9.5", "h_sum 1", "h_bucket|le|1e+06 4", "h_bucket|le|+Inf 8.5"],
    );
}

#[test]
fn a_native_histogram_is_one_where_it_is_wanted() {
    let span = new().number(1, 0).number(2, 2);
    let native = new().number(1, 5).double(2, 7.0).number(5, 6).message(12, span).bytes(13, &[2, 4]);
    let only_native = family("h", 4, new().message(7, native.clone()));
    let expected = histogram::Histogram {
        schema: 3,
        count: 5,
        sum: 7.0,
        positive_spans: vec![Span { offset: 0, length: 2 }],
        positive_buckets: vec![1, 2],
        ..histogram::Histogram::default()
    };
    let shown = format!("native h {:?} None 0", HistogramValue::from(expected.clone()));
    assert_eq!(read(&only_native, NativePart::Wanted).unwrap(), ["type h|histogram", &shown]);
    check(&only_native, &["type h|histogram", "h_count 5", "h_sum 7", "h_bucket|le|+Inf 5"]);
    let both = family("h", 4, new().message(7, native.clone().message(3, new().number(1, 2).double(2, 1.0))));
    let series = ["type h|histogram", "h_count 5", "h_sum 7", "h_bucket|le|1.0 2", "h_bucket|le|+Inf 5"];
    assert_eq!(read(&both, NativePart::Ignored).unwrap(), series);
    assert_eq!(read(&both, NativePart::Wanted).unwrap(), ["type h|histogram", &shown]);
    let all = [&series[..1], &[&shown], &series[1..]].concat();
    assert_eq!(read(&both, NativePart::WithClassic).unwrap(), all);
    let gauge = family("h", 5, new().message(7, native.clone()).number(6, 9).message(1, label("a", "b")));
    let hinted = histogram::Histogram { counter_reset_hint: CounterResetHint::Gauge, ..expected };
    let shown = format!("native h|a|b {:?} Some(9) 0", HistogramValue::from(hinted));
    assert_eq!(read(&gauge, NativePart::Wanted).unwrap(), ["type h|gaugehistogram", &shown]);
    // Counts as floats; the empty bucket is left out.
    let counts: Vec<u8> = [1.5f64, 0.0, 2.0].into_iter().flat_map(f64::to_le_bytes).collect();
    let wide = new().number(1, 3).number(2, 3);
    let float = new().double(4, 4.0).double(8, 0.5).double(6, 0.25).message(9, wide).bytes(11, &counts);
    let expected = histogram::FloatHistogram {
        zero_threshold: 0.25,
        zero_count: 0.5,
        count: 4.0,
        negative_spans: vec![Span { offset: -2, length: 1 }, Span { offset: 1, length: 1 }],
        negative_buckets: vec![1.5, 2.0],
        ..histogram::FloatHistogram::default()
    };
    let shown = format!("native f {:?} None 0", HistogramValue::from(expected));
    assert_eq!(
        read(&family("f", 4, new().message(7, float)), NativePart::Wanted).unwrap(),
        ["type f|histogram", &shown]
    );
    let short = family("h", 4, new().message(7, native.bytes(13, &[2])));
    check_error(&short, "histogram \"h\": positive side: spans require 2 buckets, have 3");
}

#[test]
fn words_errors_as_prometheus() {
    let metric = || new().message(2, new());
    check_error(&family("", 1, metric()), "invalid metric name: ");
    check_error(&family("a", 9, metric()), "unknown metric type for metric \"a\": 9");
    check_error(
        &new().bytes(1, b"a").bytes(2, b"\xff").message(4, metric()),
        "invalid help for metric \"a\": \u{fffd}",
    );
    check_error(&family("a", 1, metric().message(1, label("", "x"))), "invalid label name: ");
    let late_type = new().message(4, metric()).number(3, 9).bytes(1, b"a");
    check_error(&late_type, "unknown metric type for metric \"a\": 9");
    let bad_value = new().bytes(1, b"x").bytes(2, b"\xff");
    check_error(&family("a", 1, metric().message(1, bad_value)), "invalid label value: \u{fffd}");
    check_error(&family("a", 1, new().message(2, new().number(1, 1))), "proto: wrong wireType = 0 for field Value");
    check_error(&family("a", 1, new().bytes(2, &[9])), "unexpected EOF");
}

#[test]
fn a_family_is_read_as_its_bytes_come() {
    let mut reader = FamilyReader::default();
    let mut step = |buf: &[u8]| reader.step(buf, NativePart::Ignored, &mut |_| Ok::<(), ProtobufError>(()));
    assert_eq!(step(b"\x80"), Ok(None));
    assert_eq!(step(b"\x00\x09"), Ok(Some(1)), "a family of nothing");
    assert_eq!(step(b"\x09\x0a"), Ok(Some(1)));
    assert_eq!(step(b"\x0a\x01"), Ok(None), "a short family is waited for");
    assert_eq!(reader.finish(b"\x0a\x01"), Err(ProtobufError::Cut { expected: 10, got: 3 }));
    let mut reader = FamilyReader::default();
    let mut step = |buf: &[u8]| reader.step(buf, NativePart::Ignored, &mut |_| Ok::<(), ProtobufError>(()));
    assert_eq!(step(b"\x80\x80\x80\x01"), Ok(Some(4)));
    assert_eq!(step(b"\x0a\x01"), Ok(None));
    assert_eq!(step(b"\x0a\x01a\x18"), Ok(Some(3)));
    assert_eq!(step(b"\x18\x01"), Ok(Some(2)));
    assert_eq!(reader.finish(b"\x22"), Err(ProtobufError::Cut { expected: (2 << 20) + 4, got: 10 }));
    assert_eq!(FamilyReader::default().finish(b"\x80"), Err(ProtobufError::InvalidVarint));
    let step = FamilyReader::default().step(&[0x80; 5], NativePart::Ignored, &mut |_| Ok(()));
    assert_eq!(step, Err(ProtobufError::InvalidVarint));
}

proptest! {
    #[test]
    fn never_panics(raw: Vec<u8>) {
        let _ = read(&Message(raw), NativePart::Wanted);
    }

    #[test]
    fn never_panics_on_near_misses(inner: Vec<u8>, field in 1_u64..9, kind in 0_u64..7) {
        let metric = new().bytes(field, &inner);
        let _ = read(&family("a", kind, metric), NativePart::Wanted);
    }
}

/// Exemplars as text, with those without a time at 1 ms.
fn exemplars(family: &Message) -> Vec<String> {
    let mut found = Vec::new();
    let mut body = Vec::new();
    push_varint(&mut body, family.0.len() as u64);
    body.extend_from_slice(&family.0);
    let mut sink = |item: Item<'_>| {
        let (raw, exemplars) = match item {
            Item::Series(line) => (line.raw, line.exemplar.into_iter().collect()),
            Item::Native(sample) => (sample.raw, sample.exemplars.to_vec()),
            _ => return Ok::<(), ProtobufError>(()),
        };
        let series = packed::parts(raw).unwrap().collect::<Vec<_>>().join("|");
        found.extend(exemplars.into_iter().map(|raw| {
            let one = raw.read(crate::model::time::TimestampMs(1));
            format!("{series} {} {} @{} {}", one.labels, one.value, one.at.0, one.has_time)
        }));
        Ok(())
    };
    let mut reader = FamilyReader::default();
    let mut at = 0;
    while let Some(read) = reader.step(&body[at..], NativePart::WithClassic, &mut sink).unwrap() {
        at += read;
    }
    found
}

#[test]
fn exemplars_are_those_of_their_series() {
    let exemplar = |name: &str, value: f64| new().message(1, label("id", name)).double(2, value);
    let timed = |name: &str, value: f64| exemplar(name, value).message(3, new().number(1, 2).number(2, 345_678_901));
    let counter = new().double(1, 2.5).message(2, exemplar("a", 0.5));
    assert_eq!(exemplars(&family("c", 0, new().message(3, counter))), ["c {id=\"a\"} 0.5 @1 false"]);
    let bucket = |bound: f64, exemplar: Message| new().number(1, 1).double(2, bound).message(3, exemplar);
    let classic =
        new().number(1, 1).message(3, bucket(1.0, exemplar("b", 0.1))).message(3, bucket(2.0, timed("c", 2.0)));
    let classic_ones = ["h_bucket|le|1.0 {id=\"b\"} 0.1 @1 false", "h_bucket|le|2.0 {id=\"c\"} 2 @2345 true"];
    assert_eq!(exemplars(&family("h", 4, new().message(7, classic.clone()))), classic_ones);
    // A native histogram takes over those of its buckets that have a time, unless it has its own.
    let native = |own: &[Message]| {
        let histogram = own.iter().fold(classic.clone().double(6, 0.1), |all, one| all.message(16, one.clone()));
        exemplars(&family("h", 4, new().message(7, histogram)))
    };
    let [first, second] = classic_ones;
    assert_eq!(native(&[]), ["h {id=\"c\"} 2 @2345 true", first, second]);
    assert_eq!(native(&[exemplar("x", 1.0), timed("y", 1.0)]), ["h {id=\"y\"} 1 @2345 true", first, second]);
}
