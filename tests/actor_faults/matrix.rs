//! Every kind of actor times every point at which it can panic. The kinds come from `kind::ALL`: one without a case here
//! fails the test.
//!
//! To register a kind, add a [`Case`] to [`cases`]: how to start one actor of it with the surroundings that it needs, and a
//! [`Subject`] that exercises it. The rest is done here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use actix::Arbiter;
use futures::future::LocalBoxFuture;
use tokio::time::Instant;
use watchfire::actors::aggregation_group::{
    AGGREGATION_GROUP, AggregationGroup, GroupDeps as AlertGroupDeps, GroupSpec,
};
use watchfire::actors::alert_dispatcher::{ALERT_DISPATCHER, AlertDispatcher, ApplyRoutes, DispatcherHandle};
use watchfire::actors::alert_sink::AlertSink;
use watchfire::actors::compactor::{COMPACTOR, Compactor, CompactorDeps, CompactorOptions, RunRound};
use watchfire::actors::config_reloader::{CONFIG_RELOADER, ConfigReloader, RunReload, Trigger};
use watchfire::actors::control::ChildFailed;
use watchfire::actors::discovery::{ApplyProviders, Consumer, DISCOVERY_MANAGER, DiscoveryManager, GroupsBySet};
use watchfire::actors::discovery_provider::{DISCOVERY_PROVIDER, DiscoveryProvider, FirstLook};
use watchfire::actors::failpoint::{Point, arm};
use watchfire::actors::kind::{self, Kind};
use watchfire::actors::log_writer::{self, LOG_WRITER, LogThread, LogWriter, SyncMode};
use watchfire::actors::mailbox::BoundedAddr;
use watchfire::actors::notifier::{NOTIFIER, Notifier, NotifierHandle};
use watchfire::actors::notifier_manager::{ApplyNotifiers, NOTIFIER_MANAGER, NotifierManager};
use watchfire::actors::policy::Policy;
use watchfire::actors::query_gateway::{QUERY_GATEWAY, QueryGateway};
use watchfire::actors::receiver::{Deliver, RECEIVER, Receiver};
use watchfire::actors::registry::{ActorState, ActorTree, Entry};
use watchfire::actors::remote_write_manager::{ApplyDestinations, REMOTE_WRITE_MANAGER, RemoteWriteManager};
use watchfire::actors::remote_write_queue::{Apply as ApplyQueue, REMOTE_WRITE_QUEUE, RemoteWriteQueue};
use watchfire::actors::root::{self, ROOT, Root};
use watchfire::actors::rule_group::{Apply as ApplyGroup, GroupDeps, RULE_GROUP, RuleGroup};
use watchfire::actors::rule_manager::{ApplyRules, RULE_MANAGER, RuleManager};
use watchfire::actors::scrape_manager::{ApplyJobs, SCRAPE_MANAGER, ScrapeManager};
use watchfire::actors::scrape_pool::{Apply, SCRAPE_POOL, ScrapePool};
use watchfire::actors::scrape_target::{SCRAPE_TARGET, ScrapeTarget, TargetShared};
use watchfire::actors::storage_client::{Priority, StorageClient};
use watchfire::actors::storage_shard::{STORAGE_SHARD, ShardDeps, StorageShard};
use watchfire::actors::supervision::{self, Place, SupervisedActor};
use watchfire::alertmanager::alert::StoredAlert;
use watchfire::alertmanager::route::RouteOptions;
use watchfire::model::clock::{SharedClock, SystemClock};
use watchfire::model::duration::PromDuration;
use watchfire::model::labels::Labels;
use watchfire::model::sample::SeriesRef;
use watchfire::model::time::TimestampMs;
use watchfire::storage::block::PageCache;
use watchfire::storage::block::catalog::Catalog;
use watchfire::storage::block::metrics::BlockMetrics;
use watchfire::storage::fs::RealFs;
use watchfire::storage::replay;
use watchfire::storage::wal::WalOptions;
use watchfire::storage::wal::metrics::WalMetrics;
use watchfire::storage::wal::record::{self, RefSample};
use watchfire::telemetry::metrics::Registry;

use crate::alerts::{AlertScene, alert, flush_of, receiver_deps};
use crate::notifiers::{self, Alertmanagers};
use crate::probe::{Exercise, PROBE, Probe, ProbeDeps, paused, within};
use crate::remote::RemoteScene;
use crate::scene::{KeptAlerts, PATIENCE, QUICK, Scene, batch, holds, instant, job, live, record, rule_group, values};
use crate::support::{Exporter, Webhook};

