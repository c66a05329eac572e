//! Range selectors and subqueries.

use super::operand::{Operand, Pending};
use super::{Parsed, Parser};
use crate::promql::ast::{
    DurationNs, DurationOperand, DurationValue, Expr, MatrixSelector, PosRange, SubqueryExpr, VectorSelector,
};
use crate::promql::lexer::{Kind, Token};
use crate::promql::signatures::ValueType;

impl Parser<'_> {
    /// A range in brackets behind `base`; the left bracket is next.
    pub(super) fn range_or_subquery(&mut self, base: Operand) -> Parsed<Operand> {
        let open = self.advance();
        let window = self.positive_duration_expr();
        let expected = "number, duration, step(), or range()";
        let Some(window) = self.recover(window, "subquery or range selector", expected)? else { return Ok(base) };

        let separator = self.colon_or_bracket();
        match self.recover(separator, "subquery or range", "\":\" or \"]\"")? {
            None => Ok(base),
            Some(token) if token.kind == Kind::RightBracket => Ok(self.matrix_selector(base, open, window, token)),
            Some(_) => self.subquery_expr(base, window),
        }
    }

    fn colon_or_bracket(&mut self) -> Parsed<Token> {
        loop {
            match self.peek() {
                Kind::Colon | Kind::RightBracket => return Ok(self.advance()),
                _ => self.reject()?,
            }
        }
    }

    fn matrix_selector(&mut self, base: Operand, open: Token, window: DurationOperand, close: Token) -> Operand {
        let problem = match &base.expr {
            Expr::Vector(selector) if !selector.offset.is_zero() => Some("no offset modifiers allowed before range"),
            Expr::Vector(selector) if selector.at.is_some() => Some("no @ modifiers allowed before range"),
            Expr::Vector(_) => None,
            _ => Some("ranges only allowed for vector selectors"),
        };
        if let Some(problem) = problem {
            self.error(PosRange::new(open.start, close.end), problem);
        }
        let range = PosRange::new(base.expr.range().start, self.last_closing);
        let (selector, pending) = match base.expr {
            Expr::Vector(selector) => (*selector, Pending::Nothing),
            other => (empty_selector(other.range()), Pending::BrokenRange),
        };
        let expr = Expr::Matrix(Box::new(MatrixSelector { selector, window: duration_value(window), range }));
        Operand { expr, value_type: ValueType::Matrix, height: 1, pending }
    }

    /// The rest of a subquery behind its colon.
    fn subquery_expr(&mut self, base: Operand, window: DurationOperand) -> Parsed<Operand> {
        let step = self.subquery_step();
        let expected = "number, duration, step(), range(), or \"]\"";
        let Some(step) = self.recover(step, "subquery selector", expected)? else { return Ok(base) };
        let close = match step {
            SubqueryStep::None(close) => Ok(close),
            SubqueryStep::Some(_) => self.expect(Kind::RightBracket),
        };
        let Some(close) = self.recover(close, "subquery selector", "\"]\"")? else { return Ok(base) };

        let child = self.complete(base)?;
        let range = PosRange::new(child.typed.range.start, close.end);
        let expr = Expr::Subquery(Box::new(SubqueryExpr {
            expr: child.expr,
            window: duration_value(window),
            step: step.into_value(),
            offset: DurationValue::ZERO,
            at: None,
            range,
        }));
        let pending = Pending::Subquery(child.typed.value_type);
        Ok(Operand { expr, value_type: ValueType::Matrix, height: child.height + 1, pending })
    }

    fn subquery_step(&mut self) -> Parsed<SubqueryStep> {
        loop {
            match self.peek() {
                Kind::RightBracket => return Ok(SubqueryStep::None(self.advance())),
                kind if kind.starts_duration() => return Ok(SubqueryStep::Some(self.positive_duration_expr()?)),
                _ => self.reject()?,
            }
        }
    }
}

/// What follows the colon of a subquery.
enum SubqueryStep {
    /// The right bracket.
    None(Token),
    Some(DurationOperand),
}

impl SubqueryStep {
    fn into_value(self) -> Option<DurationValue> {
        match self {
            Self::None(_) => None,
            Self::Some(step) => Some(duration_value(step)),
        }
    }
}

/// What a parsed duration stands for.
pub(super) fn duration_value(operand: DurationOperand) -> DurationValue {
    match operand {
        DurationOperand::Number(number) => DurationValue::Literal(DurationNs::from_seconds(number.value)),
        DurationOperand::Expr(expr) => DurationValue::Expr(expr),
    }
}

/// Stands for a range over something that is no selector, which has been reported.
fn empty_selector(range: PosRange) -> VectorSelector {
    VectorSelector {
        name: String::new(),
        matchers: Vec::new(),
        offset: DurationValue::ZERO,
        at: None,
        extension: None,
        allow_empty_match: false,
        range,
    }
}
