//! How messages reach an actor: through slots, with a deadline, and with an error that says what may have happened.
//!
//! Invariants: a message holds its slot until the [`Admitted`] that carries it is dropped; all clones of an address share
//! the slots; the handler never runs for a message whose deadline has passed or whose asker has gone; an asker is told
//! `Full`, `Gone` only when nothing was done and nothing will be.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use actix::dev::{Envelope, EnvelopeProxy, MessageResponse, OneshotSender, ToEnvelope};
use actix::{Actor, ActorResponse, Addr, AtomicResponse, Handler, Message, MessageResult, ResponseActFuture};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use crate::actors::context::Context;
#[cfg(debug_assertions)]
use crate::actors::current;
use crate::actors::registry::{ActorState, Entry};
use crate::actors::supervision::SupervisedActor;

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// No slot was free by the deadline. Nothing was done.
    #[error("the actor's queue is full")]
    Full,
    /// No answer by the deadline. The message may have taken effect.
    #[error("the actor did not answer in time")]
    Deadline,
    /// The actor gave up its work on the message, mostly by a panic. The message may have taken effect.
    #[error("the actor was restarted while it handled the message")]
    Restarted,
    /// The actor has ended, or has failed and rests. Nothing was done.
    #[error("the actor is not running")]
    Gone,
}

impl SendError {
    /// Whether the message may have taken effect all the same.
    pub fn may_have_happened(self) -> bool {
        matches!(self, Self::Deadline | Self::Restarted)
    }
}

/// A message that occupies one of the receiver's slots until it is dropped. An async handler moves it whole into its
/// future; the message comes out only together with its slot.
pub struct Admitted<M> {
    message: M,
    slot: Slot,
    deadline: Option<Instant>,
    ticket: Option<Arc<Ticket>>,
}

/// The slot of a message: the actor has one less until this is dropped.
#[must_use = "the slot is free again when this is dropped"]
pub struct Slot {
    _permit: OwnedSemaphorePermit,
    entry: Arc<Entry>,
    queued: bool,
}

impl Slot {
    /// The message counts as queued until it is taken out of the mailbox, or dropped with it.
    fn queued(permit: OwnedSemaphorePermit, entry: &Arc<Entry>) -> Self {
        entry.queue.fetch_add(1, Ordering::Relaxed);
        Self { _permit: permit, entry: Arc::clone(entry), queued: true }
    }

    fn leave_queue(&mut self) {
        if std::mem::take(&mut self.queued) {
            self.entry.queue.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.leave_queue();
    }
}

/// A slot that was lent to an asker.
#[must_use = "the slot is free again when this is dropped"]
pub(super) struct Lent {
    _permit: OwnedSemaphorePermit,
}

impl<M> Admitted<M> {
    /// The message and its slot. Keep the slot until the work is done.
    pub fn into_parts(self) -> (M, Slot) {
        (self.message, self.slot)
    }

    /// When the asker stops waiting; none for a message that nobody waits for.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The one who waits for the answer, for handlers that stop working when there is nobody left.
    pub fn asker(&self) -> Asker {
        Asker { ticket: self.ticket.clone() }
    }
}

impl<M> Deref for Admitted<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.message
    }
}

impl<M> DerefMut for Admitted<M> {
    fn deref_mut(&mut self) -> &mut M {
        &mut self.message
    }
}

impl<M: Message> Message for Admitted<M> {
    type Result = M::Result;
}

/// The one who waits for an answer.
#[derive(Clone)]
pub struct Asker {
    ticket: Option<Arc<Ticket>>,
}

impl Asker {
    /// Returns when nobody waits any more: the deadline has passed or the asker's future was dropped. Never returns for a
    /// message that nobody ever waited for.
    pub async fn gone(&self) {
        match &self.ticket {
            Some(ticket) => ticket.asker_gone().await,
            None => std::future::pending().await,
        }
    }
}

/// Where an asked message stands; shared by asker and message, so that both agree on whether it was begun.
struct Ticket {
    stage: AtomicU8,
    left: Notify,
}

