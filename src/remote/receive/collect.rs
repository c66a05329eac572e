//! What both versions of the protocol have in common: samples become a batch, series are looked up, and what is needed to
//! tell the sender about single series later is remembered.

use crate::model::append::{AppendBatch, AppendReport, AppendSample, SeriesHandle, SeriesKey};
use crate::model::labels::Labels;
use crate::model::time::TimestampMs;
use crate::remote::receive::budget::{Held, NoRoom};
use crate::remote::receive::cache::{CacheKey, Reader, SeriesCache};
use crate::remote::receive::problems::Problems;
use crate::remote::receive::{AHEAD_MS_MAX, DecodeError, Lookup};

/// What a sample takes in a batch, in a shard's slice, among the staged ones and in a record.
const SAMPLE_BYTES: u64 = 160;
/// What a new series takes beside its labels.
const NEW_SERIES_BYTES: u64 = 256;
/// Samples that are paid for at a time.
const SAMPLES_PER_DRAW: usize = 256;

/// A series of which the batch has samples.
#[derive(Clone, Copy, Debug)]
struct Span {
    /// Its first sample.
    first: u32,
    /// Where its message stands in the request.
    at: u32,
    len: u32,
}

/// A request that was read.
#[derive(Debug, Default)]
pub struct Decoded {
    /// What is to be stored.
    pub batch: AppendBatch,
    /// Series whose labels are no good, and their samples.
    pub(super) invalid_series: u64,
    pub(super) invalid_samples: u64,
    /// Exemplars that were taken.
    pub(super) exemplars: u64,
    /// Native histograms, which are refused.
    pub(super) histograms: u64,
    pub(super) problems: Problems,
    /// Samples that are too far ahead of the clock.
    future: Vec<u32>,
    spans: Vec<Span>,
    misses: Vec<(u32, CacheKey)>,
}

impl Decoded {
    /// Samples in the batch, also when the batch itself has been given away.
    pub(super) fn is_future(&self, sample: u32) -> bool {
        self.future.binary_search(&sample).is_ok()
    }

    /// The message of the series that a sample belongs to.
    pub(super) fn message_of<'a>(&self, sample: u32, body: &'a [u8]) -> &'a [u8] {
        let after = self.spans.partition_point(|span| span.first <= sample);
        let Some(span) = after.checked_sub(1).and_then(|at| self.spans.get(at)) else { return &[] };
        body.get(span.at as usize..).and_then(|rest| rest.get(..span.len as usize)).unwrap_or_default()
    }

    /// Enters into the cache what storage says of series that were not found there. To be called only when the batch is
    /// stored; the head has `series_in_head`.
    pub fn enter(&self, cache: &SeriesCache, report: &AppendReport, series_in_head: u64) {
        if self.misses.is_empty() {
            return;
        }
        let handle_of = |sample: u32| {
            let at = report.resolved.binary_search_by_key(&sample, |(index, _)| *index).ok()?;
            report.resolved.get(at).map(|(_, handle)| *handle)
        };
        let found = self.misses.iter().filter_map(|(sample, key)| Some((*key, handle_of(*sample)?)));
        cache.enter(found, series_in_head);
    }
}

/// Collects a request.
pub struct Rows<'a> {
    cache: &'a SeriesCache,
    reader: Option<Reader<'a>>,
    held: &'a mut Held,
    /// Later samples are too far ahead.
    max_t: i64,
    /// Of the series that is being read.
    points: Vec<(i64, f64)>,
    /// Samples that are still paid for.
    paid: usize,
    out: Decoded,
}

impl<'a> Rows<'a> {
    /// For a request of `len` bytes.
    pub(super) fn new(now: TimestampMs, lookup: Lookup<'a>, held: &'a mut Held, len: usize) -> Self {
        let (cache, reader) = match lookup {
            Lookup::Cached(cache) => (cache, Some(cache.reader())),
            Lookup::ByLabels(cache) => (cache, None),
        };
        let mut out = Decoded::default();
        // A usual series has some hundred bytes of labels for each sample; what that takes is below what is paid for.
        out.batch.samples.reserve((len / 256).min(SAMPLES_PER_DRAW * 16));
        let max_t = now.0.saturating_add(AHEAD_MS_MAX);
        Self { cache, reader, held, max_t, points: Vec::new(), paid: 0, out }
    }

