//! Whole requests with hostile parts: every route gets mutated paths, parameters, forms and headers. Each is answered, none makes
//! the server fail, and what says that it is JSON is JSON. `WATCHFIRE_FUZZ_CASES` and `WATCHFIRE_FUZZ_SEED` are as in `fuzz/`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::client::{Answer, Setup, TestServer, parse};
use crate::dice::Dice;
use crate::mutate::mutated;

const PATHS: [&str; 32] = [
    "/api/v1/query",
    "/api/v1/query_range",
    "/api/v1/query_exemplars",
    "/api/v1/parse_query",
    "/api/v1/format_query",
    "/api/v1/series",
    "/api/v1/labels",
    "/api/v1/label/job/values",
    "/api/v1/label/U__a_2e_b/values",
    "/api/v1/search/metric_names",
    "/api/v1/search/label_names",
    "/api/v1/search/label_values",
    "/api/v1/targets",
    "/api/v1/targets/metadata",
    "/api/v1/targets/relabel_steps",
    "/api/v1/scrape_pools/config",
    "/api/v1/metadata",
    "/api/v1/rules",
    "/api/v1/alerts",
    "/api/v1/status/tsdb",
    "/api/v1/status/self_metrics",
    "/api/v1/admin/tsdb/delete_series",
    "/api/v1/admin/tsdb/snapshot",
    "/api/v1/write",
    "/api/v1/read",
    "/api/v1/otlp/v1/metrics",
    "/api/v1/openapi.yaml",
    "/federate",
    "/metrics",
    "/graph",
    "/debug/pprof/heap",
    "/api/watchfire/v1/queries",
];

const FORMS: [&str; 9] = [
    "query=up%7Bjob%3D%22a%22%7D&time=1435781430.781&timeout=1m30s&limit=10&lookback_delta=5m&stats=all",
    "query=up&start=1435781430&end=1435781450&step=15s",
    "match[]=up&match%5B%5D=%7B__name__%3D~%22.%2B%22%7D&start=2015-07-01T20:10:51.781Z&end=1435781450&limit=5",
    "search[]=up&label=job&fuzz_threshold=70&fuzz_alg=jarowinkler&sort_by=score&include_score=true&batch_size=2&limit=3",
    "state=any&scrapePool=p&labels=%7B%22x%22%3A%221%22%7D&scrapePool=a",
    "match_target=%7Bjob%3D%22a%22%7D&metric=x&limit=1&limit_per_metric=1",
    "type=alert&rule_name[]=a&group_limit=1&group_next_token=abc&exclude_alerts=true&match[]=%7Bsev%3D%22p%22%7D",
    "skip_head=true&openapi_version=3.2&metric_name_pattern=up.*&seconds=0&debug=1",
    "a=%zz&b=1;2&=&&c&%E2%28%A1=%FF",
];

const HEADERS: [(&str, &str); 9] = [
    ("Accept", "application/openmetrics-text;version=1.0.0,application/json;q=0.5,*/*;q=0.1"),
    ("Accept", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"),
    ("Accept-Encoding", "gzip;q=1.0, deflate, zstd, *;q=0"),
    ("Content-Type", "application/x-protobuf;proto=io.prometheus.write.v2.Request"),
    ("Content-Encoding", "snappy"),
    ("Origin", "http://example.org"),
    ("Authorization", "Basic YWxpY2U6c2VjcmV0"),
    ("X-Prometheus-Remote-Write-Version", "2.0.0"),
    ("Expect", "100-continue"),
];

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// One of several.
fn pick<'a, T>(dice: &mut Dice, all: &'a [T]) -> &'a T {
    &all[usize::try_from(dice.below(all.len() as u64)).unwrap()]
}

/// A text that may stand in a head: in a path, or in a header's value.
fn in_head(text: &str, is_path: bool) -> String {
    text.chars().filter(|c| !(c.is_control() || is_path && *c == ' ')).take(3_000).collect()
}