const QUEUED: u8 = 0;
/// The handler has begun.
const BEGUN: u8 = 1;
/// The layer dropped it unhandled because its deadline had passed.
const EXPIRED: u8 = 2;
/// The asker left before the handler began: it never will.
const ABANDONED: u8 = 3;
/// The asker left while the handler was at work.
const LEFT: u8 = 4;

impl Ticket {
    fn advance(&self, from: u8, to: u8) -> bool {
        self.stage.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn stage(&self) -> u8 {
        self.stage.load(Ordering::Acquire)
    }

    async fn asker_gone(&self) {
        let mut notified = std::pin::pin!(self.left.notified());
        notified.as_mut().enable();
        if self.stage() != LEFT {
            notified.await;
        }
    }
}

/// The asker's end of a ticket: dropping it says that nobody waits.
struct TicketHolder(Arc<Ticket>);

impl TicketHolder {
    /// Takes the message back; false when its handler has begun.
    fn withdraw(&self) -> bool {
        self.0.advance(QUEUED, ABANDONED) || matches!(self.0.stage(), EXPIRED | ABANDONED)
    }
}

impl Drop for TicketHolder {
    fn drop(&mut self) {
        if !self.withdraw() && self.0.advance(BEGUN, LEFT) {
            self.0.left.notify_waiters();
        }
    }
}

/// What handlers of admitted messages may return: a value, or a future that runs in the actor's own task, where
/// supervision sees its panic. Actix's `ResponseFuture` is left out on purpose: it runs in a task of its own.
pub trait Answer<A: Actor, M: Message>: MessageResponse<A, Admitted<M>> {}

impl<A: Actor, M: Message<Result = ()>> Answer<A, M> for () {}
impl<A: Actor, M: Message> Answer<A, M> for MessageResult<Admitted<M>> {}
impl<A: Actor, M: Message<Result = Self>, T: 'static, E: 'static> Answer<A, M> for Result<T, E> {}
impl<A: Actor, M: Message<Result = Self>, T: 'static> Answer<A, M> for Option<T> {}
impl<A: SupervisedActor, M: Message> Answer<A, M> for ResponseActFuture<A, M::Result> {}
impl<A: SupervisedActor, M: Message> Answer<A, M> for AtomicResponse<A, M::Result> {}
impl<A: SupervisedActor, M: Message> Answer<A, M> for ActorResponse<A, M::Result> {}

/// An actor that handles `M` as admitted work. Implemented by implementing `Handler<Admitted<M>>`.
pub trait Serves<M: Message>: SupervisedActor + Handler<Admitted<M>, Result: Answer<Self, M>> {}

impl<M: Message, A: SupervisedActor + Handler<Admitted<M>, Result: Answer<A, M>>> Serves<M> for A {}

/// The address of an actor. All clones share its slots.
pub struct BoundedAddr<A: SupervisedActor> {
    addr: Arc<Addr<A>>,
    entry: Arc<Entry>,
    slots: Arc<Semaphore>,
}

impl<A: SupervisedActor> Clone for BoundedAddr<A> {
    fn clone(&self) -> Self {
        Self { addr: Arc::clone(&self.addr), entry: Arc::clone(&self.entry), slots: Arc::clone(&self.slots) }
    }
}

impl<A: SupervisedActor> BoundedAddr<A> {
    pub(super) fn new(addr: Addr<A>, entry: Arc<Entry>) -> Self {
        let slots = Arc::clone(&entry.slots);
        Self { addr: Arc::new(addr), entry, slots }
    }

    /// The actor's place in the tree: state, counters, last panic.
    pub fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }

    /// Returns when the actor has ended for good.
    pub async fn ended(&self) {
        self.entry.ended().await;
    }

