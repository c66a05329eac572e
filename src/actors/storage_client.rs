//! How the rest of the process appends: one batch, one commit number, whatever number of shards it touches.
//!
//! A batch of one slice is one message to one shard: the usual scrape. Any other is staged on all its shards first, and
//! applied only when none of them refused, so that readers see all of it or nothing.

mod here;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, timeout};

use crate::actors::log_writer::{self, LogFailure};
use crate::actors::mailbox::{BoundedAddr, Lent, Reserved, SendError};
use crate::actors::opening::{Admission, Opening, OpeningFull};
use crate::actors::storage_shard::{
    AppendSlice, ApplyStaged, Journal, LOG_WITHIN, Refusals, StageSlice, StorageShard, Stored, Terms, Truncate,
    not_logged, write_records,
};
use crate::model::append::{AppendBatch, AppendReport, ShardId};
use crate::model::read::Queryable;
use crate::model::time::TimestampMs;
use crate::remote::send::metrics::Intake;
use crate::storage::block::catalog::Catalog;
use crate::storage::block::view::StoreQueryable;
use crate::storage::chunk::written::ChunkPlace;
use crate::storage::head::exemplars::ExemplarStats;
use crate::storage::head::shard::Staged;
use crate::storage::head::stats::HeadStats;
use crate::storage::head::{Head, HeadError};
use crate::storage::late_floor;
use crate::storage::wal::record::LogRecords;
use crate::storage::wbl;
use here::Logging;

/// How long the second half of a commit may take. Nothing is refused for it: by then the samples have been promised.
const APPLY_WITHIN: Duration = Duration::from_secs(60);

/// Why a batch was not stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendFailure {
    /// Nothing was stored.
    #[error("{0}")]
    Refused(ShardFailure),
    /// The batch may have been stored, whole or in part.
    #[error("{0}; the samples may have been stored")]
    Unsure(ShardFailure),
}

impl AppendFailure {
    /// Whether the batch can be sent again without being stored twice.
    pub fn nothing_was_done(&self) -> bool {
        matches!(self, Self::Refused(_))
    }
}

/// What a shard did instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShardFailure {
    /// Its queue was full, or it did not answer.
    #[error("shard {shard}: {error}")]
    Send {
        /// Which shard.
        shard: u16,
        /// What happened.
        #[source]
        error: SendError,
    },
    /// The thread that applied the commit has ended.
    #[error("the thread has ended")]
    Lost,
    /// It cannot take samples now.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// The log did not take the records.
    #[error(transparent)]
    Log(#[from] LogFailure),
    /// The commit is still under way.
    #[error("the commit takes too long")]
    Late,
    /// Storage is not open yet, and too much waits for it.
    #[error(transparent)]
    Opening(#[from] OpeningFull),
}

impl ShardFailure {
    fn of_send(shard: ShardId) -> impl Fn(SendError) -> Self {
        move |error| Self::Send { shard: shard.0, error }
    }
}

/// What a batch may wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// The common slots.
    Normal,
    /// Slots of their own, for what has to be written when everything is full: `up 0` and stale markers.
    Reserved,
}

struct ShardAddr {
    normal: BoundedAddr<StorageShard>,
    reserved: Reserved<StorageShard>,
    applying: Reserved<StorageShard>,
}

/// Appends to the head and opens views of it. Clones share everything.
#[derive(Clone)]
pub struct StorageClient {
    head: Arc<Head>,
    log: Arc<OnceLock<Journal>>,
    shards: Arc<[ShardAddr]>,
    /// Without it the head is all there is.
    blocks: Option<Arc<Catalog>>,
    /// Counts what is appended.
    intake: Arc<Intake>,
    /// Keeps what comes before storage is open.
    opening: Arc<Opening>,
    /// Whether the log is written on the thread that appends, where that is a matter of some microseconds.
    writes_log: bool,
}

impl StorageClient {
    /// A client of the head's shards, in their order; `log` is the one that the shards have.
    pub fn new(head: Arc<Head>, log: Arc<OnceLock<Journal>>, shards: &[BoundedAddr<StorageShard>]) -> Self {
        let address = |addr: &BoundedAddr<StorageShard>| ShardAddr {
            normal: addr.clone(),
            reserved: addr.reserve(),
            applying: addr.reserve(),
        };
        let (intake, opening) = (Arc::default(), Opening::done());
        Self {
            head,
            log,
            shards: shards.iter().map(address).collect(),
            blocks: None,
            intake,
            opening,
            writes_log: false,
        }
    }

