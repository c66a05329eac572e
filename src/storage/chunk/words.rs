//! The bits of a chunk that one writer extends while any number of readers decode it, without locks or copies.
//!
//! The writer joins bits to the words and then publishes (sample count, bit length) with one release store; a reader
//! acquires that pair and reads only what it covers. Bits once published never change, so a reader is never disturbed.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::storage::chunk::bits::{SampleBits, ShortBits};
use crate::storage::chunk::xor::HEADER_LEN;

/// Words for the first samples of a chunk.
const WORDS_MIN: usize = 4;

/// Published length of an open chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Samples that may be read.
    pub samples: u16,
    /// Bits that they take.
    pub bits: u32,
}

/// A growing run of bits in a fixed number of words. One writer, many readers.
#[derive(Debug)]
pub struct OpenWords {
    published: AtomicU64,
    words: Box<[AtomicU64]>,
}

impl OpenWords {
    /// Room for `first`, with that as the only, already published sample.
    pub fn starting_with<B: SampleBits>(first: &B) -> Self {
        let words = zeroed(WORDS_MIN.max(first.bit_len().div_ceil(64) as usize));
        let new = Self { published: AtomicU64::new(0), words };
        new.append(Published::default(), first);
        new
    }

    /// The published bits of a chunk as it stands in files, to which nothing is appended.
    pub fn of_chunk(chunk: &[u8]) -> Self {
        let (count, bits) = chunk.split_first_chunk::<HEADER_LEN>().unwrap_or((&[0; HEADER_LEN], &[]));
        let word = |raw: &[u8]| {
            let mut whole = [0; 8];
            whole.iter_mut().zip(raw).for_each(|(to, from)| *to = *from);
            AtomicU64::new(u64::from_be_bytes(whole))
        };
        let mut new = Self { published: AtomicU64::new(0), words: bits.chunks(8).map(word).collect() };
        let bit_len = u32::try_from(bits.len() * 8).unwrap_or(u32::MAX);
        new.set_published(Published { samples: u16::from_be_bytes(*count), bits: bit_len });
        new
    }

    /// A chunk of `samples` samples whose bits stand elsewhere. Nobody reads it, and nothing is appended to it.
    pub fn unread(samples: u16) -> Self {
        let mut new = Self { published: AtomicU64::new(0), words: Box::default() };
        new.set_published(Published { samples, bits: 0 });
        new
    }

    /// True if its bits stand elsewhere.
    pub fn is_unread(&self) -> bool {
        self.words.is_empty()
    }

    /// Published words with `samples` samples in `bits`, and room for `more` bits.
    pub fn holding<B: SampleBits>(samples: u16, bits: &B, more: u32) -> Self {
        let needed = (bits.bit_len() + more).div_ceil(64) as usize;
        let mut words = zeroed(WORDS_MIN.max(needed));
        for (to, from) in words.iter_mut().zip(bits.each_word()) {
            *to.get_mut() = from;
        }
        Self { published: AtomicU64::new(u64::from(samples) << 32 | u64::from(bits.bit_len())), words }
    }

    /// A larger copy with room for `more` bits after those of `at`; only for the writer.
    pub fn grown(&self, at: Published, more: u32) -> Self {
        let needed = (at.bits + more).div_ceil(64) as usize;
        let mut words = zeroed(grown_len(self.words.len()).max(needed));
        for (to, from) in words.iter_mut().zip(&self.words) {
            *to.get_mut() = from.load(Ordering::Relaxed);
        }
        Self { published: AtomicU64::new(self.published.load(Ordering::Relaxed)), words }
    }

    /// A copy with as much room; only for the writer.
    pub fn copy(&self) -> Self {
        let words = self.words.iter().map(|word| AtomicU64::new(word.load(Ordering::Relaxed))).collect();
        Self { published: AtomicU64::new(self.published.load(Ordering::Relaxed)), words }
    }

