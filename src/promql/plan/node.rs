//! The nodes of a plan.

use crate::model::matcher::Matcher;
use crate::promql::ast::{BinaryOp, FillValues, PosRange, RangeExtension};
use crate::promql::eval::EvalError;
use crate::promql::functions::{ElementOp, InstantFunction, RangeFunction};

/// One operation with the place of its text.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// What is computed.
    pub(crate) operation: Operation,
    /// Its text in the query; annotations point there.
    pub(crate) range: PosRange,
    /// Which nodes are equal to it.
    pub(crate) share: Share,
}

/// What `plan::sharing` found out about a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Share {
    /// Number of those that are equal and are evaluated at the same times; 0 for those of which nothing is known.
    pub(crate) class: u32,
    /// Equal for nodes whose parts stand in the text at the same distances.
    pub(crate) layout: u32,
}

impl Node {
    /// A node of which nothing more is known.
    pub(crate) fn new(operation: Operation, range: PosRange) -> Self {
        Self { operation, range, share: Share::default() }
    }

    /// This node, evaluated once for all steps.
    pub(crate) fn into_step_invariant(self) -> Self {
        let range = self.range;
        Self::new(Operation::StepInvariant(Box::new(self)), range)
    }
}

/// What a node computes.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    /// A number.
    Number(f64),
    /// A string; only at the root.
    Text(String),
    /// Newest samples of series.
    Select(Selector),
    /// Samples of series in a time range; only at the root.
    SelectRange(RangeSelector),
    /// A subquery; only at the root.
    Subquery(Box<Subquery>),
    /// A smoothed selector: values between samples.
    Smoothed(Selector),
    /// `timestamp(selector)`, `start_timestamp(selector)`: times of the newest samples.
    Timestamp(Selector, SampleTime),
    /// `info(vector, selector)`
    Info(Box<Info>),
    /// A function of instant vectors and scalars.
    Call(Box<Call>),
    /// A function of a range vector.
    RangeCall(Box<RangeCall>),
    /// An aggregation that makes new elements.
    Aggregate(Box<Aggregate>),
    /// An aggregation that picks elements.
    SelectK(Box<SelectK>),
    /// An operation on two scalars.
    Scalars(ScalarOp),
    /// An operation on a vector and a scalar.
    VectorScalar(VectorScalar),
    /// An operation on two vectors.
    Vectors(Box<Vectors>),
    /// A set operation on two vectors.
    Set(SetOperation),
    /// The unary minus.
    Negate(Box<Node>),
    /// The unary plus: the value itself, which keeps its own place in the query.
    Same(Box<Node>),
    /// An operation that can only fail.
    Fail(EvalError),
    /// Something that has the same value at every step.
    StepInvariant(Box<Node>),
}

/// Which series, and when.
#[derive(Clone, Debug)]
pub(crate) struct Selector {
    /// Conditions on the labels.
    pub(crate) matchers: Vec<Matcher>,
    /// How far before the evaluation time; may be negative.
    pub(crate) offset_ms: i64,
    /// The time that `@` names.
    pub(crate) pinned_ms: Option<i64>,
    /// First and last time of samples that the selector gets.
    pub(crate) data_ms: (i64, i64),
    /// True if of histograms only count and sum matter.
    pub(crate) totals_only: bool,
    /// Its place in [`Sharing`](crate::promql::plan::Sharing), if others may look at the same series.
    pub(crate) reader: Option<u32>,
}

impl Selector {
    /// The part of a time range in which the selector gets samples; empty if the first time lies behind the last.
    pub(crate) fn clip(&self, (min_ms, max_ms): (i64, i64)) -> (i64, i64) {
        (min_ms.max(self.data_ms.0), max_ms.min(self.data_ms.1))
    }

    /// Distance from a step to the time that is looked at, in an evaluation that begins at `start_ms`. A pinned selector
    /// looks at its own time at the first step, and is evaluated at no other where that matters.
    pub(crate) fn offset_from(&self, start_ms: i64) -> i64 {
        effective_offset(self.offset_ms, self.pinned_ms, start_ms)
    }
}

fn effective_offset(offset_ms: i64, pinned_ms: Option<i64>, start_ms: i64) -> i64 {
    match pinned_ms {
        Some(at_ms) => offset_ms.saturating_add(start_ms.saturating_sub(at_ms)),
        None => offset_ms,
    }
}

/// Which series, when, and how far back.
#[derive(Clone, Debug)]
pub(crate) struct RangeSelector {
    /// Series and time.
    pub(crate) selector: Selector,
    /// Length of the window.
    pub(crate) range_ms: i64,
    /// Whether it looks beyond its edges.
    pub(crate) extension: Option<RangeExtension>,
}

/// Which time of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SampleTime {
    /// When it was taken.
    Own,
    /// When its counter began.
    Start,
}

/// An enrichment with the labels of info metrics.
#[derive(Clone, Debug)]
pub(crate) struct Info {
    /// What is enriched.
    pub(crate) inner: Node,
    /// Conditions on the labels that are added; those on the name select info metrics. `None` if nothing was said.
    pub(crate) matchers: Option<Vec<Matcher>>,
    /// The time that `@` names for the first selector inside, or for a subquery around it.
    pub(crate) pinned_ms: Option<i64>,
    /// How far before the evaluation time that selector looks.
    pub(crate) offset_ms: i64,
}

/// An expression evaluated at times of its own.
#[derive(Clone, Debug)]
pub(crate) struct Subquery {
    /// What is evaluated.
    pub(crate) inner: Node,
    /// Length of the window.
    pub(crate) range_ms: i64,
    /// Distance of the evaluation times, which are multiples of it.
    pub(crate) step_ms: i64,
    /// How far before the evaluation time; may be negative.
    pub(crate) offset_ms: i64,
    /// The time that `@` names.
    pub(crate) pinned_ms: Option<i64>,
}

