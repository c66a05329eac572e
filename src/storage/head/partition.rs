//! One shard's state and its single writer: check and stage, then apply.
//!
//! ```text
//! stage    looks up or creates series, checks order and bounds; readers see nothing of it
//!   log    the caller writes `Staged::new_series` and `Staged::samples`
//! apply    appends to chunks and enters new series into the index; cannot fail on input
//! ```
//! Staged batches wait in a queue and are applied in the order in which they were staged, whatever order `apply` is
//! called in: a later sample of a series never overtakes an earlier one. A batch that is given up leaves no trace but
//! the places of series that it created, which the next truncation collects.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use hashbrown::HashTable;

use crate::model::append::{
    AppendReport, AppendSample, HistogramValue, LateSamples, SampleRejection, SeriesHandle, SeriesKey, ShardId,
};
use crate::model::exemplar::{Exemplar, ExemplarRejection};
use crate::model::labels::Labels;
use crate::model::metadata::SeriesMetadata;
use crate::model::sample::SeriesRef;
use crate::model::spare;
use crate::model::time::{TimeRange, TimestampMs};
use crate::storage::head::bounds::{AppendBounds, Lateness};
use crate::storage::head::chunk_writes::ChunkWrites;
use crate::storage::head::commit::{Commit, CommitId};
use crate::storage::head::exemplars::{Exemplars, Verdict};
use crate::storage::head::index::tail::{RESTORED_TAIL_LEN_MAX, TAIL_LEN_MAX, Tail, TailEntry};
use crate::storage::head::index::{Index, build};
use crate::storage::head::late::{Inserted, LateRules, LateSample, LateValue};
use crate::storage::head::native::Newest;
use crate::storage::head::route::{RoutedExemplar, RoutedHistogram, RoutedKey, RoutedSample, Slice, StartsOf, place};
use crate::storage::head::series::{Appended, NOT_STAGED, WriterSeries};
use crate::storage::head::shard::{Applying, ShardReaders};
use crate::storage::head::shared::{HeadShared, count};
use crate::storage::head::starts::{takes_zero, zero_of};
use crate::storage::head::table::{SERIES_PER_SHARD_MAX, SeriesId, SeriesTable};

/// A series record that the log needs before the samples that refer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSeries {
    /// The reference that samples use.
    pub series: SeriesRef,
    /// Its labels.
    pub labels: Labels,
    pub(crate) hash: u64,
    pub(crate) id: SeriesId,
}

/// A checked sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StagedSample {
    /// The series, as the log names it.
    pub series: SeriesRef,
    /// Milliseconds since the epoch.
    pub t: i64,
    /// The value.
    pub value: f64,
    pub(crate) id: SeriesId,
}

/// A checked histogram.
#[derive(Clone, Debug, PartialEq)]
pub struct StagedHistogram {
    /// The series, as the log names it.
    pub series: SeriesRef,
    /// Milliseconds since the epoch.
    pub t: i64,
    /// The histogram.
    pub value: HistogramValue,
    pub(crate) id: SeriesId,
}

/// A checked sample that came out of order.
#[derive(Clone, Debug, PartialEq)]
pub struct StagedLate {
    /// The series, as the log names it.
    pub series: SeriesRef,
    /// Milliseconds since the epoch.
    pub t: i64,
    /// When it began to count, if that is stored; else 0.
    pub start: i64,
    pub(crate) value: LateValue,
    pub(crate) id: SeriesId,
}

impl StagedLate {
    /// The value, if it is a float.
    pub fn float(&self) -> Option<f64> {
        match &self.value {
            LateValue::Float(value) => Some(*value),
            LateValue::Histogram(_) => None,
        }
    }

    /// The value, if it is a histogram.
    pub fn histogram(&self) -> Option<&HistogramValue> {
        match &self.value {
            LateValue::Float(_) => None,
            LateValue::Histogram(value) => Some(value),
        }
    }
}

/// A checked exemplar.
#[derive(Clone, Debug, PartialEq)]
pub struct StagedExemplar {
    /// The series, as the log names it.
    pub series: SeriesRef,
    /// The exemplar.
    pub exemplar: Exemplar,
    labels: Labels,
    hash: u64,
}

/// Metadata that the log does not have yet.
#[derive(Clone, Debug, PartialEq)]
pub struct StagedMetadata {
    /// The series, as the log names it.
    pub series: SeriesRef,
    /// What is said of it.
    pub metadata: Arc<SeriesMetadata>,
}

/// What staging a slice has found; never changed afterwards.
#[derive(Debug, Default)]
pub(crate) struct StagedBatch {
    pub(crate) new_series: Vec<NewSeries>,
    pub(crate) samples: Vec<StagedSample>,
    /// In the numbers that series keep they follow the samples.
    pub(crate) histograms: Vec<StagedHistogram>,
    /// What came out of order; no series points at these.
    pub(crate) late: Vec<StagedLate>,
    /// The epoch of `late`.
    epoch: u64,
    /// Series of `late` that are in `new_series`.
    named: hashbrown::HashSet<SeriesId>,
    pub(crate) exemplars: Vec<StagedExemplar>,
    pub(crate) metadata: Vec<StagedMetadata>,
    /// Start times of some samples and of some histograms, by their place in the batch, if they are stored.
    pub(crate) sample_starts: Vec<(u32, i64)>,
    pub(crate) histogram_starts: Vec<(u32, i64)>,
}

impl StagedBatch {
    /// Stores the exemplars. Called once the log has them, whatever becomes of the partition: they are not part of it.
    pub(crate) fn store_exemplars(&self, exemplars: &Exemplars) {
        self.exemplars.iter().for_each(|one| exemplars.add(&one.labels, one.hash, &one.exemplar));
    }

