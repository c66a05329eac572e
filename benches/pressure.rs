//! What is promised of the head under pressure: `cargo bench --bench pressure -- KIND [--binary PATH]`.
//!
//! - `late`: processor time of a server that is written to, in order and with 30 % of the samples ten minutes late.
//! - `compaction`: a million series scraped each 15 s while heads become blocks: resident memory before and at most, late scrapes.
//! - `idle`: what a thousand idle connections hold, before their first request, after a small answer each, after one of 65 KB, and
//!   after bodies of 64 KB and 1 MB.
//! - `crowd`: how soon others are answered while 600, 5,000 and 15,000 connections of other processes are idle or half open.
//! - `append`: how long an append takes while 20 queries read all series, in the process itself.
#![allow(clippy::disallowed_methods, missing_docs, reason = "a bench")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program that prints its figures")]

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use watchfire::actors::pool::{ComputePool, Lane, PoolOptions};
use watchfire::model::append::{AppendBatch, AppendSample, SeriesKey};
use watchfire::model::clock::ManualClock;
use watchfire::model::labels::Labels;
use watchfire::model::random::Random;
use watchfire::model::time::TimestampMs;
use watchfire::promql::eval::{EngineOptions, QueryContext, evaluate_instant};
use watchfire::promql::parser::{ParseOptions, parse_expr};
use watchfire::storage::head::{Head, HeadOptions};
use watchfire::telemetry::metrics::Registry;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let mut binary = PathBuf::from(env!("CARGO_BIN_EXE_watchfire"));
    let (mut kind, mut targets) = (String::new(), 500);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--binary" => binary = args.next().unwrap_or_default().into(),
            "--targets" => targets = args.next().and_then(|n| n.parse().ok()).unwrap_or(targets),
            // Cargo says this to every bench.
            "--bench" => {}
            _ => kind = arg,
        }
    }
    match kind.as_str() {
        "late" => late(&binary),
        "compaction" => compaction(&binary, targets),
        "append" => append(),
        "idle" => idle(&binary),
        "crowd" => crowd(&binary),
        _ if kind.starts_with("hold=") => hold(&kind),
        _ => {
            println!("one of late, compaction, idle, crowd, append");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

struct Server {
    child: Child,
    addr: String,
    _folder: tempfile::TempDir,
}

impl Server {
    fn start(binary: &Path, config: &str, args: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("prometheus.yml"), config).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let addr = port.to_string();
        let mut command = Command::new(binary);
        command.current_dir(folder.path()).args(args).arg(format!("--web.listen-address={addr}"));
        command.arg("--config.file=prometheus.yml").stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let server = Self { child, addr, _folder: folder };
        while server.get("/-/ready").is_none_or(|text| !text.contains("is Ready")) {
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(&self.addr).ok()?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    }

    fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or(0.0)
    }

    /// Seconds of processor time.
    fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
        (ticks(11) + ticks(12)) / 100.0
    }

    fn resident_mib(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) / 1024.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const IDLE_CONNECTIONS: usize = 1_000;

fn idle(binary: &Path) {
    let most = (IDLE_CONNECTIONS + 100).to_string();
    let server = Server::start(binary, "{}", &["--web.max-connections", &most, "--web.enable-remote-write-receiver"]);
    let ask = |stream: &mut TcpStream, path: &str| {
        // In one piece: the system would keep the second one back until the first is confirmed.
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
        let (mut answer, mut piece) = (Vec::new(), [0; 16 << 10]);
        // Its end, be it told by a length or a last chunk.
        while !answer.ends_with(b"}\r\n0\r\n\r\n") && !answer.ends_with(b"}") && !answer.ends_with(b"Healthy.\n") {
            let len = stream.read(&mut piece).unwrap();
            assert!(0 < len, "the server closed");
            answer.extend_from_slice(&piece[..len]);
        }
        answer.len()
    };
    let large = "/api/v1/query_range?query=vector(1)&start=1700000000&end=1700003800&step=1";
    // What the server takes for any work is not the connections'.
    for _ in 0..50 {
        ask(&mut TcpStream::connect(&server.addr).unwrap(), large);
    }
    let before = server.resident_mib();
    let mut streams: Vec<TcpStream> =
        (0..IDLE_CONNECTIONS).map(|_| TcpStream::connect(&server.addr).unwrap()).collect();
    println!("open: {:.1} MB more than {before:.1} MB", (server.resident_mib() - before) * 1.048_576);
    for path in ["/-/healthy", large, large] {
        let len = streams.iter_mut().map(|stream| ask(stream, path)).max();
        let held = (server.resident_mib() - before) * 1.048_576;
        println!("after an answer of {} bytes each: {held:.1} MB", len.unwrap_or(0));
    }
    for len in [64 << 10, 1 << 20] {
        let body = vec![b'x'; len];
        streams.iter_mut().for_each(|stream| post_refused(stream, &body));
        for seconds in [0, 10] {
            std::thread::sleep(Duration::from_secs(seconds));
            let held = (server.resident_mib() - before) * 1.048_576;
            println!("{seconds} s after a body of {len} bytes each: {held:.1} MB");
        }
    }
}

/// Posts a body that is read and then found to be no good.
fn post_refused(stream: &mut TcpStream, body: &[u8]) {
    let head = format!(
        "POST /api/v1/write HTTP/1.1\r\nHost: x\r\nContent-Encoding: snappy\r\nContent-Type: application/x-protobuf\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).unwrap();
    let mut answer = [0; 4096];
    let len = stream.read(&mut answer).unwrap();
    assert!(answer[..len].starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&answer[..len]));
}

/// Connections that one process holds.
const HELD: usize = 2_500;

/// `hold=ADDRESS=COUNT`: opens connections, every other one with half a header, says so, and stays.
fn hold(kind: &str) {
    let mut parts = kind.split('=').skip(1);
    let (addr, count) = (parts.next().unwrap_or(""), parts.next().and_then(|n| n.parse().ok()).unwrap_or(0));
    let mut streams = Vec::new();
    for index in 0..count {
        let mut stream = TcpStream::connect(addr).unwrap();
        if index % 2 == 0 {
            // One that was closed meanwhile does not take it.
            let _ = stream.write_all(b"GET /api/v1/query HTTP/1.1\r\nHo");
        }
        streams.push(stream);
    }
    println!("open");
    let mut line = String::new();
    let _ = std::io::stdin().read_line(&mut line);
}

fn crowd(binary: &Path) {
    for count in [600, 5_000, 15_000] {
        let server = Server::start(binary, "{}", &[]);
        let mut holders: Vec<Child> = Vec::new();
        for begun in (0..count).step_by(HELD) {
            let kind = format!("hold={}={}", server.addr, HELD.min(count - begun));
            let mut command = Command::new(std::env::current_exe().unwrap());
            holders.push(command.arg(kind).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
        }
        let slowest = |path: &str| {
            let (mut slowest, mut all) = (0.0f64, 0.0);
            for _ in 0..50 {
                let begun = Instant::now();
                assert!(server.get(path).is_some_and(|text| text.starts_with("HTTP/1.1 200")), "{path}");
                let took = begun.elapsed().as_secs_f64() * 1e3;
                (slowest, all) = (slowest.max(took), all + took);
            }
            (slowest, all / 50.0)
        };
        let coming = slowest("/-/healthy");
        for holder in &mut holders {
            let mut line = String::new();
            BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        }
        let (health, api) = (slowest("/-/healthy"), slowest("/api/v1/query?query=up"));
        println!(
            "{count}: while they come /-/healthy at most {:.1} ms, {:.1} on average; then {:.1} and {:.1}, /api/v1/query {:.1} and {:.1}; {:.0} MB resident",
            coming.0,
            coming.1,
            health.0,
            health.1,
            api.0,
            api.1,
            server.resident_mib() * 1.048_576
        );
        for mut holder in holders {
            let _ = holder.kill();
            let _ = holder.wait();
        }
    }
}

fn varint(out: &mut Vec<u8>, mut n: u64) {
    while 0x80 <= n {
        out.push((n & 0x7f | 0x80) as u8);
        n >>= 7;
    }
    out.push(n as u8);
}

fn field(out: &mut Vec<u8>, tag: u8, value: &[u8]) {
    out.push(tag);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

const LATE_TARGETS: usize = 20;
const LATE_SERIES: usize = 500;
const LATE_STEPS: i64 = 200;

fn late(binary: &Path) {
    let mut of_order = 0.0;
    for percent in [0, 30, 0, 30] {
        let config = "storage:\n  tsdb:\n    out_of_order_time_window: 1h\n";
        let server = Server::start(binary, config, &["--web.enable-remote-write-receiver"]);
        let mut stream = TcpStream::connect(&server.addr).unwrap();
        let mut random = Random::seeded(7);
        let first = now_ms() / 15_000 * 15_000 - (LATE_STEPS + 1) * 15_000;
        let labels: Vec<Vec<u8>> =
            (0..LATE_TARGETS * LATE_SERIES).map(|n| labels_of(n / LATE_SERIES, n % LATE_SERIES)).collect();
        let mut worked = 0.0;
        for step in 0..LATE_STEPS {
            if step == 20 {
                worked = server.cpu();
            }
            for target in labels.chunks(LATE_SERIES) {
                let mut message = Vec::new();
                for (n, labels) in target.iter().enumerate() {
                    // From step 60 on, so that there is something to be older than.
                    let is_late = 60 <= step && random.below(100) < percent;
                    let t = first + step * 15_000 - if is_late { 600_000 - 3_000 } else { 0 };
                    let mut sample = vec![0x09];
                    sample.extend_from_slice(&((step * (n as i64 % 7)) as f64).to_le_bytes());
                    sample.push(0x10);
                    varint(&mut sample, t.cast_unsigned());
                    let mut series = labels.clone();
                    field(&mut series, 0x12, &sample);
                    field(&mut message, 0x0a, &series);
                }
                post(&mut stream, &snap::raw::Encoder::new().compress_vec(&message).unwrap());
            }
        }
        let cpu = server.cpu() - worked;
        let late = server.metric("prometheus_tsdb_head_out_of_order_samples_appended_total{type=\"float\"}");
        let samples = (LATE_STEPS - 20) as f64 * (LATE_TARGETS * LATE_SERIES) as f64;
        if percent == 0 {
            of_order = cpu;
        }
        let each = cpu / samples * 1e6;
        println!("{percent} % late ({late} samples): {cpu:.2} s, {each:.3} s per million, {:.2}x", cpu / of_order);
    }
}

fn labels_of(target: usize, series: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let pairs = [
        ("__name__", format!("node_metric_{}_total", series / 10)),
        ("cpu", (series % 10).to_string()),
        ("instance", format!("host-{target:04}.example.com:9100")),
        ("job", "node".to_owned()),
    ];
    for (name, value) in pairs {
        let mut label = Vec::new();
        field(&mut label, 0x0a, name.as_bytes());
        field(&mut label, 0x12, value.as_bytes());
        field(&mut out, 0x0a, &label);
    }
    out
}

fn post(stream: &mut TcpStream, body: &[u8]) {
    let head = format!(
        "POST /api/v1/write HTTP/1.1\r\nHost: x\r\nContent-Encoding: snappy\r\nContent-Type: application/x-protobuf\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    let mut answer = [0u8; 4096];
    let len = stream.read(&mut answer).unwrap();
    let text = String::from_utf8_lossy(&answer[..len]);
    assert!(text.starts_with("HTTP/1.1 204"), "{text}");
}

const COMPACTED_SERIES: usize = 2_000;

/// Serves one body, that of the second, to all targets.
fn serve_targets() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let body: Arc<Mutex<(i64, Arc<str>)>> = Arc::new(Mutex::new((0, Arc::from(""))));
    let current = move || {
        let mut body = body.lock().unwrap();
        let second = now_ms() / 1000;
        if body.0 != second {
            let mut text = String::new();
            for n in 0..COMPACTED_SERIES {
                let value = second * (n as i64 % 50) / 3;
                let _ = writeln!(text, "node_metric_{}_total{{cpu=\"{}\",mode=\"idle\"}} {value}", n / 10, n % 10);
            }
            *body = (second, Arc::from(text));
        }
        Arc::clone(&body.1)
    };
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let current = current.clone();
            std::thread::Builder::new().stack_size(128 << 10).spawn(move || answer(stream, current)).unwrap();
        }
    });
    addr
}

