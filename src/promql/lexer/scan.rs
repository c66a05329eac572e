//! Strings, numbers and durations.

use super::{Kind, LexError, Lexer, Mode, QUOTABLE, Step, is_alphanumeric};
use crate::model::go;

const DECIMAL: &str = "0123456789";
const HEXADECIMAL: &str = "0123456789abcdefABCDEF";

impl Lexer<'_> {
    /// A string in `quote`, which has been read. Checks the escapes; [`super::unquote`] resolves them.
    pub(super) fn quoted_string(&mut self, quote: char) -> Result<Step, LexError> {
        loop {
            self.skip(QUOTABLE);
            match self.next() {
                Some('\\') => self.escape(quote)?,
                Some(char::REPLACEMENT_CHARACTER) => return self.fail("invalid UTF-8 rune".to_owned()),
                None | Some('\n') => return self.fail("unterminated quoted string".to_owned()),
                Some(c) if c == quote => break,
                Some(_) => {}
            }
        }
        self.mode = Mode::Statements;
        Ok(Step::Emit(Kind::Text))
    }

    /// A string in back quotes, the first of which has been read.
    pub(super) fn raw_string(&mut self) -> Result<Step, LexError> {
        loop {
            self.skip(QUOTABLE);
            match self.next() {
                Some(char::REPLACEMENT_CHARACTER) => return self.fail("invalid UTF-8 rune".to_owned()),
                None => return self.fail("unterminated raw string".to_owned()),
                Some('`') => break,
                Some(_) => {}
            }
        }
        self.mode = Mode::Statements;
        Ok(Step::Emit(Kind::Text))
    }

    /// An escape sequence whose backslash has been read.
    fn escape(&mut self, quote: char) -> Result<(), LexError> {
        let (digits, base, max) = match self.next() {
            Some('a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\') => return Ok(()),
            Some(c) if c == quote => return Ok(()),
            Some(c @ '0'..='7') => {
                self.pos -= c.len_utf8();
                (3, 8, 255)
            }
            Some('x') => (2, 16, 255),
            Some('u') => (4, 16, u32::from(char::MAX)),
            Some('U') => (8, 16, u32::from(char::MAX)),
            Some(c) => return self.fail(format!("unknown escape sequence {}", go::unicode_point(c))),
            None => return self.fail("escape sequence not terminated".to_owned()),
        };
        let mut value: u32 = 0;
        for _ in 0..digits {
            let Some(c) = self.next() else { return self.fail("escape sequence not terminated".to_owned()) };
            let Some(digit) = c.to_digit(base) else {
                return self.fail(format!("illegal character {} in escape sequence", go::unicode_point(c)));
            };
            // Eight hexadecimal digits are just what 32 bits hold.
            value = value * base + digit;
        }
        if value > max || (0xD800 <= value && value < 0xE000) {
            return self.fail("escape sequence is an invalid Unicode code point".to_owned());
        }
        Ok(())
    }

    /// A number, the first character of which is still to be read.
    pub(super) fn number(&mut self) -> Result<Step, LexError> {
        if !self.scan_number() {
            return self.fail(format!("bad number syntax: {}", go::quote(self.pending())));
        }
        Ok(Step::Emit(Kind::Number))
    }

    /// A number or a duration, the first character of which is still to be read.
    pub(super) fn number_or_duration(&mut self) -> Result<Step, LexError> {
        if self.scan_number() {
            return Ok(Step::Emit(Kind::Number));
        }
        if self.scan_rest_of_duration() {
            return Ok(Step::Emit(Kind::Duration));
        }
        self.fail(format!("bad number or duration syntax: {}", go::quote(self.pending())))
    }

    /// The units and further parts of a duration whose first number has been read. Which units may follow each other is
    /// checked when the duration is parsed.
    fn scan_rest_of_duration(&mut self) -> bool {
        if !self.accept("smhdwy") {
            return false;
        }
        self.accept("s");
        while self.accept(DECIMAL) {
            self.accept_run(DECIMAL);
            // Years can only come first.
            if !self.accept("smhdw") {
                return false;
            }
            self.accept("s");
        }
        match self.peek() {
            Some(c) if is_alphanumeric(c) => {
                self.pos += c.len_utf8();
                false
            }
            _ => true,
        }
    }

    /// Reads what may be a number in any of its forms and says whether it can be one. Reads into what cannot be a number
    /// as far as the error message shows it.
    fn scan_number(&mut self) -> bool {
        let begin = self.pos;
        let mut digits = DECIMAL;
        // In a series description `0x3` is a repetition.
        if !self.series_desc && self.accept("0") && self.accept("xX") {
            self.accept("_");
            digits = HEXADECIMAL;
        }
        self.accept(".");
        self.accept(digits);
        let (mut dot_seen, mut exponent_seen) = (false, false);
        while let Some(c) = self.peek().filter(|c| c.is_ascii_digit() || digits.contains(*c) || "._eE".contains(*c)) {
            match c {
                '.' => {
                    self.pos += 1;
                    if dot_seen || self.accept("._") || digits == HEXADECIMAL {
                        return false;
                    }
                    dot_seen = true;
                }
                'e' | 'E' => {
                    self.pos += 1;
                    if exponent_seen {
                        return false;
                    }
                    exponent_seen = true;
                    self.accept("+-");
                    if self.accept("._eE") || self.peek().is_none() {
                        return false;
                    }
                }
                '_' => {
                    self.pos += 1;
                    if self.accept("._eE") || self.peek().is_none() {
                        return false;
                    }
                }
                _ => self.accept_run(digits),
            }
        }
        if self.pos == begin {
            return false;
        }
        // A letter must not follow, but for the repetitions of a series description.
        self.peek().is_none_or(|c| (self.series_desc && c == 'x') || !is_alphanumeric(c))
    }

    fn accept(&mut self, valid: &str) -> bool {
        // What is valid is ASCII.
        let next = self.input.as_bytes().get(self.pos);
        let is_valid = next.is_some_and(|next| valid.bytes().any(|byte| byte == *next));
        self.pos += usize::from(is_valid);
        is_valid
    }

    fn accept_run(&mut self, valid: &str) {
        while self.accept(valid) {}
    }
}
