//! What only a process of its own can show: aborts, the panic hook's log, and memory. Each test starts this test program
//! again with one test of it, which acts when the variable below names it.

use std::process::{Command, Output};
use std::sync::Arc;

use actix::Arbiter;
use actix::prelude::{Actor, ActorContext, Context, Handler, Message, MessageResult, Supervised};
use parking_lot::Mutex;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;
use watchfire::actors::context;
use watchfire::actors::control::{Control, Drain};
use watchfire::actors::kind::{Kind, Rank};
use watchfire::actors::mailbox::Admitted;
use watchfire::actors::panics;
use watchfire::actors::policy::Policy;
use watchfire::actors::registry::ActorTree;
use watchfire::actors::supervision::{self, Place, SupervisedActor};
use watchfire::model::clock::SystemClock;
use watchfire::telemetry::metrics::Registry;

use crate::probe::{Add, Panic, Stage, paused, within};

const ROLE: &str = "WATCHFIRE_TEST_ROLE";

fn in_a_process_of_its_own(test: &str) -> Option<Output> {
    if std::env::var(ROLE).is_ok_and(|role| role == test) {
        return None;
    }
    let program = std::env::current_exe().expect("this program has a path");
    let output = Command::new(program).args(["--exact", test, "--nocapture"]).env(ROLE, test).output();
    Some(output.expect("this program starts"))
}

struct PanicsInStopped;

impl Actor for PanicsInStopped {
    type Context = Context<Self>;

    fn stopped(&mut self, _: &mut Self::Context) {
        panic!("in stopped");
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Boom;

impl Handler<Boom> for PanicsInStopped {
    type Result = ();

    fn handle(&mut self, _: Boom, _: &mut Self::Context) {
        panic!("in a handler");
    }
}

#[cfg(unix)]
#[test]
fn a_stock_actor_that_panics_in_stopped_while_unwinding_aborts_the_process_and_ours_does_not() {
    use std::os::unix::process::ExitStatusExt;
    let name = "process::a_stock_actor_that_panics_in_stopped_while_unwinding_aborts_the_process_and_ours_does_not";
    let Some(output) = in_a_process_of_its_own(name) else {
        paused(async {
            let stage = Stage::new();
            let (probe, deps) = stage.spawn("a");
            deps.panic_in("stopped", 9);
            assert!(probe.ask(Panic::InHandler, within(1)).await.is_err());
            drop(probe);
            while deps.count("stopped") < 1 {
                tokio::task::yield_now().await;
            }
            eprintln!("ours lives");
            let _ = PanicsInStopped.start().send(Boom).await;
            eprintln!("the stock one lives");
        });
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(6), "{said}");
    assert!(said.contains("ours lives") && !said.contains("the stock one lives"), "{said}");
}

/// Collects log events as `field=value` lines.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl<S: tracing::Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0.lock().push(line.0);
    }
}

struct Line(String);

impl tracing::field::Visit for Line {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        self.0.push_str(&format!("{field}={value:?} "));
    }
}

#[test]
fn the_panic_hook_logs_each_panic_with_its_actor_message_text_and_place() {
    let name = "process::the_panic_hook_logs_each_panic_with_its_actor_message_text_and_place";
    let Some(output) = in_a_process_of_its_own(name) else {
        panics::install_hook();
        let lines = Lines::default();
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(lines.clone())).unwrap();
        let last_panic = paused(async {
            let stage = Stage::new();
            let (probe, _) = stage.spawn("a");
            assert!(probe.ask(Panic::InHandler, within(1)).await.is_err());
            assert_eq!(probe.ask(Add(1), within(1)).await, Ok(1));
            stage.row("a").last_panic
        });
        assert!(std::thread::spawn(|| panic!("elsewhere")).join().is_err());
        for line in lines.0.lock().iter() {
            eprintln!("{line}");
        }
        eprintln!("last panic: {}", last_panic.unwrap());
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let panicked: Vec<_> = said.lines().filter(|line| line.contains("panicked")).collect();
    let [of_actor, of_thread] = panicked.as_slice() else { panic!("{said}") };
    for part in [
        "an actor panicked",
        r#"kind="probe""#,
        r#"actor="a""#,
        r#"work="Panic""#,
        r#"panic="in a handler""#,
        "probe.rs",
    ] {
        assert!(of_actor.contains(part), "{part} is not in {of_actor}");
    }
    assert!(of_thread.contains("a thread panicked") && of_thread.contains(r#"panic="elsewhere""#), "{of_thread}");
    assert!(said.contains("last panic: in a handler at tests/actor_faults/probe.rs:"), "{said}");
    assert!(said.contains("restarting an actor after a panic"), "{said}");
}

fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let resident = pages.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    resident.expect("statm tells the resident pages") * rustix::param::page_size() as u64
}

/// As small as an actor can be: what is measured is the layer.
struct Idle(u64);

static IDLE: Kind = Kind { name: "idle", rank: Rank::SHARD, slots: 4 };

impl Actor for Idle {
    type Context = context::Context<Self>;
}

impl Supervised for Idle {}

impl SupervisedActor for Idle {
    const KIND: &'static Kind = &IDLE;
}

impl Handler<Control<Drain>> for Idle {
    type Result = ();

    fn handle(&mut self, _: Control<Drain>, ctx: &mut context::Context<Self>) {
        ctx.stop();
    }
}

impl Handler<Admitted<Add>> for Idle {
    type Result = MessageResult<Admitted<Add>>;

    fn handle(&mut self, add: Admitted<Add>, _: &mut context::Context<Self>) -> Self::Result {
        self.0 += add.0;
        MessageResult(self.0)
    }
}

#[cfg(target_os = "linux")]
#[test]
fn an_idle_actor_costs_little_memory() {
    const ACTORS: u64 = 20_000;
    let name = "process::an_idle_actor_costs_little_memory";
    let Some(output) = in_a_process_of_its_own(name) else {
        let tree = ActorTree::new(&[&IDLE], &Registry::default(), SystemClock::shared(), 1);
        paused(async {
            let start = |n: u64| {
                let place = Place::root(&tree, n.to_string());
                supervision::spawn(&Arbiter::current(), Policy::PERMANENT, place, |_| Idle(0))
            };
            let first = start(0);
            assert_eq!(first.ask(Add(1), within(1)).await, Ok(1));
            let before = resident_bytes();
            let mut actors = Vec::with_capacity(ACTORS as usize);
            for n in 0..ACTORS {
                let actor = start(n);
                assert_eq!(actor.ask(Add(1), within(1)).await, Ok(1));
                actors.push(actor);
            }
            eprintln!("bytes: {}", (resident_bytes() - before) / ACTORS);
        });
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    let bytes = said.lines().find_map(|line| line.strip_prefix("bytes: ")?.parse::<u64>().ok()).expect("a figure");
    println!("{bytes} bytes of RSS for each idle actor, its address included");
    assert!(bytes <= 1600, "{bytes} bytes for each idle actor");
}
