//! What records say. The first byte is the type, the rest depends on it; integers are big-endian, `varint` is zigzag.
//!
//! ```text
//! 1 series   { ref u64, n uvarint, n × (name, value) } …      strings: uvarint length, bytes
//! 2 samples  ref₀ u64, t₀ u64, { varint(ref − ref₀), varint(t − t₀), value u64 } …     the first counts as well
//! 11 samples with start times
//!           varint ref₀, varint t₀, varint st₀, value u64, { varint(ref − last ref), varint(t − t₀), start, value u64 } …
//! ```
//! Histograms, exemplars and metadata have files of their own (`histogram_record`, …). Other types of Prometheus are known by name and passed over.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use crate::model::append::HistogramValue;
use crate::model::labels::{Labels, LabelsBuilder};
use crate::model::sample::SeriesRef;
use crate::storage::head::StagedLate;
use crate::storage::head::shard::Staged;
use crate::storage::wal::exemplar_record::encode_exemplars;
use crate::storage::wal::held::Held;
use crate::storage::wal::histogram_record::{encode_histograms, encode_started_histograms};
use crate::storage::wal::metadata_record::encode_metadata;
use crate::storage::wal::start_record::{Starting, put_start, take_start};

const SERIES: u8 = 1;
const SAMPLES: u8 = 2;
const SAMPLES_WITH_STARTS: u8 = 11;

/// Bytes after which records with many entries are ended and another begun.
pub const RECORD_LEN_TARGET: usize = 1 << 20;
/// Longest record that is read, before and after decompression: far above what any writer makes.
pub const RECORD_LEN_MAX: usize = 256 << 20;

/// Bytes that a sample takes in a record without start times: two for its series, one for its time.
const USUAL_SAMPLE_LEN: usize = 11;

/// A record's bytes, before compression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    bytes: Vec<u8>,
    held: Held,
}

impl Record {
    /// Type byte and content.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A record that holds neither samples nor names nor deletions.
    pub(crate) fn from_bytes(bytes: Vec<u8>) -> Self {
        Self::holding(Held::default(), bytes)
    }

    /// A record that holds this.
    pub(crate) fn holding(held: Held, bytes: Vec<u8>) -> Self {
        Self { bytes, held }
    }

    /// What it holds.
    pub(crate) fn held(&self) -> Held {
        self.held
    }
}

/// A series as the log names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefSeries {
    /// The reference that samples use.
    pub series: SeriesRef,
    /// Its labels.
    pub labels: Labels,
}

/// A sample as the log names it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RefSample {
    /// The series.
    pub series: SeriesRef,
    /// Milliseconds since the epoch.
    pub t: i64,
    /// The value, bit by bit.
    pub value: f64,
}

/// What a record's first byte says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKind {
    /// References and labels.
    Series,
    /// Float samples.
    Samples,
    /// Deleted ranges.
    Tombstones,
    /// Exemplars.
    Exemplars,
    /// Places of chunks, in the log of late samples.
    MmapMarkers,
    /// Type, unit and help of metrics.
    Metadata,
    /// Native histograms in any of their encodings.
    Histograms,
    /// Float samples with start times.
    SamplesV2,
    /// None that we know.
    Unknown,
}

impl RecordKind {
    /// The kind of a record's bytes.
    pub fn of(bytes: &[u8]) -> Self {
        match bytes.first() {
            Some(1) => Self::Series,
            Some(2) => Self::Samples,
            Some(3) => Self::Tombstones,
            Some(4) => Self::Exemplars,
            Some(5) => Self::MmapMarkers,
            Some(6) => Self::Metadata,
            Some(7..=10 | 12 | 13) => Self::Histograms,
            Some(11) => Self::SamplesV2,
            _ => Self::Unknown,
        }
    }

    /// Its name in reports and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Series => "series",
            Self::Samples => "samples",
            Self::Tombstones => "tombstones",
            Self::Exemplars => "exemplars",
            Self::MmapMarkers => "mmapmarkers",
            Self::Metadata => "metadata",
            Self::Histograms => "histograms",
            Self::SamplesV2 => "samples_v2",
            Self::Unknown => "unknown",
        }
    }
}

