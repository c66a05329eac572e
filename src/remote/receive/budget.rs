//! Memory for requests in flight: one budget for the process, drawn in pieces, given back when the permit is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a permit draws at a time, so that the shared counter is touched rarely.
const STEP_BYTES: u64 = 64 << 10;

/// Why a request gets no more memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// Others have it.
    #[error("requests in flight hold all of --watchfire.limit.remote-write ({limit} bytes)")]
    Now {
        /// The budget.
        limit: u64,
    },
    /// The request alone needs more than there is.
    #[error("the request needs more than --watchfire.limit.remote-write ({limit} bytes)")]
    Ever {
        /// The budget.
        limit: u64,
    },
}

/// Bytes that all requests may hold between their first byte and their answer.
#[derive(Debug)]
pub struct Budget {
    bytes_max: u64,
    used: AtomicU64,
}

impl Budget {
    /// A budget of `bytes_max`; 0 for no limit.
    pub fn new(bytes_max: u64) -> Arc<Self> {
        Arc::new(Self { bytes_max, used: AtomicU64::new(0) })
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// A permit that holds nothing yet.
    pub fn permit(self: &Arc<Self>) -> Held {
        Held { budget: Arc::clone(self), bytes: 0, wanted: 0 }
    }
}

/// The share of one request.
#[derive(Debug)]
pub struct Held {
    budget: Arc<Budget>,
    bytes: u64,
    /// What was asked for; the rest of `bytes` is ahead of its use.
    wanted: u64,
}

impl Held {
    /// Takes `bytes` more. Errors when the budget has no room; what was held stays held.
    #[inline]
    pub fn add(&mut self, bytes: u64) -> Result<(), NoRoom> {
        self.wanted = self.wanted.saturating_add(bytes);
        match self.wanted.checked_sub(self.bytes) {
            Some(missing) if 0 < missing => self.draw(missing),
            _ => Ok(()),
        }
    }

    fn draw(&mut self, missing: u64) -> Result<(), NoRoom> {
        let draw = missing.checked_next_multiple_of(STEP_BYTES).unwrap_or(missing);
        let limit = self.budget.bytes_max;
        if 0 < limit && limit < self.bytes.saturating_add(missing) {
            return Err(NoRoom::Ever { limit });
        }
        let take = |used: u64| used.checked_add(draw).filter(|total| limit == 0 || *total <= limit);
        match self.budget.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => {
                self.bytes += draw;
                Ok(())
            }
            Err(_) => Err(NoRoom::Now { limit }),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_share_one_budget_and_give_it_back() {
        let limit = 3 * STEP_BYTES;
        let budget = Budget::new(limit);
        let mut first = budget.permit();
        first.add(STEP_BYTES).unwrap();
        first.add(10).unwrap();
        assert_eq!(budget.used(), 2 * STEP_BYTES);
        let mut second = budget.permit();
        second.add(1).unwrap();
        assert_eq!(second.add(STEP_BYTES), Err(NoRoom::Now { limit }));
        assert_eq!(budget.permit().add(limit + 1), Err(NoRoom::Ever { limit }));
        drop(first);
        second.add(0).unwrap();
        drop(second);
        assert_eq!(budget.used(), 0);
        Budget::new(0).permit().add(1 << 50).unwrap();
    }
}
