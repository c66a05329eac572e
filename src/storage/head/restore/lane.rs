//! The way to the thread of one shard: what is in the batch that is being filled, and who takes it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use crate::model::append::HistogramValue;
use crate::model::labels::Labels;
use crate::model::metadata::SeriesMetadata;
use crate::model::sample::SeriesRef;
use crate::storage::block::tombstones::Interval;
use crate::storage::head::image::Adoption;
use crate::storage::head::restore::shard::ShardRestorer;
use crate::storage::head::shard::Shard;
use crate::storage::head::shared::HeadShared;

/// How many samples a series counts for.
const SERIES_WEIGHT: usize = 8;
/// How many bytes of chunks count for a sample.
const CHUNK_BYTES_WEIGHT: usize = size_of::<Entry>();
/// Marks the entry of a histogram; above the numbers of series.
pub(super) const HISTOGRAM: u32 = 1 << 31;

/// The way to one shard.
pub(super) struct Lane {
    /// References so far.
    pub(super) numbers: u32,
    pub(super) batch: Batch,
    pub(super) worker: Worker,
}

pub(super) enum Worker {
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
pub(super) struct Batch {
    pub(super) series: Vec<NamedSeries>,
    /// Bytes of their chunks.
    pub(super) chunks_len: usize,
    /// Times of samples count from here.
    pub(super) base_t: i64,
    pub(super) samples: Vec<Entry>,
    pub(super) histograms: Vec<HistogramValue>,
    pub(super) metadata: Vec<(u32, SeriesMetadata)>,
    /// Of samples: time and start.
    pub(super) starts: Vec<(u32, i64, i64)>,
    /// After all samples.
    pub(super) tombstones: Vec<(u32, Interval)>,
}

/// A series of the log, under its number in the lane.
pub(super) struct NamedSeries {
    pub(super) number: u32,
    pub(super) reference: SeriesRef,
    pub(super) labels: Labels,
    pub(super) chunks: Option<Box<Adoption>>,
}

/// A sample, or a histogram of the batch: then the number is marked, and `bits` are its index.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) number: u32,
    /// Less the batch's base.
    pub(super) t: i32,
    pub(super) bits: u64,
}

impl Lane {
    /// Hands the batch over if it is full.
    pub(super) fn pass_on(&mut self, len_max: usize) {
        if len_max <= self.batch.weight() {
            self.flush();
        }
    }

    #[inline]
    pub(super) fn push(&mut self, number: u32, t: i64, bits: u64) {
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
    pub(super) fn make_room_for(&mut self, t: i64) {
        if i32::try_from(t.wrapping_sub(self.batch.base_t)).is_err() {
            if !self.batch.samples.is_empty() {
                self.flush();
            }
            self.batch.base_t = t;
        }
    }

    pub(super) fn flush(&mut self) {
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
    pub(super) fn close(&mut self) {
        self.flush();
        if let Worker::Thread { batches, .. } = &mut self.worker {
            *batches = None;
        }
    }

    /// What restores the shard; its thread has ended.
    pub(super) fn here(&mut self) -> &mut ShardRestorer {
        self.close();
        if let Worker::Thread { handle, .. } = &mut self.worker {
            let handle = handle.take().expect("a thread is joined once");
            let restorer = handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            self.worker = Worker::Here(Box::new(restorer));
        }
        match &mut self.worker {
            Worker::Here(restorer) => restorer,
            Worker::Thread { .. } => unreachable!("it was replaced above"),
        }
    }

    /// The same, after all that it has got by now was shown to readers.
    pub(super) fn settle(&mut self) -> &mut ShardRestorer {
        let restorer = self.here();
        restorer.publish();
        restorer
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
    pub(super) fn start(shard: &Arc<Shard>, shared: &Arc<HeadShared>) -> Self {
        // One is filled while another is taken; a third would only take memory.
        let (batches, to_take) = sync_channel::<Batch>(0);
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
        let named =
            SERIES_WEIGHT * (self.series.len() + self.histograms.len() + self.metadata.len() + self.starts.len());
        self.samples.len() + named + self.chunks_len / CHUNK_BYTES_WEIGHT
    }

    pub(super) fn clear(&mut self) {
        self.series.clear();
        self.chunks_len = 0;
        self.samples.clear();
        self.histograms.clear();
        self.metadata.clear();
        self.starts.clear();
        self.tombstones.clear();
    }
}
