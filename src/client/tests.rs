//! The client against peers that speak raw HTTP, so that every byte and every connection is known.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

mod oauth2;
mod proxy;
mod tls;

use crate::config::http_client::{Authorization, BasicAuth, Header, Headers};
use crate::model::secret::Secret;

/// What a peer does with its n-th connection and with the head of each request on it.
type Script = fn(usize, &str) -> Reply;

enum Reply {
    Text(String),
    CloseAfter(String),
    Close,
    Hang,
}

struct Peer {
    addr: SocketAddr,
    connections: Arc<AtomicUsize>,
    heads: Arc<Mutex<Vec<String>>>,
}

async fn peer(script: Script) -> Peer {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (connections, heads) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let peer = Peer { addr, connections: Arc::clone(&connections), heads: Arc::clone(&heads) };
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let index = connections.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(serve(stream, index, script, Arc::clone(&heads)));
        }
    });
    peer
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    index: usize,
    script: Script,
    heads: Arc<Mutex<Vec<String>>>,
) {
    let mut head = Vec::new();
    while let Ok(byte) = stream.read_u8().await {
        head.push(byte);
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        let text = String::from_utf8_lossy(&head).to_lowercase();
        head.clear();
        heads.lock().push(text.clone());
        match script(index, &text) {
            Reply::Text(answer) => stream.write_all(answer.as_bytes()).await.unwrap_or(()),
            Reply::CloseAfter(answer) => return stream.write_all(answer.as_bytes()).await.unwrap_or(()),
            Reply::Close => return,
            Reply::Hang => std::future::pending().await,
        }
    }
}

fn client() -> HttpClient {
    HttpClient::new(ClientOptions { user_agent: "test".into(), follow_redirects: true })
}

fn url(addr: SocketAddr, path: &str) -> Url {
    Url::parse(&format!("http://{addr}{path}")).unwrap()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

async fn body(response: Response) -> Result<String, Failure> {
    let mut body = response.body;
    let mut all = Vec::new();
    while let Some(chunk) = body.chunk().await? {
        all.extend_from_slice(&chunk);
    }
    Ok(String::from_utf8(all).unwrap())
}

fn ok(text: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len())
}

#[tokio::test]
async fn ten_requests_share_a_connection() {
    let peer = peer(|_, _| Reply::Text(ok("a 1\n"))).await;
    let client = client();
    for _ in 0..10 {
        let response = client.send(Request::get(url(peer.addr, "/metrics")), soon()).await.unwrap();
        assert_eq!(body(response).await.unwrap(), "a 1\n");
    }
    assert_eq!(peer.connections.load(Ordering::SeqCst), 1);
    assert!(peer.heads.lock()[0].contains("user-agent: test\r\n"));
}

#[tokio::test]
async fn errors_read_as_in_go() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let refused = client().send(Request::get(url(closed, "/metrics")), soon()).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!("Get \"http://{closed}/metrics\": dial tcp {closed}: connect: connection refused")
    );

    let hanging = peer(|_, _| Reply::Hang).await;
    let at = Instant::now() + Duration::from_millis(50);
    let late = client().send(Request::get(url(hanging.addr, "/")), at).await.unwrap_err();
    assert_eq!(late.failure, Failure::Deadline);

    let closing = peer(|_, _| Reply::Close).await;
    let eof = client().send(Request::get(url(closing.addr, "/")), soon()).await.unwrap_err();
    assert_eq!(eof.to_string(), format!("Get \"http://{}/\": EOF", closing.addr));
    assert_eq!(closing.connections.load(Ordering::SeqCst), 1, "a fresh connection's end is no reason to repeat");

    let other = client().send(Request::get(Url::parse("ftp://host/").unwrap()), soon()).await.unwrap_err();
    assert_eq!(other.to_string(), "Get \"ftp://host/\": unsupported protocol scheme \"ftp\"");

    let flood = peer(|_, _| Reply::Text(format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(200_000)))).await;
    let error = client().send(Request::get(url(flood.addr, "/")), soon()).await.unwrap_err();
    assert_eq!(error.failure, Failure::HeadTooLarge);
}

