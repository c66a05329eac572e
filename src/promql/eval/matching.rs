//! Operations on two vectors whose elements find each other by their labels.

mod stepwise;

use std::collections::HashMap;

use crate::model::labels::{Labels, METRIC_NAME};
use crate::promql::ast::PosRange;
use crate::promql::eval::column::{ColumnBuilder, StepSet};
use crate::promql::eval::error::EvalError;
use crate::promql::eval::exec::{Exec, without_metadata};
use crate::promql::eval::ledger::{Charge, OverBudget, allocated, shared, table_entry};
use crate::promql::eval::matrix::{Matrix, Series};
use crate::promql::eval::samples::StepLoad;
use crate::promql::eval::scalar::account;
use crate::promql::eval::steps::Steps;
use crate::promql::eval::{self};
use crate::promql::functions::label::{with_label, with_labels_of};
use crate::promql::plan::{Matching, Vectors};

/// Evaluates an operation on two vectors.
pub(crate) fn eval(exec: &mut Exec<'_>, binary: &Vectors, place: PosRange, steps: Steps) -> Result<Matrix, EvalError> {
    let before = exec.samples.current();
    let lhs = eval::eval(exec, &binary.sides.0, steps)?;
    let rhs = eval::eval(exec, &binary.sides.1, steps)?;
    let (many, one) = if binary.matching.one_side_is_left { (&rhs, &lhs) } else { (&lhs, &rhs) };
    let mut signatures = Signatures::new(&binary.matching);
    let many_signatures = signatures.of(exec, many)?;
    let one_signatures = signatures.of(exec, one)?;
    let count = signatures.count();
    let _held = exec.charge(count.saturating_mul(32) + StepLoad::len_for(steps).saturating_mul(4))?;
    let has_fill = binary.matching.fill.lhs.is_some() || binary.matching.fill.rhs.is_some();
    let has_histograms = |side: &Matrix| side.series.iter().any(|series| series.column.has_histograms());
    if has_fill || binary.op.is_trim() || has_histograms(many) || has_histograms(one) {
        let sides = stepwise::Sides {
            many,
            one,
            many_signatures: &many_signatures,
            one_signatures: &one_signatures,
            signature_count: count,
        };
        let mut result = stepwise::eval(exec, binary, sides, place, steps)?;
        result.assemble(exec, steps)?;
        account(exec, before, &[&lhs, &rhs], &result, steps)?;
        return Ok(result);
    }
    let mut loads = (StepLoad::new(steps), StepLoad::new(steps));
    loads.0.add(many);
    loads.1.add(one);
    let partners = Partners::of(&one_signatures, count);
    let duplicate = partners.first_duplicate(exec, one, &loads, steps)?;
    let mut join = Join {
        binary,
        many,
        one,
        crowded: crowded(&many_signatures, count),
        taken: hashbrown::HashMap::default(),
        first_clash: None,
        held: exec.charge(0)?,
        result: Matrix::new(exec)?,
    };
    let mut builder = ColumnBuilder::new();
    for (index, signature) in many_signatures.iter().enumerate() {
        for partner in partners.with(*signature) {
            join.pair(exec, &mut builder, index, partner, *signature, steps)?;
        }
    }
    // The error of the earliest step counts; at one step the duplicate is found first.
    let fault = match (duplicate, join.first_clash) {
        (Some((step, _)), Some(clash)) if clash < step => Some((clash, clash_error(&binary.matching))),
        (Some((step, pair)), _) => Some((step, duplicate_error(&binary.matching, one, pair))),
        (None, Some(clash)) => Some((clash, clash_error(&binary.matching))),
        (None, None) => None,
    };
    if let Some((step, error)) = fault {
        // Elements are counted as they are gathered, which is before they are matched.
        loads.0.probe_up_to(step, &loads.1, &mut exec.samples)?;
        return Err(error);
    }
    let mut result = join.result;
    result.assemble(exec, steps)?;
    account(exec, before, &[&lhs, &rhs], &result, steps)?;
    Ok(result)
}

/// Numbers for the label values that have to agree.
pub(crate) struct Signatures<'a> {
    matching: &'a Matching,
    numbers: hashbrown::HashMap<Box<[u8]>, usize, foldhash::fast::RandomState>,
    held: Option<Charge>,
}

impl<'a> Signatures<'a> {
    /// No signatures yet.
    pub(crate) fn new(matching: &'a Matching) -> Self {
        Self { matching, numbers: hashbrown::HashMap::default(), held: None }
    }

