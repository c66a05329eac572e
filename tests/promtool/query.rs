//! `promtool query …`, `check healthy` and `check ready` against a server, with what Prometheus 3.14's promtool prints.

use std::fs;

use super::support::Server;
use super::tsdb::folder;
use super::{BINARY, run};

/// A time in the first of the blocks.
const AT: &str = "1700006340";

#[test]
fn a_server_is_asked_and_checked() {
    let folder = folder(&["blocks"]);
    fs::write(folder.path().join("prometheus.yml"), "").unwrap();
    let server = Server::start(folder.path(), &["--config.file=prometheus.yml", "--storage.tsdb.retention.time=100y"]);
    let ran = |args: &[&str]| {
        let mut words = vec!["promtool"];
        words.extend(args);
        let ran = run(tempfile::tempdir().unwrap(), BINARY, &words);
        (ran.code, ran.stdout, ran.stderr)
    };
    let url = format!("http://{}", server.addr);
    let out = |args: &[&str]| {
        let (code, out, err) = ran(args);
        assert_eq!((code, err.as_str()), (0, ""), "{args:?}");
        out
    };
    let at = format!("--time={AT}");
    let both =
        "up{instance=\"a:1\", job=\"x\"} => 434 @[1700006340]\nup{instance=\"b:1\", job=\"x\"} => 400 @[1700006340]\n";
    assert_eq!(out(&["query", "instant", &url, "up", &at]), both);
    assert_eq!(out(&["query", "instant", &at, &server.addr, "1+1"]), format!("scalar: 2 @[{AT}]\n"));
    let json = out(&["query", "-o", "json", "instant", &url, "vector(1)", &at]);
    assert_eq!(json, format!("[{{\"metric\":{{}},\"value\":[{AT},\"1\"]}}]\n"));
    let range = ["query", "range", &url, "vector(1)", "--start=10", "--end=20.5", "--step=10s"];
    assert_eq!(out(&range), "{} =>\n1 @[10]\n1 @[20]\n");
    let listed = out(&["query", "series", &url, "--match=up{job=\"x\"}", "--start=1700000000", "--end=1700006000"]);
    let series = "{__name__=\"up\", instance=\"a:1\", job=\"x\"}\n{__name__=\"up\", instance=\"b:1\", job=\"x\"}\n";
    assert_eq!(listed, series);
    assert_eq!(out(&["query", "labels", &url, "instance", "--start=1700000000", "--end=1700006000"]), "a:1\nb:1\n");
    let refused = ran(&["query", "instant", &url, "up{"]);
    assert_eq!((refused.0, refused.1.as_str()), (1, ""));
    assert!(
        refused.2.starts_with("query error: bad_data: invalid parameter \"query\": 1:4: parse error"),
        "{}",
        refused.2
    );
    let refused = ran(&["query", "range", &url, "up", "--start=20", "--end=20"]);
    assert_eq!((refused.0, refused.2.as_str()), (1, "start time is not before end time\n"));
    assert_eq!(
        ran(&["query", "series", &url]).2,
        "promtool: error: required flag(s) '--match' not provided, try --help\n"
    );

    let healthy = ran(&["check", "healthy", "--url", &url]);
    assert_eq!((healthy.0, healthy.2.trim_end()), (0, "  SUCCESS:  Prometheus Server is Healthy."));
    assert_eq!(ran(&["check", "ready", &format!("--url={url}/")]).0, 0);
    server.kill();
    let gone = ran(&["check", "ready", &format!("--url={url}")]);
    assert!(gone.0 == 1 && gone.2.contains("connection refused"), "{}", gone.2);
}
