//! One provider of target groups. Owns the provider at work, and publishes what it finds in `deps`. Started by the
//! discovery manager. Bound: its slots, for those who wait for its first look. Failure: restarts; its last groups stay,
//! while it rests as well. Shutdown: ends.

use std::sync::Arc;
use std::time::Duration;

use actix::WrapFuture;
use actix::prelude::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Handler, Message, ResponseActFuture, Supervised,
};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use crate::actors::context::Context;
use crate::actors::control::{Control, Drain};
use crate::actors::kind::{Kind, Rank};
use crate::actors::mailbox::Admitted;
use crate::actors::registry::Entry;
use crate::actors::supervision::SupervisedActor;
use crate::discovery::metrics::ManagerMetrics;
use crate::discovery::{Look, Provider, ProviderConfig, ProviderKit, TargetGroup};

/// The kind.
pub static DISCOVERY_PROVIDER: Kind = Kind { name: "discovery_provider", rank: Rank::MANAGER.below(1), slots: 4 };

/// Time between attempts to start a provider when the system refuses.
const START_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// What a provider has found so far.
#[derive(Clone, Default)]
pub struct Found {
    /// All groups of the last good look.
    pub groups: Arc<Vec<TargetGroup>>,
    /// Whether it has looked at all.
    pub looked: bool,
    /// Why the last look failed, if it did.
    pub failure: Option<String>,
}

/// What a provider is given, and what it publishes.
pub struct ProviderDeps {
    /// Name in the tree and in metrics, as `file/<job>/0`.
    pub name: String,
    /// The set that it finds targets for.
    set: String,
    /// What it looks at.
    pub config: ProviderConfig,
    kit: Arc<ProviderKit>,
    metrics: Arc<ManagerMetrics>,
    /// Tells the manager that groups have changed.
    updates: Arc<Notify>,
    found: watch::Sender<Found>,
    /// The provider at work while no actor has it: between a restart's two lives.
    provider: Mutex<Option<Box<dyn Provider>>>,
}

impl ProviderDeps {
    /// A provider that has not looked yet. `updates` is notified whenever its groups have changed.
    pub fn new(
        name: String,
        set: &str,
        config: ProviderConfig,
        kit: &Arc<ProviderKit>,
        metrics: &Arc<ManagerMetrics>,
        updates: &Arc<Notify>,
    ) -> Arc<Self> {
        let (kit, metrics, updates) = (Arc::clone(kit), Arc::clone(metrics), Arc::clone(updates));
        let found = watch::Sender::new(Found::default());
        let set = set.to_owned();
        Arc::new(Self { name, set, config, kit, metrics, updates, found, provider: Mutex::default() })
    }

    /// What it has found so far; readable while the provider is stuck or has failed.
    pub fn found(&self) -> Found {
        self.found.borrow().clone()
    }

    /// Looks for ever.
    async fn run(self: Arc<Self>, entry: Arc<Entry>) {
        let mut at_work = AtWork { provider: self.take_or_start(&entry).await, deps: Arc::clone(&self) };
        loop {
            let look = at_work.next().await;
            self.publish(look, &entry);
        }
    }

    async fn take_or_start(&self, entry: &Entry) -> Option<Box<dyn Provider>> {
        loop {
            let kept = self.provider.lock().take();
            if kept.is_some() {
                return kept;
            }
            match self.config.start(&self.kit, &self.set, &self.found().groups) {
                Ok(provider) => return Some(provider),
                Err(error) => {
                    let (provider, err) = (self.name.as_str(), error.to_string());
                    tracing::error!(component = "discovery", provider, err, "Cannot start a provider");
                    self.publish(Look { groups: None, failure: Some(format!("cannot start: {err}")) }, entry);
                    sleep(START_AGAIN_AFTER).await;
                }
            }
        }
    }

    fn publish(&self, look: Look, entry: &Entry) {
        self.metrics.received.inc();
        self.metrics.failing(&self.name, look.failure.is_some());
        entry.set_failing(look.failure.as_deref());
        let mut changed = false;
        self.found.send_modify(|found| {
            if let Some(groups) = look.groups.filter(|groups| *groups != *found.groups) {
                found.groups = Arc::new(groups);
                changed = true;
            }
            changed |= !found.looked;
            found.looked = true;
            found.failure = look.failure;
        });
        if changed {
            self.updates.notify_one();
        }
    }
}

/// A provider in the hands of its actor. A panic of the actor's gives it back for the next life; one of the provider's own
/// ends it.
struct AtWork {
    /// Always there, until this is dropped.
    provider: Option<Box<dyn Provider>>,
    deps: Arc<ProviderDeps>,
}

