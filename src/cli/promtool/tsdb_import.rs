//! `promtool tsdb create-blocks-from openmetrics`: samples of a file become blocks.
//!
//! As Prometheus does it: the file is read once to know its span, and then once for each block that has samples, so memory holds
//! one block at a time.

use std::borrow::Cow;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use super::tsdb::{DB_PATH, HUMAN_READABLE, finish, must_exist, positional, table};
use super::{Command, ENABLE_FEATURE, EXPERIMENTAL, Given, OWN, flag, go_reason, refuse};
use crate::cli::flag_spec::{FlagSpec, Kind};
use crate::exposition::openmetrics::OpenMetricsParser;
use crate::exposition::text::{Entry, FamilyKind, SeriesLine, Step as ParserStep, TextParser};
use crate::model::append::{AppendBatch, AppendSample, SeriesKey};
use crate::model::clock::{Clock, SharedClock, SystemClock};
use crate::model::labels::{Labels, LabelsBuilder, METRIC_NAME};
use crate::model::random::Random;
use crate::model::time::TimestampMs;
use crate::storage::block::PageCache;
use crate::storage::block::catalog::Catalog;
use crate::storage::block::metrics::BlockMetrics;
use crate::storage::block::read::Block;
use crate::storage::chunk::cut::CutRules;
use crate::storage::compact::Step;
use crate::storage::compact::head::HeadCompaction;
use crate::storage::compact::plan::block_ranges;
use crate::storage::fs::{Fs, RealFs};
use crate::storage::head::{Head, HeadOptions};
use crate::telemetry::metrics::Registry;

/// Span of a block unless a longer one is wanted.
const BLOCK_MS: i64 = 7_200_000;
/// Samples of one commit.
const COMMIT_SAMPLES: usize = 5_000;
/// Series that are written in one step.
const STEP_SERIES: usize = 1_000;

const QUIET: FlagSpec = flag("quiet", Kind::Switch, "false", OWN, "Do not print created blocks.");
const LABEL: FlagSpec = flag(
    "label",
    Kind::List,
    "",
    OWN,
    "Label to attach to metrics. Can be specified multiple times. Example --label=label_name=label_value",
);
const MAX_BLOCK: FlagSpec = FlagSpec {
    hidden: true,
    ..flag(
        "max-block-duration",
        Kind::GoDuration,
        "0s",
        OWN,
        "Maximum duration created blocks may span. Anything less than 2h is ignored.",
    )
};

static FLAGS: [FlagSpec; 6] = [EXPERIMENTAL, ENABLE_FEATURE, HUMAN_READABLE, QUIET, MAX_BLOCK, LABEL];

pub(super) static COMMAND: Command = Command {
    path: &["tsdb", "create-blocks-from", "openmetrics"],
    words: "<input file> [<output directory>]",
    summary: "Import samples from OpenMetrics input and produce TSDB blocks. Please refer to the storage docs for more details.",
    flags: &FLAGS,
    run,
};

fn run(given: &Given) -> u8 {
    if given.words.is_empty() {
        return refuse("required argument 'input file' not provided");
    }
    let [file, dir] = match positional(given, ["", DB_PATH]) {
        Ok(words) => words,
        Err(code) => return code,
    };
    let mut labels = Vec::new();
    for text in given.values.list("label") {
        match text.split_once(['=', ':']) {
            Some((name, value)) => labels.push((name.to_owned(), value.to_owned())),
            None => return refuse(&format!("expected KEY=VALUE got '{text}'")),
        }
    }
    let longest = i64::try_from(given.values.go_duration("max-block-duration").as_millis()).unwrap_or(i64::MAX);
    let import = Import {
        dir,
        labels,
        block_ms: block_span(longest),
        human: given.values.bool("human-readable"),
        quiet: given.values.bool("quiet"),
    };
    finish(import.file(&file).map(|()| String::new()))
}

/// The longest usual span of a block up to `longest_ms`.
fn block_span(longest_ms: i64) -> i64 {
    block_ranges(BLOCK_MS, longest_ms.max(BLOCK_MS)).last().copied().unwrap_or(BLOCK_MS)
}

