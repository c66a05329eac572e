//! Hostile queries against a server that scrapes 200,000 series: how far scrapes slip from their schedule, what a cheap query
//! takes beside it, and what the process holds. `SERIES`, `SECONDS` and `CLIENTS` in the environment change the size.

#![allow(clippy::print_stdout, reason = "a measuring program that prints its figures")]

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const TARGETS: usize = 20;

fn size(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A target that answers `body` to everything; the times of its requests.
fn target(body: String) -> (String, Arc<Mutex<Vec<Instant>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    let arrivals = Arc::new(Mutex::new(Vec::new()));
    let (seen, body) = (Arc::clone(&arrivals), Arc::new(body));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (seen, body) = (Arc::clone(&seen), Arc::clone(&body));
            thread::spawn(move || serve(stream, &seen, &body));
        }
    });
    (address, arrivals)
}

fn serve(mut stream: TcpStream, seen: &Mutex<Vec<Instant>>, body: &str) {
    let mut head = Vec::new();
    let mut byte = [0; 4096];
    while let Ok(len @ 1..) = stream.read(&mut byte) {
        head.extend_from_slice(&byte[..len]);
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            seen.lock().expect("no panic").push(Instant::now());
            let start = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n";
            let answer = format!("{start}Content-Length: {}\r\n\r\n{body}", body.len());
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

/// Status and length of the answer, or `None` if there is none.
fn ask(address: &str, path: &str, form: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(180))).ok()?;
    let head = "HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\n";
    write!(stream, "POST {path} {head}Content-Length: {}\r\n\r\n{form}", form.len()).ok()?;
    let mut raw = Vec::new();
    stream.read_to_end(&mut raw).ok()?;
    let text = String::from_utf8_lossy(&raw[..raw.len().min(2000)]).into_owned();
    let status = text.split(' ').nth(1)?.parse().ok()?;
    Some((status, text))
}

fn encode(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

fn now_s() -> f64 {
    std::time::UNIX_EPOCH.elapsed().map_or(0.0, |since| since.as_secs_f64())
}

struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn resident_mib(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap_or(0) / 1024
    }

    fn number(&self, promql: &str) -> Option<f64> {
        let (_, text) = ask(&self.address, "/api/v1/query", &format!("query={}", encode(promql)))?;
        text.rsplit_once(",\"")?.1.split('"').next()?.parse().ok()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(series: usize, folder: &std::path::Path) -> (Server, Arc<Mutex<Vec<Instant>>>) {
    let text = |target: usize, n: usize| {
        format!("metric_{}{{handler=\"/api/v1/resource/{n}\",code=\"200\",shard=\"{target}\"}} {n}\n", n % 500)
    };
    let bodies = (0..TARGETS).map(|at| (0..series / TARGETS).map(|n| text(at, n)).collect::<String>());
    let targets: Vec<String> = bodies.map(|body| format!("'{}'", target(body).0)).collect();
    let (probe, arrivals) = target("probe 1\n".to_owned());
    let config = format!(
        "scrape_configs:\n- {{job_name: many, scrape_interval: 10s, static_configs: [{{targets: [{}]}}]}}\n\
         - {{job_name: probe, scrape_interval: 1s, static_configs: [{{targets: ['{probe}']}}]}}\n",
        targets.join(",")
    );
    fs::write(folder.join("prometheus.yml"), config).expect("a folder");
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let address = free.to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_watchfire"));
    command.current_dir(folder).args(["--config.file=prometheus.yml", &format!("--web.listen-address={address}")]);
    command.args(std::env::var("FLAGS").unwrap_or_default().split_whitespace());
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the server");
    (Server { child, address }, arrivals)
}

/// Runs an attack for some seconds, and prints what it did to the rest.
fn measure(name: &str, server: &Server, arrivals: &Mutex<Vec<Instant>>, clients: usize, path: &str, form: &str) {
    let seconds = size("SECONDS", 20) as u64;
    let (stop, peak) = (AtomicBool::new(false), Mutex::new(0));
    let (cheap, outcomes) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    arrivals.lock().expect("no panic").clear();
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let asked = Instant::now();
                    let answer = ask(&server.address, path, form).map_or((0, String::new()), |answer| answer);
                    outcomes.lock().expect("no panic").push((answer.0, asked.elapsed(), answer.1));
                }
            });
        }
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let asked = Instant::now();
                let answer = server.number("vector(42)");
                cheap.lock().expect("no panic").push((asked.elapsed(), answer == Some(42.0)));
                thread::park_timeout(Duration::from_millis(200));
            }
        });
        while began.elapsed() < Duration::from_secs(seconds) {
            let mut peak = peak.lock().expect("no panic");
            *peak = server.resident_mib().max(*peak);
            drop(peak);
            thread::park_timeout(Duration::from_millis(50));
        }
        stop.store(true, Ordering::Relaxed);
    });
    let times = arrivals.lock().expect("no panic").clone();
    let gap = times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64() - 1.0).fold(0.0, f64::max);
    let mut cheap = cheap.into_inner().expect("no panic");
    cheap.sort_unstable();
    let failed = cheap.iter().filter(|(_, is_right)| !is_right).count();
    let at = |share: usize| cheap[(cheap.len() - 1) * share / 100].0.as_secs_f64() * 1000.0;
    let outcomes = outcomes.into_inner().expect("no panic");
    let mut counts: Vec<(u16, usize)> = Vec::new();
    for (status, ..) in &outcomes {
        match counts.iter_mut().find(|(known, _)| known == status) {
            Some((_, count)) => *count += 1,
            None => counts.push((*status, 1)),
        }
    }
    println!(
        "{name:<34} slip {:>5.1} %  cheap p50 {:>7.1} ms p99 {:>7.1} ms (of {}, {failed} wrong)  peak RSS {:>5} MiB  answers {counts:?}",
        gap * 100.0,
        at(50),
        at(99),
        cheap.len(),
        peak.into_inner().expect("no panic"),
    );
    if let Some((_, took, text)) = outcomes.iter().find(|(status, ..)| *status != 200) {
        let error = text.split("\"error\":").nth(1).unwrap_or(text).chars().take(150).collect::<String>();
        println!("{:<34} refused in {:.1} s: {error}", "", took.as_secs_f64());
    }
}

