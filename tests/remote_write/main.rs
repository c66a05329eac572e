//! Remote write through the front door of the built binary: status codes and texts, what is written of a request with
//! faults, bombs, and that what was acknowledged is there after a kill -9. Sending has a file of its own.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod messages;
mod read;
mod sending;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use messages::{Exemplar, Histogram, Metadata, MetricMetadata, V2, WriteRequest, histogram, labels, series, v1};
use prost::Message;
use support::{Answer, Server, request, wait_for};

const ON: &str = "--web.enable-remote-write-receiver";
const TYPE_V2: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";

fn start(more: &[&str]) -> (Server, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("prometheus.yml"), "").unwrap();
    let args = [&["--config.file=prometheus.yml"], more].concat();
    (Server::start(folder.path(), &args), folder)
}

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn post(server: &Server, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    request(&server.addr, "POST", "/api/v1/write", headers, body).unwrap()
}

fn snappy(message: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(message).unwrap()
}

fn write_v1(server: &Server, message: &[u8]) -> Answer {
    let headers = [("Content-Type", "application/x-protobuf"), ("Content-Encoding", "snappy")];
    post(server, &headers, &snappy(message))
}

fn write_v2(server: &Server, message: &V2) -> Answer {
    let headers = [("Content-Type", TYPE_V2), ("Content-Encoding", "snappy")];
    post(server, &headers, &snappy(&message.encode()))
}

/// Status and text of an answer.
fn said(answer: &Answer) -> (u16, String) {
    (answer.status, answer.text().trim_end().to_owned())
}

/// The three figures of version 2.
fn written(answer: &Answer) -> [Option<String>; 3] {
    ["Samples", "Histograms", "Exemplars"].map(|what| {
        let name = format!("X-Prometheus-Remote-Write-{what}-Written");
        answer.header(&name).map(str::to_owned)
    })
}

fn figures(samples: u32, histograms: u32, exemplars: u32) -> [Option<String>; 3] {
    [samples, histograms, exemplars].map(|count| Some(count.to_string()))
}

/// All samples of a metric, with their times in milliseconds.
fn samples(server: &Server, metric: &str) -> Vec<(String, Vec<(i64, String)>)> {
    let path = format!("/api/v1/query?query={}", support::encode(&format!("{metric}[1h]")));
    let json = server.get(&path).json();
    let result = json["data"]["result"].as_array().cloned().unwrap_or_default();
    let mut all: Vec<_> = result
        .iter()
        .map(|series| {
            let values = series["values"].as_array().cloned().unwrap_or_default();
            let points = values.iter().map(|point| {
                ((point[0].as_f64().unwrap() * 1000.0).round() as i64, point[1].as_str().unwrap().to_owned())
            });
            (series["metric"].to_string(), points.collect::<Vec<_>>())
        })
        .collect();
    all.sort();
    all
}

fn values(server: &Server, metric: &str) -> Vec<String> {
    let all = samples(server, metric).into_iter();
    all.flat_map(|(_, points)| points.into_iter().map(|(_, value)| value)).collect()
}

