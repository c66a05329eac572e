//! Parsing of `eval` with the lines that say what is expected.

use std::collections::BTreeMap;

use super::{Annotated, EvalCommand, EvalTimes, ExpectedSeries, ScriptError, Text, duration};
use crate::model::go_number::parse_float;
use crate::model::regexp::Regexp;
use crate::promql::ast::Expr;
use crate::promql::parser::{ParseOptions, parse_expr, parse_series_desc};

/// Parses an evaluation; also gives the number of lines that belong to it.
pub(super) fn parse(lines: &[&str], line: usize) -> Result<(EvalCommand, usize), ScriptError> {
    let (head, body) = lines.split_first().ok_or_else(|| ScriptError::new(0, "empty eval command"))?;
    let mut command = parse_head(head, line)?;
    let is_instant = matches!(command.times, EvalTimes::Instant { .. });
    let old_failure = command.failure.is_some();
    let mut position = 0;
    for (at, text) in body.iter().enumerate() {
        let fail = |message: String| ScriptError::new(at + 1, message);
        if old_failure && let Some(expected) = old_failure_text(text).map_err(fail)? {
            command.failure.get_or_insert_default().push(expected);
            return Ok((command, at + 2));
        }
        if let Some(times) = text.strip_prefix("expect range vector") {
            let (start_ms, end_ms, step_ms) = times_of(&words(times)).map_err(fail)?;
            if !is_instant {
                command.times = EvalTimes::Range { start_ms, end_ms, step_ms };
            }
            command.range_vector = Some((start_ms, end_ms, step_ms));
        } else if let Some(literal) = text.strip_prefix("expect string") {
            command.text = Some(unquote(literal.trim()).map_err(fail)?);
        } else if text.split(' ').next() == Some("expect") {
            parse_expect(text, &mut command).map_err(fail)?;
        } else if let Some(value) = scalar(text) {
            command.scalar = Some(value);
            return Ok((command, at + 2));
        } else {
            let description = parse_series_desc(text).map_err(|error| fail(error.to_string()))?;
            if is_instant && command.range_vector.is_none() && description.values.len() > 1 {
                return Err(fail("expecting multiple values in instant evaluation not allowed".to_owned()));
            }
            let expected = ExpectedSeries { position, values: description.values };
            command.series.insert(description.labels, expected);
            position += 1;
        }
    }
    Ok((command, lines.len()))
}

/// The text of a line that may follow `eval_fail`.
fn old_failure_text(line: &str) -> Result<Option<Text>, String> {
    if let Some(message) = line.strip_prefix("expected_fail_message") {
        // Nothing behind the word asks for nothing.
        let message = message.trim();
        return Ok(Some(if message.is_empty() { Text::Any } else { Text::Exact(message.to_owned()) }));
    }
    line.strip_prefix("expected_fail_regexp").map(|pattern| regexp(pattern.trim()).map(Text::Matching)).transpose()
}

fn parse_head(head: &str, line: usize) -> Result<EvalCommand, ScriptError> {
    let invalid = || {
        ScriptError::new(
            0,
            "invalid evaluation command. Must be either 'eval[_fail|_warn|_info|_ordered] instant at <offset:duration> \
             <query>' or 'eval[_fail|_warn|_info] range from <from> to <to> step <step> <query>'",
        )
    };
    let (command, rest) = next_word(head).ok_or_else(invalid)?;
    let (kind, rest) = next_word(rest).ok_or_else(invalid)?;
    let (times, expr) = match kind {
        "instant" => {
            let (at, expr) = next_word(rest)
                .and_then(|(word, rest)| (word == "at").then_some(rest))
                .and_then(next_word)
                .ok_or_else(invalid)?;
            let at_ms = duration(at).map_err(|error| ScriptError::new(0, error))?;
            (EvalTimes::Instant { at_ms }, expr)
        }
        "range" => {
            let mut parts = Vec::new();
            let mut rest = rest;
            for _ in 0..6 {
                let (word, tail) = next_word(rest).ok_or_else(invalid)?;
                parts.push(word);
                rest = tail;
            }
            let (start_ms, end_ms, step_ms) = times_of(&parts).map_err(|error| ScriptError::new(0, error))?;
            (EvalTimes::Range { start_ms, end_ms, step_ms }, rest)
        }
        _ => return Err(invalid()),
    };
    let mut eval = EvalCommand {
        line,
        expr: expr.trim().to_owned(),
        times,
        failure: None,
        warnings: Annotated::default(),
        infos: Annotated::default(),
        is_ordered: false,
        range_vector: None,
        text: None,
        scalar: None,
        series: BTreeMap::new(),
    };
    match command {
        "eval" => {}
        "eval_fail" => eval.failure = Some(Vec::new()),
        "eval_warn" => eval.warnings.some = true,
        "eval_info" => eval.infos.some = true,
        "eval_ordered" if kind == "instant" => eval.is_ordered = true,
        _ => return Err(invalid()),
    }
    if eval.expr.is_empty() {
        return Err(invalid());
    }
    parse_expr(&eval.expr, &ParseOptions::ALL).map_err(|error| ScriptError::new(0, error.to_string()))?;
    Ok(eval)
}

