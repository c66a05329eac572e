//! Splits the text of a template into tokens: text, and what stands between `{{` and `}}`.
//! The tokens, the trimming of white space and the error texts are those of Go's `text/template/parse`.

use crate::model::go;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The text is not a template; `Token::text` says why.
    Error,
    Bool,
    /// A printable character without a meaning of its own, such as a comma.
    Char,
    CharConstant,
    Complex,
    Assign,
    Declare,
    Eof,
    Field,
    Identifier,
    LeftDelim,
    LeftParen,
    Number,
    Pipe,
    RawString,
    RightDelim,
    RightParen,
    Space,
    Str,
    Text,
    Variable,
    // Key words from here on.
    Block,
    Break,
    Continue,
    Dot,
    Define,
    Else,
    End,
    If,
    Nil,
    Range,
    Template,
    With,
}

impl Kind {
    fn is_keyword(self) -> bool {
        matches!(
            self,
            Self::Block
                | Self::Break
                | Self::Continue
                | Self::Dot
                | Self::Define
                | Self::Else
                | Self::End
                | Self::If
                | Self::Nil
                | Self::Range
                | Self::Template
                | Self::With
        )
    }

    fn of_word(word: &str) -> Self {
        match word {
            "block" => Self::Block,
            "break" => Self::Break,
            "continue" => Self::Continue,
            "define" => Self::Define,
            "else" => Self::Else,
            "end" => Self::End,
            "if" => Self::If,
            "nil" => Self::Nil,
            "range" => Self::Range,
            "template" => Self::Template,
            "with" => Self::With,
            "true" | "false" => Self::Bool,
            _ => Self::Identifier,
        }
    }
}

/// A token with its place. Prints as error texts show it.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) kind: Kind,
    /// Byte at which it starts.
    pub(super) pos: usize,
    /// As written; for errors, the reason.
    pub(super) text: String,
    /// Line at which it starts, from 1.
    pub(super) line: usize,
}

impl Token {
    /// A token before any is read.
    pub(super) fn none() -> Self {
        Self { kind: Kind::Eof, pos: 0, text: String::new(), line: 0 }
    }
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind {
            Kind::Eof => f.write_str("EOF"),
            Kind::Error => f.write_str(&self.text),
            kind if kind.is_keyword() => write!(f, "<{}>", self.text),
            _ if 10 < self.text.len() => {
                write!(f, "{}...", go::quote(&self.text.chars().take(10).collect::<String>()))
            }
            _ => f.write_str(&go::quote(&self.text)),
        }
    }
}

const LEFT: &str = "{{";
const RIGHT: &str = "}}";
/// A trim marker and the white space beside it.
const TRIM_LEN: usize = 2;
const SPACES: [char; 4] = [' ', '\t', '\r', '\n'];

