//! Series on their way out of the head as they are, and back into it: whole chunks, nothing is encoded anew.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::append::HistogramValue;
use crate::model::exemplar::Exemplar;
use crate::model::histogram::{FloatHistogram, Histogram};
use crate::model::labels::Labels;
use crate::model::read::ReadError;
use crate::model::sample::SeriesRef;
use crate::storage::chunk::cut::CutRules;
use crate::storage::chunk::decode::ChunkDecoder;
use crate::storage::chunk::sealed::SealedChunks;
use crate::storage::chunk::words::OpenWords;
use crate::storage::chunk::xor::XorEncoder;
use crate::storage::chunk::{ChunkError, Encoding};
use crate::storage::head::Head;
use crate::storage::head::column::{Column, SeriesCell};
use crate::storage::head::commit::CommitId;
use crate::storage::head::native::NativeWriter;
use crate::storage::head::series::{Encoder, RunCounts, WriterSeries};
use crate::storage::head::view::HeadView;
use crate::storage::wal::exemplar_record::encode_exemplars;
use crate::storage::wal::record::Record;
use crate::storage::wal::tombstone_record::{RefTombstone, encode_tombstones};

/// A chunk with the times of its first and last sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkImage {
    /// Time of its first sample.
    pub min_t: i64,
    /// Time of its last sample.
    pub max_t: i64,
    /// How it is encoded.
    pub encoding: Encoding,
    /// The chunk as in files.
    pub data: Vec<u8>,
}

impl ChunkImage {
    fn sample_count(&self) -> u16 {
        self.data.first_chunk().map_or(0, |raw| u16::from_be_bytes(*raw))
    }
}

/// The newest chunk of a series.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenImage {
    /// The chunk as it is by now.
    pub chunk: ChunkImage,
    /// Its last sample.
    pub last: LastSample,
}

/// A sample without its time.
#[derive(Clone, Debug, PartialEq)]
pub enum LastSample {
    /// Bits of a float.
    Float(u64),
    /// A histogram.
    Histogram(HistogramValue),
}

impl OpenImage {
    /// Decodes a chunk for its last sample.
    pub fn of(encoding: Encoding, data: Vec<u8>) -> Result<Self, ChunkError> {
        let (mut range, mut last) = (None, None);
        for_each_sample(encoding, &data, &mut |t, sample| {
            range = Some((range.map_or(t, |(min_t, _)| min_t), t));
            last = Some(sample);
        })?;
        let ((min_t, max_t), last) = range.zip(last).ok_or(ChunkError::Truncated { samples: 0 })?;
        Ok(Self { chunk: ChunkImage { min_t, max_t, encoding, data }, last })
    }
}

fn for_each_sample(encoding: Encoding, data: &[u8], take: &mut dyn FnMut(i64, LastSample)) -> Result<(), ChunkError> {
    match ChunkDecoder::of_chunk(encoding, data)? {
        ChunkDecoder::Floats(mut decoder) => {
            while let Some((t, value)) = decoder.next_sample()? {
                take(t, LastSample::Float(value.to_bits()));
            }
        }
        ChunkDecoder::StartedFloats(mut decoder) => {
            while let Some(sample) = decoder.next_sample()? {
                take(sample.t, LastSample::Float(sample.value.to_bits()));
            }
        }
        ChunkDecoder::Histograms(mut decoder) => {
            while let Some(t) = decoder.advance()? {
                let value: Histogram = decoder.histogram();
                take(t, LastSample::Histogram(value.into()));
            }
        }
        ChunkDecoder::FloatHistograms(mut decoder) => {
            while let Some(t) = decoder.advance()? {
                let value: FloatHistogram = decoder.histogram();
                take(t, LastSample::Histogram(value.into()));
            }
        }
    }
    Ok(())
}

/// What a series is to begin with: chunks in the order of their times.
#[derive(Debug, Default)]
pub(crate) struct Adoption {
    /// Finished chunks.
    pub(crate) sealed: Vec<ChunkImage>,
    /// The chunk that was open. One that a finished chunk reaches into is left out: it was finished afterwards.
    pub(crate) open: Option<OpenImage>,
}

impl Adoption {
    /// Bytes of all chunks.
    pub(crate) fn data_len(&self) -> usize {
        self.sealed.iter().chain(self.open.as_ref().map(|open| &open.chunk)).map(|chunk| chunk.data.len()).sum()
    }
}

