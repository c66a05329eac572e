//! The part of restoring that one shard's thread does: series first, then samples, series by series.

use std::collections::{HashMap, HashSet};
use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use crate::model::metadata::SeriesMetadata;
use crate::model::sample::SeriesRef;
use crate::model::time::{TimeRange, TimestampMs};
use crate::storage::chunk::cut::CutRules;
use crate::storage::head::commit::CommitId;
use crate::storage::head::deletion::RestoredDeletions;
use crate::storage::head::late::{Inserted, LateRules, LateSample, LateValue, WrittenLate};
use crate::storage::head::partition::Partition;
use crate::storage::head::restore::RestoreStats;
use crate::storage::head::restore::lane::{Batch, Entry, HISTOGRAM, NamedSeries};
use crate::storage::head::series::{RunCounts, WriterSeries};
use crate::storage::head::shard::Shard;
use crate::storage::head::shared::HeadShared;
use crate::storage::head::table::{SeriesId, SeriesPart, SeriesTable};
use crate::storage::head_chunk_store::Files;

/// Threads for a batch of one shard, at most.
const THREADS_MAX: usize = 4;
/// Samples for which another thread is worth it; few in tests, so that there are some.
const PART_LEN_MIN: usize = if cfg!(test) { 8 } else { 8 << 10 };
/// Series whose memory is read ahead.
const TOUCHED_AHEAD: usize = 32;

/// Fills one shard.
#[derive(Default)]
pub(super) struct ShardRestorer {
    /// `None` only in what is left after the end.
    pub(super) target: Option<(Arc<Shard>, Arc<HeadShared>)>,
    /// By number: the place of each series in the table, or [`NONE`].
    slots: Vec<u32>,
    /// Where the chunks end that series began with, by place.
    adopted_to: AdoptedTo,
    /// By place: samples up to there that the log has under other references.
    passed: HashMap<u32, u64, foldhash::fast::FixedState>,
    /// By place in the table: time of the newest sample whose start the log has named.
    noted: Vec<i64>,
    runs: Runs,
    pub(super) newest: i64,
    /// Metadata that is shared by series.
    metadata: HashSet<Arc<SeriesMetadata>>,
    pub(super) deletions: RestoredDeletions,
    pub(super) counts: RunCounts,
    pub(super) stats: RestoreStats,
    /// Readers see all series that came so far.
    is_shown: bool,
}

impl ShardRestorer {
    pub(super) fn new(shard: &Arc<Shard>, shared: &Arc<HeadShared>) -> Self {
        let target = Some((Arc::clone(shard), Arc::clone(shared)));
        Self { target, newest: i64::MIN, ..Self::default() }
    }

    pub(super) fn into_stats(self) -> RestoreStats {
        RestoreStats { samples: self.counts.appended, not_newer: self.counts.not_newer, ..self.stats }
    }

    pub(super) fn take(&mut self, batch: &mut Batch) {
        let Some((shard, shared)) = self.target.clone() else { return };
        let mut partition = shard.lock_partition();
        self.is_shown = false;
        // A sample comes after its series in the log, so all series may come first.
        let rules = shared.rules;
        for series in batch.series.drain(..) {
            self.take_series(&mut partition, series, &rules);
        }
        let slots = &self.slots;
        let slot = |entry: &Entry| slots.get((entry.number & !HISTOGRAM) as usize).copied();
        self.stats.unknown_refs += self.runs.sort(&batch.samples, slot, partition.table.slot_count());
        for done in restore_runs((&self.runs, &self.adopted_to), batch, partition.table.whole(), &rules) {
            self.counts.absorb(done.counts);
            self.newest = self.newest.max(done.newest);
            for (slot, passed) in done.passed {
                *self.passed.entry(slot).or_default() += passed;
            }
        }
        for (number, metadata) in batch.metadata.drain(..) {
            self.take_metadata(&mut partition, number, metadata);
        }
        for (number, t, start) in batch.starts.drain(..) {
            let slot = self.slots.get(number as usize).copied().unwrap_or(NONE);
            let Some(found) = partition.table.get(SeriesId::from_slot(slot)) else { continue };
            // An older one came late: it stands in another log as well, with its start.
            if raise(&mut self.noted, slot, t) {
                partition.readers.starts.note(found.cell.series(), t, start);
            }
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
            let (end, is_open) = (chunks.max_t(), chunks.open.is_some());
            self.stats.misfits += u64::from(!series.adopt(*chunks, rules, &mut self.counts));
            if let Some(end) = end {
                let adopted_to = self.adopted_to.entry(id.slot()).or_insert(end);
                *adopted_to = end.max(*adopted_to);
            }
            let newest = series.last().map(|(newest, _)| newest);
            self.newest = self.newest.max(newest.unwrap_or(i64::MIN));
            if let Some(newest) = newest.filter(|_| is_open) {
                // The log is read from a snapshot on: what it has of older samples came late.
                raise(&mut self.noted, id.slot(), newest);
            }
        }
        if sealed < partition.index.segments.len() {
            while let Some(job) = partition.merge_job() {
                partition.install(job.run());
            }
        }
    }

