//! Samples that came out of order, kept beside the series: a series without any takes nothing for it but a bit of its cell.
//!
//! Each series has an open chunk, sorted by time, which is closed as soon as it is full, and closed ones, encoded. Chunks of one series may overlap each other
//! and the samples in order; readers merge them, and of samples with the same time stamp the first that came is kept.
//! Everything that readers load is immutable and replaced as a whole: a sample copies the open chunk, which is small.
//!
//! Closed chunks go to the files of finished chunks, as those of samples in order do; a series then keeps forty bytes for each. The
//! written ones are the oldest: chunks are written in the order in which they were closed.
//!
//! A chunk belongs to an *epoch*. When blocks are to be made of what is here, a new epoch begins; commits that begin after
//! that put their samples into chunks of it, so the older chunks do not change any more once older commits are complete.
//! They are dropped when blocks stand for them and no view needs them.

pub(crate) mod table;

use std::collections::HashSet;
use std::sync::Arc;

use crate::model::append::HistogramValue;
use crate::model::histogram::{CounterResetHint, FloatHistogram, Histogram};
use crate::model::read::SampleColumn;
use crate::model::sample::is_stale;
use crate::model::time::{TimeRange, TimestampMs};
use crate::storage::block::chunks::{ChunkData, sample_count};
use crate::storage::block::rewrite::{self, Sample, Starts, Value};
use crate::storage::chunk::decode::ChunkDecoder;
use crate::storage::chunk::histogram::Native;
use crate::storage::chunk::written::{ChunkPlace, WrittenChunk};
use crate::storage::chunk::{ChunkError, Encoding};
use crate::storage::head::commit::CommitId;
use crate::storage::head::native::Newest;
use crate::storage::head_chunk_store::{FileSet, Files};

/// Samples of an open chunk, as in Prometheus.
pub const LATE_CHUNK_LEN: usize = 32;

/// A float or a histogram.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum LateValue {
    /// A float.
    Float(f64),
    /// A histogram of either kind.
    Histogram(HistogramValue),
}

impl From<Value> for LateValue {
    fn from(value: Value) -> Self {
        match value {
            Value::Float(value) => Self::Float(value),
            Value::Whole(histogram) => Self::Histogram((*histogram).into()),
            Value::FloatHistogram(histogram) => Self::Histogram((*histogram).into()),
        }
    }
}

impl LateValue {
    /// A float, or the marker that ends a series of histograms if the newest sample is one.
    pub(crate) fn of_float(value: f64, newest: Option<(i64, Newest<'_>)>) -> Self {
        match newest {
            Some((_, Newest::Whole(_))) if is_stale(value) => Self::Histogram(Histogram::marker(value).into()),
            Some((_, Newest::FloatHistogram(_))) if is_stale(value) => {
                Self::Histogram(FloatHistogram::marker(value).into())
            }
            _ => Self::Float(value),
        }
    }

    /// True for a marker that ends a series.
    pub(crate) fn is_stale(&self) -> bool {
        match self {
            Self::Float(value) => is_stale(*value),
            Self::Histogram(value) => value.is_stale(),
        }
    }

    pub(crate) fn to_value(&self) -> Value {
        match self {
            Self::Float(value) => Value::Float(*value),
            Self::Histogram(HistogramValue::Integer(histogram)) => Value::Whole(Box::new(Histogram::clone(histogram))),
            Self::Histogram(HistogramValue::Float(histogram)) => {
                Value::FloatHistogram(Box::new(FloatHistogram::clone(histogram)))
            }
        }
    }
}

/// A sample of an open chunk.
#[derive(Clone, Debug)]
pub(crate) struct LateSample {
    pub(crate) t: i64,
    /// When it began to count; 0 if that is not known.
    pub(crate) start: i64,
    pub(crate) commit: CommitId,
    pub(crate) value: LateValue,
}

impl LateSample {
    /// One that every view sees: its commit is over.
    pub(crate) fn settled(t: i64, start: i64, value: LateValue) -> Self {
        // Number 0 is before all commits.
        Self { t, start, commit: CommitId(0), value }
    }

