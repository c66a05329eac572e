//! What is answered: samples in one message, or chunks in frames.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use crate::model::histogram::integer;
use crate::model::histogram::{CounterResetHint, FloatHistogram, Span};
use crate::model::labels::Labels;
use crate::model::read::SampleColumn;
use crate::remote::read::answer::FoundChunk;

/// Bytes of a number of 64 bits.
const VARINT_LEN_MAX: usize = 10;

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while 0x80 <= value {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A field with a whole number; nothing for 0, as proto3 has it.
pub(super) fn put_int(out: &mut Vec<u8>, field: u8, value: i64) {
    if value != 0 {
        put_varint(out, u64::from(field) << 3);
        put_varint(out, value.cast_unsigned());
    }
}

pub(super) fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    put_varint(out, u64::from(field) << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A field with a float that is written whatever it is.
fn put_double(out: &mut Vec<u8>, field: u8, value: f64) {
    put_varint(out, u64::from(field) << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

/// A field with a float; nothing for 0.
fn put_float(out: &mut Vec<u8>, field: u8, value: f64) {
    if value.to_bits() != 0 {
        put_double(out, field, value);
    }
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn put_packed(out: &mut Vec<u8>, field: u8, values: impl ExactSizeIterator<Item = u64>) {
    if values.len() == 0 {
        return;
    }
    let mut packed = Vec::with_capacity(values.len());
    values.for_each(|value| put_varint(&mut packed, value));
    put_bytes(out, field, &packed);
}

fn put_doubles(out: &mut Vec<u8>, field: u8, values: &[f64]) {
    if !values.is_empty() {
        let packed: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        put_bytes(out, field, &packed);
    }
}

/// Content of a message `Label`.
fn put_label(out: &mut Vec<u8>, name: &str, value: &str) {
    if !name.is_empty() {
        put_bytes(out, 1, name.as_bytes());
    }
    if !value.is_empty() {
        put_bytes(out, 2, value.as_bytes());
    }
}

/// The labels of a series as fields with the number 1, external ones among them where the series has none of that name.
fn labels_with(labels: &Labels, external: &Labels) -> Vec<u8> {
    let (mut out, mut one) = (Vec::with_capacity(labels.encoded_len() + external.encoded_len()), Vec::new());
    let mut own = labels.iter().peekable();
    let mut others = external.iter().filter(|(name, _)| !labels.contains(name)).peekable();
    loop {
        let takes_own = match (own.peek(), others.peek()) {
            (Some((own, _)), Some((other, _))) => own < other,
            (own, _) => own.is_some(),
        };
        let Some((name, value)) = (if takes_own { own.next() } else { others.next() }) else { return out };
        one.clear();
        put_label(&mut one, name, value);
        put_bytes(&mut out, 1, &one);
    }
}

/// Writes a `ReadResponse`, query by query.
#[derive(Debug, Default)]
pub struct SampledWriter {
    message: Vec<u8>,
    result: Vec<u8>,
}

impl SampledWriter {
    /// Adds a series to the result of the query that is under way.
    pub fn series(&mut self, labels: &Labels, external: &Labels, column: &SampleColumn) {
        let mut series = labels_with(labels, external);
        let mut one = Vec::new();
        for (t, value) in column.floats.timestamps.iter().zip(&column.floats.values) {
            one.clear();
            put_float(&mut one, 1, *value);
            put_int(&mut one, 2, *t);
            put_bytes(&mut series, 2, &one);
        }
        for (t, histogram) in column.histograms.timestamps.iter().zip(&column.histograms.values) {
            one.clear();
            put_histogram(&mut one, *t, histogram);
            put_bytes(&mut series, 4, &one);
        }
        put_bytes(&mut self.result, 1, &series);
    }

    /// Ends the result of a query.
    pub fn end_query(&mut self) {
        put_bytes(&mut self.message, 1, &self.result);
        self.result.clear();
    }

    /// Bytes so far.
    pub fn held_len(&self) -> usize {
        self.message.capacity() + self.result.capacity()
    }

    /// The packed body; `None` if it is too long to be packed.
    pub fn finish(self) -> Option<Vec<u8>> {
        snap::raw::Encoder::new().compress_vec(&self.message).ok()
    }
}

fn put_spans(out: &mut Vec<u8>, field: u8, spans: &[Span]) {
    for span in spans {
        let mut one = Vec::with_capacity(2 * VARINT_LEN_MAX);
        if span.offset != 0 {
            put_varint(&mut one, 1 << 3);
            put_varint(&mut one, zigzag(i64::from(span.offset)));
        }
        put_int(&mut one, 2, i64::from(span.length));
        put_bytes(out, field, &one);
    }
}

/// A histogram: with whole counts where all of them are whole, as such ones are stored.
fn put_histogram(out: &mut Vec<u8>, t: i64, float: &FloatHistogram) {
    match integer::Histogram::of_whole(float) {
        Some(whole) => {
            put_varint(out, 1 << 3);
            put_varint(out, whole.count);
            put_shape(out, float);
            put_varint(out, 6 << 3);
            put_varint(out, whole.zero_count);
            put_spans(out, 8, &whole.negative_spans);
            put_packed(out, 9, whole.negative_buckets.iter().map(|delta| zigzag(*delta)));
            put_spans(out, 11, &whole.positive_spans);
            put_packed(out, 12, whole.positive_buckets.iter().map(|delta| zigzag(*delta)));
        }
        None => {
            put_double(out, 2, float.count);
            put_shape(out, float);
            put_double(out, 7, float.zero_count);
            put_spans(out, 8, &float.negative_spans);
            put_doubles(out, 10, &float.negative_buckets);
            put_spans(out, 11, &float.positive_spans);
            put_doubles(out, 13, &float.positive_buckets);
        }
    }
    let hint = match float.counter_reset_hint {
        CounterResetHint::Unknown => 0,
        CounterResetHint::Reset => 1,
        CounterResetHint::NotReset => 2,
        CounterResetHint::Gauge => 3,
    };
    put_int(out, 14, hint);
    put_int(out, 15, t);
    put_doubles(out, 16, &float.custom_values);
}

/// Sum, schema and width of the zero bucket, which both kinds have between their counts.
fn put_shape(out: &mut Vec<u8>, float: &FloatHistogram) {
    put_float(out, 3, float.sum);
    if float.schema != 0 {
        put_varint(out, 4 << 3);
        put_varint(out, zigzag(i64::from(float.schema)));
    }
    put_float(out, 5, float.zero_threshold);
}

/// Chunks of one series on their way into frames.
#[derive(Debug)]
pub struct Frame {
    labels: Vec<u8>,
    chunks: Vec<u8>,
    query_index: i64,
    room: i64,
    left: i64,
}

impl Frame {
    /// Frames for a series; each is closed once its labels and chunks have `len_max` bytes.
    pub fn new(labels: &Labels, external: &Labels, query_index: usize, len_max: usize) -> Self {
        let labels = labels_with(labels, external);
        let signed = |len: usize| i64::try_from(len).unwrap_or(i64::MAX);
        let room = signed(len_max).saturating_sub(signed(labels.len()));
        Self { labels, chunks: Vec::new(), query_index: signed(query_index), room, left: room }
    }

    /// Adds a chunk, and appends a frame to `out` if it is full.
    pub fn chunk(&mut self, chunk: &FoundChunk<'_>, out: &mut Vec<u8>) {
        let before = self.chunks.len();
        let mut one = Vec::with_capacity(chunk.data.len() + 3 * VARINT_LEN_MAX);
        put_int(&mut one, 1, chunk.min_ms);
        put_int(&mut one, 2, chunk.max_ms);
        put_int(&mut one, 3, i64::from(chunk.encoding));
        put_bytes(&mut one, 4, chunk.data);
        put_bytes(&mut self.chunks, 2, &one);
        self.left = self.left.saturating_sub(i64::try_from(self.chunks.len() - before).unwrap_or(i64::MAX));
        if self.left <= 0 {
            self.close(out);
        }
    }

    /// Appends a frame with the chunks that are left, if there are any.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        if self.chunks.is_empty() {
            return;
        }
        let mut series = Vec::with_capacity(self.labels.len() + self.chunks.len());
        series.extend_from_slice(&self.labels);
        series.append(&mut self.chunks);
        let mut message = Vec::with_capacity(series.len() + 2 * VARINT_LEN_MAX);
        put_bytes(&mut message, 1, &series);
        put_int(&mut message, 2, self.query_index);
        put_varint(out, message.len() as u64);
        out.extend_from_slice(&crc32c::crc32c(&message).to_be_bytes());
        out.append(&mut message);
        self.left = self.room;
    }
}
