//! Admission of queries. Owns how many run at a time, the memory that all of them share, and the lanes of the compute
//! pool that they run on. Started by the root. Bound: its slots are the queries that run or wait, those that their askers do
//! themselves (`here`) included. Failure: the queries under way end as `Restarted`, and askers try once more, as they only read. Shutdown: `Drain` ends
//! those under way, as their clients are about to be cut off.

mod here;
mod listing;
mod messages;
mod newest;
mod quick;
mod remote_read;
mod remotes;
mod running;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix::prelude::{Actor, ActorContext, Handler, ResponseActFuture, Supervised};
use actix::{ActorFutureExt, WrapFuture};
use futures::future::FutureExt;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::actors::active_queries::ActiveQueries;
use crate::actors::context::Context;
use crate::actors::control::{Control, Drain};
#[cfg(debug_assertions)]
use crate::actors::failpoint::{self, Point};
use crate::actors::kind::{Kind, Rank};
use crate::actors::mailbox::{Admitted, Asker};
use crate::actors::pool::{ComputePool, Lane, PoolError};
use crate::actors::query_log::{LoggedQuery, QueryLog, QueryOrigin};
use crate::actors::query_metrics::QueryTimes;
use crate::actors::remote_reads::RemoteReads;
use crate::actors::supervision::SupervisedActor;
use crate::model::clock::SharedClock;
use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::read::{FloatColumn, Queryable, ReadBudget, ReadError};
use crate::model::result::QueryValue;
use crate::model::sample::Sample;
use crate::model::time::{TimeRange, TimestampMs};
use crate::promql::ast::Expr;
use crate::promql::eval::{
    EngineOptions, EvalError, EvalStats, Evaluated, Helpers, MemoryPool, ParseFailure, ParsedQuery, Phase,
    QueryContext, QueryLedger, evaluate_instant, evaluate_range, parse,
};
use crate::promql::parser::ParseOptions;
use crate::rules::query::{Queried, QueryError, RuleQueries};
use crate::telemetry::metrics::{Counter, Gauge, MetricFamily, MetricKind, Registry};
use crate::telemetry::repeat::RepeatLimiter;

pub use here::QueryClient;
pub use messages::{
    FoundListing, Listed, Listing, QueryFailure, QueryOutcome, QuerySpan, QueryTimings, RunListing, RunQuery, RunRule,
};
pub use newest::{Newest, RunNewest};
pub use remote_read::{RemoteRead, RunRemoteRead, Sampled};
pub use running::RunningQuery;

use listing::{ListingBudget, list};
use remotes::Source;
use running::RunningQueries;

/// The kind. Further queries than have slots are refused.
pub static QUERY_GATEWAY: Kind = Kind { name: "query_gateway", rank: Rank::GATEWAY, slots: 1024 };

/// Limits of queries.
#[derive(Clone, Copy, Debug)]
pub struct QueryLimits {
    /// Longest time for a query (`--query.timeout`).
    pub timeout: Duration,
    /// Queries of users that run at a time (`--query.max-concurrency`).
    pub concurrency_max: usize,
    /// Bytes that one query may hold; 0 for no limit.
    pub query_bytes_max: usize,
    /// Bytes that all queries may hold; 0 for no limit.
    pub total_bytes_max: usize,
}

/// What the gateway is given.
pub struct GatewayDeps {
    queryable: Arc<dyn Queryable>,
    pool: Arc<ComputePool>,
    clock: SharedClock,
    engine: EngineOptions,
    /// Step of subqueries that name none; the configuration sets it.
    subquery_step_ms: AtomicI64,
    parser: ParseOptions,
    limits: QueryLimits,
    memory: Arc<MemoryPool>,
    turns: Arc<Semaphore>,
    metrics: GatewayMetrics,
    /// Set once the data directory is ours.
    active: OnceLock<ActiveQueries>,
    log: QueryLog,
    /// Set where there may be any.
    remotes: OnceLock<Arc<RemoteReads>>,
    /// The gateway's own; set when it starts.
    runtime: OnceLock<Handle>,
    running: RunningQueries,
    /// What rules were told to miss.
    told: Mutex<RepeatLimiter>,
}

struct GatewayMetrics {
    running: Gauge,
    here: Counter,
    samples: Counter,
    samples_read: Counter,
    times: QueryTimes,
}

