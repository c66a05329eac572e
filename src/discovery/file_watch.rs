//! A thread for each file provider: it scans, is told of changes, and scans again. Scans block as long as the file system
//! does, so a mount that hangs holds up its own provider and nobody else.
//!
//! The folders of the patterns are watched, not the files, so that files which are renamed into place and links which are
//! swapped are seen. Besides, everything is scanned once each refresh interval: not all file systems tell of changes.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, FutureExt};
use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use crate::discovery::file::{FileProvider, LOGGED_AS, ScanOutcome};
use crate::discovery::{Look, Provider};
use crate::telemetry::repeat::{RepeatLimiter, Verdict};

/// Changes come in bunches: the scan waits until there was none for so long.
const QUIET: Duration = Duration::from_millis(50);
/// It does not wait longer than this.
const QUIET_WITHIN: Duration = Duration::from_secs(1);

/// The near end of the thread. Dropping it ends the thread, once the file system lets it.
pub struct FileWatch {
    looks: mpsc::Receiver<Look>,
    wake: SyncSender<()>,
}

impl FileWatch {
    /// Starts the thread. Errors when the system gives none.
    pub fn start(provider: FileProvider, refresh_interval: Duration) -> io::Result<Self> {
        let (wake, woken) = sync_channel(1);
        let (tell, looks) = mpsc::channel(1);
        let changed = wake.clone();
        let work = move || run(provider, refresh_interval, changed, &woken, &tell);
        std::thread::Builder::new().name("discovery-file".to_owned()).spawn(work)?;
        Ok(Self { looks, wake })
    }
}

impl Provider for FileWatch {
    fn next(&mut self) -> BoxFuture<'_, Look> {
        let look = async {
            match self.looks.recv().await {
                Some(look) => look,
                // The thread ends before its near end does by a panic only, which goes on here, where it is supervised.
                None => panic!("the thread that scans files has panicked"),
            }
        };
        look.boxed()
    }
}

impl Drop for FileWatch {
    fn drop(&mut self) {
        self.looks.close();
        // A thread that is woken already needs no waking.
        let _ = self.wake.try_send(());
    }
}

