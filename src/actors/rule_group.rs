//! One rule group, evaluated on its own timer, its rules one after the other. Owns what they remember; that stands in
//! `deps`, rule by rule, and is stored before anybody else learns of it. Started by the rule manager. Bound: one
//! evaluation at a time, one query of it. Failure: restarts and goes on from what is stored: no `for` begins anew, no
//! series is forgotten; while it has failed, its rules show the reason as their error. Shutdown: `Drain` ends it.

mod round;

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::{Actor, ActorContext, AsyncContext, Handler, Message, Supervised};
use actix::{ActorFutureExt, SpawnHandle, WrapFuture};
use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;

use crate::actors::alert_sink::AlertSink;
use crate::actors::context::Context;
use crate::actors::control::{Control, Drain};
use crate::actors::kind::{Kind, Rank};
use crate::actors::mailbox::{Admitted, BoundedAddr, Reserved};
use crate::actors::policy::Policy;
use crate::actors::query_gateway::QueryGateway;
use crate::actors::storage_client::StorageClient;
use crate::actors::supervision::SupervisedActor;
use crate::model::clock::SharedClock;
use crate::model::labels::Labels;
use crate::rules::evaluate::Surroundings;
use crate::rules::metrics::{GroupMetrics, RuleMetrics};
use crate::rules::restore::RestoreLimits;
use crate::rules::schedule::{Due, Schedule};
use crate::rules::spec::{GroupSpec, RuleSpec};
use crate::rules::state::{CarriedOver, Health, RuleState, carry_over};
use crate::telemetry::repeat::RepeatLimiter;

/// The kind.
pub static RULE_GROUP: Kind = Kind { name: "rule_group", rank: Rank::MANAGER.below(1), slots: 4 };

/// Longest time that appending a rule's samples may take.
const APPEND_WITHIN: Duration = Duration::from_secs(10);
/// Added to a query's own timeout: its error is better than ours.
const ASK_MARGIN: Duration = Duration::from_secs(10);
/// Evaluations before the `for` of alerts is restored: scrapes and recording rules that alerts depend on come first.
const EVALUATIONS_BEFORE_RESTORE: u32 = 2;

/// What all groups of the process share.
pub struct RuleRuntime {
    /// Evaluates queries.
    pub gateway: BoundedAddr<QueryGateway>,
    /// How long one may take there.
    pub query_timeout: Duration,
    /// Where samples go.
    pub storage: StorageClient,
    /// Where alerts go.
    pub sink: Arc<dyn AlertSink>,
    /// Prometheus's metrics.
    pub metrics: RuleMetrics,
    /// The clock.
    pub clock: SharedClock,
    /// What rules know of the server; a configuration may change it.
    pub around: ArcSwap<Surroundings>,
    /// How much of the `for` of alerts is restored.
    pub restore: RestoreLimits,
    /// How groups are restarted.
    pub policy: Policy,
}

/// What a group is given, and what it publishes. Outlives the actor.
pub struct GroupDeps {
    /// The specification; whoever changes it stores it here first and sends [`Apply`] then.
    pub spec: ArcSwap<GroupSpec>,
    runtime: Arc<RuleRuntime>,
    /// A slot of its own: users' queries cannot take it.
    gateway: Reserved<QueryGateway>,
    current: ArcSwap<Current>,
    /// The due time that was taken last, or the one before the first; none before the actor has started.
    last_due: Mutex<Option<i64>>,
    /// Evaluations until the `for` of alerts is restored; none when there is nothing to restore any more.
    restore_in: Mutex<Option<u32>>,
    /// When the group was taken out of the configuration, if it was.
    removed_at: Mutex<Option<i64>>,
    /// Why the actor has failed, until an evaluation succeeds.
    failed: ArcSwapOption<String>,
    metrics: GroupMetrics,
}

/// A specification in effect, with what its rules remember.
struct Current {
    spec: Arc<GroupSpec>,
    rules: Vec<RuleSlot>,
    /// Series of rules that are gone; they still need their stale markers.
    leftover: Mutex<Vec<Labels>>,
    times: Mutex<Times>,
}

#[derive(Clone, Copy, Default)]
struct Times {
    evaluated_at: Option<i64>,
    took: Duration,
}

struct RuleSlot {
    state: ArcSwap<RuleState>,
    log: Mutex<RepeatLimiter>,
}

impl RuleSlot {
    /// Changes the state; only the group's actor does.
    fn update(&self, change: impl FnOnce(&mut RuleState)) {
        let mut state = RuleState::clone(&self.state.load());
        change(&mut state);
        self.state.store(Arc::new(state));
    }
}

