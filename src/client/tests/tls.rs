//! TLS, against servers with certificates made for each test.

use std::path::Path;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use tokio::io::copy_bidirectional;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::config::http_client::{OAuth2, ProxyConfig, TlsConfig, TlsVersion};
use crate::config::url::{ConfigUrl, UrlText};

/// A certificate and its key in PEM.
struct Pair {
    cert: String,
    key: String,
}

/// An authority of its own.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = named(name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    fn issue(&self, names: &[&str]) -> Pair {
        self.issue_with(names, |_| {})
    }

    fn issue_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name = named(names.first().copied().unwrap_or("nobody"));
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let issuer: &Issuer<'_, KeyPair> = &self.0;
        Pair { cert: params.signed_by(&key, issuer).unwrap().pem(), key: key.serialize_pem() }
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn self_signed(names: &[&str], is_ca: IsCa) -> Pair {
    let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
    params.is_ca = is_ca;
    let key = KeyPair::generate().unwrap();
    Pair { cert: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
}

/// What a server of this certificate does; with `clients`, it takes those alone that show a certificate of theirs.
fn server(pair: &Pair, clients: Option<&Authority>, protocols: &[&str]) -> Arc<ServerConfig> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    let cert = CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    let mut config = builder.with_single_cert(vec![cert], key).unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// A peer beneath TLS. `shown` notes version, name asked for, and length of the client's certificate of each connection.
struct TlsPeer {
    peer: Peer,
    shown: Arc<Mutex<Vec<String>>>,
}

async fn tls_peer(config: Arc<ServerConfig>, script: Script) -> TlsPeer {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = Peer { addr: listener.local_addr().unwrap(), connections: Arc::default(), heads: Arc::default() };
    let found = TlsPeer { shown: Arc::default(), peer };
    let (connections, heads) = (Arc::clone(&found.peer.connections), Arc::clone(&found.peer.heads));
    let shown = Arc::clone(&found.shown);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let index = connections.fetch_add(1, Ordering::SeqCst);
            let (acceptor, heads, shown) =
                (TlsAcceptor::from(Arc::clone(&config)), Arc::clone(&heads), Arc::clone(&shown));
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let session = stream.get_ref().1;
                let client = session.peer_certificates().map_or(0, |certs| certs[0].len());
                let name = session.server_name().unwrap_or("-").to_owned();
                shown.lock().push(format!("{:?} {name} {client}", session.protocol_version().unwrap()));
                serve(stream, index, script, heads).await;
            });
        }
    });
    found
}

fn fine(_: usize, _: &str) -> Reply {
    Reply::Text(ok("safe"))
}

fn ca(authority: &str) -> TlsConfig {
    TlsConfig { ca: authority.to_owned(), ..TlsConfig::default() }
}

fn tls_client(tls_config: TlsConfig) -> HttpClient {
    with(HttpClientConfig { tls_config, ..HttpClientConfig::default() })
}

async fn get(client: &HttpClient, url: &str) -> Result<String, String> {
    let sent = client.send(Request::get(Url::parse(url).unwrap()), soon()).await;
    let response = sent.map_err(|error| error.failure.to_string())?;
    body(response).await.map_err(|failure| failure.to_string())
}

fn at(peer: &TlsPeer, host: &str) -> String {
    format!("https://{host}:{}/m", peer.peer.addr.port())
}

const UNKNOWN: &str = "tls: failed to verify certificate: x509: certificate signed by unknown authority";

