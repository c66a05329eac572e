//! The wall clock, distrusted: a step that the monotonic clock does not bear out may be undone in a minute, and what is done by a
//! wrong clock is not.
//!
//! - A step ahead of more than ten minutes is believed after ten minutes only; until then time goes on from where it was. So samples
//!   dated by a wrong clock are refused, and the right ones that come afterwards are not late. A clock that cannot have been right
//!   before, as one that began in 1970 or before what is stored, is believed at once.
//! - A step back is believed at once: it is how a wrong clock gets right. So is the way back from one, and from standing still.
//! - How far the clock was ahead of the monotonic one is kept ([`Line`]). A step back to where it was before says that it was ahead
//!   meanwhile ([`Clock::was_ahead_until`]); one to anywhere else may as well be a wrong one.
//! - For ten minutes after any step nothing is to be deleted for its age ([`SteadyClock::is_settled`]). Age itself goes by the time that
//!   passes ([`SteadyClock::aging`]): a leap of the clock makes nothing old, however long it lasts.
//!
//! What it knows outlives the process ([`ClockMemory`]), and the lines do until the machine starts anew.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

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
/// So near to an earlier line a clock is back on it.
const SAME_LINE_MS: i64 = 300_000;
/// As many lines are known.
const LINES_MAX: usize = 8;
/// Age catches up with a clock that is further ahead only after this time, and then as fast again as time passes.
const PATIENCE_MS: i64 = 24 * 3_600_000;

/// A clock that doubts steps of another.
pub struct SteadyClock {
    clock: SharedClock,
    state: Mutex<State>,
}

/// What a later process is to know.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClockMemory {
    /// The moment from which monotonic times count, if it is the same for other processes.
    pub origin: Option<String>,
    /// The lines that were believed.
    pub lines: Vec<Line>,
    /// Since when the wall clock was ahead of what was believed, on the monotonic clock.
    pub doubted_since_ms: Option<i64>,
    /// The time by which data had aged.
    pub aged_ms: i64,
    /// When that was, on the monotonic clock.
    pub aged_at_ms: i64,
    /// For how long it had been behind the clock.
    pub behind_ms: i64,
    /// See [`Clock::was_ahead_until`].
    pub ahead_until_ms: Option<i64>,
}

/// A way of the wall clock to go: so far ahead of the monotonic one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// By how many milliseconds.
    pub ahead_ms: i64,
    /// Since when, on the monotonic clock.
    pub since_ms: i64,
}

struct State {
    /// A moment in both times, from which the next is reckoned.
    base: Moment,
    /// From here drift is measured; moves with steps only.
    anchor: Moment,
    /// On which lines the wall clock was while it was believed: the last is that of now, the one before that from which it has stepped.
    lines: Vec<Line>,
    /// Since when the wall clock is ahead of what is believed.
    doubted_since: Option<Duration>,
    /// When the last step was seen.
    stepped: Option<Duration>,
    /// The newest time that is stored.
    stored: Option<i64>,
    ahead_until: Option<i64>,
    age: Age,
    has_memory: bool,
}

#[derive(Clone, Copy)]
struct Moment {
    wall_ms: i64,
    monotonic: Duration,
}

/// The time by which data ages.
struct Age {
    /// What it has reached.
    at: Moment,
    /// For how long the clock has been ahead of it.
    behind_ms: i64,
}

fn as_ms(monotonic: Duration) -> i64 {
    i64::try_from(monotonic.as_millis()).unwrap_or(i64::MAX)
}

