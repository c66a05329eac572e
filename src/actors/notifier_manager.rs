//! All external Alertmanagers. Owns a notifier for each URL of each configuration. Started by the root. Bound: its slots,
//! for applying configurations. Failure: restarts and adopts its notifiers, which go on meanwhile. Shutdown: drains its
//! notifiers, those that are gone as well.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::prelude::{Actor, ActorContext, AsyncContext, Handler, Message, ResponseActFuture, Supervised};
use actix::{ActorFutureExt, ArbiterHandle, WrapFuture};
use arc_swap::ArcSwap;
use futures::future::{FutureExt, join_all};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::actors::children::Children;
use crate::actors::context::Context;
use crate::actors::control::{ChildFailed, Control, Drain, Reload};
use crate::actors::discovery::{Consumer, GroupsBySet};
use crate::actors::kind::{Kind, Rank};
use crate::actors::mailbox::{Admitted, BoundedAddr};
use crate::actors::notifier::{Deliver, Notifier, NotifierHandle, NotifierRuntime, NotifierShared};
use crate::actors::supervision::{self, Parent, SupervisedActor};
use crate::client::HttpClient;
use crate::config::AlertmanagerConfig;
use crate::model::alert::Alert;
use crate::notify::endpoint::{EndpointError, Endpoints, FoundGroup};
use crate::notify::prepare::relabel_shared;

/// The kind.
pub static NOTIFIER_MANAGER: Kind = Kind { name: "notifier_manager", rank: Rank::GATEWAY, slots: 4 };

/// How long a new notifier may take to confirm that it runs.
const CONFIRM_WITHIN: Duration = Duration::from_secs(10);
/// How long a notifier that is gone may take to send what it still has.
const RETIRE_WITHIN: Duration = Duration::from_secs(30);
/// Beyond that a notifier that does not even end is left behind.
const RETIRE_MARGIN: Duration = Duration::from_secs(5);

/// Alertmanagers with the same settings.
#[derive(Clone)]
pub struct NotifierSetSpec {
    settings: Arc<AlertmanagerConfig>,
    client: HttpClient,
    endpoints: Endpoints,
    /// The set of groups that discovery finds for it, and the configuration with its rules for them.
    discovered: Option<(String, Arc<AlertmanagerConfig>)>,
}

impl NotifierSetSpec {
    /// The Alertmanagers at `endpoints`, which stand in the configuration itself, asked through `client`.
    pub fn new(config: &AlertmanagerConfig, client: HttpClient, endpoints: Endpoints) -> Self {
        // Where Alertmanagers are found decides which notifiers there are, not what they do.
        let settings =
            AlertmanagerConfig { discovery: Default::default(), relabel_configs: Vec::new(), ..config.clone() };
        Self { settings: Arc::new(settings), client, endpoints, discovered: None }
    }

    /// The same, and those that discovery finds under the name `set`.
    #[must_use]
    pub fn discovered_as(self, set: String, config: &AlertmanagerConfig) -> Self {
        Self { discovered: Some((set, Arc::new(config.clone()))), ..self }
    }

    /// With what discovery has found.
    fn with_found(mut self, sets: &GroupsBySet) -> Self {
        let Some((set, config)) = &self.discovered else { return self };
        let known = self.endpoints.failures.len();
        for group in sets.get(set).iter().flat_map(|groups| groups.iter()) {
            self.endpoints.add(config, FoundGroup { targets: &group.targets, labels: &group.labels });
        }
        for err in self.endpoints.failures.iter().skip(known) {
            tracing::error!(component = "notifier", %err, "Creating discovered Alertmanagers failed");
        }
        self
    }

    /// Why groups of Alertmanagers were left out.
    pub fn failures(&self) -> &[EndpointError] {
        &self.endpoints.failures
    }

    /// URL and settings of each Alertmanager.
    pub fn each(&self) -> impl Iterator<Item = (String, &AlertmanagerConfig)> {
        self.endpoints.active.iter().map(|endpoint| (endpoint.text.clone(), &*self.settings))
    }
}

/// Running notifiers with the same settings.
struct NotifierSet {
    spec: NotifierSetSpec,
    notifiers: Vec<(NotifierId, NotifierHandle)>,
}

/// Numbers notifiers. One that comes back to a URL has another number than the one that was there before, which may still
/// be sending what it had.
type NotifierId = u64;

/// All notifiers, as those see them who have alerts, and as the API sees them; readable while actors are stuck.
#[derive(Default)]
pub struct NotifierOverview {
    sets: ArcSwap<Vec<Arc<NotifierSet>>>,
}

impl NotifierOverview {
    /// Leaves prepared alerts in all queues, without waiting. A set's own rules are applied on the caller's thread.
    pub fn push(&self, alerts: &[Arc<Alert>]) {
        for set in self.sets.load().iter().filter(|set| !set.notifiers.is_empty()) {
            let alerts = relabel_shared(alerts, &set.spec.settings.alert_relabel_configs);
            set.notifiers.iter().for_each(|(_, notifier)| notifier.push(&alerts));
        }
    }

