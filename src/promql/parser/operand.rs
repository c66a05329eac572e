//! A parsed part of an expression on its way to becoming a child of another.

use super::{DEPTH_MAX, Parsed, Parser};
use crate::promql::ast::{Expr, NumberLiteral, PosRange};
use crate::promql::parser::ParseError;
use crate::promql::signatures::ValueType;
use crate::promql::typing::Typed;

/// An expression to which modifiers may still be added.
pub(super) struct Operand {
    pub(super) expr: Expr,
    pub(super) value_type: ValueType,
    /// Height of the tree; a leaf has 1.
    pub(super) height: usize,
    /// What has to be checked once all modifiers, and with them the end of the text, are known.
    pub(super) pending: Pending,
}

/// Checks that wait for the modifiers.
pub(super) enum Pending {
    Nothing,
    /// A range selector over something else than a selector, which has been reported.
    BrokenRange,
    /// The type of what a subquery evaluates.
    Subquery(ValueType),
}

/// A finished part: its tree, and what its parent has to know of it.
pub(super) struct Child {
    pub(super) expr: Expr,
    pub(super) typed: Typed,
    pub(super) height: usize,
}

/// An argument of a call, with the type errors found in it: they are reported after those of the call.
pub(super) struct Argument {
    pub(super) operand: Operand,
    pub(super) type_errors: Vec<ParseError>,
}

impl Operand {
    pub(super) fn leaf(expr: Expr, value_type: ValueType) -> Self {
        Self { expr, value_type, height: 1, pending: Pending::Nothing }
    }

    /// A stand-in for what could not be parsed, which has been reported.
    pub(super) fn stub(range: PosRange) -> Self {
        Self::leaf(stub(range), ValueType::Vector)
    }
}

impl Parser<'_> {
    /// Finishes an operand: no modifier follows, so it can be checked.
    pub(super) fn complete(&mut self, operand: Operand) -> Parsed<Child> {
        let Operand { expr, value_type, height, pending } = operand;
        let range = expr.range();
        match (&expr, pending) {
            (Expr::Vector(selector), _) => self.types.selector(selector),
            (Expr::Matrix(matrix), Pending::Nothing) => self.types.selector(&matrix.selector),
            (_, Pending::Subquery(inner)) => self.types.subquery(inner, range),
            _ => {}
        }
        let typed = Typed { value_type, range };
        if self.has_errors() {
            // There will be no tree, only errors. So that a long faulty chain does not grow high, the tree is cut here.
            return Ok(Child { expr: stub(range), typed, height: 1 });
        }
        if height >= DEPTH_MAX {
            return self.too_deep();
        }
        Ok(Child { expr, typed, height })
    }

    fn has_errors(&self) -> bool {
        !self.errors.is_empty() || self.types.has_errors()
    }
}

fn stub(range: PosRange) -> Expr {
    Expr::Number(Box::new(NumberLiteral { value: 0.0, is_duration: false, range }))
}
