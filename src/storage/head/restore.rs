//! Fills the head from the log, past staging: what the log holds was checked when it was appended.
//!
//! Two series with the same labels become the one that was seen first, as in Prometheus; samples of the other go there.
//! Samples that are not newer than the newest of their series are passed over: a log may hold a sample twice.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::MutexGuard;

use crate::model::append::{HistogramValue, ShardId};
use crate::model::histogram::has_sound_layout;
use crate::model::labels::Labels;
use crate::model::metadata::SeriesMetadata;
use crate::model::sample::SeriesRef;
use crate::model::time::TimestampMs;
use crate::storage::block::tombstones::Interval;
use crate::storage::chunk::cut::CutRules;
use crate::storage::head::Head;
use crate::storage::head::commit::CommitId;
use crate::storage::head::deletion::RestoredDeletions;
use crate::storage::head::exemplar_restore::ReplayedExemplars;
use crate::storage::head::partition::Partition;
use crate::storage::head::route::shard_of;
use crate::storage::head::series::{Appended, WriterSeries};
use crate::storage::head::shared::count;
use crate::storage::head::table::{SERIES_REF_MAX, SeriesId};
use crate::storage::wal::exemplar_record::RefExemplar;

/// What was restored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestoreStats {
    /// Series in the head.
    pub series: u64,
    /// Samples in the head.
    pub samples: u64,
    /// Samples older than the bound.
    pub too_old: u64,
    /// Samples not newer than the newest of their series.
    pub not_newer: u64,
    /// Samples of series that the log does not name.
    pub unknown_refs: u64,
    /// Times of these.
    pub unknown_span: Option<(i64, i64)>,
    /// Histograms whose parts do not fit each other.
    pub bad_histograms: u64,
    /// Series without labels, with the reference of another or beyond what references can be.
    pub bad_series: u64,
    /// Metadata of series that the log does not name.
    pub unknown_metadata_refs: u64,
    /// Exemplars of series that the log does not name.
    pub unknown_exemplar_refs: u64,
    /// References that stand for the series of another (left: the later one).
    pub aliases: HashMap<SeriesRef, SeriesRef>,
}

/// Fills shards that nobody else writes meanwhile; they are locked as long as it lives.
pub struct Restorer<'a> {
    head: &'a Head,
    /// By shard; `None` for those that are not restored.
    partitions: Vec<Option<MutexGuard<'a, Partition>>>,
    places: HashMap<u64, Place, foldhash::fast::FixedState>,
    min_valid: i64,
    span: (i64, i64),
    ref_max: u64,
    chunks: u64,
    exemplars: ReplayedExemplars,
    /// Metadata that is shared by series.
    metadata: HashSet<Arc<SeriesMetadata>>,
    stats: RestoreStats,
    deletions: RestoredDeletions,
}

/// Where a series went.
#[derive(Clone, Copy)]
enum Place {
    In(ShardId, SeriesId),
    /// In a shard that is not restored.
    Elsewhere,
}

impl Head {
    /// Begins to fill all shards, or only `shard`, which is being rebuilt. Samples before `min_valid` are passed over.
    pub fn restore(&self, shard: Option<ShardId>, min_valid: TimestampMs) -> Restorer<'_> {
        let wanted = |id: ShardId| shard.is_none_or(|only| only == id);
        let partitions = self.shards.iter().map(|s| wanted(s.id()).then(|| s.lock_partition())).collect();
        Restorer {
            head: self,
            partitions,
            places: HashMap::default(),
            min_valid: min_valid.0.max(self.shared.min_valid()),
            span: (i64::MAX, i64::MIN),
            ref_max: 0,
            chunks: 0,
            // A shard that is rebuilt finds the ring as it was.
            exemplars: ReplayedExemplars::new(if shard.is_none() { self.shared.exemplars.capacity() } else { 0 }),
            metadata: HashSet::new(),
            stats: RestoreStats::default(),
            deletions: RestoredDeletions::default(),
        }
    }
}

