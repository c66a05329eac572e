use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::model::append::{AppendBatch, AppendSample, HistogramValue, SeriesKey};
use crate::model::clock::ManualClock;
use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::read::{FloatColumn, Unlimited};
use crate::model::time::TimeRange;
use crate::storage::fs::sim::SimFs;
use crate::storage::head::HeadOptions;
use crate::storage::wal::histogram_record::encode_histograms;
use crate::storage::wal::record::{encode_samples, encode_series, encode_staged};
use crate::telemetry::metrics::Registry;

pub(super) const DATA: &str = "/data";
pub(super) const FOREVER: TimestampMs = TimestampMs(i64::MIN);

pub(super) fn head(shards: u16) -> Head {
    Head::new(HeadOptions { shards, ..HeadOptions::new(ManualClock::at(TimestampMs(2_000_000_000_000))) })
}

pub(super) fn metrics() -> WalMetrics {
    let clock: crate::model::clock::SharedClock = ManualClock::at(TimestampMs(0));
    WalMetrics::new(&Registry::default(), &clock)
}

pub(super) fn reopen(fs: &SimFs, head: &Head, oldest: TimestampMs) -> (Writer, ReplayReport) {
    let shared: SharedFs = Arc::new(fs.clone());
    shared.create_dir_all(Path::new(DATA)).unwrap();
    open(&shared, Path::new(DATA), WalOptions::default(), &metrics(), head, oldest).unwrap()
}

/// Appends as the actors do: stage, log, apply.
pub(super) fn append(head: &Head, writer: &mut Writer, names: std::ops::Range<u32>, at: i64) {
    let sample = |i: u32| AppendSample {
        series: SeriesKey::Labels(Labels::from_pairs([("__name__", "m"), ("instance", &i.to_string())])),
        at: TimestampMs(at),
        value: f64::from(i) + at as f64,
    };
    let commit = head.begin(Some(TimestampMs(at)));
    let slices = head.route(AppendBatch::of_floats(names.map(sample).collect()));
    let shard = |id: ShardId| &head.shards()[usize::from(id.0)];
    let staged: Vec<_> = slices.into_iter().map(|(id, slice)| (id, shard(id).stage(&commit, slice).unwrap())).collect();
    writer.append(&encode_staged(&staged.iter().map(|(_, s)| s).collect::<Vec<_>>())).unwrap();
    drop(commit);
    staged.into_iter().for_each(|(id, part)| drop(shard(id).apply(part).unwrap()));
}

/// All series and samples, sorted.
fn content(head: &Head, name: &str) -> Vec<(Labels, Vec<i64>, Vec<u64>)> {
    let view = head.queryable().view().unwrap();
    let found = view.select(&[Matcher::equal("__name__", name)], TimeRange::ALL, &Unlimited).unwrap();
    let mut all: Vec<_> = found
        .iter()
        .map(|series| {
            let mut column = FloatColumn::default();
            series.samples.decode(TimeRange::ALL, &mut column).unwrap();
            (series.labels.clone(), column.timestamps, column.values.iter().map(|v| v.to_bits()).collect())
        })
        .collect();
    all.sort();
    all
}

#[test]
fn the_head_is_the_same_after_a_restart_whatever_the_number_of_shards() {
    let fs = SimFs::new();
    let before = head(3);
    let (mut writer, _) = reopen(&fs, &before, FOREVER);
    (0..300).for_each(|i| append(&before, &mut writer, 0..20 + i % 7, i64::from(i) * 15_000));
    drop(writer);
    for shards in [1, 3, 5] {
        let after = head(shards);
        let (_, report) = reopen(&fs, &after, FOREVER);
        assert_eq!(content(&after, "m"), content(&before, "m"));
        assert_eq!((report.head.series, report.head.samples), (26, before.stats().samples_appended));
        assert_eq!((report.head.unknown_refs, report.head.not_newer, report.head.bad_series), (0, 0, 0));
        assert_eq!((after.stats().min_time, after.stats().max_time), (Some(0), Some(299 * 15_000)));
        assert_eq!(after.stats().chunks, before.stats().chunks);
    }
}

#[test]
fn appends_after_a_restart_know_the_series_and_use_new_references() {
    let fs = SimFs::new();
    let first = head(2);
    append(&first, &mut reopen(&fs, &first, FOREVER).0, 0..10, 1000);
    let second = head(2);
    let mut writer = reopen(&fs, &second, FOREVER).0;
    append(&second, &mut writer, 5..15, 2000);
    drop(writer);
    let third = head(2);
    let (_, report) = reopen(&fs, &third, FOREVER);
    assert_eq!((report.log.ref_max, report.head.series, report.head.samples), (15, 15, 20));
    assert!(report.head.aliases.is_empty());
    assert_eq!(content(&third, "m"), content(&second, "m"));
}

