//! Native histograms, which both versions write alike.
//!
//! ```text
//! Histogram { 1 count_int uint64 │ 2 count_float double, 3 sum, 4 schema sint32, 5 zero_threshold,
//!             6 zero_count_int │ 7 zero_count_float, 8 negative_spans …, 9 negative_deltas sint64 …,
//!             10 negative_counts double …, 11 positive_spans …, 12 positive_deltas …, 13 positive_counts …,
//!             14 reset_hint enum, 15 timestamp int64, 16 custom_values double …, 17 start_timestamp int64 }
//! BucketSpan { 1 offset sint32, 2 length uint32 }
//! ```
//! A histogram has float counts if its count is one. Numbers of the other kind are not looked at.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use crate::model::append::HistogramValue;
use crate::model::histogram::{CounterResetHint, FloatHistogram, Histogram, Span, has_sound_layout};
use crate::model::wire::{Fields, Value, WireError, fixed64s};

/// The finest resolution that is stored; Prometheus lowers others to it.
const SCHEMA_MAX: i32 = 8;
/// Schemas of exponential buckets that a later version may have.
const SCHEMAS_RESERVED_MAX: i32 = 52;

/// One side of a histogram.
#[derive(Default)]
struct Side {
    spans: Vec<Span>,
    deltas: Vec<i64>,
    counts: Vec<f64>,
}

#[derive(Clone, Copy)]
enum Count {
    Whole(u64),
    Float(f64),
}

/// Time stamp, start or 0, and histogram.
pub(in crate::remote) fn histogram(message: &[u8]) -> Result<(i64, i64, HistogramValue), WireError> {
    let (mut count, mut sum, mut schema, mut zero_threshold) = (Count::Whole(0), 0.0, 0, 0.0);
    let (mut zero_whole, mut zero_float) = (0, 0.0);
    let (mut negative, mut positive) = (Side::default(), Side::default());
    let (mut hint, mut t, mut start, mut custom_values) = (CounterResetHint::Unknown, 0, 0, Vec::new());
    let mut fields = Fields::new("Histogram", message);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => count = Count::Whole(value.varint("CountInt")?),
            2 => count = Count::Float(value.double("CountFloat")?),
            3 => sum = value.double("Sum")?,
            4 => schema = zigzag_32(value.varint("Schema")?),
            5 => zero_threshold = value.double("ZeroThreshold")?,
            // One of the two: the last holds.
            6 => (zero_whole, zero_float) = (value.varint("ZeroCountInt")?, 0.0),
            7 => (zero_whole, zero_float) = (0, value.double("ZeroCountFloat")?),
            8 => negative.spans.push(span(value.bytes("NegativeSpans")?)?),
            9 => value.varints("NegativeDeltas", |delta| negative.deltas.push(zigzag(delta)))?,
            10 => doubles(value, "NegativeCounts", &mut negative.counts)?,
            11 => positive.spans.push(span(value.bytes("PositiveSpans")?)?),
            12 => value.varints("PositiveDeltas", |delta| positive.deltas.push(zigzag(delta)))?,
            13 => doubles(value, "PositiveCounts", &mut positive.counts)?,
            14 => hint = hint_of(value.varint("ResetHint")?),
            15 => t = value.varint("Timestamp")?.cast_signed(),
            16 => doubles(value, "CustomValues", &mut custom_values)?,
            17 => start = value.varint("StartTimestamp")?.cast_signed(),
            _ => {}
        }
    }
    let finer = SCHEMA_MAX < schema && schema <= SCHEMAS_RESERVED_MAX;
    let histogram = match count {
        Count::Whole(count) => {
            let mut histogram = Histogram {
                counter_reset_hint: hint,
                schema,
                zero_threshold,
                zero_count: zero_whole,
                count,
                sum,
                positive_spans: positive.spans,
                positive_buckets: positive.deltas,
                negative_spans: negative.spans,
                negative_buckets: negative.deltas,
                custom_values,
            };
            let sides = [
                (&histogram.positive_spans[..], histogram.positive_buckets.len()),
                (&histogram.negative_spans[..], histogram.negative_buckets.len()),
            ];
            // One that is malformed is left for storage to refuse.
            if finer && has_sound_layout(schema, sides) {
                histogram.reduce_resolution(SCHEMA_MAX);
            }
            histogram.into()
        }
        Count::Float(count) => {
            let mut histogram = FloatHistogram {
                counter_reset_hint: hint,
                schema,
                zero_threshold,
                zero_count: zero_float,
                count,
                sum,
                positive_spans: positive.spans,
                positive_buckets: positive.counts,
                negative_spans: negative.spans,
                negative_buckets: negative.counts,
                custom_values,
            };
            let sides = [
                (&histogram.positive_spans[..], histogram.positive_buckets.len()),
                (&histogram.negative_spans[..], histogram.negative_buckets.len()),
            ];
            if finer && has_sound_layout(schema, sides) {
                histogram.reduce_resolution(SCHEMA_MAX);
            }
            histogram.into()
        }
    };
    Ok((t, start, histogram))
}

