//! Target groups from files, JSON or YAML. Plain code: a scan reads what the patterns name now.
//!
//! A file that cannot be read or parsed keeps the groups that it had, and is named in the log; the groups of a file that
//! is no longer there are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use parking_lot::Mutex;

use crate::config::discovery::FileSd;
use crate::config::glob::glob;
use crate::config::target_groups::{self, TargetGroupError};
use crate::discovery::TargetGroup;
use crate::model::clock::SharedClock;
use crate::telemetry::metrics::{Counter, Registry};
use crate::telemetry::repeat::{RepeatLimiter, Verdict};
use crate::telemetry::summary::Summary;

/// A longer file is refused.
pub const FILE_LEN_MAX: u64 = 64 << 20;
/// Component and mechanism in log lines.
pub(super) const LOGGED_AS: (&str, &str) = ("discovery", "file");
/// The label that says which file a target is from.
const FILEPATH: &str = "__meta_filepath";
const MTIME: [&str; 2] =
    ["prometheus_sd_file_mtime_seconds", "Timestamp (mtime) of files read by FileSD. Timestamp is set at read time."];

/// Why a file gives no groups.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read it: {0}")]
    Read(#[from] io::Error),
    /// A folder, a pipe or a device: reading one may never end.
    #[error("it is not a regular file")]
    NotAFile,
    /// It is longer than [`FILE_LEN_MAX`].
    #[error("it is longer than {limit} bytes")]
    TooLong {
        /// The limit.
        limit: u64,
    },
    /// It is no list of target groups.
    #[error(transparent)]
    Content(#[from] TargetGroupError),
}

/// A file that could not be read, or a pattern that is none.
#[derive(Debug)]
pub struct FileFailure {
    /// The file or the pattern.
    pub path: String,
    /// Why.
    pub error: String,
}

/// What one scan came to.
#[derive(Debug, Default)]
pub struct ScanOutcome {
    /// All groups, in the order of the patterns and of the file names; those of failed files are the last good ones.
    pub groups: Vec<TargetGroup>,
    /// Files that failed.
    pub failures: Vec<FileFailure>,
}

/// Metrics of all file providers; names and help texts are Prometheus's.
#[derive(Clone)]
pub struct FileMetrics {
    registry: Arc<Registry>,
    read_errors: Counter,
    scan_duration: Summary,
    /// Failures to watch a folder.
    pub watcher_errors: Counter,
    /// How many providers show each file's time stamp.
    shown: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl FileMetrics {
    /// The metrics of `registry`.
    pub fn new(registry: &Arc<Registry>, clock: &SharedClock) -> Self {
        let counter = |name: &str, help: &str| registry.counter(name, help, &[]);
        let help = "The duration of the File-SD scan in seconds.";
        let quantiles = [0.5, 0.9, 0.99];
        Self {
            read_errors: counter("prometheus_sd_file_read_errors_total", "The number of File-SD read errors."),
            scan_duration: registry.summary("prometheus_sd_file_scan_duration_seconds", help, &[], &quantiles, clock),
            watcher_errors: counter(
                "prometheus_sd_file_watcher_errors_total",
                "The number of File-SD errors caused by filesystem watch failures.",
            ),
            registry: Arc::clone(registry),
            shown: Arc::default(),
        }
    }

    fn show(&self, path: &str, first: bool, seconds: f64) {
        if first {
            *self.shown.lock().entry(path.to_owned()).or_default() += 1;
        }
        self.registry.gauge(MTIME[0], MTIME[1], &[("filename", path)]).set(seconds);
    }

    fn hide(&self, path: &str) {
        let mut shown = self.shown.lock();
        let Some(count) = shown.get_mut(path) else { return };
        *count -= 1;
        if *count == 0 {
            shown.remove(path);
            self.registry.remove(MTIME[0], &[("filename", path)]);
        }
    }
}

/// What is remembered of a file.
#[derive(Default)]
struct KnownFile {
    groups: Vec<TargetGroup>,
    /// Its time stamp is a metric.
    shown: bool,
    repeats: RepeatLimiter,
}

/// The files of one `file_sd_configs` entry.
pub struct FileProvider {
    patterns: Vec<String>,
    len_max: u64,
    files: BTreeMap<String, KnownFile>,
    metrics: FileMetrics,
    clock: SharedClock,
}

impl FileProvider {
    /// A provider that has scanned nothing yet. `last` are groups of an earlier one with the same settings, which stand for
    /// its files until they are read.
    pub fn new(config: &FileSd, metrics: &FileMetrics, clock: &SharedClock, last: &[TargetGroup]) -> Self {
        let mut files: BTreeMap<String, KnownFile> = BTreeMap::new();
        for group in last {
            if let Some(path) = group.labels.get(FILEPATH) {
                files.entry(path.to_owned()).or_default().groups.push(group.clone());
            }
        }
        Self {
            patterns: config.files.iter().map(|pattern| pattern.as_str().to_owned()).collect(),
            len_max: FILE_LEN_MAX,
            files,
            metrics: metrics.clone(),
            clock: SharedClock::clone(clock),
        }
    }

    /// With another limit of a file's length, in bytes.
    #[must_use]
    pub fn len_max(mut self, len_max: u64) -> Self {
        self.len_max = len_max;
        self
    }

    /// The folders that changes happen in.
    pub fn folders(&self) -> Vec<String> {
        let folder = |pattern: &String| match pattern.rfind('/') {
            Some(at) => pattern.get(..=at).unwrap_or("/").to_owned(),
            None => "./".to_owned(),
        };
        let mut folders: Vec<String> = self.patterns.iter().map(folder).collect();
        folders.sort();
        folders.dedup();
        folders
    }

    /// The metrics of all file providers.
    pub fn metrics(&self) -> &FileMetrics {
        &self.metrics
    }

    /// The clock that time is measured by.
    pub fn clock(&self) -> &SharedClock {
        &self.clock
    }

    /// Reads all files that the patterns name now. Blocks as long as the file system does.
    pub fn scan(&mut self) -> ScanOutcome {
        let began = self.clock.monotonic();
        let (component, discovery) = LOGGED_AS;
        let mut outcome = ScanOutcome::default();
        let paths = self.list(&mut outcome);
        for path in &paths {
            let known = self.files.entry(path.clone()).or_default();
            match read(path, self.len_max) {
                Ok((groups, mtime_seconds)) => {
                    known.groups = groups;
                    self.metrics.show(path, !known.shown, mtime_seconds);
                    known.shown = true;
                    if known.repeats.succeeded() {
                        tracing::info!(component, discovery, path, "The file is good again");
                    }
                }
                Err(error) => {
                    self.metrics.read_errors.inc();
                    let err = error.to_string();
                    if let Verdict::Log { repeated } = known.repeats.failed(&err, began) {
                        let kept = known.groups.len();
                        tracing::error!(component, discovery, path, err, kept, repeated, "Error reading file");
                    }
                    outcome.failures.push(FileFailure { path: path.clone(), error: err });
                }
            }
            outcome.groups.extend(known.groups.iter().cloned());
        }
        let listed: BTreeSet<&String> = paths.iter().collect();
        let gone: Vec<String> = self.files.keys().filter(|path| !listed.contains(path)).cloned().collect();
        for path in gone {
            self.forget(&path);
        }
        self.metrics.scan_duration.observe(self.clock.monotonic().saturating_sub(began).as_secs_f64());
        outcome
    }

    /// The files that there are, each once.
    fn list(&self, outcome: &mut ScanOutcome) -> Vec<String> {
        let (component, discovery) = LOGGED_AS;
        let (mut paths, mut seen) = (Vec::new(), BTreeSet::new());
        for pattern in &self.patterns {
            match glob(pattern) {
                Ok(found) => paths.extend(found.into_iter().filter(|path| seen.insert(path.clone()))),
                Err(error) => {
                    let err = error.to_string();
                    tracing::error!(component, discovery, glob = pattern, err, "Error expanding glob");
                    outcome.failures.push(FileFailure { path: pattern.clone(), error: err });
                }
            }
        }
        paths
    }

    fn forget(&mut self, path: &str) {
        if self.files.remove(path).is_some_and(|known| known.shown) {
            self.metrics.hide(path);
        }
    }
}

impl Drop for FileProvider {
    fn drop(&mut self) {
        for (path, _) in self.files.iter().filter(|(_, known)| known.shown) {
            self.metrics.hide(path);
        }
    }
}

/// The groups of a file and its time stamp, in seconds.
fn read(path: &str, len_max: u64) -> Result<(Vec<TargetGroup>, f64), FileError> {
    // A pipe would block as soon as it is opened.
    if !std::fs::metadata(path)?.is_file() {
        return Err(FileError::NotAFile);
    }
    let file = File::open(path)?;
    let mtime = mtime_seconds(&file.metadata()?);
    let mut content = Vec::new();
    file.take(len_max.saturating_add(1)).read_to_end(&mut content)?;
    if len_max < content.len() as u64 {
        return Err(FileError::TooLong { limit: len_max });
    }
    let groups = target_groups::parse(path, &content)?;
    Ok((groups.iter().map(TargetGroup::from).collect(), mtime))
}

fn mtime_seconds(metadata: &Metadata) -> f64 {
    let since = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    since.map_or(0.0, |since| since.as_secs() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FilePath;
    use crate::model::clock::SystemClock;
    use crate::telemetry::metrics::MetricValue;

    struct Folder {
        dir: tempfile::TempDir,
        registry: Arc<Registry>,
        metrics: FileMetrics,
        clock: SharedClock,
    }

    impl Folder {
        fn new() -> Self {
            let (registry, clock) = (Registry::shared(), SystemClock::shared());
            let metrics = FileMetrics::new(&registry, &clock);
            Self { dir: tempfile::tempdir().unwrap(), registry, metrics, clock }
        }

        fn path(&self, name: &str) -> String {
            self.dir.path().join(name).to_str().unwrap().to_owned()
        }

        fn write(&self, name: &str, content: &str) {
            std::fs::write(self.path(name), content).unwrap();
        }

        fn provider(&self, patterns: &[&str], last: &[TargetGroup]) -> FileProvider {
            let files = patterns.iter().map(|pattern| FilePath::from(self.path(pattern))).collect();
            let config = FileSd { files, ..FileSd::default() };
            FileProvider::new(&config, &self.metrics, &self.clock, last)
        }

        fn metric(&self, name: &str) -> Vec<f64> {
            let family = self.registry.gather().into_iter().find(|family| family.name == name);
            let value = |value: MetricValue| match value {
                MetricValue::Number(number) => number,
                MetricValue::Summary { count, .. } | MetricValue::Histogram { count, .. } => count as f64,
            };
            family.map_or(Vec::new(), |family| family.metrics.into_iter().map(|(_, v)| value(v)).collect())
        }
    }

    fn addresses(outcome: &ScanOutcome) -> Vec<&str> {
        outcome.groups.iter().flat_map(|group| &group.targets).filter_map(|target| target.get(ADDRESS)).collect()
    }

    const ADDRESS: &str = crate::discovery::ADDRESS;

    #[test]
    fn files_of_both_formats_are_read_in_order_and_once() {
        let folder = Folder::new();
        folder.write("b.json", r#"[{"targets":["b:1"]},{"targets":["b:2"],"labels":{"x":"y"}}]"#);
        folder.write("a.yml", "- targets: [a:1]\n");
        folder.write("a.txt", "no");
        let mut provider = folder.provider(&["*.json", "a.yml", "b.json", "none.yml"], &[]);
        let outcome = provider.scan();
        assert_eq!(addresses(&outcome), ["b:1", "b:2", "a:1"]);
        assert!(outcome.failures.is_empty(), "{:?}", outcome.failures);
        let second = &outcome.groups[1];
        let path = folder.path("b.json");
        assert_eq!((second.source.as_str(), second.labels.get("x")), (format!("{path}:1").as_str(), Some("y")));
        assert_eq!(second.labels.get("__meta_filepath"), Some(path.as_str()));
        assert_eq!(folder.metric("prometheus_sd_file_mtime_seconds").len(), 2);
        assert_eq!(folder.metric("prometheus_sd_file_scan_duration_seconds"), [1.0]);
        assert_eq!(provider.folders(), [format!("{}/", folder.dir.path().display())]);
    }

    #[test]
    fn a_bad_file_keeps_its_groups_and_a_vanished_one_does_not() {
        let folder = Folder::new();
        folder.write("a.yml", "- targets: [a:1]\n");
        folder.write("b.yml", "- targets: [b:1]\n");
        let mut provider = folder.provider(&["*.yml"], &[]);
        let before = provider.scan();
        folder.write("a.yml", "- targets: [");
        std::fs::remove_file(folder.path("b.yml")).unwrap();
        let outcome = provider.scan();
        assert_eq!(outcome.groups, before.groups[..1]);
        assert_eq!((outcome.failures.len(), outcome.failures[0].path.as_str()), (1, folder.path("a.yml").as_str()));
        assert_eq!(folder.metric("prometheus_sd_file_read_errors_total"), [1.0]);
        assert_eq!(folder.metric("prometheus_sd_file_mtime_seconds").len(), 1);
        folder.write("a.yml", "- targets: [a:2]\n");
        assert_eq!(addresses(&provider.scan()), ["a:2"]);
        folder.write("a.yml", "");
        assert!(provider.scan().groups.is_empty(), "an empty file is a good one without targets");
        drop(provider);
        assert!(folder.metric("prometheus_sd_file_mtime_seconds").is_empty());
    }

    #[test]
    fn what_may_never_end_is_refused() {
        let folder = Folder::new();
        folder.write("long.json", "[{\"targets\":[\"a:1\"]}]");
        std::fs::create_dir(folder.path("folder.json")).unwrap();
        let mut provider = folder.provider(&["*.json"], &[]).len_max(20);
        let errors: Vec<String> = provider.scan().failures.into_iter().map(|failure| failure.error).collect();
        assert_eq!(errors, ["it is not a regular file", "it is longer than 20 bytes"]);
        let mut provider = folder.provider(&["long.json"], &[]).len_max(21);
        assert_eq!(addresses(&provider.scan()), ["a:1"]);
    }

    #[test]
    fn a_successor_goes_on_from_the_last_groups() {
        let folder = Folder::new();
        folder.write("a.yml", "- targets: [a:1]\n");
        folder.write("b.yml", "- targets: [b:1]\n");
        let last = folder.provider(&["*.yml"], &[]).scan().groups;
        folder.write("a.yml", "{");
        std::fs::remove_file(folder.path("b.yml")).unwrap();
        assert_eq!(folder.provider(&["*.yml"], &last).scan().groups, last[..1]);
    }
}
