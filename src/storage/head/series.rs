//! The writer's part of a series: the encoder's state and the rules by which chunks are cut.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::model::append::HistogramValue;
use crate::model::sample::{SeriesRef, is_stale};
use crate::storage::chunk::Encoding;
use crate::storage::chunk::bits::SampleBits;
use crate::storage::chunk::cut::CutRules;
use crate::storage::chunk::sealed::SealedChunks;
use crate::storage::chunk::words::OpenWords;
use crate::storage::chunk::written::WrittenChunk;
use crate::storage::chunk::xor::XorEncoder;
use crate::storage::head::column::{Column, SeriesCell};
use crate::storage::head::commit::CommitId;
use crate::storage::head::native::{NativeWriter, Newest, OpenChunk, Placed};
use crate::storage::head_chunk_store::{FileSet, Files};

/// Marks a series without staged samples.
pub(crate) const NOT_STAGED: u32 = u32::MAX;

/// The writer's part of a series.
#[derive(Debug)]
pub(crate) struct WriterSeries {
    pub(crate) cell: Arc<SeriesCell>,
    column: Option<Arc<Column>>,
    encoder: Encoder,
    /// Time at which the open chunk ends at the latest.
    next_at: i64,
    /// The newest staged sample: slot in the queue and number in its batch, or [`NOT_STAGED`].
    pub(crate) staged: u32,
    /// The log has confirmed its series record.
    pub(crate) logged: bool,
    /// It is in the index that readers search.
    pub(crate) indexed: bool,
    /// It is being restored: readers do not see its samples yet.
    hidden: bool,
}

/// What a run of restored samples has done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunCounts {
    pub(crate) appended: u64,
    pub(crate) chunks: u64,
    pub(crate) not_newer: u64,
    /// Time of the oldest sample that was appended.
    pub(crate) oldest: i64,
}

impl Default for RunCounts {
    fn default() -> Self {
        Self { appended: 0, chunks: 0, not_newer: 0, oldest: i64::MAX }
    }
}

impl RunCounts {
    pub(crate) fn absorb(&mut self, other: Self) {
        self.appended += other.appended;
        self.chunks += other.chunks;
        self.not_newer += other.not_newer;
        self.oldest = self.oldest.min(other.oldest);
    }

    /// Counts a chunk that is taken over.
    pub(crate) fn add_chunk(&mut self, min_t: i64, samples: u16) {
        self.appended += u64::from(samples);
        self.chunks += 1;
        self.oldest = self.oldest.min(min_t);
    }

    #[inline]
    pub(crate) fn add(&mut self, t: i64, appended: Appended) {
        match appended {
            Appended::NotNewer => {
                self.not_newer += 1;
                return;
            }
            Appended::InChunk => {}
            Appended::NewChunk => self.chunks += 1,
        }
        self.appended += 1;
        self.oldest = self.oldest.min(t);
    }
}

/// The encoder of the open chunk. Histograms keep theirs apart: a series of floats is no larger for them.
#[derive(Debug)]
pub(crate) enum Encoder {
    /// Of floats.
    Float(XorEncoder),
    /// Of native histograms.
    Native(Box<NativeWriter>),
}

impl Encoder {
    fn last_t(&self) -> i64 {
        match self {
            Self::Float(encoder) => encoder.last_t(),
            Self::Native(writer) => writer.last_t(),
        }
    }
}

/// What an append did besides appending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Appended {
    /// The sample is in the open chunk.
    InChunk,
    /// The sample began a new chunk.
    NewChunk,
    /// The sample is not newer than the newest: nothing was done.
    NotNewer,
}

impl WriterSeries {
    pub(crate) fn new(series: SeriesRef) -> Self {
        Self {
            cell: Arc::new(SeriesCell::new(series)),
            column: None,
            encoder: Encoder::Float(XorEncoder::default()),
            next_at: 0,
            staged: NOT_STAGED,
            logged: false,
            indexed: false,
            hidden: false,
        }
    }

