//! From syntax tree to plan: a tree in which nothing is left open.
//!
//! `@ start()`, duration expressions, `start()`, `step()` and their like become numbers; parentheses disappear; functions
//! become kernels with their strings taken out; what has the same value at every step is marked, so that it is
//! evaluated once. The rules for the last, odd ones included, are those of Prometheus's `PreprocessExpr`. The caller has
//! seen to it that the stack is deep enough for the expression.

mod call;
mod data_times;
mod duration;
mod node;
mod sharing;
mod step_invariant;

use std::cell::Cell;

use crate::promql::ast::{
    AggregateExpr, AggregateOp, AtModifier, BinaryExpr, BinaryOp, Cardinality, Expr, MatrixSelector, PosRange,
    RangeExtension, Sign, SubqueryExpr, VectorSelector,
};
use crate::promql::eval::{EngineOptions, EvalError, is_metadata};
use crate::promql::signatures::ValueType;

use crate::promql::plan::data_times::DataTimes;

pub(crate) use crate::promql::plan::call::depends_on_time;
pub(crate) use crate::promql::plan::node::{
    Aggregate, Call, Fold, Grouping, Info, Matching, Node, Operation, RangeCall, RangeSelector, RangeSource,
    SampleTime, ScalarOp, SelectK, Selector, SetOp, SetOperation, Share, Subquery, VectorScalar, Vectors, WhichK,
};
pub(crate) use crate::promql::plan::sharing::{Read, Sharing};
use crate::promql::plan::step_invariant::Invariance;

/// The times of the query that an expression may refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueryTimes {
    /// First evaluation time.
    pub(crate) start_ms: i64,
    /// Last evaluation time.
    pub(crate) end_ms: i64,
    /// Distance of the evaluation times; 0 for an instant query.
    pub(crate) step_ms: i64,
}

/// Errors with what the API says about a range query for something that has no value at a time.
pub(crate) fn check_range_query(expr: &Expr) -> Result<(), EvalError> {
    match expr.value_type() {
        ValueType::Vector | ValueType::Scalar => Ok(()),
        other => Err(EvalError::BadQuery(format!(
            "invalid expression type \"{}\" for range query, must be Scalar or instant Vector",
            other.documented()
        ))),
    }
}

/// A planned expression.
#[derive(Debug)]
pub(crate) struct Plan {
    /// What is evaluated.
    pub(crate) root: Node,
    /// What of it need not be done twice.
    pub(crate) sharing: Sharing,
}

/// Plans a checked expression. Errors are those of duration expressions and of strings that a function refuses.
pub(crate) fn plan(expr: &Expr, times: QueryTimes, opts: &EngineOptions) -> Result<Plan, EvalError> {
    let planner = Planner { times, opts, selectors: Cell::new(0) };
    let context = Context { place: Place::Usual, data: DataTimes::of_query(times), parts: HistogramParts::Open };
    let (node, invariance) = planner.lower(expr, context)?;
    let mut root = invariance.wrap(node);
    let is_instant = times.start_ms == times.end_ms;
    let sharing = match planner.selectors.get() {
        0 | 1 => Sharing::default(),
        _ => Sharing::of(&mut root, is_instant, opts.shortcuts),
    };
    Ok(Plan { root, sharing })
}

struct Planner<'a> {
    times: QueryTimes,
    opts: &'a EngineOptions,
    /// Selectors so far.
    selectors: Cell<usize>,
}

/// Where an expression stands.
#[derive(Clone, Copy)]
struct Context {
    place: Place,
    data: DataTimes,
    parts: HistogramParts,
}

/// What the expression around needs of histograms (Prometheus's `detectHistogramStatsDecoding`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HistogramParts {
    /// Nothing has been said.
    Open,
    /// Count and sum.
    Totals,
    /// The buckets as well, whatever is said further inside.
    All,
}

