//! Panics of shards and of the log's thread in the built binary: what is stored is the same before and after a kill -9,
//! and the log that retention shortens keeps what is within it. Kills, a full disk and a damaged log have files of their own.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "storage_faults/full_disk.rs"]
mod full_disk;
#[path = "storage_faults/head_chunks.rs"]
mod head_chunks;
#[path = "storage_faults/kill.rs"]
mod kill;
#[path = "storage_faults/opening.rs"]
mod opening;
mod support;
#[path = "support/torture.rs"]
mod torture;

use std::fs;
use std::path::Path;

use serde_json::Value;
use support::{Behaviour, Exporter, Server, encode, request, wait_for};

const ARGS: [&str; 1] = ["--config.file=prometheus.yml"];

/// An exporter with some series, and a folder with the configuration that scrapes it.
fn scene() -> (Exporter, tempfile::TempDir) {
    let body: String = (0..20).map(|n| format!("m{{n=\"{n}\"}} {n}\n")).collect();
    let (exporter, folder) = (Exporter::start(&body), tempfile::tempdir().unwrap());
    let config = format!(
        "global:\n  scrape_interval: 200ms\nscrape_configs:\n- job_name: one\n  static_configs:\n  - targets: ['{}']\n",
        exporter.addr
    );
    fs::write(folder.path().join("prometheus.yml"), config).unwrap();
    (exporter, folder)
}

/// The data of an instant query; `None` while it fails, as when a shard is being rebuilt.
fn query(server: &Server, promql: &str, at: Option<&str>) -> Option<Vec<Value>> {
    let at = at.map(|at| format!("&time={at}")).unwrap_or_default();
    let path = format!("/api/v1/query?query={}{at}", encode(promql));
    let answer = request(&server.addr, "GET", &path, &[], b"").ok().filter(|answer| answer.status == 200)?;
    answer.json()["data"]["result"].as_array().cloned()
}

fn number(server: &Server, promql: &str) -> Option<f64> {
    query(server, promql, None)?.first()?["value"][1].as_str()?.parse().ok()
}

/// All samples of the job up to `at`, by series.
fn content(server: &Server, at: &str) -> Vec<String> {
    let series = wait_for("an answer", || query(server, "{job=\"one\"}[1h]", Some(at)));
    let mut lines: Vec<String> = series.iter().map(ToString::to_string).collect();
    lines.sort();
    lines
}

/// Waits for `more` scrapes; returns the time of the newest sample.
fn scrapes(server: &Server, more: f64) -> String {
    let count = || number(server, "count_over_time(m{n=\"7\"}[1h])");
    let before = wait_for("a sample", count);
    wait_for("more scrapes", || count().filter(|count| before + more <= *count));
    let newest = || number(server, "max(timestamp(last_over_time(up[1h])))").map(|at| format!("{at:.3}"));
    wait_for("the newest sample", newest)
}

fn actors(server: &Server, kind: &str) -> Vec<Value> {
    let tree = server.get("/api/watchfire/v1/actors").json();
    let all = tree["data"]["actors"].as_array().cloned().unwrap_or_default();
    all.into_iter().filter(|actor| actor["kind"] == kind).collect()
}

#[cfg(debug_assertions)]
fn the_same_before_and_after_a_kill(kind: &str, step: &str) {
    const PANICS: u64 = 3;
    let (exporter, folder) = scene();
    let server = Server::start(folder.path(), &ARGS);
    let at = scrapes(&server, 3.0);
    let first = content(&server, &at);
    server.kill();

    let points = format!("{kind}.{step}=panic:{PANICS}");
    let server = Server::start_with(folder.path(), &ARGS, &[("WATCHFIRE_FAILPOINTS", &points)]);
    server.wait_ready();
    let restarts = || actors(&server, kind).iter().filter_map(|actor| actor["restarts"].as_u64()).sum::<u64>();
    wait_for("all panics", || (PANICS <= restarts()).then_some(()));
    let panicked = actors(&server, kind).into_iter().find(|actor| actor["restarts"] != 0).unwrap();
    assert!(panicked["last_panic"].as_str().unwrap().contains("failpoint"), "{panicked}");
    let metric = format!("watchfire_actor_restarts_total{{kind=\"{kind}\"}} {PANICS}\n");
    assert!(server.get("/metrics").text().contains(&metric));
    assert_eq!(content(&server, &at), first, "what was there before the panics is there");
    let at = scrapes(&server, 3.0);
    let before = content(&server, &at);
    server.kill();

    exporter.set(Behaviour::Hang);
    let server = Server::start(folder.path(), &ARGS);
    let after = content(&server, &at);
    assert_eq!(before.len(), after.len());
    before.iter().zip(&after).for_each(|(before, after)| assert_eq!(before, after, "{kind}.{step}"));
}

#[cfg(debug_assertions)]
mod a_panic_leaves_the_same_samples_before_and_after_a_kill {
    use super::the_same_before_and_after_a_kill as check;

