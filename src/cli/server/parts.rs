//! The actors of the server and the threads that they run on.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::actors::config_reloader::{ConfigReloader, PlanSection, ReloadSource, ReloaderDeps};
use crate::actors::drain::Stage;
use crate::actors::kind;
use crate::actors::log_writer::{LogThread, LogWriter};
use crate::actors::mailbox::BoundedAddr;
use crate::actors::policy::Policy;
use crate::actors::pool::{ComputePool, Lane, PoolOptions};
use crate::actors::query_gateway::{GatewayDeps, QueryGateway, QueryLimits};
use crate::actors::registry::ActorTree;
use crate::actors::root::{self, Root, RootEnd};
use crate::actors::scrape_manager::{ApplyJobs, ManagerDeps, ScrapeManager};
use crate::actors::scrape_pool::JobSpec;
use crate::actors::scrape_target::{ScrapeRuntime, TickMetrics};
use crate::actors::storage_client::StorageClient;
use crate::actors::storage_shard::{Journal, ShardDeps, StorageShard};
use crate::actors::supervision::{self, Place};
use crate::actors::threads::{Thread, Threads};
use crate::cli::flags::{RETENTION_DEFAULT, ServerFlags, hostname};
use crate::cli::server::jobs::Job;
use crate::cli::server::ports::Ports;
use crate::cli::server::reload::Planned;
use crate::cli::server::running::Running;
use crate::cli::server::{head_metrics, storage};
use crate::model::clock::SharedClock;
use crate::model::duration::PromDuration;
use crate::model::labels::Labels;
use crate::model::random::Random;
use crate::model::time::TimestampMs;
use crate::promql::eval::EngineOptions;
use crate::promql::parser::ParseOptions;
use crate::scrape::metrics::ScrapeMetrics;
use crate::scrape::pool_metrics::PoolMetrics;
use crate::scrape::schedule::offset_seed;
use crate::scrape::settings::ScrapeLimits;
use crate::scrape::staging::StagingBudget;
use crate::storage::chunk::cut::CutRules;
use crate::storage::head::{Head, HeadOptions};
use crate::storage::lock::DirLock;
use crate::storage::wal::metrics::WalMetrics;
use crate::telemetry::limits::cpu_count;
use crate::telemetry::metrics::Registry;

/// What a series costs in the head once it has some hours of samples, for the head's share of memory.
const SERIES_BYTES: u64 = 1_000;
/// How long a manager may take to say who of its children has confirmed: longer than they have.
const CONFIRM_WITHIN: Duration = Duration::from_secs(15);
/// How often old samples are dropped.
const TRUNCATE_EVERY: Duration = Duration::from_secs(60);

/// What is held of the data directory while the server runs.
struct Opened {
    thread: Arc<LogThread>,
    _lock: DirLock,
}

/// Time stamps before this are older than the retention.
fn oldest(clock: &SharedClock, retention: PromDuration) -> TimestampMs {
    let retention = if retention.is_zero() { RETENTION_DEFAULT } else { retention };
    TimestampMs(clock.now().0.saturating_sub(retention.as_ms_i64()))
}

/// Everything that runs. Dropping it ends the threads.
pub(super) struct Parts {
    tree: Arc<ActorTree>,
    root: Root,
    storage: StorageClient,
    head: Arc<Head>,
    log: Arc<OnceLock<Journal>>,
    pool: Arc<ComputePool>,
    writers: Thread,
    opened: Mutex<Option<Opened>>,
    gateway: BoundedAddr<QueryGateway>,
    gateway_deps: Arc<GatewayDeps>,
    manager_deps: Arc<ManagerDeps>,
    manager: BoundedAddr<ScrapeManager>,
    /// The jobs in effect, with their specifications.
    jobs: Mutex<Vec<Job>>,
    /// The thread of the root and the reloader.
    control: Thread,
    _threads: Threads,
}

