//! The wall clock, distrusted: a step that the monotonic clock does not bear out may be undone in a minute, and what is done by a
//! wrong clock is not.
//!
//! - A step ahead of more than ten minutes is believed after ten minutes only; until then time goes on from where it was. So samples
//!   dated by a wrong clock are refused, and the right ones that come afterwards are not late. A clock that cannot have been right
//!   before, as one that began in 1970 or before what is stored, is believed at once.
//! - A step back is believed at once: it is how a wrong clock gets right. So is the way back from one, and from standing still.
//! - For ten minutes after any step nothing is to be deleted for its age ([`SteadyClock::is_settled`]).

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::model::clock::{Clock, SharedClock};
use crate::model::time::TimestampMs;

/// How long a step is doubted.
pub const DOUBT: Duration = Duration::from_secs(600);
/// A step ahead by more than this is doubted at all: as far as samples may be ahead of the clock anyway.
const DOUBTED_MS: i64 = 600_000;
/// Clocks drift and are slewed; more than this is a step.
const STEP_MS: i64 = 30_000;
/// No clock was right before 2020: this program did not exist.
const PLAUSIBLE_MS: i64 = 1_577_836_800_000;

/// A clock that doubts steps of another.
pub struct SteadyClock {
    clock: SharedClock,
    state: Mutex<State>,
}

struct State {
    /// A moment in both times, from which the next is reckoned.
    base: Moment,
    /// From here drift is measured; moves with steps only.
    anchor: Moment,
    /// How far the wall clock was ahead of the monotonic one at most while it was believed.
    ahead_max: i64,
    /// Since when the wall clock is ahead of what is believed.
    doubted_since: Option<Duration>,
    /// When the last step was seen.
    stepped: Option<Duration>,
    /// The newest time that is stored.
    stored: Option<i64>,
}

#[derive(Clone, Copy)]
struct Moment {
    wall_ms: i64,
    monotonic: Duration,
}

impl Moment {
    fn of(clock: &dyn Clock) -> Self {
        Self { wall_ms: clock.now().0, monotonic: clock.monotonic() }
    }

    /// How far the wall clock is ahead of the monotonic one, which began at any time.
    fn ahead(self) -> i64 {
        self.wall_ms.saturating_sub(i64::try_from(self.monotonic.as_millis()).unwrap_or(i64::MAX))
    }

    /// What the wall clock would show at `monotonic`.
    fn at(self, monotonic: Duration) -> i64 {
        let passed = monotonic.saturating_sub(self.monotonic).as_millis();
        self.wall_ms.saturating_add(i64::try_from(passed).unwrap_or(i64::MAX))
    }
}

impl SteadyClock {
    /// Believes what `clock` shows now, for want of anything else.
    pub fn new(clock: &SharedClock) -> Arc<Self> {
        let base = Moment::of(&**clock);
        let ahead_max = base.ahead();
        let state = State { base, anchor: base, ahead_max, doubted_since: None, stepped: None, stored: None };
        Arc::new(Self { clock: SharedClock::clone(clock), state: Mutex::new(state) })
    }

    /// Hears the newest time that is stored: should the clock be far from it, a step may have come before the start.
    pub fn compare(&self, stored: TimestampMs) {
        let seen = Moment::of(&*self.clock);
        let mut state = self.state.lock();
        state.stored = Some(stored.0);
        if DOUBTED_MS < seen.wall_ms.saturating_sub(stored.0).saturating_abs() {
            state.stepped = Some(seen.monotonic);
        }
    }

    /// True if no step was seen for ten minutes: what is too old now is too old.
    pub fn is_settled(&self) -> bool {
        let seen = Moment::of(&*self.clock);
        let mut state = self.state.lock();
        state.see(seen);
        state.stepped.is_none_or(|stepped| DOUBT <= seen.monotonic.saturating_sub(stepped))
    }

    /// The time that is believed, in milliseconds.
    fn believed(&self) -> i64 {
        let seen = Moment::of(&*self.clock);
        let mut state = self.state.lock();
        state.see(seen);
        if state.doubted_since.is_some() { state.base.at(seen.monotonic) } else { seen.wall_ms }
    }
}

impl State {
    fn see(&mut self, seen: Moment) {
        if STEP_MS < seen.wall_ms.saturating_sub(self.anchor.at(seen.monotonic)).saturating_abs() {
            (self.stepped, self.anchor) = (Some(seen.monotonic), seen);
        }
        let ahead = seen.wall_ms.saturating_sub(self.base.at(seen.monotonic));
        let was_wrong = self.base.wall_ms < PLAUSIBLE_MS
            || self.stored.is_some_and(|stored| DOUBTED_MS < stored.saturating_sub(self.base.wall_ms));
        // Back from a step back, or from standing still: that time was believed before.
        let is_return = seen.ahead() <= self.ahead_max.saturating_add(DOUBTED_MS);
        if ahead <= DOUBTED_MS || was_wrong || is_return {
            self.believe(seen);
            return;
        }
        let since = *self.doubted_since.get_or_insert(seen.monotonic);
        if DOUBT <= seen.monotonic.saturating_sub(since) {
            self.believe(seen);
        }
    }

