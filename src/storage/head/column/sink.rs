//! Samples of chunks on their way to a reader: those in a range that a view sees, found by marks where there are some.

use std::sync::Arc;

use crate::model::histogram::CounterResetHint;
use crate::model::sample::SeriesRef;
use crate::model::time::{TimeRange, TimestampMs};
use crate::storage::chunk::ChunkError;
use crate::storage::chunk::bits::WordSource;
use crate::storage::chunk::decode::ChunkDecoder;
use crate::storage::chunk::histogram::Native;
use crate::storage::chunk::histogram::decode::HistogramDecoder;
use crate::storage::chunk::sealed::SealedChunks;
use crate::storage::chunk::xor::XorDecoder;
use crate::storage::chunk::xor2::Xor2Decoder;
use crate::storage::head::column::{Hidden, Output};
use crate::storage::head::marks::{ChunkKey, Marks};

pub(super) fn decode_sealed(sealed: &SealedChunks, first: u64, sink: &mut Sink<'_>) -> Result<(), ChunkError> {
    let (mut index, mut buffer) = (first, Vec::new());
    let mut chunks = sealed.iter().peekable();
    while let Some(chunk) = chunks.next() {
        let count = u64::from(chunk.sample_count());
        if sink.range.max().0 < chunk.min_t()? {
            break;
        }
        // The first chunk of interest is the last that starts at or before the range.
        let is_before = match (chunk.known_max_t(), chunks.peek()) {
            (Some(max_t), _) => max_t < sink.range.min().0,
            (None, Some(next)) => next.min_t()? <= sink.range.min().0,
            (None, None) => false,
        };
        if !is_before {
            sink.take(chunk.decoder(&mut buffer)?, index)?;
        }
        index += count;
    }
    Ok(())
}

/// Takes decoded samples that a view sees.
pub(super) struct Sink<'a> {
    pub(super) range: TimeRange,
    pub(super) hidden: Hidden,
    pub(super) marks: Option<SeriesMarks<'a>>,
    pub(super) out: Output<'a>,
}

/// The marks of one series.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SeriesMarks<'a> {
    pub(crate) marks: &'a Marks,
    pub(crate) series: SeriesRef,
    /// Of the shard.
    pub(crate) generation: u64,
}

impl SeriesMarks<'_> {
    /// Time of the last sample of a finished chunk, of which the first has index `index`.
    pub(super) fn last_t<S: WordSource + ?Sized>(
        self,
        mut decoder: XorDecoder<'_, S>,
        index: u64,
    ) -> Result<Option<i64>, ChunkError> {
        let Self { marks, series, generation } = self;
        let first_bits = decoder.source().peek(0);
        let key = ChunkKey { series: series.0, generation, first_index: index | BEHIND_LAST, first_bits };
        let known = marks.get(key).filter(|mark| usize::from(mark.samples()) == decoder.left());
        if let Some(mark) = known {
            return Ok(Some(mark.last_t()));
        }
        let Some(mark) = decoder.skip_behind(i64::MAX)? else { return Ok(None) };
        marks.put(key, mark);
        Ok(Some(mark.last_t()))
    }

    /// Passes over the samples before `min` of a chunk, of which the first has index `index`; from a mark on if there is one.
    /// Chunks that begin at or behind `min`, and short ones, are left alone.
    fn skip_to<S: WordSource + ?Sized>(
        self,
        decoder: &mut XorDecoder<'_, S>,
        index: u64,
        min: i64,
    ) -> Result<(), ChunkError> {
        if decoder.left() < MARKED_LEN_MIN || decoder.first_t().is_none_or(|first| min <= first) {
            return Ok(());
        }
        let first_bits = decoder.source().peek(0);
        let Self { marks, series, generation } = self;
        let key = ChunkKey { series: series.0, generation, first_index: index, first_bits };
        let known = marks.get(key).filter(|mark| mark.last_t() < min && usize::from(mark.samples()) <= decoder.left());
        if let Some(mark) = known {
            decoder.resume(mark);
        }
        // A mark stays where it is until it has fallen behind.
        if let Some(mark) = decoder.skip_to(min)?
            && known.map_or(0, |known| known.samples()) + MARKS_APART <= mark.samples()
        {
            marks.put(key, mark);
        }
        Ok(())
    }
}

/// The newest sample up to `max` of a chunk, of which the first has index `index`: from a mark on, which is that sample itself if the
/// last query asked for the same.
pub(super) fn newest<S: WordSource + ?Sized>(
    marks: Option<SeriesMarks<'_>>,
    decoder: ChunkDecoder<'_, S>,
    index: u64,
    max: i64,
) -> Result<Newest, ChunkError> {
    let ChunkDecoder::Floats(mut decoder) = decoder else { return Ok(Newest::Unknown) };
    let marks = marks.filter(|_| NEWEST_MARKED_LEN_MIN <= decoder.left());
    let Some(SeriesMarks { marks, series, generation }) = marks else {
        let last = decoder.skip_behind(max)?;
        return Ok(last.map_or(Newest::None, |mark| Newest::Float(mark.last_t(), mark.last_value())));
    };
    let first_bits = decoder.source().peek(0);
    let key = ChunkKey { series: series.0, generation, first_index: index | BEHIND_NEWEST, first_bits };
    let known = marks.get(key);
    let known = known.filter(|mark| mark.last_t() <= max && usize::from(mark.samples()) <= decoder.left());
    if let Some(mark) = known {
        decoder.resume(mark);
    }
    let Some(mark) = decoder.skip_behind(max)? else { return Ok(Newest::None) };
    if known.is_none_or(|known| known.samples() != mark.samples()) {
        marks.put(key, mark);
    }
    Ok(Newest::Float(mark.last_t(), mark.last_value()))
}