fn span(message: &[u8]) -> Result<Span, WireError> {
    let mut span = Span { offset: 0, length: 0 };
    let mut fields = Fields::new("BucketSpan", message);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => span.offset = zigzag_32(value.varint("Offset")?),
            2 => span.length = value.varint("Length")? as u32,
            _ => {}
        }
    }
    Ok(span)
}

/// One double, or many that are packed.
fn doubles(value: Value<'_>, field: &'static str, out: &mut Vec<f64>) -> Result<(), WireError> {
    fixed64s(value, field, |bits| out.push(f64::from_bits(bits)))
}

fn hint_of(number: u64) -> CounterResetHint {
    match number {
        1 => CounterResetHint::Reset,
        2 => CounterResetHint::NotReset,
        3 => CounterResetHint::Gauge,
        _ => CounterResetHint::Unknown,
    }
}

fn zigzag(n: u64) -> i64 {
    (n >> 1).cast_signed() ^ -(n & 1).cast_signed()
}

/// Go keeps the lowest 32 bits.
fn zigzag_32(n: u64) -> i32 {
    let n = n as u32;
    (n >> 1).cast_signed() ^ -(n & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of a histogram with whole counts, field by field.
    const WHOLE: &[u8] =
        b"\x08\x0a\x19\x00\x00\x00\x00\x00\x00\x24\x40\x20\x03\x29\x00\x00\x00\x00\x00\x00\xe0\x3f\x30\x01\
        \x42\x04\x08\x01\x10\x01\x4a\x01\x04\x5a\x04\x08\x04\x10\x02\x62\x02\x06\x01\x70\x03\x78\x64";

    #[test]
    fn whole_and_float_counts_are_told_apart_by_the_count() {
        let (t, _, value) = histogram(WHOLE).unwrap();
        let expected = Histogram {
            counter_reset_hint: CounterResetHint::Gauge,
            schema: -2,
            zero_threshold: 0.5,
            zero_count: 1,
            count: 10,
            sum: 10.0,
            positive_spans: vec![Span { offset: 2, length: 2 }],
            positive_buckets: vec![3, -1],
            negative_spans: vec![Span { offset: -1, length: 1 }],
            negative_buckets: vec![2],
            custom_values: vec![],
        };
        assert_eq!((t, value), (100, expected.into()));
        let mut float = vec![0x11];
        float.extend(2.5f64.to_le_bytes());
        float.extend([0x20, 0x69, 0x5a, 2, 0x10, 2, 0x6a, 16]);
        float.extend([1.0f64, 1.5].map(f64::to_le_bytes).concat());
        float.extend([0x82, 0x01, 8]);
        float.extend(7.0f64.to_le_bytes());
        let (t, _, value) = histogram(&float).unwrap();
        let expected = FloatHistogram {
            schema: -53,
            count: 2.5,
            positive_spans: vec![Span { offset: 0, length: 2 }],
            positive_buckets: vec![1.0, 1.5],
            custom_values: vec![7.0],
            ..FloatHistogram::default()
        };
        assert_eq!((t, value), (0, expected.into()));
    }

    #[test]
    fn finer_resolutions_are_lowered() {
        // Schema 10 with two neighbouring buckets, and one with more buckets than its spans name.
        let (_, _, value) = histogram(b"\x08\x02\x20\x14\x5a\x04\x08\x02\x10\x02\x62\x02\x02\x00").unwrap();
        let HistogramValue::Integer(lowered) = value else { panic!() };
        assert_eq!((lowered.schema, &lowered.positive_buckets[..]), (8, &[2][..]));
        let (_, _, value) = histogram(b"\x08\x02\x20\x14\x5a\x04\x08\x02\x10\x01\x62\x02\x02\x00").unwrap();
        assert!(value.validate().is_err());
    }

    #[test]
    fn what_is_cut_is_no_histogram() {
        for end in 1..WHOLE.len() {
            let _ = histogram(&WHOLE[..end]);
        }
        assert_eq!(histogram(b"\x6a\x03abc"), Err(WireError::Cut));
        let wrong = histogram(b"\x09\x00\x00\x00\x00\x00\x00\x00\x00").unwrap_err();
        assert_eq!(wrong.to_string(), "proto: wrong wireType = 1 for field CountInt");
    }
}
