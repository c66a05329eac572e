//! The actors of the server and the threads that they run on.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::actors::alert_sink::AlertSink;
use crate::actors::compactor::{Compactor, CompactorDeps};
use crate::actors::config_reloader::{ConfigReloader, PlanSection, ReloadSource, ReloaderDeps};
use crate::actors::drain::Stage;
use crate::actors::kind;
use crate::actors::log_writer::{LogThread, LogWay, LogWriter, SyncMode};
use crate::actors::mailbox::BoundedAddr;
use crate::actors::opening::{Opening, OpeningMetrics};
use crate::actors::policy::Policy;
use crate::actors::pool::{ComputePool, Lane, PoolOptions, run_apart};
use crate::actors::query_gateway::{GatewayDeps, QueryClient, QueryGateway, QueryLimits};
use crate::actors::query_log::QueryLogFile;
use crate::actors::registry::ActorTree;
use crate::actors::remote_receiver::RemoteReceiver;
use crate::actors::remote_write_queue::RemoteLog;
use crate::actors::root::{self, Root, RootEnd};
use crate::actors::rule_group::RuleRuntime;
use crate::actors::rule_manager::{self, ApplyRules, RuleManager};
use crate::actors::scrape_manager::{ApplyJobs, ManagerDeps, ScrapeConsumer, ScrapeManager};
use crate::actors::scrape_pool::{JobSpec, PoolView};
use crate::actors::scrape_target::{ScrapeRuntime, TickMetrics};
use crate::actors::storage_client::StorageClient;
use crate::actors::storage_shard::{Journal, ShardDeps, StorageShard};
use crate::actors::supervision::{self, Place};
use crate::actors::threads::{Thread, Threads};
use crate::cli::flags::{ServerFlags, WalSync, hostname};
use crate::cli::server::admin::Admin;
use crate::cli::server::alerting::Alerting;
use crate::cli::server::alerting_external::ExternalAlerting;
use crate::cli::server::blocks;
use crate::cli::server::discovery::{self, Discovery, Purpose};
use crate::cli::server::jobs::Job;
use crate::cli::server::ports::Ports;
use crate::cli::server::reload::{Checked, Planned};
use crate::cli::server::remote_write::RemoteWriting;
use crate::cli::server::running::Running;
use crate::cli::server::upkeep::{Retention, Upkeep};
use crate::cli::server::{head_metrics, remote, rules, storage};
use crate::config::LoadedConfig;
use crate::discovery::ProviderKit;
use crate::http::state::Readiness;
use crate::model::clock::SharedClock;
use crate::model::labels::Labels;
use crate::model::random::Random;
use crate::model::steady_clock::SteadyClock;
use crate::model::time::TimestampMs;
use crate::promql::eval::EngineOptions;
use crate::remote::send::metrics::Intake;
use crate::rules::spec::GroupSpec;
use crate::scrape::cache::MetadataSize;
use crate::scrape::metrics::ScrapeMetrics;
use crate::scrape::pool_metrics::PoolMetrics;
use crate::scrape::schedule::offset_seed;
use crate::scrape::settings::ScrapeLimits;
use crate::scrape::staging::StagingBudget;
use crate::storage::block::catalog::Catalog;
use crate::storage::fs::SharedFs;
use crate::storage::head::starts::StartPolicy;
use crate::storage::head::{Head, HeadOptions};
use crate::storage::lock::DirLock;
use crate::storage::wal::WAL_DIR;
use crate::storage::wal::metrics::WalMetrics;
use crate::storage::wal::progress::ReplayProgress;
use crate::storage::wal::segments::LogFiles;
use crate::telemetry::limits::cpu_count;
use crate::telemetry::metrics::Registry;

/// What a series costs in the head once it has some hours of samples, for the head's share of memory.
const SERIES_BYTES: u64 = 1_000;
/// How long a manager may take to say who of its children has confirmed: longer than they have.
const CONFIRM_WITHIN: Duration = Duration::from_secs(15);

/// How long a snapshot at the end may wait and take.
const SNAPSHOT_WITHIN: Duration = Duration::from_secs(30);

