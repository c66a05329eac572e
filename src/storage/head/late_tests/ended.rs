//! Series that have ended leave the head early, and nothing of them is lost or doubled.

use super::*;
use crate::model::append::HistogramValue;
use crate::storage::block::meta::HINT_STALE_SERIES;
use crate::storage::chunk::histogram::Native;
use crate::storage::head::ended::EndedSeries;

fn end(store: &mut Store, series: u32, t: i64) {
    let mut batch = AppendBatch::default();
    batch.push_float(SeriesKey::Labels(labels(series)), TimestampMs(t), stale_nan());
    assert_eq!(store.append(batch).unwrap().rejected, []);
}

/// As the compactor does it, up to the eviction.
fn write(store: &mut Store, ended: &EndedSeries) -> Vec<BlockMeta> {
    assert!(store.head.is_settled(store.head.settling()));
    let (mut made, mut from) = (Vec::new(), i64::MIN);
    while let Some(next) = store.head.next_of_ended(ended, from).unwrap() {
        let min_time = next / RANGE_MS * RANGE_MS;
        let range = BlockRange { min_time, max_time: min_time + RANGE_MS };
        let mut random = store.random();
        let of = (ended, range);
        let mut compaction =
            HeadCompaction::of_ended(&store.head, &store.catalog, of, 0, &clock(), &mut random).unwrap();
        while compaction.step(2).unwrap() == Step::More {}
        made.extend(compaction.publish().unwrap());
        from = range.max_time;
    }
    store.catalog.reload(Retention::default(), 0).unwrap();
    made
}

fn reclaim(store: &Store) {
    store.head.shards().iter().for_each(|shard| while shard.reclaim(1) == Reclaimed::More {});
}

/// Bits, as markers are not equal to themselves.
fn bits(store: &Store) -> BTreeMap<String, Vec<(i64, u64)>> {
    let bits = |samples: Vec<(i64, f64)>| samples.into_iter().map(|(t, value)| (t, value.to_bits())).collect();
    store.content().into_iter().map(|(labels, samples)| (labels, bits(samples))).collect()
}

#[test]
fn ended_series_leave_the_head_once_blocks_stand_for_them() {
    let sim = SimFs::new();
    let mut store = Store::open(&sim, WINDOW_MS);
    assert_eq!(store.head.ended_series().share(), 0.0);
    // Over two ranges. The second has a late sample, the third goes on, the fourth begins anew, the fifth was marked late.
    for t in (95_000..105_000).step_by(500) {
        store.append(floats((1..=5).map(|series| (series, t)))).unwrap();
    }
    [1, 2, 4].into_iter().for_each(|series| end(&mut store, series, 105_000));
    store.append(floats([(2, 94_000), (3, 106_000), (5, 106_000)])).unwrap();
    end(&mut store, 5, 105_750);
    let ended = store.head.ended_series();
    assert_eq!((ended.series, ended.ended, ended.len(), ended.share()), (5, 3, 2, 0.6));
    let before = store.store().view().unwrap();
    let all = bits(&store);
    let made = write(&mut store, &ended);
    let ranges: Vec<(i64, i64)> = made.iter().map(|meta| (meta.min_time, meta.max_time)).collect();
    assert_eq!(ranges, [(90_000, 100_000), (100_000, 110_000)]);
    assert!(made.iter().all(|meta| meta.has_hint(HINT_STALE_SERIES) && !meta.has_hint(HINT_OUT_OF_ORDER)));
    assert_eq!(made.iter().map(|meta| meta.stats.num_samples).collect::<Vec<_>>(), [20, 22]);
    assert_eq!(made.iter().map(|meta| meta.stats.num_series).collect::<Vec<_>>(), [2, 2]);
    assert_eq!(store.catalog.state().whole_until(), None, "the head still holds the rest of their range");
    // One begins anew before it can leave.
    store.append(floats([(4, 107_000)])).unwrap();
    store.head.evict_ended(&ended);
    reclaim(&store);
    assert_eq!(store.head.series_count(), 5, "a view may not know the blocks");
    drop(before);
    reclaim(&store);
    assert_eq!(store.head.series_count(), 4);
    let mut with_new = all.clone();
    with_new.get_mut(&labels(4).to_string()).unwrap().push((107_000, value_of(4, 107_000).to_bits()));
    assert_eq!(bits(&store), with_new);
    assert_eq!(store.head.ended_series().ended, 1);
    // The one that has left begins anew, in order and late.
    store.append(floats([(1, 108_000)])).unwrap();
    store.append(floats([(1, 104_750)])).unwrap();
    let own = with_new.get_mut(&labels(1).to_string()).unwrap();
    own.insert(own.len() - 1, (104_750, value_of(1, 104_750).to_bits()));
    own.push((108_000, value_of(1, 108_000).to_bits()));
    assert_eq!(bits(&store), with_new);
    store.writer.sync().unwrap();
    store.late_log.sync().unwrap();
    sim.cut_power();
    let mut store = Store::open(&sim, WINDOW_MS);
    assert_eq!((bits(&store), store.report.head.unknown_refs), (with_new.clone(), 0));
    // Those alone of them are merged with each other; all come together with what the head becomes.
    store.compact_late().unwrap();
    store.append(floats([(3, 130_000)])).unwrap();
    with_new.get_mut(&labels(3).to_string()).unwrap().push((130_000, value_of(3, 130_000).to_bits()));
    store.compact_head().unwrap();
    store.merge_blocks().unwrap();
    assert_eq!(bits(&store), with_new);
}

