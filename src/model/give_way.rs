//! Long computations let others through. A thread that wakes up while all cores compute gets one at the system's next tick, four
//! milliseconds away at worst, even if it is owed more time than those that run. Where these ask the system now and then whether
//! somebody waits, it gets one at once (`docs/adr/0011-queries-stand-back.md`).

use std::cell::Cell;
use std::time::{Duration, Instant};

/// How long a thread computes until it asks: a call of the system takes a thousandth of it.
const EVERY: Duration = Duration::from_micros(100);

thread_local! {
    static ASKED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Lets other threads have this core, if any waits for one and this one has computed for a while. To be called more often than that.
/// Not while a lock is held that others need soon.
pub fn give_way() {
    let now = Instant::now();
    if ASKED.get().is_none_or(|asked| EVERY <= now.saturating_duration_since(asked)) {
        std::thread::yield_now();
        ASKED.set(Some(Instant::now()));
    }
}