    /// A series that is being restored; [`WriterSeries::publish`] shows what it has got by then.
    pub(crate) fn restoring(series: SeriesRef) -> Self {
        Self { hidden: true, ..Self::new(series) }
    }

    /// Begins with this column, which an encoder has ended: the next sample begins another chunk.
    pub(super) fn begin_with(&mut self, column: Column, encoder: Encoder, max_t: i64) {
        self.encoder = encoder;
        self.next_at = max_t;
        self.replace(column);
    }

    /// Puts chunks that stand in files before what a series that is being restored has by now; false if they do not fit.
    pub(super) fn put_before(&mut self, chunks: &[WrittenChunk], files: &FileSet) -> bool {
        let Some(column) = self.column.as_ref().and_then(|column| column.behind(chunks, files)) else { return false };
        self.replace(column);
        true
    }

    /// Shows the samples of a series that was restored; false if its newest chunk cannot be read.
    pub(crate) fn publish(&mut self) -> bool {
        if !self.hidden {
            return true;
        }
        let is_read = self.read_newest();
        self.hidden = false;
        self.cell.column.store(self.column.clone());
        is_read
    }

    /// Leaves a series that is being restored without samples.
    pub(super) fn forget_samples(&mut self) {
        self.column = None;
        self.encoder = Encoder::Float(XorEncoder::default());
    }

    /// Appends samples of a series that is being restored, visible to every view. Nobody else holds its column, so it is
    /// written in place.
    pub(crate) fn restore(
        &mut self,
        samples: impl IntoIterator<Item = (i64, f64)>,
        rules: &CutRules,
        counts: &mut RunCounts,
    ) {
        let all = (CommitId(0), CommitId(0));
        let mut left = samples.into_iter();
        let mut next = left.next();
        while let Some((t, value)) = next {
            if let (Encoder::Float(encoder), Some(column)) =
                (&mut self.encoder, self.column.as_mut().and_then(Arc::get_mut))
            {
                let mut at = column.words.published();
                let mut cut = None;
                while let Some((t, value)) = next {
                    if t <= encoder.last_t() {
                        counts.not_newer += 1;
                    } else if rules.must_cut(at, || column.open_start(), encoder.last_t(), &mut self.next_at, t) {
                        cut = next;
                        break;
                    } else {
                        let short = if 2 <= at.samples { encoder.encode_short(t, value) } else { None };
                        at = match short {
                            Some(short) => column.words.push_short(at, short),
                            None => column.words.push(at, &encoder.encode(at.samples, t, value)),
                        };
                        counts.add(t, Appended::InChunk);
                    }
                    next = left.next();
                }
                column.words.set_published(at);
                *column.last_t.get_mut() = encoder.last_t();
                let encoder = *encoder;
                if let Some((t, value)) = cut {
                    self.start_chunk(encoder, t, value, all, rules);
                    counts.add(t, Appended::NewChunk);
                    next = left.next();
                }
            } else {
                counts.add(t, self.append(t, value, all.0, all.1, rules));
                next = left.next();
            }
        }
    }

    /// Reads what appending a sample needs. Who does so for many series before the first is worth it waits for memory once.
    #[inline]
    pub(crate) fn touch(&self) -> u64 {
        let column = self.column.as_ref().map_or(0, |column| {
            let counts = Arc::strong_count(column) as u64;
            counts ^ column.words.touch() ^ column.last_t.load(Ordering::Relaxed).cast_unsigned()
        });
        column ^ self.next_at.cast_unsigned() ^ self.encoder.last_t().cast_unsigned()
    }

    /// Newest applied sample, with its time.
    pub(crate) fn last(&self) -> Option<(i64, Newest<'_>)> {
        self.column.as_ref()?;
        Some(match &self.encoder {
            Encoder::Float(encoder) => (encoder.last_t(), Newest::Float(encoder.last_value_bits())),
            Encoder::Native(writer) => (writer.last_t(), writer.newest()),
        })
    }

