//! From the root of a plan to the answer: late name removal, order, rendered annotations.

use std::sync::Arc;

use crate::model::read::Wanted;
use crate::model::result::{HistogramPoint, MatrixSeries, Point, QueryValue, VectorElement};
use crate::model::time::TimestampMs;
use crate::promql::eval::column::histograms_len;
use crate::promql::eval::error::EvalError;
use crate::promql::eval::exec::{Decoder, Exec, without_metadata};
use crate::promql::eval::ledger::{Charge, allocated, shared};
use crate::promql::eval::matrix::Matrix;
use crate::promql::eval::range::extended;
use crate::promql::eval::steps::Steps;
use crate::promql::eval::{self, EvalStats, Evaluated, subquery};
use crate::promql::plan::{Node, Operation, RangeSelector};
use crate::promql::signatures::ValueType;

/// A value with what it holds.
pub(crate) type HeldValue = (QueryValue, Charge);

/// The value of an instant query.
pub(crate) fn instant(
    exec: &mut Exec<'_>,
    root: &Node,
    value_type: ValueType,
    steps: Steps,
) -> Result<HeldValue, EvalError> {
    let at = TimestampMs(steps.start());
    match &root.operation {
        Operation::Text(text) => {
            let held = exec.charge(text.len())?;
            Ok((QueryValue::Text { at, text: text.clone() }, held))
        }
        Operation::SelectRange(selector) => range_selector(exec, selector, steps),
        Operation::Subquery(subquery) => {
            let mut result = subquery::eval_root(exec, subquery, steps)?;
            clean_up(exec, &mut result.matrix)?;
            matrix(exec, result.matrix, result.steps)
        }
        _ => {
            let mut result = eval::eval(exec, root, steps)?;
            clean_up(exec, &mut result)?;
            if value_type == ValueType::Scalar {
                let point = Point { at, value: result.scalar_at(0) };
                return Ok((QueryValue::Scalar(point), exec.charge(0)?));
            }
            let mut held = exec.charge(allocated(result.series.len() * size_of::<VectorElement>()))?;
            let mut elements = Vec::with_capacity(result.series.len());
            for series in &result.series {
                let histogram = series.column.histogram_at(0).cloned();
                let value = match (series.column.get(0), &histogram) {
                    (Some(value), _) => value,
                    (None, Some(_)) => f64::NAN,
                    (None, None) => continue,
                };
                let histogram_len = histogram.as_ref().map_or(0, |histogram| histogram.memory_len());
                let bytes = shared(series.labels.encoded_len()) + histogram_len;
                held.grow_ahead(bytes).map_err(|over| EvalError::Budget(over.to_string()))?;
                let point = Point { at, value };
                elements.push(VectorElement { labels: series.labels.clone(), point, histogram });
            }
            Ok((QueryValue::Vector(elements), held))
        }
    }
}

/// The value of a range query.
pub(crate) fn range(exec: &mut Exec<'_>, root: &Node, steps: Steps) -> Result<HeldValue, EvalError> {
    let mut result = eval::eval(exec, root, steps)?;
    clean_up(exec, &mut result)?;
    exec.check()?;
    matrix(exec, result, steps)
}

/// Puts a value together with what was noted on the way.
pub(crate) fn wrap(exec: Exec<'_>, (value, mut held): HeldValue) -> Evaluated {
    held.trim();
    let stats = EvalStats {
        total_samples: exec.samples.tally.total(),
        samples_read: exec.samples.tally.read(),
        peak_samples: exec.samples.peak(),
        peak_bytes: exec.ctx.ledger.peak(),
        sorted_in: exec.sorted_in,
    };
    let annotations = exec.annotations.render(&exec.ctx.text);
    Evaluated { value, annotations, stats, by_step: exec.samples.tally.into_steps(), held }
}

/// Drops the names that were marked, if names go at the end.
fn clean_up(exec: &mut Exec<'_>, result: &mut Matrix) -> Result<(), EvalError> {
    if !exec.opts.delayed_name_removal {
        return Ok(());
    }
    for series in result.series.iter_mut().filter(|series| series.drop_name) {
        series.labels = without_metadata(&series.labels);
    }
    result.merge_same_labelsets(exec)
}

