//! Range queries over series in memory, from plan to result. Models a dashboard: 1,000 counters (10 jobs of 100 instances)
//! and 100 histograms of 10 buckets, one sample each 15 s for 6 h; panels of 6 h at a step of 60 s. Parsing is left out.
//! Storage is a plain map, so decoding is a copy: what is measured is evaluation.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use watchfire::model::labels::Labels;
use watchfire::model::read::{Queryable, ReadView};
use watchfire::model::time::TimestampMs;
use watchfire::promql::ast::Expr;
use watchfire::promql::eval::{EngineOptions, QueryContext, evaluate_instant, evaluate_range};
use watchfire::promql::parser::{ParseOptions, parse_expr};
use watchfire::promqltest::{MemoryStorage, TestStorage};

const SCRAPE_MS: i64 = 15_000;
const END_MS: i64 = 6 * 3_600_000;
const STEP_MS: i64 = 60_000;

const RANGE_QUERIES: [(&str, &str); 9] = [
    ("select", "requests_total"),
    ("rate", "rate(requests_total{job=\"1\"}[5m])"),
    ("sum_by_rate", "sum by (job) (rate(requests_total[5m]))"),
    ("avg_over_time", "avg_over_time(requests_total[5m])"),
    ("max_over_time_1h", "max_over_time(requests_total[1h])"),
    ("histogram_quantile", "histogram_quantile(0.9, sum by (le) (rate(latency_bucket[5m])))"),
    ("topk", "topk(10, requests_total)"),
    ("ratio", "sum by (job) (rate(requests_total[5m])) / on (job) group_left () count by (job) (requests_total)"),
    ("join", "requests_total * on (job, instance) group_left () (requests_total > 5000)"),
];

fn storage() -> MemoryStorage {
    let mut storage = MemoryStorage::new();
    let mut append = |labels: Labels, step: f64| {
        let samples = (0..=END_MS / SCRAPE_MS).map(|i| (i * SCRAPE_MS, (i as f64 * step).floor()));
        storage.append(&labels, &samples.collect::<Vec<_>>()).unwrap();
    };
    for job in 0..10 {
        for instance in 0..100 {
            let (job_text, instance_text) = (job.to_string(), format!("host-{instance:03}:9100"));
            let pairs = [("__name__", "requests_total"), ("job", &job_text), ("instance", &instance_text)];
            append(Labels::from_pairs(pairs), 1.5 + f64::from(instance));
        }
    }
    for instance in 0..100 {
        for (bucket, le) in ["0.005", "0.01", "0.05", "0.1", "0.5", "1", "2.5", "5", "10", "+Inf"].iter().enumerate() {
            let instance = format!("host-{instance:03}:9100");
            let pairs = [("__name__", "latency_bucket"), ("le", le), ("instance", &instance)];
            append(Labels::from_pairs(pairs), 0.7 + bucket as f64);
        }
    }
    storage
}

fn parse(query: &str) -> Expr {
    parse_expr(query, &ParseOptions::default()).unwrap()
}

fn queries(c: &mut Criterion) {
    let view: Arc<dyn ReadView> = storage().view().unwrap();
    let (opts, ctx) = (EngineOptions::default(), QueryContext::unlimited(""));
    let mut range = c.benchmark_group("query_range_6h_60s");
    range.sample_size(10);
    for (name, query) in RANGE_QUERIES {
        let expr = parse(query);
        let (start, end) = (TimestampMs(0), TimestampMs(END_MS));
        range.bench_function(name, |b| {
            b.iter(|| black_box(evaluate_range(&expr, &*view, start, end, STEP_MS, &opts, &ctx).unwrap()));
        });
    }
    range.finish();
    let mut instant = c.benchmark_group("query_instant");
    for (name, query) in RANGE_QUERIES {
        let expr = parse(query);
        instant.bench_function(name, |b| {
            b.iter(|| black_box(evaluate_instant(&expr, &*view, TimestampMs(END_MS), &opts, &ctx).unwrap()));
        });
    }
    instant.finish();
}

criterion_group!(benches, queries);
criterion_main!(benches);
