//! One destination of remote write. Owns the reading of the log for it, and the sending. What is read, waits and is under
//! way outlives it in [`QueueDeps`]. Started by the remote write manager. Bound: `queue_config` says how many items may
//! wait; while they do, the log is not read on. Failure: restarts and goes on with what waits; what was under way is sent
//! again. Shutdown: sends what the log has until the deadline, and writes down how far it is.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix::prelude::{Actor, ActorContext, AsyncContext, Handler, Message, Supervised};
use actix::{ActorFutureExt, WrapFuture};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::actors::context::Context;
use crate::actors::control::{Control, Drain};
use crate::actors::kind::{Kind, Rank};
use crate::actors::mailbox::Admitted;
use crate::actors::policy::Policy;
use crate::actors::pool::ComputePool;
use crate::actors::supervision::SupervisedActor;
use crate::client::HttpClient;
use crate::config::RemoteWriteConfig;
use crate::model::clock::SharedClock;
use crate::remote::send::encode::Description;
use crate::remote::send::metrics::{Intake, QueueMetrics};
use crate::remote::send::post::Endpoint;
use crate::remote::send::queue::Flight;
use crate::remote::send::reader::LogReader;
use crate::remote::send::spec::Destination;
use crate::storage::wal::cursor::{Cursor, Place};
use crate::storage::wal::segments::LogFiles;
use crate::storage::wal::writer::Position;
use crate::telemetry::metrics::Registry;
use crate::telemetry::repeat::{RepeatLimiter, Verdict};

mod sending;
mod work;

/// The kind.
pub static REMOTE_WRITE_QUEUE: Kind = Kind { name: "remote_write_queue", rank: Rank::MANAGER.below(1), slots: 4 };

/// Folder of the cursors in the data directory.
pub const CURSOR_DIR: &str = "remote-write";
/// So long before the end of a drain a queue gives up, so that it ends in time.
const GIVE_UP_BEFORE: Duration = Duration::from_millis(500);

/// The log as those see it who read along.
pub struct RemoteLog {
    /// Its files.
    pub files: LogFiles,
    /// The data directory.
    pub data_dir: PathBuf,
    /// Up to where it is written.
    pub written: watch::Receiver<Position>,
}

/// What all targets say of their metrics.
pub type Descriptions = Box<dyn Fn() -> Vec<Description> + Send + Sync>;
/// Makes the client of a destination.
pub type Clients = Box<dyn Fn(&RemoteWriteConfig) -> HttpClient + Send + Sync>;

/// What all queues of the process share.
pub struct QueueRuntime {
    /// Where the log is read and requests are encoded.
    pub pool: Arc<ComputePool>,
    /// Time.
    pub clock: SharedClock,
    /// For metrics.
    pub registry: Arc<Registry>,
    /// The log, once it is open.
    pub log: Arc<OnceLock<RemoteLog>>,
    /// What comes into storage.
    pub intake: Arc<Intake>,
    /// How long a queue that ends may go on sending (`--storage.remote.flush-deadline`).
    pub flush_deadline: Duration,
    /// What targets say, for version 1.
    pub descriptions: Descriptions,
    /// Makes clients.
    pub clients: Clients,
    /// How queues are restarted.
    pub policy: Policy,
}

/// What holds for a destination now.
struct Active {
    to: Arc<Destination>,
    endpoint: Endpoint,
    metrics: Arc<QueueMetrics>,
}

/// What a queue is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Run,
    /// Other settings hold: begin anew with them, from where it is.
    Restart,
    /// Send what there is and end.
    End(Instant),
}