fn metric(server: &Server, name: &str) -> f64 {
    let text = server.get("/metrics").text();
    let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap_or_else(|| panic!("no {name}"));
    line.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn it_is_off_unless_asked_for() {
    let (server, _folder) = start(&[]);
    let off = "remote write receiver needs to be enabled with --web.enable-remote-write-receiver";
    let answer = write_v1(&server, &v1(vec![]));
    assert_eq!(said(&answer), (404, off.to_owned()));
    assert_eq!(answer.header("Content-Type"), Some("text/plain; charset=utf-8"));
}

#[test]
fn formats_are_told_by_headers_and_faults_by_status() {
    let (server, _folder) = start(&[ON, "--watchfire.limit.http.body=1MB"]);
    let at = now_ms();
    let good = v1(vec![series(&[("__name__", "a"), ("b", "é")], &[(at - 1000, 1.5), (at, f64::INFINITY)])]);
    let answer = write_v1(&server, &good);
    assert_eq!((said(&answer), written(&answer)), ((204, String::new()), [const { None }; 3]));
    assert_eq!(values(&server, "a"), ["1.5", "+Inf"]);
    let newest = v1(vec![series(&[("__name__", "a"), ("b", "é")], &[(at, f64::INFINITY)])]);
    assert_eq!(post(&server, &[], &snappy(&newest)).status, 204, "the defaults, and a repetition is no fault");
    let zstd = zstd::bulk::compress(&v1(vec![series(&[("__name__", "z")], &[(at, 2.0)])]), 3).unwrap();
    let headers = [("Content-Encoding", "zstd"), ("Content-Type", "application/x-protobuf")];
    assert_eq!(post(&server, &headers, &zstd).status, 204);
    assert_eq!(values(&server, "z"), ["2"]);

    let refused = |headers: &[(&str, &str)], body: &[u8]| said(&post(&server, headers, body));
    let gzip = "gzip encoding (compression) is not accepted by this server; only snappy is acceptable";
    assert_eq!(refused(&[("Content-Encoding", "gzip")], b"x"), (415, gzip.to_owned()));
    let json = "expected application/x-protobuf as the first (media) part, got application/json content-type";
    assert_eq!(refused(&[("Content-Type", "application/json")], &snappy(b"")), (415, json.to_owned()));
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let text =
        "expected application/x-protobuf as the first (media) part, got application/x-www-form-urlencoded content-type";
    assert_eq!(refused(&form, &snappy(b"")), (415, text.to_owned()));
    assert_eq!(refused(&[], b"\xff\xff"), (400, "s2: corrupt input".to_owned()));
    assert_eq!(refused(&[], b"\x04\x0cab"), (400, "s2: corrupt input".to_owned()));
    assert_eq!(refused(&[("Content-Encoding", "zstd")], b"x").0, 400);
    assert_eq!(refused(&[], &snappy(b"\x0a\x05ab")), (400, "unexpected EOF".to_owned()));
    assert_eq!(refused(&[], &snappy(b"\x08\x01")), (400, "proto: wrong wireType = 0 for field Timeseries".to_owned()));
    // 32 MiB and one byte, declared by a body of a few bytes, and by one that holds them.
    let too_long = (400, "decoded size exceeds the 33554432 bytes limit".to_owned());
    assert_eq!(refused(&[], b"\x81\x80\x80\x10\x00"), too_long);
    let bomb = vec![0; (32 << 20) + 1];
    assert_eq!(refused(&[("Content-Encoding", "zstd")], &zstd::bulk::compress(&bomb, 1).unwrap()), too_long);
    let (status, text) = refused(&[], &vec![0; (1 << 20) + 1]);
    assert!(status == 413 && text.contains("--watchfire.limit.http.body"), "{status} {text}");
    let get = server.get("/api/v1/write");
    assert_eq!((get.status, get.header("Allow")), (405, Some("OPTIONS, POST")));
    assert!(
        server
            .get("/metrics")
            .text()
            .contains("prometheus_http_requests_total{handler=\"/api/v1/write\",code=\"415\"} 3\n")
            || server
                .get("/metrics")
                .text()
                .contains("prometheus_http_requests_total{code=\"415\",handler=\"/api/v1/write\"} 3\n")
    );
}

#[test]
fn only_accepted_messages_are_taken() {
    let flag = "--web.remote-write-receiver.accepted-protobuf-messages=io.prometheus.write.v2.Request";
    let (server, _folder) = start(&[ON, flag]);
    let at = now_ms();
    let text = "prometheus.WriteRequest protobuf message is not accepted by this server; only accepts \
                io.prometheus.write.v2.Request";
    assert_eq!(said(&write_v1(&server, &v1(vec![]))), (415, text.to_owned()));
    let mut request = V2::new();
    request.series(&[("__name__", "a")], &[(at, 1.0)]);
    assert_eq!(write_v2(&server, &request).status, 204);
}

#[test]
fn version_1_writes_all_samples_of_a_request_or_none() {
    let (server, _folder) = start(&[ON]);
    let at = now_ms();
    let (a, b) = ([("__name__", "a"), ("job", "j")], [("__name__", "b"), ("job", "k")]);
    assert_eq!(write_v1(&server, &v1(vec![series(&a, &[(at - 5000, 1.0)])])).status, 204);
    let refused = |message: Vec<u8>, text: &str| {
        assert_eq!(said(&write_v1(&server, &message)), (400, text.to_owned()));
        assert_eq!((values(&server, "a"), values(&server, "b")), (vec!["1".to_owned()], vec![]), "{text}");
    };
    let rest = series(&b, &[(at, 1.0)]);
    refused(v1(vec![rest.clone(), series(&a, &[(at - 6000, 1.0)])]), "out of order sample");
    let duplicate =
        format!("duplicate sample for timestamp {}; overrides not allowed: existing 1, new value 2", at - 5000);
    refused(v1(vec![series(&a, &[(at - 5000, 2.0), (at - 6000, 1.0)]), rest.clone()]), &duplicate);
    refused(v1(vec![rest.clone(), series(&a, &[(at - 7_200_000, 1.0)])]), "out of bounds");
    let ahead = "out of bounds: timestamp is too far in the future";
    refused(v1(vec![rest.clone(), series(&a, &[(at + 3_600_000, 1.0)])]), ahead);
    // Of samples that stand against others of the request the first is stored, and nobody is told, as in Prometheus.
    let twice = v1(vec![series(&[("__name__", "c")], &[(at, 1.0), (at, 2.0), (at - 1000, 3.0)])]);
    assert_eq!((said(&write_v1(&server, &twice)), values(&server, "c")), ((204, String::new()), vec!["1".to_owned()]));
    // The series of a refused request is no trace of it.
    assert_eq!(write_v1(&server, &v1(vec![rest.clone()])).status, 204);
    assert_eq!(values(&server, "b"), ["1"]);
}

#[test]
fn version_1_names_series_that_are_no_good_and_writes_the_others() {
    let (server, _folder) = start(&[ON]);
    let at = now_ms();
    let mut request = WriteRequest {
        timeseries: vec![
            series(&[("a", "1")], &[(at, 1.0)]),
            series(&[("b", "2"), ("__name__", "good"), ("a", "")], &[(at, 1.0)]),
            series(&[("__name__", "m"), ("a", "1"), ("a", "2")], &[(at, 1.0)]),
        ],
        metadata: vec![MetricMetadata { metric_family_name: "good".to_owned() }],
    };
    let answer = write_v1(&server, &request.encode_to_vec());
    let text = "invalid metric name or labels, got {a=\"1\"}\n\
                invalid labels for series, labels {__name__=\"m\", a=\"1\", a=\"2\"}, duplicated label a";
    assert_eq!(said(&answer), (400, text.to_owned()));
    assert_eq!(samples(&server, "good")[0].0, r#"{"__name__":"good","b":"2"}"#);
    assert_eq!(metric(&server, "prometheus_api_remote_write_invalid_labels_samples_total"), 2.0);

    request.timeseries = vec![series(&[("__name__", "h")], &[(at - 1000, 1.0)])];
    request.timeseries[0].histograms.push(histogram(at));
    request.timeseries[0].exemplars.push(Exemplar { labels: labels(&[("t", "1")]), value: 1.0, timestamp: at });
    assert_eq!(said(&write_v1(&server, &request.encode_to_vec())), (204, String::new()));
    assert_eq!(server.single("histogram_count(h)"), Some(1.0));
    request.timeseries[0].samples.clear();
    request.timeseries[0].histograms = vec![Histogram { zero_count_int: 0, ..histogram(at + 1) }];
    let (status, text) = said(&write_v1(&server, &request.encode_to_vec()));
    assert!(status == 400 && text.contains("observations found in buckets"), "{text}");
    assert_eq!(metric(&server, "watchfire_remote_write_exemplars_dropped_total"), 2.0);
}

#[test]
fn version_2_writes_what_is_good_and_says_how_much() {
    let (server, _folder) = start(&[ON]);
    let at = now_ms();
    let mut good = V2::new();
    let (help, unit) = (good.symbol("Some help."), good.symbol("seconds"));
    let one = good.series(&[("__name__", "a"), ("x", "1")], &[(at - 2000, 1.0), (at - 1000, 2.0)]);
    one.metadata = Some(Metadata { kind: 1, help_ref: help, unit_ref: unit });
    one.samples[0].start_timestamp = at - 10_000;
    good.series(&[("__name__", "b"), ("x", "2")], &[(at, 3.0)]);
    let answer = write_v2(&server, &good);
    assert_eq!((said(&answer), written(&answer)), ((204, String::new()), figures(3, 0, 0)));
    assert_eq!((values(&server, "a"), values(&server, "b")), (vec!["1".into(), "2".into()], vec!["3".to_owned()]));
    good.0.timeseries[0].samples.remove(0);
    let answer = write_v2(&server, &good);
    assert_eq!((said(&answer), written(&answer)), ((204, String::new()), figures(2, 0, 0)), "a repetition is no fault");

    let mut faulty = V2::new();
    faulty.series(&[("__name__", "a"), ("x", "1")], &[(at - 3000, 1.0), (at, 4.0), (at + 3_600_000, 1.0)]);
    faulty.series(&[("x", "1")], &[(at, 1.0), (at + 1, 1.0)]);
    faulty.series(&[("__name__", "c"), ("x", "1"), ("x", "1")], &[(at, 1.0)]);
    faulty.series(&[("__name__", "d")], &[]);
    faulty.series(&[("__name__", "b"), ("x", "2")], &[(at, 5.0)]);
    faulty.series(&[("__name__", "e")], &[(at, 6.0)]).labels_refs.push(1);
    faulty.series(&[("__name__", "f")], &[(at, 6.0)]).labels_refs[1] = 99;
    let name = faulty.symbol("__name__");
    faulty.series(&[("__name__", "g")], &[(at, 7.0)]).metadata = Some(Metadata { kind: 1, help_ref: 0, unit_ref: 77 });
    let one = faulty.series(&[("__name__", "h")], &[(at, 8.0)]);
    one.histograms.extend([histogram(at + 1), Histogram { zero_count_int: 0, ..histogram(at + 2) }, histogram(at - 1)]);
    let exemplars = [vec![1, 1], vec![1], vec![55, 1]].map(|labels_refs| messages::ExemplarV2 {
        labels_refs,
        value: 1.0,
        timestamp: at,
    });
    faulty.series(&[("__name__", "i")], &[(at, 9.0)]).exemplars.extend(exemplars);
    let size = faulty.0.symbols.len();
    let refs = |index: usize| format!("{:?}", faulty.0.timeseries[index].labels_refs).replace(", ", " ");
    let expected = [
        "out of order sample for series {__name__=\"a\", x=\"1\"}".to_owned(),
        "out of bounds: timestamp is too far in the future for series {__name__=\"a\", x=\"1\"}".to_owned(),
        "invalid metric name or labels, got {x=\"1\"}".to_owned(),
        "invalid labels for series, labels {__name__=\"c\", x=\"1\", x=\"1\"}, duplicated label x".to_owned(),
        "TimeSeries must contain at least one sample or histogram for series {__name__=\"d\"}".to_owned(),
        format!(
            "duplicate sample for timestamp {at}; overrides not allowed: existing 3, new value 5 for series {{__name__=\"b\", x=\"2\"}}"
        ),
        format!("parsing labels for series {}: invalid labelRefs length 3", refs(5)),
        format!(
            "parsing labels for series {}: labelRefs {name} (name) = 99 (value) outside of symbols table (size {size})",
            refs(6)
        ),
        format!("parsing metadata for series {}: metadata unit_ref 77 outside of symbols table (size {size})", refs(7)),
        "0 observations found in buckets, but the Count field is 1: histogram's observation count should equal the \
         number of observations found in the buckets (in absence of NaN) for series {__name__=\"h\"}"
            .to_owned(),
        "parsing exemplar for series {__name__=\"i\"}: invalid labelRefs length 1".to_owned(),
        format!(
            "parsing exemplar for series {{__name__=\"i\"}}: labelRefs 55 (name) = 1 (value) outside of symbols table (size {size})"
        ),
    ];
    let answer = write_v2(&server, &faulty);
    assert_eq!(answer.status, 400);
    assert_eq!(answer.text().trim_end().split('\n').collect::<Vec<_>>(), expected);
    // A histogram that stands against the sample of its request is counted, as in Prometheus.
    assert_eq!(written(&answer), figures(3, 2, 1));
    assert_eq!((values(&server, "a").len(), values(&server, "h").len(), values(&server, "i").len()), (3, 1, 1));
    assert_eq!(values(&server, "{__name__=~\"[cdefg]\"}").len(), 0);
    assert_eq!(metric(&server, "prometheus_api_remote_write_invalid_labels_samples_total"), 5.0);
}

/// A start is stored with its sample, or becomes a zero of its own, as the features say, and goes on to others.
#[test]
fn starts_are_stored_and_sent_on() {
    let (folder, receiver, at) = (tempfile::tempdir().unwrap(), sending::receiver(), now_ms());
    let yaml = format!(
        "remote_write: [{{url: 'http://{}/w', protobuf_message: io.prometheus.write.v2.Request, send_native_histograms: true, queue_config: {{batch_send_deadline: 20ms}}}}]\n",
        receiver.addr
    );
    fs::write(folder.path().join("prometheus.yml"), yaml).unwrap();
    let features = "--enable-feature=st-storage,xor2-encoding,promql-experimental-functions,use-start-timestamps";
    let stored = Server::start(folder.path(), &["--config.file=prometheus.yml", ON, features]);
    let (zeros, _folder) = start(&[ON, "--enable-feature=created-timestamp-zero-ingestion"]);
    let mut request = V2::new();
    let one = request.series(&[("__name__", "a")], &[(at - 2000, 1.0), (at - 1000, 2.0)]);
    one.samples.iter_mut().for_each(|sample| sample.start_timestamp = at - 10_000);
    let histogram = Histogram { start_timestamp: at - 9_000, ..histogram(at) };
    request.series(&[("__name__", "h")], &[]).histograms.push(histogram);
    for server in [&stored, &zeros] {
        let answer = write_v2(server, &request);
        assert_eq!((said(&answer), written(&answer)), ((204, String::new()), figures(2, 1, 0)));
    }
    let seconds = |t: i64| Some(t as f64 / 1000.0);
    assert_eq!(stored.single("start_timestamp(a)"), seconds(at - 10_000));
    assert_eq!(stored.single("start_timestamp(h)"), seconds(at - 9_000));
    assert_eq!(values(&zeros, "a"), ["0", "1", "2"]);
    assert_eq!(zeros.single("count_over_time(h[1m])"), Some(2.0));
    wait_for("the starts", || (sending::starts(&receiver) == [at - 10_000, at - 10_000, at - 9_000]).then_some(()));
}

#[test]
fn a_request_larger_than_the_memory_for_requests_is_refused() {
    let (server, _folder) = start(&[ON, "--watchfire.limit.remote-write=1MB"]);
    let at = now_ms();
    let many: Vec<(i64, f64)> = (0..20_000).map(|n| (at - n, 0.0)).rev().collect();
    let (status, text) = said(&write_v1(&server, &v1(vec![series(&[("__name__", "a")], &many)])));
    assert!(status == 413 && text.contains("--watchfire.limit.remote-write"), "{status} {text}");
    assert_eq!(write_v1(&server, &v1(vec![series(&[("__name__", "a")], &many[..1000])])).status, 204);
    assert_eq!(metric(&server, "watchfire_remote_write_refused_total"), 1.0);
}

#[test]
fn a_long_request_is_written_and_known_series_are_found_again() {
    let (server, _folder) = start(&[ON]);
    let at = now_ms();
    let request = |t: i64| {
        let names: Vec<String> = (0..12_000).map(|n| format!("instance-{n:0>80}")).collect();
        v1(names
            .iter()
            .map(|name| series(&[("__name__", "long"), ("instance", name), ("job", "j")], &[(t, 1.0)]))
            .collect())
    };
    assert!((1 << 20) < request(at).len());
    for back in [2000, 1000, 0] {
        assert_eq!(said(&write_v1(&server, &request(at - back))), (204, String::new()));
    }
    assert_eq!(server.single("sum(count_over_time(long[1h]))"), Some(36_000.0));
}

#[test]
fn what_was_acknowledged_is_there_after_a_kill() {
    const WRITERS: usize = 4;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("prometheus.yml"), "").unwrap();
    let args = ["--config.file=prometheus.yml", ON];
    let acknowledged: [AtomicI64; WRITERS] = std::array::from_fn(|_| AtomicI64::new(0));
    let at = now_ms() - 60_000;
    for round in 1..=3 {
        let server = Server::start(folder.path(), &args);
        let killed = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for (writer, acknowledged) in acknowledged.iter().enumerate() {
                let (server, killed) = (&server, &killed);
                scope.spawn(move || {
                    let (writer, mut t) = (writer.to_string(), acknowledged.load(Ordering::SeqCst) + 1);
                    while !killed.load(Ordering::SeqCst) {
                        let message = v1((0..50)
                            .map(|n| {
                                series(
                                    &[("__name__", "k"), ("job", &writer), ("n", &n.to_string())],
                                    &[(at + t, t as f64)],
                                )
                            })
                            .collect());
                        let headers = [("Content-Encoding", "snappy")];
                        match request(&server.addr, "POST", "/api/v1/write", &headers, &snappy(&message)) {
                            Ok(answer) if answer.status == 204 => acknowledged.store(t, Ordering::SeqCst),
                            Ok(answer) => panic!("{}: {}", answer.status, answer.text()),
                            Err(_) => break,
                        }
                        t += 1;
                    }
                });
            }
            let all_wrote = || acknowledged.iter().all(|a| 10 * round <= a.load(Ordering::SeqCst));
            wait_for("acknowledged writes", || all_wrote().then_some(()));
            server.signal("KILL");
            killed.store(true, Ordering::SeqCst);
        });
    }
    let server = Server::start(folder.path(), &args);
    for (writer, acknowledged) in acknowledged.iter().enumerate() {
        let last = acknowledged.load(Ordering::SeqCst);
        let query = format!("min(last_over_time(k{{job=\"{writer}\"}}[1h]))");
        let found = server.single(&query).unwrap();
        assert!(last as f64 <= found && found <= (last + 1) as f64, "{writer}: {last} acknowledged, {found} found");
        // A request that was cut off may be there, of which then all is.
        let count = server.single(&format!("sum(count_over_time(k{{job=\"{writer}\"}}[1h]))")).unwrap();
        assert_eq!(count % 50.0, 0.0);
        assert!(50.0 * last as f64 <= count, "{writer}: {last} acknowledged, {count} found");
    }
}

