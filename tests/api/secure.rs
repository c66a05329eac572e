//! `--web.config.file`: sign-in, headers, rate limit and TLS, in front of everything.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use watchfire::http::ServeError;

use crate::attacks::{METHODS, paths};
use crate::client::{Answer, Setup, TestServer, parse};

pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// Replaces a file by another one, as tools that rotate certificates do.
    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let (path, fresh) = (self.path(name), self.path("fresh"));
        std::fs::write(&fresh, text).unwrap();
        std::fs::rename(&fresh, &path).unwrap();
        path
    }
}

pub(crate) fn start(folder: &Folder, text: &str) -> TestServer {
    TestServer::start(Setup { web_config: Some(folder.write("web.yml", text)), ..Setup::default() })
}

pub(crate) fn basic(pair: &str) -> String {
    use base64::Engine as _;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
}

fn status(server: &TestServer, path: &str, authorization: &str) -> u16 {
    server.request("GET", path, &[("Authorization", authorization)], "").status
}

#[test]
fn no_path_answers_without_the_right_password() {
    let hash = bcrypt::hash("secret", 4).unwrap();
    let folder = Folder::new();
    let server = start(&folder, &format!("basic_auth_users: {{alice: '{hash}'}}"));
    for path in ["/", "/metrics", "/-/healthy", "/-/ready", "/query", "/api/v1/query?query=up", "/no/such", "/federate"]
    {
        let answer = server.get(path);
        assert_eq!((answer.status, answer.text().as_str()), (401, "Unauthorized\n"), "{path}");
        assert_eq!(answer.header("WWW-Authenticate").as_deref(), Some("Basic"));
        assert_eq!(status(&server, path, &basic("alice:wrong")), 401, "{path}");
        assert_ne!(status(&server, path, &basic("alice:secret")), 401, "{path}");
    }
    for wrong in
        ["", "Basic", "Basic ", "Basic !", "Bearer x", &basic("alice"), &basic("carol:secret"), &basic("alice:")]
    {
        assert_eq!(status(&server, "/-/healthy", wrong), 401, "{wrong}");
        // Also when the answer is known already.
        assert_eq!(status(&server, "/-/healthy", wrong), 401, "{wrong}");
    }
    assert_eq!(status(&server, "/-/healthy", &basic("alice:secret").replace("Basic", "basic")), 200);
    assert_eq!(server.request("POST", "/-/quit", &[], "").status, 401);
    // All routes, all methods, and paths that are read in more than one way.
    let odd = ["//", "/./-/healthy", "/-/../metrics", "/%2d/healthy", "/-/HEALTHY", "/-/healthy%00", "/metrics/", "*"];
    let odd = odd.into_iter().chain(["http://test/metrics", "/-/healthy?a=/metrics"]).map(str::to_owned);
    for path in paths().into_iter().chain(odd) {
        for method in METHODS {
            let status = server.request(method, &path, &[], "").status;
            assert!(status == 401 || status == 400, "{method} {path}: {status}");
        }
        let (right, wrong) = (basic("alice:secret"), basic("alice:x"));
        let in_place = basic(&format!("alice:{hash}"));
        for headers in [
            &[("Authorization", in_place.as_str())][..],
            &[("Authorization", &wrong), ("Authorization", &right)],
            &[("Proxy-Authorization", &right)],
            &[("X-Original-URL", "/-/healthy"), ("X-Forwarded-For", "127.0.0.1")],
            &[("Authorization", &right[..right.len() - 4])],
        ] {
            let status = server.request("GET", &path, headers, "").status;
            assert!(status == 401 || status == 400, "{path} {headers:?}: {status}");
        }
    }
}

