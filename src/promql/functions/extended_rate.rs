//! `rate`, `increase`, `delta`, `changes` and `resets` of `anchored` and `smoothed` windows: instead of extrapolating, they
//! take the value at a window's edge from the sample before it, or from the line between the samples around it.
//!
//! The windows here hold the samples beyond the edges as well, as far as the lookback reaches.

use std::sync::Arc;

use crate::model::histogram::{CounterResetHint, FloatHistogram, IncompatibleSchemas};
use crate::model::read::FloatColumn;
use crate::promql::ast::RangeExtension;
use crate::promql::functions::note::{HistogramUse, Note};
use crate::promql::functions::rate::{RateKind, duration_seconds};
use crate::promql::functions::window::{Produced, SampleWindow, TimedSample};

/// The window proper, and how its edges are treated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    /// Start of the window.
    pub(crate) start_ms: i64,
    /// End of the window.
    pub(crate) end_ms: i64,
    /// Which modifier.
    pub(crate) extension: RangeExtension,
}

impl Extent {
    fn is_smoothed(self) -> bool {
        self.extension == RangeExtension::Smoothed
    }

    /// Places of the first and the last sample that matter; `None` if none does.
    fn places(self, times: &[i64]) -> Option<(usize, usize)> {
        let end = times.len().checked_sub(1)?;
        let but_last = times.get(..end)?;
        let first = but_last.partition_point(|at| *at <= self.start_ms).saturating_sub(1);
        let last = if self.is_smoothed() { but_last.partition_point(|at| *at < self.end_ms) } else { end };
        let (first_ms, last_ms) = (*times.get(first)?, *times.get(last)?);
        let is_outside = last_ms <= self.start_ms || (self.is_smoothed() && first_ms > self.end_ms);
        (!is_outside).then_some((first, last))
    }
}

/// `rate`, `increase` or `delta`.
pub(crate) fn rate(
    kind: RateKind,
    window: &SampleWindow<'_>,
    extent: Extent,
    notes: &mut Vec<Note>,
) -> Option<Produced> {
    match (window.float_count(), window.histogram_count()) {
        (0, 0) => None,
        (0, _) => histogram_rate(kind, window, extent, notes).map(|grown| Produced::Histogram(Arc::new(grown))),
        (_, 0) => float_rate(kind, window, extent).map(Produced::Float),
        _ => {
            notes.push(Note::MixedFloatsHistograms);
            None
        }
    }
}

fn float_rate(kind: RateKind, window: &SampleWindow<'_>, extent: Extent) -> Option<f64> {
    let (times, values) = (window.float_times(), window.float_values());
    let (mut first, mut last) = extent.places(times)?;
    let left = left_value(times, values, first, extent, kind.is_counter())?;
    let right = right_value(times, values, last, extent, kind.is_counter())?;
    let mut grown = right - left;
    if kind.is_counter() {
        // Resets at the edges are in the interpolated values; those between samples inside are left.
        first += usize::from(times.get(first).is_some_and(|at| *at <= extent.start_ms));
        let end = if times.get(last).is_some_and(|at| *at >= extent.end_ms) { last } else { last + 1 };
        last = end.max(first);
        let mut before = left;
        let mut lost = 0.0;
        for value in values.get(first..last).unwrap_or(&[]).iter().chain([&right]) {
            if *value < before {
                lost += before;
            }
            before = *value;
        }
        grown += lost;
    }
    Some(if kind == RateKind::Rate { grown / duration_seconds(extent.end_ms - extent.start_ms) } else { grown })
}

fn left_value(times: &[i64], values: &[f64], first: usize, extent: Extent, is_counter: bool) -> Option<f64> {
    let value = *values.get(first)?;
    if extent.is_smoothed() && *times.get(first)? < extent.start_ms {
        let next = (*times.get(first + 1)?, *values.get(first + 1)?);
        return Some(interpolate((*times.get(first)?, value), next, extent.start_ms, is_counter));
    }
    Some(value)
}

