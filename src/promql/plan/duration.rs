//! Duration expressions: `[step() * 5]`, `offset (1h / 2)`. They are evaluated once, when the query starts.

use crate::promql::ast::{
    DurationChoice, DurationExpr, DurationKind, DurationOp, DurationOperand, DurationValue, PosRange, Sign,
};
use crate::promql::eval::EvalError;
use crate::promql::plan::QueryTimes;

/// Most seconds that a signed 64-bit count of nanoseconds holds.
const SECONDS_MAX: f64 = (1u64 << 63) as f64 / 1e9;

/// An offset in milliseconds; may be negative.
pub(crate) fn offset(value: &DurationValue, times: QueryTimes) -> Result<i64, EvalError> {
    evaluate(value, times, true)
}

/// The length of a window or a step in milliseconds; greater than zero for expressions.
pub(crate) fn window(value: &DurationValue, times: QueryTimes) -> Result<i64, EvalError> {
    evaluate(value, times, false)
}

fn evaluate(value: &DurationValue, times: QueryTimes, may_be_negative: bool) -> Result<i64, EvalError> {
    let expr = match value {
        DurationValue::Literal(duration) => return Ok(duration.as_ms()),
        DurationValue::Expr(expr) => expr,
    };
    let seconds = seconds(expr, times)?;
    if !seconds.is_finite() {
        return Err(error(expr.range, "duration is NaN or infinite"));
    }
    if seconds <= 0.0 && !may_be_negative {
        return Err(error(expr.range, "duration must be greater than 0"));
    }
    if seconds.abs() > SECONDS_MAX {
        return Err(error(expr.range, "duration is out of range"));
    }
    // Cut to milliseconds, towards zero; the check above keeps it in range.
    Ok((seconds * 1000.0) as i64)
}

fn seconds(expr: &DurationExpr, times: QueryTimes) -> Result<f64, EvalError> {
    Ok(match &expr.kind {
        DurationKind::Step => times.step_ms as f64 / 1000.0,
        DurationKind::Range => times.end_ms.saturating_sub(times.start_ms) as f64 / 1000.0,
        DurationKind::Unary { op, operand: value } => {
            let value = operand(value, times)?;
            match op {
                Sign::Plus => value,
                Sign::Minus => -value,
            }
        }
        DurationKind::Choice { op, lhs, rhs, .. } => {
            let (lhs, rhs) = (operand(lhs, times)?, operand(rhs, times)?);
            match op {
                _ if lhs.is_nan() || rhs.is_nan() => f64::NAN,
                DurationChoice::Min => lhs.min(rhs),
                DurationChoice::Max => lhs.max(rhs),
            }
        }
        DurationKind::Binary { op, lhs, rhs } => {
            let (lhs, rhs) = (operand(lhs, times)?, operand(rhs, times)?);
            match op {
                DurationOp::Div if rhs == 0.0 => return Err(error(expr.range, "division by zero")),
                DurationOp::Mod if rhs == 0.0 => return Err(error(expr.range, "modulo by zero")),
                DurationOp::Add => lhs + rhs,
                DurationOp::Sub => lhs - rhs,
                DurationOp::Mul => lhs * rhs,
                DurationOp::Div => lhs / rhs,
                DurationOp::Mod => lhs % rhs,
                DurationOp::Pow => lhs.powf(rhs),
            }
        }
    })
}

fn operand(operand: &DurationOperand, times: QueryTimes) -> Result<f64, EvalError> {
    match operand {
        DurationOperand::Number(number) => Ok(number.value),
        DurationOperand::Expr(expr) => seconds(expr, times),
    }
}

fn error(range: PosRange, text: &str) -> EvalError {
    EvalError::BadQuery(format!("{}:{}: {text}", range.start, range.end))
}
