//! Bit streams, most significant bit first, over 64-bit words.
//! Invariant of [`BitBuffer`]: bits at and after `len` are zero, so that words can be joined with OR.

use std::sync::atomic::{AtomicU64, Ordering};

/// Most bits that one sample of a float chunk takes: 4 + 64 for the time stamp, 2 + 5 + 6 + 64 for the value. The first
/// two samples write a varint of at most 80 bits and at most 77 bits of value.
pub const SAMPLE_BITS_MAX: u32 = 157;

/// The bits of one sample, collected before they are joined to the chunk.
#[derive(Clone, Copy, Debug, Default)]
pub struct BitBuffer {
    words: [u64; 3],
    len: u32,
}

impl BitBuffer {
    /// Appends the `count` (at most 64) lowest bits of `value`.
    pub fn push(&mut self, value: u64, count: u32) {
        debug_assert!(count <= 64 && self.len + count <= 192);
        if count == 0 {
            return;
        }
        let value = value << (64 - count);
        let offset = self.len % 64;
        let index = (self.len / 64) as usize;
        if let Some(word) = self.words.get_mut(index) {
            *word |= value >> offset;
        }
        if offset + count > 64
            && let Some(word) = self.words.get_mut(index + 1)
        {
            *word |= value << (64 - offset);
        }
        self.len += count;
    }

    /// Appends an unsigned varint as Go's `binary.PutUvarint` writes it.
    pub fn push_uvarint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.push((value & 0x7f) | 0x80, 8);
            value >>= 7;
        }
        self.push(value, 8);
    }

    /// Appends a signed varint as Go's `binary.PutVarint` writes it (zigzag).
    pub fn push_varint(&mut self, value: i64) {
        self.push_uvarint(((value << 1) ^ (value >> 63)) as u64);
    }

    /// Number of bits.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// True if nothing was pushed.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The words that hold bits, left-aligned.
    pub fn words(&self) -> impl Iterator<Item = u64> + '_ {
        self.words.iter().copied().take(self.len.div_ceil(64) as usize)
    }
}

/// Takes bits.
pub trait PushBits {
    /// Appends the `count` (at most 64) lowest bits of `value`.
    fn push(&mut self, value: u64, count: u32);
}

impl PushBits for BitBuffer {
    fn push(&mut self, value: u64, count: u32) {
        BitBuffer::push(self, value, count);
    }
}

/// At most 128 bits, which stand in registers.
#[derive(Clone, Copy, Debug, Default)]
pub struct ShortBits {
    /// The newest bit is the lowest.
    bits: u128,
    len: u32,
}

impl ShortBits {
    /// Number of bits.
    #[inline]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// True if nothing was pushed.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bits, left-aligned.
    #[inline]
    pub fn aligned(&self) -> u128 {
        if self.len == 0 { 0 } else { self.bits << (128 - self.len) }
    }
}

impl PushBits for ShortBits {
    #[inline]
    fn push(&mut self, value: u64, count: u32) {
        debug_assert!(count <= 64 && self.len + count <= 128);
        if count == 0 {
            return;
        }
        self.bits = self.bits << count | u128::from(value << (64 - count) >> (64 - count));
        self.len += count;
    }
}

/// The bits of one or more samples, left-aligned in words.
pub trait SampleBits {
    /// Number of bits.
    fn bit_len(&self) -> u32;
    /// The words that hold bits; bits behind the last are zero.
    fn each_word(&self) -> impl Iterator<Item = u64> + '_;
}

impl SampleBits for BitBuffer {
    fn bit_len(&self) -> u32 {
        self.len
    }

    fn each_word(&self) -> impl Iterator<Item = u64> + '_ {
        self.words()
    }
}

impl SampleBits for ShortBits {
    #[inline]
    fn bit_len(&self) -> u32 {
        self.len
    }

    #[inline]
    fn each_word(&self) -> impl Iterator<Item = u64> + '_ {
        let bits = self.aligned();
        [(bits >> 64) as u64, bits as u64].into_iter().take(self.len.div_ceil(64) as usize)
    }
}

/// Bits without a bound, for histograms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LongBits {
    words: Vec<u64>,
    len: u32,
}

impl LongBits {
    /// Appends the `count` (at most 64) lowest bits of `value`.
    pub fn push(&mut self, value: u64, count: u32) {
        debug_assert!(count <= 64);
        if count == 0 {
            return;
        }
        let value = value << (64 - count);
        let offset = self.len % 64;
        match self.words.last_mut() {
            Some(word) if offset != 0 => {
                *word |= value >> offset;
                if 64 < offset + count {
                    self.words.push(value << (64 - offset));
                }
            }
            _ => self.words.push(value),
        }
        self.len += count;
    }

