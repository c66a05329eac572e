//! Durations of ranges, steps and offsets, which may be computed.

use super::expr::{apply_sign, precedence, sign_of};
use super::{DEPTH_MAX, Parsed, Parser, range_of};
use crate::promql::ast::{
    BinaryOp, DurationChoice, DurationExpr, DurationKind, DurationOp, DurationOperand, NumberLiteral, PosRange, Sign,
};
use crate::promql::lexer::{Keyword, Kind, Token};

/// Longest duration in seconds: a signed 64-bit count of nanoseconds.
const SECONDS_MAX: f64 = (1_u64 << 63) as f64 / 1e9;

/// A parsed duration and the height of its tree.
pub(super) struct Duration {
    operand: DurationOperand,
    height: usize,
}

impl Parser<'_> {
    /// The duration of a range or step, which has to be greater than zero if it is known.
    pub(super) fn positive_duration_expr(&mut self) -> Parsed<DurationOperand> {
        let duration = self.duration_expr(precedence::LOWEST)?;
        match duration.operand {
            DurationOperand::Number(number) if number.value <= 0.0 => {
                self.error(number.range, "duration must be greater than 0");
                Ok(DurationOperand::Number(zero()))
            }
            operand => Ok(operand),
        }
    }

    /// The duration of an offset. Operators behind a number or call belong to the expression around the selector, and
    /// only those behind parentheses to the duration.
    pub(super) fn offset_duration_expr(&mut self) -> Parsed<DurationOperand> {
        loop {
            return match self.peek() {
                Kind::LeftParen => Ok(self.duration_expr(precedence::LOWEST)?.operand),
                kind if kind.is_sign() => self.signed_offset(),
                kind if kind.starts_duration() => Ok(self.duration_operand()?.operand),
                _ => {
                    self.reject()?;
                    continue;
                }
            };
        }
    }

    /// An offset that begins with a sign, which is next.
    fn signed_offset(&mut self) -> Parsed<DurationOperand> {
        let token = self.advance();
        let sign = sign_of(token);
        loop {
            match self.peek() {
                Kind::Number | Kind::Duration => {
                    let mut number = self.number_duration_literal();
                    let range = range_of(token);
                    apply_sign(&mut number, sign, token);
                    return Ok(DurationOperand::Number(self.number_in_range(number, range)));
                }
                Kind::LeftParen => {
                    self.advance();
                    let inner = self.duration_until(Kind::RightParen)?;
                    let start = inner.operand.range().start;
                    return Ok(self.apply_duration_sign(sign, token, wrap(inner, start)).operand);
                }
                Kind::Keyword(Keyword::Step | Keyword::Range | Keyword::MaxOf | Keyword::MinOf) => {
                    return self.signed_offset_call(sign, token);
                }
                kind if kind.is_sign() => {
                    let inner = self.duration_expr(precedence::SIGNED)?;
                    let signed = self.apply_duration_sign(sign, token, inner);
                    return Ok(self.duration_rest(signed, precedence::LOWEST)?.operand);
                }
                _ => self.reject()?,
            }
        }
    }

    /// A signed `step()`, `range()`, `min_of()` or `max_of()`. Unlike elsewhere, a plus sign is kept.
    fn signed_offset_call(&mut self, sign: Sign, token: Token) -> Parsed<DurationOperand> {
        let (mut inner, _) = self.duration_call()?;
        let range = PosRange::new(token.start, inner.range.end);
        if let DurationKind::Choice { rhs, call, .. } = &mut inner.kind {
            call.end = rhs.range().end;
        }
        let kind = DurationKind::Unary { op: sign, operand: DurationOperand::Expr(Box::new(inner)) };
        self.experimental_duration(range);
        Ok(DurationOperand::Expr(Box::new(DurationExpr { kind, wrapped: false, range })))
    }

    /// A duration of operators that bind at least as tight as `min`.
    fn duration_expr(&mut self, min: u8) -> Parsed<Duration> {
        self.enter()?;
        let parsed = match self.duration_operand() {
            Ok(operand) => self.duration_rest(operand, min),
            stopped => stopped,
        };
        self.depth -= 1;
        parsed
    }

    /// The operators behind an operand.
    fn duration_rest(&mut self, mut lhs: Duration, min: u8) -> Parsed<Duration> {
        loop {
            let Kind::Op(op) = self.peek() else { return Ok(lhs) };
            let Some(duration_op) = duration_op(op) else { return Ok(lhs) };
            let binding = precedence::of(op);
            if binding < min {
                return Ok(lhs);
            }
            let token = self.advance();
            let rhs = self.duration_expr(if op == BinaryOp::Pow { binding } else { binding + 1 })?;
            lhs = self.duration_binary(duration_op, token, lhs, rhs)?;
        }
    }

    fn duration_operand(&mut self) -> Parsed<Duration> {
        loop {
            match self.peek() {
                Kind::Number | Kind::Duration => {
                    let number = self.number_duration_literal();
                    let range = number.range;
                    let number = self.number_in_range(number, range);
                    return Ok(Duration { operand: DurationOperand::Number(number), height: 1 });
                }
                kind if kind.is_sign() => {
                    let token = self.advance();
                    let inner = self.duration_expr(precedence::SIGNED)?;
                    return Ok(self.apply_duration_sign(sign_of(token), token, inner));
                }
                Kind::Keyword(Keyword::Step | Keyword::Range | Keyword::MaxOf | Keyword::MinOf) => {
                    let (expr, height) = self.duration_call()?;
                    self.experimental_duration(expr.range);
                    return Ok(Duration { operand: DurationOperand::Expr(Box::new(expr)), height });
                }
                Kind::LeftParen => return self.paren_duration_expr(),
                _ => self.reject()?,
            }
        }
    }

    fn paren_duration_expr(&mut self) -> Parsed<Duration> {
        let open = self.advance();
        let inner = self.duration_until(Kind::RightParen)?;
        self.experimental_duration(inner.operand.range());
        Ok(wrap(inner, open.start))
    }

    /// `step()`, `range()`, or `min_of` or `max_of` of two durations; the name is next. Also returns the tree's height.
    fn duration_call(&mut self) -> Parsed<(DurationExpr, usize)> {
        let name = self.advance();
        self.expect(Kind::LeftParen)?;
        let op = match name.kind {
            Kind::Keyword(Keyword::MinOf) => DurationChoice::Min,
            Kind::Keyword(Keyword::MaxOf) => DurationChoice::Max,
            kind => {
                let close = self.expect(Kind::RightParen)?;
                let is_step = kind == Kind::Keyword(Keyword::Step);
                let kind = if is_step { DurationKind::Step } else { DurationKind::Range };
                return Ok((DurationExpr { kind, wrapped: false, range: PosRange::new(name.start, close.end) }, 1));
            }
        };
        let lhs = self.duration_until(Kind::Comma)?;
        let rhs = self.duration_until(Kind::RightParen)?;
        let height = self.height_over(&lhs, &rhs)?;
        let (lhs, rhs) = (lhs.operand, rhs.operand);
        let range = PosRange::merge(lhs.range(), rhs.range());
        let call = PosRange::new(name.start, self.last.end);
        Ok((DurationExpr { kind: DurationKind::Choice { op, lhs, rhs, call }, wrapped: false, range }, height))
    }

    /// A duration and the token behind it, which has to be of kind `end`.
    fn duration_until(&mut self, end: Kind) -> Parsed<Duration> {
        let mut duration = self.duration_expr(precedence::LOWEST)?;
        while self.accept(end).is_none() {
            self.reject()?;
            duration = self.duration_rest(duration, precedence::LOWEST)?;
        }
        Ok(duration)
    }

    fn duration_binary(&mut self, op: DurationOp, token: Token, lhs: Duration, rhs: Duration) -> Parsed<Duration> {
        self.experimental_duration(lhs.operand.range());
        let by_zero = matches!(&rhs.operand, DurationOperand::Number(number) if number.value == 0.0);
        let problem = match op {
            DurationOp::Div if by_zero => Some("division by zero"),
            DurationOp::Mod if by_zero => Some("modulo by zero"),
            _ => None,
        };
        if let Some(problem) = problem {
            self.error(range_of(token), problem);
            return Ok(Duration { operand: DurationOperand::Number(zero()), height: 1 });
        }
        let height = self.height_over(&lhs, &rhs)?;
        let (lhs, rhs) = (lhs.operand, rhs.operand);
        let range = PosRange::merge(lhs.range(), rhs.range());
        let expr = DurationExpr { kind: DurationKind::Binary { op, lhs, rhs }, wrapped: false, range };
        Ok(Duration { operand: DurationOperand::Expr(Box::new(expr)), height })
    }

    /// Height of a tree over two others.
    fn height_over(&mut self, lhs: &Duration, rhs: &Duration) -> Parsed<usize> {
        let height = lhs.height.max(rhs.height) + 1;
        if height > DEPTH_MAX { self.too_deep() } else { Ok(height) }
    }

    fn apply_duration_sign(&mut self, sign: Sign, token: Token, inner: Duration) -> Duration {
        match inner.operand {
            DurationOperand::Number(mut number) => {
                apply_sign(&mut number, sign, token);
                let number = self.number_in_range(number, range_of(token));
                Duration { operand: DurationOperand::Number(number), height: 1 }
            }
            DurationOperand::Expr(expr) if sign == Sign::Minus => {
                let range = PosRange::new(token.start, expr.range.end);
                let kind = DurationKind::Unary { op: sign, operand: DurationOperand::Expr(expr) };
                let expr = DurationExpr { kind, wrapped: false, range };
                Duration { operand: DurationOperand::Expr(Box::new(expr)), height: inner.height + 1 }
            }
            operand => Duration { operand, ..inner },
        }
    }

    /// The number, or zero and an error at `range` if no duration is that long.
    fn number_in_range(&mut self, number: NumberLiteral, range: PosRange) -> NumberLiteral {
        if number.value.abs() > SECONDS_MAX {
            self.error(range, "duration out of range");
            return zero();
        }
        number
    }

    fn experimental_duration(&mut self, range: PosRange) {
        if !self.options.duration_expressions {
            self.error(range, "experimental duration expression is not enabled");
        }
    }
}

