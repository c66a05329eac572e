//! Parser of the text formats 0.0.4 and 1.0.0: one entry at a time, from whole lines, without allocating per line.
//!
//! ```text
//! # HELP name text          # TYPE name counter|gauge|histogram|summary|untyped          # any comment
//! name{label="value",…} value [timestamp_ms]          {"any UTF-8 name","any.label"="value"} value
//! ```
//!
//! Data flow: `scrape` cuts the body at line ends → [`TextParser::next_entry`] lexes one entry → for a series that it
//! has not met before, `scrape` asks [`TextParser::series_labels`]. A series that it knows it reads with
//! [`scan_sample`] alone: a comparison of the raw series bytes and a number parse.
//!
//! Accepted input and error texts are Prometheus's, quirks included: what stands before a bare metric name on its line
//! belongs to the name, and a NUL where an entry should start ends the input. Excerpts in errors are cut at
//! [`EXCERPT_LEN_MAX`] bytes, as a hostile target may send long lines.
#![deny(clippy::indexing_slicing)]

use std::borrow::Cow;

use crate::exposition::exemplar::RawExemplar;
use crate::exposition::float::{FloatError, parse_float, scan_sample_value};
use crate::exposition::lexer::{Lexer, Token};
use crate::exposition::packed;
use crate::model::go;
use crate::model::labels::METRIC_NAME;

/// Longest excerpt of the input that an error shows, in bytes.
pub const EXCERPT_LEN_MAX: usize = 2048;

/// What a family measures, as `# TYPE` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FamilyKind {
    /// `untyped`, or nothing said.
    #[default]
    Unknown,
    /// `counter`.
    Counter,
    /// `gauge`.
    Gauge,
    /// `histogram`.
    Histogram,
    /// `summary`.
    Summary,
    /// `gaugehistogram` of OpenMetrics.
    GaugeHistogram,
    /// `info` of OpenMetrics.
    Info,
    /// `stateset` of OpenMetrics.
    StateSet,
}

impl FamilyKind {
    /// The name that the metadata API shows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
            Self::GaugeHistogram => "gaugehistogram",
            Self::Info => "info",
            Self::StateSet => "stateset",
        }
    }
}

/// One sample line. The bytes are those of the input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SeriesLine<'a> {
    /// Metric and labels as written, from the start of the line: equal bytes mean the same series.
    pub raw: &'a [u8],
    /// The value; every NaN is the canonical one.
    pub value: f64,
    /// The explicit time stamp, if there is one.
    pub timestamp_ms: Option<i64>,
    /// The exemplar that follows.
    pub exemplar: Option<RawExemplar<'a>>,
    /// The time at which a counter began, if that is known from the sample itself; never in the formats made of lines.
    pub start_ms: Option<i64>,
}

/// What follows the raw series on a sample line that was recognised by it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scanned<'a> {
    /// The value; every NaN is the canonical one.
    pub value: f64,
    /// The explicit time stamp, if there is one.
    pub timestamp_ms: Option<i64>,
    /// The exemplar that follows.
    pub exemplar: Option<RawExemplar<'a>>,
    /// Bytes read, line end included.
    pub len: usize,
}

/// One entry of the input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Entry<'a> {
    /// `# HELP`: family name and text, both with their escapes ([`unescape_help`]).
    Help {
        /// Family name, without quotes.
        family: &'a [u8],
        /// The text as written.
        text: &'a [u8],
        /// The line without its end.
        raw: &'a [u8],
    },
    /// `# TYPE`.
    Type {
        /// Family name, without quotes.
        family: &'a [u8],
        /// The type.
        kind: FamilyKind,
        /// The line without its end.
        raw: &'a [u8],
    },
    /// `# UNIT` of OpenMetrics.
    Unit {
        /// Family name, without quotes.
        family: &'a [u8],
        /// The unit, which the family name ends with; may be empty.
        unit: &'a [u8],
        /// The line without its end.
        raw: &'a [u8],
    },
    /// Any other line that starts with `#`.
    Comment,
    /// A sample.
    Series(SeriesLine<'a>),
}

