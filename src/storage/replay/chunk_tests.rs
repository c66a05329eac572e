//! Finished chunks that are written while the head is: starts after a kill or a power cut, damage, and shards that are read back.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::snapshot_tests::{stop, stored};
use super::tests::{DATA, FOREVER, append, head as new_head, reopen, whole_content};
use super::*;
use crate::model::matcher::Matcher;
use crate::model::random::Random;
use crate::model::read::{FloatColumn, ReadError, SampleColumn, Unlimited};
use crate::model::time::TimeRange;
use crate::storage::fs::Fs as _;
use crate::storage::fs::sim::SimFs;
use crate::storage::head_chunks;

/// A head that has written its finished chunks.
pub(super) fn written() -> (SimFs, Head, Writer, Aliases) {
    let (fs, head, writer, aliases) = stored();
    head.begin_chunk_writes();
    head.write_chunks_blocking().unwrap();
    assert!(8 < head.stats().chunks_written);
    (fs, head, writer, aliases)
}

pub(super) fn chunk_files(fs: &SimFs) -> Vec<PathBuf> {
    let dir = Path::new(DATA).join("chunks_head");
    fs.list(&dir).unwrap().into_iter().map(|entry| dir.join(entry.name)).collect()
}

#[test]
fn a_start_after_a_kill_takes_written_chunks_over() {
    let (fs, mut head, mut writer, _) = written();
    let before = head.stats().chunks;
    for round in 0..4 {
        let content = whole_content(&head);
        drop(writer);
        let shards = 1 + round % 3;
        let again = new_head(u16::try_from(shards).unwrap());
        let (mut next, report) = reopen(&fs, &again, FOREVER);
        assert_eq!((report.from, report.head.misfits, &report.chunk_damage[..]), (ReadFrom::ChunksAndLog, 0, &[][..]));
        // Most of the log was passed over, and chunks are what they were.
        assert!(1000 < report.head.not_newer, "{}", report.head.not_newer);
        assert_eq!(whole_content(&again), content);
        if round == 0 {
            assert_eq!(again.stats().chunks, before);
        }
        // Those that were taken over are not written again.
        again.begin_chunk_writes();
        again.write_chunks_blocking().unwrap();
        assert_eq!(again.stats().chunks_written, 0, "round {round}");
        let from = 400 + 300 * round;
        (from..from + 300).for_each(|i| append(&again, &mut next, 0..9, i * 15_000));
        again.write_chunks_blocking().unwrap();
        assert!(17 < again.stats().chunks_written);
        (head, writer) = (again, next);
    }
    // Nor by a stop; the start after it needs nothing of the log.
    let written_out = chunk_files(&fs).iter().map(|path| fs.read(path).unwrap().len()).sum::<usize>();
    let content = whole_content(&head);
    stop(&fs, &head, &mut writer, &Aliases::new()).unwrap();
    assert_eq!(chunk_files(&fs).iter().map(|path| fs.read(path).unwrap().len()).sum::<usize>(), written_out);
    let last = new_head(2);
    let (_, report) = reopen(&fs, &last, FOREVER);
    assert_eq!((report.from, report.log.samples, whole_content(&last)), (ReadFrom::Snapshot, 0, content));
}

#[test]
fn a_file_that_ends_within_a_chunk_is_cut_and_one_that_is_damaged_is_repaired() {
    let (fs, head, writer, _) = written();
    let content = whole_content(&head);
    drop(writer);
    let path = chunk_files(&fs).pop().unwrap();
    let bytes = fs.read(&path).unwrap();
    let start = |fs: &SimFs| {
        let head = new_head(2);
        let (_, report) = reopen(fs, &head, FOREVER);
        assert_eq!(whole_content(&head), content);
        (head, report)
    };
    for cut in (0..bytes.len()).step_by(bytes.len() / 40 + 1).chain([1, 7, 8, 9]) {
        let fs = fs.fork();
        fs.put(&path, &bytes[..cut]).unwrap();
        for round in 0..2 {
            let (head, report) = start(&fs);
            assert_eq!((report.from, &report.chunk_damage[..]), (ReadFrom::ChunksAndLog, &[][..]), "cut at {cut}");
            head.begin_chunk_writes();
            head.write_chunks_blocking().unwrap();
            assert_eq!(head.stats().chunks_written == 0, round == 1, "cut at {cut}, {round}");
        }
    }
    for at in (0..bytes.len()).step_by(bytes.len() / 40 + 1) {
        let fs = fs.fork();
        let mut wrong = bytes.clone();
        wrong[at] ^= 1;
        fs.put(&path, &wrong).unwrap();
        for round in 0..3 {
            let (head, report) = start(&fs);
            assert_eq!(report.from, ReadFrom::ChunksAndLog, "byte {at}, {round}");
            assert!(round == 0 || report.chunk_damage.is_empty(), "byte {at}, {round}");
            head.begin_chunk_writes();
            head.write_chunks_blocking().unwrap();
        }
    }
    // A hole between sound chunks is found by what the log holds.
    let first = crate::storage::head_chunks::chunk_len(&bytes[8..]).unwrap();
    let fs = fs.fork();
    fs.put(&path, &[&bytes[..8], &bytes[8 + first..]].concat()).unwrap();
    assert_eq!(start(&fs).1.from, ReadFrom::Log);
}

