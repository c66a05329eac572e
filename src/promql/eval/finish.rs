//! From the root of a plan to the answer: late name removal, order, rendered annotations.

use crate::model::read::FloatColumn;
use crate::model::result::{MatrixSeries, Point, QueryValue, VectorElement};
use crate::model::sample::is_stale;
use crate::model::time::TimestampMs;
use crate::promql::eval::error::EvalError;
use crate::promql::eval::exec::{Decoder, Exec, without_metadata};
use crate::promql::eval::ledger::Charge;
use crate::promql::eval::matrix::Matrix;
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
            let mut result = subquery::eval(exec, subquery, steps)?;
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
            let mut held = exec.charge(0)?;
            let mut elements = Vec::with_capacity(result.series.len());
            for series in &result.series {
                let Some(value) = series.column.get(0) else { continue };
                let bytes = size_of::<VectorElement>() + series.labels.encoded_len();
                held.grow(bytes).map_err(|over| EvalError::Budget(over.to_string()))?;
                elements.push(VectorElement { labels: series.labels.clone(), point: Point { at, value } });
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
pub(crate) fn wrap(exec: Exec<'_>, (value, held): HeldValue) -> Evaluated {
    let stats = EvalStats {
        total_samples: exec.samples.total(),
        peak_samples: exec.samples.peak(),
        peak_bytes: exec.ctx.ledger.peak(),
    };
    Evaluated { value, annotations: exec.annotations.render(&exec.ctx.text), stats, held }
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
    result.series.sort_by(|a, b| a.labels.cmp(&b.labels));
    let mut held = exec.charge(0)?;
    let mut all = Vec::with_capacity(result.series.len());
    for series in result.take_series() {
        exec.spend(series.column.present())?;
        let bytes =
            size_of::<MatrixSeries>() + series.labels.encoded_len() + series.column.present() * size_of::<Point>();
        held.grow(bytes).map_err(|over| EvalError::Budget(over.to_string()))?;
        let mut points = Vec::with_capacity(series.column.present());
        series.column.for_each(|step, value| points.push(Point { at: TimestampMs(steps.at(step)), value }));
        all.push(MatrixSeries { labels: series.labels, points });
    }
    Ok((QueryValue::Matrix(all), held))
}

/// The samples of a range selector that stands alone, with their own times.
fn range_selector(exec: &mut Exec<'_>, range: &RangeSelector, steps: Steps) -> Result<HeldValue, EvalError> {
    let end_ms = steps.start().saturating_sub(range.selector.offset_from(steps.start()));
    let first_ms = end_ms.saturating_sub(range.range_ms).saturating_add(1);
    let (min_ms, end_ms) = range.selector.clip((first_ms, end_ms));
    let selection = exec.select(&range.selector, min_ms, end_ms)?;
    let mut decoder = Decoder::new(exec)?;
    let mut held = exec.charge(0)?;
    let mut all = Vec::with_capacity(selection.series.len());
    for series in &selection.series {
        let column = decoder.decode(exec, &*series.samples, min_ms, end_ms)?;
        let points = live_points(column);
        if points.is_empty() {
            continue;
        }
        exec.samples.hold(points.len())?;
        exec.samples.look_at(points.len() as u64);
        let bytes = size_of::<MatrixSeries>() + series.labels.encoded_len() + points.len() * size_of::<Point>();
        held.grow(bytes).map_err(|over| EvalError::Budget(over.to_string()))?;
        all.push(MatrixSeries { labels: series.labels.clone(), points });
    }
    all.sort_by(|a, b| a.labels.cmp(&b.labels));
    Ok((QueryValue::Matrix(all), held))
}

fn live_points(column: &FloatColumn) -> Vec<Point> {
    let samples = column.timestamps.iter().zip(&column.values).filter(|(_, value)| !is_stale(**value));
    samples.map(|(at, value)| Point { at: TimestampMs(*at), value: *value }).collect()
}
