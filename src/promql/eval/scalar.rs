//! Values without series: numbers, operations on two scalars, and what has the same value at every step.

use std::sync::Arc;

use crate::promql::eval::column::{ColumnBuilder, HistogramStep, StepColumn};
use crate::promql::eval::error::EvalError;
use crate::promql::eval::exec::Exec;
use crate::promql::eval::matrix::Matrix;
use crate::promql::eval::samples::StepLoad;
use crate::promql::eval::steps::Steps;
use crate::promql::eval::tally::Tally;
use crate::promql::eval::{self};
use crate::promql::plan::{Node, ScalarOp};

/// A scalar computed for each step from nothing but the step.
pub(crate) fn per_step(exec: &mut Exec<'_>, steps: Steps, value: impl Fn(usize) -> f64) -> Result<Matrix, EvalError> {
    // Held before anything is allocated: the number of steps comes from the query.
    exec.samples.hold(steps.count())?;
    let held = exec.charge(steps.count().saturating_mul(8))?;
    exec.spend(steps.count())?;
    let values = (0..steps.count()).map(value).collect();
    drop(held);
    Matrix::scalar(exec, values)
}

/// A number literal.
pub(crate) fn number(exec: &mut Exec<'_>, value: f64, steps: Steps) -> Result<Matrix, EvalError> {
    per_step(exec, steps, |_| value)
}

/// An operation on two scalars; comparisons give 0 or 1.
pub(crate) fn binary(exec: &mut Exec<'_>, binary: &ScalarOp, steps: Steps) -> Result<Matrix, EvalError> {
    let before = exec.samples.current();
    let lhs = eval::eval(exec, &binary.sides.0, steps)?;
    let rhs = eval::eval(exec, &binary.sides.1, steps)?;
    let _held = exec.charge(steps.count().saturating_mul(8))?;
    let values = (0..steps.count()).map(|step| binary.op.scalar(lhs.scalar_at(step), rhs.scalar_at(step))).collect();
    let result = Matrix::scalar(exec, values)?;
    account(exec, before, &[&lhs, &rhs], &result, steps)?;
    Ok(result)
}

/// Counts samples as an operator does that gathers its inputs step by step, and settles for the result.
pub(crate) fn account(
    exec: &mut Exec<'_>,
    before: usize,
    inputs: &[&Matrix],
    result: &Matrix,
    steps: Steps,
) -> Result<(), EvalError> {
    let _held = exec.charge(StepLoad::len_for(steps).saturating_mul(6))?;
    let mut gathered = StepLoad::new(steps);
    for input in inputs {
        gathered.add(input);
    }
    let mut produced = StepLoad::new(steps);
    produced.add_output(result);
    gathered.check(&produced, &mut exec.samples)?;
    exec.samples.settle(before, result.sample_count());
    Ok(())
}

/// Something that has the same value at every step: evaluated at the first one, then repeated.
pub(crate) fn step_invariant(exec: &mut Exec<'_>, inner: &Node, steps: Steps) -> Result<Matrix, EvalError> {
    let around = Tally::begin(exec);
    let mut matrix = eval::eval(exec, inner, steps.first_only())?;
    Tally::end_invariant(exec, around, steps);
    let repeats = steps.count() - 1;
    if repeats == 0 {
        return Ok(matrix);
    }
    let mut builder = ColumnBuilder::new();
    for at in 0..matrix.series.len() {
        let column = &matrix.series[at].column;
        if let Some(histogram) = column.histogram_at(0).cloned() {
            exec.samples.hold(repeats.saturating_mul(histogram.sample_count()))?;
            exec.spend(repeats)?;
            matrix.grow(steps.count().saturating_mul(size_of::<HistogramStep>()))?;
            (0..steps.count()).for_each(|step| builder.push_histogram(step, Arc::clone(&histogram)));
            if let Some(column) = builder.finish() {
                matrix.series[at].column = column;
            }
            continue;
        }
        let Some(value) = column.get(0) else { continue };
        exec.samples.hold(repeats)?;
        exec.spend(repeats)?;
        matrix.grow(steps.count().saturating_mul(8))?;
        for step in 0..steps.count() {
            builder.push(step, value);
        }
        matrix.series[at].column = builder.finish().unwrap_or_else(|| StepColumn::single(0, value));
    }
    matrix.recount()?;
    Ok(matrix)
}
