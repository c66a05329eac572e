//! A parent's table of children. It stands in the parent's `deps`, so a restarted parent adopts its children: it neither
//! orphans nor doubles them.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::actors::control::Drain;
use crate::actors::drain::{self, Unfinished};
use crate::actors::mailbox::BoundedAddr;
use crate::actors::registry::ActorState;
use crate::actors::supervision::SupervisedActor;

/// Children by key. Its lock is held while a child is spawned, never while one is waited for.
pub struct Children<K, A: SupervisedActor> {
    table: Mutex<BTreeMap<K, BoundedAddr<A>>>,
}

impl<K, A: SupervisedActor> Default for Children<K, A> {
    fn default() -> Self {
        Self { table: Mutex::default() }
    }
}

impl<K: Ord + Clone, A: SupervisedActor> Children<K, A> {
    /// The child with this key, unless it has ended.
    pub fn get(&self, key: &K) -> Option<BoundedAddr<A>> {
        self.table.lock().get(key).filter(|child| lives(child)).cloned()
    }

    /// The child with this key: the living one, else a new one. `spawn` must not use this table.
    pub fn adopt_or_spawn(&self, key: K, spawn: impl FnOnce(&K) -> BoundedAddr<A>) -> BoundedAddr<A> {
        let mut table = self.table.lock();
        if let Some(child) = table.get(&key).filter(|child| lives(child)) {
            return child.clone();
        }
        let child = spawn(&key);
        table.insert(key, child.clone());
        child
    }

    /// All living children, by ascending key.
    pub fn list(&self) -> Vec<(K, BoundedAddr<A>)> {
        let table = self.table.lock();
        table.iter().filter(|(_, child)| lives(child)).map(|(key, child)| (key.clone(), child.clone())).collect()
    }

    /// The children that have failed and rest, for the parent that was told `ChildFailed`.
    pub fn failed(&self) -> Vec<(K, BoundedAddr<A>)> {
        let mut failed = self.list();
        failed.retain(|(_, child)| child.entry().state() == ActorState::Failed);
        failed
    }

    /// Takes the children out that are no longer wanted, and those that have ended; returns the former, still running, for
    /// the parent to drain.
    #[must_use = "a child that is dropped undrained loses its work"]
    pub fn take_unwanted(&self, wanted: impl Fn(&K) -> bool) -> Vec<(K, BoundedAddr<A>)> {
        let mut table = self.table.lock();
        table.retain(|_, child| lives(child));
        table.extract_if(.., |key, _| !wanted(key)).collect()
    }

    /// Tells all children to end and waits until they have, or until the deadline; returns those that have not.
    pub async fn drain_all(&self, deadline: Instant) -> Vec<Unfinished> {
        let children = self.list();
        for (_, child) in &children {
            // One that has ended meanwhile needs no telling.
            let _ = child.signal(Drain { deadline });
        }
        drain::wait_all(children.iter().map(|(_, child)| child.entry()), deadline).await
    }
}

fn lives<A: SupervisedActor>(child: &BoundedAddr<A>) -> bool {
    child.entry().state() != ActorState::Ended
}
