//! Logs in the shape of Prometheus's (`log/slog`): logfmt or JSON, one line per event, to stderr through a bounded writer.
//!
//! Data flow: `tracing` event → [`LogLayer`] formats it on the caller's thread → a bounded queue → one writer thread.
//! Invariant: logging never waits. When the queue is full (a stuck pipe) the line is dropped and counted, and the writer
//! says how many were lost once it gets through again.

mod format;
mod redact;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::time::{Duration, Instant};

use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::model::clock::{SharedClock, SystemClock};
use crate::model::labels::Labels;
use crate::telemetry::metrics::{Counter, MetricFamily, MetricKind, MetricValue, Registry};

pub use self::redact::cut_userinfo;

/// Lines that may wait for the writer.
const QUEUE_LEN: usize = 8192;
/// How long the end of the process waits for the last lines.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// The crates whose lines below WARN are shown; other crates' would drown ours.
const OWN_TARGET: &str = "watchfire";

/// `--log.format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// `time=… level=INFO source=… msg="…" key=value`
    #[default]
    Logfmt,
    /// One JSON object per line.
    Json,
}

/// `--log.level`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// What an operator wants to see.
    #[default]
    Info,
    /// What may need attention.
    Warn,
    /// What has gone wrong.
    Error,
}

impl LogLevel {
    fn shows(self, level: &Level) -> bool {
        let threshold = match self {
            Self::Debug => Level::DEBUG,
            Self::Info => Level::INFO,
            Self::Warn => Level::WARN,
            Self::Error => Level::ERROR,
        };
        // Levels are ordered by how much they say: ERROR is the least.
        *level <= threshold
    }
}

/// Turns events into lines and queues them.
pub struct LogLayer {
    format: LogFormat,
    level: LogLevel,
    clock: SharedClock,
    queue: SyncSender<Message>,
    dropped: Dropped,
}

/// Keeps the writer thread; dropping it waits (shortly) until the queued lines are written.
#[derive(Debug)]
pub struct LogGuard {
    queue: SyncSender<Message>,
    dropped: Dropped,
}

#[derive(Clone, Debug)]
struct Dropped {
    unreported: Arc<AtomicU64>,
    total: Counter,
}

enum Message {
    Line(String),
    Flush(Sender<()>),
}

/// Installs the process's log to stderr. Call once, before anything logs; hold the guard until the end.
/// Errors when a subscriber is installed already.
pub fn install(format: LogFormat, level: LogLevel) -> Result<LogGuard, LogError> {
    let (layer, guard) = to_writer(format, level, SystemClock::shared(), Box::new(std::io::stderr()), QUEUE_LEN)?;
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::AlreadyInstalled)?;
    Ok(guard)
}

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Something else has installed a subscriber.
    #[error("the log is already installed")]
    AlreadyInstalled,
    /// The writer thread did not start.
    #[error("cannot start the log writer")]
    Thread(#[source] std::io::Error),
}

/// A layer whose lines go to `out`; `queue_len` lines may wait. For tests and for [`install`].
pub fn to_writer(
    format: LogFormat,
    level: LogLevel,
    clock: SharedClock,
    out: Box<dyn Write + Send>,
    queue_len: usize,
) -> Result<(LogLayer, LogGuard), LogError> {
    let (queue, lines) = sync_channel(queue_len);
    let dropped = Dropped { unreported: Arc::default(), total: Counter::default() };
    let writer = Writer { format, clock: clock.clone(), out, lines, dropped: dropped.clone() };
    let thread = std::thread::Builder::new().name("log".to_owned());
    thread.spawn(move || writer.run()).map_err(LogError::Thread)?;
    let layer = LogLayer { format, level, clock, queue: queue.clone(), dropped: dropped.clone() };
    Ok((layer, LogGuard { queue, dropped }))
}

impl LogGuard {
    /// Adds `watchfire_log_lines_dropped_total` to a registry.
    pub fn register(&self, registry: &Registry) {
        let total = self.dropped.total.clone();
        registry.collect_with(move || {
            vec![MetricFamily {
                name: "watchfire_log_lines_dropped_total".to_owned(),
                help: "Log lines dropped because the log's reader did not keep up.".to_owned(),
                kind: MetricKind::Counter,
                metrics: vec![(Labels::empty(), MetricValue::Number(total.get() as f64))],
            }]
        });
    }

    /// Waits until all lines queued so far are written, at most a second. True if they are.
    pub fn flush(&self) -> bool {
        let (done, written) = channel();
        let deadline = Instant::now() + FLUSH_TIMEOUT;
        let mut request = Message::Flush(done);
        while let Err(refused) = self.queue.try_send(request) {
            let TrySendError::Full(back) = refused else { return false };
            request = back;
            if deadline <= Instant::now() {
                return false;
            }
            // Nothing arrives before the request is queued: this is a pause.
            let _ = written.recv_timeout(Duration::from_millis(5));
        }
        written.recv_timeout(FLUSH_TIMEOUT).is_ok()
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.flush();
    }
}

impl LogLayer {
    fn shows(&self, metadata: &Metadata<'_>) -> bool {
        let own = metadata.target().starts_with(OWN_TARGET);
        self.level.shows(metadata.level()) && (own || *metadata.level() <= Level::WARN)
    }
}

