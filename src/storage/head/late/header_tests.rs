//! What closed late chunks say of the sample before them. The case is Prometheus's.

use super::*;
use crate::model::histogram::{CounterResetHint, Span};
use crate::model::sample::SeriesRef;
use crate::storage::head::late::table::LateTable;

const UNKNOWN: u8 = 0;
const RESET: u8 = 2;

fn histogram(n: i64) -> Histogram {
    let spans = || vec![Span { offset: 0, length: 2 }, Span { offset: 1, length: 2 }];
    Histogram {
        schema: 1,
        zero_threshold: 0.001,
        zero_count: (2 + n).cast_unsigned(),
        count: (12 + n * 9).cast_unsigned(),
        sum: 18.4 * (n + 1) as f64,
        positive_spans: spans(),
        positive_buckets: vec![n + 1, 1, -1, 0],
        negative_spans: spans(),
        negative_buckets: vec![n + 1, 1, -1, 0],
        ..Histogram::default()
    }
}

#[test]
fn closed_late_chunks_end_where_counters_are_reset_and_say_so() {
    use CounterResetHint::{NotReset, Reset, Unknown};
    for (is_whole, start) in [(true, 0), (false, 0), (true, 5), (false, 5)] {
        let table = LateTable::default();
        let rules = LateRules { epoch: 0, low: CommitId(9), chunk_len: 5 };
        let add = |t: i64, n: i64, counter_reset_hint| {
            let histogram = Histogram { counter_reset_hint, ..histogram(n) };
            let value: HistogramValue = if is_whole { histogram.into() } else { histogram.to_float().into() };
            let sample = LateSample { start, ..LateSample::settled(t, 0, LateValue::Histogram(value)) };
            assert!(matches!(table.insert(SeriesRef(1), sample, rules), Inserted::Taken { .. }));
        };
        // Their header, oldest and newest sample, and how many there are.
        let closed = || -> Vec<(u8, i64, i64, u16)> {
            let late = table.get(SeriesRef(1)).unwrap();
            let of = |chunk: &Arc<LateChunk>| {
                // With start times, it stands in the bits of the count.
                let byte = if start == 0 { chunk.data[2] } else { chunk.data[0] };
                let count = crate::storage::block::chunks::sample_count(chunk.encoding.id(), &chunk.data);
                (byte >> 6, chunk.min_t, chunk.max_t, count)
            };
            late.closed.iter().map(of).collect()
        };
        (1..=4).for_each(|i| add(100 + i, 1000 + i, Unknown));
        assert_eq!(closed(), []);
        add(105, 1005, Unknown);
        let mut wanted = vec![(UNKNOWN, 101, 105, 5)];
        assert_eq!(closed(), wanted);
        [(112, 1002), (110, 1001), (124, 904), (123, 903)].into_iter().for_each(|(t, n)| add(t, n, Unknown));
        assert_eq!(closed(), wanted);
        add(122, 902, Unknown);
        wanted.extend([(UNKNOWN, 110, 112, 2), (RESET, 122, 124, 3)]);
        assert_eq!(closed(), wanted);
        add(200, 2000, Unknown);
        add(205, 1000, NotReset);
        add(210, 2010, Reset);
        add(220, 2020, Unknown);
        assert_eq!(closed(), wanted);
        add(215, 2005, Unknown);
        wanted.extend([(UNKNOWN, 200, 200, 1), (RESET, 205, 205, 1), (RESET, 210, 210, 1), (RESET, 215, 220, 2)]);
        assert_eq!(closed(), wanted);
        add(350, 4000, Unknown);
        add(300, 3000, Reset);
        (1..=4).for_each(|i| add(300 + i, 3000 + i, Unknown));
        wanted.push((RESET, 300, 350, 5));
        assert_eq!(closed(), wanted, "whole {is_whole}, start {start}");
    }
}
