//! Evaluation of a plan: one operator a file, each with the contract "series in label order, then series one by one".
//!
//! Data flow: `plan` (a tree without open questions) → [`evaluate_instant`] or [`evaluate_range`] → operators hand each
//! other a `Matrix`, one column of values per series → `finish` drops names, sorts, renders the annotations.
//! Everything is synchronous and runs on the caller's thread, meant to be one of the compute pool
//! (`deep` has the exception). Limits on samples,
//! memory, depth and time are counted in `exec`, never by an operator. Answers, annotations, sample counts and limit
//! verdicts are those of Prometheus 3.14, which evaluates step by step; that it is done by columns here is invisible.

mod aggregate;
mod aggregate_k;
mod annotations;
mod binary;
mod call;
mod column;
mod common;
mod deep;
mod error;
mod exec;
mod finish;
mod info;
mod kept;
mod ledger;
mod matching;
mod matrix;
mod parallel;
mod range;
mod samples;
mod scalar;
mod selector;
mod set_operator;
mod steps;
mod subquery;
mod tally;
mod text;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::model::clock::{SharedClock, SystemClock};
use crate::model::give_way::give_way;
use crate::model::read::ReadView;
use crate::model::result::{Annotations, QueryValue};
use crate::model::time::TimestampMs;
use crate::promql::ast::Expr;
use crate::promql::eval::exec::Exec;
use crate::promql::eval::matrix::Matrix;
use crate::promql::eval::steps::Steps;
use crate::promql::eval::tally::Tally;
use crate::promql::parser;
use crate::promql::plan::{self, Node, Operation, Plan, QueryTimes, Sharing};

pub(crate) use crate::promql::eval::exec::is_metadata;
pub(crate) use crate::promql::eval::parallel::each as run_each;

pub use crate::promql::eval::deep::is_shallow;
pub use crate::promql::eval::error::{EvalError, Phase};
pub use crate::promql::eval::ledger::{
    Charge, MemoryPool, OverBudget, QUERY_LIMIT_FLAG, QueryLedger, TOTAL_LIMIT_FLAG,
};
pub use crate::promql::eval::tally::StepCounts;
pub use crate::promql::eval::text::{ParseFailure, ParsedQuery, parse};

/// Settings that hold for all queries of a server, or for one query where it overrides them.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineOptions {
    /// How far an instant selector looks back (`--query.lookback-delta`).
    pub lookback_ms: i64,
    /// Most samples that a query may hold at once (`--query.max-samples`).
    pub max_samples: usize,
    /// Step of a subquery that names none (the global evaluation interval).
    pub default_subquery_step_ms: i64,
    /// Names are dropped when the evaluation ends (`promql-delayed-name-removal`).
    pub delayed_name_removal: bool,
    /// `__type__` decides whether a metric is a counter (`type-and-unit-labels`).
    pub type_and_unit_labels: bool,
    /// Start timestamps of samples count (`use-start-timestamps`).
    pub use_start_timestamps: bool,
    /// Most levels of nesting in an expression; the parser has a bound of its own.
    pub max_depth: usize,
    /// Samples are counted for each step as well.
    pub counts_steps: bool,
    /// How the same answers are found sooner.
    pub shortcuts: Shortcuts,
}

/// Ways to the same answer in less time. All are taken; tests take them one by one, and none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortcuts {
    /// Whether threads work on series beside the query's own.
    pub helpers: Helpers,
    /// Where a series has one value alone, its newest sample alone is decoded.
    pub newest_only: bool,
    /// Names that a grouping drops are not taken off each series before.
    pub late_names: bool,
    /// An aggregation of stored series at one time puts no label sets together but those of its groups.
    pub classes: bool,
    /// Equal parts of an expression are evaluated once.
    pub common_parts: bool,
    /// Series that several selectors look at are looked for once, and decoded once where that spares something.
    pub common_reads: bool,
}

impl Shortcuts {
    /// None of them.
    pub const NONE: Self = Self {
        helpers: Helpers::Never,
        newest_only: false,
        late_names: false,
        classes: false,
        common_parts: false,
        common_reads: false,
    };