/// What a queue is given, and what it has in hand. Outlives the actor.
pub struct QueueDeps {
    runtime: Arc<QueueRuntime>,
    active: ArcSwap<Active>,
    reader: Mutex<Option<LogReader>>,
    flight: Mutex<Option<Flight>>,
    /// The cursor on the disk.
    saved: Mutex<Option<Cursor>>,
    /// Shards have something to do.
    bell: Notify,
    /// Shards have room.
    room: Notify,
    order: watch::Sender<Order>,
    /// Items answered for, and the time that took, in nanoseconds.
    out: AtomicU64,
    sending_nanos: AtomicU64,
    /// When the last request was answered, and until when the number of shards stays; milliseconds.
    answered_at: AtomicI64,
    settled_until: AtomicI64,
    /// Other settings hold than those that the run under way began with.
    reconfigured: AtomicBool,
    /// The last request has failed and is tried again.
    failing: AtomicBool,
    errors: Mutex<RepeatLimiter>,
}

impl QueueDeps {
    /// A queue to a destination.
    pub fn new(to: Destination, runtime: Arc<QueueRuntime>) -> Arc<Self> {
        let active = ArcSwap::from_pointee(Self::active(to, &runtime));
        Arc::new(Self {
            active,
            reader: Mutex::default(),
            flight: Mutex::default(),
            saved: Mutex::default(),
            bell: Notify::new(),
            room: Notify::new(),
            order: watch::channel(Order::Run).0,
            out: AtomicU64::new(0),
            sending_nanos: AtomicU64::new(0),
            answered_at: AtomicI64::new(0),
            settled_until: AtomicI64::new(0),
            reconfigured: AtomicBool::new(false),
            failing: AtomicBool::new(false),
            errors: Mutex::default(),
            runtime,
        })
    }

    fn active(to: Destination, runtime: &QueueRuntime) -> Active {
        let metrics = Arc::new(QueueMetrics::new(&runtime.registry, &to.name, &to.url));
        let queue = &to.config.queue_config;
        let shown = [queue.capacity, queue.max_shards, queue.min_shards, queue.max_samples_per_send];
        metrics.configured(shown.map(|value| value as f64));
        metrics.shards_desired.set(queue.min_shards as f64);
        let endpoint = Endpoint::new(&to.config, (runtime.clients)(&to.config));
        Active { to: Arc::new(to), endpoint, metrics }
    }

    /// The destination as it is configured now.
    pub fn destination(&self) -> Arc<Destination> {
        Arc::clone(&self.active.load().to)
    }

    /// Other settings for the same destination; the actor is to be told [`Apply`] then.
    pub(super) fn configure(&self, to: Destination) {
        let before = self.active.load_full();
        if (&before.to.name, &before.to.url) != (&to.name, &to.url) {
            before.metrics.remove();
        }
        self.active.store(Arc::new(Self::active(to, &self.runtime)));
        self.reconfigured.store(true, Ordering::SeqCst);
    }

    /// The queue is no more: its figures go.
    pub(super) fn forget(&self) {
        self.active.load().metrics.remove();
    }

    /// Where its cursor stands.
    pub(super) fn cursor_path(&self, log: &RemoteLog) -> PathBuf {
        log.data_dir.join(CURSOR_DIR).join(self.active.load().to.file_name())
    }

    /// The oldest segment that it still needs; `None` if it has not begun.
    pub fn needs_segment(&self) -> Option<u64> {
        self.flight.lock().as_ref().map(|flight| flight.cursor().start().segment)
    }

    /// Time of the newest sample that was answered for, in milliseconds; 0 if there was none.
    pub fn highest_sent_ms(&self) -> i64 {
        self.active.load().metrics.highest_sent_ms()
    }

    /// The segments up to `last` are about to go: reads what it needs of their series and gives the rest up. Returns how
    /// many items that are. Reads files: to be called on the compute pool.
    pub fn pass_over(&self, last: u64) -> u64 {
        let mut reader = self.reader.lock();
        let Some(reader) = reader.as_mut().filter(|reader| reader.place().segment <= last) else { return 0 };
        let now = self.runtime.clock.now();
        let (active, from) = (self.active.load_full(), reader.place().segment);
        let (remote_name, url) = (active.to.name.as_str(), active.to.url.as_str());
        match reader.pass_over(last, now) {
            Ok(missed) => {
                let read = reader.place();
                if let Some(flight) = self.flight.lock().as_mut() {
                    flight.take(&mut Vec::new(), read, Instant::now());
                }
                active.metrics.missed.add(missed);
                if 0 < missed {
                    let text = "The log is shortened before all of it was sent; see --watchfire.remote-write.hold-wal";
                    tracing::warn!(component = "remote", remote_name, url, missed, from, last, "{text}");
                }
                missed
            }
            Err(err) => {
                tracing::error!(component = "remote", remote_name, url, %err, "Reading the log failed");
                0
            }
        }
    }

