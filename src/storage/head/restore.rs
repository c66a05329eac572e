//! Fills the head from the log, past staging: what the log holds was checked when it was appended.
//!
//! ```text
//! log ─ Restorer: whose shard? ─┬─ batch ─ thread of shard 0: series, then samples, series by series
//!                               └─ batch ─ thread of shard 1 …
//! ```
//! The shards' threads work while the log is still being read. A batch holds samples of many commits, so that those of one
//! series are appended in one go; until the end nothing is shown to readers, and columns are written in place. Batches are
//! bounded, and so are those that wait. The outcome does not depend on the number of shards.
//!
//! Two series with the same labels become the one that was seen first, as in Prometheus; samples of the other go there.
//! Samples that are not newer than the newest of their series are passed over: a log may hold a sample twice.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use crate::model::append::{HistogramValue, ShardId};
use crate::model::histogram::has_sound_layout;
use crate::model::labels::Labels;
use crate::model::metadata::SeriesMetadata;
use crate::model::sample::SeriesRef;
use crate::model::time::TimestampMs;
use crate::storage::block::tombstones::Interval;
use crate::storage::chunk::cut::CutRules;
use crate::storage::head::Head;
use crate::storage::head::commit::CommitId;
use crate::storage::head::deletion::RestoredDeletions;
use crate::storage::head::exemplar_restore::ReplayedExemplars;
use crate::storage::head::image::{Adoption, ChunkImage, OpenImage};
use crate::storage::head::partition::Partition;
use crate::storage::head::ref_table::RefTable;
use crate::storage::head::route::shard_of;
use crate::storage::head::series::RunCounts;
use crate::storage::head::shard::Shard;
use crate::storage::head::shared::{HeadShared, count};
use crate::storage::head::table::{SERIES_REF_MAX, SeriesId};
use crate::storage::wal::exemplar_record::RefExemplar;

/// Samples in the batches of all shards that are being filled, together; few in tests, so that they fill many.
const BATCHED_MAX: usize = if cfg!(test) { 64 } else { 96 << 10 };
/// Samples in a batch at least, however many shards there are.
const BATCH_LEN_MIN: usize = if cfg!(test) { 16 } else { 8 << 10 };
/// How many samples a series counts for.
const SERIES_WEIGHT: usize = 8;
/// How many bytes of chunks count for a sample.
const CHUNK_BYTES_WEIGHT: usize = size_of::<Entry>();
/// Marks the entry of a histogram; above the numbers of series.
const HISTOGRAM: u32 = 1 << 31;

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
    /// Histograms whose parts do not fit each other.
    pub bad_histograms: u64,
    /// Series without labels, with the reference of another or beyond what references can be.
    pub bad_series: u64,
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
    chunks: HashMap<u64, Vec<ChunkImage>, foldhash::fast::FixedState>,
    batch_len: usize,
    min_valid: i64,
    ref_max: u64,
    exemplars: ReplayedExemplars,
    stats: RestoreStats,
}

/// Where a reference stands; zeros: nowhere.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Place {
    /// The shard, plus one.
    shard: u16,
    /// Number in the lane.
    number: u32,
}

/// The way to one shard.
struct Lane {
    /// References so far.
    numbers: u32,
    batch: Batch,
    worker: Worker,
}

enum Worker {
    Thread {
        /// `None` after its end.
        batches: Option<SyncSender<Batch>>,
        /// Batches to be filled again.
        emptied: Receiver<Batch>,
        handle: Option<JoinHandle<ShardRestorer>>,
    },
    /// There is no thread to be had, or it has ended.
    Here(Box<ShardRestorer>),
}

/// Entries for one shard, in the order of the log.
#[derive(Default)]
struct Batch {
    series: Vec<NamedSeries>,
    /// Bytes of their chunks.
    chunks_len: usize,
    /// Times of samples count from here.
    base_t: i64,
    samples: Vec<Entry>,
    histograms: Vec<HistogramValue>,
    metadata: Vec<(u32, SeriesMetadata)>,
    /// After all samples.
    tombstones: Vec<(u32, Interval)>,
}

