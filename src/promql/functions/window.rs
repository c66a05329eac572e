//! Windows of samples that range functions look at.

use std::sync::Arc;

use crate::model::histogram::FloatHistogram;
use crate::model::read::{FloatColumn, SampleColumn};

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

/// The samples of one series in one window, where there are histograms, starts, or samples beyond the window's edges.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SampleWindow<'a> {
    /// All samples of the series, without stale markers.
    pub(crate) column: &'a SampleColumn,
    /// Index of the first float, and index behind the last.
    pub(crate) floats: (usize, usize),
    /// Index of the first histogram, and index behind the last.
    pub(crate) histograms: (usize, usize),
    /// Start of the window; a sample exactly there is outside.
    pub(crate) start_ms: i64,
    /// End of the window, inclusive.
    pub(crate) end_ms: i64,
    /// Evaluation time.
    pub(crate) at_ms: i64,
}

/// A sample of either kind.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SampleValue<'a> {
    /// A float.
    Float(f64),
    /// A histogram.
    Histogram(&'a Arc<FloatHistogram>),
}

/// A sample with its times.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimedSample<'a> {
    /// When it was taken.
    pub(crate) at_ms: i64,
    /// When its counter began; 0 if that is not known.
    pub(crate) start_ms: i64,
    /// Its value.
    pub(crate) value: SampleValue<'a>,
}

/// Value that a function gives for a window.
#[derive(Clone, Debug)]
pub(crate) enum Produced {
    /// A float.
    Float(f64),
    /// A histogram.
    Histogram(Arc<FloatHistogram>),
}

impl<'a> SampleWindow<'a> {
    /// Times of the floats.
    pub(crate) fn float_times(&self) -> &'a [i64] {
        &self.column.floats.timestamps[self.floats.0..self.floats.1]
    }

    /// Values of the floats.
    pub(crate) fn float_values(&self) -> &'a [f64] {
        &self.column.floats.values[self.floats.0..self.floats.1]
    }

    /// Times of the histograms.
    pub(crate) fn histogram_times(&self) -> &'a [i64] {
        &self.column.histograms.timestamps[self.histograms.0..self.histograms.1]
    }

    /// The histograms.
    pub(crate) fn histogram_values(&self) -> &'a [Arc<FloatHistogram>] {
        &self.column.histograms.values[self.histograms.0..self.histograms.1]
    }

    /// Start of the float at `place` in the window; 0 if it is not known.
    pub(crate) fn float_start(&self, place: usize) -> i64 {
        self.column.float_starts.get(self.floats.0 + place).copied().unwrap_or(0)
    }

    /// Start of the histogram at `place` in the window; 0 if it is not known.
    pub(crate) fn histogram_start(&self, place: usize) -> i64 {
        self.column.histogram_starts.get(self.histograms.0 + place).copied().unwrap_or(0)
    }

    /// Number of floats.
    pub(crate) fn float_count(&self) -> usize {
        self.floats.1 - self.floats.0
    }

    /// Number of histograms.
    pub(crate) fn histogram_count(&self) -> usize {
        self.histograms.1 - self.histograms.0
    }

    /// Number of samples, where a histogram counts for as many floats as it is large.
    pub(crate) fn sample_count(&self) -> usize {
        self.float_count() + self.histogram_values().iter().map(|h| h.sample_count()).sum::<usize>()
    }

    /// The float at `place` in the window.
    pub(crate) fn float(&self, place: usize) -> TimedSample<'a> {
        let value = SampleValue::Float(self.float_values()[place]);
        TimedSample { at_ms: self.float_times()[place], start_ms: self.float_start(place), value }
    }

    /// The histogram at `place` in the window.
    pub(crate) fn histogram(&self, place: usize) -> TimedSample<'a> {
        let value = SampleValue::Histogram(&self.histogram_values()[place]);
        TimedSample { at_ms: self.histogram_times()[place], start_ms: self.histogram_start(place), value }
    }

    /// All samples in the order of their times, from the given places on.
    pub(crate) fn samples(
        self,
        mut float: usize,
        mut histogram: usize,
    ) -> impl Iterator<Item = TimedSample<'a>> + use<'a> {
        std::iter::from_fn(move || {
            let (at, histogram_at) = (self.float_times().get(float), self.histogram_times().get(histogram));
            let is_float_next = match (at, histogram_at) {
                (Some(at), Some(histogram_at)) => at < histogram_at,
                (at, _) => at.is_some(),
            };
            if is_float_next {
                float += 1;
                return Some(self.float(float - 1));
            }
            histogram_at?;
            histogram += 1;
            Some(self.histogram(histogram - 1))
        })
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
