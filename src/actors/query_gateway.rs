//! Admission of queries. Owns how many run at a time, the memory that all of them share, and the lanes of the compute
//! pool that they run on. Started by the root. Bound: its slots are the queries that run or wait. Failure: the queries
//! under way end as `Restarted`, and askers try once more, as they only read. Shutdown: `Drain` ends
//! those under way, as their clients are about to be cut off.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use actix::prelude::{Actor, ActorContext, Handler, Message, ResponseActFuture, Supervised};
use actix::{ActorFutureExt, WrapFuture};
use futures::future::FutureExt;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::actors::context::Context;
use crate::actors::control::{Control, Drain};
use crate::actors::kind::{Kind, Rank};
use crate::actors::mailbox::{Admitted, Asker};
use crate::actors::pool::{ComputePool, Lane, PoolError};
use crate::actors::query_metrics::QueryTimes;
use crate::actors::supervision::SupervisedActor;
use crate::model::clock::SharedClock;
use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::read::{FloatColumn, Queryable, ReadBudget, ReadError, ReadView};
use crate::model::sample::Sample;
use crate::model::time::{TimeRange, TimestampMs};
use crate::promql::eval::{
    Charge, EngineOptions, EvalError, Evaluated, MemoryPool, Phase, QueryContext, QueryLedger, evaluate_instant,
    evaluate_range,
};
use crate::promql::parser::{ParseOptions, parse_expr};
use crate::rules::query::{Queried, QueryError, RuleQueries};
use crate::telemetry::metrics::{Counter, Gauge, MetricFamily, MetricKind, Registry};

/// The kind. Further queries than have slots are refused.
pub static QUERY_GATEWAY: Kind = Kind { name: "query_gateway", rank: Rank::GATEWAY, slots: 1024 };

/// When a query is evaluated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum QuerySpan {
    /// Once.
    Instant {
        /// When.
        at: TimestampMs,
    },
    /// At `start`, `start + step_ms`, … up to `end`.
    Range {
        /// First evaluation.
        start: TimestampMs,
        /// No evaluation later than this.
        end: TimestampMs,
        /// Milliseconds between two evaluations, more than 0.
        step_ms: i64,
    },
}

/// Evaluate a query.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<QueryOutcome, QueryFailure>")]
pub struct RunQuery {
    /// PromQL as written.
    pub text: String,
    /// When.
    pub span: QuerySpan,
    /// Shorter than the server's own timeout, which holds as well.
    pub timeout: Option<Duration>,
    /// Instead of the server's lookback.
    pub lookback_ms: Option<i64>,
    /// Who asks: users and rules do not wait for each other.
    pub lane: Lane,
}

/// What to list.
#[derive(Clone, Debug)]
pub enum Listing {
    /// Label sets of series; each list of matchers selects some.
    Series,
    /// Names of labels.
    LabelNames,
    /// Values of this label.
    LabelValues(String),
}

/// List series, label names or label values.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Listed, QueryFailure>")]
pub struct RunListing {
    /// What.
    pub listing: Listing,
    /// A series counts when it fulfils all matchers of any of these; none: all series.
    pub selectors: Vec<Vec<Matcher>>,
    /// Of series that may have samples here.
    pub range: TimeRange,
    /// Results wanted at most; 0 for all.
    pub limit: usize,
}

/// An answer to [`RunListing`], sorted and without repetitions.
#[derive(Debug)]
pub enum Listed {
    /// Label sets.
    Series(Vec<Labels>),
    /// Names or values.
    Names(Vec<String>),
}

/// Run a rule's job on the lane of the rules: its queries are evaluated within the limits of one query. The job may run
/// twice, as its queries only read.
#[derive(Message)]
#[rtype(result = "Result<T, QueryFailure>")]
pub struct RunRule<T: Send + 'static> {
    job: Arc<RuleJob<T>>,
}

type RuleJob<T> = dyn Fn(&dyn RuleQueries) -> T + Send + Sync;

impl<T: Send + 'static> RunRule<T> {
    /// Runs this.
    pub fn new(job: impl Fn(&dyn RuleQueries) -> T + Send + Sync + 'static) -> Self {
        Self { job: Arc::new(job) }
    }
}

impl<T: Send + 'static> Clone for RunRule<T> {
    fn clone(&self) -> Self {
        Self { job: Arc::clone(&self.job) }
    }
}

