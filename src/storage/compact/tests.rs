//! Blocks made of the head and of other blocks, against Prometheus's and against the samples that went in; with the disk
//! failing at every step.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::blocks::BlockCompaction;
use super::head::HeadCompaction;
use super::{CompactError, Step};
use crate::model::append::{AppendBatch, AppendSample, SeriesKey};
use crate::model::clock::{ManualClock, SharedClock};
use crate::model::labels::Labels;
use crate::model::random::Random;
use crate::model::read::{FloatColumn, Queryable, Scope, Unlimited};
use crate::model::time::{TimeRange, TimestampMs};
use crate::storage::block::PageCache;
use crate::storage::block::catalog::Catalog;
use crate::storage::block::chunks::ReadAhead;
use crate::storage::block::index_read::SymbolMemo;
use crate::storage::block::meta::BlockMeta;
use crate::storage::block::metrics::BlockMetrics;
use crate::storage::block::retention::Retention;
use crate::storage::block::tombstones::{Interval, Tombstones};
use crate::storage::block::view::{StoreQueryable, StoreView};
use crate::storage::chunk::Encoding;
use crate::storage::fs::sim::SimFs;
use crate::storage::fs::{Fs, RealFs, SharedFs};
use crate::storage::head::{Head, HeadOptions};

const RANGE_MS: i64 = 7_200_000;
const DATA: &str = "/data";

/// Series with their samples (time, bits of the value).
type Samples = Vec<(String, Vec<(i64, u64)>)>;

fn clock() -> SharedClock {
    ManualClock::at(TimestampMs(1_700_100_000_000))
}

fn catalog_of(sim: &SimFs) -> Arc<Catalog> {
    let metrics = BlockMetrics::new(&Default::default());
    let catalog = Catalog::new(Arc::new(sim.clone()), Path::new(DATA), PageCache::new(0), metrics);
    catalog.open().unwrap();
    catalog
}

fn everything(view: &dyn crate::model::read::ReadView) -> Samples {
    let series = view.select(&[], TimeRange::ALL, &Unlimited).unwrap();
    let decode = |one: crate::model::read::SelectedSeries| {
        let mut column = FloatColumn::default();
        one.samples.decode(TimeRange::ALL, &mut column).unwrap();
        let values = column.values.iter().map(|value| value.to_bits());
        (one.labels.to_string(), column.timestamps.iter().copied().zip(values).collect())
    };
    series.into_iter().map(decode).collect()
}

fn head_with(shards: u16, samples: impl IntoIterator<Item = (Labels, i64, f64)>) -> Head {
    let head = Head::new(HeadOptions { shards, ..HeadOptions::new(clock()) });
    let to_sample =
        |(labels, at, value)| AppendSample { series: SeriesKey::Labels(labels), at: TimestampMs(at), value };
    let samples: Vec<AppendSample> = samples.into_iter().map(to_sample).collect();
    for part in samples.chunks(3_000) {
        let report = head.append_blocking(AppendBatch::of_floats(part.to_vec())).unwrap();
        assert_eq!(report.rejected, []);
    }
    head
}

/// One round: the head's next range becomes a block, and the head lets it go.
fn compact_head(head: &Head, catalog: &Arc<Catalog>) -> Result<Option<BlockMeta>, CompactError> {
    let Some(range) = head.compactable(RANGE_MS) else { return Ok(None) };
    assert!(head.is_settled(head.settling()));
    let mut random = Random::seeded(11);
    let mut compaction = HeadCompaction::begin(head, catalog, range, 0, &clock(), &mut random)?;
    while compaction.step(7)? == Step::More {}
    let meta = compaction.publish()?;
    catalog.reload(Retention::default(), 0)?;
    let shown = catalog.state();
    assert!(meta.as_ref().is_none_or(|meta| shown.blocks.iter().any(|block| block.meta() == meta)));
    head.truncate_blocking(TimestampMs(range.max_time));
    Ok(meta)
}

fn compact_blocks(catalog: &Arc<Catalog>) -> Result<Option<BlockMeta>, CompactError> {
    let sources = catalog.state().blocks.clone();
    let mut compaction = BlockCompaction::begin(catalog, sources, 0, &clock(), &mut Random::seeded(12))?;
    while compaction.step(3)? == Step::More {}
    let meta = compaction.publish()?;
    catalog.reload(Retention::default(), 0)?;
    Ok(meta)
}

