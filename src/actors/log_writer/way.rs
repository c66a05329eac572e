//! The way of a commit's records to the log's thread. The actor passes them on; where it runs and nothing that came before is
//! still on that way, whoever has them gives them to the thread itself. That spares waking the actor's thread up, and being
//! woken up by it: two of six for each scrape.
//!
//! Invariants: records hold one of the actor's slots either way; what is given later never overtakes what went by the actor.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;

use super::{Announced, Job, LogFailure, LogThread, LogWriter, Order, Synced, WriteRecords, submit};
use crate::actors::mailbox::BoundedAddr;
use crate::storage::wal::record::LogRecords;
use crate::storage::wal::writer::Position;

/// Both ways to the log of a process.
pub struct LogWay {
    pub(super) actor: BoundedAddr<LogWriter>,
    pub(super) thread: Arc<LogThread>,
    pub(super) by_actor: Arc<AtomicUsize>,
}

/// A write that goes by the actor; it counts until the thread has it.
pub(super) struct ByActor(Arc<AtomicUsize>);

impl ByActor {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(count))
    }
}

impl Drop for ByActor {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl LogWay {
    /// The ways to `thread`, whose actor is `actor`.
    pub fn new(actor: BoundedAddr<LogWriter>, thread: Arc<LogThread>) -> Self {
        Self { actor, thread, by_actor: Arc::default() }
    }

    /// As [`write`](super::write) of records that are not durable.
    pub async fn write(&self, records: LogRecords, within: Duration) -> Result<Position, LogFailure> {
        let (done, written) = oneshot::channel();
        self.give(WriteRecords { records, synced: None, done, announced: None, by_actor: None }, within).await?;
        written.await.unwrap_or(Err(LogFailure::Lost))
    }

    /// As [`write_announced`](super::write_announced).
    pub async fn write_announced(
        &self,
        records: LogRecords,
        announced: Option<Announced>,
        within: Duration,
    ) -> Result<(Position, Synced), LogFailure> {
        let (done, written) = oneshot::channel();
        let (synced, sync) = oneshot::channel();
        self.give(WriteRecords { records, synced: Some(synced), done, announced, by_actor: None }, within).await?;
        let position = written.await.unwrap_or(Err(LogFailure::Lost))?;
        Ok((position, Synced(sync)))
    }

    async fn give(&self, write: WriteRecords, within: Duration) -> Result<(), LogFailure> {
        let is_free = self.by_actor.load(Ordering::Acquire) == 0;
        if let Some(lent) = is_free.then(|| self.actor.lend()).flatten() {
            let WriteRecords { records, synced, done, announced, .. } = write;
            self.thread.submit(Order::Write(Job { records, synced, done, announced, _slot: None, _lent: Some(lent) }));
            return Ok(());
        }
        let by_actor = Some(ByActor::new(&self.by_actor));
        submit(&self.actor, WriteRecords { by_actor, ..write }, within).await
    }
}
