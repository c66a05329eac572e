//! What late histograms say of those before them: merged with others, and in blocks. The cases are Prometheus's.

use super::*;
use crate::model::append::HistogramValue;
use crate::model::histogram::CUSTOM_BUCKETS_SCHEMA;
use CounterResetHint::{NotReset, Unknown};

/// A time, a count, and what is said of the sample before.
type Told = (i64, i64, CounterResetHint);

fn open(late_chunk_len: usize) -> Store {
    Store::open_with(&SimFs::new(), head_of(HeadOptions { late_chunk_len, ..options() }, WINDOW_MS))
}

fn append(store: &mut Store, series: u32, t: i64, value: HistogramValue) {
    let mut batch = AppendBatch::default();
    batch.push_histogram(SeriesKey::Labels(labels(series)), TimestampMs(t), value);
    assert_eq!(store.append(batch).unwrap().rejected, []);
}

fn told(store: &Store, series: u32) -> Vec<Told> {
    let column = store.column(series);
    let values = column.histograms.values.iter().map(|h| (h.count as i64, h.counter_reset_hint));
    column.histograms.timestamps.iter().zip(values).map(|(t, (count, hint))| (*t, count, hint)).collect()
}

/// One bucket of this count.
fn counter(count: i64, is_whole: bool, is_custom: bool) -> HistogramValue {
    let histogram = Histogram {
        schema: if is_custom { CUSTOM_BUCKETS_SCHEMA } else { 0 },
        count: count.cast_unsigned(),
        sum: count as f64,
        positive_spans: vec![Span { offset: 0, length: 1 }],
        positive_buckets: vec![count],
        custom_values: if is_custom { vec![1.0, 2.0, 3.0] } else { Vec::new() },
        ..Histogram::default()
    };
    if is_whole { histogram.into() } else { histogram.to_float().into() }
}

#[test]
fn where_chunks_take_turns_nothing_is_said_of_the_sample_before() {
    let cases: [(usize, &[(i64, i64)], &[Told]); 3] = [
        // A reset in order, behind which another chunk comes in between.
        (
            30,
            &[(1, 40), (4, 30), (2, 40), (3, 10)],
            &[(1, 40, Unknown), (2, 40, Unknown), (3, 10, Unknown), (4, 30, Unknown)],
        ),
        // A reset within closed late chunks, between which the open one has a sample.
        (
            6,
            &[(8, 30), (1, 10), (2, 20), (3, 30), (5, 20), (6, 10), (7, 20), (4, 10)],
            &[
                (1, 10, Unknown),
                (2, 20, NotReset),
                (3, 30, NotReset),
                (4, 10, Unknown),
                (5, 20, Unknown),
                (6, 10, Unknown),
                (7, 20, NotReset),
                (8, 30, Unknown),
            ],
        ),
        // A closed late chunk between the samples of another.
        (
            3,
            &[(8, 100), (1, 50), (5, 40), (6, 50), (2, 10), (3, 20), (4, 30), (7, 60)],
            &[
                (1, 50, Unknown),
                (2, 10, Unknown),
                (3, 20, NotReset),
                (4, 30, NotReset),
                (5, 40, Unknown),
                (6, 50, NotReset),
                (7, 60, Unknown),
                (8, 100, Unknown),
            ],
        ),
    ];
    for (late_chunk_len, samples, wanted) in cases {
        for (is_whole, is_custom) in [(true, false), (false, false), (true, true), (false, true)] {
            let mut store = open(late_chunk_len);
            for (t, count) in samples {
                append(&mut store, 1, 20_000 + t, counter(*count, is_whole, is_custom));
            }
            let wanted: Vec<Told> = wanted.iter().map(|(t, count, hint)| (20_000 + t, *count, *hint)).collect();
            assert_eq!(told(&store, 1), wanted, "{late_chunk_len} {is_whole} {is_custom}");
        }
    }
}

/// Four buckets on each side.
fn histogram(n: i64, hint: CounterResetHint, is_whole: bool) -> HistogramValue {
    let spans = || vec![Span { offset: 0, length: 2 }, Span { offset: 1, length: 2 }];
    let histogram = Histogram {
        counter_reset_hint: hint,
        schema: 1,
        zero_threshold: 0.001,
        zero_count: (2 + n).cast_unsigned(),
        count: (12 + n * 9).cast_unsigned(),
        sum: 18.4 * (n + 1) as f64,
        positive_spans: spans(),
        positive_buckets: vec![n + 1, 1, -1, 0],
        negative_spans: spans(),
        negative_buckets: vec![n + 1, 1, -1, 0],
        custom_values: Vec::new(),
    };
    if is_whole { histogram.into() } else { histogram.to_float().into() }
}

