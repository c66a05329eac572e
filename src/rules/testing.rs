//! What the tests of rules share: groups from YAML, labels from text, answers from a table.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::config::ValidationScheme;
use crate::config::rules::{self, RuleChecks};
use crate::model::duration::PromDuration;
use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::result::{Point, QueryValue, VectorElement};
use crate::model::sample::Sample;
use crate::model::time::{TimeRange, TimestampMs};
use crate::promql::eval::QueryLedger;
use crate::promql::parser::{ParseOptions, parse_metric};
use crate::rules::alerting::{ActiveAlert, AlertState};
use crate::rules::query::{Queried, QueryError, RuleQueries};
use crate::rules::spec::{GroupDefaults, GroupSpec};

/// The one group of a rule file, with an interval of a minute and an offset of 5 s unless it says otherwise.
#[track_caller]
pub(crate) fn group(yaml: &str) -> GroupSpec {
    let checks = RuleChecks { expr: &|_| Ok(()), template: &|_, _| Ok(()), ignore_unknown_fields: false };
    let file = rules::parse("rules.yml", yaml.as_bytes(), ValidationScheme::Utf8, &checks).unwrap();
    let defaults = GroupDefaults {
        interval: PromDuration::from_secs(60),
        query_offset: PromDuration::from_secs(5),
        parser: ParseOptions::default(),
    };
    GroupSpec::new(&file.path, &file.groups[0], &defaults)
}

/// `name{a="1"}` as labels.
#[track_caller]
pub(crate) fn labels(text: &str) -> Labels {
    if text.is_empty() { Labels::empty() } else { parse_metric(text).unwrap() }
}

/// A result of these series and values.
#[track_caller]
pub(crate) fn vector(elements: &[(&str, f64)]) -> Vec<VectorElement> {
    let element = |(text, value): &(&str, f64)| VectorElement {
        labels: labels(text),
        point: Point { at: TimestampMs(0), value: *value },
        histogram: None,
    };
    elements.iter().map(element).collect()
}

/// A pending alert that is active since this millisecond.
pub(crate) fn pending(active_at_ms: i64) -> ActiveAlert {
    ActiveAlert {
        state: AlertState::Pending,
        annotations: Labels::empty(),
        value: 1.0,
        active_at: active_at_ms * 1_000_000,
        fired_at: None,
        resolved_at: None,
        last_sent_at: None,
        keep_firing_since: None,
    }
}

/// Answers from a table; queries that are not in it fail.
#[derive(Default)]
pub(crate) struct FakeQueries {
    pub(crate) answers: HashMap<String, QueryValue>,
    pub(crate) stored: Vec<(Labels, Sample)>,
    pub(crate) asked: Mutex<Vec<(String, TimestampMs)>>,
}

impl RuleQueries for FakeQueries {
    fn instant(&self, expr: &str, at: TimestampMs) -> Result<Queried, QueryError> {
        self.asked.lock().push((expr.to_owned(), at));
        let Some(value) = self.answers.get(expr).cloned() else {
            return Err(QueryError { text: format!("no answer to {expr}"), canceled: false });
        };
        Ok(Queried { value, held: QueryLedger::unlimited().charge(0).unwrap() })
    }

    fn newest(&self, matchers: &[Matcher], range: TimeRange) -> Result<Vec<(Labels, Sample)>, QueryError> {
        let matches = |(labels, sample): &&(Labels, Sample)| {
            range.contains(sample.at) && matchers.iter().all(|matcher| matcher.matches_labels(labels))
        };
        Ok(self.stored.iter().filter(matches).cloned().collect())
    }
}