fn of_ms(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

fn distance(a: i64, b: i64) -> i64 {
    a.saturating_sub(b).saturating_abs()
}

impl Moment {
    fn of(clock: &dyn Clock) -> Self {
        Self { wall_ms: clock.now().0, monotonic: clock.monotonic() }
    }

    /// How far the wall clock is ahead of the monotonic one, which began at any time.
    fn ahead(self) -> i64 {
        self.wall_ms.saturating_sub(as_ms(self.monotonic))
    }

    /// What the wall clock would show at `monotonic`.
    fn at(self, monotonic: Duration) -> i64 {
        self.wall_ms.saturating_add(as_ms(monotonic.saturating_sub(self.monotonic)))
    }

    fn line(self) -> Line {
        Line { ahead_ms: self.ahead(), since_ms: as_ms(self.monotonic) }
    }
}

impl SteadyClock {
    /// Believes what `clock` shows now, for want of anything else.
    pub fn new(clock: &SharedClock) -> Arc<Self> {
        let base = Moment::of(&**clock);
        let state = State {
            base,
            anchor: base,
            lines: vec![base.line()],
            doubted_since: None,
            stepped: None,
            stored: None,
            ahead_until: None,
            age: Age { at: base, behind_ms: 0 },
            has_memory: false,
        };
        Arc::new(Self { clock: SharedClock::clone(clock), state: Mutex::new(state) })
    }

    /// Hears what an earlier process knew. Its lines hold if the machine has not started anew since.
    pub fn remember(&self, memory: &ClockMemory) {
        let seen = Moment::of(&*self.clock);
        let mut state = self.state.lock();
        state.has_memory = true;
        let is_same = self.clock.origin().is_some() && self.clock.origin() == memory.origin.as_deref();
        // How long the machine was off, nobody knows.
        let since = if is_same { of_ms(memory.aged_at_ms) } else { seen.monotonic };
        state.age = Age { at: Moment { wall_ms: memory.aged_ms, monotonic: since }, behind_ms: memory.behind_ms };
        state.ahead_until = memory.ahead_until_ms.filter(|_| is_same);
        if let Some(last) = memory.lines.last().filter(|_| is_same) {
            let base =
                Moment { wall_ms: last.ahead_ms.saturating_add(as_ms(seen.monotonic)), monotonic: seen.monotonic };
            state.lines = memory.lines.iter().rev().take(LINES_MAX).rev().copied().collect();
            (state.base, state.anchor) = (base, base);
            state.doubted_since = memory.doubted_since_ms.map(of_ms).filter(|since| *since <= seen.monotonic);
        }
        state.see(seen);
    }

    /// What a later process is to know.
    pub fn memory(&self) -> ClockMemory {
        let seen = Moment::of(&*self.clock);
        let mut state = self.state.lock();
        state.see(seen);
        ClockMemory {
            origin: self.clock.origin().map(str::to_owned),
            lines: state.lines.clone(),
            doubted_since_ms: state.doubted_since.map(as_ms),
            aged_ms: state.age.at.wall_ms,
            aged_at_ms: as_ms(state.age.at.monotonic),
            behind_ms: state.age.behind_ms,
            ahead_until_ms: state.ahead_until,
        }
    }

    /// Hears the newest time that is stored: should the clock be far from it, a step may have come before the start. Where there was
    /// nothing to remember, data has aged up to it.
    pub fn compare(&self, stored: TimestampMs) {
        let seen = Moment::of(&*self.clock);
        let mut state = self.state.lock();
        state.stored = Some(stored.0);
        if DOUBTED_MS < distance(seen.wall_ms, stored.0) {
            state.stepped = Some(seen.monotonic);
        }
        if !state.has_memory {
            state.age.at.wall_ms = state.age.at.wall_ms.min(stored.0);
        }
    }

    /// True if no step was seen for ten minutes: what is too old now is too old.
    pub fn is_settled(&self) -> bool {
        let seen = Moment::of(&*self.clock);
        let mut state = self.state.lock();
        state.see(seen);
        state.stepped.is_none_or(|stepped| DOUBT <= seen.monotonic.saturating_sub(stepped))
    }

    /// The time by which data ages: that which is believed, but for leaps ahead. It catches up with these after a day, and then so
    /// slowly that what a clock that is right again keeps would have been kept.
    pub fn aging(&self) -> TimestampMs {
        let seen = Moment::of(&*self.clock);
        let mut state = self.state.lock();
        state.see(seen);
        let believed = state.believed(seen);
        TimestampMs(state.age.at.wall_ms.min(believed))
    }

    /// The time that is believed, in milliseconds.
    fn believed(&self) -> i64 {
        let seen = Moment::of(&*self.clock);
        let mut state = self.state.lock();
        state.see(seen);
        state.believed(seen)
    }
}

impl State {
    fn believed(&self, seen: Moment) -> i64 {
        if self.doubted_since.is_some() { self.base.at(seen.monotonic) } else { seen.wall_ms }
    }

    fn see(&mut self, seen: Moment) {
        if STEP_MS < distance(seen.wall_ms, self.anchor.at(seen.monotonic)) {
            (self.stepped, self.anchor) = (Some(seen.monotonic), seen);
        }
        let ahead = seen.wall_ms.saturating_sub(self.base.at(seen.monotonic));
        let was_wrong = self.base.wall_ms < PLAUSIBLE_MS
            || self.stored.is_some_and(|stored| DOUBTED_MS < stored.saturating_sub(self.base.wall_ms));
        // Back from a step back, or from standing still: that time was believed before.
        let furthest = self.lines.iter().map(|line| line.ahead_ms).max();
        let is_return = furthest.is_some_and(|furthest| seen.ahead() <= furthest.saturating_add(DOUBTED_MS));
        if ahead <= DOUBTED_MS || was_wrong || is_return {
            self.believe(seen, seen.monotonic);
        } else {
            let since = *self.doubted_since.get_or_insert(seen.monotonic);
            if DOUBT <= seen.monotonic.saturating_sub(since) {
                self.believe(seen, since);
            }
        }
        self.grow_old(seen, was_wrong);
    }

    fn believe(&mut self, seen: Moment, since: Duration) {
        (self.base, self.doubted_since) = (seen, None);
        self.follow(Line { ahead_ms: seen.ahead(), since_ms: as_ms(since) });
        self.ahead_until = self.ahead_until.filter(|until| seen.wall_ms < *until);
    }

    /// Finds the line on which the clock is that is believed.
    fn follow(&mut self, line: Line) {
        let Some(last) = self.lines.last().copied() else { return self.lines.push(line) };
        if distance(last.ahead_ms, line.ahead_ms) <= STEP_MS {
            return;
        }
        let earlier = self.lines.iter().rev().skip(1).position(|l| distance(l.ahead_ms, line.ahead_ms) <= SAME_LINE_MS);
        if let Some(back) = earlier {
            let wrong = self.lines.split_off(self.lines.len() - 1 - back);
            let furthest = wrong.iter().map(|line| line.ahead_ms).max().filter(|furthest| line.ahead_ms < *furthest);
            let until = furthest.map(|furthest| furthest.saturating_add(as_ms(self.base.monotonic)));
            self.ahead_until = self.ahead_until.max(until);
            if self.base.wall_ms < self.age.at.at(self.base.monotonic) {
                self.age.at = self.base;
            }
            return;
        }
        // One on which it was for a moment, or from which it has drifted, is none to come back to.
        let was_held = as_ms(DOUBT) <= line.since_ms.saturating_sub(last.since_ms);
        let has_drifted = distance(last.ahead_ms, line.ahead_ms) <= 2 * STEP_MS;
        // The first one is given up only for one that is ahead: that one has been doubted.
        let is_first = self.lines.len() == 1;
        if !was_held && (!is_first || last.ahead_ms < line.ahead_ms) || !is_first && has_drifted {
            self.lines.pop();
        }
        self.lines.push(line);
        if LINES_MAX < self.lines.len() {
            self.lines.remove(1);
        }
    }

    fn grow_old(&mut self, seen: Moment, was_wrong: bool) {
        let passed = as_ms(seen.monotonic.saturating_sub(self.age.at.monotonic));
        let (reached, believed) = (self.age.at.at(seen.monotonic), self.believed(seen));
        self.age.at = Moment { wall_ms: reached, monotonic: seen.monotonic };
        let behind = believed.saturating_sub(reached);
        if behind <= STEP_MS || was_wrong && reached < PLAUSIBLE_MS {
            (self.age.at.wall_ms, self.age.behind_ms) = (reached.max(believed), 0);
            return;
        }
        if PATIENCE_MS < self.age.behind_ms {
            self.age.at.wall_ms = reached.saturating_add(passed.min(behind));
        }
        self.age.behind_ms = self.age.behind_ms.saturating_add(passed);
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

    fn origin(&self) -> Option<&str> {
        self.clock.origin()
    }

    fn was_ahead_until(&self) -> Option<TimestampMs> {
        self.state.lock().ahead_until.map(TimestampMs)
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

    /// A process that begins by what `steady` knew.
    fn restarted(steady: &SteadyClock) -> Arc<SteadyClock> {
        let memory = serde_json::to_string(&steady.memory()).unwrap();
        let next = SteadyClock::new(&steady.clock);
        next.remember(&serde_json::from_str(&memory).unwrap());
        next
    }

    fn hours(n: u64) -> Duration {
        Duration::from_secs(n * 3600)
    }

    #[test]
    fn a_clock_that_is_back_where_it_was_was_ahead_meanwhile() {
        for restarts in 0..4 {
            let manual = ManualClock::booted(TimestampMs(NOW), "boot");
            let mut steady = SteadyClock::new(&(Arc::clone(&manual) as SharedClock));
            let mut right = NOW;
            let pass = |steady: &SteadyClock, right: &mut i64| {
                for _ in 0..180 {
                    manual.advance(Duration::from_secs(60));
                    *right += 60_000;
                    steady.now();
                }
            };
            pass(&steady, &mut right);
            for wrong in [HOUR_MS, -HOUR_MS, YEAR_MS] {
                manual.step_to(TimestampMs(right + wrong));
                pass(&steady, &mut right);
                if restarts & 1 == 1 {
                    steady = restarted(&steady);
                }
                assert_eq!((steady.now().0, steady.was_ahead_until()), (right + wrong, None), "{wrong} {restarts}");
                manual.step_to(TimestampMs(right));
                if restarts & 2 == 2 {
                    steady = restarted(&steady);
                }
                assert_eq!(steady.now().0, right, "{wrong} {restarts}");
                assert_eq!(steady.was_ahead_until().map(|t| t.0), (0 < wrong).then_some(right + wrong), "{restarts}");
                // Back where it was from there, and on again: the wrong clock shows nothing that was right before.
                manual.step_to(TimestampMs(right - HOUR_MS / 2));
                pass(&steady, &mut right);
                manual.step_to(TimestampMs(right));
                pass(&steady, &mut right);
                if wrong != YEAR_MS {
                    assert_eq!(steady.was_ahead_until(), None, "it has passed");
                }
            }
        }
    }

    #[test]
    fn nothing_is_known_of_a_clock_of_before_the_machine_started() {
        let manual = ManualClock::booted(TimestampMs(NOW), "first");
        let steady = SteadyClock::new(&(Arc::clone(&manual) as SharedClock));
        manual.advance(hours(1));
        let memory = steady.memory();
        for boot in ["second", ""] {
            let manual = ManualClock::booted(TimestampMs(NOW + YEAR_MS), boot);
            let next = SteadyClock::new(&(Arc::clone(&manual) as SharedClock));
            next.remember(&memory);
            assert_eq!(next.now().0, NOW + YEAR_MS);
            assert_eq!(next.aging().0, NOW + HOUR_MS, "but data has not aged by that");
        }
        let same = SteadyClock::new(&(Arc::clone(&manual) as SharedClock));
        manual.step_to(TimestampMs(NOW + YEAR_MS));
        same.remember(&memory);
        assert_eq!(same.now().0, NOW + HOUR_MS, "it steps while nobody looks");
    }

    #[test]
    fn a_leap_of_the_clock_makes_nothing_old() {
        for restarts in [false, true] {
            let manual = ManualClock::booted(TimestampMs(NOW), "boot");
            let mut steady = SteadyClock::new(&(Arc::clone(&manual) as SharedClock));
            assert_eq!(steady.aging().0, NOW);
            manual.step_to(TimestampMs(NOW + YEAR_MS));
            for hour in 1..=24 {
                manual.advance(hours(1));
                if restarts {
                    steady = restarted(&steady);
                }
                assert_eq!(steady.aging().0, NOW + hour * HOUR_MS);
            }
            assert_eq!(steady.now().0, NOW + YEAR_MS + 24 * HOUR_MS, "believed, but for that");
            // A day later the clock may have been set for good.
            manual.advance(hours(2));
            assert_eq!(steady.aging().0, NOW + 26 * HOUR_MS);
            manual.advance(hours(10));
            assert_eq!(steady.aging().0, NOW + 46 * HOUR_MS);
            manual.step_to(TimestampMs(NOW + 36 * HOUR_MS));
            assert_eq!(steady.aging().0, NOW + 36 * HOUR_MS, "right again");
            manual.step_to(TimestampMs(NOW + YEAR_MS));
            assert_eq!(steady.aging().0, NOW + 36 * HOUR_MS, "and wrong again");
        }
        let (manual, steady) = at(1_000);
        manual.step_to(TimestampMs(NOW));
        assert_eq!(steady.aging().0, NOW, "1970 is no time to reckon from");
        let (_, steady) = at(NOW);
        steady.compare(TimestampMs(NOW - HOUR_MS));
        assert_eq!(steady.aging().0, NOW - HOUR_MS, "what is stored is all that is known");
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
