//! The blocks of the data directory and the compactor, as the flags and the configuration want them.

use std::sync::Arc;

use tokio::sync::watch;

use crate::actors::compactor::{Compactor, CompactorDeps, CompactorOptions};
use crate::actors::drain::Stage;
use crate::actors::mailbox::BoundedAddr;
use crate::actors::policy::Policy;
use crate::actors::pool::ComputePool;
use crate::actors::root::Root;
use crate::actors::storage_client::StorageClient;
use crate::actors::supervision;
use crate::actors::threads::Thread;
use crate::cli::flags::ServerFlags;
use crate::config::Config;
use crate::model::clock::SharedClock;
use crate::model::go_time::format_rfc3339_nano;
use crate::model::steady_clock::SteadyClock;
use crate::model::time::TimestampMs;
use crate::storage::block::PageCache;
use crate::storage::block::catalog::{Catalog, DamagedBlock};
use crate::storage::block::metrics::BlockMetrics;
use crate::storage::block::retention::RetentionRule;
use crate::storage::chunk::cut::CutRules;
use crate::storage::fs::RealFs;
use crate::storage::head::Head;
use crate::telemetry::metrics::Registry;

/// Bounds of the cache of index pages: this share of memory, within these bytes.
const CACHE_SHARE: u64 = 64;
const CACHE_LEN: std::ops::RangeInclusive<u64> = (8 << 20)..=(256 << 20);

/// Span of the blocks that the head becomes, in milliseconds.
fn range_ms(flags: &ServerFlags) -> i64 {
    flags.storage.block_span_min.as_ms_i64().max(1)
}

/// When chunks of the head are cut.
pub(super) fn cut_rules(flags: &ServerFlags) -> CutRules {
    let samples_per_chunk = u16::try_from(flags.storage.samples_per_chunk).ok().filter(|samples| 0 < *samples);
    let rules = CutRules { chunk_range_ms: range_ms(flags), ..CutRules::default() };
    samples_per_chunk.map_or(rules, |samples_per_chunk| CutRules { samples_per_chunk, ..rules })
}

/// The blocks of the data directory, not opened yet.
pub(super) fn catalog(flags: &ServerFlags, registry: &Registry) -> Arc<Catalog> {
    let cache_len = (flags.limits.memory / CACHE_SHARE).clamp(*CACHE_LEN.start(), *CACHE_LEN.end());
    let cache = PageCache::new(cache_len);
    let held = Arc::clone(&cache);
    let help = "Bytes of index pages of blocks that are kept in memory.";
    registry.collect_with(move || {
        let value = held.held_len() as f64;
        let kind = crate::telemetry::metrics::MetricKind::Gauge;
        vec![crate::telemetry::metrics::MetricFamily::single("watchfire_block_index_cache_bytes", help, kind, value)]
    });
    let catalog = Catalog::new(RealFs::shared(), &flags.storage.path, cache, BlockMetrics::new(registry));
    catalog.set_on_damage(flags.storage.on_damage);
    catalog
}

/// What a page says of a block that cannot be read.
pub(super) fn damage_line(damaged: &DamagedBlock) -> String {
    let mut line = format!("block {}: {}", damaged.name, damaged.reason);
    if let Some(samples) = damaged.samples {
        line += &format!("; {samples} samples");
    }
    if let Some((from, to)) = damaged.range {
        let time = |ms: i64| format_rfc3339_nano(ms.saturating_mul(1_000_000));
        line += &format!("; from {} to {}", time(from), time(to));
    }
    line
}

/// How much the configuration wants kept.
pub(super) fn retention(config: &Config) -> RetentionRule {
    let retention = config.storage.tsdb.as_ref().and_then(|tsdb| tsdb.retention.as_ref());
    retention.map_or_else(RetentionRule::default, |retention| RetentionRule {
        time_ms: retention.time.as_ms_i64(),
        len_max: u64::try_from(retention.size.bytes()).unwrap_or(0),
        disk_percent: retention.percentage,
    })
}

/// Starts the compactor of a head with its shards and of the blocks. The time that it returns is that before which the log need not
/// keep samples any more.
pub(super) fn start_compactor(
    flags: &ServerFlags,
    clock: &SharedClock,
    root: &Root,
    pool: &Arc<ComputePool>,
    stored: (Arc<Head>, StorageClient, Arc<Catalog>),
    (arbiter, steady): (&Thread, &Arc<SteadyClock>),
) -> (Arc<CompactorDeps>, BoundedAddr<Compactor>, watch::Receiver<TimestampMs>) {
    let range_ms = range_ms(flags);
    let options = CompactorOptions {
        range_ms,
        range_max_ms: flags.block_span_max(flags.retention().0).as_ms_i64().max(range_ms),
        merge_overlapping: flags.storage.overlapping_compaction,
        segment_len: flags.storage.chunk_segment_len,
        every: flags.storage.block_reload_interval.to_std(),
    };
    let (in_blocks, seen) = watch::channel(TimestampMs::MIN);
    let after_truncation = Box::new(move |bound| {
        in_blocks.send_replace(bound);
    });
    let (pool, clock, steady) = (Arc::clone(pool), SharedClock::clone(clock), Arc::clone(steady));
    let deps = CompactorDeps::by_clock(stored, pool, clock, options, after_truncation, steady);
    let for_actor = Arc::clone(&deps);
    let place = root.parent().place("compactor");
    let addr = supervision::spawn(arbiter, Policy::PERMANENT, place, move |_| Compactor::new(Arc::clone(&for_actor)));
    root.add(Stage::Shards, addr.clone());
    (deps, addr, seen)
}
