//! Our own Alertmanager: sorts alerts into groups. Owns the groups and the receivers. Started by the server. Bound: a queue
//! of alerts that drops its oldest, and slots for applying configurations. Failure: restarts and adopts its groups and
//! receivers, which go on meanwhile; alerts wait in the queue. Shutdown: drains its groups, then its receivers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::{Actor, ActorContext, AsyncContext, Handler, Message, Supervised};
use actix::{ActorFutureExt, ArbiterHandle, WrapFuture};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::actors::aggregation_group::{AggregationGroup, GroupDeps, GroupSpec, Told};
use crate::actors::alert_sink::AlertSink;
use crate::actors::children::Children;
use crate::actors::context::Context;
use crate::actors::control::{ChildFailed, Control, Drain};
use crate::actors::kind::{Kind, Rank};
use crate::actors::mailbox::{Admitted, BoundedAddr, SendError};
use crate::actors::receiver::{AlertRuntime, Receiver, ReceiverDeps, ReceiverSpec};
use crate::actors::registry::ActorState;
use crate::actors::supervision::{self, Parent, SupervisedActor};
use crate::alertmanager::alert::{AlertStore, StoredAlert, label_set_order};
use crate::alertmanager::group::Life;
use crate::alertmanager::nflog::entry::Receiver as ReceiverId;
use crate::alertmanager::route::{RouteNode, RouteOptions, RouteTree};
use crate::client::{ClientOptions, HttpClient};
use crate::config::alertmanager::{Config, Webhook};
use crate::model::alert::{Alert, Fingerprint};
use crate::model::labels::Labels;
use crate::model::time::TimestampMs;
use crate::telemetry::build_info;
use crate::telemetry::metrics::{MetricFamily, MetricKind, MetricValue};

/// The kind.
pub static ALERT_DISPATCHER: Kind = Kind { name: "alert_dispatcher", rank: Rank::GATEWAY, slots: 4 };

/// Alerts that may wait for the dispatcher.
pub const QUEUE_CAPACITY: usize = 10_000;
/// Alerts that are sorted before others on the thread have their turn.
const TAKEN_AT_A_TIME: usize = 16;
/// How often what has ended is let go of.
const TIDY_EVERY: Duration = Duration::from_secs(30);
/// How often alerts that are over are forgotten, in multiples of that.
const COLLECT_EVERY: u32 = 60;
/// How long groups and receivers that a configuration does not name any more may go on with what is under way.
const RETIRE_WITHIN: Duration = Duration::from_secs(10);
/// How long a new configuration may take to be applied.
const APPLY_WITHIN: Duration = Duration::from_secs(15);

/// Alerts that wait for the dispatcher; when it is full the oldest go.
struct AlertQueue {
    waiting: Mutex<VecDeque<Alert>>,
    capacity: usize,
    arrived: Notify,
}

impl AlertQueue {
    /// Takes alerts and returns how many others were lost for them.
    fn push(&self, alerts: Vec<Alert>) -> u64 {
        let mut waiting = self.waiting.lock();
        waiting.extend(alerts);
        let over = waiting.len().saturating_sub(self.capacity);
        waiting.drain(..over);
        drop(waiting);
        self.arrived.notify_one();
        over as u64
    }

    fn pop(&self) -> Option<Alert> {
        self.waiting.lock().pop_front()
    }

    async fn wait(&self) {
        while self.waiting.lock().is_empty() {
            self.arrived.notified().await;
        }
    }
}

/// A group that runs.
struct Group {
    deps: Arc<GroupDeps>,
    addr: BoundedAddr<AggregationGroup>,
}

/// What the dispatcher knows.
#[derive(Default)]
struct Known {
    store: AlertStore,
    groups: BTreeMap<String, Group>,
    /// What receivers are given, by their names in the tree.
    receivers: BTreeMap<String, Arc<ReceiverDeps>>,
    retiring: Retiring,
    ticks: u32,
}

/// Actors that nothing names any more, until they have ended: an actor that nobody holds ends at once.
#[derive(Default)]
struct Retiring {
    groups: Vec<BoundedAddr<AggregationGroup>>,
    receivers: Vec<BoundedAddr<Receiver>>,
}

