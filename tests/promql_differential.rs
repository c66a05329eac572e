//! The same samples and the same queries here and in a real Prometheus 3.14: values to the last digit, annotations, errors.
//!
//! - `WATCHFIRE_ORACLE_PROMETHEUS=/path/to/prometheus` runs it against that binary; without it recorded answers are compared.
//! - `WATCHFIRE_ORACLE_SEED` (1) and `WATCHFIRE_ORACLE_QUERIES` (10,000) say which queries and how many.
//! - `WATCHFIRE_ORACLE_INDEX=7` asks query 7 alone and shows both answers; `WATCHFIRE_ORACLE_QUERY='up'` puts a text in its place.
//! - `WATCHFIRE_ORACLE_RECORD=1` writes the recorded answers anew.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that prints its figures")]

#[path = "promql_differential/answer.rs"]
mod answer;
#[path = "promql_differential/compare.rs"]
mod compare;
#[path = "promql_differential/dice.rs"]
mod dice;
#[path = "promql_differential/grammar.rs"]
mod grammar;
#[path = "promql_differential/oracle.rs"]
mod oracle;
#[path = "promql_differential/samples.rs"]
mod samples;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};
use watchfire::promql::eval::EngineOptions;

use compare::Rules;
use grammar::{Query, Times};
use oracle::Oracle;

/// Features of Prometheus that make up the whole language.
const LANGUAGE: &str = "promql-experimental-functions,promql-extended-range-selectors,promql-binop-fill-modifiers";

