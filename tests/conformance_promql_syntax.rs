//! Prometheus's own cases for the PromQL front end: trees, error texts and positions, printed forms, series descriptions.
//! Each failing case is one line of output. Own cases sit beside the code; without the data these tests do nothing.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on panics, and tells what it skipped"
)]

mod promql_syntax;
mod support;

use promql_syntax::{histogram_json, reference_json, simplified};
use serde_json::{Value, json};
use watchfire::promql::parser::{
    ParseError, ParseOptions, SequenceValue, SeriesDescription, parse_expr, parse_series_desc,
};
use watchfire::promql::printer::prettify;

/// Reads a file of cases, or prints that there is none.
fn cases(file: &str) -> Vec<Value> {
    let Some(dir) = support::conformance_dir() else {
        println!("no conformance data: {file} is skipped");
        return Vec::new();
    };
    let text = std::fs::read_to_string(dir.join(file)).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    // All of them, as the data's own description counts them.
    let wanted = match file {
        "promql-parse.json" => 356,
        "promql-print.json" => 92,
        "promql-pretty.json" => 62,
        "promql-series-desc.json" => 54,
        other => panic!("nobody has counted {other}"),
    };
    assert_eq!(cases.len(), wanted, "{file}");
    cases
}

/// Runs `check` on each case; it returns what is wrong.
fn run(file: &str, check: impl Fn(&Value) -> Result<(), String>) {
    let failures: Vec<String> = cases(file)
        .iter()
        .enumerate()
        .filter_map(|(index, case)| check(case).err().map(|problem| format!("{file} {index}: {problem}")))
        .collect();
    assert!(failures.is_empty(), "{} failing cases\n{}", failures.len(), failures.join("\n"));
}

fn expect_equal(input: &str, what: &str, found: &Value, wanted: &Value) -> Result<(), String> {
    if found == wanted {
        return Ok(());
    }
    Err(format!("{} {what}: found {found}, wanted {wanted}", json!(input)))
}

/// The options of Prometheus's parser tests: all but fill modifiers.
fn parse_test_options() -> ParseOptions {
    ParseOptions { fill_modifiers: false, ..ParseOptions::ALL }
}

#[test]
fn expressions_parse_as_in_prometheus() {
    run("promql-parse.json", |case| {
        let input = &repaired(case["input"].as_str().unwrap());
        match (parse_expr(input, &parse_test_options()), case["ok"].as_bool().unwrap()) {
            (Ok(expr), true) => {
                let wanted = simplified(&case["ast"]);
                expect_equal(input, "tree", &simplified(&reference_json(&expr)), &wanted)
            }
            (Err(errors), false) => {
                let first = json!(errors.errors()[0].message);
                expect_equal(input, "first error", &first, &json!(repaired(case["err"].as_str().unwrap())))?;
                let wanted: Value = case["errors"].as_array().unwrap().iter().map(repaired_error).collect();
                let found: Value = errors.errors().iter().map(|error| error_json(input, error)).collect();
                expect_equal(input, "errors", &found, &wanted)
            }
            (Ok(expr), false) => Err(format!("{} parses as {expr}, wanted {}", json!(input), case["err"])),
            (Err(errors), true) => Err(format!("{} is refused: {errors}", json!(input))),
        }
    });
}

/// The data holds two floats as Go prints an integer that was given to `%f`: `%!f(int64=9223372036854775807)`.
fn repaired(text: &str) -> String {
    let Some((before, rest)) = text.split_once("%!f(int64=") else { return text.to_owned() };
    let (number, after) = rest.split_once(')').unwrap();
    format!("{before}{:.6}{after}", number.parse::<f64>().unwrap())
}

fn repaired_error(error: &Value) -> Value {
    json!({ "start": error["start"], "end": error["end"], "msg": repaired(error["msg"].as_str().unwrap()) })
}

