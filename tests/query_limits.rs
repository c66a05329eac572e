//! Queries at their limits, as a user meets them: what is logged of them, what is refused, what goes on beside them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;

use serde_json::Value;
use support::{Server, encode, wait_for};

const ARGS: [&str; 1] = ["--config.file=prometheus.yml"];

/// Runs for minutes in little memory: each of 11,000 windows of 60,000 samples is sorted.
const ENDLESS: &str = "/api/v1/query_range?start=0&end=10999&step=1&query=";
const ENDLESS_QUERY: &str = "quantile_over_time(0.5, vector(1)[10m:10ms])";

fn folder(config: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("prometheus.yml"), config).unwrap();
    folder
}

/// A request whose answer nobody has read yet.
fn ask_endless(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(&server.addr).unwrap();
    let path = format!("{ENDLESS}{}", encode(ENDLESS_QUERY));
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
    stream
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn queries_are_logged_where_the_configuration_says() {
    let folder = folder("global: {query_log_file: q.log, evaluation_interval: 200ms}\nrule_files: [one.rules]\n");
    fs::write(folder.path().join("one.rules"), "groups: [{name: g, rules: [{record: r, expr: vector(7)}]}]").unwrap();
    let server = Server::start(folder.path(), &ARGS);
    let log = folder.path().join("q.log");
    assert_eq!(server.get("/api/v1/query?query=vector(42)&time=1.5").status, 200);
    assert_eq!(server.get("/api/v1/query?query=up(").status, 400, "what does not parse is not logged");
    assert_eq!(server.post("/api/v1/query_range?query=topk(NaN,vector(3))&start=1&end=9&step=4").status, 422);
    let find = |key: &str, value: &str| {
        let found = lines(&log).into_iter().find(|line| line["params"][key] == value);
        found.or_else(|| lines(&log).into_iter().find(|line| line["ruleGroup"][key] == value))
    };
    let instant = wait_for("the instant query", || find("query", "vector(42)"));
    assert_eq!(
        (&instant["params"]["start"], &instant["params"]["step"]),
        (&"1970-01-01T00:00:01.500Z".into(), &0.into())
    );
    let request = serde_json::json!({"clientIP": "127.0.0.1", "method": "GET", "path": "/api/v1/query"});
    assert_eq!((&instant["httpRequest"], &instant["msg"]), (&request, &"promql query logged".into()));
    assert_eq!(instant["stats"]["samples"]["peakSamples"], 3);
    assert_eq!(instant["error"], Value::Null);
    let failed = wait_for("the failed one", || find("query", "topk(NaN,vector(3))"));
    assert_eq!(
        (&failed["error"], &failed["httpRequest"]["method"]),
        (&"Parameter value is NaN".into(), &"POST".into())
    );
    let rule = wait_for("that of the rule", || find("name", "g"));
    assert_eq!(rule["params"]["query"], "vector(7)");
    assert!(rule["ruleGroup"]["file"].as_str().unwrap().ends_with("one.rules"));
    assert!(!fs::read_to_string(&log).unwrap().contains("up("));
    assert!(server.get("/metrics").text().contains("prometheus_engine_query_log_enabled 1\n"));

    // Who rotates the file moves it away and reloads.
    fs::rename(&log, folder.path().join("q.log.1")).unwrap();
    server.signal("HUP");
    wait_for("the file anew", || find("query", "vector(7)"));
    // A file that cannot be written leaves everything as it is.
    fs::write(folder.path().join("prometheus.yml"), "global: {query_log_file: /nowhere/q.log}\n").unwrap();
    server.signal("HUP");
    let text = "can't create json log file: open /nowhere/q.log: no such file or directory";
    wait_for("the error", || server.log().contains(text).then_some(()));
    let metric = "prometheus_config_last_reload_successful 0\n";
    wait_for("a failed reload", || server.get("/metrics").text().contains(metric).then_some(()));
    let count = lines(&log).len();
    wait_for("more lines", || (count < lines(&log).len()).then_some(()));
    fs::write(folder.path().join("prometheus.yml"), "global: {}\n").unwrap();
    server.signal("HUP");
    let off = "prometheus_engine_query_log_enabled 0\n";
    wait_for("no log", || server.get("/metrics").text().contains(off).then_some(()));
}

#[test]
fn a_log_of_queries_that_cannot_be_written_ends_the_start_with_1() {
    let folder = folder("global: {query_log_file: /nowhere/q.log}\n");
    let mut server = Server::start_unready(folder.path(), &ARGS);
    assert_eq!(server.wait_exit(), Some(1));
    wait_for("the reason", || server.log().contains("can't create json log file").then_some(()));
}

#[test]
fn queries_that_a_crash_has_cut_short_are_told() {
    let folder = folder("global: {}\n");
    let args = [ARGS[0], "--query.max-concurrency=3"];
    let server = Server::start(folder.path(), &args);
    let file = folder.path().join("data/queries.active");
    assert_eq!(fs::read(&file).unwrap().len(), 3001);
    let _open = ask_endless(&server);
    let active = || String::from_utf8(fs::read(&file).unwrap()).unwrap().contains("quantile_over_time").then_some(());
    wait_for("the query in the file", active);
    server.kill();
    let server = Server::start(folder.path(), &args);
    let text = "These queries didn't finish in prometheus' last run:";
    let line = wait_for("the line", || server.log().lines().find(|line| line.contains(text)).map(str::to_owned));
    assert!(line.contains("component=activeQueryTracker") && line.contains(ENDLESS_QUERY), "{line}");
    assert!(fs::read(&file).unwrap()[1..].iter().all(|byte| *byte == 0));
}