fn request(dice: &mut Dice) -> Vec<u8> {
    let hostile = |dice: &mut Dice, text: &str, other: &str| match dice.chance(60) {
        true => mutated(dice, text, other),
        false => text.to_owned(),
    };
    let mut path = (*pick(dice, &PATHS)).to_owned();
    if dice.chance(10) {
        path = format!("/{}", mutated(dice, &path, "/../%2e%2e//"));
    }
    let form = *pick(dice, &FORMS);
    let form = hostile(dice, form, PATHS[0]);
    let method = dice.pick(&["GET", "POST", "GET", "POST", "PUT", "HEAD", "OPTIONS", "DELETE"]);
    let mut head = String::new();
    let mut body = Vec::new();
    if matches!(method, "POST" | "PUT") && dice.chance(70) {
        body = form.clone().into_bytes();
        if dice.chance(70) {
            head.push_str("Content-Type: application/x-www-form-urlencoded\r\n");
        }
    } else {
        path = format!("{path}?{form}");
    }
    for _ in 0..dice.below(3) {
        let (name, value) = pick(dice, &HEADERS);
        let value = in_head(&hostile(dice, value, "q=;,*/\""), false);
        // One that waits for a permission to go on sends nothing here.
        if *name != "Expect" || body.is_empty() {
            head.push_str(&format!("{name}: {}\r\n", value.trim()));
        }
    }
    let path = in_head(&path, true);
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{head}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body].concat()
}

/// Whether the client says that it sends no more.
#[derive(Clone, Copy, PartialEq)]
enum End {
    Open,
    Closed,
}