/// True for a record of samples that have start times.
pub(super) fn has_start_times(bytes: &[u8]) -> bool {
    matches!(bytes.first(), Some(11..=13))
}

/// Why a record with a right checksum cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It ends too early, or a number or length in it is out of range.
    #[error("the {kind} record is malformed")]
    Malformed {
        /// Its kind.
        kind: &'static str,
    },
    /// A label is not UTF-8.
    #[error("a label is not valid UTF-8")]
    NotUtf8,
    /// Its data cannot be decompressed.
    #[error("the record cannot be decompressed")]
    Compression,
}

/// Encodes series, in one record or in several of about [`RECORD_LEN_TARGET`] bytes.
pub fn encode_series<'a>(series: impl IntoIterator<Item = (SeriesRef, &'a Labels)>, out: &mut Vec<Record>) {
    let (mut bytes, mut count) = (Vec::new(), 0);
    let mut end = |bytes: &mut Vec<u8>, count: &mut usize| {
        out.push(Record::holding(Held::of_series(std::mem::take(count)), std::mem::take(bytes)));
    };
    for (reference, labels) in series {
        if bytes.is_empty() {
            bytes.push(SERIES);
        }
        count += 1;
        bytes.extend_from_slice(&reference.0.to_be_bytes());
        put_uvarint(labels.len() as u64, &mut bytes);
        for (name, value) in labels {
            for text in [name, value] {
                put_str(text, &mut bytes);
            }
        }
        if RECORD_LEN_TARGET <= bytes.len() {
            end(&mut bytes, &mut count);
        }
    }
    if !bytes.is_empty() {
        end(&mut bytes, &mut count);
    }
}

/// Encodes samples, in one record or in several of about [`RECORD_LEN_TARGET`] bytes.
pub fn encode_samples(samples: impl IntoIterator<Item = RefSample>, out: &mut Vec<Record>) {
    encode_many_samples(samples, 0, out);
}

/// The same, with room for `expected` samples from the beginning.
fn encode_many_samples(samples: impl IntoIterator<Item = RefSample>, expected: usize, out: &mut Vec<Record>) {
    let (mut bytes, mut held) = (Vec::new(), Held::default());
    let mut base = (0, 0);
    for sample in samples {
        if bytes.is_empty() {
            // Of neighbours the reference takes two bytes, and an equal time one.
            bytes.reserve(expected.saturating_mul(12).min(RECORD_LEN_TARGET));
            base = (sample.series.0, sample.t);
            bytes.push(SAMPLES);
            bytes.extend_from_slice(&base.0.to_be_bytes());
            bytes.extend_from_slice(&base.1.to_be_bytes());
        }
        put_sample((sample.series.0.wrapping_sub(base.0), sample.t.wrapping_sub(base.1), sample.value), &mut bytes);
        held.sample(sample.t);
        if RECORD_LEN_TARGET <= bytes.len() {
            out.push(Record::holding(std::mem::take(&mut held), std::mem::take(&mut bytes)));
        }
    }
    if !bytes.is_empty() {
        out.push(Record::holding(held, bytes));
    }
}

/// Appends a sample by what its reference and its time are more than the first ones. Of a scrape they take two bytes and one.
#[inline]
fn put_sample((series, t, value): (u64, i64, f64), bytes: &mut Vec<u8>) {
    let (series, t) = (zigzag(series.cast_signed()), zigzag(t));
    let [v0, v1, v2, v3, v4, v5, v6, v7] = value.to_bits().to_be_bytes();
    if series < 1 << 14 && t < 1 << 7 {
        let (low, high, t) = (series as u8 & 0x7f, (series >> 7) as u8, t as u8);
        if high == 0 {
            bytes.extend_from_slice(&[low, t, v0, v1, v2, v3, v4, v5, v6, v7]);
        } else {
            bytes.extend_from_slice(&[low | 0x80, high, t, v0, v1, v2, v3, v4, v5, v6, v7]);
        }
        return;
    }
    put_uvarint(series, bytes);
    put_uvarint(t, bytes);
    bytes.extend_from_slice(&[v0, v1, v2, v3, v4, v5, v6, v7]);
}

/// The records of a commit, by log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogRecords {
    /// Of the write-ahead log.
    pub wal: Vec<Record>,
    /// Of the log of samples that came out of order, to be written after those.
    pub late: Vec<Record>,
}

