//! What the evaluator has. An expression that needs anything else is refused before evaluation, never answered wrongly.
//!
//! The tables below name what is *missing*; whoever builds a function or operator removes its line.

use crate::promql::ast::{AggregateOp, BinaryOp, Expr, PosRange};

/// Something that an expression asks for and the evaluator does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} is not supported yet")]
pub struct Unsupported {
    /// What is missing, as `function "info"`.
    pub what: String,
    /// Where the expression asks for it.
    pub range: PosRange,
}

/// Functions that are parsed but cannot be evaluated.
const MISSING_FUNCTIONS: &[&str] = &[];
/// Aggregations that are parsed but cannot be evaluated.
const MISSING_AGGREGATIONS: &[AggregateOp] = &[];
/// Operators that are parsed but cannot be evaluated.
const MISSING_OPERATORS: &[BinaryOp] = &[];

/// Errors with the first part of `expr` that cannot be evaluated.
pub fn check_supported(expr: &Expr) -> Result<(), Unsupported> {
    let missing = match expr {
        Expr::Call(call) if MISSING_FUNCTIONS.contains(&call.func.name) => format!("function \"{}\"", call.func.name),
        Expr::Aggregate(agg) if MISSING_AGGREGATIONS.contains(&agg.op) => format!("aggregation \"{}\"", agg.op),
        Expr::Binary(binary) if MISSING_OPERATORS.contains(&binary.op) => format!("operator \"{}\"", binary.op),
        _ => return expr.children().into_iter().try_for_each(check_supported),
    };
    Err(Unsupported { what: missing, range: expr.range() })
}
