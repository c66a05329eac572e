//! The actor that the fault tests use, and the stage it stands on.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix::prelude::{Actor, ActorContext, ActorFutureExt, AsyncContext, Handler, Message, Supervised, WrapFuture};
use actix::{Arbiter, MessageResult, ResponseActFuture, SpawnHandle};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use watchfire::actors::context::Context;
use watchfire::actors::control::{ChildFailed, Control, Drain, Reload};
use watchfire::actors::kind::{Kind, Rank};
use watchfire::actors::mailbox::{Admitted, BoundedAddr, SendError};
use watchfire::actors::policy::Policy;
use watchfire::actors::registry::{ActorRow, ActorState, ActorTree};
use watchfire::actors::supervision::{self, Place, SupervisedActor};
use watchfire::model::clock::SystemClock;
use watchfire::telemetry::metrics::Registry;

pub(crate) static PROBE: Kind = Kind { name: "probe", rank: Rank::SHARD, slots: 4 };

/// What a probe was given: a log that outlives it, a gate that its slow work waits for, and which hooks are to panic.
#[derive(Default)]
pub(crate) struct ProbeDeps {
    pub(crate) log: Mutex<Vec<String>>,
    pub(crate) gate: Notify,
    /// So many of the next calls of a hook panic: (hook, times).
    pub(crate) panics: Mutex<Vec<(&'static str, u32)>>,
    /// How long the state takes to rebuild, if that is a phase of its own.
    pub(crate) rebuild_for: Mutex<Option<Duration>>,
    pub(crate) adds_begun: AtomicUsize,
}

impl ProbeDeps {
    pub(crate) fn note(&self, what: impl Into<String>) {
        self.log.lock().push(what.into());
    }

    pub(crate) fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock())
    }

    pub(crate) fn count(&self, what: &str) -> usize {
        self.log.lock().iter().filter(|line| *line == what).count()
    }

    pub(crate) fn panic_in(&self, hook: &'static str, times: u32) {
        self.panics.lock().push((hook, times));
    }

    fn maybe_panic(&self, hook: &'static str) {
        let due = self.panics.lock().iter_mut().any(|(name, left)| {
            let due = *name == hook && 0 < *left;
            *left -= u32::from(due);
            due
        });
        assert!(!due, "panic in {hook}");
    }
}

pub(crate) struct Probe {
    pub(crate) deps: Arc<ProbeDeps>,
    sum: u64,
    tick: SpawnHandle,
    fired: bool,
}

impl Probe {
    pub(crate) fn new(deps: &Arc<ProbeDeps>) -> Self {
        deps.note("made");
        deps.maybe_panic("factory");
        Self { deps: Arc::clone(deps), sum: 0, tick: SpawnHandle::default(), fired: false }
    }
}

impl Actor for Probe {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.deps.note("started");
        self.tick = ctx.run_later(Duration::from_secs(600), |probe, _| probe.deps.note("tick"));
        self.deps.maybe_panic("started");
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        self.deps.note("stopped");
        self.deps.maybe_panic("stopped");
    }
}

impl Supervised for Probe {
    fn restarting(&mut self, ctx: &mut Context<Self>) {
        self.deps.note("restarting");
        self.deps.maybe_panic("restarting");
        self.sum = 0;
        if let Some(time) = *self.deps.rebuild_for.lock() {
            let rebuilt = |(), probe: &mut Self, _: &mut Context<Self>| probe.deps.maybe_panic("rebuild");
            ctx.rebuild(tokio::time::sleep(time).into_actor(self).map(rebuilt));
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.deps.maybe_panic("drop");
    }
}

impl SupervisedActor for Probe {
    const KIND: &'static Kind = &PROBE;
}

impl Handler<Control<Drain>> for Probe {
    type Result = ();

    fn handle(&mut self, _: Control<Drain>, ctx: &mut Context<Self>) {
        self.deps.note("drain");
        self.deps.maybe_panic("drain");
        ctx.stop();
    }
}

impl Handler<Control<Reload>> for Probe {
    type Result = ();

    fn handle(&mut self, _: Control<Reload>, _: &mut Context<Self>) {
        self.deps.note("reload");
    }
}

impl Handler<Control<ChildFailed>> for Probe {
    type Result = ();

    fn handle(&mut self, _: Control<ChildFailed>, _: &mut Context<Self>) {
        self.deps.note("child failed");
    }
}

/// Adds to the sum and returns it.
#[derive(Clone, Message)]
#[rtype(result = "u64")]
pub(crate) struct Add(pub(crate) u64);

impl Handler<Admitted<Add>> for Probe {
    type Result = MessageResult<Admitted<Add>>;

    fn handle(&mut self, add: Admitted<Add>, _: &mut Context<Self>) -> Self::Result {
        self.deps.adds_begun.fetch_add(1, Ordering::SeqCst);
        self.deps.note(format!("add {}", add.0));
        self.sum += add.0;
        MessageResult(self.sum)
    }
}

/// Holds its slot until the gate opens, then answers.
#[derive(Message)]
#[rtype(result = "&'static str")]
pub(crate) struct Slow;

impl Handler<Admitted<Slow>> for Probe {
    type Result = ResponseActFuture<Self, &'static str>;

    fn handle(&mut self, slow: Admitted<Slow>, _: &mut Context<Self>) -> Self::Result {
        self.deps.note("slow");
        let deps = Arc::clone(&self.deps);
        let work = async move {
            let asker = slow.asker();
            let answer = tokio::select! {
                () = deps.gate.notified() => "through the gate",
                () = asker.gone() => "nobody waits",
            };
            deps.note(answer);
            drop(slow);
            answer
        };
        Box::pin(work.into_actor(self))
    }
}

/// Goes once through a timer and a future; answers whether the timer fired.
#[derive(Message)]
#[rtype(result = "bool")]
pub(crate) struct Exercise;

impl Handler<Admitted<Exercise>> for Probe {
    type Result = ResponseActFuture<Self, bool>;

