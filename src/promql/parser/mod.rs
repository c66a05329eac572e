//! From text to syntax tree: recursive descent, one function for each production of the grammar.
//!
//! Accepted language, error texts, error positions and the list of errors are those of Prometheus, whose parser is an LR
//! automaton. Two of its habits show in the results and are kept on purpose:
//! - *How far it has read.* An error names the token that was read last, and the end of a modifier is the last bracket or
//!   number that was read. So tokens are read only where the automaton would look ahead.
//! - *How it goes on after an error.* Some productions catch a syntax error below them, report it and continue
//!   ([`Parser::recover`]); tokens that fit nowhere are then dropped until three have fitted again ([`Parser::reject`]).
//!
//! Nesting is bounded by [`DEPTH_MAX`], and no tree is higher than that, so recursion over trees is safe.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod aggregate;
mod binary;
mod call;
mod duration;
mod error;
mod expr;
mod histogram;
mod labels;
mod modifier;
mod operand;
mod range;
mod selector;
mod series;

pub use self::error::{ParseError, ParseErrors, position};
pub use self::series::{SEQUENCE_LEN_MAX, SequenceValue, SeriesDescription};

use crate::model::go;
use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::promql::ast::{Expr, PosRange};
use crate::promql::lexer::{Kind, Lexer, Token, unquote};
use crate::promql::typing::TypeChecker;

/// Most levels of nesting in an expression, and so the greatest height of a tree. Prometheus has no such limit.
pub const DEPTH_MAX: usize = 500;

/// The language that queries are written in. Others would be an error, not an approximation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// PromQL as in Prometheus 3.14.
    #[default]
    Prometheus,
}

/// What a parse accepts beyond the stable language; given to each parse. The default is that of Prometheus's flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ParseOptions {
    /// Functions and aggregations marked as experimental (`promql-experimental-functions`).
    pub experimental_functions: bool,
    /// Arithmetic in durations (on by default since Prometheus 3.14).
    pub duration_expressions: bool,
    /// `anchored` and `smoothed` (`promql-extended-range-selectors`).
    pub extended_range_selectors: bool,
    /// `fill`, `fill_left` and `fill_right` (`promql-binop-fill-modifiers`).
    pub fill_modifiers: bool,
    /// The language.
    pub dialect: Dialect,
}

impl ParseOptions {
    /// All of the language, as test scripts use it.
    pub const ALL: Self = Self {
        experimental_functions: true,
        duration_expressions: true,
        extended_range_selectors: true,
        fill_modifiers: true,
        dialect: Dialect::Prometheus,
    };
}

impl Default for ParseOptions {
    fn default() -> Self {
        Self {
            experimental_functions: false,
            duration_expressions: true,
            extended_range_selectors: false,
            fill_modifiers: false,
            dialect: Dialect::Prometheus,
        }
    }
}

/// Parses and type-checks an expression.
pub fn parse_expr(input: &str, options: &ParseOptions) -> Result<Expr, ParseErrors> {
    let mut parser = Parser::new(Lexer::new(input), *options);
    let parsed = parser.start_expression();
    parser.finish_expression(parsed)
}

/// Parses a metric, as `name{a="1"}`; all parts are optional.
pub fn parse_metric(input: &str) -> Result<Labels, ParseErrors> {
    let mut parser = Parser::new(Lexer::new(input), ParseOptions::default());
    let parsed = parser.start(Parser::metric);
    parser.finish(parsed)
}

/// Parses an instant vector selector without modifiers, as the API's `match[]` holds them. Unlike in an expression, it
/// may match everything, and may name the metric twice.
pub fn parse_metric_selector(input: &str) -> Result<Vec<Matcher>, ParseErrors> {
    let mut parser = Parser::new(Lexer::new(input), ParseOptions::default());
    let parsed = parser.start(Parser::metric_selector);
    parser.finish(parsed)
}

