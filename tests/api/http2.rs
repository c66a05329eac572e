//! HTTP/2 over TLS: the same answers as by HTTP/1, and what attackers of the protocol get.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use tokio_rustls::TlsConnector;

use crate::client::{Answer, Setup, TestServer, parse};
use crate::edges::wait_until;
use crate::secure::{Authority, Folder, basic, client_config, connect};

/// A server of TLS with its authority.
struct Scene {
    authority: Authority,
    server: TestServer,
    _folder: Folder,
}

impl Scene {
    fn start(more: &str, setup: Setup) -> Self {
        let authority = Authority::new("a");
        let (cert, key) = authority.sign("localhost");
        let folder = Folder::new();
        folder.write("cert.pem", &cert);
        folder.write("key.pem", &key);
        let tls = "tls_server_config: {cert_file: cert.pem, key_file: key.pem}";
        let web_config = Some(folder.write("web.yml", &format!("{{{tls}{more}}}")));
        Self { authority, server: TestServer::start(Setup { web_config, ..setup }), _folder: folder }
    }

    /// A client's side of a connection of HTTP/2 whose task runs on.
    async fn open(&self) -> SendRequest<Bytes> {
        let config = client_config(&self.authority.pem(), &["h2"]);
        let stream = tokio::net::TcpStream::connect(self.server.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        let mut builder = h2::client::Builder::new();
        // It takes all that there is, however many answers share the connection.
        builder.initial_window_size(1 << 24).initial_connection_window_size(1 << 28);
        let (send, connection) = builder.handshake(stream).await.unwrap();
        tokio::spawn(connection);
        send.ready().await.unwrap()
    }

    /// What a client by HTTP/1 is answered.
    fn http1(&self, request: &str) -> Answer {
        let mut stream = connect(&self.server, client_config(&self.authority.pem(), &["http/1.1"]));
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        parse(&answer)
    }

    #[track_caller]
    fn is_healthy(&self) {
        let answer = self.http1("GET /-/healthy HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert_eq!(answer.status, 200);
    }

    fn raw(&self) -> Raw {
        let mut raw = Raw(connect(&self.server, client_config(&self.authority.pem(), &["h2"])));
        raw.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        raw.send(&frame(SETTINGS, 0, 0, &[]));
        raw
    }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async { tokio::time::timeout(Duration::from_secs(60), work).await.expect("no answer") })
}

/// Asks and reads the whole answer. After the body, if there is one, come trailers, which nobody asked for.
async fn ask(send: &mut SendRequest<Bytes>, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut request = http::Request::builder().method(method).uri(format!("https://localhost{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (answer, mut stream) = send.send_request(request.body(()).unwrap(), body.is_empty()).unwrap();
    if !body.is_empty() {
        stream.send_data(Bytes::copy_from_slice(body.as_bytes()), false).unwrap();
        let mut trailers = http::HeaderMap::new();
        trailers.insert("authorization", "Basic x".parse().unwrap());
        stream.send_trailers(trailers).unwrap();
    }
    let (head, mut body) = answer.await.unwrap().into_parts();
    let mut bytes = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece.unwrap();
        body.flow_control().release_capacity(piece.len()).unwrap();
        bytes.extend_from_slice(&piece);
    }
    let headers = head.headers.iter().map(|(n, v)| (n.as_str().to_owned(), v.to_str().unwrap().to_owned()));
    Answer { status: head.status.as_u16(), headers: headers.collect(), body: bytes }
}

/// Names in lower case, in order, without what belongs to one of the protocols.
fn comparable(answer: &Answer) -> (u16, Vec<(String, String)>, String) {
    let headers = answer.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone()));
    let own = |name: &str| matches!(name, "date" | "connection" | "transfer-encoding" | "content-length");
    let mut headers: Vec<_> = headers.filter(|(name, _)| !own(name)).collect();
    headers.sort();
    (answer.status, headers, answer.text_lossy())
}

