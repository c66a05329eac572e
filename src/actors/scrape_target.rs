//! One target, scraped on its own timer. Owns nothing that a restart must not find: what the target remembers is published
//! in its [`TargetShared`]. Started by its pool. Bound: one scrape in flight; a due time that comes meanwhile is counted
//! as skipped. Failure: restarts and goes on from the series it published, at the due times it would have had; a scrape that a
//! panic has cut short counts as failed, with `up 0` and stale markers; failed for good, its pool writes them. Shutdown: `Drain` cancels the scrape; `Retire` writes the target's
//! stale markers first.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use actix::prelude::{Actor, ActorContext, AsyncContext, Handler, Message, ResponseActFuture, SpawnHandle, Supervised};
use actix::{ActorFutureExt, WrapFuture};
use arc_swap::{ArcSwap, ArcSwapOption};
use futures::future::FutureExt;
use parking_lot::Mutex;
use tokio::sync::SetOnce;
use tokio::time::Instant;

use crate::actors::context::Context;
use crate::actors::control::{Control, Drain};
#[cfg(debug_assertions)]
use crate::actors::failpoint::{self, Point};
use crate::actors::kind::{Kind, Rank};
use crate::actors::mailbox::Admitted;
use crate::actors::policy::Policy;
use crate::actors::storage_client::{AppendFailure, Priority, StorageClient};
use crate::actors::supervision::SupervisedActor;
use crate::client::HttpClient;
use crate::model::append::AppendBatch;
use crate::model::clock::SharedClock;
use crate::model::labels::Labels;
use crate::model::time::TimestampMs;
use crate::scrape::cache::{Pending, TargetCache};
use crate::scrape::metrics::ScrapeMetrics;
use crate::scrape::pool_metrics::{IntervalMetrics, PoolMetrics};
use crate::scrape::schedule::{Due, Schedule};
use crate::scrape::settings::{NewSeriesLimit, SamplePlan, ScrapeLimits};
use crate::scrape::staging::StagingBudget;
use crate::scrape::target::Target;
use crate::scrape::{self, ScrapeContext};
use crate::telemetry::metrics::{Counter, Registry};

/// The kind.
pub static SCRAPE_TARGET: Kind = Kind { name: "scrape_target", rank: Rank::MANAGER.below(2), slots: 2 };

/// Longest time that a scrape's commit may take before the scrape counts as failed.
const APPEND_WITHIN: Duration = Duration::from_secs(10);

/// What all targets of the process share.
pub struct ScrapeRuntime {
    /// Where samples go.
    pub storage: StorageClient,
    /// Memory of all scrapes in flight.
    pub staging: Arc<StagingBudget>,
    /// Limits of our own.
    pub limits: ScrapeLimits,
    /// What decides `limits.new_series_max` from scrape to scrape.
    pub new_series: NewSeriesLimit,
    /// Prometheus's counters.
    pub metrics: ScrapeMetrics,
    /// Prometheus's metrics of pools.
    pub pools: PoolMetrics,
    /// Counters of our own.
    pub ticks: TickMetrics,
    /// The clock.
    pub clock: SharedClock,
    /// How late a scrape may begin to be stamped with its due time.
    pub tolerance: Duration,
    /// Differs between servers, so that they do not scrape at the same moments; new targets take it.
    pub offset_seed: AtomicU64,
    /// How targets and their pools are restarted.
    pub policy: Policy,
}

/// How due times were kept; a test of schedules reads these.
#[derive(Clone, Debug)]
pub struct TickMetrics {
    /// Scrapes begun.
    pub begun: Counter,
    /// Due times that passed while the previous scrape was still under way, or the actor was away.
    pub skipped: Counter,
    /// Scrapes that began over a tenth of their interval late.
    pub late: Counter,
    /// Scrapes whose samples storage did not take.
    pub not_stored: Counter,
}

