//! Vector selectors and their matchers.

use super::operand::Operand;
use super::{Parsed, Parser};
use crate::model::labels::METRIC_NAME;
use crate::model::matcher::{MatchOp, Matcher};
use crate::promql::ast::{BinaryOp, DurationValue, Expr, PosRange, VectorSelector};
use crate::promql::lexer::{Kind, Token};
use crate::promql::signatures::ValueType;

pub(super) const LABEL_MATCHING: &str = "label matching";
const COMMA_OR_BRACE: &str = "\",\" or \"}\"";
const STRING: &str = "string";

impl Parser<'_> {
    /// A selector as the whole input.
    pub(super) fn metric_selector(&mut self) -> Parsed<Vec<Matcher>> {
        let selector = loop {
            match self.peek() {
                Kind::LeftBrace => break self.selector(None)?,
                kind if kind.is_metric_identifier() => {
                    let name = self.advance();
                    break self.selector(Some(name))?;
                }
                _ => self.reject()?,
            }
        };
        Ok(selector.matchers)
    }

    /// A selector whose name, if any, has been read; without name a left brace is next.
    pub(super) fn vector_selector(&mut self, name: Option<Token>) -> Parsed<Operand> {
        let selector = self.selector(name)?;
        Ok(Operand::leaf(Expr::Vector(Box::new(selector)), ValueType::Vector))
    }

    fn selector(&mut self, name: Option<Token>) -> Parsed<VectorSelector> {
        let (mut matchers, mut range) = (Vec::new(), PosRange::default());
        if self.peek() == Kind::LeftBrace {
            (matchers, range) = self.label_matchers()?;
        } else if let Some(token) = name {
            range.end = token.end;
        }
        let mut text = "";
        if let Some(token) = name {
            text = self.text(token);
            range.start = token.start;
            matchers.push(Matcher::equal(METRIC_NAME, text));
        }
        Ok(VectorSelector {
            name: text.to_owned(),
            matchers,
            offset: DurationValue::ZERO,
            at: None,
            extension: None,
            allow_empty_match: false,
            range,
        })
    }

    /// Matchers in braces; the left brace is next.
    fn label_matchers(&mut self) -> Parsed<(Vec<Matcher>, PosRange)> {
        let open = self.advance();
        let mut matchers = Vec::new();
        let close = self.braced_list(LABEL_MATCHING, |parser| {
            let matcher = parser.label_matcher()?;
            matchers.extend(matcher);
            Ok(())
        })?;
        Ok((matchers, PosRange::new(open.start, close.end)))
    }

    /// Items separated by commas, up to the right brace, which is returned. A comma may stand behind the last item.
    pub(super) fn braced_list(
        &mut self,
        context: &str,
        mut item: impl FnMut(&mut Self) -> Parsed<()>,
    ) -> Parsed<Token> {
        loop {
            if let Some(close) = self.accept(Kind::RightBrace) {
                return Ok(close);
            }
            let parsed = match self.peek() {
                Kind::Identifier | Kind::Text => item(self),
                _ => match self.reject() {
                    Ok(()) => continue,
                    Err(stop) => Err(stop),
                },
            };
            self.recover(parsed, context, "identifier or \"}\"")?;
            loop {
                let separator = self.comma_or(Kind::RightBrace);
                match self.recover(separator, context, COMMA_OR_BRACE)? {
                    Some(Kind::Comma) => break,
                    Some(_) => return Ok(self.last),
                    None => {}
                }
            }
        }
    }

    /// `name op "value"`, or a quoted metric name alone; the name is next. `None` after an error.
    fn label_matcher(&mut self) -> Parsed<Option<Matcher>> {
        let name = self.advance();
        let label = if name.kind == Kind::Text {
            let label = self.string_text(name);
            if match_op(self.peek()).is_none() {
                return Ok(Some(Matcher::equal(METRIC_NAME, label)));
            }
            label
        } else {
            self.text(name).to_owned()
        };
        let op = self.match_op();
        let Some(op) = self.recover(op, LABEL_MATCHING, "label matching operator")? else { return Ok(None) };
        let value = self.expect(Kind::Text);
        let Some(value) = self.recover(value, LABEL_MATCHING, STRING)? else { return Ok(None) };
        let text = self.string_text(value);
        match Matcher::new(op, label, text) {
            Ok(matcher) => Ok(Some(matcher)),
            Err(error) => {
                self.error(PosRange::new(name.start, value.end), error.to_string());
                Ok(None)
            }
        }
    }

    fn match_op(&mut self) -> Parsed<MatchOp> {
        loop {
            let kind = self.peek();
            if let Some(op) = match_op(kind) {
                self.advance();
                return Ok(op);
            }
            self.reject()?;
        }
    }
}

fn match_op(kind: Kind) -> Option<MatchOp> {
    match kind {
        Kind::Equal => Some(MatchOp::Equal),
        Kind::Op(BinaryOp::NotEqual) => Some(MatchOp::NotEqual),
        Kind::EqualRegex => Some(MatchOp::Regex),
        Kind::NotEqualRegex => Some(MatchOp::NotRegex),
        _ => None,
    }
}
