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
use crate::storage::clock_file;
use crate::storage::compact::Step;
use crate::storage::compact::head::HeadCompaction;
use crate::storage::compact::late::LateCompaction;
use crate::storage::fs::sim::SimFs;
use crate::storage::fs::{Fs, SharedFs};
use crate::storage::head::{Head, HeadOptions, Reclaimed};
use crate::storage::replay::{self, Aliases, keeper};
use crate::storage::wal::metrics::WalMetrics;
use crate::storage::wal::record::LogRecords;
use crate::storage::wal::writer::Writer;
use crate::storage::wal::{WAL_DIR, WalOptions};
use crate::storage::wbl::{self, LateLog};

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
    late_log: LateLog,
    /// When late samples became blocks, or began to wait for that.
    late_since: Duration,
    aliases: Aliases,
    /// Milliseconds that are kept.
    retention: i64,
    rounds: u64,
    begun: u64,
}

impl Life {
    fn begin(sim: &SimFs, manual: &Arc<ManualClock>, retention: i64) -> Self {
        let fs: SharedFs = Arc::new(sim.clone());
        fs.create_dir_all(Path::new(DATA)).unwrap();
        let clock: SharedClock = Arc::clone(manual) as SharedClock;
        let steady = SteadyClock::new(&clock);
        if let Some(memory) = clock_file::load(sim, Path::new(DATA)) {
            steady.remember(&memory);
        }
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
            head.truncate_blocking(TimestampMs(newest.min(steady.aging()).0 - retention));
        }
        let (sim, manual, aliases) = (sim.clone(), Arc::clone(manual), report.head.aliases);
        let late_log = LateLog::new(fs, Path::new(DATA), WalOptions::default(), metrics);
        let late_since = clock.monotonic();
        // No two blocks have one name.
        let rounds = sim.operations() << 8;
        Self {
            sim,
            manual,
            steady,
            head,
            catalog,
            writer,
            late_log,
            late_since,
            aliases,
            retention,
            rounds,
            begun: rounds,
        }
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
        let records = LogRecords::of_staged(&staged.iter().map(|(_, part)| part).collect::<Vec<_>>());
        self.writer.append(&records.wal).unwrap();
        self.late_log.append(&records.late).unwrap();
        drop(commit);
        let taken = staged.into_iter().map(|(id, part)| shard(id).apply(part).unwrap().appended as usize).sum();
        self.rounds += 1;
        self.keep_house();
        clock_file::save(&self.sim, Path::new(DATA), &self.steady.memory()).unwrap();
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
            assert!(self.rounds - self.begun < 100_000, "a gap of years is not walked through");
            self.compact_late();
        }
        if RANGE_MS <= i64::try_from((self.manual.monotonic() - self.late_since).as_millis()).unwrap() {
            self.compact_late();
        }
        let newest = self.catalog.state().blocks.iter().map(|block| block.meta().max_time).max();
        let retention = Retention { time_ms: self.retention, len_max: 0 }.by_clock(&self.steady, newest);
        self.catalog.reload(retention, 0).unwrap();
        if self.steady.is_settled() {
            let bound = TimestampMs(self.steady.aging().0 - self.retention);
            self.head.truncate_blocking(bound);
            if self.rounds.is_multiple_of(50)
                && let Some(job) = self.writer.plan_checkpoint().unwrap()
            {
                job.run(bound, &mut keeper(&self.head, &self.aliases)).unwrap();
            }
        }
    }

    fn compact_late(&mut self) {
        self.late_since = self.manual.monotonic();
        if !self.head.has_late() {
            return;
        }
        let kept = self.late_log.cut().unwrap();
        let cut = self.head.cut_late();
        self.rounds += 1;
        let (clock, random) = (Arc::clone(&self.manual) as SharedClock, Random::seeded(self.rounds));
        let mut compaction =
            LateCompaction::begin(&self.head, &self.catalog, cut, (RANGE_MS, 0), &clock, random).unwrap();
        while compaction.step(100).unwrap() == Step::More {}
        compaction.finish();
        self.catalog.reload(Retention::default(), 0).unwrap();
        self.head.drop_late(cut);
        if let Some(kept) = kept {
            let fs: SharedFs = Arc::new(self.sim.clone());
            wbl::remove_before(&fs, Path::new(DATA), kept).unwrap();
        }
        self.head.shards().iter().for_each(|shard| while shard.reclaim(usize::MAX) != Reclaimed::Done {});
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
    let manual = ManualClock::booted(TimestampMs(NOW), "boot");
    let mut life = Life::begin(&SimFs::new(), &manual, 12 * HOUR_MS);
    assert_eq!(life.pass(360), 360 * SERIES);
    life
}

/// When the server starts anew.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Restart {
    Never,
    /// While the clock is wrong.
    Meanwhile,
    /// After it is right, before anything was scraped.
    Afterwards,
}