    /// The signature of each series; series of both sides with the same one match.
    pub(crate) fn of(&mut self, exec: &mut Exec<'_>, matrix: &Matrix) -> Result<Vec<usize>, EvalError> {
        let mut key = Vec::new();
        let bytes = allocated(matrix.series.len() * size_of::<usize>());
        let over = |over: OverBudget| EvalError::Budget(over.to_string());
        let held = match &mut self.held {
            Some(held) => {
                held.grow(bytes).map_err(over)?;
                held
            }
            empty => empty.insert(exec.charge(bytes)?),
        };
        let mut of_series = Vec::with_capacity(matrix.series.len());
        for series in &matrix.series {
            exec.spend(1)?;
            write_key(&series.labels, &self.matching.labels, self.matching.on, &mut key);
            let number = match self.numbers.get(key.as_slice()) {
                Some(number) => *number,
                None => {
                    let next = self.numbers.len();
                    let bytes = allocated(key.len()) + table_entry(size_of::<(Box<[u8]>, usize)>());
                    held.grow(bytes).map_err(over)?;
                    self.numbers.insert(key.as_slice().into(), next);
                    next
                }
            };
            of_series.push(number);
        }
        Ok(of_series)
    }

    /// Number of different signatures.
    pub(crate) fn count(&self) -> usize {
        self.numbers.len()
    }
}

/// So few names are looked for without regard to their order.
const FEW_NAMES: usize = 4;

/// Writes the labels in `names`, which are sorted (`keep`), or all others but the metric name, in a form that is equal for
/// equal labels only: as a label set encodes them.
pub(crate) fn write_key(labels: &Labels, names: &[String], keep: bool, key: &mut Vec<u8>) {
    key.clear();
    if keep && names.len() <= FEW_NAMES {
        // Lengths mostly differ, and soon all are found.
        let mut left = names.len();
        let mut pairs = labels.iter_raw();
        while 0 < left
            && let Some(pair) = pairs.next()
        {
            if names.iter().any(|name| name.as_bytes() == pair.name) {
                key.extend_from_slice(pair.encoded);
                left -= 1;
            }
        }
        return;
    }
    let mut names = names.iter().map(String::as_bytes).peekable();
    for pair in labels.iter_raw() {
        while names.next_if(|name| *name < pair.name).is_some() {}
        let is_named = names.peek() == Some(&pair.name);
        if is_named == keep && (keep || pair.name != METRIC_NAME.as_bytes()) {
            key.extend_from_slice(pair.encoded);
        }
    }
}

/// A step, and two series that have the same signature there: the later one first.
type Duplicate = (usize, (usize, usize));

/// Series of the one side by signature. Almost always there is at most one with each.
struct Partners {
    first: Vec<Option<usize>>,
    more: HashMap<usize, Vec<usize>>,
}

impl Partners {
    fn of(signatures: &[usize], count: usize) -> Self {
        let mut partners = Self { first: vec![None; count], more: HashMap::new() };
        for (index, signature) in signatures.iter().enumerate() {
            match &mut partners.first[*signature] {
                empty @ None => *empty = Some(index),
                Some(_) => partners.more.entry(*signature).or_default().push(index),
            }
        }
        partners
    }

    fn with(&self, signature: usize) -> impl Iterator<Item = usize> + '_ {
        let more = self.more.get(&signature).into_iter().flatten().copied();
        self.first.get(signature).copied().flatten().into_iter().chain(more)
    }

    /// The first step at which two series of the one side have the same signature, and the two. Where either side has no
    /// elements at all, nothing is matched and nothing is wrong.
    fn first_duplicate(
        &self,
        exec: &mut Exec<'_>,
        one: &Matrix,
        loads: &(StepLoad, StepLoad),
        steps: Steps,
    ) -> Result<Option<Duplicate>, EvalError> {
        let mut found: Option<Duplicate> = None;
        for signature in self.more.keys() {
            let _held = exec.charge(StepSet::len_for(steps.count()))?;
            let mut seen = StepSet::with_steps(steps.count());
            for index in self.with(*signature) {
                let column = &one.series[index].column;
                exec.spend(column.present())?;
                column.for_each(|step, _| {
                    let is_second = !seen.insert(step);
                    if is_second && !loads.0.is_empty_at(step) && !loads.1.is_empty_at(step) {
                        let holds = |i: &usize| one.series[*i].column.get(step).is_some();
                        let first = self.with(*signature).find(holds).unwrap_or(index);
                        let candidate = (step, (index, first));
                        found = Some(found.map_or(candidate, |known| known.min(candidate)));
                    }
                });
            }
        }
        Ok(found)
    }
}

/// For each signature whether several series of the many side have it.
fn crowded(signatures: &[usize], count: usize) -> Vec<bool> {
    let mut seen = vec![false; count];
    let mut crowded = vec![false; count];
    for signature in signatures {
        crowded[*signature] = std::mem::replace(&mut seen[*signature], true);
    }
    crowded
}