fn write_otlp(server: &Server, headers: &[(&str, &str)], body: &[u8]) -> (u16, String) {
    said(&request(&server.addr, "POST", "/api/v1/otlp/v1/metrics", headers, body).unwrap())
}

fn gauge(name: &str, nanos: i64, value: f64) -> String {
    format!(
        r#"{{"resourceMetrics":[{{"resource":{{"attributes":[
            {{"key":"service.name","value":{{"stringValue":"shop"}}}},
            {{"key":"host.name","value":{{"stringValue":"h1"}}}}]}},
          "scopeMetrics":[{{"metrics":[{{"name":"{name}","unit":"s","gauge":{{"dataPoints":[
            {{"timeUnixNano":"{nanos}","asDouble":{value},"attributes":[
              {{"key":"http.method","value":{{"stringValue":"GET"}}}}]}}]}}}}]}}]}}]}}"#
    )
}

#[test]
fn otlp_is_off_unless_asked_for() {
    let (server, _folder) = start(&[ON]);
    let off = "otlp write receiver needs to be enabled with --web.enable-otlp-receiver";
    assert_eq!(write_otlp(&server, &[], b""), (404, off.to_owned()));
}

#[test]
fn otlp_becomes_series_by_the_rules_of_the_configuration() {
    const JSON: [(&str, &str); 1] = [("Content-Type", "application/json")];
    let (server, folder) = start(&["--web.enable-otlp-receiver", "--web.enable-lifecycle"]);
    let nanos = now_ms() * 1_000_000;
    assert_eq!(write_otlp(&server, &JSON, gauge("a.b", nanos, 1.5).as_bytes()), (200, String::new()));
    assert_eq!(
        server.query("a_b_seconds"),
        [(serde_json::json!({"__name__": "a_b_seconds", "http_method": "GET", "job": "shop"}), "1.5".to_owned())]
    );
    assert_eq!(
        server.query("target_info")[0].0,
        serde_json::json!({"__name__": "target_info", "host_name": "h1", "job": "shop"})
    );

    let rules = "otlp: {translation_strategy: NoTranslation, promote_resource_attributes: [host.name]}\n";
    fs::write(folder.path().join("prometheus.yml"), rules).unwrap();
    assert_eq!(server.post("/-/reload").status, 200);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut gzip, gauge("a.b", nanos, 2.0).as_bytes()).unwrap();
    let packed = [JSON[0], ("Content-Encoding", "gzip")];
    assert_eq!(write_otlp(&server, &packed, &gzip.finish().unwrap()).0, 200);
    let labels = serde_json::json!({"__name__": "a.b", "host.name": "h1", "http.method": "GET", "job": "shop"});
    assert_eq!(server.query("{\"a.b\"}"), [(labels, "2".to_owned())]);

    let refused = |headers: &[(&str, &str)], body: &[u8]| write_otlp(&server, headers, body);
    // The metric, and `target_info`.
    assert_eq!(
        refused(&JSON, gauge("a.b", nanos - 1_000_000, 1.0).as_bytes()),
        (400, "out of order sample\nout of order sample".to_owned())
    );
    // Times that lie decades apart would have millions of samples of `target_info`.
    let far = gauge("a.b", nanos, 1.0);
    let point = &far[far.find("{\"timeUnixNano\"").unwrap()..far.find("]}}]}]}]}").unwrap()];
    let far = far.replace(point, &format!("{{\"timeUnixNano\":\"0\",\"asDouble\":1}},{point}"));
    assert_eq!(refused(&JSON, far.as_bytes()), (400, "out of bounds\nout of bounds".to_owned()));
    let text = "unsupported content type: text/plain, supported: [application/json, application/x-protobuf]";
    assert_eq!(refused(&[("Content-Type", "text/plain")], b""), (400, text.to_owned()));
    let text = "unsupported compression: zstd. Only \"gzip\" or no compression supported";
    assert_eq!(refused(&[JSON[0], ("Content-Encoding", "zstd")], b""), (400, text.to_owned()));
    let protobuf = [("Content-Type", "application/x-protobuf")];
    assert_eq!(
        (refused(&protobuf, b"").0, refused(&protobuf, b"\x0a\x05a").0, refused(&JSON, b"{").0),
        (200, 400, 400)
    );
    let bomb = {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut gzip, &vec![b' '; (32 << 20) + 1]).unwrap();
        gzip.finish().unwrap()
    };
    assert_eq!(refused(&packed, &bomb), (400, "request body exceeds the 33554432 bytes limit".to_owned()));
    let delta = gauge("d", nanos, 1.0).replace("gauge", "sum");
    let text = "invalid temporality and type combination for metric \"d\"";
    assert_eq!(refused(&JSON, delta.as_bytes()), (500, text.to_owned()));
    assert_eq!(values(&server, "{__name__=\"d\"}").len(), 0);
}

