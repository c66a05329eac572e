//! Data points, and how histograms become native ones.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use crate::model::exemplar::{Exemplar, LABELS_LEN_MAX, labels_of};
use crate::model::histogram::{CUSTOM_BUCKETS_SCHEMA, CounterResetHint, Histogram, Span};
use crate::model::sample::{STALE_NAN_BITS, stale_nan};
use crate::model::time::TimestampMs;
use crate::model::wire::{Fields, Value, WireError, fixed64s};
use crate::remote::otlp::value::{Attribute, attribute};

/// The bit of `flags` that says that there is no value.
const NO_RECORDED_VALUE: u64 = 1;
/// Finest and coarsest resolution of native histograms.
const SCHEMA_MAX: i32 = 8;
const SCHEMA_MIN: i32 = -4;
/// Width of the zero bucket.
const ZERO_THRESHOLD: f64 = 1e-128;
/// Gaps up to this many buckets are filled with empty ones.
const GAP_MAX: i64 = 2;

/// What all kinds of points have.
#[derive(Debug, Default)]
pub(super) struct Point {
    pub(super) attributes: Vec<Attribute>,
    /// Milliseconds since the epoch.
    pub(super) t: i64,
    pub(super) nanos: u64,
    /// When it began to count; 0 if that is not said.
    pub(super) start_nanos: u64,
    pub(super) is_stale: bool,
    pub(super) exemplars: Vec<Exemplar>,
    /// An exemplar has no value.
    pub(super) bad_exemplar: bool,
}

impl Point {
    /// The value, unless the point says that there is none.
    pub(super) fn value(&self, value: f64) -> f64 {
        if self.is_stale { stale_nan() } else { value }
    }

    /// When it began to count, in milliseconds; 0 if that is not said.
    pub(super) fn start(&self) -> i64 {
        self.start_nanos.cast_signed() / 1_000_000
    }

    pub(super) fn set_time(&mut self, nanos: u64) {
        self.nanos = nanos;
        self.t = nanos.cast_signed() / 1_000_000;
    }

    fn exemplar(&mut self, message: &[u8]) -> Result<(), WireError> {
        let (mut number, mut t) = (None, 0);
        let (mut pairs, mut attributes): (Vec<(String, String)>, _) = (Vec::new(), Vec::new());
        let mut fields = Fields::new("Exemplar", message);
        while let Some((field, value)) = fields.next()? {
            match field {
                2 => t = fixed(value, "TimeUnixNano")?.cast_signed() / 1_000_000,
                3 => number = Some(value.double("AsDouble")?),
                4 | 5 => {
                    let id = value.bytes("Id")?;
                    if id.iter().any(|byte| *byte != 0) {
                        let name = if field == 4 { "span_id" } else { "trace_id" };
                        pairs.push((name.to_owned(), id.iter().map(|byte| format!("{byte:02x}")).collect()));
                    }
                }
                6 => number = Some(fixed(value, "AsInt")?.cast_signed() as f64),
                7 => attributes.push(attribute(value.bytes("FilteredAttributes")?)?),
                _ => {}
            }
        }
        let ids = pairs.iter().flat_map(|(name, value)| [name, value]);
        let texts = ids.chain(attributes.iter().flat_map(|one| [&one.key, &one.value]));
        if texts.map(|text| text.chars().count()).sum::<usize>() <= LABELS_LEN_MAX {
            pairs.extend(attributes.into_iter().map(|one| (one.key, one.value)));
        }
        self.bad_exemplar |= number.is_none();
        let (labels, value) = (labels_of(pairs), number.unwrap_or(0.0));
        self.exemplars.push(Exemplar { labels, value, at: TimestampMs(t), has_time: t != 0 });
        Ok(())
    }
}

fn fixed(value: Value<'_>, field: &'static str) -> Result<u64, WireError> {
    value.double(field).map(f64::to_bits)
}

/// What a point of a kind that can be added up measures.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Data {
    Number(Number),
    Explicit(Explicit),
    Exponential(Exponential),
}

impl Data {
    /// Bytes of its lists.
    pub(super) fn memory_len(&self) -> u64 {
        let words = match self {
            Self::Number(_) => 0,
            Self::Explicit(histogram) => histogram.counts.len() + histogram.bounds.len(),
            Self::Exponential(histogram) => histogram.positive.1.len() + histogram.negative.1.len(),
        };
        8 * words as u64
    }
}