/// What is held of the data directory while the server runs.
struct Opened {
    thread: Arc<LogThread>,
    _lock: DirLock,
}

/// Everything that runs. Dropping it ends the threads.
pub(super) struct Parts {
    tree: Arc<ActorTree>,
    root: Root,
    storage: StorageClient,
    head: Arc<Head>,
    log: Arc<OnceLock<Journal>>,
    /// What is too old, is so by this clock.
    steady: Arc<SteadyClock>,
    pool: Arc<ComputePool>,
    catalog: Arc<Catalog>,
    compactor: Arc<CompactorDeps>,
    compactor_addr: BoundedAddr<Compactor>,
    replay: Arc<ReplayProgress>,
    in_blocks: watch::Receiver<TimestampMs>,
    writers: Thread,
    opened: Mutex<Option<Opened>>,
    gateway: BoundedAddr<QueryGateway>,
    gateway_deps: Arc<GatewayDeps>,
    runtime: Arc<ScrapeRuntime>,
    retention: Arc<Retention>,
    manager_deps: Arc<ManagerDeps>,
    manager: BoundedAddr<ScrapeManager>,
    /// The jobs in effect, with their specifications.
    jobs: Mutex<Vec<Job>>,
    /// The thread of the root and the reloader.
    control: Thread,
    discovery: Discovery,
    /// Where rule groups leave their alerts, among others.
    pub(super) alerting: ExternalAlerting,
    /// The dispatcher in process.
    pub(super) notifying: Alerting,
    rule_deps: Arc<rule_manager::ManagerDeps>,
    rules: BoundedAddr<RuleManager>,
    /// Takes remote write and OTLP, if either is switched on.
    receiver: Option<Arc<RemoteReceiver>>,
    remote_write: RemoteWriting,
    remote_read: remote::RemoteRead,
    /// Whether exemplars are stored.
    keeps_exemplars: bool,
    /// Whether floats are written as XOR2 unless the configuration says otherwise, and histograms with start times.
    prefers_xor2: bool,
    writes_started_histograms: bool,
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
        let steady = SteadyClock::new(clock);
        let by_steady: SharedClock = Arc::clone(&steady) as SharedClock;
        let (storage, head, log) = start_storage(flags, &by_steady, &root, &pool, &shard_arbiters);
        let catalog = blocks::catalog(flags, registry);
        let intake = Arc::<Intake>::default();
        intake.register(registry);
        let storage = storage.with_blocks(Arc::clone(&catalog)).with_intake(Arc::clone(&intake));
        // Scrapes need not wait for the log to be read; they hold at most what scrapes in flight may hold.
        let kept_max = flags.limits.scrape_staged_total.unwrap_or(0);
        let storage = storage.with_opening(Opening::begin(kept_max, OpeningMetrics::new(registry)));
        let stored = (Arc::clone(&head), storage.clone(), Arc::clone(&catalog));
        let (compactor, compactor_addr, in_blocks) =
            blocks::start_compactor(flags, clock, &root, &pool, stored, (&threads.start("compactor"), &steady));
        head_metrics::register(registry, &storage);
        if flags.agent.is_some() {
            head_metrics::register_agent(registry, &storage);
        }
        let (gateway, gateway_deps) =
            start_gateway(flags, registry, clock, &root, &pool, (&storage, &threads.start("query")));
        let scrape_arbiters: Arc<[Thread]> =
            (0..cores.clamp(1, 4)).map(|i| threads.start(format!("scrape-{i}"))).collect();
        let runtime = scrape_runtime(flags, registry, clock, &storage);
        let manager_deps = ManagerDeps::new(Vec::new(), Arc::clone(&runtime), Arc::clone(&scrape_arbiters));
        let for_actor = Arc::clone(&manager_deps);
        let place = root.parent().place("scrape");
        let manager = supervision::spawn(&scrape_arbiters[0], Policy::PERMANENT, place, move |_| {
            ScrapeManager::new(Arc::clone(&for_actor))
        });
        root.add(Stage::Work, manager.clone());
        let consumer = Arc::new(ScrapeConsumer { deps: Arc::clone(&manager_deps), manager: manager.clone() });
        let (kit, for_discovery) = (Arc::new(ProviderKit::new(registry, clock)), threads.start("discovery"));
        let purpose = Purpose { place: "discovery", name: "scrape", consumer };
        let discovery = Discovery::start(&root, &for_discovery, registry, clock, &kit, purpose);
        discovery.deps().throttle(flags.scrape.discovery_reload_interval.to_std());
        let alerts = threads.start("alerts");
        let alerting = ExternalAlerting::start(flags, registry, clock, &root, (&alerts, &for_discovery), &kit);
        let notifying = Alerting::start(flags, registry, clock, &root, &pool, threads.start("dispatcher"));
        alerting.router.set_dispatcher(notifying.sink());
        let sink = Arc::clone(&alerting.router) as Arc<dyn AlertSink>;
        let rule_runtime = rules::runtime(flags, registry, clock, &gateway, &storage, sink);
        let (rules, rule_deps) = start_rules(&root, &threads.start("rules"), rule_runtime);
        let receiver = remote::receiver(flags, registry, clock, &storage, &pool);
        let senders = (0..cores.clamp(1, 2)).map(|i| threads.start(format!("remote-write-{i}"))).collect();
        let overview = &manager_deps.overview;
        let pools = Arc::clone(overview);
        runtime.pools.tell_metadata(move || {
            let size = |pool: &PoolView| {
                pool.active.iter().fold(MetadataSize::default(), |sum, shared| {
                    let size = shared.cache.metadata_size();
                    MetadataSize { entries: sum.entries + size.entries, bytes: sum.bytes + size.bytes }
                })
            };
            pools.pools().iter().map(|pool| (pool.name.clone(), size(pool))).collect()
        });
        let remote_write = RemoteWriting::start(flags, (registry, clock), &root, &pool, intake, senders, overview);
        let remote_read = remote::RemoteRead::start(flags, registry, clock, (&gateway, &gateway_deps), &pool, &catalog);
        let (writers, opened) = (threads.start("log"), Mutex::default());
        Ok(Self {
            tree,
            root,
            storage,
            head,
            log,
            steady,
            pool,
            catalog,
            compactor,
            compactor_addr,
            replay: Arc::default(),
            in_blocks,
            writers,
            opened,
            gateway,
            gateway_deps,
            runtime,
            retention: Arc::default(),
            manager_deps,
            manager,
            jobs: Mutex::default(),
            control,
            discovery,
            alerting,
            notifying,
            rule_deps,
            rules,
            receiver,
            remote_write,
            remote_read,
            keeps_exemplars: flags.features.is_enabled("exemplar-storage"),
            prefers_xor2: flags.features.is_enabled("xor2-encoding"),
            writes_started_histograms: flags.features.is_enabled("histograms-st-encoding"),
            _threads: threads,
        })
    }

    /// The jobs in effect.
    pub(super) fn jobs(&self) -> Vec<Job> {
        self.jobs.lock().clone()
    }

    /// What would become of everything but the jobs themselves with this configuration, its jobs and its rule groups.
    pub(super) fn plan(&self, checked: &Checked, jobs: &[JobSpec], groups: &[GroupSpec]) -> Vec<PlanSection> {
        let before = self.rule_deps.groups.lock();
        let keyed = |group| -> (String, &GroupSpec) { (GroupSpec::key(group), group) };
        let groups = PlanSection::compare("rule_group", before.iter().map(keyed), groups.iter().map(keyed));
        let mut sections = vec![self.manager_deps.plan_targets(jobs), groups, self.alerting.plan(&checked.loaded)];
        sections.push(self.remote_write.plan(&checked.loaded));
        sections.extend(checked.alertmanager.iter().map(|config| self.notifying.plan(config)));
        sections
    }

    /// Takes over what the configuration says of storage and schedules. Before storage is opened as well, as retention
    /// bounds what comes back.
    pub(super) fn settle(&self, loaded: &LoadedConfig) {
        self.retention.set(loaded.config.retention().time);
        let tsdb = loaded.config.storage.tsdb.as_ref();
        self.head.set_late_window(tsdb.map_or(0, |tsdb| tsdb.out_of_order_time_window.as_ms_i64()));
        let floats_with_starts = storage::writes_xor2(self.prefers_xor2, &loaded.config.storage);
        self.head.set_block_encodings(floats_with_starts, self.writes_started_histograms);
        self.catalog.set_floats_with_starts(floats_with_starts);
        if self.keeps_exemplars {
            storage::settle_exemplars(&self.head, &loaded.config.storage);
        }
        if let Some(receiver) = &self.receiver {
            receiver.set_otlp(loaded.config.otlp.clone());
        }
        // New targets are scraped by it; those that stay keep their offset, as in Prometheus.
        let seed = offset_seed(&hostname(), &loaded.config.global.external_labels.labels());
        self.runtime.offset_seed.store(seed, Ordering::Relaxed);
    }

    /// Makes the actors what a plan says; answers with those that did not confirm in time.
    pub(super) async fn apply(&self, planned: &Planned) -> Vec<String> {
        let config = &planned.checked.loaded.config;
        self.compactor.set_retention(blocks::retention(config));
        self.compactor.set_ended_threshold(
            config.storage.tsdb.as_ref().map_or(0.0, |tsdb| tsdb.stale_series_compaction_threshold),
        );
        self.settle(&planned.checked.loaded);
        self.remote_read.set(config);
        let global = &config.global;
        self.gateway_deps.set_subquery_step(global.evaluation_interval.as_ms_i64());
        self.gateway_deps.query_log().set(planned.checked.query_log.clone());
        *self.manager_deps.jobs.lock() = planned.jobs.iter().map(|job| job.spec.clone()).collect();
        (*self.jobs.lock()).clone_from(&planned.jobs);
        let external_labels = global.external_labels.labels();
        self.discovery.store(discovery::of_jobs(&planned.checked.loaded));
        self.rule_deps.groups.lock().clone_from(&planned.groups);
        self.rule_deps.runtime.around.store(Arc::new(rules::surroundings(&planned.flags, external_labels)));
        // What a bad configuration has made fail may do with this one; a failed manager reads the jobs as it starts.
        self.tree.retry_failed();
        let mut unconfirmed = self.discovery.apply().await;
        let scrapes = self.manager.ask(ApplyJobs, Instant::now() + CONFIRM_WITHIN);
        let rules = self.rules.ask(ApplyRules, Instant::now() + CONFIRM_WITHIN);
        let notifiers = self.alerting.apply(&planned.checked.loaded);
        let remote_write = self.remote_write.apply(&planned.checked.loaded);
        let (scrapes, rules, notifiers, remote_write) = futures::join!(scrapes, rules, notifiers, remote_write);
        for (manager, answer) in [("scrape_manager", scrapes), ("rule_manager", rules)] {
            match answer {
                Ok(children) => unconfirmed.extend(children),
                Err(error) => unconfirmed.push(format!("{manager}: {error}")),
            }
        }
        unconfirmed.extend(notifiers.into_iter().chain(remote_write));
        if let Some(config) = &planned.checked.alertmanager {
            unconfirmed.extend(self.notifying.apply(Arc::clone(config)).await);
        }
        unconfirmed
    }

    /// Begins to scrape the targets of a configuration before storage is open. What comes of it waits until
    /// [`Self::append_waiting`].
    pub(super) async fn begin_scraping(&self, planned: &Planned) {
        *self.manager_deps.jobs.lock() = planned.jobs.iter().map(|job| job.spec.clone()).collect();
        (*self.jobs.lock()).clone_from(&planned.jobs);
        self.discovery.store(discovery::of_jobs(&planned.checked.loaded));
        // Who does not confirm now is asked again once storage is open.
        let discovered = self.discovery.apply();
        let scrapes = self.manager.ask(ApplyJobs, Instant::now() + CONFIRM_WITHIN);
        let _ = futures::join!(discovered, scrapes);
    }

    /// Appends what was scraped while storage was opening.
    pub(super) async fn append_waiting(&self) {
        self.storage.append_waiting().await;
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
            queries: QueryClient::new(self.gateway.clone(), Arc::clone(&self.gateway_deps)),
            tree: Arc::clone(&self.tree),
            scrapes: Arc::clone(&self.manager_deps.overview),
            discovery: self.discovery.deps(),
            notifiers: self.alerting.overview(),
            rules: Arc::clone(&self.rule_deps.overview),
            registry: Arc::clone(registry),
            clock: Arc::clone(&self.runtime.clock),
            pool: Arc::clone(&self.pool),
            head: Arc::clone(&self.head),
            catalog: Arc::clone(&self.catalog),
            flags: Arc::clone(flags),
            running: Arc::clone(running),
            dispatcher: self.notifying.dispatcher.clone(),
            receiver: self.receiver.clone(),
            reader: Arc::clone(&self.remote_read.server),
            admin: Admin { compactor: self.compactor_addr.clone(), replay: Arc::clone(&self.replay) },
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
        let mode = match flags.storage.wal_sync {
            WalSync::Commit => SyncMode::Commit,
            WalSync::Interval => SyncMode::Interval,
            WalSync::Off => SyncMode::Off,
        };
        let is_agent = flags.agent.is_some();
        let notifies = flags.alerts.config_file.is_some().then(|| flags.alerts.storage_path.clone());
        let (flags, head) = (flags.storage.clone(), Arc::clone(&self.head));
        let metrics = WalMetrics::of(registry, clock, storage::compression_of(&flags));
        let metrics = WalMetrics { progress: Arc::clone(&self.replay), ..metrics };
        let metrics = (metrics, WalMetrics::of_late(registry, clock, storage::compression_of(&flags)));
        let (catalog, steady, retention) =
            (Arc::clone(&self.catalog), Arc::clone(&self.steady), Arc::clone(&self.retention));
        let read = move || storage::open(&flags, &head, &catalog, (&metrics.0, &metrics.1), (&steady, &retention));
        // Everything waits for it: it does not stand back as the compute pool does.
        let opened = run_apart("opening", read).await.map_err(|error| error.to_string())??;
        let thread = LogThread::start_with(opened.writer, Some(opened.late_log), mode);
        let thread = thread.map_err(|error| format!("cannot start the log's thread: {error}"))?;
        let (for_actor, announcements) = (Arc::clone(&thread), thread.announcements());
        let place = self.root.parent().place("log");
        let writer = supervision::spawn(&self.writers, Policy::PERMANENT, place, move |_| {
            LogWriter::new(Arc::clone(&for_actor))
        });
        self.root.add(Stage::Writers, writer.clone());
        self.remote_write.opened(RemoteLog {
            files: LogFiles::new(SharedFs::clone(&opened.fs), opened.dir.join(WAL_DIR)),
            data_dir: opened.dir.clone(),
            written: thread.written(),
        });
        let journal = Journal {
            way: LogWay::new(writer.clone(), Arc::clone(&thread)),
            writer,
            fs: opened.fs,
            data_dir: opened.dir,
            aliases: Mutex::new(opened.aliases),
            late_chunk_file: Mutex::new(opened.late_chunk_file),
            files: Mutex::default(),
            announcements,
        };
        // Storage opens once; a second time would find the directory locked.
        let _ = self.log.set(journal);
        *self.opened.lock() = Some(Opened { thread, _lock: opened.lock });
        // An agent makes no blocks and has no queries.
        if !is_agent {
            self.head.begin_chunk_writes();
            self.compactor.opened();
            self.open_active_log().await?;
        }
        match notifies {
            Some(folder) => self.notifying.open_log(&folder).await,
            None => Ok(()),
        }
    }

    async fn open_active_log(&self) -> Result<(), String> {
        let (deps, log) = (Arc::clone(&self.gateway_deps), Arc::clone(&self.log));
        let open = move || log.get().map_or(Ok(()), |journal| deps.open_active_log(&journal.data_dir));
        let opened = run_apart("opening", open).await;
        let failed = |error: String| format!("failed to initialize active query tracker: {error}");
        opened.map_err(|error| failed(error.to_string()))?.map_err(failed)
    }

    /// Opens the log of queries that the configuration names; it is in effect when the configuration is.
    pub(super) fn open_query_log(&self, loaded: &LoadedConfig) -> Result<Option<Arc<QueryLogFile>>, String> {
        match loaded.config.global.query_log_file.as_str() {
            "" => Ok(None),
            path => self.gateway_deps.query_log().open(Path::new(path)).map(Some),
        }
    }

    /// Writes and syncs what the logs still hold, leaves a snapshot of the head for the next start, and lets the data directory
    /// go.
    pub(super) async fn close_storage(&self, flags: &ServerFlags) {
        self.gateway_deps.close_logs();
        self.notifying.close();
        let Some(opened) = self.opened.lock().take() else { return };
        let Some(position) = opened.thread.close() else { return };
        if flags.agent.is_some() {
            // Its log is short, and other programs read the directory.
            return;
        }
        let (flags, head, log) = (flags.storage.clone(), Arc::clone(&self.head), Arc::clone(&self.log));
        let clock = SharedClock::clone(&self.runtime.clock);
        let write = move |_: &_| {
            if let Some(journal) = log.get() {
                storage::write_snapshot(&flags, journal, &head, position, &clock);
            }
        };
        if let Err(error) = self.pool.run(Lane::Storage, Instant::now() + SNAPSHOT_WITHIN, write).await {
            tracing::warn!(component = "tsdb", err = %error, "No chunk snapshot was written");
        }
    }

    pub(super) fn root(&self) -> &Root {
        &self.root
    }

    /// What is to run beside the actors once storage is open.
    pub(super) fn upkeep(&self, flags: &ServerFlags, readiness: &Readiness) -> Upkeep {
        Upkeep {
            storage: self.storage.clone(),
            head: Arc::clone(&self.head),
            log: Arc::clone(&self.log),
            log_health: self.opened.lock().as_ref().map(|opened| opened.thread.health()),
            pool: Arc::clone(&self.pool),
            tree: Arc::clone(&self.tree),
            retention: Arc::clone(&self.retention),
            in_blocks: self.in_blocks.clone(),
            steady: Arc::clone(&self.steady),
            readiness: readiness.clone(),
            remote: Arc::clone(&self.remote_write.deps),
            hold_wal: flags.remote.hold_wal,
            agent: flags.agent,
        }
    }

    /// Returns when the root has given up; never while it runs.
    pub(super) async fn root_failed(&self) {
        if self.root.end().await != RootEnd::Failed {
            std::future::pending::<()>().await;
        }
    }
}

