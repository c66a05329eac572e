//! Remote write 1.0.
//!
//! ```text
//! WriteRequest { 1 TimeSeries …, 3 MetricMetadata … }        metadata is stepped over, as in Prometheus
//! TimeSeries   { 1 Label …, 2 Sample …, 3 Exemplar …, 4 Histogram … }
//! Label { 1 name, 2 value }     Sample { 1 value double, 2 timestamp int64 }
//! Exemplar     { 1 Label …, 2 value double, 3 timestamp int64 }
//! ```
//! Labels mostly stand first, and their bytes are the key by which a series is looked up.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use crate::model::exemplar::{Exemplar, labels_of};
use crate::model::time::TimestampMs;
use crate::model::wire::{Fields, WireError, bytes, varint};
use crate::remote::receive::DecodeError;
use crate::remote::receive::collect::Rows;
use crate::remote::receive::labels::Pairs;

/// Tag of a series in a `WriteRequest`, and of a label in a `TimeSeries`.
const SERIES_TAG: u8 = 0x0a;
const LABEL_TAG: u8 = 0x0a;
/// Tag of a sample in a `TimeSeries`, of its value, of its time stamp and, in version 2, of its start.
const SAMPLE_TAG: u8 = 0x12;
const VALUE_TAG: u8 = 0x09;
const TIMESTAMP_TAG: u8 = 0x10;
const START_TAG: u8 = 0x18;

pub(super) fn decode(body: &[u8], rows: &mut Rows<'_>) -> Result<(), DecodeError> {
    let mut rest = body;
    while let Some((&SERIES_TAG, after)) = rest.split_first() {
        rest = after;
        let message = bytes(&mut rest)?;
        series(message, body.len() - rest.len() - message.len(), rows)?;
    }
    // Anything else, and what follows it.
    let mut fields = Fields::new("WriteRequest", rest);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => {
                let message = value.bytes("Timeseries")?;
                series(message, body.len() - fields.rest_len() - message.len(), rows)?;
            }
            3 => drop(value.bytes("Metadata")?),
            _ => {}
        }
    }
    Ok(())
}

/// One series, whose message stands at `at`.
fn series(message: &[u8], at: usize, rows: &mut Rows<'_>) -> Result<(), DecodeError> {
    let labels = leading_labels(message)?;
    let mut rest = message.get(labels.len()..).unwrap_or_default();
    while let Some((&SAMPLE_TAG, after)) = rest.split_first() {
        rest = after;
        let (t, _, value) = sample(bytes(&mut rest)?)?;
        rows.point(t, value)?;
    }
    let (mut exemplars, mut scattered) = (0, false);
    let mut fields = Fields::new("TimeSeries", rest);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => scattered = true,
            2 => {
                let (t, _, value) = sample(value.bytes("Samples")?)?;
                rows.point(t, value)?;
            }
            3 => {
                value.bytes("Exemplars")?;
                exemplars += 1;
            }
            4 => rows.histogram(value.bytes("Histograms")?)?,
            _ => {}
        }
    }
    let wants_exemplars = 0 < exemplars && rows.keeps_exemplars();
    let key = match scattered {
        false => rows.cache().key_v1(labels),
        true => rows.cache().key_v1(&gathered(message)?),
    };
    let known = rows.find(key);
    if let Some(series) = known.filter(|_| !wants_exemplars) {
        rows.known(series, at, message.len())?;
    } else {
        let mut pairs = Pairs::default();
        read_labels(message, &mut pairs)?;
        match pairs.check() {
            Ok(labels) => {
                match known {
                    Some(series) => rows.known(series, at, message.len())?,
                    None => rows.unknown(labels.clone(), key, at, message.len())?,
                }
                if wants_exemplars {
                    read_exemplars(message, |exemplar| rows.exemplar(&labels, exemplar, at, message.len()))?;
                }
            }
            Err(fault) => {
                rows.refuse(|| pairs.describe(fault));
                return Ok(());
            }
        }
    }
    rows.count_exemplars(exemplars);
    Ok(())
}

