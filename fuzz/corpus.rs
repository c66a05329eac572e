//! Texts to begin with: our own scripts, generated queries, and the shared conformance data where they are there.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use crate::dice::Dice;
use crate::grammar;

fn conformance() -> Option<PathBuf> {
    let given = std::env::var_os("WATCHFIRE_CONFORMANCE").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/conformance");
    given.or(Some(beside)).filter(|path| path.is_dir())
}

fn json(name: &str) -> Option<Json> {
    let text = fs::read_to_string(conformance()?.join(name)).ok()?;
    Some(serde_json::from_str(&text).unwrap())
}

/// Queries, series descriptions and lines of scripts.
pub(crate) fn queries() -> Vec<String> {
    let mut texts: Vec<String> = (0..500).map(|index| grammar::query(3, index).text).collect();
    let scripts = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/promqltest")).unwrap();
    for script in scripts {
        let text = fs::read_to_string(script.unwrap().path()).unwrap();
        texts.extend(text.lines().map(|line| line.trim().trim_start_matches("eval instant at ").to_owned()));
    }
    for name in ["promql-parse.json", "promql-series-desc.json", "promql-print.json"] {
        let entries = json(name);
        let inputs = entries.iter().flat_map(|entries| entries.as_array().into_iter().flatten());
        texts.extend(inputs.filter_map(|entry| Some(entry["input"].as_str()?.to_owned())));
    }
    texts.retain(|text| !text.is_empty());
    texts
}

/// Regular expressions.
pub(crate) fn patterns() -> Vec<String> {
    const OWN: [&str; 24] = [
        "",
        "a",
        "a|b|c",
        "foo.*",
        ".*foo",
        ".+foo.+",
        "(?i)ab",
        "[[:alpha:]]+",
        "[^a-z\\d]",
        "\\Qa.b\\E",
        "a{2,5}",
        "(a(b)?)+",
        "(?P<n>x|y)z",
        "^a$",
        "\\bfoo\\b",
        "(?s).",
        "\\pL\\p{Greek}",
        "x*?",
        "\\x{10FFFF}",
        "[\\x00-\\x{10FFFF}]",
        "é+",
        "(?U)a+",
        "a|(b|c)d?|e.*",
        "((((a))))",
    ];
    let mut texts: Vec<String> = OWN.iter().map(|text| (*text).to_owned()).collect();
    if let Some(entries) = json("regexp.json") {
        texts.extend(strings(&entries["regexes"]));
    }
    texts
}

/// All strings of a JSON value, keys included.
fn strings(value: &Json) -> Vec<String> {
    match value {
        Json::String(text) => vec![text.clone()],
        Json::Array(items) => items.iter().flat_map(strings).collect(),
        Json::Object(fields) => {
            fields.iter().flat_map(|(key, value)| [vec![key.clone()], strings(value)].concat()).collect()
        }
        _ => Vec::new(),
    }
}

/// One of them.
pub(crate) fn pick<'a>(dice: &mut Dice, texts: &'a [String]) -> &'a str {
    &texts[usize::try_from(dice.below(texts.len() as u64)).unwrap()]
}
