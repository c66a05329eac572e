//! One shard of the head. Owns the writing side of its partition; readers never come here. Started by the root, one on
//! each storage thread. Bound: its slots, each a slice of at most 4,096 samples. Failure: the partition lives in `deps`
//! and is kept, unless the panic cut the application of a batch short; then it is rebuilt. Shutdown: `Drain` ends it
//! when what was sent before is done.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix::prelude::{Actor, ActorContext, AsyncContext, Handler, Message, ResponseActFuture, Supervised};
use actix::{ActorFutureExt, WrapFuture};
use futures::future::FutureExt;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::actors::context::Context;
use crate::actors::control::{Control, Drain};
use crate::actors::kind::{Kind, Rank};
use crate::actors::log_writer::{LogWriter, WriteRecords};
use crate::actors::mailbox::{Admitted, BoundedAddr};
use crate::actors::pool::{ComputePool, Lane};
use crate::actors::supervision::SupervisedActor;
use crate::model::append::AppendReport;
use crate::model::time::TimestampMs;
use crate::storage::fs::SharedFs;
use crate::storage::head::route::Slice;
use crate::storage::head::shard::{HeadCommit, Recovery, Shard, ShardState, Staged};
use crate::storage::head::{Head, HeadError, MergedSegment, Reclaimed};
use crate::storage::replay::{self, Aliases};
use crate::storage::wal::record::encode_staged;

/// How long the log may take for one commit.
pub(super) const LOG_WITHIN: Duration = Duration::from_secs(30);
/// How long reading a partition back may wait and take.
const REBUILD_WITHIN: Duration = Duration::from_secs(600);
/// How often a shard looks whether its index wants merging and memory can be given back.
const UPKEEP_EVERY: Duration = Duration::from_millis(500);
/// How long a merge may wait and take; one that comes too late is planned again.
const MERGE_WITHIN: Duration = Duration::from_secs(60);
/// Series looked at in one step of a truncation: well under a millisecond.
const RECLAIM_SERIES_MAX: usize = 2_000;

/// The kind.
pub static STORAGE_SHARD: Kind = Kind { name: "storage_shard", rank: Rank::SHARD, slots: 256 };

/// Check, stage and apply one slice that is a commit of its own. The commit begins when the shard comes to it: readers
/// see nothing that is newer than an open commit, so one that waited for a shard would hide the samples of all others.
#[derive(Message)]
#[rtype(result = "Result<AppendReport, HeadError>")]
pub struct AppendSlice {
    /// Begins the commit.
    pub head: Arc<Head>,
    /// Time of the batch's first sample.
    pub first: Option<TimestampMs>,
    /// Its samples.
    pub slice: Slice,
}

/// Check and stage one slice of a commit that spans several. Nothing is visible until [`ApplyStaged`].
#[derive(Message)]
#[rtype(result = "Result<Staged, HeadError>")]
pub struct StageSlice {
    /// The commit that the slice belongs to.
    pub commit: HeadCommit,
    /// Its samples.
    pub slice: Slice,
}

/// Apply what was staged; it cannot fail on input.
#[derive(Message)]
#[rtype(result = "Result<AppendReport, HeadError>")]
pub struct ApplyStaged(
    /// What the shard's own [`StageSlice`] answered.
    pub Staged,
);

/// Begin to drop what lies before the head's lower bound.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Truncate;

/// The log as shards know it.
pub struct Journal {
    /// Writes records.
    pub writer: BoundedAddr<LogWriter>,
    /// Where a torn shard is read back from.
    pub fs: SharedFs,
    /// The data directory.
    pub data_dir: PathBuf,
    /// References whose records stand for other series' references; what a checkpoint has to keep.
    pub aliases: Mutex<Aliases>,
}

/// What a shard is given.
pub struct ShardDeps {
    /// The head that the shard is a part of.
    pub head: Arc<Head>,
    /// The partition and what readers load.
    pub shard: Arc<Shard>,
    /// Where records go before they are applied; empty for a head in memory alone, and until storage has opened.
    pub log: Arc<OnceLock<Journal>>,
    /// Where index segments are merged.
    pub pool: Arc<ComputePool>,
}

/// The actor.
pub struct StorageShard {
    deps: Arc<ShardDeps>,
    merging: bool,
}

impl StorageShard {
    /// A shard over the partition in `deps`.
    pub fn new(deps: Arc<ShardDeps>) -> Self {
        Self { deps, merging: false }
    }

    fn upkeep(&mut self, ctx: &mut Context<Self>) {
        let shard = &self.deps.shard;
        shard.tidy();
        if shard.reclaim(RECLAIM_SERIES_MAX) == Reclaimed::More {
            ctx.run_later(Duration::from_millis(1), Self::upkeep);
        }
        if self.merging {
            return;
        }
        if let Some(job) = shard.merge_job() {
            self.merging = true;
            let merged = self.deps.pool.run(Lane::Storage, Instant::now() + MERGE_WITHIN, move |_| job.run());
            ctx.spawn(merged.into_actor(self).map(|merged, actor, ctx| {
                actor.merging = false;
                // A merge that was refused or panicked is planned again by the next upkeep.
                if let Ok(merged) = merged {
                    actor.install(merged, ctx);
                }
            }));
        }
    }