/// What one user may is not lent to another through the memory of results.
#[test]
fn results_are_remembered_for_their_user_and_hash_alone() {
    let hash = bcrypt::hash("secret", 4).unwrap();
    let folder = Folder::new();
    let users = |users: &str| format!("basic_auth_users: {{{users}}}");
    let server = start(&folder, &users(&format!("alice: '{hash}'")));
    assert_eq!(status(&server, "/-/healthy", &basic("alice:secret")), 200);
    assert_eq!(status(&server, "/-/healthy", &basic("carol:secret")), 401);
    // A new hash counts within a second.
    let other = bcrypt::hash("other", 4).unwrap();
    folder.write("web.yml", &users(&format!("alice: '{other}', carol: '{hash}'")));
    server.clock.advance(Duration::from_secs(1));
    assert_eq!(status(&server, "/-/healthy", &basic("alice:secret")), 401);
    assert_eq!(status(&server, "/-/healthy", &basic("alice:other")), 200);
    assert_eq!(status(&server, "/-/healthy", &basic("carol:secret")), 200);
    // A file that is no good lets nobody in.
    folder.write("web.yml", "basic_auth_users: [");
    server.clock.advance(Duration::from_secs(1));
    assert_eq!(status(&server, "/-/healthy", &basic("alice:other")), 500);
    folder.write("web.yml", &users(&format!("alice: '{hash}'")));
    server.clock.advance(Duration::from_secs(1));
    assert_eq!(status(&server, "/-/healthy", &basic("alice:secret")), 200);
}

