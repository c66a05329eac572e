//! One group of alerts. Owns the timer of its flushes; its alerts and its due time are published in its deps, so a restart
//! loses neither. Started by the alert dispatcher, which leaves alerts in the deps. Bound: one flush at a time. Failure:
//! restarts and flushes when it is due; what was told is in the notification log. Shutdown: a flush under way gets the
//! time that is left; an alert that waits is told after the next start.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::{Actor, ActorContext, AsyncContext, Handler, Message, Supervised};
use actix::{ActorFutureExt, WrapFuture};
use arc_swap::ArcSwap;
use futures::future::join_all;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::actors::context::Context;
use crate::actors::control::{Control, Drain};
use crate::actors::kind::{Kind, Rank};
use crate::actors::mailbox::BoundedAddr;
use crate::actors::receiver::{AlertRuntime, Deliver, Flush, Receiver, ReceiverDeps};
use crate::actors::supervision::SupervisedActor;
use crate::alertmanager::alert::StoredAlert;
use crate::alertmanager::dedup::Hashes;
use crate::alertmanager::group::{FlushAlert, GroupState, Life, Now, Tick};
use crate::alertmanager::retry::FailureReason;
use crate::alertmanager::route::RouteOptions;
use crate::model::labels::Labels;
use crate::telemetry::repeat::{RepeatLimiter, Verdict};

/// The kind.
pub static AGGREGATION_GROUP: Kind = Kind { name: "aggregation_group", rank: Rank::GATEWAY.below(1), slots: 1 };

/// A flush has at least this long, however short the interval.
const FLUSH_WITHIN_MIN: Duration = Duration::from_secs(10);

/// A receiver as groups see it.
#[derive(Clone)]
pub struct Told {
    /// Where to send to.
    pub addr: BoundedAddr<Receiver>,
    /// What it is and knows.
    pub deps: Arc<ReceiverDeps>,
}

/// What the route of a group says.
pub struct GroupSpec {
    /// Timing, receiver.
    pub options: Arc<RouteOptions>,
    /// The integrations of the receiver.
    pub told: Vec<Told>,
}

/// What a group is given, and what it publishes. Outlives the actor.
pub struct GroupDeps {
    /// Key of the group, as receivers see it.
    pub key: String,
    /// Labels that its alerts have in common.
    pub labels: Labels,
    /// What its route says; each flush looks anew.
    pub spec: ArcSwap<GroupSpec>,
    state: Mutex<GroupState>,
    runtime: Arc<AlertRuntime>,
    failure: Mutex<Option<String>>,
    repeats: Mutex<RepeatLimiter>,
}

/// What time it is for groups.
pub(super) fn now(runtime: &AlertRuntime) -> Now {
    Now { wall: runtime.clock.now(), monotonic: runtime.clock.monotonic() }
}

impl GroupDeps {
    /// A group with its first alert.
    pub fn new(
        (key, labels): (String, Labels),
        spec: GroupSpec,
        first: StoredAlert,
        runtime: Arc<AlertRuntime>,
    ) -> Arc<Self> {
        let state = GroupState::new(first, spec.options.group_wait.to_std(), now(&runtime));
        let (spec, state) = (ArcSwap::from_pointee(spec), Mutex::new(state));
        let (failure, repeats) = (Mutex::default(), Mutex::default());
        Arc::new(Self { key, labels, spec, state, runtime, failure, repeats })
    }

    /// Takes an alert; `Ended` if a new group has to.
    pub fn insert(&self, alert: StoredAlert) -> Life {
        self.state.lock().insert(alert)
    }

    /// Whether it takes no alerts any more.
    pub fn has_ended(&self) -> bool {
        self.state.lock().has_ended()
    }

    /// How many alerts it has.
    pub fn alert_count(&self) -> usize {
        self.state.lock().alerts().count()
    }

    /// Looks at the state, or changes it; the lock is held meanwhile.
    pub(super) fn with_state<T>(&self, work: impl FnOnce(&mut GroupState) -> T) -> T {
        work(&mut self.state.lock())
    }

    /// Why the last flush failed, if it did.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    /// How long until the next flush.
    pub fn wait(&self) -> Duration {
        self.state.lock().wait(now(&self.runtime))
    }

