//! Answers that are written piece by piece, events, and what else the server says of itself.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;

use watchfire::http::notices::Notice;

use crate::client::{Setup, TestServer};

#[test]
fn long_answers_come_in_pieces_and_are_the_same() {
    let server = TestServer::start(Setup::default());
    let short = server.get("/api/v1/query?query=up");
    assert!(short.header("Content-Length").is_some() && short.header("Transfer-Encoding").is_none());
    let long = server.get("/api/v1/query?query=big");
    assert_eq!(long.header("Transfer-Encoding").as_deref(), Some("chunked"));
    let json: serde_json::Value = serde_json::from_slice(&long.body).unwrap();
    assert_eq!(json["data"]["result"].as_array().unwrap().len(), 5000);
    assert_eq!(json["data"]["result"][4999]["value"][1], "4999");
    let limited = server.get("/api/v1/query?query=big&limit=2000&stats=true");
    let json: serde_json::Value = serde_json::from_slice(&limited.body).unwrap();
    assert_eq!(json["data"]["result"].as_array().unwrap().len(), 2000);
    assert_eq!(json["warnings"][0], "results truncated due to limit");
    assert_eq!(json["data"]["stats"]["timings"]["evalTotalTime"], 0.5);
    for (encoding, name) in [("gzip", "gzip"), ("zstd, gzip", "zstd"), ("gzip, deflate, br, zstd", "gzip")] {
        let packed = server.request("GET", "/api/v1/query?query=big", &[("Accept-Encoding", encoding)], "");
        assert_eq!(packed.header("Content-Encoding").as_deref(), Some(name));
        assert_eq!(packed.header("Vary").as_deref(), Some("Accept-Encoding, Origin"));
        let mut body = Vec::new();
        match name {
            "gzip" => drop(flate2::read::GzDecoder::new(&packed.body[..]).read_to_end(&mut body).unwrap()),
            _ => body = zstd::stream::decode_all(&packed.body[..]).unwrap(),
        }
        assert!(body == long.body && packed.body.len() * 4 < body.len(), "{encoding}");
    }
    let sizes = server.get("/api/v1/query?query=big").body.len();
    assert_eq!(sizes, long.body.len());
}

#[test]
fn who_knows_no_chunks_gets_none() {
    let server = TestServer::start(Setup::default());
    let long = server.get("/api/v1/query?query=big");
    for more in ["", "Connection: keep-alive\r\n", "Accept-Encoding: gzip\r\n"] {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.write_all(format!("GET /api/v1/query?query=big HTTP/1.0\r\n{more}\r\n").as_bytes()).unwrap();
        let mut raw = Vec::new();
        stream.read_to_end(&mut raw).unwrap();
        let end = raw.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(raw[..end].to_vec()).unwrap();
        assert!(head.starts_with("HTTP/1.0 200 OK") && !head.contains("Transfer-Encoding"), "{head}");
        let mut body = Vec::new();
        match more.contains("gzip") {
            true => drop(flate2::read::GzDecoder::new(&raw[end + 4..]).read_to_end(&mut body).unwrap()),
            false => body = raw[end + 4..].to_vec(),
        }
        assert!(body == long.body, "{more}");
    }
    // Short ones have a length, and the connection may go on.
    let mut stream = TcpStream::connect(server.address).unwrap();
    let one = "GET /-/healthy HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    stream.write_all(format!("{one}GET /-/healthy HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
    let mut raw = String::new();
    stream.read_to_string(&mut raw).unwrap();
    assert_eq!(raw.matches("HTTP/1.0 200 OK").count(), 2, "{raw}");
}

