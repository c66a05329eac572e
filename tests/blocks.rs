//! Blocks through the built binary: those of Prometheus are served, the head becomes blocks, damaged ones are named.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "blocks/admin.rs"]
mod admin;
#[path = "blocks/golden.rs"]
mod golden;
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use support::{Exporter, Server, encode, wait_for};

/// Two blocks of two hours each that Prometheus has written.
const NAMES: [&str; 2] = ["01M8AB1KYMRFKX3DJAEBCFQ2SZ", "01M8AB1M0NQQ6J0JGN96PMCAYD"];
/// Their middle, in seconds.
const MIDDLE: i64 = 1_700_006_400;
/// Nothing is too old.
const KEEP_ALL: &str = "--storage.tsdb.retention.time=100y";

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() { copy(&from, &to) } else { fs::copy(&from, &to).map(drop).unwrap() }
    }
}

fn folder_with_blocks() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/blocks");
    copy(&golden, &folder.path().join("data"));
    folder
}

/// The value of an instant query that yields one sample, or what the server says instead.
fn at(server: &Server, promql: &str, time: i64) -> Result<f64, String> {
    let answer = server.get(&format!("/api/v1/query?query={}&time={time}", encode(promql)));
    let json = answer.json();
    if answer.status != 200 {
        return Err(format!("{} {}", answer.status, json["error"].as_str().unwrap_or("")));
    }
    let value = json["data"]["result"][0]["value"][1].as_str().unwrap_or("0").to_owned();
    Ok(value.parse().unwrap())
}

fn metric(server: &Server, name: &str) -> f64 {
    let text = server.get("/metrics").text();
    let line = text.lines().find(|line| line.split(' ').next() == Some(name));
    line.and_then(|line| line.rsplit(' ').next()).map_or(0.0, |value| value.parse().unwrap())
}

/// The folders of blocks.
fn blocks(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.join("data")).unwrap().filter_map(|entry| Some(entry.ok()?.path()));
    let mut blocks: Vec<PathBuf> = entries.filter(|path| path.join("meta.json").is_file()).collect();
    blocks.sort();
    blocks
}

#[test]
fn blocks_of_prometheus_are_served() {
    let folder = folder_with_blocks();
    fs::write(folder.path().join("prometheus.yml"), "").unwrap();
    let server = Server::start(folder.path(), &["--config.file=prometheus.yml", KEEP_ALL]);
    // Both blocks have a part in it.
    assert_eq!(at(&server, "sum(count_over_time({__name__=~\".+\"}[1h]))", MIDDLE + 1800), Ok(1440.0));
    assert_eq!(at(&server, "count(up{job=\"x\"})", MIDDLE), Ok(2.0));
    let values = server.get("/api/v1/label/path/values").json();
    assert_eq!(values["data"], serde_json::json!(["/", "/a"]));
    assert_eq!(metric(&server, "prometheus_tsdb_blocks_loaded"), 2.0);
    assert_eq!(metric(&server, "prometheus_tsdb_lowest_timestamp_seconds"), 1_699_999_200.0);
    server.kill();
    let names: Vec<String> =
        blocks(folder.path()).iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect();
    assert_eq!(names, NAMES);
}

#[test]
fn a_damaged_block_is_named_by_queries_of_its_range_and_kept() {
    let folder = folder_with_blocks();
    fs::write(folder.path().join("prometheus.yml"), "").unwrap();
    let index = folder.path().join("data").join(NAMES[1]).join("index");
    let mut bytes = fs::read(&index).unwrap();
    bytes[30] ^= 4;
    fs::write(&index, &bytes).unwrap();
    let server = Server::start(folder.path(), &["--config.file=prometheus.yml", KEEP_ALL]);
    assert_eq!(at(&server, "count(up)", MIDDLE - 600), Ok(2.0));
    let error = at(&server, "count(up)", MIDDLE + 600).unwrap_err();
    assert!(error.starts_with("422") && error.contains(NAMES[1]), "{error}");
    wait_for("its name in the log", || server.log().contains(NAMES[1]).then_some(()));
    assert_eq!(metric(&server, "watchfire_blocks_damaged"), 1.0);
    assert_eq!(metric(&server, "watchfire_block_corruptions_total"), 1.0);
    let page = server.get("/status").text();
    assert!(
        page.contains(&format!("block {}: ", NAMES[1])) && page.contains("; 2840 samples; from 2023-11-15T"),
        "{page}"
    );
    server.kill();
    let warn = ["--config.file=prometheus.yml", KEEP_ALL, "--storage.tsdb.damaged-blocks=warn"];
    let server = Server::start(folder.path(), &warn);
    let all = |path: &str| server.get(&format!("{path}&start={}&end={}", MIDDLE - 600, MIDDLE + 600)).json();
    for path in ["/api/v1/query_range?query=up&step=60", "/api/v1/series?match[]=up", "/api/v1/labels?x=y"] {
        let json = all(path);
        assert_eq!(json["status"], "success", "{path}: {json}");
        assert!(json["warnings"][0].as_str().is_some_and(|text| text.contains(NAMES[1])), "{path}: {json}");
    }
    assert_eq!(at(&server, "count(up)", MIDDLE - 600), Ok(2.0));
    assert_eq!(fs::read(&index).unwrap(), bytes);
}

