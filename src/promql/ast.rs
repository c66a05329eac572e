//! The syntax tree of a PromQL expression.
//!
//! Every node carries the byte range of its text in the query, as Prometheus reports it: errors, warnings and the UI's
//! markers point there. Trees come from `promql::parser`, which bounds their depth; recursion over them is safe.

mod op;

pub use self::op::{AggregateOp, BinaryOp, Cardinality, DurationChoice, DurationOp, Sign};

use crate::model::matcher::Matcher;
use crate::promql::signatures::{Function, ValueType};

/// A half-open range of byte positions in the query text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PosRange {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl PosRange {
    /// The range from `start` up to, not including, `end`.
    pub const fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// From the start of `first` to the end of `last`.
    pub const fn merge(first: Self, last: Self) -> Self {
        Self { start: first.start, end: last.end }
    }
}

/// A signed duration in nanoseconds, the resolution in which Prometheus keeps the durations of a query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DurationNs(pub i64);

impl DurationNs {
    /// Whole milliseconds, cut towards zero, as evaluation uses them.
    pub const fn as_ms(self) -> i64 {
        self.0 / 1_000_000
    }

    /// From seconds, rounded to the nanosecond and held at the ends of the range.
    pub fn from_seconds(seconds: f64) -> Self {
        // A float cast saturates, and the parser has refused what lies outside.
        Self((seconds * 1e9).round() as i64)
    }
}

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// `sum by (job) (x)`
    Aggregate(Box<AggregateExpr>),
    /// `a + b`
    Binary(Box<BinaryExpr>),
    /// `rate(x[5m])`
    Call(Box<Call>),
    /// `x[5m]`
    Matrix(Box<MatrixSelector>),
    /// `x[1h:5m]`
    Subquery(Box<SubqueryExpr>),
    /// `1`, `5m`
    Number(Box<NumberLiteral>),
    /// `(x)`
    Paren(Box<ParenExpr>),
    /// `"text"`
    Text(Box<StringLiteral>),
    /// `-x`
    Unary(Box<UnaryExpr>),
    /// `x{a="b"}`
    Vector(Box<VectorSelector>),
}

/// An aggregation over an instant vector.
#[derive(Clone, Debug, PartialEq)]
pub struct AggregateExpr {
    /// Which aggregation.
    pub op: AggregateOp,
    /// What is aggregated.
    pub expr: Expr,
    /// First argument of the aggregations that take two.
    pub param: Option<Expr>,
    /// Labels of `by` or `without`, in the order written.
    pub grouping: Vec<String>,
    /// True for `without`: the labels are dropped instead of kept.
    pub without: bool,
    /// Its text.
    pub range: PosRange,
}

/// A binary operation.
#[derive(Clone, Debug, PartialEq)]
pub struct BinaryExpr {
    /// The operator.
    pub op: BinaryOp,
    /// Left operand.
    pub lhs: Expr,
    /// Right operand.
    pub rhs: Expr,
    /// How the elements of the two vectors find each other; `None` unless both operands are instant vectors.
    pub matching: Option<VectorMatching>,
    /// True if a comparison yields 0 or 1 instead of filtering.
    pub return_bool: bool,
    /// Its text.
    pub range: PosRange,
}

/// A function call.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The function; its arity and types have been checked.
    pub func: &'static Function,
    /// The arguments.
    pub args: Vec<Expr>,
    /// Its text.
    pub range: PosRange,
}

/// A range vector selector. Modifiers (`offset`, `@`, `anchored`, `smoothed`) are kept in the inner selector.
#[derive(Clone, Debug, PartialEq)]
pub struct MatrixSelector {
    /// Which series, and when.
    pub selector: VectorSelector,
    /// How far back; a literal is greater than zero.
    pub window: DurationValue,
    /// Its text, modifiers included.
    pub range: PosRange,
}

/// A subquery.
#[derive(Clone, Debug, PartialEq)]
pub struct SubqueryExpr {
    /// What is evaluated at each step; an instant vector.
    pub expr: Expr,
    /// How far back; a literal is greater than zero.
    pub window: DurationValue,
    /// Resolution; `None` takes the server's default.
    pub step: Option<DurationValue>,
    /// The `offset` modifier; zero without one.
    pub offset: DurationValue,
    /// The `@` modifier.
    pub at: Option<AtModifier>,
    /// Its text, modifiers included.
    pub range: PosRange,
}

