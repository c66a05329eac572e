//! A shard at fault: what its partition keeps, what readers are told, and what other shards notice. On a paused clock.

use std::time::Duration;

use watchfire::actors::failpoint::{Point, arm};
use watchfire::actors::mailbox::SendError;
use watchfire::actors::policy::Policy;
use watchfire::actors::registry::ActorState;
use watchfire::actors::storage_client::{AppendFailure, Priority, ShardFailure};
use watchfire::actors::storage_shard::Truncate;
use watchfire::model::append::{AppendBatch, AppendReport, AppendSample, SeriesHandle, SeriesKey};
use watchfire::model::labels::Labels;
use watchfire::model::matcher::Matcher;
use watchfire::model::read::ReadError;
use watchfire::model::time::TimestampMs;
use watchfire::storage::head::route::shard_of;

use crate::matrix::tree;
use crate::probe::{paused, within};
use crate::scene::{Scene, batch};

/// Numbers whose series are on this one of two shards.
fn numbers(metric: &'static str, shard: u16) -> impl Iterator<Item = u32> {
    (0..).filter(move |n: &u32| {
        shard_of(&Labels::from_pairs([("__name__", metric), ("n", &n.to_string())]), 2).0 == shard
    })
}

/// Makes a shard panic twice, so that it rests for a while before it is restarted.
pub(crate) async fn rest(scene: &Scene, shard: usize) {
    let name = scene.shard_name(shard);
    let _armed = [Point::Handler, Point::Restarting].map(|point| arm("storage_shard", Some(&name), point, 1));
    assert_eq!(scene.shards[shard].ask(Truncate, within(1)).await, Err(SendError::Restarted));
    while scene.shards[shard].entry().row().restarts == 0
        || scene.shards[shard].entry().state() != ActorState::BackingOff
    {
        tokio::task::yield_now().await;
    }
}

const RESTING: Policy = Policy { delay_first_ms: 20_000, delay_max_ms: 20_000, ..Policy::PERMANENT };

#[test]
fn a_panic_outside_the_marks_keeps_the_partition() {
    paused(async {
        let scene = Scene::new(&tree(), "whole");
        scene.storage.append(batch("m", 0..100, scene.now(), 1.0), Priority::Normal, within(1)).await.unwrap();
        let before = scene.samples(&[]).unwrap();
        assert_eq!(before.len(), 100);
        let _armed = arm("storage_shard", Some(&scene.shard_name(0)), Point::Handler, 1);
        let cut = scene.storage.append(batch("m", 100..200, scene.now(), 1.0), Priority::Normal, within(1)).await;
        let error = ShardFailure::Send { shard: 0, error: SendError::Restarted };
        assert_eq!(cut, Err(AppendFailure::Unsure(error)));
        assert_eq!(scene.samples(&[]).unwrap(), before);
        let again = scene.storage.append(batch("m", 100..200, scene.now(), 1.0), Priority::Normal, within(1)).await;
        assert_eq!((again.unwrap().appended, scene.samples(&[]).unwrap().len()), (100, 200));
    });
}

#[test]
fn a_panic_inside_the_marks_fails_reads_until_the_shard_is_rebuilt() {
    paused(async {
        let scene = Scene::with_shards(&tree(), "torn", 1, RESTING);
        scene.storage.append(batch("m", 0..100, scene.now(), 1.0), Priority::Normal, within(1)).await.unwrap();
        let old = scene.head.queryable().view().unwrap();
        let name = scene.shard_name(0);
        let armed = arm("storage_shard", Some(&name), Point::Restarting, 1);
        scene.head.shards()[0].tear_next();
        let cut = scene.storage.append(batch("m", 0..200, scene.now(), 2.0), Priority::Normal, within(1)).await;
        assert!(!cut.unwrap_err().nothing_was_done());
        while armed.left() != 0 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(scene.samples(&[]), Err(ReadError::ShardUnavailable { shard: 0, .. })), "no partial answer");
        let waiting = scene.storage.append(batch("m", 0..50, scene.now(), 3.0), Priority::Normal, within(60)).await;
        assert_eq!(waiting.unwrap().created, 50, "it serves again, from an empty partition");
        assert_eq!(scene.samples(&[]).unwrap().len(), 50);
        let range = watchfire::model::time::TimeRange::ALL;
        let budget = watchfire::model::read::Unlimited;
        assert!(old.select(&[], range, &budget).is_err(), "a view of what was lost is not read");
    });
}

#[test]
fn appends_that_wait_for_a_shard_hide_nothing_of_the_others() {
    paused(async {
        let scene = Scene::with_shards(&tree(), "apart", 2, RESTING);
        rest(&scene, 0).await;
        let slow = batch("slow", numbers("slow", 0).take(10), scene.now(), 1.0);
        let storage = scene.storage.clone();
        let slow = actix::spawn(async move { storage.append(slow, Priority::Normal, within(60)).await });
        tokio::task::yield_now().await;
        let other = batch("other", numbers("other", 1).take(10), scene.now(), 1.0);
        scene.storage.append(other, Priority::Normal, within(1)).await.unwrap();
        assert_eq!(scene.last("other").len(), 10, "visible as soon as it is answered");
        assert!(!slow.is_finished());
        assert_eq!(slow.await.unwrap().unwrap().appended, 10);
    });
}