impl TickMetrics {
    /// The counters of `registry`.
    pub fn new(registry: &Registry) -> Self {
        let counter = |name: &str, help: &str| registry.counter(name, help, &[]);
        Self {
            begun: counter("watchfire_scrapes_begun_total", "Scrapes begun."),
            skipped: counter("watchfire_scrapes_skipped_total", "Due times of scrapes that were passed over."),
            late: counter("watchfire_scrapes_late_total", "Scrapes begun over a tenth of their interval late."),
            not_stored: counter("watchfire_scrapes_not_stored_total", "Scrapes whose samples storage did not take."),
        }
    }
}

/// The outcome of the last scrape, as `/targets` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetStatus {
    /// When it began; `None` before the first.
    pub last_scrape_nanos: Option<i64>,
    /// How long it took.
    pub last_duration: Duration,
    /// Why it failed; empty if it did not.
    pub last_error: String,
}

/// What a target is given, and what it publishes. Outlives the actor.
pub struct TargetShared {
    /// Labels, URL, interval, timeout.
    pub target: Target,
    /// Of the job's specification that its samples depend on.
    pub generation: u64,
    /// When it is due.
    pub schedule: Schedule,
    /// What becomes of its samples.
    pub plan: SamplePlan,
    /// Its connections.
    pub client: HttpClient,
    /// What it remembers of its series.
    pub cache: TargetCache,
    /// Labels before relabelling as discovery gave them last; for the API.
    discovered: ArcSwap<Labels>,
    /// Why the target may not be scraped, if it may not.
    barred: ArcSwapOption<String>,
    intervals: IntervalMetrics,
    /// Monotonic time of the last scrape.
    last_began: Mutex<Option<Duration>>,
    runtime: Arc<ScrapeRuntime>,
    status: Mutex<TargetStatus>,
    /// Nanoseconds of the due time that was taken last, so that a restarted actor does not take it again; 0 for none.
    last_due: AtomicU64,
    /// Time stamp of what was written last, in milliseconds.
    last_at: AtomicI64,
    /// Set when the first scrape is over.
    scraped: SetOnce<()>,
}

impl TargetShared {
    /// A target that was not scraped yet.
    pub fn new(
        target: Target,
        generation: u64,
        plan: SamplePlan,
        client: HttpClient,
        runtime: Arc<ScrapeRuntime>,
    ) -> Arc<Self> {
        Self::beside(target, generation, plan, client, runtime, |schedule| schedule)
    }

    /// The same, with the due times that others make of its own.
    pub fn beside(
        target: Target,
        generation: u64,
        plan: SamplePlan,
        client: HttpClient,
        runtime: Arc<ScrapeRuntime>,
        place: impl FnOnce(Schedule) -> Schedule,
    ) -> Arc<Self> {
        let seed = runtime.offset_seed.load(Ordering::Relaxed);
        let schedule = Schedule::new(target.interval.to_std(), target.hash(), seed).with_tolerance(runtime.tolerance);
        let schedule = place(schedule);
        Arc::new(Self {
            discovered: ArcSwap::from_pointee(target.discovered.clone()),
            barred: ArcSwapOption::empty(),
            intervals: runtime.pools.interval(target.interval.to_std()),
            last_began: Mutex::default(),
            target,
            generation,
            schedule,
            plan,
            client,
            cache: TargetCache::new(),
            runtime,
            status: Mutex::default(),
            last_due: AtomicU64::new(0),
            last_at: AtomicI64::new(i64::MIN),
            scraped: SetOnce::new(),
        })
    }

