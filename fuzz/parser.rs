//! Lexer and parser: any text ends in a tree or in errors that lie inside of it; a tree prints as what parses to the same.

use serde_json::Value as Json;
use watchfire::promql::ast::Expr;
use watchfire::promql::parser::{Dialect, ParseOptions};
use watchfire::promql::parser::{parse_expr, parse_metric, parse_metric_selector, parse_series_desc};
use watchfire::promql::printer::{prettify, to_json};

use crate::dice::Dice;
use crate::{corpus, mutate, run};

fn options(dice: &mut Dice) -> ParseOptions {
    if dice.chance(60) {
        return ParseOptions::ALL;
    }
    ParseOptions {
        experimental_functions: dice.chance(50),
        duration_expressions: dice.chance(50),
        extended_range_selectors: dice.chance(50),
        fill_modifiers: dice.chance(50),
        dialect: Dialect::Prometheus,
    }
}

/// The tree as JSON with matchers in one order: they are printed sorted.
fn normal_form(expr: &Expr) -> Json {
    fn sort_matchers(value: &mut Json) {
        match value {
            Json::Array(items) => items.iter_mut().for_each(sort_matchers),
            Json::Object(fields) => {
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

fn check(dice: &mut Dice, text: &str) {
    let options = options(dice);
    match parse_expr(text, &options) {
        Ok(expr) => {
            expr.walk(&mut |node| {
                let range = node.range();
                assert!(range.start <= range.end && text.get(range.start..range.end).is_some(), "{range:?}");
            });
            let printed = expr.to_string();
            let again = parse_expr(&printed, &options);
            let again = again.unwrap_or_else(|error| panic!("prints as {printed:?}: {error}"));
            assert_eq!(again.to_string(), printed);
            assert_eq!(normal_form(&again), normal_form(&expr), "{printed}");
            let pretty = prettify(&expr, 40);
            let again =
                parse_expr(&pretty, &options).unwrap_or_else(|error| panic!("prettifies as {pretty:?}: {error}"));
            assert_eq!(again.to_string(), printed);
        }
        Err(errors) => {
            assert!(!errors.errors().is_empty());
            for error in errors.errors() {
                assert!(error.range.start <= text.len(), "{error:?}");
            }
            assert_eq!(errors.messages().count(), errors.errors().len());
        }
    }
    let _ = parse_metric(text);
    let _ = parse_metric_selector(text);
    let _ = parse_series_desc(text);
}

#[test]
fn parser() {
    let texts = corpus::queries();
    let make = |dice: &mut Dice| {
        let (text, other) = (corpus::pick(dice, &texts), corpus::pick(dice, &texts));
        mutate::mutated(dice, text, other)
    };
    run("parser", 20_000, make, check);
}

#[test]
fn scripts() {
    let texts = corpus::queries();
    let make = |dice: &mut Dice| {
        let line = |dice: &mut Dice| {
            let (text, other) = (corpus::pick(dice, &texts), corpus::pick(dice, &texts));
            let head = dice.pick(&[
                "load 1m\n  ",
                "eval instant at 1m ",
                "eval range from 0 to 1m step 30s ",
                "  ",
                "clear\n",
                "",
            ]);
            format!("{head}{}\n", mutate::mutated(dice, text, other))
        };
        (0..4).map(|_| line(dice)).collect::<String>()
    };
    run("scripts", 1_000, make, |_, text| drop(watchfire::promqltest::Script::parse(text)));
}
