//! Functions of range vectors at one time: a float for each series.

use crate::model::read::{FloatColumn, SampleColumn};
use crate::promql::eval::column::ColumnBuilder;
use crate::promql::eval::error::EvalError;
use crate::promql::eval::exec::{Exec, Pace};
use crate::promql::eval::range::{Kernel, Windows, mixed};
use crate::promql::eval::steps::Steps;
use crate::promql::functions::{RangeFunction, RateKind};
use crate::promql::plan::{RangeCall, RangeSelector, RangeSource};

/// A call for one window of each series.
pub(crate) struct Once<'a> {
    kernel: Kernel<'a>,
    windows: Windows,
    builder: ColumnBuilder,
}

/// What the window of a series gives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OnceValue {
    /// Samples in the window.
    pub(crate) len: usize,
    /// Samples that were read for it.
    pub(crate) fresh: usize,
    /// The value.
    pub(crate) value: Option<f64>,
}

impl<'a> Once<'a> {
    /// The call at one time, if that is a matter of floats in one window of a selector.
    pub(crate) fn of(exec: &Exec<'_>, call: &'a RangeCall, steps: Steps) -> Option<(Self, &'a RangeSelector)> {
        let RangeSource::Selector(selector) = &call.source else { return None };
        let has_more = selector.extension.is_some() || !call.scalars.is_empty() || steps.count() != 1;
        let is_other = matches!(call.function, RangeFunction::Absent(_) | RangeFunction::Quantile);
        let uses_starts = exec.opts.use_start_timestamps && mixed::uses_starts(&call.function);
        if has_more || is_other || uses_starts {
            return None;
        }
        let windows = Windows::of(&call.source, steps);
        Some((Self { kernel: Kernel::of(call, &[]), windows, builder: ColumnBuilder::new() }, selector))
    }

    /// First and last time of samples that matter, both inclusive.
    pub(crate) fn time_range(&self) -> (i64, i64) {
        self.windows.time_range()
    }

    /// The value of a series, which has floats alone.
    pub(crate) fn value(&mut self, pace: &mut Pace<'_>, column: &mut SampleColumn) -> Result<OnceValue, EvalError> {
        column.drop_stale_markers();
        let floats: &FloatColumn = &column.floats;
        let sizes = self.kernel.run(pace, self.windows, floats, &mut self.builder)?;
        let fresh = if sizes.largest == 0 { 0 } else { floats.len() };
        Ok(OnceValue { len: sizes.largest, fresh, value: self.builder.take_first() })
    }
}

/// True for functions whose result makes no sense for a metric that is no counter.
pub(crate) fn is_for_counters(function: &RangeFunction) -> bool {
    matches!(function, RangeFunction::Rate(RateKind::Rate | RateKind::Increase))
}
