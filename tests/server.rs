//! The built binary as a user meets it: start, health, self-scrape, queries, signals, exit codes.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on panics, and tells what it skipped"
)]

mod security;
mod support;

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use support::{Behaviour, Exporter, Server, wait_for};

fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_watchfire")).current_dir(&folder).args(args).output().unwrap();
    let text = |raw: &[u8]| String::from_utf8_lossy(raw).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn bare_start_scrapes_itself_and_answers() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path(), &[]);
    assert_eq!(server.get("/-/healthy").text(), "Prometheus Server is Healthy.\n");
    assert_eq!(server.get("/-/ready").text(), "Prometheus Server is Ready.\n");
    let up = wait_for("up", || Some(server.query("up")).filter(|r| !r.is_empty()));
    assert_eq!(up[0].1, "1");
    assert_eq!(up[0].0["instance"], server.addr.as_str());
    let metrics = server.get("/metrics");
    assert!(metrics.text().contains("\nprometheus_tsdb_head_series "), "{}", metrics.text());
    assert!(metrics.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    let stored = wait_for("own series", || server.single("count({__name__=~\".+\"})"));
    assert!(stored > 100.0, "{stored}");
    server.signal("TERM");
    assert_eq!(server.wait_exit(), Some(0), "{}", server.log());
}

#[test]
fn the_actor_tree_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let tree = server.get("/api/watchfire/v1/actors").json();
    let actors = tree["data"]["actors"].as_array().unwrap().clone();
    for kind in ["root", "storage_shard", "scrape_pool", "scrape_target", "query_gateway"] {
        let actor = actors.iter().find(|a| a["kind"] == kind).unwrap_or_else(|| panic!("no {kind} in {tree}"));
        for field in
            ["kind", "name", "parent", "state", "queue", "slots", "refused", "expired", "handled", "restarts", "since"]
        {
            assert!(actor.get(field).is_some(), "{field} is missing in {actor}");
        }
    }
}

#[test]
fn the_page_needs_no_script() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let root = server.get("/");
    assert_eq!((root.status, root.header("location")), (302, Some("/query")));
    let page = server.get("/query");
    assert_eq!(page.status, 200);
    assert!(!page.text().contains("<script"));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'"), "{policy}");
    let attack = server.get("/query?g0.expr=%3Cscript%3Ealert(1)%3C%2Fscript%3E").text();
    assert!(!attack.contains("<script>alert"), "{attack}");
}

#[test]
fn a_configured_target_is_scraped_and_keeps_its_connection() {
    let exporter = Exporter::start("# TYPE a counter\na{x=\"1\"} 5\n");
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "global:\n  scrape_interval: 500ms\nscrape_configs:\n- job_name: one\n  static_configs:\n  - targets: ['{}']\n",
        exporter.addr
    );
    fs::write(folder.path().join("prometheus.yml"), config).unwrap();
    let server = Server::start(folder.path(), &["--config.file=prometheus.yml"]);
    wait_for("ten scrapes", || (exporter.requests().len() >= 10).then_some(()));
    // A scrape that a busy machine did not finish in time costs its connection.
    let failed = server.single("count_over_time(up{job=\"one\"}[1h]) - sum_over_time(up{job=\"one\"}[1h])").unwrap();
    assert!(exporter.connections() as f64 <= 1.0 + failed, "{} connections", exporter.connections());
    assert_eq!(server.single("last_over_time(a{job=\"one\"}[1h])"), Some(5.0));
}

#[test]
fn odd_values_of_query_flags_mean_what_they_mean_in_prometheus() {
    let exporter = Exporter::start("a 5\n");
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("prometheus.yml"), config_of(&exporter)).unwrap();
    let server = Server::start(folder.path(), &["--config.file=prometheus.yml", "--query.lookback-delta=0s"]);
    wait_for("a sample", || server.single("a").filter(|value| *value == 5.0));
    drop(server);
    let server = Server::start(folder.path(), &["--config.file=prometheus.yml", "--query.max-samples=-5"]);
    let answer = server.get("/api/v1/query?query=vector(1)");
    assert_eq!(answer.status, 422);
    assert!(answer.text().contains("would load too many samples into memory"), "{}", answer.text());
}

