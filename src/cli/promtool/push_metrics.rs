//! `promtool push metrics`: sends metrics of the text format by remote write.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use url::Url;

use super::families::{Family, Kind, Metric, read};
use super::server::{self, HTTP_CONFIG, Server};
use super::{Command, ENABLE_FEATURE, EXPERIMENTAL, Given, OWN, existing_files, flag, go_reason, refuse};
use crate::cli::EXIT_FAILURE;
use crate::cli::flag_spec::{FlagSpec, Kind as FlagKind};
use crate::client::Request;
use crate::client::header::{HeaderName, HeaderValue};
use crate::model::clock::SystemClock;
use crate::model::go::format_float_g;

const LABEL: FlagSpec =
    flag("label", FlagKind::List, "job=promtool", OWN, "Label to attach to metrics. Can be specified multiple times.");
const TIMEOUT: FlagSpec = flag("timeout", FlagKind::GoDuration, "30s", OWN, "The time to wait for pushing metrics.");
const HEADER: FlagSpec = flag("header", FlagKind::List, "", OWN, "Prometheus remote write header.");
const MESSAGE: FlagSpec = flag(
    "protobuf_message",
    FlagKind::Text,
    V1,
    OWN,
    "Protobuf message to use when writing (prometheus.WriteRequest or io.prometheus.write.v2.Request).",
);
const PATH: FlagSpec =
    flag("remote-write.path", FlagKind::Text, "/api/v1/write", OWN, "Override the default remote write API path.");
static FLAGS: [FlagSpec; 8] = [EXPERIMENTAL, ENABLE_FEATURE, HTTP_CONFIG, LABEL, TIMEOUT, HEADER, MESSAGE, PATH];

const V1: &str = "prometheus.WriteRequest";
const V2: &str = "io.prometheus.write.v2.Request";

pub(super) static COMMAND: Command = Command {
    path: &["push", "metrics"],
    words: "<remote-write-url> [<metric-files>...]",
    summary: "Push metrics to a prometheus remote write (for testing purpose only).",
    flags: &FLAGS,
    run,
};

fn run(given: &Given) -> u8 {
    let Some((url, files)) = given.words.split_first() else {
        return refuse("required argument 'remote-write-url' not provided");
    };
    if let Err(reason) = existing_files(files) {
        return refuse(&reason);
    }
    let mut labels = BTreeMap::new();
    for text in given.values.list("label") {
        match text.split_once(['=', ':']) {
            Some((name, value)) => drop(labels.insert(name.to_owned(), value.to_owned())),
            None => return refuse(&format!("expected KEY=VALUE got '{text}'")),
        }
    }
    let fail = |text: String| {
        let _ = writeln!(io::stderr(), "{text}");
        EXIT_FAILURE
    };
    let config = match server::http_config(given) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let message = given.values.text("protobuf_message");
    if message != V1 && message != V2 {
        return fail(format!("  FAILED: invalid protobuf message \"{message}\", must be {V1} or {V2}"));
    }
    let within = given.values.go_duration("timeout");
    let server = match Server::new(url, given.values.list("header"), within, config.as_ref()) {
        Ok(server) => server,
        Err(reason) => return fail(reason),
    };
    let segments: Vec<&str> =
        given.values.text("remote-write.path").split('/').filter(|part| !part.is_empty()).collect();
    let push = Push { server, url: String::new(), labels, is_v2: message == V2 };
    let push = Push { url: push.server.at(&segments).to_string(), ..push };
    let one = |name: String, text: Result<Vec<u8>, String>, done: String| {
        let _ = writeln!(io::stdout(), "{name}");
        match text.and_then(|text| push.send(&text)) {
            Ok(()) => {
                let _ = writeln!(io::stdout(), "  SUCCESS: {done} pushed to remote write.");
                true
            }
            Err(reason) => {
                let _ = writeln!(io::stderr(), "  FAILED: {reason}");
                false
            }
        }
    };
    if files.is_empty() {
        let mut text = Vec::new();
        let read = io::stdin().read_to_end(&mut text).map(|_| text).map_err(|error| error.to_string());
        let is_done = one("Parsing standard input".to_owned(), read, "metrics".to_owned());
        return if is_done { 0 } else { EXIT_FAILURE };
    }
    let mut failed = false;
    for file in files {
        let text = std::fs::read(file).map_err(|error| format!("open {file}: {}", go_reason(&error)));
        failed |= !one(format!("Parsing metrics file {file}"), text, format!("metrics file {file}"));
    }
    if failed { EXIT_FAILURE } else { 0 }
}

struct Push {
    server: Server,
    url: String,
    labels: BTreeMap<String, String>,
    is_v2: bool,
}

