//! Properties of evaluation on generated queries: a range query is its instant queries, a range may be cut in two, and
//! neither the number of shards nor what is spared on the way changes a byte of the answer.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that prints its figures")]

#[path = "promql_differential/answer.rs"]
#[expect(dead_code, reason = "the form of the API is not asked here")]
mod answer;
#[path = "promql_differential/dice.rs"]
mod dice;
#[path = "promql_differential/grammar.rs"]
mod grammar;
#[path = "promql_differential/samples.rs"]
#[expect(dead_code, reason = "samples are not sent anywhere here")]
mod samples;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use watchfire::model::append::{AppendBatch, AppendSample, SeriesKey};
use watchfire::model::clock::ManualClock;
use watchfire::model::labels::Labels;
use watchfire::model::matcher::Matcher;
use watchfire::model::names::Names;
use watchfire::model::read::{ClassedSeries, LookedAt, ReadBudget, ReadError, ReadView, Scope, SelectedSeries};
use watchfire::model::time::{TimeRange, TimestampMs};
use watchfire::promql::ast::Expr;
use watchfire::promql::eval::{EngineOptions, Helpers, QueryContext, Shortcuts, evaluate_instant, evaluate_range};
use watchfire::promql::parser::{ParseOptions, parse_expr};
use watchfire::promql::signatures::ValueType;
use watchfire::storage::head::{Head, HeadOptions};

use grammar::{Query, Times};
use samples::{COUNT, START_MS, STEP_MS, Series, Value};

/// Queries of each property.
const QUERIES: u64 = 1_000;
/// Queries that each shortcut is tried with.
const SHORTCUT_QUERIES: u64 = 300;
const SEED: u64 = 7;

/// Calls `check` with queries that parse and yield an instant vector or a scalar.
fn for_each_query(count: u64, mut check: impl FnMut(&Query, &Expr)) {
    for index in 0..count {
        let query = grammar::query(SEED, index);
        let Ok(expr) = parse_expr(&query.text, &ParseOptions::ALL) else { continue };
        if matches!(expr.value_type(), ValueType::Vector | ValueType::Scalar) {
            check(&query, &expr);
        }
    }
}

/// True if the query's own times may show in its value.
fn mentions_its_times(expr: &Expr) -> bool {
    let text = expr.to_string();
    ["start()", "end()", "step()", "range()"].iter().any(|name| text.contains(name))
}

/// Times and values of a series.
fn points(one: &Json) -> Vec<(String, Json)> {
    let mut points: Vec<(String, Json)> = Vec::new();
    let mut add = |point: &Json| points.push((point[0].to_string(), point[1].clone()));
    ["value", "histogram"].iter().filter(|kind| one[**kind].is_array()).for_each(|kind| add(&one[*kind]));
    for kind in ["values", "histograms"] {
        one[kind].as_array().into_iter().flatten().for_each(&mut add);
    }
    points
}

/// All points of an answer: by time and labels.
fn table(answer: &Json) -> BTreeMap<(String, String), Json> {
    let result = answer["data"]["result"].as_array().unwrap();
    if answer["data"]["resultType"] == "scalar" {
        return BTreeMap::from([((result[0].to_string(), "{}".to_owned()), scalar(&result[1]))]);
    }
    let mut table = BTreeMap::new();
    for one in result {
        for (time, value) in points(one) {
            let known = table.insert((time, one["metric"].to_string()), value);
            assert_eq!(known, None, "two values of {} in {answer}", one["metric"]);
        }
    }
    table
}

/// A scalar alone is written without exponent; a float all the same.
fn scalar(text: &Json) -> Json {
    let value: f64 = text.as_str().unwrap().replace("Inf", "inf").parse().unwrap();
    json!(watchfire::model::go::format_float_json(value).trim_matches('"'))
}

#[test]
fn a_range_query_is_its_instant_queries() {
    let view = answer::view_of(&samples::dataset(SEED));
    let opts = EngineOptions::default();
    let mut compared = 0;
    for_each_query(QUERIES, |query, expr| {
        let Times::Range { start_ms, end_ms, step_ms } = query.times else { return };
        if mentions_its_times(expr) {
            return;
        }
        let whole = answer::of(&*view, query, &opts);
        let mut instants = BTreeMap::new();
        let mut failure = None;
        let mut at_ms = start_ms;
        while at_ms <= end_ms && failure.is_none() {
            let one = answer::of(&*view, &Query { times: Times::Instant(at_ms), ..query.clone() }, &opts);
            match one["status"] == "success" {
                true => instants.extend(table(&one)),
                false => failure = Some(one["error"].clone()),
            }
            at_ms += step_ms;
        }
        match failure {
            // Which of several errors is met first differs; that there is one does not.
            Some(_) => assert_eq!(whole["status"], "error", "{query:?}"),
            None => assert_eq!(table(&whole), instants, "{query:?}"),
        }
        compared += instants.len();
    });
    println!("{compared} points");
    assert!(compared > 5_000, "{compared}");
}