#[test]
fn the_time_of_queries_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("prometheus.yml"), "global: {}\n").unwrap();
    let server = Server::start(folder.path(), &["--config.file=prometheus.yml"]);
    assert_eq!(server.single("vector(1)"), Some(1.0));
    let metrics = server.get("/metrics").text();
    for slice in ["queue_time", "prepare_time", "inner_eval"] {
        for family in ["seconds", "histogram_seconds"] {
            let line = format!("prometheus_engine_query_duration_{family}_count{{slice=\"{slice}\"}} 1\n");
            assert!(metrics.contains(&line), "{line} in {metrics}");
        }
    }
}

#[test]
fn a_taken_port_ends_the_start_with_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let flag = format!("--web.listen-address={}", taken.local_addr().unwrap());
    let (code, _, stderr) = run(&[&flag]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains(&taken.local_addr().unwrap().to_string()), "{stderr}");
    assert!(stderr.contains("--web.listen-address"), "{stderr}");
}

#[test]
fn several_addresses_are_served_and_one_that_is_open_to_all_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("prometheus.yml"), "").unwrap();
    let open = "Whoever reaches this address may read all that is stored";
    let flags = ["--config.file=prometheus.yml", "--web.listen-address=0.0.0.0:0", "--web.listen-address=[::1]:0"];
    let server = Server::start(folder.path(), &flags);
    let log = server.log();
    let lines = log.lines().filter(|line| line.contains("Listening on"));
    let addresses: Vec<String> =
        lines.map(|line| line[line.find("address=").unwrap() + 8..].trim_matches('"').to_owned()).collect();
    assert_eq!(addresses.len(), 3, "{log}");
    for address in &addresses {
        let answer = support::request(&address.replace("0.0.0.0", "127.0.0.1"), "GET", "/-/ready", &[], b"").unwrap();
        assert_eq!(answer.status, 200, "{address}");
    }
    let warned: Vec<&str> = log.lines().filter(|line| line.contains(open)).collect();
    assert!(warned.len() == 1 && warned[0].contains(&addresses[0]) && warned[0].contains("level=WARN"), "{log}");
    drop(server);
    // Nobody else reaches it, or it asks who somebody is.
    let hash = bcrypt::hash("secret", 4).unwrap();
    fs::write(folder.path().join("web.yml"), format!("basic_auth_users: {{a: '{hash}'}}")).unwrap();
    assert!(!Server::start(folder.path(), &flags[..1]).log().contains(open));
    let guarded = [flags[0], flags[1], "--web.config.file=web.yml"];
    let server = Server::start_with(folder.path(), &guarded, &[]);
    assert!(!server.log().contains(open), "{}", server.log());
}

