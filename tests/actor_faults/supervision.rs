//! Restarts: the address and the mailbox survive, the siblings notice nothing, the process lives.

use std::time::Duration;

use actix::Arbiter;
use tokio::time::Instant;
use watchfire::actors::control::{Drain, Reload};
use watchfire::actors::mailbox::SendError;
use watchfire::actors::policy::Policy;
use watchfire::actors::registry::ActorState;
use watchfire::actors::supervision::{self, Place};

use crate::probe::{Add, Panic, Probe, ProbeDeps, Stage, paused, reaches, within};

#[test]
fn every_kind_of_panic_restarts_the_actor_at_the_same_address() {
    for how in Panic::ALL {
        paused(async {
            let stage = Stage::new();
            let (probe, deps) = stage.spawn("a");
            let (sibling, _) = stage.spawn("b");
            assert_eq!(probe.ask(Add(1), within(1)).await, Ok(1));
            assert_eq!(sibling.ask(Add(1), within(1)).await, Ok(1));
            let answer = probe.ask(how, within(5)).await;
            assert_eq!(answer, Err(SendError::Restarted), "{how:?}");
            assert_eq!(probe.ask(Add(5), within(5)).await, Ok(5), "{how:?}: the state is rebuilt");
            assert_eq!(sibling.ask(Add(1), within(1)).await, Ok(2), "{how:?}: the sibling kept its state");
            assert_eq!((deps.count("made"), deps.count("started"), deps.count("restarting")), (1, 2, 1), "{how:?}");
            let row = stage.row("a");
            assert_eq!((row.restarts, row.state, row.queue), (1, ActorState::Running, 0), "{how:?}");
            assert!(row.last_panic.is_some_and(|text| text.starts_with("in a")), "{how:?}");
            assert_eq!(stage.row("b").restarts, 0);
        });
    }
}

#[test]
fn messages_behind_the_fatal_one_are_handled() {
    paused(async {
        let stage = Stage::new();
        let (probe, deps) = stage.spawn("a");
        let behind = async { (probe.ask(Add(1), within(1)).await, probe.ask(Add(2), within(1)).await) };
        let (fatal, told, behind) =
            tokio::join!(probe.ask(Panic::InHandler, within(1)), async { probe.try_tell(Add(7)) }, behind);
        assert_eq!((fatal, told, behind), (Err(SendError::Restarted), Ok(()), (Ok(8), Ok(10))));
        assert_eq!(deps.take_log(), ["made", "started", "restarting", "started", "add 7", "add 1", "add 2"]);
    });
}

#[test]
fn a_panic_in_a_hook_or_the_factory_counts_like_any_other() {
    for hook in ["factory", "started", "restarting", "drop", "stopped"] {
        paused(async {
            let stage = Stage::new();
            let deps = std::sync::Arc::new(ProbeDeps::default());
            deps.panic_in(hook, 3);
            let probe = stage.spawn_with(Place::root(&stage.tree, "a"), &deps);
            if hook == "restarting" {
                assert_eq!(probe.ask(Panic::InHandler, within(5)).await, Err(SendError::Restarted));
            }
            assert_eq!(probe.ask(Add(1), within(5)).await, Ok(1), "{hook}");
            let expected = match hook {
                "restarting" => 4,
                "factory" | "started" => 3,
                _ => 0,
            };
            assert_eq!(stage.row("a").restarts, expected, "{hook}");
            probe.signal(Drain { deadline: within(5) }).unwrap();
            probe.ended().await;
            assert!(stage.tree.rows().is_empty(), "{hook}");
            assert_eq!(probe.ask(Add(1), within(5)).await, Err(SendError::Gone), "{hook}");
        });
    }
}