fn main() {
    let series = size("SERIES", 200_000);
    let folder = std::env::temp_dir().join(format!("query-attack-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let (server, arrivals) = start(series, &folder);
    while server.number("count(scrape_samples_scraped{job=\"many\"} > 0)").is_none_or(|count| count < TARGETS as f64) {
        thread::park_timeout(Duration::from_millis(200));
    }
    thread::park_timeout(Duration::from_secs(25));
    println!("{series} series, {} MiB resident before", server.resident_mib());
    let form = |query: &str| format!("query={}&start={}&end={}&step=10", encode(query), now_s() - 40.0, now_s());
    let clients = size("CLIENTS", 100);
    let everything = "{__name__=~\".+\"}";
    let nested = (0..10).fold(everything.to_owned(), |inner, _| {
        format!("label_join({inner}, \"handler\", \"\", \"handler\", \"handler\", \"handler\", \"handler\")")
    });
    let alternation = (0..20_000).map(|n| format!("metric_{n}")).collect::<Vec<_>>().join("|");
    let run = |name: &str, clients: usize, path: &str, query: &str| {
        measure(name, &server, &arrivals, clients, path, &form(query));
    };
    run("quiet", 0, "", "");
    run("every series, ranges at once", clients, "/api/v1/query_range", everything);
    run("sums of all, ranges at once", clients, "/api/v1/query_range", "sum by (code) ({__name__=~\".+\"})");
    run("label_join, ten deep", 4, "/api/v1/query", &nested);
    run("1+1+… with 100,000 terms", 4, "/api/v1/query", &vec!["1"; 100_000].join("+"));
    let parens = format!("{}1{}", "(".repeat(100_000), ")".repeat(100_000));
    run("100,000 parentheses", 4, "/api/v1/query", &parens);
    run("alternation of 20,000", 4, "/api/v1/query", &format!("count({{__name__=~\"{alternation}\"}})"));
    run("quiet again", 0, "", "");
    let _ = fs::remove_dir_all(&folder);
}
