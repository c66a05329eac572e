//! Selecting series in a head of 200,000 series (400 targets, 500 series each), two shards, no decoding.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use watchfire::model::append::{AppendBatch, AppendSample, SeriesKey};
use watchfire::model::clock::ManualClock;
use watchfire::model::labels::Labels;
use watchfire::model::matcher::{MatchOp, Matcher};
use watchfire::model::read::{ReadView, Scope, Unlimited};
use watchfire::model::time::{TimeRange, TimestampMs};
use watchfire::storage::head::{Head, HeadOptions};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn head() -> Head {
    let clock = ManualClock::at(TimestampMs(1_000_000));
    let head = Head::new(HeadOptions { shards: 2, ..HeadOptions::new(clock) });
    for target in 0..400 {
        let sample = |series: usize| AppendSample {
            series: SeriesKey::Labels(Labels::from_pairs([
                ("__name__", format!("node_metric_{}_total", series / 10)),
                ("cpu", (series % 10).to_string()),
                ("instance", format!("host-{target:04}.example.com:9100")),
                ("job", if target % 2 == 0 { "node" } else { "api" }.to_owned()),
            ])),
            at: TimestampMs(1000),
            value: 1.0,
        };
        let batch = AppendBatch::of_floats((0..500).map(sample).collect());
        head.append_blocking(batch).expect("all shards are ready");
    }
    // As a shard does in idle moments.
    for shard in head.shards() {
        shard.seal_tail();
        while let Some(job) = shard.merge_job() {
            shard.install(job.run());
        }
    }
    head
}

fn postings(c: &mut Criterion) {
    let head = head();
    let view = head.queryable().view().expect("all shards are ready");
    let regex = |name: &str, value: &str| Matcher::new(MatchOp::Regex, name, value).expect("a valid pattern");
    let equal = |name: &str, value: &str| Matcher::equal(name, value);
    let not = |name: &str, value: &str| Matcher::new(MatchOp::NotEqual, name, value).expect("no pattern");
    let name = || equal("__name__", "node_metric_7_total");
    let cases: Vec<(&str, Vec<Matcher>)> = vec![
        ("one", vec![name(), equal("instance", "host-0007.example.com:9100"), equal("cpu", "3")]),
        ("name", vec![name()]),
        ("name_and_regex", vec![name(), regex("instance", "host-00.*:9100")]),
        ("name_and_alternation", vec![name(), regex("cpu", "1|2|3")]),
        ("name_and_not", vec![name(), not("cpu", "0"), not("job", "api")]),
        ("regex_over_names", vec![regex("__name__", "node_metric_1.*_total")]),
        ("absent_label", vec![name(), equal("mode", "")]),
        ("all", vec![not("__name__", "")]),
    ];
    let mut group = c.benchmark_group("select");
    group.sample_size(20);
    for (case, matchers) in cases {
        let select = |view: &dyn ReadView| view.select(&matchers, TimeRange::ALL, &Unlimited).map(|s| s.len());
        group.bench_function(case, |b| b.iter(|| black_box(select(&*view))));
    }
    group.bench_function("open_view", |b| b.iter(|| black_box(head.queryable().view())));
    group.bench_function("label_values", |b| {
        b.iter(|| black_box(view.label_values("instance", &Scope::all(&[], TimeRange::ALL), &Unlimited)));
    });
    group.finish();
}

criterion_group!(benches, postings);
criterion_main!(benches);
