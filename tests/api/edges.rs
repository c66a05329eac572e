//! What happens at the edges: browsers, compression, panics, limits, clients that go away.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::client::{Setup, TestServer};

/// Waits until a condition holds; panics after a minute.
#[track_caller]
pub(crate) fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "still waiting until {what}");
        std::thread::yield_now();
    }
}

#[test]
fn cross_origin_headers() {
    let server = TestServer::start(Setup { cors_origin: "https?://(a|b)\\.com", ..Setup::default() });
    let answer = server.request("GET", "/api/v1/labels", &[("Origin", "https://a.com")], "");
    for (name, value) in [
        ("Access-Control-Allow-Headers", "Accept, Authorization, Content-Type, Origin"),
        ("Access-Control-Allow-Methods", "GET, POST, OPTIONS"),
        ("Access-Control-Expose-Headers", "Date"),
        ("Access-Control-Allow-Origin", "https://a.com"),
        ("Vary", "Accept-Encoding, Origin"),
    ] {
        assert_eq!(answer.header(name).as_deref(), Some(value), "{name}");
    }
    let answer = server.request("GET", "/api/v1/labels", &[("Origin", "https://evil.com")], "");
    assert_eq!(answer.header("Access-Control-Allow-Origin"), None);
    let answer = server.request("OPTIONS", "/api/v1/anything", &[("Origin", "http://b.com")], "");
    assert_eq!((answer.status, answer.header("Access-Control-Allow-Origin").as_deref()), (204, Some("http://b.com")));
    for path in ["query", "read", "write", "otlp/v1/metrics"] {
        let answer = server.request("OPTIONS", &format!("/api/v1/{path}"), &[("Origin", "http://b.com")], "");
        let allowed = answer.header("Access-Control-Allow-Origin");
        assert_eq!((answer.status, allowed.as_deref()), (204, Some("http://b.com")), "{path}");
        assert_eq!(answer.header("Vary").as_deref(), Some("Accept-Encoding, Origin"), "{path}");
    }
    assert_eq!(server.request("OPTIONS", "/nope", &[], "").status, 404);
}

#[test]
fn answers_are_compressed_on_request() {
    let server = TestServer::start(Setup::default());
    let plain = server.get("/api/v1/query?query=big");
    assert_eq!(plain.header("Content-Encoding"), None);
    for path in ["/api/v1/query?query=big", "/api/v1/labels"] {
        let plain = server.get(path);
        let answer = server.request("GET", path, &[("Accept-Encoding", "br, gzip")], "");
        assert_eq!(answer.header("Content-Encoding").as_deref(), Some("gzip"));
        let mut body = Vec::new();
        flate2::read::GzDecoder::new(&answer.body[..]).read_to_end(&mut body).unwrap();
        assert_eq!(body, plain.body);
        let answer = server.request("GET", path, &[("Accept-Encoding", "deflate, gzip")], "");
        let mut body = Vec::new();
        flate2::read::ZlibDecoder::new(&answer.body[..]).read_to_end(&mut body).unwrap();
        assert_eq!(body, plain.body);
    }
    let answer = server.request("GET", "/-/healthy", &[("Accept-Encoding", "gzip")], "");
    assert_eq!(answer.header("Content-Encoding"), None);
}