    /// Gives the late samples from number `from` on, of which there is one at most, their start.
    fn start_late(&mut self, from: usize, start: i64) {
        self.late.iter_mut().skip(from).for_each(|late| late.start = start);
    }

    /// The series of all samples in order, in the order of their numbers.
    fn ids(&self) -> impl Iterator<Item = SeriesId> + '_ {
        self.samples.iter().map(|sample| sample.id).chain(self.histograms.iter().map(|sample| sample.id))
    }
}

thread_local! {
    /// The samples of a batch that was applied on this thread, for its next.
    static SPARE: Cell<Vec<StagedSample>> = const { Cell::new(Vec::new()) };
}

/// Gives what is left of a batch back, if nobody else has it.
pub(super) fn reuse(batch: &mut Arc<StagedBatch>) {
    if let Some(batch) = Arc::get_mut(batch) {
        spare::keep(&SPARE, std::mem::take(&mut batch.samples));
    }
}

/// A staged batch in the queue.
#[derive(Debug)]
struct Slot {
    batch: Arc<StagedBatch>,
    state: SlotState,
}

#[derive(Debug)]
enum SlotState {
    /// The log is not done with it.
    Waiting,
    /// To be applied as soon as those before it are; the commit is complete when this is dropped.
    Ready(Commit),
    /// Given up.
    Abandoned,
}

/// Bits of [`WriterSeries::staged`] for the number within a batch; a slice has at most that many samples.
const STAGED_INDEX_BITS: u32 = 12;
const _: () = assert!(crate::storage::head::route::SLICE_LEN_MAX <= 1 << STAGED_INDEX_BITS);

/// Samples whose series are fetched from memory together.
const TOUCHED_AHEAD: usize = 16;

/// Room for series that are not in a segment yet, beyond which it is given back: many may come at once.
const YOUNG_ROOM_MAX: usize = 2 * RESTORED_TAIL_LEN_MAX;

/// A series that is not in a segment yet, for lookups by labels.
#[derive(Debug)]
struct YoungSeries {
    hash: u64,
    labels: Labels,
    id: SeriesId,
}

/// One shard's series. One thread at a time writes it, which holds the shard's lock; readers use the index and the cells that
/// it publishes.
#[derive(Debug)]
pub(crate) struct Partition {
    shard: ShardId,
    pub(super) shared: Arc<HeadShared>,
    pub(super) readers: Arc<ShardReaders>,
    pub(super) table: SeriesTable,
    young: HashTable<YoungSeries>,
    staged: VecDeque<Slot>,
    /// Number of the first slot in the queue.
    first_slot: u64,
    pub(super) index: Arc<Index>,
    pub(super) truncation: Option<super::truncate::Truncation>,
    pub(super) late_drop: Option<super::truncate::LateDrop>,
    /// Finished chunks that are to be written.
    pub(super) chunk_writes: ChunkWrites,
    pub(super) eviction: Option<super::ended::Eviction>,
    /// Series that have left before their time, with their newest sample: the log may still have samples of them.
    pub(super) evicted: super::ended::Newests,
    /// Series that are gone and still stand in segments.
    pub(super) gone_in_index: usize,
    /// What the log says of series; empty unless something wants it there.
    pub(super) metadata: HashMap<SeriesRef, Arc<SeriesMetadata>, foldhash::fast::FixedState>,
}

impl Partition {
    pub(crate) fn new(shard: ShardId, shared: Arc<HeadShared>, readers: Arc<ShardReaders>) -> Self {
        Self {
            shard,
            shared,
            readers,
            table: SeriesTable::default(),
            young: HashTable::new(),
            staged: VecDeque::new(),
            first_slot: 0,
            index: Arc::default(),
            truncation: None,
            late_drop: None,
            chunk_writes: ChunkWrites::default(),
            eviction: None,
            evicted: HashMap::default(),
            gone_in_index: 0,
            metadata: HashMap::default(),
        }
    }