#[tokio::test]
async fn servers_must_be_vouched_for() {
    let (authority, other) = (Authority::new("one"), Authority::new("two"));
    let peer = tls_peer(server(&authority.issue(&["127.0.0.1", "inner.example"]), None, &[]), fine).await;
    let url = at(&peer, "127.0.0.1");
    assert_eq!(get(&tls_client(ca(&authority.pem())), &url).await.unwrap(), "safe");
    let both = ca(&(other.pem() + &authority.pem()));
    assert_eq!(get(&tls_client(both), &url).await.unwrap(), "safe");
    assert_eq!(get(&tls_client(ca(&other.pem())), &url).await.unwrap_err(), UNKNOWN);
    assert_eq!(get(&tls_client(TlsConfig::default()), &url).await.unwrap_err(), UNKNOWN);
    assert_eq!(get(&client(), &url).await.unwrap_err(), UNKNOWN);
    let astray = TlsConfig { server_name: "other.example".into(), ..ca(&other.pem()) };
    let text = get(&tls_client(astray), &url).await.unwrap_err();
    assert!(text.ends_with("certificate is valid for inner.example, not other.example"), "{text}");
    let skips = TlsConfig { insecure_skip_verify: true, ..TlsConfig::default() };
    assert_eq!(get(&tls_client(skips), &url).await.unwrap(), "safe");

    let named = TlsConfig { server_name: "inner.example".into(), ..ca(&authority.pem()) };
    assert_eq!(get(&tls_client(named), &url).await.unwrap(), "safe");
    assert_eq!(peer.shown.lock().last().unwrap(), "TLSv1_3 inner.example 0");
    let wrong = TlsConfig { server_name: "other.example".into(), ..ca(&authority.pem()) };
    assert_eq!(
        get(&tls_client(wrong), &url).await.unwrap_err(),
        "tls: failed to verify certificate: x509: certificate is valid for inner.example, not other.example"
    );
    assert_eq!(
        get(&tls_client(ca("no certificate")), &url).await.unwrap_err(),
        "unable to use specified CA cert inline"
    );
}

#[tokio::test]
async fn certificates_say_what_is_wrong_with_them() {
    let authority = Authority::new("one");
    let error = async |pair: Pair| {
        let peer = tls_peer(server(&pair, None, &[]), fine).await;
        get(&tls_client(ca(&authority.pem())), &at(&peer, "127.0.0.1")).await.unwrap_err()
    };
    let x509 = "tls: failed to verify certificate: x509:";
    assert_eq!(
        error(authority.issue(&["a.example"])).await,
        format!("{x509} cannot validate certificate for 127.0.0.1 because it doesn't contain any IP SANs")
    );
    assert_eq!(
        error(authority.issue(&["127.0.0.2", "a.example"])).await,
        format!("{x509} certificate is valid for 127.0.0.2, not 127.0.0.1")
    );
    let old = authority.issue_with(&["127.0.0.1"], |params| params.not_after = rcgen::date_time_ymd(2001, 2, 3));
    let text = error(old).await;
    assert!(text.starts_with(&format!("{x509} certificate has expired or is not yet valid: current time 2")), "{text}");
    assert!(text.ends_with("Z is after 2001-02-03T00:00:00Z"), "{text}");
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = plain.local_addr().unwrap();
    let answers: [&[u8]; 2] = [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x9c\x01garbage of any kind"];
    tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = plain.accept().await.unwrap();
            let _ = stream.read(&mut [0; 16]).await;
            let _ = stream.write_all(answer).await;
            tokio::spawn(async move { stream.read(&mut [0; 4096]).await });
        }
    });
    for text in
        ["http: server gave HTTP response to HTTPS client", "tls: first record does not look like a TLS handshake"]
    {
        assert_eq!(get(&client(), &format!("https://{addr}/")).await.unwrap_err(), text);
    }
}

#[tokio::test]
async fn a_servers_own_certificate_may_be_the_authority() {
    for is_ca in [IsCa::NoCa, IsCa::ExplicitNoCa, IsCa::Ca(BasicConstraints::Unconstrained)] {
        let pair = self_signed(&["127.0.0.1"], is_ca);
        let peer = tls_peer(server(&pair, None, &[]), fine).await;
        assert_eq!(get(&tls_client(ca(&pair.cert)), &at(&peer, "127.0.0.1")).await.unwrap(), "safe");
        let named = TlsConfig { server_name: "a.example".into(), ..ca(&pair.cert) };
        assert!(get(&tls_client(named), &at(&peer, "127.0.0.1")).await.unwrap_err().contains("x509: certificate is"));
        let other = self_signed(&["127.0.0.1"], IsCa::Ca(BasicConstraints::Unconstrained));
        assert_eq!(get(&tls_client(ca(&other.cert)), &at(&peer, "127.0.0.1")).await.unwrap_err(), UNKNOWN);
    }
    // One whose issuer nobody knows, named itself.
    let pair = Authority::new("unknown").issue(&["127.0.0.1"]);
    let peer = tls_peer(server(&pair, None, &[]), fine).await;
    assert_eq!(get(&tls_client(ca(&pair.cert)), &at(&peer, "127.0.0.1")).await.unwrap(), "safe");
}

