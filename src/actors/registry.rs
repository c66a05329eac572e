//! The tree of actors: what each is, what it does now and what it has counted. Read by `GET /api/watchfire/v1/actors`, by
//! the metrics `watchfire_actor_*` and by the layer itself.
//! Invariant: everything is an atomic or a lock held for a few instructions, never across a handler, so the tree can be
//! read while actors are stuck.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU32, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use crate::actors::kind::Kind;
use crate::actors::supervision::Parent;
use crate::model::clock::SharedClock;
use crate::model::labels::Labels;
use crate::model::random::Random;
use crate::model::time::TimestampMs;
use crate::telemetry::metrics::{Counter, Histogram, MetricFamily, MetricKind, MetricValue, Registry};

/// What an actor does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ActorState {
    /// Made or made anew, `started` has not returned yet.
    Starting,
    /// Handles messages.
    Running,
    /// Rebuilds its state under `ctx.rebuild`; messages wait.
    Rebuilding,
    /// Panicked and waits for its restart; messages wait.
    BackingOff,
    /// Panicked too often; messages are refused until a try succeeds.
    Failed,
    /// Was told to end and finishes its work.
    Draining,
    /// Has ended for good and left the tree.
    Ended,
}

impl ActorState {
    const ALL: [Self; 7] =
        [Self::Starting, Self::Running, Self::Rebuilding, Self::BackingOff, Self::Failed, Self::Draining, Self::Ended];

    /// The word of the actors endpoint.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Rebuilding => "rebuilding",
            Self::BackingOff => "backing-off",
            Self::Failed => "failed",
            Self::Draining => "draining",
            Self::Ended => "ended",
        }
    }

    /// Whether messages are refused at once, with nothing done.
    pub fn refuses(self) -> bool {
        matches!(self, Self::Failed | Self::Ended)
    }
}

/// One actor as the actors endpoint shows it. Counters are since the process started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActorRow {
    /// Kind of the actor.
    pub kind: &'static str,
    /// Its name, distinct among its siblings.
    pub name: String,
    /// Name of its parent; none for the root.
    pub parent: Option<String>,
    /// What it does now.
    pub state: ActorState,
    /// Messages that wait in its mailbox.
    pub queue: u32,
    /// How many messages may be admitted and not yet done, reserved ones included.
    pub slots: u32,
    /// Messages refused because no slot was free in time.
    pub refused: u64,
    /// Messages that were dropped unhandled, because their deadline had passed or their asker had gone.
    pub expired: u64,
    /// Messages handled.
    pub handled: u64,
    /// Restarts after a panic.
    pub restarts: u64,
    /// Text and place of the last panic.
    pub last_panic: Option<String>,
    /// Why its work fails, though the actor itself is well: its source does not answer, for instance.
    pub failing: Option<String>,
    /// Since when it is in this state.
    pub since: TimestampMs,
}

/// Counters of all actors of a kind; they outlive the actors.
#[derive(Debug)]
pub(super) struct KindMetrics {
    pub(super) refused: Counter,
    pub(super) expired: Counter,
    pub(super) handled: Counter,
    pub(super) coalesced: Counter,
    pub(super) restarts: Counter,
    pub(super) handler_seconds: Histogram,
}

/// Handlers should stay below a millisecond; a thread counts as stalled after one second.
const HANDLER_SECONDS_BOUNDS: [f64; 8] = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0];

impl KindMetrics {
    fn new(metrics: &Registry, kind: &Kind) -> Self {
        let labels = [("kind", kind.name)];
        let counter = |name: &str, help: &str| metrics.counter(name, help, &labels);
        Self {
            refused: counter("watchfire_actor_refused_total", "Messages refused because no slot was free in time."),
            expired: counter(
                "watchfire_actor_expired_total",
                "Messages dropped unhandled because their deadline had passed or their asker had gone.",
            ),
            handled: counter("watchfire_actor_handled_total", "Messages handled."),
            coalesced: counter("watchfire_actor_coalesced_total", "Control messages joined with one already queued."),
            restarts: counter("watchfire_actor_restarts_total", "Restarts after a panic."),
            handler_seconds: metrics.histogram(
                "watchfire_actor_handler_seconds",
                "Time that handlers held their thread.",
                &labels,
                &HANDLER_SECONDS_BOUNDS,
            ),
        }
    }
}

