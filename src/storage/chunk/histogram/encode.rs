//! Encodes histograms one after another, by Prometheus's rules: which fit into the open chunk, when the chunk has to be encoded
//! anew for more buckets, and when another has to be begun.

use std::borrow::Cow;

use crate::model::histogram::layout::{indexes, spans_of};
use crate::model::histogram::{CUSTOM_BUCKETS_SCHEMA, CounterResetHint, Span};
use crate::model::sample::is_stale;
use crate::storage::chunk::bits::{LongBits, SampleBits};
use crate::storage::chunk::histogram::ResetHeader;
use crate::storage::chunk::histogram::field::Xor;
use crate::storage::chunk::histogram::layout::Layout;
use crate::storage::chunk::histogram::state::{Counts, Native, Reset};

/// What the encoder knows of the samples of the open chunk; the caller keeps their number and their bits.
#[derive(Clone, Debug)]
pub struct HistogramEncoder<H: Native> {
    header: ResetHeader,
    layout: Layout,
    t: i64,
    t_change: i64,
    sum: Xor,
    counts: H::Counts,
}

/// What a histogram does to the open chunk.
#[derive(Clone, Debug)]
pub enum Fit<'a, H: Native> {
    /// It can be appended, maybe with empty buckets more.
    Append(Cow<'a, H>),
    /// It can be appended once the samples of the chunk have these spans.
    Recode {
        /// The histogram, maybe with empty buckets more.
        histogram: Cow<'a, H>,
        /// Positive and negative spans.
        spans: [Vec<Span>; 2],
    },
    /// It begins a new chunk with this header.
    Cut(ResetHeader),
}

/// How the buckets of a histogram stand to those of the chunk.
#[derive(Default)]
struct Expansion {
    /// The histogram has buckets that the chunk has not.
    forward: bool,
    /// The chunk has buckets that the histogram has not.
    backward: bool,
    /// Indexes of all.
    all: Vec<i64>,
}

/// Compares the buckets of one side; `None` if a filled bucket is missing or lower and `is_counter`.
fn expand<C: Copy + PartialOrd + Default>(
    (own_spans, own): (&[Span], &[C]),
    (new_spans, new): (&[Span], &[C]),
    is_counter: bool,
) -> Option<Expansion> {
    let mut out = Expansion::default();
    let mut own = indexes(own_spans, own.len()).zip(own).map(|((_, index), count)| (index, *count)).peekable();
    let mut new = indexes(new_spans, new.len()).zip(new).map(|((_, index), count)| (index, *count)).peekable();
    loop {
        match (own.peek().copied(), new.peek().copied()) {
            (None, None) => return Some(out),
            (Some((at, before)), Some((index, count))) if at == index => {
                if is_counter && count < before {
                    return None;
                }
                own.next();
                new.next();
                out.all.push(at);
            }
            (Some((at, before)), other) if other.is_none_or(|(index, _)| at < index) => {
                if is_counter && before != C::default() {
                    return None;
                }
                own.next();
                out.backward = true;
                out.all.push(at);
            }
            (_, Some((index, _))) => {
                new.next();
                out.forward = true;
                out.all.push(index);
            }
            // The arm above the last takes a bucket of the chunk alone.
            (Some(_), None) => return Some(out),
        }
    }
}

/// What is left to be said of a histogram that may be appended.
enum Verdict {
    Fits([Expansion; 2]),
    Not(Reset),
}

impl<H: Native> HistogramEncoder<H> {
    /// Begins a chunk with a histogram; the bits stand behind the sample count. `before` is the encoder of the chunk that it
    /// continues, if that has the same encoding.
    pub fn begin(before: Option<&Self>, t: i64, histogram: &H) -> (Self, LongBits) {
        let header = match (histogram.hint(), before) {
            (CounterResetHint::Gauge, _) => ResetHeader::Gauge,
            (CounterResetHint::Reset, _) => ResetHeader::Reset,
            (_, Some(before)) => H::header_after(match before.judge(histogram) {
                Verdict::Fits(_) => Reset::No,
                Verdict::Not(reset) => reset,
            }),
            (_, None) => ResetHeader::Unknown,
        };
        Self::begin_with(header, t, histogram)
    }

