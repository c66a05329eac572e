//! Decoding of remote write requests of 2,000 series with one sample each and about 170 bytes of labels, as a sender of
//! node exporters makes them: snappy, version 1 and 2, series that are known and series that are not. No storage.
#![allow(missing_docs, reason = "a bench")]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use watchfire::model::append::{AppendReport, SeriesHandle, ShardId};
use watchfire::model::sample::SeriesRef;
use watchfire::model::time::TimestampMs;
use watchfire::remote::receive::budget::Budget;
use watchfire::remote::receive::cache::SeriesCache;
use watchfire::remote::receive::{Extras, Lookup, Message, Packing, decode, decoded_len, unpack};

const SERIES: u64 = 2000;
const NOW: TimestampMs = TimestampMs(1_700_000_000_000);

fn varint(out: &mut Vec<u8>, mut n: u64) {
    while 0x80 <= n {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn field(out: &mut Vec<u8>, tag: u8, value: &[u8]) {
    out.push(tag);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn labels(n: u64) -> Vec<(String, String)> {
    [
        ("__name__", format!("node_network_receive_bytes_total_{}", n % 40)),
        ("cluster", "europe-west-production".to_owned()),
        ("device", format!("eth{}", n / 40)),
        ("instance", "node-0017.example.net:9100".to_owned()),
        ("job", "node".to_owned()),
        ("namespace", "monitoring".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

fn sample(n: u64) -> Vec<u8> {
    let mut out = vec![0x09];
    out.extend_from_slice(&(n as f64 * 1.5).to_le_bytes());
    out.push(0x10);
    varint(&mut out, NOW.0.cast_unsigned());
    out
}

fn v1() -> Vec<u8> {
    let mut request = Vec::new();
    for n in 0..SERIES {
        let mut series = Vec::new();
        for (name, value) in labels(n) {
            let mut label = Vec::new();
            field(&mut label, 0x0a, name.as_bytes());
            field(&mut label, 0x12, value.as_bytes());
            field(&mut series, 0x0a, &label);
        }
        field(&mut series, 0x12, &sample(n));
        field(&mut request, 0x0a, &series);
    }
    request
}

fn v2() -> Vec<u8> {
    let (mut symbols, mut all) = (vec![String::new()], Vec::new());
    for n in 0..SERIES {
        let (mut refs, mut series) = (Vec::new(), Vec::new());
        for text in labels(n).into_iter().flat_map(|(name, value)| [name, value]) {
            let at = symbols.iter().position(|symbol| *symbol == text).unwrap_or(symbols.len());
            if at == symbols.len() {
                symbols.push(text);
            }
            varint(&mut refs, at as u64);
        }
        field(&mut series, 0x0a, &refs);
        field(&mut series, 0x12, &sample(n));
        field(&mut all, 0x2a, &series);
    }
    let mut request = Vec::new();
    symbols.iter().for_each(|symbol| field(&mut request, 0x22, symbol.as_bytes()));
    request.extend(all);
    request
}

/// A cache that has the series of a request.
fn filled(message: Message, body: &[u8]) -> SeriesCache {
    let cache = SeriesCache::new();
    let mut held = Budget::new(0).permit();
    let decoded =
        decode(message, body, NOW, Lookup::Cached(&cache), Extras::default(), &mut held).expect("a good request");
    let handle = |at: u32| SeriesHandle { series: SeriesRef(u64::from(at) + 1), shard: ShardId(0) };
    let resolved = (0..SERIES as u32).map(|at| (at, handle(at))).collect();
    decoded.enter(&cache, &AppendReport { resolved, ..AppendReport::default() }, SERIES);
    cache
}

fn decoding(c: &mut Criterion) {
    let mut group = c.benchmark_group("remote_write");
    group.throughput(Throughput::Elements(SERIES));
    let budget = Budget::new(0);
    for (name, message, body) in [("v1", Message::V1, v1()), ("v2", Message::V2, v2())] {
        let cache = filled(message, &body);
        group.bench_function(format!("{name}_known_series"), |b| {
            b.iter(|| {
                decode(message, black_box(&body), NOW, Lookup::Cached(&cache), Extras::default(), &mut budget.permit())
            });
        });
        group.bench_function(format!("{name}_new_series"), |b| {
            let new = SeriesCache::new();
            b.iter(|| {
                decode(message, black_box(&body), NOW, Lookup::Cached(&new), Extras::default(), &mut budget.permit())
            });
        });
        for (packing, packed) in [
            (Packing::Snappy, snap::raw::Encoder::new().compress_vec(&body).expect("short enough")),
            (Packing::Zstd, zstd::bulk::compress(&body, 1).expect("memory")),
        ] {
            group.bench_function(format!("{name}_{packing:?}").to_lowercase(), |b| {
                let mut out = Vec::new();
                b.iter(|| {
                    let declared = decoded_len(packing, &packed).expect("a good body");
                    unpack(packing, black_box(&packed), declared, &mut out)
                });
            });
        }
    }
    group.bench_function("entering_series", |b| {
        let body = v1();
        let known = SeriesCache::new();
        let mut held = budget.permit();
        let decoded = decode(Message::V1, &body, NOW, Lookup::Cached(&known), Extras::default(), &mut held)
            .expect("a good request");
        let handle = |at: u32| SeriesHandle { series: SeriesRef(u64::from(at) + 1), shard: ShardId(0) };
        let resolved = (0..SERIES as u32).map(|at| (at, handle(at))).collect();
        let report = AppendReport { resolved, ..AppendReport::default() };
        b.iter_batched_ref(SeriesCache::new, |cache| decoded.enter(cache, &report, SERIES), BatchSize::SmallInput);
    });
    group.finish();
}

criterion_group!(benches, decoding);
criterion_main!(benches);
