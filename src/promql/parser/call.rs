//! Function calls.

use super::operand::{Argument, Operand, Pending};
use super::{Parsed, Parser, range_of};
use crate::model::go;
use crate::promql::ast::{Call, Expr, PosRange};
use crate::promql::lexer::{Kind, Token};
use crate::promql::parser::expr::precedence;
use crate::promql::signatures::{Function, function};
use crate::promql::typing::Typed;

impl Parser<'_> {
    /// A call of the function `name`; the left parenthesis is next.
    pub(super) fn function_call(&mut self, name: Token) -> Parsed<Operand> {
        let args = self.function_call_body()?;
        let range = PosRange::new(name.start, self.last_closing);
        let Some(func) = function(self.text(name)) else {
            let quoted = go::quote(self.text(name));
            self.error(range_of(name), format!("unknown function with name {quoted}"));
            return Ok(Operand::stub(range));
        };
        if func.experimental && !self.options.experimental_functions {
            self.error(range_of(name), format!("function {} is not enabled", go::quote(func.name)));
        }
        self.call(func, args, range)
    }

    /// Arguments in parentheses.
    pub(super) fn function_call_body(&mut self) -> Parsed<Vec<Argument>> {
        self.expect(Kind::LeftParen)?;
        let mut args = Vec::new();
        let mut more = self.has_arguments()?;
        while more {
            args.push(self.argument()?);
            more = self.has_more_arguments()?;
        }
        Ok(args)
    }

    /// True if an argument is next; uses the right parenthesis if not.
    fn has_arguments(&mut self) -> Parsed<bool> {
        loop {
            match self.peek() {
                Kind::RightParen => {
                    self.advance();
                    return Ok(false);
                }
                kind if kind.starts_expr() => return Ok(true),
                _ => self.reject()?,
            }
        }
    }

    /// The same behind an argument: uses the comma or the right parenthesis.
    fn has_more_arguments(&mut self) -> Parsed<bool> {
        while self.comma_or(Kind::RightParen)? == Kind::Comma {
            let comma = self.last;
            if self.peek().starts_expr() {
                return Ok(true);
            }
            self.error(range_of(comma), "trailing commas not allowed in function call args");
        }
        Ok(false)
    }

    fn argument(&mut self) -> Parsed<Argument> {
        let mark = self.types.mark();
        let operand = self.expr(precedence::LOWEST)?;
        Ok(Argument { operand, type_errors: self.types.take_since(mark) })
    }

    /// Checks the arguments and builds the call.
    fn call(&mut self, func: &'static Function, mut args: Vec<Argument>, range: PosRange) -> Parsed<Operand> {
        self.types.call(func, args.len(), range);
        if let ("info", Some(selector)) = (func.name, args.get_mut(1)) {
            self.info_selector(&mut selector.operand, range);
        }
        let (mut children, mut height) = (Vec::with_capacity(args.len()), 0);
        for (index, arg) in args.into_iter().enumerate() {
            // Arguments too many are faulty anyway and not looked into.
            let mark = self.types.mark();
            let wanted = func.arg_type(index);
            let child = self.complete_argument(arg)?;
            match wanted {
                Some(wanted) => self.types.argument(func, wanted, child.typed),
                None => drop(self.types.take_since(mark)),
            }
            height = height.max(child.height);
            children.push(child.expr);
        }
        let expr = Expr::Call(Box::new(Call { func, args: children, range }));
        Ok(Operand { expr, value_type: func.return_type, height: height + 1, pending: Pending::Nothing })
    }

    /// The second argument of `info()` is a selector that stands for labels: without name, and it may match anything.
    fn info_selector(&mut self, operand: &mut Operand, call: PosRange) {
        let typed = Typed { value_type: operand.value_type, range: operand.expr.range() };
        let has_name = match &mut operand.expr {
            Expr::Vector(selector) => {
                selector.allow_empty_match = selector.name.is_empty();
                Some(!selector.name.is_empty())
            }
            _ => None,
        };
        self.types.info_selector(typed, has_name, call);
    }
}