    /// True if `more` bits fit after those of `at`.
    #[inline]
    pub fn has_room(&self, at: Published, more: u32) -> bool {
        (at.bits + more) as usize <= self.words.len() * 64
    }

    /// Appends one sample after those of `at` and publishes it; only for the writer, who has made sure of the room.
    /// Returns the new length.
    pub fn append<B: SampleBits>(&self, at: Published, sample: &B) -> Published {
        debug_assert!(self.has_room(at, sample.bit_len()));
        let offset = at.bits % 64;
        for (index, word) in ((at.bits / 64) as usize..).zip(sample.each_word()) {
            self.join(index, word >> offset);
            if offset != 0 {
                self.join(index + 1, word << (64 - offset));
            }
        }
        let next = Published { samples: at.samples + 1, bits: at.bits + sample.bit_len() };
        self.published.store(u64::from(next.samples) << 32 | u64::from(next.bits), Ordering::Release);
        next
    }

    /// Appends one sample after those of `at`, growing if need be, for an owner whom no reader disturbs. Call
    /// [`OpenWords::set_published`] after the last.
    pub fn push<B: SampleBits>(&mut self, at: Published, sample: &B) -> Published {
        if !self.has_room(at, sample.bit_len()) {
            *self = self.grown(at, sample.bit_len());
        }
        let offset = at.bits % 64;
        for (index, word) in ((at.bits / 64) as usize..).zip(sample.each_word()) {
            if let Some(to) = self.words.get_mut(index) {
                *to.get_mut() |= word >> offset;
            }
            // The last part of a sample may be all padding that needs no word.
            if offset != 0
                && let Some(to) = self.words.get_mut(index + 1)
            {
                *to.get_mut() |= word << (64 - offset);
            }
        }
        Published { samples: at.samples + 1, bits: at.bits + sample.bit_len() }
    }

    /// As [`OpenWords::push`].
    #[inline]
    pub fn push_short(&mut self, at: Published, sample: ShortBits) -> Published {
        if !self.has_room(at, sample.len()) {
            *self = self.grown(at, sample.len());
        }
        let (offset, bits) = (at.bits % 64, sample.aligned());
        let both = bits >> offset;
        // What the shift has pushed out; without an offset nothing.
        let rest = ((bits as u64) << 1) << (63 - offset);
        let mut words = self.words.iter_mut().skip((at.bits / 64) as usize);
        for (part, reached) in [((both >> 64) as u64, 0), (both as u64, 64), (rest, 128)] {
            if offset + sample.len() <= reached {
                break;
            }
            if let Some(to) = words.next() {
                *to.get_mut() |= part;
            }
        }
        Published { samples: at.samples + 1, bits: at.bits + sample.len() }
    }

