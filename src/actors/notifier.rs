//! One external Alertmanager. Owns the sending of its queue, which outlives it in [`NotifierShared`]. Started by the
//! notifier manager. Bound: the queue, whose oldest alerts make room and are counted; one request at a time. Failure:
//! restarts and goes on with the queue, without the batch that it was at; failed for good, the queue fills and drops its
//! oldest. Shutdown: sends what is queued as far as the time allows, unless told to drop it; counts what is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use actix::prelude::{Actor, ActorContext, AsyncContext, Handler, Message, Supervised};
use actix::{ActorFutureExt, WrapFuture};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::actors::context::Context;
use crate::actors::control::{Control, Drain};
use crate::actors::kind::{Kind, Rank};
use crate::actors::mailbox::{Admitted, BoundedAddr};
use crate::actors::policy::Policy;
use crate::actors::supervision::SupervisedActor;
use crate::client::HttpClient;
use crate::model::alert::Alert;
use crate::notify::endpoint::Endpoint;
use crate::notify::metrics::{EndpointMetrics, NotifyMetrics};
use crate::notify::payload::Payload;
use crate::notify::queue::{AlertQueue, QueueLimits};
use crate::notify::send;
use crate::telemetry::repeat::{RepeatLimiter, Verdict};

/// The kind.
pub static NOTIFIER: Kind = Kind { name: "notifier", rank: Rank::GATEWAY.below(1), slots: 4 };

/// Alerts that are written without giving other actors of the thread a turn.
const WRITTEN_AT_ONCE: usize = 64;
/// So long before the end of a drain a notifier gives up, so that it ends in time.
const GIVE_UP_BEFORE: Duration = Duration::from_millis(250);

/// What all notifiers of the process share.
pub struct NotifierRuntime {
    /// Bounds of each queue.
    pub limits: QueueLimits,
    /// Whether waiting alerts are sent when a notifier ends (`--alertmanager.drain-notification-queue-on-shutdown`).
    pub drain_on_shutdown: bool,
    /// Prometheus's metrics.
    pub metrics: NotifyMetrics,
    /// How notifiers are restarted.
    pub policy: Policy,
}

/// What a notifier is given, and its queue. Outlives the actor.
pub struct NotifierShared {
    /// Where to.
    pub endpoint: Endpoint,
    client: HttpClient,
    timeout: Duration,
    runtime: Arc<NotifierRuntime>,
    metrics: EndpointMetrics,
    waiting: Mutex<Waiting>,
    /// Alerts of the request under way; a panic leaves them here.
    under_way: AtomicUsize,
    /// A message that says "look at the queue" is on its way.
    woken: AtomicBool,
    errors: Mutex<RepeatLimiter>,
    overflows: Mutex<RepeatLimiter>,
}

struct Waiting {
    queue: AlertQueue,
    closed: bool,
}

impl NotifierShared {
    /// A notifier with an empty queue; a request takes `timeout` at most.
    pub fn new(endpoint: Endpoint, client: HttpClient, timeout: Duration, runtime: Arc<NotifierRuntime>) -> Arc<Self> {
        Arc::new(Self {
            metrics: runtime.metrics.endpoint(&endpoint.text),
            waiting: Mutex::new(Waiting { queue: AlertQueue::new(runtime.limits), closed: false }),
            under_way: AtomicUsize::new(0),
            woken: AtomicBool::new(false),
            errors: Mutex::default(),
            overflows: Mutex::default(),
            endpoint,
            client,
            timeout,
            runtime,
        })
    }

    /// How many alerts wait.
    pub fn queue_len(&self) -> usize {
        self.waiting.lock().queue.len()
    }

    /// Works on the queue and keeps its figure right. Other notifiers to the same URL add to the same figure.
    fn with_queue<T>(&self, work: impl FnOnce(&mut Waiting) -> T) -> T {
        let mut waiting = self.waiting.lock();
        let before = waiting.queue.len() as f64;
        let result = work(&mut waiting);
        self.metrics.queue_len.add(waiting.queue.len() as f64 - before);
        result
    }

    fn push(&self, alerts: &[Arc<Alert>]) {
        let dropped = self.with_queue(|waiting| if waiting.closed { alerts.len() } else { waiting.queue.push(alerts) });
        if dropped == 0 {
            return;
        }
        self.metrics.dropped.add(dropped as u64);
        let now = self.runtime.metrics.clock().monotonic();
        if let Verdict::Log { repeated } = self.overflows.lock().failed("", now) {
            let (component, alertmanager) = ("notifier", self.endpoint.text.as_str());
            tracing::warn!(
                component,
                alertmanager,
                count = dropped,
                repeated,
                "Alert notification queue full, dropping alerts"
            );
        }
    }

    fn next_batch(&self) -> Vec<Arc<Alert>> {
        let batch = self.with_queue(|waiting| waiting.queue.next_batch());
        self.under_way.store(batch.len(), Ordering::Relaxed);
        batch
    }

    /// Sends a batch. One that fails is given up, as in Prometheus: whoever fires goes on telling.
    async fn deliver(&self, batch: Vec<Arc<Alert>>, drain: Option<Instant>) {
        let clock = self.runtime.metrics.clock();
        let began = clock.monotonic();
        let mut payload = Payload::default();
        for (index, alert) in batch.iter().enumerate() {
            if 0 < index && index % WRITTEN_AT_ONCE == 0 {
                tokio::task::yield_now().await;
            }
            payload.push(alert);
        }
        let deadline = send::deadline(self.timeout, drain);
        let posted = send::post(&self.client, &self.endpoint.url, payload.finish(), deadline).await;
        let count = self.under_way.swap(0, Ordering::Relaxed);
        let (component, alertmanager) = ("notifier", self.endpoint.text.as_str());
        match posted {
            Ok(()) => {
                self.metrics.delivered(count, clock.monotonic().saturating_sub(began));
                if self.errors.lock().succeeded() {
                    tracing::info!(component, alertmanager, "Alerts are delivered again");
                }
            }
            Err(error) => {
                self.metrics.failed(count);
                let err = error.to_string();
                if let Verdict::Log { repeated } = self.errors.lock().failed(&err, clock.monotonic()) {
                    tracing::error!(component, alertmanager, count, err, repeated, "Error sending alerts");
                }
            }
        }
    }

