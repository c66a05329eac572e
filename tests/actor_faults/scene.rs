//! Real surroundings for the actors of the server: a head in memory with its shards, an exporter on a port of its own,
//! jobs that scrape it. Everything runs on the test's own thread and on the machine's clock; waits are for conditions.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix::Arbiter;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::Instant;
use watchfire::actors::config_reloader::{
    ConfigReloader, PreparedReload, ReloadPlan, ReloadReport, ReloadSource, ReloaderDeps,
};
use watchfire::actors::mailbox::BoundedAddr;
use watchfire::actors::policy::Policy;
use watchfire::actors::pool::{ComputePool, Lane, LaneOptions, PoolOptions};
use watchfire::actors::query_gateway::{GatewayDeps, QueryGateway, QueryLimits, QueryOutcome, QuerySpan, RunQuery};
use watchfire::actors::registry::ActorTree;
use watchfire::actors::scrape_manager::{ManagerDeps, ScrapeManager};
use watchfire::actors::scrape_pool::{JobSpec, PoolDeps, ScrapePool, TargetGroup};
use watchfire::actors::scrape_target::{ScrapeRuntime, ScrapeTarget, TargetShared, TickMetrics};
use watchfire::actors::storage_client::StorageClient;
use watchfire::actors::storage_shard::{ShardDeps, StorageShard};
use watchfire::actors::supervision::{self, Place};
use watchfire::client::{ClientOptions, HttpClient};
use watchfire::model::append::{AppendBatch, AppendSample, SeriesKey};
use watchfire::model::clock::{Clock, SharedClock, SystemClock};
use watchfire::model::duration::PromDuration;
use watchfire::model::labels::Labels;
use watchfire::model::matcher::Matcher;
use watchfire::model::read::{FloatColumn, ReadError, Unlimited};
use watchfire::model::result::QueryValue;
use watchfire::model::time::{TimeRange, TimestampMs};
use watchfire::promql::eval::EngineOptions;
use watchfire::promql::parser::ParseOptions;
use watchfire::scrape::metrics::ScrapeMetrics;
use watchfire::scrape::pool_metrics::PoolMetrics;
use watchfire::scrape::settings::{NewSeriesLimit, SamplePlan, ScrapeLimits, ScrapeSettings};
use watchfire::scrape::staging::StagingBudget;
use watchfire::scrape::target::{Resolved, TargetDefaults, discovered_labels, resolve};
use watchfire::storage::head::{Head, HeadOptions};
use watchfire::telemetry::metrics::Registry;

/// As `Policy::PERMANENT` with delays of milliseconds, so that a budget is used up in no time.
pub(crate) const QUICK: Policy = Policy { delay_first_ms: 1, delay_max_ms: 8, ..Policy::PERMANENT };

/// Longest wait for anything; generous, as machines are slow at times.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a test on the machine's clock, for actors that talk to other threads.
pub(crate) fn live<T>(test: impl Future<Output = T>) -> T {
    actix::System::new().block_on(test)
}

/// Waits until the condition holds.
pub(crate) async fn holds(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "gave up waiting until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A head with its shards, and what scrapes and queries need.
pub(crate) struct Scene {
    pub(crate) tree: Arc<ActorTree>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) clock: SharedClock,
    pub(crate) head: Arc<Head>,
    pub(crate) shards: Vec<BoundedAddr<StorageShard>>,
    pub(crate) storage: StorageClient,
    pub(crate) pool: Arc<ComputePool>,
    pub(crate) runtime: Arc<ScrapeRuntime>,
    /// Stands before the names of its actors, as failpoints know actors by name.
    name: String,
}

impl Scene {
    /// A head of one shard that is called `<name> shard 0`.
    pub(crate) fn new(tree: &Arc<ActorTree>, name: &str) -> Self {
        Self::with_shards(tree, name, 1, QUICK)
    }

