//! One rule, from its query to what is appended and sent. Runs on the compute pool; nothing here waits.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::model::alert::Alert;
use crate::model::append::{
    AppendBatch, AppendReport, AppendSample, HistogramValue, LateSamples, SampleRejection, SeriesKey,
};
use crate::model::external_url::ExternalUrl;
use crate::model::labels::{Labels, METRIC_NAME};
use crate::model::result::VectorElement;
use crate::model::sample::stale_nan;
use crate::model::time::TimestampMs;
use crate::promql::eval::Charge;
use crate::rules::RuleError;
use crate::rules::alerting::{self, ALERT_NAME, ActiveAlerts, Seen, Sending};
use crate::rules::query::{RuleQueries, elements};
use crate::rules::recording::{self, Recorded};
use crate::rules::spec::{AlertSpec, GroupSpec, RuleKind, RuleSpec, nanos};
use crate::rules::state::{RuleState, SeriesSet, ended, union};
use crate::template::{AlertData, Environment, QueriedSample, expand_alert};

/// Texts about templates that could not be expanded, kept from one evaluation.
const TEMPLATE_ERRORS_MAX: usize = 10;

/// What rules know of the server.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Where users find us.
    pub external_url: ExternalUrl,
    /// `global.external_labels`.
    pub external_labels: Labels,
    /// Least time between two messages about an alert that has not changed, in nanoseconds.
    pub resend_delay: i64,
}

/// What an evaluation has come to. Nothing of it is in effect yet.
#[derive(Debug)]
pub struct Evaluated {
    /// The rule's alerts now.
    pub alerts: Arc<ActiveAlerts>,
    /// Alerts to send.
    pub send: Vec<Alert>,
    /// What to append: the rule's samples, and stale markers of series that are gone.
    pub batch: AppendBatch,
    /// How many of the batch are the rule's samples.
    pub sample_count: usize,
    /// Series that the rule had or may have from now on; to be stored before the batch is appended.
    pub held: Arc<SeriesSet>,
    /// What became of templates.
    pub expansions: Expansions,
    /// Series of the rule's samples.
    series: Arc<SeriesSet>,
    /// The series of each sample of the batch, in order.
    order: Vec<Labels>,
    /// Which of them are stale markers.
    markers: Range<usize>,
    /// The query's memory, as long as its result lives on in the batch.
    _memory: Charge,
}

/// What became of templates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expansions {
    /// Texts that were expanded or should have been.
    pub count: u64,
    /// Those that could not be.
    pub failed: u64,
    /// Why not, the first few.
    pub errors: Vec<String>,
}

/// Evaluates the rule `index` of a group at `at` (nanoseconds since the epoch).
pub fn evaluate(
    group: &GroupSpec,
    rule: &RuleSpec,
    before: &RuleState,
    at: i64,
    around: &Surroundings,
    queries: &dyn RuleQueries,
) -> Result<Evaluated, RuleError> {
    let data_time = group.data_time(at);
    let queried = queries.instant(&rule.expr, data_time)?;
    let result = elements(queried.value)?;
    let mut expansions = Expansions::default();
    let (mut alerts, mut send) = (Arc::clone(&before.alerts), Vec::new());
    let samples = match &rule.kind {
        RuleKind::Recording => recording::record(rule, group.limit, result)?,
        RuleKind::Alerting(alert) => {
            let templates = Templates { rule, at, around, queries };
            let seen = templates.seen(alert, result, &mut expansions)?;
            let mut after = alerting::advance(alert, group.limit, &before.alerts, seen, at)?;
            let floats = if before.restored { alerting::samples(rule, &after) } else { Vec::new() };
            let generator_url = format!("{}{}", around.external_url, rule.table_link());
            let (resend_delay, interval) = (around.resend_delay, nanos(group.interval));
            send =
                alerting::take_due(&mut after, at, &Sending { resend_delay, interval, generator_url: &generator_url });
            alerts = Arc::new(after);
            Recorded { floats, histograms: Vec::new() }
        }
    };
    let Recorded { mut floats, histograms } = samples;
    let names = floats.iter().map(|(labels, _)| labels).chain(histograms.iter().map(|(labels, _)| labels));
    let series: SeriesSet = names.cloned().collect();
    let sample_count = floats.len() + histograms.len();
    let markers_from = floats.len();
    floats.extend(ended(&before.series, &series).into_iter().map(|labels| (labels, stale_nan())));
    let markers = markers_from..floats.len();
    let names = floats.iter().map(|(labels, _)| labels).chain(histograms.iter().map(|(labels, _)| labels));
    let order = names.cloned().collect();
    let mut batch = batch(floats, data_time);
    for (labels, histogram) in histograms {
        batch.push_histogram(SeriesKey::Labels(labels), data_time, HistogramValue::Float(histogram));
    }
    Ok(Evaluated {
        alerts,
        send,
        sample_count,
        held: union(&before.series, &series),
        expansions,
        series: Arc::new(series),
        order,
        markers,
        batch,
        _memory: queried.held,
    })
}

