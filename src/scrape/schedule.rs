//! When a target is due: absolute times, spread over the interval by a hash, so that they neither drift nor move when an
//! actor or the whole server restarts (Prometheus `scrape/target.go`, `offset`).
//!
//! Invariant: due times are exactly those `t` with `t % interval == phase`, in nanoseconds of wall time.
//!
//! Where targets are few, each would wake a thread up for itself, to find caches that have gone cold. So phases are those of a grid,
//! coarse enough for some targets to be due together ([`Schedule::in_steps`]).

use std::time::Duration;

pub use crate::model::due::Due;
use crate::model::labels::Labels;
use crate::model::time::TimestampMs;

/// Largest distance between the due time and the real one at which a scrape is stamped with the due time, unless told otherwise.
pub const TOLERANCE: Duration = Duration::from_millis(2);

/// Due times are put together within as much at most.
const STEP_MAX_NANOS: u64 = 200_000_000;
/// The grid has as many places in an interval at least.
const PLACES_MIN: u64 = 25;
/// A shorter grid is none.
const STEP_MIN_NANOS: u64 = 2_000_000;
/// Targets that are to be due together, at most about.
const TOGETHER: u64 = 4;

/// FNV-1a with 64 bits.
#[derive(Clone, Copy, Debug)]
pub struct Fnv64(u64);

impl Fnv64 {
    /// The hash of nothing.
    pub fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// The hash with `bytes` added.
    #[must_use]
    pub fn with(self, bytes: &[u8]) -> Self {
        Self(bytes.iter().fold(self.0, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)))
    }

    /// The hash.
    pub fn finish(self) -> u64 {
        self.0
    }
}

impl Default for Fnv64 {
    fn default() -> Self {
        Self::new()
    }
}

/// Differs between servers that scrape the same targets, so that they do not do it at the same moment: host name and
/// external labels.
pub fn offset_seed(host_name: &str, external_labels: &Labels) -> u64 {
    Fnv64::new().with(host_name.as_bytes()).with(external_labels.to_string().as_bytes()).finish()
}

/// Identifies a target for its schedule: label hash and URL.
pub fn target_hash(labels: &Labels, url: &str) -> u64 {
    Fnv64::new().with(format!("{:016}", labels.hash64()).as_bytes()).with(url.as_bytes()).finish()
}

/// The due times of one target or rule group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    interval_nanos: i64,
    phase_nanos: i64,
    /// The phase is a multiple of this.
    step_nanos: i64,
    tolerance_nanos: i64,
}

impl Schedule {
    /// `hash` is that of the target; an interval of zero is taken as 1 ms.
    pub fn new(interval: Duration, hash: u64, seed: u64) -> Self {
        let interval_nanos = i64::try_from(interval.as_nanos()).unwrap_or(i64::MAX).max(1_000_000);
        let phase_nanos = ((hash ^ seed) % interval_nanos.unsigned_abs()).cast_signed();
        Self { interval_nanos, phase_nanos, step_nanos: 1, tolerance_nanos: 0 }.with_tolerance(TOLERANCE)
    }

    /// The same on a grid that has some of `targets` with this interval due together: of a fifth of a second, or of a twenty-fifth of
    /// the interval where that is less, halved until they are few.
    #[must_use]
    pub fn among(self, targets: usize) -> Self {
        let interval = self.interval_nanos.unsigned_abs();
        let mut step = STEP_MAX_NANOS.min(interval / PLACES_MIN);
        let wanted = (interval / u64::try_from(targets).unwrap_or(u64::MAX).max(1)).saturating_mul(TOGETHER);
        while wanted < step {
            step /= 2;
        }
        self.in_steps(if step < STEP_MIN_NANOS { 1 } else { step.cast_signed() })
    }

    /// The same on the grid of another.
    #[must_use]
    pub fn in_steps_of(self, other: Self) -> Self {
        self.in_steps(other.step_nanos)
    }

    fn in_steps(self, step_nanos: i64) -> Self {
        Self { step_nanos, phase_nanos: self.phase_nanos - self.phase_nanos % step_nanos, ..self }
    }

    /// Which place of the grid its due times have.
    pub fn place(self) -> u64 {
        (self.phase_nanos / self.step_nanos).unsigned_abs()
    }

    /// The same with another distance at which scrapes are stamped with their due time; of a hundredth of the interval at most.
    #[must_use]
    pub fn with_tolerance(self, tolerance: Duration) -> Self {
        let tolerance_nanos = i64::try_from(tolerance.as_nanos()).unwrap_or(i64::MAX);
        Self { tolerance_nanos: tolerance_nanos.min(self.interval_nanos / 100), ..self }
    }

    /// The interval.
    pub fn interval(self) -> Duration {
        Duration::from_nanos(self.interval_nanos.unsigned_abs())
    }

    /// The next due time after `now_nanos`, given the one that was taken last. A clock that was set back does not stop
    /// the schedule: a previous time that lies more than an interval ahead counts for nothing.
    pub fn next(self, now_nanos: i64, previous: Option<Due>) -> Due {
        let previous =
            previous.map(|due| due.at_nanos).filter(|at| at.saturating_sub(now_nanos) <= self.interval_nanos);
        let after = previous.map_or(now_nanos, |at| at.max(now_nanos));
        let into = (after.saturating_sub(self.phase_nanos)).rem_euclid(self.interval_nanos);
        let at_nanos = after.saturating_add(self.interval_nanos - into);
        let passed = previous.map_or(1, |at| at_nanos.saturating_sub(at) / self.interval_nanos);
        Due { at_nanos, missed: u64::try_from(passed - 1).unwrap_or(0) }
    }

