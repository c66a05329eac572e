//! Head chunks that are damaged while the server runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::chunk_tests::{chunk_files, written};
use super::tests::{DATA, FOREVER, append, head as new_head, reopen, whole_content};
use super::*;
use crate::model::histogram::CounterResetHint;
use crate::model::read::{ReadError, ReadView, SampleColumn, Unlimited};
use crate::model::time::TimeRange;
use crate::storage::fs::Fs as _;
use crate::storage::fs::sim::SimFs;
use crate::storage::head_chunk_mending::{Mended, mend};

type Content = BTreeMap<Labels, SampleColumn>;

/// All that a view shows, and how many series cannot be read.
fn read(view: &Arc<dyn ReadView>) -> (Content, usize) {
    let (mut content, mut failed) = (Content::new(), 0);
    for one in view.select(&[], TimeRange::ALL, &Unlimited).unwrap() {
        let mut column = SampleColumn::default();
        match one.samples.decode_all(TimeRange::ALL, &mut column) {
            Ok(()) => {
                forget_hints(&mut column);
                content.insert(one.labels, column);
            }
            Err(ReadError::Corrupt(_)) => failed += 1,
            Err(error) => panic!("{error}"),
        }
    }
    (content, failed)
}

/// What a histogram says of the one before it is not made again: readers find it out by themselves.
fn forget_hints(column: &mut SampleColumn) {
    for histogram in &mut column.histograms.values {
        Arc::make_mut(histogram).counter_reset_hint = CounterResetHint::Unknown;
    }
}

fn read_now(head: &Head) -> (Content, usize) {
    read(&head.queryable().view().unwrap())
}

/// Takes all out of the head as for a block; returns the number of samples.
fn export(head: &Head) -> Result<u64, ReadError> {
    let (mut export, mut samples) = (head.export(i64::MAX), 0);
    while let Some((_, chunks)) = export.next_series()? {
        samples += chunks.iter().map(|chunk| u64::from(chunk.sample_count())).sum::<u64>();
    }
    Ok(samples)
}

fn originals(fs: &SimFs) -> usize {
    let dir = Path::new(DATA).join("wal.damaged");
    fs.list(&dir).map_or(0, |entries| entries.len())
}

fn wal_segments(fs: &SimFs) -> Vec<PathBuf> {
    let dir = Path::new(DATA).join("wal");
    fs.list(&dir).unwrap().into_iter().map(|entry| dir.join(entry.name)).collect()
}

#[test]
fn damaged_chunks_are_read_again_from_the_log_and_put_back() {
    let (fs, head, mut writer, _) = written();
    let (sound, _) = read_now(&head);
    let all = export(&head).unwrap();
    let path = chunk_files(&fs).pop().unwrap();
    let bytes = fs.read(&path).unwrap();
    let (mut kept, mut same) = (0, 0);
    for at in (8..bytes.len()).step_by(61) {
        let mut wrong = bytes.clone();
        wrong[at] ^= 4;
        fs.put(&path, &wrong).unwrap();
        let (found, failed) = read_now(&head);
        assert!(failed <= 1 && found.iter().all(|(labels, column)| column == &sound[labels]), "byte {at}");
        // No block is made without the samples.
        assert_eq!(export(&head).is_err(), failed == 1, "byte {at}");
        assert_eq!(head.has_damaged_chunks(), failed == 1, "byte {at}");
        let done = mend(&head).unwrap();
        // A reference in front of a chunk is nothing that a series reads.
        let expected = Mended { put_back: failed as u64, held: 0, lost_samples: 0 };
        assert_eq!((done, head.has_damaged_chunks()), (expected, false), "byte {at}");
        assert_eq!((read_now(&head), export(&head).unwrap()), ((sound.clone(), 0), all), "byte {at}");
        if failed == 1 {
            kept += 1;
            same += usize::from(fs.read(&path).unwrap() == bytes);
            assert_eq!(originals(&fs), kept, "byte {at}");
        }
    }
    // All but those of histograms.
    assert!(60 < kept && kept * 3 / 4 < same, "{same} of {kept}");
    // Many at once, and a file that ends too early.
    let wrong = |at: usize| if at % 50 == 11 { bytes[at] ^ 1 } else { bytes[at] };
    let many: Vec<u8> = (0..bytes.len()).map(wrong).collect();
    for damaged in [&many[..], &bytes[..bytes.len() / 3], &bytes[..8]] {
        fs.put(&path, damaged).unwrap();
        assert!(0 < read_now(&head).1);
        let done = mend(&head).unwrap();
        assert!(0 < done.put_back + done.held && done.lost_samples == 0, "{done:?}");
        assert_eq!((read_now(&head), export(&head).unwrap()), ((sound.clone(), 0), all));
    }
    // What is written and read afterwards is as ever.
    fs.put(&path, &bytes).unwrap();
    (400..700).for_each(|i| append(&head, &mut writer, 0..9, i * 15_000));
    head.write_chunks_blocking().unwrap();
    let content = whole_content(&head);
    drop(writer);
    let again = new_head(2);
    let (_, report) = reopen(&fs, &again, FOREVER);
    assert_eq!((report.chunk_damage.len(), whole_content(&again)), (0, content));
}