#[test]
fn retention_bounds_what_comes_back() {
    let fs = SimFs::new();
    let before = head(1);
    let mut writer = reopen(&fs, &before, FOREVER).0;
    append(&before, &mut writer, 0..10, 1000);
    append(&before, &mut writer, 0..4, 2000);
    drop(writer);
    let after = head(1);
    let (_, report) = reopen(&fs, &after, TimestampMs(1500));
    assert_eq!((report.head.too_old, report.head.samples, after.stats().series), (10, 4, 4));
    assert!(content(&after, "m").iter().all(|(_, times, _)| times == &[2000]));
}

#[test]
fn references_of_the_same_labels_become_one_series_and_strange_ones_are_counted() {
    let fs = SimFs::new();
    let (mut writer, _) = reopen(&fs, &head(1), FOREVER);
    let labels = |name| Labels::from_pairs([("__name__", "m"), ("x", name)]);
    let (a, b) = (labels("a"), labels("b"));
    let mut records = Vec::new();
    let series = [(3, &a), (9, &a), (3, &a), (3, &b), (0, &b), (u64::MAX, &b)];
    encode_series(series.map(|(r, l)| (SeriesRef(r), l)), &mut records);
    let samples = [(3, 10), (9, 20), (9, 20), (3, 15), (77, 5)];
    let samples = samples.map(|(r, t)| RefSample { series: SeriesRef(r), t, value: 1.0 });
    encode_samples(samples, &mut records);
    writer.append(&records).unwrap();
    drop(writer);
    let after = head(1);
    let (mut writer, report) = reopen(&fs, &after, FOREVER);
    let found = content(&after, "m");
    assert_eq!((found.len(), &found[0].1), (1, &vec![10, 20]));
    assert_eq!((report.head.not_newer, report.head.unknown_refs, report.head.bad_series), (2, 1, 3));
    let aliases = report.head.aliases;
    assert_eq!(aliases, Aliases::from([(SeriesRef(9), SeriesRef(3))]));
    let live = |r| is_live(&after, &aliases, SeriesRef(r));
    assert!(live(3) && live(9) && !live(77));
    append(&after, &mut writer, 0..2, 1000);
    assert!([78, 79].iter().all(|r| after.shards()[0].holds(SeriesRef(*r))), "above every reference that can be one");
}

#[test]
fn histograms_of_fine_resolutions_are_reduced_and_of_unknown_schemas_counted_and_left_out() {
    let fs = SimFs::new();
    let (mut writer, _) = reopen(&fs, &head(1), FOREVER);
    let schemas = [-101, -10, -9, 8, 9, 52, 53, 101];
    let mut records = Vec::new();
    for (n, schema) in (1u64..).zip(schemas) {
        let labels = Labels::from_pairs([("__name__", "m"), ("schema", &schema.to_string())]);
        encode_series([(SeriesRef(n), &labels)], &mut records);
        let spans = vec![crate::model::histogram::Span { offset: 0, length: 2 }];
        let histogram = crate::model::histogram::Histogram {
            schema,
            count: 3,
            sum: 2.0,
            positive_spans: spans,
            positive_buckets: vec![1, 1],
            ..Default::default()
        };
        encode_histograms([(SeriesRef(n), 1_000, &HistogramValue::from(histogram))], &mut records);
    }
    writer.append(&records).unwrap();
    drop(writer);
    let after = head(2);
    let (_, report) = reopen(&fs, &after, FOREVER);
    assert_eq!((report.log.damage, report.head.bad_histograms), (vec![], 4));
    let found = whole_content(&after);
    let known: Vec<&str> = found.iter().filter_map(|(labels, _)| labels.get("schema")).collect();
    assert_eq!(known, ["-9", "52", "8", "9"]);
    for (labels, samples) in &found {
        let schema = labels.get("schema").unwrap().parse::<i32>().unwrap().min(8);
        assert!(samples.contains(&format!("schema: {schema},")), "{labels}: {samples}");
    }
}