impl Current {
    fn new(spec: Arc<GroupSpec>, carried: CarriedOver, times: Times) -> Arc<Self> {
        let slot = |state| RuleSlot { state: ArcSwap::from_pointee(state), log: Mutex::default() };
        let rules = carried.rules.into_iter().map(slot).collect();
        Arc::new(Self { spec, rules, leftover: Mutex::new(carried.leftover), times: Mutex::new(times) })
    }

    fn rules(&self) -> impl Iterator<Item = (usize, &RuleSpec, &RuleSlot)> {
        self.spec.rules.iter().zip(&self.rules).enumerate().map(|(index, (rule, slot))| (index, rule, slot))
    }
}

/// A group as the API shows it, readable while the actor is stuck.
pub struct GroupView {
    /// The specification in effect.
    pub spec: Arc<GroupSpec>,
    /// What its rules know, in their order.
    pub rules: Vec<Arc<RuleState>>,
    /// When the last evaluation began, in nanoseconds since the epoch.
    pub evaluated_at: Option<i64>,
    /// How long it took.
    pub took: Duration,
}

impl GroupDeps {
    /// A group that was not evaluated yet. `restored`: there is no earlier `for` of its alerts to look up.
    pub fn new(spec: GroupSpec, runtime: Arc<RuleRuntime>, restored: bool) -> Arc<Self> {
        let spec = Arc::new(spec);
        let rules = spec.rules.iter().map(|_| RuleState::new(restored)).collect();
        let current =
            Current::new(Arc::clone(&spec), CarriedOver { rules, ..CarriedOver::default() }, Times::default());
        let metrics = runtime.metrics.group(&spec.key());
        metrics.describe(spec.rules.len(), spec.interval.as_secs_f64());
        Arc::new(Self {
            spec: ArcSwap::from(spec),
            gateway: runtime.gateway.reserve(),
            runtime,
            current: ArcSwap::from(current),
            last_due: Mutex::default(),
            restore_in: Mutex::new((!restored).then_some(EVALUATIONS_BEFORE_RESTORE)),
            removed_at: Mutex::default(),
            failed: ArcSwapOption::empty(),
            metrics,
        })
    }

    /// What the API shows.
    pub fn view(&self) -> GroupView {
        let current = self.current.load();
        let times = *current.times.lock();
        let failed = self.failed.load_full();
        let rule = |slot: &RuleSlot| {
            let state = slot.state.load_full();
            let Some(reason) = &failed else { return state };
            Arc::new(RuleState { health: Health::Bad, last_error: String::clone(reason), ..RuleState::clone(&state) })
        };
        GroupView {
            spec: Arc::clone(&current.spec),
            rules: current.rules.iter().map(rule).collect(),
            evaluated_at: times.evaluated_at,
            took: times.took,
        }
    }

    /// Whether the specification is in effect.
    pub fn is_current(&self) -> bool {
        Arc::ptr_eq(&self.spec.load(), &self.current.load().spec)
    }

    /// For the manager: the group is no longer in the configuration.
    pub fn mark_removed(&self) {
        self.removed_at.lock().get_or_insert_with(|| self.runtime.clock.unix_nanos());
    }

    /// For the manager, when the actor has failed for good: says so on `/rules`.
    pub fn mark_failed(&self, reason: &str) {
        self.failed.store(Some(Arc::new(format!("the group's actor has failed: {reason}"))));
    }

    fn is_superseded(&self, current: &Arc<Current>) -> bool {
        !Arc::ptr_eq(&self.spec.load(), &current.spec) || self.removed_at.lock().is_some()
    }

    fn next_due(&self, now: i64) -> Due {
        let schedule = Schedule::of(&self.current.load().spec);
        let mut last_due = self.last_due.lock();
        let last = schedule.since(*last_due, now);
        *last_due = Some(last);
        schedule.next(last, now)
    }

    /// Puts the specification into effect. Rules that stay keep what they remember.
    fn adopt(&self) {
        let (spec, current) = (self.spec.load_full(), self.current.load_full());
        if Arc::ptr_eq(&spec, &current.spec) {
            return;
        }
        let states: Vec<_> = current.rules.iter().map(|slot| slot.state.load_full()).collect();
        let mut carried = carry_over(&current.spec, &states, &spec);
        carried.leftover.extend(current.leftover.lock().iter().cloned());
        if spec.interval != current.spec.interval {
            *self.last_due.lock() = Some(Schedule::of(&spec).slot(self.runtime.clock.unix_nanos()));
        }
        self.metrics.describe(spec.rules.len(), spec.interval.as_secs_f64());
        let times = *current.times.lock();
        self.current.store(Current::new(spec, carried, times));
    }

