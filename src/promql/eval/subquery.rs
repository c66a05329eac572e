//! Subqueries: an expression evaluated at times of its own, whose values then are samples.

use std::sync::Arc;

use crate::model::histogram::{CounterResetHint, FloatHistogram};
use crate::model::read::SampleColumn;
use crate::promql::eval::error::EvalError;
use crate::promql::eval::exec::Exec;
use crate::promql::eval::matrix::{Matrix, Series};
use crate::promql::eval::steps::Steps;
use crate::promql::eval::tally::{Consumer, Tally};
use crate::promql::eval::{self};
use crate::promql::plan::Subquery;

/// The values of a subquery with the times they belong to.
pub(crate) struct SubqueryResult {
    /// Values at `steps`.
    pub(crate) matrix: Matrix,
    /// When the subquery was evaluated.
    pub(crate) steps: Steps,
}

impl SubqueryResult {
    /// Writes the values of one series as samples. Hints of counter resets tell of neighbouring samples in storage, so they
    /// are taken off: what is compared here lies further apart, or is one sample twice.
    pub(crate) fn samples(&self, series: &Series, out: &mut SampleColumn) {
        out.clear();
        series.column.for_each(|step, value| out.floats.push(self.steps.at(step), value));
        let mut before: Option<(&Arc<FloatHistogram>, Arc<FloatHistogram>)> = None;
        for (step, histogram) in series.column.histograms() {
            let unhinted = match &before {
                Some((from, to)) if Arc::ptr_eq(from, histogram) => Arc::clone(to),
                _ => without_hint(histogram),
            };
            out.histograms.push(self.steps.at(*step), Arc::clone(&unhinted));
            before = Some((histogram, unhinted));
        }
    }
}

fn without_hint(histogram: &Arc<FloatHistogram>) -> Arc<FloatHistogram> {
    match histogram.counter_reset_hint {
        CounterResetHint::Unknown | CounterResetHint::Gauge => Arc::clone(histogram),
        CounterResetHint::Reset | CounterResetHint::NotReset => {
            let counter_reset_hint = CounterResetHint::Unknown;
            Arc::new(FloatHistogram { counter_reset_hint, ..FloatHistogram::clone(histogram) })
        }
    }
}

/// Evaluates a subquery for all windows of `steps`.
pub(crate) fn eval(exec: &mut Exec<'_>, subquery: &Subquery, steps: Steps) -> Result<SubqueryResult, EvalError> {
    let own = own_steps(subquery, steps);
    let Subquery { offset_ms, range_ms, .. } = *subquery;
    let has_gaps = range_ms < steps.interval() || subquery.pinned_ms.is_some();
    let consumer = Consumer { steps, offset_ms, range_ms, has_gaps };
    let around = Tally::begin_subquery(exec, own, consumer)?;
    let matrix = eval::eval(exec, &subquery.inner, own)?;
    Tally::end_subquery(exec, around, own, consumer);
    Ok(SubqueryResult { matrix, steps: own })
}

/// Evaluates a subquery that is the answer itself.
pub(crate) fn eval_root(exec: &mut Exec<'_>, subquery: &Subquery, steps: Steps) -> Result<SubqueryResult, EvalError> {
    let own = own_steps(subquery, steps);
    let consumer = Consumer { steps, offset_ms: 0, range_ms: 0, has_gaps: false };
    let around = Tally::begin_subquery(exec, own, consumer)?;
    let matrix = eval::eval(exec, &subquery.inner, own)?;
    Tally::end_root_subquery(exec, around, own, consumer);
    Ok(SubqueryResult { matrix, steps: own })
}

/// The multiples of the subquery's step that lie in one of the windows or between them: after the start of the first,
/// up to the end of the last.
fn own_steps(subquery: &Subquery, steps: Steps) -> Steps {
    let offset_ms = subquery.offset_from(steps.start());
    let end = steps.last().saturating_sub(offset_ms);
    let interval = subquery.step_ms.max(1);
    let after = steps.start().saturating_sub(offset_ms).saturating_sub(subquery.range_ms);
    // Go's division cuts towards zero, so the multiple may lie on either side.
    let mut start = interval.saturating_mul(after / interval);
    if start <= after {
        start = start.saturating_add(interval);
    }
    Steps::new(start, end, interval)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promql::ast::PosRange;
    use crate::promql::plan::{Node, Operation};

    #[track_caller]
    fn check(range_ms: i64, step_ms: i64, offset_ms: i64, steps: Steps, expected: Steps) {
        let inner = Node::new(Operation::Number(1.0), PosRange::default());
        let subquery = Subquery { inner, range_ms, step_ms, offset_ms, pinned_ms: None };
        assert_eq!(own_steps(&subquery, steps), expected);
    }

    #[test]
    fn times_are_aligned_and_after_the_start() {
        check(100, 30, 0, Steps::instant(200), Steps::new(120, 200, 30));
        check(80, 30, 0, Steps::instant(200), Steps::new(150, 200, 30));
        check(50, 30, 20, Steps::instant(200), Steps::new(150, 180, 30));
        check(50, 30, 0, Steps::instant(-20), Steps::new(-60, -20, 30));
        // The last step of the outer evaluation counts, not the end that was asked for.
        check(50, 10, 0, Steps::new(100, 199, 60), Steps::new(60, 160, 10));
    }
}