/// The running reloader.
#[derive(Clone)]
pub(super) struct Reloader {
    pub(super) addr: BoundedAddr<ConfigReloader>,
    pub(super) deps: Arc<ReloaderDeps>,
}

impl Parts {
    /// Starts all actors, without jobs.
    pub(super) fn start(flags: &ServerFlags, registry: &Arc<Registry>, clock: &SharedClock) -> io::Result<Self> {
        let cores = cpu_count();
        let seed = Random::from_process().next_u64();
        let tree = ActorTree::new(kind::ALL, registry, SharedClock::clone(clock), seed);
        let mut threads = Threads::new(registry, clock)?;
        let control = threads.start("root");
        let root = root::start(&control, Place::root(&tree, "root"));
        let pool = Arc::new(ComputePool::start(PoolOptions::for_cores(cores), registry)?);
        let shard_count = u16::try_from(cores.clamp(1, 16)).unwrap_or(1);
        let shard_arbiters: Vec<_> = (0..shard_count).map(|i| threads.start(format!("storage-{i}"))).collect();
        let (storage, head, log) = start_storage(flags, clock, &root, &pool, &shard_arbiters);
        head_metrics::register(registry, &storage);
        let (gateway, gateway_deps) =
            start_gateway(flags, registry, clock, &root, &pool, (&storage, &threads.start("query")));
        let scrape_arbiters: Arc<[Thread]> =
            (0..cores.clamp(1, 4)).map(|i| threads.start(format!("scrape-{i}"))).collect();
        let runtime = scrape_runtime(flags, registry, clock, &storage);
        let manager_deps = ManagerDeps::new(Vec::new(), runtime, Arc::clone(&scrape_arbiters));
        let for_actor = Arc::clone(&manager_deps);
        let place = root.parent().place("scrape");
        let manager = supervision::spawn(&scrape_arbiters[0], Policy::PERMANENT, place, move |_| {
            ScrapeManager::new(Arc::clone(&for_actor))
        });
        root.add(Stage::Work, manager.clone());
        let (writers, opened) = (threads.start("log"), Mutex::default());
        Ok(Self {
            tree,
            root,
            storage,
            head,
            log,
            pool,
            writers,
            opened,
            gateway,
            gateway_deps,
            manager_deps,
            manager,
            jobs: Mutex::default(),
            control,
            _threads: threads,
        })
    }

    /// The jobs in effect.
    pub(super) fn jobs(&self) -> Vec<Job> {
        self.jobs.lock().clone()
    }

    /// What would become of the targets with these jobs.
    pub(super) fn plan_targets(&self, jobs: &[JobSpec]) -> PlanSection {
        self.manager_deps.plan_targets(jobs)
    }

    /// Makes the actors what a plan says; answers with those that did not confirm in time.
    pub(super) async fn apply(&self, planned: &Planned) -> Vec<String> {
        let global = &planned.checked.loaded.config.global;
        self.gateway_deps.set_subquery_step(global.evaluation_interval.as_ms_i64());
        *self.manager_deps.jobs.lock() = planned.jobs.iter().map(|job| job.spec.clone()).collect();
        (*self.jobs.lock()).clone_from(&planned.jobs);
        // What a bad configuration has made fail may do with this one; a failed manager reads the jobs as it starts.
        self.tree.retry_failed();
        match self.manager.ask(ApplyJobs, Instant::now() + CONFIRM_WITHIN).await {
            Ok(unconfirmed) => unconfirmed,
            Err(error) => vec![format!("scrape_manager: {error}")],
        }
    }

    /// Starts the reloader of the given source, which looks for changed files as often as given.
    pub(super) fn start_reloader(
        &self,
        source: Arc<dyn ReloadSource>,
        clock: &SharedClock,
        look_every: Option<Duration>,
    ) -> Reloader {
        let deps = ReloaderDeps::new(source, Arc::clone(&self.pool), SharedClock::clone(clock), look_every);
        let for_actor = Arc::clone(&deps);
        let place = self.root.parent().place("reload");
        let addr = supervision::spawn(&self.control, Policy::PERMANENT, place, move |_| {
            ConfigReloader::new(Arc::clone(&for_actor))
        });
        self.root.add(Stage::Sources, addr.clone());
        Reloader { addr, deps }
    }

