//! Start times from the batch to readers, through the log, into blocks; and the zeros that stand for them.

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::model::append::{AppendBatch, AppendStarts, HistogramValue, SeriesKey};
use crate::model::clock::ManualClock;
use crate::model::histogram::{CounterResetHint, Histogram, Span};
use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::read::{SampleColumn, Unlimited};
use crate::model::time::TimeRange;
use crate::storage::chunk::Encoding;
use crate::storage::chunk::decode::ChunkDecoder;
use crate::storage::fs::sim::SimFs;
use crate::storage::head::HeadOptions;
use crate::storage::head::starts::StartPolicy;
use crate::storage::wal::record::{RecordKind, encode_staged};
use crate::telemetry::metrics::Registry;

const DATA: &str = "/data";
const STORED: StartPolicy = StartPolicy { zero_samples: false, stored: true };
const ZEROS: StartPolicy = StartPolicy { zero_samples: true, stored: false };

fn head(shards: u16, starts: StartPolicy) -> Head {
    Head::new(HeadOptions { shards, starts, ..HeadOptions::new(ManualClock::at(TimestampMs(2_000_000_000_000))) })
}

fn reopen(fs: &SimFs, head: &Head) -> (Writer, ReplayReport) {
    let shared: SharedFs = Arc::new(fs.clone());
    shared.create_dir_all(Path::new(DATA)).unwrap();
    let clock: crate::model::clock::SharedClock = ManualClock::at(TimestampMs(0));
    let metrics = WalMetrics::new(&Registry::default(), &clock);
    open(&shared, Path::new(DATA), WalOptions::default(), &metrics, head, TimestampMs(i64::MIN)).unwrap()
}

fn key(name: &str) -> SeriesKey {
    SeriesKey::Labels(Labels::from_pairs([("__name__", name)]))
}

fn histogram(count: i64) -> HistogramValue {
    Histogram {
        schema: 1,
        count: count.cast_unsigned(),
        sum: count as f64,
        positive_spans: vec![Span { offset: 0, length: 1 }],
        positive_buckets: vec![count],
        ..Histogram::default()
    }
    .into()
}

/// A counter and a histogram that say when they began, and a series that does not.
fn batch(at: i64, start: i64) -> AppendBatch {
    let mut batch = AppendBatch::default();
    batch.push_float(key("plain"), TimestampMs(at), 1.0);
    batch.push_float(key("counter"), TimestampMs(at), at as f64);
    batch.push_histogram(key("h"), TimestampMs(at), histogram(at));
    let of = |place: u32| if start == 0 { Vec::new() } else { vec![(place, start)] };
    AppendBatch { starts: AppendStarts { samples: of(1), histograms: of(0) }, ..batch }
}

fn append(head: &Head, writer: &mut Writer, batch: AppendBatch) {
    let commit = head.begin(None);
    let shard = |id: ShardId| &head.shards()[usize::from(id.0)];
    let staged: Vec<_> =
        head.route(batch).into_iter().map(|(id, slice)| (id, shard(id).stage(&commit, slice).unwrap())).collect();
    writer.append(&encode_staged(&staged.iter().map(|(_, s)| s).collect::<Vec<_>>())).unwrap();
    drop(commit);
    staged.into_iter().for_each(|(id, part)| drop(shard(id).apply(part).unwrap()));
}

fn read(head: &Head, name: &str) -> SampleColumn {
    let view = head.queryable().view().unwrap();
    let found = view.select(&[Matcher::equal("__name__", name)], TimeRange::ALL, &Unlimited).unwrap();
    let mut column = SampleColumn::default();
    found[0].samples.decode_all(TimeRange::ALL, &mut column).unwrap();
    column
}

/// Chunks of a series as a block would get them: encoding, and (time, start) of the samples.
fn exported(head: &Head, name: &str) -> Vec<(Encoding, Vec<(i64, i64)>)> {
    let mut export = head.export(i64::MAX);
    let mut found = Vec::new();
    while let Some((labels, chunks)) = export.next_series().unwrap() {
        for chunk in chunks.iter().filter(|_| labels.metric_name() == name) {
            let encoding = Encoding::from_id(chunk.encoding).unwrap();
            let mut samples = Vec::new();
            match ChunkDecoder::of_chunk(encoding, &chunk.data).unwrap() {
                ChunkDecoder::Floats(mut decoder) => {
                    while let Some((t, _)) = decoder.next_sample().unwrap() {
                        samples.push((t, 0));
                    }
                }
                ChunkDecoder::StartedFloats(mut decoder) => {
                    while let Some(sample) = decoder.next_sample().unwrap() {
                        samples.push((sample.t, sample.start));
                    }
                }
                ChunkDecoder::Histograms(mut decoder) => {
                    while let Some(t) = decoder.advance().unwrap() {
                        samples.push((t, decoder.start()));
                    }
                }
                ChunkDecoder::FloatHistograms(_) => panic!("there is none"),
            }
            found.push((encoding, samples));
        }
    }
    found
}

