//! Deletions of head and blocks together: what is seen, what a restart finds, with the disk failing at every step.

use std::path::Path;
use std::sync::Arc;

use crate::model::append::{AppendBatch, AppendSample, SeriesKey};
use crate::model::clock::{ManualClock, SharedClock};
use crate::model::labels::Labels;
use crate::model::matcher::{MatchOp, Matcher};
use crate::model::random::Random;
use crate::model::read::{Queryable, SampleColumn, Unlimited};
use crate::model::time::{TimeRange, TimestampMs};
use crate::storage::block::PageCache;
use crate::storage::block::catalog::Catalog;
use crate::storage::block::metrics::BlockMetrics;
use crate::storage::block::retention::Retention;
use crate::storage::block::snapshot::link_block;
use crate::storage::block::view::{StoreQueryable, StoreView};
use crate::storage::compact::Step;
use crate::storage::compact::blocks::BlockCompaction;
use crate::storage::compact::head::HeadCompaction;
use crate::storage::fs::sim::SimFs;
use crate::storage::fs::{Fs, SharedFs};
use crate::storage::head::export::BlockRange;
use crate::storage::head::{Head, HeadOptions};
use crate::storage::replay::{self, keeper};
use crate::storage::wal::WalOptions;
use crate::storage::wal::metrics::WalMetrics;
use crate::storage::wal::record::{RefSeries, encode_series, encode_staged};
use crate::storage::wal::tombstone_record::{RefTombstone, encode_tombstones};
use crate::storage::wal::writer::Writer;
use crate::telemetry::metrics::Registry;

const DATA: &str = "/data";
const RANGE_MS: i64 = 7_200_000;
/// Samples stand a minute apart, up to this one; the first two hours are a block.
const MINUTES: i64 = 200;

/// Series by their number, with the minutes of their samples.
type Seen = Vec<(String, Vec<i64>)>;

fn clock() -> SharedClock {
    ManualClock::at(TimestampMs(1_700_100_000_000))
}

fn metrics() -> WalMetrics {
    WalMetrics::new(&Registry::default(), &clock())
}

/// A data directory as a server has it open.
struct Store {
    head: Head,
    catalog: Arc<Catalog>,
    writer: Writer,
}

impl Store {
    fn open(sim: &SimFs) -> Self {
        let fs: SharedFs = Arc::new(sim.clone());
        let catalog =
            Catalog::new(fs.clone(), Path::new(DATA), PageCache::new(0), BlockMetrics::new(&Registry::default()));
        catalog.open().unwrap();
        let head = Head::new(HeadOptions { shards: 2, ..HeadOptions::new(clock()) });
        let oldest = TimestampMs(catalog.state().whole_until().unwrap_or(i64::MIN));
        fs.create_dir_all(Path::new(DATA)).unwrap();
        let (writer, _) = replay::open(&fs, Path::new(DATA), WalOptions::default(), &metrics(), &head, oldest).unwrap();
        Self { head, catalog, writer }
    }

    fn append(&mut self, minutes: std::ops::Range<i64>) {
        for minute in minutes {
            let sample = |i: u32| AppendSample {
                series: SeriesKey::Labels(Labels::from_pairs([("__name__", "m"), ("job", &i.to_string())])),
                at: TimestampMs(minute * 60_000),
                value: minute as f64,
            };
            let commit = self.head.begin(Some(TimestampMs(minute * 60_000)));
            let slices = self.head.route(AppendBatch::of_floats((0..4).map(sample).collect()));
            for (id, slice) in slices {
                let shard = &self.head.shards()[usize::from(id.0)];
                let staged = shard.stage(&commit, slice).unwrap();
                self.writer.append(&encode_staged(&[&staged])).unwrap();
                shard.apply(staged).unwrap();
            }
        }
        self.writer.sync().unwrap();
    }

    fn compact(&self) {
        let range = BlockRange { min_time: 0, max_time: RANGE_MS };
        let mut random = Random::seeded(4);
        let mut compaction = HeadCompaction::begin(&self.head, &self.catalog, range, 0, &clock(), &mut random).unwrap();
        while compaction.step(3).unwrap() == Step::More {}
        compaction.publish().unwrap();
        self.catalog.reload(Retention::default(), 0).unwrap();
        self.head.truncate_blocking(TimestampMs(RANGE_MS));
    }

