//! Features that touch each other: late samples, deletions, snapshots, checkpoints, blocks and restarts in any order, with the
//! window on and off and with power cuts. What is there before a step that only moves data is there after it, and nothing else.

use std::collections::BTreeSet;

use super::*;
use crate::model::matcher::{MatchOp, Matcher};
use crate::storage::wal::tombstone_record::encode_tombstones;

/// A sample by series and time.
type Key = (String, i64);

#[derive(Clone, Debug)]
enum Move {
    /// Series and how long before the newest time, or behind it where that is negative.
    Append(Vec<(u32, i64)>),
    /// Of series below a number, from and to before the newest time.
    Delete(u32, i64, i64),
    Sync,
    Restart {
        window: bool,
    },
    Stop {
        window: bool,
    },
    /// Of what was not synced anything may be lost.
    Kill(u64),
    CompactHead,
    CompactLate,
    MergeBlocks,
    Clean,
    Checkpoint,
    WriteChunks,
    /// Chunks are written, and the log of late samples is told.
    Mark,
    /// The disk fails at its n-th operation.
    FailToWriteChunks(u64),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let sample = (0u32..5, prop_oneof![3 => -3_000i64..0, 1 => 0i64..3_000, 1 => 0i64..WINDOW_MS]);
    let step = prop_oneof![
        14 => proptest::collection::vec(sample, 1..50).prop_map(Move::Append),
        3 => (1u32..5, 0i64..40_000, 0i64..40_000).prop_map(|(s, a, b)| Move::Delete(s, a.max(b), a.min(b))),
        1 => Just(Move::Sync),
        2 => any::<bool>().prop_map(|window| Move::Restart { window }),
        2 => any::<bool>().prop_map(|window| Move::Stop { window }),
        2 => any::<u64>().prop_map(Move::Kill),
        2 => Just(Move::CompactHead),
        2 => Just(Move::CompactLate),
        1 => Just(Move::MergeBlocks),
        1 => Just(Move::Clean),
        2 => Just(Move::Checkpoint),
        2 => Just(Move::WriteChunks),
        3 => Just(Move::Mark),
        1 => (1u64..8).prop_map(Move::FailToWriteChunks),
    ];
    proptest::collection::vec(step, 1..40)
}

/// Chunks of late samples are short, so that some are written.
fn open(sim: &SimFs, window_ms: i64) -> Store {
    Store::open_with(sim, head_of(HeadOptions { late_chunk_len: 4, ..options() }, window_ms))
}

impl Store {
    fn sync(&mut self) {
        self.writer.sync().unwrap();
        self.late_log.sync().unwrap();
    }

    /// As the compactor does it.
    fn delete(&mut self, below: u32, range: TimeRange) {
        let jobs = (0..below).map(|series| series.to_string()).collect::<Vec<_>>().join("|");
        let selectors = vec![vec![Matcher::new(MatchOp::Regex, "instance", &jobs).unwrap()]];
        let of_blocks = self.catalog.plan_deletion(&selectors, range).unwrap();
        let of_head = self.head.plan_deletion(&selectors, range).unwrap();
        let mut records = Vec::new();
        encode_tombstones(of_head.ranges().iter().copied(), &mut records);
        self.writer.append(&records).unwrap();
        self.sync();
        let (blocks, written) = self.catalog.write_deletion(of_blocks);
        self.catalog.show_deleted(blocks, || self.head.delete(of_head)).unwrap();
        written.unwrap();
    }

    fn clean(&mut self) {
        while let Some(block) = self.catalog.state().blocks.iter().find(|block| !block.tombstones().is_empty()) {
            let (block, mut random) = (Arc::clone(block), self.random());
            let mut cleaning = BlockCompaction::clean(&self.catalog, block, 0, &clock(), &mut random).unwrap();
            while cleaning.step(3).unwrap() == Step::More {}
            cleaning.publish().unwrap();
            self.catalog.reload(Retention::default(), 0).unwrap();
        }
        self.head.forget_deleted();
    }

    /// As the upkeep does it once a block stands for what is dropped.
    pub(super) fn checkpoint(&mut self) {
        self.try_checkpoint().unwrap();
    }

    pub(super) fn try_checkpoint(&mut self) -> Result<(), WalError> {
        let Some(bound) = self.catalog.state().whole_until().map(TimestampMs) else { return Ok(()) };
        for _ in 0..3 {
            self.writer.next_segment()?;
        }
        let Some(job) = self.writer.plan_checkpoint()? else { return Ok(()) };
        let job = job.keeping_deletions(self.head.oldest_late());
        let is_used = |file| self.head.uses_chunk_file(file);
        chunk_snapshot::prepare_truncation(&self.fs, Path::new(DATA), bound, self.late_from(), &is_used)?;
        let aliases = self.report.head.aliases.clone();
        job.run(bound, &mut replay::keeper(&self.head, &aliases)).map(drop)
    }

    /// What stands in blocks.
    fn blocks(&self) -> Content {
        let store = StoreQueryable::new(new_head(0).queryable(), Arc::clone(&self.catalog));
        content(&*store.view().unwrap())
    }