    /// The same for scrapes, which write the log themselves where they can. A disk that hangs may hold up the thread of one: no
    /// other work is to be there.
    #[must_use]
    pub fn writing_log(self) -> Self {
        Self { writes_log: true, ..self }
    }

    /// The same, while storage is not open yet: [`Self::append`] leaves batches there, until [`Self::append_waiting`].
    #[must_use]
    pub fn with_opening(self, opening: Arc<Opening>) -> Self {
        Self { opening, ..self }
    }

    /// The same, with what is appended counted there.
    #[must_use]
    pub fn with_intake(self, intake: Arc<Intake>) -> Self {
        Self { intake, ..self }
    }

    /// The same, with views that show the blocks of `catalog` as well.
    #[must_use]
    pub fn with_blocks(self, catalog: Arc<Catalog>) -> Self {
        Self { blocks: Some(catalog), ..self }
    }

    /// Stores a batch. It is visible when this answers; samples that are refused stand in the report. While storage is opening
    /// it is kept for later instead.
    pub async fn append(
        &self,
        batch: AppendBatch,
        priority: Priority,
        deadline: Instant,
    ) -> Result<AppendReport, AppendFailure> {
        let admission = self.opening.admit(batch, priority);
        let batch = match admission.map_err(|full| AppendFailure::Refused(full.into()))? {
            Admission::Open(batch) => batch,
            Admission::Kept(report) => return Ok(report),
        };
        let (batch, numbers) = self.opening.translate(batch).into_parts();
        let mut report = self.append_now(batch, priority, deadline).await?;
        self.opening.tell(&numbers, &mut report);
        Ok(report)
    }

    async fn append_now(
        &self,
        batch: AppendBatch,
        priority: Priority,
        deadline: Instant,
    ) -> Result<AppendReport, AppendFailure> {
        let terms = Terms { refusals: Refusals::Alone, durable: None };
        self.store(batch, priority, terms, deadline).await.map(|stored| stored.report)
    }

    /// Appends what was kept while storage was opening, oldest first, and what comes meanwhile behind it. When this returns
    /// storage is open.
    pub async fn append_waiting(&self) {
        while let Some(mut waiting) = self.opening.next() {
            let batch = waiting.take_batch();
            let report = self.append_now(batch, Priority::Normal, Instant::now() + APPLY_WITHIN).await;
            if let Err(error) = &report {
                tracing::warn!(component = "scrape manager", err = %error, "A scrape of the start is not stored");
            }
            self.opening.appended(&waiting, report.as_ref().ok());
        }
    }

    /// Stores a batch that is acknowledged to somebody else: when this answers it is visible, and as durable as
    /// `--storage.tsdb.wal-sync` says. A batch that `refusals` forbid is not stored at all; the report says why.
    pub async fn append_durably(
        &self,
        batch: AppendBatch,
        refusals: Refusals,
        deadline: Instant,
    ) -> Result<AppendReport, AppendFailure> {
        let durable = self.log.get().map(|journal| journal.announcements.announce());
        let Stored { report, synced } =
            self.store(batch, Priority::Normal, Terms { refusals, durable }, deadline).await?;
        if let Some(synced) = synced {
            let late = |_| AppendFailure::Unsure(ShardFailure::Late);
            timeout(APPLY_WITHIN, synced.wait()).await.map_err(late)?.map_err(|e| AppendFailure::Unsure(e.into()))?;
        }
        Ok(report)
    }

