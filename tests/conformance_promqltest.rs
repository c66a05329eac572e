//! Runs PromQL test scripts: our own in `tests/promqltest`, and Prometheus's. All evaluations of both must pass.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that prints its figures")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use watchfire::model::labels::Labels;
use watchfire::promql::parser::SequenceValue;
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
