//! From Kubernetes's objects to target groups, as in Prometheus `discovery/kubernetes`: plain functions of what is known.

use std::collections::BTreeMap;

use crate::discovery::kubernetes_objects::{
    Container, ContainerStatus, EndpointAddress, EndpointPort, EndpointSlice, Endpoints, Ingress, Kind, Meta, Node,
    Object, Pod, Reference, Service, SliceEndpoint, SlicePort, namespaced,
};
use crate::discovery::labels::{host_port, sanitize};
use crate::discovery::{ADDRESS, TargetGroup};
use crate::model::labels::{INSTANCE, Labels, LabelsBuilder};

const PREFIX: &str = "__meta_kubernetes_";
/// The label of an endpoint slice that names its service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label of endpoints that are too many for one object.
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";

/// What is looked up beside the objects themselves.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Attach {
    pub(super) node: bool,
    pub(super) namespace: bool,
    pub(super) deployment: bool,
    pub(super) job: bool,
    pub(super) cronjob: bool,
}

/// All objects that are known, by kind and key.
#[derive(Default)]
pub(super) struct Store {
    objects: BTreeMap<Kind, BTreeMap<String, Object>>,
}

impl Store {
    /// Answers with the object that was there before.
    pub(super) fn insert(&mut self, kind: Kind, object: Object) -> Option<Object> {
        self.objects.entry(kind).or_default().insert(object.key(), object)
    }

    pub(super) fn remove(&mut self, kind: Kind, key: &str) -> Option<Object> {
        self.objects.get_mut(&kind)?.remove(key)
    }

    pub(super) fn get(&self, kind: Kind, key: &str) -> Option<&Object> {
        self.objects.get(&kind)?.get(key)
    }

    /// All objects of a kind, by their keys.
    pub(super) fn each(&self, kind: Kind) -> impl Iterator<Item = (&String, &Object)> {
        self.objects.get(&kind).into_iter().flatten()
    }

    fn pod(&self, reference: Option<&Reference>) -> Option<&Pod> {
        let reference = reference.filter(|reference| reference.kind == "Pod")?;
        match self.get(Kind::Pod, &namespaced(&reference.namespace, &reference.name)) {
            Some(Object::Pod(pod)) => Some(pod),
            _ => None,
        }
    }

    fn service(&self, key: &str) -> Option<&Service> {
        match self.get(Kind::Service, key) {
            Some(Object::Service(service)) => Some(service),
            _ => None,
        }
    }
}

/// Makes groups of objects.
pub(super) struct Maker<'a> {
    pub(super) store: &'a Store,
    pub(super) attach: Attach,
}

/// Ports of a pod that endpoints have made targets of.
struct SeenPod<'a> {
    pod: &'a Pod,
    ports: Vec<i64>,
}

type SeenPods<'a> = BTreeMap<String, SeenPod<'a>>;

/// Whether the group of `object` depends on the object of kind `kind` with this key.
pub(super) fn depends(store: &Store, object: &Object, kind: Kind, key: &str) -> bool {
    let controlled = |pod: &Pod| {
        let by = pod.meta.controller().filter(|by| by.kind.eq_ignore_ascii_case(kind.role()));
        by.is_some_and(|by| namespaced(&pod.meta.namespace, &by.name) == key)
    };
    let refers = |reference: Option<&Reference>, node: Option<&String>| match kind {
        Kind::Node => {
            let named = reference.filter(|reference| reference.kind == "Node").map(|reference| &reference.name);
            [named, node].into_iter().flatten().any(|name| name == key)
        }
        Kind::Pod => reference.is_some_and(|to| to.kind == "Pod" && namespaced(&to.namespace, &to.name) == key),
        Kind::ReplicaSet | Kind::Job => store.pod(reference).is_some_and(controlled),
        _ => false,
    };
    match (kind, object) {
        (Kind::Namespace, _) => object.meta().namespace == key,
        (Kind::Service, Object::Endpoints(endpoints)) => endpoints.meta.key() == key,
        (Kind::Service, Object::EndpointSlice(slice)) => {
            let service = slice.meta.labels.get(SERVICE_NAME);
            service.is_some_and(|service| namespaced(&slice.meta.namespace, service) == key)
        }
        (Kind::Node, Object::Pod(pod)) => pod.spec.node == key,
        (_, Object::Pod(pod)) => controlled(pod),
        (_, Object::Endpoints(endpoints)) => {
            let mut all = endpoints.subsets.iter().flat_map(|subset| subset.ready.iter().chain(&subset.not_ready));
            all.any(|address| refers(address.target.as_ref(), address.node.as_ref()))
        }
        (_, Object::EndpointSlice(slice)) => {
            slice.endpoints.iter().any(|endpoint| refers(endpoint.target.as_ref(), endpoint.node.as_ref()))
        }
        _ => false,
    }
}

