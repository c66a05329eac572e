//! Scripts: what they consist of, and parsing of `load` and `clear`; `eval` is in a file of its own.

mod eval;

use std::collections::BTreeMap;
use std::fmt;

use crate::model::duration::PromDuration;
use crate::model::go;
use crate::model::labels::Labels;
use crate::model::regexp::Regexp;
use crate::promql::parser::{SequenceValue, SeriesDescription, parse_series_desc};
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
    /// Line number, from 1.
    pub line: usize,
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

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any text"),
            Self::Exact(text) => f.write_str(&go::quote(text)),
            Self::Matching(regexp) => write!(f, "a match of `{}`", regexp.pattern()),
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
    /// If it is to fail: texts that the error has to be like, each of them.
    pub failure: Option<Vec<Text>>,
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
    /// Parses a script. Expressions have to parse with all of the language switched on, also those that are to fail.
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
                commands.push(Command::Load(parse_load(body, at + 1).map_err(|error| error.after(at))?));
                at = end;
            } else if word.starts_with("eval") {
                let body = lines.get(at..end).unwrap_or(&[]);
                let (command, used) = eval::parse(body, at + 1).map_err(|error| error.after(at))?;
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

fn parse_load(lines: &[&str], line: usize) -> Result<LoadCommand, ScriptError> {
    let (head, body) = lines.split_first().ok_or_else(|| ScriptError::new(0, "empty load command"))?;
    let (word, step) = head.split_once(char::is_whitespace).unwrap_or((head, ""));
    let with_native_histograms = match word {
        "load" => false,
        "load_with_nhcb" => true,
        _ => return Err(ScriptError::new(0, "invalid load command. (load[_with_nhcb] <step:duration>)")),
    };
    let step_ms = duration(step.trim()).map_err(|error| ScriptError::new(0, error))?;
    let mut series: BTreeMap<Labels, LoadedSeries> = BTreeMap::new();
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
        series.insert(labels.clone(), LoadedSeries { labels, values, start_offsets_ms });
    }
    if starts.is_some() {
        return Err(ScriptError::new(body.len(), "@st line has no following sample line"));
    }
    Ok(LoadCommand { line, step_ms, series: series.into_values().collect(), with_native_histograms })
}

fn duration(text: &str) -> Result<i64, String> {
    PromDuration::parse(text)
        .map(PromDuration::as_ms_i64)
        .map_err(|error| format!("invalid duration {text:?}: {error}"))
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
        assert!(failing.failure.as_ref().is_some_and(|texts| texts[0].accepts("oh no") && !texts[0].accepts("oh")));
    }

    #[test]
    fn errors_name_their_line() {
        let error = Script::parse("clear\n\nload 5x\n").unwrap_err();
        assert_eq!(error.line, 3);
        assert_eq!(Script::parse("clear\nfoo").unwrap_err().to_string(), "line 2: invalid command \"foo\"");
        assert_eq!(Script::parse("eval instant at 0 x\n expect warn\n expect no_warn\n").unwrap_err().line, 3);
    }
}
