//! Discovery of scrape targets: what the configuration asks for, and the actors that find it.

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
use crate::config::{LoadedConfig, ScrapeConfig};
use crate::discovery::metrics::ManagerMetrics;
use crate::discovery::{ProviderConfig, ProviderKit};
use crate::model::clock::SharedClock;
use crate::telemetry::metrics::Registry;

/// How long the manager may take to apply a configuration.
const APPLY_WITHIN: Duration = Duration::from_secs(15);
/// Fields whose targets are found.
const BUILT: [&str; 2] = ["file_sd_configs", "static_configs"];

/// Discovery of scrape targets at work.
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
        consumer: Arc<dyn Consumer>,
    ) -> Self {
        let (kit, metrics) = (ProviderKit::new(registry, clock), ManagerMetrics::new(registry, clock, "scrape"));
        let deps = DiscoveryDeps::new(kit, metrics, consumer, thread.clone(), Policy::PERMANENT);
        let (for_actor, place) = (Arc::clone(&deps), root.parent().place("discovery"));
        let make = move |_: &mut _| DiscoveryManager::new(Arc::clone(&for_actor));
        let manager = supervision::spawn(thread, Policy::PERMANENT, place, make);
        root.add(Stage::Sources, manager.clone());
        Self { deps, manager }
    }

    /// Stores what the configuration says, for [`Discovery::apply`] and for a manager that starts.
    pub(super) fn store(&self, loaded: &LoadedConfig) {
        *self.deps.sets.lock() = loaded.scrape_configs.iter().map(set).collect();
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

fn set(job: &ScrapeConfig) -> SetSpec {
    let discovery = &job.discovery;
    SetSpec {
        name: job.job_name.clone(),
        providers: discovery.file.iter().cloned().map(ProviderConfig::File).collect(),
        static_targets: discovery.static_groups().iter().map(|group| group.targets.len()).sum(),
        not_built: discovery.kinds().iter().filter(|kind| !BUILT.contains(kind)).count(),
    }
}