/// A number, written as such or as a duration (then in seconds).
#[derive(Clone, Debug, PartialEq)]
pub struct NumberLiteral {
    /// The number.
    pub value: f64,
    /// True if it was written as a duration and prints as one.
    pub is_duration: bool,
    /// Its text, a folded sign included.
    pub range: PosRange,
}

/// An expression in parentheses.
#[derive(Clone, Debug, PartialEq)]
pub struct ParenExpr {
    /// What is inside.
    pub expr: Expr,
    /// Its text, parentheses included.
    pub range: PosRange,
}

/// A string. It holds bytes because `"\xff"` is a legal string without being UTF-8.
#[derive(Clone, Debug, PartialEq)]
pub struct StringLiteral {
    /// The string without quotes and escapes.
    pub value: Vec<u8>,
    /// Its text, quotes included.
    pub range: PosRange,
}

impl StringLiteral {
    /// The string as UTF-8, or `None` if it holds other bytes.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.value).ok()
    }

    /// The string as JSON answers show it: each byte that is not part of a valid sequence becomes U+FFFD, as in Go.
    pub fn to_display_string(&self) -> String {
        let mut out = String::with_capacity(self.value.len());
        for chunk in self.value.utf8_chunks() {
            out.push_str(chunk.valid());
            out.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
        }
        out
    }
}

/// A signed expression.
#[derive(Clone, Debug, PartialEq)]
pub struct UnaryExpr {
    /// The sign.
    pub op: Sign,
    /// The operand.
    pub expr: Expr,
    /// Its text, sign included.
    pub range: PosRange,
}

/// An instant vector selector.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorSelector {
    /// The metric name before the braces; empty if there is none.
    pub name: String,
    /// All conditions in the order written; that of `name` comes last.
    pub matchers: Vec<Matcher>,
    /// The `offset` modifier; zero without one.
    pub offset: DurationValue,
    /// The `@` modifier.
    pub at: Option<AtModifier>,
    /// The `anchored` or `smoothed` modifier.
    pub extension: Option<RangeExtension>,
    /// True if a selector that matches the empty label set is allowed: second argument of `info()`.
    pub allow_empty_match: bool,
    /// Its text, modifiers included (those after a range belong to the range selector's text).
    pub range: PosRange,
}

/// How the `@` modifier fixes the evaluation time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtModifier {
    /// `@ 1609746000`: milliseconds since the epoch.
    Timestamp(i64),
    /// `@ start()`: the first step of the query.
    Start,
    /// `@ end()`: the last step of the query.
    End,
}

/// How an extended range selector treats the edges of its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeExtension {
    /// `anchored`
    Anchored,
    /// `smoothed`
    Smoothed,
}

/// A duration in a selector: known from the text, or computed when the query starts.
#[derive(Clone, Debug, PartialEq)]
pub enum DurationValue {
    /// Known.
    Literal(DurationNs),
    /// To be computed from the query's step and range.
    Expr(Box<DurationExpr>),
}

impl DurationValue {
    /// No duration at all.
    pub const ZERO: Self = Self::Literal(DurationNs(0));

    /// True for a literal zero, which is also what stands for "not given".
    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }
}

/// An arithmetic expression over durations.
#[derive(Clone, Debug, PartialEq)]
pub struct DurationExpr {
    /// What it computes.
    pub kind: DurationKind,
    /// True if it stood in parentheses.
    pub wrapped: bool,
    /// Its text as evaluation errors report it: from the sign or the first operand to the end of the last operand; for
    /// `min_of` and `max_of` only the operands.
    pub range: PosRange,
}

/// What a duration expression computes. Values are seconds.
#[derive(Clone, Debug, PartialEq)]
pub enum DurationKind {
    /// `step()`: the query's step, zero for an instant query.
    Step,
    /// `range()`: the query's end minus its start.
    Range,
    /// A signed operand; a plus sign stands for mere parentheses around a number.
    Unary {
        /// The sign.
        op: Sign,
        /// What is signed.
        operand: DurationOperand,
    },
    /// `a + b`
    Binary {
        /// The operator.
        op: DurationOp,
        /// Left operand.
        lhs: DurationOperand,
        /// Right operand.
        rhs: DurationOperand,
    },
    /// `min_of(a, b)` or `max_of(a, b)`
    Choice {
        /// Which of the two.
        op: DurationChoice,
        /// First operand.
        lhs: DurationOperand,
        /// Second operand.
        rhs: DurationOperand,
        /// The text of the call.
        call: PosRange,
    },
}

