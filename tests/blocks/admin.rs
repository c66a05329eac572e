//! Deletions and snapshots by request, and who may see what meanwhile.

use std::fs;
use std::path::Path;

use super::support::{Exporter, Server, encode, request, wait_for};
use super::{KEEP_ALL, MIDDLE, NAMES, at, blocks, folder_with_blocks, metric};

const ARGS: [&str; 3] = ["--config.file=prometheus.yml", KEEP_ALL, "--web.enable-admin-api"];

fn status_and_body(server: &Server, method: &str, path: &str) -> (u16, String) {
    let answer = request(&server.addr, method, path, &[], b"").unwrap();
    (answer.status, answer.text())
}

fn stones(folder: &Path, name: &str) -> (u64, u64) {
    let block = folder.join("data").join(name);
    let meta: serde_json::Value = serde_json::from_slice(&fs::read(block.join("meta.json")).unwrap()).unwrap();
    let number = meta["stats"]["numTombstones"].as_u64().unwrap_or(0);
    (number, fs::metadata(block.join("tombstones")).unwrap().len())
}

#[test]
fn nothing_is_deleted_unless_the_operator_and_the_request_say_so() {
    let folder = folder_with_blocks();
    fs::write(folder.path().join("prometheus.yml"), "").unwrap();
    let server = Server::start(folder.path(), &ARGS[..2]);
    let disabled = r#"{"status":"error","errorType":"unavailable","error":"admin APIs disabled"}"#;
    for what in ["delete_series?match[]=up", "clean_tombstones", "snapshot"] {
        let path = format!("/api/v1/admin/tsdb/{what}");
        assert_eq!(status_and_body(&server, "POST", &path), (500, disabled.to_owned()), "{what}");
        assert_eq!(status_and_body(&server, "PUT", &path), (500, disabled.to_owned()), "{what}");
        assert_eq!(status_and_body(&server, "GET", &path).0, 405, "{what}");
    }
    server.kill();
    let server = Server::start(folder.path(), &ARGS);
    let error = |path: &str| -> String {
        let answer = request(&server.addr, "POST", &format!("/api/v1/admin/tsdb/{path}"), &[], b"").unwrap();
        assert_eq!(answer.status, 400, "{path}");
        answer.json()["error"].as_str().unwrap_or("").to_owned()
    };
    assert_eq!(error("delete_series"), "no match[] parameter provided");
    assert_eq!(
        error("delete_series?match[]=up&start=x"),
        "invalid parameter \"start\": invalid time value for 'start': cannot parse \"x\" to a valid timestamp"
    );
    // One selector of several that is no good: nothing is deleted.
    let refused = error("delete_series?match[]=up&match[]=up{");
    assert!(refused.starts_with("invalid parameter \"match[]\": 1:4: parse error"), "{refused}");
    assert_eq!(
        error("snapshot?skip_head=maybe"),
        "invalid parameter \"skip_head\": unable to parse boolean: strconv.ParseBool: parsing \"maybe\": invalid syntax"
    );
    assert_eq!(status_and_body(&server, "GET", "/api/v1/admin/tsdb/delete_series?match[]=up").0, 405);
    assert_eq!(at(&server, "count(up)", MIDDLE), Ok(2.0));
    assert_eq!(stones(folder.path(), NAMES[0]).0, 0);
    let replay = server.get("/api/v1/status/walreplay").json();
    assert_eq!(replay["data"], serde_json::json!({"min": 0, "max": 1, "current": 1}), "the second start");
    server.kill();
}

