//! Finished chunks in files under the built binary: a compaction that meets damage, and a chunk of a file that is the newest of its
//! series when the head is shown.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::full_disk::{count, metric, write};
use super::names;
use crate::support::{Server, encode, wait_for};

const ON: [&str; 4] = [
    "--config.file=prometheus.yml",
    "--web.enable-remote-write-receiver",
    "--storage.tsdb.min-block-duration=10m",
    "--storage.tsdb.block-reload-interval=1s",
];
/// What the head becomes a block of.
const RANGE_MS: u64 = 600_000;
/// Series of a write.
const SERIES: u64 = 100;

fn scene() -> (tempfile::TempDir, u64) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("prometheus.yml"), "").unwrap();
    let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    (folder, (now - 3_600_000) / RANGE_MS * RANGE_MS)
}

/// Writes the samples with these numbers, a second apart.
fn fill(server: &Server, start: u64, numbers: std::ops::Range<u64>) {
    for n in numbers {
        assert_eq!(write(server, start + n * 1000, (n * n % 1000) as f64).0, 204);
    }
}

fn wait_for_chunks(server: &Server) {
    let written = || metric(server, "prometheus_tsdb_mmap_chunks_total");
    wait_for("finished chunks in files", || (SERIES as f64 <= written()).then_some(()));
}

/// The sum of all samples up to `at`.
fn sum(server: &Server, at: u64) -> Option<f64> {
    let path = format!("/api/v1/query?query={}&time={}", encode("sum(sum_over_time(d[1h]))"), at / 1000);
    let json = server.get(&path).json();
    json["data"]["result"][0]["value"][1].as_str()?.parse().ok()
}

fn expected_sum(count: u64) -> Option<f64> {
    Some((0..count).map(|n| (n * n % 1000 * SERIES) as f64).sum())
}

fn blocks(folder: &Path) -> usize {
    let data = folder.join("data");
    names(&data).iter().filter(|name| data.join(name).join("meta.json").is_file()).count()
}

#[test]
fn a_compaction_that_meets_a_damaged_chunk_makes_no_block_without_its_samples() {
    let (folder, start) = scene();
    let server = Server::start(folder.path(), &ON);
    fill(&server, start, 0..130);
    wait_for_chunks(&server);
    let file = folder.path().join("data/chunks_head/000001");
    let sound = fs::read(&file).unwrap();
    let mut bytes = sound.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(&file, &bytes).unwrap();
    assert_eq!(blocks(folder.path()), 0);
    // Only now there is something for a block, and nothing else has read the chunk.
    assert_eq!(write(&server, start + 2 * RANGE_MS, 1.0).0, 204);
    wait_for("a block", || (blocks(folder.path()) == 1).then_some(()));
    assert!(1.0 <= metric(&server, "prometheus_tsdb_compactions_failed_total"), "{}", server.log());
    assert_eq!(metric(&server, "prometheus_tsdb_mmap_chunk_corruptions_total"), 1.0);
    assert_eq!(metric(&server, "watchfire_wal_lost_samples_total"), 0.0);
    assert!(server.log().contains("nothing is lost"), "{}", server.log());
    // Made again and put back, before what was finished since; what was damaged is kept.
    assert!(fs::read(&file).unwrap().starts_with(&sound));
    assert_eq!(names(&folder.path().join("data/wal.damaged")), ["chunks_head.000001"]);
    let end = start + 130_000;
    wait_for("the head to drop what stands in the block", || {
        (start as f64 + 1000.0 < metric(&server, "prometheus_tsdb_head_min_time")).then_some(())
    });
    assert_eq!((count(&server, end), sum(&server, end)), (130 * SERIES, expected_sum(130)));
    server.kill();
    let server = Server::start(folder.path(), &ON);
    assert_eq!((count(&server, end), sum(&server, end)), (130 * SERIES, expected_sum(130)));
}

#[test]
fn a_series_of_which_the_log_has_nothing_newer_than_its_last_chunk_shows_that_chunk() {
    let (folder, start) = scene();
    let segment = folder.path().join("data/wal/00000000");
    let server = Server::start(folder.path(), &ON);
    fill(&server, start, 0..120);
    let len = fs::metadata(&segment).unwrap().len();
    // It finishes the chunks, and the log will not have it.
    fill(&server, start, 120..121);
    wait_for_chunks(&server);
    server.kill();
    assert!(len < fs::metadata(&segment).unwrap().len());
    fs::OpenOptions::new().write(true).open(&segment).unwrap().set_len(len).unwrap();
    for round in 0..2 {
        let server = Server::start(folder.path(), &ON);
        let report = wait_for("the report of the start", || {
            server.log().lines().find(|line| line.contains("WAL replay completed")).map(str::to_owned)
        });
        assert!(report.contains("from=ChunksAndLog"), "{report}");
        let end = start + 130_000;
        let more = 10 * round;
        assert_eq!((count(&server, end), sum(&server, end)), ((120 + more) * SERIES, expected_sum(120 + more)));
        let newest = |at: u64| server.query(&format!("max(timestamp(d @ {}))", at / 1000));
        assert_eq!(newest(start + 119_000)[0].1, ((start + 119_000) / 1000).to_string());
        // What follows begins another chunk.
        if round == 0 {
            fill(&server, start, 120..130);
            assert_eq!((count(&server, end), sum(&server, end)), (130 * SERIES, expected_sum(130)));
        }
        server.kill();
    }
}