fn matrix(exec: &mut Exec<'_>, mut result: Matrix, steps: Steps) -> Result<HeldValue, EvalError> {
    let began = exec.ctx.clock.monotonic();
    result.series.sort_by(|a, b| a.labels.cmp(&b.labels));
    exec.sorted_in = exec.ctx.clock.monotonic().saturating_sub(began);
    let mut held = exec.charge(allocated(result.series.len() * size_of::<MatrixSeries>()))?;
    let mut all = Vec::with_capacity(result.series.len());
    for series in result.take_series() {
        exec.spend(series.column.present())?;
        let column = &series.column;
        let bytes = shared(series.labels.encoded_len())
            + allocated(column.float_count() * size_of::<Point>())
            + histograms_len(column.histograms());
        held.grow_ahead(bytes).map_err(|over| EvalError::Budget(over.to_string()))?;
        let at = |step: usize| TimestampMs(steps.at(step));
        let mut points = Vec::with_capacity(column.float_count());
        column.for_each(|step, value| points.push(Point { at: at(step), value }));
        let shared = column.histograms().iter();
        let histograms = shared.map(|(step, h)| HistogramPoint { at: at(*step), histogram: Arc::clone(h) }).collect();
        all.push(MatrixSeries { labels: series.labels, points, histograms });
    }
    Ok((QueryValue::Matrix(all), held))
}

/// The samples of a range selector that stands alone, with their own times.
fn range_selector(exec: &mut Exec<'_>, range: &RangeSelector, steps: Steps) -> Result<HeldValue, EvalError> {
    let end_ms = steps.start().saturating_sub(range.selector.offset_from(steps.start()));
    let start_ms = end_ms.saturating_sub(range.range_ms);
    let (before_ms, after_ms) = extended::margins(range.extension, exec.opts.lookback_ms);
    let first_ms = start_ms.saturating_sub(before_ms).saturating_add(1);
    let (min_ms, max_ms) = range.selector.clip((first_ms, end_ms.saturating_add(after_ms)));
    let selection = exec.select(&range.selector, min_ms, max_ms)?;
    let mut decoder = Decoder::new(exec.ctx)?;
    let mut held = exec.charge(allocated(selection.series().len() * size_of::<MatrixSeries>()))?;
    let mut all = Vec::with_capacity(selection.series().len());
    for series in selection.series() {
        let column =
            decoder.decode(&mut exec.pace, &range.selector, &*series.samples, (min_ms, max_ms), Wanted::All)?;
        column.drop_stale_markers();
        if let Some(extension) = range.extension {
            extended::bounded_samples(column, extension, start_ms, end_ms)?;
        }
        if column.is_empty() {
            continue;
        }
        let histograms = &column.histograms;
        let histogram_samples: usize = histograms.values.iter().map(|h| h.sample_count()).sum();
        let samples = column.floats.len() + histogram_samples;
        exec.samples.hold(samples)?;
        exec.samples.tally.at_step(0, samples as u64, samples as u64);
        let histogram_bytes: usize = histograms.values.iter().map(|h| h.memory_len()).sum();
        let bytes = shared(series.labels.encoded_len())
            + allocated(column.floats.len() * size_of::<Point>())
            + allocated(histograms.len() * size_of::<HistogramPoint>())
            + histogram_bytes;
        held.grow_ahead(bytes).map_err(|over| EvalError::Budget(over.to_string()))?;
        let floats = column.floats.timestamps.iter().zip(&column.floats.values);
        let points = floats.map(|(at, value)| Point { at: TimestampMs(*at), value: *value }).collect();
        let shared = histograms.timestamps.iter().zip(&histograms.values);
        let histograms =
            shared.map(|(at, h)| HistogramPoint { at: TimestampMs(*at), histogram: Arc::clone(h) }).collect();
        all.push(MatrixSeries { labels: series.labels.clone(), points, histograms });
    }
    all.sort_by(|a, b| a.labels.cmp(&b.labels));
    Ok((QueryValue::Matrix(all), held))
}
