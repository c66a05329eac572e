//! The notification log at run time: entries in memory for everybody, and the thread that owns the file. No actor: who
//! records waits for the thread's answer. Bound: 1,024 entries that wait. Failure: an entry that the file does not have
//! counts as told and not as done, and is written again by the next flush of its group. Shutdown: the thread writes what is
//! queued and rewrites the file.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::alertmanager::metrics::NflogMetrics;
use crate::alertmanager::nflog::entry::{Entry, EntryKey, MeshEntry};
use crate::alertmanager::nflog::file::NflogFile;
use crate::alertmanager::nflog::log::Log;
use crate::model::clock::SharedClock;

const WAITING_MAX: usize = 1024;
/// Entries written and synced at a time, at most.
const GATHERED_MAX: usize = 256;
/// How long an entry may take to be written: a disk that hangs must not hold a group for ever.
const RECORD_WITHIN: Duration = Duration::from_secs(30);
/// How often the file is written anew, if anything has changed.
const MAINTENANCE_EVERY: Duration = Duration::from_secs(15 * 60);

/// Why an entry is not in the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRecorded {
    /// The disk refuses.
    #[error("the notification log was not written: {0}")]
    Refused(Arc<str>),
    /// Too many wait.
    #[error("the notification log's queue is full")]
    Full,
    /// The disk does not answer. The entry may be in the file later.
    #[error("the notification log was not written in time")]
    Late,
    /// The thread does not run, or has given the entry up.
    #[error("the notification log is not open")]
    Closed,
}

struct Job {
    entry: MeshEntry,
    done: oneshot::Sender<Result<(), NotRecorded>>,
}

/// What receivers were told.
pub struct NotificationLog {
    log: Mutex<Log>,
    jobs: Mutex<Option<SyncSender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    metrics: NflogMetrics,
    clock: SharedClock,
}

impl NotificationLog {
    /// An empty log without a file.
    pub fn new(metrics: NflogMetrics, clock: SharedClock) -> Arc<Self> {
        let (log, jobs, thread) = (Mutex::default(), Mutex::default(), Mutex::default());
        Arc::new(Self { log, jobs, thread, metrics, clock })
    }

    /// Reads the file in `folder` and starts its thread; reads and writes files, so not for an actor's thread. A damaged
    /// tail is cut off, and a file that cannot be read is tried again at each entry: both are logged. Errors when the
    /// system gives no thread.
    pub fn open(self: &Arc<Self>, folder: &Path) -> std::io::Result<()> {
        let mut file = NflogFile::new(folder);
        let mut changed = false;
        match file.load() {
            Ok(loaded) => {
                if let Some(cut) = loaded.cut {
                    let (component, reason) = ("nflog", cut.reason);
                    tracing::error!(
                        component,
                        at = cut.at,
                        len = cut.len,
                        reason,
                        "The notification log's damaged tail was cut off"
                    );
                }
                changed = 0 < self.log.lock().load(loaded.entries, self.clock.unix_nanos());
            }
            Err(err) => tracing::error!(component = "nflog", %err, "The notification log cannot be read"),
        }
        let (jobs, queue) = sync_channel(WAITING_MAX);
        let work = Work { log: Arc::clone(self), file, changed, maintained: Instant::now() };
        let thread = std::thread::Builder::new().name("nflog".to_owned()).spawn(move || work.run(&queue))?;
        *self.jobs.lock() = Some(jobs);
        *self.thread.lock() = Some(thread);
        Ok(())
    }

    /// What was told last, and whether the file has it.
    pub fn lookup(&self, key: &EntryKey) -> Option<(Entry, bool)> {
        let began = self.clock.monotonic();
        let log = self.log.lock();
        let found = log.get(key).and_then(|(entry, durable)| Some((entry.entry.clone()?, durable)));
        drop(log);
        self.metrics.queried(self.clock.monotonic().saturating_sub(began));
        found
    }

    /// Notes what was told and waits until it is synced. After an error it is noted in memory alone.
    pub async fn record(&self, entry: MeshEntry) -> Result<(), NotRecorded> {
        self.log.lock().put(entry.clone());
        self.store(entry).await
    }

