//! Single cases of late samples that Prometheus has met.

use super::*;
use crate::model::matcher::Matcher;
use crate::storage::fs::Fs as _;

#[test]
fn without_any_log_late_samples_become_blocks_as_well() {
    let fs: SharedFs = Arc::new(SimFs::new());
    fs.create_dir_all(Path::new(DATA)).unwrap();
    let metrics = BlockMetrics::new(&Default::default());
    let catalog = Catalog::new(fs, Path::new(DATA), PageCache::new(0), metrics);
    catalog.open().unwrap();
    let head = new_head(WINDOW_MS);
    let mut all: Vec<(u32, i64)> = Vec::new();
    let times = (250..=350).chain(90..=110).chain(400..=450).map(|m| m * RANGE_MS / 120);
    for t in times {
        all.extend([(1, t), (2, t)]);
        assert_eq!(head.append_blocking(floats([(1, t), (2, t)])).unwrap().rejected, []);
    }
    let range = head.compactable(RANGE_MS).unwrap();
    let mut random = Random::seeded(1);
    let mut compaction = HeadCompaction::begin(&head, &catalog, range, 0, &clock(), &mut random).unwrap();
    while compaction.step(3).unwrap() == Step::More {}
    let in_order = compaction.publish().unwrap().unwrap();
    let cut = head.cut_late();
    let mut compaction =
        LateCompaction::begin(&head, &catalog, cut, (RANGE_MS, 0), &clock(), Random::seeded(2)).unwrap();
    while compaction.step(2).unwrap() == Step::More {}
    let late = compaction.finish();
    catalog.reload(Retention::default(), 0).unwrap();
    head.truncate_blocking(TimestampMs(range.max_time));
    head.drop_late(cut);
    head.shards().iter().for_each(|shard| while shard.reclaim(3) == Reclaimed::More {});
    assert_eq!((in_order.min_time, in_order.max_time, in_order.stats.num_samples), (20_833, 30_000, 202));
    assert_eq!((late.len(), late[0].min_time, late[0].max_time, late[0].stats.num_samples), (1, 0, 10_000, 42));
    assert!(!head.has_late());
    let store = StoreQueryable::new(head.queryable(), catalog);
    assert_eq!(content(&*store.view().unwrap()), expected(all));
}

#[test]
fn a_log_of_late_samples_that_is_gone_costs_those_alone() {
    let sim = SimFs::new();
    let (mut store, all) = filled(&sim);
    let in_order: Content = store
        .head
        .queryable()
        .view()
        .map(|_| {
            let is_in_order = |t: i64| 100_000 <= t && (t - 100_000) % 500 == 0;
            let own = |samples: &Vec<(i64, f64)>| samples.iter().copied().filter(|(t, _)| is_in_order(*t)).collect();
            all.iter().map(|(labels, samples)| (labels.clone(), own(samples))).collect()
        })
        .unwrap();
    store.stop();
    store.fs.remove_dir_all(&Path::new(DATA).join("wbl")).unwrap();
    let mut again = Store::open(&sim.fork(), WINDOW_MS);
    assert_eq!((&again.report.from, again.report.head.late, again.head.has_late()), (&ReadFrom::Snapshot, 0, false));
    assert_eq!(again.content(), in_order);
    let count = |content: &Content| content.values().map(|samples| samples.len() as u64).sum::<u64>();
    let (told, lost) = (&again.report.late_log.missing_files[..], count(&all) - count(&in_order));
    assert_eq!((told.len(), told[0].loss.samples, told[0].loss.is_reckoned), (1, lost, false));
    assert_eq!((again.metrics.corruptions.get(), again.metrics.lost_samples.get()), (1, lost));
    assert_eq!(again.compact_late().unwrap(), []);
    // They may come again.
    let late: Vec<(u32, i64)> = (0..3).map(|series| (series, 90_000)).collect();
    assert_eq!(again.append(floats(late.clone())).unwrap().rejected, []);
    let again = Store::open(&again.sim.fork(), WINDOW_MS);
    assert_eq!(again.report.head.late, 3);
    let with_late = content_with(&in_order, late);
    assert_eq!(again.content(), with_late);
}

fn content_with(content: &Content, samples: Vec<(u32, i64)>) -> Content {
    let mut all: BTreeMap<String, BTreeMap<i64, f64>> =
        content.iter().map(|(labels, own)| (labels.clone(), own.iter().copied().collect())).collect();
    for (series, t) in samples {
        all.entry(labels(series).to_string()).or_default().insert(t, value_of(series, t));
    }
    all.into_iter().map(|(labels, own)| (labels, own.into_iter().collect())).collect()
}

