//! Remote write 2.0.
//!
//! ```text
//! Request    { 4 symbol string …, 5 TimeSeries … }
//! TimeSeries { 1 labels_refs packed uint32, 2 Sample …, 3 Histogram …, 4 Exemplar …, 5 Metadata }
//! Sample     { 1 value double, 2 timestamp int64, 3 start_timestamp int64 }
//! Exemplar   { 1 labels_refs, 2 value double, 3 timestamp int64 }
//! Metadata   { 1 type enum, 3 help_ref uint32, 4 unit_ref uint32 }
//! ```
//! References are places in the table of symbols. The strings of a series' labels, each after its length, are the key by
//! which it is looked up. Metadata is checked, and kept with the feature `metadata-wal-records` alone.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use crate::model::exemplar::{Exemplar, labels_of};
use crate::model::metadata::{MetricType, SeriesMetadata};
use crate::model::time::TimestampMs;
use crate::model::wire::{Fields, WireError};
use crate::remote::receive::DecodeError;
use crate::remote::receive::collect::Rows;
use crate::remote::receive::labels::Pairs;
use crate::remote::receive::v1::sample;

/// What a symbol and a series take while the request is read.
const ROW_BYTES: u64 = 32;
/// Rows that are paid for at a time.
const ROWS_PER_DRAW: usize = 1024;

pub(super) fn decode(body: &[u8], rows: &mut Rows<'_>) -> Result<(), DecodeError> {
    let mut symbols: Vec<&[u8]> = Vec::new();
    let mut messages: Vec<(usize, &[u8])> = Vec::new();
    let mut fields = Fields::new("Request", body);
    while let Some((field, value)) = fields.next()? {
        match field {
            4 => symbols.push(value.bytes("Symbols")?),
            5 => {
                let message = value.bytes("Timeseries")?;
                messages.push((body.len() - fields.rest_len() - message.len(), message));
            }
            _ => continue,
        }
        if (symbols.len() + messages.len()) % ROWS_PER_DRAW == 1 {
            rows.pay(ROW_BYTES * ROWS_PER_DRAW as u64)?;
        }
    }
    let mut scratch = Scratch::default();
    for (at, message) in messages {
        scratch.read(message, rows)?;
        scratch.series(message, at, &symbols, rows)?;
    }
    Ok(())
}

/// The symbols of a request.
pub(super) fn symbols(body: &[u8]) -> Result<Vec<&[u8]>, WireError> {
    let mut symbols = Vec::new();
    let mut fields = Fields::new("Request", body);
    while let Some((field, value)) = fields.next()? {
        if field == 4 {
            symbols.push(value.bytes("Symbols")?);
        }
    }
    Ok(symbols)
}

/// The labels of a `TimeSeries` as text.
pub(super) fn show_labels(message: &[u8], symbols: &[&[u8]]) -> String {
    let (mut refs, mut pairs) = (Vec::new(), Pairs::default());
    let mut fields = Fields::new("TimeSeries", message);
    while let Ok(Some((field, value))) = fields.next() {
        if field == 1 {
            // What was read before can be read again.
            let _ = value.varints("LabelsRefs", |reference| refs.push(reference as u32));
        }
    }
    if resolve(&refs, symbols, &mut pairs).is_ok() {
        // Only sorts them.
        let _ = pairs.check();
    }
    pairs.to_string()
}

/// What is read of a series before it is known which one it is.
#[derive(Default)]
struct Scratch<'a> {
    refs: Vec<u32>,
    key: Vec<u8>,
    exemplars: Vec<&'a [u8]>,
    /// So many of them are paid for; each series uses the same room.
    exemplars_paid: usize,
    kind: u64,
    help_ref: u32,
    unit_ref: u32,
}