/// An evaluated query and what it took.
#[derive(Debug)]
pub struct QueryOutcome {
    /// Value, remarks, figures; its memory stays charged until it is dropped.
    pub evaluated: Evaluated,
    /// Time spent waiting for a turn.
    pub queued: Duration,
    /// Time from its turn to its result.
    pub ran: Duration,
}

/// Why a query has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryFailure {
    /// It does not parse; text and position are Prometheus's.
    #[error("{0}")]
    Parse(String),
    /// The evaluation ended early.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// Storage could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It had no turn before its deadline.
    #[error("query timed out in query queue")]
    QueueTimeout,
    /// Too many wait already.
    #[error("too many queries are waiting: {0}")]
    Overloaded(String),
    /// A panic in the evaluation; a bug of ours.
    #[error("unexpected error: {0}")]
    Panicked(String),
}

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
}

struct GatewayMetrics {
    running: Gauge,
    samples: Counter,
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
        let times = QueryTimes::new(registry, &clock);
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
            metrics: GatewayMetrics { running, samples, times },
        })
    }

    /// Sets the step of subqueries that name none: the global evaluation interval.
    pub fn set_subquery_step(&self, step_ms: i64) {
        self.subquery_step_ms.store(step_ms, Ordering::Relaxed);
    }

    /// Evaluates on the calling thread, one of the pool's.
    fn evaluate(&self, query: &RunQuery, ctx: &QueryContext) -> Result<Evaluated, QueryFailure> {
        let began = self.clock.monotonic();
        let expr = parse_expr(&query.text, &self.parser).map_err(|error| QueryFailure::Parse(error.to_string()))?;
        let view = self.queryable.view()?;
        let prepared = self.clock.monotonic();
        let mut engine = self.engine.clone();
        engine.default_subquery_step_ms = self.subquery_step_ms.load(Ordering::Relaxed);
        engine.lookback_ms = query.lookback_ms.unwrap_or(engine.lookback_ms);
        let evaluated = match query.span {
            QuerySpan::Instant { at } => evaluate_instant(&expr, &*view, at, &engine, ctx)?,
            QuerySpan::Range { start, end, step_ms } => {
                evaluate_range(&expr, &*view, start, end, step_ms, &engine, ctx)?
            }
        };
        self.metrics.samples.add(evaluated.stats.total_samples);
        let took = self.clock.monotonic().saturating_sub(prepared);
        self.metrics.times.evaluated(prepared.saturating_sub(began), took);
        Ok(evaluated)
    }

    /// Runs `job` on the pool when it has a turn. Rules take no turns: their lane is bounded by the number of groups.
    async fn admit<T: Send + 'static>(
        self: Arc<Self>,
        lane: Lane,
        deadline: Instant,
        job: impl FnOnce(&Self, QueryContext) -> Result<T, QueryFailure> + Send + 'static,
    ) -> Result<(T, Duration, Duration), QueryFailure> {
        let arrived = Instant::now();
        let turn = match lane {
            Lane::Queries => {
                let turn = timeout_at(deadline, Arc::clone(&self.turns).acquire_owned()).await;
                Some(turn.map_err(|_| QueryFailure::QueueTimeout)?)
            }
            Lane::Rules | Lane::Storage => None,
        };
        let began = Instant::now();
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
            job(&deps, ctx)
        });
        let value = ran.await.map_err(|error| match error {
            PoolError::Deadline => QueryFailure::Eval(EvalError::Timeout(Phase::Evaluation)),
            PoolError::Panicked { text } => QueryFailure::Panicked(text),
            error @ (PoolError::Full { .. } | PoolError::Closed) => QueryFailure::Overloaded(error.to_string()),
        })??;
        Ok((value, began.duration_since(arrived), began.elapsed()))
    }

    async fn query(self: Arc<Self>, query: RunQuery, deadline: Instant) -> Result<QueryOutcome, QueryFailure> {
        let lane = query.lane;
        let evaluate = move |deps: &Self, mut ctx: QueryContext| {
            ctx.text.clone_from(&query.text);
            deps.evaluate(&query, &ctx)
        };
        let (evaluated, queued, ran) = Arc::clone(&self).admit(lane, deadline, evaluate).await?;
        self.metrics.times.queued(queued);
        Ok(QueryOutcome { evaluated, queued, ran })
    }

    async fn rule<T: Send + 'static>(self: Arc<Self>, rule: RunRule<T>, deadline: Instant) -> Result<T, QueryFailure> {
        let run = move |deps: &Self, ctx: QueryContext| Ok((rule.job)(&JobQueries { deps, ctx }));
        self.admit(Lane::Rules, deadline, run).await.map(|(value, _, _)| value)
    }

    async fn list(self: Arc<Self>, request: RunListing, deadline: Instant) -> Result<Listed, QueryFailure> {
        let list = move |deps: &Self, ctx: QueryContext| {
            let budget = ListingBudget { held: Mutex::new(ctx.ledger.charge(0).map_err(over)?), ctx };
            let view = deps.queryable.view()?;
            Ok(list(&request, &*view, &budget)?)
        };
        self.admit(Lane::Queries, deadline, list).await.map(|(listed, _, _)| listed)
    }
}

