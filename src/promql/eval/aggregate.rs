//! Aggregations that make new elements: for each group the members are folded in label order, series by series.

mod classed;
mod count_values;
mod histogram;

use crate::model::labels::{Labels, METRIC_NAME};
use crate::promql::eval::column::{ColumnBuilder, StepColumn};
use crate::promql::eval::error::EvalError;
use crate::promql::eval::exec::Exec;
use crate::promql::eval::ledger::{allocated, list_entry, shared, table_entry};
use crate::promql::eval::matching::write_key;
use crate::promql::eval::matrix::{Matrix, Series};
use crate::promql::eval::range::note_invalid_quantile;
use crate::promql::eval::steps::Steps;
use crate::promql::eval::{self};
use crate::promql::functions::kahan::{KahanMean, KahanSum};
use crate::promql::functions::math::{go_max, go_min};
use crate::promql::functions::quantile::quantile;
use crate::promql::plan::{Aggregate, Fold, Grouping, Node};

/// Evaluates an aggregation.
pub(crate) fn eval(exec: &mut Exec<'_>, aggregate: &Aggregate, steps: Steps) -> Result<Matrix, EvalError> {
    if let Fold::CountValues { label } = &aggregate.fold {
        return count_values::eval(exec, aggregate, label, steps);
    }
    if let Some(result) = classed::eval(exec, aggregate, steps)? {
        return Ok(result);
    }
    let before = exec.samples.current();
    let param = match &aggregate.param {
        Some(node) => Some((eval::eval(exec, node, steps)?, node)),
        None => None,
    };
    let input = eval::eval(exec, &aggregate.inner, steps)?;
    if let Some((q, node)) = &param {
        note_invalid_quantiles(exec, q, node, steps)?;
    }
    let groups = Groups::of(exec, &input, &aggregate.grouping)?;
    let mut folder = Folder { input: &input, steps, builder: ColumnBuilder::new() };
    let mut result = Matrix::new(exec)?;
    for (labels, members) in groups.into_parts() {
        let has_histograms = members.iter().any(|index| input.series[*index].column.has_histograms());
        let of_histograms =
            has_histograms && !matches!(aggregate.fold, Fold::Min | Fold::Max | Fold::Stdvar | Fold::Stddev);
        let floats = match &aggregate.fold {
            Fold::Quantile => {
                let q = param.as_ref().map(|(q, _)| q);
                folder.quantiles(exec, &members, |step| q.map_or(f64::NAN, |q| q.scalar_at(step)))?
            }
            _ if of_histograms => None,
            fold => fold_with(fold, Members { folder: &mut folder, exec, members: &members }).transpose()?.flatten(),
        };
        let column = if has_histograms {
            histogram::fold(exec, &aggregate.fold, &input, &members, aggregate.inner.range, floats)?
        } else {
            floats
        };
        if let Some(column) = column {
            // The group's name goes if that of a member goes which it has at its last step.
            let last = column.last();
            let mut at_last = members.iter().filter(|i| input.series[**i].column.has(last));
            let drop_name = at_last.any(|i| input.series[*i].drop_name);
            result.push(Series { labels, drop_name, column })?;
        }
    }
    exec.samples.settle(before, result.sample_count());
    Ok(result)
}

/// Whatever folds floats, given the state in which a fold stands: made by the first value, changed by each that follows, and ended.
trait Folding {
    type Output;
    fn run<S: Copy>(
        self,
        first: impl Fn(f64) -> S,
        add: impl Fn(&mut S, f64),
        finish: impl Fn(S) -> f64,
    ) -> Self::Output;
}