fn answer(stream: TcpStream, body: impl Fn() -> Arc<str>) {
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line).is_err() || line.is_empty() {
            return;
        }
        if line == "\r\n" {
            let body = body();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n", body.len());
            if writer.write_all(head.as_bytes()).and_then(|()| writer.write_all(body.as_bytes())).is_err() {
                return;
            }
        }
    }
}

fn compaction(binary: &Path, targets: usize) {
    let addr = serve_targets();
    let mut config =
        "global:\n  scrape_interval: 15s\nscrape_configs:\n- job_name: node\n  static_configs:\n".to_owned();
    for target in 0..targets {
        let _ = writeln!(config, "  - targets: ['{addr}']\n    labels: {{instance: 'host-{target:04}'}}");
    }
    let args = ["--storage.tsdb.min-block-duration=2m", "--storage.tsdb.max-block-duration=2m"];
    let server = Server::start(binary, &config, &args);
    let begun = Instant::now();
    let figure = || {
        let names =
            ["watchfire_scrapes_begun_total", "watchfire_scrapes_late_total", "watchfire_scrapes_skipped_total"];
        names.map(|name| server.metric(name))
    };
    let compactions = || server.metric("prometheus_tsdb_compactions_total");
    let (mut steady, mut peak, mut done) = (0.0f64, 0.0f64, 0.0);
    let mut from = figure();
    // The figures of each compaction are those of the time since the one before.
    while done < 3.0 && begun.elapsed() < Duration::from_secs(900) {
        std::thread::sleep(Duration::from_millis(100));
        let resident = server.resident_mib();
        peak = peak.max(resident);
        let now = if begun.elapsed().subsec_millis() < 150 { compactions() } else { done };
        if now <= done {
            // What it was a moment ago: while a block is written it rises.
            if begun.elapsed().as_secs().is_multiple_of(10) && peak <= resident {
                steady = resident;
            }
            continue;
        }
        let to = figure();
        println!(
            "compaction {now} after {:.0} s: {} series, {steady:.0} MiB before, {peak:.0} MiB at most: {:.2}x; of {} scrapes {} late, {} skipped",
            begun.elapsed().as_secs_f64(),
            server.metric("prometheus_tsdb_head_series"),
            peak / steady,
            to[0] - from[0],
            to[1] - from[1],
            to[2] - from[2],
        );
        (from, done, peak, steady) = (to, now, 0.0, resident);
    }
}