    fn handle(&mut self, exercise: Admitted<Exercise>, ctx: &mut Context<Self>) -> Self::Result {
        self.fired = false;
        ctx.run_later(Duration::from_millis(1), |probe, _| probe.fired = true);
        let work = async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            drop(exercise);
        };
        Box::pin(work.into_actor(self).map(|(), probe, _| probe.fired))
    }
}

/// Handles no message for so long.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Hold(pub(crate) Duration);

impl Handler<Admitted<Hold>> for Probe {
    type Result = ();

    fn handle(&mut self, hold: Admitted<Hold>, ctx: &mut Context<Self>) {
        ctx.wait(tokio::time::sleep(hold.0).into_actor(self));
    }
}

/// Asks another probe, which is of the same rank.
#[derive(Message)]
#[rtype(result = "Result<u64, SendError>")]
pub(crate) struct AskOther(pub(crate) BoundedAddr<Probe>);

impl Handler<Admitted<AskOther>> for Probe {
    type Result = ResponseActFuture<Self, Result<u64, SendError>>;

    fn handle(&mut self, ask: Admitted<AskOther>, _: &mut Context<Self>) -> Self::Result {
        let work = async move { ask.0.ask(Add(1), within(1)).await };
        Box::pin(work.into_actor(self))
    }
}

/// Panics in the way that it names.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) enum Panic {
    InHandler,
    InAnswer,
    InSpawned,
    InLater,
    InNotified,
    InInterval,
    InWait,
    InDropOfFuture,
    AfterCancelling,
}

impl Panic {
    pub(crate) const ALL: [Self; 9] = [
        Self::InHandler,
        Self::InAnswer,
        Self::InSpawned,
        Self::InLater,
        Self::InNotified,
        Self::InInterval,
        Self::InWait,
        Self::InDropOfFuture,
        Self::AfterCancelling,
    ];
}

#[derive(Message)]
#[rtype(result = "()")]
struct Boom;

impl Handler<Boom> for Probe {
    type Result = ();

    fn handle(&mut self, _: Boom, _: &mut Context<Self>) {
        panic!("in a notified message");
    }
}

struct PanicsOnDrop;

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        panic!("in a drop");
    }
}

impl Handler<Admitted<Panic>> for Probe {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, how: Admitted<Panic>, ctx: &mut Context<Self>) -> Self::Result {
        const SOON: Duration = Duration::from_millis(1);
        match *how {
            Panic::InHandler => panic!("in a handler"),
            Panic::AfterCancelling => {
                ctx.cancel_future(self.tick);
                panic!("in a handler that cancelled");
            }
            Panic::InAnswer => return Box::pin(async { panic!("in an answer") }.into_actor(self)),
            Panic::InSpawned => drop(ctx.spawn(async { panic!("in a spawned future") }.into_actor(self))),
            Panic::InLater => drop(ctx.run_later(SOON, |_, _| panic!("in a timer"))),
            Panic::InNotified => drop(ctx.notify_later(Boom, SOON)),
            Panic::InInterval => drop(ctx.run_interval(SOON, |_, _| panic!("in an interval"))),
            Panic::InWait => ctx.wait(async { panic!("in a wait") }.into_actor(self)),
            Panic::InDropOfFuture => {
                let bomb = PanicsOnDrop;
                let endless = async move {
                    std::future::pending::<()>().await;
                    drop(bomb);
                };
                let handle = ctx.spawn(endless.into_actor(self));
                ctx.cancel_future(handle);
            }
        }
        // The answer comes only after the panic, which takes it away.
        Box::pin(async { tokio::time::sleep(SOON * 2).await }.into_actor(self).map(|(), _, _| ()))
    }
}

/// A tree of its own for each test.
pub(crate) struct Stage {
    pub(crate) tree: Arc<ActorTree>,
    pub(crate) metrics: Registry,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let metrics = Registry::default();
        Self { tree: ActorTree::new(&[&PROBE], &metrics, SystemClock::shared(), 1), metrics }
    }

    pub(crate) fn spawn(&self, name: &str) -> (BoundedAddr<Probe>, Arc<ProbeDeps>) {
        self.spawn_at(Place::root(&self.tree, name))
    }

    pub(crate) fn spawn_at(&self, place: Place) -> (BoundedAddr<Probe>, Arc<ProbeDeps>) {
        let deps = Arc::new(ProbeDeps::default());
        (self.spawn_with(place, &deps), deps)
    }

    pub(crate) fn spawn_with(&self, place: Place, deps: &Arc<ProbeDeps>) -> BoundedAddr<Probe> {
        let deps = Arc::clone(deps);
        supervision::spawn(&Arbiter::current(), Policy::PERMANENT, place, move |_| Probe::new(&deps))
    }

    pub(crate) fn row(&self, name: &str) -> ActorRow {
        self.tree.rows().into_iter().find(|row| row.name == name).expect("the actor is in the tree")
    }
}

/// Runs a test on a paused clock, which jumps ahead whenever everything waits for it.
pub(crate) fn paused<T>(test: impl Future<Output = T>) -> T {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().start_paused(true).build().expect("a runtime")
    };
    actix::System::with_tokio_rt(runtime).block_on(test)
}

pub(crate) fn within(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

/// Waits, on the paused clock, until the actor is in this state.
pub(crate) async fn reaches(addr: &BoundedAddr<Probe>, state: ActorState) {
    let deadline = within(3600);
    while addr.entry().state() != state {
        assert!(Instant::now() < deadline, "{:?} never became {state:?}", addr.entry().row());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
