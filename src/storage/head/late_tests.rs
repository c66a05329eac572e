//! Samples that come out of order, against a naive model: through the log, restarts, truncation and blocks, and with the disk
//! failing.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::append::{AppendSample, LateSamples, SampleRejection, SeriesKey};
use crate::model::clock::{ManualClock, SharedClock};
use crate::model::histogram::{CounterResetHint, FloatHistogram, Histogram, Span};
use crate::model::labels::Labels;
use crate::model::random::Random;
use crate::model::read::{FloatColumn, LookedAt, Scope, SelectedSeries, Unlimited, Wanted};
use crate::model::sample::{is_stale, stale_nan};
use crate::storage::block::PageCache;
use crate::storage::block::catalog::Catalog;
use crate::storage::block::meta::{BlockMeta, HINT_OUT_OF_ORDER};
use crate::storage::block::metrics::BlockMetrics;
use crate::storage::block::retention::Retention;
use crate::storage::block::view::StoreQueryable;
use crate::storage::chunk::written::ChunkPlace;
use crate::storage::chunk_snapshot::{self, SnapshotError, Stop};
use crate::storage::compact::blocks::BlockCompaction;
use crate::storage::compact::head::HeadCompaction;
use crate::storage::compact::late::LateCompaction;
use crate::storage::compact::plan::{PlanRules, plan};
use crate::storage::compact::{CompactError, Step};
use crate::storage::fs::SharedFs;
use crate::storage::fs::sim::SimFs;
use crate::storage::head::export::BlockRange;
use crate::storage::head::shard::Staged;
use crate::storage::head_chunk_store;
use crate::storage::late_floor;
use crate::storage::replay::{self, ReadFrom, ReplayReport};
use crate::storage::wal::metrics::WalMetrics;
use crate::storage::wal::record::LogRecords;
use crate::storage::wal::writer::Writer;
use crate::storage::wal::{WalError, WalOptions};
use crate::storage::wbl::{self, LateLog};

mod cases;
mod cuts;
mod damage;
mod ended;
mod files;
mod histograms;
mod joints;
mod markers;
mod starts;

const DATA: &str = "/data";
const RANGE_MS: i64 = 10_000;
const WINDOW_MS: i64 = 60_000;

fn clock() -> SharedClock {
    ManualClock::at(TimestampMs(1_000_000))
}

fn options() -> HeadOptions {
    let rules = CutRules { samples_per_chunk: 8, chunk_range_ms: RANGE_MS };
    HeadOptions { shards: 2, rules, ..HeadOptions::new(clock()) }
}

fn new_head(window_ms: i64) -> Head {
    head_of(options(), window_ms)
}

fn head_of(options: HeadOptions, window_ms: i64) -> Head {
    let head = Head::new(options);
    head.set_late_window(window_ms);
    head
}

fn labels(number: u32) -> Labels {
    Labels::from_pairs([("__name__", "m".to_owned()), ("instance", number.to_string())])
}

/// The value of each sample follows from its series and its time, so that a repetition is the same sample.
fn value_of(series: u32, t: i64) -> f64 {
    f64::from(series) * 1e6 + t as f64
}

fn sample(series: u32, t: i64) -> AppendSample {
    AppendSample { series: SeriesKey::Labels(labels(series)), at: TimestampMs(t), value: value_of(series, t) }
}

fn floats(samples: impl IntoIterator<Item = (u32, i64)>) -> AppendBatch {
    AppendBatch::of_floats(samples.into_iter().map(|(series, t)| sample(series, t)).collect())
}

type Content = BTreeMap<String, Vec<(i64, f64)>>;

fn content(view: &dyn ReadView) -> Content {
    let series = view.select(&[], TimeRange::ALL, &Unlimited).unwrap();
    let decode = |one: SelectedSeries| {
        let mut column = FloatColumn::default();
        one.samples.decode(TimeRange::ALL, &mut column).unwrap();
        assert!(column.timestamps.is_sorted_by(|a, b| a < b));
        (one.labels.to_string(), column.timestamps.into_iter().zip(column.values).collect())
    };
    let content: Content = series.into_iter().map(decode).collect();
    let floats = super::tests::classed(view, &[], TimeRange::ALL, LookedAt::AllBut(&[]), Wanted::All);
    if let Some(floats) = floats {
        let bits = |all: &Vec<(i64, f64)>| all.iter().map(|(t, value)| (*t, value.to_bits())).collect::<Vec<_>>();
        let expected =
            content.iter().filter(|(_, all)| !all.is_empty()).map(|(labels, all)| (labels.clone(), bits(all)));
        assert!(floats.into_iter().map(|(labels, all)| (labels.to_string(), all)).eq(expected));
    }
    content
}