/// Blocks of samples that came out of order.
fn late_blocks(folder: &std::path::Path) -> usize {
    let entries = fs::read_dir(folder.join("data")).unwrap().filter_map(Result::ok);
    let metas = entries.filter_map(|entry| fs::read_to_string(entry.path().join("meta.json")).ok());
    metas.filter(|meta| meta.contains("from-out-of-order")).count()
}

#[test]
fn samples_out_of_order_are_taken_within_the_window_and_become_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let config = |window: &str| {
        let text = format!("storage: {{tsdb: {{out_of_order_time_window: {window}}}}}\n");
        fs::write(folder.path().join("prometheus.yml"), text).unwrap();
    };
    config("30m");
    let usual = ["--config.file=prometheus.yml", ON, "--web.enable-lifecycle"];
    let server = Server::start(folder.path(), &usual);
    // Within an aligned second, so that it is known how many blocks there will be.
    let at = now_ms() / 1000 * 1000;
    let write = |server: &Server, points: &[(i64, f64)]| {
        said(&write_v1(server, &v1(vec![series(&[("__name__", "late"), ("job", "a")], points)])))
    };
    let ok = (204, String::new());
    assert_eq!(write(&server, &[(at - 1, 1.0), (at, 2.0)]), ok);
    assert_eq!(write(&server, &[(at - 600_000, 3.0), (at - 599_990, 4.0), (at - 1_200_000, 5.0)]), ok);
    // Another value for the same time is passed over, as in Prometheus.
    assert_eq!(write(&server, &[(at - 600_000, 9.0), (at - 599_995, 6.0)]), ok);
    assert_eq!(write(&server, &[(at - 1_800_001, 1.0)]), (400, "too old sample".to_owned()));
    let late = [(at - 1_200_000, "5"), (at - 600_000, "3"), (at - 599_995, "6"), (at - 599_990, "4")];
    let expected: Vec<(i64, String)> =
        late.iter().chain(&[(at - 1, "1"), (at, "2")]).map(|(t, value)| (*t, (*value).to_owned())).collect();
    let found = |server: &Server| samples(server, "late").into_iter().map(|(_, points)| points).collect::<Vec<_>>();
    assert_eq!(found(&server), std::slice::from_ref(&expected));
    let figure = "prometheus_tsdb_head_out_of_order_samples_appended_total{type=\"float\"}";
    assert_eq!(metric(&server, figure), 4.0);
    config("0s");
    assert_eq!(request(&server.addr, "POST", "/-/reload", &[], b"").unwrap().status, 200);
    assert_eq!(write(&server, &[(at - 500, 7.0)]), (400, "out of order sample".to_owned()));
    assert_eq!(write(&server, &[(at - 7_200_000, 7.0)]), (400, "out of bounds".to_owned()));
    assert_eq!(found(&server), std::slice::from_ref(&expected));
    server.kill();
    // Without a window, what is there is read and goes into blocks.
    let quick = [
        "--storage.tsdb.min-block-duration=2s",
        "--storage.tsdb.max-block-duration=2s",
        "--storage.tsdb.block-reload-interval=1s",
    ];
    let server = Server::start(folder.path(), &[&usual[..], &quick].concat());
    assert_eq!(found(&server), std::slice::from_ref(&expected));
    assert_eq!(write(&server, &[(at + 10_000, 8.0)]), ok);
    let mut expected = expected;
    expected.push((at + 10_000, "8".to_owned()));
    wait_for("blocks of late samples", || (2 <= late_blocks(folder.path())).then_some(()));
    wait_for("the head to let them go", || (metric(&server, "watchfire_head_late_series") == 0.0).then_some(()));
    let at_end = |server: &Server| {
        let query = support::encode("late[1h]");
        let json = server.get(&format!("/api/v1/query?query={query}&time={}", at / 1000 + 11)).json();
        json["data"]["result"][0]["values"].as_array().cloned().unwrap_or_default().len()
    };
    assert_eq!(at_end(&server), expected.len());
    server.kill();
    let server = Server::start(folder.path(), &usual);
    assert_eq!((at_end(&server), metric(&server, "watchfire_head_late_series")), (expected.len(), 0.0));
}