impl GatewayDeps {
    /// Puts the parts together and registers the metrics.
    pub fn new(
        queryable: Arc<dyn Queryable>,
        pool: Arc<ComputePool>,
        clock: SharedClock,
        (engine, parser): (EngineOptions, ParseOptions),
        limits: QueryLimits,
        registry: &Registry,
    ) -> Arc<Self> {
        let running = registry.gauge(
            "prometheus_engine_queries",
            "The current number of queries being executed or waiting.",
            &[],
        );
        let help = "The max number of concurrent queries.";
        registry.gauge("prometheus_engine_queries_concurrent_max", help, &[]).set(limits.concurrency_max as f64);
        let help = "The total number of samples loaded by all queries (full window per step for range-vector).";
        let samples = registry.counter("prometheus_engine_query_samples_total", help, &[]);
        let help = "The total number of samples read by all queries.";
        let samples_read = registry.counter("prometheus_engine_query_samples_read_total", help, &[]);
        let help = "Queries and listings of next to no work, answered on the thread that asked.";
        let here = registry.counter("watchfire_queries_answered_at_once_total", help, &[]);
        let times = QueryTimes::new(registry, &clock);
        let log = QueryLog::new(registry, SharedClock::clone(&clock));
        let memory = MemoryPool::new(limits.total_bytes_max);
        let held = Arc::clone(&memory);
        registry.collect_with(move || {
            let name = "watchfire_query_memory_bytes";
            let help = "Bytes that running queries hold.";
            vec![MetricFamily::single(name, help, MetricKind::Gauge, held.used() as f64)]
        });
        Arc::new(Self {
            queryable,
            pool,
            clock,
            subquery_step_ms: AtomicI64::new(engine.default_subquery_step_ms),
            engine,
            parser,
            limits,
            memory,
            turns: Arc::new(Semaphore::new(limits.concurrency_max.max(1))),
            active: OnceLock::new(),
            log,
            remotes: OnceLock::new(),
            runtime: OnceLock::new(),
            running: RunningQueries::default(),
            told: Mutex::default(),
            metrics: GatewayMetrics { running, here, samples, samples_read, times },
        })
    }

    /// Sets the step of subqueries that name none: the global evaluation interval.
    pub fn set_subquery_step(&self, step_ms: i64) {
        self.subquery_step_ms.store(step_ms, Ordering::Relaxed);
    }

    /// Notes queries under way in the data directory from now on; tells in the log which the last process has left. Reads
    /// and writes files. The error is what the operator reads.
    pub fn open_active_log(&self, folder: &Path) -> Result<(), String> {
        let active = ActiveQueries::open(folder, self.limits.concurrency_max, SharedClock::clone(&self.clock))?;
        // The data directory opens once.
        let _ = self.active.set(active);
        Ok(())
    }

    /// Has queries read from these remote storages as well. Holds once it is said.
    pub fn set_remotes(&self, remotes: Arc<RemoteReads>) {
        let _ = self.remotes.set(remotes);
    }

    /// The queries of users that run or wait, oldest first.
    pub fn running_queries(&self) -> Vec<RunningQuery> {
        self.running.list()
    }

    /// Ends such a query as if its client had gone away; false if there is none of that number.
    pub fn cancel_query(&self, id: u64) -> bool {
        self.running.cancel(id)
    }

    /// The log of queries.
    pub fn query_log(&self) -> &QueryLog {
        &self.log
    }

    /// Writes what the logs still hold.
    pub fn close_logs(&self) {
        self.log.close();
        if let Some(active) = self.active.get() {
            active.close();
        }
    }

    /// Evaluates on the calling thread, one of the pool's, after a wait of `queue` for its turn.
    fn evaluate(
        &self,
        query: &RunQuery,
        ctx: &QueryContext,
        queue: Duration,
        source: &Source,
    ) -> Result<(Evaluated, QueryTimings), QueryFailure> {
        #[cfg(debug_assertions)]
        failpoint::hit(QUERY_GATEWAY.name, "", Point::Step("evaluate"));
        let ParsedQuery { held: _held, expr } = parse(&self.parser, ctx).map_err(parse_failure)?;
        let began = self.clock.monotonic();
        let evaluated = self.evaluate_parsed(query, &expr, ctx, queue, source);
        if source.is_complete() {
            self.log_evaluated(query, began, queue, &evaluated);
        }
        evaluated
    }

