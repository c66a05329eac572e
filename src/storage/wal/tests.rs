use std::path::Path;
use std::sync::Arc;

use super::histogram_record::RefHistogram;
use super::*;
use crate::model::clock::{ManualClock, SharedClock};
use crate::model::labels::Labels;
use crate::model::sample::SeriesRef;
use crate::model::time::TimestampMs;
use crate::storage::fs::Fs as _;
use crate::storage::fs::sim::SimFs;
use crate::storage::wal::record::{Record, RecordKind, RefSample, RefSeries, encode_samples, encode_series};
use crate::storage::wal::segments::{list_checkpoints, list_segments};
use crate::telemetry::metrics::Registry;

pub(super) const DATA: &str = "/data";

pub(super) fn metrics() -> WalMetrics {
    let clock: SharedClock = ManualClock::at(TimestampMs(0));
    WalMetrics::new(&Registry::default(), &clock)
}

/// Small segments, so that tests cross them.
pub(super) fn options() -> WalOptions {
    WalOptions { segment_len: 2 * PAGE_LEN as u64, compression: Compression::None, hold_unsynced: true }
}

#[derive(Default)]
pub(super) struct Seen {
    series: Vec<u64>,
    pub(super) times: Vec<i64>,
    others: usize,
}

impl RecordSink for Seen {
    fn series(&mut self, series: &mut Vec<RefSeries>) {
        self.series.extend(series.iter().map(|s| s.series.0));
    }
    fn samples(&mut self, samples: &[RefSample]) {
        self.times.extend(samples.iter().map(|s| s.t));
    }
    fn histograms(&mut self, histograms: &[RefHistogram]) {
        self.times.extend(histograms.iter().map(|h| h.t));
    }
    fn other(&mut self, _: RecordKind, _: &[u8]) {
        self.others += 1;
    }
}

pub(super) fn open(fs: &SimFs) -> Result<(Writer, LoadReport, Seen), WalError> {
    let fs: SharedFs = Arc::new(fs.clone());
    fs.create_dir_all(Path::new(DATA)).context("create", Path::new(DATA))?;
    fs.sync_dir(Path::new("/")).context("sync", Path::new("/"))?;
    let mut seen = Seen::default();
    let (writer, report) = Log::open(&fs, Path::new(DATA), options(), &metrics(), &mut seen)?;
    Ok((writer, report, seen))
}

/// Records of a batch with one sample at `t`, `width` more of the same time, so that batches have a size.
pub(super) fn batch(t: i64, width: u64) -> Vec<Record> {
    let mut records = Vec::new();
    encode_samples((0..=width).map(|i| RefSample { series: SeriesRef(i + 1), t, value: 0.5 }), &mut records);
    records
}

pub(super) fn distinct(mut times: Vec<i64>) -> Vec<i64> {
    times.sort_unstable();
    times.dedup();
    times
}

#[test]
fn what_is_written_is_read_again_across_segments() {
    let fs = SimFs::new();
    let (mut writer, _, _) = open(&fs).unwrap();
    let mut first = Vec::new();
    encode_series([(SeriesRef(7), &Labels::from_pairs([("a", "b")]))], &mut first);
    writer.append(&first).unwrap();
    (0..100).for_each(|t| writer.append(&batch(t, 200)).unwrap());
    assert!(2 < writer.position().segment);
    writer.sync().unwrap();
    assert!(!writer.wants_sync() && writer.unsynced_len() == 0);
    let end = writer.position();
    drop(writer);
    let (writer, report, seen) = open(&fs).unwrap();
    assert_eq!((seen.series, distinct(seen.times)), (vec![7], (0..100).collect()));
    assert_eq!((report.ref_max, report.samples, report.damage.len()), (201, 20_100, 0));
    assert_eq!(writer.position(), writer::Position { segment: end.segment + 1, offset: 0 });
    let mut before = Seen::default();
    let shared: SharedFs = Arc::new(fs);
    let half = writer::Position { segment: 1, offset: 0 };
    read_until(&shared, &Path::new(DATA).join(WAL_DIR), half, &mut before).unwrap();
    assert!(!before.times.is_empty() && before.times.len() < 20_100);
}