    async fn store(
        &self,
        batch: AppendBatch,
        priority: Priority,
        terms: Terms,
        deadline: Instant,
    ) -> Result<Stored, AppendFailure> {
        let first = batch.first_at();
        self.intake.took(&batch);
        let mut slices = self.head.route(batch);
        if slices.len() <= 1 {
            let Some((shard, mut slice)) = slices.pop() else { return Ok(Stored::nothing(AppendReport::default())) };
            if terms.durable.is_none()
                && let Some(staged) = self.stage_here(shard, priority, first, &mut slice)
            {
                let (staged, slot) = staged?;
                return self.commit(vec![(shard, staged)], Some(slot), terms).await;
            }
            let append = AppendSlice { head: Arc::clone(&self.head), first, slice, terms };
            let answer = self.addr(shard, priority).ask(append, deadline).await;
            return match answer {
                Ok(report) => report.map_err(|error| AppendFailure::Refused(error.into())),
                Err(error) if error.may_have_happened() => {
                    Err(AppendFailure::Unsure(ShardFailure::of_send(shard)(error)))
                }
                Err(error) => Err(AppendFailure::Refused(ShardFailure::of_send(shard)(error))),
            };
        }
        let commit = self.head.begin(first);
        let stages = slices.into_iter().map(|(shard, slice)| {
            let stage = StageSlice { commit: commit.clone(), slice };
            async move { (shard, self.addr(shard, priority).ask(stage, deadline).await) }
        });
        let mut staged = Vec::new();
        for (shard, answer) in join_all(stages).await {
            // What was staged is given up when it is dropped, also by a shard that answers too late.
            let answer = answer.map_err(ShardFailure::of_send(shard)).and_then(|part| Ok(part?));
            staged.push((shard, answer.map_err(AppendFailure::Refused)?));
        }
        drop(commit);
        self.commit(staged, None, terms).await
    }

    /// Logs and applies staged parts, unless they must not be. Holds the slot of one that was staged here.
    async fn commit(
        &self,
        staged: Vec<(ShardId, Staged)>,
        slot: Option<Lent>,
        terms: Terms,
    ) -> Result<Stored, AppendFailure> {
        if staged.iter().any(|(_, part)| terms.refusals.forbid(part.report())) {
            let mut report = AppendReport::default();
            staged.iter().for_each(|(_, part)| report.absorb(part.report().clone()));
            report.sort();
            return Ok(Stored::nothing(report));
        }
        let mut staged = staged;
        let logging = if slot.is_some() { self.log_here(&mut staged)? } else { Logging::Due };
        if matches!(logging, Logging::Done)
            && let Some(applied) = self.apply_here(&mut staged)
        {
            let report = applied.map_err(AppendFailure::Unsure)?;
            return Ok(Stored { report, synced: None });
        }
        // A task of its own: a caller that goes away now, as a cancelled scrape does, must not leave half a commit.
        let applying = actix::spawn(self.clone().log_and_apply(staged, logging, slot, terms));
        let applied = timeout(LOG_WITHIN + APPLY_WITHIN, applying).await;
        let applied = applied.map_err(|_| AppendFailure::Unsure(ShardFailure::Late))?;
        applied.unwrap_or(Err(AppendFailure::Unsure(ShardFailure::Lost)))
    }

    /// Writes the records of all parts with one message, then applies the parts.
    async fn log_and_apply(
        self,
        mut staged: Vec<(ShardId, Staged)>,
        logging: Logging,
        slot: Option<Lent>,
        terms: Terms,
    ) -> Result<Stored, AppendFailure> {
        let mut synced = None;
        let records = match logging {
            Logging::Done => None,
            Logging::Encoded(records) => Some(records),
            Logging::Due => {
                let parts: Vec<&Staged> = staged.iter().map(|(_, part)| part).collect();
                self.log.get().map(|_| LogRecords::of_staged(&parts))
            }
        };
        if let Some(journal) = self.log.get()
            && let Some(records) = records
        {
            let only = slot.as_ref().and_then(|_| staged.first()).map(|(shard, _)| *shard);
            let written = write_records(journal, records, terms.durable).await;
            synced = written.map_err(|error| match only {
                // There is no other part that might be written all the same.
                Some(shard) => AppendFailure::Refused(not_logged(shard, error).into()),
                None => AppendFailure::Unsure(error.into()),
            })?;
            staged.iter_mut().for_each(|(_, part)| part.set_logged());
        }
        let here = if slot.is_some() { self.apply_here(&mut staged) } else { None };
        let applied = match here {
            Some(applied) => applied,
            None => self.apply(staged).await,
        };
        let report = applied.map_err(AppendFailure::Unsure)?;
        drop(slot);
        Ok(Stored { report, synced })
    }