    /// As the compactor does it; errors where the disk does.
    fn delete(&mut self, jobs: &str, from: i64, to: i64) -> Result<(), String> {
        let selectors = vec![vec![Matcher::new(MatchOp::Regex, "job", jobs).unwrap()]];
        let range = TimeRange::new(TimestampMs(from * 60_000), TimestampMs(to * 60_000)).unwrap();
        let of_blocks = self.catalog.plan_deletion(&selectors, range).map_err(|e| e.to_string())?;
        let of_head = self.head.plan_deletion(&selectors, range).map_err(|e| e.to_string())?;
        let mut records = Vec::new();
        encode_tombstones(of_head.ranges().iter().copied(), &mut records);
        self.writer.append(&records).map_err(|e| e.to_string())?;
        self.writer.sync().map_err(|e| e.to_string())?;
        let (blocks, written) = self.catalog.write_deletion(of_blocks);
        self.catalog.show_deleted(blocks, || self.head.delete(of_head)).unwrap();
        written.map_err(|e| e.to_string())
    }

    fn seen(&self) -> Seen {
        seen(&StoreQueryable::new(self.head.queryable(), Arc::clone(&self.catalog)))
    }

    fn clean(&self) {
        while let Some(block) = self.catalog.state().blocks.iter().find(|block| !block.tombstones().is_empty()) {
            let mut random = Random::seeded(8);
            let block = Arc::clone(block);
            let mut cleaning = BlockCompaction::clean(&self.catalog, block, 0, &clock(), &mut random).unwrap();
            while cleaning.step(3).unwrap() == Step::More {}
            cleaning.publish().unwrap();
            self.catalog.reload(Retention::default(), 0).unwrap();
        }
    }
}

fn seen(store: &dyn Queryable) -> Seen {
    let view = store.view().unwrap();
    let series = view.select(&[], TimeRange::ALL, &Unlimited).unwrap().into_iter();
    let all = series.map(|one| {
        let mut column = SampleColumn::default();
        one.samples.decode_all(TimeRange::ALL, &mut column).unwrap();
        (one.labels.get("job").unwrap().to_owned(), column.floats.timestamps.iter().map(|t| t / 60_000).collect())
    });
    all.filter(|(_, minutes): &(String, Vec<i64>)| !minutes.is_empty()).collect()
}

fn expected(deleted: &[(std::ops::RangeInclusive<u32>, std::ops::RangeInclusive<i64>)], until: i64) -> Seen {
    let is_left = |job: u32, minute: i64| !deleted.iter().any(|(jobs, at)| jobs.contains(&job) && at.contains(&minute));
    let minutes = |job: u32| (1..until).filter(|minute| is_left(job, *minute)).collect();
    (0..4)
        .map(|job| (job.to_string(), minutes(job)))
        .collect::<Seen>()
        .into_iter()
        .filter(|one| !one.1.is_empty())
        .collect()
}

fn filled(sim: &SimFs) -> Store {
    // The folder itself is there for good.
    sim.put(&Path::new(DATA).join("lock"), b"").unwrap();
    let mut store = Store::open(sim);
    store.append(1..MINUTES);
    store.compact();
    store
}

