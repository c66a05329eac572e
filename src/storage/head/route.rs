//! Parts a batch by shard. The shard of a series is a pure function of its labels, so the usual scrape goes to one shard.

use std::sync::Arc;

use twox_hash::XxHash64;

use crate::model::append::{AppendBatch, AppendSample, HistogramValue, LateSamples, SeriesKey, ShardId};
use crate::model::exemplar::Exemplar;
use crate::model::labels::{INSTANCE, JOB, Labels};
use crate::model::metadata::SeriesMetadata;
use crate::model::sample::SeriesRef;
use crate::model::time::TimestampMs;

/// Most samples in one slice: what a shard stages or applies in one go.
pub const SLICE_LEN_MAX: usize = 4096;

/// Samples of one batch for one shard, at most [`SLICE_LEN_MAX`], in the batch's order.
#[derive(Debug, Default)]
pub struct Slice {
    /// All samples of a batch of which every series is known, as they came: the usual scrape. Their place is their index.
    pub(crate) known: Vec<AppendSample>,
    pub(crate) samples: Vec<RoutedSample>,
    /// Applied after the samples.
    pub(crate) histograms: Vec<RoutedHistogram>,
    /// Looked at after both.
    pub(crate) exemplars: Vec<RoutedExemplar>,
    /// Looked at last.
    pub(crate) metadata: Vec<(RoutedKey, Arc<SeriesMetadata>)>,
    /// What becomes of samples that are older than the newest of their series.
    pub(crate) late: LateSamples,
    /// Start times of some samples and of some histograms, by their place in the slice.
    pub(crate) sample_starts: Vec<(u32, i64)>,
    pub(crate) histogram_starts: Vec<(u32, i64)>,
}

/// A sample with its place in the batch, and the hash of its labels where it has them.
#[derive(Debug)]
pub(crate) struct RoutedSample {
    pub(crate) index: u32,
    pub(crate) at: TimestampMs,
    pub(crate) value: f64,
    pub(crate) key: RoutedKey,
}

/// A histogram with its place in the batch, behind the samples.
#[derive(Debug)]
pub(crate) struct RoutedHistogram {
    pub(crate) index: u32,
    pub(crate) at: TimestampMs,
    pub(crate) value: HistogramValue,
    pub(crate) key: RoutedKey,
}

/// An exemplar with its place among those of the batch.
#[derive(Debug)]
pub(crate) struct RoutedExemplar {
    pub(crate) index: u32,
    pub(crate) series: Labels,
    pub(crate) hash: u64,
    pub(crate) exemplar: Exemplar,
}

#[derive(Clone, Debug)]
pub(crate) enum RoutedKey {
    Known(SeriesRef),
    Labels(Labels, u64),
}

impl From<SeriesKey> for RoutedKey {
    fn from(key: SeriesKey) -> Self {
        match key {
            SeriesKey::Known(handle) => Self::Known(handle.series),
            SeriesKey::Labels(labels) => {
                let hash = labels.hash64();
                Self::Labels(labels, hash)
            }
        }
    }
}

impl Slice {
    /// Number of samples, exemplars and metadata.
    pub fn len(&self) -> usize {
        self.known.len() + self.samples.len() + self.histograms.len() + self.exemplars.len() + self.metadata.len()
    }

    /// True if there is nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True for the usual scrape: nothing but samples of series that were known.
    pub fn is_usual(&self) -> bool {
        !self.known.is_empty() && self.len() == self.known.len()
    }

    /// Indexes of the samples in their batch.
    pub fn indexes(&self) -> impl Iterator<Item = u32> + '_ {
        let known = (0..).zip(&self.known).map(|(index, _)| index);
        known.chain(self.samples.iter().map(|s| s.index)).chain(self.histograms.iter().map(|h| h.index))
    }
}

/// The shard among `shards` that holds the series with these labels: by the values of `job` and `instance` where it has
/// either, else by the whole set.
pub fn shard_of(labels: &Labels, shards: u16) -> ShardId {
    shard_of_hashed(labels, None, shards)
}

