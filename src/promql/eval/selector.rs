//! Instant selectors: at each step the newest sample of each series that is not older than the lookback, unless that
//! sample is a stale marker.

use std::sync::{Arc, Mutex, PoisonError};

use crate::model::labels::Labels;
use crate::model::read::{FloatColumn, SampleColumn, SelectedSeries, Wanted};
use crate::model::sample::{is_stale, stale_nan};
use crate::promql::eval::column::ColumnBuilder;
use crate::promql::eval::error::EvalError;
use crate::promql::eval::exec::{Decoder, Exec, SeriesWorker, without_metadata};
use crate::promql::eval::ledger::Charge;
use crate::promql::eval::matrix::{Matrix, Series};
use crate::promql::eval::parallel::{self, Threads};
use crate::promql::eval::scalar;
use crate::promql::eval::steps::Steps;
use crate::promql::plan::{SampleTime, Selector};

/// Values of a selector.
pub(crate) fn instant(exec: &mut Exec<'_>, selector: &Selector, steps: Steps) -> Result<Matrix, EvalError> {
    let lookup = Lookup::of(selector, steps, exec.opts.lookback_ms);
    let range_ms = selector.clip(lookup.time_range());
    let selection = exec.select(selector, range_ms.0, range_ms.1)?;
    let (ctx, shortcuts) = (exec.ctx, exec.opts.shortcuts);
    let wanted = if shortcuts.newest_only && steps.count() == 1 { Wanted::Newest } else { Wanted::All };
    let samples = match wanted {
        Wanted::Newest => 1,
        Wanted::All => selection.sample_estimate(range_ms),
    };
    let begin = || {
        let scratch = ColumnBuilder::len_for(steps.count());
        let scratch = ctx.ledger.charge(scratch).map_err(|over| EvalError::Budget(over.to_string()))?;
        Ok((SeriesWorker::begin(ctx)?, scratch))
    };
    let work = |(worker, _): &mut (SeriesWorker<'_>, Charge), series: &SelectedSeries| {
        let (builder, pace) = (&mut worker.builder, &mut worker.pace);
        let column: &SampleColumn = worker.decoder.decode(pace, selector, &*series.samples, range_ms, wanted)?;
        if column.histograms.is_empty() {
            let floats = &column.floats;
            lookup.for_each(floats, |step, sample| builder.push(step, floats.values[sample]));
        } else {
            let timeline = Timeline::of(column);
            lookup.for_each(&timeline.all, |step, sample| timeline.push(column, sample, step, builder));
        }
        pace.spend(builder.present())?;
        let made = builder.finish().map(|column| Series { labels: series.labels.clone(), drop_name: false, column });
        worker.hold(made.as_ref().map_or(0, Series::bytes))?;
        Ok(made)
    };
    let held = Mutex::new(exec.charge(0)?);
    let end = |(worker, _): (SeriesWorker<'_>, Charge)| worker.end(&held);
    let threads = Threads::for_series(shortcuts.helpers, selection.series().len(), samples);
    let mut matrix = Matrix::new(exec)?;
    parallel::in_order(selection.series(), threads, begin, work, end, |_, made| {
        let held = made.as_ref().map_or(0, |made| made.column.sample_count());
        exec.samples.hold(held)?;
        if let Some(made) = &made {
            exec.samples.tally.values(&made.column);
        }
        matrix.series.extend(made);
        Ok(())
    })?;
    matrix.absorb(held.into_inner().unwrap_or_else(PoisonError::into_inner));
    Ok(matrix)
}

/// `timestamp(selector)` and `start_timestamp(selector)`: times of the samples in seconds.
pub(crate) fn timestamps(
    exec: &mut Exec<'_>,
    selector: &Selector,
    time: SampleTime,
    steps: Steps,
) -> Result<Matrix, EvalError> {
    // With `@`, Prometheus looks at the pinned time at every step and leaves the offset out there, but not where it asks
    // storage for samples.
    let pinned = selector.pinned_ms;
    let lookup_steps = if pinned.is_some() { Steps::instant(0) } else { steps };
    let offset_ms = pinned.map_or(selector.offset_ms, i64::wrapping_neg);
    let lookup = Lookup { steps: lookup_steps, offset_ms, lookback_ms: exec.opts.lookback_ms };
    let before = exec.samples.current();
    let delayed = exec.opts.delayed_name_removal;
    let mut matrix = Matrix::new(exec)?;
    visit(exec, selector, lookup.time_range(), steps, |exec, labels, column, builder| {
        let merged = (time != SampleTime::Own || !column.histograms.is_empty()).then(|| Timeline::of(column));
        let samples = merged.as_ref().map_or(&column.floats, |timeline| &timeline.all);
        let seconds = |sample: usize| match (time, &merged) {
            (SampleTime::Start, Some(timeline)) => timeline.start_ms(column, sample) as f64 / 1000.0,
            _ => samples.timestamps[sample] as f64 / 1000.0,
        };
        match pinned {
            Some(_) => lookup.for_each(samples, |_, sample| {
                for step in 0..steps.count() {
                    builder.push(step, seconds(sample));
                }
            }),
            None => lookup.for_each(samples, |step, sample| builder.push(step, seconds(sample))),
        }
        exec.spend(builder.present())?;
        let Some(column) = builder.finish() else { return Ok(()) };
        exec.samples.tally.values(&column);
        let labels = if delayed { labels.clone() } else { without_metadata(labels) };
        matrix.push(Series { labels, drop_name: true, column })
    })?;
    scalar::account(exec, before, &[&matrix], &matrix, steps)?;
    matrix.assemble(exec, steps)?;
    exec.samples.settle(before, matrix.sample_count());
    Ok(matrix)
}

/// Where the value of a step comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct SampleOrigin {
    /// The step.
    pub(super) step: usize,
    /// When the sample was taken.
    pub(super) at_ms: i64,
    /// True if it is a histogram.
    pub(super) is_histogram: bool,
}