#[test]
fn deletions_reach_blocks_and_head_and_outlive_restarts_checkpoints_and_compactions() {
    let sim = SimFs::new();
    let mut store = filled(&sim);
    let old_view = StoreQueryable::new(store.head.queryable(), Arc::clone(&store.catalog)).view().unwrap();
    store.delete("[01]", 100, 140).unwrap();
    store.delete("1", 130, 10_000).unwrap();
    store.delete("3", 0, 10_000).unwrap();
    let deleted = [(0..=1, 100..=140), (1..=1, 130..=199), (3..=3, 0..=199)];
    assert_eq!(store.seen(), expected(&deleted, MINUTES));
    assert_eq!(old_view.select(&[], TimeRange::ALL, &Unlimited).unwrap().len(), 4);
    let block = store.catalog.state().blocks[0].clone();
    assert_eq!((block.tombstones().len(), block.meta().stats.num_tombstones), (3, 3));
    // What comes later is there, also of series that were deleted as a whole.
    store.append(MINUTES..210);
    assert_eq!(store.seen(), expected(&deleted, 210));

    // A checkpoint keeps the ranges of what it keeps.
    for _ in 0..3 {
        store.writer.plan_checkpoint().unwrap();
    }
    let job = store.writer.plan_checkpoint().unwrap().unwrap();
    let aliases = Default::default();
    job.run(TimestampMs(RANGE_MS), &mut keeper(&store.head, &aliases)).unwrap();
    drop(store);
    sim.cut_power();
    let mut store = Store::open(&sim);
    assert_eq!(store.seen(), expected(&deleted, 210));

    store.append(210..400);
    store.compact();
    let range = BlockRange { min_time: RANGE_MS, max_time: 2 * RANGE_MS };
    let mut compaction =
        HeadCompaction::begin(&store.head, &store.catalog, range, 0, &clock(), &mut Random::seeded(5)).unwrap();
    while compaction.step(3).unwrap() == Step::More {}
    let meta = compaction.publish().unwrap().unwrap();
    assert_eq!((meta.stats.num_series, meta.stats.num_tombstones), (4, 0));
    store.catalog.reload(Retention::default(), 0).unwrap();
    store.head.truncate_blocking(TimestampMs(2 * RANGE_MS));
    store.head.forget_deleted();
    assert_eq!((store.head.deleted_len(), store.seen()), (0, expected(&deleted, 400)));

    store.clean();
    assert_eq!(store.seen(), expected(&deleted, 400));
    let state = store.catalog.state();
    let cleaned = state.blocks[0].meta();
    assert_eq!((cleaned.compaction.level, &cleaned.compaction.sources), (1, &vec![cleaned.ulid]));
    assert_eq!((cleaned.compaction.parents.len(), cleaned.stats.num_series), (1, 3));
    assert!(state.blocks.iter().all(|block| block.tombstones().is_empty()) && state.blocks.len() == 2);
    // A block of which nothing is left goes as a whole.
    store.delete(".*", 0, 119).unwrap();
    store.clean();
    assert_eq!(store.catalog.state().blocks.len(), 1);
    assert_eq!(
        store.seen(),
        expected(&[deleted[0].clone(), deleted[1].clone(), deleted[2].clone(), (0..=3, 0..=119)], 400)
    );
}

#[test]
fn whatever_fails_a_deletion_that_was_answered_holds_and_nothing_else_is_lost() {
    let whole = SimFs::new();
    drop(filled(&whole));
    let copy = whole.fork();
    let mut store = Store::open(&copy);
    let begun = copy.operations();
    store.delete("[12]", 60, 180).unwrap();
    let deleted = expected(&[(1..=2, 60..=180)], MINUTES);
    let before = expected(&[], MINUTES);
    for n in 1..=copy.operations() - begun {
        for power_cut in [false, true] {
            let sim = whole.fork();
            let mut store = Store::open(&sim);
            sim.fail_nth(n, 0);
            let answer = store.delete("[12]", 60, 180);
            sim.heal();
            if answer.is_ok() {
                assert_eq!(store.seen(), deleted, "step {n}");
            }
            drop(store);
            if power_cut {
                sim.cut_power();
            }
            let mut store = Store::open(&sim);
            if answer.is_ok() {
                assert_eq!(store.seen(), deleted, "after step {n}");
            }
            for ((job, now), (_, all)) in store.seen().iter().zip(&before) {
                let outside = |minutes: &[i64]| -> Vec<i64> {
                    let is_kept = |minute: &&i64| !["1", "2"].contains(&job.as_str()) || !(60..=180).contains(*minute);
                    minutes.iter().filter(is_kept).copied().collect()
                };
                assert_eq!(outside(now), outside(all), "after step {n}: {answer:?}");
            }
            store.delete("[12]", 60, 180).unwrap();
            assert_eq!(store.seen(), deleted, "after step {n} and once more");
        }
    }
}

