//! Aggregation of groups with histograms among their members, step by step: `sum` and `avg` take histograms or floats but
//! not both, `count` and `group` take both, all others leave histograms out and say so.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::model::histogram::{Combined, FloatHistogram, HistogramMean, HistogramSum, IncompatibleSchemas};
use crate::promql::ast::PosRange;
use crate::promql::eval::column::{ColumnBuilder, StepColumn, StepValue};
use crate::promql::eval::error::EvalError;
use crate::promql::eval::exec::Exec;
use crate::promql::eval::matrix::Matrix;
use crate::promql::functions::kahan::{KahanMean, KahanSum};
use crate::promql::functions::native::Noticed;
use crate::promql::functions::note::Note;
use crate::promql::plan::Fold;

/// The values of a group; `floats` are those of its floats alone, where histograms are left out.
pub(super) fn fold(
    exec: &mut Exec<'_>,
    fold: &Fold,
    input: &Matrix,
    members: &[usize],
    place: PosRange,
    floats: Option<StepColumn>,
) -> Result<Option<StepColumn>, EvalError> {
    let ignored_by = match fold {
        Fold::Min => Some("min"),
        Fold::Max => Some("max"),
        Fold::Stdvar => Some("stdvar"),
        Fold::Stddev => Some("stddev"),
        Fold::Quantile => Some("quantile"),
        Fold::Sum | Fold::Avg | Fold::Count | Fold::Group | Fold::CountValues { .. } => None,
    };
    if let Some(name) = ignored_by {
        exec.annotations.note(Note::IgnoredInAggregation(name), "", place)?;
        return Ok(floats);
    }
    let mut steps = BTreeSet::new();
    for index in members {
        let column = &input.series[*index].column;
        exec.spend(column.present())?;
        column.for_each_step(|step| {
            steps.insert(step);
        });
    }
    let mut held = exec.charge(steps.len().saturating_mul(48))?;
    let mut builder = ColumnBuilder::new();
    for step in steps {
        exec.spend(members.len())?;
        let at_step = members.iter().filter_map(|index| {
            let series = &input.series[*index];
            Some((series.labels.metric_name(), series.column.value_at(step)?))
        });
        match fold {
            Fold::Count => builder.push(step, at_step.count() as f64),
            Fold::Group => builder.push(step, 1.0),
            _ => {
                let mut group = Group { is_mean: *fold == Fold::Avg, ..Group::default() };
                for (metric_name, value) in at_step {
                    group.add(exec, metric_name, value, place)?;
                }
                let bytes = group.finish(exec, step, place, &mut builder)?;
                held.grow(bytes).map_err(|over| EvalError::Budget(over.to_string()))?;
            }
        }
    }
    Ok(builder.finish())
}

/// `sum` or `avg` of one group at one step.
#[derive(Default)]
struct Group {
    is_mean: bool,
    floats: Option<Floats>,
    histograms: Option<Histograms>,
    /// A histogram has come, added up or not.
    has_histogram: bool,
    /// Exponential and listed buckets have met.
    is_incompatible: bool,
    noticed: Noticed,
}

enum Floats {
    Sum(KahanSum),
    Mean(KahanMean),
}

enum Histograms {
    Sum(HistogramSum),
    Mean(HistogramMean),
}

impl Histograms {
    fn add(&mut self, other: &FloatHistogram) -> Result<Combined, IncompatibleSchemas> {
        match self {
            Self::Sum(sum) => sum.add(other),
            Self::Mean(mean) => mean.add(other),
        }
    }
}

impl Group {
    fn add(
        &mut self,
        exec: &mut Exec<'_>,
        metric_name: &str,
        value: StepValue<'_>,
        place: PosRange,
    ) -> Result<(), EvalError> {
        if self.is_incompatible {
            return Ok(());
        }
        match value {
            StepValue::Float(value) => match &mut self.floats {
                Some(Floats::Sum(sum)) => *sum = sum.plus(value),
                Some(Floats::Mean(mean)) => mean.add(value),
                None if self.is_mean => self.floats = Some(Floats::Mean(KahanMean::of(value))),
                None => self.floats = Some(Floats::Sum(KahanSum::of(value))),
            },
            StepValue::Histogram(histogram) => {
                let is_first = !self.has_histogram && self.floats.is_none();
                self.has_histogram = true;
                exec.spend(histogram.sample_count())?;
                if is_first {
                    self.noticed.hint(histogram);
                    self.histograms = Some(if self.is_mean {
                        Histograms::Mean(HistogramMean::of(histogram))
                    } else {
                        Histograms::Sum(HistogramSum::of(histogram))
                    });
                } else if let Some(histograms) = &mut self.histograms {
                    self.noticed.hint(histogram);
                    match histograms.add(histogram) {
                        Ok(combined) => self.noticed.combined(combined),
                        Err(IncompatibleSchemas) => {
                            exec.annotations.note(Note::MixedSchemas, metric_name, place)?;
                            self.is_incompatible = true;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Adds the value; returns the bytes that it takes beside the column's.
    fn finish(
        self,
        exec: &mut Exec<'_>,
        step: usize,
        place: PosRange,
        builder: &mut ColumnBuilder,
    ) -> Result<usize, EvalError> {
        let is_mixed = self.floats.is_some() && self.has_histogram;
        let is_dropped = is_mixed || self.is_incompatible;
        for note in self.noticed.notes() {
            // The hints of what is dropped do not matter.
            if !(is_dropped && matches!(note, Note::ResetsCollide(_))) {
                exec.annotations.note(note, "", place)?;
            }
        }
        if is_mixed {
            exec.annotations.note(Note::MixedInAggregation, "", place)?;
        }
        if is_dropped {
            return Ok(0);
        }
        match self.floats {
            Some(Floats::Sum(sum)) => builder.push(step, sum.total()),
            Some(Floats::Mean(mean)) => builder.push(step, mean.mean()),
            None => {}
        }
        let histogram = self.histograms.map(|histograms| match histograms {
            Histograms::Sum(sum) => sum.total(),
            Histograms::Mean(mean) => mean.mean(),
        });
        let Some(mut histogram) = histogram else { return Ok(0) };
        histogram.compact(0);
        let bytes = histogram.memory_len();
        builder.push_histogram(step, Arc::new(histogram));
        Ok(bytes)
    }
}
