//! `promtool query instant|range|series|labels`, and `check healthy` and `check ready`: what a running server says.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::Value;

use super::server::{HTTP_CONFIG, Server, http_config};
use super::tsdb::finish;
use super::{Command, ENABLE_FEATURE, EXPERIMENTAL, Given, OWN, flag, refuse};
use crate::cli::EXIT_FAILURE;
use crate::cli::flag_parser::Values;
use crate::cli::flag_spec::{FlagSpec, Kind};
use crate::config::http_client::HttpClientConfig;
use crate::model::clock::SystemClock;
use crate::model::go::{self, format_float_f};
use crate::model::{go_number, go_time};

/// How long a query may take.
pub(super) const HTTP_QUERY_WITHIN: Duration = Duration::from_secs(120);
/// How long a check may take.
const CHECK_WITHIN: Duration = Duration::from_secs(10);
/// How far from now series are looked for unless it is said, in nanoseconds.
const FAR_NS: i64 = 9_999 * 3_600 * 1_000_000_000;

const FORMAT: FlagSpec = flag("format", Kind::Word(&["promql", "json"]), "promql", OWN, "Output format of the query.");
const HEADER: FlagSpec = flag("header", Kind::List, "", OWN, "Extra headers to send to server.");
const MATCH: FlagSpec = flag("match", Kind::List, "", OWN, "Series selector. Can be specified multiple times.");
const START: FlagSpec = flag("start", Kind::Text, "", OWN, "Start time (RFC3339 or Unix timestamp).");
const END: FlagSpec = flag("end", Kind::Text, "", OWN, "End time (RFC3339 or Unix timestamp).");
const TIME: FlagSpec = flag("time", Kind::Text, "", OWN, "Query evaluation time (RFC3339 or Unix timestamp).");
const STEP: FlagSpec = flag("step", Kind::GoDuration, "0s", OWN, "Query step size (duration).");
const URL: FlagSpec = flag("url", Kind::Text, "http://localhost:9090", OWN, "The URL for the Prometheus server.");

static INSTANT_FLAGS: [FlagSpec; 6] = [EXPERIMENTAL, ENABLE_FEATURE, HTTP_CONFIG, FORMAT, TIME, HEADER];
static RANGE_FLAGS: [FlagSpec; 8] = [EXPERIMENTAL, ENABLE_FEATURE, HTTP_CONFIG, FORMAT, START, END, STEP, HEADER];
static LISTING_FLAGS: [FlagSpec; 7] = [EXPERIMENTAL, ENABLE_FEATURE, HTTP_CONFIG, FORMAT, START, END, MATCH];
static CHECK_FLAGS: [FlagSpec; 4] = [EXPERIMENTAL, ENABLE_FEATURE, HTTP_CONFIG, URL];

pub(super) static INSTANT: Command = Command {
    path: &["query", "instant"],
    words: "<server> <expr>",
    summary: "Run instant query.",
    flags: &INSTANT_FLAGS,
    run: |given| with_words(given, ["server", "expr"], instant),
};
pub(super) static RANGE: Command = Command {
    path: &["query", "range"],
    words: "<server> <expr>",
    summary: "Run range query.",
    flags: &RANGE_FLAGS,
    run: |given| with_words(given, ["server", "expr"], range),
};
pub(super) static SERIES: Command = Command {
    path: &["query", "series"],
    words: "<server>",
    summary: "Run series query.",
    flags: &LISTING_FLAGS,
    run: |given| match given.values.list("match") {
        [] => refuse("required flag(s) '--match' not provided"),
        _ => with_words(given, ["server"], series),
    },
};
pub(super) static LABELS: Command = Command {
    path: &["query", "labels"],
    words: "<server> <name>",
    summary: "Run labels query.",
    flags: &LISTING_FLAGS,
    run: |given| with_words(given, ["server", "name"], labels),
};
pub(super) static HEALTHY: Command = Command {
    path: &["check", "healthy"],
    words: "",
    summary: "Check if the Prometheus server is healthy.",
    flags: &CHECK_FLAGS,
    run: |given| check(given, "healthy"),
};
pub(super) static READY: Command = Command {
    path: &["check", "ready"],
    words: "",
    summary: "Check if the Prometheus server is ready.",
    flags: &CHECK_FLAGS,
    run: |given| check(given, "ready"),
};

