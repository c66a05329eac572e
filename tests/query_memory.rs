//! What queries hold, measured at the allocator: over a thousand generated queries the memory in use is at no time more than
//! what the ledger has charged and a fifth, and all of it comes back. So does that of series that come and go.
#![allow(clippy::unwrap_used, reason = "a test")]
#![allow(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout};
use std::fmt::Write;
use std::ptr;
use std::sync::atomic::{AtomicI64, AtomicPtr, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tikv_jemallocator::{Jemalloc, usable_size};
use watchfire::model::append::{AppendBatch, AppendSample, SeriesKey};
use watchfire::model::clock::ManualClock;
use watchfire::model::labels::Labels;
use watchfire::model::matcher::Matcher;
use watchfire::model::random::Random;
use watchfire::model::read::{Queryable, ReadView, Scope, Unlimited};
use watchfire::model::time::{TimeRange, TimestampMs};
use watchfire::promql::eval::{
    EngineOptions, EvalError, Evaluated, MemoryPool, ParseFailure, ParsedQuery, QueryContext, QueryLedger,
    evaluate_instant, evaluate_range, parse,
};
use watchfire::promql::parser::ParseOptions;
use watchfire::promqltest::{MemoryStorage, Script, run};
use watchfire::storage::head::{Head, HeadOptions};

/// Bytes that live allocations take, in the allocator's own size classes.
static HELD: AtomicI64 = AtomicI64::new(0);
/// The account of the query under test; null between queries.
static LEDGER: AtomicPtr<QueryLedger> = AtomicPtr::new(ptr::null_mut());
/// What was held as the query began.
static BEFORE: AtomicI64 = AtomicI64::new(0);
/// Most bytes held at once, less what the ledger allows for at that moment.
static EXCESS: AtomicI64 = AtomicI64::new(i64::MIN);
/// Print the first place that goes beyond this.
static TRACE_ABOVE: AtomicI64 = AtomicI64::new(i64::MAX);

/// What a query may hold beside its charges: its plan, its annotations, small lists.
const SLACK: i64 = 8 << 10;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn took(bytes: i64) {
    let held = HELD.fetch_add(bytes, Ordering::Relaxed) + bytes;
    let ledger = LEDGER.load(Ordering::Acquire);
    if !ledger.is_null() {
        // SAFETY: the pointer is set while the test holds the ledger, on the one thread that runs queries.
        let charged = unsafe { (*ledger).used() } as i64;
        let excess = held - BEFORE.load(Ordering::Relaxed) - charged - charged / 5;
        let before = EXCESS.fetch_max(excess, Ordering::Relaxed);
        let above = TRACE_ABOVE.load(Ordering::Relaxed);
        if before <= excess && above < excess {
            TRACE_ABOVE.store(i64::MAX, Ordering::Relaxed);
            LEDGER.store(ptr::null_mut(), Ordering::Release);
            eprintln!("{excess} too many, charged {charged}\n{}", std::backtrace::Backtrace::force_capture());
        }
    }
}

// SAFETY: everything is done by the allocator beneath, which is one.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as this function's.
        let taken = unsafe { Jemalloc.alloc(layout) };
        if !taken.is_null() {
            // SAFETY: the pointer is the allocator's.
            took(unsafe { usable_size(taken) } as i64);
        }
        taken
    }

    unsafe fn dealloc(&self, given: *mut u8, layout: Layout) {
        // SAFETY: the pointer is the allocator's.
        HELD.fetch_sub(unsafe { usable_size(given) } as i64, Ordering::Relaxed);
        // SAFETY: as this function's.
        unsafe { Jemalloc.dealloc(given, layout) }
    }
}

const STEP_S: i64 = 15;
const SAMPLES: i64 = 160;
const START_S: i64 = 1_700_000_000;

fn labels(name: &str, n: usize, le: Option<&str>) -> Labels {
    let mut pairs = vec![
        ("__name__", name.to_owned()),
        ("job", format!("job-{}", n % 3)),
        ("instance", format!("10.0.{}.{}:9090", n % 7, n)),
        ("path", format!("/api/v1/resources/{}/list", n % 11)),
    ];
    pairs.extend(le.map(|le| ("le", le.to_owned())));
    Labels::from_pairs(pairs)
}

