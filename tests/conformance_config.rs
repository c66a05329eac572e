//! The conformance data that concerns configuration: regular expressions, relabelling, configuration and rule files.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a failing step is a failing test, and skips are told")]

mod support;

use std::path::{Path, PathBuf};

use serde_json::Value;
use watchfire::config::relabel::RelabelRegexp;
use watchfire::config::rules::{self, RuleChecks, RuleFile, RuleFileError};
use watchfire::config::{self, Action, LoadOptions, LoadedConfig, RelabelConfig, ValidationScheme, relabel};
use watchfire::model::labels::Labels;
use watchfire::model::regexp::Regexp;

/// The parsed data file, or `None` (with a note) if the data is not on this machine.
fn data(file: &str) -> Option<Value> {
    let Some(dir) = support::conformance_dir() else {
        println!("skipped: no conformance data on this machine");
        return None;
    };
    let raw = std::fs::read(dir.join(file)).unwrap();
    Some(serde_json::from_slice(&raw).unwrap())
}

#[track_caller]
fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_else(|| panic!("no text {key} in {value}"))
}

#[test]
fn regular_expressions_match_as_in_go() {
    let Some(data) = data("regexp.json") else { return };
    let values: Vec<Vec<u8>> = data["values"].as_array().unwrap().iter().map(raw_value).collect();
    let mut failures = Vec::new();
    // All of them, as the data's own description counts them.
    assert_eq!((data["regexes"].as_array().unwrap().len(), values.len()), (70, 73));
    for case in data["regexes"].as_array().unwrap() {
        let pattern = text(case, "regex");
        let expected: Vec<u64> =
            case["matching_value_indexes"].as_array().unwrap().iter().map(|i| i.as_u64().unwrap()).collect();
        let regexp = Regexp::anchored(pattern).unwrap();
        let matching: Vec<u64> =
            (0..values.len()).filter(|i| regexp.is_match_bytes(&values[*i])).map(|i| i as u64).collect();
        if matching != expected {
            failures.push(format!("{pattern}: expected {expected:?}, got {matching:?}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn raw_value(value: &Value) -> Vec<u8> {
    match value.get("base64") {
        Some(encoded) => base64(encoded.as_str().unwrap()),
        None => text(value, "text").as_bytes().to_vec(),
    }
}

fn base64(encoded: &str) -> Vec<u8> {
    let digit =
        |b: u8| b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".iter().position(|d| *d == b);
    let bits: Vec<usize> = encoded.bytes().filter_map(digit).collect();
    let mut out = Vec::new();
    for group in bits.chunks(4) {
        let word = group.iter().enumerate().fold(0, |word, (i, bits)| word | bits << (18 - 6 * i));
        out.extend((0..group.len() - 1).map(|i| (word >> (16 - 8 * i)) as u8));
    }
    out
}

fn dir(part: &str) -> Option<PathBuf> {
    let Some(dir) = support::conformance_dir() else {
        println!("skipped: no conformance data on this machine");
        return None;
    };
    Some(dir.join(part))
}

/// Loads a file of the data folder `config`, in agent mode where its name asks for it.
fn load(dir: &Path, file: &str) -> Result<LoadedConfig, config::ConfigError> {
    let agent_mode = file.starts_with("agent_mode.");
    let no_variables = |_: &str| None;
    let options = LoadOptions { agent_mode, environment: &no_variables, ..LoadOptions::default() };
    config::load_file(dir.join(file).to_str().unwrap(), &options)
}

#[test]
fn every_good_configuration_loads() {
    let Some(dir) = dir("config") else { return };
    let mut failures = Vec::new();
    let mut count = 0;
    for entry in std::fs::read_dir(&dir).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !name.ends_with(".good.yml") {
            continue;
        }
        count += 1;
        if let Err(error) = load(&dir, &name) {
            failures.push(format!("{name}: {error}"));
        }
    }
    assert!(50 < count && failures.is_empty(), "{count} files, failures:\n{}", failures.join("\n"));
}

#[test]
fn bad_configurations_fail_with_prometheus_texts() {
    let (Some(cases), Some(dir)) = (data("config-errors.json"), dir("config")) else { return };
    let mut failures = Vec::new();
    for case in cases.as_array().unwrap() {
        let file = text(case, "file");
        // The texts name files relative to the folder of Prometheus's tests.
        let expected = &text(case, "err_substring").replace("testdata/", &format!("{}/", dir.display()));
        match load(&dir, file) {
            Ok(_) => failures.push(format!("{file}: loads, expected: {expected}")),
            Err(error) if !error.to_string().contains(expected) => {
                failures.push(format!("{file}: expected: {expected}\n    got: {error}"));
            }
            Err(_) => {}
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {} cases fail:\n{}",
        failures.len(),
        cases.as_array().unwrap().len(),
        failures.join("\n")
    );
}

/// Relabelling rules written in JSON with the names of the YAML fields.
fn relabel_rule(mut config: RelabelConfig, rule: &Value) -> RelabelConfig {
    for (key, value) in rule.as_object().unwrap() {
        let text = || value.as_str().unwrap().to_owned();
        match key.as_str() {
            "source_labels" => {
                let names = value.as_array().unwrap().iter().map(|name| name.as_str().unwrap().into());
                config.source_labels = names.collect();
            }
            "modulus" => config.modulus = value.as_u64().unwrap(),
            "target_label" => config.target_label = text(),
            "name_validation_scheme" => config.scheme = scheme(&text()),
            // Empty texts stand for the defaults.
            _ if text().is_empty() => {}
            "separator" => config.separator = text(),
            "regex" => config.regex = RelabelRegexp::parse(&text()).unwrap(),
            "replacement" => config.replacement = text(),
            "action" => config.action = Action::parse(&text()).unwrap(),
            other => panic!("unknown field {other}"),
        }
    }
    config
}

fn scheme(name: &str) -> ValidationScheme {
    match name {
        "utf8" => ValidationScheme::Utf8,
        "legacy" => ValidationScheme::Legacy,
        other => panic!("unknown scheme {other}"),
    }
}

fn label_set(value: &Value) -> Labels {
    let pairs = value.as_object().unwrap().iter();
    Labels::from_pairs(pairs.map(|(name, value)| (name.as_str(), value.as_str().unwrap())))
}

#[test]
fn relabelling_gives_prometheus_results() {
    let Some(cases) = data("relabel.json") else { return };
    let mut failures = Vec::new();
    for case in cases.as_array().unwrap() {
        let rules = case["relabel_configs"].as_array().unwrap().iter();
        let mut rules: Vec<_> = rules.map(|rule| relabel_rule(RelabelConfig::with_defaults(), rule)).collect();
        rules.iter_mut().for_each(|rule| rule.validate(ValidationScheme::Utf8).unwrap());
        let got = relabel(label_set(&case["input"]), &rules);
        let expected = (!case["drop"].as_bool().unwrap_or(false)).then(|| label_set(&case["output"]));
        if got != expected {
            failures.push(format!("{case}\n    got {got:?}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn relabelling_rules_are_checked_like_in_prometheus() {
    let (Some(cases), Some(targets)) = (data("relabel-validate.json"), data("relabel-target-label.json")) else {
        return;
    };
    for case in cases.as_array().unwrap() {
        let mut rule = relabel_rule(RelabelConfig::default(), &case["config"]);
        let got = rule.validate(ValidationScheme::Unset);
        match case["err"].as_str() {
            Some(expected) => assert!(got.as_ref().is_err_and(|e| e.contains(expected)), "{case}: {got:?}"),
            None => assert_eq!(got, Ok(()), "{case}"),
        }
    }
    for case in targets.as_array().unwrap() {
        let target_label = text(case, "target_label").to_owned();
        let mut rule = RelabelConfig { target_label, ..RelabelConfig::with_defaults() };
        assert_eq!(rule.validate(ValidationScheme::Legacy).is_ok(), case["valid"].as_bool().unwrap(), "{case}");
    }
}

fn parse_rules(path: &Path, scheme: ValidationScheme) -> Result<RuleFile, Vec<RuleFileError>> {
    // The expression language is not known to this area; one expression of the data is wrong in it.
    let expr = |text: &str| match text.contains("rate(hi)") {
        true => Err("1:6: parse error: expected type range vector in call to function \"rate\"".to_owned()),
        false => Ok(()),
    };
    let checks = RuleChecks { expr: &expr, template: &|_, _| Ok(()), ignore_unknown_fields: false };
    rules::parse(path.to_str().unwrap(), &std::fs::read(path).unwrap(), scheme, &checks)
}

#[test]
fn bad_rule_files_fail_with_prometheus_texts() {
    let (Some(cases), Some(dir)) = (data("rulefmt-errors.json"), dir("rules/rulefmt")) else { return };
    for case in cases.as_array().unwrap() {
        let errors = parse_rules(&dir.join(text(case, "file")), scheme(text(case, "validation_scheme")));
        let errors: Vec<String> = errors.expect_err(text(case, "file")).iter().map(ToString::to_string).collect();
        assert!(errors.iter().any(|e| e.contains(text(case, "err_substring"))), "{case}: {errors:?}");
    }
}

#[test]
fn good_rule_files_load() {
    let (Some(rulefmt), Some(fixtures)) = (dir("rules/rulefmt"), dir("rules/fixtures")) else { return };
    let mut count = 0;
    for entry in std::fs::read_dir(rulefmt).unwrap().chain(std::fs::read_dir(fixtures).unwrap()) {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.contains(".bad.") || name == "invalid_rules.yaml" {
            continue;
        }
        let scheme = if name.starts_with("legacy") { ValidationScheme::Legacy } else { ValidationScheme::Utf8 };
        let file = parse_rules(&path, scheme).unwrap_or_else(|errors| panic!("{name}: {errors:?}"));
        assert_eq!(file.more_documents, name == "rules_multi_doc.yaml", "{name}");
        count += 1;
    }
    assert!(10 < count, "{count} files");
}
