//! Comparison of a result with what a script expects.

use std::collections::BTreeSet;

use crate::model::go::format_float_g;
use crate::model::histogram::FloatHistogram;
use crate::model::labels::Labels;
use crate::model::result::{Annotations, MatrixSeries, QueryValue, VectorElement};
use crate::promql::almost_equal;
use crate::promql::parser::SequenceValue;
use crate::promqltest::script::{Annotated, EvalCommand, EvalTimes};
use crate::promqltest::show;

/// Relative error that is allowed.
const TOLERANCE: f64 = 0.000_001;

/// Compares warnings and infos. The error says what differs.
pub(crate) fn annotations(command: &EvalCommand, found: &Annotations) -> Result<(), String> {
    one_kind("warn", &command.warnings, &found.warnings)?;
    one_kind("info", &command.infos, &found.infos)
}

fn one_kind(kind: &str, expected: &Annotated, found: &[String]) -> Result<(), String> {
    if expected.some && found.is_empty() {
        return Err(format!("expected {kind} annotations but got none"));
    }
    if expected.none && !found.is_empty() {
        return Err(format!("unexpected {kind} annotations: {found:?}"));
    }
    if expected.expected.is_empty() {
        return Ok(());
    }
    if found.is_empty() {
        return Err(format!("expected {kind} annotations but none were found"));
    }
    for text in &expected.expected {
        if !found.iter().any(|f| text.accepts(f)) {
            return Err(format!("expected {kind} annotation {text} but found {found:?}"));
        }
    }
    match found.iter().find(|f| !expected.expected.iter().any(|text| text.accepts(f))) {
        Some(extra) => Err(format!("unexpected {kind} annotation {extra:?}")),
        None => Ok(()),
    }
}

/// Compares a value. The error says what differs.
pub(crate) fn value(command: &EvalCommand, found: &QueryValue) -> Result<(), String> {
    match found {
        QueryValue::Scalar(point) => match command.scalar {
            Some(expected) => equal(expected, point.value, "the scalar"),
            None => Err(format!("expected vector or matrix result, but got scalar {}", format_float_g(point.value))),
        },
        QueryValue::Text { text, .. } => match &command.text {
            Some(expected) if expected == text => Ok(()),
            Some(expected) => Err(format!("expected string {expected:?} but got {text:?}")),
            None => Err(format!("expected no string, but got {text:?}")),
        },
        QueryValue::Vector(elements) => vector(command, elements),
        QueryValue::Matrix(series) => matrix(command, series),
    }
}

fn equal(expected: f64, found: f64, what: &str) -> Result<(), String> {
    if almost_equal(expected, found, TOLERANCE) {
        return Ok(());
    }
    Err(format!("expected {} for {what} but got {}", format_float_g(expected), format_float_g(found)))
}

/// Compares histograms as they are when all empty buckets are gone; hints only where one is expected.
fn equal_histograms(
    expected: &FloatHistogram,
    found: &FloatHistogram,
    hint_set: bool,
    what: &str,
) -> Result<(), String> {
    let close = |a: f64, b: f64| almost_equal(a, b, TOLERANCE);
    let all_close = |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| close(*a, *b));
    let (mut a, mut b) = (expected.clone(), found.clone());
    a.compact(0);
    b.compact(0);
    let is_equal = a.schema == b.schema
        && close(a.count, b.count)
        && close(a.sum, b.sum)
        && (!a.uses_custom_buckets() || a.custom_values == b.custom_values)
        && a.zero_threshold == b.zero_threshold
        && close(a.zero_count, b.zero_count)
        && a.has_layout_of(&b)
        && all_close(&a.negative_buckets, &b.negative_buckets)
        && all_close(&a.positive_buckets, &b.positive_buckets)
        && (!hint_set || a.counter_reset_hint == b.counter_reset_hint);
    if is_equal {
        return Ok(());
    }
    Err(format!("expected {} for {what} but got {}", expected.test_expression(), found.test_expression()))
}

/// The points of a series, for messages.
fn shown(series: &MatrixSeries) -> String {
    let floats = series.points.iter().map(|p| format!("{} @{}", format_float_g(p.value), p.at.0));
    let histograms = series.histograms.iter().map(|p| format!("{} @{}", p.histogram.test_expression(), p.at.0));
    floats.chain(histograms).collect::<Vec<_>>().join(", ")
}

fn no_scalar(command: &EvalCommand) -> Result<(), String> {
    match command.scalar {
        Some(expected) => Err(format!("expected scalar {} but got series", format_float_g(expected))),
        None => Ok(()),
    }
}

fn all_seen(command: &EvalCommand, seen: &BTreeSet<&Labels>) -> Result<(), String> {
    match command.series.keys().find(|labels| !seen.contains(labels)) {
        Some(missing) => Err(format!("expected metric {} not found", show::Series(missing))),
        None => Ok(()),
    }
}

