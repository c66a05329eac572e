//! The top of the tree. Owns the list of the parts below it. Started by the command line's server. Bound: control messages
//! and a pulse. Failure: restarts, finds its parts in `deps`; failed, the process ends with status 1. Shutdown: drains its parts,
//! sources first, then ends.

use std::sync::Arc;

use actix::ArbiterHandle;
use actix::prelude::{Actor, ActorContext, ActorFutureExt, AsyncContext, Handler, Message, Supervised, WrapFuture};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::actors::context::Context;
use crate::actors::control::{ChildFailed, Control, Drain};
use crate::actors::drain::{self, Drainable, Stage, Unfinished};
use crate::actors::kind::{Kind, Rank};
use crate::actors::mailbox::{Admitted, BoundedAddr};
use crate::actors::policy::Policy;
use crate::actors::supervision::{self, Parent, Place, SupervisedActor};

/// The root's kind.
pub static ROOT: Kind = Kind { name: "root", rank: Rank::ROOT, slots: 1 };

/// The running root, as the server holds it.
#[derive(Clone)]
pub struct Root {
    addr: BoundedAddr<RootActor>,
    deps: Arc<RootDeps>,
}

#[derive(Default)]
struct RootDeps {
    parts: Mutex<Vec<(Stage, Arc<dyn Drainable>)>>,
    /// Set once the root has drained.
    unfinished: Mutex<Option<Vec<Unfinished>>>,
}

/// How the root ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootEnd {
    /// It has drained; these actors did not end in time.
    Drained(Vec<Unfinished>),
    /// It panicked too often: the process must end with status 1.
    Failed,
}

/// Say that you live.
#[derive(Message)]
#[rtype(result = "()")]
struct Pulse;

/// Starts the root.
pub fn start(arbiter: &ArbiterHandle, place: Place) -> Root {
    let deps = Arc::new(RootDeps::default());
    let for_actor = Arc::clone(&deps);
    let make = move |_: &mut Context<RootActor>| RootActor { deps: Arc::clone(&for_actor), state: RootState::Running };
    let addr = supervision::spawn(arbiter, Policy::PERMANENT, place, make);
    Root { addr, deps }
}

impl Root {
    /// The actor's address.
    pub fn addr(&self) -> &BoundedAddr<RootActor> {
        &self.addr
    }

    /// The root as the parent of the parts below it.
    pub fn parent(&self) -> Parent {
        self.addr.parent()
    }

    /// Adds a part, to be drained at this stage.
    pub fn add<A: SupervisedActor>(&self, stage: Stage, part: BoundedAddr<A>) {
        self.deps.parts.lock().push((stage, Arc::new(part)));
    }

    /// Tells everything to end by the deadline. [`end`](Self::end) returns when it has.
    pub fn drain(&self, deadline: Instant) {
        // A root that has ended already needs no telling.
        let _ = self.addr.signal(Drain { deadline });
    }

    /// Whether the root takes messages: it answers by the deadline.
    pub async fn is_alive(&self, deadline: Instant) -> bool {
        self.addr.ask(Pulse, deadline).await.is_ok()
    }

    /// Returns when the root has drained, or given up.
    pub async fn end(&self) -> RootEnd {
        self.addr.entry().refuses().await;
        self.deps.unfinished.lock().clone().map_or(RootEnd::Failed, RootEnd::Drained)
    }
}

/// The actor itself.
pub struct RootActor {
    deps: Arc<RootDeps>,
    state: RootState,
}

enum RootState {
    Running,
    Draining,
}

impl Actor for RootActor {
    type Context = Context<Self>;
}

impl Supervised for RootActor {
    fn restarting(&mut self, _: &mut Context<Self>) {
        self.state = RootState::Running;
    }
}

impl SupervisedActor for RootActor {
    const KIND: &'static Kind = &ROOT;
}

impl Handler<Admitted<Pulse>> for RootActor {
    type Result = ();

    fn handle(&mut self, _: Admitted<Pulse>, _: &mut Context<Self>) {}
}

impl Handler<Control<Drain>> for RootActor {
    type Result = ();

    fn handle(&mut self, Control(drain): Control<Drain>, ctx: &mut Context<Self>) {
        if let RootState::Draining = self.state {
            return;
        }
        let deps = Arc::clone(&self.deps);
        // The first deadline holds, also after a restart.
        let deadline = ctx.drain_deadline().unwrap_or(drain.deadline);
        let work = async move {
            let parts = deps.parts.lock().clone();
            drain::in_order(&parts, deadline).await
        };
        let finish = |unfinished, root: &mut Self, ctx: &mut Context<Self>| {
            *root.deps.unfinished.lock() = Some(unfinished);
            ctx.stop();
        };
        self.state = RootState::Draining;
        ctx.spawn(work.into_actor(self).map(finish));
    }
}

impl Handler<Control<ChildFailed>> for RootActor {
    type Result = ();

    /// What a failed part means is shown by readiness, `/targets` and `/rules`; its failure is in the log already.
    fn handle(&mut self, _: Control<ChildFailed>, _: &mut Context<Self>) {}
}
