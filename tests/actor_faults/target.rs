//! Targets, pools and the manager at fault: who else notices, and what the series say.

use std::collections::BTreeMap;
use std::time::Duration;

use watchfire::actors::failpoint::{Point, arm};
use watchfire::actors::policy::Policy;
use watchfire::actors::registry::{ActorRow, ActorState};
use watchfire::actors::scrape_manager::ApplyJobs;
use watchfire::actors::scrape_pool::{Apply, JobSpec};
use watchfire::actors::scrape_target::Retire;
use watchfire::model::matcher::Matcher;
use watchfire::model::sample::is_stale;

use crate::matrix::tree;
use crate::probe::within;
use crate::scene::{QUICK, Scene, holds, job, live, stepped};
use crate::shard::rest;
use crate::support::{Behaviour, Exporter};

/// Interval of targets on a clock that moves by hand.
const INTERVAL: Duration = Duration::from_secs(10);
const INTERVAL_MS: u64 = 10_000;

#[test]
fn a_panicking_target_is_down_for_a_scrape_forgets_no_series_and_its_sibling_misses_nothing() {
    stepped(async |steps| {
        let tree = tree();
        let (scene, beside) = (Scene::on(&steps, &tree, "panicking"), Scene::on(&steps, &tree, "beside"));
        let exporter = Exporter::start("kept 1\n");
        let subject = scene.target(&exporter.addr, "/subject", INTERVAL_MS);
        let actor = scene.spawn_target("panicking target", &subject, QUICK);
        let sibling = beside.target(&exporter.addr, "/sibling", INTERVAL_MS);
        let _sibling = beside.spawn_target("its sibling", &sibling, QUICK);
        let begun = |scene: &Scene| scene.runtime.ticks.begun.get();
        let idle = || begun(&beside) == beside.ended() && begun(&scene) == scene.ended();
        steps.holds("both run", || scene.tree.rows().iter().all(|row| row.state == ActorState::Running)).await;
        steps.pass(INTERVAL, idle).await;
        assert_eq!((scene.last("kept"), beside.last("kept")), (vec![1.0], vec![1.0]));
        // The parser's work is named after the URL, all else after the actor.
        let url = subject.target.scrape_url.as_str();
        for point in [Point::Timer, Point::Future, Point::Timer, Point::Step("parse")] {
            let (name, is_cut) = match point {
                Point::Step(_) => (url, true),
                point => ("panicking target", point == Point::Future),
            };
            let armed = arm("scrape_target", Some(name), point, 1);
            // A scrape that was cut short is told after a restart, for which the clock has to move.
            let is_under_way = || is_cut && armed.left() == 0 && begun(&scene) == scene.ended() + 1;
            steps.pass(INTERVAL, || idle() || begun(&beside) == beside.ended() && is_under_way()).await;
            assert_eq!(armed.left(), 0, "it panics at its due time");
            if !idle() {
                // It was due at the very end: time for the restart's delay has to pass.
                steps.until(tokio::time::sleep(Duration::from_millis(5))).await;
                steps.holds("all is told", idle).await;
            }
            let told = subject.status().last_error.contains("the scrape panicked: failpoint scrape_target/");
            assert_eq!((told, scene.last("up") == [0.0]), (is_cut, is_cut), "a scrape that is cut short has failed");
            if is_cut {
                assert!(is_stale(scene.last("kept")[0]));
                steps.pass(INTERVAL, idle).await;
                assert_eq!((subject.status().last_error.as_str(), scene.last("up")), ("", vec![1.0]));
            }
        }
        steps.pass(INTERVAL, idle).await;
        let samples = scene.samples(&[Matcher::equal("__name__", "kept")]).unwrap()[0].1.clone();
        let values = samples.values.iter().map(|value| if is_stale(*value) { 0.0 } else { *value });
        assert_eq!(
            values.collect::<Vec<_>>(),
            [1.0, 0.0, 1.0, 0.0, 1.0, 1.0],
            "a scrape at each due time without a panic"
        );
        let ticks = &scene.runtime.ticks;
        assert_eq!((ticks.begun.get(), ticks.skipped.get()), (6, 2), "lost due times are counted");
        let ticks = &beside.runtime.ticks;
        assert_eq!((ticks.begun.get(), ticks.skipped.get(), ticks.late.get()), (8, 0, 0));

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
fn two_hundred_targets_are_scraped_once_in_each_interval_while_their_pool_panics() {
    stepped(async |steps| {
        let scene = Scene::on(&steps, &tree(), "many");
        let exporter = Exporter::start("kept 1\n");
        let paths: Vec<String> = (0..200).map(|n| format!("/{n}")).collect();
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        let (pool, _deps) = scene.spawn_pool("panicking pool", job("many", &exporter.addr, &paths, INTERVAL_MS));
        let ticks = &scene.runtime.ticks;
        // Each leaves its one sample and five report series.
        let idle = || ticks.begun.get() * 6 == scene.head.stats().samples_appended;
        let running = |row: &ActorRow| row.state == ActorState::Running;
        let all = || scene.count("scrape_target") == 200 && scene.tree.rows().iter().all(running);
        steps.holds("all run", all).await;
        for round in 1..=7 {
            // No panic in the first round, and none in the last.
            if (2..=6).contains(&round) {
                let armed = arm("scrape_pool", Some("panicking pool"), Point::Handler, 1);
                assert!(steps.until(pool.ask(Apply, within(30))).await.is_err());
                assert_eq!(armed.left(), 0);
                steps.until(pool.ask(Apply, within(30))).await.unwrap();
                assert_eq!(scene.count("scrape_target"), 200, "neither orphaned nor doubled");
            }
            steps.pass(INTERVAL, idle).await;
            let mut requests = BTreeMap::<String, usize>::new();
            exporter.requests().into_iter().for_each(|(line, _)| *requests.entry(line).or_default() += 1);
            assert_eq!(requests.len(), 200, "in round {round}");
            assert!(requests.values().all(|count| *count == round), "in round {round}: {requests:?}");
        }
        assert_eq!((ticks.begun.get(), ticks.skipped.get(), ticks.late.get()), (1400, 0, 0));
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

        // The pool of the removed job panics as it looks what has become of its targets; it does so again by itself.
        let armed = arm("scrape_pool", Some("job-gone"), Point::Future, 1);
        *deps.jobs.lock() = vec![kept];
        let unconfirmed = manager.ask(ApplyJobs, within(30)).await.unwrap();
        assert!(matches!(&unconfirmed[..], [one] if one.starts_with("scrape_pool job-gone: ")), "{unconfirmed:?}");
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
    stepped(async |steps| {
        let tree = tree();
        let (scene, beside) = (Scene::on(&steps, &tree, "hostile"), Scene::on(&steps, &tree, "polite"));
        let (hanging, endless, good) = (Exporter::start(""), Exporter::start(""), Exporter::start("kept 1\n"));
        hanging.set(Behaviour::Hang);
        endless.set(Behaviour::Endless);
        let hostile = [("hanging", &hanging, "/h"), ("endless", &endless, "/e")];
        let hostile = hostile.map(|(name, peer, path)| (name, scene.target(&peer.addr, path, INTERVAL_MS)));
        let actors = hostile.each_ref().map(|(name, target)| scene.spawn_target(name, target, QUICK));
        let _polite = beside.spawn_target("polite", &beside.target(&good.addr, "/g", INTERVAL_MS), QUICK);
        let ticks = &beside.runtime.ticks;
        let polite = || {
            assert!(scene.runtime.staging.used() <= 64 << 20);
            ticks.begun.get() == beside.ended()
        };
        let failed = |target: usize| !hostile[target].1.status().last_error.is_empty();
        let running = || scene.tree.rows().iter().all(|row| row.state == ActorState::Running);
        steps.holds("all run", running).await;
        steps.pass(INTERVAL, polite).await;
        steps.holds("the endless body is cut off", || polite() && failed(1)).await;
        steps.pass(INTERVAL, polite).await;
        steps.holds("the hanging one is given up", || polite() && failed(0)).await;
        steps.pass(INTERVAL, polite).await;
        assert_eq!((ticks.begun.get(), ticks.skipped.get(), ticks.late.get()), (3, 0, 0));
        assert_eq!(beside.samples(&[Matcher::equal("__name__", "up")]).unwrap()[0].1.values, [1.0; 3]);
        for actor in &actors {
            actor.ask(Retire, within(30)).await.unwrap();
        }
        steps.holds("all memory is given back", || scene.runtime.staging.used() == 0).await;
    });
}

#[test]
fn a_slow_shard_delays_no_target_of_another_and_its_own_give_their_memory_back() {
    const RESTING: Policy = Policy { delay_first_ms: 25_000, delay_max_ms: 25_000, ..Policy::PERMANENT };
    stepped(async |steps| {
        let tree = tree();
        let (slow, beside) = (Scene::resting_on(&steps, &tree, "slow", RESTING), Scene::on(&steps, &tree, "quick"));
        let exporter = Exporter::start("kept 1\n");
        let target = slow.target(&exporter.addr, "/slow", INTERVAL_MS);
        let _slow = slow.spawn_target("of the slow shard", &target, QUICK);
        let _quick = beside.spawn_target("of the other", &beside.target(&exporter.addr, "/quick", INTERVAL_MS), QUICK);
        let ticks = &beside.runtime.ticks;
        let polite = || ticks.begun.get() == beside.ended();
        let running = || tree.rows().iter().all(|row| row.state == ActorState::Running);
        steps.holds("all run", running).await;
        steps.pass(INTERVAL, || polite() && slow.runtime.ticks.begun.get() == slow.ended()).await;
        rest(&slow, 0).await;
        for _ in 0..2 {
            steps.pass(INTERVAL, polite).await;
            let row = slow.shards[0].entry().row();
            assert!(row.queue <= row.slots && slow.runtime.staging.used() <= 64 << 20, "{row:?}");
        }
        assert_eq!(slow.ended(), 1, "nothing is stored while the shard rests");
        steps.pass(INTERVAL, polite).await;
        steps.pass(INTERVAL, || polite() && slow.runtime.staging.used() == 0).await;
        assert_eq!((ticks.begun.get(), ticks.skipped.get(), ticks.late.get()), (5, 0, 0));
        assert_eq!(beside.samples(&[Matcher::equal("__name__", "up")]).unwrap()[0].1.values, [1.0; 5]);
        assert_eq!(slow.last("kept"), [1.0], "scrapes are stored again");
        steps.holds("what was lost is counted", || 1 <= slow.runtime.ticks.not_stored.get()).await;
    });
}
