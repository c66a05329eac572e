//! Alerting in process: alerts go from the queue through groups to webhooks, and what the faults of one mean for others.

use std::path::Path;
use std::sync::Arc;

use actix::Arbiter;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::time::Instant;
use watchfire::actors::aggregation_group::AGGREGATION_GROUP;
use watchfire::actors::alert_dispatcher::{ALERT_DISPATCHER, AlertDispatcher, DispatcherDeps, DispatcherHandle};
use watchfire::actors::alert_sink::AlertSink;
use watchfire::actors::control::Drain;
use watchfire::actors::failpoint::{Point, arm};
use watchfire::actors::kind;
use watchfire::actors::notification_log::NotificationLog;
use watchfire::actors::pool::{ComputePool, LaneOptions, PoolOptions};
use watchfire::actors::receiver::{AlertRuntime, Flush, RECEIVER, ReceiverDeps, ReceiverSpec};
use watchfire::actors::registry::{ActorState, ActorTree};
use watchfire::actors::supervision::{self, Place};
use watchfire::alertmanager::dedup::Hashes;
use watchfire::alertmanager::group::FlushAlert;
use watchfire::alertmanager::metrics::AlertmanagerMetrics;
use watchfire::alertmanager::nflog::entry::Receiver as ReceiverId;
use watchfire::alertmanager::nflog::file::NflogFile;
use watchfire::client::{ClientOptions, HttpClient};
use watchfire::config::alertmanager::{Webhook as WebhookConfig, parse};
use watchfire::model::alert::Alert;
use watchfire::model::clock::{Clock, SharedClock, SystemClock};
use watchfire::model::labels::Labels;
use watchfire::model::random::Random;
use watchfire::model::time::TimestampMs;
use watchfire::telemetry::metrics::{MetricValue, Registry};

use crate::scene::{PATIENCE, QUICK, holds, live};
use crate::support::Webhook;

/// What alerting needs, on the test's own thread.
pub(crate) struct AlertScene {
    pub(crate) tree: Arc<ActorTree>,
    pub(crate) runtime: Arc<AlertRuntime>,
    pub(crate) dispatcher: Arc<DispatcherDeps>,
    registry: Arc<Registry>,
    _folder: Option<tempfile::TempDir>,
}

impl AlertScene {
    pub(crate) fn new(tree: &Arc<ActorTree>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let scene = Self::at(tree, folder.path(), 1000);
        Self { _folder: Some(folder), ..scene }
    }

    /// With the notification log in `folder` and room for so many alerts that wait.
    fn at(tree: &Arc<ActorTree>, folder: &Path, queue: usize) -> Self {
        let (registry, clock) = (Registry::shared(), SystemClock::shared());
        let metrics = AlertmanagerMetrics::new(&registry, &clock);
        let log = NotificationLog::new(metrics.nflog.clone(), SharedClock::clone(&clock));
        log.open(folder).expect("a thread");
        let lane = LaneOptions { queue_max: 64, reserved_threads: 0 };
        let options = PoolOptions { name: "alerts", shared_threads: 1, lanes: [lane; 4] };
        let runtime = Arc::new(AlertRuntime {
            log,
            metrics,
            clock,
            pool: Arc::new(ComputePool::start(options, &registry).expect("threads")),
            external_url: "http://watchfire/alertmanager".to_owned(),
            policy: QUICK,
            random: Mutex::new(Random::seeded(1)),
        });
        let dispatcher = DispatcherDeps::new(Arc::clone(&runtime), Arc::from([Arbiter::current()]), queue);
        Self { tree: Arc::clone(tree), runtime, dispatcher, registry, _folder: None }
    }

    pub(crate) fn spawn_dispatcher(&self, name: &str) -> DispatcherHandle {
        let (deps, place) = (Arc::clone(&self.dispatcher), Place::root(&self.tree, name));
        let make = move |_: &mut _| AlertDispatcher::new(Arc::clone(&deps));
        let addr = supervision::spawn(&Arbiter::current(), QUICK, place, make);
        DispatcherHandle::new(Arc::clone(&self.dispatcher), addr)
    }

    /// A dispatcher that works by `route` and `receivers`, each a name and a URL.
    async fn dispatcher(&self, name: &str, route: &str, receivers: &[(&str, String)]) -> DispatcherHandle {
        let handle = self.spawn_dispatcher(name);
        apply(&handle, route, receivers).await;
        handle
    }