    /// The time stamp of a scrape that was due at `due` and began at `began_nanos`: the due time when it began within the
    /// tolerance, so that deltas between time stamps repeat and compress.
    pub fn stamp(self, due: Due, began_nanos: i64) -> TimestampMs {
        let tolerance = self.tolerance_nanos;
        let late = began_nanos.saturating_sub(due.at_nanos);
        let nanos = if -tolerance <= late && late <= tolerance { due.at_nanos } else { began_nanos };
        TimestampMs(nanos.div_euclid(1_000_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn a_hash_of_nothing_is_the_offset_basis() {
        assert_eq!(Fnv64::new().with(b"a").finish(), 0xaf63_dc4c_8601_ec8c);
    }

    #[test]
    fn due_times_repeat_and_survive_restarts() {
        let schedule = Schedule::new(Duration::from_secs(15), 7 * SECOND as u64, 0);
        let first = schedule.next(100 * SECOND, None);
        assert_eq!(first, Due { at_nanos: 112 * SECOND, missed: 0 });
        // The timer fired a little early or late: the next due time is the next one all the same.
        assert_eq!(schedule.next(112 * SECOND - 5, Some(first)).at_nanos, 127 * SECOND);
        assert_eq!(schedule.next(112 * SECOND + 5, Some(first)).at_nanos, 127 * SECOND);
        assert_eq!(schedule.next(113 * SECOND, None).at_nanos, 127 * SECOND);
    }

    #[test]
    fn missed_times_are_counted_and_skipped() {
        let schedule = Schedule::new(Duration::from_secs(10), 0, 0);
        let first = Due { at_nanos: 100 * SECOND, missed: 0 };
        assert_eq!(schedule.next(135 * SECOND, Some(first)), Due { at_nanos: 140 * SECOND, missed: 3 });
    }

    #[test]
    fn a_clock_set_back_does_not_stop_the_schedule() {
        let schedule = Schedule::new(Duration::from_secs(10), 0, 0);
        let before = Due { at_nanos: 10_000 * SECOND, missed: 0 };
        assert_eq!(schedule.next(50 * SECOND, Some(before)), Due { at_nanos: 60 * SECOND, missed: 0 });
    }

    #[test]
    fn stamps_are_aligned_within_the_tolerance() {
        let schedule = Schedule::new(Duration::from_secs(10), 0, 0);
        let due = Due { at_nanos: 100 * SECOND, missed: 0 };
        assert_eq!(schedule.stamp(due, 100 * SECOND + 1_999_999), TimestampMs(100_000));
        assert_eq!(schedule.stamp(due, 100 * SECOND + 3_000_000), TimestampMs(100_003));
        let tolerant = schedule.with_tolerance(Duration::from_secs(1));
        assert_eq!(tolerant.stamp(due, 100 * SECOND + 100_000_000), TimestampMs(100_000));
        assert_eq!(
            tolerant.stamp(due, 100 * SECOND + 101_000_000),
            TimestampMs(100_101),
            "a hundredth of the interval"
        );
        let exact = schedule.with_tolerance(Duration::ZERO);
        assert_eq!(exact.stamp(due, 100 * SECOND + 1_999_999), TimestampMs(100_001));
    }

    #[test]
    fn few_targets_are_due_together_and_many_are_spread() {
        let phases = |seconds: u64, count: usize| -> Vec<i64> {
            let of = |i| target_hash(&Labels::from_pairs([("instance", format!("h{i}"))]), "http://h/metrics");
            let interval = Duration::from_secs(seconds);
            (0..count).map(|i| Schedule::new(interval, of(i), 1).among(count).next(0, None).at_nanos).collect()
        };
        let on_grid = |phases: &[i64], ms: i64| phases.iter().all(|phase| phase % (ms * 1_000_000) == 0);
        let most_together = |phases: &[i64]| {
            phases.iter().map(|phase| phases.iter().filter(|other| *other == phase).count()).max().unwrap_or(0)
        };
        let few = phases(5, 100);
        assert!(on_grid(&few, 200) && (2..=20).contains(&most_together(&few)), "{few:?}");
        let many = phases(5, 1000);
        assert!(!on_grid(&many, 25) && most_together(&many) <= 15, "{many:?}");
        assert!(on_grid(&phases(1, 3), 40), "a twenty-fifth of the interval");
        let own = Schedule::new(Duration::from_secs(15), 123_456_789_012, 0);
        assert_eq!(own.among(1_000_000), own, "a grid that is too fine is none");
        assert_eq!(own.in_steps_of(own.among(1)), own.among(1));
        assert_ne!(own.among(1).place(), Schedule::new(Duration::from_secs(15), 123_600_000_000, 0).among(1).place());
    }

    #[test]
    fn a_thousand_targets_spread_over_the_interval() {
        let spread: std::collections::BTreeSet<i64> = (0..1000)
            .map(|i| target_hash(&Labels::from_pairs([("instance", format!("h{i}"))]), "http://h/metrics"))
            .map(|hash| Schedule::new(Duration::from_secs(10), hash, 1).next(0, None).at_nanos / SECOND)
            .collect();
        assert_eq!(spread.len(), 10);
    }
}