/// A series of the log, under its number in the lane.
struct NamedSeries {
    number: u32,
    reference: SeriesRef,
    labels: Labels,
    chunks: Option<Box<Adoption>>,
}

/// A sample, or a histogram of the batch: then the number is marked, and `bits` are its index.
#[derive(Clone, Copy)]
struct Entry {
    number: u32,
    /// Less the batch's base.
    t: i32,
    bits: u64,
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
            chunks: HashMap::default(),
            batch_len: (BATCHED_MAX / self.shards.len().max(1)).max(BATCH_LEN_MIN),
            min_valid: min_valid.0.max(self.shared.min_valid()),
            ref_max: 0,
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

    /// A finished chunk of a series that is yet to come.
    pub fn chunk(&mut self, reference: SeriesRef, chunk: ChunkImage) {
        if reference.0 < SERIES_REF_MAX - 1 {
            self.ref_max = self.ref_max.max(reference.0);
            if self.min_valid <= chunk.max_t {
                self.chunks.entry(reference.0).or_default().push(chunk);
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
                let place = Place { shard: shard + 1, number: next };
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
        let Some(lane) = lane else { return };
        lane.numbers = lane.numbers.max(place.number + 1);
        let sealed = self.chunks.remove(&reference.0).unwrap_or_default();
        let open = open.filter(|open| self.min_valid <= open.chunk.max_t);
        let chunks = (open.is_some() || !sealed.is_empty()).then(|| Box::new(Adoption { sealed, open }));
        lane.batch.chunks_len += chunks.as_ref().map_or(0, |chunks| chunks.data_len());
        lane.batch.series.push(NamedSeries { number: place.number, reference, labels, chunks });
        lane.pass_on(self.batch_len);
    }

    /// A sample as the log names it.
    #[inline]
    pub fn sample(&mut self, series: SeriesRef, t: i64, value: f64) {
        let len_max = self.batch_len;
        if let Some((lane, number)) = self.lane_of(series, t) {
            lane.push(number, t, value.to_bits());
            if len_max <= lane.batch.samples.len() {
                lane.flush();
            }
        }
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

    /// The way to the shard of a series and its number there, for a sample that is new enough.
    #[inline]
    fn lane_of(&mut self, series: SeriesRef, t: i64) -> Option<(&mut Lane, u32)> {
        let place = self.places.get(series.0);
        let Some(shard) = place.shard.checked_sub(1) else {
            // One that no series can have is nobody's; it must not use up the references.
            if series.0 < SERIES_REF_MAX - 1 {
                self.ref_max = self.ref_max.max(series.0);
            }
            // Samples of a series that is gone are all too old: a checkpoint has dropped its name before them.
            let count = if t < self.min_valid { &mut self.stats.too_old } else { &mut self.stats.unknown_refs };
            *count += 1;
            return None;
        };
        let lane = self.lanes.get_mut(usize::from(shard))?.as_mut()?;
        if t < self.min_valid {
            self.stats.too_old += 1;
            return None;
        }
        Some((lane, place.number))
    }

    /// Waits until all that was given so far is in its place; from then on there are no threads. Returns how many series'
    /// chunks do not fit.
    pub fn settle(&mut self) -> u64 {
        // All of them are told first, so that they end beside each other.
        self.lanes.iter_mut().flatten().for_each(Lane::close);
        self.lanes.iter_mut().flatten().map(|lane| lane.settle().stats.misfits).sum()
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
        let exemplars = std::mem::take(&mut self.exemplars);
        let indexes = indexes.iter().map(|index| &**index);
        stats.unknown_exemplar_refs = exemplars.store(&shared.exemplars, &stats.aliases, indexes);
        stats
    }
}

impl Lane {
    /// Hands the batch over if it is full.
    fn pass_on(&mut self, len_max: usize) {
        if len_max <= self.batch.weight() {
            self.flush();
        }
    }

    #[inline]
    fn push(&mut self, number: u32, t: i64, bits: u64) {
        if self.batch.samples.is_empty() {
            self.batch.base_t = t;
        }
        let offset = match i32::try_from(t.wrapping_sub(self.batch.base_t)) {
            Ok(offset) => offset,
            Err(_) => {
                self.make_room_for(t);
                0
            }
        };
        self.batch.samples.push(Entry { number, t: offset, bits });
    }

    /// Begins another batch if `t` is too far from this one's base.
    fn make_room_for(&mut self, t: i64) {
        if i32::try_from(t.wrapping_sub(self.batch.base_t)).is_err() {
            if !self.batch.samples.is_empty() {
                self.flush();
            }
            self.batch.base_t = t;
        }
    }

    fn flush(&mut self) {
        match &mut self.worker {
            Worker::Thread { batches: Some(batches), emptied, .. } => {
                let next = emptied.try_recv().unwrap_or_default();
                // A thread that has panicked takes nothing; its end tells.
                let _ = batches.send(std::mem::replace(&mut self.batch, next));
            }
            Worker::Thread { batches: None, .. } => self.batch.clear(),
            Worker::Here(restorer) => {
                restorer.take(&mut self.batch);
                self.batch.clear();
            }
        }
    }

    /// Hands over what is left.
    fn close(&mut self) {
        self.flush();
        if let Worker::Thread { batches, .. } = &mut self.worker {
            *batches = None;
        }
    }

    /// What the shard has got by now; its thread has ended.
    fn settle(&mut self) -> &mut ShardRestorer {
        self.close();
        if let Worker::Thread { handle, .. } = &mut self.worker {
            let handle = handle.take().expect("a thread is joined once");
            let restorer = handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            self.worker = Worker::Here(Box::new(restorer));
        }
        match &mut self.worker {
            Worker::Here(restorer) => {
                restorer.publish();
                restorer
            }
            Worker::Thread { .. } => unreachable!("it was replaced above"),
        }
    }
}

impl Drop for Lane {
    /// A restore that was given up waits for its threads: they write the shard.
    fn drop(&mut self) {
        if let Worker::Thread { batches, handle, .. } = &mut self.worker {
            *batches = None;
            // A panic was logged by the hook.
            let _ = handle.take().map(JoinHandle::join);
        }
    }
}

impl Worker {
    fn start(shard: &Arc<Shard>, shared: &Arc<HeadShared>) -> Self {
        let (batches, to_take) = sync_channel::<Batch>(1);
        let (to_fill, emptied) = sync_channel::<Batch>(1);
        let mut restorer = ShardRestorer::new(shard, shared);
        let work = move || {
            while let Ok(mut batch) = to_take.recv() {
                restorer.take(&mut batch);
                batch.clear();
                // One too many is dropped.
                let _ = to_fill.try_send(batch);
            }
            restorer.publish();
            restorer
        };
        match std::thread::Builder::new().name(format!("replay-{}", shard.id().0)).spawn(work) {
            Ok(handle) => Self::Thread { batches: Some(batches), emptied, handle: Some(handle) },
            Err(_) => Self::Here(Box::new(ShardRestorer::new(shard, shared))),
        }
    }
}

impl Batch {
    fn weight(&self) -> usize {
        let named = SERIES_WEIGHT * (self.series.len() + self.histograms.len() + self.metadata.len());
        self.samples.len() + named + self.chunks_len / CHUNK_BYTES_WEIGHT
    }

    fn clear(&mut self) {
        self.series.clear();
        self.chunks_len = 0;
        self.samples.clear();
        self.histograms.clear();
        self.metadata.clear();
        self.tombstones.clear();
    }
}

/// Fills one shard.
#[derive(Default)]
struct ShardRestorer {
    /// `None` only in what is left after the end.
    target: Option<(Arc<Shard>, Arc<HeadShared>)>,
    /// By number: the place of each series in the table, or [`NONE`].
    slots: Vec<u32>,
    /// Places of series with chunks, and the samples of these that the log has not named yet.
    adopted: HashMap<u32, i64, foldhash::fast::FixedState>,
    runs: Runs,
    newest: i64,
    /// Metadata that is shared by series.
    metadata: HashSet<Arc<SeriesMetadata>>,
    deletions: RestoredDeletions,
    counts: RunCounts,
    stats: RestoreStats,
}

impl ShardRestorer {
    fn new(shard: &Arc<Shard>, shared: &Arc<HeadShared>) -> Self {
        let target = Some((Arc::clone(shard), Arc::clone(shared)));
        Self { target, newest: i64::MIN, ..Self::default() }
    }

    fn into_stats(self) -> RestoreStats {
        RestoreStats { samples: self.counts.appended, not_newer: self.counts.not_newer, ..self.stats }
    }

    fn take(&mut self, batch: &mut Batch) {
        let Some((shard, shared)) = self.target.clone() else { return };
        let mut partition = shard.lock_partition();
        // A sample comes after its series in the log, so all series may come first.
        let rules = shared.rules;
        for series in batch.series.drain(..) {
            self.take_series(&mut partition, series, &rules);
        }
        let slots = &self.slots;
        let slot = |entry: &Entry| slots.get((entry.number & !HISTOGRAM) as usize).copied();
        self.stats.unknown_refs += self.runs.sort(&batch.samples, slot, partition.table.slot_count());
        let time = |entry: &Entry| batch.base_t.wrapping_add(i64::from(entry.t));
        for run in self.runs.iter() {
            let Some(series) = partition.table.get_mut(SeriesId::from_slot(run.slot)) else { continue };
            let before = self.counts.not_newer;
            let mut entries = run.entries(&batch.samples).peekable();
            while let Some(next) = entries.peek() {
                if next.number & HISTOGRAM == 0 {
                    let floats = std::iter::from_fn(|| entries.next_if(|next| next.number & HISTOGRAM == 0));
                    let floats = floats.map(|entry| (time(entry), f64::from_bits(entry.bits)));
                    series.restore(floats, &rules, &mut self.counts);
                } else if let Some(entry) = entries.next() {
                    let value = usize::try_from(entry.bits).ok().and_then(|index| batch.histograms.get(index));
                    let Some(value) = value else { continue };
                    // Number 0 is before all commits, so every view sees the sample.
                    let (t, all) = (time(entry), CommitId(0));
                    self.counts.add(t, series.append_histogram(t, value, all, all, &rules));
                }
            }
            self.newest = series.last().map_or(self.newest, |(newest, _)| newest.max(self.newest));
            let passed = i64::try_from(self.counts.not_newer - before).unwrap_or(i64::MAX);
            if 0 < passed
                && let Some(left) = self.adopted.get_mut(&run.slot)
            {
                // The log has samples among those of the chunks that the chunks have not.
                let had = std::mem::replace(left, left.saturating_sub(passed));
                self.stats.misfits += u64::from(0 <= had && *left < 0);
            }
        }
        for (number, metadata) in batch.metadata.drain(..) {
            self.take_metadata(&mut partition, number, metadata);
        }
        for (number, interval) in batch.tombstones.drain(..) {
            let slot = self.slots.get(number as usize).copied().unwrap_or(NONE);
            if let Some(found) = partition.table.get(SeriesId::from_slot(slot)) {
                self.deletions.add(found.cell.series(), interval, found.last().map(|(t, _)| t));
            }
        }
    }

    fn take_metadata(&mut self, partition: &mut Partition, number: u32, metadata: SeriesMetadata) {
        let slot = self.slots.get(number as usize).copied().unwrap_or(NONE);
        let Some(series) = partition.table.get(SeriesId::from_slot(slot)) else { return };
        let shared = match self.metadata.get(&metadata) {
            Some(shared) => Arc::clone(shared),
            None => {
                let shared = Arc::new(metadata);
                self.metadata.insert(Arc::clone(&shared));
                shared
            }
        };
        partition.metadata.insert(series.cell.series(), shared);
    }

    fn take_series(&mut self, partition: &mut Partition, named: NamedSeries, rules: &CutRules) {
        let NamedSeries { number, reference, labels, chunks } = named;
        let (at, labels) = (number as usize, &labels);
        if let Some(before) = self.slots.get(at).copied() {
            // Said twice, as after a failed sync or a checkpoint. With other labels it would be another series.
            if before == NONE || partition.restored(labels).map(SeriesId::slot) != Some(before) {
                self.stats.bad_series += 1;
            }
            return;
        }
        self.slots.resize(at + 1, NONE);
        let sealed = partition.index.segments.len();
        let Some((id, first)) = partition.restore_series(reference, labels) else {
            self.stats.bad_series += 1;
            return;
        };
        if first == reference {
            self.stats.series += 1;
        } else {
            self.stats.aliases.insert(reference, first);
        }
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = id.slot();
        }
        if let Some(chunks) = chunks
            && let Some(series) = partition.table.get_mut(id)
        {
            let before = self.counts.appended;
            self.stats.misfits += u64::from(!series.adopt(*chunks, rules, &mut self.counts));
            let samples = i64::try_from(self.counts.appended - before).unwrap_or(i64::MAX);
            *self.adopted.entry(id.slot()).or_default() += samples;
            self.newest = series.last().map_or(self.newest, |(newest, _)| newest.max(self.newest));
        }
        if sealed < partition.index.segments.len() {
            while let Some(job) = partition.merge_job() {
                partition.install(job.run());
            }
        }
    }

    /// Shows all that was restored.
    fn publish(&mut self) {
        let Some((shard, _)) = &self.target else { return };
        let mut partition = shard.lock_partition();
        for slot in 0..partition.table.slot_count() {
            let id = partition.table.id_at(slot);
            if let Some(series) = partition.table.get_mut(id) {
                series.publish();
            }
        }
    }
}

/// No entry.
const NONE: u32 = u32::MAX;

/// The entries of a batch by series; keeps its buffers.
#[derive(Default)]
struct Runs {
    /// By place in the table: the last entry so far, or [`NONE`].
    last: Vec<u32>,
    /// By entry: the next of the same series, or [`NONE`].
    next: Vec<u32>,
    /// Places with their first entries, in the order of these.
    firsts: Vec<(u32, u32)>,
}

/// The entries of one series in a batch.
#[derive(Clone, Copy)]
struct Run<'a> {
    slot: u32,
    first: u32,
    next: &'a [u32],
}

impl Runs {
    /// Links the entries of each series; returns how many have no place.
    fn sort(&mut self, entries: &[Entry], mut slot_of: impl FnMut(&Entry) -> Option<u32>, slot_count: usize) -> u64 {
        let mut unknown = 0;
        self.last.resize(slot_count.max(self.last.len()), NONE);
        self.next.clear();
        self.next.resize(entries.len(), NONE);
        self.firsts.clear();
        for (index, entry) in (0u32..).zip(entries) {
            let slot = slot_of(entry);
            let Some((slot, last)) = slot.and_then(|slot| Some((slot, self.last.get_mut(slot as usize)?))) else {
                unknown += 1;
                continue;
            };
            match self.next.get_mut(*last as usize) {
                Some(next) if *last != NONE => *next = index,
                _ => self.firsts.push((slot, index)),
            }
            *last = index;
        }
        for (slot, _) in &self.firsts {
            if let Some(last) = self.last.get_mut(*slot as usize) {
                *last = NONE;
            }
        }
        unknown
    }

    fn iter(&self) -> impl Iterator<Item = Run<'_>> {
        self.firsts.iter().map(|(slot, first)| Run { slot: *slot, first: *first, next: &self.next })
    }
}

impl<'a> Run<'a> {
    fn entries(self, entries: &'a [Entry]) -> impl Iterator<Item = &'a Entry> {
        let mut at = self.first;
        std::iter::from_fn(move || {
            let entry = entries.get(at as usize)?;
            at = self.next.get(at as usize).copied().unwrap_or(NONE);
            Some(entry)
        })
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
