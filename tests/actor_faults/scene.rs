//! Real surroundings for the actors of the server: a head in memory with its shards, an exporter on a port of its own,
//! jobs that scrape it. Everything runs on the test's own thread; waits are for conditions. The clock is the machine's
//! ([`live`]), or one that stands while others work and moves by hand ([`stepped`]), so that due times can be counted
//! however slow the machine is.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use actix::Arbiter;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::Instant;
use watchfire::actors::alert_sink::AlertSink;
use watchfire::actors::config_reloader::{
    ConfigReloader, PreparedReload, ReloadPlan, ReloadReport, ReloadSource, ReloaderDeps,
};
use watchfire::actors::discovery::{Consumer, DiscoveryDeps, DiscoveryManager};
use watchfire::actors::discovery_provider::{DiscoveryProvider, ProviderDeps};
use watchfire::actors::mailbox::BoundedAddr;
use watchfire::actors::policy::Policy;
use watchfire::actors::pool::{ComputePool, Lane, LaneOptions, PoolOptions};
use watchfire::actors::query_gateway::{
    GatewayDeps, QueryClient, QueryGateway, QueryLimits, QueryOutcome, QuerySpan, RunQuery,
};
use watchfire::actors::query_log::QueryOrigin;
use watchfire::actors::registry::{ActorState, ActorTree};
use watchfire::actors::rule_group::{GroupDeps, RuleGroup, RuleRuntime};
use watchfire::actors::rule_manager::{self, RuleManager};
use watchfire::actors::scrape_manager::{ManagerDeps, ScrapeManager};
use watchfire::actors::scrape_pool::{JobSpec, PoolDeps, ScrapePool, TargetGroup};
use watchfire::actors::scrape_target::{ScrapeRuntime, ScrapeTarget, TargetShared, TickMetrics};
use watchfire::actors::storage_client::StorageClient;
use watchfire::actors::storage_shard::{Journal, ShardDeps, StorageShard};
use watchfire::actors::supervision::{self, Place};
use watchfire::client::{ClientOptions, HttpClient};
use watchfire::config::discovery::FileSd;
use watchfire::discovery::metrics::ManagerMetrics;
use watchfire::discovery::{ProviderConfig, ProviderKit};
use watchfire::model::alert::Alert;
use watchfire::model::append::{AppendBatch, AppendSample, SeriesKey};
use watchfire::model::clock::{Clock, ManualClock, SharedClock, SystemClock};
use watchfire::model::duration::PromDuration;
use watchfire::model::external_url::ExternalUrl;
use watchfire::model::labels::Labels;
use watchfire::model::matcher::Matcher;
use watchfire::model::read::{FloatColumn, ReadError, Unlimited};
use watchfire::model::result::QueryValue;
use watchfire::model::time::{TimeRange, TimestampMs};
use watchfire::promql::eval::EngineOptions;
use watchfire::promql::parser::ParseOptions;
use watchfire::rules::evaluate::Surroundings;
use watchfire::rules::metrics::RuleMetrics;
use watchfire::rules::restore::RestoreLimits;
use watchfire::rules::spec::{AlertSpec, GroupSpec, RuleKind, RuleSpec};
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

/// Runs a test on a clock that it moves by hand.
pub(crate) fn stepped<T>(test: impl AsyncFnOnce(Steps) -> T) -> T {
    crate::probe::paused(async {
        let (hold, held) = mpsc::channel::<()>();
        // A paused clock does not jump ahead by itself as long as a blocking task runs.
        let holder = tokio::task::spawn_blocking(move || held.recv().is_ok());
        let clock = ManualClock::at(TimestampMs(1_795_000_000_000));
        let outcome = test(Steps { clock, passed: Cell::default(), _hold: hold }).await;
        holder.await.expect("the holder waits and ends");
        outcome
    })
}

/// The clock of a [`stepped`] test: the one that actors ask and the one that their timers run on, moved together.
pub(crate) struct Steps {
    clock: Arc<ManualClock>,
    passed: Cell<Duration>,
    _hold: mpsc::Sender<()>,
}

impl Steps {
    pub(crate) fn clock(&self) -> SharedClock {
        SharedClock::clone(&(Arc::clone(&self.clock) as SharedClock))
    }

