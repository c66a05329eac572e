//! The limits of query evaluation: samples, memory, time, depth; and figures that the API shows.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use watchfire::model::clock::ManualClock;
use watchfire::model::labels::Labels;
use watchfire::model::matcher::Matcher;
use watchfire::model::names::Names;
use watchfire::model::read::{
    FloatColumn, Queryable, ReadBudget, ReadError, ReadView, SampleSource, Scope, SelectedSeries,
};
use watchfire::model::result::QueryValue;
use watchfire::model::time::{TimeRange, TimestampMs};
use watchfire::promql::eval::{
    EngineOptions, EvalError, Evaluated, MemoryPool, QueryContext, QueryLedger, evaluate_instant, evaluate_range,
};
use watchfire::promql::parser::{ParseOptions, parse_expr};
use watchfire::promqltest::{MemoryStorage, Script, run};

fn loaded(script: &str) -> Arc<dyn ReadView> {
    let mut storage = MemoryStorage::new();
    run(&Script::parse(script).unwrap(), &mut storage, &EngineOptions::default()).unwrap();
    storage.view().unwrap()
}

fn instant(view: &dyn ReadView, expr: &str, at_s: i64, opts: &EngineOptions) -> Result<Evaluated, EvalError> {
    with_context(view, expr, at_s, opts, &QueryContext::unlimited(expr))
}

fn with_context(
    view: &dyn ReadView,
    expr: &str,
    at_s: i64,
    opts: &EngineOptions,
    ctx: &QueryContext,
) -> Result<Evaluated, EvalError> {
    let parsed = parse_expr(expr, &ParseOptions::ALL).unwrap();
    evaluate_instant(&parsed, view, TimestampMs(at_s * 1000), opts, ctx)
}

fn range(view: &dyn ReadView, expr: &str, times_s: [i64; 3], opts: &EngineOptions) -> Result<Evaluated, EvalError> {
    let parsed = parse_expr(expr, &ParseOptions::ALL).unwrap();
    let [start, end, step] = times_s.map(|s| s * 1000);
    evaluate_range(&parsed, view, TimestampMs(start), TimestampMs(end), step, opts, &QueryContext::unlimited(expr))
}

