//! Places inside chunks from which a decoder can go on: dashboards and rules look at the last minutes of a chunk again and
//! again, and without a mark each time decode it from its beginning.
//!
//! A table of fixed size, each place for whatever chunk came last; readers and writers never wait. What is found is taken
//! only if series, rebuild of the shard, index of the chunk's first sample and the chunk's first bits are those of the
//! chunk that is read, so a mark of another chunk is never used.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::storage::chunk::xor::Mark;

/// Places, a power of two: four MiB.
const PLACES: usize = 1 << 16;

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    /// Made when the first mark is set.
    places: OnceLock<Box<[Place]>>,
}

/// Which chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkKey {
    pub(crate) series: u64,
    /// Of the shard, which a rebuild changes.
    pub(crate) generation: u64,
    /// Index of the chunk's first sample in its series.
    pub(crate) first_index: u64,
    /// The chunk's first 64 bits.
    pub(crate) first_bits: u64,
}

impl ChunkKey {
    fn words(self) -> [u64; KEY_WORDS] {
        // Series references stay below 2^40, and a shard is not rebuilt often.
        [self.series | self.generation << 40, self.first_index, self.first_bits]
    }

    fn place(self) -> usize {
        // Series are numbered one after the other: this spreads them, and the chunks of one series.
        let mixed = (self.series ^ self.first_index.rotate_left(40)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 32) as usize % PLACES
    }
}

const KEY_WORDS: usize = 3;
const WORDS: usize = KEY_WORDS + Mark::WORDS;

/// A mark under a version that is odd while it is written. It takes one line of the processor's cache.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Place {
    version: AtomicU64,
    words: [AtomicU64; WORDS],
}

impl Marks {
    /// The mark of a chunk, if there is one.
    pub(crate) fn get(&self, key: ChunkKey) -> Option<Mark> {
        let place = self.places.get()?.get(key.place())?;
        let version = place.version.load(Ordering::Acquire);
        let words: [u64; WORDS] = std::array::from_fn(|at| place.words[at].load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        let is_whole = version % 2 == 0 && place.version.load(Ordering::Relaxed) == version;
        let (found, mark) = words.split_at(KEY_WORDS);
        if !is_whole || found != key.words() {
            return None;
        }
        mark.first_chunk().map(|words| Mark::from_words(*words))
    }

    /// Sets the mark of a chunk, unless another thread is just writing there.
    pub(crate) fn put(&self, key: ChunkKey, mark: Mark) {
        let places = self.places.get_or_init(|| (0..PLACES).map(|_| Place::default()).collect());
        let Some(place) = places.get(key.place()) else { return };
        let version = place.version.load(Ordering::Relaxed);
        let is_free = version % 2 == 0;
        if !is_free
            || place
                .version
                .compare_exchange(version, version.wrapping_add(1), Ordering::Acquire, Ordering::Relaxed)
                .is_err()
        {
            return;
        }
        fence(Ordering::Release);
        for (to, word) in place.words.iter().zip(key.words().into_iter().chain(mark.to_words())) {
            to.store(word, Ordering::Relaxed);
        }
        place.version.store(version.wrapping_add(2), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::chunk::encode_xor;
    use crate::storage::chunk::xor::XorDecoder;

    fn mark_at(samples: i64) -> Mark {
        let chunk = encode_xor(&(0..100).map(|i| (i * 10, i as f64)).collect::<Vec<_>>());
        let mut decoder = XorDecoder::of_chunk(&chunk).unwrap();
        decoder.skip_to(samples * 10).unwrap().unwrap()
    }

    #[test]
    fn a_mark_is_found_by_its_chunk_alone() {
        let marks = Marks::default();
        let key = ChunkKey { series: 7, generation: 1, first_index: 120, first_bits: 3 };
        assert!(marks.get(key).is_none());
        let mark = mark_at(50);
        marks.put(key, mark);
        assert_eq!(marks.get(key).map(Mark::to_words), Some(mark.to_words()));
        for other in [
            ChunkKey { series: 8, ..key },
            ChunkKey { generation: 2, ..key },
            ChunkKey { first_index: 0, ..key },
            ChunkKey { first_bits: 4, ..key },
        ] {
            assert!(marks.get(other).is_none());
        }
    }

    #[test]
    fn readers_see_whole_marks_while_others_write() {
        let marks = Marks::default();
        let key = ChunkKey { series: 7, generation: 1, first_index: 0, first_bits: 3 };
        let both = [mark_at(40), mark_at(80)];
        std::thread::scope(|scope| {
            for mark in both {
                let marks = &marks;
                scope.spawn(move || (0..20_000).for_each(|_| marks.put(key, mark)));
            }
            for _ in 0..20_000 {
                if let Some(found) = marks.get(key) {
                    assert!(both.iter().any(|mark| mark.to_words() == found.to_words()));
                }
            }
        });
    }
}
