//! The log of queries (`global.query_log_file`): one line of JSON for each query that was evaluated, as Prometheus writes
//! it.
//!
//! No actor: each open file has a thread of its own that writes the lines, so that a disk that hangs holds no query up.
//! Bound: [`LINES_MAX`] lines and [`BYTES_MAX`] bytes wait; what comes then is dropped and counted. Failure: a write that
//! fails is counted and logged. A reload opens the file anew, which is what those who rotate it wait for. Shutdown: the
//! thread writes what waits.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use crate::actors::go_io::reason;
use crate::actors::query_gateway::{QuerySpan, QueryTimings};
use crate::model::clock::SharedClock;
use crate::model::go;
use crate::model::go_time::civil_from_days;
use crate::promql::eval::{EvalStats, StepCounts};
use crate::telemetry::metrics::{Counter, Gauge, Registry};
use crate::telemetry::repeat::{RepeatLimiter, Verdict};

const LINES_MAX: usize = 1024;
const BYTES_MAX: usize = 16 << 20;
/// How long the end of the process waits for the disk.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// Who asks a query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum QueryOrigin {
    /// Nobody that is worth a note.
    #[default]
    Unknown,
    /// A request.
    Http {
        /// The client's address without its port.
        client_ip: String,
        /// The request's method.
        method: String,
        /// The request's path.
        path: String,
    },
    /// A rule.
    Rule {
        /// The file of its group.
        file: String,
        /// The name of its group.
        group: String,
    },
}

/// What a line tells of a query.
pub(super) struct LoggedQuery<'a> {
    pub(super) text: &'a str,
    pub(super) span: QuerySpan,
    pub(super) origin: &'a QueryOrigin,
    pub(super) error: Option<String>,
    pub(super) timings: QueryTimings,
    pub(super) stats: EvalStats,
    pub(super) by_step: Option<&'a StepCounts>,
}

/// A log that is open: its thread runs until this is dropped and what waits is written.
pub struct QueryLogFile {
    lines: SyncSender<String>,
    waiting: Arc<AtomicUsize>,
    ended: parking_lot::Mutex<Receiver<()>>,
}

/// Where queries are logged, if anywhere.
pub struct QueryLog {
    file: ArcSwapOption<QueryLogFile>,
    clock: SharedClock,
    enabled: Gauge,
    failures: Counter,
}

impl QueryLogFile {
    /// Opens the file, which is made if it is not there, and starts its thread. The text is Prometheus's.
    pub fn open(path: &Path, failures: Counter, clock: SharedClock) -> Result<Arc<Self>, String> {
        let file = OpenOptions::new().append(true).create(true).open(path);
        let file =
            file.map_err(|error| format!("can't create json log file: open {}: {}", path.display(), reason(&error)))?;
        let (lines, queue) = sync_channel(LINES_MAX);
        let (ended_to, ended) = sync_channel(1);
        let waiting = Arc::new(AtomicUsize::new(0));
        let writer = Writer { file, waiting: Arc::clone(&waiting), failures, clock };
        let thread = std::thread::Builder::new().name("query-log".to_owned()).spawn(move || {
            writer.run(&queue);
            // Nobody may wait for it.
            let _ = ended_to.try_send(());
        });
        thread.map_err(|error| format!("can't start the query log's thread: {error}"))?;
        Ok(Arc::new(Self { lines, waiting, ended: parking_lot::Mutex::new(ended) }))
    }

    /// False if the line is lost because too many wait.
    fn write(&self, line: String) -> bool {
        let len = line.len();
        if BYTES_MAX < self.waiting.fetch_add(len, Ordering::Relaxed).saturating_add(len)
            || self.lines.try_send(line).is_err()
        {
            self.waiting.fetch_sub(len, Ordering::Relaxed);
            return false;
        }
        true
    }
}

impl QueryLog {
    /// No log yet.
    pub(super) fn new(registry: &Registry, clock: SharedClock) -> Self {
        let enabled = registry.gauge("prometheus_engine_query_log_enabled", "State of the query log.", &[]);
        enabled.set(0.0);
        let help = "The number of query log failures.";
        let failures = registry.counter("prometheus_engine_query_log_failures_total", help, &[]);
        Self { file: ArcSwapOption::empty(), clock, enabled, failures }
    }

    /// Opens a file that can be set later.
    pub fn open(&self, path: &Path) -> Result<Arc<QueryLogFile>, String> {
        QueryLogFile::open(path, self.failures.clone(), SharedClock::clone(&self.clock))
    }

    /// Logs to this file from now on, or nowhere.
    pub fn set(&self, file: Option<Arc<QueryLogFile>>) {
        self.enabled.set(if file.is_some() { 1.0 } else { 0.0 });
        self.file.store(file);
    }