    /// Checks `slice`; returns the number of its slot in the queue, what is to be logged, and what became of it.
    pub(crate) fn stage(&mut self, bounds: AppendBounds, mut slice: Slice) -> (u64, Arc<StagedBatch>, AppendReport) {
        let slot = self.first_slot + self.staged.len() as u64;
        let samples = spare::list(&SPARE, slice.known.len() + slice.samples.len());
        let mut batch = StagedBatch { samples, epoch: bounds.epoch(), ..StagedBatch::default() };
        let mut report = AppendReport::default();
        let late = slice.late;
        let policy = self.shared.starts;
        for (index, sample) in (0..).zip(slice.known.drain(..)) {
            let AppendSample { series, at, value } = sample;
            if let SeriesKey::Known(handle) = series
                && let Some(staged) = self.stage_usual(bounds, slot, (handle.series, at.0, value), batch.samples.len())
            {
                batch.samples.push(staged);
                report.appended += 1;
                continue;
            }
            let sample = RoutedSample { index, at, value, key: series.into() };
            if let Err(rejection) = self.stage_sample((bounds, late), slot, sample, &mut batch, &mut report) {
                self.count_rejection(rejection, false, bounds.behind_newest(at.0));
                report.rejected.push((index, rejection));
            }
        }
        spare::keep_samples(slice.known);
        let mut starts = StartsOf(slice.sample_starts.into_iter().peekable());
        for (place_in_slice, sample) in (0..).zip(slice.samples) {
            let (index, at) = (sample.index, sample.at);
            let start = starts.of(place_in_slice);
            if let Some(start) = start.filter(|_| policy.zero_samples) {
                let zero = RoutedSample { at: TimestampMs(start), value: 0.0, key: sample.key.clone(), index };
                self.stage_zero(bounds, slot, at, zero, &mut batch, &mut report);
            }
            let (before, late_before) = (batch.samples.len(), batch.late.len());
            if let Err(rejection) = self.stage_sample((bounds, late), slot, sample, &mut batch, &mut report) {
                self.count_rejection(rejection, false, bounds.behind_newest(at.0));
                report.rejected.push((index, rejection));
            }
            if let Some(start) = start.filter(|_| policy.stored) {
                if before < batch.samples.len() {
                    batch.sample_starts.push((place(before), start));
                }
                batch.start_late(late_before, start);
            }
        }
        let mut starts = StartsOf(slice.histogram_starts.into_iter().peekable());
        for (place_in_slice, histogram) in (0..).zip(slice.histograms) {
            let (index, at) = (histogram.index, histogram.at);
            let start = starts.of(place_in_slice);
            if let Some(start) = start.filter(|_| policy.zero_samples) {
                let (start, key) = (TimestampMs(start), histogram.key.clone());
                let zero = RoutedHistogram { at: start, value: zero_of(&histogram.value), key, index };
                self.stage_zero_histogram(bounds, slot, at, zero, &mut batch, &mut report);
            }
            let (before, late_before) = (batch.histograms.len(), batch.late.len());
            if let Err(rejection) = self.stage_histogram((bounds, late), slot, histogram, &mut batch, &mut report) {
                self.count_rejection(rejection, true, bounds.behind_newest(at.0));
                report.rejected.push((index, rejection));
            }
            if let Some(start) = start.filter(|_| policy.stored) {
                if before < batch.histograms.len() {
                    batch.histogram_starts.push((place(before), start));
                }
                batch.start_late(late_before, start);
            }
        }
        for exemplar in slice.exemplars {
            let index = exemplar.index;
            if let Err(rejection) = self.stage_exemplar(exemplar, &mut batch) {
                report.exemplars_rejected.push((index, rejection));
            }
        }
        for (key, metadata) in slice.metadata {
            self.stage_metadata(key, metadata, &mut batch);
        }
        let batch = Arc::new(batch);
        self.staged.push_back(Slot { batch: Arc::clone(&batch), state: SlotState::Waiting });
        (slot, batch, report)
    }

    /// After a panic while staging: makes what series know of staged samples agree with the queue again.
    pub(crate) fn repair_staging(&mut self) {
        for slot in 0..self.table.slot_count() {
            if let Some(series) = self.table.get_mut(self.table.id_at(slot)) {
                series.staged = NOT_STAGED;
            }
        }
        self.mark_staged(|_| true);
    }

    /// Points series at their newest samples in the queue.
    fn mark_staged(&mut self, concerns: impl Fn(SeriesId) -> bool) {
        for (at, slot) in (self.first_slot..).zip(&self.staged) {
            for (index, id) in slot.batch.ids().enumerate() {
                if concerns(id)
                    && let Some(series) = self.table.get_mut(id)
                {
                    series.staged = pack_staged(at, index);
                }
            }
        }
    }

    #[inline]
    fn stage_sample(
        &mut self,
        (bounds, late): (AppendBounds, LateSamples),
        slot: u64,
        sample: RoutedSample,
        batch: &mut StagedBatch,
        report: &mut AppendReport,
    ) -> Result<(), SampleRejection> {
        if let RoutedKey::Known(reference) = sample.key
            && let Some(staged) =
                self.stage_usual(bounds, slot, (reference, sample.at.0, sample.value), batch.samples.len())
        {
            batch.samples.push(staged);
            report.appended += 1;
            return Ok(());
        }
        let found = self.resolve(bounds, sample.index, sample.at, sample.key, report)?;
        let (t, staged) = (sample.at.0, found.staged);
        let newest = self.newest(&found, slot, batch);
        let new = Newest::Float(sample.value.to_bits());
        let mut order = place_of(bounds, newest, t, new);
        if order.is_err() && self.is_newer_than_stored(&found, t, new) {
            report.against_staged.push(sample.index);
        }
        if order.is_err() && self.has_returned(bounds, &found, newest.map(|(t, _)| t), t) {
            order = Ok(Order::Returned);
        }
        match order? {
            Order::Newer => {}
            Order::Returned => {
                let value = LateValue::of_float(sample.value, newest);
                return self.stage_late((bounds, LateSamples::Taken), slot, found, (t, value), batch, report);
            }
            // An equal repetition of a stored sample has nothing to do. One of a staged sample is staged as well: it
            // must be stored even if the other is given up.
            Order::Repeated if staged != NOT_STAGED => {}
            Order::Repeated => {
                report.appended += 1;
                return Ok(());
            }
            Order::Late => {
                let value = LateValue::of_float(sample.value, newest);
                return self.stage_late((bounds, late), slot, found, (t, value), batch, report);
            }
        }
        let (series, id) = (found.series, found.id);
        self.stage_series(found, slot, batch.samples.len(), batch);
        batch.samples.push(StagedSample { series, t, value: sample.value, id });
        report.appended += 1;
        Ok(())
    }

    /// The usual sample, of a series that the log knows and that has nothing in the queue, in one look at the series: what
    /// [`Self::stage_sample`] does with one that is newer. `None` for any other; nothing was done then.
    #[inline]
    fn stage_usual(
        &mut self,
        bounds: AppendBounds,
        slot: u64,
        (reference, t, value): (SeriesRef, i64, f64),
        place_in_batch: usize,
    ) -> Option<StagedSample> {
        if !bounds.takes_in_order(t) {
            return None;
        }
        let id = self.table.find(reference)?;
        let series = self.table.get_mut(id)?;
        if series.staged != NOT_STAGED || !series.logged || !series.is_older_than(t) {
            return None;
        }
        series.staged = pack_staged(slot, place_in_batch);
        Some(StagedSample { series: reference, t, value, id })
    }

