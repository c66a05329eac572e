//! What others answer, read.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::sync::Arc;

use crate::model::append::HistogramValue;
use crate::model::labels::Labels;
use crate::model::read::SampleColumn;
use crate::model::wire::{Fields, WireError, varint};
use crate::remote::receive::histogram::histogram;

/// Why an answer cannot be read; the texts are those of Prometheus.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// It is no snappy block.
    #[error("error reading response: snappy: corrupt input")]
    Snappy,
    /// It is no message.
    #[error("unable to unmarshal response body: {0}")]
    Wire(#[from] WireError),
    /// It has more results, or fewer, than were asked for.
    #[error("responses: want 1, got {0}")]
    Results(usize),
    /// A label is none.
    #[error("{0}")]
    Label(String),
    /// A histogram is none.
    #[error("{0}")]
    Histogram(String),
    /// A frame is longer than it may be.
    #[error("chunkedReader: message size exceeded the limit {limit} bytes; got: {len} bytes")]
    FrameTooLong {
        /// The limit in bytes.
        limit: u64,
        /// The length that the frame says that it has.
        len: u64,
    },
    /// A frame was damaged on its way.
    #[error("chunkedReader: corrupted frame; checksum mismatch")]
    Checksum,
    /// The answer ends within a frame.
    #[error("unexpected EOF")]
    Cut,
}

/// Reads an unpacked answer with samples to one query. `take` is given each series, and may end the reading.
pub fn sampled<E: From<AnswerError>>(
    message: &[u8],
    mut take: impl FnMut(Labels, SampleColumn) -> Result<(), E>,
) -> Result<(), E> {
    let mut results = 0;
    let mut fields = Fields::new("ReadResponse", message);
    while let Some((field, value)) = fields.next().map_err(AnswerError::from)? {
        if field != 1 {
            continue;
        }
        results += 1;
        let mut fields = Fields::new("QueryResult", value.bytes("Results").map_err(AnswerError::from)?);
        while let Some((field, value)) = fields.next().map_err(AnswerError::from)? {
            if field == 1 {
                let (labels, column) = series(value.bytes("Timeseries").map_err(AnswerError::from)?)?;
                take(labels, column)?;
            }
        }
    }
    if results == 1 { Ok(()) } else { Err(AnswerError::Results(results).into()) }
}

fn series(message: &[u8]) -> Result<(Labels, SampleColumn), AnswerError> {
    let (mut pairs, mut column) = (Vec::new(), SampleColumn::default());
    let mut fields = Fields::new("TimeSeries", message);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => pairs.push(label(value.bytes("Labels")?)?),
            2 => {
                let (mut number, mut t) = (0.0, 0);
                let mut fields = Fields::new("Sample", value.bytes("Samples")?);
                while let Some((field, value)) = fields.next()? {
                    match field {
                        1 => number = value.double("Value")?,
                        2 => t = value.varint("Timestamp")?.cast_signed(),
                        _ => {}
                    }
                }
                column.floats.push(t, number);
            }
            4 => {
                let (t, _, value) = histogram(value.bytes("Histograms")?)?;
                value.validate().map_err(|error| AnswerError::Histogram(error.to_string()))?;
                let float = match value {
                    HistogramValue::Integer(whole) => Arc::new(whole.to_float()),
                    HistogramValue::Float(float) => float,
                };
                column.histograms.push(t, float);
            }
            _ => {}
        }
    }
    Ok((labels(pairs)?, column))
}

fn label(message: &[u8]) -> Result<(String, String), AnswerError> {
    let text = |bytes: &[u8], what: &str| match String::from_utf8(bytes.to_vec()) {
        Ok(text) => Ok(text),
        Err(error) => Err(AnswerError::Label(format!("invalid label {what}: {}", error.utf8_error()))),
    };
    let (mut name, mut content) = (String::new(), String::new());
    let mut fields = Fields::new("Label", message);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => name = text(value.bytes("Name")?, "name")?,
            2 => content = text(value.bytes("Value")?, "value")?,
            _ => {}
        }
    }
    if name.is_empty() {
        return Err(AnswerError::Label("invalid label name: ".to_owned()));
    }
    Ok((name, content))
}

