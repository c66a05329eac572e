//! How fast series grow whose windows hold histograms, or samples with start timestamps: `rate`, `increase`, `delta`,
//! `irate`, `idelta`; and how often they change: `changes`, `resets`.

use std::sync::Arc;

use crate::model::histogram::{CounterResetHint, FloatHistogram};
use crate::model::read::HistogramColumn;
use crate::promql::functions::note::{HistogramUse, Note};
use crate::promql::functions::rate::{RateKind, duration_seconds};
use crate::promql::functions::start_time;
use crate::promql::functions::window::{Produced, SampleValue, SampleWindow, TimedSample};

/// For each histogram of a series whether there was a counter reset before it; found once for all windows.
#[derive(Debug, Default)]
pub(crate) struct HistogramResets(Vec<bool>);

impl HistogramResets {
    /// The resets of a series.
    pub(crate) fn of(column: &HistogramColumn) -> Self {
        let mut resets = vec![false];
        resets.extend(column.values.windows(2).map(|pair| pair[1].detect_reset(&pair[0])));
        Self(resets)
    }

    fn before(&self, window: &SampleWindow<'_>, place: usize) -> bool {
        self.0.get(window.histograms.0 + place).copied().unwrap_or(false)
    }
}

/// `rate`, `increase` and `delta`.
pub(crate) fn extrapolated(
    kind: RateKind,
    window: &SampleWindow<'_>,
    resets: &HistogramResets,
    notes: &mut Vec<Note>,
) -> Option<Produced> {
    let is_histogram = match (window.float_count(), window.histogram_count()) {
        (0, 0) => return None,
        (0, _) => true,
        (_, 0) => false,
        _ => {
            notes.push(Note::MixedFloatsHistograms);
            return None;
        }
    };
    let (times, first_start) = if is_histogram {
        (window.histogram_times(), window.histogram_start(0))
    } else {
        (window.float_times(), window.float_start(0))
    };
    let mut grown = if is_histogram {
        Growth::Histogram(if times.len() > 1 {
            Some(histogram_growth(kind.is_counter(), window, resets, notes)?)
        } else {
            None
        })
    } else {
        Growth::Float(float_growth(kind.is_counter(), window, notes))
    };
    let (first_ms, last_ms) = (*times.first()?, *times.last()?);
    let edges = Edges { window, first_ms, last_ms, intervals: times.len() - 1 };
    let has_start = kind.is_counter() && first_start != 0 && window.start_ms < first_start && first_start < first_ms;
    let factor = if has_start {
        // The counter was zero when it began; that is another sample.
        grown.add_first(window, notes)?;
        edges.factor_from(first_start)
    } else if edges.intervals == 0 {
        return None;
    } else {
        edges.factor(kind.is_counter().then(|| grown.share_of_first(window)).flatten())
    };
    let factor = if kind == RateKind::Rate { factor / window_seconds(window) } else { factor };
    Some(match grown {
        Growth::Float(grown) => Produced::Float(grown * factor),
        Growth::Histogram(grown) => {
            let mut grown = grown?;
            grown.mul(factor);
            Produced::Histogram(Arc::new(grown))
        }
    })
}

/// What a series grew by.
enum Growth {
    Float(f64),
    Histogram(Option<FloatHistogram>),
}

impl Growth {
    fn add_first(&mut self, window: &SampleWindow<'_>, notes: &mut Vec<Note>) -> Option<()> {
        match self {
            Self::Float(grown) => *grown += window.float_values().first()?,
            Self::Histogram(grown) => {
                let first = window.histogram_values().first()?;
                match grown {
                    None => *grown = Some(FloatHistogram::clone(first)),
                    Some(grown) => add(grown, first, notes)?,
                }
            }
        }
        Some(())
    }

    /// First value as a share of the growth, where both are not negative.
    fn share_of_first(&self, window: &SampleWindow<'_>) -> Option<f64> {
        let (first, grown) = match self {
            Self::Float(grown) => (*window.float_values().first()?, *grown),
            Self::Histogram(grown) => (window.histogram_values().first()?.count, grown.as_ref()?.count),
        };
        (grown > 0.0 && first >= 0.0).then(|| first / grown)
    }
}

/// Adds a histogram; `None` with a remark if that is not possible.
fn add(sum: &mut FloatHistogram, more: &FloatHistogram, notes: &mut Vec<Note>) -> Option<()> {
    match sum.add(more) {
        Ok(combined) => {
            if combined.bounds_reconciled {
                notes.push(Note::BoundsReconciled(HistogramUse::Addition));
            }
            Some(())
        }
        Err(_) => {
            notes.push(Note::MixedSchemas);
            None
        }
    }
}

struct Edges<'a> {
    window: &'a SampleWindow<'a>,
    first_ms: i64,
    last_ms: i64,
    intervals: usize,
}

