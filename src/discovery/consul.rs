//! Targets from Consul, as in Prometheus `discovery/consul`: the catalog is watched for services, and each service for its
//! instances, by blocking queries.
//!
//! Nothing is told before each service of the first catalog has answered once, so that nobody sees half of it. A service that
//! does not answer keeps its last instances.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use tokio::time::{Instant, sleep_until};

use crate::config::discovery::ConsulSd;
use crate::discovery::consul_api::{Consul, Entry, Services, aggregated_status};
use crate::discovery::error::LookError;
use crate::discovery::labels::{host_port, set_each};
use crate::discovery::metrics::SourceMetrics;
use crate::discovery::watching::{BackOff, Watched, Watching};
use crate::discovery::{ADDRESS, Look, Provider, TargetGroup};
use crate::model::clock::SharedClock;
use crate::model::labels::{Labels, LabelsBuilder};
use crate::telemetry::repeat::{RepeatLimiter, Verdict};

const PREFIX: &str = "__meta_consul_";
/// Waits after failures.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(15);

/// What is watched at an agent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Topic {
    Datacenter,
    Catalog,
    Service(String),
}

/// What is shared by all that is watched at an agent.
struct Shared {
    agent: Consul,
    interval: Duration,
    metrics: Arc<SourceMetrics>,
    clock: SharedClock,
}

/// One topic, asked again and again.
struct Query {
    topic: Topic,
    index: u64,
    due: Instant,
    back_off: BackOff,
    shared: Arc<Shared>,
}

enum News {
    Datacenter(String),
    Services(Services),
    Instances(Vec<Entry>),
    /// The watch has timed out.
    Nothing,
}

impl Watched for Query {
    type Key = Topic;
    type Event = Result<News, LookError>;

    fn key(&self) -> Topic {
        self.topic.clone()
    }

    fn step(mut self) -> BoxFuture<'static, (Self, Self::Event)> {
        let step = async move {
            sleep_until(self.due).await;
            let (shared, began) = (Arc::clone(&self.shared), self.shared.clock.monotonic());
            self.due = Instant::now() + shared.interval;
            let news = match &self.topic {
                Topic::Datacenter => shared.agent.datacenter().await.map(|name| (News::Datacenter(name), 0)),
                Topic::Catalog => {
                    shared.agent.services(self.index).await.map(|(all, index)| (News::Services(all), index))
                }
                Topic::Service(name) => {
                    let health = shared.agent.health(name, self.index).await;
                    health.map(|(entries, index)| (News::Instances(entries), index))
                }
            };
            let took = shared.clock.monotonic().saturating_sub(began).as_secs_f64();
            match &self.topic {
                Topic::Datacenter => {}
                Topic::Catalog => shared.metrics.consul_services.observe(took),
                Topic::Service(_) => shared.metrics.consul_service.observe(took),
            }
            let news = match news {
                Ok((news, index)) => {
                    self.back_off.succeeded();
                    // An index of 0 is none at all.
                    let same = index == self.index && index != 0;
                    self.index = index;
                    Ok(if same { News::Nothing } else { news })
                }
                Err(error) => {
                    shared.metrics.consul_failures.inc();
                    self.due = self.due.max(Instant::now() + self.back_off.failed());
                    Err(error)
                }
            };
            (self, news)
        };
        step.boxed()
    }
}

/// The services of one configuration.
pub struct ConsulProvider {
    config: ConsulSd,
    set: String,
    metrics: Arc<SourceMetrics>,
    clock: SharedClock,
    watching: Watching<Query>,
    shared: Option<Arc<Shared>>,
    datacenter: String,
    /// The instances of each service, by its name.
    groups: BTreeMap<String, TargetGroup>,
    /// Services of the first catalog that have not answered yet; none at all before the catalog is known.
    unanswered: Option<BTreeSet<String>>,
    /// Failures of what is watched.
    failures: BTreeMap<Topic, String>,
    repeats: RepeatLimiter,
    changed: bool,
}