    /// The value of a counter of webhooks, `reason` for those of failures.
    fn count(&self, name: &str, reason: Option<&str>) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name == format!("alertmanager_{name}")).expect("it is there");
        let of_webhooks =
            |labels: &Labels| labels.get("integration") == Some("webhook") && labels.get("reason") == reason;
        let value = family.metrics.iter().find(|(labels, _)| of_webhooks(labels)).map(|(_, value)| value.clone());
        match value {
            Some(MetricValue::Number(value)) => value,
            other => panic!("{name}: {other:?}"),
        }
    }
}

async fn apply(handle: &DispatcherHandle, route: &str, receivers: &[(&str, String)]) {
    let one = |(name, url): &(&str, String)| format!("- name: {name}\n  webhook_configs: [{{url: '{url}'}}]\n");
    let receivers: String = receivers.iter().map(one).collect();
    let config = parse(&format!("route: {route}\nreceivers:\n{receivers}")).expect("a good configuration");
    handle.apply(Arc::new(config)).await.expect("it is applied");
}

/// A route without waits that groups by name.
const QUICK_ROUTE: &str = "{receiver: a, group_by: [alertname], group_wait: 0s, group_interval: 20ms}";
/// Two receivers for each alert.
const TWO_ROUTES: &str = "{receiver: a, group_by: [alertname], group_wait: 0s, group_interval: 20ms, \
                          routes: [{receiver: a, continue: true}, {receiver: b}]}";

/// An alert that fires for an hour from now, or one that is over.
pub(crate) fn alert(name: &str, firing: bool) -> Alert {
    let now = SystemClock::new().now().0;
    Alert {
        labels: Labels::from_pairs([("alertname", name)]),
        annotations: Labels::empty(),
        starts_at: TimestampMs(now - 60_000),
        ends_at: TimestampMs(if firing { now + 3_600_000 } else { now - 1 }),
        generator_url: String::new(),
    }
}

pub(crate) fn flush_of(group_key: &str, alerts: Vec<Alert>, deadline: Instant) -> Arc<Flush> {
    let alerts: Vec<FlushAlert> = alerts.into_iter().map(|alert| FlushAlert::new(alert, false)).collect();
    Arc::new(Flush {
        group_key: group_key.to_owned(),
        group_labels: Labels::empty(),
        hashes: Hashes::of(&alerts),
        alerts,
        repeat_nanos: 3_600_000_000_000,
        tick_nanos: SystemClock::new().unix_nanos(),
        deadline,
    })
}

pub(crate) fn receiver_deps(alerts: &AlertScene, url: &str) -> Arc<ReceiverDeps> {
    let yaml = format!("route: {{receiver: a}}\nreceivers: [{{name: a, webhook_configs: [{{url: '{url}'}}]}}]");
    let mut config = parse(&yaml).expect("a good configuration");
    let webhook: WebhookConfig = config.receivers.remove(0).webhook_configs.remove(0).expect("a webhook");
    let id = ReceiverId { group_name: "a".to_owned(), integration: "webhook".to_owned(), idx: 0 };
    let client = HttpClient::new(ClientOptions { user_agent: "test".to_owned(), follow_redirects: true });
    let spec = ArcSwap::from_pointee(ReceiverSpec { id, webhook, client });
    Arc::new(ReceiverDeps { spec, runtime: Arc::clone(&alerts.runtime) })
}

fn tree() -> Arc<ActorTree> {
    ActorTree::new(kind::ALL, &Registry::default(), SystemClock::shared(), 1)
}

