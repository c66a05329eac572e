//! Finished chunks on their way from a shard to files: which series have some, and what has been written.
//!
//! One job of a shard is under way at a time. It holds the chunks, not the shard: appends and queries go on. Whatever becomes of it,
//! dropped or failed, its outcome comes back, so no chunk is forgotten and none is written twice.
//!
//! A series all of whose late samples stand in files, with none on its way, gets a marker in the log of those. It is written while
//! nobody can stage another, so it tells the truth of what stands before it in that log.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::model::sample::SeriesRef;
use crate::storage::block::chunks::ChunkData;
use crate::storage::block::rewrite;
use crate::storage::chunk::sealed::SealedChunks;
use crate::storage::chunk::written::{ChunkPlace, WrittenChunk};
use crate::storage::chunk::{ChunkError, Encoding};
use crate::storage::head::Head;
use crate::storage::head::late::LateChunk;
use crate::storage::head::partition::Partition;
use crate::storage::head::series::WriterSeries;
use crate::storage::head::shard::Shard;
use crate::storage::head::starts::{Run, start_at};
use crate::storage::head::table::SeriesId;
use crate::storage::head_chunk_store::{ChunkFile, ChunkStore};
use crate::storage::head_chunks::{OUT_OF_ORDER, put_chunk};
use crate::storage::wal::WalError;
use crate::storage::wal::marker_record::{RefMarker, encode_markers};
use crate::storage::wal::record::Record;

/// Series of one job at most.
const SERIES_MAX: usize = if cfg!(test) { 3 } else { 512 };
/// Bytes of one job, beyond which no further series is added.
const JOB_LEN: usize = 1 << 20;
/// Places of the table that are looked at in one step.
const LOOKED_AT_MAX: usize = if cfg!(test) { 5 } else { 4096 };

/// What a partition knows of chunks that are to be written.
#[derive(Debug, Default)]
pub(crate) struct ChunkWrites {
    /// Series with finished chunks in memory.
    waiting: VecDeque<SeriesId>,
    /// Series that may have closed a chunk of samples that came out of order; some views may have to hide samples of it for a while.
    late: Vec<SeriesId>,
    /// The next place of the table to be looked at for more of them.
    look_at: Option<usize>,
    /// A job is under way.
    is_busy: bool,
    /// Series of whose chunks of late samples some were written, and whose log has no marker of them.
    to_mark: Vec<SeriesId>,
}

impl ChunkWrites {
    /// A series has finished a chunk, and holds `held` of them by now.
    #[inline]
    pub(crate) fn finished(&mut self, id: SeriesId, held: usize) {
        // One that holds more waits already, or is being written.
        if held == 1 {
            self.waiting.push_back(id);
        }
    }

    /// A series may have closed a chunk of samples that came out of order.
    #[inline]
    pub(crate) fn finished_late(&mut self, id: SeriesId) {
        self.late.push(id);
    }

    /// Any series may have some.
    pub(crate) fn look_at_all(&mut self) {
        self.look_at = Some(0);
        self.waiting = VecDeque::new();
        self.late = Vec::new();
        self.to_mark = Vec::new();
    }
}

/// A series of a job.
#[derive(Debug)]
struct Planned {
    id: SeriesId,
    series: SeriesRef,
    chunks: Option<Arc<SealedChunks>>,
    late: Vec<Arc<LateChunk>>,
}

/// A series whose chunks were written.
#[derive(Debug)]
struct Written {
    id: SeriesId,
    series: SeriesRef,
    chunks: Vec<WrittenChunk>,
    late: Vec<(Arc<LateChunk>, ChunkPlace)>,
}

/// What has become of a job.
#[derive(Debug)]
pub(super) struct Outcome {
    generation: u64,
    /// Series whose chunks are still in memory alone.
    left: Vec<SeriesId>,
    written: Vec<Written>,
    /// Stays open until the series know of it.
    _file: Option<Arc<ChunkFile>>,
}

/// What became of markers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marked {
    /// The log has them, or none will be written.
    Done,
    /// The log was not free: they are wanted again.
    NotNow,
}

/// What there is to do with finished chunks of a shard.
pub enum ChunkStep {
    /// These are to be written.
    Job(ChunkJob),
    /// Ask again.
    More,
    /// None waits, others are under way, or none are written at all.
    Done,
}

/// Chunks of one shard that are to be written.
pub struct ChunkJob {
    shard: Arc<Shard>,
    store: Arc<ChunkStore>,
    generation: u64,
    series: Vec<Planned>,
}

