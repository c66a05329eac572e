//! Prometheus's own cases of templates in text mode.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a failing step is a failing test, and skips are told")]

mod support;

use serde_json::Value as Json;
use watchfire::model::external_url::ExternalUrl;
use watchfire::model::histogram::FloatHistogram;
use watchfire::model::labels::Labels;
use watchfire::model::time::TimestampMs;
use watchfire::template::{ListKind, MissingKey, Surroundings, Value, expand};

fn histogram(json: &Json) -> Value {
    let number = |key: &str| json[key].as_f64().unwrap();
    Value::histogram(&FloatHistogram { count: number("count"), sum: number("sum"), ..FloatHistogram::default() })
}

fn sample(json: &Json) -> Value {
    let labels = match json["metric"].as_object() {
        Some(metric) => Labels::from_pairs(metric.iter().map(|(name, value)| (name, value.as_str().unwrap()))),
        None => Labels::empty(),
    };
    let value = match json.get("histogram") {
        Some(inner) => histogram(inner),
        None => Value::Float(json["value"].as_f64().unwrap()),
    };
    Value::sample(&labels, value)
}

fn input(json: &Json) -> Value {
    match json {
        Json::Null => Value::Nil,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(int), _) => Value::Int(int),
            (None, Some(uint)) => Value::Uint(uint),
            (None, None) => Value::Float(number.as_f64().unwrap()),
        },
        Json::String(text) => Value::text(text.as_str()),
        Json::Array(items) => Value::list(ListKind::Any, items.iter().map(input).collect()),
        // The only object is an element that a query could have given.
        Json::Object(fields) => Value::sample(&Labels::empty(), histogram(&fields["Value"])),
    }
}

fn run(case: &Json) -> Result<String, String> {
    let url =
        ExternalUrl { scheme: "http".to_owned(), host: "testhost:9090".to_owned(), path: "/path/prefix".to_owned() };
    let query = |_: &str| Ok(case["query_result"].as_array().unwrap().iter().map(sample).collect());
    let surroundings = Surroundings { external_url: &url, at: TimestampMs(1_353_755_652_000), query: &query };
    let missing_key = match case["options"].as_array() {
        None => MissingKey::Zero,
        Some(options) if options.is_empty() => MissingKey::Invalid,
        Some(options) => {
            assert_eq!(options[0], "missingkey=error");
            MissingKey::Error
        }
    };
    // Without an input, Go's test has nil; a missing field of it is nothing.
    let data = case.get("input").map_or(Value::Nil, input);
    expand("test", case["text"].as_str().unwrap(), &data, missing_key, &surroundings).map_err(|error| error.to_string())
}

#[test]
fn texts_expand_as_in_prometheus() {
    let Some(dir) = support::conformance_dir() else {
        println!("skipped: no conformance data on this machine");
        return;
    };
    let cases: Vec<Json> = serde_json::from_slice(&std::fs::read(dir.join("template.json")).unwrap()).unwrap();
    let (html, text): (Vec<&Json>, Vec<&Json>) = cases.iter().partition(|case| case["html"] == true);
    println!("{} cases of HTML are left out", html.len());
    let mut failures = Vec::new();
    for case in &text {
        let expected = match case["should_fail"].as_bool().unwrap() {
            true => Err(case["error"].as_str().unwrap().to_owned()),
            false => Ok(case["output"].as_str().unwrap().to_owned()),
        };
        let got = run(case);
        if got != expected {
            failures.push(format!("{}\n    expected {expected:?}\n    got      {got:?}", case["text"]));
        }
    }
    assert!(
        70 < text.len() && failures.is_empty(),
        "{} of {} fail:\n{}",
        failures.len(),
        text.len(),
        failures.join("\n")
    );
}