#[test]
fn a_step_of_the_clock_deletes_nothing_and_appends_go_on_when_it_is_right_again() {
    let whole = settled();
    let (sim, right, up) = (whole.sim.clone(), whole.manual.now().0, whole.manual.monotonic());
    let before = whole.times(NOW, i64::MAX);
    assert_eq!(before.len(), 360);
    drop(whole);
    for step in [HOUR_MS, YEAR_MS, -HOUR_MS, -NOW] {
        // Within the time in which a step is doubted, beyond it, and for longer than the step.
        for minutes in [4, 25, 200] {
            for restart in [Restart::Never, Restart::Meanwhile, Restart::Afterwards] {
                let what = format!("{step} ms for {minutes} min, restart {restart:?}");
                let manual = ManualClock::booted(TimestampMs(right), "boot");
                manual.advance(up);
                manual.step_to(TimestampMs(right));
                let mut life = Life::begin(&sim.fork(), &manual, 12 * HOUR_MS);
                life.manual.step_to(TimestampMs(right + step));
                let taken = life.pass(minutes / 2);
                if restart == Restart::Meanwhile {
                    life = life.restart();
                }
                let taken = taken + life.pass(minutes / 2);
                if minutes == 4 || step < 0 && minutes < 60 || step < -HOUR_MS {
                    assert_eq!(taken, 0, "{what}: dated wrongly, and taken");
                }
                assert_eq!(life.times(NOW, right), before, "{what}: while the clock is wrong");
                let now = right + i64::from(minutes + 1) * MINUTE_MS;
                let ahead = life.times(now, i64::MAX);
                life.manual.step_to(TimestampMs(now));
                if restart == Restart::Afterwards {
                    life = life.restart();
                }
                assert_eq!(life.scrape(), SERIES, "{what}: the first scrape afterwards");
                // Through the times that were dated ahead, and until blocks are made.
                for minute in 1..=240 {
                    assert_eq!(life.pass(1), SERIES, "{what}: minute {minute} afterwards");
                }
                assert_eq!(life.times(NOW, right), before, "{what}: when it is right again");
                let life = life.restart();
                assert_eq!(life.times(NOW, right), before, "{what}: after another start");
                let found = life.times(right + 1, i64::MAX);
                let lost = |t: &&i64| !found.contains(t);
                assert_eq!(ahead.iter().filter(lost).count(), 0, "{what}: what was dated ahead");
                let scraped: Vec<i64> = (0..=240).map(|minute| now + minute * MINUTE_MS).collect();
                assert_eq!(scraped.iter().filter(lost).count(), 0, "{what}: what was scraped afterwards");
            }
        }
    }
}

#[test]
fn a_frozen_clock_costs_its_own_time_alone() {
    let whole = settled();
    let (sim, frozen, up) = (whole.sim.clone(), whole.manual.now().0, whole.manual.monotonic());
    drop(whole);
    for minutes in [4, 30, 200] {
        for restart in [Restart::Never, Restart::Meanwhile, Restart::Afterwards] {
            let what = format!("frozen for {minutes} min, restart {restart:?}");
            let manual = ManualClock::booted(TimestampMs(frozen), "boot");
            manual.advance(up);
            manual.step_to(TimestampMs(frozen));
            let mut life = Life::begin(&sim.fork(), &manual, 12 * HOUR_MS);
            for minute in 0..minutes {
                if restart == Restart::Meanwhile && minute == minutes / 2 {
                    life = life.restart();
                }
                life.manual.advance(EVERY);
                life.manual.step_to(TimestampMs(frozen));
                life.scrape();
            }
            assert_eq!(life.times(NOW, i64::MAX).len(), 360, "{what}");
            life.manual.step_to(TimestampMs(frozen + minutes * MINUTE_MS));
            if restart == Restart::Afterwards {
                life = life.restart();
            }
            assert_eq!(life.scrape(), SERIES, "{what}: the first scrape afterwards");
            assert_eq!(life.pass(150), 150 * SERIES, "{what}");
            assert_eq!(life.times(NOW, i64::MAX).len(), 511, "{what}");
            assert_eq!(life.restart().times(NOW, i64::MAX).len(), 511, "{what}");
        }
    }
}

#[test]
fn a_clock_of_1970_that_gets_right_leaves_no_gap_that_is_walked_through() {
    for restart in [Restart::Never, Restart::Meanwhile, Restart::Afterwards] {
        let manual = ManualClock::at(TimestampMs(MINUTE_MS));
        let mut life = Life::begin(&SimFs::new(), &manual, 12 * HOUR_MS);
        assert_eq!(life.pass(30), 30 * SERIES);
        if restart == Restart::Meanwhile {
            life = life.restart();
        }
        life.manual.step_to(TimestampMs(NOW));
        if restart == Restart::Afterwards {
            life = life.restart();
        }
        assert_eq!(life.scrape(), SERIES, "the first scrape afterwards, restart {restart:?}");
        assert_eq!(life.pass(300), 300 * SERIES);
        assert!(life.rounds - life.begun < 1_000, "{}", life.rounds - life.begun);
        let life = life.restart();
        assert_eq!(life.times(NOW, i64::MAX).len(), 301, "restart {restart:?}");
    }
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
