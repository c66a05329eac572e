//! Parser of OpenMetrics 0.0.1 and 1.0.0: one entry at a time, from whole lines, without allocating per line.
//!
//! ```text
//! # HELP name text     # TYPE name counter|gauge|histogram|gaugehistogram|summary|info|stateset|unknown
//! # UNIT name unit     name{label="value",…} value [timestamp_s] [# {label="value",…} value [timestamp_s]]
//! # EOF
//! ```
//!
//! Accepted input and error texts are Prometheus's: single blanks only, no other comments, `# EOF` and nothing after it,
//! but neither order nor suffixes of the samples are checked. `_created` lines are series like others. Exemplars are
//! checked, and read by [`RawExemplar::read`] where they are wanted.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod lexer;

use std::borrow::Cow;

use crate::exposition::exemplar::RawExemplar;
use crate::exposition::float::{parse_float, scan_sample_value};
use crate::exposition::lexer::Token;
use crate::exposition::openmetrics::lexer::{Lexer, State};
use crate::exposition::text::{Entry, FamilyKind, Scanned, SeriesLine, Step, TextError, excerpt, unescape};

/// Parser state that outlives a buffer.
#[derive(Debug, Default)]
pub struct OpenMetricsParser {
    kind: FamilyKind,
    /// What followed the last value is no token. Prometheus takes the sample and fails at the next entry.
    stuck: bool,
}

impl OpenMetricsParser {
    /// A parser at the start of a body.
    pub fn new() -> Self {
        Self::default()
    }

    /// The type that applies to series now.
    pub fn kind(&self) -> FamilyKind {
        self.kind
    }

    /// Tells the parser that a `# TYPE` line with this type was met, by a caller that recognised it without parsing.
    pub fn set_kind(&mut self, kind: FamilyKind) {
        self.kind = kind;
    }

    /// Whether a line is what comes next, and not what was no token behind the last value.
    pub fn is_at_line_start(&self) -> bool {
        !self.stuck
    }

    /// Reads the entry that starts at byte `at` of `buf`, which must end with a line end unless `last` says that nothing
    /// follows it.
    pub fn next_entry<'a>(&mut self, buf: &'a [u8], at: usize, last: bool) -> Result<Step<'a>, TextError> {
        let stuck = std::mem::take(&mut self.stuck);
        let mut lexer = Lexer::new(buf, at, if stuck { State::Timestamp } else { State::Init });
        match self.entry(&mut lexer) {
            // The next line may close a quoted name, or stand in the error text.
            Err(_) if !last && lexer.is_at_end() => {
                self.stuck = stuck;
                Ok(Step::Incomplete)
            }
            Ok(Some(entry)) => Ok(Step::Entry { entry, next: lexer.at }),
            Ok(None) => Ok(Step::Ended { next: lexer.at }),
            Err(error) => Err(error),
        }
    }

    fn entry<'a>(&mut self, lexer: &mut Lexer<'a>) -> Result<Option<Entry<'a>>, TextError> {
        let line_start = lexer.at;
        match lexer.next_token() {
            Token::EofWord => Ok(None),
            Token::Eof => Err(TextError::EndMissing),
            keyword @ (Token::Help | Token::Type | Token::Unit) => self.metadata(lexer, line_start, keyword).map(Some),
            first @ (Token::BraceOpen | Token::MetricName) => {
                self.series(lexer, line_start, first).map(|line| Some(Entry::Series(line)))
            }
            other => Err(unexpected(lexer, line_start, "expected a valid start token", other)),
        }
    }

    fn metadata<'a>(
        &mut self,
        lexer: &mut Lexer<'a>,
        line_start: usize,
        keyword: Token,
    ) -> Result<Entry<'a>, TextError> {
        let name_expected = match keyword {
            Token::Help => "expected metric name after HELP",
            Token::Type => "expected metric name after TYPE",
            _ => "expected metric name after UNIT",
        };
        match lexer.next_token() {
            Token::MetricName => {}
            other => return Err(unexpected(lexer, line_start, name_expected, other)),
        }
        let family = match lexer.token_bytes() {
            [b'"', inner @ .., b'"'] => inner,
            bare => bare,
        };
        if lexer.next_token() != Token::Text {
            return Err(TextError::NoText { keyword: keyword.name() });
        }
        let text = match lexer.token_bytes() {
            [_, inner @ .., _] => inner,
            _ => &[],
        };
        let raw = lexer.slice(line_start, lexer.at - 1);
        match keyword {
            Token::Help => match std::str::from_utf8(text) {
                Ok(_) => Ok(Entry::Help { family, text, raw }),
                Err(_) => Err(TextError::InvalidHelp(excerpt(text))),
            },
            Token::Type => {
                self.kind = match text {
                    b"counter" => FamilyKind::Counter,
                    b"gauge" => FamilyKind::Gauge,
                    b"histogram" => FamilyKind::Histogram,
                    b"gaugehistogram" => FamilyKind::GaugeHistogram,
                    b"summary" => FamilyKind::Summary,
                    b"info" => FamilyKind::Info,
                    b"stateset" => FamilyKind::StateSet,
                    b"unknown" => FamilyKind::Unknown,
                    _ => return Err(TextError::InvalidType(excerpt(text))),
                };
                Ok(Entry::Type { family, kind: self.kind, raw })
            }
            _ => {
                let before = family.strip_suffix(text);
                if text.is_empty() || before.is_some_and(|before| before.ends_with(b"_")) {
                    Ok(Entry::Unit { family, unit: text, raw })
                } else {
                    Err(TextError::UnitNotInName { unit: excerpt(text), family: excerpt(family) })
                }
            }
        }
    }

    fn series<'a>(
        &mut self,
        lexer: &mut Lexer<'a>,
        line_start: usize,
        first: Token,
    ) -> Result<SeriesLine<'a>, TextError> {
        let mut named = first == Token::MetricName;
        let mut raw = lexer.slice(line_start, lexer.at);
        let mut token = first;
        if named {
            token = lexer.next_token();
        }
        if token == Token::BraceOpen {
            named = label_pairs(lexer, line_start, Braces::Series { named })?;
            raw = lexer.slice(line_start, lexer.at);
            token = lexer.next_token();
        }
        if !named {
            return Err(TextError::NameMissing(line(lexer, line_start)));
        }
        let value = number(lexer, line_start, "expected value after metric", token)?;
        let rest = end_of_line(lexer, line_start)?;
        self.stuck = rest.stuck;
        Ok(SeriesLine { raw, value, timestamp_ms: rest.timestamp_ms, exemplar: rest.exemplar, start_ms: None })
    }
}

