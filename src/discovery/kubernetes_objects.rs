//! Objects of Kubernetes's API, as far as targets depend on them.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;

use crate::discovery::api::wire;
use crate::discovery::error::LookError;

wire! {
    struct Meta {
        name: String = "name",
        namespace: String = "namespace",
        uid: String = "uid",
        labels: BTreeMap<String, String> = "labels",
        annotations: BTreeMap<String, String> = "annotations",
        owners: Vec<Owner> = "ownerReferences",
        /// Taken out once it has been read, so that objects that differ in nothing else are equal.
        version: String = "resourceVersion",
    }

    struct Owner {
        kind: String = "kind",
        name: String = "name",
        controller: bool = "controller",
    }

    struct Condition {
        kind: String = "type",
        status: String = "status",
    }

    struct Reference {
        kind: String = "kind",
        namespace: String = "namespace",
        name: String = "name",
    }

    struct Pod {
        meta: Meta = "metadata",
        spec: PodSpec = "spec",
        status: PodStatus = "status",
    }

    struct PodSpec {
        node: String = "nodeName",
        containers: Vec<Container> = "containers",
        init_containers: Vec<Container> = "initContainers",
    }

    struct Container {
        name: String = "name",
        image: String = "image",
        ports: Vec<ContainerPort> = "ports",
    }

    struct ContainerPort {
        name: String = "name",
        port: i64 = "containerPort",
        protocol: String = "protocol",
    }

    struct PodStatus {
        ip: String = "podIP",
        host_ip: String = "hostIP",
        phase: String = "phase",
        conditions: Vec<Condition> = "conditions",
        containers: Vec<ContainerStatus> = "containerStatuses",
        init_containers: Vec<ContainerStatus> = "initContainerStatuses",
    }

    struct ContainerStatus {
        name: String = "name",
        id: String = "containerID",
    }

    struct Service {
        meta: Meta = "metadata",
        spec: ServiceSpec = "spec",
        status: ServiceStatus = "status",
    }

    struct ServiceSpec {
        kind: String = "type",
        cluster_ip: String = "clusterIP",
        external_name: String = "externalName",
        load_balancer_ip: String = "loadBalancerIP",
        families: Vec<String> = "ipFamilies",
        family_policy: String = "ipFamilyPolicy",
        ports: Vec<ServicePort> = "ports",
    }

    struct ServicePort {
        name: String = "name",
        port: i64 = "port",
        protocol: String = "protocol",
    }

    struct ServiceStatus {
        load_balancer: LoadBalancer = "loadBalancer",
    }

    struct LoadBalancer {
        ingress: Vec<LoadBalancerIngress> = "ingress",
    }

    struct LoadBalancerIngress {
        ip: String = "ip",
    }

    struct Endpoints {
        meta: Meta = "metadata",
        subsets: Vec<Subset> = "subsets",
    }

    struct Subset {
        ready: Vec<EndpointAddress> = "addresses",
        not_ready: Vec<EndpointAddress> = "notReadyAddresses",
        ports: Vec<EndpointPort> = "ports",
    }

    struct EndpointAddress {
        ip: String = "ip",
        hostname: String = "hostname",
        node: Option<String> = "nodeName",
        target: Option<Reference> = "targetRef",
    }

    struct EndpointPort {
        name: String = "name",
        port: i64 = "port",
        protocol: String = "protocol",
    }

    struct EndpointSlice {
        meta: Meta = "metadata",
        address_type: String = "addressType",
        endpoints: Vec<SliceEndpoint> = "endpoints",
        ports: Vec<SlicePort> = "ports",
    }

    struct SliceEndpoint {
        addresses: Vec<String> = "addresses",
        conditions: SliceConditions = "conditions",
        hostname: Option<String> = "hostname",
        node: Option<String> = "nodeName",
        zone: Option<String> = "zone",
        target: Option<Reference> = "targetRef",
        topology: BTreeMap<String, String> = "deprecatedTopology",
    }

    struct SliceConditions {
        ready: Option<bool> = "ready",
        serving: Option<bool> = "serving",
        terminating: Option<bool> = "terminating",
    }

    struct SlicePort {
        name: Option<String> = "name",
        protocol: Option<String> = "protocol",
        port: Option<i64> = "port",
        app_protocol: Option<String> = "appProtocol",
    }

    struct Ingress {
        meta: Meta = "metadata",
        spec: IngressSpec = "spec",
    }

    struct IngressSpec {
        class: Option<String> = "ingressClassName",
        tls: Vec<IngressTls> = "tls",
        rules: Vec<IngressRule> = "rules",
    }

    struct IngressTls {
        hosts: Vec<String> = "hosts",
    }

    struct IngressRule {
        host: String = "host",
        http: Option<IngressHttp> = "http",
    }

    struct IngressHttp {
        paths: Vec<IngressPath> = "paths",
    }

    struct IngressPath {
        path: String = "path",
    }

    struct Node {
        meta: Meta = "metadata",
        spec: NodeSpec = "spec",
        status: NodeStatus = "status",
    }

    struct NodeSpec {
        provider: String = "providerID",
    }

    struct NodeStatus {
        addresses: Vec<NodeAddress> = "addresses",
        conditions: Vec<Condition> = "conditions",
        daemons: NodeDaemons = "daemonEndpoints",
    }

    struct NodeAddress {
        kind: String = "type",
        address: String = "address",
    }

    struct NodeDaemons {
        kubelet: DaemonEndpoint = "kubeletEndpoint",
    }

    struct DaemonEndpoint {
        port: i64 = "Port",
    }

    /// An object of which only what all have is looked at.
    struct Bare {
        meta: Meta = "metadata",
    }

    struct ListMeta {
        version: String = "resourceVersion",
        more: String = "continue",
    }

    struct WatchHead {
        kind: String = "type",
        object: WatchHeadObject = "object",
    }

    /// What is looked at before the object's kind matters: also a status, in place of an object.
    struct WatchHeadObject {
        meta: Bookmark = "metadata",
        code: u16 = "code",
        message: String = "message",
    }

    struct Bookmark {
        version: String = "resourceVersion",
    }
}

