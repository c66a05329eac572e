//! The log on a disk that fills up, cuts writes at any byte, and loses power with whatever it pleases of what was not synced.

use std::path::Path;
use std::sync::Arc;

use super::tests::{DATA, batch, distinct, open};
use super::*;
use crate::model::random::Random;
use crate::model::time::TimestampMs;
use crate::storage::fs::Fs;
use crate::storage::fs::sim::{ENOSPC, SimFs};
use crate::storage::reserve::RESERVE_FILE;

const FOR_EVER: u64 = u64::MAX / 2;

#[test]
fn a_probe_wants_room_for_all_that_was_refused() {
    let fs = SimFs::new();
    let mut writer = open(&fs).unwrap().0;
    let mut probe = |len: usize| {
        // Two pages find room, and a third does not.
        fs.fail_nth_with(3, 0, ENOSPC, None);
        let probed = writer.probe(len);
        fs.heal();
        probed.is_ok()
    };
    assert!(probe(0) && probe(PAGE_LEN));
    assert!(!probe(3 * PAGE_LEN));
}

#[test]
fn a_disk_that_is_full_from_any_operation_on_refuses_appends_loses_nothing_and_heals_at_once() {
    let total = {
        let fs = SimFs::new();
        let (mut writer, _, _) = open(&fs).unwrap();
        let before = fs.operations();
        (0..12).for_each(|t| writer.append(&batch(t, 300)).unwrap());
        writer.sync().unwrap();
        fs.operations() - before
    };
    assert!(13 < total);
    for n in 1..=total {
        let fs = SimFs::new();
        let (mut writer, _, _) = open(&fs).unwrap();
        fs.fail_nth_with(n, FOR_EVER, ENOSPC, Some(7));
        let (mut acknowledged, mut refused) = (Vec::new(), Vec::new());
        for t in 0..12 {
            match writer.append(&batch(t, 300)).and_then(|()| writer.sync()) {
                Ok(()) => acknowledged.push(t),
                Err(WalError::Io { source, .. }) => {
                    assert!(crate::storage::reserve::is_full(&source), "operation {n}: {source}");
                    refused.push(t);
                }
                Err(other) => panic!("operation {n}: {other}"),
            }
        }
        assert!(!refused.is_empty(), "operation {n}");
        assert!(writer.probe(0).is_err(), "operation {n}");
        // Killed while it is full: everything is there, and a start is not refused for what it cannot repair.
        let killed = fs.fork();
        let found = distinct(open(&killed).unwrap().2.times);
        assert!(acknowledged.iter().all(|t| found.contains(t)), "operation {n}: {found:?}");
        fs.heal();
        writer.probe(0).unwrap();
        writer.append(&batch(100, 5)).unwrap();
        writer.sync().unwrap();
        drop(writer);
        fs.cut_power();
        let (_, report, seen) = open(&fs).unwrap();
        let found = distinct(seen.times);
        assert!(acknowledged.iter().chain(&[100]).all(|t| found.contains(t)), "operation {n}: {found:?}");
        assert_eq!(report.damage, [], "operation {n}");
    }
}

#[test]
fn a_full_disk_does_not_keep_a_log_from_being_read_and_repaired() {
    let base = SimFs::new();
    let (mut writer, _, _) = open(&base).unwrap();
    (0..10).for_each(|t| writer.append(&batch(t, 5)).unwrap());
    writer.sync().unwrap();
    drop(writer);
    let path = Path::new(DATA).join("wal/00000000");
    let mut bytes = base.read(&path).unwrap();
    bytes[200] ^= 1;
    base.put(&path, &bytes).unwrap();
    assert!(base.exists(&Path::new(DATA).join(RESERVE_FILE)).unwrap());
    let steps = {
        let fs = base.fork();
        open(&fs).unwrap();
        fs.operations()
    };
    for n in 1..=steps {
        // The disk is full until the room that was kept is given back, or stays full.
        for more in [0, FOR_EVER] {
            let fs = base.fork();
            fs.fail_nth_with(n, more, ENOSPC, None);
            let opened = open(&fs);
            fs.heal();
            if let Ok((_, _, seen)) = opened {
                assert_eq!(distinct(seen.times).len(), 9, "operation {n}");
            }
            assert_eq!(distinct(open(&fs).unwrap().2.times).len(), 9, "operation {n}, the next start");
            let found = fs.read(&path).unwrap();
            let kept = fs.read(Path::new("/data/wal.damaged/00000000")).ok();
            assert!(
                found == bytes
                    || kept.as_ref() == Some(&bytes)
                    || fs.exists(Path::new("/data/wal.damaged/00000000.1")).unwrap()
            );
        }
    }
}