impl<'a> Maker<'a> {
    /// The group of an object; none for an object without targets.
    pub(super) fn group(&self, object: &'a Object) -> Option<TargetGroup> {
        let (kind, made) = match object {
            Object::Pod(pod) => ("pod", self.of_pod(pod)),
            Object::Service(service) => ("svc", Some(self.of_service(service))),
            Object::Endpoints(endpoints) => ("endpoints", Some(self.of_endpoints(endpoints))),
            Object::EndpointSlice(slice) => ("endpointslice", Some(self.of_slice(slice))),
            Object::Ingress(ingress) => ("ingress", Some(self.of_ingress(ingress))),
            Object::Node(node) => ("node", of_node(node)),
            Object::Bare(_) => return None,
        };
        let (labels, targets) = made.filter(|(_, targets)| !targets.is_empty())?;
        Some(TargetGroup { source: format!("{kind}/{}", object.key()), targets, labels: labels.build() })
    }

    fn of_pod(&self, pod: &Pod) -> Option<(LabelsBuilder, Vec<Labels>)> {
        let ip = &pod.status.ip;
        // The node may have been left out by its selectors.
        let has_node = !self.attach.node || self.store.get(Kind::Node, &pod.spec.node).is_some();
        if ip.is_empty() || !has_node {
            return None;
        }
        let mut labels = LabelsBuilder::new();
        self.pod_labels(&mut labels, pod);
        set(&mut labels, "namespace", &pod.meta.namespace);
        if self.attach.node {
            self.node_labels(&mut labels, Some(&pod.spec.node));
        }
        self.namespace_labels(&mut labels, &pod.meta.namespace);
        let mut targets = Vec::new();
        for (container, is_init) in containers(pod) {
            let statuses = if is_init { &pod.status.init_containers } else { &pod.status.containers };
            let mut common = LabelsBuilder::new();
            set(&mut common, "pod_container_name", &container.name);
            set(&mut common, "pod_container_id", id_of(statuses, &container.name));
            set(&mut common, "pod_container_image", &container.image);
            set(&mut common, "pod_container_init", &is_init.to_string());
            if container.ports.is_empty() {
                // Whoever scrapes it adds a port.
                targets.push(common.set(ADDRESS, ip).build());
                continue;
            }
            for port in &container.ports {
                let mut target = common.clone();
                target.set(ADDRESS, &host_port(ip, port.port));
                set(&mut target, "pod_container_port_number", &port.port.to_string());
                set(&mut target, "pod_container_port_name", &port.name);
                set(&mut target, "pod_container_port_protocol", &port.protocol);
                targets.push(target.build());
            }
        }
        Some((labels, targets))
    }

