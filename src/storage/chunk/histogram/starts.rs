//! Histogram chunks with start times (Prometheus encodings 5 and 6): the same samples, each followed by its start as `starts`
//! writes it. The header of counter resets stands in the top bits of the sample count, that of start times in its place.

use crate::storage::chunk::ChunkError;
use crate::storage::chunk::bits::{LongBits, SampleBits};
use crate::storage::chunk::histogram::Native;
use crate::storage::chunk::histogram::decode::HistogramDecoder;
use crate::storage::chunk::histogram::encode::HistogramEncoder;
use crate::storage::chunk::starts::StartEncoder;

/// Most samples of a chunk with start times.
pub const STARTED_SAMPLES_MAX: u16 = 0x3fff;

/// A chunk without start times, of at most [`STARTED_SAMPLES_MAX`] samples, with the starts that `start_of` says by time.
pub fn with_starts<H: Native>(chunk: &[u8], start_of: impl Fn(i64) -> i64) -> Result<Vec<u8>, ChunkError> {
    let (count, bits) = chunk.split_first_chunk::<2>().ok_or(ChunkError::Truncated { samples: 0 })?;
    let count = u16::from_be_bytes(*count);
    let mut decoder = HistogramDecoder::<[u8], H>::new(bits, bits.len() * 8, count);
    let mut starts = StartEncoder::default();
    let mut encoder: Option<(HistogramEncoder<H>, LongBits)> = None;
    let (mut number, mut before) = (0u16, 0);
    while let Some(t) = decoder.advance()? {
        let histogram = decoder.histogram();
        let out = match &mut encoder {
            Some((encoder, out)) => {
                encoder.append_to(t, &histogram, out);
                out
            }
            None => &mut encoder.insert(HistogramEncoder::begin_with(decoder.header(), t, &histogram)).1,
        };
        starts.write(out, number, t, before, start_of(t));
        before = t;
        number += 1;
    }
    let header = decoder.header() as u16;
    let mut data = (header << 14 | number & STARTED_SAMPLES_MAX).to_be_bytes().to_vec();
    if let Some((_, bits)) = encoder {
        data.extend(bits.each_word().flat_map(u64::to_be_bytes));
        data.truncate(2 + (bits.bit_len() as usize).div_ceil(8));
        if let Some(place) = data.get_mut(2) {
            *place = starts.header();
        }
    }
    Ok(data)
}
