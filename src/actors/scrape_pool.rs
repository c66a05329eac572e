//! One job. Owns the job's targets: which there are follows from its specification and its target groups. Started by the
//! scrape manager. Bound: its slots, for applying specifications. Failure: restarts and adopts its targets, which go on
//! meanwhile. Shutdown: drains its targets.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use actix::ArbiterHandle;
use actix::fut::ready;
use actix::prelude::{Actor, ActorContext, ActorFuture, AsyncContext, AtomicResponse, Handler, Message, Supervised};
use actix::{ActorFutureExt, WrapFuture};
use arc_swap::ArcSwap;
use futures::future::join_all;
use parking_lot::Mutex;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};

use crate::actors::children::Children;
use crate::actors::config_reloader::PlanSection;
use crate::actors::context::Context;
use crate::actors::control::{ChildFailed, Control, Drain, Reload};
use crate::actors::kind::{Kind, Rank};
use crate::actors::mailbox::{Admitted, BoundedAddr};
use crate::actors::scrape_target::{Retire, ScrapeRuntime, ScrapeTarget, TargetShared};
use crate::actors::supervision::{self, Parent, SupervisedActor};
use crate::client::HttpClient;
use crate::config::relabel::{RelabelConfig, relabel};
pub use crate::discovery::TargetGroup;
use crate::model::labels::Labels;
use crate::model::time::TimestampMs;
use crate::scrape::pool_metrics::Synced;
use crate::scrape::schedule::Schedule;
use crate::scrape::settings::{MetricRelabel, SamplePlan, ScrapeSettings};
use crate::scrape::target::{Resolved, Target, TargetDefaults, UNIX_SOCKET, discovered_labels, resolve};
use crate::telemetry::repeat::{RepeatLimiter, Verdict};

/// The kind.
pub static SCRAPE_POOL: Kind = Kind { name: "scrape_pool", rank: Rank::MANAGER.below(1), slots: 4 };

/// How long a target that is gone may take to write its stale markers.
const RETIRE_WITHIN: Duration = Duration::from_secs(30);
/// Bad targets that are named in the log when they change; the others are counted.
const FAILURES_LOGGED_MAX: usize = 10;

/// Targets that are resolved or started without a look at what else the thread has to do.
const SLICE: usize = 16;

/// What a job is.
#[derive(Clone)]
pub struct JobSpec {
    /// Its name.
    pub name: String,
    /// Differs whenever anything of the job has changed.
    pub revision: u64,
    /// Differs whenever something has changed that the samples of a target that stays depend on.
    pub generation: u64,
    /// The job is gone: once its targets have ended, the pool ends.
    pub removed: bool,
    /// What it gives to its targets.
    pub defaults: TargetDefaults,
    /// What decides how samples are read.
    pub settings: Arc<ScrapeSettings>,
    /// `relabel_configs`.
    pub relabel: Arc<[RelabelConfig]>,
    /// `metric_relabel_configs`, if there are any.
    pub metric_relabel: Option<Arc<MetricRelabel>>,
    /// Its targets' connections.
    pub client: HttpClient,
    /// Targets allowed; 0 for any number.
    pub target_limit: u64,
    /// Dropped targets that are remembered; 0 for all.
    pub keep_dropped: u64,
    /// `static_configs`.
    pub groups: Arc<[TargetGroup]>,
}

/// What a pool shows to the API, readable while the pool is stuck.
#[derive(Default)]
pub struct PoolView {
    /// The job's name.
    pub name: String,
    /// Targets that are scraped, by their labels.
    pub active: Vec<Arc<TargetShared>>,
    /// Discovered labels of targets that relabelling dropped, as many as are kept.
    pub dropped: Vec<Labels>,
    /// How many were dropped.
    pub dropped_count: u64,
}

/// What a pool is given, and what it publishes.
pub struct PoolDeps {
    /// The specification; whoever changes it stores it here first and sends [`Apply`] then.
    pub spec: ArcSwap<JobSpec>,
    /// What discovery has found for the job; whoever changes it stores it here first and signals [`Reload`] then.
    pub discovered: ArcSwap<Vec<TargetGroup>>,
    /// What all targets share.
    pub runtime: Arc<ScrapeRuntime>,
    /// Threads that targets run on.
    pub arbiters: Arc<[ArbiterHandle]>,
    /// What the API sees.
    pub view: ArcSwap<PoolView>,
    children: Children<TargetKey, ScrapeTarget>,
    /// Of bad targets: they are the same at each synchronisation.
    repeats: Mutex<RepeatLimiter>,
    /// The revision that the targets were made of last.
    applied: Mutex<Option<u64>>,
    /// Targets that still have to write their stale markers; a restarted pool goes on with them.
    retiring: Mutex<Vec<Arc<Gone>>>,
}