/// Parts `batch` by shard, and into slices of at most [`SLICE_LEN_MAX`]. A shard's slices are in the batch's order.
pub(crate) fn route(mut batch: AppendBatch, shards: u16) -> Vec<(ShardId, Slice)> {
    let known = whole_slice(&batch, shards).map(|shard| (shard, std::mem::take(&mut batch.samples)));
    let expected = batch.samples.len().min(SLICE_LEN_MAX);
    let (open, late) = (vec![None; usize::from(shards)], batch.late);
    let mut router = Router { shards, open, slices: Vec::new(), expected, late };
    let mut index = 0;
    if let Some((shard, known)) = known {
        index = place(known.len());
        router.open_slice(shard).known = known;
    }
    let mut starts = StartsOf(batch.starts.samples.into_iter().peekable());
    for sample in batch.samples {
        let (slice, key) = router.slice_of(sample.series);
        if let Some(start) = starts.of(index) {
            slice.sample_starts.push((place(slice.samples.len()), start));
        }
        slice.samples.push(RoutedSample { index, at: sample.at, value: sample.value, key });
        index += 1;
    }
    let (mut starts, before) = (StartsOf(batch.starts.histograms.into_iter().peekable()), index);
    for histogram in batch.histograms {
        let (slice, key) = router.slice_of(histogram.series);
        if let Some(start) = starts.of(index - before) {
            slice.histogram_starts.push((place(slice.histograms.len()), start));
        }
        slice.histograms.push(RoutedHistogram { index, at: histogram.at, value: histogram.value, key });
        index += 1;
    }
    for (index, one) in (0..).zip(batch.exemplars) {
        let hash = one.series.hash64();
        let shard = shard_of_hashed(&one.series, Some(hash), shards);
        let exemplar = RoutedExemplar { index, series: one.series, hash, exemplar: one.exemplar };
        router.open_slice(shard).exemplars.push(exemplar);
    }
    for one in batch.metadata {
        let (slice, key) = router.slice_of(one.series);
        slice.metadata.push((key, one.metadata));
    }
    router.slices
}

/// The shard of all samples, if they fit one slice as they are.
fn whole_slice(batch: &AppendBatch, shards: u16) -> Option<ShardId> {
    let SeriesKey::Known(first) = &batch.samples.first()?.series else { return None };
    let fits = batch.samples.len() <= SLICE_LEN_MAX && batch.starts.samples.is_empty() && first.shard.0 < shards;
    let is_there = |sample: &AppendSample| matches!(&sample.series, SeriesKey::Known(it) if it.shard == first.shard);
    (fits && batch.samples.iter().all(is_there)).then_some(first.shard)
}

/// Start times by ascending number of their sample.
pub(super) struct StartsOf(pub(super) std::iter::Peekable<std::vec::IntoIter<(u32, i64)>>);

impl StartsOf {
    /// That of sample `index`, which is higher than in the call before.
    #[inline]
    pub(super) fn of(&mut self, index: u32) -> Option<i64> {
        self.0.next_if(|(at, _)| *at == index).map(|(_, start)| start)
    }
}

