//! Secrets of configurations: a canary stands in every secret field of every block, everything goes wrong that can go
//! wrong with it, and all that comes out of the server is searched.

mod targets;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use rcgen::{CertificateParams, KeyPair};

use crate::support::{Answer, Exporter, Server, request, wait_for};

/// The word that stands in every secret.
const CANARY: &str = "CANARY";
/// A secret that has to be a UUID.
const CANARY_UUID: &str = "c0ffeec0-ffee-4bad-8bad-c0ffeec0ffee";
/// Nobody listens there.
const NOWHERE: &str = "127.0.0.1:1";

/// Every secret field of the configuration files: the struct that reads it and the field's name. A new one fails the
/// test until it stands here and in a configuration below.
const SECRET_FIELDS: &[(&str, &str)] = &[
    ("Authorization", "credentials"),
    ("AwsSd", "secret_key"),
    ("AzureCertificate", "certificate_password"),
    ("AzureOAuth", "client_secret"),
    ("AzureSd", "client_secret"),
    ("BasicAuth", "password"),
    ("ConsulSd", "password"),
    ("ConsulSd", "token"),
    ("Ec2Sd", "secret_key"),
    ("EcsSd", "secret_key"),
    ("ElasticacheSd", "secret_key"),
    ("Header", "secrets"),
    ("HttpClientConfig", "bearer_token"),
    ("LightsailSd", "secret_key"),
    ("MarathonSd", "auth_token"),
    ("MskSd", "secret_key"),
    ("OAuth2", "client_certificate_key"),
    ("OAuth2", "client_secret"),
    ("OciSd", "key_passphrase"),
    ("OpenstackSd", "application_credential_secret"),
    ("OpenstackSd", "password"),
    ("OutscaleSd", "secret_key"),
    ("OvhcloudSd", "application_secret"),
    ("OvhcloudSd", "consumer_key"),
    ("ProxyConfig", "proxy_connect_header"),
    ("RdsSd", "secret_key"),
    ("ScalewaySd", "secret_key"),
    ("SigV4Config", "secret_key"),
    ("StackitSd", "private_key"),
    ("StackitSd", "service_account_key"),
    ("TlsConfig", "key"),
    ("UyuniSd", "password"),
    ("TlsServerConfig", "key"),
    ("WebConfig", "basic_auth_users"),
];

/// What a block that speaks HTTP may hold; `@` stands for a canary.
const AUTHS: [&str; 5] = [
    "basic_auth: {username: me, password: '@'}",
    "authorization: {credentials: '@'}",
    "bearer_token: '@'",
    "oauth2: {client_id: me, client_secret: '@', token_url: 'http://me:@@127.0.0.1:1/token?x=y'}",
    "oauth2: {client_id: me, grant_type: 'urn:ietf:params:oauth:grant-type:jwt-bearer', client_certificate_key: '@', \
     token_url: 'http://127.0.0.1:1/token'}",
];

/// Signing in at clouds.
const CLOUD_AUTHS: [&str; 4] = [
    "azuread: {certificate: {client_id: 11111111-1111-1111-1111-111111111111, certificate_path: /none, \
     certificate_password: '@', tenant_id: 11111111-1111-1111-1111-111111111111}}",
    "azuread: {oauth: {client_id: 11111111-1111-1111-1111-111111111111, client_secret: '@', \
     tenant_id: 11111111-1111-1111-1111-111111111111}}",
    "google_iam: {credentials_file: google.json}",
    "sigv4: {region: r, access_key: a, secret_key: '@'}",
];

/// What goes with each of them.
const ALWAYS: &str = "proxy_url: 'http://me:@@127.0.0.1:1', proxy_connect_header: {X-A: ['@']}, \
                      http_headers: {X-B: {secrets: ['@']}}";

