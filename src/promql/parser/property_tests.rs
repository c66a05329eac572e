//! Properties of the parser on generated queries.

use proptest::prelude::*;

use super::*;
use crate::promql::ast::PosRange;
use crate::promql::printer::{prettify, to_json};

/// Pieces that queries are made of, for texts that are nearly queries.
fn fragment() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "foo",
        "a:b",
        "sum",
        "topk",
        "rate",
        "info",
        "by",
        "without",
        "on",
        "ignoring",
        "group_left",
        "group_right",
        "bool",
        "offset",
        "start",
        "end",
        "step",
        "range",
        "max_of",
        "min_of",
        "fill",
        "fill_left",
        "smoothed",
        "anchored",
        "and",
        "or",
        "unless",
        "atan2",
        "stale",
        "inf",
        "NaN",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "{{",
        "}}",
        ",",
        ":",
        "+",
        "-",
        "*",
        "/",
        "%",
        "^",
        "==",
        "=~",
        "!~",
        "!=",
        "=",
        "<",
        ">",
        "</",
        ">/",
        "@",
        "#",
        " ",
        "\n",
        "1",
        "5m",
        "0x1f",
        "1e3",
        "1_0",
        ".5",
        "x3",
        "_",
        "\"a\"",
        "'b'",
        "`c`",
        "\"\\xff\"",
        "\"",
        "\\",
        "é",
        "\u{fffd}",
        "schema:1",
        "buckets:[1 2]",
        "sum:-1",
        "counter_reset_hint:gauge",
    ])
}

fn nearly_a_query() -> impl Strategy<Value = String> {
    prop::collection::vec(fragment(), 0..40).prop_map(|parts| parts.concat())
}

fn any_options() -> impl Strategy<Value = ParseOptions> {
    any::<[bool; 4]>().prop_map(|[functions, durations, ranges, fill]| ParseOptions {
        experimental_functions: functions,
        duration_expressions: durations,
        extended_range_selectors: ranges,
        fill_modifiers: fill,
        dialect: Dialect::Prometheus,
    })
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z_][a-z0-9_]{0,6}".prop_filter("no keyword", |n| crate::promql::lexer::Kind::of_word(n).is_none()),
        prop::sample::select(vec!["by", "sum", "offset", "start", "and"]).prop_map(str::to_owned),
    ]
}

fn label() -> impl Strategy<Value = String> {
    prop_oneof![name(), Just("\"a.b\"".to_owned()), Just("\"é\"".to_owned())]
}

fn labels() -> impl Strategy<Value = String> {
    prop::collection::vec(label(), 0..3).prop_map(|labels| labels.join(", "))
}

fn matcher() -> impl Strategy<Value = String> {
    let op = prop::sample::select(vec!["=", "!=", "=~", "!~"]);
    let value = prop::sample::select(vec!["\"x\"", "'a\"b'", "`a.*|b`", "\"\"", "\"\\u00e9\\n\""]);
    (label(), op, value).prop_map(|(label, op, value)| {
        // Inside braces there are no keywords, and quoted names are labels as well.
        format!("{label}{op}{value}")
    })
}

fn duration() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec!["5m", "90", "1h30m", "0.5", "1d", "2w", "1ms"]).prop_map(str::to_owned);
    known.prop_recursive(3, 12, 2, |inner| {
        prop_oneof![
            (inner.clone(), prop::sample::select(vec!["+", "-", "*", "/", "%", "^"]), inner.clone())
                .prop_map(|(a, op, b)| format!("({a} {op} {b})")),
            (prop::sample::select(vec!["min_of", "max_of"]), inner.clone(), inner.clone())
                .prop_map(|(f, a, b)| format!("{f}({a}, {b})")),
            inner.prop_map(|a| format!("-({a} + step())")),
            Just("range()".to_owned()),
        ]
    })
}

fn modifiers() -> impl Strategy<Value = String> {
    let at = prop::sample::select(vec!["", " @ 12.345", " @ -7", " @ start()", " @ end()"]);
    let offset = prop_oneof![
        Just(String::new()),
        duration().prop_map(|d| format!(" offset ({d})")),
        prop::sample::select(vec![" offset 5m", " offset -1h", " offset step()"]).prop_map(str::to_owned),
    ];
    (at, offset).prop_map(|(at, offset)| format!("{at}{offset}"))
}

fn selector() -> impl Strategy<Value = String> {
    (name(), prop::collection::vec(matcher(), 0..3)).prop_map(|(name, matchers)| match matchers.is_empty() {
        true => name,
        false => format!("{name}{{{}}}", matchers.join(",")),
    })
}

fn vector() -> impl Strategy<Value = String> {
    (selector(), prop::sample::select(vec!["", " anchored", " smoothed"]), modifiers())
        .prop_map(|(selector, extension, modifiers)| format!("{selector}{extension}{modifiers}"))
}

