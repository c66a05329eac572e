//! What the server does by the clock beside its actors: it drops what is older than the retention, shortens the log by
//! that, and says on `/-/ready` when a part has failed that it cannot do without.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::actors::kind::Kind;
use crate::actors::log_writer::{self, LOG_WRITER, LogHealth};
use crate::actors::pool::{ComputePool, Lane};
use crate::actors::registry::ActorTree;
use crate::actors::remote_write_manager::RemoteWriteDeps;
use crate::actors::storage_client::StorageClient;
use crate::actors::storage_shard::{Journal, STORAGE_SHARD};
use crate::cli::flags::AgentFlags;
use crate::http::state::{Readiness, Ready};
use crate::model::clock::Clock;
use crate::model::duration::PromDuration;
use crate::model::steady_clock::SteadyClock;
use crate::model::time::TimestampMs;
use crate::storage::chunk::written::ChunkPlace;
use crate::storage::chunk_snapshot;
use crate::storage::clock_file;
use crate::storage::head::Head;
use crate::storage::head::shard::ShardState;
use crate::storage::replay;

/// Longest time between two looks at what is too old.
const TRUNCATE_EVERY: Duration = Duration::from_secs(60);
/// How often the parts are looked at.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// How long planning a checkpoint may wait for the log writer.
const PLAN_WITHIN: Duration = Duration::from_secs(30);
/// How long making one may wait and take.
const CHECKPOINT_WITHIN: Duration = Duration::from_secs(3600);

/// How long writing down what is known of the clock may wait and take.
const CLOCK_WITHIN: Duration = Duration::from_secs(600);

