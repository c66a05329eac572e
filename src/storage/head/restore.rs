//! Fills the head from the log, past staging: what the log holds was checked when it was appended.
//!
//! ```text
//! log ─ Restorer: whose shard? ─┬─ batch ─ thread of shard 0: series, then samples, series by series
//!                               └─ batch ─ thread of shard 1 …
//! ```
//! The shards' threads work while the log is still being read. A batch holds samples of many commits, so that those of one
//! series are appended in one go; until the end nothing is shown to readers, and columns are written in place. Batches are
//! bounded, and so are those that wait. The outcome does not depend on the number of shards. With few targets most series are of
//! one shard, as a target's series stay together; so a thread parts a long batch among helpers, each with pages of the table of
//! its own.
//!
//! Two series with the same labels become the one that was seen first, as in Prometheus; samples of the other go there.
//! Samples that are not newer than the newest of their series are passed over: a log may hold a sample twice.

mod lane;
pub(crate) mod late;
pub(crate) mod late_times;
mod pending;
mod shard;

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::append::{HistogramValue, ShardId};
use crate::model::histogram::has_sound_layout;
use crate::model::labels::Labels;
use crate::model::metadata::SeriesMetadata;
use crate::model::sample::SeriesRef;
use crate::model::time::TimestampMs;
use crate::storage::block::tombstones::Interval;
use crate::storage::chunk::written::WrittenChunk;
use crate::storage::head::Head;
use crate::storage::head::exemplar_restore::ReplayedExemplars;
use crate::storage::head::image::{Adoption, OpenImage};
use crate::storage::head::ref_table::RefTable;
use crate::storage::head::restore::lane::{Batch, HISTOGRAM, Lane, NamedSeries, Worker};
use crate::storage::head::restore::late::{BeforeMarker, LateInChunks};
use crate::storage::head::restore::pending::PendingChunks;
use crate::storage::head::route::shard_of;
use crate::storage::head::shard::Shard;
use crate::storage::head::shared::count;
use crate::storage::head::table::SERIES_REF_MAX;
use crate::storage::head_chunk_store::Files;
use crate::storage::wal::exemplar_record::RefExemplar;

/// Samples in the batches of all shards that are being filled, together; few in tests, so that they fill many.
const BATCHED_MAX: usize = if cfg!(test) { 64 } else { 96 << 10 };
/// Samples in a batch at least, however many shards there are.
const BATCH_LEN_MIN: usize = if cfg!(test) { 16 } else { 8 << 10 };

/// What was restored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestoreStats {
    /// Series in the head.
    pub series: u64,
    /// Samples in the head.
    pub samples: u64,
    /// Samples before the bound of retention.
    pub too_old: u64,
    /// Samples that are not newer than the newest of their series.
    pub not_newer: u64,
    /// Samples of series that the log does not name.
    pub unknown_refs: u64,
    /// Times of these.
    pub unknown_span: Option<(i64, i64)>,
    /// Histograms whose parts do not fit each other.
    pub bad_histograms: u64,
    /// Series without labels, with the reference of another or beyond what references can be.
    pub bad_series: u64,
    /// Samples that came out of order.
    pub late: u64,
    /// Samples that came out of order, of series that the log does not name.
    pub late_unknown_refs: u64,
    /// Metadata of series that the log does not name.
    pub unknown_metadata_refs: u64,
    /// Exemplars of series that the log does not name.
    pub unknown_exemplar_refs: u64,
    /// Series whose chunks do not fit each other, cannot be read, or lack samples that the log has.
    pub misfits: u64,
    /// References that stand for the series of another (left: the later one).
    pub aliases: HashMap<SeriesRef, SeriesRef>,
}

impl RestoreStats {
    fn absorb(&mut self, other: Self) {
        self.misfits += other.misfits;
        self.unknown_metadata_refs += other.unknown_metadata_refs;
        self.unknown_exemplar_refs += other.unknown_exemplar_refs;
        self.series += other.series;
        self.samples += other.samples;
        self.too_old += other.too_old;
        self.not_newer += other.not_newer;
        self.unknown_refs += other.unknown_refs;
        self.bad_histograms += other.bad_histograms;
        self.bad_series += other.bad_series;
        self.late += other.late;
        self.late_unknown_refs += other.late_unknown_refs;
        self.aliases.extend(other.aliases);
    }
}

