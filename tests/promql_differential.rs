//! The same samples and the same queries here and in a real Prometheus 3.14: values to the last digit, annotations, errors.
//!
//! - `WATCHFIRE_ORACLE_PROMETHEUS=/path/to/prometheus` runs it against that binary; without it recorded answers are compared.
//! - `WATCHFIRE_ORACLE_SEED` (1) and `WATCHFIRE_ORACLE_QUERIES` (10,000) say which queries and how many.
//! - `WATCHFIRE_ORACLE_RECORD=1` writes the recorded answers anew.
//! - `WATCHFIRE_ORACLE_QUERY='expr'` with the number of a query as `WATCHFIRE_ORACLE_INDEX` shows both answers to it.
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
use std::path::PathBuf;

use serde_json::Value as Json;
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

fn run_against(features: &str, opts: &EngineOptions, queries: u64) {
    let Some(binary) = binary() else {
        println!("skipped: WATCHFIRE_ORACLE_PROMETHEUS names no Prometheus");
        return;
    };
    let seed = number("WATCHFIRE_ORACLE_SEED", 1);
    let queries = number("WATCHFIRE_ORACLE_QUERIES", queries);
    let data = samples::dataset(seed);
    let view = answer::view_of(&data);
    let mut oracle = Oracle::start(&binary, features);
    oracle.write(&data);
    let (mut tally, mut differences) = (Tally::default(), Vec::new());
    for index in 0..queries {
        let query = grammar::query(seed, index);
        let (path, form) = answer::form(&query);
        let theirs = oracle.ask(path, &form);
        let ours = answer::of(&*view, &query, opts);
        tally.count(&query, &theirs);
        if let Err(difference) = compare::difference(&rules_of(&query), &theirs, &ours) {
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