    /// The process as HTTP sees it.
    pub(super) fn ports(
        &self,
        flags: &Arc<ServerFlags>,
        registry: &Arc<Registry>,
        running: &Arc<Running>,
        quit: watch::Sender<bool>,
    ) -> Arc<Ports> {
        Arc::new(Ports {
            gateway: self.gateway.clone(),
            tree: Arc::clone(&self.tree),
            scrapes: Arc::clone(&self.manager_deps.overview),
            registry: Arc::clone(registry),
            flags: Arc::clone(flags),
            running: Arc::clone(running),
            reloader: OnceLock::new(),
            quit,
        })
    }

    /// Takes the data directory, reads the log back into the head and starts to write it. Refuses directories that are in
    /// use, that cannot be read, or that hold data of another program.
    pub(super) async fn open_storage(
        &self,
        flags: &ServerFlags,
        registry: &Arc<Registry>,
        clock: &SharedClock,
    ) -> Result<(), String> {
        let (flags, head) = (flags.storage.clone(), Arc::clone(&self.head));
        let metrics = WalMetrics::new(registry, clock);
        let oldest = oldest(clock, flags.retention_time);
        let read = move |_: &_| storage::open(&flags, &head, &metrics, oldest);
        let day = Instant::now() + Duration::from_secs(86_400);
        let opened = self.pool.run(Lane::Storage, day, read).await.map_err(|error| error.to_string())??;
        let thread =
            LogThread::start(opened.writer).map_err(|error| format!("cannot start the log's thread: {error}"))?;
        let for_actor = Arc::clone(&thread);
        let place = self.root.parent().place("log");
        let writer = supervision::spawn(&self.writers, Policy::PERMANENT, place, move |_| {
            LogWriter::new(Arc::clone(&for_actor))
        });
        self.root.add(Stage::Writers, writer.clone());
        let journal = Journal { writer, fs: opened.fs, data_dir: opened.dir, aliases: Mutex::new(opened.aliases) };
        // Storage opens once; a second time would find the directory locked.
        let _ = self.log.set(journal);
        *self.opened.lock() = Some(Opened { thread, _lock: opened.lock });
        Ok(())
    }

    /// Writes and syncs what the log still holds, and lets the data directory go.
    pub(super) fn close_storage(&self) {
        if let Some(opened) = self.opened.lock().take() {
            opened.thread.close();
        }
    }

    pub(super) fn root(&self) -> &Root {
        &self.root
    }

    pub(super) fn storage(&self) -> &StorageClient {
        &self.storage
    }

    /// Returns when the root has given up; never while it runs.
    pub(super) async fn root_failed(&self) {
        if self.root.end().await != RootEnd::Failed {
            std::future::pending::<()>().await;
        }
    }
}

fn start_storage(
    flags: &ServerFlags,
    clock: &SharedClock,
    root: &Root,
    pool: &Arc<ComputePool>,
    arbiters: &[Thread],
) -> (StorageClient, Arc<Head>, Arc<OnceLock<Journal>>) {
    let options = HeadOptions {
        shards: u16::try_from(arbiters.len()).unwrap_or(1),
        series_limit: flags.limits.memory / 2 / SERIES_BYTES,
        rules: CutRules::default(),
        ..HeadOptions::new(SharedClock::clone(clock))
    };
    let head = Arc::new(Head::new(options));
    let log = Arc::new(OnceLock::new());
    let shards: Vec<_> = head
        .shards()
        .iter()
        .zip(arbiters)
        .map(|(shard, arbiter)| {
            let deps = Arc::new(ShardDeps {
                head: Arc::clone(&head),
                shard: Arc::clone(shard),
                log: Arc::clone(&log),
                pool: Arc::clone(pool),
            });
            let place = root.parent().place(format!("shard-{}", shard.id().0));
            let addr =
                supervision::spawn(arbiter, Policy::PERMANENT, place, move |_| StorageShard::new(Arc::clone(&deps)));
            root.add(Stage::Shards, addr.clone());
            addr
        })
        .collect();
    (StorageClient::new(Arc::clone(&head), Arc::clone(&log), &shards), head, log)
}

