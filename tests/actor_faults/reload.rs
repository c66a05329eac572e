//! The reloader: one reload at a time, and one that a panic has cut short is done again.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use watchfire::actors::config_reloader::{RunReload, Trigger};
use watchfire::actors::failpoint::{Point, arm};
use watchfire::actors::scrape_manager::ApplyJobs;
use watchfire::actors::scrape_pool::JobSpec;

use crate::matrix::tree;
use crate::probe::within;
use crate::scene::{FakeSource, Scene, holds, job, live};
use crate::support::Exporter;

const HTTP: RunReload = RunReload { trigger: Trigger::Http };

#[test]
fn requests_during_a_reload_share_the_next() {
    live(async {
        let scene = Scene::new(&tree(), "joined reloads");
        let source = Arc::new(FakeSource::default());
        let (reloader, deps) = scene.spawn_reloader("joined reloads", Arc::clone(&source));
        let gate = source.gate.lock().await;
        let first = reloader.ask(HTTP, within(60));
        let others = async {
            holds("the first is being applied", || deps.is_applying()).await;
            let others = futures::future::join_all((0..5).map(|_| reloader.ask(HTTP, within(60))));
            let open = async {
                holds("all have come", || 6 <= reloader.entry().row().handled).await;
                drop(gate);
            };
            futures::future::join(others, open).await.0
        };
        let (first, others) = futures::future::join(first, others).await;
        assert_eq!(first, Ok(Ok(())));
        assert!(others.iter().all(|answer| *answer == Ok(Ok(()))));
        assert_eq!(source.reports.lock().len(), 2, "one for the first, one for all others");
    });
}

#[test]
fn a_reload_that_a_panic_cuts_short_is_done_again() {
    live(async {
        let scene = Scene::new(&tree(), "cut reload");
        let source = Arc::new(FakeSource::default());
        let (reloader, deps) = scene.spawn_reloader("cut reload", Arc::clone(&source));
        let gate = source.gate.lock().await;
        let asked = reloader.ask(HTTP, within(60));
        let cut = async {
            holds("it is being applied", || deps.is_applying()).await;
            let armed = arm("config_reloader", Some("cut reload"), Point::Timer, 1);
            holds("it panics", || armed.left() == 0).await;
            drop(gate);
        };
        let (answer, ()) = futures::future::join(asked, cut).await;
        assert!(answer.is_err(), "who asked is told that it was cut short");
        holds("it is done again", || deps.last().is_some_and(|report| report.trigger == Trigger::Restart)).await;
        assert!(!deps.is_applying());
    });
}

#[test]
fn a_changed_file_is_loaded_once_and_a_bad_one_is_not_tried_again() {
    live(async {
        let scene = Scene::new(&tree(), "watched files");
        let source = Arc::new(FakeSource::default());
        let (_reloader, _) = scene.spawn_reloader("watched files", Arc::clone(&source));
        let looks = || source.looks.load(Ordering::SeqCst);
        *source.on_disk.lock() = "new".to_owned();
        holds("it is loaded", || source.reports.lock().len() == 1).await;
        *source.fault.lock() = Some("no good".to_owned());
        *source.on_disk.lock() = "bad".to_owned();
        holds("it is refused", || source.reports.lock().len() == 2).await;
        let then = looks();
        holds("it was looked at again", || then + 5 <= looks()).await;
        let reports = source.reports.lock().clone();
        assert_eq!(reports.len(), 2);
        assert_eq!((reports[0].trigger, reports[0].error.as_deref()), (Trigger::File, None));
        assert_eq!(reports[1].error.as_deref(), Some("no good"));
    });
}

#[test]
fn an_actor_that_does_not_confirm_is_named() {
    live(async {
        let scene = Scene::new(&tree(), "deaf");
        let exporter = Exporter::start("kept 1\n");
        let known = job("job-deaf", &exporter.addr, &["/a"], 1000);
        let (manager, deps) = scene.spawn_manager("manager of a deaf pool", vec![known.clone()]);
        holds("its pool is there", || scene.count("scrape_pool") == 1).await;
        let _armed = arm("scrape_pool", Some("job-deaf"), Point::Handler, usize::MAX);
        *deps.jobs.lock() = vec![JobSpec { revision: 2, ..known }];
        let unconfirmed = manager.ask(ApplyJobs, within(60)).await.unwrap();
        assert!(unconfirmed.len() == 1 && unconfirmed[0].starts_with("scrape_pool job-deaf: "), "{unconfirmed:?}");

        let source = Arc::new(FakeSource::default());
        *source.deaf.lock() = unconfirmed.clone();
        let (reloader, reloads) = scene.spawn_reloader("reloader of a deaf pool", Arc::clone(&source));
        let answer = reloader.ask(HTTP, within(60)).await.unwrap().unwrap_err();
        assert_eq!(answer, format!("not applied: not confirmed: {}", unconfirmed[0]));
        assert_eq!(reloads.last().unwrap().unconfirmed, unconfirmed);
    });
}
