//! Docker and Docker Swarm, against a double of the daemon.

use watchfire::discovery::TargetGroup;

use crate::double::{Asked, Double, Reply, addresses, assert_labels, json, refusal, start};

const CONTAINERS: &str = r#"[
  {"Id":"c1","Names":["/web"],"Image":"img:1","ImageID":"sha256:1","Labels":{"com.x/y":"v"},
   "Ports":[{"IP":"0.0.0.0","PrivatePort":80,"PublicPort":8080,"Type":"tcp"},{"PrivatePort":443,"Type":"tcp"},
            {"PrivatePort":53,"Type":"udp"}],
   "HostConfig":{"NetworkMode":"front"},
   "NetworkSettings":{"Networks":{"front":{"NetworkID":"n1","IPAddress":"172.18.0.2","GlobalIPv6Address":""},
                                  "back":{"NetworkID":"n2","IPAddress":"","GlobalIPv6Address":"fd00::2"},
                                  "a-none":null}}},
  {"Id":"c2","Names":["/side"],"Image":"","Labels":null,"Ports":[],"HostConfig":{"NetworkMode":"container:c1"},
   "NetworkSettings":{"Networks":{}}},
  {"Id":"c3","Names":["/host"],"Ports":null,"HostConfig":{"NetworkMode":"host"},
   "NetworkSettings":{"Networks":{"host":{"NetworkID":"n3","IPAddress":""}}}},
  {"Id":"c4","Names":["/round"],"HostConfig":{"NetworkMode":"container:c4"},"NetworkSettings":{"Networks":{}}},
  {"Id":"c5","Names":[],"HostConfig":{"NetworkMode":"front"},"NetworkSettings":{"Networks":{}}}]"#;

const NETWORKS: &str = r#"[
  {"Id":"n1","Name":"front","Scope":"local","Internal":false,"Ingress":false,"Labels":{"a.b":"c"}},
  {"Id":"n2","Name":"back","Scope":"swarm","Internal":true,"Ingress":true,"Labels":{}}]"#;

const NODES: &str = r#"[
  {"ID":"node1","Spec":{"Role":"manager","Availability":"active","Labels":{"rack.x":"7"}},
   "Description":{"Hostname":"h1","Platform":{"Architecture":"x86_64","OS":"linux"},"Engine":{"EngineVersion":"29.0"}},
   "Status":{"State":"ready","Addr":"10.0.0.1"},
   "ManagerStatus":{"Leader":true,"Reachability":"reachable","Addr":"10.0.0.1:2377"}},
  {"ID":"node2","Spec":{"Role":"worker","Availability":"drain"},"Description":{"Hostname":"h2"},
   "Status":{"State":"down","Addr":"10.0.0.2"}}]"#;

const SERVICES: &str = r#"[
  {"ID":"s1","Spec":{"Name":"web","Labels":{"l.1":"v"},"Mode":{"Replicated":{"Replicas":2}},
   "TaskTemplate":{"ContainerSpec":{"Image":"web:2","Hostname":"hn"}}},
   "Endpoint":{"Ports":[{"Name":"http","Protocol":"tcp","TargetPort":80,"PublishedPort":8080,"PublishMode":"ingress"},
                        {"Protocol":"udp","PublishedPort":53}],
               "VirtualIPs":[{"NetworkID":"n2","Addr":"10.1.0.5/16"}]},
   "UpdateStatus":{"State":"completed"}},
  {"ID":"s2","Spec":{"Name":"bare","Mode":{"Global":{}},"TaskTemplate":{}},
   "Endpoint":{"VirtualIPs":[{"NetworkID":"n1","Addr":"10.2.0.6/16"}]}}]"#;

const TASKS: &str = r#"[
  {"ID":"t1","ServiceID":"s1","NodeID":"node1","Slot":3,"Spec":{"ContainerSpec":{"Labels":{"c.l":"x"}}},
   "Status":{"State":"running","ContainerStatus":{"ContainerID":"cid"},
             "PortStatus":{"Ports":[{"Protocol":"tcp","PublishedPort":9000,"PublishMode":"host"}]}},
   "DesiredState":"running","NetworksAttachments":[{"Network":{"ID":"n2"},"Addresses":["10.1.0.9/16"]}]},
  {"ID":"t2","ServiceID":"s2","NodeID":"gone","Status":{"State":"new"},"DesiredState":"shutdown",
   "NetworksAttachments":[{"Network":{"ID":"n1"},"Addresses":["10.2.0.9/16"]}]}]"#;

