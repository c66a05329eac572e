//! Discovery at fault: what its targets notice, which is nothing.

use std::path::Path;
use std::sync::Arc;

use watchfire::actors::discovery::{ApplyProviders, SetSpec};
use watchfire::actors::failpoint::{Point, arm};
use watchfire::actors::registry::ActorState;
use watchfire::actors::scrape_manager::ScrapeConsumer;
use watchfire::actors::scrape_pool::JobSpec;
use watchfire::config::{LoadOptions, load_str};
use watchfire::discovery::Providers;

use crate::matrix::tree;
use crate::probe::within;
use crate::scene::{Scene, files, holds, job, live};
use crate::support::{Behaviour, Exporter};

/// Puts a file with these targets in place, each with a path of its own.
fn write(file: &Path, address: &str, paths: &[&str]) {
    let group = |path: &&str| {
        format!(r#"{{"targets":["{address}"],"labels":{{"__metrics_path__":"{path}","path":"{path}"}}}}"#)
    };
    put(file, &format!("[{}]", paths.iter().map(group).collect::<Vec<_>>().join(",")));
}

fn put(file: &Path, content: &str) {
    let beside = file.with_extension("new");
    std::fs::write(&beside, content).expect("a file is written");
    std::fs::rename(&beside, file).expect("a file is renamed");
}

fn set(name: &str, folder: &Path) -> SetSpec {
    let pattern = folder.join("*.json");
    SetSpec { name: name.to_owned(), providers: vec![files(pattern.to_str().expect("a name"))], ..SetSpec::default() }
}

/// A job without targets of its own.
fn bare(name: &str) -> JobSpec {
    JobSpec { groups: Arc::from([]), ..job(name, "", &[], 500) }
}

fn number(scene: &Scene, name: &str) -> f64 {
    let family = scene.registry.gather().into_iter().find(|family| family.name == name);
    match family.unwrap_or_else(|| panic!("no {name}")).metrics[0].1 {
        watchfire::telemetry::metrics::MetricValue::Number(value) => value,
        ref other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn targets_go_on_while_their_provider_and_the_managers_panic() {
    live(async {
        let scene = Scene::new(&tree(), "discovered");
        let (exporter, folder) = (Exporter::start("kept 1\n"), tempfile::tempdir().unwrap());
        let file = folder.path().join("t.json");
        write(&file, &exporter.addr, &["/a"]);
        let (manager, manager_deps) = scene.spawn_manager("discovery's scrapes", vec![bare("sd-panics")]);
        let consumer = ScrapeConsumer { deps: Arc::clone(&manager_deps), manager };
        let (discovery, deps) = scene.spawn_discovery("panicking discovery", Arc::new(consumer));
        *deps.sets.lock() = vec![set("sd-panics", folder.path())];
        assert_eq!(discovery.ask(ApplyProviders, within(30)).await, Ok(Vec::new()));
        holds("it is scraped", || scene.last("kept") == [1.0]).await;
        let provider = "file/sd-panics/0";
        let state = |name: &str| scene.tree.rows().iter().find(|row| row.name == name).map(|row| row.state);

        // Over the budget: the provider rests, its groups stay.
        let armed = arm("discovery_provider", Some(provider), Point::Started, usize::MAX);
        let trigger = arm("discovery_provider", Some(provider), Point::Future, 1);
        write(&file, &exporter.addr, &["/a", "/b"]);
        holds("it has failed", || state(provider) == Some(ActorState::Failed)).await;
        drop((armed, trigger));
        let begun = scene.runtime.ticks.begun.get();
        let armed = arm("discovery_manager", Some("panicking discovery"), Point::Handler, 1);
        assert!(discovery.ask(ApplyProviders, within(30)).await.is_err());
        assert_eq!(armed.left(), 0);
        // It has looked once, so nobody waits for it.
        assert_eq!(discovery.ask(ApplyProviders, within(30)).await, Ok(Vec::new()));
        let armed = arm("scrape_manager", Some("discovery's scrapes"), Point::Started, 1);
        let trigger = arm("scrape_manager", Some("discovery's scrapes"), Point::Handler, 1);
        scene.tree.retry_failed();
        holds("the second target is found", || scene.last("kept").len() == 2).await;
        holds("the scrape manager has panicked", || trigger.left() == 0 && armed.left() == 0).await;
        assert_eq!(scene.count("discovery_provider"), 1, "neither orphaned nor doubled");
        holds("both are scraped", || begun + 4 <= scene.runtime.ticks.begun.get()).await;
        assert_eq!(scene.runtime.ticks.skipped.get(), 0);
        assert_eq!(scene.last("kept"), [1.0, 1.0]);
        assert!(exporter.connections() <= 2, "connections are kept");
    });
}

#[test]
fn a_bad_file_keeps_its_targets_and_a_restart_does_not_lose_them() {
    live(async {
        let scene = Scene::new(&tree(), "bad file");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("t.json");
        write(&file, "h:1", &["/a"]);
        let (_provider, deps) =
            scene.spawn_provider("provider of a bad file", folder.path().join("*.json").to_str().unwrap());
        holds("it has looked", || deps.found().groups.len() == 1).await;
        put(&file, "[{");
        holds("it says so", || deps.found().failure.is_some()).await;
        assert_eq!(number(&scene, "watchfire_sd_provider_failing"), 1.0);
        assert!(1.0 <= number(&scene, "prometheus_sd_file_read_errors_total"));
        let armed = arm("discovery_provider", Some("provider of a bad file"), Point::Future, 1);
        put(&file, "[{{");
        holds("it panics", || armed.left() == 0).await;
        assert_eq!(deps.found().groups.len(), 1);
        write(&file, "h:1", &["/a", "/b"]);
        holds("it is good again", || deps.found().groups.len() == 2 && deps.found().failure.is_none()).await;
        std::fs::remove_file(&file).unwrap();
        holds("they are gone", || deps.found().groups.is_empty()).await;
    });
}

#[test]
fn a_provider_that_replaces_another_begins_with_its_groups_and_equal_ones_go_on() {
    live(async {
        let scene = Scene::new(&tree(), "replaced");
        let folder = tempfile::tempdir().unwrap();
        for name in ["one", "two", "three"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            write(&folder.path().join(name).join("t.json"), name, &["/a"]);
        }
        let of = |names: &[&str]| {
            let providers = |name: &&str| set("sd-set", &folder.path().join(name)).providers.remove(0);
            vec![SetSpec { providers: names.iter().map(providers).collect(), ..set("sd-set", folder.path()) }]
        };
        let (manager, manager_deps) = scene.spawn_manager("scrapes of replaced", Vec::new());
        let consumer = ScrapeConsumer { deps: manager_deps, manager };
        let (discovery, deps) = scene.spawn_discovery("replacing discovery", Arc::new(consumer));
        let found = || {
            let groups = deps.handed_on().get("sd-set").cloned().unwrap_or_default();
            let address =
                |group: &watchfire::discovery::TargetGroup| group.targets[0].get("__address__").map(str::to_owned);
            groups.iter().filter_map(address).collect::<Vec<_>>()
        };
        *deps.sets.lock() = of(&["one", "two"]);
        assert_eq!(discovery.ask(ApplyProviders, within(30)).await, Ok(Vec::new()));
        assert_eq!(found(), ["one", "two"]);
        let named = |name: &str| scene.tree.rows().iter().filter(|row| row.name == name).count();
        assert_eq!(named("file/sd-set/1"), 1);
        assert_eq!(number(&scene, "prometheus_sd_discovered_targets"), 2.0);

        // The second goes on in first place; a third comes, whose look takes longer than anybody waits for.
        let armed = arm("discovery_provider", Some("file/sd-set/1"), Point::Started, usize::MAX);
        *deps.sets.lock() = of(&["two", "three"]);
        let unconfirmed = discovery.ask(ApplyProviders, within(30)).await.unwrap();
        assert_eq!(unconfirmed.len(), 1, "{unconfirmed:?}");
        assert!(unconfirmed[0].starts_with("discovery_provider file/sd-set/1: "), "{unconfirmed:?}");
        assert_eq!(found(), ["two", "one"], "the groups of the first stay until the third has looked");
        drop(armed);
        scene.tree.retry_failed();
        holds("the third has looked", || found() == ["two", "three"]).await;
        *deps.sets.lock() = Vec::new();
        assert_eq!(discovery.ask(ApplyProviders, within(30)).await, Ok(Vec::new()));
        assert!(deps.handed_on().is_empty());
        holds("all have ended", || scene.count("discovery_provider") == 0).await;
    });
}

/// A set with one provider of HTTP discovery.
fn over_http(name: &str, addr: &str) -> SetSpec {
    let job = format!("{{job_name: {name}, http_sd_configs: [{{url: 'http://{addr}/sd', refresh_interval: 50ms}}]}}");
    let loaded = load_str("a.yml", &format!("scrape_configs: [{job}]"), &LoadOptions::default()).expect("a good job");
    let providers = Providers::from(&loaded.scrape_configs[0].discovery).built;
    SetSpec { name: name.to_owned(), providers, ..SetSpec::default() }
}

#[test]
fn a_provider_whose_server_hangs_or_that_panics_holds_nobody_up() {
    live(async {
        let scene = Scene::new(&tree(), "over http");
        let (hanging, well) = (Exporter::start(""), Exporter::start(""));
        let body = br#"[{"targets":["a:1"],"labels":{"__metrics_path__":"/a"}}]"#.to_vec();
        let answers = Behaviour::Typed("application/json".to_owned(), body);
        hanging.set(Behaviour::Hang);
        well.set(answers.clone());
        let (manager, manager_deps) = scene.spawn_manager("scrapes over http", Vec::new());
        let consumer = ScrapeConsumer { deps: manager_deps, manager };
        let (discovery, deps) = scene.spawn_discovery("discovery over http", Arc::new(consumer));
        *deps.sets.lock() = vec![over_http("sd-hangs", &hanging.addr), over_http("sd-well", &well.addr)];
        let unconfirmed = discovery.ask(ApplyProviders, within(30)).await.unwrap();
        assert_eq!(unconfirmed.len(), 1, "{unconfirmed:?}");
        let found = |set: &str| deps.handed_on().get(set).map_or(0, |groups| groups.len());
        assert_eq!((found("sd-hangs"), found("sd-well")), (0, 1));

        let armed = arm("discovery_provider", Some("http/sd-well/0"), Point::Future, 1);
        let asked = well.requests().len();
        holds("it panics and asks again", || armed.left() == 0 && asked + 2 < well.requests().len()).await;
        assert_eq!(found("sd-well"), 1, "its groups stay");

        // What hangs fails when its time is over, says so, and is well again.
        holds("it says so", || {
            deps.missing().iter().any(|(set, why)| set == "sd-hangs" && why.contains("context deadline exceeded"))
        })
        .await;
        let row = scene.tree.rows().into_iter().find(|row| row.name == "http/sd-hangs/0").expect("a provider");
        assert!(row.failing.is_some_and(|why| why.contains("context deadline exceeded")));
        hanging.set(answers);
        holds("it finds its target", || found("sd-hangs") == 1).await;
        assert!(deps.missing().is_empty(), "{:?}", deps.missing());
    });
}