fn parse_expect(text: &str, command: &mut EvalCommand) -> Result<(), String> {
    let rest = text.strip_prefix("expect").unwrap_or(text).trim_start();
    let (kind, detail) = next_word(rest).ok_or("invalid expect statement")?;
    let detail = detail.trim();
    let expected = if let Some(message) = detail.strip_prefix("msg:").filter(|message| !message.is_empty()) {
        Text::Exact(message.trim().to_owned())
    } else if let Some(pattern) = detail.strip_prefix("regex:").filter(|pattern| !pattern.is_empty()) {
        Text::Matching(regexp(pattern.trim())?)
    } else if detail.is_empty() {
        Text::Any
    } else {
        return Err(format!("invalid expect statement {text:?}, must be 'expect <type> [<match_type>: <string>]'"));
    };
    match kind {
        "ordered" => command.is_ordered = true,
        "fail" if command.failure.as_ref().is_some_and(|texts| !texts.is_empty()) => {
            return Err("multiple expect fail lines are not allowed".to_owned());
        }
        "fail" => command.failure.get_or_insert_default().push(expected),
        "warn" => command.warnings.expected.push(expected),
        "info" => command.infos.expected.push(expected),
        "no_warn" => command.warnings.none = true,
        "no_info" => command.infos.none = true,
        _ => return Err(format!("invalid expected error/annotation type {kind}")),
    }
    for (annotated, name) in [(&command.warnings, "warn"), (&command.infos, "info")] {
        if annotated.none && !annotated.expected.is_empty() {
            return Err(format!("{name} and no_{name} cannot be used together"));
        }
    }
    Ok(())
}