/// A place in a slice, which has at most [`SLICE_LEN_MAX`].
pub(super) fn place(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

struct Router {
    shards: u16,
    /// Where each shard's open slice stands in `slices`.
    open: Vec<Option<usize>>,
    slices: Vec<(ShardId, Slice)>,
    /// Samples that the first slice makes room for.
    expected: usize,
    late: LateSamples,
}

impl Router {
    /// The open slice of the shard of a series.
    #[inline]
    fn slice_of(&mut self, series: SeriesKey) -> (&mut Slice, RoutedKey) {
        let (shard, key) = match series {
            // A handle of a shard that does not exist finds no series in any shard.
            SeriesKey::Known(handle) => (ShardId(handle.shard.0.min(self.shards - 1)), RoutedKey::Known(handle.series)),
            SeriesKey::Labels(labels) => {
                let hash = labels.hash64();
                (shard_of_hashed(&labels, Some(hash), self.shards), RoutedKey::Labels(labels, hash))
            }
        };
        (self.open_slice(shard), key)
    }

    #[inline]
    fn open_slice(&mut self, shard: ShardId) -> &mut Slice {
        let slot = &mut self.open[usize::from(shard.0)];
        let at = match *slot {
            Some(at) if self.slices[at].1.len() < SLICE_LEN_MAX => at,
            _ => {
                let room = if self.slices.is_empty() { self.expected } else { 0 };
                let samples = Vec::with_capacity(room);
                self.slices.push((shard, Slice { samples, late: self.late, ..Slice::default() }));
                *slot = Some(self.slices.len() - 1);
                self.slices.len() - 1
            }
        };
        &mut self.slices[at].1
    }
}

fn shard_of_hashed(labels: &Labels, hash: Option<u64>, shards: u16) -> ShardId {
    if shards <= 1 {
        return ShardId(0);
    }
    let hash = match (labels.get(JOB), labels.get(INSTANCE)) {
        (None, None) => hash.unwrap_or_else(|| labels.hash64()),
        (job, instance) => {
            let seed = XxHash64::oneshot(0, job.unwrap_or("").as_bytes());
            XxHash64::oneshot(seed, instance.unwrap_or("").as_bytes())
        }
    };
    // The remainder is below a `u16`.
    ShardId((hash % u64::from(shards)) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::append::{AppendExemplar, SeriesHandle};
    use crate::model::exemplar::Exemplar;

    fn labels(name: &str, job: &str, instance: &str) -> Labels {
        Labels::from_pairs([("__name__", name), ("job", job), ("instance", instance)])
    }

    #[test]
    fn a_target_has_one_shard_and_targets_spread() {
        let of = |name: &str, i: u32| shard_of(&labels(name, "node", &format!("host-{i}:9100")), 4);
        let used: std::collections::BTreeSet<ShardId> = (0..100).map(|i| of("up", i)).collect();
        assert_eq!(used.len(), 4);
        for i in 0..100 {
            assert_eq!(of("up", i), of("node_load1", i));
        }
        let bare: std::collections::BTreeSet<ShardId> =
            (0..100).map(|i| shard_of(&Labels::from_pairs([("a", i.to_string())]), 4)).collect();
        assert_eq!(bare.len(), 4);
    }

    #[test]
    fn slices_are_bounded_and_keep_their_order() {
        let known = SeriesHandle { series: SeriesRef(7), shard: ShardId(1) };
        let sample = |i: usize| AppendSample {
            series: if i.is_multiple_of(2) {
                SeriesKey::Known(known)
            } else {
                SeriesKey::Labels(labels("up", "a", &i.to_string()))
            },
            at: TimestampMs(i as i64),
            value: 0.0,
        };
        let batch = AppendBatch::of_floats((0..20_000).map(sample).collect());
        let slices = route(batch, 2);
        assert!(slices.iter().all(|(_, s)| !s.is_empty() && s.len() <= SLICE_LEN_MAX));
        for shard in [ShardId(0), ShardId(1)] {
            let of_shard: Vec<u32> =
                slices.iter().filter(|(s, _)| *s == shard).flat_map(|(_, s)| s.indexes()).collect();
            assert!(of_shard.is_sorted() && of_shard.len() > 4096);
        }
        assert_eq!(slices.iter().map(|(_, s)| s.len()).sum::<usize>(), 20_000);
    }

    #[test]
    fn a_batch_of_known_series_of_one_shard_stays_whole() {
        let known = |series: u64, shard: u16| {
            SeriesKey::Known(SeriesHandle { series: SeriesRef(series), shard: ShardId(shard) })
        };
        let sample = |series: SeriesKey| AppendSample { series, at: TimestampMs(5), value: 1.0 };
        let indexes = |slices: &[(ShardId, Slice)]| -> Vec<(u16, usize, Vec<u32>)> {
            slices.iter().map(|(shard, slice)| (shard.0, slice.known.len(), slice.indexes().collect())).collect()
        };
        let whole = AppendBatch::of_floats((1..4).map(|series| sample(known(series, 1))).collect());
        assert_eq!(indexes(&route(whole.clone(), 2)), [(1, 3, vec![0, 1, 2])]);
        // What comes beside the samples goes to the slice of its shard, with the index that it would have.
        let series = labels("up", "a", "b");
        let shard = shard_of(&series, 2);
        let exemplar = Exemplar { labels: Labels::default(), value: 1.0, at: TimestampMs(5), has_time: true };
        let beside = AppendBatch { exemplars: vec![AppendExemplar { series, exemplar }], ..whole.clone() };
        let slices = route(beside, 2);
        assert_eq!(slices.iter().map(|(_, slice)| slice.known.len()).sum::<usize>(), 3);
        let with_exemplar = slices.iter().find(|(_, slice)| !slice.exemplars.is_empty()).unwrap();
        assert_eq!((with_exemplar.0, with_exemplar.1.exemplars[0].index), (shard, 0));

        let mut mixed = whole.clone();
        mixed.samples.push(sample(known(4, 0)));
        assert_eq!(indexes(&route(mixed, 2)), [(1, 0, vec![0, 1, 2]), (0, 0, vec![3])]);
        let mut new = whole.clone();
        new.samples.push(sample(SeriesKey::Labels(labels("up", "a", "b"))));
        assert!(route(new, 2).iter().all(|(_, slice)| slice.known.is_empty()));
        let mut started = whole;
        started.starts.samples.push((1, 3));
        let slices = route(started, 2);
        assert_eq!((indexes(&slices), slices[0].1.sample_starts.clone()), (vec![(1, 0, vec![0, 1, 2])], vec![(1, 3)]));
        let long = AppendBatch::of_floats((0..=SLICE_LEN_MAX as u64).map(|series| sample(known(series, 0))).collect());
        let slices = route(long, 1);
        assert_eq!(
            slices.iter().map(|(_, s)| (s.known.len(), s.len())).collect::<Vec<_>>(),
            [(0, SLICE_LEN_MAX), (0, 1)]
        );
    }
}