#[test]
fn a_deletion_is_seen_at_once_outlives_kill_9_and_is_cleaned_away() {
    let exporter = Exporter::start("a{x=\"1\"} 5\na{x=\"2\"} 6\n");
    let folder = folder_with_blocks();
    let config = format!(
        "global:\n  scrape_interval: 50ms\nscrape_configs:\n- job_name: one\n  static_configs:\n  - targets: ['{}']\n",
        exporter.addr
    );
    fs::write(folder.path().join("prometheus.yml"), config).unwrap();
    let server = Server::start(folder.path(), &ARGS);
    wait_for("samples", || server.single("count_over_time(a{x=\"1\"}[1h])").filter(|count| 5.0 <= *count));
    let newest = server.single("max(timestamp(a{x=\"1\"}))").unwrap();
    let order = "/api/v1/admin/tsdb/delete_series";
    let path = format!("{order}?match[]={}", encode("a{x=\"1\"}"));
    assert_eq!(status_and_body(&server, "POST", &path), (204, String::new()));
    let path = format!("{order}?match[]=none&match[]={}&end={}", encode("up{job=\"x\"}"), MIDDLE - 1);
    assert_eq!(status_and_body(&server, "PUT", &path), (204, String::new()));
    let check = |server: &Server| {
        assert_eq!(server.single(&format!("count_over_time(a{{x=\"1\"}}[1h] @ {newest})")), None);
        assert!(server.single(&format!("count_over_time(a{{x=\"2\"}}[1h] @ {newest})")).is_some_and(|n| 5.0 <= n));
        let up = |time| at(server, "count(up{job=\"x\"})", time).unwrap();
        assert_eq!((up(MIDDLE - 60), up(MIDDLE + 60)), (0.0, 2.0));
    };
    check(&server);
    // Samples that come later are there.
    wait_for("later samples", || server.single("count_over_time(a{x=\"1\"}[1h])").filter(|count| 2.0 <= *count));
    server.kill();
    let names = || -> Vec<String> {
        blocks(folder.path()).iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
    };
    assert_eq!(names(), NAMES);
    assert_eq!((stones(folder.path(), NAMES[0]).0, stones(folder.path(), NAMES[1]).0), (2, 0));

    let server = Server::start(folder.path(), &ARGS);
    check(&server);
    assert_eq!(status_and_body(&server, "PUT", "/api/v1/admin/tsdb/clean_tombstones"), (204, String::new()));
    check(&server);
    assert_eq!(metric(&server, "prometheus_tsdb_tombstone_cleanup_seconds_count"), 1.0);
    assert!(names().len() == 2 && names()[0] == NAMES[1], "{:?}", names());
    // All of the blocks' range: they go as a whole.
    let all =
        format!("/api/v1/admin/tsdb/delete_series?match[]={}&end={}", encode("{__name__=~\".+\"}"), MIDDLE + 7200);
    assert_eq!(status_and_body(&server, "POST", &all), (204, String::new()));
    assert_eq!(at(&server, "count(up)", MIDDLE), Ok(0.0));
    assert_eq!(status_and_body(&server, "POST", "/api/v1/admin/tsdb/clean_tombstones").0, 204);
    assert_eq!(names(), Vec::<String>::new());
    assert!(server.single("count_over_time(a{x=\"2\"}[1h])").is_some_and(|count| 5.0 <= count));
    server.kill();
}

#[test]
fn a_snapshot_is_a_directory_that_a_server_starts_with() {
    let exporter = Exporter::start("a{x=\"1\"} 5\na{x=\"2\"} 6\n");
    let folder = folder_with_blocks();
    let config = format!(
        "global:\n  scrape_interval: 50ms\nscrape_configs:\n- job_name: one\n  static_configs:\n  - targets: ['{}']\n",
        exporter.addr
    );
    fs::write(folder.path().join("prometheus.yml"), config).unwrap();
    let server = Server::start(folder.path(), &ARGS);
    wait_for("samples", || server.single("count_over_time(a{x=\"1\"}[1h])").filter(|count| 5.0 <= *count));
    let newest = server.single("max(timestamp(a))").unwrap();
    let count = format!("sum(count_over_time(a[1h] @ {newest}))");
    let before = server.single(&count).unwrap();
    let take = |query: &str| -> String {
        let answer = server.post(&format!("/api/v1/admin/tsdb/snapshot{query}"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["data"]["name"].as_str().unwrap().to_owned()
    };
    let (without, with) = (take("?skip_head=true"), take(""));
    assert!(with.len() == 33 && &with[8..9] == "T" && &with[15..17] == "Z-", "{with}");
    server.kill();
    let snapshots = folder.path().join("data/snapshots");
    let number = |name: &str| fs::read_dir(snapshots.join(name)).unwrap().count();
    assert_eq!((number(&without), number(&with)), (2, 3));
    assert_eq!(fs::read_dir(&snapshots).unwrap().count(), 2);

    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("prometheus.yml"), "").unwrap();
    fs::rename(snapshots.join(&with), other.path().join("data")).unwrap();
    let server = Server::start(other.path(), &ARGS);
    assert_eq!(server.single(&count), Some(before));
    assert_eq!(at(&server, "count(up{job=\"x\"})", MIDDLE), Ok(2.0));
    server.kill();
}
