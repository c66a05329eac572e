//! Hostile targets among good ones: how far the scrapes of the good ones slip, which are missed, what memory grows by, and what
//! each hostile one is said to be. Times are those at which requests arrive at the exporters, which all live in this program.
//!
//! `cargo bench --bench isolation` runs one server first with the good targets alone, then, after a reload, with the hostile ones
//! beside them. `--memory` measures what a target costs beside its series instead. The last results are in `docs/isolation.md`.
#![allow(missing_docs, reason = "a bench")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program that prints its figures")]

#[path = "isolation/crowd.rs"]
mod crowd;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crowd::{Crowd, Kind, good_host, hostile_host, now_nanos};

const HELP: &str = "isolation: hostile targets among good ones

  --targets N       targets in all (2000; 10000 with --memory)
  --hostile N       how many of them are hostile (5 of 100)
  --series N        series of a good target (30)
  --interval SECS   scrape interval (15; timeouts are 10, or the interval where that is shorter)
  --seconds SECS    length of each of the two windows (120)
  --binary PATH     the server; the one that was built with this program if not given
  --flags \"…\"       more flags for the server (--watchfire.memory-limit=1GiB)
  --panics          a kind more, at which the scrape panics; the server must be a debug build
  --memory          three runs: a tenth of the targets with ten times the series, the same with twice that, all targets
";

struct Options {
    targets: usize,
    hostile: Option<usize>,
    series: usize,
    interval: u64,
    seconds: u64,
    binary: PathBuf,
    flags: String,
    has_panics: bool,
    is_memory: bool,
}

impl Options {
    fn kinds(&self) -> &'static [Kind] {
        let count = Kind::ALL.len() - usize::from(!self.has_panics);
        Kind::ALL.split_at(count).0
    }
}

fn options() -> Option<Options> {
    let mut options = Options {
        targets: 0,
        hostile: None,
        series: 30,
        interval: 15,
        seconds: 120,
        binary: PathBuf::from(env!("CARGO_BIN_EXE_watchfire")),
        flags: "--watchfire.memory-limit=1GiB".to_owned(),
        has_panics: false,
        is_memory: false,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_default();
        match arg.as_str() {
            "--targets" => options.targets = value().parse().unwrap(),
            "--hostile" => options.hostile = Some(value().parse().unwrap()),
            "--series" => options.series = value().parse().unwrap(),
            "--interval" => options.interval = value().parse().unwrap(),
            "--seconds" => options.seconds = value().parse().unwrap(),
            "--binary" => options.binary = value().into(),
            "--flags" => options.flags = value(),
            "--panics" => options.has_panics = true,
            "--memory" => options.is_memory = true,
            // Cargo says this to every bench.
            "--bench" => {}
            _ => {
                print!("{HELP}");
                return None;
            }
        }
    }
    if options.targets == 0 {
        options.targets = if options.is_memory { 10_000 } else { 2_000 };
    }
    Some(options)
}

struct Server {
    child: Child,
    address: String,
    config: PathBuf,
}

impl Server {
    fn start(options: &Options, folder: &Path, config: &str, failpoints: &str) -> Self {
        fs::create_dir_all(folder).unwrap();
        let file = folder.join("prometheus.yml");
        fs::write(&file, config).unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap();
        let mut command = Command::new(&options.binary);
        command.current_dir(folder).args(["--config.file=prometheus.yml", &format!("--web.listen-address={free}")]);
        if options.binary.file_name().is_some_and(|name| name.to_string_lossy().starts_with("prometheus")) {
            command.arg("--storage.tsdb.path=data");
        } else {
            command.args(options.flags.split_whitespace());
        }
        // Only a debug build looks at this.
        command.env("WATCHFIRE_FAILPOINTS", failpoints);
        let log = fs::File::create(folder.join("log")).unwrap();
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let server = Self { child, address: free.to_string(), config: file };
        let deadline = Instant::now() + Duration::from_secs(60);
        while server.get("/-/ready").is_none_or(|text| !text.starts_with("HTTP/1.1 200")) {
            assert!(Instant::now() < deadline, "the server is not ready");
            thread::park_timeout(Duration::from_millis(100));
        }
        server
    }

