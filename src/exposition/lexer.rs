//! Tokens of the text format, and the names of those of OpenMetrics. The lexer keeps Prometheus's states, and the place where it stands after a failure,
//! because error texts show both.
//!
//! The buffer holds whole physical lines. Only a quoted string can run over a line end, so only there the lexer can
//! come to the end of the buffer inside a token; then [`Lexer::starved`] tells the parser to wait for more.
#![deny(clippy::indexing_slicing)]

use memchr::{memchr, memchr3};

/// What the lexer found. [`Token::name`] is the word that error texts show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Invalid,
    Eof,
    Linebreak,
    Help,
    Type,
    Unit,
    EofWord,
    Text,
    Comment,
    MetricName,
    QuotedString,
    BraceOpen,
    BraceClose,
    LabelName,
    LabelValue,
    Comma,
    Equal,
    Timestamp,
    Value,
}

impl Token {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Invalid => "INVALID",
            Self::Eof => "EOF",
            Self::Linebreak => "LINEBREAK",
            Self::Help => "HELP",
            Self::Type => "TYPE",
            Self::Unit => "UNIT",
            Self::EofWord => "EOFWORD",
            Self::Text => "TEXT",
            Self::Comment => "COMMENT",
            Self::MetricName => "MNAME",
            Self::QuotedString => "QSTRING",
            Self::BraceOpen => "BOPEN",
            Self::BraceClose => "BCLOSE",
            Self::LabelName => "LNAME",
            Self::LabelValue => "LVALUE",
            Self::Comma => "COMMA",
            Self::Equal => "EQUAL",
            Self::Timestamp => "TIMESTAMP",
            Self::Value => "VALUE",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Init,
    Comment,
    MetaName,
    MetaText,
    Labels,
    LabelValue,
    Value,
    Timestamp,
}

/// Reads tokens from `buf`; `start..at` is the current one.
pub(super) struct Lexer<'a> {
    buf: &'a [u8],
    pub(super) at: usize,
    pub(super) start: usize,
    state: State,
    /// True once the end of the buffer was met inside a quoted string.
    pub(super) starved: bool,
}

impl<'a> Lexer<'a> {
    /// A lexer that stands at the start of a line.
    pub(super) fn new(buf: &'a [u8], at: usize) -> Self {
        Self { buf, at, start: at, state: State::Init, starved: false }
    }