#[test]
fn a_range_cut_in_two_has_the_same_points() {
    let view = answer::view_of(&samples::dataset(SEED));
    let opts = EngineOptions::default();
    let mut compared = 0;
    for_each_query(QUERIES, |query, expr| {
        let Times::Range { start_ms, end_ms, step_ms } = query.times else { return };
        if mentions_its_times(expr) || end_ms < start_ms + step_ms {
            return;
        }
        let steps = (end_ms - start_ms) / step_ms;
        let middle_ms = start_ms + steps / 2 * step_ms;
        let part = |start_ms: i64, end_ms: i64| {
            answer::of(&*view, &Query { times: Times::Range { start_ms, end_ms, step_ms }, ..query.clone() }, &opts)
        };
        let whole = part(start_ms, end_ms);
        let parts = [part(start_ms, middle_ms), part(middle_ms + step_ms, end_ms)];
        if parts.iter().any(|part| part["status"] == "error") {
            assert_eq!(whole["status"], "error", "{query:?}");
            return;
        }
        let mut joined = table(&parts[0]);
        joined.extend(table(&parts[1]));
        compared += joined.len();
        assert_eq!(table(&whole), joined, "{query:?}");
    });
    println!("{compared} points");
    assert!(compared > 5_000, "{compared}");
}

/// The series of floats in a head with so many shards.
fn head_view(all: &[Series], shards: u16) -> Arc<dyn ReadView> {
    let clock = ManualClock::at(TimestampMs(START_MS + COUNT * STEP_MS));
    let mut options = HeadOptions::new(clock);
    options.shards = shards;
    if shards == 2 {
        // Nothing is remembered, as of selections of very many series.
        options.known_len_max = 0;
    }
    let head = Head::new(options);
    // As scrapes bring them: time by time.
    let mut by_time: BTreeMap<i64, Vec<AppendSample>> = BTreeMap::new();
    for series in all {
        for (at_ms, value) in &series.samples {
            let Value::Float(value) = value else { unreachable!("only floats are stored") };
            let sample = AppendSample {
                series: SeriesKey::Labels(series.labels.clone()),
                at: TimestampMs(*at_ms),
                value: *value,
            };
            by_time.entry(*at_ms).or_default().push(sample);
        }
    }
    for (number, samples) in by_time.into_values().enumerate() {
        let report = head.append_blocking(AppendBatch::from(samples)).unwrap();
        assert!(report.rejected.is_empty(), "{report:?}");
        if number == 0 {
            // What came first stands in the inverted part of the index, the rest in the list of new series.
            head.shards().iter().for_each(|shard| shard.seal_tail());
        }
    }
    head.queryable().view().unwrap()
}

#[test]
fn shards_change_no_byte() {
    let mut floats = samples::dataset(SEED);
    floats.retain(|series| series.samples.iter().all(|(_, value)| matches!(value, Value::Float(_))));
    let memory = answer::view_of(&floats);
    let views = [1, 2, 7].map(|shards| head_view(&floats, shards));
    let opts = EngineOptions::default();
    let mut with_values = 0;
    for_each_query(QUERIES, |query, _| {
        let expected = answer::of(&*memory, query, &opts);
        for view in &views {
            assert_eq!(answer::of(&**view, query, &opts).to_string(), expected.to_string(), "{query:?}");
        }
        with_values += u64::from(expected["data"]["result"].as_array().is_some_and(|result| !result.is_empty()));
    });
    assert!(with_values > QUERIES / 4, "{with_values}");
}

