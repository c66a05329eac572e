//! What both versions of the protocol have in common: samples become a batch, series are looked up, and what is needed to
//! tell the sender about single series later is remembered.

use std::sync::Arc;

use crate::model::append::{
    AppendBatch, AppendExemplar, AppendMetadata, AppendReport, HistogramValue, SeriesHandle, SeriesKey,
};
use crate::model::exemplar::Exemplar;
use crate::model::labels::Labels;
use crate::model::metadata::SeriesMetadata;
use crate::model::time::TimestampMs;
use crate::remote::receive::budget::{Held, NoRoom};
use crate::remote::receive::cache::{CacheKey, Reader, SeriesCache};
use crate::remote::receive::histogram::histogram;
use crate::remote::receive::problems::{About, Place, Problems};
use crate::remote::receive::{AHEAD_MS_MAX, DecodeError, Extras, Lookup};

/// What a sample takes in a batch, in a shard's slice, among the staged ones and in a record.
const SAMPLE_BYTES: u64 = 160;
/// What a new series takes beside its labels.
const NEW_SERIES_BYTES: u64 = 256;
/// Samples that are paid for at a time.
const SAMPLES_PER_DRAW: usize = 256;

/// A series of which the batch has samples or histograms.
#[derive(Clone, Copy, Debug)]
struct Span {
    /// Its number in the request.
    series: u32,
    /// Its first sample, and its first histogram.
    sample: u32,
    histogram: u32,
    /// Where its message stands in the request.
    at: u32,
    len: u32,
}

/// A series that was not found in the cache, with its first sample or else its first histogram.
#[derive(Clone, Copy, Debug)]
enum Miss {
    Sample(u32, CacheKey),
    Histogram(u32, CacheKey),
}

/// A request that was read.
#[derive(Debug, Default)]
pub struct Decoded {
    /// What is to be stored.
    pub batch: AppendBatch,
    /// Of which these are float samples, also when the batch itself has been given away; the rest are histograms.
    samples_len: u32,
    pub(super) histograms_len: u32,
    /// Series whose labels are no good, and their samples.
    pub(super) invalid_series: u64,
    pub(super) invalid_samples: u64,
    /// Exemplars that were taken.
    pub(super) exemplars: u64,
    pub(super) problems: Problems,
    /// Samples and histograms that are too far ahead of the clock.
    future_samples: Vec<u32>,
    future_histograms: Vec<u32>,
    spans: Vec<Span>,
    /// The series of each exemplar of the batch: its number, and where its message stands.
    exemplar_series: Vec<(u32, u32, u32)>,
    misses: Vec<Miss>,
}

/// What a report says something about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    pub(super) place: Place,
    /// The message of its series.
    pub(super) message: &'a [u8],
    /// It is too far ahead of the clock.
    pub(super) is_future: bool,
}

impl Decoded {
    /// The sample, or histogram, with this number in the batch, in whose reports histograms are numbered behind samples.
    pub(super) fn subject<'a>(&self, index: u32, body: &'a [u8]) -> Subject<'a> {
        let (about, is_future, after) = match index.checked_sub(self.samples_len) {
            None => {
                let after = self.spans.partition_point(|span| span.sample <= index);
                (About::Samples, self.future_samples.binary_search(&index).is_ok(), after)
            }
            Some(histogram) => {
                let after = self.spans.partition_point(|span| span.histogram <= histogram);
                (About::Histograms, self.future_histograms.binary_search(&histogram).is_ok(), after)
            }
        };
        // Of several that begin there the last: the others have none of the kind.
        let span = after.checked_sub(1).and_then(|at| self.spans.get(at));
        let message = span.and_then(|span| body.get(span.at as usize..)?.get(..span.len as usize));
        let series = span.map_or(0, |span| span.series);
        Subject { place: (series, about), message: message.unwrap_or_default(), is_future }
    }

    /// The exemplar with this number among those of the batch.
    pub(super) fn exemplar<'a>(&self, index: u32, body: &'a [u8]) -> Subject<'a> {
        let (series, at, len) = self.exemplar_series.get(index as usize).copied().unwrap_or_default();
        let message = body.get(at as usize..).and_then(|rest| rest.get(..len as usize)).unwrap_or_default();
        Subject { place: (series, About::Exemplars), message, is_future: false }
    }

    /// Float samples in the batch, also when it has been given away.
    pub(super) fn batch_samples_len(&self) -> u64 {
        u64::from(self.samples_len)
    }

    /// True if the number in the batch is that of a histogram.
    pub(super) fn is_histogram(&self, index: u32) -> bool {
        self.samples_len <= index
    }

    /// Enters into the cache what storage says of series that were not found there. To be called only when the batch is
    /// stored; the head has `series_in_head`.
    pub fn enter(&self, cache: &SeriesCache, report: &AppendReport, series_in_head: u64) {
        if self.misses.is_empty() {
            return;
        }
        let handle_of = |index: u32| {
            let at = report.resolved.binary_search_by_key(&index, |(index, _)| *index).ok()?;
            report.resolved.get(at).map(|(_, handle)| *handle)
        };
        let found = self.misses.iter().filter_map(|miss| match miss {
            Miss::Sample(index, key) => Some((*key, handle_of(*index)?)),
            Miss::Histogram(index, key) => Some((*key, handle_of(self.samples_len + index)?)),
        });
        cache.enter(found, series_in_head);
    }
}

