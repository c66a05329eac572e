//! What goes into storage: batches of samples that commit whole.
//!
//! Data flow: a scrape, a rule group or a remote write builds an [`AppendBatch`] → the storage client parts it by shard
//! and gives it one commit number → shards check, log and apply it → the caller learns from the [`AppendReport`].

use std::sync::Arc;

use crate::model::exemplar::{Exemplar, ExemplarRejection};
use crate::model::histogram::{FloatHistogram, Histogram, InvalidHistogram};
use crate::model::labels::Labels;
use crate::model::metadata::SeriesMetadata;
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

/// A native histogram of either kind; clones share it.
#[derive(Clone, Debug, PartialEq)]
pub enum HistogramValue {
    /// With whole counts.
    Integer(Arc<Histogram>),
    /// With float counts.
    Float(Arc<FloatHistogram>),
}

impl From<Histogram> for HistogramValue {
    fn from(histogram: Histogram) -> Self {
        Self::Integer(Arc::new(histogram))
    }
}

impl From<FloatHistogram> for HistogramValue {
    fn from(histogram: FloatHistogram) -> Self {
        Self::Float(Arc::new(histogram))
    }
}

impl HistogramValue {
    /// Errors unless its parts fit each other, with Prometheus's texts.
    pub fn validate(&self) -> Result<(), InvalidHistogram> {
        match self {
            Self::Integer(histogram) => histogram.validate(),
            Self::Float(histogram) => histogram.validate(),
        }
    }

    /// True for the marker that ends a series of histograms.
    pub fn is_stale(&self) -> bool {
        match self {
            Self::Integer(histogram) => histogram.is_stale(),
            Self::Float(histogram) => histogram.is_stale(),
        }
    }

    /// True if its bounds are listed.
    pub fn uses_custom_buckets(&self) -> bool {
        match self {
            Self::Integer(histogram) => histogram.uses_custom_buckets(),
            Self::Float(histogram) => histogram.uses_custom_buckets(),
        }
    }

    /// True if both are of the same kind and the same data; hints do not count.
    pub fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => a.equals(b),
            (Self::Float(a), Self::Float(b)) => a.equals(b),
            _ => false,
        }
    }

    /// Bytes that it takes in memory.
    pub fn memory_len(&self) -> usize {
        match self {
            Self::Integer(histogram) => histogram.memory_len(),
            Self::Float(histogram) => histogram.memory_len(),
        }
    }
}

/// One histogram to append.
#[derive(Clone, Debug, PartialEq)]
pub struct AppendHistogram {
    /// Which series.
    pub series: SeriesKey,
    /// When.
    pub at: TimestampMs,
    /// The histogram; storage checks it. One whose sum is the stale marker ends the series.
    pub value: HistogramValue,
}

/// One exemplar to append. Its series is named by labels: the head keeps it under them.
#[derive(Clone, Debug, PartialEq)]
pub struct AppendExemplar {
    /// The labels of the series, which has samples in the head, or in the same batch.
    pub series: Labels,
    /// The exemplar.
    pub exemplar: Exemplar,
}

/// What is said of a series, to be noted in the log.
#[derive(Clone, Debug, PartialEq)]
pub struct AppendMetadata {
    /// Which series. It has samples in the head, or in the same batch.
    pub series: SeriesKey,
    /// Shared by series of one metric.
    pub metadata: Arc<SeriesMetadata>,
}

/// Start times of some samples: number of the sample among those of its kind, ascending, and milliseconds since the epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppendStarts {
    /// Of [`AppendBatch::samples`].
    pub samples: Vec<(u32, i64)>,
    /// Of [`AppendBatch::histograms`].
    pub histograms: Vec<(u32, i64)>,
}