#[test]
fn the_head_becomes_blocks_and_no_sample_is_lost_or_doubled_by_kill_9() {
    let exporter = Exporter::start("a{x=\"1\"} 5\na{x=\"2\"} 6\n");
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "global:\n  scrape_interval: 50ms\nscrape_configs:\n- job_name: one\n  static_configs:\n  - targets: ['{}']\n",
        exporter.addr
    );
    fs::write(folder.path().join("prometheus.yml"), config).unwrap();
    let args = [
        "--config.file=prometheus.yml",
        KEEP_ALL,
        "--storage.tsdb.min-block-duration=1s",
        "--storage.tsdb.max-block-duration=3s",
        "--storage.tsdb.block-reload-interval=1s",
    ];
    let now = || i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    let mut known: Vec<(i64, f64)> = Vec::new();
    for _ in 0..2 {
        let server = Server::start(folder.path(), &args);
        let count = |time| at(&server, "sum(count_over_time(a[1h]))", time).unwrap();
        for (time, samples) in &known {
            assert_eq!(count(*time), *samples, "at {time}, after a kill");
        }
        wait_for("two blocks more, and a shorter log", || {
            // Settled by the time it is asked for: what is scraped now is newer.
            let time = now() - 2;
            known.push((time, count(time)));
            let made = |name| metric(&server, name);
            let is_done = 2.0 <= made("prometheus_tsdb_compactions_total")
                && 1.0 <= made("prometheus_tsdb_checkpoint_creations_total");
            is_done.then_some(())
        });
        for (time, samples) in &known {
            assert_eq!(count(*time), *samples, "at {time}, beside compactions");
        }
        assert_eq!(metric(&server, "prometheus_tsdb_compactions_failed_total"), 0.0, "{}", server.log());
        server.kill();
        assert!(!blocks(folder.path()).is_empty());
    }
    assert!(known.last().is_some_and(|(_, samples)| 20.0 <= *samples), "{known:?}");
}

#[test]
fn blocks_beyond_what_the_file_wants_kept_go_by_time_size_and_share_of_the_disk() {
    // Each takes some looks at the blocks, a second apart.
    std::thread::scope(|scope| {
        for kind in ["time", "size", "percentage"] {
            scope.spawn(move || check_retention(kind));
        }
    });
}

fn check_retention(kind: &str) {
    let folder = tempfile::tempdir().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let (old, new) = (now - 5 * 3_600, now - 60);
    let line = |(t, i): (u64, u64)| format!("a{{i=\"{i}\"}} {i} {t}\n");
    let samples: String = [old, new].iter().flat_map(|t| (0..50).map(|i| (*t, i))).map(line).collect();
    fs::write(folder.path().join("in.txt"), format!("# TYPE a gauge\n{samples}# EOF\n")).unwrap();
    let args = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "--quiet", "in.txt", "data"];
    let made = Command::new(env!("CARGO_BIN_EXE_watchfire")).args(args).current_dir(folder.path()).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let len = |block: &PathBuf| -> u64 {
        let files = ["index", "meta.json", "tombstones", "chunks/000001"];
        files.iter().map(|file| fs::metadata(block.join(file)).unwrap().len()).sum()
    };
    let all: u64 = blocks(folder.path()).iter().map(len).sum();
    let config = |hours: u64, bytes: u64| {
        let disk = rustix::fs::statvfs(folder.path()).unwrap();
        let share = bytes as f64 * 100.0 / (disk.f_blocks * disk.f_frsize) as f64;
        let retention = match kind {
            "time" => format!("time: {hours}h"),
            "size" => format!("time: 1y\n      size: {bytes}B"),
            _ => format!("time: 1y\n      percentage: {share:.12}"),
        };
        let text = format!("storage:\n  tsdb:\n    retention:\n      {retention}\n");
        fs::write(folder.path().join("prometheus.yml"), text).unwrap();
    };
    config(10, all * 2);
    let quick = "--storage.tsdb.block-reload-interval=1s";
    let server = Server::start(folder.path(), &["--config.file=prometheus.yml", quick, "--web.enable-lifecycle"]);
    let looks = || metric(&server, "prometheus_tsdb_reloads_total");
    let before = looks();
    wait_for("a look at the blocks", || (before + 1.0 <= looks()).then_some(()));
    assert_eq!(blocks(folder.path()).len(), 2, "{kind}: {}", server.log());
    config(2, all - 1_000);
    assert_eq!(server.post("/-/reload").status, 200);
    wait_for("the end of the oldest block", || (blocks(folder.path()).len() == 1).then_some(()));
    let count = |time: u64| at(&server, "count(a)", i64::try_from(time).unwrap()).unwrap();
    assert_eq!((count(old), count(new)), (0.0, 50.0), "{kind}");
    let removals = |name: &str| metric(&server, &format!("prometheus_tsdb_{name}_retentions_total"));
    let expected = if kind == "time" { (1.0, 0.0) } else { (0.0, 1.0) };
    assert_eq!((removals("time"), removals("size")), expected, "{kind}");
    server.kill();
}