#[test]
fn a_shard_is_rebuilt_beside_a_live_writer() {
    let fs = SimFs::new();
    let head = head(3);
    let (mut writer, _) = reopen(&fs, &head, FOREVER);
    (0..50).for_each(|i| append(&head, &mut writer, 0..40, i64::from(i) * 15_000));
    let before = content(&head, "m");
    let shard = &head.shards()[1];
    let held = shard.series_count();
    assert!(0 < held && held < 40);
    shard.begin_rebuild("a test");
    assert_eq!(head.stats().series, 40 - held as u64);
    let shared: SharedFs = Arc::new(fs.clone());
    let stats = rebuild_shard(&shared, Path::new(DATA), &head, ShardId(1), writer.position()).unwrap();
    assert_eq!((stats.series, stats.samples, stats.unknown_refs), (held as u64, held as u64 * 50, 0));
    assert_eq!((content(&head, "m"), head.stats().series), (before, 40));
    append(&head, &mut writer, 0..40, 60 * 15_000);
    assert!(content(&head, "m").iter().all(|(_, times, _)| times.len() == 51));

    shard.begin_rebuild("a test");
    shared.remove_dir_all(&Path::new(DATA).join("wal")).unwrap();
    assert!(rebuild_shard(&shared, Path::new(DATA), &head, ShardId(1), writer.position()).is_err());
    assert!(matches!(shard.state(), ShardState::Failed { .. }));
}

/// A head whose samples before [`BOUND`] have been dropped, half of the series with them, and its log of some segments.
fn truncated(fs: &SimFs) -> (Head, Writer, Aliases) {
    let head = head(2);
    let (mut writer, report) = reopen(fs, &head, FOREVER);
    for i in 0..60 {
        append(&head, &mut writer, 0..if i < 20 { 40 } else { 20 }, i * 15_000);
        if i % 10 == 9 {
            writer.next_segment().unwrap();
        }
    }
    head.truncate_blocking(BOUND);
    (head, writer, report.head.aliases)
}

const BOUND: TimestampMs = TimestampMs(30 * 15_000);

#[test]
fn a_checkpoint_keeps_what_the_head_shows_whichever_operation_fails() {
    for n in 1.. {
        let fs = SimFs::new();
        let (head, mut writer, aliases) = truncated(&fs);
        assert_eq!(head.stats().series, 20);
        let before = fs.operations();
        fs.fail_nth(n, 0);
        let job = writer.plan_checkpoint();
        let made = job.and_then(|job| job.unwrap().run(BOUND, &mut keeper(&head, &aliases)));
        let untouched = fs.operations() - before < n;
        fs.heal();
        append(&head, &mut writer, 0..20, 60 * 15_000);
        let after = super::tests::head(3);
        let (_, report) = reopen(&fs.fork(), &after, BOUND);
        assert_eq!(content(&after, "m"), content(&head, "m"), "operation {n} failed");
        assert_eq!((report.head.unknown_refs, report.log.damage), (0, vec![]), "operation {n} failed");
        if untouched {
            let stats = made.unwrap();
            assert_eq!((stats.series, 0 < stats.samples.0, 0 < stats.samples.1), ((20, 20), true, true));
            assert!(10 < n);
            return;
        }
    }
}

#[test]
fn no_checkpoint_is_made_while_a_shard_is_being_restored() {
    let fs = SimFs::new();
    let (head, mut writer, aliases) = truncated(&fs);
    let before = content(&head, "m");
    let job = writer.plan_checkpoint().unwrap().unwrap();
    let mut keep = keeper(&head, &aliases);
    head.shards()[1].begin_rebuild("a test");
    assert!(matches!(job.run(BOUND, &mut keep), Err(WalError::Unsettled)));
    let shared: SharedFs = Arc::new(fs.clone());
    rebuild_shard(&shared, Path::new(DATA), &head, ShardId(1), writer.position()).unwrap();
    assert_eq!(content(&head, "m"), before);
    let job = writer.plan_checkpoint().unwrap().unwrap();
    job.run(BOUND, &mut keeper(&head, &aliases)).unwrap();
}

/// What a log may hold, in its order.
#[derive(Clone, Debug)]
enum Written {
    Series(u64, u8),
    Samples(Vec<(u64, i64, bool)>),
}

fn written() -> impl proptest::strategy::Strategy<Value = Written> {
    use proptest::prelude::*;
    let sample = (0..12u64, 0..400i64, proptest::bool::weighted(0.2));
    prop_oneof![
        (0..12u64, 0..8u8).prop_map(|(reference, labels)| Written::Series(reference, labels)),
        proptest::collection::vec(sample, 1..40).prop_map(Written::Samples),
    ]
}