/// How far back an agent compares samples with those that it has.
const AGENT_HEAD_MS: i64 = 3_600_000;

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

    /// The same, unless the clock is in doubt.
    fn settled_bound(&self, clock: &SteadyClock) -> Option<TimestampMs> {
        self.bound(clock.aging()).filter(|_| clock.is_settled())
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

/// Samples before this are not kept in an agent's log, by Prometheus's rule.
fn agent_bound(now_ms: i64, lowest_sent_ms: i64, agent: AgentFlags) -> i64 {
    let sent = lowest_sent_ms.saturating_sub(agent.min_time.as_ms_i64()).max(0);
    sent.max(now_ms.saturating_sub(agent.max_time.as_ms_i64()))
}

/// The parts that are looked after.
pub(super) struct Upkeep {
    pub(super) storage: StorageClient,
    pub(super) head: Arc<Head>,
    pub(super) log: Arc<OnceLock<Journal>>,
    pub(super) log_health: Option<Arc<LogHealth>>,
    pub(super) pool: Arc<ComputePool>,
    pub(super) tree: Arc<ActorTree>,
    pub(super) retention: Arc<Retention>,
    /// Time before which blocks hold what the log holds; changes when the head has become a block.
    pub(super) in_blocks: watch::Receiver<TimestampMs>,
    pub(super) steady: Arc<SteadyClock>,
    pub(super) readiness: Readiness,
    /// Who else reads the log, and up to which size it is kept for them.
    pub(super) remote: Arc<RemoteWriteDeps>,
    pub(super) hold_wal: u64,
    /// How the log is shortened where there are no blocks.
    pub(super) agent: Option<AgentFlags>,
}

impl Upkeep {
    /// Runs until it is dropped.
    pub(super) async fn run(self) {
        match self.agent {
            Some(agent) => tokio::join!(self.drop_sent(agent), self.watch(), self.note_clock()),
            None => tokio::join!(self.drop_old(), self.watch(), self.note_clock()),
        };
    }

    /// Writes down what is known of the clock, each minute.
    async fn note_clock(&self) {
        let mut has_failed = false;
        loop {
            let steady = Arc::clone(&self.steady);
            let log = Arc::clone(&self.log);
            let save = move |_: &_| {
                let Some(journal) = log.get() else { return Ok(()) };
                clock_file::save(&*journal.fs, &journal.data_dir, &steady.memory())
            };
            let saved = self.pool.run(Lane::Storage, Instant::now() + CLOCK_WITHIN, save).await;
            let error = match saved {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(error) => Some(error.to_string()),
            };
            if let Some(err) = error.as_ref().filter(|_| !has_failed) {
                tracing::warn!(component = "tsdb", err, "What is known of the clock cannot be written down");
            }
            has_failed = error.is_some();
            tokio::time::sleep(TRUNCATE_EVERY).await;
        }
    }

    /// What an agent does instead: what was sent some time ago is dropped, and what is too old in any case.
    async fn drop_sent(&self, agent: AgentFlags) {
        let every = agent.truncate_every.to_std();
        let look = every.min(TRUNCATE_EVERY);
        let mut shortened = self.steady.monotonic();
        loop {
            tokio::time::sleep(look).await;
            if !self.steady.is_settled() {
                continue;
            }
            let now = self.steady.aging().0;
            let bound = agent_bound(now, self.remote.lowest_sent_ms(), agent);
            // Samples of the last hour are still compared with those that come.
            self.storage.truncate(TimestampMs(bound.min(now - AGENT_HEAD_MS)));
            let monotonic = self.steady.monotonic();
            if every <= monotonic.saturating_sub(shortened) {
                shortened = monotonic;
                // One that is held is tried again at the next time.
                let _ = self.checkpoint(TimestampMs(bound)).await;
            }
        }
    }

    async fn drop_old(&self) {
        let now = self.steady.aging();
        let mut rule = CheckpointRule { bound: self.retention.bound(now).unwrap_or(now) };
        let mut in_blocks = self.in_blocks.clone();
        // A checkpoint that waits for destinations of remote write.
        let mut held: Option<TimestampMs> = None;
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.retention.slack()) => {}
                Ok(()) = in_blocks.changed() => {
                    let bound = *in_blocks.borrow_and_update();
                    held = self.checkpoint(bound.max(held.unwrap_or(bound))).await;
                    continue;
                }
            }
            if let Some(bound) = held {
                held = self.checkpoint(bound).await;
            }
            let Some(bound) = self.retention.settled_bound(&self.steady) else { continue };
            self.storage.truncate(bound);
            if rule.due(bound, self.retention.ms()) {
                held = self.checkpoint(bound.max(held.unwrap_or(bound))).await;
            }
        }
    }

    /// Replaces the oldest part of the log by what is still needed of it. What goes wrong is tried again another time.
    /// Returns the bound if destinations of remote write still need that part, and there is room for it.
    async fn checkpoint(&self, bound: TimestampMs) -> Option<TimestampMs> {
        let journal = self.log.get()?;
        if self.is_held() {
            return Some(bound);
        }
        let job = match log_writer::plan_checkpoint(&journal.writer, PLAN_WITHIN).await {
            Ok(Some(job)) => job,
            Ok(None) => return None,
            Err(error) => {
                tracing::error!(component = "tsdb", err = %error, "No checkpoint could be planned");
                return None;
            }
        };
        self.remote.pass_over(job.last_segment()).await;
        let (log, head) = (Arc::clone(&self.log), Arc::clone(&self.head));
        let make = move |_: &_| {
            let journal = log.get()?;
            // A shard that is being rebuilt reads the files that would go.
            let _files = journal.files.try_lock()?;
            let aliases = journal.aliases.lock().clone();
            let job = job.keeping_deletions(head.oldest_late());
            // Those that another program has left stand anywhere.
            let of_others = journal.late_chunk_file.lock().map(|_| ChunkPlace::default());
            let late_from = of_others.or_else(|| head.chunk_store().and_then(|store| store.late_from()));
            let is_used = |file: u64| head.uses_chunk_file(file);
            let (fs, data_dir) = (&journal.fs, &journal.data_dir);
            if let Err(error) = chunk_snapshot::prepare_truncation(fs, data_dir, bound, late_from, &is_used) {
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
        None
    }

    /// Whether the log is kept for destinations that have not been sent what the next checkpoint would stand for.
    fn is_held(&self) -> bool {
        let (Some(needed), Some(log)) = (self.remote.needs_segment(), self.remote.runtime().log.get()) else {
            return false;
        };
        if self.hold_wal == 0 || log.files.total_len().is_ok_and(|len| self.hold_wal < len) {
            return false;
        }
        let first = log.files.segments().ok().and_then(|files| files.first().map(|file| file.segment));
        let newest = log.written.borrow().segment;
        // As a checkpoint is planned.
        first.is_some_and(|first| needed <= first + newest.saturating_sub(first) * 2 / 3)
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
        let failed = self.tree.failed(&NEEDED).into_iter();
        let actors =
            failed.map(|row| format!("{} {} has failed: {}", row.kind, row.name, row.last_panic.unwrap_or_default()));
        let shards = self.head.shards().iter().filter_map(|shard| match shard.state() {
            ShardState::Failed { reason } => Some(format!("shard {} could not be restored: {reason}", shard.id().0)),
            ShardState::Ready | ShardState::Rebuilding { .. } => None,
        });
        let refusing = self.log_health.as_ref().and_then(|health| health.refusing());
        let disk =
            refusing.map(|reason| format!("samples are refused, as the disk does not take the write log: {reason}"));
        let reasons: Vec<String> = actors.chain(shards).chain(disk).collect();
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
    fn an_agent_keeps_what_was_not_sent_for_some_hours() {
        let hours = |hours: u64| PromDuration::from_secs(hours * 3600);
        let agent = AgentFlags { min_time: hours(1), max_time: hours(4), truncate_every: hours(2) };
        let bound = |sent: i64| agent_bound(36_000_000, sent, agent) / 3_600_000;
        // Nothing sent, something long ago, something lately.
        assert_eq!([bound(0), bound(5 * 3_600_000), bound(9 * 3_600_000)], [6, 6, 8]);
    }

    #[test]
    fn nothing_is_too_old_while_the_clock_is_in_doubt() {
        use crate::model::clock::{ManualClock, SharedClock};
        let manual = ManualClock::at(TimestampMs(1_800_000_000_000));
        let steady = SteadyClock::new(&(Arc::clone(&manual) as SharedClock));
        let retention = Retention::default();
        retention.set(PromDuration::from_secs(30));
        assert_eq!(retention.settled_bound(&steady), Some(TimestampMs(1_799_999_970_000)));
        manual.step_to(TimestampMs(1_900_000_000_000));
        assert_eq!(retention.settled_bound(&steady), None);
        manual.advance(Duration::from_secs(599));
        assert_eq!(retention.settled_bound(&steady), None);
        manual.step_to(TimestampMs(1_800_000_599_000));
        assert_eq!(retention.settled_bound(&steady), None);
        manual.advance(Duration::from_secs(600));
        assert_eq!(retention.settled_bound(&steady), Some(TimestampMs(1_800_001_169_000)));
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