#[test]
fn a_write_cut_at_any_byte_leaves_the_records_before_it() {
    let base = SimFs::new();
    let (mut writer, _, _) = open(&base).unwrap();
    writer.append(&batch(1, 3)).unwrap();
    writer.sync().unwrap();
    drop(writer);
    let len = {
        let fs = base.fork();
        let (mut writer, _, _) = open(&fs).unwrap();
        let before = writer.position().offset;
        writer.append(&batch(2, 3)).unwrap();
        usize::try_from(writer.position().offset - before).unwrap()
    };
    for left in 0..=len {
        let fs = base.fork();
        let (mut writer, _, _) = open(&fs).unwrap();
        // The machine stops in the middle of the write: nothing is cut back.
        fs.fail_nth_with(1, FOR_EVER, 5, Some(left));
        assert!(writer.append(&batch(2, 3)).is_err());
        drop(writer);
        fs.heal();
        let (mut writer, report, seen) = open(&fs).unwrap();
        let expected: &[i64] = if left == len { &[1, 2] } else { &[1] };
        assert_eq!(distinct(seen.times), expected, "cut at {left}");
        assert!(report.damage.iter().all(|damage| damage.torn_end), "cut at {left}: {report:?}");
        writer.append(&batch(3, 3)).unwrap();
        drop(writer);
        assert_eq!(distinct(open(&fs).unwrap().2.times).last(), Some(&3), "cut at {left}");
    }
}

#[test]
fn whatever_a_power_cut_leaves_of_what_was_not_synced_nothing_synced_is_missing() {
    for seed in 0..80 {
        let mut random = Random::seeded(seed);
        let fs = SimFs::new();
        let (mut appended, mut synced, mut next) = (Vec::new(), Vec::new(), 0);
        for life in 0..3 {
            let (mut writer, _, seen) = open(&fs).unwrap();
            let found = distinct(seen.times);
            assert!(synced.iter().all(|t| found.contains(t)), "seed {seed}, life {life}: {synced:?} {found:?}");
            assert!(found.iter().all(|t| appended.contains(t)), "seed {seed}, life {life}: {found:?}");
            if random.next_u64().is_multiple_of(3) {
                fs.fail_nth(1 + random.next_u64() % 20, random.next_u64() % 4);
            }
            for _ in 0..random.next_u64() % 25 {
                appended.push(next);
                let done = writer.append(&batch(next, 100 + random.next_u64() % 400));
                if random.next_u64().is_multiple_of(3) && done.and_then(|()| writer.sync()).is_ok() {
                    synced.push(next);
                }
                next += 1;
                if random.next_u64().is_multiple_of(12)
                    && let Ok(Some(job)) = writer.plan_checkpoint()
                {
                    let _ = job.run(TimestampMs(i64::MIN), &mut |_| Some(true));
                }
            }
            drop(writer);
            fs.heal();
            fs.cut_power_anyhow(&mut random);
        }
    }
}

#[test]
fn without_syncs_whole_segments_are_synced_all_the_same() {
    let fs = SimFs::new();
    let shared: SharedFs = Arc::new(fs.clone());
    shared.create_dir_all(Path::new(DATA)).unwrap();
    shared.sync_dir(Path::new("/")).unwrap();
    let off = WalOptions { hold_unsynced: false, ..super::tests::options() };
    let mut seen = super::tests::Seen::default();
    let (mut writer, _) = Log::open(&shared, Path::new(DATA), off, &super::tests::metrics(), &mut seen).unwrap();
    (0..100).for_each(|t| writer.append(&batch(t, 200)).unwrap());
    assert!(2 < writer.position().segment && writer.unsynced_len() == 0);
    drop(writer);
    fs.cut_power();
    let found = distinct(open(&fs).unwrap().2.times);
    assert!(30 < found.len() && found.len() < 100, "{}", found.len());
    assert_eq!(found, (0..found.len() as i64).collect::<Vec<_>>(), "no hole");
}

#[test]
fn a_failed_sync_of_records_that_are_not_held_is_told() {
    let fs = SimFs::new();
    let shared: SharedFs = Arc::new(fs.clone());
    shared.create_dir_all(Path::new(DATA)).unwrap();
    for held in [false, true] {
        let options = WalOptions { hold_unsynced: held, ..super::tests::options() };
        let dir = Path::new(DATA).join(held.to_string());
        shared.create_dir_all(&dir).unwrap();
        let mut writer = Writer::create(shared.clone(), &dir, 0, options, super::tests::metrics()).unwrap();
        writer.append(&batch(0, 3)).unwrap();
        fs.fail_nth(1, 0);
        assert_eq!(writer.sync().is_ok(), held);
        fs.heal();
    }
}
