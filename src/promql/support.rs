//! What the evaluator has. An expression that needs anything else is refused before evaluation, never answered wrongly.
//!
//! The table below names what is *missing*; whoever builds a function removes its line. Nothing is missing now.

use crate::promql::ast::{Expr, PosRange};
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
const MISSING_FUNCTIONS: &[&str] = &[];

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
    match expr {
        _ if MISSING_FUNCTIONS.is_empty() => Ok(()),
        Expr::Call(call) if MISSING_FUNCTIONS.contains(&call.func.name) => {
            Err(Unsupported { what: format!("function \"{}\"", call.func.name), range: expr.range() })
        }
        _ => expr.children().into_iter().try_for_each(check_supported),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_parsed_is_evaluated() {
        for query in ["info(a)", "a </ 1", "a + fill(0) b", "rate(a[5m] anchored)", "a smoothed"] {
            assert!(parse_supported(query, &ParseOptions::ALL).is_ok(), "{query}");
        }
    }
}
