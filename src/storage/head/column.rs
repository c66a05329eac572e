//! The part of a series that readers share with its writer, without locks.
//!
//! A series' samples are counted from its first; that number is a sample's *index* and never changes. Which commit a
//! sample belongs to is known only as long as some view may still have to hide it: [`Column::tail`] names the newest
//! commit and the index at which it began, and `older` those before it, kept only while a live view needs them.
//!
//! Reading order that makes this safe without locks: the writer stores `older`, then `tail`, then publishes the sample;
//! a reader loads them the other way round. So it finds an entry for each sample that it can see and must hide.

use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use arc_swap::ArcSwapOption;

use crate::model::read::{FloatColumn, SampleColumn};
use crate::model::sample::SeriesRef;
use crate::model::time::TimeRange;
use crate::storage::block::tombstones::Interval;
use crate::storage::chunk::bits::WordSource;
use crate::storage::chunk::decode::{ChunkDecoder, first_t};
use crate::storage::chunk::sealed::{SealedChunk, SealedChunks};
use crate::storage::chunk::words::{OpenWords, Published};
use crate::storage::chunk::written::WrittenChunk;
use crate::storage::chunk::{ChunkError, Encoding};
use crate::storage::head::column::commits::{CommitStart, OlderCommits, TAIL_HAS_OLDER, pack_tail, unpack_tail};
use crate::storage::head::column::sink::{Newest, SeriesMarks, Sink, decode_sealed, newest};
use crate::storage::head::commit::{COMMIT_MAX, CommitId};
use crate::storage::head::deletion::covers;
use crate::storage::head::slot::ColumnSlot;
use crate::storage::head::table::SERIES_REF_MAX;
use crate::storage::head_chunk_store::FileSet;

mod commits;
pub(super) mod sink;

/// The part of a series that readers hold on to. Sixteen bytes.
#[derive(Debug)]
pub(crate) struct SeriesCell {
    /// Lower and upper bits of its reference.
    series_low: u32,
    series_high: u16,
    flags: AtomicU8,
    /// Its samples; empty before the first is applied and after the last is truncated.
    pub(super) column: ColumnSlot,
}

const _: () = assert!(SERIES_REF_MAX <= 1 << 48);

/// It has left the shard's table.
const GONE: u8 = 1;
/// The shard's [`super::late::LateTable`] has samples of it.
const LATE: u8 = 2;

impl SeriesCell {
    /// References are below [`SERIES_REF_MAX`].
    pub(crate) fn new(series: SeriesRef) -> Self {
        // All bits of a reference are in one of the parts.
        let (series_low, series_high) = (series.0 as u32, (series.0 >> 32) as u16);
        Self { series_low, series_high, flags: AtomicU8::new(0), column: ColumnSlot::empty() }
    }

    pub(crate) fn series(&self) -> SeriesRef {
        SeriesRef(u64::from(self.series_high) << 32 | u64::from(self.series_low))
    }

    /// True if the series has left the table; a new one with the same labels gets a new cell.
    pub(crate) fn is_gone(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & GONE != 0
    }

    /// Reads what the other functions read. Who does so for many series before it is worth it waits for memory once.
    #[inline]
    pub(crate) fn touch(&self) -> u64 {
        u64::from(self.flags.load(Ordering::Relaxed))
    }

    /// Its samples, to be held for a moment.
    #[inline]
    pub(crate) fn column(&self) -> Option<Arc<Column>> {
        self.column.load()
    }

    pub(crate) fn set_gone(&self) {
        self.flags.fetch_or(GONE, Ordering::Relaxed);
    }

    /// True if it has samples that came out of order, in the shard's table of those.
    pub(crate) fn has_late(&self) -> bool {
        self.flags.load(Ordering::Acquire) & LATE != 0
    }

    pub(crate) fn set_late(&self, has_late: bool) {
        if has_late {
            self.flags.fetch_or(LATE, Ordering::Release);
        } else {
            self.flags.fetch_and(!LATE, Ordering::Release);
        }
    }