    /// Appends an unsigned varint as Go's `binary.PutUvarint` writes it.
    pub fn push_uvarint(&mut self, mut value: u64) {
        while 0x80 <= value {
            self.push(value & 0x7f | 0x80, 8);
            value >>= 7;
        }
        self.push(value, 8);
    }

    /// Appends a signed varint as Go's `binary.PutVarint` writes it (zigzag).
    pub fn push_varint(&mut self, value: i64) {
        self.push_uvarint((value << 1 ^ value >> 63).cast_unsigned());
    }

    /// Appends a signed number in few bits if it is near zero.
    pub fn push_varbit_int(&mut self, value: i64) {
        if value == 0 {
            return self.push(0, 1);
        }
        let raw = value.cast_unsigned();
        for (prefix, prefix_len, len) in VARBIT_RANGES {
            if -((1i64 << (len - 1)) - 1) <= value && value <= 1i64 << (len - 1) {
                self.push(prefix, prefix_len);
                return self.push(raw, len);
            }
        }
        self.push(0xff, 8);
        self.push(raw, 64);
    }

    /// Appends an unsigned number in few bits if it is small.
    pub fn push_varbit_uint(&mut self, value: u64) {
        if value == 0 {
            return self.push(0, 1);
        }
        for (prefix, prefix_len, len) in VARBIT_RANGES {
            if value >> len == 0 {
                self.push(prefix, prefix_len);
                return self.push(value, len);
            }
        }
        self.push(0xff, 8);
        self.push(value, 64);
    }
}

/// Prefixes of the variable-length numbers in histogram chunks: the bits, their number, and the bits that follow.
const VARBIT_RANGES: [(u64, u32, u32); 7] = [
    (0b10, 2, 3),
    (0b110, 3, 6),
    (0b1110, 4, 9),
    (0b1_1110, 5, 12),
    (0b11_1110, 6, 18),
    (0b111_1110, 7, 25),
    (0b1111_1110, 8, 56),
];

impl SampleBits for LongBits {
    fn bit_len(&self) -> u32 {
        self.len
    }

    fn each_word(&self) -> impl Iterator<Item = u64> + '_ {
        self.words.iter().copied()
    }
}

/// Bits that can be read at any place; past their end they are zero.
pub trait WordSource {
    /// The 64 bits from bit number `at` on.
    fn peek(&self, at: usize) -> u64;
}

impl WordSource for [u8] {
    #[inline]
    fn peek(&self, at: usize) -> u64 {
        let (from, offset) = (at / 8, at % 8);
        let rest = self.get(from..).unwrap_or(&[]);
        match rest.first_chunk::<9>() {
            Some(&[a, b, c, d, e, f, g, h, last]) => {
                let word = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
                word << offset | u64::from(last) >> (8 - offset)
            }
            None => peek_at_end(rest, offset),
        }
    }
}

#[cold]
#[inline(never)]
fn peek_at_end(rest: &[u8], offset: usize) -> u64 {
    let mut raw = [0; 16];
    for (to, from) in raw.iter_mut().zip(rest) {
        *to = *from;
    }
    (u128::from_be_bytes(raw) << offset >> 64) as u64
}

impl WordSource for [AtomicU64] {
    #[inline]
    fn peek(&self, at: usize) -> u64 {
        let (index, offset) = (at / 64, at % 64);
        // Relaxed is enough: the reader has acquired a bit length, and uses nothing beyond it.
        let word = |index: usize| self.get(index).map_or(0, |word| word.load(Ordering::Relaxed));
        word(index) << offset | word(index + 1) >> 1 >> (63 - offset)
    }
}

/// Reads bits from a [`WordSource`] up to a fixed length.
#[derive(Clone, Debug)]
pub struct BitReader<'a, S: WordSource + ?Sized> {
    source: &'a S,
    at: usize,
    end: usize,
}

impl<'a, S: WordSource + ?Sized> BitReader<'a, S> {
    /// A reader of the first `bit_len` bits.
    pub fn new(source: &'a S, bit_len: usize) -> Self {
        Self::starting_at(source, 0, bit_len)
    }

    /// A reader of the first `bit_len` bits from bit `at` on.
    pub(super) fn starting_at(source: &'a S, at: usize, bit_len: usize) -> Self {
        Self { source, at, end: bit_len }
    }

