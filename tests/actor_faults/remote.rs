//! Destinations of remote write for fault tests: a log of its own, and receivers that keep what they get.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix::Arbiter;
use watchfire::actors::log_writer::{self, LogThread, LogWriter, SyncMode};
use watchfire::actors::mailbox::BoundedAddr;
use watchfire::actors::remote_write_manager::{RemoteWriteDeps, RemoteWriteManager};
use watchfire::actors::remote_write_queue::{CURSOR_DIR, QueueDeps, QueueRuntime, RemoteLog, RemoteWriteQueue};
use watchfire::actors::supervision::{self, Place};
use watchfire::client::{ClientOptions, HttpClient};
use watchfire::config::{LoadOptions, load_str};
use watchfire::model::clock::SharedClock;
use watchfire::model::labels::Labels;
use watchfire::model::sample::SeriesRef;
use watchfire::model::time::TimestampMs;
use watchfire::remote::send::metrics::Intake;
use watchfire::remote::send::spec::{Destination, destinations};
use watchfire::storage::fs::RealFs;
use watchfire::storage::replay;
use watchfire::storage::wal::cursor::{self, Cursor};
use watchfire::storage::wal::metrics::WalMetrics;
use watchfire::storage::wal::record::{RefSample, encode_samples, encode_series};
use watchfire::storage::wal::segments::LogFiles;
use watchfire::storage::wal::{WAL_DIR, WalOptions};

use crate::scene::{PATIENCE, QUICK, Scene};

/// A log that can be written to, and what queues need.
pub(crate) struct RemoteScene {
    pub(crate) runtime: Arc<QueueRuntime>,
    log: BoundedAddr<LogWriter>,
    next: AtomicU64,
    _folder: tempfile::TempDir,
}

impl RemoteScene {
    pub(crate) fn new(scene: &Scene, name: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let metrics = WalMetrics::new(&scene.registry, &scene.clock);
        let (fs, options) = (RealFs::shared(), WalOptions::default());
        let opened = replay::open(&fs, folder.path(), options, &metrics, &scene.head, TimestampMs::MIN);
        let thread = LogThread::start(opened.expect("an empty log").0, SyncMode::Off).expect("a thread");
        let log = OnceLock::new();
        let (files, data_dir) = (LogFiles::new(fs, folder.path().join(WAL_DIR)), folder.path().to_path_buf());
        let _ = log.set(RemoteLog { files, data_dir, written: thread.written() });
        let place = Place::root(&scene.tree, format!("{name} log"));
        let writer =
            supervision::spawn(&Arbiter::current(), QUICK, place, move |_| LogWriter::new(Arc::clone(&thread)));
        let options = || ClientOptions { user_agent: "scene".to_owned(), follow_redirects: true };
        let runtime = Arc::new(QueueRuntime {
            pool: Arc::clone(&scene.pool),
            clock: SharedClock::clone(&scene.clock),
            registry: Arc::clone(&scene.registry),
            log: Arc::new(log),
            intake: Arc::<Intake>::default(),
            flush_deadline: Duration::from_secs(5),
            descriptions: Box::new(Vec::new),
            clients: Box::new(move |_| HttpClient::new(options())),
            policy: QUICK,
        });
        Self { runtime, log: writer, next: AtomicU64::new(1), _folder: folder }
    }

    /// Destinations that are sent what comes at once.
    pub(crate) fn destinations(addresses: &[&str]) -> Vec<Destination> {
        let block = |address: &&str| {
            format!("{{url: 'http://{address}/w', queue_config: {{batch_send_deadline: 1ms, min_backoff: 1ms}}}}")
        };
        let text = format!("remote_write: [{}]", addresses.iter().map(block).collect::<Vec<_>>().join(", "));
        let loaded = load_str("a.yml", &text, &LoadOptions::default()).expect("a configuration");
        destinations(&loaded.config).expect("distinct destinations")
    }

    pub(crate) fn spawn_queue(&self, scene: &Scene, name: &str, address: &str) -> BoundedAddr<RemoteWriteQueue> {
        let to = Self::destinations(&[address]).remove(0);
        // It reads the log from its beginning: a new destination gets what comes once it has begun.
        if let Some(log) = self.runtime.log.get() {
            let folder = log.data_dir.join(CURSOR_DIR);
            log.files.fs().create_dir_all(&folder).expect("a folder");
            let start = Cursor::at(cursor::Place::default());
            cursor::save(log.files.fs(), &folder.join(to.file_name()), &start).expect("a cursor");
        }
        let deps = QueueDeps::new(to, Arc::clone(&self.runtime));
        let make = move |_: &mut _| RemoteWriteQueue::new(Arc::clone(&deps));
        supervision::spawn(&Arbiter::current(), QUICK, Place::root(&scene.tree, name), make)
    }

    pub(crate) fn spawn_manager(&self, scene: &Scene, name: &str, address: &str) -> BoundedAddr<RemoteWriteManager> {
        let deps = RemoteWriteDeps::new(Arc::clone(&self.runtime), Arc::from([Arbiter::current()]));
        *deps.destinations.lock() = Self::destinations(&[address]);
        let make = move |_: &mut _| RemoteWriteManager::new(Arc::clone(&deps));
        supervision::spawn(&Arbiter::current(), QUICK, Place::root(&scene.tree, name), make)
    }

    /// A sample of a series of its own goes to the log.
    pub(crate) async fn append(&self) {
        let series = SeriesRef(self.next.fetch_add(1, Ordering::Relaxed));
        let labels = Labels::from_pairs([("__name__", "m"), ("n", &series.0.to_string())]);
        let mut records = Vec::new();
        encode_series([(series, &labels)], &mut records);
        encode_samples([RefSample { series, t: 1_000, value: 1.0 }], &mut records);
        log_writer::write(&self.log, records, false, PATIENCE).await.expect("a log that takes records");
    }
}