impl ConsulProvider {
    /// A provider that has not asked yet. `last` are groups of an earlier one with the same settings.
    pub fn new(
        config: &ConsulSd,
        set: &str,
        metrics: &Arc<SourceMetrics>,
        clock: &SharedClock,
        last: &[TargetGroup],
    ) -> Self {
        Self {
            config: config.clone(),
            set: set.to_owned(),
            metrics: Arc::clone(metrics),
            clock: SharedClock::clone(clock),
            watching: Watching::default(),
            shared: None,
            datacenter: config.datacenter.clone(),
            groups: last.iter().map(|group| (group.source.clone(), group.clone())).collect(),
            unanswered: None,
            failures: BTreeMap::new(),
            repeats: RepeatLimiter::default(),
            changed: false,
        }
    }

    /// Begins to ask.
    fn start(&mut self) -> Result<(), LookError> {
        if self.shared.is_some() {
            return Ok(());
        }
        self.shared = Some(Arc::new(Shared {
            agent: Consul::new(&self.config, &self.metrics)?,
            interval: self.config.refresh_interval.to_std(),
            metrics: Arc::clone(&self.metrics),
            clock: SharedClock::clone(&self.clock),
        }));
        if self.datacenter.is_empty() {
            self.watch(Topic::Datacenter)
        } else {
            self.watch_services()
        }
        Ok(())
    }

    fn watch(&mut self, topic: Topic) {
        if let Some(shared) = &self.shared {
            let (due, shared) = (Instant::now(), Arc::clone(shared));
            self.watching.add(Query { topic, index: 0, due, back_off: BackOff::new(RETRY_MIN, RETRY_MAX), shared });
        }
    }

    /// The catalog has to be watched unless the configuration names all services and takes them as they are.
    fn watch_services(&mut self) {
        let config = &self.config;
        if config.services.is_empty() || !config.tags.is_empty() || !config.filter.is_empty() {
            return self.watch(Topic::Catalog);
        }
        let services: BTreeSet<String> = config.services.iter().cloned().collect();
        self.groups.retain(|name, _| services.contains(name));
        self.unanswered = Some(services.clone());
        services.into_iter().for_each(|name| self.watch(Topic::Service(name)));
    }

    fn wants(&self, name: &str, tags: &[String]) -> bool {
        let config = &self.config;
        let by_name = config.services.is_empty() || config.services.iter().any(|wanted| wanted == name);
        by_name && config.tags.iter().all(|wanted| tags.contains(wanted))
    }

    fn apply(&mut self, topic: Topic, news: Result<News, LookError>) {
        if let Topic::Service(name) = &topic
            && let Some(unanswered) = &mut self.unanswered
        {
            self.changed |= unanswered.remove(name) && unanswered.is_empty();
        }
        let news = match news {
            Ok(news) => news,
            Err(error) => {
                let first = self.failures.insert(topic.clone(), error.to_string());
                self.changed |= first.is_none_or(|before| before != error.to_string());
                return self.log(&topic, &error);
            }
        };
        if self.failures.remove(&topic).is_some() {
            self.changed = true;
            self.repeats.succeeded();
        }
        match (topic, news) {
            (topic, News::Datacenter(name)) => {
                self.watching.remove(&topic);
                self.datacenter = name;
                self.watch_services();
            }
            (_, News::Services(services)) => self.apply_services(&services),
            (Topic::Service(name), News::Instances(entries)) => {
                let group = self.group(&name, &entries);
                if self.groups.get(&name) != Some(&group) {
                    self.groups.insert(name, group);
                    self.changed = true;
                }
            }
            (_, _) => {}
        }
    }

