//! Runs PromQL test scripts: our own in `tests/promqltest`, all of whose evaluations must pass, and Prometheus's, where the
//! number that passes must not fall below the floor in `tests/conformance/promqltest_floor.json`, which only grows.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that prints its figures")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use watchfire::promqltest::{EvalOutcome, MemoryStorage, Script, run, upstream_options};

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

/// With `PROMQLTEST_FAILURES=<file>` set, each failure in that script (`all`: in every one) is printed.
#[test]
fn scripts_of_prometheus_pass_up_to_the_floor() {
    let Some(dir) = support::conformance_dir() else {
        println!("skipped: no conformance data");
        return;
    };
    let floor_path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/promqltest_floor.json");
    let floor: BTreeMap<String, usize> = serde_json::from_str(&fs::read_to_string(floor_path).unwrap()).unwrap();
    let wanted = std::env::var("PROMQLTEST_FAILURES").unwrap_or_default();
    let (mut passed_total, mut total, mut below) = (0, 0, Vec::new());
    let mut figures = BTreeMap::new();
    for path in scripts_in(&dir.join("promqltest")) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let outcomes = run_script(&path);
        let passed = outcomes.iter().filter(|o| o.result.is_ok()).count();
        println!("{name:<28} {passed:>4} of {:>4}", outcomes.len());
        if wanted == name || wanted == "all" {
            println!("{}", failures(&path, &outcomes).join("\n"));
        }
        let needed = floor.get(&name).copied().unwrap_or(0);
        if passed < needed {
            below.push(format!("{name}: {passed} of {} pass, {needed} did before", outcomes.len()));
        }
        (passed_total, total) = (passed_total + passed, total + outcomes.len());
        figures.insert(name, passed);
    }
    println!("promqltest: {passed_total} of {total} evals pass");
    println!("{}", serde_json::to_string_pretty(&figures).unwrap());
    let missing: Vec<&String> = floor.keys().filter(|name| !figures.contains_key(*name)).collect();
    assert!(missing.is_empty(), "scripts are missing: {missing:?}");
    assert!(below.is_empty(), "{}", below.join("\n"));
}
