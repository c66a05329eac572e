//! Remote write out of the built binary, to receivers that keep what they get. Samples come in by remote write, so that it
//! is known which there are.

use std::collections::BTreeMap;
use std::fs;

use prost::Message as _;

use crate::messages::{self, Request, WriteRequest, series, v1};
use crate::support::{Behaviour, Exporter, Server, wait_for};
use crate::{ON, now_ms, write_v1};

/// Answers of a receiver of version 2 that has written more than was sent.
const ALL_WRITTEN: &str = "204 No Content\r\nX-Prometheus-Remote-Write-Samples-Written: 999999\r\n\
                           X-Prometheus-Remote-Write-Histograms-Written: 999999";

/// Something that was received: labels, time, value.
type Got = (String, i64, String);

pub(crate) fn receiver() -> Exporter {
    let receiver = Exporter::start("");
    receiver.set(Behaviour::Status(ALL_WRITTEN.to_owned()));
    receiver
}

fn plain(body: &[u8]) -> Vec<u8> {
    snap::raw::Decoder::new().decompress_vec(body).unwrap()
}

fn shown<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    pairs.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
}

/// All that the requests of version 1 from number `from` on hold.
fn received(receiver: &Exporter, from: usize) -> Vec<Got> {
    let mut all = Vec::new();
    for body in receiver.bodies().iter().skip(from) {
        for series in WriteRequest::decode(plain(body).as_slice()).unwrap().timeseries {
            let labels = shown(series.labels.iter().map(|label| (label.name.as_str(), label.value.as_str())));
            all.extend(series.samples.iter().map(|s| (labels.clone(), s.timestamp, s.value.to_string())));
            all.extend(series.histograms.iter().map(|h| (labels.clone(), h.timestamp, format!("h{}", h.count_int))));
        }
    }
    all
}

/// The same of version 2.
fn received_v2(receiver: &Exporter) -> Vec<Got> {
    let mut all = Vec::new();
    for body in receiver.bodies() {
        let Request { symbols, timeseries } = Request::decode(plain(&body).as_slice()).unwrap();
        assert_eq!(symbols[0], "");
        for series in timeseries {
            let text = |at: &u32| symbols[usize::try_from(*at).unwrap()].as_str();
            let labels = shown(series.labels_refs.chunks(2).map(|pair| (text(&pair[0]), text(&pair[1]))));
            all.extend(series.samples.iter().map(|s| (labels.clone(), s.timestamp, s.value.to_string())));
            all.extend(series.histograms.iter().map(|h| (labels.clone(), h.timestamp, format!("h{}", h.count_int))));
        }
    }
    all
}

/// Starts of all samples and histograms of version 2, in order.
pub(crate) fn starts(receiver: &Exporter) -> Vec<i64> {
    let mut starts = Vec::new();
    for body in receiver.bodies() {
        for series in Request::decode(plain(&body).as_slice()).unwrap().timeseries {
            starts.extend(series.samples.iter().map(|sample| sample.start_timestamp));
            starts.extend(series.histograms.iter().map(|histogram| histogram.start_timestamp));
        }
    }
    starts.sort_unstable();
    starts
}

fn metric(server: &Server, name: &str, remote: &str) -> Option<f64> {
    let text = server.get("/metrics").text();
    let is_it =
        |line: &&str| line.starts_with(&format!("{name}{{")) && line.contains(&format!("remote_name=\"{remote}\""));
    text.lines().find(is_it)?.rsplit(' ').next()?.parse().ok()
}

/// Writes `count` samples of as many series, numbered from `from` on.
fn write(server: &Server, at: i64, from: i64, count: i64) {
    let one = |n: i64| series(&[("__name__", "m"), ("n", &n.to_string())], &[(at + n, n as f64)]);
    let answer = write_v1(server, &v1((from..from + count).map(one).collect()));
    assert_eq!(answer.status, 204, "{}", answer.text());
}

/// Times of the samples, counted from `at`, with how often each came.
fn times(got: &[Got], at: i64) -> BTreeMap<i64, usize> {
    let mut times = BTreeMap::new();
    for (_, t, _) in got {
        *times.entry(t - at).or_default() += 1;
    }
    times
}