#[tokio::test]
async fn versions_are_those_of_the_configuration() {
    let authority = Authority::new("one");
    let peer = tls_peer(server(&authority.issue(&["127.0.0.1"]), None, &[]), fine).await;
    for (min, max, spoken) in [
        (None, Some(TlsVersion::Tls12), "TLSv1_2"),
        (Some(TlsVersion::Tls13), None, "TLSv1_3"),
        (Some(TlsVersion::Tls10), Some(TlsVersion::Tls12), "TLSv1_2"),
    ] {
        let config = TlsConfig { min_version: min, max_version: max, ..ca(&authority.pem()) };
        get(&tls_client(config), &at(&peer, "127.0.0.1")).await.unwrap();
        assert!(peer.shown.lock().last().unwrap().starts_with(spoken), "{min:?} {max:?}");
    }
    let config = TlsConfig { max_version: Some(TlsVersion::Tls11), ..ca(&authority.pem()) };
    assert_eq!(
        get(&tls_client(config), &at(&peer, "127.0.0.1")).await.unwrap_err(),
        "tls_config.max_version: TLS 1.0 and 1.1 are not spoken"
    );
}

fn file(folder: &Path, name: &str, text: &str) -> crate::config::path::FilePath {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_string_lossy().into_owned().into()
}

#[tokio::test]
async fn clients_show_their_certificate_and_its_successor() {
    let (authority, clients) = (Authority::new("one"), Authority::new("clients"));
    let peer = tls_peer(server(&authority.issue(&["127.0.0.1"]), Some(&clients), &[]), fine).await;
    let url = at(&peer, "127.0.0.1");
    let error = get(&tls_client(ca(&authority.pem())), &url).await.unwrap_err();
    assert_eq!(error, "remote error: tls: certificate required");

    let mine = clients.issue(&["me"]);
    let inline = TlsConfig { cert: mine.cert.clone(), key: Secret::new(mine.key.clone()), ..ca(&authority.pem()) };
    assert_eq!(get(&tls_client(inline.clone()), &url).await.unwrap(), "safe");
    let stranger = self_signed(&["me"], IsCa::NoCa);
    let unknown = TlsConfig { cert: stranger.cert, key: Secret::new(stranger.key), ..inline.clone() };
    assert!(get(&tls_client(unknown), &url).await.unwrap_err().starts_with("remote error: tls: "));
    let mixed = TlsConfig { key: Secret::new(clients.issue(&["other"]).key), ..inline };
    assert_eq!(
        get(&tls_client(mixed), &url).await.unwrap_err(),
        "unable to use specified client cert (inline) & key (inline): tls: private key does not match public key"
    );

    let folder = tempfile::tempdir().unwrap();
    let config = TlsConfig {
        cert_file: file(folder.path(), "cert", &mine.cert),
        key_file: file(folder.path(), "key", &mine.key),
        ca_file: file(folder.path(), "ca", &authority.pem()),
        ..TlsConfig::default()
    };
    let client = tls_client(config);
    let before = peer.peer.connections.load(Ordering::SeqCst);
    get(&client, &url).await.unwrap();
    get(&client, &url).await.unwrap();
    assert_eq!(peer.peer.connections.load(Ordering::SeqCst), before + 1, "the same files, the same connection");
    let first = peer.shown.lock().last().unwrap().clone();
    let next = clients.issue(&["me, with a longer name"]);
    file(folder.path(), "cert", &next.cert);
    file(folder.path(), "key", &next.key);
    get(&client, &url).await.unwrap();
    assert_ne!(*peer.shown.lock().last().unwrap(), first, "another certificate");
    std::fs::remove_file(folder.path().join("key")).unwrap();
    let error = get(&client, &url).await.unwrap_err();
    let path = folder.path().join("key").display().to_string();
    assert_eq!(
        error,
        format!("unable to read client key: unable to read file {path}: open {path}: no such file or directory")
    );
}