impl<'a> Scratch<'a> {
    fn read(&mut self, message: &'a [u8], rows: &mut Rows<'_>) -> Result<(), DecodeError> {
        self.refs.clear();
        self.exemplars.clear();
        (self.kind, self.help_ref, self.unit_ref) = (0, 0, 0);
        let mut fields = Fields::new("TimeSeries", message);
        while let Some((field, value)) = fields.next()? {
            match field {
                1 => value.varints("LabelsRefs", |reference| self.refs.push(reference as u32))?,
                2 => {
                    let (t, start, value) = sample(value.bytes("Samples")?)?;
                    rows.point(t, value)?;
                    rows.started(start);
                }
                3 => rows.histogram(value.bytes("Histograms")?)?,
                4 => {
                    if self.exemplars_paid <= self.exemplars.len() {
                        rows.pay(ROW_BYTES * ROWS_PER_DRAW as u64)?;
                        self.exemplars_paid += ROWS_PER_DRAW;
                    }
                    self.exemplars.push(value.bytes("Exemplars")?);
                }
                5 => self.metadata(value.bytes("Metadata")?)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn metadata(&mut self, message: &[u8]) -> Result<(), WireError> {
        let mut fields = Fields::new("Metadata", message);
        while let Some((field, value)) = fields.next()? {
            match field {
                1 => self.kind = value.varint("Type")?,
                3 => self.help_ref = value.varint("HelpRef")? as u32,
                4 => self.unit_ref = value.varint("UnitRef")? as u32,
                _ => {}
            }
        }
        Ok(())
    }

    fn series(
        &mut self,
        message: &[u8],
        at: usize,
        symbols: &[&'a [u8]],
        rows: &mut Rows<'_>,
    ) -> Result<(), DecodeError> {
        if let Err(reason) = self.check_refs(symbols) {
            rows.refuse(|| format!("parsing labels for series {}: {reason}", shown(&self.refs)));
            return Ok(());
        }
        if let Some((name, reference)) = self.bad_metadata(symbols) {
            // Not counted as invalid labels, as in Prometheus.
            rows.leave_out(|| {
                let (refs, size) = (shown(&self.refs), symbols.len());
                let what = format!("metadata {name} {reference} outside of symbols table (size {size})");
                format!("parsing metadata for series {refs}: {what}")
            });
            return Ok(());
        }
        rows.describe(|| {
            let text = |reference: u32| {
                let text = symbols.get(reference as usize).copied().unwrap_or_default();
                String::from_utf8_lossy(text).into_owned()
            };
            let kind = MetricType::from_number(self.kind);
            SeriesMetadata { kind, unit: text(self.unit_ref), help: text(self.help_ref) }
        })?;
        self.make_key(symbols);
        let key = rows.cache().key_v2(&self.key);
        let known = rows.find(key);
        if let Some(series) = known.filter(|_| 0 < rows.read_len() && self.exemplars.is_empty()) {
            return rows.known(series, at, message.len());
        }
        let mut pairs = Pairs::default();
        resolve(&self.refs, symbols, &mut pairs).map_err(|_| WireError::Cut)?;
        let labels = match pairs.check() {
            Ok(labels) => labels,
            Err(fault) => {
                rows.refuse(|| pairs.describe(fault));
                return Ok(());
            }
        };
        if rows.read_len() == 0 {
            rows.leave_out(|| format!("TimeSeries must contain at least one sample or histogram for series {pairs}"));
            return Ok(());
        }
        match known {
            Some(series) => rows.known(series, at, message.len())?,
            None => rows.unknown(labels.clone(), key, at, message.len())?,
        }
        for exemplar in &self.exemplars {
            match read_exemplar(exemplar, symbols)? {
                Ok(exemplar) if rows.is_future(exemplar.at.0) => {}
                Ok(exemplar) => {
                    rows.count_exemplars(1);
                    if rows.keeps_exemplars() {
                        rows.exemplar(&labels, exemplar, at, message.len())?;
                    }
                }
                Err(reason) => rows.bad_exemplar(|| format!("parsing exemplar for series {pairs}: {reason}")),
            }
        }
        Ok(())
    }

    fn check_refs(&self, symbols: &[&[u8]]) -> Result<(), String> {
        let is_good = |reference: &u32| (*reference as usize) < symbols.len();
        if self.refs.len().is_multiple_of(2) && self.refs.iter().all(is_good) {
            return Ok(());
        }
        resolve(&self.refs, symbols, &mut Pairs::default())
    }

    fn bad_metadata(&self, symbols: &[&[u8]]) -> Option<(&'static str, u32)> {
        let refs = [("unit_ref", self.unit_ref), ("help_ref", self.help_ref)];
        refs.into_iter().find(|(_, reference)| symbols.len() <= *reference as usize)
    }

    #[inline]
    fn make_key(&mut self, symbols: &[&[u8]]) {
        self.key.clear();
        for reference in &self.refs {
            let text = symbols.get(*reference as usize).copied().unwrap_or_default();
            self.key.extend_from_slice(&(text.len() as u32).to_le_bytes());
            self.key.extend_from_slice(text);
        }
    }
}

/// Looks references up. The error has the words of Prometheus.
fn resolve<'a>(refs: &[u32], symbols: &[&'a [u8]], pairs: &mut Pairs<'a>) -> Result<(), String> {
    if !refs.len().is_multiple_of(2) {
        return Err(format!("invalid labelRefs length {}", refs.len()));
    }
    pairs.clear();
    for pair in refs.chunks_exact(2) {
        let &[name, value] = pair else { continue };
        match (symbols.get(name as usize), symbols.get(value as usize)) {
            (Some(name), Some(value)) => pairs.push(name, value),
            _ => {
                let size = symbols.len();
                return Err(format!(
                    "labelRefs {name} (name) = {value} (value) outside of symbols table (size {size})"
                ));
            }
        }
    }
    Ok(())
}

/// An exemplar whose labels are there, or why they are not.
fn read_exemplar(message: &[u8], symbols: &[&[u8]]) -> Result<Result<Exemplar, String>, WireError> {
    let (mut refs, mut number, mut t) = (Vec::new(), 0.0, 0);
    let mut fields = Fields::new("Exemplar", message);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => value.varints("LabelsRefs", |reference| refs.push(reference as u32))?,
            2 => number = value.double("Value")?,
            3 => t = value.varint("Timestamp")?.cast_signed(),
            _ => {}
        }
    }
    if let Err(reason) = resolve(&refs, symbols, &mut Pairs::default()) {
        return Ok(Err(reason));
    }
    let text = |reference: &u32| {
        let text = symbols.get(*reference as usize).copied().unwrap_or_default();
        String::from_utf8_lossy(text)
    };
    let pairs = refs.chunks_exact(2).filter_map(|pair| Some((text(pair.first()?), text(pair.last()?))));
    let labels = labels_of(pairs.collect());
    Ok(Ok(Exemplar { labels, value: number, at: TimestampMs(t), has_time: t != 0 }))
}

/// `[1 2 3]`, as Go prints a slice.
fn shown(refs: &[u32]) -> String {
    /// More of them tell nobody anything.
    const SHOWN_MAX: usize = 1000;
    let texts: Vec<String> = refs.iter().take(SHOWN_MAX).map(u32::to_string).collect();
    format!("[{}]", texts.join(" "))
}