    /// As [`Self::stage_sample`], for a histogram. All samples of the slice are staged by now.
    fn stage_histogram(
        &mut self,
        (bounds, late): (AppendBounds, LateSamples),
        slot: u64,
        sample: RoutedHistogram,
        batch: &mut StagedBatch,
        report: &mut AppendReport,
    ) -> Result<(), SampleRejection> {
        if bounds.admits(sample.at) {
            sample.value.validate()?;
        }
        let found = self.resolve(bounds, sample.index, sample.at, sample.key, report)?;
        let (t, staged) = (sample.at.0, found.staged);
        let newest = self.newest(&found, slot, batch);
        let new = Newest::from(&sample.value);
        let mut order = place_of(bounds, newest, t, new);
        if order.is_err() && self.is_newer_than_stored(&found, t, new) {
            report.against_staged.push(sample.index);
        }
        if order.is_err() && self.has_returned(bounds, &found, newest.map(|(t, _)| t), t) {
            order = Ok(Order::Returned);
        }
        match order? {
            Order::Newer => {}
            Order::Returned => {
                let value = LateValue::Histogram(sample.value);
                return self.stage_late((bounds, LateSamples::Taken), slot, found, (t, value), batch, report);
            }
            Order::Repeated if staged != NOT_STAGED => {}
            Order::Repeated => {
                report.appended += 1;
                return Ok(());
            }
            Order::Late => {
                let value = LateValue::Histogram(sample.value);
                return self.stage_late((bounds, late), slot, found, (t, value), batch, report);
            }
        }
        let (series, id) = (found.series, found.id);
        self.stage_series(found, slot, batch.samples.len() + batch.histograms.len(), batch);
        batch.histograms.push(StagedHistogram { series, t, value: sample.value, id });
        report.appended += 1;
        Ok(())
    }

    /// Stages a sample that came out of order; one of the same time in the open chunk makes it a repetition, whatever its value.
    fn stage_late(
        &mut self,
        (bounds, late): (AppendBounds, LateSamples),
        slot: u64,
        found: FoundSeries,
        (t, value): (i64, LateValue),
        batch: &mut StagedBatch,
        report: &mut AppendReport,
    ) -> Result<(), SampleRejection> {
        let is_refused = match late {
            LateSamples::Taken => false,
            LateSamples::MarkersRefused => value.is_stale(),
            LateSamples::Refused => true,
        };
        if is_refused {
            return Err(SampleRejection::OutOfOrder);
        }
        self.shared.counters.late_by.observe(bounds.behind_newest(t));
        report.appended += 1;
        if self.readers.late.load().repeats(found.series, t, batch.epoch) {
            return Ok(());
        }
        let is_named = found.staged != NOT_STAGED && slot_of(found.staged) == slot_field(slot);
        if !found.logged && !is_named && batch.named.insert(found.id) {
            let labels = found.labels.or_else(|| self.young_labels(found.id));
            let (labels, hash) = labels.expect("a series not yet logged is young");
            batch.new_series.push(NewSeries { series: found.series, labels, hash, id: found.id });
        }
        batch.late.push(StagedLate { series: found.series, t, start: 0, value, id: found.id });
        Ok(())
    }

    /// Series of late samples that wait in the queue: they must stay in the table.
    pub(super) fn staged_late(&self) -> hashbrown::HashSet<SeriesId> {
        self.staged.iter().flat_map(|slot| slot.batch.late.iter().map(|late| late.id)).collect()
    }

    /// Stages the zero at the start of a sample at `t`, where it may stand; else nothing, without a word.
    fn stage_zero(
        &mut self,
        bounds: AppendBounds,
        slot: u64,
        t: TimestampMs,
        zero: RoutedSample,
        batch: &mut StagedBatch,
        report: &mut AppendReport,
    ) {
        let newest = self.newest_t(&zero.key, slot, batch);
        if takes_zero(zero.at.0, t, newest, |at| bounds.takes_in_order(at.0)).is_ok() {
            let mut own = AppendReport::default();
            // Whatever is against it is against the sample as well, which tells.
            let _ = self.stage_sample((bounds, LateSamples::Refused), slot, zero, batch, &mut own);
            report.created += own.created;
        }
    }

    /// The same for a histogram.
    fn stage_zero_histogram(
        &mut self,
        bounds: AppendBounds,
        slot: u64,
        t: TimestampMs,
        zero: RoutedHistogram,
        batch: &mut StagedBatch,
        report: &mut AppendReport,
    ) {
        let newest = self.newest_t(&zero.key, slot, batch);
        if takes_zero(zero.at.0, t, newest, |at| bounds.takes_in_order(at.0)).is_ok() {
            let mut own = AppendReport::default();
            let _ = self.stage_histogram((bounds, LateSamples::Refused), slot, zero, batch, &mut own);
            report.created += own.created;
        }
    }

    /// Time of the newest sample of a series, staged ones included; `None` if there is none.
    fn newest_t(&self, key: &RoutedKey, slot: u64, batch: &StagedBatch) -> Option<i64> {
        let id = match key {
            RoutedKey::Known(series) => self.table.find(*series),
            RoutedKey::Labels(labels, hash) => self.find(labels, *hash),
        };
        let series = self.table.get(id?)?;
        match series.staged {
            NOT_STAGED => series.last().map(|(t, _)| t),
            packed => Some(self.staged_value(packed, slot, batch).0),
        }
    }