/// Identity of a target: its hash and the generation of the specification that made it.
type TargetKey = (u64, u64);

impl PoolDeps {
    /// A pool without targets yet.
    pub fn new(spec: JobSpec, runtime: Arc<ScrapeRuntime>, arbiters: Arc<[ArbiterHandle]>) -> Arc<Self> {
        let view = PoolView { name: spec.name.clone(), ..PoolView::default() };
        Arc::new(Self {
            spec: ArcSwap::from_pointee(spec),
            discovered: ArcSwap::default(),
            runtime,
            arbiters,
            view: ArcSwap::from_pointee(view),
            children: Children::default(),
            repeats: Mutex::default(),
            applied: Mutex::default(),
            retiring: Mutex::default(),
        })
    }
}

impl PoolDeps {
    /// The revision of the specification that the targets were made of last.
    pub(super) fn applied_revision(&self) -> Option<u64> {
        *self.applied.lock()
    }

    /// Adds to `section` what would become of the targets with the specification `next`.
    pub fn plan(&self, next: &JobSpec, section: &mut PlanSection) {
        let view = self.view.load_full();
        let mut left: BTreeMap<&Labels, &Arc<TargetShared>> =
            view.active.iter().map(|shared| (&shared.target.labels, shared)).collect();
        let named = |url: &str| format!("{}/{url}", next.name);
        let discovered = self.discovered.load_full();
        let mut resolving = Resolving::new(next, &discovered);
        while resolving.step(usize::MAX) {}
        for (hash, target) in resolving.wanted.targets {
            match left.remove(&target.labels) {
                None => section.added.push(|| named(&target.scrape_url)),
                Some(known) if key(known) == (hash, next.generation) => section.kept += 1,
                Some(_) => section.changed.push(|| named(&target.scrape_url)),
            }
        }
        left.into_values().for_each(|gone| section.removed.push(|| named(&gone.target.scrape_url)));
    }
}

impl PoolDeps {
    /// Logs bad targets when they change, then once a minute.
    fn log_failures(&self, failures: &[String], now: Duration) {
        let mut repeats = self.repeats.lock();
        if failures.is_empty() {
            repeats.succeeded();
            return;
        }
        let Verdict::Log { repeated } = repeats.failed(&failures.join("\n"), now) else { return };
        let spec = self.spec.load();
        let (component, pool) = ("scrape manager", spec.name.as_str());
        for err in failures.iter().take(FAILURES_LOGGED_MAX) {
            tracing::error!(component, scrape_pool = pool, err, repeated, "Creating target failed");
        }
        if let Some(more) = failures.len().checked_sub(FAILURES_LOGGED_MAX).filter(|more| 0 < *more) {
            tracing::error!(component, scrape_pool = pool, more, repeated, "Creating more targets failed");
        }
    }