/// Queries of a rule's job, on the pool's thread. They share the job's deadline and its account.
struct JobQueries<'a> {
    deps: &'a GatewayDeps,
    ctx: QueryContext,
}

impl RuleQueries for JobQueries<'_> {
    fn instant(&self, expr: &str, at: TimestampMs) -> Result<Queried, QueryError> {
        let (text, span) = (expr.to_owned(), QuerySpan::Instant { at });
        let query = RunQuery { text, span, timeout: None, lookback_ms: None, lane: Lane::Rules };
        let ctx = QueryContext { text: query.text.clone(), ..self.ctx.clone() };
        let Evaluated { value, held, .. } = self.deps.evaluate(&query, &ctx)?;
        Ok(Queried { value, held })
    }

    fn newest(&self, matchers: &[Matcher], range: TimeRange) -> Result<Vec<(Labels, Sample)>, QueryError> {
        let read = || {
            let budget =
                ListingBudget { held: Mutex::new(self.ctx.ledger.charge(0).map_err(over)?), ctx: self.ctx.clone() };
            let mut newest = Vec::new();
            let mut column = FloatColumn::default();
            for series in self.deps.queryable.view()?.select(matchers, range, &budget)? {
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

fn over(error: crate::promql::eval::OverBudget) -> ReadError {
    ReadError::Budget(error.to_string())
}

fn list(request: &RunListing, view: &dyn ReadView, budget: &dyn ReadBudget) -> Result<Listed, ReadError> {
    let every = [Vec::new()];
    let selectors = if request.selectors.is_empty() { &every[..] } else { &request.selectors };
    let range = request.range;
    let mut series = Vec::new();
    let mut names = Vec::new();
    for matchers in selectors {
        match &request.listing {
            Listing::Series => {
                series.extend(view.select(matchers, range, budget)?.into_iter().map(|selected| selected.labels));
            }
            Listing::LabelNames => names.extend(view.label_names(matchers, range, budget)?),
            Listing::LabelValues(name) => names.extend(view.label_values(name, matchers, range, budget)?),
        }
    }
    let cut = if request.limit == 0 { usize::MAX } else { request.limit };
    series.sort();
    series.dedup();
    series.truncate(cut);
    names.sort_unstable();
    names.dedup();
    names.truncate(cut);
    Ok(match request.listing {
        Listing::Series => Listed::Series(series),
        Listing::LabelNames | Listing::LabelValues(_) => Listed::Names(names),
    })
}

/// What a listing may hold, charged to the query's ledger.
struct ListingBudget {
    held: Mutex<Charge>,
    ctx: QueryContext,
}

impl ReadBudget for ListingBudget {
    fn charge(&self, bytes: usize) -> Result<(), ReadError> {
        self.held.lock().grow_ahead(bytes).map_err(over)
    }

    fn check(&self) -> Result<(), ReadError> {
        if self.ctx.cancelled.load(Ordering::Relaxed) {
            return Err(ReadError::Interrupted("query was canceled in query execution".into()));
        }
        match self.ctx.deadline {
            Some(deadline) if deadline <= self.ctx.clock.monotonic() => {
                Err(ReadError::Interrupted("query timed out in query execution".into()))
            }
            _ => Ok(()),
        }
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
        let work = while_wanted(asker, Arc::clone(&self.deps).query(query, deadline));
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
    type Result = ResponseActFuture<Self, Result<Listed, QueryFailure>>;

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
