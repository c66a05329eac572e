//! Configuration as users meet it: files that are shown with their defaults, texts that are refused, shipped examples.
//! The expected texts under `tests/config` were written by Prometheus 3.14 for the same input.

#![allow(clippy::unwrap_used, reason = "a failing step is a failing test")]

use std::path::{Path, PathBuf};

use serde_json::Value;
use watchfire::config::alertmanager;
use watchfire::config::rules::{self, RuleChecks};
use watchfire::config::{FlagDefaults, InactiveKind, LoadOptions, LoadedConfig, ValidationScheme, load_file, load_str};
use watchfire::model::duration::PromDuration;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn server_options() -> LoadOptions<'static> {
    let defaults = FlagDefaults { retention_time: PromDuration::from_secs(15 * 86_400), ..FlagDefaults::default() };
    LoadOptions { defaults, environment: &|_| None, ..LoadOptions::default() }
}

const CHECKS: RuleChecks<'static> =
    RuleChecks { expr: &|_| Ok(()), template: &|_, _| Ok(()), ignore_unknown_fields: false };

fn load_text(text: &str) -> Result<LoadedConfig, String> {
    load_str("prometheus.yml", text, &server_options()).map_err(|error| error.to_string())
}

#[test]
fn configurations_are_shown_like_prometheus_shows_them() {
    for name in ["shown", "shown-more"] {
        let read = |file: String| std::fs::read_to_string(folder("tests/config").join(file)).unwrap();
        let shown = load_text(&read(format!("{name}.yml"))).unwrap().config.to_yaml();
        assert_eq!(shown, read(format!("{name}.want.yml")), "{name}");
        // What is shown can be loaded again.
        let again = load_text(&shown);
        assert!(again.is_ok(), "{name}: {again:?}");
    }
}

#[test]
fn secrets_are_not_shown() {
    let text = std::fs::read_to_string(folder("tests/config/shown-more.yml")).unwrap();
    let config = load_text(&text).unwrap().config;
    for shown in [config.to_yaml(), format!("{config:?}")] {
        assert!(!shown.contains("password@") && !shown.contains("client_secret: s"), "{shown}");
    }
}

#[test]
fn texts_are_refused_with_prometheus_words() {
    let cases: Value = serde_json::from_slice(&std::fs::read(folder("tests/config/errors.json")).unwrap()).unwrap();
    for case in cases.as_array().unwrap() {
        let got = load_text(case["text"].as_str().unwrap()).err();
        assert_eq!(got.as_deref(), case["error"].as_str(), "{}", case["text"]);
    }
}

#[test]
fn rule_files_are_refused_with_prometheus_words() {
    let raw = std::fs::read(folder("tests/config/rule-errors.json")).unwrap();
    let cases: Value = serde_json::from_slice(&raw).unwrap();
    for case in cases.as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let parsed = rules::parse("rules.yml", text.as_bytes(), ValidationScheme::Utf8, &CHECKS);
        let mut got: Vec<String> = parsed.err().unwrap_or_default().iter().map(ToString::to_string).collect();
        let errors = case["errors"].as_array().unwrap().iter();
        let mut expected: Vec<String> = errors.map(|error| error.as_str().unwrap().to_owned()).collect();
        // Prometheus goes through labels in no particular order.
        got.sort();
        expected.sort();
        assert_eq!(got, expected, "{text}");
    }
}

#[test]
fn errors_name_line_and_field() {
    let text = "scrape_configs:\n- job_name: a\n  scrape_interval: 5x\n";
    let error = load_str("prometheus.yml", text, &server_options()).unwrap_err();
    assert_eq!(error.place(), Some((3, "scrape_configs.0.scrape_interval")));
    let text = "scrape_configs:\n- job_name: a\n- job_name: a\n";
    let error = load_str("prometheus.yml", text, &server_options()).unwrap_err();
    assert_eq!(error.place(), Some((3, "scrape_configs.1")));
}

#[test]
fn environment_variables_stand_in_external_labels() {
    let lookup = |name: &str| (name == "ZONE").then(|| "north".to_owned());
    let options = LoadOptions { environment: &lookup, ..server_options() };
    let text = "global: {external_labels: {zone: \"${ZONE}-1\", none: $NONE, price: 5$$}}";
    let loaded = load_str("prometheus.yml", text, &options).unwrap();
    assert_eq!(loaded.missing_variables, ["NONE"]);
    let labels = loaded.config.global.external_labels.labels();
    assert_eq!(labels.to_string(), "{price=\"5$\", zone=\"north-1\"}");
}

