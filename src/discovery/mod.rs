//! Where targets come from: settings in, target groups out. One provider a file.
//!
//! Data flow: `config::discovery` says what to look at → [`ProviderConfig::start`] makes a [`Provider`], which yields a
//! [`Look`] whenever there is something to tell → an actor publishes it, the discovery manager merges the groups of a set
//! (a job) and hands them on, no more often than [`debounce`] allows.
//!
//! A further mechanism is a variant of [`ProviderConfig`] and a file with its [`refresh::Source`], if it is asked each
//! interval, or its [`Provider`], if it is watched. Both ask through `api` and fail with [`error::LookError`].

mod api;
mod aws_credentials;
pub mod aws_signer;
mod aws_xml;
pub mod consul;
mod consul_api;
pub mod debounce;
pub mod dns;
mod dns_wire;
pub mod docker;
mod docker_api;
pub mod dockerswarm;
pub mod ec2;
pub mod error;
pub mod file;
pub mod file_watch;
pub mod http;
pub mod kubernetes;
mod kubernetes_api;
mod kubernetes_groups;
mod kubernetes_objects;
mod labels;
pub mod metrics;
pub mod once;
pub mod refresh;
mod resolver;
pub mod surroundings;
mod watching;

use std::io;
use std::sync::Arc;

use futures::future::BoxFuture;

use crate::config::discovery::{
    AwsSd, ConsulSd, DiscoveryConfigs, DnsSd, DockerSd, DockerSwarmSd, Ec2Sd, FileSd, HttpSd, KubernetesSd,
};
use crate::config::inactive::working_discovery;
use crate::discovery::consul::ConsulProvider;
use crate::discovery::dns::DnsSource;
use crate::discovery::docker::DockerSource;
use crate::discovery::dockerswarm::SwarmSource;
use crate::discovery::ec2::Ec2Source;
use crate::discovery::file::{FileMetrics, FileProvider};
use crate::discovery::file_watch::FileWatch;
use crate::discovery::http::HttpSource;
use crate::discovery::kubernetes::KubernetesProvider;
use crate::discovery::metrics::SourceMetrics;
use crate::discovery::refresh::{Refreshing, Source};
use crate::discovery::surroundings::Surroundings;
use crate::model::clock::SharedClock;
use crate::model::duration::PromDuration;
use crate::model::labels::Labels;
use crate::telemetry::metrics::Registry;

/// The label that every target has.
const ADDRESS: &str = "__address__";

/// Targets with labels in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetGroup {
    /// Where it comes from; stands in error texts.
    pub source: String,
    /// Label sets of the targets, `__address__` among them.
    pub targets: Vec<Labels>,
    /// Labels that all have.
    pub labels: Labels,
}

impl From<&crate::config::TargetGroup> for TargetGroup {
    fn from(group: &crate::config::TargetGroup) -> Self {
        Self {
            source: group.source.clone(),
            targets: group.targets.iter().map(|address| Labels::from_pairs([(ADDRESS, address)])).collect(),
            labels: Labels::from_pairs(group.labels.0.iter()),
        }
    }
}

/// What a provider has to tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// All groups that there are now; none when they are unknown, and those of the last look stay.
    pub groups: Option<Vec<TargetGroup>>,
    /// What went wrong, if anything did. The provider has logged it.
    pub failure: Option<String>,
}

/// One source of target groups at work. A failure is a [`Look`]; a panic makes a new provider from the settings and the
/// last groups.
pub trait Provider: Send {
    /// Waits until there is something to tell. Dropping the future loses nothing. The waiting time between looks, after
    /// failures as well, is the provider's.
    fn next(&mut self) -> BoxFuture<'_, Look>;
}

/// Settings of one provider.
#[derive(Clone, Debug, PartialEq)]
pub enum ProviderConfig {
    /// `consul_sd_configs`.
    Consul(Box<ConsulSd>),
    /// `dns_sd_configs`.
    Dns(DnsSd),
    /// `docker_sd_configs`.
    Docker(DockerSd),
    /// `dockerswarm_sd_configs`.
    DockerSwarm(DockerSwarmSd),
    /// `ec2_sd_configs`, and `aws_sd_configs` of that role.
    Ec2(Box<Ec2Sd>),
    /// `file_sd_configs`.
    File(FileSd),
    /// `http_sd_configs`.
    Http(HttpSd),
    /// `kubernetes_sd_configs`.
    Kubernetes(Box<KubernetesSd>),
}

/// The providers that a configuration asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Providers {
    /// Those that there are.
    pub built: Vec<ProviderConfig>,
    /// Fields whose providers are not there yet; static targets need none.
    pub not_built: Vec<&'static str>,
}

