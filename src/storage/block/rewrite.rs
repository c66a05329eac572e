//! Chunks that are decoded and written anew: without some of their samples, or several merged to one run.

use crate::model::histogram::{CounterResetHint, FloatHistogram, Histogram};
use crate::storage::block::chunks::ChunkData;
use crate::storage::chunk::decode::ChunkDecoder;
use crate::storage::chunk::histogram::Native;
use crate::storage::chunk::histogram::decode::HistogramDecoder;
use crate::storage::chunk::histogram::encode::encode_chunks;
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

/// The samples of a chunk.
pub(crate) fn decode(encoding: Encoding, data: &[u8]) -> Result<Vec<(i64, Value)>, ChunkError> {
    fn natives<H: Native>(
        mut decoder: HistogramDecoder<'_, [u8], H>,
        of: impl Fn(Box<H>) -> Value,
    ) -> Result<Vec<(i64, Value)>, ChunkError> {
        let mut samples = Vec::new();
        while let Some(t) = decoder.advance()? {
            samples.push((t, of(Box::new(decoder.histogram()))));
        }
        Ok(samples)
    }
    match ChunkDecoder::of_chunk(encoding, data)? {
        ChunkDecoder::Floats(mut decoder) => {
            let mut samples = Vec::new();
            while let Some((t, value)) = decoder.next_sample()? {
                samples.push((t, Value::Float(value)));
            }
            Ok(samples)
        }
        ChunkDecoder::Histograms(decoder) => natives(*decoder, Value::Whole),
        ChunkDecoder::FloatHistograms(decoder) => natives(*decoder, Value::FloatHistogram),
    }
}

/// Chunks of these samples: another one where the kind changes, and after `split` samples.
pub(crate) fn encode(samples: Vec<(i64, Value)>, split: u16, out: &mut Vec<ChunkData>) {
    let mut samples = samples.into_iter().peekable();
    while let Some((_, first)) = samples.peek() {
        let encoding = first.encoding();
        let (mut floats, mut wholes, mut float_histograms) = (Vec::new(), Vec::new(), Vec::new());
        while let Some((t, value)) = samples.next_if(|(_, value)| value.encoding() == encoding) {
            match value {
                Value::Float(value) => floats.push((t, value)),
                Value::Whole(histogram) => wholes.push((t, *histogram)),
                Value::FloatHistogram(histogram) => float_histograms.push((t, *histogram)),
            }
        }
        for part in floats.chunks(usize::from(split)) {
            if let (Some((min_t, _)), Some((max_t, _))) = (part.first(), part.last()) {
                let data = encode_xor(part);
                out.push(ChunkData { min_t: *min_t, max_t: *max_t, encoding: encoding.id(), data });
            }
        }
        for chunk in encode_chunks(&wholes, split).into_iter().chain(encode_chunks(&float_histograms, split)) {
            let (min_t, max_t) = (chunk.min_t, chunk.max_t);
            out.push(ChunkData { min_t, max_t, encoding: encoding.id(), data: chunk.data });
        }
    }
}

/// What is left of a chunk without the samples at some times: one chunk, or none; more if what is left does not fit together.
pub(crate) fn without(
    encoding: Encoding,
    data: &[u8],
    drops: impl Fn(i64) -> bool,
) -> Result<Vec<ChunkData>, ChunkError> {
    let mut samples = decode(encoding, data)?;
    samples.retain(|(t, _)| !drops(*t));
    let mut out = Vec::new();
    encode(samples, u16::MAX, &mut out);
    Ok(out)
}

/// Samples of one chunk on their way into a merge.
struct Source {
    samples: Vec<(i64, Value)>,
    next: usize,
}

impl Source {
    fn t(&self) -> i64 {
        self.samples.get(self.next).map_or(i64::MAX, |(t, _)| *t)
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
/// two samples with the same time stamp the one stays that stays there.
pub(crate) fn merge(chunks: &[(Encoding, &[u8])], out: &mut Vec<ChunkData>) -> Result<(), ChunkError> {
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
    let mut merged: Vec<(i64, Value)> = Vec::new();
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
                encode(merged, MERGED_SAMPLES, out);
                return Ok(());
            };
            (current, has_changed) = (next, true);
            if last != Some(current.t()) {
                break;
            }
            current.next += 1;
        }
        if let Some((t, value)) = current.samples.get(current.next) {
            let mut value = value.clone();
            if std::mem::take(&mut has_changed) {
                value.cut_off();
            }
            last = Some(*t);
            merged.push((*t, value));
        }
        current.next += 1;
    }
}