    /// True if every applied sample is older than `t`.
    #[inline]
    pub(crate) fn is_older_than(&self, t: i64) -> bool {
        self.column.is_none() || self.encoder.last_t() < t
    }

    pub(crate) fn column(&self) -> Option<&Column> {
        self.column.as_deref()
    }

    /// Appends a sample of `commit`; every view sees the commits up to `low`. A marker that ends a series of histograms becomes
    /// one of their kind.
    pub(crate) fn append(&mut self, t: i64, value: f64, commit: CommitId, low: CommitId, rules: &CutRules) -> Appended {
        let Some(column) = &self.column else {
            self.start_chunk(XorEncoder::default(), t, value, (commit, low), rules);
            return Appended::NewChunk;
        };
        let encoder = match &mut self.encoder {
            Encoder::Float(encoder) => encoder,
            Encoder::Native(writer) => {
                if t <= writer.last_t() {
                    return Appended::NotNewer;
                }
                if is_stale(value) {
                    let marker = writer.marker(value);
                    return self.append_histogram(t, &marker, commit, low, rules);
                }
                self.start_chunk(XorEncoder::default(), t, value, (commit, low), rules);
                return Appended::NewChunk;
            }
        };
        if t <= encoder.last_t() {
            return Appended::NotNewer;
        }
        let at = column.words.published();
        if rules.must_cut(at, || column.open_start(), encoder.last_t(), &mut self.next_at, t) {
            let encoder = *encoder;
            self.start_chunk(encoder, t, value, (commit, low), rules);
            return Appended::NewChunk;
        }
        let short = if 2 <= at.samples { encoder.encode_short(t, value) } else { None };
        match short {
            Some(short) => self.extend(t, &short, commit, low),
            None => {
                let sample = encoder.encode(at.samples, t, value);
                self.extend(t, &sample, commit, low);
            }
        }
        Appended::InChunk
    }

    /// The same for a histogram.
    pub(crate) fn append_histogram(
        &mut self,
        t: i64,
        value: &HistogramValue,
        commit: CommitId,
        low: CommitId,
        rules: &CutRules,
    ) -> Appended {
        let encoding = match value {
            HistogramValue::Integer(_) => Encoding::Histogram,
            HistogramValue::Float(_) => Encoding::FloatHistogram,
        };
        if self.column.is_some() && t <= self.encoder.last_t() {
            return Appended::NotNewer;
        }
        let (placed, next_at) = match (&mut self.encoder, self.column.as_deref()) {
            (Encoder::Native(writer), Some(column)) => {
                let open = OpenChunk { words: &column.words, next_at: self.next_at };
                writer.place(t, value, open, rules)
            }
            _ => {
                let (writer, bits) = NativeWriter::begin(t, value);
                self.encoder = Encoder::Native(writer);
                (Placed::Begin(bits), rules.range_end(t))
            }
        };
        self.next_at = next_at;
        match placed {
            Placed::Append(bits) => self.extend(t, &bits, commit, low),
            Placed::Recode(words, bits) => {
                if let Some(column) = &self.column {
                    let recoded = column.copied(words, column.sealed.clone());
                    self.replace(recoded);
                }
                self.extend(t, &bits, commit, low);
            }
            Placed::Begin(bits) => {
                let words = OpenWords::starting_with(&bits);
                self.replace(Column::starting((words, encoding), t, commit, low, self.column.as_deref()));
                return Appended::NewChunk;
            }
        }
        Appended::InChunk
    }

    /// Puts the bits of a sample behind those of the open chunk.
    fn extend<B: SampleBits>(&mut self, t: i64, sample: &B, commit: CommitId, low: CommitId) {
        let Some(column) = &self.column else { return };
        let at = column.words.published();
        if !column.words.has_room(at, sample.bit_len()) {
            let words = column.words.grown(at, sample.bit_len());
            self.grow(words);
        }
        if let Some(column) = &self.column {
            column.enter_commit(commit, low, at.samples);
            column.last_t.store(t, Ordering::Release);
            column.words.append(at, sample);
        }
    }