/// Value, time stamp and length of the rest of a sample line after a raw series that the caller has recognised. `None`
/// for anything unusual: the caller then parses the line in full.
pub fn scan_sample(rest: &[u8]) -> Option<Scanned<'_>> {
    let tail = rest.strip_prefix(b" ")?;
    let (value, len) = scan_sample_value(tail)?;
    let at = 1 + len;
    match tail.get(len)? {
        b'\n' => Some(Scanned { value, timestamp_ms: None, exemplar: None, len: at + 1 }),
        b' ' => {
            let mut lexer = Lexer::new(rest, at, State::Timestamp);
            let end = end_of_line(&mut lexer, 0).ok().filter(|end| !end.stuck)?;
            Some(Scanned { value, timestamp_ms: end.timestamp_ms, exemplar: end.exemplar, len: lexer.at })
        }
        // A tab is part of the value here, and makes it a bad one.
        _ => None,
    }
}

/// Help text without its escapes: `\\`, `\n` and `\"`; any other backslash stays.
pub fn unescape_help(text: &str) -> Cow<'_, str> {
    unescape(Cow::Borrowed(text), true)
}

/// Whose braces are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Braces {
    /// A series'; `named` if the metric name stands before them.
    Series {
        named: bool,
    },
    Exemplar,
}

/// Reads what stands between braces; answers whether the series has a name. One comma may trail.
fn label_pairs(lexer: &mut Lexer<'_>, line_start: usize, braces: Braces) -> Result<bool, TextError> {
    let mut named = matches!(braces, Braces::Series { named: true });
    let mut token = lexer.next_token();
    loop {
        let quoted = match token {
            Token::BraceClose => return Ok(named),
            Token::LabelName => false,
            Token::QuotedString => true,
            other => return Err(unexpected(lexer, line_start, "expected label name", other)),
        };
        token = lexer.next_token();
        // A quoted string before a comma or the closing brace is the metric name.
        if quoted && matches!(token, Token::Comma | Token::BraceClose) {
            if braces == Braces::Exemplar {
                return Err(unexpected(lexer, line_start, "expected label name", token));
            }
            if named {
                return Err(TextError::NameTwice(line(lexer, line_start)));
            }
            named = true;
            if token == Token::BraceClose {
                return Ok(named);
            }
            token = lexer.next_token();
            continue;
        }
        if token != Token::Equal {
            return Err(unexpected(lexer, line_start, "expected equal", token));
        }
        match lexer.next_token() {
            Token::LabelValue => {}
            other => return Err(unexpected(lexer, line_start, "expected label value", other)),
        }
        if std::str::from_utf8(lexer.token_bytes()).is_err() {
            return Err(TextError::InvalidLabelValue(excerpt(lexer.token_bytes())));
        }
        token = lexer.next_token();
        if token == Token::Comma {
            token = lexer.next_token();
        } else if token != Token::BraceClose {
            return Err(unexpected(lexer, line_start, "expected comma or brace close", token));
        }
    }
}

/// What stands after the value of a sample.
struct EndOfLine<'a> {
    timestamp_ms: Option<i64>,
    exemplar: Option<RawExemplar<'a>>,
    stuck: bool,
}

