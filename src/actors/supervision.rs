//! Our own supervisor: a future that owns an actor's context, catches the unwinding of each poll and restarts the actor
//! after a back-off. Address and mailbox survive; messages behind the fatal one are handled. (Actix's own supervisor is
//! the task that dies, so it restarts nothing after a panic.)
//!
//! An actor is `{ deps, state }`: what it was given, kept, and what it has learned, rebuilt from `deps` in
//! `Supervised::restarting`. `started` runs after each restart as well; timers begin there.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;

use actix::dev::channel::{AddressReceiver, channel};
use actix::dev::{ContextFut, Mailbox};
use actix::{Actor, Addr, ArbiterHandle, Handler, Supervised};
use tokio::time::{Instant, sleep};

use crate::actors::context::Context;
use crate::actors::control::{ChildFailed, Control, Drain, WeakSignal};
use crate::actors::current;
#[cfg(debug_assertions)]
use crate::actors::failpoint::{self, Point};
use crate::actors::kind::Kind;
use crate::actors::mailbox::BoundedAddr;
use crate::actors::panics::catch;
use crate::actors::policy::{Policy, Restarts, Verdict};
use crate::actors::registry::{ActorState, ActorTree, Entry};

/// What every actor of ours is: an actix actor in our context that rebuilds its state and ends in order.
pub trait SupervisedActor: Actor<Context = Context<Self>> + Supervised + Handler<Control<Drain>, Result = ()> {
    /// Its kind, listed in [`kind::ALL`](crate::actors::kind::ALL).
    const KIND: &'static Kind;
}

/// Where in the tree an actor is to stand.
pub struct Place {
    tree: Arc<ActorTree>,
    pub(super) parent: Option<Parent>,
    pub(super) name: String,
    pub(super) slots: Option<u32>,
}

impl Place {
    /// The top of the tree.
    pub fn root(tree: &Arc<ActorTree>, name: impl Into<String>) -> Self {
        Self { tree: Arc::clone(tree), parent: None, name: name.into(), slots: None }
    }

    /// With another number of slots than the kind's.
    #[must_use]
    pub fn slots(self, slots: u32) -> Self {
        Self { slots: Some(slots), ..self }
    }
}

/// An actor as the parent of others: it hears [`ChildFailed`] when one of them fails.
#[derive(Clone)]
pub struct Parent {
    entry: Arc<Entry>,
    child_failed: Arc<dyn Fn() + Send + Sync>,
}

impl Parent {
    /// The place of a child with this name.
    pub fn place(&self, name: impl Into<String>) -> Place {
        Place { tree: Arc::clone(self.entry.tree()), parent: Some(self.clone()), name: name.into(), slots: None }
    }

    pub(super) fn entry(&self) -> &Entry {
        &self.entry
    }
}

impl<A: SupervisedActor + Handler<Control<ChildFailed>, Result = ()>> BoundedAddr<A> {
    /// This actor as the parent of others. Its children do not keep it alive.
    pub fn parent(&self) -> Parent {
        let signal = WeakSignal::new(self);
        Parent { entry: Arc::clone(self.entry()), child_failed: Arc::new(move || signal.child_failed()) }
    }
}

/// Starts an actor on the arbiter's thread. The factory is called there, again after a panic of its own, and dropped once
/// it has made the actor. The actor lives until it stops itself, as after [`Drain`], or until its last address is dropped
/// and its mailbox is empty; futures and timers that it has then are dropped.
pub fn spawn<A, F>(arbiter: &ArbiterHandle, policy: Policy, place: Place, factory: F) -> BoundedAddr<A>
where
    A: SupervisedActor,
    F: FnMut(&mut Context<A>) -> A + Send + 'static,
{
    let tree = Arc::clone(&place.tree);
    let entry = tree.enter(A::KIND, place);
    // Capacity 0 is no limit in actix: the limit is in the slots.
    let (sender, receiver) = channel(0);
    let present = Present(Arc::clone(&entry));
    let seed = tree.jitter_seed();
    let restarts = Restarts::new(policy, seed);
    // Should the arbiter have ended, the closure is dropped here, and `present` with it marks the actor ended.
    arbiter.spawn_fn(move || {
        let supervisor = Box::new(Supervisor { present, restarts, epoch: Instant::now() });
        actix::spawn(supervisor.run(receiver, factory));
    });
    BoundedAddr::new(Addr::new(sender), entry)
}

/// While this lives, the actor is in the tree.
struct Present(Arc<Entry>);

impl Drop for Present {
    fn drop(&mut self) {
        self.0.tree().leave(&self.0);
    }
}

struct Supervisor {
    present: Present,
    restarts: Restarts,
    /// The policy counts time from here.
    epoch: Instant,
}

/// Whether to go on after a panic.
#[derive(PartialEq)]
enum Next {
    Again,
    End,
}

impl Supervisor {
    async fn run<A, F>(mut self: Box<Self>, receiver: AddressReceiver<A>, factory: F)
    where
        A: SupervisedActor,
        F: FnMut(&mut Context<A>) -> A,
    {
        // What is needed seldom is boxed, here and below, so that an idle actor's task stays small.
        let Some(mut life) = Box::pin(self.make(receiver, factory)).await else { return };
        // Each turn of the outer loop is one life, from `started` to a panic or to the end.
        while let Err(mut panic) = std::future::poll_fn(|task| life.poll(self.entry(), task)).await {
            loop {
                if Box::pin(self.after_panic(&panic)).await == Next::End {
                    return;
                }
                match life.restart(self.entry()) {
                    Ok(true) => break,
                    // All addresses have been dropped meanwhile: nobody can want anything of it.
                    Ok(false) => return,
                    Err(again) => panic = again,
                }
            }
            self.drain_again(&life);
        }
    }

