//! The modifiers of selectors and subqueries: `offset`, `@`, `anchored` and `smoothed`.

use super::operand::{Operand, Pending};
use super::range::duration_value;
use super::{Parsed, Parser};
use crate::model::go;
use crate::promql::ast::{AtModifier, DurationOperand, DurationValue, Expr, PosRange, RangeExtension};
use crate::promql::lexer::{Keyword, Kind};

/// The parts of a selector or subquery that modifiers set.
struct Target<'a> {
    offset: &'a mut DurationValue,
    at: &'a mut Option<AtModifier>,
    range: &'a mut PosRange,
}

impl Parser<'_> {
    /// `offset`, which is next, and its duration.
    pub(super) fn offset_expr(&mut self, mut operand: Operand) -> Parsed<Operand> {
        self.advance();
        let duration = self.offset_duration_expr();
        let expected = "number, duration, step(), or range()";
        let Some(duration) = self.recover(duration, "offset", expected)? else { return Ok(operand) };
        if let DurationOperand::Number(number) = &duration
            && number.value.is_nan()
        {
            // Prometheus makes of it an offset that depends on the machine. Reported unless there are syntax errors.
            self.types.error(number.range, "duration out of range");
        }
        let range = operand.expr.range();
        match target(&mut operand, "offset modifier") {
            Err(problem) => self.error(range, problem),
            Ok(target) => {
                let is_set = !target.offset.is_zero();
                *target.range = PosRange::new(target.range.start, self.last_closing);
                if is_set {
                    self.error(range, "offset may not be set multiple times");
                } else {
                    *target.offset = duration_value(duration);
                }
            }
        }
        Ok(operand)
    }

    /// `@`, which is next, and its time.
    pub(super) fn step_invariant_expr(&mut self, mut operand: Operand) -> Parsed<Operand> {
        self.advance();
        let time = self.at_time();
        let Some(time) = self.recover(time, "@", "timestamp")? else { return Ok(operand) };
        let range = operand.expr.range();
        let at = match time {
            AtTime::Seconds(seconds) => AtModifier::Timestamp(self.timestamp_ms(seconds, range)),
            AtTime::Bound(at) => at,
        };
        match target(&mut operand, "@ modifier") {
            Err(problem) => self.error(range, problem),
            Ok(target) if target.at.is_some() => self.error(range, "@ <timestamp> may not be set multiple times"),
            Ok(target) => {
                *target.at = Some(at);
                target.range.end = self.last_closing;
            }
        }
        Ok(operand)
    }

    fn at_time(&mut self) -> Parsed<AtTime> {
        loop {
            let bound = match self.peek() {
                Kind::Keyword(Keyword::Start) => AtModifier::Start,
                Kind::Keyword(Keyword::End) => AtModifier::End,
                kind if kind.is_sign() || matches!(kind, Kind::Number | Kind::Duration) => {
                    return Ok(AtTime::Seconds(self.signed_or_unsigned_number()?));
                }
                _ => {
                    self.reject()?;
                    continue;
                }
            };
            self.advance();
            self.expect(Kind::LeftParen)?;
            self.expect(Kind::RightParen)?;
            return Ok(AtTime::Bound(bound));
        }
    }

    fn timestamp_ms(&mut self, seconds: f64, range: PosRange) -> i64 {
        let fits = (i64::MIN as f64) < seconds && seconds < i64::MAX as f64;
        if !fits {
            let shown = if seconds.is_finite() { format!("{seconds:.6}") } else { go::format_float_f(seconds) };
            self.error(range, format!("timestamp out of bounds for @ modifier: {shown}"));
        }
        // A float cast saturates.
        (seconds * 1000.0).round() as i64
    }

    /// `anchored`, which is next.
    pub(super) fn anchored_expr(&mut self, operand: Operand) -> Operand {
        self.extend_range(operand, RangeExtension::Anchored, "anchored")
    }

    /// `smoothed`, which is next.
    pub(super) fn smoothed_expr(&mut self, operand: Operand) -> Operand {
        self.extend_range(operand, RangeExtension::Smoothed, "smoothed")
    }

    fn extend_range(&mut self, mut operand: Operand, extension: RangeExtension, name: &str) -> Operand {
        self.advance();
        let range = operand.expr.range();
        if !self.options.extended_range_selectors {
            self.error(range, format!("{name} modifier is experimental and not enabled"));
            return operand;
        }
        let selector = match &mut operand.expr {
            Expr::Vector(selector) => &mut **selector,
            Expr::Matrix(_) if matches!(operand.pending, Pending::BrokenRange) => return operand,
            Expr::Matrix(matrix) => &mut matrix.selector,
            Expr::Subquery(_) => {
                self.error(range, format!("{name} modifier is not supported for subqueries"));
                return operand;
            }
            _ => {
                self.error(range, format!("{name} modifier not implemented"));
                return operand;
            }
        };
        if selector.extension.is_some_and(|other| other != extension) {
            self.error(range, "anchored and smoothed modifiers cannot be used together");
        } else {
            selector.extension = Some(extension);
        }
        operand
    }
}

/// The time behind `@`.
enum AtTime {
    Seconds(f64),
    Bound(AtModifier),
}

/// What a modifier called `name` sets, or why there is nothing to set.
fn target<'a>(operand: &'a mut Operand, name: &str) -> Result<Target<'a>, String> {
    let is_broken = matches!(operand.pending, Pending::BrokenRange);
    match &mut operand.expr {
        Expr::Vector(e) => Ok(Target { offset: &mut e.offset, at: &mut e.at, range: &mut e.range }),
        Expr::Matrix(_) if is_broken => Err("ranges only allowed for vector selectors".to_owned()),
        Expr::Matrix(e) => Ok(Target { offset: &mut e.selector.offset, at: &mut e.selector.at, range: &mut e.range }),
        Expr::Subquery(e) => Ok(Target { offset: &mut e.offset, at: &mut e.at, range: &mut e.range }),
        _ => {
            let allowed = "an instant vector selector or range vector selector or a subquery";
            Err(format!("{name} must be preceded by {allowed}"))
        }
    }
}
