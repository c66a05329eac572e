//! Which time stamps a commit accepts.
//!
//! A clock that was ahead leaves samples behind that are newer than now. Their series would refuse the right ones until the clock
//! gets there; so while it has not, right samples are taken as those that came out of order are, with or without a window for
//! these. `docs/adr/0006-clocks-that-were-ahead.md` tells why.

use crate::model::append::SampleRejection;
use crate::model::time::{TimeRange, TimestampMs};

/// Samples further ahead of the clock than this are refused: one sample dated hours ahead would move the bound below
/// which everything else is refused.
pub const FUTURE_MS_MAX: i64 = 10 * 60_000;

/// A clock that shows an earlier time has not been set yet: this program did not exist. What it dates is not a return to anything.
const PLAUSIBLE_MS: i64 = 1_577_836_800_000;

/// Accepted time stamps, both ends inclusive. Fixed when a commit begins, so that a batch is judged by one measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendBounds {
    min: i64,
    max: i64,
    now: i64,
    /// The newest sample of the head.
    newest: Option<i64>,
    /// The oldest that may come out of order.
    late_min: Option<i64>,
    /// What late samples belong to.
    epoch: u64,
    /// The oldest that is taken where the head holds newer samples than there can be.
    returned_min: Option<i64>,
    /// True if the clock is known to be right again.
    is_return_known: bool,
    range_ms: i64,
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
        let is_ahead = now.0 < min_valid || newest.is_some_and(|newest| now.0 < newest);
        let returned_min = (is_ahead && PLAUSIBLE_MS <= now.0).then(|| now.0.saturating_sub(range_ms / 2));
        let newest = newest.map(|newest| newest.min(max)).or(first);
        let min = newest.unwrap_or(i64::MIN).saturating_sub(range_ms / 2).max(min_valid);
        Self { min, max, now: now.0, newest, late_min: None, epoch: 0, returned_min, is_return_known: false, range_ms }
    }

    /// The same with a window for samples that come out of order, unless it is 0; those that are taken belong to `epoch`.
    pub(crate) fn with_window(self, window_ms: i64, epoch: u64) -> Self {
        let min = self.newest.map(|newest| newest.saturating_sub(window_ms));
        Self { late_min: min.filter(|_| 0 < window_ms), epoch, ..self }
    }

    /// The same by a clock that was ahead until it shows `until`, and is known to be right.
    pub(crate) fn with_known_return(self, until: Option<TimestampMs>) -> Self {
        Self { is_return_known: until.is_some_and(|until| self.now < until.0), ..self }
    }

    /// True if what a clock that was ahead has left of a series is known to stand against no sample.
    pub(crate) fn is_return_known(&self) -> bool {
        self.is_return_known
    }

    /// True if a sample at `at` may be appended, in order or late.
    pub fn admits(&self, at: TimestampMs) -> bool {
        let min = [Some(self.min), self.late_min, self.returned_min].into_iter().flatten().min();
        at.0 <= self.max && min.is_some_and(|min| min <= at.0)
    }

    /// For a sample at `at` that cannot be appended in order, to a series whose newest one is at `newest`: the times after it at which
    /// the series must hold nothing, if it may be one of a clock that was ahead and is right again.
    pub(crate) fn free_if_returned(&self, at: i64, newest: Option<i64>) -> Option<TimeRange> {
        let min = self.returned_min?;
        let is_held_up = at < self.min || newest.is_some_and(|newest| self.now < newest);
        let free = TimeRange::new(TimestampMs(at.saturating_add(1)), TimestampMs(self.max.max(at.saturating_add(1))));
        free.ok().filter(|_| is_held_up && min <= at && at <= self.max)
    }

    /// Times around `at` at which a late sample shows that its series has gone on already.
    pub(crate) fn around(&self, at: i64) -> Option<TimeRange> {
        let from = TimestampMs(at.saturating_sub(self.range_ms / 2));
        TimeRange::new(from, TimestampMs(at.saturating_add(FUTURE_MS_MAX))).ok()
    }

    /// True if a sample at `at` may be appended in order.
    pub(crate) fn takes_in_order(&self, at: i64) -> bool {
        self.min <= at && at <= self.max
    }

    /// How `at` stands to the window.
    pub(crate) fn lateness(&self, at: i64) -> Lateness {
        match self.late_min {
            None => Lateness::NoWindow,
            Some(min) if min <= at => Lateness::Within,
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
        self.epoch
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
        assert_eq!(bounds.free_if_returned(990, Some(1000)), None);
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

    #[test]
    fn a_clock_that_was_ahead_and_is_right_again_holds_nothing_up() {
        let now = 1_800_000_000_000;
        let range_ms = 7_200_000;
        let bounds = |newest, min_valid| AppendBounds::new(Some(newest), None, TimestampMs(now), min_valid, range_ms);
        let ahead = bounds(now + 86_400_000, 0);
        let free = TimeRange::new(TimestampMs(now + 1), TimestampMs(now + FUTURE_MS_MAX)).ok();
        assert_eq!(ahead.free_if_returned(now, Some(now + 86_400_000)), free);
        assert_eq!(ahead.free_if_returned(now - 9, Some(now - 5)), None, "a series that holds nothing ahead");
        assert_eq!(ahead.free_if_returned(now + FUTURE_MS_MAX + 1, Some(now + 86_400_000)), None);
        assert_eq!(ahead.free_if_returned(now - range_ms, Some(now + 86_400_000)), None);
        assert_eq!(bounds(now, 0).free_if_returned(now - 5, Some(now)), None, "nothing is ahead");
        // What was dated ahead has become blocks.
        let truncated = bounds(now, now + 86_400_000);
        assert!(truncated.admits(TimestampMs(now)) && !truncated.takes_in_order(now));
        assert_eq!(truncated.free_if_returned(now, None), free);
        let in_1970 = AppendBounds::new(Some(now), None, TimestampMs(5), 0, range_ms);
        assert_eq!(in_1970.free_if_returned(5, Some(now)), None);
    }
}