impl Subquery {
    /// As [`Selector::offset_from`].
    pub(crate) fn offset_from(&self, start_ms: i64) -> i64 {
        effective_offset(self.offset_ms, self.pinned_ms, start_ms)
    }
}

/// Where the windows of a range function come from.
#[derive(Clone, Debug)]
pub(crate) enum RangeSource {
    /// Stored samples.
    Selector(RangeSelector),
    /// An evaluated expression.
    Subquery(Subquery),
}

/// A call of a function of instant vectors and scalars.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// The function, its strings included.
    pub(crate) function: InstantFunction,
    /// Its other arguments.
    pub(crate) args: Vec<Node>,
    /// Its text.
    pub(crate) range: PosRange,
}

/// A call of a function of a range vector.
#[derive(Clone, Debug)]
pub(crate) struct RangeCall {
    /// The function.
    pub(crate) function: RangeFunction,
    /// Its range vector.
    pub(crate) source: RangeSource,
    /// Place of the range vector's text.
    pub(crate) source_range: PosRange,
    /// Its scalars.
    pub(crate) scalars: Vec<Node>,
    /// True if whoever takes the result looks neither at names nor at the other labels that go with them.
    pub(crate) names_go_late: bool,
}

/// How an aggregation forms its groups.
#[derive(Clone, Debug)]
pub(crate) struct Grouping {
    /// Sorted, without repetitions.
    pub(crate) labels: Vec<String>,
    /// True if the labels are dropped instead of kept.
    pub(crate) without: bool,
}

/// Aggregations that make new elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fold {
    /// `sum`
    Sum,
    /// `avg`
    Avg,
    /// `count`
    Count,
    /// `min`
    Min,
    /// `max`
    Max,
    /// `group`
    Group,
    /// `stddev`
    Stddev,
    /// `stdvar`
    Stdvar,
    /// `quantile`
    Quantile,
    /// `count_values`
    CountValues {
        /// Label that gets the value.
        label: String,
    },
}

/// An aggregation that makes new elements.
#[derive(Clone, Debug)]
pub(crate) struct Aggregate {
    /// What is computed for each group.
    pub(crate) fold: Fold,
    /// What is aggregated.
    pub(crate) inner: Node,
    /// The quantile.
    pub(crate) param: Option<Node>,
    /// The groups.
    pub(crate) grouping: Grouping,
}

/// Which elements an aggregation picks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhichK {
    /// `topk`
    Top,
    /// `bottomk`
    Bottom,
    /// `limitk`
    Any,
    /// `limit_ratio`
    Ratio,
}

/// An aggregation that picks elements.
#[derive(Clone, Debug)]
pub(crate) struct SelectK {
    /// Which elements.
    pub(crate) which: WhichK,
    /// What is picked from.
    pub(crate) inner: Node,
    /// How many, or which share.
    pub(crate) k: Node,
    /// The groups.
    pub(crate) grouping: Grouping,
}

/// An operation on two scalars.
#[derive(Clone, Debug)]
pub(crate) struct ScalarOp {
    /// The operator.
    pub(crate) op: ElementOp,
    /// Left and right.
    pub(crate) sides: Box<(Node, Node)>,
}

/// An operation on a vector and a scalar.
#[derive(Clone, Debug)]
pub(crate) struct VectorScalar {
    /// The operator.
    pub(crate) op: ElementOp,
    /// Left and right.
    pub(crate) sides: Box<(Node, Node)>,
    /// True if the left side is the scalar.
    pub(crate) scalar_is_left: bool,
    /// True if a comparison yields 0 or 1.
    pub(crate) return_bool: bool,
}

/// How elements of two vectors find each other.
#[derive(Clone, Debug)]
pub(crate) struct Matching {
    /// True if only `labels` are compared, false if all others (without the name) are.
    pub(crate) on: bool,
    /// Sorted, without repetitions.
    pub(crate) labels: Vec<String>,
    /// Labels that the many side's elements get from the one side.
    pub(crate) include: Vec<String>,
    /// Neither side may have more than one element.
    pub(crate) is_one_to_one: bool,
    /// For `group_right`.
    pub(crate) one_side_is_left: bool,
    /// What stands in for missing elements: `lhs` of the many side, `rhs` of the one side, whichever is left.
    pub(crate) fill: FillValues,
}

/// An operation on two vectors.
#[derive(Clone, Debug)]
pub(crate) struct Vectors {
    /// The operator.
    pub(crate) op: ElementOp,
    /// Left and right.
    pub(crate) sides: (Node, Node),
    /// How elements find each other.
    pub(crate) matching: Matching,
    /// True if a comparison yields 0 or 1.
    pub(crate) return_bool: bool,
}

/// Set operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SetOp {
    /// `and`
    And,
    /// `or`
    Or,
    /// `unless`
    Unless,
}

impl SetOp {
    /// The set operator, if `op` is one.
    pub(crate) fn of(op: BinaryOp) -> Option<Self> {
        match op {
            BinaryOp::And => Some(Self::And),
            BinaryOp::Or => Some(Self::Or),
            BinaryOp::Unless => Some(Self::Unless),
            _ => None,
        }
    }
}

/// A set operation on two vectors.
#[derive(Clone, Debug)]
pub(crate) struct SetOperation {
    /// The operator.
    pub(crate) op: SetOp,
    /// Left and right.
    pub(crate) sides: Box<(Node, Node)>,
    /// How elements find each other.
    pub(crate) matching: Matching,
}
