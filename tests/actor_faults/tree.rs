//! The parts around the actors: rebuilding, ranks, children, draining in order, heartbeats.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::Arbiter;
use tokio::time::Instant;
use watchfire::actors::children::Children;
use watchfire::actors::drain::{Drainable, Stage as DrainStage, Unfinished, in_order};
use watchfire::actors::heartbeat::{Heartbeats, Stall};
use watchfire::actors::mailbox::SendError;
use watchfire::actors::policy::Policy;
use watchfire::actors::registry::{ActorState, ActorTree};
use watchfire::actors::root::{self, ROOT, RootEnd};
use watchfire::actors::supervision::{self, Place};
use watchfire::model::clock::{ManualClock, SystemClock};
use watchfire::model::time::TimestampMs;
use watchfire::telemetry::metrics::Registry;

use crate::probe::{Add, Hold, PROBE, Panic, Probe, ProbeDeps, Stage, paused, reaches, within};

#[test]
fn messages_wait_while_an_actor_rebuilds_its_state() {
    paused(async {
        let stage = Stage::new();
        let (probe, deps) = stage.spawn("a");
        assert_eq!(probe.ask(Add(1), within(1)).await, Ok(1));
        *deps.rebuild_for.lock() = Some(Duration::from_secs(20));
        assert_eq!(probe.ask(Panic::InHandler, within(1)).await, Err(SendError::Restarted));
        reaches(&probe, ActorState::Rebuilding).await;
        assert_eq!(probe.ask(Add(1), within(5)).await, Err(SendError::Deadline));
        assert_eq!(probe.ask(Add(10), within(60)).await, Ok(10));
        assert_eq!((probe.entry().state(), deps.count("add 1")), (ActorState::Running, 1));
        // A panic while it rebuilds counts like any other.
        deps.panic_in("rebuild", 2);
        assert_eq!(probe.ask(Panic::InHandler, within(1)).await, Err(SendError::Restarted));
        assert_eq!(probe.ask(Add(5), within(120)).await, Ok(5));
        assert_eq!(stage.row("a").restarts, 4);
    });
}

#[test]
fn other_actors_get_their_turn_during_a_flood() {
    paused(async {
        let stage = Stage::new();
        let deps = Arc::new(ProbeDeps::default());
        let flooded = stage.spawn_with(Place::root(&stage.tree, "flooded").slots(1000), &deps);
        let other = stage.spawn_with(Place::root(&stage.tree, "other"), &deps);
        assert_eq!((flooded.ask(Add(0), within(1)).await, other.ask(Add(0), within(1)).await), (Ok(0), Ok(0)));
        for _ in 0..1000 {
            flooded.try_tell(Add(1)).unwrap();
        }
        assert_eq!(other.ask(Add(2), within(1)).await, Ok(2));
        let before = deps.log.lock().iter().take_while(|line| *line != "add 2").count();
        assert!(before < 100, "{before} came first");
        while deps.count("add 1") < 1000 {
            tokio::task::yield_now().await;
        }
    });
}

#[cfg(debug_assertions)]
#[test]
fn asking_against_the_ranks_is_a_panic_of_the_asker() {
    use crate::probe::AskOther;
    paused(async {
        let stage = Stage::new();
        let ((asker, _), (asked, deps)) = (stage.spawn("asker"), stage.spawn("asked"));
        assert_eq!(asker.ask(AskOther(asked), within(5)).await, Err(SendError::Restarted));
        let text = stage.row("asker").last_panic.unwrap();
        assert!(text.starts_with("an actor of rank 50 asks probe of rank 50"), "{text}");
        assert_eq!(deps.count("add 1"), 0);
    });
}

#[test]
fn a_restarted_parent_adopts_its_children() {
    paused(async {
        let stage = Stage::new();
        let children = Children::<u32, Probe>::default();
        let adopt = |key: u32| children.adopt_or_spawn(key, |key| stage.spawn(&format!("child {key}")).0);
        for key in [2, 1, 3] {
            adopt(key);
        }
        assert_eq!(adopt(1).ask(Add(5), within(1)).await, Ok(5));
        assert_eq!(adopt(1).ask(Add(5), within(1)).await, Ok(10), "the same child, with its state");
        assert_eq!(stage.tree.rows().len(), 3);

        let keys = |list: Vec<(u32, _)>| list.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        let second = children.get(&2).unwrap();
        for _ in 0..10 {
            assert_eq!(second.ask(Panic::InHandler, within(60)).await, Err(SendError::Restarted));
        }
        reaches(&second, ActorState::Failed).await;
        assert_eq!(keys(children.failed()), [2]);

        let unwanted = children.take_unwanted(|key| *key != 3);
        assert_eq!((keys(unwanted), keys(children.list())), (vec![3], vec![1, 2]));
        assert_eq!(children.drain_all(within(5)).await, []);
        assert!(children.list().is_empty() && children.get(&1).is_none());
        assert_eq!(adopt(1).ask(Add(5), within(1)).await, Ok(5), "an ended child is replaced");
    });
}

