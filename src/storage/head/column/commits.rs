//! Which commits the samples of a column are of.

use std::sync::Arc;

use crate::storage::head::commit::{COMMIT_MAX, CommitId};

/// Bits of [`Column::tail`](crate::storage::head::column::Column) for the number within the chunk: a chunk has less than 4096 samples, whether it is one of 1024 bytes
/// of floats or of 2048 bytes of histograms, of which each takes four bits.
const TAIL_INDEX_BITS: u32 = 12;
/// Set in [`Column::tail`](crate::storage::head::column::Column) while `older` is not empty, so that the writer need not look there for each sample.
pub(super) const TAIL_HAS_OLDER: u64 = 1 << TAIL_INDEX_BITS;
const TAIL_COMMIT_SHIFT: u32 = TAIL_INDEX_BITS + 1;

const _: () = assert!(COMMIT_MAX <= u64::MAX >> TAIL_COMMIT_SHIFT);

pub(super) fn pack_tail(commit: CommitId, in_chunk: u16, has_older: bool) -> u64 {
    debug_assert!(u32::from(in_chunk) < 1 << TAIL_INDEX_BITS);
    commit.0 << TAIL_COMMIT_SHIFT | if has_older { TAIL_HAS_OLDER } else { 0 } | u64::from(in_chunk)
}

pub(super) fn unpack_tail(raw: u64) -> (CommitId, u64) {
    (CommitId(raw >> TAIL_COMMIT_SHIFT), raw & ((1 << TAIL_INDEX_BITS) - 1))
}

/// A commit and the index of its first sample; it reaches up to the next entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct CommitStart {
    pub(super) commit: CommitId,
    pub(super) index: u64,
}

const BLOCK_LEN: usize = 32;

/// Commits before the tail, oldest first, in blocks that successive versions share.
#[derive(Debug, Default)]
pub(in crate::storage::head) struct OlderCommits {
    blocks: Vec<Arc<[CommitStart; BLOCK_LEN]>>,
    recent: Vec<CommitStart>,
}

impl OlderCommits {
    /// This list with one more entry, without leading blocks that nobody needs any more; `None` if nothing is needed.
    pub(super) fn pushed(old: Option<&Self>, entry: CommitStart, low: CommitId) -> Option<Arc<Self>> {
        let visible = |e: &CommitStart| e.commit <= low;
        let Some(old) = old else {
            return (!visible(&entry)).then(|| Arc::new(Self { blocks: Vec::new(), recent: vec![entry] }));
        };
        let passed = old.blocks.iter().take_while(|block| block.iter().all(visible)).count();
        let mut new = Self { blocks: old.blocks[passed..].to_vec(), recent: Vec::with_capacity(old.recent.len() + 1) };
        // Entries are dropped from the front only: one in the middle bounds the reach of the one before it.
        if new.blocks.is_empty() {
            new.recent.extend(old.recent.iter().skip_while(|e| visible(e)));
        } else {
            new.recent.extend(&old.recent);
        }
        if new.blocks.is_empty() && new.recent.is_empty() && visible(&entry) {
            return None;
        }
        new.recent.push(entry);
        if let Ok(block) = <[CommitStart; BLOCK_LEN]>::try_from(new.recent.as_slice()) {
            new.blocks.push(Arc::new(block));
            new.recent.clear();
        }
        Some(Arc::new(new))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = CommitStart> + '_ {
        self.blocks.iter().flat_map(|block| block.iter()).chain(&self.recent).copied()
    }
}
