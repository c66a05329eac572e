//! Memory that queries hold: one account per query under one for all, each with its limit.
//!
//! Data flow: the gateway owns a [`MemoryPool`] → each query opens a [`QueryLedger`] → operators take [`Charge`]s for
//! what they are about to hold and give them back by dropping them.
//! Invariant: the pool's account is the sum of the ledgers', and a ledger's is the sum of its live charges.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Flag that sets what one query may hold.
pub const QUERY_LIMIT_FLAG: &str = "--watchfire.limit.query.memory";
/// Flag that sets what all queries together may hold.
pub const TOTAL_LIMIT_FLAG: &str = "--watchfire.limit.query.memory-total";

/// A limit that a query has reached. The API answers with the text and status 422.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverBudget {
    /// The query alone holds too much.
    #[error("the query needs more than {limit} bytes of memory, the limit of one query ({QUERY_LIMIT_FLAG})")]
    Query {
        /// The limit in bytes.
        limit: usize,
    },
    /// All queries together hold too much.
    #[error("all running queries need more than {limit} bytes of memory, their common limit ({TOTAL_LIMIT_FLAG})")]
    Total {
        /// The limit in bytes.
        limit: usize,
    },
}

/// What all queries may hold together. A limit of 0 means none.
#[derive(Debug)]
pub struct MemoryPool {
    limit: usize,
    used: AtomicUsize,
}

impl MemoryPool {
    /// A pool of `limit` bytes; 0 for no limit.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0) })
    }

    /// Bytes that live queries hold.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// The account of one query. A limit of 0 means none.
#[derive(Debug)]
pub struct QueryLedger {
    pool: Arc<MemoryPool>,
    limit: usize,
    used: AtomicUsize,
    peak: AtomicUsize,
    spare: Mutex<Option<Weak<dyn Spare>>>,
}

/// What a query holds only to be quicker.
pub(crate) trait Spare: std::fmt::Debug + Send + Sync {
    /// Lets go of it, as much as can be at once; true if there was something.
    fn let_go(&self) -> bool;
}

impl QueryLedger {
    /// An account of `limit` bytes under `pool`; 0 for no limit of its own.
    pub fn open(pool: &Arc<MemoryPool>, limit: usize) -> Arc<Self> {
        let (used, peak) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { pool: Arc::clone(pool), limit, used, peak, spare: Mutex::new(None) })
    }

    /// An account without limits, for tests and tools.
    pub fn unlimited() -> Arc<Self> {
        Self::open(&MemoryPool::new(0), 0)
    }

    /// Bytes held now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Most bytes held at once.
    pub fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    /// Takes `bytes` for as long as the returned charge lives.
    pub fn charge(self: &Arc<Self>, bytes: usize) -> Result<Charge, OverBudget> {
        let mut charge = Charge { ledger: Arc::clone(self), bytes: 0, ahead: 0 };
        charge.grow(bytes)?;
        Ok(charge)
    }

    /// As [`Self::charge`], for what the query can do without: nothing else has to go for it.
    pub(crate) fn charge_spare(self: &Arc<Self>, bytes: usize) -> Option<Charge> {
        self.take_free(bytes).ok()?;
        Some(Charge { ledger: Arc::clone(self), bytes, ahead: 0 })
    }

    /// Names what may go when a limit is reached, in place of what was named before.
    pub(crate) fn offer(&self, spare: &Arc<dyn Spare>) {
        *self.spare.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::downgrade(spare));
    }

    fn take(&self, bytes: usize) -> Result<(), OverBudget> {
        self.take_free(bytes).or_else(|over| if self.let_go() { self.take_free(bytes) } else { Err(over) })
    }

    #[cold]
    fn let_go(&self) -> bool {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).as_ref().and_then(Weak::upgrade);
        spare.is_some_and(|spare| spare.let_go())
    }

    fn take_free(&self, bytes: usize) -> Result<(), OverBudget> {
        let used = add_below(&self.used, bytes, self.limit).ok_or(OverBudget::Query { limit: self.limit })?;
        if add_below(&self.pool.used, bytes, self.pool.limit).is_none() {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
            return Err(OverBudget::Total { limit: self.pool.limit });
        }
        self.peak.fetch_max(used, Ordering::Relaxed);
        Ok(())
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        self.pool.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Adds `bytes` if the sum stays within `limit` (0: no limit); the sum, or `None` if nothing was added.
fn add_below(account: &AtomicUsize, bytes: usize, limit: usize) -> Option<usize> {
    let grown = |used: usize| used.checked_add(bytes).filter(|sum| limit == 0 || *sum <= limit);
    let before = account.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).ok()?;
    before.checked_add(bytes)
}

/// What an allocation of `bytes` takes of the allocator, whose sizes lie a quarter of a power of two apart.
pub(crate) fn allocated(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        1..=128 => bytes.next_multiple_of(16),
        _ => bytes.checked_next_multiple_of((1 << (bytes - 1).ilog2()) / 4).unwrap_or(bytes),
    }
}

/// What a reference-counted slice of `bytes` takes.
pub(crate) fn shared(bytes: usize) -> usize {
    allocated(bytes.saturating_add(2 * size_of::<usize>()))
}

/// What an entry of `bytes` takes in a list that grows as it fills: by doubling, with the old list beside the new one.
pub(crate) const fn list_entry(bytes: usize) -> usize {
    3 * bytes
}

/// What an entry of `bytes` takes in a hash table that grows as it fills.
pub(crate) const fn table_entry(bytes: usize) -> usize {
    (bytes + 1) * 7 / 2
}

