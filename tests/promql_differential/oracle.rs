//! A running Prometheus: started on a free port, filled by remote write, asked over HTTP.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use prost::Message;
use serde_json::Value as Json;
use watchfire::model::histogram::{CounterResetHint, FloatHistogram, Span};

use crate::samples::{BLOCK, COUNT, START_MS, STEP_MS, Series, Value};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server, ended when dropped.
pub(crate) struct Oracle {
    child: Child,
    addr: String,
    connection: Option<BufReader<TcpStream>>,
    _folder: tempfile::TempDir,
}

impl Oracle {
    /// Starts the binary with the given features and waits until it is ready.
    pub(crate) fn start(binary: &Path, features: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("prometheus.yml"), "").unwrap();
        // Free a moment ago; another process could take it, and then the start fails.
        let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let log = File::create(folder.path().join("log")).unwrap();
        let child = Command::new(binary)
            .current_dir(folder.path())
            .arg("--config.file=prometheus.yml")
            .arg("--storage.tsdb.path=data")
            .arg("--storage.tsdb.retention.time=100y")
            .arg("--web.enable-remote-write-receiver")
            .arg(format!("--web.listen-address={addr}"))
            .arg(format!("--enable-feature={features}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut oracle = Self { child, addr, connection: None, _folder: folder };
        let start = Instant::now();
        while !oracle.exchange("GET", "/-/ready", &[], b"").is_ok_and(|(status, _)| status == 200) {
            assert!(start.elapsed() < PATIENCE, "Prometheus does not get ready");
            std::thread::park_timeout(Duration::from_millis(50));
        }
        oracle
    }

    /// Writes all samples, block by block.
    pub(crate) fn write(&mut self, all: &[Series]) {
        for block in 0..COUNT / BLOCK {
            let from_ms = START_MS + block * BLOCK * STEP_MS - STEP_MS / 2;
            let to_ms = from_ms + BLOCK * STEP_MS;
            let series = all.iter().map(|series| TimeSeries::of(series, from_ms, to_ms));
            let request =
                WriteRequest { series: series.filter(|s| !s.samples.is_empty() || !s.histograms.is_empty()).collect() };
            let body = snap::raw::Encoder::new().compress_vec(&request.encode_to_vec()).unwrap();
            let headers = [
                ("Content-Encoding", "snappy"),
                ("Content-Type", "application/x-protobuf"),
                ("X-Prometheus-Remote-Write-Version", "0.1.0"),
            ];
            let (status, body) = self.exchange("POST", "/api/v1/write", &headers, &body).unwrap();
            assert!(status == 204 || status == 200, "{status}: {}", String::from_utf8_lossy(&body));
        }
    }

    /// Asks an endpoint of the API with a form; the answer is JSON whatever the status.
    pub(crate) fn ask(&mut self, path: &str, form: &[(&str, String)]) -> Json {
        let pairs: Vec<String> = form.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
        let headers = [("Content-Type", "application/x-www-form-urlencoded")];
        let (_, body) = self.exchange("POST", path, &headers, pairs.join("&").as_bytes()).unwrap();
        serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&body)))
    }

    fn exchange(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<(u16, Vec<u8>)> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let stream = TcpStream::connect(&self.addr)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_nodelay(true)?;
                BufReader::new(stream)
            }
        };
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n", self.addr, body.len());
        headers.iter().for_each(|(name, value)| request.push_str(&format!("{name}: {value}\r\n")));
        request.push_str("\r\n");
        let mut bytes = request.into_bytes();
        bytes.extend_from_slice(body);
        connection.get_mut().write_all(&bytes)?;
        let answer = read_answer(&mut connection)?;
        self.connection = Some(connection);
        Ok(answer)
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn read_answer(from: &mut BufReader<TcpStream>) -> io::Result<(u16, Vec<u8>)> {
    let line = read_line(from)?;
    let status = line.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(|| bad("no status"))?;
    let (mut len, mut is_chunked) = (0, false);
    loop {
        let line = read_line(from)?.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            len = value.trim().parse().map_err(|_| bad("bad length"))?;
        }
        is_chunked |= line == "transfer-encoding: chunked";
    }
    let mut body = Vec::new();
    if !is_chunked {
        body.resize(len, 0);
        from.read_exact(&mut body)?;
        return Ok((status, body));
    }
    loop {
        let len = usize::from_str_radix(&read_line(from)?, 16).map_err(|_| bad("bad chunk"))?;
        let at = body.len();
        body.resize(at + len, 0);
        from.read_exact(&mut body[at..])?;
        read_line(from)?;
        if len == 0 {
            return Ok((status, body));
        }
    }
}