impl Partition {
    /// True if chunks wait to be written, more than `count` series with some or in places that were not looked at.
    fn has_chunks_to_write(&self, count: usize) -> bool {
        let writes = &self.chunk_writes;
        !writes.is_busy && (writes.look_at.is_some() || count < writes.waiting.len())
    }

    /// Has series looked at again that may have closed a chunk of samples that came out of order.
    fn look_at_late(&mut self) {
        let writes = &mut self.chunk_writes;
        if !writes.is_busy {
            writes.waiting.extend(writes.late.drain(..));
        }
    }

    fn plan_chunk_job(&mut self) -> Vec<Planned> {
        let (late_table, epoch) = (self.readers.late.load_full(), self.shared.late_epoch.load(Ordering::SeqCst));
        let low = self.shared.horizon.low_watermark();
        let Self { chunk_writes: writes, table, .. } = self;
        if writes.is_busy {
            return Vec::new();
        }
        if let Some(from) = writes.look_at {
            let to = from.saturating_add(LOOKED_AT_MAX).min(table.slot_count());
            let ids = (from..to).map(|slot| table.id_at(slot));
            let has_some = |series: &WriterSeries| series.held_chunks().is_some() || series.cell.has_late();
            writes.waiting.extend(ids.filter(|id| table.get(*id).is_some_and(has_some)));
            writes.look_at = (to < table.slot_count()).then_some(to);
        }
        let count = SERIES_MAX.min(writes.waiting.len());
        let mut ids: Vec<SeriesId> = writes.waiting.drain(..count).collect();
        if writes.waiting.is_empty() {
            writes.waiting = VecDeque::new();
        }
        // Neighbours stay together, and one that waits twice is written once.
        ids.sort_unstable_by_key(|id| id.slot());
        ids.dedup();
        let (mut planned, mut len) = (Vec::with_capacity(ids.len()), 0);
        for id in ids {
            let Some(series) = table.get(id) else { continue };
            if JOB_LEN < len {
                writes.waiting.push_front(id);
                continue;
            }
            let (reference, chunks) = (series.cell.series(), series.held_chunks().cloned());
            let (late, has_more) = match series.cell.has_late() {
                true => late_table.to_write(reference, epoch, low),
                false => Default::default(),
            };
            if has_more {
                writes.late.push(id);
            }
            if chunks.is_none() && late.is_empty() {
                continue;
            }
            len += chunks.as_ref().map_or(0, |chunks| chunks.heap_len());
            len += late.iter().map(|chunk| chunk.data.len()).sum::<usize>();
            planned.push(Planned { id, series: reference, chunks, late });
        }
        writes.is_busy = !planned.is_empty();
        planned
    }

    fn install_chunks(&mut self, written: &Written, store: &ChunkStore) {
        let Some(series) = self.table.get_mut(written.id) else { return };
        if series.cell.series() != written.series {
            return;
        }
        if !written.late.is_empty() {
            self.readers.late.load().set_written(written.series, &written.late, store.files());
            self.chunk_writes.to_mark.push(written.id);
        }
        series.chunks_written(&written.chunks, store.files());
        if series.held_chunks().is_some() {
            self.chunk_writes.waiting.push_back(written.id);
        }
    }
}

impl Partition {
    /// Markers of some of the series that want one and may have it, and those series. Others get theirs with a later chunk.
    fn plan_markers(&mut self, series_max: usize) -> (Vec<RefMarker>, Vec<SeriesId>) {
        let to_mark = &mut self.chunk_writes.to_mark;
        let mut ids = to_mark.split_off(to_mark.len().saturating_sub(series_max));
        ids.sort_unstable_by_key(|id| id.slot());
        ids.dedup();
        let (late, waiting, mut markers) = (self.readers.late.load(), self.staged_late(), Vec::new());
        ids.retain(|id| {
            let Some(series) = self.table.get(*id).filter(|_| !waiting.contains(id)) else { return false };
            let series = series.cell.series();
            // Of a series with several references Prometheus keeps the chunks of one alone.
            let place = late.all_in_files(series).filter(|_| !self.shared.has_aliases(series));
            markers.extend(place.map(|place| RefMarker { series, place: place.number() }));
            place.is_some()
        });
        (markers, ids)
    }
}

