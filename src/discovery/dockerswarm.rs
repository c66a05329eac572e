//! Targets from Docker Swarm's services, tasks and nodes, as in Prometheus `discovery/moby`.

use std::collections::BTreeMap;

use futures::future::{BoxFuture, FutureExt};
use tokio::time::Instant;

use crate::config::discovery::DockerSwarmSd;
use crate::discovery::api::wire;
use crate::discovery::docker_api::{Docker, Filters, copy, filters};
use crate::discovery::error::LookError;
use crate::discovery::labels::{host_port, set_each};
use crate::discovery::refresh::{Refreshed, Source};
use crate::discovery::{ADDRESS, TargetGroup};
use crate::model::labels::{Labels, LabelsBuilder};

const PREFIX: &str = "__meta_dockerswarm_";

/// A swarm, asked at one of its managers.
pub struct SwarmSource {
    config: DockerSwarmSd,
    filters: Filters,
    daemon: Option<Docker>,
}

wire! {
    struct Service {
        id: String = "ID",
        spec: ServiceSpec = "Spec",
        endpoint: ServiceEndpoint = "Endpoint",
        update: Option<State> = "UpdateStatus",
    }

    struct ServiceSpec {
        name: String = "Name",
        labels: BTreeMap<String, String> = "Labels",
        mode: Mode = "Mode",
        task: TaskSpec = "TaskTemplate",
    }

    struct Mode {
        global: Option<serde_json::Value> = "Global",
        replicated: Option<serde_json::Value> = "Replicated",
    }

    struct TaskSpec {
        container: Option<ContainerSpec> = "ContainerSpec",
    }

    struct ContainerSpec {
        image: String = "Image",
        hostname: String = "Hostname",
        labels: BTreeMap<String, String> = "Labels",
    }

    struct State {
        state: String = "State",
    }

    struct ServiceEndpoint {
        ports: Vec<Port> = "Ports",
        addresses: Vec<VirtualIp> = "VirtualIPs",
    }

    struct Port {
        name: String = "Name",
        protocol: String = "Protocol",
        published: u32 = "PublishedPort",
        mode: String = "PublishMode",
    }

    struct VirtualIp {
        network_id: String = "NetworkID",
        address: String = "Addr",
    }

    struct Node {
        id: String = "ID",
        spec: NodeSpec = "Spec",
        description: Description = "Description",
        status: NodeStatus = "Status",
        manager: Option<Manager> = "ManagerStatus",
    }

    struct NodeSpec {
        role: String = "Role",
        availability: String = "Availability",
        labels: BTreeMap<String, String> = "Labels",
    }

    struct Description {
        hostname: String = "Hostname",
        platform: Platform = "Platform",
        engine: Engine = "Engine",
    }

    struct Platform {
        architecture: String = "Architecture",
        os: String = "OS",
    }

    struct Engine {
        version: String = "EngineVersion",
    }

    struct NodeStatus {
        state: String = "State",
        address: String = "Addr",
    }

    struct Manager {
        leader: bool = "Leader",
        reachability: String = "Reachability",
        address: String = "Addr",
    }

    struct Task {
        id: String = "ID",
        service_id: String = "ServiceID",
        node_id: String = "NodeID",
        slot: i64 = "Slot",
        spec: TaskSpec = "Spec",
        status: TaskStatus = "Status",
        desired_state: String = "DesiredState",
        attachments: Vec<Attachment> = "NetworksAttachments",
    }

    struct TaskStatus {
        state: String = "State",
        container: Option<ContainerStatus> = "ContainerStatus",
        ports: PortStatus = "PortStatus",
    }

    struct ContainerStatus {
        id: String = "ContainerID",
    }

    struct PortStatus {
        ports: Vec<Port> = "Ports",
    }

    struct Attachment {
        network: AttachedNetwork = "Network",
        addresses: Vec<String> = "Addresses",
    }

    struct AttachedNetwork {
        id: String = "ID",
    }
}