    fn merged(&self, chunk: usize, value: Value) -> Merged {
        Merged { t: self.t, start: self.start, chunk, value }
    }
}

/// A closed chunk that is held in memory.
#[derive(Clone, Debug)]
pub(crate) struct LateChunk {
    pub(crate) encoding: Encoding,
    pub(crate) data: Arc<[u8]>,
    pub(crate) min_t: i64,
    pub(crate) max_t: i64,
    pub(crate) epoch: u64,
    /// Of its samples, as long as a view may have to hide one.
    commits: Option<Box<[CommitId]>>,
}

impl LateChunk {
    fn has_visible(&self, commit: CommitId) -> bool {
        self.commits.as_ref().is_none_or(|commits| commits.iter().any(|own| *own <= commit))
    }
}

/// A closed chunk that stands in a file; every view sees its samples.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WrittenLate {
    pub(crate) chunk: WrittenChunk,
    pub(crate) epoch: u64,
}

/// Closed chunks that stand in files, in the order in which they were closed.
#[derive(Debug)]
struct Written {
    chunks: Box<[WrittenLate]>,
    files: Arc<FileSet>,
}

impl Written {
    /// None without chunks; `before` holds files that may have been removed.
    fn of(chunks: Vec<WrittenLate>, files: &Arc<Files>, before: Option<&FileSet>) -> Option<Arc<Self>> {
        let file = |one: &WrittenLate| one.chunk.place.file();
        let (first, last) = chunks.iter().map(file).min().zip(chunks.iter().map(file).max())?;
        Some(Arc::new(Self { files: files.set_of(first, last, before), chunks: chunks.into() }))
    }
}

/// The late samples of one series at one moment.
#[derive(Debug, Default)]
pub(crate) struct LateChunks {
    written: Option<Arc<Written>>,
    /// In the order in which they were closed, behind those that were written.
    closed: Arc<[Arc<LateChunk>]>,
    /// Sorted by time.
    open: Vec<LateSample>,
    open_epoch: u64,
}

/// What became of a late sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inserted {
    /// It was taken; so many chunks are more than before.
    Taken {
        /// Chunks that are new.
        new_chunks: u64,
        /// Whether one was closed.
        has_closed: bool,
    },
    /// The open chunk has one with its time stamp.
    Repeated,
}

/// How samples are put into chunks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LateRules {
    /// The epoch of the sample's commit.
    pub(crate) epoch: u64,
    /// Every view sees the commits up to this.
    pub(crate) low: CommitId,
    /// Samples of an open chunk at most.
    pub(crate) chunk_len: usize,
}

impl LateChunks {
    /// True if nothing is here.
    fn is_empty(&self) -> bool {
        self.chunk_count() == 0
    }

    fn chunk_count(&self) -> u64 {
        self.written().len() as u64 + self.closed.len() as u64 + u64::from(!self.open.is_empty())
    }

    fn written(&self) -> &[WrittenLate] {
        self.written.as_ref().map_or(&[], |written| &written.chunks)
    }

    /// Chunks that stand in files, with these.
    pub(crate) fn in_files(&self) -> Option<(&Arc<FileSet>, &[WrittenLate])> {
        self.written.as_ref().map(|written| (&written.files, &*written.chunks))
    }

    /// Closed chunks of `epoch` that are to be written, and whether there may be others when all views see commits that are open
    /// now; every view sees the commits up to `low`.
    fn to_write(&self, epoch: u64, low: CommitId) -> (Vec<Arc<LateChunk>>, bool) {
        let mut found = Vec::new();
        for chunk in self.closed.iter() {
            if chunk.epoch != epoch {
                // It becomes part of a block soon, and those behind it have to wait.
                break;
            }
            if chunk.commits.as_ref().is_some_and(|commits| commits.iter().any(|commit| low < *commit)) {
                return (found, true);
            }
            found.push(Arc::clone(chunk));
        }
        (found, false)
    }

    /// The same samples, of which those in `chunks` stand in files from now on; `None` if they are not here any more.
    fn with_written(&self, chunks: &[(Arc<LateChunk>, ChunkPlace)], files: &Arc<Files>) -> Option<Self> {
        let is_same = |(held, (chunk, _)): &(&Arc<LateChunk>, &(Arc<LateChunk>, ChunkPlace))| {
            Arc::ptr_eq(&held.data, &chunk.data)
        };
        let moved = self.closed.iter().zip(chunks).take_while(is_same);
        let place = |(held, (_, place)): (&Arc<LateChunk>, &(_, ChunkPlace))| {
            let samples = sample_count(held.encoding.id(), &held.data);
            let (min_t, max_t, encoding) = (held.min_t, held.max_t, held.encoding);
            WrittenLate { chunk: WrittenChunk { place: *place, min_t, max_t, samples, encoding }, epoch: held.epoch }
        };
        let moved: Vec<WrittenLate> = moved.map(place).collect();
        if moved.is_empty() {
            return None;
        }
        let closed = self.closed.get(moved.len()..).unwrap_or(&[]).into();
        let all = [self.written(), &moved].concat();
        let written = Written::of(all, files, self.written.as_ref().map(|written| &*written.files));
        Some(Self { written, closed, open: self.open.clone(), open_epoch: self.open_epoch })
    }

