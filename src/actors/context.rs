//! The context that our actors run in. It is actix's, with three additions: only [`Admitted`](super::mailbox::Admitted) and
//! [`Control`](super::control::Control) messages can be sent to it, so no bound can be passed by; each poll handles a
//! limited number of messages, so a flood does not hold up timers; and what an actor works on is known to other threads.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{self, Poll};
use std::time::Duration;

use actix::dev::{AsyncContextParts, ContextParts, Mailbox, MessageResponse};
use actix::utils::{IntervalFunc, TimerFunc};
use actix::{
    Actor, ActorContext, ActorFuture, ActorFutureExt, ActorState as ActixState, ActorStreamExt, Addr, AsyncContext,
    Handler, Message, SpawnHandle,
};
use pin_project_lite::pin_project;
use tokio::time::Instant;

use crate::actors::control::{ChildFailed, Control};
use crate::actors::current;
#[cfg(debug_assertions)]
use crate::actors::failpoint::{self, Point};
use crate::actors::mailbox::BoundedAddr;
use crate::actors::registry::{ActorState, Entry};
use crate::actors::supervision::{Parent, SupervisedActor};

/// How many messages one poll of an actor handles before its timers and futures, and other actors, get their turn.
/// Actix alone drains the mailbox until it is empty: a flood held up a 1 ms timer for 117 ms.
const MESSAGES_PER_POLL: u32 = 32;

/// An actor's execution context.
pub struct Context<A: Actor<Context = Self>> {
    parts: ContextParts<A>,
    entry: Arc<Entry>,
    budget: u32,
    handling_since: Option<Instant>,
}

impl<A: SupervisedActor> Context<A> {
    pub(super) fn new(mailbox: &Mailbox<A>, entry: Arc<Entry>) -> Self {
        Self {
            parts: ContextParts::new(mailbox.sender_producer()),
            entry,
            budget: MESSAGES_PER_POLL,
            handling_since: None,
        }
    }

    /// The actor's own address. An actor that keeps it in its state lives until it is drained.
    pub fn bounded_address(&self) -> BoundedAddr<A> {
        BoundedAddr::new(self.parts.address(), Arc::clone(&self.entry))
    }

    /// The actor as the parent of actors that it spawns.
    pub fn parent(&self) -> Parent
    where
        A: Handler<Control<ChildFailed>, Result = ()>,
    {
        self.bounded_address().parent()
    }

    /// The deadline of the drain, once the actor was told to end.
    pub fn drain_deadline(&self) -> Option<Instant> {
        self.entry.drain_deadline()
    }

    /// Rebuilds state by a future while messages wait; the actor shows as `rebuilding`. For what takes over 1 ms, on the
    /// compute pool; called from `restarting` or `started`.
    pub fn rebuild<F>(&mut self, future: F)
    where
        F: ActorFuture<A, Output = ()> + 'static,
    {
        self.entry.set_state(ActorState::Rebuilding);
        self.wait(future.map(|(), _, ctx: &mut Self| ctx.entry.set_state(ActorState::Running)));
    }

    pub(super) fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }

    /// Called by the supervisor before each poll.
    pub(super) fn begin_poll(&mut self) {
        self.budget = MESSAGES_PER_POLL;
    }

    /// Whether the last poll ended because its messages were used up, and more may wait.
    pub(super) fn wants_another_poll(&self) -> bool {
        self.budget == 0
    }

    /// Stops the actor when no address is left and no message waits: nobody can reach it, not even to drain it. Actix alone
    /// keeps it as long as a timer of it runs. Returns whether it did.
    pub(super) fn stop_if_unreachable(&mut self) -> bool {
        let queued = self.entry.queue.load(Ordering::Acquire) != 0 || self.entry.controls.load(Ordering::Acquire) != 0;
        let stop = !self.parts.connected() && !queued && self.parts.state() == ActixState::Running;
        if stop {
            self.parts.stop();
        }
        stop
    }

    /// Called before each message's handler, in the actor's task.
    pub(super) fn begin_message(&mut self, name: &'static str) {
        self.budget = self.budget.saturating_sub(1);
        self.handling_since = Some(Instant::now());
        self.entry.set_started();
        current::doing(name);
        #[cfg(debug_assertions)]
        failpoint::hit(self.entry.kind.name, self.entry.name(), Point::Handler);
    }

    /// Called after each message's handler, unless it panicked.
    pub(super) fn end_message(&mut self) {
        if let Some(since) = self.handling_since.take() {
            self.entry.count_handled(since.elapsed().as_secs_f64());
        }
        current::doing("futures and timers");
    }
}

impl<A: Actor<Context = Self>> Context<A> {
    fn spawn_timer<F>(&mut self, future: F) -> SpawnHandle
    where
        F: ActorFuture<A, Output = ()> + 'static,
    {
        self.parts.spawn(Watched { future, role: Role::Timer, entry: Arc::clone(&self.entry) })
    }
}

