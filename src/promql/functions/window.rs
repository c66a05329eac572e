//! Windows of samples that range functions look at.

use crate::model::read::FloatColumn;

/// The samples of one series in one window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window<'a> {
    /// All samples of the series, without stale markers.
    pub(crate) column: &'a FloatColumn,
    /// Index of the window's first sample.
    pub(crate) from: usize,
    /// Index behind the window's last sample; greater than `from`.
    pub(crate) to: usize,
    /// Start of the window; a sample exactly there is outside.
    pub(crate) start_ms: i64,
    /// End of the window, inclusive.
    pub(crate) end_ms: i64,
    /// Evaluation time.
    pub(crate) at_ms: i64,
}

impl<'a> Window<'a> {
    /// Times of the samples.
    pub(crate) fn timestamps(&self) -> &'a [i64] {
        &self.column.timestamps[self.from..self.to]
    }

    /// Values of the samples.
    pub(crate) fn values(&self) -> &'a [f64] {
        &self.column.values[self.from..self.to]
    }

    /// Number of samples.
    pub(crate) fn len(&self) -> usize {
        self.to - self.from
    }
}

/// What a range function computes for the windows of a series. From window to window of one series both ends only move
/// forward, so a kernel may keep what it knows of the overlap, where that gives the same bits.
pub(crate) trait WindowKernel {
    /// Called before the first window of a series.
    fn load(&mut self, _column: &FloatColumn) {}

    /// The value for a window that has at least one sample; `None` if there is none.
    fn value(&mut self, window: Window<'_>) -> Option<f64>;
}

/// A kernel without memory.
pub(crate) struct Plain<F>(pub(crate) F);

impl<F: FnMut(Window<'_>) -> Option<f64>> WindowKernel for Plain<F> {
    fn value(&mut self, window: Window<'_>) -> Option<f64> {
        (self.0)(window)
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// A column with a sample each `step_ms` from `step_ms` on.
    pub(crate) fn column(step_ms: i64, values: &[f64]) -> FloatColumn {
        let timestamps = (1..).map(|i| i * step_ms).take(values.len()).collect();
        FloatColumn { timestamps, values: values.to_vec() }
    }

    /// Values of a kernel for all windows of `len` samples, sliding by one, each ending at its last sample.
    pub(crate) fn slide(kernel: &mut impl WindowKernel, column: &FloatColumn, len: usize) -> Vec<Option<f64>> {
        kernel.load(column);
        (0..column.len())
            .map(|last| {
                let from = (last + 1).saturating_sub(len);
                let start_ms = column.timestamps[from] - 1;
                let end_ms = column.timestamps[last];
                kernel.value(Window { column, from, to: last + 1, start_ms, end_ms, at_ms: end_ms })
            })
            .collect()
    }
}