fn duration_op(op: BinaryOp) -> Option<DurationOp> {
    Some(match op {
        BinaryOp::Add => DurationOp::Add,
        BinaryOp::Sub => DurationOp::Sub,
        BinaryOp::Mul => DurationOp::Mul,
        BinaryOp::Div => DurationOp::Div,
        BinaryOp::Mod => DurationOp::Mod,
        BinaryOp::Pow => DurationOp::Pow,
        _ => return None,
    })
}

/// Notes that a duration stood in parentheses, which begin at `start` if it is a number.
fn wrap(duration: Duration, start: usize) -> Duration {
    match duration.operand {
        DurationOperand::Expr(mut expr) => {
            expr.wrapped = true;
            Duration { operand: DurationOperand::Expr(expr), ..duration }
        }
        DurationOperand::Number(number) => {
            let range = PosRange::new(start, number.range.end);
            let kind = DurationKind::Unary { op: Sign::Plus, operand: DurationOperand::Number(number) };
            let expr = DurationExpr { kind, wrapped: true, range };
            Duration { operand: DurationOperand::Expr(Box::new(expr)), height: 2 }
        }
    }
}

/// Stands for a duration that has been reported as faulty.
fn zero() -> NumberLiteral {
    NumberLiteral { value: 0.0, is_duration: false, range: PosRange::default() }
}