/// Hands on each series of a selector with the origins of its values. With `@`, every step looks at that time.
pub(super) fn sample_times(
    exec: &mut Exec<'_>,
    selector: &Selector,
    steps: Steps,
    mut each: impl FnMut(&Labels, &[SampleOrigin]) -> Result<(), EvalError>,
) -> Result<(), EvalError> {
    let lookup_steps = selector.pinned_ms.map_or(steps, Steps::instant);
    let lookup = Lookup { steps: lookup_steps, offset_ms: selector.offset_ms, lookback_ms: exec.opts.lookback_ms };
    let mut origins = Vec::new();
    visit(exec, selector, lookup.time_range(), steps, |exec, labels, column, _| {
        let timeline = Timeline::of(column);
        origins.clear();
        lookup.for_each(&timeline.all, |step, sample| {
            let is_histogram = matches!(timeline.places.get(sample), Some(Place::Histogram(_)));
            let origin = SampleOrigin { step, at_ms: timeline.all.timestamps[sample], is_histogram };
            match selector.pinned_ms {
                Some(_) => origins.extend((0..steps.count()).map(|step| SampleOrigin { step, ..origin })),
                None => origins.push(origin),
            }
        });
        exec.samples.hold(origins.len())?;
        origins.iter().for_each(|origin| exec.samples.tally.at_step(origin.step, 1, 1));
        exec.spend(origins.len())?;
        if origins.is_empty() { Ok(()) } else { each(labels, &origins) }
    })
}

