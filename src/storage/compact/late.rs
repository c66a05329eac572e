//! Samples that came out of order become blocks of their own, one for each aligned range of time that has any. They overlap
//! the blocks of samples in order and are merged with those afterwards.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::model::clock::SharedClock;
use crate::model::give_way::give_way;
use crate::model::random::Random;
use crate::storage::block::catalog::Catalog;
use crate::storage::block::meta::BlockMeta;
use crate::storage::block::ulid::Ulid;
use crate::storage::block::write::BlockWriter;
use crate::storage::compact::{CompactError, Step, count_run, observe};
use crate::storage::head::export::BlockRange;
use crate::storage::head::{Head, LateCut, LateExport};

/// Blocks of late samples in the making.
pub struct LateCompaction {
    export: LateExport,
    /// Ranges to come.
    ranges: VecDeque<BlockRange>,
    open: Option<OpenBlock>,
    made: Vec<BlockMeta>,
    is_done: bool,
    catalog: Arc<Catalog>,
    clock: SharedClock,
    began: Duration,
    segment_len: u64,
    random: Random,
}

/// The block of one range.
struct OpenBlock {
    range: BlockRange,
    writer: BlockWriter,
    /// Number of the next series.
    next: usize,
}

impl LateCompaction {
    /// Begins blocks of `range_ms` of what was cut off, which must be settled; a segment of their chunks has at most
    /// `segment_len` bytes.
    pub fn begin(
        head: &Head,
        catalog: &Arc<Catalog>,
        cut: LateCut,
        (range_ms, segment_len): (i64, u64),
        clock: &SharedClock,
        random: Random,
    ) -> Result<Self, CompactError> {
        let began = clock.monotonic();
        let export = head.export_late(cut)?;
        let ranges = export.ranges(range_ms).into();
        tracing::info!(component = "tsdb", series = export.len(), "out-of-order compaction started");
        Ok(Self {
            export,
            ranges,
            open: None,
            made: Vec::new(),
            is_done: false,
            catalog: Arc::clone(catalog),
            clock: SharedClock::clone(clock),
            began,
            segment_len,
            random,
        })
    }

    /// Writes up to `series_max` series of a range; a block that is complete is published.
    pub fn step(&mut self, series_max: usize) -> Result<Step, CompactError> {
        let Some(mut open) = self.open.take() else {
            let Some(range) = self.ranges.pop_front() else { return Ok(Step::Done) };
            self.catalog.metrics().populating.set(1.0);
            let ulid = Ulid::new(self.clock.now(), &mut self.random);
            let meta = BlockMeta::from_late(ulid, range.min_time, range.max_time);
            let (fs, dir) = (self.catalog.fs(), self.catalog.dir());
            let writer = BlockWriter::create(fs, dir, meta, self.export.symbols(), self.segment_len)?;
            self.open = Some(OpenBlock { range, writer, next: 0 });
            return Ok(Step::More);
        };
        let until = open.next.saturating_add(series_max).min(self.export.len());
        for number in open.next..until {
            give_way();
            let (labels, chunks) = self.export.chunks(number, open.range)?;
            if !chunks.is_empty() {
                open.writer.add_series(&labels, &chunks)?;
                observe(self.catalog.metrics(), &chunks);
            }
        }
        open.next = until;
        if until < self.export.len() {
            self.open = Some(open);
            return Ok(Step::More);
        }
        self.made.extend(open.writer.publish()?);
        Ok(if self.ranges.is_empty() { Step::Done } else { Step::More })
    }

    /// The blocks, all of them published. The head may drop the samples once the catalog has them.
    pub fn finish(mut self) -> Vec<BlockMeta> {
        self.is_done = true;
        let ulids: Vec<String> = self.made.iter().map(|meta| meta.ulid.to_string()).collect();
        tracing::info!(component = "tsdb", ?ulids, duration = ?self.clock.monotonic().saturating_sub(self.began),
            "out-of-order compaction completed");
        std::mem::take(&mut self.made)
    }
}

impl Drop for LateCompaction {
    fn drop(&mut self) {
        count_run(self.catalog.metrics(), self.clock.monotonic().saturating_sub(self.began));
        // Blocks of a compaction that was given up say what the head still holds and the next one writes again.
        for meta in self.made.iter().filter(|_| !self.is_done) {
            if let Err(error) = self.catalog.remove(meta.ulid) {
                tracing::warn!(component = "tsdb", block = %meta.ulid, %error, "cannot remove a block that is not needed");
            }
        }
    }
}
