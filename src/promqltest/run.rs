//! Running of scripts.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::model::clock::{SharedClock, SystemClock};
use crate::model::read::{ReadView, SampleColumn};
use crate::model::result::{Annotations, MatrixSeries, Point, QueryValue, VectorElement};
use crate::model::time::TimestampMs;
use crate::promql::eval::{EngineOptions, Evaluated, QueryContext, evaluate_instant, evaluate_range};
use crate::promql::parser::{ParseOptions, SequenceValue, parse_expr};
use crate::promqltest::memory::TestStorage;
use crate::promqltest::script::{Command, EvalCommand, EvalTimes, LoadCommand, LoadedSeries, Script};
use crate::promqltest::{compare, nhcb, pinned, show};

/// What became of a script.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The evaluations that were run, in order.
    pub evals: Vec<EvalOutcome>,
    /// The `load`s that could not be carried out, in order.
    pub failed_loads: Vec<LoadFailure>,
}

impl Report {
    /// True if nothing failed.
    pub fn is_ok(&self) -> bool {
        self.failed_loads.is_empty() && self.evals.iter().all(|eval| eval.result.is_ok())
    }
}

/// What became of one evaluation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvalOutcome {
    /// Line in the script, from 1.
    pub line: usize,
    /// The expression.
    pub expr: String,
    /// What differs from what was expected.
    pub result: Result<(), Difference>,
}

/// A `load` that storage refused. Evaluations up to the next `clear` would say nothing, and are not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadFailure {
    /// Line in the script, from 1.
    pub line: usize,
    /// Why.
    pub reason: String,
    /// Number of evaluations that were not run because of it.
    pub skipped: usize,
}

/// What differs. Prints in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The first difference, in words.
    pub reason: String,
    /// What was expected, perhaps in several lines.
    pub expected: String,
    /// What was found, perhaps in several lines.
    pub got: String,
    /// How the expression was evaluated, if not as the script says.
    pub variant: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reason, expected, got, variant } = self;
        if let Some(variant) = variant {
            write!(f, "{variant}: ")?;
        }
        write!(f, "{reason}; expected {expected:?}, got {got:?}")
    }
}

/// How scripts are run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Settings of the engine.
    pub engine: EngineOptions,
    /// Language that expressions are evaluated with.
    pub language: ParseOptions,
    /// Longest time of a query.
    pub timeout: Duration,
    /// Whether storage keeps start timestamps.
    pub keep_starts: bool,
}

impl Settings {
    /// What Prometheus's own scripts assume.
    pub fn upstream() -> Self {
        Self {
            engine: upstream_options(),
            language: ParseOptions::ALL,
            timeout: Duration::from_secs(100),
            keep_starts: true,
        }
    }
}

/// The settings of the engine that Prometheus's own scripts assume.
pub fn upstream_options() -> EngineOptions {
    EngineOptions {
        max_samples: 10_000,
        delayed_name_removal: true,
        use_start_timestamps: true,
        ..EngineOptions::default()
    }
}

/// Runs a script. The error is a command that could not be carried out; what evaluations yield is in the outcomes.
pub fn run(script: &Script, storage: &mut dyn TestStorage, opts: &EngineOptions) -> Result<Vec<EvalOutcome>, String> {
    let settings = Settings { engine: opts.clone(), ..Settings::upstream() };
    let Report { evals, failed_loads } = run_selected(script, storage, &settings, &|_| true);
    match failed_loads.into_iter().next() {
        Some(failure) => Err(failure.reason),
        None => Ok(evals),
    }
}

