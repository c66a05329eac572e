//! The writer's part of a series of native histograms: the encoder of the open chunk and the newest histogram.

use std::borrow::Cow;
use std::sync::Arc;

use crate::model::append::HistogramValue;
use crate::model::histogram::{FloatHistogram, Histogram};
use crate::storage::chunk::ChunkError;
use crate::storage::chunk::bits::{LongBits, SampleBits, WordSource};
use crate::storage::chunk::cut::CutRules;
use crate::storage::chunk::histogram::Native;
use crate::storage::chunk::histogram::decode::HistogramDecoder;
use crate::storage::chunk::histogram::encode::{Fit, HistogramEncoder};
use crate::storage::chunk::words::{OpenWords, Published};

/// The writer's part of one series.
#[derive(Debug)]
pub(crate) enum NativeWriter {
    /// The open chunk has whole counts.
    Whole(NativeState<Histogram>),
    /// The open chunk has float counts.
    Float(NativeState<FloatHistogram>),
}

/// The same for one kind of histograms.
#[derive(Debug)]
pub(crate) struct NativeState<H: Native> {
    encoder: HistogramEncoder<H>,
    last: Arc<H>,
    /// Time of the open chunk's first sample.
    start: i64,
    /// The end of the open chunk was predicted.
    is_predicted: bool,
}

/// The newest sample of a series.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Newest<'a> {
    /// Bits of a float.
    Float(u64),
    /// A histogram with whole counts.
    Whole(&'a Histogram),
    /// A histogram with float counts.
    FloatHistogram(&'a FloatHistogram),
}

impl<'a> From<&'a HistogramValue> for Newest<'a> {
    fn from(value: &'a HistogramValue) -> Self {
        match value {
            HistogramValue::Integer(histogram) => Self::Whole(histogram),
            HistogramValue::Float(histogram) => Self::FloatHistogram(histogram),
        }
    }
}

/// The open chunk as the rules look at it.
pub(crate) struct OpenChunk<'a> {
    pub(crate) words: &'a OpenWords,
    /// Where it ends at the latest.
    pub(crate) next_at: i64,
}

/// What a histogram does to a series.
#[derive(Debug)]
pub(crate) enum Placed {
    /// The bits go behind those of the open chunk.
    Append(LongBits),
    /// The open chunk is replaced by these words, and then the bits go behind.
    Recode(OpenWords, LongBits),
    /// The bits begin a new chunk.
    Begin(LongBits),
}

impl NativeWriter {
    /// Time of the newest sample.
    pub(crate) fn last_t(&self) -> i64 {
        match self {
            Self::Whole(state) => state.encoder.last_t(),
            Self::Float(state) => state.encoder.last_t(),
        }
    }

    /// The newest sample.
    pub(crate) fn newest(&self) -> Newest<'_> {
        match self {
            Self::Whole(state) => Newest::Whole(&state.last),
            Self::Float(state) => Newest::FloatHistogram(&state.last),
        }
    }

    /// A marker of the kind of the open chunk.
    pub(crate) fn marker(&self, sum: f64) -> HistogramValue {
        match self {
            Self::Whole(_) => Histogram::marker(sum).into(),
            Self::Float(_) => FloatHistogram::marker(sum).into(),
        }
    }

    /// Begins the first chunk of a series.
    pub(crate) fn begin(t: i64, value: &HistogramValue) -> (Box<Self>, LongBits) {
        match value {
            HistogramValue::Integer(histogram) => {
                let (state, bits) = NativeState::begin(t, histogram);
                (Box::new(Self::Whole(state)), bits)
            }
            HistogramValue::Float(histogram) => {
                let (state, bits) = NativeState::begin(t, histogram);
                (Box::new(Self::Float(state)), bits)
            }
        }
    }

    /// The writer of a chunk that has ended with this histogram.
    pub(crate) fn ended(t: i64, value: &HistogramValue) -> Box<Self> {
        Self::begin(t, value).0
    }

    /// Takes the next histogram in.
    pub(crate) fn place(
        &mut self,
        t: i64,
        value: &HistogramValue,
        open: OpenChunk<'_>,
        rules: &CutRules,
    ) -> (Placed, i64) {
        match (&mut *self, value) {
            (Self::Whole(state), HistogramValue::Integer(histogram)) => state.place(t, histogram, open, rules),
            (Self::Float(state), HistogramValue::Float(histogram)) => state.place(t, histogram, open, rules),
            // Another encoding: a chunk of its own, of which nothing is known.
            (own, value) => {
                let (writer, bits) = Self::begin(t, value);
                *own = *writer;
                (Placed::Begin(bits), rules.range_end(t))
            }
        }
    }
}