impl SwarmSource {
    /// The swarm of a configuration.
    pub fn new(config: &DockerSwarmSd) -> Self {
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
        let (filters, port) = (&self.filters, self.config.port);
        let targets = match self.config.role.as_str() {
            "services" => of_services(daemon, filters, port, deadline).await?,
            "nodes" => of_nodes(daemon, filters, port, deadline).await?,
            _ => of_tasks(daemon, filters, port, deadline).await?,
        };
        Ok(vec![TargetGroup { source: "DockerSwarm".to_owned(), targets, labels: Labels::empty() }].into())
    }
}

impl Source for SwarmSource {
    fn look(&mut self) -> BoxFuture<'_, Result<Refreshed, LookError>> {
        self.groups().boxed()
    }
}

async fn of_services(
    daemon: &mut Docker,
    filters: &Filters,
    port: i64,
    deadline: Instant,
) -> Result<Vec<Labels>, LookError> {
    let listed = daemon.list("services", filters, deadline).await;
    let services: Vec<Service> = listed.map_err(|error| error.during("error while listing swarm services"))?;
    let networks = networks(daemon, deadline).await?;
    let mut targets = Vec::new();
    for service in &services {
        let mut common = service_labels(service);
        if let Some(container) = &service.spec.task.container {
            set(&mut common, "service_task_container_hostname", &container.hostname);
            set(&mut common, "service_task_container_image", &container.image);
        }
        if let Some(update) = &service.update {
            set(&mut common, "service_updating_status", &update.state);
        }
        for address in &service.endpoint.addresses {
            let ip = ip_of(&address.address)?;
            let base = |port: &dyn std::fmt::Display| {
                let mut labels = common.clone();
                copy(&mut labels, networks.get(&address.network_id));
                labels.set(ADDRESS, &host_port(ip, port));
                labels
            };
            let before = targets.len();
            for port in service.endpoint.ports.iter().filter(|port| port.protocol == "tcp") {
                let mut labels = base(&port.published);
                set(&mut labels, "service_endpoint_port_name", &port.name);
                set(&mut labels, "service_endpoint_port_publish_mode", &port.mode);
                targets.push(labels.build());
            }
            if targets.len() == before {
                targets.push(base(&port).build());
            }
        }
    }
    Ok(targets)
}

async fn of_nodes(
    daemon: &mut Docker,
    filters: &Filters,
    port: i64,
    deadline: Instant,
) -> Result<Vec<Labels>, LookError> {
    let listed = daemon.list("nodes", filters, deadline).await;
    let nodes: Vec<Node> = listed.map_err(|error| error.during("error while listing swarm nodes"))?;
    let target = |node: &Node| {
        let mut labels = node_labels(node);
        set(&mut labels, "node_engine_version", &node.description.engine.version);
        if let Some(manager) = &node.manager {
            set(&mut labels, "node_manager_leader", &manager.leader.to_string());
            set(&mut labels, "node_manager_reachability", &manager.reachability);
            set(&mut labels, "node_manager_address", &manager.address);
        }
        labels.set(ADDRESS, &host_port(&node.status.address, port));
        labels.build()
    };
    Ok(nodes.iter().map(target).collect())
}

