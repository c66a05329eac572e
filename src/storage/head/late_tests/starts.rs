//! Start times of late samples: kept wherever those of samples in order are.

use super::*;
use crate::model::append::HistogramValue;
use crate::storage::chunk::Encoding;
use crate::storage::fs::Fs as _;
use crate::storage::head::starts::StartPolicy;
use crate::storage::wal::record::RecordKind;

const FLOATS: u32 = 1;
const WHOLES: u32 = 2;
const FLOAT_HISTOGRAMS: u32 = 3;

fn head_with(zero_samples: bool, stored: bool, window_ms: i64) -> Head {
    head_of(HeadOptions { starts: StartPolicy { zero_samples, stored }, ..options() }, window_ms)
}

fn histogram(count: i64) -> Histogram {
    Histogram {
        schema: 1,
        count: count.cast_unsigned(),
        sum: count as f64,
        positive_spans: vec![Span { offset: 0, length: 1 }],
        positive_buckets: vec![count],
        ..Histogram::default()
    }
}

/// A sample of each kind.
fn batch(t: i64, start: i64) -> AppendBatch {
    let key = |series| SeriesKey::Labels(labels(series));
    let at = TimestampMs(t);
    let mut batch = AppendBatch::default();
    batch.push_float(key(FLOATS), at, t as f64);
    batch.push_histogram(key(WHOLES), at, histogram(t));
    batch.push_histogram(key(FLOAT_HISTOGRAMS), at, HistogramValue::from(histogram(t).to_float()));
    if start != 0 {
        batch.starts.samples.push((0, start));
        batch.starts.histograms.extend([(0, start), (1, start)]);
    }
    batch
}

/// Some begin anew, some do not say when they began.
fn start_of(t: i64) -> i64 {
    if t % 700 == 0 { 0 } else { t - t % 3_000 - 5 }
}

/// Checks the start of each sample of each kind.
#[track_caller]
fn check(store: &Store, times: &[i64], what: &str) {
    let wanted: Vec<i64> = times.iter().map(|t| start_of(*t)).collect();
    let floats = store.column(FLOATS);
    assert_eq!((&floats.floats.timestamps[..], &floats.float_starts), (times, &wanted), "{what}");
    for series in [WHOLES, FLOAT_HISTOGRAMS] {
        let column = store.column(series);
        assert_eq!((&column.histograms.timestamps[..], &column.histogram_starts), (times, &wanted), "{what}");
    }
}

/// Late samples of some epochs, enough for closed chunks of each kind, some between samples in order.
fn filled(stored: bool) -> (Store, Vec<i64>) {
    let mut store = Store::open_with(&SimFs::new(), head_with(false, stored, WINDOW_MS));
    let in_order = (0..20).map(|i| 100_000 + i * 500);
    let late = (0..90).map(|i| 107_300 - i * 7 % 90 * 333);
    for t in in_order.clone().chain(late.clone()) {
        assert_eq!(store.append(batch(t, start_of(t))).unwrap().rejected, []);
    }
    let times: std::collections::BTreeSet<i64> = in_order.chain(late).collect();
    (store, times.into_iter().collect())
}