    fn keys(&self) -> BTreeSet<Key> {
        let content = self.content();
        let wrong = |(labels, samples): (&String, &Vec<(i64, f64)>)| {
            let series = (0..5).find(|series| super::labels(*series).to_string() == *labels).unwrap();
            samples.iter().any(|(t, value)| *value != value_of(series, *t))
        };
        assert!(!content.iter().any(wrong), "a wrong value");
        keys_of(&content)
    }
}

fn keys_of(content: &Content) -> BTreeSet<Key> {
    content.iter().flat_map(|(labels, samples)| samples.iter().map(|(t, _)| (labels.clone(), *t))).collect()
}

fn run(steps: Vec<Move>) -> Result<(), TestCaseError> {
    let sim = SimFs::new();
    let mut store = open(&sim, WINDOW_MS);
    let (mut now, mut newest) = (BTreeSet::<Key>::new(), 500_000);
    let mut unsynced = BTreeSet::<Key>::new();
    let mut deleted: Vec<(u32, i64, i64)> = Vec::new();
    // What comes anew for a range that was deleted may be hidden, at once or by a start that reads of the deletion, as in Prometheus:
    // the logs do not tell which came first.
    let mut doubtful = BTreeSet::<Key>::new();
    for step in steps {
        let what = format!("{step:?}");
        let mut expected = now.clone();
        match step {
            Move::Append(offsets) => {
                let samples: Vec<(u32, i64)> = offsets.into_iter().map(|(s, before)| (s, newest - before)).collect();
                let refused: BTreeSet<u32> =
                    store.append(floats(samples.clone())).unwrap().rejected.into_iter().map(|(at, _)| at).collect();
                let taken = (0..).zip(&samples).filter(|(at, _)| !refused.contains(at)).map(|(_, sample)| *sample);
                for (series, t) in taken {
                    newest = newest.max(t);
                    let key = (labels(series).to_string(), t);
                    let is_deleted = deleted.iter().any(|(below, from, to)| series < *below && *from <= t && t <= *to);
                    if is_deleted {
                        doubtful.insert(key);
                    } else {
                        unsynced.extend((!expected.contains(&key)).then(|| key.clone()));
                        expected.insert(key);
                    }
                }
            }
            Move::Delete(below, from, to) => {
                let (from, to) = (newest - from, newest - to);
                store.delete(below, TimeRange::new(TimestampMs(from), TimestampMs(to)).unwrap());
                deleted.push((below, from, to));
                let names: Vec<String> = (0..below).map(|series| labels(series).to_string()).collect();
                expected.retain(|(name, t)| !names.contains(name) || *t < from || to < *t);
                unsynced.clear();
            }
            Move::Sync => {
                store.sync();
                unsynced.clear();
            }
            Move::Restart { window } => {
                store = open(&sim, if window { WINDOW_MS } else { 0 });
            }
            Move::Stop { window } => {
                // Where other chunks are in the files than in the head there is no snapshot, and the log stays what a start reads.
                match store.try_stop() {
                    Ok(()) | Err(SnapshotError::Chunks(_)) => {}
                    Err(error) => return Err(TestCaseError::fail(format!("{what}: {error}"))),
                }
                unsynced.clear();
                store = open(&sim, if window { WINDOW_MS } else { 0 });
            }
            Move::Kill(seed) => {
                drop(store);
                sim.cut_power_anyhow(&mut Random::seeded(seed));
                store = open(&sim, WINDOW_MS);
                let found = store.keys();
                prop_assert!(found.difference(&expected).all(|key| doubtful.contains(key)), "{what}: invented");
                let is_lost = |key: &&Key| !unsynced.contains(*key) && !doubtful.contains(*key);
                let lost: Vec<_> = expected.difference(&found).filter(is_lost).collect();
                prop_assert_eq!(lost, Vec::<&Key>::new(), "{}: lost", what);
                unsynced.clear();
                expected = found;
            }
            Move::CompactHead => drop(store.compact_head().unwrap()),
            Move::CompactLate => drop(store.compact_late().unwrap()),
            Move::MergeBlocks => drop(store.merge_blocks().unwrap()),
            Move::Clean => store.clean(),
            Move::Checkpoint => store.checkpoint(),
            Move::WriteChunks => store.head.write_chunks_blocking().unwrap(),
            Move::Mark => {
                store.head.write_chunks_blocking().unwrap();
                store.mark();
            }
            Move::FailToWriteChunks(n) => {
                sim.fail_nth(n, 1);
                let _ = store.head.write_chunks_blocking();
                sim.heal();
            }
        }
        let found = store.keys();
        let is_sure = |key: &&Key| !doubtful.contains(*key);
        let (lost, more): (Vec<_>, Vec<_>) = (
            expected.difference(&found).filter(is_sure).collect(),
            found.difference(&expected).filter(is_sure).collect(),
        );
        prop_assert!(lost.is_empty() && more.is_empty(), "{what}: lost {lost:?}, invented {more:?}");
        if !what.starts_with("Append") {
            // Prometheus reads the same of these files.
            let (mut upstream, blocks) = (markers::upstream(&sim), store.blocks());
            upstream.extend(keys_of(&blocks));
            let lost: Vec<_> = found.difference(&upstream).filter(is_sure).collect();
            prop_assert!(lost.is_empty(), "{what}: not for Prometheus {lost:?}");
        }
        now = found;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn whatever_touches_whatever_nothing_is_lost_and_nothing_comes_back(steps in moves()) {
        run(steps)?;
    }
}
