//! When a group is evaluated: at absolute times that its file and name spread over the interval, as in Prometheus, so
//! that they neither drift nor move when an actor or the process restarts.

pub use crate::model::due::Due;
use crate::model::duration::PromDuration;
use crate::model::labels::Labels;
use crate::rules::spec::{GroupSpec, nanos};

/// The due times of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    interval: i64,
    offset: i64,
}

impl Schedule {
    /// The due times of this group.
    pub fn of(group: &GroupSpec) -> Self {
        Self::new(&group.file, &group.name, group.interval)
    }

    fn new(file: &str, name: &str, interval: PromDuration) -> Self {
        let interval = nanos(interval).max(1_000_000);
        let hash = Labels::from_pairs([("name", name), ("file", file)]).hash64();
        Self { interval, offset: (hash % interval.unsigned_abs()).cast_signed() }
    }

    /// The latest of the group's times that is not after `now_nanos`.
    pub fn slot(self, now_nanos: i64) -> i64 {
        let into = now_nanos.saturating_sub(self.offset).rem_euclid(self.interval);
        now_nanos.saturating_sub(into)
    }

    /// The time that the next one is reckoned from: that which was taken last. A group that has taken none begins with the
    /// time that has passed last, and so does one whose clock was set back by more than an interval.
    pub fn since(self, last_nanos: Option<i64>, now_nanos: i64) -> i64 {
        let is_ahead = |last: &i64| self.interval < last.saturating_sub(now_nanos);
        last_nanos.filter(|last| !is_ahead(last)).unwrap_or_else(|| self.slot(now_nanos))
    }

    /// The evaluation after the one at `last_nanos`, which is [`Self::since`], as it looks at `now_nanos`. One that is less
    /// than an interval late is still made; of those before it that were not made all count as missed.
    pub fn next(self, last_nanos: i64, now_nanos: i64) -> Due {
        let passed = (now_nanos.saturating_sub(last_nanos) / self.interval).max(1);
        let at_nanos = last_nanos.saturating_add(passed.saturating_mul(self.interval));
        Due { at_nanos, missed: u64::try_from(passed - 1).unwrap_or(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn every(seconds: u64) -> Schedule {
        Schedule::new("rules.yml", "group", PromDuration::from_secs(seconds))
    }

    #[test]
    fn slots_are_an_interval_apart_and_never_ahead() {
        let schedule = every(15);
        let now = 1_700_000_000 * SECOND;
        let slot = schedule.slot(now);
        assert!(slot <= now && now < slot + 15 * SECOND);
        assert_eq!((slot - schedule.offset) % (15 * SECOND), 0);
        assert_eq!((schedule.slot(slot), schedule.slot(slot - 1)), (slot, slot - 15 * SECOND));
    }

    #[test]
    fn groups_spread_over_the_interval() {
        let spread: std::collections::BTreeSet<i64> = (0..500)
            .map(|n| Schedule::new("rules.yml", &format!("g{n}"), PromDuration::from_secs(10)).offset / SECOND)
            .collect();
        assert_eq!(spread.len(), 10);
    }

    #[track_caller]
    fn check(last: i64, now: i64, at: i64, missed: u64) {
        let schedule = Schedule { interval: 10 * SECOND, offset: 3 * SECOND };
        let due = Due { at_nanos: at * SECOND, missed };
        assert_eq!(schedule.next(last * SECOND, now * SECOND), due, "after {last} at {now}");
    }

    #[test]
    fn evaluations_that_are_late_are_made_and_those_before_them_are_missed() {
        check(103, 103, 113, 0);
        check(103, 112, 113, 0);
        check(103, 113, 113, 0);
        // The evaluation took longer than an interval: the next one is late, but is made.
        check(103, 122, 113, 0);
        check(103, 123, 123, 1);
        check(103, 132, 123, 1);
        check(103, 160, 153, 4);
    }

    #[test]
    fn a_clock_that_is_set_back_begins_anew() {
        let schedule = Schedule { interval: 10 * SECOND, offset: 3 * SECOND };
        let since = |last: i64, now: i64| schedule.since(Some(last * SECOND), now * SECOND) / SECOND;
        assert_eq!((since(103, 160), since(103, 95), since(103, 93)), (103, 103, 103));
        assert_eq!((since(103, 92), since(103, 53), since(103, 52)), (83, 53, 43));
        assert_eq!(schedule.since(None, 60 * SECOND), 53 * SECOND);
    }

    #[test]
    fn after_a_clock_was_set_back_evaluations_become_due_once_an_interval() {
        let schedule = every(10);
        let mut last = Some(schedule.slot(1_700_003_600 * SECOND));
        let (mut made, mut missed) = (Vec::new(), 0);
        for second in 0..60 {
            let now = (1_700_000_000 + second) * SECOND;
            let since = schedule.since(last, now);
            let due = schedule.next(since, now);
            last = Some(since);
            if due.at_nanos <= now {
                (last, missed) = (Some(due.at_nanos), missed + due.missed);
                made.push(due.at_nanos);
            }
        }
        assert_eq!((made.len(), missed), (6, 0));
        assert!(made.windows(2).all(|two| two[1] - two[0] == 10 * SECOND));
    }

    /// Counts what a group does in an hour when each evaluation takes `seconds`.
    #[track_caller]
    fn an_hour(seconds: i64, made: u64, missed: u64) {
        let schedule = every(10);
        let (start, mut counted) = (schedule.slot(1_700_000_000 * SECOND), (0, 0));
        let (mut last, mut now) = (start, start);
        loop {
            let due = schedule.next(last, now);
            now = now.max(due.at_nanos);
            if start + 3600 * SECOND < now {
                break;
            }
            (last, counted) = (due.at_nanos, (counted.0 + 1, counted.1 + due.missed));
            now += seconds * SECOND;
        }
        assert_eq!(counted, (made, missed), "{seconds} s each");
    }

    #[test]
    fn every_due_time_is_made_or_missed() {
        an_hour(0, 360, 0);
        an_hour(9, 360, 0);
        an_hour(20, 180, 179);
        an_hour(100, 36, 315);
    }
}