impl LogRecords {
    /// The records of staged slices.
    pub fn of_staged(staged: &[&Staged]) -> Self {
        let late = || staged.iter().flat_map(|s| s.late());
        let mut records = Self { wal: encode_staged(staged), late: Vec::new() };
        if staged.iter().any(|s| s.starts().is_some()) {
            encode_started_samples(late().filter_map(started_late_sample), &mut records.late);
            encode_started_histograms(late().filter_map(started_late_histogram), &mut records.late);
        } else {
            encode_samples(late().filter_map(late_sample), &mut records.late);
            encode_histograms(late().filter_map(|l| Some((l.series, l.t, l.histogram()?))), &mut records.late);
        }
        records
    }

    /// True if there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.wal.is_empty() && self.late.is_empty()
    }

    /// Bytes of the records.
    pub fn len(&self) -> usize {
        self.wal.iter().chain(&self.late).map(|record| record.as_bytes().len()).sum()
    }
}

impl From<Vec<Record>> for LogRecords {
    fn from(wal: Vec<Record>) -> Self {
        Self { wal, late: Vec::new() }
    }
}

fn late_sample(late: &StagedLate) -> Option<RefSample> {
    late.float().map(|value| RefSample { series: late.series, t: late.t, value })
}

fn started_late_sample(late: &StagedLate) -> Option<(RefSample, i64)> {
    Some((late_sample(late)?, late.start))
}

fn started_late_histogram(late: &StagedLate) -> Option<(SeriesRef, i64, i64, &HistogramValue)> {
    Some((late.series, late.t, late.start, late.histogram()?))
}

/// The records of staged slices for the write-ahead log: all their series before all that refers to them,
/// exemplars last.
/// What came out of order stands there as well, behind the rest of its kind, as in Prometheus: for those who follow the log.
pub fn encode_staged(staged: &[&Staged]) -> Vec<Record> {
    let mut records = Vec::new();
    encode_series(staged.iter().flat_map(|s| s.new_series()).map(|new| (new.series, &new.labels)), &mut records);
    encode_metadata(staged.iter().flat_map(|s| s.metadata()).map(|m| (m.series, &*m.metadata)), &mut records);
    let late = || staged.iter().flat_map(|s| s.late());
    if staged.iter().any(|s| s.starts().is_some()) {
        encode_started(staged, &mut records);
    } else {
        let samples = staged.iter().flat_map(|s| s.samples());
        let samples = samples.map(|s| RefSample { series: s.series, t: s.t, value: s.value });
        let expected = staged.iter().map(|s| s.samples().len()).sum();
        encode_many_samples(samples.chain(late().filter_map(late_sample)), expected, &mut records);
        let histograms = staged.iter().flat_map(|s| s.histograms()).map(|h| (h.series, h.t, &h.value));
        let late = late().filter_map(|late| Some((late.series, late.t, late.histogram()?)));
        encode_histograms(histograms.chain(late), &mut records);
    }
    encode_exemplars(staged.iter().flat_map(|s| s.exemplars()).map(|e| (e.series, &e.exemplar)), &mut records);
    records
}

/// The records of samples and histograms with their start times.
fn encode_started(staged: &[&Staged], records: &mut Vec<Record>) {
    let (mut samples, mut histograms) = (Vec::new(), Vec::new());
    for part in staged {
        let (sample_starts, histogram_starts) = part.starts().unwrap_or_default();
        let start_of = |starts: &[(u32, i64)], at: u32| {
            let found = starts.binary_search_by_key(&at, |(at, _)| *at).ok();
            found.and_then(|found| starts.get(found)).map_or(0, |(_, start)| *start)
        };
        for (at, s) in (0..).zip(part.samples()) {
            let sample = RefSample { series: s.series, t: s.t, value: s.value };
            samples.push((sample, start_of(sample_starts, at)));
        }
        for (at, h) in (0..).zip(part.histograms()) {
            histograms.push((h.series, h.t, start_of(histogram_starts, at), &h.value));
        }
    }
    let late = || staged.iter().flat_map(|s| s.late());
    samples.extend(late().filter_map(started_late_sample));
    histograms.extend(late().filter_map(started_late_histogram));
    encode_started_samples(samples, records);
    encode_started_histograms(histograms, records);
}

