//! `watchfire-remote-sending`: sends by remote write from the built binary to a sink on this machine, and counts there.
//!
//! `cargo bench --bench remote_sending -- speed` lets a server gather samples for a sink that is not there yet, opens it, and tells
//! how much processor time the server takes for each sample. `… -- faults --minutes 10` writes 20,000 samples a second into a
//! server whose sink fails, asks for patience, stalls and restarts by turns, while the server is restarted and killed as well, and
//! counts what arrives, and how often. Ends with 1 if a sample is missing.
#![allow(missing_docs, reason = "a bench")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program that prints its figures")]
#![allow(clippy::disallowed_methods, reason = "its threads wait")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const HELP: &str = "watchfire-remote-sending: counts what remote write brings to a sink

  speed               processor time for each sample (the default)
  faults              a sink that fails, stalls and restarts
  --minutes N         how long to write, with faults (10)
  --rate N            samples a second, with faults (20000)
  --samples N         how many, for speed (4000000)
  --version N         of remote write, 1 or 2 (1)
  --binary PATH       the server; the one that was built with this program if not given
";
const SERIES: u64 = 2_000;
/// Samples of one request into the server.
const REQUEST: u64 = 2_000;

/// What the sink does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Mood {
    Takes,
    Fails,
    AsksForPatience,
    Stalls,
    Gone,
}

const MOODS: [Mood; 5] = [Mood::Takes, Mood::Fails, Mood::AsksForPatience, Mood::Stalls, Mood::Gone];

/// What has arrived: for each series the times, as a set of numbers of rounds, and how many came again.
#[derive(Default)]
struct Arrived {
    rounds: HashMap<u64, Vec<u64>>,
    again: u64,
}

struct Sink {
    mood: AtomicU8,
    count: AtomicU64,
    /// Whether samples are read, or only counted by the size of requests.
    reads: bool,
    version: u8,
    base_ms: u64,
    arrived: Mutex<Arrived>,
    requests: [AtomicU64; 5],
}

fn varint(rest: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    while let Some((byte, after)) = rest.split_first() {
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
        shift += 7;
    }
    value
}

/// Calls `see` with each field that has a length, and with each number.
fn fields<'a>(mut message: &'a [u8], mut see: impl FnMut(u64, Result<&'a [u8], u64>)) {
    while !message.is_empty() {
        let tag = varint(&mut message);
        match tag & 7 {
            0 => see(tag >> 3, Err(varint(&mut message))),
            1 => message = &message[8..],
            2 => {
                let len = varint(&mut message) as usize;
                see(tag >> 3, Ok(&message[..len]));
                message = &message[len..];
            }
            _ => message = &message[4..],
        }
    }
}

impl Sink {
    fn new(version: u8, reads: bool, base_ms: u64) -> Arc<Self> {
        Arc::new(Self {
            mood: AtomicU8::new(Mood::Gone as u8),
            count: AtomicU64::new(0),
            reads,
            version,
            base_ms,
            arrived: Mutex::default(),
            requests: Default::default(),
        })
    }

    fn mood(&self) -> Mood {
        MOODS[usize::from(self.mood.load(Ordering::SeqCst))]
    }

    fn set(&self, mood: Mood) {
        self.mood.store(mood as u8, Ordering::SeqCst);
    }