/// An operand of a duration expression.
#[derive(Clone, Debug, PartialEq)]
pub enum DurationOperand {
    /// A number or duration literal.
    Number(NumberLiteral),
    /// A nested expression.
    Expr(Box<DurationExpr>),
}

impl DurationOperand {
    /// Its text.
    pub fn range(&self) -> PosRange {
        match self {
            Self::Number(n) => n.range,
            Self::Expr(e) => e.range,
        }
    }
}

/// How the elements of two vectors are matched.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorMatching {
    /// How many may match.
    pub card: Cardinality,
    /// Labels of `on` or `ignoring`, in the order written.
    pub labels: Vec<String>,
    /// True for `on`.
    pub on: bool,
    /// Labels that `group_left` or `group_right` copies from the "one" side.
    pub include: Vec<String>,
    /// Values for elements without counterpart.
    pub fill: FillValues,
}

/// Values of `fill`, `fill_left` and `fill_right`: what stands in for a missing element of that side.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FillValues {
    /// For the left side.
    pub lhs: Option<f64>,
    /// For the right side.
    pub rhs: Option<f64>,
}

impl Expr {
    /// Its text in the query.
    pub fn range(&self) -> PosRange {
        match self {
            Self::Aggregate(e) => e.range,
            Self::Binary(e) => e.range,
            Self::Call(e) => e.range,
            Self::Matrix(e) => e.range,
            Self::Subquery(e) => e.range,
            Self::Number(e) => e.range,
            Self::Paren(e) => e.range,
            Self::Text(e) => e.range,
            Self::Unary(e) => e.range,
            Self::Vector(e) => e.range,
        }
    }

    /// The type of its value.
    pub fn value_type(&self) -> ValueType {
        match self {
            Self::Aggregate(_) | Self::Vector(_) => ValueType::Vector,
            Self::Matrix(_) | Self::Subquery(_) => ValueType::Matrix,
            Self::Number(_) => ValueType::Scalar,
            Self::Text(_) => ValueType::Text,
            Self::Call(e) => e.func.return_type,
            Self::Paren(e) => e.expr.value_type(),
            Self::Unary(e) => e.expr.value_type(),
            Self::Binary(e) => match (e.lhs.value_type(), e.rhs.value_type()) {
                (ValueType::Scalar, ValueType::Scalar) => ValueType::Scalar,
                _ => ValueType::Vector,
            },
        }
    }

    /// The expression without the parentheses around it.
    pub fn unwrap_parens(&self) -> &Expr {
        let mut expr = self;
        while let Self::Paren(paren) = expr {
            expr = &paren.expr;
        }
        expr
    }

    /// Direct sub-expressions in Prometheus's order (an aggregation's operand comes before its parameter). The selector
    /// inside a range selector is not an expression of its own.
    pub fn children(&self) -> Vec<&Expr> {
        match self {
            Self::Aggregate(e) => std::iter::once(&e.expr).chain(&e.param).collect(),
            Self::Binary(e) => vec![&e.lhs, &e.rhs],
            Self::Call(e) => e.args.iter().collect(),
            Self::Subquery(e) => vec![&e.expr],
            Self::Paren(e) => vec![&e.expr],
            Self::Unary(e) => vec![&e.expr],
            Self::Matrix(_) | Self::Number(_) | Self::Text(_) | Self::Vector(_) => Vec::new(),
        }
    }

    /// Calls `visit` for this expression and all below it, parents first.
    pub fn walk<'a>(&'a self, visit: &mut dyn FnMut(&'a Expr)) {
        visit(self);
        for child in self.children() {
            child.walk(visit);
        }
    }

    /// All series selectors in the expression, those of range selectors included, in the order of [`Expr::walk`].
    pub fn selectors(&self) -> Vec<&VectorSelector> {
        let mut found = Vec::new();
        self.walk(&mut |expr| match expr {
            Self::Vector(selector) => found.push(&**selector),
            Self::Matrix(matrix) => found.push(&matrix.selector),
            _ => {}
        });
        found
    }
}
