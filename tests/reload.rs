//! Reloading through the built binary: by signal, by HTTP and by changed files; what a bad file does, and what a good one
//! leaves alone.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::fs;
use std::path::Path;

use support::{Exporter, Server, wait_for};

const FLAGS: [&str; 2] = ["--config.file=prometheus.yml", "--web.enable-lifecycle"];

fn write(folder: &Path, jobs: &[(&str, &str, &str)]) {
    let mut text = "global:\n  scrape_interval: 200ms\nscrape_configs:\n".to_owned();
    for (name, address, more) in jobs {
        text += &format!("- job_name: {name}\n{more}  static_configs:\n  - targets: ['{address}']\n");
    }
    fs::write(folder.join("prometheus.yml"), text).unwrap();
}

fn jobs(server: &Server) -> Vec<String> {
    let targets = server.get("/api/v1/targets").json();
    let active = targets["data"]["activeTargets"].as_array().unwrap().clone();
    let mut names: Vec<_> = active.iter().map(|t| t["labels"]["job"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_good_file_changes_what_differs_and_a_bad_one_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (kept, gone, new) = (Exporter::start("a 1\n"), Exporter::start("b 1\n"), Exporter::start("c 1\n"));
    write(folder.path(), &[("kept", &kept.addr, ""), ("gone", &gone.addr, "")]);
    let server = Server::start(folder.path(), &FLAGS);
    wait_for("both jobs", || (server.query("up").len() == 2).then_some(()));

    write(folder.path(), &[("kept", &kept.addr, ""), ("new", &new.addr, "")]);
    assert_eq!(server.post("/-/reload").status, 200, "{}", server.log());
    assert_eq!(jobs(&server), ["kept", "new"], "the answer comes when the new file is in effect");
    wait_for("the new job", || server.single("up{job=\"new\"}"));
    assert_eq!(server.query("up{job=\"gone\"}"), [], "its series have ended");
    let report = server.get("/api/watchfire/v1/reload").json();
    let data = &report["data"];
    assert_eq!((data["trigger"].as_str(), data["success"].as_bool()), (Some("http"), Some(true)), "{report}");
    for (section, prefix) in [("job", ""), ("target", "/http://")] {
        let plan = data["plan"].as_array().unwrap().iter().find(|s| s["what"] == section).unwrap().clone();
        assert_eq!(plan["kept"], 1, "{plan}");
        let first = |verb: &str| plan[verb]["first"][0].as_str().unwrap_or("").to_owned();
        assert!(first("added").starts_with(&format!("new{prefix}")), "{plan}");
        assert!(first("removed").starts_with(&format!("gone{prefix}")), "{plan}");
        assert_eq!(plan["changed"]["count"], 0);
    }
    assert_eq!(kept.connections(), 1, "the kept target goes on over its connection");

    // A bad file: the reason is in the answer, in the log and in the metric; nothing changes.
    let before = server.get("/api/v1/status/config").text();
    fs::write(folder.path().join("prometheus.yml"), "scrape_configs:\n- job_nam: x\n").unwrap();
    let answer = server.post("/-/reload");
    assert_eq!(answer.status, 500);
    let reason = "failed to reload config: couldn't load configuration (--config.file=\"prometheus.yml\"): \
                  parsing YAML file prometheus.yml: yaml: unmarshal errors:\n  line 2: field job_nam not found";
    assert!(answer.text().starts_with(reason), "{}", answer.text());
    wait_for("the reason in the log", || server.log().contains("field job_nam not found").then_some(()));
    assert_eq!(server.get("/api/v1/status/config").text(), before);
    assert_eq!(jobs(&server), ["kept", "new"]);
    let metrics = server.get("/metrics").text();
    assert!(metrics.contains("\nprometheus_config_last_reload_successful 0\n"));
    let runtime = server.get("/api/v1/status/runtimeinfo").json();
    assert_eq!(runtime["data"]["reloadConfigSuccess"], false);
    let report = server.get("/api/watchfire/v1/reload").json();
    assert_eq!(report["data"]["success"], false, "{report}");

    // A signal does the same as a request.
    write(folder.path(), &[("other", &kept.addr, "")]);
    server.signal("HUP");
    wait_for("the signal's reload", || (jobs(&server) == ["other"]).then_some(()));
    wait_for("the metric", || {
        server.get("/metrics").text().contains("\nprometheus_config_last_reload_successful 1\n").then_some(())
    });
}

#[test]
fn without_the_flag_nobody_reloads_over_http() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let answer = server.post("/-/reload");
    assert_eq!((answer.status, answer.text().as_str()), (403, "Lifecycle API is not enabled."));
    assert_eq!(server.post("/api/watchfire/v1/reload").status, 403);
    // The built-in configuration can be read again as well.
    server.signal("HUP");
    wait_for("the reload", || {
        let report = server.get("/api/watchfire/v1/reload");
        (report.status == 200 && report.json()["data"]["success"] == true).then_some(())
    });
}

#[test]
fn a_changed_file_is_found_with_auto_reload() {
    let folder = tempfile::tempdir().unwrap();
    let exporter = Exporter::start("a 1\n");
    write(folder.path(), &[("one", &exporter.addr, "")]);
    let flags = ["--config.file=prometheus.yml", "--config.auto-reload", "--config.auto-reload-interval=50ms"];
    let server = Server::start(folder.path(), &flags);
    assert_eq!(jobs(&server), ["one"]);
    write(folder.path(), &[("two", &exporter.addr, "")]);
    wait_for("the new job", || (jobs(&server) == ["two"]).then_some(()));
    let trigger = || server.get("/api/watchfire/v1/reload").json()["data"]["trigger"].clone();
    wait_for("the report of the reload", || (trigger() == "file").then_some(()));
}

#[test]
fn two_hundred_targets_keep_their_schedule_over_fifty_reloads() {
    let folder = tempfile::tempdir().unwrap();
    let exporter = Exporter::start("a 1\n");
    let config = |limit: usize| {
        let mut text = "global:\n  scrape_interval: 10s\nscrape_configs:\n".to_owned();
        for job in 0..20 {
            let more = if job == 0 { format!("  sample_limit: {limit}\n") } else { String::new() };
            text += &format!(
                "- job_name: job-{job}\n  metrics_path: /{job}\n{more}  static_configs:\n  - targets: ['{}']\n",
                exporter.addr
            );
            text += &(0..9)
                .map(|n| format!("  - {{targets: ['{}'], labels: {{n: '{n}'}}}}\n", exporter.addr))
                .collect::<String>();
        }
        fs::write(folder.path().join("prometheus.yml"), text).unwrap();
    };
    config(100);
    let server = Server::start(folder.path(), &FLAGS);
    let metric = |name: &str| -> f64 {
        let text = server.get("/metrics").text();
        let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).map(str::to_owned);
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(f64::NAN)
    };
    for n in 0..50 {
        config(101 + n);
        assert_eq!(server.post("/-/reload").status, 200, "{}", server.log());
    }
    let report = server.get("/api/watchfire/v1/reload").json();
    let plan = report["data"]["plan"].as_array().unwrap();
    let target = plan.iter().find(|section| section["what"] == "target").unwrap();
    assert_eq!((target["kept"].as_u64(), target["changed"]["count"].as_u64()), (Some(190), Some(10)), "{target}");
    // Everybody has had a turn or two since: the kept targets were scraped at each due time.
    wait_for("two rounds", || (400.0 <= metric("watchfire_scrapes_begun_total")).then_some(()));
    assert_eq!(metric("watchfire_scrapes_skipped_total"), 0.0);
    assert_eq!(metric("watchfire_scrapes_late_total"), 0.0);
}
