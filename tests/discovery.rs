//! Discovery as users meet it: files are written and rewritten beside a running server, providers fail and find.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::fs;
use std::path::Path;

use serde_json::Value;
use support::{Behaviour, Exporter, Server, wait_for};

/// Renames a file into place, as tools that write target files do.
fn put(folder: &Path, name: &str, content: &str) {
    let beside = folder.join(format!("{name}.tmp"));
    fs::write(&beside, content).unwrap();
    fs::rename(&beside, folder.join(name)).unwrap();
}

fn active(server: &Server) -> Vec<Value> {
    server.get("/api/v1/targets").json()["data"]["activeTargets"].as_array().unwrap().clone()
}

/// `instance zone` of each target that was scraped well, sorted.
fn up(server: &Server) -> Vec<String> {
    let label = |target: &Value, name: &str| target["labels"][name].as_str().unwrap_or("").to_owned();
    let targets = active(server).into_iter().filter(|target| target["health"] == "up");
    let mut found: Vec<String> =
        targets.map(|target| format!("{} {}", label(&target, "path"), label(&target, "zone"))).collect();
    found.sort();
    found
}

fn becomes(server: &Server, what: &str, expected: &[&str]) {
    wait_for(what, || (up(server) == expected).then_some(()));
}

fn metric(server: &Server, line: &str) -> Option<f64> {
    let text = server.get("/metrics").text();
    text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok())
}

