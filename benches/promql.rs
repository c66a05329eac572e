//! Parsing and evaluation of what dashboards ask, over a head. Models 40 web servers: 1,000 request counters (25 for each
//! server), 100 histograms of 10 buckets, one info series for each server, one sample each 15 s for 2 h; ranges are the last
//! hour at a step of 15 s.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use watchfire::model::append::{AppendBatch, AppendSample, SeriesKey};
use watchfire::model::clock::ManualClock;
use watchfire::model::labels::Labels;
use watchfire::model::random::Random;
use watchfire::model::read::ReadView;
use watchfire::model::time::TimestampMs;
use watchfire::promql::eval::{EngineOptions, QueryContext, Shortcuts, evaluate_instant, evaluate_range};
use watchfire::promql::parser::{ParseOptions, parse_expr};
use watchfire::storage::head::{Head, HeadOptions};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const START_MS: i64 = 1_699_999_200_000;
const STEP_MS: i64 = 15_000;
const SAMPLES: i64 = 480;

/// Texts of the usual length, from the dashboards of the node exporter, of Kubernetes and of Prometheus itself.
const TEXTS: [(&str, &str); 5] = [
    ("up", "up{job=\"node\"}"),
    ("rate", "sum by (job, code) (rate(http_requests_total{namespace=\"$ns\", code!~\"5..\"}[5m]))"),
    ("ratio", "100 * (1 - avg by (instance) (rate(node_cpu_seconds_total{mode=\"idle\", instance=\"a:9100\"}[5m])))"),
    (
        "quantile",
        "histogram_quantile(0.99, sum by (le, handler) (rate(http_request_duration_seconds_bucket{job=\"api\"}[5m])))",
    ),
    (
        "join",
        "sum by (version) (rate(http_requests_total[5m]) * on (instance, job) group_left (version) instance_info)",
    ),
];

const QUERIES: [(&str, &str); 14] = [
    ("select_one", "requests_total{instance=\"web-03:8080\", handler=\"/h4\"}"),
    ("select_all", "requests_total"),
    ("select_by_pattern", "requests_total{handler=~\"/h[0-4]\", instance!~\"web-0.*\"}"),
    ("rate_1000_series", "rate(requests_total[5m])"),
    ("increase_1h", "increase(requests_total[1h])"),
    ("avg_over_time", "avg_over_time(requests_total[10m])"),
    ("quantile_over_time", "quantile_over_time(0.9, requests_total[10m])"),
    ("sum_by_rate", "sum by (handler) (rate(requests_total[5m]))"),
    ("topk", "topk(5, sum by (instance) (rate(requests_total[5m])))"),
    ("quantile", "quantile by (handler) (0.9, requests_total)"),
    ("histogram_quantile", "histogram_quantile(0.9, sum by (le) (rate(latency_bucket[5m])))"),
    ("join", "sum by (version) (rate(requests_total[5m]) * on (instance) group_left (version) info)"),
    (
        "ratio",
        "sum by (handler) (rate(requests_total{code=\"500\"}[5m])) / sum by (handler) (rate(requests_total[5m]))",
    ),
    ("subquery", "max_over_time(sum by (handler) (rate(requests_total{code=\"500\"}[5m]))[30m:1m])"),
];

/// Queries that ask for something more than once.
const REPEATED: [(&str, &str); 4] = [
    (
        "same_rate",
        "sum by (handler) (rate(requests_total[5m])) / ignoring (handler) group_left sum(rate(requests_total[5m]))",
    ),
    (
        "same_quantiles",
        "histogram_quantile(0.99, sum by (le) (rate(latency_bucket[5m]))) - histogram_quantile(0.5, sum by (le) (rate(latency_bucket[5m])))",
    ),
    ("two_windows", "rate(requests_total[5m]) / rate(requests_total[1h])"),
    ("offset", "requests_total - requests_total offset 5m"),
];

