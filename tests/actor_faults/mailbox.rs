//! Slots, deadlines and the meaning of each error.

use std::time::Duration;

use tokio::time::Instant;
use watchfire::actors::control::{Reload, Signalled};
use watchfire::actors::mailbox::SendError;
use watchfire::actors::registry::ActorState;
use watchfire::telemetry::metrics::MetricValue;

use crate::probe::{Add, Panic, Slow, Stage, paused, reaches, within};

#[test]
fn slots_are_shared_by_clones_and_taken_until_the_work_is_done() {
    paused(async {
        let stage = Stage::new();
        let (probe, deps) = stage.spawn("a");
        let asks: Vec<_> = (0..4)
            .map(|_| {
                let clone = probe.clone();
                actix::spawn(async move { clone.ask(Slow, within(60)).await })
            })
            .collect();
        while deps.count("slow") < 4 {
            tokio::task::yield_now().await;
        }
        assert_eq!((stage.row("a").queue, stage.row("a").slots), (0, 4));
        assert_eq!(probe.try_tell(Add(1)), Err(SendError::Full));
        assert_eq!(probe.clone().try_tell(Add(1)), Err(SendError::Full));
        let before = Instant::now();
        assert_eq!(probe.ask(Add(1), within(3)).await, Err(SendError::Full));
        assert!(Duration::from_secs(3) <= before.elapsed());
        assert_eq!(stage.row("a").refused, 3);
        deps.gate.notify_one();
        assert_eq!(probe.ask(Add(1), within(3)).await, Ok(1), "one slot is free again");
        deps.gate.notify_waiters();
        for ask in asks {
            assert_eq!(ask.await.unwrap(), Ok("through the gate"));
        }
        for _ in 0..4 {
            assert_eq!(probe.try_tell(Add(1)), Ok(()));
        }
        assert_eq!(probe.try_tell(Add(1)), Err(SendError::Full));
        assert_eq!(stage.row("a").queue, 4);
    });
}

#[test]
fn a_reserved_slot_gets_through_when_all_others_are_taken() {
    paused(async {
        let stage = Stage::new();
        let (probe, _) = stage.spawn("a");
        let reserved = probe.reserve();
        assert_eq!(stage.row("a").slots, 5);
        for _ in 0..4 {
            probe.try_tell(Add(1)).unwrap();
        }
        assert_eq!(probe.try_tell(Add(1)), Err(SendError::Full));
        assert_eq!(reserved.try_tell(Add(10)), Ok(()));
        assert_eq!(reserved.try_tell(Add(10)), Err(SendError::Full), "one slot is one slot");
        assert_eq!(reserved.ask(Add(100), within(1)).await, Ok(114));
        drop(reserved);
        assert_eq!(stage.row("a").slots, 4);
    });
}

#[test]
fn expired_and_abandoned_messages_are_not_handled() {
    paused(async {
        let stage = Stage::new();
        let (probe, deps) = stage.spawn("a");
        // The actor waits for its restart while the messages grow old.
        for _ in 0..3 {
            assert_eq!(probe.ask(Panic::InHandler, within(5)).await, Err(SendError::Restarted));
        }
        deps.take_log();
        let soon = Instant::now() + Duration::from_millis(1);
        let mut abandoned = Box::pin(probe.ask(Add(2), within(60)));
        assert!(futures::poll!(&mut abandoned).is_pending());
        assert_eq!(probe.ask(Add(1), soon).await, Err(SendError::Deadline));
        drop(abandoned);
        assert_eq!(stage.row("a").queue, 2, "the actor has not been restarted yet");
        assert_eq!(probe.ask(Add(4), within(60)).await, Ok(4));
        let row = stage.row("a");
        assert_eq!((row.expired, row.handled, row.queue), (2, 1, 0));
        assert_eq!(deps.take_log(), ["restarting", "started", "add 4"]);
    });
}