/// Runs a script, of its evaluations those that `select` picks. Storage is empty at the start.
pub fn run_selected(
    script: &Script,
    storage: &mut dyn TestStorage,
    settings: &Settings,
    select: &dyn Fn(&EvalCommand) -> bool,
) -> Report {
    let mut report = Report::default();
    // While a failed load is in effect, evaluations are counted there.
    let mut is_broken = false;
    let clear = Command::Clear;
    for command in std::iter::once(&clear).chain(&script.commands) {
        let (line, done) = match command {
            Command::Clear => {
                is_broken = false;
                (1, storage.clear())
            }
            Command::Load(_) if is_broken => continue,
            Command::Load(load) => (load.line, store(load, storage, settings)),
            Command::Eval(eval) if !select(eval) => continue,
            Command::Eval(_) if is_broken => {
                if let Some(failure) = report.failed_loads.last_mut() {
                    failure.skipped += 1;
                }
                continue;
            }
            Command::Eval(eval) => {
                let result = Check { command: eval, storage, settings, clock: SystemClock::shared() }.run();
                report.evals.push(EvalOutcome { line: eval.line, expr: eval.expr.clone(), result });
                continue;
            }
        };
        if let Err(reason) = done {
            is_broken = true;
            report.failed_loads.push(LoadFailure { line, reason, skipped: 0 });
        }
    }
    report
}

fn store(load: &LoadCommand, storage: &mut dyn TestStorage, settings: &Settings) -> Result<(), String> {
    for series in &load.series {
        storage.append_all(&series.labels, &column(load.step_ms, series, settings.keep_starts)?)?;
    }
    if load.with_native_histograms {
        for (labels, column) in nhcb::converted(load)? {
            storage.append_all(&labels, &column)?;
        }
    }
    Ok(())
}

/// The samples of a loaded series.
fn column(step_ms: i64, series: &LoadedSeries, keep_starts: bool) -> Result<SampleColumn, String> {
    if series.labels.is_empty() {
        return Err("empty labelset: invalid sample".to_owned());
    }
    let mut column = SampleColumn::default();
    for (place, value) in series.values.iter().enumerate() {
        let at_ms = i64::try_from(place).unwrap_or(i64::MAX).saturating_mul(step_ms);
        let offset_ms = series.start_offsets_ms.get(place).copied().flatten().filter(|_| keep_starts);
        let start_ms = offset_ms.map_or(0, |offset_ms| at_ms.saturating_add(offset_ms));
        match value {
            SequenceValue::Float(value) => column.push_float(at_ms, start_ms, *value),
            SequenceValue::Histogram { histogram, .. } => {
                histogram.validate().map_err(|error| format!("{}: {error}", show::Series(&series.labels)))?;
                column.push_histogram(at_ms, start_ms, Arc::clone(histogram));
            }
            SequenceValue::Omitted => {}
        }
    }
    Ok(column)
}

/// One evaluation under test.
struct Check<'a> {
    command: &'a EvalCommand,
    storage: &'a dyn TestStorage,
    settings: &'a Settings,
    clock: SharedClock,
}

