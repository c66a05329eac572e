//! The form with line breaks: an expression that fits into a line stays on it, others open one line for each operand,
//! indented by two spaces a level.

use std::fmt::{self, Write};

use super::{write_aggregate_head, write_expr, write_operator, write_subquery_suffix};
use crate::promql::ast::{AggregateExpr, Expr};

/// Longest line in bytes before it is broken, as Prometheus formats queries.
pub const LINE_LEN_MAX: usize = 100;

const INDENT: &str = "  ";

/// Formats an expression so that lines longer than `line_len_max` bytes are broken where that is possible. Indentation
/// does not count.
pub fn prettify(expr: &Expr, line_len_max: usize) -> String {
    let mut printer = Pretty { out: String::new(), line_len_max };
    printer.expr(expr, 0);
    printer.out
}

struct Pretty {
    out: String,
    line_len_max: usize,
}

impl Pretty {
    fn expr(&mut self, expr: &Expr, level: usize) {
        match expr {
            Expr::Unary(unary) => {
                self.indent(level);
                self.out.push_str(unary.op.as_str());
                self.trimmed(&unary.expr, level);
            }
            // A subquery is indented by what it evaluates, and not at all on a line of its own.
            Expr::Subquery(_) if self.fits(expr) => self.one_line(expr),
            Expr::Subquery(subquery) => {
                self.expr(&subquery.expr, level);
                self.append(|out| write_subquery_suffix(out, subquery));
            }
            Expr::Binary(binary) if !self.fits(expr) => {
                self.expr(&binary.lhs, level + 1);
                self.out.push('\n');
                self.indent(level);
                self.append(|out| write_operator(out, binary));
                self.out.push('\n');
                self.expr(&binary.rhs, level + 1);
            }
            Expr::Aggregate(aggregate) if !self.fits(expr) => self.aggregate(aggregate, level),
            Expr::Call(call) if !self.fits(expr) => {
                self.indent(level);
                self.out.push_str(call.func.name);
                self.block(call.args.iter(), level);
            }
            Expr::Paren(paren) if !self.fits(expr) => {
                self.indent(level);
                self.block(std::iter::once(&paren.expr), level);
            }
            _ => {
                self.indent(level);
                self.one_line(expr);
            }
        }
    }

    fn aggregate(&mut self, aggregate: &AggregateExpr, level: usize) {
        self.indent(level);
        self.append(|out| write_aggregate_head(out, aggregate));
        self.block(aggregate.param.iter().chain(std::iter::once(&aggregate.expr)), level);
    }

    /// Expressions in parentheses, one a line.
    fn block<'a>(&mut self, exprs: impl Iterator<Item = &'a Expr>, level: usize) {
        self.out.push_str("(\n");
        for (index, expr) in exprs.enumerate() {
            if 0 < index {
                self.out.push_str(",\n");
            }
            self.expr(expr, level + 1);
        }
        self.out.push('\n');
        self.indent(level);
        self.out.push(')');
    }

    /// The expression without the indentation of its first line.
    fn trimmed(&mut self, expr: &Expr, level: usize) {
        let start = self.out.len();
        self.expr(expr, level);
        let written = self.out.get(start..).unwrap_or_default();
        let spaces = written.len() - written.trim_start().len();
        self.out.replace_range(start..start + spaces, "");
    }

    fn indent(&mut self, level: usize) {
        for _ in 0..level {
            self.out.push_str(INDENT);
        }
    }

    fn one_line(&mut self, expr: &Expr) {
        self.append(|out| write_expr(out, expr));
    }

    fn append(&mut self, write: impl FnOnce(&mut dyn Write) -> fmt::Result) {
        // Writing to a string cannot fail.
        let _ = write(&mut self.out);
    }

    /// True if the canonical form is short enough. Looks only at as much of it as a line holds.
    fn fits(&self, expr: &Expr) -> bool {
        write_expr(&mut Room { left: self.line_len_max }, expr).is_ok()
    }
}

/// Takes so many bytes, and fails on the next.
struct Room {
    left: usize,
}

impl Write for Room {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.left = self.left.checked_sub(text.len()).ok_or(fmt::Error)?;
        Ok(())
    }
}
