//! The file of `--web.config.file` as it stands now: looked at once a second while requests come, read again when it has
//! changed, so that users and certificates can be replaced without a reload. A file that stops parsing refuses
//! all requests until it is mended, as in Prometheus.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::config::web::WebConfig;
use crate::model::clock::SharedClock;

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Tells a file from a later one of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    len: u64,
    modified_nanos: i128,
    changed_nanos: i128,
}

impl Stamp {
    /// The stamp of a file; `None` if there is none.
    pub(super) fn of(path: &str) -> Option<Self> {
        std::fs::metadata(path).ok().as_ref().map(Self::from)
    }
}

impl From<&Metadata> for Stamp {
    fn from(file: &Metadata) -> Self {
        let nanos = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        Self {
            inode: file.ino(),
            len: file.len(),
            modified_nanos: nanos(file.mtime(), file.mtime_nsec()),
            changed_nanos: nanos(file.ctime(), file.ctime_nsec()),
        }
    }
}

/// Lets one caller through each [`LOOK_EVERY`].
pub(super) struct Looks {
    clock: SharedClock,
    /// Monotonic milliseconds.
    next_ms: AtomicU64,
}

impl Looks {
    pub(super) fn new(clock: SharedClock) -> Self {
        let looks = Self { clock, next_ms: AtomicU64::new(0) };
        looks.is_due();
        looks
    }

    /// True if it is time to look, for one of those that ask.
    pub(super) fn is_due(&self) -> bool {
        let now = u64::try_from(self.clock.monotonic().as_millis()).unwrap_or(u64::MAX);
        let next = self.next_ms.load(Ordering::Relaxed);
        let after = now.saturating_add(LOOK_EVERY.as_millis() as u64);
        next <= now && self.next_ms.compare_exchange(next, after, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

struct Seen {
    stamp: Option<Stamp>,
    config: Result<Arc<WebConfig>, String>,
}

/// See the module's text.
pub(super) struct WebFile {
    path: String,
    looks: Looks,
    seen: ArcSwap<Seen>,
}

impl WebFile {
    /// Reads the file for the first time; errors if it is no good.
    pub(super) fn open(path: &str, clock: SharedClock) -> Result<Self, String> {
        let stamp = Stamp::of(path);
        let config = Arc::new(WebConfig::load(path)?);
        let seen = ArcSwap::from_pointee(Seen { stamp, config: Ok(config) });
        Ok(Self { path: path.to_owned(), looks: Looks::new(clock), seen })
    }

    /// What the file says; the error is why it cannot be used.
    pub(super) fn current(&self) -> Result<Arc<WebConfig>, String> {
        if self.looks.is_due() {
            self.look();
        }
        self.seen.load().config.clone()
    }

    fn look(&self) {
        let stamp = Stamp::of(&self.path);
        if stamp == self.seen.load().stamp {
            return;
        }
        // One look a second at a small file; the thread is not held up for long.
        let config = WebConfig::load(&self.path).map(Arc::new);
        match &config {
            Ok(_) => tracing::info!(component = "web", file = self.path, "Web configuration has changed"),
            Err(err) => tracing::error!(component = "web", err, "Unable to parse configuration"),
        }
        self.seen.store(Arc::new(Seen { stamp, config }));
    }
}
