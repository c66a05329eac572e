//! Keeps a repeating error from filling the log: it is told when it changes, then once a minute with a count.

use std::time::Duration;

/// How long an unchanged error stays silent.
pub const QUIET: Duration = Duration::from_secs(60);

/// What to do with an error that has just happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Log it. `repeated` is how often it happened unlogged since its last line.
    Log {
        /// Occurrences that were held back.
        repeated: u64,
    },
    /// Say nothing.
    Hold,
}

/// Remembers the last error of one source, as one target or one Alertmanager.
#[derive(Clone, Debug, Default)]
pub struct RepeatLimiter {
    current: Option<Current>,
}

#[derive(Clone, Debug)]
struct Current {
    text: String,
    logged_at: Duration,
    held_back: u64,
}

impl RepeatLimiter {
    /// Judges an error at monotonic time `now`.
    pub fn failed(&mut self, text: &str, now: Duration) -> Verdict {
        match &mut self.current {
            Some(current) if current.text == text => {
                if now.saturating_sub(current.logged_at) < QUIET {
                    current.held_back += 1;
                    return Verdict::Hold;
                }
                let repeated = std::mem::take(&mut current.held_back);
                current.logged_at = now;
                Verdict::Log { repeated }
            }
            _ => {
                self.current = Some(Current { text: text.to_owned(), logged_at: now, held_back: 0 });
                Verdict::Log { repeated: 0 }
            }
        }
    }

    /// Notes a success. True if an error preceded it, so that the recovery is worth a line.
    pub fn succeeded(&mut self) -> bool {
        self.current.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_on_change_then_once_a_minute_with_a_count() {
        let mut limiter = RepeatLimiter::default();
        let at = Duration::from_secs;
        assert_eq!(limiter.failed("a", at(0)), Verdict::Log { repeated: 0 });
        assert_eq!(limiter.failed("a", at(15)), Verdict::Hold);
        assert_eq!(limiter.failed("a", at(30)), Verdict::Hold);
        assert_eq!(limiter.failed("a", at(60)), Verdict::Log { repeated: 2 });
        assert_eq!(limiter.failed("b", at(61)), Verdict::Log { repeated: 0 });
        assert!(limiter.succeeded());
        assert!(!limiter.succeeded());
        assert_eq!(limiter.failed("b", at(62)), Verdict::Log { repeated: 0 });
    }
}
