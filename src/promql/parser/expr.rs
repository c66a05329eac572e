//! Expressions, their operands, and the literals among them.

use super::operand::{Operand, Pending};
use super::{Parsed, Parser, range_of};
use crate::model::duration::PromDuration;
use crate::promql::ast::{BinaryOp, Expr, NumberLiteral, ParenExpr, PosRange, Sign, StringLiteral, UnaryExpr};
use crate::promql::lexer::{Keyword, Kind, Token, parse_number};
use crate::promql::parser::ParseErrors;
use crate::promql::signatures::ValueType;

/// How tightly operators bind; a higher number binds tighter.
pub(super) mod precedence {
    use crate::promql::ast::BinaryOp;

    /// Whatever there is.
    pub(crate) const LOWEST: u8 = 1;
    /// The operand of a sign: signs bind looser than `^`, and as tight as `*`.
    pub(crate) const SIGNED: u8 = 6;

    /// Precedence of a binary operator.
    pub(crate) fn of(op: BinaryOp) -> u8 {
        match op {
            BinaryOp::Or => LOWEST,
            BinaryOp::And | BinaryOp::Unless => 2,
            BinaryOp::Equal
            | BinaryOp::NotEqual
            | BinaryOp::Less
            | BinaryOp::LessEqual
            | BinaryOp::Greater
            | BinaryOp::GreaterEqual
            | BinaryOp::TrimUpper
            | BinaryOp::TrimLower => 3,
            BinaryOp::Add | BinaryOp::Sub => 4,
            BinaryOp::Mul | BinaryOp::Div | BinaryOp::Mod | BinaryOp::Atan2 => 5,
            BinaryOp::Pow => SIGNED,
        }
    }
}