impl Push {
    fn send(&self, text: &[u8]) -> Result<(), String> {
        let families = read(text)?;
        let now_ms = SystemClock::shared().unix_nanos() / 1_000_000;
        let series = series(&families, &self.labels, now_ms);
        let message = if self.is_v2 { second_version(&families, &series) } else { first_version(&families, &series) };
        let body = snap::raw::Encoder::new().compress_vec(&message).map_err(|error| error.to_string())?;
        let (content_type, version) = match self.is_v2 {
            true => ("application/x-protobuf;proto=io.prometheus.write.v2.Request", "2.0.0"),
            false => ("application/x-protobuf;proto=prometheus.WriteRequest", "0.1.0"),
        };
        let url = Url::parse(&self.url).map_err(|error| error.to_string())?;
        let mut request = Request::post(url, HeaderValue::from_static(content_type), body.into());
        for (name, value) in [("content-encoding", "snappy"), ("x-prometheus-remote-write-version", version)] {
            request.headers.push((HeaderName::from_static(name), HeaderValue::from_static(value)));
        }
        let answer = self.server.send(request)?;
        if (200..300).contains(&answer.status) {
            return Ok(());
        }
        let reason = http_reason(answer.status);
        Err(format!("server returned HTTP status {reason}: {}", String::from_utf8_lossy(&answer.body)))
    }
}

fn http_reason(status: u16) -> String {
    let reason = crate::client::status_reason(status);
    if reason.is_empty() { status.to_string() } else { format!("{status} {reason}") }
}

/// A series with its one sample, and the number of its family.
struct Series {
    family: usize,
    labels: Vec<(String, String)>,
    at_ms: i64,
    value: f64,
}

/// All series of the families, in the order in which Prometheus's tool sends them.
fn series(families: &[Family], extra: &BTreeMap<String, String>, now_ms: i64) -> Vec<Series> {
    let mut out = Vec::new();
    for (family, of) in families.iter().enumerate() {
        for metric in &of.metrics {
            let at_ms = metric.at_ms.filter(|at| *at != 0).unwrap_or(now_ms);
            let mut add = |suffix: &str, more: Option<(&str, String)>, value: f64| {
                let mut labels = extra.clone();
                labels.insert("__name__".to_owned(), format!("{}{suffix}", of.name));
                for (name, value) in &metric.labels {
                    let name = if name == "job" { "exported_job" } else { name };
                    labels.insert(name.to_owned(), value.clone());
                }
                labels.extend(more.map(|(name, value)| (name.to_owned(), value)));
                out.push(Series { family, labels: labels.into_iter().collect(), at_ms, value });
            };
            parts(of, metric, &mut add);
        }
    }
    out
}

/// Takes the suffix of a name, a further label and a value.
type Add<'a> = &'a mut dyn FnMut(&str, Option<(&str, String)>, f64);

/// Calls `add` with the suffix of a name, a further label and a value, for each sample of a metric.
fn parts(of: &Family, metric: &Metric, add: Add<'_>) {
    match of.kind() {
        Kind::Counter | Kind::Gauge | Kind::Untyped => add("", None, metric.value),
        Kind::Summary => {
            for (quantile, value) in &metric.parts {
                add("", Some(("quantile", format_float_g(*quantile))), *value);
            }
            add("_sum", None, metric.sum);
            add("_count", None, metric.count);
        }
        Kind::Histogram | Kind::GaugeHistogram => {
            for (bound, value) in &metric.parts {
                add("_bucket", Some(("le", format_float_g(*bound))), *value);
            }
            if !metric.parts.iter().any(|(bound, _)| *bound == f64::INFINITY) {
                add("_bucket", Some(("le", "+Inf".to_owned())), metric.count);
            }
            add("_sum", None, metric.sum);
            add("_count", None, metric.count);
        }
    }
}

