//! Functions of range vectors: for each series the windows of all steps, one after the other, over a column that is
//! decoded once.

mod count;
pub(crate) mod extended;
mod mixed;
mod once;

pub(crate) use self::once::{Once, is_for_counters};

use std::sync::{Mutex, PoisonError};

use crate::model::go;
use crate::model::labels::{Labels, METRIC_NAME};
use crate::model::read::{FloatColumn, SampleColumn, SelectedSeries, Wanted};
use crate::promql::ast::{PosRange, RangeExtension};
use crate::promql::eval::column::{ColumnBuilder, StepColumn, StepSet};
use crate::promql::eval::error::EvalError;
use crate::promql::eval::exec::{Decoder, Exec, Pace, SeriesWorker, is_metadata, without_metadata};
use crate::promql::eval::ledger::Charge;
use crate::promql::eval::matrix::{Matrix, Series};
use crate::promql::eval::parallel::{self, Threads};
use crate::promql::eval::steps::Steps;
use crate::promql::eval::{self, subquery};
use crate::promql::functions::RangeFunction;
use crate::promql::functions::change::EventCount;
use crate::promql::functions::over_time::{self, Extreme, ExtremeRule, LANES, Summed};
use crate::promql::functions::quantile::{median_absolute_deviation, quantile};
use crate::promql::functions::rate::{self, ExtrapolatedRate};
use crate::promql::functions::regression::{self, Smoothing};
use crate::promql::functions::window::{Plain, Window, WindowKernel};
use crate::promql::plan::{RangeCall, RangeSelector, RangeSource, Subquery};

/// Evaluates a function of a range vector.
pub(crate) fn eval(exec: &mut Exec<'_>, call: &RangeCall, steps: Steps) -> Result<Matrix, EvalError> {
    // The subquery is evaluated before the other arguments, as in Prometheus.
    let sub = match &call.source {
        RangeSource::Subquery(sub) => {
            // What the subquery looks at is counted when the windows look at its result.
            Some(subquery::eval(exec, sub, steps)?)
        }
        RangeSource::Selector(_) => None,
    };
    let mut scalars = Vec::with_capacity(call.scalars.len());
    for scalar in &call.scalars {
        scalars.push(eval::eval(exec, scalar, steps)?);
    }
    let extension = match &call.source {
        RangeSource::Selector(selector) => selector.extension,
        RangeSource::Subquery(_) => None,
    };
    let windows = Windows::of(&call.source, steps).with_margins(extended::margins(extension, exec.opts.lookback_ms));
    let _scratch = exec.charge(ColumnBuilder::len_for(steps.count()))?;
    let mut output = Output {
        matrix: Matrix::new(exec)?,
        builder: ColumnBuilder::new(),
        call,
        extension,
        keeps_name: call.function.keeps_name(),
        is_late: call.names_go_late && exec.opts.shortcuts.late_names,
        is_rate: is_for_counters(&call.function),
        last_noted: String::new(),
    };
    let mut kernel = Kernel::of(call, &scalars);
    let mut are_distinct = false;
    match &call.source {
        RangeSource::Selector(selector) => {
            are_distinct = of_selector(exec, &mut output, &mut kernel, selector, &scalars, windows)?;
        }
        RangeSource::Subquery(_) => {
            if let Some(result) = &sub {
                let _column = exec.charge(result.steps.count().saturating_mul(16))?;
                let mut column = SampleColumn::default();
                for series in &result.matrix.series {
                    result.samples(series, &mut column);
                    output.series(exec, &mut kernel, windows, &column, &series.labels, series.drop_name)?;
                }
            }
        }
    }
    if let Some(sub) = &sub {
        exec.samples.release(sub.matrix.sample_count());
    }
    let matrix = output.matrix;
    if let RangeFunction::Absent(labels) = &call.function {
        return absent(exec, &matrix, labels, steps);
    }
    if !exec.opts.delayed_name_removal && !are_distinct && matrix.has_same_labelsets() {
        return Err(EvalError::same_labelset());
    }
    Ok(matrix)
}

