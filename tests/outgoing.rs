//! Whatever asks others over HTTP takes its proxy and its token from the configuration: scrapes, notifications to
//! Alertmanagers, and webhooks, through the built binary.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::fs;

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