fn with_words<const N: usize>(
    given: &Given,
    names: [&str; N],
    run: impl Fn(&Asked<'_>, [&str; N]) -> Result<String, String>,
) -> u8 {
    if let Some(more) = given.words.get(N) {
        return refuse(&format!("unexpected {more}"));
    }
    if let Some(missing) = names.get(given.words.len()) {
        return refuse(&format!("required argument '{missing}' not provided"));
    }
    let config = match http_config(given) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let mut words = given.words.iter();
    finish(run(&Asked { values: &given.values, config }, names.map(|_| words.next().map_or("", String::as_str))))
}

/// Flags, and how to ask.
struct Asked<'a> {
    values: &'a Values,
    config: Option<HttpClientConfig>,
}

fn server(given: &Asked<'_>, url: &str, headers: &[String]) -> Result<Server, String> {
    Server::new(url, headers, HTTP_QUERY_WITHIN, given.config.as_ref())
        .map_err(|error| format!("error creating API client: {error}"))
}

fn failed(error: String) -> String {
    format!("query error: {error}")
}

fn instant(given: &Asked<'_>, [url, expr]: [&str; 2]) -> Result<String, String> {
    let server = server(given, url, given.values.list("header"))?;
    let at = time_or(given.values.text("time"), "evaluation", now_ns())?;
    let form = [("query", expr.to_owned()), ("time", seconds(at))];
    let data = server.data(&["api", "v1", "query"], &form).map_err(failed)?;
    Ok(shown(given, &data["result"], || value(&data)))
}

fn range(given: &Asked<'_>, [url, expr]: [&str; 2]) -> Result<String, String> {
    let server = server(given, url, given.values.list("header"))?;
    let end = time_or(given.values.text("end"), "end", now_ns())?;
    let start = time_or(given.values.text("start"), "start", end.saturating_sub(300_000_000_000))?;
    if end <= start {
        return Err("start time is not before end time".to_owned());
    }
    let step = match given.values.go_duration("step").as_secs_f64() {
        0.0 => ((end - start) as f64 / 1e9 / 250.0).floor().max(1.0),
        step => step,
    };
    let form =
        [("query", expr.to_owned()), ("start", seconds(start)), ("end", seconds(end)), ("step", format_float_f(step))];
    let data = server.data(&["api", "v1", "query_range"], &form).map_err(failed)?;
    Ok(shown(given, &data["result"], || value(&data)))
}

/// Parameters that series and labels have in common.
fn listing(given: &Asked<'_>) -> Result<Vec<(&'static str, String)>, String> {
    let now = now_ns();
    let start = time_or(given.values.text("start"), "start", now.saturating_sub(FAR_NS))?;
    let end = time_or(given.values.text("end"), "end", now.saturating_add(FAR_NS))?;
    let mut form = vec![("start", seconds(start)), ("end", seconds(end))];
    form.extend(given.values.list("match").iter().map(|text| ("match[]", text.clone())));
    Ok(form)
}

fn series(given: &Asked<'_>, [url]: [&str; 1]) -> Result<String, String> {
    let server = server(given, url, &[])?;
    let data = server.data(&["api", "v1", "series"], &listing(given)?).map_err(failed)?;
    let lines = || data.as_array().into_iter().flatten().map(|labels| format!("{{{}}}\n", pairs(labels, ""))).collect();
    Ok(shown(given, &data, lines))
}

fn labels(given: &Asked<'_>, [url, name]: [&str; 2]) -> Result<String, String> {
    let server = server(given, url, &[])?;
    let data = server.data_by_get(&["api", "v1", "label", name, "values"], &listing(given)?).map_err(failed)?;
    let lines = || data.as_array().into_iter().flatten().map(|value| format!("{}\n", text(value))).collect();
    Ok(shown(given, &data, lines))
}

fn check(given: &Given, what: &str) -> u8 {
    if let Some(more) = given.words.first() {
        return refuse(&format!("unexpected {more}"));
    }
    let config = match http_config(given) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let asked = || {
        let url = given.values.text("url");
        let server = Server::new(url, &[], CHECK_WITHIN, config.as_ref())?;
        let answer = server.send(crate::client::Request::get(server.at(&["-", what])))?;
        match answer.status {
            200 => Ok(String::from_utf8_lossy(&answer.body).into_owned()),
            status => Err(format!("check failed: URL={url}, status={status}")),
        }
    };
    let (line, code) = match asked() {
        Ok(body) => (format!("  SUCCESS:  {body}"), 0),
        Err(error) => (error, EXIT_FAILURE),
    };
    let _ = writeln!(io::stderr(), "{line}");
    code
}

pub(super) fn now_ns() -> i64 {
    SystemClock::shared().unix_nanos()
}

