//! The time range in which a selector gets samples from storage. It is derived from the whole query, before evaluation
//! begins, as Prometheus derives it. Where evaluation looks at other times after all, there are no samples; that is the case
//! for pinned parts of the expression that are evaluated at more than their one time.

use crate::promql::plan::QueryTimes;

/// The times at which the expression around a selector is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DataTimes {
    start_ms: i64,
    end_ms: i64,
    /// Offsets and ranges of the subqueries around, from the innermost one that is pinned on.
    offset_ms: i64,
    range_ms: i64,
}

impl DataTimes {
    /// Outside of subqueries.
    pub(crate) fn of_query(times: QueryTimes) -> Self {
        Self { start_ms: times.start_ms, end_ms: times.end_ms, offset_ms: 0, range_ms: 0 }
    }

    /// Inside of a subquery.
    pub(crate) fn inside_subquery(self, pinned_ms: Option<i64>, range_ms: i64, offset_ms: i64) -> Self {
        match pinned_ms {
            Some(at_ms) => Self { start_ms: at_ms, end_ms: at_ms, offset_ms, range_ms },
            None => Self {
                offset_ms: self.offset_ms.saturating_add(offset_ms),
                range_ms: self.range_ms.saturating_add(range_ms),
                ..self
            },
        }
    }

    /// First and last time, both inclusive, of samples for a selector that looks back over `window_ms` and ahead over
    /// `ahead_ms`.
    pub(crate) fn of_selector(
        self,
        pinned_ms: Option<i64>,
        (window_ms, ahead_ms): (i64, i64),
        offset_ms: i64,
    ) -> (i64, i64) {
        let (start_ms, end_ms) = match pinned_ms {
            Some(at_ms) => (at_ms, at_ms),
            None => (
                self.start_ms.saturating_sub(self.offset_ms).saturating_sub(self.range_ms),
                self.end_ms.saturating_sub(self.offset_ms),
            ),
        };
        let first_ms = start_ms.saturating_sub(window_ms).saturating_add(1);
        (first_ms.saturating_sub(offset_ms), end_ms.saturating_add(ahead_ms).saturating_sub(offset_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: DataTimes = DataTimes { start_ms: 1000, end_ms: 2000, offset_ms: 0, range_ms: 0 };

    #[test]
    fn windows_and_offsets_widen_the_range() {
        assert_eq!(QUERY.of_selector(None, (300, 0), 0), (701, 2000));
        assert_eq!(QUERY.of_selector(None, (300, 0), 50), (651, 1950));
        assert_eq!(QUERY.of_selector(Some(5000), (300, 0), 50), (4651, 4950));
    }

    #[test]
    fn subqueries_add_up_until_one_is_pinned() {
        let inside = QUERY.inside_subquery(None, 100, 10).inside_subquery(None, 20, 1);
        assert_eq!(inside.of_selector(None, (300, 0), 0), (570, 1989));
        let pinned = inside.inside_subquery(Some(9000), 100, 10);
        assert_eq!(pinned.of_selector(None, (300, 0), 0), (8591, 8990));
    }
}