/// Called as a timer fires, in the actor's task.
fn begin_timer(entry: &Entry, name: &'static str) {
    current::doing(name);
    #[cfg(debug_assertions)]
    failpoint::hit(entry.kind.name, entry.name(), Point::Timer);
    #[cfg(not(debug_assertions))]
    let _ = entry;
}

impl<A: Actor<Context = Self>> ActorContext for Context<A> {
    fn stop(&mut self) {
        self.parts.stop();
    }

    fn terminate(&mut self) {
        self.parts.terminate();
    }

    fn state(&self) -> ActixState {
        self.parts.state()
    }
}

impl<A: Actor<Context = Self>> AsyncContext<A> for Context<A> {
    fn address(&self) -> Addr<A> {
        self.parts.address()
    }

    fn spawn<F>(&mut self, future: F) -> SpawnHandle
    where
        F: ActorFuture<A, Output = ()> + 'static,
    {
        self.parts.spawn(Watched { future, role: Role::Future, entry: Arc::clone(&self.entry) })
    }

    fn wait<F>(&mut self, future: F)
    where
        F: ActorFuture<A, Output = ()> + 'static,
    {
        self.parts.wait(Watched { future, role: Role::Future, entry: Arc::clone(&self.entry) });
    }

    fn waiting(&self) -> bool {
        self.budget == 0 || self.parts.waiting()
    }

    /// The future is dropped once the handler has returned; it may be polled once more before.
    ///
    /// Actix keeps a list of cancelled handles across a restart while it numbers futures anew, so that a cancellation just
    /// before a panic hits an innocent timer of the restarted actor. Here the cancellation is a future itself, and is
    /// dropped with the others.
    fn cancel_future(&mut self, handle: SpawnHandle) -> bool {
        self.parts.spawn(Cancellation { handle, done: false });
        true
    }

    fn notify_later<M>(&mut self, message: M, after: Duration) -> SpawnHandle
    where
        A: Handler<M>,
        M: Message + 'static,
    {
        let fire = move |actor: &mut A, ctx: &mut Self| {
            begin_timer(&ctx.entry, std::any::type_name::<M>());
            let answer = <A as Handler<M>>::handle(actor, message, ctx);
            MessageResponse::handle(answer, ctx, None);
        };
        self.spawn_timer(TimerFunc::new(after, fire))
    }

    fn run_later<F>(&mut self, after: Duration, fire: F) -> SpawnHandle
    where
        F: FnOnce(&mut A, &mut Self) + 'static,
    {
        let fire = move |actor: &mut A, ctx: &mut Self| {
            begin_timer(&ctx.entry, std::any::type_name::<F>());
            fire(actor, ctx);
        };
        self.spawn_timer(TimerFunc::new(after, fire))
    }

    fn run_interval<F>(&mut self, every: Duration, mut fire: F) -> SpawnHandle
    where
        F: FnMut(&mut A, &mut Self) + 'static,
    {
        let fire = move |actor: &mut A, ctx: &mut Self| {
            begin_timer(&ctx.entry, std::any::type_name::<F>());
            fire(actor, ctx);
        };
        self.spawn_timer(IntervalFunc::new(every, fire).finish())
    }
}

impl<A: Actor<Context = Self>> AsyncContextParts<A> for Context<A> {
    fn parts(&mut self) -> &mut ContextParts<A> {
        &mut self.parts
    }
}

/// Timers note what they do when they fire, futures at each poll.
#[derive(Clone, Copy, PartialEq)]
enum Role {
    Timer,
    Future,
}

pin_project! {
    /// A future of an actor, known to other threads while it is polled, with the fault tests' points around it.
    struct Watched<F> {
        #[pin]
        future: F,
        role: Role,
        entry: Arc<Entry>,
    }

    impl<F> PinnedDrop for Watched<F> {
        fn drop(this: Pin<&mut Self>) {
            #[cfg(debug_assertions)]
            if !std::thread::panicking() {
                failpoint::hit(this.entry.kind.name, this.entry.name(), Point::Drop);
            }
            #[cfg(not(debug_assertions))]
            let _ = this;
        }
    }
}

impl<A: Actor<Context = Context<A>>, F: ActorFuture<A, Output = ()>> ActorFuture<A> for Watched<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, actor: &mut A, ctx: &mut Context<A>, task: &mut task::Context<'_>) -> Poll<()> {
        let this = self.project();
        if *this.role == Role::Future {
            current::doing(std::any::type_name::<F>());
            #[cfg(debug_assertions)]
            failpoint::hit(this.entry.kind.name, this.entry.name(), Point::Future);
        }
        this.future.poll(actor, ctx, task)
    }
}

struct Cancellation {
    handle: SpawnHandle,
    done: bool,
}

impl<A: Actor<Context = Context<A>>> ActorFuture<A> for Cancellation {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut A, ctx: &mut Context<A>, _: &mut task::Context<'_>) -> Poll<()> {
        if self.done {
            return Poll::Ready(());
        }
        self.done = true;
        // A pending item makes actix look at the cancelled handles before it polls anything else, and then at all items
        // again, this one included.
        ctx.parts.cancel_future(self.handle);
        Poll::Pending
    }
}