/// What is wanted.
struct Import {
    dir: String,
    labels: Vec<(String, String)>,
    block_ms: i64,
    human: bool,
    quiet: bool,
}

impl Import {
    fn file(&self, file: &str) -> Result<(), String> {
        let input = std::fs::read(file).map_err(|error| format!("stat {file}: {}", go_reason(&error)))?;
        std::fs::create_dir_all(&self.dir)
            .map_err(|error| format!("create output dir: mkdir {}: {}", self.dir, go_reason(&error)))?;
        let (min, max) = span(&input).map_err(|error| format!("getting min and max timestamp: {error}"))?;
        self.blocks(&input, min, max).map_err(|error| format!("block creation: {error}"))
    }

    fn blocks(&self, input: &[u8], min: i64, max: i64) -> Result<(), String> {
        must_exist(&self.dir)?;
        let mut has_head = false;
        // As in Go, the division goes towards zero.
        let mut from = self.block_ms.saturating_mul(min / self.block_ms);
        let mut next = None;
        while from <= max {
            let until = from.saturating_add(self.block_ms);
            // Ranges without samples are passed over without reading the file again.
            if next.is_none_or(|next| next < until) {
                let (made, later) =
                    self.block(input, from, until).map_err(|error| format!("process blocks: {error}"))?;
                next = later;
                if let Some(block) = made.filter(|_| !self.quiet) {
                    let text = table(&[&block], !has_head, self.human);
                    has_head = true;
                    let _ = io::stdout().write_all(text.as_bytes());
                }
            }
            if until <= from {
                break;
            }
            from = until;
        }
        Ok(())
    }

    /// The block of a range, and the time of the first sample behind it.
    fn block(&self, input: &[u8], from: i64, until: i64) -> Result<(Option<Block>, Option<i64>), String> {
        // Twice the span, so that a sample may be older than the newest by all of it.
        let rules = CutRules { chunk_range_ms: self.block_ms.saturating_mul(2), ..CutRules::default() };
        let clock = Whenever(SystemClock::shared());
        let head = Head::new(HeadOptions { rules, ..HeadOptions::new(Arc::new(clock)) });
        let mut next: Option<i64> = None;
        let mut samples: Vec<AppendSample> = Vec::new();
        each_sample(input, &mut |line, kind| {
            let Some(t) = line.timestamp_ms else {
                let labels = labels_of(line, kind).build();
                return Err(format!("expected timestamp for series {labels}, got none"));
            };
            if until <= t {
                next = Some(next.map_or(t, |next| next.min(t)));
            } else if from <= t {
                let mut labels = labels_of(line, kind);
                self.labels.iter().for_each(|(name, value)| {
                    labels.set(name, value);
                });
                let series = SeriesKey::Labels(labels.build());
                samples.push(AppendSample { series, at: TimestampMs(t), value: line.value });
                if COMMIT_SAMPLES <= samples.len() {
                    append(&head, std::mem::take(&mut samples))?;
                }
            }
            Ok(())
        })
        .map_err(|error| match error {
            ReadError::Parse(text) => format!("parse: {text}"),
            ReadError::Sample(text) => text,
        })?;
        append(&head, samples)?;
        Ok((self.flush(&head)?, next))
    }

    fn flush(&self, head: &Head) -> Result<Option<Block>, String> {
        let (dir, clock) = (Path::new(&self.dir), SystemClock::shared());
        let metrics = BlockMetrics::new(&Registry::default());
        let catalog = Catalog::new(RealFs::shared(), dir, PageCache::new(0), metrics);
        let mut random = Random::from_process();
        let failed = |error: &dyn std::fmt::Display| format!("flush: compactor write: {error}");
        let copy = HeadCompaction::copy(head, &catalog, dir, 0, &clock, &mut random).map_err(|error| failed(&error))?;
        let Some(mut copy) = copy else { return Ok(None) };
        while copy.step(STEP_SERIES).map_err(|error| failed(&error))? == Step::More {}
        let Some(meta) = copy.publish().map_err(|error| failed(&error))? else { return Ok(None) };
        let block = Block::open(&RealFs as &dyn Fs, &dir.join(meta.ulid.to_string()), &PageCache::new(0));
        block.map(Some).map_err(|error| format!("get blocks: {error}"))
    }
}

