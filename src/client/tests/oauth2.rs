//! Tokens of OAuth 2, from an endpoint that answers as the test says.

use super::*;
use crate::client::oauth2::OAuth2 as Tokens;
use crate::client::proxy::ProxyEnvironment;
use crate::config::http_client::{JWT_GRANT, OAuth2};
use crate::config::url::UrlText;

/// What the endpoint answers to a request of this head (in lower case) and this body.
type Answers = Box<dyn Fn(&str, &str) -> String + Send + Sync>;

struct Endpoint {
    addr: SocketAddr,
    /// Heads in lower case, and bodies.
    seen: Arc<Mutex<Vec<(String, String)>>>,
}

impl Endpoint {
    fn url(&self) -> String {
        format!("http://{}/token", self.addr)
    }
    fn count(&self) -> usize {
        self.seen.lock().len()
    }
    fn bodies(&self) -> Vec<String> {
        self.seen.lock().iter().map(|(_, body)| body.clone()).collect()
    }
    fn config(&self) -> OAuth2 {
        OAuth2 {
            client_id: "me".into(),
            client_secret: Secret::new("hunter2".into()),
            token_url: UrlText::new(self.url()),
            ..OAuth2::default()
        }
    }
}

async fn endpoint(answers: impl Fn(&str, &str) -> String + Send + Sync + 'static) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint { addr: listener.local_addr().unwrap(), seen: Arc::default() };
    let (seen, answers) = (Arc::clone(&endpoint.seen), Arc::new(Box::new(answers) as Answers));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve_forms(stream, Arc::clone(&answers), Arc::clone(&seen)));
        }
    });
    endpoint
}

async fn serve_forms(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    answers: Arc<Answers>,
    seen: Arc<Mutex<Vec<(String, String)>>>,
) -> std::io::Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head).to_lowercase();
        let len = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        let mut body = vec![0; len];
        stream.read_exact(&mut body).await?;
        let body = String::from_utf8(body).unwrap();
        seen.lock().push((head.clone(), body.clone()));
        let answer = answers(&head, &body);
        stream.write_all(answer.as_bytes()).await?;
    }
}

fn token(text: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{text}", text.len())
}

fn status(line: &str, text: &str) -> String {
    format!("HTTP/1.1 {line}\r\nContent-Length: {}\r\n\r\n{text}", text.len())
}

fn client_of(config: OAuth2) -> HttpClient {
    with(HttpClientConfig { oauth2: Some(Box::new(config)), ..HttpClientConfig::default() })
}

async fn get(client: &HttpClient, peer: &Peer) -> Result<String, String> {
    let sent = client.send(Request::get(url(peer.addr, "/m")), soon()).await;
    body(sent.map_err(|error| error.to_string())?).await.map_err(|failure| failure.to_string())
}

fn authorizations(peer: &Peer) -> Vec<String> {
    let of = |head: &String| head.lines().find_map(|line| line.strip_prefix("authorization: ")).unwrap().to_owned();
    peer.heads.lock().iter().map(of).collect()
}

#[tokio::test]
async fn a_token_is_fetched_once_and_again_before_its_end() {
    let endpoint = endpoint(|head, _| {
        assert!(head.starts_with("post /token http/1.1\r\n"), "{head}");
        token(r#"{"access_token":"t1","token_type":"bearer","expires_in":600}"#)
    })
    .await;
    let peer = peer(|_, _| Reply::Text(ok("x"))).await;
    let config = OAuth2 {
        client_id: "me&you".into(),
        client_secret: Secret::new("a b~*".into()),
        scopes: vec!["one".into(), "two".into()],
        endpoint_params: [("audience".to_owned(), "x/y".to_owned())].into(),
        ..endpoint.config()
    };
    let client = client_of(config);
    for answered in futures::future::join_all([(); 5].map(|()| get(&client, &peer))).await {
        assert_eq!(answered.unwrap(), "x");
    }
    assert_eq!(get(&client, &peer).await.unwrap(), "x");
    assert_eq!(endpoint.count(), 1, "all share a token");
    assert_eq!(authorizations(&peer), ["bearer t1"; 6]);
    let (head, body) = endpoint.seen.lock()[0].clone();
    assert_eq!(body, "audience=x%2Fy&grant_type=client_credentials&scope=one+two");
    assert!(head.contains("\r\ncontent-type: application/x-www-form-urlencoded\r\n"), "{head}");
    assert!(head.contains("\r\nuser-agent: test\r\n"), "{head}");
    let basic = userinfo::basic(b"me%26you:a+b~%2A").to_str().unwrap().to_lowercase();
    assert!(head.contains(&format!("\r\nauthorization: {basic}\r\n")), "{head}");

    let advance = async |seconds| {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(seconds)).await;
        tokio::time::resume();
    };
    advance(500).await;
    get(&client, &peer).await.unwrap();
    assert_eq!(endpoint.count(), 1);
    advance(95).await;
    get(&client, &peer).await.unwrap();
    assert_eq!(endpoint.count(), 2, "within ten seconds of its end a token is not used");
}