/// Discovery that speaks HTTP, with the least that it takes.
const PROVIDERS: &[(&str, &str)] = &[
    ("aws", "role: ec2, endpoint: 'http://127.0.0.1:1', region: r, access_key: a, secret_key: '@'"),
    ("azure", "subscription_id: a, tenant_id: b, client_id: c, client_secret: '@'"),
    ("consul", "server: '127.0.0.1:1'"),
    ("digitalocean", ""),
    ("docker", "host: 'tcp://127.0.0.1:1'"),
    ("dockerswarm", "host: 'tcp://127.0.0.1:1', role: nodes"),
    ("ec2", "endpoint: 'http://127.0.0.1:1', region: r, access_key: a, secret_key: '@'"),
    ("ecs", "endpoint: 'http://127.0.0.1:1', region: r, access_key: a, secret_key: '@'"),
    ("elasticache", "endpoint: 'http://127.0.0.1:1', region: r, access_key: a, secret_key: '@'"),
    ("eureka", "server: 'http://me:@@127.0.0.1:1'"),
    ("hetzner", "role: hcloud"),
    ("http", "url: 'http://me:@@127.0.0.1:1/x'"),
    ("ionos", "datacenter_id: d"),
    ("kubernetes", "api_server: 'http://me:@@127.0.0.1:1', role: pod"),
    ("kuma", "server: 'http://127.0.0.1:1'"),
    ("lightsail", "endpoint: 'http://127.0.0.1:1', region: r, access_key: a, secret_key: '@'"),
    ("linode", ""),
    ("marathon", "servers: ['http://127.0.0.1:1']"),
    ("msk", "endpoint: 'http://127.0.0.1:1', region: r, access_key: a, secret_key: '@'"),
    ("nomad", "server: 'http://127.0.0.1:1'"),
    ("oci", "region: r, tenancy: t, user: u, fingerprint: f, key_file: /none, key_passphrase: '@'"),
    ("outscale", "region: r, access_key: a, secret_key: '@'"),
    ("puppetdb", "url: 'http://me:@@127.0.0.1:1', query: q"),
    ("rds", "endpoint: 'http://127.0.0.1:1', region: r, access_key: a, secret_key: '@'"),
    ("stackit", "project: p, service_account_key: '@', private_key: '@'"),
    ("uyuni", "server: 'http://127.0.0.1:1', username: u, password: '@'"),
    ("vultr", ""),
];

/// Discovery whose secrets exclude those of HTTP, or that has none of its own.
const PROVIDERS_ALONE: &[&str] = &[
    "consul_sd_configs: [{server: '127.0.0.1:1', token: '@'}]",
    "consul_sd_configs: [{server: '127.0.0.1:1', username: me, password: '@'}]",
    "marathon_sd_configs: [{servers: ['http://127.0.0.1:1'], auth_token: '@'}]",
    "openstack_sd_configs: [{role: instance, region: r, password: '@', application_credential_secret: '@'}]",
    "ovhcloud_sd_configs: [{service: vps, application_key: k, application_secret: '@', consumer_key: '@'}]",
    "scaleway_sd_configs: [{role: instance, project_id: 11111111-1111-1111-1111-111111111111, \
     access_key: SCWXXXXXXXXXXXXXXXXX, secret_key: c0ffeec0-ffee-4bad-8bad-c0ffeec0ffee}]",
];

/// Numbers the canaries of a text, so that one that gets out is found.
fn number(text: &str, next: &mut usize) -> String {
    let mut parts = text.split('@');
    let mut numbered = parts.next().unwrap_or("").to_owned();
    let mut was_canary = false;
    for part in parts {
        if was_canary && part.starts_with(|c: char| c.is_ascii_digit()) {
            // The second one of a pair ends the userinfo of a URL.
            numbered.push('@');
        } else {
            *next += 1;
            let _ = write!(numbered, "{CANARY}{next}x");
        }
        numbered.push_str(part);
        was_canary = part.is_empty();
    }
    numbered
}

/// A certificate and its key, with a canary before the key.
fn key_pair() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    (certificate.pem(), format!("{CANARY}-key\n{}", key.serialize_pem()))
}

fn indented(text: &str, by: usize) -> String {
    text.lines().map(|line| format!("{:by$}{line}\n", "")).collect()
}

