//! Cases of our own, with the outcomes of Go's `text/template` under Prometheus's and Alertmanager's functions, and
//! templates made of random pieces.

#![allow(clippy::unwrap_used, reason = "a failing step is a failing test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::Value as Json;
use watchfire::model::alert::Alert;
use watchfire::model::external_url::ExternalUrl;
use watchfire::model::labels::Labels;
use watchfire::model::time::TimestampMs;
use watchfire::template::notification::{NotificationData, expand_notification};
use watchfire::template::{
    AlertData, Environment, ListKind, MapKind, MissingKey, OUTPUT_LEN_MAX, QueriedSample, Surroundings, Time, Value,
    check, expand, expand_alert,
};

fn cases(file: &str) -> Vec<Json> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/template").join(file);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn external_url() -> ExternalUrl {
    ExternalUrl { scheme: "http".to_owned(), host: "prom.example:9090".to_owned(), path: "/base".to_owned() }
}

const NOW: TimestampMs = TimestampMs(1_700_000_000_123);

fn queried(expr: &str) -> Result<Vec<QueriedSample>, String> {
    let sample = |labels: &[(&str, &str)], value| QueriedSample {
        labels: Labels::from_pairs(labels.iter().copied().chain([("__name__", "up")])),
        value,
    };
    match expr {
        "fail" => Err("query failed".to_owned()),
        "none" => Ok(Vec::new()),
        _ => Ok(vec![
            sample(&[("instance", "b:9100"), ("job", "node"), ("__value__", "v1")], 21.5),
            sample(&[("instance", "a:9100"), ("job", "node")], 11.0),
            sample(&[("instance", "a:9200"), ("job", "db")], 0.0),
        ]),
    }
}

fn map(entries: Vec<(&str, Value)>) -> Value {
    let entries: BTreeMap<Arc<str>, Value> =
        entries.into_iter().map(|(name, value)| (Arc::from(name), value)).collect();
    Value::map(MapKind::Any, entries)
}

/// One value of each kind.
fn values() -> Value {
    let deep = map(vec![("k", Value::text("v"))]);
    let list = vec![Value::Int(1), Value::text("two"), Value::Float(3.5), Value::Nil];
    map(vec![
        ("i", Value::Int(42)),
        ("neg", Value::Int(-7)),
        ("f", Value::Float(1.5)),
        ("big", Value::Float(1_234_567.0)),
        ("s", Value::text("héllo <b>")),
        ("b", Value::Bool(true)),
        ("no", Value::Bool(false)),
        ("n", Value::NilInterface),
        ("list", Value::list(ListKind::Any, list)),
        ("empty", Value::list(ListKind::Any, Vec::new())),
        ("strings", Value::strings(ListKind::Strings, ["a", "b", "c"])),
        ("map", map(vec![("x", Value::Int(1)), ("y", Value::text("z")), ("deep", deep)])),
        ("labels", Value::labels(MapKind::Strings, &Labels::from_pairs([("b", "2"), ("a", "1")]))),
        ("es", Value::text("")),
        ("d", Value::Duration(90_500_000_000)),
        ("t", Value::Time(Time::from_unix_nanos(1_678_000_089_123_456_789))),
        ("u", Value::Uint(u64::MAX)),
        ("zero", Value::Int(0)),
    ])
}

fn expand_values(text: &str, missing_key: MissingKey) -> Result<String, String> {
    let url = external_url();
    let query = |expr: &str| {
        let samples = queried(expr)?;
        Ok(samples.iter().map(|sample| Value::sample(&sample.labels, Value::Float(sample.value))).collect())
    };
    let surroundings = Surroundings { external_url: &url, at: NOW, query: &query };
    expand("case", text, &values(), missing_key, &surroundings).map_err(|error| error.to_string())
}

fn expand_alert_case(text: &str) -> Result<String, String> {
    let labels = Labels::from_pairs([
        ("alertname", "HighLoad"),
        ("instance", "web-1.example.com:9100"),
        ("job", "node"),
        ("severity", "page"),
    ]);
    let external_labels = Labels::from_pairs([("cluster", "eu-1")]);
    let data = AlertData { labels: &labels, external_labels: &external_labels, value: 1234.5678 };
    let url = external_url();
    let environment = Environment { external_url: &url, at: NOW, query: &queried };
    expand_alert("case", text, &data, &environment).map_err(|error| error.to_string())
}

