//! `sum by (job) (rate(x[5m]))` at one time over a million series: 500 targets in 10 jobs, 2,000 series each, one sample
//! each 15 s for five minutes. Prints the time of each run, wall clock and processor, and what the query held at most, by turns
//! without label sets and with them. Then selections and listings, of which one label has a value for each series. A number as
//! argument is that of the targets. With `churn` every series is replaced each five minutes for an hour of samples 15 s apart, while
//! what is older is cut off as after a block was made of it: prints the memory after each generation, then selections and listings.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measuring program that prints its figures")]

use std::time::Instant;

use watchfire::model::append::{AppendBatch, AppendSample, SeriesKey};
use watchfire::model::clock::ManualClock;
use watchfire::model::labels::Labels;
use watchfire::model::matcher::{MatchOp, Matcher};
use watchfire::model::read::{ReadView, Scope, Unlimited};
use watchfire::model::time::{TimeRange, TimestampMs};
use watchfire::promql::eval::{EngineOptions, QueryContext, Shortcuts, evaluate_instant};
use watchfire::promql::parser::{ParseOptions, parse_expr};
use watchfire::storage::head::{Head, HeadOptions};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Targets unless a number is given.
const TARGETS: usize = 500;
const SERIES_PER_TARGET: usize = 2_000;
const SAMPLES: i64 = 21;
const START_MS: i64 = 1_700_000_000_000;

fn labels(target: usize, series: usize) -> Labels {
    Labels::from_pairs([
        ("__name__", "x".to_owned()),
        ("handler", format!("/api/v1/resource/{}", series / 4)),
        ("instance", format!("10.0.{}.{}:8080", target / 250, target % 250)),
        ("job", format!("job-{}", target % 10)),
        ("method", ["GET", "PUT", "POST", "DELETE"][series % 4].to_owned()),
        ("uid", format!("{target:03}{}{series:04}", if series % 100 == 7 { "-foo-" } else { "-" })),
    ])
}

/// Seconds of processor time that the process has taken, from `/proc`; zero without it.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

/// Milliseconds that this thread has run, from `/proc`; zero without it.
fn ran_ms() -> f64 {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = schedstat.split_whitespace().next().and_then(|text| text.parse::<f64>().ok());
    nanos.unwrap_or(0.0) / 1e6
}

fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) / 1024.0
}

/// As shards do in idle moments.
fn tidy(head: &Head) {
    for shard in head.shards() {
        shard.seal_tail();
        while let Some(job) = shard.merge_job() {
            shard.install(job.run());
        }
    }
}

/// Generations of five minutes in an hour.
const GENERATIONS: i64 = 12;
const LIFE_MS: i64 = 300_000;

fn churn(targets: usize) {
    let head = Head::new(HeadOptions { shards: 2, ..HeadOptions::new(ManualClock::at(TimestampMs(1 << 42))) });
    let began = Instant::now();
    for generation in 0..GENERATIONS {
        let from = START_MS + generation * LIFE_MS;
        let mut known: Vec<Vec<SeriesKey>> = Vec::new();
        for step in 0..LIFE_MS / 15_000 {
            for target in 0..targets {
                let sample = |series: usize| AppendSample {
                    series: match known.get(target) {
                        Some(keys) => keys[series].clone(),
                        None => {
                            let mut builder = labels(target, series).to_builder();
                            // The last one is as in the measurement without churn.
                            if generation + 1 < GENERATIONS {
                                builder.set("uid", &format!("{target:03}-{series:04}-{generation}"));
                            }
                            SeriesKey::Labels(builder.build())
                        }
                    },
                    at: TimestampMs(from + step * 15_000),
                    value: (step * (series as i64 % 37 + 1)) as f64,
                };
                let batch = AppendBatch::of_floats((0..SERIES_PER_TARGET).map(sample).collect());
                let report = head.append_blocking(batch).unwrap();
                if step == 0 {
                    known.push(report.resolved.into_iter().map(|(_, handle)| SeriesKey::Known(handle)).collect());
                }
            }
            // Half of a generation later a block stands for the one before it.
            if step == LIFE_MS / 30_000 {
                head.truncate_blocking(TimestampMs(from));
            }
        }
        drop(known);
        let stats = head.stats();
        println!(
            "generation {generation}: {} series, {:.0} MiB resident, {} MiB of them the index, {:.0} s",
            stats.series,
            resident_mib(),
            stats.index_bytes >> 20,
            began.elapsed().as_secs_f64()
        );
    }
    tidy(&head);
    show_listings(&*head.queryable().view().unwrap());
    head.truncate_blocking(TimestampMs(START_MS + GENERATIONS * LIFE_MS));
    println!("nothing: {} series, {:.0} MiB resident", head.stats().series, resident_mib());
}

