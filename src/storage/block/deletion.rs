//! Deleting from blocks: the ranges are written beside the block, readers see them in one step with those of the head.
//!
//! Samples stay in the files until a compaction rewrites the block. Both files, `tombstones` and `meta.json`, are replaced
//! whole, in this order; a crash between them leaves a count in the description that is too low, and nothing else.

use std::sync::Arc;

use crate::model::matcher::Matcher;
use crate::model::read::{ReadBudget, ReadError, Unlimited};
use crate::model::time::TimeRange;
use crate::storage::block::BlockError;
use crate::storage::block::catalog::Catalog;
use crate::storage::block::index_read::SymbolMemo;
use crate::storage::block::meta::BlockMeta;
use crate::storage::block::read::Block;
use crate::storage::block::select::select_ids;
use crate::storage::block::tombstones::{Interval, Tombstones};

/// What is to be hidden of the blocks.
#[derive(Default)]
pub struct BlockDeletion {
    blocks: Vec<(Arc<Block>, Tombstones)>,
}

impl Catalog {
    /// Works out what a deletion of `range` from the series that any of the selectors selects hides. Errors where a block of the
    /// range cannot be read: what it holds would be there again once it can.
    pub fn plan_deletion(&self, selectors: &[Vec<Matcher>], range: TimeRange) -> Result<BlockDeletion, ReadError> {
        let (min, max) = (range.min().0, range.max().0);
        let state = self.state();
        if let Some(damaged) = state.damaged_in(min, max).next() {
            return Err(ReadError::Corrupt(format!("block {} cannot be read: {}", damaged.name, damaged.reason)));
        }
        let mut deletion = BlockDeletion::default();
        for block in state.blocks.iter().filter(|block| block.overlaps(min, max)) {
            let mut tombstones = block.tombstones.clone();
            for matchers in selectors {
                add_selected(block, matchers, (min, max), &Unlimited, &mut tombstones)?;
            }
            if tombstones != *block.tombstones() {
                deletion.blocks.push((Arc::clone(block), tombstones));
            }
        }
        Ok(deletion)
    }

    /// Writes what was worked out, block by block, and returns the blocks as they are to be shown, with [`Catalog::show_deleted`],
    /// also where an error ended it.
    pub fn write_deletion(&self, deletion: BlockDeletion) -> (Vec<Arc<Block>>, Result<(), BlockError>) {
        let mut written = Vec::with_capacity(deletion.blocks.len());
        for (block, tombstones) in deletion.blocks {
            let write = || -> Result<Block, BlockError> {
                let len = tombstones.write(&**self.fs(), block.dir())?;
                // Others, as a compaction that failed, change the description on the disk alone.
                let mut meta = BlockMeta::read(&**self.fs(), block.dir())?;
                meta.stats.num_tombstones = tombstones.len() as u64;
                meta.write(&**self.fs(), block.dir())?;
                Ok(block.with_tombstones(tombstones, len, meta))
            };
            match write() {
                Ok(block) => written.push(Arc::new(block)),
                Err(error) => return (written, Err(error)),
            }
        }
        (written, Ok(()))
    }
}

fn add_selected(
    block: &Arc<Block>,
    matchers: &[Matcher],
    (min, max): (i64, i64),
    budget: &dyn ReadBudget,
    tombstones: &mut Tombstones,
) -> Result<(), ReadError> {
    let mut memo = SymbolMemo::default();
    for id in select_ids(block.index(), matchers, budget)? {
        let chunks = block.index().series(id, &mut memo)?.chunks;
        let (Some(first), Some(last)) = (chunks.first(), chunks.last()) else { continue };
        if chunks.iter().any(|chunk| chunk.min_t <= max && min <= chunk.max_t) {
            let interval = Interval { min_t: min.max(first.min_t), max_t: max.min(last.max_t) };
            tombstones.add(u64::from(id), interval);
        }
    }
    Ok(())
}