const READ_TARGETS: usize = 200;
const READ_SERIES: usize = 500;
const QUERIES: u64 = 20;

fn read_labels(target: usize, series: usize) -> Labels {
    Labels::from_pairs([
        ("__name__", "x".to_owned()),
        ("cpu", (series % 10).to_string()),
        ("instance", format!("host-{target:04}.example.com:9100")),
        ("job", "node".to_owned()),
        ("metric", (series / 10).to_string()),
    ])
}

/// Nanoseconds that this thread has waited for a core.
fn waited_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').nth(1).and_then(|field| field.parse().ok()).unwrap_or(0)
}

/// Time between appends that are due, as with so many targets that are scraped each second.
const APPEND_EVERY: Duration = Duration::from_micros(1_000_000 / READ_TARGETS as u64);

/// Where the queries run that appends are beside.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Beside {
    Nothing,
    /// On as many threads as there are cores, like all others.
    Threads,
    /// On the server's compute pool.
    Pool,
}

/// When the next append comes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Pace {
    /// When the one before it is done.
    AtOnce,
    /// When it is due; what it takes counts from there.
    Due,
}

fn query(head: &Head) {
    let expr = parse_expr("sum by (job) (rate(x[10m]))", &ParseOptions::default()).unwrap();
    let view = head.queryable().view().unwrap();
    let at = TimestampMs(1_700_000_000_000 + 59 * 15_000);
    evaluate_instant(&expr, &*view, at, &EngineOptions::default(), &QueryContext::unlimited("q")).unwrap();
}

