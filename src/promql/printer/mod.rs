//! Turns syntax trees back into text.
//!
//! `Display` of [`Expr`] gives the canonical form on one line; parsing it yields the same tree again but for positions.
//! [`prettify`] breaks long lines, and [`to_json`] gives the form in which the API shows trees.

mod json;
mod pretty;

pub use self::json::to_json;
pub use self::pretty::{LINE_LEN_MAX, prettify};

use std::fmt::{self, Display, Formatter, Write};

use crate::model::duration::PromDuration;
use crate::model::go;
use crate::model::labels::{METRIC_NAME, is_legacy_label_name};
use crate::model::matcher::MatchOp;
use crate::promql::ast::{
    AggregateExpr, AtModifier, BinaryExpr, Cardinality, DurationExpr, DurationKind, DurationNs, DurationOperand,
    DurationValue, Expr, MatrixSelector, NumberLiteral, RangeExtension, Sign, SubqueryExpr, VectorSelector,
};

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_expr(f, self)
    }
}

/// Writes the canonical form. Takes any writer so that measuring can stop early.
fn write_expr(out: &mut dyn Write, expr: &Expr) -> fmt::Result {
    match expr {
        Expr::Aggregate(e) => write_aggregate(out, e),
        Expr::Binary(e) => {
            write_expr(out, &e.lhs)?;
            out.write_char(' ')?;
            write_operator(out, e)?;
            out.write_char(' ')?;
            write_expr(out, &e.rhs)
        }
        Expr::Call(e) => {
            out.write_str(e.func.name)?;
            out.write_char('(')?;
            write_list(out, &e.args, |out, arg| write_expr(out, arg))?;
            out.write_char(')')
        }
        Expr::Matrix(e) => write_matrix(out, e),
        Expr::Subquery(e) => {
            write_expr(out, &e.expr)?;
            write_subquery_suffix(out, e)
        }
        Expr::Number(e) => write_number(out, e),
        Expr::Paren(e) => {
            out.write_char('(')?;
            write_expr(out, &e.expr)?;
            out.write_char(')')
        }
        Expr::Text(e) => out.write_str(&go::quote_bytes(&e.value)),
        Expr::Unary(e) => {
            out.write_str(e.op.as_str())?;
            write_expr(out, &e.expr)
        }
        Expr::Vector(e) => write_vector(out, e),
    }
}

fn write_aggregate(out: &mut dyn Write, e: &AggregateExpr) -> fmt::Result {
    write_aggregate_head(out, e)?;
    out.write_char('(')?;
    if let Some(param) = &e.param {
        write_expr(out, param)?;
        out.write_str(", ")?;
    }
    write_expr(out, &e.expr)?;
    out.write_char(')')
}

/// The aggregation without its arguments: `sum by (job) `.
fn write_aggregate_head(out: &mut dyn Write, e: &AggregateExpr) -> fmt::Result {
    out.write_str(e.op.as_str())?;
    let modifier = if e.without {
        "without"
    } else if e.grouping.is_empty() {
        return Ok(());
    } else {
        "by"
    };
    write!(out, " {modifier} (")?;
    write_labels(out, &e.grouping)?;
    out.write_str(") ")
}

/// The operator with its modifiers: `== bool on (job) group_left ()`.
fn write_operator(out: &mut dyn Write, e: &BinaryExpr) -> fmt::Result {
    out.write_str(e.op.as_str())?;
    if e.return_bool {
        out.write_str(" bool")?;
    }
    let Some(matching) = &e.matching else { return Ok(()) };
    let group = match matching.card {
        Cardinality::ManyToOne => Some("group_left"),
        Cardinality::OneToMany => Some("group_right"),
        Cardinality::OneToOne | Cardinality::ManyToMany => None,
    };
    if !matching.labels.is_empty() || matching.on || group.is_some() {
        out.write_str(if matching.on { " on (" } else { " ignoring (" })?;
        write_labels(out, &matching.labels)?;
        out.write_char(')')?;
    }
    if let Some(group) = group {
        write!(out, " {group} (")?;
        write_labels(out, &matching.include)?;
        out.write_char(')')?;
    }
    match (matching.fill.lhs, matching.fill.rhs) {
        (Some(lhs), Some(rhs)) if lhs == rhs => write!(out, " fill ({})", go::format_float_g(lhs)),
        (lhs, rhs) => {
            for (name, value) in [("fill_left", lhs), ("fill_right", rhs)] {
                if let Some(value) = value {
                    write!(out, " {name} ({})", go::format_float_g(value))?;
                }
            }
            Ok(())
        }
    }
}

fn write_matrix(out: &mut dyn Write, e: &MatrixSelector) -> fmt::Result {
    write_name_and_matchers(out, &e.selector)?;
    out.write_char('[')?;
    write_duration_value(out, &e.window)?;
    out.write_char(']')?;
    write_extension(out, e.selector.extension)?;
    write_at(out, e.selector.at)?;
    write_offset(out, &e.selector.offset)
}

