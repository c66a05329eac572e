//! The evaluation times of a query or of a subquery.

/// Evaluation times `start`, `start + interval`, … up to `end`, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Steps {
    start: i64,
    end: i64,
    interval: i64,
    count: usize,
}

impl Steps {
    /// Times from `start` to `end`, both inclusive. None if `end` lies before `start`.
    pub(crate) fn new(start: i64, end: i64, interval: i64) -> Self {
        let interval = interval.max(1);
        let span = i128::from(end) - i128::from(start);
        let count = if span < 0 { 0 } else { usize::try_from(span / i128::from(interval) + 1).unwrap_or(usize::MAX) };
        Self { start, end, interval, count }
    }

    /// The one time of an instant query.
    pub(crate) fn instant(at: i64) -> Self {
        Self { start: at, end: at, interval: 1, count: 1 }
    }

    /// Only the first time, with the same interval: what is equal at every step is evaluated there.
    pub(crate) fn first_only(self) -> Self {
        Self { end: self.start, count: self.count.min(1), ..self }
    }

    /// Distance of the steps in milliseconds.
    pub(crate) fn interval(self) -> i64 {
        self.interval
    }

    /// Number of steps.
    pub(crate) fn count(self) -> usize {
        self.count
    }

    /// First evaluation time.
    pub(crate) fn start(self) -> i64 {
        self.start
    }

    /// Last evaluation time: the last step, not the end that was asked for.
    pub(crate) fn last(self) -> i64 {
        self.at(self.count.saturating_sub(1))
    }

    /// Evaluation time of a step.
    pub(crate) fn at(self, step: usize) -> i64 {
        self.start.saturating_add(self.interval.saturating_mul(i64::try_from(step).unwrap_or(i64::MAX)))
    }

    /// True if this could be an instant query. Prometheus asks for `start == end`, not for one step, before it takes
    /// the paths that keep the order of results and treat equal label sets differently.
    pub(crate) fn is_instant(self) -> bool {
        self.start == self.end
    }

    /// First step at or after `at`; may be [`Self::count`] or more.
    pub(crate) fn first_at_or_after(self, at: i64) -> usize {
        if at <= self.start {
            return 0;
        }
        // Almost always everything fits; wide division is slow.
        if let Some(rounded_up) = at.checked_sub(self.start).and_then(|ahead| ahead.checked_add(self.interval - 1)) {
            return usize::try_from(rounded_up / self.interval).unwrap_or(usize::MAX);
        }
        let ahead = i128::from(at) - i128::from(self.start);
        let interval = i128::from(self.interval);
        usize::try_from((ahead + interval - 1) / interval).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_steps_inclusively() {
        assert_eq!(Steps::new(0, 100, 30).count(), 4);
        assert_eq!(Steps::new(0, 90, 30).last(), 90);
        assert_eq!(Steps::new(10, 0, 30).count(), 0);
        assert!(!Steps::new(0, 10, 30).is_instant());
        assert_eq!(Steps::new(i64::MIN, i64::MAX, 1).count(), usize::MAX);
    }

    #[test]
    fn finds_steps_by_time() {
        let steps = Steps::new(100, 200, 10);
        assert_eq!((steps.first_at_or_after(0), steps.first_at_or_after(100)), (0, 0));
        assert_eq!((steps.first_at_or_after(101), steps.first_at_or_after(110)), (1, 1));
        assert_eq!(steps.first_at_or_after(i64::MAX), 922_337_203_685_477_571);
    }
}