    fn of_service(&self, service: &Service) -> (LabelsBuilder, Vec<Labels>) {
        let (meta, spec) = (&service.meta, &service.spec);
        let mut labels = service_labels(service);
        self.namespace_labels(&mut labels, &meta.namespace);
        let target = |port: &crate::discovery::kubernetes_objects::ServicePort| {
            let mut target = LabelsBuilder::new();
            target.set(ADDRESS, &host_port(&format!("{}.{}.svc", meta.name, meta.namespace), port.port));
            set(&mut target, "service_port_name", &port.name);
            set(&mut target, "service_port_number", &port.port.to_string());
            set(&mut target, "service_port_protocol", &port.protocol);
            set(&mut target, "service_type", &spec.kind);
            match spec.kind.as_str() {
                "ExternalName" => set(&mut target, "service_external_name", &spec.external_name),
                _ => set(&mut target, "service_cluster_ip", &spec.cluster_ip),
            }
            if spec.kind == "LoadBalancer" {
                let ingress = service.status.load_balancer.ingress.iter().map(|ingress| ingress.ip.as_str());
                let ips: Vec<&str> = ingress.filter(|ip| !ip.is_empty()).collect();
                let ips = if ips.is_empty() { spec.load_balancer_ip.clone() } else { ips.join(",") };
                set(&mut target, "service_loadbalancer_ip", &ips);
            }
            target.build()
        };
        (labels, spec.ports.iter().map(target).collect())
    }

    fn of_ingress(&self, ingress: &Ingress) -> (LabelsBuilder, Vec<Labels>) {
        let mut labels = LabelsBuilder::new();
        set(&mut labels, "namespace", &ingress.meta.namespace);
        set(&mut labels, "ingress_class_name", ingress.spec.class.as_deref().unwrap_or(""));
        object_labels(&mut labels, &ingress.meta, "ingress");
        self.namespace_labels(&mut labels, &ingress.meta.namespace);
        let mut targets = Vec::new();
        for rule in &ingress.spec.rules {
            let mut hosts = ingress.spec.tls.iter().flat_map(|tls| &tls.hosts);
            let scheme = if hosts.any(|pattern| matches_host(pattern, &rule.host)) { "https" } else { "http" };
            let paths: Vec<&str> = match &rule.http {
                Some(http) => http.paths.iter().map(|path| path.path.as_str()).collect(),
                None => vec!["/"],
            };
            for path in paths {
                let mut target = LabelsBuilder::new();
                target.set(ADDRESS, &rule.host);
                set(&mut target, "ingress_scheme", scheme);
                set(&mut target, "ingress_host", &rule.host);
                set(&mut target, "ingress_path", if path.is_empty() { "/" } else { path });
                targets.push(target.build());
            }
        }
        (labels, targets)
    }

    fn of_endpoints(&self, endpoints: &'a Endpoints) -> (LabelsBuilder, Vec<Labels>) {
        let meta = &endpoints.meta;
        let mut labels = LabelsBuilder::new();
        if let Some(service) = self.store.service(&meta.key()) {
            labels = service_labels(service);
        }
        set(&mut labels, "namespace", &meta.namespace);
        object_labels(&mut labels, meta, "endpoints");
        self.namespace_labels(&mut labels, &meta.namespace);
        if meta.labels.get(OVER_CAPACITY).is_some_and(|state| state == "truncated") {
            let endpoint = meta.key();
            let text = "Number of endpoints in one Endpoints object exceeds 1000 and has been truncated, please use \
                        \"role: endpointslice\" instead";
            tracing::warn!(component = "discovery", discovery = "kubernetes", endpoint, "{text}");
        }
        let (mut targets, mut seen) = (Vec::new(), SeenPods::new());
        for subset in &endpoints.subsets {
            for port in &subset.ports {
                for (addresses, ready) in [(&subset.ready, "true"), (&subset.not_ready, "false")] {
                    for address in addresses {
                        targets.push(self.of_endpoint(address, port, ready, &mut seen));
                    }
                }
            }
        }
        self.unseen_ports(&seen, &mut targets);
        (labels, targets)
    }

