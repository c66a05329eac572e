//! The parser beside Prometheus's conformance cases, which `tests/exposition.rs` runs.

use proptest::prelude::*;

use super::*;
use crate::exposition::text::TextParser;

/// All entries of `input`, printed one per line, then the error if there is one.
fn parse(input: &str) -> String {
    let buf = input.as_bytes();
    let mut parser = OpenMetricsParser::new();
    let mut out = String::new();
    let mut at = 0;
    loop {
        let text = |raw| String::from_utf8_lossy(raw).into_owned();
        match parser.next_entry(buf, at, true) {
            Ok(Step::Entry { entry, next }) => {
                match entry {
                    Entry::Help { family, text: help, .. } => {
                        out += &format!("help {} {:?}\n", text(family), unescape_help(&text(help)));
                    }
                    Entry::Type { family, kind, .. } => out += &format!("type {} {}\n", text(family), kind.name()),
                    Entry::Unit { family, unit, .. } => out += &format!("unit {} {}\n", text(family), text(unit)),
                    Entry::Comment => panic!("OpenMetrics has no comments"),
                    Entry::Series(line) => {
                        let mut labels = Vec::new();
                        assert!(TextParser::new().series_labels(line.raw, parser.kind(), &mut labels));
                        let exemplar = if line.exemplar.is_some() { " exemplar" } else { "" };
                        out += &format!("{labels:?} {} {:?}{exemplar}\n", line.value, line.timestamp_ms);
                    }
                }
                at = next;
            }
            Ok(Step::Ended { next }) => return format!("{out}end {}", buf.len() - next),
            Ok(Step::End | Step::Terminated | Step::Incomplete) => panic!("not in a last buffer"),
            Err(error) => return format!("{out}error: {error}"),
        }
    }
}

#[track_caller]
fn check(input: &str, expected: &str) {
    assert_eq!(parse(input), expected);
}

#[test]
fn reads_series_timestamps_and_exemplars() {
    check("a 1\n# EOF\n", "[(\"__name__\", \"a\")] 1 None\nend 0");
    check("a{b=\"c\",} -2.5e3 17.0625\n# EOF", "[(\"__name__\", \"a\"), (\"b\", \"c\")] -2500 Some(17062)\nend 0");
    check("a 1 -1.5\n# EOF", "[(\"__name__\", \"a\")] 1 Some(-1500)\nend 0");
    check("a 1 # {} 4\n# EOF", "[(\"__name__\", \"a\")] 1 None exemplar\nend 0");
    check("a 1 2 # {x=\"\\\"\",\"y z\"=\"1\"} 4 5.5\n# EOF", "[(\"__name__\", \"a\")] 1 Some(2000) exemplar\nend 0");
    check("{\"a\n.b\",\"c d\"=\"e\"} NaN\n# EOF", "[(\"__name__\", \"a\\n.b\"), (\"c d\", \"e\")] NaN None\nend 0");
}

#[test]
fn reads_metadata() {
    check("# HELP a  b\\n\\\"\\\\\n# EOF\n", "help a \" b\\n\\\"\\\\\"\nend 0");
    check("# TYPE a gaugehistogram\n# TYPE b info\n# EOF\n", "type a gaugehistogram\ntype b info\nend 0");
    check("# UNIT a_b_seconds b_seconds\n# UNIT c \n# EOF\n", "unit a_b_seconds b_seconds\nunit c \nend 0");
    check("# TYPE \"a.b\" stateset\n# EOF\n", "type a.b stateset\nend 0");
    check("# some comment\n", "error: expected a valid start token, got \"# s\" (\"INVALID\") while parsing: \"# s\"");
}

#[test]
fn what_is_no_token_after_a_value_fails_the_next_entry() {
    check(
        "a 1 \nb",
        "[(\"__name__\", \"a\")] 1 None\nerror: expected a valid start token, got \"\\nb\" (\"LINEBREAK\") while parsing: \"\\nb\"",
    );
    check(
        "a 1  2\n",
        "[(\"__name__\", \"a\")] 1 None\nerror: expected a valid start token, got \" 2\\n\" (\"TIMESTAMP\") while parsing: \" 2\\n\"",
    );
}

#[test]
fn an_entry_that_needs_more_bytes_is_told_from_a_bad_one() {
    let mut parser = OpenMetricsParser::new();
    assert_eq!(parser.next_entry(b"{\"x\n", 0, false), Ok(Step::Incomplete));
    assert!(parser.next_entry(b"{\"x\n", 0, true).is_err());
    assert!(parser.next_entry(b"a{b=\"x\n", 0, false).is_err());
}

#[test]
fn timestamps_beyond_64_bits_are_those_of_go() {
    check("a 1 1e300\n# EOF", "[(\"__name__\", \"a\")] 1 Some(-9223372036854775808)\nend 0");
    check("a 1 -1e300\n# EOF", "[(\"__name__\", \"a\")] 1 Some(-9223372036854775808)\nend 0");
}

proptest! {
    #[test]
    fn never_panics(raw: Vec<u8>, last: bool) {
        walk(raw, last);
    }

    #[test]
    fn never_panics_on_near_misses(text in "[a#{}\"\\\\=, \\n\\x00HELPTYUNIOF0-9.]{0,60}", last: bool) {
        walk(text.into_bytes(), last);
    }

    #[test]
    fn the_short_way_agrees_with_the_parser(
        tail in "[ ]{0,2}[0-9.eE+-]{0,6}[ \\t]{0,2}[0-9.]{0,20}( # \\{(a=\"[b\\\\]{0,2}\"[,]?){0,2}\\}[ ]{0,2}[0-9]{0,2}[ ]{0,2}[0-9]{0,2})?",
    ) {
        let line = format!("a{tail}\n");
        if let Some(scanned) = scan_sample(&line.as_bytes()[1..]) {
            let Scanned { value, timestamp_ms, exemplar, len } = scanned;
            let entry = Entry::Series(SeriesLine { raw: &b"a"[..], value, timestamp_ms, exemplar, start_ms: None });
            prop_assert_eq!(
                OpenMetricsParser::new().next_entry(line.as_bytes(), 0, true),
                Ok(Step::Entry { entry, next: len + 1 })
            );
        }
    }
}

fn walk(mut raw: Vec<u8>, last: bool) {
    if !last {
        raw.push(b'\n');
    }
    let mut parser = OpenMetricsParser::new();
    let mut at = 0;
    while let Ok(Step::Entry { next, entry }) = parser.next_entry(&raw, at, last) {
        assert!(at < next && next <= raw.len(), "the parser must advance within the buffer");
        if let Entry::Series(line) = entry {
            TextParser::new().series_labels(line.raw, FamilyKind::Histogram, &mut Vec::new());
        }
        at = next;
    }
}