    #[test]
    fn before_a_shard_applies() {
        check("storage_shard", "before-apply");
    }

    #[test]
    fn while_a_shard_applies() {
        check("storage_shard", "in-apply");
    }

    #[test]
    fn after_a_shard_has_applied() {
        check("storage_shard", "after-apply");
    }

    #[test]
    fn before_the_log_is_written() {
        check("log_writer", "before-write");
    }

    #[test]
    fn while_the_log_is_written() {
        check("log_writer", "in-write");
    }

    #[test]
    fn after_the_log_was_written() {
        check("log_writer", "after-write");
    }

    #[test]
    fn before_the_log_is_synced() {
        check("log_writer", "before-sync");
    }

    #[test]
    fn while_the_log_is_synced() {
        check("log_writer", "in-sync");
    }

    #[test]
    fn after_the_log_was_synced() {
        check("log_writer", "after-sync");
    }
}

#[cfg(debug_assertions)]
#[test]
fn a_failed_shard_or_log_writer_makes_the_server_unready_and_it_lives() {
    let (_exporter, folder) = scene();
    let points = "storage_shard.handler=panic:1000000,log_writer.started=panic:1000000";
    let server = Server::start_with(folder.path(), &ARGS, &[("WATCHFIRE_FAILPOINTS", points)]);
    let reason = wait_for("both to fail", || {
        let answer = server.get("/-/ready");
        let text = answer.text();
        let both = text.contains("storage_shard") && text.contains("log_writer");
        (answer.status == 503 && both).then_some(text)
    });
    assert!(reason.contains("has failed") && reason.contains("failpoint"), "{reason}");
    assert_eq!(server.get("/-/healthy").status, 200);
    assert!(server.get("/metrics").text().contains("\nprometheus_ready 0\n"));
    assert!(actors(&server, "log_writer").iter().all(|actor| actor["state"] == "failed"));
    assert_eq!(number(&server, "vector(1)"), Some(1.0), "queries that need no shard are answered");
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_log_is_shortened_as_data_grows_old_and_keeps_the_rest() {
    let (exporter, folder) = scene();
    let retention = "storage:\n  tsdb:\n    retention:\n      time: 30s\n";
    let file = folder.path().join("prometheus.yml");
    fs::write(&file, fs::read_to_string(&file).unwrap() + retention).unwrap();
    let server = Server::start(folder.path(), &ARGS);
    assert_eq!(server.get("/api/v1/status/flags").json()["data"]["storage.tsdb.retention.time"], "30s");
    let wal = folder.path().join("data/wal");
    wait_for("a checkpoint", || {
        let names = names(&wal);
        let made = names.iter().any(|name| name.starts_with("checkpoint.") && !name.ends_with(".tmp"));
        (made && !names.contains(&"00000000".to_owned())).then_some(())
    });
    let at = scrapes(&server, 3.0);
    let recent = |server: &Server| {
        let series = wait_for("an answer", || query(server, "{job=\"one\"}[5s]", Some(&at)));
        let mut lines: Vec<String> = series.iter().map(ToString::to_string).collect();
        lines.sort();
        lines
    };
    let before = recent(&server);
    assert_eq!(before.len(), 25);
    server.kill();
    exporter.set(Behaviour::Hang);
    let server = Server::start(folder.path(), &ARGS);
    assert_eq!(recent(&server), before);
    // What is older than the retention goes from memory as well.
    wait_for("the end of all samples", || query(&server, "m", Some(&at)).filter(Vec::is_empty));
}

#[test]
fn a_flipped_byte_of_the_log_costs_a_record_and_the_start_says_so() {
    let (exporter, folder) = scene();
    let server = Server::start(folder.path(), &ARGS);
    let at = scrapes(&server, 6.0);
    let before = content(&server, &at);
    server.kill();
    exporter.set(Behaviour::Hang);
    let segment = folder.path().join("data/wal/00000000");
    let mut bytes = fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(&segment, &bytes).unwrap();
    let server = Server::start(folder.path(), &ARGS);
    let samples = |lines: &[String]| lines.iter().map(|line| line.matches("],[").count() + 1).sum::<usize>();
    let after = content(&server, &at);
    let lost = samples(&before) - samples(&after);
    assert!(0 < lost && lost <= 25, "{lost} lost: a scrape has 25 samples");
    let metrics = server.get("/metrics").text();
    assert!(metrics.contains("\nprometheus_tsdb_wal_corruptions_total 1\n"), "{metrics}");
    assert!(metrics.contains(&format!("\nwatchfire_wal_lost_samples_total {lost}\n")), "{lost}: {}", server.log());
    wait_for("the cost in the log", || server.log().contains(&format!("samples={lost}")).then_some(()));
    let page = server.get("/status").text();
    assert!(page.contains("wal/00000000, byte ") && page.contains(&format!("; {lost} samples lost")), "{page}");
    assert_eq!(fs::read(folder.path().join("data/wal.damaged/00000000")).unwrap(), bytes);
}
