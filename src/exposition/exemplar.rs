//! Exemplars as formats write them, read only where they are wanted.
#![deny(clippy::indexing_slicing)]

use std::borrow::Cow;

use crate::exposition::openmetrics;
use crate::model::exemplar::{Exemplar, labels_of};
use crate::model::time::TimestampMs;
use crate::model::wire::{Fields, WireError};

/// An exemplar that was checked, in the bytes of the input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RawExemplar<'a> {
    /// Of OpenMetrics.
    Line {
        /// Its labels, from behind the opening brace to behind the closing one.
        labels: &'a [u8],
        /// Its value.
        value: f64,
        /// Its time, if it has one.
        timestamp_ms: Option<i64>,
    },
    /// An `Exemplar` of protobuf.
    Message(&'a [u8]),
}

impl RawExemplar<'_> {
    /// The exemplar. Without a time of its own it is of `at`.
    pub fn read(&self, at: TimestampMs) -> Exemplar {
        match self {
            Self::Line { labels, value, timestamp_ms } => Exemplar {
                labels: labels_of(openmetrics::exemplar_labels(labels)),
                value: *value,
                at: timestamp_ms.map_or(at, TimestampMs),
                has_time: timestamp_ms.is_some(),
            },
            // It was checked with its family.
            Self::Message(message) => read_message(message, at).unwrap_or_else(|_| empty(at)),
        }
    }

    /// Whether it has a time of its own.
    pub fn has_time(&self) -> bool {
        match self {
            Self::Line { timestamp_ms, .. } => timestamp_ms.is_some(),
            Self::Message(_) => self.read(TimestampMs(0)).has_time,
        }
    }
}

fn empty(at: TimestampMs) -> Exemplar {
    Exemplar { labels: labels_of::<&str, &str>(Vec::new()), value: 0.0, at, has_time: false }
}

fn read_message(message: &[u8], at: TimestampMs) -> Result<Exemplar, WireError> {
    let mut exemplar = empty(at);
    let mut pairs: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::new();
    let mut fields = Fields::new("Exemplar", message);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => {
                let (mut name, mut text): (&[u8], &[u8]) = (&[], &[]);
                let mut pair = Fields::new("LabelPair", value.bytes("Label")?);
                while let Some((field, value)) = pair.next()? {
                    match field {
                        1 => name = value.bytes("Name")?,
                        2 => text = value.bytes("Value")?,
                        _ => {}
                    }
                }
                pairs.push((String::from_utf8_lossy(name), String::from_utf8_lossy(text)));
            }
            2 => exemplar.value = value.double("Value")?,
            3 => {
                exemplar.has_time = true;
                exemplar.at = TimestampMs(time_ms(value.bytes("Timestamp")?)?);
            }
            _ => {}
        }
    }
    exemplar.labels = labels_of(pairs);
    Ok(exemplar)
}

/// Milliseconds of a `Timestamp`.
pub(super) fn time_ms(message: &[u8]) -> Result<i64, WireError> {
    let (mut seconds, mut nanos) = (0, 0);
    let mut fields = Fields::new("Timestamp", message);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => seconds = value.varint("Seconds")?.cast_signed(),
            // 32 bits, written as 64.
            2 => nanos = value.varint("Nanos")? as i32,
            _ => {}
        }
    }
    Ok(seconds.wrapping_mul(1000).wrapping_add(i64::from(nanos / 1_000_000)))
}