impl Shard {
    /// Has `write` put markers into the log of late samples, of at most `series_max` series. Nothing can be staged meanwhile, so
    /// it must not wait for anything. True if there are more.
    pub fn mark_late(&self, series_max: usize, write: impl FnOnce(Vec<Record>) -> Marked) -> bool {
        let mut partition = self.lock_partition();
        if partition.chunk_writes.to_mark.is_empty() || self.whole().is_none() {
            return false;
        }
        let (markers, ids) = partition.plan_markers(series_max);
        let mut records = Vec::new();
        encode_markers(markers, &mut records);
        if !records.is_empty() && write(records) == Marked::NotNow {
            let to_mark = &mut partition.chunk_writes.to_mark;
            to_mark.extend(ids);
            to_mark.sort_unstable_by_key(|id| id.slot());
            to_mark.dedup();
            return false;
        }
        !partition.chunk_writes.to_mark.is_empty()
    }

    /// True if finished chunks of more than `count` series wait to be written.
    pub fn has_chunks_to_write(&self, count: usize) -> bool {
        // Whoever has ordered a job may be gone by now.
        !self.chunk_outcomes.lock().is_empty()
            || self.shared.chunk_store().is_some_and(|store| store.is_open()) && {
                let mut partition = self.lock_partition();
                partition.look_at_late();
                partition.has_chunks_to_write(count)
            }
    }

    /// The next finished chunks to be written, off the shard's thread.
    pub fn chunk_job(self: &Arc<Self>) -> ChunkStep {
        let store = self.shared.chunk_store().filter(|store| store.is_open());
        let (Some(store), Some(generation)) = (store, self.whole()) else { return ChunkStep::Done };
        let mut partition = self.lock_partition();
        let series = partition.plan_chunk_job();
        if !series.is_empty() {
            let (shard, store) = (Arc::clone(self), Arc::clone(store));
            return ChunkStep::Job(ChunkJob { shard, store, generation, series });
        }
        // Places may have been looked at in vain.
        if partition.has_chunks_to_write(0) { ChunkStep::More } else { ChunkStep::Done }
    }

    /// Lets at most `series_max` series know that their chunks were written, and give back the memory. True if there are more.
    pub fn install_chunks(&self, series_max: usize) -> bool {
        let Some(store) = self.shared.chunk_store() else { return false };
        let mut partition = self.lock_partition();
        let mut outcomes = self.chunk_outcomes.lock();
        let mut room = series_max;
        while let Some(outcome) = outcomes.front_mut() {
            if outcome.generation == self.readers.generation() {
                while let Some(written) = outcome.written.pop() {
                    if room == 0 {
                        outcome.written.push(written);
                        return true;
                    }
                    room -= 1;
                    partition.install_chunks(&written, store);
                }
                partition.chunk_writes.waiting.extend(outcome.left.drain(..));
                partition.chunk_writes.is_busy = false;
            }
            outcomes.pop_front();
        }
        false
    }

    /// Has every series looked at for chunks that are to be written.
    pub(super) fn look_for_chunks(&self) {
        self.lock_partition().chunk_writes.look_at_all();
    }
}

