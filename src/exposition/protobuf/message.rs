//! The messages inside a metric: numbers, summaries, histograms.
#![deny(clippy::indexing_slicing)]

use crate::exposition::protobuf::ProtobufError;
use crate::exposition::wire::{Fields, Value};

/// A histogram without its buckets.
#[derive(Default)]
pub(super) struct Histogram {
    pub(super) count: f64,
    pub(super) sum: f64,
    pub(super) is_native: bool,
    pub(super) has_buckets: bool,
    pub(super) is_float: bool,
    pub(super) positive: Side,
    pub(super) negative: Side,
}

/// Buckets of a native histogram: as its spans say, and as they are listed.
#[derive(Default)]
pub(super) struct Side {
    pub(super) spanned: u64,
    pub(super) deltas: u64,
    pub(super) counts: u64,
}

/// Value of a counter, gauge or untyped metric, and whether it has an exemplar.
pub(super) fn number(message: &[u8]) -> Result<(f64, bool), ProtobufError> {
    let (mut number, mut exemplar) = (0.0, false);
    let mut fields = Fields::new(message);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => number = value.double("Value")?,
            2 => exemplar = true,
            _ => {}
        }
    }
    Ok((number, exemplar))
}

/// Count and sum.
pub(super) fn summary(message: &[u8]) -> Result<(f64, f64), ProtobufError> {
    let (mut count, mut sum) = (0.0, 0.0);
    let mut fields = Fields::new(message);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => count = value.varint("SampleCount")? as f64,
            2 => sum = value.double("SampleSum")?,
            _ => {}
        }
    }
    Ok((count, sum))
}

/// Quantile and value.
pub(super) fn quantile(message: &[u8]) -> Result<(f64, f64), ProtobufError> {
    let (mut quantile, mut number) = (0.0, 0.0);
    let mut fields = Fields::new(message);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => quantile = value.double("Quantile")?,
            2 => number = value.double("Value")?,
            _ => {}
        }
    }
    Ok((quantile, number))
}

/// A classic bucket.
pub(super) struct Bucket {
    pub(super) bound: f64,
    pub(super) count: f64,
    pub(super) exemplar: bool,
}

/// A classic bucket.
pub(super) fn bucket(message: &[u8]) -> Result<Bucket, ProtobufError> {
    let mut bucket = Bucket { bound: 0.0, count: 0.0, exemplar: false };
    let mut whole = 0;
    let mut fields = Fields::new(message);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => whole = value.varint("CumulativeCount")?,
            2 => bucket.bound = value.double("UpperBound")?,
            3 => bucket.exemplar = true,
            4 => bucket.count = value.double("CumulativeCountFloat")?,
            _ => {}
        }
    }
    if bucket.count == 0.0 {
        bucket.count = whole as f64;
    }
    Ok(bucket)
}

/// A histogram, its classic buckets not looked at.
pub(super) fn histogram(message: &[u8]) -> Result<Histogram, ProtobufError> {
    let mut histogram = Histogram::default();
    let mut whole = 0;
    let mut zero = false;
    let mut fields = Fields::new(message);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => whole = value.varint("SampleCount")?,
            2 => histogram.sum = value.double("SampleSum")?,
            3 => histogram.has_buckets = true,
            4 => histogram.count = value.double("SampleCountFloat")?,
            6 => zero |= 0.0 < value.double("ZeroThreshold")?,
            7 => zero |= value.varint("ZeroCount")? != 0,
            8 => histogram.is_float |= 0.0 < value.double("ZeroCountFloat")?,
            9 => add_span(&mut histogram.negative, value.bytes("NegativeSpan")?)?,
            10 => histogram.negative.deltas += varints(value),
            11 => histogram.negative.counts += doubles(value),
            12 => add_span(&mut histogram.positive, value.bytes("PositiveSpan")?)?,
            13 => histogram.positive.deltas += varints(value),
            14 => histogram.positive.counts += doubles(value),
            _ => {}
        }
        histogram.is_native |= matches!(field, 9 | 12);
    }
    histogram.is_native |= zero;
    histogram.is_float |= 0.0 < histogram.count;
    if histogram.count == 0.0 {
        histogram.count = whole as f64;
    }
    Ok(histogram)
}

fn add_span(side: &mut Side, message: &[u8]) -> Result<(), ProtobufError> {
    let mut fields = Fields::new(message);
    while let Some((field, value)) = fields.next()? {
        if field == 2 {
            side.spanned = side.spanned.saturating_add(value.varint("Length")?);
        }
    }
    Ok(())
}

/// Doubles in a field that may be packed.
fn doubles(value: Value<'_>) -> u64 {
    match value {
        Value::Bytes(packed) => packed.len() as u64 / 8,
        _ => 1,
    }
}

/// Varints in a field that may be packed: each ends with a byte whose first bit is clear.
fn varints(value: Value<'_>) -> u64 {
    match value {
        Value::Bytes(packed) => packed.iter().filter(|byte| **byte < 0x80).count() as u64,
        _ => 1,
    }
}
