//! All rule groups. Owns the groups: which there are follows from the rule files. Started by the root. Bound: its slots,
//! for applying configurations. Failure: restarts and adopts its groups, which go on meanwhile. Shutdown: drains its
//! groups.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix::prelude::{Actor, ActorContext, AsyncContext, Handler, Message, ResponseActFuture, Supervised};
use actix::{ActorFutureExt, ArbiterHandle, WrapFuture};
use futures::future::{FutureExt, join_all};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::actors::children::Children;
use crate::actors::context::Context;
use crate::actors::control::{ChildFailed, Control, Drain};
use crate::actors::kind::{Kind, Rank};
use crate::actors::mailbox::{Admitted, BoundedAddr};
use crate::actors::registry::ActorState;
use crate::actors::rule_group::{Apply, GroupDeps, GroupView, RuleGroup, RuleRuntime};
use crate::actors::supervision::{self, Parent, SupervisedActor};
use crate::rules::spec::GroupSpec;

/// The kind.
pub static RULE_MANAGER: Kind = Kind { name: "rule_manager", rank: Rank::MANAGER, slots: 4 };

/// How long a group may take to confirm a new specification.
const CONFIRM_WITHIN: Duration = Duration::from_secs(10);

/// What the API sees of all groups, readable while actors are stuck.
#[derive(Default)]
pub struct RulesOverview {
    groups: Mutex<Vec<Arc<GroupDeps>>>,
}

impl RulesOverview {
    /// The groups, by their keys.
    pub fn groups(&self) -> Vec<GroupView> {
        let groups = self.groups.lock().clone();
        groups.iter().map(|group| group.view()).collect()
    }
}

/// What the manager is given.
pub struct ManagerDeps {
    /// The groups that there should be, no two with one key; whoever changes them stores them first and sends
    /// [`ApplyRules`] then.
    pub groups: Mutex<Vec<GroupSpec>>,
    /// What the API sees.
    pub overview: Arc<RulesOverview>,
    /// What groups share.
    pub runtime: Arc<RuleRuntime>,
    /// The thread that groups run on.
    arbiter: ArbiterHandle,
    children: Children<String, RuleGroup>,
    /// Groups that are gone, until they have written their stale markers: an actor that nobody holds ends at once.
    retiring: Mutex<Vec<(String, BoundedAddr<RuleGroup>)>>,
    /// Groups were applied once; alerts of those that come later have no `for` from before the start.
    loaded: AtomicBool,
}

impl ManagerDeps {
    /// A manager without groups.
    pub fn new(runtime: Arc<RuleRuntime>, arbiter: ArbiterHandle) -> Arc<Self> {
        Arc::new(Self {
            groups: Mutex::default(),
            overview: Arc::default(),
            runtime,
            arbiter,
            children: Children::default(),
            retiring: Mutex::default(),
            loaded: AtomicBool::new(false),
        })
    }
}

/// The groups have changed: make actors what they say. Answers with the names of the groups that did not confirm in time.
/// Groups whose specification is the same are not touched.
#[derive(Message)]
#[rtype(result = "Vec<String>")]
pub struct ApplyRules;

/// The actor.
pub struct RuleManager {
    deps: Arc<ManagerDeps>,
}

impl RuleManager {
    /// A manager that starts its groups when it starts.
    pub fn new(deps: Arc<ManagerDeps>) -> Self {
        Self { deps }
    }

