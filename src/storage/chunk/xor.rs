//! The XOR encoding of float samples (Prometheus encoding 1), byte for byte.
//! ```text
//! │ sample count u16 BE │ bits …
//! sample 0    varint t, value in 64 bits
//! sample 1    uvarint Δt, xor
//! sample ≥ 2  dod, xor
//!   dod  0 │ 10 + 14 bits │ 110 + 17 bits │ 1110 + 20 bits │ 1111 + 64 bits
//!   xor  0 (same) │ 10 + bits in the previous window │ 11 + 5 bits leading + 6 bits length (0 = 64) + bits
//! ```
//! Signed fields of n bits hold `-(2^(n-1)-1) ..= 2^(n-1)`.

use std::num::NonZeroU8;

use crate::model::read::FloatColumn;
use crate::storage::chunk::ChunkError;
use crate::storage::chunk::bits::{BitBuffer, BitReader, PushBits, ShortBits, WordSource};

/// Bytes before the bits: the sample count.
pub const HEADER_LEN: usize = 2;

/// Leading zeros of a window, one more than they are, so that the encoder has an invalid value beside its own: a place that
/// may hold an encoder or something else costs nothing more.
const NO_WINDOW: NonZeroU8 = NonZeroU8::MAX;

/// What the encoder knows of the samples so far; the caller keeps their number.
#[derive(Clone, Copy, Debug)]
pub struct XorEncoder {
    t: i64,
    value_bits: u64,
    t_delta: u64,
    leading: NonZeroU8,
    trailing: u8,
}

impl Default for XorEncoder {
    fn default() -> Self {
        Self { t: 0, value_bits: 0, t_delta: 0, leading: NO_WINDOW, trailing: 0 }
    }
}

impl XorEncoder {
    /// An encoder whose chunk has ended with this sample.
    pub fn ended(t: i64, value_bits: u64) -> Self {
        Self { t, value_bits, ..Self::default() }
    }

    /// Time stamp of the newest sample; meaningless before the first.
    pub fn last_t(&self) -> i64 {
        self.t
    }

    /// Bits of the newest sample's value; meaningless before the first.
    pub fn last_value_bits(&self) -> u64 {
        self.value_bits
    }

    /// The bits that append a sample to a chunk of `count` samples.
    pub fn encode(&mut self, count: u16, t: i64, value: f64) -> BitBuffer {
        let mut out = BitBuffer::default();
        let value_bits = value.to_bits();
        match count {
            0 => {
                *self = Self::default();
                out.push_varint(t);
                out.push(value_bits, 64);
            }
            1 => {
                self.t_delta = t.wrapping_sub(self.t) as u64;
                out.push_uvarint(self.t_delta);
                self.encode_value(&mut out, value_bits);
            }
            _ => {
                let t_delta = t.wrapping_sub(self.t) as u64;
                encode_dod(&mut out, t_delta.wrapping_sub(self.t_delta) as i64);
                self.t_delta = t_delta;
                self.encode_value(&mut out, value_bits);
            }
        }
        self.t = t;
        self.value_bits = value_bits;
        out
    }

    /// The same for a sample behind the first two; `None`, with nothing done, if its time is so far from where it was due that
    /// the bits may be too many.
    #[inline]
    pub fn encode_short(&mut self, t: i64, value: f64) -> Option<ShortBits> {
        let t_delta = t.wrapping_sub(self.t) as u64;
        let dod = t_delta.wrapping_sub(self.t_delta) as i64;
        if !fits(dod, 20) {
            return None;
        }
        let mut out = ShortBits::default();
        encode_dod(&mut out, dod);
        self.t_delta = t_delta;
        self.encode_value(&mut out, value.to_bits());
        (self.t, self.value_bits) = (t, value.to_bits());
        Some(out)
    }

