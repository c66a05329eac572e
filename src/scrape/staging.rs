//! Memory for scrapes in flight: one budget for the process, drawn in pieces, given back when the permit is dropped.
//!
//! Invariant: whatever a few large scrapes hold, small ones find room. The last eighth of the budget is for scrapes that hold
//! little; of the rest, a scrape may hold at most four times what it leaves free. So one alone may take most of it, and many
//! large ones share it: the one that grows beyond its share fails, and nobody else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::scrape::error::ScrapeError;

/// What a permit draws at a time at most, so that the shared counter is touched rarely.
const STEP_BYTES: u64 = 64 << 10;
/// What it draws first; each draw doubles what it holds until it is at the most.
const FIRST_STEP_BYTES: u64 = 4 << 10;
/// A scrape that holds no more than this may draw on all of the budget.
const SMALL_BYTES: u64 = 256 << 10;
/// How often a scrape may hold what it leaves free.
const FREE_TIMES: u64 = 4;

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

    /// Whether a permit that would hold `holding` may have it when all together would hold `total`.
    fn admits(&self, holding: u64, total: u64) -> bool {
        if self.bytes_max == 0 || holding <= SMALL_BYTES {
            return self.bytes_max == 0 || total <= self.bytes_max;
        }
        let common = self.bytes_max - self.bytes_max / 8;
        common.checked_sub(total).is_some_and(|free| holding / FREE_TIMES <= free)
    }
}

/// The share of one scrape.
#[derive(Debug)]
pub struct StagingPermit {
    budget: Arc<StagingBudget>,
    held: u64,
}

impl StagingPermit {
    /// Makes sure that at least `bytes` are held. Errors when the budget has no room, or the scrape more than its share of
    /// it; what was held stays held.
    pub fn cover(&mut self, bytes: u64) -> Result<(), ScrapeError> {
        let Some(missing) = bytes.checked_sub(self.held).filter(|missing| 0 < *missing) else { return Ok(()) };
        let draw = missing.next_multiple_of(self.held.clamp(FIRST_STEP_BYTES, STEP_BYTES));
        let (budget, holding) = (&self.budget, self.held + draw);
        let take = |used: u64| used.checked_add(draw).filter(|total| budget.admits(holding, *total));
        match budget.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => {
                self.held = holding;
                Ok(())
            }
            Err(_) if holding <= SMALL_BYTES => Err(ScrapeError::StagingFull { limit: budget.bytes_max }),
            Err(_) => Err(ScrapeError::StagingShare { needed: holding, limit: budget.bytes_max }),
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

    const MIB: u64 = 1 << 20;

    #[test]
    fn permits_share_one_budget_and_give_it_back() {
        let budget = StagingBudget::new(3 * STEP_BYTES);
        let mut first = budget.permit();
        first.cover(STEP_BYTES + 1).unwrap();
        first.cover(10).unwrap();
        assert_eq!(budget.used(), STEP_BYTES + FIRST_STEP_BYTES);
        let mut second = budget.permit();
        second.cover(1).unwrap();
        assert_eq!(second.cover(2 * STEP_BYTES), Err(ScrapeError::StagingFull { limit: 3 * STEP_BYTES }));
        drop(first);
        second.cover(2 * STEP_BYTES).unwrap();
        drop(second);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn no_limit_takes_everything() {
        let budget = StagingBudget::new(0);
        let mut permit = budget.permit();
        permit.cover(1 << 50).unwrap();
    }

    #[test]
    fn one_alone_may_take_most_of_it() {
        let budget = StagingBudget::new(32 * MIB);
        let mut permit = budget.permit();
        permit.cover(22 * MIB).unwrap();
        let error = permit.cover(23 * MIB).unwrap_err();
        assert_eq!(error, ScrapeError::StagingShare { needed: 23 * MIB, limit: 32 * MIB });
    }

    #[test]
    fn many_large_ones_share_it_and_small_ones_find_room() {
        let budget = StagingBudget::new(32 * MIB);
        let mut large: Vec<_> = (0..100).map(|_| budget.permit()).collect();
        for bytes in (0..64 * MIB).step_by(STEP_BYTES as usize) {
            // Those over their share would fail; here they stay and hold what they have.
            large.iter_mut().for_each(|permit| drop(permit.cover(bytes)));
        }
        let small: Vec<_> = (0..60).map(|_| budget.permit()).map(|mut permit| permit.cover(STEP_BYTES)).collect();
        assert_eq!(small, vec![Ok(()); 60]);
    }
}