fn once(range: std::ops::Range<i64>) -> BTreeMap<i64, usize> {
    range.map(|n| (n, 1)).collect()
}

fn config(receiver: &Exporter, more: &str) -> String {
    let url = format!("http://{}/w", receiver.addr);
    format!(
        "remote_write: [{{url: '{url}', name: a, queue_config: {{batch_send_deadline: 20ms, min_backoff: 5ms, max_backoff: 50ms}}, {more}}}]\n"
    )
}

#[test]
fn samples_arrive_once_over_restarts_and_all_of_them_after_a_kill() {
    let (folder, receiver, at) = (tempfile::tempdir().unwrap(), receiver(), now_ms());
    let config = config(&receiver, "");
    fs::write(folder.path().join("prometheus.yml"), config).unwrap();
    let start = || Server::start(folder.path(), &["--config.file=prometheus.yml", ON]);
    let stop = |mut server: Server| {
        server.signal("TERM");
        assert_eq!(server.wait_exit(), Some(0), "{}", server.log());
    };
    let server = start();
    write(&server, at, 0, 500);
    wait_for("the first samples", || (received(&receiver, 0).len() == 500).then_some(()));
    stop(server);
    let server = start();
    write(&server, at, 500, 500);
    // What waits for its request to fill is sent before the end.
    stop(server);
    assert_eq!(times(&received(&receiver, 0), at), once(0..1000));

    // A receiver that fails, until after a restart: nothing is lost and nothing is sent twice.
    receiver.set(Behaviour::Status("503 Service Unavailable".to_owned()));
    let server = start();
    write(&server, at, 1000, 300);
    wait_for("a refused request", || {
        (0.0 < metric(&server, "prometheus_remote_storage_samples_retried_total", "a")?).then_some(())
    });
    stop(server);
    let from = receiver.bodies().len();
    receiver.set(Behaviour::Status(ALL_WRITTEN.to_owned()));
    let server = start();
    wait_for("the samples that were refused", || (300 <= received(&receiver, from).len()).then_some(()));
    write(&server, at, 1300, 100);
    wait_for("new samples", || (400 <= received(&receiver, from).len()).then_some(()));
    assert_eq!(times(&received(&receiver, from), at), once(1000..1400));

    // A receiver that does not answer, and a kill -9.
    receiver.set(Behaviour::Hang);
    write(&server, at, 1400, 100);
    server.kill();
    let from = receiver.bodies().len();
    receiver.set(Behaviour::Status(ALL_WRITTEN.to_owned()));
    let server = start();
    wait_for("all after a kill", || {
        let got = times(&received(&receiver, from), at);
        (1400..1500).all(|n| got.contains_key(&n)).then_some(())
    });
    drop(server);
}