/// A head with its logs and blocks.
struct Store {
    sim: SimFs,
    fs: SharedFs,
    head: Head,
    writer: Writer,
    late_log: LateLog,
    catalog: Arc<Catalog>,
    report: ReplayReport,
    metrics: WalMetrics,
    seed: u64,
}

impl Store {
    fn open(sim: &SimFs, window_ms: i64) -> Self {
        Self::open_with(sim, new_head(window_ms))
    }

    fn open_with(sim: &SimFs, head: Head) -> Self {
        let fs: SharedFs = Arc::new(sim.clone());
        fs.create_dir_all(Path::new(DATA)).unwrap();
        fs.sync_dir(Path::new("/")).unwrap();
        let catalog =
            Catalog::new(fs.clone(), Path::new(DATA), PageCache::new(0), BlockMetrics::new(&Default::default()));
        catalog.open().unwrap();
        let oldest = TimestampMs(catalog.state().whole_until().unwrap_or(i64::MIN));
        let metrics = WalMetrics::new(&Default::default(), &clock());
        let options = WalOptions::default();
        let (writer, report) = replay::open(&fs, Path::new(DATA), options, &metrics, &head, oldest).unwrap();
        if report.from == ReadFrom::Log {
            // As a start does where the log is whole; the tests with damage go without.
            let sound = report.log.damage.is_empty() && report.log.missing.is_empty() && report.head.unknown_refs == 0;
            if sound && let Ok(store) = head_chunk_store::begin_anew(&fs, Path::new(DATA), Default::default()) {
                head.attach_chunks(store);
            }
        }
        let mut late_log = LateLog::new(fs.clone(), Path::new(DATA), options, metrics.clone());
        late_log.repeat(&report.late_again).unwrap();
        head.begin_chunk_writes();
        // No two blocks have one name, also after a restart.
        Self { sim: sim.clone(), fs, head, writer, late_log, catalog, report, metrics, seed: sim.operations() }
    }

    /// Appends as the actors do: stage, log, apply.
    fn append(&mut self, batch: AppendBatch) -> Result<AppendReport, WalError> {
        let commit = self.head.begin(batch.first_at());
        let shards = self.head.shards().to_vec();
        let staged: Vec<Staged> = self
            .head
            .route(batch)
            .into_iter()
            .map(|(id, slice)| shards[usize::from(id.0)].stage(&commit, slice).unwrap())
            .collect();
        drop(commit);
        let records = LogRecords::of_staged(&staged.iter().collect::<Vec<_>>());
        self.writer.append(&records.wal)?;
        if let Err(error) = self.late_log.append(&records.late) {
            self.writer.undo_append();
            return Err(error);
        }
        let mut report = AppendReport::default();
        for mut part in staged {
            part.set_logged();
            report.absorb(shards[usize::from(part.shard().0)].apply(part).unwrap());
        }
        report.sort();
        Ok(report)
    }

    fn store(&self) -> StoreQueryable {
        StoreQueryable::new(self.head.queryable(), Arc::clone(&self.catalog))
    }

    fn content(&self) -> Content {
        content(&*self.store().view().unwrap())
    }

    /// From where on chunks of late samples are needed.
    fn late_from(&self) -> Option<ChunkPlace> {
        let of_others = self.report.late_chunk_file.map(|_| ChunkPlace::default());
        of_others.or_else(|| self.head.chunk_store().and_then(|store| store.late_from()))
    }

    /// All samples of a series.
    fn column(&self, series: u32) -> SampleColumn {
        let view = self.store().view().unwrap();
        let found = view.select(&[], TimeRange::ALL, &Unlimited).unwrap();
        let mut column = SampleColumn::default();
        if let Some(found) = found.iter().find(|found| found.labels == labels(series)) {
            found.samples.decode_all(TimeRange::ALL, &mut column).unwrap();
        }
        column
    }