    /// Makes the children what the specification says. A target whose labels and URL are wanted as before goes on
    /// untouched: schedule, connection, series. A long list is gone through in slices, as others share the thread.
    async fn sync(&self, parent: &Parent) -> (Vec<Arc<Gone>>, Applied) {
        let metrics = &self.runtime.pools;
        let began = metrics.clock().monotonic();
        let spec = self.spec.load_full();
        let discovered = self.discovered.load_full();
        let wanted = {
            let mut resolving = Resolving::new(&spec, &discovered);
            while resolving.step(SLICE) {
                yield_now().await;
            }
            resolving.wanted
        };
        self.log_failures(&wanted.failures, began);
        let barred = over_target_limit(wanted.targets.len(), spec.target_limit);
        if barred.is_some() {
            metrics.over_target_limit();
        }
        let before = self.view.load_full();
        let by_key: HashMap<TargetKey, &Arc<TargetShared>> =
            before.active.iter().map(|known| (key(known), known)).collect();
        let count = wanted.targets.len();
        let mut active: Vec<Arc<TargetShared>> = Vec::with_capacity(count);
        for (index, (hash, target)) in wanted.targets.into_iter().enumerate() {
            if 0 < index && index % SLICE == 0 {
                yield_now().await;
            }
            let shared = match by_key.get(&(hash, spec.generation)) {
                Some(shared) => {
                    // Labels that relabelling does not look at may have changed: the API shows them.
                    shared.rediscovered(target.discovered);
                    Arc::clone(shared)
                }
                None => {
                    let predecessor = with_labels(&before.active, &target.labels);
                    let shared = self.share(&spec, target, predecessor, count);
                    if let Some(predecessor) = predecessor {
                        shared.succeed(predecessor);
                    }
                    shared
                }
            };
            shared.bar(barred.clone());
            // Those that are due together share a thread, and find it awake.
            let place = usize::try_from(shared.schedule.place()).unwrap_or(0);
            let arbiter = &self.arbiters[place % self.arbiters.len()];
            let place = parent.place(shared.target.scrape_url.clone());
            let for_actor = Arc::clone(&shared);
            self.children.adopt_or_spawn(key(&shared), |_| {
                supervision::spawn(arbiter, self.runtime.policy, place, move |_| {
                    ScrapeTarget::new(Arc::clone(&for_actor))
                })
            });
            active.push(shared);
        }
        active.sort_by(|a, b| a.target.labels.cmp(&b.target.labels));
        let kept: std::collections::BTreeSet<TargetKey> = active.iter().map(key).collect();
        self.view.store(Arc::new(PoolView {
            name: spec.name.clone(),
            active,
            dropped: wanted.dropped,
            dropped_count: wanted.dropped_count,
        }));
        if spec.removed {
            metrics.removed(&spec.name);
        } else {
            let (targets, failures) = (kept.len(), wanted.failures.len());
            let took = metrics.clock().monotonic().saturating_sub(began);
            metrics.synced(&spec.name, Synced { targets, target_limit: spec.target_limit, failures, took });
        }
        let now = self.view.load_full();
        let gone = self.children.take_unwanted(|key| kept.contains(key));
        let gone = gone.into_iter().map(|(gone, actor)| {
            let shared = by_key.get(&gone).map(|shared| Arc::clone(shared));
            let succession = shared.as_ref().and_then(|shared| {
                Some(Succession {
                    successor: Arc::clone(with_labels(&now.active, &shared.target.labels)?),
                    at: shared.unscheduled(),
                    within: shared.target.interval.to_std().saturating_mul(2),
                })
            });
            Arc::new(Gone { actor, shared, succession })
        });
        *self.applied.lock() = Some(spec.revision);
        (gone.collect(), (spec, discovered))
    }

    /// One that follows another with the same labels goes on at its due times.
    fn share(
        &self,
        spec: &JobSpec,
        target: Target,
        predecessor: Option<&Arc<TargetShared>>,
        count: usize,
    ) -> Arc<TargetShared> {
        let native = target.native_part(spec.settings.native);
        let classic = target.classic_part(spec.settings.classic);
        let settings = if native == spec.settings.native && classic == spec.settings.classic {
            Arc::clone(&spec.settings)
        } else {
            Arc::new(ScrapeSettings { native, classic, ..ScrapeSettings::clone(&spec.settings) })
        };
        let client = match target.private_labels.get(UNIX_SOCKET) {
            None | Some("") => spec.client.clone(),
            Some(path) => spec.client.over_unix_socket(path),
        };
        let plan = SamplePlan { target_labels: target.labels.clone(), settings, relabel: spec.metric_relabel.clone() };
        let place = |own: Schedule| match predecessor.filter(|before| before.schedule.interval() == own.interval()) {
            Some(before) => own.in_steps_of(before.schedule),
            None => own.among(count),
        };
        TargetShared::beside(target, spec.generation, plan, client, Arc::clone(&self.runtime), place)
    }
}

/// The specification has changed: make targets what it says. Answers when the new targets are started; those that are
/// gone write their stale markers afterwards.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Apply;

/// The actor.
pub struct ScrapePool {
    deps: Arc<PoolDeps>,
    /// What the targets were made of.
    applied: Option<Applied>,
}

/// A specification with what discovery had found for it.
type Applied = (Arc<JobSpec>, Arc<Vec<TargetGroup>>);

/// What the groups of a job come to.
#[derive(Default)]
struct Wanted {
    targets: BTreeMap<u64, Target>,
    dropped: Vec<Labels>,
    dropped_count: u64,
    failures: Vec<String>,
}

/// Groups on their way to targets, one for each label set and URL.
struct Resolving<'a> {
    spec: &'a JobSpec,
    groups: std::iter::Peekable<Box<dyn Iterator<Item = &'a TargetGroup> + 'a>>,
    /// How many of the group at hand are done.
    done: usize,
    wanted: Wanted,
}