#[test]
fn chunks_that_cannot_be_put_back_are_held_in_memory() {
    let (fs, head, _writer, _) = written();
    let (sound, _) = read_now(&head);
    let path = chunk_files(&fs).pop().unwrap();
    let bytes = fs.read(&path).unwrap();
    let mut seen = Mended::default();
    for n in 1..=12 {
        let mut wrong = bytes.clone();
        wrong[bytes.len() / 13 * n] ^= 0x10;
        fs.put(&path, &wrong).unwrap();
        if read_now(&head).1 == 0 {
            // Something stands for that chunk already.
            continue;
        }
        if n % 4 == 0 {
            // A log that cannot be read is read later.
            wal_segments(&fs).iter().for_each(|segment| fs.fail_reads(segment).unwrap());
            assert!(mend(&head).is_err() && head.has_damaged_chunks());
            fs.heal();
        }
        fs.fail_nth(n as u64, n as u64 % 3);
        let done = mend(&head).unwrap();
        fs.heal();
        assert_eq!((read_now(&head), done.put_back + done.held), ((sound.clone(), 0), 1), "operation {n}");
        seen = Mended { put_back: seen.put_back + done.put_back, held: seen.held + done.held, ..seen };
    }
    assert!(0 < seen.held && 0 < seen.put_back, "{seen:?}");
    // A file that cannot be read at all, and one that is empty.
    fs.put(&path, &bytes).unwrap();
    fs.fail_reads(&path).unwrap();
    assert!(0 < read_now(&head).1);
    mend(&head).unwrap();
    assert_eq!(read_now(&head), (sound.clone(), 0));
    fs.heal();
    fs.put(&path, &[]).unwrap();
    assert_eq!(read_now(&head), (sound, 0));
}

#[test]
fn what_the_log_does_not_hold_either_is_told_and_the_rest_is_served() {
    let (fs, head, _writer, _) = written();
    let (sound, _) = read_now(&head);
    let all = export(&head).unwrap();
    let path = chunk_files(&fs).pop().unwrap();
    let mut wrong = fs.read(&path).unwrap();
    (200..wrong.len()).step_by(400).for_each(|at| wrong[at] ^= 1);
    fs.put(&path, &wrong).unwrap();
    for segment in wal_segments(&fs) {
        let mut log = fs.read(&segment).unwrap();
        (5_000..log.len()).step_by(7_000).for_each(|at| log[at] ^= 1);
        fs.put(&segment, &log).unwrap();
    }
    let before = head.queryable().view().unwrap();
    assert!(1 < read(&before).1);
    let done = mend(&head).unwrap();
    assert!(0 < done.lost_samples && 0 < done.held, "{done:?}");
    let view = head.queryable().view().unwrap();
    let (found, failed) = read(&view);
    let (mut count, mut missing) = (0, 0);
    for (labels, sound) in &sound {
        let column = &found[labels];
        count += column.len() as u64;
        missing += (sound.len() - column.len()) as u64;
        let floats = |column: &SampleColumn| -> BTreeMap<i64, u64> {
            column.floats.timestamps.iter().copied().zip(column.floats.values.iter().map(|v| v.to_bits())).collect()
        };
        let of_sound = floats(sound);
        assert!(floats(column).iter().all(|(t, value)| of_sound.get(t) == Some(value)), "{labels}");
    }
    assert_eq!((failed, missing, count), (0, done.lost_samples, all - done.lost_samples));
    assert!(!view.warnings().is_empty() && view.warnings()[0].contains("samples are lost to damage of file 1"));
    // Only those are warned whom it concerns.
    let unconcerned = head.queryable().view().unwrap();
    let range = TimeRange::new(TimestampMs(299 * 15_000), TimestampMs(299 * 15_000)).unwrap();
    for one in unconcerned.select(&[], range, &Unlimited).unwrap() {
        one.samples.decode_newest(range, &mut SampleColumn::default()).unwrap();
    }
    assert_eq!(unconcerned.warnings(), [] as [String; 0]);
    // Blocks are made of what is left, and nothing is told twice.
    assert_eq!(export(&head).unwrap(), count);
    assert_eq!((mend(&head).unwrap(), head.has_damaged_chunks()), (Mended::default(), false));
}

#[test]
fn a_damaged_file_goes_when_nothing_uses_it_any_more() {
    let (fs, head, writer, _) = written();
    drop((head, writer));
    let head = new_head(2);
    let (mut writer, _) = reopen(&fs, &head, FOREVER);
    head.begin_chunk_writes();
    (400..1000).for_each(|i| append(&head, &mut writer, 0..9, i * 15_000));
    head.write_chunks_blocking().unwrap();
    let files = chunk_files(&fs);
    assert_eq!(files.len(), 2);
    let mut wrong = fs.read(&files[0]).unwrap();
    let middle = wrong.len() / 2;
    wrong[middle] ^= 1;
    fs.put(&files[0], &wrong).unwrap();
    let bound = TimestampMs(500 * 15_000);
    let remove = |head: &Head| {
        let is_used = |file| head.uses_chunk_file(file);
        head_chunk_files::remove_before(&fs, Path::new(DATA), bound.0, None, &is_used).unwrap();
    };
    remove(&head);
    assert_eq!(chunk_files(&fs), files, "the head has chunks of it");
    head.truncate_blocking(bound);
    let late_from = crate::storage::chunk::written::ChunkPlace::new(1, 8);
    head_chunk_files::remove_before(&fs, Path::new(DATA), bound.0, late_from, &|_| false).unwrap();
    assert_eq!(chunk_files(&fs), files, "it may hold late samples");
    remove(&head);
    assert_eq!(chunk_files(&fs), files[1..]);
    let content = whole_content(&head);
    drop(writer);
    let again = new_head(2);
    let (_, report) = reopen(&fs, &again, bound);
    assert_eq!((report.chunk_damage.len(), whole_content(&again)), (0, content));
}
