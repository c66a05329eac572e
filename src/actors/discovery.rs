//! All providers of one kind of consumer, such as scraping. Owns the providers and merges their groups set by set; a set is
//! a job. Started by the root. Bound: its slots, for applying configurations. Failure: restarts and adopts its providers;
//! what was handed on stays. Shutdown: drains its providers; the groups stay.
//!
//! Rule of handing on: see [`crate::discovery::debounce`]; what a new configuration brings is handed on at once. A provider
//! that replaces others of its set begins with their groups: they stay until it has looked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::prelude::{Actor, ActorContext, AsyncContext, Handler, Message, ResponseActFuture, Supervised};
use actix::{ActorFutureExt, ArbiterHandle, WrapFuture};
use futures::future::join_all;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::actors::children::Children;
use crate::actors::context::Context;
use crate::actors::control::{ChildFailed, Control, Drain};
use crate::actors::discovery_provider::{DiscoveryProvider, FirstLook, ProviderDeps};
use crate::actors::kind::{Kind, Rank};
use crate::actors::mailbox::{Admitted, BoundedAddr};
use crate::actors::policy::Policy;
use crate::actors::supervision::{self, Parent, SupervisedActor};
use crate::discovery::debounce::Debounce;
use crate::discovery::metrics::ManagerMetrics;
use crate::discovery::{ProviderConfig, ProviderKit, TargetGroup};

/// The kind.
pub static DISCOVERY_MANAGER: Kind = Kind { name: "discovery_manager", rank: Rank::MANAGER, slots: 4 };

/// How long new providers may take for their first look before a configuration goes on without them.
const CONFIRM_WITHIN: Duration = Duration::from_secs(2);

/// Groups by the name of their set. Sets without discovery are left out.
pub type GroupsBySet = BTreeMap<String, Arc<Vec<TargetGroup>>>;

/// Who gets the groups.
pub trait Consumer: Send + Sync {
    /// Takes all groups that there are now. Called in the manager's handlers: stores and signals only.
    fn discovered(&self, sets: GroupsBySet);
}

/// All discovery of one set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SetSpec {
    /// Its name: the job's.
    pub name: String,
    /// Its providers.
    pub providers: Vec<ProviderConfig>,
    /// Targets that stand in the configuration itself; they are counted only.
    pub static_targets: usize,
    /// Fields whose providers are not built: their targets are not found.
    pub not_built: Vec<&'static str>,
}

/// What the manager is given, and what it publishes.
pub struct DiscoveryDeps {
    /// The sets that there should be; whoever changes them stores them first and sends [`ApplyProviders`] then.
    pub sets: Mutex<Vec<SetSpec>>,
    kit: Arc<ProviderKit>,
    metrics: Arc<ManagerMetrics>,
    consumer: Arc<dyn Consumer>,
    /// Thread that providers run on; what blocks runs on threads of their own.
    arbiter: ArbiterHandle,
    policy: Policy,
    children: Children<u64, DiscoveryProvider>,
    running: Mutex<Vec<Running>>,
    next_id: AtomicU64,
    updates: Arc<Notify>,
    debounce: Mutex<Debounce>,
    handed_on: Mutex<GroupsBySet>,
}

/// A provider of a set.
#[derive(Clone)]
struct Running {
    id: u64,
    set: String,
    deps: Arc<ProviderDeps>,
    role: Role,
}

#[derive(Clone, Copy, PartialEq)]
enum Role {
    Wanted,
    /// No longer wanted; its groups stay until those that replace it have looked.
    Replaced,
}

impl DiscoveryDeps {
    /// A manager without sets.
    pub fn new(
        kit: Arc<ProviderKit>,
        metrics: ManagerMetrics,
        consumer: Arc<dyn Consumer>,
        arbiter: ArbiterHandle,
        policy: Policy,
    ) -> Arc<Self> {
        Arc::new(Self {
            sets: Mutex::default(),
            kit,
            metrics: Arc::new(metrics),
            consumer,
            arbiter,
            policy,
            children: Children::default(),
            running: Mutex::default(),
            next_id: AtomicU64::new(0),
            updates: Arc::default(),
            debounce: Mutex::default(),
            handed_on: Mutex::default(),
        })
    }

    /// From now on there is at most so much time between two changes that are handed on, while there are more; before the start.
    pub fn throttle(&self, gap_max: Duration) {
        *self.debounce.lock() = Debounce::up_to(gap_max);
    }

