//! The messages inside a family: a metric's numbers, summaries, histograms. Each is read whole, so that a malformed one
//! is refused before any of its series is handed out.
#![deny(clippy::indexing_slicing)]

use crate::exposition::exemplar::time_ms;
use crate::model::wire::{Fields, WireError};

/// A metric without its labels.
#[derive(Default)]
pub(super) struct Metric<'a> {
    pub(super) gauge: f64,
    pub(super) counter: Counter<'a>,
    pub(super) summary: Summary<'a>,
    pub(super) untyped: f64,
    pub(super) histogram: Histogram<'a>,
    pub(super) timestamp_ms: i64,
}

/// A counter.
#[derive(Default)]
pub(super) struct Counter<'a> {
    pub(super) value: f64,
    pub(super) exemplar: Option<&'a [u8]>,
    pub(super) start_ms: Option<i64>,
}

/// A summary; its quantiles are read from its bytes.
#[derive(Default)]
pub(super) struct Summary<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) start_ms: Option<i64>,
    pub(super) count: f64,
    pub(super) sum: f64,
}

/// A histogram; its classic buckets are read from its bytes.
#[derive(Default)]
pub(super) struct Histogram<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) start_ms: Option<i64>,
    pub(super) count: f64,
    /// The float count alone.
    pub(super) count_float: f64,
    pub(super) sum: f64,
    pub(super) is_native: bool,
    pub(super) has_buckets: bool,
    pub(super) is_float: bool,
    /// Exemplars of the native part.
    pub(super) exemplars: u64,
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

/// A classic bucket.
pub(super) struct Bucket<'a> {
    pub(super) bound: f64,
    pub(super) count: f64,
    pub(super) exemplar: Option<&'a [u8]>,
}

pub(super) fn metric(bytes: &[u8]) -> Result<Metric<'_>, WireError> {
    let mut metric = Metric::default();
    let mut fields = Fields::new("Metric", bytes);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => drop(value.bytes("Label")?),
            2 => metric.gauge = number("Gauge", value.bytes("Gauge")?)?,
            3 => metric.counter = counter(value.bytes("Counter")?)?,
            4 => metric.summary = summary(value.bytes("Summary")?)?,
            5 => metric.untyped = number("Untyped", value.bytes("Untyped")?)?,
            6 => metric.timestamp_ms = value.varint("TimestampMs")?.cast_signed(),
            7 => metric.histogram = histogram(value.bytes("Histogram")?)?,
            _ => {}
        }
    }
    Ok(metric)
}

fn number(message: &'static str, bytes: &[u8]) -> Result<f64, WireError> {
    let mut number = 0.0;
    let mut fields = Fields::new(message, bytes);
    while let Some((field, value)) = fields.next()? {
        if field == 1 {
            number = value.double("Value")?;
        }
    }
    Ok(number)
}

fn counter(bytes: &[u8]) -> Result<Counter<'_>, WireError> {
    let mut counter = Counter::default();
    let mut fields = Fields::new("Counter", bytes);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => counter.value = value.double("Value")?,
            2 => counter.exemplar = Some(exemplar(value.bytes("Exemplar")?)?),
            3 => counter.start_ms = Some(time_ms(value.bytes("StartTimestamp")?)?),
            _ => {}
        }
    }
    Ok(counter)
}

fn summary(bytes: &[u8]) -> Result<Summary<'_>, WireError> {
    let mut summary = Summary { bytes, ..Summary::default() };
    let mut fields = Fields::new("Summary", bytes);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => summary.count = value.varint("SampleCount")? as f64,
            2 => summary.sum = value.double("SampleSum")?,
            3 => drop(quantile(value.bytes("Quantile")?)?),
            4 => summary.start_ms = Some(time_ms(value.bytes("StartTimestamp")?)?),
            _ => {}
        }
    }
    Ok(summary)
}

/// Quantile and value.
pub(super) fn quantile(bytes: &[u8]) -> Result<(f64, f64), WireError> {
    let (mut quantile, mut number) = (0.0, 0.0);
    let mut fields = Fields::new("Quantile", bytes);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => quantile = value.double("Quantile")?,
            2 => number = value.double("Value")?,
            _ => {}
        }
    }
    Ok((quantile, number))
}