fn some_series() -> Vec<(Labels, i64, f64)> {
    let mut samples = Vec::new();
    for step in 0..(RANGE_MS * 2 / 60_000) {
        for series in 0..9 {
            let labels = Labels::from_pairs([("__name__", "m".to_owned()), ("i", format!("{series}"))]);
            // Series begin and end at different times; some have gaps.
            if series * 10 < step && step < 240 - series * 13 && (series != 4 || step % 50 < 30) {
                samples.push((labels, 1_000 + step * 60_000, (step * series) as f64 / 3.0));
            }
        }
    }
    samples
}

#[test]
fn the_head_writes_the_block_that_prometheus_writes_of_the_same_samples() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/blocks");
    let theirs = Catalog::new(RealFs::shared(), &golden, PageCache::new(0), BlockMetrics::new(&Default::default()));
    theirs.open().unwrap();
    let mut samples = Vec::new();
    let view = StoreView::of_blocks(theirs.state());
    for series in crate::model::read::ReadView::select(&view, &[], TimeRange::ALL, &Unlimited).unwrap() {
        let mut column = FloatColumn::default();
        series.samples.decode(TimeRange::ALL, &mut column).unwrap();
        samples.extend(column.timestamps.iter().zip(&column.values).map(|(t, v)| (series.labels.clone(), *t, *v)));
    }
    samples.sort_by_key(|(_, t, _)| *t);
    let head = head_with(3, samples);
    let sim = SimFs::new();
    let catalog = catalog_of(&sim);
    let meta = compact_head(&head, &catalog).unwrap().unwrap();
    let first = theirs.state().blocks[0].clone();
    assert_eq!(meta.stats, first.meta().stats);
    assert_eq!((meta.min_time, meta.max_time), (1_699_999_200_000, 1_700_006_400_000));
    for file in ["index", "chunks/000001", "tombstones"] {
        let ours = sim.read(&Path::new(DATA).join(meta.ulid.to_string()).join(file)).unwrap();
        assert!(ours == std::fs::read(first.dir().join(file)).unwrap(), "{file}");
    }
    assert_eq!(head.compactable(RANGE_MS), None, "two hours are left");
}

#[test]
fn head_and_blocks_together_always_hold_what_went_in() {
    let head = head_with(2, some_series());
    let sim = SimFs::new();
    let catalog = catalog_of(&sim);
    let store = StoreQueryable::new(head.queryable(), Arc::clone(&catalog));
    let before = everything(&*store.view().unwrap());
    let old_view = store.view().unwrap();
    let meta = compact_head(&head, &catalog).unwrap().unwrap();
    assert_eq!((meta.min_time, meta.max_time), (61_000, RANGE_MS));
    assert_eq!(everything(&*store.view().unwrap()), before);
    assert_eq!(everything(&*old_view), before, "a view that was opened before");
    assert_eq!(head.stats().min_time, Some(RANGE_MS));
    let names = store.view().unwrap().label_values("i", &Scope::all(&[], TimeRange::ALL), &Unlimited).unwrap();
    assert_eq!(names.len(), 9);
    // As after a crash between publication and truncation: block and head overlap.
    let again = head_with(1, some_series());
    let store = StoreQueryable::new(again.queryable(), catalog);
    assert_eq!(everything(&*store.view().unwrap()), before);
}

#[test]
fn an_open_commit_holds_a_compaction_up() {
    let head = head_with(1, some_series());
    let commit = head.begin(None);
    let settling = head.settling();
    assert!(!head.is_settled(settling));
    let later = head.begin(None);
    drop(commit);
    assert!(head.is_settled(settling), "later commits cannot reach the range");
    assert!(head.compactable(RANGE_MS).unwrap().max_time <= later.bounds().min().0);
}