fn end_of_line<'a>(lexer: &mut Lexer<'a>, line_start: usize) -> Result<EndOfLine<'a>, TextError> {
    let mut end = EndOfLine { timestamp_ms: None, exemplar: None, stuck: false };
    match lexer.next_token() {
        Token::Eof => Err(TextError::EndMissing),
        Token::Linebreak => Ok(end),
        Token::Comment => {
            end.exemplar = Some(exemplar(lexer, line_start)?);
            Ok(end)
        }
        Token::Timestamp => {
            end.timestamp_ms = Some(timestamp_ms(lexer, line_start)?);
            match lexer.next_token() {
                Token::Linebreak => Ok(end),
                Token::Comment => {
                    end.exemplar = Some(exemplar(lexer, line_start)?);
                    Ok(end)
                }
                other => Err(unexpected(lexer, line_start, "expected next entry after timestamp", other)),
            }
        }
        _ => {
            end.stuck = true;
            Ok(end)
        }
    }
}

/// Checks an exemplar, from after its opening brace to the line end.
fn exemplar<'a>(lexer: &mut Lexer<'a>, line_start: usize) -> Result<RawExemplar<'a>, TextError> {
    let labels_start = lexer.at;
    label_pairs(lexer, line_start, Braces::Exemplar)?;
    let labels = lexer.slice(labels_start, lexer.at);
    let token = lexer.next_token();
    let value = number(lexer, line_start, "expected value after exemplar labels", token)?;
    let exemplar = |timestamp_ms| RawExemplar::Line { labels, value, timestamp_ms };
    match lexer.next_token() {
        Token::Eof => Err(TextError::EndMissing),
        Token::Linebreak => Ok(exemplar(None)),
        Token::Timestamp => {
            let at = timestamp_ms(lexer, line_start).map_err(|error| match error {
                TextError::InvalidTimestamp(text) => TextError::InvalidExemplarTimestamp(text),
                other => other,
            })?;
            match lexer.next_token() {
                Token::Linebreak => Ok(exemplar(Some(at))),
                other => Err(unexpected(lexer, line_start, "expected next entry after exemplar timestamp", other)),
            }
        }
        other => Err(unexpected(lexer, line_start, "expected timestamp or comment", other)),
    }
}

/// The labels of an exemplar that was checked; escapes stay, as in Prometheus.
pub(super) fn exemplar_labels(labels: &[u8]) -> Vec<(Cow<'_, str>, Cow<'_, str>)> {
    let mut lexer = Lexer::new(labels, 0, State::Exemplar);
    let mut pairs: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::new();
    let unquoted = |text: &'_ [u8]| text.len().checked_sub(1).and_then(|end| text.get(1..end).map(|_| (1, end)));
    loop {
        let token = lexer.next_token();
        let text = lexer.token_bytes();
        let inner = unquoted(text).and_then(|(from, to)| text.get(from..to)).unwrap_or_default();
        match token {
            Token::LabelName => pairs.push((String::from_utf8_lossy(text), Cow::Borrowed(""))),
            Token::QuotedString => pairs.push((String::from_utf8_lossy(inner), Cow::Borrowed(""))),
            Token::LabelValue => {
                if let Some((_, value)) = pairs.last_mut() {
                    *value = String::from_utf8_lossy(inner);
                }
            }
            Token::Equal | Token::Comma => {}
            _ => return pairs,
        }
    }
}

fn number(lexer: &Lexer<'_>, line_start: usize, expected: &'static str, token: Token) -> Result<f64, TextError> {
    if token != Token::Value {
        return Err(unexpected(lexer, line_start, expected, token));
    }
    word(lexer, line_start)
}

fn word(lexer: &Lexer<'_>, line_start: usize) -> Result<f64, TextError> {
    let text = lexer.token_bytes().get(1..).unwrap_or_default();
    parse_float(text).map_err(|reason| TextError::Value { reason, line: line(lexer, line_start) })
}

/// Seconds as milliseconds, cut; beyond 64 bits what Go makes of them on a PC.
fn timestamp_ms(lexer: &Lexer<'_>, line_start: usize) -> Result<i64, TextError> {
    let seconds = word(lexer, line_start)?;
    if seconds.is_nan() {
        return Err(TextError::InvalidTimestamp("NaN"));
    }
    if seconds.is_infinite() {
        return Err(TextError::InvalidTimestamp(if 0.0 < seconds { "+Inf" } else { "-Inf" }));
    }
    let ms = seconds * 1000.0;
    Ok(if ms.abs() < i64::MAX as f64 { ms as i64 } else { i64::MIN })
}

fn line(lexer: &Lexer<'_>, line_start: usize) -> String {
    excerpt(lexer.slice(line_start, lexer.at))
}

/// The error for `token`. Excerpts reach one byte past the token, as in Prometheus.
fn unexpected(lexer: &Lexer<'_>, line_start: usize, expected: &'static str, token: Token) -> TextError {
    TextError::Unexpected {
        expected,
        got: excerpt(lexer.slice(lexer.start, lexer.past())),
        token: token.name(),
        line: excerpt(lexer.slice(line_start, lexer.past())),
    }
}

#[cfg(test)]
mod tests;
