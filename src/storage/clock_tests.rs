//! The clock steps under a head with its log, blocks and retention, with restarts in the middle: nothing that should be there goes, and
//! appends go on with the first scrape after the clock is right again.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::model::append::{AppendBatch, AppendSample, SeriesKey};
use crate::model::clock::{Clock, ManualClock, SharedClock};
use crate::model::labels::Labels;
use crate::model::random::Random;
use crate::model::read::{FloatColumn, Queryable, Unlimited};
use crate::model::steady_clock::SteadyClock;
use crate::model::time::{TimeRange, TimestampMs};
use crate::storage::block::PageCache;
use crate::storage::block::catalog::Catalog;
use crate::storage::block::metrics::BlockMetrics;
use crate::storage::block::retention::Retention;
use crate::storage::block::view::StoreQueryable;
use crate::storage::compact::Step;
use crate::storage::compact::head::HeadCompaction;
use crate::storage::fs::sim::SimFs;
use crate::storage::fs::{Fs, SharedFs};
use crate::storage::head::{Head, HeadOptions};
use crate::storage::replay::{self, Aliases, keeper};
use crate::storage::wal::metrics::WalMetrics;
use crate::storage::wal::record::encode_staged;
use crate::storage::wal::writer::Writer;
use crate::storage::wal::{WAL_DIR, WalOptions};

const DATA: &str = "/data";
const NOW: i64 = 1_800_000_000_000;
const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const YEAR_MS: i64 = 365 * 24 * HOUR_MS;
const RANGE_MS: i64 = 2 * HOUR_MS;
/// Time between two scrapes.
const EVERY: Duration = Duration::from_secs(60);
const SERIES: usize = 3;

struct Life {
    sim: SimFs,
    manual: Arc<ManualClock>,
    steady: Arc<SteadyClock>,
    head: Head,
    catalog: Arc<Catalog>,
    writer: Writer,
    aliases: Aliases,
    /// Milliseconds that are kept.
    retention: i64,
    rounds: u64,
}

impl Life {
    fn begin(sim: &SimFs, manual: &Arc<ManualClock>, retention: i64) -> Self {
        let fs: SharedFs = Arc::new(sim.clone());
        fs.create_dir_all(Path::new(DATA)).unwrap();
        let clock: SharedClock = Arc::clone(manual) as SharedClock;
        let steady = SteadyClock::new(&clock);
        let catalog =
            Catalog::new(fs.clone(), Path::new(DATA), PageCache::new(0), BlockMetrics::new(&Default::default()));
        catalog.open().unwrap();
        let head = Head::new(HeadOptions { shards: 2, ..HeadOptions::new(Arc::clone(&steady) as SharedClock) });
        let metrics = WalMetrics::new(&Default::default(), &clock);
        let oldest = TimestampMs(catalog.state().whole_until().unwrap_or(i64::MIN));
        let (writer, report) =
            replay::open(&fs, Path::new(DATA), WalOptions::default(), &metrics, &head, oldest).unwrap();
        let newest = head.stats().max_time.max(catalog.state().blocks.iter().map(|b| b.meta().max_time).max());
        if let Some(newest) = newest.map(TimestampMs) {
            steady.compare(newest);
            head.truncate_blocking(TimestampMs(newest.min(steady.now()).0 - retention));
        }
        let (sim, manual, aliases) = (sim.clone(), Arc::clone(manual), report.head.aliases);
        Self { sim, manual, steady, head, catalog, writer, aliases, retention, rounds: 0 }
    }

    fn restart(self) -> Self {
        let Self { sim, manual, retention, .. } = self;
        Self::begin(&sim, &manual, retention)
    }

    /// A scrape, as the clock of the machine dates it; the samples that were taken. What goes by the clock is done as well.
    fn scrape(&mut self) -> usize {
        let at = self.manual.now();
        let sample = |i: usize| AppendSample {
            series: SeriesKey::Labels(Labels::from_pairs([("__name__", "m".to_owned()), ("i", i.to_string())])),
            at,
            value: at.0 as f64,
        };
        let batch = AppendBatch::of_floats((0..SERIES).map(sample).collect());
        let commit = self.head.begin(Some(at));
        let shard = |id: crate::model::append::ShardId| &self.head.shards()[usize::from(id.0)];
        let slices = self.head.route(batch);
        let staged: Vec<_> =
            slices.into_iter().map(|(id, slice)| (id, shard(id).stage(&commit, slice).unwrap())).collect();
        self.writer.append(&encode_staged(&staged.iter().map(|(_, part)| part).collect::<Vec<_>>())).unwrap();
        drop(commit);
        let taken = staged.into_iter().map(|(id, part)| shard(id).apply(part).unwrap().appended as usize).sum();
        self.rounds += 1;
        self.keep_house();
        taken
    }

    fn keep_house(&mut self) {
        while let Some(range) = self.head.compactable(RANGE_MS) {
            let mut random = Random::seeded(self.rounds);
            let (head, catalog) = (&self.head, &self.catalog);
            let mut compaction =
                HeadCompaction::begin(head, catalog, range, 0, &(Arc::clone(&self.manual) as SharedClock), &mut random)
                    .unwrap();
            while compaction.step(100).unwrap() == Step::More {}
            let made = compaction.publish().unwrap();
            catalog.reload(Retention::default(), 0).unwrap();
            let mut until = range.max_time;
            if made.is_none() {
                until = head.next_range(RANGE_MS).unwrap().map_or(until, |next| next.max(until));
            }
            head.truncate_blocking(TimestampMs(until));
            self.rounds += 1;
            assert!(self.rounds < 100_000, "a gap of years is not walked through");
        }
        let newest = self.catalog.state().blocks.iter().map(|block| block.meta().max_time).max();
        let retention = Retention { time_ms: self.retention, len_max: 0 }.by_clock(&self.steady, newest);
        self.catalog.reload(retention, 0).unwrap();
        if self.steady.is_settled() {
            let bound = TimestampMs(self.steady.now().0 - self.retention);
            self.head.truncate_blocking(bound);
            if self.rounds.is_multiple_of(50)
                && let Some(job) = self.writer.plan_checkpoint().unwrap()
            {
                job.run(bound, &mut keeper(&self.head, &self.aliases)).unwrap();
            }
        }
    }