#[test]
fn start_times_of_late_samples_go_through_log_restart_and_blocks() {
    let (store, times) = filled(true);
    assert_eq!(store.head.stats().late_floats, 90);
    check(&store, &times, "as they came");
    for shard in store.head.shards() {
        shard.begin_rebuild("a test");
        replay::rebuild_shard(&store.fs, Path::new(DATA), &store.head, shard.id(), store.writer.position()).unwrap();
    }
    check(&store, &times, "after a rebuild");
    store.head.set_block_encodings(true, true);
    store.head.write_chunks_blocking().unwrap();
    assert!(6 < store.head.stats().chunks_written);
    check(&store, &times, "in files");
    let again = Store::open_with(&store.sim.fork(), head_with(false, true, 0));
    check(&again, &times, "in files, after a restart");
    let plain = Store::open_with(&store.sim.fork(), head_with(false, false, 0));
    assert_eq!(plain.column(FLOATS).floats.timestamps, times);
    drop((again, plain));
    // As if there were no files.
    let sim = store.sim.fork();
    sim.remove_dir_all(&Path::new(DATA).join("chunks_head")).unwrap();
    let mut store = Store::open_with(&sim, head_with(false, true, 0));
    let records = &store.report.late_log.records;
    let kinds: Vec<RecordKind> = records.keys().copied().collect();
    assert_eq!((kinds, store.report.head.late), (vec![RecordKind::Histograms, RecordKind::SamplesV2], 270));
    check(&store, &times, "after a restart");
    store.head.set_block_encodings(true, true);
    let made = store.compact_late().unwrap();
    assert!(1 < made.len() && !store.head.has_late());
    check(&store, &times, "late ones in blocks");
    store.compact_range(BlockRange { min_time: 100_000, max_time: 110_000 }).unwrap();
    check(&store, &times, "all in blocks");
    assert!(0 < store.merge_blocks().unwrap());
    check(&store, &times, "merged");
    assert_eq!(store.head.series_count(), 0);
}

#[test]
fn blocks_of_late_samples_have_the_encodings_that_blocks_are_to_have() {
    for (floats, histograms) in [(false, false), (true, false), (false, true)] {
        let (store, times) = filled(true);
        store.head.set_block_encodings(floats, histograms);
        let cut = store.head.cut_late();
        let export = store.head.export_late(cut).unwrap();
        let range = BlockRange { min_time: 0, max_time: 1_000_000 };
        let encodings = |number: usize| {
            let chunks = export.chunks(number, range).unwrap().1;
            let found: Vec<Encoding> = chunks.iter().map(|chunk| Encoding::from_id(chunk.encoding).unwrap()).collect();
            assert!(!found.is_empty() && found.iter().all(|encoding| *encoding == found[0]));
            found[0]
        };
        let of = |encoding: Encoding, started: bool| if started { encoding.with_starts() } else { encoding };
        assert_eq!(encodings(0), of(Encoding::Xor, floats));
        assert_eq!(encodings(1), of(Encoding::Histogram, histograms));
        assert_eq!(encodings(2), of(Encoding::FloatHistogram, histograms));
        check(&store, &times, "the head keeps them");
    }
}

#[test]
fn start_times_of_late_samples_are_not_kept_where_none_are() {
    let (store, times) = filled(false);
    let again = Store::open(&store.sim.fork(), WINDOW_MS);
    let records = &again.report.late_log.records;
    assert_eq!(records.keys().copied().collect::<Vec<_>>(), [RecordKind::Samples, RecordKind::Histograms]);
    // A log that has them is of no other use to a head that does not store them.
    let without = Store::open_with(&filled(true).0.sim.fork(), head_with(false, false, WINDOW_MS));
    assert_eq!(without.report.late_log.records.get(&RecordKind::SamplesV2), Some(&90));
    for store in [&store, &again, &without] {
        let (floats, wholes) = (store.column(FLOATS), store.column(WHOLES));
        assert_eq!((floats.floats.timestamps, floats.float_starts), (times.clone(), vec![]));
        assert_eq!((wholes.histograms.timestamps, wholes.histogram_starts), (times.clone(), vec![]));
    }
}

#[test]
fn a_zero_that_would_be_late_is_none() {
    for window_ms in [0, WINDOW_MS] {
        let mut store = Store::open_with(&SimFs::new(), head_with(true, false, window_ms));
        for (t, start) in [(200_000, 0), (300_000, 100_000), (400_000, 350_000)] {
            assert_eq!(store.append(batch(t, start)).unwrap().rejected, []);
        }
        // The start of the second lies before the first; that of the third is news.
        let times = [200_000, 300_000, 350_000, 400_000];
        assert_eq!(store.column(FLOATS).floats.timestamps, times);
        assert_eq!(store.column(WHOLES).histograms.timestamps, times);
        assert_eq!(store.column(FLOAT_HISTOGRAMS).histograms.timestamps, times);
        assert_eq!((store.head.has_late(), store.head.stats().out_of_order), (false, 0));
    }
}
