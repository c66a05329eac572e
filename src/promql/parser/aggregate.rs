//! Aggregations and the label lists of groupings.

use super::operand::{Argument, Child, Operand, Pending};
use super::{Parsed, Parser, range_of};
use crate::model::go;
use crate::promql::ast::{AggregateExpr, AggregateOp, Expr, PosRange};
use crate::promql::lexer::{Keyword, Kind, Token};
use crate::promql::signatures::ValueType;

const GROUPING: &str = "grouping opts";

/// `by (…)` or `without (…)`.
#[derive(Default)]
struct Modifier {
    grouping: Vec<String>,
    without: bool,
}

impl Parser<'_> {
    /// An aggregation whose name has been read; a parenthesis or a modifier is next.
    pub(super) fn aggregate_expr(&mut self, name: Token, op: AggregateOp) -> Parsed<Operand> {
        let body = self.aggregate_body();
        let (modifier, args, end) = match self.recover(body, "aggregation", "")? {
            Some((modifier, args, end)) => (modifier, args, end),
            None => (Modifier::default(), Vec::new(), self.last_closing),
        };
        self.new_aggregate_expr(op, modifier, args, PosRange::new(name.start, end))
    }

    /// Modifier, arguments and the end of the text.
    fn aggregate_body(&mut self) -> Parsed<(Modifier, Vec<Argument>, usize)> {
        if let Some(modifier) = self.aggregate_modifier()? {
            let args = self.function_call_body()?;
            return Ok((modifier, args, self.last_closing));
        }
        let args = self.function_call_body()?;
        match self.aggregate_modifier()? {
            Some(modifier) => Ok((modifier, args, self.last_closing)),
            None => {
                // The token behind the arguments has been read, and may have been a parenthesis itself.
                let end = self.lexer.previous_right_paren(self.last_closing);
                Ok((Modifier::default(), args, end))
            }
        }
    }

    fn aggregate_modifier(&mut self) -> Parsed<Option<Modifier>> {
        let without = match self.peek() {
            Kind::Keyword(Keyword::By) => false,
            Kind::Keyword(Keyword::Without) => true,
            _ => return Ok(None),
        };
        self.advance();
        Ok(Some(Modifier { grouping: self.grouping_labels()?, without }))
    }

    fn new_aggregate_expr(
        &mut self,
        op: AggregateOp,
        modifier: Modifier,
        args: Vec<Argument>,
        range: PosRange,
    ) -> Parsed<Operand> {
        if let Some(problem) = self.aggregate_problem(op, args.len()) {
            self.error(range, problem);
            return Ok(Operand::stub(range));
        }
        let mut args = args.into_iter();
        let param = if op.has_param() { args.next() } else { None };
        let Some(arg) = args.next() else { return Ok(Operand::stub(range)) };
        // The operand is checked before the parameter, though it is written behind it.
        let child = self.complete_argument(arg)?;
        self.types.aggregate_operand(child.typed);
        let param = match param {
            Some(arg) => {
                let child = self.complete_argument(arg)?;
                self.types.aggregate_parameter(op, child.typed);
                Some(child)
            }
            None => None,
        };
        let height = param.as_ref().map_or(child.height, |p| p.height.max(child.height)) + 1;
        let expr = Expr::Aggregate(Box::new(AggregateExpr {
            op,
            expr: child.expr,
            param: param.map(|p| p.expr),
            grouping: modifier.grouping,
            without: modifier.without,
            range,
        }));
        Ok(Operand { expr, value_type: ValueType::Vector, height, pending: Pending::Nothing })
    }

    fn aggregate_problem(&self, op: AggregateOp, arg_count: usize) -> Option<String> {
        let wanted = if op.has_param() { 2 } else { 1 };
        if arg_count == 0 {
            return Some("no arguments for aggregate expression provided".to_owned());
        }
        if op.is_experimental() && !self.options.experimental_functions {
            let flag = "--enable-feature=promql-experimental-functions";
            return Some(format!("{op}() is experimental and must be enabled with {flag}"));
        }
        if arg_count != wanted {
            let problem = "wrong number of arguments for aggregate expression provided";
            return Some(format!("{problem}, expected {wanted}, got {arg_count}"));
        }
        None
    }

    /// Finishes an argument: its type errors come first, then those of its outermost node.
    pub(super) fn complete_argument(&mut self, arg: Argument) -> Parsed<Child> {
        self.types.extend(arg.type_errors);
        self.complete(arg.operand)
    }

    /// Labels in parentheses.
    pub(super) fn grouping_labels(&mut self) -> Parsed<Vec<String>> {
        let open = self.expect(Kind::LeftParen);
        match self.recover(open, GROUPING, "\"(\"")? {
            Some(_) => self.grouping_label_list(),
            None => Ok(Vec::new()),
        }
    }

    /// Labels in parentheses, which may be left out before an operand (whose parentheses they would be).
    pub(super) fn maybe_grouping_labels(&mut self) -> Parsed<Vec<String>> {
        let kind = self.peek();
        if kind != Kind::LeftParen && kind.starts_expr() { Ok(Vec::new()) } else { self.grouping_labels() }
    }

    fn grouping_label_list(&mut self) -> Parsed<Vec<String>> {
        let mut labels = Vec::new();
        loop {
            let label = self.grouping_label();
            match self.recover(label, GROUPING, "label")? {
                Some(Some(label)) => labels.push(label),
                Some(None) => return Ok(labels),
                None => {}
            }
            loop {
                let separator = self.comma_or(Kind::RightParen);
                match self.recover(separator, GROUPING, "\",\" or \")\"")? {
                    Some(Kind::Comma) => break,
                    Some(_) => return Ok(labels),
                    None => {}
                }
            }
        }
    }

    /// A label, or `None` at the right parenthesis, which is used.
    fn grouping_label(&mut self) -> Parsed<Option<String>> {
        loop {
            match self.peek() {
                Kind::RightParen => {
                    self.advance();
                    return Ok(None);
                }
                Kind::Text => {
                    let token = self.advance();
                    let bytes = self.string_bytes(token);
                    return Ok(Some(self.checked_grouping_label(token, bytes)));
                }
                kind if kind.is_grouping_label() => {
                    let token = self.advance();
                    return Ok(Some(self.text(token).to_owned()));
                }
                _ => self.reject()?,
            }
        }
    }

    /// Label names are any UTF-8 but the empty string.
    fn checked_grouping_label(&mut self, token: Token, bytes: Vec<u8>) -> String {
        let problem = match String::from_utf8(bytes) {
            Ok(label) if !label.is_empty() => return label,
            Ok(label) => go::quote(&label),
            Err(error) => go::quote_bytes(error.as_bytes()),
        };
        self.error(range_of(token), format!("invalid label name for grouping: {problem}"));
        String::new()
    }

    /// A comma or `end`, which is used; returns which of the two.
    pub(super) fn comma_or(&mut self, end: Kind) -> Parsed<Kind> {
        loop {
            let kind = self.peek();
            if kind == Kind::Comma || kind == end {
                self.advance();
                return Ok(kind);
            }
            self.reject()?;
        }
    }
}