impl AtWork {
    async fn next(&mut self) -> Look {
        match &mut self.provider {
            Some(provider) => provider.next().await,
            None => std::future::pending().await,
        }
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            *self.deps.provider.lock() = self.provider.take();
        }
    }
}

/// Answers when the provider has looked for the first time, well or badly.
#[derive(Message)]
#[rtype(result = "()")]
pub struct FirstLook;

/// The actor.
pub struct DiscoveryProvider {
    deps: Arc<ProviderDeps>,
}

impl DiscoveryProvider {
    /// A provider that looks as soon as it starts.
    pub fn new(deps: Arc<ProviderDeps>) -> Self {
        Self { deps }
    }
}

impl Actor for DiscoveryProvider {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.spawn(Arc::clone(&self.deps).run(Arc::clone(ctx.entry())).into_actor(self));
    }
}

impl Supervised for DiscoveryProvider {}

impl SupervisedActor for DiscoveryProvider {
    const KIND: &'static Kind = &DISCOVERY_PROVIDER;
}

impl Handler<Admitted<FirstLook>> for DiscoveryProvider {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, first: Admitted<FirstLook>, _: &mut Context<Self>) -> Self::Result {
        let mut found = self.deps.found.subscribe();
        let work = async move {
            let asker = first.asker();
            tokio::select! {
                // The sender stands in `deps`, which the actor holds.
                _ = found.wait_for(|found| found.looked) => {}
                () = asker.gone() => {}
            }
            first
        };
        Box::pin(work.into_actor(self).map(|first, _, _| drop(first)))
    }
}

impl Handler<Control<Drain>> for DiscoveryProvider {
    type Result = ();

    fn handle(&mut self, _: Control<Drain>, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}

#[cfg(test)]
mod tests {
    use futures::future::BoxFuture;
    use tokio::time::Instant;

    use super::*;
    use crate::actors::policy::Policy;
    use crate::actors::registry::ActorTree;
    use crate::actors::supervision::{self, Place};
    use crate::config::discovery::FileSd;
    use crate::model::clock::SystemClock;
    use crate::model::duration::PromDuration;
    use crate::model::labels::Labels;
    use crate::telemetry::metrics::Registry;

    /// Finds one group, then panics.
    struct Breaks(Option<Look>);

    impl Provider for Breaks {
        fn next(&mut self) -> BoxFuture<'_, Look> {
            let look = self.0.take();
            Box::pin(async { look.expect("a second look panics") })
        }
    }

    #[test]
    fn after_a_panic_of_its_own_a_new_provider_goes_on_from_the_last_groups() {
        actix::System::new().block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("t.json").to_str().unwrap().to_owned();
            std::fs::write(&path, "[{").unwrap();
            let (registry, clock) = (Registry::shared(), SystemClock::shared());
            let tree = ActorTree::new(&[&DISCOVERY_PROVIDER], &registry, Arc::clone(&clock), 1);
            let kit = Arc::new(ProviderKit::new(&registry, &clock));
            let metrics = Arc::new(ManagerMetrics::new(&registry, &clock, "scrape"));
            let files = vec![path.as_str().into()];
            let config = ProviderConfig::File(FileSd { files, refresh_interval: PromDuration::from_secs(3600) });
            let deps = ProviderDeps::new("breaks".to_owned(), "job", config, &kit, &metrics, &Arc::default());
            let group = TargetGroup {
                source: format!("{path}:0"),
                targets: vec![Labels::from_pairs([("__address__", "a:1")])],
                labels: Labels::from_pairs([("__meta_filepath", path.as_str())]),
            };
            let look = Look { groups: Some(vec![group.clone()]), failure: None };
            *deps.provider.lock() = Some(Box::new(Breaks(Some(look))));
            let for_actor = Arc::clone(&deps);
            let make = move |_: &mut _| DiscoveryProvider::new(Arc::clone(&for_actor));
            let place = Place::root(&tree, "breaks");
            let actor = supervision::spawn(&actix::Arbiter::current(), Policy::PERMANENT, place, make);
            let deadline = Instant::now() + Duration::from_secs(60);
            // The new one is a real one, and says that its file is bad.
            while deps.found().failure.is_none() {
                assert!(Instant::now() < deadline, "{:?}", actor.entry().row());
                sleep(Duration::from_millis(2)).await;
            }
            assert_eq!(*deps.found().groups, [group]);
            assert_eq!(actor.entry().row().failing, deps.found().failure);
            assert_eq!((actor.entry().row().restarts, metrics.received.get()), (1, 2));
        });
    }
}