/// Collects a request.
pub struct Rows<'a> {
    cache: &'a SeriesCache,
    reader: Option<Reader<'a>>,
    held: &'a mut Held,
    extras: Extras,
    /// Later samples are too far ahead.
    max_t: i64,
    /// Of the series that is being read.
    points: Vec<(i64, f64)>,
    histograms: Vec<(i64, HistogramValue)>,
    /// Starts of these: the number of the sample, or of the histogram, in the series.
    point_starts: Vec<(usize, i64)>,
    histogram_starts: Vec<(usize, i64)>,
    metadata: Option<Arc<SeriesMetadata>>,
    /// Samples that are still paid for.
    paid: usize,
    /// Series that were closed or refused.
    series: u32,
    out: Decoded,
}

impl<'a> Rows<'a> {
    /// For a request of `len` bytes.
    pub(super) fn new(now: TimestampMs, lookup: Lookup<'a>, extras: Extras, held: &'a mut Held, len: usize) -> Self {
        let (cache, reader) = match lookup {
            Lookup::Cached(cache) => (cache, Some(cache.reader())),
            Lookup::ByLabels(cache) => (cache, None),
        };
        let mut out = Decoded::default();
        // A usual series has some hundred bytes of labels for each sample; what that takes is below what is paid for.
        out.batch.samples.reserve((len / 256).min(SAMPLES_PER_DRAW * 16));
        let max_t = now.0.saturating_add(AHEAD_MS_MAX);
        Self {
            cache,
            reader,
            held,
            extras,
            max_t,
            points: Vec::new(),
            histograms: Vec::new(),
            point_starts: Vec::new(),
            histogram_starts: Vec::new(),
            metadata: None,
            paid: 0,
            series: 0,
            out,
        }
    }

    pub(super) fn done(mut self) -> Result<Decoded, DecodeError> {
        self.out.samples_len = bound(self.out.batch.samples.len())?;
        self.out.histograms_len = bound(self.out.batch.histograms.len())?;
        bound(self.out.batch.len())?;
        Ok(self.out)
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

    /// A histogram of the series that is being read.
    pub(super) fn histogram(&mut self, message: &[u8]) -> Result<(), DecodeError> {
        // What it takes in memory is at most eight times its message: a packed delta has a byte and takes eight.
        self.held.add(SAMPLE_BYTES + 8 * message.len() as u64)?;
        let (t, start, histogram) = histogram(message)?;
        if start != 0 && self.extras.starts {
            self.histogram_starts.push((self.histograms.len(), start));
        }
        self.histograms.push((t, histogram));
        Ok(())
    }

    /// When the sample that was read last began to count; 0 if that is not said.
    #[inline]
    pub(super) fn started(&mut self, start: i64) {
        if start != 0 && self.extras.starts {
            self.point_starts.push((self.points.len().saturating_sub(1), start));
        }
    }

    /// Samples and histograms read of the series so far.
    pub(super) fn read_len(&self) -> usize {
        self.points.len() + self.histograms.len()
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
            self.out.misses.push(Miss::Sample(bound(self.out.batch.samples.len())?, key));
        } else if !self.histograms.is_empty() {
            self.out.misses.push(Miss::Histogram(bound(self.out.batch.histograms.len())?, key));
        }
        self.close(&SeriesKey::Labels(labels), at, len)
    }