#[tokio::test]
async fn a_new_authority_in_the_file_holds_from_the_next_request_on() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let before = tls_peer(server(&old.issue(&["127.0.0.1"]), None, &[]), fine).await;
    let after = tls_peer(server(&new.issue(&["127.0.0.1"]), None, &[]), fine).await;
    let folder = tempfile::tempdir().unwrap();
    let ca_file = file(folder.path(), "ca", &old.pem());
    let client = tls_client(TlsConfig { ca_file, ..TlsConfig::default() });
    assert_eq!(get(&client, &at(&before, "127.0.0.1")).await.unwrap(), "safe");
    assert_eq!(get(&client, &at(&after, "127.0.0.1")).await.unwrap_err(), UNKNOWN);
    file(folder.path(), "ca", &new.pem());
    assert_eq!(get(&client, &at(&after, "127.0.0.1")).await.unwrap(), "safe");
    assert_eq!(get(&client, &at(&before, "127.0.0.1")).await.unwrap_err(), UNKNOWN, "old connections are not used");
    file(folder.path(), "ca", "nothing");
    let path = folder.path().join("ca").display().to_string();
    let error = get(&client, &at(&after, "127.0.0.1")).await.unwrap_err();
    assert_eq!(error, format!("unable to use specified CA cert file {path}"));
    file(folder.path(), "ca", &new.pem());
    assert_eq!(get(&client, &at(&after, "127.0.0.1")).await.unwrap(), "safe");
}

#[tokio::test]
async fn credentials_stay_with_their_host_beneath_tls() {
    let authority = Authority::new("one");
    let other = tls_peer(server(&authority.issue(&["127.0.0.1"]), None, &[]), fine).await;
    let first = tls_peer(server(&authority.issue(&["127.0.0.1"]), None, &[]), |_, head| {
        let next = head.lines().next().and_then(|line| line.split(['?', ' ']).nth(2)).unwrap_or_default();
        Reply::Text(format!("HTTP/1.1 302 Found\r\nLocation: {next}\r\nContent-Length: 0\r\n\r\n"))
    })
    .await;
    let client = with(HttpClientConfig { tls_config: ca(&authority.pem()), ..basic("user", "pass") });
    let plain = peer(fine).await;
    for next in [at(&other, "127.0.0.1"), url(plain.addr, "/x").to_string()] {
        assert_eq!(get(&client, &format!("{}?{next}", at(&first, "127.0.0.1"))).await.unwrap(), "safe");
    }
    assert!(first.peer.heads.lock().iter().all(|head| head.contains("authorization: basic")));
    assert!(!other.peer.heads.lock()[0].contains("authorization"));
    assert!(!plain.heads.lock()[0].contains("authorization"));
}

/// A proxy that makes tunnels to `target`, whatever is asked for; beneath TLS if it has a certificate.
async fn tunnels_to(target: SocketAddr, config: Option<Arc<ServerConfig>>) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (addr, heads) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let noted = Arc::clone(&heads);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (noted, config) = (Arc::clone(&noted), config.clone());
            tokio::spawn(async move {
                match config {
                    None => relay(stream, target, noted).await,
                    Some(config) => relay(TlsAcceptor::from(config).accept(stream).await?, target, noted).await,
                }
            });
        }
    });
    (addr, heads)
}

async fn relay(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    target: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    heads.lock().push(String::from_utf8_lossy(&head).to_lowercase());
    stream.write_all(b"HTTP/1.1 200 Connection established\r\nX: y\r\n\r\n").await?;
    copy_bidirectional(&mut stream, &mut TcpStream::connect(target).await?).await.map(|_| ())
}

#[tokio::test]
async fn tls_goes_through_the_tunnels_of_proxies() {
    let authority = Authority::new("one");
    let target = tls_peer(server(&authority.issue(&["secure.example"]), None, &[]), fine).await;
    let proxy_cert = server(&authority.issue(&["127.0.0.1"]), None, &["h2", "http/1.1"]);
    for (scheme, config) in [("http", None), ("https", Some(proxy_cert))] {
        let (proxy, heads) = tunnels_to(target.peer.addr, config).await;
        let proxy_url = ConfigUrl::parse(&format!("{scheme}://u:p@{proxy}")).unwrap();
        let client = with(HttpClientConfig {
            tls_config: ca(&authority.pem()),
            proxy: ProxyConfig { proxy_url, ..ProxyConfig::default() },
            enable_http2: true,
            ..HttpClientConfig::default()
        });
        for _ in 0..2 {
            assert_eq!(get(&client, "https://secure.example/m").await.unwrap(), "safe");
        }
        let head = heads.lock().concat();
        assert!(head.starts_with("connect secure.example:443 http/1.1\r\n"), "one tunnel for both: {head}");
        assert!(head.contains("\r\nproxy-authorization: basic dtpw\r\n"), "{head}");
        let error = get(&client, "https://other.example/").await.unwrap_err();
        assert!(error.ends_with("x509: certificate is valid for secure.example, not other.example"), "{error}");
    }
    let seen = target.peer.heads.lock().clone();
    assert!(seen[0].starts_with("get /m http/1.1\r\n") && !seen.concat().contains("proxy"), "{}", seen[0]);

    let (proxy, _) =
        tunnels_to(target.peer.addr, Some(server(&Authority::new("x").issue(&["127.0.0.1"]), None, &[]))).await;
    let proxy_url = ConfigUrl::parse(&format!("https://{proxy}")).unwrap();
    let proxy = ProxyConfig { proxy_url, ..ProxyConfig::default() };
    let client = with(HttpClientConfig { tls_config: ca(&authority.pem()), proxy, ..HttpClientConfig::default() });
    assert_eq!(get(&client, "https://secure.example/").await.unwrap_err(), format!("proxyconnect tcp: {UNKNOWN}"));
}