    #[inline]
    fn encode_value<B: PushBits>(&mut self, out: &mut B, value_bits: u64) {
        let xor = value_bits ^ self.value_bits;
        if xor == 0 {
            return out.push(0, 1);
        }
        // At most 64, so both fit; leading zeros are held at what five bits can say.
        let leading = (xor.leading_zeros() as u8).min(31);
        let trailing = xor.trailing_zeros() as u8;
        let window = self.leading.get() - 1;
        if self.leading != NO_WINDOW && window <= leading && self.trailing <= trailing {
            out.push(0b10, 2);
            return out.push(xor >> self.trailing, 64 - u32::from(window) - u32::from(self.trailing));
        }
        (self.leading, self.trailing) = (NonZeroU8::MIN.saturating_add(leading), trailing);
        let significant = 64 - u32::from(leading) - u32::from(trailing);
        out.push(0b11, 2);
        out.push(u64::from(leading), 5);
        out.push(u64::from(significant), 6);
        out.push(xor >> trailing, significant);
    }
}

#[inline]
fn fits(dod: i64, bits: u32) -> bool {
    -((1i64 << (bits - 1)) - 1) <= dod && dod <= 1i64 << (bits - 1)
}

#[inline]
fn encode_dod<B: PushBits>(out: &mut B, dod: i64) {
    if dod == 0 {
        out.push(0, 1);
    } else if fits(dod, 14) {
        out.push(0b10, 2);
        out.push(dod as u64, 14);
    } else if fits(dod, 17) {
        out.push(0b110, 3);
        out.push(dod as u64, 17);
    } else if fits(dod, 20) {
        out.push(0b1110, 4);
        out.push(dod as u64, 20);
    } else {
        out.push(0b1111, 4);
        out.push(dod as u64, 64);
    }
}

/// Decodes samples: one by one, or all in one go, which is faster.
#[derive(Debug)]
pub struct XorDecoder<'a, S: WordSource + ?Sized> {
    source: &'a S,
    bit_len: usize,
    count: u16,
    read: u16,
    state: State,
}

/// What a decoder knows of the samples so far.
#[derive(Clone, Copy, Debug)]
struct State {
    /// Bits that were read.
    at: usize,
    t: i64,
    value_bits: u64,
    t_delta: u64,
    leading: u32,
    /// Significant bits of the current window; before the first window all 64.
    significant: u32,
}

impl<S: WordSource + ?Sized> Clone for XorDecoder<'_, S> {
    fn clone(&self) -> Self {
        let Self { source, bit_len, count, read, state } = *self;
        Self { source, bit_len, count, read, state }
    }
}

impl<'a> XorDecoder<'a, [u8]> {
    /// A decoder of a whole chunk, header included.
    pub fn of_chunk(chunk: &'a [u8]) -> Result<Self, ChunkError> {
        let (&[high, low], bits) = chunk.split_first_chunk().ok_or(ChunkError::Truncated { samples: 0 })?;
        Ok(Self::new(bits, bits.len() * 8, u16::from_be_bytes([high, low])))
    }
}

impl<'a, S: WordSource + ?Sized> XorDecoder<'a, S> {
    /// A decoder of `count` samples in the first `bit_len` bits of `source`.
    pub fn new(source: &'a S, bit_len: usize, count: u16) -> Self {
        let state = State { at: 0, t: 0, value_bits: 0, t_delta: 0, leading: 0, significant: 64 };
        Self { source, bit_len, count, read: 0, state }
    }