#[tokio::test]
async fn what_is_no_answer_is_told_as_in_go() {
    let cases: [(Script, &str); 4] = [
        (|_, _| Reply::Text("SSH-2.0-x\r\n".into()), "malformed HTTP response \"SSH-2.0-x\""),
        (|_, _| Reply::CloseAfter("no end".into()), "malformed HTTP status code \"end\""),
        (|_, _| Reply::Text("HTTP/1.1 2000 OK\r\n\r\n".into()), "malformed HTTP status code \"2000\""),
        (|_, _| Reply::Text("HTTP/x 200 OK\r\n\r\n".into()), "malformed HTTP version \"HTTP/x\""),
    ];
    for (script, told) in cases {
        let peer = peer(script).await;
        let error = client().send(Request::get(url(peer.addr, "/")), soon()).await.unwrap_err();
        assert_eq!(error.failure.to_string(), format!("net/http: HTTP/1.x transport connection broken: {told}"));
    }
}

#[tokio::test]
async fn a_reset_names_both_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let resetting = tokio::spawn(async move {
        let (stream, peer) = listener.accept().await.unwrap();
        stream.peek(&mut [0]).await.unwrap();
        // With the request unread, the kernel resets the connection.
        drop(stream);
        peer
    });
    let error = client().send(Request::get(url(addr, "/")), soon()).await.unwrap_err();
    let own = resetting.await.unwrap();
    assert_eq!(
        error.to_string(),
        format!("Get \"http://{addr}/\": read tcp {own}->{addr}: read: connection reset by peer")
    );
}

#[tokio::test]
async fn a_port_that_was_written_is_shown_and_sent() {
    let usual = |text: &str| Request { has_usual_port: true, ..Request::get(Url::parse(text).unwrap()) };
    let error = client().send(usual("ftp://host:21/x"), soon()).await.unwrap_err();
    assert!(error.to_string().starts_with("Get \"ftp://host:21/x\": "), "{error}");
    let message = client().message(&usual("http://host:80")).unwrap();
    assert_eq!(message.headers()[HOST], "host:80");
    let error = ClientError::new(&usual("http://u:p@[::1]:80?q=/"), Failure::Eof);
    assert_eq!(error.to_string(), "Get \"http://u:***@[::1]:80/?q=/\": EOF");
}

#[tokio::test]
async fn a_broken_body_is_an_error() {
    let peer = peer(|_, _| Reply::CloseAfter("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf".into())).await;
    let response = client().send(Request::get(url(peer.addr, "/")), soon()).await.unwrap();
    assert_eq!(body(response).await, Err(Failure::UnexpectedEof));
}

#[tokio::test]
async fn an_idle_connection_that_the_peer_closed_is_replaced() {
    let peer = peer(|index, head| match (index, head.starts_with("get /second")) {
        (0, true) => Reply::Close,
        _ => Reply::Text(ok("x")),
    })
    .await;
    let client = client();
    body(client.send(Request::get(url(peer.addr, "/first")), soon()).await.unwrap()).await.unwrap();
    let second = client.send(Request::get(url(peer.addr, "/second")), soon()).await.unwrap();
    assert_eq!(body(second).await.unwrap(), "x");
    assert_eq!(peer.connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn credentials_do_not_follow_a_redirect_to_another_host() {
    let other = peer(|_, _| Reply::Text(ok("there"))).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let first = listener.local_addr().unwrap();
    let answer = format!("HTTP/1.1 302 Found\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n", url(other.addr, "/x"));
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer).await;
        let _ = stream.write_all(answer.as_bytes()).await;
    });
    let mut request = Request::get(url(first, "/"));
    let header = |name: &'static str| (HeaderName::from_static(name), HeaderValue::from_static("text"));
    request.headers = vec![header("authorization"), header("accept"), header("x-api-key")];
    let response = client().send(request, soon()).await.unwrap();
    assert_eq!(body(response).await.unwrap(), "there");
    let head = other.heads.lock()[0].clone();
    assert!(head.contains("accept: text") && !head.contains("authorization") && !head.contains("x-api-key"), "{head}");
}