    /// Writes what stands in memory alone, if it still does.
    pub async fn record_again(&self, key: &EntryKey) -> Result<(), NotRecorded> {
        let entry = self.log.lock().get(key).filter(|(_, durable)| !durable).map(|(entry, _)| entry.clone());
        match entry {
            Some(entry) => self.store(entry).await,
            None => Ok(()),
        }
    }

    async fn store(&self, entry: MeshEntry) -> Result<(), NotRecorded> {
        let (done, stored) = oneshot::channel();
        self.submit(Job { entry, done })?;
        match tokio::time::timeout(RECORD_WITHIN, stored).await {
            Ok(stored) => stored.unwrap_or(Err(NotRecorded::Closed)),
            Err(_) => Err(NotRecorded::Late),
        }
    }

    fn submit(&self, job: Job) -> Result<(), NotRecorded> {
        let jobs = self.jobs.lock();
        let Some(jobs) = jobs.as_ref() else { return Err(NotRecorded::Closed) };
        jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => NotRecorded::Full,
            TrySendError::Disconnected(_) => NotRecorded::Closed,
        })
    }

    /// Lets the thread write what is queued, and waits until it has ended.
    pub fn close(&self) {
        self.jobs.lock().take();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            // A panic of the thread was logged by the hook.
            let _ = thread.join();
        }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.log.lock().len()
    }

    /// True if nobody was told anything.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The thread's side.
struct Work {
    log: Arc<NotificationLog>,
    file: NflogFile,
    /// The file differs from what a new one would hold.
    changed: bool,
    maintained: Instant,
}

impl Work {
    fn run(mut self, queue: &Receiver<Job>) {
        if self.changed {
            self.maintain();
        }
        loop {
            let wait = MAINTENANCE_EVERY.saturating_sub(self.maintained.elapsed());
            match queue.recv_timeout(wait) {
                Ok(first) => {
                    let jobs: Vec<Job> =
                        std::iter::once(first).chain(queue.try_iter().take(GATHERED_MAX - 1)).collect();
                    // Jobs whose answer a panic has taken along are answered `Closed`.
                    let _ = catch_unwind(AssertUnwindSafe(|| self.write(jobs)));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if MAINTENANCE_EVERY <= self.maintained.elapsed() {
                self.maintain();
            }
        }
        if self.changed {
            self.maintain();
        }
    }

    fn write(&mut self, jobs: Vec<Job>) {
        self.changed = true;
        let (entries, waiting): (Vec<MeshEntry>, Vec<_>) = jobs.into_iter().map(|job| (job.entry, job.done)).unzip();
        let written = self.file.append(&entries).map_err(|error| {
            tracing::error!(component = "nflog", err = %error, "Writing the notification log failed");
            NotRecorded::Refused(error.to_string().into())
        });
        if written.is_ok() {
            let mut log = self.log.log.lock();
            entries.iter().for_each(|entry| log.stored(entry));
        }
        for done in waiting {
            // Those who have gone need no answer.
            let _ = done.send(written.clone());
        }
    }

    fn maintain(&mut self) {
        self.maintained = Instant::now();
        let metrics = self.log.metrics.clone();
        metrics.maintenance.inc();
        let entries = {
            let mut log = self.log.log.lock();
            let before = log.len();
            log.expire(self.log.clock.unix_nanos());
            self.changed |= log.len() < before;
            log.all()
        };
        metrics.gc_duration.observe(self.maintained.elapsed().as_secs_f64());
        if !self.changed {
            return;
        }
        let began = Instant::now();
        match catch_unwind(AssertUnwindSafe(|| self.file.rewrite(&entries))) {
            Ok(Ok(len)) => {
                metrics.snapshot_len.set(len as f64);
                let mut log = self.log.log.lock();
                entries.iter().for_each(|entry| log.stored(entry));
                self.changed = false;
            }
            Ok(Err(err)) => {
                metrics.maintenance_errors.inc();
                tracing::error!(component = "nflog", %err, "Rewriting the notification log failed");
            }
            Err(_) => metrics.maintenance_errors.inc(),
        }
        metrics.snapshot_duration.observe(began.elapsed().as_secs_f64());
    }
}