    fn of_endpoint(
        &self,
        address: &'a EndpointAddress,
        port: &EndpointPort,
        ready: &str,
        seen: &mut SeenPods<'a>,
    ) -> Labels {
        let mut target = LabelsBuilder::new();
        target.set(ADDRESS, &host_port(&address.ip, port.port));
        set(&mut target, "endpoint_port_name", &port.name);
        set(&mut target, "endpoint_port_protocol", &port.protocol);
        set(&mut target, "endpoint_ready", ready);
        let reference = address.target.as_ref();
        if let Some(reference) = reference {
            set(&mut target, "endpoint_address_target_kind", &reference.kind);
            set(&mut target, "endpoint_address_target_name", &reference.name);
        }
        set(&mut target, "endpoint_node_name", address.node.as_deref().unwrap_or(""));
        set(&mut target, "endpoint_hostname", &address.hostname);
        let referred = reference.filter(|reference| reference.kind == "Node").map(|reference| &reference.name);
        self.node_labels(&mut target, address.node.as_ref().or(referred));
        if let Some(pod) = self.store.pod(reference) {
            self.backed_by(&mut target, pod, Some(port.port), Some(&port.protocol), seen);
        }
        target.build()
    }

    fn of_slice(&self, slice: &'a EndpointSlice) -> (LabelsBuilder, Vec<Labels>) {
        let meta = &slice.meta;
        let named = meta.labels.get(SERVICE_NAME);
        let service = named.and_then(|name| self.store.service(&namespaced(&meta.namespace, name)));
        let mut labels = LabelsBuilder::new();
        set(&mut labels, "namespace", &meta.namespace);
        set(&mut labels, "endpointslice_address_type", &slice.address_type);
        object_labels(&mut labels, meta, "endpointslice");
        if let Some(service) = service {
            for (name, value) in service_labels(service).iter() {
                labels.set(name, value);
            }
        }
        self.namespace_labels(&mut labels, &meta.namespace);
        let (mut targets, mut seen) = (Vec::new(), SeenPods::new());
        if service.is_some_and(|service| is_second_family(service, &slice.address_type)) {
            return (labels, targets);
        }
        for endpoint in &slice.endpoints {
            for port in &slice.ports {
                for address in &endpoint.addresses {
                    targets.push(self.of_slice_endpoint(address, endpoint, port, &mut seen));
                }
            }
        }
        self.unseen_ports(&seen, &mut targets);
        (labels, targets)
    }

    fn of_slice_endpoint(
        &self,
        address: &str,
        endpoint: &'a SliceEndpoint,
        port: &SlicePort,
        seen: &mut SeenPods<'a>,
    ) -> Labels {
        let mut target = LabelsBuilder::new();
        target.set(ADDRESS, &port.port.map_or_else(|| address.to_owned(), |port| host_port(address, port)));
        let mut optional = |name: &str, value: Option<&str>| {
            set(&mut target, &format!("endpointslice_{name}"), value.unwrap_or(""));
        };
        optional("port_name", port.name.as_deref());
        optional("port_protocol", port.protocol.as_deref());
        optional("port", port.port.map(|port| port.to_string()).as_deref());
        optional("port_app_protocol", port.app_protocol.as_deref());
        let conditions = &endpoint.conditions;
        let text = |condition: Option<bool>| condition.map(|holds| if holds { "true" } else { "false" });
        optional("endpoint_conditions_ready", text(conditions.ready));
        optional("endpoint_conditions_serving", text(conditions.serving));
        optional("endpoint_conditions_terminating", text(conditions.terminating));
        optional("endpoint_hostname", endpoint.hostname.as_deref());
        let reference = endpoint.target.as_ref();
        optional("address_target_kind", reference.map(|reference| reference.kind.as_str()));
        optional("address_target_name", reference.map(|reference| reference.name.as_str()));
        optional("endpoint_node_name", endpoint.node.as_deref());
        optional("endpoint_zone", endpoint.zone.as_deref());
        for (name, value) in &endpoint.topology {
            let name = sanitize(name);
            set(&mut target, &format!("endpointslice_endpoint_topology_{name}"), value);
            set(&mut target, &format!("endpointslice_endpoint_topology_present_{name}"), "true");
        }
        let referred = reference.filter(|reference| reference.kind == "Node").map(|reference| &reference.name);
        self.node_labels(&mut target, referred.or(endpoint.node.as_ref()));
        if let Some(pod) = self.store.pod(reference) {
            self.backed_by(&mut target, pod, port.port, None, seen);
        }
        target.build()
    }

