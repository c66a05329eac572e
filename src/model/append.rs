//! What goes into storage: batches of samples that commit whole.
//!
//! Data flow: a scrape, a rule group or a remote write builds an [`AppendBatch`] → the storage client parts it by shard
//! and gives it one commit number → shards check, log and apply it → the caller learns from the [`AppendReport`].

use crate::model::labels::Labels;
use crate::model::sample::SeriesRef;
use crate::model::time::TimestampMs;

/// A partition of the head. Invisible on disk and to users; only a hint where a series lives now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// A series that storage has resolved before, with the shard that holds it. Valid for one run of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SeriesHandle {
    /// The reference that log and chunks use.
    pub series: SeriesRef,
    /// The shard whose table holds it.
    pub shard: ShardId,
}

/// Names the series of a sample: by handle where the caller has one, else by labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeriesKey {
    /// Resolved by an earlier append.
    Known(SeriesHandle),
    /// To be looked up or created.
    Labels(Labels),
}

/// One sample to append.
#[derive(Clone, Debug, PartialEq)]
pub struct AppendSample {
    /// Which series.
    pub series: SeriesKey,
    /// When.
    pub at: TimestampMs,
    /// The value; the stale marker ends the series.
    pub value: f64,
}

/// Samples that become visible together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AppendBatch {
    /// In the order in which they are applied.
    pub samples: Vec<AppendSample>,
}

/// Why storage refused one sample. The texts are Prometheus's.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum SampleRejection {
    /// Older than the newest sample of its series.
    #[error("out of order sample")]
    OutOfOrder,
    /// Older than the head accepts, or too far in the future.
    #[error("out of bounds")]
    OutOfBounds,
    /// Same time stamp as the newest sample, another value.
    #[error(
        "duplicate sample for timestamp {at}; overrides not allowed: existing {}, new value {}",
        crate::model::go::format_float_g(*existing),
        crate::model::go::format_float_g(*new)
    )]
    Duplicate {
        /// The common time stamp, in milliseconds.
        at: i64,
        /// The value that is kept.
        existing: f64,
        /// The value that was refused.
        new: f64,
    },
    /// The handle is not (or no longer) in its shard's table; append again by labels.
    #[error("unknown series reference")]
    UnknownSeries,
    /// A series has at least one label.
    #[error("empty labelset: invalid sample")]
    EmptyLabels,
    /// The head's budget has no room for another series.
    #[error("series limit reached: the head holds {held} series of at most {limit}; see --watchfire.memory-limit")]
    SeriesLimit {
        /// Series in the head.
        held: u64,
        /// Series that the budget allows.
        limit: u64,
    },
}

/// What became of a batch. A refused sample does not hold up the others.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AppendReport {
    /// Samples stored; equal repetitions of the newest sample count as stored.
    pub appended: u32,
    /// Series created.
    pub created: u32,
    /// For each sample that named its series by labels and was not refused for its series: index in the batch and handle.
    pub resolved: Vec<(u32, SeriesHandle)>,
    /// Refused samples: index in the batch and reason.
    pub rejected: Vec<(u32, SampleRejection)>,
    /// Of these, by index, those that stored samples would not have refused: they stand against samples of the same batch,
    /// or of one that is not stored yet. Prometheus drops them without a word to who appends.
    pub against_staged: Vec<u32>,
}

impl AppendReport {
    /// Adds the report of another part of the same batch.
    pub fn absorb(&mut self, part: Self) {
        self.appended += part.appended;
        self.created += part.created;
        self.resolved.extend(part.resolved);
        self.rejected.extend(part.rejected);
        self.against_staged.extend(part.against_staged);
    }

    /// The refused samples that Prometheus reports: all but those of [`Self::against_staged`]. For a sorted report.
    pub fn reported(&self) -> impl Iterator<Item = &(u32, SampleRejection)> {
        self.rejected.iter().filter(|(index, _)| self.against_staged.binary_search(index).is_err())
    }

    /// Puts the entries in the batch's order, after all parts are in.
    pub fn sort(&mut self) {
        self.resolved.sort_by_key(|(index, _)| *index);
        self.rejected.sort_by_key(|(index, _)| *index);
        self.against_staged.sort_unstable();
    }
}
