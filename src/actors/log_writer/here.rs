//! Records that are written by the thread that has them. Leaving them to the log's thread wakes that one up, and is woken up by it;
//! a scrape's records are small, and their write goes to the system's memory, not to the disk.
//!
//! Invariants: nobody waits here for the log, records that find it taken go to its thread; nothing is written before records that
//! were left to the thread earlier, nor with anything but a write: what needs a sync, a new segment or a repair is the thread's. After
//! a write that was slow only the thread writes for a while, so that a disk that hangs holds up one thread of scrapes at most. Syncs
//! are the thread's as well, within the time that it has for all. A panic here counts as the thread's.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;

use super::work::Work;
use super::{LogFailure, LogThread, LogWay, WriteRecords};
use crate::actors::{current, panics};
use crate::storage::wal::record::LogRecords;
use crate::storage::wal::writer::Position;

/// Longer records go to the thread: a write is to take well under a millisecond.
const LEN_MAX: usize = 128 << 10;
/// A write that takes as long is slow.
const SLOW: Duration = Duration::from_millis(5);
/// For how long the thread alone writes after one.
const SLOW_FOR: Duration = Duration::from_secs(1);

/// What became of records that were to be written at once.
#[derive(Debug)]
pub enum AtOnce {
    /// They were written, or refused.
    Done(Result<Position, LogFailure>),
    /// Nothing was done: they are for the thread.
    NotNow(LogRecords),
}

impl LogWay {
    /// Writes records that are not durable, on the thread that calls, with one of the actor's slots.
    pub fn write_here(&self, records: LogRecords) -> AtOnce {
        let is_free = self.by_actor.load(Ordering::Acquire) == 0;
        let Some(_slot) = is_free.then(|| self.actor.lend()).flatten() else { return AtOnce::NotNow(records) };
        let Some(mut work) = self.thread.free_work() else { return AtOnce::NotNow(records) };
        if !work.writes_at_once(&records) {
            return AtOnce::NotNow(records);
        }
        let _scope = current::enter(self.actor.entry());
        current::doing(std::any::type_name::<WriteRecords>());
        AtOnce::Done(work.write_at_once(&records))
    }
}

impl LogThread {
    /// The log, if nobody is at it and nothing was left to the thread.
    fn free_work(&self) -> Option<MutexGuard<'_, Work>> {
        let work = self.shared.work.try_lock()?;
        (self.shared.queued.load(Ordering::Acquire) == 0 && !work.has_ended).then_some(work)
    }
}

impl Work {
    fn writes_at_once(&self, records: &LogRecords) -> bool {
        self.slow_until.is_none_or(|until| until <= Instant::now())
            && (records.late.is_empty() || self.late.as_ref().is_some_and(|late| late.only_writes(&records.late)))
            && records.len() <= LEN_MAX
            && self.health.refusing().is_none()
            && self.writer.only_writes(&records.wal)
    }

    fn write_at_once(&mut self, records: &LogRecords) -> Result<Position, LogFailure> {
        let began = Instant::now();
        let logged = panics::catch(|| self.log(records)).unwrap_or_else(|text| {
            self.recover(text, true);
            Err(LogFailure::Lost)
        });
        self.slow_until = (SLOW <= began.elapsed()).then(|| Instant::now() + SLOW_FOR);
        self.note(false);
        logged.map(|()| self.writer.position())
    }
}
