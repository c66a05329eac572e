//! What an operator orders of the compactor beside its rounds: deletions, rewriting blocks without deleted samples, snapshots.
//! Each waits for the round, or the order, that runs: one changes blocks at a time, as in Prometheus. The work runs on the storage
//! lane of the compute pool; shards are not asked at all.
//!
//! A deletion is answered once its ranges are synced, in the log and beside the blocks; then head and blocks show it in one step.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use actix::WrapFuture;
use actix::prelude::{Handler, Message, ResponseActFuture};

use crate::actors::compactor::{Compactor, CompactorDeps, RoundError, STEP_SERIES_MAX};
use crate::actors::context::Context;
use crate::actors::log_writer;
use crate::actors::mailbox::Admitted;
use crate::model::go_time;
use crate::model::matcher::Matcher;
use crate::model::read::ReadError;
use crate::model::time::{TimeRange, TimestampMs};
use crate::storage::block::snapshot::link_block;
use crate::storage::block::{BlockError, CREATION_SUFFIX, IoContext};
use crate::storage::compact::blocks::BlockCompaction;
use crate::storage::compact::head::HeadCompaction;
use crate::storage::compact::{CompactError, Step};
use crate::storage::fs::Fs;
use crate::storage::wal::tombstone_record::encode_tombstones;

/// Folder of snapshots in the data directory.
const SNAPSHOTS_DIR: &str = "snapshots";
/// How long the log may take to write and sync a deletion.
const LOG_WITHIN: Duration = Duration::from_secs(60);
/// How often a deletion is worked out anew because a shard was rebuilt meanwhile.
const DELETE_TRIES: usize = 3;
/// Records of a deletion that are written to the log at a time, each of at most about a MiB.
const RECORDS_AT_ONCE: usize = 4;

/// Delete samples; answers once nobody sees them any more and no power cut brings them back.
#[derive(Message)]
#[rtype(result = "Result<(), String>")]
pub struct DeleteSeries {
    /// Series that any of them selects.
    pub selectors: Vec<Vec<Matcher>>,
    /// First and last time of what is deleted.
    pub range: TimeRange,
}

/// Write the blocks of which something is deleted anew; answers once the old ones are gone.
#[derive(Message)]
#[rtype(result = "Result<(), String>")]
pub struct CleanTombstones;

/// Copy blocks and head to a folder of its own; answers its name.
#[derive(Message)]
#[rtype(result = "Result<String, String>")]
pub struct TakeSnapshot {
    /// Whether what the head holds is left out.
    pub skip_head: bool,
}