    /// Seals the open chunk, if there is one, and begins the next.
    fn start_chunk(
        &mut self,
        mut encoder: XorEncoder,
        t: i64,
        value: f64,
        (commit, low): (CommitId, CommitId),
        rules: &CutRules,
    ) {
        let words = OpenWords::starting_with(&encoder.encode(0, t, value));
        self.encoder = Encoder::Float(encoder);
        self.next_at = rules.range_end(t);
        self.replace(Column::starting((words, Encoding::Xor), t, commit, low, self.column.as_deref()));
    }

    /// Drops chunks of which every sample is older than `min_valid`; returns how many.
    pub(crate) fn truncate(&mut self, min_valid: i64) -> usize {
        let Some(column) = &self.column else { return 0 };
        if self.encoder.last_t() < min_valid {
            let dropped = column.chunk_count();
            self.column = None;
            self.cell.column.store(None);
            self.encoder = Encoder::Float(XorEncoder::default());
            return dropped;
        }
        let Some(sealed) = &column.sealed else { return 0 };
        let dropped = droppable(sealed, column.open_start(), min_valid);
        if 0 < dropped {
            let rest = sealed.without_oldest(dropped);
            let shorter = column.copied(column.words.copy(), (!rest.is_empty()).then(|| Arc::new(rest)));
            self.replace(shorter);
        }
        dropped
    }

    /// Its finished chunks, if some of them are held in memory.
    pub(crate) fn held_chunks(&self) -> Option<&Arc<SealedChunks>> {
        self.column.as_ref()?.sealed.as_ref().filter(|sealed| 0 < sealed.held_len())
    }

    /// Those of its finished chunks that are among `chunks` stand in files from now on.
    pub(crate) fn chunks_written(&mut self, chunks: &[WrittenChunk], files: &Arc<Files>) {
        let Some(column) = &self.column else { return };
        if let Some(sealed) = column.sealed.as_ref().and_then(|sealed| sealed.with_written(chunks, files)) {
            let shorter = column.copied(column.words.copy(), Some(Arc::new(sealed)));
            self.replace(shorter);
        }
    }

    /// Gives the open chunk larger words.
    fn grow(&mut self, mut words: OpenWords) {
        let Some(column) = &mut self.column else { return };
        // The smaller ones are freed when readers wait no more.
        if !self.cell.column.change(column, |column| std::mem::swap(&mut column.words, &mut words)) {
            let grown = column.copied(words, column.sealed.clone());
            self.show(grown);
        }
    }

    /// Puts a column in place of the one that is there.
    fn replace(&mut self, mut column: Column) {
        if let Some(own) = &mut self.column
            && self.cell.column.change(own, |own| std::mem::swap(own, &mut column))
        {
            return column.discard();
        }
        self.show(column);
    }

    /// Leaves the column that is there to those who read it.
    fn show(&mut self, column: Column) {
        let column = Arc::new(column);
        if !self.hidden {
            self.cell.column.store(Some(Arc::clone(&column)));
        }
        if let Some(old) = self.column.replace(column).and_then(Arc::into_inner) {
            old.discard();
        }
    }
}

