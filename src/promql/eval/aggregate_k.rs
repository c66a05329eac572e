//! Aggregations that pick elements: `topk`, `bottomk`, `limitk`, `limit_ratio`. What is picked may change from step to
//! step, so these go step by step.

use std::sync::Arc;

use crate::model::go;
use crate::promql::ast::PosRange;
use crate::promql::eval::aggregate::{Groups, extent};
use crate::promql::eval::column::{ColumnBuilder, StepValue};
use crate::promql::eval::error::EvalError;
use crate::promql::eval::exec::Exec;
use crate::promql::eval::matrix::{Matrix, Series};
use crate::promql::eval::steps::Steps;
use crate::promql::eval::{self};
use crate::promql::functions::Direction;
use crate::promql::functions::note::Note;
use crate::promql::functions::order::BoundedHeap;
use crate::promql::plan::{SelectK, WhichK};

/// 2^63: the smallest float that a signed 64-bit count cannot hold.
const COUNT_MAX: f64 = 9_223_372_036_854_775_808.0;

/// Evaluates an aggregation.
pub(crate) fn eval(exec: &mut Exec<'_>, select: &SelectK, place: PosRange, steps: Steps) -> Result<Matrix, EvalError> {
    let before = exec.samples.current();
    let k = eval::eval(exec, &select.k, steps)?;
    let input = eval::eval(exec, &select.inner, steps)?;
    let result = if check_param(exec, select, &k, steps)? {
        pick(exec, select, place, &k, &input, steps)?
    } else {
        Matrix::new(exec)?
    };
    exec.samples.settle(before, result.sample_count());
    Ok(result)
}

/// False if nothing is picked at any step. Errors and warnings are about the parameter at all steps.
fn check_param(exec: &mut Exec<'_>, select: &SelectK, k: &Matrix, steps: Steps) -> Result<bool, EvalError> {
    let (low, high, has_nan) = extent(exec, k, steps)?;
    let refuse = |text: String| Err(EvalError::Execution(text));
    if select.which == WhichK::Ratio {
        if low == 0.0 && high == 0.0 {
            return Ok(false);
        }
        if has_nan {
            return refuse("Ratio value is NaN".to_owned());
        }
        for (beyond, value, cap) in [(high > 1.0, high, "1"), (low < -1.0, low, "-1")] {
            if beyond {
                let value = go::format_float_g(value);
                let text = format!("ratio value should be between -1 and 1, got {value}, capping to {cap}");
                exec.annotations.warn(&text, select.k.range)?;
            }
        }
        return Ok(true);
    }
    if high < 1.0 {
        return Ok(false);
    }
    if has_nan {
        return refuse("Parameter value is NaN".to_owned());
    }
    if low <= -COUNT_MAX {
        return refuse(format!("Scalar value {} underflows int64", go::format_float_g(low)));
    }
    if high >= COUNT_MAX_ACCEPTED {
        return refuse(format!("Scalar value {} overflows int64", go::format_float_g(high)));
    }
    Ok(true)
}

/// The largest float below 2^63 that Prometheus accepts is the one before this.
const COUNT_MAX_ACCEPTED: f64 = 9_223_372_036_854_774_784.0;

fn pick(
    exec: &mut Exec<'_>,
    select: &SelectK,
    place: PosRange,
    k: &Matrix,
    input: &Matrix,
    steps: Steps,
) -> Result<Matrix, EvalError> {
    let groups = Groups::of(exec, input, &select.grouping)?;
    let _heaps = exec.charge(input.series.len().saturating_mul(48 + size_of::<ColumnBuilder>()))?;
    let mut columns = exec.charge(0)?;
    let mut builders: Vec<ColumnBuilder> = Vec::new();
    builders.resize_with(input.series.len(), ColumnBuilder::new);
    let mut order: Vec<usize> = Vec::new();
    let mut heap = BoundedHeap::keeping(match select.which {
        WhichK::Bottom => Direction::Ascending,
        WhichK::Top | WhichK::Any | WhichK::Ratio => Direction::Descending,
    });
    for step in 0..steps.count() {
        let param = k.scalar_at(step);
        // In range, as checked before; the cast cuts towards zero.
        let limit = if select.which == WhichK::Ratio { usize::MAX } else { param.max(0.0) as usize };
        if limit == 0 {
            continue;
        }
        for members in groups.members() {
            exec.spend(members.len())?;
            let has_ignored = fill(&mut heap, select.which, members, input, step, limit, param);
            if has_ignored {
                let name = if select.which == WhichK::Top { "topk" } else { "bottomk" };
                exec.annotations.note(Note::IgnoredInAggregation(name), "", place)?;
            }
            let picked = match select.which {
                WhichK::Top | WhichK::Bottom => heap.best_first(),
                WhichK::Any | WhichK::Ratio => heap.elements(),
            };
            let bytes = picked.len().saturating_mul(ColumnBuilder::STEP_LEN);
            columns.grow(bytes).map_err(|over| EvalError::Budget(over.to_string()))?;
            for (value, series) in picked {
                match input.series[*series].column.histogram_at(step) {
                    Some(histogram) => builders[*series].push_histogram(step, Arc::clone(histogram)),
                    None => builders[*series].push(step, *value),
                }
                if steps.is_instant() {
                    order.push(*series);
                }
            }
        }
    }
    if !steps.is_instant() {
        order.extend(0..input.series.len());
    }
    let mut result = Matrix::new(exec)?;
    for index in order {
        if let Some(column) = builders[index].finish() {
            let series = &input.series[index];
            result.push(Series { labels: series.labels.clone(), drop_name: series.drop_name, column })?;
        }
    }
    Ok(result)
}

/// Puts what is picked from one group at one step into the heap. True if there are histograms that have no rank. Where
/// they are picked too, they stand in the heap as zeros.
fn fill(
    heap: &mut BoundedHeap,
    which: WhichK,
    members: &[usize],
    input: &Matrix,
    step: usize,
    limit: usize,
    param: f64,
) -> bool {
    heap.clear();
    let mut has_ignored = false;
    for index in members {
        let series = &input.series[*index];
        let value = match (series.column.value_at(step), which) {
            (None, _) => continue,
            (Some(StepValue::Float(value)), _) => value,
            (Some(StepValue::Histogram(_)), WhichK::Top | WhichK::Bottom) => {
                has_ignored = true;
                continue;
            }
            (Some(StepValue::Histogram(_)), WhichK::Any | WhichK::Ratio) => 0.0,
        };
        match which {
            WhichK::Ratio => {
                if is_in_ratio(param, series) {
                    heap.push(value, *index);
                }
            }
            _ if heap.len() < limit => heap.push(value, *index),
            WhichK::Top | WhichK::Bottom => heap.replace_worst(value, *index),
            WhichK::Any => break,
        }
    }
    has_ignored
}

/// True if the hash of the labels, as a share of all hashes, lies in the ratio: below it, or above its complement if it
/// is negative.
fn is_in_ratio(ratio: f64, series: &Series) -> bool {
    let ratio = ratio.clamp(-1.0, 1.0);
    let share = series.labels.hash64() as f64 / u64::MAX as f64;
    // A ratio of zero picks nothing, at whatever share.
    (ratio > 0.0 && share < ratio) || (ratio < 0.0 && share >= 1.0 + ratio)
}