    /// Reads where the next sample will go, so that it is in the cache by then.
    #[inline]
    pub fn touch(&self) -> u64 {
        let at = (self.published().bits / 64) as usize;
        self.words.get(at).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    /// Sets what readers may read.
    #[inline]
    pub fn set_published(&mut self, at: Published) {
        *self.published.get_mut() = u64::from(at.samples) << 32 | u64::from(at.bits);
    }

    /// What readers may read now.
    #[inline]
    pub fn published(&self) -> Published {
        let raw = self.published.load(Ordering::Acquire);
        // Both halves were written from these types.
        Published { samples: (raw >> 32) as u16, bits: raw as u32 }
    }

    /// The words, for a decoder that stays within [`OpenWords::published`].
    pub fn words(&self) -> &[AtomicU64] {
        &self.words
    }

    /// The chunk as it stands in files: sample count, then the bits, padded with zeros to a byte.
    pub fn to_chunk(&self, at: Published) -> Vec<u8> {
        let len = (at.bits as usize).div_ceil(8);
        let mut out = Vec::with_capacity(HEADER_LEN + len + 8);
        out.extend_from_slice(&at.samples.to_be_bytes());
        for word in self.words.iter().take(len.div_ceil(8)) {
            out.extend_from_slice(&word.load(Ordering::Relaxed).to_be_bytes());
        }
        out.truncate(HEADER_LEN + len);
        out
    }

    /// Bytes on the heap.
    pub fn heap_len(&self) -> usize {
        self.words.len() * size_of::<AtomicU64>()
    }

    fn join(&self, index: usize, bits: u64) {
        // The last part of a sample may be all padding that needs no word; zero bits change nothing.
        if bits != 0
            && let Some(word) = self.words.get(index)
        {
            // A single writer: a load and a store are enough.
            word.store(word.load(Ordering::Relaxed) | bits, Ordering::Relaxed);
        }
    }
}

/// Steps in the allocator's size classes, up to the largest chunk, of those that it keeps in small slabs where there are any: most
/// series outgrow a step at about the same time, and a slab of which a few places are left is not given back.
fn grown_len(words: usize) -> usize {
    match words {
        0..4 => 4,
        4..10 => 10,
        10..16 => 16,
        16..24 => 24,
        24..32 => 32,
        _ => words / 16 * 16 + 16,
    }
}

fn zeroed(len: usize) -> Box<[AtomicU64]> {
    (0..len).map(|_| AtomicU64::new(0)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::storage::chunk::xor::{XorDecoder, XorEncoder};

    /// The same chunk by way of short bits.
    fn short_path(values: &[u64]) -> Vec<u8> {
        let mut encoder = XorEncoder::default();
        let mut open: Option<(OpenWords, Published)> = None;
        for (i, bits) in values.iter().enumerate() {
            let (t, value) = (i64::try_from(i).unwrap() * 15_000, f64::from_bits(*bits));
            open = Some(match open {
                None => {
                    let words = OpenWords::starting_with(&encoder.encode(0, t, value));
                    let at = words.published();
                    (words, at)
                }
                Some((mut words, at)) => {
                    let short = if 2 <= i { encoder.encode_short(t, value) } else { None };
                    let at = match short {
                        Some(short) => words.push_short(at, short),
                        None => words.push(at, &encoder.encode(at.samples, t, value)),
                    };
                    (words, at)
                }
            });
        }
        let (words, at) = open.unwrap();
        words.to_chunk(at)
    }

    proptest! {
        #[test]
        fn every_prefix_reads_back_and_seals(values in proptest::collection::vec(any::<u64>(), 1..200)) {
            let mut encoder = XorEncoder::default();
            let mut open: Option<(OpenWords, Published)> = None;
            for (i, bits) in values.iter().enumerate() {
                let t = i64::try_from(i).unwrap() * 15_000;
                let sample = encoder.encode(u16::try_from(i).unwrap(), t, f64::from_bits(*bits));
                open = Some(match open {
                    None => { let w = OpenWords::starting_with(&sample); let p = w.published(); (w, p) }
                    Some((w, p)) => {
                        let w = if w.has_room(p, sample.len()) { w } else { w.grown(p, sample.len()) };
                        let p = w.append(p, &sample);
                        (w, p)
                    }
                });
                let (words, published) = open.as_ref().unwrap();
                prop_assert_eq!(*published, words.published());
                let mut decoder = XorDecoder::new(words.words(), published.bits as usize, published.samples);
                let mut seen = 0;
                while let Some((_, v)) = decoder.next_sample().unwrap() {
                    prop_assert_eq!(v.to_bits(), values[seen]);
                    seen += 1;
                }
                prop_assert_eq!(seen, i + 1);
            }
            let (words, published) = open.unwrap();
            let chunk = words.to_chunk(published);
            prop_assert_eq!(&chunk, &short_path(&values));
            let mut decoder = XorDecoder::of_chunk(&chunk).unwrap();
            for bits in values {
                prop_assert_eq!(decoder.next_sample().unwrap().unwrap().1.to_bits(), bits);
            }
            prop_assert!(decoder.next_sample().unwrap().is_none());
        }
    }
}