/// Each shortcut alone and all of them, on heads of 1, 2 and 7 shards, give what none gives on plain maps. What a selector has
/// found is known from the second query on.
#[test]
fn shortcuts_shards_and_threads_change_no_byte_and_no_figure() {
    let mut floats = samples::dataset(SEED);
    floats.retain(|series| series.samples.iter().all(|(_, value)| matches!(value, Value::Float(_))));
    let memory = answer::view_of(&floats);
    let views = [1, 2, 7].map(|shards| head_view(&floats, shards));
    let shortcuts = [
        Shortcuts { helpers: Helpers::Always, ..Shortcuts::NONE },
        Shortcuts { newest_only: true, ..Shortcuts::NONE },
        Shortcuts { late_names: true, ..Shortcuts::NONE },
        Shortcuts { classes: true, ..Shortcuts::NONE },
        Shortcuts { helpers: Helpers::Always, classes: true, newest_only: true, ..Shortcuts::NONE },
        Shortcuts { common_parts: true, ..Shortcuts::NONE },
        Shortcuts { common_reads: true, ..Shortcuts::NONE },
        Shortcuts { helpers: Helpers::Always, ..Shortcuts::ALL },
    ];
    let plain = EngineOptions { shortcuts: Shortcuts::NONE, ..EngineOptions::default() };
    let mut with_values = 0;
    for_each_query(SHORTCUT_QUERIES, |query, _| {
        let expected = answer::with_figures(&*memory, query, &plain);
        let text = expected.0.to_string();
        for (view, shortcuts) in views.iter().flat_map(|view| shortcuts.map(|shortcuts| (view, shortcuts))) {
            let opts = EngineOptions { shortcuts, ..plain.clone() };
            let (answer, figures) = answer::with_figures(&**view, query, &opts);
            assert_eq!((answer.to_string(), figures), (text.clone(), expected.1), "{query:?} {shortcuts:?}");
        }
        with_values += u64::from(expected.0["data"]["result"].as_array().is_some_and(|result| !result.is_empty()));
    });
    assert!(with_values > SHORTCUT_QUERIES / 4, "{with_values}");
}

/// A view that selects no series with label sets.
struct Labelless(Arc<dyn ReadView>);

impl ReadView for Labelless {
    fn select(&self, _: &[Matcher], _: TimeRange, _: &dyn ReadBudget) -> Result<Vec<SelectedSeries>, ReadError> {
        Err(ReadError::Unsupported("label sets were asked for".to_owned()))
    }
    fn select_classed(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        looked_at: LookedAt<'_>,
        budget: &dyn ReadBudget,
    ) -> Result<Option<Box<dyn ClassedSeries>>, ReadError> {
        self.0.select_classed(matchers, range, looked_at, budget)
    }
    fn label_names(&self, _: &Scope<'_>, _: &dyn ReadBudget) -> Result<Names, ReadError> {
        Ok(Names::default())
    }
    fn label_values(&self, _: &str, _: &Scope<'_>, _: &dyn ReadBudget) -> Result<Names, ReadError> {
        Ok(Names::default())
    }
}

/// Aggregations that look at some labels alone need no label sets, and give what they give with them.
#[test]
fn aggregations_need_no_label_sets() {
    let series = |number: i64| Series {
        labels: Labels::from_pairs([
            ("__name__", "x_total".to_owned()),
            ("instance", number.to_string()),
            ("job", (number % 3).to_string()),
        ]),
        samples: (0..20).map(|at| (START_MS + at * 15_000, Value::Float((at * number) as f64 / 7.0))).collect(),
        is_whole: true,
    };
    let all: Vec<Series> = (0..50).map(series).collect();
    let usual = EngineOptions { shortcuts: Shortcuts::NONE, ..EngineOptions::default() };
    for (shards, text) in [1, 2, 7].into_iter().flat_map(|shards| {
        let texts = [
            "sum by (job) (rate(x_total[5m]))",
            "avg without (instance) (increase(x_total[2m] offset 1m))",
            "stddev(x_total)",
            "count by (job, __name__) (x_total{job=~\"1|2\"})",
            "max by (__name__) (last_over_time(x_total[5m]))",
            "sum(sum by (job) (rate(x_total[5m]))) + group(x_total)",
        ];
        texts.map(|text| (shards, text))
    }) {
        let view = head_view(&all, shards);
        let query = Query { text: text.to_owned(), times: Times::Instant(START_MS + 300_000), lookback_ms: 300_000 };
        let expected = answer::with_figures(&*view, &query, &usual);
        for helpers in [Helpers::Never, Helpers::Always] {
            let shortcuts = Shortcuts { helpers, classes: true, ..Shortcuts::NONE };
            let opts = EngineOptions { shortcuts, ..EngineOptions::default() };
            let (found, figures) = answer::with_figures(&Labelless(Arc::clone(&view)), &query, &opts);
            assert_eq!((found.to_string(), figures), (expected.0.to_string(), expected.1), "{text} {shards}");
        }
        assert!(expected.0["data"]["result"].as_array().is_some_and(|result| !result.is_empty()), "{text}");
    }
}

