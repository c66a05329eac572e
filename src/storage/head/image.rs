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
use crate::storage::chunk::written::{WrittenChunk, WrittenList};
use crate::storage::chunk::xor::XorEncoder;
use crate::storage::chunk::{ChunkError, Encoding};
use crate::storage::head::Head;
use crate::storage::head::column::{Column, SeriesCell};
use crate::storage::head::commit::CommitId;
use crate::storage::head::native::NativeWriter;
use crate::storage::head::series::{Encoder, RunCounts, WriterSeries};
use crate::storage::head::view::HeadView;
use crate::storage::head_chunk_store::FileSet;
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
    pub(crate) fn sample_count(&self) -> u16 {
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
    /// True if it is the chunk that the file says.
    fn is(&self, chunk: &WrittenChunk) -> bool {
        let own = (self.chunk.min_t, self.chunk.max_t, self.chunk.sample_count(), self.chunk.encoding);
        own == (chunk.min_t, chunk.max_t, chunk.samples, chunk.encoding)
    }

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

/// Finished chunks of a series, as files have them.
#[derive(Debug, Default)]
pub(crate) struct FileChunks {
    before: WrittenList,
    last: Option<WrittenChunk>,
    /// One did not follow the one before it; those from there on are left out.
    has_misfit: bool,
}

impl FileChunks {
    /// Chunks that follow each other, before one that did not if there was such a one.
    pub(crate) fn of(chunks: &[WrittenChunk], has_misfit: bool) -> Self {
        let mut all = Self::default();
        chunks.iter().for_each(|chunk| all.push(*chunk));
        all.has_misfit |= has_misfit;
        all
    }

    /// Adds a chunk.
    pub(crate) fn push(&mut self, chunk: WrittenChunk) {
        let fits = !self.has_misfit && chunk.min_t <= chunk.max_t;
        let follows =
            |last: &WrittenChunk| last.place < chunk.place && last.max_t < chunk.min_t && self.before.push(last);
        if fits && self.last.as_ref().is_none_or(follows) {
            self.last = Some(chunk);
        } else {
            self.has_misfit = true;
        }
    }

    fn iter(&self) -> impl Iterator<Item = WrittenChunk> + '_ {
        self.before.iter().chain(self.last)
    }

    /// Numbers of the first and the last file; `None` without chunks.
    pub(crate) fn files(&self) -> Option<(u64, u64)> {
        let last = self.last.as_ref()?.place.file();
        Some((self.before.files().map_or(last, |(first, _)| first), last))
    }

    /// Time of the last sample; `None` without chunks.
    pub(crate) fn max_t(&self) -> Option<i64> {
        self.last.as_ref().map(|last| last.max_t)
    }

    /// Samples in all chunks.
    pub(crate) fn samples(&self) -> u64 {
        u64::from(self.before.samples()) + self.last.as_ref().map_or(0, |last| u64::from(last.samples))
    }
}

/// What a series is to begin with: chunks in the order of their times.
#[derive(Debug, Default)]
pub(crate) struct Adoption {
    /// Finished chunks, with their files.
    pub(crate) sealed: Option<(FileChunks, Arc<FileSet>)>,
    /// The chunk that was open. One that a finished chunk reaches into is left out: it was finished afterwards.
    pub(crate) open: Option<OpenImage>,
}

impl Adoption {
    /// Time of the last sample.
    pub(crate) fn max_t(&self) -> Option<i64> {
        let of_files = self.sealed.as_ref().and_then(|(chunks, _)| chunks.max_t());
        of_files.max(self.open.as_ref().map(|open| open.chunk.max_t))
    }

    /// Bytes that it takes.
    pub(crate) fn data_len(&self) -> usize {
        let of_files = |(chunks, _): &(FileChunks, _)| chunks.before.bytes().len();
        self.sealed.as_ref().map_or(0, of_files) + self.open.as_ref().map_or(0, |open| open.chunk.data.len())
    }
}

impl WriterSeries {
    /// Takes chunks over, to be followed by a new one. False if they do not fit each other or cannot be read: those before are
    /// kept.
    pub(crate) fn adopt(&mut self, from: Adoption, rules: &CutRules, counts: &mut RunCounts) -> bool {
        let fits = from.sealed.as_ref().is_none_or(|(chunks, _)| !chunks.has_misfit);
        let sealed_end = from.sealed.as_ref().and_then(|(chunks, _)| chunks.max_t());
        let open = from.open.filter(|open| fits && sealed_end.is_none_or(|end| end < open.chunk.min_t));
        if self.column().is_some() {
            // Its other reference had samples already.
            if let (Some((chunks, files)), None) = (&from.sealed, &open)
                && fits
            {
                let all: Vec<WrittenChunk> = chunks.iter().collect();
                if self.put_before(&all, files) {
                    all.iter().for_each(|chunk| counts.add_chunk(chunk.min_t, chunk.samples));
                    return true;
                }
            }
            // What is newer follows one by one.
            return fits & self.adopt_all_samples((from.sealed, open), rules, counts);
        }
        let (of_files, newest) = match (from.sealed, open) {
            (None, None) => return fits,
            (None, Some(open)) => (None, open),
            (Some((chunks, files)), open) => {
                let FileChunks { before: mut list, last, .. } = chunks;
                let Some(last) = last else { return fits };
                if !list.push(&last) {
                    return false;
                }
                list.iter().for_each(|chunk| counts.add_chunk(chunk.min_t, chunk.samples));
                let of_files = Arc::new(SealedChunks::all_written(&list, files, open.is_none()));
                match open {
                    Some(open) => (Some(of_files), open),
                    None => return fits & self.begin_unread(&last, of_files),
                }
            }
        };
        let chunk = &newest.chunk;
        counts.add_chunk(chunk.min_t, chunk.sample_count());
        self.begin_whole(&newest, of_files);
        fits
    }

