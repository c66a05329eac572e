//! What the log's thread does: one write for all that wait, and one sync for all that need it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

#[cfg(debug_assertions)]
use super::LOG_WRITER;
use super::{Announcements, Job, LogFailure, LogHealth, Order, Panics, Shared, SyncMode};
#[cfg(debug_assertions)]
use crate::actors::failpoint::{self, Point};
use crate::actors::panics;
use crate::storage::wal::WalError;
use crate::storage::wal::record::LogRecords;
#[cfg(debug_assertions)]
use crate::storage::wal::writer::Tear;
use crate::storage::wal::writer::{Position, Writer};
use crate::storage::wbl::LateLog;

/// What was written but not synced is synced after this long.
const SYNC_AFTER: Duration = Duration::from_secs(1);
/// A thread that wakes up and finds no order syncs what has waited for so long: who writes beside it does not wake it.
const SYNC_IDLE_AFTER: Duration = Duration::from_millis(500);
/// Records of so many bytes are gathered for one write at most.
const GATHERED_LEN_MAX: usize = 4 << 20;
/// How long a sync that somebody waits for may wait for other writes that were announced.
const GATHER_WITHIN: Duration = Duration::from_millis(1);
/// Waiters for whom a sync does not wait any longer.
const GATHERED_WAITERS_MAX: usize = 64;

/// How far the thread is with a batch of commits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Nobody was told anything.
    Unanswered,
    /// Some have been told that they are written.
    Answered,
}

/// Those who wait for the next sync.
#[derive(Default)]
pub(super) struct Waiters {
    tell: Vec<oneshot::Sender<Result<(), LogFailure>>>,
    /// When the first of them began to wait.
    since: Option<Instant>,
}

/// The thread's work: one write for all that wait, and one sync for all that need it.
pub(super) struct Work {
    pub(super) writer: Writer,
    pub(super) late: Option<LateLog>,
    pub(super) mode: SyncMode,
    pub(super) unsynced_since: Option<Instant>,
    pub(super) panics: Arc<Panics>,
    pub(super) waiters: Waiters,
    pub(super) expected: Arc<Announcements>,
    pub(super) told: watch::Sender<Position>,
    pub(super) health: Arc<LogHealth>,
    /// Bytes of the most records at once that the disk has refused, while it refuses.
    pub(super) refused_len: usize,
    /// Until when only the thread writes, as a write beside it was slow.
    pub(super) slow_until: Option<Instant>,
    /// The thread has synced all and ended.
    pub(super) has_ended: bool,
}

impl Shared {
    /// The thread's life. While it waits for orders, others may write.
    pub(super) fn run(&self, queue: &Receiver<Order>) -> Option<Position> {
        loop {
            let patience = self.work.lock().patience();
            let first = match queue.recv_timeout(patience) {
                Ok(order) => Some(order),
                Err(RecvTimeoutError::Timeout) => {
                    let _ = panics::catch(|| self.work.lock().probe());
                    None
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let mut work = self.work.lock();
                    work.has_ended = true;
                    let _ = panics::catch(|| work.sync_for_waiters());
                    return panics::catch(|| work.writer.finish()).ok()?.ok();
                }
            };
            let mut work = self.work.lock();
            let done = work.handle(first, queue);
            self.queued.fetch_sub(done, Ordering::AcqRel);
        }
    }
}

impl Work {
    /// Takes note of how the disk has answered; said once when it begins to refuse, and once when it is over.
    fn heard(&self, answer: Result<(), &WalError>) {
        let mut refusing = self.health.refusing.lock();
        match (answer, refusing.is_some()) {
            (Err(error), false) => {
                tracing::error!(component = "tsdb", err = %error,
                    "The disk does not take the write log: samples are refused until it does");
                self.writer.metrics().refusing.set(1.0);
                *refusing = Some(error.to_string().into());
            }
            (Ok(()), true) => {
                tracing::info!(component = "tsdb", "The disk takes the write log again");
                self.writer.metrics().refusing.set(0.0);
                *refusing = None;
            }
            (Err(_), true) | (Ok(()), false) => {}
        }
    }

