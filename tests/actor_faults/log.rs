//! The log's thread and the disk: what each way of syncing promises, and what a thread that waits for the disk holds up.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actix::Arbiter;
use parking_lot::Mutex;
use watchfire::actors::log_writer::{self, AtOnce, LogFailure, LogThread, LogWay, LogWriter, SyncMode};
use watchfire::actors::mailbox::BoundedAddr;
use watchfire::actors::registry::ActorState;
use watchfire::actors::storage_client::{AppendFailure, Priority, ShardFailure};
use watchfire::actors::storage_shard::{Journal, Refusals};
use watchfire::actors::supervision::{self, Place};
use watchfire::model::append::{AppendBatch, AppendSample, SeriesKey};
use watchfire::model::clock::SystemClock;
use watchfire::model::sample::SeriesRef;
use watchfire::model::time::TimestampMs;
use watchfire::storage::fs::SharedFs;
use watchfire::storage::fs::sim::SimFs;
use watchfire::storage::head::shard::ShardState;
use watchfire::storage::head::{Head, HeadOptions};
use watchfire::storage::replay;
use watchfire::storage::wal::WalOptions;
use watchfire::storage::wal::metrics::WalMetrics;
use watchfire::storage::wal::record::{self, Record, RefSample};
use watchfire::telemetry::metrics::Registry;

use crate::matrix::tree;
use crate::probe::within;
use crate::scene::{PATIENCE, QUICK, Scene, batch, holds, live, stepped};

const DATA: &str = "/data";

/// Opens the log; returns its writer and how many samples it held.
fn open(fs: &SimFs, options: WalOptions) -> (watchfire::storage::wal::writer::Writer, u64) {
    let clock = SystemClock::shared();
    let head = Head::new(HeadOptions::new(Arc::clone(&clock)));
    let shared: SharedFs = Arc::new(fs.clone());
    shared.create_dir_all(Path::new(DATA)).expect("a folder");
    shared.sync_dir(Path::new("/")).expect("a sync");
    let metrics = WalMetrics::new(&Registry::default(), &clock);
    let opened = replay::open(&shared, Path::new(DATA), options, &metrics, &head, TimestampMs::MIN);
    let (writer, report) = opened.expect("a log");
    (writer, report.log.samples)
}

fn start(fs: &SimFs, mode: SyncMode) -> (BoundedAddr<LogWriter>, Arc<LogThread>) {
    let options = WalOptions { hold_unsynced: mode != SyncMode::Off, ..WalOptions::default() };
    let thread = LogThread::start(open(fs, options).0, mode).expect("a thread");
    let for_actor = Arc::clone(&thread);
    let place = Place::root(&tree(), "log");
    let make = move |_: &mut _| LogWriter::new(Arc::clone(&for_actor));
    (supervision::spawn(&Arbiter::current(), QUICK, place, make), thread)
}

fn sample(t: i64) -> Vec<Record> {
    let mut records = Vec::new();
    record::encode_samples([RefSample { series: SeriesRef(1), t, value: 1.0 }], &mut records);
    records
}

/// Samples that are still there when the power is cut now.
fn after_a_power_cut(fs: &SimFs) -> u64 {
    let fs = fs.fork();
    fs.cut_power();
    open(&fs, WalOptions::default()).1
}

#[test]
fn acknowledged_writes_survive_a_power_cut_as_wal_sync_says() {
    live(async {
        let (commit, interval, off) = (SimFs::new(), SimFs::new(), SimFs::new());
        let modes = [(&commit, SyncMode::Commit), (&interval, SyncMode::Interval), (&off, SyncMode::Off)];
        let writers = modes.map(|(fs, mode)| start(fs, mode));
        for (writer, _) in &writers {
            log_writer::write(writer, sample(1), true, PATIENCE).await.unwrap();
        }
        assert_eq!(after_a_power_cut(&commit), 1, "synced before it was answered");
        holds("the interval is over", || after_a_power_cut(&interval) == 1).await;
        assert_eq!(after_a_power_cut(&off), 0, "the disk was not asked");
        // What is only to be visible is synced by the second.
        log_writer::write(&writers[0].0, sample(2), false, PATIENCE).await.unwrap();
        holds("it is synced as well", || after_a_power_cut(&commit) == 2).await;
        for (_, thread) in &writers {
            thread.close();
        }
        assert_eq!(after_a_power_cut(&off), 1, "an orderly end leaves all");
        let refused = log_writer::write(&writers[0].0, sample(3), false, PATIENCE).await;
        assert_eq!(refused, Err(log_writer::LogFailure::Lost), "a thread that has ended writes nothing");
    });
}

