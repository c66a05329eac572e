//! One shard of the head. Owns the writing side of its partition; readers never come here. What scrapes append to known series
//! is done by their own threads where the partition is free (`storage_client::here`). Started by the root, one on
//! each storage thread. Bound: its slots, each a slice of at most 4,096 samples. Failure: the partition lives in `deps`
//! and is kept, unless the panic cut the application of a batch short; then it is rebuilt. Shutdown: `Drain` ends it
//! when what was sent before is done.

mod mending;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix::prelude::{Actor, ActorContext, AsyncContext, Handler, Message, ResponseActFuture, Supervised};
use actix::{ActorFutureExt, WrapFuture};
use futures::future::ready;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::actors::context::Context;
use crate::actors::control::{Control, Drain};
#[cfg(debug_assertions)]
use crate::actors::failpoint::{self, Point};
use crate::actors::kind::{Kind, Rank};
use crate::actors::log_writer::{self, Announced, Announcements, AtOnce, LogFailure, LogWay, LogWriter, Synced};
use crate::actors::mailbox::{Admitted, BoundedAddr};
use crate::actors::pool::{ComputePool, Lane};
use crate::actors::storage_shard::mending::Mending;
use crate::actors::supervision::SupervisedActor;
use crate::model::append::{AppendReport, SampleRejection, ShardId};
use crate::model::time::TimestampMs;
use crate::storage::fs::SharedFs;
use crate::storage::head::route::Slice;
use crate::storage::head::shard::{HeadCommit, Recovery, Shard, ShardState, Staged};
use crate::storage::head::{ChunkStep, Head, HeadError, Marked, MergedSegment, Reclaimed};
use crate::storage::replay::{self, Aliases};
use crate::storage::wal::record::LogRecords;

/// How long a commit may wait for a slot of the log writer.
pub(super) const LOG_WITHIN: Duration = Duration::from_secs(30);
/// How long a rebuild waits for commits that the log may still take.
const SETTLE_WITHIN: Duration = Duration::from_secs(60);
/// How long reading a partition back may wait and take.
const REBUILD_WITHIN: Duration = Duration::from_secs(600);
/// How often a shard looks whether its index wants merging and memory can be given back.
const UPKEEP_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked whether new series still come.
const SEAL_EVERY: Duration = Duration::from_secs(5);
/// A tail of fewer series is left as it is.
const SEALED_MIN: usize = 32;
/// How long a merge may wait and take; one that comes too late is planned again.
const MERGE_WITHIN: Duration = Duration::from_secs(60);
/// How often a shard that could not be restored tries again.
const RETRY_EVERY: Duration = Duration::from_secs(60);
/// Series with finished chunks for which writing them is worth a job at once.
const CHUNKS_MIN: usize = 16;
/// Looks of the upkeep after which fewer are written as well.
const CHUNK_LOOKS: u32 = 5;
/// How long writing chunks may wait and take; a job that comes too late is planned again.
const CHUNKS_WITHIN: Duration = Duration::from_secs(60);
/// How long no chunks are written after the disk has not taken some.
const CHUNKS_PAUSE: Duration = Duration::from_secs(10);
/// Series that are told in one step that their chunks were written: well under a millisecond.
const INSTALLED_MAX: usize = 256;
/// Series looked at in one step of a truncation: well under a millisecond.
const RECLAIM_SERIES_MAX: usize = 2_000;

/// The kind.
pub static STORAGE_SHARD: Kind = Kind { name: "storage_shard", rank: Rank::SHARD, slots: 256 };

/// What refused samples mean for the others of their batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusals {
    /// Nothing: the others are stored.
    Alone,
    /// Nothing is stored if a series was named by a reference that the head does not have.
    UnknownSeries,
    /// Nothing is stored, except where only room for series is missing.
    Whole,
}

impl Refusals {
    /// True if the batch, or its part, is not to be stored. Samples that only stand against others which wait are no reason,
    /// as in Prometheus.
    pub fn forbid(self, report: &AppendReport) -> bool {
        let unknown = |rejection: &SampleRejection| *rejection == SampleRejection::UnknownSeries;
        let no_room = |rejection: &SampleRejection| matches!(rejection, SampleRejection::SeriesLimit { .. });
        match self {
            Self::Alone => false,
            Self::UnknownSeries => report.rejected.iter().any(|(_, rejection)| unknown(rejection)),
            Self::Whole => report.reported().any(|(_, rejection)| !no_room(rejection)),
        }
    }
}

/// How a batch is stored.
#[derive(Debug)]
pub struct Terms {
    /// What refused samples mean for the others.
    pub refusals: Refusals,
    /// Given by those who wait until the batch is synced.
    pub durable: Option<Announced>,
}

