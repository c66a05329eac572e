//! Sources that are asked anew each interval, and what is the same for all of them: when they are asked, what a failure
//! leaves, what is counted and logged.
//!
//! A failed look leaves the groups as they are and is tried again after a second, then after twice as long each time, up to
//! the interval.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use tokio::time::{Instant, sleep_until};

use crate::discovery::error::LookError;
use crate::discovery::metrics::{RefreshMetrics, SourceMetrics};
use crate::discovery::{Look, Provider, TargetGroup};
use crate::model::clock::SharedClock;
use crate::telemetry::repeat::{RepeatLimiter, Verdict};

/// The first wait after a failure.
const RETRY_MIN: Duration = Duration::from_secs(1);

/// What a look may take at least.
const LOOK_WITHIN_MIN: Duration = Duration::from_secs(5);

/// How long a look may take: until the next, as in Prometheus, but not so short that it cannot succeed.
pub(super) fn look_within(interval: Duration) -> Duration {
    interval.max(LOOK_WITHIN_MIN)
}

/// What a source has found.
#[derive(Debug, Default)]
pub struct Refreshed {
    /// All groups that there are now.
    pub groups: Vec<TargetGroup>,
    /// What could not be looked at; its last groups are among `groups`.
    pub failure: Option<LookError>,
}

impl From<Vec<TargetGroup>> for Refreshed {
    fn from(groups: Vec<TargetGroup>) -> Self {
        Self { groups, failure: None }
    }
}

/// A source that can be asked for all its groups.
pub trait Source: Send {
    /// Asks it, for no longer than about its interval.
    fn look(&mut self) -> BoxFuture<'_, Result<Refreshed, LookError>>;
}

/// A source at work.
pub struct Refreshing<S> {
    source: S,
    interval: Duration,
    retry: Duration,
    due: Instant,
    metrics: RefreshMetrics,
    clock: SharedClock,
    /// Mechanism and set.
    named: (&'static str, String),
    repeats: RepeatLimiter,
}

impl<S: Source> Refreshing<S> {
    /// Asks at once, then each interval. `set` is the job's name.
    pub fn new(
        source: S,
        interval: Duration,
        mechanism: &'static str,
        set: &str,
        metrics: &Arc<SourceMetrics>,
        clock: &SharedClock,
    ) -> Self {
        Self {
            source,
            interval,
            retry: RETRY_MIN,
            due: Instant::now(),
            metrics: metrics.refresh(mechanism, set),
            clock: SharedClock::clone(clock),
            named: (mechanism, set.to_owned()),
            repeats: RepeatLimiter::default(),
        }
    }

    /// Notes what a look has come to; answers with the wait until the next.
    fn judge(&mut self, looked: Result<Refreshed, LookError>, took: Duration) -> (Duration, Look) {
        self.metrics.observe(took.as_secs_f64());
        let (groups, failure) = match looked {
            Ok(Refreshed { groups, failure }) => (Some(groups), failure),
            Err(error) => {
                self.metrics.failures.inc();
                (None, Some(error))
            }
        };
        let failure = failure.map(|error| error.to_string());
        let (component, (discovery, config)) = ("discovery", (self.named.0, self.named.1.as_str()));
        let wait = match &failure {
            Some(err) => {
                if let Verdict::Log { repeated } = self.repeats.failed(err, self.clock.monotonic()) {
                    tracing::error!(component, discovery, config, err, repeated, "Unable to refresh target groups");
                }
                let wait = self.retry.min(self.interval);
                self.retry = wait.saturating_mul(2);
                wait
            }
            None => {
                if self.repeats.succeeded() {
                    tracing::info!(component, discovery, config, "Target groups can be refreshed again");
                }
                self.retry = RETRY_MIN;
                self.interval
            }
        };
        (wait, Look { groups, failure })
    }
}

impl<S: Source> Provider for Refreshing<S> {
    fn next(&mut self) -> BoxFuture<'_, Look> {
        let look = async {
            sleep_until(self.due).await;
            let began = self.clock.monotonic();
            let looked = self.source.look().await;
            let (wait, look) = self.judge(looked, self.clock.monotonic().saturating_sub(began));
            self.due = Instant::now() + wait;
            look
        };
        look.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::clock::SystemClock;
    use crate::telemetry::metrics::Registry;

    /// Fails as often as it is told, then finds nothing.
    struct Fails(usize);

    impl Source for Fails {
        fn look(&mut self) -> BoxFuture<'_, Result<Refreshed, LookError>> {
            let fails = self.0 != 0;
            self.0 = self.0.saturating_sub(1);
            async move { if fails { Err(LookError::Other("it fails".to_owned())) } else { Ok(Vec::new().into()) } }
                .boxed()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_fails_is_asked_less_and_less_and_never_less_than_one_that_does_not() {
        let (registry, clock) = (Registry::shared(), SystemClock::shared());
        let metrics = Arc::new(SourceMetrics::new(&registry, &clock));
        let mut source = Refreshing::new(Fails(6), Duration::from_secs(10), "mech", "job", &metrics, &clock);
        let (began, mut asked) = (Instant::now(), Vec::new());
        for _ in 0..9 {
            let look = source.next().await;
            asked.push((began.elapsed().as_secs(), look.failure.is_some(), look.groups.is_some()));
        }
        let at: Vec<u64> = asked.iter().map(|(at, ..)| *at).collect();
        assert_eq!(at, [0, 1, 3, 7, 15, 25, 35, 45, 55]);
        assert!(asked.iter().all(|(at, failed, known)| *failed == (*at < 35) && failed != known), "{asked:?}");
        assert_eq!(metrics.refresh("mech", "job").failures.get(), 6);
    }
}