fn matching() -> impl Strategy<Value = String> {
    let group = prop::sample::select(vec!["", " group_left (extra)", " group_right ()"]);
    let fill = prop::sample::select(vec!["", " fill (1)", " fill_left (-2.5)", " fill_left (1) fill_right (2)"]);
    let on = (prop::sample::select(vec![" on ", " ignoring "]), labels(), group)
        .prop_map(|(on, labels, group)| format!("{on}({labels}){group}"));
    (prop_oneof![Just(String::new()), on], fill).prop_map(|(on, fill)| format!("{on}{fill}"))
}

/// Queries that are right, in all the forms of the language; instant vectors.
fn query() -> impl Strategy<Value = String> {
    vector().prop_recursive(5, 40, 3, |inner| {
        let arithmetic =
            prop::sample::select(vec!["+", "-", "*", "/", "%", "^", "atan2", "== bool", "<", ">=", "</", ">/"]);
        prop_oneof![
            (inner.clone(), arithmetic, matching(), inner.clone())
                .prop_map(|(a, op, m, b)| format!("({a}) {op}{m} ({b})")),
            (inner.clone(), prop::sample::select(vec!["and", "or", "unless"]), labels(), inner.clone())
                .prop_map(|(a, op, l, b)| format!("{a} {op} ignoring ({l}) {b}")),
            inner.clone().prop_map(|a| format!("-{a}")),
            inner.clone().prop_map(|a| format!("({a}) * 2.5e-3")),
            (inner.clone(), labels()).prop_map(|(a, l)| format!("sum without ({l}) ({a})")),
            (inner.clone(), labels()).prop_map(|(a, l)| format!("topk by ({l}) (3, {a})")),
            // A colon is only read behind a number.
            (inner.clone(), duration(), modifiers())
                .prop_map(|(a, d, m)| format!("max_over_time(({a})[1s + {d}:]{m})")),
            (selector(), duration(), modifiers()).prop_map(|(s, d, m)| format!("rate({s}[{d}] anchored{m})")),
            inner.prop_map(|a| format!("label_replace({a}, \"x\", \"\\xff$1\", 'y', `.*`)")),
        ]
    })
}

/// The tree without positions, and with matchers in the order in which they are printed.
fn normal_form(expr: &Expr) -> serde_json::Value {
    fn sort_matchers(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Array(items) => items.iter_mut().for_each(sort_matchers),
            serde_json::Value::Object(fields) => {
                for (key, value) in fields.iter_mut() {
                    sort_matchers(value);
                    if let (true, Some(matchers)) = (key == "matchers", value.as_array_mut()) {
                        matchers.sort_by_key(ToString::to_string);
                    }
                }
            }
            _ => {}
        }
    }
    let mut json = to_json(expr);
    sort_matchers(&mut json);
    json
}

fn in_text(range: PosRange, text: &str) -> bool {
    range.start <= range.end && text.get(range.start..range.end).is_some()
}

proptest! {
    #[test]
    fn printed_queries_parse_to_the_same_tree(text in query(), line_len_max in 1usize..120) {
        let expr = parse_expr(&text, &ParseOptions::ALL).map_err(|e| TestCaseError::fail(format!("{text}: {e}")))?;
        let printed = expr.to_string();
        for form in [printed.clone(), prettify(&expr, line_len_max)] {
            let again = parse_expr(&form, &ParseOptions::ALL).map_err(|e| TestCaseError::fail(format!("{form}: {e}")))?;
            prop_assert_eq!(normal_form(&again), normal_form(&expr), "{}", form);
            prop_assert_eq!(again.to_string(), printed.clone());
        }
        expr.walk(&mut |node| assert!(in_text(node.range(), &text), "{text}: {:?}", node.range()));
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in prop_oneof![nearly_a_query(), any::<String>()], options in any_options()) {
        match parse_expr(&text, &options) {
            Ok(expr) => drop((expr.to_string(), prettify(&expr, 20), to_json(&expr))),
            Err(errors) => {
                prop_assert!(!errors.errors().is_empty());
                prop_assert_eq!(errors.messages().count(), errors.errors().len());
            }
        }
        let _ = parse_metric(&text);
        let _ = parse_metric_selector(&text);
        let _ = parse_series_desc(&text);
    }

    #[test]
    fn what_parses_prints_as_something_that_parses(text in nearly_a_query()) {
        if let Ok(expr) = parse_expr(&text, &ParseOptions::ALL) {
            let printed = expr.to_string();
            prop_assert!(parse_expr(&printed, &ParseOptions::ALL).is_ok(), "{text:?} prints as {printed:?}");
        }
    }
}
