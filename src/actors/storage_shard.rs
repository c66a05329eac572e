//! One shard of the head. Owns the writing side of its partition; readers never come here. Started by the root, one on
//! each storage thread. Bound: its slots, each a slice of at most 4,096 samples. Failure: the partition lives in `deps`
//! and is kept, unless the panic cut the application of a batch short; then it is rebuilt. Shutdown: `Drain` ends it
//! when what was sent before is done.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::{Actor, ActorContext, AsyncContext, Handler, Message, Supervised};
use actix::{ActorFutureExt, WrapFuture};
use tokio::time::Instant;

use crate::actors::context::Context;
use crate::actors::control::{Control, Drain};
use crate::actors::kind::{Kind, Rank};
use crate::actors::mailbox::Admitted;
use crate::actors::pool::{ComputePool, Lane};
use crate::actors::supervision::SupervisedActor;
use crate::model::append::AppendReport;
use crate::model::time::TimestampMs;
use crate::storage::head::route::Slice;
use crate::storage::head::shard::{HeadCommit, Recovery, Shard, ShardState, Staged};
use crate::storage::head::{Head, HeadError, MergedSegment, Reclaimed};

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

/// What a shard is given.
pub struct ShardDeps {
    /// The partition and what readers load.
    pub shard: Arc<Shard>,
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
    fn restarting(&mut self, _: &mut Context<Self>) {
        self.merging = false;
        let shard = &self.deps.shard;
        if shard.recover() == Recovery::MustRebuild {
            // The head is in memory alone: what the torn partition held is lost, and readers must not see a part of it.
            shard.begin_rebuild("a panic cut a commit short");
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

impl Handler<Admitted<AppendSlice>> for StorageShard {
    type Result = Result<AppendReport, HeadError>;

    fn handle(&mut self, append: Admitted<AppendSlice>, _: &mut Context<Self>) -> Self::Result {
        let (append, _slot) = append.into_parts();
        let commit = append.head.begin(append.first);
        let staged = self.deps.shard.stage(&commit, append.slice)?;
        // The commit has no other part: once this one is applied it is complete.
        drop(commit);
        self.deps.shard.apply(staged)
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