/// Reads the exemplars of a `TimeSeries`.
fn read_exemplars(
    message: &[u8],
    mut take: impl FnMut(Exemplar) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let mut fields = Fields::new("TimeSeries", message);
    while let Some((field, value)) = fields.next()? {
        if field != 3 {
            continue;
        }
        let (mut pairs, mut number, mut t) = (Vec::new(), 0.0, 0);
        let mut exemplar = Fields::new("Exemplar", value.bytes("Exemplars")?);
        while let Some((field, value)) = exemplar.next()? {
            match field {
                1 => {
                    let (name, value) = label(value.bytes("Labels")?)?;
                    pairs.push((String::from_utf8_lossy(name), String::from_utf8_lossy(value)));
                }
                2 => number = value.double("Value")?,
                3 => t = value.varint("Timestamp")?.cast_signed(),
                _ => {}
            }
        }
        take(Exemplar { labels: labels_of(pairs), value: number, at: TimestampMs(t), has_time: t != 0 })?;
    }
    Ok(())
}

/// Name and value of a `Label`.
fn label(message: &[u8]) -> Result<(&[u8], &[u8]), WireError> {
    let (mut name, mut text) = (&[][..], &[][..]);
    let mut label = Fields::new("Label", message);
    while let Some((field, value)) = label.next()? {
        match field {
            1 => name = value.bytes("Name")?,
            2 => text = value.bytes("Value")?,
            _ => {}
        }
    }
    Ok((name, text))
}

/// The bytes of all labels that stand in front of everything else.
#[inline]
fn leading_labels(message: &[u8]) -> Result<&[u8], WireError> {
    let mut at = 0;
    while let Some((&LABEL_TAG, rest)) = message.get(at..).and_then(<[u8]>::split_first) {
        match rest.first() {
            Some(&len) if len < 0x80 => at += 2 + usize::from(len),
            _ => {
                let mut rest = rest;
                bytes(&mut rest)?;
                at = message.len() - rest.len();
            }
        }
    }
    message.get(..at).ok_or(WireError::Cut)
}

/// The bytes of all labels, wherever they stand.
fn gathered(message: &[u8]) -> Result<Vec<u8>, WireError> {
    let mut labels = Vec::new();
    let mut fields = Fields::new("TimeSeries", message);
    let mut before = message;
    while let Some((field, _)) = fields.next()? {
        let len = before.len() - fields.rest_len();
        let (one, after) = before.split_at_checked(len).ok_or(WireError::Cut)?;
        if field == 1 {
            labels.extend_from_slice(one);
        }
        before = after;
    }
    Ok(labels)
}

/// The labels of a `TimeSeries` as text.
pub(super) fn show_labels(message: &[u8]) -> String {
    let mut pairs = Pairs::default();
    // It was read before; the check only sorts them.
    if read_labels(message, &mut pairs).is_ok() {
        let _ = pairs.check();
    }
    pairs.to_string()
}

/// Reads the labels of a `TimeSeries`.
fn read_labels<'a>(message: &'a [u8], pairs: &mut Pairs<'a>) -> Result<(), WireError> {
    pairs.clear();
    let mut fields = Fields::new("TimeSeries", message);
    while let Some((field, value)) = fields.next()? {
        if field != 1 {
            continue;
        }
        let (name, text) = label(value.bytes("Labels")?)?;
        pairs.push(name, text);
    }
    Ok(())
}

/// Time stamp, start and value. Version 1 has no start; it is 0 where none is said.
#[inline]
pub(super) fn sample(message: &[u8]) -> Result<(i64, i64, f64), WireError> {
    // As all senders write it.
    if let Some((&VALUE_TAG, rest)) = message.split_first()
        && let Some((value, rest)) = rest.split_first_chunk::<8>()
        && let Some((&TIMESTAMP_TAG, mut rest)) = rest.split_first()
    {
        let (t, value) = (varint(&mut rest)?.cast_signed(), f64::from_le_bytes(*value));
        match rest.split_first() {
            None => return Ok((t, 0, value)),
            Some((&START_TAG, mut rest)) => {
                let start = varint(&mut rest)?.cast_signed();
                if rest.is_empty() {
                    return Ok((t, start, value));
                }
            }
            Some(_) => {}
        }
    }
    any_sample(message)
}

/// A sample whose fields stand in any order.
fn any_sample(message: &[u8]) -> Result<(i64, i64, f64), WireError> {
    let (mut value, mut t, mut start) = (0.0, 0, 0);
    let mut fields = Fields::new("Sample", message);
    while let Some((field, found)) = fields.next()? {
        match field {
            1 => value = found.double("Value")?,
            2 => t = found.varint("Timestamp")?.cast_signed(),
            3 => start = found.varint("StartTimestamp")?.cast_signed(),
            _ => {}
        }
    }
    Ok((t, start, value))
}
