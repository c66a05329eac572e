//! Notifiers at fault: who else notices, what becomes of their queues, and what Alertmanagers are sent.

use std::sync::Arc;

use actix::Arbiter;
use parking_lot::Mutex;
use tokio::time::Instant;
use watchfire::actors::alert_router::AlertRouter;
use watchfire::actors::alert_sink::AlertSink;
use watchfire::actors::control::Drain;
use watchfire::actors::failpoint::{Point, arm};
use watchfire::actors::mailbox::BoundedAddr;
use watchfire::actors::notifier::{Notifier, NotifierHandle, NotifierRuntime, NotifierShared};
use watchfire::actors::notifier_manager::{ApplyNotifiers, NotifierManager, NotifierManagerDeps, NotifierSetSpec};
use watchfire::actors::supervision::{self, Place};
use watchfire::client::HttpClient;
use watchfire::config::{AlertingConfig, LoadOptions, load_str};
use watchfire::model::alert::Alert;
use watchfire::model::clock::SharedClock;
use watchfire::model::labels::Labels;
use watchfire::model::time::TimestampMs;
use watchfire::notify::endpoint::endpoints;
use watchfire::notify::metrics::{EndpointMetrics, NotifyMetrics};
use watchfire::notify::prepare::AlertRules;
use watchfire::notify::queue::QueueLimits;

use crate::matrix::tree;
use crate::probe::within;
use crate::scene::{QUICK, Scene, holds, live};
use crate::support::{Behaviour, Exporter};

pub(crate) const LIMITS: QueueLimits = QueueLimits { capacity: 10, batch_len_max: 1 };

/// What notifiers of a test share.
pub(crate) struct Alertmanagers {
    runtime: Arc<NotifierRuntime>,
    deps: Arc<NotifierManagerDeps>,
}

impl Alertmanagers {
    pub(crate) fn new(scene: &Scene, limits: QueueLimits) -> Self {
        Self::ending(scene, limits, true)
    }

    /// `drain_on_shutdown`: whether notifiers that end send what they have.
    fn ending(scene: &Scene, limits: QueueLimits, drain_on_shutdown: bool) -> Self {
        let metrics = NotifyMetrics::new(&scene.registry, &SharedClock::clone(&scene.clock), limits.capacity);
        let runtime = Arc::new(NotifierRuntime { limits, drain_on_shutdown, metrics, policy: QUICK });
        let deps = NotifierManagerDeps::new(Arc::clone(&runtime), Arbiter::current());
        Self { runtime, deps }
    }

    pub(crate) fn spawn_manager(&self, scene: &Scene, name: &str, yaml: &str) -> BoundedAddr<NotifierManager> {
        self.configure(yaml);
        let (place, deps) = (Place::root(&scene.tree, name), Arc::clone(&self.deps));
        supervision::spawn(&Arbiter::current(), QUICK, place, move |_| NotifierManager::new(Arc::clone(&deps)))
    }

    /// Stores what a configuration says; nobody is told.
    fn configure(&self, yaml: &str) -> AlertingConfig {
        let loaded = load_str("a.yml", yaml, &LoadOptions::default()).expect("a good configuration");
        let alerting = loaded.config.alerting;
        let spec = |config: &watchfire::config::AlertmanagerConfig| {
            let client = HttpClient::from_config("agent/1".into(), &config.http);
            NotifierSetSpec::new(config, client, endpoints(config, &config.discovery.static_configs))
        };
        *self.deps.specs.lock() = alerting.alertmanagers.iter().map(spec).collect();
        alerting
    }

    pub(crate) fn spawn_notifier(&self, scene: &Scene, name: &str, addr: &str) -> NotifierHandle {
        let loaded = load_str("a.yml", &config(&[addr]), &LoadOptions::default()).expect("a good configuration");
        let config = &loaded.config.alerting.alertmanagers[0];
        let endpoint = endpoints(config, &config.discovery.static_configs).active.remove(0);
        let client = HttpClient::from_config("agent/1".into(), &config.http);
        let shared = NotifierShared::new(endpoint, client, config.timeout.to_std(), Arc::clone(&self.runtime));
        let (place, for_actor) = (Place::root(&scene.tree, name), Arc::clone(&shared));
        let make = move |_: &mut _| Notifier::new(Arc::clone(&for_actor));
        NotifierHandle { shared, actor: supervision::spawn(&Arbiter::current(), QUICK, place, make) }
    }