    fn reload(&self, config: &str) {
        fs::write(&self.config, config).unwrap();
        let pid = rustix::process::Pid::from_raw(self.child.id().cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    }

    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(&self.address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
        let mut raw = Vec::new();
        stream.read_to_end(&mut raw).ok()?;
        String::from_utf8(raw).ok()
    }

    fn json(&self, path: &str) -> Option<serde_json::Value> {
        let text = self.get(path)?;
        let (head, mut body) = text.split_once("\r\n\r\n")?;
        let mut whole = String::new();
        if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
            while let Some((len, rest)) = body.split_once("\r\n") {
                let len = usize::from_str_radix(len.trim(), 16).ok()?;
                whole.push_str(rest.get(..len)?);
                body = rest.get(len + 2..)?;
            }
        } else {
            whole.push_str(body);
        }
        serde_json::from_str(&whole).ok()
    }

    /// The first value that a query gives.
    fn number(&self, promql: &str) -> f64 {
        let plain = |b: u8| b.is_ascii_alphanumeric();
        let text: String =
            promql.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect();
        let answer = self.json(&format!("/api/v1/query?query={text}"));
        let value = answer.as_ref().and_then(|answer| answer["data"]["result"][0]["value"][1].as_str());
        value.and_then(|value| value.parse().ok()).unwrap_or(0.0)
    }

    fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
        line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
    }

    fn cpu_seconds(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
        (ticks(11) + ticks(12)) / 100.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A configuration of `good` targets, and of `hostile` ones, a job for each kind.
fn config(options: &Options, crowd: &Crowd, good: usize, hostile: usize) -> String {
    let interval = options.interval;
    let mut text = format!(
        "global: {{scrape_interval: {interval}s, scrape_timeout: {}s}}\nscrape_configs:\n- job_name: good\n  static_configs:\n  - targets:\n",
        interval.min(10)
    );
    for at in 0..good {
        writeln!(text, "    - '{}:{}'", good_host(at), crowd.good_port).unwrap();
    }
    let kinds = options.kinds();
    for (number, kind) in kinds.iter().enumerate() {
        let of_kind: Vec<usize> = (0..hostile).filter(|at| at % kinds.len() == number).collect();
        if of_kind.is_empty() {
            continue;
        }
        let scheme = if *kind == Kind::TlsGarbage { "https" } else { "http" };
        writeln!(text, "- job_name: {}\n  scheme: {scheme}\n  static_configs:\n  - targets:", kind.name()).unwrap();
        for at in of_kind {
            writeln!(text, "    - '{}:{}'", hostile_host(at), crowd.hostile_port).unwrap();
        }
    }
    text
}

/// What a window of time showed.
struct Window {
    seconds: f64,
    peak_kib: u64,
    mean_kib: u64,
    cpu_seconds: f64,
    begin: u64,
    end: u64,
}

fn watch(server: &Server, seconds: u64) -> Window {
    let (began, cpu, begin) = (Instant::now(), server.cpu_seconds(), now_nanos());
    let (mut peak_kib, mut sum, mut count) = (0, 0, 0);
    while began.elapsed() < Duration::from_secs(seconds) {
        let now = server.resident_kib();
        peak_kib = peak_kib.max(now);
        sum += now;
        count += 1;
        thread::park_timeout(Duration::from_millis(50));
    }
    let seconds = began.elapsed().as_secs_f64();
    let cpu_seconds = server.cpu_seconds() - cpu;
    Window { seconds, peak_kib, mean_kib: sum / count, cpu_seconds, begin, end: now_nanos() }
}

/// How the good targets' schedule was kept.
struct Slips {
    due: usize,
    missed: usize,
    extra: usize,
    /// Nanoseconds, sorted.
    slips: Vec<u64>,
}

impl Slips {
    /// Of arrivals within the window; a target is due as long after its multiples of the interval as it ever came first.
    fn of(crowd: &Crowd, window: &Window, good: usize, interval: u64) -> Self {
        let nanos = interval * 1_000_000_000;
        let mut all = Self { due: 0, missed: 0, extra: 0, slips: Vec::new() };
        for arrivals in crowd.arrivals(good) {
            let Some(phase) = phase(&arrivals, nanos) else {
                all.missed += 1;
                continue;
            };
            // Dues that are sure to be answered within the window.
            let first = (window.begin.saturating_sub(phase)).div_ceil(nanos);
            let last = (window.end.saturating_sub(phase + nanos / 5)) / nanos;
            for number in first..=last {
                let due = phase + number * nanos;
                let mut of_due = arrivals.iter().filter(|at| (due..due + nanos).contains(at));
                all.due += 1;
                match of_due.next() {
                    None => all.missed += 1,
                    Some(at) => all.slips.push(at - due),
                }
                all.extra += of_due.count();
            }
        }
        all.slips.sort_unstable();
        all
    }

    fn at(&self, per_mille: usize) -> u64 {
        self.slips.get((self.slips.len().saturating_sub(1)) * per_mille / 1000).copied().unwrap_or(0)
    }
}

/// The earliest that a target ever came after a multiple of the interval. As times are on a circle, the largest gap ends there.
fn phase(arrivals: &[u64], nanos: u64) -> Option<u64> {
    let mut offsets: Vec<u64> = arrivals.iter().map(|at| at % nanos).collect();
    offsets.sort_unstable();
    let (first, last) = (*offsets.first()?, *offsets.last()?);
    let around = (first + nanos - last, first);
    let gaps = offsets.windows(2).map(|pair| (pair[1] - pair[0], pair[1]));
    gaps.chain([around]).max().map(|(_, at)| at)
}

fn print_window(name: &str, window: &Window, slips: &Slips, interval: u64) {
    let share = |nanos: u64| nanos as f64 / (interval as f64 * 1e7);
    let ms = |nanos: u64| nanos as f64 / 1e6;
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!(
        "{name:<22} due {:>6}  missed {:>4}  twice {:>3}  slip p50 {:>6.2} ms ({:>5.2} %)  p99 {:>7.2} ms ({:>5.2} %)  worst {:>8.2} ms ({:>5.2} %)  RSS mean {:>5} peak {:>5} MiB  CPU {:>5.1} %  load {}",
        slips.due,
        slips.missed,
        slips.extra,
        ms(slips.at(500)),
        share(slips.at(500)),
        ms(slips.at(990)),
        share(slips.at(990)),
        ms(slips.at(1000)),
        share(slips.at(1000)),
        window.mean_kib / 1024,
        window.peak_kib / 1024,
        100.0 * window.cpu_seconds / window.seconds,
        load.split(' ').next().unwrap_or("?"),
    );
}

/// Job, health and error of the targets that are not good, with how many say so.
fn reasons(server: &Server) -> BTreeMap<(String, String, String), usize> {
    let mut found = BTreeMap::new();
    let answer = server.json("/api/v1/targets?state=active").unwrap_or_default();
    for target in answer["data"]["activeTargets"].as_array().into_iter().flatten() {
        let text = |value: &serde_json::Value| value.as_str().unwrap_or("?").to_owned();
        let (job, health) = (text(&target["labels"]["job"]), text(&target["health"]));
        if job != "good" || health != "up" {
            let host = text(&target["labels"]["instance"]);
            let host = host.split(':').next().unwrap_or("?");
            let error = text(&target["lastError"]).replace(host, "HOST");
            // Numbers of ports and bytes would make a line of each.
            let error = digits_as_n(&error);
            *found.entry((job, health, error)).or_default() += 1;
        }
    }
    found
}

/// The text with `N` for each number of four digits or more.
fn digits_as_n(text: &str) -> String {
    let (mut out, mut digits) = (String::new(), String::new());
    for c in text.chars().chain(['\n']) {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        out.push_str(if digits.len() < 4 { &digits } else { "N" });
        digits.clear();
        out.push(c);
    }
    out.trim_end().to_owned()
}

fn isolation(options: &Options, folder: &Path) -> bool {
    let hostile = options.hostile.unwrap_or(options.targets / 20);
    let good = options.targets - hostile;
    let kinds = options.kinds();
    let crowd = Crowd::start(good, options.series, kinds);
    println!(
        "{good} good targets of {} series, {hostile} hostile of {} kinds, {} s interval, {}",
        options.series,
        kinds.len(),
        options.interval,
        options.flags
    );
    let panics = (0..hostile).filter(|at| kinds[at % kinds.len()] == Kind::Panic).map(|at| {
        let address = format!("{}:{}", hostile_host(at), crowd.hostile_port);
        format!("scrape_target/http://{address}/metrics.parse=panic:1000000")
    });
    let failpoints = panics.collect::<Vec<_>>().join(",");
    let server = Server::start(options, folder, &config(options, &crowd, good, 0), &failpoints);
    watch(&server, options.interval * 3);
    let quiet = watch(&server, options.seconds);
    server.reload(&config(options, &crowd, good, hostile));
    // The first scrapes of all hostile targets belong to the window.
    let loud = watch(&server, options.seconds);
    let reasons = reasons(&server);
    let (quiet_slips, loud_slips) =
        (Slips::of(&crowd, &quiet, good, options.interval), Slips::of(&crowd, &loud, good, options.interval));
    let range = options.seconds;
    let down = server.number(&format!("count(min_over_time(up{{job=\"good\"}}[{range}s]) == 0)"));
    let stored = server.number(&format!("sum(count_over_time(good_metric_0{{job=\"good\"}}[{range}s]))"));
    print_window("good ones alone", &quiet, &quiet_slips, options.interval);
    print_window("beside hostile ones", &loud, &loud_slips, options.interval);
    let growth = loud.peak_kib.saturating_sub(quiet.peak_kib) / 1024;
    println!(
        "memory grew by {growth} MiB; good targets that were down for a scrape: {down}; their scrapes stored: {stored}"
    );
    for ((job, health, error), count) in &reasons {
        println!("{count:>4} {job:<18} {health:<5} {error}");
    }
    let nanos = options.interval * 1_000_000_000;
    let told = reasons.iter().all(|((_, health, error), _)| health == "down" && !error.is_empty());
    let is_kept = loud_slips.missed == 0 && loud_slips.at(990) * 50 < nanos && loud_slips.at(1000) * 10 < nanos;
    is_kept && growth <= 256 && down == 0.0 && told
}

/// Mean memory and series of a run.
fn one_size(options: &Options, folder: &Path, targets: usize, series: usize) -> (f64, f64) {
    let crowd = Crowd::start(targets, series, options.kinds());
    let server = Server::start(options, folder, &config(options, &crowd, targets, 0), "");
    watch(&server, options.interval * 4);
    let window = watch(&server, options.seconds);
    let slips = Slips::of(&crowd, &window, targets, options.interval);
    print_window(&format!("{targets} × {series}"), &window, &slips, options.interval);
    let head = server.get("/metrics").unwrap_or_default();
    let line = head.lines().find_map(|line| line.strip_prefix("prometheus_tsdb_head_series "));
    let held = line.and_then(|text| text.trim().parse().ok()).unwrap_or(0.0);
    (window.mean_kib as f64, held)
}

fn memory(options: &Options, folder: &Path) -> bool {
    let (few, many) = (options.targets / 10, options.targets);
    let (low, low_series) = one_size(options, &folder.join("few"), few, options.series * 10);
    let (double, double_series) = one_size(options, &folder.join("double"), few, options.series * 20);
    let (high, high_series) = one_size(options, &folder.join("many"), many, options.series);
    let by_series = (double - low) / (double_series - low_series);
    let raw = (high - low) / (many - few) as f64;
    let beside = (high - low - by_series * (high_series - low_series)) / (many - few) as f64;
    println!(
        "a series takes {:.0} B; a target {raw:.1} KiB more, {beside:.1} KiB beside its series",
        by_series * 1024.0
    );
    beside <= 50.0
}

fn main() -> ExitCode {
    let Some(options) = options() else { return ExitCode::FAILURE };
    let folder = tempfile::tempdir().unwrap();
    let is_good = if options.is_memory { memory(&options, folder.path()) } else { isolation(&options, folder.path()) };
    println!("{}", if is_good { "all goals are met" } else { "NOT all goals are met" });
    ExitCode::from(u8::from(!is_good))
}
