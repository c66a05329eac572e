//! How far reading the log back is, for those who wait for it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Segments: the first and the last that are read, and the last that was read to its end. Whoever reads the log says so;
/// anyone may look meanwhile.
#[derive(Debug, Default)]
pub struct ReplayProgress {
    min: AtomicU64,
    max: AtomicU64,
    current: AtomicU64,
    damage: OnceLock<Vec<String>>,
}

impl ReplayProgress {
    /// Reading begins with segment `min`, or with the checkpoint that stands for it, and ends with `max`.
    pub fn begin(&self, min: u64, max: u64) {
        self.min.store(min, Ordering::Relaxed);
        self.current.store(min, Ordering::Relaxed);
        self.max.store(max, Ordering::Relaxed);
    }

    /// All up to `segment` are read.
    pub fn read(&self, segment: u64) {
        self.current.fetch_max(segment, Ordering::Relaxed);
    }

    /// All is read, and this was damaged, one place a line.
    pub fn found(&self, damage: Vec<String>) {
        // A log is opened once.
        let _ = self.damage.set(damage);
    }

    /// What was damaged; nothing before all is read.
    pub fn damage(&self) -> &[String] {
        self.damage.get().map_or(&[], Vec::as_slice)
    }

    /// First, last and current.
    pub fn get(&self) -> (u64, u64, u64) {
        let get = |number: &AtomicU64| number.load(Ordering::Relaxed);
        (get(&self.min), get(&self.max), get(&self.current))
    }
}