    fn router(&self) -> AlertRouter {
        AlertRouter::new(Arc::clone(&self.deps.overview))
    }

    fn metrics(&self, addr: &str) -> EndpointMetrics {
        self.runtime.metrics.endpoint(&url(addr))
    }
}

fn url(addr: &str) -> String {
    format!("http://{addr}/api/v2/alerts")
}

/// A configuration whose Alertmanagers may take as long as they like.
pub(crate) fn config(addrs: &[&str]) -> String {
    format!("alerting: {{alertmanagers: [{{timeout: 1h, static_configs: [{{targets: {addrs:?}}}]}}]}}")
}

pub(crate) fn alert(name: &str) -> Alert {
    Alert {
        labels: Labels::from_pairs([("alertname", name)]),
        annotations: Labels::empty(),
        starts_at: TimestampMs(1_000),
        ends_at: TimestampMs(2_500),
        generator_url: "http://p/graph?g0.expr=up&g0.tab=1".to_owned(),
    }
}

fn body(labels: &str) -> String {
    format!(
        r#"{{"endsAt":"1970-01-01T00:00:02.500Z","startsAt":"1970-01-01T00:00:01.000Z","generatorURL":"http://p/graph?g0.expr=up\u0026g0.tab=1","labels":{{{labels}}}}}"#
    )
}

/// Names of the alerts that an Alertmanager was sent, a list for each request.
fn names(exporter: &Exporter) -> Vec<Vec<String>> {
    let names = |body: Vec<u8>| {
        let alerts: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        let alerts = alerts.as_array().expect("an array").iter();
        alerts.map(|alert| alert["labels"]["alertname"].as_str().expect("a name").to_owned()).collect()
    };
    exporter.bodies().into_iter().map(names).collect()
}

#[test]
fn a_panicking_notifier_keeps_its_queue_and_loses_the_batch_it_was_at() {
    live(async {
        let scene = Scene::new(&tree(), "notifier panics");
        let exporter = Exporter::start("");
        exporter.set(Behaviour::Hang);
        let alertmanagers = Alertmanagers::new(&scene, LIMITS);
        let handle = alertmanagers.spawn_notifier(&scene, "panicking notifier", &exporter.addr);
        ["a", "b", "c"].into_iter().for_each(|name| handle.push(&[Arc::new(alert(name))]));
        holds("the first is under way", || exporter.requests().len() == 1).await;
        assert_eq!(handle.shared.queue_len(), 2);
        exporter.set(Behaviour::Body(String::new()));
        let armed = arm("notifier", Some("panicking notifier"), Point::Handler, 1);
        handle.push(&[Arc::new(alert("d"))]);
        let metrics = alertmanagers.metrics(&exporter.addr);
        holds("the others are sent", || metrics.sent.get() == 3).await;
        assert_eq!(armed.left(), 0);
        assert_eq!(names(&exporter), [["a"], ["b"], ["c"], ["d"]]);
        assert_eq!((metrics.errors.get(), metrics.dropped.get(), metrics.queue_len.get()), (1, 1, 0.0));
    });
}

/// A dispatcher that only notes what it is sent.
#[derive(Default)]
struct Noted(Mutex<Vec<Alert>>);

impl AlertSink for Noted {
    fn send(&self, alerts: Vec<Alert>) {
        self.0.lock().extend(alerts);
    }
}