#[test]
fn a_batch_beyond_a_segment_is_refused_and_harms_nothing() {
    let (mut writer, _, _) = open(&SimFs::new()).unwrap();
    assert!(matches!(writer.append(&batch(1, 20_000)), Err(WalError::BatchTooLong { .. })));
    writer.append(&batch(2, 1)).unwrap();
}

/// Runs a fixed series of appends and syncs; returns the times acknowledged by an append, and those by a sync.
fn run(fs: &SimFs) -> Result<(Vec<i64>, Vec<i64>), WalError> {
    let (mut writer, _, _) = open(fs)?;
    let (mut appended, mut synced) = (Vec::new(), Vec::new());
    for t in 0..30 {
        if writer.append(&batch(t, 300)).is_ok() {
            appended.push(t);
        }
        if t % 3 == 2 && writer.sync().is_ok() {
            synced.clone_from(&appended);
        }
    }
    Ok((appended, synced))
}

#[test]
fn whichever_operations_fail_nothing_synced_is_lost_and_nothing_refused_comes_back() {
    let total = {
        let fs = SimFs::new();
        run(&fs).unwrap();
        fs.operations()
    };
    assert!(45 < total);
    for n in 1..=total {
        for more in [0, 1, 2, 3, 7] {
            let fs = SimFs::new();
            fs.fail_nth(n, more);
            let outcome = run(&fs);
            fs.heal();
            let Ok((appended, synced)) = outcome else { continue };
            // A process that is killed keeps what the kernel has.
            let (_, report, seen) = open(&fs.fork()).unwrap();
            assert_eq!(distinct(seen.times), appended, "killed; operation {n} and {more} more failed");
            assert!(report.damage.iter().all(|d| d.torn_end), "{report:?}");
            // A power cut takes what was not synced, and never a part of what was.
            fs.cut_power();
            let (_, _, seen) = open(&fs).unwrap();
            let found = distinct(seen.times);
            assert!(synced.iter().all(|t| found.contains(t)), "power cut; operation {n} and {more} more: {found:?}");
            assert!(found.iter().all(|t| appended.contains(t)), "power cut; operation {n} and {more} more: {found:?}");
        }
    }
}

#[test]
fn appends_stop_while_a_failed_write_cannot_be_cut_and_go_on_when_it_can() {
    let fs = SimFs::new();
    let (mut writer, _, _) = open(&fs).unwrap();
    writer.append(&batch(1, 5)).unwrap();
    fs.fail_nth(1, 3);
    assert!(writer.append(&batch(2, 5)).is_err());
    let operations = fs.operations();
    assert!(writer.append(&batch(3, 5)).is_err());
    assert_eq!(fs.operations(), operations + 1, "nothing but the cut was tried");
    fs.heal();
    writer.append(&batch(4, 5)).unwrap();
    drop(writer);
    assert_eq!(distinct(open(&fs).unwrap().2.times), [1, 4]);
}

#[cfg(debug_assertions)]
#[test]
fn after_a_panic_in_a_write_or_sync_nothing_of_the_append_is_left_and_the_rest_is_there() {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    for tear in [writer::Tear::Write, writer::Tear::Sync] {
        for width in [5, 4000] {
            let fs = SimFs::new();
            let (mut writer, _, _) = open(&fs).unwrap();
            writer.append(&batch(1, 5)).unwrap();
            writer.sync().unwrap();
            writer.append(&batch(2, 5)).unwrap();
            writer.tear_next(tear);
            let cut = AssertUnwindSafe(|| {
                writer.append(&batch(3, width)).unwrap();
                writer.sync().unwrap();
            });
            catch_unwind(cut).unwrap_err();
            writer.undo_append();
            writer.next_segment().unwrap();
            writer.append(&batch(4, 5)).unwrap();
            let (_, report, seen) = open(&fs.fork()).unwrap();
            assert_eq!((distinct(seen.times), report.damage), (vec![1, 2, 4], vec![]), "{tear:?}, {width}");
        }
    }
}

#[test]
fn a_failed_sync_moves_the_unsynced_records_to_a_new_segment() {
    let fs = SimFs::new();
    let (mut writer, _, _) = open(&fs).unwrap();
    writer.append(&batch(1, 5)).unwrap();
    writer.sync().unwrap();
    writer.append(&batch(2, 5)).unwrap();
    fs.fail_nth(1, 0);
    writer.sync().unwrap();
    assert_eq!(writer.position().segment, 1);
    fs.cut_power();
    assert_eq!(distinct(open(&fs).unwrap().2.times), [1, 2]);
}