/// Encodes samples with their start times, in one record or in several of about [`RECORD_LEN_TARGET`] bytes.
pub fn encode_started_samples(samples: impl IntoIterator<Item = (RefSample, i64)>, out: &mut Vec<Record>) {
    let (mut bytes, mut held) = (Vec::new(), Held::default());
    let mut at = Starting::default();
    for (sample, start) in samples {
        let is_first = bytes.is_empty();
        if is_first {
            bytes.push(SAMPLES_WITH_STARTS);
        }
        put_start(&mut at, is_first, (sample.series.0, sample.t, start), &mut bytes);
        bytes.extend_from_slice(&sample.value.to_bits().to_be_bytes());
        held.sample(sample.t);
        if RECORD_LEN_TARGET <= bytes.len() {
            out.push(Record::holding(std::mem::take(&mut held), std::mem::take(&mut bytes)));
        }
    }
    if !bytes.is_empty() {
        out.push(Record::holding(held, bytes));
    }
}

/// Appends the series of a series record to `out`, which on an error is as before.
pub fn decode_series(bytes: &[u8], out: &mut Vec<RefSeries>) -> Result<(), RecordError> {
    let before = out.len();
    let done = read_series(bytes, out);
    if done.is_err() {
        out.truncate(before);
    }
    done
}

fn read_series(bytes: &[u8], out: &mut Vec<RefSeries>) -> Result<(), RecordError> {
    const MALFORMED: RecordError = RecordError::Malformed { kind: "series" };
    let mut rest = bytes.strip_prefix(&[SERIES]).ok_or(MALFORMED)?;
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    while !rest.is_empty() {
        let series = SeriesRef(take_u64(&mut rest).ok_or(MALFORMED)?);
        let count = take_uvarint(&mut rest).ok_or(MALFORMED)?;
        pairs.clear();
        for _ in 0..count {
            // A count that is too high ends here at the latest, as each label takes bytes.
            let name = take_str(&mut rest).ok_or(MALFORMED)?;
            let value = take_str(&mut rest).ok_or(MALFORMED)?;
            let text = |raw| std::str::from_utf8(raw).map_err(|_| RecordError::NotUtf8);
            pairs.push((text(name)?, text(value)?));
        }
        out.push(RefSeries { series, labels: labels_of(&pairs) });
    }
    Ok(())
}

fn labels_of(pairs: &[(&str, &str)]) -> Labels {
    let sorted = pairs.is_sorted_by(|a, b| a.0 < b.0) && pairs.iter().all(|(_, value)| !value.is_empty());
    if sorted {
        return Labels::from_sorted(pairs.iter().copied());
    }
    let mut builder = LabelsBuilder::new();
    for (name, value) in pairs {
        builder.set(name, value);
    }
    builder.build()
}

/// Appends the samples of a samples record, with or without start times, to `out`, which on an error is as before.
pub fn decode_samples(bytes: &[u8], out: &mut Vec<RefSample>) -> Result<(), RecordError> {
    decode_started_samples(bytes, out, &mut Vec::new()).map(|_| ())
}

/// The same, with the start of each sample in `starts` if the record has them. Returns the largest reference.
pub fn decode_started_samples(
    bytes: &[u8],
    out: &mut Vec<RefSample>,
    starts: &mut Vec<i64>,
) -> Result<SeriesRef, RecordError> {
    let before = out.len();
    let largest = read_samples(bytes, out, starts);
    if largest.is_none() {
        out.truncate(before);
    }
    largest.map(SeriesRef).ok_or(RecordError::Malformed { kind: "samples" })
}