/// The main file: every block, with every secret it can hold.
fn main_file(target: &str) -> String {
    let mut next = 0;
    let mut text = String::from(
        "global: {scrape_interval: 200ms, evaluation_interval: 200ms}\nrule_files: [rules.yml]\nscrape_configs:\n",
    );
    for (index, auth) in AUTHS.iter().enumerate() {
        let job = format!(
            "- {{job_name: 'auth {index}', static_configs: [{{targets: ['{NOWHERE}', '{target}']}}], {auth}, {ALWAYS}}}\n"
        );
        text.push_str(&number(&job, &mut next));
    }
    for (kind, least) in PROVIDERS {
        let least = if least.is_empty() { String::new() } else { format!("{least}, ") };
        let auths: Vec<String> = AUTHS.iter().map(|auth| format!("{{{least}{auth}, {ALWAYS}}}")).collect();
        let job = format!("- {{job_name: '{kind}', {kind}_sd_configs: [{}]}}\n", auths.join(", "));
        text.push_str(&number(&job, &mut next));
    }
    for (index, block) in PROVIDERS_ALONE.iter().enumerate() {
        text.push_str(&number(&format!("- {{job_name: 'alone {index}', {block}}}\n"), &mut next));
    }
    let (certificate, key) = key_pair();
    let _ = write!(
        text,
        "- job_name: tls\n  scheme: https\n  static_configs: [{{targets: ['{target}']}}]\n  tls_config:\n    cert: |\n{}    key: |\n{}",
        indented(&certificate, 6),
        indented(&key, 6)
    );
    text.push_str("alerting:\n  alertmanagers:\n");
    for auth in AUTHS {
        let entry = format!("  - {{static_configs: [{{targets: ['{NOWHERE}']}}], {auth}, {ALWAYS}}}\n");
        text.push_str(&number(&entry, &mut next));
    }
    for block in ["remote_read", "remote_write"] {
        let _ = writeln!(text, "{block}:");
        for (index, auth) in AUTHS.iter().enumerate() {
            let entry = format!("- {{name: n{index}, url: 'http://me:@@127.0.0.1:1/{block}', {auth}, {ALWAYS}}}\n");
            text.push_str(&number(&entry, &mut next));
        }
    }
    // What only remote write knows.
    for (index, auth) in CLOUD_AUTHS.iter().enumerate() {
        let entry = format!("- {{name: c{index}, url: 'http://me:@@127.0.0.1:1/w', {auth}}}\n");
        text.push_str(&number(&entry, &mut next));
    }
    text
}

/// What may stand for a secret in a configuration that this server refuses to run with, or that it can but check.
fn checked_only() -> Vec<String> {
    let mut next = 10_000;
    let write = |auth: &str| format!("remote_write: [{{url: 'http://me:@@127.0.0.1:1/', {auth}}}]");
    [
        write("sigv4: {region: r, access_key: a, secret_key: '@'}"),
        write(
            "azuread: {oauth: {client_id: 11111111-1111-1111-1111-111111111111, client_secret: '@', \
             tenant_id: 11111111-1111-1111-1111-111111111111}}",
        ),
        write(
            "azuread: {certificate: {client_id: 11111111-1111-1111-1111-111111111111, certificate_path: /none, \
             certificate_password: '@', tenant_id: 11111111-1111-1111-1111-111111111111}}",
        ),
        "alerting: {alertmanagers: [{sigv4: {region: r, access_key: a, secret_key: '@'}}]}".to_owned(),
        // Wrong types and wrong places.
        write("basic_auth: {username: me, password: ['@']}"),
        write("basic_auth: {username: me, password: {a: '@'}}"),
        write("basic_auth: {username: me, password: '@', password_file: x}"),
        write("basic_auth: {username: me, password: '@'}, bearer_token: '@'"),
        write("authorization: {type: Basic, credentials: '@'}"),
        write("http_headers: {Authorization: {secrets: ['@']}}"),
        write("http_headers: {A: {secrets: '@'}}"),
        write("proxy_connect_header: '@'"),
        write("oauth2: {client_id: me, client_secret: '@'}"),
        write("tls_config: {cert: x, key: '@'}"),
        write("tls_config: {key: '@'}"),
        "remote_write: [{url: '://me:@@127.0.0.1:1/'}]".to_owned(),
        "remote_write: [{url: 'http://me:@@127.0.0.1:1 /'}]".to_owned(),
        "remote_write: [{url: 'http://me:@@127.0.0.1:1/%zz'}]".to_owned(),
        "scrape_configs: [{job_name: a, proxy_url: 'http://me:@@127.0.0.1:x'}]".to_owned(),
        "scrape_configs: [{job_name: a, http_sd_configs: [{url: 'ftp://me:@@127.0.0.1:1'}]}]".to_owned(),
        "scrape_configs: [{job_name: a, http_sd_configs: [{url: 'http://me:@@127.0.0.1:1'}], bearer_token: '@', \
         authorization: {credentials: '@'}}]"
            .to_owned(),
    ]
    .iter()
    .map(|text| number(text, &mut next))
    .collect()
}

