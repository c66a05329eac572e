//! The write-ahead log: appending the records of a usual scrape (500 known series), with one sync for sixteen of them, and
//! reading a log of 100,000 series with 20 samples each back into an empty head. On a file system in memory, so that what
//! is measured is framing, compression and decoding.
#![allow(missing_docs, reason = "a bench")]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use watchfire::model::clock::{ManualClock, SharedClock};
use watchfire::model::labels::Labels;
use watchfire::model::sample::SeriesRef;
use watchfire::model::time::TimestampMs;
use watchfire::storage::fs::SharedFs;
use watchfire::storage::fs::sim::SimFs;
use watchfire::storage::head::{Head, HeadOptions};
use watchfire::storage::replay;
use watchfire::storage::wal::WalOptions;
use watchfire::storage::wal::metrics::WalMetrics;
use watchfire::storage::wal::record::{Record, RefSample, encode_samples, encode_series};
use watchfire::storage::wal::writer::Writer;
use watchfire::telemetry::metrics::Registry;

const DATA: &str = "/data";
const START: i64 = 1_700_000_000_000;
const SCRAPE_SERIES: u64 = 500;
const SERIES: u64 = 100_000;
const ROUNDS: i64 = 20;

fn open(fs: &SimFs) -> (Head, Writer) {
    let clock: SharedClock = ManualClock::at(TimestampMs(START * 2));
    let head = Head::new(HeadOptions { shards: 2, ..HeadOptions::new(Arc::clone(&clock)) });
    let shared: SharedFs = Arc::new(fs.clone());
    shared.create_dir_all(Path::new(DATA)).expect("a folder");
    let metrics = WalMetrics::new(&Registry::default(), &clock);
    let opened = replay::open(&shared, Path::new(DATA), WalOptions::default(), &metrics, &head, TimestampMs::MIN);
    (head, opened.expect("a sound log").0)
}

fn scrape(first: u64, round: i64) -> Vec<Record> {
    let sample = |n: u64| RefSample {
        series: SeriesRef(first + n),
        t: START + round * 15_000,
        value: (round * (n % 50).cast_signed()) as f64,
    };
    let mut records = Vec::new();
    encode_samples((0..SCRAPE_SERIES).map(sample), &mut records);
    records
}

fn append(c: &mut Criterion) {
    let mut group = c.benchmark_group("wal_append");
    group.throughput(Throughput::Elements(16 * SCRAPE_SERIES));
    let scrapes: Vec<Vec<Record>> = (0..16).map(|round| scrape(1, round)).collect();
    group.bench_function("16_scrapes_and_a_sync", |b| {
        let write = |mut writer: Writer| {
            for records in &scrapes {
                writer.append(records).expect("room");
            }
            writer.sync().expect("a disk that works");
            writer
        };
        b.iter_batched(|| open(&SimFs::new()).1, |writer| black_box(write(writer)), BatchSize::LargeInput);
    });
    group.finish();
}

fn read_back(c: &mut Criterion) {
    let fs = SimFs::new();
    let (_, mut writer) = open(&fs);
    let labels = |n: u64| {
        let (instance, metric) =
            (format!("host-{:04}:9100", n / SCRAPE_SERIES), format!("metric_{}", n % SCRAPE_SERIES));
        Labels::from_pairs([("__name__", metric.as_str()), ("instance", &instance), ("job", "node")])
    };
    for first in (1..=SERIES).step_by(1000) {
        let labels: Vec<(SeriesRef, Labels)> = (first..first + 1000).map(|n| (SeriesRef(n), labels(n))).collect();
        let mut records = Vec::new();
        encode_series(labels.iter().map(|(series, labels)| (*series, labels)), &mut records);
        writer.append(&records).expect("room");
    }
    for round in 0..ROUNDS {
        for first in (1..=SERIES).step_by(500) {
            writer.append(&scrape(first, round)).expect("room");
        }
    }
    drop(writer);
    let mut group = c.benchmark_group("wal_replay");
    group.sample_size(10);
    group.throughput(Throughput::Elements(SERIES * ROUNDS.unsigned_abs()));
    group.bench_function("100000_series", |b| {
        b.iter_batched(|| fs.fork(), |fs| black_box(open(&fs)), BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group!(benches, append, read_back);
criterion_main!(benches);
