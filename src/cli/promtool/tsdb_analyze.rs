//! `promtool tsdb analyze`: churn, cardinality and chunks of a block.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::path::Path;

use super::tsdb::{DB_PATH, finish, must_exist, positional};
use super::{Command, ENABLE_FEATURE, EXPERIMENTAL, Given, OWN, flag, go_reason};
use crate::cli::flag_spec::{FlagSpec, Kind};
use crate::model::go_time;
use crate::model::labels::Labels;
use crate::promql::parser::parse_metric_selector;
use crate::storage::block::PageCache;
use crate::storage::block::chunks::{ChunkMeta, is_float_encoding, sample_count};
use crate::storage::block::read::Block;
use crate::storage::block::ulid::Ulid;
use crate::storage::chunk::Encoding;
use crate::storage::chunk::decode::ChunkDecoder;
use crate::storage::fs::RealFs;

static FLAGS: [FlagSpec; 5] = [
    EXPERIMENTAL,
    ENABLE_FEATURE,
    flag("limit", Kind::Integer, "20", OWN, "How many items to show in each list."),
    flag("extended", Kind::Switch, "false", OWN, "Run extended analysis."),
    flag("match", Kind::Text, "", OWN, "Series selector to analyze. Only 1 set of matchers is supported now."),
];

pub(super) static COMMAND: Command = Command {
    path: &["tsdb", "analyze"],
    words: "[<db path>] [<block id>]",
    summary: "Analyze churn, label pair cardinality and compaction efficiency.",
    flags: &FLAGS,
    run,
};

fn run(given: &Given) -> u8 {
    match positional(given, [DB_PATH, ""]) {
        Ok([path, block]) => finish(analyze(given, &path, block)),
        Err(code) => code,
    }
}

fn analyze(given: &Given, path: &str, id: String) -> Result<String, String> {
    let text = given.values.text("match");
    let matchers = match text {
        "" => Vec::new(),
        text => parse_metric_selector(text).map_err(|error| error.to_string())?,
    };
    let block = open(path, id)?;
    let limit = usize::try_from(given.values.integer("limit")).unwrap_or(0);
    let meta = block.meta();
    let span = meta.max_time.wrapping_sub(meta.min_time);
    let mut out = String::new();
    let mut line = |text: String| out.push_str(&(text + "\n"));
    line(format!("Block ID: {}", meta.ulid));
    line(format!("Duration: {}", go_time::format_duration(span.saturating_mul(1_000_000))));
    line(format!("Total Series: {}", meta.stats.num_series));
    if !text.is_empty() {
        line(format!("Matcher: {text}"));
    }

    let mut found = Found::default();
    let mut extended = given.values.bool("extended").then(Chunks::default);
    let matched = block.each_series(&matchers, &mut |labels, chunks| {
        found.add(labels, chunks, span.cast_unsigned());
        extended.as_mut().map_or(Ok(()), |all| all.add(&block, chunks))
    })?;
    line(format!("Label names: {}", found.values.len()));
    if !text.is_empty() {
        line(format!("Matched series: {matched}"));
    }
    line(format!("Postings (unique label pairs): {}", found.pairs.len()));
    line(format!("Postings entries (total label pairs): {}", found.entries));
    let share = |uncovered: u64| (uncovered as f64 / span as f64) as u64;
    let lists: [(&str, Vec<(String, u64)>); 6] = [
        (
            "Label pairs most involved in churning",
            found.pairs.iter().map(|(key, pair)| (key.clone(), share(pair.uncovered))).collect(),
        ),
        (
            "Label names most involved in churning",
            found.uncovered.iter().map(|(name, uncovered)| (name.clone(), share(*uncovered))).collect(),
        ),
        ("Most common label pairs", found.pairs.iter().map(|(key, pair)| (key.clone(), pair.series)).collect()),
        (
            "Label names with highest cumulative label value length",
            found
                .values
                .iter()
                .map(|(name, values)| (name.clone(), values.iter().map(|v| v.len() as u64).sum()))
                .collect(),
        ),
        (
            "Highest cardinality labels",
            found.values.iter().map(|(name, values)| (name.clone(), values.len() as u64)).collect(),
        ),
        ("Highest cardinality metric names", found.metrics.into_iter().collect()),
    ];
    for (title, mut list) in lists {
        list.sort_by_key(|(_, number)| std::cmp::Reverse(*number));
        let _ = write!(out, "\n{title}:\n");
        for (key, number) in list.iter().take(limit) {
            let _ = writeln!(out, "{number} {key}");
        }
    }
    if let Some(chunks) = extended {
        chunks.print(&mut out);
    }
    Ok(out)
}

