//! `count_values`: one element for each value that the members of a group have.

use std::collections::HashMap;

use crate::model::go;
use crate::model::labels::Labels;
use crate::promql::eval::column::{ColumnBuilder, StepValue};
use crate::promql::eval::error::EvalError;
use crate::promql::eval::exec::Exec;
use crate::promql::eval::ledger::{Charge, OverBudget, allocated, list_entry, shared, table_entry};
use crate::promql::eval::matrix::{Matrix, Series};
use crate::promql::eval::scalar::account;
use crate::promql::eval::steps::Steps;
use crate::promql::eval::{self};
use crate::promql::functions::label::with_label;
use crate::promql::plan::{Aggregate, Grouping};

/// Evaluates `count_values`.
pub(super) fn eval(exec: &mut Exec<'_>, aggregate: &Aggregate, label: &str, steps: Steps) -> Result<Matrix, EvalError> {
    let before = exec.samples.current();
    let input = eval::eval(exec, &aggregate.inner, steps)?;
    // The members' own value of the label does not count, the counted value takes its place.
    let mut named = aggregate.grouping.labels.clone();
    let counts_all_values = aggregate.grouping.without && named.iter().any(|name| name == label);
    if aggregate.grouping.without {
        named.push(label.to_owned());
        named.sort_unstable();
    } else {
        named.retain(|name| name != label);
    }
    let grouping = Grouping { labels: named, without: aggregate.grouping.without };
    let groups = super::Groups::of(exec, &input, &grouping)?;
    let mut counters =
        Counters { by_value: HashMap::new(), by_text: HashMap::new(), all: Vec::new(), held: exec.charge(0)? };
    for step in 0..steps.count() {
        for (group, members) in groups.members().iter().enumerate() {
            exec.spend(members.len())?;
            for index in members {
                let column = &input.series[*index].column;
                let Some(value) = column.value_at(step) else { continue };
                let base = groups.labels.get(group).map_or_else(Labels::empty, Labels::clone);
                match value {
                    _ if counts_all_values => counters.count_float(step, group, 0.0, || base)?,
                    StepValue::Float(value) => {
                        let labels = || with_label(&base, label, &go::format_float_f(value));
                        counters.count_float(step, group, value, labels)?;
                    }
                    StepValue::Histogram(histogram) => {
                        counters.count_text(step, group, histogram.to_string(), &base, label)?;
                    }
                }
            }
        }
    }
    let mut result = counters.finish(exec)?;
    result.assemble(exec, steps)?;
    account(exec, before, &[&input], &result, steps)?;
    Ok(result)
}

struct Counters {
    /// Group and bits of the value → index of the counter.
    by_value: HashMap<(usize, u64), usize>,
    /// Group and text of a histogram → index of the counter.
    by_text: HashMap<(usize, String), usize>,
    all: Vec<Counter>,
    held: Charge,
}

struct Counter {
    labels: Labels,
    column: ColumnBuilder,
    step: usize,
    count: f64,
}

/// What a counter takes beside its labels: its place in the list and in a table, and the first steps of its column.
const COUNTER_LEN: usize = list_entry(size_of::<Counter>()) + table_entry(size_of::<((usize, String), usize)>()) + 96;

fn over(over: OverBudget) -> EvalError {
    EvalError::Budget(over.to_string())
}

impl Counters {
    fn count_float(
        &mut self,
        step: usize,
        group: usize,
        value: f64,
        labels: impl FnOnce() -> Labels,
    ) -> Result<(), EvalError> {
        let bits = if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() };
        let index = match self.by_value.get(&(group, bits)) {
            Some(index) => *index,
            None => {
                let index = self.insert(step, labels())?;
                self.by_value.insert((group, bits), index);
                index
            }
        };
        self.count(step, index)
    }

    fn count_text(
        &mut self,
        step: usize,
        group: usize,
        text: String,
        base: &Labels,
        label: &str,
    ) -> Result<(), EvalError> {
        let key = (group, text);
        let index = match self.by_text.get(&key) {
            Some(index) => *index,
            None => {
                let index = self.insert(step, with_label(base, label, &key.1))?;
                self.held.grow(allocated(key.1.len())).map_err(over)?;
                self.by_text.insert(key, index);
                index
            }
        };
        self.count(step, index)
    }

    fn insert(&mut self, step: usize, labels: Labels) -> Result<usize, EvalError> {
        self.held.grow(shared(labels.encoded_len()) + COUNTER_LEN).map_err(over)?;
        self.all.push(Counter { labels, column: ColumnBuilder::new(), step, count: 0.0 });
        Ok(self.all.len() - 1)
    }

    fn count(&mut self, step: usize, index: usize) -> Result<(), EvalError> {
        let counter = &mut self.all[index];
        if counter.step != step {
            // Steps without this value take room in the column as well.
            self.held.grow((step - counter.step).saturating_mul(ColumnBuilder::STEP_LEN)).map_err(over)?;
            counter.column.push(counter.step, counter.count);
            (counter.step, counter.count) = (step, 0.0);
        }
        counter.count += 1.0;
        Ok(())
    }

    fn finish(self, exec: &Exec<'_>) -> Result<Matrix, EvalError> {
        let mut result = Matrix::new(exec)?;
        for mut counter in self.all {
            counter.column.push(counter.step, counter.count);
            if let Some(column) = counter.column.finish() {
                result.push(Series { labels: counter.labels, drop_name: false, column })?;
            }
        }
        Ok(result)
    }
}
