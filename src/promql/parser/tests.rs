//! Own cases, for where Prometheus's data is not at hand, and for what it does not cover.

use super::*;
use crate::promql::ast::{AtModifier, BinaryOp, DurationNs, DurationValue};
use crate::promql::printer::{LINE_LEN_MAX, prettify, to_json};

#[track_caller]
fn parse(input: &str) -> Expr {
    parse_expr(input, &ParseOptions::ALL).unwrap_or_else(|errors| panic!("{input}: {errors}"))
}

/// The expression parses, and prints as `printed`.
#[track_caller]
fn check(input: &str, printed: &str) {
    assert_eq!(parse(input).to_string(), printed, "{input}");
}

/// The expression is refused with these faults, each as `start-end message`.
#[track_caller]
fn refused(input: &str, faults: &[&str]) {
    let errors = parse_expr(input, &ParseOptions::ALL).expect_err(input);
    let found: Vec<String> =
        errors.errors().iter().map(|e| format!("{}-{} {}", e.range.start, e.range.end, e.message)).collect();
    assert_eq!(found, faults, "{input}");
}

#[test]
fn operators_bind_as_in_prometheus() {
    check("1 + 2 * 3 ^ 2 ^ 2", "1 + 2 * 3 ^ 2 ^ 2");
    let Expr::Binary(sum) = parse("a - b - c") else { panic!("no operation") };
    assert!(matches!(&sum.lhs, Expr::Binary(_)), "subtraction groups from the left");
    let Expr::Binary(power) = parse("a ^ b ^ c") else { panic!("no operation") };
    assert!(matches!(&power.rhs, Expr::Binary(_)), "powers group from the right");
    let Expr::Unary(minus) = parse("-a ^ 2") else { panic!("no sign") };
    assert!(matches!(&minus.expr, Expr::Binary(_)), "signs bind looser than powers");
    let Expr::Binary(or) = parse("a or b and c == d + e * f") else { panic!("no operation") };
    assert_eq!(or.op, BinaryOp::Or);
}

#[test]
fn keywords_are_names_where_they_can_be() {
    check("offset{by=\"x\"} offset 5m", "offset{by=\"x\"} offset 5m");
    check("sum by (by, on, bool) (sum)", "sum by (by, on, bool) (sum)");
    check("fill + fill_left", "fill + fill_left");
    check("start + end + step + range", "start + end + step + range");
    check("SUM(x) AND y", "sum(x) and y");
}