    /// What was handed on last.
    pub fn handed_on(&self) -> GroupsBySet {
        self.handed_on.lock().clone()
    }

    /// What is missing in each set, for people: providers that are not built, and those that fail, with the reason.
    pub fn missing(&self) -> Vec<(String, String)> {
        let not_built = |set: &SetSpec| {
            let text = |field: &&str| (set.name.clone(), format!("{field}: this discovery is not built yet"));
            set.not_built.iter().map(text).collect::<Vec<_>>()
        };
        let mut missing: Vec<_> = self.sets.lock().iter().flat_map(not_built).collect();
        let failing = |one: &Running| {
            let failure = one.deps.found().failure.filter(|_| one.role == Role::Wanted)?;
            Some((one.set.clone(), format!("{}: {failure}", one.deps.name)))
        };
        missing.extend(self.running.lock().iter().filter_map(failing));
        missing
    }

    /// Makes the providers what the sets say; returns those that have not looked yet. Providers whose settings are the same
    /// go on untouched, wherever they stand in their set now.
    fn sync(&self, parent: &Parent) -> Vec<(String, BoundedAddr<DiscoveryProvider>)> {
        let sets = self.sets.lock().clone();
        let mut before = self.running.lock().clone();
        let (mut next, mut waiting): (Vec<Running>, _) = (Vec::new(), Vec::new());
        for set in &sets {
            for (index, config) in set.providers.iter().enumerate() {
                let same =
                    |one: &Running| one.role == Role::Wanted && one.set == set.name && one.deps.config == *config;
                let one = match before.iter().position(same) {
                    Some(at) => before.remove(at),
                    None => self.make(&set.name, index, config),
                };
                let (place, for_actor) = (parent.place(one.deps.name.clone()), Arc::clone(&one.deps));
                let actor = self.children.adopt_or_spawn(one.id, |_| {
                    supervision::spawn(&self.arbiter, self.policy, place, move |_| {
                        DiscoveryProvider::new(Arc::clone(&for_actor))
                    })
                });
                if !one.deps.found().looked {
                    waiting.push((one.deps.name.clone(), actor));
                }
                next.push(one);
            }
        }
        let unwanted = self.children.take_unwanted(|id| next.iter().any(|one| one.id == *id));
        for gone in before.iter().filter(|gone| next.iter().all(|one| one.deps.name != gone.deps.name)) {
            self.metrics.provider_removed(&gone.deps.name);
        }
        before.retain(|gone| next.iter().any(|one| one.set == gone.set && !one.deps.found().looked));
        next.extend(before.into_iter().map(|gone| Running { role: Role::Replaced, ..gone }));
        *self.running.lock() = next;
        for (_, gone) in unwanted {
            // Nothing of a provider needs to be finished. One that has ended meanwhile needs no telling.
            let _ = gone.signal(Drain { deadline: Instant::now() });
        }
        self.metrics.failed_configs.set(sets.iter().map(|set| set.not_built.len()).sum::<usize>() as f64);
        waiting
    }

    fn make(&self, set: &str, index: usize, config: &ProviderConfig) -> Running {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}/{set}/{index}", config.mechanism());
        let deps = ProviderDeps::new(name, set, config.clone(), &self.kit, &self.metrics, &self.updates);
        Running { id, set: set.to_owned(), deps, role: Role::Wanted }
    }

    /// Merges the groups of each set and hands all on, if there is any change.
    fn hand_on(&self) {
        let sets = self.sets.lock().clone();
        let running = {
            let mut running = self.running.lock();
            let all = running.clone();
            let waits = |set: &str| {
                all.iter().any(|one| one.set == set && one.role == Role::Wanted && !one.deps.found().looked)
            };
            running.retain(|one| one.role == Role::Wanted || waits(&one.set));
            running.clone()
        };
        let before = self.handed_on.lock().clone();
        let mut merged = GroupsBySet::new();
        for set in &sets {
            let groups = merge(running.iter().filter(|one| one.set == set.name));
            let found: usize = groups.iter().map(|group| group.targets.len()).sum();
            self.metrics.discovered(&set.name, found + set.static_targets);
            if !set.providers.is_empty() {
                merged.insert(set.name.clone(), groups);
            }
        }
        if merged == before {
            return;
        }
        self.metrics.sent.inc();
        self.consumer.discovered(merged.clone());
        *self.handed_on.lock() = merged;
        self.debounce.lock().handed_on(self.kit.clock.monotonic());
    }

    /// Hands on what changes, for ever.
    async fn hand_on_changes(self: Arc<Self>) {
        loop {
            self.updates.notified().await;
            let wait = self.debounce.lock().wait(self.kit.clock.monotonic());
            if !wait.is_zero() {
                self.metrics.delayed.inc();
                sleep(wait).await;
            }
            self.hand_on();
        }
    }

    /// Figures of sets that are gone go with them.
    fn forget_sets(&self, before: &[SetSpec]) {
        let now = self.sets.lock();
        for set in before.iter().filter(|set| now.iter().all(|other| other.name != set.name)) {
            self.metrics.removed(&set.name);
            self.kit.sources.removed(&set.name);
        }
    }
}