/// Fills shards that nobody else writes meanwhile. What it has been given is in the head after [`Restorer::finish`].
pub struct Restorer<'a> {
    head: &'a Head,
    /// By shard; `None` for those that are not restored.
    lanes: Vec<Option<Lane>>,
    /// The shard of each reference, and its number among those of the shard.
    places: RefTable<Place>,
    /// Finished chunks of series that the log has not named yet.
    chunks: PendingChunks,
    /// Where they stand.
    files: Option<Arc<Files>>,
    /// What files hold of samples that came out of order, until the log of those has been read.
    late: LateInChunks,
    /// Series of whose late samples a marker says that they stand in files, while some do not; by shard and number there.
    before_markers: HashMap<(u16, u32), BeforeMarker, foldhash::fast::FixedState>,
    /// Samples in the batches of all lanes that may be, and how many there are about.
    batched_max: usize,
    batched: usize,
    /// References so far.
    series_seen: usize,
    batch_len: usize,
    min_valid: i64,
    ref_max: u64,
    late_epoch: u64,
    exemplars: ReplayedExemplars,
    stats: RestoreStats,
}

/// Where a reference stands; zeros: nowhere.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Place {
    /// Samples up to here stand in the chunks that the series begins with.
    chunks_to: i64,
    /// How far before that the newest of them is that the log has named so far.
    behind: u32,
    /// Number in the lane.
    number: u32,
    /// The shard, plus one.
    shard: u16,
    /// Samples of those chunks that the log has not named yet, or [`UNCOUNTED`].
    left: u16,
}

/// More samples than are counted.
const UNCOUNTED: u16 = u16::MAX;

impl Place {
    /// Passes over a sample at `t` that a chunk should hold; false if the chunks hold fewer samples than the log. Samples that came
    /// out of order, or twice, are not among those that are counted.
    #[inline]
    fn pass_over(&mut self, t: i64) -> bool {
        let behind = u32::try_from(self.chunks_to.saturating_sub(t)).unwrap_or(u32::MAX);
        if self.behind <= behind || self.left == UNCOUNTED {
            return true;
        }
        self.behind = behind;
        match self.left.checked_sub(1) {
            Some(left) => self.left = left,
            None => return false,
        }
        true
    }
}

impl Head {
    /// Begins to fill all shards, or only `shard`, which is being rebuilt. Samples before `min_valid` are passed over.
    pub fn restore(&self, shard: Option<ShardId>, min_valid: TimestampMs) -> Restorer<'_> {
        let wanted = |id: ShardId| shard.is_none_or(|only| only == id);
        let lane = |shard: &Arc<Shard>| Lane {
            numbers: 0,
            batch: Batch::default(),
            worker: Worker::start(shard, &self.shared),
        };
        Restorer {
            head: self,
            lanes: self.shards.iter().map(|shard| wanted(shard.id()).then(|| lane(shard))).collect(),
            places: RefTable::default(),
            chunks: PendingChunks::default(),
            files: None,
            late: LateInChunks::default(),
            before_markers: HashMap::default(),
            batched_max: BATCHED_MAX.max(BATCH_LEN_MIN * self.shards.len()),
            batched: 0,
            series_seen: 0,
            batch_len: (BATCHED_MAX / self.shards.len().max(1)).max(BATCH_LEN_MIN),
            min_valid: min_valid.0.max(self.shared.min_valid()),
            ref_max: 0,
            late_epoch: self.late_epoch(),
            // A shard that is rebuilt finds the ring as it was.
            exemplars: ReplayedExemplars::new(if shard.is_none() { self.shared.exemplars.capacity() } else { 0 }),
            stats: RestoreStats::default(),
        }
    }
}

