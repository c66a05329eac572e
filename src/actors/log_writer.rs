//! The write-ahead log. Owns the thread that writes it: the actor only queues and is told. Scrapes write small records
//! themselves where nobody else is at it (`here`). Started when storage opens.
//! Bound: its slots, each the records of one commit. Failure: restarts, the thread goes on and answers those that wait;
//! should the thread's own work panic, commits that it has not answered are taken back from the log and fail, it goes on
//! in a new segment, and the actor counts the panic as its own. Shutdown: after the shards; the thread syncs what is left
//! and ends.

mod here;
mod way;
mod work;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use actix::WrapFuture;
use actix::prelude::{Actor, ActorContext, AsyncContext, Handler, Message, Supervised};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};

use crate::actors::context::Context;
use crate::actors::control::{Control, Drain};
use crate::actors::kind::{Kind, Rank};
use crate::actors::mailbox::{Admitted, BoundedAddr, Lent, SendError, Serves, Slot};
use crate::actors::supervision::SupervisedActor;
use crate::storage::wal::WalError;
use crate::storage::wal::checkpoint::CheckpointJob;
use crate::storage::wal::record::LogRecords;
use crate::storage::wal::writer::{Position, Writer};
use crate::storage::wbl::LateLog;
pub use here::AtOnce;
pub use way::LogWay;
use work::{Waiters, Work};

const SLOTS: u32 = 1024;

/// The kind.
pub static LOG_WRITER: Kind = Kind { name: "log_writer", rank: Rank::WRITER, slots: SLOTS };

/// Whether records are synced before whoever wants that is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMode {
    /// Yes; the others' within a second.
    Commit,
    /// No; all within a second.
    Interval,
    /// Only whole segments, and what is left at an orderly end.
    Off,
}

/// Write the records of one commit, as [`write`] asks for it.
#[derive(Message)]
#[rtype(result = "()")]
pub struct WriteRecords {
    /// In the order in which a replay needs them.
    records: LogRecords,
    /// Answered when a power cut cannot take them any more; given only by those who wait for that.
    synced: Option<oneshot::Sender<Result<(), LogFailure>>>,
    /// Answered by the thread, whatever becomes of the actor; dropped if nothing was written.
    done: oneshot::Sender<Result<Position, LogFailure>>,
    /// Of a write that was announced.
    announced: Option<Announced>,
    /// Of a write that may not be overtaken.
    by_actor: Option<way::ByActor>,
}

/// Durable writes that were announced and are not in the log yet: a sync waits for them for a moment, so that one sync
/// serves many.
#[derive(Debug, Default)]
pub struct Announcements(AtomicUsize);

/// A durable write that is to come; it counts until this is dropped.
#[derive(Debug)]
pub struct Announced(Arc<Announcements>);

