//! `label_replace` and `label_join`: they change label sets only. What they build is charged before it is built, so that
//! nested calls, whose values can double at each level, end at the limit instead of filling memory.

use crate::model::labels::{METRIC_NAME, STRING_LEN_MAX};
use crate::promql::eval::error::EvalError;
use crate::promql::eval::exec::Exec;
use crate::promql::eval::matrix::Matrix;
use crate::promql::eval::steps::Steps;
use crate::promql::eval::{self};
use crate::promql::functions::label::with_label;
use crate::promql::functions::{LabelJoin, LabelReplace};
use crate::promql::plan::Call;

/// `label_replace`: series whose source label does not match stay as they are.
pub(super) fn replace(
    exec: &mut Exec<'_>,
    call: &Call,
    args: &LabelReplace,
    steps: Steps,
) -> Result<Matrix, EvalError> {
    let mut matrix = input(exec, call, steps)?;
    for at in 0..matrix.series.len() {
        let labels = &matrix.series[at].labels;
        // Each reference in the replacement can stand for the whole source value.
        let source_len = labels.get(&args.source).map_or(0, str::len);
        let longest = args.replacement.len().saturating_mul(source_len.max(1));
        let scratch = exec.charge(longest)?;
        let value = args.value(labels);
        drop(scratch);
        if let Some(value) = value {
            relabel(exec, &mut matrix, at, &args.target, &value)?;
        }
    }
    finish(exec, matrix)
}

/// `label_join`
pub(super) fn join(exec: &mut Exec<'_>, call: &Call, args: &LabelJoin, steps: Steps) -> Result<Matrix, EvalError> {
    let mut matrix = input(exec, call, steps)?;
    for at in 0..matrix.series.len() {
        let len = args.value_len(&matrix.series[at].labels);
        let _scratch = exec.charge(len)?;
        let value = args.value(&matrix.series[at].labels);
        relabel(exec, &mut matrix, at, &args.target, &value)?;
    }
    finish(exec, matrix)
}

fn input(exec: &mut Exec<'_>, call: &Call, steps: Steps) -> Result<Matrix, EvalError> {
    match call.args.as_slice() {
        [vector] => eval::eval(exec, vector, steps),
        _ => Err(EvalError::Execution("label function without its vector".to_owned())),
    }
}

fn relabel(exec: &mut Exec<'_>, matrix: &mut Matrix, at: usize, target: &str, value: &str) -> Result<(), EvalError> {
    if value.len() > STRING_LEN_MAX || target.len() > STRING_LEN_MAX {
        return Err(EvalError::label_too_long());
    }
    exec.spend(1 + value.len() / 64)?;
    // Room for the new set beside the old one; while it is built there is a copy of it.
    let new_len = matrix.series[at].labels.encoded_len() + target.len() + value.len() + 8;
    let _copy = exec.charge(new_len)?;
    matrix.grow(new_len)?;
    let series = &mut matrix.series[at];
    series.labels = with_label(&series.labels, target, value);
    if target == METRIC_NAME {
        series.drop_name = false;
    }
    Ok(())
}

fn finish(exec: &mut Exec<'_>, mut matrix: Matrix) -> Result<Matrix, EvalError> {
    matrix.recount()?;
    matrix.merge_same_labelsets(exec)?;
    Ok(matrix)
}
