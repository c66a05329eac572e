use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::model::append::{AppendBatch, AppendSample, HistogramValue, SeriesKey};
use crate::model::clock::ManualClock;
use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::read::{FloatColumn, Unlimited};
use crate::model::time::TimeRange;
use crate::storage::fs::Fs as _;
use crate::storage::fs::sim::SimFs;
use crate::storage::head::HeadOptions;
use crate::storage::wal::histogram_record::encode_histograms;
use crate::storage::wal::record::{encode_samples, encode_series, encode_staged};
use crate::storage::wal::segments::{list_segments, segment_name};
use crate::telemetry::metrics::Registry;

const DATA: &str = "/data";
const FOREVER: TimestampMs = TimestampMs(i64::MIN);

fn head(shards: u16) -> Head {
    Head::new(HeadOptions { shards, ..HeadOptions::new(ManualClock::at(TimestampMs(2_000_000_000_000))) })
}

fn metrics() -> WalMetrics {
    let clock: crate::model::clock::SharedClock = ManualClock::at(TimestampMs(0));
    WalMetrics::new(&Registry::default(), &clock)
}

fn reopen(fs: &SimFs, head: &Head, oldest: TimestampMs) -> (Writer, ReplayReport) {
    let shared: SharedFs = Arc::new(fs.clone());
    shared.create_dir_all(Path::new(DATA)).unwrap();
    open(&shared, Path::new(DATA), WalOptions::default(), &metrics(), head, oldest).unwrap()
}