fn run(
    mut provider: FileProvider,
    refresh_interval: Duration,
    changed: SyncSender<()>,
    woken: &Receiver<()>,
    tell: &mpsc::Sender<Look>,
) {
    let mut folders = Folders::new(&provider, changed);
    loop {
        // Watched first, so that no change falls between the scan and the watch.
        folders.watch(&provider);
        let look = look(provider.scan());
        if tell.blocking_send(look).is_err() {
            return;
        }
        match woken.recv_timeout(refresh_interval) {
            Ok(()) => settle(woken),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if tell.is_closed() {
            return;
        }
    }
}

/// Waits until changes have come to an end.
fn settle(woken: &Receiver<()>) {
    let deadline = Instant::now() + QUIET_WITHIN;
    while Instant::now() < deadline && woken.recv_timeout(QUIET).is_ok() {}
}

fn look(outcome: ScanOutcome) -> Look {
    let failure = outcome.failures.first().map(|first| {
        let more = outcome.failures.len() - 1;
        let others = if more == 0 { String::new() } else { format!(" (and {more} more)") };
        format!("{}: {}{others}", first.path, first.error)
    });
    Look { groups: Some(outcome.groups), failure }
}

/// The watched folders.
struct Folders {
    watcher: Option<RecommendedWatcher>,
    repeats: BTreeMap<String, RepeatLimiter>,
}

impl Folders {
    fn new(provider: &FileProvider, changed: SyncSender<()>) -> Self {
        let (component, discovery) = LOGGED_AS;
        let errors = provider.metrics().watcher_errors.clone();
        let on_event = move |event: notify::Result<Event>| match event {
            Ok(event) => {
                if is_change(&event) {
                    // One that waits stands for all.
                    let _ = changed.try_send(());
                }
            }
            Err(_) => errors.inc(),
        };
        let watcher = notify::recommended_watcher(on_event);
        let watcher = watcher.inspect_err(|err| {
            provider.metrics().watcher_errors.inc();
            tracing::error!(component, discovery, %err, "Error adding file watcher; files are read at refreshes only");
        });
        Self { watcher: watcher.ok(), repeats: BTreeMap::new() }
    }

    /// Watches all folders, also those that have been replaced or made since.
    fn watch(&mut self, provider: &FileProvider) {
        let Some(watcher) = &mut self.watcher else { return };
        let (component, discovery) = LOGGED_AS;
        for folder in provider.folders() {
            let repeats = self.repeats.entry(folder.clone()).or_default();
            match watcher.watch(Path::new(&folder), RecursiveMode::NonRecursive) {
                Ok(()) => drop(repeats.succeeded()),
                Err(error) => {
                    provider.metrics().watcher_errors.inc();
                    let (err, now) = (error.to_string(), provider.clock().monotonic());
                    if let Verdict::Log { repeated } = repeats.failed(&err, now) {
                        let path = folder.as_str();
                        tracing::error!(component, discovery, path, err, repeated, "Error adding file watch");
                    }
                }
            }
        }
    }
}

/// Whether something may be read differently now. Our own reading is not, nor is a change of permissions.
fn is_change(event: &Event) -> bool {
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) | EventKind::Modify(ModifyKind::Metadata(_)) => event.need_rescan(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use super::*;
    use crate::config::FilePath;
    use crate::config::discovery::FileSd;
    use crate::discovery::TargetGroup;
    use crate::discovery::file::FileMetrics;
    use crate::model::clock::SystemClock;
    use crate::telemetry::metrics::Registry;

    fn watch(pattern: &Path) -> (FileWatch, Arc<Registry>) {
        let (registry, clock) = (Registry::shared(), SystemClock::shared());
        let files = vec![FilePath::from(pattern.to_str().unwrap())];
        let config = FileSd { files, ..FileSd::default() };
        let provider = FileProvider::new(&config, &FileMetrics::new(&registry, &clock), &clock, &[]);
        (FileWatch::start(provider, Duration::from_secs(3600)).unwrap(), registry)
    }

    /// Looks until one has so many groups.
    async fn reaches(watch: &mut FileWatch, count: usize) -> Vec<TargetGroup> {
        loop {
            let groups = watch.next().await.groups.unwrap();
            if groups.len() == count {
                return groups;
            }
        }
    }

    fn write(path: &PathBuf, content: &str) {
        let beside = path.with_extension("new");
        std::fs::write(&beside, content).unwrap();
        std::fs::rename(&beside, path).unwrap();
    }

    #[tokio::test]
    async fn a_file_that_is_renamed_into_place_is_seen_and_reading_it_is_no_change() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.json");
        let (mut watch, registry) = watch(&dir.path().join("*.json"));
        reaches(&mut watch, 0).await;
        write(&file, r#"[{"targets":["a:1"]}]"#);
        reaches(&mut watch, 1).await;
        write(&file, r#"[{"targets":["a:1"]},{"targets":["a:2"]}]"#);
        reaches(&mut watch, 2).await;
        std::fs::remove_file(&file).unwrap();
        reaches(&mut watch, 0).await;
        let scans = registry.gather().into_iter().find(|f| f.name == "prometheus_sd_file_scan_duration_seconds");
        let crate::telemetry::metrics::MetricValue::Summary { count, .. } = scans.unwrap().metrics[0].1 else {
            panic!("no summary")
        };
        assert!(count <= 12, "{count} scans");
    }

    #[tokio::test]
    async fn the_link_of_a_mounted_folder_is_swapped() {
        let dir = tempfile::tempdir().unwrap();
        for (version, content) in [("v1", "- targets: [a:1]\n"), ("v2", "- targets: [a:1]\n- targets: [a:2]\n")] {
            std::fs::create_dir(dir.path().join(version)).unwrap();
            std::fs::write(dir.path().join(version).join("t.yml"), content).unwrap();
        }
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, dir.path().join(name)).unwrap();
        link("v1", "..data");
        link("..data/t.yml", "t.yml");
        let (mut watch, _) = watch(&dir.path().join("t.yml"));
        reaches(&mut watch, 1).await;
        link("v2", "..new");
        std::fs::rename(dir.path().join("..new"), dir.path().join("..data")).unwrap();
        reaches(&mut watch, 2).await;
    }
}