impl<'a> Resolving<'a> {
    fn new(spec: &'a JobSpec, discovered: &'a [TargetGroup]) -> Self {
        // A job that is gone has no targets, whatever is found for it.
        let discovered = if spec.removed { &[] } else { discovered };
        let groups: Box<dyn Iterator<Item = _>> = Box::new(spec.groups.iter().chain(discovered));
        Self { spec, groups: groups.peekable(), done: 0, wanted: Wanted::default() }
    }

    /// Resolves at most `count` targets of the group at hand; false when there is none left.
    fn step(&mut self, count: usize) -> bool {
        let Some(group) = self.groups.peek() else { return false };
        let (spec, wanted) = (self.spec, &mut self.wanted);
        for (index, target) in group.targets.iter().enumerate().skip(self.done).take(count) {
            let discovered = discovered_labels(&spec.defaults, target, &group.labels);
            match resolve(&spec.defaults, discovered, |labels| relabel(labels, &spec.relabel)) {
                Ok(Resolved::Target(target)) => drop(wanted.targets.insert(target.hash(), *target)),
                Ok(Resolved::Dropped { discovered }) => {
                    wanted.dropped_count += 1;
                    if spec.keep_dropped == 0 || (wanted.dropped.len() as u64) < spec.keep_dropped {
                        wanted.dropped.push(discovered);
                    }
                }
                Err(err) => {
                    wanted.failures.push(format!("instance {index} in group {}: {err}", group.source));
                }
            }
        }
        self.done = self.done.saturating_add(count);
        if group.targets.len() <= self.done {
            self.done = 0;
            self.groups.next();
        }
        true
    }
}

impl ScrapePool {
    /// A pool that starts its targets when it starts.
    pub fn new(deps: Arc<PoolDeps>) -> Self {
        Self { deps, applied: None }
    }

    /// Nothing else is handled meanwhile.
    fn apply(&self, ctx: &mut Context<Self>) -> impl ActorFuture<Self, Output = ()> + use<> {
        let (deps, parent) = (Arc::clone(&self.deps), ctx.parent());
        let sync = async move { deps.sync(&parent).await };
        sync.into_actor(self).map(|(gone, applied), pool, ctx| {
            pool.applied = Some(applied);
            pool.deps.retiring.lock().extend(gone.iter().cloned());
            pool.retire(gone, ctx);
        })
    }

    fn retire(&self, gone: Vec<Arc<Gone>>, ctx: &mut Context<Self>) {
        let deps = Arc::clone(&self.deps);
        let work = async move {
            let deadline = Instant::now() + RETIRE_WITHIN;
            join_all(gone.iter().map(|target| target.end(deadline))).await;
            deps.retiring.lock().retain(|target| !gone.iter().any(|done| Arc::ptr_eq(done, target)));
        };
        ctx.spawn(work.into_actor(self).map(|(), pool, ctx: &mut Context<Self>| {
            if pool.deps.spec.load().removed && pool.deps.retiring.lock().is_empty() {
                ctx.stop();
            }
        }));
    }

    /// Targets that panic too often are down: their series say so.
    fn report_failed(&self, ctx: &mut Context<Self>) {
        let view = self.deps.view.load_full();
        for (failed, child) in self.deps.children.failed() {
            let Some(shared) = view.active.iter().find(|shared| key(shared) == failed).cloned() else { continue };
            let reason = child.entry().last_panic().unwrap_or_default();
            ctx.spawn(async move { shared.mark_failed(&reason).await }.into_actor(self));
        }
    }
}

/// Why none of a pool's targets may be scraped, if there are more than its limit allows.
fn over_target_limit(targets: usize, limit: u64) -> Option<Arc<String>> {
    let over = 0 < limit && limit < targets as u64;
    over.then(|| Arc::new(format!("target_limit exceeded (number of targets: {targets}, limit: {limit})")))
}

/// A target with these labels; targets are sorted by them.
fn with_labels<'a>(sorted: &'a [Arc<TargetShared>], labels: &Labels) -> Option<&'a Arc<TargetShared>> {
    let index = sorted.binary_search_by(|shared| shared.target.labels.cmp(labels)).ok()?;
    sorted.get(index)
}

fn key(shared: &Arc<TargetShared>) -> TargetKey {
    (shared.target.hash(), shared.generation)
}

