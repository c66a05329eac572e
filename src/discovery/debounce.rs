//! How often changes of target groups are handed on. The first is, at once; then there is a gap before the next, 100 ms at
//! first and doubled each time up to 5 s; after 5 s without one the gap is 100 ms again. So single changes are seen at
//! once, and a source that never rests costs one synchronisation each 5 s.

use std::time::Duration;

const GAP_MIN: Duration = Duration::from_millis(100);
const GAP_MAX: Duration = Duration::from_secs(5);

/// Remembers when something was handed on.
#[derive(Debug, Default)]
pub struct Debounce {
    last: Option<Last>,
}

#[derive(Debug)]
struct Last {
    at: Duration,
    gap: Duration,
}

impl Debounce {
    /// How long a change of the monotonic time `now` has to wait.
    pub fn wait(&self, now: Duration) -> Duration {
        self.last.as_ref().map_or(Duration::ZERO, |last| (last.at + last.gap).saturating_sub(now))
    }

    /// Something was handed on at the monotonic time `now`.
    pub fn handed_on(&mut self, now: Duration) {
        let gap = match &self.last {
            Some(last) if now.saturating_sub(last.at) <= GAP_MAX => (last.gap * 2).min(GAP_MAX),
            _ => GAP_MIN,
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
    }
}