    /// Checks an exemplar against those that are stored. Its series has been logged, or has samples that wait for it: those of
    /// a commit are logged together, series first.
    fn stage_exemplar(&self, new: RoutedExemplar, batch: &mut StagedBatch) -> Result<(), ExemplarRejection> {
        if !self.shared.exemplars.is_enabled() {
            return Ok(());
        }
        let RoutedExemplar { series: labels, hash, exemplar, .. } = new;
        let id = self.find(&labels, hash);
        let known = self.known(id, batch);
        let series = known.ok_or(ExemplarRejection::UnknownSeries)?.cell.series();
        if self.shared.exemplars.check(&labels, hash, &exemplar)? == Verdict::Store {
            batch.exemplars.push(StagedExemplar { series, exemplar, labels, hash });
        }
        Ok(())
    }

    /// A series that the log names, or is about to name together with what waits.
    fn known(&self, id: Option<SeriesId>, batch: &StagedBatch) -> Option<&WriterSeries> {
        let series = self.table.get(id?)?;
        let is_named = id.is_some_and(|id| batch.named.contains(&id));
        (series.logged || series.staged != NOT_STAGED || is_named).then_some(series)
    }

    /// Notes metadata that is news, of a series that is there as for an exemplar.
    fn stage_metadata(&self, key: RoutedKey, metadata: Arc<SeriesMetadata>, batch: &mut StagedBatch) {
        let id = match key {
            RoutedKey::Known(series) => self.table.find(series),
            RoutedKey::Labels(labels, hash) => self.find(&labels, hash),
        };
        let Some(series) = self.known(id, batch).map(|series| series.cell.series()) else { return };
        if self.metadata.get(&series) != Some(&metadata) {
            batch.metadata.push(StagedMetadata { series, metadata });
        }
    }

    /// Finds or creates the series of a sample.
    #[inline]
    fn resolve(
        &mut self,
        bounds: AppendBounds,
        index: u32,
        at: TimestampMs,
        key: RoutedKey,
        report: &mut AppendReport,
    ) -> Result<FoundSeries, SampleRejection> {
        let in_bounds = bounds.admits(at);
        let (id, labels) = match key {
            RoutedKey::Known(series) => (self.table.find(series).ok_or(SampleRejection::UnknownSeries)?, None),
            RoutedKey::Labels(labels, hash) => {
                let id = match self.find(&labels, hash) {
                    Some(id) => id,
                    None if !in_bounds => return Err(bounds.refusal(at)),
                    None => self.create(&labels, hash, report)?,
                };
                (id, Some((labels, hash)))
            }
        };
        let series = self.table.get(id).expect("a series that was found is in the table");
        let (reference, staged, logged) = (series.cell.series(), series.staged, series.logged);
        if labels.is_some() {
            report.resolved.push((index, SeriesHandle { series: reference, shard: self.shard }));
        }
        if !in_bounds {
            return Err(bounds.refusal(at));
        }
        Ok(FoundSeries { id, series: reference, staged, logged, labels })
    }