/// A target that is no longer wanted.
struct Gone {
    actor: BoundedAddr<ScrapeTarget>,
    /// What it has published; none when the pool has forgotten the target in a panic.
    shared: Option<Arc<TargetShared>>,
    /// Set when the same target goes on under a changed specification.
    succession: Option<Succession>,
}

/// The end of a target that another one succeeds. Its series end only where the other no longer has them, and that is known
/// after the other's first scrape: stale markers that come late, with the time of the change, are refused as out of order
/// for series that have gone on.
struct Succession {
    successor: Arc<TargetShared>,
    /// Time stamp of the stale markers.
    at: TimestampMs,
    /// How long to wait for the first scrape.
    within: Duration,
}

impl Gone {
    /// The target ends.
    async fn end(&self, deadline: Instant) {
        match &self.succession {
            Some(succession) => self.hand_over(succession).await,
            None => self.retire(deadline).await,
        }
    }

    async fn hand_over(&self, Succession { successor, at, within }: &Succession) {
        // One that has ended already needs no telling.
        let _ = self.actor.signal(Drain { deadline: Instant::now() });
        // Both waits are bounded; what happens afterwards is the same.
        let _ = timeout(RETIRE_WITHIN, self.actor.ended()).await;
        let _ = timeout(*within, successor.scraped()).await;
        if let Some(shared) = &self.shared {
            shared.end_at(*at).await;
        }
    }

    /// The target writes its stale markers and ends. For one that cannot, having failed or panicked, the pool writes them
    /// once it has ended, as nobody must scrape what is no longer wanted.
    async fn retire(&self, deadline: Instant) {
        if self.actor.ask(Retire, deadline).await.is_ok() {
            return;
        }
        // `Gone` is as good: it has ended already.
        let _ = self.actor.signal(Drain { deadline: Instant::now() });
        if timeout(RETIRE_WITHIN, self.actor.ended()).await.is_ok()
            && let Some(shared) = &self.shared
        {
            shared.end().await;
        }
    }
}

impl Actor for ScrapePool {
    type Context = Context<Self>;

    /// A panic may have cut short what the pool did for targets that are gone or have failed: it is done again.
    fn started(&mut self, ctx: &mut Self::Context) {
        let unfinished = self.deps.retiring.lock().clone();
        self.retire(unfinished, ctx);
        let applied = self.apply(ctx).map(|(), pool, ctx: &mut Context<Self>| pool.report_failed(ctx));
        ctx.wait(applied);
    }
}

impl Supervised for ScrapePool {}

impl SupervisedActor for ScrapePool {
    const KIND: &'static Kind = &SCRAPE_POOL;
}

impl Handler<Admitted<Apply>> for ScrapePool {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, _: Admitted<Apply>, ctx: &mut Context<Self>) -> Self::Result {
        let metrics = self.deps.runtime.pools.clone();
        let began = metrics.clock().monotonic();
        if let Some((spec, discovered)) = &self.applied
            && Arc::ptr_eq(spec, &self.deps.spec.load())
            && Arc::ptr_eq(discovered, &self.deps.discovered.load())
        {
            // It did as it started.
            return AtomicResponse::new(Box::pin(ready(())));
        }
        AtomicResponse::new(Box::pin(self.apply(ctx).map(move |(), pool: &mut Self, _| {
            let spec = pool.deps.spec.load();
            if !spec.removed {
                let took = metrics.clock().monotonic().saturating_sub(began);
                metrics.reloaded(spec.defaults.scrape_interval.to_std(), took);
            }
        })))
    }
}

impl Handler<Control<Reload>> for ScrapePool {
    type Result = ();

    /// Discovery has found other groups.
    fn handle(&mut self, _: Control<Reload>, ctx: &mut Context<Self>) {
        let applied = self.apply(ctx);
        ctx.wait(applied);
    }
}

impl Handler<Control<ChildFailed>> for ScrapePool {
    type Result = ();

    fn handle(&mut self, _: Control<ChildFailed>, ctx: &mut Context<Self>) {
        self.report_failed(ctx);
    }
}

impl Handler<Control<Drain>> for ScrapePool {
    type Result = ();

    fn handle(&mut self, Control(drain): Control<Drain>, ctx: &mut Context<Self>) {
        let deps = Arc::clone(&self.deps);
        for target in deps.retiring.lock().iter() {
            // One that has ended meanwhile needs no telling.
            let _ = target.actor.signal(drain);
        }
        let work = async move { deps.children.drain_all(drain.deadline).await };
        ctx.spawn(work.into_actor(self).map(|_, _, ctx: &mut Context<Self>| ctx.stop()));
    }
}
