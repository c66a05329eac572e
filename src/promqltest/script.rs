//! Scripts: parsing of `load`, `clear` and `eval` with what is expected.

use std::collections::BTreeMap;

use crate::model::duration::PromDuration;
use crate::model::labels::Labels;
use crate::model::regexp::Regexp;
use crate::promql::ast::Expr;
use crate::promql::parser::{ParseOptions, SequenceValue, SeriesDescription, parse_expr, parse_series_desc};
use crate::promqltest::starts::StartLine;

/// A line that is no command, or a command that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct ScriptError {
    /// Line number, from 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

/// A parsed script.
#[derive(Clone, Debug)]
pub struct Script {
    /// What to do, in order.
    pub commands: Vec<Command>,
}

/// One command.
#[derive(Clone, Debug)]
pub enum Command {
    /// Forgets all samples.
    Clear,
    /// Stores samples.
    Load(LoadCommand),
    /// Evaluates and compares.
    Eval(Box<EvalCommand>),
}

/// Series to store.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadCommand {
    /// Distance of the samples; the first is at time 0.
    pub step_ms: i64,
    /// The series.
    pub series: Vec<LoadedSeries>,
    /// True if classic histograms are to be stored as native ones as well.
    pub with_native_histograms: bool,
}

/// A series to store.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadedSeries {
    /// Its labels.
    pub labels: Labels,
    /// Its values, one per step.
    pub values: Vec<SequenceValue>,
    /// How far from each sample its counter began; empty if nothing was said, `None` where nothing is known.
    pub start_offsets_ms: Vec<Option<i64>>,
}

/// When an expression is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvalTimes {
    /// Once.
    Instant {
        /// When.
        at_ms: i64,
    },
    /// As a range query.
    Range {
        /// First time.
        start_ms: i64,
        /// Last time.
        end_ms: i64,
        /// Distance.
        step_ms: i64,
    },
}

/// A text that is expected: as it stands, or as an expression.
#[derive(Clone, Debug)]
pub enum Text {
    /// Any.
    Any,
    /// Exactly this.
    Exact(String),
    /// One that the expression finds something in.
    Matching(Regexp),
}

impl Text {
    /// True if `text` is as expected.
    pub fn accepts(&self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(expected) => expected == text,
            Self::Matching(regexp) => regexp.is_match(text),
        }
    }
}

/// What is expected of warnings, or of infos.
#[derive(Clone, Debug, Default)]
pub struct Annotated {
    /// If not empty, each has to be there, and nothing else.
    pub expected: Vec<Text>,
    /// There has to be at least one.
    pub some: bool,
    /// There has to be none.
    pub none: bool,
}

/// An expected series.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpectedSeries {
    /// Place among the expected series, from 0.
    pub position: usize,
    /// Its values, one per step.
    pub values: Vec<SequenceValue>,
}

/// An evaluation with what is expected of it.
#[derive(Clone, Debug)]
pub struct EvalCommand {
    /// Line number, from 1.
    pub line: usize,
    /// The expression.
    pub expr: String,
    /// When.
    pub times: EvalTimes,
    /// The error, if it is to fail.
    pub failure: Option<Text>,
    /// The warnings.
    pub warnings: Annotated,
    /// The infos.
    pub infos: Annotated,
    /// The order counts.
    pub is_ordered: bool,
    /// Times of the expected samples, if a range vector is expected.
    pub range_vector: Option<(i64, i64, i64)>,
    /// The expected string.
    pub text: Option<String>,
    /// The expected scalar.
    pub scalar: Option<f64>,
    /// The expected series.
    pub series: BTreeMap<Labels, ExpectedSeries>,
}

impl Script {
    /// Parses a script. Expressions are parsed when they are run.
    pub fn parse(text: &str) -> Result<Self, ScriptError> {
        let lines: Vec<&str> = text.lines().map(without_comment).collect();
        let mut commands = Vec::new();
        let mut at = 0;
        while let Some(line) = lines.get(at) {
            let end = lines.iter().skip(at).position(|l| l.is_empty()).map_or(lines.len(), |len| at + len);
            let word = line.split_whitespace().next().unwrap_or("").to_lowercase();
            if line.is_empty() {
                at += 1;
            } else if word == "clear" {
                commands.push(Command::Clear);
                at += 1;
            } else if word.starts_with("load") {
                let body = lines.get(at..end).unwrap_or(&[]);
                commands.push(Command::Load(parse_load(body).map_err(|error| error.after(at))?));
                at = end;
            } else if word.starts_with("eval") {
                let body = lines.get(at..end).unwrap_or(&[]);
                let (command, used) = parse_eval(body, at + 1).map_err(|error| error.after(at))?;
                commands.push(Command::Eval(Box::new(command)));
                at += used;
            } else {
                return Err(ScriptError { line: at + 1, message: format!("invalid command {line:?}") });
            }
        }
        Ok(Self { commands })
    }

