//! The API's answers, byte for byte.

use watchfire::http::params::{TIME_MAX, TIME_MIN};

use crate::client::{NOW_MS, Setup, TestServer};
use crate::fake::ms;

#[track_caller]
fn check(server: &TestServer, path: &str, status: u16, body: &str) {
    let answer = server.get(path);
    assert_eq!((answer.text().as_str(), answer.status), (body, status), "{path}");
    assert_eq!(answer.header("Content-Type").as_deref(), Some("application/json"), "{path}");
    assert_eq!(answer.header("Vary").as_deref(), Some("Accept-Encoding, Origin"), "{path}");
}

#[track_caller]
fn check_error(server: &TestServer, path: &str, status: u16, kind: &str, text: &str) {
    let text = serde_json::to_string(text).unwrap().replace('<', "\\u003c").replace('>', "\\u003e");
    check(server, path, status, &format!(r#"{{"status":"error","errorType":"{kind}","error":{text}}}"#));
}

#[track_caller]
fn check_bad(server: &TestServer, path: &str, text: &str) {
    check_error(server, path, 400, "bad_data", text);
}

const VECTOR: &str = concat!(
    r#"{"status":"success","data":{"resultType":"vector","result":["#,
    r#"{"metric":{"__name__":"up","instance":"a:1","job":"<j>&"},"value":[1435781451.781,"0"]},"#,
    r#"{"metric":{"__name__":"up","instance":"b:1","job":"<j>&"},"value":[1435781451.781,"1"]}]}}"#
);

#[test]
fn instant_queries() {
    let server = TestServer::start(Setup::default());
    check(&server, "/api/v1/query?query=up", 200, VECTOR);
    check(
        &server,
        "/api/v1/query?query=1e-7&time=-1.007",
        200,
        r#"{"status":"success","data":{"resultType":"scalar","result":[-1.007,"0.0000001"]}}"#,
    );
    check(
        &server,
        "/api/v1/query?query=text&time=1",
        200,
        r#"{"status":"success","data":{"resultType":"string","result":[1,"\u003cb\u003e"]}}"#,
    );
    check(
        &server,
        "/api/v1/query?query=none",
        200,
        r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#,
    );
    check(
        &server,
        "/api/v1/query?query=remarks",
        200,
        concat!(
            r#"{"status":"success","data":{"resultType":"vector","result":[]},"warnings":["PromQL warning: \u003cw\u003e"],"#,
            r#""infos":["PromQL info: i (1:1)"]}"#
        ),
    );
    check(
        &server,
        "/api/v1/query?query=up&limit=1",
        200,
        concat!(
            r#"{"status":"success","data":{"resultType":"vector","result":["#,
            r#"{"metric":{"__name__":"up","instance":"a:1","job":"<j>&"},"value":[1435781451.781,"0"]}]},"#,
            r#""warnings":["results truncated due to limit"]}"#
        ),
    );
    check(
        &server,
        "/api/v1/query?query=none&stats=foo",
        200,
        concat!(
            r#"{"status":"success","data":{"resultType":"vector","result":[],"stats":{"timings":{"evalTotalTime":0.5,"#,
            r#""resultSortTime":0,"queryPreparationTime":0,"innerEvalTime":0,"execQueueTime":0,"execTotalTime":0},"#,
            r#""samples":{"totalQueryableSamples":0,"samplesRead":0,"peakSamples":0}}},"#,
            r#""warnings":["value \"foo\" for parameter \"stats\" is deprecated and will be rejected in the next major "#,
            r#"release, use \"true\" or \"all\""]}"#
        ),
    );
    let answer = server.post_form("/api/v1/query?time=6", "query=1e-7&time=5");
    assert_eq!(answer.text(), r#"{"status":"success","data":{"resultType":"scalar","result":[5,"0.0000001"]}}"#);
}

#[test]
fn instant_queries_that_fail() {
    let server = TestServer::start(Setup::default());
    let empty = "invalid parameter \"query\": unknown position: parse error: no expression found in input";
    check_bad(&server, "/api/v1/query", empty);
    check_bad(&server, "/api/v1/query?query=1;2", empty);
    check_bad(
        &server,
        "/api/v1/query?query=1&time=x",
        "invalid parameter \"time\": invalid time value for 'time': cannot parse \"x\" to a valid timestamp",
    );
    check_bad(
        &server,
        "/api/v1/query?query=1&timeout=x",
        "invalid parameter \"timeout\": cannot parse \"x\" to a valid duration",
    );
    check_bad(
        &server,
        "/api/v1/query?query=1&limit=x",
        "invalid parameter \"limit\": strconv.Atoi: parsing \"x\": invalid syntax",
    );
    check_bad(
        &server,
        "/api/v1/query?query=1&lookback_delta=x",
        "error parsing lookback delta duration: cannot parse \"x\" to a valid duration",
    );
    check_error(&server, "/api/v1/query?query=timeout", 503, "timeout", "query timed out in expression evaluation");
}

#[test]
fn range_queries() {
    let server = TestServer::start(Setup::default());
    check(
        &server,
        "/api/v1/query_range?query=up&start=1&end=3&step=1m&timeout=5&lookback_delta=30",
        200,
        concat!(
            r#"{"status":"success","data":{"resultType":"matrix","result":["#,
            r#"{"metric":{"__name__":"up","instance":"a:1","job":"<j>&"},"values":[[1,"1"],[3,"2.5"]]}]}}"#
        ),
    );
    let asked = server.ports.range.lock().unwrap()[0].clone();
    assert_eq!((ms(asked.start), ms(asked.end), asked.step_ms), (1_000, 3_000, 60_000));
    assert_eq!((asked.timeout.unwrap().as_secs(), asked.lookback.unwrap().as_ms()), (5, 30_000));
    check_bad(
        &server,
        "/api/v1/query_range?query=1",
        "invalid parameter \"start\": cannot parse \"\" to a valid timestamp",
    );
    check_bad(
        &server,
        "/api/v1/query_range?query=1&start=1&end=0&step=1",
        "invalid parameter \"end\": end timestamp must not be before start time",
    );
    check_bad(
        &server,
        "/api/v1/query_range?query=1&start=1&end=2&step=0",
        "invalid parameter \"step\": zero or negative query resolution step widths are not accepted. Try a positive integer",
    );
    check_bad(
        &server,
        "/api/v1/query_range?query=1&start=1&end=200000&step=1",
        "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)",
    );
}

#[test]
fn series_and_labels() {
    let server = TestServer::start(Setup::default());
    let a = r#"{"__name__":"up","instance":"a:1","job":"<j>&"}"#;
    let b = r#"{"__name__":"up","instance":"b:1","job":"<j>&"}"#;
    check(&server, "/api/v1/series?match[]=up", 200, &format!(r#"{{"status":"success","data":[{a},{b}]}}"#));
    check(
        &server,
        "/api/v1/series?match[]=up&limit=1",
        200,
        &format!(r#"{{"status":"success","data":[{a}],"warnings":["results truncated due to limit"]}}"#),
    );
    let asked = server.ports.selects.lock().unwrap().clone();
    assert_eq!((asked[0].start, asked[0].end, asked[0].hint_limit), (TIME_MIN, TIME_MAX, 0));
    assert_eq!((asked[1].hint_limit, asked[1].selectors.len()), (2, 1));
    check(&server, "/api/v1/labels", 200, r#"{"status":"success","data":["__name__","instance","job"]}"#);
    check(
        &server,
        "/api/v1/labels?limit=2",
        200,
        r#"{"status":"success","data":["__name__","instance"],"warnings":["results truncated due to limit"]}"#,
    );
    check(
        &server,
        "/api/v1/label/job/values?start=1&end=2",
        200,
        r#"{"status":"success","data":["\u003cx\u003e","y"],"warnings":["w"]}"#,
    );
    check(
        &server,
        "/api/v1/label/U__a_2e_b/values",
        200,
        r#"{"status":"success","data":["\u003cx\u003e","y"],"warnings":["w"]}"#,
    );
    let names: Vec<String> = server.ports.label_values.lock().unwrap().iter().map(|asked| asked.name.clone()).collect();
    assert_eq!(names, ["job", "a.b"]);
    let answer = server.post_form("/api/v1/series", "match%5B%5D=up&match%5B%5D=down");
    assert_eq!(answer.status, 200);
    assert_eq!(server.ports.selects.lock().unwrap().last().unwrap().selectors.len(), 2);
}

#[test]
fn series_and_labels_that_fail() {
    let server = TestServer::start(Setup::default());
    check_bad(&server, "/api/v1/series", "no match[] parameter provided");
    check_bad(
        &server,
        "/api/v1/series?match[]={}",
        "invalid parameter \"match[]\": match[] must contain at least one non-empty matcher",
    );
    check_bad(
        &server,
        "/api/v1/series?match[]=up&match[]={x=~\".*\"}".replace('"', "%22").as_str(),
        "invalid parameter \"match[]\": match[] must contain at least one non-empty matcher",
    );
    check_bad(&server, "/api/v1/labels?match[]={}", "match[] must contain at least one non-empty matcher");
    check_bad(&server, "/api/v1/label/job/values?match[]={", "1:2: parse error: unexpected end of input inside braces");
    check_bad(&server, "/api/v1/labels?limit=-1", "invalid parameter \"limit\": limit must be non-negative");
    check_bad(
        &server,
        "/api/v1/series?match[]=up&start=x",
        "invalid parameter \"start\": invalid time value for 'start': cannot parse \"x\" to a valid timestamp",
    );
}

#[test]
fn targets_pools_and_alertmanagers() {
    let server = TestServer::start(Setup::default());
    let target = |pool: &str, url: &str, global: &str, error: &str, health: &str| {
        format!(
            r#"{{"discoveredLabels":{{"__address__":"localhost:9090","job":"{pool}"}},"labels":{{"instance":"localhost:9090","job":"{pool}"}},"scrapePool":"{pool}","scrapeUrl":"{url}","globalUrl":"{global}","lastError":"{error}","lastScrape":"2015-07-01T20:10:50.5Z","lastScrapeDuration":0.0625,"health":"{health}","scrapeInterval":"15s","scrapeTimeout":"10s"}}"#
        )
    };
    let evil = r"http://other:1/m?a=\u003cscript\u003e";
    let down = target("down", evil, evil, r"connection refused \u003cb\u003e", "down");
    let up = target("p", "http://localhost:9090/metrics", "http://vm:9090/metrics", "", "up");
    let dropped = r#"[{"discoveredLabels":{"__address__":"x:1"},"scrapePool":"gone"}]"#;
    let counts = r#"{"down":0,"gone":1,"p":0}"#;
    let body = |active: &str, dropped: &str, counts: &str| {
        format!(
            r#"{{"status":"success","data":{{"activeTargets":[{active}],"droppedTargets":{dropped},"droppedTargetCounts":{counts}}}}}"#
        )
    };
    check(&server, "/api/v1/targets", 200, &body(&format!("{down},{up}"), dropped, counts));
    check(&server, "/api/v1/targets?state=ACTIVE&scrapePool=p", 200, &body(&up, "[]", "null"));
    check(&server, "/api/v1/targets?state=dropped", 200, &body("", dropped, counts));
    check(&server, "/api/v1/targets?state=x", 200, &body("", "[]", "null"));
    check(&server, "/api/v1/scrape_pools", 200, r#"{"status":"success","data":{"scrapePools":["down","gone","p"]}}"#);
    check(
        &server,
        "/api/v1/alertmanagers",
        200,
        r#"{"status":"success","data":{"activeAlertmanagers":[{"url":"http://am:9093/api/v2/alerts"}],"droppedAlertmanagers":[]}}"#,
    );
}

const ALERTS: &str = concat!(
    r#"[{"labels":{"alertname":"Al","sev":"p"},"annotations":{"s":"hi <1>"},"state":"firing","#,
    r#""activeAt":"2015-07-01T20:10:51.000000001Z","value":"1e+00"},"#,
    r#"{"labels":{"alertname":"Al","sev":"p"},"annotations":{"s":"hi <1>"},"state":"firing","#,
    r#""activeAt":"2015-07-01T20:10:51.000000001Z","keepFiringSince":"2015-07-01T20:10:51.000000001Z","value":"1e-09"}]"#
);
const RECORDING: &str = r#"{"name":"a:b","query":"vector(1)","labels":{"x":"<y>&"},"health":"ok","evaluationTime":0.000198306,"lastEvaluation":"2015-07-01T20:10:51.000000001Z","type":"recording"}"#;
const FAILING: &str = r#"{"name":"bad","query":"x","labels":{},"health":"err","lastError":"no \u003cy\u003e","evaluationTime":0.000198306,"lastEvaluation":"2015-07-01T20:10:51.000000001Z","type":"recording"}"#;

fn alerting(alerts: &str) -> String {
    format!(
        r#"{{"state":"firing","name":"Al","query":"vector(1) \u003e 0","duration":300,"keepFiringFor":0,"labels":{{"sev":"p"}},"annotations":{{"s":"hi {{{{ $value }}}}"}},"alerts":{alerts},"health":"ok","evaluationTime":0.000198306,"lastEvaluation":"2015-07-01T20:10:51.000000001Z","type":"alerting"}}"#
    )
}

fn group(file: &str, name: &str, rules: &[&str]) -> String {
    let rules = rules.join(",");
    format!(
        r#"{{"name":"{name}","file":"{file}","rules":[{rules}],"interval":1,"limit":0,"evaluationTime":0.5,"lastEvaluation":"0001-01-01T00:00:00Z"}}"#
    )
}

fn groups(groups: &[String], token: &str) -> String {
    let token = if token.is_empty() { String::new() } else { format!(r#","groupNextToken":"{token}""#) };
    format!(r#"{{"status":"success","data":{{"groups":[{}]{token}}}}}"#, groups.join(","))
}

#[test]
fn rules_and_alerts() {
    let server = TestServer::start(Setup::default());
    let full = alerting(ALERTS);
    let all = [RECORDING, full.as_str(), FAILING];
    check(&server, "/api/v1/rules", 200, &groups(&[group("a.yml", "y", &all), group("b.yml", "z", &all)], ""));
    check(
        &server,
        "/api/v1/rules?type=record&file[]=b.yml",
        200,
        &groups(&[group("b.yml", "z", &[RECORDING, FAILING])], ""),
    );
    check(
        &server,
        "/api/v1/rules?type=alert&rule_group[]=y&exclude_alerts=TRUE",
        200,
        &groups(&[group("a.yml", "y", &[&alerting("null")])], ""),
    );
    check(
        &server,
        "/api/v1/rules?rule_name[]=bad&rule_group[]=z",
        200,
        &groups(&[group("b.yml", "z", &[FAILING])], ""),
    );
    check(
        &server,
        "/api/v1/rules?match[]={sev=%22p%22}&rule_group[]=z",
        200,
        &groups(&[group("b.yml", "z", &[&full])], ""),
    );
    check(&server, "/api/v1/rules?rule_name[]=none", 200, &groups(&[], ""));
    let alerts = ALERTS.trim_start_matches('[').trim_end_matches(']');
    check(
        &server,
        "/api/v1/alerts",
        200,
        &format!(r#"{{"status":"success","data":{{"alerts":[{alerts},{alerts}]}}}}"#),
    );
}

#[test]
fn rules_come_in_pages() {
    let server = TestServer::start(Setup::default());
    // SHA-256 of "b.yml;z".
    let token = "11e1c64e3710c78e2a88dced74721f6953d853de95a17377e49c7a1aec00aef6";
    let body = groups(&[group("a.yml", "y", &[FAILING])], token);
    check(&server, "/api/v1/rules?group_limit=1&rule_name[]=bad", 200, &body);
    let path = format!("/api/v1/rules?group_limit=1&rule_name[]=bad&group_next_token={token}");
    check(&server, &path, 200, &groups(&[group("b.yml", "z", &[FAILING])], ""));
    check_bad(
        &server,
        "/api/v1/rules?group_next_token=x",
        "invalid parameter \"group_next_token\": group_limit needs to be present in order to paginate over the groups",
    );
    check_bad(
        &server,
        "/api/v1/rules?group_limit=x",
        "invalid parameter \"group_limit\": group_limit needs to be a valid number: strconv.ParseInt: parsing \"x\": invalid syntax",
    );
    check_bad(
        &server,
        "/api/v1/rules?group_limit=0",
        "invalid parameter \"group_limit\": group_limit needs to be greater than 0",
    );
    check_bad(
        &server,
        "/api/v1/rules?group_limit=1&group_next_token=x",
        "invalid parameter \"group_next_token\": invalid group_next_token 'x'. were rule groups changed?",
    );
    check_bad(&server, "/api/v1/rules?type=x", "invalid parameter \"type\": not supported value \"x\"");
    check_bad(
        &server,
        "/api/v1/rules?exclude_alerts=x",
        "invalid parameter \"exclude_alerts\": error converting exclude_alerts: strconv.ParseBool: parsing \"x\": invalid syntax",
    );
}

#[test]
fn status() {
    let server = TestServer::start(Setup::default());
    check(
        &server,
        "/api/v1/status/config",
        200,
        r#"{"status":"success","data":{"yaml":"global:\n  x: \u003csecret\u003e\n"}}"#,
    );
    check(&server, "/api/v1/status/flags", 200, r#"{"status":"success","data":{"a.b":"1","web.cors.origin":".*"}}"#);
    let json = |path: &str| serde_json::from_slice::<serde_json::Value>(&server.get(path).body).unwrap();
    let build = json("/api/v1/status/buildinfo");
    let keys: Vec<&String> = build["data"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["version", "revision", "branch", "buildUser", "buildDate", "goVersion"]);
    assert_eq!(build["data"]["version"], "3.14.0");
    let runtime = json("/api/v1/status/runtimeinfo");
    let keys: Vec<&String> = runtime["data"].as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "startTime",
            "CWD",
            "hostname",
            "serverTime",
            "reloadConfigSuccess",
            "lastConfigTime",
            "corruptionCount",
            "goroutineCount",
            "GOMAXPROCS",
            "GOMEMLIMIT",
            "GOGC",
            "GODEBUG",
            "storageRetention",
        ]
    );
    let data = &runtime["data"];
    assert_eq!(
        (&data["startTime"], &data["lastConfigTime"]),
        (&"1970-01-01T00:00:01Z".into(), &"0001-01-01T00:00:00Z".into())
    );
    assert_eq!((&data["storageRetention"], &data["corruptionCount"]), (&"15d or 1GiB".into(), &2.into()));
    assert_eq!(data["serverTime"], "2015-07-01T20:10:51.781Z");
    assert_eq!(NOW_MS, 1_435_781_451_781);
}

#[test]
fn our_own_endpoints() {
    let server = TestServer::start(Setup::default());
    check(
        &server,
        "/api/watchfire/v1/actors",
        200,
        concat!(
            r#"{"status":"success","data":{"actors":[{"kind":"scrape_target","name":"p/\u003cimg src=x\u003e","parent":"","#,
            r#""state":"failed","queue":1,"slots":2,"refused":3,"expired":4,"handled":5,"restarts":6,"#,
            r#""last_panic":"index out of bounds","failing":"no answer","since":"1970-01-01T00:00:01Z"}]}}"#
        ),
    );
}