fn right_value(times: &[i64], values: &[f64], last: usize, extent: Extent, is_counter: bool) -> Option<f64> {
    let value = *values.get(last)?;
    if extent.is_smoothed() && last > 0 && *times.get(last)? > extent.end_ms {
        let before = (*times.get(last - 1)?, *values.get(last - 1)?);
        return Some(interpolate(before, (*times.get(last)?, value), extent.end_ms, is_counter));
    }
    Some(value)
}

/// The value at a time on the line between two samples. A counter that was reset between them is taken to have been zero at
/// the first.
pub(crate) fn interpolate(first: (i64, f64), second: (i64, f64), at_ms: i64, is_counter: bool) -> f64 {
    let from = if is_counter && second.1 < first.1 { 0.0 } else { first.1 };
    from + (second.1 - from) * (at_ms - first.0) as f64 / (second.0 - first.0) as f64
}

/// A histogram with its time.
pub(crate) type HistogramAt<'a> = (i64, &'a FloatHistogram);

/// [`interpolate`] for histograms.
pub(crate) fn interpolate_histograms(
    first: HistogramAt<'_>,
    second: HistogramAt<'_>,
    at_ms: i64,
    is_counter: bool,
    notes: &mut Vec<Note>,
) -> Result<FloatHistogram, IncompatibleSchemas> {
    if at_ms == first.0 {
        return Ok(first.1.clone());
    }
    if at_ms == second.0 {
        return Ok(second.1.clone());
    }
    let fraction = (at_ms - first.0) as f64 / (second.0 - first.0) as f64;
    let mut result = second.1.clone();
    if is_counter && second.1.detect_reset(first.1) {
        result.mul(fraction);
        return Ok(result);
    }
    if result.sub(first.1)?.bounds_reconciled {
        notes.push(Note::BoundsReconciled(HistogramUse::Subtraction));
    }
    result.mul(fraction);
    if result.add(first.1)?.bounds_reconciled {
        notes.push(Note::BoundsReconciled(HistogramUse::Addition));
    }
    Ok(result)
}

fn histogram_rate(
    kind: RateKind,
    window: &SampleWindow<'_>,
    extent: Extent,
    notes: &mut Vec<Note>,
) -> Option<FloatHistogram> {
    let (times, points) = (window.histogram_times(), window.histogram_values());
    let (first, last) = extent.places(times)?;
    let is_counter = kind.is_counter();
    let is_gauge = |h: &FloatHistogram| h.counter_reset_hint == CounterResetHint::Gauge;
    let is_custom = points.get(first)?.uses_custom_buckets();
    for point in points.get(first..=last)? {
        if point.uses_custom_buckets() != is_custom {
            notes.push(Note::MixedSchemas);
            return None;
        }
        if is_counter && is_gauge(point) {
            notes.push(Note::NotCounter);
        }
    }
    let at = |place: usize| Some((*times.get(place)?, &**points.get(place)?));
    let left = if extent.is_smoothed() && *times.get(first)? < extent.start_ms {
        interpolate_histograms(at(first)?, at(first + 1)?, extent.start_ms, is_counter, notes)
    } else {
        Ok(at(first)?.1.clone())
    };
    let left = or_note(left, notes)?;
    let right = if extent.is_smoothed() && last > 0 && *times.get(last)? > extent.end_ms {
        interpolate_histograms(at(last - 1)?, at(last)?, extent.end_ms, is_counter, notes)
    } else {
        Ok(at(last)?.1.clone())
    };
    let right = or_note(right, notes)?;
    if !is_counter && (!is_gauge(&left) || !is_gauge(&right)) {
        notes.push(Note::NotGauge);
    }
    let mut grown = right.clone();
    if or_note(grown.sub(&left), notes)?.bounds_reconciled {
        notes.push(Note::BoundsReconciled(HistogramUse::Subtraction));
    }
    if is_counter {
        let lost = lost_at_resets(window, extent, (first, last), &left, &right, notes)?;
        if let Some(lost) = lost {
            add(&mut grown, &lost, notes)?;
        }
    }
    if kind == RateKind::Rate {
        grown.div(duration_seconds(extent.end_ms - extent.start_ms));
    }
    grown.counter_reset_hint = CounterResetHint::Gauge;
    grown.compact(0);
    Some(grown)
}

