//! The values of a series description, and the histograms among them. White space parts the values, so it is a token.

use super::{Kind, LexError, Lexer, Mode, Step, is_alpha, is_digit, is_space};
use crate::model::go;
use crate::promql::ast::BinaryOp;

impl Lexer<'_> {
    pub(super) fn value_sequence(&mut self) -> Result<Step, LexError> {
        if self.histogram_open {
            self.mode = Mode::Histogram;
            return Ok(Step::Continue);
        }
        let Some(c) = self.next() else {
            self.mode = Mode::Statements;
            return Ok(Step::Continue);
        };
        let kind = match c {
            '{' if self.eat('{') => {
                self.histogram_open = true;
                self.mode = Mode::Histogram;
                Kind::OpenHistogram
            }
            c if is_space(c) => return Ok(self.space_token()),
            '+' => Kind::Op(BinaryOp::Add),
            '-' => Kind::Op(BinaryOp::Sub),
            'x' => Kind::Times,
            '_' => Kind::Blank,
            c if is_digit(c) || (c == '.' && self.peek().is_some_and(is_digit)) => {
                self.pos -= c.len_utf8();
                return self.number();
            }
            c if is_alpha(c) => return Ok(self.keyword_or_identifier()),
            c => return self.fail(format!("unexpected character in series sequence: {}", go::quote_rune(c))),
        };
        Ok(Step::Emit(kind))
    }

    pub(super) fn histogram(&mut self) -> Result<Step, LexError> {
        if let Some(operator) = self.after_histogram.take() {
            self.pos += 1;
            self.mode = Mode::ValueSequence;
            return Ok(Step::Emit(operator));
        }
        if self.bracket_open {
            self.mode = Mode::Buckets;
            return Ok(Step::Continue);
        }
        let Some(c) = self.next() else { return self.fail_in_histogram(char::REPLACEMENT_CHARACTER) };
        let kind = match c {
            c if is_space(c) => return Ok(self.space_token()),
            c if is_alpha(c) => return self.histogram_word(),
            ':' => Kind::Colon,
            '-' => Kind::Op(BinaryOp::Sub),
            c if is_digit(c) => {
                self.pos -= c.len_utf8();
                self.mode = Mode::Statements;
                return self.number();
            }
            '[' => {
                self.bracket_open = true;
                self.got_colon = false;
                self.got_duration = false;
                self.mode = Mode::Buckets;
                Kind::LeftBracket
            }
            '}' if self.eat('}') => {
                self.close_histogram();
                Kind::CloseHistogram
            }
            c => return self.fail_in_histogram(c),
        };
        Ok(Step::Emit(kind))
    }

    pub(super) fn buckets(&mut self) -> Result<Step, LexError> {
        let Some(c) = self.next() else { return self.fail_in_buckets(char::REPLACEMENT_CHARACTER) };
        let kind = match c {
            c if is_space(c) => return Ok(self.space_token()),
            '-' => {
                self.mode = Mode::BucketNumber;
                Kind::Op(BinaryOp::Sub)
            }
            c if is_digit(c) => {
                self.pos -= c.len_utf8();
                self.mode = Mode::Statements;
                return self.number();
            }
            ']' => {
                self.bracket_open = false;
                self.mode = Mode::Histogram;
                Kind::RightBracket
            }
            // Letters are gathered until they spell a special number.
            c if is_alpha(c) => match Kind::of_word(self.pending()) {
                Some(Kind::Number) => {
                    self.mode = Mode::Statements;
                    Kind::Number
                }
                _ => return Ok(Step::Continue),
            },
            c => return self.fail_in_buckets(c),
        };
        Ok(Step::Emit(kind))
    }

    /// A key of a histogram, a special number or a counter reset hint, the first letter of which has been read.
    fn histogram_word(&mut self) -> Result<Step, LexError> {
        self.skip_while(is_alpha);
        let word = self.pending();
        if let Some(kind) = Kind::of_descriptor(word) {
            if self.peek() != Some(':') {
                return self.fail("missing `:` for histogram descriptor".to_owned());
            }
            return Ok(Step::Emit(kind));
        }
        if Kind::of_word(word) == Some(Kind::Number) {
            return Ok(Step::Emit(Kind::Number));
        }
        match Kind::of_reset_hint(word) {
            Some(kind) => Ok(Step::Emit(kind)),
            None => self.fail(format!("bad histogram descriptor found: {}", go::quote(word))),
        }
    }

    /// Behind `}}` an operator may follow at once, which would else be read as part of a number.
    fn close_histogram(&mut self) {
        self.histogram_open = false;
        self.after_histogram = match self.peek() {
            Some('x') => Some(Kind::Times),
            Some('+') => Some(Kind::Op(BinaryOp::Add)),
            Some('-') => Some(Kind::Op(BinaryOp::Sub)),
            _ => None,
        };
        self.mode = if self.after_histogram.is_some() { Mode::Histogram } else { Mode::ValueSequence };
    }

    /// One token for the first character of a run of white space; the rest of the run belongs to no token.
    fn space_token(&mut self) -> Step {
        self.space_pending = true;
        Step::Emit(Kind::Space)
    }

    fn fail_in_histogram<T>(&self, c: char) -> Result<T, LexError> {
        self.fail(format!("histogram description incomplete unexpected: {}", go::quote_rune(c)))
    }

    fn fail_in_buckets<T>(&self, c: char) -> Result<T, LexError> {
        self.fail(format!("invalid character in buckets description: {}", go::quote_rune(c)))
    }
}