/// What became of a batch.
#[derive(Debug)]
pub struct Stored {
    /// Sample by sample.
    pub report: AppendReport,
    /// The sync to come, if the batch is to be durable and there is a log.
    pub synced: Option<Synced>,
}

impl Stored {
    /// A batch that was not stored, for what `report` says.
    pub(super) fn nothing(report: AppendReport) -> Self {
        Self { report: AppendReport { appended: 0, ..report }, synced: None }
    }
}

/// Check, stage and apply one slice that is a commit of its own. The commit begins when the shard comes to it: readers
/// see nothing that is newer than an open commit, so one that waited for a shard would hide the samples of all others.
#[derive(Message)]
#[rtype(result = "Result<Stored, HeadError>")]
pub struct AppendSlice {
    /// Begins the commit.
    pub head: Arc<Head>,
    /// Time of the batch's first sample.
    pub first: Option<TimestampMs>,
    /// Its samples.
    pub slice: Slice,
    /// How it is stored.
    pub terms: Terms,
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

/// Another thread has panicked over the partition (see [`super::storage_client`]): the actor takes the panic for its own, so that
/// it is restarted, shown and counted like any other.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct PanickedElsewhere(pub(super) String);

/// Begin to drop what lies before the head's lower bound.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Truncate;

/// The log as shards know it.
pub struct Journal {
    /// Writes records.
    pub writer: BoundedAddr<LogWriter>,
    /// How those of commits come there.
    pub way: LogWay,
    /// Where a torn shard is read back from.
    pub fs: SharedFs,
    /// The data directory.
    pub data_dir: PathBuf,
    /// References whose records stand for other series' references; what a checkpoint has to keep.
    pub aliases: Mutex<Aliases>,
    /// The last of the files with head chunks of another program that hold samples which came out of order; they may go when
    /// blocks stand for those.
    pub late_chunk_file: Mutex<Option<u64>>,
    /// Held by whoever reads the log's files or removes some.
    pub files: Mutex<()>,
    /// Where durable writes are announced.
    pub announcements: Arc<Announcements>,
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
    /// Or looking at what is in its index.
    merging: bool,
    /// Looks of the upkeep since chunks were written last.
    chunk_looks: u32,
    /// Until when none are written, and whether that was told.
    chunk_pause: Option<Instant>,
    /// When the last try began to restore a shard that had failed.
    retried_at: Option<Instant>,
    /// Series of the tail when it was last looked at.
    tail_len: usize,
    mending: Mending,
}

impl StorageShard {
    /// A shard over the partition in `deps`.
    pub fn new(deps: Arc<ShardDeps>) -> Self {
        Self {
            deps,
            merging: false,
            chunk_looks: 0,
            chunk_pause: None,
            retried_at: None,
            tail_len: 0,
            mending: Mending::default(),
        }
    }

    /// What kept the log from being read back may be over.
    fn retry(&mut self, ctx: &mut Context<Self>) {
        let now = Instant::now();
        if self.deps.log.get().is_none() || self.retried_at.is_some_and(|at| now < at + RETRY_EVERY) {
            return;
        }
        self.retried_at = Some(now);
        self.deps.shard.begin_rebuild("it is tried again after a failure");
        ctx.rebuild(rebuild(Arc::clone(&self.deps)).into_actor(self));
    }

    /// Has selections find the newest series in the index instead of looking at each, once no more of them come.
    fn seal_quiet_tail(&mut self, _: &mut Context<Self>) {
        let before = std::mem::replace(&mut self.tail_len, self.deps.shard.tail_len());
        if SEALED_MIN <= before && before == self.tail_len && self.deps.shard.state() == ShardState::Ready {
            self.deps.shard.seal_tail();
        }
    }

    fn upkeep(&mut self, ctx: &mut Context<Self>) {
        if matches!(self.deps.shard.state(), ShardState::Failed { .. }) {
            return self.retry(ctx);
        }
        let shard = &self.deps.shard;
        assert!(!shard.is_torn(), "a panic of another thread has cut a commit short");
        shard.tidy();
        if shard.reclaim(RECLAIM_SERIES_MAX) == Reclaimed::More {
            ctx.run_later(Duration::from_millis(1), Self::upkeep);
        }
        self.chunk_looks = self.chunk_looks.saturating_add(1);
        let enough = if CHUNK_LOOKS <= self.chunk_looks { 0 } else { CHUNKS_MIN };
        if self.deps.shard.has_chunks_to_write(enough) {
            self.write_chunks(ctx);
        }
        self.mark_late(ctx);
        self.mend_chunks(ctx);
        if self.merging {
            return;
        }
        let shard = &self.deps.shard;
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
        } else if shard.state() == ShardState::Ready
            && let Some(job) = shard.look_job()
        {
            self.merging = true;
            let looked = self.deps.pool.run(Lane::Storage, Instant::now() + MERGE_WITHIN, move |_| job.run());
            // One that was refused or panicked is planned again as well.
            ctx.spawn(looked.into_actor(self).map(|_, actor, _| actor.merging = false));
        }
    }