fn read_line(from: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Err(bad("the connection has been closed"));
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte))
        } else {
            encoded.push_str(&format!("%{byte:02X}"))
        }
    }
    encoded
}

/// The messages of remote write 1.0.
#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    series: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
    #[prost(message, repeated, tag = "4")]
    histograms: Vec<Histogram>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Sample {
    /// Written even if it is zero: the sign of a zero counts.
    #[prost(double, optional, tag = "1")]
    value: Option<f64>,
    #[prost(int64, tag = "2")]
    at_ms: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Histogram {
    #[prost(oneof = "Count", tags = "1, 2")]
    count: Option<Count>,
    #[prost(double, tag = "3")]
    sum: f64,
    #[prost(sint32, tag = "4")]
    schema: i32,
    #[prost(double, tag = "5")]
    zero_threshold: f64,
    #[prost(oneof = "ZeroCount", tags = "6, 7")]
    zero_count: Option<ZeroCount>,
    #[prost(message, repeated, tag = "8")]
    negative_spans: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "9")]
    negative_deltas: Vec<i64>,
    #[prost(double, repeated, tag = "10")]
    negative_counts: Vec<f64>,
    #[prost(message, repeated, tag = "11")]
    positive_spans: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "12")]
    positive_deltas: Vec<i64>,
    #[prost(double, repeated, tag = "13")]
    positive_counts: Vec<f64>,
    #[prost(int32, tag = "14")]
    reset_hint: i32,
    #[prost(int64, tag = "15")]
    at_ms: i64,
    #[prost(double, repeated, tag = "16")]
    custom_values: Vec<f64>,
}

#[derive(Clone, Copy, PartialEq, prost::Oneof)]
enum Count {
    #[prost(uint64, tag = "1")]
    Whole(u64),
    #[prost(double, tag = "2")]
    Float(f64),
}

#[derive(Clone, Copy, PartialEq, prost::Oneof)]
enum ZeroCount {
    #[prost(uint64, tag = "6")]
    Whole(u64),
    #[prost(double, tag = "7")]
    Float(f64),
}

#[derive(Clone, Copy, PartialEq, Message)]
struct BucketSpan {
    #[prost(sint32, tag = "1")]
    offset: i32,
    #[prost(uint32, tag = "2")]
    length: u32,
}

impl TimeSeries {
    fn of(series: &Series, from_ms: i64, to_ms: i64) -> Self {
        let label = |(name, value): (&str, &str)| Label { name: name.to_owned(), value: value.to_owned() };
        let mut message = Self { labels: series.labels.iter().map(label).collect(), ..Self::default() };
        for (at_ms, value) in series.samples.iter().filter(|(at_ms, _)| from_ms <= *at_ms && *at_ms < to_ms) {
            match value {
                Value::Float(value) => message.samples.push(Sample { value: Some(*value), at_ms: *at_ms }),
                Value::Histogram(h) => message.histograms.push(Histogram::of(h, *at_ms, series.is_whole)),
            }
        }
        message
    }
}

impl Histogram {
    fn of(histogram: &FloatHistogram, at_ms: i64, is_whole: bool) -> Self {
        let spans = |spans: &[Span]| spans.iter().map(|s| BucketSpan { offset: s.offset, length: s.length }).collect();
        let hint = match histogram.counter_reset_hint {
            CounterResetHint::Unknown => 0,
            CounterResetHint::Reset => 1,
            CounterResetHint::NotReset => 2,
            CounterResetHint::Gauge => 3,
        };
        let message = Self {
            sum: histogram.sum,
            schema: histogram.schema,
            zero_threshold: histogram.zero_threshold,
            negative_spans: spans(&histogram.negative_spans),
            positive_spans: spans(&histogram.positive_spans),
            reset_hint: hint,
            at_ms,
            custom_values: histogram.custom_values.clone(),
            ..Self::default()
        };
        if is_whole {
            return Self {
                count: Some(Count::Whole(histogram.count as u64)),
                zero_count: Some(ZeroCount::Whole(histogram.zero_count as u64)),
                negative_deltas: deltas(&histogram.negative_buckets),
                positive_deltas: deltas(&histogram.positive_buckets),
                ..message
            };
        }
        Self {
            count: Some(Count::Float(histogram.count)),
            zero_count: Some(ZeroCount::Float(histogram.zero_count)),
            negative_counts: histogram.negative_buckets.clone(),
            positive_counts: histogram.positive_buckets.clone(),
            ..message
        }
    }
}

fn deltas(counts: &[f64]) -> Vec<i64> {
    let mut before = 0;
    let delta = |count: &f64| {
        let count = *count as i64;
        let delta = count - before;
        before = count;
        delta
    };
    counts.iter().map(delta).collect()
}