    /// Listens at an address that stays the same; while it is gone, connections are cut.
    fn listen(self: &Arc<Self>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let this = Arc::clone(self);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let this = Arc::clone(&this);
                std::thread::spawn(move || this.serve(stream));
            }
        });
        addr
    }

    fn serve(&self, stream: TcpStream) {
        stream.set_nodelay(true).unwrap();
        let mut reader = BufReader::with_capacity(1 << 16, stream.try_clone().unwrap());
        let mut stream = stream;
        let (mut line, mut body, mut plain) = (String::new(), Vec::new(), Vec::new());
        loop {
            let mut len = 0;
            loop {
                line.clear();
                if reader.read_line(&mut line).unwrap_or(0) == 0 {
                    return;
                }
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    len = value.trim().parse().unwrap();
                }
                if line == "\r\n" {
                    break;
                }
            }
            body.resize(len, 0);
            if reader.read_exact(&mut body).is_err() {
                return;
            }
            let mood = self.mood();
            self.requests[mood as usize].fetch_add(1, Ordering::Relaxed);
            let head = match mood {
                Mood::Takes => {
                    self.take(&body, &mut plain);
                    "204 No Content\r\nX-Prometheus-Remote-Write-Samples-Written: 2000"
                }
                Mood::Fails => "500 Internal Server Error",
                Mood::AsksForPatience => "429 Too Many Requests\r\nRetry-After: 1",
                Mood::Stalls => {
                    while self.mood() == Mood::Stalls {
                        sleep(Duration::from_millis(50));
                    }
                    return;
                }
                Mood::Gone => return,
            };
            if write!(stream, "HTTP/1.1 {head}\r\nContent-Length: 0\r\n\r\n").is_err() {
                return;
            }
        }
    }

    fn take(&self, body: &[u8], plain: &mut Vec<u8>) {
        let len = snap::raw::decompress_len(body).unwrap();
        plain.resize(len.max(plain.len()), 0);
        let len = snap::raw::Decoder::new().decompress(body, plain).unwrap();
        let (mut found, mut symbols) = (Vec::new(), Vec::new());
        let series_field = if self.version == 2 { 5 } else { 1 };
        let mut count = 0;
        fields(&plain[..len], |field, value| match value {
            Ok(text) if field == 4 && self.version == 2 && self.reads => {
                symbols.push(std::str::from_utf8(text).unwrap());
            }
            Ok(series) if field == series_field => {
                count += 1;
                if self.reads {
                    found.push(series);
                }
            }
            _ => {}
        });
        if self.reads {
            let mut arrived = self.arrived.lock().unwrap();
            for series in found {
                let (mut number, mut at) = (None, 0);
                fields(series, |field, value| match (field, value) {
                    (1, Ok(label)) if self.version == 1 => {
                        let mut pair = [""; 2];
                        fields(label, |field, text| {
                            pair[field as usize - 1] = std::str::from_utf8(text.unwrap()).unwrap();
                        });
                        if pair[0] == "n" {
                            number = pair[1].parse().ok();
                        }
                    }
                    (1, Ok(mut refs)) => {
                        while !refs.is_empty() {
                            let (name, value) = (varint(&mut refs) as usize, varint(&mut refs) as usize);
                            if symbols[name] == "n" {
                                number = symbols[value].parse().ok();
                            }
                        }
                    }
                    (2, Ok(sample)) => fields(sample, |field, value| {
                        if let (2, Err(t)) = (field, value) {
                            at = t;
                        }
                    }),
                    _ => {}
                });
                let (Some(number), round) = (number, at - self.base_ms) else { continue };
                let words = arrived.rounds.entry(number).or_default();
                let (word, bit) = ((round / 64) as usize, 1 << (round % 64));
                words.resize(words.len().max(word + 1), 0);
                let came_before = words[word] & bit != 0;
                words[word] |= bit;
                arrived.again += u64::from(came_before);
            }
        }
        self.count.fetch_add(count, Ordering::SeqCst);
    }
}

struct Server {
    child: Child,
    addr: String,
}

