//! A scrape pool with real targets and a real head: what changes of a job do to targets that stay, and its limits.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix::Arbiter;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::Instant;
use watchfire::actors::kind;
use watchfire::actors::mailbox::BoundedAddr;
use watchfire::actors::policy::Policy;
use watchfire::actors::pool::{ComputePool, PoolOptions};
use watchfire::actors::registry::ActorTree;
use watchfire::actors::root::{self, Root};
use watchfire::actors::scrape_manager::{ApplyJobs, ManagerDeps, ScrapeManager};
use watchfire::actors::scrape_pool::{JobSpec, PoolView, TargetGroup};
use watchfire::actors::scrape_target::{ScrapeRuntime, TickMetrics};
use watchfire::actors::storage_client::StorageClient;
use watchfire::actors::storage_shard::{ShardDeps, StorageShard};
use watchfire::actors::supervision::{self, Place};
use watchfire::client::{ClientOptions, HttpClient};
use watchfire::config::{Action, RelabelConfig};
use watchfire::model::clock::SystemClock;
use watchfire::model::duration::PromDuration;
use watchfire::model::labels::Labels;
use watchfire::model::matcher::Matcher;
use watchfire::model::read::{FloatColumn, Unlimited};
use watchfire::model::sample::is_stale;
use watchfire::model::time::TimeRange;
use watchfire::scrape::metrics::ScrapeMetrics;
use watchfire::scrape::pool_metrics::PoolMetrics;
use watchfire::scrape::schedule::{Fnv64, Schedule, offset_seed};
use watchfire::scrape::settings::{NewSeriesLimit, ScrapeLimits, ScrapeSettings};
use watchfire::scrape::staging::StagingBudget;
use watchfire::scrape::target::TargetDefaults;
use watchfire::storage::head::{Head, HeadOptions};
use watchfire::telemetry::metrics::{MetricValue, Registry};

/// An exporter; counts its requests.
async fn exporter() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, requests) = (listener.local_addr().unwrap().to_string(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&requests);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let counted = Arc::clone(&counted);
            tokio::spawn(async move { serve(&mut stream, &counted).await });
        }
    });
    (address, requests)
}