    /// The newest sample of a series, staged ones included, with its time.
    #[inline]
    fn newest<'a>(&'a self, found: &FoundSeries, slot: u64, current: &'a StagedBatch) -> Option<(i64, Newest<'a>)> {
        match found.staged {
            NOT_STAGED => self.table.get(found.id)?.last(),
            packed => Some(self.staged_value(packed, slot, current)),
        }
    }

    /// True for a sample that only such samples of its series stand against as are newer than there can be: the clock was ahead when
    /// they came. Where the series holds samples right behind it, it is the clock of now that is wrong, unless that is known to be right
    /// or the series has gone on in this way before.
    fn has_returned(&self, bounds: AppendBounds, found: &FoundSeries, newest: Option<i64>, t: i64) -> bool {
        let Some(free) = bounds.free_if_returned(t, newest) else { return false };
        if bounds.is_return_known() {
            return true;
        }
        let column = self.table.get(found.id).and_then(WriterSeries::column);
        // Chunks that cannot be read tell nothing.
        if column.is_none_or(|column| column.is_free(free).unwrap_or(false)) {
            return true;
        }
        let late = self.readers.late.load().get(found.series);
        let overlaps = |range: TimeRange, (min_t, max_t)| range.overlaps(TimestampMs(min_t), TimestampMs(max_t));
        let around = bounds.around(t);
        late.zip(around).is_some_and(|(late, around)| late.spans(u64::MAX).any(|span| overlaps(around, span)))
    }

    /// True if only staged samples stand against a sample: what is stored does not.
    fn is_newer_than_stored(&self, found: &FoundSeries, t: i64, new: Newest<'_>) -> bool {
        let stored = self.table.get(found.id).and_then(|series| series.last());
        found.staged != NOT_STAGED && matches!(order_of(stored, t, new), Ok(Order::Newer))
    }

    /// Points the series at its sample number `index` of this slot; names it in the batch unless the log has its record.
    #[inline]
    fn stage_series(&mut self, found: FoundSeries, slot: u64, index: usize, batch: &mut StagedBatch) {
        let first_of_series = found.staged == NOT_STAGED || slot_of(found.staged) != slot_field(slot);
        if !found.logged && first_of_series {
            let labels = found.labels.or_else(|| self.young_labels(found.id));
            let (labels, hash) = labels.expect("a series not yet logged is young");
            batch.new_series.push(NewSeries { series: found.series, labels, hash, id: found.id });
        }
        if let Some(series) = self.table.get_mut(found.id) {
            series.staged = pack_staged(slot, index);
        }
    }

    /// The series with these labels.
    fn find(&self, labels: &Labels, hash: u64) -> Option<SeriesId> {
        if let Some(young) = self.young.find(hash, |young| young.hash == hash && young.labels == *labels) {
            return Some(young.id);
        }
        // Newest first: a series that is gone may stand in an older segment with the same labels.
        self.index
            .segments
            .iter()
            .rev()
            .find_map(|segment| segment.find(labels, hash).find_map(|cell| self.table.find(cell.series())))
    }

    fn create(&mut self, labels: &Labels, hash: u64, report: &mut AppendReport) -> Result<SeriesId, SampleRejection> {
        if labels.is_empty() {
            return Err(SampleRejection::EmptyLabels);
        }
        let limit = self.shared.series_limit;
        self.shared.reserve_series().map_err(|held| SampleRejection::SeriesLimit { held, limit })?;
        let Some(id) = self.table.insert(WriterSeries::new(self.shared.new_ref())) else {
            self.shared.release_series(1);
            let (held, limit) = (self.shared.series_count(), SERIES_PER_SHARD_MAX as u64);
            return Err(SampleRejection::SeriesLimit { held, limit });
        };
        self.young.insert_unique(hash, YoungSeries { hash, labels: labels.clone(), id }, |young| young.hash);
        count(&self.shared.counters.series_created, 1);
        report.created += 1;
        Ok(id)
    }

    fn young_labels(&self, id: SeriesId) -> Option<(Labels, u64)> {
        self.young.iter().find(|young| young.id == id).map(|young| (young.labels.clone(), young.hash))
    }

    /// A staged sample with its time; those of the slot being filled are in `current`.
    fn staged_value<'a>(&'a self, packed: u32, current_slot: u64, current: &'a StagedBatch) -> (i64, Newest<'a>) {
        let index = (packed & ((1 << STAGED_INDEX_BITS) - 1)) as usize;
        let behind = (SLOT_FIELDS + current_slot % SLOT_FIELDS - u64::from(slot_of(packed))) % SLOT_FIELDS;
        let batch = match usize::try_from(current_slot - behind - self.first_slot).ok() {
            Some(at) if at < self.staged.len() => &self.staged[at].batch,
            _ => current,
        };
        if let Some(sample) = batch.samples.get(index) {
            return (sample.t, Newest::Float(sample.value.to_bits()));
        }
        let histogram = index.checked_sub(batch.samples.len()).and_then(|index| batch.histograms.get(index));
        let histogram = histogram.expect("series point at samples that wait in the queue");
        (histogram.t, Newest::from(&histogram.value))
    }

    /// Puts a series from the log into the table and the index; if its labels are there already, returns that series.
    /// `None` when the shard is full. No limit but the table's holds: what was promised before comes back.
    pub(super) fn restore_series(&mut self, reference: SeriesRef, labels: &Labels) -> Option<(SeriesId, SeriesRef)> {
        let hash = labels.hash64();
        if let Some(id) = self.find(labels, hash) {
            return self.table.get(id).map(|series| (id, series.cell.series()));
        }
        let id = self.table.insert(WriterSeries::restoring(reference))?;
        self.shared.restored_series();
        self.young.insert_unique(hash, YoungSeries { hash, labels: labels.clone(), id }, |young| young.hash);
        if self.index.tail.is_full() {
            self.seal_tail_for(RESTORED_TAIL_LEN_MAX);
        }
        self.enter_index(&NewSeries { series: reference, labels: labels.clone(), hash, id });
        Some((id, reference))
    }

    /// Readers scan the tail from now on.
    pub(super) fn settle_tail(&mut self) {
        if TAIL_LEN_MAX < self.index.tail.room() {
            self.seal_tail();
        }
    }

    /// The place of the series with these labels.
    pub(super) fn restored(&self, labels: &Labels) -> Option<SeriesId> {
        self.find(labels, labels.hash64())
    }

    /// Marks a staged batch as logged, and applies all batches that are ready; the commit handle goes with it.
    pub(crate) fn apply(&mut self, slot: u64, commit: Commit) {
        if let Some(slot) = self.slot_mut(slot) {
            slot.state = SlotState::Ready(commit);
            let batch = Arc::clone(&slot.batch);
            batch.store_exemplars(&self.shared.exemplars);
            for one in &batch.metadata {
                self.metadata.insert(one.series, Arc::clone(&one.metadata));
            }
        }
        self.apply_ready();
    }

    /// Applies the batches at the front of the queue that are ready.
    pub(crate) fn apply_ready(&mut self) {
        while let Some(Slot { state: SlotState::Ready(_) | SlotState::Abandoned, .. }) = self.staged.front() {
            let Some(front) = self.staged.pop_front() else { break };
            let slot = self.first_slot;
            self.first_slot += 1;
            if let SlotState::Ready(commit) = front.state {
                // Shared, as the marks outlive the borrow of the queue; dropped before the commit's handle.
                let readers = Arc::clone(&self.readers);
                let marks = Applying::begin(&readers);
                self.apply_batch(slot, &front.batch, &commit);
                marks.done();
                // Dropping the commit's handle, last of all, makes it visible once its other parts are applied.
            }
        }
    }

    /// Gives up a staged batch.
    pub(crate) fn abandon(&mut self, slot: u64) {
        let Some(found) = self.slot_mut(slot) else { return };
        found.state = SlotState::Abandoned;
        let touched: hashbrown::HashSet<SeriesId> = std::mem::take(&mut found.batch).ids().collect();
        count(&self.shared.counters.commits_abandoned, 1);
        for id in &touched {
            if let Some(series) = self.table.get_mut(*id) {
                series.staged = NOT_STAGED;
            }
        }
        // What other batches in the queue hold for these series counts again.
        self.mark_staged(|id| touched.contains(&id));
    }

    fn slot_mut(&mut self, slot: u64) -> Option<&mut Slot> {
        let at = usize::try_from(slot.checked_sub(self.first_slot)?).ok()?;
        self.staged.get_mut(at)
    }

    fn apply_batch(&mut self, slot: u64, batch: &StagedBatch, commit: &Commit) {
        let (rules, low) = (self.shared.rules, self.shared.horizon.low_watermark());
        let writes_chunks = self.shared.chunk_store().is_some_and(|store| store.is_open());
        let (mut appended, mut histograms, mut chunks) = (0, 0, 0);
        let (mut min_t, mut max_t) = (i64::MAX, i64::MIN);
        for (at, sample) in batch.samples.iter().enumerate() {
            if cfg!(debug_assertions) && at == batch.samples.len() / 2 {
                self.readers.may_tear();
            }
            if at % TOUCHED_AHEAD == 0 {
                self.touch(batch.samples.get(at..).unwrap_or_default());
            }
            let series = self.table.get_mut(sample.id).expect("a series with staged samples stays in the table");
            if slot_of(series.staged) == slot_field(slot) {
                series.staged = NOT_STAGED;
            }
            match series.append(sample.t, sample.value, commit.id(), low, &rules) {
                Appended::InChunk => appended += 1,
                Appended::NewChunk => {
                    appended += 1;
                    chunks += 1;
                    if writes_chunks && let Some(held) = series.held_chunks() {
                        self.chunk_writes.finished(sample.id, held.held_len());
                    }
                }
                // A repetition of a sample that was staged twice.
                Appended::NotNewer => continue,
            }
            min_t = min_t.min(sample.t);
            max_t = max_t.max(sample.t);
        }
        for sample in &batch.histograms {
            let series = self.table.get_mut(sample.id).expect("a series with staged samples stays in the table");
            if slot_of(series.staged) == slot_field(slot) {
                series.staged = NOT_STAGED;
            }
            match series.append_histogram(sample.t, &sample.value, commit.id(), low, &rules) {
                Appended::InChunk => {}
                Appended::NewChunk => {
                    chunks += 1;
                    if writes_chunks && let Some(held) = series.held_chunks() {
                        self.chunk_writes.finished(sample.id, held.held_len());
                    }
                }
                Appended::NotNewer => continue,
            }
            histograms += 1;
            min_t = min_t.min(sample.t);
            max_t = max_t.max(sample.t);
        }
        for new in &batch.new_series {
            self.enter_index(new);
        }
        if !batch.late.is_empty() {
            let (late_floats, late_histograms, late_chunks) = self.apply_late(batch, commit, low);
            appended += late_floats;
            histograms += late_histograms;
            chunks += late_chunks;
        }
        if self.shared.starts.stored {
            self.note_starts(batch);
        }
        if min_t <= max_t {
            self.shared.widen_span(min_t, max_t);
        }
        count(&self.shared.counters.samples_appended, appended);
        count(&self.shared.counters.histograms_appended, histograms);
        count(&self.shared.counters.chunks_created, chunks);
    }

    /// Reads what appending to the first of these samples' series will need. A head is larger than any cache: the memory of
    /// several series is fetched at once this way, where appending would wait for each.
    fn touch(&self, samples: &[StagedSample]) {
        let series = samples.iter().take(TOUCHED_AHEAD).filter_map(|sample| self.table.get(sample.id));
        std::hint::black_box(series.fold(0, |sum, series| sum ^ series.touch()));
    }

    /// Puts what came out of order in its place; returns how many floats, histograms and chunks are new.
    fn apply_late(&mut self, batch: &StagedBatch, commit: &Commit, low: CommitId) -> (u64, u64, u64) {
        let table = self.readers.late.load_full();
        let rules = LateRules { epoch: batch.epoch, low, chunk_len: self.shared.late_chunk_len };
        let writes_chunks = self.shared.chunk_store().is_some_and(|store| store.is_open());
        let (mut floats, mut histograms, mut chunks) = (0, 0, 0);
        for late in &batch.late {
            let series = self.table.get(late.id).expect("a series with staged samples stays in the table");
            let (t, start, value) = (late.t, late.start, late.value.clone());
            let sample = LateSample { t, start, commit: commit.id(), value };
            let Inserted::Taken { new_chunks, has_closed } = table.insert(late.series, sample, rules) else { continue };
            series.cell.set_late(true);
            chunks += new_chunks;
            if has_closed && writes_chunks {
                self.chunk_writes.finished_late(late.id);
            }
            match &late.value {
                LateValue::Float(_) => floats += 1,
                LateValue::Histogram(_) => histograms += 1,
            }
        }
        count(&self.shared.counters.late_floats, floats);
        count(&self.shared.counters.late_histograms, histograms);
        (floats, histograms, chunks)
    }

    fn note_starts(&self, batch: &StagedBatch) {
        let starts = &self.readers.starts;
        let mut own = StartsOf(batch.sample_starts.clone().into_iter().peekable());
        for (at, sample) in (0..).zip(&batch.samples) {
            starts.note(sample.series, sample.t, own.of(at).unwrap_or(0));
        }
        let mut own = StartsOf(batch.histogram_starts.clone().into_iter().peekable());
        for (at, sample) in (0..).zip(&batch.histograms) {
            starts.note(sample.series, sample.t, own.of(at).unwrap_or(0));
        }
    }

    /// Shows a series to readers. Its record is in the log by now.
    fn enter_index(&mut self, new: &NewSeries) {
        if self.index.tail.is_full() {
            self.seal_tail();
        }
        let series = self.table.get_mut(new.id).expect("a series with staged samples stays in the table");
        series.logged = true;
        if !series.indexed {
            series.indexed = true;
            let entry = TailEntry { labels: new.labels.clone(), hash: new.hash, cell: Arc::clone(&series.cell) };
            self.index.tail.push(entry).expect("a tail that is not full has room");
        }
    }

    /// Turns the tail into a segment and begins another.
    pub(super) fn seal_tail(&mut self) {
        self.seal_tail_for(TAIL_LEN_MAX);
    }

    /// The same, with room for `len_max` series in the next one.
    fn seal_tail_for(&mut self, len_max: usize) {
        let mut segments = self.index.segments.clone();
        let segment = build::from_tail(self.index.tail.iter(self.index.tail.len()));
        if 0 < segment.len() {
            segments.push(Arc::new(segment));
        }
        self.publish(Index { segments, tail: Arc::new(Tail::with_room(len_max)) });
        let table = &self.table;
        self.young.retain(|young| table.get(young.id).is_some_and(|series| !series.indexed));
        if YOUNG_ROOM_MAX < self.young.capacity() {
            self.young.shrink_to(2 * self.young.len().max(TAIL_LEN_MAX), |young| young.hash);
        }
    }

    pub(super) fn publish(&mut self, index: Index) {
        self.index = Arc::new(index);
        self.readers.index.store(Arc::clone(&self.index));
    }

    /// Forgets young series that have left the table.
    pub(super) fn forget_removed(&mut self) {
        let table = &self.table;
        self.young.retain(|young| table.get(young.id).is_some());
        self.metadata.retain(|series, _| table.find(*series).is_some());
    }

    fn count_rejection(&self, rejection: SampleRejection, is_histogram: bool, behind_newest_ms: i64) {
        let counters = &self.shared.counters;
        if matches!(rejection, SampleRejection::OutOfOrder | SampleRejection::TooOld) {
            counters.late_by.observe(behind_newest_ms);
            count(
                &counters.out_of_order_histograms,
                u64::from(is_histogram && rejection == SampleRejection::OutOfOrder),
            );
        }
        count(
            match rejection {
                SampleRejection::OutOfOrder => &counters.out_of_order,
                SampleRejection::TooOld if is_histogram => &counters.too_old_histograms,
                SampleRejection::TooOld => &counters.too_old,
                SampleRejection::OutOfBounds => &counters.out_of_bounds,
                SampleRejection::Duplicate { .. }
                | SampleRejection::DuplicateOfHistogram { .. }
                | SampleRejection::DuplicateHistogram => &counters.duplicates,
                SampleRejection::UnknownSeries => &counters.series_not_found,
                SampleRejection::InvalidHistogram(_) => &counters.invalid_histograms,
                SampleRejection::SeriesLimit { .. } | SampleRejection::EmptyLabels => &counters.series_refused,
            },
            1,
        );
    }
}