/// How the matrix brings an actor of a kind to life.
struct Case {
    kind: &'static Kind,
    /// Whose clock the case runs on.
    time: Time,
    /// A point that each exercise passes; it panics where a point is passed only after another panic.
    trigger: Point,
    /// Points that the exercise of this kind never passes, each with the reason.
    without: &'static [(Point, &'static str)],
    start: fn(&Arc<ActorTree>, &str) -> Box<dyn Subject>,
}

/// The clock of a case.
#[derive(Clone, Copy)]
enum Time {
    /// Jumps ahead whenever all wait for it; for actors that have no business with other threads.
    Paused,
    /// The machine's; for actors that talk to a network or to the compute pool.
    Live,
}

impl Time {
    fn run(self, test: impl Future<Output = ()>) {
        match self {
            Self::Paused => paused(test),
            Self::Live => live(test),
        }
    }
}

/// An actor under test.
trait Subject {
    fn entry(&self) -> &Arc<Entry>;
    /// Takes the actor once through a handler, a timer and a future, as far as it has them, and drops a future. True when it
    /// did its work; false when a panic came between. Must return either way.
    fn exercise(&self) -> LocalBoxFuture<'_, bool>;
}

fn cases() -> Vec<Case> {
    const ONLY_DRAINING: &str = "the root waits for messages only, until it drains";
    const NO_TIMER: (Point, &str) = (Point::Timer, "it acts on messages only");
    let live = |kind, trigger, without, start| Case { kind, time: Time::Live, trigger, without, start };
    vec![
        Case {
            kind: &ROOT,
            time: Time::Paused,
            trigger: Point::Handler,
            without: &[(Point::Timer, ONLY_DRAINING), (Point::Future, ONLY_DRAINING), (Point::Drop, ONLY_DRAINING)],
            start: |tree, name| Box::new(root::start(&Arbiter::current(), Place::root(tree, name))),
        },
        Case {
            kind: &PROBE,
            time: Time::Paused,
            trigger: Point::Handler,
            without: &[],
            start: |tree, name| Box::new(start_probe(tree, name)),
        },
        live(&CONFIG_RELOADER, Point::Handler, &[], |tree, name| {
            let scene = Scene::new(tree, name);
            let (addr, _) = scene.spawn_reloader(name, Arc::default());
            Box::new(Set { addr, scene, more: () })
        }),
        live(&DISCOVERY_MANAGER, Point::Handler, &[NO_TIMER], |tree, name| {
            let scene = Scene::new(tree, name);
            let (addr, _) = scene.spawn_discovery(name, Arc::new(Nobody));
            Box::new(Set { addr, scene, more: () })
        }),
        live(&DISCOVERY_PROVIDER, Point::Handler, &[NO_TIMER], |tree, name| {
            let (scene, folder) = (Scene::new(tree, name), tempfile::tempdir().expect("a folder"));
            let (addr, _) = scene.spawn_provider(name, folder.path().join("*.json").to_str().expect("a name"));
            Box::new(Set { addr, scene, more: folder })
        }),
        live(&SCRAPE_MANAGER, Point::Handler, &[NO_TIMER], |tree, name| {
            let (scene, exporter) = (Scene::new(tree, name), Exporter::start("up_here 1\n"));
            let (addr, _) = scene.spawn_manager(name, vec![job("matrix", &exporter.addr, &["/a"], 100)]);
            Box::new(Set { addr, scene, more: exporter })
        }),
        live(&SCRAPE_POOL, Point::Handler, &[NO_TIMER], |tree, name| {
            let (scene, exporter) = (Scene::new(tree, name), Exporter::start("up_here 1\n"));
            let (addr, _) = scene.spawn_pool(name, job("matrix", &exporter.addr, &["/a"], 100));
            Box::new(Set { addr, scene, more: exporter })
        }),
        live(&SCRAPE_TARGET, Point::Timer, &[(Point::Handler, "its messages end it")], |tree, name| {
            let (scene, exporter) = (Scene::new(tree, name), Exporter::start("up_here 1\n"));
            let shared = scene.target(&exporter.addr, "/a", 20);
            let addr = scene.spawn_target(name, &shared, QUICK);
            Box::new(Set { addr, scene, more: (shared, exporter) })
        }),
        live(&RULE_MANAGER, Point::Handler, &[NO_TIMER], |tree, name| {
            let scene = Scene::new(tree, name);
            let runtime = scene.rules(&Arc::new(KeptAlerts::default()));
            let groups = vec![rule_group("matrix", 100, vec![record("r", "1")])];
            let (addr, _) = scene.spawn_rule_manager(name, groups, &runtime);
            Box::new(Set { addr, scene, more: () })
        }),
        live(&RULE_GROUP, Point::Timer, &[], |tree, name| {
            let scene = Scene::new(tree, name);
            let runtime = scene.rules(&Arc::new(KeptAlerts::default()));
            let (addr, deps) = scene.spawn_group(name, rule_group("matrix", 20, vec![record("r", "1")]), &runtime);
            Box::new(Set { addr, scene, more: deps })
        }),
        live(&QUERY_GATEWAY, Point::Handler, &[NO_TIMER], |tree, name| {
            let scene = Scene::new(tree, name);
            Box::new(Set { addr: scene.spawn_gateway(name), scene, more: () })
        }),
        live(&ALERT_DISPATCHER, Point::Handler, &[(Point::Timer, "it tidies twice a minute")], |tree, name| {
            let (scene, alerts) = (Scene::new(tree, name), AlertScene::new(tree));
            let addr = alerts.spawn_dispatcher(name).addr().clone();
            Box::new(Set { addr, scene, more: (alerts, AtomicU32::new(0)) })
        }),
        live(&AGGREGATION_GROUP, Point::Timer, &[(Point::Handler, "its messages end it")], |tree, name| {
            let (scene, alerts) = (Scene::new(tree, name), AlertScene::new(tree));
            let options = RouteOptions {
                group_wait: PromDuration::ZERO,
                group_interval: PromDuration::from_ms(5),
                ..RouteOptions::default()
            };
            let spec = GroupSpec { options: Arc::new(options), told: Vec::new() };
            let first = StoredAlert::heard(alert("stays", true), scene.now());
            let key = ("{}:{}".to_owned(), Labels::empty());
            let deps = AlertGroupDeps::new(key, spec, first, Arc::clone(&alerts.runtime));
            let (for_actor, place) = (Arc::clone(&deps), Place::root(tree, name));
            let make = move |_: &mut _| AggregationGroup::new(Arc::clone(&for_actor));
            let addr = supervision::spawn(&Arbiter::current(), QUICK, place, make);
            Box::new(Set { addr, scene, more: deps })
        }),
        live(&RECEIVER, Point::Handler, &[NO_TIMER], |tree, name| {
            let (scene, alerts, webhook) = (Scene::new(tree, name), AlertScene::new(tree), Webhook::start());
            let deps = receiver_deps(&alerts, &webhook.url());
            let place = Place::root(tree, name);
            let make = move |_: &mut _| Receiver::new(Arc::clone(&deps));
            let addr = supervision::spawn(&Arbiter::current(), QUICK, place, make);
            Box::new(Set { addr, scene, more: (alerts, webhook, AtomicU32::new(0)) })
        }),
        live(&NOTIFIER_MANAGER, Point::Handler, &[NO_TIMER], |tree, name| {
            let (scene, receiver) = (Scene::new(tree, name), Exporter::start(""));
            let alertmanagers = Alertmanagers::new(&scene, notifiers::LIMITS);
            let addr = alertmanagers.spawn_manager(&scene, name, &notifiers::config(&[&receiver.addr]));
            Box::new(Set { addr, scene, more: (alertmanagers, receiver) })
        }),
        live(&NOTIFIER, Point::Handler, &[(Point::Timer, "it has one only while it drains")], |tree, name| {
            let (scene, receiver) = (Scene::new(tree, name), Exporter::start(""));
            let alertmanagers = Alertmanagers::new(&scene, notifiers::LIMITS);
            let handle = alertmanagers.spawn_notifier(&scene, name, &receiver.addr);
            Box::new(Set { addr: handle.actor.clone(), scene, more: (handle, receiver) })
        }),
        live(&REMOTE_WRITE_MANAGER, Point::Handler, &[NO_TIMER], |tree, name| {
            let (scene, receiver) = (Scene::new(tree, name), Exporter::start(""));
            let remote = RemoteScene::new(&scene, name);
            let addr = remote.spawn_manager(&scene, name, &receiver.addr);
            Box::new(Set { addr, scene, more: (remote, receiver) })
        }),
        live(&REMOTE_WRITE_QUEUE, Point::Handler, &[NO_TIMER], |tree, name| {
            let (scene, receiver) = (Scene::new(tree, name), Exporter::start(""));
            let remote = RemoteScene::new(&scene, name);
            let addr = remote.spawn_queue(&scene, name, &receiver.addr);
            Box::new(Set { addr, scene, more: (remote, receiver) })
        }),
        live(&STORAGE_SHARD, Point::Handler, &[], |tree, name| {
            let scene = Scene::new(tree, "matrix");
            let deps = ShardDeps {
                head: Arc::clone(&scene.head),
                shard: Arc::clone(&scene.head.shards()[0]),
                log: Arc::default(),
                pool: Arc::clone(&scene.pool),
            };
            let deps = Arc::new(deps);
            let place = Place::root(tree, name);
            let make = move |_: &mut _| StorageShard::new(Arc::clone(&deps));
            let addr = supervision::spawn(&Arbiter::current(), QUICK, place, make);
            let client = StorageClient::new(Arc::clone(&scene.head), Arc::default(), std::slice::from_ref(&addr));
            Box::new(Set { addr, scene, more: (client, AtomicU32::new(0)) })
        }),
        live(&COMPACTOR, Point::Handler, &[], |tree, name| {
            let (scene, folder) = (Scene::new(tree, name), tempfile::tempdir().expect("a folder"));
            let addr = start_compactor(&scene, name, folder.path());
            Box::new(Set { addr, scene, more: folder })
        }),
        live(&LOG_WRITER, Point::Handler, &[NO_TIMER, (Point::Future, "its future waits for panics")], |tree, name| {
            let (scene, folder) = (Scene::new(tree, "matrix"), tempfile::tempdir().expect("a folder"));
            let metrics = WalMetrics::new(&scene.registry, &scene.clock);
            let (fs, options) = (RealFs::shared(), WalOptions::default());
            let opened = replay::open(&fs, folder.path(), options, &metrics, &scene.head, TimestampMs::MIN);
            let thread = LogThread::start(opened.expect("an empty log").0, SyncMode::Commit).expect("a thread");
            let place = Place::root(tree, name);
            let make = move |_: &mut _| LogWriter::new(Arc::clone(&thread));
            let addr = supervision::spawn(&Arbiter::current(), QUICK, place, make);
            Box::new(Set { addr, scene, more: folder })
        }),
    ]
}