/// What the dispatcher is given, and what a restart must find.
pub struct DispatcherDeps {
    /// What `alertmanager.yml` says; whoever changes it stores it here first and asks for [`ApplyRoutes`] then.
    config: ArcSwap<Config>,
    /// What all share.
    pub runtime: Arc<AlertRuntime>,
    queue: AlertQueue,
    tree: ArcSwap<RouteTree>,
    known: Mutex<Known>,
    receivers: Children<String, Receiver>,
    arbiters: Arc<[ArbiterHandle]>,
}

/// An alert as pages show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertView {
    /// The alert.
    pub alert: Alert,
    /// When it was heard of last.
    pub updated_at: TimestampMs,
    /// It was part of a flush.
    pub processed: bool,
}

/// A group as pages show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupView {
    /// Labels that its alerts have in common.
    pub labels: Labels,
    /// Who is told.
    pub receiver: String,
    /// Its key, as receivers see it.
    pub key: String,
    /// Its alerts, by identity.
    pub alerts: Vec<AlertView>,
    /// How long until its next flush.
    pub next_flush: Duration,
    /// Why the last flush failed, if it did.
    pub failure: Option<String>,
}

impl DispatcherDeps {
    /// A dispatcher that notifies nobody yet.
    pub fn new(runtime: Arc<AlertRuntime>, arbiters: Arc<[ArbiterHandle]>, queue_capacity: usize) -> Arc<Self> {
        assert!(!arbiters.is_empty(), "groups need a thread");
        let config = Config::silent();
        let tree = ArcSwap::from_pointee(RouteTree::new(&config));
        let queue = AlertQueue { waiting: Mutex::default(), capacity: queue_capacity, arrived: Notify::new() };
        let (known, receivers) = (Mutex::default(), Children::default());
        Arc::new(Self { config: ArcSwap::from_pointee(config), runtime, queue, tree, known, receivers, arbiters })
    }

    /// What `alertmanager.yml` says.
    pub fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// All groups by their labels, then by receiver; readable while actors are stuck.
    pub fn overview(&self) -> Vec<GroupView> {
        let groups: Vec<Arc<GroupDeps>> =
            self.known.lock().groups.values().map(|group| Arc::clone(&group.deps)).collect();
        let view = |group: &Arc<GroupDeps>| GroupView {
            labels: group.labels.clone(),
            receiver: group.spec.load().options.receiver.clone(),
            key: group.key.clone(),
            alerts: group.with_state(|state| {
                let view = |(stored, processed): (&StoredAlert, bool)| AlertView {
                    alert: stored.alert.clone(),
                    updated_at: stored.updated_at,
                    processed,
                };
                state.alerts().map(view).collect()
            }),
            next_flush: group.wait(),
            failure: group.failure(),
        };
        let mut views: Vec<GroupView> = groups.iter().map(view).filter(|view| !view.alerts.is_empty()).collect();
        views.sort_by(|a, b| label_set_order(&a.labels, &b.labels).then_with(|| a.receiver.cmp(&b.receiver)));
        views
    }

    /// How many groups there are, and alerts by state; for whoever gathers metrics.
    pub fn families(&self) -> Vec<MetricFamily> {
        let known = self.known.lock();
        let (mut active, mut unprocessed, mut groups) = (0.0, 0.0, 0.0);
        for group in known.groups.values() {
            group.deps.with_state(|state| {
                groups += f64::from(u8::from(!state.has_ended()));
                for (_, processed) in state.alerts() {
                    *(if processed { &mut active } else { &mut unprocessed }) += 1.0;
                }
            });
        }
        let state = |state: &str, count| (Labels::from_pairs([("state", state)]), MetricValue::Number(count));
        let alerts = MetricFamily {
            name: "alertmanager_alerts".to_owned(),
            help: "How many alerts by state.".to_owned(),
            kind: MetricKind::Gauge,
            metrics: vec![state("active", active), state("suppressed", 0.0), state("unprocessed", unprocessed)],
        };
        let (name, help) = ("alertmanager_dispatcher_aggregation_groups", "Number of active aggregation groups");
        vec![alerts, MetricFamily::single(name, help, MetricKind::Gauge, groups)]
    }

    fn told(&self, known: &Known, options: &RouteOptions) -> Vec<Told> {
        let of_receiver = |deps: &&Arc<ReceiverDeps>| deps.spec.load().id.group_name == options.receiver;
        let told = |deps: &Arc<ReceiverDeps>| {
            self.receivers.get(&deps.name()).map(|addr| Told { addr, deps: Arc::clone(deps) })
        };
        known.receivers.values().filter(of_receiver).filter_map(told).collect()
    }