/// Adds the series of a selector. True if their labels are known to differ.
fn of_selector(
    exec: &mut Exec<'_>,
    output: &mut Output<'_>,
    kernel: &mut Kernel<'_>,
    selector: &RangeSelector,
    scalars: &[Matrix],
    windows: Windows,
) -> Result<bool, EvalError> {
    let range_ms = selector.selector.clip(windows.time_range());
    let selection = exec.select(&selector.selector, range_ms.0, range_ms.1)?;
    let (call, ctx) = (output.call, exec.ctx);
    let loses_name = !output.keeps_name && !exec.opts.delayed_name_removal;
    let strips_name = loses_name && !output.is_late;
    let uses_starts = exec.opts.use_start_timestamps && mixed::uses_starts(&call.function);
    let steps = windows.steps.count();
    // Windows that leave gaps do not overlap: what they hold is what they read.
    let has_gaps = windows.has_gaps();
    let counts_steps = exec.samples.tally.has_steps();
    let begin = || {
        let held =
            ctx.ledger.charge(ColumnBuilder::len_for(steps)).map_err(|over| EvalError::Budget(over.to_string()))?;
        let worker = SeriesWorker::begin(ctx)?;
        Ok((worker, Kernel::of(call, scalars), held))
    };
    let work = |(worker, kernel, _): &mut (SeriesWorker<'_>, Kernel<'_>, Charge), series: &SelectedSeries| {
        let (decoder, pace) = (&mut worker.decoder, &mut worker.pace);
        let column = decoder.decode(pace, &selector.selector, &*series.samples, range_ms, Wanted::All)?;
        column.drop_stale_markers();
        let has_starts = uses_starts && !column.float_starts.is_empty();
        if selector.extension.is_some() || has_starts || counts_steps || !column.histograms.is_empty() {
            return Ok(Done::Undecided);
        }
        let sizes = kernel.run(&mut worker.pace, windows, &column.floats, &mut worker.builder)?;
        let fresh = if has_gaps || sizes.total == 0 { sizes.total } else { column.floats.len() as u64 };
        let bad_quantiles = std::mem::take(&mut kernel.bad_quantiles);
        let labels = || if strips_name { without_metadata(&series.labels) } else { series.labels.clone() };
        let drop_name = !call.function.keeps_name();
        let made = worker.builder.finish().map(|column| Series { labels: labels(), drop_name, column });
        worker.hold(made.as_ref().map_or(0, Series::bytes))?;
        Ok(Done::Floats { sizes, fresh, bad_quantiles, series: made })
    };
    let held = Mutex::new(exec.charge(0)?);
    let end = |(worker, ..): (SeriesWorker<'_>, Kernel<'_>, Charge)| worker.end(&held);
    let threads = match selector.extension {
        None if !counts_steps => {
            let samples = selection.sample_estimate(range_ms);
            Threads::for_series(exec.opts.shortcuts.helpers, selection.series().len(), samples)
        }
        _ => Threads::One,
    };
    let mut alone = Decoder::new(ctx)?;
    let mut distinct = Distinct::default();
    parallel::in_order(selection.series(), threads, begin, work, end, |series, done| {
        let Done::Floats { sizes, fresh, bad_quantiles, series: made } = done else {
            let (pace, samples) = (&mut exec.pace, &*series.samples);
            let column = alone.decode(pace, &selector.selector, samples, range_ms, Wanted::All)?;
            column.drop_stale_markers();
            distinct.give_up();
            return output.series(exec, kernel, windows, column, &series.labels, false);
        };
        for q in bad_quantiles {
            note_invalid_quantile(exec, q, kernel.scalar_place)?;
        }
        let produced = made.as_ref().map_or(0, |made| made.column.present());
        exec.samples.tally.all(sizes.total, fresh);
        output.count(exec, sizes, produced)?;
        let Some(made) = made else { return Ok(()) };
        if output.is_rate {
            output.note_unlikely_counter(exec, &series.labels)?;
        }
        if loses_name {
            distinct.add(&series.labels);
        }
        output.matrix.series.push(made);
        Ok(())
    })?;
    output.matrix.absorb(held.into_inner().unwrap_or_else(PoisonError::into_inner));
    if loses_name && !strips_name && !distinct.holds {
        output.matrix.series.iter_mut().for_each(|series| series.labels = without_metadata(&series.labels));
    }
    Ok(distinct.holds)
}

