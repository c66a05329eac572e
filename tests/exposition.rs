//! The parsers of text and OpenMetrics and the choice of the format against Prometheus's own cases.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::fs;
use std::path::Path;

use serde_json::Value;
use watchfire::exposition::content_type::{self, Format};
use watchfire::exposition::line::LineParser;
use watchfire::exposition::text::{Entry, Step, TextParser};

#[test]
fn text_errors_are_those_of_prometheus() {
    check_errors("text", Format::Text);
}

#[test]
fn openmetrics_errors_are_those_of_prometheus() {
    check_errors("openmetrics", Format::OpenMetrics);
}

#[track_caller]
fn check_errors(name: &str, format: Format) {
    let Some(dir) = support::conformance_dir() else { return skipped() };
    let mut failures = Vec::new();
    let mut cases = 0;
    for case in read_cases(&dir.join("textparse-errors.json")) {
        if case["format"] != name {
            continue;
        }
        cases += 1;
        let input = match case["input"].as_str() {
            Some(text) => text.as_bytes().to_vec(),
            None => decode_base64(case["input_base64"].as_str().unwrap()),
        };
        let found = parse(&input, format).err();
        let expected = case["err"].as_str().filter(|text| *text != "EOF");
        if found.as_deref() != expected {
            failures.push(format!("{:?}: {found:?}, expected {expected:?}", String::from_utf8_lossy(&input)));
        }
    }
    assert!(0 < cases, "no case of {name}");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn expositions_of_prometheus_parse() {
    let Some(dir) = support::conformance_dir() else { return skipped() };
    let mut files = 0;
    for file in fs::read_dir(dir.join("textparse")).unwrap() {
        let path = file.unwrap().path();
        let format = match path.to_string_lossy() {
            name if name.ends_with(".prom.txt") => Format::Text,
            name if name.ends_with(".om.txt") => Format::OpenMetrics,
            _ => continue,
        };
        let body = fs::read(&path).unwrap();
        // Every line that is neither empty nor a comment is a sample.
        let samples = body.split(|b| *b == b'\n').filter(|l| !l.is_empty() && l[0] != b'#').count();
        assert_eq!(parse(&body, format), Ok(samples), "{}", path.display());
        files += 1;
    }
    assert!(0 < files, "no exposition");
}

#[test]
fn content_types_are_read_as_in_prometheus() {
    let Some(dir) = support::conformance_dir() else { return skipped() };
    for case in read_cases(&dir.join("content-type.json")) {
        let fallback = match case["fallbackScrapeProtocol"].as_str() {
            None => None,
            Some(name) if name.starts_with("PrometheusText") => Some(Format::Text),
            Some(name) if name.starts_with("OpenMetrics") => Some(Format::OpenMetrics),
            Some(_) => Some(Format::Protobuf),
        };
        let found = content_type::negotiated(case["contentType"].as_str().unwrap_or_default(), fallback);
        let (parser, text) = match found {
            Ok((format, remark)) => (Some(format), remark.map(|r| r.to_string())),
            Err(error) => (None, Some(error.to_string())),
        };
        let expected_parser = match case["parser"].as_str() {
            Some("text") => Some(Format::Text),
            Some("openmetrics") => Some(Format::OpenMetrics),
            Some("protobuf") => Some(Format::Protobuf),
            _ => None,
        };
        let name = &case["name"];
        assert_eq!(parser, expected_parser, "{name}");
        match case["err"].as_str() {
            Some(part) => assert!(text.as_deref().is_some_and(|t| t.contains(part)), "{name}: {text:?}"),
            None => assert_eq!(text, None, "{name}"),
        }
    }
}

fn skipped() {
    eprintln!("skipped: no conformance data; set WATCHFIRE_CONFORMANCE");
}

fn read_cases(path: &Path) -> Vec<Value> {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Number of samples, or the first error.
fn parse(input: &[u8], format: Format) -> Result<usize, String> {
    let mut buf = input.to_vec();
    if format == Format::Text {
        buf.push(b'\n');
    }
    let mut parser = LineParser::new(format);
    let (mut at, mut samples) = (0, 0);
    loop {
        match parser.next_entry(&buf, at, true).map_err(|e| e.to_string())? {
            Step::Entry { entry, next } => {
                at = next;
                if let Entry::Series(line) = entry {
                    samples += 1;
                    let mut labels = Vec::new();
                    assert!(TextParser::new().series_labels(line.raw, parser.kind(), &mut labels));
                }
            }
            Step::End | Step::Terminated => return Ok(samples),
            Step::Ended { next } if next < buf.len() => return Err("unexpected data after # EOF".to_owned()),
            Step::Ended { .. } => return Ok(samples),
            Step::Incomplete => panic!("the last buffer cannot be incomplete"),
        }
    }
}

fn decode_base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text.bytes().filter(|b| *b != b'=') {
        bits = bits << 6 | u32::try_from(ALPHABET.iter().position(|a| *a == byte).unwrap()).unwrap();
        count += 6;
        if 8 <= count {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    out
}
