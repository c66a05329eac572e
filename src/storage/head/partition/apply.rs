//! Staged batches become visible once the log has them, in the order in which they were staged.

use std::sync::Arc;

use crate::storage::head::commit::{Commit, CommitId};
use crate::storage::head::index::tail::TailEntry;
use crate::storage::head::late::{Inserted, LateRules, LateSample, LateValue};
use crate::storage::head::partition::staged::{NewSeries, StagedBatch, StagedSample};
use crate::storage::head::partition::{Partition, Slot, SlotState, TOUCHED_AHEAD, slot_field, slot_of};
use crate::storage::head::route::StartsOf;
use crate::storage::head::series::{Appended, NOT_STAGED};
use crate::storage::head::shard::Applying;
use crate::storage::head::shared::count;
use crate::storage::head::table::SeriesId;

impl Partition {
    /// Marks a staged batch as logged, and applies all batches that are ready; the commit handle goes with it.
    pub(crate) fn apply(&mut self, slot: u64, commit: Commit) {
        if let Some(slot) = self.slot_mut(slot) {
            slot.state = SlotState::Ready(commit);
            let batch = Arc::clone(&slot.batch);
            batch.store_exemplars(&self.shared.exemplars);
            for one in &batch.metadata {
                self.metadata.insert(one.series, Arc::clone(&one.metadata));
            }
        }
        self.apply_ready();
    }

    /// Applies the batches at the front of the queue that are ready.
    pub(crate) fn apply_ready(&mut self) {
        while let Some(Slot { state: SlotState::Ready(_) | SlotState::Abandoned, .. }) = self.staged.front() {
            let Some(front) = self.staged.pop_front() else { break };
            let slot = self.first_slot;
            self.first_slot += 1;
            if let SlotState::Ready(commit) = front.state {
                // Shared, as the marks outlive the borrow of the queue; dropped before the commit's handle.
                let readers = Arc::clone(&self.readers);
                let marks = Applying::begin(&readers);
                self.apply_batch(slot, &front.batch, &commit);
                marks.done();
                // Dropping the commit's handle, last of all, makes it visible once its other parts are applied.
            }
        }
    }

    /// Gives up a staged batch.
    pub(crate) fn abandon(&mut self, slot: u64) {
        let Some(found) = self.slot_mut(slot) else { return };
        found.state = SlotState::Abandoned;
        let touched: hashbrown::HashSet<SeriesId> = std::mem::take(&mut found.batch).ids().collect();
        count(&self.shared.counters.commits_abandoned, 1);
        for id in &touched {
            if let Some(series) = self.table.get_mut(*id) {
                series.staged = NOT_STAGED;
            }
        }
        // What other batches in the queue hold for these series counts again.
        self.mark_staged(|id| touched.contains(&id));
    }

    fn slot_mut(&mut self, slot: u64) -> Option<&mut Slot> {
        let at = usize::try_from(slot.checked_sub(self.first_slot)?).ok()?;
        self.staged.get_mut(at)
    }

