//! Sources that are watched: each asks, waits for news and asks again, many side by side.
//!
//! All of them run within the provider's own future: what one of them panics of is the provider's panic, and none outlives it.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::{AbortHandle, Abortable, BoxFuture, FutureExt};
use futures::stream::{FuturesUnordered, StreamExt};

/// News that are taken together before they are told.
const TOGETHER_MAX: usize = 1024;

/// Something that is watched.
pub(super) trait Watched: Send + Sized + 'static {
    /// Tells it from others.
    type Key: Ord + Clone + Send;
    /// News of it.
    type Event: Send;

    /// Its key.
    fn key(&self) -> Self::Key;

    /// Waits for news. How long it waits after a failure is its own business.
    fn step(self) -> BoxFuture<'static, (Self, Self::Event)>;
}

type Step<W> = Abortable<BoxFuture<'static, (W, <W as Watched>::Event)>>;

/// Everything that is watched.
pub(super) struct Watching<W: Watched> {
    running: FuturesUnordered<Step<W>>,
    handles: BTreeMap<W::Key, AbortHandle>,
}

impl<W: Watched> Default for Watching<W> {
    fn default() -> Self {
        Self { running: FuturesUnordered::new(), handles: BTreeMap::new() }
    }
}

impl<W: Watched> Watching<W> {
    /// Watches one more; one with the same key is let go.
    pub(super) fn add(&mut self, watched: W) {
        let (handle, registration) = AbortHandle::new_pair();
        if let Some(before) = self.handles.insert(watched.key(), handle) {
            before.abort();
        }
        self.running.push(Abortable::new(watched.step(), registration));
    }

    /// Whether something with this key is watched.
    pub(super) fn contains(&self, key: &W::Key) -> bool {
        self.handles.contains_key(key)
    }

    /// The keys of all.
    pub(super) fn keys(&self) -> Vec<W::Key> {
        self.handles.keys().cloned().collect()
    }

    /// Watches it no longer.
    pub(super) fn remove(&mut self, key: &W::Key) {
        if let Some(handle) = self.handles.remove(key) {
            handle.abort();
        }
    }

    /// Waits for news. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> (W::Key, W::Event) {
        loop {
            match self.running.next().await {
                Some(Ok((watched, event))) => {
                    let key = watched.key();
                    self.add(watched);
                    return (key, event);
                }
                Some(Err(_aborted)) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// All news that are there already, as many as are taken together.
    pub(super) fn ready(&mut self) -> Vec<(W::Key, W::Event)> {
        std::iter::from_fn(|| self.next().now_or_never()).take(TOGETHER_MAX).collect()
    }
}

/// Waiting times after failures: doubled each time.
#[derive(Debug)]
pub(super) struct BackOff {
    next: Duration,
    min: Duration,
    max: Duration,
}

impl BackOff {
    pub(super) fn new(min: Duration, max: Duration) -> Self {
        Self { next: min, min, max }
    }

    /// The wait after one more failure.
    pub(super) fn failed(&mut self) -> Duration {
        let wait = self.next;
        self.next = wait.saturating_mul(2).min(self.max);
        wait
    }

    /// The next failure is a first one again.
    pub(super) fn succeeded(&mut self) {
        self.next = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts up, and waits for ever at 3.
    struct Counter(&'static str, u32);

    impl Watched for Counter {
        type Key = &'static str;
        type Event = u32;

        fn key(&self) -> &'static str {
            self.0
        }

        fn step(self) -> BoxFuture<'static, (Self, u32)> {
            async move {
                if self.1 == 3 {
                    std::future::pending::<()>().await;
                }
                (Self(self.0, self.1 + 1), self.1 + 1)
            }
            .boxed()
        }
    }

    #[tokio::test]
    async fn news_come_from_all_until_they_are_removed() {
        let mut watching = Watching::default();
        watching.add(Counter("a", 0));
        watching.add(Counter("b", 2));
        let mut news = vec![watching.next().await];
        news.extend(watching.ready());
        news.sort_unstable();
        assert_eq!(news, [("a", 1), ("a", 2), ("a", 3), ("b", 3)]);
        watching.add(Counter("a", 1));
        watching.remove(&"b");
        watching.add(Counter("c", 2));
        watching.remove(&"c");
        assert!(watching.contains(&"a") && !watching.contains(&"c"));
        assert_eq!((watching.next().await, watching.next().await), (("a", 2), ("a", 3)));
        assert!(watching.ready().is_empty());
    }

    #[test]
    fn waits_double_up_to_a_limit() {
        let mut back_off = BackOff::new(Duration::from_secs(1), Duration::from_secs(5));
        let waits: Vec<u64> = (0..5).map(|_| back_off.failed().as_secs()).collect();
        back_off.succeeded();
        assert_eq!((waits, back_off.failed().as_secs()), (vec![1, 2, 4, 5, 5], 1));
    }
}
