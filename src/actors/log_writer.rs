//! The write-ahead log. Owns the thread that writes it: the actor only queues and is told. Started when storage opens.
//! Bound: its slots, each the records of one commit. Failure: restarts, the thread goes on; should the thread's own work
//! panic, it goes on in a new segment and the commits that waited fail. Shutdown: after the shards; the thread syncs what
//! is left and ends.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use actix::WrapFuture;
use actix::prelude::{Actor, ActorContext, ActorFutureExt, Handler, Message, ResponseActFuture, Supervised};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::actors::context::Context;
use crate::actors::control::{Control, Drain};
use crate::actors::kind::{Kind, Rank};
use crate::actors::mailbox::Admitted;
use crate::actors::supervision::SupervisedActor;
use crate::storage::wal::record::Record;
use crate::storage::wal::writer::{Position, Writer};

const SLOTS: u32 = 1024;

/// The kind.
pub static LOG_WRITER: Kind = Kind { name: "log_writer", rank: Rank::WRITER, slots: SLOTS };

/// What was written but not synced is synced after this long.
const SYNC_AFTER: Duration = Duration::from_secs(1);
/// Records of so many bytes are gathered for one write at most.
const GATHERED_LEN_MAX: usize = 4 << 20;

/// Write the records of one commit. Answers when they are written, or when they are synced as well, with where the log
/// ends then. No records: only tells where it ends.
#[derive(Message)]
#[rtype(result = "Result<Position, LogFailure>")]
pub struct WriteRecords {
    /// In the order in which a replay needs them.
    pub records: Vec<Record>,
    /// Whether to wait until a power cut cannot take them.
    pub durable: bool,
}

/// Why records were not written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogFailure {
    /// The disk refuses, or the records do not fit. Nothing of the commit stands in the log.
    #[error("the log was not written: {0}")]
    Refused(Arc<str>),
    /// They are written, but could not be synced.
    #[error("the log was not synced: {0}")]
    NotSynced(Arc<str>),
    /// The thread panicked over them, or has ended; they may stand in the log.
    #[error("the log's thread gave the records up")]
    Lost,
}

struct Job {
    records: Vec<Record>,
    durable: bool,
    done: oneshot::Sender<Result<Position, LogFailure>>,
}

/// The thread that writes the log. Outlives the actor's restarts.
pub struct LogThread {
    jobs: Mutex<Option<SyncSender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl LogThread {
    /// Starts the thread. Errors when the system gives none.
    pub fn start(writer: Writer) -> std::io::Result<Arc<Self>> {
        let (jobs, queue) = sync_channel(SLOTS as usize);
        let work = move || write_jobs(writer, &queue);
        let thread = std::thread::Builder::new().name("log-writer".to_owned()).spawn(work)?;
        Ok(Arc::new(Self { jobs: Mutex::new(Some(jobs)), thread: Mutex::new(Some(thread)) }))
    }

    fn submit(&self, job: Job) -> Result<(), LogFailure> {
        let jobs = self.jobs.lock();
        let Some(jobs) = jobs.as_ref() else { return Err(LogFailure::Lost) };
        jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => LogFailure::Refused("its queue is full".into()),
            TrySendError::Disconnected(_) => LogFailure::Lost,
        })
    }

    /// Lets the thread write and sync what is queued, and waits until it has ended.
    pub fn close(&self) {
        self.jobs.lock().take();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            // A panic of the thread was logged by the hook.
            let _ = thread.join();
        }
    }
}

/// The thread's work: one write for all that wait, and one sync for all that need it.
fn write_jobs(mut writer: Writer, queue: &Receiver<Job>) {
    let mut unsynced_since: Option<Instant> = None;
    loop {
        let wait = unsynced_since.map_or(SYNC_AFTER, |since| SYNC_AFTER.saturating_sub(since.elapsed()));
        let first = match queue.recv_timeout(wait) {
            Ok(job) => Some(job),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                let _ = sync(&mut writer);
                return;
            }
        };
        let mut jobs: Vec<Job> = Vec::new();
        let mut len = 0;
        for job in first.into_iter().chain(queue.try_iter()) {
            len += job.records.iter().map(|record| record.as_bytes().len()).sum::<usize>();
            jobs.push(job);
            if GATHERED_LEN_MAX <= len {
                break;
            }
        }
        let due = unsynced_since.is_some_and(|since| SYNC_AFTER <= since.elapsed());
        let worked = catch_unwind(AssertUnwindSafe(|| {
            write(&mut writer, jobs, due);
        }));
        if worked.is_err() {
            // What the panic has left of the segment is unknown: the next records go into a new one.
            if let Err(err) = writer.next_segment() {
                tracing::error!(component = "tsdb", %err, "The log cannot go on in a new segment");
            }
        }
        unsynced_since = writer.wants_sync().then(|| unsynced_since.filter(|_| !due).unwrap_or_else(Instant::now));
    }
}

fn write(writer: &mut Writer, mut jobs: Vec<Job>, due: bool) {
    let records: Vec<Record> = jobs.iter_mut().flat_map(|job| std::mem::take(&mut job.records)).collect();
    if !records.is_empty()
        && let Err(error) = writer.append(&records)
    {
        tracing::error!(component = "tsdb", err = %error, "Writing the log failed");
        let text: Arc<str> = error.to_string().into();
        for job in jobs {
            // Askers that have gone need no answer, here and below.
            let _ = job.done.send(Err(LogFailure::Refused(Arc::clone(&text))));
        }
        return;
    }
    let position = writer.position();
    let (durable, visible): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(|job| job.durable);
    for job in visible {
        let _ = job.done.send(Ok(position));
    }
    if durable.is_empty() && !due {
        return;
    }
    let synced = sync(writer).map(|()| position);
    for job in durable {
        let _ = job.done.send(synced.clone());
    }
}

fn sync(writer: &mut Writer) -> Result<(), LogFailure> {
    if !writer.wants_sync() {
        return Ok(());
    }
    writer.sync().map_err(|error| {
        tracing::error!(component = "tsdb", err = %error, "Syncing the log failed");
        LogFailure::NotSynced(error.to_string().into())
    })
}

/// The actor.
pub struct LogWriter {
    thread: Arc<LogThread>,
}

impl LogWriter {
    /// The actor of a running thread.
    pub fn new(thread: Arc<LogThread>) -> Self {
        Self { thread }
    }
}

impl Actor for LogWriter {
    type Context = Context<Self>;
}

impl Supervised for LogWriter {}

impl SupervisedActor for LogWriter {
    const KIND: &'static Kind = &LOG_WRITER;
}

impl Handler<Admitted<WriteRecords>> for LogWriter {
    type Result = ResponseActFuture<Self, Result<Position, LogFailure>>;

    fn handle(&mut self, write: Admitted<WriteRecords>, _: &mut Context<Self>) -> Self::Result {
        let (WriteRecords { records, durable }, slot) = write.into_parts();
        let (done, written) = oneshot::channel();
        let submitted = self.thread.submit(Job { records, durable, done });
        let answer = async move {
            submitted?;
            written.await.unwrap_or(Err(LogFailure::Lost))
        };
        Box::pin(answer.into_actor(self).map(move |answer, _, _| {
            drop(slot);
            answer
        }))
    }
}

impl Handler<Control<Drain>> for LogWriter {
    type Result = ();

    fn handle(&mut self, _: Control<Drain>, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}
