//! `and`, `or`, `unless`: elements are kept or left out by what the other side has with the same matching labels.

use std::sync::Arc;

use crate::promql::eval::column::{ColumnBuilder, StepColumn, StepSet};
use crate::promql::eval::error::EvalError;
use crate::promql::eval::exec::Exec;
use crate::promql::eval::matching::Signatures;
use crate::promql::eval::matrix::{Matrix, Series};
use crate::promql::eval::scalar::account;
use crate::promql::eval::steps::Steps;
use crate::promql::eval::{self};
use crate::promql::plan::{SetOp, SetOperation};

/// Evaluates a set operation.
pub(crate) fn eval(exec: &mut Exec<'_>, set: &SetOperation, steps: Steps) -> Result<Matrix, EvalError> {
    let before = exec.samples.current();
    let lhs = eval::eval(exec, &set.sides.0, steps)?;
    let rhs = eval::eval(exec, &set.sides.1, steps)?;
    let mut signatures = Signatures::new(&set.matching);
    let left = signatures.of(exec, &lhs)?;
    let right = signatures.of(exec, &rhs)?;
    let mut result = Matrix::new(exec)?;
    match set.op {
        SetOp::And => {
            let present = Presence::of(exec, &rhs, &right, signatures.count(), steps)?;
            keep(exec, &lhs, &left, &mut result, |signature, step| present.contains(signature, step))?;
        }
        SetOp::Unless => {
            let present = Presence::of(exec, &rhs, &right, signatures.count(), steps)?;
            keep(exec, &lhs, &left, &mut result, |signature, step| !present.contains(signature, step))?;
        }
        SetOp::Or => {
            keep(exec, &lhs, &left, &mut result, |_, _| true)?;
            let present = Presence::of(exec, &lhs, &left, signatures.count(), steps)?;
            keep(exec, &rhs, &right, &mut result, |signature, step| !present.contains(signature, step))?;
            result.assemble(exec, steps)?;
        }
    }
    account(exec, before, &[&lhs, &rhs], &result, steps)?;
    Ok(result)
}

/// For each signature the steps at which one side has an element with it.
struct Presence {
    sets: Vec<Option<StepSet>>,
    _held: crate::promql::eval::ledger::Charge,
}

impl Presence {
    fn of(
        exec: &mut Exec<'_>,
        side: &Matrix,
        signatures: &[usize],
        count: usize,
        steps: Steps,
    ) -> Result<Self, EvalError> {
        let mut held = exec.charge(count.saturating_mul(size_of::<Option<StepSet>>()))?;
        let mut sets: Vec<Option<StepSet>> = vec![None; count];
        for (series, signature) in side.series.iter().zip(signatures) {
            exec.spend(series.column.present())?;
            let set = &mut sets[*signature];
            if set.is_none() {
                let bytes = StepSet::len_for(steps.count());
                held.grow(bytes).map_err(|over| EvalError::Budget(over.to_string()))?;
            }
            set.get_or_insert_with(|| StepSet::with_steps(steps.count())).insert_column(&series.column);
        }
        Ok(Self { sets, _held: held })
    }

    fn contains(&self, signature: usize, step: usize) -> bool {
        matches!(self.sets.get(signature), Some(Some(set)) if set.contains(step))
    }
}

/// Adds what remains of each series to `result`.
fn keep(
    exec: &mut Exec<'_>,
    side: &Matrix,
    signatures: &[usize],
    result: &mut Matrix,
    is_kept: impl Fn(usize, usize) -> bool,
) -> Result<(), EvalError> {
    let mut builder = ColumnBuilder::new();
    for (series, signature) in side.series.iter().zip(signatures) {
        exec.spend(series.column.present())?;
        if let Some(column) = filter(&series.column, &mut builder, |step| is_kept(*signature, step)) {
            result.push(Series { labels: series.labels.clone(), drop_name: series.drop_name, column })?;
        }
    }
    Ok(())
}

fn filter(column: &StepColumn, builder: &mut ColumnBuilder, is_kept: impl Fn(usize) -> bool) -> Option<StepColumn> {
    column.for_each(|step, value| {
        if is_kept(step) {
            builder.push(step, value);
        }
    });
    for (step, histogram) in column.histograms() {
        if is_kept(*step) {
            builder.push_histogram(*step, Arc::clone(histogram));
        }
    }
    builder.finish()
}