/// The file of the Alertmanager in process.
fn alertmanager_file() -> String {
    let mut next = 20_000;
    let mut text =
        String::from("route: {receiver: all, group_wait: 0s}\nreceivers:\n- name: all\n  webhook_configs:\n");
    for auth in AUTHS {
        let hook = format!("  - {{url: 'http://me:@@127.0.0.1:1/@?@', http_config: {{{auth}, {ALWAYS}}}}}\n");
        text.push_str(&number(&hook, &mut next));
    }
    text
}

/// All paths that are served, from the table of routes.
fn paths() -> Vec<String> {
    let table = include_str!("../../src/http/routes.rs");
    let mut paths: Vec<String> = Vec::new();
    for part in table.split("route!(").skip(1) {
        let path = part.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next());
        paths.extend(path.map(|path| path.replace('*', "job")));
    }
    assert!(40 < paths.len(), "{paths:?}");
    paths
}

/// Panics when a secret stands in a text.
#[track_caller]
fn assert_clean(what: &str, text: &str, secrets: &[String]) {
    for secret in secrets {
        if let Some(at) = text.find(secret.as_str()) {
            let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
            let rest = text[line..].lines().next().unwrap_or("");
            panic!("{secret} shows in {what}: {}", rest.chars().take(600).collect::<String>());
        }
    }
}

fn field_lines(folder: &Path, found: &mut BTreeSet<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            field_lines(&path, found);
            continue;
        }
        let mut name = String::new();
        for line in fs::read_to_string(&path).unwrap().lines() {
            if let Some((_, rest)) = line.split_once("struct ") {
                name = rest.chars().take_while(|c| c.is_alphanumeric()).collect();
            }
            let field = line.split_once(" = \"").and_then(|(left, right)| {
                (left.contains("Secret<") && left.contains("pub")).then(|| right.split('"').next().unwrap_or(""))
            });
            if let Some(field) = field {
                found.insert((name.clone(), field.to_owned()));
            }
        }
    }
}