    /// Lets series give finished chunks back that were written, and has the next ones written.
    fn write_chunks(&mut self, ctx: &mut Context<Self>) {
        if self.deps.shard.install_chunks(INSTALLED_MAX) {
            ctx.run_later(Duration::from_millis(1), Self::write_chunks);
            return;
        }
        self.mark_late(ctx);
        if self.chunk_pause.is_some_and(|until| Instant::now() < until) {
            return;
        }
        match self.deps.shard.chunk_job() {
            ChunkStep::Done => self.chunk_looks = 0,
            ChunkStep::More => drop(ctx.run_later(Duration::from_millis(1), Self::write_chunks)),
            ChunkStep::Job(job) => {
                let written = self.deps.pool.run(Lane::Storage, Instant::now() + CHUNKS_WITHIN, move |_| job.run());
                ctx.spawn(written.into_actor(self).map(|written, actor, ctx| {
                    match written {
                        Ok(Ok(count)) => {
                            if actor.chunk_pause.take().is_some() {
                                tracing::info!(component = "tsdb", "Head chunks are written again");
                            }
                            if 0 < count {
                                return actor.write_chunks(ctx);
                            }
                        }
                        Ok(Err(error)) => {
                            if actor.chunk_pause.is_none() {
                                tracing::error!(component = "tsdb", err = %error,
                                    "Head chunks cannot be written and stay in memory; this is tried again");
                            }
                            actor.chunk_pause = Some(Instant::now() + CHUNKS_PAUSE);
                        }
                        // A job that was refused is planned again by the next upkeep.
                        Err(_) => {}
                    }
                    while actor.deps.shard.install_chunks(INSTALLED_MAX) {}
                }));
            }
        }
    }

    /// Has the log say of series that all their late samples stand in files. The write goes to the system's memory alone, and where
    /// somebody else is at the log it is left for the next look.
    fn mark_late(&mut self, ctx: &mut Context<Self>) {
        let Some(journal) = self.deps.log.get() else { return };
        let write = |late| match journal.way.write_here(LogRecords { wal: Vec::new(), late }) {
            AtOnce::NotNow(_) => Marked::NotNow,
            // Without its marker a series is as it was.
            AtOnce::Done(_) => Marked::Done,
        };
        if self.deps.shard.mark_late(INSTALLED_MAX, write) {
            ctx.run_later(Duration::from_millis(1), Self::mark_late);
        }
    }

    /// Applies what the log has.
    fn apply(&self, staged: Staged, _ctx: &Context<Self>) -> Result<AppendReport, HeadError> {
        #[cfg(debug_assertions)]
        may_panic_in_apply(&self.deps.shard, _ctx.entry().name(), &staged);
        let applied = self.deps.shard.apply(staged);
        #[cfg(debug_assertions)]
        failpoint::hit(STORAGE_SHARD.name, _ctx.entry().name(), Point::Step("after-apply"));
        applied
    }

    fn install(&mut self, merged: MergedSegment, ctx: &mut Context<Self>) {
        self.deps.shard.install(merged);
        self.upkeep(ctx);
    }
}

impl Actor for StorageShard {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // A panic may have kept commits that the log has from being applied.
        self.deps.shard.tidy();
        ctx.run_interval(UPKEEP_EVERY, Self::upkeep);
        ctx.run_interval(SEAL_EVERY, Self::seal_quiet_tail);
    }
}