async fn of_tasks(
    daemon: &mut Docker,
    filters: &Filters,
    port: i64,
    deadline: Instant,
) -> Result<Vec<Labels>, LookError> {
    let all = Filters::new();
    let listed = daemon.list("tasks", filters, deadline).await;
    let tasks: Vec<Task> = listed.map_err(|error| error.during("error while listing swarm services"))?;
    let listed = daemon.list("services", &all, deadline).await;
    let services: Vec<Service> =
        listed.map_err(|error| error.during("error while computing services labels and ports"))?;
    let listed =
        daemon.list("nodes", &all, deadline).await.map_err(|error| error.during("error while listing swarm nodes"));
    let nodes: Vec<Node> = listed.map_err(|error| error.during("error while computing nodes labels and ports"))?;
    let networks = networks(daemon, deadline).await?;
    let services: BTreeMap<&str, (Labels, &Service)> =
        services.iter().map(|one| (one.id.as_str(), (service_labels(one).build(), one))).collect();
    let nodes: BTreeMap<&str, (Labels, &Node)> =
        nodes.iter().map(|one| (one.id.as_str(), (node_labels(one).build(), one))).collect();
    let mut targets = Vec::new();
    for task in &tasks {
        let service = services.get(task.service_id.as_str());
        let node = nodes.get(task.node_id.as_str());
        let mut common = task_labels(task);
        copy(&mut common, service.map(|(labels, _)| labels));
        copy(&mut common, node.map(|(labels, _)| labels));
        let is_tcp = |port: &&Port| port.protocol == "tcp";
        for port in task.status.ports.ports.iter().filter(is_tcp) {
            let mut labels = common.clone();
            set(&mut labels, "task_port_publish_mode", &port.mode);
            let address = node.map_or("", |(_, node)| &node.status.address);
            labels.set(ADDRESS, &host_port(address, port.published));
            targets.push(labels.build());
        }
        for attachment in &task.attachments {
            for address in &attachment.addresses {
                let ip = ip_of(address)?;
                let base = |port: &dyn std::fmt::Display| {
                    let mut labels = common.clone();
                    copy(&mut labels, networks.get(&attachment.network.id));
                    labels.set(ADDRESS, &host_port(ip, port));
                    labels
                };
                let before = targets.len();
                for port in service.iter().flat_map(|(_, service)| &service.endpoint.ports).filter(is_tcp) {
                    let mut labels = base(&port.published);
                    set(&mut labels, "task_port_publish_mode", &port.mode);
                    targets.push(labels.build());
                }
                if targets.len() == before {
                    targets.push(base(&port).build());
                }
            }
        }
    }
    Ok(targets)
}

async fn networks(daemon: &mut Docker, deadline: Instant) -> Result<BTreeMap<String, Labels>, LookError> {
    let networks = daemon.networks(PREFIX, deadline).await;
    networks.map_err(|error| error.during("error while computing swarm network labels"))
}

fn set(labels: &mut LabelsBuilder, name: &str, value: &str) {
    labels.set(&format!("{PREFIX}{name}"), value);
}

fn service_labels(service: &Service) -> LabelsBuilder {
    let mut labels = LabelsBuilder::new();
    set(&mut labels, "service_id", &service.id);
    set(&mut labels, "service_name", &service.spec.name);
    let mode = match &service.spec.mode {
        Mode { global: Some(_), .. } => "global",
        Mode { replicated: Some(_), .. } => "replicated",
        _ => "",
    };
    set(&mut labels, "service_mode", mode);
    set_each(&mut labels, &format!("{PREFIX}service_label_"), &service.spec.labels);
    labels
}

fn node_labels(node: &Node) -> LabelsBuilder {
    let mut labels = LabelsBuilder::new();
    let described = &node.description;
    for (name, value) in [
        ("node_id", &node.id),
        ("node_role", &node.spec.role),
        ("node_address", &node.status.address),
        ("node_availability", &node.spec.availability),
        ("node_hostname", &described.hostname),
        ("node_platform_architecture", &described.platform.architecture),
        ("node_platform_os", &described.platform.os),
        ("node_status", &node.status.state),
    ] {
        set(&mut labels, name, value);
    }
    set_each(&mut labels, &format!("{PREFIX}node_label_"), &node.spec.labels);
    labels
}

fn task_labels(task: &Task) -> LabelsBuilder {
    let mut labels = LabelsBuilder::new();
    set(&mut labels, "task_id", &task.id);
    set(&mut labels, "task_desired_state", &task.desired_state);
    set(&mut labels, "task_state", &task.status.state);
    set(&mut labels, "task_slot", &task.slot.to_string());
    if let Some(container) = &task.status.container {
        set(&mut labels, "task_container_id", &container.id);
    }
    if let Some(container) = &task.spec.container {
        set_each(&mut labels, &format!("{PREFIX}container_label_"), &container.labels);
    }
    labels
}

/// The address of `10.0.0.2/24`.
fn ip_of(address: &str) -> Result<&str, LookError> {
    let ip = address.split_once('/').map(|(ip, _)| ip).filter(|ip| ip.parse::<std::net::IpAddr>().is_ok());
    ip.ok_or_else(|| {
        LookError::Other(format!("error while parsing address {address}: invalid CIDR address: {address}"))
    })
}
