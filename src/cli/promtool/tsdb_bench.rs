//! `promtool tsdb bench write`: how fast samples get into the head and its log, on one thread.

use std::collections::HashSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::tsdb::{finish, positional};
use super::tsdb_import::Whenever;
use super::{Command, ENABLE_FEATURE, EXPERIMENTAL, Given, OWN, flag, go_reason};
use crate::cli::flag_spec::{FlagSpec, Kind};
use crate::http::profile::Sampling;
use crate::model::append::{AppendBatch, AppendReport, AppendSample, SeriesKey};
use crate::model::clock::SystemClock;
use crate::model::go::format_float_g;
use crate::model::go_time;
use crate::model::labels::Labels;
use crate::model::time::TimestampMs;
use crate::storage::fs::RealFs;
use crate::storage::head::{Head, HeadOptions};
use crate::storage::replay;
use crate::storage::wal::WalOptions;
use crate::storage::wal::metrics::WalMetrics;
use crate::storage::wal::record::LogRecords;
use crate::storage::wal::writer::Writer;
use crate::telemetry::metrics::Registry;

/// Time between two scrapes.
const SCRAPE_MS: i64 = 30_000;
/// Scrapes of one part of the series before the next part has its own.
const ROUND: u64 = 100;
/// Series of one part.
const PART: usize = 1_000;
/// What a series begins with.
const FIRST: i64 = 123_456_789;
/// Where Prometheus's source has series.
const FILE: &str = "../../tsdb/testdata/20kseries.json";

const OUT: FlagSpec = flag("out", Kind::Text, "benchout", OWN, "Set the output path.");
const METRICS: FlagSpec = flag("metrics", Kind::Integer, "10000", OWN, "Number of metrics to read.");
const SCRAPES: FlagSpec = flag("scrapes", Kind::Integer, "3000", OWN, "Number of scrapes to simulate.");

static FLAGS: [FlagSpec; 5] = [EXPERIMENTAL, ENABLE_FEATURE, OUT, METRICS, SCRAPES];

pub(super) static COMMAND: Command = Command {
    path: &["tsdb", "bench", "write"],
    words: "[<file>]",
    summary: "Run a write performance benchmark.",
    flags: &FLAGS,
    run,
};

fn run(given: &Given) -> u8 {
    let [file] = match positional(given, [FILE]) {
        Ok(words) => words,
        Err(code) => return code,
    };
    let count = |name| u64::try_from(given.values.integer(name)).unwrap_or(0);
    let out = PathBuf::from(given.values.text("out"));
    finish(bench(&out, &file, count("metrics"), count("scrapes")).map(|()| String::new()))
}

fn bench(out: &Path, file: &str, metrics: u64, scrapes: u64) -> Result<(), String> {
    let failed =
        |what: &str, path: &Path, error: io::Error| format!("{what} {}: {}", path.display(), go_reason(&error));
    match std::fs::remove_dir_all(out) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("unlinkat", out, error)),
        _ => {}
    }
    let dir = out.join("storage");
    std::fs::create_dir_all(&dir).map_err(|error| failed("mkdir", &dir, error))?;
    let mut storage = Storage::open(&dir)?;
    let series = timed("readData", || {
        let text = std::fs::read_to_string(file).map_err(|error| failed("open", Path::new(file), error))?;
        read_series(&text, metrics).map_err(|(line, why)| format!("{file}:{line}: {why}"))
    })?
    .0;
    let ((total, sampling), seconds) = timed("ingestScrapes", || {
        let sampling = Sampling::begin().map_err(|error| format!("bench: could not start CPU profile: {error}"))?;
        Ok((storage.ingest(&series, scrapes)?, sampling))
    })?;
    let rate = format_float_g(total as f64 / seconds);
    say(&format!(" > total samples: {total}\n > samples/sec: {rate}\n"));
    timed("stopStorage", || {
        storage.writer.sync().map_err(|error| error.to_string())?;
        let path = out.join("cpu.prof");
        let profile = sampling.finish().and_then(|profile| std::fs::write(&path, profile));
        profile.map_err(|error| failed("open", &path, error))
    })?;
    Ok(())
}