/// What a thread made of a series.
enum Done {
    /// All samples are floats, of which so many are new to the first window that holds them.
    Floats { sizes: WindowSizes, fresh: u64, bad_quantiles: Vec<f64>, series: Option<Series> },
    /// There are histograms or starts, which the query's own thread looks at.
    Undecided,
}

/// The last in order of the names that [`is_metadata`] knows.
const LAST_METADATA: &[u8] = b"__unit__";

/// Whether series still differ after they have lost their names: those do that had the same.
struct Distinct {
    name: Option<Vec<u8>>,
    holds: bool,
}

impl Default for Distinct {
    fn default() -> Self {
        Self { name: None, holds: true }
    }
}

impl Distinct {
    /// Adds a series with its name.
    fn add(&mut self, labels: &Labels) {
        if !self.holds {
            return;
        }
        let mut pairs = labels.iter_raw().peekable();
        let first = pairs.next_if(|pair| pair.name == METRIC_NAME.as_bytes());
        let lost = first.map_or(&[][..], |pair| pair.encoded);
        let is_same = self.name.get_or_insert_with(|| lost.to_vec()) == lost;
        // Pairs stand in the order of their names.
        let mut pairs = pairs.take_while(|pair| pair.name <= LAST_METADATA);
        self.holds = is_same && !pairs.any(|pair| is_metadata(pair.name));
    }

    fn give_up(&mut self) {
        self.holds = false;
    }
}

/// Windows of a range vector, one for each step.
#[derive(Clone, Copy)]
struct Windows {
    steps: Steps,
    offset_ms: i64,
    range_ms: i64,
    /// True if `@` fixes the window: that of the first step serves all.
    is_pinned: bool,
}

impl Windows {
    fn of(source: &RangeSource, steps: Steps) -> Self {
        let (offset_ms, range_ms, pinned_ms) = match source {
            RangeSource::Selector(RangeSelector { selector, range_ms, .. }) => {
                (selector.offset_from(steps.start()), *range_ms, selector.pinned_ms)
            }
            RangeSource::Subquery(sub @ Subquery { range_ms, pinned_ms, .. }) => {
                (sub.offset_from(steps.start()), *range_ms, *pinned_ms)
            }
        };
        Self { steps, offset_ms, range_ms, is_pinned: pinned_ms.is_some() }
    }

    /// The windows with so much more at either side.
    fn with_margins(self, (before_ms, after_ms): (i64, i64)) -> Self {
        Self {
            offset_ms: self.offset_ms.saturating_sub(after_ms),
            range_ms: self.range_ms.saturating_add(before_ms).saturating_add(after_ms),
            ..self
        }
    }

    /// True if there may be times between two windows.
    fn has_gaps(self) -> bool {
        self.range_ms < self.steps.interval() && self.steps.count() > 1 && !self.is_pinned
    }

    /// First and last time that matter, both inclusive.
    fn time_range(self) -> (i64, i64) {
        let last = if self.is_pinned { self.steps.start() } else { self.steps.last() };
        let first = self.steps.start().saturating_sub(self.offset_ms).saturating_sub(self.range_ms);
        (first.saturating_add(1), last.saturating_sub(self.offset_ms))
    }
}

/// How many samples the windows of one series hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct WindowSizes {
    largest: usize,
    last: usize,
    total: u64,
}

