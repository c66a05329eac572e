//! Splits a query, or a series description, into tokens with byte positions.
//!
//! What a character means depends on where it stands: inside braces there are no keywords, inside brackets no names, and
//! a series description has its own little language after the labels. Each such place is a [`Mode`] with a function.
//! The lexer reads on demand, one token a call, because the parser's error positions depend on how far it has read.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod literal;
mod scan;
mod series;
mod token;

pub(crate) use self::literal::{parse_number, unquote};
pub(crate) use self::token::{Descriptor, Keyword, Kind, ResetHint, Token};

use crate::model::go;
use crate::promql::ast::BinaryOp;

/// Why the lexer stopped, and where the token began that it could not finish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LexError {
    pub(crate) start: usize,
    pub(crate) message: String,
}

/// Where in the language the next character stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Expressions.
    Statements,
    /// Between `{` and `}`.
    Braces,
    /// After `[`, until a number has been read.
    DurationExpr,
    /// Values of a series description.
    ValueSequence,
    /// Between `{{` and `}}`.
    Histogram,
    /// A list of bucket counts inside a histogram.
    Buckets,
    /// After the minus sign of a bucket count.
    BucketNumber,
}

/// What a step of the lexer has found.
enum Step {
    /// A token of this kind ends here.
    Emit(Kind),
    /// What was read is no token: white space.
    Ignore,
    /// The token goes on in the mode that has been set.
    Continue,
}

/// Reads tokens from a text.
pub(crate) struct Lexer<'a> {
    input: &'a str,
    mode: Mode,
    /// Next byte to read.
    pos: usize,
    /// First byte of the token that is being read.
    start: usize,
    /// First byte of the token that was returned last.
    last_start: usize,
    paren_depth: usize,
    bracket_open: bool,
    brace_open: bool,
    got_colon: bool,
    got_duration: bool,
    /// True for a series description, whose values follow the labels.
    series_desc: bool,
    /// True between `{{` and the operator after `}}`.
    histogram_open: bool,
    /// The operator right after `}}`, which is read in the next step.
    after_histogram: Option<Kind>,
    /// True after the token for white space, whose run has still to be passed over.
    space_pending: bool,
}

impl<'a> Lexer<'a> {
    /// A lexer for expressions, metrics and selectors.
    pub(crate) fn new(input: &'a str) -> Self {
        Self {
            input,
            mode: Mode::Statements,
            pos: 0,
            start: 0,
            last_start: 0,
            paren_depth: 0,
            bracket_open: false,
            brace_open: false,
            got_colon: false,
            got_duration: false,
            series_desc: false,
            histogram_open: false,
            after_histogram: None,
            space_pending: false,
        }
    }

    /// A lexer for a series description.
    pub(crate) fn for_series(input: &'a str) -> Self {
        Self { series_desc: true, ..Self::new(input) }
    }