impl Parser<'_> {
    /// The whole input as an expression.
    pub(super) fn start_expression(&mut self) -> Option<Operand> {
        if self.peek() == Kind::Eof {
            self.error(PosRange::default(), "no expression found in input");
            return None;
        }
        self.start(|parser| parser.expr(precedence::LOWEST))
    }

    /// Checks the root and finishes.
    pub(super) fn finish_expression(mut self, parsed: Option<Operand>) -> Result<Expr, ParseErrors> {
        let expr = parsed.and_then(|operand| self.complete(operand).ok()).map(|child| child.expr);
        self.finish(expr)
    }

    /// An expression of operators that bind at least as tight as `min`.
    pub(super) fn expr(&mut self, min: u8) -> Parsed<Operand> {
        self.enter()?;
        let parsed = match self.operand() {
            Ok(operand) => self.expr_rest(operand, min),
            stopped => stopped,
        };
        self.depth -= 1;
        parsed
    }

    /// The modifiers and operators after an operand.
    pub(super) fn expr_rest(&mut self, mut lhs: Operand, min: u8) -> Parsed<Operand> {
        loop {
            lhs = match self.peek() {
                Kind::Op(op) if precedence::of(op) >= min => self.binary_expr(lhs, op)?,
                Kind::LeftBracket => self.range_or_subquery(lhs)?,
                Kind::At => self.step_invariant_expr(lhs)?,
                Kind::Keyword(Keyword::Offset) => self.offset_expr(lhs)?,
                Kind::Keyword(Keyword::Anchored) => self.anchored_expr(lhs),
                Kind::Keyword(Keyword::Smoothed) => self.smoothed_expr(lhs),
                _ => return Ok(lhs),
            };
        }
    }

    /// An expression without operators and modifiers behind it.
    fn operand(&mut self) -> Parsed<Operand> {
        loop {
            match self.peek() {
                Kind::Number | Kind::Duration => return Ok(self.number_operand()),
                Kind::Text => return Ok(self.string_literal()),
                Kind::LeftParen => return self.paren_expr(),
                Kind::Op(BinaryOp::Add | BinaryOp::Sub) => return self.unary_expr(),
                Kind::LeftBrace => return self.vector_selector(None),
                kind if kind.is_metric_identifier() => return self.named(),
                _ => self.reject()?,
            }
        }
    }

    /// An aggregation, a call or a selector: the token after the name tells.
    fn named(&mut self) -> Parsed<Operand> {
        let name = self.advance();
        match (name.kind, self.peek()) {
            (Kind::Aggregate(op), Kind::LeftParen | Kind::Keyword(Keyword::By) | Kind::Keyword(Keyword::Without)) => {
                self.aggregate_expr(name, op)
            }
            (Kind::Identifier, Kind::LeftParen) => self.function_call(name),
            (Kind::Keyword(word), Kind::LeftParen) if word.may_be_function() => self.function_call(name),
            _ => self.vector_selector(Some(name)),
        }
    }

    fn paren_expr(&mut self) -> Parsed<Operand> {
        let open = self.advance();
        let mut inner = self.expr(precedence::LOWEST)?;
        let close = loop {
            if let Some(close) = self.accept(Kind::RightParen) {
                break close;
            }
            self.reject()?;
            inner = self.expr_rest(inner, precedence::LOWEST)?;
        };
        let child = self.complete(inner)?;
        let range = PosRange::new(open.start, close.end);
        let (value_type, height) = (child.typed.value_type, child.height + 1);
        let expr = Expr::Paren(Box::new(ParenExpr { expr: child.expr, range }));
        Ok(Operand { expr, value_type, height, pending: Pending::Nothing })
    }

    /// A signed expression; the sign of a number becomes part of it.
    fn unary_expr(&mut self) -> Parsed<Operand> {
        let token = self.advance();
        let sign = sign_of(token);
        let mut operand = self.expr(precedence::SIGNED)?;
        if let Expr::Number(number) = &mut operand.expr {
            apply_sign(number, sign, token);
            return Ok(operand);
        }
        let child = self.complete(operand)?;
        let range = PosRange::new(token.start, child.typed.range.end);
        self.types.unary(child.typed, range);
        let (value_type, height) = (child.typed.value_type, child.height + 1);
        let expr = Expr::Unary(Box::new(UnaryExpr { op: sign, expr: child.expr, range }));
        Ok(Operand { expr, value_type, height, pending: Pending::Nothing })
    }

    fn number_operand(&mut self) -> Operand {
        let number = self.number_duration_literal();
        Operand::leaf(Expr::Number(Box::new(number)), ValueType::Scalar)
    }

    /// A number or duration token, which is next.
    pub(super) fn number_duration_literal(&mut self) -> NumberLiteral {
        let token = self.advance();
        let value = self.number_value(token);
        NumberLiteral { value, is_duration: token.kind == Kind::Duration, range: range_of(token) }
    }

    /// The value of a number or duration token; a duration counts in seconds.
    pub(super) fn number_value(&mut self, token: Token) -> f64 {
        let text = self.text(token);
        if token.kind == Kind::Duration {
            return match PromDuration::parse(text) {
                Ok(duration) => duration_seconds(duration),
                Err(error) => {
                    self.error(range_of(token), error.to_string());
                    0.0
                }
            };
        }
        parse_number(text).unwrap_or_else(|error| {
            self.error(range_of(token), format!("error parsing number: {}", error.message));
            error.value
        })
    }

    fn string_literal(&mut self) -> Operand {
        let token = self.advance();
        let value = self.string_bytes(token);
        Operand::leaf(Expr::Text(Box::new(StringLiteral { value, range: range_of(token) })), ValueType::Text)
    }

    /// A number, optionally signed, as `@` and series descriptions take it.
    pub(super) fn signed_or_unsigned_number(&mut self) -> Parsed<f64> {
        loop {
            match self.peek() {
                Kind::Number | Kind::Duration => {
                    let token = self.advance();
                    return Ok(self.number_value(token));
                }
                kind if kind.is_sign() => return self.signed_number(),
                _ => self.reject()?,
            }
        }
    }

    /// A sign, which is next, and a number.
    pub(super) fn signed_number(&mut self) -> Parsed<f64> {
        let sign = sign_of(self.advance());
        let value = self.number()?;
        Ok(if sign == Sign::Minus { -value } else { value })
    }

    /// A number without sign.
    pub(super) fn number(&mut self) -> Parsed<f64> {
        loop {
            if matches!(self.peek(), Kind::Number | Kind::Duration) {
                let token = self.advance();
                return Ok(self.number_value(token));
            }
            self.reject()?;
        }
    }
}

/// The sign that a `+` or `-` token is.
pub(super) fn sign_of(token: Token) -> Sign {
    if token.kind == Kind::Op(BinaryOp::Sub) { Sign::Minus } else { Sign::Plus }
}

/// Makes the sign part of the number.
pub(super) fn apply_sign(number: &mut NumberLiteral, sign: Sign, token: Token) {
    if sign == Sign::Minus {
        number.value = -number.value;
    }
    number.range.start = token.start;
}

/// Go's `Duration.Seconds()`: whole seconds and the rest are converted apart.
fn duration_seconds(duration: PromDuration) -> f64 {
    let ms = duration.as_ms();
    (ms / 1000) as f64 + (ms % 1000 * 1_000_000) as f64 / 1e9
}