/// A sample each of series that storage has resolved, in the order of the batch that has made them.
fn known(report: &AppendReport, at: TimestampMs, value: f64) -> AppendBatch {
    let sample = |(_, handle): &(u32, SeriesHandle)| AppendSample { series: SeriesKey::Known(*handle), at, value };
    AppendBatch::of_floats(report.resolved.iter().map(sample).collect())
}

#[test]
fn known_series_are_appended_by_the_thread_that_asks_and_its_panics_are_the_shards() {
    paused(async {
        let scene = Scene::new(&tree(), "here");
        let (storage, shard, at) = (&scene.storage, &scene.shards[0], scene.now());
        let append = |value: f64, later: i64, report: &AppendReport| {
            storage.append(known(report, TimestampMs(at.0 + later), value), Priority::Normal, within(1))
        };
        let made = storage.append(batch("m", 0..100, at, 1.0), Priority::Normal, within(1)).await.unwrap();
        let handled = shard.entry().row().handled;
        append(2.0, 1, &made).await.unwrap();
        // A message counts once, by the actor.
        assert_eq!((scene.last("m"), shard.entry().row().handled), (vec![2.0; 100], handled + 2));

        for (later, point) in [(2, Point::Handler), (4, Point::Step("before-apply")), (6, Point::Step("after-apply"))] {
            let restarts = shard.entry().row().restarts;
            let _armed = arm("storage_shard", Some(&scene.shard_name(0)), point, 1);
            let error = ShardFailure::Send { shard: 0, error: SendError::Restarted };
            assert_eq!(append(3.0, later, &made).await, Err(AppendFailure::Unsure(error)), "{point:?}");
            while shard.entry().row().restarts == restarts || shard.entry().state() != ActorState::Running {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert!(shard.entry().last_panic().unwrap().contains("failpoint"), "{point:?}");
            assert_eq!(append(4.0, later + 1, &made).await.unwrap().appended, 100, "{point:?}");
            assert_eq!(scene.last("m"), [4.0; 100]);
        }
        assert_eq!(scene.samples(&[]).unwrap()[0].1.values, [1.0, 2.0, 4.0, 4.0, 3.0, 4.0]);
    });
}

#[test]
fn a_panic_inside_the_marks_on_the_thread_that_asks_is_repaired_by_the_shard() {
    paused(async {
        let scene = Scene::with_shards(&tree(), "torn here", 1, RESTING);
        let (storage, at) = (&scene.storage, scene.now());
        let made = storage.append(batch("m", 0..100, at, 1.0), Priority::Normal, within(1)).await.unwrap();
        let name = scene.shard_name(0);
        let armed = arm("storage_shard", Some(&name), Point::Restarting, 1);
        scene.head.shards()[0].tear_next();
        let cut = storage.append(known(&made, TimestampMs(at.0 + 1), 2.0), Priority::Normal, within(1)).await;
        assert!(!cut.unwrap_err().nothing_was_done());
        assert!(matches!(scene.samples(&[]), Err(ReadError::ShardUnavailable { shard: 0, .. })), "no partial answer");
        while armed.left() != 0 {
            tokio::task::yield_now().await;
        }
        // While the actor rests, known series wait for it like all others.
        let waiting = storage.append(known(&made, TimestampMs(at.0 + 2), 3.0), Priority::Normal, within(60)).await;
        assert_eq!(waiting.unwrap().rejected.len(), 100, "it serves again, from an empty partition");
    });
}

#[test]
fn a_full_queue_refuses_and_counts_and_leaves_the_reserved_slot() {
    paused(async {
        let scene = Scene::with_shards(&tree(), "full", 1, RESTING);
        rest(&scene, 0).await;
        while scene.shards[0].try_tell(Truncate).is_ok() {}
        let refused = scene.shards[0].entry().row().refused;
        let failed = scene.storage.append(batch("m", 0..10, scene.now(), 1.0), Priority::Normal, within(1)).await;
        let error = ShardFailure::Send { shard: 0, error: SendError::Full };
        assert_eq!(failed, Err(AppendFailure::Refused(error)));
        assert_eq!(scene.shards[0].entry().row().refused, refused + 1);
        let urgent = scene.storage.append(batch("m", 0..10, scene.now(), 1.0), Priority::Reserved, within(60)).await;
        assert_eq!(urgent.unwrap().appended, 10);
    });
}

#[test]
fn a_cancelled_append_is_stored_whole_or_not_at_all() {
    paused(async {
        let scene = Scene::with_shards(&tree(), "cancelled", 2, Policy::PERMANENT);
        let metrics: Vec<String> = (0..30).map(|n| format!("m{n}")).collect();
        let mut seen = [false; 2];
        for (turns, metric) in metrics.iter().enumerate() {
            let (storage, samples) = (scene.storage.clone(), batch(metric, 0..100, scene.now(), 1.0));
            let append = actix::spawn(async move { storage.append(samples, Priority::Normal, within(60)).await });
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
            append.abort();
            // The upkeep of the shards gives up what was dropped.
            tokio::time::sleep(Duration::from_secs(5)).await;
            let stored = scene.samples(&[Matcher::equal("__name__", metric.as_str())]).unwrap().len();
            assert!(stored == 0 || stored == 100, "{stored} of 100 after {turns} turns");
            seen[usize::from(stored == 100)] = true;
        }
        assert_eq!(seen, [true; 2], "cancelled both before and after the commit was promised");
    });
}