fn start_gateway(
    flags: &ServerFlags,
    registry: &Registry,
    clock: &SharedClock,
    root: &Root,
    pool: &Arc<ComputePool>,
    (storage, arbiter): (&StorageClient, &Thread),
) -> (BoundedAddr<QueryGateway>, Arc<GatewayDeps>) {
    let bytes = |limit: Option<u64>| limit.map_or(0, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    let engine = EngineOptions {
        lookback_ms: flags.query.lookback.as_ms_i64(),
        max_samples: usize::try_from(flags.query.samples_max).unwrap_or(usize::MAX),
        delayed_name_removal: flags.features.is_enabled("promql-delayed-name-removal"),
        use_start_timestamps: flags.features.is_enabled("use-start-timestamps"),
        ..EngineOptions::default()
    };
    let parser = ParseOptions {
        experimental_functions: flags.features.is_enabled("promql-experimental-functions"),
        extended_range_selectors: flags.features.is_enabled("promql-extended-range-selectors"),
        fill_modifiers: flags.features.is_enabled("promql-binop-fill-modifiers"),
        ..ParseOptions::default()
    };
    let limits = QueryLimits {
        timeout: flags.query.timeout.to_std(),
        concurrency_max: flags.query.concurrency_max,
        query_bytes_max: bytes(flags.limits.query_memory),
        total_bytes_max: bytes(flags.limits.query_memory_total),
    };
    let pool = Arc::clone(pool);
    let deps =
        GatewayDeps::new(storage.queryable(), pool, SharedClock::clone(clock), (engine, parser), limits, registry);
    let place = root.parent().place("queries");
    let for_actor = Arc::clone(&deps);
    let addr =
        supervision::spawn(arbiter, Policy::PERMANENT, place, move |_| QueryGateway::new(Arc::clone(&for_actor)));
    root.add(Stage::Alerts, addr.clone());
    (addr, deps)
}

fn scrape_runtime(
    flags: &ServerFlags,
    registry: &Arc<Registry>,
    clock: &SharedClock,
    storage: &StorageClient,
) -> Arc<ScrapeRuntime> {
    let limits = &flags.limits;
    Arc::new(ScrapeRuntime {
        storage: storage.clone(),
        staging: StagingBudget::new(limits.scrape_staged_total.unwrap_or(0)),
        limits: ScrapeLimits {
            body_len_max: limits.scrape_body.unwrap_or(0),
            line_len_max: limits.scrape_line.map_or(usize::MAX, |len| usize::try_from(len).unwrap_or(usize::MAX)),
            new_series_max: 0,
        },
        new_series: limits.scrape_new_series,
        metrics: ScrapeMetrics::new(registry),
        pools: PoolMetrics::new(registry, clock),
        ticks: TickMetrics::new(registry),
        clock: SharedClock::clone(clock),
        offset_seed: offset_seed(&hostname(), &Labels::empty()),
        policy: Policy::PERMANENT,
    })
}

/// Drops samples that are older than the retention, once a minute.
pub(super) async fn upkeep(storage: StorageClient, retention: PromDuration, clock: SharedClock) {
    let mut ticks = tokio::time::interval(TRUNCATE_EVERY);
    loop {
        ticks.tick().await;
        let TimestampMs(now) = clock.now();
        if !retention.is_zero() {
            storage.truncate(TimestampMs(now.saturating_sub(retention.as_ms_i64())));
        }
    }
}