    /// The text that is being read.
    pub(crate) fn input(&self) -> &'a str {
        self.input
    }

    /// The next token, comments included. After an error or [`Kind::Eof`] there is nothing more to read.
    pub(crate) fn next_token(&mut self) -> Result<Token, LexError> {
        let read = self.read_token();
        self.last_start = match &read {
            Ok(token) => token.start,
            Err(error) => error.start,
        };
        read
    }

    fn read_token(&mut self) -> Result<Token, LexError> {
        if std::mem::take(&mut self.space_pending) {
            self.skip(SPACE);
            self.start = self.pos;
        }
        loop {
            let step = match self.mode {
                Mode::Statements => self.statements()?,
                Mode::Braces => self.inside_braces()?,
                Mode::DurationExpr => self.duration_expr()?,
                Mode::ValueSequence => self.value_sequence()?,
                Mode::Histogram => self.histogram()?,
                Mode::Buckets => self.buckets()?,
                Mode::BucketNumber => {
                    self.mode = Mode::Statements;
                    self.number()?
                }
            };
            match step {
                Step::Emit(kind) => {
                    let token = Token { kind, start: self.start, end: self.pos };
                    self.start = self.pos;
                    return Ok(token);
                }
                Step::Ignore => self.start = self.pos,
                Step::Continue => {}
            }
        }
    }

    /// End of the right parenthesis before the one that was read last, if only white space lies between them; else
    /// `fallback`. An aggregation is only known to have ended after the token that follows it has been read.
    pub(crate) fn previous_right_paren(&self, fallback: usize) -> usize {
        let bytes = self.input.as_bytes();
        if self.last_start == 0 || bytes.get(self.last_start) != Some(&b')') {
            return fallback;
        }
        let before = bytes.get(..self.last_start).unwrap_or_default();
        let spaces = before.iter().rev().take_while(|b| is_space(char::from(**b))).count();
        let end = before.len() - spaces;
        match before.get(..end) {
            // The first byte is never taken: a parenthesis there closes nothing.
            Some([_, .., b')']) => end,
            _ => fallback,
        }
    }

    fn statements(&mut self) -> Result<Step, LexError> {
        if self.histogram_open || self.after_histogram.is_some() {
            self.mode = Mode::Histogram;
            return Ok(Step::Continue);
        }
        if self.brace_open {
            self.mode = Mode::Braces;
            return Ok(Step::Continue);
        }
        let Some(c) = self.next() else { return self.end_of_statements() };
        let kind = match c {
            '#' => return Ok(self.line_comment()),
            ',' => Kind::Comma,
            c if is_space(c) => return Ok(self.spaces()),
            '*' => Kind::Op(BinaryOp::Mul),
            '/' => Kind::Op(BinaryOp::Div),
            '%' => Kind::Op(BinaryOp::Mod),
            '+' => Kind::Op(BinaryOp::Add),
            '-' => Kind::Op(BinaryOp::Sub),
            '^' => Kind::Op(BinaryOp::Pow),
            '=' | '!' | '<' | '>' => return self.comparison(c),
            '@' => Kind::At,
            c if is_digit(c) || (c == '.' && self.peek().is_some_and(is_digit)) => {
                self.pos -= c.len_utf8();
                return self.number_or_duration();
            }
            '"' | '\'' => return self.quoted_string(c),
            '`' => return self.raw_string(),
            c if is_alpha(c) || c == ':' => return self.word(c),
            '(' => {
                self.paren_depth += 1;
                Kind::LeftParen
            }
            ')' => return self.close_paren(),
            '{' => {
                self.brace_open = true;
                self.mode = Mode::Braces;
                Kind::LeftBrace
            }
            '[' => return self.open_bracket(),
            ']' if self.bracket_open => {
                self.bracket_open = false;
                Kind::RightBracket
            }
            ']' => return self.fail(format!("unexpected right bracket {}", go::quote_rune(c))),
            c => return self.fail(format!("unexpected character: {}", go::quote_rune(c))),
        };
        Ok(Step::Emit(kind))
    }

    fn end_of_statements(&mut self) -> Result<Step, LexError> {
        if self.paren_depth != 0 {
            return self.fail("unclosed left parenthesis".to_owned());
        }
        if self.bracket_open {
            return self.fail("unclosed left bracket".to_owned());
        }
        Ok(Step::Emit(Kind::Eof))
    }

    /// The operators that begin with `first`, which has been read.
    fn comparison(&mut self, first: char) -> Result<Step, LexError> {
        let second = self.peek();
        let (kind, len) = match (first, second) {
            ('=', Some('=')) => (Kind::Op(BinaryOp::Equal), 1),
            ('=', Some('~')) => return self.fail("unexpected character after '=': '~'".to_owned()),
            ('=', _) => (Kind::Equal, 0),
            ('!', Some('=')) => (Kind::Op(BinaryOp::NotEqual), 1),
            ('!', c) => return self.fail(format!("unexpected character after '!': {}", quote_or_end(c))),
            ('<', Some('=')) => (Kind::Op(BinaryOp::LessEqual), 1),
            ('<', Some('/')) => (Kind::Op(BinaryOp::TrimUpper), 1),
            ('<', _) => (Kind::Op(BinaryOp::Less), 0),
            (_, Some('=')) => (Kind::Op(BinaryOp::GreaterEqual), 1),
            (_, Some('/')) => (Kind::Op(BinaryOp::TrimLower), 1),
            (_, _) => (Kind::Op(BinaryOp::Greater), 0),
        };
        self.pos += len;
        Ok(Step::Emit(kind))
    }

    /// A name or keyword, or the colon of a subquery; `first` has been read.
    fn word(&mut self, first: char) -> Result<Step, LexError> {
        if !self.bracket_open {
            return Ok(self.keyword_or_identifier());
        }
        if first == ':' {
            if self.got_colon {
                return self.fail("unexpected colon ':'".to_owned());
            }
            self.got_colon = true;
            return Ok(Step::Emit(Kind::Colon));
        }
        if let Some(kind) = self.duration_word(first) {
            return Ok(Step::Emit(kind));
        }
        self.fail(format!("unexpected character: {}, expected ':'", go::quote_rune(first)))
    }

    fn close_paren(&mut self) -> Result<Step, LexError> {
        if self.paren_depth == 0 {
            // The error points behind the parenthesis.
            self.start = self.pos;
            return self.fail("unexpected right parenthesis ')'".to_owned());
        }
        self.paren_depth -= 1;
        Ok(Step::Emit(Kind::RightParen))
    }

    fn open_bracket(&mut self) -> Result<Step, LexError> {
        if self.bracket_open {
            return self.fail("unexpected left bracket '['".to_owned());
        }
        self.got_colon = false;
        self.bracket_open = true;
        self.mode = Mode::DurationExpr;
        Ok(Step::Emit(Kind::LeftBracket))
    }

    fn inside_braces(&mut self) -> Result<Step, LexError> {
        let Some(c) = self.next() else { return self.fail("unexpected end of input inside braces".to_owned()) };
        let kind = match c {
            '#' => return Ok(self.line_comment()),
            c if is_space(c) => return Ok(self.spaces()),
            c if is_alpha(c) => {
                self.skip(ALPHA | DIGIT);
                Kind::Identifier
            }
            ',' => Kind::Comma,
            '"' | '\'' => return self.quoted_string(c),
            '`' => return self.raw_string(),
            '=' if self.eat('~') => Kind::EqualRegex,
            '=' => Kind::Equal,
            '!' => match self.next() {
                Some('~') => Kind::NotEqualRegex,
                Some('=') => Kind::Op(BinaryOp::NotEqual),
                other => {
                    let c = quote_or_end(other);
                    return self.fail(format!("unexpected character after '!' inside braces: {c}"));
                }
            },
            '{' => return self.fail("unexpected left brace '{'".to_owned()),
            '}' => {
                self.brace_open = false;
                self.mode = if self.series_desc { Mode::ValueSequence } else { Mode::Statements };
                Kind::RightBrace
            }
            c => return self.fail(format!("unexpected character inside braces: {}", go::quote_rune(c))),
        };
        Ok(Step::Emit(kind))
    }

    /// Between `[` and the first number. After that, [`Lexer::statements`] goes on: numbers and operators look alike.
    fn duration_expr(&mut self) -> Result<Step, LexError> {
        let Some(c) = self.next() else {
            return self.fail("unexpected end of input in duration expression".to_owned());
        };
        let kind = match c {
            ']' => {
                self.bracket_open = false;
                self.got_colon = false;
                self.mode = Mode::Statements;
                Kind::RightBracket
            }
            ':' => return self.duration_colon(),
            '(' => {
                self.paren_depth += 1;
                Kind::LeftParen
            }
            ')' => return self.close_paren(),
            c if is_space(c) => return Ok(self.spaces_here()),
            '+' => Kind::Op(BinaryOp::Add),
            '-' => Kind::Op(BinaryOp::Sub),
            '*' => Kind::Op(BinaryOp::Mul),
            '/' => Kind::Op(BinaryOp::Div),
            '%' => Kind::Op(BinaryOp::Mod),
            '^' => Kind::Op(BinaryOp::Pow),
            ',' => Kind::Comma,
            c if is_digit(c) || (c == '.' && self.peek().is_some_and(is_digit)) => {
                self.pos -= c.len_utf8();
                self.got_duration = true;
                self.mode = Mode::Statements;
                return self.number_or_duration();
            }
            c => match self.duration_word(c) {
                Some(kind) => kind,
                None => {
                    let c = go::quote_rune(c);
                    return self.fail(format!("unexpected character in duration expression: {c}"));
                }
            },
        };
        Ok(Step::Emit(kind))
    }

    fn duration_colon(&mut self) -> Result<Step, LexError> {
        let problem = if !self.got_duration {
            "unexpected colon before duration in duration expression"
        } else if self.got_colon {
            "unexpected repeated colon in duration expression"
        } else {
            self.got_colon = true;
            return Ok(Step::Emit(Kind::Colon));
        };
        // The error points behind the colon.
        self.start = self.pos;
        self.fail(problem.to_owned())
    }

    /// The keyword of a duration expression that begins with `first`, or `None` if the word is another.
    fn duration_word(&mut self, first: char) -> Option<Kind> {
        if !matches!(first.to_ascii_lowercase(), 's' | 'r' | 'm') {
            return None;
        }
        self.skip(ALPHA);
        Kind::of_duration_word(self.pending())
    }

    fn keyword_or_identifier(&mut self) -> Step {
        self.skip(ALPHA | DIGIT | COLON);
        let word = self.pending();
        let kind = match Kind::of_word(word) {
            // These words came late to the language, so they are only keywords where they cannot be metric names.
            Some(Kind::Keyword(Keyword::Fill | Keyword::FillLeft | Keyword::FillRight))
                if !self.is_followed_by_left_paren() =>
            {
                Kind::Identifier
            }
            Some(kind) => kind,
            None if word.contains(':') => Kind::MetricIdentifier,
            None => Kind::Identifier,
        };
        self.mode = match self.peek() {
            Some('{') => Mode::Statements,
            _ if self.series_desc => Mode::ValueSequence,
            _ => Mode::Statements,
        };
        Step::Emit(kind)
    }

    fn is_followed_by_left_paren(&self) -> bool {
        self.rest().trim_start_matches(is_space).starts_with('(')
    }

    fn line_comment(&mut self) -> Step {
        self.skip_while(|c| c != '\n' && c != '\r');
        self.mode = Mode::Statements;
        Step::Emit(Kind::Comment)
    }

    /// White space after which the mode is chosen anew.
    fn spaces(&mut self) -> Step {
        self.mode = Mode::Statements;
        self.spaces_here()
    }

    /// White space that does not change the mode.
    fn spaces_here(&mut self) -> Step {
        self.skip(SPACE);
        Step::Ignore
    }

    fn fail<T>(&self, message: String) -> Result<T, LexError> {
        Err(LexError { start: self.start, message })
    }

    fn rest(&self) -> &'a str {
        self.input.get(self.pos..).unwrap_or_default()
    }

    /// The text of the token so far.
    fn pending(&self) -> &'a str {
        self.input.get(self.start..self.pos).unwrap_or_default()
    }

    #[inline]
    fn peek(&self) -> Option<char> {
        match self.input.as_bytes().get(self.pos) {
            Some(byte) if byte.is_ascii() => Some(char::from(*byte)),
            _ => self.rest().chars().next(),
        }
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.pos += c.len_utf8();
        Some(c)
    }

    fn eat(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.pos += wanted.len_utf8();
        }
        found
    }

    fn skip_while(&mut self, accept: impl Fn(char) -> bool) {
        let rest = self.rest();
        self.pos += rest.find(|c| !accept(c)).unwrap_or(rest.len());
    }

    /// Passes over bytes of these classes, which are ASCII.
    #[inline]
    fn skip(&mut self, classes: u8) {
        let rest = self.input.as_bytes().get(self.pos..).unwrap_or_default();
        self.pos += rest.iter().take_while(|byte| class(**byte) & classes != 0).count();
    }
}