/// What the alerts and dashboards of Prometheus's mixin ask of the server's own metrics: name, type, labels.
#[rustfmt::skip]
const MIXIN: &[(&str, &str, &[&str])] = {
    const SENT: &[&str] = &["remote_name", "url"];
    &[
        ("process_start_time_seconds", "gauge", &[]),
        ("process_resident_memory_bytes", "gauge", &[]),
        ("prometheus_build_info", "gauge", &["goarch", "goos", "goversion", "revision", "tags", "version"]),
        ("prometheus_config_last_reload_successful", "gauge", &[]),
        ("prometheus_engine_queries", "gauge", &[]),
        ("prometheus_engine_queries_concurrent_max", "gauge", &[]),
        ("prometheus_engine_query_duration_seconds", "summary", &["slice"]),
        ("prometheus_notifications_alertmanagers_discovered", "gauge", &[]),
        ("prometheus_notifications_errors_total", "counter", &["alertmanager"]),
        ("prometheus_notifications_sent_total", "counter", &["alertmanager"]),
        ("prometheus_notifications_queue_capacity", "gauge", &[]),
        ("prometheus_notifications_queue_length", "gauge", &["alertmanager"]),
        ("prometheus_remote_storage_enqueue_retries_total", "counter", SENT),
        ("prometheus_remote_storage_queue_highest_timestamp_seconds", "gauge", SENT),
        ("prometheus_remote_storage_queue_highest_sent_timestamp_seconds", "gauge", SENT),
        ("prometheus_remote_storage_samples_dropped_total", "counter", &["reason", "remote_name", "url"]),
        ("prometheus_remote_storage_samples_failed_total", "counter", SENT),
        ("prometheus_remote_storage_samples_in_total", "counter", &[]),
        ("prometheus_remote_storage_samples_pending", "gauge", SENT),
        ("prometheus_remote_storage_samples_retried_total", "counter", SENT),
        ("prometheus_remote_storage_samples_total", "counter", SENT),
        ("prometheus_remote_storage_shard_capacity", "gauge", SENT),
        ("prometheus_remote_storage_shards", "gauge", SENT),
        ("prometheus_remote_storage_shards_desired", "gauge", SENT),
        ("prometheus_remote_storage_shards_max", "gauge", SENT),
        ("prometheus_remote_storage_shards_min", "gauge", SENT),
        ("prometheus_rule_evaluation_failures_total", "counter", &["rule_group"]),
        ("prometheus_rule_group_iterations_missed_total", "counter", &["rule_group"]),
        ("prometheus_rule_group_rules", "gauge", &["rule_group"]),
        ("prometheus_sd_discovered_targets", "gauge", &["config", "name"]),
        ("prometheus_sd_kubernetes_failures_total", "counter", &[]),
        ("prometheus_sd_refresh_failures_total", "counter", &["config", "mechanism"]),
        ("prometheus_target_interval_length_seconds", "summary", &["interval"]),
        ("prometheus_target_metadata_cache_entries", "gauge", &["scrape_job"]),
        ("prometheus_target_scrape_pool_exceeded_label_limits_total", "counter", &[]),
        ("prometheus_target_scrape_pool_exceeded_target_limit_total", "counter", &[]),
        ("prometheus_target_scrapes_exceeded_body_size_limit_total", "counter", &[]),
        ("prometheus_target_scrapes_exceeded_sample_limit_total", "counter", &[]),
        ("prometheus_target_scrapes_sample_duplicate_timestamp_total", "counter", &[]),
        ("prometheus_target_scrapes_sample_out_of_bounds_total", "counter", &[]),
        ("prometheus_target_scrapes_sample_out_of_order_total", "counter", &[]),
        ("prometheus_target_sync_failed_total", "counter", &["scrape_job"]),
        ("prometheus_target_sync_length_seconds", "summary", &["scrape_job"]),
        ("prometheus_tsdb_clean_start", "gauge", &[]),
        ("prometheus_tsdb_compactions_failed_total", "counter", &[]),
        ("prometheus_tsdb_head_chunks", "gauge", &[]),
        ("prometheus_tsdb_head_samples_appended_total", "counter", &["type"]),
        ("prometheus_tsdb_head_series", "gauge", &[]),
        ("prometheus_tsdb_reloads_failures_total", "counter", &[]),
        ("prometheus_tsdb_wal_segment_current", "gauge", &[]),
        ("prometheus_wal_watcher_current_segment", "gauge", &["consumer"]),
    ]
};

