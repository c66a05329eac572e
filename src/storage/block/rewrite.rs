//! Chunks that are decoded and written anew: without some of their samples, or several merged to one run.

use crate::model::histogram::{CounterResetHint, FloatHistogram, Histogram};
use crate::model::read::SampleColumn;
use crate::storage::block::chunks::ChunkData;
use crate::storage::chunk::decode::ChunkDecoder;
use crate::storage::chunk::histogram::Native;
use crate::storage::chunk::histogram::decode::HistogramDecoder;
use crate::storage::chunk::histogram::encode::{EncodedChunk, encode_chunks};
use crate::storage::chunk::histogram::starts::{STARTED_SAMPLES_MAX, with_starts as histogram_starts};
use crate::storage::chunk::xor2::{StartedSample, encode_xor2};
use crate::storage::chunk::{ChunkError, Encoding, encode_xor};

/// Samples of a chunk that is merged of others.
pub(crate) const MERGED_SAMPLES: u16 = 120;

/// A sample of any kind.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// A float.
    Float(f64),
    /// A histogram with whole counts.
    Whole(Box<Histogram>),
    /// A histogram with float counts.
    FloatHistogram(Box<FloatHistogram>),
}

impl Value {
    fn encoding(&self) -> Encoding {
        match self {
            Self::Float(_) => Encoding::Xor,
            Self::Whole(_) => Encoding::Histogram,
            Self::FloatHistogram(_) => Encoding::FloatHistogram,
        }
    }

    /// True if chunks of this encoding hold such values.
    pub(crate) fn is_of(&self, encoding: Encoding) -> bool {
        self.encoding().with_starts() == encoding.with_starts()
    }

    /// Forgets what it says of the sample before it.
    fn cut_off(&mut self) {
        let hint = match self {
            Self::Float(_) => return,
            Self::Whole(histogram) => &mut histogram.counter_reset_hint,
            Self::FloatHistogram(histogram) => &mut histogram.counter_reset_hint,
        };
        if *hint != CounterResetHint::Gauge {
            *hint = CounterResetHint::Unknown;
        }
    }
}

/// A sample of any kind with its start, which is 0 where it is not known.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) t: i64,
    pub(crate) start: i64,
    pub(crate) value: Value,
}

/// The samples of a chunk.
pub(crate) fn decode(encoding: Encoding, data: &[u8]) -> Result<Vec<Sample>, ChunkError> {
    fn natives<H: Native>(
        mut decoder: HistogramDecoder<'_, [u8], H>,
        of: impl Fn(Box<H>) -> Value,
    ) -> Result<Vec<Sample>, ChunkError> {
        let mut samples = Vec::new();
        while let Some(t) = decoder.advance()? {
            samples.push(Sample { t, start: decoder.start(), value: of(Box::new(decoder.histogram())) });
        }
        Ok(samples)
    }
    match ChunkDecoder::of_chunk(encoding, data)? {
        ChunkDecoder::Floats(mut decoder) => {
            let mut samples = Vec::new();
            while let Some((t, value)) = decoder.next_sample()? {
                samples.push(Sample { t, start: 0, value: Value::Float(value) });
            }
            Ok(samples)
        }
        ChunkDecoder::StartedFloats(mut decoder) => {
            let mut samples = Vec::new();
            while let Some(StartedSample { t, start, value }) = decoder.next_sample()? {
                samples.push(Sample { t, start, value: Value::Float(value) });
            }
            Ok(samples)
        }
        ChunkDecoder::Histograms(decoder) => natives(*decoder, Value::Whole),
        ChunkDecoder::FloatHistograms(decoder) => natives(*decoder, Value::FloatHistogram),
    }
}

/// Whether chunks have room for start times.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Starts {
    /// They have.
    Kept,
    /// They have not.
    None,
    /// Those of samples with a start have, as in Prometheus's merges; those of floats all if that is said.
    Needed { floats: bool },
}

impl Starts {
    /// As the chunks have it that are rewritten.
    pub(crate) fn of(encodings: impl IntoIterator<Item = Encoding>) -> Self {
        let has_some = encodings.into_iter().any(|encoding| encoding == encoding.with_starts());
        if has_some { Self::Kept } else { Self::None }
    }

    /// Whether the next chunk of floats has them, and how many of the floats it takes. Without room for them it ends where one comes.
    fn of_floats(self, floats: &[(i64, f64)], split: u16, start_of: impl Fn(i64) -> i64) -> (bool, usize) {
        let len = floats.len().min(usize::from(split));
        let has_start = |(t, _): &(i64, f64)| start_of(*t) != 0;
        match self {
            Self::Kept => (true, len),
            Self::None => (false, len),
            Self::Needed { floats: true } => (true, len),
            Self::Needed { .. } if floats.first().is_some_and(has_start) => (true, len),
            Self::Needed { .. } => (false, floats.iter().take(len).position(has_start).unwrap_or(len)),
        }
    }

    /// Of chunks of histograms, which have a start all or none.
    fn of_histograms(self, has_start: bool) -> Self {
        match self {
            Self::Needed { .. } if has_start => Self::Kept,
            Self::Needed { .. } => Self::None,
            other => other,
        }
    }
}