/// The block that is named, or the one whose name is the newest.
fn open(path: &str, id: String) -> Result<Block, String> {
    must_exist(path)?;
    let id = match id.as_str() {
        "" => newest(path)?,
        _ => id,
    };
    let dir = Path::new(path).join(&id);
    if !dir.exists() {
        return Err(format!("invalid block ID {id}"));
    }
    Block::open(&RealFs, &dir, &PageCache::new(64 << 20)).map_err(|error| error.to_string())
}

fn newest(path: &str) -> Result<String, String> {
    let entries = std::fs::read_dir(path).map_err(|error| format!("open {path}: {}", go_reason(&error)))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|n| Ulid::parse(n).is_ok())
        .collect();
    names.sort();
    // Of those of one moment the first counts. The first ten letters are the time.
    let moment = names.last().and_then(|name| name.get(..10)).map(str::to_owned);
    let first = names.into_iter().find(|name| name.get(..10) == moment.as_deref());
    first.ok_or_else(|| "no blocks found".to_owned())
}

/// One pair of name and value.
#[derive(Default)]
struct Pair {
    uncovered: u64,
    series: u64,
}

/// What the series of a block are.
#[derive(Default)]
struct Found {
    pairs: BTreeMap<String, Pair>,
    /// By label name: how much of the block's time its series do not cover.
    uncovered: BTreeMap<String, u64>,
    values: BTreeMap<String, BTreeSet<String>>,
    metrics: BTreeMap<String, u64>,
    entries: usize,
}

impl Found {
    fn add(&mut self, labels: &Labels, chunks: &[ChunkMeta], span: u64) {
        let covered = match (chunks.first(), chunks.last()) {
            (Some(first), Some(last)) => last.max_t.wrapping_sub(first.min_t).cast_unsigned(),
            _ => 0,
        };
        let uncovered = span.wrapping_sub(covered);
        for (name, value) in labels {
            let pair = self.pairs.entry(format!("{name}={value}")).or_default();
            pair.uncovered = pair.uncovered.wrapping_add(uncovered);
            pair.series += 1;
            self.entries += 1;
            let of_name = self.uncovered.entry(name.to_owned()).or_default();
            *of_name = of_name.wrapping_add(uncovered);
            let values = self.values.entry(name.to_owned()).or_default();
            if !values.contains(value) {
                values.insert(value.to_owned());
            }
            if name == crate::model::labels::METRIC_NAME {
                *self.metrics.entry(value.to_owned()).or_default() += 1;
            }
        }
    }
}

/// Sizes of chunks.
#[derive(Default)]
struct Chunks {
    total: usize,
    float_samples: Vec<usize>,
    float_bytes: Vec<usize>,
    histogram_samples: Vec<usize>,
    histogram_bytes: Vec<usize>,
    buckets: Vec<usize>,
}

impl Chunks {
    fn add(&mut self, block: &Block, chunks: &[ChunkMeta]) -> Result<(), String> {
        block.each_chunk(chunks, &mut |encoding, data| {
            self.total += 1;
            let samples = usize::from(sample_count(encoding, data));
            if is_float_encoding(encoding) {
                self.float_samples.push(samples);
                self.float_bytes.push(data.len());
                return Ok(());
            }
            self.histogram_samples.push(samples);
            self.histogram_bytes.push(data.len());
            let id = Encoding::from_id(encoding).map_err(|error| error.to_string())?;
            let count = buckets(ChunkDecoder::of_chunk(id, data)).map_err(|error| error.to_string())?;
            self.buckets.push(count);
            Ok(())
        })
    }

