//! The whole path through the built binary: a target is scraped and queried, a reload changes a rule, the target breaks, the
//! alert reaches a webhook once, the server is killed, the target heals, and the webhook hears of that once.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "end_to_end/replay.rs"]
mod replay;
mod support;
#[path = "end_to_end/synthesis.rs"]
mod synthesis;

use std::fs;
use std::path::Path;

use serde_json::Value;
use support::{Behaviour, Exporter, Server, wait_for};

const FLAGS: [&str; 3] =
    ["--config.file=prometheus.yml", "--alertmanager.config.file=alertmanager.yml", "--web.enable-lifecycle"];

fn write(folder: &Path, target: &Exporter, external: &Exporter, severity: &str) {
    let config = format!(
        "global:\n  scrape_interval: 200ms\n  evaluation_interval: 200ms\n  external_labels: {{cluster: north}}\n\
         rule_files: [rules.yml]\n\
         alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{}']}}]}}]}}\n\
         scrape_configs:\n- job_name: app\n  static_configs:\n  - targets: ['{}']\n",
        external.addr, target.addr
    );
    let rules = format!(
        "groups:\n- name: app\n  rules:\n  - record: app:requests:sum\n    expr: sum(requests_total)\n\
         \x20 - alert: TargetDown\n    expr: up == 0\n    labels: {{severity: {severity}}}\n\
         \x20   annotations: {{summary: '{{{{ $labels.job }}}} is down, up is {{{{ $value }}}}'}}\n"
    );
    fs::write(folder.join("prometheus.yml"), config).unwrap();
    fs::write(folder.join("rules.yml"), rules).unwrap();
}

fn messages(webhook: &Exporter) -> Vec<Value> {
    webhook.bodies().iter().map(|body| serde_json::from_slice(body).unwrap()).collect()
}

fn with_status(webhook: &Exporter, status: &str) -> Vec<Value> {
    messages(webhook).into_iter().filter(|message| message["status"] == status).collect()
}

#[test]
fn an_alert_fires_and_resolves_once_although_the_server_is_killed_between() {
    let folder = tempfile::tempdir().unwrap();
    let target = Exporter::start("# TYPE requests_total counter\nrequests_total{code=\"200\"} 5\n");
    let (webhook, external) = (Exporter::start(""), Exporter::start(""));
    write(folder.path(), &target, &external, "info");
    let alertmanager = format!(
        "route:\n  receiver: hook\n  group_by: [alertname]\n  group_wait: 100ms\n  group_interval: 300ms\n\
         \x20 repeat_interval: 1h\nreceivers:\n- name: hook\n  webhook_configs:\n  - url: 'http://{}/{{{{ .CommonLabels.severity }}}}?token=hidden'\n",
        webhook.addr
    );
    fs::write(folder.path().join("alertmanager.yml"), alertmanager).unwrap();

    let server = Server::start(folder.path(), &FLAGS);
    wait_for("the recorded series", || server.single("app:requests:sum").filter(|sum| *sum == 5.0));

    write(folder.path(), &target, &external, "page");
    assert_eq!(server.post("/-/reload").status, 200, "{}", server.log());
    let report = server.get("/api/watchfire/v1/reload").json();
    let plan = report["data"]["plan"].as_array().unwrap();
    let groups = plan.iter().find(|section| section["what"] == "rule_group").unwrap();
    assert_eq!(groups["changed"]["count"], 1, "{report}");

    target.set(Behaviour::Status("500 Internal Server Error".to_owned()));
    wait_for("the firing message", || (!with_status(&webhook, "firing").is_empty()).then_some(()));
    let message = with_status(&webhook, "firing").remove(0);
    assert_eq!(message["version"], "4");
    assert_eq!(message["receiver"], "hook");
    assert_eq!(message["groupKey"], "{}:{alertname=\"TargetDown\"}");
    assert_eq!(webhook.requests()[0].0, "POST /page?token=hidden HTTP/1.1");
    let alert = &message["alerts"][0];
    let labels = &alert["labels"];
    assert_eq!((labels["job"].as_str(), labels["severity"].as_str()), (Some("app"), Some("page")), "{message}");
    assert_eq!(labels["cluster"], "north");
    assert_eq!(alert["annotations"]["summary"], "app is down, up is 0");
    assert_eq!(alert["endsAt"], "0001-01-01T00:00:00Z");
    assert_eq!(alert["fingerprint"].as_str().map(str::len), Some(16));
    let sent = wait_for("the external Alertmanager to hear of it", || external.bodies().pop());
    let sent: Value = serde_json::from_slice(&sent).unwrap();
    assert_eq!(sent[0]["labels"], *labels, "both are told the same");
    assert_eq!(external.requests()[0].0, "POST /api/v2/alerts HTTP/1.1");
    let alerts = server.get("/api/v1/alerts").json();
    assert_eq!(alerts["data"]["alerts"][0]["state"], "firing", "{alerts}");
    for path in ["/api/v1/status/config", "/api/v1/status/flags", "/status", "/config", "/alerts", "/actors"] {
        assert!(!server.get(path).text().contains("hidden"), "{path} shows a secret");
    }
    assert!(!server.log().contains("hidden"));
    // What was told counts as told once the notification log has it.
    let log = folder.path().join("data/alertmanager/nflog");
    wait_for("it is recorded", || fs::metadata(&log).is_ok_and(|meta| 0 < meta.len()).then_some(()));
    server.kill();

    let before = messages(&webhook).len();
    let server = Server::start(folder.path(), &FLAGS);
    assert_eq!(server.single("last_over_time(app:requests:sum[1h])"), Some(5.0), "the data is still there");
    wait_for("it fires again", || server.single("ALERTS{alertstate=\"firing\"}"));
    let rounds = || {
        let rules = server.get("/api/v1/rules").json();
        rules["data"]["groups"][0]["lastEvaluation"].as_str().unwrap_or("").to_owned()
    };
    // Ten evaluations are more than six times the interval of the group: it was flushed, and had nothing to tell.
    for _ in 0..10 {
        let last = rounds();
        wait_for("the next evaluation", || (rounds() != last).then_some(()));
    }
    assert_eq!(messages(&webhook).len(), before, "nobody is told twice");

    target.set_body("requests_total 6\n");
    wait_for("the resolved message", || (!with_status(&webhook, "resolved").is_empty()).then_some(()));
    for _ in 0..10 {
        let last = rounds();
        wait_for("the next evaluation", || (rounds() != last).then_some(()));
    }
    assert_eq!(with_status(&webhook, "resolved").len(), 1);
    assert_eq!(messages(&webhook).len(), before + 1, "{:?}", messages(&webhook));
    let resolved = with_status(&webhook, "resolved").remove(0);
    assert_eq!(resolved["alerts"][0]["status"], "resolved");
    assert_ne!(resolved["alerts"][0]["endsAt"], "0001-01-01T00:00:00Z");
    assert_eq!(resolved["groupKey"], message["groupKey"]);
}