    /// Lets time pass in steps of a fortieth of `whole` until `whole` has passed since the last such end; after each step
    /// waits until all that has begun is done.
    pub(crate) async fn pass(&self, whole: Duration, idle: impl Fn() -> bool) {
        while self.passed.get() < whole {
            self.step((whole / 40).min(whole - self.passed.get())).await;
            self.holds("what has begun is done", &idle).await;
        }
        self.passed.set(Duration::ZERO);
    }

    /// Lets a millisecond pass at a time until the future is done.
    pub(crate) async fn until<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        loop {
            if let std::task::Poll::Ready(done) = futures::poll!(&mut future) {
                return done;
            }
            self.step(Duration::from_millis(1)).await;
        }
    }

    async fn step(&self, by: Duration) {
        self.clock.advance(by);
        self.passed.set(self.passed.get() + by);
        tokio::time::advance(by).await;
        // All is on this thread: whoever was woken has had its turn after some of these.
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    /// Waits until the condition holds; the clock stands meanwhile.
    pub(crate) async fn holds(&self, what: &str, condition: impl Fn() -> bool) {
        let begun = std::time::Instant::now();
        while !condition() {
            assert!(begun.elapsed() < PATIENCE, "gave up waiting until {what}");
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            // Peers are threads; they have their turn as well.
            std::thread::yield_now();
        }
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
    /// What the shards write to; empty until a test sets it.
    pub(crate) log: Arc<OnceLock<Journal>>,
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

    /// The same on a clock that the test moves.
    pub(crate) fn on(steps: &Steps, tree: &Arc<ActorTree>, name: &str) -> Self {
        Self::with_clock(tree, name, 1, QUICK, steps.clock())
    }

    /// The same with shards under a policy of their own.
    pub(crate) fn resting_on(steps: &Steps, tree: &Arc<ActorTree>, name: &str, policy: Policy) -> Self {
        Self::with_clock(tree, name, 1, policy, steps.clock())
    }

    pub(crate) fn with_shards(tree: &Arc<ActorTree>, name: &str, count: u16, policy: Policy) -> Self {
        Self::with_clock(tree, name, count, policy, SystemClock::shared())
    }

    fn with_clock(tree: &Arc<ActorTree>, name: &str, count: u16, policy: Policy, clock: SharedClock) -> Self {
        let registry = Registry::shared();
        let head = Arc::new(Head::new(HeadOptions { shards: count, ..HeadOptions::new(SharedClock::clone(&clock)) }));
        let lane = LaneOptions { queue_max: 64, reserved_threads: 0 };
        let quick = LaneOptions { reserved_threads: 1, ..lane };
        let options = PoolOptions { name: "scene", shared_threads: 2, lanes: [lane, lane, lane, quick] };
        let pool = Arc::new(ComputePool::start(options, &registry).expect("threads"));
        let log = Arc::<OnceLock<Journal>>::default();
        let spawn = |(index, shard): (usize, &Arc<watchfire::storage::head::shard::Shard>)| {
            let deps = Arc::new(ShardDeps {
                head: Arc::clone(&head),
                shard: Arc::clone(shard),
                log: Arc::clone(&log),
                pool: Arc::clone(&pool),
            });
            let place = Place::root(tree, format!("{name} shard {index}"));
            supervision::spawn(&Arbiter::current(), policy, place, move |_| StorageShard::new(Arc::clone(&deps)))
        };
        let shards: Vec<_> = head.shards().iter().enumerate().map(spawn).collect();
        let storage = StorageClient::new(Arc::clone(&head), Arc::clone(&log), &shards);
        let runtime = Arc::new(ScrapeRuntime {
            storage: storage.clone(),
            staging: StagingBudget::new(64 << 20),
            limits: ScrapeLimits { body_len_max: 1 << 20, line_len_max: 1 << 20, new_series_max: 0 },
            new_series: NewSeriesLimit::Fixed(0),
            pools: PoolMetrics::new(&registry, &clock),
            metrics: ScrapeMetrics::new(&registry),
            ticks: TickMetrics::new(&registry),
            clock: SharedClock::clone(&clock),
            tolerance: watchfire::scrape::schedule::TOLERANCE,
            offset_seed: 7.into(),
            policy: QUICK,
        });
        let (tree, name) = (Arc::clone(tree), name.to_owned());
        Self { tree, registry, clock, head, shards, storage, log, pool, runtime, name }
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

    /// A discovery manager without sets that hands on to `consumer`.
    pub(crate) fn spawn_discovery(
        &self,
        name: &str,
        consumer: Arc<dyn Consumer>,
    ) -> (BoundedAddr<DiscoveryManager>, Arc<DiscoveryDeps>) {
        let kit = Arc::new(ProviderKit::new(&self.registry, &self.clock));
        let metrics = ManagerMetrics::new(&self.registry, &self.clock, "scrape");
        let deps = DiscoveryDeps::new(kit, metrics, consumer, Arbiter::current(), QUICK);
        let for_actor = Arc::clone(&deps);
        let make = move |_: &mut _| DiscoveryManager::new(Arc::clone(&for_actor));
        (supervision::spawn(&Arbiter::current(), QUICK, Place::root(&self.tree, name), make), deps)
    }

    /// A provider of the files that match `pattern`.
    pub(crate) fn spawn_provider(
        &self,
        name: &str,
        pattern: &str,
    ) -> (BoundedAddr<DiscoveryProvider>, Arc<ProviderDeps>) {
        let kit = Arc::new(ProviderKit::new(&self.registry, &self.clock));
        let metrics = Arc::new(ManagerMetrics::new(&self.registry, &self.clock, "scrape"));
        let deps = ProviderDeps::new(name.to_owned(), "scene", files(pattern), &kit, &metrics, &Arc::default());
        let for_actor = Arc::clone(&deps);
        let make = move |_: &mut _| DiscoveryProvider::new(Arc::clone(&for_actor));
        (supervision::spawn(&Arbiter::current(), QUICK, Place::root(&self.tree, name), make), deps)
    }

    /// What rule groups share, with a gateway of their own; what they send is kept.
    pub(crate) fn rules(&self, sent: &Arc<KeptAlerts>) -> Arc<RuleRuntime> {
        let external_url = ExternalUrl { scheme: "http".into(), host: "here".into(), path: String::new() };
        let around = Surroundings { external_url, external_labels: Labels::empty(), resend_delay: 60_000_000_000 };
        Arc::new(RuleRuntime {
            gateway: self.spawn_gateway(&format!("{} queries", self.name)),
            query_timeout: Duration::from_secs(30),
            storage: self.storage.clone(),
            sink: Arc::clone(sent) as Arc<dyn AlertSink>,
            metrics: RuleMetrics::new(&self.registry, &self.clock),
            clock: SharedClock::clone(&self.clock),
            around: arc_swap::ArcSwap::from_pointee(around),
            restore: RestoreLimits { outage_tolerance: 3_600_000_000_000, grace_period: 600_000_000_000 },
            policy: QUICK,
        })
    }

    pub(crate) fn spawn_group(
        &self,
        name: &str,
        spec: GroupSpec,
        runtime: &Arc<RuleRuntime>,
    ) -> (BoundedAddr<RuleGroup>, Arc<GroupDeps>) {
        let deps = GroupDeps::new(spec, Arc::clone(runtime), true);
        let for_actor = Arc::clone(&deps);
        let place = Place::root(&self.tree, name);
        let make = move |_: &mut _| RuleGroup::new(Arc::clone(&for_actor));
        (supervision::spawn(&Arbiter::current(), QUICK, place, make), deps)
    }

    pub(crate) fn spawn_rule_manager(
        &self,
        name: &str,
        groups: Vec<GroupSpec>,
        runtime: &Arc<RuleRuntime>,
    ) -> (BoundedAddr<RuleManager>, Arc<rule_manager::ManagerDeps>) {
        let deps = rule_manager::ManagerDeps::new(Arc::clone(runtime), Arbiter::current());
        *deps.groups.lock() = groups;
        let for_actor = Arc::clone(&deps);
        let place = Place::root(&self.tree, name);
        let make = move |_: &mut _| RuleManager::new(Arc::clone(&for_actor));
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

    /// A gateway as users ask it. Its clock stands still unless somebody moves it.
    pub(crate) async fn spawn_queries(
        &self,
        place: Place,
        queryable: Arc<dyn watchfire::model::read::Queryable>,
        clock: &Arc<ManualClock>,
    ) -> QueryClient {
        let limits = QueryLimits {
            timeout: Duration::from_secs(30),
            concurrency_max: 2,
            query_bytes_max: 0,
            total_bytes_max: 0,
        };
        let language = (EngineOptions::default(), ParseOptions::default());
        let (pool, clock) = (Arc::clone(&self.pool), Arc::clone(clock) as SharedClock);
        let deps = GatewayDeps::new(queryable, pool, clock, language, limits, &self.registry);
        let for_actor = Arc::clone(&deps);
        let make = move |_: &mut _| QueryGateway::new(Arc::clone(&for_actor));
        let gateway = supervision::spawn(&Arbiter::current(), QUICK, place, make);
        holds("the gateway runs", || gateway.entry().state() == ActorState::Running).await;
        QueryClient::new(gateway, deps)
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

    /// How many scrapes have left their `up`.
    pub(crate) fn ended(&self) -> u64 {
        let found = self.samples(&[Matcher::equal("__name__", "up")]).unwrap_or_default();
        found.iter().map(|(_, column)| column.len() as u64).sum()
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
    /// Actors that do not confirm.
    pub(crate) deaf: Mutex<Vec<String>>,
    /// How often somebody looked at the files.
    pub(crate) looks: AtomicUsize,
    /// While this is held, applying waits.
    pub(crate) gate: Arc<tokio::sync::Mutex<()>>,
}

struct FakePrepared {
    deaf: Vec<String>,
    gate: Arc<tokio::sync::Mutex<()>>,
}

impl ReloadSource for FakeSource {
    fn began(&self) {}

    fn prepare(&self) -> Result<Box<dyn PreparedReload>, String> {
        match self.fault.lock().clone() {
            Some(fault) => Err(fault),
            None => {
                self.in_effect.lock().clone_from(&self.on_disk.lock());
                Ok(Box::new(FakePrepared { deaf: self.deaf.lock().clone(), gate: Arc::clone(&self.gate) }))
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
            self.deaf
        })
    }
}

/// Series of one metric that differ in `n`, one sample each.
pub(crate) fn batch(metric: &str, numbers: impl IntoIterator<Item = u32>, at: TimestampMs, value: f64) -> AppendBatch {
    let sample = |n: u32| {
        let series = SeriesKey::Labels(Labels::from_pairs([("__name__", metric), ("n", &n.to_string())]));
        AppendSample { series, at, value }
    };
    AppendBatch::of_floats(numbers.into_iter().map(sample).collect())
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

/// File discovery of a pattern that is refreshed each hour.
pub(crate) fn files(pattern: &str) -> ProviderConfig {
    ProviderConfig::File(FileSd { files: vec![pattern.into()], refresh_interval: PromDuration::from_secs(3600) })
}

/// Keeps alerts that are sent.
#[derive(Default)]
pub(crate) struct KeptAlerts(pub(crate) parking_lot::Mutex<Vec<Alert>>);

impl AlertSink for KeptAlerts {
    fn send(&self, alerts: Vec<Alert>) {
        self.0.lock().extend(alerts);
    }
}

/// A group of the file `f`.
pub(crate) fn rule_group(name: &str, interval_ms: u64, rules: Vec<RuleSpec>) -> GroupSpec {
    GroupSpec {
        file: "f".to_owned(),
        name: name.to_owned(),
        interval: PromDuration::from_ms(interval_ms),
        query_offset: PromDuration::ZERO,
        limit: 0,
        rules,
    }
}

/// A recording rule.
pub(crate) fn record(name: &str, expr: &str) -> RuleSpec {
    RuleSpec { name: name.to_owned(), expr: expr.to_owned(), labels: Labels::empty(), kind: RuleKind::Recording }
}

/// An alerting rule.
pub(crate) fn alert(name: &str, expr: &str, hold_ms: u64) -> RuleSpec {
    let hold = PromDuration::from_ms(hold_ms);
    let alert = AlertSpec { hold, keep_firing_for: PromDuration::ZERO, annotations: Labels::empty() };
    RuleSpec { kind: RuleKind::Alerting(alert), ..record(name, expr) }
}

/// An instant query of a user.
pub(crate) fn instant(text: &str, at: TimestampMs) -> RunQuery {
    let (text, span) = (text.to_owned(), QuerySpan::Instant { at });
    let (timeout, lookback_ms, lane, origin) = (None, None, Lane::Queries, QueryOrigin::Unknown);
    RunQuery { text, span, timeout, lookback_ms, lane, counts_steps: false, origin }
}

/// The values of an instant vector or a scalar.
pub(crate) fn values(outcome: &QueryOutcome) -> Vec<f64> {
    match &outcome.evaluated.value {
        QueryValue::Scalar(point) => vec![point.value],
        QueryValue::Vector(elements) => elements.iter().map(|element| element.point.value).collect(),
        other => panic!("neither scalar nor vector: {other:?}"),
    }
}
