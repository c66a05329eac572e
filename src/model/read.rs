//! What the query engine asks of storage, and nothing more: a consistent view, series that match, decoded columns.
//!
//! Data flow: the gateway opens a [`ReadView`] (a few reference counts and one commit number) → a selector asks
//! [`ReadView::select`] → each series is decoded on the reader's own thread into a [`FloatColumn`].

use std::sync::Arc;

use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::time::TimeRange;

/// Time stamps (ascending, unique) and values of one series, side by side and of equal length.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FloatColumn {
    /// Milliseconds since the epoch, strictly ascending.
    pub timestamps: Vec<i64>,
    /// The value at the same index; may be the stale marker.
    pub values: Vec<f64>,
}

impl FloatColumn {
    /// Number of samples.
    pub fn len(&self) -> usize {
        self.timestamps.len()
    }

    /// True if there is no sample.
    pub fn is_empty(&self) -> bool {
        self.timestamps.is_empty()
    }

    /// Appends one sample.
    pub fn push(&mut self, timestamp_ms: i64, value: f64) {
        self.timestamps.push(timestamp_ms);
        self.values.push(value);
    }

    /// Drops all samples and keeps the room.
    pub fn clear(&mut self) {
        self.timestamps.clear();
        self.values.clear();
    }
}

/// Why a read failed. A read gives everything it was asked for or one of these; never a part.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// A shard is being rebuilt or has failed.
    #[error("shard {shard} is not available: {reason}")]
    ShardUnavailable {
        /// Which shard.
        shard: usize,
        /// What it is doing instead.
        reason: String,
    },
    /// The caller's budget is used up; the text names limit and flag.
    #[error("{0}")]
    Budget(String),
    /// The caller's deadline has passed or it has gone away.
    #[error("{0}")]
    Interrupted(String),
    /// Stored data is damaged; the text names the place.
    #[error("{0}")]
    Corrupt(String),
}

/// What a read may hold and how long it may take. Storage calls it as it collects label sets and decodes chunks.
pub trait ReadBudget: Send + Sync {
    /// Charges `bytes` that the read is about to hold; the error ends the read.
    fn charge(&self, bytes: usize) -> Result<(), ReadError>;
    /// Errors when the read should end: deadline, cancellation.
    fn check(&self) -> Result<(), ReadError>;
}

/// A budget without limits, for tests and tools.
#[derive(Debug, Default)]
pub struct Unlimited;

impl ReadBudget for Unlimited {
    fn charge(&self, _: usize) -> Result<(), ReadError> {
        Ok(())
    }
    fn check(&self) -> Result<(), ReadError> {
        Ok(())
    }
}

/// Samples of one series as the view sees them.
pub trait SampleSource: Send + Sync {
    /// Appends the samples in `range` to `out`, oldest first; may be called more than once and from any thread.
    fn decode(&self, range: TimeRange, out: &mut FloatColumn) -> Result<(), ReadError>;
}

/// One selected series.
#[derive(Clone)]
pub struct SelectedSeries {
    /// Its full label set.
    pub labels: Labels,
    /// Its samples.
    pub samples: Arc<dyn SampleSource>,
}

/// A consistent view of storage: each commit whole or not at all, in all its selections.
pub trait ReadView: Send + Sync {
    /// Series that fulfil all `matchers` and may have samples in `range`, sorted by labels.
    fn select(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        budget: &dyn ReadBudget,
    ) -> Result<Vec<SelectedSeries>, ReadError>;

    /// Names of all labels of series that fulfil all `matchers` (no matchers: all series), sorted.
    fn label_names(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        budget: &dyn ReadBudget,
    ) -> Result<Vec<String>, ReadError>;

    /// Values of the label `name` over series that fulfil all `matchers` (none: all series), sorted.
    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        range: TimeRange,
        budget: &dyn ReadBudget,
    ) -> Result<Vec<String>, ReadError>;
}

/// Opens views. Storage implements it; tests implement it over plain maps.
pub trait Queryable: Send + Sync {
    /// A view of everything committed by now.
    fn view(&self) -> Result<Arc<dyn ReadView>, ReadError>;
}
