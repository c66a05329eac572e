//! What each thread works on now: which actor, and which message of it. Read by the panic hook, by the heartbeat's log
//! line and by the assertion on ranks.

#[cfg(debug_assertions)]
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

#[cfg(debug_assertions)]
use crate::actors::kind::Rank;
use crate::actors::registry::Entry;

/// An actor and what it does, as another thread may read it.
#[derive(Clone)]
pub(super) struct Activity {
    pub(super) actor: Arc<Entry>,
    pub(super) message: &'static str,
}

/// What other threads may know of a thread. Its locks are held for a few instructions only.
#[derive(Default)]
pub(super) struct ThreadState {
    activity: Mutex<Option<Activity>>,
    /// Monotonic milliseconds of the last heartbeat, or [`AT_REST`].
    beat_ms: AtomicU64,
}

/// In place of a time: the thread has nothing to do.
const AT_REST: u64 = u64::MAX;

impl ThreadState {
    pub(super) fn activity(&self) -> Option<Activity> {
        self.activity.lock().clone()
    }

    /// When it beat last; `None` while it has nothing to do.
    pub(super) fn beat_ms(&self) -> Option<u64> {
        Some(self.beat_ms.load(Ordering::Relaxed)).filter(|at| *at != AT_REST)
    }

    pub(super) fn beat(&self, now_ms: u64) {
        self.beat_ms.store(now_ms, Ordering::Relaxed);
    }

    pub(super) fn rest(&self) {
        self.beat_ms.store(AT_REST, Ordering::Relaxed);
    }
}

thread_local! {
    static THREAD: Arc<ThreadState> = Arc::default();
    #[cfg(debug_assertions)]
    static RANK: Cell<Option<Rank>> = const { Cell::new(None) };
}

/// The state of the calling thread.
pub(super) fn thread() -> Arc<ThreadState> {
    THREAD.with(Arc::clone)
}

/// The rank of the actor that the calling thread works on, if any. Debug builds assert with it.
#[cfg(debug_assertions)]
pub(super) fn rank() -> Option<Rank> {
    RANK.with(Cell::get)
}

/// While this lives, the thread works on an actor.
pub(super) struct Scope {
    previous: Option<Activity>,
    #[cfg(debug_assertions)]
    previous_rank: Option<Rank>,
}

/// Notes that the calling thread begins to work on `actor`.
pub(super) fn enter(actor: &Arc<Entry>) -> Scope {
    let activity = Activity { actor: Arc::clone(actor), message: "lifecycle" };
    let previous = THREAD.with(|thread| thread.activity.lock().replace(activity));
    Scope {
        previous,
        #[cfg(debug_assertions)]
        previous_rank: RANK.with(|rank| rank.replace(Some(actor.kind.rank))),
    }
}

/// Notes the message, timer or future that the current actor works on.
pub(super) fn doing(message: &'static str) {
    THREAD.with(|thread| {
        if let Some(activity) = thread.activity.lock().as_mut() {
            activity.message = message;
        }
    });
}

impl Drop for Scope {
    fn drop(&mut self) {
        // A thread that is ending has lost its locals; there is nothing left to restore then.
        let previous = self.previous.take();
        let _ = THREAD.try_with(|thread| *thread.activity.lock() = previous);
        #[cfg(debug_assertions)]
        let _ = RANK.try_with(|rank| rank.set(self.previous_rank));
    }
}

/// Generic arguments that are longer say little: those of futures are pages.
const ARGUMENTS_LEN_MAX: usize = 80;

/// The last part of a type's path, short generic arguments kept: `Append` of `watchfire::actors::shard::Append`.
pub(super) fn short_name(type_name: &str) -> &str {
    let head = type_name.split('<').next().unwrap_or(type_name);
    let start = head.rfind("::").map_or(0, |at| at + 2);
    let end = if type_name.len() - head.len() <= ARGUMENTS_LEN_MAX { type_name.len() } else { head.len() };
    type_name.get(start..end).unwrap_or(type_name)
}

#[cfg(test)]
mod tests {
    use super::short_name;

    #[test]
    fn short_names_drop_the_path_only() {
        assert_eq!(short_name("watchfire::actors::shard::Append"), "Append");
        assert_eq!(short_name("a::b::Control<a::c::Drain>"), "Control<a::c::Drain>");
        assert_eq!(short_name("Tick"), "Tick");
        assert_eq!(short_name(&format!("a::Map<{}>", "b::C, ".repeat(20))), "Map");
    }
}