/// What the counter lost at resets between the edges; the inner `None` if nothing.
fn lost_at_resets(
    window: &SampleWindow<'_>,
    extent: Extent,
    (first, last): (usize, usize),
    left: &FloatHistogram,
    right: &FloatHistogram,
    notes: &mut Vec<Note>,
) -> Option<Option<FloatHistogram>> {
    let (times, points) = (window.histogram_times(), window.histogram_values());
    let mut from = first + 1;
    let mut before = left;
    if extent.is_smoothed() && *times.get(first)? < extent.start_ms {
        let (earlier, later) = (points.get(first)?, points.get(first + 1)?);
        if later.detect_reset(earlier) {
            // The value at the left edge has this reset in it.
            before = later;
            from += 1;
        }
    }
    // Nothing lies between the edges: one sample, or the only pair of samples has its reset at the left edge.
    if from > last {
        return Some(None);
    }
    let mut lost: Option<FloatHistogram> = None;
    let mut lose = |before: &FloatHistogram, notes: &mut Vec<Note>| match &mut lost {
        None => {
            lost = Some(before.clone());
            Some(())
        }
        Some(lost) => add(lost, before, notes),
    };
    for point in points.get(from..last)? {
        if point.detect_reset(before) {
            lose(before, notes)?;
        }
        before = point;
    }
    if right.detect_reset(before) {
        lose(before, notes)?;
    }
    Some(lost)
}

fn add(sum: &mut FloatHistogram, more: &FloatHistogram, notes: &mut Vec<Note>) -> Option<()> {
    if or_note(sum.add(more), notes)?.bounds_reconciled {
        notes.push(Note::BoundsReconciled(HistogramUse::Addition));
    }
    Some(())
}

fn or_note<T>(result: Result<T, IncompatibleSchemas>, notes: &mut Vec<Note>) -> Option<T> {
    if result.is_err() {
        notes.push(Note::MixedSchemas);
    }
    result.ok()
}

/// The samples that `changes` and `resets` of an anchored window look at: the newest one at or before its start, and all
/// behind that. `None` if there is none behind it.
pub(crate) fn anchored<'a>(
    window: &SampleWindow<'a>,
    start_ms: i64,
) -> Option<impl Iterator<Item = TimedSample<'a>> + use<'a>> {
    let (floats, histograms) = (window.float_times(), window.histogram_times());
    let float = floats.partition_point(|at| *at <= start_ms);
    let histogram = histograms.partition_point(|at| *at <= start_ms);
    if float >= floats.len() && histogram >= histograms.len() {
        return None;
    }
    let before = |times: &[i64], place: usize| place.checked_sub(1).and_then(|place| times.get(place)).copied();
    Some(match (before(floats, float), before(histograms, histogram)) {
        (None, None) => window.samples(0, 0),
        (Some(float_ms), anchor) if anchor.is_none_or(|at| float_ms >= at) => window.samples(float - 1, histogram),
        _ => window.samples(float, histogram - 1),
    })
}

/// Floats of a range selector that stands alone: those inside, and the values at both edges. Empty if nothing is inside.
pub(crate) fn bounded(column: &FloatColumn, extent: Extent) -> FloatColumn {
    let (times, values) = (&column.timestamps, &column.values);
    let mut out = FloatColumn::default();
    let Some(end) = times.len().checked_sub(1) else { return out };
    let first = times[..end].partition_point(|at| *at <= extent.start_ms).saturating_sub(1);
    let last = if extent.is_smoothed() { times[..end].partition_point(|at| *at < extent.end_ms) } else { end };
    if times[last] <= extent.start_ms {
        return out;
    }
    let edges = (left_value(times, values, first, extent, false), right_value(times, values, last, extent, false));
    let (Some(left), Some(right)) = edges else { return out };
    out.push(extent.start_ms, left);
    for (at_ms, value) in times.iter().zip(values).take(last + 1).skip(first) {
        if extent.start_ms < *at_ms && *at_ms < extent.end_ms {
            out.push(*at_ms, *value);
        }
    }
    out.push(extent.end_ms, right);
    out
}