#[test]
fn http2_answers_as_http1_does() {
    let scene = Scene::start(", http_server_config: {headers: {X-Frame-Options: deny}}", Setup::default());
    run(async {
        let mut send = scene.open().await;
        let form = ("Content-Type", "application/x-www-form-urlencoded");
        for (method, path, header, body) in [
            ("GET", "/-/healthy", ("A", "b"), ""),
            ("HEAD", "/-/healthy", ("A", "b"), ""),
            ("GET", "/", ("A", "b"), ""),
            ("GET", "/nope", ("A", "b"), ""),
            ("GET", "//api/v1/../v1/labels", ("A", "b"), ""),
            ("GET", "/api/v1/query?query=up{a=%22b%22}|^%60", ("Origin", "http://a"), ""),
            ("POST", "/api/v1/query", form, "query=up"),
            ("POST", "/api/v1/query", form, "query="),
            ("OPTIONS", "/api/v1/query", ("Origin", "http://a"), ""),
            ("DELETE", "/api/v1/query", ("A", "b"), ""),
            ("PUT", "/-/reload", ("A", "b"), "x"),
            ("GET", "/api/v1/query?query=big", ("A", "b"), ""),
            ("GET", "/api/v1/query?query=panic", ("A", "b"), ""),
            ("GET", "/targets", ("A", "b"), ""),
        ] {
            let answer = ask(&mut send, method, path, &[header], body).await;
            let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
            let (name, value) = header;
            let text = format!(
                "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{name}: {value}\r\n{length}\r\n{body}"
            );
            let expected = scene.http1(&text);
            assert_eq!(comparable(&answer), comparable(&expected), "{method} {path}");
            assert!(answer.header("date").is_some());
            let len = answer.header("content-length").map(|len| len.parse::<usize>().unwrap());
            assert!(method == "HEAD" || len.is_none_or(|len| len == answer.body.len()), "{method} {path}");
        }
        // What the HTTP library of this client refuses to send; curl sends it.
        let mut raw = scene.raw();
        let careless = block(GET, "/api/v1/query?query=up{a=\"b\"}>0");
        raw.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &careless));
        while let Some((kind, _, payload)) = raw.next() {
            assert_ne!(kind, RST_STREAM);
            if kind == DATA {
                assert!(payload.starts_with(b"{\"status\":\"success\""));
                break;
            }
        }
        assert_eq!(scene.server.ports.instant.lock().unwrap().last().unwrap().query, "up{a=\"b\"}>0");
        let packed = ask(&mut send, "GET", "/api/v1/query?query=big", &[("Accept-Encoding", "gzip")], "").await;
        assert_eq!(packed.header("content-encoding").as_deref(), Some("gzip"));
        // Many at a time, over the one connection.
        let one = |mut send: SendRequest<Bytes>| async move {
            ask(&mut send, "GET", "/api/v1/query?query=big", &[], "").await.body.len()
        };
        let lens = futures::future::join_all((0..60).map(|_| one(send.clone()))).await;
        assert!(lens.iter().all(|len| *len == lens[0] && 100_000 < *len), "{lens:?}");
    });
    assert_eq!(scene.server.metric("net_conntrack_listener_conn_accepted_total", &[("listener_name", "http")]), 16.0);
}

#[test]
fn http2_asks_for_the_password_of_each_request() {
    let hash = bcrypt::hash("secret", 4).unwrap();
    let scene = Scene::start(&format!(", basic_auth_users: {{alice: '{hash}'}}"), Setup::default());
    run(async {
        let mut send = scene.open().await;
        for path in ["/-/healthy", "/nope", "/api/v1/labels"] {
            let right = basic("alice:secret");
            assert_eq!(ask(&mut send, "GET", path, &[], "").await.status, 401);
            assert_ne!(ask(&mut send, "GET", path, &[("Authorization", &right)], "").await.status, 401);
            assert_eq!(ask(&mut send, "GET", path, &[("Authorization", &basic("alice:no"))], "").await.status, 401);
        }
        // Trailers are no headers.
        assert_eq!(ask(&mut send, "POST", "/api/v1/labels", &[], "x").await.status, 401);
    });
}

#[test]
fn a_client_that_resets_a_stream_ends_its_query() {
    let scene = Scene::start("", Setup::default());
    let dropped = || scene.server.ports.dropped_queries.load(Ordering::SeqCst);
    run(async {
        let mut send = scene.open().await;
        let request = |query: &str| {
            let uri = format!("https://localhost/api/v1/query?query={query}");
            http::Request::builder().uri(uri).body(()).unwrap()
        };
        let (answer, stream) = send.send_request(request("hang"), true).unwrap();
        while scene.server.ports.instant.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(dropped(), 0);
        drop((answer, stream));
        while dropped() == 0 {
            tokio::task::yield_now().await;
        }
        // An answer that is given up in its middle costs nobody anything.
        let (answer, _) = send.send_request(request("big"), true).unwrap();
        let mut body = answer.await.unwrap().into_body();
        assert!(body.data().await.unwrap().is_ok());
        drop(body);
        assert_eq!(ask(&mut send, "GET", "/-/healthy", &[], "").await.status, 200);
        // The connection takes all of its requests with it.
        let _open: Vec<_> = (0..5).map(|_| send.send_request(request("hang"), true).unwrap()).collect();
        while scene.server.ports.instant.lock().unwrap().len() < 7 {
            tokio::task::yield_now().await;
        }
    });
    wait_until("the queries have ended", || dropped() == 6);
    scene.is_healthy();
}

