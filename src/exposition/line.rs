//! The two formats made of lines behind one type, for readers that compare lines with those of the last scrape.

use crate::exposition::content_type::Format;
use crate::exposition::openmetrics::{self, OpenMetricsParser};
use crate::exposition::text::{self, FamilyKind, Scanned, Step, TextError, TextParser};

/// Parser of one of the line formats.
#[derive(Debug)]
pub enum LineParser {
    /// Text 0.0.4 and 1.0.0.
    Text(TextParser),
    /// OpenMetrics.
    OpenMetrics(OpenMetricsParser),
}

impl LineParser {
    /// A parser at the start of a body. Protobuf has no lines: its reader only uses the kind.
    pub fn new(format: Format) -> Self {
        match format {
            Format::Text | Format::Protobuf => Self::Text(TextParser::new()),
            Format::OpenMetrics => Self::OpenMetrics(OpenMetricsParser::new()),
        }
    }

    /// The type that applies to series now.
    pub fn kind(&self) -> FamilyKind {
        match self {
            Self::Text(parser) => parser.kind(),
            Self::OpenMetrics(parser) => parser.kind(),
        }
    }

    /// Tells that a family of this type begins, by a caller that knows without parsing.
    pub fn set_kind(&mut self, kind: FamilyKind) {
        match self {
            Self::Text(parser) => parser.set_kind(kind),
            Self::OpenMetrics(parser) => parser.set_kind(kind),
        }
    }

    /// Whether a line is what comes next, and not the rest of one.
    pub fn is_at_line_start(&self) -> bool {
        match self {
            Self::Text(_) => true,
            Self::OpenMetrics(parser) => parser.is_at_line_start(),
        }
    }

    /// Reads the entry that starts at byte `at` of `buf`, see the parsers.
    pub fn next_entry<'a>(&mut self, buf: &'a [u8], at: usize, last: bool) -> Result<Step<'a>, TextError> {
        match self {
            Self::Text(parser) => parser.next_entry(buf, at, last),
            Self::OpenMetrics(parser) => parser.next_entry(buf, at, last),
        }
    }

    /// Reads what follows a raw series that the caller has recognised; `None` for anything unusual.
    pub fn scan_sample<'a>(&self, rest: &'a [u8]) -> Option<Scanned<'a>> {
        match self {
            Self::Text(_) => text::scan_sample(rest),
            Self::OpenMetrics(_) => openmetrics::scan_sample(rest),
        }
    }
}