/// What [`TextParser::next_entry`] found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step<'a> {
    /// An entry; the next one starts at byte `next` of the buffer.
    Entry {
        /// The entry.
        entry: Entry<'a>,
        /// Where the next one starts.
        next: usize,
    },
    /// The end of the buffer.
    End,
    /// A NUL where an entry should start: it ends the input, whatever follows.
    Terminated,
    /// `# EOF` of OpenMetrics; nothing may stand from byte `next` on.
    Ended {
        /// Where the end ends.
        next: usize,
    },
    /// A quoted string runs over the end of the buffer: parse again from the same place with more bytes.
    Incomplete,
}

/// Why an input is refused. The texts are Prometheus's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// A token that does not fit.
    #[error("{expected}, got {got} ({}) while parsing: {line}", go::quote(.token))]
    Unexpected {
        /// What should have come.
        expected: &'static str,
        /// The token as a Go string literal.
        got: String,
        /// Kind of the token.
        token: &'static str,
        /// The line so far, as a Go string literal.
        line: String,
    },
    /// A metadata line that ends too early.
    #[error("expected text in {keyword}, got {token}")]
    NoMetadataText {
        /// `HELP` or `TYPE`.
        keyword: &'static str,
        /// Kind of the token found.
        token: &'static str,
    },
    /// The same in OpenMetrics.
    #[error("expected text in {keyword}")]
    NoText {
        /// `HELP`, `TYPE` or `UNIT`.
        keyword: &'static str,
    },
    /// A unit that the family name does not end with.
    #[error("unit {unit} not a suffix of metric {family}")]
    UnitNotInName {
        /// The unit as a Go string literal.
        unit: String,
        /// The family name as a Go string literal.
        family: String,
    },
    /// OpenMetrics without `# EOF`.
    #[error("data does not end with # EOF")]
    EndMissing,
    /// OpenMetrics with something after `# EOF`.
    #[error("unexpected data after # EOF")]
    DataAfterEnd,
    /// An OpenMetrics time stamp that is no time.
    #[error("invalid timestamp {0}")]
    InvalidTimestamp(&'static str),
    /// The same of an exemplar.
    #[error("invalid exemplar timestamp {0}")]
    InvalidExemplarTimestamp(&'static str),
    /// An unknown type.
    #[error("invalid metric type {0}")]
    InvalidType(String),
    /// A help text that is not UTF-8.
    #[error("help text {0} is not a valid utf8 string")]
    InvalidHelp(String),
    /// Braces without a metric name in or before them.
    #[error("metric name not set while parsing: {0}")]
    NameMissing(String),
    /// A second metric name.
    #[error("metric name already set while parsing: {0}")]
    NameTwice(String),
    /// A label value that is not UTF-8.
    #[error("invalid UTF-8 label value: {0}")]
    InvalidLabelValue(String),
    /// A bad sample value.
    #[error("{reason} while parsing: {line}")]
    Value {
        /// What is wrong with it.
        #[source]
        reason: FloatError,
        /// The line so far, as a Go string literal.
        line: String,
    },
    /// A time stamp beyond 64 bits.
    #[error("strconv.ParseInt: parsing {text}: value out of range while parsing: {line}")]
    TimestampRange {
        /// The time stamp as a Go string literal.
        text: String,
        /// The line so far, as a Go string literal.
        line: String,
    },
}

/// Places of a name and its value in the raw series.
#[derive(Clone, Copy, Debug)]
struct LabelSpan {
    name: (usize, usize),
    value: (usize, usize),
}

/// Parser state that outlives a buffer: the type that the last `# TYPE` line named.
#[derive(Debug, Default)]
pub struct TextParser {
    kind: FamilyKind,
    metric: Option<(usize, usize)>,
    labels: Vec<LabelSpan>,
}

impl TextParser {
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

    /// Reads the entry that starts at byte `at` of `buf`, which must end with a line end. `last` says that nothing
    /// follows `buf` (to which the caller has added a line end, as Prometheus does).
    pub fn next_entry<'a>(&mut self, buf: &'a [u8], at: usize, last: bool) -> Result<Step<'a>, TextError> {
        let mut lexer = Lexer::new(buf, at);
        match self.entry(&mut lexer) {
            Err(_) if lexer.starved && !last => Ok(Step::Incomplete),
            Ok(Some(entry)) => Ok(Step::Entry { entry, next: lexer.at }),
            Ok(None) if lexer.at < buf.len() => Ok(Step::Terminated),
            Ok(None) => Ok(Step::End),
            Err(error) => Err(error),
        }
    }

    /// Appends metric name and labels of `raw`, the bytes of a series that was parsed before, to `out`, in the order
    /// of the input, unescaped. `le` of histograms and `quantile` of summaries take OpenMetrics's form (`1` is `1.0`).
    /// Names that are not UTF-8 are kept with replacement characters; the answer is then false, as the series is
    /// invalid.
    pub fn series_labels<'a>(
        &mut self,
        raw: &'a [u8],
        kind: FamilyKind,
        out: &mut Vec<(Cow<'a, str>, Cow<'a, str>)>,
    ) -> bool {
        let mut lexer = Lexer::new(raw, 0);
        let first = lexer.next_token();
        if self.series_head(&mut lexer, 0, first).is_err() {
            return false;
        }
        let Some((from, to)) = self.metric else { return false };
        let mut valid = true;
        let mut text = |span: (usize, usize)| {
            let part = raw.get(span.0..span.1).unwrap_or_default();
            let text = match std::str::from_utf8(part) {
                Ok(text) => Cow::Borrowed(text),
                Err(_) => {
                    valid = false;
                    String::from_utf8_lossy(part)
                }
            };
            unescape_label(text)
        };
        out.push((Cow::Borrowed(METRIC_NAME), text((from, to))));
        for label in &self.labels {
            let name = text(label.name);
            let value = text(label.value);
            let value = normalize_bound(kind, &name, value);
            out.push((name, value));
        }
        valid
    }

    fn entry<'a>(&mut self, lexer: &mut Lexer<'a>) -> Result<Option<Entry<'a>>, TextError> {
        loop {
            let line_start = lexer.at;
            match lexer.next_token() {
                Token::Eof => return Ok(None),
                Token::Linebreak => {}
                Token::Help => return self.metadata(lexer, line_start, Token::Help).map(Some),
                Token::Type => return self.metadata(lexer, line_start, Token::Type).map(Some),
                Token::Comment => {
                    expect_linebreak(lexer, line_start, "linebreak expected after comment")?;
                    return Ok(Some(Entry::Comment));
                }
                first @ (Token::BraceOpen | Token::MetricName) => {
                    let (raw, next) = self.series_head(lexer, line_start, first)?;
                    return self.sample(lexer, line_start, raw, next).map(|line| Some(Entry::Series(line)));
                }
                other => return Err(unexpected(lexer, line_start, "expected a valid start token", other)),
            }
        }
    }

    fn metadata<'a>(
        &mut self,
        lexer: &mut Lexer<'a>,
        line_start: usize,
        keyword: Token,
    ) -> Result<Entry<'a>, TextError> {
        let is_help = keyword == Token::Help;
        let name_expected = if is_help { "expected metric name after HELP" } else { "expected metric name after TYPE" };
        match lexer.next_token() {
            Token::MetricName => {}
            other => return Err(unexpected(lexer, line_start, name_expected, other)),
        }
        let family = match lexer.token_bytes() {
            [b'"', inner @ .., b'"'] => inner,
            bare => bare,
        };
        match lexer.next_token() {
            Token::Text => {}
            other => return Err(TextError::NoMetadataText { keyword: keyword.name(), token: other.name() }),
        }
        let text = lexer.token_bytes().get(1..).unwrap_or_default();
        let raw = lexer.slice(line_start, lexer.at);
        let entry = if is_help {
            if std::str::from_utf8(text).is_err() {
                return Err(TextError::InvalidHelp(excerpt(text)));
            }
            Entry::Help { family, text, raw }
        } else {
            self.kind = match text {
                b"counter" => FamilyKind::Counter,
                b"gauge" => FamilyKind::Gauge,
                b"histogram" => FamilyKind::Histogram,
                b"summary" => FamilyKind::Summary,
                b"untyped" => FamilyKind::Unknown,
                _ => return Err(TextError::InvalidType(excerpt(text))),
            };
            Entry::Type { family, kind: self.kind, raw }
        };
        expect_linebreak(lexer, line_start, "linebreak expected after metadata")?;
        Ok(entry)
    }

    /// Reads metric name and labels; answers the raw series and the token that follows it.
    fn series_head<'a>(
        &mut self,
        lexer: &mut Lexer<'a>,
        line_start: usize,
        first: Token,
    ) -> Result<(&'a [u8], Token), TextError> {
        self.labels.clear();
        self.metric = None;
        if first == Token::MetricName {
            self.metric = Some((0, lexer.at - line_start));
            let raw = lexer.slice(line_start, lexer.at);
            let next = lexer.next_token();
            if next != Token::BraceOpen {
                return Ok((raw, next));
            }
        }
        self.label_pairs(lexer, line_start)?;
        let raw = lexer.slice(line_start, lexer.at);
        let next = lexer.next_token();
        Ok((raw, next))
    }

    /// Reads what stands between the braces. Commas between labels may be missing, and one may trail.
    fn label_pairs(&mut self, lexer: &mut Lexer<'_>, line_start: usize) -> Result<(), TextError> {
        let mut token = lexer.next_token();
        loop {
            let (mut from, mut to) = (lexer.start, lexer.at);
            let quoted = match token {
                Token::BraceClose => return Ok(()),
                Token::LabelName => false,
                Token::QuotedString => true,
                other => return Err(unexpected(lexer, line_start, "expected label name", other)),
            };
            if quoted {
                (from, to) = (from + 1, to - 1);
            }
            token = lexer.next_token();
            // A quoted string before a comma or the closing brace is the metric name.
            if quoted && matches!(token, Token::Comma | Token::BraceClose) {
                if self.metric.is_some() {
                    return Err(TextError::NameTwice(excerpt(lexer.slice(line_start, lexer.at))));
                }
                self.metric = Some((from - line_start, to - line_start));
                if token == Token::BraceClose {
                    return Ok(());
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
            self.labels.push(LabelSpan {
                name: (from - line_start, to - line_start),
                value: (lexer.start + 1 - line_start, lexer.at - 1 - line_start),
            });
            token = lexer.next_token();
            if token == Token::Comma {
                token = lexer.next_token();
            }
        }
    }

    fn sample<'a>(
        &self,
        lexer: &mut Lexer<'a>,
        line_start: usize,
        raw: &'a [u8],
        value_token: Token,
    ) -> Result<SeriesLine<'a>, TextError> {
        let line = |lexer: &Lexer<'_>| excerpt(lexer.slice(line_start, lexer.at));
        if self.metric.is_none() {
            return Err(TextError::NameMissing(line(lexer)));
        }
        if value_token != Token::Value {
            return Err(unexpected(lexer, line_start, "expected value after metric", value_token));
        }
        let value =
            parse_float(lexer.token_bytes()).map_err(|reason| TextError::Value { reason, line: line(lexer) })?;
        let timestamp_ms = match lexer.next_token() {
            Token::Linebreak => None,
            Token::Timestamp => {
                let digits = lexer.token_bytes();
                let parsed = std::str::from_utf8(digits).ok().and_then(|t| t.parse::<i64>().ok());
                let out_of_range = || TextError::TimestampRange { text: excerpt(digits), line: line(lexer) };
                let timestamp_ms = parsed.ok_or_else(out_of_range)?;
                expect_linebreak(lexer, line_start, "expected next entry after timestamp")?;
                Some(timestamp_ms)
            }
            other => return Err(unexpected(lexer, line_start, "expected timestamp or new record", other)),
        };
        Ok(SeriesLine { raw, value, timestamp_ms, exemplar: None, start_ms: None })
    }
}