fn notification() -> Value {
    let start = 1_700_000_000_000;
    let alert = |labels: &[(&str, &str)], summary: &str, starts_at, ends_at, url: &str| Alert {
        labels: Labels::from_pairs(labels.iter().copied()),
        annotations: Labels::from_pairs([("summary", summary)]),
        starts_at: TimestampMs(starts_at),
        ends_at: TimestampMs(ends_at),
        generator_url: url.to_owned(),
    };
    let firing = [("alertname", "Down"), ("instance", "a"), ("job", "node"), ("sev", "page")];
    let resolved = [("alertname", "Down"), ("instance", "b"), ("job", "node")];
    let alerts = [
        alert(&firing, "a is down", start, start + 3_600_000, "http://p/graph?g0.expr=up&g0.tab=1"),
        alert(&resolved, "b is down", start - 3_600_000, start - 60_000, "http://p/g"),
    ];
    let route_labels = Labels::from_pairs([
        ("team", "ops"),
        ("oncall", "{{ .Status }}-{{ routeLabels \"team\" }}"),
        ("x", "{{ routeLabels \"y\" }}"),
        ("y", "{{ routeLabels \"x\" }}"),
    ]);
    NotificationData {
        receiver: "team.a",
        alerts: &alerts,
        now: TimestampMs(start),
        reason: "group changed",
        group_labels: &Labels::from_pairs([("alertname", "Down")]),
        route_labels: &route_labels,
        external_url: "http://am:9093",
    }
    .value()
}

fn run(case: &Json) -> Result<String, String> {
    let text = case["text"].as_str().unwrap();
    match case["data"].as_str().unwrap() {
        "alert" => expand_alert_case(text),
        "notification" => expand_notification(text, &notification(), NOW).map_err(|error| error.to_string()),
        _ => expand_values(
            text,
            match case["option"].as_str() {
                None => MissingKey::Zero,
                Some("none") => MissingKey::Invalid,
                Some(_) => MissingKey::Error,
            },
        ),
    }
}