    pub(crate) fn with_shards(tree: &Arc<ActorTree>, name: &str, count: u16, policy: Policy) -> Self {
        let (registry, clock) = (Registry::shared(), SystemClock::shared());
        let head = Arc::new(Head::new(HeadOptions { shards: count, ..HeadOptions::new(SharedClock::clone(&clock)) }));
        let lane = LaneOptions { queue_max: 64, reserved_threads: 0 };
        let options = PoolOptions { name: "scene", shared_threads: 2, lanes: [lane; 3] };
        let pool = Arc::new(ComputePool::start(options, &registry).expect("threads"));
        let spawn = |(index, shard): (usize, &Arc<watchfire::storage::head::shard::Shard>)| {
            let deps = Arc::new(ShardDeps {
                head: Arc::clone(&head),
                shard: Arc::clone(shard),
                log: Arc::default(),
                pool: Arc::clone(&pool),
            });
            let place = Place::root(tree, format!("{name} shard {index}"));
            supervision::spawn(&Arbiter::current(), policy, place, move |_| StorageShard::new(Arc::clone(&deps)))
        };
        let shards: Vec<_> = head.shards().iter().enumerate().map(spawn).collect();
        let storage = StorageClient::new(Arc::clone(&head), Arc::default(), &shards);
        let runtime = Arc::new(ScrapeRuntime {
            storage: storage.clone(),
            staging: StagingBudget::new(64 << 20),
            limits: ScrapeLimits { body_len_max: 8 << 20, line_len_max: 1 << 20, new_series_max: 0 },
            new_series: NewSeriesLimit::Fixed(0),
            pools: PoolMetrics::new(&registry, &clock),
            metrics: ScrapeMetrics::new(&registry),
            ticks: TickMetrics::new(&registry),
            clock: SharedClock::clone(&clock),
            offset_seed: 7.into(),
            policy: QUICK,
        });
        let (tree, name) = (Arc::clone(tree), name.to_owned());
        Self { tree, registry, clock, head, shards, storage, pool, runtime, name }
    }

    /// A target of `address` under `path`, not yet spawned.
    pub(crate) fn target(&self, address: &str, path: &str, interval_ms: u64) -> Arc<TargetShared> {
        let spec = job("scene", address, &[path], interval_ms);
        let group = &spec.groups[0];
        let discovered = discovered_labels(&spec.defaults, &group.targets[0], &group.labels);
        let Ok(Resolved::Target(target)) = resolve(&spec.defaults, discovered, Some) else { panic!("no target") };
        let plan =
            SamplePlan { target_labels: target.labels.clone(), settings: Arc::clone(&spec.settings), relabel: None };
        TargetShared::new(*target, spec.generation, plan, spec.client, Arc::clone(&self.runtime))
    }

    pub(crate) fn spawn_target(
        &self,
        name: &str,
        shared: &Arc<TargetShared>,
        policy: Policy,
    ) -> BoundedAddr<ScrapeTarget> {
        let shared = Arc::clone(shared);
        let place = Place::root(&self.tree, name);
        supervision::spawn(&Arbiter::current(), policy, place, move |_| ScrapeTarget::new(Arc::clone(&shared)))
    }

    pub(crate) fn spawn_pool(&self, name: &str, spec: JobSpec) -> (BoundedAddr<ScrapePool>, Arc<PoolDeps>) {
        let deps = PoolDeps::new(spec, Arc::clone(&self.runtime), Arc::from([Arbiter::current()]));
        let for_actor = Arc::clone(&deps);
        let place = Place::root(&self.tree, name);
        let make = move |_: &mut _| ScrapePool::new(Arc::clone(&for_actor));
        (supervision::spawn(&Arbiter::current(), QUICK, place, make), deps)
    }

