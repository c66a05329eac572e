//! What the server does by the clock beside its actors: it drops what is older than the retention, shortens the log by
//! that, and says on `/-/ready` when a part has failed that it cannot do without.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::actors::kind::Kind;
use crate::actors::log_writer::{self, LOG_WRITER};
use crate::actors::pool::{ComputePool, Lane};
use crate::actors::registry::{ActorState, ActorTree};
use crate::actors::storage_client::StorageClient;
use crate::actors::storage_shard::{Journal, STORAGE_SHARD};
use crate::http::state::{Readiness, Ready};
use crate::model::clock::SharedClock;
use crate::model::duration::PromDuration;
use crate::model::time::TimestampMs;
use crate::storage::chunk_snapshot;
use crate::storage::head::Head;
use crate::storage::head::shard::ShardState;
use crate::storage::replay;

/// Longest time between two looks at what is too old.
const TRUNCATE_EVERY: Duration = Duration::from_secs(60);
/// How often the parts are looked at.
const WATCH_EVERY: Duration = Duration::from_millis(500);
/// How long planning a checkpoint may wait for the log writer.
const PLAN_WITHIN: Duration = Duration::from_secs(30);
/// How long making one may wait and take.
const CHECKPOINT_WITHIN: Duration = Duration::from_secs(3600);

/// Without these there is no storage.
const NEEDED: [&Kind; 2] = [&STORAGE_SHARD, &LOG_WRITER];

/// How long data is kept; a configuration may change it.
#[derive(Debug, Default)]
pub(super) struct Retention(AtomicU64);

impl Retention {
    /// Zero keeps everything.
    pub(super) fn set(&self, time: PromDuration) {
        self.0.store(time.as_ms(), Ordering::Relaxed);
    }

    fn ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Samples before this are too old.
    pub(super) fn bound(&self, now: TimestampMs) -> Option<TimestampMs> {
        let ms = i64::try_from(self.ms()).unwrap_or(i64::MAX);
        (0 < ms).then(|| TimestampMs(now.0.saturating_sub(ms)))
    }

    /// A tenth of the retention: how much more than that may be there. A minute at most, a second at least.
    fn slack(&self) -> Duration {
        match Duration::from_millis(self.ms() / 10) {
            Duration::ZERO => TRUNCATE_EVERY,
            tenth => tenth.clamp(Duration::from_secs(1), TRUNCATE_EVERY),
        }
    }
}

/// Decides when the log is worth shortening: once a tenth of what it holds has become too old, as making a checkpoint reads
/// and writes most of it.
struct CheckpointRule {
    bound: TimestampMs,
}

impl CheckpointRule {
    fn due(&mut self, bound: TimestampMs, retention_ms: u64) -> bool {
        let moved = u64::try_from(bound.0.saturating_sub(self.bound.0)).unwrap_or(0);
        let due = retention_ms / 10 <= moved;
        if due || bound < self.bound {
            self.bound = bound;
        }
        due
    }
}

/// The parts that are looked after.
pub(super) struct Upkeep {
    pub(super) storage: StorageClient,
    pub(super) head: Arc<Head>,
    pub(super) log: Arc<OnceLock<Journal>>,
    pub(super) pool: Arc<ComputePool>,
    pub(super) tree: Arc<ActorTree>,
    pub(super) retention: Arc<Retention>,
    /// Time before which blocks hold what the log holds; changes when the head has become a block.
    pub(super) in_blocks: watch::Receiver<TimestampMs>,
    pub(super) clock: SharedClock,
    pub(super) readiness: Readiness,
}

impl Upkeep {
    /// Runs until it is dropped.
    pub(super) async fn run(self) {
        tokio::join!(self.drop_old(), self.watch());
    }

