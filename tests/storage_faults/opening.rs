//! Scrapes while the log is still being read: a named pipe among the segments holds whoever opens it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::{ARGS, number, query, scene};
use crate::support::{Behaviour, Exporter, Server, wait_for};

/// A start that reads its log until it is let go.
struct Held {
    pipe: PathBuf,
    server: Server,
}

impl Held {
    fn start(folder: &Path, args: &[&str]) -> Self {
        let wal = folder.join("data/wal");
        fs::create_dir_all(&wal).unwrap();
        let pipe = wal.join("00000000");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        Self { pipe, server: Server::start_unready(folder, args) }
    }

    /// Lets it go; returns the server when it is ready, with the time at which it still could not be.
    fn release(self) -> (Server, f64) {
        assert_eq!(self.server.get("/-/ready").status, 503);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        // Opening it waits for the reader, and there is nothing to read.
        drop(fs::OpenOptions::new().write(true).open(&self.pipe).unwrap());
        self.server.wait_ready();
        (self.server, now)
    }

    fn metric(&self, name: &str) -> f64 {
        metric(&self.server, name)
    }
}

fn metric(server: &Server, name: &str) -> f64 {
    let text = server.get("/metrics").text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name}"))
}

fn wait_scrapes(exporter: &Exporter, more: usize) {
    let before = exporter.requests().len();
    wait_for("scrapes", || (before + more <= exporter.requests().len()).then_some(()));
}

/// Times and values of the samples of one series.
fn samples(server: &Server, selector: &str) -> Vec<(f64, String)> {
    let series = wait_for("an answer", || query(server, &format!("{selector}[1h]"), None));
    assert!(series.len() <= 1, "{series:?}");
    let pairs = series.first().and_then(|one| one["values"].as_array().cloned()).unwrap_or_default();
    let pair = |pair: &Value| (pair[0].as_f64().unwrap(), pair[1].as_str().unwrap().to_owned());
    pairs.iter().map(pair).collect()
}

#[test]
fn scrapes_of_the_start_are_kept_and_appended_with_their_own_times() {
    let (exporter, folder) = scene();
    let held = Held::start(folder.path(), &ARGS);
    wait_scrapes(&exporter, 3);
    // One series ends meanwhile, one changes.
    exporter.set_body("m{n=\"7\"} 70\nm{n=\"8\"} 8\n");
    wait_scrapes(&exporter, 3);
    exporter.set(Behaviour::Status("500 Internal Server Error".to_owned()));
    wait_scrapes(&exporter, 2);
    exporter.set_body("m{n=\"7\"} 71\nm{n=\"8\"} 8\n");
    wait_scrapes(&exporter, 2);
    wait_for("kept scrapes", || (9.0 <= held.metric("watchfire_opening_scrapes_total")).then_some(()));
    assert!(0.0 < held.metric("watchfire_opening_bytes"));
    let (server, still_held) = held.release();
    assert_eq!(metric(&server, "watchfire_opening_scrapes_lost_total"), 0.0);
    assert_eq!(metric(&server, "watchfire_opening_bytes"), 0.0);
    let kept = metric(&server, "watchfire_opening_scrapes_total");

    // In order, none twice, and as they were said.
    let seven = samples(&server, "m{n=\"7\"}");
    assert!(seven.windows(2).all(|pair| pair[0].0 < pair[1].0), "{seven:?}");
    let before: Vec<&str> = seven.iter().filter(|(t, _)| *t < still_held).map(|(_, v)| v.as_str()).collect();
    let of = |value| before.iter().filter(|v| **v == value).count();
    assert!(2 <= of("7") && 2 <= of("70") && 1 <= of("71"), "{before:?}");
    let ups = samples(&server, "up");
    let down = ups.iter().filter(|(t, v)| *t < still_held && v == "0").count();
    assert!(1 <= down && ups.iter().filter(|(t, _)| *t < still_held).count() as f64 <= kept, "{ups:?}");
    assert!(2 <= samples(&server, "m{n=\"3\"}").len());
    assert_eq!(number(&server, "m{n=\"3\"}"), None, "its end was kept as well");

    // It goes on with the same series; one that ends now is ended, though its target has learned of it while all was held.
    exporter.set_body("m{n=\"7\"} 72\n");
    wait_for("the end of a series", || query(&server, "m{n=\"8\"}", None).filter(Vec::is_empty));
    wait_for("a new sample", || number(&server, "m{n=\"7\"}").filter(|value| *value == 72.0));
    assert_eq!(samples(&server, "m{n=\"7\"}")[..seven.len()], seven);
}

#[test]
fn scrapes_without_room_are_refused_and_say_so() {
    let (exporter, folder) = scene();
    let more: String = (0..300).map(|n| format!("m{{n=\"{n}\"}} {n}\n")).collect();
    exporter.set_body(&more);
    let held = Held::start(folder.path(), &[ARGS[0], "--watchfire.limit.scrape.staged-total=128KiB"]);
    wait_for("a refused scrape", || (0.0 < held.metric("watchfire_opening_scrapes_refused_total")).then_some(()));
    assert!(held.metric("watchfire_opening_bytes") <= f64::from(144 << 10));
    let kept = held.metric("watchfire_opening_scrapes_total");
    assert!(1.0 <= kept && 0.0 < held.metric("watchfire_scrapes_not_stored_total"));
    let (server, still_held) = held.release();
    wait_for("scrapes after it", || number(&server, "max(timestamp(m))").filter(|t| still_held < *t));
    assert!(samples(&server, "m{n=\"299\"}").iter().any(|(t, _)| *t < still_held));
}
