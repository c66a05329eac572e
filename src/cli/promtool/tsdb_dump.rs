//! `promtool tsdb dump` and `dump-openmetrics`: all samples of a database, or its series.

use std::collections::HashSet;
use std::io::{self, BufWriter, Write};

use super::tsdb::{DB_PATH, open, positional};
use super::{Command, ENABLE_FEATURE, EXPERIMENTAL, Given, OWN, flag, refuse};
use crate::cli::EXIT_FAILURE;
use crate::cli::flag_spec::{FlagSpec, Kind};
use crate::http::json::Json;
use crate::model::go::{format_float_g, quote};
use crate::model::histogram::{Bucket, FloatHistogram};
use crate::model::labels::{Labels, METRIC_NAME};
use crate::model::matcher::Matcher;
use crate::model::read::{ReadView, SampleColumn, SelectedSeries, Unlimited};
use crate::model::time::{TimeRange, TimestampMs};
use crate::promql::parser::parse_metric_selector;
use crate::storage::read_only::ReadOnlyView;

/// All series.
const MATCH_ALL: &str = "{__name__=~'(?s:.*)'}";

const SANDBOX: FlagSpec = flag(
    "sandbox-dir-root",
    Kind::Text,
    "",
    OWN,
    "Where Prometheus's promtool makes a temporary folder; none is needed here.",
);
const MIN_TIME: FlagSpec = flag(
    "min-time",
    Kind::Integer,
    "-9223372036854775808",
    OWN,
    "Minimum timestamp to dump, in milliseconds since the Unix epoch.",
);
const MAX_TIME: FlagSpec = flag(
    "max-time",
    Kind::Integer,
    "9223372036854775807",
    OWN,
    "Maximum timestamp to dump, in milliseconds since the Unix epoch.",
);
const MATCH: FlagSpec = flag("match", Kind::List, "", OWN, "Series selector. Can be specified multiple times.");
const FORMAT: FlagSpec =
    flag("format", Kind::Text, "prom", OWN, "Output format of the dump (prom (default) or seriesjson).");

static DUMP_FLAGS: [FlagSpec; 7] = [EXPERIMENTAL, ENABLE_FEATURE, SANDBOX, MIN_TIME, MAX_TIME, MATCH, FORMAT];
static OPENMETRICS_FLAGS: [FlagSpec; 6] = [EXPERIMENTAL, ENABLE_FEATURE, SANDBOX, MIN_TIME, MAX_TIME, MATCH];

pub(super) static DUMP: Command = Command {
    path: &["tsdb", "dump"],
    words: "[<db path>]",
    summary: "Dump data (series+samples or optionally just series) from a TSDB.",
    flags: &DUMP_FLAGS,
    run: |given| match given.values.text("format") {
        "prom" => run(given, Format::Prometheus),
        "seriesjson" => run(given, Format::SeriesJson),
        other => refuse(&format!("enum value must be one of prom,seriesjson, got '{other}'")),
    },
};

pub(super) static DUMP_OPENMETRICS: Command = Command {
    path: &["tsdb", "dump-openmetrics"],
    words: "[<db path>]",
    summary: "[Experimental] Dump samples from a TSDB into OpenMetrics text format, excluding native histograms and staleness markers, which are not representable in OpenMetrics.",
    flags: &OPENMETRICS_FLAGS,
    run: |given| run(given, Format::OpenMetrics),
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Prometheus,
    SeriesJson,
    OpenMetrics,
}

fn run(given: &Given, format: Format) -> u8 {
    let [path] = match positional(given, [DB_PATH]) {
        Ok(words) => words,
        Err(code) => return code,
    };
    match dump(given, &path, format) {
        Ok(()) => 0,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            EXIT_FAILURE
        }
    }
}

fn dump(given: &Given, path: &str, format: Format) -> Result<(), String> {
    let (min, max) = (given.values.integer("min-time"), given.values.integer("max-time"));
    let (view, damage) = open(path)?.view(min, max)?;
    for damage in damage {
        let _ = writeln!(io::stderr(), "the log is damaged; what it held there is missing: {damage}");
    }
    let parse = |text: &String| parse_metric_selector(text).map_err(|error| error.to_string());
    let selectors = match given.values.list("match") {
        [] => vec![parse(&MATCH_ALL.to_owned())?],
        texts => texts.iter().map(parse).collect::<Result<_, _>>()?,
    };
    let mut out = BufWriter::new(io::stdout().lock());
    if let Ok(range) = TimeRange::new(TimestampMs(min), TimestampMs(max)) {
        write_all(&view, &selectors, range, format, &mut out)?;
    }
    if format == Format::OpenMetrics {
        let _ = writeln!(out, "# EOF");
    }
    // A reader that has gone away is no reason to fail.
    let _ = out.flush();
    Ok(())
}

fn write_all(
    view: &ReadOnlyView,
    selectors: &[Vec<Matcher>],
    range: TimeRange,
    format: Format,
    out: &mut dyn Write,
) -> Result<(), String> {
    let mut known = HashSet::new();
    for series in selected(view, selectors, range)? {
        let written = match format {
            Format::SeriesJson => {
                let mut json = Json::new();
                json.labels(&series.labels);
                let text = json.into_bytes();
                if known.contains(&text) {
                    continue;
                }
                let written = out.write_all(&text).and_then(|()| out.write_all(b"\n"));
                known.insert(text);
                written
            }
            Format::Prometheus => write_samples(&series, range, out)?,
            Format::OpenMetrics => write_openmetrics(&series, range, out)?,
        };
        if written.is_err() {
            break;
        }
    }
    Ok(())
}

