//! What a stop and a kill leave is damaged at one place at a time: the log of late samples, the snapshot, the head chunks. The
//! directory opens all the same, nothing is invented, what is lost is told with its cost, and the original is kept.

use super::*;
use crate::storage::damage_tests::{Harm, files, harmed, harms};
use crate::storage::fs::Fs as _;
use crate::storage::fs::sim::ENOSPC;
use crate::storage::head_chunks::HEAD_CHUNKS_DIR;
use crate::storage::wal::{DAMAGED_DIR, WAL_DIR};
use crate::storage::wbl::WBL_DIR;

/// A directory with several segments of late samples, a snapshot, and what the logs have behind it; and its content.
fn scene() -> (SimFs, Content) {
    let sim = SimFs::new();
    let mut store = Store::open(&sim, WINDOW_MS);
    let mut all = Vec::new();
    let append = |store: &mut Store, all: &mut Vec<(u32, i64)>, i: i64| {
        let t = 100_000 + i * 300;
        let batch: Vec<(u32, i64)> = (0..3).flat_map(|s| [(s, t), (s, t - 30_250 - (i * 7 % 11) * 100)]).collect();
        all.extend(batch.clone());
        assert_eq!(store.append(floats(batch)).unwrap().rejected, []);
        if i % 9 == 8 {
            store.late_log.cut().unwrap();
        }
    };
    (0..30).for_each(|i| append(&mut store, &mut all, i));
    store.stop();
    drop(store);
    let mut store = Store::open(&sim, WINDOW_MS);
    assert_eq!(store.report.from, ReadFrom::Snapshot);
    (30..36).for_each(|i| append(&mut store, &mut all, i));
    store.writer.sync().unwrap();
    store.late_log.sync().unwrap();
    drop(store);
    let content = expected(all);
    assert_eq!(Store::open(&sim.fork(), WINDOW_MS).content(), content);
    (sim, content)
}

/// What is missing; panics if something is wrong.
#[track_caller]
fn missing(found: &Content, wanted: &Content, what: &str) -> Vec<(String, i64)> {
    let mut lost = Vec::new();
    for (labels, samples) in found {
        let own = wanted.get(labels);
        assert!(samples.iter().all(|sample| own.is_some_and(|own| own.contains(sample))), "{what}: invented");
    }
    for (labels, samples) in wanted {
        let own = found.get(labels).cloned().unwrap_or_default();
        lost.extend(samples.iter().filter(|sample| !own.contains(sample)).map(|(t, _)| (labels.clone(), *t)));
    }
    lost
}

/// True if the bytes of the file stand aside, whole or the end of them.
fn is_kept(sim: &SimFs, original: &[u8], here: &[u8]) -> bool {
    let aside = Path::new(DATA).join(DAMAGED_DIR);
    let aside = if sim.exists(&aside).unwrap() { files(sim, &aside) } else { Vec::new() };
    aside.iter().any(|file| {
        let kept = sim.read(file).unwrap();
        kept == original || !kept.is_empty() && original.starts_with(here) && original.ends_with(&kept)
    })
}

#[test]
fn damage_of_the_log_of_late_samples_costs_what_it_touched_and_is_told() {
    let (sim, content) = scene();
    let mut random = Random::seeded(11);
    let mut count = 0;
    for path in files(&sim, &Path::new(DATA).join(WBL_DIR)) {
        for harm in harms(&sim.read(&path).unwrap(), 25, &mut random) {
            let what = format!("{} {harm:?}", path.display());
            let copy = harmed(&sim, &path, &harm);
            let original = copy.read(&path).unwrap_or_default();
            let store = Store::open(&copy, WINDOW_MS);
            let found = store.content();
            let lost = missing(&found, &content, &what);
            let log = &store.report.late_log;
            let is_found = !log.damage.is_empty() || !log.missing.is_empty() || !log.missing_files.is_empty();
            assert!(lost.is_empty() || is_found, "{what}: {lost:?} not found");
            if is_found {
                assert!(0 < store.metrics.corruptions.get(), "{what}: not counted");
                let told = log.lost.samples;
                assert!(log.lost.is_reckoned || told == lost.len() as u64, "{what}: {told} of {}", lost.len());
                assert!(lost.is_empty() || 0 < told || log.lost.is_reckoned, "{what}: no cost");
                let is_removed = matches!(harm, Harm::Remove);
                let is_there = || {
                    let here = copy.read(&path).unwrap();
                    here == original || is_kept(&copy, &original, &here)
                };
                assert!(is_removed || is_there(), "{what}: thrown away");
            }
            drop(store);
            let again = Store::open(&copy, WINDOW_MS);
            assert_eq!((again.report.late_log.damage.len(), again.report.late_log.missing.len()), (0, 0), "{what}");
            assert_eq!(again.content(), found, "{what}: the next start");
            count += 1;
        }
    }
    assert!(100 < count, "{count}");
}

#[test]
fn what_another_program_has_removed_of_the_log_of_late_samples_is_no_loss() {
    let (sim, _) = scene();
    let dir = Path::new(DATA).join(WBL_DIR);
    let segments = files(&sim, &dir);
    let (first, last) = (&segments[0], &segments[segments.len() - 1]);
    sim.remove_file(first).unwrap();
    let alone = Store::open(&sim.fork(), WINDOW_MS);
    let told: Vec<_> = alone.report.late_log.missing_files.iter().map(|one| &one.path).collect();
    assert_eq!(told, [first], "nobody else was here");
    assert!(0 < alone.report.late_log.lost.samples && !alone.report.late_log.lost.is_reckoned);
    // Each program begins a segment of its own.
    let number: u64 = last.file_name().unwrap().to_string_lossy().parse().unwrap();
    sim.put(&dir.join(format!("{:08}", number + 1)), &[]).unwrap();
    let after = Store::open(&sim.fork(), WINDOW_MS);
    assert_eq!((after.report.late_log.missing_files.len(), after.report.late_log.lost.samples), (0, 0));
    assert_eq!(after.metrics.corruptions.get(), 0);
}