#[tokio::test]
async fn redirects_end_after_ten() {
    let peer =
        peer(|_, _| Reply::Text("HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n".into())).await;
    let error = client().send(Request::get(url(peer.addr, "/")), soon()).await.unwrap_err();
    assert_eq!(error.failure, Failure::TooManyRedirects);
    assert_eq!(error.to_string(), "Get \"/again\": stopped after 10 redirects");
    assert_eq!(peer.heads.lock().len(), 11);
}

#[tokio::test]
async fn a_status_is_told_in_the_words_of_the_peer() {
    let peer = peer(|_, head| {
        let line = match head.split([' ', '/']).nth(2) {
            Some("custom") => "503 Custom Words",
            Some("usual") => "503 Service Unavailable",
            Some("none") => "503 ",
            _ => "299 ",
        };
        Reply::Text(format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n"))
    })
    .await;
    let client = client();
    let cases =
        [("custom", "503 Custom Words"), ("usual", "503 Service Unavailable"), ("none", "503"), ("other", "299")];
    for (path, expected) in cases {
        let request = Request::get(url(peer.addr, &format!("/{path}")));
        let mut answer = client.send(request, soon()).await.unwrap();
        assert_eq!(answer.status_text(), expected);
        assert!(answer.body.excerpt(9).await.unwrap().is_empty());
    }
}

#[test]
fn a_password_is_not_shown() {
    let request = Request::get(Url::parse("http://user:hunter2@host/").unwrap());
    let text = ClientError::new(&request, Failure::Eof).to_string();
    assert_eq!(text, "Get \"http://user:***@host/\": EOF");
}

#[tokio::test]
async fn each_connection_knows_whether_it_has_answered() {
    // Two connections to one peer: the older one goes bad after the younger one has answered.
    let peer = peer(|index, head| match (index, head.starts_with("get /again")) {
        (0, true) => Reply::Close,
        _ => Reply::Text(ok("x")),
    })
    .await;
    let client = client();
    let both = [(); 2].map(|()| client.send(Request::get(url(peer.addr, "/first")), soon()));
    for answered in futures::future::join_all(both).await {
        assert_eq!(body(answered.unwrap()).await.unwrap(), "x");
    }
    let both = [(); 2].map(|()| client.send(Request::get(url(peer.addr, "/again")), soon()));
    for answered in futures::future::join_all(both).await {
        assert_eq!(body(answered.unwrap()).await.unwrap(), "x");
    }
}

#[tokio::test]
async fn userinfo_is_basic_authentication_unless_a_header_says_otherwise() {
    let peer = peer(|_, _| Reply::Text(ok("x"))).await;
    let with_user = |user: &str| Url::parse(&format!("http://{user}@{}/m", peer.addr)).unwrap();
    client().send(Request::get(with_user("user:pass")), soon()).await.unwrap();
    let mut request = Request::get(with_user("user:pass"));
    request.headers = vec![(AUTHORIZATION, HeaderValue::from_static("bearer token"))];
    client().send(request, soon()).await.unwrap();
    let heads = peer.heads.lock();
    assert!(heads[0].starts_with("get /m http/1.1\r\n"), "{}", heads[0]);
    assert!(heads[0].contains("authorization: basic dxnlcjpwyxnz\r\n"), "{}", heads[0]);
    assert!(heads[1].contains("authorization: bearer token\r\n") && !heads[1].contains("basic"), "{}", heads[1]);
}

#[tokio::test]
async fn userinfo_does_not_follow_a_redirect_to_another_host() {
    let other = peer(|_, _| Reply::Text(ok("there"))).await;
    let first = peer(|_, head| {
        let location = head.lines().find_map(|line| line.strip_prefix("x-next: ")).unwrap_or_default();
        Reply::Text(format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"))
    })
    .await;
    let mut request = Request::get(Url::parse(&format!("http://user:pass@{}/", first.addr)).unwrap());
    let next = HeaderValue::from_str(url(other.addr, "/x").as_str()).unwrap();
    request.headers = vec![(HeaderName::from_static("x-next"), next)];
    let response = client().send(request, soon()).await.unwrap();
    assert_eq!(body(response).await.unwrap(), "there");
    assert!(first.heads.lock()[0].contains("authorization: basic"));
    assert!(!other.heads.lock()[0].contains("authorization"), "{}", other.heads.lock()[0]);
}

/// A peer whose answers have as many headers as the path of the request says, one of them the length of the body.
async fn peer_of_headers() -> Peer {
    peer(|_, head| {
        let path = head.split([' ', '/']).nth(2).unwrap_or_default();
        let others = path.parse::<usize>().unwrap_or(1) - 1;
        Reply::Text(format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n{}\r\nx", "a:\r\n".repeat(others)))
    })
    .await
}

#[tokio::test]
async fn as_many_headers_are_read_as_fit_the_head() {
    let peer = peer_of_headers().await;
    let response = client().send(Request::get(url(peer.addr, "/15000")), soon()).await.unwrap();
    assert_eq!(response.headers.len(), 15_000);
    assert_eq!(body(response).await.unwrap(), "x");
    let error = client().send(Request::get(url(peer.addr, "/17000")), soon()).await.unwrap_err();
    assert_eq!(error.failure, Failure::HeadTooLarge);
    let text =
        format!("Get \"http://{}/17000\": net/http: server response headers exceeded 65536 bytes; aborted", peer.addr);
    assert_eq!(error.to_string(), text);
}

#[tokio::test]
async fn an_answer_with_more_headers_than_usual_is_asked_for_once_more() {
    let peer = peer_of_headers().await;
    let client = client();
    let read = |headers: usize| {
        let (client, peer) = (&client, &peer);
        async move {
            let before = peer.heads.lock().len();
            let request = Request::get(url(peer.addr, &format!("/{headers}")));
            let response = client.send(request, soon()).await.unwrap();
            assert_eq!(response.headers.len(), headers);
            assert_eq!(body(response).await.unwrap(), "x");
            peer.heads.lock().len() - before
        }
    };
    assert_eq!(read(1).await, 1);
    assert_eq!(read(USUAL_HEADERS_MAX).await, 1);
    assert_eq!(peer.connections.load(Ordering::SeqCst), 1);
    assert_eq!(read(USUAL_HEADERS_MAX + 1).await, 2, "there was no room at first");
    assert_eq!(read(USUAL_HEADERS_MAX + 1).await, 1, "from then on there is");
    assert_eq!(read(1).await, 1);
    // Too many for any room: not asked for again and again.
    let before = peer.heads.lock().len();
    client.send(Request::get(url(peer.addr, "/17000")), soon()).await.unwrap_err();
    assert_eq!(peer.heads.lock().len() - before, 1);
}

#[tokio::test]
async fn what_may_not_be_repeated_has_room_for_all_headers_at_once() {
    let peer = peer_of_headers().await;
    let request = Request { method: Method::POST, ..Request::get(url(peer.addr, "/1000")) };
    let response = client().send(request, soon()).await.unwrap();
    assert_eq!((response.headers.len(), peer.heads.lock().len()), (1000, 1));
}

#[tokio::test]
async fn more_headers_than_usual_behind_a_connection_that_was_closed() {
    // The idle connection turns out to be closed, and the answer on the next one has many headers.
    let peer = peer(|index, head| match (index, head.starts_with("get /again")) {
        (0, true) => Reply::Close,
        (_, true) => Reply::Text(format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n{}\r\nx", "a:\r\n".repeat(200))),
        _ => Reply::Text(ok("x")),
    })
    .await;
    let client = client();
    assert_eq!(body(client.send(Request::get(url(peer.addr, "/first")), soon()).await.unwrap()).await.unwrap(), "x");
    let response = client.send(Request::get(url(peer.addr, "/again")), soon()).await.unwrap();
    assert_eq!((response.headers.len(), peer.heads.lock().len()), (201, 4));
}

fn with(config: HttpClientConfig) -> HttpClient {
    HttpClient::from_config("test".into(), &HttpClientConfig { follow_redirects: true, ..config })
}

fn basic(username: &str, password: &str) -> HttpClientConfig {
    let password = Secret::new(password.to_owned());
    let basic = BasicAuth { username: username.to_owned(), password, ..BasicAuth::default() };
    HttpClientConfig { basic_auth: Some(basic), ..HttpClientConfig::default() }
}

fn header(name: &str, header: Header) -> HttpClientConfig {
    let headers = Headers([(name.to_owned(), header)].into());
    HttpClientConfig { http_headers: Some(headers), ..HttpClientConfig::default() }
}

/// The head of the request that a client of `config` sends; the peer makes it lower case.
async fn head_of(config: HttpClientConfig) -> String {
    let peer = peer(|_, _| Reply::Text(ok("x"))).await;
    with(config).send(Request::get(url(peer.addr, "/m")), soon()).await.unwrap();
    peer.heads.lock()[0].clone()
}

#[tokio::test]
async fn configured_credentials_are_headers() {
    let head = head_of(basic("user", "pass")).await;
    assert!(head.contains("\r\nauthorization: basic dxnlcjpwyxnz\r\n"), "{head}");

    let credentials = Secret::new("t0k".to_owned());
    let authorization = Authorization { auth_type: "Token".into(), credentials, ..Authorization::default() };
    let head = head_of(HttpClientConfig { authorization: Some(authorization), ..HttpClientConfig::default() }).await;
    assert!(head.contains("\r\nauthorization: token t0k\r\n"), "{head}");
    let bare = Authorization { auth_type: "Bearer".into(), ..Authorization::default() };
    let head = head_of(HttpClientConfig { authorization: Some(bare), ..HttpClientConfig::default() }).await;
    assert!(head.contains("\r\nauthorization: bearer\r\n"), "{head}");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, "three\n").unwrap();
    let values = vec![" one ".to_owned()];
    let secrets = vec![Secret::new("two".to_owned())];
    let files = vec![file.to_string_lossy().into_owned().into()];
    let head = head_of(header("X-Key", Header { values, secrets, files })).await;
    assert!(head.contains("\r\nx-key: one\r\nx-key: two\r\nx-key: three\r\n"), "{head}");
}

#[tokio::test]
async fn what_a_request_brings_goes_before_the_configuration() {
    let peer = peer(|_, _| Reply::Text(ok("x"))).await;
    let client = with(basic("user", "pass"));
    let named = Url::parse(&format!("http://other:one@{}/", peer.addr)).unwrap();
    client.send(Request::get(named), soon()).await.unwrap();
    let mut own = Request::get(url(peer.addr, "/"));
    own.headers = vec![(AUTHORIZATION, HeaderValue::from_static("own"))];
    client.send(own, soon()).await.unwrap();
    let heads = peer.heads.lock();
    assert!(heads[0].contains("authorization: basic b3rozxi6b25l\r\n"), "{}", heads[0]);
    assert!(heads[1].contains("authorization: own\r\n") && !heads[1].contains("basic"), "{}", heads[1]);
}

#[tokio::test]
async fn a_rotated_file_holds_from_the_next_request_on() {
    let folder = tempfile::tempdir().unwrap();
    let (user, password) = (folder.path().join("user"), folder.path().join("password"));
    std::fs::write(&user, "user\n").unwrap();
    std::fs::write(&password, "  old\n").unwrap();
    let name = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let basic =
        BasicAuth { username_file: name(&user).into(), password_file: name(&password).into(), ..BasicAuth::default() };
    let peer = peer(|_, _| Reply::Text(ok("x"))).await;
    let client = with(HttpClientConfig { basic_auth: Some(basic), ..HttpClientConfig::default() });
    body(client.send(Request::get(url(peer.addr, "/")), soon()).await.unwrap()).await.unwrap();
    std::fs::write(&password, "new").unwrap();
    body(client.send(Request::get(url(peer.addr, "/")), soon()).await.unwrap()).await.unwrap();
    let heads = peer.heads.lock().clone();
    assert!(heads[0].contains("authorization: basic dxnlcjpvbgq=\r\n"), "{}", heads[0]);
    assert!(heads[1].contains("authorization: basic dxnlcjpuzxc=\r\n"), "{}", heads[1]);
    assert_eq!(peer.connections.load(Ordering::SeqCst), 1);

    std::fs::remove_file(&password).unwrap();
    let error = client.send(Request::get(url(peer.addr, "/m")), soon()).await.unwrap_err().to_string();
    let file = name(&password);
    assert_eq!(
        error,
        format!(
            "Get \"http://{}/m\": unable to read basic auth password: unable to read file {file}: open {file}: no such \
             file or directory",
            peer.addr
        )
    );
    std::fs::write(&password, vec![b'x'; 65 * 1024]).unwrap();
    let error = client.send(Request::get(url(peer.addr, "/m")), soon()).await.unwrap_err().to_string();
    assert!(error.ends_with(&format!("read {file}: larger than 65536 bytes")), "{error}");
}

#[tokio::test]
async fn configured_headers_do_not_follow_a_redirect_to_another_host() {
    let other = peer(|_, _| Reply::Text(ok("there"))).await;
    let first = peer(|_, head| {
        let next = head.lines().next().and_then(|line| line.split(['?', ' ']).nth(2)).unwrap_or_default();
        let location =
            if head.starts_with("get /here") { format!("/there?{next}") } else { format!("http://{next}/x") };
        Reply::Text(format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"))
    })
    .await;
    let headers = [("Accept", "a-secret"), ("X-Key", "key")]
        .map(|(name, value)| (name.to_owned(), Header { values: vec![value.to_owned()], ..Header::default() }));
    let config = HttpClientConfig { http_headers: Some(Headers(headers.into())), ..basic("user", "pass") };
    let request = Request::get(url(first.addr, &format!("/here?{}", other.addr)));
    let response = with(config).send(request, soon()).await.unwrap();
    assert_eq!(body(response).await.unwrap(), "there");
    let heads = first.heads.lock().clone();
    assert_eq!(heads.len(), 2, "one redirect stays on the host");
    for head in heads {
        assert!(head.contains("authorization: basic") && head.contains("x-key: key"), "{head}");
    }
    let head = other.heads.lock()[0].clone();
    assert!(!head.contains("authorization") && !head.contains("secret") && !head.contains("key"), "{head}");
}

#[tokio::test]
async fn secrets_are_not_shown() {
    let client = with(HttpClientConfig {
        http_headers: header("X-Key", Header { secrets: vec![Secret::new("hunter2".into())], ..Header::default() })
            .http_headers,
        ..basic("user", "hunter2")
    });
    assert!(!format!("{client:?} {:?}", client.credentials).contains("hunter2"));
    let mut request = Request::get(Url::parse("http://host/").unwrap());
    client.credentials.add_to(&mut request, soon()).await.unwrap();
    assert_eq!(request.headers.len(), 2);
    assert!(!format!("{request:?}").contains("hunter2") && !format!("{request:?}").contains("dXNlcjpodW50ZXIy"));

    for (name, value) in [("X-Key", "hunter2\r\nInjected: 1"), ("bad name", "hunter2")] {
        let config = header(name, Header { secrets: vec![Secret::new(value.into())], ..Header::default() });
        let error = with(config).send(Request::get(Url::parse("http://host/").unwrap()), soon()).await.unwrap_err();
        let Failure::Other(text) = &error.failure else { panic!("{error}") };
        assert!(text.starts_with("net/http: invalid header field") && text.contains(name), "{text}");
        assert!(!error.to_string().contains("hunter2") && !format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}

#[tokio::test]
async fn a_credential_file_that_hangs_holds_few_threads_and_no_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let file = path.to_string_lossy().into_owned().into();
    let authorization =
        Authorization { auth_type: "Bearer".into(), credentials_file: file, ..Authorization::default() };
    let client = with(HttpClientConfig { authorization: Some(authorization), ..HttpClientConfig::default() });
    // Nobody writes to the pipe, so opening it does not return.
    let at = Instant::now() + Duration::from_millis(50);
    let sent = (0..20).map(|_| client.send(Request::get(Url::parse("http://host/").unwrap()), at));
    for answer in futures::future::join_all(sent).await {
        assert_eq!(answer.unwrap_err().failure, Failure::Deadline);
    }
    assert_eq!(client.credentials.turns_left(), 0);
    let patience = soon();
    while client.credentials.turns_left() < 4 {
        assert!(Instant::now() < patience, "the turns come back");
        // Lets go whoever has come as far as opening it by now.
        let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK;
        drop(rustix::fs::open(&path, flags, rustix::fs::Mode::empty()));
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_socket_of_the_machine_is_asked_whatever_the_host() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&heads);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, 0, |_, _| Reply::Text(ok("x")), Arc::clone(&noted)));
        }
    });
    let name = path.to_string_lossy().into_owned();
    let client = with(basic("user", "pass")).over_unix_socket(&name);
    let request = || Request::get(Url::parse("http://metrics.example:9100/m").unwrap());
    assert_eq!(body(client.send(request(), soon()).await.unwrap()).await.unwrap(), "x");
    let head = heads.lock()[0].clone();
    assert!(head.starts_with("get /m http/1.1\r\n") && head.contains("\r\nhost: metrics.example:9100\r\n"), "{head}");
    assert!(head.contains("\r\nauthorization: basic dxnlcjpwyxnz\r\n"), "{head}");

    let nowhere = client.over_unix_socket(&format!("{name}2"));
    assert_eq!(
        nowhere.send(request(), soon()).await.unwrap_err().to_string(),
        format!("Get \"http://metrics.example:9100/m\": dial unix {name}2: connect: no such file or directory")
    );
}

