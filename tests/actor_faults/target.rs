//! Targets, pools and the manager at fault: who else notices, and what the series say.

use std::collections::BTreeMap;

use watchfire::actors::failpoint::{Point, arm};
use watchfire::actors::registry::ActorState;
use watchfire::actors::scrape_manager::ApplyJobs;
use watchfire::actors::scrape_pool::{Apply, JobSpec};
use watchfire::actors::scrape_target::Retire;
use watchfire::model::matcher::Matcher;
use watchfire::model::sample::is_stale;

use crate::matrix::tree;
use crate::probe::within;
use crate::scene::{QUICK, Scene, holds, job, live};
use crate::support::{Behaviour, Exporter};

#[test]
fn a_panicking_target_forgets_no_series_and_its_sibling_misses_nothing() {
    live(async {
        let tree = tree();
        let (scene, beside) = (Scene::new(&tree, "panicking"), Scene::new(&tree, "beside"));
        let exporter = Exporter::start("kept 1\n");
        let subject = scene.target(&exporter.addr, "/subject", 300);
        let actor = scene.spawn_target("panicking target", &subject, QUICK);
        let _sibling = beside.spawn_target("its sibling", &beside.target(&exporter.addr, "/sibling", 300), QUICK);
        holds("both are scraped", || scene.last("kept") == [1.0] && beside.last("kept") == [1.0]).await;
        let before = beside.runtime.ticks.begun.get();
        for point in [Point::Timer, Point::Future, Point::Timer] {
            let armed = arm("scrape_target", Some("panicking target"), point, 1);
            holds("the target panics", || armed.left() == 0).await;
        }
        let samples = || scene.samples(&[Matcher::equal("__name__", "kept")]).unwrap()[0].1.clone();
        let so_far = samples().len();
        holds("it is scraped again", || so_far + 1 < samples().len()).await;
        assert!(samples().values.iter().all(|value| *value == 1.0), "no stale marker between");
        let ticks = &scene.runtime.ticks;
        assert!(2 <= ticks.skipped.get() + ticks.begun.get() - so_far as u64, "lost due times are counted");
        holds("the sibling is scraped", || before + 3 <= beside.runtime.ticks.begun.get()).await;
        assert_eq!(beside.runtime.ticks.skipped.get(), 0);

        actor.ask(Retire, within(30)).await.unwrap();
        assert!(is_stale(scene.last("kept")[0]) && is_stale(scene.last("up")[0]), "only its end marks the series");
    });
}

#[test]
fn a_failed_target_is_down_until_a_try_succeeds_and_its_end_is_marked_all_the_same() {
    live(async {
        let scene = Scene::new(&tree(), "failing");
        let exporter = Exporter::start("kept 1\n");
        let spec = job("failing", &exporter.addr, &["/a"], 100);
        let empty = JobSpec { groups: Vec::new().into(), revision: 2, ..spec.clone() };
        let (pool, deps) = scene.spawn_pool("failing pool", spec);
        holds("it is scraped", || scene.last("kept") == [1.0]).await;
        let shared = deps.view.load().active[0].clone();
        let url = shared.target.scrape_url.clone();
        let state = || scene.tree.rows().iter().find(|row| row.name == url).map(|row| row.state);
        let marked = || scene.last("kept").iter().all(|value| is_stale(*value));
        let armed = arm("scrape_target", Some(&url), Point::Timer, usize::MAX);
        holds("it has failed", || state() == Some(ActorState::Failed)).await;
        holds("its series say so", || scene.last("up") == [0.0] && marked()).await;
        assert!(shared.status().last_error.contains("the target's actor has failed: failpoint"));
        drop(armed);
        scene.tree.retry_failed();
        holds("it is back", || scene.last("up") == [1.0] && scene.last("kept") == [1.0]).await;

        let _armed = arm("scrape_target", Some(&url), Point::Timer, usize::MAX);
        holds("it fails again", || state() == Some(ActorState::Failed) && scene.last("up") == [0.0]).await;
        deps.spec.store(empty.into());
        pool.ask(Apply, within(30)).await.unwrap();
        holds("its end is marked", || is_stale(scene.last("up")[0]) && state().is_none()).await;
    });
}

