//! Commit numbers, and which of them readers may see.
//!
//! A commit takes a number when it begins and is *complete* when its last handle is dropped: after all its parts are
//! applied, or when it was given up. Readers see the commits up to the highest number below which all are complete. A
//! commit that is abandoned, or whose shard has crashed, drops its handles as well, so nothing blocks the rest for ever.
//!
//! Invariant that readers and writers rest on: what a shard may forget about commits (see [`Horizon::low_watermark`]) is
//! never needed by a live view or by one that opens later. Views announce a floor *before* they fix their number.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// Number of a commit; 0 is before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId(pub(crate) u64);

impl CommitId {
    /// The number itself.
    pub fn get(self) -> u64 {
        self.0
    }
}

/// Largest commit number; a series packs it beside a sample index. At a million commits a second it lasts for seventy
/// years.
pub(crate) const COMMIT_MAX: u64 = (1 << 51) - 1;

/// Hands out commit numbers and knows which are visible, and which views are open. Shared by all shards.
#[derive(Debug, Default)]
pub struct Horizon {
    /// All commits up to this are complete.
    visible: AtomicU64,
    open: Mutex<OpenCommits>,
    /// Lowest floor of all live views, or `u64::MAX`.
    view_floor: AtomicU64Max,
    /// Sequence number of the oldest live view, or `u64::MAX`.
    oldest_view: AtomicU64Max,
    next_view: AtomicU64,
    views: Mutex<BTreeMap<u64, u64>>,
}

/// An atomic that starts at `u64::MAX`.
#[derive(Debug)]
struct AtomicU64Max(AtomicU64);

impl Default for AtomicU64Max {
    fn default() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }
}

#[derive(Debug, Default)]
struct OpenCommits {
    /// Number of the last commit begun.
    last: u64,
    /// Whether the commits `last - done.len() + 1 ..= last` are complete; the first is not.
    done: VecDeque<bool>,
}

/// A commit in progress. Clones are handles of the same commit; it is complete when the last is dropped.
#[derive(Clone, Debug)]
pub struct Commit {
    inner: Arc<CommitInner>,
}

#[derive(Debug)]
struct CommitInner {
    id: CommitId,
    horizon: Arc<Horizon>,
}

impl Commit {
    /// Begins the next commit.
    pub fn begin(horizon: &Arc<Horizon>) -> Self {
        let mut open = horizon.open.lock();
        open.last += 1;
        assert!(open.last <= COMMIT_MAX, "commit numbers are used up");
        open.done.push_back(false);
        Self { inner: Arc::new(CommitInner { id: CommitId(open.last), horizon: Arc::clone(horizon) }) }
    }

    /// Its number.
    pub fn id(&self) -> CommitId {
        self.inner.id
    }
}

impl Drop for CommitInner {
    fn drop(&mut self) {
        self.horizon.complete(self.id);
    }
}

impl Horizon {
    /// The newest commit that readers see.
    pub fn visible(&self) -> CommitId {
        CommitId(self.visible.load(Ordering::SeqCst))
    }

    /// The newest commit begun.
    pub fn newest(&self) -> CommitId {
        CommitId(self.open.lock().last)
    }

    /// Commits up to this are seen whole by every live view and by every view to come, so that nothing has to be kept
    /// to hide their samples.
    pub fn low_watermark(&self) -> CommitId {
        // This order matters: a view that announces its floor after the second load fixes its number after it too, and
        // so not below what the first load found.
        let visible = self.visible.load(Ordering::SeqCst);
        let floor = self.view_floor.0.load(Ordering::SeqCst);
        CommitId(visible.min(floor))
    }

    /// Live views.
    pub fn view_count(&self) -> usize {
        self.views.lock().len()
    }

    /// A stamp that is older than every view which opens from now on.
    pub(crate) fn stamp(&self) -> u64 {
        self.next_view.load(Ordering::SeqCst)
    }

    /// True if no view is live that was opened before `stamp` was taken.
    pub(crate) fn has_passed(&self, stamp: u64) -> bool {
        stamp <= self.oldest_view.0.load(Ordering::SeqCst)
    }

    fn complete(&self, id: CommitId) {
        let mut open = self.open.lock();
        let first = open.last + 1 - open.done.len() as u64;
        let index = usize::try_from(id.0 - first).expect("open commits fit in memory");
        if let Some(done) = open.done.get_mut(index) {
            *done = true;
        }
        while open.done.front() == Some(&true) {
            open.done.pop_front();
        }
        self.visible.store(open.last - open.done.len() as u64, Ordering::SeqCst);
    }
}

/// Keeps a view registered; its number is what the view sees.
#[derive(Debug)]
pub struct ViewPin {
    horizon: Arc<Horizon>,
    sequence: u64,
    commit: CommitId,
}

impl ViewPin {
    /// Registers a view of everything visible now.
    pub fn open(horizon: &Arc<Horizon>) -> Self {
        let mut views = horizon.views.lock();
        let sequence = horizon.next_view.fetch_add(1, Ordering::SeqCst);
        let floor = horizon.visible.load(Ordering::SeqCst);
        views.insert(sequence, floor);
        horizon.publish(&views);
        drop(views);
        let commit = horizon.visible();
        Self { horizon: Arc::clone(horizon), sequence, commit }
    }

    /// The newest commit that the view sees.
    pub fn commit(&self) -> CommitId {
        self.commit
    }
}

impl Drop for ViewPin {
    fn drop(&mut self) {
        let mut views = self.horizon.views.lock();
        views.remove(&self.sequence);
        self.horizon.publish(&views);
    }
}

impl Horizon {
    fn publish(&self, views: &BTreeMap<u64, u64>) {
        // Floors rise with the sequence, as both are taken under the lock.
        let (oldest, floor) = views.first_key_value().map_or((u64::MAX, u64::MAX), |(s, f)| (*s, *f));
        self.oldest_view.0.store(oldest, Ordering::SeqCst);
        self.view_floor.0.store(floor, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_become_visible_in_order_and_when_given_up() {
        let horizon = Arc::new(Horizon::default());
        let (first, second, third) = (Commit::begin(&horizon), Commit::begin(&horizon), Commit::begin(&horizon));
        let part = second.clone();
        drop(third);
        drop(second);
        assert_eq!(horizon.visible(), CommitId(0));
        drop(first);
        assert_eq!(horizon.visible(), CommitId(1));
        drop(part);
        assert_eq!(horizon.visible(), CommitId(3));
        assert_eq!((horizon.newest(), Commit::begin(&horizon).id()), (CommitId(3), CommitId(4)));
        assert_eq!(horizon.visible(), CommitId(4));
    }

    #[test]
    fn a_live_view_holds_the_low_watermark() {
        let horizon = Arc::new(Horizon::default());
        drop(Commit::begin(&horizon));
        let old = ViewPin::open(&horizon);
        let stamp = horizon.stamp();
        drop(Commit::begin(&horizon));
        let new = ViewPin::open(&horizon);
        assert_eq!((old.commit(), new.commit()), (CommitId(1), CommitId(2)));
        assert_eq!(horizon.low_watermark(), CommitId(1));
        assert!(!horizon.has_passed(stamp));
        drop(old);
        assert_eq!(horizon.low_watermark(), CommitId(2));
        assert!(horizon.has_passed(stamp));
        drop(new);
        drop(Commit::begin(&horizon));
        assert_eq!((horizon.low_watermark(), horizon.view_count()), (CommitId(3), 0));
    }
}
