//! Absolute due times, of scrapes and of rule groups.

use std::time::Duration;

/// A due time and what was missed before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Nanoseconds since the epoch; may have passed.
    pub at_nanos: i64,
    /// Due times that passed without being taken, between the previous one and this.
    pub missed: u64,
}

impl Due {
    /// How long to wait from `now_nanos`; nothing when it is due already.
    pub fn wait(self, now_nanos: i64) -> Duration {
        Duration::from_nanos(u64::try_from(self.at_nanos.saturating_sub(now_nanos)).unwrap_or(0))
    }
}