/// Starts the rule manager, without groups: rules wait for storage to be open and for the configuration.
fn start_rules(
    root: &Root,
    thread: &Thread,
    runtime: Arc<RuleRuntime>,
) -> (BoundedAddr<RuleManager>, Arc<rule_manager::ManagerDeps>) {
    let deps = rule_manager::ManagerDeps::new(runtime, thread.clone());
    let for_actor = Arc::clone(&deps);
    let place = root.parent().place("rules");
    let manager =
        supervision::spawn(thread, Policy::PERMANENT, place, move |_| RuleManager::new(Arc::clone(&for_actor)));
    root.add(Stage::Work, manager.clone());
    (manager, deps)
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
        rules: blocks::cut_rules(flags),
        starts: StartPolicy {
            zero_samples: flags.features.is_enabled("created-timestamp-zero-ingestion"),
            stored: flags.features.is_enabled("st-storage"),
        },
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
        max_samples: usize::try_from(flags.query.samples_max.max(0)).unwrap_or(usize::MAX),
        delayed_name_removal: flags.features.is_enabled("promql-delayed-name-removal"),
        use_start_timestamps: flags.features.is_enabled("use-start-timestamps"),
        ..EngineOptions::default()
    };
    let parser = rules::parse_options(flags);
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
        storage: storage.clone().writing_log(),
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
        tolerance: Some(flags.scrape.timestamp_tolerance)
            .filter(|_| flags.scrape.adjust_timestamps)
            .unwrap_or_default(),
        // External labels come with the configuration.
        offset_seed: AtomicU64::new(offset_seed(&hostname(), &Labels::empty())),
        policy: Policy::PERMANENT,
    })
}