    /// The series is refused for its labels, with its samples.
    pub(super) fn refuse(&mut self, problem: impl FnOnce() -> String) {
        self.out.invalid_series += 1;
        self.out.invalid_samples += self.read_len() as u64;
        self.leave_out(problem);
    }

    /// The series is not stored for another reason.
    pub(super) fn leave_out(&mut self, problem: impl FnOnce() -> String) {
        self.points.clear();
        self.histograms.clear();
        self.point_starts.clear();
        self.histogram_starts.clear();
        self.metadata = None;
        self.out.problems.add((self.series, About::Labels), problem);
        self.series += 1;
    }

    /// Something is wrong with an exemplar of the series that was closed last.
    pub(super) fn bad_exemplar(&mut self, problem: impl FnOnce() -> String) {
        self.out.problems.add((self.series.saturating_sub(1), About::Exemplars), problem);
    }

    /// What is said of the series that is being read, if that is wanted.
    pub(super) fn describe(&mut self, make: impl FnOnce() -> SeriesMetadata) -> Result<(), DecodeError> {
        if self.extras.metadata {
            let metadata = make();
            self.held.add(SAMPLE_BYTES + (metadata.help.len() + metadata.unit.len()) as u64)?;
            self.metadata = Some(Arc::new(metadata));
        }
        Ok(())
    }

    /// True if exemplars are to be given to [`Self::exemplar`]; else they are counted.
    pub(super) fn keeps_exemplars(&self) -> bool {
        self.extras.exemplars
    }

    pub(super) fn count_exemplars(&mut self, count: u64) {
        self.out.exemplars += count;
    }

    /// An exemplar of the series that was closed last, which has these labels and whose message stands at `at`.
    pub(super) fn exemplar(
        &mut self,
        labels: &Labels,
        exemplar: Exemplar,
        at: usize,
        len: usize,
    ) -> Result<(), DecodeError> {
        self.held.add(SAMPLE_BYTES + exemplar.labels.encoded_len() as u64)?;
        let number = self.series.saturating_sub(1);
        self.out.exemplar_series.push((number, bound(at)?, bound(len)?));
        self.out.batch.exemplars.push(AppendExemplar { series: labels.clone(), exemplar });
        Ok(())
    }

    pub(super) fn is_future(&self, t: i64) -> bool {
        self.max_t < t
    }

    #[inline]
    fn close(&mut self, series: &SeriesKey, at: usize, len: usize) -> Result<(), DecodeError> {
        let number = self.series;
        self.series += 1;
        let metadata = self.metadata.take();
        if self.points.is_empty() && self.histograms.is_empty() {
            return Ok(());
        }
        let batch = &mut self.out.batch;
        batch.metadata.extend(metadata.map(|metadata| AppendMetadata { series: series.clone(), metadata }));
        let (first, first_histogram) = (bound(batch.samples.len())?, bound(batch.histograms.len())?);
        bound(batch.len() + self.points.len() + self.histograms.len())?;
        let (at, len) = (bound(at)?, bound(len)?);
        self.out.spans.push(Span { series: number, sample: first, histogram: first_histogram, at, len });
        for (index, start) in self.point_starts.drain(..) {
            batch.starts.samples.push((bound(first as usize + index)?, start));
        }
        for (index, start) in self.histogram_starts.drain(..) {
            batch.starts.histograms.push((bound(first_histogram as usize + index)?, start));
        }
        for (index, (t, value)) in (first..).zip(self.points.drain(..)) {
            if self.max_t < t {
                self.out.future_samples.push(index);
            }
            batch.push_float(series.clone(), TimestampMs(t), value);
        }
        for (index, (t, value)) in (first_histogram..).zip(self.histograms.drain(..)) {
            if self.max_t < t {
                self.out.future_histograms.push(index);
            }
            batch.push_histogram(series.clone(), TimestampMs(t), value);
        }
        Ok(())
    }
}

fn bound(n: usize) -> Result<u32, DecodeError> {
    u32::try_from(n).map_err(|_| DecodeError::TooMany)
}