#[test]
fn targets_follow_their_files_and_those_that_stay_notice_nothing() {
    let (exporter, stays) = (Exporter::start("a 1\n"), Exporter::start("a 1\n"));
    let (root, address) = (tempfile::tempdir().unwrap(), exporter.addr.as_str());
    let folder = root.path();
    let yaml = |path: &str, zone: &str| {
        format!("- targets: ['{address}']\n  labels: {{__metrics_path__: {path}, path: {path}, zone: {zone}}}\n")
    };
    fs::create_dir(folder.join("targets")).unwrap();
    let stays_json = format!(r#"{{"targets":["{}"],"labels":{{"path":"/stays","zone":"north"}}}}"#, stays.addr);
    put(folder, "targets/one.json", &format!("[{stays_json}]"));
    put(folder, "targets/two.yml", &yaml("/two", "south"));
    let config = "
global: {scrape_interval: 1s}
scrape_configs: [{job_name: sd, file_sd_configs: [{files: ['targets/*.json', 'targets/two.yml']}]}]
";
    fs::write(folder.join("prometheus.yml"), config).unwrap();
    let server = Server::start(folder, &["--config.file=prometheus.yml"]);
    becomes(&server, "both files are read", &["/stays north", "/two south"]);
    let target = active(&server).into_iter().find(|target| target["labels"]["path"] == "/stays").unwrap();
    let file = target["discoveredLabels"]["__meta_filepath"].as_str().unwrap();
    assert_eq!(file, "targets/one.json");
    assert!(!server.log().contains("This setting has no effect yet"), "{}", server.log());

    // Another target in a file, a changed label in the other.
    let added = format!(r#"{{"targets":["{address}"],"labels":{{"__metrics_path__":"/new","path":"/new"}}}}"#);
    put(folder, "targets/one.json", &format!("[{stays_json},{added}]"));
    put(folder, "targets/two.yml", &yaml("/two", "west"));
    becomes(&server, "targets are added and changed", &["/new ", "/stays north", "/two west"]);
    put(folder, "targets/one.json", &format!("[{stays_json}]"));
    put(folder, "targets/three.json", &format!("[{added}]"));
    becomes(&server, "a target moves to a new file", &["/new ", "/stays north", "/two west"]);
    assert_eq!(metric(&server, "prometheus_sd_discovered_targets{config=\"sd\",name=\"scrape\"}"), Some(3.0));

    // A file that is broken keeps its targets and says so.
    put(folder, "targets/two.yml", "- targets: [");
    wait_for("the broken file is seen", || {
        metric(&server, "prometheus_sd_file_read_errors_total").filter(|errors| *errors >= 1.0)
    });
    wait_for("the log names it", || {
        let named = |line: &str| line.contains("Error reading file") && line.contains("targets/two.yml");
        server.log().lines().any(named).then_some(())
    });
    let before = exporter.requests().len();
    wait_for("its target is scraped as before", || (before + 4 < exporter.requests().len()).then_some(()));
    assert_eq!(up(&server), ["/new ", "/stays north", "/two west"]);

    // Files that vanish take their targets with them.
    fs::remove_file(folder.join("targets/two.yml")).unwrap();
    fs::remove_file(folder.join("targets/three.json")).unwrap();
    becomes(&server, "they are gone", &["/stays north"]);
    wait_for("their series are stale", || (server.query("up{job=\"sd\"}").len() == 1).then_some(()));
    assert_eq!(stays.connections(), 1, "the target that stayed kept its connection");
    assert_eq!(metric(&server, "watchfire_scrapes_skipped_total"), Some(0.0));
    for name in [
        "prometheus_sd_failed_configs{name=\"scrape\"}",
        "prometheus_sd_received_updates_total{name=\"scrape\"}",
        "prometheus_sd_updates_total{name=\"scrape\"}",
        "prometheus_sd_updates_delayed_total{name=\"scrape\"}",
        "prometheus_sd_file_scan_duration_seconds_count",
        "prometheus_sd_file_mtime_seconds{filename=\"targets/one.json\"}",
        "prometheus_sd_file_watcher_errors_total",
    ] {
        assert!(metric(&server, name).is_some(), "{name} is missing");
    }
    assert_eq!(metric(&server, "prometheus_sd_file_mtime_seconds{filename=\"targets/two.yml\"}"), None);
}

fn typed(body: String) -> Behaviour {
    Behaviour::Typed("application/json".to_owned(), body.into_bytes())
}

#[test]
fn a_provider_that_fails_and_one_that_is_not_built_say_so_and_harm_nobody() {
    let (exporter, endpoint) = (Exporter::start("a 1\n"), Exporter::start(""));
    let root = tempfile::tempdir().unwrap();
    let config = format!(
        "
global: {{scrape_interval: 1s}}
scrape_configs:
- {{job_name: web, http_sd_configs: [{{url: 'http://{}/sd', refresh_interval: 1s}}]}}
- {{job_name: later, nomad_sd_configs: [{{}}]}}
- {{job_name: fine, static_configs: [{{targets: ['{}'], labels: {{path: /fine}}}}]}}
",
        endpoint.addr, exporter.addr
    );
    fs::write(root.path().join("prometheus.yml"), config).unwrap();
    let server = Server::start(root.path(), &["--config.file=prometheus.yml"]);
    becomes(&server, "the other job is scraped", &["/fine "]);
    let failure = "http/web/0: unsupported content type &#34;text/plain; version=0.0.4&#34;";
    let page = server.get("/targets").text();
    let plain = |text: &str| text.replace("&quot;", "\"").replace("&#34;", "\"");
    assert!(plain(&page).contains(&plain(failure)), "{page}");
    assert!(page.contains("nomad_sd_configs: this discovery is not built yet"), "{page}");
    let reason = "unsupported content type \"text/plain; version=0.0.4\"";
    let failing = |server: &Server| {
        let actors = server.get("/api/watchfire/v1/actors").json()["data"]["actors"].as_array().unwrap().clone();
        let provider = actors.into_iter().find(|actor| actor["name"] == "http/web/0").unwrap();
        provider["failing"].as_str().unwrap_or("").to_owned()
    };
    assert_eq!(failing(&server), reason);
    let log = server.log();
    assert!(log.contains("Unable to refresh target groups") && log.contains("config=web"), "{log}");
    assert!(log.contains("nomad_sd_configs"), "{log}");
    assert_eq!(metric(&server, "watchfire_config_inactive{field=\"scrape_configs[].nomad_sd_configs\"}"), Some(1.0));
    assert_eq!(metric(&server, "prometheus_sd_failed_configs{name=\"scrape\"}"), Some(1.0));
    let failures = "prometheus_sd_refresh_failures_total{config=\"web\",mechanism=\"http\"}";
    assert!(metric(&server, failures).is_some_and(|count| 1.0 <= count));

    endpoint.set(typed(format!(
        r#"[{{"targets":["{}"],"labels":{{"path":"/web","__metrics_path__":"/w"}}}}]"#,
        exporter.addr
    )));
    becomes(&server, "its target is found", &["/fine ", "/web "]);
    wait_for("nothing fails any more", || failing(&server).is_empty().then_some(()));
    assert!(!server.get("/targets").text().contains("http/web/0"));
    endpoint.set(Behaviour::Status("500 Internal Server Error".to_owned()));
    wait_for("it fails again", || (!failing(&server).is_empty()).then_some(()));
    assert_eq!(up(&server), ["/fine ", "/web "], "the last good targets stay");
}

#[test]
fn alertmanagers_are_found_by_discovery() {
    let (found, other) = (Exporter::start(""), Exporter::start(""));
    let root = tempfile::tempdir().unwrap();
    let config = "
global: {evaluation_interval: 100ms}
rule_files: [rules.yml]
alerting:
  alertmanagers:
  - file_sd_configs: [{files: [am.json]}]
    relabel_configs: [{source_labels: [__meta_filepath, drop], regex: 'am.json;yes', action: drop}]
";
    fs::write(root.path().join("prometheus.yml"), config).unwrap();
    let rules = "groups: [{name: g, rules: [{alert: Always, expr: vector(1)}]}]";
    fs::write(root.path().join("rules.yml"), rules).unwrap();
    let group =
        |addr: &str, more: &str| format!(r#"{{"targets":["{addr}"],"labels":{{"__alerts_path__":"/here"{more}}}}}"#);
    put(root.path(), "am.json", &format!("[{},{}]", group(&found.addr, ""), group("dropped:1", r#","drop":"yes""#)));
    let server = Server::start(root.path(), &["--config.file=prometheus.yml"]);
    let urls = |server: &Server, kind: &str| {
        let all = server.get("/api/v1/alertmanagers").json()["data"][kind].as_array().unwrap().clone();
        all.into_iter().map(|one| one["url"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(urls(&server, "activeAlertmanagers"), [format!("http://{}/here", found.addr)]);
    assert_eq!(urls(&server, "droppedAlertmanagers"), ["http://dropped:1/here"]);
    wait_for("it is told", || found.requests().iter().any(|(line, _)| line.starts_with("POST /here")).then_some(()));
    assert!(!server.log().contains("This setting has no effect yet"), "{}", server.log());

    put(root.path(), "am.json", &format!("[{},{}]", group(&found.addr, ""), group(&other.addr, "")));
    wait_for("both are there", || (urls(&server, "activeAlertmanagers").len() == 2).then_some(()));
    put(root.path(), "am.json", &format!("[{}]", group(&other.addr, "")));
    let expected = [format!("http://{}/here", other.addr)];
    wait_for("one is gone", || (urls(&server, "activeAlertmanagers") == expected).then_some(()));
    assert_eq!(metric(&server, "prometheus_sd_discovered_targets{config=\"config-0\",name=\"notify\"}"), Some(1.0));
}

#[test]
fn the_shipped_example_finds_its_targets() {
    let root = tempfile::tempdir().unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    for name in ["file-discovery.yml", "file-discovery.targets.json"] {
        fs::copy(shipped.join(name), root.path().join(name)).unwrap();
    }
    let server = Server::start(root.path(), &["--config.file=file-discovery.yml"]);
    let targets = active(&server);
    assert_eq!(targets.len(), 3, "{targets:?}\n{}", server.log());
    assert!(
        targets.iter().all(|target| target["discoveredLabels"]["__meta_filepath"] == "file-discovery.targets.json")
    );
}
