//! A real file system of some megabytes that fills up under a running server. Needs the right to mount; where that is missing the
//! test says so and passes.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::{Exporter, Server, encode, request, wait_for};

const ON: [&str; 2] = ["--config.file=prometheus.yml", "--web.enable-remote-write-receiver"];

/// A small file system, unmounted in the end.
struct Small {
    dir: PathBuf,
}

impl Small {
    fn mount(dir: &Path) -> Option<Self> {
        fs::create_dir_all(dir).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=6m", "watchfire-test"]).arg(dir).output();
        mounted.is_ok_and(|done| done.status.success()).then(|| Self { dir: dir.to_owned() })
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let mut ballast = fs::OpenOptions::new().create(true).append(true).open(self.dir.join("ballast")).unwrap();
        for len in [1 << 16, 1 << 12, 1] {
            while ballast.write_all(&vec![7; len]).is_ok() {}
        }
    }

    fn free(&self) {
        fs::remove_file(self.dir.join("ballast")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.dir).status();
    }
}

fn varint(out: &mut Vec<u8>, mut n: u64) {
    while 0x80 <= n {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn field(out: &mut Vec<u8>, tag: u8, value: &[u8]) {
    out.push(tag);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// Writes one sample of each of 100 series; the status and the text of the answer.
pub(super) fn write(server: &Server, at: u64, value: f64) -> (u16, String) {
    let mut message = Vec::new();
    for i in 0..100 {
        let mut series = Vec::new();
        for (name, value) in [("__name__", "d".to_owned()), ("i", format!("{i}"))] {
            let mut label = Vec::new();
            field(&mut label, 0x0a, name.as_bytes());
            field(&mut label, 0x12, value.as_bytes());
            field(&mut series, 0x0a, &label);
        }
        let mut sample = vec![0x09];
        sample.extend_from_slice(&value.to_le_bytes());
        sample.push(0x10);
        varint(&mut sample, at);
        field(&mut series, 0x12, &sample);
        field(&mut message, 0x0a, &series);
    }
    let body = snap::raw::Encoder::new().compress_vec(&message).unwrap();
    let answer = request(&server.addr, "POST", "/api/v1/write", &[("Content-Encoding", "snappy")], &body).unwrap();
    (answer.status, answer.text())
}

pub(super) fn metric(server: &Server, name: &str) -> f64 {
    let text = server.get("/metrics").text();
    let line = text.lines().find(|line| line.split(' ').next() == Some(name));
    line.and_then(|line| line.rsplit(' ').next()).map_or(0.0, |value| value.parse().unwrap())
}

pub(super) fn count(server: &Server, at: u64) -> u64 {
    let query = encode("sum(count_over_time(d[1h]))");
    let answer = server.get(&format!("/api/v1/query?query={query}&time={}.999", at / 1000));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let json = answer.json();
    json["data"]["result"][0]["value"][1].as_str().map_or(0, |value| value.parse().unwrap())
}

#[test]
fn a_full_disk_stops_appends_with_a_clear_state_and_nothing_else_and_it_heals_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let Some(small) = Small::mount(&folder.path().join("data")) else {
        eprintln!("skipped: no file system can be mounted here");
        return;
    };
    let alertmanager = Exporter::start("{}");
    let rules = "groups:\n- name: g\n  interval: 200ms\n  rules:\n  - alert: Always\n    expr: vector(1)\n";
    let config = format!(
        "rule_files: [rules.yml]\nalerting:\n  alertmanagers:\n  - static_configs:\n    - targets: ['{}']\n",
        alertmanager.addr
    );
    fs::write(folder.path().join("prometheus.yml"), &config).unwrap();
    fs::write(folder.path().join("rules.yml"), "groups: []\n").unwrap();
    let args = [&ON[..], &["--web.enable-lifecycle"]].concat();
    let server = Server::start(folder.path(), &args);
    let start = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap() - 60_000;
    let mut acknowledged = 0;
    for n in 0..20 {
        assert_eq!(write(&server, start + n, n as f64).0, 204);
        acknowledged += 1;
    }
    small.fill();
    let refused = (20..20_000).find_map(|n| match write(&server, start + n, n as f64 / 7.0) {
        (204, _) => {
            acknowledged += 1;
            None
        }
        refused => Some(refused),
    });
    let (status, text) = refused.unwrap();
    assert!(500 <= status && text.contains("No space left on device"), "{status}: {text}");
    let unready = wait_for("the state to show", || Some(server.get("/-/ready")).filter(|answer| answer.status == 503));
    assert!(unready.text().contains("No space left on device"), "{}", unready.text());
    assert_eq!(metric(&server, "watchfire_wal_refusing"), 1.0);
    for n in 0..5 {
        assert!(500 <= write(&server, start + 30_000 + n, 1.0).0);
    }
    let said = server.log().matches("The disk does not take the write log").count();
    assert_eq!(said, 1, "{}", server.log());
    let at = start + 30_000;
    assert_eq!(count(&server, at), acknowledged * 100, "queries go on");
    // A rule that is new while the disk is full is loaded, evaluated, and its alert is sent.
    fs::write(folder.path().join("rules.yml"), rules).unwrap();
    assert_eq!(server.post("/-/reload").status, 200, "{}", server.log());
    let sent = || alertmanager.bodies().iter().any(|body| String::from_utf8_lossy(body).contains("Always"));
    wait_for("the alert", || sent().then_some(()));

    small.free();
    wait_for("the end of the state", || (server.get("/-/ready").status == 200).then_some(()));
    assert_eq!(metric(&server, "watchfire_wal_refusing"), 0.0);
    assert_eq!(write(&server, start + 31_000, 5.0).0, 204);
    acknowledged += 1;
    assert_eq!(count(&server, start + 31_000), acknowledged * 100);

    // Killed and started while it is full: all is there, and it heals again.
    small.fill();
    server.kill();
    let server = Server::start(folder.path(), &args);
    assert_eq!(count(&server, start + 31_000), acknowledged * 100);
    small.free();
    wait_for("a write", || (write(&server, start + 32_000, 6.0).0 == 204).then_some(()));
    assert_eq!(count(&server, start + 32_000), (acknowledged + 1) * 100);
}
