//! All destinations of remote write. Owns a queue for each. Started by the root. Bound: its slots, for applying
//! configurations. Failure: restarts and adopts its queues, which go on meanwhile. Shutdown: drains its queues.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::{Actor, ActorContext, AsyncContext, Handler, Message, ResponseActFuture, Supervised};
use actix::{ActorFutureExt, ArbiterHandle, WrapFuture};
use futures::future::{FutureExt, join_all};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::actors::children::Children;
use crate::actors::config_reloader::PlanSection;
use crate::actors::context::Context;
use crate::actors::control::{ChildFailed, Control, Drain};
use crate::actors::kind::{Kind, Rank};
use crate::actors::mailbox::{Admitted, BoundedAddr};
use crate::actors::pool::Lane;
use crate::actors::remote_write_queue::{Apply, CURSOR_DIR, QueueDeps, QueueRuntime, RemoteWriteQueue};
use crate::actors::supervision::{self, Parent, SupervisedActor};
use crate::remote::send::spec::Destination;

/// The kind.
pub static REMOTE_WRITE_MANAGER: Kind = Kind { name: "remote_write_manager", rank: Rank::MANAGER, slots: 4 };

/// How long a queue may take to confirm.
const CONFIRM_WITHIN: Duration = Duration::from_secs(10);
/// How long a queue that is gone may take to send what it has, beyond the flush deadline.
const RETIRE_MARGIN: Duration = Duration::from_secs(5);
/// How long a job on files may wait and take.
const JOB_WITHIN: Duration = Duration::from_secs(3600);

type Queues = BTreeMap<String, Arc<QueueDeps>>;
/// Identity, actor and deps of a queue that is gone.
type Retiring = (String, BoundedAddr<RemoteWriteQueue>, Arc<QueueDeps>);

/// What the manager is given.
pub struct RemoteWriteDeps {
    /// The destinations that there should be; whoever changes them stores them first and sends [`ApplyDestinations`] then.
    pub destinations: Mutex<Vec<Destination>>,
    runtime: Arc<QueueRuntime>,
    arbiters: Arc<[ArbiterHandle]>,
    children: Children<String, RemoteWriteQueue>,
    /// What the children were given.
    queues: Mutex<Queues>,
    /// Queues that are gone, until they have ended: an actor that nobody holds ends at once.
    retiring: Mutex<Vec<Retiring>>,
}

impl RemoteWriteDeps {
    /// A manager without destinations, whose queues run on these threads by turns.
    pub fn new(runtime: Arc<QueueRuntime>, arbiters: Arc<[ArbiterHandle]>) -> Arc<Self> {
        assert!(!arbiters.is_empty(), "queues need a thread");
        let (destinations, queues) = (Mutex::default(), Mutex::default());
        Arc::new(Self {
            destinations,
            runtime,
            arbiters,
            children: Children::default(),
            queues,
            retiring: Mutex::default(),
        })
    }

    /// What would become of the destinations.
    pub fn plan(&self, after: &[Destination]) -> PlanSection {
        let before = self.destinations.lock();
        let keyed = |to| -> (String, &Destination) { (Destination::key(to), to) };
        PlanSection::compare("remote_write", before.iter().map(keyed), after.iter().map(keyed))
    }

    fn all(&self) -> Vec<Arc<QueueDeps>> {
        self.queues.lock().values().cloned().collect()
    }

    /// The oldest segment that a destination still needs; `None` without destinations.
    pub fn needs_segment(&self) -> Option<u64> {
        self.all().iter().filter_map(|queue| queue.needs_segment()).min()
    }

    /// The time up to which all destinations have what was sent first, in milliseconds; 0 if one has nothing, or without
    /// destinations.
    pub fn lowest_sent_ms(&self) -> i64 {
        self.all().iter().map(|queue| queue.highest_sent_ms()).min().unwrap_or(0)
    }

    /// The segments up to `last` are about to go: no destination reads them afterwards.
    pub async fn pass_over(&self, last: u64) {
        let jobs = self.all().into_iter().map(|queue| {
            self.runtime.pool.run(Lane::Storage, Instant::now() + JOB_WITHIN, move |_| queue.pass_over(last))
        });
        // One that could not be told finds that the segments are gone.
        join_all(jobs).await;
    }

    /// What all queues share.
    pub fn runtime(&self) -> &Arc<QueueRuntime> {
        &self.runtime
    }

    /// Removes cursors of destinations that are not there any more.
    async fn tidy(&self) {
        let names: Vec<String> = self.all().iter().map(|queue| queue.destination().file_name()).collect();
        let log = Arc::clone(&self.runtime.log);
        let remove = move |_: &_| {
            let Some(log) = log.get() else { return };
            let (fs, folder) = (log.files.fs(), log.data_dir.join(CURSOR_DIR));
            let Ok(entries) = fs.list(&folder) else { return };
            for entry in entries.iter().filter(|entry| !entry.is_dir && !names.contains(&entry.name)) {
                if !entry.name.ends_with(".tmp")
                    && let Err(error) = fs.remove_file(&folder.join(&entry.name))
                {
                    tracing::warn!(component = "remote", file = entry.name, %error, "A cursor cannot be removed");
                }
            }
        };
        // What stays is removed another time.
        let _ = self.runtime.pool.run(Lane::Storage, Instant::now() + JOB_WITHIN, remove).await;
    }
}

/// The configuration has changed: make queues what it says. Answers with the names of those that did not confirm in time.
#[derive(Message)]
#[rtype(result = "Vec<String>")]
pub struct ApplyDestinations;

/// The actor.
pub struct RemoteWriteManager {
    deps: Arc<RemoteWriteDeps>,
}

