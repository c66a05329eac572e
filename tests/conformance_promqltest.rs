//! Runs PromQL test scripts: our own in `tests/promqltest`, and Prometheus's. All evaluations of both must pass.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that prints its figures")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use watchfire::model::labels::Labels;
use watchfire::promql::parser::{ParseOptions, SequenceValue, parse_expr};
use watchfire::promql::printer::to_json;
use watchfire::promql::signatures::functions;
use watchfire::promqltest::{
    Command, EvalCommand, EvalOutcome, ExpectedSeries, MemoryStorage, Script, Settings, run, run_selected,
    upstream_options,
};

fn scripts_in(dir: &Path) -> Vec<PathBuf> {
    let mut scripts: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|p| p.extension() == Some("test".as_ref()))
        .collect();
    scripts.sort();
    scripts
}

fn run_script(path: &Path) -> Vec<EvalOutcome> {
    let text = fs::read_to_string(path).unwrap();
    let script = Script::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut storage = MemoryStorage::new();
    run(&script, &mut storage, &upstream_options()).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn failures(path: &Path, outcomes: &[EvalOutcome]) -> Vec<String> {
    let name = path.file_name().unwrap().to_string_lossy();
    outcomes
        .iter()
        .filter_map(|o| o.result.as_ref().err().map(|why| format!("{name}:{}: {}: {why}", o.line, o.expr)))
        .collect()
}

#[test]
fn our_scripts_pass() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/promqltest");
    let scripts = scripts_in(&dir);
    assert!(!scripts.is_empty());
    let mut failed = Vec::new();
    for path in scripts {
        let outcomes = run_script(&path);
        assert!(!outcomes.is_empty(), "{} evaluates nothing", path.display());
        failed.extend(failures(&path, &outcomes));
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Every evaluation of our scripts notices when what it expects is changed.
#[test]
fn each_evaluation_of_our_scripts_can_fail() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/promqltest");
    let (mut changed, mut unnoticed) = (0, Vec::new());
    for path in scripts_in(&dir) {
        let script = Script::parse(&fs::read_to_string(&path).unwrap()).unwrap();
        for at in 0..script.commands.len() {
            for mutate in [other_value, one_less, one_more, fails_or_not] {
                let mut script = script.clone();
                let Command::Eval(eval) = &mut script.commands[at] else { continue };
                if !mutate(eval) {
                    continue;
                }
                changed += 1;
                let line = eval.line;
                let settings = Settings::upstream();
                let report = run_selected(&script, &mut MemoryStorage::new(), &settings, &|eval| eval.line == line);
                if report.is_ok() {
                    unnoticed.push(format!("{}:{line}", path.display()));
                }
            }
        }
    }
    assert!(changed > 500, "{changed} changes are too few");
    assert!(unnoticed.is_empty(), "changes of what is expected were not noticed: {unnoticed:?}");
}

/// Each of these changes what is expected, and tells whether it could.
fn other_value(eval: &mut EvalCommand) -> bool {
    if let Some(value) = &mut eval.scalar {
        *value = if value.is_finite() { value.abs() * 2.0 + 1.0 } else { 1.0 };
        return eval.failure.is_none();
    }
    let values = eval.series.values_mut().flat_map(|series| &mut series.values);
    for value in values {
        if let SequenceValue::Float(value) = value {
            *value = if value.is_finite() { value.abs() * 2.0 + 1.0 } else { 1.0 };
            return eval.failure.is_none();
        }
    }
    false
}

fn one_less(eval: &mut EvalCommand) -> bool {
    eval.failure.is_none() && eval.scalar.is_none() && eval.series.pop_first().is_some()
}

fn one_more(eval: &mut EvalCommand) -> bool {
    let is_vector = eval.scalar.is_none() && eval.text.is_none() && eval.failure.is_none();
    let values = vec![SequenceValue::Float(1.0)];
    let labels = Labels::from_pairs([("__name__", "nowhere")]);
    is_vector && eval.series.insert(labels, ExpectedSeries { position: 99, values }).is_none()
}

fn fails_or_not(eval: &mut EvalCommand) -> bool {
    eval.failure = match eval.failure {
        Some(_) => None,
        None => Some(Vec::new()),
    };
    true
}

/// Everything that the language has is evaluated somewhere in our scripts, with a value and not only with a failure.
#[test]
fn our_scripts_use_all_of_the_language() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/promqltest");
    let mut used = BTreeSet::new();
    for path in scripts_in(&dir) {
        for command in Script::parse(&fs::read_to_string(&path).unwrap()).unwrap().commands {
            if let Command::Eval(eval) = command
                && eval.failure.is_none()
                && !(eval.series.is_empty() && eval.scalar.is_none() && eval.text.is_none())
            {
                note_parts(&to_json(&parse_expr(&eval.expr, &ParseOptions::ALL).unwrap()), &mut used);
            }
        }
    }
    let mut wanted: Vec<String> = functions().iter().map(|function| format!("function {}", function.name)).collect();
    let aggregations =
        "avg bottomk count count_values group limit_ratio limitk max min quantile stddev stdvar sum topk";
    wanted.extend(aggregations.split(' ').map(|name| format!("aggregation {name}")));
    let arithmetic = "+ - * / % ^ atan2 == != < > <= >=";
    let operators = format!("{arithmetic} </ >/");
    wanted.extend(operators.split(' ').map(|op| format!("operator {op}")));
    wanted.extend(format!("{arithmetic} and or unless").split(' ').map(|op| format!("operator {op} between vectors")));
    wanted.extend("= != =~ !~".split(' ').map(|op| format!("matcher {op}")));
    wanted.extend("+ -".split(' ').map(|op| format!("sign {op}")));
    wanted.extend("+ - * / % ^ step range max_of min_of".split(' ').map(|op| format!("duration {op}")));
    wanted.extend("one-to-one many-to-one one-to-many many-to-many".split(' ').map(|card| format!("matching {card}")));
    let others = "by without bool on ignoring include fill_left fill_right offset negative_offset computed_offset at_time \
                  at_start at_end anchored smoothed subquery default_step computed_step computed_range string parentheses";
    wanted.extend(others.split_whitespace().map(str::to_owned));
    let missing: Vec<&String> = wanted.iter().filter(|part| !used.contains(*part)).collect();
    assert!(missing.is_empty(), "no script evaluates {missing:?}");
}