fn check_all(file: &str) {
    let cases = cases(file);
    let mut failures = Vec::new();
    for case in &cases {
        let expected = match case["output"].as_str() {
            Some(output) => Ok(output.to_owned()),
            None => Err(case["error"].as_str().unwrap().to_owned()),
        };
        let got = run(case);
        if got != expected {
            failures.push(format!("{}\n    expected {expected:?}\n    got      {got:?}", case["text"]));
        }
    }
    assert!(failures.is_empty(), "{} of {} fail:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

#[test]
fn expands_as_go_with_prometheus_functions() {
    check_all("prometheus.json");
}

#[test]
fn expands_as_go_with_alertmanager_functions() {
    check_all("alertmanager.json");
}

/// Templates of random parts, kept with what Go made of them.
#[test]
fn expands_random_templates_as_go() {
    check_all("random.json");
}

#[track_caller]
fn fails_with(text: &str, expected: &str) {
    let error = expand_values(text, MissingKey::Zero).unwrap_err();
    assert!(error.contains(expected), "{text:.80}: {error:.300}");
}

#[test]
fn nothing_grows_without_bound() {
    let doubling = "{{$x := \"0123456789\"}}{{range 40}}{{$x = print $x $x}}{{end}}";
    fails_with(doubling, "text exceeds the limit of 1048576 bytes");
    fails_with("{{range 1000000000}}x{{end}}", "exceeded the limit of 2000000 steps");
    fails_with(
        "{{range 20000}}0123456789012345678901234567890123456789012345678901234567890123456789{{end}}",
        "output exceeds the limit of 1048576 bytes",
    );
    fails_with("{{printf \"%1000000d%1000000d\" 1 2}}", "text exceeds the limit");
    fails_with(
        "{{range 20}}{{range 20}}{{range 20}}{{range 20}}{{query \"up\"}}{{end}}{{end}}{{end}}{{end}}",
        "exceeded the limit",
    );
    fails_with("{{define \"r\"}}{{template \"r\" .}}{{end}}{{template \"r\" .}}", "exceeded maximum template depth");
    fails_with("{{$l := args}}{{range 1000}}{{$l = args $l}}{{end}}", "nested more than 100 levels deep");
    fails_with(
        &format!("{}1{}", "{{".to_owned() + &"(".repeat(5000), ")".repeat(5000) + "}}"),
        "max expression depth exceeded",
    );
    fails_with(&"{{if true}}".repeat(5000), "max expression depth exceeded");
    fails_with("{{reReplaceAll \"\" (printf \"%500000d\" 1) (printf \"%500000d\" 1)}}", "replacement may exceed");
    let deepest = format!("{{{{{}1{}}}}}", "(".repeat(100), ")".repeat(100));
    assert_eq!(expand_values(&deepest, MissingKey::Zero).as_deref(), Ok("1"));
    let deepest = format!("{}x{}", "{{if true}}".repeat(100), "{{end}}".repeat(100));
    assert_eq!(expand_values(&deepest, MissingKey::Zero).as_deref(), Ok("x"));
}

#[test]
fn templates_reach_nothing_outside() {
    for name in [
        "readFile",
        "file",
        "files",
        "glob",
        "env",
        "getenv",
        "expandenv",
        "include",
        "exec",
        "shell",
        "open",
        "http",
        "get",
        "lookup",
        "secret",
        "config",
        "import",
        "parseFiles",
        "osDir",
        "getHostByName",
    ] {
        fails_with(&format!("{{{{ {name} \"/etc/passwd\" }}}}"), &format!("function \"{name}\" not defined"));
    }
    for name in ["/etc/passwd", "../prometheus.yml", "__alert_x/../y"] {
        fails_with(&format!("{{{{ template \"{name}\" }}}}"), "not defined");
    }
    // What looks like a way out is a field that is not there.
    for text in ["{{ .Env }}", "{{ $.Config }}", "{{ .strings.Open }}"] {
        let given = expand_values(text, MissingKey::Zero);
        assert!(given.as_ref().map_or(true, |text| !text.contains('/')), "{text}: {given:?}");
    }
}

/// Templates that nest as deeply as they may, in ways that take much of the stack.
fn deep_templates() -> Vec<String> {
    let parens = format!("{}.{}", "(args ".repeat(99), ").arg0".repeat(99));
    let chains = format!("{}.s{}", "(".repeat(99), ")".repeat(99));
    let recursion = |inner: &str| {
        format!(
            "{{{{define \"r\"}}}}{{{{if true}}}}{{{{with .}}}}{{{{range $i, $e := $.strings}}}}{{{{{inner}}}}}\
             {{{{template \"r\" $}}}}{{{{end}}}}{{{{end}}}}{{{{end}}}}{{{{end}}}}{{{{template \"r\" .}}}}"
        )
    };
    let if_chain = format!("{}{}", "{{if $.no}}{{else if $.no}}{{else}}".repeat(49), "{{end}}".repeat(49));
    vec![
        format!("{{{{{parens}}}}}"),
        format!("{{{{{chains} | len | print}}}}"),
        recursion(&parens),
        recursion(&chains),
        if_chain,
        format!(
            "{{{{define \"r\"}}}}{}{{{{template \"r\" .}}}}{}{{{{end}}}}{{{{template \"r\" .}}}}",
            "{{with .}}".repeat(90),
            "{{end}}".repeat(90)
        ),
    ]
}

#[test]
fn the_deepest_templates_fit_half_a_stack() {
    let run = || {
        for text in deep_templates() {
            let _ = expand_values(&text, MissingKey::Zero);
            let _ = expand_notification(&text, &notification(), NOW);
        }
    };
    std::thread::Builder::new().stack_size(1 << 20).spawn(run).unwrap().join().unwrap();
}

#[test]
fn checks_find_what_does_not_parse() {
    let definitions = "{{$labels := .Labels}}{{$value := .Value}}";
    assert_eq!(check("__alert_A", &format!("{definitions}{{{{ $labels.job }}}}")), Ok(()));
    let error = check("__alert_A", &format!("{definitions}{{{{ $label.job }}}}")).unwrap_err();
    assert_eq!(error.to_string(), "template: __alert_A:1: undefined variable \"$label\"");
}

fn piece() -> impl Strategy<Value = String> {
    let fixed = proptest::sample::select(vec![
        "{{",
        "}}",
        "{{- ",
        " -}}",
        " ",
        "\n",
        "(",
        ")",
        "|",
        ".",
        "$",
        "$x",
        ":=",
        "=",
        ",",
        "1",
        "-1",
        "1.5",
        "0x1f",
        "'a'",
        "\"%d %s %v\"",
        "\"a\"",
        "`b`",
        "nil",
        "true",
        ".list",
        ".map",
        ".map.x",
        ".strings",
        ".d",
        ".t",
        ".s",
        ".missing",
        "if ",
        "else",
        "{{else}}",
        "{{end}}",
        "range ",
        "with ",
        "{{range .list}}",
        "{{if .b}}",
        "{{with .map}}",
        "{{break}}",
        "{{define \"t\"}}",
        "{{template \"t\" .}}",
        "{{block \"u\" .}}",
        "{{range $i, $e := .list}}",
        "printf ",
        "print ",
        "len ",
        "index ",
        "slice ",
        "eq ",
        "lt ",
        "and ",
        "or ",
        "not ",
        "call ",
        "html ",
        "query ",
        "first ",
        "humanize ",
        "toTime ",
        "args ",
        "title ",
        "match ",
        "reReplaceAll ",
        ".Format ",
        "{{/* c */}}",
        "{{$x := 1}}",
        "{{.}}",
        "é",
        "\"",
    ]);
    prop_oneof![9 => fixed.prop_map(str::to_owned), 1 => ".{0,3}"]
}

proptest! {
    #[test]
    fn pieces_in_any_order_do_no_harm(pieces in proptest::collection::vec(piece(), 0..40)) {
        let text = pieces.concat();
        if let Ok(output) = expand_values(&text, MissingKey::Zero) {
            prop_assert!(output.len() <= OUTPUT_LEN_MAX);
        }
        let _ = expand_notification(&text, &notification(), NOW);
    }

    #[test]
    fn formats_of_any_kind_do_no_harm(
        format in "(%[-+# 0]{0,3}[0-9]{0,3}(\\.[0-9]{0,3})?(\\[[0-9]\\])?[*a-zA-Z%]?|.){0,6}",
        number: f64,
        integer: i64,
        text in ".{0,10}",
    ) {
        let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"));
        let arguments = format!("{number:e} {integer} {}", quoted(&text));
        let _ = expand_values(&format!("{{{{printf {} {arguments}}}}}", quoted(&format)), MissingKey::Zero);
    }
}