#[test]
fn whatever_fails_while_the_head_becomes_a_block_nothing_is_lost_or_doubled() {
    let head = head_with(2, some_series());
    let expected = everything(&*head.queryable().view().unwrap());
    let fresh = || {
        let sim = SimFs::new();
        sim.put(Path::new("/data/wal/00000000"), b"").unwrap();
        sim
    };
    let sim = fresh();
    let begun = sim.operations();
    compact_head(&head_with(2, some_series()), &catalog_of(&sim)).unwrap().unwrap();
    let steps = sim.operations() - begun;
    for n in 1..=steps {
        for power_cut in [false, true] {
            let head = head_with(1, some_series());
            let sim = fresh();
            let catalog = catalog_of(&sim);
            sim.fail_nth(n, 0);
            let result = compact_head(&head, &catalog);
            sim.heal();
            let store = StoreQueryable::new(head.queryable(), catalog);
            assert_eq!(everything(&*store.view().unwrap()), expected, "step {n}: {result:?}");
            // The process ends here; the log still has what the head had, if the head had it.
            if power_cut {
                sim.cut_power();
            }
            let catalog = catalog_of(&sim);
            let restored = head_with(1, some_series());
            restored.truncate_blocking(TimestampMs(catalog.state().whole_until().unwrap_or(i64::MIN)));
            let store = StoreQueryable::new(restored.queryable(), Arc::clone(&catalog));
            assert_eq!(everything(&*store.view().unwrap()), expected, "after step {n}");
            compact_head(&restored, &catalog).unwrap();
            assert_eq!(everything(&*store.view().unwrap()), expected, "after step {n} and another round");
        }
    }
}

/// Three blocks of the same series; the second overlaps the first.
fn three_blocks(sim: &SimFs) -> Arc<Catalog> {
    let parts = [(0, RANGE_MS), (3_600_000, RANGE_MS), (RANGE_MS, RANGE_MS * 2)];
    let catalog = catalog_of(sim);
    for (seed, (from, until)) in (20..).zip(parts) {
        let samples = some_series().into_iter().filter(|(_, t, _)| from <= *t && *t < until);
        let head = head_with(2, samples);
        let range = crate::storage::head::export::BlockRange { min_time: from, max_time: until };
        let mut random = Random::seeded(seed);
        let mut compaction = HeadCompaction::begin(&head, &catalog, range, 0, &clock(), &mut random).unwrap();
        while compaction.step(100).unwrap() == Step::More {}
        compaction.publish().unwrap().unwrap();
    }
    catalog.reload(Retention::default(), 0).unwrap();
    assert_eq!(catalog.state().blocks.len(), 3);
    catalog
}

#[test]
fn blocks_become_one_that_holds_the_same_and_takes_their_place() {
    let sim = SimFs::new();
    let catalog = three_blocks(&sim);
    let before = everything(&StoreView::of_blocks(catalog.state()));
    let held = StoreView::of_blocks(catalog.state());
    let parents: Vec<BlockMeta> = catalog.state().blocks.iter().map(|block| block.meta().clone()).collect();
    let meta = compact_blocks(&catalog).unwrap().unwrap();
    assert_eq!(meta.compaction.level, 2);
    assert_eq!(meta.compaction.parents, parents.iter().map(BlockMeta::desc).collect::<Vec<_>>());
    let names: Vec<String> = sim.list(Path::new(DATA)).unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, [meta.ulid.to_string()]);
    assert_eq!(everything(&StoreView::of_blocks(catalog.state())), before);
    assert_eq!(everything(&held), before, "open files can be read to the end");
}

/// Encodings of all chunks of the blocks.
fn encodings(catalog: &Catalog) -> BTreeSet<u8> {
    let mut found = BTreeSet::new();
    for block in &catalog.state().blocks {
        let (mut memo, mut ahead) = (SymbolMemo::default(), ReadAhead::default());
        for id in block.index().all_postings().unwrap() {
            for chunk in block.index().series(id, &mut memo).unwrap().chunks {
                found.insert(block.chunks.read(chunk.reference, chunk.reference, &mut ahead).unwrap().0);
            }
        }
    }
    found
}

#[test]
fn floats_that_are_merged_anew_have_the_encoding_that_blocks_are_to_have() {
    let (xor, xor2) = (Encoding::Xor.id(), Encoding::Xor2.id());
    let sim = SimFs::new();
    let catalog = three_blocks(&sim);
    let before = everything(&StoreView::of_blocks(catalog.state()));
    assert_eq!(encodings(&catalog), BTreeSet::from([xor]));
    // Of chunks that overlap others; the rest go over as they are.
    catalog.set_floats_with_starts(true);
    compact_blocks(&catalog).unwrap().unwrap();
    assert_eq!(encodings(&catalog), BTreeSet::from([xor, xor2]));
    assert_eq!(everything(&StoreView::of_blocks(catalog.state())), before);
    // A change back waits for the next merge as well.
    let sim = SimFs::new();
    let catalog = three_blocks(&sim);
    catalog.set_floats_with_starts(true);
    catalog.set_floats_with_starts(false);
    compact_blocks(&catalog).unwrap().unwrap();
    assert_eq!(encodings(&catalog), BTreeSet::from([xor]));
    assert_eq!(everything(&StoreView::of_blocks(catalog.state())), before);
}

