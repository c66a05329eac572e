//! Functions of instant vectors and scalars.

mod histogram;
mod label;

use crate::model::histogram::FloatHistogram;
use crate::model::labels::{Labels, METRIC_NAME};
use crate::promql::eval::column::{ColumnBuilder, StepSet};
use crate::promql::eval::error::EvalError;
use crate::promql::eval::exec::{Exec, without_metadata};
use crate::promql::eval::matrix::{Matrix, Series};
use crate::promql::eval::samples::StepLoad;
use crate::promql::eval::scalar::per_step;
use crate::promql::eval::steps::Steps;
use crate::promql::eval::{self, range};
use crate::promql::functions::order::{by_labels, by_value};
use crate::promql::functions::{Direction, InstantFunction, math};
use crate::promql::plan::Call;

/// Evaluates a call.
pub(crate) fn eval(exec: &mut Exec<'_>, call: &Call, steps: Steps) -> Result<Matrix, EvalError> {
    let before = exec.samples.current();
    match &call.function {
        // These look at series, not at samples, and count none.
        InstantFunction::LabelReplace(args) => return label::replace(exec, call, args, steps),
        InstantFunction::LabelJoin(args) => return label::join(exec, call, args, steps),
        InstantFunction::Time => return per_step(exec, steps, |step| seconds_at(steps, step)),
        InstantFunction::Pi => return per_step(exec, steps, |_| std::f64::consts::PI),
        InstantFunction::Date(part) if call.args.is_empty() => {
            // Without argument the whole second of the evaluation time counts.
            return per_step(exec, steps, |step| part.at((steps.at(step) / 1000) as f64));
        }
        _ => {}
    }
    let mut args = Vec::with_capacity(call.args.len());
    for arg in &call.args {
        args.push(eval::eval(exec, arg, steps)?);
    }
    let is_sort = matches!(call.function, InstantFunction::Sort(_) | InstantFunction::SortByLabel(..));
    if is_sort && !steps.is_instant() {
        let text = "sort is ineffective for range queries since results are always ordered by labels";
        exec.annotations.warn(text, call.range)?;
    }
    // The input's elements are counted before they turn into the result.
    let _held = exec.charge(StepLoad::len_for(steps).saturating_mul(4))?;
    let mut gathered = StepLoad::new(steps);
    args.iter().for_each(|arg| gathered.add(arg));
    let mut result = apply(exec, call, args, steps)?;
    result.assemble(exec, steps)?;
    let mut produced = StepLoad::new(steps);
    produced.add_output(&result);
    gathered.check(&produced, &mut exec.samples)?;
    exec.samples.settle(before, result.sample_count());
    Ok(result)
}

fn apply(exec: &mut Exec<'_>, call: &Call, args: Vec<Matrix>, steps: Steps) -> Result<Matrix, EvalError> {
    match &call.function {
        InstantFunction::HistogramQuantile => return histogram::quantile(exec, call, &args, steps),
        InstantFunction::HistogramQuantiles { label } => {
            return histogram::quantiles(exec, call, label, &args, steps);
        }
        InstantFunction::HistogramFraction => return histogram::fraction(exec, call, &args, steps),
        _ => {}
    }
    let mut args = args.into_iter();
    let first = args.next().ok_or_else(|| EvalError::Execution("function without its argument".to_owned()))?;
    let rest: Vec<Matrix> = args.collect();
    let param = |index: usize, step: usize, default: f64| rest.get(index).map_or(default, |m| m.scalar_at(step));
    match &call.function {
        InstantFunction::Map(function) => map(exec, first, |_, value| Some(function(value))),
        InstantFunction::Date(part) => map(exec, first, |_, value| Some(part.at(value))),
        InstantFunction::Timestamp => evaluation_times(exec, &first, steps),
        InstantFunction::NoStart => Matrix::new(exec),
        InstantFunction::OfHistogram(function) => of_histograms(exec, &first, *function),
        InstantFunction::Round => map(exec, first, |step, value| Some(math::round(value, 1.0 / param(0, step, 1.0)))),
        InstantFunction::Clamp => map(exec, first, |step, v| clamp(v, param(0, step, 0.0), param(1, step, 0.0))),
        InstantFunction::ClampMin => map(exec, first, |step, v| clamp(v, param(0, step, 0.0), f64::INFINITY)),
        InstantFunction::ClampMax => map(exec, first, |step, v| clamp(v, f64::NEG_INFINITY, param(0, step, 0.0))),
        InstantFunction::MaxOf => scalars(exec, steps, |step| math::go_max(first.scalar_at(step), param(0, step, 0.0))),
        InstantFunction::MinOf => scalars(exec, steps, |step| math::go_min(first.scalar_at(step), param(0, step, 0.0))),
        InstantFunction::Scalar => scalar(exec, &first, steps),
        InstantFunction::Vector => Ok(first),
        InstantFunction::Absent(labels) => absent(exec, &first, labels, steps),
        InstantFunction::Sort(direction) => Ok(sort_by_value(first, *direction, steps)),
        InstantFunction::SortByLabel(direction, names) => {
            let mut sorted = first;
            sorted.series.sort_by(|a, b| by_labels(*direction, names, &a.labels, &b.labels));
            Ok(sorted)
        }
        other => Err(EvalError::Execution(format!("function {other:?} does not belong here"))),
    }
}

