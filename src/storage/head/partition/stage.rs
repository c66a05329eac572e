//! Samples of a batch on their way to the log: looked up, held to the rules, and put where they belong.

use std::sync::Arc;

use crate::model::append::{AppendReport, AppendSample, LateSamples, SampleRejection, SeriesHandle, SeriesKey};
use crate::model::exemplar::ExemplarRejection;
use crate::model::labels::Labels;
use crate::model::metadata::SeriesMetadata;
use crate::model::sample::SeriesRef;
use crate::model::spare;
use crate::model::time::{TimeRange, TimestampMs};
use crate::storage::head::bounds::AppendBounds;
use crate::storage::head::exemplars::Verdict;
use crate::storage::head::late::LateValue;
use crate::storage::head::native::Newest;
use crate::storage::head::partition::order::{Order, order_of, place_of};
use crate::storage::head::partition::staged::{
    NewSeries, SPARE, StagedBatch, StagedExemplar, StagedHistogram, StagedLate, StagedMetadata, StagedSample,
};
use crate::storage::head::partition::{
    Partition, SLOT_FIELDS, STAGED_INDEX_BITS, Slot, SlotState, YoungSeries, pack_staged, slot_field, slot_of,
};
use crate::storage::head::route::{RoutedExemplar, RoutedHistogram, RoutedKey, RoutedSample, Slice, StartsOf, place};
use crate::storage::head::series::{NOT_STAGED, WriterSeries};
use crate::storage::head::shared::count;
use crate::storage::head::starts::{takes_zero, zero_of};
use crate::storage::head::table::{SERIES_PER_SHARD_MAX, SeriesId};

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

impl Partition {
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
    pub(super) fn mark_staged(&mut self, concerns: impl Fn(SeriesId) -> bool) {
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
    pub(in crate::storage::head) fn staged_late(&self) -> hashbrown::HashSet<SeriesId> {
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
    pub(super) fn find(&self, labels: &Labels, hash: u64) -> Option<SeriesId> {
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