/// One actor in the tree, and the gate to its mailbox: an actor costs a single allocation for both.
pub struct Entry {
    id: u64,
    tree: Arc<ActorTree>,
    pub(super) kind: &'static Kind,
    name: Box<str>,
    pub(super) parent: Option<Parent>,
    pub(super) metrics: Arc<KindMetrics>,
    state: AtomicU8,
    since_ms: AtomicI64,
    pub(super) queue: AtomicU32,
    pub(super) slot_count: AtomicU32,
    refused: AtomicU64,
    expired: AtomicU64,
    handled: AtomicU64,
    restarts: AtomicU64,
    last_panic: ArcSwapOption<String>,
    failing: ArcSwapOption<String>,
    /// One permit for each message admitted and not yet done; shared by all clones of the address.
    pub(super) slots: Arc<Semaphore>,
    /// Told when the actor begins to refuse.
    pub(super) refusing: Notify,
    /// Told when a failed actor is to be looked at before its minute is over.
    pub(super) wake: Notify,
    /// One bit for each kind of control message that is queued.
    pub(super) controls: AtomicU8,
    /// Set once the actor has been told to end.
    drain: Mutex<Option<Instant>>,
}

impl Entry {
    /// The actor's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The actor's kind.
    pub fn kind(&self) -> &'static Kind {
        self.kind
    }

    /// What the actor does now.
    pub fn state(&self) -> ActorState {
        let index = usize::from(self.state.load(Ordering::Acquire));
        ActorState::ALL.get(index).copied().unwrap_or(ActorState::Ended)
    }

    /// Text and place of the last panic.
    pub fn last_panic(&self) -> Option<String> {
        self.last_panic.load().as_deref().cloned()
    }

    /// The deadline of the drain that this actor was told of.
    pub fn drain_deadline(&self) -> Option<Instant> {
        *self.drain.lock()
    }

    /// Everything that is shown of the actor.
    pub fn row(&self) -> ActorRow {
        ActorRow {
            kind: self.kind.name,
            name: self.name.to_string(),
            parent: self.parent.as_ref().map(|parent| parent.entry().name.to_string()),
            state: self.state(),
            queue: self.queue.load(Ordering::Relaxed),
            slots: self.slot_count.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            expired: self.expired.load(Ordering::Relaxed),
            handled: self.handled.load(Ordering::Relaxed),
            restarts: self.restarts.load(Ordering::Relaxed),
            last_panic: self.last_panic(),
            failing: self.failing.load().as_deref().cloned(),
            since: TimestampMs(self.since_ms.load(Ordering::Relaxed)),
        }
    }

    pub(super) fn tree(&self) -> &Arc<ActorTree> {
        &self.tree
    }

    /// Enters a state. `Ended` is final. An actor that was told to drain drains instead of running.
    pub(super) fn set_state(&self, state: ActorState) {
        let state = match state {
            ActorState::Running if self.drain_deadline().is_some() => ActorState::Draining,
            other => other,
        };
        let swap = |old| (old != ActorState::Ended as u8 && old != state as u8).then_some(state as u8);
        if self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, swap).is_ok() {
            self.since_ms.store(self.tree.clock.now().0, Ordering::Relaxed);
        }
        if state.refuses() {
            self.refusing.notify_waiters();
        }
    }

    /// The actor has got through `started`.
    pub(super) fn set_started(&self) {
        if self.state() == ActorState::Starting {
            self.set_state(ActorState::Running);
        }
    }

    /// Notes the deadline of a drain; the first one holds.
    pub(super) fn set_drain(&self, deadline: Instant) {
        self.drain.lock().get_or_insert(deadline);
    }

    pub(super) fn set_last_panic(&self, text: &str) {
        self.last_panic.store(Some(Arc::new(text.to_owned())));
    }

    /// Says why the actor's work fails, or that it does not.
    pub(super) fn set_failing(&self, why: Option<&str>) {
        if self.failing.load().as_deref().map(String::as_str) != why {
            self.failing.store(why.map(|why| Arc::new(why.to_owned())));
        }
    }

    pub(super) fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.metrics.refused.inc();
    }

    pub(super) fn count_expired(&self) {
        self.expired.fetch_add(1, Ordering::Relaxed);
        self.metrics.expired.inc();
    }

    pub(super) fn count_handled(&self, seconds: f64) {
        self.handled.fetch_add(1, Ordering::Relaxed);
        self.metrics.handled.inc();
        self.metrics.handler_seconds.observe(seconds);
    }

    pub(super) fn count_restart(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
        self.metrics.restarts.inc();
    }

    /// Returns when the actor refuses messages: failed or ended.
    pub(super) async fn refuses(&self) {
        self.reaches(ActorState::refuses).await;
    }

    /// Returns when the actor has ended for good.
    pub(super) async fn ended(&self) {
        self.reaches(|state| state == ActorState::Ended).await;
    }

    async fn reaches(&self, wanted: impl Fn(ActorState) -> bool) {
        loop {
            let mut notified = std::pin::pin!(self.refusing.notified());
            // Registered before the check, so that a change between the two is not missed.
            notified.as_mut().enable();
            if wanted(self.state()) {
                return;
            }
            notified.await;
        }
    }
}

