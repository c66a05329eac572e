//! Makes blocks of the head and of smaller blocks, and removes those beyond the retention. Owns the order of that work: one round
//! at a time. Started by the root. Bound: its slots, each a round that somebody asks for. Failure: restarts; a round that was
//! cut short leaves a temporary folder at most, and the next round begins anew. Shutdown: `Drain` gives the round up.
//!
//! The work itself runs on the storage lane of the compute pool, in steps of some hundred series.

mod ended;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use actix::prelude::{Actor, ActorContext, AsyncContext, Handler, Message, ResponseActFuture, Supervised};
use actix::{ActorFutureExt, WrapFuture};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use crate::actors::context::Context;
use crate::actors::control::{Control, Drain};
use crate::actors::kind::{Kind, Rank};
use crate::actors::mailbox::Admitted;
use crate::actors::pool::{ComputePool, Lane, PoolError};
use crate::actors::storage_client::StorageClient;
use crate::actors::supervision::SupervisedActor;
use crate::model::clock::SharedClock;
use crate::model::random::Random;
use crate::model::steady_clock::SteadyClock;
use crate::model::time::TimestampMs;
use crate::storage::block::BlockError;
use crate::storage::block::catalog::Catalog;
use crate::storage::block::meta::BlockMeta;
use crate::storage::block::retention::RetentionRule;
use crate::storage::block::ulid::Ulid;
use crate::storage::compact::blocks::BlockCompaction;
use crate::storage::compact::head::HeadCompaction;
use crate::storage::compact::late::LateCompaction;
use crate::storage::compact::plan::{PlanRules, block_ranges, plan};
use crate::storage::compact::{CompactError, Step};
use crate::storage::head::Head;
use crate::storage::head::export::BlockRange;
use crate::storage::head_chunks::HEAD_CHUNKS_DIR;
use crate::storage::wal::WAL_DIR;
use crate::storage::wal::segments::storage_len;
use crate::storage::wbl::WBL_DIR;

/// The kind.
pub static COMPACTOR: Kind = Kind { name: "compactor", rank: Rank::SHARD, slots: 4 };

/// Series that are written in one step: a few milliseconds of work.
pub(super) const STEP_SERIES_MAX: usize = 500;
/// How long one step may wait and take.
const STEP_WITHIN: Duration = Duration::from_secs(3600);
/// How often to look whether commits that began before are over.
const SETTLE_EVERY: Duration = Duration::from_millis(20);
/// How long they may take; the round ends then, and the next tries again.
const SETTLE_WITHIN: Duration = Duration::from_secs(120);

/// Sizes and times of compactions.
#[derive(Clone, Copy, Debug)]
pub struct CompactorOptions {
    /// Span of the blocks that the head becomes, in milliseconds.
    pub range_ms: i64,
    /// Longest span of a merged block.
    pub range_max_ms: i64,
    /// Whether blocks that overlap are merged.
    pub merge_overlapping: bool,
    /// Bytes of a chunk segment at most; 0 for the usual.
    pub segment_len: u64,
    /// How often a round begins.
    pub every: Duration,
}

/// What is told of a head that has dropped what stands in blocks.
pub type AfterTruncation = Box<dyn Fn(TimestampMs) + Send + Sync>;

/// What the compactor is given.
pub struct CompactorDeps {
    pub(super) head: Arc<Head>,
    pub(super) storage: StorageClient,
    pub(super) catalog: Arc<Catalog>,
    pool: Arc<ComputePool>,
    pub(super) clock: SharedClock,
    pub(super) options: CompactorOptions,
    random: Mutex<Random>,
    retention: ArcSwap<RetentionRule>,
    /// Nothing is done before the data directory is ours and read.
    is_open: AtomicBool,
    /// By which blocks are too old.
    steady: Arc<SteadyClock>,
    after_truncation: AfterTruncation,
    /// Late samples wait for blocks of their own.
    late_due: AtomicBool,
    /// Since when there are some, on the monotonic clock.
    late_since: Mutex<Option<Duration>>,
    /// Share of the head's series from which on those that have ended leave early, as bits; 0 for never.
    ended_threshold: AtomicU64,
    /// When the head last became a block, on the monotonic clock.
    head_compacted_at: Mutex<Option<Duration>>,
    /// Held by the round, or the order of an operator, that runs.
    pub(super) turn: tokio::sync::Mutex<()>,
}

impl CompactorDeps {
    /// A compactor of `head`, whose shards `storage` reaches. `after_truncation` hears the time before which the log need not keep
    /// samples any more, each time it has risen.
    pub fn new(
        (head, storage, catalog): (Arc<Head>, StorageClient, Arc<Catalog>),
        pool: Arc<ComputePool>,
        clock: SharedClock,
        options: CompactorOptions,
        after_truncation: AfterTruncation,
    ) -> Arc<Self> {
        let steady = SteadyClock::new(&clock);
        Self::by_clock((head, storage, catalog), pool, clock, options, after_truncation, steady)
    }

