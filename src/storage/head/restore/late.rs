//! Samples that came out of order: from the log of those, and from the files that hold chunks of them.
//!
//! What files hold is told by the times in them, so markers of the log are not needed for that. But what a marker says has to be true:
//! Prometheus forgets what it has of a series before it as soon as some chunk stands behind the place that it names. After damage, a
//! power cut, or a kill of a program that writes markers first, samples before one may stand in no file. Those are written
//! once more, behind it.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::collections::{HashMap, HashSet};

use crate::model::append::HistogramValue;
use crate::model::sample::SeriesRef;
use crate::storage::head::late::{LateSample, LateValue, WrittenLate};
use crate::storage::head::restore::late_times::{FoundChunk, FoundLate, LateOfFiles, Times};
use crate::storage::head::restore::{Restorer, is_sound};
use crate::storage::head::table::SERIES_REF_MAX;
use crate::storage::wal::histogram_record::{encode_histograms, encode_started_histograms};
use crate::storage::wal::marker_record::RefMarker;
use crate::storage::wal::record::{Record, RefSample, encode_samples, encode_started_samples};

/// What files hold of late samples, by series: shard and number there.
#[derive(Default)]
pub(super) struct LateInChunks {
    series: HashMap<(u16, u32), LateOfFiles, foldhash::fast::FixedState>,
    /// Of their chunks' times.
    places: Vec<u32>,
    times: Times,
}

type Moments = HashSet<i64, foldhash::fast::FixedState>;

/// Late samples of a series that stand before its newest marker in the log, and in no file.
#[derive(Default)]
pub(super) struct BeforeMarker {
    /// Closed chunks that were looked at.
    closed: usize,
    /// Times of those that do not stand behind the marker as well.
    times: Moments,
    /// Of those that do.
    again: Moments,
}

