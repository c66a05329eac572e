//! The XOR2 encoding of float samples (Prometheus encoding 4), byte for byte: time and value share a prefix, and a sample may
//! have a start time.
//! ```text
//! │ sample count u16 BE │ header of start times u8 │ bits …
//! sample 0    varint t, value in 64 bits, start
//! sample 1    uvarint Δt, value, start
//! sample ≥ 2  0 all as before │ 10, known value │ 110 + 13 bits dod, value │ 1110 + 20 bits dod, value │ 11110 + 64 bits dod, value
//!             │ 11111 marker, dod 0;   then start
//!   value        0 (same) │ 10 + bits in the previous window │ 110 + window │ 111 marker
//!   known value  0 + bits in the previous window │ 1 + window
//!   window       5 bits leading + 6 bits length (0 = 64) + bits
//!   start        as in `starts`
//! ```
//! A stale marker leaves the value with which the next one is compared as it was.

use crate::model::sample::{STALE_NAN_BITS, is_stale};
use crate::storage::chunk::ChunkError;
use crate::storage::chunk::bits::{BitReader, LongBits, SampleBits, WordSource};
use crate::storage::chunk::starts::{StartDecoder, StartEncoder};

/// A float sample with its start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StartedSample {
    /// Time.
    pub t: i64,
    /// When it began to count; 0 if that is not known.
    pub start: i64,
    /// Value.
    pub value: f64,
}

/// Decodes samples one by one.
#[derive(Debug)]
pub struct Xor2Decoder<'a, S: WordSource + ?Sized> {
    bits: BitReader<'a, S>,
    count: u16,
    read: u16,
    starts: Option<StartDecoder>,
    t: i64,
    t_delta: u64,
    /// Of the newest sample that is no marker.
    value_bits: u64,
    is_marker: bool,
    leading: u32,
    trailing: u32,
}

impl<'a, S: WordSource + ?Sized> Xor2Decoder<'a, S> {
    /// A decoder of `count` samples in the first `bit_len` bits of `source`, which begins behind the sample count.
    pub fn new(source: &'a S, bit_len: usize, count: u16) -> Self {
        Self {
            bits: BitReader::new(source, bit_len),
            count,
            read: 0,
            starts: None,
            t: 0,
            t_delta: 0,
            value_bits: 0,
            is_marker: false,
            leading: 0,
            trailing: 0,
        }
    }

    /// Time of the first sample, from a decoder that has read none.
    pub fn first_t(mut self) -> Option<i64> {
        self.bits.read(8)?;
        self.bits.read_varint()
    }

    /// The next sample, or `None` after the last. After an error there is nothing more to read.
    pub fn next_sample(&mut self) -> Result<Option<StartedSample>, ChunkError> {
        if self.read == self.count {
            return Ok(None);
        }
        let samples = self.read;
        let before = self.t;
        self.is_marker = false;
        match self.read {
            0 => self.read_first(),
            1 => self.read_second(),
            _ => self.read_other(),
        }
        .ok_or(ChunkError::Truncated { samples })?;
        let starts = self.starts.as_mut().ok_or(ChunkError::Invalid { samples })?;
        starts.read(&mut self.bits, self.read, self.t, before).ok_or(ChunkError::Truncated { samples })?;
        let start = starts.start();
        self.read += 1;
        let value = f64::from_bits(if self.is_marker { STALE_NAN_BITS } else { self.value_bits });
        Ok(Some(StartedSample { t: self.t, start, value }))
    }

    fn read_first(&mut self) -> Option<()> {
        let header = u8::try_from(self.bits.read(8)?).ok()?;
        self.starts = Some(StartDecoder::new(header));
        self.t = self.bits.read_varint()?;
        let value_bits = self.bits.read(64)?;
        self.is_marker = is_stale(f64::from_bits(value_bits));
        if !self.is_marker {
            self.value_bits = value_bits;
        }
        Some(())
    }