impl From<&DiscoveryConfigs> for Providers {
    fn from(config: &DiscoveryConfigs) -> Self {
        let mut built = Vec::new();
        built.extend(config.consul.iter().cloned().map(|one| ProviderConfig::Consul(Box::new(one))));
        built.extend(config.dns.iter().cloned().map(ProviderConfig::Dns));
        built.extend(config.docker.iter().cloned().map(ProviderConfig::Docker));
        built.extend(config.dockerswarm.iter().cloned().map(ProviderConfig::DockerSwarm));
        let mut of_aws: Vec<Option<Ec2Sd>> = config.aws.iter().map(AwsSd::as_ec2).collect();
        let other_roles = of_aws.contains(&None);
        of_aws.extend(config.ec2.iter().cloned().map(Some));
        built.extend(of_aws.into_iter().flatten().map(|one| ProviderConfig::Ec2(Box::new(one))));
        built.extend(config.file.iter().cloned().map(ProviderConfig::File));
        built.extend(config.http.iter().cloned().map(ProviderConfig::Http));
        built.extend(config.kubernetes.iter().cloned().map(|one| ProviderConfig::Kubernetes(Box::new(one))));
        let mut not_built = config.kinds();
        let works = |kind: &str| working_discovery(kind) || kind == "aws_sd_configs" && !other_roles;
        not_built.retain(|kind| *kind != "static_configs" && !works(kind));
        Self { built, not_built }
    }
}

/// What providers of all kinds are given.
pub struct ProviderKit {
    /// Measures how long looks take.
    pub clock: SharedClock,
    /// Of all file providers.
    pub file: FileMetrics,
    /// Of all others.
    pub sources: Arc<SourceMetrics>,
    /// The machine's.
    pub surroundings: Surroundings,
}

impl ProviderKit {
    /// Registers the metrics of all kinds of providers.
    pub fn new(registry: &Arc<Registry>, clock: &SharedClock) -> Self {
        Self {
            clock: SharedClock::clone(clock),
            file: FileMetrics::new(registry, clock),
            sources: Arc::new(SourceMetrics::new(registry, clock)),
            surroundings: Surroundings::default(),
        }
    }
}

impl ProviderConfig {
    /// The mechanism's name, as in the field's name.
    pub fn mechanism(&self) -> &'static str {
        match self {
            Self::Consul(_) => "consul",
            Self::Dns(_) => "dns",
            Self::Docker(_) => "docker",
            Self::DockerSwarm(_) => "dockerswarm",
            Self::Ec2(_) => "ec2",
            Self::File(_) => "file",
            Self::Http(_) => "http",
            Self::Kubernetes(_) => "kubernetes",
        }
    }

    /// Starts the provider, in a runtime, for the set `set`. `last` are the groups that one with the same settings found
    /// last: it goes on from them. Errors when the system gives no thread.
    pub fn start(&self, kit: &ProviderKit, set: &str, last: &[TargetGroup]) -> io::Result<Box<dyn Provider>> {
        let metrics = &kit.sources;
        Ok(match self {
            Self::Consul(config) => Box::new(ConsulProvider::new(config, set, metrics, &kit.clock, last)),
            Self::Dns(config) => {
                let source = DnsSource::new(config, &kit.surroundings, metrics, last);
                self.each(config.refresh_interval, source, kit, set)
            }
            Self::Docker(config) => self.each(config.refresh_interval, DockerSource::new(config), kit, set),
            Self::DockerSwarm(config) => self.each(config.refresh_interval, SwarmSource::new(config), kit, set),
            Self::Ec2(config) => {
                let source = Ec2Source::new(config, &kit.surroundings, &kit.clock);
                self.each(config.refresh_interval, source, kit, set)
            }
            Self::File(config) => {
                let provider = FileProvider::new(config, &kit.file, &kit.clock, last);
                Box::new(FileWatch::start(provider, config.refresh_interval.to_std())?)
            }
            Self::Http(config) => self.each(config.refresh_interval, HttpSource::new(config, metrics), kit, set),
            Self::Kubernetes(config) => {
                Box::new(KubernetesProvider::new(config, set, &kit.surroundings, metrics, &kit.clock))
            }
        })
    }

    /// A provider that asks `source` each interval.
    fn each(
        &self,
        interval: PromDuration,
        source: impl Source + 'static,
        kit: &ProviderKit,
        set: &str,
    ) -> Box<dyn Provider> {
        Box::new(Refreshing::new(source, interval.to_std(), self.mechanism(), set, &kit.sources, &kit.clock))
    }
}