/// Counters, gauges and classic histograms, some of which end or begin in the middle.
fn head() -> Head {
    let head = Head::new(HeadOptions { shards: 2, ..HeadOptions::new(ManualClock::at(TimestampMs(1 << 42))) });
    let mut random = Random::seeded(3);
    let mut series: Vec<Labels> = Vec::new();
    for n in 0..150 {
        series.push(labels("requests_total", n, None));
        series.push(labels("load", n, None));
    }
    for (n, le) in (0..80).flat_map(|n| ["0.1", "1", "10", "+Inf"].map(|le| (n, le))) {
        series.push(labels("took_seconds_bucket", n, Some(le)));
    }
    for step in 0..SAMPLES {
        let alive = |(n, _): &(usize, &Labels)| n % 9 != 0 || (step < 100) == (n % 2 == 0);
        let sample = |(n, labels): (usize, &Labels)| AppendSample {
            series: SeriesKey::Labels(labels.clone()),
            at: TimestampMs((START_S + step * STEP_S) * 1000),
            value: if n % 2 == 0 { (step * (n as i64 % 5)) as f64 } else { random.next_f64() * 100.0 },
        };
        let samples: Vec<_> = series.iter().enumerate().filter(alive).map(sample).collect();
        head.append_blocking(AppendBatch::from(samples)).unwrap();
    }
    head
}

/// The same names, with native histograms under `took_seconds`.
fn histograms() -> Arc<dyn ReadView> {
    let mut script = String::from("load 15s\n");
    for n in 0..40 {
        let rest = format!("{{job=\"job-{}\",instance=\"10.0.0.{n}:9090\",path=\"/api/{}\"}}", n % 3, n % 5);
        let buckets = "{{schema:1 count:9 sum:10 buckets:[1 2 0 1 3 2]}}";
        writeln!(script, "  took_seconds{rest} {buckets}+{buckets}x60").unwrap();
        writeln!(script, "  load{rest} 0+{n}x60\n  requests_total{rest} 0+{n}x60").unwrap();
    }
    let mut storage = MemoryStorage::new();
    run(&Script::parse(&script).unwrap(), &mut storage, &EngineOptions::default()).unwrap();
    storage.view().unwrap()
}

/// Queries from a small grammar.
struct Grammar {
    random: Random,
    has_histograms: bool,
}

