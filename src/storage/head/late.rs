//! Samples that came out of order, kept beside the series: a series without any takes nothing for it but a bit of its cell.
//!
//! Each series has an open chunk, sorted by time, and closed ones, encoded. Chunks of one series may overlap each other
//! and the samples in order; readers merge them, and of samples with the same time stamp the first that came is kept.
//! Everything that readers load is immutable and replaced as a whole: a sample copies the open chunk, which is small.
//!
//! Closed chunks go to the files of finished chunks, as those of samples in order do; a series then keeps forty bytes for each. The
//! written ones are the oldest: chunks are written in the order in which they were closed.
//!
//! A chunk belongs to an *epoch*. When blocks are to be made of what is here, a new epoch begins; commits that begin after
//! that put their samples into chunks of it, so the older chunks do not change any more once older commits are complete.
//! They are dropped when blocks stand for them and no view needs them.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use hashbrown::HashMap;

use crate::model::append::HistogramValue;
use crate::model::histogram::{CounterResetHint, FloatHistogram, Histogram};
use crate::model::read::SampleColumn;
use crate::model::sample::{SeriesRef, is_stale};
use crate::model::time::{TimeRange, TimestampMs};
use crate::storage::block::chunks::{ChunkData, sample_count};
use crate::storage::block::rewrite::{self, Sample, Starts, Value};
use crate::storage::chunk::histogram::Native;
use crate::storage::chunk::written::{ChunkPlace, WrittenChunk};
use crate::storage::chunk::{ChunkError, Encoding};
use crate::storage::head::commit::CommitId;
use crate::storage::head::native::Newest;
use crate::storage::head_chunk_store::{FileSet, Files};