    /// Number of evaluations.
    pub fn eval_count(&self) -> usize {
        self.commands.iter().filter(|command| matches!(command, Command::Eval(_))).count()
    }
}

impl ScriptError {
    fn new(index: usize, message: impl Into<String>) -> Self {
        Self { line: index + 1, message: message.into() }
    }

    fn after(self, lines: usize) -> Self {
        Self { line: self.line + lines, ..self }
    }
}

fn without_comment(line: &str) -> &str {
    let line = line.trim();
    if line.starts_with('#') { "" } else { line }
}

fn parse_load(lines: &[&str]) -> Result<LoadCommand, ScriptError> {
    let (head, body) = lines.split_first().ok_or_else(|| ScriptError::new(0, "empty load command"))?;
    let (word, step) = head.split_once(char::is_whitespace).unwrap_or((head, ""));
    let with_native_histograms = match word {
        "load" => false,
        "load_with_nhcb" => true,
        _ => return Err(ScriptError::new(0, "invalid load command. (load[_with_nhcb] <step:duration>)")),
    };
    let step_ms = duration(step.trim()).map_err(|error| ScriptError::new(0, error))?;
    let mut series: Vec<LoadedSeries> = Vec::new();
    let mut starts: Option<StartLine> = None;
    for (at, line) in body.iter().enumerate() {
        let fail = |message: String| ScriptError::new(at + 1, message);
        if let Some(parsed) = StartLine::parse(line) {
            if starts.is_some() {
                return Err(fail("@st line has no following sample line".to_owned()));
            }
            starts = Some(parsed.map_err(fail)?);
            continue;
        }
        let description = parse_series_desc(line).map_err(|error| fail(error.to_string()))?;
        let start_offsets_ms = match starts.take() {
            Some(starts) => starts.for_series(&description).map_err(fail)?,
            None => Vec::new(),
        };
        let SeriesDescription { labels, values } = description;
        // A later description of the same series takes the place of an earlier one.
        series.retain(|known| known.labels != labels);
        series.push(LoadedSeries { labels, values, start_offsets_ms });
    }
    if starts.is_some() {
        return Err(ScriptError::new(body.len(), "@st line has no following sample line"));
    }
    Ok(LoadCommand { step_ms, series, with_native_histograms })
}

/// Parses an evaluation; also gives the number of lines that belong to it.
fn parse_eval(lines: &[&str], line: usize) -> Result<(EvalCommand, usize), ScriptError> {
    let (head, body) = lines.split_first().ok_or_else(|| ScriptError::new(0, "empty eval command"))?;
    let mut command = parse_head(head, line)?;
    let mut position = 0;
    for (at, text) in body.iter().enumerate() {
        let fail = |message: String| ScriptError::new(at + 1, message);
        if command.failure.is_some() {
            if let Some(message) = text.strip_prefix("expected_fail_message") {
                command.failure = Some(Text::Exact(message.trim().to_owned()));
                return Ok((command, at + 2));
            }
            if let Some(pattern) = text.strip_prefix("expected_fail_regexp") {
                command.failure = Some(Text::Matching(regexp(pattern.trim()).map_err(fail)?));
                return Ok((command, at + 2));
            }
        }
        if let Some(times) = text.strip_prefix("expect range vector") {
            command.range_vector = Some(times_of(&words(times)).map_err(fail)?);
        } else if let Some(literal) = text.strip_prefix("expect string") {
            command.text = Some(unquote(literal.trim()).map_err(fail)?);
        } else if text.split(' ').next() == Some("expect") {
            parse_expect(text, &mut command).map_err(fail)?;
        } else if let Some(value) = scalar(text) {
            command.scalar = Some(value);
            return Ok((command, at + 2));
        } else {
            let description = parse_series_desc(text).map_err(|error| fail(error.to_string()))?;
            let single = matches!(command.times, EvalTimes::Instant { .. }) && command.range_vector.is_none();
            if single && description.values.len() > 1 {
                return Err(fail("expecting multiple values in instant evaluation not allowed".to_owned()));
            }
            let expected = ExpectedSeries { position, values: description.values };
            command.series.insert(description.labels, expected);
            position += 1;
        }
    }
    Ok((command, lines.len()))
}