    /// These samples and one more; `None` if it is a repetition.
    fn with(&self, sample: LateSample, rules: LateRules) -> Option<Self> {
        let LateRules { epoch, low, chunk_len } = rules;
        if !self.open.is_empty() && epoch < self.open_epoch {
            // A commit that began before the open chunk's epoch: its sample must go with the older chunks.
            let closed = closed_with(&self.closed, std::slice::from_ref(&sample), epoch, low);
            return Some(self.followed_by(closed, self.open.clone(), self.open_epoch));
        }
        let (mut closed, mut open) = (Arc::clone(&self.closed), Vec::new());
        if self.open_epoch < epoch && !self.open.is_empty() {
            closed = closed_with(&closed, &self.open, self.open_epoch, low);
            open.push(sample);
        } else {
            let Err(place) = self.open.binary_search_by_key(&sample.t, |held| held.t) else { return None };
            open.reserve_exact((self.open.len() + 1).next_power_of_two());
            open.extend_from_slice(self.open.get(..place).unwrap_or(&[]));
            open.push(sample);
            open.extend_from_slice(self.open.get(place..).unwrap_or(&[]));
        }
        if chunk_len <= open.len() {
            // At once, not with the next sample: it can be in a file, and have its marker, before that one is logged.
            closed = closed_with(&closed, &open, epoch, low);
            open = Vec::new();
        }
        Some(self.followed_by(closed, open, epoch))
    }

    /// The place of the newest chunk if all samples stand in files; so do then all that the log has of them.
    fn all_in_files(&self) -> Option<ChunkPlace> {
        let is_all = self.open.is_empty() && self.closed.is_empty();
        self.written().iter().map(|one| one.chunk.place).max().filter(|_| is_all)
    }

    /// Times of samples in memory, of the open chunk and of closed ones from number `from` on; and how many closed ones there are.
    fn times_in_memory(&self, from: usize) -> (usize, Vec<i64>) {
        let mut times: Vec<i64> = self.open.iter().map(|sample| sample.t).collect();
        for chunk in self.closed.iter().skip(from) {
            add_times(chunk.encoding, &chunk.data, &mut times);
        }
        (self.closed.len(), times)
    }

    /// The same written chunks, and these.
    fn followed_by(&self, closed: Arc<[Arc<LateChunk>]>, open: Vec<LateSample>, open_epoch: u64) -> Self {
        Self { written: self.written.clone(), closed, open, open_epoch }
    }

    /// What is left without the chunks up to `epoch`.
    fn without_epochs(&self, epoch: u64) -> Self {
        let closed = self.closed.iter().filter(|chunk| epoch < chunk.epoch).cloned().collect();
        let open = if self.open_epoch <= epoch { Vec::new() } else { self.open.clone() };
        let left: Vec<WrittenLate> = self.written().iter().filter(|one| epoch < one.epoch).copied().collect();
        let files = self.written.as_ref().map(|written| &written.files);
        let written = files.and_then(|files| Written::of(left, files.owner(), Some(files)));
        Self { written, closed, open, open_epoch: self.open_epoch }
    }

    /// True if a view of `commit` sees a sample.
    pub(crate) fn has_visible(&self, commit: CommitId) -> bool {
        !self.written().is_empty()
            || self.closed.iter().any(|chunk| chunk.has_visible(commit))
            || self.open.iter().any(|sample| sample.commit <= commit)
    }

    /// True if a view of `commit` sees a sample and a chunk that has one reaches into `range`.
    pub(crate) fn reaches_into(&self, range: TimeRange, commit: CommitId) -> bool {
        let overlaps = |min_t, max_t| range.overlaps(TimestampMs(min_t), TimestampMs(max_t));
        self.written().iter().any(|one| overlaps(one.chunk.min_t, one.chunk.max_t))
            || self.closed.iter().any(|chunk| overlaps(chunk.min_t, chunk.max_t) && chunk.has_visible(commit))
            || self.open.iter().any(|sample| range.contains(TimestampMs(sample.t)) && sample.commit <= commit)
    }