/// Samples of an open chunk, as in Prometheus.
pub const LATE_CHUNK_LEN: usize = 32;
/// Parts of the table: one is copied when a series gets its first late sample.
const PARTS: usize = 1024;

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
            let closed = self.closed_with(std::slice::from_ref(&sample), epoch, low);
            return Some(self.followed_by(closed, self.open.clone(), self.open_epoch));
        }
        let is_full = chunk_len <= self.open.len() || self.open_epoch < epoch;
        if is_full && !self.open.is_empty() {
            let closed = self.closed_with(&self.open, self.open_epoch, low);
            return Some(self.followed_by(closed, vec![sample], epoch));
        }
        let Err(place) = self.open.binary_search_by_key(&sample.t, |held| held.t) else { return None };
        let mut open = Vec::with_capacity((self.open.len() + 1).next_power_of_two());
        open.extend_from_slice(self.open.get(..place).unwrap_or(&[]));
        open.push(sample);
        open.extend_from_slice(self.open.get(place..).unwrap_or(&[]));
        Some(self.followed_by(Arc::clone(&self.closed), open, epoch))
    }

    /// The same written chunks, and these.
    fn followed_by(&self, closed: Arc<[Arc<LateChunk>]>, open: Vec<LateSample>, open_epoch: u64) -> Self {
        Self { written: self.written.clone(), closed, open, open_epoch }
    }

    /// The closed chunks and those of `samples`, which are sorted.
    fn closed_with(&self, samples: &[LateSample], epoch: u64, low: CommitId) -> Arc<[Arc<LateChunk>]> {
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
        self.closed.iter().map(settled).chain(new).collect()
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

/// A sample with the number of the chunk that it comes from.
#[derive(Clone, Debug)]
pub(crate) struct Merged {
    pub(crate) t: i64,
    /// When it began to count; 0 if that is not known.
    pub(crate) start: i64,
    chunk: usize,
    pub(crate) value: Value,
}

/// One series' late samples, replaced with each new one.
#[derive(Debug, Default)]
struct LateSeries {
    chunks: ArcSwap<LateChunks>,
}

type Part = HashMap<SeriesRef, Arc<LateSeries>, foldhash::fast::FixedState>;

/// The late samples of one shard. Written by the shard alone; readers load.
#[derive(Debug)]
pub(crate) struct LateTable {
    /// Made when the first sample comes.
    parts: OnceLock<Box<[ArcSwap<Part>]>>,
    series: AtomicU64,
    chunks: AtomicU64,
    min_t: AtomicI64,
    max_t: AtomicI64,
}

impl Default for LateTable {
    fn default() -> Self {
        Self {
            parts: OnceLock::new(),
            series: AtomicU64::new(0),
            chunks: AtomicU64::new(0),
            min_t: AtomicI64::new(i64::MAX),
            max_t: AtomicI64::new(i64::MIN),
        }
    }
}

impl LateTable {
    fn part(&self, series: SeriesRef) -> Option<&ArcSwap<Part>> {
        // References follow each other.
        self.parts.get()?.get((series.0 % PARTS as u64) as usize)
    }

    fn series_of(&self, series: SeriesRef) -> Option<Arc<LateSeries>> {
        self.part(series)?.load().get(&series).map(Arc::clone)
    }

    /// The late samples of a series as they are now.
    pub(crate) fn get(&self, series: SeriesRef) -> Option<Arc<LateChunks>> {
        self.series_of(series).map(|series| series.chunks.load_full())
    }

    /// True if the open chunk of the series has a sample at `t`, so that another one would be a repetition.
    pub(crate) fn repeats(&self, series: SeriesRef, t: i64, epoch: u64) -> bool {
        let Some(series) = self.series_of(series) else { return false };
        let chunks = series.chunks.load();
        chunks.open_epoch == epoch && chunks.open.binary_search_by_key(&t, |held| held.t).is_ok()
    }

    /// Closed chunks of a series that are to be written; see [`LateChunks::to_write`].
    pub(crate) fn to_write(&self, series: SeriesRef, epoch: u64, low: CommitId) -> (Vec<Arc<LateChunk>>, bool) {
        self.get(series).map_or_else(Default::default, |late| late.to_write(epoch, low))
    }

    /// Lets a series give chunks back that stand in files from now on. Only who holds the partition may call it.
    pub(crate) fn set_written(&self, series: SeriesRef, chunks: &[(Arc<LateChunk>, ChunkPlace)], files: &Arc<Files>) {
        if let Some(series) = self.series_of(series)
            && let Some(after) = series.chunks.load().with_written(chunks, files)
        {
            series.chunks.store(Arc::new(after));
        }
    }

    /// A series gets these chunks, which stand in files, before its others. Nobody reads it yet.
    pub(crate) fn begin_with(&self, series: SeriesRef, chunks: Vec<WrittenLate>, files: &Arc<Files>) {
        self.parts.get_or_init(|| (0..PARTS).map(|_| ArcSwap::default()).collect());
        let Some(part) = self.part(series) else { return };
        let known = self.series_of(series);
        let before = known.as_ref().map_or_else(Arc::default, |known| known.chunks.load_full());
        self.chunks.fetch_add(chunks.len() as u64, Ordering::Relaxed);
        for WrittenLate { chunk, .. } in &chunks {
            self.max_t.fetch_max(chunk.max_t, Ordering::SeqCst);
            self.min_t.fetch_min(chunk.min_t, Ordering::SeqCst);
        }
        // Of a series with two references each has its own.
        let mut all = [before.written(), &chunks].concat();
        all.sort_by_key(|one| one.chunk.place);
        let written = Written::of(all, files, None);
        let after = LateChunks {
            written,
            ..before.followed_by(Arc::clone(&before.closed), before.open.clone(), before.open_epoch)
        };
        let Some(known) = known else {
            let mut with = Part::clone(&part.load());
            with.insert(series, Arc::new(LateSeries { chunks: ArcSwap::from_pointee(after) }));
            part.store(Arc::new(with));
            self.series.fetch_add(1, Ordering::Relaxed);
            return;
        };
        known.chunks.store(Arc::new(after));
    }

    /// Puts a sample to those of its series. Only who holds the partition may call it.
    pub(crate) fn insert(&self, series: SeriesRef, sample: LateSample, rules: LateRules) -> Inserted {
        let parts = || (0..PARTS).map(|_| ArcSwap::default()).collect();
        self.parts.get_or_init(parts);
        let t = sample.t;
        let new_chunks = match self.series_of(series) {
            Some(known) => {
                let before = known.chunks.load();
                let Some(after) = before.with(sample, rules) else { return Inserted::Repeated };
                let new_chunks = after.chunk_count() - before.chunk_count();
                known.chunks.store(Arc::new(after));
                new_chunks
            }
            None => {
                let Some(part) = self.part(series) else { return Inserted::Repeated };
                let first = LateChunks { open: vec![sample], open_epoch: rules.epoch, ..LateChunks::default() };
                let mut with = Part::clone(&part.load());
                with.insert(series, Arc::new(LateSeries { chunks: ArcSwap::from_pointee(first) }));
                part.store(Arc::new(with));
                self.series.fetch_add(1, Ordering::Relaxed);
                1
            }
        };
        self.chunks.fetch_add(new_chunks, Ordering::Relaxed);
        self.max_t.fetch_max(t, Ordering::SeqCst);
        self.min_t.fetch_min(t, Ordering::SeqCst);
        Inserted::Taken { new_chunks }
    }

    /// Times of the oldest and newest sample, or a wider range; `None` while there is none.
    pub(crate) fn span(&self) -> Option<TimeRange> {
        let (min, max) = (self.min_t.load(Ordering::SeqCst), self.max_t.load(Ordering::SeqCst));
        TimeRange::new(TimestampMs(min), TimestampMs(max)).ok()
    }

    /// Chunks in the table.
    pub(crate) fn chunk_count(&self) -> u64 {
        self.chunks.load(Ordering::Relaxed)
    }

    /// Series with late samples.
    pub(crate) fn series_count(&self) -> u64 {
        self.series.load(Ordering::Relaxed)
    }

    /// Number of parts that may hold something.
    pub(crate) fn part_count(&self) -> usize {
        self.parts.get().map_or(0, |parts| parts.len())
    }

    /// Drops the chunks up to `epoch` in one part: calls `emptied` with each series that has no other. Returns how many chunks
    /// and how many series were looked at. Only who holds the partition may call it.
    pub(crate) fn drop_epochs(&self, part: usize, epoch: u64, mut emptied: impl FnMut(SeriesRef)) -> (u64, usize) {
        let Some(slot) = self.parts.get().and_then(|parts| parts.get(part)) else { return (0, 0) };
        let before = slot.load_full();
        if before.is_empty() {
            return (0, 0);
        }
        let (mut kept, mut dropped) = (Part::default(), 0);
        for (series, late) in before.iter() {
            let chunks = late.chunks.load();
            let rest = chunks.without_epochs(epoch);
            dropped += chunks.chunk_count() - rest.chunk_count();
            if rest.is_empty() {
                emptied(*series);
                continue;
            }
            if rest.chunk_count() < chunks.chunk_count() {
                late.chunks.store(Arc::new(rest));
            }
            kept.insert(*series, Arc::clone(late));
        }
        let gone = (before.len() - kept.len()) as u64;
        slot.store(Arc::new(kept));
        self.chunks.fetch_sub(dropped, Ordering::Relaxed);
        if self.series.fetch_sub(gone, Ordering::Relaxed) == gone {
            self.min_t.store(i64::MAX, Ordering::SeqCst);
            self.max_t.store(i64::MIN, Ordering::SeqCst);
        }
        (dropped, before.len())
    }
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const SERIES: SeriesRef = SeriesRef(9);

    fn rules(epoch: u64, low: u64) -> LateRules {
        LateRules { epoch, low: CommitId(low), chunk_len: 4 }
    }

    fn insert(table: &LateTable, (t, value): (i64, f64), commit: u64, rules: LateRules) -> Inserted {
        let value = LateValue::Float(value);
        table.insert(SERIES, LateSample { t, start: t - 7, commit: CommitId(commit), value }, rules)
    }

    fn seen(table: &LateTable, commit: u64) -> Vec<(i64, f64)> {
        let mut out = SampleColumn::default();
        if let Some(chunks) = table.get(SERIES) {
            chunks.decode(TimeRange::ALL, CommitId(commit), &mut out).unwrap();
        }
        assert!(out.floats.timestamps.iter().map(|t| t - 7).eq(out.float_starts.iter().copied()));
        out.floats.timestamps.into_iter().zip(out.floats.values).collect()
    }

    #[test]
    fn a_sample_is_small() {
        assert_eq!((size_of::<LateValue>(), size_of::<LateSample>()), (16, 40));
    }

    #[test]
    fn repetitions_count_within_the_open_chunk_alone() {
        let table = LateTable::default();
        assert_eq!(insert(&table, (50, 1.0), 1, rules(0, 0)), Inserted::Taken { new_chunks: 1 });
        assert_eq!(insert(&table, (50, 2.0), 1, rules(0, 0)), Inserted::Repeated);
        assert!(table.repeats(SERIES, 50, 0) && !table.repeats(SERIES, 51, 0) && !table.repeats(SeriesRef(8), 50, 0));
        for t in [20, 40, 30] {
            assert_eq!(insert(&table, (t, 1.0), 1, rules(0, 0)), Inserted::Taken { new_chunks: 0 });
        }
        // The chunk is full: the next one does not know it.
        assert_eq!(insert(&table, (50, 3.0), 2, rules(0, 0)), Inserted::Taken { new_chunks: 1 });
        assert_eq!(seen(&table, 1), [(20, 1.0), (30, 1.0), (40, 1.0), (50, 1.0)]);
        assert_eq!(seen(&table, 2), [(20, 1.0), (30, 1.0), (40, 1.0), (50, 1.0)]);
        assert_eq!((table.chunk_count(), table.series_count(), seen(&table, 0)), (2, 1, vec![]));
    }

    #[test]
    fn epochs_are_dropped_and_later_samples_stay() {
        let table = LateTable::default();
        for t in 0..6 {
            insert(&table, (t, 0.0), 1, rules(0, 9));
        }
        insert(&table, (10, 1.0), 2, rules(1, 9));
        // A commit of the epoch before that is applied late.
        insert(&table, (7, 2.0), 1, rules(0, 9));
        assert_eq!(seen(&table, 9).len(), 8);
        let spans: Vec<_> = table.get(SERIES).unwrap().spans(0).collect();
        assert_eq!(spans, [(0, 3), (4, 5), (7, 7)]);
        let part = (SERIES.0 % PARTS as u64) as usize;
        assert_eq!(table.drop_epochs(part, 0, |_| panic!("one is left")), (3, 1));
        assert_eq!((seen(&table, 9), table.chunk_count()), (vec![(10, 1.0)], 1));
        let mut emptied = Vec::new();
        table.drop_epochs(part, 1, |series| emptied.push(series));
        assert_eq!((emptied, table.series_count(), table.span()), (vec![SERIES], 0, None));
    }

    proptest! {
        #[test]
        fn views_see_their_commits(samples in proptest::collection::vec((0i64..200, 1u64..9, 0u64..3), 1..120)) {
            let table = LateTable::default();
            let (mut expected, mut commit) = (BTreeMap::<u64, BTreeMap<i64, f64>>::new(), 0);
            for (number, (t, step, low)) in samples.into_iter().enumerate() {
                commit += step / 8;
                let value = number as f64;
                if let Inserted::Taken { .. } = insert(&table, (t, value), commit, rules(0, commit.min(low))) {
                    expected.entry(commit).or_default().entry(t).or_insert(value);
                }
            }
            for view in 2..=commit {
                let mut all = BTreeMap::new();
                for own in expected.range(..=view).map(|(_, own)| own) {
                    for (t, value) in own {
                        all.entry(*t).or_insert(*value);
                    }
                }
                prop_assert_eq!(seen(&table, view), all.into_iter().collect::<Vec<_>>());
            }
        }
    }
}