#[test]
fn a_dead_alertmanager_delays_nobody_and_its_queue_is_bounded() {
    live(async {
        let scene = Scene::new(&tree(), "dead");
        let (dead, good) = (Exporter::start(""), Exporter::start(""));
        dead.set(Behaviour::Hang);
        let alertmanagers = Alertmanagers::new(&scene, LIMITS);
        let manager = alertmanagers.spawn_manager(&scene, "manager of a dead one", &config(&[&dead.addr, &good.addr]));
        assert_eq!(manager.ask(ApplyNotifiers, within(30)).await, Ok(Vec::new()));
        let (router, noted) = (alertmanagers.router(), Arc::new(Noted::default()));
        router.set_dispatcher(Arc::clone(&noted) as Arc<dyn AlertSink>);
        let (of_dead, of_good) = (alertmanagers.metrics(&dead.addr), alertmanagers.metrics(&good.addr));
        for n in 1..=50 {
            router.send(vec![alert(&n.to_string())]);
            assert_eq!(noted.0.lock().len(), n);
            holds("the good one has it", || of_good.sent.get() == n as u64).await;
            if n == 1 {
                holds("the dead one has it", || dead.requests().len() == 1).await;
            }
            assert!(of_dead.queue_len.get() <= 10.0);
        }
        assert_eq!((of_good.dropped.get(), of_dead.dropped.get(), of_dead.queue_len.get()), (0, 39, 10.0));

        manager.signal(Drain { deadline: Instant::now() + std::time::Duration::from_secs(1) }).unwrap();
        manager.ended().await;
        assert_eq!((of_dead.dropped.get(), of_dead.errors.get(), of_dead.queue_len.get()), (50, 1, 0.0));
        assert_eq!((scene.count("notifier"), of_good.dropped.get()), (0, 0));
    });
}

