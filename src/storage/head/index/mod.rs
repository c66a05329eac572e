//! The inverted index of one shard: immutable segments and a small tail of the newest series.
//!
//! New series go to the [`tail::Tail`], a log that readers scan; when it is full it becomes a [`segment::Segment`], and
//! segments are merged as they grow in number, on any thread. Readers hold an [`Index`], a few reference counts that the
//! writer swaps as a whole.

use std::sync::Arc;

pub(crate) mod build;
pub(crate) mod classes;
pub(crate) mod order;
pub(crate) mod pairing;
pub(crate) mod segment;
pub(crate) mod select;
pub(crate) mod tail;

use crate::storage::head::index::segment::{AsOf, Seen, Segment};
use crate::storage::head::index::tail::Tail;

/// What readers search.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    /// Oldest and largest first.
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) tail: Arc<Tail>,
}

/// Segments to be merged into one, on any thread.
#[derive(Debug)]
pub struct MergeJob {
    sources: Vec<Arc<Segment>>,
    as_of: AsOf,
}

/// The outcome of a [`MergeJob`], to be installed by the shard.
#[derive(Debug)]
pub struct MergedSegment {
    sources: Vec<Arc<Segment>>,
    merged: Segment,
}

/// Segments of which it is to be found out which of their series views see, on any thread: listings need not look at them then.
#[derive(Debug)]
pub struct LookJob {
    segments: Vec<Arc<Segment>>,
    as_of: AsOf,
}

impl LookJob {
    /// Looks at all series.
    pub fn run(self) {
        for segment in self.segments {
            segment.set_seen(Seen::of(&segment, self.as_of, |cell| cell.is_visible(self.as_of.commit)));
        }
    }
}

impl MergeJob {
    /// Builds the merged segment: pure computation, to be run off the shard's thread.
    pub fn run(self) -> MergedSegment {
        MergedSegment { merged: build::merge(&self.sources, self.as_of), sources: self.sources }
    }

    /// Series to be merged.
    pub fn series_count(&self) -> usize {
        self.sources.iter().map(|s| s.len()).sum()
    }
}

impl MergedSegment {
    pub(crate) fn source_count(&self) -> usize {
        self.sources.len()
    }
}

impl Index {
    /// Bytes of the segments on the heap.
    pub(crate) fn heap_len(&self) -> usize {
        self.segments.iter().map(|s| s.heap_len()).sum()
    }

    /// Series in segments that are gone.
    pub(crate) fn gone_count(&self) -> usize {
        self.segments.iter().map(|s| s.gone_count()).sum()
    }

    /// The next merge that is worth its cost: each segment should be at least twice as large as all behind it together.
    pub(crate) fn plan_merge(&self, as_of: AsOf) -> Option<MergeJob> {
        let mut behind = 0;
        let mut from = self.segments.len();
        for (i, segment) in self.segments.iter().enumerate().rev() {
            if 0 < behind && segment.len() < 2 * behind {
                from = i;
            }
            behind += segment.len();
        }
        (from + 1 < self.segments.len()).then(|| MergeJob { sources: self.segments[from..].to_vec(), as_of })
    }

    /// A look at the segments of which it is not known which series views see; `None` if there are none.
    pub(crate) fn plan_look(&self, as_of: AsOf) -> Option<LookJob> {
        let is_known = |segment: &Segment| segment.seen().is_some_and(|seen| seen.as_of.losses == as_of.losses);
        let segments: Vec<_> = self.segments.iter().filter(|segment| !is_known(segment)).map(Arc::clone).collect();
        (!segments.is_empty()).then_some(LookJob { segments, as_of })
    }

    /// A merge of everything, which leaves out series that are gone.
    pub(crate) fn plan_rebuild(&self, as_of: AsOf) -> Option<MergeJob> {
        (!self.segments.is_empty()).then(|| MergeJob { sources: self.segments.clone(), as_of })
    }

    /// This index with `merged` in place of its sources; `None` if they are not all there any more.
    pub(crate) fn with_merged(&self, merged: MergedSegment) -> Option<Self> {
        let first = merged.sources.first()?;
        let from = self.segments.iter().position(|s| Arc::ptr_eq(s, first))?;
        let to = from + merged.sources.len();
        let same = self.segments.get(from..to)?.iter().zip(&merged.sources).all(|(a, b)| Arc::ptr_eq(a, b));
        if !same {
            return None;
        }
        let mut segments = self.segments[..from].to_vec();
        if 0 < merged.merged.len() {
            segments.push(Arc::new(merged.merged));
        }
        segments.extend_from_slice(&self.segments[to..]);
        Some(Self { segments, tail: Arc::clone(&self.tail) })
    }
}