    fn random(&mut self) -> Random {
        self.seed = self.seed.max(self.sim.operations()) + 1;
        Random::seeded(self.seed)
    }

    fn compact_head(&mut self) -> Result<u32, CompactError> {
        let mut made = 0;
        while let Some(range) = self.head.compactable(RANGE_MS) {
            made += u32::from(self.compact_range(range)?);
        }
        Ok(made)
    }

    /// Makes a block of the samples in order before the end of the range; true if there are any.
    fn compact_range(&mut self, range: BlockRange) -> Result<bool, CompactError> {
        assert!(self.head.is_settled(self.head.settling()));
        let mut random = self.random();
        let mut compaction = HeadCompaction::begin(&self.head, &self.catalog, range, 0, &clock(), &mut random)?;
        while compaction.step(3)? == Step::More {}
        let made = compaction.publish()?.is_some();
        self.catalog.reload(Retention::default(), 0)?;
        self.head.truncate_blocking(TimestampMs(range.max_time));
        Ok(made)
    }

    fn compact_late(&mut self) -> Result<Vec<BlockMeta>, CompactError> {
        let failed = |error: WalError| crate::storage::block::BlockError::input(error.to_string());
        let kept = self.late_log.cut().map_err(failed)?;
        let cut = self.head.cut_late();
        assert!(self.head.is_settled(self.head.settling()));
        let random = self.random();
        let mut compaction = LateCompaction::begin(&self.head, &self.catalog, cut, (RANGE_MS, 0), &clock(), random)?;
        while compaction.step(2)? == Step::More {}
        let made = compaction.finish();
        self.catalog.reload(Retention::default(), 0)?;
        self.head.drop_late(cut);
        if let Some(from) = self.head.drop_late_chunks(cut) {
            late_floor::save(&*self.fs, Path::new(DATA), from).map_err(failed)?;
        }
        if let Some(kept) = kept {
            wbl::remove_before(&self.fs, Path::new(DATA), kept).map_err(failed)?;
        }
        self.head.shards().iter().for_each(|shard| while shard.reclaim(3) == Reclaimed::More {});
        Ok(made)
    }

    /// Ends in order, with a snapshot of the head.
    fn stop(&mut self) {
        self.try_stop().unwrap();
    }

    fn try_stop(&mut self) -> Result<(), SnapshotError> {
        self.late_log.sync()?;
        let position = self.writer.finish()?;
        let (clock, aliases) = (clock(), &self.report.head.aliases);
        let stop = Stop { position, options: WalOptions::default(), aliases, clock: &clock };
        chunk_snapshot::write(&self.fs, Path::new(DATA), &self.head, &stop).map(drop)
    }

    fn merge_blocks(&mut self) -> Result<u32, CompactError> {
        let rules = PlanRules { ranges: vec![RANGE_MS, RANGE_MS * 3], merge_overlapping: true };
        let mut merged = 0;
        loop {
            let state = self.catalog.state();
            let metas: Vec<BlockMeta> = state.blocks.iter().map(|block| block.meta().clone()).collect();
            let planned = plan(&metas, &rules);
            if planned.is_empty() {
                return Ok(merged);
            }
            let sources = state.blocks.iter().filter(|block| planned.contains(&block.meta().ulid)).cloned().collect();
            let mut random = self.random();
            let mut compaction = BlockCompaction::begin(&self.catalog, sources, 0, &clock(), &mut random)?;
            while compaction.step(3)? == Step::More {}
            compaction.publish()?;
            self.catalog.reload(Retention::default(), 0)?;
            merged += 1;
        }
    }
}

/// What samples of these times should read as.
fn expected(samples: impl IntoIterator<Item = (u32, i64)>) -> Content {
    let mut all: BTreeMap<String, BTreeMap<i64, f64>> = BTreeMap::new();
    for (series, t) in samples {
        all.entry(labels(series).to_string()).or_default().insert(t, value_of(series, t));
    }
    all.into_iter().map(|(labels, own)| (labels, own.into_iter().collect())).collect()
}

