//! Which time stamps a commit accepts.

use crate::model::append::SampleRejection;
use crate::model::time::TimestampMs;

/// Samples further ahead of the clock than this are refused: one sample dated hours ahead would move the bound below
/// which everything else is refused.
pub const FUTURE_MS_MAX: i64 = 10 * 60_000;

/// Accepted time stamps, both ends inclusive. Fixed when a commit begins, so that a batch is judged by one measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendBounds {
    min: i64,
    max: i64,
    /// The newest sample of the head.
    newest: Option<i64>,
    late: Option<LateBounds>,
}

/// What holds for samples that come out of order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LateBounds {
    min: i64,
    epoch: u64,
}

/// How a sample that cannot be appended in order stands to the window for late ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lateness {
    /// There is no window.
    NoWindow,
    /// It lies within.
    Within,
    /// It is older.
    TooOld,
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
        let newest = newest.map(|newest| newest.min(max)).or(first);
        let min = newest.unwrap_or(i64::MIN).saturating_sub(range_ms / 2).max(min_valid);
        Self { min, max, newest, late: None }
    }

    /// The same with a window for samples that come out of order, unless it is 0; those that are taken belong to `epoch`.
    pub(crate) fn with_window(self, window_ms: i64, epoch: u64) -> Self {
        let min = self.newest.map(|newest| newest.saturating_sub(window_ms));
        Self { late: min.filter(|_| 0 < window_ms).map(|min| LateBounds { min, epoch }), ..self }
    }

    /// True if a sample at `at` may be appended, in order or late.
    pub fn admits(&self, at: TimestampMs) -> bool {
        at.0 <= self.max && (self.min <= at.0 || self.late.is_some_and(|late| late.min <= at.0))
    }

    /// True if a sample at `at` may be appended in order.
    pub(crate) fn takes_in_order(&self, at: i64) -> bool {
        self.min <= at && at <= self.max
    }

    /// How `at` stands to the window.
    pub(crate) fn lateness(&self, at: i64) -> Lateness {
        match self.late {
            None => Lateness::NoWindow,
            Some(late) if late.min <= at => Lateness::Within,
            Some(_) => Lateness::TooOld,
        }
    }

    /// Why a sample that is not admitted is refused.
    pub(crate) fn refusal(&self, at: TimestampMs) -> SampleRejection {
        match self.lateness(at.0) {
            Lateness::TooOld if at.0 <= self.max => SampleRejection::TooOld,
            _ => SampleRejection::OutOfBounds,
        }
    }

    /// The epoch of late samples; see `late::LateTable`.
    pub(crate) fn epoch(&self) -> u64 {
        self.late.map_or(0, |late| late.epoch)
    }

    /// How far a sample at `at` lies behind the newest of the head, in milliseconds.
    pub(crate) fn behind_newest(&self, at: i64) -> i64 {
        self.newest.map_or(0, |newest| newest.saturating_sub(at))
    }

    /// The oldest time stamp that is accepted in order.
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

    #[test]
    fn a_window_lets_older_samples_in() {
        let bounds = AppendBounds::new(Some(1000), None, TimestampMs(2000), 50, 200);
        let reasons = |bounds: AppendBounds, at| (bounds.admits(TimestampMs(at)), bounds.refusal(TimestampMs(at)));
        assert_eq!(reasons(bounds.with_window(0, 1), 899), (false, SampleRejection::OutOfBounds));
        let windowed = bounds.with_window(980, 7);
        assert_eq!((windowed.epoch(), windowed.behind_newest(400)), (7, 600));
        assert!(windowed.admits(TimestampMs(20)) && !windowed.takes_in_order(899) && windowed.takes_in_order(900));
        assert_eq!(reasons(windowed, 19), (false, SampleRejection::TooOld));
        assert_eq!(reasons(windowed, 2001 + FUTURE_MS_MAX), (false, SampleRejection::OutOfBounds));
        assert_eq!(windowed.lateness(20), Lateness::Within);
        assert_eq!(
            AppendBounds::new(None, None, TimestampMs(0), 5, 9).with_window(9, 0).lateness(0),
            Lateness::NoWindow
        );
    }
}