    /// Puts samples that came out of order into their table; returns how many were new.
    pub(super) fn insert_late(&mut self, number: u32, samples: Vec<LateSample>, epoch: u64) -> u64 {
        let Some((shard, shared)) = &self.target else { return 0 };
        let partition = shard.lock_partition();
        let slot = self.slots.get(number as usize).copied().unwrap_or(NONE);
        let Some(series) = partition.table.get(SeriesId::from_slot(slot)) else { return 0 };
        let table = partition.readers.late.load();
        let rules = LateRules { epoch, low: CommitId(0), chunk_len: shared.late_chunk_len };
        let mut new = 0;
        for mut sample in samples {
            if !shared.starts.stored {
                sample.start = 0;
            }
            if let Inserted::Taken { new_chunks, .. } = table.insert(series.cell.series(), sample, rules) {
                series.cell.set_late(true);
                self.counts.chunks += new_chunks;
                new += 1;
            }
        }
        self.stats.late += new;
        new
    }

    /// Lets a series begin with chunks of samples that came out of order and stand in files; `samples` are in them.
    pub(super) fn begin_late(&mut self, number: u32, chunks: Vec<WrittenLate>, samples: u64, files: &Arc<Files>) {
        let Some((shard, shared)) = &self.target else { return };
        let partition = shard.lock_partition();
        let slot = self.slots.get(number as usize).copied().unwrap_or(NONE);
        let Some(series) = partition.table.get(SeriesId::from_slot(slot)) else { return };
        for one in &chunks {
            if let Some(store) = shared.chunk_store() {
                store.note_late(one.epoch, one.chunk.place);
            }
        }
        self.counts.chunks += chunks.len() as u64;
        self.stats.late += samples;
        partition.readers.late.load().begin_with(series.cell.series(), chunks, files);
        series.cell.set_late(true);
    }

    /// The same for those alone whose time no late sample of the series has; `None` if the series is not here.
    pub(super) fn insert_late_chunk(&mut self, number: u32, mut samples: Vec<LateSample>, epoch: u64) -> Option<u64> {
        let (shard, first) = self.late_series(number)?;
        let held = shard.readers.late.load().get(first);
        let held = held.and_then(|late| late.merged(TimeRange::ALL, CommitId(0), u64::MAX).ok()).unwrap_or_default();
        samples.retain(|new| held.binary_search_by_key(&new.t, |sample| sample.t).is_err());
        Some(self.insert_late(number, samples, epoch))
    }

    /// Late samples of a series that are in memory alone: see `LateTable::times_in_memory`.
    pub(super) fn late_in_memory(&self, number: u32, from: usize) -> (usize, Vec<i64>) {
        let found = self.late_series(number);
        found.map_or_else(Default::default, |(shard, series)| shard.readers.late.load().times_in_memory(series, from))
    }