impl Edges<'_> {
    fn average(&self) -> f64 {
        if self.intervals == 0 { 0.0 } else { self.sampled() / self.intervals as f64 }
    }

    fn sampled(&self) -> f64 {
        (self.last_ms - self.first_ms) as f64 / 1000.0
    }

    /// A sample missing at an edge means that the series ends in the window, about half an interval away.
    fn bounded(&self, to_edge: f64) -> f64 {
        if to_edge >= self.average() * 1.1 { self.average() / 2.0 } else { to_edge }
    }

    fn to_end(&self) -> f64 {
        self.bounded((self.window.end_ms - self.last_ms) as f64 / 1000.0)
    }

    /// Factor of the extrapolation where the series began at a known time.
    fn factor_from(&self, begin_ms: i64) -> f64 {
        let sampled = (self.last_ms - begin_ms) as f64 / 1000.0;
        if sampled == 0.0 { 1.0 } else { (sampled + 0.0 + self.to_end()) / sampled }
    }

    /// Factor of the extrapolation. A counter is not negative: it begins no earlier than where the line crosses zero.
    fn factor(&self, share_of_first: Option<f64>) -> f64 {
        let sampled = self.sampled();
        let mut to_start = self.bounded((self.first_ms - self.window.start_ms) as f64 / 1000.0);
        if let Some(share) = share_of_first {
            let to_zero = sampled * share;
            if to_zero < to_start {
                to_start = to_zero;
            }
        }
        if sampled == 0.0 { 1.0 } else { (sampled + to_start + self.to_end()) / sampled }
    }
}

fn window_seconds(window: &SampleWindow<'_>) -> f64 {
    duration_seconds(window.end_ms - window.start_ms)
}

fn float_growth(is_counter: bool, window: &SampleWindow<'_>, notes: &mut Vec<Note>) -> f64 {
    let values = window.float_values();
    let (first, last) = (values.first().copied().unwrap_or(0.0), values.last().copied().unwrap_or(0.0));
    let mut grown = last - first;
    if !is_counter {
        return grown;
    }
    let mut has_overlap = false;
    for place in 1..values.len() {
        let (before, now) = (window.float(place - 1), window.float(place));
        if !has_overlap && start_time::overlaps(&before, &now) {
            notes.push(Note::StartOverlap);
            has_overlap = true;
        }
        if values[place] < values[place - 1] || start_time::is_reset(&before, &now) {
            grown += values[place - 1];
        }
    }
    grown
}

/// Difference of last and first histogram, plus what was lost at each reset in between.
fn histogram_growth(
    is_counter: bool,
    window: &SampleWindow<'_>,
    resets: &HistogramResets,
    notes: &mut Vec<Note>,
) -> Option<FloatHistogram> {
    let points = window.histogram_values();
    let [first, second, ..] = points else { return None };
    let last = points.last()?;
    let is_gauge = |h: &FloatHistogram| h.counter_reset_hint == CounterResetHint::Gauge;
    let mut found = Vec::new();
    if is_counter && (is_gauge(first) || is_gauge(last)) {
        found.push(Note::NotCounter);
    }
    let has_start_reset = |place: usize| start_time::is_reset(&window.histogram(place - 1), &window.histogram(place));
    // After a reset behind the first histogram nothing of it matters, its layout neither.
    let emptied = (is_counter && (has_start_reset(1) || resets.before(window, 1))).then(|| FloatHistogram {
        schema: second.schema,
        custom_values: second.custom_values.clone(),
        ..FloatHistogram::default()
    });
    let first: &FloatHistogram = emptied.as_ref().unwrap_or(first);
    let is_custom = first.uses_custom_buckets();
    if last.uses_custom_buckets() != is_custom {
        notes.append(&mut found);
        notes.push(Note::MixedSchemas);
        return None;
    }
    let mut schema = last.schema.min(first.schema);
    if is_counter {
        for point in &points[1..points.len() - 1] {
            if is_gauge(point) {
                found.push(Note::NotCounter);
            }
            schema = schema.min(point.schema);
            if point.uses_custom_buckets() != is_custom {
                notes.push(Note::MixedSchemas);
                return None;
            }
        }
    }
    let mut grown = FloatHistogram::clone(last);
    grown.reduce_resolution(schema);
    let Ok(combined) = grown.sub(first) else {
        notes.push(Note::MixedSchemas);
        return None;
    };
    if combined.bounds_reconciled {
        found.push(Note::BoundsReconciled(HistogramUse::Subtraction));
    }
    if is_counter {
        let mut has_overlap = false;
        for (place, point) in points.iter().enumerate().skip(1) {
            if !has_overlap && start_time::overlaps(&window.histogram(place - 1), &window.histogram(place)) {
                found.push(Note::StartOverlap);
                has_overlap = true;
            }
            let before: &FloatHistogram = if place == 1 { first } else { &points[place - 1] };
            let is_reset = match &emptied {
                Some(emptied) if place == 1 => point.detect_reset(emptied),
                _ => resets.before(window, place),
            };
            if is_reset || has_start_reset(place) {
                let mut remarks = Vec::new();
                if add(&mut grown, before, &mut remarks).is_none() {
                    notes.append(&mut remarks);
                    return None;
                }
                found.append(&mut remarks);
            }
        }
    } else if !is_gauge(&points[0]) || !is_gauge(last) {
        found.push(Note::NotGauge);
    }
    notes.append(&mut found);
    grown.counter_reset_hint = CounterResetHint::Gauge;
    grown.compact(0);
    Some(grown)
}