fn series() -> Vec<Labels> {
    let mut all = Vec::new();
    for server in 0..40 {
        let instance = format!("web-{server:02}:8080");
        for handler in 0..25 {
            let (handler, code) = (format!("/h{}", handler / 2), ["200", "500"][handler % 2]);
            all.push(Labels::from_pairs([
                ("__name__", "requests_total"),
                ("code", code),
                ("handler", &handler),
                ("instance", &instance),
                ("job", "web"),
            ]));
        }
        let version = format!("1.{}", server % 3);
        all.push(Labels::from_pairs([("__name__", "info"), ("instance", &instance), ("version", &version)]));
    }
    for histogram in 0..100 {
        for le in ["0.005", "0.01", "0.05", "0.1", "0.5", "1", "2.5", "5", "10", "+Inf"] {
            let instance = format!("web-{:02}:8080", histogram % 40);
            let handler = format!("/h{}", histogram / 40);
            let pairs = [("__name__", "latency_bucket"), ("handler", &handler), ("instance", &instance), ("le", le)];
            all.push(Labels::from_pairs(pairs));
        }
    }
    all
}

fn head() -> Head {
    let head = Head::new(HeadOptions { shards: 2, ..HeadOptions::new(ManualClock::at(TimestampMs(1 << 42))) });
    let all = series();
    let mut random = Random::seeded(3);
    let mut values = vec![0.0; all.len()];
    for step in 0..SAMPLES {
        let samples = all.iter().zip(&mut values).map(|(labels, value)| {
            *value += random.below(40) as f64;
            AppendSample {
                series: SeriesKey::Labels(labels.clone()),
                at: TimestampMs(START_MS + step * STEP_MS),
                value: *value,
            }
        });
        head.append_blocking(AppendBatch::of_floats(samples.collect())).unwrap();
    }
    head
}

fn parsing(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    let options = ParseOptions::default();
    for (name, text) in TEXTS {
        group.bench_function(name, |b| b.iter(|| black_box(parse_expr(black_box(text), &options).unwrap())));
    }
    group.finish();
}

fn evaluation(c: &mut Criterion) {
    let view: Arc<dyn ReadView> = head().queryable().view().unwrap();
    let (opts, ctx) = (EngineOptions::default(), QueryContext::unlimited(""));
    let end = TimestampMs(START_MS + (SAMPLES - 1) * STEP_MS);
    let start = TimestampMs(end.0 - 3_600_000);
    let mut instant = c.benchmark_group("instant");
    for (name, query) in QUERIES {
        let expr = parse_expr(query, &ParseOptions::default()).unwrap();
        instant.bench_function(name, |b| {
            b.iter(|| black_box(evaluate_instant(&expr, &*view, end, &opts, &ctx).unwrap()));
        });
    }
    instant.finish();
    let mut range = c.benchmark_group("range_1h_15s");
    range.sample_size(10);
    for (name, query) in QUERIES {
        let expr = parse_expr(query, &ParseOptions::default()).unwrap();
        range.bench_function(name, |b| {
            b.iter(|| black_box(evaluate_range(&expr, &*view, start, end, STEP_MS, &opts, &ctx).unwrap()));
        });
    }
    range.finish();
    let each = Shortcuts { common_parts: false, common_reads: false, ..Shortcuts::ALL };
    for (name, shortcuts) in [("repeated_once", Shortcuts::ALL), ("repeated_each", each)] {
        let opts = EngineOptions { shortcuts, ..opts.clone() };
        let mut group = c.benchmark_group(name);
        group.sample_size(10);
        for (name, query) in REPEATED {
            let expr = parse_expr(query, &ParseOptions::default()).unwrap();
            group.bench_function(name, |b| {
                b.iter(|| black_box(evaluate_range(&expr, &*view, start, end, STEP_MS, &opts, &ctx).unwrap()));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, parsing, evaluation);
criterion_main!(benches);