    /// Begins with a chunk that nothing is added to, behind those of files.
    fn begin_whole(&mut self, newest: &OpenImage, of_files: Option<Arc<SealedChunks>>) {
        let chunk = &newest.chunk;
        let encoder = match &newest.last {
            LastSample::Float(bits) => Encoder::Float(XorEncoder::ended(chunk.max_t, *bits)),
            LastSample::Histogram(value) => Encoder::Native(NativeWriter::ended(chunk.max_t, value)),
        };
        let words = OpenWords::of_chunk(&chunk.data);
        let column = Column::whole((words, chunk.encoding), chunk.max_t, of_files);
        self.begin_with(column, encoder, chunk.max_t);
    }

    /// Begins with the last chunk of files, which mostly need not be read: the log has newer samples, and then it is a finished one.
    fn begin_unread(&mut self, last: &WrittenChunk, of_files: Arc<SealedChunks>) -> bool {
        let words = OpenWords::unread(last.samples);
        let column = Column::whole((words, last.encoding), last.max_t, Some(of_files));
        // Of its last sample only the time is known, which is enough for what comes from the log.
        let encoder = Encoder::Float(XorEncoder::ended(last.max_t, 0));
        self.begin_with(column, encoder, last.max_t);
        // An encoder of histograms goes on from the one before.
        last.encoding == Encoding::Xor || self.read_newest()
    }

    /// Reads the newest chunk, if so far a file alone has it. False if it is not there as it was: then the series has no samples.
    pub(super) fn read_newest(&mut self) -> bool {
        let Some(column) = self.column().filter(|column| column.words.is_unread()) else { return true };
        let of_files = column.sealed.clone();
        let mut buffer = Vec::new();
        let read = of_files.as_ref().and_then(|of_files| {
            let (files, chunk) = of_files.open_place()?;
            let data = files.load(&chunk, &mut buffer).ok()?.to_vec();
            OpenImage::of(chunk.encoding, data).ok().filter(|newest| newest.is(&chunk))
        });
        match read {
            Some(newest) => {
                self.begin_whole(&newest, of_files);
                true
            }
            None => {
                // What it should hold comes back from the log.
                self.forget_samples();
                false
            }
        }
    }

    fn adopt_all_samples(
        &mut self,
        (sealed, open): (Option<(FileChunks, Arc<FileSet>)>, Option<OpenImage>),
        rules: &CutRules,
        counts: &mut RunCounts,
    ) -> bool {
        let (mut fits, passed_over) = (true, counts.not_newer);
        if let Some((chunks, files)) = sealed {
            let mut buffer = Vec::new();
            for chunk in chunks.iter() {
                fits &= match files.load(&chunk, &mut buffer) {
                    Ok(data) => self.adopt_samples(chunk.encoding, data, rules, counts),
                    Err(_) => false,
                };
            }
        }
        let open = open.map(|open| open.chunk);
        fits &= open.is_none_or(|chunk| self.adopt_samples(chunk.encoding, &chunk.data, rules, counts));
        // Those among what is there already come from the log alone.
        fits && counts.not_newer == passed_over
    }

    fn adopt_samples(&mut self, encoding: Encoding, data: &[u8], rules: &CutRules, counts: &mut RunCounts) -> bool {
        let all = CommitId(0);
        let read = for_each_sample(encoding, data, &mut |t, sample| {
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
    /// Its chunks that stand in no file: calls `sealed` with the encoding and bytes of each finished one, oldest first; returns the
    /// newest unless it stands in one.
    pub fn chunks(&self, sealed: &mut dyn FnMut(Encoding, &[u8])) -> Result<Option<OpenImage>, ReadError> {
        let mut newest = None;
        self.cell.for_each_held(&mut |encoding, data, is_open| {
            if is_open {
                newest = Some(OpenImage::of(encoding, data.to_vec()));
            } else {
                sealed(encoding, data);
            }
        });
        newest
            .transpose()
            .map_err(|error| ReadError::Corrupt(format!("head chunk of series {}: {error}", self.series.0)))
    }
}

impl Head {
    /// Calls `take` with each series of a head that nobody writes meanwhile, until it errs. Errors as well when a shard is not
    /// available.
    pub fn for_each_series<E: From<ReadError>>(
        &self,
        mut take: impl FnMut(SeriesImage<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        // What the log has is in the head, and what has been written is known to be.
        for shard in self.shards() {
            shard.tidy();
            while shard.install_chunks(usize::MAX) {}
        }
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
