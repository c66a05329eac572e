//! Variants of an expression that must have the same value: every selector pinned to the evaluation time with `@`, then
//! evaluated at other times.

use crate::promql::ast::{AtModifier, Expr};
use crate::promql::depends_on_time;
use crate::promql::parser::{ParseOptions, parse_expr};

/// The variants with their evaluation times; none if a function in the expression depends on that time.
pub(crate) fn variants(expr: &str, at_ms: i64) -> Result<Vec<(String, i64)>, String> {
    let mut parsed = parse_expr(expr, &ParseOptions::ALL).map_err(|error| error.to_string())?;
    if calls_time_dependent(&parsed) {
        return Ok(Vec::new());
    }
    pin(&mut parsed, at_ms);
    let text = parsed.to_string();
    let times = if at_ms == 0 { vec![-1000, 0, 1000] } else { vec![-10 * at_ms, 0, at_ms / 5, at_ms, 10 * at_ms] };
    Ok(times.into_iter().map(|time| (text.clone(), time)).collect())
}

/// True if a function outside of subqueries depends on the evaluation time. What is inside of them has times of its own.
fn calls_time_dependent(expr: &Expr) -> bool {
    match expr {
        Expr::Subquery(_) => false,
        Expr::Call(call) if depends_on_time(call.func.name) => true,
        _ => expr.children().into_iter().any(calls_time_dependent),
    }
}

/// Pins selectors and subqueries that are not, except below a subquery that was pinned before or is now.
fn pin(expr: &mut Expr, at_ms: i64) {
    let at = AtModifier::Timestamp(at_ms);
    match expr {
        Expr::Vector(selector) => pin_one(&mut selector.at, at),
        Expr::Matrix(matrix) => pin_one(&mut matrix.selector.at, at),
        Expr::Subquery(subquery) => pin_one(&mut subquery.at, at),
        Expr::Aggregate(aggregate) => {
            pin(&mut aggregate.expr, at_ms);
            if let Some(param) = &mut aggregate.param {
                pin(param, at_ms);
            }
        }
        Expr::Binary(binary) => {
            pin(&mut binary.lhs, at_ms);
            pin(&mut binary.rhs, at_ms);
        }
        Expr::Call(call) => call.args.iter_mut().for_each(|arg| pin(arg, at_ms)),
        Expr::Paren(paren) => pin(&mut paren.expr, at_ms),
        Expr::Unary(unary) => pin(&mut unary.expr, at_ms),
        Expr::Number(_) | Expr::Text(_) => {}
    }
}

/// `@ start()` is replaced too: it stands for another time in each variant.
fn pin_one(at: &mut Option<AtModifier>, to: AtModifier) {
    if !matches!(at, Some(AtModifier::Timestamp(_))) {
        *at = Some(to);
    }
}