    /// Makes the groups what the specifications say; returns those that have to be told.
    fn sync(&self, parent: &Parent) -> Vec<(String, BoundedAddr<RuleGroup>)> {
        let deps = &self.deps;
        let wanted = deps.groups.lock().clone();
        let restored = deps.loaded.load(Ordering::Relaxed);
        let mut groups = deps.overview.groups.lock();
        let known: BTreeMap<String, Arc<GroupDeps>> =
            groups.iter().map(|group| (group.spec.load().key(), Arc::clone(group))).collect();
        let mut changed = Vec::new();
        let mut next = BTreeMap::new();
        for spec in wanted {
            let key = spec.key();
            let group = match known.get(&key) {
                Some(group) => {
                    if **group.spec.load() != spec {
                        group.spec.store(Arc::new(spec));
                    }
                    Arc::clone(group)
                }
                None => GroupDeps::new(spec, Arc::clone(&deps.runtime), restored),
            };
            let for_actor = Arc::clone(&group);
            let place = parent.place(key.clone());
            let actor = deps.children.adopt_or_spawn(key.clone(), |_| {
                supervision::spawn(&deps.arbiter, deps.runtime.policy, place, move |_| {
                    RuleGroup::new(Arc::clone(&for_actor))
                })
            });
            if !group.is_current() {
                changed.push((key.clone(), actor));
            }
            next.insert(key, group);
        }
        deps.retiring.lock().retain(|(_, group)| group.entry().state() != ActorState::Ended);
        for (key, actor) in deps.children.take_unwanted(|key| next.contains_key(key)) {
            if let Some(group) = known.get(&key) {
                group.mark_removed();
            }
            deps.runtime.metrics.removed(&key);
            deps.retiring.lock().push((key.clone(), actor.clone()));
            changed.push((key, actor));
        }
        *groups = next.into_values().collect();
        changed
    }

    /// Groups that panic too often say so on `/rules`.
    fn report_failed(&self) {
        let groups = self.deps.overview.groups.lock().clone();
        for (key, child) in self.deps.children.failed() {
            if let Some(group) = groups.iter().find(|group| group.spec.load().key() == key) {
                group.mark_failed(&child.entry().last_panic().unwrap_or_default());
            }
        }
    }
}

/// Waits until all have confirmed; returns the names of those that have not.
async fn confirm(groups: Vec<(String, BoundedAddr<RuleGroup>)>) -> Vec<String> {
    let deadline = Instant::now() + CONFIRM_WITHIN;
    let confirmed = groups.iter().map(|(name, group)| async move {
        match group.ask(Apply, deadline).await {
            Ok(()) => None,
            Err(error) => Some(format!("rule_group {name}: {error}")),
        }
    });
    join_all(confirmed).await.into_iter().flatten().collect()
}

impl Actor for RuleManager {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // After a restart, those that had to be told are told again.
        let mut changed = self.deps.retiring.lock().clone();
        changed.extend(self.sync(&ctx.parent()));
        self.report_failed();
        ctx.spawn(confirm(changed).into_actor(self).map(|_, _, _| ()));
    }
}

impl Supervised for RuleManager {}

impl SupervisedActor for RuleManager {
    const KIND: &'static Kind = &RULE_MANAGER;
}

impl Handler<Admitted<ApplyRules>> for RuleManager {
    type Result = ResponseActFuture<Self, Vec<String>>;

    fn handle(&mut self, apply: Admitted<ApplyRules>, ctx: &mut Context<Self>) -> Self::Result {
        let (ApplyRules, slot) = apply.into_parts();
        let changed = self.sync(&ctx.parent());
        self.deps.loaded.store(true, Ordering::Relaxed);
        Box::pin(confirm(changed).boxed_local().into_actor(self).map(move |unconfirmed, _, _| {
            drop(slot);
            unconfirmed
        }))
    }
}

impl Handler<Control<ChildFailed>> for RuleManager {
    type Result = ();

    fn handle(&mut self, _: Control<ChildFailed>, _: &mut Context<Self>) {
        self.report_failed();
    }
}

impl Handler<Control<Drain>> for RuleManager {
    type Result = ();

    fn handle(&mut self, Control(drain): Control<Drain>, ctx: &mut Context<Self>) {
        let deps = Arc::clone(&self.deps);
        for (_, group) in deps.retiring.lock().iter() {
            // One that has ended meanwhile needs no telling.
            let _ = group.signal(drain);
        }
        let work = async move { deps.children.drain_all(drain.deadline).await };
        ctx.spawn(work.into_actor(self).map(|_, _, ctx: &mut Context<Self>| ctx.stop()));
    }
}