    /// True if the series holds no samples at all.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.column.load().is_none()
    }

    /// True if a view of `commit` sees a sample.
    pub(crate) fn is_visible(&self, commit: CommitId) -> bool {
        self.column.load().is_some_and(|column| column.has_visible(commit))
    }

    /// The samples, if a view of `commit` sees one and a chunk reaches into `range`.
    pub(crate) fn samples_in(
        &self,
        commit: CommitId,
        range: TimeRange,
        marks: Option<SeriesMarks<'_>>,
    ) -> Result<Option<Arc<Column>>, ChunkError> {
        match self.column.load() {
            Some(column) if column.has_visible(commit) && column.reaches_into(range, marks)? => Ok(Some(column)),
            _ => Ok(None),
        }
    }

    /// Time of the newest sample that a view of `commit` sees.
    pub(crate) fn newest_visible(&self, commit: CommitId) -> Result<Option<i64>, ChunkError> {
        let Some(column) = self.column.load() else { return Ok(None) };
        // In this order: the time belongs to the commit that is looked at next, or to an older one.
        let last_t = column.last_t.load(Ordering::Acquire);
        let tail = column.tail.load(Ordering::Acquire);
        if tail & TAIL_HAS_OLDER == 0 && unpack_tail(tail).0 <= commit {
            return Ok(Some(last_t));
        }
        let mut seen = SampleColumn::default();
        column.decode(commit, TimeRange::ALL, None, Output::All(&mut seen))?;
        Ok(seen.floats.timestamps.last().max(seen.histograms.timestamps.last()).copied())
    }

    /// Times of the samples that a view of `commit` sees: those up to a time, of which all are named if others are between.
    pub(crate) fn visible_times(&self, commit: CommitId) -> Result<(i64, Option<Vec<i64>>), ChunkError> {
        let Some(column) = self.column.load() else { return Ok((i64::MIN, None)) };
        let last_t = column.last_t.load(Ordering::Acquire);
        let (_, end) = column.index_span(column.words.published());
        if column.hidden(commit, end).is_empty() {
            return Ok((last_t, None));
        }
        let mut seen = SampleColumn::default();
        column.decode(commit, TimeRange::ALL, None, Output::All(&mut seen))?;
        let mut times = seen.floats.timestamps;
        times.extend(seen.histograms.timestamps);
        times.sort_unstable();
        Ok((last_t, Some(times)))
    }

    /// Calls `take` with each chunk as it stands in files, oldest first, the open one as it is now.
    pub(crate) fn for_each_chunk(&self, take: &mut ChunkSink<'_>) -> Result<(), ChunkError> {
        let Some(column) = self.column.load() else { return Ok(()) };
        let mut buffer = Vec::new();
        for chunk in column.sealed.iter().flat_map(|sealed| sealed.iter()) {
            take(chunk.encoding, chunk.data(&mut buffer)?)?;
        }
        take(column.open.encoding(), &column.words.to_chunk(column.words.published()))
    }

    /// The same for the part that is in memory alone: finished chunks that stand in no file, and the open one unless it does. The
    /// second is true of the open one.
    pub(crate) fn for_each_held(&self, take: &mut dyn FnMut(Encoding, &[u8], bool)) {
        let Some(column) = self.column.load() else { return };
        let sealed = column.sealed.as_deref();
        for (encoding, data) in sealed.iter().flat_map(|sealed| sealed.held()) {
            take(encoding, data, false);
        }
        if !sealed.is_some_and(SealedChunks::has_open) {
            take(column.open.encoding(), &column.words.to_chunk(column.words.published()), true);
        }
    }

    /// Time of the first sample from `from` on.
    pub(crate) fn first_t(&self, from: i64) -> Result<Option<i64>, ChunkError> {
        let Some(column) = self.column.load() else { return Ok(None) };
        let open_start = column.open_first_t()?;
        let sealed: Vec<_> = column.sealed.iter().flat_map(|sealed| sealed.iter()).collect();
        for (number, chunk) in sealed.iter().enumerate() {
            let start = chunk.min_t()?;
            if from <= start {
                return Ok(Some(start));
            }
            // A chunk ends before the next begins.
            let next_start = sealed.get(number + 1).map_or(Ok(open_start), |next| next.min_t())?;
            if next_start <= from || chunk.known_max_t().is_some_and(|max_t| max_t < from) {
                continue;
            }
            if let Some(t) = first_from(chunk.decoder(&mut Vec::new())?, from)? {
                return Ok(Some(t));
            }
        }
        first_from(column.open_decoder(column.words.published()), from)
    }

    /// Appends to `out` the samples in `range` that a view of `commit` sees.
    pub(crate) fn decode(&self, commit: CommitId, range: TimeRange, out: Output<'_>) -> Result<(), ChunkError> {
        match self.column.load() {
            Some(column) => column.decode(commit, range, None, out),
            None => Ok(()),
        }
    }
}