fn labels(mut pairs: Vec<(String, String)>) -> Result<Labels, AnswerError> {
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    let repeated = pairs.iter().zip(pairs.iter().skip(1)).find(|(a, b)| a.0 == b.0);
    match repeated {
        Some(((name, _), _)) => Err(AnswerError::Label(format!("duplicate label with name: {name}"))),
        None => Ok(Labels::from_pairs(pairs)),
    }
}

/// A chunk in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundChunk<'a> {
    /// Time of its first sample.
    pub min_ms: i64,
    /// Time of its last sample.
    pub max_ms: i64,
    /// Number of its encoding.
    pub encoding: u8,
    /// Its bytes.
    pub data: &'a [u8],
}

/// A series in a frame, or a part of one.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundSeries<'a> {
    /// Its labels.
    pub labels: Labels,
    /// Its chunks.
    pub chunks: Vec<FoundChunk<'a>>,
}

/// The series of an answer in frames.
#[derive(Clone, Copy, Debug)]
pub struct Frames<'a> {
    rest: &'a [u8],
    len_max: u64,
}

impl<'a> Frames<'a> {
    /// Frames of at most `len_max` bytes each.
    pub fn new(body: &'a [u8], len_max: u64) -> Self {
        Self { rest: body, len_max }
    }

    fn frame(&mut self) -> Result<FoundSeries<'a>, AnswerError> {
        let len = varint(&mut self.rest).map_err(|_| AnswerError::Cut)?;
        if self.len_max < len {
            return Err(AnswerError::FrameTooLong { limit: self.len_max, len });
        }
        let (checksum, rest) = self.rest.split_first_chunk::<4>().ok_or(AnswerError::Cut)?;
        let len = usize::try_from(len).map_err(|_| AnswerError::Cut)?;
        let (message, rest) = rest.split_at_checked(len).ok_or(AnswerError::Cut)?;
        self.rest = rest;
        if crc32c::crc32c(message) != u32::from_be_bytes(*checksum) {
            return Err(AnswerError::Checksum);
        }
        let mut fields = Fields::new("ChunkedReadResponse", message);
        while let Some((field, value)) = fields.next()? {
            if field == 1 {
                return chunked_series(value.bytes("ChunkedSeries")?);
            }
        }
        Err(AnswerError::Cut)
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<FoundSeries<'a>, AnswerError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let frame = self.frame();
        if frame.is_err() {
            self.rest = &[];
        }
        Some(frame)
    }
}

fn chunked_series(message: &[u8]) -> Result<FoundSeries<'_>, AnswerError> {
    let (mut pairs, mut chunks) = (Vec::new(), Vec::new());
    let mut fields = Fields::new("ChunkedSeries", message);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => pairs.push(label(value.bytes("Labels")?)?),
            2 => {
                let mut chunk = FoundChunk { min_ms: 0, max_ms: 0, encoding: 0, data: &[] };
                let mut fields = Fields::new("Chunk", value.bytes("Chunks")?);
                while let Some((field, value)) = fields.next()? {
                    match field {
                        1 => chunk.min_ms = value.varint("MinTimeMs")?.cast_signed(),
                        2 => chunk.max_ms = value.varint("MaxTimeMs")?.cast_signed(),
                        3 => chunk.encoding = u8::try_from(value.varint("Type")?).unwrap_or(u8::MAX),
                        4 => chunk.data = value.bytes("Data")?,
                        _ => {}
                    }
                }
                chunks.push(chunk);
            }
            _ => {}
        }
    }
    Ok(FoundSeries { labels: labels(pairs)?, chunks })
}
