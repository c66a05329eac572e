//! The lanes of the compute pool: who they are for, their bounds and their metrics.

use crate::telemetry::metrics::{Counter, Gauge, Histogram, Registry};

/// Who a job works for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Queries of users.
    Queries,
    /// Evaluation of rules.
    Rules,
    /// Rebuilding of shards, compaction and other work of storage.
    Storage,
    /// Queries of users that take little work.
    Quick,
}

impl Lane {
    /// All lanes.
    pub const ALL: [Self; 4] = [Self::Queries, Self::Rules, Self::Storage, Self::Quick];

    /// Name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queries => "queries",
            Self::Rules => "rules",
            Self::Storage => "storage",
            Self::Quick => "quick",
        }
    }
}

/// Bounds of a lane.
#[derive(Clone, Copy, Debug)]
pub struct LaneOptions {
    /// So many jobs may wait; further ones are refused.
    pub queue_max: usize,
    /// Threads that only this lane uses.
    pub reserved_threads: usize,
}

/// Bounds of the pool.
#[derive(Clone, Copy, Debug)]
pub struct PoolOptions {
    /// Beginning of the threads' names.
    pub name: &'static str,
    /// Threads that all lanes share.
    pub shared_threads: usize,
    /// One for each lane, in the order of [`Lane::ALL`].
    pub lanes: [LaneOptions; 4],
}

impl PoolOptions {
    /// As many shared threads as there are cores, and one of their own for rules, for storage and for quick queries.
    pub fn for_cores(cores: usize) -> Self {
        let lane = |queue_max, reserved_threads| LaneOptions { queue_max, reserved_threads };
        let lanes = [lane(1024, 0), lane(4096, 1), lane(256, 1), lane(1024, 1)];
        Self { name: "compute", shared_threads: cores.max(1), lanes }
    }

    pub(super) fn threads(&self) -> usize {
        self.shared_threads + self.lanes.iter().map(|lane| lane.reserved_threads).sum::<usize>()
    }
}

/// What a lane counts.
pub(super) struct LaneMetrics {
    pub(super) queue_length: Gauge,
    pub(super) running: Gauge,
    pub(super) done: Counter,
    pub(super) refused: Counter,
    pub(super) expired: Counter,
    pub(super) panicked: Counter,
    pub(super) wait_seconds: Histogram,
    pub(super) run_seconds: Histogram,
}

const SECONDS_BOUNDS: [f64; 7] = [1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 60.0];

impl LaneMetrics {
    pub(super) fn new(metrics: &Registry, lane: Lane) -> Self {
        let labels = [("lane", lane.as_str())];
        let counter = |name: &str, help: &str| metrics.counter(name, help, &labels);
        let gauge = |name: &str, help: &str| metrics.gauge(name, help, &labels);
        let seconds = |name: &str, help: &str| metrics.histogram(name, help, &labels, &SECONDS_BOUNDS);
        Self {
            queue_length: gauge("watchfire_pool_queue_length", "Jobs that wait for a thread."),
            running: gauge("watchfire_pool_running", "Jobs that run."),
            done: counter("watchfire_pool_done_total", "Jobs that ran to their end."),
            refused: counter("watchfire_pool_refused_total", "Jobs refused because the lane's queue was full."),
            expired: counter("watchfire_pool_expired_total", "Jobs not begun because nobody wanted them any more."),
            panicked: counter("watchfire_pool_panicked_total", "Jobs that panicked."),
            wait_seconds: seconds("watchfire_pool_wait_seconds", "Time that jobs waited for a thread."),
            run_seconds: seconds("watchfire_pool_run_seconds", "Time that jobs ran."),
        }
    }
}