    fn believe(&mut self, seen: Moment) {
        (self.base, self.doubted_since) = (seen, None);
        self.ahead_max = self.ahead_max.max(seen.ahead());
    }
}

impl Clock for SteadyClock {
    fn unix_nanos(&self) -> i64 {
        self.believed().saturating_mul(1_000_000)
    }

    fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }

    fn now(&self) -> TimestampMs {
        TimestampMs(self.believed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::clock::ManualClock;

    const NOW: i64 = 1_800_000_000_000;
    const HOUR_MS: i64 = 3_600_000;
    const YEAR_MS: i64 = 365 * 24 * HOUR_MS;

    fn at(ms: i64) -> (Arc<ManualClock>, Arc<SteadyClock>) {
        let manual = ManualClock::at(TimestampMs(ms));
        let shared: SharedClock = Arc::clone(&manual) as SharedClock;
        (manual, SteadyClock::new(&shared))
    }

    #[test]
    fn a_step_ahead_is_believed_after_ten_minutes_and_one_back_at_once() {
        for step in [HOUR_MS, YEAR_MS] {
            let (manual, steady) = at(NOW);
            manual.step_to(TimestampMs(NOW + step));
            assert_eq!(steady.now().0, NOW);
            manual.advance(Duration::from_secs(599));
            assert_eq!(steady.now().0, NOW + 599_000);
            manual.advance(Duration::from_secs(1));
            assert_eq!(steady.now().0, NOW + step + 600_000);
            manual.step_to(TimestampMs(NOW + 601_000));
            assert_eq!(steady.now().0, NOW + 601_000, "the way back");
        }
        let (manual, steady) = at(NOW);
        manual.step_to(TimestampMs(NOW + YEAR_MS));
        assert_eq!(steady.now().0, NOW);
        manual.step_to(TimestampMs(NOW + 1_000));
        assert_eq!(steady.now().0, NOW + 1_000, "undone in time, nothing has happened");
        // Within what samples may be ahead anyway, there is nothing to doubt.
        manual.step_to(TimestampMs(NOW + 300_000));
        assert_eq!(steady.now().0, NOW + 300_000);
    }

    #[test]
    fn the_way_back_from_a_step_back_or_from_standing_still_is_believed_at_once() {
        let (manual, steady) = at(NOW);
        manual.step_to(TimestampMs(NOW - HOUR_MS));
        assert_eq!(steady.now().0, NOW - HOUR_MS);
        manual.step_to(TimestampMs(NOW));
        assert_eq!(steady.now().0, NOW);
        for _ in 0..30 {
            manual.advance(Duration::from_secs(60));
            manual.step_to(TimestampMs(NOW));
            assert_eq!(steady.now().0, NOW);
        }
        manual.step_to(TimestampMs(NOW + 1_800_000));
        assert_eq!(steady.now().0, NOW + 1_800_000);
    }

    #[test]
    fn a_clock_that_cannot_have_been_right_is_believed_when_it_gets_right() {
        let (manual, steady) = at(1_000);
        manual.step_to(TimestampMs(NOW));
        assert_eq!(steady.now().0, NOW);
        let (manual, steady) = at(NOW - YEAR_MS);
        steady.compare(TimestampMs(NOW));
        manual.step_to(TimestampMs(NOW + 5));
        assert_eq!(steady.now().0, NOW + 5, "what is stored is newer than the clock was");
    }

    #[test]
    fn nothing_is_settled_within_ten_minutes_of_a_step() {
        let minutes = |n: u64| Duration::from_secs(n * 60);
        for step in [HOUR_MS, YEAR_MS, -HOUR_MS, -NOW] {
            let (manual, steady) = at(NOW);
            assert!(steady.is_settled());
            manual.advance(minutes(60));
            assert!(steady.is_settled(), "time that passes is no step");
            manual.step_to(TimestampMs(NOW + HOUR_MS + step));
            assert!(!steady.is_settled(), "{step}");
            manual.advance(minutes(9));
            assert!(!steady.is_settled());
            manual.step_to(TimestampMs(NOW + HOUR_MS));
            assert!(!steady.is_settled(), "the way back is a step as well");
            manual.advance(minutes(10));
            assert!(steady.is_settled());
        }
    }

    #[test]
    fn a_frozen_clock_is_never_settled() {
        let (manual, steady) = at(NOW);
        for _ in 0..60 {
            manual.advance(Duration::from_secs(60));
            manual.step_to(TimestampMs(NOW));
            assert!(!steady.is_settled());
        }
    }

    #[test]
    fn what_is_stored_bears_the_clock_out_or_does_not() {
        for (stored, is_settled) in [(NOW - 1, true), (NOW - HOUR_MS, false), (NOW + YEAR_MS, false)] {
            let (manual, steady) = at(NOW);
            steady.compare(TimestampMs(stored));
            assert_eq!(steady.is_settled(), is_settled);
            manual.advance(DOUBT);
            assert!(steady.is_settled());
        }
    }
}
