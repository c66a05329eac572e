//! Kill -9 again and again while several writers write: whatever was acknowledged is there after the next start, with the right
//! values, and of a request that was cut off all or nothing. Used by a test for some rounds, by `benches/torture.rs` for many.
#![allow(dead_code, unreachable_pub, reason = "each user takes its own part")]
#![allow(clippy::unwrap_used, reason = "whoever cannot go on panics")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Writers at a time.
const WRITERS: u64 = 4;
/// Samples of one request, each of a series of its own.
const SERIES: u64 = 25;
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a round has seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Round {
    /// Samples acknowledged in it.
    pub acknowledged: u64,
    /// Acknowledged samples, of this round or an earlier one, that were missing at its start.
    pub lost: u64,
    /// Samples that nobody has written, or with a wrong value.
    pub invented: u64,
    /// From the start of the process until it was ready.
    pub start: Duration,
}

/// A data directory under torture.
pub struct Torture {
    folder: PathBuf,
    binary: PathBuf,
    /// Requests acknowledged, by writer.
    acknowledged: Vec<AtomicU64>,
    /// Requests sent, by writer: one more than acknowledged after a kill, at most.
    sent: Vec<AtomicU64>,
    base_ms: u64,
    seed: u64,
}

struct Process {
    child: Child,
    addr: String,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Torture {
    /// Begins in an empty folder.
    pub fn new(folder: &Path, binary: &Path, seed: u64) -> Self {
        std::fs::write(folder.join("prometheus.yml"), "").unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let counts = || (0..WRITERS).map(|_| AtomicU64::new(0)).collect();
        let base_ms = u64::try_from(now).unwrap() - 60_000;
        Self {
            folder: folder.to_owned(),
            binary: binary.to_owned(),
            acknowledged: counts(),
            sent: counts(),
            base_ms,
            seed,
        }
    }

    /// Starts, checks what there is, writes for a random while, and kills.
    pub fn round(&mut self) -> Round {
        let (process, start) = self.start();
        let mut round = Round { start, ..Round::default() };
        self.check(&process, &mut round);
        let before: u64 = self.acknowledged.iter().map(|a| a.load(Ordering::SeqCst)).sum();
        let killed = AtomicBool::new(false);
        // Some rounds last until chunks are written, which a shard does every half second.
        let least_us = if self.draw().is_multiple_of(5) { 510_000 } else { 2_000 };
        let pause = Duration::from_micros(least_us + self.draw() % 120_000);
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (this, process, killed) = (&*self, &process, &killed);
                scope.spawn(move || this.write(process, writer, killed));
            }
            let due = Instant::now() + pause;
            while let Some(left) = due.checked_duration_since(Instant::now()) {
                std::thread::park_timeout(left);
            }
            // Without a request acknowledged there is nothing to lose.
            while self.acknowledged.iter().map(|a| a.load(Ordering::SeqCst)).sum::<u64>() == before
                && due.elapsed() < PATIENCE
            {
                std::thread::park_timeout(Duration::from_millis(1));
            }
            let pid = process.child.id().to_string();
            assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
            killed.store(true, Ordering::SeqCst);
        });
        let after: u64 = self.acknowledged.iter().map(|a| a.load(Ordering::SeqCst)).sum();
        round.acknowledged = (after - before) * SERIES;
        round
    }

    /// Starts once more and checks.
    pub fn last_check(&mut self) -> Round {
        let (process, start) = self.start();
        let mut round = Round { start, ..Round::default() };
        self.check(&process, &mut round);
        round
    }

    fn draw(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z ^ z >> 27
    }

    fn start(&self) -> (Process, Duration) {
        let begun = Instant::now();
        // Short chunks: rounds that last long enough see some of them written out.
        let args = [
            "--config.file=prometheus.yml",
            "--web.enable-remote-write-receiver",
            "--web.listen-address=127.0.0.1:0",
            "--storage.tsdb.samples-per-chunk=10",
        ];
        let mut command = Command::new(&self.binary);
        command.current_dir(&self.folder).args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let addr = line.split(" address=").nth(1).filter(|_| line.contains("Listening on"));
                if let Some(addr) = addr.and_then(|rest| rest.split(' ').next()) {
                    let _ = tell.send(addr.trim_matches('"').to_owned());
                }
            }
        });
        let addr = told.recv_timeout(PATIENCE).expect("the server listens");
        let process = Process { child, addr };
        while !matches!(get(&process.addr, "/-/ready"), Some((200, _))) {
            assert!(begun.elapsed() < PATIENCE, "the server gets ready");
            std::thread::park_timeout(Duration::from_millis(2));
        }
        (process, begun.elapsed())
    }

    fn write(&self, process: &Process, writer: u64, killed: &AtomicBool) {
        let place = usize::try_from(writer).unwrap();
        // What was sent last may be there: the same again is no fault.
        let mut n = self.acknowledged[place].load(Ordering::SeqCst) + 1;
        while !killed.load(Ordering::SeqCst) {
            self.sent[place].store(n, Ordering::SeqCst);
            let body = snap::raw::Encoder::new().compress_vec(&self.request(writer, n)).unwrap();
            match request(&process.addr, "POST", "/api/v1/write", &body) {
                Some((204, _)) => self.acknowledged[place].store(n, Ordering::SeqCst),
                Some((status, text)) => panic!("{status}: {text}"),
                None => return,
            }
            n += 1;
        }
    }

    /// Request number `n` of a writer: each series has the value `n` at the base time and `n` milliseconds.
    fn request(&self, writer: u64, n: u64) -> Vec<u8> {
        let mut out = Vec::new();
        for i in 0..SERIES {
            let mut series = Vec::new();
            for (name, value) in [("__name__", "k".to_owned()), ("i", i.to_string()), ("job", writer.to_string())] {
                let mut label = Vec::new();
                field(&mut label, 0x0a, name.as_bytes());
                field(&mut label, 0x12, value.as_bytes());
                field(&mut series, 0x0a, &label);
            }
            let mut sample = vec![0x09];
            sample.extend_from_slice(&(n as f64).to_le_bytes());
            sample.push(0x10);
            varint(&mut sample, self.base_ms + n);
            field(&mut series, 0x12, &sample);
            field(&mut out, 0x0a, &series);
        }
        out
    }

    fn check(&self, process: &Process, round: &mut Round) {
        for writer in 0..WRITERS {
            let place = usize::try_from(writer).unwrap();
            let (acknowledged, sent) =
                (self.acknowledged[place].load(Ordering::SeqCst), self.sent[place].load(Ordering::SeqCst));
            let newest_ms = self.base_ms + sent.max(acknowledged);
            let at = format!("{}.{:03}", newest_ms / 1000, newest_ms % 1000);
            let value = |query: &str| -> Vec<u64> {
                let path = format!("/api/v1/query?time={at}&query={}", encode(query));
                let (status, body) = get(&process.addr, &path).expect("an answer");
                assert_eq!(status, 200, "{body}");
                let json: serde_json::Value = serde_json::from_str(&body).unwrap();
                let found = json["data"]["result"].as_array().cloned().unwrap_or_default();
                let number = |one: &serde_json::Value| one["value"][1].as_str().unwrap().parse::<f64>().unwrap() as u64;
                found.iter().map(number).collect()
            };
            let counts = value(&format!("count_over_time(k{{job=\"{writer}\"}}[1d])"));
            let sums = value(&format!("sum_over_time(k{{job=\"{writer}\"}}[1d])"));
            if acknowledged == 0 && counts.is_empty() {
                continue;
            }
            let missing_series = SERIES - counts.len() as u64;
            round.lost += missing_series * acknowledged;
            for (count, sum) in counts.iter().zip(&sums) {
                round.lost += acknowledged.saturating_sub(*count);
                round.invented += count.saturating_sub(sent.max(acknowledged));
                // Values are their own numbers.
                round.invented += u64::from(*sum != count * (count + 1) / 2);
            }
            // A request is there whole or not at all.
            round.invented += u64::from(counts.iter().any(|count| Some(count) != counts.first()));
        }
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

fn encode(text: &str) -> String {
    let one = |b: u8| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") };
    text.bytes().map(one).collect()
}

fn get(addr: &str, path: &str) -> Option<(u16, String)> {
    request(addr, "GET", path, b"")
}

/// One request on a connection of its own; `None` if the server went away.
fn request(addr: &str, method: &str, path: &str, body: &[u8]) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(addr).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: {addr}\r\nConnection: close\r\nContent-Encoding: snappy\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let head = if body.is_empty() { head.replace("Content-Encoding: snappy\r\n", "") } else { head };
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body).ok()?;
    let mut raw = Vec::new();
    stream.read_to_end(&mut raw).ok()?;
    let end = raw.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&raw[..end]).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, String::from_utf8_lossy(&raw[end + 4..]).into_owned()))
}