/// The series in the order in which Prometheus's promtool has them: by labels, or by age if one selector reads the head alone.
fn selected(view: &ReadOnlyView, selectors: &[Vec<Matcher>], range: TimeRange) -> Result<Vec<SelectedSeries>, String> {
    let mut all: Vec<SelectedSeries> = Vec::new();
    for selector in selectors {
        let found = ReadView::select(&*view.view, selector, range, &Unlimited).map_err(|error| error.to_string())?;
        all.extend(found);
    }
    if 1 < selectors.len() {
        all.sort_by(|a, b| a.labels.cmp(&b.labels));
        all.dedup_by(|b, a| a.labels == b.labels);
    } else if view.is_head_alone {
        all.sort_by_key(|series| series.samples.reference());
    }
    Ok(all)
}

/// Samples of all kinds in the order of time.
fn write_samples(series: &SelectedSeries, range: TimeRange, out: &mut dyn Write) -> Result<io::Result<()>, String> {
    let mut column = SampleColumn::default();
    series.samples.decode_all(range, &mut column).map_err(|error| error.to_string())?;
    let mut whole = Vec::new();
    if !column.histograms.is_empty() {
        series.samples.whole_histogram_times(range, &mut whole).map_err(|error| error.to_string())?;
        whole.sort_unstable();
    }
    let labels = series.labels.to_string();
    let mut floats = column.floats.timestamps.iter().zip(&column.floats.values).peekable();
    let mut histograms = column.histograms.timestamps.iter().zip(&column.histograms.values).peekable();
    loop {
        let float_first = match (floats.peek(), histograms.peek()) {
            (None, None) => return Ok(Ok(())),
            (Some((t, _)), Some((other, _))) => t <= other,
            (float, _) => float.is_some(),
        };
        let written = if float_first {
            floats.next().map(|(t, value)| writeln!(out, "{labels} {} {t}", format_float_g(*value)))
        } else {
            histograms.next().map(|(t, value)| match whole.binary_search(t) {
                Ok(_) => writeln!(out, "{labels} {} {t}", whole_text(value)),
                Err(_) => writeln!(out, "{labels} {value} {t}"),
            })
        };
        if let Some(Err(error)) = written {
            return Ok(Err(error));
        }
    }
}

/// A histogram with whole counts, which are printed without exponents.
fn whole_text(histogram: &FloatHistogram) -> String {
    let mut text = format!("{{count:{}, sum:{}", histogram.count, format_float_g(histogram.sum));
    let mut negative: Vec<Bucket> = histogram.negative().filter(|bucket| bucket.count != 0.0).collect();
    negative.reverse();
    let zero = (histogram.zero_count != 0.0).then(|| histogram.zero_bucket());
    let positive = histogram.positive().filter(|bucket| bucket.count != 0.0);
    for bucket in negative.into_iter().chain(zero).chain(positive) {
        let bounds = Bucket { count: 0.0, ..bucket }.to_string();
        text.push_str(&format!(", {}:{}", bounds.strip_suffix(":0").unwrap_or(&bounds), bucket.count));
    }
    text.push('}');
    text
}

/// Floats up to the first histogram.
fn write_openmetrics(series: &SelectedSeries, range: TimeRange, out: &mut dyn Write) -> Result<io::Result<()>, String> {
    let mut column = SampleColumn::default();
    series.samples.decode_all(range, &mut column).map_err(|error| error.to_string())?;
    let end = column.histograms.timestamps.first().copied().unwrap_or(i64::MAX);
    let head = format!("{}{}", series.labels.metric_name(), condensed(&series.labels));
    let samples = column.floats.timestamps.iter().zip(&column.floats.values);
    for (t, value) in samples.take_while(|(t, _)| **t < end) {
        let written = writeln!(out, "{head} {} {:.3}", format_float_g(*value), *t as f64 / 1000.0);
        if written.is_err() {
            return Ok(written);
        }
    }
    Ok(Ok(()))
}

/// Labels without the name, and without blanks.
fn condensed(labels: &Labels) -> String {
    let others = labels.iter().filter(|(name, _)| *name != METRIC_NAME);
    let parts: Vec<String> = others.map(|(name, value)| format!("{name}={}", quote(value))).collect();
    format!("{{{}}}", parts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_counts_have_no_exponents() {
        let mut histogram =
            FloatHistogram { count: 2_000_000.0, sum: 3e6, zero_count: 1_500_000.0, ..Default::default() };
        histogram.zero_threshold = 0.5;
        assert_eq!(whole_text(&histogram), "{count:2000000, sum:3e+06, [-0.5,0.5]:1500000}");
        assert_eq!(histogram.to_string(), "{count:2e+06, sum:3e+06, [-0.5,0.5]:1.5e+06}");
    }

    #[test]
    fn labels_are_condensed() {
        let labels = Labels::from_pairs([("__name__", "m"), ("a", "x\"y"), ("b", "2")]);
        assert_eq!(condensed(&labels), "{a=\"x\\\"y\",b=\"2\"}");
    }
}
