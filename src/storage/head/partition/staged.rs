//! What a batch holds between its look at the rules and its place in the series.

use std::cell::Cell;
use std::sync::Arc;

use crate::model::append::HistogramValue;
use crate::model::exemplar::Exemplar;
use crate::model::labels::Labels;
use crate::model::metadata::SeriesMetadata;
use crate::model::sample::SeriesRef;
use crate::model::spare;
use crate::storage::head::exemplars::Exemplars;
use crate::storage::head::late::LateValue;
use crate::storage::head::table::SeriesId;

/// A series record that the log needs before the samples that refer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSeries {
    /// The reference that samples use.
    pub series: SeriesRef,
    /// Its labels.
    pub labels: Labels,
    pub(crate) hash: u64,
    pub(crate) id: SeriesId,
}

/// A checked sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StagedSample {
    /// The series, as the log names it.
    pub series: SeriesRef,
    /// Milliseconds since the epoch.
    pub t: i64,
    /// The value.
    pub value: f64,
    pub(crate) id: SeriesId,
}

/// A checked histogram.
#[derive(Clone, Debug, PartialEq)]
pub struct StagedHistogram {
    /// The series, as the log names it.
    pub series: SeriesRef,
    /// Milliseconds since the epoch.
    pub t: i64,
    /// The histogram.
    pub value: HistogramValue,
    pub(crate) id: SeriesId,
}

/// A checked sample that came out of order.
#[derive(Clone, Debug, PartialEq)]
pub struct StagedLate {
    /// The series, as the log names it.
    pub series: SeriesRef,
    /// Milliseconds since the epoch.
    pub t: i64,
    /// When it began to count, if that is stored; else 0.
    pub start: i64,
    pub(crate) value: LateValue,
    pub(crate) id: SeriesId,
}

impl StagedLate {
    /// The value, if it is a float.
    pub fn float(&self) -> Option<f64> {
        match &self.value {
            LateValue::Float(value) => Some(*value),
            LateValue::Histogram(_) => None,
        }
    }

    /// The value, if it is a histogram.
    pub fn histogram(&self) -> Option<&HistogramValue> {
        match &self.value {
            LateValue::Float(_) => None,
            LateValue::Histogram(value) => Some(value),
        }
    }
}

/// A checked exemplar.
#[derive(Clone, Debug, PartialEq)]
pub struct StagedExemplar {
    /// The series, as the log names it.
    pub series: SeriesRef,
    /// The exemplar.
    pub exemplar: Exemplar,
    pub(super) labels: Labels,
    pub(super) hash: u64,
}

/// Metadata that the log does not have yet.
#[derive(Clone, Debug, PartialEq)]
pub struct StagedMetadata {
    /// The series, as the log names it.
    pub series: SeriesRef,
    /// What is said of it.
    pub metadata: Arc<SeriesMetadata>,
}

/// What staging a slice has found; never changed afterwards.
#[derive(Debug, Default)]
pub(crate) struct StagedBatch {
    pub(crate) new_series: Vec<NewSeries>,
    pub(crate) samples: Vec<StagedSample>,
    /// In the numbers that series keep they follow the samples.
    pub(crate) histograms: Vec<StagedHistogram>,
    /// What came out of order; no series points at these.
    pub(crate) late: Vec<StagedLate>,
    /// The epoch of `late`.
    pub(super) epoch: u64,
    /// Series of `late` that are in `new_series`.
    pub(super) named: hashbrown::HashSet<SeriesId>,
    pub(crate) exemplars: Vec<StagedExemplar>,
    pub(crate) metadata: Vec<StagedMetadata>,
    /// Start times of some samples and of some histograms, by their place in the batch, if they are stored.
    pub(crate) sample_starts: Vec<(u32, i64)>,
    pub(crate) histogram_starts: Vec<(u32, i64)>,
}

impl StagedBatch {
    /// Stores the exemplars. Called once the log has them, whatever becomes of the partition: they are not part of it.
    pub(crate) fn store_exemplars(&self, exemplars: &Exemplars) {
        self.exemplars.iter().for_each(|one| exemplars.add(&one.labels, one.hash, &one.exemplar));
    }

    /// Gives the late samples from number `from` on, of which there is one at most, their start.
    pub(super) fn start_late(&mut self, from: usize, start: i64) {
        self.late.iter_mut().skip(from).for_each(|late| late.start = start);
    }

    /// The series of all samples in order, in the order of their numbers.
    pub(super) fn ids(&self) -> impl Iterator<Item = SeriesId> + '_ {
        self.samples.iter().map(|sample| sample.id).chain(self.histograms.iter().map(|sample| sample.id))
    }
}

thread_local! {
    /// The samples of a batch that was applied on this thread, for its next.
    pub(super) static SPARE: Cell<Vec<StagedSample>> = const { Cell::new(Vec::new()) };
}

/// Gives what is left of a batch back, if nobody else has it.
pub(in crate::storage::head) fn reuse(batch: &mut Arc<StagedBatch>) {
    if let Some(batch) = Arc::get_mut(batch) {
        spare::keep(&SPARE, std::mem::take(&mut batch.samples));
    }
}