    /// Stops to log, and waits a moment for what waits to be written.
    pub fn close(&self) {
        self.enabled.set(0.0);
        let Some(file) = self.file.swap(None) else { return };
        let Some(QueryLogFile { lines, ended, .. }) = Arc::into_inner(file) else { return };
        drop(lines);
        let _ = ended.into_inner().recv_timeout(CLOSE_WITHIN);
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.file.load().is_some()
    }

    pub(super) fn log(&self, query: &LoggedQuery<'_>) {
        let file = self.file.load();
        if let Some(file) = &*file
            && !file.write(line(query, self.clock.unix_nanos()))
        {
            self.failures.inc();
        }
    }
}

struct Writer {
    file: File,
    waiting: Arc<AtomicUsize>,
    failures: Counter,
    clock: SharedClock,
}

impl Writer {
    fn run(mut self, queue: &Receiver<String>) {
        let mut limiter = RepeatLimiter::default();
        while let Ok(mut lines) = queue.recv() {
            let mut count = 1;
            while let Some(line) = queue.try_recv().ok().filter(|_| lines.len() < BYTES_MAX) {
                lines.push_str(&line);
                count += 1;
            }
            if let Err(error) = self.file.write_all(lines.as_bytes()) {
                self.failures.add(count);
                if let Verdict::Log { repeated } = limiter.failed(&error.to_string(), self.clock.monotonic()) {
                    tracing::error!(component = "query engine", err = %error, repeated, "can't log query");
                }
            }
            self.waiting.fetch_sub(lines.len(), Ordering::Relaxed);
        }
    }
}

fn line(query: &LoggedQuery<'_>, unix_nanos: i64) -> String {
    let (start, end, step_ms) = match query.span {
        QuerySpan::Instant { at } => (at.0, at.0, 0),
        QuerySpan::Range { start, end, step_ms } => (start.0, end.0, step_ms),
    };
    let mut out = String::with_capacity(768 + query.text.len());
    let time = rfc3339_ms(unix_nanos.div_euclid(1_000_000));
    let file = file!().rsplit('/').next().unwrap_or_default();
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        "{{\"time\":\"{time}\",\"level\":\"INFO\",\"source\":\"{file}:{}\",\"msg\":\"promql query logged\",\
         \"params\":{{\"end\":\"{}\",\"query\":{},\"start\":\"{}\",\"step\":{}}}",
        line!(),
        rfc3339_ms(end),
        quoted(query.text),
        rfc3339_ms(start),
        step_ms / 1000,
    );
    if let Some(error) = &query.error {
        let _ = write!(out, ",\"error\":{}", quoted(error));
    }
    write_stats(&mut out, query, start, step_ms.max(1));
    let _ = write!(out, ",\"spanID\":\"{:016x}\",\"traceID\":\"{:032x}\"", 0, 0);
    match query.origin {
        QueryOrigin::Unknown => {}
        QueryOrigin::Http { client_ip, method, path } => {
            let (ip, method, path) = (quoted(client_ip), quoted(method), quoted(path));
            let _ = write!(out, ",\"httpRequest\":{{\"clientIP\":{ip},\"method\":{method},\"path\":{path}}}");
        }
        QueryOrigin::Rule { file, group } => {
            let _ = write!(out, ",\"ruleGroup\":{{\"file\":{},\"name\":{}}}", quoted(file), quoted(group));
        }
    }
    out.push_str("}\n");
    out
}

