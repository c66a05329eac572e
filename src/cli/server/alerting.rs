//! Alerting in process: the dispatcher, its notification log, and `alertmanager.yml`.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::actors::alert_dispatcher::{AlertDispatcher, DispatcherDeps, DispatcherHandle, QUEUE_CAPACITY};
use crate::actors::alert_sink::AlertSink;
use crate::actors::config_reloader::PlanSection;
use crate::actors::drain::Stage;
use crate::actors::notification_log::NotificationLog;
use crate::actors::policy::Policy;
use crate::actors::pool::{ComputePool, run_apart};
use crate::actors::receiver::AlertRuntime;
use crate::actors::root::Root;
use crate::actors::supervision;
use crate::actors::threads::Thread;
use crate::alertmanager::metrics::AlertmanagerMetrics;
use crate::cli::flags::ServerFlags;
use crate::config::alertmanager::{self, Config, Receiver};
use crate::model::clock::SharedClock;
use crate::model::random::Random;
use crate::telemetry::metrics::Registry;

/// The dispatcher and what belongs to it.
pub(super) struct Alerting {
    /// For rules, pages and the reloader.
    pub(super) dispatcher: DispatcherHandle,
    log: Arc<NotificationLog>,
    metrics: AlertmanagerMetrics,
    clock: SharedClock,
}

/// What `--alertmanager.config.file` says; `None` without the flag. The error is what the operator reads.
pub(super) fn load(file: Option<&Path>) -> Result<Option<Arc<Config>>, String> {
    let Some(file) = file else { return Ok(None) };
    let loaded = alertmanager::load_file(&file.to_string_lossy());
    loaded.map(|config| Some(Arc::new(config))).map_err(|error| error.to_string())
}

/// What tells whether the file has changed; the empty text without one, and for one that cannot be read.
pub(super) fn digest(file: Option<&Path>) -> String {
    let content = file.and_then(|file| std::fs::read(file).ok());
    content.map_or(String::new(), |content| format!(" {:016x}", twox_hash::XxHash64::oneshot(0, &content)))
}

impl Alerting {
    /// Starts a dispatcher that notifies nobody yet.
    pub(super) fn start(
        flags: &ServerFlags,
        registry: &Arc<Registry>,
        clock: &SharedClock,
        root: &Root,
        pool: &Arc<ComputePool>,
        arbiter: Thread,
    ) -> Self {
        let metrics = AlertmanagerMetrics::new(registry, clock);
        let log = NotificationLog::new(metrics.nflog.clone(), SharedClock::clone(clock));
        let runtime = Arc::new(AlertRuntime {
            log: Arc::clone(&log),
            metrics: metrics.clone(),
            clock: SharedClock::clone(clock),
            pool: Arc::clone(pool),
            external_url: format!("{}/alertmanager", flags.web.external_url),
            policy: Policy::PERMANENT,
            random: Mutex::new(Random::from_process()),
        });
        let place = root.parent().place("alerts");
        let deps = DispatcherDeps::new(runtime, Arc::from([arbiter.clone()]), QUEUE_CAPACITY);
        let for_actor = Arc::clone(&deps);
        let addr = supervision::spawn(&arbiter, Policy::PERMANENT, place, move |_| {
            AlertDispatcher::new(Arc::clone(&for_actor))
        });
        root.add(Stage::Alerts, addr.clone());
        let counted = Arc::clone(&deps);
        registry.collect_with(move || counted.families());
        Self { dispatcher: DispatcherHandle::new(deps, addr), log, metrics, clock: SharedClock::clone(clock) }
    }

    /// Opens the notification log in the folder that the flags name. Before that no configuration that notifies may be
    /// applied, and the data directory must be locked.
    pub(super) async fn open_log(&self, folder: &Path) -> Result<(), String> {
        let (log, folder) = (Arc::clone(&self.log), folder.to_owned());
        // Its thread begins with the priority of the one that opens it.
        let opened = run_apart("opening", move || log.open(&folder)).await.map_err(|error| error.to_string())?;
        opened.map_err(|error| format!("cannot start the notification log's thread: {error}"))
    }

    /// Where rules leave their alerts.
    pub(super) fn sink(&self) -> Arc<dyn AlertSink> {
        Arc::new(self.dispatcher.clone())
    }

    /// What would become of the receivers with this configuration.
    pub(super) fn plan(&self, config: &Config) -> PlanSection {
        fn by_name(config: &Config) -> impl Iterator<Item = (String, &Receiver)> {
            config.receivers.iter().map(|receiver| (receiver.name.clone(), receiver))
        }
        let before = self.dispatcher.deps().config();
        PlanSection::compare("receiver", by_name(&before), by_name(config))
    }

    /// Makes a loaded configuration hold; answers with the dispatcher if it did not confirm in time.
    pub(super) async fn apply(&self, config: Arc<Config>) -> Option<String> {
        let applied = self.dispatcher.apply(config).await;
        self.metrics.reload.0.set(1.0);
        self.metrics.reload.1.set(self.clock.now().as_seconds());
        applied.err().map(|error| format!("alert_dispatcher: {error}"))
    }

    /// A configuration was refused; the one before holds.
    pub(super) fn refused(&self) {
        self.metrics.reload.0.set(0.0);
    }

    /// Writes what the notification log still holds.
    pub(super) fn close(&self) {
        self.log.close();
    }
}