#[test]
fn alertmanagers_are_sent_what_prometheus_sends() {
    live(async {
        let scene = Scene::new(&tree(), "wire");
        let exporter = Exporter::start("");
        let yaml = format!(
            "alerting:
  alert_relabel_configs: [{{source_labels: [alertname], regex: dropped, action: drop}}]
  alertmanagers:
  - path_prefix: /am
    basic_auth: {{username: user, password: pass}}
    alert_relabel_configs: [{{source_labels: [env], target_label: to, replacement: '<$1>'}}]
    static_configs: [{{targets: ['{}']}}]
",
            exporter.addr
        );
        let alertmanagers = Alertmanagers::new(&scene, QueueLimits { capacity: 10, batch_len_max: 2 });
        let _manager = alertmanagers.spawn_manager(&scene, "manager of the wire", &yaml);
        let url = format!("http://{}/am/api/v2/alerts", exporter.addr);
        holds("it is there", || alertmanagers.deps.overview.active() == [url.as_str()]).await;
        let router = alertmanagers.router();
        router.set_rules(AlertRules {
            external_labels: Labels::from_pairs([("env", "x")]),
            relabel: alertmanagers.configure(&yaml).alert_relabel_configs.into(),
        });
        router.send(vec![alert("dropped")]);
        router.send(["a", "dropped", "b", "c"].into_iter().map(alert).collect());
        holds("two requests", || exporter.requests().len() == 2).await;
        let (requests, heads, bodies) = (exporter.requests(), exporter.heads(), exporter.bodies());
        assert_eq!(requests[0].0, "POST /am/api/v2/alerts HTTP/1.1");
        for line in ["content-type: application/json", "user-agent: agent/1", "authorization: Basic dXNlcjpwYXNz"] {
            assert!(heads[0].lines().any(|given| given == line), "{line} in {}", heads[0]);
        }
        let labels = |name: &str| format!(r#""alertname":"{name}","env":"x","to":"\u003cx\u003e""#);
        let text = |index: usize| String::from_utf8(bodies[index].clone()).unwrap();
        assert_eq!(text(0), format!("[{},{}]", body(&labels("a")), body(&labels("b"))));
        assert_eq!(text(1), format!("[{}]", body(&labels("c"))));

        let metrics = alertmanagers.runtime.metrics.endpoint(&url);
        holds("all are counted", || metrics.sent.get() == 3).await;
        exporter.set(Behaviour::Status("500 Internal Server Error".to_owned()));
        router.send(vec![alert("refused")]);
        holds("a refusal is counted", || metrics.errors.get() == 1).await;
        assert_eq!((metrics.sent.get(), metrics.dropped.get()), (3, 1));
        assert_eq!(exporter.connections(), 1);
    });
}

#[test]
fn a_reload_changes_only_what_differs() {
    live(async {
        let scene = Scene::new(&tree(), "reloaded");
        let (kept, gone) = (Exporter::start(""), Exporter::start(""));
        gone.set(Behaviour::Hang);
        let alertmanagers = Alertmanagers::new(&scene, LIMITS);
        let manager = alertmanagers.spawn_manager(&scene, "reloaded manager", &config(&[&kept.addr, &gone.addr]));
        assert_eq!(manager.ask(ApplyNotifiers, within(30)).await, Ok(Vec::new()));
        let router = alertmanagers.router();
        ["a", "b", "c"].into_iter().for_each(|name| router.send(vec![alert(name)]));
        holds("one is under way", || gone.requests().len() == 1 && kept.requests().len() == 3).await;
        let shown = || {
            scene.registry.gather().iter().any(|family| {
                family.metrics.iter().any(|(labels, _)| labels.get("alertmanager") == Some(&url(&gone.addr)))
            })
        };
        assert!(shown());

        // The manager panics before it has seen the change, and adopts its notifiers.
        let armed = arm("notifier_manager", Some("reloaded manager"), Point::Handler, 1);
        alertmanagers.configure(&config(&[&kept.addr]));
        assert!(manager.ask(ApplyNotifiers, within(30)).await.is_err());
        assert_eq!(armed.left(), 0);
        assert_eq!(manager.ask(ApplyNotifiers, within(30)).await, Ok(Vec::new()));
        assert_eq!(alertmanagers.deps.overview.active(), [url(&kept.addr)]);
        router.send(vec![alert("d")]);
        holds("the kept one goes on", || kept.requests().len() == 4).await;
        assert_eq!(kept.connections(), 1);

        // It comes back before the one that is gone has ended: with a queue of its own.
        alertmanagers.configure(&config(&[&kept.addr, &gone.addr]));
        assert_eq!(manager.ask(ApplyNotifiers, within(30)).await, Ok(Vec::new()));
        gone.set(Behaviour::Body(String::new()));
        router.send(vec![alert("e")]);
        holds("the new one sends", || names(&gone).contains(&vec!["e".to_owned()])).await;
        assert!(names(&gone).contains(&vec!["a".to_owned()]) && !names(&gone).contains(&vec!["d".to_owned()]));
        assert_eq!(scene.count("notifier"), 3);
    });
}

#[test]
fn a_notifier_that_is_gone_sends_what_it_has_and_its_figures_go() {
    live(async {
        let scene = Scene::new(&tree(), "gone");
        let exporter = Exporter::start("");
        let alertmanagers = Alertmanagers::new(&scene, LIMITS);
        let manager = alertmanagers.spawn_manager(&scene, "manager of one", &config(&[&exporter.addr]));
        assert_eq!(manager.ask(ApplyNotifiers, within(30)).await, Ok(Vec::new()));
        alertmanagers.router().send(["a", "b", "c"].into_iter().map(alert).collect());
        alertmanagers.configure("global: {}");
        assert_eq!(manager.ask(ApplyNotifiers, within(30)).await, Ok(Vec::new()));
        holds("it has ended", || scene.count("notifier") == 0).await;
        assert_eq!(names(&exporter), [["a"], ["b"], ["c"]]);
        let shown = || {
            scene
                .registry
                .gather()
                .iter()
                .any(|family| family.metrics.iter().any(|(labels, _)| labels.get("alertmanager").is_some()))
        };
        holds("its figures are gone", || !shown()).await;
    });
}

#[test]
fn a_queue_that_is_not_to_be_drained_is_dropped_and_counted() {
    live(async {
        let scene = Scene::new(&tree(), "undrained");
        let exporter = Exporter::start("");
        exporter.set(Behaviour::Hang);
        let alertmanagers = Alertmanagers::ending(&scene, LIMITS, false);
        let handle = alertmanagers.spawn_notifier(&scene, "undrained notifier", &exporter.addr);
        handle.push(&["a", "b", "c"].map(|name| Arc::new(alert(name))));
        holds("one is under way", || exporter.requests().len() == 1).await;
        handle.actor.signal(Drain { deadline: Instant::now() + std::time::Duration::from_millis(500) }).unwrap();
        handle.actor.ended().await;
        handle.push(&[Arc::new(alert("late"))]);
        let metrics = alertmanagers.metrics(&exporter.addr);
        assert_eq!((metrics.errors.get(), metrics.dropped.get(), metrics.sent.get()), (1, 4, 0));
        assert_eq!(names(&exporter), [["a"]]);
    });
}