fn next_word(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

/// `from A to B step S` in milliseconds.
fn times_of(words: &[&str]) -> Result<(i64, i64, i64), String> {
    let ["from", from, "to", to, "step", step] = words else {
        return Err(format!("invalid times {words:?}, must be 'from <from> to <to> step <step>'"));
    };
    let (from_ms, to_ms, step_ms) = (duration(from)?, duration(to)?, duration(step)?);
    if to_ms < from_ms {
        return Err(format!("end timestamp ({to}) is before start timestamp ({from})"));
    }
    Ok((from_ms, to_ms, step_ms))
}

fn regexp(pattern: &str) -> Result<Regexp, String> {
    Regexp::unanchored(pattern).map_err(|error| format!("invalid regex {pattern}: {error}"))
}

/// A number that stands alone on its line, as Go reads it: a whole number in any base, or a decimal fraction.
fn scalar(text: &str) -> Option<f64> {
    whole_number(text).map(|value| value as f64).or_else(|| parse_float(text).ok())
}

/// `strconv.ParseInt(text, 0, 64)`.
fn whole_number(text: &str) -> Option<i64> {
    let (sign, body) = match text.strip_prefix('-') {
        Some(body) => ("-", body),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = body.to_ascii_lowercase();
    let (radix, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, lower.get(2..)?),
        [b'0', b'b', ..] => (2, lower.get(2..)?),
        [b'0', b'o', ..] => (8, lower.get(2..)?),
        [b'0', _, ..] => (8, lower.get(1..)?),
        _ => (10, lower.as_str()),
    };
    // Underscores may stand between digits, and between the prefix and them.
    let plain = digits.replace('_', "");
    let misplaced = digits.ends_with('_') || digits.contains("__") || radix == 10 && digits.starts_with('_');
    if misplaced || plain.starts_with(['+', '-']) {
        return None;
    }
    i64::from_str_radix(&format!("{sign}{plain}"), radix).ok()
}

/// A quoted Go string.
fn unquote(literal: &str) -> Result<String, String> {
    let invalid = || "expected string literal not valid - check that the string is correctly quoted".to_owned();
    if let Some(raw) = literal.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')) {
        return if raw.contains('`') { Err(invalid()) } else { Ok(raw.replace('\r', "")) };
    }
    // A string literal is an expression, so the parser of expressions reads it.
    match parse_expr(literal, &ParseOptions::ALL) {
        Ok(Expr::Text(text)) if literal.starts_with('"') => Ok(text.to_display_string()),
        _ => Err(invalid()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_as_in_go() {
        assert_eq!([scalar("1"), scalar("-0x10"), scalar("1e3")], [Some(1.0), Some(-16.0), Some(1000.0)]);
        assert_eq!(
            [scalar("x 1"), scalar("010"), scalar("09"), scalar("1_0")],
            [None, Some(8.0), Some(9.0), Some(10.0)]
        );
        assert_eq!([scalar("0b101"), scalar("0o17"), scalar("0x_f")], [Some(5.0), Some(15.0), Some(15.0)]);
        assert_eq!([scalar("-+5"), scalar("0x+5"), scalar("_1"), scalar("0x1_")], [None; 4]);
        assert_eq!((scalar("+Inf"), scalar("-Inf")), (Some(f64::INFINITY), Some(f64::NEG_INFINITY)));
        assert!(scalar("nan").is_some_and(f64::is_nan));
    }

    #[track_caller]
    fn check_refused(text: &str, problem: &str) {
        let lines: Vec<&str> = text.lines().collect();
        match parse(&lines, 1) {
            Err(error) => assert!(error.to_string().contains(problem), "{text}: {error}"),
            Ok(command) => panic!("{text} is read: {command:?}"),
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        check_refused("eval instant x", "invalid evaluation command");
        check_refused("eval instant at 1m", "invalid evaluation command");
        check_refused("eval_ordered range from 0 to 1m step 1m x", "invalid evaluation command");
        check_refused("eval range from 1m to 0 step 1m x", "end timestamp (0) is before start timestamp (1m)");
        check_refused("eval instant at 1q x", "invalid duration");
        check_refused("eval instant at 0 sum(", "1:5: parse error: unclosed left parenthesis");
        check_refused("eval_fail instant at 0 sum(", "1:5: parse error: unclosed left parenthesis");
        check_refused("eval instant at 0 x\nexpect", "invalid expect statement");
        check_refused("eval instant at 0 x\nexpect warn msg:", "invalid expect statement");
        check_refused("eval instant at 0 x\nexpect sometimes", "invalid expected error/annotation type sometimes");
        check_refused("eval instant at 0 x\nexpect fail\nexpect fail", "line 3: multiple expect fail");
        check_refused("eval instant at 0 x\nexpect info\nexpect no_info", "info and no_info");
        check_refused("eval instant at 0 x\nexpect warn regex: (", "invalid regex (");
        check_refused("eval instant at 0 x\nexpect string 'ab'", "correctly quoted");
        check_refused("eval instant at 0 x\nexpect range vector from 0 to 1m", "invalid times");
        check_refused("eval instant at 0 x\nx 1 2", "multiple values in instant evaluation");
        check_refused("eval instant at 0 x\nx{ 1", "parse error");
    }

    #[test]
    fn both_ways_to_expect_a_failure_count() {
        let lines = ["eval_fail instant at 0 x", "expect fail regex: a", "expected_fail_message ab", "left"];
        let (command, used) = parse(&lines, 7).unwrap();
        let texts = command.failure.unwrap();
        assert_eq!((command.line, used), (7, 3));
        assert!(texts.iter().all(|text| text.accepts("ab")) && !texts.iter().all(|text| text.accepts("a")));
    }
}