#[test]
fn two_hundred_targets_go_on_while_their_pool_panics() {
    live(async {
        let scene = Scene::new(&tree(), "many");
        let exporter = Exporter::start("kept 1\n");
        let paths: Vec<String> = (0..200).map(|n| format!("/{n}")).collect();
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        let (pool, _deps) = scene.spawn_pool("panicking pool", job("many", &exporter.addr, &paths, 2000));
        let per_path = || {
            let mut counts = BTreeMap::<String, usize>::new();
            exporter.requests().into_iter().for_each(|(line, _)| *counts.entry(line).or_default() += 1);
            counts
        };
        holds("all are scraped", || per_path().len() == 200).await;
        let begun = scene.runtime.ticks.begun.get();
        for _ in 0..5 {
            let armed = arm("scrape_pool", Some("panicking pool"), Point::Handler, 1);
            assert!(pool.ask(Apply, within(30)).await.is_err());
            assert_eq!(armed.left(), 0);
            pool.ask(Apply, within(30)).await.unwrap();
            assert_eq!(scene.count("scrape_target"), 200, "neither orphaned nor doubled");
        }
        holds("two more rounds", || begun + 400 <= scene.runtime.ticks.begun.get()).await;
        let counts = per_path();
        let (least, most) = (counts.values().min().unwrap(), counts.values().max().unwrap());
        assert!(most - least <= 1, "{least} to {most} requests");
        assert_eq!(scene.runtime.ticks.skipped.get(), 0);
    });
}

#[test]
fn a_restarted_manager_adopts_its_pools_and_a_removed_job_ends_with_stale_markers() {
    live(async {
        let scene = Scene::new(&tree(), "managed");
        let exporter = Exporter::start("kept 1\n");
        let (kept, removed) =
            (job("job-kept", &exporter.addr, &["/a"], 100), job("job-gone", &exporter.addr, &["/b"], 100));
        let (manager, deps) = scene.spawn_manager("panicking manager", vec![kept.clone(), removed]);
        holds("both are scraped", || scene.last("kept") == [1.0, 1.0]).await;
        let armed = arm("scrape_manager", Some("panicking manager"), Point::Handler, 1);
        assert!(manager.ask(ApplyJobs, within(30)).await.is_err());
        drop(armed);
        assert_eq!(manager.ask(ApplyJobs, within(30)).await, Ok(Vec::new()));
        assert_eq!((scene.count("scrape_pool"), scene.count("scrape_target")), (2, 2));

        // The pool of the removed job panics as its targets are about to end.
        let armed = arm("scrape_pool", Some("job-gone"), Point::Future, 1);
        *deps.jobs.lock() = vec![kept];
        assert_eq!(manager.ask(ApplyJobs, within(30)).await, Ok(Vec::new()));
        holds("the job has ended", || (scene.count("scrape_pool"), scene.count("scrape_target")) == (1, 1)).await;
        assert_eq!(armed.left(), 0);
        let last = |metric: &str| {
            let of = [Matcher::equal("__name__", metric), Matcher::equal("job", "job-gone")];
            scene.samples(&of).unwrap()[0].1.values.last().copied().unwrap()
        };
        assert!(is_stale(last("kept")) && is_stale(last("up")));
        assert_eq!(deps.overview.pools().len(), 1);
    });
}

#[test]
fn hanging_targets_and_endless_bodies_hold_bounded_memory_and_delay_nobody() {
    live(async {
        let tree = tree();
        let (scene, beside) = (Scene::new(&tree, "hostile"), Scene::new(&tree, "polite"));
        let (hanging, endless, good) = (Exporter::start(""), Exporter::start(""), Exporter::start("kept 1\n"));
        hanging.set(Behaviour::Hang);
        endless.set(Behaviour::Endless);
        let hostile = [scene.target(&hanging.addr, "/h", 500), scene.target(&endless.addr, "/e", 500)];
        let actors = [("hanging", &hostile[0]), ("endless", &hostile[1])].map(|(n, t)| scene.spawn_target(n, t, QUICK));
        let _polite = beside.spawn_target("polite", &beside.target(&good.addr, "/g", 500), QUICK);
        holds("both fail", || {
            assert!(scene.runtime.staging.used() <= 64 << 20);
            hostile.iter().all(|target| !target.status().last_error.is_empty())
        })
        .await;
        holds("the polite one is scraped", || 3 <= beside.runtime.ticks.begun.get()).await;
        assert_eq!((beside.runtime.ticks.skipped.get(), beside.last("up")), (0, vec![1.0]));
        for actor in &actors {
            actor.ask(Retire, within(30)).await.unwrap();
        }
        holds("all memory is given back", || scene.runtime.staging.used() == 0).await;
    });
}