#[test]
fn an_actor_over_its_budget_fails_refuses_at_once_and_is_tried_each_minute() {
    paused(async {
        let stage = Stage::new();
        let (parent, parent_deps) = stage.spawn("parent");
        let (probe, deps) = stage.spawn_at(parent.parent().place("child"));
        for _ in 0..10 {
            assert_eq!(probe.ask(Panic::InHandler, within(30)).await, Err(SendError::Restarted));
        }
        reaches(&probe, ActorState::Failed).await;
        deps.panic_in("started", 1);
        let failed_at = Instant::now();
        assert_eq!(probe.ask(Add(1), within(3600)).await, Err(SendError::Gone));
        assert_eq!(probe.try_tell(Add(1)), Err(SendError::Gone));
        assert_eq!(Instant::now(), failed_at, "refusals do not wait");
        assert_eq!(parent.ask(Add(1), within(1)).await, Ok(1));
        assert_eq!(parent_deps.count("child failed"), 1);
        assert_eq!(stage.row("child").parent.as_deref(), Some("parent"));
        // The try of the first minute panics in `started`; the one of the second succeeds.
        tokio::time::sleep(Duration::from_secs(61)).await;
        assert_eq!((probe.entry().state(), deps.count("started")), (ActorState::Failed, 11));
        tokio::time::sleep(Duration::from_secs(61)).await;
        assert_eq!((probe.entry().state(), deps.count("started")), (ActorState::Running, 12));
        assert_eq!(probe.ask(Add(1), within(1)).await, Ok(1));
    });
}

async fn failed(
    stage: &Stage,
    name: &str,
) -> (watchfire::actors::mailbox::BoundedAddr<Probe>, std::sync::Arc<ProbeDeps>) {
    let (probe, deps) = stage.spawn(name);
    for _ in 0..10 {
        assert_eq!(probe.ask(Panic::InHandler, within(60)).await, Err(SendError::Restarted));
    }
    reaches(&probe, ActorState::Failed).await;
    (probe, deps)
}

#[test]
fn a_reload_tries_a_failed_actor_at_once() {
    paused(async {
        let stage = Stage::new();
        let (probe, deps) = failed(&stage, "a").await;
        let before = Instant::now();
        probe.signal(Reload).unwrap();
        reaches(&probe, ActorState::Running).await;
        assert_eq!(deps.count("reload"), 1);
        let (other, _) = failed(&stage, "b").await;
        let also = Instant::now();
        stage.tree.retry_failed();
        reaches(&other, ActorState::Running).await;
        assert!(also.elapsed() < Duration::from_secs(1) && before < also);
    });
}

#[test]
fn a_failed_actor_that_is_drained_ends() {
    paused(async {
        let stage = Stage::new();
        let (probe, _) = failed(&stage, "a").await;
        let before = Instant::now();
        probe.signal(Drain { deadline: within(30) }).unwrap();
        probe.ended().await;
        assert_eq!(Instant::now(), before);
        assert!(stage.tree.rows().is_empty());
    });
}

#[test]
fn a_panic_while_draining_is_followed_by_another_drain() {
    paused(async {
        let stage = Stage::new();
        let (probe, deps) = stage.spawn("a");
        deps.panic_in("drain", 2);
        probe.signal(Drain { deadline: within(30) }).unwrap();
        probe.ended().await;
        assert_eq!(deps.count("drain"), 3);
    });
}

#[test]
fn a_cancellation_before_a_panic_does_not_reach_the_restarted_actor() {
    paused(async {
        let stage = Stage::new();
        let (probe, deps) = stage.spawn("a");
        // The restarted actor's first timer bears the same number as the one that was cancelled.
        assert_eq!(probe.ask(Panic::AfterCancelling, within(5)).await, Err(SendError::Restarted));
        tokio::time::sleep(Duration::from_secs(601)).await;
        assert_eq!(deps.count("tick"), 1);
        assert_eq!(probe.ask(Add(1), within(1)).await, Ok(1));
    });
}

#[test]
fn dropping_the_last_address_ends_the_actor_and_an_ended_arbiter_refuses() {
    paused(async {
        let stage = Stage::new();
        let (probe, deps) = stage.spawn("a");
        assert_eq!(probe.ask(Add(1), within(1)).await, Ok(1));
        drop(probe);
        while !stage.tree.rows().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(deps.count("stopped"), 1);

        let arbiter = actix::Arbiter::new();
        let handle = arbiter.handle();
        arbiter.stop();
        arbiter.join().unwrap();
        let place = Place::root(&stage.tree, "b");
        let orphan = supervision::spawn(&handle, Policy::PERMANENT, place, |_| -> Probe { unreachable!("no thread") });
        assert_eq!(orphan.ask(Add(1), within(1)).await, Err(SendError::Gone));
        let _ = Arbiter::current();
    });
}
