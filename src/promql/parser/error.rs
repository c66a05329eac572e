//! What is wrong with a query, and where.

use std::fmt;

use crate::promql::ast::PosRange;

/// One fault, with the bytes that it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Where.
    pub range: PosRange,
    /// What, in Prometheus's words and without the position.
    pub message: String,
}

/// Most faults that are kept. The first one is what users see, and a hostile query must not fill memory with the others.
const ERRORS_MAX: usize = 20_000;

impl ParseError {
    /// Appends the fault to `list`, unless that is full.
    pub(crate) fn push(list: &mut Vec<Self>, range: PosRange, message: impl Into<String>) {
        if list.len() < ERRORS_MAX {
            list.push(Self { range, message: message.into() });
        }
    }
}

/// All faults of a query in the order found; at least one. Prints as the first of them, the way the API shows it:
/// `1:5: parse error: unexpected end of input`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ParseErrors {
    query: String,
    errors: Vec<ParseError>,
}

impl ParseErrors {
    pub(super) fn new(query: &str, mut errors: Vec<ParseError>) -> Self {
        if errors.is_empty() {
            // Parsing gave up without saying why, which no path does.
            debug_assert!(false, "parse without result and without error");
            errors.push(ParseError { range: PosRange::default(), message: "unexpected error".to_owned() });
        }
        Self { query: query.to_owned(), errors }
    }

    /// The faults; at least one.
    pub fn errors(&self) -> &[ParseError] {
        &self.errors
    }

    /// The text that was parsed.
    pub fn query(&self) -> &str {
        &self.query
    }

    /// `line:column: parse error: message` of each fault.
    pub fn messages(&self) -> impl Iterator<Item = String> {
        self.errors.iter().map(|e| format!("{}: parse error: {}", position(e.range.start, &self.query), e.message))
    }
}

impl fmt::Display for ParseErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.messages().next().unwrap_or_default())
    }
}

/// `line:column` of a byte of `query`, both counted from 1 and columns in bytes.
pub fn position(byte: usize, query: &str) -> String {
    if query.is_empty() {
        return "unknown position".to_owned();
    }
    let Some(before) = query.as_bytes().get(..byte) else { return "invalid position".to_owned() };
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|b| **b != b'\n').count() + 1;
    format!("{line}:{column}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_bytes() {
        assert_eq!(position(0, "a"), "1:1");
        assert_eq!(position(4, "a\nbé"), "2:3");
        assert_eq!(position(2, "a\nb"), "2:1");
        assert_eq!(position(9, "a"), "invalid position");
        assert_eq!(position(0, ""), "unknown position");
    }
}