/// A clock by which nothing lies in the future.
pub(super) struct Whenever(pub(super) SharedClock);

impl Clock for Whenever {
    fn now(&self) -> TimestampMs {
        TimestampMs(i64::MAX)
    }

    fn unix_nanos(&self) -> i64 {
        self.0.unix_nanos()
    }

    fn monotonic(&self) -> std::time::Duration {
        self.0.monotonic()
    }
}

/// Appends a commit. What stands against others of the same commit is passed over, as in Prometheus.
fn append(head: &Head, samples: Vec<AppendSample>) -> Result<(), String> {
    if samples.is_empty() {
        return Ok(());
    }
    let report = head.append_blocking(AppendBatch::of_floats(samples)).map_err(|error| error.to_string())?;
    match report.reported().next() {
        Some((_, rejection)) => Err(format!("add sample: {rejection}")),
        None => Ok(()),
    }
}

/// Why the input was not read to its end.
enum ReadError {
    Parse(String),
    Sample(String),
}

fn each_sample(
    input: &[u8],
    take: &mut dyn FnMut(&SeriesLine<'_>, FamilyKind) -> Result<(), String>,
) -> Result<(), ReadError> {
    let mut parser = OpenMetricsParser::new();
    let mut at = 0;
    loop {
        match parser.next_entry(input, at, true).map_err(|error| ReadError::Parse(error.to_string()))? {
            ParserStep::Entry { entry, next } => {
                at = next;
                if let Entry::Series(line) = entry {
                    take(&line, parser.kind()).map_err(ReadError::Sample)?;
                }
            }
            ParserStep::Ended { next } if next < input.len() => {
                return Err(ReadError::Parse("unexpected data after # EOF".to_owned()));
            }
            ParserStep::Ended { .. } | ParserStep::End | ParserStep::Terminated | ParserStep::Incomplete => {
                return Ok(());
            }
        }
    }
}

/// Oldest and newest time; 0 for both if there is no sample.
fn span(input: &[u8]) -> Result<(i64, i64), String> {
    let mut span: Option<(i64, i64)> = None;
    let read = each_sample(input, &mut |line, _| {
        let t = line.timestamp_ms.ok_or("expected timestamp for series got none")?;
        span = Some(span.map_or((t, t), |(min, max)| (min.min(t), max.max(t))));
        Ok(())
    });
    match read {
        Ok(()) => Ok(span.unwrap_or((0, 0))),
        Err(ReadError::Parse(text)) => Err(format!("next: {text}")),
        Err(ReadError::Sample(text)) => Err(text),
    }
}

fn labels_of(line: &SeriesLine<'_>, kind: FamilyKind) -> LabelsBuilder {
    let mut pairs: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::new();
    TextParser::new().series_labels(line.raw, kind, &mut pairs);
    let mut builder = Labels::empty().to_builder();
    for (name, value) in &pairs {
        builder.set(name, value);
    }
    debug_assert!(builder.contains(METRIC_NAME) || pairs.is_empty());
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_blocks_are_those_of_compactions() {
        let hours = |n: i64| n * 3_600_000;
        for (longest, expected) in [(0, 2), (1, 2), (2, 2), (5, 2), (6, 6), (24, 18), (100, 54)] {
            assert_eq!(block_span(hours(longest)), hours(expected), "{longest}");
        }
    }

    #[test]
    fn the_span_of_a_file_needs_times() {
        assert_eq!(span(b"# TYPE a counter\na_total 1 5\na_total 2 7.5\n# EOF\n"), Ok((5000, 7500)));
        assert_eq!(span(b"# EOF\n"), Ok((0, 0)));
        assert_eq!(span(b"a 1\n# EOF\n"), Err("expected timestamp for series got none".to_owned()));
        assert!(span(b"a 1 2\n").unwrap_err().starts_with("next: "));
    }
}
