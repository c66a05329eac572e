//! `promtool check metrics`: what is odd about metrics on standard input, and how many series each family has.

use std::io::{self, Read, Write};

use super::families::{Family, Kind, read};
use super::{Command, ENABLE_FEATURE, EXPERIMENTAL, Given, OWN, flag, refuse};
use crate::cli::EXIT_FAILURE;
use crate::cli::flag_spec::{FlagSpec, Kind as FlagKind};
use crate::model::go;

/// Exit code when something is odd.
const EXIT_LINT: u8 = 3;

const EXTENDED: FlagSpec = flag(
    "extended",
    FlagKind::Switch,
    "false",
    OWN,
    "Print extended information related to the cardinality of the metrics.",
);
const LINT: FlagSpec = flag(
    "lint",
    FlagKind::Text,
    "all",
    OWN,
    "Linting checks to apply for metrics. Available options are: all, none. Use --lint=none to disable metrics linting.",
);
static FLAGS: [FlagSpec; 4] = [EXPERIMENTAL, ENABLE_FEATURE, EXTENDED, LINT];

pub(super) static COMMAND: Command = Command {
    path: &["check", "metrics"],
    words: "",
    summary: "Pass Prometheus metrics over stdin to lint them for consistency and correctness, and optionally perform cardinality analysis.",
    flags: &FLAGS,
    run,
};

fn run(given: &Given) -> u8 {
    if let Some(more) = given.words.first() {
        return refuse(&format!("unexpected {more}"));
    }
    let (extended, lint) = (given.values.bool("extended"), given.values.text("lint") != "none");
    let fail = |text: &str| {
        let _ = writeln!(io::stderr(), "{text}");
        EXIT_FAILURE
    };
    if !extended && !lint {
        return fail(
            "error: at least one of --extended or linting must be enabled\nUse --extended for cardinality analysis, or \
             remove --lint=none to enable linting",
        );
    }
    let mut text = Vec::new();
    let what = if lint { "linting" } else { "parsing text to metric families" };
    let read = io::stdin().read_to_end(&mut text).map_err(|error| error.to_string()).and_then(|_| read(&text));
    let families = match read {
        Ok(families) => families,
        Err(reason) => return fail(&format!("error while {what}: {reason}")),
    };
    let problems = if lint { problems(&families) } else { Vec::new() };
    for (name, problem) in &problems {
        let _ = writeln!(io::stderr(), "{name} {problem}");
    }
    if extended {
        let _ = io::stdout().write_all(cardinalities(&families).as_bytes());
    }
    if problems.is_empty() { 0 } else { EXIT_LINT }
}

/// Families by their number of series, as a table.
fn cardinalities(families: &[Family]) -> String {
    let series = |family: &Family| match family.kind() {
        Kind::Histogram | Kind::Summary => {
            family.metrics.len() * (2 + family.metrics.first().map_or(0, |metric| metric.parts.len()))
        }
        Kind::Counter | Kind::Gauge | Kind::Untyped | Kind::GaugeHistogram => family.metrics.len(),
    };
    let mut counted: Vec<(&str, usize)> =
        families.iter().map(|family| (family.name.as_str(), series(family))).collect();
    counted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let total: usize = counted.iter().map(|(_, count)| count).sum();
    let mut rows = vec![["Metric", "Cardinality", "Percentage"].map(str::to_owned)];
    for (name, count) in counted {
        let percent = count as f64 / total as f64 * 100.0;
        rows.push([name.to_owned(), count.to_string(), format!("{percent:.2}%")]);
    }
    rows.push(["Total".to_owned(), total.to_string(), "100%".to_owned()]);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count() + 4).max();
    let widths = [0, 1, 2].map(|column| width(column).unwrap_or(4));
    let line = |row: &[String; 3]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<String>() + "\n"
    };
    rows.iter().map(line).collect()
}

/// What is odd, by name and text.
fn problems(families: &[Family]) -> Vec<(&str, String)> {
    let mut all: Vec<(&str, String)> = Vec::new();
    for family in families {
        all.extend(odd(family).into_iter().map(|problem| (family.name.as_str(), problem)));
    }
    all.sort();
    all
}

fn odd(family: &Family) -> Vec<String> {
    let (name, kind) = (family.name.as_str(), family.kind());
    let lower = name.to_lowercase();
    let is_typed = kind != Kind::Untyped;
    let mut found: Vec<String> = Vec::new();
    let mut tell = |problem: &str| found.push(problem.to_owned());
    if family.help.is_none() {
        tell("no help text");
    }
    if let Some((unit, base)) = unit_of(name)
        && unit != base
    {
        tell(&format!("use base unit {} instead of {}", go::quote(base), go::quote(unit)));
    }
    match (kind == Kind::Counter, name.ends_with("_total")) {
        (true, false) => tell("counter metrics should have \"_total\" suffix"),
        (false, true) if is_typed => tell("non-counter metrics should not have \"_total\" suffix"),
        _ => {}
    }
    let (is_histogram, is_summary) = (kind == Kind::Histogram, kind == Kind::Summary);
    if is_typed {
        if !is_histogram && name.ends_with("_bucket") {
            tell("non-histogram metrics should not have \"_bucket\" suffix");
        }
        for suffix in ["_count", "_sum"] {
            if !is_histogram && !is_summary && name.ends_with(suffix) {
                tell(&format!("non-histogram and non-summary metrics should not have \"{suffix}\" suffix"));
            }
        }
        for (label, _) in family.metrics.iter().flat_map(|metric| &metric.labels) {
            if !is_histogram && label == "le" {
                tell("non-histogram metrics should not have \"le\" label");
            }
            if !is_summary && label == "quantile" {
                tell("non-summary metrics should not have \"quantile\" label");
            }
        }
        let word = kind.name();
        if lower.contains(&format!("_{word}_")) || lower.ends_with(&format!("_{word}")) {
            tell(&format!("metric name should not include type '{word}'"));
        }
    }
    if name.contains(':') {
        tell("metric names should not contain ':'");
    }
    if is_camel_case(name) {
        tell("metric names should be written in 'snake_case' not 'camelCase'");
    }
    for (label, _) in family.metrics.iter().flat_map(|metric| &metric.labels) {
        if is_camel_case(label) {
            tell("label names should be written in 'snake_case' not 'camelCase'");
        }
    }
    for short in ABBREVIATIONS {
        if lower.contains(&format!("_{short}_")) || lower.ends_with(&format!("_{short}")) {
            tell("metric names should not contain abbreviated units");
        }
    }
    let mut seen = std::collections::HashMap::new();
    for metric in &family.metrics {
        *seen.entry(&metric.labels).or_insert(0usize) += 1;
    }
    for _ in 0..seen.values().map(|count| count - 1).sum::<usize>() {
        tell("metric not unique");
    }
    found
}