const COUNTED: &str = "load 10s
  one 1+1x100
  three{a=\"1\",b=\"1\"} 1+1x100
  three{a=\"2\",b=\"2\"} 1+1x100
  three{a=\"3\",b=\"2\"} 1+1x100
";

/// Samples looked at and most samples held, as Prometheus counts them; and the verdict of a limit just below.
#[track_caller]
fn check_counts(expr: &str, times_s: [i64; 3], total: u64, peak: usize) {
    let view = loaded(COUNTED);
    let evaluate = |opts: &EngineOptions| match times_s {
        [at, _, 0] => instant(&*view, expr, at, opts),
        _ => range(&*view, expr, times_s, opts),
    };
    let stats = evaluate(&EngineOptions::default()).unwrap().stats;
    assert_eq!((stats.total_samples, stats.peak_samples), (total, peak), "{expr}");
    let at_limit = EngineOptions { max_samples: peak, ..EngineOptions::default() };
    assert!(evaluate(&at_limit).is_ok(), "{expr}");
    let below = EngineOptions { max_samples: peak - 1, ..EngineOptions::default() };
    assert_eq!(evaluate(&below).unwrap_err(), EvalError::TooManySamples, "{expr}");
}

#[test]
fn samples_are_counted_as_in_prometheus() {
    check_counts("1", [21, 0, 0], 0, 1);
    check_counts("one", [21, 0, 0], 1, 1);
    check_counts("timestamp(one)", [21, 0, 0], 1, 2);
    check_counts("one[60s]", [201, 0, 0], 6, 6);
    check_counts("max_over_time(one[60s])[20s:5s]", [201, 0, 0], 24, 10);
    check_counts("max_over_time(one[61s])[20s:5s]", [201, 0, 0], 26, 11);
    check_counts("sum(max_over_time(three[60s] @ 30))", [201, 0, 0], 12, 7);
    check_counts("max_over_time(three[60s])", [201, 0, 0], 18, 9);
    check_counts("absent_over_time(one[60s])", [201, 0, 0], 6, 7);
    check_counts("one[60s:5s]", [201, 0, 0], 12, 12);
    check_counts("max_over_time(three[60s:5s])", [201, 0, 0], 36, 51);
    let sum = "sum(max_over_time(three[60s:5s]))";
    check_counts(&format!("{sum} + {sum}"), [201, 0, 0], 72, 52);
    check_counts("three{a=\"1\"}", [201, 220, 5], 4, 4);
    check_counts("timestamp(one)", [201, 220, 5], 4, 5);
    check_counts("max_over_time(three{a=\"1\"}[10s])", [991, 1021, 10], 2, 2);
    check_counts("one @ 201", [204, 223, 5], 4, 4);
}

#[test]
fn histograms_count_by_their_size() {
    // 168 bytes, a span and two buckets: as much as 12 floats. Count and sum alone: 11.
    let view = loaded("load 10s\n  h {{sum:1 count:3 buckets:[1 2]}}x30\n");
    let counts = |expr: &str| {
        let stats = instant(&*view, expr, 201, &EngineOptions::default()).unwrap().stats;
        (stats.total_samples, stats.peak_samples)
    };
    assert_eq!(counts("h"), (12, 12));
    assert_eq!(counts("h[60s]"), (72, 72));
    assert_eq!(counts("count_over_time(h[60s])"), (72, 73));
    assert_eq!(counts("histogram_count(h)"), (11, 13));
    let below = EngineOptions { max_samples: 71, ..EngineOptions::default() };
    assert_eq!(instant(&*view, "h[60s]", 201, &below).unwrap_err(), EvalError::TooManySamples);
}

/// Samples looked at and read, by step, as Prometheus counts them.
#[track_caller]
fn check_steps(script: &str, expr: &str, times_s: [i64; 3], total: &[u64], read: &[u64]) {
    let view = loaded(script);
    let opts = EngineOptions { counts_steps: true, ..EngineOptions::default() };
    let evaluate = |opts: &EngineOptions| match times_s {
        [at, _, 0] => instant(&*view, expr, at, opts),
        _ => range(&*view, expr, times_s, opts),
    };
    let counted = evaluate(&opts).unwrap();
    let by_step = counted.by_step.unwrap();
    assert_eq!((&*by_step.total, &*by_step.read), (total, read), "{expr}");
    for stats in [counted.stats, evaluate(&EngineOptions::default()).unwrap().stats] {
        let sums = (total.iter().sum(), read.iter().sum());
        assert_eq!((stats.total_samples, stats.samples_read), sums, "{expr}");
    }
}

#[test]
fn what_overlapping_windows_hold_is_read_once() {
    let check = |expr, times_s, total: &[u64], read: &[u64]| check_steps(COUNTED, expr, times_s, total, read);
    check("one[60s]", [201, 0, 0], &[6], &[6]);
    check("max_over_time(three[60s:5s])", [201, 0, 0], &[36], &[36]);
    check("max_over_time(one[60s])[20s:5s]", [201, 0, 0], &[24], &[8]);
    check("rate(one[60s])", [201, 261, 30], &[6, 6, 6], &[6, 3, 3]);
    check("rate(one[20s])", [201, 321, 60], &[2, 2, 2], &[2, 2, 2]);
    check("max_over_time(one[20s:5s])", [201, 321, 60], &[4, 4, 4], &[4, 4, 4]);
    check("max_over_time(one[60s:5s])", [201, 231, 15], &[12, 12, 12], &[12, 3, 3]);
    check("max_over_time(one[20s:5s] offset 1m)", [201, 321, 60], &[4, 4, 4], &[4, 4, 4]);
    check("sum(one @ 201)", [204, 219, 5], &[1, 1, 1, 1], &[1, 0, 0, 0]);
    check("sum(rate(one[60s] @ 201))", [204, 214, 5], &[6, 6, 6], &[6, 0, 0]);
    check("timestamp(three)", [981, 1041, 30], &[3, 3, 3], &[3, 3, 3]);
    check("1 + time()", [201, 221, 10], &[0, 0, 0], &[0, 0, 0]);
    let histograms = "load 10s\n  h {{sum:1 count:3 buckets:[1 2]}}x60\n";
    check_steps(histograms, "count_over_time(h[60s])", [201, 261, 30], &[72, 72, 72], &[72, 36, 36]);
    check_steps(histograms, "h", [201, 231, 30], &[12, 12], &[12, 12]);
}

/// Series of every kind, with gaps, resets and stale markers.
const MIXED: &str = "load 30s
  h{a=\"1\"} {{sum:1 count:3 buckets:[1 2]}}+{{sum:2 count:3 buckets:[2 1]}}x6 _ stale {{schema:1 sum:1 count:1 buckets:[1]}}x8
  h{a=\"2\"} _x3 {{schema:2 sum:4 count:4 z_bucket:1 z_bucket_w:0.001 buckets:[1 2]}}+{{schema:2 sum:3 count:3 buckets:[2 1]}}x10 {{sum:2 count:2 offset:2 buckets:[2]}}x4
  h{a=\"3\"} 1 2 3 {{sum:1 count:3 buckets:[1 2]}}x5 4 5 _ {{schema:-53 sum:1 count:3 custom_values:[1] buckets:[1 2]}}x5
  c{a=\"1\"} {{schema:-53 sum:1 count:3 custom_values:[1 2] buckets:[1 1 1]}}+{{schema:-53 sum:1 count:3 custom_values:[1 2] buckets:[1 1 1]}}x16
  f{a=\"1\"} 1+2x7 stale 3+1x7
  f{a=\"2\"} 5 _ 3 2 1 0 7 7 _x6 9 1
";

#[test]
fn a_range_query_is_its_instant_queries() {
    let view = loaded(MIXED);
    let opts = EngineOptions { lookback_ms: 70_000, ..EngineOptions::default() };
    for expr in [
        "h",
        "rate(h[2m])",
        "increase(c[90s])",
        "delta(f[2m] smoothed)",
        "rate(h[90s] anchored)",
        "increase(h[2m] smoothed)",
        "h smoothed",
        "irate(h[2m])",
        "changes(h[3m])",
        "resets(h[3m])",
        "sum_over_time(h[2m])",
        "avg_over_time(c[2m])",
        "last_over_time(h[1m])",
        "max_over_time(h[3m])",
        "count_over_time(h[3m])",
        "sum(h)",
        "avg by (a) ({__name__=~\"h|c\"})",
        "count(h)",
        "max({__name__=~\"h|f\"})",
        "count_values(\"v\", h)",
        "limitk(2, h)",
        "histogram_quantile(0.7, h)",
        "histogram_count(rate(h[2m]))",
        "histogram_fraction(0, 1.5, c)",
        "h * 2",
        "h >/ 1",
        "-h",
        "h + on (a) c",
        "h == on (a) h",
        "f + on (a) fill (3) c",
        "h and on (a) f",
        "h or f",
        "h unless on (a) f",
        "rate(h[2m:20s])",
        "timestamp(h)",
        "absent(h{a=\"1\"})",
        "info(h)",
    ] {
        let (start, end, step) = (0, 600, 20);
        let whole = range(&*view, expr, [start, end, step], &opts).unwrap().value;
        let QueryValue::Matrix(whole) = whole else { panic!("{whole:?}") };
        for at in (start..=end).step_by(20) {
            let one = instant(&*view, expr, at, &opts).unwrap().value;
            let QueryValue::Vector(mut elements) = one else { panic!("{one:?}") };
            elements.sort_by(|a, b| a.labels.cmp(&b.labels));
            let at = TimestampMs(at * 1000);
            let shown: Vec<String> = elements
                .iter()
                .map(|e| match &e.histogram {
                    Some(histogram) => format!("{} {histogram:?}", e.labels),
                    None => format!("{} {:?}", e.labels, e.point.value),
                })
                .collect();
            let mut in_range = Vec::new();
            for series in &whole {
                let floats = series.points.iter().filter(|p| p.at == at).map(|p| format!("{:?}", p.value));
                let histograms = series.histograms.iter().filter(|p| p.at == at).map(|p| format!("{:?}", p.histogram));
                in_range.extend(floats.chain(histograms).map(|value| format!("{} {value}", series.labels)));
            }
            assert_eq!(in_range, shown, "{expr} at {at}");
        }
    }
}

#[test]
fn histograms_are_charged_to_the_query() {
    let buckets = vec!["1"; 500].join(" ");
    let view = loaded(&format!(
        "load 10s\n  h {{{{count:500 buckets:[{buckets}]}}}}+{{{{count:500 buckets:[{buckets}]}}}}x60\n"
    ));
    let ledger = QueryLedger::open(&MemoryPool::new(0), 0);
    let expr = "h * 2";
    let ctx = QueryContext { ledger: Arc::clone(&ledger), ..QueryContext::unlimited(expr) };
    let parsed = parse_expr(expr, &ParseOptions::ALL).unwrap();
    let times = (TimestampMs(0), TimestampMs(600_000));
    let answer = evaluate_range(&parsed, &*view, times.0, times.1, 10_000, &EngineOptions::default(), &ctx).unwrap();
    let QueryValue::Matrix(series) = &answer.value else { panic!("{:?}", answer.value) };
    assert_eq!(series[0].histograms.len(), 61);
    // 61 histograms of 500 buckets, of eight bytes each.
    assert!(answer.held.bytes() > 61 * 500 * 8 && answer.stats.peak_bytes > 2 * 61 * 500 * 8);
    drop(answer);
    assert_eq!(ledger.used(), 0);
    let small = QueryLedger::open(&MemoryPool::new(0), 300_000);
    let ctx = QueryContext { ledger: small, ..QueryContext::unlimited(expr) };
    let refused = evaluate_range(&parsed, &*view, times.0, times.1, 10_000, &EngineOptions::default(), &ctx);
    assert!(matches!(refused, Err(EvalError::Budget(_))));
}

#[test]
fn memory_is_given_back_and_peaks_are_known() {
    let view = loaded(COUNTED);
    let pool = MemoryPool::new(0);
    let ledger = QueryLedger::open(&pool, 0);
    let ctx = QueryContext { ledger: Arc::clone(&ledger), ..QueryContext::unlimited("") };
    let answer = with_context(&*view, "sum by (a) (rate(three[1m])) or three", 500, &EngineOptions::default(), &ctx);
    let answer = answer.unwrap();
    assert_eq!(ledger.used(), answer.held.bytes());
    assert!(answer.stats.peak_bytes > answer.held.bytes() && answer.held.bytes() > 0);
    drop(answer);
    assert_eq!((ledger.used(), pool.used()), (0, 0));
}

#[test]
fn labels_that_double_end_at_the_limit() {
    let view = loaded("load 10s\n  x{a=\"0123456789\"} 1\n");
    // Each level doubles the label: 2^20 levels of ten bytes would not fit into any machine.
    let mut expr = "x".to_owned();
    for _ in 0..24 {
        expr = format!("label_join({expr}, \"a\", \"\", \"a\", \"a\")");
    }
    assert!(expr.len() < 900, "a short query");
    let limit = 8 << 20;
    let ledger = QueryLedger::open(&MemoryPool::new(0), limit);
    let ctx = QueryContext { ledger: Arc::clone(&ledger), ..QueryContext::unlimited(&expr) };
    let error = with_context(&*view, &expr, 0, &EngineOptions::default(), &ctx).unwrap_err();
    let EvalError::Budget(text) = &error else { panic!("{error}") };
    assert!(text.contains("8388608 bytes") && text.contains("--watchfire.limit.query.memory"), "{text}");
    assert!(ledger.peak() <= limit);
    assert_eq!(ledger.used(), 0);
}

#[test]
fn replacements_that_double_end_at_the_limit() {
    let view = loaded("load 10s\n  x{a=\"0123456789\"} 1\n");
    let mut expr = "x".to_owned();
    for _ in 0..24 {
        expr = format!("label_replace({expr}, \"a\", \"$1$1\", \"a\", \"(.*)\")");
    }
    let ledger = QueryLedger::open(&MemoryPool::new(0), 8 << 20);
    let ctx = QueryContext { ledger: Arc::clone(&ledger), ..QueryContext::unlimited(&expr) };
    let error = with_context(&*view, &expr, 0, &EngineOptions::default(), &ctx).unwrap_err();
    assert!(matches!(error, EvalError::Budget(_)), "{error}");
    assert_eq!(ledger.used(), 0);
}

#[test]
fn queries_share_a_limit() {
    let view = loaded(COUNTED);
    let pool = MemoryPool::new(10_000);
    let first = QueryContext { ledger: QueryLedger::open(&pool, 0), ..QueryContext::unlimited("") };
    let held = with_context(&*view, "three[900s]", 1000, &EngineOptions::default(), &first).unwrap();
    let second = QueryContext { ledger: QueryLedger::open(&pool, 0), ..QueryContext::unlimited("") };
    let error = with_context(&*view, "three[900s]", 1000, &EngineOptions::default(), &second).unwrap_err();
    assert!(error.to_string().contains("--watchfire.limit.query.memory-total"), "{error}");
    drop(held);
    assert!(with_context(&*view, "three[900s]", 1000, &EngineOptions::default(), &second).is_ok());
}

#[test]
fn steps_without_end_do_not_fill_memory() {
    let view = loaded(COUNTED);
    let opts = EngineOptions::default();
    let limited = || {
        let ledger = QueryLedger::open(&MemoryPool::new(0), 64 << 20);
        QueryContext { ledger, ..QueryContext::unlimited("") }
    };
    let error = with_context(&*view, "sum_over_time(vector(1)[290y:1ms])", 0, &opts, &limited()).unwrap_err();
    assert_eq!(error, EvalError::TooManySamples);
    let error = with_context(&*view, "sum_over_time(absent(one)[290y:1ms])", 0, &opts, &limited()).unwrap_err();
    assert!(matches!(error, EvalError::Budget(_)), "{error}");
}

#[test]
fn a_query_that_nobody_wants_ends() {
    let view = loaded(COUNTED);
    let ctx = QueryContext::unlimited("one");
    ctx.cancelled.store(true, Ordering::Relaxed);
    let error = with_context(&*view, "one", 10, &EngineOptions::default(), &ctx).unwrap_err();
    assert_eq!(error.to_string(), "query was canceled in query execution");

    let clock = ManualClock::at(TimestampMs(0));
    let ctx =
        QueryContext { deadline: Some(Duration::from_secs(5)), clock: clock.clone(), ..QueryContext::unlimited("") };
    assert!(with_context(&*view, "one", 10, &EngineOptions::default(), &ctx).is_ok());
    clock.advance(Duration::from_secs(5));
    let error = with_context(&*view, "one", 10, &EngineOptions::default(), &ctx).unwrap_err();
    assert_eq!(error.to_string(), "query timed out in query execution");
}

/// Series that count how often they are decoded; one of them is where the client leaves.
struct Leaving {
    decoded: Arc<AtomicUsize>,
    leaves_at: usize,
    cancelled: Arc<AtomicBool>,
}

impl SampleSource for Leaving {
    fn decode(&self, _: TimeRange, out: &mut FloatColumn) -> Result<(), ReadError> {
        if self.decoded.fetch_add(1, Ordering::SeqCst) == self.leaves_at {
            self.cancelled.store(true, Ordering::SeqCst);
        }
        (0..100).for_each(|n| out.push(n * 100, n as f64));
        Ok(())
    }
}

impl ReadView for Leaving {
    fn select(&self, _: &[Matcher], _: TimeRange, _: &dyn ReadBudget) -> Result<Vec<SelectedSeries>, ReadError> {
        let source = |n: usize| SelectedSeries {
            labels: Labels::from_pairs([("n", format!("{n:06}"))]),
            samples: Arc::new(Self {
                decoded: Arc::clone(&self.decoded),
                leaves_at: self.leaves_at,
                cancelled: Arc::clone(&self.cancelled),
            }),
        };
        Ok((0..20_000).map(source).collect())
    }

    fn label_names(&self, _: &Scope<'_>, _: &dyn ReadBudget) -> Result<Names, ReadError> {
        Ok(Names::default())
    }

    fn label_values(&self, _: &str, _: &Scope<'_>, _: &dyn ReadBudget) -> Result<Names, ReadError> {
        Ok(Names::default())
    }
}

#[test]
fn little_is_done_after_the_client_has_left() {
    for expr in ["x", "rate(x[10s])", "sum(x)", "max_over_time(x[10s:1s])", "count_values(\"v\", x)", "topk(3, x)"] {
        let ctx = QueryContext::unlimited(expr);
        let (decoded, cancelled) = (Arc::default(), Arc::clone(&ctx.cancelled));
        let view = Leaving { decoded: Arc::clone(&decoded), leaves_at: 1000, cancelled };
        let error = with_context(&view, expr, 10, &EngineOptions::default(), &ctx).unwrap_err();
        assert_eq!(error.to_string(), "query was canceled in expression evaluation", "{expr}");
        // A look at each 4,096 samples: a fraction of a millisecond, on each thread.
        let after = decoded.load(Ordering::SeqCst) - 1000;
        assert!(after < 1000, "{after} of 19,000 series after {expr} was given up");
    }
}

/// A view whose selections fail, or let time pass.
struct Failing(ReadError, Option<Arc<ManualClock>>);

impl ReadView for Failing {
    fn select(&self, _: &[Matcher], _: TimeRange, _: &dyn ReadBudget) -> Result<Vec<SelectedSeries>, ReadError> {
        match &self.1 {
            Some(clock) => {
                clock.advance(Duration::from_secs(60));
                Ok(Vec::new())
            }
            None => Err(self.0.clone()),
        }
    }

    fn label_names(&self, _: &Scope<'_>, _: &dyn ReadBudget) -> Result<Names, ReadError> {
        Err(self.0.clone())
    }

    fn label_values(&self, _: &str, _: &Scope<'_>, _: &dyn ReadBudget) -> Result<Names, ReadError> {
        Err(self.0.clone())
    }
}

#[test]
fn failures_of_storage_are_told_apart() {
    let opts = EngineOptions::default();
    let damaged = Failing(ReadError::Corrupt("block 01 is damaged".to_owned()), None);
    let error = instant(&damaged, "x", 0, &opts).unwrap_err();
    assert_eq!(error.to_string(), "expanding series: block 01 is damaged");
    let full = Failing(ReadError::Budget("limit of 5 bytes".to_owned()), None);
    assert_eq!(instant(&full, "x", 0, &opts).unwrap_err(), EvalError::Budget("limit of 5 bytes".to_owned()));

    let clock = ManualClock::at(TimestampMs(0));
    let slow = Failing(ReadError::Corrupt(String::new()), Some(clock.clone()));
    let ctx = QueryContext { deadline: Some(Duration::from_secs(90)), clock, ..QueryContext::unlimited("") };
    assert!(with_context(&slow, "x", 0, &opts, &ctx).is_ok());
    let error = with_context(&slow, "x + y", 0, &opts, &ctx).unwrap_err();
    assert_eq!(error.to_string(), "query timed out in expression evaluation");
}

#[test]
fn depth_is_bounded_and_what_is_allowed_fits_the_stack() {
    let view = loaded(COUNTED);
    let opts = EngineOptions::default();
    let chain = vec!["one"; opts.max_depth - 5].join(" + ");
    assert!(instant(&*view, &chain, 10, &opts).is_ok());
    let nested = |levels: usize| format!("{}one{}", "max_over_time(".repeat(levels), "[1m:1m])".repeat(levels));
    assert!(instant(&*view, &nested(150), 600, &opts).is_ok());
    let shallow = EngineOptions { max_depth: 20, ..EngineOptions::default() };
    let error = instant(&*view, &nested(10), 10, &shallow).unwrap_err();
    assert_eq!(error.to_string(), "expression is nested more than 20 levels deep");
}

#[test]
fn names_are_dropped_at_once_or_at_the_end() {
    let view = loaded("load 10s\n  a{x=\"1\"} 1 2\n  b{x=\"1\"} 3 4\n");
    let at_once = EngineOptions::default();
    let late = EngineOptions { delayed_name_removal: true, ..EngineOptions::default() };
    let same = "vector cannot contain metrics with the same labelset";
    for expr in ["abs({x=\"1\"})", "rate({x=\"1\"}[20s])", "-{x=\"1\"}"] {
        assert_eq!(instant(&*view, expr, 10, &at_once).unwrap_err().to_string(), same, "{expr}");
        assert_eq!(instant(&*view, expr, 10, &late).unwrap_err().to_string(), same, "{expr}");
    }
    let summed = "sum(rate({x=\"1\"}[20s]))";
    assert_eq!(instant(&*view, summed, 10, &at_once).unwrap_err().to_string(), same);
    assert!(instant(&*view, summed, 10, &late).is_ok());
}

#[test]
fn series_that_follow_each_other_become_one() {
    let view = loaded("load 10s\n  a 1 2 stale\n  b _ _ 3 4\n");
    let answer = range(&*view, "abs({__name__=~\"a|b\"})", [0, 30, 10], &EngineOptions::default()).unwrap();
    let QueryValue::Matrix(series) = answer.value else { panic!("not a matrix") };
    let points: Vec<f64> = series.iter().flat_map(|s| s.points.iter().map(|p| p.value)).collect();
    assert_eq!((series.len(), points), (1, vec![1.0, 2.0, 3.0, 4.0]));
}

#[test]
fn what_has_no_value_at_a_time_is_no_range_query() {
    let view = loaded(COUNTED);
    let opts = EngineOptions::default();
    let error = range(&*view, "one[5m]", [0, 10, 10], &opts).unwrap_err();
    let text = "invalid expression type \"range vector\" for range query, must be Scalar or instant Vector";
    assert_eq!(error, EvalError::BadQuery(text.to_owned()));
    assert!(matches!(range(&*view, "\"text\"", [0, 10, 10], &opts), Err(EvalError::BadQuery(_))));
}

#[test]
fn annotations_point_into_the_query() {
    let view = loaded(COUNTED);
    let answer = instant(&*view, "sum(\n  rate(one[1m])\n)", 500, &EngineOptions::default()).unwrap();
    let text =
        "PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: \"one\" (2:8)";
    assert_eq!(answer.annotations.infos, [text]);
}