    /// The same with a clock that others have observed as well.
    pub fn by_clock(
        (head, storage, catalog): (Arc<Head>, StorageClient, Arc<Catalog>),
        pool: Arc<ComputePool>,
        clock: SharedClock,
        options: CompactorOptions,
        after_truncation: AfterTruncation,
        steady: Arc<SteadyClock>,
    ) -> Arc<Self> {
        Arc::new(Self {
            head,
            storage,
            catalog,
            pool,
            clock,
            options,
            random: Mutex::new(Random::from_process()),
            retention: ArcSwap::default(),
            is_open: AtomicBool::new(false),
            steady,
            after_truncation,
            late_due: AtomicBool::new(false),
            late_since: Mutex::default(),
            ended_threshold: AtomicU64::new(0),
            head_compacted_at: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        })
    }

    /// How much is kept from the next round on.
    pub fn set_retention(&self, retention: RetentionRule) {
        self.catalog.metrics().set_retention(retention);
        self.retention.store(Arc::new(retention));
    }

    /// From which share of ended series on these leave the head early; 0 for never.
    pub fn set_ended_threshold(&self, share: f64) {
        self.ended_threshold.store(share.to_bits(), Ordering::Relaxed);
    }

    /// The data directory is ours and its blocks are read: rounds may begin.
    pub fn opened(&self) {
        self.is_open.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::SeqCst)
    }
}

/// What a round has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Blocks made of the head.
    pub from_head: u32,
    /// Blocks made of samples that came out of order.
    pub from_late: u32,
    /// Blocks made of series that have ended.
    pub from_ended: u32,
    /// Blocks made of others.
    pub merged: u32,
}

/// Why a round ended early. The next one tries again.
#[derive(Debug, thiserror::Error)]
pub enum RoundError {
    /// A block was not made.
    #[error(transparent)]
    Compact(#[from] CompactError),
    /// The blocks cannot be listed or removed.
    #[error(transparent)]
    Blocks(#[from] BlockError),
    /// The compute pool did not do its part.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The log of late samples was not cut, or its files cannot be removed.
    #[error("the log of samples that came out of order: {0}")]
    LateLog(String),
    /// Commits that began long ago are still open.
    #[error("commits that began {} s ago are still under way", SETTLE_WITHIN.as_secs())]
    Unsettled,
}

/// Look for blocks, compact and remove, as each minute; answers what was done, or why not, in words.
#[derive(Message)]
#[rtype(result = "Result<Round, String>")]
pub struct RunRound;

/// The actor.
pub struct Compactor {
    deps: Arc<CompactorDeps>,
    running: bool,
}

impl Compactor {
    /// A compactor with these deps.
    pub fn new(deps: Arc<CompactorDeps>) -> Self {
        Self { deps, running: false }
    }

    pub(super) fn deps(&self) -> &Arc<CompactorDeps> {
        &self.deps
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        if self.running || !self.deps.is_open.load(Ordering::SeqCst) {
            return;
        }
        self.running = true;
        let deps = Arc::clone(&self.deps);
        let round = async move { deps.round().await };
        ctx.spawn(round.into_actor(self).map(|_, actor, _| actor.running = false));
    }
}

impl Actor for Compactor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(self.deps.options.every, Self::tick);
    }
}

impl Supervised for Compactor {
    fn restarting(&mut self, _: &mut Context<Self>) {
        // The round's future was dropped, and with it what it had in hand.
        self.running = false;
    }
}

impl SupervisedActor for Compactor {
    const KIND: &'static Kind = &COMPACTOR;
}

impl Handler<Admitted<RunRound>> for Compactor {
    type Result = ResponseActFuture<Self, Result<Round, String>>;

    fn handle(&mut self, run: Admitted<RunRound>, _: &mut Context<Self>) -> Self::Result {
        let deps = Arc::clone(&self.deps);
        let round = async move {
            let _run = run;
            deps.round().await.map_err(|error| error.to_string())
        };
        Box::pin(round.into_actor(self))
    }
}

impl Handler<Control<Drain>> for Compactor {
    type Result = ();