    /// Bytes of the current token.
    pub(super) fn token_bytes(&self) -> &'a [u8] {
        self.slice(self.start, self.at)
    }

    /// `buf[from..to]`, or nothing where the range does not exist.
    pub(super) fn slice(&self, from: usize, to: usize) -> &'a [u8] {
        self.buf.get(from..to).unwrap_or_default()
    }

    /// `at`, held at the end of the buffer.
    pub(super) fn bounded(&self, at: usize) -> usize {
        at.min(self.buf.len())
    }

    /// The next token, with spaces and tabs before it skipped.
    pub(super) fn next_token(&mut self) -> Token {
        if self.state != State::MetaText {
            self.skip_blanks();
        }
        self.start = self.at;
        let Some(c) = self.current() else { return Token::Eof };
        match self.state {
            State::Init => self.init(c),
            State::Comment => self.rest_of_comment(),
            State::MetaName => self.meta_name(c),
            State::MetaText => self.meta_text(),
            State::Labels => self.labels(c),
            State::LabelValue => match c {
                b'"' => self.quoted(State::Labels, Token::LabelValue),
                _ => Token::Invalid,
            },
            State::Value => self.value(c),
            State::Timestamp => self.timestamp(c),
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

    fn skip_blanks(&mut self) {
        while matches!(self.current(), Some(b' ' | b'\t')) {
            self.step();
        }
    }

    fn single(&mut self, state: State, token: Token) -> Token {
        self.step();
        self.state = state;
        token
    }

    fn init(&mut self, c: u8) -> Token {
        match c {
            // A NUL where a token should start ends the input, whatever follows.
            0 => self.single(State::Init, Token::Eof),
            b'\n' => self.single(State::Init, Token::Linebreak),
            b'#' => self.comment(),
            b'{' => self.single(State::Labels, Token::BraceOpen),
            _ if is_metric_start(c) => {
                self.name(is_metric_byte);
                self.state = State::Value;
                Token::MetricName
            }
            _ => Token::Invalid,
        }
    }

    fn name(&mut self, is_part: fn(u8) -> bool) {
        let rest = self.buf.get(self.at..).unwrap_or_default();
        self.at += rest.iter().position(|b| !is_part(*b)).unwrap_or(rest.len());
    }

    fn comment(&mut self) -> Token {
        if !matches!(self.step(), Some(b' ' | b'\t')) {
            return self.rest_of_comment();
        }
        self.skip_blanks();
        self.state = State::Comment;
        match self.current() {
            Some(b'H') if self.keyword(b"ELP") => Token::Help,
            Some(b'T') if self.keyword(b"YPE") => Token::Type,
            _ => self.rest_of_comment(),
        }
    }

    /// True if the rest of a keyword and at least one blank follow the current byte.
    fn keyword(&mut self, rest: &[u8]) -> bool {
        for expected in rest {
            if self.step() != Some(*expected) {
                return false;
            }
        }
        if !matches!(self.step(), Some(b' ' | b'\t')) {
            return false;
        }
        self.skip_blanks();
        self.state = State::MetaName;
        true
    }

    fn rest_of_comment(&mut self) -> Token {
        let mut c = self.current();
        loop {
            match c {
                None | Some(0) => return Token::Eof,
                Some(b'\n') => {
                    self.state = State::Init;
                    return Token::Comment;
                }
                Some(_) => {}
            }
            // Jump to the next byte that matters instead of stepping there.
            let rest = self.buf.get(self.at + 1..).unwrap_or_default();
            self.at += memchr::memchr2(b'\n', 0, rest).unwrap_or(rest.len());
            c = self.step();
        }
    }

    fn meta_name(&mut self, c: u8) -> Token {
        match c {
            b'"' => self.quoted(State::MetaText, Token::MetricName),
            _ if is_metric_start(c) => {
                self.name(is_metric_byte);
                self.state = State::MetaText;
                Token::MetricName
            }
            _ => Token::Invalid,
        }
    }

    /// Everything to the line end, with the blanks before it; nothing if there are only blanks or a NUL comes first.
    fn meta_text(&mut self) -> Token {
        self.state = State::Init;
        if self.current() == Some(0) {
            return Token::Text;
        }
        let rest = self.buf.get(self.at..).unwrap_or_default();
        let len = memchr(b'\n', rest).unwrap_or(rest.len());
        self.at += len;
        let blank = rest.iter().take(len).all(|b| matches!(b, b' ' | b'\t' | 0));
        if blank {
            self.start = self.at;
        }
        Token::Text
    }

    fn labels(&mut self, c: u8) -> Token {
        match c {
            b'"' => self.quoted(State::Labels, Token::QuotedString),
            b',' => self.single(State::Labels, Token::Comma),
            b'=' => self.single(State::LabelValue, Token::Equal),
            b'}' => self.single(State::Value, Token::BraceClose),
            _ if c == b'_' || c.is_ascii_alphabetic() => {
                self.name(|b| b == b'_' || b.is_ascii_alphanumeric());
                Token::LabelName
            }
            _ => Token::Invalid,
        }
    }

    /// A quoted string with backslash escapes. Line ends may stand in it, but not after a backslash.
    fn quoted(&mut self, next: State, token: Token) -> Token {
        let nul_is_data = self.state == State::LabelValue;
        loop {
            let rest = self.buf.get(self.at + 1..).unwrap_or_default();
            let stop = if nul_is_data { memchr::memchr2(b'"', b'\\', rest) } else { memchr3(b'"', b'\\', 0, rest) };
            let Some(stop) = stop else {
                self.at = self.buf.len();
                self.starved = true;
                return Token::Invalid;
            };
            self.at += 1 + stop;
            match self.current() {
                Some(b'"') => {
                    self.step();
                    self.state = next;
                    return token;
                }
                Some(b'\\') => match self.step() {
                    Some(b'\n' | 0) => return Token::Invalid,
                    Some(_) => {}
                    None => {
                        self.starved = true;
                        return Token::Invalid;
                    }
                },
                _ => return Token::Invalid,
            }
        }
    }

    fn value(&mut self, c: u8) -> Token {
        match c {
            b'{' => self.single(State::Labels, Token::BraceOpen),
            b'\n' | 0 => Token::Invalid,
            _ => {
                self.name(|b| !matches!(b, b'{' | b' ' | b'\t' | b'\n' | 0));
                self.state = State::Timestamp;
                Token::Value
            }
        }
    }

    fn timestamp(&mut self, c: u8) -> Token {
        match c {
            b'\n' => self.single(State::Init, Token::Linebreak),
            b'0'..=b'9' => {
                self.name(|b| b.is_ascii_digit());
                Token::Timestamp
            }
            _ => Token::Invalid,
        }
    }
}

pub(super) fn is_metric_start(b: u8) -> bool {
    b == b'_' || b == b':' || b.is_ascii_alphabetic()
}

pub(super) fn is_metric_byte(b: u8) -> bool {
    b == b':' || b == b'_' || b.is_ascii_alphanumeric()
}