    /// Goes on where a target of the same labels stopped because its job has changed: it does not take a due time
    /// twice, and shows the last scrape's outcome until its own.
    pub fn succeed(&self, before: &Self) {
        if self.schedule == before.schedule {
            self.last_due.store(before.last_due.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        *self.last_began.lock() = *before.last_began.lock();
        *self.status.lock() = before.status();
    }

    /// Returns when the first scrape is over.
    pub async fn scraped(&self) {
        self.scraped.wait().await;
    }

    /// The outcome of the last scrape.
    pub fn status(&self) -> TargetStatus {
        self.status.lock().clone()
    }

    /// Labels before relabelling as discovery gave them last.
    pub fn discovered(&self) -> Arc<Labels> {
        self.discovered.load_full()
    }

    /// Notes what discovery says now of a target that is the same after relabelling.
    pub fn rediscovered(&self, discovered: Labels) {
        if **self.discovered.load() != discovered {
            self.discovered.store(Arc::new(discovered));
        }
    }

    /// From the next due time on the target is not scraped and counts as down for this reason; `None` lifts that.
    pub fn bar(&self, reason: Option<Arc<String>>) {
        self.barred.store(reason);
    }

    fn previous_due(&self) -> Option<Due> {
        let at_nanos = i64::try_from(self.last_due.load(Ordering::Relaxed)).ok().filter(|at| 0 < *at)?;
        Some(Due { at_nanos, missed: 0 })
    }

    /// One scrape from fetch to storage's answer.
    async fn scrape(&self, due: Due) {
        let runtime = &self.runtime;
        let began_nanos = runtime.clock.unix_nanos();
        let late = began_nanos.saturating_sub(due.at_nanos);
        if i64::try_from(self.schedule.interval().as_nanos() / 10).is_ok_and(|tenth| tenth < late) {
            runtime.ticks.late.inc();
        }
        let began = runtime.clock.monotonic();
        if let Some(last) = self.last_began.lock().replace(began) {
            self.intervals.observe(began.saturating_sub(last));
        }
        let at = self.schedule.stamp(due, began_nanos);
        self.last_at.fetch_max(at.0, Ordering::Relaxed);
        if let Some(reason) = self.barred.load_full() {
            self.report_down(at).await;
            let last_error = String::clone(&reason);
            let last_duration = runtime.clock.monotonic().saturating_sub(began);
            *self.status.lock() = TargetStatus { last_scrape_nanos: Some(began_nanos), last_duration, last_error };
            let _ = self.scraped.set(());
            return;
        }
        let new_series_max = runtime.new_series.for_room(runtime.storage.series_room());
        let context = ScrapeContext {
            client: &self.client,
            url: &self.target.url,
            has_usual_port: self.target.has_usual_port,
            timeout: self.target.timeout.to_std(),
            plan: &self.plan,
            cache: &self.cache,
            staging: &runtime.staging,
            limits: ScrapeLimits { new_series_max, ..runtime.limits },
            metrics: &runtime.metrics,
            clock: &*runtime.clock,
        };
        let scraped = scrape::once(&context, at).await;
        #[cfg(debug_assertions)]
        failpoint::hit(SCRAPE_TARGET.name, &self.target.scrape_url, Point::Step("parse"));
        let mut last_error = scraped.error.as_ref().map(ToString::to_string).unwrap_or_default();
        if !last_error.is_empty() {
            let target = self.target.scrape_url.as_str();
            tracing::debug!(component = "scrape manager", target, err = last_error, "Scrape failed");
            if let Some(log) = &self.plan.settings.failure_log {
                runtime.metrics.failures_not_logged(log.write(runtime.clock.unix_nanos(), target, &last_error));
            }
        }
        // A failed scrape must be told even when all common slots are taken.
        let priority = if last_error.is_empty() { Priority::Normal } else { Priority::Reserved };
        if let Err(failure) = self.store(scraped.batch, scraped.pending, priority).await {
            runtime.ticks.not_stored.inc();
            last_error = format!("samples were not stored: {failure}");
            self.report_down(at).await;
        }
        if self.plan.settings.extra_scrape_metrics {
            runtime.pools.scraped(runtime.clock.monotonic().saturating_sub(began));
        }
        *self.status.lock() =
            TargetStatus { last_scrape_nanos: Some(began_nanos), last_duration: scraped.duration, last_error };
        // Only the first one counts.
        let _ = self.scraped.set(());
    }

    /// Appends a batch and tells the cache what became of it. Samples whose series storage has forgotten are sent once
    /// more, by labels.
    async fn store(&self, batch: AppendBatch, pending: Pending, priority: Priority) -> Result<(), AppendFailure> {
        let storage = &self.runtime.storage;
        let report = match storage.append(batch, priority, Instant::now() + APPEND_WITHIN).await {
            Ok(report) => report,
            Err(failure) => {
                if failure.nothing_was_done() {
                    self.cache.abandon(pending);
                }
                return Err(failure);
            }
        };
        let confirmed = self.cache.confirm(pending, &report, &self.plan);
        self.runtime.metrics.confirmed(&confirmed);
        if let Some((batch, pending)) = confirmed.resend {
            let report = storage.append(batch, priority, Instant::now() + APPEND_WITHIN).await?;
            self.runtime.metrics.confirmed(&self.cache.confirm(pending, &report, &self.plan));
        }
        Ok(())
    }

    /// Writes `up 0` and stale markers, for a target that cannot be scraped or whose samples cannot be stored.
    async fn report_down(&self, at: TimestampMs) {
        let (batch, pending) = scrape::down(&self.cache, &self.plan, at, self.target.timeout.to_std());
        let deadline = Instant::now() + APPEND_WITHIN;
        match self.runtime.storage.append(batch, Priority::Reserved, deadline).await {
            Ok(report) => {
                self.cache.confirm(pending, &report, &self.plan);
            }
            Err(failure) => {
                if failure.nothing_was_done() {
                    self.cache.abandon(pending);
                }
                let target = self.target.scrape_url.as_str();
                tracing::debug!(component = "scrape manager", target, err = %failure, "The failed scrape is not stored");
            }
        }
    }

    /// A panic has cut a scrape short: says so on `/targets` and in the series, at the time stamp that the scrape had.
    async fn report_panic(&self, reason: &str) {
        let now = self.runtime.clock.unix_nanos();
        let last_error = format!("the scrape panicked: {reason}");
        *self.status.lock() = TargetStatus { last_scrape_nanos: Some(now), last_duration: Duration::ZERO, last_error };
        // What the scrape may have stored all the same stays: storage keeps the first of two values.
        self.report_down(TimestampMs(self.last_at.load(Ordering::Relaxed))).await;
        let _ = self.scraped.set(());
    }

    /// For the pool, when the actor has failed for good: says so on `/targets` and in the series.
    pub async fn mark_failed(&self, reason: &str) {
        let now = self.runtime.clock.unix_nanos();
        *self.status.lock() = TargetStatus {
            last_scrape_nanos: Some(now),
            last_duration: Duration::ZERO,
            last_error: format!("the target's actor has failed: {reason}"),
        };
        self.report_down(self.unscheduled()).await;
    }

    /// A time stamp for what is written beside the schedule: now, but behind all that was written before, as storage keeps
    /// the first of two values with one time stamp.
    pub fn unscheduled(&self) -> TimestampMs {
        let now = self.runtime.clock.now().0;
        let behind = |last: i64| now.max(last.saturating_add(1));
        let update = self.last_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(behind(last)));
        TimestampMs(update.map_or(now, behind))
    }

    /// Writes the stale markers of a target that is gone.
    pub async fn end(&self) {
        self.end_at(self.unscheduled()).await;
    }

    /// Writes stale markers that were due at `at`. Storage refuses those of series that go on with newer samples.
    pub async fn end_at(&self, at: TimestampMs) {
        let Some(batch) = self.cache.end_of_run(at, &self.plan) else { return };
        let deadline = Instant::now() + APPEND_WITHIN;
        if let Err(failure) = self.runtime.storage.append(batch, Priority::Reserved, deadline).await {
            let target = self.target.scrape_url.as_str();
            tracing::warn!(component = "scrape manager", target, err = %failure, "Stale markers were not stored");
        }
    }
}

/// A due time has come.
#[derive(Message)]
#[rtype(result = "()")]
struct Tick(Due);

/// Stop scraping, write stale markers, end.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Retire;

/// The actor.
pub struct ScrapeTarget {
    shared: Arc<TargetShared>,
    state: TargetState,
    /// The panic that has cut a scrape short; told once the actor has started again.
    cut_by: Option<String>,
}

enum TargetState {
    Idle,
    Scraping(SpawnHandle),
    /// Writing down that a scrape was cut short.
    Reporting(SpawnHandle),
    Retiring,
}

impl ScrapeTarget {
    /// A target that scrapes from its next due time on.
    pub fn new(shared: Arc<TargetShared>) -> Self {
        Self { shared, state: TargetState::Idle, cut_by: None }
    }

