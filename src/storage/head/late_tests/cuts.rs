//! The machine stops in the middle of any write, at any byte of it, or at any other operation: of both logs, chunks of the head,
//! blocks, checkpoints, the small files and the snapshot of a stop. Then power is lost, or not. What was acknowledged is there after
//! the next start, and nothing that was never sent.
//!
//! Places within writes are sampled by a seed; `WATCHFIRE_DAMAGE_ALL=1` takes every byte.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::storage::fs::Fs as _;
use crate::storage::fs::sim::{EIO, ENOSPC};

type Key = (u32, i64);

fn open(sim: &SimFs) -> Store {
    Store::open_with(sim, head_of(HeadOptions { late_chunk_len: 4, ..options() }, WINDOW_MS))
}

/// Everything that a server does with its directory, up to the first operation that fails. Returns what was sent, and what of it was
/// acknowledged.
fn live(sim: &SimFs) -> (BTreeSet<Key>, BTreeSet<Key>) {
    let (mut sent, mut acknowledged) = (BTreeSet::new(), BTreeSet::new());
    // An opening that fails ends in a panic.
    let _ = catch_unwind(AssertUnwindSafe(|| {
        let mut store = open(sim);
        for round in 0..5i64 {
            let at = 500_000 + round * 9_000;
            for part in 0..2i64 {
                let newer = (0..12).map(|i| ((i % 3) as u32, at + part * 4_000 + i * 200));
                let late = (0..12).map(|i| ((i % 3) as u32, at - 8_000 - part * 700 - i * 50));
                let batch: Vec<Key> = newer.chain(late.filter(|_| 0 < round)).collect();
                sent.extend(batch.iter().copied());
                let Ok(report) = store.append(floats(batch.clone())) else { return };
                assert_eq!(report.rejected, []);
                if store.writer.sync().and_then(|()| store.late_log.sync()).is_err() {
                    return;
                }
                acknowledged.extend(batch);
            }
            let done = match round {
                0 | 3 => store.head.write_chunks_blocking().is_ok(),
                1 => store.compact_head().is_ok(),
                2 => store.compact_head().is_ok() && store.compact_late().is_ok(),
                _ => store.try_checkpoint().is_ok() && store.merge_blocks().is_ok(),
            };
            if !done {
                return;
            }
        }
        let _ = store.try_stop();
    }));
    (sent, acknowledged)
}

fn check(sim: &SimFs, sent: &BTreeSet<Key>, acknowledged: &BTreeSet<Key>, what: &str) {
    let found = open(sim).content();
    let mut keys = BTreeSet::new();
    for series in 0..3 {
        for (t, value) in found.get(&labels(series).to_string()).into_iter().flatten() {
            assert_eq!(*value, value_of(series, *t), "{what}: a wrong value");
            keys.insert((series, *t));
        }
    }
    let lost: Vec<_> = acknowledged.difference(&keys).collect();
    assert!(lost.is_empty(), "{what}: lost {lost:?}");
    let invented: Vec<_> = keys.difference(sent).collect();
    assert!(invented.is_empty(), "{what}: invented {invented:?}");
}

#[test]
fn a_machine_that_stops_at_any_byte_of_any_write_loses_nothing_acknowledged() {
    let all = std::env::var_os("WATCHFIRE_DAMAGE_ALL").is_some();
    let total = {
        let sim = SimFs::new();
        let (sent, acknowledged) = live(&sim);
        assert_eq!((sent.len(), &sent), (acknowledged.len(), &acknowledged));
        check(&sim.fork(), &sent, &acknowledged, "nothing fails");
        let names: Vec<String> = sim.list(Path::new(DATA)).unwrap().into_iter().map(|entry| entry.name).collect();
        assert!(names.iter().any(|name| name.starts_with("chunk_snapshot.")), "{names:?}");
        assert!(sim.list(&Path::new(DATA).join("wal")).unwrap().iter().any(|e| e.name.starts_with("checkpoint.")));
        sim.operations()
    };
    assert!(150 < total, "{total}");
    let mut random = Random::seeded(41);
    let mut writes = 0;
    for n in 1..=total {
        let mut left = 0;
        loop {
            let sim = SimFs::new();
            let code = if n % 2 == 0 { EIO } else { ENOSPC };
            sim.fail_nth_with(n, u64::MAX / 2, code, Some(left));
            let (sent, acknowledged) = live(&sim);
            let len = sim.cut_len();
            sim.heal();
            let what = format!("operation {n} of {total}, {left} bytes of {len:?}");
            let cut = sim.fork();
            cut.cut_power_anyhow(&mut random);
            check(&cut, &sent, &acknowledged, &format!("{what}, and no power"));
            if all || n % 8 == 0 {
                check(&sim, &sent, &acknowledged, &what);
            }
            let Some(len) = len.filter(|len| left < *len) else { break };
            writes += u32::from(left == 0);
            if !all && n % 2 == 1 {
                break;
            }
            // From nothing of it to all of it.
            left = match left {
                _ if all => left + 1,
                0 => 1 + usize::try_from(random.next_u64() % len as u64).unwrap(),
                _ => break,
            };
        }
    }
    assert!(40 < writes, "{writes}");
}