/// Folds floats in order; `None` for what is no fold of one value after the other.
fn fold_with<F: Folding>(fold: &Fold, folding: F) -> Option<F::Output> {
    Some(match fold {
        Fold::Sum => folding.run(KahanSum::of, |s, v| *s = s.plus(v), |s| s.total()),
        Fold::Avg => folding.run(KahanMean::of, KahanMean::add, KahanMean::mean),
        Fold::Count => folding.run(|_| 1.0, |n, _| *n += 1.0, |n| n),
        Fold::Group => folding.run(|_| (), |(), _| {}, |()| 1.0),
        Fold::Min => folding.run(|v| v, smaller, |m| m),
        Fold::Max => folding.run(|v| v, larger, |m| m),
        Fold::Stdvar => folding.run(Spread::of, Spread::add, Spread::variance),
        Fold::Stddev => folding.run(Spread::of, Spread::add, |s| s.variance().sqrt()),
        Fold::Quantile | Fold::CountValues { .. } => return None,
    })
}

/// The smaller value; a number rather than NaN.
fn smaller(min: &mut f64, value: f64) {
    if *min > value || min.is_nan() {
        *min = value;
    }
}

/// The larger value; a number rather than NaN.
fn larger(max: &mut f64, value: f64) {
    if *max < value || max.is_nan() {
        *max = value;
    }
}

fn note_invalid_quantiles(exec: &mut Exec<'_>, q: &Matrix, node: &Node, steps: Steps) -> Result<(), EvalError> {
    let (low, high, has_nan) = extent(exec, q, steps)?;
    if has_nan {
        note_invalid_quantile(exec, f64::NAN, node.range)?;
    }
    // Each bound is looked at on its own side: the extent of infinities has a finite end.
    if high > 1.0 {
        note_invalid_quantile(exec, high, node.range)?;
    }
    if low < 0.0 {
        note_invalid_quantile(exec, low, node.range)?;
    }
    Ok(())
}

/// Smallest and largest value of a scalar, NaN if one value is, and whether one is.
pub(crate) fn extent(exec: &mut Exec<'_>, scalar: &Matrix, steps: Steps) -> Result<(f64, f64, bool), EvalError> {
    exec.spend(steps.count())?;
    let (mut low, mut high, mut has_nan) = (f64::MAX, f64::MIN, false);
    for step in 0..steps.count() {
        let value = scalar.scalar_at(step);
        low = go_min(low, value);
        high = go_max(high, value);
        has_nan |= value.is_nan();
    }
    Ok((low, high, has_nan))
}

/// What a group takes beside its key and its labels: its places in lists and in the table, and the first members.
const GROUP_LEN: usize = list_entry(size_of::<(Labels, Vec<usize>)>())
    + table_entry(size_of::<(Box<[u8]>, usize)>())
    + 4 * size_of::<usize>();

/// Series by group, in the order of their first members.
pub(crate) struct Groups {
    labels: Vec<Labels>,
    members: Vec<Vec<usize>>,
    _held: crate::promql::eval::ledger::Charge,
}

impl Groups {
    /// Groups the series of a matrix.
    pub(crate) fn of(exec: &mut Exec<'_>, input: &Matrix, grouping: &Grouping) -> Result<Self, EvalError> {
        let mut held = exec.charge(input.series.len() * list_entry(size_of::<usize>()))?;
        let mut groups: (Vec<Labels>, Vec<Vec<usize>>) = (Vec::new(), Vec::new());
        let mut number_of: hashbrown::HashMap<Box<[u8]>, usize, foldhash::fast::RandomState> =
            hashbrown::HashMap::default();
        let mut key = Vec::new();
        for (index, series) in input.series.iter().enumerate() {
            exec.spend(1)?;
            write_key(&series.labels, &grouping.labels, !grouping.without, &mut key);
            let number = match number_of.get(key.as_slice()) {
                Some(number) => *number,
                None => {
                    let next = groups.0.len();
                    number_of.insert(key.as_slice().into(), next);
                    let labels = group_labels(&series.labels, grouping);
                    let bytes = allocated(key.len()) + shared(labels.encoded_len()) + GROUP_LEN;
                    held.grow(bytes).map_err(|over| EvalError::Budget(over.to_string()))?;
                    groups.0.push(labels);
                    groups.1.push(Vec::new());
                    next
                }
            };
            groups.1[number].push(index);
        }
        Ok(Self { labels: groups.0, members: groups.1, _held: held })
    }