impl<H: Native> NativeState<H> {
    fn begin(t: i64, histogram: &Arc<H>) -> (Self, LongBits) {
        let (encoder, bits) = HistogramEncoder::begin(None, t, &**histogram);
        (Self { encoder, last: Arc::clone(histogram), start: t, is_predicted: false }, bits)
    }

    /// Places a histogram; also tells where the open chunk ends at the latest from now on.
    fn place(&mut self, t: i64, histogram: &Arc<H>, open: OpenChunk<'_>, rules: &CutRules) -> (Placed, i64) {
        let (at, mut next_at) = (open.words.published(), open.next_at);
        let span = (self.start, self.encoder.last_t());
        if rules.must_cut_histogram(at, span, &mut next_at, &mut self.is_predicted, t) {
            let (encoder, bits) = HistogramEncoder::begin(Some(&self.encoder), t, &**histogram);
            (self.encoder, self.last, self.start) = (encoder, Arc::clone(histogram), t);
            return (Placed::Begin(bits), rules.range_end(t));
        }
        match self.encoder.fit(histogram) {
            Fit::Append(fitting) => {
                let bits = self.encoder.append(t, &fitting);
                self.last = shared(fitting, histogram);
                (Placed::Append(bits), next_at)
            }
            Fit::Recode { histogram: fitting, spans } => {
                // What this encoder has written can be read.
                let recoded = samples_of::<H>(open.words, at).ok().and_then(|s| self.encoder.recoded(&s, &spans));
                let Some((mut encoder, before)) = recoded else { return self.cut_unknown(t, histogram, rules) };
                let bits = encoder.append(t, &fitting);
                self.encoder = encoder;
                self.last = shared(fitting, histogram);
                (Placed::Recode(OpenWords::holding(at.samples, &before, bits.bit_len()), bits), next_at)
            }
            Fit::Cut(header) => {
                let (encoder, bits) = HistogramEncoder::begin_with(header, t, &**histogram);
                // The mark of a prediction stays, as in Prometheus.
                (self.encoder, self.last, self.start) = (encoder, Arc::clone(histogram), t);
                (Placed::Begin(bits), rules.range_end(t))
            }
        }
    }

    fn cut_unknown(&mut self, t: i64, histogram: &Arc<H>, rules: &CutRules) -> (Placed, i64) {
        let (state, bits) = Self::begin(t, histogram);
        *self = state;
        (Placed::Begin(bits), rules.range_end(t))
    }
}

fn shared<H: Native>(fitting: Cow<'_, H>, original: &Arc<H>) -> Arc<H> {
    match fitting {
        Cow::Borrowed(_) => Arc::clone(original),
        Cow::Owned(changed) => Arc::new(changed),
    }
}

fn samples_of<H: Native>(words: &OpenWords, at: Published) -> Result<Vec<(i64, H)>, ChunkError> {
    let source = words.words();
    decode_all(HistogramDecoder::new(source, at.bits as usize, at.samples))
}

fn decode_all<S: WordSource + ?Sized, H: Native>(
    mut decoder: HistogramDecoder<'_, S, H>,
) -> Result<Vec<(i64, H)>, ChunkError> {
    let mut samples = Vec::new();
    while let Some(t) = decoder.advance()? {
        samples.push((t, decoder.histogram()));
    }
    Ok(samples)
}
