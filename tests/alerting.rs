//! The dispatcher in process through the built binary: its configuration. The whole path is in `end_to_end.rs`.
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