    /// Tells all integrations at a time, none of which waits for another.
    async fn flush(&self, alerts: Vec<FlushAlert>, tick_nanos: i64) -> Flushed {
        let spec = self.spec.load_full();
        let within = spec.options.group_interval.to_std().max(FLUSH_WITHIN_MIN);
        let flush = Arc::new(Flush {
            group_key: self.key.clone(),
            group_labels: self.labels.clone(),
            hashes: Hashes::of(&alerts),
            alerts,
            repeat_nanos: spec.options.repeat_interval.as_ms_i64().saturating_mul(1_000_000),
            tick_nanos,
            deadline: Instant::now() + within,
        });
        let told = join_all(spec.told.iter().map(|told| self.tell(told, &flush))).await;
        let failures: Vec<String> = told.into_iter().filter_map(Result::err).collect();
        Flushed { flush, failure: (!failures.is_empty()).then(|| failures.join("\n")) }
    }

    async fn tell(&self, told: &Told, flush: &Arc<Flush>) -> Result<(), String> {
        // Most flushes have no news, and need no message.
        if told.deps.news(flush).await.map_err(|error| error.to_string())?.is_none() {
            return Ok(());
        }
        match told.addr.ask(Deliver(Arc::clone(flush)), flush.deadline + Duration::from_secs(1)).await {
            Ok(delivered) => delivered.map_err(|error| error.to_string()),
            Err(error) => {
                // The receiver's actor has not counted it.
                let metrics = &self.runtime.metrics.webhook;
                metrics.notifications.inc();
                metrics.failed(FailureReason::Other);
                Err(format!("{}: {error}", told.deps.name()))
            }
        }
    }
}

struct Flushed {
    flush: Arc<Flush>,
    failure: Option<String>,
}

/// The next flush may be due.
#[derive(Message)]
#[rtype(result = "()")]
struct Due;

/// The actor.
pub struct AggregationGroup {
    deps: Arc<GroupDeps>,
    flushing: bool,
    draining: bool,
}

impl AggregationGroup {
    /// A group that flushes when it is due.
    pub fn new(deps: Arc<GroupDeps>) -> Self {
        Self { deps, flushing: false, draining: false }
    }

    fn arm(&self, ctx: &mut Context<Self>) {
        ctx.notify_later(Due, self.deps.wait());
    }

    fn flushed(&mut self, flushed: Flushed, ctx: &mut Context<Self>) {
        self.flushing = false;
        let life = match &flushed.failure {
            None => {
                self.deps.repeats.lock().succeeded();
                self.deps.with_state(|state| state.flushed(&flushed.flush.alerts))
            }
            Some(err) => {
                let now = self.deps.runtime.clock.monotonic();
                if let Verdict::Log { repeated } = self.deps.repeats.lock().failed(err, now) {
                    let (component, group) = ("dispatcher", self.deps.key.as_str());
                    tracing::error!(component, aggr_group = group, err, repeated, "Notify for alerts failed");
                }
                Life::Goes
            }
        };
        *self.deps.failure.lock() = flushed.failure;
        if life == Life::Ended || self.draining {
            return ctx.stop();
        }
        self.arm(ctx);
    }
}

impl Actor for AggregationGroup {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if self.deps.has_ended() {
            return ctx.stop();
        }
        self.arm(ctx);
    }
}

impl Supervised for AggregationGroup {
    fn restarting(&mut self, _: &mut Context<Self>) {
        self.flushing = false;
    }
}

impl SupervisedActor for AggregationGroup {
    const KIND: &'static Kind = &AGGREGATION_GROUP;
}

impl Handler<Due> for AggregationGroup {
    type Result = ();

    fn handle(&mut self, _: Due, ctx: &mut Context<Self>) {
        if self.flushing || self.draining {
            return;
        }
        let interval = self.deps.spec.load().options.group_interval.to_std();
        let now = now(&self.deps.runtime);
        let tick_nanos = self.deps.runtime.clock.unix_nanos();
        let alerts = match self.deps.with_state(|state| state.tick(interval, now)) {
            Tick::Flush(alerts) => alerts,
            Tick::Early => return self.arm(ctx),
        };
        self.flushing = true;
        let deps = Arc::clone(&self.deps);
        let work = async move { deps.flush(alerts, tick_nanos).await };
        ctx.spawn(work.into_actor(self).map(|flushed, group, ctx: &mut Context<Self>| group.flushed(flushed, ctx)));
    }
}

impl Handler<Control<Drain>> for AggregationGroup {
    type Result = ();

    fn handle(&mut self, Control(drain): Control<Drain>, ctx: &mut Context<Self>) {
        self.draining = true;
        if !self.flushing {
            return ctx.stop();
        }
        let left = drain.deadline.saturating_duration_since(Instant::now());
        ctx.run_later(left, |_, ctx| ctx.stop());
    }
}