/// Calls `visit(step, window)` for each step whose window has samples. Steps without are passed over in one go.
fn slide(
    windows: Windows,
    column: &FloatColumn,
    mut visit: impl FnMut(usize, Window<'_>) -> Result<(), EvalError>,
) -> Result<WindowSizes, EvalError> {
    let timestamps = &column.timestamps;
    let mut sizes = WindowSizes::default();
    let (mut from, mut to, mut step) = (0, 0, 0);
    let (mut start_ms, mut end_ms) = (0, 0);
    while step < windows.steps.count() {
        let at_ms = windows.steps.at(step);
        if step == 0 || !windows.is_pinned {
            end_ms = at_ms.saturating_sub(windows.offset_ms);
            start_ms = end_ms.saturating_sub(windows.range_ms);
            while to < timestamps.len() && timestamps[to] <= end_ms {
                to += 1;
            }
            while from < to && timestamps[from] <= start_ms {
                from += 1;
            }
        }
        sizes.last = to - from;
        if from < to {
            sizes.largest = sizes.largest.max(to - from);
            sizes.total += (to - from) as u64;
            visit(step, Window { column, from, to, start_ms, end_ms, at_ms })?;
            step += 1;
            continue;
        }
        // Nothing here: go to the first step that sees the next sample.
        let Some(next_ms) = timestamps.get(to).filter(|_| !windows.is_pinned) else { break };
        step = (step + 1).max(windows.steps.first_at_or_after(next_ms.saturating_add(windows.offset_ms)));
    }
    Ok(sizes)
}

/// The result as it grows, and how it is counted.
struct Output<'a> {
    matrix: Matrix,
    builder: ColumnBuilder,
    call: &'a RangeCall,
    extension: Option<RangeExtension>,
    keeps_name: bool,
    /// Names need not be taken off.
    is_late: bool,
    is_rate: bool,
    /// Name of the metric that a remark was last considered for.
    last_noted: String,
}

impl Output<'_> {
    /// Adds what the function gives for the windows of one series.
    fn series(
        &mut self,
        exec: &mut Exec<'_>,
        kernel: &mut Kernel<'_>,
        windows: Windows,
        column: &SampleColumn,
        labels: &Labels,
        input_drops_name: bool,
    ) -> Result<(), EvalError> {
        let (call, builder) = (self.call, &mut self.builder);
        let name = labels.metric_name();
        let has_starts = !column.float_starts.is_empty() && exec.opts.use_start_timestamps;
        let sizes = if let Some(extension) = self.extension {
            let note = (name, call.source_range);
            extended::run(exec, &call.function, extension, windows, column, note, builder)?
        } else if column.histograms.is_empty() && !(has_starts && mixed::uses_starts(&call.function)) {
            kernel.run_noting(exec, windows, &column.floats, builder)?
        } else {
            kernel.run_mixed(exec, call, windows, column, name, builder)?
        };
        count::windows(exec, windows, column, sizes.total, matches!(call.source, RangeSource::Subquery(_)))?;
        let produced = self.builder.sample_count();
        self.count(exec, sizes, produced)?;
        let Some(values) = self.builder.finish() else { return Ok(()) };
        if self.is_rate && values.float_count() > 0 {
            self.note_unlikely_counter(exec, labels)?;
        }
        let drop_name = !self.keeps_name || input_drops_name;
        let labels =
            if drop_name && !exec.opts.delayed_name_removal { without_metadata(labels) } else { labels.clone() };
        self.matrix.push(Series { labels, drop_name, column: values })
    }

    /// Counts the windows of a series and what came of them.
    fn count(&self, exec: &mut Exec<'_>, sizes: WindowSizes, produced: usize) -> Result<(), EvalError> {
        // Prometheus holds the window of one series at a time beside the results of the series before it.
        exec.samples.probe(sizes.largest)?;
        exec.samples.probe(sizes.last + produced)?;
        exec.samples.hold(produced)
    }

    /// As the function of this name; neighbours mostly have the same name.
    fn note_unlikely_counter(&mut self, exec: &mut Exec<'_>, labels: &Labels) -> Result<(), EvalError> {
        let name = labels.metric_name();
        if !exec.opts.type_and_unit_labels && name == self.last_noted {
            return Ok(());
        }
        name.clone_into(&mut self.last_noted);
        note_unlikely_counter(exec, labels, self.call.source_range)
    }
}