/// Appends as the actors do: stage, log, apply.
fn append(head: &Head, writer: &mut Writer, names: std::ops::Range<u32>, at: i64) {
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
fn whole_content(head: &Head) -> Vec<(Labels, String)> {
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

/// As the server stops.
fn stop(fs: &SimFs, head: &Head, writer: &mut Writer, aliases: &Aliases) -> Result<u64, SnapshotError> {
    let clock: crate::model::clock::SharedClock = ManualClock::at(TimestampMs(0));
    let position = writer.finish().map_err(SnapshotError::Disk)?;
    let stop = chunk_snapshot::Stop { position, options: WalOptions::default(), aliases, clock: &clock };
    let shared: SharedFs = Arc::new(fs.clone());
    chunk_snapshot::write(&shared, Path::new(DATA), head, &stop)
}

/// A head with several chunks for each series of floats, histograms and repeated references, and its log.
fn stored() -> (SimFs, Head, Writer, Aliases) {
    let fs = SimFs::new();
    let head = head(2);
    let (mut writer, _) = reopen(&fs, &head, FOREVER);
    let twice = Labels::from_pairs([("__name__", "m"), ("instance", "3")]);
    let h = Labels::from_pairs([("__name__", "m"), ("h", "1")]);
    (0..300).for_each(|i| append(&head, &mut writer, 0..6 + u32::try_from(i % 3).unwrap(), i * 15_000));
    let mut records = Vec::new();
    encode_series([(SeriesRef(70), &twice), (SeriesRef(71), &h)], &mut records);
    let histogram = |i: u64| {
        let value = crate::model::histogram::Histogram { count: i, zero_count: i, sum: i as f64, ..Default::default() };
        (SeriesRef(71), i64::try_from(i).unwrap() * 15_000, HistogramValue::from(value))
    };
    let histograms: Vec<_> = (0..200).map(histogram).collect();
    encode_histograms(histograms.iter().map(|(r, t, h)| (*r, *t, h)), &mut records);
    encode_samples([RefSample { series: SeriesRef(70), t: 301 * 15_000, value: 7.0 }], &mut records);
    writer.append(&records).unwrap();
    drop(writer);
    let head = super::tests::head(3);
    let (writer, report) = reopen(&fs, &head, FOREVER);
    assert_eq!(report.head.aliases.keys().collect::<Vec<_>>(), [&SeriesRef(70)]);
    (fs, head, writer, report.head.aliases)
}

fn remove(fs: &SimFs, prefix: &str) {
    for entry in fs.list(Path::new(DATA)).unwrap().into_iter().filter(|entry| entry.name.starts_with(prefix)) {
        fs.remove_dir_all(&Path::new(DATA).join(entry.name)).unwrap();
    }
}

#[test]
fn a_snapshot_brings_the_head_back_and_the_log_goes_on_behind_it() {
    let (fs, before, mut writer, aliases) = stored();
    let content = whole_content(&before);
    assert!(14 < before.stats().chunks);
    assert_eq!(stop(&fs, &before, &mut writer, &aliases).unwrap(), 9);
    for shards in [1, 3] {
        let fs = fs.fork();
        let head = head(shards);
        let (mut writer, report) = reopen(&fs, &head, FOREVER);
        assert_eq!((report.from, report.head.series, report.log.samples), (ReadFrom::Snapshot, 9, 0));
        assert_eq!(whole_content(&head), content);
        assert_eq!(report.head.aliases, aliases);
        let figures =
            |head: &Head| (head.stats().min_time, head.stats().max_time, head.stats().chunks, head.next_ref());
        assert_eq!(figures(&head), figures(&before));
        // Killed before the next stop: the snapshot and what the log has behind it.
        append(&head, &mut writer, 0..9, 400 * 15_000);
        drop(writer);
        let again = super::tests::head(2);
        let (mut writer, report) = reopen(&fs, &again, FOREVER);
        assert_eq!((report.from, report.head.misfits), (ReadFrom::Snapshot, 0));
        assert_eq!(whole_content(&again), whole_content(&head));
        // A second stop writes only chunks that are in no file yet.
        (401..700).for_each(|i| append(&again, &mut writer, 0..9, i * 15_000));
        let first = fs.read(&Path::new(DATA).join("chunks_head/000001")).unwrap();
        stop(&fs, &again, &mut writer, &report.head.aliases).unwrap();
        assert_eq!(fs.read(&Path::new(DATA).join("chunks_head/000001")).unwrap(), first);
        let shared: SharedFs = Arc::new(fs.clone());
        assert_eq!(chunk_snapshot::list(&shared, Path::new(DATA)).unwrap().len(), 1);
        let last = super::tests::head(2);
        let (_, report) = reopen(&fs, &last, FOREVER);
        assert_eq!((report.from, whole_content(&last)), (ReadFrom::Snapshot, whole_content(&again)));
        // Without it the log says the same, with the chunks or alone.
        remove(&fs, "chunk_snapshot");
        let plain = super::tests::head(2);
        let (_, report) = reopen(&fs, &plain, FOREVER);
        assert_eq!((report.from, whole_content(&plain)), (ReadFrom::ChunksAndLog, whole_content(&again)));
        remove(&fs, "chunks_head");
        let plain = super::tests::head(2);
        reopen(&fs, &plain, FOREVER);
        assert_eq!(whole_content(&plain), whole_content(&again));
    }
}

#[test]
fn whichever_operation_of_a_stop_fails_the_next_start_finds_everything() {
    let (fs, head, writer, aliases) = stored();
    drop(writer);
    let content = whole_content(&head);
    let before = fs.fork();
    for n in 1.. {
        let fs = before.fork();
        let own = super::tests::head(2);
        let (mut writer, _) = reopen(&fs, &own, FOREVER);
        let from = fs.operations();
        fs.fail_nth(from + n, if n % 2 == 0 { 1000 } else { 0 });
        let written = stop(&fs, &own, &mut writer, &aliases);
        let untouched = fs.operations() < from + n;
        fs.heal();
        for lost in [false, true] {
            let fs = fs.fork();
            if lost {
                fs.cut_power();
            }
            let after = super::tests::head(2);
            let (_, report) = reopen(&fs, &after, FOREVER);
            assert_eq!(whole_content(&after), content, "operation {n} failed");
            assert!(written.is_err() || report.from == ReadFrom::Snapshot, "operation {n} failed");
        }
        if untouched {
            assert!(written.is_ok() && 15 < n, "{n}");
            return;
        }
    }
}

#[test]
fn a_damaged_part_sends_the_start_to_the_log() {
    let (fs, head, mut writer, aliases) = stored();
    let content = whole_content(&head);
    stop(&fs, &head, &mut writer, &aliases).unwrap();
    let shared: SharedFs = Arc::new(fs.clone());
    let dir = chunk_snapshot::list(&shared, Path::new(DATA)).unwrap().remove(0).dir().to_path_buf();
    for path in [dir.join("00000000"), dir.join("watchfire"), Path::new(DATA).join("chunks_head/000001")] {
        let bytes = fs.read(&path).unwrap();
        for at in (0..bytes.len()).step_by(bytes.len() / 23 + 1) {
            let fs = fs.fork();
            let mut wrong = bytes.clone();
            wrong[at] ^= 1;
            fs.put(&path, &wrong).unwrap();
            let after = super::tests::head(2);
            let (_, report) = reopen(&fs, &after, FOREVER);
            assert_eq!(whole_content(&after), content, "byte {at} of {}", path.display());
            let padding = wrong[at] == 1 && bytes[at..].iter().all(|byte| *byte == 0);
            assert!(report.from != ReadFrom::Snapshot || padding, "byte {at} of {}", path.display());
        }
        let fs = fs.fork();
        fs.remove_file(&path).unwrap();
        let after = super::tests::head(2);
        reopen(&fs, &after, FOREVER);
        let is_notes = path.ends_with("watchfire");
        assert!(whole_content(&after) == content || is_notes, "{} is missing", path.display());
    }
    // The log has lost the place.
    let wal = Path::new(DATA).join("wal");
    let last = list_segments(&fs, &wal).unwrap().pop().unwrap();
    fs.remove_file(&wal.join(segment_name(last.segment))).unwrap();
    assert_eq!(chunk_snapshot::usable(&shared, Path::new(DATA)).unwrap(), None);
    chunk_snapshot::prepare_truncation(&shared, Path::new(DATA), TimestampMs(0)).unwrap();
    assert_eq!(chunk_snapshot::list(&shared, Path::new(DATA)).unwrap(), []);
}

#[test]
fn deletions_and_exemplars_go_through_a_snapshot() {
    use crate::model::exemplar::Exemplar;
    let (fs, head, writer, aliases) = stored();
    drop(writer);
    let fresh = || {
        let head = super::tests::head(2);
        head.exemplars().resize(10);
        head
    };
    let labels = Labels::from_pairs([("__name__", "m"), ("instance", "1")]);
    let before = fresh();
    let (mut writer, _) = reopen(&fs, &before, FOREVER);
    for at in [5, 3, 9] {
        let labels_of = Labels::from_pairs([("trace", &at.to_string())]);
        let exemplar = Exemplar { at: TimestampMs(at), value: at as f64, labels: labels_of, has_time: true };
        before.exemplars().add(&labels, labels.hash64(), &exemplar);
    }
    let matchers = vec![vec![Matcher::equal("instance", "2")]];
    let range = TimeRange::new(TimestampMs(0), TimestampMs(100 * 15_000)).unwrap();
    before.delete_blocking(&matchers, range).unwrap();
    let content = whole_content(&before);
    assert_ne!(content, whole_content(&head));
    stop(&fs, &before, &mut writer, &aliases).unwrap();
    let after = fresh();
    let (_, report) = reopen(&fs, &after, FOREVER);
    assert_eq!((report.from, whole_content(&after)), (ReadFrom::Snapshot, content));
    let held = |head: &Head| format!("{:?}", head.exemplars().select(&[Vec::new()], i64::MIN, i64::MAX));
    assert_eq!((held(&after), report.head.unknown_exemplar_refs), (held(&before), 0));
}

/// Written by Prometheus 3.14 that took 300 samples of each of 12 series and stopped with a snapshot; the zeros at the end of
/// its head chunks are cut off.
const STOPPED: [(&str, &[u8]); 3] = [
    ("wal/00000000", include_bytes!("../../../tests/data/snapshot/wal/00000000")),
    ("chunks_head/000001", include_bytes!("../../../tests/data/snapshot/chunks_head/000001")),
    (
        "chunk_snapshot.000000.0000032768/00000000",
        include_bytes!("../../../tests/data/snapshot/chunk_snapshot.000000.0000032768/00000000"),
    ),
];

#[test]
fn a_snapshot_of_prometheus_is_read_like_its_log() {
    let fs = SimFs::new();
    STOPPED.iter().for_each(|(path, bytes)| fs.put(&Path::new(DATA).join(path), bytes).unwrap());
    let everything = |head: &Head| {
        let view = head.queryable().view().unwrap();
        let found = view.select(&[], TimeRange::ALL, &Unlimited).unwrap();
        let mut all: Vec<_> = found
            .iter()
            .map(|series| {
                let mut column = FloatColumn::default();
                series.samples.decode(TimeRange::ALL, &mut column).unwrap();
                (
                    series.labels.clone(),
                    column.timestamps,
                    column.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>(),
                )
            })
            .collect();
        all.sort();
        all
    };
    let from_snapshot = head(2);
    let (mut writer, report) = reopen(&fs.fork(), &from_snapshot, FOREVER);
    assert_eq!((report.from, report.head.series, report.head.samples), (ReadFrom::Snapshot, 12, 3600));
    assert_eq!((report.log.samples, report.head.misfits, report.log.damage), (0, 0, vec![]));
    remove(&fs, "chunk_snapshot");
    let from_log = head(2);
    let (_, report) = reopen(&fs, &from_log, FOREVER);
    assert_eq!((report.from, report.head.misfits), (ReadFrom::ChunksAndLog, 0));
    assert_eq!(everything(&from_snapshot), everything(&from_log));
    assert_eq!(from_snapshot.next_ref(), from_log.next_ref());
    append(&from_snapshot, &mut writer, 0..1, 1_795_665_600_000);
    assert_eq!(from_snapshot.stats().series, 13);
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