    /// Gives the batch up that a panic cut short: what is in it may be why.
    fn abandon(&self) {
        let count = self.under_way.swap(0, Ordering::Relaxed);
        if 0 < count {
            self.metrics.failed(count);
        }
    }

    /// Takes no more alerts; drops those that wait if nobody wants them sent.
    fn close(&self) {
        let dropped = self.with_queue(|waiting| {
            waiting.closed = true;
            if self.runtime.drain_on_shutdown { 0 } else { waiting.queue.clear() }
        });
        if 0 < dropped {
            self.metrics.dropped.add(dropped as u64);
            let (component, alertmanager) = ("notifier", self.endpoint.text.as_str());
            let text = "Alert notification queue not drained on shutdown, dropping alerts";
            tracing::warn!(component, alertmanager, count = dropped, "{text}");
        }
    }

    /// The actor has ended or is about to: counts what was not sent. Once is enough, more do no harm.
    pub(super) fn finish(&self) {
        self.abandon();
        let dropped = self.with_queue(|waiting| {
            waiting.closed = true;
            waiting.queue.clear()
        });
        if 0 < dropped {
            self.metrics.dropped.add(dropped as u64);
            let (component, alertmanager) = ("notifier", self.endpoint.text.as_str());
            tracing::warn!(component, alertmanager, count = dropped, "Alerts were not sent in time, dropping them");
        }
    }
}

/// A notifier as those see it who have alerts for it.
#[derive(Clone)]
pub struct NotifierHandle {
    /// Its queue and where it sends to.
    pub shared: Arc<NotifierShared>,
    /// The actor.
    pub actor: BoundedAddr<Notifier>,
}

impl NotifierHandle {
    /// Leaves alerts in the queue and tells the actor, without waiting for anything.
    pub fn push(&self, alerts: &[Arc<Alert>]) {
        if alerts.is_empty() {
            return;
        }
        self.shared.push(alerts);
        if self.shared.woken.swap(true, Ordering::AcqRel) {
            return;
        }
        // An actor without a free slot has a message to come; one that is not running looks at the queue as it starts.
        if self.actor.try_tell(Deliver).is_err() {
            self.shared.woken.store(false, Ordering::Release);
        }
    }
}

/// Look at the queue. Answered at once, before anything is sent.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Deliver;

/// The actor.
pub struct Notifier {
    shared: Arc<NotifierShared>,
    state: NotifierState,
    draining: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum NotifierState {
    Idle,
    Sending,
}

impl Notifier {
    /// A notifier that sends what its queue holds.
    pub fn new(shared: Arc<NotifierShared>) -> Self {
        Self { shared, state: NotifierState::Idle, draining: false }
    }

    /// Sends the next batch unless one is under way; ends when there is none and the actor drains.
    fn deliver(&mut self, ctx: &mut Context<Self>) {
        if self.state == NotifierState::Sending {
            return;
        }
        let batch = self.shared.next_batch();
        if batch.is_empty() {
            if self.draining {
                ctx.stop();
            }
            return;
        }
        self.state = NotifierState::Sending;
        let drain = ctx.drain_deadline().map(|deadline| deadline.checked_sub(GIVE_UP_BEFORE).unwrap_or(deadline));
        let shared = Arc::clone(&self.shared);
        let work = async move { shared.deliver(batch, drain).await };
        ctx.spawn(work.into_actor(self).map(|(), notifier, ctx: &mut Context<Self>| {
            notifier.state = NotifierState::Idle;
            notifier.deliver(ctx);
        }));
    }
}

impl Actor for Notifier {
    type Context = Context<Self>;

    /// Messages of an earlier life may be lost; what they were about is in the queue.
    fn started(&mut self, ctx: &mut Self::Context) {
        self.shared.abandon();
        self.shared.woken.store(false, Ordering::Release);
        self.deliver(ctx);
    }
}

impl Supervised for Notifier {
    fn restarting(&mut self, _: &mut Context<Self>) {
        self.state = NotifierState::Idle;
        self.draining = false;
    }
}

impl SupervisedActor for Notifier {
    const KIND: &'static Kind = &NOTIFIER;
}

impl Handler<Admitted<Deliver>> for Notifier {
    type Result = ();

    fn handle(&mut self, _: Admitted<Deliver>, ctx: &mut Context<Self>) {
        // Before the queue is looked at: alerts that come from here on send a message again.
        self.shared.woken.store(false, Ordering::Release);
        self.deliver(ctx);
    }
}

impl Handler<Control<Drain>> for Notifier {
    type Result = ();

    fn handle(&mut self, Control(drain): Control<Drain>, ctx: &mut Context<Self>) {
        self.shared.close();
        self.draining = true;
        let left = drain.deadline.saturating_duration_since(Instant::now()).saturating_sub(GIVE_UP_BEFORE);
        ctx.run_later(left, |notifier, ctx| {
            notifier.shared.finish();
            ctx.stop();
        });
        self.deliver(ctx);
    }
}