/// Samples that become visible together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AppendBatch {
    /// In the order in which they are applied. A stale marker ends a series of histograms as well.
    pub samples: Vec<AppendSample>,
    /// Applied after all of `samples`, in this order. In reports their indexes go on behind those of `samples`.
    pub histograms: Vec<AppendHistogram>,
    /// Exemplars of any series, with numbers of their own in reports. They are not waited for: a view may see one before the
    /// samples of its batch.
    pub exemplars: Vec<AppendExemplar>,
    /// Metadata of any series. What storage knows already, and what is said of series that it does not have, is passed over.
    pub metadata: Vec<AppendMetadata>,
    /// When what samples count has begun, where that is known.
    pub starts: AppendStarts,
    /// What becomes of samples that are older than the newest of their series.
    pub late: LateSamples,
}

/// What becomes of samples that are older than the newest of their series, where the configuration lets such samples in
/// (`storage.tsdb.out_of_order_time_window`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LateSamples {
    /// They are taken.
    #[default]
    Taken,
    /// They are taken, but for markers that end a series: those are out of order, as for scrapes in Prometheus.
    MarkersRefused,
    /// They are out of order, as for rules in Prometheus.
    Refused,
}

impl From<Vec<AppendSample>> for AppendBatch {
    fn from(samples: Vec<AppendSample>) -> Self {
        Self { samples, ..Self::default() }
    }
}

impl AppendBatch {
    /// A batch of floats.
    pub fn of_floats(samples: Vec<AppendSample>) -> Self {
        samples.into()
    }

    /// Adds a float.
    pub fn push_float(&mut self, series: SeriesKey, at: TimestampMs, value: f64) {
        self.samples.push(AppendSample { series, at, value });
    }

    /// Adds a histogram.
    pub fn push_histogram(&mut self, series: SeriesKey, at: TimestampMs, value: impl Into<HistogramValue>) {
        self.histograms.push(AppendHistogram { series, at, value: value.into() });
    }

    /// Number of samples, histograms included, exemplars not.
    pub fn len(&self) -> usize {
        self.samples.len() + self.histograms.len()
    }

    /// True if there is nothing to append.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty() && self.histograms.is_empty()
    }

    /// Time of the first sample.
    pub fn first_at(&self) -> Option<TimestampMs> {
        self.samples.first().map(|sample| sample.at).or_else(|| self.histograms.first().map(|sample| sample.at))
    }
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
    /// Older than samples may be that come out of order.
    #[error("too old sample")]
    TooOld,
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
    /// Same time stamp as the newest sample, which is a histogram.
    #[error(
        "duplicate sample for timestamp {at}; overrides not allowed: existing is a histogram, new value {}",
        crate::model::go::format_float_g(*new)
    )]
    DuplicateOfHistogram {
        /// The common time stamp, in milliseconds.
        at: i64,
        /// The value that was refused.
        new: f64,
    },
    /// A histogram with the time stamp of the newest sample, which is not the same.
    #[error("duplicate sample for timestamp")]
    DuplicateHistogram,
    /// A histogram whose parts do not fit each other.
    #[error(transparent)]
    InvalidHistogram(#[from] InvalidHistogram),
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
    /// Refused exemplars: index among those of the batch and reason. Repetitions are not stored either, and not told.
    pub exemplars_rejected: Vec<(u32, ExemplarRejection)>,
}

impl SampleRejection {
    /// True if another sample stands at the time of the refused one.
    pub fn is_duplicate(&self) -> bool {
        matches!(self, Self::Duplicate { .. } | Self::DuplicateOfHistogram { .. } | Self::DuplicateHistogram)
    }
}

impl AppendReport {
    /// Adds the report of another part of the same batch.
    pub fn absorb(&mut self, part: Self) {
        self.appended += part.appended;
        self.created += part.created;
        self.resolved.extend(part.resolved);
        self.rejected.extend(part.rejected);
        self.against_staged.extend(part.against_staged);
        self.exemplars_rejected.extend(part.exemplars_rejected);
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
        self.exemplars_rejected.sort_by_key(|(index, _)| *index);
    }
}