/// `irate` (`is_rate`) and `idelta`: of the last two samples.
pub(crate) fn instant_value(is_rate: bool, window: &SampleWindow<'_>, notes: &mut Vec<Note>) -> Option<Produced> {
    let (before, now) = last_two(window)?;
    let elapsed_ms = now.at_ms - before.at_ms;
    if elapsed_ms == 0 {
        return None;
    }
    let is_start_reset = start_time::is_reset(&before, &now);
    let seconds = elapsed_ms as f64 / 1000.0;
    match (before.value, now.value) {
        (SampleValue::Float(first), SampleValue::Float(last)) => {
            let is_reset = is_rate && (last < first || is_start_reset);
            let grown = if is_reset { last } else { last - first };
            Some(Produced::Float(if is_rate { grown / seconds } else { grown }))
        }
        (SampleValue::Histogram(first), SampleValue::Histogram(last)) => {
            let mut grown = FloatHistogram::clone(last);
            let gauges = [first, last].map(|h| h.counter_reset_hint == CounterResetHint::Gauge);
            let mut found = Vec::new();
            if is_rate && gauges.contains(&true) {
                found.push(Note::NotCounter);
            }
            if !is_rate && gauges.contains(&false) {
                found.push(Note::NotGauge);
            }
            if !is_rate || (!is_start_reset && !last.detect_reset(first)) {
                match grown.sub(first) {
                    Ok(combined) if combined.bounds_reconciled => {
                        found.push(Note::BoundsReconciled(HistogramUse::Subtraction));
                    }
                    Ok(_) => {}
                    Err(_) => {
                        notes.append(&mut found);
                        notes.push(Note::MixedSchemas);
                        return None;
                    }
                }
            }
            notes.append(&mut found);
            grown.counter_reset_hint = CounterResetHint::Gauge;
            grown.compact(0);
            if is_rate {
                grown.div(seconds);
            }
            Some(Produced::Histogram(Arc::new(grown)))
        }
        _ => {
            notes.push(Note::MixedFloatsHistograms);
            None
        }
    }
}

fn last_two<'a>(window: &SampleWindow<'a>) -> Option<(TimedSample<'a>, TimedSample<'a>)> {
    let skip = |count: usize| count.saturating_sub(2);
    let mut tail = window.samples(skip(window.float_count()), skip(window.histogram_count()));
    let (mut before, mut now) = (tail.next()?, tail.next()?);
    for next in tail {
        (before, now) = (now, next);
    }
    Some((before, now))
}

/// `resets`: how often the counter began anew; a change of kind counts as well.
pub(crate) fn resets<'a>(samples: impl Iterator<Item = TimedSample<'a>>) -> f64 {
    count_pairs(samples, |before, now| match (before.value, now.value) {
        (SampleValue::Float(first), SampleValue::Float(last)) => last < first || start_time::is_reset(before, now),
        (SampleValue::Histogram(first), SampleValue::Histogram(last)) => {
            start_time::is_reset(before, now) || last.detect_reset(first)
        }
        _ => true,
    })
}

/// `changes`: how often the value changed, where one NaN is as good as another.
pub(crate) fn changes<'a>(samples: impl Iterator<Item = TimedSample<'a>>) -> f64 {
    count_pairs(samples, |before, now| match (before.value, now.value) {
        (SampleValue::Float(first), SampleValue::Float(last)) => last != first && !(last.is_nan() && first.is_nan()),
        (SampleValue::Histogram(first), SampleValue::Histogram(last)) => !last.equals(first),
        _ => true,
    })
}

fn count_pairs<'a>(
    samples: impl Iterator<Item = TimedSample<'a>>,
    counts: impl Fn(&TimedSample<'a>, &TimedSample<'a>) -> bool,
) -> f64 {
    let mut before: Option<TimedSample<'a>> = None;
    let mut count = 0.0;
    for now in samples {
        if before.is_some_and(|before| counts(&before, &now)) {
            count += 1.0;
        }
        before = Some(now);
    }
    count
}
