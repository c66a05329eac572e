//! Late samples whose chunks stand in files.

use super::*;
use crate::storage::head_chunk_mending::mend;

/// A head with many late samples of four series, of which every third is a histogram, and all of its content.
fn filled(sim: &SimFs) -> Store {
    let mut store = Store::open(sim, WINDOW_MS);
    store.append(floats((0..4).map(|series| (series, 100_000)))).unwrap();
    for i in 0..150 {
        let t = 50_000 + i * 37 % 1500 * 30;
        store.append(floats([(1, t), (2, t + 10), (3, 99_000 - i * 100)])).unwrap();
        let mut batch = AppendBatch::default();
        let value = Histogram { count: 5 + i as u64, zero_count: 5 + i as u64, sum: i as f64, ..Histogram::default() };
        batch.push_histogram(SeriesKey::Labels(labels(0)), TimestampMs(50_000 + i * 20), value);
        store.append(batch).unwrap();
    }
    store
}

fn held_and_written(store: &Store) -> (usize, usize) {
    let (mut held, mut written) = (0, 0);
    for shard in store.head.shards() {
        let table = shard.readers.late.load();
        for series in (0..20).filter_map(|series| table.get(crate::model::sample::SeriesRef(series))) {
            let in_files = series.in_files().map_or(0, |(_, chunks)| chunks.len());
            written += in_files;
            held += series.spans(u64::MAX).count() - in_files;
        }
    }
    (held, written)
}

/// All that is read, without what a histogram says of the one before it.
fn all(store: &Store) -> Vec<String> {
    let of_series = |series| {
        let mut column = store.column(series);
        for histogram in &mut column.histograms.values {
            Arc::make_mut(histogram).counter_reset_hint = CounterResetHint::Unknown;
        }
        format!("{column:?}")
    };
    (0..4).map(of_series).collect()
}

#[test]
fn closed_chunks_go_to_files_and_are_there_after_a_kill() {
    let sim = SimFs::new();
    let mut store = filled(&sim);
    let before = all(&store);
    let (held, _) = held_and_written(&store);
    store.head.write_chunks_blocking().unwrap();
    // Each series keeps its open chunk.
    let (left, written) = held_and_written(&store);
    assert_eq!((left, left + written, all(&store)), (4, held, before.clone()));
    assert!(12 < written, "{written}");
    let view = store.store().view().unwrap();
    for round in 0..3 {
        let copy = sim.fork();
        let again = Store::open(&copy, if round == 1 { 0 } else { WINDOW_MS });
        assert_eq!((all(&again), held_and_written(&again).1), (before.clone(), written), "round {round}");
        assert_eq!(again.head.stats().late_series, 4);
        again.head.write_chunks_blocking().unwrap();
        assert_eq!(again.head.stats().chunks_written, 0, "round {round}");
    }
    // A power cut takes none of what was synced.
    store.late_log.sync().unwrap();
    store.writer.sync().unwrap();
    for seed in 0..10 {
        let copy = sim.fork();
        copy.cut_power_anyhow(&mut Random::seeded(seed));
        assert_eq!(all(&Store::open(&copy, WINDOW_MS)), before, "seed {seed}");
    }
    // More of the same, over blocks, with a view of before.
    assert_ne!(store.compact_late().unwrap(), []);
    assert_eq!((all(&store), store.head.has_late()), (before.clone(), true), "a view holds them");
    drop(view);
    store.head.shards().iter().for_each(|shard| while shard.reclaim(3) == Reclaimed::More {});
    assert_eq!((all(&store), store.head.has_late(), held_and_written(&store)), (before.clone(), false, (0, 0)));
    for i in 0..70 {
        store.append(floats([(1, 70_011 + i * 100)])).unwrap();
    }
    store.head.write_chunks_blocking().unwrap();
    let after = all(&store);
    // What stands in blocks does not come back, though files hold it.
    let mut again = Store::open(&sim, WINDOW_MS);
    assert_eq!((all(&again), held_and_written(&again)), (after.clone(), (1, 2)));
    again.stop();
    let last = Store::open(&sim, WINDOW_MS);
    assert_eq!((last.report.from, all(&last), held_and_written(&last)), (ReadFrom::Snapshot, after, (1, 2)));
}

#[test]
fn a_damaged_chunk_is_read_again_from_the_log_of_late_samples() {
    let sim = SimFs::new();
    let mut store = filled(&sim);
    let before = all(&store);
    store.head.write_chunks_blocking().unwrap();
    let path = Path::new(DATA).join("chunks_head/000001");
    let bytes = sim.read(&path).unwrap();
    let wrong: Vec<u8> =
        bytes.iter().enumerate().map(|(at, byte)| if at % 150 == 99 { byte ^ 1 } else { *byte }).collect();
    sim.put(&path, &wrong).unwrap();
    let view = store.store().view().unwrap();
    let found = view.select(&[], TimeRange::ALL, &Unlimited).unwrap();
    let fails = |one: &SelectedSeries| one.samples.decode_all(TimeRange::ALL, &mut SampleColumn::default()).is_err();
    assert!(found.iter().any(fails));
    assert!(store.compact_late().is_err());
    assert!(store.head.has_damaged_chunks());
    let done = mend(&store.head).unwrap();
    // One that overlaps with another damaged one cannot be put back.
    assert!(3 < done.put_back && 6 < done.put_back + done.held && done.lost_samples == 0, "{done:?}");
    assert_eq!((all(&store), store.head.has_damaged_chunks()), (before.clone(), false));
    assert_eq!(all(&Store::open(&sim.fork(), WINDOW_MS)), before);
    assert_ne!(store.compact_late().unwrap(), []);
    drop((found, view));
    store.head.shards().iter().for_each(|shard| while shard.reclaim(3) == Reclaimed::More {});
    assert_eq!(all(&store), before);
}