    /// Waits for a slot, then for the answer. `Full`: no slot by `deadline`. `Deadline`, `Restarted`: no answer, though the
    /// message may have taken effect. `Gone`: the actor has ended, or has failed and rests; nothing was done. Dropping the
    /// future takes the message back if its handler has not begun.
    ///
    /// A debug build asserts that an actor asks those of a higher rank number only.
    pub async fn ask<M>(&self, message: M, deadline: Instant) -> Result<M::Result, SendError>
    where
        A: Serves<M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        #[cfg(debug_assertions)]
        self.assert_rank();
        let slot = self.slot(deadline).await?;
        let ticket = Arc::new(Ticket { stage: AtomicU8::new(QUEUED), left: Notify::new() });
        let holder = TicketHolder(Arc::clone(&ticket));
        let admitted = Admitted { message, slot, deadline: Some(deadline), ticket: Some(ticket) };
        let mut answer = std::pin::pin!(self.addr.send(admitted));
        let mut refuses = std::pin::pin!(self.entry.refuses());
        let mut late = std::pin::pin!(sleep_until(deadline));
        let mut refused = false;
        loop {
            tokio::select! {
                biased;
                answered = &mut answer => return answered.map_err(|_| holder.closed_error()),
                () = &mut late => return Err(SendError::Deadline),
                () = &mut refuses, if !refused => {
                    if holder.withdraw() {
                        return Err(SendError::Gone);
                    }
                    // The handler has begun: the answer, or the end of the channel, is still to come.
                    refused = true;
                }
            }
        }
    }

    /// As [`ask`](Self::ask), and once more after `Restarted`: for reads only, which may be done twice.
    pub async fn read<M>(&self, message: M, deadline: Instant) -> Result<M::Result, SendError>
    where
        A: Serves<M>,
        M: Message + Clone + Send + 'static,
        M::Result: Send,
    {
        match self.ask(message.clone(), deadline).await {
            Err(SendError::Restarted) => self.ask(message, deadline).await,
            answered => answered,
        }
    }

    /// Waits for a slot, then leaves the message there and does not wait for it to be handled. `Full` and `Gone` as with
    /// [`ask`](Self::ask); no other error. Goes to higher rank numbers only, like `ask`.
    pub async fn tell<M>(&self, message: M, deadline: Instant) -> Result<(), SendError>
    where
        A: Serves<M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        #[cfg(debug_assertions)]
        self.assert_rank();
        let slot = self.slot(deadline).await?;
        self.post(Admitted { message, slot, deadline: None, ticket: None })
    }

    /// As [`tell`](Self::tell) without waiting, so to actors of any rank: `Full`, counted, when no slot is free now.
    pub fn try_tell<M>(&self, message: M) -> Result<(), SendError>
    where
        A: Serves<M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        let slot = self.try_slot()?.ok_or_else(|| self.refused())?;
        self.post(Admitted { message, slot, deadline: None, ticket: None })
    }

    /// An address with one slot of its own, for messages that must get through when all others are taken.
    pub fn reserve(&self) -> Reserved<A> {
        self.entry.slot_count.fetch_add(1, Ordering::Relaxed);
        Reserved { addr: Self { slots: Arc::new(Semaphore::new(1)), ..self.clone() } }
    }

    /// One of the actor's slots for work that its asker does itself, as long as the result is held; the actor is not asked.
    /// `None` unless the actor runs and a slot is free at once.
    pub(super) fn lend(&self) -> Option<Lent> {
        let is_running = self.entry.state() == ActorState::Running;
        let permit = is_running.then(|| Arc::clone(&self.slots).try_acquire_owned().ok())?;
        permit.map(|permit| Lent { _permit: permit })
    }

    pub(super) fn raw(&self) -> &Addr<A> {
        &self.addr
    }

    /// Puts a message into the mailbox, which has no limit of its own.
    #[expect(clippy::disallowed_methods, reason = "the bound is the slot or the coalescing, checked by the callers")]
    pub(super) fn post<M>(&self, message: M) -> Result<(), SendError>
    where
        A: Handler<M>,
        Context<A>: ToEnvelope<A, M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        self.addr.try_send(message).map_err(|_| SendError::Gone)
    }

    async fn slot(&self, deadline: Instant) -> Result<Slot, SendError> {
        if let Some(slot) = self.try_slot()? {
            return Ok(slot);
        }
        tokio::select! {
            biased;
            permit = Arc::clone(&self.slots).acquire_owned() => match permit {
                Ok(permit) if !self.entry.state().refuses() => Ok(Slot::queued(permit, &self.entry)),
                _ => Err(SendError::Gone),
            },
            () = self.entry.refuses() => Err(SendError::Gone),
            () = sleep_until(deadline) => Err(self.refused()),
        }
    }

    fn try_slot(&self) -> Result<Option<Slot>, SendError> {
        if self.entry.state().refuses() {
            return Err(SendError::Gone);
        }
        let permit = Arc::clone(&self.slots).try_acquire_owned().ok();
        Ok(permit.map(|permit| Slot::queued(permit, &self.entry)))
    }

    fn refused(&self) -> SendError {
        self.entry.count_refused();
        SendError::Full
    }

    #[cfg(debug_assertions)]
    fn assert_rank(&self) {
        if let Some(asker) = current::rank() {
            let asked = self.entry.kind;
            assert!(asker < asked.rank, "an actor of rank {} asks {} of rank {}", asker.0, asked.name, asked.rank.0);
        }
    }
}

