//! Discovery of scrape targets and of Alertmanagers: what the configuration asks for, and the actors that find it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::actors::discovery::{ApplyProviders, Consumer, DiscoveryDeps, DiscoveryManager, SetSpec};
use crate::actors::drain::Stage;
use crate::actors::mailbox::BoundedAddr;
use crate::actors::policy::Policy;
use crate::actors::root::Root;
use crate::actors::supervision;
use crate::actors::threads::Thread;
use crate::config::LoadedConfig;
use crate::config::discovery::DiscoveryConfigs;
use crate::discovery::metrics::ManagerMetrics;
use crate::discovery::{ProviderKit, Providers};
use crate::model::clock::SharedClock;
use crate::telemetry::metrics::Registry;

/// How long the manager may take to apply a configuration.
const APPLY_WITHIN: Duration = Duration::from_secs(15);

/// Who gets what is found, and what that is called in the tree of actors and in metrics.
#[derive(Clone)]
pub(super) struct Purpose {
    pub(super) place: &'static str,
    pub(super) name: &'static str,
    pub(super) consumer: Arc<dyn Consumer>,
}

/// Discovery at work.
pub(super) struct Discovery {
    deps: Arc<DiscoveryDeps>,
    manager: BoundedAddr<DiscoveryManager>,
}

impl Discovery {
    /// Starts the manager, without sets.
    pub(super) fn start(
        root: &Root,
        thread: &Thread,
        registry: &Arc<Registry>,
        clock: &SharedClock,
        kit: &Arc<ProviderKit>,
        Purpose { place, name, consumer }: Purpose,
    ) -> Self {
        let metrics = ManagerMetrics::new(registry, clock, name);
        let deps = DiscoveryDeps::new(Arc::clone(kit), metrics, consumer, thread.clone(), Policy::PERMANENT);
        let (for_actor, place) = (Arc::clone(&deps), root.parent().place(place));
        let make = move |_: &mut _| DiscoveryManager::new(Arc::clone(&for_actor));
        let manager = supervision::spawn(thread, Policy::PERMANENT, place, make);
        root.add(Stage::Sources, manager.clone());
        Self { deps, manager }
    }

    /// What the manager is given and publishes.
    pub(super) fn deps(&self) -> Arc<DiscoveryDeps> {
        Arc::clone(&self.deps)
    }

    /// Stores what the configuration says, for [`Discovery::apply`] and for a manager that starts.
    pub(super) fn store(&self, sets: Vec<SetSpec>) {
        *self.deps.sets.lock() = sets;
    }

    /// Makes the providers what was stored, and waits a little for what they find first, so that pools begin with it.
    /// Answers with the manager's name when it did not confirm.
    pub(super) async fn apply(&self) -> Vec<String> {
        match self.manager.ask(ApplyProviders, Instant::now() + APPLY_WITHIN).await {
            Ok(unconfirmed) => {
                for actor in unconfirmed {
                    tracing::warn!(component = "main", actor, "A provider has not found its targets yet");
                }
                Vec::new()
            }
            Err(error) => vec![format!("discovery_manager: {error}")],
        }
    }
}

/// The discovery of all jobs.
pub(super) fn of_jobs(loaded: &LoadedConfig) -> Vec<SetSpec> {
    loaded.scrape_configs.iter().map(|job| set(job.job_name.clone(), &job.discovery)).collect()
}

/// The discovery of a job, or of Alertmanagers with the same settings.
pub(super) fn set(name: String, discovery: &DiscoveryConfigs) -> SetSpec {
    let Providers { built, not_built } = Providers::from(discovery);
    let static_targets = discovery.static_groups().iter().map(|group| group.targets.len()).sum();
    SetSpec { name, providers: built, static_targets, not_built }
}