    pub(crate) fn spawn_manager(
        &self,
        name: &str,
        jobs: Vec<JobSpec>,
    ) -> (BoundedAddr<ScrapeManager>, Arc<ManagerDeps>) {
        let deps = ManagerDeps::new(jobs, Arc::clone(&self.runtime), Arc::from([Arbiter::current()]));
        let for_actor = Arc::clone(&deps);
        let place = Place::root(&self.tree, name);
        let make = move |_: &mut _| ScrapeManager::new(Arc::clone(&for_actor));
        (supervision::spawn(&Arbiter::current(), QUICK, place, make), deps)
    }

    pub(crate) fn spawn_gateway(&self, name: &str) -> BoundedAddr<QueryGateway> {
        self.spawn_gateway_at(Place::root(&self.tree, name), self.storage.queryable())
    }

    pub(crate) fn spawn_gateway_at(
        &self,
        place: Place,
        queryable: Arc<dyn watchfire::model::read::Queryable>,
    ) -> BoundedAddr<QueryGateway> {
        let limits = QueryLimits {
            timeout: Duration::from_secs(30),
            concurrency_max: 2,
            query_bytes_max: 0,
            total_bytes_max: 0,
        };
        let language = (EngineOptions::default(), ParseOptions::default());
        let (pool, clock) = (Arc::clone(&self.pool), SharedClock::clone(&self.clock));
        let deps = GatewayDeps::new(queryable, pool, clock, language, limits, &self.registry);
        supervision::spawn(&Arbiter::current(), QUICK, place, move |_| QueryGateway::new(Arc::clone(&deps)))
    }

    /// A reloader that looks for changed files all the time.
    pub(crate) fn spawn_reloader(
        &self,
        name: &str,
        source: Arc<FakeSource>,
    ) -> (BoundedAddr<ConfigReloader>, Arc<ReloaderDeps>) {
        let look_every = Some(Duration::from_millis(5));
        let deps = ReloaderDeps::new(source, Arc::clone(&self.pool), SharedClock::clone(&self.clock), look_every);
        let for_actor = Arc::clone(&deps);
        let place = Place::root(&self.tree, name);
        let make = move |_: &mut _| ConfigReloader::new(Arc::clone(&for_actor));
        (supervision::spawn(&Arbiter::current(), QUICK, place, make), deps)
    }

    /// All samples of the series that fulfil the matchers: label set, times, values; by label set.
    pub(crate) fn samples(&self, matchers: &[Matcher]) -> Result<Vec<(Labels, FloatColumn)>, ReadError> {
        let view = self.head.queryable().view()?;
        let selected = view.select(matchers, TimeRange::ALL, &Unlimited)?;
        let mut found = Vec::with_capacity(selected.len());
        for series in selected {
            let mut column = FloatColumn::default();
            series.samples.decode(TimeRange::ALL, &mut column)?;
            found.push((series.labels, column));
        }
        Ok(found)
    }

    /// The last value of each series of a metric.
    pub(crate) fn last(&self, metric: &str) -> Vec<f64> {
        let found = self.samples(&[Matcher::equal("__name__", metric)]).unwrap_or_default();
        found.into_iter().filter_map(|(_, column)| column.values.last().copied()).collect()
    }

    pub(crate) fn now(&self) -> TimestampMs {
        Clock::now(&*self.clock)
    }

    /// How many actors of a kind the tree has.
    pub(crate) fn count(&self, kind: &str) -> usize {
        self.tree.rows().iter().filter(|row| row.kind == kind).count()
    }

    /// The name of the scene's shard in the tree.
    pub(crate) fn shard_name(&self, index: usize) -> String {
        format!("{} shard {index}", self.name)
    }
}

/// A configuration of which nothing but its reloads is known.
#[derive(Default)]
pub(crate) struct FakeSource {
    /// Digest of the files; another one than that in effect asks for a reload.
    pub(crate) on_disk: Mutex<String>,
    pub(crate) in_effect: Mutex<String>,
    /// Why the files are no good, if they are not.
    pub(crate) fault: Mutex<Option<String>>,
    pub(crate) reports: Mutex<Vec<ReloadReport>>,
    /// How often somebody looked at the files.
    pub(crate) looks: AtomicUsize,
    /// While this is held, applying waits.
    pub(crate) gate: Arc<tokio::sync::Mutex<()>>,
}