    async fn apply(self, staged: Vec<(ShardId, Staged)>) -> Result<AppendReport, ShardFailure> {
        let deadline = Instant::now() + APPLY_WITHIN;
        let applies = staged.into_iter().map(|(shard, part)| {
            let addr = &self.shards[usize::from(shard.0)].applying;
            async move { (shard, addr.ask(ApplyStaged(part), deadline).await) }
        });
        let (mut report, mut answers) = (AppendReport::default(), Vec::new());
        for (shard, answer) in join_all(applies).await {
            if answer.is_err() {
                // A part that the actor did not come to is in the log: without it the commit would never be complete.
                self.head.shards()[usize::from(shard.0)].tidy();
            }
            answers.push(answer.map_err(ShardFailure::of_send(shard)));
        }
        for answer in answers {
            report.absorb(answer??);
        }
        report.sort();
        Ok(report)
    }

    /// Drops samples before `min_valid` from the head; memory comes back in steps.
    pub fn truncate(&self, min_valid: TimestampMs) {
        self.head.raise_min_valid(min_valid);
        for shard in self.shards.iter() {
            // A shard whose queue is full does it at the next call.
            let _ = shard.normal.try_tell(Truncate);
        }
    }

    /// Parts the log of late samples: what commits to come add stands in the segment whose number is returned, or behind it.
    pub async fn cut_late_log(&self) -> Result<Option<u64>, LogFailure> {
        match self.log.get() {
            Some(journal) => log_writer::cut_late(&journal.writer, LOG_WITHIN).await,
            None => Ok(None),
        }
    }

    /// Removes files that hold nothing but late samples of before [`Self::cut_late_log`], for which blocks stand; chunks before
    /// `chunks_from` are not looked at any more. Lets go of chunks that another program has left. Works on files: not for an actor's thread.
    pub fn remove_late_files(&self, first_kept: Option<u64>, chunks_from: Option<ChunkPlace>) -> Result<(), String> {
        let Some(journal) = self.log.get() else { return Ok(()) };
        if let Some(from) = chunks_from {
            late_floor::save(&*journal.fs, &journal.data_dir, from).map_err(|error| error.to_string())?;
        }
        // A shard that is being rebuilt reads them; the next compaction removes them.
        let Some(_files) = journal.files.try_lock() else { return Ok(()) };
        if let Some(first_kept) = first_kept {
            wbl::remove_before(&journal.fs, &journal.data_dir, first_kept).map_err(|error| error.to_string())?;
        }
        // They go with the rest of their files.
        *journal.late_chunk_file.lock() = None;
        Ok(())
    }

    /// The log, once storage has opened.
    pub(super) fn journal(&self) -> Option<&Journal> {
        self.log.get()
    }

    /// Opens read views of head and blocks.
    pub fn queryable(&self) -> Arc<dyn Queryable> {
        match &self.blocks {
            Some(catalog) => Arc::new(StoreQueryable::new(self.head.queryable(), Arc::clone(catalog))),
            None => self.head.queryable(),
        }
    }

    /// The oldest time that blocks cover; `None` without blocks.
    pub fn blocks_min_time(&self) -> Option<i64> {
        self.blocks.as_ref()?.state().min_time()
    }

    /// Series that the head's budget still has room for; `None` without a budget.
    pub fn series_room(&self) -> Option<u64> {
        self.head.series_room()
    }

    /// Series in the head.
    pub fn series_count(&self) -> u64 {
        self.head.series_count()
    }

    /// Figures of the head.
    pub fn stats(&self) -> HeadStats {
        self.head.stats()
    }

    /// Figures of the exemplars.
    pub fn exemplar_stats(&self) -> ExemplarStats {
        self.head.exemplars().stats()
    }

    /// The shards, to be drained.
    pub fn shards(&self) -> impl Iterator<Item = &BoundedAddr<StorageShard>> {
        self.shards.iter().map(|shard| &shard.normal)
    }

    fn addr(&self, shard: ShardId, priority: Priority) -> &BoundedAddr<StorageShard> {
        let addr = &self.shards[usize::from(shard.0)];
        match priority {
            Priority::Normal => &addr.normal,
            Priority::Reserved => &addr.reserved,
        }
    }
}
