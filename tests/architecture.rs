//! Who may import whom: reads every `crate::` path under `src/` and fails on an arrow that the table does not have. And that
//! `docs/upstream-cases.md` names tests which exist.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Module → modules that it may use. A new arrow needs a decision record in `docs/adr/`.
fn table() -> BTreeMap<&'static str, &'static [&'static str]> {
    BTreeMap::from([
        ("model", &[][..]),
        ("telemetry", &["model"]),
        ("config", &["model", "telemetry"]),
        ("exposition", &["model", "telemetry"]),
        ("template", &["model", "telemetry"]),
        ("promql", &["model", "telemetry"]),
        ("client", &["model", "config", "telemetry"]),
        ("storage", &["model", "telemetry"]),
        ("scrape", &["model", "config", "telemetry", "client", "exposition"]),
        ("discovery", &["model", "config", "telemetry", "client"]),
        ("notify", &["model", "config", "telemetry", "client"]),
        ("exporters", &["model", "config", "telemetry", "client", "exposition"]),
        ("rules", &["model", "config", "telemetry", "promql", "template"]),
        ("alertmanager", &["model", "config", "telemetry", "promql", "template", "client"]),
        ("remote", &["model", "config", "telemetry", "client", "storage::wal"]),
        ("promqltest", &["model", "promql", "storage", "telemetry"]),
        (
            "actors",
            &[
                "model",
                "telemetry",
                "config",
                "exposition",
                "template",
                "promql",
                "client",
                "storage",
                "scrape",
                "discovery",
                "notify",
                "exporters",
                "rules",
                "alertmanager",
                "remote",
                "promqltest",
            ],
        ),
        ("http", &["actors", "model", "config", "telemetry", "exposition", "template", "remote", "promql"]),
        (
            "cli",
            &[
                "model",
                "telemetry",
                "config",
                "exposition",
                "template",
                "promql",
                "client",
                "storage",
                "scrape",
                "discovery",
                "notify",
                "exporters",
                "rules",
                "alertmanager",
                "remote",
                "promqltest",
                "actors",
                "http",
            ],
        ),
    ])
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// The paths that follow `crate::` in a line of code, groups (`crate::{a, b}`) included; comments are left out.
fn crate_paths(line: &str) -> Vec<String> {
    let code = line.split("//").next().unwrap_or("");
    let mut paths = Vec::new();
    let mut rest = code;
    while let Some(at) = rest.find("crate::") {
        let preceded_by_name = rest[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        rest = &rest[at + "crate::".len()..];
        if preceded_by_name {
            continue;
        }
        if let Some(group) = rest.strip_prefix('{') {
            let inner = group.split('}').next().unwrap_or("");
            paths.extend(inner.split(',').map(|p| p.trim().to_owned()).filter(|p| !p.is_empty()));
        } else {
            let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(rest.len());
            paths.push(rest[..end].trim_end_matches(':').to_owned());
        }
    }
    paths
}

fn is_allowed(allowed: &[&str], path: &str) -> bool {
    allowed.iter().any(|a| path == *a || path.strip_prefix(a).is_some_and(|rest| rest.starts_with("::")))
}

fn violations(root: &Path) -> (usize, Vec<String>) {
    let table = table();
    let mut files = Vec::new();
    rust_files(root, &mut files);
    let mut found = Vec::new();
    for file in &files {
        let relative = file.strip_prefix(root).unwrap();
        let module = relative.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs");
        if module == "lib" || module == "main" {
            continue;
        }
        let Some(allowed) = table.get(module) else {
            found.push(format!("{}: module {module} is not in the table", relative.display()));
            continue;
        };
        for (index, line) in fs::read_to_string(file).unwrap().lines().enumerate() {
            for path in crate_paths(line) {
                let target = path.split("::").next().unwrap_or("");
                if target != module && table.contains_key(target) && !is_allowed(allowed, &path) {
                    found.push(format!("{}:{}: {module} may not use {path}", relative.display(), index + 1));
                }
            }
        }
    }
    (files.len(), found)
}

#[test]
fn imports_follow_the_table() {
    let (files, found) = violations(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(files > 5, "only {files} files were read");
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_forbidden_arrow_is_found() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("storage")).unwrap();
    let code = "use crate::model::labels;\nfn f() { crate::promql::parse(\"up\") } // crate::http\nuse crate::{http, model};\n";
    fs::write(folder.path().join("storage/a.rs"), code).unwrap();
    let (_, found) = violations(folder.path());
    assert_eq!(
        found,
        ["storage/a.rs:2: storage may not use promql::parse", "storage/a.rs:3: storage may not use http"]
    );
}

#[test]
fn only_the_actor_layer_uses_actix_actors() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    for file in files {
        let inside = file.starts_with(root.join("actors"));
        let text = fs::read_to_string(&file).unwrap();
        let uses = text.lines().any(|l| l.trim_start().starts_with("use actix::"));
        assert!(inside || !uses, "{} uses actix's actors", file.display());
    }
}

#[test]
fn the_list_of_upstream_cases_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests = BTreeSet::new();
    for folder in ["src", "tests", "fuzz"] {
        let mut files = Vec::new();
        rust_files(&root.join(folder), &mut files);
        for path in files {
            let text = fs::read_to_string(path).unwrap();
            let names = text.lines().filter_map(|line| line.trim_start().strip_prefix("fn "));
            tests.extend(names.filter_map(|rest| Some(rest.split_once(['(', '<'])?.0.to_owned())));
        }
    }
    let list = fs::read_to_string(root.join("docs/upstream-cases.md")).unwrap();
    let mut rows = 0;
    for line in list.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| ---")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        assert!(2 <= cells.len() && cells.iter().all(|cell| !cell.is_empty()), "an empty row: {line}");
        let names = cells.last().unwrap().split('`').skip(1).step_by(2);
        for name in names.filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'))
        {
            assert!(tests.contains(name), "no test is called {name}: {line}");
        }
        rows += 1;
    }
    assert!(680 < rows, "{rows} rows");
}