    /// Whether it takes it again, as much as it has refused: of a disk that is full small records still find room in the last block.
    fn probe(&mut self) {
        if self.health.refusing().is_some() && self.writer.probe(self.refused_len).is_ok() {
            self.heard(Ok(()));
            self.refused_len = 0;
        }
    }

    /// Does `first` and what is queued behind it, up to a bound; answers how many orders those were.
    fn handle(&mut self, first: Option<Order>, queue: &Receiver<Order>) -> usize {
        let sync_after = if first.is_some() { SYNC_AFTER } else { SYNC_IDLE_AFTER };
        let (mut jobs, mut plan, mut cut, mut len): (Vec<Job>, _, _, usize) = (Vec::new(), None, None, 0);
        let mut taken = 0;
        for order in first.into_iter().chain(queue.try_iter()) {
            taken += 1;
            match order {
                Order::Write(job) => {
                    len += job.records.len();
                    jobs.push(job);
                }
                Order::Plan(done) => plan = Some(done),
                Order::CutLate(done) => cut = Some(done),
            }
            if plan.is_some() || cut.is_some() || GATHERED_LEN_MAX <= len {
                break;
            }
        }
        let due = self.unsynced_since.is_some_and(|since| sync_after <= since.elapsed());
        let (mut progress, wrote) = (Progress::Unanswered, 0 < len);
        if let Err(text) = panics::catch(|| self.write(jobs, due, &mut progress)) {
            self.recover(text, wrote && progress == Progress::Unanswered);
        }
        if let Some(done) = plan {
            match panics::catch(|| self.writer.plan_checkpoint()) {
                // An asker that has gone needs no answer, here and below.
                Ok(planned) => drop(done.send(planned)),
                Err(text) => self.recover(text, false),
            }
        }
        if let Some(done) = cut {
            match panics::catch(|| self.late.as_mut().map_or(Ok(None), LateLog::cut)) {
                Ok(cut) => drop(done.send(cut)),
                Err(text) => self.recover(text, false),
            }
        }
        self.note(due);
        taken
    }

    /// Tells those who read along how far the log is, and notes since when something of it is not synced.
    pub(super) fn note(&mut self, synced: bool) {
        let position = self.writer.position();
        self.told.send_if_modified(|told| std::mem::replace(told, position) != position);
        let unsynced = self.mode != SyncMode::Off && self.wants_sync();
        let since = self.unsynced_since.filter(|_| !synced);
        self.unsynced_since = unsynced.then(|| since.unwrap_or_else(Instant::now));
    }

    /// After a panic. Commits of which nobody was told that they are written have failed, so they must not come back after
    /// a restart. What the panic has left of the segment is doubtful: the next records go into a new one.
    pub(super) fn recover(&mut self, text: String, undo: bool) {
        let repaired = panics::catch(|| {
            if undo {
                self.undo_append();
            }
            if let Some(late) = &mut self.late {
                late.next_segment()?;
            }
            self.writer.next_segment()
        });
        match repaired {
            Ok(Ok(segment)) => tracing::warn!(component = "tsdb", segment, "The log goes on in a new segment"),
            Ok(Err(err)) => tracing::error!(component = "tsdb", %err, "The log cannot go on in a new segment"),
            Err(err) => tracing::error!(component = "tsdb", err, "The log cannot go on in a new segment"),
        }
        self.panics.tell(text);
    }

    /// How long to wait for the next order.
    fn patience(&self) -> Duration {
        let left = |within: Duration, since: Option<Instant>| since.map(|since| within.saturating_sub(since.elapsed()));
        let sync = left(SYNC_AFTER, self.unsynced_since).unwrap_or(SYNC_AFTER);
        left(GATHER_WITHIN, self.waiters.since).map_or(sync, |gather| gather.min(sync))
    }

    /// Whether those who wait for a sync get it now: unless more of them are to come at once.
    fn is_gathered(&self) -> bool {
        let Some(since) = self.waiters.since else { return false };
        GATHERED_WAITERS_MAX <= self.waiters.tell.len()
            || self.expected.count() == 0
            || GATHER_WITHIN <= since.elapsed()
    }