#[test]
fn what_the_mixin_asks_for_is_there() {
    let (exporter, am, receiver) = (Exporter::start("a 1\n"), Exporter::start(""), Exporter::start(""));
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("rules.yml"), "groups: [{name: g, rules: [{alert: A, expr: vector(1)}]}]\n").unwrap();
    let config = format!(
        "global: {{scrape_interval: 100ms, evaluation_interval: 100ms}}\nrule_files: [rules.yml]\n\
         alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{}']}}]}}]}}\n\
         remote_write: [{{url: 'http://{}/w', name: far, queue_config: {{batch_send_deadline: 100ms}}, \
         write_relabel_configs: [{{source_labels: [__name__], regex: scrape_.*, action: drop}}]}}]\nscrape_configs:\n\
         - {{job_name: a, static_configs: [{{targets: ['{}']}}], http_sd_configs: [{{url: 'http://127.0.0.1:1/'}}]}}\n",
        am.addr, receiver.addr, exporter.addr
    );
    fs::write(folder.path().join("prometheus.yml"), config).unwrap();
    let server = Server::start(folder.path(), &["--config.file=prometheus.yml"]);
    wait_for("a sample that is sent, an alert and two scrapes", || {
        let is_told = !receiver.bodies().is_empty() && !am.bodies().is_empty();
        (is_told && server.single("count_over_time(a[1h])") >= Some(3.0)).then_some(())
    });
    let metrics = server.get("/metrics").text();
    let mut wrong = Vec::new();
    for (name, kind, labels) in MIXIN {
        if !metrics.contains(&format!("# TYPE {name} {kind}\n")) {
            wrong.push(format!("{name} is no {kind}"));
        }
        let of_it = |line: &&str| {
            let own = if *kind == "summary" { format!("{name}_count") } else { (*name).to_owned() };
            line.strip_prefix(&own).is_some_and(|rest| rest.starts_with(['{', ' ']))
        };
        let Some(line) = metrics.lines().find(of_it) else {
            wrong.push(format!("no sample of {name}"));
            continue;
        };
        // What stands before each value ends with its name.
        let parts: Vec<&str> = line.split("=\"").collect();
        let names = parts[..parts.len() - 1].iter().filter_map(|part| part.rsplit(['{', ',']).next());
        let mut found: Vec<&str> = names.collect();
        found.sort_unstable();
        if found != *labels {
            wrong.push(format!("{line}: {found:?} and not {labels:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn command_line_errors_name_the_flag() {
    let (code, _, stderr) = run(&["--no-such-flag"]);
    assert_eq!(code, Some(1));
    assert!(stderr.starts_with("Error parsing command line arguments: unknown long flag '--no-such-flag'"), "{stderr}");
    let (code, _, stderr) = run(&["--query.timeout=soon"]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("--query.timeout"), "{stderr}");
}

#[test]
fn a_missing_config_file_ends_the_start_with_2() {
    let (code, _, stderr) = run(&["--config.file=absent.yml"]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("absent.yml"), "{stderr}");
}

#[test]
fn a_bad_alertmanager_yml_ends_the_start_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("alertmanager.yml");
    let flag = format!("--alertmanager.config.file={}", file.display());
    for (content, expected) in [
        (None, "no such file or directory"),
        (Some("route: {receiver: a}"), "undefined receiver \\\"a\\\" used in route"),
        (
            Some("route: {receiver: a}\nreceivers: [{name: a, slack_configs: [{}]}]"),
            "receivers[0].slack_configs is not built yet",
        ),
    ] {
        if let Some(content) = content {
            std::fs::write(&file, content).unwrap();
        }
        let (code, _, log) = run(&[&flag]);
        assert_eq!(code, Some(2), "{log}");
        assert!(log.contains("--alertmanager.config.file=") && log.contains(expected), "{expected}: {log}");
    }
}

#[test]
fn the_dispatcher_runs_with_and_without_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let kinds = |server: &Server| {
        let rows = server.get("/api/watchfire/v1/actors").json();
        let rows = rows["data"]["actors"].as_array().unwrap().clone();
        rows.iter().map(|row| row["kind"].as_str().unwrap_or("").to_owned()).collect::<Vec<_>>()
    };
    let server = Server::start(folder.path(), &[]);
    let shown = kinds(&server);
    assert!(shown.iter().any(|kind| kind == "alert_dispatcher") && !shown.iter().any(|kind| kind == "receiver"));
    assert!(!folder.path().join("data/alertmanager").exists());
    server.kill();
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/dist/alertmanager.yml");
    let flag = format!("--alertmanager.config.file={sample}");
    // Twice: the folder of the notification log is no obstacle to the next start.
    for _ in 0..2 {
        let mut server = Server::start(folder.path(), &[&flag]);
        assert_eq!(kinds(&server).iter().filter(|kind| *kind == "receiver").count(), 2);
        let metrics = server.get("/metrics").text();
        assert!(metrics.contains("alertmanager_notifications_total{integration=\"webhook\"} 0"), "{metrics}");
        assert!(folder.path().join("data/alertmanager/nflog").exists());
        server.signal("TERM");
        assert_eq!(server.wait_exit(), Some(0), "{}", server.log());
    }
}

#[test]
fn help_and_version_end_with_0() {
    let (code, stdout, _) = run(&["--version"]);
    assert_eq!(code, Some(0));
    assert!(stdout.starts_with("watchfire, version "), "{stdout}");
    let (code, help, _) = run(&["--help"]);
    assert_eq!(code, Some(0));
    for flag in ["--config.file", "--storage.tsdb.path", "--query.timeout", "--watchfire.memory-limit"] {
        assert!(help.contains(flag), "{flag} is not in the help");
    }
}

#[test]
fn the_service_manager_hears_of_each_state() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let variables = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "400000")];
    let mut server = Server::start_with(folder.path(), &[], &variables);
    let hears = |state: &str| loop {
        let mut buffer = [0; 1024];
        let len = socket.recv(&mut buffer).unwrap_or_else(|e| panic!("no {state}: {e}"));
        let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
        if text.starts_with(state) {
            return text;
        }
    };
    hears("READY=1");
    hears("WATCHDOG=1");
    hears("WATCHDOG=1");
    server.signal("HUP");
    assert!(hears("RELOADING=1").contains("MONOTONIC_USEC="));
    hears("READY=1");
    server.signal("TERM");
    hears("STOPPING=1");
    assert_eq!(server.wait_exit(), Some(0), "{}", server.log());
}

