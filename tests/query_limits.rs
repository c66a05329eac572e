//! Queries at their limits, as a user meets them: what is logged of them, what is refused, what goes on beside them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;

use serde_json::Value;
use support::{Answer, Exporter, Server, encode, request, wait_for};

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

/// The value of a metric of the server's own.
fn metric(server: &Server, name: &str) -> Option<f64> {
    let metrics = server.get("/metrics").text();
    metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// Waits until no query runs or waits, and none holds memory.
fn all_is_given_back(server: &Server) {
    for name in
        ["prometheus_engine_queries", "watchfire_pool_running{lane=\"queries\"}", "watchfire_query_memory_bytes"]
    {
        wait_for(name, || metric(server, name).filter(|value| *value == 0.0));
    }
}

/// A query by `POST`, as long ones are asked.
fn post(server: &Server, path: &str, query: &str) -> Answer {
    let body = format!("query={}&start=0&end=600&step=10", encode(query));
    let headers = [("Content-Type", "application/x-www-form-urlencoded")];
    request(&server.addr, "POST", &format!("/api/v1/{path}"), &headers, body.as_bytes()).unwrap()
}

#[track_caller]
fn check_refused(answer: &Answer, status: u16, kind: &str, text: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    let json = answer.json();
    assert_eq!(json["errorType"], kind);
    assert!(json["error"].as_str().unwrap().contains(text), "{}", json["error"]);
}

#[test]
fn a_client_that_leaves_ends_its_query() {
    let folder = folder("global: {}\n");
    let server = Server::start(folder.path(), &[ARGS[0], "--query.max-concurrency=2"]);
    let open: Vec<TcpStream> = (0..3).map(|_| ask_endless(&server)).collect();
    wait_for("the queries", || metric(&server, "prometheus_engine_queries").filter(|count| *count == 3.0));
    // Two run and one waits; who waits no longer than so long has no turn.
    let late = server.get(&format!("{ENDLESS}{}&timeout=50ms", encode(ENDLESS_QUERY)));
    check_refused(&late, 503, "timeout", "query timed out in query queue");
    assert_eq!(server.single("vector(1 + 1)"), Some(2.0), "little work takes no turn");
    assert_eq!(metric(&server, "prometheus_engine_queries"), Some(3.0));
    drop(open);
    all_is_given_back(&server);
    assert_eq!(server.single("vector(6 * 7)"), Some(42.0));
    let running = server.get(&format!("{ENDLESS}{}&timeout=50ms", encode(ENDLESS_QUERY)));
    check_refused(&running, 503, "timeout", "query timed out in expression evaluation");
}

#[cfg(debug_assertions)]
#[test]
fn a_query_that_panics_is_answered_500_and_nothing_else_notices() {
    let folder = folder("global: {}\n");
    let points = [("WATCHFIRE_FAILPOINTS", "query_gateway.evaluate=panic:3")];
    let server = Server::start_with(folder.path(), &ARGS, &points);
    server.wait_ready();
    for _ in 0..3 {
        check_refused(&server.get("/api/v1/query?query=1"), 500, "internal", "unexpected error: failpoint");
    }
    assert_eq!(server.single("vector(6 * 7)"), Some(42.0));
    let tree = server.get("/api/watchfire/v1/actors").json();
    let restarts = tree["data"]["actors"].as_array().unwrap().iter().filter_map(|actor| actor["restarts"].as_u64());
    assert_eq!(restarts.sum::<u64>(), 0);
    all_is_given_back(&server);
}

#[test]
fn attacks_are_refused_by_name_and_the_rest_goes_on() {
    let series = |n: usize| format!("m_{}{{n=\"{n}\",text=\"{}\"}} {n}\n", n % 50, "x".repeat(40));
    let exporter = Exporter::start(&(0..3000).map(series).collect::<String>());
    let folder = folder(&format!(
        "global: {{scrape_interval: 200ms}}\nscrape_configs: [{{job_name: j, static_configs: [{{targets: ['{}']}}]}}]\n",
        exporter.addr
    ));
    let limits = ["--watchfire.limit.query.memory=8MiB", "--watchfire.limit.query.memory-total=24MiB"];
    let args = [ARGS[0], limits[0], limits[1], "--query.max-samples=2000000", "--query.max-concurrency=4"];
    let server = Server::start(folder.path(), &args);
    wait_for("the series", || server.single("count({job=\"j\"})").filter(|count| *count > 3000.0));
    let flag = "--watchfire.limit.query.memory";

    let chain = vec!["1"; 5_000].join("+");
    check_refused(&post(&server, "query", &chain), 400, "bad_data", "levels deep");
    let parens = format!("{}1{}", "(".repeat(5_000), ")".repeat(5_000));
    check_refused(&post(&server, "query", &parens), 400, "bad_data", "levels deep");
    let unary = format!("{}1", "-".repeat(5_000));
    check_refused(&post(&server, "query", &unary), 400, "bad_data", "levels deep");
    let wide = format!("label_join(m_1,\"a\",\"\",{})", vec!["\"b\""; 20_000].join(","));
    check_refused(&post(&server, "query", &wide), 422, "execution", flag);
    let alternation = (0..2_000).map(|n| format!("m_{n}")).collect::<Vec<_>>().join("|");
    let found = post(&server, "query", &format!("count({{__name__=~\"{alternation}\"}})"));
    assert_eq!(found.status, 200, "{}", found.text());
    let automata = (0..40).map(|n| format!("a=~\"\\\\pL{{{}}}\"", 20 + n)).collect::<Vec<_>>().join(",");
    let too_large = "expression too large";
    check_refused(&post(&server, "query", &format!("m_1{{{automata}}}")), 400, "bad_data", too_large);
    let nested = (0..10).fold("{__name__=~\".+\"}".to_owned(), |inner, _| {
        format!("label_join({inner}, \"text\", \"\", \"text\", \"text\", \"text\", \"text\")")
    });
    check_refused(&post(&server, "query", &nested), 422, "execution", flag);
    check_refused(&post(&server, "query_range", "vector(1)[100d:1ms]"), 400, "bad_data", "invalid expression type");
    let steps = "count_over_time(vector(1)[100d:1ms])";
    check_refused(&post(&server, "query", steps), 422, "execution", "would load too many samples into memory");

    let now = server.single("vector(time())").unwrap();
    let path = format!("/api/v1/query_range?start={}&end={now}&step=1&query=", now - 600.0);
    let path = format!("{path}{}", encode("{__name__=~\".+\"}"));
    std::thread::scope(|scope| {
        let asked: Vec<_> = (0..30).map(|_| scope.spawn(|| server.get(&path))).collect();
        for answer in asked.into_iter().map(|asked| asked.join().unwrap()) {
            match answer.status {
                200 => {}
                422 => assert!(answer.text().contains(flag), "{}", answer.text()),
                status => assert_eq!(status, 503, "{}", answer.text()),
            }
        }
    });
    assert_eq!(server.single("vector(6 * 7)"), Some(42.0));
    all_is_given_back(&server);
    let ended = || metric(&server, "watchfire_actor_restarts_total{kind=\"query_gateway\"}");
    assert_eq!(ended().unwrap_or(0.0), 0.0);
    let scrapes = || server.single("count_over_time(up[10m])");
    let before = scrapes().unwrap();
    wait_for("more scrapes", || scrapes().filter(|count| before < *count));
}
