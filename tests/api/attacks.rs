//! Attacks on the HTTP surface by somebody who can reach the port: every route, with every method, and with requests that
//! proxies, browsers and file systems have fallen for.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::client::{Answer, Setup, TestServer, parse};
use crate::edges::wait_until;

pub(crate) const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"];

/// All paths that are served, from the table of routes.
pub(crate) fn paths() -> Vec<String> {
    let table = include_str!("../../src/http/routes.rs");
    let parts = table.split("route!(").skip(1);
    let literals = parts.filter_map(|part| part.trim_start().strip_prefix('"')?.split('"').next());
    let paths: Vec<String> = literals.map(|path| path.replace('*', "job")).collect();
    assert!(40 < paths.len(), "{paths:?}");
    paths
}

/// Sends a request over a connection of its own and reads what comes until the server closes or nothing comes any more.
fn exchange(server: &TestServer, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // The server may refuse before all is written.
    let _ = stream.write_all(request);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut raw = Vec::new();
    let _ = stream.read_to_end(&mut raw);
    String::from_utf8_lossy(&raw).into_owned()
}

#[test]
fn no_route_changes_anything_without_a_flag() {
    let server = TestServer::start(Setup::default());
    let query = "?file=/etc/passwd&config=/etc/passwd&path=/etc/passwd&match[]=up&query=up&start=0&end=1&step=1";
    for path in paths().iter().filter(|path| !path.ends_with("/live")) {
        for method in METHODS {
            let answer = server.request(method, &format!("{path}{query}"), &[], "");
            assert!(!answer.text_lossy().contains("root:"), "{method} {path}");
            if !matches!(method, "GET" | "POST" | "PUT" | "OPTIONS" | "HEAD") {
                assert!(matches!(answer.status, 405 | 403), "{method} {path}: {}", answer.status);
            }
        }
    }
    for method in ["POST", "PUT"] {
        for path in ["/-/reload", "/-/quit"] {
            let answer = server.request(method, path, &[], "");
            assert_eq!((answer.status, answer.text()), (403, "Lifecycle API is not enabled.".to_owned()), "{path}");
        }
    }
    let (reloads, quits) = (&server.ports.reloads, &server.ports.quits);
    assert_eq!((reloads.load(Ordering::SeqCst), quits.load(Ordering::SeqCst)), (0, 0));
    assert_eq!(server.get("/-/healthy").status, 200);
}

#[test]
fn every_answer_has_strict_headers() {
    let server = TestServer::start(Setup { enable_lifecycle: false, ..Setup::default() });
    let all = paths();
    let more = ["/nope", "/%ff", "//api/v1/labels", "/-/healthy/", "/api/v1/query"].map(str::to_owned);
    for path in all.iter().chain(&more).filter(|path| !path.ends_with("/live")) {
        for method in ["GET", "POST", "PUT", "OPTIONS"] {
            let answer = server.request(method, path, &[], "");
            let what = format!("{method} {path}");
            assert_eq!(answer.header("X-Content-Type-Options").as_deref(), Some("nosniff"), "{what}");
            let policy = answer.header("Content-Security-Policy").unwrap_or_default();
            assert!(
                policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
                "{what}: {policy}"
            );
            assert!(!policy.contains("unsafe"), "{what}: {policy}");
            assert_eq!(answer.header("Access-Control-Allow-Credentials"), None, "{what}");
        }
    }
}

#[test]
fn no_path_leaves_the_server_or_its_files() {
    let server = TestServer::start(Setup::default());
    let starts = ["", "/static", "/query", "/api/v1", "/-", "/favicon.svg", "/consoles", "/user", "/api/v1/label/x"];
    let steps = ["..", "%2e%2e", "..%2f", "%2e%2e%2f", "..\\", "..%5c", ".%00.", "..;", "%252e%252e", "..%c0%af"];
    for start in starts {
        for step in steps {
            for depth in [1, 4, 9] {
                let path = format!("{start}/{}/etc/passwd", vec![step; depth].join("/"));
                let answer = server.request("GET", &path, &[], "");
                assert!(!answer.text_lossy().contains("root:"), "{path}");
                assert!(matches!(answer.status, 307 | 301 | 400 | 404), "{path}: {}", answer.status);
            }
        }
    }
    for path in [
        "/\\evil.example",
        "//evil.example",
        "///evil.example/",
        "/new//evil.example",
        "/%2f%2fevil.example/",
        "//evil.example/%2e%2e",
        "/%5cevil.example/",
        "/.//evil.example/",
        "/@evil.example",
        "//evil.example/-/healthy/",
        "/-/healthy//evil.example/..",
        "/query//evil.example",
        "/-/healthy%2F",
        "/api/v1/query%2f",
    ] {
        for prefix in ["", "https://x.org/prom/"] {
            let external_url = if prefix.is_empty() { "http://vm:9090" } else { prefix };
            let server = TestServer::start(Setup { external_url, ..Setup::default() });
            let answer =
                server.request("GET", path, &[("Host", "evil.example"), ("X-Forwarded-Host", "evil.example")], "");
            if let Some(to) = answer.header("Location") {
                let second = to.chars().nth(1);
                assert!(to.starts_with('/') && !matches!(second, Some('/' | '\\')), "{path} leads to {to}");
            }
        }
    }
}

