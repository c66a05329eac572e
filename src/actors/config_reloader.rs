//! Reloading. Owns the order of reloads: one at a time, requests that come meanwhile share the next. Started by the server
//! once storage is open. Bound: its slots, each somebody who waits for a reload. Failure: restarts; a reload that was cut
//! short is done again, as specifications that are stored must reach their actors. Shutdown: ends at once.
//!
//! Data flow: signal, HTTP or a changed file → [`ReloadSource::prepare`] reads, checks and plans on the compute pool,
//! changing nothing → [`PreparedReload::apply`] stores what is new and tells the actors → one [`ReloadReport`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix::prelude::{Actor, ActorContext, AsyncContext, Handler, Message, ResponseActFuture, Supervised};
use actix::{ActorFutureExt, WrapFuture};
use arc_swap::ArcSwapOption;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::actors::context::Context;
use crate::actors::control::{Control, Drain};
use crate::actors::kind::{Kind, Rank};
use crate::actors::mailbox::Admitted;
use crate::actors::pool::{ComputePool, Lane};
use crate::actors::supervision::SupervisedActor;
use crate::model::clock::SharedClock;
use crate::telemetry::repeat::{RepeatLimiter, Verdict};

/// The kind.
pub static CONFIG_RELOADER: Kind = Kind { name: "config_reloader", rank: Rank::RELOADER, slots: 64 };

/// Longest time for reading, checking and planning.
const PREPARE_WITHIN: Duration = Duration::from_secs(300);
/// Names that a report keeps of each list; the others are counted.
const NAMES_MAX: usize = 200;
/// Names of each list that stand in the log.
const NAMES_LOGGED_MAX: usize = 20;

/// Who asked for a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// SIGHUP.
    Signal,
    /// `POST /-/reload`.
    Http,
    /// A file has changed (`--config.auto-reload`).
    File,
    /// A panic had cut the last reload short.
    Restart,
}

impl Trigger {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Signal => "signal",
            Self::Http => "http",
            Self::File => "file",
            Self::Restart => "restart",
        }
    }
}

/// Names of things, the first ones of them all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// How many there are.
    pub count: usize,
    /// The first of them.
    pub first: Vec<String>,
}

impl Names {
    /// Adds a name.
    pub fn push(&mut self, name: impl FnOnce() -> String) {
        self.count += 1;
        if self.first.len() < NAMES_MAX {
            self.first.push(name());
        }
    }

    fn logged(&self) -> String {
        let shown = self.first.iter().take(NAMES_LOGGED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
        match self.count.checked_sub(NAMES_LOGGED_MAX).filter(|more| 0 < *more) {
            Some(more) => format!("{shown} and {more} more"),
            None => shown,
        }
    }
}

/// What a reload does to the things of one sort.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanSection {
    /// Which: `job`, `target`, `rule_group` and so on.
    pub what: &'static str,
    /// New ones.
    pub added: Names,
    /// Those that go.
    pub removed: Names,
    /// Those that are there before and after, and differ.
    pub changed: Names,
    /// How many stay as they are.
    pub kept: usize,
}

impl PlanSection {
    /// An empty section.
    pub fn new(what: &'static str) -> Self {
        Self { what, ..Self::default() }
    }

    /// Compares by key: `before` and `after` map each name to what is compared.
    pub fn compare<'a, T: PartialEq + 'a>(
        what: &'static str,
        before: impl IntoIterator<Item = (String, &'a T)>,
        after: impl IntoIterator<Item = (String, &'a T)>,
    ) -> Self {
        let mut section = Self::new(what);
        let mut known: std::collections::BTreeMap<String, &T> = before.into_iter().collect();
        for (name, now) in after {
            match known.remove(&name) {
                None => section.added.push(|| name),
                Some(then) if then == now => section.kept += 1,
                Some(_) => section.changed.push(|| name),
            }
        }
        known.into_keys().for_each(|name| section.removed.push(|| name));
        section
    }

    /// Whether anything differs.
    pub fn is_change(&self) -> bool {
        0 < self.added.count + self.removed.count + self.changed.count
    }
}

/// What a reload does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReloadPlan {
    /// One section for each sort of thing.
    pub sections: Vec<PlanSection>,
}

/// How a reload went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReloadReport {
    /// Who asked.
    pub trigger: Trigger,
    /// When it began, in nanoseconds since the epoch.
    pub began_nanos: i64,
    /// How long it took.
    pub took: Duration,
    /// Why it failed, if it did.
    pub error: Option<String>,
    /// What it did; nothing when the configuration was refused.
    pub plan: Arc<ReloadPlan>,
    /// Actors that did not confirm in time; what they are to be is stored, and they find it when they can.
    pub unconfirmed: Vec<String>,
}