    fn print(self, out: &mut String) {
        out.push_str("\nCompaction analysis:\n\n");
        for (what, numbers) in [
            ("samples per float chunk", self.float_samples),
            ("bytes per float chunk", self.float_bytes),
            ("samples per histogram chunk", self.histogram_samples),
            ("bytes per histogram chunk", self.histogram_bytes),
            ("buckets per histogram chunk", self.buckets),
        ] {
            distribution(what, numbers, self.total, out);
        }
    }
}

/// Buckets of all histograms of a chunk.
fn buckets(
    decoder: Result<ChunkDecoder<'_, [u8]>, crate::storage::chunk::ChunkError>,
) -> Result<usize, crate::storage::chunk::ChunkError> {
    let mut count = 0;
    match decoder? {
        ChunkDecoder::Floats(_) | ChunkDecoder::StartedFloats(_) => {}
        ChunkDecoder::Histograms(mut decoder) => {
            while decoder.advance()?.is_some() {
                let histogram = decoder.histogram();
                count += histogram.positive_buckets.len() + histogram.negative_buckets.len();
            }
        }
        ChunkDecoder::FloatHistograms(mut decoder) => {
            while decoder.advance()?.is_some() {
                let histogram = decoder.histogram();
                count += histogram.positive_buckets.len() + histogram.negative_buckets.len();
            }
        }
    }
    Ok(count)
}

/// How numbers are distributed, as bars of percents of all chunks.
fn distribution(what: &str, mut numbers: Vec<usize>, total: usize, out: &mut String) {
    numbers.sort_unstable();
    let (Some(least), Some(most)) = (numbers.first().copied(), numbers.last().copied()) else {
        let _ = write!(out, "{what}: N/A\n\n");
        return;
    };
    let mut step = 10;
    while step < (most - least) / 10 && step <= 10_000 {
        step *= 10;
    }
    let (start, end) = (least - least % step, most - most % step + step);
    let mut counts = vec![0_usize; (end - start) / step + 1];
    let mut by_bucket: HashMap<usize, usize> = HashMap::new();
    for number in &numbers {
        *by_bucket.entry((number - start) / step).or_default() += 1;
    }
    for (bucket, count) in by_bucket {
        if let Some(place) = counts.get_mut(bucket) {
            *place = count;
        }
    }
    let average = numbers.iter().sum::<usize>() / numbers.len();
    let _ = writeln!(out, "{what} (min/avg/max): {least}/{average}/{most}");
    let width = |number: usize| number.to_string().len();
    let (left, right) = (width(end), width(end + step));
    let of_count = width(counts.iter().max().copied().unwrap_or(0));
    for (bucket, count) in counts.iter().enumerate() {
        let (from, to) = (bucket * step + start + 1, (bucket + 1) * step + start);
        let bar = "#".repeat(100 * count / total.max(1));
        let _ = writeln!(out, "[{from:left$}, {to:right$}]: {count:of_count$} {bar}");
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_distributed_as_in_prometheus() {
        let mut out = String::new();
        distribution("x", vec![3, 12, 14, 100], 4, &mut out);
        let mut lines = out.lines();
        assert_eq!(lines.next(), Some("x (min/avg/max): 3/32/100"));
        assert_eq!(lines.next(), Some("[  1,  10]: 1 #########################"));
        assert_eq!(lines.next(), Some("[ 11,  20]: 2 ##################################################"));
        assert_eq!(lines.clone().count(), 11);
        let mut none = String::new();
        distribution("y", Vec::new(), 4, &mut none);
        assert_eq!(none, "y: N/A\n\n");
    }
}
