//! From a metric to a webhook through the built binary: a rule fires, the dispatcher in process tells it, the server is
//! killed, and the end is told once.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::fs;
use std::path::Path;

use support::{Exporter, Server, Webhook, wait_for};

const FLAGS: [&str; 3] =
    ["--config.file=prometheus.yml", "--alertmanager.config.file=alertmanager.yml", "--web.enable-lifecycle"];

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).unwrap();
}

fn alertmanager_yml(folder: &Path, webhook: &Webhook) {
    let route = "route: {receiver: team, group_by: [alertname], group_wait: 0s, group_interval: 100ms}";
    let receiver = format!("receivers:\n- name: team\n  webhook_configs: [{{url: '{}'}}]\n", webhook.url());
    write(folder, "alertmanager.yml", &format!("{route}\n{receiver}"));
}

fn setup(folder: &Path, exporter: &Exporter, webhook: &Webhook) {
    let global = "global: {scrape_interval: 100ms, evaluation_interval: 100ms, external_labels: {dc: x}}";
    let job = format!("scrape_configs:\n- job_name: a\n  static_configs: [{{targets: ['{}']}}]\n", exporter.addr);
    write(folder, "prometheus.yml", &format!("{global}\nrule_files: [rules.yml]\n{job}"));
    let rule =
        "{alert: Broken, expr: broken > 0, labels: {severity: page}, annotations: {text: '{{ $value }} broken'}}";
    write(folder, "rules.yml", &format!("groups:\n- name: g\n  rules: [{rule}]\n"));
    alertmanager_yml(folder, webhook);
}

#[test]
fn after_kill_9_the_beginning_is_not_told_again_and_the_end_once() {
    let folder = tempfile::tempdir().unwrap();
    let (exporter, webhook) = (Exporter::start("broken 2\n"), Webhook::start());
    setup(folder.path(), &exporter, &webhook);
    let server = Server::start(folder.path(), &FLAGS);
    let first = wait_for("the beginning", || webhook.messages().into_iter().next());
    assert_eq!((first["status"].as_str(), first["version"].as_str()), (Some("firing"), Some("4")));
    let alert = &first["alerts"][0];
    assert_eq!((alert["labels"]["dc"].as_str(), alert["labels"]["severity"].as_str()), (Some("x"), Some("page")));
    assert_eq!(alert["annotations"]["text"], "2 broken");
    let counter = "alertmanager_notifications_total{integration=\"webhook\"} 1\n";
    wait_for("it is counted", || server.get("/metrics").text().contains(counter).then_some(()));
    // Told is told only once the notification log has it: a moment more for its sync.
    let log = folder.path().join("data/alertmanager/nflog");
    wait_for("it is recorded", || fs::metadata(&log).is_ok_and(|meta| 0 < meta.len()).then_some(()));
    server.kill();

    let server = Server::start(folder.path(), &FLAGS);
    let received = "alertmanager_alerts_received_total{status=\"firing\",version=\"v2\"} 1";
    wait_for("it fires again", || server.get("/metrics").text().contains(received).then_some(()));
    let flushed = "alertmanager_alerts{state=\"active\"} 1";
    wait_for("it is flushed", || server.get("/metrics").text().contains(flushed).then_some(()));
    exporter.set_body("broken 0\n");
    wait_for("the end", || (2 <= webhook.messages().len()).then_some(()));
    let ended = "alertmanager_dispatcher_aggregation_groups 0";
    wait_for("the group ends", || server.get("/metrics").text().contains(ended).then_some(()));
    assert_eq!(webhook.statuses(), ["firing", "resolved"]);
}

#[test]
fn alertmanager_yml_is_read_again_with_each_reload() {
    let folder = tempfile::tempdir().unwrap();
    let (exporter, before, after) = (Exporter::start("broken 1\n"), Webhook::start(), Webhook::start());
    setup(folder.path(), &exporter, &before);
    let server = Server::start(folder.path(), &FLAGS);
    wait_for("the beginning", || (before.statuses() == ["firing"]).then_some(()));

    write(
        folder.path(),
        "alertmanager.yml",
        "route: {receiver: team}\nreceivers: [{name: team, email_configs: [{to: x}]}]",
    );
    let answer = server.post("/-/reload");
    assert_eq!(answer.status, 500);
    let reason = "receivers[0].email_configs is not built yet";
    assert!(answer.text().contains("--alertmanager.config.file=alertmanager.yml") && answer.text().contains(reason));

    alertmanager_yml(folder.path(), &after);
    assert_eq!(server.post("/-/reload").status, 200, "{}", server.log());
    let report = server.get("/api/watchfire/v1/reload").json();
    let plan = report["data"]["plan"].as_array().unwrap().clone();
    let receivers = plan.iter().find(|section| section["what"] == "receiver").unwrap();
    assert_eq!(receivers["changed"]["first"][0], "team", "{report}");
    exporter.set_body("broken 0\n");
    wait_for("the end, at the new place", || (after.statuses() == ["resolved"]).then_some(()));
    assert_eq!(before.statuses(), ["firing"]);
}