#[test]
fn two_readers_never_see_different_requests() {
    let server = TestServer::start(Setup::default());
    let smuggled = "GET /api/v1/status/flags HTTP/1.1\r\nHost: x\r\n\r\n";
    let length = smuggled.len();
    let shapes: Vec<(&str, String)> = vec![
        (
            "length and chunks",
            format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        ),
        ("chunks and length", format!("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n{smuggled}")),
        ("two lengths", format!("Content-Length: 0\r\nContent-Length: {length}\r\n\r\n{smuggled}")),
        ("a list of lengths", format!("Content-Length: 0, {length}\r\n\r\n{smuggled}")),
        ("a signed length", format!("Content-Length: +{length}\r\n\r\n{smuggled}")),
        ("a negative length", format!("Content-Length: -1\r\n\r\n{smuggled}")),
        ("an unknown coding", format!("Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{smuggled}")),
        (
            "a coding twice",
            format!("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n{smuggled}"),
        ),
        ("a space before the colon", format!("Content-Length : {length}\r\n\r\n{smuggled}")),
        ("a folded line", format!("X-A: b\r\n Content-Length: {length}\r\n\r\n{smuggled}")),
        ("a bad chunk", format!("Transfer-Encoding: chunked\r\n\r\nzz\r\n{smuggled}")),
        ("a chunk that overflows", format!("Transfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\n{smuggled}")),
        ("a line that ends without a return", format!("X-A: b\nContent-Length: {length}\r\n\r\n{smuggled}")),
        ("a head that ends without a return", format!("Content-Length: 0\r\n\n{smuggled}")),
        ("a NUL", format!("X-A: b\0\r\nContent-Length: 0\r\n\r\n{smuggled}")),
    ];
    for (name, rest) in shapes {
        let answer = exchange(&server, format!("POST /-/healthy HTTP/1.1\r\nHost: x\r\n{rest}").as_bytes());
        let begun = answer.matches("HTTP/1.1 ").count();
        // The second would be right only where the first is beyond doubt over.
        assert!(begun <= 1, "{name}: {answer}");
        let is_refused = answer.is_empty() || answer.starts_with("HTTP/1.1 400");
        assert!(is_refused || !name.contains("return") && !name.contains("folded"), "{name}: {answer}");
    }
    let bare = exchange(&server, b"GET /-/healthy HTTP/1.1\nHost: x\n\n");
    assert!(bare.starts_with("HTTP/1.1 400"), "{bare}");
    // What is right is answered, both requests of it.
    let pair = format!("GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n{smuggled}");
    assert_eq!(exchange(&server, pair.as_bytes()).matches("HTTP/1.1 200").count(), 2);
}

#[test]
fn unknown_methods_make_no_series() {
    let server = TestServer::start(Setup::default());
    server.request("X0", "/api/v1/query", &[], "");
    let before = server.series();
    for index in 0..200 {
        server.request(&format!("M{index}"), "/api/v1/query", &[], "");
        server.request("GET", &format!("/api/v1/label/name{index}/values"), &[], "");
        server.request("GET", &format!("/nope{index}"), &[], "");
    }
    let added = server.series() - before;
    assert!(added <= 20, "{added} series came with 200 methods and paths");
}

#[test]
fn a_header_that_does_not_come_ends_in_time() {
    let server = TestServer::start(Setup { read_timeout: Duration::from_millis(100), ..Setup::default() });
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.write_all(b"GET /-/healthy HTTP/1.1\r\nHo").unwrap();
    let begun = Instant::now();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut raw = Vec::new();
    stream.read_to_end(&mut raw).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(50));
    assert!(raw.is_empty() || parse(&raw).status == 408, "{}", String::from_utf8_lossy(&raw));
    // Nor does one that follows other requests, be it known where it begins or not.
    let server = TestServer::start(Setup { read_timeout: Duration::from_secs(2), ..Setup::default() });
    for first in [
        "GET /-/healthy HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /api/v1/query HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(first.as_bytes()).unwrap();
        let mut answer = [0; 4096];
        let len = stream.read(&mut answer).unwrap();
        assert!(answer[..len].starts_with(b"HTTP/1.1 "));
        stream.write_all(b"GET /-/healthy HTTP/1.1\r\nHo").unwrap();
        let mut raw = Vec::new();
        stream.read_to_end(&mut raw).unwrap();
        assert!(!String::from_utf8_lossy(&raw).contains("200"));
    }
}