#[test]
fn durable_batches_survive_a_power_cut_when_they_are_answered() {
    live(async {
        let (scene, fs) = (Scene::with_shards(&tree(), "durable", 2, QUICK), SimFs::new());
        let (writer, thread) = start(&fs, SyncMode::Commit);
        assert!(scene.log.set(journal(writer, &fs, &thread)).is_ok());
        let (now, storage) = (scene.now(), &scene.storage);
        // Each goes to both shards; they are in flight together, and share syncs.
        let durable = |metric: u32| {
            let (batch, fs) = (batch(&format!("m{metric}"), 0..50, now, 1.0), &fs);
            async move {
                let report = storage.append_durably(batch, Refusals::Whole, within(60)).await.unwrap();
                (report.appended, after_a_power_cut(fs))
            }
        };
        let answered = futures::future::join_all((0..20).map(durable)).await;
        assert!(answered.iter().all(|(appended, left)| *appended == 50 && 50 <= *left), "{answered:?}");
        assert_eq!(after_a_power_cut(&fs), 1000);
        // An equal repetition writes nothing, and is answered by what is on the disk already.
        assert_eq!(durable(3).await, (50, 1000));
        // A batch that is refused leaves nothing, in the log neither.
        let mut faulty = batch("new", 0..50, now, 1.0);
        faulty.samples.extend(batch("m3", 0..1, now, 2.0).samples);
        let report = storage.append_durably(faulty, Refusals::Whole, within(60)).await.unwrap();
        assert_eq!((report.appended, report.rejected.len()), (0, 1));
        assert_eq!((scene.last("new").len(), after_a_power_cut(&fs)), (0, 1000));
        thread.close();
    });
}

#[test]
fn a_sync_that_fails_is_not_acknowledged() {
    live(async {
        let (scene, fs) = (Scene::with_shards(&tree(), "unsynced", 1, QUICK), SimFs::new());
        let (writer, thread) = start(&fs, SyncMode::Commit);
        assert!(scene.log.set(journal(writer, &fs, &thread)).is_ok());
        let durable = |number: u32| {
            scene.storage.append_durably(batch("m", number..number + 1, scene.now(), 1.0), Refusals::Alone, within(60))
        };
        durable(0).await.unwrap();
        // The write goes well; the sync and what is tried instead do not.
        fs.fail_nth(2, u64::MAX);
        let failed = durable(1).await.unwrap_err();
        assert!(matches!(failed, AppendFailure::Unsure(ShardFailure::Log(_))), "{failed}");
        assert_eq!((scene.last("m").len(), after_a_power_cut(&fs)), (2, 1), "visible, and not promised");
        fs.heal();
        durable(2).await.unwrap();
        assert_eq!(after_a_power_cut(&fs), 3);
        thread.close();
    });
}

#[test]
fn records_go_to_the_thread_itself_where_the_actor_runs() {
    live(async {
        let fs = SimFs::new();
        let (writer, thread) = start(&fs, SyncMode::Commit);
        let way = LogWay::new(writer.clone(), Arc::clone(&thread));
        let handled = || writer.entry().row().handled;
        way.write(sample(1).into(), PATIENCE).await.unwrap();
        assert_eq!(handled(), 1, "it was only starting, and was waited for");
        holds("it runs", || writer.entry().state() == ActorState::Running).await;
        way.write(sample(2).into(), PATIENCE).await.unwrap();
        let (_, synced) = way.write_announced(sample(3).into(), None, PATIENCE).await.unwrap();
        synced.wait().await.unwrap();
        assert_eq!((handled(), after_a_power_cut(&fs)), (1, 3));
        thread.close();
        let refused = way.write(sample(4).into(), PATIENCE).await;
        assert_eq!(refused, Err(log_writer::LogFailure::Lost));
    });
}

/// What becomes of a sample that is to be written at once, where the thread is not just at the log.
async fn at_once(way: &LogWay, t: i64) -> Result<(), LogFailure> {
    let mut written = None;
    holds("the log is free", || {
        if let AtOnce::Done(done) = way.write_here(sample(t).into()) {
            written = Some(done.map(drop));
        }
        written.is_some()
    })
    .await;
    written.expect("it was waited for")
}

