//! Samples that came out of order: from the log of those, and from the files that hold chunks of them.
//!
//! What files hold is told by the times in them, so markers of the log are not needed for that. But what a marker says has to be true:
//! Prometheus forgets what it has of a series before it as soon as some chunk stands behind the place that it names. After damage, a
//! power cut, or a kill of a program that writes markers first, samples before one may stand in no file. Those are written
//! once more, behind it.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::collections::HashSet;

use crate::model::append::HistogramValue;
use crate::model::sample::SeriesRef;
use crate::storage::chunk::written::WrittenChunk;
use crate::storage::head::late::{LateSample, LateValue, WrittenLate};
use crate::storage::head::restore::{Restorer, is_sound};
use crate::storage::head::table::SERIES_REF_MAX;
use crate::storage::wal::histogram_record::{encode_histograms, encode_started_histograms};
use crate::storage::wal::marker_record::RefMarker;
use crate::storage::wal::record::{Record, RefSample, encode_samples, encode_started_samples, put_varint, take_varint};

/// Times of the samples of a chunk: a byte or two for each, as they are held until the log has been read.
#[derive(Debug)]
pub(crate) struct LateTimes {
    min: i64,
    max: i64,
    /// Each as the difference of the step to it and the step before.
    bytes: Box<[u8]>,
}

impl LateTimes {
    pub(crate) fn of(times: impl IntoIterator<Item = i64>) -> Self {
        let (mut min, mut max, mut bytes) = (i64::MAX, i64::MIN, Vec::new());
        let (mut before, mut step) = (0i64, 0i64);
        for t in times {
            (min, max) = (t.min(min), t.max(max));
            let next = t.wrapping_sub(before);
            put_varint(next.wrapping_sub(step), &mut bytes);
            (before, step) = (t, if before == 0 { 0 } else { next });
        }
        Self { min, max, bytes: bytes.into() }
    }

    fn iter(&self) -> impl Iterator<Item = i64> + '_ {
        let mut cursor = Cursor::default();
        std::iter::from_fn(move || self.next(&mut cursor))
    }

    /// The time at a cursor, which goes on to the next one.
    fn next(&self, cursor: &mut Cursor) -> Option<i64> {
        let mut rest = self.bytes.get(cursor.at..)?;
        let step = cursor.step.wrapping_add(take_varint(&mut rest)?);
        let t = cursor.before.wrapping_add(step);
        *cursor =
            Cursor { at: self.bytes.len() - rest.len(), before: t, step: if cursor.before == 0 { 0 } else { step } };
        Some(t)
    }
}

/// A place among the times of a chunk.
#[derive(Clone, Copy, Default)]
struct Cursor {
    at: usize,
    before: i64,
    step: i64,
}

/// Samples of one series that came out of order and that files hold.
#[derive(Default)]
pub(super) struct LateOfFiles {
    chunks: Vec<(WrittenChunk, LateTimes)>,
    /// Behind the sample that was found last: the log has them mostly in the order in which they stand in files.
    last: usize,
    cursor: Cursor,
}

impl LateOfFiles {
    fn holds(&mut self, t: i64) -> bool {
        let mut cursor = self.cursor;
        if self.chunks.get(self.last).and_then(|(_, times)| times.next(&mut cursor)) == Some(t) {
            self.cursor = cursor;
            return true;
        }
        let (before, from) = self.chunks.split_at(self.last.min(self.chunks.len()));
        for (at, (_, times)) in (self.last..).zip(from).chain((0..).zip(before)) {
            if t < times.min || times.max < t {
                continue;
            }
            let mut cursor = Cursor::default();
            while let Some(own) = times.next(&mut cursor) {
                if own == t {
                    (self.last, self.cursor) = (at, cursor);
                    return true;
                }
            }
        }
        false
    }
}

type Times = HashSet<i64, foldhash::fast::FixedState>;

/// Late samples of a series that stand before its newest marker in the log, and in no file.
#[derive(Default)]
pub(super) struct BeforeMarker {
    /// Closed chunks that were looked at.
    closed: usize,
    /// Times of those that do not stand behind the marker as well.
    times: Times,
    /// Of those that do.
    again: Times,
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

    /// A chunk of samples that came out of order, which stands in a file, with their times. All series have been named before.
    pub(crate) fn late_written(&mut self, series: SeriesRef, chunk: WrittenChunk, times: LateTimes) {
        let place = self.places.get(series.0);
        if 0 < place.shard {
            self.late.entry((place.shard - 1, place.number)).or_default().chunks.push((chunk, times));
        }
    }

    /// Lets series begin with those chunks; the log of such samples is passed over where they hold them.
    pub(crate) fn begin_late(&mut self) {
        let Some(files) = self.files.clone() else { return };
        let epoch = self.late_epoch;
        let mut all = Vec::new();
        for ((shard, number), late) in &mut self.late {
            let Some(Some(lane)) = self.lanes.get_mut(usize::from(*shard)) else { continue };
            all.clear();
            late.chunks.iter().for_each(|(_, times)| all.extend(times.iter()));
            all.sort_unstable();
            all.dedup();
            // In the order in which they were closed.
            late.chunks.sort_by_key(|(chunk, _)| chunk.place);
            let written = late.chunks.iter().map(|(chunk, _)| WrittenLate { chunk: *chunk, epoch }).collect();
            lane.here().begin_late(*number, written, all.len() as u64, &files);
        }
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
        if self.late.get_mut(&(shard, place.number)).is_some_and(|late| late.holds(sample.t)) {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::storage::chunk::Encoding;
    use crate::storage::chunk::written::ChunkPlace;

    #[test]
    fn regular_times_take_a_byte_each() {
        let times = LateTimes::of((0..32).map(|i| 1_700_000_000_000 + i * 15_000));
        assert!(times.bytes.len() <= 40, "{}", times.bytes.len());
    }

    proptest! {
        #[test]
        fn times_come_back_and_are_found(
            chunks in proptest::collection::vec(
                proptest::collection::vec(prop_oneof![any::<i64>(), -9i64..9, -99i64..99], 0..40), 0..5),
            asked in proptest::collection::vec(-99i64..99, 0..40),
        ) {
            let place = ChunkPlace::default();
            let chunk = WrittenChunk { place, min_t: 0, max_t: 0, samples: 0, encoding: Encoding::Xor };
            let mut held = LateOfFiles::default();
            for times in &chunks {
                let one = LateTimes::of(times.iter().copied());
                prop_assert_eq!(one.iter().collect::<Vec<_>>(), times.clone());
                held.chunks.push((chunk, one));
            }
            for t in asked {
                prop_assert_eq!(held.holds(t), chunks.iter().flatten().any(|own| *own == t), "{}", t);
            }
            prop_assert!(chunks.iter().flatten().all(|t| held.holds(*t)));
        }
    }
}
