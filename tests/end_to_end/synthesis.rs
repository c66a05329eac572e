//! Start times that are made up (`st-synthesis`), through the built binary; beside Prometheus where
//! `WATCHFIRE_ORACLE_PROMETHEUS` names one.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use crate::support::{Server, encode, request, wait_for};

const FEATURES: &str = "st-synthesis,st-storage,xor2-encoding,histograms-st-encoding,promql-experimental-functions,\
                        use-start-timestamps";

/// The scrape that fails.
const FAILS: usize = 6;

/// What the target says at its scrapes; the last one again and again.
fn bodies() -> Vec<String> {
    let body = |counter: i64, told: &str, low: i64, all: i64| {
        format!(
            "# TYPE c counter\nc_total {counter}\n{told}# TYPE g gauge\ng {counter}\n# TYPE s summary\n\
             s{{quantile=\"0.5\"}} {counter}\ns_sum {counter}.5\ns_count {counter}\n# TYPE h histogram\n\
             h_bucket{{le=\"1\"}} {low}\nh_bucket{{le=\"+Inf\"}} {all}\nh_sum {all}\nh_count {all}\n# EOF\n"
        )
    };
    vec![
        body(10, "", 1, 2),
        body(15, "", 1, 4),
        body(15, "", 3, 9),
        // A reset, then one more in the histogram alone.
        body(4, "", 3, 9),
        body(6, "", 2, 9),
        // A start that is told, a scrape that fails, and a reference anew.
        body(20, "c_created 1726839813.016\n", 4, 11),
        "c_total ?\n".to_owned(),
        body(25, "", 5, 12),
        body(32, "", 6, 13),
        "# TYPE g gauge\ng 1\n# EOF\n".to_owned(),
        body(40, "", 7, 20),
        body(41, "", 9, 22),
        body(41, "", 9, 22),
    ]
}

/// A target that counts its scrapes.
fn target() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let (bodies, next) = (Arc::new(bodies()), Arc::new(AtomicUsize::new(0)));
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (bodies, next) = (Arc::clone(&bodies), Arc::clone(&next));
            std::thread::spawn(move || serve(stream, &bodies, &next));
        }
    });
    addr
}

fn serve(stream: TcpStream, bodies: &[String], next: &AtomicUsize) {
    let Ok(mut out) = stream.try_clone() else { return };
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    while let Some(line) = lines.next() {
        if !line.is_empty() {
            continue;
        }
        let body = &bodies[next.fetch_add(1, Ordering::SeqCst).min(bodies.len() - 1)];
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/openmetrics-text; version=1.0.0\r\n";
        if write!(out, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).is_err() {
            return;
        }
    }
}

fn config(folder: &Path) {
    let yaml = format!(
        "global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}\nstorage: {{tsdb: {{chunk_encoding: {{floats: xor2}}}}}}\n\
         scrape_configs:\n- job_name: plain\n  static_configs: [{{targets: ['{}']}}]\n\
         - job_name: native\n  scrape_native_histograms: true\n  convert_classic_histograms_to_nhcb: true\n  \
         static_configs: [{{targets: ['{}']}}]\n",
        target(),
        target()
    );
    std::fs::write(folder.join("prometheus.yml"), yaml).unwrap();
}

fn matrix(addr: &str, promql: &str) -> Vec<Value> {
    let answer = request(addr, "GET", &format!("/api/v1/query?query={}", encode(promql)), &[], b"").unwrap();
    assert_eq!(answer.status, 200, "{promql}: {}", answer.text());
    answer.json()["data"]["result"].as_array().unwrap().clone()
}