    fn apply_batch(&mut self, slot: u64, batch: &StagedBatch, commit: &Commit) {
        let (rules, low) = (self.shared.rules, self.shared.horizon.low_watermark());
        let writes_chunks = self.shared.chunk_store().is_some_and(|store| store.is_open());
        let (mut appended, mut histograms, mut chunks) = (0, 0, 0);
        let (mut min_t, mut max_t) = (i64::MAX, i64::MIN);
        for (at, sample) in batch.samples.iter().enumerate() {
            if cfg!(debug_assertions) && at == batch.samples.len() / 2 {
                self.readers.may_tear();
            }
            if at % TOUCHED_AHEAD == 0 {
                self.touch(batch.samples.get(at..).unwrap_or_default());
            }
            let series = self.table.get_mut(sample.id).expect("a series with staged samples stays in the table");
            if slot_of(series.staged) == slot_field(slot) {
                series.staged = NOT_STAGED;
            }
            match series.append(sample.t, sample.value, commit.id(), low, &rules) {
                Appended::InChunk => appended += 1,
                Appended::NewChunk => {
                    appended += 1;
                    chunks += 1;
                    if writes_chunks && let Some(held) = series.held_chunks() {
                        self.chunk_writes.finished(sample.id, held.held_len());
                    }
                }
                // A repetition of a sample that was staged twice.
                Appended::NotNewer => continue,
            }
            min_t = min_t.min(sample.t);
            max_t = max_t.max(sample.t);
        }
        for sample in &batch.histograms {
            let series = self.table.get_mut(sample.id).expect("a series with staged samples stays in the table");
            if slot_of(series.staged) == slot_field(slot) {
                series.staged = NOT_STAGED;
            }
            match series.append_histogram(sample.t, &sample.value, commit.id(), low, &rules) {
                Appended::InChunk => {}
                Appended::NewChunk => {
                    chunks += 1;
                    if writes_chunks && let Some(held) = series.held_chunks() {
                        self.chunk_writes.finished(sample.id, held.held_len());
                    }
                }
                Appended::NotNewer => continue,
            }
            histograms += 1;
            min_t = min_t.min(sample.t);
            max_t = max_t.max(sample.t);
        }
        for new in &batch.new_series {
            self.enter_index(new);
        }
        if !batch.late.is_empty() {
            let (late_floats, late_histograms, late_chunks) = self.apply_late(batch, commit, low);
            appended += late_floats;
            histograms += late_histograms;
            chunks += late_chunks;
        }
        if self.shared.starts.stored {
            self.note_starts(batch);
        }
        if min_t <= max_t {
            self.shared.widen_span(min_t, max_t);
        }
        count(&self.shared.counters.samples_appended, appended);
        count(&self.shared.counters.histograms_appended, histograms);
        count(&self.shared.counters.chunks_created, chunks);
    }

    /// Reads what appending to the first of these samples' series will need. A head is larger than any cache: the memory of
    /// several series is fetched at once this way, where appending would wait for each.
    fn touch(&self, samples: &[StagedSample]) {
        let series = samples.iter().take(TOUCHED_AHEAD).filter_map(|sample| self.table.get(sample.id));
        std::hint::black_box(series.fold(0, |sum, series| sum ^ series.touch()));
    }

    /// Puts what came out of order in its place; returns how many floats, histograms and chunks are new.
    fn apply_late(&mut self, batch: &StagedBatch, commit: &Commit, low: CommitId) -> (u64, u64, u64) {
        let table = self.readers.late.load_full();
        let rules = LateRules { epoch: batch.epoch, low, chunk_len: self.shared.late_chunk_len };
        let writes_chunks = self.shared.chunk_store().is_some_and(|store| store.is_open());
        let (mut floats, mut histograms, mut chunks) = (0, 0, 0);
        for late in &batch.late {
            let series = self.table.get(late.id).expect("a series with staged samples stays in the table");
            let (t, start, value) = (late.t, late.start, late.value.clone());
            let sample = LateSample { t, start, commit: commit.id(), value };
            let Inserted::Taken { new_chunks, has_closed } = table.insert(late.series, sample, rules) else { continue };
            series.cell.set_late(true);
            chunks += new_chunks;
            if has_closed && writes_chunks {
                self.chunk_writes.finished_late(late.id);
            }
            match &late.value {
                LateValue::Float(_) => floats += 1,
                LateValue::Histogram(_) => histograms += 1,
            }
        }
        count(&self.shared.counters.late_floats, floats);
        count(&self.shared.counters.late_histograms, histograms);
        (floats, histograms, chunks)
    }

    fn note_starts(&self, batch: &StagedBatch) {
        let starts = &self.readers.starts;
        let mut own = StartsOf(batch.sample_starts.clone().into_iter().peekable());
        for (at, sample) in (0..).zip(&batch.samples) {
            starts.note(sample.series, sample.t, own.of(at).unwrap_or(0));
        }
        let mut own = StartsOf(batch.histogram_starts.clone().into_iter().peekable());
        for (at, sample) in (0..).zip(&batch.histograms) {
            starts.note(sample.series, sample.t, own.of(at).unwrap_or(0));
        }
    }

    /// Shows a series to readers. Its record is in the log by now.
    pub(super) fn enter_index(&mut self, new: &NewSeries) {
        if self.index.tail.is_full() {
            self.seal_tail();
        }
        let series = self.table.get_mut(new.id).expect("a series with staged samples stays in the table");
        series.logged = true;
        if !series.indexed {
            series.indexed = true;
            let entry = TailEntry { labels: new.labels.clone(), hash: new.hash, cell: Arc::clone(&series.cell) };
            self.index.tail.push(entry).expect("a tail that is not full has room");
        }
    }
}
