//! The newest series of a shard, not yet inverted: a log of fixed capacity with one writer and any number of readers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crate::model::labels::Labels;
use crate::storage::head::column::SeriesCell;

/// Series that a tail takes before it becomes a segment.
pub(crate) const TAIL_LEN_MAX: usize = 1024;
/// The same while a shard is being restored: nobody scans it, and fewer segments are merged less often.
pub(crate) const RESTORED_TAIL_LEN_MAX: usize = 4096;

/// One new series.
#[derive(Clone, Debug)]
pub(crate) struct TailEntry {
    pub(crate) labels: Labels,
    pub(crate) hash: u64,
    pub(crate) cell: Arc<SeriesCell>,
}

/// The log. A view remembers how long it was when the view opened.
#[derive(Debug)]
pub(crate) struct Tail {
    entries: Box<[OnceLock<TailEntry>]>,
    len: AtomicUsize,
}

impl Default for Tail {
    /// A tail without room, for shards without series.
    fn default() -> Self {
        Self { entries: Box::default(), len: AtomicUsize::new(0) }
    }
}

impl Tail {
    /// An empty tail for `len_max` series.
    pub(crate) fn with_room(len_max: usize) -> Self {
        Self { entries: (0..len_max).map(|_| OnceLock::new()).collect(), len: AtomicUsize::new(0) }
    }

    /// Appends `entry`, or gives it back if the tail is full. For the writer alone.
    pub(crate) fn push(&self, entry: TailEntry) -> Result<(), TailEntry> {
        let len = self.len.load(Ordering::Relaxed);
        let Some(slot) = self.entries.get(len) else { return Err(entry) };
        slot.set(entry)?;
        self.len.store(len + 1, Ordering::Release);
        Ok(())
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len() == self.room()
    }

    /// Series that it has room for, those in it included.
    pub(crate) fn room(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// The entry with this number.
    pub(crate) fn get(&self, number: usize) -> Option<&TailEntry> {
        self.entries.get(number).and_then(OnceLock::get)
    }

    /// The first `len` entries.
    pub(crate) fn iter(&self, len: usize) -> impl Iterator<Item = &TailEntry> {
        self.entries.iter().take(len).filter_map(OnceLock::get)
    }
}