impl WriterSeries {
    /// Takes chunks over, to be followed by a new one. False if they do not fit each other or cannot be read: those before are
    /// kept.
    pub(crate) fn adopt(&mut self, from: Adoption, rules: &CutRules, counts: &mut RunCounts) -> bool {
        let mut fits = true;
        let mut sealed: Vec<ChunkImage> = Vec::with_capacity(from.sealed.len());
        for chunk in from.sealed {
            if chunk.max_t < chunk.min_t || sealed.last().is_some_and(|before| chunk.min_t <= before.max_t) {
                fits = false;
                break;
            }
            sealed.push(chunk);
        }
        let open = from.open.filter(|open| fits && sealed.last().is_none_or(|last| last.max_t < open.chunk.min_t));
        if self.column().is_some() {
            // Its other reference had samples already: what is newer follows one by one.
            let chunks = sealed.iter().chain(open.as_ref().map(|open| &open.chunk));
            return chunks.fold(fits, |fits, chunk| fits & self.adopt_samples(chunk, rules, counts));
        }
        let newest = match open {
            Some(open) => open,
            None => {
                let Some(last) = sealed.pop() else { return fits };
                match OpenImage::of(last.encoding, last.data) {
                    Ok(newest) => newest,
                    // What the chunks before hold comes back from the log.
                    Err(_) => return false,
                }
            }
        };
        for chunk in sealed.iter().chain([&newest.chunk]) {
            counts.appended += u64::from(chunk.sample_count());
            counts.chunks += 1;
            counts.oldest = counts.oldest.min(chunk.min_t);
        }
        let chunk = &newest.chunk;
        let encoder = match newest.last {
            LastSample::Float(bits) => Encoder::Float(XorEncoder::ended(chunk.max_t, bits)),
            LastSample::Histogram(value) => Encoder::Native(NativeWriter::ended(chunk.max_t, &value)),
        };
        let of_sealed = (!sealed.is_empty())
            .then(|| Arc::new(SealedChunks::of(sealed.iter().map(|chunk| (chunk.encoding, chunk.data.as_slice())))));
        let words = OpenWords::of_chunk(&chunk.data);
        let column = Column::whole((words, chunk.encoding), chunk.max_t, of_sealed);
        self.begin_with(column, encoder, (chunk.min_t, chunk.max_t));
        fits
    }

    fn adopt_samples(&mut self, chunk: &ChunkImage, rules: &CutRules, counts: &mut RunCounts) -> bool {
        let all = CommitId(0);
        let read = for_each_sample(chunk.encoding, &chunk.data, &mut |t, sample| {
            let appended = match sample {
                LastSample::Float(bits) => self.append(t, f64::from_bits(bits), all, all, rules),
                LastSample::Histogram(value) => self.append_histogram(t, &value, all, all, rules),
            };
            counts.add(t, appended);
        });
        read.is_ok()
    }
}

/// A series as the head holds it.
pub struct SeriesImage<'a> {
    /// Its reference.
    pub series: SeriesRef,
    /// Its labels.
    pub labels: Labels,
    cell: &'a SeriesCell,
}

impl SeriesImage<'_> {
    /// Its chunks: calls `sealed` with the encoding and bytes of each finished one, oldest first; returns the newest.
    pub fn chunks(&self, sealed: &mut dyn FnMut(Encoding, &[u8])) -> Result<Option<OpenImage>, ReadError> {
        let mut newest: Option<(Encoding, Vec<u8>)> = None;
        let chunks = self.cell.for_each_chunk(&mut |encoding, data| {
            if let Some((encoding, data)) = newest.replace((encoding, data.to_vec())) {
                sealed(encoding, &data);
            }
            Ok(())
        });
        let open = chunks.and_then(|()| newest.map(|(encoding, data)| OpenImage::of(encoding, data)).transpose());
        open.map_err(|error| ReadError::Corrupt(format!("head chunk of series {}: {error}", self.series.0)))
    }
}

impl Head {
    /// Calls `take` with each series of a head that nobody writes meanwhile, until it errs. Errors as well when a shard is not
    /// available.
    pub fn for_each_series<E: From<ReadError>>(
        &self,
        mut take: impl FnMut(SeriesImage<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        // What the log has is in the head.
        self.shards().iter().for_each(|shard| shard.tidy());
        let view = HeadView::open(&self.shared, self.shards());
        for mut place in view.first_places() {
            while let Some((labels, cell)) = view.labels_at(&place).zip(view.cell_at(&place)) {
                if !cell.is_gone() {
                    take(SeriesImage { series: cell.series(), labels, cell })?;
                }
                place = place.next();
            }
        }
        view.check()?;
        Ok(())
    }

    /// Records that say what is deleted and which exemplars there are, oldest first, as the log has them.
    pub fn other_records(&self) -> Result<Vec<Record>, ReadError> {
        let mut records = Vec::new();
        let deleted = self.shared.deleted.load();
        let ranges = deleted.iter().map(|(series, interval)| RefTombstone { series: SeriesRef(series), interval });
        encode_tombstones(ranges, &mut records);
        let held = self.exemplars().select(&[Vec::new()], i64::MIN, i64::MAX);
        if held.is_empty() {
            return Ok(records);
        }
        let mut wanted: HashMap<Labels, Vec<Exemplar>> =
            held.into_iter().map(|found| (found.series, found.exemplars)).collect();
        let mut found: Vec<(SeriesRef, Exemplar)> = Vec::new();
        self.for_each_series(|series| {
            let exemplars = wanted.remove(&series.labels).unwrap_or_default();
            found.extend(exemplars.into_iter().map(|exemplar| (series.series, exemplar)));
            Ok::<(), ReadError>(())
        })?;
        found.sort_by_key(|(_, exemplar)| exemplar.at);
        encode_exemplars(found.iter().map(|(series, exemplar)| (*series, exemplar)), &mut records);
        Ok(records)
    }

    /// Throws away all that was restored, to begin anew.
    pub fn forget_restored(&self, reason: &str) {
        for shard in self.shards() {
            shard.begin_rebuild(reason);
            shard.set_state(crate::storage::head::shard::ShardState::Ready);
        }
    }
}