/// Value, time stamp and length of the rest of a sample line, line end included, after a raw series that the caller
/// has recognised. `None` for anything but the plain form: the caller then parses the line in full.
pub fn scan_sample(rest: &[u8]) -> Option<Scanned<'_>> {
    let start = skip_blanks(rest, 0);
    // Without a blank the bytes before may be only the beginning of a longer name.
    if start == 0 {
        return None;
    }
    let (value, len) = scan_sample_value(rest.get(start..)?)?;
    let mut at = skip_blanks(rest, start + len);
    if rest.get(at) == Some(&b'\n') {
        return Some(Scanned { value, timestamp_ms: None, exemplar: None, len: at + 1 });
    }
    let digits_start = at;
    let mut timestamp_ms = 0_i64;
    while let Some(b @ b'0'..=b'9') = rest.get(at) {
        timestamp_ms = timestamp_ms.checked_mul(10)?.checked_add(i64::from(b - b'0'))?;
        at += 1;
    }
    if at == digits_start {
        return None;
    }
    at = skip_blanks(rest, at);
    let timestamp_ms = Some(timestamp_ms);
    (rest.get(at) == Some(&b'\n')).then_some(Scanned { value, timestamp_ms, exemplar: None, len: at + 1 })
}

/// As [`scan_sample`] of a line with one blank and a value alone, without a time stamp; answers the value and the length.
#[inline]
pub fn scan_value_alone(rest: &[u8]) -> Option<(f64, usize)> {
    let raw = rest.strip_prefix(b" ")?;
    let (value, len) = scan_sample_value(raw)?;
    (raw.get(len) == Some(&b'\n')).then_some((value, len + 2))
}

