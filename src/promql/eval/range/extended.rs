//! The `anchored` and `smoothed` modifiers: windows that look beyond their edges as far as the lookback reaches.

use crate::model::read::{FloatColumn, SampleColumn};
use crate::promql::ast::{PosRange, RangeExtension};
use crate::promql::eval::column::ColumnBuilder;
use crate::promql::eval::error::EvalError;
use crate::promql::eval::exec::Exec;
use crate::promql::eval::matrix::{Matrix, Series};
use crate::promql::eval::range::{WindowSizes, Windows, mixed};
use crate::promql::eval::selector;
use crate::promql::eval::steps::Steps;
use crate::promql::functions::RangeFunction;
use crate::promql::functions::extended_rate::{self, Extent};
use crate::promql::functions::note::Note;
use crate::promql::functions::window::Produced;
use crate::promql::plan::Selector;

/// How far a window reaches beyond its start and its end.
pub(crate) fn margins(extension: Option<RangeExtension>, lookback_ms: i64) -> (i64, i64) {
    match extension {
        None => (0, 0),
        Some(RangeExtension::Anchored) => (lookback_ms, 0),
        Some(RangeExtension::Smoothed) => (lookback_ms, lookback_ms),
    }
}

/// Leaves the samples of a range selector that stands alone: those inside, and the values at the edges.
pub(crate) fn bounded_samples(
    column: &mut SampleColumn,
    extension: RangeExtension,
    start_ms: i64,
    end_ms: i64,
) -> Result<(), EvalError> {
    if !column.histograms.is_empty() {
        let name = if extension == RangeExtension::Anchored { "anchored" } else { "smoothed" };
        return Err(EvalError::Execution(format!("{name} modifier is not supported with histograms")));
    }
    column.floats = extended_rate::bounded(&column.floats, Extent { start_ms, end_ms, extension });
    Ok(())
}

/// What a function gives for the windows of one series. `windows` are those with their margins.
pub(super) fn run(
    exec: &mut Exec<'_>,
    function: &RangeFunction,
    extension: RangeExtension,
    windows: Windows,
    column: &SampleColumn,
    (metric_name, place): (&str, PosRange),
    out: &mut ColumnBuilder,
) -> Result<WindowSizes, EvalError> {
    let (before_ms, after_ms) = margins(Some(extension), exec.opts.lookback_ms);
    let mut notes = Vec::new();
    let mut held = exec.charge(0)?;
    mixed::slide(exec, windows, column, |exec, step, window| {
        let start_ms = window.start_ms.saturating_add(before_ms);
        let extent = Extent { start_ms, end_ms: window.end_ms.saturating_sub(after_ms), extension };
        let value = match function {
            RangeFunction::Rate(kind) => extended_rate::rate(*kind, &window, extent, &mut notes),
            RangeFunction::Changes => {
                let samples = extended_rate::anchored(&window, start_ms);
                samples.map(|samples| Produced::Float(crate::promql::functions::sample_rate::changes(samples)))
            }
            RangeFunction::Resets => {
                let samples = extended_rate::anchored(&window, start_ms);
                samples.map(|samples| Produced::Float(crate::promql::functions::sample_rate::resets(samples)))
            }
            // The plan refuses the others.
            _ => None,
        };
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

/// A smoothed instant selector: at each step the value on the line between the samples around it.
pub(crate) fn smoothed(
    exec: &mut Exec<'_>,
    selector: &Selector,
    place: PosRange,
    steps: Steps,
) -> Result<Matrix, EvalError> {
    let offset_ms = selector.offset_from(steps.start());
    let lookback_ms = exec.opts.lookback_ms;
    let first_ms = steps.start().saturating_sub(offset_ms).saturating_sub(lookback_ms).saturating_add(1);
    let last_ms = steps.last().saturating_sub(offset_ms).saturating_add(lookback_ms);
    let windows = Windows {
        steps,
        offset_ms: offset_ms.saturating_sub(lookback_ms),
        range_ms: lookback_ms.saturating_mul(2),
        is_pinned: false,
    };
    let mut matrix = Matrix::new(exec)?;
    let mut live = SampleColumn::default();
    selector::visit(exec, selector, (first_ms, last_ms), steps, |exec, labels, column, builder| {
        live.clone_from(column);
        live.drop_stale_markers();
        let mut notes = Vec::new();
        let name = labels.metric_name();
        let sizes = mixed::slide(exec, windows, &live, |exec, step, window| {
            let at_ms = window.at_ms.saturating_sub(offset_ms);
            if window.float_count() > 0 && window.histogram_count() > 0 {
                notes.push(Note::MixedFloatsHistograms);
            } else if window.float_count() > 0 {
                let floats =
                    FloatColumn { timestamps: window.float_times().to_vec(), values: window.float_values().to_vec() };
                if let Some(value) = smoothed_float(&floats, at_ms) {
                    builder.push(step, value);
                }
            } else if let Some(histogram) = extended_rate::smoothed_histogram(&window, at_ms, &mut notes) {
                builder.push_histogram(step, histogram);
            }
            for note in notes.drain(..) {
                exec.annotations.note(note, name, place)?;
            }
            Ok(())
        })?;
        // Prometheus counts the windows here, and never lets go of the last one.
        exec.samples.probe(sizes.largest)?;
        exec.samples.hold(sizes.last)?;
        match builder.finish() {
            Some(column) => matrix.push(Series { labels: labels.clone(), drop_name: false, column }),
            None => Ok(()),
        }
    })?;
    Ok(matrix)
}

fn smoothed_float(floats: &FloatColumn, at_ms: i64) -> Option<f64> {
    let next = floats.timestamps.partition_point(|at| *at < at_ms);
    let sample = |place: usize| Some((*floats.timestamps.get(place)?, *floats.values.get(place)?));
    match sample(next) {
        Some((found_ms, value)) if found_ms == at_ms => Some(value),
        Some(after) => Some(extended_rate::interpolate(sample(next.checked_sub(1)?)?, after, at_ms, false)),
        None => sample(next.checked_sub(1)?).map(|(_, value)| value),
    }
}