/// The value that alerts and templates see; that of a histogram is 0, as in Prometheus.
fn value_of(element: &VectorElement) -> f64 {
    if element.histogram.is_some() { 0.0 } else { element.point.value }
}

/// Stale markers for these series.
pub fn stale_markers(series: &[Labels], at: TimestampMs) -> AppendBatch {
    batch(series.iter().map(|labels| (labels.clone(), stale_nan())).collect(), at)
}

fn batch(samples: Vec<(Labels, f64)>, at: TimestampMs) -> AppendBatch {
    let sample = |(labels, value)| AppendSample { series: SeriesKey::Labels(labels), at, value };
    AppendBatch { late: LateSamples::Refused, ..AppendBatch::of_floats(samples.into_iter().map(sample).collect()) }
}

/// What storage has made of an evaluation's batch.
#[derive(Debug, Default, PartialEq)]
pub struct Settled {
    /// Series that the rule has now.
    pub series: Arc<SeriesSet>,
    /// Samples refused because a newer one is there.
    pub out_of_order: usize,
    /// Samples refused because they are older than late samples may be.
    pub too_old: usize,
    /// Samples refused because another value is there.
    pub duplicates: usize,
    /// Samples and stale markers refused for other reasons: the first reason, and how many.
    pub other: Option<(SampleRejection, usize)>,
    /// Why the last of the refused samples was refused; empty if none was.
    pub last_error: String,
}

impl Evaluated {
    /// What the rule has after storage's report. A series whose sample was refused is not the rule's.
    pub fn settle(&self, report: &AppendReport) -> Settled {
        let mut settled = Settled { series: Arc::clone(&self.series), ..Settled::default() };
        if report.rejected.is_empty() {
            return settled;
        }
        let mut series = SeriesSet::clone(&self.series);
        for (index, rejection) in &report.rejected {
            let index = usize::try_from(*index).unwrap_or(usize::MAX);
            let is_sample = !self.markers.contains(&index);
            if is_sample && let Some(labels) = self.order.get(index) {
                series.remove(labels);
                settled.last_error = rejection.to_string();
            }
            match rejection {
                // A marker of a series that another rule writes is refused like this, as it should be.
                SampleRejection::OutOfOrder | SampleRejection::TooOld if !is_sample => {}
                rejection if !is_sample && rejection.is_duplicate() => {}
                SampleRejection::TooOld => settled.too_old += 1,
                SampleRejection::OutOfOrder => settled.out_of_order += 1,
                rejection if rejection.is_duplicate() => settled.duplicates += 1,
                other => settled.other.get_or_insert((*other, 0)).1 += 1,
            }
        }
        settled.series = Arc::new(series);
        settled
    }
}

struct Templates<'a> {
    rule: &'a RuleSpec,
    at: i64,
    around: &'a Surroundings,
    queries: &'a dyn RuleQueries,
}