#[test]
fn a_snapshot_with_the_head_has_what_came_out_of_order() {
    let (folder, other, at) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), now_ms());
    for folder in [&folder, &other] {
        fs::write(folder.path().join("prometheus.yml"), "storage: {tsdb: {out_of_order_time_window: 30m}}\n").unwrap();
    }
    let args = ["--config.file=prometheus.yml", ON, "--web.enable-admin-api"];
    let server = Server::start(folder.path(), &args);
    for points in [vec![(at - 1, 1.0), (at, 2.0)], vec![(at - 900_000, 3.0), (at - 899_000, 4.0)]] {
        let body = v1(vec![series(&[("__name__", "late"), ("job", "a")], &points)]);
        assert_eq!(said(&write_v1(&server, &body)), (204, String::new()));
    }
    let expected = samples(&server, "late");
    assert_eq!(expected[0].1.len(), 4);
    let taken = server.post("/api/v1/admin/tsdb/snapshot").json();
    let name = taken["data"]["name"].as_str().unwrap().to_owned();
    assert_eq!(samples(&server, "late"), expected);
    server.kill();
    fs::rename(folder.path().join("data/snapshots").join(name), other.path().join("data")).unwrap();
    for folder in [&folder, &other] {
        assert_eq!(samples(&Server::start(folder.path(), &args), "late"), expected);
    }
}

