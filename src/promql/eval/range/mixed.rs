//! Windows that hold histograms, or samples with start timestamps. They are rare, so they go step by step; floats are still
//! computed by the kernels for floats wherever histograms only leave them alone.

use crate::model::read::SampleColumn;
use crate::promql::eval::column::{ColumnBuilder, StepColumn};
use crate::promql::eval::error::EvalError;
use crate::promql::eval::exec::Exec;
use crate::promql::eval::range::{Kernel, WindowSizes, Windows};
use crate::promql::functions::note::Note;
use crate::promql::functions::regression::Smoothing;
use crate::promql::functions::sample_rate::{self, HistogramResets};
use crate::promql::functions::window::{Produced, SampleValue, SampleWindow};
use crate::promql::functions::{RangeFunction, native};
use crate::promql::plan::RangeCall;

/// Calls `visit(step, window)` for each step whose window has samples.
pub(super) fn slide(
    exec: &mut Exec<'_>,
    windows: Windows,
    column: &SampleColumn,
    mut visit: impl FnMut(&mut Exec<'_>, usize, SampleWindow<'_>) -> Result<(), EvalError>,
) -> Result<WindowSizes, EvalError> {
    let (float_times, histogram_times) = (&column.floats.timestamps, &column.histograms.timestamps);
    let mut sizes = WindowSizes::default();
    let mut window = SampleWindow { column, floats: (0, 0), histograms: (0, 0), start_ms: 0, end_ms: 0, at_ms: 0 };
    for step in 0..windows.steps.count() {
        window.at_ms = windows.steps.at(step);
        if step == 0 || !windows.is_pinned {
            window.end_ms = window.at_ms.saturating_sub(windows.offset_ms);
            window.start_ms = window.end_ms.saturating_sub(windows.range_ms);
            for (times, (from, to)) in [(float_times, &mut window.floats), (histogram_times, &mut window.histograms)] {
                *to += times.get(*to..).unwrap_or(&[]).partition_point(|at| *at <= window.end_ms);
                *from += times.get(*from..*to).unwrap_or(&[]).partition_point(|at| *at <= window.start_ms);
            }
        }
        let samples = window.sample_count();
        exec.spend(samples)?;
        sizes.last = samples;
        sizes.largest = sizes.largest.max(samples);
        sizes.total += samples as u64;
        if samples > 0 {
            visit(exec, step, window)?;
        }
    }
    Ok(sizes)
}

/// Whether the function looks at start timestamps.
pub(super) fn uses_starts(function: &RangeFunction) -> bool {
    match function {
        RangeFunction::Rate(kind) => kind.is_counter(),
        RangeFunction::Irate | RangeFunction::Resets => true,
        _ => false,
    }
}

