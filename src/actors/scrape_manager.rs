//! All jobs. Owns the pools. Started by the root. Bound: its slots, for applying configurations. Failure: restarts and
//! adopts its pools. Shutdown: drains its pools.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::{Actor, ActorContext, AsyncContext, Handler, Message, ResponseActFuture, Supervised};
use actix::{ActorFutureExt, ArbiterHandle, WrapFuture};
use futures::future::{FutureExt, join_all};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::actors::children::Children;
use crate::actors::config_reloader::PlanSection;
use crate::actors::context::Context;
use crate::actors::control::{ChildFailed, Control, Drain, Reload};
use crate::actors::discovery::{Consumer, GroupsBySet};
use crate::actors::kind::{Kind, Rank};
use crate::actors::mailbox::{Admitted, BoundedAddr};
use crate::actors::registry::ActorState;
use crate::actors::scrape_pool::{Apply, JobSpec, PoolDeps, PoolView, ScrapePool};
use crate::actors::scrape_target::ScrapeRuntime;
use crate::actors::supervision::{self, Parent, SupervisedActor};

/// The kind.
pub static SCRAPE_MANAGER: Kind = Kind { name: "scrape_manager", rank: Rank::MANAGER, slots: 4 };

/// How long a pool may take to confirm a new specification.
const CONFIRM_WITHIN: Duration = Duration::from_secs(10);

/// What the API sees of all pools, readable while actors are stuck.
#[derive(Default)]
pub struct ScrapeOverview {
    pools: Mutex<Vec<Arc<PoolDeps>>>,
}

impl ScrapeOverview {
    /// The pools, by name.
    pub fn pools(&self) -> Vec<Arc<PoolView>> {
        self.pools.lock().iter().map(|pool| pool.view.load_full()).collect()
    }
}

/// What the manager is given.
pub struct ManagerDeps {
    /// The jobs that there should be; whoever changes them stores them first and sends [`ApplyJobs`] then.
    pub jobs: Mutex<Vec<JobSpec>>,
    /// What the API sees.
    pub overview: Arc<ScrapeOverview>,
    /// What discovery has found, by job. Stored first; then the manager is signalled [`Reload`].
    discovered: Mutex<GroupsBySet>,
    runtime: Arc<ScrapeRuntime>,
    /// Threads that pools and targets run on.
    arbiters: Arc<[ArbiterHandle]>,
    children: Children<String, ScrapePool>,
    /// Pools of jobs that are gone, until their targets have written their stale markers: an actor that nobody holds ends
    /// at once.
    retiring: Mutex<Vec<(String, BoundedAddr<ScrapePool>)>>,
}

impl ManagerDeps {
    /// A manager of `jobs`.
    pub fn new(jobs: Vec<JobSpec>, runtime: Arc<ScrapeRuntime>, arbiters: Arc<[ArbiterHandle]>) -> Arc<Self> {
        assert!(!arbiters.is_empty(), "targets need a thread");
        let overview = Arc::new(ScrapeOverview::default());
        let (jobs, children) = (Mutex::new(jobs), Children::default());
        let (discovered, retiring) = (Mutex::default(), Mutex::default());
        Arc::new(Self { jobs, overview, discovered, runtime, arbiters, children, retiring })
    }
}

/// Hands on to the scrape pools what discovery finds for their jobs.
pub struct ScrapeConsumer {
    /// The manager's.
    pub deps: Arc<ManagerDeps>,
    /// The manager.
    pub manager: BoundedAddr<ScrapeManager>,
}

impl Consumer for ScrapeConsumer {
    fn discovered(&self, sets: GroupsBySet) {
        *self.deps.discovered.lock() = sets;
        // A manager that has ended has no pools. One that has failed is tried again by this.
        let _ = self.manager.signal(Reload);
    }
}

impl ManagerDeps {
    /// What would become of the targets if the jobs were `jobs`.
    pub fn plan_targets(&self, jobs: &[JobSpec]) -> PlanSection {
        let pools = self.overview.pools.lock().clone();
        let mut section = PlanSection::new("target");
        for job in jobs {
            match pools.iter().find(|pool| pool.spec.load().name == job.name) {
                Some(pool) => pool.plan(job, &mut section),
                None => {
                    PoolDeps::new(job.clone(), Arc::clone(&self.runtime), Arc::clone(&self.arbiters))
                        .plan(job, &mut section);
                }
            }
        }
        for pool in pools {
            let spec = pool.spec.load();
            if !jobs.iter().any(|job| job.name == spec.name) {
                let none = JobSpec { groups: Arc::from([]), removed: true, ..(**spec).clone() };
                pool.plan(&none, &mut section);
            }
        }
        section
    }
}

/// The jobs have changed: make pools what they say. Answers with the names of the pools that did not confirm in time.
#[derive(Message)]
#[rtype(result = "Vec<String>")]
pub struct ApplyJobs;

/// The actor.
pub struct ScrapeManager {
    deps: Arc<ManagerDeps>,
}

impl ScrapeManager {
    /// A manager that starts its pools when it starts.
    pub fn new(deps: Arc<ManagerDeps>) -> Self {
        Self { deps }
    }

    /// Gives the pools what discovery has found for them, where it has changed.
    fn hand_on_discovered(&self) {
        let sets = self.deps.discovered.lock().clone();
        for pool in self.deps.overview.pools.lock().iter() {
            let name = pool.spec.load().name.clone();
            let groups = sets.get(&name).cloned().unwrap_or_default();
            if Arc::ptr_eq(&pool.discovered.load(), &groups) || **pool.discovered.load() == *groups {
                continue;
            }
            pool.discovered.store(groups);
            if let Some(actor) = self.deps.children.get(&name) {
                // One that has ended is started anew with the next jobs.
                let _ = actor.signal(Reload);
            }
        }
    }