/// The subquery without what it evaluates: `[1h:5m] @ end() offset 1m`.
fn write_subquery_suffix(out: &mut dyn Write, e: &SubqueryExpr) -> fmt::Result {
    out.write_char('[')?;
    write_duration_value(out, &e.window)?;
    out.write_char(':')?;
    if let Some(step) = &e.step {
        write_duration_value(out, step)?;
    }
    out.write_char(']')?;
    write_at(out, e.at)?;
    write_offset(out, &e.offset)
}

fn write_vector(out: &mut dyn Write, e: &VectorSelector) -> fmt::Result {
    write_name_and_matchers(out, e)?;
    write_at(out, e.at)?;
    write_extension(out, e.extension)?;
    write_offset(out, &e.offset)
}

/// Matchers are sorted by their text; that of the name before the braces is left out.
fn write_name_and_matchers(out: &mut dyn Write, e: &VectorSelector) -> fmt::Result {
    let is_name = |name: &str, op, value: &str| {
        name == METRIC_NAME && op == MatchOp::Equal && value == e.name && !value.is_empty()
    };
    let mut matchers: Vec<String> =
        e.matchers.iter().filter(|m| !is_name(m.name(), m.op(), m.value())).map(ToString::to_string).collect();
    matchers.sort_unstable();
    out.write_str(&e.name)?;
    if matchers.is_empty() {
        return Ok(());
    }
    write!(out, "{{{}}}", matchers.join(","))
}

fn write_at(out: &mut dyn Write, at: Option<AtModifier>) -> fmt::Result {
    match at {
        Some(AtModifier::Timestamp(ms)) => write!(out, " @ {:.3}", ms as f64 / 1000.0),
        Some(AtModifier::Start) => out.write_str(" @ start()"),
        Some(AtModifier::End) => out.write_str(" @ end()"),
        None => Ok(()),
    }
}

fn write_extension(out: &mut dyn Write, extension: Option<RangeExtension>) -> fmt::Result {
    match extension {
        Some(RangeExtension::Anchored) => out.write_str(" anchored"),
        Some(RangeExtension::Smoothed) => out.write_str(" smoothed"),
        None => Ok(()),
    }
}

fn write_offset(out: &mut dyn Write, offset: &DurationValue) -> fmt::Result {
    if offset.is_zero() {
        return Ok(());
    }
    out.write_str(" offset ")?;
    write_duration_value(out, offset)
}

fn write_duration_value(out: &mut dyn Write, value: &DurationValue) -> fmt::Result {
    match value {
        DurationValue::Literal(duration) => write_duration(out, *duration),
        DurationValue::Expr(e) => write_duration_expr(out, e),
    }
}

/// Whole milliseconds in Prometheus's units, the sign in front.
fn write_duration(out: &mut dyn Write, duration: DurationNs) -> fmt::Result {
    if duration.0 < 0 {
        out.write_char('-')?;
    }
    write!(out, "{}", PromDuration::from_ms(duration.as_ms().unsigned_abs()))
}

fn write_duration_expr(out: &mut dyn Write, e: &DurationExpr) -> fmt::Result {
    if e.wrapped {
        out.write_char('(')?;
    }
    match &e.kind {
        DurationKind::Step => out.write_str("step()")?,
        DurationKind::Range => out.write_str("range()")?,
        DurationKind::Unary { op, operand } => {
            // A plus sign only stands for parentheses.
            if *op == Sign::Minus {
                out.write_char('-')?;
            }
            write_duration_operand(out, operand)?;
        }
        DurationKind::Binary { op, lhs, rhs } => {
            write_duration_operand(out, lhs)?;
            write!(out, " {} ", op.as_str())?;
            write_duration_operand(out, rhs)?;
        }
        DurationKind::Choice { op, lhs, rhs, .. } => {
            write!(out, "{}(", op.as_str())?;
            write_duration_operand(out, lhs)?;
            out.write_str(", ")?;
            write_duration_operand(out, rhs)?;
            out.write_char(')')?;
        }
    }
    if e.wrapped { out.write_char(')') } else { Ok(()) }
}

fn write_duration_operand(out: &mut dyn Write, operand: &DurationOperand) -> fmt::Result {
    match operand {
        DurationOperand::Number(number) => write_number(out, number),
        DurationOperand::Expr(e) => write_duration_expr(out, e),
    }
}

fn write_number(out: &mut dyn Write, e: &NumberLiteral) -> fmt::Result {
    if e.is_duration {
        // Cut, not rounded, to whole nanoseconds; a float cast saturates.
        return write_duration(out, DurationNs((e.value * 1e9) as i64));
    }
    out.write_str(&go::format_float_f(e.value))
}

fn write_labels(out: &mut dyn Write, labels: &[String]) -> fmt::Result {
    write_list(out, labels, |out, label| {
        if is_legacy_label_name(label) { out.write_str(label) } else { out.write_str(&go::quote(label)) }
    })
}

fn write_list<T>(out: &mut dyn Write, items: &[T], write: impl Fn(&mut dyn Write, &T) -> fmt::Result) -> fmt::Result {
    for (index, item) in items.iter().enumerate() {
        if 0 < index {
            out.write_str(", ")?;
        }
        write(out, item)?;
    }
    Ok(())
}