impl Check<'_> {
    fn run(&self) -> Result<(), Difference> {
        let command = self.command;
        let failed = |reason: String| self.difference(reason, String::new());
        let view = self.storage.queryable().view().map_err(|error| failed(format!("storage: {error}")))?;
        match command.times {
            EvalTimes::Range { start_ms, end_ms, step_ms } => {
                let found = self.range(&command.expr, &view, start_ms, end_ms, step_ms);
                let Some(found) = self.accept_failure(found)? else { return Ok(()) };
                self.annotations(&found.annotations)?;
                self.value(&found.value)
            }
            EvalTimes::Instant { at_ms } => {
                let at_ms = command.range_vector.map_or(at_ms, |(_, end_ms, _)| end_ms);
                self.instant_and_range(&command.expr, at_ms, &view)?;
                for (expr, at_ms) in pinned::variants(&command.expr, at_ms).map_err(failed)? {
                    self.instant_and_range(&expr, at_ms, &view)
                        .map_err(|difference| difference.of_variant(&format!("as {expr} at {at_ms} ms")))?;
                }
                Ok(())
            }
        }
    }

    /// Checks an instant query, and that the range query around it has the same value there.
    fn instant_and_range(&self, expr: &str, at_ms: i64, view: &Arc<dyn ReadView>) -> Result<(), Difference> {
        let command = self.command;
        let Some(found) = self.accept_failure(self.instant(expr, view, at_ms))? else { return Ok(()) };
        self.annotations(&found.annotations)?;
        self.value(&found.value)?;
        let is_own_type = command.range_vector.is_some() || command.text.is_some();
        if is_own_type || mentions_query_times(expr) {
            return Ok(());
        }
        let (start_ms, end_ms) = (at_ms.saturating_sub(60_000), at_ms.saturating_add(60_000));
        let around = self.range(expr, view, start_ms, end_ms, 60_000);
        self.same_around(&found.value, around, at_ms).map_err(|difference| difference.of_variant("in range mode"))
    }

    fn same_around(&self, found: &QueryValue, around: Result<Evaluated, String>, at_ms: i64) -> Result<(), Difference> {
        let command = self.command;
        let around =
            around.map_err(|error| self.difference("the query fails".to_owned(), format!("error: {error}")))?;
        if command.is_ordered {
            return Ok(());
        }
        let QueryValue::Matrix(series) = &around.value else {
            return Err(self.difference("not a matrix".to_owned(), show::found_value(&around.value)));
        };
        let elements = at(series, at_ms);
        let same = compare::sorted(series).and_then(|()| match (found, elements.first()) {
            (QueryValue::Scalar(_), Some(element)) => compare::value(command, &QueryValue::Scalar(element.point)),
            (QueryValue::Scalar(_), None) => Err("no value for a scalar".to_owned()),
            _ => compare::vector(command, &elements),
        });
        same.map_err(|reason| self.difference(reason, show::found_vector(&elements)))
    }

    /// `None` if the evaluation failed as expected.
    fn accept_failure(&self, found: Result<Evaluated, String>) -> Result<Option<Evaluated>, Difference> {
        match (found, &self.command.failure) {
            (Ok(found), None) => Ok(Some(found)),
            (Ok(found), Some(texts)) => Err(Difference {
                reason: "expected an error but got none".to_owned(),
                expected: show::expected_failure(texts),
                got: show::found_value(&found.value),
                variant: None,
            }),
            (Err(error), Some(texts)) if texts.iter().all(|text| text.accepts(&error)) => Ok(None),
            (Err(error), Some(texts)) => Err(Difference {
                reason: "another error than expected".to_owned(),
                expected: show::expected_failure(texts),
                got: format!("error: {error}"),
                variant: None,
            }),
            (Err(error), None) => Err(self.difference("the query fails".to_owned(), format!("error: {error}"))),
        }
    }

    fn annotations(&self, found: &Annotations) -> Result<(), Difference> {
        compare::annotations(self.command, found).map_err(|reason| Difference {
            reason,
            expected: show::expected_annotations(self.command),
            got: show::found_annotations(found),
            variant: None,
        })
    }

    fn value(&self, found: &QueryValue) -> Result<(), Difference> {
        compare::value(self.command, found).map_err(|reason| self.difference(reason, show::found_value(found)))
    }

    fn difference(&self, reason: String, got: String) -> Difference {
        Difference { reason, expected: show::expected_value(self.command), got, variant: None }
    }

    fn context(&self, expr: &str) -> QueryContext {
        let deadline = self.clock.monotonic().saturating_add(self.settings.timeout);
        QueryContext { deadline: Some(deadline), clock: Arc::clone(&self.clock), ..QueryContext::unlimited(expr) }
    }

    fn instant(&self, expr: &str, view: &Arc<dyn ReadView>, at_ms: i64) -> Result<Evaluated, String> {
        let parsed = parse_expr(expr, &self.settings.language).map_err(|error| error.to_string())?;
        let (at, ctx) = (TimestampMs(at_ms), self.context(expr));
        evaluate_instant(&parsed, &**view, at, &self.settings.engine, &ctx).map_err(|error| error.to_string())
    }

    fn range(
        &self,
        expr: &str,
        view: &Arc<dyn ReadView>,
        start_ms: i64,
        end_ms: i64,
        step_ms: i64,
    ) -> Result<Evaluated, String> {
        let parsed = parse_expr(expr, &self.settings.language).map_err(|error| error.to_string())?;
        let (start, end, ctx) = (TimestampMs(start_ms), TimestampMs(end_ms), self.context(expr));
        evaluate_range(&parsed, &**view, start, end, step_ms, &self.settings.engine, &ctx)
            .map_err(|error| error.to_string())
    }
}