#[test]
fn starts_are_read_back_from_head_log_and_blocks() {
    let fs = SimFs::new();
    let before = head(3, STORED);
    let (mut writer, _) = reopen(&fs, &before);
    for (at, start) in [(1000, 900), (2000, 900), (3000, 0), (4000, 3900)] {
        append(&before, &mut writer, batch(at, start));
    }
    drop(writer);
    let after = head(1, STORED);
    let (_, report) = reopen(&fs, &after);
    assert_eq!(report.log.records.get(&RecordKind::SamplesV2), Some(&4));
    let starts = [900, 900, 0, 3900];
    for head in [&before, &after] {
        assert_eq!(read(head, "counter").float_starts, starts);
        assert_eq!(read(head, "h").histogram_starts, starts);
        assert_eq!((read(head, "plain").float_starts, read(head, "plain").floats.len()), (vec![], 4));
        let times = [1000, 2000, 3000, 4000];
        let with = |starts: [i64; 4]| times.into_iter().zip(starts).collect::<Vec<_>>();
        assert_eq!(exported(head, "counter"), [(Encoding::Xor, with([0; 4]))]);
        head.set_block_encodings(true, true);
        assert_eq!(exported(head, "counter"), [(Encoding::Xor2, with(starts))]);
        assert_eq!(exported(head, "plain"), [(Encoding::Xor2, with([0; 4]))]);
        assert_eq!(exported(head, "h"), [(Encoding::HistogramStarts, with(starts))]);
    }
}

#[test]
fn zeros_stand_at_starts_that_are_new() {
    let fs = SimFs::new();
    let head = head(2, ZEROS);
    let (mut writer, _) = reopen(&fs, &head);
    // The last two starts are no news, and one that lies ahead is none.
    for (at, start) in [(2000, 1500), (3000, 1500), (5000, 4000), (6000, 4000), (7000, 7500), (8000, 0)] {
        append(&head, &mut writer, batch(at, start));
    }
    drop(writer);
    let again = self::head(1, ZEROS);
    let (_, report) = reopen(&fs, &again);
    assert_eq!(report.head.not_newer, 0);
    for head in [&head, &again] {
        let floats = read(head, "counter").floats;
        assert_eq!(floats.timestamps, [1500, 2000, 3000, 4000, 5000, 6000, 7000, 8000]);
        assert_eq!((floats.values[0], floats.values[3]), (0.0, 0.0));
        let column = read(head, "h");
        assert_eq!(column.histograms.timestamps, floats.timestamps);
        assert_eq!((column.histograms.values[3].count, column.histograms.values[4].count), (0.0, 5000.0));
        assert_eq!(column.histograms.values[4].counter_reset_hint, CounterResetHint::NotReset);
        assert_eq!(read(head, "plain").floats.len(), 6);
    }
    assert_eq!(head.stats().out_of_order, 0);
}

#[test]
fn a_log_without_start_times_is_read_by_a_head_that_stores_them() {
    let fs = SimFs::new();
    let before = head(2, StartPolicy::default());
    let (mut writer, _) = reopen(&fs, &before);
    for at in [1000, 2000, 3000] {
        append(&before, &mut writer, batch(at, 900));
    }
    drop(writer);
    let after = head(1, STORED);
    let (mut writer, report) = reopen(&fs, &after);
    assert_eq!(report.log.records.get(&RecordKind::Samples), Some(&3));
    assert_eq!((read(&after, "counter").float_starts, read(&after, "h").histogram_starts), (vec![], vec![]));
    append(&after, &mut writer, batch(4000, 3900));
    let starts = [0, 0, 0, 3900];
    assert_eq!(
        (read(&after, "counter").float_starts, read(&after, "h").histogram_starts),
        (starts.into(), starts.into())
    );
    after.set_block_encodings(true, true);
    let samples = [1000, 2000, 3000, 4000].into_iter().zip(starts).collect();
    assert_eq!(exported(&after, "counter"), [(Encoding::Xor2, samples)]);
}