/// Sends the beginning of a form, `len` bytes of a body that is one byte longer.
fn begin_form(server: &TestServer, len: usize) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).unwrap();
    let head = format!(
        "POST /api/v1/query HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n",
        len + 1
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&vec![b'a'; len]).unwrap();
    stream
}

#[test]
fn bodies_of_all_requests_are_bounded_together() {
    let server = TestServer::start(Setup::default());
    let held = [begin_form(&server, (1 << 20) - 1), begin_form(&server, (1 << 20) - 1)];
    let ask = || server.post_form("/api/v1/query", "query=up");
    wait_until("there is no room", || ask().status == 503);
    assert!(ask().text().contains("--watchfire.limit.http.body"));
    assert_eq!(server.get("/api/v1/query?query=up").status, 200);
    drop(held);
    wait_until("there is room again", || ask().status == 200);
}

#[test]
fn parameters_are_bounded_in_number() {
    let server = TestServer::start(Setup::default());
    assert_eq!(server.post_form("/api/v1/query", &format!("query=up{}", "&a".repeat(9_999))).status, 200);
    let answer = server.post_form("/api/v1/query", &format!("query=up{}", "&".repeat(10_000)));
    assert_eq!((answer.status, answer.text()), (400, "more than 10000 parameters\n".to_owned()));
}

#[test]
fn pages_of_other_sites_change_nothing_though_all_is_switched_on() {
    let server = TestServer::start(Setup { enable_lifecycle: true, ..Setup::default() });
    let paths = [
        "/-/reload",
        "/-/quit",
        "/api/watchfire/v1/reload",
        "/api/watchfire/v1/queries/1/cancel",
        "/api/v1/admin/tsdb/delete_series?match[]=up",
        // A form needs nobody's permission, and may come without a type.
        "/api/v1/write",
        "/api/v1/otlp/v1/metrics",
    ];
    for path in paths {
        for headers in [
            &[("Origin", "http://evil.example")][..],
            &[("Origin", "null")],
            &[("Sec-Fetch-Site", "cross-site"), ("Content-Type", "text/plain")],
            &[("Sec-Fetch-Site", "same-site"), ("Origin", "http://test:1")],
        ] {
            let answer = server.request("POST", path, headers, "a=b");
            assert_eq!(answer.status, 403, "{path} {headers:?}");
            assert!(answer.text().contains("cross-origin request refused"), "{path}: {}", answer.text());
        }
    }
    let (reloads, quits) = (&server.ports.reloads, &server.ports.quits);
    assert_eq!((reloads.load(Ordering::SeqCst), quits.load(Ordering::SeqCst)), (0, 0));
    for headers in [&[][..], &[("Origin", "http://test")], &[("Sec-Fetch-Site", "same-origin"), ("Origin", "http://a")]]
    {
        assert_eq!(server.request("POST", "/-/reload", headers, "").status, 200, "{headers:?}");
    }
}

/// A page whose name was made to point here (DNS rebinding) is of the same origin in the eyes of its browser.
#[test]
fn who_asks_by_another_name_is_refused_where_names_are_given() {
    let server = TestServer::start(Setup { hosts: Some("prom\\.example"), enable_lifecycle: true, ..Setup::default() });
    let ask = |host: &str, path: &str| {
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nConnection: close\r\n\r\n");
        server.raw(head.as_bytes()).status
    };
    for host in ["evil.example", "evil.example:9090", "prom.example.evil", "127.0.0.1.evil"] {
        for path in ["/-/reload", "/api/v1/query?query=up", "/metrics", "/nope"] {
            assert_eq!(ask(host, path), 421, "{host} {path}");
        }
    }
    assert_eq!(ask("prom.example", "http://evil.example/-/reload"), 421);
    assert_eq!(server.ports.reloads.load(Ordering::SeqCst), 0);
    for host in ["prom.example", "prom.example:9090", "127.0.0.1:9090", "localhost", "[::1]:9090"] {
        assert_eq!(ask(host, "/api/v1/query?query=up"), 200, "{host}");
    }
}

#[test]
fn links_are_built_of_the_configured_url_alone() {
    let server = TestServer::start(Setup::default());
    let headers = [
        ("Host", "evil.example"),
        ("X-Forwarded-Host", "evil.example"),
        ("Forwarded", "host=evil.example"),
        ("X-Original-URL", "/evil.example"),
        ("Origin", "http://evil.example"),
    ];
    for path in paths().iter().filter(|path| !path.ends_with("/live")) {
        let answer: Answer = server.request("GET", path, &headers, "");
        assert!(!answer.text_lossy().contains("evil.example"), "{path}");
        let location = answer.header("Location").unwrap_or_default();
        assert!(!location.contains("evil.example"), "{path} leads to {location}");
    }
}