impl ChunkJob {
    /// Writes the chunks, and returns how many. Afterwards [`Shard::install_chunks`] has something to do, whatever has become of
    /// them.
    pub fn run(mut self) -> Result<usize, WalError> {
        let (mut data, mut chunks, mut late) = (Vec::new(), Vec::new(), Vec::new());
        let mut written = Vec::with_capacity(self.series.len());
        for one in &self.series {
            let (from, runs) = (chunks.len(), self.shard.readers.starts.runs(one.series));
            for chunk in
                one.chunks.iter().flat_map(|chunks| chunks.iter()).filter(|chunk| chunk.known_max_t().is_none())
            {
                // What cannot be decoded stays in memory, and so do those behind it.
                let (Ok(min_t), Ok(max_t)) = (chunk.min_t(), chunk.max_t()) else { break };
                let offset = data.len() as u64;
                let mut unused = Vec::new();
                let Ok(bytes) = chunk.data(&mut unused) else { break };
                let range = (min_t, max_t);
                let Ok(started) = self.started((chunk.encoding, range, bytes), &runs) else { break };
                let (encoding, bytes) =
                    started.as_ref().map_or((chunk.encoding, bytes), |(own, data)| (*own, &data[..]));
                put_chunk(one.series, range, encoding.id(), bytes, &mut data);
                chunks.push((offset, min_t, max_t, chunk.sample_count(), encoding));
            }
            let from_late = late.len();
            for chunk in &one.late {
                late.push((data.len() as u64, chunk.epoch));
                let range = (chunk.min_t, chunk.max_t);
                put_chunk(one.series, range, chunk.encoding.id() | OUT_OF_ORDER, &chunk.data, &mut data);
            }
            written.push((from..chunks.len(), from_late..late.len()));
        }
        let store = Arc::clone(&self.store);
        let mut appender = store.lock();
        // Whoever reads a shard back reads the files as well: afterwards they must not grow by what it had before.
        let count = chunks.len() + late.len();
        if count == 0 || !store.is_open() || self.shard.readers.generation() != self.generation {
            return Ok(0);
        }
        let (file, place) = appender.append(&data, count as u64)?;
        let place_of = |offset: &u64| ChunkPlace::new(place.file(), place.offset() + offset).expect("files are short");
        late.iter().for_each(|(offset, epoch)| store.note_late(*epoch, place_of(offset)));
        let at = |(offset, min_t, max_t, samples, encoding): &(u64, i64, i64, u16, _)| {
            let place = place_of(offset);
            WrittenChunk { place, min_t: *min_t, max_t: *max_t, samples: *samples, encoding: *encoding }
        };
        let planned = std::mem::take(&mut self.series).into_iter().zip(written);
        let written = planned.map(|(one, (range, late_range))| {
            let chunks = chunks.get(range).unwrap_or_default().iter().map(at).collect();
            let places = late.get(late_range).unwrap_or_default().iter().map(|(offset, _)| place_of(offset));
            Written { id: one.id, series: one.series, chunks, late: one.late.into_iter().zip(places).collect() }
        });
        let outcome =
            Outcome { generation: self.generation, left: Vec::new(), written: written.collect(), _file: Some(file) };
        // Before the store is let go: whoever closes it knows all that was written.
        self.shard.chunk_outcomes.lock().push_back(outcome);
        Ok(count)
    }
}

impl ChunkJob {
    /// The chunk with the start times of its samples, if it has some and blocks are to have them.
    fn started(
        &self,
        (encoding, (min_t, max_t), data): (Encoding, (i64, i64), &[u8]),
        runs: &[Run],
    ) -> Result<Option<(Encoding, Vec<u8>)>, ChunkError> {
        let has_any = runs.iter().any(|(from, start)| *from <= max_t && *start != 0);
        if !has_any || !self.shard.shared.encodings.wants_starts(encoding) {
            return Ok(None);
        }
        let plain = ChunkData { min_t, max_t, encoding: encoding.id(), data: data.to_vec() };
        let started = rewrite::with_starts(&plain, |t| start_at(runs, t))?;
        Ok(Some((Encoding::from_id(started.encoding)?, started.data)))
    }
}

impl Drop for ChunkJob {
    fn drop(&mut self) {
        if !self.series.is_empty() {
            let left = self.series.iter().map(|one| one.id).collect();
            let outcome = Outcome { generation: self.generation, left, written: Vec::new(), _file: None };
            self.shard.chunk_outcomes.lock().push_back(outcome);
        }
    }
}

impl Head {
    /// Knows the files of finished chunks from now on; none are written yet.
    pub fn attach_chunks(&self, store: ChunkStore) {
        // A head is opened once.
        let _ = self.shared.set_chunk_store(store);
    }

    /// Where finished chunks are written, if the head knows all that stands there.
    pub fn chunk_store(&self) -> Option<&Arc<ChunkStore>> {
        self.shared.chunk_store()
    }

    /// Finished chunks are written from now on, as jobs of the shards.
    pub fn begin_chunk_writes(&self) {
        if let Some(store) = self.chunk_store().filter(|store| store.is_complete()) {
            store.open();
            self.shards().iter().for_each(|shard| shard.look_for_chunks());
        }
    }

    /// Writes all finished chunks on the caller's thread: for tests and tools.
    pub fn write_chunks_blocking(&self) -> Result<(), WalError> {
        for shard in self.shards() {
            while shard.install_chunks(usize::MAX) {}
            shard.lock_partition().look_at_late();
            loop {
                let done = match shard.chunk_job() {
                    ChunkStep::Job(job) => job.run(),
                    ChunkStep::More => continue,
                    ChunkStep::Done => break,
                };
                while shard.install_chunks(usize::MAX) {}
                if done? == 0 {
                    break;
                }
            }
        }
        Ok(())
    }
}
