//! One integration of a receiver, as the first webhook of `team-a`. Owns the deliveries under way. Started by the alert
//! dispatcher. Bound: its slots, each a delivery with all its attempts; groups wait for one until their deadline. Failure:
//! restarts; deliveries under way fail, and their groups try again at their next flush. Shutdown: deliveries under way get
//! the time that is left.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use actix::prelude::{Actor, ActorContext, AsyncContext, Handler, Message, ResponseActFuture, Supervised};
use actix::{ActorFutureExt, WrapFuture};
use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::future::FutureExt;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use url::Url;

use crate::actors::context::Context;
use crate::actors::control::{Control, Drain};
use crate::actors::kind::{Kind, Rank};
use crate::actors::mailbox::Admitted;
use crate::actors::notification_log::NotificationLog;
use crate::actors::policy::Policy;
use crate::actors::pool::{ComputePool, Lane};
use crate::actors::supervision::SupervisedActor;
use crate::alertmanager::address;
use crate::alertmanager::dedup::{self, Asked, Hashes, Reason};
use crate::alertmanager::group::FlushAlert;
use crate::alertmanager::metrics::AlertmanagerMetrics;
use crate::alertmanager::nflog::entry::{EntryKey, MeshEntry, Receiver as ReceiverId};
use crate::alertmanager::nflog::log::RETENTION_NANOS;
use crate::alertmanager::payload::{self, About};
use crate::alertmanager::retry::{AttemptError, Backoff, FailureReason, NotifyError};
use crate::alertmanager::webhook;
use crate::client::HttpClient;
use crate::config::alertmanager::Webhook;
use crate::model::alert::Alert;
use crate::model::clock::SharedClock;
use crate::model::labels::Labels;
use crate::model::random::Random;
use crate::model::time::TimestampMs;
use crate::template::notification::{NotificationData, expand_notification};

/// The kind.
pub static RECEIVER: Kind = Kind { name: "receiver", rank: Rank::GATEWAY.below(2), slots: 256 };

/// Messages of more alerts are written on the compute pool.
const ALERTS_INLINE_MAX: usize = 64;

/// What all actors of alerting share.
pub struct AlertRuntime {
    /// What receivers were told.
    pub log: Arc<NotificationLog>,
    /// Alertmanager's metrics.
    pub metrics: AlertmanagerMetrics,
    /// The clock.
    pub clock: SharedClock,
    /// For long messages, and for files that configurations name.
    pub pool: Arc<ComputePool>,
    /// Where users find us; stands in messages.
    pub external_url: String,
    /// How actors of alerting are restarted.
    pub policy: Policy,
    /// Seeds the jitter of deliveries.
    pub random: Mutex<Random>,
}

/// What a receiver is.
pub struct ReceiverSpec {
    /// Who it is in the notification log.
    pub id: ReceiverId,
    /// How it is told.
    pub webhook: Webhook,
    /// Its connections.
    pub client: HttpClient,
}

/// What a receiver is given.
pub struct ReceiverDeps {
    /// What it is; each delivery looks anew.
    pub spec: ArcSwap<ReceiverSpec>,
    /// What all share.
    pub runtime: Arc<AlertRuntime>,
}

/// What a flush tells.
pub struct Flush {
    /// Key of the group.
    pub group_key: String,
    /// Labels of the group.
    pub group_labels: Labels,
    /// The alerts, in their order.
    pub alerts: Vec<FlushAlert>,
    /// Their hashes.
    pub hashes: Hashes,
    /// After how many nanoseconds a receiver is told again.
    pub repeat_nanos: i64,
    /// When the flush began, in nanoseconds since the epoch.
    pub tick_nanos: i64,
    /// When the next flush needs the time.
    pub deadline: Instant,
}

/// Tell the receiver what it does not know. Answers once it was told and the notification log has it, or once nothing had
/// to be told.
#[derive(Message)]
#[rtype(result = "Result<(), DeliverError>")]
pub struct Deliver(pub Arc<Flush>);

