use std::path::Path;
use std::sync::Arc;

use super::tests::{DATA, FOREVER, append, head as new_head, reopen, whole_content};
use super::*;
use crate::model::append::HistogramValue;
use crate::model::clock::ManualClock;
use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::read::{FloatColumn, Unlimited};
use crate::model::time::TimeRange;
use crate::storage::fs::Fs as _;
use crate::storage::fs::sim::SimFs;
use crate::storage::wal::fragment::{Compression, frame};
use crate::storage::wal::histogram_record::encode_histograms;
use crate::storage::wal::reader::{Inflater, Item, SegmentReader};
use crate::storage::wal::record::{self, encode_samples, encode_series};
use crate::storage::wal::segments::{list_segments, segment_name};

/// As the server stops.
pub(super) fn stop(fs: &SimFs, head: &Head, writer: &mut Writer, aliases: &Aliases) -> Result<u64, SnapshotError> {
    let clock: crate::model::clock::SharedClock = ManualClock::at(TimestampMs(0));
    let position = writer.finish().map_err(SnapshotError::Disk)?;
    let stop = chunk_snapshot::Stop { position, options: WalOptions::default(), aliases, clock: &clock };
    let shared: SharedFs = Arc::new(fs.clone());
    chunk_snapshot::write(&shared, Path::new(DATA), head, &stop)
}

/// A head with several chunks for each series of floats, histograms and repeated references, and its log.
pub(super) fn stored() -> (SimFs, Head, Writer, Aliases) {
    let fs = SimFs::new();
    let head = new_head(2);
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
    writer.sync().unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    drop(writer);
    let head = new_head(3);
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
        let head = new_head(shards);
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
        let again = new_head(2);
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
        let last = new_head(2);
        let (_, report) = reopen(&fs, &last, FOREVER);
        assert_eq!((report.from, whole_content(&last)), (ReadFrom::Snapshot, whole_content(&again)));
        // Without it the log says the same, with the chunks or alone.
        remove(&fs, "chunk_snapshot");
        let plain = new_head(2);
        let (_, report) = reopen(&fs, &plain, FOREVER);
        assert_eq!((report.from, whole_content(&plain)), (ReadFrom::ChunksAndLog, whole_content(&again)));
        remove(&fs, "chunks_head");
        let plain = new_head(2);
        reopen(&fs, &plain, FOREVER);
        assert_eq!(whole_content(&plain), whole_content(&again));
    }
}

#[test]
fn what_the_log_has_before_a_snapshot_is_left_alone() {
    let (fs, head, writer, aliases) = stored();
    drop((head, writer));
    for round in 0..3 {
        let own = new_head(2);
        let (mut writer, _) = reopen(&fs, &own, FOREVER);
        append(&own, &mut writer, 0..3, (500 + round) * 15_000);
    }
    // As after an older stop of Prometheus: a checkpoint well before the segment of the snapshot.
    let wal = Path::new(DATA).join("wal");
    fs.create_dir_all(&wal.join("checkpoint.00000000")).unwrap();
    fs.hard_link(&wal.join(segment_name(0)), &wal.join("checkpoint.00000000").join(segment_name(0))).unwrap();
    let own = new_head(2);
    let (mut writer, _) = reopen(&fs, &own, FOREVER);
    stop(&fs, &own, &mut writer, &aliases).unwrap();
    drop(writer);
    let segments = || -> Vec<(u64, Vec<u8>)> {
        let files = list_segments(&fs, &wal).unwrap();
        files.iter().map(|file| (file.segment, fs.read(&wal.join(segment_name(file.segment))).unwrap())).collect()
    };
    let before = segments();
    assert!(3 < before.len() && before.iter().filter(|(_, bytes)| !bytes.is_empty()).count() > 2);
    let again = new_head(2);
    let (_, report) = reopen(&fs, &again, FOREVER);
    assert_eq!((report.from, report.log.missing.len(), report.log.missing_files.len()), (ReadFrom::Snapshot, 0, 0));
    assert_eq!(segments()[..before.len()], before[..]);
    assert_eq!(whole_content(&again), whole_content(&own));
}

#[test]
fn whichever_operation_of_a_stop_fails_the_next_start_finds_everything() {
    let (fs, head, writer, aliases) = stored();
    drop(writer);
    let content = whole_content(&head);
    let before = fs.fork();
    for n in 1.. {
        let fs = before.fork();
        let own = new_head(2);
        let (mut writer, _) = reopen(&fs, &own, FOREVER);
        let from = fs.operations();
        fs.fail_nth(n, if n % 2 == 0 { 1000 } else { 0 });
        let written = stop(&fs, &own, &mut writer, &aliases);
        let untouched = fs.operations() < from + n;
        fs.heal();
        for lost in [false, true] {
            let fs = fs.fork();
            if lost {
                fs.cut_power();
            }
            let after = new_head(2);
            let (_, report) = reopen(&fs, &after, FOREVER);
            assert_eq!(whole_content(&after), content, "operation {n} failed");
            assert!(
                written.is_err() || report.from == ReadFrom::Snapshot,
                "operation {n} failed, {lost} {written:?} {:?} {:?}",
                report.snapshot_error,
                report.from
            );
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
            let after = new_head(2);
            let (_, report) = reopen(&fs, &after, FOREVER);
            assert_eq!(whole_content(&after), content, "byte {at} of {}", path.display());
            let padding = wrong[at] == 1 && bytes[at..].iter().all(|byte| *byte == 0);
            assert!(report.from != ReadFrom::Snapshot || padding, "byte {at} of {}", path.display());
        }
        let fs = fs.fork();
        fs.remove_file(&path).unwrap();
        let after = new_head(2);
        reopen(&fs, &after, FOREVER);
        assert_eq!(whole_content(&after), content, "{} is missing", path.display());
    }
    // The log has lost the place.
    let wal = Path::new(DATA).join("wal");
    let last = list_segments(&fs, &wal).unwrap().pop().unwrap();
    fs.remove_file(&wal.join(segment_name(last.segment))).unwrap();
    assert_eq!(chunk_snapshot::usable(&shared, Path::new(DATA)).unwrap(), None);
    chunk_snapshot::prepare_truncation(&shared, Path::new(DATA), TimestampMs(0), None, &|_| true).unwrap();
    assert_eq!(chunk_snapshot::list(&shared, Path::new(DATA)).unwrap(), []);
}