/// The groups of providers in their order. Those of a single one are shared, not copied.
fn merge<'a>(providers: impl Iterator<Item = &'a Running>) -> Arc<Vec<TargetGroup>> {
    let mut found: Vec<_> = providers.map(|one| one.deps.found().groups).filter(|groups| !groups.is_empty()).collect();
    match found.len() {
        0 | 1 => found.pop().unwrap_or_default(),
        _ => Arc::new(found.iter().flat_map(|groups| groups.iter().cloned()).collect()),
    }
}

/// The sets have changed: make providers what they say, and hand on what they find at once. Answers with the names of
/// providers that have not looked in time; they are handed on when they have.
#[derive(Message)]
#[rtype(result = "Vec<String>")]
pub struct ApplyProviders;

/// The actor.
pub struct DiscoveryManager {
    deps: Arc<DiscoveryDeps>,
    /// The sets that were applied last.
    applied: Vec<SetSpec>,
}

impl DiscoveryManager {
    /// A manager that starts its providers when it starts.
    pub fn new(deps: Arc<DiscoveryDeps>) -> Self {
        Self { deps, applied: Vec::new() }
    }

    fn sync(&mut self, parent: &Parent) -> Vec<(String, BoundedAddr<DiscoveryProvider>)> {
        let waiting = self.deps.sync(parent);
        self.deps.forget_sets(&self.applied);
        self.applied = self.deps.sets.lock().clone();
        waiting
    }
}

/// Waits until all have looked; returns the names of those that have not.
async fn first_looks(providers: Vec<(String, BoundedAddr<DiscoveryProvider>)>) -> Vec<String> {
    let deadline = Instant::now() + CONFIRM_WITHIN;
    let looked = providers.iter().map(|(name, provider)| async move {
        match provider.ask(FirstLook, deadline).await {
            Ok(()) => None,
            Err(error) => Some(format!("discovery_provider {name}: {error}")),
        }
    });
    join_all(looked).await.into_iter().flatten().collect()
}

impl Actor for DiscoveryManager {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.sync(&ctx.parent());
        // A panic may have cut short a handing on: it is done again.
        self.deps.updates.notify_one();
        ctx.spawn(Arc::clone(&self.deps).hand_on_changes().into_actor(self));
    }
}

impl Supervised for DiscoveryManager {}

impl SupervisedActor for DiscoveryManager {
    const KIND: &'static Kind = &DISCOVERY_MANAGER;
}

impl Handler<Admitted<ApplyProviders>> for DiscoveryManager {
    type Result = ResponseActFuture<Self, Vec<String>>;

    fn handle(&mut self, apply: Admitted<ApplyProviders>, ctx: &mut Context<Self>) -> Self::Result {
        let (ApplyProviders, slot) = apply.into_parts();
        let waiting = self.sync(&ctx.parent());
        Box::pin(first_looks(waiting).into_actor(self).map(move |unconfirmed, manager, _| {
            manager.deps.hand_on();
            drop(slot);
            unconfirmed
        }))
    }
}

impl Handler<Control<ChildFailed>> for DiscoveryManager {
    type Result = ();

    /// A failed provider's last groups stay; that it has failed stands in the tree and in the log.
    fn handle(&mut self, _: Control<ChildFailed>, _: &mut Context<Self>) {}
}

impl Handler<Control<Drain>> for DiscoveryManager {
    type Result = ();

    fn handle(&mut self, Control(drain): Control<Drain>, ctx: &mut Context<Self>) {
        let deps = Arc::clone(&self.deps);
        let work = async move { deps.children.drain_all(drain.deadline).await };
        ctx.spawn(work.into_actor(self).map(|_, _, ctx: &mut Context<Self>| ctx.stop()));
    }
}