    /// Begins a chunk with this header.
    pub fn begin_with(header: ResetHeader, t: i64, histogram: &H) -> (Self, LongBits) {
        let mut out = LongBits::default();
        out.push((header as u64) << 6, 8);
        let marker;
        let histogram = if is_stale(histogram.sum()) {
            marker = H::marker(histogram.sum());
            &marker
        } else {
            histogram
        };
        let layout = histogram.layout();
        layout.write(&mut out);
        out.push_varbit_int(t);
        let mut counts = H::Counts::begin(histogram, &mut out);
        out.push(histogram.sum().to_bits(), 64);
        counts.begin_buckets(histogram, &mut out);
        (Self { header, layout, t, t_change: 0, sum: Xor::written(histogram.sum()), counts }, out)
    }

    /// Time of the newest sample.
    pub fn last_t(&self) -> i64 {
        self.t
    }

    /// The header of the open chunk.
    pub fn header(&self) -> ResetHeader {
        self.header
    }

    /// The bits that append a histogram which fits.
    pub fn append(&mut self, t: i64, histogram: &H) -> LongBits {
        let mut out = LongBits::default();
        self.append_to(t, histogram, &mut out);
        out
    }

    /// Appends a histogram which fits to the bits of others.
    pub fn append_to(&mut self, t: i64, histogram: &H, out: &mut LongBits) {
        let t_change = t.wrapping_sub(self.t);
        out.push_varbit_int(t_change.wrapping_sub(self.t_change));
        (self.t, self.t_change) = (t, t_change);
        let marker;
        let ends = is_stale(histogram.sum());
        let histogram = if ends {
            marker = H::marker(histogram.sum());
            &marker
        } else {
            histogram
        };
        self.counts.write(histogram, out);
        self.sum.write(histogram.sum(), out);
        if !ends {
            self.counts.write_buckets(histogram, out);
        }
    }

    /// What appending a histogram takes.
    pub fn fit<'a>(&self, histogram: &'a H) -> Fit<'a, H> {
        let is_gauge = histogram.hint() == CounterResetHint::Gauge;
        let verdict = if is_gauge { self.judge_gauge(histogram) } else { self.judge(histogram) };
        let [positive, negative] = match verdict {
            Verdict::Not(_) if is_gauge => return Fit::Cut(ResetHeader::Gauge),
            Verdict::Not(reset) => return Fit::Cut(H::header_of_cut(reset)),
            Verdict::Fits(expansions) => expansions,
        };
        let (forward, backward) = (positive.forward || negative.forward, positive.backward || negative.backward);
        let histogram = if !backward {
            Cow::Borrowed(histogram)
        } else if !forward && !is_gauge {
            Cow::Owned(histogram.with_spans(&self.layout.spans))
        } else {
            // Spans are put together anew where buckets are added, else they stay as they were.
            let spans = |side: usize, expansion: &Expansion| {
                if expansion.backward || is_gauge {
                    spans_of(expansion.all.iter().copied())
                } else {
                    histogram.spans(side).to_vec()
                }
            };
            Cow::Owned(histogram.with_spans(&[spans(0, &positive), spans(1, &negative)]))
        };
        if forward {
            let spans = [histogram.spans(0).to_vec(), histogram.spans(1).to_vec()];
            return Fit::Recode { histogram, spans };
        }
        Fit::Append(histogram)
    }

    fn judge(&self, histogram: &H) -> Verdict {
        if self.header == ResetHeader::Gauge {
            return Verdict::Not(Reset::No);
        }
        if histogram.hint() == CounterResetHint::Reset {
            return Verdict::Not(Reset::Yes);
        }
        if is_stale(histogram.sum()) {
            return Verdict::Fits(Default::default());
        }
        if is_stale(self.sum.value()) {
            return Verdict::Not(Reset::Unknown);
        }
        let [count_falls, zero_count_falls] = self.counts.exceed(histogram);
        if count_falls {
            return Verdict::Not(Reset::Yes);
        }
        if histogram.resolution() != (self.layout.schema, self.layout.zero_threshold) {
            return Verdict::Not(Reset::Unknown);
        }
        if !self.has_bounds_of(histogram) || zero_count_falls {
            return Verdict::Not(Reset::Yes);
        }
        self.expansions(histogram, true).map_or(Verdict::Not(Reset::Yes), Verdict::Fits)
    }

    fn judge_gauge(&self, histogram: &H) -> Verdict {
        const NOT: Verdict = Verdict::Not(Reset::Unknown);
        if self.header != ResetHeader::Gauge {
            return NOT;
        }
        if is_stale(histogram.sum()) {
            return Verdict::Fits(Default::default());
        }
        let same = histogram.resolution() == (self.layout.schema, self.layout.zero_threshold);
        if is_stale(self.sum.value()) || !same || !self.has_bounds_of(histogram) {
            return NOT;
        }
        self.expansions(histogram, false).map_or(NOT, Verdict::Fits)
    }

    fn has_bounds_of(&self, histogram: &H) -> bool {
        self.layout.schema != CUSTOM_BUCKETS_SCHEMA || histogram.custom_values() == self.layout.custom_values
    }

    fn expansions(&self, histogram: &H, is_counter: bool) -> Option<[Expansion; 2]> {
        let [positive, negative] = &self.layout.spans;
        let side = |side: usize, spans: &[Span]| {
            let (own, new) = (self.counts.side(side), histogram.counts(side));
            expand((spans, &own), (histogram.spans(side), &new), is_counter)
        };
        Some([side(0, positive)?, side(1, negative)?])
    }

    /// The samples of the chunk with other spans, and the encoder behind them. `None` if there are none.
    pub fn recoded(&self, samples: &[(i64, H)], spans: &[Vec<Span>; 2]) -> Option<(Self, LongBits)> {
        let ((first_t, first), rest) = samples.split_first()?;
        let (mut encoder, mut bits) = Self::begin_with(self.header, *first_t, &first.with_spans(spans));
        for (t, histogram) in rest {
            encoder.append_to(*t, &histogram.with_spans(spans), &mut bits);
        }
        Some((encoder, bits))
    }
}