    async fn drop_old(&self) {
        let now = self.clock.now();
        let mut rule = CheckpointRule { bound: self.retention.bound(now).unwrap_or(now) };
        let mut in_blocks = self.in_blocks.clone();
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.retention.slack()) => {}
                Ok(()) = in_blocks.changed() => {
                    let bound = *in_blocks.borrow_and_update();
                    self.checkpoint(bound).await;
                    continue;
                }
            }
            let Some(bound) = self.retention.bound(self.clock.now()) else { continue };
            self.storage.truncate(bound);
            if rule.due(bound, self.retention.ms()) {
                self.checkpoint(bound).await;
            }
        }
    }

    /// Replaces the oldest part of the log by what is still needed of it. What goes wrong is tried again another time.
    async fn checkpoint(&self, bound: TimestampMs) {
        let Some(journal) = self.log.get() else { return };
        let job = match log_writer::plan_checkpoint(&journal.writer, PLAN_WITHIN).await {
            Ok(Some(job)) => job,
            Ok(None) => return,
            Err(error) => return tracing::error!(component = "tsdb", err = %error, "No checkpoint could be planned"),
        };
        let (log, head) = (Arc::clone(&self.log), Arc::clone(&self.head));
        let make = move |_: &_| {
            let journal = log.get()?;
            // A shard that is being rebuilt reads the files that would go.
            let _files = journal.files.try_lock()?;
            let aliases = journal.aliases.lock().clone();
            if let Err(error) = chunk_snapshot::prepare_truncation(&journal.fs, &journal.data_dir, bound) {
                return Some(Err(error));
            }
            Some(job.run(bound, &mut replay::keeper(&head, &aliases)))
        };
        match self.pool.run(Lane::Storage, Instant::now() + CHECKPOINT_WITHIN, make).await {
            Ok(Some(Ok(stats))) => tracing::info!(component = "tsdb", ?stats, "WAL checkpoint complete"),
            Ok(Some(Err(error))) => tracing::error!(component = "tsdb", err = %error, "WAL checkpoint failed"),
            Ok(None) => {}
            Err(error) => tracing::error!(component = "tsdb", err = %error, "WAL checkpoint failed"),
        }
    }

    async fn watch(&self) {
        let mut reported = None;
        loop {
            let reason = self.impairment();
            if reason != reported {
                match &reason {
                    Some(reason) => tracing::error!(component = "main", reason, "The server is not ready any more"),
                    None => tracing::info!(component = "main", "The server is ready again"),
                }
                self.readiness.set(reason.clone().map_or(Ready::Yes, Ready::Impaired));
                reported = reason;
            }
            tokio::time::sleep(WATCH_EVERY).await;
        }
    }

    /// What has failed that the server cannot do without.
    fn impairment(&self) -> Option<String> {
        let rows = self.tree.rows().into_iter();
        let failed =
            rows.filter(|row| row.state == ActorState::Failed && NEEDED.iter().any(|kind| kind.name == row.kind));
        let actors =
            failed.map(|row| format!("{} {} has failed: {}", row.kind, row.name, row.last_panic.unwrap_or_default()));
        let shards = self.head.shards().iter().filter_map(|shard| match shard.state() {
            ShardState::Failed { reason } => Some(format!("shard {} could not be restored: {reason}", shard.id().0)),
            ShardState::Ready | ShardState::Rebuilding { .. } => None,
        });
        let reasons: Vec<String> = actors.chain(shards).collect();
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retention_decides_what_is_too_old_and_how_often_to_look() {
        let retention = Retention::default();
        assert_eq!((retention.bound(TimestampMs(5)), retention.slack()), (None, TRUNCATE_EVERY));
        retention.set(PromDuration::from_secs(30));
        assert_eq!(retention.bound(TimestampMs(31_000)), Some(TimestampMs(1000)));
        assert_eq!(retention.slack(), Duration::from_secs(3));
        retention.set(PromDuration::from_secs(5));
        assert_eq!(retention.slack(), Duration::from_secs(1));
        retention.set(PromDuration::from_secs(86_400));
        assert_eq!(retention.slack(), TRUNCATE_EVERY);
    }

    #[test]
    fn the_log_is_shortened_by_tenths_of_the_retention() {
        let mut rule = CheckpointRule { bound: TimestampMs(1000) };
        let mut due = |at| rule.due(TimestampMs(at), 5000);
        assert_eq!([1400, 1500, 1900, 2000, 2400].map(&mut due), [false, true, false, true, false]);
        // A clock that was set back, or a longer retention: counted from there.
        assert_eq!([100, 500, 600].map(&mut due), [false, false, true]);
    }
}
