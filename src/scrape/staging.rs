//! Memory for scrapes in flight: one budget for the process, drawn in pieces, given back when the permit is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::scrape::error::ScrapeError;

/// What a permit draws at a time, so that the shared counter is touched rarely.
const STEP_BYTES: u64 = 64 << 10;

/// `scrape.staged-total`: bytes that all scrapes between fetch and storage's answer may hold.
#[derive(Debug)]
pub struct StagingBudget {
    bytes_max: u64,
    used: AtomicU64,
}

impl StagingBudget {
    /// A budget of `bytes_max`; 0 for no limit.
    pub fn new(bytes_max: u64) -> Arc<Self> {
        Arc::new(Self { bytes_max, used: AtomicU64::new(0) })
    }

    /// The default budget for a process that may use `memory_bytes`.
    pub fn for_memory(memory_bytes: u64) -> Arc<Self> {
        Self::new((memory_bytes / 32).max(STEP_BYTES))
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// A permit that holds nothing yet.
    pub fn permit(self: &Arc<Self>) -> StagingPermit {
        StagingPermit { budget: Arc::clone(self), held: 0 }
    }
}

/// The share of one scrape.
#[derive(Debug)]
pub struct StagingPermit {
    budget: Arc<StagingBudget>,
    held: u64,
}

impl StagingPermit {
    /// Makes sure that at least `bytes` are held. Errors when the budget has no room; what was held stays held.
    pub fn cover(&mut self, bytes: u64) -> Result<(), ScrapeError> {
        let Some(missing) = bytes.checked_sub(self.held).filter(|missing| 0 < *missing) else { return Ok(()) };
        let draw = missing.next_multiple_of(STEP_BYTES);
        let limit = self.budget.bytes_max;
        let take = |used: u64| used.checked_add(draw).filter(|total| limit == 0 || *total <= limit);
        match self.budget.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => {
                self.held += draw;
                Ok(())
            }
            Err(_) => Err(ScrapeError::StagingFull { limit }),
        }
    }
}

impl Drop for StagingPermit {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.held, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_share_one_budget_and_give_it_back() {
        let budget = StagingBudget::new(3 * STEP_BYTES);
        let mut first = budget.permit();
        first.cover(STEP_BYTES + 1).unwrap();
        first.cover(10).unwrap();
        assert_eq!(budget.used(), 2 * STEP_BYTES);
        let mut second = budget.permit();
        second.cover(1).unwrap();
        assert_eq!(second.cover(STEP_BYTES + 1), Err(ScrapeError::StagingFull { limit: 3 * STEP_BYTES }));
        drop(first);
        second.cover(STEP_BYTES + 1).unwrap();
        drop(second);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn no_limit_takes_everything() {
        let budget = StagingBudget::new(0);
        let mut permit = budget.permit();
        permit.cover(1 << 50).unwrap();
    }
}
