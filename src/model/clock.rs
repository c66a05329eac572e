//! Time from outside: everything that asks what time it is asks a [`Clock`], so that a test can stop and jump it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::model::time::TimestampMs;

/// Source of wall time and of monotonic time.
pub trait Clock: Send + Sync {
    /// Nanoseconds since the Unix epoch; may jump in either direction.
    fn unix_nanos(&self) -> i64;
    /// Time since a fixed moment; never goes back.
    fn monotonic(&self) -> Duration;
    /// A name of the moment from which [`Clock::monotonic`] counts, if that moment is the same for other processes.
    fn origin(&self) -> Option<&str> {
        None
    }
    /// Time stamps up to this one may have been given by a clock that was ahead and is known to be right again.
    fn was_ahead_until(&self) -> Option<TimestampMs> {
        None
    }
    /// Milliseconds since the Unix epoch.
    fn now(&self) -> TimestampMs {
        TimestampMs(self.unix_nanos().div_euclid(1_000_000))
    }
}

/// How modules hold the clock.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock. Its monotonic time counts from the start of the machine, times of sleep included, on Linux; elsewhere from
/// the moment that it was made.
#[derive(Debug)]
pub struct SystemClock {
    begun: Instant,
    /// The name that the machine has given to its start.
    boot: Option<String>,
}

impl SystemClock {
    /// The machine's clock.
    pub fn new() -> Self {
        Self { begun: Instant::now(), boot: boot_name() }
    }

    /// The same, shared.
    pub fn shared() -> SharedClock {
        Arc::new(Self::new())
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn unix_nanos(&self) -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |n| -n),
        }
    }

    fn monotonic(&self) -> Duration {
        since_boot().filter(|_| self.boot.is_some()).unwrap_or_else(|| self.begun.elapsed())
    }

    fn origin(&self) -> Option<&str> {
        self.boot.as_deref()
    }
}

#[cfg(target_os = "linux")]
fn boot_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

#[cfg(target_os = "linux")]
fn since_boot() -> Option<Duration> {
    rustix::time::clock_gettime(rustix::time::ClockId::Boottime).try_into().ok()
}

#[cfg(not(target_os = "linux"))]
fn boot_name() -> Option<String> {
    None
}

#[cfg(not(target_os = "linux"))]
fn since_boot() -> Option<Duration> {
    None
}

/// A clock that moves only when told.
#[derive(Debug, Default)]
pub struct ManualClock {
    unix_nanos: AtomicI64,
    monotonic_nanos: AtomicU64,
    boot: Option<String>,
}

impl ManualClock {
    /// A clock that stands at `start`.
    pub fn at(start: TimestampMs) -> Arc<Self> {
        let clock = Self::default();
        clock.unix_nanos.store(start.0 * 1_000_000, Ordering::SeqCst);
        Arc::new(clock)
    }

    /// The same, of a machine that has given this name to its start.
    pub fn booted(start: TimestampMs, boot: &str) -> Arc<Self> {
        let unix_nanos = AtomicI64::new(start.0 * 1_000_000);
        Arc::new(Self { unix_nanos, monotonic_nanos: AtomicU64::new(0), boot: Some(boot.to_owned()) })
    }

    /// Lets `by` pass on both clocks.
    pub fn advance(&self, by: Duration) {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.monotonic_nanos.fetch_add(nanos, Ordering::SeqCst);
        self.unix_nanos.fetch_add(i64::try_from(nanos).unwrap_or(i64::MAX), Ordering::SeqCst);
    }

    /// Sets the wall clock alone, as an administrator or NTP would.
    pub fn step_to(&self, at: TimestampMs) {
        self.unix_nanos.store(at.0 * 1_000_000, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn unix_nanos(&self) -> i64 {
        self.unix_nanos.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.monotonic_nanos.load(Ordering::SeqCst))
    }

    fn origin(&self) -> Option<&str> {
        self.boot.as_deref()
    }
}
