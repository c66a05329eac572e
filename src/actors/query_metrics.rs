//! How long the parts of a query take, under the names that dashboards know.

use std::time::Duration;

use crate::model::clock::SharedClock;
use crate::telemetry::metrics::{Histogram, Registry};
use crate::telemetry::summary::Summary;

const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];
const BOUNDS: [f64; 4] = [0.01, 0.1, 1.0, 10.0];

/// `prometheus_engine_query_duration_seconds` and its histogram, by part (label `slice`).
pub(super) struct QueryTimes {
    queue: Slice,
    prepare: Slice,
    eval: Slice,
    sort: Slice,
}

struct Slice {
    summary: Summary,
    histogram: Histogram,
}

impl Slice {
    fn observe(&self, took: Duration) {
        self.summary.observe(took.as_secs_f64());
        self.histogram.observe(took.as_secs_f64());
    }
}

impl QueryTimes {
    /// Registers the metrics.
    pub(super) fn new(registry: &Registry, clock: &SharedClock) -> Self {
        let slice = |name: &str| {
            let labels = [("slice", name)];
            let (summary, help) = ("prometheus_engine_query_duration_seconds", "Query timings");
            let summary = registry.summary(summary, help, &labels, &QUANTILES, clock);
            let help = "The duration of various parts of PromQL query execution.";
            let name = "prometheus_engine_query_duration_histogram_seconds";
            Slice { summary, histogram: registry.histogram(name, help, &labels, &BOUNDS) }
        };
        Self {
            queue: slice("queue_time"),
            prepare: slice("prepare_time"),
            eval: slice("inner_eval"),
            sort: slice("result_sort"),
        }
    }

    /// A query has waited for its turn.
    pub(super) fn queued(&self, took: Duration) {
        self.queue.observe(took);
    }

    /// A query has taken its view of storage and was evaluated, and its result sorted if it is a matrix.
    pub(super) fn evaluated(&self, prepare: Duration, eval: Duration, sort: Option<Duration>) {
        self.prepare.observe(prepare);
        self.eval.observe(eval);
        if let Some(sort) = sort {
            self.sort.observe(sort);
        }
    }
}
