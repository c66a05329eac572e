//! Whatever asks others over HTTP takes its proxy, its token and its certificates from the configuration: scrapes,
//! notifications to Alertmanagers, and webhooks, through the built binary.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use support::{Behaviour, Exporter, Server, wait_for};

#[test]
fn scrapes_alertmanagers_and_webhooks_use_proxies_and_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let tokens = Exporter::start("");
    let token = br#"{"access_token": "tok", "expires_in": 3600}"#.to_vec();
    tokens.set(Behaviour::Typed("application/json".into(), token));
    // No name below exists: only the proxy answers, and only to those who show the token.
    let proxy = Exporter::start("");
    proxy.set(Behaviour::Guarded { line: "authorization: Bearer tok".into(), body: "broken 1\n".into() });
    write("secret", "hunter2\n");
    let oauth2 = format!(
        "oauth2: {{client_id: me, client_secret_file: secret, token_url: 'http://{}/token', scopes: [all]}}",
        tokens.addr
    );
    let client = format!("proxy_url: 'http://user:pass@{}', no_proxy: none.test, {oauth2}", proxy.addr);
    write(
        "prometheus.yml",
        &format!(
            "global: {{scrape_interval: 100ms, evaluation_interval: 100ms}}\nrule_files: [rules.yml]\n\
             scrape_configs:\n- {{job_name: a, static_configs: [{{targets: ['metrics.test:9100']}}], {client}}}\n\
             alerting: {{alertmanagers: [{{static_configs: [{{targets: ['am.test:9093']}}], {client}}}]}}\n"
        ),
    );
    write("rules.yml", "groups: [{name: g, rules: [{alert: Broken, expr: broken > 0}]}]\n");
    write(
        "alertmanager.yml",
        &format!(
            "route: {{receiver: team, group_wait: 0s}}\nreceivers:\n- name: team\n  \
             webhook_configs: [{{url: 'http://hook.test/in', http_config: {{{client}}}}}]\n"
        ),
    );
    let flags = ["--config.file=prometheus.yml", "--alertmanager.config.file=alertmanager.yml"];
    let server = Server::start(folder.path(), &flags);
    let wanted = [
        "GET http://metrics.test:9100/metrics HTTP/1.1",
        "POST http://am.test:9093/api/v2/alerts HTTP/1.1",
        "POST http://hook.test/in HTTP/1.1",
    ];
    for line in wanted {
        wait_for(line, || proxy.requests().iter().any(|(seen, _)| seen == line).then_some(()));
    }
    wait_for("a good scrape", || server.single("up == 1"));
    for head in proxy.heads() {
        assert!(head.contains("authorization: Bearer tok\r\n"), "{head}");
        assert!(head.contains("proxy-authorization: Basic dXNlcjpwYXNz\r\n"), "{head}");
    }
    assert_eq!(tokens.requests().len(), 3, "each client fetches one token");
    assert_eq!(tokens.bodies()[0], b"grant_type=client_credentials&scope=all");
    for shown in [server.log(), server.get("/api/v1/status/config").text(), server.get("/api/v1/targets").text()] {
        assert!(!shown.contains("hunter2") && !shown.contains("user:pass"), "{shown}");
    }
}

#[test]
fn failed_scrapes_are_noted_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let (sick, closed) = (Exporter::start(""), TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    sick.set(Behaviour::Status("500 Internal Server Error".into()));
    let config = format!(
        "global: {{scrape_interval: 100ms, scrape_failure_log_file: failed.log}}\nscrape_configs:\n\
         - {{job_name: a, static_configs: [{{targets: ['{}']}}]}}\n- {{job_name: b, static_configs: [{{targets: ['{closed}']}}]}}\n",
        sick.addr
    );
    fs::write(folder.path().join("prometheus.yml"), config).unwrap();
    let _server = Server::start(folder.path(), &["--config.file=prometheus.yml"]);
    let noted = |job: &str, error: &str| {
        let text = fs::read_to_string(folder.path().join("failed.log")).ok()?;
        let lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let mut fits = lines.filter(|line| line["job_name"] == job && line["msg"] == error && line["level"] == "ERROR");
        fits.next().map(|line| line["target"].as_str().unwrap().to_owned())
    };
    let status = "server returned HTTP status 500 Internal Server Error";
    assert_eq!(wait_for("a status", || noted("a", status)), format!("http://{}/metrics", sick.addr));
    let refused = format!("Get \"http://{closed}/metrics\": dial tcp {closed}: connect: connection refused");
    wait_for("a refused connection", || noted("b", &refused));
}

