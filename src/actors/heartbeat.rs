//! Watches the threads that actors run on: a thread that goes to work and is not through within a second and a half is
//! reported while it is stuck, with the actor and the message that hold it.
//!
//! A thread notes when it goes to work and when it rests, which takes no timer: one that has nothing to do is not woken up. One
//! that is long at work is asked for a beat in between, which comes unless it is stuck.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use actix::{Arbiter, ArbiterHandle};
use parking_lot::Mutex;

use crate::actors::current::{self, ThreadState};
use crate::model::clock::SharedClock;
use crate::telemetry::metrics::{Counter, Gauge, Registry};

/// A thread at work is asked for a beat after this long; also the time between two checks.
const BEAT_EVERY: Duration = Duration::from_millis(500);
/// A thread that is later than this has stalled.
const LATE_AFTER: Duration = Duration::from_secs(1);

/// A thread that is reported as stalled now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stall {
    /// Name of the thread.
    pub thread: String,
    /// Kind and name of the actor that it works on, if any.
    pub actor: Option<(&'static str, String)>,
    /// The message, timer or future that the actor works on.
    pub message: String,
}

struct Watched {
    name: String,
    state: Arc<ThreadState>,
    /// Where it is asked for a beat.
    handle: Option<ArbiterHandle>,
    /// The beat after which it was asked for another.
    asked_after: Option<u64>,
    stall_seconds: Gauge,
    stalls: Counter,
    stalled: bool,
}

impl Watched {
    /// How long its next beat is overdue; zero for one that rests or was not asked for a beat yet.
    fn lateness(&mut self, now_ms: u64, clock: &SharedClock) -> Duration {
        let beat_ms = self.state.beat_ms();
        let since_beat = Duration::from_millis(beat_ms.map_or(0, |at| now_ms.saturating_sub(at)));
        if since_beat < BEAT_EVERY {
            self.asked_after = None;
            return Duration::ZERO;
        }
        if self.asked_after == beat_ms {
            return since_beat.saturating_sub(BEAT_EVERY);
        }
        self.asked_after = beat_ms;
        if let Some(handle) = &self.handle {
            let (state, clock) = (Arc::clone(&self.state), SharedClock::clone(clock));
            handle.spawn_fn(move || state.beat(millis(&clock)));
        }
        Duration::ZERO
    }
}

/// The threads under watch. The check itself is plain code on the clock that it is given.
pub struct Heartbeats {
    clock: SharedClock,
    metrics: Arc<Registry>,
    threads: Mutex<Vec<Watched>>,
}

impl Heartbeats {
    /// Nothing watched yet.
    pub fn new(metrics: Arc<Registry>, clock: SharedClock) -> Arc<Self> {
        Arc::new(Self { clock, metrics, threads: Mutex::default() })
    }

    /// Starts an arbiter's thread that is watched. Errors when the system gives none.
    pub fn start(self: &Arc<Self>, name: impl Into<String>) -> io::Result<Arbiter> {
        let (tell, told) = channel();
        let clock = SharedClock::clone(&self.clock);
        let arbiter = Arbiter::try_with_tokio_rt(move || {
            let state = current::thread();
            state.beat(millis(&clock));
            // Nobody waits for it any more if the thread could not be started.
            let _ = tell.send(Arc::clone(&state));
            let working = Arc::clone(&state);
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .on_thread_park(move || state.rest())
                .on_thread_unpark(move || working.beat(millis(&clock)))
                .build()
        })?;
        let state = told.recv().map_err(io::Error::other)?;
        self.add(name.into(), state, Some(arbiter.handle()));
        Ok(arbiter)
    }

    /// Checks all threads now; returns the stalls that have begun since the last check and logs each once.
    pub fn check(&self) -> Vec<Stall> {
        let now_ms = millis(&self.clock);
        let mut begun = Vec::new();
        for thread in self.threads.lock().iter_mut() {
            let late = thread.lateness(now_ms, &self.clock);
            let stalled = LATE_AFTER < late;
            thread.stall_seconds.set(if stalled { late.as_secs_f64() } else { 0.0 });
            if stalled && !thread.stalled {
                thread.stalls.inc();
                begun.push(report(thread, late));
            }
            thread.stalled = stalled;
        }
        begun
    }