#[test]
fn a_snapshot_with_an_encoding_that_nobody_knows_sends_the_start_to_the_log() {
    let (fs, head, mut writer, aliases) = stored();
    let content = whole_content(&head);
    stop(&fs, &head, &mut writer, &aliases).unwrap();
    let shared: SharedFs = Arc::new(fs.clone());
    let dir = chunk_snapshot::list(&shared, Path::new(DATA)).unwrap().remove(0).dir().to_path_buf();
    let path = dir.join("00000000");
    let mut reader = SegmentReader::new(shared.open(&path).unwrap(), None).unwrap();
    let (mut inflater, mut records) = (Inflater::default(), Vec::new());
    while let Some(Item::Record { compression, data, .. }) = reader.next_item().unwrap() {
        records.push(inflater.inflate(compression, data).unwrap().to_vec());
    }
    // The first series with an open chunk gets another encoding.
    let place_of_encoding = |record: &Vec<u8>| {
        let mut rest = record.strip_prefix(&[1])?;
        record::take_u64(&mut rest)?;
        record::labels_from(&mut rest).ok()?;
        record::take_u64(&mut rest)?;
        (record::take_uvarint(&mut rest)? == 1).then(|| record.len() - rest.len() + 16)
    };
    let (number, at) =
        records.iter().enumerate().find_map(|(number, record)| Some((number, place_of_encoding(record)?))).unwrap();
    assert_eq!(records[number][at], 1);
    for (encoding, from) in [(1, ReadFrom::Snapshot), (99, ReadFrom::ChunksAndLog)] {
        records[number][at] = encoding;
        let mut segment = Vec::new();
        for record in &records {
            frame(record, Compression::None, 0, &mut segment);
        }
        let fs = fs.fork();
        fs.put(&path, &segment).unwrap();
        let after = new_head(2);
        let (_, report) = reopen(&fs, &after, FOREVER);
        assert_eq!((report.from, whole_content(&after)), (from, content.clone()), "encoding {encoding}");
    }
}

#[test]
fn deletions_and_exemplars_go_through_a_snapshot() {
    use crate::model::exemplar::Exemplar;
    let (fs, head, writer, aliases) = stored();
    drop(writer);
    let fresh = || {
        let head = new_head(2);
        head.exemplars().resize(10);
        head
    };
    let labels = Labels::from_pairs([("__name__", "m"), ("instance", "1")]);
    let before = fresh();
    let (mut writer, _) = reopen(&fs, &before, FOREVER);
    for at in [5, 3, 9] {
        let labels_of = Labels::from_pairs([("trace", &at.to_string())]);
        let exemplar = Exemplar { at: TimestampMs(at), value: at as f64, labels: labels_of, has_time: false };
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
    let from_snapshot = new_head(2);
    let (mut writer, report) = reopen(&fs.fork(), &from_snapshot, FOREVER);
    // It does not say which chunks go with it, so the log is read as well.
    assert_eq!((report.from, report.head.series, report.head.misfits), (ReadFrom::ChunksAndLog, 12, 0));
    assert_eq!((report.log.damage, report.snapshot_error), (vec![], None));
    for missing in ["chunks_head/000001", "chunk_snapshot.000000.0000032768/00000000"] {
        let fs = fs.fork();
        fs.remove_file(&Path::new(DATA).join(missing)).unwrap();
        let without = new_head(2);
        reopen(&fs, &without, FOREVER);
        assert_eq!(everything(&without), everything(&from_snapshot), "without {missing}");
    }
    remove(&fs, "chunk_snapshot");
    let from_log = new_head(2);
    let (_, report) = reopen(&fs, &from_log, FOREVER);
    assert_eq!((report.from, report.head.misfits), (ReadFrom::ChunksAndLog, 0));
    assert_eq!(everything(&from_snapshot), everything(&from_log));
    let samples = everything(&from_log).iter().map(|(_, times, _)| times.len()).sum::<usize>();
    assert_eq!(samples, 3600);
    assert_eq!(from_snapshot.next_ref(), from_log.next_ref());
    append(&from_snapshot, &mut writer, 0..1, 1_795_665_600_000);
    assert_eq!(from_snapshot.stats().series, 13);
}