    /// Where its bits stand.
    pub fn source(&self) -> &'a S {
        self.source
    }

    /// Samples that are still to come.
    pub fn left(&self) -> usize {
        usize::from(self.count - self.read)
    }

    /// Time of the chunk's first sample.
    pub fn first_t(&self) -> Option<i64> {
        BitReader::new(self.source, self.bit_len).read_varint()
    }

    /// The next sample, or `None` after the last. After an error there is nothing more to read.
    #[inline]
    pub fn next_sample(&mut self) -> Result<Option<(i64, f64)>, ChunkError> {
        if self.read == self.count {
            return Ok(None);
        }
        if self.read < 2 {
            self.begin()?;
        } else {
            self.state.advance(self.source, self.bit_len).map_err(|fault| fault.after(self.read))?;
        }
        self.read += 1;
        Ok(Some((self.state.t, f64::from_bits(self.state.value_bits))))
    }

    /// Calls `take` with each sample that is left, until it returns false.
    #[inline]
    pub fn for_each(mut self, mut take: impl FnMut(i64, f64) -> bool) -> Result<(), ChunkError> {
        while self.read < self.count.min(2) {
            self.begin()?;
            self.read += 1;
            if !take(self.state.t, f64::from_bits(self.state.value_bits)) {
                return Ok(());
            }
        }
        // Kept apart, so that it can stand in registers.
        let mut state = self.state;
        for read in self.read..self.count {
            state.advance(self.source, self.bit_len).map_err(|fault| fault.after(read))?;
            if !take(state.t, f64::from_bits(state.value_bits)) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Passes over all samples before `min`, so that the one at or behind it is the next. Returns the place, unless it is
    /// among the first two samples.
    pub fn skip_to(&mut self, min: i64) -> Result<Option<Mark>, ChunkError> {
        while self.read < self.count.min(2) {
            let before = (self.read, self.state);
            self.begin()?;
            self.read += 1;
            if min <= self.state.t {
                (self.read, self.state) = before;
                return Ok(None);
            }
        }
        let mut state = self.state;
        for read in self.read..self.count {
            let before = state;
            state.advance(self.source, self.bit_len).map_err(|fault| fault.after(read))?;
            if min <= state.t {
                (self.read, self.state) = (read, before);
                return Ok(self.place());
            }
        }
        (self.read, self.state) = (self.count, state);
        Ok(self.place())
    }

    /// Passes over all samples up to `max`: the place behind the last of them, which knows that sample. `None` if there is
    /// none in the chunk.
    pub fn skip_behind(&mut self, max: i64) -> Result<Option<Mark>, ChunkError> {
        while self.read < self.count.min(2) {
            let before = self.state;
            self.begin()?;
            if max < self.state.t {
                self.state = before;
                return Ok(self.place());
            }
            self.read += 1;
        }
        let mut state = self.state;
        for read in self.read..self.count {
            let before = state;
            state.advance(self.source, self.bit_len).map_err(|fault| fault.after(read))?;
            if max < state.t {
                (self.read, self.state) = (read, before);
                return Ok(self.place());
            }
        }
        (self.read, self.state) = (self.count, state);
        Ok(self.place())
    }

    /// Where the decoder is, if it has read a sample.
    fn place(&self) -> Option<Mark> {
        (0 < self.read).then_some(Mark { read: self.read, state: self.state })
    }

    /// Goes on from a mark of the same chunk, which had at least as many samples as when the mark was made.
    pub fn resume(&mut self, mark: Mark) {
        (self.read, self.state) = (mark.read, mark.state);
    }

    /// Appends the samples from `min` to `max`, both inclusive, to a column.
    pub fn append_to(self, min: i64, max: i64, out: &mut FloatColumn) -> Result<(), ChunkError> {
        let (from, room) = (out.len(), usize::from(self.count - self.read));
        out.timestamps.resize(from + room, 0);
        out.values.resize(from + room, 0.0);
        let timestamps = out.timestamps.get_mut(from..).unwrap_or(&mut []);
        let values = out.values.get_mut(from..).unwrap_or(&mut []);
        let mut kept = 0;
        let outcome = self.for_each(|t, value| {
            if min <= t
                && t <= max
                && let (Some(at), Some(to)) = (timestamps.get_mut(kept), values.get_mut(kept))
            {
                (*at, *to) = (t, value);
                kept += 1;
            }
            t < max
        });
        out.timestamps.truncate(from + kept);
        out.values.truncate(from + kept);
        outcome
    }

    /// Reads one of the first two samples.
    #[inline(never)]
    fn begin(&mut self) -> Result<(), ChunkError> {
        let truncated = ChunkError::Truncated { samples: self.read };
        let mut bits = BitReader::starting_at(self.source, self.state.at, self.bit_len);
        if self.read == 0 {
            let t = bits.read_varint();
            (self.state.t, self.state.value_bits) = t.zip(bits.read(64)).ok_or(truncated)?;
            self.state.at = bits.position();
            return Ok(());
        }
        self.state.t_delta = bits.read_uvarint().ok_or(truncated)?;
        self.state.t = self.state.t.wrapping_add(self.state.t_delta as i64);
        let at = bits.position();
        let ahead = self.source.peek(at);
        self.state.read_value(self.source, self.bit_len, at, ahead).map_err(|fault| fault.after(self.read))
    }
}

/// A place in a chunk from which its decoder can go on.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    read: u16,
    state: State,
}