fn names(webhook: &Webhook) -> Vec<String> {
    let name = |message: &serde_json::Value| message["groupLabels"]["alertname"].as_str().unwrap_or("").to_owned();
    let mut names: Vec<String> = webhook.messages().iter().map(name).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_webhook_hears_of_beginning_and_end() {
    live(async {
        let (scene, webhook) = (AlertScene::new(&tree()), Webhook::start());
        let handle = scene.dispatcher("d", QUICK_ROUTE, &[("a", webhook.url())]).await;
        handle.send(vec![alert("x", true)]);
        holds("the beginning is told", || webhook.statuses() == ["firing"]).await;
        let groups = handle.overview();
        assert_eq!((groups.len(), groups[0].key.as_str()), (1, "{}:{alertname=\"x\"}"));
        handle.send(vec![alert("x", false)]);
        holds("the end is told", || webhook.statuses() == ["firing", "resolved"]).await;
        holds("the group ends", || handle.overview().is_empty()).await;
        let reasons: Vec<_> = webhook.messages().iter().map(|m| m["notification_reason"].clone()).collect();
        assert_eq!(reasons, ["first notification", "all alerts resolved"]);
        assert_eq!(scene.count("notifications_total", None), 2.0);
        let names: Vec<String> = scene.dispatcher.families().into_iter().map(|family| family.name).collect();
        assert_eq!(names, ["alertmanager_alerts", "alertmanager_dispatcher_aggregation_groups"]);
    });
}

#[test]
fn a_receiver_in_trouble_is_told_again_within_the_flush() {
    live(async {
        let (scene, webhook) = (AlertScene::new(&tree()), Webhook::start());
        webhook.answer("500 Internal Server Error");
        let handle = scene.dispatcher("d", QUICK_ROUTE, &[("a", webhook.url())]).await;
        handle.send(vec![alert("x", true)]);
        holds("it is tried again", || 2 <= webhook.messages().len()).await;
        webhook.answer("200 OK");
        holds("it is told", || !scene.runtime.log.is_empty()).await;
        assert_eq!(scene.count("notifications_total", None), 1.0);
        assert_eq!(scene.count("notifications_failed_total", Some("serverError")), 0.0);
        assert!(3.0 <= scene.count("notification_requests_total", None));
    });
}

#[test]
fn a_receiver_that_refuses_is_told_again_with_the_next_flush() {
    live(async {
        let (scene, webhook) = (AlertScene::new(&tree()), Webhook::start());
        webhook.answer("400 Bad Request");
        let handle = scene.dispatcher("d", QUICK_ROUTE, &[("a", webhook.url())]).await;
        handle.send(vec![alert("x", true)]);
        holds("three flushes have failed", || 3.0 <= scene.count("notifications_failed_total", Some("clientError")))
            .await;
        let failure = handle.overview()[0].failure.clone().unwrap_or_default();
        let text = "notify retry canceled due to unrecoverable error after 1 attempts: unexpected status code 400";
        assert_eq!(failure, format!("a/webhook[0]: {text}"));
        webhook.answer("200 OK");
        holds("it is told", || !scene.runtime.log.is_empty()).await;
        // No flush has tried twice.
        let (flushes, requests) = ("notifications_total", "notification_requests_total");
        assert_eq!(scene.count(flushes, None), scene.count(requests, None));
    });
}

/// As after `kill -9`: nothing was closed, and what the file has is all that is known.
#[test]
fn after_a_restart_nobody_is_told_twice() {
    live(async {
        let (folder, webhook) = (tempfile::tempdir().unwrap(), Webhook::start());
        let first = AlertScene::at(&tree(), folder.path(), 1000);
        let handle = first.dispatcher("d", QUICK_ROUTE, &[("a", webhook.url())]).await;
        handle.send(vec![alert("x", true)]);
        holds("the beginning is told", || webhook.statuses() == ["firing"] && !first.runtime.log.is_empty()).await;
        let recorded = || NflogFile::new(folder.path()).load().unwrap().entries.len();
        holds("it is recorded", || recorded() == 1).await;
        drop((handle, first));

        let second = AlertScene::at(&tree(), folder.path(), 1000);
        let handle = second.dispatcher("d", QUICK_ROUTE, &[("a", webhook.url())]).await;
        handle.send(vec![alert("x", true)]);
        holds("it was part of a flush", || handle.overview().iter().any(|group| group.alerts[0].processed)).await;
        handle.send(vec![alert("x", false)]);
        holds("the end is told", || 2 <= webhook.messages().len()).await;
        holds("the group ends", || handle.overview().is_empty()).await;
        assert_eq!(webhook.statuses(), ["firing", "resolved"]);
    });
}

#[test]
fn a_receiver_that_panics_loses_nothing_and_delays_nobody() {
    live(async {
        let (scene, bad, good) = (AlertScene::new(&tree()), Webhook::start(), Webhook::start());
        let route = &TWO_ROUTES.replace("receiver: a", "receiver: panicky");
        let armed = arm(RECEIVER.name, Some("panicky/webhook[0]"), Point::Handler, usize::MAX);
        let handle = scene.dispatcher("d", route, &[("panicky", bad.url()), ("b", good.url())]).await;
        handle.send((0..5).map(|n| alert(&n.to_string(), true)).collect());
        let all = ["0", "1", "2", "3", "4"];
        holds("the other receiver is told all", || names(&good) == all).await;
        let row = || scene.tree.rows().into_iter().find(|row| row.name == "panicky/webhook[0]").unwrap();
        holds("it fails", || row().state == ActorState::Failed).await;
        assert!(1.0 <= scene.count("notifications_failed_total", Some("other")) && bad.messages().is_empty());
        drop(armed);
        scene.tree.retry_failed();
        holds("it is told all", || names(&bad) == all).await;
        assert_eq!(names(&good), all);
    });
}

#[test]
fn a_group_that_panics_keeps_its_alerts() {
    live(async {
        let (scene, webhook) = (AlertScene::new(&tree()), Webhook::start());
        let bad = "{}:{alertname=\"bad\"}";
        for point in [Point::Timer, Point::Future, Point::Started] {
            let armed = arm(AGGREGATION_GROUP.name, Some(bad), point, usize::MAX);
            let trigger = arm(AGGREGATION_GROUP.name, Some(bad), Point::Timer, usize::MAX);
            let handle = scene.dispatcher("d", QUICK_ROUTE, &[("a", webhook.url())]).await;
            let before = webhook.messages().len();
            handle.send(vec![alert("bad", true), alert("good", true)]);
            let failed = || scene.tree.rows().iter().any(|row| row.name == bad && row.state == ActorState::Failed);
            holds("it fails", failed).await;
            // News reach a group that rests as well.
            handle.send(vec![alert("bad", true)]);
            drop((armed, trigger));
            scene.tree.retry_failed();
            holds("both are told", || before + 2 <= webhook.messages().len()).await;
            handle.send(vec![alert("bad", false), alert("good", false)]);
            holds("both ends are told", || handle.overview().is_empty()).await;
            assert_eq!(webhook.messages().len(), before + 4);
        }
    });
}

#[test]
fn a_dispatcher_that_panics_loses_no_alert() {
    live(async {
        let (scene, webhook) = (AlertScene::new(&tree()), Webhook::start());
        let handle = scene.dispatcher("panicky", QUICK_ROUTE, &[("a", webhook.url())]).await;
        let armed = arm(ALERT_DISPATCHER.name, Some("panicky"), Point::Future, 3);
        handle.send((0..200).map(|n| alert(&format!("{n:03}"), true)).collect());
        let all: Vec<String> = (0..200).map(|n| format!("{n:03}")).collect();
        holds("all are told", || names(&webhook) == all).await;
        assert_eq!(armed.left(), 0);
    });
}

#[test]
fn a_dead_receiver_delays_no_other() {
    live(async {
        let (scene, dead, good) = (AlertScene::new(&tree()), Webhook::start(), Webhook::start());
        dead.hang();
        let handle = scene.dispatcher("d", TWO_ROUTES, &[("a", dead.url()), ("b", good.url())]).await;
        handle.send((0..20).map(|n| alert(&format!("{n:02}"), true)).collect());
        let all: Vec<String> = (0..20).map(|n| format!("{n:02}")).collect();
        holds("the other is told all", || names(&good) == all).await;
        handle.send((0..20).map(|n| alert(&format!("{n:02}"), false)).collect());
        holds("and all ends", || good.messages().len() == 40).await;
        // What the dead one was not told is held for it.
        holds("the other's groups end", || handle.overview().len() == 20).await;
    });
}

#[test]
fn a_full_queue_drops_its_oldest() {
    live(async {
        let folder = tempfile::tempdir().unwrap();
        let scene = AlertScene::at(&tree(), folder.path(), 3);
        let armed = arm(ALERT_DISPATCHER.name, Some("full"), Point::Started, usize::MAX);
        let handle = scene.spawn_dispatcher("full");
        handle.send(vec![alert("1", true), alert("2", true)]);
        handle.send((3..6).map(|n| alert(&n.to_string(), true)).collect());
        assert_eq!(scene.runtime.metrics.dropped.get(), 2);
        holds("it fails", || handle.addr().entry().state() == ActorState::Failed).await;
        drop(armed);
        scene.tree.retry_failed();
        let shown =
            || handle.overview().iter().map(|group| group.labels.get("alertname").unwrap().to_owned()).collect();
        holds("those left are sorted in", || Vec::<String>::len(&shown()) == 3).await;
        assert_eq!(shown(), ["3", "4", "5"]);
    });
}

#[test]
fn a_new_configuration_keeps_groups_and_sorts_alerts_anew() {
    live(async {
        let (scene, webhook) = (AlertScene::new(&tree()), Webhook::start());
        let slow = "{receiver: a, group_by: [alertname], group_wait: 0s, group_interval: 1h}";
        let handle = scene.dispatcher("d", slow, &[("a", webhook.url())]).await;
        handle.send(vec![alert("x", true), alert("y", true)]);
        holds("both are told", || names(&webhook) == ["x", "y"]).await;
        let told = || handle.overview().iter().all(|group| group.alerts.iter().all(|alert| alert.processed));
        holds("both groups wait", told).await;
        let due = handle.overview()[0].next_flush;
        // The same keys: the groups go on as they were.
        let other = Webhook::start();
        apply(&handle, slow, &[("a", other.url())]).await;
        assert!(handle.overview()[0].next_flush <= due && told());
        // Other keys: new groups, told at once, as their alerts are old.
        let anew = "{receiver: a, group_by: [], group_wait: 0s, group_interval: 1h}";
        apply(&handle, anew, &[("a", other.url())]).await;
        holds("both are told together", || other.messages().len() == 1).await;
        assert_eq!(other.messages()[0]["alerts"].as_array().unwrap().len(), 2);
        assert_eq!((handle.overview().len(), webhook.messages().len()), (1, 2));
        // A receiver that nothing names ends, and so do groups.
        apply(&handle, "{receiver: b}", &[("b", other.url())]).await;
        holds("it ends", || !scene.tree.rows().iter().any(|row| row.name == "a/webhook[0]")).await;
    });
}

#[test]
fn a_disk_that_refuses_makes_nobody_be_told_twice() {
    live(async {
        let (folder, webhook) = (tempfile::tempdir().unwrap(), Webhook::start());
        // A file where the folder should be: every write fails until it is gone.
        let blocked = folder.path().join("blocked");
        std::fs::write(&blocked, "").unwrap();
        let scene = AlertScene::at(&tree(), &blocked, 1000);
        let handle = scene.dispatcher("d", QUICK_ROUTE, &[("a", webhook.url())]).await;
        handle.send(vec![alert("x", true)]);
        let failure = || handle.overview().first().and_then(|group| group.failure.clone()).unwrap_or_default();
        holds("the flush fails", || failure().contains("the notification log was not written")).await;
        // The end is not let go of either, as nothing durable says that it was told.
        handle.send(vec![alert("x", false)]);
        holds("the end is told", || webhook.statuses() == ["firing", "resolved"]).await;
        let tries = || scene.runtime.metrics.nflog.queries.get();
        let before = tries();
        holds("more flushes have failed", || before + 10 <= tries() && !failure().is_empty()).await;
        assert_eq!(handle.overview().len(), 1);
        std::fs::remove_file(&blocked).unwrap();
        holds("the group ends", || handle.overview().is_empty()).await;
        assert_eq!(NflogFile::new(&blocked).load().unwrap().entries.len(), 1);
        assert_eq!(webhook.statuses(), ["firing", "resolved"]);
    });
}

#[test]
fn a_drain_ends_all_in_time() {
    live(async {
        let (scene, dead) = (AlertScene::new(&tree()), Webhook::start());
        dead.hang();
        let handle = scene.dispatcher("d", QUICK_ROUTE, &[("a", dead.url())]).await;
        handle.send(vec![alert("x", true), alert("y", true)]);
        holds("both are under way", || dead.messages().len() == 2).await;
        let deadline = Instant::now() + std::time::Duration::from_millis(300);
        handle.addr().signal(Drain { deadline }).unwrap();
        holds("all end", || scene.tree.rows().is_empty()).await;
        assert!(deadline <= Instant::now(), "what is under way gets the time that is left");
        let idle = AlertScene::new(&tree());
        let handle = idle.dispatcher("d", QUICK_ROUTE, &[("a", dead.url())]).await;
        let deadline = Instant::now() + PATIENCE;
        handle.addr().signal(Drain { deadline }).unwrap();
        holds("all end at once", || idle.tree.rows().is_empty()).await;
    });
}