    fn read_second(&mut self) -> Option<()> {
        self.t_delta = self.bits.read_uvarint()?;
        self.t = self.t.wrapping_add(self.t_delta.cast_signed());
        self.read_value()
    }

    fn read_other(&mut self) -> Option<()> {
        let mut ones = 0;
        while ones < 5 && self.bits.read_bit()? {
            ones += 1;
        }
        let dod_len = match ones {
            2 => 13,
            3 => 20,
            4 => 64,
            _ => 0,
        };
        let raw = self.bits.read(dod_len)?;
        let dod = match dod_len {
            0 => 0,
            len => (raw << (64 - len)).cast_signed() >> (64 - len),
        };
        self.t_delta = self.t_delta.wrapping_add(dod.cast_unsigned());
        self.t = self.t.wrapping_add(self.t_delta.cast_signed());
        match ones {
            0 => Some(()),
            1 => {
                let is_new = self.bits.read_bit()?;
                self.read_window(is_new)
            }
            5 => {
                self.is_marker = true;
                Some(())
            }
            _ => self.read_value(),
        }
    }

    fn read_value(&mut self) -> Option<()> {
        if !self.bits.read_bit()? {
            return Some(());
        }
        if !self.bits.read_bit()? {
            return self.read_window(false);
        }
        self.is_marker = self.bits.read_bit()?;
        if self.is_marker { Some(()) } else { self.read_window(true) }
    }

    fn read_window(&mut self, is_new: bool) -> Option<()> {
        if is_new {
            self.leading = u32::try_from(self.bits.read(5)?).ok()?;
            let significant = match u32::try_from(self.bits.read(6)?).ok()? {
                0 => 64,
                some => some,
            };
            self.trailing = 64u32.checked_sub(self.leading + significant)?;
        }
        let significant = 64 - self.leading - self.trailing;
        let bits = self.bits.read(significant)?;
        // Of no significant bits there are none to shift.
        self.value_bits ^= bits.checked_shl(self.trailing).unwrap_or(0);
        Some(())
    }
}

/// Encodes samples.
#[derive(Clone, Debug, Default)]
struct Encoder {
    bits: LongBits,
    starts: StartEncoder,
    t: i64,
    t_delta: u64,
    value_bits: u64,
    /// Leading and trailing zeros.
    window: Option<(u32, u32)>,
}

impl Encoder {
    fn push(&mut self, number: u16, sample: &StartedSample) {
        let StartedSample { t, start, value } = *sample;
        let before = self.t;
        let t_delta = t.wrapping_sub(before).cast_unsigned();
        match number {
            0 => {
                self.bits.push_varint(t);
                self.bits.push(value.to_bits(), 64);
            }
            1 => {
                self.bits.push_uvarint(t_delta);
                self.push_value(value);
            }
            _ => self.push_joint(t_delta.wrapping_sub(self.t_delta).cast_signed(), value),
        }
        if 0 < number {
            self.t_delta = t_delta;
        }
        self.starts.write(&mut self.bits, number, t, before, start);
        self.t = t;
        if !is_stale(value) {
            self.value_bits = value.to_bits();
        }
    }

    fn push_joint(&mut self, dod: i64, value: f64) {
        let xor = value.to_bits() ^ self.value_bits;
        if dod == 0 {
            if is_stale(value) {
                self.bits.push(0b11111, 5);
            } else if xor == 0 {
                self.bits.push(0, 1);
            } else {
                self.bits.push(0b10, 2);
                let is_new = self.takes_new_window(xor);
                self.bits.push(u64::from(is_new), 1);
                self.push_window(xor, is_new);
            }
            return;
        }
        let fits = |bits: u32| -(1i64 << (bits - 1)) <= dod && dod < 1i64 << (bits - 1);
        let (prefix, prefix_len, len) = match () {
            () if fits(13) => (0b110, 3, 13),
            () if fits(20) => (0b1110, 4, 20),
            () => (0b11110, 5, 64),
        };
        self.bits.push(prefix, prefix_len);
        self.bits.push(dod.cast_unsigned(), len);
        self.push_value(value);
    }