impl Mark {
    /// Words that a mark takes.
    pub const WORDS: usize = 4;

    /// Time of the sample before the place.
    pub fn last_t(&self) -> i64 {
        self.state.t
    }

    /// Value of the sample before the place.
    pub fn last_value(&self) -> f64 {
        f64::from_bits(self.state.value_bits)
    }

    /// Samples before the place.
    pub fn samples(&self) -> u16 {
        self.read
    }

    /// The mark as plain words.
    pub fn to_words(self) -> [u64; Self::WORDS] {
        let State { at, t, value_bits, t_delta, leading, significant } = self.state;
        let widths = u64::from(leading) << 8 | u64::from(significant);
        // A chunk has far less than 2^32 bits.
        [(at as u64) << 32 | u64::from(self.read) << 16 | widths, t as u64, value_bits, t_delta]
    }

    /// The mark that gave these words.
    pub fn from_words([place, t, value_bits, t_delta]: [u64; Self::WORDS]) -> Self {
        let state = State {
            at: (place >> 32) as usize,
            t: t as i64,
            value_bits,
            t_delta,
            leading: (place >> 8) as u32 & 0xff,
            significant: place as u32 & 0xff,
        };
        Self { read: (place >> 16) as u16, state }
    }
}

/// Why a sample cannot be read.
#[derive(Clone, Copy)]
enum Fault {
    Truncated,
    Invalid,
}

impl Fault {
    #[cold]
    fn after(self, samples: u16) -> ChunkError {
        match self {
            Self::Truncated => ChunkError::Truncated { samples },
            Self::Invalid => ChunkError::Invalid { samples },
        }
    }
}

impl State {
    /// Reads a sample behind the first two.
    #[inline(always)]
    fn advance<S: WordSource + ?Sized>(&mut self, source: &S, bit_len: usize) -> Result<(), Fault> {
        let mut ahead = source.peek(self.at);
        // Scrapes keep their interval: almost always this bit is clear, and one look serves time and value.
        let mut at = self.at + 1;
        if ahead >> 63 != 0 {
            let (dod, behind) = read_dod(source, self.at, bit_len).ok_or(Fault::Truncated)?;
            self.t_delta = self.t_delta.wrapping_add(dod as u64);
            at = behind;
            ahead = source.peek(at);
        } else {
            ahead <<= 1;
        }
        self.t = self.t.wrapping_add(self.t_delta as i64);
        self.read_value(source, bit_len, at, ahead)
    }

    /// Reads a value that stands at bit `at`; `ahead` are the bits from there on, 63 of them at least. Whether a value keeps
    /// the window of the one before cannot be predicted, so that is chosen without a branch.
    #[inline(always)]
    fn read_value<S: WordSource + ?Sized>(
        &mut self,
        source: &S,
        bit_len: usize,
        at: usize,
        ahead: u64,
    ) -> Result<(), Fault> {
        if ahead >> 63 == 0 {
            self.at = at + 1;
            return if bit_len < self.at { Err(Fault::Truncated) } else { Ok(()) };
        }
        let opens_window = ahead >> 62 & 1 == 1;
        let leading = if opens_window { (ahead >> 57) as u32 & 31 } else { self.leading };
        // A length of 64 is written as 0.
        let written = ((ahead >> 51) as u32).wrapping_sub(1) & 63;
        let significant = if opens_window { written + 1 } else { self.significant };
        let from = at + if opens_window { 13 } else { 2 };
        self.at = from + significant as usize;
        if 64 < leading + significant || bit_len < self.at {
            return Err(if bit_len < from || leading + significant <= 64 { Fault::Truncated } else { Fault::Invalid });
        }
        (self.leading, self.significant) = (leading, significant);
        // Both are from 1 to 64 and from 0 to 63: the masks change nothing and spare checks.
        self.value_bits ^= source.peek(from) >> ((64 - significant) & 63) << ((64 - leading - significant) & 63);
        Ok(())
    }
}

