//! Operations on a vector and a scalar, and the unary minus.

use crate::promql::ast::PosRange;
use crate::promql::eval::column::{ColumnBuilder, StepValue};
use crate::promql::eval::error::EvalError;
use crate::promql::eval::exec::{Exec, without_metadata};
use crate::promql::eval::ledger::Charge;
use crate::promql::eval::matrix::{Matrix, Series};
use crate::promql::eval::scalar::account;
use crate::promql::eval::steps::Steps;
use crate::promql::eval::{self};
use crate::promql::functions::ElementOp;
use crate::promql::functions::element::{CombineError, ElementValue, Operand};
use crate::promql::functions::note::Note;
use crate::promql::plan::{Node, VectorScalar};

/// Arithmetic with each element, or comparison: that keeps the element's own value, wherever it stands.
pub(crate) fn eval(
    exec: &mut Exec<'_>,
    binary: &VectorScalar,
    place: PosRange,
    steps: Steps,
) -> Result<Matrix, EvalError> {
    let before = exec.samples.current();
    let lhs = eval::eval(exec, &binary.sides.0, steps)?;
    let rhs = eval::eval(exec, &binary.sides.1, steps)?;
    let (vector, scalar) = if binary.scalar_is_left { (&rhs, &lhs) } else { (&lhs, &rhs) };
    let op = binary.op;
    let drops_name = op.changes_metric() || binary.return_bool;
    let mut result = Matrix::new(exec)?;
    let mut builder = ColumnBuilder::new();
    let mut failures = Failures { last: Vec::new(), held: exec.charge(0)? };
    for series in &vector.series {
        exec.spend(series.column.present())?;
        if op.is_trim() || series.column.has_histograms() {
            any_values(exec, binary, series, scalar, (&mut builder, &mut failures), steps)?;
            push(exec, &mut result, series, &mut builder, drops_name)?;
            continue;
        }
        series.column.for_each(|step, value| {
            let other = scalar.scalar_at(step);
            let (l, r) = if binary.scalar_is_left { (other, value) } else { (value, other) };
            if !op.is_comparison() || binary.return_bool {
                builder.push(step, op.scalar(l, r));
            } else if op.holds(l, r) {
                builder.push(step, value);
            }
        });
        push(exec, &mut result, series, &mut builder, drops_name)?;
    }
    for error in failures.last.iter().flatten() {
        note_failure(exec, op, error, place)?;
    }
    if drops_name {
        result.assemble(exec, steps)?;
    }
    account(exec, before, &[&lhs, &rhs], &result, steps)?;
    Ok(result)
}

/// Adds the series that was built from `series`, if there are values.
fn push(
    exec: &Exec<'_>,
    result: &mut Matrix,
    series: &Series,
    builder: &mut ColumnBuilder,
    drops_name: bool,
) -> Result<(), EvalError> {
    let Some(column) = builder.finish() else { return Ok(()) };
    let is_stripped = drops_name && !exec.opts.delayed_name_removal;
    let labels = if is_stripped { without_metadata(&series.labels) } else { series.labels.clone() };
    result.push(Series { labels, drop_name: series.drop_name || drops_name, column })
}

/// Why elements could not be combined: for each step the reason that came last, which alone is remarked.
struct Failures {
    last: Vec<Option<CombineError>>,
    held: Charge,
}

impl Failures {
    fn add(&mut self, step: usize, error: CombineError, steps: Steps) -> Result<(), EvalError> {
        if self.last.is_empty() {
            // The texts name an operator and two types.
            let bytes = steps.count().saturating_mul(size_of::<Option<CombineError>>() + 128);
            self.held.grow(bytes).map_err(|over| EvalError::Budget(over.to_string()))?;
            self.last.resize(steps.count(), None);
        }
        if let Some(last) = self.last.get_mut(step) {
            *last = Some(error);
        }
        Ok(())
    }
}

/// Combines the values of a series with histograms, step by step.
fn any_values(
    exec: &mut Exec<'_>,
    binary: &VectorScalar,
    series: &Series,
    scalar: &Matrix,
    (builder, failures): (&mut ColumnBuilder, &mut Failures),
    steps: Steps,
) -> Result<(), EvalError> {
    let op = binary.op;
    let mut held = exec.charge(0)?;
    for (step, value) in series.column.values() {
        let element = match value {
            StepValue::Float(value) => Operand::Float(value),
            StepValue::Histogram(histogram) => Operand::Histogram(histogram),
        };
        let other = Operand::Float(scalar.scalar_at(step));
        let (lhs, rhs) = if binary.scalar_is_left { (other, element) } else { (element, other) };
        let combined = match op.combine(lhs, rhs) {
            Ok(combined) => combined,
            Err(error) => {
                failures.add(step, error, steps)?;
                continue;
            }
        };
        if binary.return_bool {
            builder.push(step, f64::from(u8::from(combined.holds)));
        } else if op.is_comparison() {
            if combined.holds {
                builder.push_value(step, value);
            }
        } else {
            held.grow(combined.value.memory_len()).map_err(|over| EvalError::Budget(over.to_string()))?;
            push_element(builder, step, combined.value);
        }
    }
    Ok(())
}

/// Adds the value of an operation.
pub(crate) fn push_element(builder: &mut ColumnBuilder, step: usize, value: ElementValue) {
    match value {
        ElementValue::Float(value) => builder.push(step, value),
        ElementValue::Histogram(histogram) => builder.push_histogram(step, histogram),
    }
}

/// Remarks why two elements have not been combined.
pub(crate) fn note_failure(
    exec: &mut Exec<'_>,
    op: ElementOp,
    error: &CombineError,
    place: PosRange,
) -> Result<(), EvalError> {
    match error {
        CombineError::Types(text) => exec.annotations.info(text, place),
        CombineError::Schemas => {
            let text = format!("incompatible bucket layout encountered for binary operator {}", op.as_str());
            exec.annotations.warn(&text, place)
        }
        CombineError::ResetsCollide(used) => exec.annotations.note(Note::ResetsCollide(*used), "", place),
    }
}

/// The unary minus. It counts no samples.
pub(crate) fn negate(exec: &mut Exec<'_>, inner: &Node, steps: Steps) -> Result<Matrix, EvalError> {
    let mut matrix = eval::eval(exec, inner, steps)?;
    let delayed = exec.opts.delayed_name_removal;
    for series in &mut matrix.series {
        exec.spend(series.column.present())?;
        series.column.map(|value| -value);
        series.column.map_histograms(|histogram| histogram.mul(-1.0));
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
