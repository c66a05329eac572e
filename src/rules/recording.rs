//! Recording rules: the result of an expression under a name and labels of its own.

use std::sync::Arc;

use crate::model::histogram::FloatHistogram;
use crate::model::labels::{Labels, METRIC_NAME};
use crate::model::result::VectorElement;
use crate::rules::spec::RuleSpec;
use crate::rules::state::SeriesSet;
use crate::rules::{RuleError, exceeds};

/// What a result is recorded as: series with their values.
#[derive(Debug, Default)]
pub(crate) struct Recorded {
    pub(crate) floats: Vec<(Labels, f64)>,
    pub(crate) histograms: Vec<(Labels, Arc<FloatHistogram>)>,
}

/// The series that a result is recorded as.
pub(crate) fn record(rule: &RuleSpec, limit: i64, result: Vec<VectorElement>) -> Result<Recorded, RuleError> {
    let mut seen = SeriesSet::with_capacity(result.len());
    let mut recorded = Recorded::default();
    for element in result {
        let mut labels = element.labels.to_builder();
        labels.set(METRIC_NAME, &rule.name);
        for (name, value) in &rule.labels {
            labels.set(name, value);
        }
        let labels = labels.build();
        if !seen.insert(labels.clone()) {
            return Err(RuleError::SameSeries);
        }
        match element.histogram {
            Some(histogram) => recorded.histograms.push((labels, histogram)),
            None => recorded.floats.push((labels, element.point.value)),
        }
    }
    if exceeds(limit, seen.len()) {
        return Err(RuleError::TooManySeries { limit, count: seen.len() });
    }
    Ok(recorded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{group, labels, vector};

    #[track_caller]
    fn check(rule: &str, limit: i64, result: &[(&str, f64)], expected: Result<&[(&str, f64)], &str>) {
        let spec = group(&format!("groups: [{{name: g, rules: [{rule}]}}]"));
        let recorded =
            record(&spec.rules[0], limit, vector(result)).map(|r| r.floats).map_err(|error| error.to_string());
        let expected = expected.map(|series| series.iter().map(|(text, value)| (labels(text), *value)).collect());
        assert_eq!(recorded, expected.map_err(str::to_owned), "{rule}");
    }

    #[test]
    fn results_get_the_rules_name_and_labels() {
        let rule = "{record: 'a:b', expr: x, labels: {job: other, zone: eu}}";
        let expected = "a:b{job=\"other\",instance=\"i\",zone=\"eu\"}";
        check(rule, 0, &[("x{job=\"j\",instance=\"i\"}", 2.0)], Ok(&[(expected, 2.0)]));
        check("{record: one, expr: '1'}", 0, &[("", 1.0)], Ok(&[("one", 1.0)]));
        check("{record: none, expr: x}", 0, &[], Ok(&[]));
    }

    #[test]
    fn a_label_with_an_empty_value_is_taken_away() {
        check(
            "{record: r, expr: x, labels: {job: ''}}",
            0,
            &[("x{job=\"j\",a=\"1\"}", 1.0)],
            Ok(&[("r{a=\"1\"}", 1.0)]),
        );
    }

    #[test]
    fn equal_series_and_too_many_are_errors() {
        let two = [("x{a=\"1\"}", 1.0), ("y{a=\"1\"}", 2.0)];
        let same = "vector contains metrics with the same labelset after applying rule labels";
        check("{record: r, expr: x}", 0, &two, Err(same));
        check("{record: r, expr: x, labels: {a: both}}", 0, &[("x{a=\"1\"}", 1.0), ("x{a=\"2\"}", 2.0)], Err(same));
        let three = [("x{a=\"1\"}", 1.0), ("x{a=\"2\"}", 2.0), ("x{a=\"3\"}", 3.0)];
        check("{record: r, expr: x}", 2, &three, Err("exceeded limit of 2 with 3 series"));
        check("{record: r, expr: x}", 3, &three[..1], Ok(&[("r{a=\"1\"}", 1.0)]));
    }
}