/// Guesses wait for one comparison at a time, and only so many of them; who has signed in before waits for none.
#[test]
fn guesses_do_not_pile_up() {
    let hash = bcrypt::hash("secret", 7).unwrap();
    let folder = Folder::new();
    let web_config = Some(folder.write("web.yml", &format!("basic_auth_users: {{alice: '{hash}'}}")));
    let server = TestServer::start(Setup { web_config, connections_max: 300, ..Setup::default() });
    let right = basic("alice:secret");
    assert_eq!(status(&server, "/-/healthy", &right), 200);
    let guesses: Vec<TcpStream> = (0..150)
        .map(|n| {
            let mut stream = TcpStream::connect(server.address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            let guess = basic(&format!("alice:{n}"));
            let head = format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: {guess}\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            stream
        })
        .collect();
    assert_eq!(status(&server, "/-/healthy", &right), 200);
    let statuses = guesses.into_iter().map(|mut stream| {
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        String::from_utf8_lossy(&head[9..]).into_owned()
    });
    let statuses: Vec<String> = statuses.collect();
    let count = |wanted: &str| statuses.iter().filter(|status| *status == wanted).count();
    assert_eq!(count("401") + count("503"), 150, "{statuses:?}");
    assert!(64 <= count("401") && 0 < count("503"), "{statuses:?}");
}

#[test]
fn headers_are_set_and_the_rate_is_limited() {
    let folder = Folder::new();
    let text = "{http_server_config: {headers: {X-Frame-Options: sameorigin, Strict-Transport-Security: max-age=1}}, \
                rate_limit: {burst: 2, interval: 1s}}";
    let server = start(&folder, text);
    let answer = server.get("/-/healthy");
    assert_eq!(answer.header("Strict-Transport-Security").as_deref(), Some("max-age=1"));
    assert_eq!(answer.header("X-Frame-Options").as_deref(), Some("sameorigin"));
    assert_eq!(server.get("/-/healthy").status, 200);
    let answer = server.get("/-/healthy");
    assert_eq!((answer.status, answer.text().as_str()), (429, "Too Many Requests\n"));
    server.clock.advance(Duration::from_secs(1));
    assert_eq!(server.get("/-/healthy").status, 200);
    assert_eq!(server.get("/-/healthy").status, 429);
}

#[test]
fn configured_headers_hold_on_pages_too() {
    let folder = Folder::new();
    let server = start(
        &folder,
        "http_server_config: {headers: {X-Frame-Options: sameorigin, Content-Security-Policy: frame-ancestors https://a.example}}",
    );
    for path in ["/query", "/api/v1/labels", "/metrics", "/nope"] {
        let answer = server.get(path);
        assert_eq!(answer.header("X-Frame-Options").as_deref(), Some("sameorigin"), "{path}");
        let policy = answer.header("Content-Security-Policy");
        assert_eq!(policy.as_deref(), Some("frame-ancestors https://a.example"), "{path}");
        assert_eq!(answer.header("X-Content-Type-Options").as_deref(), Some("nosniff"), "{path}");
    }
}

/// An authority and what it signs.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// Certificate and key for a name.
    pub(crate) fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

/// Asks over TLS; `None` if there is no connection to be had.
fn ask(server: &TestServer, roots: &str, own: Option<&(String, String)>) -> Option<Answer> {
    let mut store = RootCertStore::empty();
    store.add(CertificateDer::from_pem_slice(roots.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(store);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()];
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut stream = connect(server, config);
    stream.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    (read.is_ok() && !answer.is_empty()).then(|| parse(&answer))
}

pub(crate) fn connect(server: &TestServer, config: ClientConfig) -> StreamOwned<ClientConnection, TcpStream> {
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    StreamOwned::new(connection, stream)
}

/// What a client trusts and offers.
pub(crate) fn client_config(roots: &str, offered: &[&str]) -> ClientConfig {
    let mut store = RootCertStore::empty();
    store.add(CertificateDer::from_pem_slice(roots.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(store).with_no_client_auth();
    config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

/// The protocol that the server takes of those that are offered, and whether it answers a request of HTTP/1.
fn negotiated(server: &TestServer, roots: &str, offered: &[&str]) -> (Option<String>, bool) {
    let mut stream = connect(server, client_config(roots, offered));
    let target = "/-/healthy?{a=\"b\"}";
    let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let _ = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let taken = stream.conn.alpn_protocol().map(|name| String::from_utf8(name.to_vec()).unwrap());
    (taken, answer.starts_with(b"HTTP/1.1 200 OK"))
}

#[test]
fn http2_is_spoken_unless_it_is_switched_off() {
    let authority = Authority::new("a");
    let (cert, key) = authority.sign("localhost");
    let folder = Folder::new();
    folder.write("cert.pem", &cert);
    folder.write("key.pem", &key);
    for (settings, http2) in [("", true), ("http2: true", true), ("http2: false", false)] {
        let tls = "tls_server_config: {cert_file: cert.pem, key_file: key.pem}";
        let server = start(&folder, &format!("{{{tls}, http_server_config: {{{settings}}}}}"));
        let name = |http2| Some(if http2 { "h2" } else { "http/1.1" }.to_owned());
        assert_eq!(negotiated(&server, &authority.pem(), &["http/1.1", "h2"]), (name(http2), !http2));
        assert_eq!(negotiated(&server, &authority.pem(), &["http/1.1"]), (name(false), true));
        assert_eq!(negotiated(&server, &authority.pem(), &[]), (None, true));
    }
}

fn reaches(server: &TestServer, roots: &Authority, own: Option<&(String, String)>) -> bool {
    ask(server, &roots.pem(), own).is_some_and(|answer| answer.status == 200)
}

#[test]
fn tls_serves_the_certificate_that_stands_in_the_file_now() {
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    let folder = Folder::new();
    let put = |authority: &Authority| {
        let (cert, key) = authority.sign("localhost");
        folder.write("cert.pem", &cert);
        folder.write("key.pem", &key);
    };
    put(&first);
    let server = start(&folder, "tls_server_config: {cert_file: cert.pem, key_file: key.pem}");
    assert!(reaches(&server, &first, None));
    assert!(!reaches(&server, &second, None));
    put(&second);
    server.clock.advance(Duration::from_secs(1));
    assert!(reaches(&server, &second, None));
    // Plain HTTP is not answered, and harms nobody.
    let mut plain = TcpStream::connect(server.address).unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");
    assert!(reaches(&server, &second, None));
}

#[test]
fn clients_must_show_what_is_asked_for() {
    let (own, other) = (Authority::new("own"), Authority::new("other"));
    let (cert, key) = own.sign("localhost");
    let (client, stranger) = (own.sign("client"), other.sign("client"));
    let folder = Folder::new();
    folder.write("cert.pem", &cert);
    folder.write("key.pem", &key);
    folder.write("ca.pem", &own.pem());
    let write = |rest: &str| format!("tls_server_config: {{cert_file: cert.pem, key_file: key.pem, {rest}}}");
    let ca = "client_ca_file: ca.pem, client_auth_type";
    // Of nobody, of the authority's client, of a stranger's client: who is let in.
    for (rest, expected) in [
        ("client_auth_type: NoClientCert".to_owned(), [true, true, true]),
        ("client_auth_type: RequestClientCert".to_owned(), [true, true, true]),
        ("client_auth_type: RequireAnyClientCert".to_owned(), [false, true, true]),
        (format!("{ca}: VerifyClientCertIfGiven"), [true, true, false]),
        (format!("{ca}: RequireAndVerifyClientCert"), [false, true, false]),
        (format!("{ca}: RequireAndVerifyClientCert, client_allowed_sans: [client]"), [false, true, false]),
        (format!("{ca}: RequireAndVerifyClientCert, client_allowed_sans: [other]"), [false, false, false]),
        (format!("{ca}: VerifyClientCertIfGiven, client_allowed_sans: []"), [true, false, false]),
    ] {
        let server = start(&folder, &write(&rest));
        let found = [None, Some(&client), Some(&stranger)].map(|shown| reaches(&server, &own, shown));
        assert_eq!(found, expected, "{rest}");
    }
}

/// How a client's handshake came to its end, if it is let in.
fn handshake(server: &TestServer, config: &ClientConfig) -> Option<rustls::HandshakeKind> {
    let mut stream = connect(server, config.clone());
    stream.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let is_answered = read.is_ok() && answer.starts_with(b"HTTP/1.1 200");
    is_answered.then(|| stream.conn.handshake_kind().unwrap())
}

/// With the certificate, versions, suites and groups of a client.
fn offering(
    roots: &Authority,
    own: Option<&(String, String)>,
    versions: &[&'static rustls::SupportedProtocolVersion],
    change: impl Fn(&mut rustls::crypto::CryptoProvider),
) -> ClientConfig {
    let mut store = RootCertStore::empty();
    store.add(CertificateDer::from_pem_slice(roots.pem().as_bytes()).unwrap()).unwrap();
    let mut provider = rustls::crypto::ring::default_provider();
    change(&mut provider);
    let builder = ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(versions).unwrap();
    let builder = builder.with_root_certificates(store);
    match own {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()];
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
        }
    }
}

const BOTH: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12, &rustls::version::TLS13];

/// Who was let in under other rules is not let in by the session of that time.
#[test]
fn sessions_end_with_the_files_by_which_they_began() {
    use rustls::HandshakeKind::{Full, Resumed};
    let (own, other) = (Authority::new("own"), Authority::new("other"));
    let (cert, key) = own.sign("localhost");
    let client = own.sign("client");
    let folder = Folder::new();
    folder.write("cert.pem", &cert);
    folder.write("key.pem", &key);
    folder.write("ca.pem", &own.pem());
    let tls = |rest: &str| format!("tls_server_config: {{cert_file: cert.pem, key_file: key.pem, {rest}}}");
    let verify = tls("client_ca_file: ca.pem, client_auth_type: RequireAndVerifyClientCert");
    for version in BOTH {
        // Nobody is asked for a certificate, then everybody.
        let server = start(&folder, &tls("client_auth_type: NoClientCert"));
        let nobody = offering(&own, None, &[*version], |_| {});
        assert_eq!(handshake(&server, &nobody), Some(Full));
        assert_eq!(handshake(&server, &nobody), Some(Resumed), "{version:?}");
        folder.write("web.yml", &verify);
        server.clock.advance(Duration::from_secs(1));
        assert_eq!(handshake(&server, &nobody), None, "{version:?}");
        // A client whose authority is trusted no more, or whose name is not on the list any more.
        for change in ["ca.pem", "web.yml"] {
            folder.write("ca.pem", &own.pem());
            let server = start(&folder, &verify);
            let known = offering(&own, Some(&client), &[*version], |_| {});
            assert_eq!(handshake(&server, &known), Some(Full));
            assert_eq!(handshake(&server, &known), Some(Resumed), "{version:?}");
            match change {
                "ca.pem" => folder.write(change, &other.pem()),
                _ => folder.write(change, &verify.replace("}", ", client_allowed_sans: [other]}")),
            };
            server.clock.advance(Duration::from_secs(1));
            assert_eq!(handshake(&server, &known), None, "{version:?}, {change}");
        }
    }
}

/// The first bytes of a client that speaks nothing newer than `version`, and the suites that it names.
fn old_hello(version: u8, suites: &[u16]) -> Vec<u8> {
    let mut body = vec![3, version];
    body.extend([7; 32]);
    body.push(0);
    body.extend(u16::try_from(2 * suites.len()).unwrap().to_be_bytes());
    suites.iter().for_each(|suite| body.extend(suite.to_be_bytes()));
    body.extend([1, 0]);
    let mut hello = vec![0x16, 3, 1];
    hello.extend(u16::try_from(body.len() + 4).unwrap().to_be_bytes());
    hello.extend([1, 0]);
    hello.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    [hello, body].concat()
}

#[test]
fn versions_suites_and_groups_are_those_that_are_configured() {
    use rustls::CipherSuite::{TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384};
    use rustls::{NamedGroup, version};
    let own = Authority::new("own");
    let (cert, key) = own.sign("localhost");
    let folder = Folder::new();
    folder.write("cert.pem", &cert);
    folder.write("key.pem", &key);
    let serve =
        |rest: &str| start(&folder, &format!("tls_server_config: {{cert_file: cert.pem, key_file: key.pem{rest}}}"));
    let server = serve("");
    // TLS 1.0, 1.1, and 1.2 with the suites of those times (RC4, 3DES, CBC) or of export.
    for (version, suites) in [
        (1, &[0xc009, 0xc013, 0x002f][..]),
        (2, &[0xc009, 0xc013, 0x002f]),
        (3, &[0x0005, 0x000a, 0xc008, 0xc012, 0xc007]),
        (3, &[0xc009, 0xc013, 0x002f, 0x003c]),
        (3, &[0x0003, 0x0017, 0x0000]),
    ] {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(&old_hello(version, suites)).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        // A fatal alert (protocol_version, handshake_failure) or the end, and no hello.
        assert!(answer.is_empty() || answer[0] == 0x15 && answer[5] == 2, "3.{version} {suites:x?}: {answer:x?}");
    }
    let reaches = |server: &TestServer, versions, change: &dyn Fn(&mut rustls::crypto::CryptoProvider)| {
        handshake(server, &offering(&own, None, versions, change)).is_some()
    };
    let any = |_: &mut rustls::crypto::CryptoProvider| {};
    let (only12, only13): (&[&'static _], &[&'static _]) = (&[&version::TLS12], &[&version::TLS13]);
    assert!(reaches(&server, only12, &any) && reaches(&server, only13, &any));
    let newest = serve(", min_version: TLS13");
    assert!(!reaches(&newest, only12, &any) && reaches(&newest, only13, &any));
    let oldest = serve(", max_version: TLS12");
    assert!(reaches(&oldest, only12, &any) && !reaches(&oldest, only13, &any));
    let picky = serve(
        ", max_version: TLS12, cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384], curve_preferences: [CurveP256]",
    );
    for (suite, group, expected) in [
        (TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, NamedGroup::secp256r1, true),
        (TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, NamedGroup::secp256r1, false),
        (TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, NamedGroup::X25519, false),
    ] {
        let offer = |provider: &mut rustls::crypto::CryptoProvider| {
            provider.cipher_suites.retain(|known| known.suite() == suite);
            provider.kx_groups.retain(|known| known.name() == group);
        };
        assert_eq!(reaches(&picky, only12, &offer), expected, "{suite:?} {group:?}");
    }
}

#[test]
fn a_bad_file_ends_the_start_with_its_reason() {
    fn check(folder: &Folder, text: &str, expected: &str) {
        let path = folder.write("web.yml", text);
        let error = TestServer::try_start(Setup { web_config: Some(path), ..Setup::default() }).err().unwrap();
        assert!(matches!(error, ServeError::WebConfig(_)));
        let error = error.to_string();
        assert!(error.starts_with("--web.config.file: ") && error.contains(expected), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
    let folder = Folder::new();
    let authority = Authority::new("a");
    let (cert, key) = authority.sign("localhost");
    folder.write("cert.pem", &cert);
    folder.write("key.pem", &key);
    folder.write("other.pem", &authority.sign("localhost").1);
    check(&folder, "basic_auth_users: {x: hunter2}", "the password of x is not a bcrypt hash");
    check(&folder, "foo: 1", "field foo not found in type web.Config");
    check(&folder, "tls_server_config: {cert_file: cert.pem}", "missing one of key or key_file");
    check(&folder, "tls_server_config: {cert_file: no.pem, key_file: key.pem}", "failed to read cert_file (");
    check(&folder, "tls_server_config: {cert_file: key.pem, key_file: key.pem}", "failed to load X509KeyPair: ");
    check(&folder, "tls_server_config: {cert_file: cert.pem, key_file: other.pem}", "failed to load X509KeyPair: ");
    let text = "tls_server_config: {cert_file: cert.pem, key_file: key.pem, client_ca_file: cert.pem}";
    check(&folder, text, "client CA's have been configured without a Client Auth Policy");
    let text = "tls_server_config: {cert_file: cert.pem, key_file: key.pem, max_version: TLS11}";
    check(&folder, text, "max_version");
    assert!(Path::new(&folder.path("web.yml")).exists());
}