impl HistogramParts {
    /// Inside of a call.
    fn inside_call(self, function: &str) -> Self {
        match function {
            "histogram_quantile" | "histogram_quantiles" | "histogram_fraction" => Self::All,
            "histogram_count" | "histogram_sum" | "histogram_avg" if self == Self::Open => Self::Totals,
            _ => self,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Almost everywhere.
    Usual,
    /// In the parameter of an aggregation, which Prometheus's preprocessing leaves alone: `@ start()` is not resolved
    /// there, and nothing is marked as equal at every step.
    AggregationParameter,
}

type Lowered = Result<(Node, Invariance), EvalError>;

impl Planner<'_> {
    fn lower(&self, expr: &Expr, context: Context) -> Lowered {
        let (node, invariance) = self.lower_kind(expr, context)?;
        Ok((node, if context.place == Place::Usual { invariance } else { Invariance::NONE }))
    }

    fn lower_kind(&self, expr: &Expr, context: Context) -> Lowered {
        let range = expr.range();
        match expr {
            Expr::Paren(paren) => self.lower(&paren.expr, context),
            Expr::Number(number) => Ok((node(Operation::Number(number.value), range), Invariance::OF_LITERAL)),
            Expr::Text(text) => {
                let operation = Operation::Text(text.to_display_string());
                Ok((node(operation, range), Invariance::OF_LITERAL))
            }
            Expr::Vector(selector) => {
                let is_smoothed = selector.extension == Some(RangeExtension::Smoothed);
                let ahead_ms = if is_smoothed { self.opts.lookback_ms } else { 0 };
                let selector = self.selector(selector, (self.opts.lookback_ms, ahead_ms), context)?;
                let invariance = Invariance::of_selector(&selector);
                let operation = if is_smoothed { Operation::Smoothed(selector) } else { Operation::Select(selector) };
                Ok((node(operation, range), invariance))
            }
            Expr::Matrix(matrix) => {
                let selector = self.range_selector(matrix, context)?;
                let invariance = Invariance::of_range(selector.selector.pinned_ms.is_some());
                Ok((node(Operation::SelectRange(selector), range), invariance))
            }
            Expr::Subquery(subquery) => {
                let subquery = self.subquery(subquery, context)?;
                let invariance = Invariance::of_range(subquery.pinned_ms.is_some());
                Ok((node(Operation::Subquery(Box::new(subquery)), range), invariance))
            }
            Expr::Unary(unary) => {
                let (inner, invariance) = self.lower(&unary.expr, context)?;
                let operation = match unary.op {
                    Sign::Plus => Operation::Same(Box::new(inner)),
                    Sign::Minus => Operation::Negate(Box::new(inner)),
                };
                Ok((node(operation, range), invariance))
            }
            Expr::Binary(binary) => self.binary(binary, context),
            Expr::Aggregate(aggregate) => self.aggregate(aggregate, context),
            Expr::Call(call) => self.call(call, context),
        }
    }

    /// A selector that looks back and ahead so far from each evaluation time.
    fn selector(
        &self,
        selector: &VectorSelector,
        window_ms: (i64, i64),
        context: Context,
    ) -> Result<Selector, EvalError> {
        let offset_ms = duration::offset(&selector.offset, self.times)?;
        let pinned_ms = self.pinned(selector.at, context);
        let data_ms = context.data.of_selector(pinned_ms, window_ms, offset_ms);
        let totals_only = context.parts == HistogramParts::Totals;
        let matchers = selector.matchers.clone();
        self.selectors.set(self.selectors.get() + 1);
        Ok(Selector { matchers, offset_ms, pinned_ms, data_ms, totals_only, reader: None })
    }

    fn pinned(&self, at: Option<AtModifier>, context: Context) -> Option<i64> {
        match at {
            None => None,
            Some(AtModifier::Timestamp(at_ms)) => Some(at_ms),
            Some(AtModifier::Start) => (context.place == Place::Usual).then_some(self.times.start_ms),
            Some(AtModifier::End) => (context.place == Place::Usual).then_some(self.times.end_ms),
        }
    }

    fn range_selector(&self, matrix: &MatrixSelector, context: Context) -> Result<RangeSelector, EvalError> {
        let range_ms = duration::window(&matrix.window, self.times)?;
        let extension = matrix.selector.extension;
        let lookback_ms = self.opts.lookback_ms;
        let window_ms = match extension {
            None => (range_ms, 0),
            Some(RangeExtension::Anchored) => (range_ms.saturating_add(lookback_ms), 0),
            Some(RangeExtension::Smoothed) => (range_ms.saturating_add(lookback_ms), lookback_ms),
        };
        Ok(RangeSelector { range_ms, selector: self.selector(&matrix.selector, window_ms, context)?, extension })
    }

    fn subquery(&self, subquery: &SubqueryExpr, context: Context) -> Result<Subquery, EvalError> {
        let offset_ms = duration::offset(&subquery.offset, self.times)?;
        let step_ms = match &subquery.step {
            Some(step) if !step.is_zero() => duration::window(step, self.times)?,
            _ => self.opts.default_subquery_step_ms,
        };
        let range_ms = duration::window(&subquery.window, self.times)?;
        let pinned_ms = self.pinned(subquery.at, context);
        let data = context.data.inside_subquery(pinned_ms, range_ms, offset_ms);
        let (inner, invariance) =
            self.lower(&subquery.expr, Context { data, parts: HistogramParts::All, ..context })?;
        // What does not change from step to step is evaluated once, at the first step of the subquery.
        let inner = if invariance.is_invariant { inner.into_step_invariant() } else { inner };
        Ok(Subquery { inner, range_ms, step_ms, offset_ms, pinned_ms })
    }

    fn binary(&self, binary: &BinaryExpr, mut context: Context) -> Lowered {
        if matches!(binary.op, BinaryOp::TrimUpper | BinaryOp::TrimLower) {
            context.parts = HistogramParts::All;
        }
        let (lhs, left) = self.lower(&binary.lhs, context)?;
        let (rhs, right) = self.lower(&binary.rhs, context)?;
        let (lhs, rhs, invariance) = if left.is_invariant && right.is_invariant {
            (lhs, rhs, Invariance::OF_OPERATION)
        } else {
            (left.wrap(lhs), right.wrap(rhs), Invariance::NONE)
        };
        let sides = Box::new((lhs, rhs));
        let range = binary.range;
        let operation = match (binary.lhs.value_type(), binary.rhs.value_type()) {
            (ValueType::Scalar, ValueType::Scalar) => {
                Operation::Scalars(ScalarOp { op: scalar_op(binary, range)?, sides })
            }
            (ValueType::Vector, ValueType::Vector) => {
                return vectors(binary, sides).map(|op| (node(op, range), invariance));
            }
            (left_type, _) => Operation::VectorScalar(VectorScalar {
                op: scalar_op(binary, range)?,
                sides,
                scalar_is_left: left_type == ValueType::Scalar,
                return_bool: binary.return_bool,
            }),
        };
        Ok((node(operation, range), invariance))
    }

    fn aggregate(&self, aggregate: &AggregateExpr, context: Context) -> Lowered {
        let (inner, invariance) = self.lower(aggregate.expr.unwrap_parens(), context)?;
        let mut labels = aggregate.grouping.clone();
        labels.sort_unstable();
        labels.dedup();
        let grouping = Grouping { labels, without: aggregate.without };
        let param = |context| match &aggregate.param {
            Some(param) => Ok(self.lower(param.unwrap_parens(), context)?.0),
            None => Err(EvalError::Execution("aggregation without its parameter".to_owned())),
        };
        let fold = |fold, inner, param| {
            Operation::Aggregate(Box::new(Aggregate { fold, inner, param, grouping: grouping.clone() }))
        };
        let select =
            |which, inner, k| Operation::SelectK(Box::new(SelectK { which, inner, k, grouping: grouping.clone() }));
        let in_param = Context { place: Place::AggregationParameter, ..context };
        let mut operation = match aggregate.op {
            AggregateOp::Sum => fold(Fold::Sum, inner, None),
            AggregateOp::Avg => fold(Fold::Avg, inner, None),
            AggregateOp::Count => fold(Fold::Count, inner, None),
            AggregateOp::Min => fold(Fold::Min, inner, None),
            AggregateOp::Max => fold(Fold::Max, inner, None),
            AggregateOp::Group => fold(Fold::Group, inner, None),
            AggregateOp::Stddev => fold(Fold::Stddev, inner, None),
            AggregateOp::Stdvar => fold(Fold::Stdvar, inner, None),
            AggregateOp::Quantile => fold(Fold::Quantile, inner, Some(param(in_param)?)),
            AggregateOp::CountValues => call::or_fail(self.count_values(aggregate, inner, grouping.clone()))?,
            AggregateOp::Topk => select(WhichK::Top, inner, param(in_param)?),
            AggregateOp::Bottomk => select(WhichK::Bottom, inner, param(in_param)?),
            AggregateOp::Limitk => select(WhichK::Any, inner, param(in_param)?),
            AggregateOp::LimitRatio => select(WhichK::Ratio, inner, param(in_param)?),
        };
        if let Operation::Aggregate(aggregate) = &mut operation
            && let Operation::RangeCall(call) = &mut aggregate.inner.operation
        {
            let Grouping { labels, without } = &aggregate.grouping;
            call.names_go_late = !without && !labels.iter().any(|name| is_metadata(name.as_bytes()));
        }
        Ok((node(operation, aggregate.range), invariance))
    }

    fn count_values(
        &self,
        aggregate: &AggregateExpr,
        inner: Node,
        mut grouping: Grouping,
    ) -> Result<Operation, EvalError> {
        let literal = match aggregate.param.as_ref().map(Expr::unwrap_parens) {
            Some(Expr::Text(text)) => text,
            _ => return Err(EvalError::Execution("count_values needs a string as its parameter".to_owned())),
        };
        let Some(label) = literal.as_str().filter(|label| !label.is_empty()) else {
            let quoted = crate::model::go::quote_bytes(&literal.value);
            return Err(EvalError::Execution(format!("invalid label name {quoted}")));
        };
        if !grouping.without && !grouping.labels.iter().any(|l| l == label) {
            grouping.labels.push(label.to_owned());
            grouping.labels.sort_unstable();
        }
        let fold = Fold::CountValues { label: label.to_owned() };
        Ok(Operation::Aggregate(Box::new(Aggregate { fold, inner, param: None, grouping })))
    }
}

fn node(operation: Operation, range: PosRange) -> Node {
    Node::new(operation, range)
}

fn scalar_op(binary: &BinaryExpr, range: PosRange) -> Result<crate::promql::functions::ElementOp, EvalError> {
    crate::promql::functions::ElementOp::of(binary.op).ok_or_else(|| {
        let PosRange { start, end } = range;
        EvalError::BadQuery(format!("operator \"{}\" at {start}..{end} does not combine elements", binary.op))
    })
}

fn vectors(binary: &BinaryExpr, sides: Box<(Node, Node)>) -> Result<Operation, EvalError> {
    let Some(matching) = &binary.matching else {
        return Err(EvalError::Execution("binary operation on vectors without matching".to_owned()));
    };
    let mut labels = matching.labels.clone();
    labels.sort_unstable();
    labels.dedup();
    let rule = Matching {
        on: matching.on,
        labels,
        include: matching.include.clone(),
        is_one_to_one: matching.card == Cardinality::OneToOne,
        one_side_is_left: matching.card == Cardinality::OneToMany,
        fill: matching.fill,
    };
    if let Some(op) = SetOp::of(binary.op) {
        return Ok(Operation::Set(SetOperation { op, sides, matching: rule }));
    }
    let op = scalar_op(binary, binary.range)?;
    Ok(Operation::Vectors(Box::new(Vectors { op, sides: *sides, matching: rule, return_bool: binary.return_bool })))
}