impl Restorer<'_> {
    /// A marker, as the log of late samples has it. All series have been named before.
    pub(crate) fn late_marker(&mut self, marker: RefMarker) {
        let place = self.places.get(marker.series.0);
        // One without a place says that there was no chunk: what stood before it has become blocks.
        let Some(shard) = place.shard.checked_sub(1).filter(|_| marker.place != 0) else { return };
        let Some(Some(lane)) = self.lanes.get_mut(usize::from(shard)) else { return };
        let key = (shard, place.number);
        let known = self.before_markers.get(&key).map_or(0, |before| before.closed);
        let (closed, times) = lane.here().late_in_memory(place.number, known);
        if times.is_empty() && known == 0 {
            return;
        }
        let before = self.before_markers.entry(key).or_default();
        before.closed = closed;
        before.times.extend(times.into_iter().chain(before.again.drain()));
    }

    /// The records of samples that have to stand in the log once more, behind markers which say that files hold them.
    pub(crate) fn late_again(&mut self) -> Vec<Record> {
        // The log has been read.
        self.late = LateInChunks::default();
        let mut unsettled: Vec<_> = std::mem::take(&mut self.before_markers).into_iter().collect();
        unsettled.retain(|(_, before)| !before.times.is_empty());
        unsettled.sort_unstable_by_key(|(key, _)| *key);
        let mut all = Vec::new();
        for ((shard, number), before) in unsettled {
            if let Some(Some(lane)) = self.lanes.get_mut(usize::from(shard)) {
                all.extend(lane.here().late_at(number, |t| before.times.contains(&t)));
            }
        }
        let floats = || {
            all.iter().filter_map(|(series, one)| match &one.value {
                LateValue::Float(value) => Some((RefSample { series: *series, t: one.t, value: *value }, one.start)),
                LateValue::Histogram(_) => None,
            })
        };
        let histograms = || {
            all.iter().filter_map(|(series, one)| match &one.value {
                LateValue::Float(_) => None,
                LateValue::Histogram(value) => Some((*series, one.t, one.start, value)),
            })
        };
        let mut records = Vec::new();
        if self.stores_starts() {
            encode_started_samples(floats(), &mut records);
            encode_started_histograms(histograms(), &mut records);
        } else {
            encode_samples(floats().map(|(sample, _)| sample), &mut records);
            encode_histograms(histograms().map(|(series, t, _, value)| (series, t, value)), &mut records);
        }
        records
    }

    /// A sample that came out of order, as the log of those names it. All series have been named before, and there is no bound:
    /// what is too old for the head goes into blocks. A start of 0 is not known.
    pub fn late_sample(&mut self, series: SeriesRef, (t, start): (i64, i64), value: f64) {
        self.insert_late(series, LateSample::settled(t, start, LateValue::Float(value)));
    }

    /// A histogram that came out of order.
    pub fn late_histogram(&mut self, series: SeriesRef, (t, start): (i64, i64), value: &HistogramValue) {
        if is_sound(value) {
            self.insert_late(series, LateSample::settled(t, start, LateValue::Histogram(value.clone())));
        } else {
            self.stats.bad_histograms += 1;
        }
    }

    /// Samples that came out of order and of which the log need not tell: only those are new whose time no late sample of the
    /// series has. Returns how many are; `None` if the series is not known.
    pub(crate) fn late_chunk(&mut self, series: SeriesRef, samples: Vec<LateSample>) -> Option<u64> {
        let epoch = self.late_epoch;
        let place = self.places.get(series.0);
        let lane = self.lanes.get_mut(usize::from(place.shard.checked_sub(1)?))?.as_mut()?;
        lane.here().insert_late_chunk(place.number, samples, epoch)
    }

    /// How many different late samples of a series lie in a range, ends included.
    pub(crate) fn late_between(&mut self, series: SeriesRef, (min_t, max_t): (i64, i64)) -> u64 {
        let place = self.places.get(series.0);
        let lane = place.shard.checked_sub(1).and_then(|shard| self.lanes.get_mut(usize::from(shard))?.as_mut());
        lane.map_or(0, |lane| lane.here().late_between(place.number, (min_t, max_t)))
    }

    /// Whether start times are stored.
    pub(crate) fn stores_starts(&self) -> bool {
        self.head.stores_starts()
    }

    /// A reference that a file names must not become that of another series, though a power cut may have taken its own from the log.
    pub(crate) fn taken(&mut self, reference: SeriesRef) {
        if reference.0 < SERIES_REF_MAX - 1 {
            self.ref_max = self.ref_max.max(reference.0);
        }
    }

    /// Lets series begin with chunks that were found in files; the log of late samples is passed over where they hold them. All series
    /// have been named before.
    pub(crate) fn begin_late(&mut self, found: FoundLate) {
        let Some(files) = self.files.clone() else { return };
        let FoundLate { chunks, times } = found;
        let mut all: Vec<((u16, u32), &FoundChunk)> = Vec::with_capacity(chunks.iter().map(Vec::len).sum());
        for chunk in chunks.iter().flatten() {
            let place = self.places.get(chunk.series.0);
            all.extend(place.shard.checked_sub(1).map(|shard| ((shard, place.number), chunk)));
        }
        // In the order in which they were closed.
        all.sort_unstable_by_key(|(key, one)| (*key, one.chunk.place));
        let (epoch, mut moments) = (self.late_epoch, Vec::new());
        let mut held = LateInChunks { places: Vec::with_capacity(all.len()), ..LateInChunks::default() };
        for own in all.chunk_by(|a, b| a.0 == b.0) {
            let Some(((shard, number), _)) = own.first() else { continue };
            let Some(Some(lane)) = self.lanes.get_mut(usize::from(*shard)) else { continue };
            moments.clear();
            own.iter().for_each(|(_, one)| moments.extend(times.iter(one.times)));
            moments.sort_unstable();
            moments.dedup();
            let written = own.iter().map(|(_, one)| WrittenLate { chunk: one.chunk, epoch }).collect();
            lane.here().begin_late(*number, written, moments.len() as u64, &files);
            let Some(of_files) = LateOfFiles::behind(&held.places, own.len()) else { continue };
            held.series.insert((*shard, *number), of_files);
            held.places.extend(own.iter().map(|(_, one)| one.times));
        }
        self.late = LateInChunks { times, ..held };
    }

    fn insert_late(&mut self, series: SeriesRef, sample: LateSample) {
        let epoch = self.late_epoch;
        let place = self.places.get(series.0);
        let Some(shard) = place.shard.checked_sub(1) else {
            if series.0 < SERIES_REF_MAX - 1 {
                self.ref_max = self.ref_max.max(series.0);
            }
            self.stats.late_unknown_refs += 1;
            return;
        };
        let LateInChunks { series: in_files, places, times } = &mut self.late;
        if in_files.get_mut(&(shard, place.number)).is_some_and(|own| own.holds(places, times, sample.t)) {
            return;
        }
        if let Some(before) = self.before_markers.get_mut(&(shard, place.number))
            && before.times.remove(&sample.t)
        {
            // It is in memory, and stands behind the marker as well.
            before.again.insert(sample.t);
            return;
        }
        if let Some(Some(lane)) = self.lanes.get_mut(usize::from(shard)) {
            lane.here().insert_late(place.number, vec![sample], epoch);
        }
    }
}