#[test]
fn blocks_beyond_the_retention_are_removed_oldest_first() {
    let sim = SimFs::new();
    let catalog = three_blocks(&sim);
    let names = |catalog: &Catalog| -> Vec<(i64, i64)> {
        catalog.state().blocks.iter().map(|block| (block.meta().min_time, block.meta().max_time)).collect()
    };
    let all = names(&catalog);
    let held = StoreView::of_blocks(catalog.state());
    let before = everything(&held);
    catalog.reload(Retention { time_ms: RANGE_MS + 1, len_max: 0 }, 0).unwrap();
    assert_eq!(names(&catalog), all);
    catalog.reload(Retention { time_ms: RANGE_MS, len_max: 0 }, 0).unwrap();
    assert_eq!(names(&catalog), all[2..]);
    assert_eq!(sim.list(Path::new(DATA)).unwrap().len(), 1);
    assert_eq!(everything(&held), before, "a view that was opened before");
    let len = catalog.state().len();
    catalog.reload(Retention { time_ms: 0, len_max: len + 10 }, 10).unwrap();
    assert_eq!(names(&catalog).len(), 1);
    catalog.reload(Retention { time_ms: 0, len_max: len + 10 }, 11).unwrap();
    assert_eq!((names(&catalog), sim.list(Path::new(DATA)).unwrap()), (vec![], vec![]));
}

#[test]
fn deleted_samples_are_not_read_and_not_written_again() {
    let sim = SimFs::new();
    let catalog = three_blocks(&sim);
    let fs: SharedFs = Arc::new(sim.clone());
    for block in &catalog.state().blocks {
        let mut tombstones = Tombstones::default();
        for id in block.index().all_postings().unwrap() {
            tombstones.add(u64::from(id), Interval { min_t: 0, max_t: 5_000_000 });
            tombstones.add(u64::from(id), Interval { min_t: 9_000_000, max_t: 9_100_000 });
        }
        tombstones.write(&*fs, block.dir()).unwrap();
    }
    let catalog = catalog_of(&sim);
    let left = everything(&StoreView::of_blocks(catalog.state()));
    assert!(left.iter().flat_map(|(_, samples)| samples).all(|(t, _)| 5_000_000 < *t));
    compact_blocks(&catalog).unwrap().unwrap();
    assert_eq!(everything(&StoreView::of_blocks(catalog.state())), left);
    for block in &catalog.state().blocks {
        let mut tombstones = Tombstones::default();
        for id in block.index().all_postings().unwrap() {
            tombstones.add(u64::from(id), Interval { min_t: i64::MIN, max_t: i64::MAX });
        }
        tombstones.write(&*fs, block.dir()).unwrap();
    }
    let catalog = catalog_of(&sim);
    assert_eq!(compact_blocks(&catalog).unwrap(), None);
    assert_eq!(sim.list(Path::new(DATA)).unwrap(), [], "nothing was left of the block");
}

#[test]
fn whatever_fails_while_blocks_become_one_nothing_is_lost_or_doubled() {
    let whole = SimFs::new();
    let catalog = three_blocks(&whole);
    let expected = everything(&StoreView::of_blocks(catalog.state()));
    let copy = whole.fork();
    let begun = copy.operations();
    compact_blocks(&catalog_of(&copy)).unwrap();
    for n in 1..=copy.operations() - begun {
        for more in [0, 1_000] {
            let sim = whole.fork();
            let catalog = catalog_of(&sim);
            sim.fail_nth(n, more);
            let _ = compact_blocks(&catalog);
            sim.heal();
            assert_eq!(everything(&StoreView::of_blocks(catalog.state())), expected, "step {n}");
            let catalog = catalog_of(&sim);
            catalog.reload(Retention::default(), 0).unwrap();
            assert_eq!(everything(&StoreView::of_blocks(catalog.state())), expected, "after step {n}");
        }
    }
}

#[test]
fn a_compaction_counts_itself() {
    let catalog = catalog_of(&SimFs::new());
    compact_head(&head_with(1, some_series()), &catalog).unwrap();
    let metrics = catalog.metrics();
    assert_eq!((metrics.compactions.get(), metrics.populating.get()), (1, 0.0));
}