#[test]
fn ranges_in_the_log_follow_the_series_that_they_are_of() {
    let sim = SimFs::new();
    let mut store = Store::open(&sim);
    store.append(1..50);
    let stone = |series: u64, from: i64, to: i64| RefTombstone {
        series: crate::model::sample::SeriesRef(series),
        interval: crate::storage::block::tombstones::Interval { min_t: from, max_t: to },
    };
    // Another reference of the same labels, a reference that is not known, and a series that was given up as a whole.
    let labels = Labels::from_pairs([("__name__", "m"), ("job", "0")]);
    let named = RefSeries { series: crate::model::sample::SeriesRef(70), labels };
    let mut records = Vec::new();
    encode_series([(named.series, &named.labels)], &mut records);
    encode_tombstones([stone(70, 60_000, 600_000), stone(99, 0, 5)], &mut records);
    let job_2 = {
        let view = store.head.plan_deletion(&[vec![Matcher::new(MatchOp::Equal, "job", "2").unwrap()]], TimeRange::ALL);
        view.unwrap().ranges()[0].series.0
    };
    encode_tombstones([stone(job_2, i64::MIN, i64::MAX)], &mut records);
    store.writer.append(&records).unwrap();
    store.append(50..60);
    drop(store);
    let mut store = Store::open(&sim);
    assert_eq!(store.seen(), expected(&[(0..=0, 1..=10), (2..=2, 1..=49)], 60));
    // References of what is gone are not handed out again.
    let sample = AppendSample {
        series: SeriesKey::Labels(Labels::from_pairs([("__name__", "new")])),
        at: TimestampMs(3_600_000),
        value: 1.0,
    };
    let report = store.head.append_blocking(AppendBatch::of_floats(vec![sample])).unwrap();
    assert_eq!(report.resolved[0].1.series.0, 100);
    store.append(61..62);
}

#[test]
fn a_snapshot_holds_what_a_view_sees_and_stays_as_it_is() {
    let sim = SimFs::new();
    let mut store = filled(&sim);
    store.delete("0", 100, 150).unwrap();
    // A commit that is not complete is not in it.
    let commit = store.head.begin(None);
    let sample = |job: &str| AppendSample {
        series: SeriesKey::Labels(Labels::from_pairs([("__name__", "m"), ("job", job)])),
        at: TimestampMs(MINUTES * 60_000),
        value: 9.0,
    };
    let (id, slice) = store.head.route(AppendBatch::of_floats(vec![sample("1")])).remove(0);
    let shard = &store.head.shards()[usize::from(id.0)];
    let staged = shard.stage(&commit, slice).unwrap();
    shard.apply(staged).unwrap();
    let before = store.seen();

    let to = Path::new("/data/snapshots/one");
    sim.create_dir_all(to).unwrap();
    [DATA, "/data/snapshots"].iter().for_each(|dir| sim.sync_dir(Path::new(dir)).unwrap());
    for block in &store.catalog.state().blocks {
        link_block(&sim, block.dir(), to).unwrap();
    }
    let copy = HeadCompaction::copy(&store.head, &store.catalog, to, 0, &clock(), &mut Random::seeded(6)).unwrap();
    let mut copy = copy.unwrap();
    while copy.step(2).unwrap() == Step::More {}
    let meta = copy.publish().unwrap().unwrap();
    assert_eq!((meta.min_time, meta.max_time), (RANGE_MS, MINUTES * 60_000 + 1));
    drop(commit);
    store.delete(".*", 0, 1000).unwrap();
    store.clean();
    assert_eq!(store.seen(), Seen::new());
    sim.cut_power();

    let fs: SharedFs = Arc::new(sim.clone());
    let catalog = Catalog::new(fs, to, PageCache::new(0), BlockMetrics::new(&Registry::default()));
    catalog.open().unwrap();
    struct Blocks(Arc<Catalog>);
    impl Queryable for Blocks {
        fn view(&self) -> Result<Arc<dyn crate::model::read::ReadView>, crate::model::read::ReadError> {
            Ok(Arc::new(StoreView::of_blocks(self.0.state())))
        }
    }
    assert_eq!(seen(&Blocks(catalog)), before);
    assert!(sim.list(to).unwrap().len() == 2);
}
