//! Tokens of OpenMetrics. The lexer keeps Prometheus's states, and the place where it stands after a failure, because
//! error texts show both. There is no going back: what begins like a token and goes on differently is invalid there.
//!
//! Blanks are part of tokens: a value is ` 1`, a time stamp ` 17`.
#![deny(clippy::indexing_slicing)]

use memchr::memchr;

use crate::exposition::lexer::{Token, is_metric_byte, is_metric_start};

/// Where in a line the lexer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Init,
    Comment,
    MetaName,
    MetaText,
    Labels,
    LabelValue,
    Value,
    Timestamp,
    Exemplar,
    ExemplarValue,
    ExemplarTimestamp,
}

/// Reads tokens from `buf`; `start..at` is the current one.
pub(super) struct Lexer<'a> {
    buf: &'a [u8],
    pub(super) at: usize,
    pub(super) start: usize,
    pub(super) state: State,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(buf: &'a [u8], at: usize, state: State) -> Self {
        Self { buf, at, start: at, state }
    }

    /// Bytes of the current token.
    pub(super) fn token_bytes(&self) -> &'a [u8] {
        self.slice(self.start, self.at)
    }

    /// `buf[from..to]`, or nothing where the range does not exist.
    pub(super) fn slice(&self, from: usize, to: usize) -> &'a [u8] {
        self.buf.get(from..to).unwrap_or_default()
    }

    /// True once the lexer has come to the end of the buffer.
    pub(super) fn is_at_end(&self) -> bool {
        self.buf.len() <= self.at
    }

    /// One byte past the current token, as error texts show it.
    pub(super) fn past(&self) -> usize {
        (self.at + 1).min(self.buf.len())
    }

    /// The next token. At the end of the buffer the current token stays what it was.
    pub(super) fn next_token(&mut self) -> Token {
        let Some(c) = self.current() else { return Token::Eof };
        self.start = self.at;
        match self.state {
            State::Init => self.init(c),
            State::Comment => self.comment(),
            State::MetaName => self.meta_name(c),
            State::MetaText => self.meta_text(c),
            State::Labels => self.labels(c, State::LabelValue, State::Value),
            State::Exemplar => self.labels(c, State::ExemplarValue, State::ExemplarValue),
            State::LabelValue if c == b'"' => self.quoted(State::Labels, Token::LabelValue),
            State::LabelValue => Token::Invalid,
            State::ExemplarValue if c == b'"' => self.quoted(State::Exemplar, Token::LabelValue),
            State::ExemplarValue => self.word(c, State::ExemplarTimestamp, Token::Value),
            State::Value if c == b'{' => self.single(State::Labels, Token::BraceOpen),
            State::Value => self.word(c, State::Timestamp, Token::Value),
            State::Timestamp | State::ExemplarTimestamp if c == b'\n' => self.single(State::Init, Token::Linebreak),
            State::Timestamp => self.timestamp(c),
            State::ExemplarTimestamp => self.word(c, State::ExemplarTimestamp, Token::Timestamp),
        }
    }

    fn current(&self) -> Option<u8> {
        self.buf.get(self.at).copied()
    }

    /// Steps to the next byte. NUL is data in label values, help texts and comments, and is stepped over there.
    fn step(&mut self) -> Option<u8> {
        self.at += 1;
        if matches!(self.state, State::LabelValue | State::MetaText | State::Comment) {
            while self.current() == Some(0) {
                self.at += 1;
            }
        }
        self.current()
    }

    fn single(&mut self, state: State, token: Token) -> Token {
        self.step();
        self.state = state;
        token
    }

    fn init(&mut self, c: u8) -> Token {
        match c {
            b'#' => {
                if self.step() != Some(b' ') {
                    return Token::Invalid;
                }
                self.step();
                self.state = State::Comment;
                self.comment()
            }
            b'{' => self.single(State::Labels, Token::BraceOpen),
            _ if is_metric_start(c) => {
                self.skip(is_metric_byte);
                self.state = State::Value;
                Token::MetricName
            }
            _ => Token::Invalid,
        }
    }

    fn comment(&mut self) -> Token {
        let (rest, token): (&[u8], Token) = match self.current() {
            Some(b'H') => (b"ELP ", Token::Help),
            Some(b'T') => (b"YPE ", Token::Type),
            Some(b'U') => (b"NIT ", Token::Unit),
            Some(b'E') => (b"OF", Token::EofWord),
            _ => return Token::Invalid,
        };
        for expected in rest {
            if self.step() != Some(*expected) {
                return Token::Invalid;
            }
        }
        let next = self.step();
        if token != Token::EofWord {
            self.state = State::MetaName;
            return token;
        }
        if next == Some(b'\n') {
            self.step();
        }
        self.state = State::Init;
        token
    }

    fn meta_name(&mut self, c: u8) -> Token {
        match c {
            b'"' => self.quoted(State::MetaText, Token::MetricName),
            _ if is_metric_start(c) => {
                self.skip(is_metric_byte);
                self.state = State::MetaText;
                Token::MetricName
            }
            _ => Token::Invalid,
        }
    }

    /// A blank and everything to the line end, which is part of the token.
    fn meta_text(&mut self, c: u8) -> Token {
        if c != b' ' {
            return Token::Invalid;
        }
        let rest = self.buf.get(self.at..).unwrap_or_default();
        match memchr(b'\n', rest) {
            Some(len) => {
                self.at += len + 1;
                self.state = State::Init;
                Token::Text
            }
            None => {
                self.at = self.buf.len();
                Token::Invalid
            }
        }
    }

    fn labels(&mut self, c: u8, value: State, close: State) -> Token {
        match c {
            b'"' => self.quoted(self.state, Token::QuotedString),
            b',' => self.single(self.state, Token::Comma),
            b'=' => self.single(value, Token::Equal),
            b'}' => self.single(close, Token::BraceClose),
            _ if c == b'_' || c.is_ascii_alphabetic() => {
                self.skip(|b| b == b'_' || b.is_ascii_alphanumeric());
                Token::LabelName
            }
            _ => Token::Invalid,
        }
    }

    /// A quoted string with backslash escapes. Names may hold line ends, values may not.
    fn quoted(&mut self, next: State, token: Token) -> Token {
        let spans_lines = matches!(self.state, State::Labels | State::MetaName);
        let mut c = self.step();
        loop {
            match c {
                Some(b'"') => {
                    self.single(next, token);
                    return token;
                }
                Some(b'\\') => match self.step() {
                    None | Some(b'\n' | 0) => return Token::Invalid,
                    Some(_) => c = self.step(),
                },
                Some(b'\n') if !spans_lines => return Token::Invalid,
                None | Some(0) => return Token::Invalid,
                Some(_) => c = self.step(),
            }
        }
    }

    /// A blank and at least one byte that is neither blank nor line end.
    fn word(&mut self, c: u8, next: State, token: Token) -> Token {
        if c != b' ' || !self.step().is_some_and(is_word_byte) {
            return Token::Invalid;
        }
        self.skip(is_word_byte);
        self.state = next;
        token
    }

    /// A time stamp, or the ` # {` that begins an exemplar.
    fn timestamp(&mut self, c: u8) -> Token {
        if c != b' ' {
            return Token::Invalid;
        }
        match self.step() {
            Some(b'#') if self.step() == Some(b' ') => match self.step() {
                Some(b'{') => self.single(State::Exemplar, Token::Comment),
                _ => Token::Invalid,
            },
            Some(b) if is_word_byte(b) => {
                self.skip(is_word_byte);
                Token::Timestamp
            }
            _ => Token::Invalid,
        }
    }

    fn skip(&mut self, is_part: fn(u8) -> bool) {
        let rest = self.buf.get(self.at..).unwrap_or_default();
        self.at += rest.iter().position(|b| !is_part(*b)).unwrap_or(rest.len());
    }
}

fn is_word_byte(b: u8) -> bool {
    !matches!(b, b' ' | b'\n' | 0)
}