/// Why a receiver was not told, or not for sure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeliverError {
    /// It could not be reached, or refuses.
    #[error(transparent)]
    Notify(#[from] NotifyError),
    /// It was told, and should the process end now it will be told again.
    #[error("the notification was sent and not recorded: {0}")]
    Record(#[from] crate::actors::notification_log::NotRecorded),
}

impl ReceiverDeps {
    /// `team-a/webhook[0]`, as in errors and in the tree.
    pub fn name(&self) -> String {
        let id = &self.spec.load().id;
        format!("{}/{}[{}]", id.group_name, id.integration, id.idx)
    }

    /// Why the receiver has to be told. `None` if it knows; then what it knows is made durable.
    pub(super) async fn news(&self, flush: &Flush) -> Result<Option<Reason>, DeliverError> {
        let spec = self.spec.load_full();
        let key = EntryKey { group_key: flush.group_key.clone(), receiver: spec.id.clone() };
        let known = self.runtime.log.lookup(&key);
        let asked = Asked {
            send_resolved: spec.webhook.send_resolved,
            repeat_nanos: flush.repeat_nanos,
            tick_nanos: flush.tick_nanos,
        };
        let reason = dedup::reason(known.as_ref().map(|(entry, _)| entry), &flush.hashes, asked);
        if reason.is_none() && known.is_some_and(|(_, durable)| !durable) {
            self.runtime.log.record_again(&key).await?;
        }
        Ok(reason)
    }

    async fn deliver(&self, flush: &Arc<Flush>) -> Result<(), DeliverError> {
        // A flush before this one may have told it while this one waited for its turn.
        let Some(reason) = self.news(flush).await? else { return Ok(()) };
        let (spec, metrics) = (self.spec.load_full(), &self.runtime.metrics.webhook);
        metrics.notifications.inc();
        if let Err(error) = self.attempts(&spec, flush, reason).await {
            metrics.failed(error.reason);
            return Err(error.into());
        }
        let key = EntryKey { group_key: flush.group_key.clone(), receiver: spec.id.clone() };
        let keep = flush.repeat_nanos.saturating_mul(2);
        let keep = if keep <= 0 { RETENTION_NANOS } else { keep.min(RETENTION_NANOS) };
        let entry = MeshEntry::told(&key, &flush.hashes, self.runtime.clock.unix_nanos(), keep);
        Ok(self.runtime.log.record(entry).await?)
    }

    /// Attempts until one succeeds, one cannot succeed, or the time is over.
    async fn attempts(&self, spec: &Arc<ReceiverSpec>, flush: &Arc<Flush>, reason: Reason) -> Result<(), NotifyError> {
        if !spec.webhook.send_resolved && flush.hashes.firing.is_empty() {
            // It does not want to know; the log has to.
            return Ok(());
        }
        let (metrics, integration) = (&self.runtime.metrics.webhook, self.name());
        let mut backoff = Backoff::new(Random::seeded(self.runtime.random.lock().next_u64()));
        let (mut attempts, mut last): (u32, Option<AttemptError>) = (0, None);
        let given_up = |attempts, last: Option<AttemptError>, unrecoverable| {
            let (text, reason) = match last {
                Some(error) => (error.text, error.reason),
                None => ("context deadline exceeded".to_owned(), FailureReason::ContextDeadlineExceeded),
            };
            NotifyError { integration: integration.clone(), unrecoverable, attempts, text, reason }
        };
        loop {
            let began = Instant::now();
            if flush.deadline <= began {
                return Err(given_up(attempts, last, false));
            }
            let clock_began = self.runtime.clock.monotonic();
            let attempt = self.attempt(spec, flush, reason).await;
            attempts = attempts.saturating_add(1);
            metrics.requests.inc();
            metrics.latency.observe(self.runtime.clock.monotonic().saturating_sub(clock_began).as_secs_f64());
            let Err(error) = attempt else {
                if 1 < attempts {
                    tracing::info!(component = "dispatcher", integration, attempts, "Notify success");
                }
                return Ok(());
            };
            metrics.requests_failed.inc();
            if !error.retry {
                return Err(given_up(attempts, Some(error), true));
            }
            if flush.deadline <= Instant::now() {
                // The attempt was cut short; the error before says more.
                return Err(given_up(attempts, last, false));
            }
            if last.as_ref().is_none_or(|last| last.text != error.text) {
                let err = error.text.as_str();
                tracing::warn!(
                    component = "dispatcher",
                    integration,
                    attempts,
                    err,
                    "Notify attempt failed, will retry later"
                );
            }
            last = Some(error);
            let next = began + backoff.next_delay();
            if flush.deadline <= next {
                return Err(given_up(attempts, last, false));
            }
            sleep_until(next).await;
        }
    }

    async fn attempt(&self, spec: &Arc<ReceiverSpec>, flush: &Arc<Flush>, reason: Reason) -> Result<(), AttemptError> {
        let prepare = {
            let (spec, flush) = (Arc::clone(spec), Arc::clone(flush));
            let external_url = self.runtime.external_url.clone();
            move || prepare(&spec, &flush, reason, &external_url)
        };
        let (to, body) = if ALERTS_INLINE_MAX < flush.alerts.len() || address::takes_time(&spec.webhook) {
            let prepared = self.runtime.pool.run(Lane::Storage, flush.deadline, move |_: &_| prepare()).await;
            prepared.map_err(|error| AttemptError {
                text: format!("the message was not written: {error}"),
                retry: true,
                reason: FailureReason::Other,
            })??
        } else {
            prepare()?
        };
        let limit = u64::try_from(spec.webhook.timeout.nanos).ok().filter(|nanos| 0 < *nanos).map(Duration::from_nanos);
        webhook::post(&spec.client, to, body, limit, flush.deadline).await
    }
}

fn prepare(
    spec: &ReceiverSpec,
    flush: &Flush,
    reason: Reason,
    external_url: &str,
) -> Result<(Url, Bytes), AttemptError> {
    let about = About {
        receiver: &spec.id.group_name,
        reason,
        group_labels: &flush.group_labels,
        group_key: &flush.group_key,
        external_url,
    };
    let max = spec.webhook.max_alerts;
    let firing: Vec<FlushAlert>;
    let alerts = if spec.webhook.send_resolved {
        &flush.alerts
    } else {
        firing = flush.alerts.iter().filter(|alert| !alert.resolved).cloned().collect();
        &firing
    };
    let to = address::of(&spec.webhook, |text| {
        let kept: Vec<Alert> = payload::kept(alerts, max).iter().map(|alert| alert.alert.clone()).collect();
        let now = TimestampMs(flush.tick_nanos.div_euclid(1_000_000));
        let data = NotificationData {
            receiver: about.receiver,
            alerts: &kept,
            now,
            reason: reason.as_str(),
            group_labels: about.group_labels,
            route_labels: &Labels::empty(),
            external_url,
        };
        expand_notification(text, &data.value(), now)
    })?;
    Ok((to, payload::webhook(about, alerts, max).into()))
}

/// The actor.
pub struct Receiver {
    deps: Arc<ReceiverDeps>,
    /// Groups with deliveries: one at a time for each, as a group that was restarted may ask again meanwhile.
    turns: BTreeMap<String, Weak<tokio::sync::Mutex<()>>>,
    under_way: usize,
    draining: bool,
}

impl Receiver {
    /// A receiver without deliveries.
    pub fn new(deps: Arc<ReceiverDeps>) -> Self {
        Self { deps, turns: BTreeMap::new(), under_way: 0, draining: false }
    }

    fn turn(&mut self, group_key: &str) -> Arc<tokio::sync::Mutex<()>> {
        self.turns.retain(|_, turn| 0 < turn.strong_count());
        let turn = self.turns.get(group_key).and_then(Weak::upgrade).unwrap_or_default();
        self.turns.insert(group_key.to_owned(), Arc::downgrade(&turn));
        turn
    }

    fn ended(&mut self, ctx: &mut Context<Self>) {
        self.under_way = self.under_way.saturating_sub(1);
        if self.draining && self.under_way == 0 {
            ctx.stop();
        }
    }
}

impl Actor for Receiver {
    type Context = Context<Self>;
}

impl Supervised for Receiver {
    fn restarting(&mut self, _: &mut Context<Self>) {
        (self.turns, self.under_way) = (BTreeMap::new(), 0);
    }
}

impl SupervisedActor for Receiver {
    const KIND: &'static Kind = &RECEIVER;
}

impl Handler<Admitted<Deliver>> for Receiver {
    type Result = ResponseActFuture<Self, Result<(), DeliverError>>;

    fn handle(&mut self, deliver: Admitted<Deliver>, _: &mut Context<Self>) -> Self::Result {
        let (Deliver(flush), slot) = deliver.into_parts();
        let (deps, turn) = (Arc::clone(&self.deps), self.turn(&flush.group_key));
        self.under_way += 1;
        let work = async move {
            let _turn = turn.lock().await;
            deps.deliver(&flush).await
        };
        Box::pin(work.boxed_local().into_actor(self).map(move |delivered, receiver, ctx: &mut Context<Self>| {
            drop(slot);
            receiver.ended(ctx);
            delivered
        }))
    }
}

impl Handler<Control<Drain>> for Receiver {
    type Result = ();

    fn handle(&mut self, Control(drain): Control<Drain>, ctx: &mut Context<Self>) {
        self.draining = true;
        if self.under_way == 0 {
            return ctx.stop();
        }
        let left = drain.deadline.saturating_duration_since(Instant::now());
        ctx.run_later(left, |_, ctx| ctx.stop());
    }
}
