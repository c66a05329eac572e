//! Whole data directories that Prometheus 3.14 has written, after a stop and after `kill -9` (`tests/data/golden`): all that they hold
//! is answered as Prometheus answers it, nothing is repaired, and so it is after a kill of ours.
//!
//! - `WATCHFIRE_ORACLE_PROMETHEUS=/path/to/prometheus` compares with that binary as well, and has it open the directories as we
//!   leave them, after a stop and after a kill: the same answers, and no repair.
//! - `WATCHFIRE_ORACLE_RECORD=1` writes its answers to `tests/data/golden/*.txt`.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::support::{Server, encode};
use super::{KEEP_ALL, copy, metric};

/// Start and end of the samples, in seconds.
const SPAN: (i64, i64) = (1_699_999_200, 1_700_017_200);
const CONFIG: &str = "storage:\n  tsdb:\n    out_of_order_time_window: 5h\n";

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden")
}

fn args(kind: &str) -> Vec<&'static str> {
    let features = match kind {
        "started" => {
            "--enable-feature=exemplar-storage,memory-snapshot-on-shutdown,st-storage,xor2-encoding,histograms-st-encoding,\
             promql-experimental-functions,use-start-timestamps"
        }
        _ => "--enable-feature=exemplar-storage,memory-snapshot-on-shutdown",
    };
    vec!["--config.file=prometheus.yml", KEEP_ALL, features]
}

fn ask(server: &Server, path: &str) -> Value {
    let answer = server.get(path);
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()["data"].clone()
}

/// A time and what stands there: a float as it is, a histogram by its count, sum and the checksum of its buckets.
fn described(sample: &Value) -> String {
    let ms = (sample[0].as_f64().unwrap() * 1_000.0).round();
    match &sample[1] {
        Value::String(value) => format!("{ms}:{value}"),
        histogram => {
            let buckets = crc32c::crc32c(histogram["buckets"].to_string().as_bytes());
            let text = |name: &str| histogram[name].as_str().unwrap_or("").to_owned();
            format!("{ms}:{}/{}/{buckets:08x}", text("count"), text("sum"))
        }
    }
}

/// All that a server answers of the directory, in lines.
fn content(server: &Server, kind: &str) -> String {
    let ((from, to), all) = (SPAN, encode("{job=\"golden\"}"));
    let mut lines = Vec::new();
    let found = ask(server, &format!("/api/v1/query?query={all}[6h]&time={to}.999"));
    for series in found["result"].as_array().unwrap() {
        let mut line = format!("{}", series["metric"]);
        for samples in ["values", "histograms"] {
            for sample in series[samples].as_array().into_iter().flatten() {
                write!(line, " {}", described(sample)).unwrap();
            }
        }
        lines.push(line);
    }
    let span = format!("start={from}&end={to}");
    for series in ask(server, &format!("/api/v1/query_exemplars?query={all}&{span}")).as_array().unwrap() {
        let mut line = format!("exemplars {}", series["seriesLabels"]);
        for exemplar in series["exemplars"].as_array().unwrap() {
            write!(line, " {exemplar}").unwrap();
        }
        lines.push(line);
    }
    if kind == "started" {
        for name in ["c_total", "g", "h", "hc", "hg", "f", "fc", "gone"] {
            let query = encode(&format!("start_timestamp({name})"));
            let found = ask(server, &format!("/api/v1/query_range?query={query}&{span}&step=600"));
            for series in found["result"].as_array().unwrap() {
                lines.push(format!("starts of {name} {series}"));
            }
        }
    }
    for path in ["/api/v1/labels?", "/api/v1/label/__name__/values?", "/api/v1/label/n/values?"] {
        lines.push(format!("{path} {}", ask(server, &format!("{path}{span}"))));
    }
    lines.sort();
    lines.join("\n") + "\n"
}

fn directory(from: &Path) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(from, &folder.path().join("data"));
    fs::write(folder.path().join("prometheus.yml"), CONFIG).unwrap();
    folder
}

