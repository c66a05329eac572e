//! What targets tell of their metrics, how jobs are configured, and `/federate`.

use crate::client::{Setup, TestServer};

#[track_caller]
fn check(server: &TestServer, path: &str, status: u16, body: &str) {
    let answer = server.get(path);
    assert_eq!((answer.text().as_str(), answer.status), (body, status), "{path}");
}

#[track_caller]
fn check_data(server: &TestServer, path: &str, data: &str) {
    check(server, path, 200, &format!(r#"{{"status":"success","data":{data}}}"#));
}

#[track_caller]
fn check_bad(server: &TestServer, path: &str, text: &str) {
    let text = serde_json::to_string(text).unwrap();
    check(server, path, 400, &format!(r#"{{"status":"error","errorType":"bad_data","error":{text}}}"#));
}

const COUNTER: &str = r#"{"type":"counter","unit":"","help":"\u003cX\u003e"}"#;
const OTHER: &str = r#"{"type":"gauge","unit":"","help":"Other."}"#;
const GAUGE: &str = r#"{"type":"gauge","unit":"","help":"Y."}"#;

#[test]
fn metadata_of_metrics() {
    let server = TestServer::start(Setup::default());
    let all = format!(r#"{{"x":[{COUNTER},{OTHER}],"y":[{GAUGE}]}}"#);
    check_data(&server, "/api/v1/metadata", &all);
    check_data(&server, "/api/v1/metadata?limit=-1&limit_per_metric=0", &all);
    check_data(&server, "/api/v1/metadata?limit=1&limit_per_metric=1", &format!(r#"{{"x":[{COUNTER}]}}"#));
    check_data(&server, "/api/v1/metadata?limit=0", "{}");
    check_data(&server, "/api/v1/metadata?metric=y", &format!(r#"{{"y":[{GAUGE}]}}"#));
    check_data(&server, "/api/v1/metadata?metric=z", "{}");
    check_bad(&server, "/api/v1/metadata?limit=x", "limit must be a number");
    check_bad(&server, "/api/v1/metadata?limit_per_metric=1.5", "limit_per_metric must be a number");
}

#[test]
fn metadata_by_target() {
    let server = TestServer::start(Setup::default());
    let target = |instance: &str| format!(r#""target":{{"instance":"{instance}","job":"<j>&"}}"#);
    let (a, b) = (target("a:1"), target("b:1"));
    let x = r#""type":"counter","help":"\u003cX\u003e","unit":"""#;
    let y = r#""type":"gauge","help":"Y.","unit":"""#;
    let other = r#""type":"gauge","help":"Other.","unit":"""#;
    let first = format!(r#"{{{a},"metric":"x",{x}}},{{{a},"metric":"y",{y}}}"#);
    let second = format!(r#"{{{b},"metric":"x",{x}}},{{{b},"metric":"x",{other}}}"#);
    check_data(&server, "/api/v1/targets/metadata", &format!("[{first},{second}]"));
    check_data(&server, "/api/v1/targets/metadata?limit=1", &format!("[{first}]"));
    check_data(&server, "/api/v1/targets/metadata?metric=y", &format!("[{{{a},{y}}}]"));
    check_data(&server, "/api/v1/targets/metadata?match_target=up", "[]");
    check_bad(&server, "/api/v1/targets/metadata?limit=x", "limit must be a number");
    let error = "invalid parameter \"match_target\": 1:2: parse error: unexpected end of input inside braces";
    check_bad(&server, "/api/v1/targets/metadata?match_target=%7B", error);
}

#[test]
fn steps_of_relabelling() {
    let server = TestServer::start(Setup::default());
    let labels = "labels=%7B%22x%22%3A%22a%22%2C%22y%22%3A%22b%22%7D";
    let rules = [
        r#"{"source_labels":["x","y"],"separator":";","regex":"(.*)","target_label":"z","replacement":"$1","action":"replace"}"#,
        r#"{"source_labels":["x"],"separator":";","regex":"no","replacement":"$1","action":"keep"}"#,
        r#"{"separator":";","regex":"z","replacement":"$1","action":"labeldrop"}"#,
    ];
    let expected = format!(
        r#"{{"steps":[{{"rule":{},"output":{{"x":"a","y":"b","z":"a;b"}},"keep":true}},{{"rule":{},"output":{{}},"keep":false}},{{"rule":{},"output":{{}},"keep":false}}]}}"#,
        rules[0], rules[1], rules[2]
    );
    check_data(&server, &format!("/api/v1/targets/relabel_steps?scrapePool=a&{labels}"), &expected);
    check_bad(&server, "/api/v1/targets/relabel_steps", "no scrapePool parameter provided");
    check_bad(&server, "/api/v1/targets/relabel_steps?scrapePool=a", "no labels parameter provided");
    let missing = "error retrieving scrape config: scrape pool \"b\" not found";
    check_bad(&server, &format!("/api/v1/targets/relabel_steps?scrapePool=b&{labels}"), missing);
    let answer = server.get("/api/v1/targets/relabel_steps?scrapePool=a&labels=x");
    assert!(answer.text().contains("error parsing labels: "), "{}", answer.text());
    check_bad(&server, "/api/v1/scrape_pools/config?scrapePool=b", missing);
    check_bad(&server, "/api/v1/scrape_pools/config", "no scrapePool parameter provided");
    let answer = server.get("/api/v1/scrape_pools/config?scrapePool=a").text();
    assert!(answer.starts_with(r#"{"status":"success","data":{"yaml":"job_name: a\n"#), "{answer}");
}

#[test]
fn federation() {
    let server = TestServer::start(Setup::default());
    let up = concat!(
        "# TYPE up untyped\n",
        "up{instance=\"a:1\",job=\"<j>&\",r=\"e\"} 1 1500\n",
        "up{instance=\"b:1\",job=\"<j>&\",r=\"e\"} 1 1500\n"
    );
    let answer = server.get("/federate?match[]=up&match%5B%5D=x");
    assert_eq!((answer.status, answer.text().as_str()), (200, up));
    let kind = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";
    assert_eq!(answer.header("Content-Type").as_deref(), Some(kind));
    check(&server, "/federate", 200, "");
    check(&server, "/federate?match[]=%7B%7D", 200, "");
    check(&server, "/federate?match[]=%7B", 400, "1:2: parse error: unexpected end of input inside braces\n");
    check(&server, "/federate?match[]=%7Bsev%3D%22p%22%7D", 500, "shard 1 is not available: it failed\n");
    assert_eq!(server.metric("prometheus_web_federation_errors_total", &[]), 1.0);
    let open = [("Accept", "application/openmetrics-text;version=1.0.0")];
    let answer = server.request("GET", "/federate?match[]=up", &open, "");
    assert!(answer.text().ends_with("} 1.0 1.5\n# EOF\n"), "{}", answer.text());
    assert_eq!(server.request("POST", "/federate", &[], "").status, 405);
}

#[test]
fn figures_of_storage() {
    let server = TestServer::start(Setup::default());
    let head =
        r#""headStats":{"numSeries":4,"numLabelPairs":5,"chunkCount":6,"minTime":9223372036854775807,"maxTime":7}"#;
    let expected = format!(
        r#"{{{head},"seriesCountByMetricName":[{{"name":"up","value":3}}],"labelValueCountByLabelName":[{{"name":"__name__","value":3}}],"memoryInBytesByLabelName":[],"seriesCountByLabelValuePair":[{{"name":"job=a","value":3}}]}}"#
    );
    check_data(&server, "/api/v1/status/tsdb?limit=1", &expected);
    let names = server.get("/api/v1/status/tsdb").text();
    assert!(names.contains(r#"{"name":"\u003cx\u003e","value":1}"#), "{names}");
    check_bad(&server, "/api/v1/status/tsdb?limit=0", "limit must be a positive number");
    check_bad(&server, "/api/v1/status/tsdb?limit=x", "limit must be a positive number");
    check_bad(&server, "/api/v1/status/tsdb?limit=10001", "limit must not exceed 10000");
    let blocks = r#"{"blocks":[{"ulid":"01","minTime":1,"compaction":{"level":1}}]}"#;
    check_data(&server, "/api/v1/status/tsdb/blocks", blocks);
}
