//! `promtool query analyze`: how many buckets of histograms are populated over time.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde_json::Value;

use super::query::{self, HTTP_QUERY_WITHIN};
use super::server::{self, HTTP_CONFIG, Server};
use super::{Command, ENABLE_FEATURE, EXPERIMENTAL, Given, OWN, flag, refuse};
use crate::cli::EXIT_FAILURE;
use crate::cli::flag_spec::{FlagSpec, Kind};
use crate::model::go;
use crate::model::go_time;

const SERVER: FlagSpec = flag("server", Kind::Text, "", OWN, "Prometheus server to query.");
const TYPE: FlagSpec = flag("type", Kind::Text, "", OWN, "Type of metric: histogram.");
const DURATION: FlagSpec = flag("duration", Kind::GoDuration, "1h", OWN, "Time frame to analyze.");
const TIME: FlagSpec = flag("time", Kind::Text, "", OWN, "Query time (RFC3339 or Unix timestamp), defaults to now.");
const MATCH: FlagSpec = flag("match", Kind::List, "", OWN, "Series selector. Can be specified multiple times.");
static FLAGS: [FlagSpec; 8] = [EXPERIMENTAL, ENABLE_FEATURE, HTTP_CONFIG, SERVER, TYPE, DURATION, TIME, MATCH];

pub(super) static COMMAND: Command = Command {
    path: &["query", "analyze"],
    words: "",
    summary: "Run queries against your Prometheus to analyze the usage pattern of certain metrics.",
    flags: &FLAGS,
    run,
};

const HEADER: &str = "\
Bucket stats for each histogram series over time
------------------------------------------------
First the min, avg, and max number of populated buckets, followed by the total
number of buckets (only if different from the max number of populated buckets
which is typical for classic but not native histograms).
";
const FOOTER: &str = "\
Aggregated bucket stats
-----------------------
Each line shows min/avg/max over the series above.
";

fn run(given: &Given) -> u8 {
    if let Some(more) = given.words.first() {
        return refuse(&format!("unexpected {more}"));
    }
    let missing: Vec<&str> = [
        ("'--type'", given.values.text("type").is_empty()),
        ("'--match'", given.values.list("match").is_empty()),
        ("'--server'", given.values.text("server").is_empty()),
    ]
    .into_iter()
    .filter_map(|(name, is_missing)| is_missing.then_some(name))
    .collect();
    if !missing.is_empty() {
        return refuse(&format!("required flag(s) {} not provided", missing.join(", ")));
    }
    let config = match server::http_config(given) {
        Ok(config) => config,
        Err(code) => return code,
    };
    match analyze(given, config.as_ref()) {
        Ok(()) => 0,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            EXIT_FAILURE
        }
    }
}

fn analyze(given: &Given, config: Option<&crate::config::http_client::HttpClientConfig>) -> Result<(), String> {
    let kind = given.values.text("type");
    if kind != "histogram" {
        return Err(format!("analyze type is {kind}, must be 'histogram'"));
    }
    let server = Server::new(given.values.text("server"), &[], HTTP_QUERY_WITHIN, config)?;
    let written = given.values.text("time");
    let at = query::time_or(written, "evaluation", query::now_ns()).map_err(|error| {
        let reason = error.strip_prefix("error parsing evaluation time: ").unwrap_or(&error);
        format!("error parsing time '{written}': {reason}")
    })?;
    let range = i64::try_from(given.values.go_duration("duration").as_nanos()).unwrap_or(i64::MAX);
    let mut out = io::stdout();
    let _ = writeln!(out, "{HEADER}");
    let (mut native, mut classic) = (Overall::default(), Overall::default());
    for selector in given.values.list("match") {
        let expr = format!("{selector}[{}]", go_time::format_duration(range));
        let form = [("query", expr), ("time", query::seconds(at))];
        let data = server.data(&["api", "v1", "query"], &form)?;
        if data["resultType"] != "matrix" {
            return Err("query of buckets resulted in non-Matrix".to_owned());
        }
        let mut by_name: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
        for series in data["result"].as_array().into_iter().flatten() {
            if series["values"].as_array().is_none_or(Vec::is_empty) {
                if let Some(stats) = of_native(series) {
                    let _ = writeln!(out, "- {} (native): {stats}", query::metric(&series["metric"]));
                    native.add(&stats);
                }
            } else if let Some(name) = classic_name(&series["metric"]) {
                by_name.entry(name).or_default().push(series);
            }
        }
        for (name, buckets) in by_name {
            if let Some(stats) = of_classic(buckets)? {
                let _ = writeln!(out, "- {name} (classic): {stats}");
                classic.add(&stats);
            }
        }
    }
    let _ = write!(out, "\n{FOOTER}");
    for (kind, overall) in [("Native", native), ("Classic", classic)] {
        if 0 < overall.min.count {
            let _ = writeln!(out, "\n{kind} {overall}");
        }
    }
    Ok(())
}