/// Help text without its escapes: `\\` and `\n`; any other backslash stays.
pub fn unescape_help(text: &str) -> Cow<'_, str> {
    unescape(Cow::Borrowed(text), false)
}

/// Family and text of a metadata line that was parsed before, in any format; both as they are written, without quotes.
pub fn metadata_parts(raw: &[u8]) -> Option<(&[u8], &[u8])> {
    if let Some(mut parts) = packed::parts(raw) {
        return Some((parts.next()?.as_bytes(), parts.next()?.as_bytes()));
    }
    let hash = memchr::memchr(b'#', raw)?;
    let keyword = skip_blanks(raw, hash + 1);
    let rest = raw.get(keyword..)?;
    let name = keyword + rest.iter().position(|b| matches!(b, b' ' | b'\t'))?;
    let rest = raw.get(skip_blanks(raw, name)..)?;
    let (family, tail) = match rest.strip_prefix(b"\"") {
        Some(inner) => {
            let mut escaped = false;
            let end = inner.iter().position(|b| {
                let closes = *b == b'"' && !escaped;
                escaped = *b == b'\\' && !escaped;
                closes
            })?;
            (inner.get(..end)?, inner.get(end + 1..)?)
        }
        None => rest.split_at(rest.iter().position(|b| matches!(b, b' ' | b'\t')).unwrap_or(rest.len())),
    };
    let text = if skip_blanks(tail, 0) == tail.len() { &[] } else { tail.get(1..)? };
    Some((family, text))
}