    /// Times of the oldest and the newest sample of the chunks up to `epoch`.
    pub(crate) fn spans(&self, epoch: u64) -> impl Iterator<Item = (i64, i64)> + '_ {
        let closed = self.closed.iter().filter(move |chunk| chunk.epoch <= epoch).map(|c| (c.min_t, c.max_t));
        let open = (self.open_epoch <= epoch).then(|| self.open.first().zip(self.open.last())).flatten();
        let written = self.written().iter().filter(move |one| one.epoch <= epoch);
        let written = written.map(|one| (one.chunk.min_t, one.chunk.max_t));
        written.chain(closed).chain(open.map(|(first, last)| (first.t, last.t)))
    }

    /// The samples in `range` that a view of `commit` sees, of chunks up to `epoch`, in the order of time; each with the number
    /// of its chunk.
    pub(crate) fn merged(&self, range: TimeRange, commit: CommitId, epoch: u64) -> Result<Vec<Merged>, ChunkError> {
        let mut merged: Vec<Merged> = Vec::new();
        let mut buffer = Vec::new();
        for (number, WrittenLate { chunk, epoch: own }) in self.written().iter().enumerate() {
            let Some((files, _)) = self.in_files() else { break };
            if epoch < *own || !range.overlaps(TimestampMs(chunk.min_t), TimestampMs(chunk.max_t)) {
                continue;
            }
            let samples = rewrite::decode(chunk.encoding, files.load_late(chunk, &mut buffer)?)?.into_iter();
            let wanted = samples.filter(|sample| range.contains(TimestampMs(sample.t)));
            merged.extend(wanted.map(|Sample { t, start, value }| Merged { t, start, chunk: number, value }));
        }
        let before = self.written().len();
        let wanted = |chunk: &&Arc<LateChunk>| {
            chunk.epoch <= epoch && range.overlaps(TimestampMs(chunk.min_t), TimestampMs(chunk.max_t))
        };
        for (number, chunk) in self.closed.iter().enumerate().filter(|(_, chunk)| wanted(chunk)) {
            let samples = rewrite::decode(chunk.encoding, &chunk.data)?;
            for (index, Sample { t, start, value }) in samples.into_iter().enumerate() {
                let of_sample = chunk.commits.as_ref().and_then(|commits| commits.get(index));
                if range.contains(TimestampMs(t)) && of_sample.is_none_or(|own| *own <= commit) {
                    merged.push(Merged { t, start, chunk: before + number, value });
                }
            }
        }
        if self.open_epoch <= epoch {
            self.merge_open(range, commit, &mut merged)?;
        }
        // Stable: of equal ones the first that came stays.
        merged.sort_by_key(|sample| sample.t);
        merged.dedup_by_key(|sample| sample.t);
        let mut before = None;
        for sample in &mut merged {
            if before.replace(sample.chunk).is_some_and(|before| before != sample.chunk) {
                sample.value.forget_no_reset();
            }
        }
        Ok(merged)
    }

    /// Times between the ends of a written chunk at which others have samples, as far as these can be read.
    pub(crate) fn times_beside(&self, own: &WrittenChunk) -> HashSet<i64> {
        let (mut times, mut buffer) = (Vec::new(), Vec::new());
        let overlaps = |min_t: i64, max_t: i64| min_t <= own.max_t && own.min_t <= max_t;
        if let Some((files, written)) = self.in_files() {
            let others = written.iter().map(|one| &one.chunk);
            for chunk in others.filter(|one| one.place != own.place && overlaps(one.min_t, one.max_t)) {
                if let Ok(data) = files.load_late(chunk, &mut buffer) {
                    add_times(chunk.encoding, data, &mut times);
                }
            }
        }
        for chunk in self.closed.iter().filter(|chunk| overlaps(chunk.min_t, chunk.max_t)) {
            add_times(chunk.encoding, &chunk.data, &mut times);
        }
        times.extend(self.open.iter().map(|sample| sample.t));
        times.into_iter().filter(|t| own.min_t <= *t && *t <= own.max_t).collect()
    }

    /// Appends the samples of the open chunk that a view of `commit` sees. Its histograms say of those before them what they would
    /// say if it were closed with just these.
    fn merge_open(&self, range: TimeRange, commit: CommitId, merged: &mut Vec<Merged>) -> Result<(), ChunkError> {
        let (number, is_wanted) = (self.written().len() + self.closed.len(), |t: i64| range.contains(TimestampMs(t)));
        let seen = self.open.iter().filter(|sample| sample.commit <= commit);
        if seen.clone().all(|sample| matches!(sample.value, LateValue::Float(_))) {
            let wanted = seen.filter(|sample| is_wanted(sample.t));
            merged.extend(wanted.map(|one| one.merged(number, one.value.to_value())));
            return Ok(());
        }
        let values = seen.clone().map(|one| Sample { t: one.t, start: 0, value: one.value.to_value() }).collect();
        let mut chunks = Vec::new();
        rewrite::encode(values, u16::MAX, Starts::None, &mut chunks)?;
        let mut seen = seen;
        for (chunk, behind) in chunks.iter().zip(0..) {
            let decoded = rewrite::decode(Encoding::from_id(chunk.encoding)?, &chunk.data)?;
            let all = decoded.into_iter().zip(&mut seen).map(|(said, one)| one.merged(number + behind, said.value));
            merged.extend(all.filter(|sample| is_wanted(sample.t)));
        }
        Ok(())
    }

    /// Appends the times of the histograms with whole counts in `range` that a view of `commit` sees to `out`.
    pub(crate) fn whole_histogram_times(
        &self,
        range: TimeRange,
        commit: CommitId,
        out: &mut Vec<i64>,
    ) -> Result<(), ChunkError> {
        let merged = self.merged(range, commit, u64::MAX)?.into_iter();
        out.extend(merged.filter(|sample| matches!(sample.value, Value::Whole(_))).map(|sample| sample.t));
        Ok(())
    }

    /// Appends the samples in `range` that a view of `commit` sees to `out`.
    pub(crate) fn decode(&self, range: TimeRange, commit: CommitId, out: &mut SampleColumn) -> Result<(), ChunkError> {
        for Merged { t, start, value, .. } in self.merged(range, commit, u64::MAX)? {
            match value {
                Value::Float(value) => out.push_float(t, start, value),
                Value::Whole(histogram) => out.push_histogram(t, start, Arc::new(histogram.to_float())),
                Value::FloatHistogram(histogram) => out.push_histogram(t, start, Arc::new(*histogram)),
            }
        }
        Ok(())
    }
}

