//! Watches the threads that actors run on: each beats twice a second, and a thread whose beat is over a second late is
//! reported while it is stuck, with the actor and the message that hold it.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use actix::ArbiterHandle;
use parking_lot::Mutex;

use crate::actors::current::{self, ThreadState};
use crate::model::clock::SharedClock;
use crate::telemetry::metrics::{Counter, Gauge, Registry};

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
    stall_seconds: Gauge,
    stalls: Counter,
    stalled: bool,
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

    /// Lets the arbiter's thread beat from now on.
    pub fn watch(self: &Arc<Self>, arbiter: &ArbiterHandle, name: impl Into<String>) {
        let (heartbeats, name) = (Arc::clone(self), name.into());
        arbiter.spawn(async move {
            let state = current::thread();
            state.beat(heartbeats.now_ms());
            heartbeats.add(name, Arc::clone(&state));
            let mut ticks = tokio::time::interval(BEAT_EVERY);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                state.beat(heartbeats.now_ms());
            }
        });
    }

    /// Checks all threads now; returns the stalls that have begun since the last check and logs each once.
    pub fn check(&self) -> Vec<Stall> {
        let now_ms = self.now_ms();
        let mut begun = Vec::new();
        for thread in self.threads.lock().iter_mut() {
            let since_beat = Duration::from_millis(now_ms.saturating_sub(thread.state.beat_ms()));
            let late = since_beat.saturating_sub(BEAT_EVERY);
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
    pub fn run(self: &Arc<Self>) -> std::io::Result<Watch> {
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

    fn now_ms(&self) -> u64 {
        u64::try_from(self.clock.monotonic().as_millis()).unwrap_or(u64::MAX)
    }

    fn add(&self, name: String, state: Arc<ThreadState>) {
        let labels = [("thread", name.as_str())];
        let stall_seconds = self.metrics.gauge(
            "watchfire_thread_stall_seconds",
            "How late the heartbeat of a stalled thread is; 0 while it beats.",
            &labels,
        );
        let stalls = self.metrics.counter("watchfire_thread_stalls_total", "Times that a thread stalled.", &labels);
        self.threads.lock().push(Watched { name, state, stall_seconds, stalls, stalled: false });
    }
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
        heartbeats.add("shards".to_owned(), Arc::clone(&state));
        let gauge = metrics.gauge("watchfire_thread_stall_seconds", "", &[("thread", "shards")]);

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
        assert_eq!(heartbeats.check(), [expected]);
    }
}
