//! `scrape_failure_log_file`: a line of JSON for each failed scrape, as Prometheus writes it.
//!
//! Jobs that name the same file share it. Each file has a thread of its own, so that a disk that hangs holds no scrape up.
//! Bound: [`LINES_MAX`] lines wait; what comes then is lost and counted, as are lines that cannot be written. A file that
//! was moved away is made anew, so those who rotate it need no reload.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::model::clock::{Clock as _, SystemClock};
use crate::telemetry::repeat::{RepeatLimiter, Verdict};

/// Lines that may wait for the disk.
const LINES_MAX: usize = 1024;
/// What is kept of an error.
const TEXT_LEN_MAX: usize = 8 * 1024;

/// A file with failures; its thread ends when nobody holds it any more.
pub struct FailureFile {
    path: String,
    lines: SyncSender<String>,
    lost: Arc<AtomicU64>,
}

impl FailureFile {
    /// A file that is opened when there is something to write.
    pub fn new(path: &str) -> Arc<Self> {
        let (lines, queue) = sync_channel(LINES_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let writer = Writer { path: path.to_owned(), file: None, lost: Arc::clone(&lost) };
        let thread = std::thread::Builder::new().name("scrape-failures".to_owned());
        if let Err(err) = thread.spawn(move || writer.run(&queue)) {
            tracing::error!(component = "scrape manager", %err, "can't start the thread of the scrape failure log");
        }
        Arc::new(Self { path: path.to_owned(), lines, lost })
    }

    /// Where it is.
    pub fn path(&self) -> &str {
        &self.path
    }
}

/// The log of a job.
#[derive(Clone)]
pub struct FailureLog {
    job_name: String,
    file: Arc<FailureFile>,
}

impl FailureLog {
    /// The failures of a job go to this file.
    pub fn new(job_name: &str, file: Arc<FailureFile>) -> Self {
        Self { job_name: job_name.to_owned(), file }
    }

    /// The file.
    pub fn file(&self) -> &Arc<FailureFile> {
        &self.file
    }

    /// Notes that the scrape of `target` has failed, without waiting. Answers with the number of lines that were lost since
    /// the last answer.
    pub fn write(&self, unix_nanos: i64, target: &str, error: &str) -> u64 {
        let line = line(unix_nanos, &self.job_name, target, error);
        if self.file.lines.try_send(line).is_err() {
            self.file.lost.fetch_add(1, Ordering::Relaxed);
        }
        self.file.lost.swap(0, Ordering::Relaxed)
    }
}

impl std::fmt::Debug for FailureLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("FailureLog").field(&self.file.path).finish()
    }
}

fn line(unix_nanos: i64, job_name: &str, target: &str, error: &str) -> String {
    let time = jiff::Timestamp::from_nanosecond(unix_nanos.into()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let end = (0..=TEXT_LEN_MAX.min(error.len())).rev().find(|end| error.is_char_boundary(*end)).unwrap_or(0);
    let text = |text: &str| serde_json::Value::from(text).to_string();
    format!(
        "{{\"time\":\"{time}\",\"level\":\"ERROR\",\"source\":\"failure_log.rs:{}\",\"msg\":{},\"job_name\":{},\"target\":{}}}\n",
        line!(),
        text(error.get(..end).unwrap_or("")),
        text(job_name),
        text(target),
    )
}

struct Writer {
    path: String,
    file: Option<File>,
    lost: Arc<AtomicU64>,
}

impl Writer {
    fn run(mut self, queue: &Receiver<String>) {
        let (mut limiter, clock) = (RepeatLimiter::default(), SystemClock::new());
        while let Ok(mut lines) = queue.recv() {
            let mut count = 1;
            while let Some(line) = queue.try_recv().ok().filter(|_| count < LINES_MAX as u64) {
                lines.push_str(&line);
                count += 1;
            }
            if let Err(err) = self.append(lines.as_bytes()) {
                self.lost.fetch_add(count, Ordering::Relaxed);
                self.file = None;
                if let Verdict::Log { repeated } = limiter.failed(&err.to_string(), clock.monotonic()) {
                    let path = self.path.as_str();
                    tracing::error!(component = "scrape manager", path, %err, repeated, "can't log failed scrapes");
                }
            }
        }
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if !self.file.as_ref().is_some_and(|file| self.is_in_place(file)) {
            self.file = Some(OpenOptions::new().append(true).create(true).open(&self.path)?);
        }
        self.file.as_mut().map_or(Ok(()), |file| file.write_all(lines))
    }

    /// Whether the path still leads to the file.
    fn is_in_place(&self, file: &File) -> bool {
        let (Ok(open), Ok(there)) = (file.metadata(), std::fs::metadata(&self.path)) else { return false };
        (open.dev(), open.ino()) == (there.dev(), there.ino())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn lines_are_those_of_prometheus() {
        let written = line(1_795_653_807_569_166_624, "a", "http://h/metrics", "Get \"http://h/metrics\": EOF");
        let (head, tail) = written.split_once("\"source\":").unwrap();
        assert_eq!(head, "{\"time\":\"2026-11-26T00:43:27.569166624Z\",\"level\":\"ERROR\",");
        let (_, rest) = tail.split_once(',').unwrap();
        let expected = r#""msg":"Get \"http://h/metrics\": EOF","job_name":"a","target":"http://h/metrics"}"#;
        assert_eq!(rest, format!("{expected}\n"));
        let long = line(0, "a", "t", &"é".repeat(TEXT_LEN_MAX));
        assert!(serde_json::from_str::<serde_json::Value>(&long).is_ok() && long.len() < TEXT_LEN_MAX + 200);
    }

    /// Writes until the file is there and has a line; a line may come before the file was moved.
    fn write_until(log: &FailureLog, path: &std::path::Path, text: &str) {
        let begun = Instant::now();
        while !std::fs::read_to_string(path).is_ok_and(|content| content.contains(text)) {
            assert!(begun.elapsed() < Duration::from_secs(60), "the line does not come");
            log.write(0, "t", text);
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_anew_and_a_bad_one_costs_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("later/failures.log");
        let log = FailureLog::new("a", FailureFile::new(path.to_str().unwrap()));
        let begun = Instant::now();
        while log.write(0, "t", "lost") == 0 {
            assert!(begun.elapsed() < Duration::from_secs(60), "the loss is not told");
            std::thread::yield_now();
        }
        std::fs::create_dir(folder.path().join("later")).unwrap();
        write_until(&log, &path, "one");
        std::fs::rename(&path, folder.path().join("old")).unwrap();
        write_until(&log, &path, "two");
    }
}