/// Parses several selectors, up to the first faulty one.
pub fn parse_metric_selectors<S: AsRef<str>>(inputs: &[S]) -> Result<Vec<Vec<Matcher>>, ParseErrors> {
    inputs.iter().map(|input| parse_metric_selector(input.as_ref())).collect()
}

/// Parses a series description of test files, as `name{a="1"} 0+10x5 _ 7 stale`.
pub fn parse_series_desc(input: &str) -> Result<SeriesDescription, ParseErrors> {
    let mut parser = Parser::new(Lexer::for_series(input), ParseOptions::default());
    let parsed = parser.start(Parser::series_description);
    parser.finish(parsed)
}

/// Why a production was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// The next token does not fit; whoever can recover reports it.
    Syntax,
    /// Parsing cannot go on; what there is to say has been reported.
    Abort,
}

type Parsed<T> = Result<T, Stop>;

/// Tokens that have to fit after an error until the next one unwinds and is reported again.
const RECOVERY_LEN: u8 = 3;

struct Parser<'a> {
    lexer: Lexer<'a>,
    options: ParseOptions,
    /// The token that has been read and not been used, if any.
    lookahead: Option<Token>,
    /// The token that was read last.
    last: Token,
    /// End of the closing bracket, number or duration that was read last: where a modifier ends.
    last_closing: usize,
    /// Tokens that still have to fit until the last error counts as overcome.
    recovering: u8,
    errors: Vec<ParseError>,
    types: TypeChecker<'a>,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn new(lexer: Lexer<'a>, options: ParseOptions) -> Self {
        let input = lexer.input();
        Self {
            lexer,
            options,
            lookahead: None,
            last: Token { kind: Kind::Eof, start: 0, end: 0 },
            last_closing: 0,
            recovering: 0,
            errors: Vec::new(),
            types: TypeChecker::new(input),
            depth: 0,
        }
    }

    /// Runs the production `parse` over the whole input.
    fn start<T>(&mut self, parse: impl FnOnce(&mut Self) -> Parsed<T>) -> Option<T> {
        let result = parse(self);
        let result = self.recover(result, "", "").ok()?;
        self.end_of_input().ok()?;
        result
    }

    /// Everything has been parsed; what is left fits nowhere.
    fn end_of_input(&mut self) -> Parsed<()> {
        loop {
            let rest = match self.peek() {
                Kind::Eof | Kind::Failed => return Ok(()),
                _ => self.reject(),
            };
            self.recover(rest, "", "")?;
        }
    }

    /// The result, or the syntax errors, or else the type errors.
    fn finish<T>(self, parsed: Option<T>) -> Result<T, ParseErrors> {
        let errors = if self.errors.is_empty() { self.types.into_errors() } else { self.errors };
        match parsed {
            Some(value) if errors.is_empty() => Ok(value),
            _ => Err(ParseErrors::new(self.lexer.input(), errors)),
        }
    }

    /// Kind of the next token, which is read if it has not been yet.
    fn peek(&mut self) -> Kind {
        if let Some(token) = self.lookahead {
            return token.kind;
        }
        let token = self.read_token();
        match token.kind {
            Kind::RightBrace | Kind::RightParen | Kind::RightBracket | Kind::Duration | Kind::Number => {
                self.last_closing = token.end;
            }
            _ => {}
        }
        self.last = token;
        self.lookahead = Some(token);
        token.kind
    }

    fn read_token(&mut self) -> Token {
        loop {
            match self.lexer.next_token() {
                Ok(token) if token.kind == Kind::Comment => {}
                Ok(token) => return token,
                Err(error) => {
                    let end = self.lexer.input().len();
                    self.error(PosRange::new(error.start, end), error.message);
                    return Token { kind: Kind::Failed, start: error.start, end };
                }
            }
        }
    }

    /// Uses the next token.
    fn advance(&mut self) -> Token {
        self.peek();
        self.recovering = self.recovering.saturating_sub(1);
        self.lookahead = None;
        self.last
    }

    /// Uses the next token if it is of this kind.
    fn accept(&mut self, kind: Kind) -> Option<Token> {
        if self.peek() == kind { Some(self.advance()) } else { None }
    }

    /// Uses the next token, which has to be of this kind.
    fn expect(&mut self, kind: Kind) -> Parsed<Token> {
        loop {
            match self.accept(kind) {
                Some(token) => return Ok(token),
                None => self.reject()?,
            }
        }
    }

    /// The next token does not fit here. Right after an error it is dropped, and the caller looks at the one behind it;
    /// otherwise this is an error for [`Parser::recover`].
    fn reject(&mut self) -> Parsed<()> {
        if self.recovering < RECOVERY_LEN {
            return Err(Stop::Syntax);
        }
        match self.peek() {
            Kind::Eof | Kind::Failed => Err(Stop::Abort),
            _ => {
                self.lookahead = None;
                Ok(())
            }
        }
    }

    /// Catches a syntax error, reports the token that was read last, and lets the caller go on with `None`.
    fn recover<T>(&mut self, result: Parsed<T>, context: &str, expected: &str) -> Parsed<Option<T>> {
        let caught = self.catch(result)?;
        if caught.is_none() {
            self.unexpected(context, expected);
        }
        Ok(caught)
    }

    /// Catches a syntax error without reporting it.
    fn catch<T>(&mut self, result: Parsed<T>) -> Parsed<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(Stop::Syntax) => {
                self.recovering = RECOVERY_LEN;
                Ok(None)
            }
            Err(Stop::Abort) => Err(Stop::Abort),
        }
    }

    /// Reports that the token that was read last was not expected.
    fn unexpected(&mut self, context: &str, expected: &str) {
        // What the lexer has reported is not reported again.
        if self.last.kind == Kind::Failed {
            return;
        }
        let mut message = format!("unexpected {}", self.last.kind.describe(self.text(self.last)));
        for (link, part) in [(" in ", context), (", expected ", expected)] {
            if !part.is_empty() {
                message.push_str(link);
                message.push_str(part);
            }
        }
        self.error(range_of(self.last), message);
    }

    fn error(&mut self, range: PosRange, message: impl Into<String>) {
        ParseError::push(&mut self.errors, range, message);
    }

    /// Ends the parse because the expression is too deep.
    fn too_deep<T>(&mut self) -> Parsed<T> {
        self.error(range_of(self.last), format!("expression is nested more than {DEPTH_MAX} levels deep"));
        Err(Stop::Abort)
    }

    /// Goes one level deeper; the caller counts `depth` down again. Without closure, to keep the stack small.
    fn enter(&mut self) -> Parsed<()> {
        if self.depth == DEPTH_MAX {
            self.peek();
            return self.too_deep();
        }
        self.depth += 1;
        Ok(())
    }

    fn text(&self, token: Token) -> &'a str {
        self.lexer.input().get(token.start..token.end).unwrap_or_default()
    }

    /// The bytes of a string token.
    fn string_bytes(&mut self, token: Token) -> Vec<u8> {
        let text = self.text(token);
        unquote(text).unwrap_or_else(|| {
            let quoted = go::quote(text);
            self.error(range_of(token), format!("error unquoting string {quoted}: invalid syntax"));
            Vec::new()
        })
    }

    /// The text of a string token that becomes part of a label or matcher, which are UTF-8 here. (Prometheus lets other
    /// bytes pass, which no label holds.) Like a type error, this is only reported if there is no syntax error.
    fn string_text(&mut self, token: Token) -> String {
        let bytes = self.string_bytes(token);
        String::from_utf8(bytes).unwrap_or_else(|error| {
            let quoted = go::quote_bytes(error.as_bytes());
            self.types.error(range_of(token), format!("label names and values must be valid UTF-8: {quoted}"));
            String::new()
        })
    }
}

fn range_of(token: Token) -> PosRange {
    PosRange::new(token.start, token.end)
}

#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod tests;
