//! Alerting to external Alertmanagers: from the configuration to notifiers.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::actors::alert_router::AlertRouter;
use crate::actors::config_reloader::PlanSection;
use crate::actors::drain::Stage;
use crate::actors::mailbox::BoundedAddr;
use crate::actors::notifier::NotifierRuntime;
use crate::actors::notifier_manager::{
    ApplyNotifiers, NotifierConsumer, NotifierManager, NotifierManagerDeps, NotifierOverview, NotifierSetSpec,
};
use crate::actors::policy::Policy;
use crate::actors::root::Root;
use crate::actors::supervision;
use crate::actors::threads::Thread;
use crate::cli::flags::ServerFlags;
use crate::cli::server::discovery::{self, Discovery, Purpose};
use crate::client::HttpClient;
use crate::config::LoadedConfig;
use crate::discovery::ProviderKit;
use crate::discovery::aws_signer::AwsSigner;
use crate::discovery::surroundings::Surroundings;
use crate::model::clock::SharedClock;
use crate::notify::endpoint::endpoints;
use crate::notify::metrics::NotifyMetrics;
use crate::notify::prepare::AlertRules;
use crate::notify::queue::QueueLimits;
use crate::telemetry::build_info;
use crate::telemetry::metrics::Registry;

/// How long the manager may take to say which notifiers have confirmed: longer than they have.
const CONFIRM_WITHIN: Duration = Duration::from_secs(15);

/// The notifiers, and the way to them.
pub(super) struct ExternalAlerting {
    /// Takes the alerts of rule groups.
    pub(super) router: Arc<AlertRouter>,
    manager: BoundedAddr<NotifierManager>,
    deps: Arc<NotifierManagerDeps>,
    discovery: Discovery,
    registry: Arc<Registry>,
    clock: SharedClock,
}

impl ExternalAlerting {
    /// Starts the manager, without Alertmanagers.
    pub(super) fn start(
        flags: &ServerFlags,
        registry: &Arc<Registry>,
        clock: &SharedClock,
        root: &Root,
        (thread, for_discovery): (&Thread, &Thread),
        kit: &Arc<ProviderKit>,
    ) -> Self {
        let alerts = &flags.alerts;
        let runtime = Arc::new(NotifierRuntime {
            limits: QueueLimits { capacity: alerts.queue_capacity, batch_len_max: alerts.batch_len_max },
            drain_on_shutdown: alerts.drain_on_shutdown,
            metrics: NotifyMetrics::new(registry, clock, alerts.queue_capacity),
            policy: Policy::PERMANENT,
        });
        let deps = NotifierManagerDeps::new(runtime, thread.clone());
        let for_actor = Arc::clone(&deps);
        let place = root.parent().place("notifiers");
        let manager =
            supervision::spawn(thread, Policy::PERMANENT, place, move |_| NotifierManager::new(Arc::clone(&for_actor)));
        root.add(Stage::Alerts, manager.clone());
        let consumer = Arc::new(NotifierConsumer { deps: Arc::clone(&deps), manager: manager.clone() });
        let purpose = Purpose { place: "alertmanager-discovery", name: "notify", consumer };
        let discovery = Discovery::start(root, for_discovery, registry, clock, kit, purpose);
        Self {
            router: Arc::new(AlertRouter::new(Arc::clone(&deps.overview))),
            manager,
            deps,
            discovery,
            registry: Arc::clone(registry),
            clock: SharedClock::clone(clock),
        }
    }

    /// Makes rules and notifiers what the configuration says; answers with the actors that did not confirm in time.
    pub(super) async fn apply(&self, loaded: &LoadedConfig) -> Vec<String> {
        self.router.set_rules(rules(loaded));
        let specs = specs(loaded, &self.registry, &self.clock);
        for err in specs.iter().flat_map(NotifierSetSpec::failures) {
            tracing::error!(component = "notifier", %err, "Creating discovered Alertmanagers failed");
        }
        *self.deps.specs.lock() = specs;
        let alertmanagers = loaded.config.alerting.alertmanagers.iter().enumerate();
        let sets = alertmanagers.map(|(index, config)| discovery::set(set_name(index), &config.discovery));
        self.discovery.store(sets.collect());
        let mut unconfirmed = self.discovery.apply().await;
        match self.manager.ask(ApplyNotifiers, Instant::now() + CONFIRM_WITHIN).await {
            Ok(notifiers) => unconfirmed.extend(notifiers),
            Err(error) => unconfirmed.push(format!("notifier_manager: {error}")),
        }
        unconfirmed
    }

    /// What would become of the Alertmanagers with this configuration.
    pub(super) fn plan(&self, loaded: &LoadedConfig) -> PlanSection {
        let after = specs(loaded, &self.registry, &self.clock);
        let before = self.deps.specs.lock();
        let each = NotifierSetSpec::each;
        PlanSection::compare("alertmanager", before.iter().flat_map(each), after.iter().flat_map(each))
    }

    /// Which Alertmanagers there are.
    pub(super) fn overview(&self) -> Arc<NotifierOverview> {
        Arc::clone(&self.deps.overview)
    }
}

/// What the discovery of a configuration of Alertmanagers is called, as in Prometheus.
fn set_name(index: usize) -> String {
    format!("config-{index}")
}

fn rules(loaded: &LoadedConfig) -> AlertRules {
    AlertRules {
        external_labels: loaded.config.global.external_labels.labels(),
        relabel: loaded.config.alerting.alert_relabel_configs.clone().into(),
    }
}

fn specs(loaded: &LoadedConfig, registry: &Registry, clock: &SharedClock) -> Vec<NotifierSetSpec> {
    let mut specs = Vec::new();
    for (index, config) in loaded.config.alerting.alertmanagers.iter().enumerate() {
        let found = endpoints(config, &config.discovery.static_configs);
        let mut client = HttpClient::from_config(build_info::user_agent(), &config.http);
        client.count_connections(registry, "alertmanager");
        if let Some(sigv4) = &config.sigv4 {
            client = client.signed_by(AwsSigner::new(sigv4, &Surroundings::default(), clock));
        }
        specs.push(NotifierSetSpec::new(config, client, found).discovered_as(set_name(index), config));
    }
    specs
}
