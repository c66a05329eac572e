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

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use hashbrown::HashTable;

use crate::model::append::ShardId;
use crate::model::labels::Labels;
use crate::model::metadata::SeriesMetadata;
use crate::model::sample::SeriesRef;
use crate::storage::head::chunk_writes::ChunkWrites;
use crate::storage::head::commit::Commit;
use crate::storage::head::index::tail::{RESTORED_TAIL_LEN_MAX, TAIL_LEN_MAX, Tail};
use crate::storage::head::index::{Index, build};
use crate::storage::head::partition::staged::{NewSeries, StagedBatch};
use crate::storage::head::series::WriterSeries;
use crate::storage::head::shard::ShardReaders;
use crate::storage::head::shared::{HeadShared, count};
use crate::storage::head::table::{SeriesId, SeriesTable};

mod apply;
mod order;
mod stage;
pub(super) mod staged;

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