#[test]
fn chunks_of_an_encoding_that_nobody_knows_are_passed_over_and_the_log_gives_their_samples() {
    let (fs, head, writer, _) = written();
    let content = whole_content(&head);
    drop(writer);
    let path = chunk_files(&fs).pop().unwrap();
    let bytes = fs.read(&path).unwrap();
    let mut chunks = Vec::new();
    let mut at = 8;
    while let Some((len, chunk)) = head_chunks::parse(&bytes[at..]) {
        chunks.push((chunk.series, (chunk.min_t, chunk.max_t), chunk.encoding, chunk.data.to_vec()));
        at += len;
    }
    assert!(8 < chunks.len(), "{}", chunks.len());
    for unknown in [0, chunks.len() / 2, chunks.len() - 1] {
        let mut changed = bytes[..8].to_vec();
        for (number, (series, span, encoding, data)) in chunks.iter().enumerate() {
            let encoding = if number == unknown { 99 } else { *encoding };
            head_chunks::put_chunk(*series, *span, encoding, data, &mut changed);
        }
        let fs = fs.fork();
        fs.put(&path, &changed).unwrap();
        for round in 0..2 {
            let again = new_head(2);
            let (_, report) = reopen(&fs, &again, FOREVER);
            assert_eq!(whole_content(&again), content, "chunk {unknown}, start {round}: {:?}", report.from);
            assert_eq!(report.log.damage, [], "chunk {unknown}, start {round}");
        }
    }
}

#[test]
fn a_power_cut_takes_the_end_of_the_last_file_and_nothing_else() {
    for seed in 0..20 {
        let (fs, head, mut writer, _) = stored();
        head.begin_chunk_writes();
        for i in 0..6 {
            (0..60).for_each(|t| append(&head, &mut writer, 0..9, (400 + i * 60 + t) * 15_000));
            head.write_chunks_blocking().unwrap();
        }
        writer.sync().unwrap();
        let content = whole_content(&head);
        drop(writer);
        fs.cut_power_anyhow(&mut Random::seeded(seed));
        for _ in 0..2 {
            let again = new_head(2);
            let (_, report) = reopen(&fs, &again, FOREVER);
            assert_eq!((report.from, whole_content(&again)), (ReadFrom::ChunksAndLog, content.clone()), "seed {seed}");
            again.begin_chunk_writes();
            again.write_chunks_blocking().unwrap();
        }
    }
}

#[test]
fn damage_of_a_written_chunk_is_told_and_no_wrong_value_is_answered() {
    let (fs, head, _writer, _) = written();
    let view = head.queryable().view().unwrap();
    let selected = view.select(&[], TimeRange::ALL, &Unlimited).unwrap();
    let read = |at: usize| {
        let mut out = SampleColumn::default();
        selected[at].samples.decode_all(TimeRange::ALL, &mut out).map(|()| out)
    };
    let sound: Vec<SampleColumn> = (0..selected.len()).map(|at| read(at).unwrap()).collect();
    let path = chunk_files(&fs).pop().unwrap();
    let bytes = fs.read(&path).unwrap();
    let mut told = 0;
    for at in (8..bytes.len()).step_by(37) {
        let mut wrong = bytes.clone();
        wrong[at] ^= 4;
        fs.put(&path, &wrong).unwrap();
        let mut damaged = 0;
        for (number, sound) in sound.iter().enumerate() {
            match read(number) {
                Ok(found) => assert_eq!(&found, sound, "byte {at}"),
                Err(ReadError::Corrupt(text)) => {
                    assert!(text.contains("file 1 of chunks_head is damaged at byte"), "{text}");
                    damaged += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
        told += damaged;
        // A reference in front of a chunk is nothing that a series reads.
        assert!(damaged <= 1, "byte {at}");
    }
    assert!(100 < told, "{told}");
    fs.put(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert!((0..sound.len()).any(|at| read(at).is_err()));
    fs.put(&path, &bytes).unwrap();
    // The folder may lose the file: who knows it reads on.
    fs.remove_file(&path).unwrap();
    (0..sound.len()).for_each(|at| assert_eq!(&read(at).unwrap(), &sound[at]));
    // What lies in memory needs no file.
    let mut newest = FloatColumn::default();
    let range = TimeRange::new(TimestampMs(299 * 15_000), TimestampMs(299 * 15_000)).unwrap();
    let one = view.select(&[Matcher::equal("instance", "1")], range, &Unlimited).unwrap().remove(0);
    one.samples.decode(range, &mut newest).unwrap();
    assert_eq!(newest.len(), 1);
}

#[test]
fn a_shard_that_is_read_back_knows_its_chunks_and_a_job_of_before_writes_none() {
    use crate::storage::head::ChunkStep;
    let (fs, head, mut writer, _) = written();
    (400..700).for_each(|i| append(&head, &mut writer, 0..9, i * 15_000));
    let content = whole_content(&head);
    let shared: SharedFs = Arc::new(fs.clone());
    let before = head.stats().chunks_written;
    for shard in head.shards() {
        let ChunkStep::Job(job) = shard.chunk_job() else { continue };
        assert!(matches!(shard.chunk_job(), ChunkStep::Done), "one at a time");
        let until = writer.finish().unwrap();
        shard.begin_rebuild("a test");
        rebuild_shard(&shared, Path::new(DATA), &head, shard.id(), until).unwrap();
        // It would write again what the shard holds again.
        assert_eq!(job.run().unwrap(), 0);
        while shard.install_chunks(usize::MAX) {}
    }
    assert_eq!(head.stats().chunks_written, before);
    assert_eq!(whole_content(&head), content);
    head.write_chunks_blocking().unwrap();
    assert!(before < head.stats().chunks_written);
    drop(writer);
    let again = new_head(2);
    let (_, report) = reopen(&fs, &again, FOREVER);
    assert_eq!((report.from, report.head.misfits, whole_content(&again)), (ReadFrom::ChunksAndLog, 0, content));
}