/// Samples from a mark to the one that takes its place.
const MARKS_APART: u16 = 8;
/// A shorter chunk is decoded from its beginning.
const MARKED_LEN_MIN: usize = 48;
/// Likewise where the newest sample is looked for.
const NEWEST_MARKED_LEN_MIN: usize = 12;
/// Sets the marks behind newest samples apart from the others of a chunk; indexes of samples stay far below.
const BEHIND_NEWEST: u64 = 1 << 63;
/// Likewise those behind the last samples of finished chunks.
const BEHIND_LAST: u64 = 1 << 62;

/// The newest sample of a chunk up to some time.
pub(super) enum Newest {
    None,
    Float(i64, f64),
    /// It has to be decoded with the others.
    Unknown,
}

impl Sink<'_> {
    /// Takes the samples of one chunk, of which the first has index `index`.
    pub(super) fn take<S: WordSource + ?Sized>(
        &mut self,
        decoder: ChunkDecoder<'_, S>,
        index: u64,
    ) -> Result<(), ChunkError> {
        match decoder {
            ChunkDecoder::Floats(decoder) => self.take_floats(decoder, index),
            ChunkDecoder::StartedFloats(decoder) => self.take_started(*decoder, index),
            ChunkDecoder::Histograms(decoder) => self.take_histograms(*decoder, index),
            ChunkDecoder::FloatHistograms(decoder) => self.take_histograms(*decoder, index),
        }
    }

    fn take_floats<S: WordSource + ?Sized>(
        &mut self,
        mut decoder: XorDecoder<'_, S>,
        mut index: u64,
    ) -> Result<(), ChunkError> {
        let (min, max) = (self.range.min().0, self.range.max().0);
        let out = match &mut self.out {
            Output::Floats(out) => &mut **out,
            Output::All(out) => &mut out.floats,
        };
        if self.hidden.is_empty() {
            if let Some(marks) = self.marks {
                marks.skip_to(&mut decoder, index, min)?;
            }
            decoder.append_to(min, max, out)?;
        } else {
            let hidden = &self.hidden;
            decoder.for_each(|t, value| {
                if min <= t && t <= max && !hides(hidden, index) {
                    out.push(t, value);
                }
                index += 1;
                t <= max
            })?;
        }
        // The head knows no starts; where others are known, there is one for each sample.
        if let Output::All(out) = &mut self.out
            && !out.float_starts.is_empty()
        {
            out.float_starts.resize(out.floats.len(), 0);
        }
        Ok(())
    }

    fn take_started<S: WordSource + ?Sized>(
        &mut self,
        mut decoder: Xor2Decoder<'_, S>,
        mut index: u64,
    ) -> Result<(), ChunkError> {
        while let Some(sample) = decoder.next_sample()? {
            let is_seen = self.range.contains(TimestampMs(sample.t)) && !hides(&self.hidden, index);
            match &mut self.out {
                _ if !is_seen => {}
                Output::Floats(out) => out.push(sample.t, sample.value),
                Output::All(out) => out.push_float(sample.t, sample.start, sample.value),
            }
            index += 1;
        }
        Ok(())
    }

    fn take_histograms<S: WordSource + ?Sized, H: Native>(
        &mut self,
        mut decoder: HistogramDecoder<'_, S, H>,
        mut index: u64,
    ) -> Result<(), ChunkError> {
        let Output::All(out) = &mut self.out else { return Ok(()) };
        // A chunk has no reset inside, but what came before it is not known if its first samples are not seen.
        let (mut is_first, mut lacks_first) = (true, false);
        while let Some(t) = decoder.advance()? {
            if self.range.max().0 < t {
                break;
            }
            if hides(&self.hidden, index) {
                lacks_first |= is_first;
            } else if self.range.min().0 <= t {
                let mut histogram = decoder.float_histogram();
                if is_first && lacks_first && histogram.counter_reset_hint == CounterResetHint::NotReset {
                    histogram.counter_reset_hint = CounterResetHint::Unknown;
                }
                is_first = false;
                out.push_histogram(t, decoder.start(), Arc::new(histogram));
            }
            index += 1;
        }
        Ok(())
    }
}

fn hides(hidden: &Hidden, index: u64) -> bool {
    hidden.iter().any(|(from, to)| *from <= index && index < *to)
}