    /// Bits that were read or passed over.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// The next `count` (at most 64) bits, right-aligned, or `None` if fewer are left.
    #[inline]
    pub fn read(&mut self, count: u32) -> Option<u64> {
        debug_assert!(count <= 64);
        if count == 0 {
            return Some(0);
        }
        let value = self.source.peek(self.at) >> (64 - count);
        self.skip(count).then_some(value)
    }

    #[inline]
    fn skip(&mut self, count: u32) -> bool {
        let to = self.at + count as usize;
        if self.end < to {
            return false;
        }
        self.at = to;
        true
    }

    /// The next bit.
    #[inline]
    pub fn read_bit(&mut self) -> Option<bool> {
        self.read(1).map(|bit| bit == 1)
    }

    /// An unsigned varint of at most ten bytes; `None` if it does not end or overflows.
    pub fn read_uvarint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.read(8)?;
            let bits = byte & 0x7f;
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// A signed (zigzag) varint.
    pub fn read_varint(&mut self) -> Option<i64> {
        let raw = self.read_uvarint()?;
        Some(((raw >> 1) as i64) ^ -((raw & 1) as i64))
    }

    /// Bits that are left.
    pub fn left(&self) -> usize {
        self.end.saturating_sub(self.at)
    }

    /// The length of the number that a prefix announces; 0 for the number zero.
    fn read_varbit_len(&mut self) -> Option<u32> {
        let mut ones = 0;
        while ones < 8 && self.read_bit()? {
            ones += 1;
        }
        Some(match ones {
            0 => 0,
            8 => 64,
            ones => VARBIT_RANGES.get(ones - 1).map_or(64, |(_, _, len)| *len),
        })
    }

    /// A signed number of [`LongBits::push_varbit_int`].
    pub fn read_varbit_int(&mut self) -> Option<i64> {
        let len = self.read_varbit_len()?;
        let raw = self.read(len)?;
        if len == 0 || len == 64 {
            return Some(raw.cast_signed());
        }
        let raw = raw.cast_signed();
        Some(if 1 << (len - 1) < raw { raw - (1 << len) } else { raw })
    }

    /// An unsigned number of [`LongBits::push_varbit_uint`].
    pub fn read_varbit_uint(&mut self) -> Option<u64> {
        let len = self.read_varbit_len()?;
        self.read(len)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pushed_bits_are_read_back(fields in proptest::collection::vec((any::<u64>(), 0u32..=64), 0..3)) {
            let mut buffer = BitBuffer::default();
            for (value, count) in &fields {
                buffer.push(*value, *count);
            }
            let bytes: Vec<u8> = buffer.words().flat_map(u64::to_be_bytes).collect();
            let mut reader = BitReader::new(bytes.as_slice(), buffer.len() as usize);
            for (value, count) in fields {
                let expected = if count == 0 { 0 } else { value & (u64::MAX >> (64 - count)) };
                prop_assert_eq!(reader.read(count), Some(expected));
            }
            prop_assert_eq!(reader.read(1), None);
        }

        #[test]
        fn varints_are_those_of_go(value: i64) {
            let mut buffer = BitBuffer::default();
            buffer.push_varint(value);
            let bytes: Vec<u8> = buffer.words().flat_map(u64::to_be_bytes).collect();
            prop_assert_eq!(BitReader::new(bytes.as_slice(), buffer.len() as usize).read_varint(), Some(value));
        }
    }

    proptest! {
        #[test]
        fn varbits_are_read_back(raw: u64, shift in 0u32..64, pad in 0u32..70) {
            let value = raw >> shift;
            let mut bits = LongBits::default();
            bits.push(0, pad.min(64));
            bits.push_varbit_uint(value);
            bits.push_varbit_int(value.cast_signed());
            bits.push_varbit_int(value.cast_signed().wrapping_neg());
            let bytes: Vec<u8> = bits.each_word().flat_map(u64::to_be_bytes).collect();
            let mut reader = BitReader::new(bytes.as_slice(), bits.bit_len() as usize);
            prop_assert_eq!(reader.read(pad.min(64)), Some(0));
            prop_assert_eq!(reader.read_varbit_uint(), Some(value));
            prop_assert_eq!(reader.read_varbit_int(), Some(value.cast_signed()));
            prop_assert_eq!(reader.read_varbit_int(), Some(value.cast_signed().wrapping_neg()));
            prop_assert_eq!(reader.left(), 0);
        }
    }

    #[test]
    fn endless_varints_are_refused() {
        let bytes = [0xff; 16];
        assert_eq!(BitReader::new(bytes.as_slice(), 128).read_uvarint(), None);
    }
}