struct FakePrepared {
    gate: Arc<tokio::sync::Mutex<()>>,
}

impl ReloadSource for FakeSource {
    fn began(&self) {}

    fn prepare(&self) -> Result<Box<dyn PreparedReload>, String> {
        match self.fault.lock().clone() {
            Some(fault) => Err(fault),
            None => {
                self.in_effect.lock().clone_from(&self.on_disk.lock());
                Ok(Box::new(FakePrepared { gate: Arc::clone(&self.gate) }))
            }
        }
    }

    fn digest(&self) -> Result<String, String> {
        self.looks.fetch_add(1, Ordering::SeqCst);
        Ok(self.on_disk.lock().clone())
    }

    fn loaded_digest(&self) -> String {
        self.in_effect.lock().clone()
    }

    fn ended(&self, report: &ReloadReport) {
        self.reports.lock().push(report.clone());
    }

    fn not_applied(&self) -> String {
        "not applied".to_owned()
    }
}

impl PreparedReload for FakePrepared {
    fn plan(&self) -> Arc<ReloadPlan> {
        Arc::default()
    }

    fn apply(self: Box<Self>) -> BoxFuture<'static, Vec<String>> {
        Box::pin(async move {
            let _open = self.gate.lock().await;
            Vec::new()
        })
    }
}

/// Series of one metric that differ in `n`, one sample each.
pub(crate) fn batch(metric: &str, numbers: impl IntoIterator<Item = u32>, at: TimestampMs, value: f64) -> AppendBatch {
    let sample = |n: u32| {
        let series = SeriesKey::Labels(Labels::from_pairs([("__name__", metric), ("n", &n.to_string())]));
        AppendSample { series, at, value }
    };
    AppendBatch { samples: numbers.into_iter().map(sample).collect() }
}

/// A job whose targets share an address and differ in their path.
pub(crate) fn job(name: &str, address: &str, paths: &[&str], interval_ms: u64) -> JobSpec {
    let target =
        |path: &&str| Labels::from_pairs([("__address__", address), ("__metrics_path__", path), ("path", path)]);
    let group =
        TargetGroup { source: "0".to_owned(), targets: paths.iter().map(target).collect(), labels: Labels::empty() };
    JobSpec {
        name: name.to_owned(),
        revision: 1,
        generation: 1,
        removed: false,
        defaults: TargetDefaults {
            job_name: name.to_owned(),
            scrape_interval: PromDuration::from_ms(interval_ms),
            scrape_timeout: PromDuration::from_ms(interval_ms),
            metrics_path: "/metrics".to_owned(),
            scheme: "http".to_owned(),
            params: Vec::new(),
            convert_classic_histograms_to_nhcb: false,
            always_scrape_classic_histograms: false,
            scrape_native_histograms: false,
        },
        settings: Arc::new(ScrapeSettings::default()),
        relabel: Arc::from([]),
        metric_relabel: None,
        client: HttpClient::new(ClientOptions { user_agent: "scene".to_owned(), follow_redirects: true }),
        target_limit: 0,
        keep_dropped: 0,
        groups: Arc::from([group]),
    }
}

/// An instant query of a user.
pub(crate) fn instant(text: &str, at: TimestampMs) -> RunQuery {
    let (text, span) = (text.to_owned(), QuerySpan::Instant { at });
    RunQuery { text, span, timeout: None, lookback_ms: None, lane: Lane::Queries }
}

/// The values of an instant vector or a scalar.
pub(crate) fn values(outcome: &QueryOutcome) -> Vec<f64> {
    match &outcome.evaluated.value {
        QueryValue::Scalar(point) => vec![point.value],
        QueryValue::Vector(elements) => elements.iter().map(|element| element.point.value).collect(),
        other => panic!("neither scalar nor vector: {other:?}"),
    }
}
