//! `parse_query`, `format_query` and `query_exemplars`: what they say about a query's text.

use serde_json::Value;

use crate::client::{Setup, TestServer};
use crate::support::{conformance_dir, encode};

/// The answers of a Prometheus 3.14.0 server with all of the language switched on.
const ANSWERS: &str = include_str!("syntax.json");

fn endpoint(name: &str, query: &str) -> String {
    format!("/api/v1/{name}?query={}", encode(query))
}

#[test]
fn answers_are_those_of_prometheus() {
    let server = TestServer::start(Setup::default());
    let cases: Vec<Value> = serde_json::from_str(ANSWERS).unwrap();
    let mut differences = Vec::new();
    for case in &cases {
        let query = case["query"].as_str().unwrap();
        let status = u16::try_from(case["status"].as_u64().unwrap()).unwrap();
        for (name, field) in [("parse_query", "parse"), ("format_query", "format"), ("query_exemplars", "exemplars")] {
            let answer = server.get(&endpoint(name, query));
            let wanted = case[field].as_str().unwrap();
            let status = if wanted.is_empty() { 204 } else { status };
            if (answer.text().as_str(), answer.status) != (wanted, status) {
                differences.push(format!(
                    "{name} {query:?}\n  wanted {status} {wanted}\n  got    {} {}",
                    answer.status,
                    answer.text()
                ));
            }
        }
    }
    assert!(cases.len() > 90);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn forms_are_read_and_long_queries_too() {
    let server = TestServer::start(Setup::default());
    let wanted = r#"{"status":"success","data":"a + b"}"#;
    assert_eq!(server.post_form("/api/v1/format_query", "query=a%2Bb").text(), wanted);
    assert_eq!(
        server.get("/api/v1/format_query?query=a%2Bb").header("Vary").as_deref(),
        Some("Accept-Encoding, Origin")
    );
    let one = server.post_form("/api/v1/parse_query", "query=1").text();
    assert_eq!(one, r#"{"status":"success","data":{"type":"numberLiteral","val":"1"}}"#);
    let put = server.request("PUT", "/api/v1/parse_query", &[], "");
    assert_eq!((put.status, put.header("Allow").as_deref()), (405, Some("GET, OPTIONS, POST")));
    // Beyond what is done on the worker's thread, and as deep as queries may be.
    let names: Vec<String> = (0..2_000).map(|n| format!("x=\"{n}\"")).collect();
    let long = format!("query={}", encode(&format!("up{{{}}}", names.join(","))));
    assert_eq!(server.post_form("/api/v1/parse_query", &long).status, 200);
    for (depth, status) in [(490, 200), (100_000, 400)] {
        let deep = format!("query={}1{}", "(".repeat(depth), ")".repeat(depth));
        for name in ["parse_query", "format_query", "query_exemplars"] {
            let answer = server.post_form(&format!("/api/v1/{name}"), &deep);
            let expected = if name == "query_exemplars" && status == 200 { 204 } else { status };
            assert_eq!(answer.status, expected, "{name} {depth}");
        }
    }
}

#[test]
fn exemplars_are_none_between_two_times() {
    let server = TestServer::start(Setup::default());
    let text = |path: &str| server.get(path).text();
    let none = r#"{"status":"success","data":[]}"#;
    assert_eq!(text("/api/v1/query_exemplars?query=up&start=1&end=2"), none);
    assert_eq!(server.post_form("/api/v1/query_exemplars", "query=rate(up[5m])").text(), none);
    let some = text("/api/v1/query_exemplars?query=rate(with_exemplars[5m])%2Bup&start=1&end=2");
    let labels = r#"{"__name__":"up"}"#;
    let exemplars =
        r#"[{"labels":{"trace_id":"a"},"value":"0.5","timestamp":1.500},{"labels":{},"value":"+Inf","timestamp":2}]"#;
    let expected = format!(r#"[{{"seriesLabels":{labels},"exemplars":{exemplars}}}]"#);
    assert_eq!(some, format!(r#"{{"status":"success","data":{expected}}}"#));
    let error = |text: &str| format!(r#"{{"status":"error","errorType":"bad_data","error":"{text}"}}"#);
    let inverted = error("end timestamp must not be before start timestamp");
    assert_eq!(text("/api/v1/query_exemplars?query=up&start=5&end=1"), inverted);
    let unread =
        error(r#"invalid parameter \"end\": invalid time value for 'end': cannot parse \"x\" to a valid timestamp"#);
    assert_eq!(text("/api/v1/query_exemplars?query=up&end=x"), unread);
}

/// Prometheus's own cases, asked over HTTP: what parses, and the first error of what does not.
#[test]
fn cases_of_the_parser_are_answered_over_http() {
    let Some(dir) = conformance_dir() else { return };
    let server = TestServer::start(Setup::default());
    let read =
        |file: &str| -> Vec<Value> { serde_json::from_str(&std::fs::read_to_string(dir.join(file)).unwrap()).unwrap() };
    let ask =
        |name: &str, query: &str| server.post_form(&format!("/api/v1/{name}"), &format!("query={}", encode(query)));
    let mut differences = Vec::new();
    for case in read("promql-parse.json") {
        let query = case["input"].as_str().unwrap();
        // The server under test has fill modifiers, those cases do not; and bytes that are no text do not come over HTTP.
        if query.contains("fill") || query.contains(char::REPLACEMENT_CHARACTER) {
            continue;
        }
        let answer = ask("parse_query", query);
        let error = serde_json::from_slice::<Value>(&answer.body).unwrap()["error"].as_str().unwrap_or("").to_owned();
        let wanted = case["err"].as_str().unwrap_or("");
        let as_wanted = match case["ok"].as_bool().unwrap() {
            true => answer.status == 200,
            // Two texts of the data hold a float as Go prints an integer given to `%f`.
            false => {
                answer.status == 400 && (error.ends_with(&format!("parse error: {wanted}")) || wanted.contains("%!f"))
            }
        };
        if !as_wanted {
            differences.push(format!("{query:?}: wanted {wanted:?}, got {} {error:?}", answer.status));
        }
    }
    for case in read("promql-print.json") {
        let (query, printed) = (case["in"].as_str().unwrap(), case["out"].as_str().unwrap());
        let [before, after] = [query, printed].map(|text| ask("format_query", text));
        if before.status != 200 || before.body != after.body {
            differences.push(format!("{query:?} and {printed:?} are formatted differently: {}", after.text()));
        }
    }
    assert!(differences.is_empty(), "{} differences\n{}", differences.len(), differences.join("\n"));
}
