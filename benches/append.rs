//! Appending to the head: 100,000 series of 200 targets, one sample each 15 s, one batch a target, as scraping does.
//! `known_handles` is the usual scrape, `by_labels` is remote write without a cache, `new_series` is a rollout.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use watchfire::model::append::{AppendBatch, AppendSample, SeriesHandle, SeriesKey};
use watchfire::model::clock::ManualClock;
use watchfire::model::labels::Labels;
use watchfire::model::time::TimestampMs;
use watchfire::storage::head::{Head, HeadOptions};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const TARGETS: usize = 200;
const SERIES_PER_TARGET: usize = 500;
const START: i64 = 1_700_000_000_000;

fn new_head() -> Head {
    Head::new(HeadOptions::new(ManualClock::at(TimestampMs(START * 2))))
}

fn labels(target: usize, series: usize) -> Labels {
    Labels::from_pairs([
        ("__name__", format!("node_metric_{}_total", series / 10)),
        ("cpu", (series % 10).to_string()),
        ("instance", format!("host-{target:04}.example.com:9100")),
        ("job", "node".to_owned()),
        ("mode", "idle".to_owned()),
    ])
}

fn batch(keys: &[SeriesKey], at: i64, round: usize) -> AppendBatch {
    let sample = |(i, key): (usize, &SeriesKey)| AppendSample {
        series: key.clone(),
        at: TimestampMs(at),
        value: (round * (i % 50)) as f64,
    };
    AppendBatch::of_floats(keys.iter().enumerate().map(sample).collect())
}

fn label_keys() -> Vec<Vec<SeriesKey>> {
    (0..TARGETS).map(|t| (0..SERIES_PER_TARGET).map(|s| SeriesKey::Labels(labels(t, s))).collect()).collect()
}

fn handle_keys(head: &Head, targets: &[Vec<SeriesKey>]) -> Vec<Vec<SeriesKey>> {
    let resolve = |keys: &Vec<SeriesKey>| {
        let report = head.append_blocking(batch(keys, START, 0)).expect("the only shard is ready");
        report.resolved.into_iter().map(|(_, handle): (u32, SeriesHandle)| SeriesKey::Known(handle)).collect()
    };
    targets.iter().map(resolve).collect()
}

fn append(c: &mut Criterion) {
    let mut group = c.benchmark_group("append");
    group.sample_size(20);
    group.throughput(Throughput::Elements((TARGETS * SERIES_PER_TARGET) as u64));
    let by_labels = label_keys();
    for (name, known) in [("known_handles", true), ("by_labels", false)] {
        let head = new_head();
        let handles = handle_keys(&head, &by_labels);
        let keys = if known { &handles } else { &by_labels };
        let mut round = 0;
        group.bench_function(name, |b| {
            b.iter_batched(
                || {
                    round += 1;
                    let at = START + round as i64 * 15_000;
                    // Three hours are kept, as a head would.
                    if round % 240 == 0 {
                        head.truncate_blocking(TimestampMs(at - 3 * 3_600_000));
                    }
                    keys.iter().map(|keys| batch(keys, at, round)).collect::<Vec<_>>()
                },
                |batches| {
                    for batch in batches {
                        black_box(head.append_blocking(batch).expect("the only shard is ready"));
                    }
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.bench_function("new_series", |b| {
        b.iter_batched(
            || (new_head(), by_labels.iter().map(|keys| batch(keys, START, 1)).collect::<Vec<_>>()),
            |(head, batches)| {
                for batch in batches {
                    black_box(head.append_blocking(batch).expect("the only shard is ready"));
                }
                head
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, append);
criterion_main!(benches);