pub(crate) fn vector(command: &EvalCommand, elements: &[VectorElement]) -> Result<(), String> {
    no_scalar(command)?;
    let mut seen = BTreeSet::new();
    for (position, element) in elements.iter().enumerate() {
        let (labels, value) = (&element.labels, element.point.value);
        let name = show::Series(labels);
        let Some(expected) = command.series.get(labels) else {
            let value = element.histogram.as_ref().map_or_else(|| format_float_g(value), |h| h.test_expression());
            return Err(format!("unexpected metric {name} in result, has value {value}"));
        };
        if command.is_ordered && expected.position != position {
            return Err(format!("expected {name} at position {} but was at {position}", expected.position));
        }
        match (expected.values.first(), &element.histogram) {
            (Some(SequenceValue::Float(expected)), None) => equal(*expected, value, &name.to_string())?,
            (Some(SequenceValue::Omitted), None) => equal(0.0, value, &name.to_string())?,
            (Some(SequenceValue::Histogram { histogram, counter_reset_hint_set }), Some(found)) => {
                equal_histograms(histogram, found, *counter_reset_hint_set, &name.to_string())?;
            }
            (Some(SequenceValue::Histogram { .. }), None) => {
                return Err(format!("expected a histogram for {name} but got {}", format_float_g(value)));
            }
            (Some(_), Some(found)) => {
                return Err(format!("expected a float for {name} but got {}", found.test_expression()));
            }
            (None, _) => return Err(format!("no value is expected for {name}")),
        }
        seen.insert(labels);
    }
    all_seen(command, &seen)
}

fn matrix(command: &EvalCommand, all: &[MatrixSeries]) -> Result<(), String> {
    if command.is_ordered {
        return Err("expected ordered result, but query returned a matrix".to_owned());
    }
    no_scalar(command)?;
    sorted(all)?;
    let (start_ms, end_ms, step_ms) = match (command.range_vector, command.times) {
        (Some(times), _) => times,
        (None, EvalTimes::Range { start_ms, end_ms, step_ms }) => (start_ms, end_ms, step_ms),
        (None, EvalTimes::Instant { at_ms }) => (at_ms, at_ms, 1),
    };
    let mut seen = BTreeSet::new();
    for series in all {
        let labels = &series.labels;
        let name = show::Series(labels);
        let Some(expected) = command.series.get(labels) else {
            return Err(format!("unexpected metric {name} in result, has {}", shown(series)));
        };
        let mut points = Vec::new();
        let mut histograms = Vec::new();
        for (step, value) in (0i64..).zip(&expected.values) {
            let at_ms = start_ms + step * step_ms;
            match value {
                _ if at_ms > end_ms => {
                    return Err(format!("more points are expected for {name} than the times allow"));
                }
                SequenceValue::Float(value) => points.push((at_ms, *value)),
                SequenceValue::Omitted => {}
                SequenceValue::Histogram { histogram, counter_reset_hint_set } => {
                    histograms.push((at_ms, histogram, *counter_reset_hint_set));
                }
            }
        }
        let found: Vec<(i64, f64)> = series.points.iter().map(|p| (p.at.0, p.value)).collect();
        let same_times = points.len() == found.len() && points.iter().zip(&found).all(|(a, b)| a.0 == b.0);
        if !same_times {
            return Err(format!("expected {points:?} for {name} but got {}", shown(series)));
        }
        let same_histogram_times = histograms.len() == series.histograms.len()
            && histograms.iter().zip(&series.histograms).all(|(a, b)| a.0 == b.at.0);
        if !same_histogram_times {
            let times: Vec<i64> = histograms.iter().map(|(at_ms, ..)| *at_ms).collect();
            return Err(format!("expected histograms at {times:?} ms for {name} but got {}", shown(series)));
        }
        for ((at_ms, expected), (_, value)) in points.iter().zip(&found) {
            equal(*expected, *value, &format!("{name} at {at_ms} ms"))?;
        }
        for ((at_ms, expected, hint_set), found) in histograms.iter().zip(&series.histograms) {
            equal_histograms(expected, &found.histogram, *hint_set, &format!("{name} at {at_ms} ms"))?;
        }
        seen.insert(labels);
    }
    all_seen(command, &seen)
}

/// Errors unless the series are sorted by labels.
pub(crate) fn sorted(all: &[MatrixSeries]) -> Result<(), String> {
    match all.windows(2).find(|pair| pair[0].labels > pair[1].labels) {
        Some(pair) => Err(format!("matrix is not sorted: {} comes before {}", pair[0].labels, pair[1].labels)),
        None => Ok(()),
    }
}