/// One number.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Number {
    /// It is not said.
    #[default]
    None,
    Int(i64),
    Double(f64),
}

impl Number {
    /// As a sample has it.
    pub(super) fn value(self) -> f64 {
        match self {
            Self::None => 0.0,
            Self::Int(value) => value as f64,
            Self::Double(value) => value,
        }
    }
}

/// A point with one number.
pub(super) fn number(message: &[u8]) -> Result<(Point, Number), WireError> {
    let (mut point, mut number) = (Point::default(), Number::None);
    let mut fields = Fields::new("NumberDataPoint", message);
    while let Some((field, value)) = fields.next()? {
        match field {
            2 => point.start_nanos = fixed(value, "StartTimeUnixNano")?,
            3 => point.set_time(fixed(value, "TimeUnixNano")?),
            4 => number = Number::Double(value.double("AsDouble")?),
            5 => point.exemplar(value.bytes("Exemplars")?)?,
            6 => number = Number::Int(fixed(value, "AsInt")?.cast_signed()),
            7 => point.attributes.push(attribute(value.bytes("Attributes")?)?),
            8 => point.is_stale = value.varint("Flags")? & NO_RECORDED_VALUE != 0,
            _ => {}
        }
    }
    Ok((point, number))
}

/// A histogram with listed bounds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Explicit {
    pub(super) count: u64,
    pub(super) sum: Option<f64>,
    pub(super) counts: Vec<u64>,
    pub(super) bounds: Vec<f64>,
}

pub(super) fn explicit(message: &[u8]) -> Result<(Point, Explicit), WireError> {
    let (mut point, mut histogram) = (Point::default(), Explicit::default());
    let mut fields = Fields::new("HistogramDataPoint", message);
    while let Some((field, value)) = fields.next()? {
        match field {
            2 => point.start_nanos = fixed(value, "StartTimeUnixNano")?,
            3 => point.set_time(fixed(value, "TimeUnixNano")?),
            4 => histogram.count = fixed(value, "Count")?,
            5 => histogram.sum = Some(value.double("Sum")?),
            6 => fixed64s(value, "BucketCounts", |count| histogram.counts.push(count))?,
            7 => fixed64s(value, "ExplicitBounds", |bits| histogram.bounds.push(f64::from_bits(bits)))?,
            8 => point.exemplar(value.bytes("Exemplars")?)?,
            9 => point.attributes.push(attribute(value.bytes("Attributes")?)?),
            10 => point.is_stale = value.varint("Flags")? & NO_RECORDED_VALUE != 0,
            _ => {}
        }
    }
    Ok((point, histogram))
}

/// Quantiles, as they were computed by the sender.
#[derive(Debug, Default)]
pub(super) struct Summary {
    pub(super) count: u64,
    pub(super) sum: f64,
    /// (quantile, value).
    pub(super) quantiles: Vec<(f64, f64)>,
}

pub(super) fn summary(message: &[u8]) -> Result<(Point, Summary), WireError> {
    let (mut point, mut summary) = (Point::default(), Summary::default());
    let mut fields = Fields::new("SummaryDataPoint", message);
    while let Some((field, value)) = fields.next()? {
        match field {
            2 => point.start_nanos = fixed(value, "StartTimeUnixNano")?,
            3 => point.set_time(fixed(value, "TimeUnixNano")?),
            4 => summary.count = fixed(value, "Count")?,
            5 => summary.sum = value.double("Sum")?,
            6 => {
                let (mut quantile, mut at) = (0.0, 0.0);
                let mut fields = Fields::new("ValueAtQuantile", value.bytes("QuantileValues")?);
                while let Some((field, value)) = fields.next()? {
                    match field {
                        1 => quantile = value.double("Quantile")?,
                        2 => at = value.double("Value")?,
                        _ => {}
                    }
                }
                summary.quantiles.push((quantile, at));
            }
            7 => point.attributes.push(attribute(value.bytes("Attributes")?)?),
            8 => point.is_stale = value.varint("Flags")? & NO_RECORDED_VALUE != 0,
            _ => {}
        }
    }
    Ok((point, summary))
}