#[test]
fn blocks_of_late_samples_that_are_merged_stand_for_nothing_in_order() {
    let sim = SimFs::new();
    let mut store = Store::open(&sim, WINDOW_MS);
    store.append(floats([(9, 107_000)])).unwrap();
    for series in [1, 2] {
        store.append(floats([(series, 100_001), (series, 106_900)])).unwrap();
        let made = store.compact_late().unwrap();
        assert_eq!(made.iter().map(|meta| (meta.min_time, meta.max_time)).collect::<Vec<_>>(), [(100_000, 110_000)]);
    }
    assert_eq!(store.merge_blocks().unwrap(), 1);
    let blocks = store.catalog.state().blocks.clone();
    assert_eq!((blocks.len(), blocks[0].meta().has_hint(HINT_OUT_OF_ORDER)), (1, true));
    assert_eq!((blocks[0].meta().max_time, store.catalog.state().whole_until()), (110_000, None));
    let all = expected([(9, 107_000), (1, 100_001), (1, 106_900), (2, 100_001), (2, 106_900)]);
    assert_eq!(store.content(), all);
    // The block ends behind the sample in order, which the log alone holds.
    store.writer.sync().unwrap();
    sim.cut_power();
    assert_eq!(Store::open(&sim, WINDOW_MS).content(), all);
}

#[test]
fn the_time_of_the_oldest_late_sample_is_that_of_those_held() {
    let mut store = Store::open(&SimFs::new(), WINDOW_MS);
    let mut append = |t: i64| {
        store.append(floats([(1, t)])).unwrap();
        store.head.oldest_late().map(|at| at.0)
    };
    assert_eq!(append(300_000), None);
    assert_eq!(append(295_000), Some(295_000));
    assert_eq!(append(310_000), Some(295_000));
    assert_eq!(append(305_000), Some(295_000));
    assert_eq!(append(290_000), Some(290_000));
    store.compact_late().unwrap();
    assert_eq!(store.head.oldest_late(), None);
    store.append(floats([(1, 304_000)])).unwrap();
    assert_eq!(store.head.oldest_late(), Some(TimestampMs(304_000)));
}

#[test]
fn names_and_values_of_series_with_late_samples_alone_are_found() {
    let mut store = Store::open(&SimFs::new(), WINDOW_MS);
    let late = Labels::from_pairs([("__name__", "m"), ("only_late", "yes")]);
    let mut batch = floats([(1, 100_000)]);
    batch.push_float(SeriesKey::Labels(late), TimestampMs(60_000), 1.0);
    assert_eq!(store.append(batch).unwrap().rejected, []);
    let range = |min, max| TimeRange::new(TimestampMs(min), TimestampMs(max)).unwrap();
    for is_in_block in [false, true] {
        if is_in_block {
            assert_eq!(store.compact_late().unwrap().len(), 1);
        }
        let view = store.store().view().unwrap();
        let names = |range| view.label_names(&Scope::all(&[], range), &Unlimited).unwrap();
        let values = |name: &str, matchers: &[Matcher], range| {
            view.label_values(name, &Scope::all(matchers, range), &Unlimited).unwrap()
        };
        let around = range(55_000, 65_000);
        assert_eq!(values("only_late", &[], around), ["yes"]);
        assert_eq!(values("__name__", &[Matcher::equal("only_late", "yes")], around), ["m"]);
        assert!(names(around).iter().any(|name| name == "only_late"));
        assert_eq!(names(range(0, 1_000)).len(), 0);
    }
}

#[test]
fn a_stop_amid_blocks_of_late_samples_leaves_no_half_of_one() {
    let whole = SimFs::new();
    let (mut store, all) = filled(&whole);
    store.writer.sync().unwrap();
    store.late_log.sync().unwrap();
    drop(store);
    for n in 1.. {
        let mut store = Store::open(&whole.fork(), WINDOW_MS);
        store.late_log.cut().unwrap();
        let (cut, random) = (store.head.cut_late(), store.random());
        let mut compaction =
            LateCompaction::begin(&store.head, &store.catalog, cut, (RANGE_MS, 0), &clock(), random).unwrap();
        let blocks = |sim: &SimFs| {
            let entries = sim.list(Path::new(DATA)).unwrap();
            entries.iter().filter(|entry| crate::storage::block::ulid::Ulid::parse(&entry.name).is_ok()).count()
        };
        while blocks(&store.sim) == 0 {
            assert_eq!(compaction.step(100).unwrap(), Step::More, "there is another one to come");
        }
        // The first one is published; then the process ends within what it still does.
        let before = store.sim.operations();
        store.sim.fail_nth(n, u64::MAX / 2);
        drop(compaction);
        let has_ended = n <= store.sim.operations() - before;
        store.sim.heal();
        let mut store = Store::open(&store.sim.clone(), WINDOW_MS);
        assert_eq!((store.content(), store.catalog.state().damaged.clone()), (all.clone(), vec![]), "operation {n}");
        store.compact_late().unwrap();
        assert_eq!(store.content(), all, "operation {n}");
        if !has_ended {
            assert!(6 < n, "{n}");
            return;
        }
    }
}
