//! Operations on two vectors with histograms among their elements, or with values that stand in for missing ones. What
//! matches what may differ from step to step here, so these go step by step, as Prometheus does.

use std::collections::{HashMap, HashSet};

use crate::model::labels::{Labels, METRIC_NAME};
use crate::promql::ast::PosRange;
use crate::promql::eval::binary::{note_failure, push_element};
use crate::promql::eval::column::{ColumnBuilder, StepValue};
use crate::promql::eval::error::EvalError;
use crate::promql::eval::exec::Exec;
use crate::promql::eval::ledger::{Charge, list_entry, shared, table_entry};
use crate::promql::eval::matching::{clash_error, duplicate_error, matched_labels, result_labels};
use crate::promql::eval::matrix::{Matrix, Series};
use crate::promql::eval::steps::Steps;
use crate::promql::functions::element::{CombineError, Operand};
use crate::promql::functions::note::Note;
use crate::promql::plan::Vectors;

/// Both sides with the signatures of their series.
pub(super) struct Sides<'a> {
    pub(super) many: &'a Matrix,
    pub(super) one: &'a Matrix,
    pub(super) many_signatures: &'a [usize],
    pub(super) one_signatures: &'a [usize],
    pub(super) signature_count: usize,
}

/// Evaluates the operation; the result is not assembled yet.
pub(super) fn eval(
    exec: &mut Exec<'_>,
    binary: &Vectors,
    sides: Sides<'_>,
    place: PosRange,
    steps: Steps,
) -> Result<Matrix, EvalError> {
    let (many_count, one_count) = (sides.many.series.len(), sides.one.series.len());
    let bytes = (many_count + one_count).saturating_mul(64) + sides.signature_count.saturating_mul(32);
    let mut join = Join {
        binary,
        partner_of: vec![None; sides.signature_count],
        matched: vec![false; sides.signature_count],
        taken: HashSet::new(),
        label_numbers: HashMap::new(),
        outputs: HashMap::new(),
        all: Vec::new(),
        remark: None,
        held: exec.charge(bytes)?,
        sides,
    };
    for step in 0..steps.count() {
        exec.spend(many_count + one_count)?;
        join.step(exec, step)?;
        match join.remark.take() {
            Some(Remark::Note(note)) => exec.annotations.note(note, "", place)?,
            Some(Remark::Failure(error)) => note_failure(exec, binary.op, &error, place)?,
            None => {}
        }
    }
    let mut result = Matrix::new(exec)?;
    for mut output in std::mem::take(&mut join.all) {
        if let Some(column) = output.builder.finish() {
            result.push(Series { labels: output.labels, drop_name: binary.return_bool, column })?;
        }
    }
    Ok(result)
}

enum Remark {
    Note(Note),
    Failure(CombineError),
}

/// A result as it grows.
struct Output {
    labels: Labels,
    label_number: usize,
    builder: ColumnBuilder,
}

/// What a result takes beside its labels: its places in the list and in tables, and the first steps of its column.
const OUTPUT_LEN: usize = list_entry(size_of::<Output>())
    + table_entry(size_of::<(Labels, usize)>())
    + table_entry(size_of::<((Option<usize>, Option<usize>), usize)>())
    + table_entry(size_of::<(usize, usize)>())
    + 64;

struct Join<'a> {
    binary: &'a Vectors,
    sides: Sides<'a>,
    /// The one side's series by signature, at this step.
    partner_of: Vec<Option<usize>>,
    /// Which signatures have been matched at this step.
    matched: Vec<bool>,
    /// Signatures and numbers of the results' labels that there are at this step.
    taken: HashSet<(usize, usize)>,
    /// Numbers for the labels of results; one-to-one matching has one number for all.
    label_numbers: HashMap<Labels, usize>,
    /// Results by the pair they come from; a missing series is one that was filled in.
    outputs: HashMap<(Option<usize>, Option<usize>), usize>,
    all: Vec<Output>,
    /// Of several remarks at one step the last one counts.
    remark: Option<Remark>,
    /// What the results take until they are charged as such.
    held: Charge,
}