/// A histogram with buckets that grow.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Exponential {
    pub(super) count: u64,
    pub(super) sum: Option<f64>,
    pub(super) scale: i32,
    pub(super) zero_count: u64,
    pub(super) zero_threshold: f64,
    /// Index of the first bucket, and counts.
    pub(super) positive: (i32, Vec<u64>),
    pub(super) negative: (i32, Vec<u64>),
}

pub(super) fn exponential(message: &[u8]) -> Result<(Point, Exponential), WireError> {
    let (mut point, mut histogram) = (Point::default(), Exponential::default());
    let mut fields = Fields::new("ExponentialHistogramDataPoint", message);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => point.attributes.push(attribute(value.bytes("Attributes")?)?),
            2 => point.start_nanos = fixed(value, "StartTimeUnixNano")?,
            3 => point.set_time(fixed(value, "TimeUnixNano")?),
            4 => histogram.count = fixed(value, "Count")?,
            5 => histogram.sum = Some(value.double("Sum")?),
            6 => histogram.scale = zigzag_32(value.varint("Scale")?),
            7 => histogram.zero_count = fixed(value, "ZeroCount")?,
            8 => histogram.positive = buckets(value.bytes("Positive")?)?,
            9 => histogram.negative = buckets(value.bytes("Negative")?)?,
            10 => point.is_stale = value.varint("Flags")? & NO_RECORDED_VALUE != 0,
            11 => point.exemplar(value.bytes("Exemplars")?)?,
            14 => histogram.zero_threshold = value.double("ZeroThreshold")?,
            _ => {}
        }
    }
    Ok((point, histogram))
}

/// Index of the first bucket, and counts.
fn buckets(message: &[u8]) -> Result<(i32, Vec<u64>), WireError> {
    let (mut offset, mut counts) = (0, Vec::new());
    let mut fields = Fields::new("Buckets", message);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => offset = zigzag_32(value.varint("Offset")?),
            2 => value.varints("BucketCounts", |count| counts.push(count))?,
            _ => {}
        }
    }
    Ok((offset, counts))
}

fn zigzag_32(n: u64) -> i32 {
    let n = n as u32;
    (n >> 1).cast_signed() ^ -(n & 1).cast_signed()
}

/// A native histogram, and whether it has a sum without observations. The error has the words of Prometheus.
pub(super) fn native_of_exponential(point: &Point, from: &Exponential) -> Result<(Histogram, bool), String> {
    if from.scale < SCHEMA_MIN {
        let rule = format!("Scale must be >= {SCHEMA_MIN}, was {}", from.scale);
        return Err(format!("cannot convert exponential to native histogram. {rule}"));
    }
    let down = u32::try_from(from.scale.saturating_sub(SCHEMA_MAX)).unwrap_or(0).min(31);
    let (positive_spans, positive_buckets) = layout(&from.positive.1, from.positive.0, down, 1);
    let (negative_spans, negative_buckets) = layout(&from.negative.1, from.negative.0, down, 1);
    let histogram = Histogram {
        schema: from.scale.min(SCHEMA_MAX),
        zero_threshold: ZERO_THRESHOLD,
        zero_count: from.zero_count,
        positive_spans,
        positive_buckets,
        negative_spans,
        negative_buckets,
        counter_reset_hint: CounterResetHint::Unknown,
        ..Histogram::default()
    };
    Ok(observed(histogram, point, from.count, from.sum))
}

/// A native histogram with the same bounds, and whether it has a sum without observations.
pub(super) fn native_of_explicit(point: &Point, from: &Explicit) -> (Histogram, bool) {
    let empty = from.counts.iter().take_while(|count| **count == 0).count();
    let counts = from.counts.get(empty..).unwrap_or_default();
    let (positive_spans, positive_buckets) = layout(counts, i32::try_from(empty).unwrap_or(i32::MAX), 0, 0);
    let histogram = Histogram {
        schema: CUSTOM_BUCKETS_SCHEMA,
        positive_spans,
        positive_buckets,
        custom_values: from.bounds.clone(),
        ..Histogram::default()
    };
    observed(histogram, point, from.count, from.sum)
}

