//! What was expected and what was found, in lines that can be read side by side.

use std::fmt::{self, Display};

use crate::model::go::format_float_g;
use crate::model::labels::{Labels, METRIC_NAME, is_legacy_metric_name};
use crate::model::result::{Annotations, MatrixSeries, QueryValue, VectorElement};
use crate::promql::parser::SequenceValue;
use crate::promqltest::script::{Annotated, EvalCommand, EvalTimes, ExpectedSeries, Text};

/// Most lines of a side; the rest is counted.
const LINES_MAX: usize = 20;
/// Most values of a series; the rest is counted.
const VALUES_MAX: usize = 50;

/// A series as scripts write it.
pub(super) struct Series<'a>(pub(super) &'a Labels);

impl fmt::Display for Series<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.0.metric_name();
        if !is_legacy_metric_name(name) {
            return self.0.fmt(f);
        }
        let rest = self.0.to_builder().del(METRIC_NAME).build();
        f.write_str(name)?;
        if rest.is_empty() { Ok(()) } else { rest.fmt(f) }
    }
}

/// The expected value.
pub(super) fn expected_value(command: &EvalCommand) -> String {
    if let Some(text) = &command.text {
        return format!("string {text:?}");
    }
    if let Some(value) = command.scalar {
        return format!("scalar {}", format_float_g(value));
    }
    let (start_ms, step_ms) = match (command.range_vector, command.times) {
        (Some((start_ms, _, step_ms)), _) => (start_ms, Some(step_ms)),
        (None, EvalTimes::Range { start_ms, step_ms, .. }) => (start_ms, Some(step_ms)),
        (None, EvalTimes::Instant { at_ms }) => (at_ms, None),
    };
    let mut all: Vec<_> = command.series.iter().collect();
    if command.is_ordered {
        all.sort_by_key(|(_, expected)| expected.position);
    }
    lines(
        all.len(),
        all.iter().map(|(labels, expected)| {
            format!(
                "{} {}",
                Series(labels),
                values(expected.values.len(), expected_points(expected, start_ms, step_ms))
            )
        }),
    )
}

fn expected_points(
    expected: &ExpectedSeries,
    start_ms: i64,
    step_ms: Option<i64>,
) -> impl Iterator<Item = String> + '_ {
    let times = (0i64..).map(move |step| step_ms.map(|step_ms| start_ms.saturating_add(step.saturating_mul(step_ms))));
    times.zip(&expected.values).filter_map(|(at_ms, value)| {
        let text = match value {
            SequenceValue::Float(value) => format_float_g(*value),
            SequenceValue::Histogram { histogram, .. } => histogram.test_expression(),
            SequenceValue::Omitted => return None,
        };
        Some(at_ms.map_or(text.clone(), |at_ms| timed(text, at_ms)))
    })
}

/// A value that was found.
pub(super) fn found_value(value: &QueryValue) -> String {
    match value {
        QueryValue::Scalar(point) => format!("scalar {}", format_float_g(point.value)),
        QueryValue::Text { text, .. } => format!("string {text:?}"),
        QueryValue::Vector(elements) => found_vector(elements),
        QueryValue::Matrix(series) => lines(series.len(), series.iter().map(found_series)),
    }
}

/// The elements of a vector that was found.
pub(super) fn found_vector(elements: &[VectorElement]) -> String {
    lines(
        elements.len(),
        elements.iter().map(|element| {
            let value =
                element.histogram.as_ref().map_or_else(|| format_float_g(element.point.value), |h| h.test_expression());
            format!("{} {value}", Series(&element.labels))
        }),
    )
}

fn found_series(one: &MatrixSeries) -> String {
    let floats = one.points.iter().map(|p| (p.at.0, format_float_g(p.value)));
    let histograms = one.histograms.iter().map(|p| (p.at.0, p.histogram.test_expression()));
    let mut points: Vec<(i64, String)> = floats.chain(histograms).collect();
    points.sort_by_key(|(at_ms, _)| *at_ms);
    let count = points.len();
    format!("{} {}", Series(&one.labels), values(count, points.into_iter().map(|(at_ms, text)| timed(text, at_ms))))
}

fn timed(text: impl Display, at_ms: i64) -> String {
    format!("{text} @[{at_ms}]")
}

/// The expected failure.
pub(super) fn expected_failure(texts: &[Text]) -> String {
    match texts {
        [] => "a failure".to_owned(),
        texts => lines(texts.len(), texts.iter().map(|text| format!("failure: {text}"))),
    }
}

/// The expected annotations.
pub(super) fn expected_annotations(command: &EvalCommand) -> String {
    let mut all = Vec::new();
    for (kind, Annotated { expected, some, none }) in [("warn", &command.warnings), ("info", &command.infos)] {
        if *some {
            all.push(format!("{kind}: at least one"));
        }
        if *none {
            all.push(format!("{kind}: none"));
        }
        all.extend(expected.iter().map(|text| format!("{kind}: {text}")));
    }
    lines(all.len(), all)
}

/// The annotations that were found.
pub(super) fn found_annotations(found: &Annotations) -> String {
    let warnings = found.warnings.iter().map(|text| format!("warn: {text}"));
    let infos = found.infos.iter().map(|text| format!("info: {text}"));
    lines(found.warnings.len() + found.infos.len(), warnings.chain(infos))
}

fn lines(count: usize, all: impl IntoIterator<Item = String>) -> String {
    if count == 0 {
        return "nothing".to_owned();
    }
    let mut text = all.into_iter().take(LINES_MAX).collect::<Vec<_>>().join("\n");
    if LINES_MAX < count {
        text.push_str(&format!("\n… and {} more", count - LINES_MAX));
    }
    text
}

fn values(count: usize, all: impl Iterator<Item = String>) -> String {
    let mut text = all.take(VALUES_MAX).collect::<Vec<_>>().join(" ");
    if VALUES_MAX < count {
        text.push_str(&format!(" … and {} more", count - VALUES_MAX));
    }
    text
}