#[test]
fn messages_queued_when_an_actor_fails_are_refused_and_never_handled() {
    paused(async {
        let stage = Stage::new();
        let (probe, deps) = stage.spawn("a");
        for _ in 0..9 {
            assert_eq!(probe.ask(Panic::InHandler, within(60)).await, Err(SendError::Restarted));
        }
        let (fatal, queued) = tokio::join!(probe.ask(Panic::InHandler, within(60)), probe.ask(Add(1), within(3600)));
        assert_eq!((fatal, queued), (Err(SendError::Restarted), Err(SendError::Gone)));
        reaches(&probe, ActorState::Failed).await;
        stage.tree.retry_failed();
        reaches(&probe, ActorState::Running).await;
        assert_eq!(probe.ask(Add(2), within(1)).await, Ok(2));
        assert_eq!(deps.count("add 1"), 0);
    });
}

#[test]
fn a_late_answer_is_a_deadline_and_the_handler_learns_that_nobody_waits() {
    paused(async {
        let stage = Stage::new();
        let (probe, deps) = stage.spawn("a");
        assert_eq!(probe.ask(Slow, within(1)).await, Err(SendError::Deadline));
        assert_eq!(probe.ask(Add(1), within(1)).await, Ok(1));
        assert_eq!(deps.count("nobody waits"), 1);
        assert!(SendError::Deadline.may_have_happened() && SendError::Restarted.may_have_happened());
        assert!(!SendError::Full.may_have_happened() && !SendError::Gone.may_have_happened());
    });
}

#[test]
fn a_read_is_repeated_once_after_a_restart() {
    paused(async {
        let stage = Stage::new();
        let (probe, _) = stage.spawn("a");
        assert_eq!(probe.read(Panic::InHandler, within(5)).await, Err(SendError::Restarted));
        assert_eq!(probe.ask(Add(1), within(5)).await, Ok(1));
        assert_eq!(stage.row("a").restarts, 2, "a poison message costs a read two restarts, never a loop");
    });
}

#[test]
fn control_messages_of_a_kind_are_queued_once_and_need_no_slot() {
    paused(async {
        let stage = Stage::new();
        let (probe, deps) = stage.spawn("a");
        for _ in 0..4 {
            probe.try_tell(Add(1)).unwrap();
        }
        let signalled: Vec<_> = (0..3).map(|_| probe.signal(Reload).unwrap()).collect();
        assert_eq!(signalled, [Signalled::Queued, Signalled::Coalesced, Signalled::Coalesced]);
        assert_eq!(probe.ask(Add(1), within(1)).await, Ok(5));
        assert_eq!(deps.count("reload"), 1);
        assert_eq!(probe.signal(Reload), Ok(Signalled::Queued), "a handled one makes room for the next");
    });
}

#[test]
fn a_flood_is_handled_whole_and_counted() {
    paused(async {
        let stage = Stage::new();
        let (probe, deps) = stage.spawn("a");
        let asks = (0..500).map(|_| probe.ask(Add(1), within(60)));
        let mut sums = futures::future::join_all(asks).await;
        sums.sort_by_key(|sum| sum.unwrap_or_default());
        assert_eq!(sums, (1..=500).map(Ok).collect::<Vec<_>>());
        assert_eq!(deps.count("add 1"), 500);
        let value = |name: &str| {
            let families = stage.metrics.gather();
            let family = families.iter().find(|family| family.name == name).expect("the metric is there");
            family.metrics[0].1.clone()
        };
        assert_eq!(value("watchfire_actor_handled_total"), MetricValue::Number(500.0));
        assert_eq!(value("watchfire_actor_queue_length"), MetricValue::Number(0.0));
        assert_eq!(value("watchfire_actor_slots"), MetricValue::Number(4.0));
        assert_eq!(value("watchfire_actors"), MetricValue::Number(1.0));
        let MetricValue::Histogram { count, .. } = value("watchfire_actor_handler_seconds") else {
            panic!("no histogram")
        };
        assert_eq!(count, 500);
    });
}