/// Number of leading chunks that end before `min_valid`; the open chunk starts at `open_start`.
fn droppable(sealed: &SealedChunks, open_start: i64, min_valid: i64) -> usize {
    let mut dropped = 0;
    let mut chunks = sealed.iter().peekable();
    while let Some(chunk) = chunks.next() {
        // The usual chunks are all newer: one that starts at the bound or later does not end before it.
        if chunk.min_t().is_ok_and(|start| min_valid <= start) {
            return dropped;
        }
        // A chunk ends before the next one starts, so most need no decoding.
        let next_start = chunks.peek().map_or(Ok(open_start), |next| next.min_t());
        let ends_before =
            next_start.is_ok_and(|next| next <= min_valid) || chunk.max_t().is_ok_and(|max_t| max_t < min_valid);
        if !ends_before {
            return dropped;
        }
        dropped += 1;
    }
    dropped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::read::FloatColumn;
    use crate::model::time::{TimeRange, TimestampMs};
    use crate::storage::head::column::Output;

    fn seen(series: &WriterSeries, commit: u64) -> Vec<i64> {
        let mut out = FloatColumn::default();
        series.cell.decode(CommitId(commit), TimeRange::ALL, Output::Floats(&mut out)).unwrap();
        out.timestamps
    }

    /// Appends (time, commit) pairs while every view sees commits up to `low`.
    fn series_of(samples: &[(i64, u64)], low: u64) -> WriterSeries {
        let mut series = WriterSeries::new(SeriesRef(1));
        for (t, commit) in samples {
            series.append(*t, 1.0, CommitId(*commit), CommitId(low), &CutRules::default());
        }
        series
    }

    #[test]
    fn views_see_the_samples_of_their_commits_only() {
        // Commits are applied out of their order, as commits over several shards may be.
        let series = series_of(&[(1, 1), (2, 3), (3, 3), (4, 2), (5, 4)], 0);
        assert_eq!(seen(&series, 0), [] as [i64; 0]);
        assert_eq!(seen(&series, 1), [1]);
        assert_eq!(seen(&series, 2), [1, 4]);
        assert_eq!(seen(&series, 3), [1, 2, 3, 4]);
        assert_eq!(seen(&series, 4), [1, 2, 3, 4, 5]);
        let visible = |commit| series.cell.samples_in(CommitId(commit), TimeRange::ALL, None).unwrap().is_some();
        assert!(!visible(0) && visible(1));
    }

    #[test]
    fn commits_stay_apart_over_many_chunks() {
        let samples: Vec<(i64, u64)> = (0..1000).map(|i| (i64::from(i) * 60_000, u64::from(i as u32) + 1)).collect();
        let series = series_of(&samples, 0);
        assert!(series.column().unwrap().chunk_count() > 5);
        for commit in [0, 1, 33, 119, 120, 121, 500, 999, 1000] {
            assert_eq!(seen(&series, commit).len() as u64, commit);
        }
        let from = TimeRange::new(TimestampMs(60_000), TimestampMs(240_000)).unwrap();
        let mut out = FloatColumn::default();
        series.cell.decode(CommitId(4), from, Output::Floats(&mut out)).unwrap();
        assert_eq!(out.timestamps, [60_000, 120_000, 180_000]);
    }

    #[test]
    fn nothing_is_kept_of_commits_that_all_views_see() {
        let mut series = WriterSeries::new(SeriesRef(1));
        for i in 0..1000u32 {
            let commit = CommitId(u64::from(i) + 1);
            series.append(i64::from(i), 1.0, commit, CommitId(u64::from(i)), &CutRules::default());
        }
        assert_eq!(series.column().unwrap().older_len(), 0);
        let mut lagging = WriterSeries::new(SeriesRef(1));
        for i in 0..10_000u64 {
            lagging.append(i as i64, 1.0, CommitId(i + 1), CommitId(i.saturating_sub(100)), &CutRules::default());
        }
        assert!((1..200).contains(&lagging.column().unwrap().older_len()));
        assert_eq!(seen(&lagging, 9_950).len(), 9_950);
    }

    #[test]
    fn truncation_drops_whole_chunks_that_end_before_the_bound() {
        let samples: Vec<(i64, u64)> = (0..480).map(|i| (i64::from(i) * 60_000, 1)).collect();
        let mut series = series_of(&samples, 1);
        assert_eq!(series.column().unwrap().chunk_count(), 4);
        assert_eq!(series.truncate(119 * 60_000), 0);
        assert_eq!(series.truncate(119 * 60_000 + 1), 1);
        assert_eq!(seen(&series, 1).first(), Some(&7_200_000));
        assert_eq!(series.truncate(480 * 60_000), 3);
        assert!(series.cell.is_empty() && series.last().is_none());
    }
}