#[test]
fn requests_by_http2_are_bounded() {
    let setup = Setup { header_len_max: Some(2_000), body_len_max: Some(1_000), ..Setup::default() };
    let scene = Scene::start("", setup);
    run(async {
        let mut send = scene.open().await;
        let form = [("Content-Type", "application/x-www-form-urlencoded")];
        let long = "x".repeat(3_000);
        let answer = ask(&mut send, "GET", "/-/healthy", &[("X-Long", &long)], "").await;
        assert_eq!((answer.status, answer.text().contains("--watchfire.limit.http.header")), (431, true));
        let answer = ask(&mut send, "POST", "/api/v1/query", &form, &format!("query={long}")).await;
        assert_eq!((answer.status, answer.text().contains("--watchfire.limit.http.body")), (413, true));
        let lines: Vec<String> = (0..100).map(|n| format!("x{n}")).collect();
        let lines: Vec<(&str, &str)> = lines.iter().map(|name| (name.as_str(), "")).collect();
        assert_eq!(ask(&mut send, "GET", "/-/healthy", &lines, "").await.status, 431);
        let longer = "x".repeat(6_000);
        assert_eq!(ask(&mut send, "GET", "/-/healthy", &[("X-Long", &longer)], "").await.status, 431);
        assert_eq!(ask(&mut send, "GET", "/-/healthy", &[], "").await.status, 200);
    });
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![len[1], len[2], len[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// The header block of a GET, or of a POST.
fn block(method: u8, path: &str) -> Vec<u8> {
    let mut block = vec![method, 0x87, 0x04, u8::try_from(path.len()).unwrap()];
    block.extend_from_slice(path.as_bytes());
    block.extend_from_slice(b"\x01\x01a");
    block
}

const GET: u8 = 0x82;
const POST: u8 = 0x83;
const HANG: &str = "/api/v1/query?query=hang";

/// A client that minds no rules.
struct Raw(StreamOwned<ClientConnection, TcpStream>);

impl Raw {
    /// Sends what the server still takes; false once it has closed.
    fn send(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).and_then(|()| self.0.flush()).is_ok()
    }

    /// Kind, stream and payload of the next frame; `None` at the end.
    fn next(&mut self) -> Option<(u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.0.read_exact(&mut payload).ok()?;
        Some((head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
    }

    /// The code with which a stream is reset.
    fn reset(&mut self) -> Option<u32> {
        loop {
            let (kind, _, payload) = self.next()?;
            if kind == RST_STREAM {
                return Some(u32::from_be_bytes(payload.try_into().unwrap()));
            }
        }
    }

    /// The code of the farewell, once the server has closed; the outer `None` if it stays open for long.
    fn farewell(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some((kind, _, payload)) = self.next() {
            if kind == GOAWAY {
                code = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
            }
        }
        code
    }
}

const NO_ERROR: u32 = 0;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

#[test]
fn floods_over_http2_end_the_connection_and_nothing_else() {
    let scene = Scene::start("", Setup { connections_max: 512, ..Setup::default() });
    let begun = || scene.server.ports.instant.lock().unwrap().len();
    let dropped = || scene.server.ports.dropped_queries.load(Ordering::SeqCst);
    let hang = |stream| frame(HEADERS, END_STREAM | END_HEADERS, stream, &block(GET, HANG));
    let cancel = |stream| frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes());

    // More streams than may be open: those beyond are refused.
    let mut raw = scene.raw();
    assert!(raw.send(&(0..70).flat_map(|n| hang(2 * n + 1)).collect::<Vec<u8>>()));
    for _ in 64..70 {
        assert_eq!(raw.reset(), Some(REFUSED_STREAM));
    }
    assert!(begun() <= 64);
    scene.is_healthy();
    drop(raw);
    wait_until("all are given up", || dropped() == begun());

    // Requests that are reset before they are looked at (CVE-2023-44487).
    let mut raw = scene.raw();
    let flood: Vec<u8> = (0..5_000).flat_map(|n| [hang(2 * n + 1), cancel(2 * n + 1)].concat()).collect();
    flood.chunks(16_000).all(|piece| raw.send(piece));
    assert_eq!(raw.farewell().unwrap_or(ENHANCE_YOUR_CALM), ENHANCE_YOUR_CALM);
    scene.is_healthy();
    wait_until("all are given up", || dropped() == begun());

    // The same at leisure: each is being answered when it is reset.
    let (mut raw, before) = (scene.raw(), begun());
    let mut count = 0;
    while count < 1_000 && raw.send(&hang(2 * count + 1)) {
        count += 1;
        let has_begun = || before + count as usize <= begun() || before + 100 < begun();
        wait_until("the query has begun", has_begun);
        if !raw.send(&cancel(2 * count - 1)) || before + 100 < begun() {
            break;
        }
    }
    assert_eq!(raw.farewell(), Some(ENHANCE_YOUR_CALM));
    assert_eq!(begun() - before, 101);
    scene.is_healthy();

    // Headers without end (CVE-2024-27316), and those that unpack to much more than they are.
    let mut raw = scene.raw();
    raw.send(&frame(HEADERS, END_STREAM, 1, &block(GET, HANG)));
    let more = frame(CONTINUATION, 0, 1, b"\x00\x01x\x01y");
    (0..10_000).all(|_| raw.send(&more));
    assert_eq!(raw.farewell().unwrap_or(ENHANCE_YOUR_CALM), ENHANCE_YOUR_CALM);
    let mut raw = scene.raw();
    let mut bomb = [&block(GET, HANG)[..], b"\x40\x01x\x7f\xb9\x16", &[b'y'; 3_000]].concat();
    bomb.resize(16_000, 0xbe);
    raw.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &bomb));
    assert_eq!(raw.farewell(), Some(ENHANCE_YOUR_CALM));
    scene.is_healthy();

    // Bodies that come byte by byte, and those that come without being allowed.
    let post = |stream| frame(HEADERS, END_HEADERS, stream, &block(POST, HANG));
    let mut raw = scene.raw();
    raw.send(&post(1));
    let small = frame(DATA, 0, 1, b"");
    (0..10_000).all(|_| raw.send(&small));
    assert!(raw.farewell().is_none_or(|code| code != NO_ERROR));
    let mut raw = scene.raw();
    raw.send(&post(1));
    let large = frame(DATA, 0, 1, &[b'x'; 16_000]);
    (0..100).all(|_| raw.send(&large));
    assert!(raw.reset().is_none_or(|code| code != NO_ERROR));
    drop(raw);
    scene.is_healthy();
    wait_until("all are given up", || dropped() == begun());
}

#[test]
fn idle_and_stalled_clients_of_http2_are_let_go() {
    // One that takes nothing of its answer.
    let scene = Scene::start("", Setup::default());
    let mut raw = scene.raw();
    raw.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
    raw.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(GET, "/api/v1/query?query=big")));
    assert_eq!(raw.reset(), Some(CANCEL));
    drop(raw);

    let scene = Scene::start("", Setup { read_timeout: Duration::from_millis(100), ..Setup::default() });
    // One that never says what it wants, one that begins to, one that has had its answer.
    let mut silent = connect(&scene.server, client_config(&scene.authority.pem(), &["h2"]));
    silent.write_all(b"PRI * HT").unwrap();
    let ended = silent.read_to_end(&mut Vec::new()).map_err(|error| error.kind());
    assert!(!matches!(ended, Err(std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)), "{ended:?}");
    let mut raw = scene.raw();
    raw.send(&frame(HEADERS, END_STREAM, 1, &block(GET, HANG)));
    assert_eq!(raw.farewell(), Some(NO_ERROR));
    let mut raw = scene.raw();
    raw.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(GET, "/-/healthy")));
    assert_eq!(raw.farewell(), Some(NO_ERROR));
    // A body that does not come.
    let mut raw = scene.raw();
    let form = b"\x0f\x10\x21application/x-www-form-urlencoded";
    raw.send(&frame(HEADERS, END_HEADERS, 1, &[&block(POST, HANG)[..], form].concat()));
    let answer = loop {
        let (kind, _, payload) = raw.next().unwrap();
        if kind == DATA {
            break String::from_utf8(payload).unwrap();
        }
    };
    assert_eq!(answer, "request body took longer than --web.read-timeout\n");
    assert_eq!(raw.farewell(), Some(NO_ERROR));

    // The longest idle one makes room for another.
    let scene = Scene::start("", Setup { connections_max: 3, ..Setup::default() });
    let mut crowd: Vec<Raw> = (0..6).map(|_| scene.raw()).collect();
    assert!(crowd[0].farewell().is_none());
    scene.is_healthy();
    assert!(1.0 < scene.server.metric("watchfire_http_connections_evicted_total", &[]));
}