#[test]
fn a_window_decides_what_comes_too_late() {
    let head = new_head(0);
    let rejected = |head: &Head, batch: AppendBatch| -> Vec<SampleRejection> {
        head.append_blocking(batch).unwrap().rejected.into_iter().map(|(_, rejection)| rejection).collect()
    };
    assert_eq!(
        rejected(&head, floats([(1, 200_000), (1, 199_000), (1, 100_000)])),
        [SampleRejection::OutOfOrder, SampleRejection::OutOfBounds]
    );
    head.set_late_window(WINDOW_MS);
    // Within the window, also for a series that has nothing yet; beyond it; and a repetition of another value is passed over.
    let mut batch = floats([(1, 199_000), (1, 140_000), (2, 150_000), (1, 139_999), (3, 100)]);
    batch.push_float(SeriesKey::Labels(labels(1)), TimestampMs(140_000), 7.0);
    assert_eq!(rejected(&head, batch), [SampleRejection::TooOld; 2]);
    assert_eq!(SampleRejection::TooOld.to_string(), "too old sample");
    // The newest one, in order, is judged as ever.
    let mut batch = AppendBatch::default();
    batch.push_float(SeriesKey::Labels(labels(1)), TimestampMs(200_000), 7.0);
    assert!(matches!(rejected(&head, batch)[..], [SampleRejection::Duplicate { at: 200_000, .. }]));
    let refused = AppendBatch { late: LateSamples::Refused, ..floats([(1, 198_000), (1, 100)]) };
    assert_eq!(rejected(&head, refused), [SampleRejection::OutOfOrder, SampleRejection::TooOld]);
    let mut markers = AppendBatch { late: LateSamples::MarkersRefused, ..floats([(1, 197_000)]) };
    markers.push_float(SeriesKey::Labels(labels(1)), TimestampMs(198_000), stale_nan());
    assert_eq!(rejected(&head, markers), [SampleRejection::OutOfOrder]);
    let seen = content(&*head.queryable().view().unwrap());
    assert_eq!(seen, expected([(1, 200_000), (1, 199_000), (1, 197_000), (1, 140_000), (2, 150_000)]));
    let stats = head.stats();
    assert_eq!((stats.out_of_order, stats.out_of_bounds, stats.too_old), (3, 1, 3));
    assert_eq!((stats.late_floats, stats.samples_appended, stats.late_series, stats.chunks), (4, 5, 2, 3));
    assert_eq!(stats.late_by.cumulative.last(), Some(&(None, 11)));
    assert_eq!(stats.late_by.cumulative[0], (Some(600), 11));
    assert_eq!((stats.min_time, stats.max_time), (Some(200_000), Some(200_000)), "those of samples in order");
    let view = head.queryable().view().unwrap();
    let range = TimeRange::new(TimestampMs(149_000), TimestampMs(151_000)).unwrap();
    assert_eq!(view.label_values("instance", &Scope::all(&[], range), &Unlimited).unwrap(), ["1", "2"]);
    assert_eq!(view.select(&[], range, &Unlimited).unwrap().len(), 1);
}

#[test]
fn an_old_view_sees_what_has_become_a_block() {
    let mut store = Store::open(&SimFs::new(), WINDOW_MS);
    store.append(floats([(1, 100_000), (2, 100_000)])).unwrap();
    let before = store.store().view().unwrap();
    let late: Vec<(u32, i64)> = (0..90).map(|i| (1 + i as u32 % 2, 50_000 + i * 100)).collect();
    store.append(floats(late.clone())).unwrap();
    let old = store.store().view().unwrap();
    let all = expected(late.into_iter().chain([(1, 100_000), (2, 100_000)]));
    assert_eq!(content(&*before), expected([(1, 100_000), (2, 100_000)]));
    let made = store.compact_late().unwrap();
    assert_eq!(made.iter().map(|meta| (meta.min_time, meta.max_time)).collect::<Vec<_>>(), [(50_000, 60_000)]);
    assert!(made[0].has_hint(HINT_OUT_OF_ORDER) && made[0].compaction.level == 1);
    assert_eq!(made[0].stats.num_samples, 90);
    assert!(store.head.has_late(), "held for the views");
    assert_eq!((content(&*old), content(&*before)), (all.clone(), expected([(1, 100_000), (2, 100_000)])));
    assert_eq!(store.content(), all, "both at once");
    drop((old, before));
    store.head.shards().iter().for_each(|shard| assert_eq!(shard.reclaim(usize::MAX), Reclaimed::Done));
    assert_eq!((store.head.has_late(), store.head.stats().late_series, store.content()), (false, 0, all));
    // Of its segments one is left, which is empty.
    assert_eq!(store.fs.list(&Path::new(DATA).join("wbl")).unwrap().len(), 1);
}