/// What is reloaded, and from where. Implemented by the server.
pub trait ReloadSource: Send + Sync + 'static {
    /// A reload begins.
    fn began(&self);
    /// Reads and checks everything and plans; changes nothing. The error is a text for the operator. May block.
    fn prepare(&self) -> Result<Box<dyn PreparedReload>, String>;
    /// Tells what has changed on disk since the configuration in effect was read: a digest of all files. May block.
    fn digest(&self) -> Result<String, String>;
    /// The digest of the configuration in effect.
    fn loaded_digest(&self) -> String;
    /// A reload is over.
    fn ended(&self, report: &ReloadReport);
    /// What an error of applying begins with.
    fn not_applied(&self) -> String;
}

/// A checked configuration that can take effect.
pub trait PreparedReload: Send {
    /// What will change.
    fn plan(&self) -> Arc<ReloadPlan>;
    /// Stores what is new and tells the actors; answers with those that did not confirm in time.
    fn apply(self: Box<Self>) -> BoxFuture<'static, Vec<String>>;
}

/// What the reloader is given, and the last report.
pub struct ReloaderDeps {
    source: Arc<dyn ReloadSource>,
    pool: Arc<ComputePool>,
    clock: SharedClock,
    /// How often to look for changed files; `None` for never.
    look_every: Option<Duration>,
    report: ArcSwapOption<ReloadReport>,
    /// Set while a configuration is being applied.
    applying: AtomicBool,
    /// The digest of a file that was refused: it is not tried again until it changes.
    refused: Mutex<Option<String>>,
    repeats: Mutex<RepeatLimiter>,
}

impl ReloaderDeps {
    /// A reloader of `source`, which looks for changed files as often as given.
    pub fn new(
        source: Arc<dyn ReloadSource>,
        pool: Arc<ComputePool>,
        clock: SharedClock,
        look_every: Option<Duration>,
    ) -> Arc<Self> {
        Arc::new(Self {
            source,
            pool,
            clock,
            look_every,
            report: ArcSwapOption::empty(),
            applying: AtomicBool::new(false),
            refused: Mutex::default(),
            repeats: Mutex::default(),
        })
    }

    /// How the last reload went; `None` before the first.
    pub fn last(&self) -> Option<Arc<ReloadReport>> {
        self.report.load_full()
    }

    /// Whether a configuration is being applied now.
    pub fn is_applying(&self) -> bool {
        self.applying.load(Ordering::Acquire)
    }

    async fn reload(&self, trigger: Trigger) -> Result<(), String> {
        let (began_nanos, began) = (self.clock.unix_nanos(), self.clock.monotonic());
        self.source.began();
        let mut report = ReloadReport {
            trigger,
            began_nanos,
            took: Duration::ZERO,
            error: None,
            plan: Arc::default(),
            unconfirmed: Vec::new(),
        };
        match self.prepare().await {
            Ok(prepared) => {
                report.plan = prepared.plan();
                log_plan(&report.plan);
                self.applying.store(true, Ordering::Release);
                report.unconfirmed = prepared.apply().await;
                self.applying.store(false, Ordering::Release);
                if !report.unconfirmed.is_empty() {
                    let names = report.unconfirmed.join("; ");
                    report.error = Some(format!("{}: not confirmed: {names}", self.source.not_applied()));
                }
            }
            Err(error) => report.error = Some(error),
        }
        report.took = self.clock.monotonic().saturating_sub(began);
        self.source.ended(&report);
        let outcome = report.error.clone().map_or(Ok(()), Err);
        self.report.store(Some(Arc::new(report)));
        outcome
    }

    async fn prepare(&self) -> Result<Box<dyn PreparedReload>, String> {
        let source = Arc::clone(&self.source);
        let prepared = self.pool.run(Lane::Storage, Instant::now() + PREPARE_WITHIN, move |_| source.prepare());
        prepared.await.unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Whether the files differ from what is in effect and from what was refused last.
    async fn has_changed(&self) -> bool {
        let source = Arc::clone(&self.source);
        let digest = self.pool.run(Lane::Storage, Instant::now() + PREPARE_WITHIN, move |_| source.digest());
        match digest.await.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(digest) => {
                self.repeats.lock().succeeded();
                let is_new = digest != self.source.loaded_digest();
                let mut refused = self.refused.lock();
                if is_new && refused.as_ref() == Some(&digest) {
                    return false;
                }
                *refused = is_new.then_some(digest);
                is_new
            }
            Err(err) => {
                if let Verdict::Log { repeated } = self.repeats.lock().failed(&err, self.clock.monotonic()) {
                    let message = "Failed to generate checksum during configuration reload";
                    tracing::error!(component = "main", err, repeated, "{message}");
                }
                false
            }
        }
    }
}