impl Grammar {
    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.random.below(from.len() as u64) as usize]
    }

    fn vector(&mut self, depth: usize) -> String {
        if depth == 0 {
            return self.selector();
        }
        let inner = depth - 1;
        match self.random.below(14) {
            0 | 1 => {
                let op = self.pick(&["sum", "avg", "count", "min", "max", "group", "stddev", "stdvar"]);
                let grouping = self.grouping();
                format!("{op} {grouping} ({})", self.vector(inner))
            }
            2 => {
                let (op, k) = (self.pick(&["topk", "bottomk", "limitk"]), self.pick(&["1", "5", "1000"]));
                let grouping = self.grouping();
                format!("{op} {grouping} ({k}, {})", self.vector(inner))
            }
            3 => {
                let op = self.pick(&["quantile(0.9, ", "count_values(\"v\", ", "limit_ratio(0.5, "]);
                format!("{op}{})", self.vector(inner))
            }
            4 | 5 => self.over_time(inner),
            6 => format!("({}) {} {}", self.vector(inner), self.pick(&["+", "*", "> bool", "<", "^"]), "2.5"),
            7 => {
                let op = self.pick(&["+", "/", "> bool", ">=", "- on (instance, path)", "* on (instance, path, le)"]);
                format!("({}) {op} ({})", self.vector(inner), self.vector(inner))
            }
            8 => {
                let op = self.pick(&["and", "or", "unless", "and on (job)", "or ignoring (path)", "unless on (path)"]);
                format!("({}) {op} ({})", self.vector(inner), self.vector(inner))
            }
            9 => {
                let (one, many) = (self.vector(inner), self.vector(inner));
                format!("({many}) * on (job) group_left () sum by (job) ({one})")
            }
            10 => {
                let function = self.pick(&["abs", "sgn", "ceil", "timestamp", "sort", "sort_desc", "absent", "hour"]);
                format!("{function}({})", self.vector(inner))
            }
            11 => {
                let (to, from) = (self.pick(&["job", "new"]), self.pick(&["path", "instance"]));
                format!("label_replace({}, \"{to}\", \"x-$1-$1\", \"{from}\", \"(.*)\")", self.vector(inner))
            }
            12 => format!("label_join({}, \"new\", \"-\", \"instance\", \"path\", \"path\")", self.vector(inner)),
            _ if self.has_histograms => {
                let function = self.pick(&[
                    "histogram_quantile(0.9, ",
                    "histogram_count(",
                    "histogram_avg(",
                    "histogram_fraction(0, 1, ",
                    "-(",
                ]);
                format!("{function}{})", self.vector(inner))
            }
            _ => {
                let inside = self.pick(&["took_seconds_bucket", "sum by (le, job) (took_seconds_bucket)"]);
                let inside = if inside.len() < 20 { "rate(took_seconds_bucket[2m])" } else { inside };
                format!("histogram_quantile(0.9, {inside})")
            }
        }
    }

    fn over_time(&mut self, inner: usize) -> String {
        let function = self.pick(&[
            "rate",
            "increase",
            "irate",
            "changes",
            "resets",
            "deriv",
            "avg_over_time",
            "max_over_time",
            "count_over_time",
            "last_over_time",
            "stddev_over_time",
            "quantile_over_time",
            "absent_over_time",
        ]);
        let range = match self.random.below(3) {
            0 => format!("({})[{}:{}]", self.vector(inner), self.pick(&["5m", "10m"]), self.pick(&["15s", "1m"])),
            _ => format!("{}[{}]", self.name(), self.pick(&["1m", "5m", "20m"])),
        };
        let first = if function == "quantile_over_time" { "0.5, " } else { "" };
        format!("{function}({first}{range})")
    }

    fn grouping(&mut self) -> &'static str {
        self.pick(&["", "by (job)", "by (instance, path)", "without (instance)", "by (le, job)"])
    }

    fn name(&mut self) -> String {
        let names: &[&str] = if self.has_histograms {
            &["took_seconds", "took_seconds", "load", "requests_total"]
        } else {
            &["took_seconds_bucket", "load", "requests_total", "requests_total"]
        };
        let matchers = ["", "", "{job=\"job-1\"}", "{path=~\"/api.*\"}", "{instance!~\".*7:9090\"}"];
        format!("{}{}", self.pick(names), self.pick(&matchers))
    }

    fn selector(&mut self) -> String {
        let everything = self.random.below(12) == 0;
        let name = if everything { "{__name__=~\".+\"}".to_owned() } else { self.name() };
        format!("{name}{}", self.pick(&["", "", "", " offset 2m", " @ end()"]))
    }
}

fn evaluate(view: &dyn ReadView, start_s: i64, steps: i64, ctx: &QueryContext) -> Result<Evaluated, EvalError> {
    // The tree goes before its charge.
    let ParsedQuery { held: _held, expr } = parse(&ParseOptions::ALL, ctx).map_err(|failure| match failure {
        ParseFailure::Syntax(errors) => EvalError::BadQuery(errors.to_string()),
        ParseFailure::Budget(error) => error,
    })?;
    let opts = EngineOptions::default();
    let start = TimestampMs(start_s * 1000);
    match steps {
        1 => evaluate_instant(&expr, view, start, &opts, ctx),
        _ => evaluate_range(&expr, view, start, TimestampMs((start_s + (steps - 1) * 30) * 1000), 30_000, &opts, ctx),
    }
}

fn is_traced() -> bool {
    std::env::var_os("QUERY_MEMORY_TRACE").is_some()
}

/// One query; the most bytes that it held beyond what was charged and a fifth of that.
fn measure(view: &dyn ReadView, text: &str, start_s: i64, steps: i64) -> (i64, bool) {
    let pool = MemoryPool::new(0);
    let ledger = QueryLedger::open(&pool, 0);
    let ctx = QueryContext { ledger: Arc::clone(&ledger), ..QueryContext::unlimited(text) };
    // What is made once for all queries is made now.
    let held = HELD.load(Ordering::Relaxed);
    BEFORE.store(held, Ordering::Relaxed);
    EXCESS.store(i64::MIN, Ordering::Relaxed);
    LEDGER.store(Arc::as_ptr(&ledger).cast_mut(), Ordering::Release);
    let result = evaluate(view, start_s, steps, &ctx);
    LEDGER.store(ptr::null_mut(), Ordering::Release);
    let excess = EXCESS.load(Ordering::Relaxed);
    let is_answered = result.is_ok();
    drop(result);
    assert_eq!(
        (ledger.used(), pool.used()),
        (0, 0),
        "charges of {} are left",
        text.chars().take(100).collect::<String>()
    );
    let left = HELD.load(Ordering::Relaxed) - held;
    // The expressions compiled last are remembered, 64 at most, each below 100 KiB; so are selectors with what they found.
    let kept_max = if text.contains('~') || text.contains("label_replace") { 6 << 20 } else { 256 << 10 };
    let excerpt: String = text.chars().take(100).collect();
    assert!(left < kept_max || is_traced(), "{left} bytes of {excerpt} are left");
    (excess, is_answered)
}