/// Kinds of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Pod,
    Service,
    Endpoints,
    EndpointSlice,
    Ingress,
    Node,
    Namespace,
    ReplicaSet,
    Job,
}

impl Kind {
    /// The role that has the kind's name, and for the others their kind.
    pub(super) fn role(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::Service => "service",
            Self::Endpoints => "endpoints",
            Self::EndpointSlice => "endpointslice",
            Self::Ingress => "ingress",
            Self::Node => "node",
            Self::Namespace => "namespace",
            Self::ReplicaSet => "replicaset",
            Self::Job => "job",
        }
    }

    /// The path of the API's group, and the name of the list.
    pub(super) fn path(self) -> (&'static str, &'static str) {
        match self {
            Self::Pod => ("api/v1", "pods"),
            Self::Service => ("api/v1", "services"),
            Self::Endpoints => ("api/v1", "endpoints"),
            Self::EndpointSlice => ("apis/discovery.k8s.io/v1", "endpointslices"),
            Self::Ingress => ("apis/networking.k8s.io/v1", "ingresses"),
            Self::Node => ("api/v1", "nodes"),
            Self::Namespace => ("api/v1", "namespaces"),
            Self::ReplicaSet => ("apis/apps/v1", "replicasets"),
            Self::Job => ("apis/batch/v1", "jobs"),
        }
    }
}

/// An object.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Object {
    Pod(Box<Pod>),
    Service(Box<Service>),
    Endpoints(Box<Endpoints>),
    EndpointSlice(Box<EndpointSlice>),
    Ingress(Box<Ingress>),
    Node(Box<Node>),
    Bare(Box<Bare>),
}

