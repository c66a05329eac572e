//! Consul, against a double of its agent that answers blocking queries.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::double::{Asked, Double, Reply, addresses, assert_labels, refusal, start, start_in};
use watchfire::discovery::surroundings::Surroundings;

/// What the agent knows: services with their tags and instances, and the index of the last change.
#[derive(Default)]
struct State {
    index: u64,
    services: BTreeMap<String, (Vec<String>, String)>,
    fails: bool,
}

#[derive(Clone, Default)]
struct Agent {
    state: Arc<(Mutex<State>, Condvar)>,
}

impl Agent {
    fn change(&self, change: impl FnOnce(&mut State)) {
        let (state, changed) = &*self.state;
        let mut state = state.lock().unwrap();
        change(&mut state);
        state.index += 1;
        changed.notify_all();
    }

    fn set(&self, name: &str, tags: &[&str], instances: &str) {
        let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        self.change(|state| drop(state.services.insert(name.to_owned(), (tags, instances.to_owned()))));
    }

    fn answer(&self, asked: &Asked) -> Reply {
        if asked.path == "/consul/v1/agent/self" {
            return indexed(0, r#"{"Config":{"Datacenter":"dc7"}}"#.to_owned());
        }
        let (state, changed) = &*self.state;
        let index = asked.param("index").map_or(0, |index| index.parse().unwrap());
        let state = state.lock().unwrap();
        // A blocking query; it ends with the test at the latest.
        let waits = |state: &mut State| state.index <= index && !state.fails;
        let (state, _) = changed.wait_timeout_while(state, Duration::from_secs(60), waits).unwrap();
        if state.fails {
            return refusal(500, "rpc error: No cluster leader");
        }
        if asked.path == "/consul/v1/catalog/services" {
            let all: BTreeMap<_, _> = state.services.iter().map(|(name, (tags, _))| (name, tags)).collect();
            return indexed(state.index, serde_json::to_string(&all).unwrap());
        }
        let name = asked.path.strip_prefix("/consul/v1/health/service/").unwrap_or_else(|| panic!("{asked:?}"));
        let instances = state.services.get(name).map_or("[]", |(_, instances)| instances);
        indexed(state.index, instances.to_owned())
    }
}

fn indexed(index: u64, body: String) -> Reply {
    Reply::Whole { status: 200, headers: vec![("X-Consul-Index".to_owned(), index.to_string())], body }
}

fn instance(id: &str, port: u16) -> String {
    format!(r#"[{{"Node":{{"Node":"n","Address":"10.0.0.1"}},"Service":{{"ID":"{id}","Port":{port}}},"Checks":[]}}]"#)
}

fn serve(agent: &Agent) -> Double {
    let agent = agent.clone();
    Double::start(move |asked| agent.answer(asked))
}

fn config(double: &Double, more: &str) -> String {
    let addr = &double.addr;
    format!("consul_sd_configs: [{{server: '{addr}', path_prefix: /consul, refresh_interval: 1ms{more}}}]")
}

const WEB: &str = r#"[{
  "Node":{"Node":"node1","Address":"10.0.0.1","Meta":{"os.name":"linux"},"TaggedAddresses":{"lan":"10.0.0.1","wan":"1.2.3.4"}},
  "Service":{"ID":"web-1","Service":"web","Tags":["a","b"],"Address":"fd00::5","Port":8080,"Meta":{"v-1":"x"},
             "Namespace":"team","Partition":"part"},
  "Checks":[{"CheckID":"serfHealth","Status":"passing"},{"CheckID":"web","Status":"warning"}]},
 {"Node":{"Node":"node2","Address":"10.0.0.2","Meta":null},"Service":{"ID":"web-2","Tags":null,"Port":81},"Checks":[]}]"#;

