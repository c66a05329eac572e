//! What the evaluator has. An expression that needs anything else is refused before evaluation, never answered wrongly.
//!
//! The tables below name what is *missing*; whoever builds a function or operator removes its line.

use crate::promql::ast::{AggregateOp, BinaryExpr, BinaryOp, Expr, PosRange, RangeExtension, VectorSelector};
use crate::promql::parser::{ParseOptions, parse_expr, position};

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
const MISSING_FUNCTIONS: &[&str] = &[
    "histogram_avg",
    "histogram_count",
    "histogram_stddev",
    "histogram_stdvar",
    "histogram_sum",
    "info",
    "start_timestamp",
];
/// Aggregations that are parsed but cannot be evaluated.
const MISSING_AGGREGATIONS: &[AggregateOp] = &[];
/// Operators that are parsed but cannot be evaluated.
const MISSING_OPERATORS: &[BinaryOp] = &[BinaryOp::TrimLower, BinaryOp::TrimUpper];
/// The `anchored` and `smoothed` modifiers are parsed but cannot be evaluated.
const MISSING_EXTENSIONS: &[RangeExtension] = &[RangeExtension::Anchored, RangeExtension::Smoothed];
/// The `fill` modifiers are parsed but cannot be evaluated.
const MISSING_FILL: bool = true;

/// Parses an expression that is to be evaluated. The error is the parser's text, or one like it for what is missing.
pub fn parse_supported(text: &str, options: &ParseOptions) -> Result<Expr, String> {
    let expr = parse_expr(text, options).map_err(|error| error.to_string())?;
    check_supported(&expr).map_err(|unsupported| {
        let start = position(unsupported.range.start, text);
        format!("{start}: parse error: {unsupported}")
    })?;
    Ok(expr)
}

/// Errors with the first part of `expr` that cannot be evaluated.
pub fn check_supported(expr: &Expr) -> Result<(), Unsupported> {
    let missing = match expr {
        Expr::Call(call) if MISSING_FUNCTIONS.contains(&call.func.name) => format!("function \"{}\"", call.func.name),
        Expr::Aggregate(agg) if MISSING_AGGREGATIONS.contains(&agg.op) => format!("aggregation \"{}\"", agg.op),
        Expr::Binary(binary) if MISSING_OPERATORS.contains(&binary.op) => format!("operator \"{}\"", binary.op),
        Expr::Binary(binary) if MISSING_FILL && has_fill(binary) => "modifier \"fill\"".to_owned(),
        Expr::Vector(selector) if is_extension_missing(selector) => extension(selector),
        Expr::Matrix(matrix) if is_extension_missing(&matrix.selector) => extension(&matrix.selector),
        _ => return expr.children().into_iter().try_for_each(check_supported),
    };
    Err(Unsupported { what: missing, range: expr.range() })
}

fn has_fill(binary: &BinaryExpr) -> bool {
    binary.matching.as_ref().is_some_and(|matching| matching.fill.lhs.is_some() || matching.fill.rhs.is_some())
}

fn is_extension_missing(selector: &VectorSelector) -> bool {
    selector.extension.is_some_and(|extension| MISSING_EXTENSIONS.contains(&extension))
}

fn extension(selector: &VectorSelector) -> String {
    let name = if selector.extension == Some(RangeExtension::Anchored) { "anchored" } else { "smoothed" };
    format!("modifier \"{name}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(query: &str, missing: Option<&str>) {
        let expr = parse_expr(query, &ParseOptions::ALL).unwrap();
        let found = check_supported(&expr).err().map(|unsupported| unsupported.to_string());
        assert_eq!(found.as_deref(), missing, "{query}");
    }

    #[test]
    fn names_what_is_missing_wherever_it_stands() {
        check("sum by (a) (rate(x[5m])) + on (a) y", None);
        check("1 + sum(histogram_count(x))", Some("function \"histogram_count\" is not supported yet"));
        check("a </ 1", Some("operator \"</\" is not supported yet"));
        check("a + fill(0) b", Some("modifier \"fill\" is not supported yet"));
        check("rate(a[5m] anchored)", Some("modifier \"anchored\" is not supported yet"));
        check("a smoothed", Some("modifier \"smoothed\" is not supported yet"));
    }
}