/// The counters are one for the process.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn what_queries_hold_is_charged() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let seed = 11;
    let (head, histograms) = (head(), histograms());
    let floats = head.queryable().view().unwrap();
    let mut worst: Vec<(i64, String)> = Vec::new();
    let mut answered = 0;
    for has_histograms in [false, true] {
        let view = if has_histograms { &histograms } else { &floats };
        let start_s = if has_histograms { 0 } else { START_S };
        let mut grammar = Grammar { random: Random::seeded(seed), has_histograms };
        // The first queries make what lives for ever.
        let warm_up = "sum(rate(load{path=~\"/.*\"}[1m]))";
        let _ = evaluate(&**view, start_s + 300, 3, &QueryContext::unlimited(warm_up));
        for _ in 0..(if has_histograms { 300 } else { 700 }) {
            let depth = 1 + grammar.random.below(3) as usize;
            let text = grammar.vector(depth);
            let steps = [1, 2, 30, 40][grammar.random.below(4) as usize];
            let at_s = start_s + 300 + grammar.random.below(300) as i64;
            let (excess, is_answered) = measure(&**view, &text, at_s, steps);
            answered += usize::from(is_answered);
            if SLACK < excess && is_traced() {
                TRACE_ABOVE.store(SLACK, Ordering::Relaxed);
                measure(&**view, &text, at_s, steps);
            }
            worst.push((excess, format!("{text} at {at_s}, {steps} steps")));
        }
    }
    worst.sort_by(|a, b| b.cmp(a));
    let beyond: Vec<_> = worst.iter().filter(|(excess, _)| SLACK < *excess).collect();
    assert!(400 < answered, "only {answered} queries have an answer");
    assert!(
        beyond.is_empty(),
        "seed {seed}: {} queries hold more than is charged: {:#?}",
        beyond.len(),
        &beyond[..beyond.len().min(25)]
    );
}

/// Texts that ask for much memory before anything is evaluated: many nodes, names, texts, expressions.
#[test]
fn what_texts_ask_for_is_charged() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let head = head();
    let view = head.queryable().view().unwrap();
    let many = |start: &str, item: &dyn Fn(usize) -> String, separator: &str, end: &str| {
        format!("{start}{}{end}", (0..3000).map(item).collect::<Vec<_>>().join(separator))
    };
    let constant = |text: &'static str| move |_: usize| text.to_owned();
    let texts = [
        many("abs(", &constant("1"), ",", ")"),
        many("label_join(load, \"a\", \"\",", &constant("\"b\""), ",", ")"),
        many("sum by (", &constant("a"), ",", ") (load)"),
        many("load{", &constant("a=\"\""), ",", "}"),
        many("", &constant("1"), "+", ""),
        many("", &constant("("), "", ""),
        many("", &constant("-"), "", "1"),
        many("load{path=~\"", &|n| format!("/api/{n}"), "|", "\"}"),
        many("load{path=~\"(?i:", &|n| format!("/api/{n}"), "|", ")\"}"),
        many("load{path=~\"", &|n| format!("x{n}.*"), "|", "\"}"),
        many("load{", &|n| format!("path=~\"(a|b{{2}}{n}+)*\""), ",", "}"),
        many("label_replace(load, \"a\", \"$1\", \"path\", \"(", &|n| format!("y{n}[a-z]"), "|", ")\")"),
        many("load{path=\"", &constant("e"), "", "\"}"),
        "load{path=~\"(x{1000}){30}\"}".to_owned(),
        (0..40).fold("load".to_owned(), |inner, n| {
            format!("label_replace({inner}, \"a\", \"$1\", \"path\", \"([a-f]*{n})+\")")
        }),
    ];
    let warm_up = "label_replace(load{path=~\"/[a-z].*\"}, \"a\", \"$1\", \"path\", \"(.)[a-z]+\")";
    let _ = evaluate(&*view, START_S, 1, &QueryContext::unlimited(warm_up));
    let mut beyond = Vec::new();
    for text in &texts {
        let (excess, is_answered) = measure(&*view, text, START_S + 300, 1);
        // The program of one expression is charged when its size is known.
        let slack = if text.contains("=~") || text.contains("label_replace") { 16 << 20 } else { SLACK };
        if slack < excess {
            beyond.push((excess, is_answered, text.chars().take(40).collect::<String>()));
        }
    }
    assert!(beyond.is_empty(), "{beyond:#?}");
}