/// All living actors of a process. Tests make one of their own.
pub struct ActorTree {
    kinds: Vec<(&'static Kind, Arc<KindMetrics>)>,
    entries: Mutex<BTreeMap<u64, Arc<Entry>>>,
    next_id: AtomicU64,
    clock: SharedClock,
    random: Mutex<Random>,
}

impl ActorTree {
    /// An empty tree for actors of these kinds, which counts in `metrics`. The seed decides the jitter of restarts.
    pub fn new(kinds: &[&'static Kind], metrics: &Registry, clock: SharedClock, seed: u64) -> Arc<Self> {
        let tree = Arc::new(Self {
            kinds: kinds.iter().map(|kind| (*kind, Arc::new(KindMetrics::new(metrics, kind)))).collect(),
            entries: Mutex::default(),
            next_id: AtomicU64::new(0),
            clock,
            random: Mutex::new(Random::seeded(seed)),
        });
        let gathered = Arc::downgrade(&tree);
        metrics.collect_with(move || gathered.upgrade().map(|tree| tree.gauges()).unwrap_or_default());
        tree
    }

    /// All actors, parents before their children.
    pub fn rows(&self) -> Vec<ActorRow> {
        self.entries().iter().map(|entry| entry.row()).collect()
    }

    /// Those actors of some kinds that have failed.
    pub fn failed(&self, kinds: &[&Kind]) -> Vec<ActorRow> {
        let entries = self.entries.lock();
        let is_wanted = |entry: &Entry| entry.state() == ActorState::Failed && kinds.contains(&entry.kind);
        entries.values().filter(|entry| is_wanted(entry)).map(|entry| entry.row()).collect()
    }

    /// Lets every failed actor be tried again now, as on a reload.
    pub fn retry_failed(&self) {
        for entry in self.entries() {
            if entry.state() == ActorState::Failed {
                entry.wake.notify_one();
            }
        }
    }

    pub(super) fn enter(self: &Arc<Self>, kind: &'static Kind, place: super::supervision::Place) -> Arc<Entry> {
        let metrics = self.kinds.iter().find(|(known, _)| *known == kind).map(|(_, metrics)| Arc::clone(metrics));
        let slots = place.slots.unwrap_or(kind.slots);
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let entry = Arc::new(Entry {
            id,
            tree: Arc::clone(self),
            kind,
            name: place.name.into(),
            parent: place.parent,
            metrics: metrics.expect("every kind of actor is listed in kind::ALL"),
            state: AtomicU8::new(ActorState::Starting as u8),
            since_ms: AtomicI64::new(self.clock.now().0),
            queue: AtomicU32::new(0),
            slot_count: AtomicU32::new(slots),
            refused: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            handled: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
            last_panic: ArcSwapOption::empty(),
            failing: ArcSwapOption::empty(),
            slots: Arc::new(Semaphore::new(slots as usize)),
            refusing: Notify::new(),
            wake: Notify::new(),
            controls: AtomicU8::new(0),
            drain: Mutex::new(None),
        });
        self.entries.lock().insert(id, Arc::clone(&entry));
        entry
    }

    /// Marks the actor ended and takes it out of the tree.
    pub(super) fn leave(&self, entry: &Entry) {
        entry.set_state(ActorState::Ended);
        self.entries.lock().remove(&entry.id);
    }

    pub(super) fn jitter_seed(&self) -> u64 {
        self.random.lock().next_u64()
    }

    fn entries(&self) -> Vec<Arc<Entry>> {
        self.entries.lock().values().cloned().collect()
    }

    fn gauges(&self) -> Vec<MetricFamily> {
        let mut sums = vec![[0u64; 4]; self.kinds.len()];
        for entry in self.entries() {
            let Some(index) = self.kinds.iter().position(|(kind, _)| *kind == entry.kind) else { continue };
            let failed = u64::from(entry.state() == ActorState::Failed);
            let queue = u64::from(entry.queue.load(Ordering::Relaxed));
            let slots = u64::from(entry.slot_count.load(Ordering::Relaxed));
            if let Some(sum) = sums.get_mut(index) {
                sum.iter_mut().zip([1, queue, slots, failed]).for_each(|(sum, add)| *sum += add);
            }
        }
        let names = [
            ("watchfire_actors", "Actors that live."),
            ("watchfire_actor_queue_length", "Messages that wait in mailboxes."),
            ("watchfire_actor_slots", "Messages that may be admitted and not yet done."),
            ("watchfire_actor_failed", "Actors that panicked too often and rest."),
        ];
        let family = |(column, (name, help)): (usize, (&str, &str))| MetricFamily {
            name: name.to_owned(),
            help: help.to_owned(),
            kind: MetricKind::Gauge,
            metrics: (self.kinds.iter().zip(&sums))
                .map(|((kind, _), sum)| {
                    let value = sum.get(column).copied().unwrap_or_default() as f64;
                    (Labels::from_pairs([("kind", kind.name)]), MetricValue::Number(value))
                })
                .collect(),
        };
        names.into_iter().enumerate().map(family).collect()
    }
}