    fn handle(&mut self, _: Control<Drain>, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}

impl CompactorDeps {
    async fn round(&self) -> Result<Round, RoundError> {
        let _turn = self.turn.lock().await;
        let metrics = self.catalog.metrics();
        if let Err(error) = self.reload().await {
            tracing::error!(component = "tsdb", err = %error, "reloadBlocks");
        }
        if 0 < self.head.deleted_len() {
            let head = Arc::clone(&self.head);
            self.work(move || head.forget_deleted()).await?;
        }
        let from_ended = self.compact_ended().await;
        metrics.triggered.inc();
        let mut done = self.compact().await;
        if let Ok(round) = &mut done {
            round.from_ended = from_ended;
        }
        if let Err(error) = &done {
            metrics.failed.inc();
            tracing::error!(component = "tsdb", err = %error, "compaction failed");
        }
        done
    }

    async fn compact(&self) -> Result<Round, RoundError> {
        let mut round = Round::default();
        while let Some(range) = self.head.compactable(self.options.range_ms) {
            self.settle().await?;
            round.from_head += u32::from(self.compact_head(range).await?);
            *self.head_compacted_at.lock() = Some(self.clock.monotonic());
            // Those go after the head, as in Prometheus; where that fails, with the next round.
            self.late_due.store(true, Ordering::SeqCst);
        }
        if self.late_due.load(Ordering::SeqCst) || self.late_waits_long() {
            round.from_late = self.compact_late().await?;
            self.late_due.store(false, Ordering::SeqCst);
            *self.late_since.lock() = None;
        }
        let rules = PlanRules {
            ranges: block_ranges(self.options.range_ms, self.options.range_max_ms),
            merge_overlapping: self.options.merge_overlapping,
        };
        // The head goes first, also when it has become due meanwhile.
        while self.head.compactable(self.options.range_ms).is_none() {
            let metas: Vec<BlockMeta> = self.catalog.state().blocks.iter().map(|block| block.meta().clone()).collect();
            let planned = plan(&metas, &rules);
            if planned.is_empty() {
                break;
            }
            self.compact_blocks(planned).await?;
            round.merged += 1;
        }
        Ok(round)
    }

    /// True if late samples wait for as long as a block spans: where the clock was ahead, no block of the head may be due for a year.
    fn late_waits_long(&self) -> bool {
        if !self.head.has_late() {
            return false;
        }
        let now = self.clock.monotonic();
        let since = *self.late_since.lock().get_or_insert(now);
        u128::try_from(self.options.range_ms).is_ok_and(|range| range <= now.saturating_sub(since).as_millis())
    }

    /// Returns when no commit that is open can append to a compactable range.
    async fn settle(&self) -> Result<(), RoundError> {
        let settling = self.head.settling();
        let deadline = Instant::now() + SETTLE_WITHIN;
        while !self.head.is_settled(settling) {
            if deadline <= Instant::now() {
                return Err(RoundError::Unsettled);
            }
            sleep(SETTLE_EVERY).await;
        }
        Ok(())
    }

    /// Writes the block of a range step by step, and shows it to readers; `None` if there is nothing for it.
    async fn write_out(&self, mut compaction: HeadCompaction) -> Result<Option<BlockMeta>, RoundError> {
        loop {
            let (step, next) = self.work(move || (compaction.step(STEP_SERIES_MAX), compaction)).await?;
            compaction = next;
            if step? == Step::Done {
                break;
            }
        }
        let made = self.work(move || compaction.publish()).await??;
        if let Some(meta) = &made {
            self.show(meta.ulid).await?;
        }
        Ok(made)
    }

    /// Writes one range of the head and lets the head drop it; true if that made a block.
    async fn compact_head(&self, range: BlockRange) -> Result<bool, RoundError> {
        let (head, catalog, clock) = (Arc::clone(&self.head), Arc::clone(&self.catalog), self.clock.clone());
        let (segment_len, mut random) = (self.options.segment_len, self.fork_random());
        let begin = move || HeadCompaction::begin(&head, &catalog, range, segment_len, &clock, &mut random);
        let compaction = self.work(begin).await??;
        let made = self.write_out(compaction).await?;
        // What is dropped now can be read from the block.
        let mut until = range.max_time;
        if made.is_none() {
            // A clock that was wrong may have left a gap of years.
            let (head, range_ms) = (Arc::clone(&self.head), self.options.range_ms);
            let next = self.work(move || head.next_range(range_ms)).await?.map_err(CompactError::from)?;
            until = next.map_or(until, |next| next.max(until));
        }
        self.storage.truncate(TimestampMs(until));
        (self.after_truncation)(TimestampMs(until));
        Ok(made.is_some())
    }