#[tokio::test]
async fn services_are_watched_as_they_come_change_and_go() {
    let agent = Agent::default();
    agent.set("web", &["a", "b"], WEB);
    agent.set("db", &[], &instance("db-1", 5432));
    let double = serve(&agent);
    let more = ", token: secret-token, namespace: team, partition: part, node_meta: {rack: r1}, filter: 'F == 1'";
    let mut running = start(&config(&double, more));
    let groups = running.groups().await;
    assert_eq!(addresses(&groups), ["10.0.0.1:5432", "[fd00::5]:8080", "10.0.0.2:81"], "nobody sees half of it");
    let web = &groups[1];
    assert_eq!(web.source, "web");
    assert_labels(&web.labels, &[("__meta_consul_service", "web"), ("__meta_consul_dc", "dc7")]);
    let expected = [
        ("__address__", "[fd00::5]:8080"),
        ("__meta_consul_address", "10.0.0.1"),
        ("__meta_consul_health", "warning"),
        ("__meta_consul_metadata_os_name", "linux"),
        ("__meta_consul_namespace", "team"),
        ("__meta_consul_node", "node1"),
        ("__meta_consul_partition", "part"),
        ("__meta_consul_service_address", "fd00::5"),
        ("__meta_consul_service_id", "web-1"),
        ("__meta_consul_service_metadata_v_1", "x"),
        ("__meta_consul_service_port", "8080"),
        ("__meta_consul_tagged_address_lan", "10.0.0.1"),
        ("__meta_consul_tagged_address_wan", "1.2.3.4"),
        ("__meta_consul_tags", ",a,b,"),
    ];
    assert_labels(&web.targets[0], &expected);
    assert_eq!(web.targets[1].get("__meta_consul_tags"), Some(",,"));

    agent.set("db", &[], &instance("db-1", 5433));
    running.until(|groups| addresses(groups).contains(&"10.0.0.1:5433")).await;
    agent.set("new", &[], &instance("new-1", 1));
    running.until(|groups| groups.len() == 3 && addresses(groups).contains(&"10.0.0.1:1")).await;
    // Seen by a question that waits for a change.
    agent.set("web", &["a", "b"], &WEB.replace("8080", "8081"));
    running.until(|groups| addresses(groups).contains(&"[fd00::5]:8081")).await;
    agent.change(|state| drop(state.services.remove("web")));
    running.until(|groups| groups.iter().all(|group| group.source != "web") && groups.len() == 2).await;

    let asked = double.asked();
    let catalog = asked.iter().find(|one| one.path.ends_with("/catalog/services")).unwrap();
    for (name, value) in
        [("stale", ""), ("wait", "120000ms"), ("ns", "team"), ("partition", "part"), ("filter", "F == 1")]
    {
        assert_eq!(catalog.param(name), Some(value), "{catalog:?}");
    }
    assert_eq!((catalog.param("node-meta"), catalog.param("index")), (Some("rack:r1"), None));
    assert!(asked.iter().all(|one| one.header("x-consul-token") == Some("secret-token")));
    let health = asked.iter().find(|one| one.path.ends_with("/health/service/web") && one.param("index").is_some());
    assert!(health.unwrap().param("filter").is_none(), "the catalog's filter is not that of health");
    assert!(1.0 <= running.metric("prometheus_sd_consul_rpc_duration_seconds"));
}

#[tokio::test]
async fn tags_and_names_choose_services() {
    let agent = Agent::default();
    agent.set("web", &["a", "b"], WEB);
    agent.set("db", &["a"], &instance("db-1", 5432));
    agent.set("other", &["a", "b"], &instance("other-1", 1));
    let double = serve(&agent);
    let more = ", services: [web, db], tags: [a, b], datacenter: dc1, health_filter: 'H == 1', tag_separator: ';', \
                allow_stale: false, username: u, password: p";
    let groups = start(&config(&double, more)).groups().await;
    assert_eq!(groups.len(), 1);
    assert_eq!(groups[0].targets[0].get("__meta_consul_tags"), Some(";a;b;"));
    assert_labels(&groups[0].labels, &[("__meta_consul_service", "web"), ("__meta_consul_dc", "dc1")]);
    let asked = double.asked();
    assert!(asked.iter().all(|one| !one.path.ends_with("/agent/self")), "the datacenter is known");
    let health = asked.iter().find(|one| one.path.ends_with("/health/service/web")).unwrap();
    let tags: Vec<_> = health.query.iter().filter(|(name, _)| name == "tag").map(|(_, tag)| tag.as_str()).collect();
    assert_eq!((tags, health.param("filter"), health.param("dc")), (vec!["a", "b"], Some("H == 1"), Some("dc1")));
    assert_eq!((health.param("stale"), health.header("authorization")), (None, Some("Basic dTpw")));

    // Services that are named and taken as they are need no catalog.
    let double = serve(&agent);
    let groups = start(&config(&double, ", services: [db, gone]")).groups().await;
    assert_eq!((groups.len(), addresses(&groups)), (2, vec!["10.0.0.1:5432"]));
    assert!(double.asked().iter().all(|one| !one.path.ends_with("/catalog/services")));
}

#[tokio::test]
async fn failures_keep_what_was_found_and_a_new_provider_goes_on_from_it() {
    let agent = Agent::default();
    agent.set("db", &[], &instance("db-1", 5432));
    agent.set("gone", &[], &instance("gone-1", 1));
    let double = serve(&agent);
    let mut running = start(&config(&double, ""));
    let found = running.groups().await;
    assert_eq!(found.len(), 2);
    agent.change(|state| state.fails = true);
    let (failure, groups) = running.failure().await;
    assert!(failure.contains("500") && failure.contains("No cluster leader"), "{failure}");
    assert_eq!(groups.as_ref(), Some(&found));
    assert!(1.0 <= running.metric("prometheus_sd_consul_rpc_failures_total"));

    let mut after = start_in(&config(&double, ""), &Surroundings::default(), &found);
    assert_eq!(after.failure().await.1, None, "nothing is known yet, so the last groups stay");
    agent.change(|state| {
        state.fails = false;
        state.services.remove("gone");
    });
    assert_eq!(addresses(&after.groups().await), ["10.0.0.1:5432"]);
    running.until(|groups| addresses(groups) == ["10.0.0.1:5432"]).await;
}