/// The largest reference.
fn read_samples(bytes: &[u8], out: &mut Vec<RefSample>, starts: &mut Vec<i64>) -> Option<u64> {
    if bytes.first() == Some(&SAMPLES_WITH_STARTS) {
        return read_samples_with_starts(bytes, out, starts);
    }
    let (mut rest, mut largest) = (bytes.strip_prefix(&[SAMPLES])?, 0);
    if rest.is_empty() {
        return Some(largest);
    }
    let (base_ref, base_t) = (take_u64(&mut rest)?, take_u64(&mut rest)?.cast_signed());
    out.reserve(rest.len() / USUAL_SAMPLE_LEN);
    while !rest.is_empty() {
        let series = SeriesRef(base_ref.wrapping_add(take_short_varint(&mut rest)?.cast_unsigned()));
        let t = base_t.wrapping_add(take_short_varint(&mut rest)?);
        let value = f64::from_bits(take_u64(&mut rest)?);
        out.push(RefSample { series, t, value });
        largest = series.0.max(largest);
    }
    Some(largest)
}

fn read_samples_with_starts(bytes: &[u8], out: &mut Vec<RefSample>, starts: &mut Vec<i64>) -> Option<u64> {
    let mut rest = bytes.strip_prefix(&[SAMPLES_WITH_STARTS])?;
    let mut at = Starting::default();
    let (mut is_first, mut largest) = (true, 0);
    while !rest.is_empty() {
        let (series, t, start) = take_start(&mut at, is_first, &mut rest)?;
        is_first = false;
        largest = series.max(largest);
        out.push(RefSample { series: SeriesRef(series), t, value: f64::from_bits(take_u64(&mut rest)?) });
        starts.push(start);
    }
    Some(largest)
}

/// Appends a label set: the number of labels, names and values.
pub(crate) fn put_labels(labels: &Labels, out: &mut Vec<u8>) {
    put_uvarint(labels.len() as u64, out);
    for text in labels.iter().flat_map(|(name, value)| [name, value]) {
        put_uvarint(text.len() as u64, out);
        out.extend_from_slice(text.as_bytes());
    }
}

/// Takes a label set.
pub(crate) fn labels_from(rest: &mut &[u8]) -> Result<Labels, RecordError> {
    const MALFORMED: RecordError = RecordError::Malformed { kind: "labels" };
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    for _ in 0..take_uvarint(rest).ok_or(MALFORMED)? {
        // A count that is too high ends here at the latest, as each label takes bytes.
        let (name, value) = take_bytes(rest).zip(take_bytes(rest)).ok_or(MALFORMED)?;
        let text = |raw| std::str::from_utf8(raw).map_err(|_| RecordError::NotUtf8);
        pairs.push((text(name)?, text(value)?));
    }
    Ok(labels_of(&pairs))
}

pub(crate) fn put_uvarint(mut n: u64, out: &mut Vec<u8>) {
    while 0x80 <= n {
        // The low seven bits, with the mark that more follow.
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

pub(crate) fn put_varint(n: i64, out: &mut Vec<u8>) {
    put_uvarint(zigzag(n), out);
}

fn zigzag(n: i64) -> u64 {
    (n << 1 ^ n >> 63).cast_unsigned()
}

pub(crate) fn take_u64(rest: &mut &[u8]) -> Option<u64> {
    let (raw, after) = rest.split_first_chunk::<8>()?;
    *rest = after;
    Some(u64::from_be_bytes(*raw))
}

#[inline]
pub(crate) fn take_uvarint(rest: &mut &[u8]) -> Option<u64> {
    let mut n = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && 1 < bits {
            return None;
        }
        n |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(n);
        }
    }
    None
}

#[inline]
pub(crate) fn take_varint(rest: &mut &[u8]) -> Option<i64> {
    let n = take_uvarint(rest)?;
    Some((n >> 1).cast_signed() ^ -(n & 1).cast_signed())
}

/// The same, where one or two bytes are usual.
#[inline]
fn take_short_varint(rest: &mut &[u8]) -> Option<i64> {
    let n = match **rest {
        [a, ref after @ ..] if a < 0x80 => {
            *rest = after;
            u64::from(a)
        }
        [a, b, ref after @ ..] if b < 0x80 => {
            *rest = after;
            u64::from(a & 0x7f) | u64::from(b) << 7
        }
        _ => return take_varint(rest),
    };
    Some((n >> 1).cast_signed() ^ -(n & 1).cast_signed())
}

/// Bytes behind their length.
pub(crate) fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    take_str(rest)
}