impl Restorer<'_> {
    /// A series as the log names it.
    pub fn series(&mut self, reference: SeriesRef, labels: &Labels) {
        self.take_series(reference, labels.clone());
    }

    /// The same, for whoever does not need the labels any more. The series begins with the chunks that it was given.
    pub fn take_series(&mut self, reference: SeriesRef, labels: Labels) {
        self.series_with(reference, labels, None);
    }

    /// Begins anew with finished chunks, which stand in these files.
    pub(crate) fn set_files(&mut self, files: &Arc<Files>) {
        self.chunks = PendingChunks::default();
        self.files = Some(Arc::clone(files));
    }

    /// A finished chunk of a series that is yet to come.
    pub(crate) fn chunk(&mut self, reference: SeriesRef, chunk: WrittenChunk) {
        if reference.0 < SERIES_REF_MAX - 1 {
            self.ref_max = self.ref_max.max(reference.0);
            if self.min_valid <= chunk.max_t {
                self.chunks.push(reference.0, &chunk);
            }
        }
    }

    /// A series, with the chunk that was open.
    pub fn series_with(&mut self, reference: SeriesRef, labels: Labels, open: Option<OpenImage>) {
        // The counter of references must stay below what the table can hold; zero is none.
        if labels.is_empty() || reference.0 == 0 || SERIES_REF_MAX - 1 <= reference.0 {
            self.stats.bad_series += 1;
            return;
        }
        self.ref_max = self.ref_max.max(reference.0);
        let shard = shard_of(&labels, self.head.shard_count()).0;
        let lane = self.lanes.get_mut(usize::from(shard)).and_then(Option::as_mut);
        let place = match self.places.get(reference.0) {
            new if new == Place::default() => {
                let next = lane.as_ref().map_or(0, |lane| lane.numbers);
                if HISTOGRAM <= next {
                    self.stats.bad_series += 1;
                    return;
                }
                let place = Place { shard: shard + 1, number: next, chunks_to: i64::MIN, ..Place::default() };
                self.places.set(reference.0, place);
                place
            }
            // Said twice, which its shard checks; with labels of another shard it would be another series.
            known if known.shard == shard + 1 => known,
            _ => {
                self.stats.bad_series += 1;
                return;
            }
        };
        let sealed = self.chunks.take(reference.0);
        let Some(lane) = lane else { return };
        if lane.numbers <= place.number {
            lane.numbers = place.number + 1;
            self.series_seen += 1;
            // A sample of each series at a time, so that its memory is waited for no more often than needed.
            self.batched_max = self.batched_max.max(self.series_seen);
        }
        let open = open.filter(|open| self.min_valid <= open.chunk.max_t);
        let sealed = sealed.zip(self.files.as_ref()).and_then(|(chunks, files)| {
            let (first, last) = chunks.files()?;
            Some((chunks, files.set_of(first, last, None)))
        });
        let of_files = sealed.as_ref().map_or((None, 0), |(chunks, _)| (chunks.max_t(), chunks.samples()));
        let of_open = open.as_ref().map(|open| (open.chunk.max_t, u64::from(open.chunk.sample_count())));
        if let Some(chunks_to) = of_files.0.max(of_open.map(|(max_t, _)| max_t)) {
            let samples = of_files.1 + of_open.map_or(0, |(_, samples)| samples);
            let left = u16::try_from(samples).unwrap_or(UNCOUNTED);
            self.places.set(reference.0, Place { chunks_to, behind: u32::MAX, left, ..place });
        }
        let chunks = (open.is_some() || sealed.is_some()).then(|| Box::new(Adoption { sealed, open }));
        if chunks.is_some() && !lane.batch.samples.is_empty() {
            // Within a batch series come first; what another of its references has had is older than its chunks.
            lane.flush();
        }
        lane.batch.chunks_len += chunks.as_ref().map_or(0, |chunks| chunks.data_len());
        lane.batch.series.push(NamedSeries { number: place.number, reference, labels, chunks });
        lane.pass_on(self.batch_len);
    }

    /// A sample as the log names it.
    #[inline]
    pub fn sample(&mut self, series: SeriesRef, t: i64, value: f64) {
        if let Some((lane, number)) = self.lane_of(series, t) {
            lane.push(number, t, value.to_bits());
            self.batched += 1;
            if self.batched_max <= self.batched {
                self.flush_longest();
            }
        }
    }

    /// Hands over the longest batch: with few targets most samples are of one shard, and the more of a series come together, the
    /// less each costs.
    #[cold]
    fn flush_longest(&mut self) {
        let lanes = self.lanes.iter_mut().flatten();
        if let Some(lane) = lanes.max_by_key(|lane| lane.batch.samples.len()) {
            lane.flush();
        }
        self.batched = self.lanes.iter().flatten().map(|lane| lane.batch.samples.len()).sum();
    }

    /// A histogram as the log names it.
    pub fn histogram(&mut self, series: SeriesRef, t: i64, value: &HistogramValue) {
        if !is_sound(value) {
            self.stats.bad_histograms += 1;
            return;
        }
        let len_max = self.batch_len;
        if let Some((lane, number)) = self.lane_of(series, t) {
            lane.pass_on(len_max);
            lane.make_room_for(t);
            let bits = lane.batch.histograms.len() as u64;
            lane.batch.histograms.push(value.clone());
            lane.push(number | HISTOGRAM, t, bits);
        }
    }

    /// A deleted range as the log names it.
    pub fn tombstone(&mut self, series: SeriesRef, interval: Interval) {
        let place = self.places.get(series.0);
        let Some(shard) = place.shard.checked_sub(1) else {
            if series.0 < SERIES_REF_MAX - 1 {
                self.ref_max = self.ref_max.max(series.0);
            }
            return;
        };
        if let Some(Some(lane)) = self.lanes.get_mut(usize::from(shard)) {
            lane.batch.tombstones.push((place.number, interval));
            // It is about what the series has by now.
            lane.flush();
        }
    }

    /// The start of a sample, as the log names it; passed over where starts are not stored.
    pub fn start(&mut self, series: SeriesRef, t: i64, start: i64) {
        if t < self.min_valid || !self.head.stores_starts() {
            return;
        }
        let place = self.places.get(series.0);
        let Some(shard) = place.shard.checked_sub(1) else { return };
        if let Some(Some(lane)) = self.lanes.get_mut(usize::from(shard)) {
            lane.batch.starts.push((place.number, t, start));
            lane.pass_on(self.batch_len);
        }
    }

    /// What the log says of a series; what it says later counts.
    pub fn metadata(&mut self, series: SeriesRef, metadata: &SeriesMetadata) {
        let place = self.places.get(series.0);
        let Some(shard) = place.shard.checked_sub(1) else {
            self.stats.unknown_metadata_refs += 1;
            return;
        };
        if let Some(Some(lane)) = self.lanes.get_mut(usize::from(shard)) {
            lane.batch.metadata.push((place.number, metadata.clone()));
            lane.pass_on(self.batch_len);
        }
    }

    /// An exemplar as the log names it.
    pub fn exemplar(&mut self, exemplar: &RefExemplar) {
        self.exemplars.push(exemplar);
    }

    /// The same as a snapshot names it that another program has made, from which nothing else is taken. The log may have it as well.
    pub fn exemplar_of_snapshot(&mut self, exemplar: &RefExemplar) {
        self.exemplars.push_of_snapshot(exemplar);
    }

    /// The way to the shard of a series and its number there, for a sample that is new enough.
    #[inline]
    fn lane_of(&mut self, series: SeriesRef, t: i64) -> Option<(&mut Lane, u32)> {
        let Some(place) = self.places.get_mut(series.0).filter(|place| 0 < place.shard) else {
            self.pass_over_unknown(series, t);
            return None;
        };
        let lane = self.lanes.get_mut(usize::from(place.shard - 1))?.as_mut()?;
        if t < self.min_valid {
            self.stats.too_old += 1;
            return None;
        }
        if t <= place.chunks_to {
            self.stats.not_newer += 1;
            self.stats.misfits += u64::from(!place.pass_over(t));
            return None;
        }
        Some((lane, place.number))
    }

    #[cold]
    fn pass_over_unknown(&mut self, series: SeriesRef, t: i64) {
        // One that no series can have is nobody's; it must not use up the references.
        if series.0 < SERIES_REF_MAX - 1 {
            self.ref_max = self.ref_max.max(series.0);
        }
        // Samples of a series that is gone are all too old: a checkpoint has dropped its name before them.
        let count = if t < self.min_valid { &mut self.stats.too_old } else { &mut self.stats.unknown_refs };
        *count += 1;
        if self.min_valid <= t {
            let (min, max) = self.stats.unknown_span.unwrap_or((t, t));
            self.stats.unknown_span = Some((min.min(t), max.max(t)));
        }
    }

    /// Lets a reference stand for the series of another, where nothing else has named it.
    pub fn alias(&mut self, reference: SeriesRef, first: SeriesRef) {
        let place = self.places.get(first.0);
        if place != Place::default()
            && reference.0 < SERIES_REF_MAX - 1
            && self.places.get(reference.0) == Place::default()
        {
            self.places.set(reference.0, place);
        }
    }

    /// chunks do not fit.
    pub fn settle(&mut self) -> u64 {
        // Those of series that the log does not name.
        self.chunks = PendingChunks::default();
        // All of them are told first, so that they end beside each other.
        self.lanes.iter_mut().flatten().for_each(Lane::close);
        let (mut misfits, mut passed) = (self.stats.misfits, Vec::new());
        for lane in self.lanes.iter_mut().flatten() {
            let restorer = lane.settle();
            misfits += restorer.stats.misfits;
            passed.extend(restorer.passed());
        }
        for (series, passed) in passed {
            let left = self.places.get(series.0).left;
            misfits += u64::from(left != UNCOUNTED && u64::from(left) < passed);
        }
        misfits
    }

    /// Gives up: what was restored is to be thrown away.
    pub fn abandon(mut self) {
        self.settle();
        let created = self.lanes.iter_mut().flatten().map(|lane| lane.settle().counts.chunks).sum();
        // Whoever throws the chunks away counts them as removed.
        count(&self.head.shared.counters.chunks_created, created);
    }

    /// Ends it: readers see what was restored, and new series get references above all that were seen.
    pub fn finish(mut self) -> RestoreStats {
        let shared = &self.head.shared;
        shared.raise_next_ref(self.ref_max + 1);
        let mut stats = std::mem::take(&mut self.stats);
        self.settle();
        let mut indexes = Vec::new();
        for mut lane in self.lanes.drain(..).flatten() {
            let mut restored = std::mem::take(lane.settle());
            indexes.extend(restored.target.as_ref().map(|(shard, _)| shard.readers.index.load_full()));
            shared.deleted.add(std::mem::take(&mut restored.deletions).into_ranges());
            if restored.counts.oldest <= restored.newest {
                shared.widen_span(restored.counts.oldest, restored.newest);
            }
            count(&shared.counters.chunks_created, restored.counts.chunks);
            stats.absorb(restored.into_stats());
        }
        shared.note_aliases(stats.aliases.values());
        let exemplars = std::mem::take(&mut self.exemplars);
        let indexes = indexes.iter().map(|index| &**index);
        stats.unknown_exemplar_refs = exemplars.store(&shared.exemplars, &stats.aliases, indexes);
        stats
    }
}
fn is_sound(value: &HistogramValue) -> bool {
    match value {
        HistogramValue::Integer(h) => has_sound_layout(
            h.schema,
            [(&h.positive_spans, h.positive_buckets.len()), (&h.negative_spans, h.negative_buckets.len())],
        ),
        HistogramValue::Float(h) => has_sound_layout(
            h.schema,
            [(&h.positive_spans, h.positive_buckets.len()), (&h.negative_spans, h.negative_buckets.len())],
        ),
    }
}