#[test]
fn the_root_drains_sources_first_and_a_stuck_part_leaves_time_for_the_sinks() {
    paused(async {
        let stage = Stage::new();
        let tree = ActorTree::new(&[&ROOT, &PROBE], &Registry::default(), SystemClock::shared(), 1);
        let root = root::start(&Arbiter::current(), Place::root(&tree, "root"));
        let deps = Arc::new(ProbeDeps::default());
        let part = |name: &str| stage.spawn_with(root.parent().place(name), &deps);
        let (sink, stuck, source) = (part("sink"), part("stuck"), part("source"));
        root.add(DrainStage::Writers, sink.clone());
        root.add(DrainStage::Work, stuck.clone());
        root.add(DrainStage::Sources, source.clone());
        stuck.try_tell(Hold(Duration::from_secs(600))).unwrap();
        assert_eq!(sink.ask(Add(1), within(1)).await, Ok(1));
        let begun = Instant::now();
        let ended = |addr: &watchfire::actors::mailbox::BoundedAddr<Probe>| {
            let addr = addr.clone();
            actix::spawn(async move {
                addr.ended().await;
                begun.elapsed().as_secs()
            })
        };
        let (source_end, sink_end) = (ended(&source), ended(&sink));
        root.drain(begun + Duration::from_secs(30));
        let unfinished = vec![Unfinished { kind: "probe", name: "stuck".to_owned() }];
        assert_eq!(root.end().await, RootEnd::Drained(unfinished));
        assert_eq!((source_end.await.unwrap(), sink_end.await.unwrap()), (0, 15));
        assert_eq!(begun.elapsed().as_secs(), 15);
    });
}

#[test]
fn nothing_to_drain_takes_no_time_and_a_failed_root_is_reported() {
    paused(async {
        let before = Instant::now();
        let none: Vec<(DrainStage, Arc<dyn Drainable>)> = Vec::new();
        assert_eq!(in_order(&none, within(30)).await, []);
        assert_eq!(Instant::now(), before);
        #[cfg(debug_assertions)]
        {
            use watchfire::actors::failpoint::{Point, arm};
            let tree = ActorTree::new(&[&ROOT], &Registry::default(), SystemClock::shared(), 1);
            let _armed = arm(ROOT.name, Some("failing root"), Point::Started, 10);
            let root = root::start(&Arbiter::current(), Place::root(&tree, "failing root"));
            assert_eq!(root.end().await, RootEnd::Failed);
        }
    });
}

#[test]
fn a_stuck_thread_is_reported_with_its_actor_and_message_while_the_tree_stays_readable() {
    let system = actix::System::new();
    system.block_on(async {
        let clock = ManualClock::at(TimestampMs(0));
        let tree = ActorTree::new(&[&PROBE], &Registry::default(), clock.clone(), 1);
        let metrics = Registry::shared();
        let heartbeats = Heartbeats::new(Arc::clone(&metrics), clock.clone());
        let arbiter = heartbeats.start("shards").expect("a thread");
        let deps = Arc::new(ProbeDeps::default());
        let place = Place::root(&tree, "stuck one");
        let for_actor = Arc::clone(&deps);
        let probe = supervision::spawn(&arbiter.handle(), Policy::PERMANENT, place, move |_| Probe::new(&for_actor));
        assert_eq!(probe.ask(Add(1), within(30)).await, Ok(1));
        assert_eq!(heartbeats.check(), []);

        // The handler waits for the log's lock, which is held here.
        let locked = deps.log.lock();
        probe.try_tell(Add(2)).unwrap();
        while deps.adds_begun.load(Ordering::SeqCst) < 2 {
            std::thread::yield_now();
        }
        clock.advance(Duration::from_secs(1));
        assert_eq!(heartbeats.check(), [], "it is asked for a beat first");
        clock.advance(Duration::from_secs(2));
        let stall = Stall {
            thread: "shards".to_owned(),
            actor: Some(("probe", "stuck one".to_owned())),
            message: "Add".to_owned(),
        };
        assert_eq!(heartbeats.check(), [stall]);
        assert_eq!(heartbeats.check(), [], "one report for a stall");
        assert_eq!(tree.rows()[0].state, ActorState::Running);
        let stalls = metrics.counter("watchfire_thread_stalls_total", "", &[("thread", "shards")]);
        assert_eq!(stalls.get(), 1);
        drop(locked);
        assert_eq!(probe.ask(Add(3), within(30)).await, Ok(6));
        arbiter.stop();
        arbiter.join().unwrap();
        probe.ended().await;
    });
}
