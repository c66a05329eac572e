use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::config::{LoadOptions, load_str};

#[track_caller]
fn written(text: &str, expected: &str) {
    assert_eq!(Out::Mapping(vec![("k".to_owned(), Out::Text(text.to_owned()))]).to_yaml(), format!("k: {expected}\n"));
}

#[test]
fn texts_are_quoted_where_they_would_be_something_else() {
    for (text, expected) in [
        ("plain text", "plain text"),
        ("", "\"\""),
        ("yes", "\"yes\""),
        ("1_0", "\"1_0\""),
        ("0x", "0x"),
        ("12:30", "\"12:30\""),
        ("2020-01-02", "\"2020-01-02\""),
        ("~", "\"~\""),
        ("a: b", "'a: b'"),
        ("it's #1", "'it''s #1'"),
        ("- x", "'- x'"),
        ("-x", "-x"),
        ("@x", "'@x'"),
        (" x", "' x'"),
        ("a\tb", "\"a\\tb\""),
        ("a\nb", "|-\n  a\n  b"),
        ("a\n\n", "|+\n  a\n"),
        (" a\n", "|2\n   a"),
        ("a \nb", "\"a \\nb\""),
        ("<<", "<<"),
        ("😀", "\"\\U0001F600\""),
    ] {
        written(text, expected);
    }
}

#[test]
fn keys_come_in_the_order_of_go() {
    let keys = ["b10", "b9", "B", "a", "_x", "10", "9", "a0", "a00", "-"];
    let pairs = keys.iter().map(|key| ((*key).to_owned(), Out::Null)).collect();
    let Out::Mapping(sorted) = Out::sorted_mapping(pairs) else { panic!("not a mapping") };
    let sorted: Vec<&str> = sorted.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(sorted, ["-", "_x", "9", "10", "B", "a", "a0", "a00", "b9", "b10"]);
}

#[test]
fn aliases_and_merges_are_followed() {
    let mut map: BTreeMap<String, String> = BTreeMap::new();
    read("base: &b hello\n<<: {x: 1, base: lost}\nagain: *b\n", &mut map).unwrap();
    let expected = [("again", "hello"), ("base", "hello"), ("x", "1")];
    assert_eq!(map, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
}

#[test]
fn documents_that_grow_by_aliases_are_refused() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let item = format!("*a{}", level - 1);
        let items = [item.as_str(); 9].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{items}]\n"));
    }
    text.push_str("scrape_configs: *a8\n");
    assert!(load_str("x", &text, &LoadOptions::default()).is_err());
    let deep = format!("rule_files: {}{}", "[".repeat(500), "]".repeat(500));
    assert!(load_str("x", &deep, &LoadOptions::default()).is_err());
}

/// Lines that configurations are made of, with indentation and mischief.
fn any_text() -> impl Strategy<Value = String> {
    let lines = prop::sample::select(vec![
        "global:",
        "scrape_configs:",
        "- job_name: a",
        "relabel_configs:",
        "- {source_labels: [a], regex: '(.*)', action: replace, target_label: b}",
        "static_configs: [{targets: [h], labels: {a: b}}]",
        "scrape_interval: 5s",
        "external_labels: &x {a: *x, ? b : !!binary /w==}",
        "<<: *x",
        "key: |2-",
        "  text",
        "\t- \"esc\\q\\u00e9\"",
        "---",
        "...",
        "%YAML 1.1",
        "# comment",
        "x: &x [*x, !foo y]",
        "oauth2: {claims: {a: [1, {b: ~}]}}",
        "'",
        "]",
    ]);
    prop::collection::vec((0usize..6, lines), 0..12)
        .prop_map(|lines| lines.iter().map(|(indent, line)| format!("{}{line}\n", " ".repeat(*indent))).collect())
}

proptest! {
    #[test]
    fn loading_never_panics(text in any_text(), noise in "\\PC{0,40}") {
        for text in [&text, &noise] {
            if let Ok(loaded) = load_str("prometheus.yml", text, &LoadOptions::default()) {
                let shown = loaded.config.to_yaml();
                prop_assert!(load_str("prometheus.yml", &shown, &LoadOptions::default()).is_ok(), "{}", shown);
            }
        }
    }

    /// Whatever is written reads back as the same text.
    #[test]
    fn texts_survive(texts in prop::collection::vec("[ -~\n\té\u{a0}]{0,100}", 1..4)) {
        let out = Out::Sequence(texts.iter().cloned().map(Out::Text).collect());
        let mut back: Vec<String> = Vec::new();
        read(&out.to_yaml(), &mut back).unwrap();
        prop_assert_eq!(back, texts);
    }
}