impl Supervised for StorageShard {
    fn restarting(&mut self, ctx: &mut Context<Self>) {
        self.merging = false;
        self.mending = Mending::default();
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

/// The failpoints before and within the application of a slice.
#[cfg(debug_assertions)]
pub(super) fn may_panic_in_apply(shard: &Shard, name: &str, staged: &Staged) {
    failpoint::hit(STORAGE_SHARD.name, name, Point::Step("before-apply"));
    if !staged.samples().is_empty() && failpoint::take(STORAGE_SHARD.name, name, Point::Step("in-apply")) {
        shard.tear_next();
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
    // What was staged before the panic and is on its way to the log has to be behind us: it is read back as well.
    let deadline = Instant::now() + SETTLE_WITHIN;
    while 0 < deps.shard.unlogged() {
        if deadline <= Instant::now() {
            return failed("the log does not answer".to_owned());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let until = match log_writer::write(&journal.writer, LogRecords::default(), false, LOG_WITHIN).await {
        Ok(position) => position,
        Err(error) => return failed(error.to_string()),
    };
    let read_deps = Arc::clone(&deps);
    let read = move |_: &_| {
        let journal = read_deps.log.get().ok_or_else(|| "there is no log".to_owned())?;
        let _files = journal.files.lock();
        let read = replay::rebuild_shard(&journal.fs, &journal.data_dir, &read_deps.head, id, until);
        read.map_err(|error| error.to_string())
    };
    match deps.pool.run(Lane::Storage, Instant::now() + REBUILD_WITHIN, read).await {
        Ok(Ok(stats)) => {
            journal.aliases.lock().extend(stats.aliases);
            tracing::warn!(component = "tsdb", shard = id.0, "A shard was rebuilt from the log");
        }
        Ok(Err(error)) => failed(error),
        Err(error) => failed(error.to_string()),
    }
}

/// Has the records of a staged slice written; the slice counts as logged then.
async fn log(
    deps: &ShardDeps,
    journal: &Journal,
    mut staged: Staged,
    durable: Option<Announced>,
) -> Result<(Staged, Option<Synced>), HeadError> {
    let synced = write_records(journal, LogRecords::of_staged(&[&staged]), durable).await;
    let synced = synced.map_err(|error| not_logged(deps.shard.id(), error))?;
    staged.set_logged();
    Ok((staged, synced))
}

/// Has records written. Of a durable batch without records the sync is waited for as well: it repeats samples that were
/// stored before, and may not be synced yet.
pub(super) async fn write_records(
    journal: &Journal,
    records: LogRecords,
    durable: Option<Announced>,
) -> Result<Option<Synced>, LogFailure> {
    if durable.is_some() {
        let (_, synced) = journal.way.write_announced(records, durable, LOG_WITHIN).await?;
        return Ok(Some(synced));
    }
    if !records.is_empty() {
        journal.way.write(records, LOG_WITHIN).await?;
    }
    Ok(None)
}

/// What a shard says when the log did not take a commit.
pub(super) fn not_logged(shard: ShardId, reason: impl std::fmt::Display) -> HeadError {
    HeadError::ShardUnavailable { shard: shard.0, reason: reason.to_string() }
}

impl Handler<Admitted<AppendSlice>> for StorageShard {
    type Result = ResponseActFuture<Self, Result<Stored, HeadError>>;

    fn handle(&mut self, append: Admitted<AppendSlice>, _: &mut Context<Self>) -> Self::Result {
        let (append, slot) = append.into_parts();
        let commit = append.head.begin(append.first);
        let staged = self.deps.shard.stage(&commit, append.slice);
        // The commit has no other part: once this one is applied it is complete.
        drop(commit);
        let staged = match staged {
            Ok(staged) if append.terms.refusals.forbid(staged.report()) => {
                return Box::pin(ready(Ok(Stored::nothing(staged.report().clone()))).into_actor(self));
            }
            Ok(staged) => staged,
            Err(error) => return Box::pin(ready(Err(error)).into_actor(self)),
        };
        let durable = append.terms.durable;
        if self.deps.log.get().is_none() {
            let applied = ready(()).into_actor(self).map(move |(), actor, ctx: &mut Context<Self>| {
                let applied = actor.apply(staged, ctx);
                drop(slot);
                applied.map(|report| Stored { report, synced: None })
            });
            return Box::pin(applied);
        }
        let (tell, told) = oneshot::channel();
        let (applied, settled) = oneshot::channel::<()>();
        let deps = Arc::clone(&self.deps);
        // A task of its own: a panic of the actor must not take the answer away, as what the log has is to be applied.
        actix::spawn(async move {
            let Some(journal) = deps.log.get() else { return };
            let logged = log(&deps, journal, staged, durable).await;
            // If the actor does not wait any more, the slice is dropped here.
            drop(tell.send(logged));
            let _ = settled.await;
            deps.shard.tidy();
            drop(slot);
        });
        Box::pin(told.into_actor(self).map(move |told, actor, ctx: &mut Context<Self>| {
            let lost = Err(not_logged(actor.deps.shard.id(), "the log was not asked"));
            let outcome = told.unwrap_or(lost).and_then(|(staged, synced)| {
                let report = actor.apply(staged, ctx)?;
                Ok(Stored { report, synced })
            });
            drop(applied);
            outcome
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

    fn handle(&mut self, apply: Admitted<ApplyStaged>, ctx: &mut Context<Self>) -> Self::Result {
        let (apply, _slot) = apply.into_parts();
        self.apply(apply.0, ctx)
    }
}

impl Handler<Admitted<PanickedElsewhere>> for StorageShard {
    type Result = ();

    fn handle(&mut self, panicked: Admitted<PanickedElsewhere>, _: &mut Context<Self>) {
        panic!("the thread that appended panicked: {}", panicked.0);
    }
}

impl Handler<Admitted<Truncate>> for StorageShard {
    type Result = ();

    fn handle(&mut self, _: Admitted<Truncate>, ctx: &mut Context<Self>) {
        self.deps.shard.truncate();
        self.upkeep(ctx);
    }
}