/// Both fields are taken by the one delivery.
struct AdmittedEnvelope<M: Message> {
    admitted: Option<Admitted<M>>,
    answer_to: Option<OneshotSender<M::Result>>,
}

impl<A, M> EnvelopeProxy<A> for AdmittedEnvelope<M>
where
    A: Serves<M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    /// Every admitted message passes here before its handler, so no handler can forget the checks.
    fn handle(&mut self, actor: &mut A, ctx: &mut Context<A>) {
        let Some(mut admitted) = self.admitted.take() else { return };
        let answer_to = self.answer_to.take();
        admitted.slot.leave_queue();
        if !admitted.begin() {
            return ctx.entry().count_expired();
        }
        let name = std::any::type_name::<M>();
        ctx.begin_message(name);
        let entry = ctx.entry();
        let _span = tracing::debug_span!("message", kind = entry.kind.name, actor = entry.name(), name).entered();
        let answer = <A as Handler<Admitted<M>>>::handle(actor, admitted, ctx);
        MessageResponse::handle(answer, ctx, answer_to);
        ctx.end_message();
    }
}

impl<M> Admitted<M> {
    /// Whether the handler is to run: the deadline has not passed and the asker still waits.
    fn begin(&self) -> bool {
        let late = self.deadline.is_some_and(|deadline| deadline <= Instant::now());
        let stage = if late { EXPIRED } else { BEGUN };
        self.ticket.as_ref().map_or(!late, |ticket| ticket.advance(QUEUED, stage) && !late)
    }
}

impl<A, M> ToEnvelope<A, Admitted<M>> for Context<A>
where
    A: Serves<M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    fn pack(message: Admitted<M>, answer_to: Option<OneshotSender<M::Result>>) -> Envelope<A> {
        Envelope::with_proxy(Box::new(AdmittedEnvelope { admitted: Some(message), answer_to }))
    }
}

impl TicketHolder {
    /// What a closed answer channel means.
    fn closed_error(&self) -> SendError {
        match self.0.stage() {
            BEGUN => SendError::Restarted,
            EXPIRED => SendError::Deadline,
            _ => SendError::Gone,
        }
    }
}

/// An address with one slot of its own; see [`BoundedAddr::reserve`]. Dropping it gives the slot up.
pub struct Reserved<A: SupervisedActor> {
    addr: BoundedAddr<A>,
}

impl<A: SupervisedActor> Deref for Reserved<A> {
    type Target = BoundedAddr<A>;

    fn deref(&self) -> &BoundedAddr<A> {
        &self.addr
    }
}

impl<A: SupervisedActor> Drop for Reserved<A> {
    fn drop(&mut self) {
        self.addr.entry.slot_count.fetch_sub(1, Ordering::Relaxed);
    }
}
