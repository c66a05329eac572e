//! Native histograms against Prometheus: its write log becomes our head, whose block has the bytes of its block; blocks that it
//! has merged and cleaned have the bytes of ours. See `tests/data/native`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::PageCache;
use super::catalog::Catalog;
use super::metrics::BlockMetrics;
use super::retention::Retention;
use super::view::{StoreQueryable, StoreView};
use crate::model::clock::{ManualClock, SharedClock};
use crate::model::histogram::{CounterResetHint, FloatHistogram};
use crate::model::matcher::{MatchOp, Matcher};
use crate::model::random::Random;
use crate::model::read::{FloatColumn, Queryable, ReadView, SampleColumn, Unlimited};
use crate::model::time::{TimeRange, TimestampMs};
use crate::storage::compact::Step;
use crate::storage::compact::blocks::BlockCompaction;
use crate::storage::compact::head::HeadCompaction;
use crate::storage::fs::SharedFs;
use crate::storage::fs::sim::SimFs;
use crate::storage::head::{Head, HeadOptions};
use crate::storage::replay;
use crate::storage::wal::WalOptions;
use crate::storage::wal::histogram_record::{RefHistogram, encode_histograms};
use crate::storage::wal::metrics::WalMetrics;
use crate::storage::wal::record::{RecordKind, RefSample, RefSeries, encode_samples, encode_series};
use crate::storage::wal::{RecordSink, read_until};

const DATA: &str = "/data";
const RANGE_MS: i64 = 7_200_000;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/native").join(name)
}

/// The only block in a golden folder.
fn golden_block(name: &str) -> PathBuf {
    let entry = std::fs::read_dir(golden(name)).unwrap().next().unwrap().unwrap();
    entry.path()
}

fn clock() -> SharedClock {
    ManualClock::at(TimestampMs(1_800_000_000_000))
}

fn catalog_of(sim: &SimFs) -> Arc<Catalog> {
    let metrics = BlockMetrics::new(&Default::default());
    let catalog = Catalog::new(Arc::new(sim.clone()), Path::new(DATA), PageCache::new(0), metrics);
    catalog.open().unwrap();
    catalog
}

fn put_block(sim: &SimFs, from: &Path) {
    let name = from.file_name().unwrap();
    for file in ["index", "meta.json", "tombstones", "chunks/000001"] {
        let data = std::fs::read(from.join(file)).unwrap();
        sim.put(&Path::new(DATA).join(name).join(file), &data).unwrap();
    }
}

fn head_of_log(shards: u16, sim: &SimFs) -> Head {
    let head = Head::new(HeadOptions { shards, ..HeadOptions::new(clock()) });
    let fs: SharedFs = Arc::new(sim.clone());
    let metrics = WalMetrics::new(&Default::default(), &clock());
    let oldest = TimestampMs(i64::MIN);
    let (_, report) = replay::open(&fs, Path::new(DATA), WalOptions::default(), &metrics, &head, oldest).unwrap();
    assert_eq!((report.log.damage.len(), report.log.skipped().count(), report.head.bad_histograms), (0, 0, 0));
    assert_eq!((report.head.unknown_refs, report.head.not_newer), (0, 0));
    head
}

fn golden_log() -> SimFs {
    let sim = SimFs::new();
    sim.put(&Path::new(DATA).join("wal/00000000"), &std::fs::read(golden("wal/00000000")).unwrap()).unwrap();
    sim
}

fn compacted(head: &Head, sim: &SimFs) -> (Arc<Catalog>, PathBuf) {
    let catalog = catalog_of(sim);
    let range = head.compactable(RANGE_MS).unwrap();
    let mut compaction = HeadCompaction::begin(head, &catalog, range, 0, &clock(), &mut Random::seeded(5)).unwrap();
    while compaction.step(5).unwrap() == Step::More {}
    let meta = compaction.publish().unwrap().unwrap();
    catalog.reload(Retention::default(), 0).unwrap();
    (catalog, Path::new(DATA).join(meta.ulid.to_string()))
}

/// Errors with the first file that differs.
fn compare(sim: &SimFs, ours: &Path, theirs: &Path) -> Result<(), String> {
    for file in ["chunks/000001", "index", "tombstones"] {
        let (own, their) = (sim.read(&ours.join(file)).unwrap(), std::fs::read(theirs.join(file)).unwrap());
        if own != their {
            let at = own.iter().zip(&their).position(|(a, b)| a != b);
            return Err(format!("{file} differs at {at:?}: {} and {} bytes", own.len(), their.len()));
        }
    }
    Ok(())
}

type Samples = Vec<(String, Vec<(i64, String)>)>;

