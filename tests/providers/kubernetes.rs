//! Kubernetes, against a double of its API: lists in pages, watches with bookmarks, and a memory that ends.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use watchfire::discovery::TargetGroup;
use watchfire::discovery::surroundings::Surroundings;

use crate::double::{self, Asked, Double, Reply, Running, addresses, assert_labels, refusal, start, start_in};

/// An API server.
#[derive(Clone, Default)]
struct Api(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    version: u64,
    /// Versions before it are forgotten.
    oldest: u64,
    objects: Vec<(&'static str, Value)>,
    /// Version, list and line of each change.
    events: Vec<(u64, &'static str, Value)>,
    watches: Vec<(String, Sender<String>)>,
    fails: bool,
}

/// The collection that a kind of objects is in.
fn collection(kind: &str) -> &'static str {
    match kind {
        "Pod" => "/api/v1/pods",
        "Service" => "/api/v1/services",
        "Endpoints" => "/api/v1/endpoints",
        "Node" => "/api/v1/nodes",
        "Namespace" => "/api/v1/namespaces",
        "EndpointSlice" => "/apis/discovery.k8s.io/v1/endpointslices",
        "Ingress" => "/apis/networking.k8s.io/v1/ingresses",
        "ReplicaSet" => "/apis/apps/v1/replicasets",
        "Job" => "/apis/batch/v1/jobs",
        other => panic!("{other}"),
    }
}

/// Whether the object is shown under this path: in all namespaces or in its own.
fn shown(path: &str, list: &str, object: &Value) -> bool {
    let (group, name) = list.rsplit_once('/').unwrap();
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or("");
    path == list || path == format!("{group}/namespaces/{namespace}/{name}")
}

fn same(a: &Value, b: &Value) -> bool {
    ["namespace", "name"].iter().all(|field| a["metadata"][field] == b["metadata"][field])
}

impl Api {
    fn with(objects: &[(&str, Value)]) -> Self {
        let api = Self::default();
        objects.iter().for_each(|(kind, object)| api.put(kind, object.clone()));
        api
    }

    fn serve(&self) -> Double {
        let api = self.clone();
        Double::start(move |asked| api.answer(asked))
    }

    /// Adds an object or changes it.
    fn put(&self, kind: &str, object: Value) {
        self.event(kind, object, false);
    }

    fn delete(&self, kind: &str, object: Value) {
        self.event(kind, object, true);
    }

    fn event(&self, kind: &str, mut object: Value, deleted: bool) {
        let mut state = self.0.lock().unwrap();
        let list = collection(kind);
        state.version += 1;
        object["metadata"]["resourceVersion"] = json!(state.version.to_string());
        let known = state.objects.iter().position(|(of, other)| *of == list && same(other, &object));
        let word = if deleted {
            "DELETED"
        } else if known.is_some() {
            "MODIFIED"
        } else {
            "ADDED"
        };
        if let Some(at) = known {
            state.objects.remove(at);
        }
        if !deleted {
            state.objects.push((list, object.clone()));
        }
        let event = json!({"type": word, "object": object});
        let version = state.version;
        state.watches.retain(|(path, send)| !shown(path, list, &object) || send.send(format!("{event}\n")).is_ok());
        state.events.push((version, list, event));
    }

    /// Ends all watches, as a server does from time to time.
    fn end_watches(&self) {
        self.0.lock().unwrap().watches.clear();
    }

    /// Forgets all versions so far and tells watches so.
    fn forget(&self) {
        let mut state = self.0.lock().unwrap();
        state.version += 1;
        state.oldest = state.version;
        let gone =
            json!({"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old resource version"}});
        state.watches.drain(..).for_each(|(_, send)| drop(send.send(format!("{gone}\n"))));
    }

    fn bookmark(&self) {
        let mut state = self.0.lock().unwrap();
        state.version += 1;
        let bookmark =
            json!({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": state.version.to_string()}}});
        state.watches.retain(|(_, send)| send.send(format!("{bookmark}\n")).is_ok());
    }

    fn watch_count(&self) -> usize {
        self.0.lock().unwrap().watches.len()
    }

    fn answer(&self, asked: &Asked) -> Reply {
        let mut state = self.0.lock().unwrap();
        if state.fails {
            return refusal(403, r#"{"kind":"Status","message":"forbidden","code":403}"#);
        }
        let wanted = |list: &str, object: &Value| shown(&asked.path, list, object);
        if asked.param("watch") == Some("true") {
            assert_eq!(asked.param("allowWatchBookmarks"), Some("true"));
            let since: u64 = asked.param("resourceVersion").unwrap().parse().unwrap();
            if since < state.oldest {
                return refusal(410, r#"{"kind":"Status","code":410,"reason":"Expired"}"#);
            }
            let (send, receive) = channel();
            for (version, list, event) in &state.events {
                if since < *version && wanted(list, &event["object"]) {
                    // A line in two pieces.
                    let line = format!("{event}\n");
                    let (first, second) = line.split_at(line.len() / 2);
                    send.send(first.to_owned()).unwrap();
                    send.send(second.to_owned()).unwrap();
                }
            }
            state.watches.push((asked.path.clone(), send));
            return Reply::Stream(receive);
        }
        let all: Vec<&Value> =
            state.objects.iter().filter(|(list, object)| wanted(list, object)).map(|(_, object)| object).collect();
        assert_eq!(asked.param("limit"), Some("500"));
        // Pages of two, whatever is asked for.
        let from: usize = asked.param("continue").map_or(0, |token| token.parse().unwrap());
        let more = if from + 2 < all.len() { (from + 2).to_string() } else { String::new() };
        let page: Vec<&Value> = all.into_iter().skip(from).take(2).collect();
        let meta = json!({"resourceVersion": state.version.to_string(), "continue": more});
        double::json(json!({"kind": "List", "metadata": meta, "items": page}).to_string())
    }
}

fn provider(double: &Double, more: &str) -> Running {
    start(&format!("kubernetes_sd_configs: [{{api_server: 'http://{}', {more}}}]", double.addr))
}

fn meta(namespace: &str, name: &str) -> Value {
    json!({"namespace": namespace, "name": name, "uid": format!("uid-{name}"), "labels": {"app.io/n": name},
           "annotations": {"note": "x y"}, "managedFields": [{}]})
}

fn pod(name: &str, ip: &str) -> Value {
    let mut meta = meta("ns", name);
    meta["ownerReferences"] =
        json!([{"kind": "Other", "name": "o"}, {"kind": "ReplicaSet", "name": "web-5", "controller": true}]);
    json!({"metadata": meta,
        "spec": {"nodeName": "node1",
            "containers": [{"name": "main", "image": "img:1", "ports": [
                {"name": "http", "containerPort": 8080, "protocol": "TCP"}, {"name": "extra", "containerPort": 9000, "protocol": "TCP"}]},
                {"name": "bare", "image": "img:2"}],
            "initContainers": [{"name": "init", "image": "img:3", "ports": [{"containerPort": 7, "protocol": "UDP"}]}]},
        "status": {"podIP": ip, "hostIP": "10.0.0.9", "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "main", "containerID": "docker://a1"}],
            "initContainerStatuses": [{"name": "init", "containerID": "docker://i1"}]}})
}

fn service(name: &str) -> Value {
    json!({"metadata": meta("ns", name), "spec": {"type": "ClusterIP", "clusterIP": "10.9.0.1",
        "ports": [{"name": "web", "port": 80, "protocol": "TCP"}]}})
}

fn node(name: &str) -> Value {
    let mut meta = meta("", name);
    meta.as_object_mut().unwrap().remove("namespace");
    json!({"metadata": meta, "spec": {"providerID": "cloud:///1"},
        "status": {"addresses": [{"type": "Hostname", "address": "h"}, {"type": "InternalIP", "address": "10.0.0.9"},
                                 {"type": "InternalIP", "address": "fd00::9"}],
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "False"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}}}})
}

fn namespace() -> Value {
    json!({"metadata": {"name": "ns", "labels": {"team": "a"}, "annotations": {"cost": "1"}}})
}

const P: &str = "__meta_kubernetes_";

/// Name, labels and annotations as [`meta`] makes them.
fn of_meta(what: &str, name: &str) -> Vec<(String, String)> {
    let pairs = [
        ("name", name),
        ("label_app_io_n", name),
        ("labelpresent_app_io_n", "true"),
        ("annotation_note", "x y"),
        ("annotationpresent_note", "true"),
    ];
    pairs.iter().map(|(label, value)| (format!("{P}{what}_{label}"), (*value).to_owned())).collect()
}

/// The labels of [`pod`].
fn of_pod(name: &str, ip: &str) -> Vec<(String, String)> {
    let own = [
        ("pod_ip", ip),
        ("pod_ready", "true"),
        ("pod_phase", "Running"),
        ("pod_node_name", "node1"),
        ("pod_host_ip", "10.0.0.9"),
        ("pod_uid", &*format!("uid-{name}")),
        ("pod_controller_kind", "ReplicaSet"),
        ("pod_controller_name", "web-5"),
    ]
    .map(|(label, value)| (format!("{P}{label}"), value.to_owned()));
    of_meta("pod", name).into_iter().chain(own).collect()
}

/// Compares with pairs whose names lack the prefix unless they are no labels of ours.
#[track_caller]
fn expect(found: &watchfire::model::labels::Labels, common: &[(String, String)], own: &[(&str, &str)]) {
    let named =
        |name: &str| if name.starts_with("__") || name == "instance" { name.to_owned() } else { format!("{P}{name}") };
    let own: Vec<(String, String)> = own.iter().map(|(name, value)| (named(name), (*value).to_owned())).collect();
    let all: Vec<(&str, &str)> =
        common.iter().chain(&own).map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_labels(found, &all);
}

fn single(groups: &[TargetGroup], source: &str) -> TargetGroup {
    assert_eq!(groups.iter().map(|group| group.source.as_str()).collect::<Vec<_>>(), [source]);
    groups[0].clone()
}

#[tokio::test]
async fn pods_have_a_target_for_each_port() {
    let replica_set = json!({"metadata": {"namespace": "ns", "name": "web-5",
        "ownerReferences": [{"kind": "Deployment", "name": "web", "controller": true}]}});
    let objects = [
        ("Pod", pod("p1", "10.1.0.1")),
        ("Pod", pod("pending", "")),
        ("ReplicaSet", replica_set),
        ("Node", node("node1")),
        ("Namespace", namespace()),
    ];
    let api = Api::with(&objects);
    let double = api.serve();
    let more = "role: pod, attach_metadata: {node: true, namespace: true, deployment: true}, \
                selectors: [{role: pod, label: 'app=x', field: 'status.phase=Running'}]";
    let mut running = provider(&double, more);
    let group = single(&running.groups().await, "pod/ns/p1");
    let common = [of_pod("p1", "10.1.0.1"), of_meta("node", "node1")].concat();
    let own = [
        ("namespace", "ns"),
        ("pod_deployment_name", "web"),
        ("namespace_label_team", "a"),
        ("namespace_labelpresent_team", "true"),
        ("namespace_annotation_cost", "1"),
        ("namespace_annotationpresent_cost", "true"),
    ];
    expect(&group.labels, &common, &own);
    let main = [
        ("__address__", "10.1.0.1:8080"),
        ("pod_container_id", "docker://a1"),
        ("pod_container_image", "img:1"),
        ("pod_container_init", "false"),
        ("pod_container_name", "main"),
        ("pod_container_port_name", "http"),
        ("pod_container_port_number", "8080"),
        ("pod_container_port_protocol", "TCP"),
    ];
    expect(&group.targets[0], &[], &main);
    let bare = [
        ("__address__", "10.1.0.1"),
        ("pod_container_image", "img:2"),
        ("pod_container_init", "false"),
        ("pod_container_name", "bare"),
    ];
    expect(&group.targets[2], &[], &bare);
    let init = [
        ("__address__", "10.1.0.1:7"),
        ("pod_container_id", "docker://i1"),
        ("pod_container_image", "img:3"),
        ("pod_container_init", "true"),
        ("pod_container_name", "init"),
        ("pod_container_port_number", "7"),
        ("pod_container_port_protocol", "UDP"),
    ];
    expect(&group.targets[3], &[], &init);
    let asked = double.asked();
    let of_pods: Vec<&Asked> = asked.iter().filter(|one| one.path.ends_with("/pods")).collect();
    for one in &of_pods {
        assert_eq!(
            (one.param("labelSelector"), one.param("fieldSelector")),
            (Some("app=x"), Some("status.phase=Running"))
        );
    }
    assert!(asked.iter().any(|one| one.path.ends_with("/nodes") && one.param("labelSelector").is_none()));

    // What a pod refers to changes.
    api.delete("Node", node("node1"));
    running.until(<[TargetGroup]>::is_empty).await;
    api.put("Node", node("node1"));
    running.until(|groups| groups.len() == 1).await;
    let mut renamed = namespace();
    renamed["metadata"]["labels"]["team"] = json!("b");
    api.put("Namespace", renamed);
    running.until(|groups| groups[0].labels.get("__meta_kubernetes_namespace_label_team") == Some("b")).await;
}

#[tokio::test]
async fn pods_of_jobs_name_them() {
    let mut of_job = pod("p1", "10.1.0.1");
    of_job["metadata"]["ownerReferences"] = json!([{"kind": "Job", "name": "j", "controller": true}]);
    let job = json!({"metadata": {"namespace": "ns", "name": "j",
        "ownerReferences": [{"kind": "CronJob", "name": "nightly", "controller": true}]}});
    let double = Api::with(&[("Pod", of_job), ("Job", job)]).serve();
    let groups = provider(&double, "role: pod, attach_metadata: {job: true, cronjob: true}").groups().await;
    let label = |name: &str| groups[0].labels.get(&format!("{P}{name}")).map(str::to_owned);
    assert_eq!((label("pod_job_name"), label("pod_cronjob_name")), (Some("j".into()), Some("nightly".into())));
}

#[tokio::test]
async fn services_have_a_target_for_each_port() {
    let mut external = service("ext");
    external["spec"]["type"] = json!("ExternalName");
    external["spec"]["externalName"] = json!("e.example");
    let mut balanced = service("lb");
    balanced["spec"]["type"] = json!("LoadBalancer");
    balanced["status"] =
        json!({"loadBalancer": {"ingress": [{"ip": "1.1.1.1"}, {"hostname": "h"}, {"ip": "2.2.2.2"}]}});
    let double = Api::with(&[("Service", service("a")), ("Service", external), ("Service", balanced)]).serve();
    let groups = provider(&double, "role: service").groups().await;
    assert_eq!(addresses(&groups), ["a.ns.svc:80", "ext.ns.svc:80", "lb.ns.svc:80"]);
    assert_eq!(groups[0].source, "svc/ns/a");
    expect(&groups[0].labels, &of_meta("service", "a"), &[("namespace", "ns")]);
    let port = [("service_port_name", "web"), ("service_port_number", "80"), ("service_port_protocol", "TCP")];
    let own = [("__address__", "a.ns.svc:80"), ("service_type", "ClusterIP"), ("service_cluster_ip", "10.9.0.1")];
    expect(&groups[0].targets[0], &[], &[&port[..], &own].concat());
    let own =
        [("__address__", "ext.ns.svc:80"), ("service_type", "ExternalName"), ("service_external_name", "e.example")];
    expect(&groups[1].targets[0], &[], &[&port[..], &own].concat());
    assert_eq!(groups[2].targets[0].get("__meta_kubernetes_service_loadbalancer_ip"), Some("1.1.1.1,2.2.2.2"));
}

#[tokio::test]
async fn nodes_and_ingresses_are_found() {
    let mut unknown = node("node2");
    unknown["status"]["addresses"] = json!([]);
    let ingress = json!({"metadata": meta("ns", "in"), "spec": {"ingressClassName": "nginx", "tls": [{"hosts": ["*.secure.io"]}],
        "rules": [{"host": "a.secure.io", "http": {"paths": [{"path": "/x"}, {}]}}, {"host": "plain.io"}]}});
    let double = Api::with(&[("Node", node("node1")), ("Node", unknown), ("Ingress", ingress)]).serve();
    let group = single(&provider(&double, "role: node").groups().await, "node/node1");
    let own = [
        ("node_provider_id", "cloud:///1"),
        ("node_condition_ready", "true"),
        ("node_condition_diskpressure", "false"),
    ];
    expect(&group.labels, &of_meta("node", "node1"), &own);
    let own = [
        ("__address__", "10.0.0.9:10250"),
        ("instance", "node1"),
        ("node_address_Hostname", "h"),
        ("node_address_InternalIP", "10.0.0.9"),
    ];
    expect(&group.targets[0], &[], &own);

    let group = single(&provider(&double, "role: ingress").groups().await, "ingress/ns/in");
    expect(&group.labels, &of_meta("ingress", "in"), &[("namespace", "ns"), ("ingress_class_name", "nginx")]);
    let target = |host, path, scheme| {
        [("__address__", host), ("ingress_host", host), ("ingress_path", path), ("ingress_scheme", scheme)]
    };
    expect(&group.targets[0], &[], &target("a.secure.io", "/x", "https"));
    expect(&group.targets[1], &[], &target("a.secure.io", "/", "https"));
    expect(&group.targets[2], &[], &target("plain.io", "/", "http"));
}

#[tokio::test]
async fn endpoints_carry_their_service_and_pods() {
    let reference = json!({"kind": "Pod", "namespace": "ns", "name": "p1"});
    let endpoints = json!({"metadata": meta("ns", "a"), "subsets": [{
        "addresses": [{"ip": "10.1.0.1", "hostname": "hn", "nodeName": "node1", "targetRef": reference}],
        "notReadyAddresses": [{"ip": "10.1.0.2", "targetRef": {"kind": "Node", "name": "node1"}}],
        "ports": [{"name": "web", "port": 8080, "protocol": "TCP"}]}]});
    let objects =
        [("Endpoints", endpoints), ("Service", service("a")), ("Pod", pod("p1", "10.1.0.1")), ("Node", node("node1"))];
    let api = Api::with(&objects);
    let double = api.serve();
    let mut running = provider(&double, "role: endpoints, attach_metadata: {node: true}");
    let group = single(&running.groups().await, "endpoints/ns/a");
    let common = [of_meta("service", "a"), of_meta("endpoints", "a")].concat();
    expect(&group.labels, &common, &[("namespace", "ns")]);
    let container = [
        ("pod_container_image", "img:1"),
        ("pod_container_init", "false"),
        ("pod_container_name", "main"),
        ("pod_container_port_protocol", "TCP"),
    ];
    let own = [
        ("__address__", "10.1.0.1:8080"),
        ("endpoint_address_target_kind", "Pod"),
        ("endpoint_address_target_name", "p1"),
        ("endpoint_hostname", "hn"),
        ("endpoint_node_name", "node1"),
        ("endpoint_port_name", "web"),
        ("endpoint_port_protocol", "TCP"),
        ("endpoint_ready", "true"),
        ("pod_container_port_name", "http"),
        ("pod_container_port_number", "8080"),
    ];
    let with_pod = [of_pod("p1", "10.1.0.1"), of_meta("node", "node1")].concat();
    expect(&group.targets[0], &with_pod, &[&container[..], &own].concat());
    let own = [
        ("__address__", "10.1.0.2:8080"),
        ("endpoint_address_target_kind", "Node"),
        ("endpoint_address_target_name", "node1"),
        ("endpoint_port_name", "web"),
        ("endpoint_port_protocol", "TCP"),
        ("endpoint_ready", "false"),
    ];
    expect(&group.targets[1], &of_meta("node", "node1"), &own);
    // A port of the pod that is no endpoint.
    let own =
        [("__address__", "10.1.0.1:9000"), ("pod_container_port_name", "extra"), ("pod_container_port_number", "9000")];
    expect(&group.targets[2], &of_pod("p1", "10.1.0.1"), &[&container[..], &own].concat());
    assert_eq!(group.targets.len(), 4);

    let mut failed = pod("p1", "10.1.0.1");
    failed["status"]["phase"] = json!("Failed");
    api.put("Pod", failed);
    running.until(|groups| groups[0].targets[0].get("__meta_kubernetes_pod_phase") == Some("Failed")).await;
    api.delete("Service", service("a"));
    running.until(|groups| groups[0].labels.get("__meta_kubernetes_service_name").is_none()).await;
}

#[tokio::test]
async fn endpoint_slices_carry_their_service_and_pods() {
    let mut of_slice = meta("ns", "a-1");
    of_slice["labels"] = json!({"kubernetes.io/service-name": "a"});
    let slice = |family: &str, address: &str, name: &str| {
        let mut of_slice = of_slice.clone();
        of_slice["name"] = json!(name);
        json!({"metadata": of_slice, "addressType": family, "ports": [
                {"name": "web", "port": 8080, "protocol": "TCP", "appProtocol": "http"}, {"name": "any", "protocol": "TCP"}],
            "endpoints": [{"addresses": [address], "conditions": {"ready": true, "serving": true, "terminating": false},
                "hostname": "hn", "nodeName": "node1", "zone": "z1", "deprecatedTopology": {"t/x": "y"},
                "targetRef": {"kind": "Pod", "namespace": "ns", "name": "p1"}}]})
    };
    let mut dual = service("a");
    dual["spec"]["ipFamilyPolicy"] = json!("PreferDualStack");
    dual["spec"]["ipFamilies"] = json!(["IPv4", "IPv6"]);
    let objects = [
        ("EndpointSlice", slice("IPv4", "10.1.0.1", "a-1")),
        ("EndpointSlice", slice("IPv6", "fd00::1", "a-2")),
        ("Service", dual),
        ("Pod", pod("p1", "10.1.0.1")),
    ];
    let double = Api::with(&objects).serve();
    let group = single(
        &provider(&double, "role: endpointslice, namespaces: {names: [ns]}").groups().await,
        "endpointslice/ns/a-1",
    );
    let own = [
        ("namespace", "ns"),
        ("endpointslice_address_type", "IPv4"),
        ("endpointslice_name", "a-1"),
        ("endpointslice_label_kubernetes_io_service_name", "a"),
        ("endpointslice_labelpresent_kubernetes_io_service_name", "true"),
        ("endpointslice_annotation_note", "x y"),
        ("endpointslice_annotationpresent_note", "true"),
    ];
    expect(&group.labels, &of_meta("service", "a"), &own);
    let endpoint = [
        ("endpointslice_address_target_kind", "Pod"),
        ("endpointslice_address_target_name", "p1"),
        ("endpointslice_endpoint_conditions_ready", "true"),
        ("endpointslice_endpoint_conditions_serving", "true"),
        ("endpointslice_endpoint_conditions_terminating", "false"),
        ("endpointslice_endpoint_hostname", "hn"),
        ("endpointslice_endpoint_node_name", "node1"),
        ("endpointslice_endpoint_topology_present_t_x", "true"),
        ("endpointslice_endpoint_topology_t_x", "y"),
        ("endpointslice_endpoint_zone", "z1"),
        ("endpointslice_port_protocol", "TCP"),
    ];
    let own = [
        ("__address__", "10.1.0.1:8080"),
        ("endpointslice_port", "8080"),
        ("endpointslice_port_app_protocol", "http"),
        ("endpointslice_port_name", "web"),
        ("pod_container_image", "img:1"),
        ("pod_container_init", "false"),
        ("pod_container_name", "main"),
        ("pod_container_port_name", "http"),
        ("pod_container_port_number", "8080"),
        ("pod_container_port_protocol", "TCP"),
    ];
    expect(&group.targets[0], &of_pod("p1", "10.1.0.1"), &[&endpoint[..], &own].concat());
    let own = [("__address__", "10.1.0.1"), ("endpointslice_port_name", "any")];
    expect(&group.targets[1], &of_pod("p1", "10.1.0.1"), &[&endpoint[..], &own].concat());
    assert_eq!(addresses(&[group])[2..], ["10.1.0.1:9000", "10.1.0.1:7"]);
    assert!(double.asked().iter().all(|one| one.path.contains("/namespaces/ns/")));
}

#[tokio::test]
async fn watches_are_taken_up_and_what_is_forgotten_is_listed_anew() {
    let api = Api::with(&[("Service", service("a"))]);
    let double = api.serve();
    let mut running = provider(&double, "role: service");
    assert_eq!(addresses(&running.groups().await), ["a.ns.svc:80"]);
    api.put("Service", service("b"));
    running.until(|groups| groups.len() == 2).await;
    let mut other_port = service("b");
    other_port["spec"]["ports"][0]["port"] = json!(81);
    api.put("Service", other_port);
    running.until(|groups| addresses(groups) == ["a.ns.svc:80", "b.ns.svc:81"]).await;
    assert_eq!(running.metric("prometheus_sd_kubernetes_events_total"), 3.0);

    // A watch that ends is taken up where a bookmark has brought it.
    api.bookmark();
    api.end_watches();
    let lists = |double: &Double| double.asked().iter().filter(|one| one.param("watch").is_none()).count();
    let listed = lists(&double);
    api.delete("Service", service("b"));
    running.until(|groups| groups.len() == 1).await;
    assert_eq!(lists(&double), listed, "nothing was listed again");

    // What happens while the server forgets is found by a new list.
    api.forget();
    api.delete("Service", service("a"));
    api.put("Service", service("c"));
    running.until(|groups| addresses(groups) == ["c.ns.svc:80"]).await;
    assert!(listed < lists(&double));
    assert_eq!(running.metric("prometheus_sd_kubernetes_failures_total"), 0.0, "forgetting is no failure");

    api.0.lock().unwrap().fails = true;
    api.end_watches();
    let (failure, groups) = running.failure().await;
    assert!(failure.contains("403") && failure.contains("forbidden"), "{failure}");
    assert_eq!(addresses(&groups.unwrap()), ["c.ns.svc:80"], "the last good ones stay");
    assert!(1.0 <= running.metric("prometheus_sd_kubernetes_failures_total"));
    api.0.lock().unwrap().fails = false;
    running.until(|groups| addresses(groups) == ["c.ns.svc:80"]).await;
    api.put("Service", service("d"));
    running.until(|groups| groups.len() == 2).await;
    assert_eq!(api.watch_count(), 1);
}

#[tokio::test]
async fn a_cluster_is_reached_from_within_and_by_a_file() {
    let double = Api::with(&[("Pod", pod("p1", "10.1.0.1"))]).serve();
    let (host, port) = double.addr.split_once(':').unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "pod-token\n").unwrap();
    std::fs::write(folder.path().join("namespace"), "ns").unwrap();
    let (host, port) = (host.to_owned(), port.to_owned());
    let mut within = Surroundings {
        service_account: folder.path().to_owned(),
        cluster_scheme: "http",
        variable: Arc::new(move |name| match name {
            "KUBERNETES_SERVICE_HOST" => Some(host.clone()),
            "KUBERNETES_SERVICE_PORT" => Some(port.clone()),
            _ => None,
        }),
        ..Surroundings::default()
    };
    let config = "kubernetes_sd_configs: [{role: pod, namespaces: {own_namespace: true}}]";
    assert_eq!(start_in(config, &within, &[]).groups().await.len(), 1);
    let asked = double.asked();
    assert!(asked.iter().all(|one| one.path == "/api/v1/namespaces/ns/pods"));
    assert!(asked.iter().all(|one| one.header("authorization") == Some("Bearer pod-token")));

    within.variable = Arc::new(|_| None);
    let (failure, _) = start_in(config, &within, &[]).failure().await;
    assert!(failure.starts_with("unable to load in-cluster configuration"), "{failure}");

    let file = folder.path().join("kubeconfig");
    let text = format!(
        "current-context: x\ncontexts: [{{name: x, context: {{cluster: c, user: u}}}}]\n\
         clusters: [{{name: c, cluster: {{server: 'http://{}/prefix'}}}}]\nusers: [{{name: u, user: {{token: t}}}}]\n",
        double.addr
    );
    std::fs::write(&file, text).unwrap();
    let mut running = start(&format!("kubernetes_sd_configs: [{{role: pod, kubeconfig_file: '{}'}}]", file.display()));
    assert!(running.groups().await.is_empty(), "the double knows no prefix");
    let last = double.asked().pop().unwrap();
    assert!(last.path.starts_with("/prefix/api/v1/pods"), "{last:?}");
    assert_eq!(last.header("authorization"), Some("Bearer t"));
}