/// Notes what an expression, in the form of the API, consists of.
fn note_parts(node: &Value, used: &mut BTreeSet<String>) {
    let text = |field: &str| node[field].as_str().unwrap_or_default();
    let mut note = |part: String| {
        used.insert(part);
    };
    let set = |field: &str| node[field].as_array().is_some_and(|items| !items.is_empty());
    match text("type") {
        "call" => note(format!("function {}", node["func"]["name"].as_str().unwrap())),
        "aggregation" => {
            note(format!("aggregation {}", text("op")));
            if set("grouping") {
                note(if node["without"] == true { "without" } else { "by" }.to_owned());
            }
        }
        "binaryExpr" => {
            note(format!("operator {}", text("op")));
            if node["bool"] == true {
                note("bool".to_owned());
            }
            let matching = &node["matching"];
            if !matching.is_null() {
                note(format!("operator {} between vectors", text("op")));
                note(format!("matching {}", matching["card"].as_str().unwrap()));
                let labels = !matching["labels"].as_array().unwrap().is_empty();
                match (matching["on"] == true, labels) {
                    (true, _) => note("on".to_owned()),
                    (false, true) => note("ignoring".to_owned()),
                    (false, false) => {}
                }
                if !matching["include"].as_array().unwrap().is_empty() {
                    note("include".to_owned());
                }
                for side in ["lhs", "rhs"].into_iter().filter(|side| !matching["fillValues"][side].is_null()) {
                    note(if side == "lhs" { "fill_left" } else { "fill_right" }.to_owned());
                }
            }
        }
        "unaryExpr" => note(format!("sign {}", text("op"))),
        "durationExpr" => note(format!("duration {}", text("op"))),
        "stringLiteral" => note("string".to_owned()),
        "parenExpr" => note("parentheses".to_owned()),
        "subquery" => {
            note("subquery".to_owned());
            if node["step"] == 0 && node["stepExpr"].is_null() {
                note("default_step".to_owned());
            }
        }
        _ => {}
    }
    for matcher in node["matchers"].as_array().into_iter().flatten() {
        note(format!("matcher {}", matcher["type"].as_str().unwrap()));
    }
    for (field, part) in [("anchored", "anchored"), ("smoothed", "smoothed")] {
        if node[field] == true {
            note(part.to_owned());
        }
    }
    for (field, part) in
        [("offsetExpr", "computed_offset"), ("stepExpr", "computed_step"), ("rangeExpr", "computed_range")]
    {
        if node[field].is_object() {
            note(part.to_owned());
        }
    }
    match node["offset"].as_i64().unwrap_or(0).cmp(&0) {
        std::cmp::Ordering::Less => note("negative_offset".to_owned()),
        std::cmp::Ordering::Equal => {}
        std::cmp::Ordering::Greater => note("offset".to_owned()),
    }
    match (node["timestamp"].is_number(), text("startOrEnd")) {
        (true, _) => note("at_time".to_owned()),
        (false, "start") => note("at_start".to_owned()),
        (false, "end") => note("at_end".to_owned()),
        _ => {}
    }
    let children: Vec<&Value> = match node {
        Value::Object(fields) => fields.values().collect(),
        Value::Array(items) => items.iter().collect(),
        _ => Vec::new(),
    };
    children.into_iter().for_each(|child| note_parts(child, used));
}

/// All evaluations of all files pass. The figures of the floor are their numbers, so that none gets lost.
#[test]
fn scripts_of_prometheus_pass() {
    let Some(dir) = support::conformance_dir() else {
        println!("skipped: no conformance data");
        return;
    };
    let floor_path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/promqltest_floor.json");
    let floor: BTreeMap<String, usize> = serde_json::from_str(&fs::read_to_string(floor_path).unwrap()).unwrap();
    let (mut failed, mut figures) = (Vec::new(), BTreeMap::new());
    for path in scripts_in(&dir.join("promqltest")) {
        let outcomes = run_script(&path);
        failed.extend(failures(&path, &outcomes));
        figures.insert(path.file_name().unwrap().to_string_lossy().into_owned(), outcomes.len());
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert_eq!(figures, floor, "number of evaluations by file");
}