fn add_times(encoding: Encoding, data: &[u8], times: &mut Vec<i64>) {
    let Ok(mut decoder) = ChunkDecoder::of_chunk(encoding, data) else { return };
    while let Ok(Some(t)) = decoder.next_t() {
        times.push(t);
    }
}

/// Closed chunks and those of `samples`, which are sorted.
fn closed_with(before: &[Arc<LateChunk>], samples: &[LateSample], epoch: u64, low: CommitId) -> Arc<[Arc<LateChunk>]> {
    let hides = samples.iter().any(|sample| low < sample.commit);
    let mut commits = samples.iter().map(|sample| sample.commit);
    let value_of = |one: &LateSample| Sample { t: one.t, start: one.start, value: one.value.to_value() };
    let values = samples.iter().map(value_of).collect();
    let has_starts = samples.iter().any(|sample| sample.start != 0);
    let mut encoded = Vec::new();
    let kept = if has_starts { Starts::Kept } else { Starts::None };
    let done = rewrite::encode(values, u16::MAX, kept, &mut encoded);
    debug_assert!(done.is_ok(), "what was encoded a moment ago can be decoded");
    let new = encoded.into_iter().filter_map(|chunk| {
        let commits: Box<[CommitId]> = commits.by_ref().take(usize::from(chunk.sample_count())).collect();
        let ChunkData { min_t, max_t, encoding, data } = chunk;
        let encoding = Encoding::from_id(encoding).ok()?;
        let commits = hides.then_some(commits);
        Some(Arc::new(LateChunk { encoding, data: data.into(), min_t, max_t, epoch, commits }))
    });
    let settled = |chunk: &Arc<LateChunk>| match &chunk.commits {
        Some(commits) if commits.iter().all(|commit| *commit <= low) => {
            Arc::new(LateChunk { commits: None, ..LateChunk::clone(chunk) })
        }
        _ => Arc::clone(chunk),
    };
    before.iter().map(settled).chain(new).collect()
}

/// A sample with the number of the chunk that it comes from.
#[derive(Clone, Debug)]
pub(crate) struct Merged {
    pub(crate) t: i64,
    /// When it began to count; 0 if that is not known.
    pub(crate) start: i64,
    chunk: usize,
    pub(crate) value: Value,
}

impl Value {
    /// Takes back that there was no reset since the sample before, where that one may be another now.
    fn forget_no_reset(&mut self) {
        let hint = match self {
            Self::Float(_) => return,
            Self::Whole(histogram) => &mut histogram.counter_reset_hint,
            Self::FloatHistogram(histogram) => &mut histogram.counter_reset_hint,
        };
        if *hint == CounterResetHint::NotReset {
            *hint = CounterResetHint::Unknown;
        }
    }
}

#[cfg(test)]
mod header_tests;