impl Object {
    pub(super) fn meta(&self) -> &Meta {
        match self {
            Self::Pod(object) => &object.meta,
            Self::Service(object) => &object.meta,
            Self::Endpoints(object) => &object.meta,
            Self::EndpointSlice(object) => &object.meta,
            Self::Ingress(object) => &object.meta,
            Self::Node(object) => &object.meta,
            Self::Bare(object) => &object.meta,
        }
    }

    fn meta_mut(&mut self) -> &mut Meta {
        match self {
            Self::Pod(object) => &mut object.meta,
            Self::Service(object) => &mut object.meta,
            Self::Endpoints(object) => &mut object.meta,
            Self::EndpointSlice(object) => &mut object.meta,
            Self::Ingress(object) => &mut object.meta,
            Self::Node(object) => &mut object.meta,
            Self::Bare(object) => &mut object.meta,
        }
    }

    /// Without its version.
    fn settled(mut self) -> Self {
        self.meta_mut().version = String::new();
        self
    }

    /// `namespace/name`, or the name alone for what belongs to no namespace.
    pub(super) fn key(&self) -> String {
        self.meta().key()
    }
}

impl Meta {
    /// `namespace/name`, or the name alone for what belongs to no namespace.
    pub(super) fn key(&self) -> String {
        if self.namespace.is_empty() { self.name.clone() } else { namespaced(&self.namespace, &self.name) }
    }

    /// Who made the object and looks after it.
    pub(super) fn controller(&self) -> Option<&Owner> {
        self.owners.iter().find(|owner| owner.controller)
    }
}

/// `namespace/name`.
pub(super) fn namespaced(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

/// A page of a list.
pub(super) struct Page {
    pub(super) objects: Vec<Object>,
    pub(super) meta: ListMeta,
}

#[derive(serde::Deserialize)]
struct Items<T> {
    #[serde(default)]
    metadata: ListMeta,
    items: Option<Vec<T>>,
}

#[derive(serde::Deserialize)]
struct Watched<T> {
    object: T,
}

/// Reads a page of a list of `kind`.
pub(super) fn page(kind: Kind, content: &[u8]) -> Result<Page, LookError> {
    fn read<T: DeserializeOwned>(content: &[u8], make: fn(Box<T>) -> Object) -> Result<Page, LookError> {
        let Items { metadata, items } = serde_json::from_slice::<Items<T>>(content)?;
        let objects = items.into_iter().flatten().map(|object| make(Box::new(object)).settled()).collect();
        Ok(Page { objects, meta: metadata })
    }
    match kind {
        Kind::Pod => read(content, Object::Pod),
        Kind::Service => read(content, Object::Service),
        Kind::Endpoints => read(content, Object::Endpoints),
        Kind::EndpointSlice => read(content, Object::EndpointSlice),
        Kind::Ingress => read(content, Object::Ingress),
        Kind::Node => read(content, Object::Node),
        Kind::Namespace | Kind::ReplicaSet | Kind::Job => read(content, Object::Bare),
    }
}

/// Reads the object of a line of a watch.
pub(super) fn watched(kind: Kind, line: &[u8]) -> Result<Object, LookError> {
    fn read<T: DeserializeOwned>(line: &[u8], make: fn(Box<T>) -> Object) -> Result<Object, LookError> {
        Ok(make(Box::new(serde_json::from_slice::<Watched<T>>(line)?.object)).settled())
    }
    match kind {
        Kind::Pod => read(line, Object::Pod),
        Kind::Service => read(line, Object::Service),
        Kind::Endpoints => read(line, Object::Endpoints),
        Kind::EndpointSlice => read(line, Object::EndpointSlice),
        Kind::Ingress => read(line, Object::Ingress),
        Kind::Node => read(line, Object::Node),
        Kind::Namespace | Kind::ReplicaSet | Kind::Job => read(line, Object::Bare),
    }
}