/// An actor with its scene and whatever else it needs to live.
struct Set<A: SupervisedActor, M> {
    addr: BoundedAddr<A>,
    scene: Scene,
    more: M,
}

impl<A: SupervisedActor, M> Set<A, M> {
    /// Waits until the work is done, and gives up when the actor has panicked meanwhile or rests.
    async fn until(&self, is_done: impl Fn() -> bool) -> bool {
        let (entry, deadline) = (self.addr.entry(), at_most());
        let restarts = entry.row().restarts;
        while !is_done() && Instant::now() < deadline {
            if entry.row().restarts != restarts || entry.state().refuses() {
                return is_done();
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        is_done()
    }
}

/// When an exercise of an actor on the machine's clock is given up. A panic ends it long before.
fn at_most() -> Instant {
    Instant::now() + PATIENCE
}

impl Subject for Set<ConfigReloader, ()> {
    fn entry(&self) -> &Arc<Entry> {
        self.addr.entry()
    }

    fn exercise(&self) -> LocalBoxFuture<'_, bool> {
        Box::pin(async { self.addr.ask(RunReload { trigger: Trigger::Http }, at_most()).await == Ok(Ok(())) })
    }
}

/// Wants no groups.
struct Nobody;

impl Consumer for Nobody {
    fn discovered(&self, _: GroupsBySet) {}
}

impl Subject for Set<DiscoveryManager, ()> {
    fn entry(&self) -> &Arc<Entry> {
        self.addr.entry()
    }