    /// Due times are absolute: they neither drift nor move when the actor restarts; missed ones are skipped and counted.
    fn arm(&self, ctx: &mut Context<Self>) {
        let now = self.shared.runtime.clock.unix_nanos();
        let due = self.shared.schedule.next(now, self.shared.previous_due());
        self.shared.runtime.ticks.skipped.add(due.missed);
        ctx.notify_later(Tick(due), due.wait(now));
    }
}

impl Actor for ScrapeTarget {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.arm(ctx);
        if let Some(panic) = self.cut_by.take() {
            let shared = Arc::clone(&self.shared);
            let work = async move { shared.report_panic(&panic).await };
            let done = work.into_actor(self).map(|(), actor, _| actor.state = TargetState::Idle);
            self.state = TargetState::Reporting(ctx.spawn(done));
        }
    }
}

impl Supervised for ScrapeTarget {
    fn restarting(&mut self, ctx: &mut Context<Self>) {
        if let TargetState::Scraping(_) = std::mem::replace(&mut self.state, TargetState::Idle) {
            self.cut_by = Some(ctx.entry().last_panic().unwrap_or_default());
        }
    }
}

impl SupervisedActor for ScrapeTarget {
    const KIND: &'static Kind = &SCRAPE_TARGET;
}

impl Handler<Tick> for ScrapeTarget {
    type Result = ();