    /// Takes one alert to its groups.
    fn sort_in(&self, alert: Alert, parent: &Parent) {
        let began = self.runtime.clock.monotonic();
        let now = self.runtime.clock.now();
        let metrics = &self.runtime.metrics;
        let received = if alert.is_resolved_at(now) { &metrics.received_resolved } else { &metrics.received_firing };
        received.inc();
        let mut known = self.known.lock();
        let stored = known.store.put(StoredAlert::heard(alert, now), now);
        for node in self.tree.load().matching(&stored.alert.labels) {
            self.place(&mut known, node, &stored, parent);
        }
        drop(known);
        metrics.processing.observe(self.runtime.clock.monotonic().saturating_sub(began).as_secs_f64());
    }

    /// Takes an alert to its group of a node, which is made if there is none.
    fn place(&self, known: &mut Known, node: &RouteNode, stored: &StoredAlert, parent: &Parent) {
        let labels = node.options.group_labels(&stored.alert.labels);
        let id = node.group_id(&labels);
        if let Some(group) = known.groups.get(&id)
            && group.addr.entry().state() != ActorState::Ended
            && group.deps.insert(stored.clone()) == Life::Goes
        {
            return;
        }
        let spec = GroupSpec { options: Arc::clone(&node.options), told: self.told(known, &node.options) };
        let key = (node.group_key(&labels), labels);
        let deps = GroupDeps::new(key, spec, stored.clone(), Arc::clone(&self.runtime));
        let for_actor = Arc::clone(&deps);
        let arbiter = &self.arbiters[known.groups.len() % self.arbiters.len()];
        let addr = supervision::spawn(arbiter, self.runtime.policy, parent.place(id.clone()), move |_| {
            AggregationGroup::new(Arc::clone(&for_actor))
        });
        known.groups.insert(id, Group { deps, addr });
    }

    /// Makes receivers and groups what the configuration says. Groups whose route is still there keep their timers.
    fn sync(&self, parent: &Parent) {
        let config = self.config.load_full();
        let tree = RouteTree::new(&config);
        let mut known = self.known.lock();
        self.sync_receivers(&mut known, &config, &tree, parent);
        let mut alerts: BTreeMap<Fingerprint, StoredAlert> = BTreeMap::new();
        let mut keep = |stored: &StoredAlert| {
            let identity = stored.alert.fingerprint();
            if alerts.get(&identity).is_none_or(|other| other.updated_at < stored.updated_at) {
                alerts.insert(identity, stored.clone());
            }
        };
        known.store.iter().for_each(&mut keep);
        known
            .groups
            .values()
            .for_each(|group| group.deps.with_state(|state| state.alerts().for_each(|(s, _)| keep(s))));
        // Where each alert belongs now.
        let mut wanted: BTreeMap<String, (&RouteNode, BTreeSet<Fingerprint>)> = BTreeMap::new();
        for (identity, stored) in &alerts {
            for node in tree.matching(&stored.alert.labels) {
                let id = node.group_id(&node.options.group_labels(&stored.alert.labels));
                wanted.entry(id).or_insert_with(|| (node, BTreeSet::new())).1.insert(*identity);
            }
        }
        let gone: Vec<(String, Group)> = known.groups.extract_if(.., |id, _| !wanted.contains_key(id)).collect();
        for (id, group) in gone {
            tracing::debug!(component = "dispatcher", aggr_group = id, "The group's route is gone");
            // One that has ended needs no telling.
            let _ = group.addr.signal(Drain { deadline: Instant::now() + RETIRE_WITHIN });
            known.retiring.groups.push(group.addr);
        }
        for (id, (node, belonging)) in wanted {
            let mut held = BTreeSet::new();
            if let Some(group) = known.groups.get(&id) {
                let told = self.told(&known, &node.options);
                group.deps.spec.store(Arc::new(GroupSpec { options: Arc::clone(&node.options), told }));
                group.deps.with_state(|state| {
                    let _ = state.retain(|identity| belonging.contains(identity));
                    held.extend(state.alerts().map(|(stored, _)| stored.alert.fingerprint()));
                });
            }
            for identity in belonging.difference(&held) {
                if let Some(stored) = alerts.get(identity) {
                    self.place(&mut known, node, stored, parent);
                }
            }
        }
        self.tree.store(Arc::new(tree));
    }