/// An error in the form of the data, whose positions count each byte that is not UTF-8 as one; its texts show those as
/// U+FFFD, of three bytes.
fn error_json(input: &str, error: &ParseError) -> Value {
    let position = |byte: usize| byte - 2 * input[..byte].matches(char::REPLACEMENT_CHARACTER).count();
    json!({ "start": position(error.range.start), "end": position(error.range.end), "msg": error.message })
}

#[test]
fn expressions_print_as_in_prometheus() {
    run("promql-print.json", |case| {
        let input = case["in"].as_str().unwrap();
        let expr = parse_expr(input, &ParseOptions::ALL).map_err(|errors| format!("{}: {errors}", json!(input)))?;
        expect_equal(input, "text", &json!(expr.to_string()), &case["out"])
    });
}

#[test]
fn expressions_are_formatted_as_in_prometheus() {
    run("promql-pretty.json", |case| {
        let input = case["in"].as_str().unwrap();
        let line_len_max = usize::try_from(case["max_line"].as_u64().unwrap()).unwrap();
        let expr = parse_expr(input, &ParseOptions::ALL).map_err(|errors| format!("{}: {errors}", json!(input)))?;
        expect_equal(input, "text", &json!(prettify(&expr, line_len_max)), &case["out"])
    });
}

#[test]
fn series_descriptions_are_read_as_in_prometheus() {
    run("promql-series-desc.json", |case| {
        let input = case["input"].as_str().unwrap();
        match (parse_series_desc(input), case["ok"].as_bool().unwrap()) {
            (Ok(series), true) => check_series(input, &series, case),
            (Err(errors), false) => match case["err"].as_str() {
                Some(wanted) if !errors.to_string().ends_with(wanted) => {
                    Err(format!("{} error: found {errors}, wanted {wanted}", json!(input)))
                }
                _ => Ok(()),
            },
            (Ok(_), false) => Err(format!("{} is read, wanted {}", json!(input), case["err"])),
            (Err(errors), true) => Err(format!("{} is refused: {errors}", json!(input))),
        }
    });
}

fn check_series(input: &str, series: &SeriesDescription, case: &Value) -> Result<(), String> {
    if let Some(metric) = case.get("metric") {
        let labels: serde_json::Map<String, Value> =
            series.labels.iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
        expect_equal(input, "labels", &Value::Object(labels), metric)?;
    }
    if let Some(values) = case.get("values") {
        let wanted: Vec<Option<f64>> = values.as_array().unwrap().iter().map(wanted_value).collect();
        let found: Vec<Option<f64>> = series.values.iter().map(found_value).collect();
        if found != wanted {
            return Err(format!("{} values: found {found:?}, wanted {wanted:?}", json!(input)));
        }
    }
    if let Some(histograms) = case.get("histograms") {
        let histogram = |value: &SequenceValue| match value {
            SequenceValue::Histogram { histogram, .. } => simplified(&histogram_json(histogram)),
            other => panic!("{input}: {other:?} is no histogram"),
        };
        let found: Value = series.values.iter().map(histogram).collect();
        // A histogram without any field is an empty list in the data.
        let histogram = |value: &Value| if *value == json!([]) { json!({}) } else { simplified(value) };
        let wanted: Value = histograms.as_array().unwrap().iter().map(histogram).collect();
        expect_equal(input, "histograms", &found, &wanted)?;
    }
    Ok(())
}

/// A number, or `None` for a gap.
fn wanted_value(value: &Value) -> Option<f64> {
    match value {
        Value::Object(fields) if fields["Omitted"] == json!(true) => None,
        Value::Object(fields) => fields["Value"].as_f64(),
        other => other.as_f64(),
    }
}

fn found_value(value: &SequenceValue) -> Option<f64> {
    match value {
        SequenceValue::Float(value) => Some(*value),
        SequenceValue::Omitted => None,
        SequenceValue::Histogram { .. } => Some(f64::NAN),
    }
}
