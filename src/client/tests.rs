//! The client against peers that speak raw HTTP, so that every byte and every connection is known.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

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

async fn serve(mut stream: TcpStream, index: usize, script: Script, heads: Arc<Mutex<Vec<String>>>) {
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

    let flood = peer(|_, _| Reply::Text(format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(200_000)))).await;
    let error = client().send(Request::get(url(flood.addr, "/")), soon()).await.unwrap_err();
    assert_eq!(error.failure, Failure::HeadTooLarge);
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
    assert_eq!(peer.heads.lock().len(), 11);
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

#[tokio::test]
async fn as_many_headers_are_read_as_fit_the_head() {
    let peer = peer(|_, head| {
        let headers = if head.starts_with("get /most") { 15_000 } else { 17_000 };
        Reply::Text(format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n{}\r\nx", "a:\r\n".repeat(headers)))
    })
    .await;
    let response = client().send(Request::get(url(peer.addr, "/most")), soon()).await.unwrap();
    assert_eq!(response.headers.get_all("a").iter().count(), 15_000);
    assert_eq!(body(response).await.unwrap(), "x");
    let error = client().send(Request::get(url(peer.addr, "/over")), soon()).await.unwrap_err();
    assert_eq!(error.failure, Failure::HeadTooLarge);
}