    /// Adds the labels of the pod behind an endpoint, and those of its container with that port. The port's protocol is the
    /// container's unless it is given.
    fn backed_by(
        &self,
        target: &mut LabelsBuilder,
        pod: &'a Pod,
        port: Option<i64>,
        protocol: Option<&str>,
        seen: &mut SeenPods<'a>,
    ) {
        self.pod_labels(target, pod);
        for (container, is_init) in containers(pod) {
            if let Some(own) = container.ports.iter().find(|own| Some(own.port) == port) {
                port_labels(target, container, own.port, &own.name, protocol.unwrap_or(&own.protocol), is_init);
            }
        }
        let seen = seen.entry(pod.meta.key()).or_insert_with(|| SeenPod { pod, ports: Vec::new() });
        seen.ports.extend(port);
    }

    /// Adds targets for ports of pods behind endpoints that are not among the endpoints.
    fn unseen_ports(&self, seen: &SeenPods<'_>, targets: &mut Vec<Labels>) {
        for SeenPod { pod, ports } in seen.values().filter(|seen| !seen.pod.status.ip.is_empty()) {
            for (container, is_init) in containers(pod) {
                for port in container.ports.iter().filter(|port| !ports.contains(&port.port)) {
                    let mut target = LabelsBuilder::new();
                    target.set(ADDRESS, &host_port(&pod.status.ip, port.port));
                    port_labels(&mut target, container, port.port, &port.name, &port.protocol, is_init);
                    self.pod_labels(&mut target, pod);
                    targets.push(target.build());
                }
            }
        }
    }

    fn pod_labels(&self, labels: &mut LabelsBuilder, pod: &Pod) {
        let status = &pod.status;
        set(labels, "pod_ip", &status.ip);
        let ready = status.conditions.iter().find(|condition| condition.kind == "Ready");
        set(labels, "pod_ready", &ready.map_or("unknown".to_owned(), |ready| ready.status.to_lowercase()));
        set(labels, "pod_phase", &status.phase);
        set(labels, "pod_node_name", &pod.spec.node);
        set(labels, "pod_host_ip", &status.host_ip);
        set(labels, "pod_uid", &pod.meta.uid);
        object_labels(labels, &pod.meta, "pod");
        let Some(controller) = pod.meta.controller() else { return };
        set(labels, "pod_controller_kind", &controller.kind);
        set(labels, "pod_controller_name", &controller.name);
        let made_by = |kind: Kind, wanted: &str| {
            let above =
                self.store.get(kind, &namespaced(&pod.meta.namespace, &controller.name))?.meta().controller()?;
            (above.kind == wanted).then_some(above.name.as_str())
        };
        match controller.kind.as_str() {
            "ReplicaSet" if self.attach.deployment => {
                set(labels, "pod_deployment_name", made_by(Kind::ReplicaSet, "Deployment").unwrap_or(""));
            }
            "Job" => {
                if self.attach.job {
                    set(labels, "pod_job_name", &controller.name);
                }
                if self.attach.cronjob {
                    set(labels, "pod_cronjob_name", made_by(Kind::Job, "CronJob").unwrap_or(""));
                }
            }
            _ => {}
        }
    }

    fn node_labels(&self, labels: &mut LabelsBuilder, name: Option<&String>) {
        let known = name.filter(|_| self.attach.node).and_then(|name| self.store.get(Kind::Node, name));
        if let Some(node) = known {
            object_labels(labels, node.meta(), "node");
        }
    }

    fn namespace_labels(&self, labels: &mut LabelsBuilder, name: &str) {
        if self.attach.namespace
            && let Some(namespace) = self.store.get(Kind::Namespace, name)
        {
            maps_of(labels, namespace.meta(), "namespace");
        }
    }
}