impl Templates<'_> {
    /// The alerts that a result stands for, labels and annotations expanded.
    fn seen(
        &self,
        alert: &AlertSpec,
        result: Vec<VectorElement>,
        expansions: &mut Expansions,
    ) -> Result<BTreeMap<Labels, Seen>, RuleError> {
        let mut seen = BTreeMap::new();
        for element in result {
            let mut labels = element.labels.to_builder();
            labels.del(METRIC_NAME);
            for (name, text) in &self.rule.labels {
                labels.set(name, &self.expand(text, &element, expansions));
            }
            labels.set(ALERT_NAME, &self.rule.name);
            let annotations: Vec<(&str, String)> =
                alert.annotations.iter().map(|(name, text)| (name, self.expand(text, &element, expansions))).collect();
            let annotations = Labels::from_sorted(annotations.iter().map(|(name, text)| (*name, text.as_str())));
            if seen.insert(labels.build(), Seen { annotations, value: value_of(&element) }).is_some() {
                return Err(RuleError::SameAlert);
            }
        }
        Ok(seen)
    }

    fn expand(&self, text: &str, element: &VectorElement, expansions: &mut Expansions) -> String {
        expansions.count += 1;
        if !text.contains("{{") {
            return text.to_owned();
        }
        let data = AlertData {
            labels: &element.labels,
            external_labels: &self.around.external_labels,
            value: value_of(element),
        };
        let at = TimestampMs(self.at.div_euclid(1_000_000));
        let query = |expr: &str| self.query(expr, at);
        let environment = Environment { external_url: &self.around.external_url, at, query: &query };
        let name = format!("__alert_{}", self.rule.name);
        expand_alert(&name, text, &data, &environment).unwrap_or_else(|error| {
            expansions.failed += 1;
            if expansions.errors.len() < TEMPLATE_ERRORS_MAX {
                expansions.errors.push(error.to_string());
            }
            format!("<error expanding template: {error}>")
        })
    }

    fn query(&self, expr: &str, at: TimestampMs) -> Result<Vec<QueriedSample>, String> {
        let queried = self.queries.instant(expr, at).map_err(|error| error.to_string())?;
        let elements = elements(queried.value).map_err(|error| error.to_string())?;
        let sample = |element: VectorElement| QueriedSample { value: value_of(&element), labels: element.labels };
        Ok(elements.into_iter().map(sample).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::result::{Point, QueryValue};
    use crate::model::sample::is_stale;
    use crate::rules::alerting::AlertState;
    use crate::rules::testing::{FakeQueries, group, labels, vector};

    const AT: i64 = 100_000_000_000;

    fn around() -> Surroundings {
        let external_url = ExternalUrl { scheme: "http".into(), host: "here:9090".into(), path: "/p".into() };
        Surroundings { external_url, external_labels: Labels::from_pairs([("dc", "1")]), resend_delay: 60_000_000_000 }
    }

    fn answering(answers: &[(&str, QueryValue)]) -> FakeQueries {
        let answers = answers.iter().map(|(expr, value)| ((*expr).to_owned(), value.clone())).collect();
        FakeQueries { answers, ..FakeQueries::default() }
    }

    fn run(rule: &str, before: &RuleState, at: i64, value: &[(&str, f64)]) -> Result<Evaluated, RuleError> {
        let spec = group(&format!("groups: [{{name: g, rules: [{rule}]}}]"));
        let queries = answering(&[("x", QueryValue::Vector(vector(value)))]);
        evaluate(&spec, &spec.rules[0], before, at, &around(), &queries)
    }

    fn shown(evaluated: &Evaluated) -> Vec<(String, i64, Option<f64>)> {
        let shown = |sample: &AppendSample| {
            let SeriesKey::Labels(labels) = &sample.series else { panic!("by labels") };
            (labels.to_string(), sample.at.0, (!is_stale(sample.value)).then_some(sample.value))
        };
        evaluated.batch.samples.iter().map(shown).collect()
    }

    #[test]
    fn rules_look_and_write_at_the_offset_time_and_templates_query_at_the_evaluation() {
        let spec = group(
            "groups: [{name: g, rules: [{alert: A, expr: x, labels: {v: '{{ $value }}'}, annotations: {plain: text, none: ''}}]}]",
        );
        let queries = answering(&[("x", QueryValue::Vector(vector(&[("x{a=\"1\"}", 2.0)])))]);
        let evaluated = evaluate(&spec, &spec.rules[0], &RuleState::new(true), AT, &around(), &queries).unwrap();
        assert_eq!(queries.asked.lock()[0], ("x".to_owned(), TimestampMs(95_000)));
        assert!(evaluated.batch.samples.iter().all(|sample| sample.at == TimestampMs(95_000)));
        let alert = &evaluated.send[0];
        assert_eq!((alert.starts_at, alert.annotations.get("plain")), (TimestampMs(100_000), Some("text")));
        assert_eq!(alert.annotations.get("none"), Some(""), "an empty annotation is one");
        assert_eq!(alert.generator_url, "http://here:9090/p/graph?g0.expr=x&g0.tab=1");
        assert_eq!(alert.labels.get("alertname"), Some("A"));
        assert!(!alert.labels.contains("__name__"));
        let templates = Templates { rule: &spec.rules[0], at: AT, around: &around(), queries: &queries };
        assert_eq!(templates.query("x", TimestampMs(100_000)).unwrap()[0].value, 2.0);
        assert_eq!(templates.query("y", TimestampMs(100_000)).unwrap_err(), "no answer to y");
    }

    #[test]
    fn scalars_are_one_element_and_texts_are_no_result() {
        let spec = group("groups: [{name: g, query_offset: 0s, rules: [{record: r, expr: x}]}]");
        let point = Point { at: TimestampMs(0), value: 3.0 };
        let queries = answering(&[("x", QueryValue::Scalar(point))]);
        let evaluated = evaluate(&spec, &spec.rules[0], &RuleState::new(true), AT, &around(), &queries).unwrap();
        assert_eq!(shown(&evaluated), [("{__name__=\"r\"}".to_owned(), 100_000, Some(3.0))]);
        for value in [QueryValue::Text { at: TimestampMs(0), text: String::new() }, QueryValue::Matrix(Vec::new())] {
            let error =
                evaluate(&spec, &spec.rules[0], &RuleState::new(true), AT, &around(), &answering(&[("x", value)]));
            assert_eq!(error.unwrap_err().to_string(), "rule result is not a vector or scalar");
        }
    }

    #[test]
    fn histograms_are_recorded_behind_floats_and_end_like_them() {
        let spec = group("groups: [{name: g, query_offset: 0s, rules: [{record: r, expr: x}]}]");
        let mut elements = vector(&[("x{a=\"1\"}", 1.0), ("x{a=\"2\"}", f64::NAN)]);
        let histogram = Arc::new(crate::model::histogram::FloatHistogram { count: 3.0, ..Default::default() });
        elements[1].histogram = Some(Arc::clone(&histogram));
        let queries = answering(&[("x", QueryValue::Vector(elements))]);
        let before = RuleState { series: Arc::new([labels("r{a=\"9\"}")].into()), ..RuleState::new(true) };
        let evaluated = evaluate(&spec, &spec.rules[0], &before, AT, &around(), &queries).unwrap();
        let expected = [("{__name__=\"r\", a=\"1\"}", Some(1.0)), ("{__name__=\"r\", a=\"9\"}", None)];
        assert_eq!(shown(&evaluated), expected.map(|(labels, value)| (labels.to_owned(), 100_000, value)));
        let recorded = &evaluated.batch.histograms[0];
        assert_eq!(recorded.series, SeriesKey::Labels(labels("r{a=\"2\"}")));
        assert_eq!((&recorded.value, evaluated.sample_count), (&HistogramValue::Float(histogram), 2));
        let rejected = vec![(1, SampleRejection::OutOfOrder), (2, SampleRejection::DuplicateHistogram)];
        let settled = evaluated.settle(&AppendReport { rejected, ..AppendReport::default() });
        assert_eq!((settled.out_of_order, settled.duplicates), (0, 1));
        assert_eq!(*settled.series, [labels("r{a=\"1\"}")].into());
    }

    #[test]
    fn series_that_are_gone_end_and_none_is_forgotten() {
        let rule = "{record: r, expr: x}";
        let first = run(rule, &RuleState::new(true), AT, &[("x{a=\"1\"}", 1.0), ("x{a=\"2\"}", 2.0)]).unwrap();
        assert_eq!((first.sample_count, first.held.len()), (2, 2));
        let settled = first.settle(&AppendReport::default());
        let before = RuleState { series: settled.series, ..RuleState::new(true) };
        let second = run(rule, &before, AT, &[("x{a=\"2\"}", 2.0), ("x{a=\"3\"}", 3.0)]).unwrap();
        let expected = [
            ("{__name__=\"r\", a=\"2\"}", Some(2.0)),
            ("{__name__=\"r\", a=\"3\"}", Some(3.0)),
            ("{__name__=\"r\", a=\"1\"}", None),
        ];
        assert_eq!(shown(&second), expected.map(|(labels, value)| (labels.to_owned(), 95_000, value)));
        assert_eq!((second.sample_count, second.held.len()), (2, 3), "until storage has answered, all three");
    }

    #[test]
    fn refused_samples_are_counted_and_their_series_are_not_the_rules() {
        let rule = "{record: r, expr: x}";
        let before = RuleState { series: Arc::new([labels("r{a=\"9\"}")].into()), ..RuleState::new(true) };
        let some = [("x{a=\"1\"}", 1.0), ("x{a=\"2\"}", 2.0), ("x{a=\"3\"}", 3.0), ("x{a=\"4\"}", 3.0)];
        let evaluated = run(rule, &before, AT, &some).unwrap();
        let duplicate = SampleRejection::Duplicate { at: 95_000, existing: 1.0, new: 2.0 };
        let rejected = vec![
            (0, SampleRejection::OutOfOrder),
            (1, duplicate),
            (2, SampleRejection::OutOfBounds),
            (4, SampleRejection::OutOfOrder),
        ];
        let settled = evaluated.settle(&AppendReport { rejected, ..AppendReport::default() });
        assert_eq!(*settled.series, [labels("r{a=\"4\"}")].into());
        assert_eq!((settled.out_of_order, settled.duplicates), (1, 1), "the marker's does not count");
        assert_eq!(settled.other, Some((SampleRejection::OutOfBounds, 1)));
        assert_eq!(settled.last_error, "out of bounds");
    }

    #[test]
    fn alerts_are_written_only_once_they_are_restored() {
        let rule = "{alert: A, expr: x, for: 1m}";
        let waiting = run(rule, &RuleState::new(false), AT, &[("x", 1.0)]).unwrap();
        assert_eq!((waiting.alerts.len(), waiting.batch.samples.len()), (1, 0));
        let before = RuleState { alerts: waiting.alerts, ..RuleState::new(true) };
        let told = run(rule, &before, AT + 60_000_000_000, &[("x", 1.0)]).unwrap();
        let expected = [
            ("{__name__=\"ALERTS\", alertname=\"A\", alertstate=\"firing\"}", 1.0),
            ("{__name__=\"ALERTS_FOR_STATE\", alertname=\"A\"}", 100.0),
        ];
        assert_eq!(shown(&told), expected.map(|(labels, value)| (labels.to_owned(), 155_000, Some(value))));
        assert_eq!(told.alerts.values().next().unwrap().state, AlertState::Firing);
        assert_eq!(told.send.len(), 1);
    }

    #[test]
    fn a_change_of_state_ends_the_series_of_the_state_before() {
        let rule = "{alert: A, expr: x, for: 1m}";
        let first = run(rule, &RuleState::new(true), AT, &[("x", 1.0)]).unwrap();
        let series = first.settle(&AppendReport::default()).series;
        let before = RuleState { alerts: first.alerts, series, ..RuleState::new(true) };
        let second = run(rule, &before, AT + 60_000_000_000, &[("x", 1.0)]).unwrap();
        let last = shown(&second).pop().unwrap();
        assert_eq!((last.0.as_str(), last.2), ("{__name__=\"ALERTS\", alertname=\"A\", alertstate=\"pending\"}", None));
    }

    #[test]
    fn alerts_that_would_be_the_same_are_an_error_that_changes_nothing() {
        let same = run(
            "{alert: A, expr: x, labels: {a: one}}",
            &RuleState::new(true),
            AT,
            &[("x{a=\"1\"}", 1.0), ("x{a=\"2\"}", 1.0)],
        );
        let text = "vector contains metrics with the same labelset after applying alert labels";
        assert_eq!(same.unwrap_err().to_string(), text);
        let names = run("{alert: A, expr: x}", &RuleState::new(true), AT, &[("x{a=\"1\"}", 1.0), ("y{a=\"1\"}", 1.0)]);
        assert_eq!(names.unwrap_err(), RuleError::SameAlert);
    }
}