#[test]
fn damage_of_a_snapshot_or_of_head_chunks_costs_nothing_and_is_told_once() {
    let (sim, content) = scene();
    let snapshot = chunk_snapshot::list(&(Arc::new(sim.clone()) as SharedFs), Path::new(DATA)).unwrap().remove(0);
    let mut random = Random::seeded(12);
    let mut count = 0;
    for dir in [snapshot.dir().to_path_buf(), Path::new(DATA).join(HEAD_CHUNKS_DIR)] {
        let is_snapshot = dir == snapshot.dir();
        for path in files(&sim, &dir) {
            for harm in harms(&sim.read(&path).unwrap(), 40, &mut random) {
                let what = format!("{} {harm:?}", path.display());
                let copy = harmed(&sim, &path, &harm);
                let original = copy.read(&path).unwrap_or_default();
                let store = Store::open(&copy, WINDOW_MS);
                assert_eq!(missing(&store.content(), &content, &what), [], "{what}");
                let is_notes = path.ends_with("watchfire") && matches!(harm, Harm::Remove);
                if store.report.from == ReadFrom::Snapshot {
                    // Zeros behind the last record.
                    let behind = sim.read(&path).unwrap().iter().rposition(|byte| *byte != 0).unwrap();
                    let is_padding = matches!(harm, Harm::Cut { len } if behind < len);
                    let is_flip = matches!(harm, Harm::Flip { at, .. } if behind < at);
                    assert!(is_padding || is_flip, "{what}: not found");
                } else if is_notes {
                    // Without them it is as one of another program: samples come from chunks and log.
                    assert_eq!(store.report.snapshot_error, None, "{what}");
                } else {
                    let errors = (store.metrics.snapshot_errors.get(), store.metrics.chunk_corruptions.get());
                    assert!(errors.0 == 1 && (is_snapshot || errors.1 <= 1), "{what}: {errors:?}");
                    assert!(store.report.snapshot_error.is_some());
                }
                if let Harm::Flip { .. } = harm
                    && store.report.from != ReadFrom::Snapshot
                {
                    assert!(is_kept(&copy, &original, &[]), "{what}: not kept");
                }
                drop(store);
                // A stop after that leaves a snapshot that is of use.
                let mut again = Store::open(&copy, WINDOW_MS);
                assert_eq!(again.report.chunk_damage, [], "{what}: not repaired");
                assert_eq!(missing(&again.content(), &content, &what), [], "{what}: the next start");
                again.stop();
                drop(again);
                let last = Store::open(&copy, WINDOW_MS);
                assert_eq!((last.report.from, last.content()), (ReadFrom::Snapshot, content.clone()), "{what}");
                count += 1;
            }
        }
    }
    assert!(120 < count, "{count}");
}

#[test]
fn a_disk_that_does_not_give_a_snapshot_or_chunks_costs_time_alone() {
    let (sim, content) = scene();
    for path in files(&sim, Path::new(DATA)) {
        let of_log = path.starts_with(Path::new(DATA).join(WAL_DIR)) || path.starts_with(Path::new(DATA).join(WBL_DIR));
        if of_log || path.parent() == Some(Path::new(DATA)) {
            continue;
        }
        let copy = sim.fork();
        copy.fail_reads(&path).unwrap();
        let is_chunks = path.starts_with(Path::new(DATA).join(HEAD_CHUNKS_DIR));
        let fs: SharedFs = Arc::new(copy.clone());
        let (head, metrics) = (new_head(WINDOW_MS), WalMetrics::new(&Default::default(), &clock()));
        let opened = replay::open(&fs, Path::new(DATA), WalOptions::default(), &metrics, &head, TimestampMs(i64::MIN));
        if is_chunks && opened.is_err() {
            // Late samples may stand in them alone: it is not for us to go on without them.
            continue;
        }
        opened.unwrap();
        assert_eq!(super::content(&*head.queryable().view().unwrap()), content, "{}", path.display());
        assert_eq!(metrics.snapshot_errors.get(), 1, "{}", path.display());
    }
}

#[test]
fn whichever_operation_of_a_stop_fails_late_samples_are_there() {
    let (sim, content) = scene();
    let steps = {
        let copy = sim.fork();
        let mut store = Store::open(&copy, WINDOW_MS);
        let from = copy.operations();
        store.stop();
        copy.operations() - from
    };
    assert!(15 < steps, "{steps}");
    for n in 1..=steps {
        for (code, more) in [(5, 0), (ENOSPC, u64::MAX)] {
            let copy = sim.fork();
            let mut store = Store::open(&copy, WINDOW_MS);
            copy.fail_nth_with(n, more, code, Some(3));
            let _ = store.try_stop();
            copy.heal();
            drop(store);
            let mut random = Random::seeded(n);
            for cut in [None, Some(false), Some(true)] {
                let copy = copy.fork();
                match cut {
                    Some(false) => copy.cut_power(),
                    Some(true) => copy.cut_power_anyhow(&mut random),
                    None => {}
                }
                let mut after = Store::open(&copy, WINDOW_MS);
                assert_eq!(after.content(), content, "operation {n}, error {code}, cut {cut:?}");
                after.stop();
                drop(after);
                let again = Store::open(&copy, WINDOW_MS);
                assert_eq!(
                    (again.report.from, again.content()),
                    (ReadFrom::Snapshot, content.clone()),
                    "operation {n}"
                );
            }
        }
    }
}