    fn handle(&mut self, Tick(due): Tick, ctx: &mut Context<Self>) {
        self.shared.last_due.store(u64::try_from(due.at_nanos).unwrap_or(0), Ordering::Relaxed);
        self.arm(ctx);
        match self.state {
            TargetState::Idle => {}
            TargetState::Scraping(_) | TargetState::Reporting(_) => return self.shared.runtime.ticks.skipped.inc(),
            TargetState::Retiring => return,
        }
        // Counted here and not in the future, so that each due time counts as begun or skipped whatever panics.
        self.shared.runtime.ticks.begun.inc();
        // The time stamp too, so that a panic before the first step is told at this due time.
        let at = self.shared.schedule.stamp(due, self.shared.runtime.clock.unix_nanos());
        self.shared.last_at.fetch_max(at.0, Ordering::Relaxed);
        let shared = Arc::clone(&self.shared);
        let work = async move { shared.scrape(due).await };
        let handle = ctx.spawn(work.into_actor(self).map(|(), actor, _| actor.state = TargetState::Idle));
        self.state = TargetState::Scraping(handle);
    }
}

impl Handler<Admitted<Retire>> for ScrapeTarget {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, retire: Admitted<Retire>, ctx: &mut Context<Self>) -> Self::Result {
        match std::mem::replace(&mut self.state, TargetState::Retiring) {
            TargetState::Scraping(handle) | TargetState::Reporting(handle) => drop(ctx.cancel_future(handle)),
            TargetState::Idle | TargetState::Retiring => {}
        }
        let (Retire, slot) = retire.into_parts();
        let shared = Arc::clone(&self.shared);
        let work = async move { shared.end().await };
        Box::pin(work.boxed_local().into_actor(self).map(move |(), _, ctx: &mut Context<Self>| {
            drop(slot);
            ctx.stop();
        }))
    }
}

impl Handler<Control<Drain>> for ScrapeTarget {
    type Result = ();

    fn handle(&mut self, _: Control<Drain>, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}