fn write_stats(out: &mut String, query: &LoggedQuery<'_>, start_ms: i64, step_ms: i64) {
    let QueryTimings { queue, prepare, inner_eval, sort } = query.timings;
    let seconds = |took: Duration| go::format_float_json(took.as_secs_f64());
    let _ = write!(
        out,
        ",\"stats\":{{\"timings\":{{\"evalTotalTime\":{},\"resultSortTime\":{},\"queryPreparationTime\":{},\
         \"innerEvalTime\":{},\"execQueueTime\":{},\"execTotalTime\":{}}},\"samples\":{{",
        seconds(query.timings.eval()),
        seconds(sort),
        seconds(prepare),
        seconds(inner_eval),
        seconds(queue),
        seconds(query.timings.total()),
    );
    let mut per_step = |name: &str, total: u64, counts: Option<&Vec<u64>>| {
        if let Some(counts) = counts {
            let _ = write!(out, "\"{name}PerStep\":[");
            for (step, count) in (0i64..).zip(counts) {
                let at = start_ms.saturating_add(step.saturating_mul(step_ms)) as f64 / 1000.0;
                let comma = if step == 0 { "" } else { "," };
                let _ = write!(out, "{comma}[{},{count}]", go::format_float_json(at));
            }
            out.push_str("],");
        }
        let _ = write!(out, "\"{name}\":{total},");
    };
    let steps = query.by_step;
    per_step("totalQueryableSamples", query.stats.total_samples, steps.map(|counts| &counts.total));
    per_step("samplesRead", query.stats.samples_read, steps.map(|counts| &counts.read));
    let _ = write!(out, "\"peakSamples\":{}}}}}", query.stats.peak_samples);
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A time in UTC with milliseconds.
fn rfc3339_ms(at_ms: i64) -> String {
    const DAY_MS: i64 = 86_400_000;
    let (year, month, day) = civil_from_days(at_ms.div_euclid(DAY_MS));
    let ms = at_ms.rem_euclid(DAY_MS);
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::clock::ManualClock;
    use crate::model::time::TimestampMs;

    fn logged<'a>(text: &'a str, origin: &'a QueryOrigin, error: Option<&str>) -> LoggedQuery<'a> {
        let us = Duration::from_micros;
        LoggedQuery {
            text,
            span: QuerySpan::Range { start: TimestampMs(1_500), end: TimestampMs(61_000), step_ms: 15_000 },
            origin,
            error: error.map(str::to_owned),
            timings: QueryTimings { queue: us(4), prepare: us(33), inner_eval: us(17), sort: Duration::ZERO },
            stats: EvalStats { total_samples: 5, samples_read: 3, peak_samples: 4, ..EvalStats::default() },
            by_step: None,
        }
    }

    #[test]
    fn lines_are_those_of_prometheus() {
        let origin = QueryOrigin::Rule { file: "r.yml".into(), group: "g".into() };
        let line = line(&logged("up > \"1\"", &origin, Some("no")), 1_700_000_000_123_456_789);
        let (head, rest) = line.split_once("\"source\":").unwrap();
        assert_eq!(head, "{\"time\":\"2023-11-14T22:13:20.123Z\",\"level\":\"INFO\",");
        let (_, rest) = rest.split_once(',').unwrap();
        let expected = concat!(
            r#""msg":"promql query logged","params":{"end":"1970-01-01T00:01:01.000Z","query":"up > \"1\"","#,
            r#""start":"1970-01-01T00:00:01.500Z","step":15},"error":"no","stats":{"timings":{"evalTotalTime":0.00005,"#,
            r#""resultSortTime":0,"queryPreparationTime":0.000033,"innerEvalTime":0.000017,"execQueueTime":0.000004,"#,
            r#""execTotalTime":0.000054},"samples":{"totalQueryableSamples":5,"samplesRead":3,"peakSamples":4}},"#,
            r#""spanID":"0000000000000000","traceID":"00000000000000000000000000000000","#,
            r#""ruleGroup":{"file":"r.yml","name":"g"}}"#,
            "\n"
        );
        assert_eq!(rest, expected);
        assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok());
    }

    #[test]
    fn a_log_that_is_closed_has_every_line() {
        let folder = tempfile::tempdir().unwrap();
        let log = QueryLog::new(&Registry::default(), ManualClock::at(TimestampMs(0)));
        let path = folder.path().join("q.log");
        let origin = QueryOrigin::default();
        log.log(&logged("lost", &origin, None));
        log.set(Some(log.open(&path).unwrap()));
        log.log(&logged("one", &origin, None));
        // Opened anew, as by a reload after the file was moved away.
        std::fs::rename(&path, folder.path().join("q.log.1")).unwrap();
        log.set(Some(log.open(&path).unwrap()));
        log.log(&logged("two", &origin, None));
        log.close();
        let two = std::fs::read_to_string(&path).unwrap();
        assert!(two.contains("\"query\":\"two\"") && two.lines().count() == 1, "{two}");
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let log = QueryLog::new(&Registry::default(), ManualClock::at(TimestampMs(0)));
        let error = log.open(Path::new("/nowhere/q.log")).err().unwrap();
        assert_eq!(error, "can't create json log file: open /nowhere/q.log: no such file or directory");
    }

    #[test]
    fn a_disk_that_hangs_costs_lines_and_nothing_else() {
        // Nobody takes the lines.
        let (lines, _queue) = sync_channel(LINES_MAX);
        let ended = parking_lot::Mutex::new(sync_channel(1).1);
        let file = QueryLogFile { lines, waiting: Arc::default(), ended };
        assert!((0..LINES_MAX).all(|_| file.write("x".to_owned())));
        assert!(!file.write("x".to_owned()));
        assert_eq!(file.waiting.load(Ordering::Relaxed), LINES_MAX);
        let (lines, _queue) = sync_channel(LINES_MAX);
        let file = QueryLogFile { lines, waiting: Arc::default(), ended: parking_lot::Mutex::new(sync_channel(1).1) };
        assert!(file.write("x".repeat(BYTES_MAX)) && !file.write("x".to_owned()));
    }
}