    fn exercise(&self) -> LocalBoxFuture<'_, bool> {
        Box::pin(async { self.addr.ask(ApplyProviders, at_most()).await == Ok(Vec::new()) })
    }
}

impl Subject for Set<DiscoveryProvider, tempfile::TempDir> {
    fn entry(&self) -> &Arc<Entry> {
        self.addr.entry()
    }

    fn exercise(&self) -> LocalBoxFuture<'_, bool> {
        Box::pin(async { self.addr.ask(FirstLook, at_most()).await.is_ok() })
    }
}

impl Subject for Set<ScrapeManager, Exporter> {
    fn entry(&self) -> &Arc<Entry> {
        self.addr.entry()
    }

    fn exercise(&self) -> LocalBoxFuture<'_, bool> {
        Box::pin(async { self.addr.ask(ApplyJobs, at_most()).await == Ok(Vec::new()) })
    }
}

impl Subject for Set<ScrapePool, Exporter> {
    fn entry(&self) -> &Arc<Entry> {
        self.addr.entry()
    }

    fn exercise(&self) -> LocalBoxFuture<'_, bool> {
        Box::pin(async { self.addr.ask(Apply, at_most()).await.is_ok() })
    }
}

impl Subject for Set<ScrapeTarget, (Arc<TargetShared>, Exporter)> {
    fn entry(&self) -> &Arc<Entry> {
        self.addr.entry()
    }