/// The change of the time's difference that stands at bit `at`, and the place behind it.
#[cold]
#[inline(never)]
fn read_dod<S: WordSource + ?Sized>(source: &S, at: usize, bit_len: usize) -> Option<(i64, usize)> {
    let mut bits = BitReader::starting_at(source, at, bit_len);
    let mut ones = 0;
    while ones < 4 && bits.read_bit()? {
        ones += 1;
    }
    let width = match ones {
        0 => return Some((0, bits.position())),
        1 => 14,
        2 => 17,
        3 => 20,
        _ => return bits.read(64).map(|raw| (raw as i64, bits.position())),
    };
    let raw = bits.read(width)? as i64;
    Some((if raw > 1 << (width - 1) { raw - (1 << width) } else { raw }, bits.position()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::sample::{NORMAL_NAN_BITS, STALE_NAN_BITS};

    /// The chunk as bytes, joined bit by bit: a second, slow path beside `OpenWords`.
    fn encode_slowly(samples: &[(i64, f64)]) -> Vec<u8> {
        let mut bits: Vec<bool> = Vec::new();
        let mut encoder = XorEncoder::default();
        for (i, (t, v)) in samples.iter().enumerate() {
            let buffer = encoder.encode(u16::try_from(i).unwrap(), *t, *v);
            let words: Vec<u64> = buffer.words().collect();
            bits.extend((0..buffer.len() as usize).map(|b| words[b / 64] >> (63 - b % 64) & 1 == 1));
        }
        let mut out = u16::try_from(samples.len()).unwrap().to_be_bytes().to_vec();
        out.extend(bits.chunks(8).map(|c| c.iter().enumerate().fold(0, |byte, (i, b)| byte | u8::from(*b) << (7 - i))));
        out
    }

    fn decode(chunk: &[u8]) -> Result<Vec<(i64, u64)>, ChunkError> {
        let mut decoder = XorDecoder::of_chunk(chunk)?;
        let (mut out, mut at_once) = (Vec::new(), Vec::new());
        let whole = XorDecoder::of_chunk(chunk)?.for_each(|t, v| {
            at_once.push((t, v.to_bits()));
            true
        });
        loop {
            match decoder.next_sample() {
                Ok(Some((t, v))) => out.push((t, v.to_bits())),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!((whole, at_once), (Err(error), out));
                    return Err(error);
                }
            }
        }
        assert_eq!((whole, &at_once), (Ok(()), &out));
        Ok(out)
    }

    #[test]
    fn a_window_is_opened_kept_and_replaced() {
        // By hand: t = 1000 is zigzag 2000; then Δ 15 and 1.0 ^ 2.0 = 0x7ff0 << 48: 1 leading zero, 11 significant bits;
        // then no change of Δ, and the same value.
        let chunk = encode_slowly(&[(1000, 1.0), (1015, 2.0), (1030, 2.0)]);
        let mut expected = vec![0, 3, 0xd0, 0x0f];
        expected.extend(1.0f64.to_bits().to_be_bytes());
        expected.extend([0x0f, 0b1100_0010, 0b0101_1111, 0b1111_1111, 0b0000_0000]);
        assert_eq!(chunk.len(), 4 + 8 + 1 + 4);
        assert_eq!(chunk, expected);
    }

    fn any_value() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<u64>().prop_map(f64::from_bits),
            Just(f64::from_bits(STALE_NAN_BITS)),
            Just(f64::from_bits(NORMAL_NAN_BITS)),
            (0i32..50).prop_map(f64::from),
        ]
    }

    fn any_delta() -> impl Strategy<Value = i64> {
        prop_oneof![Just(15_000), 14_990i64..15_010, 1i64..1 << 22, any::<u32>().prop_map(|d| i64::from(d) << 20)]
    }

    proptest! {
        #[test]
        fn round_trips(start: i64, steps in proptest::collection::vec((any_delta(), any_value()), 0..300)) {
            let mut t = start;
            let samples: Vec<(i64, f64)> =
                steps.iter().map(|(d, v)| { t = t.wrapping_add(*d); (t, *v) }).collect();
            let expected: Vec<(i64, u64)> = samples.iter().map(|(t, v)| (*t, v.to_bits())).collect();
            prop_assert_eq!(decode(&encode_slowly(&samples)), Ok(expected));
        }

        #[test]
        fn decoding_goes_on_from_a_mark(steps in proptest::collection::vec((1i64..20, any_value()), 0..90), from in 0i64..900, later in 0i64..200) {
            let mut t = 0;
            let samples: Vec<(i64, f64)> = steps.iter().map(|(d, v)| { t += d; (t, *v) }).collect();
            let chunk = encode_slowly(&samples);
            let mut decoder = XorDecoder::of_chunk(&chunk).unwrap();
            let mark = decoder.skip_to(from).unwrap();
            let rest = |mut decoder: XorDecoder<'_, [u8]>| {
                let mut rest = Vec::new();
                while let Some((t, v)) = decoder.next_sample().unwrap() {
                    rest.push((t, v.to_bits()));
                }
                rest
            };
            let behind = |min: i64| samples.iter().filter(|(t, _)| min <= *t).map(|(t, v)| (*t, v.to_bits())).collect::<Vec<_>>();
            prop_assert_eq!(rest(decoder), behind(from));
            if let Some(mark) = mark {
                prop_assert!(mark.last_t() < from);
                let mut decoder = XorDecoder::of_chunk(&chunk).unwrap();
                decoder.resume(Mark::from_words(mark.to_words()));
                decoder.skip_to(from + later).unwrap();
                prop_assert_eq!(rest(decoder), behind(from + later));
            }
        }

        #[test]
        fn the_newest_sample_up_to_a_time_is_found(steps in proptest::collection::vec((1i64..20, any_value()), 0..90), max in 0i64..900, later in 0i64..200) {
            let mut t = 0;
            let samples: Vec<(i64, f64)> = steps.iter().map(|(d, v)| { t += d; (t, *v) }).collect();
            let chunk = encode_slowly(&samples);
            let newest = |max: i64| samples.iter().rfind(|(t, _)| *t <= max).map(|(t, v)| (*t, v.to_bits()));
            let seen = |mark: Option<Mark>| mark.map(|mark| (mark.last_t(), mark.last_value().to_bits()));
            let mut decoder = XorDecoder::of_chunk(&chunk).unwrap();
            let mark = decoder.skip_behind(max).unwrap();
            prop_assert_eq!(seen(mark), newest(max));
            prop_assert_eq!(decoder.left(), samples.iter().filter(|(t, _)| max < *t).count());
            if let Some(mark) = mark {
                let mut decoder = XorDecoder::of_chunk(&chunk).unwrap();
                decoder.resume(mark);
                prop_assert_eq!(seen(decoder.skip_behind(max + later).unwrap()), newest(max + later));
            }
        }

        #[test]
        fn a_range_is_appended(steps in proptest::collection::vec((1i64..20, any_value()), 0..60), min in 0i64..200, len in 0i64..200) {
            let mut t = 0;
            let samples: Vec<(i64, f64)> = steps.iter().map(|(d, v)| { t += d; (t, *v) }).collect();
            let chunk = encode_slowly(&samples);
            let mut column = FloatColumn { timestamps: vec![-1], values: vec![0.5] };
            XorDecoder::of_chunk(&chunk).unwrap().append_to(min, min + len, &mut column).unwrap();
            let inside = samples.iter().filter(|(t, _)| min <= *t && *t <= min + len);
            let expected: Vec<_> = std::iter::once((-1, 0.5f64.to_bits())).chain(inside.map(|(t, v)| (*t, v.to_bits()))).collect();
            let values = column.values.iter().map(|v| v.to_bits());
            prop_assert_eq!(column.timestamps.iter().copied().zip(values).collect::<Vec<_>>(), expected);
        }

        #[test]
        fn never_panics(chunk in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&chunk);
        }

        #[test]
        fn truncation_is_an_error(cut in 1usize..30) {
            let samples: Vec<(i64, f64)> = (0..40).map(|i| (i * 1000, 0.1 * i as f64)).collect();
            let chunk = encode_slowly(&samples);
            prop_assert!(decode(&chunk[..chunk.len() - cut]).is_err());
        }
    }
}