    fn write(&mut self, mut jobs: Vec<Job>, due: bool, progress: &mut Progress) {
        let mut records = LogRecords::default();
        for job in &mut jobs {
            records.wal.append(&mut job.records.wal);
            records.late.append(&mut job.records.late);
        }
        if !records.is_empty()
            && let Err(failure) = self.log(&records)
        {
            for job in jobs {
                let _ = job.done.send(Err(failure.clone()));
            }
            return;
        }
        let position = self.writer.position();
        for job in jobs {
            *progress = Progress::Answered;
            drop(job.announced);
            match job.synced {
                Some(tell) if self.mode == SyncMode::Commit => {
                    self.waiters.since.get_or_insert_with(Instant::now);
                    self.waiters.tell.push(tell);
                }
                Some(tell) => drop(tell.send(Ok(()))),
                None => {}
            }
            let _ = job.done.send(Ok(position));
        }
        if due || self.is_gathered() {
            self.sync_for_waiters();
        }
    }

    /// Writes records; after an error, and after a panic with [`Self::undo_append`], nothing of them is in the log.
    pub(super) fn log(&mut self, records: &LogRecords) -> Result<(), LogFailure> {
        // What a panic takes back is this batch alone.
        self.writer.settle_append();
        if let Some(late) = &mut self.late {
            late.settle_append();
        }
        #[cfg(debug_assertions)]
        self.pass("before-write", "in-write", Tear::Write);
        if let Err(error) = self.append(records) {
            match &error {
                WalError::Io { .. } => {
                    self.refused_len = self.refused_len.max(records.len());
                    self.heard(Err(&error));
                }
                _ => tracing::error!(component = "tsdb", err = %error, "Writing the log failed"),
            }
            return Err(LogFailure::Refused(error.to_string().into()));
        }
        self.probe();
        #[cfg(debug_assertions)]
        failpoint::hit(LOG_WRITER.name, THREAD, Point::Step("after-write"));
        Ok(())
    }

    /// First the write-ahead log, which names the series, then the log of late samples; after an error, in neither.
    fn append(&mut self, records: &LogRecords) -> Result<(), WalError> {
        self.writer.append(&records.wal)?;
        if records.late.is_empty() {
            return Ok(());
        }
        let late = self.late.as_mut().map(|late| late.append(&records.late));
        let late = late.unwrap_or(Err(WalError::NoLateLog));
        if late.is_err() {
            self.writer.undo_append();
        }
        late
    }

    fn undo_append(&mut self) {
        self.writer.undo_append();
        if let Some(late) = &mut self.late {
            late.undo_append();
        }
    }

    fn wants_sync(&self) -> bool {
        self.writer.wants_sync() || self.late.as_ref().is_some_and(LateLog::wants_sync)
    }

    fn sync_for_waiters(&mut self) {
        // Taken before: a panic lets them go.
        let waiters = std::mem::take(&mut self.waiters);
        let synced = self.sync();
        for tell in waiters.tell {
            let _ = tell.send(synced.clone());
        }
    }

    fn sync(&mut self) -> Result<(), LogFailure> {
        if !self.wants_sync() {
            return Ok(());
        }
        #[cfg(debug_assertions)]
        self.pass("before-sync", "in-sync", Tear::Sync);
        let synced = self.writer.sync().and_then(|()| self.late.as_mut().map_or(Ok(()), LateLog::sync));
        let synced = synced.map_err(|error| {
            self.heard(Err(&error));
            LogFailure::NotSynced(error.to_string().into())
        });
        #[cfg(debug_assertions)]
        failpoint::hit(LOG_WRITER.name, THREAD, Point::Step("after-sync"));
        synced
    }

    /// The failpoints before and within a call of the writer.
    #[cfg(debug_assertions)]
    fn pass(&mut self, before: &'static str, within: &'static str, tear: Tear) {
        failpoint::hit(LOG_WRITER.name, THREAD, Point::Step(before));
        if failpoint::take(LOG_WRITER.name, THREAD, Point::Step(within)) {
            self.writer.tear_next(tear);
        }
    }
}

/// Name of the thread for failpoints.
#[cfg(debug_assertions)]
const THREAD: &str = "thread";