    /// URLs that alerts are sent to, in the order of the configuration.
    pub fn active(&self) -> Vec<String> {
        let sets = self.sets.load();
        let notifiers = sets.iter().flat_map(|set| &set.notifiers);
        notifiers.map(|(_, notifier)| notifier.shared.endpoint.text.clone()).collect()
    }

    /// URLs that relabelling dropped.
    pub fn dropped(&self) -> Vec<String> {
        self.sets.load().iter().flat_map(|set| set.spec.endpoints.dropped.clone()).collect()
    }
}

/// What the manager is given.
pub struct NotifierManagerDeps {
    /// The Alertmanagers that there should be; whoever changes them stores them first and sends [`ApplyNotifiers`] then.
    pub specs: Mutex<Vec<NotifierSetSpec>>,
    /// What senders and the API see.
    pub overview: Arc<NotifierOverview>,
    /// What discovery has found. Stored first; then the manager is signalled [`Reload`].
    discovered: Mutex<GroupsBySet>,
    runtime: Arc<NotifierRuntime>,
    arbiter: ArbiterHandle,
    children: Children<NotifierId, Notifier>,
    /// What the children were given, those included that are gone and still send.
    shared: Mutex<BTreeMap<NotifierId, Arc<NotifierShared>>>,
    /// Notifiers that are gone, until they have ended: an actor that nobody holds ends at once.
    retiring: Mutex<Vec<(NotifierId, BoundedAddr<Notifier>)>>,
    next_id: AtomicU64,
}

impl NotifierManagerDeps {
    /// A manager without Alertmanagers, whose notifiers run on the arbiter's thread.
    pub fn new(runtime: Arc<NotifierRuntime>, arbiter: ArbiterHandle) -> Arc<Self> {
        Arc::new(Self {
            specs: Mutex::default(),
            overview: Arc::default(),
            discovered: Mutex::default(),
            runtime,
            arbiter,
            children: Children::default(),
            shared: Mutex::default(),
            retiring: Mutex::default(),
            next_id: AtomicU64::new(1),
        })
    }

    /// Lets a notifier that is gone send what it has, and forgets it once it has ended.
    async fn retire(&self, id: NotifierId, actor: &BoundedAddr<Notifier>) {
        let deadline = Instant::now() + RETIRE_WITHIN;
        // One that has ended already needs no telling.
        let _ = actor.signal(Drain { deadline });
        let _ = timeout_at(deadline + RETIRE_MARGIN, actor.ended()).await;
        let mut all = self.shared.lock();
        if let Some(shared) = all.remove(&id) {
            shared.finish();
            let url = &shared.endpoint.text;
            if !all.values().any(|other| other.endpoint.text == *url) {
                self.runtime.metrics.removed(url);
            }
        }
        self.retiring.lock().retain(|(gone, _)| *gone != id);
    }
}

/// Hands on to the notifiers which Alertmanagers discovery finds.
pub struct NotifierConsumer {
    /// The manager's.
    pub deps: Arc<NotifierManagerDeps>,
    /// The manager.
    pub manager: BoundedAddr<NotifierManager>,
}

impl Consumer for NotifierConsumer {
    fn discovered(&self, sets: GroupsBySet) {
        *self.deps.discovered.lock() = sets;
        // A manager that has ended has no notifiers. One that has failed is tried again by this.
        let _ = self.manager.signal(Reload);
    }
}

/// The configuration has changed: make notifiers what it says. Answers with the names of new notifiers that did not
/// confirm in time; those that are gone send what they still have afterwards.
#[derive(Message)]
#[rtype(result = "Vec<String>")]
pub struct ApplyNotifiers;

/// The actor.
pub struct NotifierManager {
    deps: Arc<NotifierManagerDeps>,
}

impl NotifierManager {
    /// A manager that starts its notifiers when it starts.
    pub fn new(deps: Arc<NotifierManagerDeps>) -> Self {
        Self { deps }
    }

