//! From the log back into the head: at start, and for one shard after a panic tore it.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use crate::model::append::ShardId;
use crate::model::sample::SeriesRef;
use crate::model::time::TimestampMs;
use crate::storage::fs::SharedFs;
use crate::storage::head::Head;
use crate::storage::head::restore::{RestoreStats, Restorer};
use crate::storage::head::shard::ShardState;
use crate::storage::wal::histogram_record::RefHistogram;
use crate::storage::wal::metrics::WalMetrics;
use crate::storage::wal::record::{RefSample, RefSeries};
use crate::storage::wal::writer::{Position, Writer};
use crate::storage::wal::{LoadReport, Log, RecordSink, WAL_DIR, WalError, WalOptions, read_until};

/// What a start has found in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayReport {
    /// Of the files: what was read, damaged and repaired.
    pub log: LoadReport,
    /// Of the head: what came into it.
    pub head: RestoreStats,
    /// How long it took.
    pub took: Duration,
}

/// References of other series' later records, by the later reference. A checkpoint has to keep their records as long as
/// the series lives.
pub type Aliases = HashMap<SeriesRef, SeriesRef>;

impl RecordSink for Restorer<'_> {
    fn series(&mut self, series: &mut Vec<RefSeries>) {
        for one in series.drain(..) {
            self.take_series(one.series, one.labels);
        }
    }

    fn samples(&mut self, samples: &[RefSample]) {
        for sample in samples {
            self.sample(sample.series, sample.t, sample.value);
        }
    }

    fn histograms(&mut self, histograms: &[RefHistogram]) {
        for one in histograms {
            self.histogram(one.series, one.t, &one.value);
        }
    }
}

/// Reads the log in `data_dir` into an empty head and makes it ready to be written. Samples before `oldest`, the bound
/// of retention, are passed over, and so are series that have no others.
pub fn open(
    fs: &SharedFs,
    data_dir: &Path,
    options: WalOptions,
    metrics: &WalMetrics,
    head: &Head,
    oldest: TimestampMs,
) -> Result<(Writer, ReplayReport), WalError> {
    let begun = metrics.clock.monotonic();
    let mut restorer = head.restore(None, oldest);
    let (writer, log) = Log::open(fs, data_dir, options, metrics, &mut restorer)?;
    let restored = restorer.finish();
    // Without this, series whose samples are all too old would stay for ever.
    head.truncate_blocking(oldest);
    metrics.unknown_sample_refs.add(restored.unknown_refs);
    let took = metrics.clock.monotonic().saturating_sub(begun);
    Ok((writer, ReplayReport { log, head: restored, took }))
}

/// Fills a shard again from the log after a panic, up to `until`, where the writer stands. Call
/// [`crate::storage::head::shard::Shard::begin_rebuild`] first; on success the shard is ready, else it has failed.
/// The other shards and the writer go on meanwhile.
pub fn rebuild_shard(
    fs: &SharedFs,
    data_dir: &Path,
    head: &Head,
    shard: ShardId,
    until: Position,
) -> Result<RestoreStats, WalError> {
    let mut restorer = head.restore(Some(shard), TimestampMs(i64::MIN));
    let read = read_until(fs, &data_dir.join(WAL_DIR), until, &mut restorer);
    let stats = restorer.finish();
    let state = match &read {
        Ok(_) => ShardState::Ready,
        Err(error) => ShardState::Failed { reason: error.to_string() },
    };
    if let Some(shard) = head.shards().iter().find(|s| s.id() == shard) {
        shard.truncate();
        shard.set_state(state);
    }
    read.map(|_| stats)
}

/// True if a record of `series` has to stay in the log: it lives in the head, under this reference or another.
pub fn is_live(head: &Head, aliases: &Aliases, series: SeriesRef) -> bool {
    let holds = |series| head.shards().iter().any(|shard| shard.holds(series));
    holds(series) || aliases.get(&series).is_some_and(|first| holds(*first))
}

/// Tells a checkpoint which series references are still in use; `None` when that cannot be known, as a shard's partition
/// is thrown away and read back from the very files that the checkpoint is to replace.
pub fn keeper<'a>(head: &'a Head, aliases: &'a Aliases) -> impl FnMut(SeriesRef) -> Option<bool> + 'a {
    let whole = || head.shards().iter().map(|shard| shard.whole()).collect::<Option<Vec<u64>>>();
    let before = whole();
    move |series| {
        let live = is_live(head, aliases, series);
        (live || before.is_some() && whole() == before).then_some(live)
    }
}

#[cfg(test)]
mod tests;