/// A server that speaks HTTP/2 where the client does; answers with the version.
async fn both_versions(config: Arc<ServerConfig>) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (addr, connections) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let acceptor = TlsAcceptor::from(Arc::clone(&config));
            tokio::spawn(async move {
                let stream = acceptor.accept(stream).await.unwrap();
                let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                let answers = service_fn(|request: hyper::Request<Incoming>| async move {
                    let seen = request.headers().get(AUTHORIZATION).map_or("", |value| value.to_str().unwrap());
                    let text = format!("{:?} {seen}", request.version());
                    Ok::<_, std::convert::Infallible>(hyper::Response::new(Full::new(Bytes::from(text))))
                });
                let io = TokioIo::new(stream);
                if is_http2 {
                    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(io, answers)
                        .await;
                } else {
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, answers).await;
                }
            });
        }
    });
    (addr, connections)
}

#[tokio::test]
async fn http2_is_spoken_where_both_want_it() {
    let authority = Authority::new("one");
    let cert = authority.issue(&["127.0.0.1"]);
    let client = |enable_http2| {
        with(HttpClientConfig { tls_config: ca(&authority.pem()), enable_http2, ..basic("user", "pass") })
    };
    let (addr, connections) = both_versions(server(&cert, None, &["h2", "http/1.1"])).await;
    let url = format!("https://{addr}/");
    let modern = client(true);
    let expected = "HTTP/2.0 Basic dXNlcjpwYXNz";
    assert_eq!(get(&modern, &url).await.unwrap(), expected);
    for answer in futures::future::join_all([(); 10].map(|()| get(&modern, &url))).await {
        assert_eq!(answer.unwrap(), expected);
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1, "requests at the same time share a connection");
    let cold = client(true);
    for answer in futures::future::join_all([(); 10].map(|()| get(&cold, &url))).await {
        assert_eq!(answer.unwrap(), expected, "the first ones at the same time are answered, too");
    }
    assert_eq!(get(&client(false), &url).await.unwrap(), "HTTP/1.1 Basic dXNlcjpwYXNz");

    let (addr, _) = both_versions(server(&cert, None, &[])).await;
    assert_eq!(get(&modern, &format!("https://{addr}/")).await.unwrap(), "HTTP/1.1 Basic dXNlcjpwYXNz");
}

#[tokio::test]
async fn token_endpoints_have_tls_settings_of_their_own() {
    let authority = Authority::new("login");
    let login = tls_peer(server(&authority.issue(&["127.0.0.1"]), None, &[]), |_, _| {
        Reply::CloseAfter("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{\"access_token\":\"t\"}".into())
    })
    .await;
    let target = peer(fine).await;
    let oauth2 = OAuth2 {
        client_id: "me".into(),
        token_url: UrlText::new(at(&login, "127.0.0.1")),
        tls_config: ca(&authority.pem()),
        ..OAuth2::default()
    };
    let client = with(HttpClientConfig { oauth2: Some(Box::new(oauth2.clone())), ..HttpClientConfig::default() });
    assert_eq!(get(&client, url(target.addr, "/m").as_str()).await.unwrap(), "safe");
    assert!(target.heads.lock()[0].contains("\r\nauthorization: bearer t\r\n"));
    let unknown = OAuth2 { tls_config: TlsConfig::default(), ..oauth2 };
    let client = with(HttpClientConfig { oauth2: Some(Box::new(unknown)), ..HttpClientConfig::default() });
    let error = get(&client, url(target.addr, "/m").as_str()).await.unwrap_err();
    assert_eq!(error, format!("Post \"{}\": {UNKNOWN}", at(&login, "127.0.0.1")));
}
