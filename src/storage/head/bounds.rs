//! Which time stamps a commit accepts.

use crate::model::time::TimestampMs;

/// Samples further ahead of the clock than this are refused: one sample dated hours ahead would move the bound below
/// which everything else is refused.
pub const FUTURE_MS_MAX: i64 = 10 * 60_000;

/// Accepted time stamps, both ends inclusive. Fixed when a commit begins, so that a batch is judged by one measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendBounds {
    min: i64,
    max: i64,
}

impl AppendBounds {
    /// Bounds by Prometheus's rule: not before half a chunk range behind the newest sample, nor before what has been
    /// truncated. While the head is empty, the first sample of the batch stands for the newest.
    pub(crate) fn new(
        newest: Option<i64>,
        first: Option<TimestampMs>,
        now: TimestampMs,
        min_valid: i64,
        range_ms: i64,
    ) -> Self {
        let max = now.0.saturating_add(FUTURE_MS_MAX);
        let first = first.map(|at| at.0).filter(|at| *at <= max);
        // One that is dated ahead of the clock itself, as by a clock that was wrong, sets none either.
        let newest = newest.map(|newest| newest.min(max)).or(first).unwrap_or(i64::MIN);
        Self { min: newest.saturating_sub(range_ms / 2).max(min_valid), max }
    }

    /// True if a sample at `at` may be appended.
    pub fn admits(&self, at: TimestampMs) -> bool {
        self.min <= at.0 && at.0 <= self.max
    }

    /// The oldest time stamp that is accepted.
    pub fn min(&self) -> TimestampMs {
        TimestampMs(self.min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_follow_the_newest_sample_and_the_clock() {
        let bounds =
            |newest, first| AppendBounds::new(newest, Some(TimestampMs(first)), TimestampMs(1_000_000), 50, 200);
        assert_eq!(bounds(Some(1000), 0).min(), TimestampMs(900));
        assert_eq!(bounds(Some(100), 0).min(), TimestampMs(50));
        assert_eq!(bounds(None, 500).min(), TimestampMs(400));
        // A first sample that is refused itself sets no bound for the others.
        assert_eq!(bounds(None, 9_000_000).min(), TimestampMs(50));
        assert_eq!(bounds(Some(5_000_000), 0).min(), TimestampMs(1_599_900));
        assert!(bounds(None, 500).admits(TimestampMs(1_600_000)) && !bounds(None, 500).admits(TimestampMs(1_600_001)));
    }
}