impl Join<'_> {
    fn step(&mut self, exec: &Exec<'_>, step: usize) -> Result<(), EvalError> {
        let fill = self.binary.matching.fill;
        let is_empty = |side: &Matrix| !side.series.iter().any(|series| series.column.has(step));
        let empty = (is_empty(self.sides.many), is_empty(self.sides.one));
        let has_fill = fill.lhs.is_some() || fill.rhs.is_some();
        if empty == (true, true) || (!has_fill && (empty.0 || empty.1)) {
            return Ok(());
        }
        self.partner_of.fill(None);
        self.matched.fill(false);
        self.taken.clear();
        for (index, signature) in self.sides.one_signatures.iter().enumerate() {
            if !self.sides.one.series[index].column.has(step) {
                continue;
            }
            if let Some(first) = self.partner_of[*signature] {
                return Err(duplicate_error(&self.binary.matching, self.sides.one, (index, first)));
            }
            self.partner_of[*signature] = Some(index);
        }
        for (index, signature) in self.sides.many_signatures.iter().enumerate() {
            if !self.sides.many.series[index].column.has(step) {
                continue;
            }
            let partner = self.partner_of[*signature];
            if partner.is_some() || fill.rhs.is_some() {
                self.pair(exec, step, Some(index), partner, *signature)?;
            }
        }
        if fill.lhs.is_some() {
            for (index, signature) in self.sides.one_signatures.iter().enumerate() {
                if !self.matched[*signature] && self.sides.one.series[index].column.has(step) {
                    self.pair(exec, step, None, Some(index), *signature)?;
                }
            }
        }
        Ok(())
    }

    /// Combines an element of each side; a missing one is filled in.
    fn pair(
        &mut self,
        exec: &Exec<'_>,
        step: usize,
        many: Option<usize>,
        one: Option<usize>,
        signature: usize,
    ) -> Result<(), EvalError> {
        let binary = self.binary;
        let fill = binary.matching.fill;
        let many_value = operand(self.sides.many, many, step, fill.lhs);
        let one_value = operand(self.sides.one, one, step, fill.rhs);
        let (lhs, rhs) =
            if binary.matching.one_side_is_left { (one_value, many_value) } else { (many_value, one_value) };
        let combined = match binary.op.combine(lhs, rhs) {
            Ok(combined) => combined,
            Err(error) => {
                self.remark = Some(Remark::Failure(error));
                return Ok(());
            }
        };
        if let Some(note) = combined.note {
            self.remark = Some(Remark::Note(note));
        }
        let place = match self.outputs.get(&(many, one)) {
            Some(place) => *place,
            None => self.add_output(exec, many, one)?,
        };
        let output = &mut self.all[place];
        if !self.taken.insert((signature, output.label_number)) {
            return Err(clash_error(&binary.matching));
        }
        self.matched[signature] = true;
        let builder = &mut output.builder;
        if binary.return_bool {
            builder.push(step, f64::from(u8::from(combined.holds)));
        } else if combined.holds {
            let bytes = ColumnBuilder::STEP_LEN + combined.value.memory_len();
            self.held.grow(bytes).map_err(|over| EvalError::Budget(over.to_string()))?;
            push_element(builder, step, combined.value);
        }
        Ok(())
    }

    /// A new result; returns its place.
    fn add_output(&mut self, exec: &Exec<'_>, many: Option<usize>, one: Option<usize>) -> Result<usize, EvalError> {
        let labels = self.labels(exec, many, one);
        let bytes = 2 * shared(labels.encoded_len()) + OUTPUT_LEN;
        self.held.grow(bytes).map_err(|over| EvalError::Budget(over.to_string()))?;
        let next = self.label_numbers.len();
        let label_number = if self.binary.matching.is_one_to_one {
            0
        } else {
            *self.label_numbers.entry(labels.clone()).or_insert(next)
        };
        self.all.push(Output { labels, label_number, builder: ColumnBuilder::new() });
        self.outputs.insert((many, one), self.all.len() - 1);
        Ok(self.all.len() - 1)
    }

    fn labels(&self, exec: &Exec<'_>, many: Option<usize>, one: Option<usize>) -> Labels {
        let matching = &self.binary.matching;
        // What is filled in has the labels that are matched.
        let stand_in = |labels: &Labels| {
            let matched = matched_labels(labels, matching);
            if matching.on { matched } else { matched.without(&[METRIC_NAME]) }
        };
        let of = |side: &Matrix, index: Option<usize>| index.map(|index| side.series[index].labels.clone());
        let (many, one) = (of(self.sides.many, many), of(self.sides.one, one));
        let (many, one) = match (many, one) {
            (Some(many), Some(one)) => (many, one),
            (Some(many), None) => {
                let one = stand_in(&many);
                (many, one)
            }
            (None, Some(one)) => (stand_in(&one), one),
            (None, None) => (Labels::empty(), Labels::empty()),
        };
        result_labels(exec, self.binary, &many, &one)
    }
}

fn operand<'a>(side: &'a Matrix, index: Option<usize>, step: usize, fill: Option<f64>) -> Operand<'a> {
    let value = index.and_then(|index| side.series[index].column.value_at(step));
    match value {
        Some(StepValue::Float(value)) => Operand::Float(value),
        Some(StepValue::Histogram(histogram)) => Operand::Histogram(histogram),
        None => Operand::Float(fill.unwrap_or(f64::NAN)),
    }
}