#[test]
fn both_versions_carry_what_the_destination_wants() {
    let (folder, old, new) = (tempfile::tempdir().unwrap(), receiver(), receiver());
    let exporter = Exporter::start("# HELP some Some help.\n# TYPE some gauge\nsome 1\n");
    let yaml = format!(
        "
global: {{scrape_interval: 1h, external_labels: {{site: here, n: mine}}}}
scrape_configs: [{{job_name: j, scrape_interval: 100ms, static_configs: [{{targets: ['{}']}}]}}]
remote_write:
- url: http://user:canary1@{}/w
  name: old
  headers: {{X-Scope: canary2}}
  write_relabel_configs: [{{source_labels: [n], regex: '3', action: drop}}, {{target_label: to, replacement: old}}]
  metadata_config: {{send_interval: 100ms}}
  queue_config: {{batch_send_deadline: 20ms}}
- url: http://{}/w
  name: new
  protobuf_message: io.prometheus.write.v2.Request
  send_native_histograms: true
  authorization: {{credentials: canary3}}
  write_relabel_configs: [{{source_labels: [__name__], regex: 'm|h', action: keep}}]
  queue_config: {{batch_send_deadline: 20ms}}
",
        exporter.addr, old.addr, new.addr
    );
    fs::write(folder.path().join("prometheus.yml"), yaml).unwrap();
    let server = Server::start(folder.path(), &["--config.file=prometheus.yml", ON]);
    let at = now_ms();
    let mut histogram = series(&[("__name__", "h")], &[]);
    histogram.histograms.push(messages::histogram(at));
    let two = |n: &str, value: f64| series(&[("__name__", "m"), ("n", n)], &[(at, value)]);
    let bare = series(&[("__name__", "m"), ("n2", "x")], &[(at, 0.25)]);
    let answer = write_v1(&server, &v1(vec![two("2", 2.5), two("3", f64::INFINITY), bare, histogram]));
    assert_eq!(answer.status, 204, "{}", answer.text());

    let expected = |more: &str, n: &str, value: &str| (format!("__name__=m,n={n},{more}"), at, value.to_owned());
    let got = wait_for("version 1", || {
        let mut got: Vec<Got> = received(&old, 0).into_iter().filter(|(l, ..)| l.starts_with("__name__=m,")).collect();
        got.sort();
        (got.len() == 2).then_some(got)
    });
    let mine = ("__name__=m,n=mine,n2=x,site=here,to=old".to_owned(), at, "0.25".to_owned());
    assert_eq!(got, [expected("site=here,to=old", "2", "2.5"), mine]);
    let got = wait_for("version 2", || {
        let mut got = received_v2(&new);
        got.sort();
        (got.len() == 4).then_some(got)
    });
    let of_h = ("__name__=h,n=mine,site=here".to_owned(), at, "h1".to_owned());
    let mine = ("__name__=m,n=mine,n2=x,site=here".to_owned(), at, "0.25".to_owned());
    assert_eq!(got, [of_h, expected("site=here", "2", "2.5"), expected("site=here", "3", "inf"), mine]);
    let all = received(&old, 0);
    assert!(all.iter().all(|(.., value)| value != "h1"), "histograms are sent only where that is asked for");

    let described = wait_for("descriptions", || {
        let bodies = old.bodies().into_iter().map(|body| WriteRequest::decode(plain(&body).as_slice()).unwrap());
        bodies.flat_map(|request| request.metadata).find(|one| one.metric_family_name == "some")
    });
    assert_eq!(described.metric_family_name, "some");
    let head = |receiver: &Exporter| receiver.heads()[0].to_lowercase();
    for wanted in [
        "content-encoding: snappy\r\n",
        "content-type: application/x-protobuf\r\n",
        "x-prometheus-remote-write-version: 0.1.0\r\n",
        "user-agent: watchfire/",
        "authorization: basic dxnlcjpjyw5hcnkx\r\n",
        "x-scope: canary2\r\n",
    ] {
        assert!(head(&old).contains(wanted), "{wanted}: {}", head(&old));
    }
    for wanted in [
        "content-type: application/x-protobuf;proto=io.prometheus.write.v2.request\r\n",
        "x-prometheus-remote-write-version: 2.0.0\r\n",
        "authorization: bearer canary3\r\n",
    ] {
        assert!(head(&new).contains(wanted), "{wanted}: {}", head(&new));
    }

    // What is refused for good is dropped and counted; the next is sent.
    new.set(Behaviour::Status("400 Bad Request".to_owned()));
    assert_eq!(write_v1(&server, &v1(vec![series(&[("__name__", "m"), ("n", "4")], &[(at, 4.0)])])).status, 204);
    let failed = || metric(&server, "prometheus_remote_storage_samples_failed_total", "new");
    wait_for("a refusal", || (failed() == Some(1.0)).then_some(()));
    new.set(Behaviour::Status(ALL_WRITTEN.to_owned()));
    assert_eq!(write_v1(&server, &v1(vec![series(&[("__name__", "m"), ("n", "5")], &[(at, 5.0)])])).status, 204);
    wait_for("the next", || received_v2(&new).iter().any(|(labels, ..)| labels.contains("n=5")).then_some(()));
    let dropped = metric(&server, "prometheus_remote_storage_samples_dropped_total", "old");
    assert_eq!(dropped, Some(1.0));
    // One that says 204 and has written nothing does not know version 2.
    new.set(Behaviour::Status("204 No Content".to_owned()));
    assert_eq!(write_v1(&server, &v1(vec![series(&[("__name__", "m"), ("n", "6")], &[(at, 6.0)])])).status, 204);
    wait_for("another refusal", || (failed() == Some(2.0)).then_some(()));

    let seen = [
        server.log(),
        server.get("/metrics").text(),
        server.get("/api/v1/status/config").text(),
        server.get("/api/watchfire/v1/actors").text(),
        server.get("/actors").text(),
        server.get("/config").text(),
    ];
    let secret = seen.iter().position(|text| text.contains("canary1") || text.contains("canary3"));
    assert_eq!(secret, None, "{}", seen[secret.unwrap_or(0)]);
    assert!(!seen[0].contains("canary2") && !seen[1].contains("canary2"));
}