    /// Writes a query that `began` then to the query log.
    fn log_evaluated(
        &self,
        query: &RunQuery,
        began: Duration,
        queue: Duration,
        evaluated: &Result<(Evaluated, QueryTimings), QueryFailure>,
    ) {
        // Like Prometheus's: what does not parse, or makes no query, is not logged.
        if self.log.is_enabled() && !matches!(evaluated, Err(QueryFailure::Eval(EvalError::BadQuery(_)))) {
            let (error, timings, stats, by_step) = match evaluated {
                Ok((evaluated, timings)) => (None, *timings, evaluated.stats, evaluated.by_step.as_ref()),
                Err(failure) => {
                    let inner_eval = self.clock.monotonic().saturating_sub(began);
                    let timings = QueryTimings { queue, inner_eval, ..QueryTimings::default() };
                    (Some(failure.to_string()), timings, EvalStats::default(), None)
                }
            };
            let RunQuery { text, span, origin, .. } = query;
            self.log.log(&LoggedQuery { text, span: *span, origin, error, timings, stats, by_step });
        }
    }

    fn evaluate_parsed(
        &self,
        query: &RunQuery,
        expr: &Expr,
        ctx: &QueryContext,
        queue: Duration,
        source: &Source,
    ) -> Result<(Evaluated, QueryTimings), QueryFailure> {
        let began = self.clock.monotonic();
        let view = source.view()?;
        let prepared = self.clock.monotonic();
        let mut engine = self.engine.clone();
        engine.default_subquery_step_ms = self.subquery_step_ms.load(Ordering::Relaxed);
        engine.lookback_ms = query.lookback_ms.unwrap_or(engine.lookback_ms);
        engine.counts_steps = query.counts_steps;
        // Other servers are asked for what each selector selects, as Prometheus asks them.
        engine.shortcuts.common_reads &= source.is_local();
        let mut evaluated = match query.span {
            QuerySpan::Instant { at } => evaluate_instant(expr, &*view, at, &engine, ctx)?,
            QuerySpan::Range { start, end, step_ms } => {
                evaluate_range(expr, &*view, start, end, step_ms, &engine, ctx)?
            }
        };
        evaluated.annotations.warnings.extend(view.warnings());
        self.metrics.samples.add(evaluated.stats.total_samples);
        self.metrics.samples_read.add(evaluated.stats.samples_read);
        let sort = evaluated.stats.sorted_in;
        let timings = QueryTimings {
            queue,
            prepare: prepared.saturating_sub(began),
            inner_eval: self.clock.monotonic().saturating_sub(prepared).saturating_sub(sort),
            sort,
        };
        let is_sorted = matches!(evaluated.value, QueryValue::Matrix(_));
        self.metrics.times.evaluated(timings.prepare, timings.inner_eval, is_sorted.then_some(sort));
        Ok((evaluated, timings))
    }