fn say(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

/// Runs a part of it between two lines that name it; returns how many seconds it took.
fn timed<T>(stage: &str, part: impl FnOnce() -> Result<T, String>) -> Result<(T, f64), String> {
    say(&format!(">> start stage={stage}\n"));
    let begun = Instant::now();
    let done = part()?;
    let took = begun.elapsed();
    let shown = go_time::format_duration(i64::try_from(took.as_nanos()).unwrap_or(i64::MAX));
    say(&format!(">> completed stage={stage} duration={shown}\n"));
    Ok((done, took.as_secs_f64()))
}

/// The first `max` different series of a file with one in each line, as `{"__name__":"up","job":"x"}`; an error has its line.
fn read_series(text: &str, max: u64) -> Result<Vec<Labels>, (usize, String)> {
    let (mut series, mut known) = (Vec::new(), HashSet::new());
    for (number, line) in (1..).zip(text.lines()) {
        if max <= series.len() as u64 {
            break;
        }
        let plain = line.replace(['"', '{', '}'], "");
        let pairs = plain.split(',').map(|pair| {
            let mut parts = pair.split(':');
            let pair = parts.next().zip(parts.next());
            pair.map(|(name, value)| (name.to_owned(), value.to_owned()))
        });
        let pairs: Option<Vec<_>> = pairs.collect();
        let labels = Labels::from_pairs(pairs.ok_or_else(|| (number, "a label without a value".to_owned()))?);
        if known.insert(labels.clone()) {
            series.push(labels);
        }
    }
    Ok(series)
}

/// A head with its log.
struct Storage {
    head: Head,
    writer: Writer,
}

impl Storage {
    fn open(dir: &Path) -> Result<Self, String> {
        let clock = SystemClock::shared();
        let metrics = WalMetrics::new(&Registry::default(), &clock);
        let head = Head::new(HeadOptions::new(Arc::new(Whenever(clock))));
        let opened =
            replay::open(&RealFs::shared(), dir, WalOptions::default(), &metrics, &head, TimestampMs(i64::MIN));
        let (writer, _) = opened.map_err(|error| error.to_string())?;
        Ok(Self { head, writer })
    }

    fn ingest(&mut self, series: &[Labels], scrapes: u64) -> Result<u64, String> {
        let mut total = 0;
        let mut round = 0;
        while round < scrapes {
            let from = SCRAPE_MS.saturating_mul(i64::try_from(round).unwrap_or(i64::MAX));
            for part in series.chunks(PART) {
                total += self.ingest_part(part, from)?;
            }
            round = round.saturating_add(ROUND);
        }
        say("ingestion completed\n");
        Ok(total)
    }

    fn ingest_part(&mut self, series: &[Labels], from: i64) -> Result<u64, String> {
        let mut keys: Vec<SeriesKey> = series.iter().cloned().map(SeriesKey::Labels).collect();
        let (mut total, mut at, mut value) = (0, from, FIRST);
        for _ in 0..ROUND {
            at = at.saturating_add(SCRAPE_MS);
            value += 1_000;
            let sample =
                |key: &SeriesKey| AppendSample { series: key.clone(), at: TimestampMs(at), value: value as f64 };
            let report = self.append(AppendBatch::of_floats(keys.iter().map(sample).collect()))?;
            if let Some((_, why)) = report.rejected.first() {
                return Err(why.to_string());
            }
            total += u64::from(report.appended);
            for (index, series) in report.resolved {
                if let Some(key) = usize::try_from(index).ok().and_then(|index| keys.get_mut(index)) {
                    *key = SeriesKey::Known(series);
                }
            }
        }
        Ok(total)
    }

    /// Appends a batch and logs it, and does what shards do in idle moments.
    fn append(&mut self, batch: AppendBatch) -> Result<AppendReport, String> {
        let failed = |error: &dyn std::fmt::Display| error.to_string();
        let commit = self.head.begin(batch.first_at());
        let shards = self.head.shards();
        let mut staged = Vec::new();
        for (id, slice) in self.head.route(batch) {
            let Some(shard) = shards.get(usize::from(id.0)) else { continue };
            staged.push((shard, shard.stage(&commit, slice).map_err(|error| failed(&error))?));
        }
        let records = LogRecords::of_staged(&staged.iter().map(|(_, part)| part).collect::<Vec<_>>());
        self.writer.append(&records.wal).map_err(|error| failed(&error))?;
        drop(commit);
        let mut report = AppendReport::default();
        for (shard, part) in staged {
            report.absorb(shard.apply(part).map_err(|error| failed(&error))?);
            while let Some(job) = shard.merge_job() {
                shard.install(job.run());
            }
        }
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_read_a_line_each_and_once() {
        let text =
            "{\"__name__\":\"up\",\"job\":\"b\"}\n{\"job\":\"b\",\"__name__\":\"up\"}\n{\"a\":\"b\"}\n{\"c\":\"d\"}\n";
        let read = read_series(text, 2).unwrap();
        assert_eq!(
            read.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["{__name__=\"up\", job=\"b\"}", "{a=\"b\"}"]
        );
        assert_eq!(read_series("{\"a\":\"b\"}\nx\n", 5).unwrap_err().0, 2);
    }
}