/// Bytes that are held until this is dropped.
#[derive(Debug)]
pub struct Charge {
    ledger: Arc<QueryLedger>,
    bytes: usize,
    /// Bytes that were taken for what is still to come.
    ahead: usize,
}

/// Bytes that [`Charge::grow_ahead`] takes for what is still to come.
const AHEAD: usize = 16 << 10;

impl Charge {
    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes `bytes` more.
    pub fn grow(&mut self, bytes: usize) -> Result<(), OverBudget> {
        self.ledger.take(bytes)?;
        self.bytes += bytes;
        Ok(())
    }

    /// As [`Self::grow`], for what grows in many small steps: where the limits allow it more is taken than is asked for, so
    /// that the accounts, which threads share, are seldom touched.
    pub fn grow_ahead(&mut self, bytes: usize) -> Result<(), OverBudget> {
        if let Some(left) = self.ahead.checked_sub(bytes) {
            self.ahead = left;
            self.bytes += bytes;
            return Ok(());
        }
        if bytes < AHEAD && self.ledger.take_free(AHEAD).is_ok() {
            self.ahead += AHEAD - bytes;
            self.bytes += bytes;
            return Ok(());
        }
        self.grow(bytes)
    }

    /// Gives back what was taken ahead.
    pub fn trim(&mut self) {
        self.ledger.give_back(std::mem::take(&mut self.ahead));
    }

    /// Holds from now on what `other` holds.
    pub fn absorb(&mut self, mut other: Self) {
        debug_assert!(Arc::ptr_eq(&self.ledger, &other.ledger), "charges of two queries");
        self.bytes += std::mem::take(&mut other.bytes);
        self.ahead += std::mem::take(&mut other.ahead);
    }

    /// Gives `bytes` back, at most what is held.
    pub fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.ledger.give_back(bytes);
        self.bytes -= bytes;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.ledger.give_back(self.bytes + self.ahead);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charges_come_back_on_drop() {
        let pool = MemoryPool::new(1000);
        let ledger = QueryLedger::open(&pool, 600);
        let mut charge = ledger.charge(500).unwrap();
        assert_eq!(charge.grow(101).unwrap_err(), OverBudget::Query { limit: 600 });
        let other = QueryLedger::open(&pool, 0);
        assert_eq!(other.charge(501).unwrap_err(), OverBudget::Total { limit: 1000 });
        assert_eq!((ledger.used(), other.used(), pool.used()), (500, 0, 500));
        charge.shrink(200);
        assert_eq!(pool.used(), 300);
        drop(charge);
        assert_eq!((ledger.used(), ledger.peak(), pool.used()), (0, 500, 0));
    }

    #[test]
    fn what_is_taken_ahead_refuses_nothing_and_comes_back() {
        let pool = MemoryPool::new(0);
        let ledger = QueryLedger::open(&pool, AHEAD + 10);
        let (mut charge, mut other) = (ledger.charge(0).unwrap(), ledger.charge(0).unwrap());
        charge.grow_ahead(1).unwrap();
        charge.grow_ahead(2).unwrap();
        assert_eq!((charge.bytes(), ledger.used()), (3, AHEAD));
        other.grow_ahead(10).unwrap();
        assert_eq!(other.grow_ahead(1).unwrap_err(), OverBudget::Query { limit: AHEAD + 10 });
        charge.absorb(other);
        assert_eq!((charge.bytes(), ledger.used()), (13, AHEAD + 10));
        charge.trim();
        assert_eq!((charge.bytes(), ledger.used()), (13, 13));
        drop(charge);
        assert_eq!((ledger.used(), pool.used()), (0, 0));
    }

    #[derive(Debug)]
    struct Held(Mutex<Option<Charge>>);

    impl Spare for Held {
        fn let_go(&self) -> bool {
            self.0.lock().unwrap().take().is_some()
        }
    }

    #[test]
    fn what_is_spare_goes_before_anything_is_refused() {
        let ledger = QueryLedger::open(&MemoryPool::new(0), 100);
        let spare = Arc::new(Held(Mutex::new(ledger.charge_spare(60))));
        ledger.offer(&(Arc::clone(&spare) as _));
        assert!(ledger.charge_spare(50).is_none());
        let charge = ledger.charge(50).unwrap();
        assert_eq!(ledger.used(), 50);
        assert!(spare.0.lock().unwrap().is_none());
        assert_eq!(ledger.charge(51).unwrap_err(), OverBudget::Query { limit: 100 });
        drop(charge);
    }

    #[test]
    fn texts_name_limit_and_flag() {
        let text = OverBudget::Query { limit: 7 }.to_string();
        assert!(text.contains("7 bytes") && text.contains("--watchfire.limit.query.memory"), "{text}");
        assert!(OverBudget::Total { limit: 7 }.to_string().contains("--watchfire.limit.query.memory-total"));
    }

    #[test]
    fn sizes_are_those_of_the_allocator() {
        let sizes = [0, 1, 16, 17, 128, 129, 160, 161, 256, 257, 320, 4097, usize::MAX];
        let taken = [0, 16, 16, 32, 128, 160, 160, 192, 256, 320, 320, 5120, usize::MAX];
        assert_eq!(sizes.map(allocated), taken);
    }

    #[test]
    fn a_sum_that_overflows_is_refused() {
        let ledger = QueryLedger::unlimited();
        let _held = ledger.charge(10).unwrap();
        assert!(ledger.charge(usize::MAX).is_err());
    }
}