impl Difference {
    fn of_variant(self, variant: &str) -> Self {
        let variant = match self.variant {
            Some(inner) => format!("{variant}, {inner}"),
            None => variant.to_owned(),
        };
        Self { variant: Some(variant), ..self }
    }
}

/// What a matrix holds at one time.
fn at(series: &[MatrixSeries], at_ms: i64) -> Vec<VectorElement> {
    let mut elements = Vec::new();
    for one in series {
        if let Some(point) = one.points.iter().find(|point| point.at.0 == at_ms) {
            elements.push(VectorElement { labels: one.labels.clone(), point: *point, histogram: None });
        } else if let Some(found) = one.histograms.iter().find(|point| point.at.0 == at_ms) {
            let point = Point { at: found.at, value: f64::NAN };
            let histogram = Some(Arc::clone(&found.histogram));
            elements.push(VectorElement { labels: one.labels.clone(), point, histogram });
        }
    }
    elements
}

/// True for expressions whose value differs between instant and range queries.
fn mentions_query_times(expr: &str) -> bool {
    ["start()", "end()", "range()", "step()"].iter().any(|call| expr.contains(call))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promqltest::memory::MemoryStorage;

    fn run_text(text: &str) -> Result<Vec<EvalOutcome>, String> {
        let script = Script::parse(text).map_err(|error| error.to_string())?;
        crate::promqltest::run(&script, &mut MemoryStorage::new(), &upstream_options())
    }

    /// Runs one evaluation over a float and a histogram.
    #[track_caller]
    fn check(eval: &str, problem: Option<&str>) {
        let load = "load 1m\n  f 1 2\n  h {{schema:0 sum:3 count:3 buckets:[1 2]}}x1\n\n";
        let outcome = run_text(&format!("{load}{eval}\n")).unwrap().remove(0);
        match (outcome.result, problem) {
            (Ok(()), None) => {}
            (Err(found), Some(expected)) if found.to_string().contains(expected) => {}
            (found, expected) => panic!("{eval}: expected {expected:?}, found {found:?}"),
        }
    }

    #[test]
    fn what_is_not_as_expected_fails() {
        check("eval instant at 1m f\n  f 2", None);
        check("eval instant at 1m f\n  f 3", Some("expected 3"));
        check("eval instant at 1m f\n  f 3", Some("got \"f 2\""));
        check("eval instant at 1m f\n  f 2\n  g 2", Some("expected metric"));
        check("eval instant at 1m f", Some("unexpected metric"));
        check("eval instant at 1m f\n  f {{count:2}}", Some("expected a histogram"));
        check("eval instant at 1m h\n  h {{schema:0 sum:3 count:3 buckets:[1 2]}}", None);
        check("eval instant at 1m h\n  h 3", Some("expected a float"));
        check("eval instant at 1m h\n  h {{schema:0 sum:3 count:3 buckets:[2 1]}}", Some("buckets:[1 2]"));
        let hint = "counter_reset_hint:reset";
        check(&format!("eval instant at 1m h\n  h {{{{sum:3 count:3 buckets:[1 2] {hint}}}}}"), Some("not_reset"));
        check("eval range from 0 to 1m step 1m h\n  h {{schema:0 sum:3 count:3 buckets:[1 2]}}", Some("histograms at"));
        check("eval range from 0 to 1m step 1m h\n  h {{sum:3 count:3 buckets:[1 2]}}x1", None);
        check("eval instant at 1m h + 1\n  expect no_info", Some("unexpected info"));
        check("eval instant at 1m h + 1\n  expect info", None);
        check("eval instant at 1m h\n  expect fail", Some("expected an error"));
    }

    #[test]
    fn what_cannot_be_loaded_is_an_error() {
        let invalid = run_text("load 1m\n  h {{schema:12 count:1 buckets:[1]}}\n").unwrap_err();
        assert!(invalid.contains("invalid schema"), "{invalid}");
        let mismatch = "load_with_nhcb 1m\n  h_bucket{le=\"1\"} 5\n  h_bucket{le=\"+Inf\"} 3\n";
        assert!(run_text(mismatch).unwrap_err().contains("not cumulative"));
        assert!(run_text("load 1m\n  x@st 0 0\n  x 1\n").unwrap_err().contains("@st line has 2 values"));
    }
}