    /// Writes what came out of order as blocks of its own and lets the head drop it; returns how many blocks that made.
    pub(in crate::actors) async fn compact_late(&self) -> Result<u32, RoundError> {
        if !self.head.has_late() {
            return Ok(0);
        }
        // In this order: a commit that belongs behind the cut begins after it, so its records stand behind the log's.
        let kept = self.storage.cut_late_log().await.map_err(|error| RoundError::LateLog(error.to_string()))?;
        let cut = self.head.cut_late();
        self.settle().await?;
        let (head, catalog, clock) = (Arc::clone(&self.head), Arc::clone(&self.catalog), self.clock.clone());
        let (range_ms, segment_len, random) = (self.options.range_ms, self.options.segment_len, self.fork_random());
        let begin = move || LateCompaction::begin(&head, &catalog, cut, (range_ms, segment_len), &clock, random);
        let mut compaction = self.work(begin).await??;
        loop {
            let (step, next) = self.work(move || (compaction.step(STEP_SERIES_MAX), compaction)).await?;
            compaction = next;
            if step? == Step::Done {
                break;
            }
        }
        let made = compaction.finish();
        for meta in &made {
            self.show(meta.ulid).await?;
        }
        // What is dropped now can be read from the blocks.
        let (head, storage) = (Arc::clone(&self.head), self.storage.clone());
        let let_go = move || {
            head.drop_late(cut);
            storage.remove_late_files(kept, head.drop_late_chunks(cut))
        };
        self.work(let_go).await?.map_err(RoundError::LateLog)?;
        Ok(u32::try_from(made.len()).unwrap_or(u32::MAX))
    }

    /// Writes the block that replaces those named.
    async fn compact_blocks(&self, planned: Vec<Ulid>) -> Result<(), RoundError> {
        let done = self.merge(&planned).await;
        if let Err(RoundError::Compact(CompactError::Block(BlockError::Corrupt { .. } | BlockError::Input { .. }))) =
            &done
        {
            // It would fail the same way again. Other errors, as of a full disk, may pass.
            self.mark_failed(planned).await?;
        }
        done
    }

    async fn merge(&self, planned: &[Ulid]) -> Result<(), RoundError> {
        let state = self.catalog.state();
        let named = planned.iter().filter_map(|name| state.blocks.iter().find(|block| block.meta().ulid == *name));
        let sources = named.cloned().collect();
        let (catalog, clock) = (Arc::clone(&self.catalog), self.clock.clone());
        let (segment_len, mut random) = (self.options.segment_len, self.fork_random());
        let begin = move || BlockCompaction::begin(&catalog, sources, segment_len, &clock, &mut random);
        let mut compaction = self.work(begin).await??;
        loop {
            let (step, next) = self.work(move || (compaction.step(STEP_SERIES_MAX), compaction)).await?;
            compaction = next;
            if step? == Step::Done {
                break;
            }
        }
        match self.work(move || compaction.publish()).await?? {
            Some(meta) => self.show(meta.ulid).await,
            None => self.reload().await,
        }
    }

    async fn mark_failed(&self, planned: Vec<Ulid>) -> Result<(), RoundError> {
        let catalog = Arc::clone(&self.catalog);
        let mark = move || -> Result<(), BlockError> {
            for name in planned {
                let dir = catalog.dir().join(name.to_string());
                let mut meta = BlockMeta::read(&**catalog.fs(), &dir)?;
                meta.compaction.failed = true;
                meta.write(&**catalog.fs(), &dir)?;
            }
            Ok(())
        };
        self.work(mark).await??;
        self.reload().await
    }

    /// Makes a new block visible; errors if it cannot be opened.
    pub(super) async fn show(&self, name: Ulid) -> Result<(), RoundError> {
        self.reload().await?;
        if self.catalog.state().blocks.iter().any(|block| block.meta().ulid == name) {
            return Ok(());
        }
        Err(CompactError::NotOpened { name: name.to_string() }.into())
    }

    pub(super) async fn reload(&self) -> Result<(), RoundError> {
        let (catalog, rule, steady) = (Arc::clone(&self.catalog), **self.retention.load(), Arc::clone(&self.steady));
        let look = move || {
            let len_of = |folder| storage_len(&**catalog.fs(), &catalog.dir().join(folder)).unwrap_or(0);
            let log_len = len_of(WAL_DIR) + len_of(WBL_DIR) + len_of(HEAD_CHUNKS_DIR);
            let newest = catalog.state().blocks.iter().map(|block| block.meta().max_time).max();
            let retention = rule.on_disk(|| catalog.fs().capacity(catalog.dir())).by_clock(&steady, newest);
            catalog.reload(retention, log_len)
        };
        Ok(self.work(look).await??)
    }

    pub(super) async fn work<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, RoundError> {
        Ok(self.pool.run(Lane::Storage, Instant::now() + STEP_WITHIN, move |_| job()).await?)
    }

    pub(super) fn fork_random(&self) -> Random {
        Random::seeded(self.random.lock().next_u64())
    }
}
