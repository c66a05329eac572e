//! Time stamps and time ranges in milliseconds, as Prometheus stores them.

use std::fmt;

/// Milliseconds since the Unix epoch; may be negative. Never seconds: those exist only at the HTTP edge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimestampMs(pub i64);

impl TimestampMs {
    /// The earliest time stamp; as a range bound it means "from the beginning".
    pub const MIN: Self = Self(i64::MIN);
    /// The latest time stamp; as a range bound it means "to the end".
    pub const MAX: Self = Self(i64::MAX);

    /// This time stamp moved by `delta_ms`, held at the ends of the range instead of wrapping.
    pub fn saturating_add(self, delta_ms: i64) -> Self {
        Self(self.0.saturating_add(delta_ms))
    }

    /// Seconds since the epoch, as PromQL's `time()` and the HTTP API count them.
    pub fn as_seconds(self) -> f64 {
        self.0 as f64 / 1000.0
    }
}

impl fmt::Display for TimestampMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Time range of a read, both ends inclusive, as in the query API. Invariant: `min <= max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeRange {
    min: TimestampMs,
    max: TimestampMs,
}

/// A range whose end lies before its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("end timestamp must not be before start time")]
pub struct InvertedRange;

impl TimeRange {
    /// All of time.
    pub const ALL: Self = Self { min: TimestampMs::MIN, max: TimestampMs::MAX };

    /// Errors when `max` lies before `min`; the API reports it as `bad_data`.
    pub fn new(min: TimestampMs, max: TimestampMs) -> Result<Self, InvertedRange> {
        if max < min { Err(InvertedRange) } else { Ok(Self { min, max }) }
    }

    /// First time stamp in the range.
    pub fn min(self) -> TimestampMs {
        self.min
    }

    /// Last time stamp in the range.
    pub fn max(self) -> TimestampMs {
        self.max
    }

    /// True if `at` lies in the range.
    pub fn contains(self, at: TimestampMs) -> bool {
        self.min <= at && at <= self.max
    }

    /// True if `[min, max]` and this range have a time stamp in common.
    pub fn overlaps(self, min: TimestampMs, max: TimestampMs) -> bool {
        self.min <= max && min <= self.max
    }
}
