//! What a unit test of rules runs on: a head in memory, filled step by step, and rules that are evaluated over it.

use std::sync::Arc;
use std::time::Duration;

use crate::model::append::{AppendBatch, HistogramValue, SeriesKey};
use crate::model::clock::{ManualClock, SharedClock, SystemClock};
use crate::model::go_time;
use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::read::Queryable;
use crate::model::result::QueryValue;
use crate::model::sample::Sample;
use crate::model::time::{TimeRange, TimestampMs};
use crate::promql::eval::{EngineOptions, QueryContext, evaluate_instant};
use crate::promql::parser::{ParseOptions, SequenceValue, parse_expr};
use crate::rules::evaluate::{Surroundings, evaluate};
use crate::rules::query::{Queried, QueryError, RuleQueries};
use crate::rules::spec::GroupSpec;
use crate::rules::state::RuleState;
use crate::storage::chunk::cut::CutRules;
use crate::storage::head::{Head, HeadOptions};

/// Samples that a query may hold.
const SAMPLES_MAX: usize = 10_000;
/// Behind all times that nanoseconds can tell.
const FAR_AHEAD: TimestampMs = TimestampMs(i64::MAX / 1_000_000);
/// How long a query may take.
const QUERY_WITHIN: Duration = Duration::from_secs(100);
/// Samples may be older than the newest by half of this.
const CHUNK_RANGE_MS: i64 = 86_400_000;

/// A series that is being loaded.
pub(super) struct Input {
    pub(super) labels: Labels,
    pub(super) samples: std::iter::Peekable<std::vec::IntoIter<(i64, SequenceValue)>>,
}

/// A group with what its rules remember.
pub(super) struct Group {
    pub(super) spec: GroupSpec,
    pub(super) states: Vec<RuleState>,
}

/// An element of a result as it is compared and shown.
pub(super) struct Element {
    pub(super) labels: Labels,
    pub(super) value: f64,
    /// As test scripts write it; empty for a float.
    pub(super) histogram: String,
}

/// Storage and engine of one test.
pub(super) struct Bench {
    head: Head,
    queryable: Arc<dyn Queryable>,
    options: ParseOptions,
    engine: EngineOptions,
    clock: SharedClock,
}

impl Bench {
    /// An empty one. `interval_ms` is the step of subqueries that name none.
    pub(super) fn new(options: ParseOptions, delayed_name_removal: bool, interval_ms: i64) -> Self {
        // Nothing lies in the future here.
        let clock = ManualClock::at(FAR_AHEAD);
        let rules = CutRules { chunk_range_ms: CHUNK_RANGE_MS, ..CutRules::default() };
        let head = Head::new(HeadOptions { rules, ..HeadOptions::new(clock) });
        let engine = EngineOptions {
            max_samples: SAMPLES_MAX,
            default_subquery_step_ms: interval_ms,
            delayed_name_removal,
            ..EngineOptions::default()
        };
        Self { queryable: head.queryable(), head, options, engine, clock: SystemClock::shared() }
    }

    /// Stores all samples up to a time.
    pub(super) fn load(&self, inputs: &mut [Input], until_ms: i64) -> Result<(), String> {
        let mut batch = AppendBatch::default();
        for input in inputs {
            while let Some((at, value)) = input.samples.next_if(|(at, _)| *at <= until_ms) {
                let (series, at) = (SeriesKey::Labels(input.labels.clone()), TimestampMs(at));
                match value {
                    SequenceValue::Float(value) => batch.push_float(series, at, value),
                    SequenceValue::Histogram { histogram, .. } => {
                        batch.push_histogram(series, at, HistogramValue::Float(histogram));
                    }
                    SequenceValue::Omitted => {}
                }
            }
        }
        let report = self.head.append_blocking(batch).map_err(|error| error.to_string())?;
        report.rejected.first().map_or(Ok(()), |(_, rejection)| Err(rejection.to_string()))
    }

    /// Evaluates all rules; returns what failed.
    pub(super) fn evaluate(&self, groups: &mut [Group], at_ns: i64, around: &Surroundings) -> Vec<String> {
        let mut failed = Vec::new();
        for group in groups {
            for (rule, state) in group.spec.rules.iter().zip(&mut group.states) {
                let mut fail = |error: String| {
                    let since = go_time::format_duration(at_ns);
                    failed.push(format!("    rule: {}, time: {since}, err: {error}", rule.name));
                };
                match evaluate(&group.spec, rule, state, at_ns, around, self) {
                    Err(error) => {
                        if error.clears_alerts() {
                            state.alerts = Arc::default();
                        }
                        fail(error.to_string());
                    }
                    Ok(mut evaluated) => {
                        let batch = std::mem::take(&mut evaluated.batch);
                        state.alerts = Arc::clone(&evaluated.alerts);
                        match self.head.append_blocking(batch) {
                            Ok(report) => {
                                let settled = evaluated.settle(&report);
                                state.series = settled.series;
                                if !settled.last_error.is_empty() {
                                    fail(settled.last_error);
                                }
                            }
                            Err(error) => fail(error.to_string()),
                        }
                    }
                }
            }
        }
        failed
    }

    pub(super) fn vector(&self, expr: &str, at: TimestampMs) -> Result<Vec<Element>, String> {
        match self.instant(expr, at).map_err(|error| error.text)?.value {
            QueryValue::Vector(elements) => Ok(elements
                .into_iter()
                .map(|element| {
                    let histogram = element.histogram.as_ref();
                    Element {
                        value: if histogram.is_some() { 0.0 } else { element.point.value },
                        histogram: histogram.map(|histogram| histogram.test_expression()).unwrap_or_default(),
                        labels: element.labels,
                    }
                })
                .collect()),
            QueryValue::Scalar(point) => {
                Ok(vec![Element { labels: Labels::empty(), value: point.value, histogram: String::new() }])
            }
            QueryValue::Text { .. } | QueryValue::Matrix(_) => Err("rule result is not a vector or scalar".to_owned()),
        }
    }
}

impl RuleQueries for Bench {
    fn instant(&self, expr: &str, at: TimestampMs) -> Result<Queried, QueryError> {
        let failed = |text: String| QueryError { text, canceled: false };
        let parsed = parse_expr(expr, &self.options).map_err(|error| failed(error.to_string()))?;
        let view = self.queryable.view().map_err(|error| failed(error.to_string()))?;
        let deadline = Some(self.clock.monotonic().saturating_add(QUERY_WITHIN));
        let ctx = QueryContext { deadline, clock: SharedClock::clone(&self.clock), ..QueryContext::unlimited(expr) };
        let found = evaluate_instant(&parsed, &*view, at, &self.engine, &ctx);
        let found = found.map_err(|error| failed(error.to_string()))?;
        Ok(Queried { value: found.value, held: found.held })
    }

    fn newest(&self, _: &[Matcher], _: TimeRange) -> Result<Vec<(Labels, Sample)>, QueryError> {
        // Only asked to restore alerts, of which there are none before a test.
        Ok(Vec::new())
    }
}
