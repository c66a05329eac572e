//! The native part of a histogram message.

use crate::exposition::protobuf::message::Histogram;
use crate::model::append::HistogramValue;
use crate::model::histogram::{self, CounterResetHint, FloatHistogram, Span};
use crate::model::wire::{Fields, WireError, fixed64s};

/// Buckets of one side.
#[derive(Default)]
struct Side {
    spans: Vec<Span>,
    deltas: Vec<i64>,
    counts: Vec<f64>,
}

/// Reads the native part, which is as long as the message at most; empty buckets are left out, as in Prometheus.
pub(super) fn read(message: &Histogram<'_>, is_gauge: bool) -> Result<HistogramValue, WireError> {
    let (mut positive, mut negative) = (Side::default(), Side::default());
    let (mut count, mut zero_count, mut zero_count_float) = (0, 0, 0.0);
    let (mut schema, mut zero_threshold) = (0, 0.0);
    let mut fields = Fields::new("Histogram", message.bytes);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => count = value.varint("SampleCount")?,
            5 => schema = zigzag32(value.varint("Schema")?),
            6 => zero_threshold = value.double("ZeroThreshold")?,
            7 => zero_count = value.varint("ZeroCount")?,
            8 => zero_count_float = value.double("ZeroCountFloat")?,
            9 => negative.spans.push(span(value.bytes("NegativeSpan")?)?),
            10 => value.varints("NegativeDelta", |n| negative.deltas.push(zigzag(n)))?,
            11 => fixed64s(value, "NegativeCount", |bits| negative.counts.push(f64::from_bits(bits)))?,
            12 => positive.spans.push(span(value.bytes("PositiveSpan")?)?),
            13 => value.varints("PositiveDelta", |n| positive.deltas.push(zigzag(n)))?,
            14 => fixed64s(value, "PositiveCount", |bits| positive.counts.push(f64::from_bits(bits)))?,
            _ => {}
        }
    }
    let counter_reset_hint = if is_gauge { CounterResetHint::Gauge } else { CounterResetHint::Unknown };
    if message.is_float {
        let mut histogram = FloatHistogram {
            counter_reset_hint,
            schema,
            zero_threshold,
            zero_count: zero_count_float,
            // Set from the float count, which is above zero, or from the whole one, which Prometheus does not look at.
            count: message.count_float,
            sum: message.sum,
            positive_spans: positive.spans,
            positive_buckets: positive.counts,
            negative_spans: negative.spans,
            negative_buckets: negative.counts,
            custom_values: Vec::new(),
        };
        histogram.compact(0);
        return Ok(histogram.into());
    }
    let mut histogram = histogram::Histogram {
        counter_reset_hint,
        schema,
        zero_threshold,
        zero_count,
        count,
        sum: message.sum,
        positive_spans: positive.spans,
        positive_buckets: positive.deltas,
        negative_spans: negative.spans,
        negative_buckets: negative.deltas,
        custom_values: Vec::new(),
    };
    histogram.compact();
    Ok(histogram.into())
}

fn span(bytes: &[u8]) -> Result<Span, WireError> {
    let mut span = Span { offset: 0, length: 0 };
    let mut fields = Fields::new("BucketSpan", bytes);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => span.offset = zigzag32(value.varint("Offset")?),
            // Go keeps the lowest 32 bits; what does not fit the buckets is refused before.
            2 => span.length = value.varint("Length")? as u32,
            _ => {}
        }
    }
    Ok(span)
}

fn zigzag(n: u64) -> i64 {
    (n >> 1).cast_signed() ^ -(n & 1).cast_signed()
}

fn zigzag32(n: u64) -> i32 {
    // Go keeps the lowest 32 bits.
    let n = n as u32;
    (n >> 1).cast_signed() ^ -(n & 1).cast_signed()
}
