//! Metrics of the OTLP receiver.

use std::sync::Arc;

use crate::model::append::AppendReport;
use crate::model::exemplar::ExemplarRejection;
use crate::remote::otlp::convert::Converted;
use crate::remote::otlp::delta::{DeltaMode, Dropped};
use crate::remote::receive::Extras;
use crate::telemetry::metrics::{Counter, Gauge, Registry};

/// What is odd about a request that is taken all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warning {
    /// A metric has no data points.
    EmptyDataPoints,
    /// Attributes have become one label.
    LabelNameCollision,
    /// A histogram without observations has a sum.
    ZeroCountNonZeroSum,
}

/// Counters of the receiver.
pub struct OtlpMetrics {
    registry: Arc<Registry>,
    exemplars_dropped: Counter,
    late_exemplars: Counter,
    undescribed: Counter,
    /// There while deltas are added up: streams, and points that were left out, by reason.
    deltas: Option<(Gauge, [Counter; 3])>,
}

impl OtlpMetrics {
    /// Registers the metrics.
    pub fn new(registry: &Arc<Registry>, deltas: &DeltaMode) -> Self {
        let undescribed = registry.counter(
            "prometheus_api_otlp_appended_samples_without_metadata_total",
            "The total number of samples ingested from OTLP without corresponding metadata.",
            &[],
        );
        let late_exemplars = registry.counter(
            "prometheus_api_otlp_out_of_order_exemplars_total",
            "The total number of received OTLP exemplars which were rejected because they were out of order.",
            &[],
        );
        Self {
            registry: Arc::clone(registry),
            late_exemplars,
            undescribed,
            deltas: matches!(deltas, DeltaMode::Summed(_)).then(|| delta_metrics(registry)),
            exemplars_dropped: registry.counter(
                "watchfire_otlp_exemplars_dropped_total",
                "Exemplars received by OTLP and not stored, as exemplar storage is off.",
                &[],
            ),
        }
    }

    /// Counts what was read and is not handed on.
    pub fn converted(&self, converted: &Converted, extras: Extras, deltas: &DeltaMode) {
        if let (Some((streams, dropped)), DeltaMode::Summed(known)) = (&self.deltas, deltas) {
            streams.set(known.len() as f64);
            for why in &converted.dropped {
                let [late, older, full] = dropped;
                match why {
                    Dropped::OutOfOrder => late.inc(),
                    Dropped::OlderStart => older.inc(),
                    Dropped::Limit => full.inc(),
                }
            }
        }
        for warning in &converted.warnings {
            let category = match warning {
                Warning::EmptyDataPoints => "empty_data_points",
                Warning::LabelNameCollision => "label_name_collision",
                Warning::ZeroCountNonZeroSum => "histogram_zero_count_non_zero_sum",
            };
            // As in Prometheus there is none before the first.
            let help = "The total number of warnings produced while translating OTLP metrics to the Prometheus model, by category.";
            let labels = [("category", category)];
            self.registry.counter("prometheus_api_otlp_translation_warnings_total", help, &labels).inc();
        }
        if !extras.exemplars {
            self.exemplars_dropped.add(converted.exemplars);
        }
    }

    /// Counts what was said of a request that storage has taken, and exemplars that it refused.
    pub fn stored(&self, converted: &Converted, report: &AppendReport) {
        self.undescribed.add(converted.undescribed);
        let late = report.exemplars_rejected.iter().filter(|(_, why)| *why == ExemplarRejection::OutOfOrder);
        self.late_exemplars.add(late.count() as u64);
    }
}

fn delta_metrics(registry: &Registry) -> (Gauge, [Counter; 3]) {
    let streams = registry.gauge("watchfire_otlp_delta_streams", "Streams of deltas that are added up.", &[]);
    let dropped = ["out_of_order", "older_start", "limit"].map(|reason| {
        let help = "Points of deltas that were not added to their streams, by reason.";
        registry.counter("watchfire_otlp_delta_points_dropped_total", help, &[("reason", reason)])
    });
    (streams, dropped)
}