/// Chunks of these samples: another one where the kind changes, and after `split` samples.
pub(crate) fn encode(
    samples: Vec<Sample>,
    split: u16,
    kept: Starts,
    out: &mut Vec<ChunkData>,
) -> Result<(), ChunkError> {
    let split = if kept == Starts::Kept { split.min(STARTED_SAMPLES_MAX) } else { split };
    let mut samples = samples.into_iter().peekable();
    while let Some(first) = samples.peek() {
        let (encoding, has_start) = (first.value.encoding(), first.start != 0);
        // A chunk of histograms begins anew where starts begin or end, if they are kept where they are needed.
        let goes_on = |sample: &Sample| {
            let parts = matches!(kept, Starts::Needed { .. }) && encoding != Encoding::Xor;
            sample.value.encoding() == encoding && (!parts || (sample.start != 0) == has_start)
        };
        let (mut floats, mut wholes, mut float_histograms) = (Vec::new(), Vec::new(), Vec::new());
        let mut starts: Vec<(i64, i64)> = Vec::new();
        while let Some(Sample { t, start, value }) = samples.next_if(goes_on) {
            starts.push((t, start));
            match value {
                Value::Float(value) => floats.push((t, value)),
                Value::Whole(histogram) => wholes.push((t, *histogram)),
                Value::FloatHistogram(histogram) => float_histograms.push((t, *histogram)),
            }
        }
        let start_of = |t: i64| {
            let at = starts.binary_search_by_key(&t, |(t, _)| *t).ok();
            at.and_then(|at| starts.get(at)).map_or(0, |(_, start)| *start)
        };
        let mut rest = &floats[..];
        while !rest.is_empty() {
            let (has_starts, len) = kept.of_floats(rest, split, start_of);
            let Some((part, behind)) = rest.split_at_checked(len) else { break };
            rest = behind;
            let (Some((min_t, _)), Some((max_t, _))) = (part.first(), part.last()) else { break };
            let (encoding, data) = if has_starts {
                let started = |(t, value): &(i64, f64)| StartedSample { t: *t, start: start_of(*t), value: *value };
                (Encoding::Xor2, encode_xor2(&part.iter().map(started).collect::<Vec<_>>()))
            } else {
                (encoding, encode_xor(part))
            };
            out.push(ChunkData { min_t: *min_t, max_t: *max_t, encoding: encoding.id(), data });
        }
        let kept = kept.of_histograms(has_start);
        for chunk in encode_chunks(&wholes, split) {
            let started = |data: &[u8]| histogram_starts::<Histogram>(data, start_of);
            out.push(native_chunk(chunk, encoding, kept, started)?);
        }
        for chunk in encode_chunks(&float_histograms, split) {
            let started = |data: &[u8]| histogram_starts::<FloatHistogram>(data, start_of);
            out.push(native_chunk(chunk, encoding, kept, started)?);
        }
    }
    Ok(())
}

/// A chunk of histograms, to which `started` gives room for start times where they are kept.
fn native_chunk(
    chunk: EncodedChunk,
    encoding: Encoding,
    kept: Starts,
    started: impl FnOnce(&[u8]) -> Result<Vec<u8>, ChunkError>,
) -> Result<ChunkData, ChunkError> {
    let (encoding, data) = match kept {
        Starts::Kept => (encoding.with_starts(), started(&chunk.data)?),
        Starts::None | Starts::Needed { .. } => (encoding, chunk.data),
    };
    Ok(ChunkData { min_t: chunk.min_t, max_t: chunk.max_t, encoding: encoding.id(), data })
}

/// All samples of a column as chunks; histograms whose counts are whole are written as such.
pub(crate) fn of_column(column: &SampleColumn) -> Result<Vec<ChunkData>, ChunkError> {
    let mut floats = column.floats.timestamps.iter().copied().zip(column.floats.values.iter().copied()).peekable();
    let mut histograms = column.histograms.timestamps.iter().copied().zip(&column.histograms.values).peekable();
    let mut samples = Vec::with_capacity(column.len());
    loop {
        let takes_float = match (floats.peek(), histograms.peek()) {
            (Some((float, _)), Some((histogram, _))) => float <= histogram,
            (float, _) => float.is_some(),
        };
        let next = if takes_float {
            floats.next().map(|(t, value)| Sample { t, start: 0, value: Value::Float(value) })
        } else {
            let native = |value: &FloatHistogram| match Histogram::of_whole(value) {
                Some(whole) => Value::Whole(Box::new(whole)),
                None => Value::FloatHistogram(Box::new(value.clone())),
            };
            histograms.next().map(|(t, value)| Sample { t, start: 0, value: native(value) })
        };
        let Some(sample) = next else { break };
        samples.push(sample);
    }
    let mut out = Vec::new();
    encode(samples, MERGED_SAMPLES, Starts::None, &mut out)?;
    Ok(out)
}