#[test]
fn utf8_names_are_quoted() {
    check(r#"{"a.b", "c.d"="e"}"#, r#"{"c.d"="e",__name__="a.b"}"#);
    check(r#"sum by ("a.b", c) ({'x y'})"#, r#"sum by ("a.b", c) ({__name__="x y"})"#);
}

#[test]
fn operators_behind_an_offset_belong_to_parenthesised_durations_only() {
    check("foo offset 5m + 3", "foo offset 5m + 3");
    assert!(matches!(parse("foo offset 5m + 3"), Expr::Binary(_)));
    assert!(matches!(parse("foo offset (5m) + 3"), Expr::Vector(_)));
    assert!(matches!(parse("foo offset -(5m) + 3"), Expr::Binary(_)));
    refused("foo offset nan", &["11-14 duration out of range"]);
    check("foo[step() * 2:max_of(1m, range())]", "foo[step() * 2:max_of(1m, range())]");
}

#[test]
fn ranges_cover_modifiers() {
    let text = "rate(foo[5m] @ 1.5 offset -1m)";
    let Expr::Call(call) = parse(text) else { panic!("no call") };
    let Expr::Matrix(matrix) = &call.args[0] else { panic!("no range") };
    assert_eq!(&text[matrix.range.start..matrix.range.end], "foo[5m] @ 1.5 offset -1m");
    assert_eq!(&text[matrix.selector.range.start..matrix.selector.range.end], "foo");
    assert_eq!(matrix.selector.at, Some(AtModifier::Timestamp(1500)));
    assert_eq!(matrix.selector.offset, DurationValue::Literal(DurationNs(-60_000_000_000)));
}

#[test]
fn syntax_errors_name_the_token_read_last() {
    refused("", &["0-0 no expression found in input"]);
    refused("foo bar", &["4-7 unexpected identifier \"bar\""]);
    refused("1 +", &["3-3 unexpected end of input"]);
    refused("sum(foo) by (a b)", &["15-16 unexpected identifier \"b\" in grouping opts, expected \",\" or \")\""]);
    refused("foo{a=1}", &["6-8 unexpected character inside braces: '1'"]);
    refused(
        "foo offset bar",
        &["11-14 unexpected identifier \"bar\" in offset, expected number, duration, step(), or range()"],
    );
    let errors = parse_expr("sum(\n  foo +\n)", &ParseOptions::default()).unwrap_err();
    assert_eq!(errors.to_string(), "3:1: parse error: unexpected \")\" in aggregation");
}

#[test]
fn faulty_parts_do_not_hide_each_other() {
    refused(
        "{a b} + sum(c, d)",
        &[
            "3-4 unexpected identifier \"b\" in label matching, expected label matching operator",
            "8-17 wrong number of arguments for aggregate expression provided, expected 1, got 2",
        ],
    );
}

#[test]
fn types_are_checked() {
    refused("rate(foo)", &["5-8 expected type range vector in call to function \"rate\", got instant vector"]);
    refused("1 == 1", &["2-3 comparisons between scalars must use BOOL modifier"]);
    refused("{}", &["0-2 vector selector must contain at least one non-empty matcher"]);
    refused("topk(\"a\", foo)", &["5-8 expected type scalar in aggregation parameter, got string"]);
    refused("foo[1m] + 1", &["0-7 binary expression must contain only scalar and instant vector types"]);
    refused("info(a, b)", &["8-9 expected label selectors only, got vector selector instead"]);
}

#[test]
fn options_open_the_language() {
    let none = ParseOptions { duration_expressions: false, ..ParseOptions::default() };
    for (input, text) in [
        (
            "limitk(1, foo)",
            "limitk() is experimental and must be enabled with --enable-feature=promql-experimental-functions",
        ),
        ("mad_over_time(foo[1m])", "function \"mad_over_time\" is not enabled"),
        ("foo anchored", "anchored modifier is experimental and not enabled"),
        ("a + fill(0) b", "binop fill modifiers are experimental and not enabled"),
        ("foo[1m + 1m]", "experimental duration expression is not enabled"),
    ] {
        assert_eq!(parse_expr(input, &none).unwrap_err().errors()[0].message, text);
        parse(input);
    }
}

#[test]
fn strings_hold_bytes_but_labels_are_utf8() {
    let Expr::Text(text) = parse(r#""a\xff""#) else { panic!("no string") };
    assert_eq!(
        (text.value.as_slice(), text.as_str(), text.to_display_string().as_str()),
        (&b"a\xff"[..], None, "a\u{fffd}")
    );
    refused(r#"foo{a="\xff"}"#, &[r#"6-12 label names and values must be valid UTF-8: "\xff""#]);
}

#[test]
fn selectors_and_metrics_stand_alone() {
    let matchers = parse_metric_selector(r#"foo{a!~"b|c"}"#).unwrap();
    assert_eq!(matchers.iter().map(ToString::to_string).collect::<Vec<_>>(), [r#"a!~"b|c""#, r#"__name__="foo""#]);
    assert!(parse_metric_selectors(&["{}", "foo offset 1m"]).is_err());
    assert_eq!(parse_metric(r#"foo{b="2",a="1"}"#).unwrap().to_string(), r#"{__name__="foo", a="1", b="2"}"#);
    assert_eq!(parse_metric("").unwrap(), Labels::empty());
    let error = parse_metric(r#"{a="1",a="2"}"#).unwrap_err().to_string();
    assert_eq!(error, "1:8: parse error: label name \"a\" is not unique");
}

#[test]
fn series_descriptions_repeat_and_count() {
    let series = parse_series_desc("foo{a=\"b\"} 1 _ 0+10x2 -1x1 _x2").unwrap();
    let float = |value: &SequenceValue| match value {
        SequenceValue::Float(value) => Some(*value),
        _ => None,
    };
    let values: Vec<Option<f64>> = series.values.iter().map(float).collect();
    assert_eq!(values, [Some(1.), None, Some(0.), Some(10.), Some(20.), Some(-1.), Some(-1.), None, None]);
    let error = parse_series_desc("foo 1x99999999999").unwrap_err().to_string();
    assert_eq!(error, "1:7: parse error: series description stands for more than 4194304 values");
}

/// Runs `parse` where a stack overflow would show.
fn on_a_small_stack(run: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
}

#[test]
fn hostile_nesting_is_refused_without_overflow() {
    on_a_small_stack(|| {
        let too_deep = format!("expression is nested more than {DEPTH_MAX} levels deep");
        let many = 100_000;
        for (part, end) in [
            ("(", ""),
            ("-", "x"),
            ("-", "1"),
            ("abs(", ""),
            ("sum(", ""),
            ("sum by (a) (", ""),
            ("x ^ ", "x"),
            ("x + ", "x"),
            ("x or ", "x"),
            ("1 + ", "1"),
            ("x * on (a) group_left (", ""),
            ("x[", ""),
            ("{", ""),
            ("x and -", "x"),
        ] {
            let errors = parse_expr(&(part.repeat(many) + end), &ParseOptions::ALL).unwrap_err();
            let expected =
                matches!(part, "x[" | "{" | "x * on (a) group_left (") || errors.to_string().contains(&too_deep);
            assert!(expected, "{part}: {errors}");
        }
        for (part, end) in
            [("(", "1m)]"), ("-(", "1m)]"), ("1 + ", "1]"), ("2 ^ ", "1]"), ("min_of(1, ", "1)]"), ("-", "1]")]
        {
            let errors = parse_expr(&("x[".to_owned() + &part.repeat(many) + end), &ParseOptions::ALL).unwrap_err();
            assert!(errors.errors().iter().any(|e| e.message == too_deep), "{part}: {errors}");
        }
        // A chain of faulty parts is no tree.
        let chain = "{} - ".repeat(many) + "{}" + &"[1m:]".repeat(1000);
        assert!(parse_expr(&chain, &ParseOptions::ALL).unwrap_err().errors().len() > 10_000);
    });
}

#[test]
fn trees_of_the_greatest_height_are_usable() {
    on_a_small_stack(|| {
        let levels = DEPTH_MAX - 2;
        for query in [
            "(".repeat(levels) + "x" + &")".repeat(levels),
            "-".repeat(levels) + "x",
            "abs(".repeat(levels) + "x" + &")".repeat(levels),
            "sum(".repeat(levels) + "x" + &")".repeat(levels),
            "x + ".repeat(levels) + "x",
            "x ^ ".repeat(levels) + "x",
            "last_over_time(".repeat(levels / 2) + "x" + &"[1m:])".repeat(levels / 2),
        ] {
            let expr = parse(&query);
            assert_eq!(parse(&expr.to_string()).to_string(), expr.to_string());
            assert_eq!(parse(&prettify(&expr, LINE_LEN_MAX)).to_string(), expr.to_string());
            drop(to_json(&expr));
            drop(expr.clone());
            assert!(!expr.selectors().is_empty());
        }
    });
}