#[track_caller]
fn nothing_was_repaired(server: &Server, what: &str) {
    // What Prometheus says of each block that needs no repair.
    let log = server.log().to_lowercase().replace("source=repair.go", "").replace("damaged: 0", "");
    let told: Vec<&str> = log
        .lines()
        .filter(|line| {
            ["repair", "corrupt", "damage", "level=error", "unknown series"].iter().any(|word| line.contains(word))
        })
        .collect();
    assert!(told.is_empty(), "{what}: {told:#?}");
    for name in ["prometheus_tsdb_wal_corruptions_total", "prometheus_tsdb_mmap_chunk_corruptions_total"] {
        assert_eq!(metric(server, name), 0.0, "{what}: {name}");
    }
}

#[track_caller]
fn assert_same(found: &str, expected: &str, what: &str) {
    let (mut found_lines, mut expected_lines) = (found.lines(), expected.lines());
    loop {
        match (found_lines.next(), expected_lines.next()) {
            (None, None) => return,
            (found, expected) if found == expected => {}
            (found, expected) => {
                let part = |line: Option<&str>| line.map(|line| line.chars().take(600).collect::<String>());
                panic!("{what}:\n{:?}\ninstead of\n{:?}", part(found), part(expected));
            }
        }
    }
}

fn check(kind: &str, end: &str) {
    let what = format!("{kind}, {end}");
    let (args, from) = (args(kind), golden().join(kind).join(end));
    let recorded = golden().join(format!("{kind}-{end}.txt"));
    let oracle = std::env::var_os("WATCHFIRE_ORACLE_PROMETHEUS").map(PathBuf::from);
    let upstream = |folder: &Path| Server::start_other(Command::new(oracle.as_ref().unwrap()), folder, &args);
    if oracle.is_some() {
        let folder = directory(&from);
        let server = upstream(folder.path());
        let found = content(&server, kind);
        if std::env::var_os("WATCHFIRE_ORACLE_RECORD").is_some() {
            fs::write(&recorded, &found).unwrap();
        }
        assert_same(&found, &fs::read_to_string(&recorded).unwrap(), &format!("{what}: Prometheus itself"));
    }
    let expected = fs::read_to_string(&recorded).unwrap();
    for stops in [false, true] {
        let folder = directory(&from);
        // With start times we leave no snapshot: exemplars that the log does not hold any more are there once.
        let later = if kind == "started" {
            fs::read_to_string(golden().join("started-killed.txt")).unwrap()
        } else {
            expected.clone()
        };
        for start in 0..2 {
            let expected = if start == 0 { &expected } else { &later };
            let what = format!("{what}, start {start}, {}", if stops { "stopped" } else { "killed" });
            let mut server = Server::start(folder.path(), &args);
            assert_same(&content(&server, kind), expected, &what);
            nothing_was_repaired(&server, &what);
            if stops {
                server.signal("TERM");
                assert_eq!(server.wait_exit(), Some(0), "{what}");
            } else {
                server.kill();
            }
        }
        assert!(!folder.path().join("data/wal.damaged").exists(), "{what}");
        if oracle.is_some() {
            let server = upstream(folder.path());
            assert_same(&content(&server, kind), &later, &format!("{what}: Prometheus after us"));
            nothing_was_repaired(&server, &format!("{what}: Prometheus after us"));
        }
    }
}

#[test]
fn a_directory_of_prometheus_after_a_stop_is_served_whole_and_left_sound() {
    check("plain", "stopped");
}

#[test]
fn a_directory_of_prometheus_after_a_kill_is_served_whole_and_left_sound() {
    check("plain", "killed");
}

#[test]
fn a_directory_with_start_times_after_a_stop_is_served_whole_and_left_sound() {
    check("started", "stopped");
}

#[test]
fn a_directory_with_start_times_after_a_kill_is_served_whole_and_left_sound() {
    check("started", "killed");
}