    fn sync_receivers(&self, known: &mut Known, config: &Config, tree: &RouteTree, parent: &Parent) {
        let named = tree.receivers();
        let mut wanted: BTreeMap<String, Arc<ReceiverDeps>> = BTreeMap::new();
        let receivers = config.receivers.iter().filter(|receiver| named.contains(&receiver.name.as_str()));
        for (receiver, index, webhook) in receivers.flat_map(|receiver| {
            let webhooks = receiver.webhook_configs.iter().flatten().enumerate();
            webhooks.map(move |(index, webhook)| (receiver, index, webhook))
        }) {
            let idx = u32::try_from(index).unwrap_or(u32::MAX);
            let id = ReceiverId { group_name: receiver.name.clone(), integration: "webhook".to_owned(), idx };
            let name = format!("{}/webhook[{idx}]", receiver.name);
            let deps = match known.receivers.get(&name) {
                Some(deps) if deps.spec.load().webhook == *webhook => Arc::clone(deps),
                Some(deps) => {
                    deps.spec.store(Arc::new(spec(id, webhook)));
                    Arc::clone(deps)
                }
                None => {
                    let spec = ArcSwap::from_pointee(spec(id, webhook));
                    Arc::new(ReceiverDeps { spec, runtime: Arc::clone(&self.runtime) })
                }
            };
            let for_actor = Arc::clone(&deps);
            let (arbiter, place) = (&self.arbiters[wanted.len() % self.arbiters.len()], parent.place(name.clone()));
            self.receivers.adopt_or_spawn(name.clone(), |_| {
                supervision::spawn(arbiter, self.runtime.policy, place, move |_| Receiver::new(Arc::clone(&for_actor)))
            });
            wanted.insert(name, deps);
        }
        for (_, receiver) in self.receivers.take_unwanted(|name| wanted.contains_key(name)) {
            let _ = receiver.signal(Drain { deadline: Instant::now() + RETIRE_WITHIN });
            known.retiring.receivers.push(receiver);
        }
        self.runtime.metrics.receivers.set(named.len() as f64);
        self.runtime.metrics.integrations.set(wanted.len() as f64);
        known.receivers = wanted;
    }

    /// Lets go of what has ended.
    fn tidy(&self) {
        let now = self.runtime.clock.now();
        let mut known = self.known.lock();
        known.groups.retain(|_, group| !group.deps.has_ended());
        known.retiring.groups.retain(|group| group.entry().state() != ActorState::Ended);
        known.retiring.receivers.retain(|receiver| receiver.entry().state() != ActorState::Ended);
        known.ticks = known.ticks.wrapping_add(1);
        if known.ticks.is_multiple_of(COLLECT_EVERY) {
            known.store.collect(now);
        }
    }

    /// Tells groups to end, then receivers, and waits.
    async fn drain(&self, deadline: Instant) {
        let groups: Vec<BoundedAddr<AggregationGroup>> = {
            let known = self.known.lock();
            known.groups.values().map(|group| group.addr.clone()).chain(known.retiring.groups.iter().cloned()).collect()
        };
        for group in &groups {
            // One that has ended meanwhile needs no telling, here and below.
            let _ = group.signal(Drain { deadline });
        }
        super::drain::wait_all(groups.iter().map(BoundedAddr::entry), deadline).await;
        for receiver in self.known.lock().retiring.receivers.iter() {
            let _ = receiver.signal(Drain { deadline });
        }
        self.receivers.drain_all(deadline).await;
    }
}

fn spec(id: ReceiverId, webhook: &Webhook) -> ReceiverSpec {
    let user_agent = build_info::user_agent();
    let client = match &webhook.http_config {
        Some(http) => HttpClient::from_config(user_agent, http),
        None => HttpClient::new(ClientOptions { user_agent, follow_redirects: true }),
    };
    ReceiverSpec { id, webhook: webhook.clone(), client }
}

/// The configuration has changed: make receivers and groups what it says.
#[derive(Message)]
#[rtype(result = "()")]
pub struct ApplyRoutes;

/// Time to let go of what has ended.
#[derive(Message)]
#[rtype(result = "()")]
struct Tidy;

/// The dispatcher as rules and the reloader see it.
#[derive(Clone)]
pub struct DispatcherHandle {
    deps: Arc<DispatcherDeps>,
    addr: BoundedAddr<AlertDispatcher>,
}