impl Kernel<'_> {
    /// As [`Kernel::run`], for any samples.
    pub(super) fn run_mixed(
        &mut self,
        exec: &mut Exec<'_>,
        call: &RangeCall,
        windows: Windows,
        column: &SampleColumn,
        metric_name: &str,
        out: &mut ColumnBuilder,
    ) -> Result<WindowSizes, EvalError> {
        let has_starts = uses_starts(self.function) && !column.float_starts.is_empty();
        let floats = if has_starts { None } else { self.floats(exec, windows, column, out)? };
        let resets = match self.function {
            RangeFunction::Rate(kind) if kind.is_counter() => HistogramResets::of(&column.histograms),
            _ => HistogramResets::default(),
        };
        let place =
            if matches!(self.function, RangeFunction::Quantile) { self.scalar_place } else { call.source_range };
        let mut notes = Vec::new();
        exec.spend(column.histograms.len())?;
        // What is built is held here until the series is part of the result.
        let mut held = exec.charge(0)?;
        slide(exec, windows, column, |exec, step, window| {
            if matches!(self.function, RangeFunction::Smoothing) {
                // The factors have to be right for windows without floats, too.
                Smoothing::new(self.scalar(0, step), self.scalar(1, step)).map_err(EvalError::Execution)?;
            }
            let float = |step: usize| floats.as_ref().and_then(|floats| floats.get(step)).map(Produced::Float);
            let value = self.value(&window, has_starts, &resets, &mut notes, || float(step));
            for note in notes.drain(..) {
                exec.annotations.note(note, metric_name, place)?;
            }
            match value {
                Some(Produced::Float(value)) => out.push(step, value),
                Some(Produced::Histogram(histogram)) => {
                    held.grow(histogram.memory_len()).map_err(|over| EvalError::Budget(over.to_string()))?;
                    out.push_histogram(step, histogram);
                }
                None => {}
            }
            Ok(())
        })
    }

    /// What the function gives for the floats alone.
    fn floats(
        &mut self,
        exec: &mut Exec<'_>,
        windows: Windows,
        column: &SampleColumn,
        out: &mut ColumnBuilder,
    ) -> Result<Option<StepColumn>, EvalError> {
        if column.floats.is_empty() {
            return Ok(None);
        }
        self.run_noting(exec, windows, &column.floats, out)?;
        Ok(out.finish())
    }

    /// The value for a window, where `float` is that of its floats alone.
    fn value(
        &self,
        window: &SampleWindow<'_>,
        has_starts: bool,
        resets: &HistogramResets,
        notes: &mut Vec<Note>,
        float: impl Fn() -> Option<Produced>,
    ) -> Option<Produced> {
        let histogram = |value: Option<_>| value.map(|h| Produced::Histogram(std::sync::Arc::new(h)));
        let (float_count, histogram_count) = (window.float_count(), window.histogram_count());
        if histogram_count == 0 && !has_starts {
            return float();
        }
        match self.function {
            RangeFunction::Rate(kind) => sample_rate::extrapolated(*kind, window, resets, notes),
            RangeFunction::Irate => sample_rate::instant_value(true, window, notes),
            RangeFunction::Idelta => sample_rate::instant_value(false, window, notes),
            RangeFunction::Changes => Some(Produced::Float(sample_rate::changes(window.samples(0, 0)))),
            RangeFunction::Resets => Some(Produced::Float(sample_rate::resets(window.samples(0, 0)))),
            RangeFunction::Sum | RangeFunction::Avg if float_count > 0 => {
                notes.push(Note::MixedFloatsHistograms);
                None
            }
            RangeFunction::Sum => histogram(native::sum(window.histogram_values().iter().map(|h| &**h), notes)),
            RangeFunction::Avg => histogram(native::mean(window.histogram_values().iter().map(|h| &**h), notes)),
            RangeFunction::Count => Some(Produced::Float((float_count + histogram_count) as f64)),
            RangeFunction::Present | RangeFunction::Absent(_) => Some(Produced::Float(1.0)),
            RangeFunction::First | RangeFunction::Last | RangeFunction::TimeOfFirst | RangeFunction::TimeOfLast => {
                self.outermost(window)
            }
            RangeFunction::Deriv
            | RangeFunction::PredictLinear
            | RangeFunction::Smoothing
            | RangeFunction::Min
            | RangeFunction::Max
            | RangeFunction::TimeOfMin
            | RangeFunction::TimeOfMax
            | RangeFunction::Stdvar
            | RangeFunction::Stddev
            | RangeFunction::Quantile
            | RangeFunction::Mad => {
                if float_count > 0 {
                    notes.push(Note::IgnoredInMixedRange);
                }
                float()
            }
        }
    }

    /// The first or last sample, or its time.
    fn outermost(&self, window: &SampleWindow<'_>) -> Option<Produced> {
        let is_first = matches!(self.function, RangeFunction::First | RangeFunction::TimeOfFirst);
        let place = |count: usize| if is_first { (count > 0).then_some(0) } else { count.checked_sub(1) };
        let float = place(window.float_count()).map(|place| window.float(place));
        let histogram = place(window.histogram_count()).map(|place| window.histogram(place));
        let sample = match (float, histogram) {
            (Some(float), Some(histogram)) if is_first == (float.at_ms < histogram.at_ms) => float,
            (Some(float), None) => float,
            (_, histogram) => histogram?,
        };
        if matches!(self.function, RangeFunction::TimeOfFirst | RangeFunction::TimeOfLast) {
            return Some(Produced::Float(sample.at_ms as f64 / 1000.0));
        }
        Some(match sample.value {
            SampleValue::Float(value) => Produced::Float(value),
            SampleValue::Histogram(histogram) => Produced::Histogram(std::sync::Arc::clone(histogram)),
        })
    }
}