fn is_camel_case(name: &str) -> bool {
    name.as_bytes().windows(2).any(|pair| matches!(pair, [b'a'..=b'z', b'A'..=b'Z']))
}

/// The first unit in a name, and the one to be used for it.
fn unit_of(name: &str) -> Option<(&str, &'static str)> {
    let base = |unit: &str| UNITS.iter().find(|(known, _)| *known == unit).map(|(_, base)| *base);
    name.split('_').find_map(|word| {
        let prefixed = || PREFIXES.iter().find_map(|prefix| base(word.strip_prefix(prefix)?));
        base(word).or_else(prefixed).map(|base| (word, base))
    })
}

const ABBREVIATIONS: [&str; 14] = ["s", "ms", "us", "ns", "sec", "b", "kb", "mb", "gb", "tb", "pb", "m", "h", "d"];

const PREFIXES: [&str; 18] = [
    "pico", "nano", "micro", "milli", "centi", "deci", "deca", "hecto", "kilo", "kibi", "mega", "mibi", "giga", "gibi",
    "tera", "tebi", "peta", "pebi",
];

const UNITS: [(&str, &str); 24] = [
    ("amperes", "amperes"),
    ("bytes", "bytes"),
    ("celsius", "celsius"),
    ("grams", "grams"),
    ("joules", "joules"),
    ("kelvin", "kelvin"),
    ("meters", "meters"),
    ("metres", "metres"),
    ("seconds", "seconds"),
    ("volts", "volts"),
    ("minutes", "seconds"),
    ("hours", "seconds"),
    ("days", "seconds"),
    ("weeks", "seconds"),
    ("kelvins", "kelvin"),
    ("fahrenheit", "celsius"),
    ("rankine", "celsius"),
    ("inches", "meters"),
    ("yards", "meters"),
    ("miles", "meters"),
    ("bits", "bytes"),
    ("calories", "joules"),
    ("pounds", "grams"),
    ("ounces", "grams"),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Compared with Prometheus's own tool.
    #[test]
    fn oddities_are_those_of_prometheus() {
        let text = b"# HELP a_total Help.\n# TYPE a_total counter\na_total{x=\"1\"} 3\n# TYPE fooBar gauge\n\
                     fooBar{someLabel=\"x\"} 1\n# HELP lat_ms Lat.\n# TYPE lat_ms histogram\nlat_ms_bucket{le=\"1\"} 1\n\
                     lat_ms_count 2\n# TYPE c_counter counter\nc_counter 1\n# TYPE g_total gauge\n\
                     g_total{le=\"1\",quantile=\"2\"} 1\n# TYPE x_minutes gauge\nx_minutes 1\n# TYPE r:r gauge\nr:r 1\n\
                     r:r 2\n# TYPE z_bucket gauge\nz_bucket 1\nz_bucket_count 4\n";
        let families = read(text).unwrap();
        let shown: Vec<String> = problems(&families).iter().map(|(name, text)| format!("{name} {text}")).collect();
        let expected = [
            "c_counter counter metrics should have \"_total\" suffix",
            "c_counter metric name should not include type 'counter'",
            "c_counter no help text",
            "fooBar label names should be written in 'snake_case' not 'camelCase'",
            "fooBar metric names should be written in 'snake_case' not 'camelCase'",
            "fooBar no help text",
            "g_total no help text",
            "g_total non-counter metrics should not have \"_total\" suffix",
            "g_total non-histogram metrics should not have \"le\" label",
            "g_total non-summary metrics should not have \"quantile\" label",
            "lat_ms metric names should not contain abbreviated units",
            "r:r metric names should not contain ':'",
            "r:r metric not unique",
            "r:r no help text",
            "x_minutes no help text",
            "x_minutes use base unit \"seconds\" instead of \"minutes\"",
            "z_bucket no help text",
            "z_bucket non-histogram metrics should not have \"_bucket\" suffix",
            "z_bucket_count no help text",
        ];
        assert_eq!(shown, expected);
        assert_eq!(unit_of("a_milligrams_x"), Some(("milligrams", "grams")));
        let table = cardinalities(&families);
        assert!(
            table.starts_with("Metric            Cardinality    Percentage    \nlat_ms            3              ")
        );
        assert!(table.ends_with("\nTotal             12             100%          \n"), "{table}");
    }
}