/// Series of a generation, as of pods that live for five minutes.
const PODS: usize = 2_000;
const GENERATIONS: i64 = 12;
const LIFE_MS: i64 = 300_000;

/// An hour in which every series is replaced each five minutes, with queries, and with samples of new series that are a year old:
/// once the old series are cut off, the head holds what it held when there was one generation, and finds series as then.
#[test]
fn series_that_come_and_go_leave_nothing_behind() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let head = Head::new(HeadOptions { shards: 2, ..HeadOptions::new(ManualClock::at(TimestampMs(1 << 42))) });
    let pod = |generation: i64, n: usize| {
        Labels::from_pairs([
            ("__name__", "load".to_owned()),
            ("job", format!("job-{}", n % 10)),
            ("instance", format!("10.{generation}.{}.{}:80", n / 250, n % 250)),
            ("pod", format!("api-7d9c{generation:x}-{n:05x}")),
        ])
    };
    let batch = |series: &dyn Fn(usize) -> Labels, at_ms: i64| {
        let sample = |n: usize| AppendSample {
            series: SeriesKey::Labels(series(n)),
            at: TimestampMs(at_ms),
            value: (at_ms % 1_000_003) as f64 + n as f64,
        };
        AppendBatch::from((0..PODS).map(sample).collect::<Vec<_>>())
    };
    let begin_ms = START_S * 1_000;
    let mut levels = Vec::new();
    for generation in 0..GENERATIONS {
        let from = begin_ms + generation * LIFE_MS;
        for step in 0..5 {
            let report = head.append_blocking(batch(&|n| pod(generation, n), from + step * 60_000)).unwrap();
            assert_eq!((report.appended as usize, report.rejected.len()), (PODS, 0));
        }
        let old = head.append_blocking(batch(&|n| pod(generation + 1_000, n), from - 365 * 86_400_000)).unwrap();
        assert_eq!((old.appended, old.rejected.len()), (0, PODS), "refused, each alone");
        // What is there now is found by queries, which remember things.
        let at_s = from / 1_000 + 240;
        for query in ["sum by (job) (rate(load[5m]))", "count(load{instance=~\"10.*7:80\"})", "load{pod=~\".*f\"}"] {
            let view = head.queryable().view().unwrap();
            evaluate(&*view, at_s, 1, &QueryContext::unlimited(query)).unwrap();
            view.label_values("pod", &Scope::all(&[Matcher::equal("job", "job-3")], TimeRange::ALL), &Unlimited)
                .unwrap();
        }
        // As after a block was made of what is older.
        assert!(head.truncate_blocking(TimestampMs(from)));
        assert_eq!(head.stats().series as usize, PODS, "generation {generation}");
        let view = head.queryable().view().unwrap();
        let one = [Matcher::equal("pod", format!("api-7d9c{generation:x}-00007"))];
        assert_eq!(view.select(&one, TimeRange::ALL, &Unlimited).unwrap().len(), 1);
        let gone = [Matcher::equal("pod", format!("api-7d9c{:x}-00007", generation - 1))];
        assert!(view.select(&gone, TimeRange::ALL, &Unlimited).unwrap().is_empty());
        assert_eq!(view.label_values("pod", &Scope::all(&[], TimeRange::ALL), &Unlimited).unwrap().len(), PODS);
        drop(view);
        levels.push(HELD.load(Ordering::Relaxed));
    }
    let (early, late) = (levels[1], levels[levels.len() - 1]);
    assert!(late < early + early / 20, "bytes held after each generation: {levels:?}");
    head.truncate_blocking(TimestampMs(begin_ms + GENERATIONS * LIFE_MS));
    assert_eq!(head.stats().series, 0);
}
