//! Operations on a vector and a scalar, and the unary minus.

use crate::promql::eval::column::ColumnBuilder;
use crate::promql::eval::error::EvalError;
use crate::promql::eval::exec::{Exec, without_metadata};
use crate::promql::eval::matrix::{Matrix, Series};
use crate::promql::eval::scalar::account;
use crate::promql::eval::steps::Steps;
use crate::promql::eval::{self};
use crate::promql::plan::{Node, VectorScalar};

/// Arithmetic with each element, or comparison: that keeps the element's own value, wherever it stands.
pub(crate) fn eval(exec: &mut Exec<'_>, binary: &VectorScalar, steps: Steps) -> Result<Matrix, EvalError> {
    let before = exec.samples.current();
    let lhs = eval::eval(exec, &binary.sides.0, steps)?;
    let rhs = eval::eval(exec, &binary.sides.1, steps)?;
    let (vector, scalar) = if binary.scalar_is_left { (&rhs, &lhs) } else { (&lhs, &rhs) };
    let (op, delayed) = (binary.op, exec.opts.delayed_name_removal);
    let drops_name = op.changes_metric() || binary.return_bool;
    let mut result = Matrix::new(exec)?;
    let mut builder = ColumnBuilder::new();
    for series in &vector.series {
        exec.spend(series.column.present())?;
        series.column.for_each(|step, value| {
            let other = scalar.scalar_at(step);
            let (l, r) = if binary.scalar_is_left { (other, value) } else { (value, other) };
            if !op.is_comparison() || binary.return_bool {
                builder.push(step, op.scalar(l, r));
            } else if op.holds(l, r) {
                builder.push(step, value);
            }
        });
        if let Some(column) = builder.finish() {
            let labels = if drops_name && !delayed { without_metadata(&series.labels) } else { series.labels.clone() };
            result.push(Series { labels, drop_name: series.drop_name || drops_name, column })?;
        }
    }
    if drops_name {
        result.assemble(exec, steps)?;
    }
    account(exec, before, &[&lhs, &rhs], &result, steps)?;
    Ok(result)
}

/// The unary minus. It counts no samples.
pub(crate) fn negate(exec: &mut Exec<'_>, inner: &Node, steps: Steps) -> Result<Matrix, EvalError> {
    let mut matrix = eval::eval(exec, inner, steps)?;
    let delayed = exec.opts.delayed_name_removal;
    for series in &mut matrix.series {
        exec.spend(series.column.present())?;
        series.column.map(|value| -value);
        series.drop_name = true;
        if !delayed {
            series.labels = without_metadata(&series.labels);
        }
    }
    if !delayed {
        matrix.merge_same_labelsets(exec)?;
    }
    Ok(matrix)
}