/// How a sample stands to the newest of its series.
enum Order {
    Newer,
    /// Same time, same bits.
    Repeated,
    /// Older, and within the window for late samples.
    Late,
    /// Right, and held up by samples that are newer than there can be.
    Returned,
}

/// Where a sample goes, by Prometheus's rules: in order if it can, else to the late ones if it may.
fn place_of(
    bounds: AppendBounds,
    newest: Option<(i64, Newest<'_>)>,
    t: i64,
    new: Newest<'_>,
) -> Result<Order, SampleRejection> {
    let refusal = if bounds.takes_in_order(t) {
        match order_of(newest, t, new) {
            Err(SampleRejection::OutOfOrder) => SampleRejection::OutOfOrder,
            decided => return decided,
        }
    } else {
        SampleRejection::OutOfBounds
    };
    match bounds.lateness(t) {
        Lateness::NoWindow => Err(refusal),
        Lateness::Within => Ok(Order::Late),
        Lateness::TooOld => Err(SampleRejection::TooOld),
    }
}

fn order_of(newest: Option<(i64, Newest<'_>)>, t: i64, new: Newest<'_>) -> Result<Order, SampleRejection> {
    let Some((last, existing)) = newest.filter(|(last, _)| t <= *last) else { return Ok(Order::Newer) };
    if t < last {
        return Err(SampleRejection::OutOfOrder);
    }
    let is_same = match (existing, new) {
        (Newest::Float(existing), Newest::Float(new)) => {
            if existing != new {
                let (existing, new) = (f64::from_bits(existing), f64::from_bits(new));
                return Err(SampleRejection::Duplicate { at: t, existing, new });
            }
            true
        }
        (_, Newest::Float(new)) => {
            return Err(SampleRejection::DuplicateOfHistogram { at: t, new: f64::from_bits(new) });
        }
        (Newest::Whole(existing), Newest::Whole(new)) => new.equals(existing),
        (Newest::FloatHistogram(existing), Newest::FloatHistogram(new)) => new.equals(existing),
        _ => false,
    };
    if is_same { Ok(Order::Repeated) } else { Err(SampleRejection::DuplicateHistogram) }
}

/// The series of a sample that is being staged.
struct FoundSeries {
    id: SeriesId,
    series: SeriesRef,
    /// As the series has it.
    staged: u32,
    logged: bool,
    /// With their hash, where the sample has them.
    labels: Option<(Labels, u64)>,
}

impl Drop for Partition {
    /// The head counts what its partitions hold.
    fn drop(&mut self) {
        let ids = (0..self.table.slot_count()).map(|slot| self.table.id_at(slot));
        let columns = ids.filter_map(|id| self.table.get(id)?.column());
        let chunks: usize = columns.map(|column| column.chunk_count()).sum();
        let late = self.readers.late.load().chunk_count();
        count(&self.shared.counters.chunks_removed, chunks as u64 + late);
        self.shared.release_series(self.table.len() as u64);
    }
}

/// Slot numbers as series keep them; never all ones, so that [`NOT_STAGED`] is none of them.
const SLOT_FIELDS: u64 = (1 << (32 - STAGED_INDEX_BITS)) - 1;

fn slot_field(slot: u64) -> u32 {
    (slot % SLOT_FIELDS) as u32
}

fn slot_of(packed: u32) -> u32 {
    packed >> STAGED_INDEX_BITS
}

fn pack_staged(slot: u64, index: usize) -> u32 {
    debug_assert!(index < 1 << STAGED_INDEX_BITS);
    slot_field(slot) << STAGED_INDEX_BITS | index as u32
}
