//! Remote write, OTLP and remote read, as the flags want them.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::actors::mailbox::BoundedAddr;
use crate::actors::pool::ComputePool;
use crate::actors::query_gateway::{GatewayDeps, QueryGateway};
use crate::actors::remote_read_server::{ReadLimits, RemoteReadServer};
use crate::actors::remote_reads::RemoteReads;
use crate::actors::remote_receiver::{OtlpDeps, ReceiverDeps, RemoteReceiver};
use crate::actors::storage_client::StorageClient;
use crate::cli::flags::ServerFlags;
use crate::cli::server::jobs;
use crate::config::{Config, OtlpConfig};
use crate::model::clock::SharedClock;
use crate::remote::otlp::{DeltaMode, DeltaStreams, OtlpMetrics};
use crate::remote::read::ReadMetrics;
use crate::remote::receive::budget::Budget;
use crate::remote::receive::{Accepted, Extras, ReceiveMetrics};
use crate::storage::block::catalog::Catalog;
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
    let deltas = if flags.features.is_enabled("otlp-deltatocumulative") {
        // They may take as much again as requests in flight.
        DeltaMode::Summed(DeltaStreams::new(flags.limits.remote_write.unwrap_or(0)))
    } else if flags.features.is_enabled("otlp-native-delta-ingestion") {
        DeltaMode::AsTheyAre
    } else {
        DeltaMode::Refused
    };
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
            metrics: flags.web.otlp_receiver.then(|| OtlpMetrics::new(registry, &deltas)),
            deltas,
        },
    }))
}

/// Both sides of remote read. Who is asked comes with the configuration.
pub(super) struct RemoteRead {
    pub(super) remotes: Arc<RemoteReads>,
    pub(super) server: Arc<RemoteReadServer>,
}

impl RemoteRead {
    pub(super) fn start(
        flags: &ServerFlags,
        registry: &Arc<Registry>,
        clock: &SharedClock,
        (gateway, deps): (&BoundedAddr<QueryGateway>, &Arc<GatewayDeps>),
        pool: &Arc<ComputePool>,
        catalog: &Arc<Catalog>,
    ) -> Self {
        let limits = ReadLimits {
            samples: flags.remote_read.samples,
            concurrency: flags.remote_read.concurrency,
            frame_len: flags.remote_read.frame_len,
            timeout: flags.query.timeout.to_std(),
        };
        let server = RemoteReadServer::new(gateway.clone(), Arc::clone(pool), limits, registry);
        let remotes = RemoteReads::new(ReadMetrics::new(registry));
        let (catalog, clock) = (Arc::clone(catalog), SharedClock::clone(clock));
        // As in Prometheus: two blocks' time is left for the server to have got going.
        let margin_ms = flags.storage.block_span_min.as_ms_i64().saturating_mul(2);
        remotes.set_local_start(move || {
            catalog.state().min_time().unwrap_or_else(|| clock.now().0).saturating_add(margin_ms)
        });
        deps.set_remotes(Arc::clone(&remotes));
        Self { remotes, server }
    }

    /// Takes over a configuration.
    pub(super) fn set(&self, config: &Config) {
        let external = config.global.external_labels.labels();
        self.remotes.set(&config.remote_read, &external);
        self.server.set_external(external);
    }
}