impl Restorer<'_> {
    /// A series as the log names it.
    pub fn series(&mut self, reference: SeriesRef, labels: &Labels) {
        // The counter of references must stay below what the table can hold; zero is none.
        if labels.is_empty() || reference.0 == 0 || SERIES_REF_MAX - 1 <= reference.0 {
            self.stats.bad_series += 1;
            return;
        }
        self.ref_max = self.ref_max.max(reference.0);
        let shard = shard_of(labels, self.head.shard_count());
        let Some(Some(partition)) = self.partitions.get_mut(usize::from(shard.0)) else {
            self.places.insert(reference.0, Place::Elsewhere);
            return;
        };
        if let Some(before) = self.places.get(&reference.0) {
            // Said twice, as after a failed sync or a checkpoint. With other labels it would be another series.
            let known = partition.restored(labels);
            if !matches!((before, known), (Place::In(at, id), Some(same)) if *at == shard && *id == same) {
                self.stats.bad_series += 1;
            }
            return;
        }
        let sealed = partition.index.segments.len();
        let Some((id, first)) = partition.restore_series(reference, labels) else {
            self.stats.bad_series += 1;
            return;
        };
        if first == reference {
            self.stats.series += 1;
        } else {
            self.stats.aliases.insert(reference, first);
        }
        self.places.insert(reference.0, Place::In(shard, id));
        if sealed < partition.index.segments.len() {
            while let Some(job) = partition.merge_job() {
                partition.install(job.run());
            }
        }
    }

    /// A deleted range as the log names it.
    pub fn tombstone(&mut self, series: SeriesRef, interval: Interval) {
        match self.places.get(&series.0) {
            Some(Place::In(shard, id)) => {
                let partition = self.partitions.get(usize::from(shard.0)).and_then(Option::as_ref);
                if let Some(found) = partition.and_then(|partition| partition.table.get(*id)) {
                    let last_t = found.last().map(|(t, _)| t);
                    self.deletions.add(found.cell.series(), interval, last_t);
                }
            }
            Some(Place::Elsewhere) => {}
            None if series.0 < SERIES_REF_MAX - 1 => self.ref_max = self.ref_max.max(series.0),
            None => {}
        }
    }

    /// A sample as the log names it.
    #[inline]
    pub fn sample(&mut self, series: SeriesRef, t: i64, value: f64) {
        // Number 0 is before all commits, so every view sees the sample.
        self.append(series, t, |series, rules| series.append(t, value, CommitId(0), CommitId(0), rules));
    }

    /// A histogram as the log names it.
    pub fn histogram(&mut self, series: SeriesRef, t: i64, value: &HistogramValue) {
        if !is_sound(value) {
            self.stats.bad_histograms += 1;
            return;
        }
        self.append(series, t, |series, rules| series.append_histogram(t, value, CommitId(0), CommitId(0), rules));
    }

    /// The start of a sample, as the log names it.
    pub fn start(&mut self, series: SeriesRef, t: i64, start: i64) {
        let Some(Place::In(shard, id)) = self.places.get(&series.0).copied() else { return };
        let Some(Some(partition)) = self.partitions.get_mut(usize::from(shard.0)) else { return };
        if let Some(series) = partition.table.get(id).filter(|_| self.min_valid <= t) {
            partition.readers.starts.note(series.cell.series(), t, start);
        }
    }

    /// What the log says of a series; what it says later counts.
    pub fn metadata(&mut self, series: SeriesRef, metadata: &SeriesMetadata) {
        let (shard, id) = match self.places.get(&series.0) {
            Some(Place::In(shard, id)) => (*shard, *id),
            Some(Place::Elsewhere) => return,
            None => {
                self.stats.unknown_metadata_refs += 1;
                return;
            }
        };
        let shared = match self.metadata.get(metadata) {
            Some(shared) => Arc::clone(shared),
            None => {
                let shared = Arc::new(metadata.clone());
                self.metadata.insert(Arc::clone(&shared));
                shared
            }
        };
        let Some(Some(partition)) = self.partitions.get_mut(usize::from(shard.0)) else { return };
        if let Some(series) = partition.table.get(id) {
            let first = series.cell.series();
            partition.metadata.insert(first, shared);
        }
    }

    /// An exemplar as the log names it.
    pub fn exemplar(&mut self, exemplar: &RefExemplar) {
        self.exemplars.push(exemplar);
    }

    #[inline]
    fn append(&mut self, series: SeriesRef, t: i64, append: impl FnOnce(&mut WriterSeries, &CutRules) -> Appended) {
        let (shard, id) = match self.places.get(&series.0) {
            Some(Place::In(shard, id)) => (*shard, *id),
            Some(Place::Elsewhere) => return,
            None => {
                // One that no series can have is nobody's; it must not use up the references.
                if series.0 < SERIES_REF_MAX - 1 {
                    self.ref_max = self.ref_max.max(series.0);
                }
                // Samples of a series that is gone are all too old: a checkpoint has dropped its name before them.
                let count = if t < self.min_valid { &mut self.stats.too_old } else { &mut self.stats.unknown_refs };
                *count += 1;
                if self.min_valid <= t {
                    let (min, max) = self.stats.unknown_span.unwrap_or((t, t));
                    self.stats.unknown_span = Some((min.min(t), max.max(t)));
                }
                return;
            }
        };
        if t < self.min_valid {
            self.stats.too_old += 1;
            return;
        }
        let Some(Some(partition)) = self.partitions.get_mut(usize::from(shard.0)) else { return };
        let rules = self.head.shared.rules;
        let Some(series) = partition.table.get_mut(id) else { return };
        match append(series, &rules) {
            Appended::InChunk => {}
            Appended::NewChunk => self.chunks += 1,
            Appended::NotNewer => {
                self.stats.not_newer += 1;
                return;
            }
        }
        self.stats.samples += 1;
        self.span = (self.span.0.min(t), self.span.1.max(t));
    }

    /// Ends it: new series get references above all that were seen.
    pub fn finish(mut self) -> RestoreStats {
        let shared = &self.head.shared;
        let indexes = self.partitions.iter().flatten().map(|partition| &*partition.index);
        self.stats.unknown_exemplar_refs = self.exemplars.store(&shared.exemplars, &self.stats.aliases, indexes);
        shared.raise_next_ref(self.ref_max + 1);
        shared.deleted.add(self.deletions.into_ranges());
        if self.span.0 <= self.span.1 {
            shared.widen_span(self.span.0, self.span.1);
        }
        count(&shared.counters.chunks_created, self.chunks);
        self.stats
    }
}

fn is_sound(value: &HistogramValue) -> bool {
    match value {
        HistogramValue::Integer(h) => has_sound_layout(
            h.schema,
            [(&h.positive_spans, h.positive_buckets.len()), (&h.negative_spans, h.negative_buckets.len())],
        ),
        HistogramValue::Float(h) => has_sound_layout(
            h.schema,
            [(&h.positive_spans, h.positive_buckets.len()), (&h.negative_spans, h.negative_buckets.len())],
        ),
    }
}
