//! Takes samples that came out of order out of the head, for blocks; see `late` for how that goes on while others come.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::model::labels::Labels;
use crate::model::read::ReadError;
use crate::model::sample::SeriesRef;
use crate::model::time::{TimeRange, TimestampMs};
use crate::storage::block::chunks::ChunkData;
use crate::storage::block::rewrite::{self, MERGED_SAMPLES, Sample, Starts};
use crate::storage::chunk::written::ChunkPlace;
use crate::storage::chunk::{ChunkError, Encoding};
use crate::storage::head::Head;
use crate::storage::head::deletion;
use crate::storage::head::export::BlockRange;
use crate::storage::head::late::{LateChunks, Merged};
use crate::storage::head::shared::HeadShared;
use crate::storage::head::view::HeadView;

/// The late samples of commits that had begun by some time. It is settled when those commits are over ([`Head::is_settled`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LateCut {
    epoch: u64,
}

impl Head {
    /// How far behind the newest sample others may come out of order, for commits to come; 0 for not at all.
    pub fn set_late_window(&self, window_ms: i64) {
        self.shared.late_window_ms.store(window_ms.max(0), Ordering::SeqCst);
    }

    /// The window for samples that come out of order.
    pub fn late_window_ms(&self) -> i64 {
        self.shared.late_window_ms.load(Ordering::SeqCst)
    }

    pub(super) fn late_epoch(&self) -> u64 {
        self.shared.late_epoch.load(Ordering::SeqCst)
    }

    /// Takes note of series that the log names by other references as well: they get no markers.
    pub(crate) fn note_aliases<'a>(&self, of: impl IntoIterator<Item = &'a SeriesRef>) {
        self.shared.note_aliases(of);
    }

    /// True if there is a sample that came out of order.
    pub fn has_late(&self) -> bool {
        self.shards.iter().any(|shard| 0 < shard.readers.late.load().chunk_count())
    }

    /// Time of the oldest sample that came out of order, or before it.
    pub fn oldest_late(&self) -> Option<TimestampMs> {
        self.shards.iter().filter_map(|shard| Some(shard.readers.late.load().span()?.min())).min()
    }

    /// Parts the late samples of commits that have begun from those of commits to come. What is cut off can be taken out once
    /// [`Head::settling`], asked after this, is settled.
    pub fn cut_late(&self) -> LateCut {
        LateCut { epoch: self.shared.late_epoch.fetch_add(1, Ordering::SeqCst) }
    }

    /// Begins to take out what was cut off, which must be settled.
    pub fn export_late(&self, cut: LateCut) -> Result<LateExport, ReadError> {
        let view = HeadView::open(&self.shared, self.shards());
        let mut series = Vec::new();
        view.for_each_late(|reference, labels, late| {
            if late.spans(cut.epoch).next().is_some() {
                series.push(LateSeries { reference, labels, late });
            }
        });
        view.check()?;
        series.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(LateExport { cut, view, series, shared: Arc::clone(&self.shared) })
    }

    /// Lets the shards drop what was cut off, once no view needs it; [`crate::storage::head::shard::Shard::reclaim`] does it.
    pub fn drop_late(&self, cut: LateCut) {
        self.shards.iter().for_each(|shard| shard.drop_late(cut.epoch));
    }

    /// The same for files of chunks: returns the place before which they hold no late samples that blocks do not hold, for the next
    /// start; `None` if they have held none.
    pub fn drop_late_chunks(&self, cut: LateCut) -> Option<ChunkPlace> {
        self.chunk_store().and_then(|store| store.drop_late(cut.epoch))
    }
}

struct LateSeries {
    reference: SeriesRef,
    labels: Labels,
    late: Arc<LateChunks>,
}

/// Late samples on their way out.
pub struct LateExport {
    cut: LateCut,
    view: HeadView,
    /// In the order of their labels.
    series: Vec<LateSeries>,
    shared: Arc<HeadShared>,
}

impl LateExport {
    /// Number of series.
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// True if there is nothing to take out.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// The aligned ranges of `range_ms` that hold samples, oldest first.
    pub fn ranges(&self, range_ms: i64) -> Vec<BlockRange> {
        let range_ms = range_ms.max(1);
        let start_of = |t: i64| t.div_euclid(range_ms).saturating_mul(range_ms);
        let mut starts = BTreeSet::new();
        for (min_t, max_t) in self.series.iter().flat_map(|series| series.late.spans(self.cut.epoch)) {
            let mut start = start_of(min_t);
            while start <= max_t {
                starts.insert(start);
                start = start.saturating_add(range_ms);
            }
        }
        let range = |min_time: i64| BlockRange { min_time, max_time: min_time.saturating_add(range_ms) };
        starts.into_iter().map(range).collect()
    }

    /// All names and values of the series, sorted, and the empty text.
    pub fn symbols(&self) -> Vec<String> {
        let mut symbols = BTreeSet::from([""]);
        symbols
            .extend(self.series.iter().flat_map(|series| series.labels.iter()).flat_map(|(name, value)| [name, value]));
        symbols.into_iter().map(str::to_owned).collect()
    }

    /// The samples of the series with this number in a range, merged and encoded anew.
    pub fn chunks(&self, number: usize, range: BlockRange) -> Result<(Labels, Vec<ChunkData>), ReadError> {
        let Some(LateSeries { reference, labels, late }) = self.series.get(number) else {
            return Ok((Labels::empty(), Vec::new()));
        };
        let last = TimestampMs(range.max_time.saturating_sub(1));
        let Ok(wanted) = TimeRange::new(TimestampMs(range.min_time), last) else {
            return Ok((labels.clone(), Vec::new()));
        };
        let failed = |error| ReadError::Corrupt(format!("late samples of series {}: {error}", reference.0));
        let deleted = self.view.deleted_of(*reference);
        let mut merged = late.merged(wanted, self.view.commit(), self.cut.epoch).map_err(failed)?;
        merged.retain(|sample| !deletion::hits(deleted, sample.t));
        Ok((labels.clone(), self.encoded(merged).map_err(failed)?))
    }

    /// Chunks of the encodings that blocks are to have.
    fn encoded(&self, merged: Vec<Merged>) -> Result<Vec<ChunkData>, ChunkError> {
        let starts: Vec<(i64, i64)> = merged.iter().map(|sample| (sample.t, sample.start)).collect();
        let start_of = |t: i64| {
            let found = starts.binary_search_by_key(&t, |(t, _)| *t).ok();
            found.and_then(|found| starts.get(found)).map_or(0, |(_, start)| *start)
        };
        let samples = merged.into_iter().map(|one| Sample { t: one.t, start: one.start, value: one.value }).collect();
        let mut chunks = Vec::new();
        rewrite::encode(samples, MERGED_SAMPLES, Starts::None, &mut chunks)?;
        for chunk in &mut chunks {
            if self.shared.encodings.wants_starts(Encoding::from_id(chunk.encoding)?) {
                *chunk = rewrite::with_starts(chunk, start_of)?;
            }
        }
        Ok(chunks)
    }
}