/// All samples as text, with what a query sees of counter resets.
fn everything(view: &dyn ReadView) -> Samples {
    let describe = |one: &crate::model::read::SelectedSeries| {
        let mut column = SampleColumn::default();
        one.samples.decode_all(TimeRange::ALL, &mut column).unwrap();
        assert!(column.float_starts.is_empty() && column.histograms.timestamps.is_sorted());
        let mut floats = FloatColumn::default();
        one.samples.decode(TimeRange::ALL, &mut floats).unwrap();
        let bits = |column: &FloatColumn| column.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!((&floats.timestamps, bits(&floats)), (&column.floats.timestamps, bits(&column.floats)));
        let floats = column.floats.timestamps.iter().zip(bits(&column.floats)).map(|(t, v)| (*t, format!("{v:x}")));
        let shown = |histogram: &Arc<FloatHistogram>| {
            let mut plain = FloatHistogram::clone(histogram);
            plain.compact(0);
            format!("{:x} {plain:?}", plain.sum.to_bits())
        };
        let histograms = column.histograms.timestamps.iter().zip(&column.histograms.values);
        let mut all: Vec<(i64, String)> = floats.chain(histograms.map(|(t, h)| (*t, shown(h)))).collect();
        all.sort();
        (one.labels.to_string(), all)
    };
    view.select(&[], TimeRange::ALL, &Unlimited).unwrap().iter().map(describe).collect()
}

fn without_hints(samples: &Samples) -> Samples {
    let hints = [CounterResetHint::NotReset, CounterResetHint::Unknown, CounterResetHint::Reset];
    let strip = |text: &String| {
        hints.iter().fold(text.clone(), |text, hint| {
            text.replace(&format!("counter_reset_hint: {hint:?}"), "counter_reset_hint")
        })
    };
    let strip_all = |all: &Vec<(i64, String)>| all.iter().map(|(t, text)| (*t, strip(text))).collect();
    samples.iter().map(|(labels, all)| (labels.clone(), strip_all(all))).collect()
}

#[test]
fn a_head_replayed_from_prometheus_writes_its_block() {
    let sim = golden_log();
    let head = head_of_log(3, &sim);
    let before = everything(&*head.queryable().view().unwrap());
    assert_eq!(before.len(), 12);
    let (catalog, ours) = compacted(&head, &sim);
    compare(&sim, &ours, &golden_block("first")).unwrap();
    // Head and block hold the same; both together do as well.
    let store = StoreQueryable::new(head.queryable(), Arc::clone(&catalog));
    assert_eq!(everything(&*store.view().unwrap()), before);
    let until = catalog.state().whole_until().unwrap();
    head.truncate_blocking(TimestampMs(until));
    assert_eq!(everything(&*store.view().unwrap()), before);
}

#[test]
fn after_a_deleted_beginning_one_histogram_alone_knows_of_none_before_it() {
    let sim = SimFs::new();
    put_block(&sim, &golden_block("first"));
    let catalog = catalog_of(&sim);
    let view = || StoreView::of_blocks(catalog.state());
    let columns = || -> Vec<SampleColumn> {
        let selected = view().select(&[], TimeRange::ALL, &Unlimited).unwrap();
        let decoded = selected.iter().map(|one| {
            let mut column = SampleColumn::default();
            one.samples.decode_all(TimeRange::ALL, &mut column).unwrap();
            column
        });
        decoded.filter(|column| !column.histograms.is_empty()).collect()
    };
    let before = columns();
    let first = before.iter().filter_map(|column| column.histograms.timestamps.first()).min().copied().unwrap();
    let any = vec![vec![Matcher::new(MatchOp::Regex, "__name__", ".+").unwrap()]];
    let range = TimeRange::new(TimestampMs(first), TimestampMs(first)).unwrap();
    let (blocks, written) = catalog.write_deletion(catalog.plan_deletion(&any, range).unwrap());
    catalog.show_deleted(blocks, || ());
    written.unwrap();
    let mut changed = 0;
    for (old, new) in before.iter().zip(columns()) {
        let from = usize::from(old.histograms.timestamps.first() == Some(&first));
        let old: Vec<_> = old.histograms.values.iter().skip(from).map(|h| h.counter_reset_hint).collect();
        let new: Vec<_> = new.histograms.values.iter().map(|h| h.counter_reset_hint).collect();
        if from == 1 && old.first() == Some(&CounterResetHint::NotReset) {
            assert_eq!(new.first(), Some(&CounterResetHint::Unknown));
            assert_eq!(new[1..], old[1..]);
            changed += usize::from(old[1..].contains(&CounterResetHint::NotReset));
        }
    }
    assert!(0 < changed);
}

/// Writes every record again.
#[derive(Default)]
struct Rewritten(Vec<crate::storage::wal::record::Record>);

impl RecordSink for Rewritten {
    fn series(&mut self, series: &mut Vec<RefSeries>) {
        encode_series(series.iter().map(|s| (s.series, &s.labels)), &mut self.0);
    }
    fn samples(&mut self, samples: &[RefSample]) {
        encode_samples(samples.iter().copied(), &mut self.0);
    }
    fn histograms(&mut self, histograms: &[RefHistogram]) {
        encode_histograms(histograms.iter().map(|h| (h.series, h.t, &h.value)), &mut self.0);
    }
    fn other(&mut self, kind: RecordKind, _: &[u8]) {
        panic!("{kind:?}");
    }
}

