//! Rules as a user meets them: recorded series, alerts from pending to resolved, the API, bad files, `kill -9`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use support::{Exporter, Server, wait_for};

/// Writes a configuration that evaluates these rules five times a second.
fn configure(folder: &Path, target: Option<&str>, rules: &str) {
    let jobs = target.map_or(String::new(), |target| {
        format!("scrape_configs:\n- job_name: j\n  static_configs:\n  - targets: ['{target}']\n")
    });
    let config =
        format!("global:\n  scrape_interval: 100ms\n  evaluation_interval: 200ms\nrule_files: ['*.rules']\n{jobs}");
    fs::write(folder.join("prometheus.yml"), config).unwrap();
    fs::write(folder.join("one.rules"), rules).unwrap();
}

/// The alert of this name, if there is one.
fn alert(server: &Server, name: &str) -> Option<Value> {
    let alerts = server.get("/api/v1/alerts").json()["data"]["alerts"].as_array().unwrap().clone();
    alerts.into_iter().find(|alert| alert["labels"]["alertname"] == name)
}

const RULES: &str = "groups:
- name: g
  labels: {team: t}
  rules:
  - record: zone:demand:sum
    expr: sum by (zone) (demand)
    labels: {by: rule}
  - alert: DemandHigh
    expr: zone:demand:sum > 5
    for: 600ms
    labels: {severity: page}
    annotations: {plain: Too much}
";

#[test]
fn a_rule_is_recorded_and_an_alert_goes_from_pending_to_firing_to_nothing() {
    let (exporter, folder) = (Exporter::start("demand{zone=\"a\"} 3\n"), tempfile::tempdir().unwrap());
    configure(folder.path(), Some(&exporter.addr), RULES);
    let server = Server::start(folder.path(), &[]);
    let recorded = wait_for("a recorded series", || server.query("zone:demand:sum").pop());
    assert_eq!(recorded.1, "3");
    let labels = serde_json::json!({"__name__": "zone:demand:sum", "zone": "a", "by": "rule", "team": "t"});
    assert_eq!(recorded.0, labels);
    assert!(alert(&server, "DemandHigh").is_none());
    // Alerts are written once their state from before the start has been looked for.
    let evaluations = || server.single("count_over_time(zone:demand:sum[1m])");
    wait_for("some evaluations", || evaluations().filter(|count| 3.0 <= *count));

    exporter.set_body("demand{zone=\"a\"} 7\n");
    let firing = wait_for("the alert", || alert(&server, "DemandHigh").filter(|alert| alert["state"] == "firing"));
    let labels = serde_json::json!(
        {"alertname": "DemandHigh", "zone": "a", "by": "rule", "team": "t", "severity": "page"}
    );
    assert_eq!((&firing["labels"], &firing["annotations"]["plain"]), (&labels, &Value::from("Too much")));
    assert_eq!(firing["value"], "7e+00");
    let alerts = wait_for("ALERTS", || server.query("ALERTS{alertstate=\"firing\"}").pop());
    assert_eq!((alerts.1.as_str(), &alerts.0["severity"]), ("1", &Value::from("page")));
    let pending = server.single("count_over_time(ALERTS{alertstate=\"pending\"}[1m])").unwrap();
    assert!(1.0 <= pending, "it was pending for {pending} evaluations");
    assert_eq!(server.query("ALERTS{alertstate=\"pending\"}"), [], "that series has ended");
    let since = server.single("ALERTS_FOR_STATE").unwrap();
    assert!(server.single("vector(time())").unwrap() - since < 60.0);

    let groups = server.get("/api/v1/rules").json()["data"]["groups"].clone();
    let group = &groups[0];
    assert_eq!((&group["name"], &group["interval"]), (&Value::from("g"), &Value::from(0.2)));
    assert!(group["file"].as_str().unwrap().ends_with("one.rules"));
    let rules = group["rules"].as_array().unwrap();
    assert_eq!((&rules[0]["type"], &rules[0]["health"]), (&Value::from("recording"), &Value::from("ok")));
    assert_eq!(rules[0]["query"], "sum by (zone) (demand)");
    assert_eq!((&rules[1]["state"], &rules[1]["duration"]), (&Value::from("firing"), &Value::from(0.6)));
    assert_eq!(rules[1]["alerts"].as_array().unwrap().len(), 1);
    let metrics = server.get("/metrics").text();
    for name in ["evaluations_total", "group_iterations_total", "group_rules", "evaluation_failures_total"] {
        assert!(metrics.contains(&format!("\nprometheus_rule_{name}{{rule_group=\"")), "{name} is missing");
    }

    exporter.set_body("demand{zone=\"a\"} 4\n");
    wait_for("the end of the alert", || alert(&server, "DemandHigh").is_none().then_some(()));
    wait_for("the end of its series", || server.query("ALERTS").is_empty().then_some(()));
}

#[test]
fn a_rule_that_cannot_be_evaluated_says_so_and_the_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let rules = "groups:
- name: g
  rules:
  - {record: same, expr: 'label_replace(vector(1), \"a\", \"1\", \"\", \"\") or label_replace(vector(1), \"a\", \"2\", \"\", \"\")', labels: {a: b}}
  - {record: good, expr: '42'}
";
    configure(folder.path(), None, rules);
    let server = Server::start(folder.path(), &[]);
    assert_eq!(wait_for("the good rule", || server.single("good")), 42.0);
    let rules = server.get("/api/v1/rules").json()["data"]["groups"][0]["rules"].clone();
    let text = "vector contains metrics with the same labelset after applying rule labels";
    assert_eq!((&rules[0]["health"], &rules[0]["lastError"]), (&Value::from("err"), &Value::from(text)));
    assert_eq!(rules[1]["health"], "ok");
}

#[test]
fn alerts_survive_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let rules = "groups: [{name: g, rules: [{alert: Always, expr: vector(1), for: 1s}]}]";
    configure(folder.path(), None, rules);
    let args = ["--rules.alert.for-grace-period=0s"];
    let server = Server::start(folder.path(), &args);
    let firing = |server: &Server| alert(server, "Always").filter(|alert| alert["state"] == "firing");
    wait_for("the alert", || firing(&server));
    let since = wait_for("its series", || server.single("ALERTS_FOR_STATE"));
    server.kill();

    let server = Server::start(folder.path(), &args);
    // Whole seconds are stored, so the restored start is the one from before, and no other.
    let expected = watchfire::model::go_time::format_rfc3339_nano(since as i64 * 1_000_000_000);
    wait_for("the restored alert", || firing(&server).filter(|alert| alert["activeAt"] == expected.as_str()));
}

#[test]
fn bad_rule_files_end_the_start_with_status_2() {
    for (rules, text) in [
        ("groups: [{name: g, rules: [{record: r, expr: 'sum('}]}]", "could not parse expression: 1:5: parse error"),
        ("groups: [{rules: []}]", "Groupname must not be empty"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        configure(folder.path(), None, rules);
        let mut command = Command::new(env!("CARGO_BIN_EXE_watchfire"));
        let output = command.current_dir(&folder).arg("--web.listen-address=127.0.0.1:0").output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{log}");
        assert!(log.contains("parse rules from file") && log.contains(text), "{text} is not in {log}");
    }
}

#[test]
fn the_built_in_configuration_has_its_rules() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let groups = server.get("/api/v1/rules").json()["data"]["groups"].clone();
    assert_eq!((&groups[0]["name"], groups[0]["rules"].as_array().unwrap().len()), (&Value::from("sample"), 3));
    assert!(!server.log().contains("This setting has no effect yet"), "{}", server.log());
}