    fn push_value(&mut self, value: f64) {
        if is_stale(value) {
            return self.bits.push(0b111, 3);
        }
        let xor = value.to_bits() ^ self.value_bits;
        if xor == 0 {
            return self.bits.push(0, 1);
        }
        let is_new = self.takes_new_window(xor);
        if is_new {
            self.bits.push(0b110, 3);
        } else {
            self.bits.push(0b10, 2);
        }
        self.push_window(xor, is_new);
    }

    fn takes_new_window(&self, xor: u64) -> bool {
        let (leading, trailing) = zeros_of(xor);
        self.window.is_none_or(|window| leading < window.0 || trailing < window.1)
    }

    fn push_window(&mut self, xor: u64, is_new: bool) {
        let (leading, trailing) = match self.window.filter(|_| !is_new) {
            Some(window) => window,
            None => {
                let (leading, trailing) = zeros_of(xor);
                self.window = Some((leading, trailing));
                self.bits.push(u64::from(leading), 5);
                // 64 is written as 0.
                self.bits.push(u64::from(64 - leading - trailing) & 0x3f, 6);
                (leading, trailing)
            }
        };
        self.bits.push(xor >> trailing, 64 - leading - trailing);
    }
}

/// Leading zeros, as many as five bits can say, and trailing ones.
fn zeros_of(xor: u64) -> (u32, u32) {
    (xor.leading_zeros().min(31), xor.trailing_zeros())
}

/// A chunk of these samples, which are at most 65,535, as it stands in files.
pub fn encode_xor2(samples: &[StartedSample]) -> Vec<u8> {
    let mut encoder = Encoder::default();
    let mut count = 0u16;
    for (number, sample) in (0u16..).zip(samples) {
        encoder.push(number, sample);
        count = number + 1;
    }
    let mut data = count.to_be_bytes().to_vec();
    data.push(encoder.starts.header());
    let len = data.len() + (encoder.bits.bit_len() as usize).div_ceil(8);
    data.extend(encoder.bits.each_word().flat_map(u64::to_be_bytes));
    data.truncate(len);
    data
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::sample::stale_nan;

    fn decode(chunk: &[u8]) -> Result<Vec<(i64, i64, u64)>, ChunkError> {
        let (count, bits) = chunk.split_first_chunk::<2>().unwrap();
        let mut decoder = Xor2Decoder::new(bits, bits.len() * 8, u16::from_be_bytes(*count));
        let mut all = Vec::new();
        while let Some(sample) = decoder.next_sample()? {
            all.push((sample.t, sample.start, sample.value.to_bits()));
        }
        Ok(all)
    }

    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![
            Just(stale_nan()),
            any::<u64>().prop_map(f64::from_bits),
            (0i32..100).prop_map(f64::from),
            Just(1.0)
        ]
    }

    proptest! {
        #[test]
        fn samples_are_read_back(
            steps in prop::collection::vec((prop_oneof![Just(15_000i64), 14_990i64..15_010, any::<i64>()], value(),
                prop_oneof![3 => Just(0i64), 3 => Just(7), 1 => any::<i64>()]), 0..200),
        ) {
            let mut t = 1_700_000_000_000i64;
            let samples: Vec<StartedSample> = steps
                .into_iter()
                .map(|(step, value, start)| {
                    t = t.wrapping_add(step);
                    StartedSample { t, start, value }
                })
                .collect();
            let expected: Vec<_> = samples.iter().map(|s| (s.t, s.start, s.value.to_bits())).collect();
            prop_assert_eq!(decode(&encode_xor2(&samples)).unwrap(), expected);
        }

        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 2..200)) {
            let _ = decode(&bytes);
        }
    }
}