/// Where decoded samples go.
pub(crate) enum Output<'a> {
    /// Floats; histograms are passed over.
    Floats(&'a mut FloatColumn),
    /// Samples of all kinds.
    All(&'a mut SampleColumn),
}

fn first_from<S: WordSource + ?Sized>(mut decoder: ChunkDecoder<'_, S>, from: i64) -> Result<Option<i64>, ChunkError> {
    while let Some(t) = decoder.next_t()? {
        if from <= t {
            return Ok(Some(t));
        }
    }
    Ok(None)
}

/// Takes chunks as they stand in files.
pub(crate) type ChunkSink<'a> = dyn FnMut(Encoding, &[u8]) -> Result<(), ChunkError> + 'a;

/// Samples of one series: finished chunks and the open one. Changed by the writer when a chunk is cut or grows, in a copy if anybody
/// reads it; otherwise only its atomics change.
#[derive(Debug)]
pub(crate) struct Column {
    pub(super) words: OpenWords,
    /// Newest commit, whether there are older ones to keep, and the number within the open chunk of the commit's first
    /// sample; see [`pack_tail`].
    tail: AtomicU64,
    /// Time of the newest sample, maybe not visible yet.
    pub(super) last_t: AtomicI64,
    /// What the open chunk is.
    open: OpenStart,
    pub(super) older: ArcSwapOption<OlderCommits>,
    pub(super) sealed: Option<Arc<SealedChunks>>,
}

/// Encoding of the open chunk, and index of its first sample, in one word.
#[derive(Clone, Copy, Debug)]
struct OpenStart(u64);

/// Bits for the index of a sample: enough for a sample each millisecond for ever.
const INDEX_BITS: u32 = 56;

impl OpenStart {
    fn new(encoding: Encoding, index: u64) -> Self {
        debug_assert!(index >> INDEX_BITS == 0);
        Self(u64::from(encoding.id()) << INDEX_BITS | index)
    }

    fn index(self) -> u64 {
        self.0 & ((1 << INDEX_BITS) - 1)
    }

    fn encoding(self) -> Encoding {
        // The upper byte was made from an encoding.
        Encoding::from_id((self.0 >> INDEX_BITS) as u8).unwrap_or(Encoding::Xor)
    }
}

/// Words that the processor reads from memory at once.
const WORDS_IN_LINE: usize = 8;

/// Ranges of sample indexes that a view must not see, ascending.
type Hidden = Vec<(u64, u64)>;

impl Column {
    /// Drops a column that nobody else holds. An `ArcSwap` that is dropped looks whether any thread of the process is about
    /// to read it, even where there is nothing in it.
    pub(super) fn discard(self) {
        let Self { older, mut tail, .. } = self;
        if *tail.get_mut() & TAIL_HAS_OLDER == 0 {
            // Holds nothing, so nothing is lost.
            std::mem::forget(older);
        }
    }

    /// Samples that exist, from the oldest kept to the newest published.
    fn index_span(&self, published: Published) -> (u64, u64) {
        let sealed = self.sealed.as_ref().map_or(0, |s| u64::from(s.sample_count()));
        (self.open.index() - sealed, self.index_end(published))
    }

    /// One past the newest published sample.
    fn index_end(&self, published: Published) -> u64 {
        self.open.index() + u64::from(published.samples)
    }

    /// What a view of `commit` must not see of the samples before index `end`. Call after loading what is published.
    fn hidden(&self, commit: CommitId, end: u64) -> Hidden {
        let raw = self.tail.load(Ordering::Acquire);
        let (tail_commit, in_chunk) = unpack_tail(raw);
        let tail = CommitStart { commit: tail_commit, index: self.open.index() + in_chunk };
        // Entries that come after this tail was loaded begin at samples that `end` does not cover.
        let older = if raw & TAIL_HAS_OLDER == 0 { None } else { self.older.load_full() };
        let mut hidden = Hidden::new();
        let mut add = |from: &CommitStart, to: u64| {
            if commit < from.commit && from.index < to.min(end) {
                hidden.push((from.index, to.min(end)));
            }
        };
        let mut previous: Option<CommitStart> = None;
        for entry in older.iter().flat_map(|o| o.iter()) {
            // The tail may be among the older ones by now: then this entry repeats it.
            if let Some(before) = previous.replace(entry) {
                add(&before, entry.index);
            }
        }
        match previous {
            Some(before) if tail.index <= before.index => add(&before, end),
            Some(before) => {
                add(&before, tail.index);
                add(&tail, end);
            }
            None => add(&tail, end),
        }
        hidden
    }

    /// As [`SeriesCell::touch`].
    #[inline]
    pub(crate) fn touch(&self) -> u64 {
        self.tail.load(Ordering::Relaxed) ^ u64::from(self.words.published().bits) ^ u64::from(self.sealed.is_some())
    }

    /// As [`SeriesCell::touch`], for the open chunk.
    #[inline]
    pub(crate) fn touch_words(&self) -> u64 {
        let len = (self.words.published().bits as usize).div_ceil(64);
        let words = self.words.words().get(..len).unwrap_or_default();
        let last = words.last().map_or(0, |word| word.load(Ordering::Relaxed));
        words.iter().step_by(WORDS_IN_LINE).fold(last, |all, word| all ^ word.load(Ordering::Relaxed))
    }

    fn has_visible(&self, commit: CommitId) -> bool {
        let tail = self.tail.load(Ordering::Acquire);
        if tail & TAIL_HAS_OLDER == 0 && unpack_tail(tail).0 <= commit {
            // The usual column: nothing of it is hidden, and it has at least one sample.
            return true;
        }
        let published = self.words.published();
        let (first, end) = self.index_span(published);
        let hidden: u64 = self.hidden(commit, end).iter().map(|(from, to)| *to - (*from).max(first).min(*to)).sum();
        hidden < end - first
    }

    /// True if a chunk overlaps `range`, as in Prometheus's head.
    fn reaches_into(&self, range: TimeRange, marks: Option<SeriesMarks<'_>>) -> Result<bool, ChunkError> {
        // The newest sample is not older than the first of the open chunk, and all others are older than both.
        let newest = self.last_t.load(Ordering::Acquire);
        if newest < range.min().0 {
            return Ok(false);
        }
        if newest <= range.max().0 || self.open_first_t()? <= range.max().0 {
            return Ok(true);
        }
        // Those before the last that begins in time end before it starts.
        let Some((chunk, index)) = self.last_from(range.max().0)? else { return Ok(false) };
        if range.min().0 <= chunk.min_t()? {
            return Ok(true);
        }
        let mut buffer = Vec::new();
        let last_t = match (chunk.known_max_t(), marks) {
            (None, Some(marks)) => match chunk.decoder(&mut buffer)? {
                ChunkDecoder::Floats(decoder) => marks.last_t(decoder, index)?,
                _ => Some(chunk.max_t()?),
            },
            _ => Some(chunk.max_t()?),
        };
        Ok(last_t.is_some_and(|last_t| range.min().0 <= last_t))
    }

    /// The last finished chunk that begins at `max` or before, with the index of its first sample.
    fn last_from(&self, max: i64) -> Result<Option<(SealedChunk<'_>, u64)>, ChunkError> {
        let Some(sealed) = &self.sealed else { return Ok(None) };
        let (mut index, mut found) = (self.open.index() - u64::from(sealed.sample_count()), None);
        for chunk in sealed.iter() {
            if max < chunk.min_t()? {
                break;
            }
            found = Some((chunk, index));
            index += u64::from(chunk.sample_count());
        }
        Ok(found)
    }

    /// True if a chunk that overlaps `range` is not deleted as a whole. The open chunk never is, as in Prometheus's head.
    pub(crate) fn is_left_in(&self, range: TimeRange, deleted: &[Interval]) -> Result<bool, ChunkError> {
        if self.open_first_t()? <= range.max().0 {
            return Ok(true);
        }
        for chunk in self.sealed.iter().flat_map(|sealed| sealed.iter()) {
            let min_t = chunk.min_t()?;
            if range.max().0 < min_t {
                break;
            }
            let max_t = chunk.max_t()?;
            if range.min().0 <= max_t && !covers(deleted, min_t, max_t) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Time of the first sample of the open chunk, also where a file alone has it; the end of time if it cannot be read.
    pub(super) fn open_start(&self) -> i64 {
        if self.words.is_unread() {
            let place = self.sealed.as_ref().and_then(|sealed| sealed.open_place());
            return place.map_or(i64::MAX, |(_, open)| open.min_t);
        }
        self.open_first_t().unwrap_or(i64::MAX)
    }

    fn open_first_t(&self) -> Result<i64, ChunkError> {
        first_t(self.open.encoding(), self.words.words(), self.words.published().bits as usize)
    }

    fn open_decoder(&self, published: Published) -> ChunkDecoder<'_, [AtomicU64]> {
        ChunkDecoder::new(self.open.encoding(), self.words.words(), published.bits as usize, published.samples)
    }

    /// Appends to `out` the samples in `range` that a view of `commit` sees. `marks` are those of the column's series.
    pub(crate) fn decode(
        &self,
        commit: CommitId,
        range: TimeRange,
        marks: Option<SeriesMarks<'_>>,
        out: Output<'_>,
    ) -> Result<(), ChunkError> {
        let published = self.words.published();
        let mut sink = Sink { range, hidden: self.hidden(commit, self.index_end(published)), marks, out };
        if let Some(sealed) = &self.sealed
            && range.min().0 < self.open_first_t()?
        {
            decode_sealed(sealed, self.index_span(published).0, &mut sink)?;
        }
        // The newest time is read after the published samples, so it is not below theirs.
        if self.last_t.load(Ordering::Acquire) < range.min().0 {
            return Ok(());
        }
        sink.take(self.open_decoder(published), self.open.index())
    }

    /// True if there is no sample in `range`.
    pub(crate) fn is_free(&self, range: TimeRange) -> Result<bool, ChunkError> {
        let mut found = SampleColumn::default();
        self.decode(CommitId(COMMIT_MAX), range, None, Output::All(&mut found))?;
        Ok(found.floats.is_empty() && found.histograms.is_empty())
    }

    /// As [`Self::decode`] where of the samples in `range` the newest is enough: mostly it alone is appended.
    pub(crate) fn decode_newest(
        &self,
        commit: CommitId,
        range: TimeRange,
        marks: Option<SeriesMarks<'_>>,
        out: &mut SampleColumn,
    ) -> Result<(), ChunkError> {
        let published = self.words.published();
        let end = self.index_end(published);
        let found = if !self.hidden(commit, end).is_empty() {
            Newest::Unknown
        } else if self.open_first_t()? <= range.max().0 {
            newest(marks, self.open_decoder(published), self.open.index(), range.max().0)?
        } else {
            match self.last_from(range.max().0)? {
                // What is older than the newest lies before the range as well.
                Some((chunk, _)) if chunk.known_max_t().is_some_and(|max_t| max_t < range.min().0) => Newest::None,
                Some((chunk, index)) => newest(marks, chunk.decoder(&mut Vec::new())?, index, range.max().0)?,
                None => Newest::None,
            }
        };
        match found {
            Newest::Float(t, value) if range.min().0 <= t => out.push_float(t, 0, value),
            // What is older than the newest lies before the range as well.
            Newest::Float(..) | Newest::None => {}
            Newest::Unknown => self.decode(commit, range, marks, Output::All(out))?,
        }
        Ok(())
    }

    /// Times of histograms with whole counts.
    pub(super) fn whole_histogram_times(&self, out: &mut Vec<i64>) -> Result<(), ChunkError> {
        let mut buffer = Vec::new();
        for chunk in self.sealed.iter().flat_map(|sealed| sealed.iter()) {
            if chunk.encoding != Encoding::Histogram && chunk.encoding != Encoding::HistogramStarts {
                continue;
            }
            if let ChunkDecoder::Histograms(mut decoder) = chunk.decoder(&mut buffer)? {
                while let Some(t) = decoder.advance()? {
                    out.push(t);
                }
            }
        }
        if let ChunkDecoder::Histograms(mut decoder) = self.open_decoder(self.words.published()) {
            while let Some(t) = decoder.advance()? {
                out.push(t);
            }
        }
        Ok(())
    }

    /// Commits kept beside the newest.
    #[cfg(test)]
    pub(super) fn older_len(&self) -> usize {
        self.older.load().as_ref().map_or(0, |older| older.iter().count())
    }

    /// All chunks as they stand in files, the open one last.
    #[cfg(test)]
    pub(super) fn chunks(&self) -> Vec<Vec<u8>> {
        let sealed = self.sealed.iter().flat_map(|sealed| sealed.iter());
        let data = |chunk: SealedChunk<'_>| chunk.data(&mut Vec::new()).unwrap().to_vec();
        sealed.map(data).chain([self.words.to_chunk(self.words.published())]).collect()
    }

    pub(crate) fn chunk_count(&self) -> usize {
        1 + self.sealed.as_ref().map_or(0, |sealed| sealed.len())
    }

    /// Records that the samples from number `in_chunk` on belong to `commit`; before the first of them is published.
    pub(super) fn enter_commit(&self, commit: CommitId, low: CommitId, in_chunk: u16) {
        let tail = self.tail.load(Ordering::Relaxed);
        let (before, start) = unpack_tail(tail);
        if before == commit {
            return;
        }
        let mut has_older = tail & TAIL_HAS_OLDER != 0;
        if low < before || has_older {
            let entry = CommitStart { commit: before, index: self.open.index() + start };
            let pushed = OlderCommits::pushed(self.older.load().as_deref(), entry, low);
            has_older = pushed.is_some();
            self.older.store(pushed);
        }
        self.tail.store(pack_tail(commit, in_chunk, has_older), Ordering::Release);
    }

    /// A column that begins a chunk with one sample of `commit`, after the chunks of `before`. Every view sees the
    /// commits up to `low`.
    pub(super) fn starting(
        (words, encoding): (OpenWords, Encoding),
        t: i64,
        commit: CommitId,
        low: CommitId,
        before: Option<&Self>,
    ) -> Self {
        let (first_index, older, sealed) = match before {
            None => (0, None, None),
            Some(before) => {
                let at = before.words.published();
                let sealed = before.sealed.as_deref().unwrap_or(&NO_CHUNKS);
                // One that stands in a file is not needed once more.
                let chunk = if sealed.has_open() { Vec::new() } else { before.words.to_chunk(at) };
                let sealed = sealed.with(before.open.encoding(), &chunk);
                (before.open.index() + u64::from(at.samples), before.all_commits(low), Some(Arc::new(sealed)))
            }
        };
        Self {
            words,
            tail: AtomicU64::new(pack_tail(commit, 0, older.is_some())),
            last_t: AtomicI64::new(t),
            open: OpenStart::new(encoding, first_index),
            older: ArcSwapOption::new(older),
            sealed,
        }
    }

    /// A column of whole chunks, visible to every view; the newest ends at `last_t`.
    pub(super) fn whole(
        (words, encoding): (OpenWords, Encoding),
        last_t: i64,
        sealed: Option<Arc<SealedChunks>>,
    ) -> Self {
        let first_index = sealed.as_ref().map_or(0, |sealed| u64::from(sealed.sample_count()));
        Self {
            words,
            tail: AtomicU64::new(pack_tail(CommitId(0), 0, false)),
            last_t: AtomicI64::new(last_t),
            open: OpenStart::new(encoding, first_index),
            older: ArcSwapOption::empty(),
            sealed,
        }
    }

    /// The same samples behind those of `chunks`, which stand in files; `None` if they do not fit. For a column that nobody reads yet.
    pub(super) fn behind(&self, chunks: &[WrittenChunk], files: &FileSet) -> Option<Self> {
        let sealed = self.sealed.as_deref().unwrap_or(&NO_CHUNKS).with_earlier(chunks.iter().copied(), files)?;
        if !sealed.has_open() && self.open_first_t().ok()? <= chunks.iter().map(|chunk| chunk.max_t).max()? {
            return None;
        }
        let added: u64 = chunks.iter().map(|chunk| u64::from(chunk.samples)).sum();
        let open = OpenStart::new(self.open.encoding(), self.open.index() + added);
        Some(Self { open, ..self.copied(self.words.copy(), Some(Arc::new(sealed))) })
    }

    /// The commits that must be kept when the open chunk is sealed.
    fn all_commits(&self, low: CommitId) -> Option<Arc<OlderCommits>> {
        let (commit, in_chunk) = unpack_tail(self.tail.load(Ordering::Relaxed));
        let tail = CommitStart { commit, index: self.open.index() + in_chunk };
        OlderCommits::pushed(self.older.load().as_deref(), tail, low)
    }

    /// The same samples in larger or equal words, with other finished chunks.
    pub(super) fn copied(&self, words: OpenWords, sealed: Option<Arc<SealedChunks>>) -> Self {
        let tail = self.tail.load(Ordering::Relaxed);
        let older = if tail & TAIL_HAS_OLDER == 0 { None } else { self.older.load_full() };
        Self {
            words,
            tail: AtomicU64::new(tail),
            last_t: AtomicI64::new(self.last_t.load(Ordering::Relaxed)),
            open: self.open,
            older: ArcSwapOption::new(older),
            sealed,
        }
    }
}

static NO_CHUNKS: LazyLock<SealedChunks> = LazyLock::new(SealedChunks::default);