fn observed(histogram: Histogram, point: &Point, count: u64, sum: Option<f64>) -> (Histogram, bool) {
    if point.is_stale {
        return (Histogram { sum: stale_nan(), count: STALE_NAN_BITS, ..histogram }, false);
    }
    let sum = sum.unwrap_or(0.0);
    (Histogram { sum, count, ..histogram }, count == 0 && sum != 0.0)
}

/// Spans and differences from counts that stand side by side, `2^down` of which become one. Indexes of buckets are 1 higher
/// (`shift`) where the bound of an index is the upper one there and the lower one here.
fn layout(counts: &[u64], offset: i32, down: u32, shift: i64) -> (Vec<Span>, Vec<i64>) {
    if counts.is_empty() {
        return (Vec::new(), Vec::new());
    }
    let index_of = |place: usize| ((place as i64 + i64::from(offset)) >> down) + 1;
    let first = if shift == 0 { i64::from(offset) } else { index_of(0) };
    let narrow = |index: i64| i32::try_from(index).unwrap_or(i32::MAX);
    let mut spans = vec![Span { offset: narrow(first), length: 0 }];
    let (mut deltas, mut before) = (Vec::new(), 0i64);
    let mut push = |spans: &mut Vec<Span>, count: i64| {
        if let Some(span) = spans.last_mut() {
            span.length = span.length.saturating_add(1);
        }
        deltas.push(count.wrapping_sub(before));
        before = count;
    };
    let bridge = |spans: &mut Vec<Span>, gap: i64, push: &mut dyn FnMut(&mut Vec<Span>, i64)| {
        if GAP_MAX < gap {
            spans.push(Span { offset: narrow(gap), length: 0 });
        } else {
            (0..gap).for_each(|_| push(spans, 0));
        }
    };
    let (mut bucket, mut count) = (index_of(0), 0i64);
    for (place, here) in counts.iter().enumerate() {
        let (next, here) = (index_of(place), here.cast_signed());
        if bucket == next {
            count = count.wrapping_add(here);
            continue;
        }
        if count == 0 {
            count = here;
            continue;
        }
        bridge(&mut spans, next - bucket - 1, &mut push);
        push(&mut spans, count);
        (bucket, count) = (next, here);
    }
    bridge(&mut spans, index_of(counts.len() - 1) - bucket, &mut push);
    push(&mut spans, count);
    (spans, deltas)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(counts: &[u64], offset: i32, down: u32, shift: i64, spans: &[(i32, u32)], deltas: &[i64]) {
        let (got, got_deltas) = layout(counts, offset, down, shift);
        let got: Vec<(i32, u32)> = got.iter().map(|span| (span.offset, span.length)).collect();
        assert_eq!((&got[..], &got_deltas[..]), (spans, deltas));
    }

    /// The expected layouts are those of Prometheus's own tests of `convertBucketsLayout`.
    #[test]
    fn buckets_are_laid_out_as_in_prometheus() {
        check(&[4, 3, 2, 1], 0, 0, 1, &[(1, 4)], &[4, -1, -1, -1]);
        check(&[4, 3, 2, 1], 0, 1, 1, &[(1, 2)], &[7, -4]);
        check(&[4, 3, 2, 1], 0, 2, 1, &[(1, 1)], &[10]);
        check(&[], 0, 0, 1, &[], &[]);
        check(&[4, 0, 0, 0, 0, 2], 0, 0, 1, &[(1, 1), (4, 1)], &[4, -2]);
        check(&[1, 0, 2], 3, 0, 0, &[(3, 3)], &[1, -1, 2]);
    }

    #[test]
    fn scales_are_lowered_or_refused() {
        let (point, mut from) = (Point::default(), Exponential { scale: 10, ..Exponential::default() });
        from.positive = (0, vec![1, 1, 1, 1]);
        let (histogram, odd) = native_of_exponential(&point, &from).unwrap();
        assert_eq!((histogram.schema, &histogram.positive_buckets[..], odd), (8, &[4][..], false));
        from.scale = -5;
        let text = "cannot convert exponential to native histogram. Scale must be >= -4, was -5";
        assert_eq!(native_of_exponential(&point, &from).unwrap_err(), text);
    }
}
