//! Exemplars from the log, which names series by reference, while the ring knows them by labels: the newest are gathered, and
//! stored once all series are known.
//!
//! Only a whole head gathers them: a shard that is rebuilt finds the ring as it was.

use std::collections::{HashMap, VecDeque};

use crate::model::labels::Labels;
use crate::model::sample::SeriesRef;
use crate::storage::head::exemplars::Exemplars;
use crate::storage::head::index::Index;
use crate::storage::wal::exemplar_record::RefExemplar;

/// How far back a duplicate is looked for.
const LOOK_BACK: usize = 16;

/// The newest exemplars of a log, at most as many as the ring holds.
#[derive(Debug, Default)]
pub(super) struct ReplayedExemplars {
    capacity: usize,
    newest: VecDeque<RefExemplar>,
    /// Those of a snapshot, which may stand in the log as well.
    of_snapshot: Vec<RefExemplar>,
}

impl ReplayedExemplars {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, newest: VecDeque::new(), of_snapshot: Vec::new() }
    }

    pub(super) fn push(&mut self, exemplar: &RefExemplar) {
        // The log has duplicates that storage did not take; they must not push others out.
        let before = self.newest.iter().rev().take(LOOK_BACK).find(|one| one.series == exemplar.series);
        if before.is_some_and(|before| before.exemplar == exemplar.exemplar) {
            return;
        }
        if self.capacity <= self.newest.len() {
            self.newest.pop_front();
        }
        if 0 < self.capacity {
            self.newest.push_back(exemplar.clone());
        }
    }

    pub(super) fn push_of_snapshot(&mut self, exemplar: &RefExemplar) {
        // A snapshot holds what a ring held; one of another size is cut short.
        if self.of_snapshot.len() < self.capacity {
            self.of_snapshot.push(exemplar.clone());
        }
    }

    /// Stores them in their order, with those of a snapshot by their times; returns how many have a series that nobody knows. `aliases` say which references stand for
    /// another.
    pub(super) fn store<'a>(
        mut self,
        exemplars: &Exemplars,
        aliases: &HashMap<SeriesRef, SeriesRef>,
        indexes: impl Iterator<Item = &'a Index>,
    ) -> u64 {
        if !self.of_snapshot.is_empty() {
            // The ring refuses those that come a second time.
            self.newest.extend(std::mem::take(&mut self.of_snapshot));
            self.newest.make_contiguous().sort_by_key(|one| one.exemplar.at);
        }
        let series_of = |one: &RefExemplar| aliases.get(&one.series).copied().unwrap_or(one.series);
        let mut labels: HashMap<SeriesRef, Option<(Labels, u64)>> =
            self.newest.iter().map(|one| (series_of(one), None)).collect();
        if labels.is_empty() {
            return 0;
        }
        for index in indexes {
            for segment in &index.segments {
                for (position, cell) in (0u32..).zip(segment.cells.iter()) {
                    if let Some(place) = labels.get_mut(&cell.series()) {
                        let labels = segment.labels(position);
                        let hash = labels.hash64();
                        *place = Some((labels, hash));
                    }
                }
            }
            for entry in index.tail.iter(index.tail.len()) {
                if let Some(place) = labels.get_mut(&entry.cell.series()) {
                    *place = Some((entry.labels.clone(), entry.hash));
                }
            }
        }
        let mut unknown = 0;
        for one in &self.newest {
            match labels.get(&series_of(one)) {
                Some(Some((labels, hash))) => exemplars.add(labels, *hash, &one.exemplar),
                _ => unknown += 1,
            }
        }
        unknown
    }
}