pub(super) fn time_or(written: &str, what: &str, default: i64) -> Result<i64, String> {
    if written.is_empty() {
        return Ok(default);
    }
    if let Ok(seconds) = go_number::parse_float(written) {
        return Ok((seconds.trunc() as i64)
            .saturating_mul(1_000_000_000)
            .saturating_add((seconds.fract() * 1e9) as i64));
    }
    let parsed = go_time::parse_rfc3339(written);
    let nanos = parsed.map(|(seconds, nanos)| seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(nanos)));
    nanos.ok_or_else(|| format!("error parsing {what} time: cannot parse {} to a valid timestamp", go::quote(written)))
}

/// Seconds as Prometheus's client writes them.
pub(super) fn seconds(nanos: i64) -> String {
    let whole = nanos.div_euclid(1_000_000_000) as f64;
    format_float_f(whole + nanos.rem_euclid(1_000_000_000) as f64 / 1e9)
}

/// JSON as it came, or the text form.
fn shown(given: &Asked<'_>, json: &Value, text: impl Fn() -> String) -> String {
    if given.values.text("format") == "json" { format!("{json}\n") } else { text() }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// `name="value", …` of all labels but `without`, by name.
fn pairs(labels: &Value, without: &str) -> String {
    let all = labels.as_object().into_iter().flatten().filter(|(name, _)| *name != without);
    let mut parts: Vec<String> = all.map(|(name, value)| format!("{name}={}", go::quote(&text(value)))).collect();
    parts.sort();
    parts.join(", ")
}

pub(super) fn metric(labels: &Value) -> String {
    let name = labels["__name__"].as_str().unwrap_or("");
    match pairs(labels, "__name__").as_str() {
        "" if !name.is_empty() => name.to_owned(),
        pairs => format!("{name}{{{pairs}}}"),
    }
}

/// A pair of time and value: `1 @[1700000000]`.
fn sample(pair: &Value) -> String {
    format!("{} @[{}]", any(&pair[1]), pair[0])
}

/// A float, or a histogram in the words of Prometheus's client.
fn any(value: &Value) -> String {
    let Some(buckets) = value.get("count").map(|_| value["buckets"].as_array().cloned().unwrap_or_default()) else {
        return text(value);
    };
    let number = |value: &Value| text(value).parse().map_or_else(|_| text(value), |n: f64| format!("{n:.6}"));
    let shown = |bucket: &Value| {
        let (open, close) = match bucket[0].as_i64() {
            Some(0) => ('(', ']'),
            Some(1) => ('[', ')'),
            Some(2) => ('(', ')'),
            _ => ('[', ']'),
        };
        format!("{open}{},{}{close}:{}", text(&bucket[1]), text(&bucket[2]), text(&bucket[3]))
    };
    let buckets: Vec<String> = buckets.iter().map(shown).collect();
    format!("Count: {}, Sum: {}, Buckets: [{}]", number(&value["count"]), number(&value["sum"]), buckets.join(" "))
}

/// A result as Prometheus's client prints it.
fn value(data: &Value) -> String {
    let result = &data["result"];
    let elements = result.as_array().cloned().unwrap_or_default();
    let pair = |element: &Value| {
        if element["value"].is_null() { element["histogram"].clone() } else { element["value"].clone() }
    };
    let out: Vec<String> = match data["resultType"].as_str() {
        Some("scalar") => vec![format!("scalar: {}", sample(result))],
        Some("string") => vec![text(&result[1])],
        Some("vector") => {
            elements.iter().map(|e| format!("{} => {}", metric(&e["metric"]), sample(&pair(e)))).collect()
        }
        _ => elements
            .iter()
            .map(|element| {
                let of = |name: &str| element[name].as_array().cloned().unwrap_or_default();
                let lines: Vec<String> = of("values").iter().chain(&of("histograms")).map(sample).collect();
                format!("{} =>\n{}", metric(&element["metric"]), lines.join("\n"))
            })
            .collect(),
    };
    out.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn results_are_printed_as_prometheus_prints_them() {
        let of = |kind: &str, result: Value| value(&json!({"resultType": kind, "result": result}));
        assert_eq!(of("scalar", json!([1.5, "2"])), "scalar: 2 @[1.5]\n");
        assert_eq!(of("string", json!([1, "x"])), "x\n");
        let element = json!({"metric": {"__name__": "up", "job": "a\"b"}, "value": [1700000000, "1"]});
        assert_eq!(of("vector", json!([element])), "up{job=\"a\\\"b\"} => 1 @[1700000000]\n");
        assert_eq!(of("vector", json!([])), "\n");
        let series = json!({"metric": {}, "values": [[1, "1"], [2.5, "NaN"]]});
        assert_eq!(of("matrix", json!([series])), "{} =>\n1 @[1]\nNaN @[2.5]\n");
    }
}