#[test]
fn a_cut_within_the_last_record_loses_that_record_alone() {
    let fs = SimFs::new();
    let (mut writer, _, _) = open(&fs).unwrap();
    writer.append(&batch(1, 5)).unwrap();
    let start = writer.position().offset as usize;
    writer.append(&batch(2, 5)).unwrap();
    let path = Path::new(DATA).join("wal/00000000");
    let bytes = fs.read(&path).unwrap();
    for cut in start..bytes.len() {
        let fs = SimFs::new();
        fs.put(&path, &bytes[..cut]).unwrap();
        let (_, report, seen) = open(&fs).unwrap();
        assert_eq!(distinct(seen.times), [1], "cut at {cut}");
        assert_eq!(report.damage.len(), usize::from(start < cut));
        assert_eq!(fs.read(&path).unwrap().len(), start);
        assert_eq!(open(&fs).unwrap().1.damage, [], "it is repaired for good");
    }
}

#[test]
fn damage_in_the_middle_costs_one_record_and_the_original_is_kept() {
    let fs = SimFs::new();
    let (mut writer, _, _) = open(&fs).unwrap();
    (0..10).for_each(|t| writer.append(&batch(t, 5)).unwrap());
    let path = Path::new(DATA).join("wal/00000000");
    let mut bytes = fs.read(&path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 0x10;
    fs.put(&path, &bytes).unwrap();
    let (_, report, seen) = open(&fs).unwrap();
    assert_eq!((distinct(seen.times).len(), report.damage.len(), report.damage[0].torn_end), (9, 1, false));
    assert!((report.damage[0].offset..report.damage[0].offset + report.damage[0].len).contains(&(at as u64)));
    assert_eq!(fs.read(Path::new("/data/wal.damaged/00000000")).unwrap(), bytes);
    let (_, report, seen) = open(&fs).unwrap();
    assert_eq!((distinct(seen.times).len(), report.damage.len()), (9, 0));
}

#[test]
fn a_repair_that_fails_at_any_step_is_done_by_the_next_start() {
    let base = SimFs::new();
    let (mut writer, _, _) = open(&base).unwrap();
    (0..10).for_each(|t| writer.append(&batch(t, 5)).unwrap());
    let path = Path::new(DATA).join("wal/00000000");
    let mut bytes = base.read(&path).unwrap();
    bytes[200] ^= 1;
    base.put(&path, &bytes).unwrap();
    for n in 1.. {
        let fs = base.fork();
        fs.fail_nth(n, 0);
        let done = open(&fs).is_ok();
        fs.heal();
        fs.cut_power();
        assert_eq!(distinct(open(&fs).unwrap().2.times).len(), 9, "operation {n} failed");
        if done {
            assert!(10 < n);
            break;
        }
    }
}

#[test]
fn a_checkpoint_keeps_what_is_needed_and_removes_the_segments() {
    let fs = SimFs::new();
    let (mut writer, _, _) = open(&fs).unwrap();
    let labels = Labels::from_pairs([("a", "b")]);
    let mut first = Vec::new();
    encode_series([(SeriesRef(1), &labels), (SeriesRef(2), &labels)], &mut first);
    first.push(Record::from_bytes(vec![200, 1, 2, 3]));
    writer.append(&first).unwrap();
    (0..100).for_each(|t| writer.append(&batch(t, 300)).unwrap());
    let before = fs.fork();
    let job = writer.plan_checkpoint().unwrap().unwrap();
    let stats = job.run(TimestampMs(30), &mut |series| Some(series == SeriesRef(1))).unwrap();
    assert_eq!(stats.series, (1, 1));
    assert!(0 < stats.samples.0 && stats.samples.1 == 30 * 301);
    let wal = Path::new(DATA).join(WAL_DIR);
    assert_eq!(list_checkpoints(&fs, &wal).unwrap(), [stats.covered]);
    assert_eq!(list_segments(&fs, &wal).unwrap()[0].segment, stats.covered + 1);
    writer.append(&batch(100, 1)).unwrap();
    drop(writer);
    let (mut writer, _, seen) = open(&fs).unwrap();
    assert_eq!((seen.series, distinct(seen.times), seen.others), (vec![1], (30..=100).collect(), 1));
    // A second one reads the first.
    (101..200).for_each(|t| writer.append(&batch(t, 300)).unwrap());
    writer.plan_checkpoint().unwrap().unwrap().run(TimestampMs(90), &mut |_| Some(true)).unwrap();
    drop(writer);
    let seen = open(&fs).unwrap().2;
    assert_eq!((seen.series, distinct(seen.times), seen.others), (vec![1], (90..200).collect(), 1));

    for n in 1.. {
        let fs = before.fork();
        let (mut writer, _, _) = open(&fs).unwrap();
        fs.fail_nth(n, 0);
        let done = writer.plan_checkpoint().and_then(|job| job.unwrap().run(TimestampMs(30), &mut |_| Some(true)));
        let untouched = fs.operations() < n;
        fs.heal();
        let times = distinct(open(&fs).unwrap().2.times);
        assert!((30..100).all(|t| times.contains(&t)), "operation {n} failed");
        if done.is_ok() && untouched || 200 < n {
            break;
        }
    }
}

/// How the records of a log are compressed, by its folder.
fn compressions(fs: &SimFs, dir: &Path) -> Vec<Compression> {
    let mut found = Vec::new();
    for file in list_segments(fs, dir).unwrap() {
        let segment = fs.open(&dir.join(segments::segment_name(file.segment))).unwrap();
        let mut reader = reader::SegmentReader::new(segment, None).unwrap();
        while let Some(item) = reader.next_item().unwrap() {
            let reader::Item::Record { compression, .. } = item else { panic!("damage") };
            found.push(compression);
        }
    }
    found
}

#[test]
fn a_log_of_all_compressions_is_read_whole() {
    let fs = SimFs::new();
    let shared: SharedFs = Arc::new(fs.clone());
    let wal = Path::new(DATA).join(WAL_DIR);
    drop(open(&fs).unwrap());
    let kinds = [Compression::Zstd, Compression::Snappy, Compression::None, Compression::Zstd];
    for (start, compression) in (0..).step_by(10).zip(kinds) {
        let options = WalOptions { compression, ..options() };
        let (mut writer, report) =
            Log::open(&shared, Path::new(DATA), options, &metrics(), &mut Seen::default()).unwrap();
        assert_eq!(report.damage, vec![]);
        (start..start + 10).for_each(|t| writer.append(&batch(t, 200)).unwrap());
        // One that does not become smaller is written as it is.
        writer.append(&[Record::from_bytes(vec![99, 1, 2])]).unwrap();
    }
    let found = compressions(&fs, &wal);
    let count = |of| found.iter().filter(|found| **found == of).count();
    assert!(20 <= count(Compression::Zstd) && 10 <= count(Compression::Snappy) && 14 <= count(Compression::None));
    let (mut writer, report, seen) = open(&fs).unwrap();
    assert_eq!((report.damage, distinct(seen.times)), (vec![], (0..40).collect()));
    // A checkpoint of all of them.
    writer.next_segment().unwrap();
    writer.plan_checkpoint().unwrap().unwrap().run(TimestampMs(15), &mut |_| Some(true)).unwrap();
    drop(writer);
    assert_eq!(distinct(open(&fs).unwrap().2.times), (15..40).collect::<Vec<_>>());
}

#[test]
fn zstd_without_a_declared_length_is_read_and_what_is_no_frame_is_damage() {
    let text = vec![7; 100_000];
    let mut stream = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
    std::io::Write::write_all(&mut stream, &text).unwrap();
    let undeclared = stream.finish().unwrap();
    assert!(matches!(zstd::zstd_safe::get_frame_content_size(&undeclared), Ok(None)));
    let mut inflater = reader::Inflater::default();
    assert_eq!(inflater.inflate(Compression::Zstd, &undeclared).unwrap(), text);
    assert_eq!(inflater.inflate(Compression::Zstd, &zstd::bulk::compress(&text, 3).unwrap()).unwrap(), text);
    for wrong in [&undeclared[..undeclared.len() - 1], b"\x28\xb5\x2f\xfd and more", b"", b"text"] {
        assert!(inflater.inflate(Compression::Zstd, wrong).is_err());
    }
    // It would be 4 GiB.
    let bomb = [0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0xff, 0xff, 0xff, 0xff, 1, 0, 0];
    assert!(inflater.inflate(Compression::Zstd, &bomb).is_err());
}