/// Remarks that a metric with a rate does not look like a counter.
pub(crate) fn note_unlikely_counter(exec: &mut Exec<'_>, labels: &Labels, place: PosRange) -> Result<(), EvalError> {
    let name = labels.metric_name();
    if name.is_empty() {
        return Ok(());
    }
    if exec.opts.type_and_unit_labels {
        let kind = labels.get("__type__").unwrap_or("");
        if kind == "counter" || kind == "histogram" {
            return Ok(());
        }
        let (kind, quoted) = (go::quote(kind), go::quote(name));
        let text = format!(
            "metric might not be a counter, __type__ label is not set to \"counter\" or \"histogram\", got {kind}: {quoted}"
        );
        return exec.annotations.info(&text, place);
    }
    if ["_total", "_sum", "_count", "_bucket"].iter().any(|suffix| name.ends_with(suffix)) {
        return Ok(());
    }
    let quoted = go::quote(name);
    let text = format!("metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {quoted}");
    exec.annotations.info(&text, place)
}

/// A function with its scalars, ready for one series after the other.
struct Kernel<'a> {
    function: &'a RangeFunction,
    scalars: &'a [Matrix],
    /// Place of the first scalar's text.
    scalar_place: PosRange,
    scratch: Vec<f64>,
    /// Quantiles outside of 0 to 1 that windows asked for.
    bad_quantiles: Vec<f64>,
}

impl<'a> Kernel<'a> {
    fn of(call: &'a RangeCall, scalars: &'a [Matrix]) -> Self {
        let scalar_place = call.scalars.first().map(|node| node.range).unwrap_or_default();
        Self { function: &call.function, scalars, scalar_place, scratch: Vec::new(), bad_quantiles: Vec::new() }
    }

    fn scalar(&self, index: usize, step: usize) -> f64 {
        self.scalars.get(index).map_or(f64::NAN, |matrix| matrix.scalar_at(step))
    }

