//! Test results as JUnit XML, in the form of Prometheus's promtool.

use std::fmt::Write as _;

use crate::model::go_time;
use crate::model::time::TimestampMs;

/// The results of one file.
pub(super) struct Suite {
    name: String,
    timestamp: String,
    cases: Vec<Case>,
}

struct Case {
    name: String,
    failures: Vec<String>,
    error: String,
}

impl Suite {
    /// A suite without cases, begun at `at`.
    pub(super) fn new(name: &str, at: TimestampMs) -> Self {
        let written = go_time::format_rfc3339_nano(at.0.saturating_mul(1_000_000));
        let timestamp = written.chars().take("2006-01-02T15:04:05".len()).collect();
        Self { name: name.to_owned(), timestamp, cases: Vec::new() }
    }

    /// Adds a case that passed, or failed as told.
    pub(super) fn case(&mut self, name: &str, failure: Option<String>) {
        let failures = failure.into_iter().collect();
        self.cases.push(Case { name: name.to_owned(), failures, error: String::new() });
    }

    /// Adds a case with all its failures.
    pub(super) fn case_with(&mut self, name: &str, failures: Vec<String>) {
        self.cases.push(Case { name: name.to_owned(), failures, error: String::new() });
    }

    /// Notes that the suite could not be run, or not to its end.
    pub(super) fn abort(&mut self, error: String) {
        self.cases.push(Case { name: "unknown".to_owned(), failures: Vec::new(), error });
    }

    fn write(&self, out: &mut String) {
        let failures: usize = self.cases.iter().map(|case| case.failures.len()).sum();
        let errors = self.cases.iter().filter(|case| !case.error.is_empty()).count();
        let _ = write!(
            out,
            "<testsuite name=\"{}\" tests=\"{}\" failures=\"{failures}\" errors=\"{errors}\" skipped=\"0\" timestamp=\"{}\">",
            escaped(&self.name),
            self.cases.len(),
            self.timestamp
        );
        for case in &self.cases {
            let _ = write!(out, "<testcase name=\"{}\">", escaped(&case.name));
            for failure in &case.failures {
                let _ = write!(out, "<failure>{}</failure>", escaped(failure));
            }
            if !case.error.is_empty() {
                let _ = write!(out, "<error>{}</error>", escaped(&case.error));
            }
            out.push_str("</testcase>");
        }
        out.push_str("</testsuite>");
    }
}

/// The document of all suites.
pub(super) fn document(suites: &[Suite]) -> String {
    let mut out = "<testsuites>".to_owned();
    suites.iter().for_each(|suite| suite.write(&mut out));
    out.push_str("</testsuites>");
    out
}

/// Text for attributes and elements, escaped as Go's encoder does.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\t' => out.push_str("&#x9;"),
            '\n' => out.push_str("&#xA;"),
            '\r' => out.push_str("&#xD;"),
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => out.push(char::REPLACEMENT_CHARACTER),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_as_go_encodes_it() {
        let mut suite = Suite::new("a&b", TimestampMs(1_435_781_451_781));
        suite.case("good", None);
        suite.case("bad", Some("x < \"1\"\n\u{1}".to_owned()));
        suite.abort("gone".to_owned());
        assert_eq!(
            document(&[suite]),
            "<testsuites><testsuite name=\"a&amp;b\" tests=\"3\" failures=\"1\" errors=\"1\" skipped=\"0\" \
             timestamp=\"2015-07-01T20:10:51\"><testcase name=\"good\"></testcase><testcase name=\"bad\"><failure>x \
             &lt; &#34;1&#34;&#xA;\u{fffd}</failure></testcase><testcase name=\"unknown\"><error>gone</error></testcase>\
             </testsuite></testsuites>"
        );
    }
}