/// A classic bucket; a float count stands in front of a whole one.
pub(super) fn bucket(bytes: &[u8]) -> Result<Bucket<'_>, WireError> {
    let mut bucket = Bucket { bound: 0.0, count: 0.0, exemplar: None };
    let mut whole = 0;
    let mut fields = Fields::new("Bucket", bytes);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => whole = value.varint("CumulativeCount")?,
            2 => bucket.bound = value.double("UpperBound")?,
            3 => bucket.exemplar = Some(exemplar(value.bytes("Exemplar")?)?),
            4 => bucket.count = value.double("CumulativeCountFloat")?,
            _ => {}
        }
    }
    if bucket.count == 0.0 {
        bucket.count = whole as f64;
    }
    Ok(bucket)
}

fn histogram(bytes: &[u8]) -> Result<Histogram<'_>, WireError> {
    let mut histogram = Histogram { bytes, ..Histogram::default() };
    let mut whole = 0;
    let (mut zero_threshold, mut zero_count) = (0.0, 0);
    let mut fields = Fields::new("Histogram", bytes);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => whole = value.varint("SampleCount")?,
            2 => histogram.sum = value.double("SampleSum")?,
            3 => {
                bucket(value.bytes("Bucket")?)?;
                histogram.has_buckets = true;
            }
            4 => histogram.count = value.double("SampleCountFloat")?,
            5 => drop(value.varint("Schema")?),
            6 => zero_threshold = value.double("ZeroThreshold")?,
            7 => zero_count = value.varint("ZeroCount")?,
            8 => histogram.is_float |= 0.0 < value.double("ZeroCountFloat")?,
            9 => histogram.negative.add_span(value.bytes("NegativeSpan")?)?,
            10 => histogram.negative.deltas += value.varint_count("NegativeDelta")?,
            11 => histogram.negative.counts += value.double_count("NegativeCount")?,
            12 => histogram.positive.add_span(value.bytes("PositiveSpan")?)?,
            13 => histogram.positive.deltas += value.varint_count("PositiveDelta")?,
            14 => histogram.positive.counts += value.double_count("PositiveCount")?,
            15 => histogram.start_ms = Some(time_ms(value.bytes("StartTimestamp")?)?),
            16 => {
                exemplar(value.bytes("Exemplars")?)?;
                histogram.exemplars += 1;
            }
            _ => {}
        }
        histogram.is_native |= matches!(field, 9 | 12);
    }
    histogram.is_native |= 0.0 < zero_threshold || zero_count != 0;
    histogram.is_float |= 0.0 < histogram.count;
    histogram.count_float = histogram.count;
    if histogram.count == 0.0 {
        histogram.count = whole as f64;
    }
    Ok(histogram)
}

impl Side {
    fn add_span(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        let mut fields = Fields::new("BucketSpan", bytes);
        while let Some((field, value)) = fields.next()? {
            match field {
                1 => drop(value.varint("Offset")?),
                2 => self.spanned = self.spanned.saturating_add(value.varint("Length")?),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The exemplar of a metric or bucket, checked.
fn exemplar(bytes: &[u8]) -> Result<&[u8], WireError> {
    let mut fields = Fields::new("Exemplar", bytes);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => {
                let mut pair = Fields::new("LabelPair", value.bytes("Label")?);
                while let Some((field, value)) = pair.next()? {
                    match field {
                        1 => drop(value.bytes("Name")?),
                        2 => drop(value.bytes("Value")?),
                        _ => {}
                    }
                }
            }
            2 => drop(value.double("Value")?),
            3 => drop(time_ms(value.bytes("Timestamp")?)?),
            _ => {}
        }
    }
    Ok(bytes)
}

/// The exemplars that a native histogram has: its own, or else those of its classic buckets.
pub(super) fn native_exemplars<'a>(histogram: &Histogram<'a>, found: &mut Vec<&'a [u8]>) -> Result<(), WireError> {
    found.clear();
    let wanted = if histogram.exemplars == 0 { 3 } else { 16 };
    let mut fields = Fields::new("Histogram", histogram.bytes);
    while let Some((field, value)) = fields.next()? {
        match field {
            3 if wanted == 3 => found.extend(bucket(value.bytes("Bucket")?)?.exemplar),
            16 if wanted == 16 => found.push(value.bytes("Exemplars")?),
            _ => {}
        }
    }
    Ok(())
}