    /// Scrapes for some minutes of both clocks; how many were taken.
    fn pass(&mut self, minutes: u32) -> usize {
        (0..minutes)
            .map(|_| {
                self.manual.advance(EVERY);
                self.scrape()
            })
            .sum()
    }

    /// Times of one series in a range.
    fn times(&self, from: i64, to: i64) -> Vec<i64> {
        let view = StoreQueryable::new(self.head.queryable(), Arc::clone(&self.catalog)).view().unwrap();
        let range = TimeRange::new(TimestampMs(from), TimestampMs(to)).unwrap();
        let found = view.select(&[], range, &Unlimited).unwrap();
        let mut column = FloatColumn::default();
        if let Some(first) = found.first() {
            first.samples.decode(range, &mut column).unwrap();
        }
        column.timestamps
    }
}

/// Six hours of scrapes, with four kept: some blocks, of which the oldest are gone in time.
fn settled() -> Life {
    let manual = ManualClock::at(TimestampMs(NOW));
    let mut life = Life::begin(&SimFs::new(), &manual, 12 * HOUR_MS);
    assert_eq!(life.pass(360), 360 * SERIES);
    life
}

#[test]
fn a_step_of_the_clock_deletes_nothing_and_appends_go_on_when_it_is_right_again() {
    for step in [HOUR_MS, YEAR_MS, -HOUR_MS, -NOW] {
        for restarts in [false, true] {
            // After a start under a clock that is ahead, nobody can know that it is.
            if restarts && 0 < step {
                continue;
            }
            let mut life = settled();
            let before = life.times(NOW, i64::MAX);
            assert_eq!(before.len(), 360);
            let right = life.manual.now().0;
            life.manual.step_to(TimestampMs(right + step));
            let taken = life.pass(4);
            assert_eq!(taken, 0, "{step}: dated wrongly");
            if restarts {
                life = life.restart();
            }
            life.pass(4);
            assert_eq!(life.times(NOW, right), before, "{step}, restart {restarts}: while the clock is wrong");
            life.manual.step_to(TimestampMs(right + 9 * MINUTE_MS));
            assert_eq!(life.scrape(), SERIES, "{step}, restart {restarts}: the first scrape afterwards");
            assert_eq!(life.pass(30), 30 * SERIES, "{step}");
            assert_eq!(life.times(NOW, right), before, "{step}, restart {restarts}: when it is right again");
            let life = life.restart();
            assert_eq!(life.times(NOW, right), before, "{step}: after another start");
            assert_eq!(life.times(right + 1, i64::MAX).len(), 31, "{step}");
        }
    }
}

#[test]
fn a_frozen_clock_costs_its_own_time_alone() {
    let mut life = settled();
    let frozen = life.manual.now().0;
    for _ in 0..30 {
        life.manual.advance(EVERY);
        life.manual.step_to(TimestampMs(frozen));
        life.scrape();
    }
    assert_eq!(life.times(NOW, i64::MAX).len(), 360);
    life.manual.step_to(TimestampMs(frozen + 30 * MINUTE_MS));
    assert_eq!(life.scrape(), SERIES);
    assert_eq!(life.times(NOW, i64::MAX).len(), 361);
}

#[test]
fn a_clock_of_1970_that_gets_right_leaves_no_gap_that_is_walked_through() {
    let manual = ManualClock::at(TimestampMs(MINUTE_MS));
    let mut life = Life::begin(&SimFs::new(), &manual, 12 * HOUR_MS);
    assert_eq!(life.pass(30), 30 * SERIES);
    life.manual.step_to(TimestampMs(NOW));
    assert_eq!(life.scrape(), SERIES, "the first scrape afterwards");
    assert_eq!(life.pass(300), 300 * SERIES);
    assert!(life.rounds < 1_000, "{}", life.rounds);
    let life = life.restart();
    assert_eq!(life.times(NOW, i64::MAX).len(), 301);
}

#[test]
fn one_sample_far_ahead_is_refused_alone() {
    let mut life = settled();
    let right = life.manual.now().0;
    let sample = |i: usize, ahead: i64| AppendSample {
        series: SeriesKey::Labels(Labels::from_pairs([("__name__", "m".to_owned()), ("i", i.to_string())])),
        at: TimestampMs(right + ahead),
        value: 1.0,
    };
    let ahead = 10 * MINUTE_MS;
    let report =
        life.head.append_blocking(AppendBatch::of_floats(vec![sample(0, ahead + 1), sample(1, 1_000)])).unwrap();
    assert_eq!((report.appended, report.rejected.len()), (1, 1));
    life.manual.advance(EVERY);
    assert_eq!(life.scrape(), SERIES, "nobody is held up by it");
    let checkpoints = life.sim.list(&Path::new(DATA).join(WAL_DIR)).unwrap();
    assert!(!checkpoints.is_empty());
}