    /// All of them, with helpers where that is worth it.
    pub const ALL: Self = Self {
        helpers: Helpers::WhereWorthIt,
        newest_only: true,
        late_names: true,
        classes: true,
        common_parts: true,
        common_reads: true,
    };
}

impl Default for Shortcuts {
    fn default() -> Self {
        Self::ALL
    }
}

/// When threads work on series beside the query's own, if any are free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Helpers {
    /// Never.
    Never,
    /// Where there is enough to do.
    WhereWorthIt,
    /// Wherever there are a few series, which they take one by one.
    Always,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            lookback_ms: 300_000,
            max_samples: 50_000_000,
            default_subquery_step_ms: 60_000,
            delayed_name_removal: false,
            type_and_unit_labels: false,
            use_start_timestamps: false,
            max_depth: parser::DEPTH_MAX,
            counts_steps: false,
            shortcuts: Shortcuts::default(),
        }
    }
}

/// What belongs to one query: how long it may run, what it may hold, whether it is still wanted.
#[derive(Clone)]
pub struct QueryContext {
    /// When the query has to be done, on the clock's monotonic time; `None` for no limit.
    pub deadline: Option<Duration>,
    /// Set by whoever does not want the answer any more.
    pub cancelled: Arc<AtomicBool>,
    /// The query's memory account.
    pub ledger: Arc<QueryLedger>,
    /// The clock of the deadline.
    pub clock: SharedClock,
    /// The query as the user wrote it; annotations count lines and columns in it.
    pub text: String,
}

impl QueryContext {
    /// A context without limits, for tests and tools.
    pub fn unlimited(text: impl Into<String>) -> Self {
        Self {
            deadline: None,
            cancelled: Arc::new(AtomicBool::new(false)),
            ledger: QueryLedger::unlimited(),
            clock: SystemClock::shared(),
            text: text.into(),
        }
    }

    /// Errors if the query is not wanted any more or its time is up; lets others through before.
    pub(crate) fn check(&self, phase: Phase) -> Result<(), EvalError> {
        give_way();
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(EvalError::Canceled(phase));
        }
        match self.deadline {
            Some(deadline) if deadline <= self.clock.monotonic() => Err(EvalError::Timeout(phase)),
            _ => Ok(()),
        }
    }
}

/// Figures about an evaluation, as the API's `stats` shows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EvalStats {
    /// Samples that operators looked at, those of overlapping windows once per window (`totalQueryableSamples`).
    pub total_samples: u64,
    /// Samples that operators looked at, each once (`samplesRead`).
    pub samples_read: u64,
    /// Most samples held at once (`peakSamples`).
    pub peak_samples: usize,
    /// Most bytes held at once.
    pub peak_bytes: usize,
    /// How long the result took to sort.
    pub sorted_in: Duration,
}

/// The answer to a query. What it holds stays charged to the query's ledger until it is dropped.
#[derive(Debug)]
pub struct Evaluated {
    /// The value.
    pub value: QueryValue,
    /// Warnings and infos.
    pub annotations: Annotations,
    /// Figures.
    pub stats: EvalStats,
    /// Samples looked at and read at each step, if the options ask for it.
    pub by_step: Option<StepCounts>,
    /// What the value holds.
    pub held: Charge,
}

/// Evaluates an expression at one time.
pub fn evaluate_instant(
    expr: &Expr,
    view: &dyn ReadView,
    at: TimestampMs,
    opts: &EngineOptions,
    ctx: &QueryContext,
) -> Result<Evaluated, EvalError> {
    let times = QueryTimes { start_ms: at.0, end_ms: at.0, step_ms: 0 };
    deep::with_stack_for(expr, opts, || {
        let (Plan { root, sharing }, _held) = planned(expr, times, opts, ctx)?;
        let mut exec = start(view, opts, ctx, &sharing, Steps::instant(at.0))?;
        let value = finish::instant(&mut exec, &root, expr.value_type(), Steps::instant(at.0))?;
        Ok(finish::wrap(exec, value))
    })
}