impl Announcements {
    /// Announces a write.
    pub fn announce(self: &Arc<Self>) -> Announced {
        self.0.fetch_add(1, Ordering::Relaxed);
        Announced(Arc::clone(self))
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The end of a sync, to be waited for after what was written has been applied.
#[derive(Debug)]
pub struct Synced(oneshot::Receiver<Result<(), LogFailure>>);

impl Synced {
    /// Returns when a power cut cannot take the records any more, or as soon as `--storage.tsdb.wal-sync` allows. After an
    /// error they are in the log, and may be lost by a power cut.
    pub async fn wait(self) -> Result<(), LogFailure> {
        self.0.await.unwrap_or(Err(LogFailure::Lost))
    }
}

/// End the current segment and plan a checkpoint, as [`plan_checkpoint`] asks for it.
#[derive(Message)]
#[rtype(result = "()")]
pub struct PlanCheckpoint {
    done: oneshot::Sender<Result<Option<CheckpointJob>, WalError>>,
}

/// End what was written of the log of late samples, as [`cut_late`] asks for it.
#[derive(Message)]
#[rtype(result = "()")]
pub struct CutLate {
    done: oneshot::Sender<Result<Option<u64>, WalError>>,
}

/// Has the records of one commit written, and synced if `durable`; returns where the log ends then. No records: only tells
/// where it ends. Waits for a slot no longer than `within`, and then as long as the thread takes: what it does not answer
/// may still be written. After an error nothing of the commit stands in the log, unless it was only not synced.
pub async fn write(
    writer: &BoundedAddr<LogWriter>,
    records: impl Into<LogRecords>,
    durable: bool,
    within: Duration,
) -> Result<Position, LogFailure> {
    let records = records.into();
    if durable {
        let (position, synced) = write_announced(writer, records, None, within).await?;
        return synced.wait().await.map(|()| position);
    }
    let (done, written) = oneshot::channel();
    submit(writer, WriteRecords { records, synced: None, done, announced: None, by_actor: None }, within).await?;
    written.await.unwrap_or(Err(LogFailure::Lost))
}

/// As [`write`] of durable records, but returns when they are written: the sync begins then, and the caller has time to
/// apply them before it waits for its end.
pub async fn write_announced(
    writer: &BoundedAddr<LogWriter>,
    records: LogRecords,
    announced: Option<Announced>,
    within: Duration,
) -> Result<(Position, Synced), LogFailure> {
    let (done, written) = oneshot::channel();
    let (synced, sync) = oneshot::channel();
    submit(writer, WriteRecords { records, synced: Some(synced), done, announced, by_actor: None }, within).await?;
    let position = written.await.unwrap_or(Err(LogFailure::Lost))?;
    Ok((position, Synced(sync)))
}

/// Has the actor pass an order on. After an error nothing is or will be done; else the order's own channel tells, also when
/// the actor has panicked over it.
async fn submit<M>(writer: &BoundedAddr<LogWriter>, order: M, within: Duration) -> Result<(), LogFailure>
where
    LogWriter: Serves<M>,
    M: Message<Result = ()> + Send + 'static,
{
    match writer.ask(order, tokio::time::Instant::now() + within).await {
        Err(error) if !error.may_have_happened() => Err(LogFailure::NotAsked(error)),
        _ => Ok(()),
    }
}

/// Ends the current segment and plans a checkpoint of those before; `None` if there are too few.
pub async fn plan_checkpoint(
    writer: &BoundedAddr<LogWriter>,
    within: Duration,
) -> Result<Option<CheckpointJob>, LogFailure> {
    let (done, planned) = oneshot::channel();
    submit(writer, PlanCheckpoint { done }, within).await?;
    match planned.await {
        Ok(planned) => planned.map_err(|error| LogFailure::Refused(error.to_string().into())),
        Err(_) => Err(LogFailure::Lost),
    }
}

/// Parts the log of late samples: those of commits to come stand in the segment whose number is returned, or behind it. `None`
/// if there is no such log.
pub async fn cut_late(writer: &BoundedAddr<LogWriter>, within: Duration) -> Result<Option<u64>, LogFailure> {
    let (done, cut) = oneshot::channel();
    submit(writer, CutLate { done }, within).await?;
    match cut.await {
        Ok(cut) => cut.map_err(|error| LogFailure::Refused(error.to_string().into())),
        Err(_) => Err(LogFailure::Lost),
    }
}

/// Why records were not written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogFailure {
    /// The actor did not take them.
    #[error("the log was not written: {0}")]
    NotAsked(#[source] SendError),
    /// The disk refuses, or the records do not fit.
    #[error("the log was not written: {0}")]
    Refused(Arc<str>),
    /// They are written, but could not be synced.
    #[error("the log was not synced: {0}")]
    NotSynced(Arc<str>),
    /// The thread panicked over them, or has ended.
    #[error("the log's thread gave the records up")]
    Lost,
}

struct Job {
    records: LogRecords,
    synced: Option<oneshot::Sender<Result<(), LogFailure>>>,
    done: oneshot::Sender<Result<Position, LogFailure>>,
    announced: Option<Announced>,
    /// The message's, until the thread is done.
    _slot: Option<Slot>,
    /// The same of records that were given to the thread itself.
    _lent: Option<Lent>,
}

enum Order {
    Write(Job),
    Plan(oneshot::Sender<Result<Option<CheckpointJob>, WalError>>),
    CutLate(oneshot::Sender<Result<Option<u64>, WalError>>),
}

/// Panics of the thread that the actor has not taken for its own yet.
#[derive(Default)]
struct Panics {
    texts: Mutex<Vec<String>>,
    bell: Notify,
}

impl Panics {
    fn tell(&self, text: String) {
        self.texts.lock().push(text);
        self.bell.notify_one();
    }

    async fn next(&self) -> String {
        loop {
            if let Some(text) = self.texts.lock().pop() {
                return text;
            }
            self.bell.notified().await;
        }
    }
}

/// Whether the disk takes the log.
#[derive(Default)]
pub struct LogHealth {
    refusing: Mutex<Option<Arc<str>>>,
}

impl LogHealth {
    /// Why samples are refused now.
    pub fn refusing(&self) -> Option<Arc<str>> {
        self.refusing.lock().clone()
    }
}

/// What the thread has in common with those who write beside it.
struct Shared {
    work: Mutex<Work>,
    /// Orders that were left to the thread and are not done: nobody writes before them.
    queued: AtomicUsize,
}

/// The thread that writes the log. Outlives the actor's restarts.
pub struct LogThread {
    orders: Mutex<Option<SyncSender<Order>>>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<Option<Position>>>>,
    panics: Arc<Panics>,
    announcements: Arc<Announcements>,
    written: watch::Receiver<Position>,
    health: Arc<LogHealth>,
}

impl LogThread {
    /// Starts the thread, which takes no late samples. Errors when the system gives none.
    pub fn start(writer: Writer, mode: SyncMode) -> std::io::Result<Arc<Self>> {
        Self::start_with(writer, None, mode)
    }

    /// The same with a log of late samples.
    pub fn start_with(writer: Writer, late: Option<LateLog>, mode: SyncMode) -> std::io::Result<Arc<Self>> {
        let (orders, queue) = sync_channel(SLOTS as usize + 1);
        let panics = Arc::<Panics>::default();
        let for_thread = Arc::clone(&panics);
        let announcements = Arc::<Announcements>::default();
        let expected = Arc::clone(&announcements);
        let (told, written) = watch::channel(writer.position());
        let health = Arc::<LogHealth>::default();
        let for_work = Arc::clone(&health);
        let work = Work {
            writer,
            late,
            mode,
            unsynced_since: None,
            panics: for_thread,
            waiters: Waiters::default(),
            expected,
            told,
            health: for_work,
            slow_until: None,
            refused_len: 0,
            has_ended: false,
        };
        let shared = Arc::new(Shared { work: Mutex::new(work), queued: AtomicUsize::new(0) });
        let of_thread = Arc::clone(&shared);
        let run = move || of_thread.run(&queue);
        let thread = std::thread::Builder::new().name("log-writer".to_owned()).spawn(run)?;
        let (orders, thread) = (Mutex::new(Some(orders)), Mutex::new(Some(thread)));
        Ok(Arc::new(Self { orders, shared, thread, panics, announcements, written, health }))
    }

    /// Up to where the log holds whole records that are not taken back any more, for those who read along.
    pub fn written(&self) -> watch::Receiver<Position> {
        self.written.clone()
    }

    /// Where durable writes are announced.
    pub fn announcements(&self) -> Arc<Announcements> {
        Arc::clone(&self.announcements)
    }

    /// Whether the disk takes the log.
    pub fn health(&self) -> Arc<LogHealth> {
        Arc::clone(&self.health)
    }

    /// Leaves an order to the thread; one that it cannot take is answered.
    fn submit(&self, order: Order) {
        let refused = match self.orders.lock().as_ref() {
            Some(orders) => {
                self.shared.queued.fetch_add(1, Ordering::AcqRel);
                let sent = orders.try_send(order);
                if sent.is_err() {
                    self.shared.queued.fetch_sub(1, Ordering::AcqRel);
                }
                sent
            }
            None => return,
        };
        // A plan is made another time.
        if let Err(TrySendError::Full(Order::Write(job))) = refused {
            let _ = job.done.send(Err(LogFailure::Refused("its queue is full".into())));
        }
    }

    /// Lets the thread write and sync what is queued, and waits until it has ended. Returns where the log ends, if all of it is
    /// on the disk.
    pub fn close(&self) -> Option<Position> {
        self.orders.lock().take();
        let thread = self.thread.lock().take();
        // A panic of the thread was logged by the hook.
        thread.and_then(|thread| thread.join().ok().flatten())
    }
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

    /// A panic of the thread restarts the actor as if it were its own, so that it shows and counts.
    fn started(&mut self, ctx: &mut Self::Context) {
        let panics = Arc::clone(&self.thread.panics);
        let follow = async move {
            let text = panics.next().await;
            panic!("the log's thread panicked: {text}");
        };
        ctx.spawn(follow.into_actor(self));
    }
}

impl Supervised for LogWriter {}

impl SupervisedActor for LogWriter {
    const KIND: &'static Kind = &LOG_WRITER;
}

impl Handler<Admitted<WriteRecords>> for LogWriter {
    type Result = ();

    fn handle(&mut self, write: Admitted<WriteRecords>, _: &mut Context<Self>) {
        let (WriteRecords { records, synced, done, announced, by_actor }, slot) = write.into_parts();
        self.thread.submit(Order::Write(Job { records, synced, done, announced, _slot: Some(slot), _lent: None }));
        drop(by_actor);
    }
}

impl Handler<Admitted<PlanCheckpoint>> for LogWriter {
    type Result = ();

    fn handle(&mut self, plan: Admitted<PlanCheckpoint>, _: &mut Context<Self>) {
        let (plan, _slot) = plan.into_parts();
        self.thread.submit(Order::Plan(plan.done));
    }
}

impl Handler<Admitted<CutLate>> for LogWriter {
    type Result = ();

    fn handle(&mut self, cut: Admitted<CutLate>, _: &mut Context<Self>) {
        let (cut, _slot) = cut.into_parts();
        self.thread.submit(Order::CutLate(cut.done));
    }
}

impl Handler<Control<Drain>> for LogWriter {
    type Result = ();

    fn handle(&mut self, _: Control<Drain>, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}