#[test]
fn a_dead_destination_harms_nobody_and_a_reload_loses_nothing() {
    let (folder, dead, good) = (tempfile::tempdir().unwrap(), receiver(), receiver());
    dead.set(Behaviour::Hang);
    let block = |name: &str, receiver: &Exporter, more: &str| {
        format!(
            "- {{url: 'http://{}/w', name: {name}, {more} queue_config: {{capacity: 200, max_samples_per_send: 200, batch_send_deadline: 20ms, min_backoff: 5ms}}}}\n",
            receiver.addr
        )
    };
    let path = folder.path().join("prometheus.yml");
    let both = |more: &str| format!("remote_write:\n{}{}", block("dead", &dead, more), block("good", &good, ""));
    fs::write(&path, both("")).unwrap();
    let server = Server::start(folder.path(), &["--config.file=prometheus.yml", "--web.enable-lifecycle", ON]);
    let at = now_ms();
    for part in 0..8 {
        write(&server, at, part * 1000, 1000);
    }
    let got = || received(&good, 0).len();
    wait_for("the good destination", || (8000 <= got()).then_some(()));
    assert_eq!(times(&received(&good, 0), at), once(0..8000));
    // A shard's capacity, what is under way, and as many that were read ahead, the last record whole; not what the log holds.
    let pending = metric(&server, "prometheus_remote_storage_samples_pending", "dead").unwrap();
    assert!(pending <= 200.0 + 200.0 + 200.0 + 1_000.0, "{pending} samples are held for a dead destination");

    // Other settings for the dead one: it goes on where it was. The good one goes on untouched.
    let connections = good.connections();
    dead.set(Behaviour::Status(ALL_WRITTEN.to_owned()));
    let from = dead.bodies().len();
    fs::write(&path, both("headers: {X-New: yes},")).unwrap();
    assert_eq!(server.post("/-/reload").status, 200);
    wait_for("what the dead one missed", || (8000 <= times(&received(&dead, from), at).len()).then_some(()));
    assert!(dead.heads().last().unwrap().to_lowercase().contains("x-new: yes"));
    write(&server, at, 8000, 100);
    wait_for("new samples at both", || {
        (8100 <= got() && 8100 <= times(&received(&dead, from), at).len()).then_some(())
    });
    assert_eq!(times(&received(&good, 0), at), once(0..8100));
    assert_eq!(good.connections(), connections, "its connection is kept");

    // One that is gone takes its figures with it.
    fs::write(&path, format!("remote_write:\n{}", block("good", &good, ""))).unwrap();
    assert_eq!(server.post("/-/reload").status, 200);
    wait_for("its figures to go", || {
        metric(&server, "prometheus_remote_storage_samples_total", "dead").is_none().then_some(())
    });
    let cursors = || fs::read_dir(folder.path().join("data/remote-write")).unwrap().count();
    wait_for("its cursor to go", || (cursors() == 1).then_some(()));
    fs::write(&path, "remote_write: [{url: 'http://h/w'}, {url: 'http://h/w'}]").unwrap();
    assert_eq!(server.post("/-/reload").status, 500);
    let told = || server.log().contains("duplicate remote write configs are not allowed");
    wait_for("the reason in the log", || told().then_some(()));
}

