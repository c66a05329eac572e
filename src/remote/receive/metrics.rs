//! Metrics of the receiver: Prometheus's, and ours for what it does not tell.

use crate::remote::receive::Extras;
use crate::remote::receive::collect::Decoded;
use crate::remote::receive::format::Message;
use crate::telemetry::metrics::{Counter, Registry};

/// Counters of the receiver.
pub struct ReceiveMetrics {
    invalid_labels: Counter,
    exemplars_dropped: Counter,
    /// Requests that were refused for the state that we are in: they may be sent again.
    pub refused: Counter,
    /// Requests read again without the cache, as storage has dropped series meanwhile.
    pub looked_up_again: Counter,
}

impl ReceiveMetrics {
    /// Registers the metrics.
    pub fn new(registry: &Registry) -> Self {
        let counter = |name, help| registry.counter(name, help, &[]);
        // It counts what failed to be stored beside a sample; metadata is not stored.
        counter(
            "prometheus_api_remote_write_without_metadata_appended_samples_total",
            "The total number of received remote write samples (and histogram samples) which were ingested without corresponding metadata.",
        );
        Self {
            invalid_labels: counter(
                "prometheus_api_remote_write_invalid_labels_samples_total",
                "The total number of received remote write samples and histogram samples which were rejected due to invalid labels.",
            ),
            exemplars_dropped: counter(
                "watchfire_remote_write_exemplars_dropped_total",
                "Exemplars received by remote write and not stored, as exemplar storage is off.",
            ),
            refused: counter(
                "watchfire_remote_write_refused_total",
                "Remote write requests refused as storage or memory was not available.",
            ),
            looked_up_again: counter(
                "watchfire_remote_write_looked_up_again_total",
                "Remote write requests whose series were looked up again, as some were no longer in the head.",
            ),
        }
    }

    /// Counts what was read and is not handed on.
    pub fn decoded(&self, message: Message, decoded: &Decoded, extras: Extras) {
        // Prometheus counts series in version 1, and samples in version 2.
        self.invalid_labels.add(match message {
            Message::V1 => decoded.invalid_series,
            Message::V2 => decoded.invalid_samples,
        });
        if !extras.exemplars {
            self.exemplars_dropped.add(decoded.exemplars);
        }
    }
}