/// A chunk as it stands in files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedChunk {
    /// Time of its first sample.
    pub min_t: i64,
    /// Time of its last sample.
    pub max_t: i64,
    /// Its bytes, sample count first.
    pub data: Vec<u8>,
}

/// Chunks of these samples, with at most `split` samples each; another is begun where one does not fit the last, too.
pub fn encode_chunks<H: Native>(samples: &[(i64, H)], split: u16) -> Vec<EncodedChunk> {
    let mut done = Vec::new();
    let mut open: Option<OpenChunk<'_, H>> = None;
    for (t, histogram) in samples {
        if open.as_ref().is_some_and(|open| usize::from(split.max(1)) <= open.samples.len()) {
            done.extend(open.take().and_then(OpenChunk::finish));
        }
        let Some(chunk) = &mut open else {
            open = Some(OpenChunk::new(HistogramEncoder::begin(None, *t, histogram), t, histogram));
            continue;
        };
        match chunk.encoder.fit(histogram) {
            Fit::Append(fitting) => chunk.push(*t, fitting),
            Fit::Recode { histogram: fitting, spans } => {
                if let Some((encoder, bits)) = chunk.recoded(&spans) {
                    (chunk.encoder, chunk.bits) = (encoder, bits);
                }
                chunk.push(*t, fitting);
            }
            Fit::Cut(header) => {
                done.extend(open.take().and_then(OpenChunk::finish));
                open = Some(OpenChunk::new(HistogramEncoder::begin_with(header, *t, histogram), t, histogram));
            }
        }
    }
    done.extend(open.and_then(OpenChunk::finish));
    done
}

/// A chunk that is being written, with its samples, in case that it has to be encoded anew.
struct OpenChunk<'a, H: Native> {
    encoder: HistogramEncoder<H>,
    bits: LongBits,
    samples: Vec<(i64, Cow<'a, H>)>,
}

impl<'a, H: Native> OpenChunk<'a, H> {
    fn new((encoder, bits): (HistogramEncoder<H>, LongBits), t: &i64, histogram: &'a H) -> Self {
        Self { encoder, bits, samples: vec![(*t, Cow::Borrowed(histogram))] }
    }

    fn push(&mut self, t: i64, histogram: Cow<'a, H>) {
        self.encoder.append_to(t, &histogram, &mut self.bits);
        self.samples.push((t, histogram));
    }

    fn recoded(&self, spans: &[Vec<Span>; 2]) -> Option<(HistogramEncoder<H>, LongBits)> {
        let samples: Vec<(i64, H)> = self.samples.iter().map(|(t, h)| (*t, H::clone(h))).collect();
        self.encoder.recoded(&samples, spans)
    }

    fn finish(self) -> Option<EncodedChunk> {
        let ((min_t, _), (max_t, _)) = (self.samples.first()?, self.samples.last()?);
        // At most `split`.
        let count = u16::try_from(self.samples.len()).unwrap_or(u16::MAX);
        let mut data = count.to_be_bytes().to_vec();
        data.extend(self.bits.each_word().flat_map(u64::to_be_bytes));
        data.truncate(2 + (self.bits.bit_len() as usize).div_ceil(8));
        Some(EncodedChunk { min_t: *min_t, max_t: *max_t, data })
    }
}