/// The join as it goes on.
struct Join<'a> {
    binary: &'a Vectors,
    many: &'a Matrix,
    one: &'a Matrix,
    crowded: Vec<bool>,
    /// Steps at which a crowded signature, with the result's labels unless matching is one-to-one, has been matched.
    taken: hashbrown::HashMap<(usize, Labels), StepSet, foldhash::fast::RandomState>,
    first_clash: Option<usize>,
    held: Charge,
    result: Matrix,
}

impl Join<'_> {
    /// Joins two series at the steps at which both have an element.
    fn pair(
        &mut self,
        exec: &mut Exec<'_>,
        builder: &mut ColumnBuilder,
        many: usize,
        one: usize,
        signature: usize,
        steps: Steps,
    ) -> Result<(), EvalError> {
        let binary = self.binary;
        let (many, one) = (&self.many.series[many], &self.one.series[one]);
        let labels = result_labels(exec, binary, &many.labels, &one.labels);
        let taken = if self.crowded[signature] {
            let labels = if binary.matching.is_one_to_one { Labels::empty() } else { labels.clone() };
            let entry_len = table_entry(size_of::<((usize, Labels), StepSet)>());
            let bytes = allocated(StepSet::len_for(steps.count())) + shared(labels.encoded_len()) + entry_len;
            self.held.grow(bytes).map_err(|over| EvalError::Budget(over.to_string()))?;
            Some(self.taken.entry((signature, labels)).or_insert_with(|| StepSet::with_steps(steps.count())))
        } else {
            None
        };
        let mut clash = None;
        exec.spend(many.column.present())?;
        let mut each = |step: usize, many_value: f64, taken: Option<&mut StepSet>| {
            let Some(one_value) = one.column.get(step) else { return };
            if taken.is_some_and(|set| !set.insert(step)) {
                clash = clash.or(Some(step));
            }
            let (l, r) =
                if binary.matching.one_side_is_left { (one_value, many_value) } else { (many_value, one_value) };
            if !binary.op.is_comparison() || binary.return_bool {
                builder.push(step, binary.op.scalar(l, r));
            } else if binary.op.holds(l, r) {
                builder.push(step, l);
            }
        };
        match taken {
            Some(set) => many.column.for_each(|step, value| each(step, value, Some(&mut *set))),
            None => many.column.for_each(|step, value| each(step, value, None)),
        }
        self.first_clash = match (self.first_clash, clash) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        match builder.finish() {
            Some(column) => self.result.push(Series { labels, drop_name: binary.return_bool, column }),
            None => Ok(()),
        }
    }
}

/// The labels of a joined element: the many side's, reduced to what was matched where neither side is many, with what
/// `group_left` asks for from the one side.
fn result_labels(exec: &Exec<'_>, binary: &Vectors, many: &Labels, one: &Labels) -> Labels {
    let matching = &binary.matching;
    let drops_name = binary.op.changes_metric() || (binary.return_bool && !exec.opts.delayed_name_removal);
    let mut labels = if drops_name { without_metadata(many) } else { many.clone() };
    if matching.is_one_to_one {
        labels = matched_labels(&labels, matching);
    }
    match matching.include.as_slice() {
        [] => labels,
        [name] => with_label(&labels, name, one.get(name).unwrap_or("")),
        names => with_labels_of(&labels, names, one),
    }
}

/// The labels in `on`, or those not in `ignoring`.
fn matched_labels(labels: &Labels, matching: &Matching) -> Labels {
    let is_named = |name: &[u8]| matching.labels.binary_search_by(|n| n.as_bytes().cmp(name)).is_ok();
    labels.filtered(|name| is_named(name) == matching.on)
}

fn clash_error(matching: &Matching) -> EvalError {
    EvalError::Execution(
        if matching.is_one_to_one {
            "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)"
        } else {
            "multiple matches for labels: grouping labels must ensure unique matches"
        }
        .to_owned(),
    )
}

fn duplicate_error(matching: &Matching, one: &Matrix, (second, first): (usize, usize)) -> EvalError {
    let (a, b) = (&one.series[second].labels, &one.series[first].labels);
    let mut group = matched_labels(a, matching);
    if !matching.on {
        group = group.without(&[METRIC_NAME]);
    }
    let side = if matching.one_side_is_left { "left" } else { "right" };
    let mut both = [a.to_string(), b.to_string()];
    both.sort_unstable();
    let [a, b] = both;
    EvalError::Execution(format!(
        "found duplicate series for the match group {group} on the {side} hand-side of the operation: [{a}, {b}]\
         ;many-to-many matching not allowed: matching labels must be unique on one side"
    ))
}