    /// One scrape, good or bad.
    fn exercise(&self) -> LocalBoxFuture<'_, bool> {
        let last = || self.more.0.status().last_scrape_nanos;
        let before = last();
        Box::pin(async move { self.until(|| last() != before).await })
    }
}

impl Subject for Set<RuleManager, ()> {
    fn entry(&self) -> &Arc<Entry> {
        self.addr.entry()
    }

    fn exercise(&self) -> LocalBoxFuture<'_, bool> {
        Box::pin(async { self.addr.ask(ApplyRules, at_most()).await == Ok(Vec::new()) })
    }
}

impl Subject for Set<RuleGroup, Arc<GroupDeps>> {
    fn entry(&self) -> &Arc<Entry> {
        self.addr.entry()
    }

    /// One evaluation.
    fn exercise(&self) -> LocalBoxFuture<'_, bool> {
        let last = || self.more.view().evaluated_at;
        let before = last();
        Box::pin(
            async move { self.addr.ask(ApplyGroup, at_most()).await.is_ok() && self.until(|| last() != before).await },
        )
    }
}

impl Subject for Set<QueryGateway, ()> {
    fn entry(&self) -> &Arc<Entry> {
        self.addr.entry()
    }

    fn exercise(&self) -> LocalBoxFuture<'_, bool> {
        Box::pin(async {
            let answer = self.addr.ask(instant("6 * 7", self.scene.now()), at_most()).await;
            matches!(answer, Ok(Ok(outcome)) if values(&outcome) == [42.0])
        })
    }
}

impl Subject for Set<NotifierManager, (Alertmanagers, Exporter)> {
    fn entry(&self) -> &Arc<Entry> {
        self.addr.entry()
    }

    fn exercise(&self) -> LocalBoxFuture<'_, bool> {
        Box::pin(async { self.addr.ask(ApplyNotifiers, at_most()).await == Ok(Vec::new()) })
    }
}

impl Subject for Set<Notifier, (NotifierHandle, Exporter)> {
    fn entry(&self) -> &Arc<Entry> {
        self.addr.entry()
    }

    /// One notification.
    fn exercise(&self) -> LocalBoxFuture<'_, bool> {
        let received = || self.more.1.requests().len();
        let before = received();
        self.more.0.push(&[Arc::new(notifiers::alert("matrix"))]);
        Box::pin(async move { self.until(|| before < received()).await })
    }
}

impl Subject for Set<RemoteWriteManager, (RemoteScene, Exporter)> {
    fn entry(&self) -> &Arc<Entry> {
        self.addr.entry()
    }

    fn exercise(&self) -> LocalBoxFuture<'_, bool> {
        Box::pin(async { self.addr.ask(ApplyDestinations, at_most()).await == Ok(Vec::new()) })
    }
}

impl Subject for Set<RemoteWriteQueue, (RemoteScene, Exporter)> {
    fn entry(&self) -> &Arc<Entry> {
        self.addr.entry()
    }

    /// One sample.
    fn exercise(&self) -> LocalBoxFuture<'_, bool> {
        Box::pin(async {
            let (remote, receiver) = &self.more;
            let before = receiver.requests().len();
            remote.append().await;
            self.addr.ask(ApplyQueue, at_most()).await.is_ok()
                && self.until(|| before < receiver.requests().len()).await
        })
    }
}

impl Subject for Set<StorageShard, (StorageClient, AtomicU32)> {
    fn entry(&self) -> &Arc<Entry> {
        self.addr.entry()
    }