#[test]
fn every_secret_field_is_covered() {
    let mut found = BTreeSet::new();
    field_lines(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config"), &mut found);
    let listed: BTreeSet<(String, String)> =
        SECRET_FIELDS.iter().map(|(name, field)| ((*name).to_owned(), (*field).to_owned())).collect();
    assert_eq!(found, listed, "secret fields of src/config on the left, those of the canary test on the right");
    let all = format!("{}{}key: x basic_auth_users: x", main_file("x"), checked_only().concat());
    for (_, field) in SECRET_FIELDS {
        assert!(all.contains(&format!("{field}: ")), "no canary in {field}");
    }
}

#[test]
fn no_secret_comes_out() {
    let folder = tempfile::tempdir().unwrap();
    let exporter = Exporter::start("a 1\n");
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("prometheus.yml", &main_file(&exporter.addr));
    write("alertmanager.yml", &alertmanager_file());
    let account = r#"{"type": "service_account", "token_uri": "http://127.0.0.1:1", "private_key": "CANARY-key"}"#;
    write("google.json", account);
    // One after the other, as Alertmanagers may not be known yet when the first fires.
    let rules: String =
        (0..30).map(|at| format!("{{alert: Always, expr: vector(1), for: {at}s, labels: {{x: '{at}'}}}},")).collect();
    write("rules.yml", &format!("groups:\n- name: g\n  rules: [{rules}]\n"));
    let password = format!("{CANARY}-password");
    let hash = bcrypt::hash(&password, 4).unwrap();
    let (certificate, key) = key_pair();
    let tls = format!("tls_server_config:\n  cert: |\n{}  key: |\n{}", indented(&certificate, 4), indented(&key, 4));
    write("tls.yml", &tls);
    write("web.yml", &format!("basic_auth_users:\n  me: '{hash}'\n"));
    let mut secrets = vec![CANARY.to_owned(), CANARY_UUID.to_owned(), hash];
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    // A canary in base64, whatever stands before it.
    secrets.extend(["me:", "xme:", "xxme:"].map(|start| encode(&format!("{start}{CANARY}"))[4..12].to_owned()));

    let flags = [
        "--config.file=prometheus.yml",
        "--alertmanager.config.file=alertmanager.yml",
        "--web.config.file=web.yml",
        "--log.level=debug",
        "--web.enable-lifecycle",
        "--web.enable-admin-api",
        "--web.enable-remote-write-receiver",
    ];
    let variables = [("AWS_SECRET_ACCESS_KEY", "CANARY-env"), ("AWS_SESSION_TOKEN", "CANARY-env")];
    let server = Server::start_with(folder.path(), &flags, &variables);
    let sign_in = format!("Basic {}", encode(&format!("me:{password}")));
    let ask = |method: &str, path: &str| -> Answer {
        request(&server.addr, method, path, &[("Authorization", &sign_in)], b"").unwrap()
    };
    wait_for("readiness", || (ask("GET", "/-/ready").status == 200).then_some(()));
    // Everything has been tried and has failed.
    let metric = |name: &str| {
        let text = ask("GET", "/metrics").text();
        text.lines()
            .filter(|line| line.starts_with(name))
            .filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
            .sum::<f64>()
    };
    for name in [
        "prometheus_sd_refresh_failures_total",
        "prometheus_notifications_errors_total",
        "alertmanager_notification_requests_failed_total",
    ] {
        wait_for(name, || (0.0 < metric(name)).then_some(()));
    }
    wait_for("a failed scrape", || {
        let targets = ask("GET", "/api/v1/targets").text();
        (targets.matches("\"health\":\"down\"").count() > AUTHS.len()).then_some(())
    });

    for text in checked_only() {
        write("prometheus.yml", &text);
        let answer = ask("POST", "/-/reload").text();
        assert_clean("the answer to a reload", &answer, &secrets);
        let check = Command::new(env!("CARGO_BIN_EXE_watchfire"))
            .current_dir(&folder)
            .args(["promtool", "check", "config", "prometheus.yml"])
            .output()
            .unwrap();
        let said = [check.stdout, check.stderr].concat();
        assert_clean("promtool check config", &String::from_utf8_lossy(&said), &secrets);
    }
    write("prometheus.yml", &main_file(&exporter.addr));
    write("alertmanager.yml", "receivers: [{name: a, webhook_configs: [{url: '://CANARY'}]}]\nroute: {receiver: a}\n");
    assert_clean("a reload with a bad receiver", &ask("POST", "/-/reload").text(), &secrets);

    write("alertmanager.yml", &alertmanager_file());
    let reload = ask("POST", "/-/reload");
    assert_eq!(reload.status, 200, "{}", reload.text());

    for path in paths().iter().filter(|path| !path.ends_with("/quit") && !path.ends_with("/live")) {
        for query in ["", "?query=up&match[]=up&start=0&end=1&step=1&scrapePool=http&stats=all&debug=true"] {
            for method in ["GET", "POST"] {
                let answer = ask(method, &format!("{path}{query}"));
                assert_clean(&format!("{method} {path}{query}"), &answer.text(), &secrets);
                for (name, value) in &answer.headers {
                    assert_clean(&format!("header {name} of {method} {path}"), value, &secrets);
                }
            }
        }
    }
    assert!(ask("GET", "/api/v1/status/config").text().contains("\\u003csecret\\u003e"));
    assert_clean("the log", &server.log(), &secrets);

    for name in ["web.yml", "tls.yml"] {
        let check = Command::new(env!("CARGO_BIN_EXE_watchfire"))
            .current_dir(&folder)
            .args(["promtool", "check", "web-config", name])
            .output()
            .unwrap();
        let said = [check.stdout, check.stderr].concat();
        assert_clean("promtool check web-config", &String::from_utf8_lossy(&said), &secrets);
    }
}

/// All Rust files below a folder, joined.
fn sources(folder: &Path, joined: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, joined);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            joined.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn the_tests_that_the_security_model_names_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = String::new();
    sources(&root.join("src"), &mut all);
    sources(&root.join("tests"), &mut all);
    sources(&root.join("fuzz"), &mut all);
    let model = fs::read_to_string(root.join("docs/security.md")).unwrap();
    let rows = model.lines().filter(|line| line.starts_with("| ") && line.matches(" | ").count() == 1);
    let named = rows.filter_map(|row| row.split(" | ").nth(1)).flat_map(|cell| cell.split('`').skip(1).step_by(2));
    let mut count = 0;
    for name in named {
        assert!(all.contains(&format!("fn {name}(")), "docs/security.md names {name}, which is no test");
        count += 1;
    }
    assert!(30 < count, "{count}");
}