    fn interval(&self) -> Duration {
        self.current.load().spec.interval.to_std()
    }
}

/// The time for an evaluation, or for the stale markers of a removed group, may have come.
#[derive(Message)]
#[rtype(result = "()")]
struct Tick;

/// The specification has changed, or the group was removed: do what it says.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Apply;

/// The actor.
pub struct RuleGroup {
    deps: Arc<GroupDeps>,
    work: Work,
    timer: Option<SpawnHandle>,
    /// Numbers evaluations, so that one that was cancelled does not count when it ends.
    turn: u64,
}

enum Work {
    Idle,
    Evaluating(SpawnHandle),
    Ending,
}

impl RuleGroup {
    /// A group that is evaluated from its next due time on.
    pub fn new(deps: Arc<GroupDeps>) -> Self {
        Self { deps, work: Work::Idle, timer: None, turn: 0 }
    }

    /// Waits for the next due time. A removed group waits for two intervals: by then, whoever goes on with its series has
    /// written them.
    fn arm(&mut self, ctx: &mut Context<Self>) {
        let now = self.deps.runtime.clock.unix_nanos();
        let wait = match *self.deps.removed_at.lock() {
            Some(removed_at) => {
                let since = Duration::from_nanos(u64::try_from(now.saturating_sub(removed_at)).unwrap_or(0));
                self.deps.interval().saturating_mul(2).saturating_sub(since)
            }
            None => self.deps.next_due(now).wait(now),
        };
        self.wait(wait, ctx);
    }

    fn wait(&mut self, wait: Duration, ctx: &mut Context<Self>) {
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        self.timer = Some(ctx.notify_later(Tick, wait));
    }

    fn evaluate(&mut self, due: Due, ctx: &mut Context<Self>) {
        let deps = Arc::clone(&self.deps);
        // A due time is taken when its evaluation begins: a panic costs it, and never repeats it.
        *deps.last_due.lock() = Some(due.at_nanos);
        deps.metrics.missed.add(due.missed);
        deps.metrics.scheduled.add(due.missed + 1);
        self.turn += 1;
        let turn = self.turn;
        let work = async move {
            let current = deps.current.load_full();
            deps.iterate(current, due.at_nanos).await;
        };
        let done = move |(), group: &mut Self, ctx: &mut Context<Self>| {
            if group.turn == turn {
                group.work = Work::Idle;
                group.arm(ctx);
            }
        };
        self.work = Work::Evaluating(ctx.spawn(work.into_actor(self).map(done)));
    }

    fn end(&mut self, removed_at: i64, ctx: &mut Context<Self>) {
        let deps = Arc::clone(&self.deps);
        let work = async move { deps.end(removed_at).await };
        ctx.spawn(work.into_actor(self).map(|ended, group, ctx: &mut Context<Self>| {
            if ended {
                return ctx.stop();
            }
            group.work = Work::Idle;
            group.wait(group.deps.interval(), ctx);
        }));
        self.work = Work::Ending;
    }
}

impl Actor for RuleGroup {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.deps.adopt();
        self.arm(ctx);
    }
}

impl Supervised for RuleGroup {
    fn restarting(&mut self, _: &mut Context<Self>) {
        (self.work, self.timer) = (Work::Idle, None);
    }
}

impl SupervisedActor for RuleGroup {
    const KIND: &'static Kind = &RULE_GROUP;
}

impl Handler<Tick> for RuleGroup {
    type Result = ();

    fn handle(&mut self, _: Tick, ctx: &mut Context<Self>) {
        if !matches!(self.work, Work::Idle) {
            return;
        }
        let removed_at = *self.deps.removed_at.lock();
        if let Some(removed_at) = removed_at {
            return self.end(removed_at, ctx);
        }
        let now = self.deps.runtime.clock.unix_nanos();
        let due = self.deps.next_due(now);
        if now < due.at_nanos { self.arm(ctx) } else { self.evaluate(due, ctx) }
    }
}

impl Handler<Admitted<Apply>> for RuleGroup {
    type Result = ();

    /// An evaluation of what the group was before is given up: what it has learned so far is stored.
    fn handle(&mut self, _: Admitted<Apply>, ctx: &mut Context<Self>) {
        if !self.deps.is_superseded(&self.deps.current.load_full()) || matches!(self.work, Work::Ending) {
            return;
        }
        if let Work::Evaluating(handle) = std::mem::replace(&mut self.work, Work::Idle) {
            self.turn += 1;
            ctx.cancel_future(handle);
        }
        self.deps.adopt();
        self.arm(ctx);
    }
}

impl Handler<Control<Drain>> for RuleGroup {
    type Result = ();

    fn handle(&mut self, _: Control<Drain>, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}
