//! Remote write and OTLP, as the flags want them.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::actors::pool::ComputePool;
use crate::actors::remote_receiver::{OtlpDeps, ReceiverDeps, RemoteReceiver};
use crate::actors::storage_client::StorageClient;
use crate::cli::flags::ServerFlags;
use crate::cli::server::jobs;
use crate::config::OtlpConfig;
use crate::model::clock::SharedClock;
use crate::remote::otlp::OtlpMetrics;
use crate::remote::receive::budget::Budget;
use crate::remote::receive::{Accepted, Extras, ReceiveMetrics};
use crate::telemetry::metrics::Registry;

/// The receiver; `None` unless `--web.enable-remote-write-receiver` or `--web.enable-otlp-receiver` is given. The rules for
/// OTLP come with the configuration.
pub(super) fn receiver(
    flags: &ServerFlags,
    registry: &Arc<Registry>,
    clock: &SharedClock,
    storage: &StorageClient,
    pool: &Arc<ComputePool>,
) -> Option<Arc<RemoteReceiver>> {
    if !flags.web.remote_write_receiver && !flags.web.otlp_receiver {
        return None;
    }
    Some(RemoteReceiver::new(ReceiverDeps {
        storage: storage.clone(),
        pool: Arc::clone(pool),
        clock: SharedClock::clone(clock),
        accepted: Accepted::named(flags.web.remote_write_messages.iter().map(String::as_str)),
        budget: Budget::new(flags.limits.remote_write.unwrap_or(0)),
        metrics: ReceiveMetrics::new(registry),
        extras: Extras {
            exemplars: flags.features.is_enabled("exemplar-storage"),
            metadata: flags.features.is_enabled("metadata-wal-records"),
            starts: jobs::extras(flags).starts,
        },
        otlp: OtlpDeps {
            config: ArcSwap::from_pointee(OtlpConfig::default()),
            lookback_ms: flags.query.lookback.as_ms_i64(),
            metrics: flags.web.otlp_receiver.then(|| OtlpMetrics::new(registry)),
        },
    }))
}