    /// Enough new series for a merge of index segments, which is the shard's future; each upkeep is its timer.
    fn exercise(&self) -> LocalBoxFuture<'_, bool> {
        let first = self.more.1.fetch_add(4096, Ordering::Relaxed);
        Box::pin(async move {
            let series = batch("matrix", first..first + 4096, self.scene.now(), 1.0);
            self.more.0.append(series, Priority::Normal, at_most()).await.is_ok_and(|report| report.appended == 4096)
        })
    }
}

impl Subject for Set<Compactor, tempfile::TempDir> {
    fn entry(&self) -> &Arc<Entry> {
        self.addr.entry()
    }

    /// One round, which finds nothing to do; others begin by the timer all the time.
    fn exercise(&self) -> LocalBoxFuture<'_, bool> {
        Box::pin(async { matches!(self.addr.ask(RunRound, at_most()).await, Ok(Ok(_))) })
    }
}

fn start_compactor(scene: &Scene, name: &str, dir: &std::path::Path) -> BoundedAddr<Compactor> {
    let metrics = BlockMetrics::new(&Registry::default());
    let catalog = Catalog::new(RealFs::shared(), dir, PageCache::new(0), metrics);
    let stored = (Arc::clone(&scene.head), scene.storage.clone(), catalog);
    let every = Duration::from_millis(5);
    let (range_ms, range_max_ms) = (7_200_000, 7_200_000);
    let options = CompactorOptions { range_ms, range_max_ms, merge_overlapping: true, segment_len: 0, every };
    let clock = SharedClock::clone(&scene.clock);
    let deps = CompactorDeps::new(stored, Arc::clone(&scene.pool), clock, options, Box::new(|_| {}));
    deps.opened();
    let place = Place::root(&scene.tree, name);
    supervision::spawn(&Arbiter::current(), QUICK, place, move |_| Compactor::new(Arc::clone(&deps)))
}

impl Subject for Set<LogWriter, tempfile::TempDir> {
    fn entry(&self) -> &Arc<Entry> {
        self.addr.entry()
    }

    fn exercise(&self) -> LocalBoxFuture<'_, bool> {
        Box::pin(async {
            let mut records = Vec::new();
            let sample = RefSample { series: SeriesRef(1), t: self.scene.now().0, value: 1.0 };
            record::encode_samples([sample], &mut records);
            log_writer::write(&self.addr, records, true, PATIENCE).await.is_ok()
        })
    }
}

impl Subject for Set<AlertDispatcher, (AlertScene, AtomicU32)> {
    fn entry(&self) -> &Arc<Entry> {
        self.addr.entry()
    }

    /// A configuration, and an alert that comes to a group.
    fn exercise(&self) -> LocalBoxFuture<'_, bool> {
        let (alerts, number) = &self.more;
        let number = number.fetch_add(1, Ordering::Relaxed).to_string();
        let handle = DispatcherHandle::new(Arc::clone(&alerts.dispatcher), self.addr.clone());
        Box::pin(async move {
            let applied = self.addr.ask(ApplyRoutes, at_most()).await.is_ok();
            handle.send(vec![alert(&number, true)]);
            let arrived = || {
                let groups = alerts.dispatcher.overview();
                groups.iter().any(|group| group.labels.get("alertname") == Some(number.as_str()))
            };
            applied && self.until(arrived).await
        })
    }
}

impl Subject for Set<AggregationGroup, Arc<AlertGroupDeps>> {
    fn entry(&self) -> &Arc<Entry> {
        self.addr.entry()
    }

    /// An alert that is over goes with the next flush.
    fn exercise(&self) -> LocalBoxFuture<'_, bool> {
        let _ = self.more.insert(StoredAlert::heard(alert("goes", false), self.scene.now()));
        Box::pin(async move { self.until(|| self.more.alert_count() == 1).await })
    }
}

impl Subject for Set<Receiver, (AlertScene, Webhook, AtomicU32)> {
    fn entry(&self) -> &Arc<Entry> {
        self.addr.entry()
    }

    fn exercise(&self) -> LocalBoxFuture<'_, bool> {
        let number = self.more.2.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            let flush = flush_of(&format!("group {number}"), vec![alert("a", true)], at_most());
            matches!(self.addr.ask(Deliver(flush), at_most()).await, Ok(Ok(())))
        })
    }
}

impl Subject for Root {
    fn entry(&self) -> &Arc<Entry> {
        self.addr().entry()
    }