#[test]
fn a_checkpoint_keeps_names_of_series_that_left_early() {
    let sim = SimFs::new();
    let mut store = Store::open(&sim, 0);
    // A whole block, and behind it a series that ends and leaves.
    for t in (80_000..112_000).step_by(500) {
        store.append(floats([(1, t)])).unwrap();
        if 96_000 <= t && t < 100_000 {
            store.append(floats([(2, t)])).unwrap();
        } else if t == 100_000 {
            end(&mut store, 2, t);
        }
    }
    assert!(store.compact_range(BlockRange { min_time: 80_000, max_time: 90_000 }).unwrap());
    let all = bits(&store);
    let ended = store.head.ended_series();
    assert_eq!((ended.series, ended.len(), write(&mut store, &ended).len()), (2, 1, 2));
    store.head.evict_ended(&ended);
    reclaim(&store);
    assert_eq!(store.head.series_count(), 1);
    store.checkpoint();
    let mut store = Store::open(&sim.fork(), 0);
    assert_eq!((store.report.head.unknown_refs, store.head.series_count()), (0, 2));
    assert_eq!(bits(&store), all);
    // It leaves again, and once the head is behind it the log need not name it.
    let ended = store.head.ended_series();
    write(&mut store, &ended);
    store.head.evict_ended(&ended);
    reclaim(&store);
    assert_eq!((store.head.series_count(), bits(&store)), (1, all.clone()));
    assert!(store.compact_range(BlockRange { min_time: 90_000, max_time: 110_000 }).unwrap());
    store.checkpoint();
    let store = Store::open(&store.sim.fork(), 0);
    assert_eq!((store.report.head.unknown_refs, store.head.series_count()), (0, 1));
    assert_eq!(bits(&store), all);
}

#[test]
fn ended_series_of_all_kinds_are_counted_and_none_are_in_an_empty_head() {
    let mut store = Store::open(&SimFs::new(), WINDOW_MS);
    let none = store.head.ended_series();
    assert_eq!((none.series, none.ended, write(&mut store, &none).len()), (0, 0, 0));
    let histogram = Histogram {
        count: 1,
        positive_spans: vec![Span { offset: 0, length: 1 }],
        positive_buckets: vec![1],
        ..Histogram::default()
    };
    let push = |series: u32, t: i64, value: HistogramValue, batch: &mut AppendBatch| {
        batch.push_histogram(SeriesKey::Labels(labels(series)), TimestampMs(t), value);
    };
    let mut batch = floats([(1, 100_000), (4, 100_000)]);
    push(2, 100_000, histogram.clone().into(), &mut batch);
    push(3, 100_000, histogram.to_float().into(), &mut batch);
    store.append(batch).unwrap();
    assert_eq!(store.head.ended_series().ended, 0);
    let mut batch = AppendBatch::default();
    push(2, 101_000, Histogram::marker(stale_nan()).into(), &mut batch);
    push(3, 101_000, FloatHistogram::marker(stale_nan()).into(), &mut batch);
    store.append(batch).unwrap();
    [1, 4].into_iter().for_each(|series| end(&mut store, series, 101_000));
    assert_eq!((store.head.ended_series().ended, store.head.ended_series().share()), (4, 1.0));
    // A float of another series, and a histogram behind a float's end.
    let mut batch = AppendBatch::default();
    push(1, 102_000, histogram.clone().into(), &mut batch);
    push(2, 102_000, histogram.into(), &mut batch);
    store.append(batch).unwrap();
    assert_eq!(store.head.ended_series().ended, 2);
    let again = Store::open(&store.sim.fork(), 0);
    assert_eq!(again.head.ended_series().ended, 2);
    // All of a range in one sample, on its edge.
    let mut store = Store::open(&SimFs::new(), 0);
    end(&mut store, 1, 100_000);
    let (all, ended) = (bits(&store), store.head.ended_series());
    let made = write(&mut store, &ended);
    assert_eq!(made.iter().map(|meta| (meta.min_time, meta.max_time)).collect::<Vec<_>>(), [(100_000, 110_000)]);
    store.head.evict_ended(&ended);
    reclaim(&store);
    assert_eq!((store.head.series_count(), bits(&store)), (0, all));
}
