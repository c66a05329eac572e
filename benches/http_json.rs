//! Query results as JSON: a range of a day at a minute's step over 100 series, one of 1,000 points over 1,000 series, and an
//! instant vector of 10,000 series.
#![allow(missing_docs, reason = "a bench")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use watchfire::http::json::Json;
use watchfire::http::render::query_value;
use watchfire::model::labels::Labels;
use watchfire::model::result::{MatrixSeries, Point, QueryValue, VectorElement};
use watchfire::model::time::TimestampMs;

const START: i64 = 1_700_000_000_000;

fn labels(n: usize) -> Labels {
    let instance = format!("host-{n:05}.example.com:9100");
    Labels::from_pairs([("__name__", "requests_total"), ("instance", &instance), ("job", "node"), ("mode", "idle")])
}

/// Values as rates have them: many digits.
fn point(n: usize, step: usize) -> Point {
    let at = TimestampMs(START + step as i64 * 60_000);
    Point { at, value: (n * 7919 + step) as f64 / 37.0 }
}

fn render(value: &QueryValue) -> Vec<u8> {
    let mut json = Json::new();
    let mut object = json.object();
    query_value(&mut object, value);
    object.end();
    json.into_bytes()
}

fn results(c: &mut Criterion) {
    let matrix = |series: usize, points: usize| {
        let one = |n| MatrixSeries {
            labels: labels(n),
            points: (0..points).map(|step| point(n, step)).collect(),
            histograms: Vec::new(),
        };
        QueryValue::Matrix((0..series).map(one).collect())
    };
    let (day, large) = (matrix(100, 1440), matrix(1000, 1000));
    let element = |n| VectorElement { labels: labels(n), point: point(n, 0), histogram: None };
    let vector = QueryValue::Vector((0..10_000).map(element).collect());
    let mut group = c.benchmark_group("http_json");
    for (name, value) in [("matrix_100x1440", &day), ("matrix_1000x1000", &large), ("vector_10000", &vector)] {
        group.throughput(Throughput::Bytes(render(value).len() as u64));
        group.bench_function(name, |b| b.iter(|| black_box(render(value))));
    }
    group.finish();
}

criterion_group!(benches, results);
criterion_main!(benches);