#[test]
fn who_has_records_writes_them_where_nobody_else_is_at_the_log() {
    live(async {
        let fs = SimFs::new();
        let (writer, thread) = start(&fs, SyncMode::Commit);
        let way = LogWay::new(writer.clone(), Arc::clone(&thread));
        let is_left = |records: Vec<Record>| matches!(way.write_here(records.into()), AtOnce::NotNow(_));
        assert!(is_left(sample(1)), "the actor does not run yet");
        holds("it runs", || writer.entry().state() == ActorState::Running).await;
        at_once(&way, 1).await.unwrap();
        let told = *thread.written().borrow();
        assert_eq!(told, log_writer::write(&writer, Vec::new(), false, PATIENCE).await.unwrap());
        holds("the thread syncs it, though nobody wakes it up", || after_a_power_cut(&fs) == 1).await;
        let mut long = Vec::new();
        record::encode_samples((0..20_000).map(|t| RefSample { series: SeriesRef(1), t, value: 1.0 }), &mut long);
        assert!(is_left(long), "that is no matter of microseconds");

        fs.fail_nth(1, u64::MAX);
        assert!(matches!(at_once(&way, 2).await, Err(LogFailure::Refused(_))));
        assert!(
            thread.health().refusing().is_some() && is_left(sample(2)),
            "the thread is to find out when it is over"
        );
        fs.heal();
        holds("it is over", || thread.health().refusing().is_none()).await;
        at_once(&way, 3).await.unwrap();
        thread.close();
        assert!(is_left(sample(4)), "the thread has ended");
        assert_eq!(after_a_power_cut(&fs), 2);
    });
}

#[test]
fn scrapes_of_known_series_are_logged_and_applied_where_they_are() {
    live(async {
        let (scene, fs) = (Scene::with_shards(&tree(), "here", 1, QUICK), SimFs::new());
        let (writer, thread) = start(&fs, SyncMode::Commit);
        assert!(scene.log.set(journal(writer.clone(), &fs, &thread)).is_ok());
        let storage = scene.storage.clone().writing_log();
        let append = |batch| storage.append(batch, Priority::Normal, within(60));
        let first = append(batch("m", 0..50, scene.now(), 1.0)).await.unwrap();
        let at = TimestampMs(scene.now().0 + 1000);
        let next = first.resolved.iter();
        let next = next.map(|(_, handle)| AppendSample { series: SeriesKey::Known(*handle), at, value: 2.0 });
        let next = AppendBatch::of_floats(next.collect());
        assert_eq!(append(next).await.unwrap().appended, 50);
        let stored = scene.last("m");
        assert_eq!((stored.len(), open(&fs.fork(), WalOptions::default()).1), (50, 100));
        // A disk that takes nothing: the scrape is refused, and nothing of it shows.
        fs.fail_nth(1, u64::MAX);
        let late = TimestampMs(at.0 + 1000);
        let refused = first.resolved.iter();
        let refused =
            refused.map(|(_, handle)| AppendSample { series: SeriesKey::Known(*handle), at: late, value: 3.0 });
        let refused = append(AppendBatch::of_floats(refused.collect())).await.unwrap_err();
        assert!(matches!(refused, AppendFailure::Refused(_)), "{refused}");
        assert_eq!(scene.last("m"), stored);
        fs.heal();
        thread.close();
    });
}

fn journal(writer: BoundedAddr<LogWriter>, fs: &SimFs, thread: &Arc<LogThread>) -> Journal {
    Journal {
        way: LogWay::new(writer.clone(), Arc::clone(thread)),
        writer,
        fs: Arc::new(fs.clone()),
        data_dir: DATA.into(),
        aliases: Mutex::default(),
        late_chunk_file: Mutex::default(),
        files: Mutex::default(),
        announcements: thread.announcements(),
    }
}

#[test]
fn a_shard_that_could_not_be_restored_is_tried_again() {
    stepped(async |steps| {
        let (scene, fs) = (Scene::on(&steps, &tree(), "restored"), SimFs::new());
        let (writer, thread) = start(&fs, SyncMode::Commit);
        let journal = journal(writer, &fs, &thread);
        assert!(scene.log.set(journal).is_ok());
        let samples = batch("m", 0..100, scene.now(), 1.0);
        scene.storage.append(samples, Priority::Normal, within(30)).await.unwrap();
        let before = scene.samples(&[]).unwrap();
        assert_eq!(before.len(), 100);
        let shard = &scene.head.shards()[0];
        shard.begin_rebuild("a test");
        shard.set_state(ShardState::Failed { reason: "the disk was away".to_owned() });
        assert!(scene.samples(&[]).is_err(), "no partial answer");
        steps.pass(Duration::from_secs(2), || true).await;
        steps.holds("it is restored", || scene.samples(&[]).is_ok_and(|found| found == before)).await;
        thread.close();
    });
}