async fn serve(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), counted: &AtomicUsize) {
    let mut seen = Vec::new();
    while let Ok(byte) = stream.read_u8().await {
        seen.push(byte);
        if seen.ends_with(b"\r\n\r\n") {
            seen.clear();
            counted.fetch_add(1, Ordering::SeqCst);
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 8\r\n\r\n";
            let answer = format!("{head}a 1\nb 2\n");
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

struct Stage {
    registry: Arc<Registry>,
    runtime: Arc<ScrapeRuntime>,
    deps: Arc<ManagerDeps>,
    manager: BoundedAddr<ScrapeManager>,
    head: Arc<Head>,
    _root: Root,
}

impl Stage {
    fn new(new_series: NewSeriesLimit) -> Self {
        let (registry, clock) = (Registry::shared(), SystemClock::shared());
        let tree = ActorTree::new(kind::ALL, &registry, clock.clone(), 1);
        let arbiter = Arbiter::current();
        let root = root::start(&arbiter, Place::root(&tree, "root"));
        let pool = Arc::new(ComputePool::start(PoolOptions::for_cores(1), &registry).unwrap());
        let head = Arc::new(Head::new(HeadOptions::new(clock.clone())));
        let shard = Arc::new(ShardDeps {
            head: Arc::clone(&head),
            shard: Arc::clone(&head.shards()[0]),
            log: Arc::default(),
            pool,
        });
        let place = root.parent().place("shard-0");
        let shard =
            supervision::spawn(&arbiter, Policy::PERMANENT, place, move |_| StorageShard::new(Arc::clone(&shard)));
        let runtime = Arc::new(ScrapeRuntime {
            policy: watchfire::actors::policy::Policy::PERMANENT,
            storage: StorageClient::new(Arc::clone(&head), Arc::default(), &[shard]),
            staging: StagingBudget::new(0),
            limits: ScrapeLimits::for_memory(0),
            new_series,
            metrics: ScrapeMetrics::new(&registry),
            pools: PoolMetrics::new(&registry, &clock),
            ticks: TickMetrics::new(&registry),
            clock,
            tolerance: watchfire::scrape::schedule::TOLERANCE,
            offset_seed: 0.into(),
        });
        let deps = ManagerDeps::new(Vec::new(), Arc::clone(&runtime), Arc::from([arbiter.clone()]));
        let for_actor = Arc::clone(&deps);
        let manager = supervision::spawn(&arbiter, Policy::PERMANENT, root.parent().place("scrape"), move |_| {
            ScrapeManager::new(Arc::clone(&for_actor))
        });
        Self { registry, runtime, deps, manager, head, _root: root }
    }

    async fn apply(&self, jobs: Vec<JobSpec>) {
        *self.deps.jobs.lock() = jobs;
        let unconfirmed = self.manager.ask(ApplyJobs, Instant::now() + Duration::from_secs(30)).await.unwrap();
        assert!(unconfirmed.is_empty(), "{unconfirmed:?}");
    }

    fn view(&self) -> Arc<PoolView> {
        self.deps.overview.pools().remove(0)
    }

    /// Waits until every target of the pool was scraped and the last error of each is as said.
    async fn reaches(&self, error: &str) {
        let start = Instant::now();
        loop {
            let states: Vec<_> = self.view().active.iter().map(|target| target.status()).collect();
            let reached = states.iter().all(|status| status.last_scrape_nanos.is_some() && status.last_error == error);
            if reached && !states.is_empty() {
                return;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "{states:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// All values of the series of a metric.
    fn values(&self, metric: &str) -> Vec<f64> {
        let view = self.head.queryable().view().unwrap();
        let selected = view.select(&[Matcher::equal("__name__", metric)], TimeRange::ALL, &Unlimited).unwrap();
        let mut column = FloatColumn::default();
        selected.iter().for_each(|series| series.samples.decode(TimeRange::ALL, &mut column).unwrap());
        column.values
    }

    fn number(&self, name: &str) -> Option<f64> {
        let family = self.registry.gather().into_iter().find(|family| family.name == name)?;
        match family.metrics.first()?.1 {
            MetricValue::Number(value) => Some(value),
            ref other => panic!("{name}: {other:?}"),
        }
    }
}

fn job(revision: u64, targets: Vec<Labels>) -> JobSpec {
    JobSpec {
        name: "j".into(),
        revision,
        generation: 1,
        removed: false,
        defaults: TargetDefaults {
            job_name: "j".into(),
            // Long enough for a scrape on a busy machine; a test waits for the first one only.
            scrape_interval: PromDuration::parse("2s").unwrap(),
            scrape_timeout: PromDuration::parse("2s").unwrap(),
            metrics_path: "/metrics".into(),
            scheme: "http".into(),
            params: Vec::new(),
            convert_classic_histograms_to_nhcb: false,
            always_scrape_classic_histograms: false,
            scrape_native_histograms: false,
        },
        settings: Arc::new(ScrapeSettings::default()),
        relabel: Arc::from([]),
        metric_relabel: None,
        client: HttpClient::new(ClientOptions { user_agent: "test".into(), follow_redirects: true }),
        target_limit: 0,
        keep_dropped: 0,
        groups: Arc::from([TargetGroup { source: "0".into(), targets, labels: Labels::empty() }]),
    }
}

#[test]
fn a_target_may_be_a_socket_of_the_machine() {
    actix::System::new().block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let sockets = ["one", "two"].map(|name| folder.path().join(name));
        let mut asked = Vec::new();
        for path in &sockets {
            let (listener, count) = (tokio::net::UnixListener::bind(path).unwrap(), Arc::new(AtomicUsize::new(0)));
            asked.push(Arc::clone(&count));
            tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    let count = Arc::clone(&count);
                    tokio::spawn(async move { serve(&mut stream, &count).await });
                }
            });
        }
        // The address is a name that does not exist, and the same for both: each has connections of its own.
        let target = |path: &std::path::Path| {
            let (path, name) = (path.to_string_lossy(), path.file_name().unwrap().to_string_lossy());
            let socket = [("__address__", "nowhere.test:1"), ("__unix_socket__", &*path), ("instance", &*name)];
            Labels::from_pairs(socket)
        };
        let stage = Stage::new(NewSeriesLimit::Automatic);
        stage.apply(vec![job(1, sockets.iter().map(|path| target(path)).collect())]).await;
        stage.reaches("").await;
        assert!(asked.iter().all(|count| 0 < count.load(Ordering::SeqCst)));
    });
}

#[test]
fn over_the_target_limit_no_target_is_scraped() {
    actix::System::new().block_on(async {
        let (address, requests) = exporter().await;
        let target = |name: &str| Labels::from_pairs([("__address__", address.as_str()), ("instance", name)]);
        let stage = Stage::new(NewSeriesLimit::Automatic);
        stage.apply(vec![JobSpec { target_limit: 1, ..job(1, vec![target("a"), target("b")]) }]).await;
        stage.reaches("target_limit exceeded (number of targets: 2, limit: 1)").await;
        assert_eq!(requests.load(Ordering::SeqCst), 0);
        assert_eq!(stage.number("prometheus_target_scrape_pool_exceeded_target_limit_total"), Some(1.0));
        assert_eq!(stage.number("prometheus_target_scrape_pool_target_limit"), Some(1.0));
        // The targets that stay are scraped as soon as the limit allows it.
        stage.apply(vec![JobSpec { target_limit: 2, ..job(2, vec![target("a"), target("b")]) }]).await;
        stage.reaches("").await;
        assert!(2 <= requests.load(Ordering::SeqCst));
        assert_eq!(stage.number("prometheus_target_scrape_pool_targets"), Some(2.0));
        assert_eq!(stage.number("prometheus_target_scrape_pool_reloads_total"), Some(1.0));
        stage.apply(Vec::new()).await;
        assert_eq!(stage.number("prometheus_target_scrape_pool_targets"), None, "figures go with the pool");
        assert_eq!(stage.number("prometheus_target_scrape_pools_total"), Some(1.0));
    });
}

#[test]
fn a_target_of_which_only_discovered_labels_change_goes_on() {
    actix::System::new().block_on(async {
        let (address, _) = exporter().await;
        let target = |zone: &str| {
            let labels = Labels::from_pairs([("__address__", address.as_str()), ("__meta_zone", zone)]);
            vec![labels]
        };
        let stage = Stage::new(NewSeriesLimit::Automatic);
        stage.apply(vec![job(1, target("a"))]).await;
        stage.reaches("").await;
        let before = Arc::clone(&stage.view().active[0]);
        assert_eq!(before.discovered().get("__meta_zone"), Some("a"));
        stage.apply(vec![job(2, target("b"))]).await;
        let after = Arc::clone(&stage.view().active[0]);
        assert!(Arc::ptr_eq(&before, &after), "its memory of series stays");
        assert_eq!(after.discovered().get("__meta_zone"), Some("b"));
    });
}

#[test]
fn series_that_a_changed_job_still_has_go_on_and_the_others_end() {
    actix::System::new().block_on(async {
        let (address, _) = exporter().await;
        let targets = || vec![Labels::from_pairs([("__address__", address.as_str())])];
        let stage = Stage::new(NewSeriesLimit::Automatic);
        stage.apply(vec![job(1, targets())]).await;
        stage.reaches("").await;
        let only_a: Arc<watchfire::scrape::settings::MetricRelabel> =
            Arc::new(|labels: Labels| (labels.metric_name() == "a").then_some(labels));
        let changed = JobSpec { generation: 2, metric_relabel: Some(only_a), ..job(2, targets()) };
        stage.apply(vec![changed]).await;
        assert_eq!(stage.view().active[0].status().last_error, "", "the last outcome is shown until the next");
        let start = Instant::now();
        while !stage.values("b").last().copied().is_some_and(is_stale) {
            assert!(start.elapsed() < Duration::from_secs(60), "{:?}", stage.values("b"));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(2 <= stage.values("a").len());
        assert!(stage.values("a").iter().all(|value| *value == 1.0), "{:?}", stage.values("a"));
        assert!(stage.values("up").iter().all(|value| *value == 1.0), "{:?}", stage.values("up"));
    });
}

#[test]
fn too_many_new_series_count_as_a_failed_scrape() {
    actix::System::new().block_on(async {
        let (address, _) = exporter().await;
        let stage = Stage::new(NewSeriesLimit::Fixed(1));
        stage.apply(vec![job(1, vec![Labels::from_pairs([("__address__", address.as_str())])])]).await;
        stage.reaches("scrape has more than 1 new series; see --watchfire.limit.scrape.new-series").await;
    });
}

#[test]
fn new_targets_take_the_seed_that_external_labels_give_and_others_keep_theirs() {
    actix::System::new().block_on(async {
        let target = |name: &str| Labels::from_pairs([("__address__", "127.0.0.1:9"), ("instance", name)]);
        let schedules =
            |stage: &Stage| -> Vec<Schedule> { stage.view().active.iter().map(|target| target.schedule).collect() };
        let stage = Stage::new(NewSeriesLimit::Automatic);
        stage.apply(vec![job(1, vec![target("a")])]).await;
        let before = schedules(&stage);
        let seed = offset_seed("host", &Labels::from_pairs([("replica", "b")]));
        assert_eq!(seed, Fnv64::new().with(b"host{replica=\"b\"}").finish(), "as Prometheus writes them");
        stage.runtime.offset_seed.store(seed, Ordering::SeqCst);
        stage.apply(vec![job(2, vec![target("a"), target("b")])]).await;
        let (after, view) = (schedules(&stage), stage.view());
        assert_eq!(after[0], before[0], "a target that stays keeps its due times");
        let interval = view.active[1].schedule.interval();
        let of = |seed: u64| Schedule::new(interval, view.active[1].target.hash(), seed).among(2);
        assert_eq!(after[1], of(seed));
        assert_ne!(after[1], of(0));
    });
}

#[test]
fn bad_targets_are_counted() {
    actix::System::new().block_on(async {
        let stage = Stage::new(NewSeriesLimit::Automatic);
        let bad = || vec![Labels::from_pairs([("__address__", "h/x")]), Labels::empty()];
        stage.apply(vec![job(1, bad())]).await;
        stage.apply(vec![job(2, bad())]).await;
        assert!(stage.view().active.is_empty());
        let synced = stage.number("prometheus_target_scrape_pool_sync_total").unwrap();
        assert_eq!(stage.number("prometheus_target_sync_failed_total"), Some(2.0 * synced));
    });
}

#[test]
fn dropped_targets_are_counted_and_as_many_are_kept_as_is_asked_for() {
    actix::System::new().block_on(async {
        let stage = Stage::new(NewSeriesLimit::Automatic);
        let targets = || ["a:1", "b:2", "c:3"].map(|address| Labels::from_pairs([("__address__", address)])).to_vec();
        let drop_all: Arc<[RelabelConfig]> =
            Arc::from([RelabelConfig { action: Action::Drop, ..RelabelConfig::default() }]);
        for (revision, keep_dropped, kept) in [(1, 0, 3), (2, 2, 2), (3, 9, 3)] {
            let relabel = Arc::clone(&drop_all);
            stage.apply(vec![JobSpec { keep_dropped, relabel, ..job(revision, targets()) }]).await;
            let view = stage.view();
            assert_eq!((view.active.len(), view.dropped_count, view.dropped.len()), (0, 3, kept), "{keep_dropped}");
            assert_eq!(view.dropped[0].get("__address__"), Some("a:1"));
        }
    });
}