fn log_plan(plan: &ReloadPlan) {
    for section in plan.sections.iter().filter(|section| section.is_change()) {
        let PlanSection { what, added, removed, changed, kept } = section;
        tracing::info!(
            component = "main",
            what,
            added = added.logged(),
            removed = removed.logged(),
            changed = changed.logged(),
            kept,
            "Configuration changes"
        );
    }
}

/// Read the configuration again. Answers when it has taken effect, or with a text that says why not.
#[derive(Message)]
#[rtype(result = "Result<(), String>")]
pub struct RunReload {
    /// Who asks.
    pub trigger: Trigger,
}

/// Look whether a file has changed.
#[derive(Message)]
#[rtype(result = "()")]
struct LookAtFiles;

type Waiter = oneshot::Sender<Result<(), String>>;

/// The actor.
pub struct ConfigReloader {
    deps: Arc<ReloaderDeps>,
    state: ReloaderState,
}

#[derive(Default)]
struct ReloaderState {
    is_reloading: bool,
    /// Those who wait for the next reload, and who of them came first.
    waiting: Vec<Waiter>,
    trigger: Option<Trigger>,
}

impl ConfigReloader {
    /// A reloader that waits to be asked.
    pub fn new(deps: Arc<ReloaderDeps>) -> Self {
        Self { deps, state: ReloaderState::default() }
    }

    /// Begins the next reload, unless one is under way or nobody wants one.
    fn begin(&mut self, ctx: &mut Context<Self>) {
        if self.state.is_reloading {
            return;
        }
        let Some(trigger) = self.state.trigger.take() else { return };
        self.state.is_reloading = true;
        let waiting = std::mem::take(&mut self.state.waiting);
        let deps = Arc::clone(&self.deps);
        let work = async move { deps.reload(trigger).await };
        ctx.spawn(work.into_actor(self).map(move |outcome, actor, ctx| {
            for waiter in waiting {
                // Who has gone needs no answer.
                let _ = waiter.send(outcome.clone());
            }
            actor.state.is_reloading = false;
            actor.begin(ctx);
        }));
    }

    fn want(&mut self, trigger: Trigger, ctx: &mut Context<Self>) {
        self.state.trigger.get_or_insert(trigger);
        self.begin(ctx);
    }

    fn arm(&self, ctx: &mut Context<Self>) {
        if let Some(every) = self.deps.look_every {
            ctx.notify_later(LookAtFiles, every);
        }
    }
}

impl Actor for ConfigReloader {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.arm(ctx);
        if self.deps.is_applying() {
            self.want(Trigger::Restart, ctx);
        }
    }
}

impl Supervised for ConfigReloader {
    fn restarting(&mut self, _: &mut Context<Self>) {
        self.state = ReloaderState::default();
    }
}

impl SupervisedActor for ConfigReloader {
    const KIND: &'static Kind = &CONFIG_RELOADER;
}

impl Handler<Admitted<RunReload>> for ConfigReloader {
    type Result = ResponseActFuture<Self, Result<(), String>>;

    fn handle(&mut self, reload: Admitted<RunReload>, ctx: &mut Context<Self>) -> Self::Result {
        let (RunReload { trigger }, slot) = reload.into_parts();
        let (waiter, answered) = oneshot::channel();
        self.state.waiting.push(waiter);
        self.want(trigger, ctx);
        let answer = async move { answered.await.unwrap_or_else(|_| Err("the reload was given up".to_owned())) };
        Box::pin(answer.into_actor(self).map(move |answer, _, _| {
            drop(slot);
            answer
        }))
    }
}

impl Handler<LookAtFiles> for ConfigReloader {
    type Result = ();

    fn handle(&mut self, _: LookAtFiles, ctx: &mut Context<Self>) {
        let deps = Arc::clone(&self.deps);
        let look = async move { deps.has_changed().await };
        ctx.spawn(look.into_actor(self).map(|has_changed, actor, ctx| {
            if has_changed {
                let message = "Configuration file change detected, reloading the configuration.";
                tracing::info!(component = "main", "{message}");
                actor.want(Trigger::File, ctx);
            }
            actor.arm(ctx);
        }));
    }
}

impl Handler<Control<Drain>> for ConfigReloader {
    type Result = ();

    fn handle(&mut self, _: Control<Drain>, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}
