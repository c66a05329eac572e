//! Loading the configuration and making it take effect, at the start and at each reload, by the same path.
//!
//! Everything is read, checked and planned first; what a plan says is stored and told to actors afterwards, and cannot
//! fail on what the files hold.

use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};

use crate::actors::config_reloader::{PlanSection, PreparedReload, ReloadPlan, ReloadReport, ReloadSource};
use crate::actors::query_log::QueryLogFile;
use crate::cli::flags::ServerFlags;
use crate::cli::sd_notify::{Notifier, State};
use crate::cli::server::jobs::{self, Job};
use crate::cli::server::parts::Parts;
use crate::cli::server::running::{LoadedText, Running};
use crate::cli::server::{LoadError, alerting, go_duration, load, rules};
use crate::config::inactive::Inactive;
use crate::config::{LoadedConfig, ScrapeConfig, alertmanager, digest_of};
use crate::http::notices::{Notice, Notices};
use crate::model::clock::SharedClock;
use crate::model::go;
use crate::rules::spec::GroupSpec;
use crate::telemetry::metrics::Registry;

/// Where the configuration comes from.
#[derive(Clone, Debug)]
pub(super) enum ConfigText {
    /// From a file.
    File(String),
    /// From the program itself.
    BuiltIn(String),
}

impl ConfigText {
    /// The name in messages.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::File(path) => path,
            Self::BuiltIn(_) => "default.yml",
        }
    }

    /// Reads and checks it.
    pub(super) fn load(&self, flags: &ServerFlags) -> Result<Checked, LoadError> {
        let text = match self {
            Self::File(_) => None,
            Self::BuiltIn(text) => Some(text.as_str()),
        };
        load(flags, self.name(), text)
    }
}

/// A configuration that is good and that the server can do what it asks for.
pub(super) struct Checked {
    pub(super) loaded: LoadedConfig,
    /// What has no effect yet.
    pub(super) inactive: Vec<Inactive>,
    /// `alertmanager.yml`, if the flags name one.
    pub(super) alertmanager: Option<Arc<alertmanager::Config>>,
    /// Of that file, for finding out whether it has changed.
    pub(super) digest: String,
    /// The log of queries, open, if there is to be one.
    pub(super) query_log: Option<Arc<QueryLogFile>>,
}

/// What the server reloads.
pub(super) struct ServerReload {
    pub(super) flags: Arc<ServerFlags>,
    pub(super) registry: Arc<Registry>,
    pub(super) clock: SharedClock,
    pub(super) parts: Arc<Parts>,
    pub(super) running: Arc<Running>,
    pub(super) notifier: Notifier,
    pub(super) notices: Notices,
    pub(super) text: ConfigText,
}

/// A configuration with the specifications that come of it.
pub(super) struct Planned {
    pub(super) checked: Checked,
    pub(super) jobs: Vec<Job>,
    pub(super) groups: Vec<GroupSpec>,
    pub(super) flags: Arc<ServerFlags>,
    plan: Arc<ReloadPlan>,
}

/// What is ready to be applied.
struct Prepared {
    reload: Arc<ServerReload>,
    planned: Planned,
}

impl ServerReload {
    /// Plans what a configuration changes.
    pub(super) fn plan(&self, checked: Checked) -> Planned {
        let before = self.parts.jobs();
        let jobs = jobs::jobs(&before, &checked.loaded, jobs::extras(&self.flags));
        fn by_name(jobs: &[Job]) -> impl Iterator<Item = (String, &ScrapeConfig)> {
            jobs.iter().map(|job| (job.config.job_name.clone(), &job.config))
        }
        let specs: Vec<_> = jobs.iter().map(|job| job.spec.clone()).collect();
        let mut sections = vec![PlanSection::compare("job", by_name(&before), by_name(&jobs))];
        let groups = rules::specs(&self.flags, &checked.loaded);
        sections.extend(self.parts.plan(&checked, &specs, &groups));
        let (flags, plan) = (Arc::clone(&self.flags), Arc::new(ReloadPlan { sections }));
        Planned { checked, jobs, groups, flags, plan }
    }