/// Two hours are one range of blocks.
fn minute(m: i64) -> i64 {
    m * RANGE_MS / 120
}

#[test]
fn resets_among_late_histograms_are_known_before_and_in_blocks() {
    for is_whole in [true, false] {
        let mut store = open(30);
        // By series and minute: what is said before there are blocks, and in them.
        let mut told_before: [BTreeMap<i64, Told>; 2] = Default::default();
        let mut told_after = told_before.clone();
        let mut add = |series: usize, m: i64, n: i64, hint: CounterResetHint, before, after| {
            append(&mut store, series as u32 + 1, minute(m), histogram(n, hint, is_whole));
            told_before[series].insert(m, (minute(m), 12 + n * 9, before));
            told_after[series].insert(m, (minute(m), 12 + n * 9, after));
        };
        let unless = |is_so: bool| if is_so { Unknown } else { NotReset };
        (0..2).for_each(|series| add(series, 520, 1_000_000, Unknown, Unknown, Unknown));
        // A chunk that the second one overlaps; what the samples say of themselves does not count. A new block begins at 120, 240, ….
        for m in (100..200).step_by(10) {
            add(0, m, 100_000 + m, Unknown, Unknown, unless(m == 100 || m == 120));
        }
        add(0, 250, 100_250, CounterResetHint::Reset, Unknown, NotReset);
        for m in (260..450).step_by(10) {
            add(0, m, 100_000 + m, Unknown, unless(m < 410), unless(m == 360));
        }
        // The second chunk, with a reset.
        for m in (105..165).step_by(10) {
            add(0, m, 100_000 + m, Unknown, Unknown, NotReset);
        }
        add(0, 165, 100_000, Unknown, Unknown, Unknown);
        for m in (175..405).step_by(10) {
            add(0, m, 100_000 + m, Unknown, unless(!(205..255).contains(&m)), unless(m == 245));
        }
        // A third one, which lies by itself, with a reset.
        for m in 480..490 {
            add(0, m, 100_000 + m, Unknown, unless(m == 480), unless(m == 480));
        }
        add(0, 490, 100_000, Unknown, Unknown, Unknown);
        (491..510).for_each(|m| add(0, m, 100_000 + m, Unknown, NotReset, NotReset));
        // A series with one chunk and a reset.
        for m in (200..300).step_by(10) {
            add(1, m, 100_000 + m, Unknown, unless(m == 200), unless(m == 200 || m == 240));
        }
        add(1, 300, 100_000, Unknown, Unknown, Unknown);
        for m in (310..500).step_by(10) {
            add(1, m, 100_000 + m, Unknown, NotReset, unless(m == 360 || m == 480));
        }
        let list =
            |told: &[BTreeMap<i64, Told>; 2]| told.each_ref().map(|own| own.values().copied().collect::<Vec<_>>());
        let all = |store: &Store| [told(store, 1), told(store, 2)];
        let (before, after) = (list(&told_before), list(&told_after));
        assert_eq!(all(&store), before);
        let made = store.compact_late().unwrap();
        assert_eq!((made.len(), store.head.has_late()), (5, false));
        assert_eq!(all(&store), after, "late ones in blocks");
        assert!(store.compact_range(BlockRange { min_time: minute(500), max_time: minute(600) }).unwrap());
        assert_eq!(all(&store), after, "all in blocks");
        assert!(0 < store.merge_blocks().unwrap());
        assert_eq!(all(&store), after, "merged");
    }
}

#[test]
fn a_late_histogram_between_two_in_order_stays_there_in_blocks() {
    for is_whole in [true, false] {
        let mut store = open(30);
        for (t, n) in [(0, 0), (1, 10), (3, 3), (2, 0)] {
            append(&mut store, 1, 20_000 + t, histogram(n, Unknown, is_whole));
        }
        let told_of = |t: i64, n: i64, hint| (20_000 + t, 12 + n * 9, hint);
        let wanted = [told_of(0, 0, Unknown), told_of(1, 10, NotReset), told_of(2, 0, Unknown), told_of(3, 3, Unknown)];
        assert_eq!(told(&store, 1), wanted);
        assert_eq!(store.compact_late().unwrap().len(), 1);
        assert_eq!(told(&store, 1), wanted, "the late one in a block");
        assert!(store.compact_range(BlockRange { min_time: 20_000, max_time: 30_000 }).unwrap());
        assert_eq!((told(&store, 1), store.catalog.state().blocks.len()), (wanted.to_vec(), 2));
        assert_eq!(store.merge_blocks().unwrap(), 1);
        assert_eq!((told(&store, 1), store.catalog.state().blocks.len()), (wanted.to_vec(), 1));
    }
}