#[test]
fn files_that_are_named_are_read_and_change_the_digest() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write(
        "prometheus.yml",
        "rule_files: ['*.rules']\nscrape_config_files: ['jobs-*.yml']\nscrape_configs: [{job_name: a}]\n",
    );
    write("one.rules", "groups: [{name: g, rules: [{record: r, expr: up}]}]\n");
    write("jobs-b.yml", "scrape_configs: [{job_name: b, file_sd_configs: [{files: [t.json]}]}]\n");
    let main = dir.path().join("prometheus.yml");
    let main = main.to_str().unwrap();
    let options = LoadOptions { rules: Some(CHECKS), ..server_options() };
    let loaded = load_file(main, &options).unwrap();
    let names: Vec<&str> = loaded.scrape_configs.iter().map(|job| job.job_name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(loaded.config.scrape_configs.len(), 1, "jobs of other files are not shown as those of the main file");
    assert_eq!(loaded.rule_files[0].groups[0].rules[0].name(), "r");
    assert_eq!(*loaded.scrape_configs[1].discovery.file[0].files[0], *dir.path().join("t.json").to_str().unwrap());
    assert_eq!(loaded.files.len(), 3);
    assert_eq!(watchfire::config::digest_of(main).unwrap(), loaded.digest);
    write("two.rules", "");
    let changed = load_file(main, &options).unwrap();
    assert_ne!(changed.digest, loaded.digest);
    write("jobs-c.yml", "scrape_configs: [{job_name: b}]\n");
    let error = load_file(main, &options).unwrap_err().to_string();
    assert!(error.contains("found multiple scrape configs with job name \"b\", first found in \""), "{error}");
    write("jobs-c.yml", "");
    write("two.rules", "groups: [{rules: []}]");
    let error = load_file(main, &options).unwrap_err().to_string();
    assert!(error.starts_with("parse rules from file \"") && error.ends_with("Groupname must not be empty"), "{error}");
    let missing = load_file("/nowhere/prometheus.yml", &options).unwrap_err().to_string();
    assert_eq!(missing, "open /nowhere/prometheus.yml: no such file or directory");
}

#[test]
fn the_shipped_alertmanager_yml_loads() {
    let config = alertmanager::load_file(folder("dist/alertmanager.yml").to_str().unwrap()).unwrap();
    assert_eq!(config.receivers.len(), 2);
}

#[test]
fn shipped_files_load_and_ask_for_nothing_that_does_not_work() {
    let mut count = 0;
    for entry in std::fs::read_dir(folder("config")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.to_str().unwrap();
        let content = std::fs::read(&path).unwrap();
        if name.ends_with(".rules.yml") {
            rules::parse(name, &content, ValidationScheme::Utf8, &CHECKS).unwrap();
        } else if name.ends_with(".yml") {
            let loaded = load_file(name, &LoadOptions { rules: Some(CHECKS), ..server_options() }).unwrap();
            let refused: Vec<_> =
                loaded.inactive().into_iter().filter(|i| i.kind == InactiveKind::Protective).collect();
            assert_eq!(refused, [], "{name}");
        } else {
            watchfire::config::target_groups::parse(name, &content).unwrap();
        }
        count += 1;
    }
    assert!(6 <= count, "{count} files");
}

/// The list of settings without effect is written down for users.
#[test]
fn the_document_lists_what_has_no_effect() {
    let text = std::fs::read_to_string(folder("docs/compatibility.md")).unwrap();
    let (_, section) = text.split_once("<!-- inactive settings -->").unwrap();
    let (section, _) = section.split_once("<!-- end of inactive settings -->").unwrap();
    let documented: Vec<&str> = section.lines().filter(|line| line.starts_with("| `")).collect();
    let expected: Vec<String> = watchfire::config::inactive::TABLE
        .iter()
        .map(|row| {
            let effect = if row.kind == InactiveKind::Protective { "refused" } else { "warning" };
            format!("| `{}` | {effect} | {} |", row.field, row.why)
        })
        .collect();
    assert_eq!(documented, expected);
}