#[tokio::test]
async fn both_ways_of_showing_the_secret_are_tried() {
    let endpoint = endpoint(|head, body| {
        match (head.contains("\r\nauthorization: "), body.contains("client_id=me&client_secret=hunter2")) {
            (false, true) => token(r#"{"access_token":"t","expires_in":1}"#),
            _ => status("401 Unauthorized", "no"),
        }
    })
    .await;
    let peer = peer(|_, _| Reply::Text(ok("x"))).await;
    let client = client_of(endpoint.config());
    get(&client, &peer).await.unwrap();
    assert_eq!(endpoint.count(), 2);
    get(&client, &peer).await.unwrap();
    assert_eq!(endpoint.count(), 3, "the way that worked is kept; a token of one second serves once");
}

#[tokio::test]
async fn errors_of_the_endpoint_say_so_without_the_secret() {
    let refusing = endpoint(|_, body| status("403 Forbidden", &format!("hunter2 {body}"))).await;
    let peer = peer(|_, _| Reply::Text(ok("x"))).await;
    let error = get(&client_of(refusing.config()), &peer).await.unwrap_err();
    assert_eq!(
        error,
        format!(
            "Get \"http://{}/m\": oauth2: cannot fetch token: 403 Forbidden\nResponse: <secret> \
             client_id=me&client_secret=<secret>&grant_type=client_credentials",
            peer.addr
        )
    );
    assert!(peer.heads.lock().is_empty(), "nothing is asked without a token");

    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let config = OAuth2 { token_url: UrlText::new(format!("http://u:hunter2@{closed}/t")), ..refusing.config() };
    let client = client_of(config);
    let error = get(&client, &peer).await.unwrap_err();
    let refused = format!("dial tcp {closed}: connect: connection refused");
    assert_eq!(error, format!("Get \"http://{}/m\": Post \"http://u:***@{closed}/t\": {refused}", peer.addr));
    assert!(!format!("{client:?}").contains("hunter2"));

    let redirecting =
        endpoint(|_, _| "HTTP/1.1 307 Temporary Redirect\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n".into());
    let redirecting = redirecting.await;
    let error = get(&client_of(redirecting.config()), &peer).await.unwrap_err();
    assert!(error.contains("oauth2: cannot fetch token: 307 Temporary Redirect"), "{error}");
    assert_eq!(redirecting.count(), 2);

    let params = [("scope".to_owned(), "x".to_owned())].into();
    let config = OAuth2 { scopes: vec!["a".into()], endpoint_params: params, ..refusing.config() };
    let error = get(&client_of(config), &peer).await.unwrap_err();
    assert!(error.ends_with("oauth2: cannot overwrite parameter \"scope\""), "{error}");
}

#[tokio::test]
async fn a_short_deadline_neither_ends_a_fetch_nor_starts_another() {
    // The endpoint blocks until it is told to go on, so it runs on a thread of its own.
    let (open, opened) = std::sync::mpsc::channel::<()>();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let opened = std::sync::Mutex::new(opened);
        let slow = endpoint(move |_, _| {
            opened.lock().unwrap().recv().unwrap();
            token(r#"{"access_token":"late"}"#)
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            tell.send(slow.await).unwrap();
            std::future::pending::<()>().await;
        });
    });
    let endpoint = told.recv().unwrap();
    let peer = peer(|_, _| Reply::Text(ok("x"))).await;
    let client = client_of(endpoint.config());
    for _ in 0..3 {
        let at = Instant::now() + Duration::from_millis(30);
        let error = client.send(Request::get(url(peer.addr, "/m")), at).await.unwrap_err();
        assert_eq!(error.failure, Failure::Deadline);
    }
    open.send(()).unwrap();
    get(&client, &peer).await.unwrap();
    assert_eq!(endpoint.count(), 1);
    assert_eq!(authorizations(&peer), ["bearer late"]);
}