#[tokio::test]
async fn connections_are_counted_by_who_makes_them() {
    let registry = Registry::shared();
    let counts = |dialer: &str| {
        let value = |name: &str, labels: &[(&str, &str)]| registry.counter(name, "", labels).get();
        let by = |what: &str| value(&format!("net_conntrack_dialer_conn_{what}_total"), &[("dialer_name", dialer)]);
        let failed = |reason: &str| {
            value("net_conntrack_dialer_conn_failed_total", &[("dialer_name", dialer), ("reason", reason)])
        };
        let done = [by("attempted"), by("established"), by("closed")];
        (done, ["refused", "resolution", "timeout", "unknown"].map(failed))
    };
    let client = client();
    client.count_connections(&registry, "a");
    // A second name changes nothing.
    client.clone().count_connections(&registry, "b");
    assert_eq!(counts("a"), ([0; 3], [0; 4]));
    let peer = peer(|_, _| Reply::Text(ok("a"))).await;
    for _ in 0..2 {
        body(client.send(Request::get(url(peer.addr, "/")), soon()).await.unwrap()).await.unwrap();
    }
    assert_eq!(counts("a"), ([1, 1, 0], [0; 4]));
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    client.send(Request::get(url(closed, "/")), soon()).await.unwrap_err();
    assert_eq!(counts("a"), ([2, 1, 0], [1, 0, 0, 1]));
    let nowhere = Url::parse("http://no-such-host.invalid/").unwrap();
    client.send(Request::get(nowhere), soon()).await.unwrap_err();
    assert_eq!(counts("a"), ([3, 1, 0], [1, 1, 0, 1]));
    drop(client);
    while counts("a").0[2] == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(counts("b").0, [0; 3]);
}
