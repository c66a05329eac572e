//! Resident memory of a series in the head: 200,000 series of 400 targets with ten labels, 15 s apart, young (six
//! samples) and after three hours. Prints bytes for each series beyond the process as it was before; see
//! `docs/memory.md`.

#![allow(clippy::print_stdout, reason = "a measuring program that prints its figures")]

use watchfire::model::append::{AppendBatch, AppendSample, SeriesKey};
use watchfire::model::clock::ManualClock;
use watchfire::model::labels::Labels;
use watchfire::model::random::Random;
use watchfire::model::time::TimestampMs;
use watchfire::storage::head::{Head, HeadOptions};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const TARGETS: usize = 400;
const SERIES_PER_TARGET: usize = 500;

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap_or(0) * 1024
}

fn labels(target: usize, series: usize) -> Labels {
    Labels::from_pairs([
        ("__name__", format!("http_request_duration_seconds_metric_{}", series / 10)),
        ("cluster", "eu-central-1".to_owned()),
        ("code", ["200", "404", "500"][series % 3].to_owned()),
        ("handler", format!("/api/v1/resource/{}", series % 10)),
        ("instance", format!("10.0.{}.{}:8080", target / 250, target % 250)),
        ("job", "api".to_owned()),
        ("le", format!("{}", series % 10)),
        ("method", "GET".to_owned()),
        ("namespace", "production".to_owned()),
        ("pod", format!("api-7d9c5b7f4d-{target:05x}")),
    ])
}

fn main() {
    // Figures of a machine under test would need `/proc`; without it the program prints zeros.
    let before = resident_bytes();
    let clock = ManualClock::at(TimestampMs(1 << 42));
    let head = Head::new(HeadOptions { shards: 2, ..HeadOptions::new(clock) });
    let mut random = Random::seeded(7);
    let mut handles: Vec<Vec<SeriesKey>> = Vec::new();
    let mut values = vec![0.0; TARGETS * SERIES_PER_TARGET];
    for round in 0..720 {
        for target in 0..TARGETS {
            let sample = |series: usize| {
                let value = &mut values[target * SERIES_PER_TARGET + series];
                // A third of the series stand still, a third count, a third move about.
                *value += [0.0, random.below(100) as f64, random.next_f64()][series % 3];
                let known = handles.get(target).map(|keys| keys[series].clone());
                AppendSample {
                    series: known.unwrap_or_else(|| SeriesKey::Labels(labels(target, series))),
                    at: TimestampMs(1_700_000_000_000 + round * 15_000),
                    value: *value,
                }
            };
            let batch = AppendBatch::of_floats((0..SERIES_PER_TARGET).map(sample).collect());
            let report = head.append_blocking(batch).expect("all shards are ready");
            if round == 0 {
                handles.push(report.resolved.into_iter().map(|(_, handle)| SeriesKey::Known(handle)).collect());
            }
        }
        if round == 5 || round == 719 {
            let used = resident_bytes().saturating_sub(before);
            let stats = head.stats();
            println!(
                "after {} samples: {} bytes a series ({} for the index), {} chunks",
                round + 1,
                used / values.len(),
                stats.index_bytes / values.len(),
                stats.chunks
            );
        }
    }
}
