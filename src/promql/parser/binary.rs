//! Binary operators and how they match vectors.

use super::operand::{Operand, Pending};
use super::{Parsed, Parser};
use crate::promql::ast::{BinaryExpr, BinaryOp, Cardinality, Expr, FillValues, PosRange, VectorMatching};
use crate::promql::lexer::{Keyword, Kind};
use crate::promql::parser::expr::{apply_sign, precedence, sign_of};
use crate::promql::signatures::ValueType;
use crate::promql::typing::Operation;

impl Parser<'_> {
    /// The operator `op`, which is next, and its right operand.
    pub(super) fn binary_expr(&mut self, lhs: Operand, op: BinaryOp) -> Parsed<Operand> {
        self.advance();
        let (return_bool, matching) = self.bin_modifier()?;
        // All operators but `^` group from the left.
        let binding = precedence::of(op);
        let rhs = self.expr(if op == BinaryOp::Pow { binding } else { binding + 1 })?;

        let lhs = self.complete(lhs)?;
        let rhs = self.complete(rhs)?;
        let range = PosRange::merge(lhs.typed.range, rhs.typed.range);
        let has_fill = matching.fill.lhs.is_some() || matching.fill.rhs.is_some();
        if has_fill && !self.options.fill_modifiers {
            self.error(range, "binop fill modifiers are experimental and not enabled");
        }
        let operation = Operation { op, return_bool, lhs: lhs.typed, rhs: rhs.typed, range };
        let matching = self.types.binary(operation, matching);
        let value_type = match (lhs.typed.value_type, rhs.typed.value_type) {
            (ValueType::Scalar, ValueType::Scalar) => ValueType::Scalar,
            _ => ValueType::Vector,
        };
        let height = lhs.height.max(rhs.height) + 1;
        let expr =
            Expr::Binary(Box::new(BinaryExpr { op, lhs: lhs.expr, rhs: rhs.expr, matching, return_bool, range }));
        Ok(Operand { expr, value_type, height, pending: Pending::Nothing })
    }

    /// `bool`, then `on` or `ignoring` with group modifiers, then fill values; each is optional.
    fn bin_modifier(&mut self) -> Parsed<(bool, VectorMatching)> {
        let return_bool = self.accept(Kind::Keyword(Keyword::Bool)).is_some();
        let mut matching = VectorMatching {
            card: Cardinality::OneToOne,
            labels: Vec::new(),
            on: false,
            include: Vec::new(),
            fill: FillValues::default(),
        };
        if let Kind::Keyword(word @ (Keyword::On | Keyword::Ignoring)) = self.peek() {
            self.advance();
            matching.on = word == Keyword::On;
            matching.labels = self.grouping_labels()?;
            self.group_modifiers(&mut matching)?;
        }
        matching.fill = self.fill_modifiers()?;
        Ok((return_bool, matching))
    }

    fn group_modifiers(&mut self, matching: &mut VectorMatching) -> Parsed<()> {
        matching.card = match self.peek() {
            Kind::Keyword(Keyword::GroupLeft) => Cardinality::ManyToOne,
            Kind::Keyword(Keyword::GroupRight) => Cardinality::OneToMany,
            _ => return Ok(()),
        };
        self.advance();
        matching.include = self.maybe_grouping_labels()?;
        Ok(())
    }

    fn fill_modifiers(&mut self) -> Parsed<FillValues> {
        let mut fill = FillValues::default();
        match self.peek() {
            Kind::Keyword(Keyword::Fill) => {
                self.advance();
                let value = Some(self.fill_value()?);
                fill = FillValues { lhs: value, rhs: value };
            }
            Kind::Keyword(Keyword::FillLeft) => {
                self.advance();
                fill.lhs = Some(self.fill_value()?);
                if self.accept(Kind::Keyword(Keyword::FillRight)).is_some() {
                    fill.rhs = Some(self.fill_value()?);
                }
            }
            Kind::Keyword(Keyword::FillRight) => {
                self.advance();
                fill.rhs = Some(self.fill_value()?);
                if self.accept(Kind::Keyword(Keyword::FillLeft)).is_some() {
                    fill.lhs = Some(self.fill_value()?);
                }
            }
            _ => {}
        }
        Ok(fill)
    }

    /// A number in parentheses, optionally signed.
    fn fill_value(&mut self) -> Parsed<f64> {
        self.expect(Kind::LeftParen)?;
        let mut sign = None;
        loop {
            match self.peek() {
                Kind::Number | Kind::Duration => break,
                kind if kind.is_sign() && sign.is_none() => sign = Some(self.advance()),
                _ => self.reject()?,
            }
        }
        let mut number = self.number_duration_literal();
        if let Some(token) = sign {
            apply_sign(&mut number, sign_of(token), token);
        }
        self.expect(Kind::RightParen)?;
        Ok(number.value)
    }
}
