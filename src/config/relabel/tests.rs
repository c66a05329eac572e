use proptest::prelude::*;

use super::*;
use crate::config::{LoadOptions, load_str};

fn rules(yaml: &str) -> Vec<RelabelConfig> {
    let text = format!("scrape_configs: [{{job_name: a, relabel_configs: {yaml}}}]");
    load_str("x", &text, &LoadOptions::default()).unwrap().scrape_configs.remove(0).relabel_configs
}

#[track_caller]
fn check(yaml: &str, expected: Option<&str>) {
    let labels = Labels::from_pairs([("__name__", "up"), ("a", "Foo-1"), ("b", "bar")]);
    let got = relabel(labels.clone(), &rules(yaml)).map(|labels| labels.to_string());
    let expected = expected.map(|changes| changes.replace("…", r#"__name__="up", a="Foo-1", b="bar""#));
    assert_eq!(got, expected, "{yaml}");
    // The form for builders says the same.
    let mut builder = labels.to_builder();
    let kept = relabel_builder(&mut builder, &rules(yaml));
    assert_eq!(kept.then(|| builder.build().to_string()), expected, "{yaml}");
}

#[test]
fn each_action_does_its_work() {
    check("[]", Some("{…}"));
    check(
        "[{source_labels: [a], regex: '(.*)-(.*)', target_label: c, replacement: '$2/$1'}]",
        Some(r#"{…, c="1/Foo"}"#),
    );
    check("[{source_labels: [a, b], separator: '+', target_label: c}]", Some(r#"{…, c="Foo-1+bar"}"#));
    check("[{source_labels: [a], regex: foo, target_label: c}]", Some("{…}"));
    check("[{target_label: c, replacement: static}]", Some(r#"{…, c="static"}"#));
    check("[{target_label: b, replacement: ''}]", Some(r#"{__name__="up", a="Foo-1"}"#));
    check("[{source_labels: [b], target_label: '${1}x'}]", Some(r#"{…, barx="bar"}"#));
    check("[{source_labels: [a], regex: 'Foo.*', action: keep}]", Some("{…}"));
    check("[{source_labels: [a], regex: 'Foo', action: keep}]", None);
    check("[{source_labels: [a], regex: 'Foo.*', action: drop}]", None);
    check("[{source_labels: [a], target_label: b, action: keepequal}]", None);
    check("[{source_labels: [a], target_label: b, action: dropequal}]", Some("{…}"));
    check("[{source_labels: [b], modulus: 1000, target_label: c, action: hashmod}]", Some(r#"{…, c="922"}"#));
    check("[{regex: '(a|b)', replacement: 'x_$1', action: labelmap}]", Some(r#"{…, x_a="Foo-1", x_b="bar"}"#));
    check("[{regex: 'a|c', action: labeldrop}]", Some(r#"{__name__="up", b="bar"}"#));
    check("[{regex: 'a|c', action: labelkeep}]", Some(r#"{a="Foo-1"}"#));
    check("[{source_labels: [a], target_label: c, action: lowercase}]", Some(r#"{…, c="foo-1"}"#));
    check("[{source_labels: [a], target_label: c, action: UPPERCASE}]", Some(r#"{…, c="FOO-1"}"#));
    check("[{regex: , target_label: c, replacement: x}]", Some(r#"{…, c="x"}"#));
}

#[test]
fn letters_change_one_by_one() {
    assert_eq!((uppercase("straße ᾳ ŉ"), lowercase("İΣ")), ("STRAßE ᾼ ŉ".to_owned(), "iσ".to_owned()));
}

#[test]
fn a_set_that_no_rule_changes_is_not_copied() {
    let labels = Labels::from_pairs([("a", "1")]);
    let rules = rules(
        "[{source_labels: [x], regex: y, target_label: a}, {regex: x, action: labeldrop}, {source_labels: [a], target_label: a}]",
    );
    let subject = rules.iter().fold(Subject { labels: labels.clone(), builder: None }, |mut subject, rule| {
        assert!(apply(rule, &mut subject, &mut String::new()));
        subject
    });
    assert!(subject.builder.is_none());
}

#[test]
fn legacy_templates() {
    for good in ["label", "label${1}", "${1}label", "$1", "asd$2asd", "_${1}_", "foo${bar}foo"] {
        assert!(is_legacy_template(good), "{good}");
    }
    for bad in ["", "-label", "1a", "${", "$", "${}", "foo${", "-foo${1}bar-", "bar.foo${1}bar"] {
        assert!(!is_legacy_template(bad), "{bad}");
    }
}

proptest! {
    #[test]
    fn never_panics(
        action in prop::sample::select(ACTIONS.to_vec()),
        regex in "[a-c()|.*$^\\[\\]]{0,6}",
        templates in prop::array::uniform2("[a-c${}0-9]{0,6}"),
        modulus in 0u64..3,
        values in prop::collection::vec(("[a-cé]{0,3}", "[a-cA-Cßİ;]{0,4}"), 0..4),
    ) {
        let Ok(regex) = RelabelRegexp::parse(&regex) else { return Ok(()) };
        let [target_label, replacement] = templates;
        let source_labels = vec!["a".into(), "b".into()];
        let mut rule =
            RelabelConfig { action: action.1, regex, target_label, replacement, modulus, source_labels, ..RelabelConfig::with_defaults() };
        // Rules that validation refuses must not panic either.
        let _ = rule.validate(ValidationScheme::Utf8);
        relabel(Labels::from_pairs(values), &[rule]);
    }
}