/// Selects, then decodes one series after the other and hands each to `each` with an empty builder.
pub(super) fn visit(
    exec: &mut Exec<'_>,
    selector: &Selector,
    time_range: (i64, i64),
    steps: Steps,
    mut each: impl FnMut(&mut Exec<'_>, &Labels, &SampleColumn, &mut ColumnBuilder) -> Result<(), EvalError>,
) -> Result<(), EvalError> {
    let (min_ms, max_ms) = selector.clip(time_range);
    let selection = exec.select(selector, min_ms, max_ms)?;
    let _scratch = exec.charge(ColumnBuilder::len_for(steps.count()))?;
    let mut builder = ColumnBuilder::new();
    let mut decoder = Decoder::new(exec.ctx)?;
    for series in selection.series() {
        let column: &SampleColumn =
            decoder.decode(&mut exec.pace, selector, &*series.samples, (min_ms, max_ms), Wanted::All)?;
        each(exec, &series.labels, column, &mut builder)?;
    }
    Ok(())
}

/// The samples of a series with floats and histograms, in the order of their times.
pub(super) struct Timeline {
    /// Times with the floats; 0 or the stale marker in the place of histograms.
    pub(super) all: FloatColumn,
    /// Where each sample stands.
    places: Vec<Place>,
}

#[derive(Clone, Copy)]
enum Place {
    Float(usize),
    Histogram(usize),
}

impl Timeline {
    pub(super) fn of(column: &SampleColumn) -> Self {
        let mut timeline = Self { all: FloatColumn::default(), places: Vec::with_capacity(column.len()) };
        let (floats, histograms) = (&column.floats, &column.histograms);
        let mut values = floats.timestamps.iter().zip(&floats.values).enumerate().peekable();
        for (place, (at_ms, histogram)) in histograms.timestamps.iter().zip(&histograms.values).enumerate() {
            while let Some((place, (at_ms, value))) = values.next_if(|(_, (float_ms, _))| *float_ms < at_ms) {
                timeline.push_sample(*at_ms, *value, Place::Float(place));
            }
            let value = if histogram.is_stale() { stale_nan() } else { 0.0 };
            timeline.push_sample(*at_ms, value, Place::Histogram(place));
        }
        for (place, (at_ms, value)) in values {
            timeline.push_sample(*at_ms, *value, Place::Float(place));
        }
        timeline
    }

    fn push_sample(&mut self, at_ms: i64, value: f64, place: Place) {
        self.all.push(at_ms, value);
        self.places.push(place);
    }

    /// Adds a sample to a column that is built.
    pub(super) fn push(&self, column: &SampleColumn, sample: usize, step: usize, builder: &mut ColumnBuilder) {
        match self.places.get(sample) {
            Some(Place::Float(place)) => builder.push(step, column.floats.values[*place]),
            Some(Place::Histogram(place)) => {
                builder.push_histogram(step, Arc::clone(&column.histograms.values[*place]));
            }
            None => {}
        }
    }

    /// When the counter of a sample began; 0 if that is not known.
    fn start_ms(&self, column: &SampleColumn, sample: usize) -> i64 {
        let start = match self.places.get(sample) {
            Some(Place::Float(place)) => column.float_starts.get(*place),
            Some(Place::Histogram(place)) => column.histogram_starts.get(*place),
            None => None,
        };
        start.copied().unwrap_or(0)
    }
}

/// Finds the sample that counts at each step.
#[derive(Clone, Copy)]
pub(super) struct Lookup {
    steps: Steps,
    offset_ms: i64,
    lookback_ms: i64,
}

impl Lookup {
    /// The samples of a selector.
    pub(super) fn of(selector: &Selector, steps: Steps, lookback_ms: i64) -> Self {
        Self { steps, offset_ms: selector.offset_from(steps.start()), lookback_ms }
    }

    /// First and last time that matter, both inclusive.
    pub(super) fn time_range(self) -> (i64, i64) {
        let first = self.steps.start().saturating_sub(self.offset_ms).saturating_sub(self.lookback_ms);
        (first.saturating_add(1), self.steps.last().saturating_sub(self.offset_ms))
    }

    /// Calls `found(step, index of the sample)` for each step that has one, in order.
    pub(super) fn for_each(self, column: &FloatColumn, mut found: impl FnMut(usize, usize)) {
        let timestamps = &column.timestamps;
        let first_step_of = |at_ms: i64| self.steps.first_at_or_after(at_ms.saturating_add(self.offset_ms));
        let Some(first_ms) = timestamps.first() else { return };
        let mut step = first_step_of(*first_ms);
        // Samples up to the step.
        let mut passed = 0;
        while step < self.steps.count() {
            let at_ms = self.steps.at(step).saturating_sub(self.offset_ms);
            while timestamps.get(passed).is_some_and(|sample_ms| *sample_ms <= at_ms) {
                passed += 1;
            }
            let newest = passed.checked_sub(1).and_then(|newest| Some((newest, timestamps.get(newest)?)));
            let in_reach = newest.filter(|(newest, sample_ms)| {
                at_ms < sample_ms.saturating_add(self.lookback_ms) && !is_stale(column.values[*newest])
            });
            if let Some((newest, _)) = in_reach {
                found(step, newest);
                step += 1;
                continue;
            }
            // Nothing here: go to the first step that sees the next sample.
            let Some(next_ms) = timestamps.get(passed) else { break };
            step = (step + 1).max(first_step_of(*next_ms));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(samples: &[(i64, f64)], offset_ms: i64, expected: &[(usize, f64)]) {
        let mut column = FloatColumn::default();
        for (at, value) in samples {
            column.push(*at, *value);
        }
        let lookup = Lookup { steps: Steps::new(100, 200, 20), offset_ms, lookback_ms: 30 };
        let mut found = Vec::new();
        lookup.for_each(&column, |step, index| found.push((step, column.values[index])));
        assert_eq!(found, expected);
    }

    #[test]
    fn newest_sample_within_the_lookback() {
        check(&[(70, 1.0), (140, 2.0)], 0, &[(2, 2.0), (3, 2.0)]);
        check(&[(71, 1.0), (139, 2.0), (140, 3.0)], 0, &[(0, 1.0), (2, 3.0), (3, 3.0)]);
        check(&[(71, 1.0), (140, 2.0)], 10, &[(0, 1.0), (3, 2.0)]);
        check(&[(195, 1.0)], -100, &[(0, 1.0), (1, 1.0)]);
        check(&[(190, 1.0)], -100, &[(0, 1.0)]);
    }

    #[test]
    fn stale_markers_end_a_series() {
        check(&[(100, 1.0), (110, stale_nan()), (160, 2.0)], 0, &[(0, 1.0), (3, 2.0), (4, 2.0)]);
    }
}
