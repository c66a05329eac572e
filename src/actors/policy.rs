//! When a panicked actor is started again, and when it is given up for a while. Plain code: failure times in, verdicts out.
//! Invariant: `failures` holds the failures of the last window only, oldest first, fewer than the budget of them.

use std::time::Duration;

use crate::model::random::Random;

/// The numbers of a restart policy; small, as each actor has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Delay of the second restart of a window (the first is made at once); each further one doubles it.
    pub delay_first_ms: u32,
    /// No delay is longer.
    pub delay_max_ms: u32,
    /// So many failures within a window mark the actor failed.
    pub failures_max: u32,
    /// The time over which failures are counted.
    pub window_ms: u32,
    /// How long a failed actor rests before it is tried again.
    pub retry_every_ms: u32,
}

impl Policy {
    /// For every actor that is to live as long as the process, or until it is drained.
    pub const PERMANENT: Self =
        Self { delay_first_ms: 100, delay_max_ms: 10_000, failures_max: 10, window_ms: 60_000, retry_every_ms: 60_000 };

    /// Nominal delay after the `count`th failure of a window, counted from 1; jitter only shortens it.
    pub fn delay(&self, count: usize) -> Duration {
        let Some(doublings) = count.checked_sub(2) else { return Duration::ZERO };
        let factor = u32::try_from(doublings).ok().and_then(|n| 1u32.checked_shl(n)).unwrap_or(u32::MAX);
        ms(self.delay_first_ms.saturating_mul(factor).min(self.delay_max_ms))
    }
}

fn ms(ms: u32) -> Duration {
    Duration::from_millis(u64::from(ms))
}

/// What to do after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Restart after this delay.
    Restart(Duration),
    /// The budget is spent: the actor has failed; try again after this long, or on a reload.
    Failed(Duration),
}

/// The failures of one actor under its policy.
#[derive(Debug)]
pub struct Restarts {
    policy: Policy,
    random: Random,
    failures: Vec<Duration>,
    /// When the last try of a failed actor began. A failure within a window of it marks the actor failed again at once:
    /// one try is one try, not another ten.
    tried_at: Option<Duration>,
}

impl Restarts {
    /// No failures yet; `seed` decides the jitter.
    pub fn new(policy: Policy, seed: u64) -> Self {
        Self { policy, random: Random::seeded(seed), failures: Vec::new(), tried_at: None }
    }

    /// Records a failure at `now` (monotonic) and says what to do.
    pub fn on_failure(&mut self, now: Duration) -> Verdict {
        let window = ms(self.policy.window_ms);
        if self.tried_at.take().is_some_and(|at| now.saturating_sub(at) < window) {
            return Verdict::Failed(ms(self.policy.retry_every_ms));
        }
        self.failures.retain(|at| now.saturating_sub(*at) < window);
        self.failures.push(now);
        if self.failures.len() < self.policy.failures_max as usize {
            return Verdict::Restart(self.jittered(self.policy.delay(self.failures.len())));
        }
        self.failures.clear();
        Verdict::Failed(ms(self.policy.retry_every_ms))
    }

    /// Records that a failed actor is tried again at `now`.
    pub fn on_retry(&mut self, now: Duration) {
        self.tried_at = Some(now);
    }

    /// Between half of the delay and the whole, so that actors that fell together do not rise together.
    fn jittered(&mut self, delay: Duration) -> Duration {
        delay.mul_f64(0.5 + self.random.next_f64() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn delays_double_from_100_ms_to_10_s_after_a_restart_at_once() {
        let delays: Vec<_> = (1..=10).map(|n| Policy::PERMANENT.delay(n).as_millis()).collect();
        assert_eq!(delays, [0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(Policy::PERMANENT.delay(usize::MAX), secs(10));
    }

    #[test]
    fn jitter_stays_between_half_and_the_whole_and_follows_the_seed() {
        let verdicts = |seed| {
            let mut restarts = Restarts::new(Policy::PERMANENT, seed);
            (0..9).map(|_| restarts.on_failure(secs(1))).collect::<Vec<_>>()
        };
        for seed in 0..200 {
            for (i, verdict) in verdicts(seed).into_iter().enumerate() {
                let nominal = Policy::PERMANENT.delay(i + 1);
                let Verdict::Restart(delay) = verdict else { panic!("seed {seed}: failure {i} gave {verdict:?}") };
                assert!(nominal / 2 <= delay && delay <= nominal, "seed {seed}: {delay:?} of {nominal:?}");
            }
        }
        assert_eq!(verdicts(7), verdicts(7));
        assert_ne!(verdicts(7), verdicts(8));
    }

    #[test]
    fn ten_failures_within_a_minute_mark_it_failed() {
        let mut restarts = Restarts::new(Policy::PERMANENT, 1);
        for i in 0..9 {
            assert!(matches!(restarts.on_failure(secs(i * 6)), Verdict::Restart(_)), "failure {i}");
        }
        assert_eq!(restarts.on_failure(secs(59)), Verdict::Failed(secs(60)));
    }

    #[test]
    fn a_failure_each_seven_seconds_never_marks_it_failed_and_is_restarted_with_the_same_delay() {
        let mut restarts = Restarts::new(Policy::PERMANENT, 1);
        for i in 0..1000 {
            assert!(matches!(restarts.on_failure(secs(i * 7)), Verdict::Restart(_)), "failure {i}");
        }
    }

    #[test]
    fn a_rare_failure_is_always_restarted_at_once() {
        let mut restarts = Restarts::new(Policy::PERMANENT, 1);
        for i in 0..20 {
            assert_eq!(restarts.on_failure(secs(i * 60)), Verdict::Restart(Duration::ZERO));
        }
    }

    #[test]
    fn a_try_that_fails_within_the_window_marks_it_failed_again_and_a_later_failure_counts_anew() {
        let mut restarts = Restarts::new(Policy::PERMANENT, 1);
        for _ in 0..10 {
            let _ = restarts.on_failure(secs(1));
        }
        restarts.on_retry(secs(61));
        assert_eq!(restarts.on_failure(secs(100)), Verdict::Failed(secs(60)));
        restarts.on_retry(secs(160));
        assert_eq!(restarts.on_failure(secs(220)), Verdict::Restart(Duration::ZERO));
    }
}
