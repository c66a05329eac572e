//! What the expressions of one query take together: a query can hold many, each of them large.

use std::cell::RefCell;
use std::rc::Rc;

/// What the tree of an expression and its lists take for each byte of the pattern, at most.
const TREE_LEN_PER_BYTE: usize = 384;
/// What a program that is made when it is needed takes for each byte of the pattern, about.
pub(super) const PROGRAM_LEN_PER_BYTE: usize = 64;

/// What a program takes beside its states, as measured at the allocator.
pub(super) const PROGRAM_LEN_BASE: usize = 28 << 10;

/// An account of bytes: false if so many more are too many.
pub type Account = Rc<dyn Fn(usize) -> bool>;

thread_local! {
    /// What the expressions that this thread compiles are charged to, if anything.
    static ACCOUNT: RefCell<Option<Account>> = const { RefCell::new(None) };
}

/// Runs `work`, whose expressions are charged to the account; those that it refuses are too large.
pub fn within<T>(account: Account, work: impl FnOnce() -> T) -> T {
    /// Also when `work` panics: the thread is used again.
    struct Restore(Option<Account>);
    impl Drop for Restore {
        fn drop(&mut self) {
            ACCOUNT.set(self.0.take());
        }
    }
    let _restore = Restore(ACCOUNT.replace(Some(account)));
    work()
}

/// Charges `bytes`; false if that is too much.
pub(super) fn spend(bytes: usize) -> bool {
    let account = ACCOUNT.with_borrow(Clone::clone);
    account.is_none_or(|account| account(bytes))
}

/// Charges what reading a pattern takes.
pub(super) fn spend_tree(pattern: &str) -> bool {
    spend(pattern.len().saturating_mul(TREE_LEN_PER_BYTE))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::super::Regexp;
    use super::*;

    fn account(bytes: usize) -> (Account, Rc<Cell<usize>>) {
        let left = Rc::new(Cell::new(bytes));
        let its = Rc::clone(&left);
        let take = move |bytes: usize| its.get().checked_sub(bytes).map(|left| its.set(left)).is_some();
        (Rc::new(take), left)
    }

    #[test]
    fn expressions_beyond_the_budget_are_refused() {
        let large = "(a|bc*){50}[^x]+";
        let (plenty, left) = account(10 << 20);
        assert!(within(plenty, || Regexp::anchored(large).is_ok()));
        let took = (10 << 20) - left.get();
        assert!(1000 < took, "{took}");
        let made = within(account(took * 3).0, || (0..5).filter(|_| Regexp::anchored(large).is_ok()).count());
        assert_eq!(made, 3);
        let error = within(account(100).0, || Regexp::anchored(large).unwrap_err().to_string());
        assert_eq!(error, format!("error parsing regexp: expression too large: `{large}`"));
        assert!(Regexp::anchored(large).is_ok(), "the account is closed");
    }
}