/// The number of a type in messages.
fn type_number(kind: Kind) -> u64 {
    match kind {
        Kind::Untyped => 0,
        Kind::Counter => 1,
        Kind::Gauge => 2,
        Kind::Histogram => 3,
        Kind::GaugeHistogram => 4,
        Kind::Summary => 5,
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while 0x80 <= value {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_number(out: &mut Vec<u8>, field: u8, value: u64) {
    out.push(field << 3);
    put_varint(out, value);
}

fn sample(series: &Series) -> Vec<u8> {
    let mut out = vec![1 << 3 | 1];
    out.extend_from_slice(&series.value.to_le_bytes());
    put_number(&mut out, 2, series.at_ms.cast_unsigned());
    out
}

/// `WriteRequest { 1 TimeSeries { 1 Label { 1 name, 2 value } …, 2 Sample { 1 value, 2 timestamp } } …, 3 metadata … }`
fn first_version(families: &[Family], series: &[Series]) -> Vec<u8> {
    let mut out = Vec::new();
    for one in series {
        let mut message = Vec::new();
        for (name, value) in &one.labels {
            let mut label = Vec::new();
            put_bytes(&mut label, 1, name.as_bytes());
            put_bytes(&mut label, 2, value.as_bytes());
            put_bytes(&mut message, 1, &label);
        }
        put_bytes(&mut message, 2, &sample(one));
        put_bytes(&mut out, 1, &message);
    }
    for family in families {
        let mut message = Vec::new();
        put_number(&mut message, 1, type_number(family.kind()));
        put_bytes(&mut message, 2, family.name.as_bytes());
        put_bytes(&mut message, 4, family.help.as_deref().unwrap_or("").as_bytes());
        put_bytes(&mut out, 3, &message);
    }
    out
}

/// `Request { 4 symbols …, 5 TimeSeries { 1 label references, 2 Sample …, 5 Metadata { 1 type, 3 help } } … }`
fn second_version(families: &[Family], series: &[Series]) -> Vec<u8> {
    let mut symbols = vec![String::new()];
    let mut known = std::collections::HashMap::from([(String::new(), 0u64)]);
    let mut number = |text: &str| {
        *known.entry(text.to_owned()).or_insert_with(|| {
            symbols.push(text.to_owned());
            symbols.len() as u64 - 1
        })
    };
    let mut all = Vec::new();
    for one in series {
        let (mut references, mut message, mut metadata) = (Vec::new(), Vec::new(), Vec::new());
        for (name, value) in &one.labels {
            put_varint(&mut references, number(name));
            put_varint(&mut references, number(value));
        }
        put_bytes(&mut message, 1, &references);
        put_bytes(&mut message, 2, &sample(one));
        if let Some(family) = families.get(one.family) {
            put_number(&mut metadata, 1, type_number(family.kind()));
            put_number(&mut metadata, 3, number(family.help.as_deref().unwrap_or("")));
            put_bytes(&mut message, 5, &metadata);
        }
        put_bytes(&mut all, 5, &message);
    }
    let mut out = Vec::new();
    symbols.iter().for_each(|symbol| put_bytes(&mut out, 4, symbol.as_bytes()));
    out.extend(all);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::append::SeriesKey;
    use crate::model::time::TimestampMs;
    use crate::remote::receive::budget::Budget;
    use crate::remote::receive::cache::SeriesCache;
    use crate::remote::receive::{Extras, Lookup, Message, decode};

    #[test]
    fn both_versions_say_the_same() {
        let text = b"# HELP h Help.\n# TYPE h histogram\nh_bucket{le=\"0.5\",job=\"x\"} 1\nh_sum{job=\"x\"} 3\nh_count{job=\"x\"} 2\n\
                     # TYPE s summary\ns{quantile=\"0.5\"} 7 5\ns_sum 1 5\ns_count 1 5\na 1\n";
        let families = read(text).unwrap();
        let extra = BTreeMap::from([("job".to_owned(), "p".to_owned())]);
        let series = series(&families, &extra, 9);
        let expected = [
            "{__name__=\"a\", job=\"p\"} 1@9",
            "{__name__=\"h_bucket\", exported_job=\"x\", job=\"p\", le=\"0.5\"} 1@9",
            "{__name__=\"h_bucket\", exported_job=\"x\", job=\"p\", le=\"+Inf\"} 2@9",
            "{__name__=\"h_sum\", exported_job=\"x\", job=\"p\"} 3@9",
            "{__name__=\"h_count\", exported_job=\"x\", job=\"p\"} 2@9",
            "{__name__=\"s\", job=\"p\", quantile=\"0.5\"} 7@5",
            "{__name__=\"s_sum\", job=\"p\"} 1@5",
            "{__name__=\"s_count\", job=\"p\"} 1@5",
        ];
        let messages =
            [(Message::V1, first_version(&families, &series)), (Message::V2, second_version(&families, &series))];
        for (version, message) in messages {
            let (cache, mut held) = (SeriesCache::new(), Budget::new(0).permit());
            let lookup = Lookup::ByLabels(&cache);
            let decoded = decode(version, &message, TimestampMs(9), lookup, Extras::default(), &mut held).unwrap();
            let shown = decoded.batch.samples.iter().map(|sample| {
                let SeriesKey::Labels(labels) = &sample.series else { panic!("a reference") };
                format!("{labels} {}@{}", sample.value, sample.at.0)
            });
            assert_eq!(shown.collect::<Vec<_>>(), expected);
        }
    }
}