    /// The groups' members.
    pub(crate) fn members(&self) -> &[Vec<usize>] {
        &self.members
    }

    fn into_parts(self) -> impl Iterator<Item = (Labels, Vec<usize>)> {
        self.labels.into_iter().zip(self.members)
    }
}

/// The labels that the members of a group have in common.
pub(crate) fn group_labels(labels: &Labels, grouping: &Grouping) -> Labels {
    let is_named = |name: &[u8]| grouping.labels.binary_search_by(|n| n.as_bytes().cmp(name)).is_ok();
    if grouping.without {
        return labels.filtered(|name| name != METRIC_NAME.as_bytes() && !is_named(name));
    }
    labels.filtered(is_named)
}

/// Population variance without a second pass (Welford).
#[derive(Clone, Copy)]
struct Spread {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Spread {
    fn of(value: f64) -> Self {
        Self { count: 1.0, mean: value, squares: if value.is_finite() { 0.0 } else { f64::NAN } }
    }

    fn add(&mut self, value: f64) {
        self.count += 1.0;
        let delta = value - self.mean;
        self.mean += delta / self.count;
        self.squares += delta * (value - self.mean);
    }

    fn variance(self) -> f64 {
        self.squares / self.count
    }
}

/// Folds the members of one group after the other.
struct Folder<'a> {
    input: &'a Matrix,
    steps: Steps,
    builder: ColumnBuilder,
}

/// The members of a group, to be folded.
struct Members<'a, 'b, 'c> {
    folder: &'a mut Folder<'b>,
    exec: &'a mut Exec<'c>,
    members: &'a [usize],
}

impl Folding for Members<'_, '_, '_> {
    type Output = Result<Option<StepColumn>, EvalError>;
    fn run<S: Copy>(
        self,
        first: impl Fn(f64) -> S,
        add: impl Fn(&mut S, f64),
        finish: impl Fn(S) -> f64,
    ) -> Self::Output {
        self.folder.fold(self.exec, self.members, first, add, finish)
    }
}

impl Folder<'_> {
    /// Folds the values of the members at each step: the first makes a state, the others are added to it.
    fn fold<S: Copy>(
        &mut self,
        exec: &mut Exec<'_>,
        members: &[usize],
        first: impl Fn(f64) -> S,
        add: impl Fn(&mut S, f64),
        finish: impl Fn(S) -> f64,
    ) -> Result<Option<StepColumn>, EvalError> {
        let columns = || members.iter().map(|index| &self.input.series[*index].column);
        let Some(from) = columns().map(StepColumn::first).min() else { return Ok(None) };
        let to = columns().map(StepColumn::last).max().map_or(from, |last| last + 1);
        let _held = exec.charge((to - from).saturating_mul(size_of::<Option<S>>() + ColumnBuilder::STEP_LEN))?;
        let mut states: Vec<Option<S>> = vec![None; to - from];
        for column in columns() {
            exec.spend(column.present())?;
            column.for_each(|step, value| match &mut states[step - from] {
                Some(state) => add(state, value),
                empty => *empty = Some(first(value)),
            });
        }
        for (at, state) in states.into_iter().enumerate() {
            if let Some(state) = state {
                self.builder.push(from + at, finish(state));
            }
        }
        Ok(self.builder.finish())
    }

    /// The quantile of the members' values at each step.
    fn quantiles(
        &mut self,
        exec: &mut Exec<'_>,
        members: &[usize],
        q: impl Fn(usize) -> f64,
    ) -> Result<Option<StepColumn>, EvalError> {
        let _held = exec.charge(members.len() * 8 + ColumnBuilder::len_for(self.steps.count()))?;
        let mut values = Vec::with_capacity(members.len());
        for step in 0..self.steps.count() {
            exec.spend(members.len())?;
            values.clear();
            values.extend(members.iter().filter_map(|index| self.input.series[*index].column.get(step)));
            if !values.is_empty() {
                self.builder.push(step, quantile(q(step), &mut values));
            }
        }
        Ok(self.builder.finish())
    }
}