/// A certificate for `name` and its key, in PEM.
fn issue(authority: &Issuer<'_, KeyPair>, name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    (params.signed_by(&key, authority).unwrap().pem(), key.serialize_pem())
}

/// A server that takes those alone that show a certificate of the authority; notes request lines.
fn guarded(authority: &CertifiedIssuer<'_, KeyPair>) -> (String, Arc<Mutex<Vec<String>>>) {
    let (cert, key) = issue(authority, "inner.test");
    let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(der(&authority.pem())).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(vec![der(&cert)], PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
        .unwrap();
    let (config, seen) = (Arc::new(config), Arc::new(Mutex::new(Vec::new())));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let noted = Arc::clone(&seen);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (config, noted) = (Arc::clone(&config), Arc::clone(&noted));
            std::thread::spawn(move || {
                let tls = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
                let mut tls = BufReader::new(tls);
                while let Some(line) = take_request(&mut tls) {
                    noted.lock().unwrap().push(line);
                    let answer = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 9\r\n\r\nbroken 1\n";
                    if tls.get_mut().write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (addr, seen)
}

/// Reads a request whole and returns its first line.
fn take_request(stream: &mut impl BufRead) -> Option<String> {
    let mut first = String::new();
    stream.read_line(&mut first).ok().filter(|len| 0 < *len)?;
    let mut len = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok().filter(|len| 0 < *len)?;
        if line == "\r\n" {
            break;
        }
        if let Some((_, value)) = line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
            len = value.trim().parse().unwrap();
        }
    }
    stream.read_exact(&mut vec![0; len]).ok()?;
    Some(first.trim().to_owned())
}

#[test]
fn scrapes_alertmanagers_and_webhooks_use_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let (addr, seen) = guarded(&authority);
    let (cert, key) = issue(&authority, "me");
    write("cert.pem", &cert);
    write("key.pem", &key);
    let tls = "tls_config: {ca_file: ca.pem, cert_file: cert.pem, key_file: key.pem, server_name: inner.test}";
    write(
        "prometheus.yml",
        &format!(
            "global: {{scrape_interval: 100ms, evaluation_interval: 100ms}}\nrule_files: [rules.yml]\n\
             scrape_configs: [{{job_name: a, scheme: https, static_configs: [{{targets: ['{addr}']}}], {tls}}}]\n\
             alerting: {{alertmanagers: [{{scheme: https, static_configs: [{{targets: ['{addr}']}}], {tls}}}]}}\n"
        ),
    );
    write("rules.yml", "groups: [{name: g, rules: [{alert: Broken, expr: broken > 0}]}]\n");
    write(
        "alertmanager.yml",
        &format!(
            "route: {{receiver: team, group_wait: 0s}}\nreceivers:\n- name: team\n  \
             webhook_configs: [{{url: 'https://{addr}/in', http_config: {{{tls}}}}}]\n"
        ),
    );
    let flags = ["--config.file=prometheus.yml", "--alertmanager.config.file=alertmanager.yml"];
    let server = Server::start(folder.path(), &flags);
    // The file with the authority comes later: no reload is needed.
    wait_for("a failed scrape", || server.single("up == 0"));
    let error = server.get("/api/v1/targets").json()["data"]["activeTargets"][0]["lastError"].clone();
    assert!(error.as_str().unwrap().contains("unable to read CA cert: unable to read file "), "{error}");
    write("ca.pem", &authority.pem());
    for line in ["GET /metrics HTTP/1.1", "POST /api/v2/alerts HTTP/1.1", "POST /in HTTP/1.1"] {
        wait_for(line, || seen.lock().unwrap().iter().any(|seen| seen == line).then_some(()));
    }
    wait_for("a good scrape", || server.single("up == 1"));
}