/// What a server has of one job: samples with the numbers of their scrapes instead of times, and the start of each. `None` where
/// the machine was too slow for a scrape.
fn stored(addr: &str, job: &str) -> Option<BTreeMap<String, Vec<String>>> {
    let wanted = bodies().len();
    let millis = |at: &Value| (at.as_f64().unwrap() * 1000.0).round() as i64;
    let up = wait_for("all scrapes", || {
        let up = matrix(addr, &format!("up{{job=\"{job}\"}}[1h]"));
        let points = up.first()?["values"].as_array()?.clone();
        Some(points).filter(|points| wanted <= points.len())
    });
    let times: Vec<i64> = up.iter().map(|point| millis(&point[0])).collect();
    let failed: Vec<usize> = (0..wanted).filter(|at| up[*at][1] == "0").collect();
    if failed != [FAILS] {
        return None;
    }
    let place = |at: i64| match times.iter().position(|time| *time == at) {
        Some(place) => format!("#{place}"),
        None => match times.iter().position(|time| *time == at + 1) {
            Some(place) => format!("before #{place}"),
            None => at.to_string(),
        },
    };
    let is_early = |at: i64| at <= times[wanted - 1];
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let name = |metric: &Value| {
        let mut labels = metric.as_object().unwrap().clone();
        labels.remove("instance");
        Value::from(labels).to_string()
    };
    for series in matrix(addr, &format!("{{job=\"{job}\"}}[1h]")) {
        if series["metric"]["__name__"] == "scrape_duration_seconds" {
            continue;
        }
        let points = found.entry(name(&series["metric"])).or_default();
        for kind in ["values", "histograms"] {
            for point in series[kind].as_array().into_iter().flatten().filter(|point| is_early(millis(&point[0]))) {
                points.push(format!("{} {}", place(millis(&point[0])), point[1]).replace('"', ""));
            }
        }
    }
    for (number, time) in times.iter().take(wanted).enumerate() {
        for metric in ["c_total", "g", "s", "s_sum", "s_count", "h", "h_bucket", "h_sum", "h_count"] {
            let promql = format!("start_timestamp({metric}{{job=\"{job}\"}} @ {}.{:03})", time / 1000, time % 1000);
            for series in matrix(addr, &promql) {
                let start = series["value"][1].as_str().unwrap().parse::<f64>().unwrap();
                let start = if start == 0.0 { "none".to_owned() } else { place((start * 1000.0).round() as i64) };
                found.insert(format!("start at #{number} of {metric} {}", name(&series["metric"])), vec![start]);
            }
        }
    }
    Some(found)
}

/// What a server has of both jobs; servers are started until one of them has missed no scrape.
fn stored_by<S>(start: impl Fn(&Path) -> (S, String)) -> (S, [BTreeMap<String, Vec<String>>; 2]) {
    for _ in 0..5 {
        let folder = tempfile::tempdir().unwrap();
        config(folder.path());
        let (server, addr) = start(folder.path());
        if let (Some(plain), Some(native)) = (stored(&addr, "plain"), stored(&addr, "native")) {
            return (server, [plain, native]);
        }
    }
    panic!("the machine is too slow");
}

/// A Prometheus, ended when dropped.
struct Oracle(Child);

impl Drop for Oracle {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn counters_get_starts_that_nobody_tells() {
    let feature = format!("--enable-feature={FEATURES}");
    let (server, own) = stored_by(|folder| {
        let server = Server::start(folder, &["--config.file=prometheus.yml", &feature]);
        let addr = server.addr.clone();
        (server, addr)
    });
    assert!(server.log().contains("Experimental start timestamp synthesis enabled."), "{}", server.log());
    let features = server.get("/api/v1/features").json();
    assert_eq!(features["data"]["scrape"]["st-synthesis"], true, "{features}");
    drop(server);

    let [plain, native] = &own;
    let of = |name: &str| plain[&format!("{{\"__name__\":\"{name}\",\"job\":\"plain\"}}")].join(", ");
    assert_eq!(of("c_total"), "#1 5, #2 5, #3 4, #4 6, #5 20, #8 7, #11 1, #12 1");
    assert_eq!(of("h_count"), "#1 2, #2 7, #3 7, #4 7, #5 9, #7 10, #8 11, #11 2, #12 2");
    assert_eq!(of("s_sum"), "#1 5, #2 5, #3 4.5, #4 6.5, #5 20.5, #7 25.5, #8 32.5, #11 1, #12 1");
    let start = |at: usize| plain[&format!("start at #{at} of c_total {{\"job\":\"plain\"}}")][0].as_str();
    assert_eq!([1, 2, 3, 4, 5, 8, 11].map(start), ["#0", "#0", "before #3", "before #3", "1726839813016", "#7", "#10"]);
    assert!(native.keys().any(|key| key.contains("\"h\"")), "{:?}", native.keys());

    let Some(binary) = std::env::var_os("WATCHFIRE_ORACLE_PROMETHEUS") else { return };
    let (_, upstream) = stored_by(|folder| {
        let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let child = Command::new(&binary)
            .current_dir(folder)
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data", &feature])
            .arg(format!("--web.listen-address={addr}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let oracle = Oracle(child);
        let is_ready = || request(&addr, "GET", "/-/ready", &[], b"").ok().filter(|answer| answer.status == 200);
        wait_for("Prometheus", is_ready);
        (oracle, addr)
    });
    assert_eq!(own, upstream);
}