    pub(super) fn done(self) -> Decoded {
        self.out
    }

    pub(super) fn cache(&self) -> &'a SeriesCache {
        self.cache
    }

    /// Pays for something else than samples.
    pub(super) fn pay(&mut self, bytes: u64) -> Result<(), NoRoom> {
        self.held.add(bytes)
    }

    /// The series with this key, if it was written before.
    #[inline]
    pub(super) fn find(&mut self, key: CacheKey) -> Option<SeriesHandle> {
        self.reader.as_mut()?.find(key)
    }

    /// A sample of the series that is being read.
    #[inline]
    pub(super) fn point(&mut self, t: i64, value: f64) -> Result<(), DecodeError> {
        if self.paid == 0 {
            self.held.add(SAMPLE_BYTES * SAMPLES_PER_DRAW as u64)?;
            self.paid = SAMPLES_PER_DRAW;
        }
        self.paid -= 1;
        self.points.push((t, value));
        Ok(())
    }

    /// Samples read of the series so far.
    pub(super) fn points_len(&self) -> usize {
        self.points.len()
    }

    /// The series is one that was written before; its message stands at `at`.
    #[inline]
    pub(super) fn known(&mut self, series: SeriesHandle, at: usize, len: usize) -> Result<(), DecodeError> {
        self.close(&SeriesKey::Known(series), at, len)
    }

    /// The series has these labels and was not found.
    pub(super) fn unknown(&mut self, labels: Labels, key: CacheKey, at: usize, len: usize) -> Result<(), DecodeError> {
        self.held.add(labels.encoded_len() as u64 + NEW_SERIES_BYTES)?;
        if !self.points.is_empty() {
            self.out.misses.push((self.place()?, key));
        }
        self.close(&SeriesKey::Labels(labels), at, len)
    }

    /// The series is refused.
    pub(super) fn refuse(&mut self, samples: usize, problem: impl FnOnce() -> String) -> Result<(), DecodeError> {
        self.out.invalid_series += 1;
        self.out.invalid_samples += samples as u64;
        self.points.clear();
        self.problem(problem)
    }

    /// Something is wrong with the series, which is not refused for it.
    pub(super) fn problem(&mut self, problem: impl FnOnce() -> String) -> Result<(), DecodeError> {
        let place = self.place()?;
        self.out.problems.add(place, problem);
        Ok(())
    }

    pub(super) fn count_exemplars(&mut self, count: u64) {
        self.out.exemplars += count;
    }

    pub(super) fn count_histograms(&mut self, count: u64) {
        self.out.histograms += count;
    }

    pub(super) fn is_future(&self, t: i64) -> bool {
        self.max_t < t
    }

    /// Number of the next sample.
    fn place(&self) -> Result<u32, DecodeError> {
        u32::try_from(self.out.batch.samples.len()).map_err(|_| DecodeError::TooMany)
    }

    #[inline]
    fn close(&mut self, series: &SeriesKey, at: usize, len: usize) -> Result<(), DecodeError> {
        if self.points.is_empty() {
            return Ok(());
        }
        let first = self.place()?;
        let bound = |n: usize| u32::try_from(n).map_err(|_| DecodeError::TooMany);
        bound(self.out.batch.samples.len() + self.points.len())?;
        self.out.spans.push(Span { first, at: bound(at)?, len: bound(len)? });
        for (index, (t, value)) in (first..).zip(self.points.drain(..)) {
            if self.max_t < t {
                self.out.future.push(index);
            }
            self.out.batch.samples.push(AppendSample { series: series.clone(), at: TimestampMs(t), value });
        }
        Ok(())
    }
}
