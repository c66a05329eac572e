//! Reading one scrape of a node exporter: 1,554 series in 114 KB (`node_exposition.txt`), on one core, up to the batch for
//! storage.
//!
//! `new` is the first scrape of a target (every series is labelled), `known` any later one (every line is known).
#![allow(missing_docs, reason = "criterion's macros make public items")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use url::Url;
use watchfire::client::{ClientOptions, HttpClient};
use watchfire::model::append::{AppendReport, SeriesHandle, SeriesKey, ShardId};
use watchfire::model::clock::SystemClock;
use watchfire::model::labels::Labels;
use watchfire::model::sample::SeriesRef;
use watchfire::model::time::TimestampMs;
use watchfire::scrape::cache::TargetCache;
use watchfire::scrape::metrics::ScrapeMetrics;
use watchfire::scrape::settings::{SamplePlan, ScrapeLimits};
use watchfire::scrape::staging::StagingBudget;
use watchfire::scrape::{ScrapeContext, from_bytes};
use watchfire::telemetry::metrics::Registry;

/// A page of our own making that looks like that of a node exporter.
const PAGE: &str = include_str!("node_exposition.txt");

/// The page with values that differ from scrape to scrape, as those of counters do.
fn body(scrape: usize) -> String {
    let mut text = String::with_capacity(PAGE.len() + PAGE.len() / 8);
    for (at, line) in PAGE.lines().enumerate() {
        match line.rsplit_once(' ').filter(|_| !line.starts_with('#')) {
            // Three of four stand still, as most do.
            Some((series, value)) if at % 4 == 0 => {
                let value: f64 = value.parse().unwrap_or(0.0);
                let _ = writeln!(text, "{series} {}", value + (scrape * 25) as f64 / 4.0);
            }
            _ => {
                let _ = writeln!(text, "{line}");
            }
        }
    }
    text
}

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn bench(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _entered = runtime.enter();
    let client = HttpClient::new(ClientOptions { user_agent: "bench".into(), follow_redirects: false });
    let url = Url::parse("http://localhost/metrics").expect("a URL");
    let target_labels = Labels::from_pairs([("instance", "localhost:9100"), ("job", "node")]);
    let plan = SamplePlan { target_labels, settings: Arc::default(), relabel: None };
    let (staging, metrics, clock) =
        (StagingBudget::new(0), ScrapeMetrics::new(&Registry::default()), SystemClock::new());
    let cache = TargetCache::new();
    let context = ScrapeContext {
        client: &client,
        url: &url,
        has_usual_port: false,
        timeout: Duration::from_secs(10),
        plan: &plan,
        cache: &cache,
        staging: &staging,
        limits: ScrapeLimits::for_memory(8 << 30),
        metrics: &metrics,
        clock: &clock,
    };
    let bodies: Vec<String> = (0..16).map(body).collect();
    // Storage resolves every series once, as in a running server.
    let first = from_bytes(&context, TimestampMs(0), bodies[0].as_bytes());
    let by_labels = (0_u32..).zip(&first.batch.samples).filter(|(_, s)| matches!(s.series, SeriesKey::Labels(_)));
    let resolved =
        by_labels.map(|(i, _)| (i, SeriesHandle { series: SeriesRef(u64::from(i) + 1), shard: ShardId(0) })).collect();
    cache.confirm(first.pending, &AppendReport { resolved, ..AppendReport::default() }, &plan);

    let mut group = criterion.benchmark_group("node_exposition");
    group.throughput(Throughput::Bytes(bodies[1].len() as u64));
    group.bench_function("new", |bencher| {
        bencher.iter(|| {
            let empty = TargetCache::new();
            let cold = ScrapeContext { cache: &empty, ..context };
            black_box(from_bytes(&cold, TimestampMs(1), bodies[1].as_bytes()))
        });
    });
    let mut scrape = 0;
    group.bench_function("known", |bencher| {
        bencher.iter(|| {
            scrape += 1;
            let scraped = from_bytes(&context, TimestampMs(scrape), bodies[scrape as usize % bodies.len()].as_bytes());
            cache.confirm(scraped.pending, &AppendReport::default(), &plan);
            black_box(scraped.batch)
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