impl RemoteWriteManager {
    /// A manager that starts its queues when it starts.
    pub fn new(deps: Arc<RemoteWriteDeps>) -> Self {
        Self { deps }
    }

    /// Makes the queues what the configuration says; returns those that are new or changed. Others go on untouched.
    fn sync(&self, parent: &Parent) -> Vec<(String, BoundedAddr<RemoteWriteQueue>)> {
        let deps = &self.deps;
        let wanted = deps.destinations.lock().clone();
        let (mut queues, mut to_confirm) = (deps.queues.lock(), Vec::new());
        for (index, to) in wanted.iter().enumerate() {
            let (key, name) = (to.identity.clone(), to.name.clone());
            let known = queues.get(&key).cloned();
            let changed = known.as_ref().is_none_or(|queue| *queue.destination() != *to);
            let queue = match known {
                Some(queue) => {
                    if changed {
                        queue.configure(to.clone());
                    }
                    queue
                }
                None => {
                    let queue = QueueDeps::new(to.clone(), Arc::clone(&deps.runtime));
                    queues.insert(key.clone(), Arc::clone(&queue));
                    queue
                }
            };
            let arbiter = &deps.arbiters[index % deps.arbiters.len()];
            let (place, for_actor) = (parent.place(format!("{name} {}", to.url)), queue);
            let actor = deps.children.adopt_or_spawn(key, |_| {
                supervision::spawn(arbiter, deps.runtime.policy, place, move |_| {
                    RemoteWriteQueue::new(Arc::clone(&for_actor))
                })
            });
            if changed {
                to_confirm.push((name, actor));
            }
        }
        let is_wanted = |key: &String| wanted.iter().any(|to| to.identity == *key);
        let gone = deps.children.take_unwanted(is_wanted);
        let mut retiring = deps.retiring.lock();
        for (key, actor) in gone {
            if let Some(queue) = queues.remove(&key) {
                retiring.push((key, actor, queue));
            }
        }
        queues.retain(|key, _| is_wanted(key));
        to_confirm
    }

    /// Sees queues to their end that are gone, also those that a panic interrupted; then their cursors go.
    fn retire(&self, ctx: &mut Context<Self>) {
        let deps = Arc::clone(&self.deps);
        let gone = deps.retiring.lock().clone();
        let work = async move {
            let deadline = Instant::now() + deps.runtime.flush_deadline + RETIRE_MARGIN;
            let retire = gone.iter().map(|(key, actor, queue)| {
                let deps = Arc::clone(&deps);
                async move {
                    // One that has ended already needs no telling.
                    let _ = actor.signal(Drain { deadline });
                    let _ = timeout_at(deadline + RETIRE_MARGIN, actor.ended()).await;
                    let label = |to: &Destination| (to.name.clone(), to.url.clone());
                    let of = label(&queue.destination());
                    if !deps.all().iter().any(|other| label(&other.destination()) == of) {
                        queue.forget();
                    }
                    deps.retiring.lock().retain(|(other, ..)| other != key);
                }
            });
            join_all(retire).await;
            deps.tidy().await;
        };
        ctx.spawn(work.into_actor(self).map(|(), _, _| ()));
    }
}

/// Waits until all have confirmed; returns the names of those that have not.
async fn confirm(queues: Vec<(String, BoundedAddr<RemoteWriteQueue>)>) -> Vec<String> {
    let deadline = Instant::now() + CONFIRM_WITHIN;
    let confirmed = queues.iter().map(|(name, queue)| async move {
        queue.ask(Apply, deadline).await.err().map(|error| format!("remote_write_queue {name}: {error}"))
    });
    join_all(confirmed).await.into_iter().flatten().collect()
}

impl Actor for RemoteWriteManager {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.sync(&ctx.parent());
        self.retire(ctx);
    }
}

impl Supervised for RemoteWriteManager {}

impl SupervisedActor for RemoteWriteManager {
    const KIND: &'static Kind = &REMOTE_WRITE_MANAGER;
}

impl Handler<Admitted<ApplyDestinations>> for RemoteWriteManager {
    type Result = ResponseActFuture<Self, Vec<String>>;

    fn handle(&mut self, apply: Admitted<ApplyDestinations>, ctx: &mut Context<Self>) -> Self::Result {
        let (ApplyDestinations, slot) = apply.into_parts();
        let to_confirm = self.sync(&ctx.parent());
        self.retire(ctx);
        Box::pin(confirm(to_confirm).boxed_local().into_actor(self).map(move |unconfirmed, _, _| {
            drop(slot);
            unconfirmed
        }))
    }
}

impl Handler<Control<ChildFailed>> for RemoteWriteManager {
    type Result = ();

    /// A failed queue keeps its place in the log; that it sends nothing stands in the tree and in the log of the server.
    fn handle(&mut self, _: Control<ChildFailed>, _: &mut Context<Self>) {}
}

impl Handler<Control<Drain>> for RemoteWriteManager {
    type Result = ();

    fn handle(&mut self, Control(drain): Control<Drain>, ctx: &mut Context<Self>) {
        let deps = Arc::clone(&self.deps);
        let gone = deps.retiring.lock().clone();
        let work = async move {
            for (_, actor, _) in &gone {
                // One that has ended meanwhile needs no telling.
                let _ = actor.signal(drain);
            }
            deps.children.drain_all(drain.deadline).await;
            join_all(gone.iter().map(|(_, actor, _)| timeout_at(drain.deadline, actor.ended()))).await;
        };
        ctx.spawn(work.into_actor(self).map(|(), _, ctx: &mut Context<Self>| ctx.stop()));
    }
}