#[test]
fn a_socket_of_the_service_manager_takes_the_place_of_addresses() {
    let folder = tempfile::tempdir().unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let server = Server::start_on(folder.path(), &[], socket);
    assert_eq!(server.addr, address);
    assert_eq!(server.log().matches("Listening on").count(), 1);
    // It is scraped there as well.
    wait_for("the server's own target", || server.query("up").first().filter(|(_, value)| value == "1").map(|_| ()));
}

#[test]
fn a_second_signal_ends_at_once_with_1() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path(), &[]);
    // Both wait when the process goes on, so the second is there as soon as the first is seen.
    server.signal("STOP");
    server.signal("TERM");
    server.signal("INT");
    server.signal("CONT");
    assert_eq!(server.wait_exit(), Some(1), "{}", server.log());
}

fn config_of(exporter: &Exporter) -> String {
    format!(
        "global:\n  scrape_interval: 100ms\nscrape_configs:\n- job_name: one\n  static_configs:\n  - targets: ['{}']\n",
        exporter.addr
    )
}

#[test]
fn samples_survive_kill_9() {
    let exporter = Exporter::start("a{x=\"1\"} 5\nb 7\n");
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("prometheus.yml"), config_of(&exporter)).unwrap();
    let mut least = 0.0;
    for _ in 0..3 {
        let server = Server::start(folder.path(), &["--config.file=prometheus.yml"]);
        let count = || server.single("count_over_time(a[1h])");
        // What was there before is there again, and grows.
        wait_for("five more samples", || count().filter(|n| least + 5.0 <= *n));
        least = count().unwrap();
        server.kill();
    }
    exporter.set(support::Behaviour::Hang);
    let server = Server::start(folder.path(), &["--config.file=prometheus.yml"]);
    let count = server.single("count_over_time(a[1h])").unwrap();
    assert!(least <= count, "{count} of {least} samples are there");
    assert_eq!(server.single("last_over_time(b[1h])"), Some(7.0));
}

#[test]
fn a_data_directory_serves_one_server() {
    let folder = tempfile::tempdir().unwrap();
    let _first = Server::start(folder.path(), &[]);
    let output = Command::new(env!("CARGO_BIN_EXE_watchfire"))
        .current_dir(&folder)
        .arg("--web.listen-address=127.0.0.1:0")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("lock"), "{stderr}");
}

#[test]
fn a_subquery_without_a_step_takes_the_evaluation_interval() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("prometheus.yml"), "global:\n  evaluation_interval: 5s\n").unwrap();
    let server = Server::start(folder.path(), &["--config.file=prometheus.yml"]);
    assert_eq!(server.single("count_over_time(vector(1)[1m:])"), Some(12.0));
}