impl Server {
    fn start(binary: &Path, folder: &Path) -> Self {
        let mut command = Command::new(binary);
        command.current_dir(folder).args(["--config.file=prometheus.yml", "--web.enable-remote-write-receiver"]);
        // What is measured is sending, not the disk.
        command.args(["--web.listen-address=127.0.0.1:0", "--storage.tsdb.wal-sync=interval"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if line.contains("Listening on") {
                    let addr = line.split("address=").nth(1).unwrap().split(' ').next().unwrap().to_owned();
                    let _ = tell.send(addr);
                }
                if line.contains("level=ERROR") || std::env::var_os("SENDING_LOG").is_some() {
                    println!("{line}");
                }
            }
        });
        let addr = told.recv_timeout(Duration::from_secs(60)).unwrap();
        let server = Self { child, addr };
        while server.request("GET", "/-/ready", b"").is_none_or(|status| status != 200) {
            sleep(Duration::from_millis(50));
        }
        server
    }

    fn request(&self, method: &str, path: &str, body: &[u8]) -> Option<u16> {
        let mut stream = TcpStream::connect(&self.addr).ok()?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Encoding: snappy\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(body).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.split(' ').nth(1)?.parse().ok()
    }

    /// Seconds of processor time so far.
    fn cpu(&self) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let ticks = text.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2);
        ticks.map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
    }

    fn stop(mut self, signal: &str) {
        Command::new("kill").args([&format!("-{signal}"), &self.child.id().to_string()]).status().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn put(out: &mut Vec<u8>, tag: u8, value: &[u8]) {
    out.push(tag);
    let mut len = value.len();
    while 0x80 <= len {
        out.push(len as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
    out.extend_from_slice(value);
}

/// A request of version 1 with the samples of series `from` and on at one time.
fn request(from: u64, count: u64, at_ms: u64) -> Vec<u8> {
    let mut out = Vec::new();
    for n in from..from + count {
        let mut series = Vec::new();
        let number = n.to_string();
        let labels = [
            ("__name__", "node_network_receive_bytes_total"),
            ("cluster", "europe-west-production"),
            ("instance", "node-0017.example.net:9100"),
            ("job", "node"),
            ("n", number.as_str()),
            ("namespace", "monitoring"),
        ];
        for (name, value) in labels {
            let mut label = Vec::new();
            put(&mut label, 0x0a, name.as_bytes());
            put(&mut label, 0x12, value.as_bytes());
            put(&mut series, 0x0a, &label);
        }
        let mut sample = vec![0x09];
        sample.extend_from_slice(&((at_ms + n) as f64).to_le_bytes());
        sample.push(0x10);
        let mut t = at_ms;
        while 0x80 <= t {
            sample.push(t as u8 | 0x80);
            t >>= 7;
        }
        sample.push(t as u8);
        put(&mut series, 0x12, &sample);
        put(&mut out, 0x0a, &series);
    }
    snap::raw::Encoder::new().compress_vec(&out).unwrap()
}

fn configure(folder: &Path, addr: &str, version: u8) {
    let message = if version == 2 { "io.prometheus.write.v2.Request" } else { "prometheus.WriteRequest" };
    let text = format!(
        "remote_write:\n- url: http://{addr}/w\n  name: sink\n  protobuf_message: {message}\n  remote_timeout: 5s\n  \
         queue_config: {{min_backoff: 30ms, max_backoff: 1s, retry_on_http_429: true}}\n  metadata_config: {{send: false}}\n"
    );
    std::fs::write(folder.join("prometheus.yml"), text).unwrap();
}

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn speed(binary: &Path, samples: u64, version: u8) -> ExitCode {
    let folder = tempfile::tempdir().unwrap();
    let rounds = samples.div_ceil(SERIES);
    let base_ms = now_ms() - rounds;
    let sink = Sink::new(version, false, base_ms);
    configure(folder.path(), &sink.listen(), version);
    let server = Server::start(binary, folder.path());
    for round in 0..rounds {
        assert_eq!(server.request("POST", "/api/v1/write", &request(0, REQUEST, base_ms + round)), Some(204));
    }
    // The log is flushed, and the queue has read ahead what it may.
    sleep(Duration::from_secs(3));
    let (cpu, begun) = (server.cpu(), Instant::now());
    sink.set(Mood::Takes);
    while sink.count.load(Ordering::SeqCst) < rounds * SERIES {
        sleep(Duration::from_millis(20));
    }
    let (cpu, wall) = (server.cpu() - cpu, begun.elapsed().as_secs_f64());
    let all = (rounds * SERIES) as f64;
    println!(
        "remote write {version}: {all} samples, {cpu:.2} s of processor time, {wall:.2} s: {:.0} samples/s for each core",
        all / cpu
    );
    ExitCode::SUCCESS
}

fn faults(binary: &Path, minutes: f64, rate: u64, version: u8) -> ExitCode {
    let folder = tempfile::tempdir().unwrap();
    let base_ms = now_ms();
    let sink = Sink::new(version, true, base_ms);
    configure(folder.path(), &sink.listen(), version);
    let mut server = Some(Server::start(binary, folder.path()));
    let begun = Instant::now();
    let ends = Duration::from_secs_f64(minutes * 60.0);
    // Each round has one sample of each series; a round's time is its number in milliseconds.
    let (mut round, mut refused, mut step, mut stops) = (0, 0, 0, 0);
    while begun.elapsed() < ends {
        let due = Duration::from_secs_f64((round * SERIES) as f64 / rate as f64);
        sleep(due.saturating_sub(begun.elapsed()));
        // Another mood each five seconds, and each half minute the server stops, in order or not.
        let now = begun.elapsed().as_secs() / 5;
        if step < now {
            step = now;
            sink.set(MOODS[(step % 5) as usize]);
            if step % 6 == 0 {
                let signal = if step % 12 == 0 { "KILL" } else { "TERM" };
                server.take().unwrap().stop(signal);
                stops += 1;
                server = Some(Server::start(binary, folder.path()));
            }
        }
        // Time goes by its own clock: a round is written again until it is taken.
        let body = request(0, REQUEST, base_ms + round);
        while server.as_ref().unwrap().request("POST", "/api/v1/write", &body) != Some(204) {
            refused += 1;
            sleep(Duration::from_millis(100));
        }
        round += 1;
    }
    sink.set(Mood::Takes);
    let (written, since) = (round * SERIES, Instant::now());
    let missing = loop {
        let arrived = sink.arrived.lock().unwrap();
        let bits: u64 = arrived.rounds.values().flatten().map(|word| u64::from(word.count_ones())).sum();
        let (missing, again) = (written - bits.min(written), arrived.again);
        drop(arrived);
        if missing == 0 || Duration::from_secs(120) < since.elapsed() {
            println!(
                "{written} samples written in {:.0} s, {stops} stops, {refused} requests repeated",
                begun.elapsed().as_secs_f64()
            );
            println!(
                "{missing} missing, {again} came more than once; the last {:.1} s after the last was written",
                since.elapsed().as_secs_f64()
            );
            break missing;
        }
        sleep(Duration::from_millis(100));
    };
    let requests: Vec<String> =
        MOODS.iter().zip(&sink.requests).map(|(mood, n)| format!("{mood:?} {}", n.load(Ordering::Relaxed))).collect();
    println!("requests at the sink: {}", requests.join(", "));
    ExitCode::from(u8::from(0 < missing))
}

fn main() -> ExitCode {
    let (mut is_faults, mut minutes, mut rate, mut samples, mut version) = (false, 10.0, 20_000, 4_000_000, 1);
    let mut binary = PathBuf::from(env!("CARGO_BIN_EXE_watchfire"));
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_default();
        match arg.as_str() {
            "speed" => is_faults = false,
            "faults" => is_faults = true,
            "--minutes" => minutes = value().parse().unwrap(),
            "--rate" => rate = value().parse().unwrap(),
            "--samples" => samples = value().parse().unwrap(),
            "--version" => version = value().parse().unwrap(),
            "--binary" => binary = value().into(),
            // Cargo says this to every bench.
            "--bench" => {}
            _ => {
                print!("{HELP}");
                return ExitCode::from(u8::from(arg != "--help"));
            }
        }
    }
    if is_faults { faults(&binary, minutes, rate, version) } else { speed(&binary, samples, version) }
}
