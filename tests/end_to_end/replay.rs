//! What clients ask, asked of the built binary over stored data: the answers are those that Prometheus 3.14.0 gave, byte for
//! byte. A request is a line `> METHOD PATH`, with a form in `> form …`; the answer follows as `< STATUS TYPE` and the body.
//! Times of evaluations are left out on both sides.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{Server, request, wait_for};

fn data(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/end_to_end/replay").join(name)).unwrap()
}

/// The text without what differs from run to run: what follows each of these up to its end.
fn settled(text: &str) -> String {
    let fields = [
        ("\"lastEvaluation\":\"", '"', "T"),
        ("\"activeAt\":\"", '"', "T"),
        ("\"keepFiringSince\":\"", '"', "T"),
        ("\"evaluationTime\":", ',', "0"),
    ];
    let mut text = text.to_owned();
    for (field, end, value) in fields {
        let mut parts = text.split(field);
        let mut out = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let at = part.find(end).unwrap_or(part.len());
            out.push_str(field);
            out.push_str(value);
            out.push_str(&part[at..]);
        }
        text = out;
    }
    text
}

fn answer(server: &Server, asked: &[&str]) -> String {
    let (method, path) = asked[0].split_once(' ').unwrap();
    let form = asked.get(1).map_or("", |line| line.strip_prefix("form ").unwrap());
    let headers: &[(&str, &str)] =
        if form.is_empty() { &[] } else { &[("Content-Type", "application/x-www-form-urlencoded")] };
    let answer = request(&server.addr, method, path, headers, form.as_bytes()).unwrap();
    let kind = answer.header("Content-Type").unwrap_or_default();
    format!("< {} {kind}\n{}", answer.status, settled(&answer.text()))
}

#[test]
fn clients_get_the_answers_of_prometheus() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["data.om", "prometheus.yml", "rules.yml"] {
        fs::write(folder.path().join(name), data(name)).unwrap();
    }
    let imported = Command::new(env!("CARGO_BIN_EXE_watchfire"))
        .args(["promtool", "tsdb", "create-blocks-from", "openmetrics", "-q", "data.om", "data"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
    let flags = ["--config.file=prometheus.yml", "--storage.tsdb.path=data", "--storage.tsdb.retention.time=90y"];
    let server = Server::start(folder.path(), &flags);
    // All rules have been evaluated.
    let rules = || server.get("/api/v1/rules").text().contains("\"health\":\"unknown\"");
    wait_for("the rules", || (!rules()).then_some(()));
    wait_for("what they make", || server.single("one:sum").and(server.single("ALERTS")));
    for name in ["grafana.txt", "keda.txt", "prometheus-adapter.txt", "thanos.txt"] {
        let text = data(name);
        let exchanges = text.split("\n\n").filter(|block| block.starts_with("> "));
        let mut count = 0;
        for exchange in exchanges {
            let asked: Vec<&str> = exchange.lines().filter_map(|line| line.strip_prefix("> ")).collect();
            let expected: Vec<&str> = exchange.lines().filter(|line| !line.starts_with("> ")).collect();
            assert_eq!(answer(&server, &asked), expected.join("\n"), "{name}: {asked:?}");
            count += 1;
        }
        assert!(5 < count, "{name}");
    }
}