    fn install(&mut self, merged: MergedSegment, ctx: &mut Context<Self>) {
        self.deps.shard.install(merged);
        self.upkeep(ctx);
    }
}

impl Actor for StorageShard {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(UPKEEP_EVERY, Self::upkeep);
    }
}

impl Supervised for StorageShard {
    fn restarting(&mut self, ctx: &mut Context<Self>) {
        self.merging = false;
        let shard = &self.deps.shard;
        if shard.recover() != Recovery::MustRebuild {
            return;
        }
        // Readers must not see a part of a commit: until the partition is whole again they are turned away.
        shard.begin_rebuild("a panic cut a commit short");
        if self.deps.log.get().is_some() {
            ctx.rebuild(rebuild(Arc::clone(&self.deps)).into_actor(self));
        } else {
            // The head is in memory alone: what the torn partition held is lost.
            shard.set_state(ShardState::Ready);
            tracing::error!(component = "tsdb", shard = shard.id().0, "a shard lost its samples to a panic");
        }
    }
}

impl SupervisedActor for StorageShard {
    const KIND: &'static Kind = &STORAGE_SHARD;
}

impl Handler<Control<Drain>> for StorageShard {
    type Result = ();

    fn handle(&mut self, _: Control<Drain>, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}

/// Reads the partition back from the log, on the compute pool, while other shards go on.
async fn rebuild(deps: Arc<ShardDeps>) {
    let id = deps.shard.id();
    let failed = |reason: String| {
        tracing::error!(component = "tsdb", shard = id.0, err = reason, "A shard could not be rebuilt");
        deps.shard.set_state(ShardState::Failed { reason });
    };
    let Some(journal) = deps.log.get() else { return failed("there is no log".to_owned()) };
    let ask = WriteRecords { records: Vec::new(), durable: false };
    let until = match journal.writer.ask(ask, Instant::now() + LOG_WITHIN).await {
        Ok(Ok(position)) => position,
        Ok(Err(error)) => return failed(error.to_string()),
        Err(error) => return failed(error.to_string()),
    };
    let (head, fs, dir) = (Arc::clone(&deps.head), Arc::clone(&journal.fs), journal.data_dir.clone());
    let read = move |_: &_| replay::rebuild_shard(&fs, &dir, &head, id, until);
    match deps.pool.run(Lane::Storage, Instant::now() + REBUILD_WITHIN, read).await {
        Ok(Ok(stats)) => {
            journal.aliases.lock().extend(stats.aliases);
            tracing::warn!(component = "tsdb", shard = id.0, "A shard was rebuilt from the log");
        }
        Ok(Err(error)) => failed(error.to_string()),
        Err(error) => failed(error.to_string()),
    }
}

/// What a shard says when the log did not take a commit.
fn not_logged(shard: &Shard, reason: impl std::fmt::Display) -> HeadError {
    HeadError::ShardUnavailable { shard: shard.id().0, reason: reason.to_string() }
}

impl Handler<Admitted<AppendSlice>> for StorageShard {
    type Result = ResponseActFuture<Self, Result<AppendReport, HeadError>>;

    fn handle(&mut self, append: Admitted<AppendSlice>, _: &mut Context<Self>) -> Self::Result {
        let (append, slot) = append.into_parts();
        let commit = append.head.begin(append.first);
        let staged = self.deps.shard.stage(&commit, append.slice);
        // The commit has no other part: once this one is applied it is complete.
        drop(commit);
        let deps = Arc::clone(&self.deps);
        let logged = async move {
            let staged = staged?;
            let Some(journal) = deps.log.get() else { return Ok(staged) };
            let records = encode_staged(&[&staged]);
            if records.is_empty() {
                return Ok(staged);
            }
            let write = WriteRecords { records, durable: false };
            match journal.writer.ask(write, Instant::now() + LOG_WITHIN).await {
                Ok(Ok(_)) => Ok(staged),
                Ok(Err(error)) => Err(not_logged(&deps.shard, error)),
                Err(error) => Err(not_logged(&deps.shard, error)),
            }
        };
        Box::pin(logged.boxed_local().into_actor(self).map(move |logged, actor, _| {
            let applied = logged.and_then(|staged| actor.deps.shard.apply(staged));
            drop(slot);
            applied
        }))
    }
}

impl Handler<Admitted<StageSlice>> for StorageShard {
    type Result = Result<Staged, HeadError>;

    fn handle(&mut self, stage: Admitted<StageSlice>, _: &mut Context<Self>) -> Self::Result {
        let (stage, _slot) = stage.into_parts();
        self.deps.shard.stage(&stage.commit, stage.slice)
    }
}

impl Handler<Admitted<ApplyStaged>> for StorageShard {
    type Result = Result<AppendReport, HeadError>;

    fn handle(&mut self, apply: Admitted<ApplyStaged>, _: &mut Context<Self>) -> Self::Result {
        let (apply, _slot) = apply.into_parts();
        self.deps.shard.apply(apply.0)
    }
}

impl Handler<Admitted<Truncate>> for StorageShard {
    type Result = ();

    fn handle(&mut self, _: Admitted<Truncate>, ctx: &mut Context<Self>) {
        self.deps.shard.truncate();
        self.upkeep(ctx);
    }
}