impl DispatcherHandle {
    /// The handle of a dispatcher.
    pub fn new(deps: Arc<DispatcherDeps>, addr: BoundedAddr<AlertDispatcher>) -> Self {
        Self { deps, addr }
    }

    /// Makes a checked configuration hold: groups whose route is still there keep their timers, alerts are sorted anew.
    /// After an error it holds from the dispatcher's next start on.
    pub async fn apply(&self, config: Arc<Config>) -> Result<(), SendError> {
        self.deps.config.store(config);
        self.addr.ask(ApplyRoutes, Instant::now() + APPLY_WITHIN).await
    }

    /// All groups with their alerts.
    pub fn overview(&self) -> Vec<GroupView> {
        self.deps.overview()
    }

    /// What the dispatcher is given.
    pub fn deps(&self) -> &Arc<DispatcherDeps> {
        &self.deps
    }

    /// Its address.
    pub fn addr(&self) -> &BoundedAddr<AlertDispatcher> {
        &self.addr
    }
}

impl AlertSink for DispatcherHandle {
    fn send(&self, alerts: Vec<Alert>) {
        let lost = self.deps.queue.push(alerts);
        if 0 < lost {
            self.deps.runtime.metrics.dropped.add(lost);
            tracing::warn!(
                component = "dispatcher",
                lost,
                "The dispatcher's queue is full; its oldest alerts were dropped"
            );
        }
    }
}

/// The actor.
pub struct AlertDispatcher {
    deps: Arc<DispatcherDeps>,
}

impl AlertDispatcher {
    /// A dispatcher that begins with what is queued.
    pub fn new(deps: Arc<DispatcherDeps>) -> Self {
        Self { deps }
    }

    fn wait(&self, ctx: &mut Context<Self>) {
        let deps = Arc::clone(&self.deps);
        let arrived = async move { deps.queue.wait().await };
        ctx.spawn(arrived.into_actor(self).map(|(), dispatcher, ctx: &mut Context<Self>| dispatcher.take(ctx)));
    }

    /// An alert that panics is lost, and none besides: each is taken out of the queue by itself.
    fn take(&mut self, ctx: &mut Context<Self>) {
        let parent = ctx.parent();
        for _ in 0..TAKEN_AT_A_TIME {
            let Some(alert) = self.deps.queue.pop() else { break };
            self.deps.sort_in(alert, &parent);
        }
        self.wait(ctx);
    }

    fn arm(ctx: &mut Context<Self>) {
        ctx.notify_later(Tidy, TIDY_EVERY);
    }
}

impl Actor for AlertDispatcher {
    type Context = Context<Self>;

    /// A panic may have cut the application of a configuration short: it is done again.
    fn started(&mut self, ctx: &mut Self::Context) {
        self.deps.sync(&ctx.parent());
        self.wait(ctx);
        Self::arm(ctx);
    }
}

impl Supervised for AlertDispatcher {}

impl SupervisedActor for AlertDispatcher {
    const KIND: &'static Kind = &ALERT_DISPATCHER;
}

impl Handler<Tidy> for AlertDispatcher {
    type Result = ();

    fn handle(&mut self, _: Tidy, ctx: &mut Context<Self>) {
        Self::arm(ctx);
        self.deps.tidy();
    }
}

impl Handler<Admitted<ApplyRoutes>> for AlertDispatcher {
    type Result = ();

    fn handle(&mut self, _: Admitted<ApplyRoutes>, ctx: &mut Context<Self>) {
        self.deps.sync(&ctx.parent());
    }
}

impl Handler<Control<ChildFailed>> for AlertDispatcher {
    type Result = ();

    /// A failed receiver's notifications fail and are tried again at each flush; a failed group keeps its alerts until it
    /// is tried again. Both stand in the tree and in the log.
    fn handle(&mut self, _: Control<ChildFailed>, _: &mut Context<Self>) {}
}

impl Handler<Control<Drain>> for AlertDispatcher {
    type Result = ();

    fn handle(&mut self, Control(drain): Control<Drain>, ctx: &mut Context<Self>) {
        let deps = Arc::clone(&self.deps);
        let work = async move { deps.drain(drain.deadline).await };
        ctx.spawn(work.into_actor(self).map(|(), _, ctx: &mut Context<Self>| ctx.stop()));
    }
}