/// Go's `%q` of a character; it prints the end of the input as an invalid one.
fn quote_or_end(c: Option<char>) -> String {
    go::quote_rune(c.unwrap_or(char::REPLACEMENT_CHARACTER))
}

/// Classes of bytes.
const SPACE: u8 = 1;
const ALPHA: u8 = 2;
const DIGIT: u8 = 4;
const COLON: u8 = 8;
/// What goes on in a quoted string, whatever the quote.
const QUOTABLE: u8 = 16;

static CLASSES: [u8; 256] = classes();

#[allow(clippy::indexing_slicing, reason = "run at compile time, where an index out of bounds is an error")]
const fn classes() -> [u8; 256] {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 128 {
        let of_name = match byte as u8 {
            b' ' | b'\t' | b'\n' | b'\r' => SPACE,
            b'_' | b'a'..=b'z' | b'A'..=b'Z' => ALPHA,
            b'0'..=b'9' => DIGIT,
            b':' => COLON,
            _ => 0,
        };
        let of_text = if matches!(byte as u8, b'"' | b'\'' | b'`' | b'\\' | b'\n') { 0 } else { QUOTABLE };
        classes[byte] = of_name | of_text;
        byte += 1;
    }
    classes
}

fn class(byte: u8) -> u8 {
    CLASSES.get(usize::from(byte)).copied().unwrap_or(0)
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

fn is_digit(c: char) -> bool {
    c.is_ascii_digit()
}

fn is_alpha(c: char) -> bool {
    c == '_' || c.is_ascii_alphabetic()
}

fn is_alphanumeric(c: char) -> bool {
    is_alpha(c) || is_digit(c)
}

#[cfg(test)]
mod property_tests;