/// Exemplars of a metric: value, time in milliseconds and `id`.
fn exemplars(server: &Server, metric: &str) -> Vec<(f64, i64, String)> {
    let json = server.get(&format!("/api/v1/query_exemplars?query={metric}")).json();
    let of = |one: &serde_json::Value| {
        let at = (one["timestamp"].as_f64().unwrap() * 1000.0).round() as i64;
        let value = one["value"].as_str().unwrap().parse().unwrap();
        (value, at, one["labels"]["id"].as_str().unwrap_or_default().to_owned())
    };
    let all = json["data"].as_array().unwrap().clone();
    all.iter().flat_map(|series| series["exemplars"].as_array().unwrap().iter().map(of)).collect()
}

#[test]
fn exemplars_are_stored_where_they_are_wanted_and_survive_a_kill() {
    let flags = [ON, "--enable-feature=exemplar-storage"];
    let (server, folder) = start(&flags);
    let at = now_ms();
    let with = |value: f64, id: &str, timestamp: i64| Exemplar { labels: labels(&[("id", id)]), value, timestamp };
    let mut request = v1(vec![series(&[("__name__", "a")], &[(at - 2, 1.0)])]);
    let mut first = WriteRequest::decode(request.as_slice()).unwrap();
    first.timeseries[0].exemplars = vec![with(1.0, "x", at - 2), with(0.5, "late", at - 9)];
    request = first.encode_to_vec();
    assert_eq!(write_v1(&server, &request).status, 204);
    first.timeseries[0].samples[0].timestamp = at - 1;
    first.timeseries[0].exemplars = vec![with(2.0, "y", at - 1), with(2.0, &"z".repeat(200), at)];
    assert_eq!(write_v1(&server, &first.encode_to_vec()).status, 204, "the series is known by now");

    let mut second = V2::new();
    let (id, name) = (second.symbol("id"), second.symbol("w"));
    let v2_with = |value: f64, timestamp: i64| messages::ExemplarV2 { labels_refs: vec![id, name], value, timestamp };
    let one = second.series(&[("__name__", "a")], &[(at, 3.0)]);
    one.exemplars = vec![v2_with(3.0, at), v2_with(3.0, at), v2_with(9.0, at - 60_000), v2_with(1.0, at + 3_600_000)];
    let answer = write_v2(&server, &second);
    assert_eq!(said(&answer), (400, "out of order exemplar for series {__name__=\"a\"}".to_owned()));
    assert_eq!(written(&answer), figures(1, 0, 2));
    let expected = [(1.0, at - 2, "x"), (2.0, at - 1, "y"), (3.0, at, "w")].map(|(v, t, id)| (v, t, id.to_owned()));
    assert_eq!(exemplars(&server, "a"), expected);
    assert_eq!(metric(&server, "prometheus_tsdb_exemplar_exemplars_in_storage"), 3.0);
    assert_eq!(metric(&server, "prometheus_tsdb_exemplar_max_exemplars"), 100_000.0);
    server.kill();
    let config = "storage: {exemplars: {max_exemplars: 2}}";
    fs::write(folder.path().join("prometheus.yml"), config).unwrap();
    let server = Server::start(folder.path(), &[&["--config.file=prometheus.yml"], &flags[..]].concat());
    assert_eq!(exemplars(&server, "a"), expected[1..]);
}