    fn run(
        &mut self,
        pace: &mut Pace<'_>,
        windows: Windows,
        column: &FloatColumn,
        out: &mut ColumnBuilder,
    ) -> Result<WindowSizes, EvalError> {
        match self.function {
            RangeFunction::Rate(kind) => run(pace, ExtrapolatedRate::new(*kind), windows, column, out),
            RangeFunction::Irate => run(pace, Plain(rate::irate), windows, column, out),
            RangeFunction::Idelta => run(pace, Plain(rate::idelta), windows, column, out),
            RangeFunction::Changes => run(pace, EventCount::changes(), windows, column, out),
            RangeFunction::Resets => run(pace, EventCount::resets(), windows, column, out),
            RangeFunction::Deriv => run(pace, Plain(regression::deriv), windows, column, out),
            RangeFunction::Avg => run_summed(pace, Summed::Avg, windows, column, out),
            RangeFunction::Sum => run_summed(pace, Summed::Sum, windows, column, out),
            RangeFunction::Count => run(pace, Plain(|w: Window<'_>| Some(w.len() as f64)), windows, column, out),
            RangeFunction::Min => run(pace, Extreme::new(ExtremeRule::Min), windows, column, out),
            RangeFunction::Max => run(pace, Extreme::new(ExtremeRule::Max), windows, column, out),
            RangeFunction::TimeOfMin => run(pace, Extreme::new(ExtremeRule::TimeOfMin), windows, column, out),
            RangeFunction::TimeOfMax => run(pace, Extreme::new(ExtremeRule::TimeOfMax), windows, column, out),
            RangeFunction::Stdvar => run(pace, Plain(over_time::variance), windows, column, out),
            RangeFunction::Stddev => {
                run(pace, Plain(|w: Window<'_>| over_time::variance(w).map(f64::sqrt)), windows, column, out)
            }
            RangeFunction::First => run(pace, Plain(|w: Window<'_>| w.values().first().copied()), windows, column, out),
            RangeFunction::Last => run(pace, Plain(|w: Window<'_>| w.values().last().copied()), windows, column, out),
            RangeFunction::Present | RangeFunction::Absent(_) => {
                run(pace, Plain(|_: Window<'_>| Some(1.0)), windows, column, out)
            }
            RangeFunction::TimeOfFirst => {
                run(pace, Plain(|w: Window<'_>| w.timestamps().first().map(seconds)), windows, column, out)
            }
            RangeFunction::TimeOfLast => {
                run(pace, Plain(|w: Window<'_>| w.timestamps().last().map(seconds)), windows, column, out)
            }
            RangeFunction::Mad => {
                let mut scratch = std::mem::take(&mut self.scratch);
                let mad = Plain(|w: Window<'_>| {
                    scratch.clear();
                    scratch.extend_from_slice(w.values());
                    Some(median_absolute_deviation(&mut scratch))
                });
                let sizes = run(pace, mad, windows, column, out);
                self.scratch = scratch;
                sizes
            }
            RangeFunction::Quantile => self.quantile(pace, windows, column, out),
            RangeFunction::PredictLinear => slide_counted(pace, windows, column, |step, window| {
                if let Some(value) = regression::predict_linear(window, self.scalar(0, step)) {
                    out.push(step, value);
                }
                Ok(())
            }),
            RangeFunction::Smoothing => slide_counted(pace, windows, column, |step, window| {
                let smoothing = Smoothing::new(self.scalar(0, step), self.scalar(1, step));
                if let Some(value) = smoothing.map_err(EvalError::Execution)?.smooth(window) {
                    out.push(step, value);
                }
                Ok(())
            }),
        }
    }

    fn quantile(
        &mut self,
        pace: &mut Pace<'_>,
        windows: Windows,
        column: &FloatColumn,
        out: &mut ColumnBuilder,
    ) -> Result<WindowSizes, EvalError> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut bad = std::mem::take(&mut self.bad_quantiles);
        let sizes = slide_counted(pace, windows, column, |step, window| {
            let q = self.scalar(0, step);
            if !(0.0..=1.0).contains(&q) && bad.last().map(|q: &f64| q.to_bits()) != Some(q.to_bits()) {
                bad.push(q);
            }
            scratch.clear();
            scratch.extend_from_slice(window.values());
            out.push(step, quantile(q, &mut scratch));
            Ok(())
        });
        (self.scratch, self.bad_quantiles) = (scratch, bad);
        sizes
    }

    /// As [`Self::run`], with the remarks.
    fn run_noting(
        &mut self,
        exec: &mut Exec<'_>,
        windows: Windows,
        column: &FloatColumn,
        out: &mut ColumnBuilder,
    ) -> Result<WindowSizes, EvalError> {
        let sizes = self.run(&mut exec.pace, windows, column, out)?;
        for q in std::mem::take(&mut self.bad_quantiles) {
            note_invalid_quantile(exec, q, self.scalar_place)?;
        }
        Ok(sizes)
    }
}

/// Warns about a quantile outside of 0 to 1.
pub(crate) fn note_invalid_quantile(exec: &mut Exec<'_>, q: f64, place: PosRange) -> Result<(), EvalError> {
    if (0.0..=1.0).contains(&q) {
        return Ok(());
    }
    let text = format!("quantile value should be between 0 and 1, got {}", go::format_float_g(q));
    exec.annotations.warn(&text, place)
}

fn seconds(at_ms: &i64) -> f64 {
    *at_ms as f64 / 1000.0
}

fn run(
    pace: &mut Pace<'_>,
    mut kernel: impl WindowKernel,
    windows: Windows,
    column: &FloatColumn,
    out: &mut ColumnBuilder,
) -> Result<WindowSizes, EvalError> {
    kernel.load(column);
    slide_counted(pace, windows, column, |step, window| {
        if let Some(value) = kernel.value(window) {
            out.push(step, value);
        }
        Ok(())
    })
}

/// Sums of windows, several at a time.
fn run_summed(
    pace: &mut Pace<'_>,
    summed: Summed,
    windows: Windows,
    column: &FloatColumn,
    out: &mut ColumnBuilder,
) -> Result<WindowSizes, EvalError> {
    let mut waiting: [(usize, &[f64]); LANES] = [(0, &[]); LANES];
    let mut count = 0;
    let sizes = slide_counted(pace, windows, column, |step, window| {
        waiting[count] = (step, &column.values[window.from..window.to]);
        count += 1;
        if count == LANES {
            count = 0;
            let values = summed.of_all(waiting.map(|(_, values)| values));
            waiting.iter().zip(values).for_each(|((step, _), value)| out.push(*step, value));
        }
        Ok(())
    })?;
    waiting.iter().take(count).for_each(|(step, values)| out.push(*step, summed.of(values)));
    Ok(sizes)
}

/// [`slide`] that looks at the deadline now and then.
fn slide_counted(
    pace: &mut Pace<'_>,
    windows: Windows,
    column: &FloatColumn,
    mut visit: impl FnMut(usize, Window<'_>) -> Result<(), EvalError>,
) -> Result<WindowSizes, EvalError> {
    slide(windows, column, |step, window| {
        pace.spend(window.len())?;
        visit(step, window)
    })
}

/// `absent_over_time`: one series with a 1 at each step at which no series has samples.
fn absent(exec: &mut Exec<'_>, present: &Matrix, labels: &Labels, steps: Steps) -> Result<Matrix, EvalError> {
    let mut matrix = Matrix::new(exec)?;
    if present.series.iter().any(|series| series.column.present() == steps.count()) {
        return Ok(matrix);
    }
    let _held = exec.charge(StepSet::len_for(steps.count()) + ColumnBuilder::len_for(steps.count()))?;
    let mut found = StepSet::with_steps(steps.count());
    for series in &present.series {
        exec.spend(series.column.present())?;
        found.insert_column(&series.column);
    }
    if let Some(column) = ones_outside(&found, steps) {
        matrix.push(Series { labels: labels.clone(), drop_name: true, column })?;
    }
    Ok(matrix)
}

/// A 1 at each step that is not in `found`.
pub(crate) fn ones_outside(found: &StepSet, steps: Steps) -> Option<StepColumn> {
    let mut builder = ColumnBuilder::new();
    (0..steps.count()).filter(|step| !found.contains(*step)).for_each(|step| builder.push(step, 1.0));
    builder.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn windows_hold_what_a_filter_finds(
            gaps in prop::collection::vec(1i64..40, 0..30),
            start in -50i64..100,
            interval in 1i64..60,
            count in 1usize..12,
            offset_ms in -30i64..30,
            range_ms in 1i64..100,
            is_pinned: bool,
        ) {
            let mut column = FloatColumn::default();
            let mut at = 0;
            for gap in gaps {
                at += gap;
                column.push(at, at as f64);
            }
            let end = start + interval * (count as i64 - 1);
            let windows = Windows { steps: Steps::new(start, end, interval), offset_ms, range_ms, is_pinned };
            let mut seen = Vec::new();
            let sizes = slide(windows, &column, |step, window| {
                seen.push((step, window.timestamps().to_vec()));
                Ok(())
            }).unwrap();
            let expected: Vec<_> = (0..count).filter_map(|step| {
                let end = windows.steps.at(if is_pinned { 0 } else { step }) - offset_ms;
                let inside = |t: &&i64| end - range_ms < **t && **t <= end;
                let inside: Vec<i64> = column.timestamps.iter().filter(inside).copied().collect();
                (!inside.is_empty()).then_some((step, inside))
            }).collect();
            prop_assert_eq!(sizes.total, expected.iter().map(|(_, w)| w.len() as u64).sum::<u64>());
            prop_assert_eq!(seen, expected);
        }
    }
}