    /// Checks twice a second on a thread of its own, which cannot be held up by what it watches, until the result is
    /// dropped.
    pub fn run(self: &Arc<Self>) -> io::Result<Watch> {
        let (stop, stopped) = channel::<()>();
        let heartbeats = Arc::clone(self);
        let watch = move || {
            while stopped.recv_timeout(BEAT_EVERY) == Err(RecvTimeoutError::Timeout) {
                heartbeats.check();
            }
        };
        std::thread::Builder::new().name("heartbeat".to_owned()).spawn(watch)?;
        Ok(Watch { _stop: stop })
    }

    fn add(&self, name: String, state: Arc<ThreadState>, handle: Option<ArbiterHandle>) {
        let labels = [("thread", name.as_str())];
        let stall_seconds = self.metrics.gauge(
            "watchfire_thread_stall_seconds",
            "How late the heartbeat of a stalled thread is; 0 while it beats.",
            &labels,
        );
        let stalls = self.metrics.counter("watchfire_thread_stalls_total", "Times that a thread stalled.", &labels);
        let watched = Watched { name, state, handle, asked_after: None, stall_seconds, stalls, stalled: false };
        self.threads.lock().push(watched);
    }
}

fn millis(clock: &SharedClock) -> u64 {
    u64::try_from(clock.monotonic().as_millis()).unwrap_or(u64::MAX)
}

/// Keeps the checking thread alive.
pub struct Watch {
    _stop: Sender<()>,
}

fn report(thread: &Watched, late: Duration) -> Stall {
    let activity = thread.state.activity();
    let message =
        activity.as_ref().map(|activity| current::short_name(activity.message)).unwrap_or_default().to_owned();
    let actor = activity.map(|activity| (activity.actor.kind().name, activity.actor.name().to_owned()));
    let (kind, name) = actor.clone().unwrap_or_default();
    let seconds = late.as_secs_f64();
    tracing::warn!(
        component = "actors",
        thread = thread.name,
        kind,
        actor = name,
        work = message,
        seconds,
        "a thread has stalled"
    );
    Stall { thread: thread.name.clone(), actor, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::clock::ManualClock;
    use crate::model::time::TimestampMs;

    #[test]
    fn a_late_thread_is_reported_once_and_shown_until_it_beats_again() {
        let clock = ManualClock::at(TimestampMs(0));
        let metrics = Registry::shared();
        let heartbeats = Heartbeats::new(Arc::clone(&metrics), clock.clone());
        let state = Arc::new(ThreadState::default());
        heartbeats.add("shards".to_owned(), Arc::clone(&state), None);
        let gauge = metrics.gauge("watchfire_thread_stall_seconds", "", &[("thread", "shards")]);

        state.beat(0);
        clock.advance(Duration::from_millis(1500));
        assert_eq!((heartbeats.check(), gauge.get()), (vec![], 0.0));
        clock.advance(Duration::from_millis(500));
        let expected = Stall { thread: "shards".to_owned(), actor: None, message: String::new() };
        assert_eq!((heartbeats.check(), gauge.get()), (vec![expected.clone()], 1.5));
        clock.advance(Duration::from_secs(3));
        assert_eq!((heartbeats.check(), gauge.get()), (vec![], 4.5));
        state.beat(5_000);
        assert_eq!((heartbeats.check(), gauge.get()), (vec![], 0.0));
        clock.advance(Duration::from_secs(3));
        assert_eq!(heartbeats.check(), [], "the check itself may have been late: the thread is asked first");
        assert_eq!(heartbeats.check(), [expected]);
    }

    #[test]
    fn a_thread_that_rests_is_never_late() {
        let clock = ManualClock::at(TimestampMs(0));
        let heartbeats = Heartbeats::new(Registry::shared(), clock.clone());
        let state = Arc::new(ThreadState::default());
        heartbeats.add("shards".to_owned(), Arc::clone(&state), None);
        state.beat(0);
        clock.advance(Duration::from_millis(700));
        assert_eq!(heartbeats.check(), []);
        state.rest();
        clock.advance(Duration::from_secs(100));
        assert_eq!((heartbeats.check(), heartbeats.check()), (vec![], vec![]));
        // At work again: lateness counts from here.
        state.beat(100_700);
        clock.advance(Duration::from_millis(1_400));
        assert_eq!((heartbeats.check(), heartbeats.check()), (vec![], vec![]));
    }
}