    /// Makes a plan take effect; answers with the actors that did not confirm in time.
    pub(super) async fn apply(&self, planned: Planned) -> Vec<String> {
        for job in &planned.jobs {
            job.spec.client.count_connections(&self.registry, &job.config.job_name);
        }
        let unconfirmed = self.parts.apply(&planned).await;
        let Checked { loaded, inactive, digest, .. } = planned.checked;
        let digest = format!("{}{digest}", loaded.digest);
        for file in loaded.rule_files.iter().filter(|file| file.more_documents) {
            let text = "Multiple document yaml rules files are not supported, only the first document is processed";
            tracing::warn!(component = "rule manager", file = file.path, "{text}");
        }
        jobs::show_inactive(&self.running.config().inactive, &inactive, &self.registry);
        self.running.loaded(LoadedText::of(loaded, digest, inactive));
        unconfirmed
    }

    fn load_error(&self, error: &dyn std::fmt::Display) -> String {
        format!("couldn't load configuration (--config.file={}): {error}", go::quote(self.text.name()))
    }
}

/// The server as the reloader sees it.
pub(super) struct Source(pub(super) Arc<ServerReload>);

impl ReloadSource for Source {
    fn began(&self) {
        tracing::info!(component = "main", filename = self.0.text.name(), "Loading configuration file");
        self.0.notifier.send(State::Reloading, "Reloading");
    }

    fn prepare(&self) -> Result<Box<dyn PreparedReload>, String> {
        let reload = Arc::clone(&self.0);
        let mut checked = reload.text.load(&reload.flags).map_err(|error| reload.load_error(&error))?;
        checked.query_log = reload.parts.open_query_log(&checked.loaded).map_err(|err| {
            tracing::error!(component = "main", err, "Failed to apply configuration");
            self.not_applied()
        })?;
        let planned = reload.plan(checked);
        Ok(Box::new(Prepared { reload, planned }))
    }

    fn digest(&self) -> Result<String, String> {
        match &self.0.text {
            ConfigText::File(path) => {
                let digest = digest_of(path).map_err(|error| error.to_string())?;
                Ok(digest + &alerting::digest(self.0.flags.alerts.config_file.as_deref()))
            }
            ConfigText::BuiltIn(_) => Ok(self.loaded_digest()),
        }
    }

    fn loaded_digest(&self) -> String {
        self.0.running.config().digest.clone()
    }

    fn ended(&self, report: &ReloadReport) {
        let (reload, took) = (&self.0, go_duration(report.took));
        reload.running.reloaded(report.error.is_none(), reload.clock.as_ref());
        match &report.error {
            None => {
                let (filename, trigger) = (reload.text.name(), report.trigger.as_str());
                let message = "Completed loading of configuration file";
                tracing::info!(component = "main", filename, trigger, totalDuration = took, "{message}");
            }
            Some(err) => {
                reload.parts.notifying.refused();
                let trigger = report.trigger.as_str();
                tracing::error!(component = "main", err, trigger, "Error reloading config");
            }
        }
        match &report.error {
            None => reload.notices.remove(Notice::ReloadFailed),
            Some(_) => reload.notices.add(Notice::ReloadFailed),
        }
        let status = if report.error.is_none() { "Ready" } else { "Ready; the last reload failed" };
        reload.notifier.send(State::Ready, status);
    }

    fn not_applied(&self) -> String {
        let file = go::quote(self.0.text.name());
        format!("one or more errors occurred while applying the new configuration (--config.file={file})")
    }
}

impl PreparedReload for Prepared {
    fn plan(&self) -> Arc<ReloadPlan> {
        Arc::clone(&self.planned.plan)
    }

    fn apply(self: Box<Self>) -> BoxFuture<'static, Vec<String>> {
        async move { self.reload.apply(self.planned).await }.boxed()
    }
}