    /// Runs `job` on the pool when it has a turn. Rules take no turns: their lane is bounded by the number of groups. Nor do
    /// quick queries: their lane has one thread of its own, and they hold it for little time.
    async fn admit<T: Send + 'static>(
        self: Arc<Self>,
        lane: Lane,
        deadline: Instant,
        job: impl FnOnce(&Self, QueryContext, Duration) -> Result<T, QueryFailure> + Send + 'static,
    ) -> Result<T, QueryFailure> {
        let arrived = Instant::now();
        let turn = match lane {
            Lane::Queries => {
                let turn = timeout_at(deadline, Arc::clone(&self.turns).acquire_owned()).await;
                Some(turn.map_err(|_| QueryFailure::QueueTimeout)?)
            }
            Lane::Rules | Lane::Storage | Lane::Quick => None,
        };
        let began = Instant::now();
        let queued = began.duration_since(arrived);
        let cancelled = Arc::new(AtomicBool::new(false));
        let _cancel = CancelOnDrop(Arc::clone(&cancelled));
        let deps = Arc::clone(&self);
        let left = deadline.saturating_duration_since(began);
        // The pool's own deadline is a little later: the evaluation gives the better error.
        let ran = self.pool.run(lane, deadline + Duration::from_secs(5), move |_| {
            let _turn = turn;
            let ctx = QueryContext {
                deadline: Some(deps.clock.monotonic() + left.saturating_sub(began.elapsed())),
                cancelled,
                ledger: QueryLedger::open(&deps.memory, deps.limits.query_bytes_max),
                clock: Arc::clone(&deps.clock),
                text: String::new(),
            };
            job(&deps, ctx, queued)
        });
        ran.await.map_err(|error| match error {
            PoolError::Deadline => QueryFailure::Eval(EvalError::Timeout(Phase::Evaluation)),
            PoolError::Panicked { text } => QueryFailure::Panicked(text),
            error @ (PoolError::Full { .. } | PoolError::Closed) => QueryFailure::Overloaded(error.to_string()),
        })?
    }

    async fn query(self: Arc<Self>, query: RunQuery, deadline: Instant) -> Result<QueryOutcome, QueryFailure> {
        let (lane, query) = (query.lane, Arc::new(query));
        if let Some(done) = self.query_quickly(&query, deadline).await {
            return done.map(|(evaluated, timings)| QueryOutcome { evaluated, timings });
        }
        let evaluate = move |deps: &Self, mut ctx: QueryContext, queue: Duration, source: &Source| {
            let _active = deps.active.get().and_then(|active| active.enter(&query.text));
            ctx.text.clone_from(&query.text);
            deps.metrics.times.queued(queue);
            deps.evaluate(&query, &ctx, queue, source)
        };
        let ((mut evaluated, timings), warnings) = Arc::clone(&self).admit_reading(lane, deadline, evaluate).await?;
        evaluated.annotations.warnings.extend(warnings);
        Ok(QueryOutcome { evaluated, timings })
    }

    async fn rule<T: Send + 'static>(self: Arc<Self>, rule: RunRule<T>, deadline: Instant) -> Result<T, QueryFailure> {
        let RunRule { job, origin } = rule;
        let run = move |deps: &Self, ctx: QueryContext, _| {
            let source = deps.source_of_rules(deadline, &ctx);
            let queries = JobQueries { deps, ctx, origin, source };
            let done = job(&queries);
            deps.tell_warnings(&queries.source);
            Ok(done)
        };
        self.admit(Lane::Rules, deadline, run).await
    }

    async fn list(self: Arc<Self>, request: RunListing, deadline: Instant) -> Result<FoundListing, QueryFailure> {
        let list = move |_: &Self, ctx: QueryContext, _, source: &Source| {
            let budget = ListingBudget::open(ctx, Helpers::WhereWorthIt)?;
            let view = source.view()?;
            let listed = list(&request, &*view, &budget)?;
            let mut warnings = view.warnings();
            if !matches!(request.listing, Listing::Series) {
                warnings.extend(source.of_labels(request.range));
            }
            Ok(FoundListing { listed, warnings, held: budget.held.into_inner() })
        };
        let (mut found, warnings) = self.admit_reading(Lane::Queries, deadline, list).await?;
        found.warnings.extend(warnings);
        Ok(found)
    }
}

/// Queries of a rule's job, on the pool's thread. They share the job's deadline and its account.
struct JobQueries<'a> {
    deps: &'a GatewayDeps,
    ctx: QueryContext,
    origin: QueryOrigin,
    source: Source,
}

impl RuleQueries for JobQueries<'_> {
    fn instant(&self, expr: &str, at: TimestampMs) -> Result<Queried, QueryError> {
        let (text, span) = (expr.to_owned(), QuerySpan::Instant { at });
        let (timeout, lookback_ms, lane) = (None, None, Lane::Rules);
        let origin = self.origin.clone();
        let query = RunQuery { text, span, timeout, lookback_ms, lane, counts_steps: false, origin };
        let _active = self.deps.active.get().and_then(|active| active.enter(&query.text));
        let ctx = QueryContext { text: query.text.clone(), ..self.ctx.clone() };
        let (Evaluated { value, held, .. }, _) = self.deps.evaluate(&query, &ctx, Duration::ZERO, &self.source)?;
        Ok(Queried { value, held })
    }

    fn newest(&self, matchers: &[Matcher], range: TimeRange) -> Result<Vec<(Labels, Sample)>, QueryError> {
        let read = || {
            let budget = ListingBudget::open(self.ctx.clone(), Helpers::Never)?;
            let mut newest = Vec::new();
            let mut column = FloatColumn::default();
            for series in self.source.view()?.select(matchers, range, &budget)? {
                budget.check()?;
                column.clear();
                series.samples.decode(range, &mut column)?;
                let last = column.timestamps.last().zip(column.values.last());
                let sample = last.map(|(at, value)| Sample { at: TimestampMs(*at), value: *value });
                newest.extend(sample.map(|sample| (series.labels, sample)));
            }
            Ok(newest)
        };
        read().map_err(|error: ReadError| QueryFailure::from(error).into())
    }
}