#[test]
fn histograms_come_late_in_both_kinds() {
    let histogram = |n: u64| Histogram {
        counter_reset_hint: CounterResetHint::Unknown,
        count: 10 + n,
        sum: n as f64,
        positive_spans: vec![Span { offset: 0, length: 2 }],
        positive_buckets: vec![(5 + n).cast_signed(), -(n.cast_signed())],
        ..Histogram::default()
    };
    let mut store = Store::open(&SimFs::new(), WINDOW_MS);
    let key = |n| SeriesKey::Labels(labels(n));
    let mut batch = AppendBatch::default();
    for (n, t) in [(9, 100_000), (8, 101_000), (1, 60_000), (3, 62_000), (2, 61_000)] {
        batch.push_histogram(key(1), TimestampMs(t), histogram(n));
        batch.push_histogram(key(2), TimestampMs(t), histogram(n).to_float());
    }
    // A marker becomes one of the kind of the newest sample; a float may stand among histograms.
    batch.push_float(key(3), TimestampMs(100_000), 1.0);
    store.append(batch).unwrap();
    let mut batch = AppendBatch::default();
    batch.push_float(key(1), TimestampMs(63_000), stale_nan());
    batch.push_float(key(2), TimestampMs(63_000), 5.0);
    batch.push_histogram(key(3), TimestampMs(63_000), histogram(4));
    assert_eq!(store.append(batch).unwrap().rejected, []);
    let check = |store: &Store| {
        let view = store.store().view().unwrap();
        let all = view.select(&[], TimeRange::ALL, &Unlimited).unwrap();
        let columns: Vec<SampleColumn> = all
            .iter()
            .map(|series| {
                let mut column = SampleColumn::default();
                series.samples.decode_all(TimeRange::ALL, &mut column).unwrap();
                column
            })
            .collect();
        let sums = |at: usize| -> Vec<f64> { columns[at].histograms.values.iter().map(|h| h.sum).collect() };
        assert_eq!(columns[1].histograms.timestamps, [60_000, 61_000, 62_000, 100_000, 101_000]);
        assert_eq!(sums(1), [1.0, 2.0, 3.0, 9.0, 8.0]);
        assert_eq!(columns[1].floats.timestamps, [63_000]);
        assert_eq!((columns[0].histograms.len(), columns[0].floats.len()), (6, 0));
        assert!(is_stale(columns[0].histograms.values[3].sum) && columns[0].histograms.values[3].is_stale());
        assert_eq!((columns[2].histograms.len(), columns[2].floats.len()), (1, 1));
        let late: &FloatHistogram = &columns[0].histograms.values[1];
        assert_eq!(late.positive_buckets, histogram(2).to_float().positive_buckets);
    };
    check(&store);
    let stats = store.head.stats();
    assert_eq!((stats.late_histograms, stats.late_floats), (8, 1));
    let mut again = Store::open(&store.sim.fork(), 0);
    check(&again);
    assert_eq!(again.report.head.late, 9);
    let made = again.compact_late().unwrap();
    assert_eq!((made.len(), made[0].stats.num_histogram_samples, made[0].stats.num_float_samples), (1, 8, 1));
    assert!(!again.head.has_late());
    check(&again);
}

#[test]
fn a_shard_is_rebuilt_with_its_late_samples() {
    let mut store = Store::open(&SimFs::new(), WINDOW_MS);
    let samples: Vec<(u32, i64)> = (0..400).map(|i| ((i % 7) as u32, 100_000 - (i % 100) * 400)).collect();
    samples.chunks(30).for_each(|part| drop(store.append(floats(part.to_vec())).unwrap()));
    assert_eq!(store.content(), expected(samples.clone()));
    let chunks = store.head.stats().chunks;
    for shard in store.head.shards() {
        shard.begin_rebuild("a test");
        replay::rebuild_shard(&store.fs, Path::new(DATA), &store.head, shard.id(), store.writer.position()).unwrap();
    }
    assert_eq!((store.content(), store.head.stats().chunks), (expected(samples), chunks));
}