#[test]
fn a_target_that_demands_basic_auth_is_scraped_and_the_password_is_shown_nowhere() {
    let exporter = Exporter::start("");
    let line = "authorization: Basic dXNlcjpodW50ZXIy".to_owned();
    exporter.set(Behaviour::Guarded { line, body: "a 5\n".to_owned() });
    let job = |name: &str, auth: &str| {
        format!("- {{job_name: {name}, {auth}, static_configs: [{{targets: ['{}']}}]}}\n", exporter.addr)
    };
    let good = job("good", "basic_auth: {username: user, password: hunter2}");
    let bad = job("bad", "basic_auth: {username: user, password: hunter3}");
    let config = format!("global:\n  scrape_interval: 100ms\nscrape_configs:\n{good}{bad}");
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("prometheus.yml"), config).unwrap();
    let server = Server::start(folder.path(), &["--config.file=prometheus.yml", "--log.level=debug"]);
    wait_for("a sample", || server.single("a{job=\"good\"}"));
    let refused = wait_for("a refusal", || {
        let targets = server.get("/api/v1/targets").json()["data"]["activeTargets"].clone();
        let bad = targets.as_array()?.iter().find(|target| target["scrapePool"] == "bad").cloned()?;
        Some(bad["lastError"].as_str()?.to_owned()).filter(|error| !error.is_empty())
    });
    assert_eq!(refused, "server returned HTTP status 401 Unauthorized");
    assert_eq!(server.single("up{job=\"bad\"}"), Some(0.0));
    let shown = server.get("/api/v1/status/config").json()["data"]["yaml"].as_str().unwrap().to_owned();
    assert!(shown.contains("password: <secret>"), "{shown}");
    let pages =
        ["/api/v1/targets", "/targets", "/query", "/metrics", "/api/watchfire/v1/actors", "/api/v1/status/flags"];
    for text in pages.map(|page| server.get(page).text()).iter().chain([&shown, &server.log()]) {
        for secret in ["hunter", "dXNlcjpodW50ZXIy", "dXNlcjpodW50ZXIz"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

#[test]
fn alertmanagers_and_those_that_relabelling_dropped_are_shown() {
    let folder = tempfile::tempdir().unwrap();
    let config = "alerting:
  alertmanagers:
  - path_prefix: /am
    basic_auth: {username: user, password: hunter2}
    static_configs: [{targets: ['127.0.0.1:1', 'dropped:9093']}]
    relabel_configs: [{source_labels: [__address__], regex: 'dropped:.*', action: drop}]
";
    fs::write(folder.path().join("prometheus.yml"), config).unwrap();
    let mut server = Server::start(folder.path(), &["--config.file=prometheus.yml"]);
    let found = server.get("/api/v1/alertmanagers").json()["data"].clone();
    assert_eq!(found["activeAlertmanagers"], serde_json::json!([{"url": "http://127.0.0.1:1/am/api/v2/alerts"}]));
    assert_eq!(found["droppedAlertmanagers"], serde_json::json!([{"url": "http://dropped:9093/am/api/v2/alerts"}]));
    let metrics = server.get("/metrics").text();
    for line in [
        "prometheus_notifications_alertmanagers_discovered 1",
        "prometheus_notifications_queue_capacity 10000",
        "prometheus_notifications_queue_length{alertmanager=\"http://127.0.0.1:1/am/api/v2/alerts\"} 0",
    ] {
        assert!(metrics.lines().any(|given| given == line), "{line} in {metrics}");
    }
    server.signal("TERM");
    assert_eq!(server.wait_exit(), Some(0), "{}", server.log());
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;
    let (good, bad, folder) = (Exporter::start("a 1\n"), Exporter::start(""), tempfile::tempdir().unwrap());
    bad.set(support::Behaviour::Status("500 Internal Server Error".to_owned()));
    // Each failed scrape is a line of the log.
    let failing: Vec<String> = (0..100).map(|n| format!("'{}/{n}'", bad.addr)).collect();
    let config = format!(
        "global:\n  scrape_interval: 200ms\nscrape_configs:\n- job_name: good\n  static_configs:\n  - targets: ['{}']\n\
         - job_name: bad\n  relabel_configs:\n  - source_labels: [__address__]\n    regex: '([^/]+)/(.*)'\n    \
         target_label: __param_n\n    replacement: '$2'\n  - source_labels: [__address__]\n    regex: '([^/]+)/(.*)'\n    \
         target_label: __address__\n    replacement: '$1'\n  static_configs:\n  - targets: [{}]\n",
        good.addr,
        failing.join(", ")
    );
    fs::write(folder.path().join("prometheus.yml"), config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_watchfire"));
    command.current_dir(&folder).args(["--config.file=prometheus.yml", "--log.level=debug"]);
    command.arg("--web.listen-address=127.0.0.1:0").stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let addr = loop {
        let mut line = String::new();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "the server has ended");
        if let Some(at) = line.contains("Listening on").then(|| line.find("address=")).flatten() {
            break line[at + "address=".len()..].trim().to_owned();
        }
    };
    let ask = |path: &str| support::request(&addr, "GET", path, &[], b"").ok().filter(|answer| answer.status == 200);
    let dropped = || {
        let metrics = ask("/metrics")?.text();
        let line = metrics.lines().find_map(|line| line.strip_prefix("watchfire_log_lines_dropped_total "))?.to_owned();
        line.parse::<f64>().ok().filter(|lines| 0.0 < *lines)
    };
    // As many as the queue and the pipe hold.
    for lines in [2000, 4000, 6000, 8000] {
        wait_for("failed scrapes", || (lines <= bad.requests().len()).then_some(()));
    }
    wait_for("lines to be dropped", dropped);
    let before = good.requests().len();
    wait_for("more scrapes", || (before + 5 <= good.requests().len()).then_some(()));
    assert!(ask("/api/v1/query?query=a").is_some() && ask("/-/ready").is_some());
    let status = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(status.success());
    let ended = wait_for("the end", || child.try_wait().unwrap());
    assert_eq!(ended.code(), Some(0), "a log that is stuck does not keep the process");
    drop(log);
}

#[test]
fn the_last_tenth_of_the_open_files_is_left_to_storage() {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    let exporter = Exporter::start("a 1\n");
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("prometheus.yml"), config_of(&exporter)).unwrap();
    let server = Server::start_limited(folder.path(), &["--config.file=prometheus.yml"], 150);
    wait_for("a sample", || server.single("a"));
    // On a connection from before, as no new one is to be had later.
    let mut known = TcpStream::connect(&server.addr).unwrap();
    known.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let mut ask = |path: &str| {
        write!(known, "GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        let mut seen = Vec::new();
        let mut byte = [0];
        while !seen.ends_with(b"\r\n\r\n") {
            known.read_exact(&mut byte).unwrap();
            seen.push(byte[0]);
        }
        let head = String::from_utf8(seen).unwrap().to_lowercase();
        let len = head.split("content-length: ").nth(1).unwrap().split('\r').next().unwrap().parse().unwrap();
        let mut body = vec![0; len];
        known.read_exact(&mut body).unwrap();
        String::from_utf8(body).unwrap()
    };
    let count = |answer: String| -> f64 {
        let json: serde_json::Value = serde_json::from_str(&answer).unwrap();
        json["data"]["result"][0]["value"][1].as_str().unwrap().parse().unwrap()
    };
    let before = count(ask("/api/v1/query?query=count_over_time(a[1h])"));
    let crowd: Vec<_> = (0..200).map_while(|_| TcpStream::connect(&server.addr).ok()).collect();
    wait_for("connections to be refused", || {
        let metrics = ask("/metrics");
        let line =
            metrics.lines().find_map(|line| line.strip_prefix("watchfire_http_connections_refused_total "))?.to_owned();
        line.parse::<f64>().ok().filter(|refused| 50.0 <= *refused)
    });
    wait_for("samples to be stored all the same", || {
        let now = count(ask("/api/v1/query?query=count_over_time(a[1h])"));
        (before + 5.0 <= now).then_some(())
    });
    drop(crowd);
    wait_for("new connections", || support::request(&server.addr, "GET", "/-/ready", &[], b"").ok());
}

/// With the flag the process starts anew with its allocator's samples; without it there are no profiles.
#[test]
fn profiles_are_taken_where_they_are_switched_on() {
    use std::io::Read as _;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("prometheus.yml"), "").unwrap();
    let server = Server::start(folder.path(), &["--watchfire.web.enable-pprof"]);
    for (path, word) in [("heap", "inuse_space"), ("allocs", "alloc_space"), ("goroutine", "threads")] {
        let answer = server.get(&format!("/debug/pprof/{path}"));
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let mut profile = Vec::new();
        flate2::read::GzDecoder::new(&answer.body[..]).read_to_end(&mut profile).unwrap();
        assert!(profile.windows(word.len()).any(|window| window == word.as_bytes()), "{path}");
    }
    assert!(server.get("/debug/pprof/heap?debug=1").text().starts_with("heap_v2/524288\n"));
    assert!(server.get("/debug/pprof/goroutine?debug=1").text().starts_with("id\tname\tstate\tcpu_seconds\n"));
    let other = server.get("/debug/pprof/mutex");
    assert!(other.status == 501 && other.text().contains("/debug/pprof/heap "), "{}", other.text());
    assert_eq!(server.get("/debug/pprof/heap?seconds=x").status, 400);
    drop(server);
    let server = Server::start(folder.path(), &[]);
    assert_eq!(server.get("/debug/pprof/heap").status, 404);
}
