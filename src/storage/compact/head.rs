//! The head's oldest samples become a block.

use std::path::Path;
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
use crate::storage::head::Head;
use crate::storage::head::ended::EndedSeries;
use crate::storage::head::export::{BlockRange, HeadExport};

/// A block of the head in the making.
pub struct HeadCompaction {
    export: HeadExport,
    /// `None`: there are no samples in the range.
    writer: Option<BlockWriter>,
    catalog: Arc<Catalog>,
    clock: SharedClock,
    began: Duration,
}

impl HeadCompaction {
    /// Begins the block of a range that is compactable and settled.
    pub fn begin(
        head: &Head,
        catalog: &Arc<Catalog>,
        range: BlockRange,
        segment_len: u64,
        clock: &SharedClock,
        random: &mut Random,
    ) -> Result<Self, CompactError> {
        let began = clock.monotonic();
        let export = head.export(range.max_time);
        let writer = match export.first_t()? {
            Some(first) => {
                let meta = BlockMeta::from_head(Ulid::new(clock.now(), random), first, range.max_time);
                tracing::info!(component = "tsdb", mint = first, maxt = range.max_time, ulid = %meta.ulid,
                    "write block started");
                catalog.metrics().populating.set(1.0);
                Some(BlockWriter::create(catalog.fs(), catalog.dir(), meta, export.symbols(), segment_len)?)
            }
            None => None,
        };
        Ok(Self { export, writer, catalog: Arc::clone(catalog), clock: SharedClock::clone(clock), began })
    }

    /// Begins the block of what series that have ended have in a range; commits that had begun when they were found are settled.
    pub fn of_ended(
        head: &Head,
        catalog: &Arc<Catalog>,
        (ended, range): (&EndedSeries, BlockRange),
        segment_len: u64,
        clock: &SharedClock,
        random: &mut Random,
    ) -> Result<Self, CompactError> {
        let began = clock.monotonic();
        let export = head.export_ended(ended, range.min_time, range.max_time);
        let meta = BlockMeta::from_ended(Ulid::new(clock.now(), random), range.min_time, range.max_time);
        catalog.metrics().populating.set(1.0);
        let writer = BlockWriter::create(catalog.fs(), catalog.dir(), meta, export.symbols(), segment_len)?;
        let (catalog, clock) = (Arc::clone(catalog), SharedClock::clone(clock));
        Ok(Self { export, writer: Some(writer), catalog, clock, began })
    }

    /// Begins a block of all that the head shows now, in the folder `dir`; `None` while the head is empty. The head keeps what it has.
    pub fn copy(
        head: &Head,
        catalog: &Arc<Catalog>,
        dir: &Path,
        segment_len: u64,
        clock: &SharedClock,
        random: &mut Random,
    ) -> Result<Option<Self>, CompactError> {
        let began = clock.monotonic();
        let Some((export, until)) = head.export_visible() else { return Ok(None) };
        let Some(first) = export.first_t()? else { return Ok(None) };
        let meta = BlockMeta::from_head(Ulid::new(clock.now(), random), first, until);
        tracing::info!(component = "tsdb", mint = first, maxt = until, ulid = %meta.ulid, "write block started");
        catalog.metrics().populating.set(1.0);
        let writer = BlockWriter::create(catalog.fs(), dir, meta, export.symbols(), segment_len)?;
        let (catalog, clock) = (Arc::clone(catalog), SharedClock::clone(clock));
        Ok(Some(Self { export, writer: Some(writer), catalog, clock, began }))
    }

    /// Writes up to `series_max` series.
    pub fn step(&mut self, series_max: usize) -> Result<Step, CompactError> {
        let Some(writer) = &mut self.writer else { return Ok(Step::Done) };
        for _ in 0..series_max {
            give_way();
            let Some((labels, chunks)) = self.export.next_series()? else { return Ok(Step::Done) };
            writer.add_series(&labels, &chunks)?;
            observe(self.catalog.metrics(), &chunks);
        }
        Ok(Step::More)
    }

    /// Publishes the block; `None` if it would be empty. The head may drop the samples once the catalog has it.
    pub fn publish(mut self) -> Result<Option<BlockMeta>, CompactError> {
        let Some(writer) = self.writer.take() else { return Ok(None) };
        let meta = writer.publish()?;
        if let Some(meta) = &meta {
            tracing::info!(component = "tsdb", mint = meta.min_time, maxt = meta.max_time, ulid = %meta.ulid,
                duration = ?self.clock.monotonic().saturating_sub(self.began), "write block completed");
        }
        Ok(meta)
    }
}

impl Drop for HeadCompaction {
    fn drop(&mut self) {
        count_run(self.catalog.metrics(), self.clock.monotonic().saturating_sub(self.began));
    }
}