#[test]
fn the_log_of_prometheus_is_written_again_with_the_same_contents() {
    let sim = golden_log();
    let fs: SharedFs = Arc::new(sim.clone());
    let until = crate::storage::wal::writer::Position { segment: 9, offset: 0 };
    let mut rewritten = Rewritten::default();
    read_until(&fs, &Path::new(DATA).join("wal"), until, &mut rewritten).unwrap();
    let again = SimFs::new();
    let fs: SharedFs = Arc::new(again.clone());
    fs.create_dir_all(Path::new(DATA)).unwrap();
    let metrics = WalMetrics::new(&Default::default(), &clock());
    let empty = Head::new(HeadOptions::new(clock()));
    let oldest = TimestampMs(i64::MIN);
    let opened = replay::open(&fs, Path::new(DATA), WalOptions::default(), &metrics, &empty, oldest);
    let (mut writer, _) = opened.unwrap();
    rewritten.0.chunks(50).for_each(|records| writer.append(records).unwrap());
    drop(writer);
    let (ours, theirs) = (head_of_log(1, &again), head_of_log(1, &sim));
    let shown = |head: &Head| everything(&*head.queryable().view().unwrap());
    assert_eq!(shown(&ours), shown(&theirs));
    compare(&again, &compacted(&ours, &again).1, &golden_block("first")).unwrap();
    if let Some(kept) = std::env::var_os("WATCHFIRE_KEEP_NATIVE") {
        copy_out(&again, Path::new(DATA), Path::new(&kept));
    }
}

/// Copies a data directory to real files, to be opened with another program.
fn copy_out(sim: &SimFs, from: &Path, to: &Path) {
    use crate::storage::fs::Fs as _;
    std::fs::create_dir_all(to).unwrap();
    for entry in sim.list(from).unwrap() {
        let (from, to) = (from.join(&entry.name), to.join(&entry.name));
        if entry.is_dir {
            copy_out(sim, &from, &to);
        } else {
            std::fs::write(to, sim.read(&from).unwrap()).unwrap();
        }
    }
}

#[test]
fn overlapping_blocks_are_merged_as_prometheus_merges_them() {
    let sim = SimFs::new();
    put_block(&sim, &golden_block("first"));
    put_block(&sim, &golden_block("second"));
    let catalog = catalog_of(&sim);
    let sources = catalog.state().blocks.clone();
    assert_eq!(sources.len(), 2);
    let before = everything(&StoreView::of_blocks(catalog.state()));
    let mut compaction = BlockCompaction::begin(&catalog, sources, 0, &clock(), &mut Random::seeded(6)).unwrap();
    while compaction.step(2).unwrap() == Step::More {}
    let meta = compaction.publish().unwrap().unwrap();
    let theirs = golden_block("merged");
    compare(&sim, &Path::new(DATA).join(meta.ulid.to_string()), &theirs).unwrap();
    let their_meta = std::fs::read_to_string(theirs.join("meta.json")).unwrap();
    assert!(their_meta.contains(&format!("\"numHistogramSamples\": {}", meta.stats.num_histogram_samples)));
    catalog.reload(Retention::default(), 0).unwrap();
    let after = everything(&StoreView::of_blocks(catalog.state()));
    // Which of two samples at one time is shown may differ before and after; all times are there.
    let times = |all: &Samples| -> Vec<(String, Vec<i64>)> {
        all.iter().map(|(labels, all)| (labels.clone(), all.iter().map(|(t, _)| *t).collect())).collect()
    };
    assert_eq!(times(&after), times(&before));
}

#[test]
fn deleted_histograms_are_left_out_as_prometheus_leaves_them_out() {
    let sim = SimFs::new();
    let block = golden_block("second");
    put_block(&sim, &block);
    let tombstones = std::fs::read(golden("tombstones")).unwrap();
    let to = Path::new(DATA).join(block.file_name().unwrap()).join("tombstones");
    sim.put(&to, &tombstones).unwrap();
    let catalog = catalog_of(&sim);
    let left = everything(&StoreView::of_blocks(catalog.state()));
    let sources = catalog.state().blocks.clone();
    let mut compaction = BlockCompaction::begin(&catalog, sources, 0, &clock(), &mut Random::seeded(7)).unwrap();
    while compaction.step(2).unwrap() == Step::More {}
    let meta = compaction.publish().unwrap().unwrap();
    compare(&sim, &Path::new(DATA).join(meta.ulid.to_string()), &golden_block("cleaned")).unwrap();
    catalog.reload(Retention::default(), 0).unwrap();
    assert_eq!(without_hints(&everything(&StoreView::of_blocks(catalog.state()))), without_hints(&left));
}