    /// Makes the pools what the jobs say; returns those that do not hold to their specification yet.
    fn sync(&self, parent: &Parent) -> Vec<(String, BoundedAddr<ScrapePool>)> {
        let jobs = self.deps.jobs.lock().clone();
        let discovered = self.deps.discovered.lock().clone();
        let mut pools = self.deps.overview.pools.lock();
        let mut changed = Vec::new();
        let mut next = Vec::with_capacity(jobs.len());
        for (index, job) in jobs.iter().enumerate() {
            let known = pools.iter().find(|pool| pool.spec.load().name == job.name);
            let deps = match known {
                Some(deps) => Arc::clone(deps),
                None => {
                    self.deps.runtime.pools.created();
                    let (runtime, arbiters) = (Arc::clone(&self.deps.runtime), Arc::clone(&self.deps.arbiters));
                    let deps = PoolDeps::new(job.clone(), runtime, arbiters);
                    deps.discovered.store(discovered.get(&job.name).cloned().unwrap_or_default());
                    deps
                }
            };
            let differs = deps.applied_revision() != Some(job.revision);
            deps.spec.store(Arc::new(job.clone()));
            let arbiter = &self.deps.arbiters[index % self.deps.arbiters.len()];
            let for_actor = Arc::clone(&deps);
            let place = parent.place(job.name.clone());
            let pool = self.deps.children.adopt_or_spawn(job.name.clone(), |_| {
                supervision::spawn(arbiter, self.deps.runtime.policy, place, move |_| {
                    ScrapePool::new(Arc::clone(&for_actor))
                })
            });
            if differs {
                changed.push((job.name.clone(), pool));
            }
            next.push(deps);
        }
        next.sort_by(|a, b| a.spec.load().name.cmp(&b.spec.load().name));
        self.deps.retiring.lock().retain(|(_, pool)| pool.entry().state() != ActorState::Ended);
        let gone = self.deps.children.take_unwanted(|name| jobs.iter().any(|job| job.name == *name));
        for (name, pool) in gone {
            // The pool of a job that is gone has no targets: they write their stale markers, and it ends.
            let Some(deps) = pools.iter().find(|deps| deps.spec.load().name == name) else { continue };
            let empty = JobSpec { groups: Arc::from([]), removed: true, ..(**deps.spec.load()).clone() };
            deps.spec.store(Arc::new(empty));
            self.deps.retiring.lock().push((name.clone(), pool.clone()));
            changed.push((name, pool));
        }
        *pools = next;
        changed
    }
}

/// Waits until all have confirmed; returns the names of those that have not.
async fn confirm(pools: Vec<(String, BoundedAddr<ScrapePool>)>) -> Vec<String> {
    let deadline = Instant::now() + CONFIRM_WITHIN;
    let confirmed = pools.iter().map(|(name, pool)| async move {
        match pool.ask(Apply, deadline).await {
            Ok(()) => None,
            Err(error) => Some(format!("scrape_pool {name}: {error}")),
        }
    });
    join_all(confirmed).await.into_iter().flatten().collect()
}

impl Actor for ScrapeManager {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // Pools that are new read their specification as they start; after a restart the others are told again.
        let mut changed = self.deps.retiring.lock().clone();
        changed.extend(self.sync(&ctx.parent()));
        self.hand_on_discovered();
        ctx.spawn(confirm(changed).into_actor(self).map(|_, _, _| ()));
    }
}

impl Supervised for ScrapeManager {}

impl SupervisedActor for ScrapeManager {
    const KIND: &'static Kind = &SCRAPE_MANAGER;
}

impl Handler<Admitted<ApplyJobs>> for ScrapeManager {
    type Result = ResponseActFuture<Self, Vec<String>>;

    fn handle(&mut self, apply: Admitted<ApplyJobs>, ctx: &mut Context<Self>) -> Self::Result {
        let (ApplyJobs, slot) = apply.into_parts();
        let changed = self.sync(&ctx.parent());
        Box::pin(confirm(changed).boxed_local().into_actor(self).map(move |unconfirmed, _, _| {
            drop(slot);
            unconfirmed
        }))
    }
}

impl Handler<Control<Reload>> for ScrapeManager {
    type Result = ();

    /// Discovery has found other groups.
    fn handle(&mut self, _: Control<Reload>, _: &mut Context<Self>) {
        self.hand_on_discovered();
    }
}

impl Handler<Control<ChildFailed>> for ScrapeManager {
    type Result = ();

    /// A failed pool's targets go on; that it cannot change them stands in the tree and in the log.
    fn handle(&mut self, _: Control<ChildFailed>, _: &mut Context<Self>) {}
}

impl Handler<Control<Drain>> for ScrapeManager {
    type Result = ();

    fn handle(&mut self, Control(drain): Control<Drain>, ctx: &mut Context<Self>) {
        let deps = Arc::clone(&self.deps);
        for (_, pool) in deps.retiring.lock().iter() {
            // One that has ended meanwhile needs no telling.
            let _ = pool.signal(drain);
        }
        let work = async move { deps.children.drain_all(drain.deadline).await };
        ctx.spawn(work.into_actor(self).map(|_, _, ctx: &mut Context<Self>| ctx.stop()));
    }
}