/// What is left of a chunk without the samples at some times: one chunk, or none; more if what is left does not fit together.
pub(crate) fn without(
    encoding: Encoding,
    data: &[u8],
    drops: impl Fn(i64) -> bool,
) -> Result<Vec<ChunkData>, ChunkError> {
    let mut samples = decode(encoding, data)?;
    samples.retain(|sample| !drops(sample.t));
    let mut out = Vec::new();
    encode(samples, u16::MAX, Starts::of([encoding]), &mut out)?;
    Ok(out)
}

/// The same chunk with room for start times, and with those that `start_of` says by time.
pub(crate) fn with_starts(chunk: &ChunkData, start_of: impl Fn(i64) -> i64) -> Result<ChunkData, ChunkError> {
    let encoding = Encoding::from_id(chunk.encoding)?;
    let data = match ChunkDecoder::of_chunk(encoding, &chunk.data)? {
        ChunkDecoder::Floats(mut decoder) => {
            let mut samples = Vec::with_capacity(decoder.left());
            while let Some((t, value)) = decoder.next_sample()? {
                samples.push(StartedSample { t, start: start_of(t), value });
            }
            encode_xor2(&samples)
        }
        ChunkDecoder::Histograms(_) if encoding == Encoding::Histogram => {
            histogram_starts::<Histogram>(&chunk.data, start_of)?
        }
        ChunkDecoder::FloatHistograms(_) if encoding == Encoding::FloatHistogram => {
            histogram_starts::<FloatHistogram>(&chunk.data, start_of)?
        }
        _ => return Ok(chunk.clone()),
    };
    Ok(ChunkData { min_t: chunk.min_t, max_t: chunk.max_t, encoding: encoding.with_starts().id(), data })
}

/// Samples of one chunk on their way into a merge.
struct Source {
    samples: Vec<Sample>,
    next: usize,
}

impl Source {
    fn t(&self) -> i64 {
        self.samples.get(self.next).map_or(i64::MAX, |sample| sample.t)
    }

    fn has_more(&self) -> bool {
        self.next < self.samples.len()
    }
}

/// A heap that keeps the order of Prometheus's among equals, which decides which of two samples stays.
#[derive(Default)]
struct Heap(Vec<Source>);

impl Heap {
    fn push(&mut self, source: Source) {
        self.0.push(source);
        let mut at = self.0.len() - 1;
        while at > 0 {
            let parent = (at - 1) / 2;
            if !self.less(at, parent) {
                break;
            }
            self.0.swap(at, parent);
            at = parent;
        }
    }

    fn pop(&mut self) -> Option<Source> {
        let last = self.0.len().checked_sub(1)?;
        self.0.swap(0, last);
        let mut at = 0;
        loop {
            let mut child = 2 * at + 1;
            if last <= child {
                break;
            }
            if child + 1 < last && self.less(child + 1, child) {
                child += 1;
            }
            if !self.less(child, at) {
                break;
            }
            self.0.swap(at, child);
            at = child;
        }
        self.0.pop()
    }

    fn less(&self, a: usize, b: usize) -> bool {
        match (self.0.get(a), self.0.get(b)) {
            (Some(a), Some(b)) => a.t() < b.t(),
            _ => false,
        }
    }

    fn first_t(&self) -> Option<i64> {
        self.0.first().map(Source::t)
    }
}

/// Merges chunks that overlap each other, in the order of their times, and cuts the result anew, as Prometheus does: also of
/// two samples with the same time stamp the one stays that stays there. Chunks have room for start times where they are needed, those of
/// floats always if `floats_with_starts` says so.
pub(crate) fn merge(
    chunks: &[(Encoding, &[u8])],
    floats_with_starts: bool,
    out: &mut Vec<ChunkData>,
) -> Result<(), ChunkError> {
    let mut sources = Vec::with_capacity(chunks.len());
    for (encoding, data) in chunks {
        sources.push(Source { samples: decode(*encoding, data)?, next: 0 });
    }
    sources.retain(Source::has_more);
    if sources.is_empty() {
        return Ok(());
    }
    // The oldest chunk comes last.
    sources.rotate_left(1);
    let mut rest = sources.into_iter();
    let Some(mut current) = rest.next() else { return Ok(()) };
    let mut heap = Heap::default();
    rest.for_each(|source| heap.push(source));
    let kept = Starts::Needed { floats: floats_with_starts };
    let mut merged: Vec<Sample> = Vec::new();
    let mut last = None;
    let mut has_changed = true;
    loop {
        // Finds the source of the next sample.
        loop {
            if current.has_more() {
                let t = current.t();
                if last == Some(t) {
                    current.next += 1;
                    continue;
                }
                if heap.first_t().is_none_or(|first| t < first) {
                    break;
                }
                heap.push(current);
            }
            let Some(next) = heap.pop() else {
                return encode(merged, MERGED_SAMPLES, kept, out);
            };
            (current, has_changed) = (next, true);
            if last != Some(current.t()) {
                break;
            }
            current.next += 1;
        }
        if let Some(sample) = current.samples.get(current.next) {
            let mut sample = sample.clone();
            if std::mem::take(&mut has_changed) {
                sample.value.cut_off();
            }
            last = Some(sample.t);
            merged.push(sample);
        }
        current.next += 1;
    }
}