/// Evaluates an expression at `start`, `start + step`, … up to `end`. `step_ms` is greater than zero.
pub fn evaluate_range(
    expr: &Expr,
    view: &dyn ReadView,
    start: TimestampMs,
    end: TimestampMs,
    step_ms: i64,
    opts: &EngineOptions,
    ctx: &QueryContext,
) -> Result<Evaluated, EvalError> {
    plan::check_range_query(expr)?;
    if step_ms <= 0 {
        return Err(EvalError::BadQuery("zero or negative query resolution step widths are not accepted".to_owned()));
    }
    let times = QueryTimes { start_ms: start.0, end_ms: end.0, step_ms };
    deep::with_stack_for(expr, opts, || {
        let (Plan { root, sharing }, _held) = planned(expr, times, opts, ctx)?;
        let steps = Steps::new(start.0, end.0, step_ms);
        let mut exec = self::start(view, opts, ctx, &sharing, steps)?;
        let value = finish::range(&mut exec, &root, steps)?;
        Ok(finish::wrap(exec, value))
    })
}

/// The plan, with what its regular expressions hold.
fn planned(
    expr: &Expr,
    times: QueryTimes,
    opts: &EngineOptions,
    ctx: &QueryContext,
) -> Result<(Plan, Charge), EvalError> {
    let held = ctx.ledger.charge(0).map_err(|over| EvalError::Budget(over.to_string()))?;
    let (plan, held) = text::charging_regexps(held, || plan::plan(expr, times, opts));
    Ok((plan?, held))
}

fn start<'a>(
    view: &'a dyn ReadView,
    opts: &'a EngineOptions,
    ctx: &'a QueryContext,
    sharing: &'a Sharing,
    steps: Steps,
) -> Result<Exec<'a>, EvalError> {
    let mut exec = Exec::start(view, opts, ctx, sharing)?;
    if opts.counts_steps {
        exec.samples.tally = Tally::by_step(&exec, steps)?;
    }
    Ok(exec)
}

/// Evaluates one node at all steps. Range vectors and strings are not values of nodes: the operators that take them
/// hold them, and `finish` handles those at the root.
pub(crate) fn eval(exec: &mut Exec<'_>, node: &Node, steps: Steps) -> Result<Matrix, EvalError> {
    exec.check()?;
    if steps.count() == 0 {
        return Matrix::new(exec);
    }
    common::eval(exec, node, steps)
}

/// Evaluates one node, whatever was evaluated before.
fn operation(exec: &mut Exec<'_>, node: &Node, steps: Steps) -> Result<Matrix, EvalError> {
    match &node.operation {
        Operation::Number(value) => scalar::number(exec, *value, steps),
        Operation::Select(selector) => selector::instant(exec, selector, steps),
        Operation::Smoothed(selector) => range::extended::smoothed(exec, selector, node.range, steps),
        Operation::Timestamp(selector, time) => selector::timestamps(exec, selector, *time, steps),
        Operation::Info(info) => info::eval(exec, info, steps),
        Operation::Call(call) => call::eval(exec, call, steps),
        Operation::RangeCall(call) => range::eval(exec, call, steps),
        Operation::Aggregate(aggregate) => aggregate::eval(exec, aggregate, steps),
        Operation::SelectK(aggregate) => aggregate_k::eval(exec, aggregate, node.range, steps),
        Operation::Scalars(binary) => scalar::binary(exec, binary, steps),
        Operation::VectorScalar(binary) => binary::eval(exec, binary, node.range, steps),
        Operation::Vectors(binary) => matching::eval(exec, binary, node.range, steps),
        Operation::Set(binary) => set_operator::eval(exec, binary, steps),
        Operation::Negate(inner) => binary::negate(exec, inner, steps),
        Operation::Same(inner) => eval(exec, inner, steps),
        Operation::Fail(error) => Err(error.clone()),
        Operation::StepInvariant(inner) => scalar::step_invariant(exec, inner, steps),
        Operation::SelectRange(_) | Operation::Subquery(_) | Operation::Text(_) => {
            Err(EvalError::Execution("range vector or string in place of an instant vector".to_owned()))
        }
    }
}