fn number(name: &str, default: u64) -> u64 {
    env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

fn binary() -> Option<PathBuf> {
    env::var_os("WATCHFIRE_ORACLE_PROMETHEUS").map(PathBuf::from)
}

fn rules_of(query: &Query) -> Rules {
    Rules::of(&query.text, matches!(query.times, Times::Range { .. }))
}

/// How many answers there were of each kind.
#[derive(Default)]
struct Tally(BTreeMap<&'static str, u64>);

impl Tally {
    fn count(&mut self, query: &Query, answer: &Json) {
        let mut add = |what| *self.0.entry(what).or_default() += 1;
        add("queries");
        add(if matches!(query.times, Times::Instant(_)) { "instant" } else { "range" });
        if answer["status"] == "error" {
            add(if answer["errorType"] == "bad_data" { "refused" } else { "failed" });
            return;
        }
        let is_empty = answer["data"]["result"].as_array().is_none_or(Vec::is_empty);
        add(if is_empty { "empty" } else { "with values" });
        if answer["warnings"].is_array() || answer["infos"].is_array() {
            add("annotated");
        }
        if answer["data"].to_string().contains("\"buckets\"") {
            add("with histograms");
        }
    }
}

/// A Prometheus that has the samples of a seed, if a binary is given.
fn filled_oracle(features: &str, data: &[samples::Series]) -> Option<Oracle> {
    let Some(binary) = binary() else {
        println!("skipped: WATCHFIRE_ORACLE_PROMETHEUS names no Prometheus");
        return None;
    };
    let mut oracle = Oracle::start(&binary, features);
    oracle.write(data);
    Some(oracle)
}

fn run_against(features: &str, opts: &EngineOptions, queries: u64) {
    let seed = number("WATCHFIRE_ORACLE_SEED", 1);
    let data = samples::dataset(seed);
    let Some(mut oracle) = filled_oracle(features, &data) else { return };
    let view = answer::view_of(&data);
    let mut ask = |query: &Query| {
        let (path, form) = answer::form(query);
        let theirs = oracle.ask(path, &form);
        let ours = answer::of(&*view, query, opts);
        let difference = compare::difference(&rules_of(query), &theirs, &ours);
        (theirs, ours, difference)
    };
    if env::var_os("WATCHFIRE_ORACLE_INDEX").is_some() {
        let mut query = grammar::query(seed, number("WATCHFIRE_ORACLE_INDEX", 0));
        query.text = env::var("WATCHFIRE_ORACLE_QUERY").unwrap_or(query.text);
        let (theirs, ours, difference) = ask(&query);
        println!("{query:?}\ntheirs: {theirs}\nours:   {ours}\n{difference:?}");
        return;
    }
    let (mut tally, mut differences) = (Tally::default(), Vec::new());
    for index in 0..number("WATCHFIRE_ORACLE_QUERIES", queries) {
        let query = grammar::query(seed, index);
        let (theirs, _, difference) = ask(&query);
        tally.count(&query, &theirs);
        if let Err(difference) = difference {
            differences.push(format!("{index}: {} {:?} {}\n{difference}", query.text, query.times, query.lookback_ms));
        }
    }
    println!("{:?}, {} differ", tally.0, differences.len());
    assert!(differences.is_empty(), "seed {seed}\n\n{}", differences.join("\n\n"));
}

#[test]
fn answers_are_those_of_prometheus() {
    run_against(LANGUAGE, &EngineOptions::default(), 10_000);
}

#[test]
fn answers_are_those_of_prometheus_with_late_name_removal_and_types() {
    let features = format!("{LANGUAGE},promql-delayed-name-removal,type-and-unit-labels");
    let opts = EngineOptions { delayed_name_removal: true, type_and_unit_labels: true, ..EngineOptions::default() };
    run_against(&features, &opts, 10_000);
}

/// What the recorded answers are to: samples of seed 1, and which queries.
const RECORDED: &str = "tests/data/promql_oracle/answers.jsonl";
/// Longest recorded answer, in bytes.
const ANSWER_LEN_MAX: usize = 900;
/// Number of recorded answers.
const RECORDED_COUNT: usize = 600;

/// One line for a query and its answer.
fn line(query: &Query, answer: &Json) -> String {
    let times = match query.times {
        Times::Instant(at_ms) => json!([at_ms]),
        Times::Range { start_ms, end_ms, step_ms } => json!([start_ms, end_ms, step_ms]),
    };
    json!({ "query": query.text, "times": times, "lookback": query.lookback_ms, "answer": answer }).to_string()
}

fn read_line(line: &str) -> (Query, Json) {
    let mut line: Json = serde_json::from_str(line).unwrap();
    let times: Vec<i64> = serde_json::from_value(line["times"].clone()).unwrap();
    let times = match times[..] {
        [at_ms] => Times::Instant(at_ms),
        [start_ms, end_ms, step_ms] => Times::Range { start_ms, end_ms, step_ms },
        _ => panic!("{line}"),
    };
    let text = line["query"].as_str().unwrap().to_owned();
    (Query { text, times, lookback_ms: line["lookback"].as_i64().unwrap() }, line["answer"].take())
}

/// Writes the recorded answers: few of those that have no values, none that is long.
fn record(path: &Path, data: &[samples::Series]) {
    let mut oracle = filled_oracle(LANGUAGE, data).unwrap();
    let mut lines = vec![json!({ "fingerprint": format!("{:x}", samples::fingerprint(data)) }).to_string()];
    for index in 100_000.. {
        let query = grammar::query(1, index);
        let (path, form) = answer::form(&query);
        let answer = oracle.ask(path, &form);
        let has_values = answer["data"]["result"].as_array().is_some_and(|result| !result.is_empty());
        let is_short = answer.to_string().len() <= ANSWER_LEN_MAX && query.text.len() <= 400;
        if is_short && (has_values || index % 6 == 0) {
            lines.push(line(&query, &answer));
        }
        if lines.len() > RECORDED_COUNT {
            break;
        }
    }
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, lines.join("\n") + "\n").unwrap();
}

#[test]
fn recorded_answers_are_given_again() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(RECORDED);
    let data = samples::dataset(1);
    if env::var_os("WATCHFIRE_ORACLE_RECORD").is_some() {
        record(&path, &data);
    }
    let text = fs::read_to_string(path).unwrap();
    let mut lines = text.lines();
    let head: Json = serde_json::from_str(lines.next().unwrap()).unwrap();
    assert_eq!(head["fingerprint"], format!("{:x}", samples::fingerprint(&data)), "the answers are to other samples");
    let view = answer::view_of(&data);
    let (mut tally, mut differences) = (Tally::default(), Vec::new());
    for line in lines {
        let (query, theirs) = read_line(line);
        let ours = answer::of(&*view, &query, &EngineOptions::default());
        tally.count(&query, &theirs);
        if let Err(difference) = compare::difference(&rules_of(&query), &theirs, &ours) {
            differences.push(format!("{}\n{difference}", query.text));
        }
    }
    println!("{:?}", tally.0);
    assert_eq!(tally.0["queries"], RECORDED_COUNT as u64);
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}
