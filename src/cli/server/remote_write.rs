//! Sending to remote storage, as flags and configuration want it.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

use crate::actors::config_reloader::PlanSection;
use crate::actors::drain::Stage;
use crate::actors::mailbox::BoundedAddr;
use crate::actors::policy::Policy;
use crate::actors::pool::ComputePool;
use crate::actors::remote_write_manager::{ApplyDestinations, RemoteWriteDeps, RemoteWriteManager};
use crate::actors::remote_write_queue::{Clients, QueueRuntime, RemoteLog};
use crate::actors::root::Root;
use crate::actors::scrape_manager::ScrapeOverview;
use crate::actors::supervision;
use crate::actors::threads::Thread;
use crate::cli::flags::ServerFlags;
use crate::client::HttpClient;
use crate::client::cloud::{CloudLogin, CloudSurroundings};
use crate::config::{LoadedConfig, RemoteWriteConfig};
use crate::discovery::aws_signer::AwsSigner;
use crate::discovery::surroundings::Surroundings;
use crate::model::clock::SharedClock;
use crate::remote::send::encode::{Description, kind_number};
use crate::remote::send::metrics::Intake;
use crate::remote::send::spec::{Destination, destinations};
use crate::telemetry::build_info;
use crate::telemetry::metrics::Registry;

/// How long the manager may take to say which queues have confirmed: longer than they have.
const CONFIRM_WITHIN: Duration = Duration::from_secs(15);

/// The queues, and the way to them.
pub(super) struct RemoteWriting {
    manager: BoundedAddr<RemoteWriteManager>,
    pub(super) deps: Arc<RemoteWriteDeps>,
}

impl RemoteWriting {
    /// Starts the manager, without destinations. What targets say of their metrics is asked of `scrapes`.
    pub(super) fn start(
        flags: &ServerFlags,
        (registry, clock): (&Arc<Registry>, &SharedClock),
        root: &Root,
        pool: &Arc<ComputePool>,
        intake: Arc<Intake>,
        threads: Arc<[Thread]>,
        scrapes: &Arc<ScrapeOverview>,
    ) -> Self {
        let scrapes = Arc::clone(scrapes);
        let runtime = Arc::new(QueueRuntime {
            pool: Arc::clone(pool),
            clock: SharedClock::clone(clock),
            registry: Arc::clone(registry),
            log: Arc::new(OnceLock::new()),
            intake,
            flush_deadline: flags.remote.flush_deadline,
            descriptions: Box::new(move || descriptions(&scrapes)),
            clients: clients(registry, clock),
            policy: Policy::PERMANENT,
        });
        let thread = threads[0].clone();
        let deps = RemoteWriteDeps::new(runtime, threads);
        let for_actor = Arc::clone(&deps);
        let place = root.parent().place("remote-write");
        let make = move |_: &mut _| RemoteWriteManager::new(Arc::clone(&for_actor));
        let manager = supervision::spawn(&thread, Policy::PERMANENT, place, make);
        root.add(Stage::Remote, manager.clone());
        Self { manager, deps }
    }

    /// The log is open and can be read.
    pub(super) fn opened(&self, log: RemoteLog) {
        // Storage opens once.
        let _ = self.deps.runtime().log.set(log);
    }

    /// What would become of the destinations with this configuration.
    pub(super) fn plan(&self, loaded: &LoadedConfig) -> PlanSection {
        self.deps.plan(&wanted(loaded))
    }

    /// Makes the destinations what the configuration says; answers with the queues that did not confirm in time.
    pub(super) async fn apply(&self, loaded: &LoadedConfig) -> Vec<String> {
        *self.deps.destinations.lock() = wanted(loaded);
        match self.manager.ask(ApplyDestinations, Instant::now() + CONFIRM_WITHIN).await {
            Ok(unconfirmed) => unconfirmed,
            Err(error) => vec![format!("remote_write_manager: {error}")],
        }
    }
}

/// Errors for a configuration whose destinations cannot be told apart.
pub(super) fn check(loaded: &LoadedConfig) -> Result<(), String> {
    destinations(&loaded.config).map(|_| ())
}

fn wanted(loaded: &LoadedConfig) -> Vec<Destination> {
    // Checked when it was loaded.
    destinations(&loaded.config).unwrap_or_default()
}

fn clients(registry: &Arc<Registry>, clock: &SharedClock) -> Clients {
    let (registry, clock) = (Arc::clone(registry), SharedClock::clone(clock));
    Box::new(move |config: &RemoteWriteConfig| {
        let mut client = HttpClient::from_config(build_info::user_agent(), &config.http);
        client.count_connections(&registry, "remote_storage_write_client");
        if config.round_robin_dns {
            client = client.spread_over_addresses();
        }
        if let Some(sigv4) = &config.sigv4 {
            return client.signed_by(AwsSigner::new(sigv4, &Surroundings::default(), &clock));
        }
        let (agent, around) = (build_info::user_agent(), CloudSurroundings::default());
        match (&config.azuread, &config.google_iam) {
            (Some(azure), _) => client.signed_by(Arc::new(CloudLogin::azure(azure, agent, &around))),
            (None, Some(google)) => client.signed_by(Arc::new(CloudLogin::google(google, agent, &around))),
            (None, None) => client,
        }
    })
}

/// What all targets say of their metrics, each thing once.
fn descriptions(scrapes: &ScrapeOverview) -> Vec<Description> {
    let (mut seen, mut all) = (HashSet::new(), Vec::new());
    for target in scrapes.pools().iter().flat_map(|pool| pool.active.iter()) {
        for family in target.cache.metadata() {
            let kind = kind_number(family.kind.name());
            let one = Description { kind, family: family.family, help: family.help, unit: family.unit };
            if seen.insert(one.clone()) {
                all.push(one);
            }
        }
    }
    all
}