#[test]
fn series_with_late_samples_alone_stay_until_blocks_stand_for_them() {
    let mut store = Store::open(&SimFs::new(), WINDOW_MS);
    store.append(floats([(1, 100_000), (2, 60_000)])).unwrap();
    store.append(floats([(1, 155_000)])).unwrap();
    store.head.truncate_blocking(TimestampMs(150_000));
    assert_eq!(store.head.series_count(), 2);
    assert_eq!(store.content(), expected([(1, 155_000), (2, 60_000)]));
    store.compact_late().unwrap();
    store.head.truncate_blocking(TimestampMs(150_000));
    assert_eq!(store.head.series_count(), 1);
    assert_eq!(store.content(), expected([(1, 155_000), (2, 60_000)]));
}

#[test]
fn a_stop_leaves_late_samples_in_their_log_alone() {
    let (mut store, all) = filled(&SimFs::new());
    let late = store.head.stats().late_floats;
    // A series that has nothing else.
    store.append(floats([(9, 80_000)])).unwrap();
    let all = || expected([(9, 80_000)]).into_iter().chain(all.clone()).collect::<Content>();
    store.stop();
    let mut store = Store::open(&store.sim.clone(), WINDOW_MS);
    assert_eq!((&store.report.from, store.report.head.late), (&ReadFrom::Snapshot, late + 1));
    assert_eq!((store.report.head.series, store.report.log.samples, store.content()), (4, 0, all()));
    // Killed afterwards: what came behind the snapshot is there as well, late or not, also without the snapshot.
    store.append(floats([(1, 121_000), (1, 99_750), (2, 99_750)])).unwrap();
    let more = store.content();
    assert_ne!(more, all());
    let again = Store::open(&store.sim.fork(), WINDOW_MS);
    assert_eq!((&again.report.from, again.content()), (&ReadFrom::Snapshot, more.clone()));
    chunk_snapshot::prepare_truncation(&store.fs, Path::new(DATA), TimestampMs(0), None, &|_| true).unwrap();
    assert_eq!(Store::open(&store.sim.fork(), WINDOW_MS).content(), more);
    // Once blocks stand for them, nothing of them is read.
    store.compact_late().unwrap();
    store.stop();
    let again = Store::open(&store.sim.fork(), WINDOW_MS);
    assert_eq!((&again.report.from, again.report.head.late, again.content()), (&ReadFrom::Snapshot, 0, more));
    assert_eq!((again.report.late_log.missing.len(), again.report.late_log.missing_files.len()), (0, 0));
}

/// A store with samples in order and late, of which both want to be compacted.
fn filled(sim: &SimFs) -> (Store, Content) {
    let mut store = Store::open(sim, WINDOW_MS);
    let mut all = Vec::new();
    for i in 0..40 {
        let t = 100_000 + i * 500;
        let batch: Vec<(u32, i64)> = (0..3).flat_map(|s| [(s, t), (s, t - 30_250 - (i * 7 % 11) * 100)]).collect();
        all.extend(batch.clone());
        assert_eq!(store.append(floats(batch)).unwrap().rejected, []);
    }
    (store, expected(all))
}

#[test]
fn whatever_fails_while_late_samples_become_blocks_nothing_is_lost_or_doubled() {
    let whole = SimFs::new();
    let (mut store, all) = filled(&whole);
    store.writer.sync().unwrap();
    store.late_log.sync().unwrap();
    drop(store);
    let steps = {
        let mut store = Store::open(&whole.fork(), WINDOW_MS);
        assert_eq!(store.content(), all);
        let before = store.sim.operations();
        assert!(1 < store.compact_late().unwrap().len());
        store.sim.operations() - before
    };
    for n in 1..=steps {
        for more in [0, u64::MAX] {
            let mut store = Store::open(&whole.fork(), WINDOW_MS);
            store.sim.fail_nth(n, more);
            let done = store.compact_late();
            store.sim.heal();
            assert_eq!(store.content(), all, "operation {n}: {:?}", done.err());
            if more == 0 {
                store.sim.cut_power();
            }
            let mut store = Store::open(&store.sim.clone(), 0);
            assert_eq!(store.content(), all, "after operation {n}");
            store.compact_late().unwrap();
            store.compact_head().unwrap();
            store.merge_blocks().unwrap();
            assert_eq!((store.content(), store.head.has_late()), (all.clone(), false), "after operation {n}");
        }
    }
}