impl<S: Subscriber> Layer<S> for LogLayer {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.shows(metadata)
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let line = format::line(self.format, self.clock.unix_nanos(), event);
        match self.queue.try_send(Message::Line(line)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.unreported.fetch_add(1, Ordering::Relaxed);
                self.dropped.total.inc();
            }
        }
    }
}

struct Writer {
    format: LogFormat,
    clock: SharedClock,
    out: Box<dyn Write + Send>,
    lines: Receiver<Message>,
    dropped: Dropped,
}

impl Writer {
    fn run(mut self) {
        while let Ok(message) = self.lines.recv() {
            // A failed write (closed stderr) has nobody left to tell; the next line tries again.
            match message {
                Message::Line(line) => {
                    let _ = self.out.write_all(line.as_bytes());
                    self.report_dropped();
                }
                Message::Flush(done) => {
                    let _ = self.out.flush();
                    let _ = done.send(());
                }
            }
        }
    }

    fn report_dropped(&mut self) {
        let lost = self.dropped.unreported.swap(0, Ordering::Relaxed);
        if 0 < lost {
            let line = format::lost_line(self.format, self.clock.unix_nanos(), lost);
            let _ = self.out.write_all(line.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use parking_lot::Mutex;

    use super::*;
    use crate::model::clock::ManualClock;
    use crate::model::time::TimestampMs;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(data);
            Ok(data.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// One flush waits a second at most, which a busy machine may need for its threads.
    fn flush(guard: &LogGuard) {
        assert!((0..60).any(|_| guard.flush()));
    }

    fn logged(format: LogFormat, level: LogLevel, log: impl FnOnce()) -> String {
        let sink = Sink::default();
        let clock = ManualClock::at(TimestampMs(1_795_472_377_838));
        let (layer, guard) = to_writer(format, level, clock, Box::new(sink.clone()), 16).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        flush(&guard);
        let text = sink.0.lock().clone();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn logfmt_is_that_of_slog() {
        let text = logged(LogFormat::Logfmt, LogLevel::Info, || {
            let url = "http://user:pa ss@host/x";
            tracing::info!(address = "127.0.0.1:9090", count = 3, component = "web", empty = "", %url, "Start listening");
        });
        let (head, tail) = text.split_once(" source=").unwrap();
        assert_eq!(head, "time=2026-11-23T22:19:37.838Z level=INFO");
        let (source, rest) = tail.split_once(' ').unwrap();
        assert!(source.starts_with("logging.rs:"), "{source}");
        let want =
            "msg=\"Start listening\" component=web address=127.0.0.1:9090 count=3 empty=\"\" url=http://host/x\n";
        assert_eq!(rest, want);
    }

    #[test]
    fn json_is_one_object_per_line_and_escapes() {
        let text = logged(LogFormat::Json, LogLevel::Debug, || {
            tracing::debug!(n = 1.5, ok = true, "a \"quoted\"\n<line>");
        });
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["msg"], "a \"quoted\"\n<line>");
        assert_eq!((&value["level"], &value["n"], &value["ok"]), (&"DEBUG".into(), &1.5.into(), &true.into()));
        assert_eq!(text.matches('\n').count(), 1);
    }

    #[test]
    fn a_line_cannot_be_forged_by_a_value() {
        let text = logged(LogFormat::Logfmt, LogLevel::Info, || {
            tracing::info!(label = "x\ntime=1 level=ERROR msg=forged", "m");
        });
        assert_eq!(text.lines().count(), 1);
        assert!(text.contains(r#"label="x\ntime=1 level=ERROR msg=forged""#), "{text}");
    }

    #[test]
    fn levels_filter() {
        let log = || {
            tracing::debug!("d");
            tracing::info!("i");
            tracing::warn!("w");
            tracing::error!("e");
            tracing::info!(target: "hyper::client", "foreign");
        };
        for (level, want) in [(LogLevel::Debug, 4), (LogLevel::Info, 3), (LogLevel::Warn, 2), (LogLevel::Error, 1)] {
            assert_eq!(logged(LogFormat::Logfmt, level, log).lines().count(), want, "{level:?}");
        }
    }

    /// A reader that lets nothing through until told.
    struct Stuck(mpsc::Receiver<()>, Sink);

    impl Write for Stuck {
        fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
            let _ = self.0.recv();
            self.1.write(data)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_reader_stops_nobody_and_the_loss_is_told() {
        let (release, stuck) = mpsc::channel();
        let sink = Sink::default();
        let out = Box::new(Stuck(stuck, sink.clone()));
        let clock = ManualClock::at(TimestampMs(0));
        let (layer, guard) = to_writer(LogFormat::Logfmt, LogLevel::Info, clock, out, 4).unwrap();
        let registry = Registry::default();
        guard.register(&registry);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            // The queue holds 4 and the writer at most one more.
            (0..100).for_each(|n| tracing::info!(n, "line"));
        });
        let lost = guard.dropped.total.get();
        assert!((95..=96).contains(&lost), "{lost}");
        drop(release);
        flush(&guard);
        let text = String::from_utf8(sink.0.lock().clone()).unwrap();
        assert!(text.contains(&format!("dropped={lost}")), "{text}");
        assert_eq!(registry.gather()[0].name, "watchfire_log_lines_dropped_total");
    }
}
