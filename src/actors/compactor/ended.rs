//! Series that have ended become blocks early, where they are a good part of the head (`stale_series_compaction_threshold`).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{CompactorDeps, RoundError};
use crate::storage::compact::CompactError;
use crate::storage::compact::head::HeadCompaction;
use crate::storage::head::ended::EndedSeries;
use crate::storage::head::export::BlockRange;

/// With the usual compaction of the head as near as this, they wait for that.
const SOON: Duration = Duration::from_secs(600);

impl CompactorDeps {
    /// Has series that have ended leave the head, if they are many; returns how many blocks that made.
    pub(super) async fn compact_ended(&self) -> u32 {
        let metrics = self.catalog.metrics();
        let head = Arc::clone(&self.head);
        let Ok(found) = self.work(move || head.ended_series()).await else { return 0 };
        metrics.ended.set(found.ended as f64);
        let threshold = f64::from_bits(self.ended_threshold.load(Ordering::Relaxed));
        if threshold <= 0.0 || found.share() < threshold || found.is_empty() || self.head_is_due_soon() {
            return 0;
        }
        metrics.ended_triggered.inc();
        let begun = self.clock.monotonic();
        tracing::info!(component = "tsdb", "Starting stale series compaction");
        match self.write_ended(&found).await {
            Ok(blocks) => {
                metrics.ended.set(found.ended.saturating_sub(found.len() as u64) as f64);
                let duration = self.clock.monotonic().saturating_sub(begun);
                metrics.ended_duration.observe(duration.as_secs_f64());
                tracing::info!(
                    component = "tsdb",
                    num_series = found.len(),
                    ?duration,
                    "Ending stale series compaction"
                );
                blocks
            }
            Err(error) => {
                metrics.ended_failed.inc();
                tracing::error!(component = "tsdb", err = %error, "immediate stale series compaction failed");
                0
            }
        }
    }

    fn head_is_due_soon(&self) -> bool {
        let Some(last) = *self.head_compacted_at.lock() else { return false };
        let range = Duration::from_millis(u64::try_from(self.options.range_ms).unwrap_or(0));
        last.saturating_add(range) < self.clock.monotonic().saturating_add(SOON)
    }

    async fn write_ended(&self, found: &EndedSeries) -> Result<u32, RoundError> {
        self.settle().await?;
        let ended = Arc::new(found.clone());
        let range_ms = self.options.range_ms.max(1);
        let (mut made, mut from) = (0, i64::MIN);
        loop {
            let (head, of) = (Arc::clone(&self.head), Arc::clone(&ended));
            let next = self.work(move || head.next_of_ended(&of, from)).await?.map_err(CompactError::from)?;
            let Some(next) = next else { break };
            let min_time = next.div_euclid(range_ms).saturating_mul(range_ms);
            let range = BlockRange { min_time, max_time: min_time.saturating_add(range_ms) };
            made += u32::from(self.write_ended_range(&ended, range).await?);
            from = range.max_time;
        }
        // From here on all of it can be read from the blocks.
        let head = Arc::clone(&self.head);
        self.work(move || head.evict_ended(&ended)).await?;
        Ok(made)
    }

    /// Writes the block of one range; true if there is anything for it.
    async fn write_ended_range(&self, ended: &Arc<EndedSeries>, range: BlockRange) -> Result<bool, RoundError> {
        let (head, catalog, clock) = (Arc::clone(&self.head), Arc::clone(&self.catalog), self.clock.clone());
        let (segment_len, mut random, of) = (self.options.segment_len, self.fork_random(), Arc::clone(ended));
        let begin = move || HeadCompaction::of_ended(&head, &catalog, (&of, range), segment_len, &clock, &mut random);
        let compaction = self.work(begin).await??;
        Ok(self.write_out(compaction).await?.is_some())
    }
}