    fn entry(&self) -> &Arc<Entry> {
        &self.present.0
    }

    async fn make<A, F>(&mut self, receiver: AddressReceiver<A>, mut factory: F) -> Option<Life<A>>
    where
        A: SupervisedActor,
        F: FnMut(&mut Context<A>) -> A,
    {
        let mailbox = Mailbox::new(receiver);
        loop {
            let entry = Arc::clone(self.entry());
            let made = catch(|| {
                let _scope = current::enter(&entry);
                let mut ctx = Context::new(&mailbox, Arc::clone(&entry));
                let actor = factory(&mut ctx);
                (ctx, actor)
            });
            match made {
                Ok((ctx, actor)) => {
                    return Some(Life { future: Some(Box::pin(ContextFut::new(ctx, actor, mailbox))) });
                }
                Err(panic) => {
                    if self.after_panic(&panic).await == Next::End || !mailbox.connected() {
                        return None;
                    }
                }
            }
        }
    }

    /// Waits as the policy says. An actor that is being drained is restarted to finish its work, but not given a rest.
    async fn after_panic(&mut self, panic: &str) -> Next {
        let entry = Arc::clone(self.entry());
        entry.set_last_panic(panic);
        let (kind, actor) = (entry.kind.name, entry.name());
        match self.restarts.on_failure(self.epoch.elapsed()) {
            Verdict::Restart(delay) => {
                entry.set_state(ActorState::BackingOff);
                tracing::warn!(component = "actors", kind, actor, ?delay, "restarting an actor after a panic");
                pause(delay).await;
            }
            Verdict::Failed(rest) => {
                if entry.drain_deadline().is_some() {
                    return Next::End;
                }
                entry.set_state(ActorState::Failed);
                tracing::error!(component = "actors", kind, actor, panic, "an actor panics too often and rests");
                if let Some(parent) = &entry.parent {
                    (parent.child_failed)();
                }
                tokio::select! {
                    () = sleep(rest) => {}
                    () = entry.wake.notified() => {}
                }
                if entry.drain_deadline().is_some() {
                    return Next::End;
                }
                self.restarts.on_retry(self.epoch.elapsed());
            }
        }
        entry.set_state(ActorState::Starting);
        entry.count_restart();
        Next::Again
    }

    /// The restarted actor has forgotten that it was told to end.
    fn drain_again<A: SupervisedActor>(&self, life: &Life<A>) {
        let entry = self.entry();
        if let (Some(deadline), Some(future)) = (entry.drain_deadline(), &life.future) {
            // The actor is alive and holds its own mailbox, so the message cannot be refused.
            let _ = BoundedAddr::new(future.address(), Arc::clone(entry)).signal(Drain { deadline });
        }
    }
}

async fn pause(delay: Duration) {
    if delay.is_zero() {
        // Other actors of the thread come first even when the restart is immediate.
        tokio::task::yield_now().await;
    } else {
        sleep(delay).await;
    }
}

type ActorTask<A> = Pin<Box<ContextFut<A, Context<A>>>>;

/// An actor in its context. Dropping it runs the actor's last hooks and destructors; their panics end here.
struct Life<A: SupervisedActor> {
    future: Option<ActorTask<A>>,
}

impl<A: SupervisedActor> Life<A> {
    /// Ready with `Ok` when the actor has stopped, with the panic's text when it panicked.
    fn poll(&mut self, entry: &Arc<Entry>, task: &mut task::Context<'_>) -> Poll<Result<(), String>> {
        let Some(future) = self.future.as_mut() else { return Poll::Ready(Ok(())) };
        let _scope = current::enter(entry);
        let polled = catch(|| {
            #[cfg(debug_assertions)]
            if entry.state() == ActorState::Starting {
                failpoint::hit(entry.kind.name, entry.name(), Point::Started);
            }
            future.ctx().begin_poll();
            let polled = future.as_mut().poll(task);
            let ctx = future.ctx();
            (polled, ctx.wants_another_poll() || ctx.stop_if_unreachable())
        });
        match polled {
            Ok((Poll::Pending, more)) => {
                entry.set_started();
                if more {
                    task.waker().wake_by_ref();
                }
                Poll::Pending
            }
            Ok((Poll::Ready(()), _)) => Poll::Ready(Ok(())),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    }

    /// Drops the actor's futures and timers, and lets it rebuild its state. False when no address is left.
    fn restart(&mut self, entry: &Arc<Entry>) -> Result<bool, String> {
        let Some(future) = self.future.as_mut() else { return Ok(false) };
        let _scope = current::enter(entry);
        catch(|| {
            #[cfg(debug_assertions)]
            failpoint::hit(entry.kind.name, entry.name(), Point::Restarting);
            future.restart()
        })
    }
}

impl<A: SupervisedActor> Drop for Life<A> {
    fn drop(&mut self) {
        let future = self.future.take();
        if let Err(panic) = catch(|| drop(future)) {
            tracing::error!(component = "actors", kind = A::KIND.name, panic, "an actor panicked as it ended");
        }
    }
}