/// The histogram at a time: that of a sample, one between the samples around it, or the newest one if none follows. It is a
/// counter unless both samples are gauges.
pub(crate) fn smoothed_histogram(
    window: &SampleWindow<'_>,
    at_ms: i64,
    notes: &mut Vec<Note>,
) -> Option<Arc<FloatHistogram>> {
    let (times, values) = (window.histogram_times(), window.histogram_values());
    let next = times.partition_point(|at| *at < at_ms);
    let before = next.checked_sub(1).and_then(|place| Some((*times.get(place)?, values.get(place)?)));
    let Some((next_ms, after)) = times.get(next).zip(values.get(next)) else {
        let mut carried = FloatHistogram::clone(before?.1);
        // The hint tells of two neighbours, and not of the value.
        carried.counter_reset_hint = CounterResetHint::Unknown;
        return Some(Arc::new(carried));
    };
    if *next_ms == at_ms {
        return Some(Arc::clone(after));
    }
    let (before_ms, before) = before?;
    if before.uses_custom_buckets() != after.uses_custom_buckets() {
        notes.push(Note::MixedSchemas);
        return None;
    }
    let is_counter = [before, after].iter().any(|h| h.counter_reset_hint != CounterResetHint::Gauge);
    let between = interpolate_histograms((before_ms, before), (*next_ms, after), at_ms, is_counter, notes);
    or_note(between, notes).map(Arc::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::read::SampleColumn;

    /// Values at 0, 10, 20, … seconds.
    fn column(values: &[f64]) -> SampleColumn {
        let mut column = SampleColumn::default();
        (0i64..).zip(values).for_each(|(place, value)| column.floats.push(place * 10_000, *value));
        column
    }

    #[track_caller]
    fn check(extension: RangeExtension, values: &[f64], edges_s: (i64, i64), expected: Option<f64>) {
        let column = column(values);
        let (start_ms, end_ms) = (edges_s.0 * 1000, edges_s.1 * 1000);
        let to = match extension {
            RangeExtension::Anchored => column.floats.timestamps.partition_point(|at| *at <= end_ms),
            RangeExtension::Smoothed => column.floats.len(),
        };
        let window =
            SampleWindow { column: &column, floats: (0, to), histograms: (0, 0), start_ms: 0, end_ms, at_ms: end_ms };
        let grown = rate(RateKind::Increase, &window, Extent { start_ms, end_ms, extension }, &mut Vec::new());
        let grown = grown.map(|grown| match grown {
            Produced::Float(value) => value,
            Produced::Histogram(histogram) => panic!("{histogram}"),
        });
        assert_eq!(grown, expected);
    }

    #[test]
    fn anchored_windows_begin_with_the_sample_before_them() {
        check(RangeExtension::Anchored, &[1.0, 3.0, 6.0, 10.0], (15, 35), Some(7.0));
        // The counter began anew: what it had reached counts as well.
        check(RangeExtension::Anchored, &[1.0, 3.0, 2.0, 5.0], (5, 35), Some(7.0));
        check(RangeExtension::Anchored, &[1.0, 3.0], (15, 35), None);
    }

    #[test]
    fn smoothed_windows_have_their_edges_on_the_line() {
        check(RangeExtension::Smoothed, &[0.0, 10.0, 30.0, 40.0], (5, 15), Some(15.0));
        // The counter was zero at the sample before its reset.
        check(RangeExtension::Smoothed, &[100.0, 10.0, 20.0], (5, 20), Some(15.0));
    }

    #[test]
    fn the_anchor_is_the_newest_sample_before_the_window() {
        let column = column(&[1.0, 2.0, 3.0]);
        let window =
            SampleWindow { column: &column, floats: (0, 3), histograms: (0, 0), start_ms: 0, end_ms: 0, at_ms: 0 };
        let count = |start_ms| anchored(&window, start_ms).map(Iterator::count);
        assert_eq!([count(-1), count(0), count(15_000), count(20_000)], [Some(3), Some(3), Some(2), None]);
    }
}