#[test]
fn header_names_are_written_as_go_writes_them() {
    let server = TestServer::start(Setup::default());
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.write_all(b"GET /api/v1/labels HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("\r\nContent-Type: application/json\r\n"), "{answer}");
}

#[test]
fn carelessly_joined_paths_are_sent_to_the_right_ones() {
    let server = TestServer::start(Setup::default());
    let get = server.get("//api/v1/../v1/query?query=1%2B1");
    let to = "/api/v1/query?query=1%2B1";
    assert_eq!((get.status, get.header("Location").as_deref()), (307, Some(to)));
    assert_eq!(get.text(), format!("<a href=\"{to}\">Temporary Redirect</a>.\n\n"));
    assert_eq!(get.header("Content-Type").as_deref(), Some("text/html; charset=utf-8"));
    let post = server.request("POST", "//api/v1/query", &[], "query=1");
    assert_eq!((post.status, post.header("Location").as_deref()), (307, Some("/api/v1/query")));
    assert_eq!((post.text().as_str(), post.header("Content-Type")), ("", None));
    assert_eq!(server.get("/api/v1").header("Location").as_deref(), Some("/api/v1/"));
    assert_eq!(server.get("/api/v1/label//values").header("Location").as_deref(), Some("/api/v1/label/values"));
    assert_eq!(server.get("/api/v1/label/a%2Fb/values").status, 404);
}

#[test]
fn a_timeout_that_is_over_is_an_error_of_the_request() {
    let server = TestServer::start(Setup::default());
    let body =
        r#"{"status":"error","errorType":"bad_data","error":"invalid parameter \"query\": context deadline exceeded"}"#;
    for path in ["query?query=big&timeout=0", "query_range?query=big&start=1&end=2&step=1&timeout=-1"] {
        let answer = server.get(&format!("/api/v1/{path}"));
        assert_eq!((answer.status, answer.text().as_str()), (400, body), "{path}");
    }
}

#[test]
fn a_panicking_handler_costs_one_answer() {
    let server = TestServer::start(Setup::default());
    let answer = server.get("/api/v1/query?query=panic");
    let body = r#"{"status":"error","errorType":"internal","error":"the handler of this request panicked"}"#;
    assert_eq!((answer.status, answer.text().as_str()), (500, body));
    let answer = server.get("/query?g0.expr=panic");
    assert_eq!(answer.status, 500);
    assert_eq!(server.metric("watchfire_http_panics_total", &[("handler", "/api/v1/query")]), 1.0);
    assert_eq!(server.metric("watchfire_http_panics_total", &[("handler", "/query")]), 1.0);
    assert_eq!(server.get("/api/v1/query?query=up").status, 200);
}

#[test]
fn requests_are_bounded() {
    let server =
        TestServer::start(Setup { header_len_max: Some(2_000), body_len_max: Some(1_000), ..Setup::default() });
    let long = "x".repeat(3_000);
    let answer = server.request("GET", "/-/healthy", &[("X-Long", &long)], "");
    assert_eq!((answer.status, answer.text().contains("--watchfire.limit.http.header")), (431, true));
    assert_eq!(server.get(&format!("/api/v1/query?query={long}")).status, 431);
    let answer = server.post_form("/api/v1/query", &format!("query={long}"));
    assert_eq!((answer.status, answer.text().contains("--watchfire.limit.http.body")), (413, true));
    assert_eq!(server.post_form("/api/v1/query", "query=up").status, 200);
    assert_eq!(server.raw(b"GET / HTTP/1.1\r\nBad Header\r\n\r\n").status, 400);
}

#[test]
fn a_body_that_does_not_come_ends_in_time() {
    let server = TestServer::start(Setup { read_timeout: Duration::from_millis(50), ..Setup::default() });
    let head = "POST /api/v1/query HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: 10\r\n\
                Content-Type: application/x-www-form-urlencoded\r\n\r\nque";
    assert_eq!(server.raw(head.as_bytes()).status, 408);
}

#[test]
fn other_bodies_are_not_parameters() {
    let server = TestServer::start(Setup::default());
    let kind = [("Content-Type", "APPLICATION/x-WWW-form-urlencoded; charset=utf-8")];
    let answer = server.request("POST", "/api/v1/query?query=up", &kind, "query=none");
    assert_eq!(answer.text(), r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#);
    let answer = server.request("POST", "/api/v1/query?query=none", &[("Content-Type", "text/plain")], "query=up");
    assert_eq!(answer.text(), r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#);
}

#[test]
fn a_client_that_goes_away_ends_its_query() {
    let server = TestServer::start(Setup::default());
    let mut client = TcpStream::connect(server.address).unwrap();
    client.write_all(b"GET /api/v1/query?query=hang HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    wait_until("the query has begun", || !server.ports.instant.lock().unwrap().is_empty());
    assert_eq!(server.ports.dropped_queries.load(Ordering::SeqCst), 0);
    drop(client);
    wait_until("the query has ended", || server.ports.dropped_queries.load(Ordering::SeqCst) == 1);
    let closed = || server.metric("net_conntrack_listener_conn_closed_total", &[("listener_name", "http")]);
    wait_until("the connection is counted as closed", || closed() == 1.0);
}

#[test]
fn a_client_that_does_not_read_is_cut_off() {
    let server = TestServer::start(Setup::default());
    let mut client = TcpStream::connect(server.address).unwrap();
    let request = b"GET /api/v1/query?query=big HTTP/1.1\r\nHost: test\r\n\r\n";
    // More than any socket buffer holds; the server may stop to read before all of it is written.
    client.set_nonblocking(true).unwrap();
    for _ in 0..200 {
        let _ = client.write(request);
    }
    let closed = || server.metric("net_conntrack_listener_conn_closed_total", &[("listener_name", "http")]);
    wait_until("the connection is closed", || closed() == 1.0);
    drop(client);
}

/// Whether the server has closed a connection, without waiting for more than there is.
fn is_closed(mut stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    match stream.read(&mut [0; 1]) {
        Ok(len) => len == 0,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

#[test]
fn idle_and_half_open_connections_make_room() {
    let server = TestServer::start(Setup { connections_max: 20, ..Setup::default() });
    let busy: Vec<TcpStream> = (0..3)
        .map(|_| {
            let mut client = TcpStream::connect(server.address).unwrap();
            client.write_all(b"GET /api/v1/query?query=hang HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
            client
        })
        .collect();
    wait_until("all queries have begun", || server.ports.instant.lock().unwrap().len() == 3);
    let crowd: Vec<TcpStream> = (0..300)
        .map(|index| {
            let mut client = TcpStream::connect(server.address).unwrap();
            if index % 2 == 0 {
                // One that was closed meanwhile does not take it any more.
                let _ = client.write_all(b"GET /api/v1/labels HTTP/1.1\r\nHo");
            }
            client
        })
        .collect();
    assert_eq!(server.get("/-/healthy").status, 200);
    assert_eq!(server.get("/api/v1/labels").status, 200);
    assert!(busy.iter().all(|client| !is_closed(client)), "a connection with a request in progress was closed");
    let evicted = || server.metric("watchfire_http_connections_evicted_total", &[]);
    wait_until("those who came first are gone", || crowd[..250].iter().all(is_closed));
    assert!(280.0 < evicted(), "{}", evicted());
    assert!(!is_closed(&crowd[299]), "the last that came was closed");
}

#[test]
fn clients_that_keep_their_requests_waiting_make_room() {
    let server = TestServer::start(Setup { connections_max: 4, ..Setup::default() });
    let mut busy = TcpStream::connect(server.address).unwrap();
    busy.write_all(b"GET /api/v1/query?query=hang HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    wait_until("the query has begun", || server.ports.instant.lock().unwrap().len() == 1);
    // Bodies that do not come, and answers that are not taken.
    let crowd: Vec<TcpStream> = (0..40)
        .map(|index| {
            let mut client = TcpStream::connect(server.address).unwrap();
            let _ = client.write_all(match index % 2 {
                0 => {
                    b"POST /api/v1/query HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\
                       Content-Type: application/x-www-form-urlencoded\r\n\r\nque"
                }
                _ => b"GET /api/v1/query?query=big HTTP/1.1\r\nHost: test\r\n\r\n",
            });
            client
        })
        .collect();
    assert_eq!(server.get("/api/v1/labels").status, 200);
    assert!(!is_closed(&busy), "a request that is being answered was ended");
    let evicted = || server.metric("watchfire_http_connections_evicted_total", &[]);
    wait_until("those who came first are gone", || 30.0 < evicted());
    assert_eq!(server.get("/api/v1/labels").status, 200);
    drop(crowd);
}

#[test]
fn a_few_connections_are_kept_when_all_are_busy() {
    let server = TestServer::start(Setup { connections_max: 2, ..Setup::default() });
    let hang = || {
        let mut client = TcpStream::connect(server.address).unwrap();
        let _ = client.write_all(b"GET /api/v1/query?query=hang HTTP/1.1\r\nHost: test\r\n\r\n");
        client
    };
    let mut busy: Vec<TcpStream> = Vec::new();
    for count in 1..=17 {
        busy.push(hang());
        wait_until("the query has begun", || server.ports.instant.lock().unwrap().len() == count);
    }
    // The last one of the reserve, from this machine.
    assert_eq!(server.get("/-/healthy").status, 200);
    assert_eq!(server.get("/api/v1/labels").status, 200);
    busy.push(hang());
    wait_until("the query has begun", || server.ports.instant.lock().unwrap().len() == 18);
    let refused = hang();
    wait_until("one too many is closed", || is_closed(&refused));
    assert_eq!(server.metric("watchfire_http_connections_busy_refused_total", &[]), 1.0);
    assert!(busy.iter().all(|client| !is_closed(client)));
}