pub(super) fn put_str(text: &str, out: &mut Vec<u8>) {
    put_uvarint(text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

pub(super) fn take_str<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(take_uvarint(rest)?).ok()?;
    let (text, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(text)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn sample() -> impl Strategy<Value = RefSample> {
        (any::<u64>(), any::<i64>(), any::<u64>()).prop_map(|(r, t, v)| RefSample {
            series: SeriesRef(r),
            t,
            value: f64::from_bits(v),
        })
    }

    proptest! {
        #[test]
        fn samples_round_trip(samples in vec(sample(), 0..50)) {
            let (mut records, mut back) = (Vec::new(), Vec::new());
            encode_samples(samples.iter().copied(), &mut records);
            for record in &records {
                decode_samples(record.as_bytes(), &mut back).unwrap();
            }
            let bits = |s: &RefSample| (s.series, s.t, s.value.to_bits());
            prop_assert!(back.iter().map(bits).eq(samples.iter().map(bits)));
        }

        #[test]
        fn started_samples_round_trip(samples in vec((sample(), prop_oneof![Just(0i64), Just(7), any::<i64>()]), 0..50)) {
            let (mut records, mut back, mut starts) = (Vec::new(), Vec::new(), Vec::new());
            encode_started_samples(samples.iter().copied(), &mut records);
            for record in &records {
                decode_started_samples(record.as_bytes(), &mut back, &mut starts).unwrap();
            }
            let bits = |s: &RefSample| (s.series, s.t, s.value.to_bits());
            prop_assert!(back.iter().map(bits).eq(samples.iter().map(|(s, _)| bits(s))));
            prop_assert!(starts.iter().eq(samples.iter().map(|(_, start)| start)));
        }

        #[test]
        fn series_round_trip(series in vec((any::<u64>(), vec(("[a-z]{1,5}", "\\PC{1,300}"), 0..5)), 0..20)) {
            let series: Vec<_> = series.into_iter().map(|(r, pairs)| (SeriesRef(r), Labels::from_pairs(pairs))).collect();
            let (mut records, mut back) = (Vec::new(), Vec::new());
            encode_series(series.iter().map(|(r, l)| (*r, l)), &mut records);
            for record in &records {
                decode_series(record.as_bytes(), &mut back).unwrap();
            }
            prop_assert!(back.iter().map(|s| (s.series, &s.labels)).eq(series.iter().map(|(r, l)| (*r, l))));
        }

        #[test]
        fn decoders_never_panic(mut bytes in vec(any::<u8>(), 0..200)) {
            for kind in [SERIES, SAMPLES, SAMPLES_WITH_STARTS] {
                bytes.insert(0, kind);
                let (mut series, mut samples) = (Vec::new(), Vec::new());
                let done = (decode_series(&bytes, &mut series), decode_samples(&bytes, &mut samples));
                prop_assert!(done.0.is_ok() || series.is_empty());
                prop_assert!(done.1.is_ok() || samples.is_empty());
            }
        }
    }

    #[test]
    fn records_have_the_bytes_of_the_format() {
        let mut records = Vec::new();
        encode_series([(SeriesRef(258), &Labels::from_pairs([("a", "bc")]))], &mut records);
        let samples = [(258, 1000, 1.0), (257, 1063, 0.0)];
        let samples = samples.map(|(r, t, value)| RefSample { series: SeriesRef(r), t, value });
        encode_samples(samples, &mut records);
        assert_eq!(records[0].as_bytes(), [1, 0, 0, 0, 0, 0, 0, 1, 2, 1, 1, b'a', 2, b'b', b'c']);
        let expected = [
            &[2, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0x03, 0xe8][..],
            &[0, 0, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0],
            &[1, 126, 0, 0, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(records[1].as_bytes(), expected.concat());
    }

    #[test]
    fn long_lists_become_several_records() {
        let mut records = Vec::new();
        encode_samples((0..200_000).map(|i| RefSample { series: SeriesRef(i), t: 5, value: 1.0 }), &mut records);
        assert!(1 < records.len() && records.iter().all(|r| r.as_bytes().len() < RECORD_LEN_TARGET + 100));
        let mut back = Vec::new();
        records.iter().for_each(|r| decode_samples(r.as_bytes(), &mut back).unwrap());
        assert_eq!((back.len(), back[199_999].series), (200_000, SeriesRef(199_999)));
    }
}