#[test]
fn whatever_fails_in_an_append_both_logs_agree() {
    for n in 1.. {
        let sim = SimFs::new();
        let mut store = Store::open(&sim, WINDOW_MS);
        store.append(floats([(1, 100_000), (1, 90_000)])).unwrap();
        let before = sim.operations();
        sim.fail_nth(n, 0);
        let appended = store.append(floats([(1, 101_000), (1, 91_000), (2, 92_000)]));
        let untouched = sim.operations() - before < n;
        sim.heal();
        let mut samples = vec![(1, 100_000), (1, 90_000)];
        if appended.is_ok() {
            samples.extend([(1, 101_000), (1, 91_000), (2, 92_000)]);
        }
        store.append(floats([(1, 102_000), (1, 93_000)])).unwrap();
        samples.extend([(1, 102_000), (1, 93_000)]);
        assert_eq!(store.content(), expected(samples.clone()), "operation {n}");
        let after = Store::open(&sim.fork(), WINDOW_MS);
        assert_eq!(after.content(), expected(samples), "operation {n}");
        assert_eq!((after.report.log.damage.len(), after.report.late_log.damage.len()), (0, 0));
        if untouched {
            assert!(1 < n);
            return;
        }
    }
}

/// What a test does to a store.
#[derive(Clone, Debug)]
enum Deed {
    /// Samples so far before the newest time, or after it where that is negative.
    Append(Vec<(u32, i64)>),
    Restart {
        window: bool,
    },
    Stop,
    PowerCut,
    WriteChunks,
    CompactHead,
    CompactLate,
    MergeBlocks,
}