fn seconds_at(steps: Steps, step: usize) -> f64 {
    steps.at(step) as f64 / 1000.0
}

/// Changes each value; `None` leaves a gap. The result is not the metric any more.
fn map(exec: &mut Exec<'_>, input: Matrix, change: impl Fn(usize, f64) -> Option<f64>) -> Result<Matrix, EvalError> {
    let mut result = Matrix::new(exec)?;
    let mut builder = ColumnBuilder::new();
    for series in &input.series {
        exec.spend(series.column.present())?;
        series.column.for_each(|step, value| {
            if let Some(changed) = change(step, value) {
                builder.push(step, changed);
            }
        });
        if let Some(column) = builder.finish() {
            let labels =
                if exec.opts.delayed_name_removal { series.labels.clone() } else { without_metadata(&series.labels) };
            result.push(Series { labels, drop_name: true, column })?;
        }
    }
    Ok(result)
}

/// `timestamp` of something computed.
fn evaluation_times(exec: &mut Exec<'_>, input: &Matrix, steps: Steps) -> Result<Matrix, EvalError> {
    let mut result = Matrix::new(exec)?;
    let mut builder = ColumnBuilder::new();
    for series in &input.series {
        exec.spend(series.column.present())?;
        series.column.values().for_each(|(step, _)| builder.push(step, seconds_at(steps, step)));
        if let Some(column) = builder.finish() {
            let labels =
                if exec.opts.delayed_name_removal { series.labels.clone() } else { without_metadata(&series.labels) };
            result.push(Series { labels, drop_name: true, column })?;
        }
    }
    Ok(result)
}

/// A float from each histogram. The result is not the metric any more, but keeps what says of which type that was.
fn of_histograms(
    exec: &mut Exec<'_>,
    input: &Matrix,
    function: fn(&FloatHistogram) -> f64,
) -> Result<Matrix, EvalError> {
    let mut result = Matrix::new(exec)?;
    let mut builder = ColumnBuilder::new();
    for series in &input.series {
        let histograms = series.column.histograms();
        exec.spend(histograms.len())?;
        histograms.iter().for_each(|(step, histogram)| builder.push(*step, function(histogram)));
        if let Some(column) = builder.finish() {
            let is_late = exec.opts.delayed_name_removal;
            let labels = if is_late { series.labels.clone() } else { series.labels.without(&[METRIC_NAME]) };
            result.push(Series { labels, drop_name: true, column })?;
        }
    }
    Ok(result)
}

fn clamp(value: f64, min: f64, max: f64) -> Option<f64> {
    if max < min { None } else { Some(math::go_max(min, math::go_min(max, value))) }
}

/// A scalar from others; counted by the caller.
fn scalars(exec: &mut Exec<'_>, steps: Steps, value: impl Fn(usize) -> f64) -> Result<Matrix, EvalError> {
    let _held = exec.charge(steps.count().saturating_mul(8))?;
    exec.spend(steps.count())?;
    Matrix::scalar(exec, (0..steps.count()).map(value).collect())
}

/// `scalar`: the value of the only element, NaN where there is none or more than one.
fn scalar(exec: &mut Exec<'_>, input: &Matrix, steps: Steps) -> Result<Matrix, EvalError> {
    let _held = exec.charge(steps.count().saturating_mul(9))?;
    let mut values = vec![f64::NAN; steps.count()];
    let mut seen = StepSet::with_steps(steps.count());
    for series in &input.series {
        exec.spend(series.column.present())?;
        series.column.for_each(|step, value| {
            values[step] = if seen.insert(step) { value } else { f64::NAN };
        });
    }
    Matrix::scalar(exec, values)
}

/// `absent`: a 1 at each step without elements.
fn absent(exec: &mut Exec<'_>, input: &Matrix, labels: &Labels, steps: Steps) -> Result<Matrix, EvalError> {
    let _held = exec.charge(StepSet::len_for(steps.count()) + ColumnBuilder::len_for(steps.count()))?;
    let mut found = StepSet::with_steps(steps.count());
    for series in &input.series {
        exec.spend(series.column.present())?;
        found.insert_column(&series.column);
    }
    let mut result = Matrix::new(exec)?;
    if let Some(column) = range::ones_outside(&found, steps) {
        result.push(Series { labels: labels.clone(), drop_name: false, column })?;
    }
    Ok(result)
}

/// Sorts the elements of an instant query; histograms have no place there. In a range query each step would have its own
/// order; the result is ordered by labels in the end.
fn sort_by_value(mut input: Matrix, direction: Direction, steps: Steps) -> Matrix {
    input.series.retain_mut(|series| series.column.drop_histograms());
    if steps.is_instant() {
        let value = |series: &Series| series.column.get(0).unwrap_or(f64::NAN);
        input.series.sort_by(|a, b| by_value(direction, value(a), value(b)));
    }
    input
}