/// How long queries run: often enough for a thousandth of the appends that are due to be more than one.
const QUERIES_FOR: Duration = Duration::from_secs(20);

/// Runs all queries where they are to run, again and again.
fn run_queries(head: &Arc<Head>, beside: Beside) {
    let began = Instant::now();
    while began.elapsed() < QUERIES_FOR {
        run_queries_once(head, beside);
    }
}

fn run_queries_once(head: &Arc<Head>, beside: Beside) {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    match beside {
        Beside::Nothing => std::thread::sleep(QUERIES_FOR),
        Beside::Threads => std::thread::scope(|scope| {
            let left = Arc::new(AtomicU64::new(QUERIES));
            for _ in 0..cores {
                let left = Arc::clone(&left);
                let take = move || left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
                scope.spawn(move || {
                    while take().is_ok() {
                        query(head)
                    }
                });
            }
        }),
        Beside::Pool => {
            let pool = ComputePool::start(PoolOptions::for_cores(cores), &Registry::default()).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(async {
                let within = tokio::time::Instant::now() + Duration::from_secs(600);
                let run = |_| {
                    let head = Arc::clone(head);
                    pool.run(Lane::Queries, within, move |_| query(&head))
                };
                futures::future::join_all((0..QUERIES).map(run)).await.into_iter().for_each(|done| done.unwrap());
            });
        }
    }
}