fn steps() -> impl Strategy<Value = Vec<Deed>> {
    let sample = (0u32..5, prop_oneof![2 => -3_000i64..0, 1 => 0i64..2_000, 1 => 0i64..WINDOW_MS]);
    let step = prop_oneof![
        12 => proptest::collection::vec(sample, 1..40).prop_map(Deed::Append),
        1 => any::<bool>().prop_map(|window| Deed::Restart { window }),
        1 => Just(Deed::Stop),
        1 => Just(Deed::PowerCut),
        2 => Just(Deed::WriteChunks),
        2 => Just(Deed::CompactHead),
        2 => Just(Deed::CompactLate),
        1 => Just(Deed::MergeBlocks),
    ];
    proptest::collection::vec(step, 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn whatever_comes_in_whatever_order_is_there(steps in steps()) {
        let mut store = Store::open(&SimFs::new(), WINDOW_MS);
        let (mut all, mut newest) = (Vec::new(), 500_000);
        for step in steps {
            match step {
                Deed::Append(offsets) => {
                    let samples: Vec<(u32, i64)> = offsets.into_iter().map(|(s, before)| (s, newest - before)).collect();
                    let report = store.append(floats(samples.clone())).unwrap();
                    let mut taken: Vec<_> = samples.iter().copied().map(Some).collect();
                    for (index, rejection) in report.rejected {
                        let allowed = [SampleRejection::OutOfOrder, SampleRejection::OutOfBounds, SampleRejection::TooOld];
                        prop_assert!(allowed.contains(&rejection));
                        let off = store.head.late_window_ms() == 0;
                        prop_assert!(off || newest - samples[index as usize].1 > WINDOW_MS - 3_000);
                        taken[index as usize] = None;
                    }
                    let taken: Vec<(u32, i64)> = taken.into_iter().flatten().collect();
                    newest = taken.iter().map(|(_, t)| *t).max().map_or(newest, |t| t.max(newest));
                    all.extend(taken);
                }
                Deed::Restart { window } => {
                    store.writer.sync().unwrap();
                    store.late_log.sync().unwrap();
                    store = Store::open(&store.sim.clone(), if window { WINDOW_MS } else { 0 });
                }
                Deed::Stop => {
                    store.stop();
                    store = Store::open(&store.sim.clone(), WINDOW_MS);
                }
                Deed::PowerCut => {
                    store.writer.sync().unwrap();
                    store.late_log.sync().unwrap();
                    store.sim.cut_power();
                    store = Store::open(&store.sim.clone(), WINDOW_MS);
                }
                Deed::WriteChunks => store.head.write_chunks_blocking().unwrap(),
                Deed::CompactHead => drop(store.compact_head().unwrap()),
                Deed::CompactLate => drop(store.compact_late().unwrap()),
                Deed::MergeBlocks => drop(store.merge_blocks().unwrap()),
            }
            prop_assert_eq!(store.content(), expected(all.clone()));
        }
    }
}

/// Written by Prometheus 3.14 with a window of six hours and stopped: forty samples of three series in order, each followed
/// by one that came hours late. Some of the late ones stand in head chunks as well, with markers of them in their log.
#[test]
fn late_samples_of_prometheus_are_read_whole() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/late");
    let sim = SimFs::new();
    let put = |sim: &SimFs, without: &[&str]| {
        for file in ["wal/00000000", "wbl/00000000", "chunks_head/000001"] {
            if !without.contains(&file) {
                sim.put(&Path::new(DATA).join(file), &std::fs::read(golden.join(file)).unwrap()).unwrap();
            }
        }
    };
    put(&sim, &[]);
    let (now, rounds) = (1_700_100_000_000i64, 40i64);
    let times = |i: i64| {
        let t = now - (rounds - i) * 15_000;
        [t, t - 3 * 3_600_000 - 7_000 - (i * 37 % 50) * 1_000]
    };
    let open = |sim: &SimFs| {
        let head = Head::new(HeadOptions { shards: 2, ..HeadOptions::new(ManualClock::at(TimestampMs(now))) });
        let fs: SharedFs = Arc::new(sim.clone());
        let metrics = WalMetrics::new(&Default::default(), &clock());
        let oldest = TimestampMs(i64::MIN);
        let (_, report) = replay::open(&fs, Path::new(DATA), WalOptions::default(), &metrics, &head, oldest).unwrap();
        let checked = crate::storage::head_chunks::check(&fs, Path::new(DATA), &head, &report.head.aliases, i64::MIN);
        (head, report, checked.unwrap())
    };
    let (head, report, checked) = open(&sim);
    assert_eq!((report.log.damage.len(), report.late_log.damage.len(), report.head.late), (0, 0, 120));
    assert_eq!((report.late_chunk_file, report.head.late_unknown_refs), (None, 0));
    assert!(3 <= checked.late);
    let mut want = Content::new();
    for series in 0..2i64 {
        let mut all = BTreeMap::new();
        for i in 0..rounds {
            let [t, late] = times(i);
            all.insert(t, (series * 1000 + i) as f64);
            all.insert(late, (series * 1000 + i) as f64 + 0.5);
        }
        let labels = Labels::from_pairs([("__name__", "m".to_owned()), ("s", series.to_string())]);
        want.insert(labels.to_string(), all.into_iter().collect());
    }
    let of_floats = |head: &Head| -> Content {
        content(&*head.queryable().view().unwrap()).into_iter().filter(|(_, samples)| !samples.is_empty()).collect()
    };
    assert_eq!(of_floats(&head), want);
    let view = head.queryable().view().unwrap();
    let mut column = SampleColumn::default();
    view.select(&[], TimeRange::ALL, &Unlimited).unwrap()[0].samples.decode_all(TimeRange::ALL, &mut column).unwrap();
    let mut counts: BTreeMap<i64, f64> = BTreeMap::new();
    for i in 0..rounds {
        counts.extend(times(i).map(|t| (t, (10 + i) as f64)));
    }
    let found = column.histograms.timestamps.iter().copied().zip(column.histograms.values.iter().map(|h| h.count));
    assert_eq!(found.collect::<Vec<_>>(), counts.into_iter().collect::<Vec<_>>());
    // Without their log, those in head chunks are there.
    let sim = SimFs::new();
    put(&sim, &["wbl/00000000"]);
    let (head, report, _) = open(&sim);
    assert!(90 <= report.head.late && report.head.late <= 120, "{}", report.head.late);
    for (labels, samples) in of_floats(&head) {
        assert!(samples.iter().all(|sample| want[&labels].contains(sample)));
    }
}