    /// Logs an error that may repeat.
    fn complain(&self, message: &'static str, err: &str) {
        let now = self.runtime.clock.monotonic();
        if let Verdict::Log { repeated } = self.errors.lock().failed(err, now) {
            let active = self.active.load();
            let (remote_name, url) = (active.to.name.as_str(), active.to.url.as_str());
            tracing::warn!(component = "remote", remote_name, url, err, repeated, "{message}");
        }
    }

    fn with_flight<T>(&self, work: impl FnOnce(&mut Flight) -> T) -> Option<T> {
        let mut flight = self.flight.lock();
        let flight = flight.as_mut()?;
        let result = work(flight);
        let pending = flight.pending();
        let active = self.active.load();
        active.metrics.pending.iter().zip(pending).for_each(|(gauge, count)| gauge.set(count as f64));
        Some(result)
    }

    /// Items that a restart will not find any more, as their segments are gone.
    fn doomed(&self, first: u64) -> u64 {
        let place = Place { segment: first, ..Place::default() };
        self.flight.lock().as_ref().map_or(0, |flight| flight.held_before(place))
    }
}

/// The settings have changed: begin anew with them. Answered at once.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Apply;

/// The actor.
pub struct RemoteWriteQueue {
    deps: Arc<QueueDeps>,
}

impl RemoteWriteQueue {
    /// A queue that reads and sends as soon as it runs.
    pub fn new(deps: Arc<QueueDeps>) -> Self {
        Self { deps }
    }

    fn run(&self, ctx: &mut Context<Self>) {
        let (deps, entry) = (Arc::clone(&self.deps), Arc::clone(ctx.entry()));
        let work = async move { deps.run(entry).await };
        ctx.spawn(work.into_actor(self).map(|(), queue, ctx: &mut Context<Self>| {
            // Each run ends because it was told to.
            let ends = matches!(*queue.deps.order.borrow(), Order::End(_));
            if ends {
                ctx.stop();
            } else {
                queue.deps.order.send_replace(Order::Run);
                queue.run(ctx);
            }
        }));
    }
}

impl Actor for RemoteWriteQueue {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.run(ctx);
    }
}

impl Supervised for RemoteWriteQueue {}

impl SupervisedActor for RemoteWriteQueue {
    const KIND: &'static Kind = &REMOTE_WRITE_QUEUE;
}

impl Handler<Admitted<Apply>> for RemoteWriteQueue {
    type Result = ();

    fn handle(&mut self, _: Admitted<Apply>, _: &mut Context<Self>) {
        if !self.deps.reconfigured.swap(false, Ordering::SeqCst) {
            return;
        }
        self.deps.order.send_if_modified(|order| {
            let running = *order == Order::Run;
            if running {
                *order = Order::Restart;
            }
            running
        });
    }
}

impl Handler<Control<Drain>> for RemoteWriteQueue {
    type Result = ();

    fn handle(&mut self, Control(drain): Control<Drain>, _: &mut Context<Self>) {
        let now = Instant::now();
        let deadline = drain.deadline.checked_sub(GIVE_UP_BEFORE).unwrap_or(drain.deadline);
        self.deps.order.send_replace(Order::End(deadline.min(now + self.deps.runtime.flush_deadline)));
    }
}

impl QueueDeps {
    /// How much was answered for so far, and the seconds that took.
    fn sent_so_far(&self) -> (f64, f64) {
        let seconds = self.sending_nanos.load(Ordering::Relaxed) as f64 / 1e9;
        (self.out.load(Ordering::Relaxed) as f64, seconds)
    }
}