/// A daemon that speaks version 1.47 of the API.
fn daemon(asked: &Asked) -> Reply {
    if asked.path == "/_ping" {
        let headers = vec![("Api-Version".to_owned(), "1.47".to_owned())];
        return Reply::Whole { status: 200, headers, body: "OK".to_owned() };
    }
    match asked.path.as_str() {
        "/v1.47/containers/json" => json(CONTAINERS),
        "/v1.47/networks" => json(NETWORKS),
        "/v1.47/nodes" => json(NODES),
        "/v1.47/services" => json(SERVICES),
        "/v1.47/tasks" => json(TASKS),
        _ => refusal(404, r#"{"message":"page not found"}"#),
    }
}

const WEB: [(&str, &str); 13] = [
    ("__meta_docker_container_id", "c1"),
    ("__meta_docker_container_image", "img:1"),
    ("__meta_docker_container_image_id", "sha256:1"),
    ("__meta_docker_container_label_com_x_y", "v"),
    ("__meta_docker_container_name", "/web"),
    ("__meta_docker_container_network_mode", "front"),
    ("__meta_docker_network_id", "n1"),
    ("__meta_docker_network_ingress", "false"),
    ("__meta_docker_network_internal", "false"),
    ("__meta_docker_network_ip", "172.18.0.2"),
    ("__meta_docker_network_label_a_b", "c"),
    ("__meta_docker_network_name", "front"),
    ("__meta_docker_network_scope", "local"),
];

#[tokio::test]
async fn containers_are_found_over_the_socket() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker.sock");
    let double = Double::at(&socket, daemon);
    let config = format!(
        "docker_sd_configs: [{{host: 'unix://{}', port: 9000, match_first_network: false, \
         filters: [{{name: label, values: [a, b]}}, {{name: status, values: [running]}}]}}]",
        socket.display()
    );
    let groups = start(&config).groups().await;
    assert_eq!((groups.len(), groups[0].source.as_str()), (1, "Docker"));
    let expected = [
        "[fd00::2]:80",
        "[fd00::2]:443",
        "172.18.0.2:80",
        "172.18.0.2:443",
        "[fd00::2]:9000",
        "172.18.0.2:9000",
        "localhost",
    ];
    assert_eq!(addresses(&groups), expected);
    let own = [
        ("__address__", "172.18.0.2:80"),
        ("__meta_docker_port_private", "80"),
        ("__meta_docker_port_public", "8080"),
        ("__meta_docker_port_public_ip", "0.0.0.0"),
    ];
    assert_labels(&groups[0].targets[2], &[&WEB[..], &own].concat());
    let own = [("__address__", "172.18.0.2:443"), ("__meta_docker_port_private", "443")];
    assert_labels(&groups[0].targets[3], &[&WEB[..], &own].concat());
    let host = [
        ("__address__", "localhost"),
        ("__meta_docker_container_id", "c3"),
        ("__meta_docker_container_name", "/host"),
        ("__meta_docker_container_network_mode", "host"),
    ];
    assert_labels(&groups[0].targets[6], &host);
    let asked = double.asked();
    let listing = asked.iter().find(|one| one.path.ends_with("/containers/json")).unwrap();
    assert_eq!(listing.param("filters"), Some(r#"{"label":{"a":true,"b":true},"status":{"running":true}}"#));
}

#[tokio::test]
async fn the_first_network_is_enough_and_failures_say_what_was_done() {
    let fails = std::sync::atomic::AtomicBool::new(false);
    let fails = std::sync::Arc::new(fails);
    let failing = std::sync::Arc::clone(&fails);
    let double = Double::start(move |asked| {
        let fails = failing.load(std::sync::atomic::Ordering::Relaxed) && asked.path.ends_with("/networks");
        if fails { refusal(500, r#"{"message":"broken"}"#) } else { daemon(asked) }
    });
    for scheme in ["tcp", "http"] {
        fails.store(false, std::sync::atomic::Ordering::Relaxed);
        let config = format!("docker_sd_configs: [{{host: '{scheme}://{}', refresh_interval: 5ms}}]", double.addr);
        let mut running = start(&config);
        let expected = ["[fd00::2]:80", "[fd00::2]:443", "[fd00::2]:80", "localhost"];
        assert_eq!(addresses(&running.groups().await), expected);
        fails.store(true, std::sync::atomic::Ordering::Relaxed);
        let (failure, _) = running.failure().await;
        let expected = "error while computing network labels: server returned HTTP status 500";
        assert!(failure.starts_with(expected) && failure.contains("broken"), "{failure}");
        assert!(1.0 <= running.metric("prometheus_sd_refresh_failures_total"));
    }
    let mut nowhere = start("docker_sd_configs: [{host: 'unix:///nowhere/docker.sock', refresh_interval: 5ms}]");
    let expected = "error while listing containers: Get \"http://docker/_ping\": dial unix /nowhere/docker.sock: \
                    connect: no such file or directory";
    assert_eq!(nowhere.failure().await.0, expected);
}

/// The targets of a swarm's role.
async fn swarm(role: &str) -> TargetGroup {
    let double = Double::start(daemon);
    let config = format!("dockerswarm_sd_configs: [{{host: 'http://{}', role: {role}, port: 9323}}]", double.addr);
    let mut groups = start(&config).groups().await;
    assert_eq!((groups.len(), groups[0].source.as_str()), (1, "DockerSwarm"));
    groups.remove(0)
}

const BACK: [(&str, &str); 5] = [
    ("__meta_dockerswarm_network_id", "n2"),
    ("__meta_dockerswarm_network_ingress", "true"),
    ("__meta_dockerswarm_network_internal", "true"),
    ("__meta_dockerswarm_network_name", "back"),
    ("__meta_dockerswarm_network_scope", "swarm"),
];

const NODE: [(&str, &str); 9] = [
    ("__meta_dockerswarm_node_address", "10.0.0.1"),
    ("__meta_dockerswarm_node_availability", "active"),
    ("__meta_dockerswarm_node_hostname", "h1"),
    ("__meta_dockerswarm_node_id", "node1"),
    ("__meta_dockerswarm_node_label_rack_x", "7"),
    ("__meta_dockerswarm_node_platform_architecture", "x86_64"),
    ("__meta_dockerswarm_node_platform_os", "linux"),
    ("__meta_dockerswarm_node_role", "manager"),
    ("__meta_dockerswarm_node_status", "ready"),
];

const SERVICE: [(&str, &str); 4] = [
    ("__meta_dockerswarm_service_id", "s1"),
    ("__meta_dockerswarm_service_label_l_1", "v"),
    ("__meta_dockerswarm_service_mode", "replicated"),
    ("__meta_dockerswarm_service_name", "web"),
];

#[tokio::test]
async fn services_of_a_swarm_are_found() {
    let group = swarm("services").await;
    let own = [
        ("__address__", "10.1.0.5:8080"),
        ("__meta_dockerswarm_service_endpoint_port_name", "http"),
        ("__meta_dockerswarm_service_endpoint_port_publish_mode", "ingress"),
        ("__meta_dockerswarm_service_task_container_hostname", "hn"),
        ("__meta_dockerswarm_service_task_container_image", "web:2"),
        ("__meta_dockerswarm_service_updating_status", "completed"),
    ];
    assert_labels(&group.targets[0], &[&SERVICE[..], &BACK, &own].concat());
    assert_eq!(group.targets[1].get("__address__"), Some("10.2.0.6:9323"));
    assert_eq!(group.targets[1].get("__meta_dockerswarm_service_mode"), Some("global"));
    assert_eq!(group.targets.len(), 2);
}

#[tokio::test]
async fn nodes_of_a_swarm_are_found() {
    let group = swarm("nodes").await;
    let own = [
        ("__address__", "10.0.0.1:9323"),
        ("__meta_dockerswarm_node_engine_version", "29.0"),
        ("__meta_dockerswarm_node_manager_address", "10.0.0.1:2377"),
        ("__meta_dockerswarm_node_manager_leader", "true"),
        ("__meta_dockerswarm_node_manager_reachability", "reachable"),
    ];
    assert_labels(&group.targets[0], &[&NODE[..], &own].concat());
    assert_eq!(group.targets[1].get("__meta_dockerswarm_node_manager_leader"), None);
    assert_eq!(group.targets.len(), 2);
}

#[tokio::test]
async fn tasks_of_a_swarm_are_found() {
    let group = swarm("tasks").await;
    let task = [
        ("__meta_dockerswarm_container_label_c_l", "x"),
        ("__meta_dockerswarm_task_container_id", "cid"),
        ("__meta_dockerswarm_task_desired_state", "running"),
        ("__meta_dockerswarm_task_id", "t1"),
        ("__meta_dockerswarm_task_slot", "3"),
        ("__meta_dockerswarm_task_state", "running"),
    ];
    let published = [("__address__", "10.0.0.1:9000"), ("__meta_dockerswarm_task_port_publish_mode", "host")];
    assert_labels(&group.targets[0], &[&task[..], &SERVICE, &NODE, &published].concat());
    let attached = [("__address__", "10.1.0.9:8080"), ("__meta_dockerswarm_task_port_publish_mode", "ingress")];
    assert_labels(&group.targets[1], &[&task[..], &SERVICE, &NODE, &BACK, &attached].concat());
    assert_eq!(group.targets[2].get("__address__"), Some("10.2.0.9:9323"));
    assert_eq!(group.targets.len(), 3);
}