/// Everything that a head shows of `m`, histograms as well.
pub(super) fn whole_content(head: &Head) -> Vec<(Labels, String)> {
    let view = head.queryable().view().unwrap();
    let found = view.select(&[Matcher::equal("__name__", "m")], TimeRange::ALL, &Unlimited).unwrap();
    let mut all: Vec<_> = found
        .iter()
        .map(|series| {
            let mut column = crate::model::read::SampleColumn::default();
            series.samples.decode_all(TimeRange::ALL, &mut column).unwrap();
            (series.labels.clone(), format!("{column:?}"))
        })
        .collect();
    all.sort();
    all
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 60, ..Default::default() })]

    #[test]
    fn a_log_comes_back_the_same_by_any_number_of_threads(
        written in proptest::collection::vec(written(), 1..60),
        oldest in 0..80i64,
    ) {
        let fs = SimFs::new();
        let (mut writer, _) = reopen(&fs, &head(1), FOREVER);
        let mut records = Vec::new();
        for (at, one) in (0i64..).zip(&written) {
            match one {
                Written::Series(reference, labels) => {
                    let labels = Labels::from_pairs([("__name__", "m"), ("x", &labels.to_string())]);
                    encode_series([(SeriesRef(*reference), &labels)], &mut records);
                }
                Written::Samples(samples) => {
                    let floats = samples.iter().filter(|(_, _, is_histogram)| !is_histogram);
                    let floats = floats.map(|(r, t, _)| RefSample { series: SeriesRef(*r), t: t + at * 5, value: *t as f64 });
                    encode_samples(floats, &mut records);
                    let sum = |t: i64| HistogramValue::from(crate::model::histogram::Histogram { count: 1, zero_count: 1, sum: t as f64, ..Default::default() });
                    let histograms: Vec<_> = samples.iter().filter(|(_, _, is)| *is).map(|(r, t, _)| (SeriesRef(*r), t + at * 5, sum(*t))).collect();
                    encode_histograms(histograms.iter().map(|(r, t, h)| (*r, *t, h)), &mut records);
                }
            }
        }
        writer.append(&records).unwrap();
        drop(writer);
        let back = |shards| {
            let head = head(shards);
            let (_, report) = reopen(&fs.fork(), &head, TimestampMs(oldest));
            let figures = head.stats();
            (whole_content(&head), report.head, (figures.min_time, figures.max_time, figures.chunks, figures.series))
        };
        let one = back(1);
        proptest::prop_assert_eq!(&back(2), &one);
        proptest::prop_assert_eq!(&back(7), &one);
    }
}

/// Written by Prometheus 3.14 that scraped itself for twelve seconds and was killed.
const PROMETHEUS: &[u8] = include_bytes!("../../../tests/data/wal/prometheus-3.14");

#[test]
fn a_log_of_prometheus_is_read_whole() {
    let fs = SimFs::new();
    fs.put(&Path::new(DATA).join("wal/00000000"), PROMETHEUS).unwrap();
    let after = head(2);
    let (_, report) = reopen(&fs, &after, FOREVER);
    assert_eq!((&report.log.damage, report.head.samples), (&vec![], 1524));
    assert_eq!((report.head.unknown_refs, report.head.bad_series, report.log.skipped().count()), (0, 0, 0));
    let found = content(&after, "go_gc_cleanups_executed_cleanups_total");
    assert_eq!(found[0].0.get("instance"), Some("127.0.0.1:39871"));
    assert_eq!(found[0].1[..2], [1_795_477_864_542, 1_795_477_865_542]);
    assert_eq!(fs.read(&Path::new(DATA).join("wal/00000000")).unwrap(), PROMETHEUS, "it is left as it was");
}

/// With `WATCHFIRE_KEEP_WAL` the log is written to that folder and stays, to be opened with another program.
#[test]
fn a_log_is_read_back_from_real_files() {
    let dir = match std::env::var_os("WATCHFIRE_KEEP_WAL") {
        Some(kept) => std::path::PathBuf::from(kept),
        None => tempfile::tempdir().unwrap().keep(),
    };
    let fs = crate::storage::fs::RealFs::shared();
    let before = head(2);
    let now = 1_795_477_000_000;
    let (mut writer, _) = open(&fs, &dir, WalOptions::default(), &metrics(), &before, FOREVER).unwrap();
    (0..100).for_each(|i| append(&before, &mut writer, 0..500, now + i * 15_000));
    writer.sync().unwrap();
    drop(writer);
    let after = head(2);
    let (_, report) = open(&fs, &dir, WalOptions::default(), &metrics(), &after, FOREVER).unwrap();
    assert_eq!((report.head.series, report.head.samples), (500, 50_000));
    assert_eq!(content(&after, "m"), content(&before, "m"));
    if std::env::var_os("WATCHFIRE_KEEP_WAL").is_none() {
        std::fs::remove_dir_all(dir).unwrap();
    }
}