fn parse_head(head: &str, line: usize) -> Result<EvalCommand, ScriptError> {
    let invalid = || {
        ScriptError::new(
            0,
            "invalid evaluation command. Must be either 'eval instant at <offset:duration> <query>' or \
             'eval range from <from> to <to> step <step> <query>'",
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
        "eval_fail" => eval.failure = Some(Text::Any),
        "eval_warn" => eval.warnings.some = true,
        "eval_info" => eval.infos.some = true,
        "eval_ordered" => eval.is_ordered = true,
        _ => return Err(invalid()),
    }
    if eval.expr.is_empty() {
        return Err(invalid());
    }
    Ok(eval)
}

fn parse_expect(text: &str, command: &mut EvalCommand) -> Result<(), String> {
    let rest = text.strip_prefix("expect").unwrap_or(text).trim_start();
    let (kind, detail) = next_word(rest).ok_or("invalid expect statement")?;
    let detail = detail.trim();
    let expected = if let Some(message) = detail.strip_prefix("msg:") {
        Text::Exact(message.trim().to_owned())
    } else if let Some(pattern) = detail.strip_prefix("regex:") {
        Text::Matching(regexp(pattern.trim())?)
    } else if detail.is_empty() {
        Text::Any
    } else {
        return Err(format!("invalid expect statement {text:?}"));
    };
    match kind {
        "ordered" => command.is_ordered = true,
        "fail" if command.failure.is_some() => return Err("multiple expect fail lines are not allowed".to_owned()),
        "fail" => command.failure = Some(expected),
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

fn duration(text: &str) -> Result<i64, String> {
    PromDuration::parse(text)
        .map(PromDuration::as_ms_i64)
        .map_err(|error| format!("invalid duration {text:?}: {error}"))
}

fn regexp(pattern: &str) -> Result<Regexp, String> {
    Regexp::unanchored(pattern).map_err(|error| format!("invalid regex {pattern}: {error}"))
}

/// A number that stands alone on its line.
fn scalar(text: &str) -> Option<f64> {
    let (sign, body) = text.strip_prefix('-').map_or((1.0, text), |body| (-1.0, body));
    let body = body.strip_prefix('+').unwrap_or(body);
    let radix = |digits: &str, radix| u64::from_str_radix(digits, radix).ok().map(|v| sign * v as f64);
    if let Some(digits) = body.strip_prefix("0x").or_else(|| body.strip_prefix("0X")) {
        return radix(digits, 16);
    }
    if body.len() > 1 && body.starts_with('0') && body.bytes().all(|b| b.is_ascii_digit()) {
        return radix(body, 8).or_else(|| body.parse().ok().map(|v: f64| sign * v));
    }
    body.parse().ok().map(|v: f64| sign * v)
}

/// A quoted Go string.
fn unquote(literal: &str) -> Result<String, String> {
    let invalid = || "expected string literal not valid - check that the string is correctly quoted".to_owned();
    if let Some(raw) = literal.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')) {
        return Ok(raw.to_owned());
    }
    // A string literal is an expression, so the parser of expressions reads it.
    match parse_expr(literal, &ParseOptions::ALL) {
        Ok(Expr::Text(text)) => Ok(text.to_display_string()),
        _ => Err(invalid()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_of_all_commands() {
        let text = "# comment\nload 5m\n  up{a=\"b\"}@st _ 5s\n  up{a=\"b\"} 1 2\n\nclear\neval instant at 10m sum(up)\n  \
             expect warn msg: text (1:1)\n  expect no_info\n  {} 3\n\neval range from 0 to 10m step 5m up\n  \
             up{a=\"b\"} 1 _ 2\n\neval_fail instant at 0 x\n  expected_fail_message oh no\n";
        let script = Script::parse(text).unwrap();
        assert_eq!(script.eval_count(), 3);
        let [Command::Load(load), Command::Clear, Command::Eval(sum), Command::Eval(range), Command::Eval(failing)] =
            script.commands.as_slice()
        else {
            panic!("{:?}", script.commands)
        };
        assert_eq!((load.step_ms, load.series.len()), (300_000, 1));
        assert_eq!(load.series[0].start_offsets_ms, [None, Some(5_000)]);
        assert_eq!((sum.line, sum.expr.as_str()), (7, "sum(up)"));
        assert!(sum.warnings.expected[0].accepts("text (1:1)") && sum.infos.none);
        assert_eq!(range.times, EvalTimes::Range { start_ms: 0, end_ms: 600_000, step_ms: 300_000 });
        assert!(failing.failure.as_ref().is_some_and(|text| text.accepts("oh no") && !text.accepts("oh")));
    }

    #[test]
    fn errors_name_their_line() {
        let error = Script::parse("clear\n\nload 5x\n").unwrap_err();
        assert_eq!(error.line, 3);
        assert_eq!(Script::parse("clear\nfoo").unwrap_err().to_string(), "line 2: invalid command \"foo\"");
        assert_eq!(Script::parse("eval instant at 0 x\n expect warn\n expect no_warn\n").unwrap_err().line, 3);
    }

    #[test]
    fn scalars_as_in_go() {
        assert_eq!([scalar("1"), scalar("-0x10"), scalar("1e3")], [Some(1.0), Some(-16.0), Some(1000.0)]);
        assert_eq!((scalar("x 1"), scalar("010")), (None, Some(8.0)));
        assert_eq!((scalar("+Inf"), scalar("-Inf")), (Some(f64::INFINITY), Some(f64::NEG_INFINITY)));
    }
}