fn skip_blanks(raw: &[u8], mut at: usize) -> usize {
    while matches!(raw.get(at), Some(b' ' | b'\t')) {
        at += 1;
    }
    at
}

fn unescape_label(text: Cow<'_, str>) -> Cow<'_, str> {
    unescape(text, true)
}

pub(super) fn unescape(text: Cow<'_, str>, quotes: bool) -> Cow<'_, str> {
    if !text.contains('\\') {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let escaped = match chars.peek() {
            Some('\\') => '\\',
            Some('n') => '\n',
            Some('"') if quotes => '"',
            _ => '\0',
        };
        if c == '\\' && escaped != '\0' {
            chars.next();
            out.push(escaped);
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Bucket bounds and quantiles as OpenMetrics writes them, so that formats agree on the series.
fn normalize_bound<'a>(kind: FamilyKind, name: &str, value: Cow<'a, str>) -> Cow<'a, str> {
    if !is_bound(kind, name) {
        return value;
    }
    match value {
        Cow::Borrowed(value) => normal_bound(value),
        value => long_normal_bound(value),
    }
}

/// Whether the label `name` of a series of this kind is a bucket bound or a quantile.
#[inline]
pub fn is_bound(kind: FamilyKind, name: &str) -> bool {
    match kind {
        FamilyKind::Histogram => name == "le",
        FamilyKind::Summary => name == "quantile",
        _ => false,
    }
}

/// A bucket bound or quantile as OpenMetrics writes it; what is no number stays as it is.
pub fn normal_bound(value: &str) -> Cow<'_, str> {
    // With few digits on both sides of a point the text of the number is the one that it was read from.
    let (whole, fraction) = value.split_once('.').unwrap_or((value, "0"));
    let few_digits = |text: &str| (1..=6).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    let whole_is_short = few_digits(whole) && (whole == "0" || !whole.starts_with('0'));
    let fraction_is_short = few_digits(fraction) && (fraction == "0" || !fraction.ends_with('0'));
    let has_exponent = whole == "0" && fraction.starts_with("0000");
    if value == "+Inf" {
        return Cow::Borrowed(value);
    }
    if !whole_is_short || !fraction_is_short || has_exponent {
        return long_normal_bound(Cow::Borrowed(value));
    }
    if whole.len() < value.len() { Cow::Borrowed(value) } else { Cow::Owned(format!("{whole}.0")) }
}

fn long_normal_bound(value: Cow<'_, str>) -> Cow<'_, str> {
    // Hexadecimal bounds, which Go would read, occur in no format and stay as they are.
    let Ok(bound) = parse_float(value.as_bytes()) else { return value };
    let text = format_bound(bound);
    if text == *value { value } else { Cow::Owned(text) }
}

/// A bucket bound or quantile as OpenMetrics writes it: `1.0`, `1e+06`, `+Inf`.
pub(super) fn format_bound(bound: f64) -> String {
    let mut text = go::format_float_g(bound);
    if bound.is_finite() && !text.contains(['e', '.']) {
        text.push_str(".0");
    }
    text
}

fn expect_linebreak(lexer: &mut Lexer<'_>, line_start: usize, expected: &'static str) -> Result<(), TextError> {
    match lexer.next_token() {
        Token::Linebreak => Ok(()),
        other => Err(unexpected(lexer, line_start, expected, other)),
    }
}

/// The error for `token`. Excerpts reach one byte past the token, as in Prometheus.
fn unexpected(lexer: &Lexer<'_>, line_start: usize, expected: &'static str, token: Token) -> TextError {
    let past = lexer.bounded(lexer.at + 1);
    TextError::Unexpected {
        expected,
        got: excerpt(lexer.slice(lexer.start, past)),
        token: token.name(),
        line: excerpt(lexer.slice(line_start, past)),
    }
}

pub(super) fn excerpt(raw: &[u8]) -> String {
    match raw.get(..EXCERPT_LEN_MAX) {
        Some(cut) if cut.len() < raw.len() => format!("{}…", go::quote_bytes(cut)),
        _ => go::quote_bytes(raw),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All entries of `input`, printed one per line, then the error if there is one.
    fn parse(input: &str) -> String {
        let mut buf = input.as_bytes().to_vec();
        buf.push(b'\n');
        let mut parser = TextParser::new();
        let mut out = String::new();
        let mut at = 0;
        loop {
            let text = |raw| String::from_utf8_lossy(raw).into_owned();
            match parser.next_entry(&buf, at, true) {
                Ok(Step::Entry { entry, next }) => {
                    match entry {
                        Entry::Help { family, text: help, .. } => {
                            out += &format!("help {} {:?}\n", text(family), unescape_help(&text(help)));
                        }
                        Entry::Type { family, kind, .. } => out += &format!("type {} {}\n", text(family), kind.name()),
                        Entry::Unit { .. } => panic!("the text format has no units"),
                        Entry::Comment => out += "comment\n",
                        Entry::Series(line) => {
                            let mut labels = Vec::new();
                            let kind = parser.kind();
                            TextParser::new().series_labels(line.raw, kind, &mut labels);
                            out += &format!("{labels:?} {} {:?}\n", line.value, line.timestamp_ms);
                        }
                    }
                    at = next;
                }
                Ok(Step::End | Step::Terminated) => return out,
                Ok(Step::Incomplete | Step::Ended { .. }) => panic!("not in a last buffer of this format"),
                Err(error) => return format!("{out}error: {error}"),
            }
        }
    }

    #[track_caller]
    fn check(input: &str, expected: &str) {
        assert_eq!(parse(input), expected);
    }

    #[test]
    fn reads_series_with_labels_and_timestamps() {
        check("a 1", "[(\"__name__\", \"a\")] 1 None\n");
        check("a{} 1\n", "[(\"__name__\", \"a\")] 1 None\n");
        check("a{b=\"c\",} -2.5e3\t17 \n", "[(\"__name__\", \"a\"), (\"b\", \"c\")] -2500 Some(17)\n");
        check("a { b = \"c\" d=\"e\"}1", "[(\"__name__\", \"a\"), (\"b\", \"c\"), (\"d\", \"e\")] 1 None\n");
        check(r#"a{b="\"\\\n\t"} 1"#, "[(\"__name__\", \"a\"), (\"b\", \"\\\"\\\\\\n\\\\t\")] 1 None\n");
        check("{\"a.b\",\"c d\"=\"e\"} 1", "[(\"__name__\", \"a.b\"), (\"c d\", \"e\")] 1 None\n");
        check("a{b=\"x\ny\"} 1", "[(\"__name__\", \"a\"), (\"b\", \"x\\ny\")] 1 None\n");
    }

    #[test]
    fn reads_metadata_and_comments() {
        check("# HELP a  two\\nlines \\\\", "help a \" two\\nlines \\\\\"\n");
        check("# HELP a", "help a \"\"\n");
        check("#TYPE a counter\n# TYPES\n#\n# HELPa\n", "comment\ncomment\ncomment\ncomment\n");
        check("# TYPE \"a.b\" gauge\n\n\t\n", "type a.b gauge\n");
        check("# TYPE a  counter", "error: invalid metric type \" counter\"");
    }

    #[test]
    fn bounds_take_the_openmetrics_form() {
        check(
            "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"1000000\"} 1\nh_bucket{le=\"+Inf\"} 1",
            "type h histogram\n[(\"__name__\", \"h_bucket\"), (\"le\", \"1.0\")] 1 None\n\
             [(\"__name__\", \"h_bucket\"), (\"le\", \"1e+06\")] 1 None\n\
             [(\"__name__\", \"h_bucket\"), (\"le\", \"+Inf\")] 1 None\n",
        );
        check(
            "h{le=\"1\",quantile=\"0\"} 1",
            "[(\"__name__\", \"h\"), (\"le\", \"1\"), (\"quantile\", \"0\")] 1 None\n",
        );
    }

    #[test]
    fn words_errors_as_prometheus() {
        check("a", r#"error: expected value after metric, got "\n" ("INVALID") while parsing: "a\n""#);
        check("a{b='c'} 1\n", r#"error: expected label value, got "'" ("INVALID") while parsing: "a{b='""#);
        check("a{} {", r#"error: expected value after metric, got "{\n" ("BOPEN") while parsing: "a{} {\n""#);
        check("a 1 -1", r#"error: expected timestamp or new record, got "-" ("INVALID") while parsing: "a 1 -""#);
        check("\"a\" 1", r#"error: expected a valid start token, got "\"" ("INVALID") while parsing: "\"""#);
        check("a{\"b\"} 1", r#"error: metric name already set while parsing: "a{\"b\"}""#);
        check("{} 1", r#"error: metric name not set while parsing: "{} 1""#);
        check("a 1e999", r#"error: strconv.ParseFloat: parsing "1e999": value out of range while parsing: "a 1e999""#);
        check(
            "a 1 99999999999999999999",
            "error: strconv.ParseInt: parsing \"99999999999999999999\": value out of range while parsing: \
             \"a 1 99999999999999999999\"",
        );
    }

    #[test]
    fn an_entry_that_needs_more_bytes_is_told_from_a_bad_one() {
        let mut parser = TextParser::new();
        assert_eq!(parser.next_entry(b"a{b=\"x\n", 0, false), Ok(Step::Incomplete));
        assert!(parser.next_entry(b"a{b=\"x\n", 0, true).is_err());
        assert!(parser.next_entry(b"a{b=x\n", 0, false).is_err());
    }

    #[test]
    fn excerpts_are_bounded() {
        let message = parse(&format!("a {}", "x".repeat(1 << 20)));
        assert!(message.len() < 4 * EXCERPT_LEN_MAX, "{}", message.len());
    }

    proptest! {
        #[test]
        fn short_bounds_are_those_of_their_numbers(bound in "[+-]?[0-9]{0,7}(\\.[0-9]{0,7})?(e1)?|0\\.0{0,5}[0-9]{0,3}|[+-]?Inf") {
            prop_assert_eq!(normal_bound(&bound), long_normal_bound(Cow::Borrowed(&bound)));
        }

        #[test]
        fn never_panics(raw: Vec<u8>, last: bool) {
            walk(raw, last);
        }

        #[test]
        fn never_panics_on_near_misses(text in "[a#{}\"\\\\=, \\t\\n\\x00HELPTY0-9.]{0,60}", last: bool) {
            walk(text.into_bytes(), last);
        }

        #[test]
        fn the_short_way_agrees_with_the_parser(tail in "[ \\t]{0,2}[0-9.eE+-]{0,6}[ \\t]{0,2}[0-9]{0,20}[ \\t]{0,2}") {
            let line = format!("a{tail}\n");
            if let Some(scanned) = scan_sample(&format!("{tail}\n").into_bytes()) {
                let Scanned { value, timestamp_ms, exemplar, len } = scanned;
                let entry = Entry::Series(SeriesLine { raw: &b"a"[..], value, timestamp_ms, exemplar, start_ms: None });
                prop_assert_eq!(
                    TextParser::new().next_entry(line.as_bytes(), 0, true),
                    Ok(Step::Entry { entry, next: len + 1 })
                );
            }
        }
    }

    fn walk(mut raw: Vec<u8>, last: bool) {
        raw.push(b'\n');
        let mut parser = TextParser::new();
        let mut at = 0;
        while let Ok(Step::Entry { next, entry }) = parser.next_entry(&raw, at, last) {
            assert!(at < next && next <= raw.len(), "the parser must advance within the buffer");
            if let Entry::Series(line) = entry {
                TextParser::new().series_labels(line.raw, FamilyKind::Histogram, &mut Vec::new());
            }
            at = next;
        }
    }
}