/// Why an order was not carried out, or only in part.
#[derive(Debug, thiserror::Error)]
enum OrderError {
    #[error(transparent)]
    Round(#[from] RoundError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Block(#[from] BlockError),
    #[error(transparent)]
    Compact(#[from] CompactError),
    #[error("the deletion is not in the log: {0}")]
    Log(String),
    #[error("TSDB not ready")]
    NotOpen,
}

impl Handler<Admitted<DeleteSeries>> for Compactor {
    type Result = ResponseActFuture<Self, Result<(), String>>;

    fn handle(&mut self, order: Admitted<DeleteSeries>, _: &mut Context<Self>) -> Self::Result {
        let deps = Arc::clone(self.deps());
        let work = async move {
            let (order, _slot) = order.into_parts();
            deps.delete(order).await.map_err(|error| error.to_string())
        };
        Box::pin(work.into_actor(self))
    }
}

impl Handler<Admitted<CleanTombstones>> for Compactor {
    type Result = ResponseActFuture<Self, Result<(), String>>;

    fn handle(&mut self, order: Admitted<CleanTombstones>, _: &mut Context<Self>) -> Self::Result {
        let deps = Arc::clone(self.deps());
        let work = async move {
            let _order = order;
            deps.clean().await.map_err(|error| error.to_string())
        };
        Box::pin(work.into_actor(self))
    }
}

impl Handler<Admitted<TakeSnapshot>> for Compactor {
    type Result = ResponseActFuture<Self, Result<String, String>>;

    fn handle(&mut self, order: Admitted<TakeSnapshot>, _: &mut Context<Self>) -> Self::Result {
        let deps = Arc::clone(self.deps());
        let work = async move {
            let (order, _slot) = order.into_parts();
            deps.snapshot(order.skip_head).await.map_err(|error| format!("create snapshot: {error}"))
        };
        Box::pin(work.into_actor(self))
    }
}

impl CompactorDeps {
    fn must_be_open(&self) -> Result<(), OrderError> {
        if self.is_open() { Ok(()) } else { Err(OrderError::NotOpen) }
    }

    async fn delete(&self, order: DeleteSeries) -> Result<(), OrderError> {
        self.must_be_open()?;
        let _turn = self.turn.lock().await;
        let selectors = Arc::new(order.selectors);
        let (catalog, wanted, range) = (Arc::clone(&self.catalog), Arc::clone(&selectors), order.range);
        let of_blocks = self.work(move || catalog.plan_deletion(&wanted, range)).await??;
        let mut of_blocks = Some(of_blocks);
        for _ in 0..DELETE_TRIES {
            let (head, wanted) = (Arc::clone(&self.head), Arc::clone(&selectors));
            let of_head = self.work(move || head.plan_deletion(&wanted, range)).await??;
            self.log_deletion(of_head.ranges()).await?;
            let (head, catalog, of_blocks) = (Arc::clone(&self.head), Arc::clone(&self.catalog), of_blocks.take());
            let show = move || {
                // Written once: another try finds them shown.
                let (blocks, written) = catalog.write_deletion(of_blocks.unwrap_or_default());
                let shown = catalog.show_deleted(blocks, || head.delete(of_head));
                written.map(|()| shown)
            };
            match self.work(show).await?? {
                Ok(()) => return Ok(()),
                Err(error) => tracing::warn!(component = "tsdb", err = %error, "A deletion is tried again"),
            }
        }
        Err(OrderError::Log("shards were rebuilt meanwhile".to_owned()))
    }

    /// Writes ranges of the head to the log, and syncs it.
    async fn log_deletion(
        &self,
        ranges: &[crate::storage::wal::tombstone_record::RefTombstone],
    ) -> Result<(), OrderError> {
        let Some(journal) = self.storage.journal() else { return Ok(()) };
        let mut records = Vec::new();
        encode_tombstones(ranges.iter().copied(), &mut records);
        while !records.is_empty() {
            let rest = records.split_off(records.len().min(RECORDS_AT_ONCE));
            let batch = std::mem::replace(&mut records, rest);
            let written = log_writer::write(&journal.writer, batch, true, LOG_WITHIN).await;
            written.map_err(|error| OrderError::Log(error.to_string()))?;
        }
        Ok(())
    }

    async fn clean(&self) -> Result<(), OrderError> {
        self.must_be_open()?;
        let _turn = self.turn.lock().await;
        let began = self.clock.monotonic();
        let done = self.clean_all().await;
        let took = self.clock.monotonic().saturating_sub(began);
        self.catalog.metrics().tombstone_cleanup.observe(took.as_secs_f64());
        done
    }

    async fn clean_all(&self) -> Result<(), OrderError> {
        // What is written anew has no deleted ranges, so this ends.
        loop {
            let state = self.catalog.state();
            let Some(block) = state.blocks.iter().find(|block| !block.tombstones().is_empty()) else { return Ok(()) };
            let (catalog, clock, block) = (Arc::clone(&self.catalog), self.clock.clone(), Arc::clone(block));
            let (segment_len, mut random) = (self.options.segment_len, self.fork_random());
            let name = block.meta().ulid;
            let begin = move || BlockCompaction::clean(&catalog, block, segment_len, &clock, &mut random);
            let mut compaction = self.work(begin).await??;
            loop {
                let (step, next) = self.work(move || (compaction.step(STEP_SERIES_MAX), compaction)).await?;
                compaction = next;
                if step? == Step::Done {
                    break;
                }
            }
            match self.work(move || compaction.publish()).await?? {
                Some(meta) => self.show(meta.ulid).await?,
                None => self.reload().await?,
            }
            if self.catalog.state().blocks.iter().any(|left| left.meta().ulid == name) {
                return Err(BlockError::input(format!("block {name} was not replaced")).into());
            }
        }
    }

    async fn snapshot(&self, skip_head: bool) -> Result<String, OrderError> {
        self.must_be_open()?;
        let _turn = self.turn.lock().await;
        if !skip_head {
            // Samples that came out of order are in the snapshot as blocks.
            self.compact_late().await?;
        }
        let mut random = self.fork_random();
        let name = snapshot_name(self.clock.now(), random.next_u64());
        let folder = self.catalog.dir().join(SNAPSHOTS_DIR);
        let temporary = folder.join(format!("{name}{CREATION_SUFFIX}"));
        let made = self.fill_snapshot(&folder, temporary.clone(), skip_head).await;
        let (catalog, target) = (Arc::clone(&self.catalog), folder.join(&name));
        let finish = move || -> Result<(), OrderError> {
            let fs = catalog.fs();
            if let Err(error) = made {
                // What is left of it goes with the next one.
                let _ = fs.remove_dir_all(&temporary);
                return Err(error);
            }
            fs.rename(&temporary, &target).context("rename", &temporary)?;
            fs.sync_dir(&folder).context("sync", &folder)?;
            Ok(())
        };
        self.work(finish).await??;
        Ok(name)
    }

    async fn fill_snapshot(&self, folder: &Path, dir: PathBuf, skip_head: bool) -> Result<(), OrderError> {
        let (catalog, clock, head) = (Arc::clone(&self.catalog), self.clock.clone(), Arc::clone(&self.head));
        let (segment_len, mut random, folder) = (self.options.segment_len, self.fork_random(), folder.to_path_buf());
        let begin = move || -> Result<_, OrderError> {
            let fs = catalog.fs();
            fs.create_dir_all(&dir).context("create", &dir)?;
            fs.sync_dir(catalog.dir()).context("sync", catalog.dir())?;
            remove_unfinished(&**fs, &folder, &dir)?;
            // No block comes or goes, and the head gives nothing up, before our turn is over.
            for block in &catalog.state().blocks {
                tracing::info!(component = "tsdb", block = %block.meta().ulid, "Snapshotting block");
                link_block(&**fs, block.dir(), &dir)?;
            }
            if skip_head {
                return Ok(None);
            }
            Ok(HeadCompaction::copy(&head, &catalog, &dir, segment_len, &clock, &mut random)?)
        };
        let Some(mut compaction) = self.work(begin).await?? else { return Ok(()) };
        loop {
            let (step, next) = self.work(move || (compaction.step(STEP_SERIES_MAX), compaction)).await?;
            compaction = next;
            if step? == Step::Done {
                break;
            }
        }
        self.work(move || compaction.publish()).await??;
        Ok(())
    }
}

/// Removes snapshots that a crash has left half-made.
fn remove_unfinished(fs: &dyn Fs, folder: &Path, current: &Path) -> Result<(), BlockError> {
    for entry in fs.list(folder).context("list", folder)? {
        let path = folder.join(&entry.name);
        if entry.is_dir && entry.name.ends_with(CREATION_SUFFIX) && path != current {
            fs.remove_dir_all(&path).context("remove", &path)?;
        }
    }
    Ok(())
}

/// Time and a number, as Prometheus names snapshots.
fn snapshot_name(now: TimestampMs, number: u64) -> String {
    let text = go_time::format_rfc3339_nano(now.0.div_euclid(1000).saturating_mul(1_000_000_000));
    let compact: String = text.chars().filter(|c| *c != '-' && *c != ':').collect();
    format!("{compact}-{:016x}", number >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_are_named_as_prometheus_names_them() {
        assert_eq!(snapshot_name(TimestampMs(1_700_000_123_999), 0x1234 << 1), "20231114T221523Z-0000000000001234");
        assert_eq!(snapshot_name(TimestampMs(0), u64::MAX), "19700101T000000Z-7fffffffffffffff");
    }
}