    /// Late samples of a series at the times that are wanted, with its reference.
    pub(super) fn late_at(&self, number: u32, is_wanted: impl Fn(i64) -> bool) -> Vec<(SeriesRef, LateSample)> {
        let Some((shard, series)) = self.late_series(number) else { return Vec::new() };
        let held = shard.readers.late.load().get(series);
        let merged = held.and_then(|late| late.merged(TimeRange::ALL, CommitId(0), u64::MAX).ok());
        let wanted = merged.unwrap_or_default().into_iter().filter(|one| is_wanted(one.t));
        wanted.map(|one| (series, LateSample::settled(one.t, one.start, LateValue::from(one.value)))).collect()
    }

    fn late_series(&self, number: u32) -> Option<(&Arc<Shard>, SeriesRef)> {
        let slot = self.slots.get(number as usize).copied()?;
        let (shard, _) = self.target.as_ref()?;
        let series = shard.lock_partition().table.get(SeriesId::from_slot(slot))?.cell.series();
        Some((shard, series))
    }

    /// How many different late samples of a series lie in a range.
    pub(super) fn late_between(&self, number: u32, (min_t, max_t): (i64, i64)) -> u64 {
        let Ok(range) = TimeRange::new(TimestampMs(min_t), TimestampMs(max_t)) else { return 0 };
        let late = self.late_series(number).and_then(|(shard, series)| shard.readers.late.load().get(series));
        late.and_then(|late| late.merged(range, CommitId(0), u64::MAX).ok()).map_or(0, |merged| merged.len() as u64)
    }

    /// Series of which the log has samples under other references, and how many of these their chunks should hold.
    pub(super) fn passed(&self) -> Vec<(SeriesRef, u64)> {
        let Some((shard, _)) = &self.target else { return Vec::new() };
        let partition = shard.lock_partition();
        let series = |slot: &u32| Some(partition.table.get(SeriesId::from_slot(*slot))?.cell.series());
        self.passed.iter().filter_map(|(slot, passed)| Some((series(slot)?, *passed))).collect()
    }

    /// Shows all that was restored.
    pub(super) fn publish(&mut self) {
        let Some((shard, _)) = self.target.as_ref().filter(|_| !self.is_shown) else { return };
        self.is_shown = true;
        let mut partition = shard.lock_partition();
        partition.settle_tail();
        let mut rest = partition.table.whole();
        let share = rest.page_count().div_ceil(threads());
        let unread = AtomicU64::new(0);
        let show = |series: &mut WriterSeries| {
            if !series.publish() {
                unread.fetch_add(1, Ordering::Relaxed);
            }
        };
        std::thread::scope(|scope| {
            // Other shards may be done by now, and their threads' cores idle.
            while share < rest.page_count() {
                let at = rest.end() - share;
                let (before, mut behind) = rest.split_at(at);
                rest = before;
                scope.spawn(move || behind.each_mut(show));
            }
            rest.each_mut(show);
        });
        self.stats.misfits += unread.into_inner();
        // Readers see them; those that stand in no file are to be written.
        partition.chunk_writes.look_at_all();
    }
}

/// Raises the time at a place to `t`; false if it is above that.
fn raise(times: &mut Vec<i64>, place: u32, t: i64) -> bool {
    let place = place as usize;
    times.resize(times.len().max(place + 1), i64::MIN);
    let Some(newest) = times.get_mut(place).filter(|newest| **newest <= t) else { return false };
    *newest = t;
    true
}

/// What restoring some runs has done.
struct Restored {
    counts: RunCounts,
    newest: i64,
    /// Places of series, and samples that their chunks should hold.
    passed: Vec<(u32, u64)>,
}

type AdoptedTo = HashMap<u32, i64, foldhash::fast::FixedState>;

