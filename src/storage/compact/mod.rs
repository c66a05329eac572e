//! Makes blocks: of the head's oldest samples ([`head`]), and of smaller blocks ([`blocks`], chosen by [`plan`]).
//!
//! Work is done in steps of a bounded number of series, so that whoever runs it can do other things between them. A block
//! appears whole; what it replaces is dropped only when it can be read.

use std::time::Duration;

use crate::model::read::ReadError;
use crate::storage::block::BlockError;
use crate::storage::block::chunks::ChunkData;
use crate::storage::block::metrics::BlockMetrics;

pub mod blocks;
pub mod head;
pub mod late;
pub mod plan;

#[cfg(test)]
mod tests;

/// Why a block was not made. What it should have replaced stands as before.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    /// The block cannot be written, or a source cannot be read.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// The head cannot be read now.
    #[error(transparent)]
    Head(#[from] ReadError),
    /// It was written, but cannot be opened.
    #[error("block {name} was written, but cannot be opened")]
    NotOpened {
        /// The block.
        name: String,
    },
}

/// What a step has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is more to do.
    More,
    /// All series are in; the block can be published.
    Done,
}

fn observe(metrics: &BlockMetrics, chunks: &[ChunkData]) {
    for chunk in chunks {
        metrics.chunk_size.observe(chunk.data.len() as f64);
        metrics.chunk_samples.observe(f64::from(chunk.sample_count()));
        metrics.chunk_range.observe(chunk.max_t.saturating_sub(chunk.min_t) as f64);
    }
}

fn count_run(metrics: &BlockMetrics, took: Duration) {
    metrics.populating.set(0.0);
    metrics.compactions.inc();
    metrics.duration.observe(took.as_secs_f64());
}
