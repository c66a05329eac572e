//! Running of scripts.

use std::sync::Arc;

use crate::model::read::{ReadView, SampleColumn};
use crate::model::result::{MatrixSeries, Point, QueryValue, VectorElement};
use crate::model::time::TimestampMs;
use crate::promql::eval::{EngineOptions, Evaluated, QueryContext, evaluate_instant, evaluate_range};
use crate::promql::parser::{ParseOptions, SequenceValue, parse_expr};
use crate::promqltest::compare;
use crate::promqltest::memory::TestStorage;
use crate::promqltest::script::{Command, EvalCommand, EvalTimes, LoadCommand, LoadedSeries, Script};
use crate::promqltest::{nhcb, pinned};

/// What became of one evaluation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvalOutcome {
    /// Line in the script, from 1.
    pub line: usize,
    /// The expression.
    pub expr: String,
    /// What differs from what was expected.
    pub result: Result<(), String>,
}

/// The settings that Prometheus's own scripts assume.
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
    let mut outcomes = Vec::new();
    storage.clear()?;
    for command in &script.commands {
        match command {
            Command::Clear => storage.clear()?,
            Command::Load(load) => store(load, storage)?,
            Command::Eval(eval) => {
                let result = check(eval, storage, opts);
                outcomes.push(EvalOutcome { line: eval.line, expr: eval.expr.clone(), result });
            }
        }
    }
    Ok(outcomes)
}

fn store(load: &LoadCommand, storage: &mut dyn TestStorage) -> Result<(), String> {
    for series in &load.series {
        storage.append_all(&series.labels, &column(load.step_ms, series)?)?;
    }
    if load.with_native_histograms {
        for (labels, column) in nhcb::converted(load)? {
            storage.append_all(&labels, &column)?;
        }
    }
    Ok(())
}

/// The samples of a loaded series.
fn column(step_ms: i64, series: &LoadedSeries) -> Result<SampleColumn, String> {
    let mut column = SampleColumn::default();
    for (place, value) in series.values.iter().enumerate() {
        let at_ms = i64::try_from(place).unwrap_or(i64::MAX).saturating_mul(step_ms);
        let offset_ms = series.start_offsets_ms.get(place).copied().flatten();
        let start_ms = offset_ms.map_or(0, |offset_ms| at_ms.saturating_add(offset_ms));
        match value {
            SequenceValue::Float(value) => column.push_float(at_ms, start_ms, *value),
            SequenceValue::Histogram { histogram, .. } => {
                histogram.validate().map_err(|error| format!("{}: {error}", series.labels))?;
                column.push_histogram(at_ms, start_ms, Arc::clone(histogram));
            }
            SequenceValue::Omitted => {}
        }
    }
    Ok(column)
}

fn check(command: &EvalCommand, storage: &dyn TestStorage, opts: &EngineOptions) -> Result<(), String> {
    let view = storage.queryable().view().map_err(|error| error.to_string())?;
    let view: &Arc<dyn ReadView> = &view;
    match command.times {
        EvalTimes::Range { start_ms, end_ms, step_ms } => {
            let Some(found) = accept_failure(command, range(&command.expr, view, start_ms, end_ms, step_ms, opts))?
            else {
                return Ok(());
            };
            compare::annotations(command, &found.annotations)?;
            compare::value(command, &found.value)
        }
        EvalTimes::Instant { at_ms } => {
            let at_ms = command.range_vector.map_or(at_ms, |(_, end_ms, _)| end_ms);
            check_instant(command, &command.expr, at_ms, view, opts)?;
            for (expr, at_ms) in pinned::variants(&command.expr, at_ms)? {
                check_instant(command, &expr, at_ms, view, opts)
                    .map_err(|difference| format!("as {expr} at {at_ms} ms: {difference}"))?;
            }
            Ok(())
        }
    }
}

/// Checks an instant query, and that the range query around it has the same value there.
fn check_instant(
    command: &EvalCommand,
    expr: &str,
    at_ms: i64,
    view: &Arc<dyn ReadView>,
    opts: &EngineOptions,
) -> Result<(), String> {
    let Some(found) = accept_failure(command, instant(expr, view, at_ms, opts))? else { return Ok(()) };
    compare::annotations(command, &found.annotations)?;
    compare::value(command, &found.value)?;
    let is_own_type = command.range_vector.is_some() || command.text.is_some();
    if is_own_type || mentions_query_times(expr) {
        return Ok(());
    }
    let around = range(expr, view, at_ms - 60_000, at_ms + 60_000, 60_000, opts)
        .map_err(|error| format!("in range mode: {error}"))?;
    if command.is_ordered {
        return Ok(());
    }
    let QueryValue::Matrix(series) = around.value else { return Err("in range mode: not a matrix".to_owned()) };
    compare::sorted(&series)?;
    let elements = at(&series, at_ms);
    let same = match (&found.value, elements.first()) {
        (QueryValue::Scalar(_), Some(element)) => compare::value(command, &QueryValue::Scalar(element.point)),
        (QueryValue::Scalar(_), None) => Err("no value for a scalar".to_owned()),
        _ => compare::vector(command, &elements),
    };
    same.map_err(|difference| format!("in range mode: {difference}"))
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

/// `None` if the evaluation failed as expected.
fn accept_failure(command: &EvalCommand, found: Result<Evaluated, String>) -> Result<Option<Evaluated>, String> {
    match (found, &command.failure) {
        (Ok(found), None) => Ok(Some(found)),
        (Ok(_), Some(_)) => Err("expected an error but got none".to_owned()),
        (Err(error), Some(expected)) if expected.accepts(&error) => Ok(None),
        (Err(error), Some(expected)) => Err(format!("expected error {expected:?} but got: {error}")),
        (Err(error), None) => Err(format!("error: {error}")),
    }
}

fn instant(expr: &str, view: &Arc<dyn ReadView>, at_ms: i64, opts: &EngineOptions) -> Result<Evaluated, String> {
    let parsed = parse_expr(expr, &ParseOptions::ALL).map_err(|error| error.to_string())?;
    let ctx = QueryContext::unlimited(expr);
    evaluate_instant(&parsed, &**view, TimestampMs(at_ms), opts, &ctx).map_err(|error| error.to_string())
}

fn range(
    expr: &str,
    view: &Arc<dyn ReadView>,
    start_ms: i64,
    end_ms: i64,
    step_ms: i64,
    opts: &EngineOptions,
) -> Result<Evaluated, String> {
    let parsed = parse_expr(expr, &ParseOptions::ALL).map_err(|error| error.to_string())?;
    let ctx = QueryContext::unlimited(expr);
    let (start, end) = (TimestampMs(start_ms), TimestampMs(end_ms));
    evaluate_range(&parsed, &**view, start, end, step_ms, opts, &ctx).map_err(|error| error.to_string())
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
            (Err(found), Some(expected)) if found.contains(expected) => {}
            (found, expected) => panic!("{eval}: expected {expected:?}, found {found:?}"),
        }
    }

    #[test]
    fn what_is_not_as_expected_fails() {
        check("eval instant at 1m f\n  f 2", None);
        check("eval instant at 1m f\n  f 3", Some("expected 3"));
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
