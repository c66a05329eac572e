//! How often changes of target groups are handed on. The first is, at once; then there is a gap before the next, 100 ms at
//! first and doubled each time up to 5 s (`--scrape.discovery-reload-interval`); after as long without one the gap is 100 ms again.
//! So single changes are seen at once, and a source that never rests costs one synchronisation each 5 s.

use std::time::Duration;

const GAP_MIN: Duration = Duration::from_millis(100);
const GAP_MAX: Duration = Duration::from_secs(5);

/// Remembers when something was handed on.
#[derive(Debug)]
pub struct Debounce {
    gap_max: Duration,
    last: Option<Last>,
}

impl Default for Debounce {
    fn default() -> Self {
        Self::up_to(GAP_MAX)
    }
}

#[derive(Debug)]
struct Last {
    at: Duration,
    gap: Duration,
}

impl Debounce {
    /// One whose gaps are no longer than this; zero stands for 5 s, as in Prometheus.
    pub fn up_to(gap_max: Duration) -> Self {
        Self { gap_max: if gap_max.is_zero() { GAP_MAX } else { gap_max }, last: None }
    }

    /// How long a change of the monotonic time `now` has to wait.
    pub fn wait(&self, now: Duration) -> Duration {
        self.last.as_ref().map_or(Duration::ZERO, |last| (last.at + last.gap).saturating_sub(now))
    }

    /// Something was handed on at the monotonic time `now`.
    pub fn handed_on(&mut self, now: Duration) {
        let gap = match &self.last {
            Some(last) if now.saturating_sub(last.at) <= self.gap_max => (last.gap * 2).min(self.gap_max),
            _ => GAP_MIN.min(self.gap_max),
        };
        self.last = Some(Last { at: now, gap });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restless_source_is_handed_on_each_five_seconds() {
        let mut debounce = Debounce::default();
        let (mut now, mut waits) = (Duration::from_secs(100), Vec::new());
        for _ in 0..9 {
            let wait = debounce.wait(now);
            waits.push(wait.as_millis());
            now += wait;
            debounce.handed_on(now);
        }
        assert_eq!(waits, [0, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        now += Duration::from_millis(4999);
        assert_eq!(debounce.wait(now).as_millis(), 1);
    }

    #[test]
    fn after_a_rest_the_first_goes_at_once_and_the_second_soon() {
        let mut debounce = Debounce::default();
        for at in [0, 1, 2, 3, 4] {
            debounce.handed_on(Duration::from_secs(at));
        }
        let now = Duration::from_secs(10);
        assert_eq!(debounce.wait(now), Duration::ZERO);
        debounce.handed_on(now);
        assert_eq!(debounce.wait(now), GAP_MIN);
        let mut quick = Debounce::up_to(Duration::from_millis(30));
        quick.handed_on(now);
        assert_eq!(quick.wait(now).as_millis(), 30);
        assert_eq!(Debounce::up_to(Duration::ZERO).gap_max, GAP_MAX);
    }
}
