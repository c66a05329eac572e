//! Remote write, as the flags want it.

use std::sync::Arc;

use crate::actors::pool::ComputePool;
use crate::actors::remote_receiver::{ReceiverDeps, RemoteReceiver};
use crate::actors::storage_client::StorageClient;
use crate::cli::flags::ServerFlags;
use crate::model::clock::SharedClock;
use crate::remote::receive::budget::Budget;
use crate::remote::receive::{Accepted, ReceiveMetrics};
use crate::telemetry::metrics::Registry;

/// The receiver; `None` unless `--web.enable-remote-write-receiver` is given.
pub(super) fn receiver(
    flags: &ServerFlags,
    registry: &Registry,
    clock: &SharedClock,
    storage: &StorageClient,
    pool: &Arc<ComputePool>,
) -> Option<Arc<RemoteReceiver>> {
    if !flags.web.remote_write_receiver {
        return None;
    }
    Some(RemoteReceiver::new(ReceiverDeps {
        storage: storage.clone(),
        pool: Arc::clone(pool),
        clock: SharedClock::clone(clock),
        accepted: Accepted::named(flags.web.remote_write_messages.iter().map(String::as_str)),
        budget: Budget::new(flags.limits.remote_write.unwrap_or(0)),
        metrics: ReceiveMetrics::new(registry),
    }))
}