#[test]
fn a_log_that_is_shortened_tells_what_was_not_sent_unless_it_is_held() {
    let (folders, receiver) = ([tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()], receiver());
    receiver.set(Behaviour::Hang);
    let flags = ["--config.file=prometheus.yml", ON, "--storage.tsdb.retention.time=3s"];
    let start = |folder: &tempfile::TempDir, more: &[&str]| {
        let queue = "queue_config: {capacity: 10, max_samples_per_send: 10, batch_send_deadline: 20ms}";
        let yaml = format!("remote_write: [{{url: 'http://{}/w', name: a, {queue}}}]", receiver.addr);
        fs::write(folder.path().join("prometheus.yml"), yaml).unwrap();
        Server::start(folder.path(), &[&flags[..], more].concat())
    };
    let shortened = start(&folders[0], &[]);
    let held = start(&folders[1], &["--watchfire.remote-write.hold-wal=100MB"]);
    let missed = |server: &Server| metric(server, "watchfire_remote_write_missed_samples_total", "a");
    let append = |count: i64| {
        for server in [&shortened, &held] {
            let at = now_ms();
            let one = |i: i64| series(&[("__name__", "m"), ("n", &i.to_string())], &[(at, 1.0)]);
            assert_eq!(write_v1(server, &v1((0..count).map(one).collect())).status, 204);
        }
    };
    // More than a step of reading takes, so that the log is not read to its end.
    (0..5).for_each(|_| append(3000));
    wait_for("samples to be given up", || {
        append(1);
        (0.0 < missed(&shortened)?).then_some(())
    });
    let told = |server: &Server| server.log().matches("The log is shortened before all of it was sent").count();
    assert!(1 <= told(&shortened), "{}", shortened.log());
    assert_eq!((missed(&held), told(&held)), (Some(0.0), 0));
    let segments = |folder: &tempfile::TempDir| {
        let entries = fs::read_dir(folder.path().join("data/wal")).unwrap();
        entries.filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().contains("checkpoint")).count()
    };
    wait_for("a checkpoint", || (segments(&folders[0]) == 1).then_some(()));
    assert_eq!(segments(&folders[1]), 0, "the log is held");
}

#[test]
fn an_agent_scrapes_and_sends_and_refuses_the_rest() {
    let (folder, receiver) = (tempfile::tempdir().unwrap(), receiver());
    let exporter = Exporter::start("some 1\n");
    let jobs = format!(
        "scrape_configs: [{{job_name: j, scrape_interval: 100ms, static_configs: [{{targets: ['{}']}}]}}]\n",
        exporter.addr
    );
    fs::write(folder.path().join("prometheus.yml"), jobs + &config(&receiver, "")).unwrap();
    let flags = ["--config.file=prometheus.yml", "--agent", "--storage.agent.path=agent"];
    let mut server = Server::start(folder.path(), &flags);
    let some = || received(&receiver, 0).iter().filter(|(labels, ..)| labels.starts_with("__name__=some,")).count();
    wait_for("scraped samples", || (3 <= some()).then_some(()));
    let refused = server.get("/api/v1/query?query=up");
    let text = r#"{"status":"error","errorType":"execution","error":"unavailable with Prometheus Agent"}"#;
    assert_eq!((refused.status, refused.text()), (422, text.to_owned()));
    for path in ["/api/v1/rules", "/api/v1/alerts", "/api/v1/labels", "/api/v1/label/a/values", "/api/v1/status/tsdb"] {
        assert_eq!(server.get(path).text(), text, "{path}");
    }
    let federate = server.get("/federate?match[]=up");
    assert_eq!((federate.status, federate.text().trim_end()), (500, "unsupported operation with WAL-only storage"));
    assert_eq!(server.get("/api/v1/targets").json()["data"]["activeTargets"][0]["health"], "up");
    assert!(server.get("/metrics").text().contains("prometheus_agent_active_series "));
    assert_eq!(server.get("/-/healthy").text(), "Prometheus Agent is Healthy.\n");
    assert_eq!(server.get("/-/ready").text(), "Prometheus Agent is Ready.\n");
    server.signal("TERM");
    assert_eq!(server.wait_exit(), Some(0), "{}", server.log());
    let entries = fs::read_dir(folder.path().join("agent")).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["remote-write", "reserved", "wal", "wal.manifest", "watchfire-clock.json"]);
    assert!(!folder.path().join("data").exists());
}