#[test]
fn notifications_are_listed_and_sent_as_they_come() {
    let server = TestServer::start(Setup::default());
    let listed = |server: &TestServer| server.get("/api/v1/notifications").text();
    assert_eq!(listed(&server), r#"{"status":"success","data":[]}"#);
    server.notices.add(Notice::ReloadFailed);
    let event = r#"{"text":"Configuration reload has failed.","date":"2015-07-01T20:10:51.781Z","active":true}"#;
    assert_eq!(listed(&server), format!(r#"{{"status":"success","data":[{event}]}}"#));

    let listen = || {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
        let request =
            "GET /api/v1/notifications/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAccept-Encoding: gzip\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
        let head: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
        (head, lines)
    };
    let (head, mut lines) = listen();
    assert_eq!(head[0], "HTTP/1.1 200 OK");
    for header in ["Content-Type: text/event-stream", "Cache-Control: no-cache", "Transfer-Encoding: chunked"] {
        assert!(head.iter().any(|line| line == header), "{header} {head:?}");
    }
    let mut told = || lines.find(|line| line.starts_with("data: ")).unwrap();
    assert_eq!(told(), format!("data: {event}"));
    server.notices.remove(Notice::ReloadFailed);
    assert_eq!(told(), format!("data: {}", event.replace("true", "false")));
    let (second, _kept) = listen();
    assert_eq!(second[0], "HTTP/1.1 200 OK");
    // Two may listen here.
    assert_eq!(listen().0[0], "HTTP/1.1 204 No Content");
    server.notices.close();
    assert_eq!(lines.last().as_deref(), Some(""), "the stream ends in order");
}

#[test]
fn queries_are_listed_and_ended_by_who_may() {
    let server = TestServer::start(Setup { enable_lifecycle: true, ..Setup::default() });
    let listed = server.get("/api/watchfire/v1/queries");
    let query = concat!(
        r#"{"id":"7","query":"up > 1","kind":"range","start":1,"end":2.500,"step":0.5,"#,
        r#""startedAt":"2015-07-01T20:10:50.781Z","durationSeconds":1,"clientIP":"10.0.0.1"}"#
    );
    let expected = format!(r#"{{"status":"success","data":{{"queries":[{}]}}}}"#, query.replace('>', "\\u003e"));
    assert_eq!((listed.status, listed.text()), (200, expected));
    for (method, path, status) in [
        ("POST", "/api/watchfire/v1/queries/7/cancel", 204),
        ("DELETE", "/api/watchfire/v1/queries/7", 204),
        ("DELETE", "/api/watchfire/v1/queries/8", 404),
        ("DELETE", "/api/watchfire/v1/queries/x", 404),
        ("GET", "/api/watchfire/v1/queries/7/cancel", 405),
        ("POST", "/api/watchfire/v1/queries/7", 405),
    ] {
        assert_eq!(server.request(method, path, &[], "").status, status, "{method} {path}");
    }
    assert_eq!(server.ports.cancelled.load(Ordering::SeqCst), 2);
    let server = TestServer::start(Setup::default());
    let refused = server.request("DELETE", "/api/watchfire/v1/queries/7", &[], "");
    let text = r#"{"status":"error","errorType":"forbidden","error":"admin APIs disabled"}"#;
    assert_eq!((refused.status, refused.text().as_str()), (403, text));
    assert_eq!(server.ports.cancelled.load(Ordering::SeqCst), 0);
}

#[test]
fn features_and_our_own_metrics() {
    let server = TestServer::start(Setup::default());
    let features = r#"{"status":"success","data":{"api":{"a":true,"b":false},"promql_operators":{"</":true}}}"#;
    assert_eq!(server.get("/api/v1/features").text(), features);
    let metrics = concat!(
        r#"{"status":"success","data":["#,
        r#"{"name":"a_total","help":"A.","type":"COUNTER","metric":[{"label":[{"name":"x","value":"1"}],"counter":{"value":3}}]},"#,
        r#"{"name":"g","type":"GAUGE","metric":[{"gauge":{"value":"NaN"}}]},"#,
        r#"{"name":"h","type":"HISTOGRAM","metric":[{"histogram":{"sampleCount":"1","sampleSum":0.5,"#,
        r#""bucket":[{"cumulativeCount":"1","upperBound":1}]}}]},"#,
        r#"{"name":"s","type":"SUMMARY","metric":[{"summary":{"sampleCount":"2","sampleSum":1.5,"#,
        r#""quantile":[{"quantile":0.5,"value":"Infinity"}]}}]}]}"#
    );
    assert_eq!(server.get("/api/v1/status/self_metrics").text(), metrics);
    let some = server.get("/api/v1/status/self_metrics?metric_name_pattern=a_.*").text();
    assert!(some.contains("a_total") && !some.contains("GAUGE"), "{some}");
    let none = server.get("/api/v1/status/self_metrics?metric_name_pattern=a");
    assert_eq!(none.text(), r#"{"status":"success","data":[]}"#);
    let wrong = server.get("/api/v1/status/self_metrics?metric_name_pattern=(");
    let text = "invalid metric_name_pattern: error parsing regexp: missing closing ): `";
    assert!(wrong.status == 400 && wrong.text().contains(text), "{}", wrong.text());
}

#[test]
fn names_are_searched_where_that_is_switched_on() {
    let off = TestServer::start(Setup::default()).get("/api/v1/search/metric_names");
    let text = r#"{"status":"error","errorType":"unavailable","error":"search API disabled"}"#;
    assert_eq!((off.status, off.text().as_str()), (500, text));
    let server = TestServer::start(Setup { enable_lifecycle: true, ..Setup::default() });
    let all = server.get("/api/v1/search/label_names");
    assert_eq!(all.header("Content-Type").as_deref(), Some("application/x-ndjson; charset=utf-8"));
    let lines = concat!(
        r#"{"results":[{"name":"__name__"},{"name":"instance"},{"name":"job"}]}"#,
        "\n",
        r#"{"status":"success","has_more":false}"#,
        "\n"
    );
    assert_eq!((all.status, all.text().as_str()), (200, lines));
    let some = server.get("/api/v1/search/label_names?search[]=e&sort_by=score&limit=1&include_score=true");
    let lines = concat!(
        r#"{"results":[{"name":"__name__","score":0.24975}]}"#,
        "\n",
        r#"{"status":"success","has_more":true}"#,
        "\n"
    );
    assert_eq!(some.text(), lines);
    let values = server.request(
        "POST",
        "/api/v1/search/label_values",
        &[("Content-Type", "application/x-www-form-urlencoded")],
        "label=job&batch_size=1&sort_by=alpha&sort_dir=dsc",
    );
    let lines = concat!(
        r#"{"results":[{"value":"y"}],"warnings":["w"]}"#,
        "\n",
        r#"{"results":[{"value":"\u003cx\u003e"}]}"#,
        "\n",
        r#"{"status":"success","has_more":false}"#,
        "\n"
    );
    assert_eq!(values.text(), lines);
    let metadata = server.get("/api/v1/search/metric_names?include_metadata=true&search[]=y").text();
    assert!(
        metadata.starts_with(r#"{"results":[{"name":"y","type":"gauge","help":"Y."}],"warnings":["w"]}"#),
        "{metadata}"
    );
    for (query, text) in [
        ("label_values", "missing required parameter \\\"label\\\""),
        ("label_names?limit=51", "limit 51 exceeds the configured maximum (50, see --web.search.max-limit)"),
        ("label_names?start=2&end=1", "end timestamp must not be before start timestamp"),
        ("label_names?start=x", "invalid time value for 'start': cannot parse \\\"x\\\" to a valid timestamp"),
        (&format!("label_names?search[]={}", "a".repeat(4097)), "search[] term too long: 4097 bytes, maximum is 4096"),
        ("label_names?fuzz_threshold=101", "invalid fuzz_threshold \\\"101\\\": must be 0-100"),
        ("label_names?fuzz_alg=x", "unsupported fuzz_alg \\\"x\\\": must be one of [subsequence jarowinkler]"),
    ] {
        let answer = server.get(&format!("/api/v1/search/{query}"));
        assert!(answer.status == 400 && answer.text().contains(text), "{query} {}", answer.text());
    }
}
