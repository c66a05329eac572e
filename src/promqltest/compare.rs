//! Comparison of a result with what a script expects.

use std::collections::BTreeSet;

use crate::model::go::format_float_g;
use crate::model::labels::Labels;
use crate::model::result::{Annotations, MatrixSeries, QueryValue, VectorElement};
use crate::promql::almost_equal;
use crate::promql::parser::SequenceValue;
use crate::promqltest::script::{Annotated, EvalCommand, EvalTimes};

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
            return Err(format!("expected {kind} annotation {text:?} but found {found:?}"));
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
            expected => Err(format!("expected string {expected:?} but got {text:?}")),
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

fn no_scalar(command: &EvalCommand) -> Result<(), String> {
    match command.scalar {
        Some(expected) => Err(format!("expected scalar {} but got series", format_float_g(expected))),
        None => Ok(()),
    }
}

fn all_seen(command: &EvalCommand, seen: &BTreeSet<&Labels>) -> Result<(), String> {
    match command.series.keys().find(|labels| !seen.contains(labels)) {
        Some(missing) => Err(format!("expected metric {missing} not found")),
        None => Ok(()),
    }
}

pub(crate) fn vector(command: &EvalCommand, elements: &[VectorElement]) -> Result<(), String> {
    no_scalar(command)?;
    let mut seen = BTreeSet::new();
    for (position, element) in elements.iter().enumerate() {
        let (labels, value) = (&element.labels, element.point.value);
        let Some(expected) = command.series.get(labels) else {
            return Err(format!("unexpected metric {labels} in result, has value {}", format_float_g(value)));
        };
        if command.is_ordered && expected.position != position {
            return Err(format!("expected {labels} at position {} but was at {position}", expected.position));
        }
        match expected.values.first() {
            Some(SequenceValue::Float(expected)) => equal(*expected, value, &labels.to_string())?,
            Some(SequenceValue::Omitted) => equal(0.0, value, &labels.to_string())?,
            Some(SequenceValue::Histogram { .. }) => {
                return Err(format!("expected a histogram for {labels} but got a float"));
            }
            None => return Err(format!("no value is expected for {labels}")),
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
        let Some(expected) = command.series.get(labels) else {
            return Err(format!("unexpected metric {labels} in result, has {:?}", series.points));
        };
        let mut points = Vec::new();
        for (step, value) in (0i64..).zip(&expected.values) {
            let at_ms = start_ms + step * step_ms;
            match value {
                _ if at_ms > end_ms => {
                    return Err(format!("more points are expected for {labels} than the times allow"));
                }
                SequenceValue::Float(value) => points.push((at_ms, *value)),
                SequenceValue::Omitted => {}
                SequenceValue::Histogram { .. } => {
                    return Err(format!("expected histograms for {labels} but got floats"));
                }
            }
        }
        let found: Vec<(i64, f64)> = series.points.iter().map(|p| (p.at.0, p.value)).collect();
        let same_times = points.len() == found.len() && points.iter().zip(&found).all(|(a, b)| a.0 == b.0);
        if !same_times {
            return Err(format!("expected {points:?} for {labels} but got {found:?}"));
        }
        for ((at_ms, expected), (_, value)) in points.iter().zip(&found) {
            equal(*expected, *value, &format!("{labels} at {at_ms} ms"))?;
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