impl From<QueryFailure> for QueryError {
    fn from(failure: QueryFailure) -> Self {
        let canceled = matches!(failure, QueryFailure::Eval(EvalError::Canceled(_)));
        Self { text: failure.to_string(), canceled }
    }
}

fn parse_failure(failure: ParseFailure) -> QueryFailure {
    match failure {
        ParseFailure::Syntax(errors) => QueryFailure::Parse(errors.to_string()),
        ParseFailure::Budget(error) => QueryFailure::Eval(error),
    }
}

struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The actor.
pub struct QueryGateway {
    deps: Arc<GatewayDeps>,
}

impl QueryGateway {
    /// A gateway over the storage in `deps`.
    pub fn new(deps: Arc<GatewayDeps>) -> Self {
        Self { deps }
    }

    fn deadline(&self, timeout: Option<Duration>) -> Instant {
        Instant::now() + timeout.unwrap_or(self.deps.limits.timeout).min(self.deps.limits.timeout)
    }
}

impl Actor for QueryGateway {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        self.deps.metrics.running.set(0.0);
        if let Ok(runtime) = Handle::try_current() {
            let _ = self.deps.runtime.set(runtime);
        }
    }
}

impl Supervised for QueryGateway {}

impl SupervisedActor for QueryGateway {
    const KIND: &'static Kind = &QUERY_GATEWAY;
}

impl Handler<Control<Drain>> for QueryGateway {
    type Result = ();

    fn handle(&mut self, _: Control<Drain>, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}

/// Ends the work when nobody waits for it any more.
async fn while_wanted<T>(asker: Asker, work: impl Future<Output = Result<T, QueryFailure>>) -> Result<T, QueryFailure> {
    tokio::select! {
        biased;
        done = work => done,
        () = asker.gone() => Err(EvalError::Canceled(Phase::Execution).into()),
    }
}

impl Handler<Admitted<RunQuery>> for QueryGateway {
    type Result = ResponseActFuture<Self, Result<QueryOutcome, QueryFailure>>;

    fn handle(&mut self, query: Admitted<RunQuery>, _: &mut Context<Self>) -> Self::Result {
        let asker = query.asker();
        let (query, slot) = query.into_parts();
        let deadline = self.deadline(query.timeout);
        self.deps.metrics.running.add(1.0);
        let place = self.deps.running.enter(&query, &self.deps.clock);
        let query = while_wanted(asker, Arc::clone(&self.deps).query(query, deadline));
        let work = async move {
            tokio::select! {
                biased;
                done = query => done,
                () = place.ended() => Err(EvalError::Canceled(Phase::Execution).into()),
            }
        };
        Box::pin(work.boxed_local().into_actor(self).map(move |done, actor: &mut Self, _| {
            drop(slot);
            actor.deps.metrics.running.add(-1.0);
            done
        }))
    }
}

impl<T: Send + 'static> Handler<Admitted<RunRule<T>>> for QueryGateway {
    type Result = ResponseActFuture<Self, Result<T, QueryFailure>>;

    fn handle(&mut self, rule: Admitted<RunRule<T>>, _: &mut Context<Self>) -> Self::Result {
        let asker = rule.asker();
        let (rule, slot) = rule.into_parts();
        let deadline = self.deadline(None);
        self.deps.metrics.running.add(1.0);
        let work = while_wanted(asker, Arc::clone(&self.deps).rule(rule, deadline));
        Box::pin(work.boxed_local().into_actor(self).map(move |done, actor: &mut Self, _| {
            drop(slot);
            actor.deps.metrics.running.add(-1.0);
            done
        }))
    }
}

impl Handler<Admitted<RunListing>> for QueryGateway {
    type Result = ResponseActFuture<Self, Result<FoundListing, QueryFailure>>;

    fn handle(&mut self, request: Admitted<RunListing>, _: &mut Context<Self>) -> Self::Result {
        let asker = request.asker();
        let (request, slot) = request.into_parts();
        let deadline = self.deadline(None);
        let work = while_wanted(asker, Arc::clone(&self.deps).list(request, deadline));
        Box::pin(work.boxed_local().into_actor(self).map(move |done, _, _| {
            drop(slot);
            done
        }))
    }
}