    /// Makes the notifiers what the specifications say; returns those that are new. A notifier whose settings and URL are
    /// wanted as before goes on untouched.
    fn sync(&self, parent: &Parent) -> Vec<(String, BoundedAddr<Notifier>)> {
        let deps = &self.deps;
        let (specs, found) = (deps.specs.lock().clone(), deps.discovered.lock().clone());
        let mut known: Vec<_> = deps.overview.sets.load().iter().map(Arc::clone).collect();
        let (mut sets, mut new, mut wanted) = (Vec::with_capacity(specs.len()), Vec::new(), Vec::new());
        for spec in specs.into_iter().map(|spec| spec.with_found(&found)) {
            let same = known.iter().position(|set| set.spec.settings == spec.settings).map(|index| known.remove(index));
            let client = same.as_ref().map_or(&spec.client, |set| &set.spec.client).clone();
            let mut notifiers = Vec::with_capacity(spec.endpoints.active.len());
            for endpoint in &spec.endpoints.active {
                let before = same.iter().flat_map(|set| &set.notifiers);
                let before = before.clone().find(|(_, handle)| handle.shared.endpoint == *endpoint);
                let (id, shared) = match before {
                    Some((id, handle)) => (*id, Arc::clone(&handle.shared)),
                    None => {
                        let (timeout, runtime) = (spec.settings.timeout.to_std(), Arc::clone(&deps.runtime));
                        let shared = NotifierShared::new(endpoint.clone(), client.clone(), timeout, runtime);
                        let id = deps.next_id.fetch_add(1, Ordering::Relaxed);
                        deps.shared.lock().insert(id, Arc::clone(&shared));
                        (id, shared)
                    }
                };
                let (place, for_actor) = (parent.place(endpoint.text.clone()), Arc::clone(&shared));
                let actor = deps.children.adopt_or_spawn(id, |_| {
                    supervision::spawn(&deps.arbiter, deps.runtime.policy, place, move |_| {
                        Notifier::new(Arc::clone(&for_actor))
                    })
                });
                if before.is_none() {
                    new.push((endpoint.text.clone(), actor.clone()));
                }
                notifiers.push((id, NotifierHandle { shared, actor }));
                wanted.push(id);
            }
            sets.push(Arc::new(NotifierSet { spec: NotifierSetSpec { client, ..spec }, notifiers }));
        }
        // First nobody sends to those that are gone, then they are told to end.
        deps.overview.sets.store(Arc::new(sets));
        deps.runtime.metrics.discovered(wanted.len());
        let gone = deps.children.take_unwanted(|id| wanted.contains(id));
        let mut retiring = deps.retiring.lock();
        retiring.extend(gone);
        deps.shared.lock().retain(|id, _| wanted.contains(id) || retiring.iter().any(|(gone, _)| gone == id));
        new
    }

    /// Sees all notifiers to their end that are gone, also those that a panic interrupted.
    fn retire(&self, ctx: &mut Context<Self>) {
        let deps = Arc::clone(&self.deps);
        let gone = deps.retiring.lock().clone();
        let work = async move {
            join_all(gone.iter().map(|(id, actor)| deps.retire(*id, actor))).await;
        };
        ctx.spawn(work.into_actor(self).map(|(), _, _| ()));
    }
}

/// Waits until all have confirmed; returns the names of those that have not.
async fn confirm(notifiers: Vec<(String, BoundedAddr<Notifier>)>) -> Vec<String> {
    let deadline = Instant::now() + CONFIRM_WITHIN;
    let confirmed = notifiers.iter().map(|(url, notifier)| async move {
        notifier.ask(Deliver, deadline).await.err().map(|error| format!("notifier {url}: {error}"))
    });
    join_all(confirmed).await.into_iter().flatten().collect()
}

impl Actor for NotifierManager {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.sync(&ctx.parent());
        self.retire(ctx);
    }
}

impl Supervised for NotifierManager {}

impl SupervisedActor for NotifierManager {
    const KIND: &'static Kind = &NOTIFIER_MANAGER;
}

impl Handler<Admitted<ApplyNotifiers>> for NotifierManager {
    type Result = ResponseActFuture<Self, Vec<String>>;

    fn handle(&mut self, apply: Admitted<ApplyNotifiers>, ctx: &mut Context<Self>) -> Self::Result {
        let (ApplyNotifiers, slot) = apply.into_parts();
        let new = self.sync(&ctx.parent());
        self.retire(ctx);
        Box::pin(confirm(new).boxed_local().into_actor(self).map(move |unconfirmed, _, _| {
            drop(slot);
            unconfirmed
        }))
    }
}

impl Handler<Control<Reload>> for NotifierManager {
    type Result = ();

    /// Discovery has found other Alertmanagers. New notifiers need no confirmation: they send as soon as they run.
    fn handle(&mut self, _: Control<Reload>, ctx: &mut Context<Self>) {
        self.sync(&ctx.parent());
        self.retire(ctx);
    }
}

impl Handler<Control<ChildFailed>> for NotifierManager {
    type Result = ();

    /// A failed notifier's queue goes on and drops its oldest; that it sends nothing stands in the tree and in the log.
    fn handle(&mut self, _: Control<ChildFailed>, _: &mut Context<Self>) {}
}

impl Handler<Control<Drain>> for NotifierManager {
    type Result = ();

    fn handle(&mut self, Control(drain): Control<Drain>, ctx: &mut Context<Self>) {
        let deps = Arc::clone(&self.deps);
        let gone = deps.retiring.lock().clone();
        let work = async move {
            for (_, actor) in &gone {
                // One that has ended meanwhile needs no telling.
                let _ = actor.signal(drain);
            }
            deps.children.drain_all(drain.deadline).await;
            join_all(gone.iter().map(|(_, actor)| timeout_at(drain.deadline, actor.ended()))).await;
            deps.shared.lock().values().for_each(|shared| shared.finish());
        };
        ctx.spawn(work.into_actor(self).map(|(), _, ctx: &mut Context<Self>| ctx.stop()));
    }
}
