//! The threads that actors run on: each is an actix arbiter with a name and a watched heartbeat. The rest of the process
//! starts them here and hands [`Thread`]s out; nobody outside the actor layer knows what they are.

use std::future::Future;
use std::io;
use std::sync::Arc;

use crate::actors::heartbeat::{Heartbeats, Watch};
use crate::model::clock::SharedClock;
use crate::telemetry::metrics::Registry;

/// A thread that actors can be spawned on.
pub type Thread = actix::ArbiterHandle;

/// The threads of a process. Dropping it lets them end.
pub struct Threads {
    heartbeats: Arc<Heartbeats>,
    arbiters: Vec<actix::Arbiter>,
    _watch: Watch,
}

impl Threads {
    /// No threads yet, and the one that watches them. Errors when the system gives none.
    pub fn new(registry: &Arc<Registry>, clock: &SharedClock) -> io::Result<Self> {
        let heartbeats = Heartbeats::new(Arc::clone(registry), SharedClock::clone(clock));
        let watch = heartbeats.run()?;
        Ok(Self { heartbeats, arbiters: Vec::new(), _watch: watch })
    }

    /// Starts a thread and watches it.
    pub fn start(&mut self, name: impl Into<String>) -> Thread {
        let arbiter = self.heartbeats.start(name).expect("the system has room for the few threads of a start");
        let handle = arbiter.handle();
        self.arbiters.push(arbiter);
        handle
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        for arbiter in &self.arbiters {
            arbiter.stop();
        }
    }
}

/// Runs `work` to its end on this thread, with actors' threads beside it.
pub fn run<T>(work: impl Future<Output = T>) -> T {
    actix::System::new().block_on(work)
}