/// Samples looked at and read at each step and held at most, or why there is no answer.
fn steps_of(view: &dyn ReadView, query: &Query, expr: &Expr, opts: &EngineOptions) -> Result<Json, String> {
    let opts = EngineOptions { lookback_ms: query.lookback_ms, counts_steps: true, ..opts.clone() };
    let ctx = QueryContext::unlimited(query.text.clone());
    let evaluated = match query.times {
        Times::Instant(at_ms) => evaluate_instant(expr, view, TimestampMs(at_ms), &opts, &ctx),
        Times::Range { start_ms, end_ms, step_ms } => {
            evaluate_range(expr, view, TimestampMs(start_ms), TimestampMs(end_ms), step_ms, &opts, &ctx)
        }
    };
    let evaluated = evaluated.map_err(|error| error.to_string())?;
    let steps = evaluated.by_step.unwrap();
    Ok(json!([steps.total, steps.read, evaluated.stats.peak_samples]))
}

/// What is evaluated or decoded once counts as often as it is asked for: at each step, and for the limit.
#[test]
fn common_parts_change_no_step_and_no_verdict() {
    let view = answer::view_of(&samples::dataset(SEED));
    let plain = EngineOptions { shortcuts: Shortcuts::NONE, ..EngineOptions::default() };
    let quick = EngineOptions { shortcuts: Shortcuts::ALL, ..EngineOptions::default() };
    let mut refused = 0;
    for_each_query(QUERIES, |query, expr| {
        let expected = steps_of(&*view, query, expr, &plain);
        assert_eq!(steps_of(&*view, query, expr, &quick), expected, "{query:?}");
        let Ok(figures) = expected else { return };
        // At the peak the query just passes, below it does not.
        let peak = usize::try_from(figures[2].as_u64().unwrap()).unwrap();
        for max_samples in [peak, peak.saturating_sub(1), peak / 2] {
            let limited =
                |opts: &EngineOptions| steps_of(&*view, query, expr, &EngineOptions { max_samples, ..opts.clone() });
            let verdict = limited(&plain);
            assert_eq!(limited(&quick), verdict, "{query:?} {max_samples}");
            refused += u64::from(verdict.is_err());
        }
    });
    assert!(refused > QUERIES / 2, "{refused}");
}

/// Where only count and sum of histograms matter, their buckets are not kept; the figures are those of whole histograms.
#[test]
fn histograms_without_buckets_have_the_same_totals() {
    let view = answer::view_of(&samples::dataset(SEED));
    let opts = EngineOptions::default();
    let mut dice = dice::Dice::new(SEED);
    let mut compared = 0;
    for _ in 0..300 {
        let family = dice.pick(&["nh", "nh_float", "nh_gauge", "nh_listed", "nh_varied", "nh_nan", "mixed"]);
        let range = dice.pick(&["1m", "5m", "47s", "12m"]);
        // Of gauges a rate makes no sense, and is another without buckets in Prometheus as well.
        let inner = match dice.below(if family == "nh_gauge" { 1 } else { 4 }) {
            0 => family.to_owned(),
            1 => format!("{}({family}[{range}])", dice.pick(&["rate", "increase", "irate", "sum_over_time"])),
            2 => format!("sum by (job) ({family})"),
            _ => format!("last_over_time({family}[{range}]) * 2"),
        };
        let start_ms = START_MS + dice.between(0, COUNT) * STEP_MS;
        let times = Times::Range { start_ms, end_ms: start_ms + 900_000, step_ms: 60_000 };
        let ask = |text: String| answer::of(&*view, &Query { text, times, lookback_ms: 300_000 }, &opts);
        let whole = ask(inner.clone());
        let (counts, sums) = (ask(format!("histogram_count({inner})")), ask(format!("histogram_sum({inner})")));
        let Some(series) = whole["data"]["result"].as_array() else { continue };
        for one in series {
            for point in one["histograms"].as_array().into_iter().flatten() {
                for (figure, name) in [(&counts, "count"), (&sums, "sum")] {
                    let mut labels = one["metric"].clone();
                    labels.as_object_mut().unwrap().shift_remove("__name__");
                    let found = table(figure).remove(&(point[0].to_string(), labels.to_string()));
                    assert_eq!(found.as_ref(), Some(&point[1][name]), "{name} of {inner} {times:?}");
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 1_000, "{compared}");
}