    fn apply_services(&mut self, services: &Services) {
        let gone = |name: &String| !services.contains_key(name);
        for name in self.groups.keys().filter(|name| gone(name)).cloned().collect::<Vec<_>>() {
            self.groups.remove(&name);
            self.changed = true;
        }
        let mut wanted = BTreeSet::new();
        for (name, tags) in services {
            let topic = Topic::Service(name.clone());
            let watched = self.watching.contains(&topic);
            // As in Prometheus, a service that is watched stays so until it is gone, whatever becomes of its tags.
            if !watched && self.wants(name, tags.as_deref().unwrap_or_default()) {
                self.watch(topic);
                wanted.insert(name.clone());
            }
        }
        for topic in self.watching.keys() {
            if matches!(&topic, Topic::Service(name) if gone(name)) {
                self.watching.remove(&topic);
                self.failures.remove(&topic);
                if let (Topic::Service(name), Some(unanswered)) = (&topic, &mut self.unanswered) {
                    unanswered.remove(name);
                }
            }
        }
        if self.unanswered.is_none() {
            // What earlier providers have found and this one does not want.
            self.groups.retain(|name, _| wanted.contains(name));
            self.changed |= wanted.is_empty();
            self.unanswered = Some(wanted);
        }
    }

    fn log(&mut self, topic: &Topic, error: &LookError) {
        let (component, discovery, config, err) = ("discovery", "consul", self.set.as_str(), error.to_string());
        if let Verdict::Log { repeated } = self.repeats.failed(&err, self.clock.monotonic()) {
            match topic {
                Topic::Datacenter => {
                    tracing::error!(component, discovery, config, err, repeated, "Error retrieving datacenter name");
                }
                Topic::Catalog => {
                    tracing::error!(component, discovery, config, err, repeated, "Error refreshing service list");
                }
                Topic::Service(service) => {
                    tracing::error!(component, discovery, config, service, err, repeated, "Error refreshing service");
                }
            }
        }
    }

    /// What there is to tell, once all have answered or something has failed.
    fn look(&mut self) -> Option<Look> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let failure = self.failures.values().next().cloned();
        let complete = self.unanswered.as_ref().is_some_and(BTreeSet::is_empty);
        let groups = complete.then(|| self.groups.values().cloned().collect());
        (groups.is_some() || failure.is_some()).then_some(Look { groups, failure })
    }

    fn group(&self, service: &str, entries: &[Entry]) -> TargetGroup {
        let labels = [("__meta_consul_service", service), ("__meta_consul_dc", self.datacenter.as_str())];
        TargetGroup {
            source: service.to_owned(),
            targets: entries.iter().map(|entry| target(entry, &self.config.tag_separator)).collect(),
            labels: Labels::from_pairs(labels),
        }
    }
}

impl Provider for ConsulProvider {
    fn next(&mut self) -> BoxFuture<'_, Look> {
        let look = async {
            if let Err(error) = self.start() {
                // Its settings stay what they are, so this is told once and there is nothing to try again.
                if self.failures.insert(Topic::Catalog, error.to_string()).is_some() {
                    std::future::pending::<()>().await;
                }
                self.log(&Topic::Catalog, &error);
                return Look { groups: None, failure: Some(error.to_string()) };
            }
            loop {
                let (topic, news) = self.watching.next().await;
                self.apply(topic, news);
                for (topic, news) in self.watching.ready() {
                    self.apply(topic, news);
                }
                if let Some(look) = self.look() {
                    return look;
                }
            }
        };
        look.boxed()
    }
}

fn target(entry: &Entry, separator: &str) -> Labels {
    let Entry { node, service, checks } = entry;
    let host = if service.address.is_empty() { &node.address } else { &service.address };
    let mut labels = LabelsBuilder::new();
    let mut set = |name: &str, value: &str| {
        labels.set(&format!("{PREFIX}{name}"), value);
    };
    set("address", &node.address);
    set("node", &node.name);
    set("namespace", &service.namespace);
    set("partition", &service.partition);
    // Separators stand at both ends as well, so that patterns need not care where a tag stands.
    set("tags", &format!("{separator}{}{separator}", service.tags.join(separator)));
    set("service_address", &service.address);
    set("service_port", &service.port.to_string());
    set("service_id", &service.id);
    set("health", aggregated_status(checks));
    set_each(&mut labels, "__meta_consul_metadata_", &node.meta);
    set_each(&mut labels, "__meta_consul_service_metadata_", &service.meta);
    set_each(&mut labels, "__meta_consul_tagged_address_", &node.tagged_addresses);
    labels.set(ADDRESS, &host_port(host, service.port));
    labels.build()
}
