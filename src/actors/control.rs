//! Control messages: each says "look again", so one of a kind in the mailbox is enough and they need no slot.
//! Invariant: at most one of each kind is queued for an actor, so they cannot pile up however often they are sent.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use actix::dev::{Envelope, EnvelopeProxy, OneshotSender, ToEnvelope};
use actix::{Handler, Message, WeakAddr};
use tokio::time::Instant;

use crate::actors::context::Context;
use crate::actors::mailbox::{BoundedAddr, SendError};
use crate::actors::registry::{ActorState, Entry};
use crate::actors::supervision::SupervisedActor;

/// A control message on its way. Only [`BoundedAddr::signal`] makes one.
pub struct Control<C>(pub C);

impl<C: 'static> Message for Control<C> {
    type Result = ();
}

/// What may travel as [`Control`].
pub trait ControlMessage: Send + 'static {
    /// Which of the kinds that are coalesced separately.
    const KIND: ControlKind;

    /// Called when the message is sent, coalesced or not.
    fn on_sent(&self, _actor: &Entry) {}

    /// Called before the handler runs.
    fn on_handled(&self, _actor: &Entry) {}
}

/// The kinds of control messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ControlKind {
    /// [`Drain`].
    Drain = 1,
    /// [`Reload`].
    Reload = 2,
    /// [`ChildFailed`].
    ChildFailed = 4,
}

/// Take no new work, finish or hand back what is there by the deadline, then `ctx.stop()`. The first deadline holds. An
/// actor that panics meanwhile is told again after its restart; one that has failed ends.
#[derive(Clone, Copy, Debug)]
pub struct Drain {
    /// When the actor must have stopped.
    pub deadline: Instant,
}

/// The specification in `deps` has changed: look again. A failed actor is tried again at once.
#[derive(Clone, Copy, Debug)]
pub struct Reload;

/// A child has failed: look at the children for which.
#[derive(Clone, Copy, Debug)]
pub struct ChildFailed;

impl ControlMessage for Drain {
    const KIND: ControlKind = ControlKind::Drain;

    fn on_sent(&self, actor: &Entry) {
        actor.set_drain(self.deadline);
        actor.wake.notify_one();
    }

    fn on_handled(&self, actor: &Entry) {
        actor.set_state(ActorState::Draining);
    }
}

impl ControlMessage for Reload {
    const KIND: ControlKind = ControlKind::Reload;

    fn on_sent(&self, actor: &Entry) {
        if actor.state() == ActorState::Failed {
            actor.wake.notify_one();
        }
    }
}

impl ControlMessage for ChildFailed {
    const KIND: ControlKind = ControlKind::ChildFailed;
}

/// What became of a control message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signalled {
    /// It is queued.
    Queued,
    /// One of its kind was queued already and stands for both.
    Coalesced,
}

impl<A: SupervisedActor> BoundedAddr<A> {
    /// Sends a control message without waiting and without a slot. `Gone`: the actor has ended. A failed actor keeps the
    /// message for its next try.
    pub fn signal<C: ControlMessage>(&self, control: C) -> Result<Signalled, SendError>
    where
        A: Handler<Control<C>, Result = ()>,
    {
        let entry = self.entry();
        if entry.state() == ActorState::Ended {
            return Err(SendError::Gone);
        }
        control.on_sent(entry);
        let bit = C::KIND as u8;
        if entry.controls.fetch_or(bit, Ordering::AcqRel) & bit != 0 {
            entry.metrics.coalesced.inc();
            return Ok(Signalled::Coalesced);
        }
        // The mailbox itself has no limit, so the only error is a closed one.
        self.post(Control(control)).map(|()| Signalled::Queued)
    }
}

/// An address for control messages that does not keep its actor alive, for links from child to parent.
pub(super) struct WeakSignal<A: SupervisedActor> {
    addr: WeakAddr<A>,
    entry: Arc<Entry>,
}

impl<A: SupervisedActor + Handler<Control<ChildFailed>, Result = ()>> WeakSignal<A> {
    pub(super) fn new(addr: &BoundedAddr<A>) -> Self {
        Self { addr: addr.raw().downgrade(), entry: Arc::clone(addr.entry()) }
    }

    /// Tells the actor that a child has failed. A parent that has ended needs no telling.
    pub(super) fn child_failed(&self) {
        if let Some(addr) = self.addr.upgrade() {
            let _ = BoundedAddr::new(addr, Arc::clone(&self.entry)).signal(ChildFailed);
        }
    }
}

struct ControlEnvelope<C> {
    control: Option<C>,
}

impl<A, C> EnvelopeProxy<A> for ControlEnvelope<C>
where
    A: SupervisedActor + Handler<Control<C>, Result = ()>,
    C: ControlMessage,
{
    fn handle(&mut self, actor: &mut A, ctx: &mut Context<A>) {
        let Some(control) = self.control.take() else { return };
        // From here on the same kind is queued anew: the handler may already have looked.
        ctx.entry().controls.fetch_and(!(C::KIND as u8), Ordering::AcqRel);
        control.on_handled(ctx.entry());
        ctx.begin_message(std::any::type_name::<C>());
        // The answer is `()`: what takes longer is spawned into the context, where supervision sees it.
        <A as Handler<Control<C>>>::handle(actor, Control(control), ctx);
        ctx.end_message();
    }
}

impl<A, C> ToEnvelope<A, Control<C>> for Context<A>
where
    A: SupervisedActor + Handler<Control<C>, Result = ()>,
    C: ControlMessage,
{
    fn pack(message: Control<C>, _: Option<OneshotSender<()>>) -> Envelope<A> {
        Envelope::with_proxy(Box::new(ControlEnvelope { control: Some(message.0) }))
    }
}
