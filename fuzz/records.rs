//! Records of all thirteen types of the log, and both ways to compress them.

use std::sync::Arc;

use watchfire::model::append::HistogramValue;
use watchfire::model::exemplar::Exemplar;
use watchfire::model::histogram::{CUSTOM_BUCKETS_SCHEMA, FloatHistogram, Histogram, Span};
use watchfire::model::labels::Labels;
use watchfire::model::metadata::{MetricType, SeriesMetadata};
use watchfire::model::sample::SeriesRef;
use watchfire::model::time::TimestampMs;
use watchfire::storage::block::tombstones::Interval;
use watchfire::storage::wal::exemplar_record::{decode_exemplars, encode_exemplars};
use watchfire::storage::wal::fragment::Compression;
use watchfire::storage::wal::histogram_record::{
    decode_started_histograms, encode_histograms, encode_started_histograms,
};
use watchfire::storage::wal::metadata_record::{decode_metadata, encode_metadata};
use watchfire::storage::wal::reader::Inflater;
use watchfire::storage::wal::record::{
    RefSample, decode_series, decode_started_samples, encode_samples, encode_series, encode_started_samples,
};
use watchfire::storage::wal::tombstone_record::{RefTombstone, decode_tombstones, encode_tombstones};

use crate::storage::{ROOM, run, run_within};

fn histograms() -> Vec<HistogramValue> {
    let spans = vec![Span { offset: -3, length: 2 }, Span { offset: 5, length: 1 }];
    let whole = Histogram {
        schema: 3,
        zero_threshold: 1e-128,
        zero_count: 2,
        count: 12,
        sum: 99.5,
        positive_spans: spans.clone(),
        positive_buckets: vec![3, -1, 2],
        ..Histogram::default()
    };
    let custom = Histogram {
        schema: CUSTOM_BUCKETS_SCHEMA,
        count: 3,
        sum: 2.25,
        positive_spans: vec![Span { offset: 0, length: 2 }],
        positive_buckets: vec![1, 1],
        custom_values: vec![0.5, 1.0, 2.5],
        ..Histogram::default()
    };
    let float = FloatHistogram {
        schema: 20,
        count: 7.5,
        sum: -1.0,
        negative_spans: spans,
        negative_buckets: vec![1.0, 2.5, 4.0],
        ..FloatHistogram::default()
    };
    let float_custom = FloatHistogram {
        schema: CUSTOM_BUCKETS_SCHEMA,
        count: 3.5,
        positive_spans: vec![Span { offset: 0, length: 1 }],
        positive_buckets: vec![3.5],
        custom_values: vec![7.0],
        ..FloatHistogram::default()
    };
    vec![
        whole.into(),
        custom.into(),
        HistogramValue::Float(Arc::new(float)),
        HistogramValue::Float(Arc::new(float_custom)),
    ]
}

/// A record of each type, as they are written.
pub(crate) fn of_all_types() -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    let labels = Labels::from_pairs([("__name__", "m"), ("i", "1"), ("é", "ü")]);
    encode_series((1..5).map(|n| (SeriesRef(n), &labels)), &mut records);
    let sample = |n: u64| RefSample { series: SeriesRef(n), t: 1_000 * n as i64, value: n as f64 };
    encode_samples((1..9).map(sample), &mut records);
    encode_started_samples((1..9).map(|n| (sample(n), 500 * (n as i64 / 3))), &mut records);
    let histograms = histograms();
    encode_histograms(histograms.iter().map(|h| (SeriesRef(3), 4_000, h)), &mut records);
    let started = histograms.iter().enumerate().map(|(n, h)| (SeriesRef(n as u64), 4_000, 1_000 + n as i64, h));
    encode_started_histograms(started, &mut records);
    let stones = [(1, 5, 9), (2, i64::MIN, i64::MAX)];
    let stones =
        stones.map(|(n, min_t, max_t)| RefTombstone { series: SeriesRef(n), interval: Interval { min_t, max_t } });
    encode_tombstones(stones, &mut records);
    let exemplar = Exemplar { labels: labels.clone(), value: 0.25, at: TimestampMs(2_000), has_time: true };
    encode_exemplars([(SeriesRef(1), &exemplar), (SeriesRef(2), &exemplar)], &mut records);
    let metadata = SeriesMetadata { kind: MetricType::Counter, unit: "s".to_owned(), help: "What it is.".to_owned() };
    encode_metadata([(SeriesRef(1), &metadata)], &mut records);
    let mut found: Vec<Vec<u8>> = records.iter().map(|record| record.as_bytes().to_vec()).collect();
    // Places of chunks, which Prometheus writes into its log of late samples.
    found.push([&[5u8][..], &7u64.to_be_bytes(), &((1u64 << 32) | 8).to_be_bytes()].concat());
    let kinds: std::collections::BTreeSet<u8> = found.iter().map(|record| record[0]).collect();
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), (1..=13).collect::<Vec<_>>());
    found
}

#[test]
fn records_of_all_types() {
    let sound = of_all_types();
    run("records_of_all_types", 8_000, &sound, |input| {
        let (mut samples, mut histograms, mut starts) = (Vec::new(), Vec::new(), Vec::new());
        let (mut series, mut exemplars, mut metadata) = (Vec::new(), Vec::new(), Vec::new());
        let _ = decode_series(input, &mut series);
        let read = decode_started_samples(input, &mut samples, &mut starts);
        assert!(read.is_err() || starts.is_empty() || starts.len() == samples.len());
        starts.clear();
        let read = decode_started_histograms(input, &mut histograms, &mut starts);
        assert!(read.is_err() || starts.is_empty() || starts.len() == histograms.len());
        let _ = decode_tombstones(input);
        let _ = decode_exemplars(input, &mut exemplars);
        let _ = decode_metadata(input, &mut metadata);
    });
    // What they decode to is the same when it is encoded once more.
    for record in sound.iter().filter(|record| record[0] == 11) {
        let (mut samples, mut starts, mut again) = (Vec::new(), Vec::new(), Vec::new());
        decode_started_samples(record, &mut samples, &mut starts).unwrap();
        encode_started_samples(samples.into_iter().zip(starts), &mut again);
        assert_eq!(again[0].as_bytes(), record);
    }
}

#[test]
fn compressed_records() {
    let plain = of_all_types().concat().repeat(5);
    let snappy = vec![snap::raw::Encoder::new().compress_vec(&plain).unwrap()];
    run("snappy", 4_000, &snappy, |input| {
        let _ = Inflater::default().inflate(Compression::Snappy, input);
    });
    let zstd = [zstd::bulk::compress(&plain, 3).unwrap(), zstd::stream::encode_all(&plain[..], 3).unwrap()];
    // A frame may say how long its content is, as far as the format can make that of it: 32 KiB of a byte.
    let room = ROOM + ((zstd[0].len().max(zstd[1].len()) + 16) << 15);
    run_within("zstd", 600, &zstd, room, |input| {
        let _ = Inflater::default().inflate(Compression::Zstd, input);
    });
}