#[tokio::test]
async fn another_secret_in_the_file_means_another_token() {
    let endpoint = endpoint(|head, _| {
        let is_new = head.contains(&userinfo::basic(b"me:new").to_str().unwrap().to_lowercase());
        token(if is_new { r#"{"access_token":"new"}"# } else { r#"{"access_token":"old"}"# })
    })
    .await;
    let peer = peer(|_, _| Reply::Text(ok("x"))).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, "old\n").unwrap();
    let name = file.to_string_lossy().into_owned();
    let config =
        OAuth2 { client_secret: Secret::default(), client_secret_file: name.clone().into(), ..endpoint.config() };
    let client = client_of(config);
    get(&client, &peer).await.unwrap();
    get(&client, &peer).await.unwrap();
    std::fs::write(&file, "new\n").unwrap();
    get(&client, &peer).await.unwrap();
    assert_eq!(authorizations(&peer), ["bearer old", "bearer old", "bearer new"]);
    assert_eq!(endpoint.count(), 2);
    std::fs::remove_file(&file).unwrap();
    let error = get(&client, &peer).await.unwrap_err();
    let reason = format!("unable to read file {name}: open {name}: no such file or directory");
    assert!(error.ends_with(&format!("unable to read oauth2 client secret: {reason}")), "{error}");
}

#[tokio::test]
async fn tokens_stay_on_their_host_and_go_before_userinfo() {
    let endpoint = endpoint(|_, _| token(r#"{"access_token":"t"}"#)).await;
    let other = peer(|_, _| Reply::Text(ok("there"))).await;
    let first = peer(|_, head| {
        let next = head.lines().next().and_then(|line| line.split(['?', ' ']).nth(2)).unwrap_or_default();
        Reply::Text(format!("HTTP/1.1 302 Found\r\nLocation: http://{next}/x\r\nContent-Length: 0\r\n\r\n"))
    })
    .await;
    let client = client_of(endpoint.config());
    let target = Url::parse(&format!("http://user:pass@{}/?{}", first.addr, other.addr)).unwrap();
    let response = client.send(Request::get(target), soon()).await.unwrap();
    assert_eq!(body(response).await.unwrap(), "there");
    assert_eq!(authorizations(&first), ["bearer t"]);
    assert!(!other.heads.lock()[0].contains("authorization"));
}

/// An RSA key of 2,048 bits, made for this test alone.
const KEY: &str = include_str!("rsa_key.pem");

#[tokio::test]
async fn a_signed_assertion_is_exchanged_for_a_token() {
    let endpoint = endpoint(|_, _| token(r#"{"access_token":"t","expires_in":3600}"#)).await;
    let peer = peer(|_, _| Reply::Text(ok("x"))).await;
    let config = OAuth2 {
        grant_type: JWT_GRANT.into(),
        client_certificate_key: Secret::new(KEY.into()),
        client_certificate_key_id: "k1".into(),
        signature_algorithm: "RS384".into(),
        scopes: vec!["a".into(), "b".into()],
        ..endpoint.config()
    };
    get(&client_of(config.clone()), &peer).await.unwrap();
    assert_eq!(authorizations(&peer), ["bearer t"]);
    let form: Vec<(String, String)> =
        url::form_urlencoded::parse(endpoint.bodies()[0].as_bytes()).into_owned().collect();
    assert_eq!(form[1], ("grant_type".into(), JWT_GRANT.into()));
    assert_eq!(form[2], ("scope".into(), "a b".into()));
    assert_eq!((form[0].0.as_str(), form[0].1.split('.').count(), form.len()), ("assertion", 3, 3));
    assert!(!endpoint.seen.lock()[0].0.contains("authorization"));

    let broken = OAuth2 { client_certificate_key: Secret::new("hunter2".into()), ..config };
    let error = get(&client_of(broken), &peer).await.unwrap_err();
    assert!(error.ends_with("invalid key: Key must be a PEM encoded PKCS1 or PKCS8 key"), "{error}");
}

#[tokio::test]
async fn the_endpoint_may_have_a_proxy_of_its_own() {
    let proxy = endpoint(|head, _| {
        assert!(head.starts_with("post http://login.example/token http/1.1\r\n"), "{head}");
        token(r#"{"access_token":"t"}"#)
    })
    .await;
    let variable = |name: &str| (name == "HTTP_PROXY").then(|| proxy.addr.to_string());
    let mut config = OAuth2 { token_url: UrlText::new("http://login.example/token"), ..proxy.config() };
    config.proxy.proxy_from_environment = true;
    let tokens = Tokens::new("test", &config, &ProxyEnvironment::of(variable));
    assert_eq!(tokens.authorization(soon()).await.unwrap(), "Bearer t");
}
