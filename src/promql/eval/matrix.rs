//! What operators hand to each other: series with a column of values each, charged to the query's ledger.

use std::collections::HashMap;

use crate::model::labels::Labels;
use crate::promql::eval::column::{ColumnBuilder, StepColumn, StepValue};
use crate::promql::eval::error::EvalError;
use crate::promql::eval::exec::Exec;
use crate::promql::eval::ledger::{Charge, list_entry, shared, table_entry};
use crate::promql::eval::steps::Steps;

/// One series of an intermediate result.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    /// Its labels.
    pub(crate) labels: Labels,
    /// True if the name is to be dropped when the evaluation ends (delayed name removal).
    pub(crate) drop_name: bool,
    /// Its values.
    pub(crate) column: StepColumn,
}

impl Series {
    /// Bytes that the series holds, its place in a list included, and what looking for its labels among others takes.
    /// Shared labels count for each holder: what may be freed elsewhere is still held here.
    pub(crate) fn bytes(&self) -> usize {
        list_entry(size_of::<Self>())
            + table_entry(size_of::<&Labels>())
            + shared(self.labels.encoded_len())
            + self.column.heap_len()
    }
}

/// Series in the order of their evaluation. A scalar is one series without labels and with a value at every step.
#[derive(Debug)]
pub(crate) struct Matrix {
    /// The series.
    pub(crate) series: Vec<Series>,
    charge: Charge,
}

impl Matrix {
    /// An empty matrix.
    pub(crate) fn new(exec: &Exec<'_>) -> Result<Self, EvalError> {
        Ok(Self { series: Vec::new(), charge: exec.charge(0)? })
    }

    /// A scalar from its values at every step.
    pub(crate) fn scalar(exec: &Exec<'_>, values: Vec<f64>) -> Result<Self, EvalError> {
        let mut matrix = Self::new(exec)?;
        if let Some(column) = StepColumn::full(values) {
            matrix.push(Series { labels: Labels::empty(), drop_name: false, column })?;
        }
        Ok(matrix)
    }

    /// Adds a series.
    pub(crate) fn push(&mut self, series: Series) -> Result<(), EvalError> {
        self.charge.grow_ahead(series.bytes()).map_err(|over| EvalError::Budget(over.to_string()))?;
        self.series.push(series);
        Ok(())
    }

    /// The same series once more, if there is memory to spare for them.
    pub(crate) fn spare_copy(&self, exec: &Exec<'_>) -> Option<Self> {
        let charge = exec.ctx.ledger.charge_spare(self.series.iter().map(Series::bytes).sum())?;
        Some(Self { series: self.series.clone(), charge })
    }

    /// Takes over what others hold for series that are pushed to [`Self::series`] one by one.
    pub(crate) fn absorb(&mut self, charge: Charge) {
        self.charge.absorb(charge);
    }

    /// Charges `bytes` more, before they are allocated.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), EvalError> {
        self.charge.grow(bytes).map_err(|over| EvalError::Budget(over.to_string()))
    }

    /// Sets the charge to what the series hold now. Called after series were changed in place or taken out.
    pub(crate) fn recount(&mut self) -> Result<(), EvalError> {
        let bytes: usize = self.series.iter().map(Series::bytes).sum();
        let held = self.charge.bytes();
        if held < bytes {
            return self.grow(bytes - held);
        }
        self.charge.shrink(held - bytes);
        Ok(())
    }

    /// Takes the series out, to be changed into something else that is charged on its own.
    pub(crate) fn take_series(&mut self) -> Vec<Series> {
        std::mem::take(&mut self.series)
    }

    /// Number of values in all series, where a histogram counts for as many floats as it is large.
    pub(crate) fn sample_count(&self) -> usize {
        self.series.iter().map(|s| s.column.sample_count()).sum()
    }

    /// The value of a scalar at `step`; NaN where it has none, which only an empty evaluation does.
    pub(crate) fn scalar_at(&self, step: usize) -> f64 {
        self.series.first().and_then(|s| s.column.get(step)).unwrap_or(f64::NAN)
    }

    /// True if two series have the same labels.
    pub(crate) fn has_same_labelsets(&self) -> bool {
        match self.series.as_slice() {
            [] | [_] => false,
            [a, b] => a.labels == b.labels,
            many => {
                let mut seen =
                    hashbrown::HashSet::with_capacity_and_hasher(many.len(), foldhash::fast::RandomState::default());
                !many.iter().all(|series| seen.insert(&series.labels))
            }
        }
    }

    /// Joins series with the same labels into one. Errors if two of them have a value at the same step.
    pub(crate) fn merge_same_labelsets(&mut self, exec: &mut Exec<'_>) -> Result<(), EvalError> {
        if !self.has_same_labelsets() {
            return Ok(());
        }
        let entry_len = table_entry(size_of::<(Labels, usize)>()) + list_entry(size_of::<(Series, Vec<StepColumn>)>());
        let _held = exec.charge(self.series.len().saturating_mul(entry_len))?;
        let mut place_of: HashMap<Labels, usize> = HashMap::with_capacity(self.series.len());
        let mut merged: Vec<(Series, Vec<StepColumn>)> = Vec::new();
        for series in std::mem::take(&mut self.series) {
            match place_of.get(&series.labels).and_then(|place| merged.get_mut(*place)) {
                Some((joined, more)) => {
                    // The mark of the earliest element counts.
                    let earliest = more.iter().map(StepColumn::first).fold(joined.column.first(), usize::min);
                    if series.column.first() < earliest {
                        joined.drop_name = series.drop_name;
                    }
                    more.push(series.column);
                }
                None => {
                    place_of.insert(series.labels.clone(), merged.len());
                    merged.push((series, Vec::new()));
                }
            }
        }
        for (mut series, more) in merged {
            if !more.is_empty() {
                series.column = join_columns(exec, series.column, more)?;
            }
            self.series.push(series);
        }
        self.recount()
    }

    /// What Prometheus does when an operator assembles its output: in a range evaluation elements with the same labels
    /// form one series, and two at one step are an error; at a single step they are an error unless names go later.
    pub(crate) fn assemble(&mut self, exec: &mut Exec<'_>, steps: Steps) -> Result<(), EvalError> {
        if !steps.is_instant() {
            return self.merge_same_labelsets(exec);
        }
        if !exec.opts.delayed_name_removal && self.has_same_labelsets() {
            return Err(EvalError::same_labelset());
        }
        Ok(())
    }
}

fn join_columns(exec: &mut Exec<'_>, first: StepColumn, more: Vec<StepColumn>) -> Result<StepColumn, EvalError> {
    let mut points: Vec<(usize, StepValue<'_>)> = Vec::new();
    let total = first.present() + more.iter().map(StepColumn::present).sum::<usize>();
    let _held = exec.charge(total.saturating_mul(size_of::<(usize, StepValue<'_>)>()))?;
    points.reserve(total);
    for column in std::iter::once(&first).chain(&more) {
        exec.spend(column.present())?;
        points.extend(column.values());
    }
    points.sort_by_key(|(step, _)| *step);
    if points.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return Err(EvalError::same_labelset());
    }
    let mut builder = ColumnBuilder::new();
    for (step, value) in points {
        builder.push_value(step, value);
    }
    Ok(builder.finish().unwrap_or(first))
}