fn send(server: &TestServer, request: &[u8], end: End) -> Vec<u8> {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    // The server may have answered and closed before all is sent.
    let _ = stream.write_all(request);
    if end == End::Closed {
        let _ = stream.shutdown(std::net::Shutdown::Write);
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// The text of an answer, whatever it is packed in.
fn text_of(answer: &Answer) -> String {
    use std::io::Read as _;
    let mut text = Vec::new();
    let packed = answer.body.as_slice();
    match answer.header("Content-Encoding").as_deref() {
        None => text.extend(packed),
        Some("gzip") => drop(flate2::read::GzDecoder::new(packed).read_to_end(&mut text).unwrap()),
        Some("deflate") => drop(flate2::read::ZlibDecoder::new(packed).read_to_end(&mut text).unwrap()),
        Some("zstd") => text = zstd::decode_all(packed).unwrap(),
        Some(other) => panic!("an answer in {other}"),
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn check(answer: &Answer, shown: &str) {
    let text = text_of(answer);
    let is_failure =
        answer.status == 500 && !["is not available", "disabled", "failed to"].iter().any(|known| text.contains(known));
    assert!(!is_failure && !text.contains("panicked"), "{shown}\n{text}");
    if !answer.body.is_empty() && answer.header("Content-Type").as_deref() == Some("application/json") {
        serde_json::from_str::<serde_json::Value>(&text).unwrap_or_else(|error| panic!("{error} in {shown}\n{text}"));
    }
    assert_eq!(answer.header("X-Content-Type-Options").as_deref(), Some("nosniff"), "{shown}");
}

#[test]
fn any_request_is_answered() {
    let server = TestServer::start(Setup { enable_lifecycle: true, ..Setup::default() });
    let (seed, cases) = (number("WATCHFIRE_FUZZ_SEED", 1), number("WATCHFIRE_FUZZ_CASES", 700));
    let mut by_status = std::collections::BTreeMap::new();
    for case in 0..cases {
        let mut dice = Dice::new(seed.wrapping_mul(0x0100_0000_01b3) ^ case);
        dice.next();
        let request = request(&mut dice);
        let shown = format!("seed {seed}, case {case}: {:?}", String::from_utf8_lossy(&request));
        let is_head = request.starts_with(b"HEAD");
        let raw = send(&server, &request, End::Open);
        // Who asks whether to go on is told so first.
        let raw = raw.strip_prefix(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(&raw);
        assert!(raw.starts_with(b"HTTP/1.1 "), "{shown}\n{:?}", String::from_utf8_lossy(raw));
        if !is_head {
            let answer = parse(raw);
            *by_status.entry(answer.status).or_insert(0) += 1;
            if answer.status != 400 || !answer.body.is_empty() {
                check(&answer, &shown);
            }
        }
    }
    // It is no use if everything is refused at the door.
    assert!(cases / 10 < by_status[&200], "{by_status:?}");
    assert_eq!(server.get("/-/healthy").status, 200);
}

/// Bytes that are hardly requests, several on a connection: the server answers or closes, and goes on.
#[test]
fn any_bytes_are_survived() {
    let server = TestServer::start(Setup::default());
    let (seed, cases) = (number("WATCHFIRE_FUZZ_SEED", 1), number("WATCHFIRE_FUZZ_CASES", 300));
    for case in 0..cases {
        let mut dice = Dice::new(seed.wrapping_mul(0x0100_0000_01b3) ^ case ^ 0x5555);
        dice.next();
        let mut bytes: Vec<u8> = (0..1 + dice.below(3)).flat_map(|_| request(&mut dice)).collect();
        for _ in 0..dice.below(6) {
            let at = usize::try_from(dice.below(bytes.len().max(1) as u64)).unwrap();
            match dice.below(4) {
                _ if bytes.len() < 2 => break,
                0 => bytes[at] = dice.below(256) as u8,
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, *b"\r\n \":\0".get(usize::try_from(dice.below(6)).unwrap()).unwrap()),
                _ => bytes.truncate(at.max(1)),
            }
        }
        let answer = send(&server, &bytes, End::Closed);
        let shown = || String::from_utf8_lossy(&bytes).into_owned();
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "case {case}: {:?}", shown());
        assert!(!String::from_utf8_lossy(&answer).contains("panicked"), "case {case}: {:?}", shown());
    }
    assert_eq!(server.get("/-/healthy").status, 200);
}

/// What Go takes in a URL and parsers of others do not.
#[test]
fn targets_need_no_escapes() {
    let server = TestServer::start(Setup::default());
    for query in ["up{job=\"x\"}", "up>0<1", "a{b=~`c|d`}", "é#\\^", "[{}]"] {
        let asked = server.get(&format!("/api/v1/query?query={query}&time=1"));
        assert_eq!(asked.status, 200, "{query} {}", asked.text());
        let instant = server.ports.instant.lock().unwrap();
        assert_eq!(instant.last().unwrap().query, query);
    }
    assert_eq!(server.get("/api/v1/label/\"<é>\"/values").status, 200);
    assert_eq!(server.ports.label_values.lock().unwrap().last().unwrap().name, "\"<é>\"");
    // A space ends the target, as in Go.
    assert_eq!(server.get("/api/v1/query?query=up or up&time=1").status, 400);
}

#[test]
fn several_requests_of_a_connection_are_lenient() {
    let server = TestServer::start(Setup::default());
    let one = "GET /api/v1/query?query={a=\"b\"}&time=1 HTTP/1.1\r\nHost: t\r\n\r\n";
    let form = "query=%22&time=\"1\"";
    let two = format!(
        "POST /api/v1/format_query?\" HTTP/1.1\r\nHost: t\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\n\r\n{form}",
        form.len()
    );
    let last = "GET /-/healthy?\" HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
    let answer = send(&server, format!("{one}{two}{one}{last}").as_bytes(), End::Open);
    let answer = String::from_utf8_lossy(&answer);
    let statuses: Vec<&str> = answer.matches("HTTP/1.1 200 OK").chain(answer.matches("HTTP/1.1 400 Bad")).collect();
    assert_eq!(statuses, ["HTTP/1.1 200 OK", "HTTP/1.1 200 OK", "HTTP/1.1 200 OK", "HTTP/1.1 400 Bad"], "{answer}");
}
