//! Decodes chunks of any encoding.

use crate::model::histogram::{FloatHistogram, Histogram};
use crate::storage::chunk::bits::{BitReader, WordSource};
use crate::storage::chunk::histogram::decode::HistogramDecoder;
use crate::storage::chunk::xor::{HEADER_LEN, XorDecoder};
use crate::storage::chunk::xor2::Xor2Decoder;
use crate::storage::chunk::{ChunkError, Encoding};

/// A decoder of one chunk.
#[derive(Debug)]
pub enum ChunkDecoder<'a, S: WordSource + ?Sized> {
    /// Floats.
    Floats(XorDecoder<'a, S>),
    /// Floats that may have start times.
    StartedFloats(Box<Xor2Decoder<'a, S>>),
    /// Histograms with whole counts.
    Histograms(Box<HistogramDecoder<'a, S, Histogram>>),
    /// Histograms with float counts.
    FloatHistograms(Box<HistogramDecoder<'a, S, FloatHistogram>>),
}

impl<'a> ChunkDecoder<'a, [u8]> {
    /// A decoder of a whole chunk, header included.
    pub fn of_chunk(encoding: Encoding, chunk: &'a [u8]) -> Result<Self, ChunkError> {
        let (count, bits) = chunk.split_first_chunk::<HEADER_LEN>().ok_or(ChunkError::Truncated { samples: 0 })?;
        Ok(Self::new(encoding, bits, bits.len() * 8, u16::from_be_bytes(*count)))
    }
}

impl<'a, S: WordSource + ?Sized> ChunkDecoder<'a, S> {
    /// A decoder of `count` samples in the first `bit_len` bits of `source`, which begins behind the sample count.
    pub fn new(encoding: Encoding, source: &'a S, bit_len: usize, count: u16) -> Self {
        match encoding {
            Encoding::Xor => Self::Floats(XorDecoder::new(source, bit_len, count)),
            Encoding::Histogram => Self::Histograms(Box::new(HistogramDecoder::new(source, bit_len, count))),
            Encoding::FloatHistogram => Self::FloatHistograms(Box::new(HistogramDecoder::new(source, bit_len, count))),
            Encoding::Xor2 => Self::StartedFloats(Box::new(Xor2Decoder::new(source, bit_len, count))),
            Encoding::HistogramStarts => {
                Self::Histograms(Box::new(HistogramDecoder::with_starts(source, bit_len, count)))
            }
            Encoding::FloatHistogramStarts => {
                Self::FloatHistograms(Box::new(HistogramDecoder::with_starts(source, bit_len, count)))
            }
        }
    }

    /// Time of the next sample, or `None` after the last. After an error there is nothing more to read.
    pub fn next_t(&mut self) -> Result<Option<i64>, ChunkError> {
        match self {
            Self::Floats(decoder) => Ok(decoder.next_sample()?.map(|(t, _)| t)),
            Self::StartedFloats(decoder) => Ok(decoder.next_sample()?.map(|sample| sample.t)),
            Self::Histograms(decoder) => decoder.advance(),
            Self::FloatHistograms(decoder) => decoder.advance(),
        }
    }
}

/// Time of the first sample of a chunk that has one.
pub fn first_t<S: WordSource + ?Sized>(encoding: Encoding, source: &S, bit_len: usize) -> Result<i64, ChunkError> {
    const NONE: ChunkError = ChunkError::Truncated { samples: 0 };
    match encoding {
        Encoding::Xor => BitReader::new(source, bit_len).read_varint().ok_or(NONE),
        Encoding::Xor2 => Xor2Decoder::new(source, bit_len, 1).first_t().ok_or(NONE),
        // Before the first sample both have a byte of header.
        Encoding::Histogram | Encoding::HistogramStarts => {
            HistogramDecoder::<S, Histogram>::new(source, bit_len, 1).first_t()
        }
        Encoding::FloatHistogram | Encoding::FloatHistogramStarts => {
            HistogramDecoder::<S, FloatHistogram>::new(source, bit_len, 1).first_t()
        }
    }
}