/// Restores the entries of a batch, on several threads if they are many: with few targets one shard has most of the series.
fn restore_runs(
    (runs, adopted_to): (&Runs, &AdoptedTo),
    batch: &Batch,
    series: SeriesPart<'_>,
    rules: &CutRules,
) -> Vec<Restored> {
    let parts = parts_of(runs, batch, series);
    std::thread::scope(|scope| {
        let mut own = None;
        let mut others = Vec::new();
        for part in parts {
            match own {
                None => own = Some(part),
                Some(_) => others.push(scope.spawn(move || restore_part((runs, adopted_to), batch, part, rules))),
            }
        }
        let mut done: Vec<Restored> =
            own.into_iter().map(|part| restore_part((runs, adopted_to), batch, part, rules)).collect();
        for other in others {
            done.push(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        done
    })
}

/// Parts the series so that each part has about as many runs.
fn parts_of<'a>(runs: &Runs, batch: &Batch, series: SeriesPart<'a>) -> Vec<SeriesPart<'a>> {
    let wanted = threads().min(batch.samples.len() / PART_LEN_MIN);
    if wanted < 2 {
        return vec![series];
    }
    let mut by_page: Vec<usize> = Vec::new();
    for (slot, _) in &runs.firsts {
        let page = SeriesTable::page_of(*slot);
        by_page.resize(by_page.len().max(page + 1), 0);
        if let Some(count) = by_page.get_mut(page) {
            *count += 1;
        }
    }
    let (mut parts, mut rest) = (Vec::with_capacity(wanted), series);
    let mut seen = 0;
    for (page, count) in by_page.iter().enumerate() {
        if parts.len() + 1 < wanted && (parts.len() + 1) * runs.firsts.len() <= seen * wanted {
            let (before, behind) = rest.split_at(page);
            parts.push(before);
            rest = behind;
        }
        seen += count;
    }
    parts.push(rest);
    parts
}

fn restore_part(
    (runs, adopted_to): (&Runs, &AdoptedTo),
    batch: &Batch,
    mut series: SeriesPart<'_>,
    rules: &CutRules,
) -> Restored {
    let mut done = Restored { counts: RunCounts::default(), newest: i64::MIN, passed: Vec::new() };
    for group in runs.firsts.chunks(TOUCHED_AHEAD) {
        // Most of the time would go into waiting for the memory of each series; so the waits are one.
        let touched = group.iter().fold(0, |seen, (slot, _)| seen ^ series.get(*slot).map_or(0, WriterSeries::touch));
        std::hint::black_box(touched);
        for (slot, first) in group {
            // Others belong to other parts.
            let Some(series) = series.get_mut(*slot) else { continue };
            let run = Run { first: *first, next: &runs.next };
            let before = done.counts.not_newer;
            restore_run(series, run, batch, rules, &mut done.counts);
            if before < done.counts.not_newer
                && let Some(end) = adopted_to.get(slot)
            {
                // Those of the reference that has the chunks do not come here.
                let is_in_chunks = |entry: &&Entry| batch.base_t.wrapping_add(i64::from(entry.t)) <= *end;
                done.passed.push((*slot, run.entries(&batch.samples).filter(is_in_chunks).count() as u64));
            }
            done.newest = series.last().map_or(done.newest, |(newest, _)| newest.max(done.newest));
        }
    }
    done
}

/// Restores the entries of one series.
fn restore_run(series: &mut WriterSeries, run: Run<'_>, batch: &Batch, rules: &CutRules, counts: &mut RunCounts) {
    let time = |entry: &Entry| batch.base_t.wrapping_add(i64::from(entry.t));
    if batch.histograms.is_empty() {
        let floats = run.entries(&batch.samples).map(|entry| (time(entry), f64::from_bits(entry.bits)));
        return series.restore(floats, rules, counts);
    }
    let mut entries = run.entries(&batch.samples).peekable();
    while let Some(next) = entries.peek() {
        if next.number & HISTOGRAM == 0 {
            let floats = std::iter::from_fn(|| entries.next_if(|next| next.number & HISTOGRAM == 0));
            let floats = floats.map(|entry| (time(entry), f64::from_bits(entry.bits)));
            series.restore(floats, rules, counts);
        } else if let Some(entry) = entries.next() {
            let value = usize::try_from(entry.bits).ok().and_then(|index| batch.histograms.get(index));
            let Some(value) = value else { continue };
            // Number 0 is before all commits, so every view sees the sample.
            let (t, all) = (time(entry), CommitId(0));
            counts.add(t, series.append_histogram(t, value, all, all, rules));
        }
    }
}

/// Threads that restore one batch, at most.
fn threads() -> usize {
    static THREADS: LazyLock<usize> =
        LazyLock::new(|| std::thread::available_parallelism().map_or(1, NonZero::get).min(THREADS_MAX));
    *THREADS
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
