//! Targets from Docker's containers, as in Prometheus `discovery/moby/docker.go`: one for each TCP port of a container in each
//! of its networks, or one at the configured port for a container without.

use std::collections::BTreeMap;

use futures::future::{BoxFuture, FutureExt};

use crate::config::discovery::DockerSd;
use crate::discovery::api::wire;
use crate::discovery::docker_api::{Docker, Filters, copy, filters};
use crate::discovery::error::LookError;
use crate::discovery::labels::{host_port, set_each};
use crate::discovery::refresh::{Refreshed, Source};
use crate::discovery::{ADDRESS, TargetGroup};
use crate::model::labels::{Labels, LabelsBuilder};

const PREFIX: &str = "__meta_docker_";

/// A daemon's containers.
pub struct DockerSource {
    config: DockerSd,
    filters: Filters,
    daemon: Option<Docker>,
}

wire! {
    struct Container {
        id: String = "Id",
        names: Vec<String> = "Names",
        image: String = "Image",
        image_id: String = "ImageID",
        labels: BTreeMap<String, String> = "Labels",
        ports: Vec<Port> = "Ports",
        host: HostConfig = "HostConfig",
        settings: NetworkSettings = "NetworkSettings",
    }

    struct Port {
        ip: String = "IP",
        private: u16 = "PrivatePort",
        public: u16 = "PublicPort",
        kind: String = "Type",
    }

    struct HostConfig {
        mode: String = "NetworkMode",
    }

    struct NetworkSettings {
        networks: BTreeMap<String, Option<Endpoint>> = "Networks",
    }

    struct Endpoint {
        network_id: String = "NetworkID",
        ip: String = "IPAddress",
        ipv6: String = "GlobalIPv6Address",
    }
}

impl Endpoint {
    fn address(&self) -> &str {
        if self.ip.is_empty() { &self.ipv6 } else { &self.ip }
    }
}

impl DockerSource {
    /// The daemon of a configuration.
    pub fn new(config: &DockerSd) -> Self {
        let filters = filters(config.filters.iter().map(|filter| (&filter.name, &filter.values)));
        Self { config: config.clone(), filters, daemon: None }
    }

    async fn groups(&mut self) -> Result<Refreshed, LookError> {
        let daemon = match &mut self.daemon {
            Some(daemon) => daemon,
            none => {
                let timeout = self.config.refresh_interval.to_std();
                none.insert(Docker::new(&self.config.host, &self.config.http, timeout)?)
            }
        };
        let deadline = daemon.deadline();
        let listing = daemon.list("containers/json", &self.filters, deadline).await;
        let containers: Vec<Container> = listing.map_err(|error| error.during("error while listing containers"))?;
        let networks = daemon.networks(PREFIX, deadline).await;
        let networks = networks.map_err(|error| error.during("error while computing network labels"))?;
        let by_id: BTreeMap<&str, &Container> = containers.iter().map(|one| (one.id.as_str(), one)).collect();
        let mut targets = Vec::new();
        for container in containers.iter().filter(|container| !container.names.is_empty()) {
            self.of_container(container, &by_id, &networks, &mut targets);
        }
        Ok(vec![TargetGroup { source: "Docker".to_owned(), targets, labels: Labels::empty() }].into())
    }

    fn of_container(
        &self,
        container: &Container,
        all: &BTreeMap<&str, &Container>,
        networks: &BTreeMap<String, Labels>,
        targets: &mut Vec<Labels>,
    ) {
        let common = common_labels(container);
        let mut endpoints: Vec<&Endpoint> = endpoints(container, all).values().flatten().collect();
        if self.config.match_first_network {
            endpoints.truncate(1);
        }
        for endpoint in endpoints {
            let base = |address: &str| {
                let mut labels = common.clone();
                copy(&mut labels, networks.get(&endpoint.network_id));
                labels.set(&format!("{PREFIX}network_ip"), endpoint.address()).set(ADDRESS, address);
                labels
            };
            let before = targets.len();
            for port in container.ports.iter().filter(|port| port.kind == "tcp") {
                let mut labels = base(&host_port(endpoint.address(), port.private));
                labels.set(&format!("{PREFIX}port_private"), &port.private.to_string());
                if port.public != 0 {
                    labels.set(&format!("{PREFIX}port_public"), &port.public.to_string());
                    labels.set(&format!("{PREFIX}port_public_ip"), &port.ip);
                }
                targets.push(labels.build());
            }
            if targets.len() == before {
                // Containers in the host's network have no ports of their own.
                let address = match container.host.mode.as_str() {
                    "host" => self.config.host_networking_host.clone(),
                    _ => host_port(endpoint.address(), self.config.port),
                };
                targets.push(base(&address).build());
            }
        }
    }
}

impl Source for DockerSource {
    fn look(&mut self) -> BoxFuture<'_, Result<Refreshed, LookError>> {
        self.groups().boxed()
    }
}

fn common_labels(container: &Container) -> LabelsBuilder {
    let mut labels = LabelsBuilder::new();
    let mut set = |name: &str, value: &str| {
        labels.set(&format!("{PREFIX}container_{name}"), value);
    };
    set("id", &container.id);
    set("name", container.names.first().map_or("", String::as_str));
    set("network_mode", &container.host.mode);
    set("image", &container.image);
    set("image_id", &container.image_id);
    set_each(&mut labels, &format!("{PREFIX}container_label_"), &container.labels);
    labels
}

/// The container's networks, or those of the container whose networks it shares.
fn endpoints<'a>(
    container: &'a Container,
    all: &BTreeMap<&str, &'a Container>,
) -> &'a BTreeMap<String, Option<Endpoint>> {
    let mut of = container;
    // Containers that share each other's networks in a circle have none.
    for _ in 0..all.len() {
        if !of.settings.networks.is_empty() {
            break;
        }
        let Some(next) = of.host.mode.strip_prefix("container:").and_then(|id| all.get(id)) else { break };
        of = next;
    }
    &of.settings.networks
}