fn of_node(node: &Node) -> Option<(LabelsBuilder, Vec<Labels>)> {
    let mut labels = LabelsBuilder::new();
    set(&mut labels, "node_provider_id", &node.spec.provider);
    for condition in &node.status.conditions {
        let name = format!("node_condition_{}", sanitize(&condition.kind.to_lowercase()));
        set(&mut labels, &name, &condition.status.to_lowercase());
    }
    object_labels(&mut labels, &node.meta, "node");
    let first = |kind: &str| node.status.addresses.iter().find(|address| address.kind == kind);
    let kinds = ["InternalIP", "InternalDNS", "ExternalIP", "ExternalDNS", "LegacyHostIP", "Hostname"];
    let Some(address) = kinds.into_iter().find_map(first) else {
        let node = node.meta.name.as_str();
        tracing::warn!(component = "discovery", discovery = "kubernetes", node, "No node address found");
        return None;
    };
    let mut target = LabelsBuilder::new();
    target.set(ADDRESS, &host_port(&address.address, node.status.daemons.kubelet.port));
    target.set(INSTANCE, &node.meta.name);
    // Of several addresses of a type the first counts.
    for address in node.status.addresses.iter().rev() {
        set(&mut target, &format!("node_address_{}", sanitize(&address.kind)), &address.address);
    }
    Some((labels, vec![target.build()]))
}

fn set(labels: &mut LabelsBuilder, name: &str, value: &str) {
    labels.set(&format!("{PREFIX}{name}"), value);
}

/// Name, labels and annotations of an object.
fn object_labels(labels: &mut LabelsBuilder, meta: &Meta, what: &str) {
    set(labels, &format!("{what}_name"), &meta.name);
    maps_of(labels, meta, what);
}

fn maps_of(labels: &mut LabelsBuilder, meta: &Meta, what: &str) {
    for (map, kind) in [(&meta.labels, "label"), (&meta.annotations, "annotation")] {
        for (name, value) in map {
            let name = sanitize(name);
            set(labels, &format!("{what}_{kind}_{name}"), value);
            set(labels, &format!("{what}_{kind}present_{name}"), "true");
        }
    }
}

fn service_labels(service: &Service) -> LabelsBuilder {
    let mut labels = LabelsBuilder::new();
    set(&mut labels, "namespace", &service.meta.namespace);
    object_labels(&mut labels, &service.meta, "service");
    labels
}

fn port_labels(
    target: &mut LabelsBuilder,
    container: &Container,
    port: i64,
    name: &str,
    protocol: &str,
    is_init: bool,
) {
    set(target, "pod_container_name", &container.name);
    set(target, "pod_container_image", &container.image);
    set(target, "pod_container_port_name", name);
    set(target, "pod_container_port_number", &port.to_string());
    set(target, "pod_container_port_protocol", protocol);
    set(target, "pod_container_init", &is_init.to_string());
}

/// All containers of a pod, and whether they only prepare it.
fn containers(pod: &Pod) -> impl Iterator<Item = (&Container, bool)> {
    let usual = pod.spec.containers.iter().map(|container| (container, false));
    usual.chain(pod.spec.init_containers.iter().map(|container| (container, true)))
}

fn id_of<'a>(statuses: &'a [ContainerStatus], name: &str) -> &'a str {
    statuses.iter().find(|status| status.name == name).map_or("", |status| &status.id)
}

/// Whether a slice of these addresses shows a service that has two families of addresses a second time.
fn is_second_family(service: &Service, address_type: &str) -> bool {
    let dual = matches!(service.spec.family_policy.as_str(), "PreferDualStack" | "RequireDualStack");
    dual && service.spec.families.first().is_some_and(|first| first != address_type)
}

/// Whether a host matches a name whose first part may be a star.
fn matches_host(pattern: &str, host: &str) -> bool {
    let rest = |name: &str| name.split_once('.').map(|(_, rest)| rest.to_owned());
    pattern == host || pattern.split('.').next() == Some("*") && rest(pattern) == rest(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_one_part_of_a_host() {
        for (pattern, host, matches) in [
            ("a.b", "a.b", true),
            ("*.b", "a.b", true),
            ("*.b", "x.a.b", false),
            ("*.b", "b", false),
            ("*", "a", true),
            ("a.*", "a.b", false),
        ] {
            assert_eq!(matches_host(pattern, host), matches, "{pattern} {host}");
        }
    }
}