    fn exercise(&self) -> LocalBoxFuture<'_, bool> {
        Box::pin(async {
            let before = self.entry().row().handled;
            let sent = self.addr().signal(ChildFailed).is_ok();
            tokio::time::sleep(Duration::from_secs(1)).await;
            sent && before < self.entry().row().handled
        })
    }
}

fn start_probe(tree: &Arc<ActorTree>, name: &str) -> BoundedAddr<Probe> {
    let deps = Arc::new(ProbeDeps::default());
    supervision::spawn(&Arbiter::current(), Policy::PERMANENT, Place::root(tree, name), move |_| Probe::new(&deps))
}

impl Subject for BoundedAddr<Probe> {
    fn entry(&self) -> &Arc<Entry> {
        BoundedAddr::entry(self)
    }

    fn exercise(&self) -> LocalBoxFuture<'_, bool> {
        Box::pin(async { self.ask(Exercise, within(1)).await == Ok(true) })
    }
}

#[test]
fn every_kind_of_actor_survives_every_kind_of_panic() {
    let cases = cases();
    for kind in kind::ALL {
        assert!(
            cases.iter().any(|case| case.kind == *kind),
            "kind {} has no fault case in tests/actor_faults",
            kind.name
        );
    }
    for case in &cases {
        for point in Point::ALL {
            if !case.without.iter().any(|(without, _)| *without == point) {
                println!("{}.{}", case.kind.name, point.as_str());
                case.time.run(one_panic(case, point));
                case.time.run(over_the_budget(case, point));
            }
        }
    }
}

/// A tree of all kinds there are.
pub(crate) fn tree() -> Arc<ActorTree> {
    let kinds: Vec<_> = kind::ALL.iter().copied().chain([&PROBE]).collect();
    ActorTree::new(&kinds, &Registry::default(), SystemClock::shared(), 1)
}

/// Exercises until the condition holds.
async fn until(subject: &dyn Subject, what: &str, condition: impl Fn(bool) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(300);
    while !condition(subject.exercise().await) {
        assert!(Instant::now() < deadline, "{what}: {:?}", subject.entry().row());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn one_panic(case: &Case, point: Point) {
    let tree = tree();
    let (subject, sibling) = ((case.start)(&tree, "subject"), (case.start)(&tree, "sibling"));
    until(&*subject, "it works at first", |worked| worked).await;
    until(&*sibling, "its sibling works at first", |worked| worked).await;

    let armed = arm(case.kind.name, Some("subject"), point, 1);
    // These two points are passed after another panic only.
    let trigger = matches!(point, Point::Started | Point::Restarting | Point::Drop);
    let trigger = trigger.then(|| arm(case.kind.name, Some("subject"), case.trigger, 1));
    until(&*subject, "the panic happens", |_| armed.left() == 0).await;
    drop(trigger);
    assert!(sibling.exercise().await, "the sibling works meanwhile");
    until(&*subject, "it works again at the same address", |worked| worked).await;

    holds("what it was sent is handled", || subject.entry().row().queue == 0).await;
    let row = subject.entry().row();
    assert_eq!(row.state, ActorState::Running, "{row:?}");
    assert!(1 <= row.restarts && row.last_panic.is_some_and(|text| text.contains("failpoint")));
    let row = sibling.entry().row();
    assert_eq!((row.state, row.restarts, row.last_panic), (ActorState::Running, 0, None));
}

async fn over_the_budget(case: &Case, point: Point) {
    let tree = tree();
    let (subject, sibling) = ((case.start)(&tree, "subject"), (case.start)(&tree, "sibling"));
    until(&*subject, "it works at first", |worked| worked).await;

    let armed = arm(case.kind.name, Some("subject"), point, usize::MAX);
    let trigger = arm(case.kind.name, Some("subject"), case.trigger, usize::MAX);
    until(&*subject, "it fails", |_| subject.entry().state() == ActorState::Failed).await;
    drop((armed, trigger));
    let refused_at = Instant::now();
    assert!(!subject.exercise().await, "a failed actor does nothing");
    if matches!(case.time, Time::Paused) {
        assert!(refused_at.elapsed() <= Duration::from_secs(1), "it does not wait");
    }
    assert!(sibling.exercise().await, "the sibling works meanwhile");
    tree.retry_failed();
    until(&*subject, "it works again after a try", |worked| worked).await;
    assert_eq!(sibling.entry().row().restarts, 0);
}