/// Gives the tokens of a text one after the other. After an error it gives end-of-file tokens.
#[derive(Debug)]
pub(super) struct Lexer<'a> {
    input: &'a str,
    pos: usize,
    start: usize,
    inside_action: bool,
    paren_depth: usize,
    line: usize,
    start_line: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(input: &'a str) -> Self {
        Self { input, pos: 0, start: 0, inside_action: false, paren_depth: 0, line: 1, start_line: 1 }
    }

    /// The next token; `Eof` again and again at the end.
    pub(super) fn next_token(&mut self) -> Token {
        if self.inside_action { self.action() } else { self.text() }
    }

    fn rest(&self) -> &'a str {
        self.input.get(self.pos..).unwrap_or("")
    }

    fn pending(&self) -> &'a str {
        self.input.get(self.start..self.pos).unwrap_or("")
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn advance(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.pos += c.len_utf8();
        if c == '\n' {
            self.line += 1;
        }
        Some(c)
    }

    fn accept(&mut self, valid: &str) -> bool {
        let accepted = self.peek().is_some_and(|c| valid.contains(c));
        if accepted {
            self.advance();
        }
        accepted
    }

    fn accept_run(&mut self, valid: &str) {
        while self.accept(valid) {}
    }

    /// Counts the lines of what was skipped without `advance`, and forgets it.
    fn ignore(&mut self) {
        self.line += newlines(self.pending());
        self.start = self.pos;
        self.start_line = self.line;
    }

    fn emit(&mut self, kind: Kind) -> Token {
        let token = Token { kind, pos: self.start, text: self.pending().to_owned(), line: self.start_line };
        self.start = self.pos;
        self.start_line = self.line;
        token
    }

    fn fail(&mut self, text: String) -> Token {
        let token = Token { kind: Kind::Error, pos: self.start, text, line: self.start_line };
        (self.input, self.pos, self.start, self.inside_action) = ("", 0, 0, false);
        token
    }

    fn text(&mut self) -> Token {
        loop {
            let Some(len) = self.rest().find(LEFT) else {
                self.pos = self.input.len();
                self.line += newlines(self.pending());
                return if self.start < self.pos { self.emit(Kind::Text) } else { self.emit(Kind::Eof) };
            };
            if 0 < len {
                self.pos += len;
                let behind = self.input.get(self.pos + LEFT.len()..).unwrap_or("");
                let trimmed = if has_left_trim(behind) {
                    let text = self.pending();
                    text.len() - text.trim_end_matches(SPACES).len()
                } else {
                    0
                };
                self.pos -= trimmed;
                self.line += newlines(self.pending());
                let token = self.emit(Kind::Text);
                self.pos += trimmed;
                self.ignore();
                if !token.text.is_empty() {
                    return token;
                }
            }
            if let Some(token) = self.left_delim() {
                return token;
            }
        }
    }

    /// The delimiter; `None` if a comment was skipped instead.
    fn left_delim(&mut self) -> Option<Token> {
        self.pos += LEFT.len();
        let marker = if has_left_trim(self.rest()) { TRIM_LEN } else { 0 };
        if self.rest().get(marker..).is_some_and(|rest| rest.starts_with("/*")) {
            self.pos += marker;
            self.ignore();
            return self.comment();
        }
        let token = self.emit(Kind::LeftDelim);
        self.inside_action = true;
        self.pos += marker;
        self.ignore();
        self.paren_depth = 0;
        Some(token)
    }

    fn comment(&mut self) -> Option<Token> {
        self.pos += "/*".len();
        let Some(len) = self.rest().find("*/") else { return Some(self.fail("unclosed comment".to_owned())) };
        self.pos += len + "*/".len();
        let Some(trims) = self.right_delim_ahead() else {
            return Some(self.fail("comment ends before closing delimiter".to_owned()));
        };
        self.skip_right_delim(trims);
        self.ignore();
        None
    }

    /// Whether a right delimiter follows, and if so, whether it trims what is behind it.
    fn right_delim_ahead(&self) -> Option<bool> {
        let rest = self.rest();
        if has_right_trim(rest) && rest.get(TRIM_LEN..).is_some_and(|rest| rest.starts_with(RIGHT)) {
            return Some(true);
        }
        rest.starts_with(RIGHT).then_some(false)
    }

    fn skip_right_delim(&mut self, trims: bool) {
        if trims {
            self.pos += TRIM_LEN;
        }
        self.pos += RIGHT.len();
        if trims {
            let rest = self.rest();
            self.pos += rest.len() - rest.trim_start_matches(SPACES).len();
        }
    }

    fn right_delim(&mut self, trims: bool) -> Token {
        if trims {
            self.pos += TRIM_LEN;
            self.ignore();
        }
        self.pos += RIGHT.len();
        let token = self.emit(Kind::RightDelim);
        if trims {
            let rest = self.rest();
            self.pos += rest.len() - rest.trim_start_matches(SPACES).len();
            self.ignore();
        }
        self.inside_action = false;
        token
    }

    fn action(&mut self) -> Token {
        if let Some(trims) = self.right_delim_ahead() {
            if self.paren_depth == 0 {
                return self.right_delim(trims);
            }
            return self.fail("unclosed left paren".to_owned());
        }
        if self.peek().is_some_and(is_space) {
            return self.space();
        }
        let Some(c) = self.advance() else { return self.fail("unclosed action".to_owned()) };
        match c {
            '=' => self.emit(Kind::Assign),
            ':' => {
                if self.advance() == Some('=') {
                    self.emit(Kind::Declare)
                } else {
                    self.fail("expected :=".to_owned())
                }
            }
            '|' => self.emit(Kind::Pipe),
            '"' => self.quoted('"', Kind::Str, "unterminated quoted string"),
            '\'' => self.quoted('\'', Kind::CharConstant, "unterminated character constant"),
            '`' => self.raw_string(),
            '$' => self.name(Kind::Variable, Kind::Variable),
            '.' if !self.peek().is_some_and(|c| c.is_ascii_digit()) && self.peek().is_some() => {
                self.name(Kind::Field, Kind::Dot)
            }
            '.' | '+' | '-' | '0'..='9' => {
                self.pos = self.start;
                self.number()
            }
            c if is_alphanumeric(c) => self.word(),
            '(' => {
                self.paren_depth += 1;
                self.emit(Kind::LeftParen)
            }
            ')' => {
                if self.paren_depth == 0 {
                    return self.fail("unexpected right paren".to_owned());
                }
                self.paren_depth -= 1;
                self.emit(Kind::RightParen)
            }
            c if c.is_ascii_graphic() => self.emit(Kind::Char),
            c => self.fail(format!("unrecognized character in action: {}", go::unicode_point(c))),
        }
    }

    /// A run of spaces, but for the last one if it belongs to a delimiter that trims.
    fn space(&mut self) -> Token {
        let mut count = 0;
        let mut last = (self.pos, self.line);
        while self.peek().is_some_and(is_space) {
            last = (self.pos, self.line);
            self.advance();
            count += 1;
        }
        let from_last = self.input.get(last.0..).unwrap_or("");
        if has_right_trim(from_last) && from_last.get(TRIM_LEN..).is_some_and(|rest| rest.starts_with(RIGHT)) {
            (self.pos, self.line) = last;
            if count == 1 {
                return self.right_delim(true);
            }
        }
        self.emit(Kind::Space)
    }

    fn quoted(&mut self, end: char, kind: Kind, unterminated: &str) -> Token {
        loop {
            match self.advance() {
                Some('\\') => {
                    if matches!(self.advance(), None | Some('\n')) {
                        return self.fail(unterminated.to_owned());
                    }
                }
                None | Some('\n') => return self.fail(unterminated.to_owned()),
                Some(c) if c == end => return self.emit(kind),
                Some(_) => {}
            }
        }
    }

    fn raw_string(&mut self) -> Token {
        loop {
            match self.advance() {
                None => return self.fail("unterminated raw quoted string".to_owned()),
                Some('`') => return self.emit(Kind::RawString),
                Some(_) => {}
            }
        }
    }

    /// The name behind a dot or a dollar sign; `bare` if there is none.
    fn name(&mut self, kind: Kind, bare: Kind) -> Token {
        if self.at_terminator() {
            return self.emit(bare);
        }
        while self.peek().is_some_and(is_alphanumeric) {
            self.advance();
        }
        if let Some(token) = self.bad_character() {
            return token;
        }
        self.emit(kind)
    }

    fn word(&mut self) -> Token {
        while self.peek().is_some_and(is_alphanumeric) {
            self.advance();
        }
        if let Some(token) = self.bad_character() {
            return token;
        }
        let kind = Kind::of_word(self.pending());
        self.emit(kind)
    }

    fn bad_character(&mut self) -> Option<Token> {
        if self.at_terminator() {
            return None;
        }
        let shown = self.peek().map_or_else(String::new, go::unicode_point);
        Some(self.fail(format!("bad character {shown}")))
    }

    fn at_terminator(&self) -> bool {
        match self.peek() {
            None | Some(' ' | '\t' | '\r' | '\n' | '.' | ',' | '|' | ':' | ')' | '(') => true,
            Some(_) => self.rest().starts_with(RIGHT),
        }
    }

    fn number(&mut self) -> Token {
        let fine = self.scan_number();
        if !fine {
            return self.bad_number();
        }
        if matches!(self.peek(), Some('+' | '-')) {
            if !self.scan_number() || !self.pending().ends_with('i') {
                return self.bad_number();
            }
            return self.emit(Kind::Complex);
        }
        self.emit(Kind::Number)
    }

    fn bad_number(&mut self) -> Token {
        self.fail(format!("bad number syntax: {}", go::quote(self.pending())))
    }

    fn scan_number(&mut self) -> bool {
        const DECIMAL: &str = "0123456789_";
        const HEXADECIMAL: &str = "0123456789abcdefABCDEF_";
        self.accept("+-");
        let mut digits = DECIMAL;
        if self.accept("0") {
            if self.accept("xX") {
                digits = HEXADECIMAL;
            } else if self.accept("oO") {
                digits = "01234567_";
            } else if self.accept("bB") {
                digits = "01_";
            }
        }
        self.accept_run(digits);
        if self.accept(".") {
            self.accept_run(digits);
        }
        if (digits == DECIMAL && self.accept("eE")) || (digits == HEXADECIMAL && self.accept("pP")) {
            self.accept("+-");
            self.accept_run(DECIMAL);
        }
        self.accept("i");
        if self.peek().is_some_and(is_alphanumeric) {
            self.advance();
            return false;
        }
        true
    }
}

fn newlines(text: &str) -> usize {
    text.bytes().filter(|b| *b == b'\n').count()
}

fn is_space(c: char) -> bool {
    SPACES.contains(&c)
}

fn is_alphanumeric(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

fn has_left_trim(rest: &str) -> bool {
    let mut chars = rest.chars();
    chars.next() == Some('-') && chars.next().is_some_and(is_space)
}

fn has_right_trim(rest: &str) -> bool {
    let mut chars = rest.chars();
    chars.next().is_some_and(is_space) && chars.next() == Some('-')
}