fn append() {
    let head =
        Arc::new(Head::new(HeadOptions { shards: 2, ..HeadOptions::new(ManualClock::at(TimestampMs(1 << 42))) }));
    let mut known: Vec<Vec<SeriesKey>> = Vec::new();
    // Times in milliseconds: in all, and without waiting for a core.
    let mut append = |target: usize, step: i64, due: Option<Instant>| {
        let sample = |series: usize| AppendSample {
            series: known
                .get(target)
                .map_or_else(|| SeriesKey::Labels(read_labels(target, series)), |keys| keys[series].clone()),
            at: TimestampMs(1_700_000_000_000 + step * 15_000),
            value: (step * (series as i64 % 37 + 1)) as f64,
        };
        let batch = AppendBatch::of_floats((0..READ_SERIES).map(sample).collect());
        let (waited, began) = (waited_ns(), Instant::now());
        let report = head.append_blocking(batch).unwrap();
        let done = Instant::now();
        let own = (done - began).as_secs_f64() * 1e3 - waited_ns().saturating_sub(waited) as f64 / 1e6;
        if known.len() == target {
            known.push(report.resolved.into_iter().map(|(_, handle)| SeriesKey::Known(handle)).collect());
        }
        ((done - due.unwrap_or(began)).as_secs_f64() * 1e3, own)
    };
    let mut step = 0;
    while step < 60 {
        for target in 0..READ_TARGETS {
            append(target, step, None);
        }
        step += 1;
    }
    for (beside, pace) in [
        (Beside::Nothing, Pace::AtOnce),
        (Beside::Threads, Pace::AtOnce),
        (Beside::Pool, Pace::AtOnce),
        (Beside::Nothing, Pace::Due),
        (Beside::Threads, Pace::Due),
        (Beside::Pool, Pace::Due),
    ] {
        let (mut walls, mut owns) = (Vec::new(), Vec::new());
        let (began, done) = (Instant::now(), AtomicBool::new(false));
        let mut took = 0.0;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                run_queries(&head, beside);
                done.store(true, Ordering::SeqCst);
            });
            let mut due = Instant::now();
            'queries: loop {
                for target in 0..READ_TARGETS {
                    if pace == Pace::Due {
                        std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    }
                    let (wall, own) = append(target, step, (pace == Pace::Due).then_some(due));
                    due = Instant::now().max(due + APPEND_EVERY);
                    if done.load(Ordering::SeqCst) {
                        took = began.elapsed().as_secs_f64();
                        break 'queries;
                    }
                    walls.push(wall);
                    owns.push(own);
                }
                step += 1;
            }
        });
        // The next case begins with all targets at the same step.
        step += 1;
        println!("{pace:?}, queries beside: {beside:?}, {took:.1} s, {} appends of {READ_SERIES} samples", walls.len());
        for (what, times) in [("in all", &mut walls), ("without waiting for a core", &mut owns)] {
            times.sort_by(f64::total_cmp);
            let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
            println!(
                "  {what}: median {:.3} ms, p99 {:.3} ms, p99.9 {:.3} ms, at most {:.3} ms",
                at(0.5),
                at(0.99),
                at(0.999),
                at(1.0)
            );
        }
    }
}