fn main() {
    let targets = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(TARGETS);
    if std::env::args().any(|argument| argument == "churn") {
        return churn(targets);
    }
    let head = Head::new(HeadOptions { shards: 2, ..HeadOptions::new(ManualClock::at(TimestampMs(1 << 42))) });
    let mut known: Vec<Vec<SeriesKey>> = Vec::new();
    for step in 0..SAMPLES {
        for target in 0..targets {
            let sample = |series: usize| AppendSample {
                series: match known.get(target) {
                    Some(keys) => keys[series].clone(),
                    None => SeriesKey::Labels(labels(target, series)),
                },
                at: TimestampMs(START_MS + step * 15_000),
                value: (step * (series as i64 % 37 + 1)) as f64,
            };
            let batch = AppendBatch::of_floats((0..SERIES_PER_TARGET).map(sample).collect());
            let report = head.append_blocking(batch).unwrap();
            if step == 0 {
                known.push(report.resolved.into_iter().map(|(_, handle)| SeriesKey::Known(handle)).collect());
            }
        }
    }
    tidy(&head);
    let view = head.queryable().view().unwrap();
    let at = TimestampMs(START_MS + (SAMPLES - 1) * 15_000);
    for query in ["sum by (job) (rate(x[5m]))", "count(x)", "sum by (job) (rate(x{method=\"GET\"}[5m]))"] {
        let expr = parse_expr(query, &ParseOptions::default()).unwrap();
        let usual =
            EngineOptions { shortcuts: Shortcuts { classes: false, ..Shortcuts::ALL }, ..EngineOptions::default() };
        for (run, opts) in (0..6).map(|run| (run, if run % 2 == 0 { EngineOptions::default() } else { usual.clone() }))
        {
            let ctx = QueryContext::unlimited(query);
            let (began, worked) = (Instant::now(), processor_seconds());
            let result = evaluate_instant(&expr, &*view, at, &opts, &ctx).unwrap();
            println!(
                "{query}{}: {:.3} s, {:.2} processor seconds, at most {} MiB held, {} samples looked at",
                if run % 2 == 0 { "" } else { " with label sets" },
                began.elapsed().as_secs_f64(),
                processor_seconds() - worked,
                result.stats.peak_bytes >> 20,
                result.stats.total_samples
            );
        }
    }
    show_listings(&*view);
}

/// Selections and listings, three times each.
fn show_listings(view: &dyn ReadView) {
    let selectors = [
        ("instance", MatchOp::Equal, "10.0.0.7:8080"),
        ("uid", MatchOp::Equal, "007-0011"),
        ("uid", MatchOp::Regex, ".*foo.*"),
    ];
    for (name, op, value) in selectors {
        let matchers = [Matcher::new(op, name, value).unwrap()];
        for _ in 0..3 {
            // The first time series are looked for; later they are known, unless they are too many.
            let (began, ran) = (Instant::now(), ran_ms());
            let found = view.select(&matchers, TimeRange::ALL, &Unlimited).unwrap();
            let (took, ran) = (began.elapsed().as_secs_f64() * 1e3, ran_ms() - ran);
            println!("{{{}}}: {} series in {took:.2} ms, {ran:.2} of the processor", matchers[0], found.len());
        }
    }
    for name in ["instance", "handler", "uid"] {
        for _ in 0..3 {
            let (began, ran) = (Instant::now(), ran_ms());
            let found = view.label_values(name, &Scope::all(&[], TimeRange::ALL), &Unlimited).unwrap();
            let (took, ran) = (began.elapsed().as_secs_f64() * 1e3, ran_ms() - ran);
            println!("values of {name}: {} in {took:.2} ms, {ran:.2} of the processor", found.len());
        }
    }
}