/// The name of a classic histogram's buckets with the labels that all of them share.
fn classic_name(metric: &Value) -> Option<String> {
    let labels = metric.as_object()?;
    let name = labels.get("__name__")?.as_str().filter(|name| name.ends_with("_bucket"))?;
    labels.get("le")?;
    let others = labels.iter().filter(|(name, _)| *name != "__name__" && *name != "le");
    let mut shown: Vec<String> =
        others.map(|(name, value)| format!("{name}={}", go::quote(value.as_str().unwrap_or("")))).collect();
    shown.sort();
    Some(format!("{name}{{{}}}", shown.join(", ")))
}

/// Populated buckets over time.
struct Stats {
    min: usize,
    mean: f64,
    max: usize,
    total: usize,
}

impl Stats {
    fn of(populated: &[usize], total: usize) -> Self {
        let mean = populated.iter().sum::<usize>() as f64 / populated.len() as f64;
        let (min, max) = (populated.iter().min(), populated.iter().max());
        Self { min: min.copied().unwrap_or(0), mean, max: max.copied().unwrap_or(0), total }
    }
}

impl std::fmt::Display for Stats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{:.3}/{}", self.min, self.mean, self.max)?;
        if self.max == self.total { Ok(()) } else { write!(f, "/{}", self.total) }
    }
}

fn of_native(series: &Value) -> Option<Stats> {
    let histograms = series["histograms"].as_array().filter(|histograms| 1 < histograms.len())?;
    let mut all = std::collections::HashSet::new();
    let mut populated = Vec::new();
    for histogram in histograms {
        let buckets = histogram[1]["buckets"].as_array().map_or(&[][..], Vec::as_slice);
        populated.push(buckets.len());
        all.extend(buckets.iter().map(|bucket| format!("{} {} {}", bucket[0], bucket[1], bucket[2])));
    }
    Some(Stats::of(&populated, all.len()))
}

fn of_classic(mut buckets: Vec<&Value>) -> Result<Option<Stats>, String> {
    let bound = |series: &Value| series["metric"]["le"].as_str().and_then(|le| le.parse().ok()).unwrap_or(0.0);
    buckets.sort_by(|a, b| f64::total_cmp(&bound(a), &bound(b)));
    let points = |series: &Value| -> Vec<(f64, i64)> {
        let value = |pair: &Value| pair[1].as_str().and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
        let pairs = series["values"].as_array().into_iter().flatten();
        // As in Go, what is behind the point is cut off.
        pairs.map(|pair| (pair[0].as_f64().unwrap_or(0.0), value(pair) as i64)).collect()
    };
    let buckets: Vec<Vec<(f64, i64)>> = buckets.into_iter().map(points).collect();
    let samples = buckets.first().map_or(0, Vec::len);
    if samples < 2 {
        return Ok(None);
    }
    let mut populated = Vec::new();
    for at in 0..samples {
        let mut count = 0;
        let mut before: Option<(f64, i64)> = None;
        for bucket in &buckets {
            // What is missing counts as nothing, so that there is an answer in part.
            let Some((time, value)) = bucket.get(at).copied() else { break };
            if before.is_some_and(|(other, _)| other != time) {
                return Err("matrix result is not time aligned".to_owned());
            }
            count += usize::from(value != before.map_or(0, |(_, value)| value));
            before = Some((time, value));
        }
        populated.push(count);
    }
    Ok(Some(Stats::of(&populated, buckets.len())))
}

/// How a number is spread over series.
#[derive(Clone, Copy, Default, PartialEq)]
struct Spread {
    min: usize,
    mean: f64,
    max: usize,
    count: usize,
}

impl Spread {
    fn add(&mut self, number: usize) {
        self.min = if self.count == 0 { number } else { self.min.min(number) };
        self.max = self.max.max(number);
        self.count += 1;
        self.mean += number as f64 / self.count as f64 - self.mean / self.count as f64;
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{:.3}/{}", self.min, self.mean, self.max)
    }
}

#[derive(Default)]
struct Overall {
    min: Spread,
    mean: Spread,
    max: Spread,
    total: Spread,
}

impl Overall {
    fn add(&mut self, stats: &Stats) {
        self.min.add(stats.min);
        self.mean.add(stats.mean as usize);
        self.max.add(stats.max);
        self.total.add(stats.total);
    }
}

impl std::fmt::Display for Overall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "histogram series ({} in total):\n- min populated: {}\n", self.min.count, self.min)?;
        write!(f, "- avg populated: {}\n- max populated: {}", self.mean, self.max)?;
        if self.max == self.total { Ok(()) } else { write!(f, "\n- total: {}", self.total) }
    }
}
