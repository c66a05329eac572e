//! What is kept in memory of finished chunks that stand in files: where each stands, its times, its length. The first takes
//! about 16 bytes; each of the others 4 or 5 if it is like the one before it. The first counts as having the gap that regular
//! samples have.
//! ```text
//! │ place uvarint │ min t varint │ span uvarint │ shape uvarint │                                           of the first
//! │ place less the one before << 2 | how alike uvarint │ gap uvarint │ span uvarint │ shape uvarint │ … │   of the others
//!   gap    min t less max t before       span   max t less min t       shape   samples << 3 | encoding
//!   how alike   0 not at all, 1 its shape is that before, 2 its span as well, 3 its gap as well: what is alike is left out
//! ```

use crate::storage::chunk::Encoding;
use crate::storage::wal::record::{put_uvarint, put_varint, take_uvarint, take_varint};

/// Bytes that the few chunks of a series take, mostly.
const USUAL_LEN: usize = 48;

/// Number of a file and offset in it. Of a series' chunks a later one has a higher place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkPlace(u64);

impl ChunkPlace {
    /// `None` for numbers that are too large; no file of ours or Prometheus's comes near.
    pub fn new(file: u64, offset: u64) -> Option<Self> {
        let offset = u32::try_from(offset).ok()?;
        let file = u32::try_from(file).ok()?;
        Some(Self(u64::from(file) << 32 | u64::from(offset)))
    }

    /// Number of the file.
    pub fn file(self) -> u64 {
        self.0 >> 32
    }

    /// Where in the file it begins.
    pub fn offset(self) -> u64 {
        self.0 & u64::from(u32::MAX)
    }

    /// As markers and Prometheus write it.
    pub(crate) fn number(self) -> u64 {
        self.0
    }

    /// How far it lies behind one before it.
    pub(crate) fn less(self, before: Self) -> u64 {
        self.0.wrapping_sub(before.0)
    }

    /// The place that lies so far before it.
    pub(crate) fn before(self, by: u64) -> Self {
        Self(self.0.wrapping_sub(by))
    }
}

/// A finished chunk that stands in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrittenChunk {
    /// Where.
    pub place: ChunkPlace,
    /// Time of its first sample.
    pub min_t: i64,
    /// Time of its last sample.
    pub max_t: i64,
    /// Number of its samples.
    pub samples: u16,
    /// How it is encoded.
    pub encoding: Encoding,
}

/// What a chunk may have in common with the one before it.
#[derive(Clone, Copy, Debug, Default)]
struct Like {
    gap: u64,
    span: u64,
    shape: u64,
}

impl Like {
    /// How much of this a chunk has in common with the one before.
    fn as_before(self, before: Self) -> u64 {
        match self {
            _ if self.shape != before.shape => 0,
            _ if self.span != before.span => 1,
            _ if self.gap != before.gap => 2,
            _ => 3,
        }
    }
}

/// Time from one sample of a chunk to the next, on average.
fn usual_gap(Like { span, shape, .. }: Like) -> u64 {
    let samples = shape >> 3;
    span / samples.saturating_sub(1).max(1)
}

/// Bits for how alike a chunk is.
const LIKE_BITS: u32 = 2;

/// Chunks of one series, oldest first.
#[derive(Debug, Default)]
pub struct WrittenList {
    bytes: Vec<u8>,
    count: u32,
    samples: u32,
    first_file: u64,
    last: Option<(ChunkPlace, i64, Like)>,
}

impl WrittenList {
    /// Adds a chunk; false, and nothing is done, if it does not lie behind those before.
    pub fn push(&mut self, chunk: &WrittenChunk) -> bool {
        if chunk.max_t < chunk.min_t {
            return false;
        }
        let mut new = Like {
            gap: 0,
            span: chunk.max_t.wrapping_sub(chunk.min_t).cast_unsigned(),
            shape: u64::from(chunk.samples) << 3 | u64::from(chunk.encoding.id()),
        };
        let out = &mut self.bytes;
        let alike = match self.last {
            None => {
                out.reserve(USUAL_LEN);
                put_uvarint(chunk.place.0, out);
                self.first_file = chunk.place.file();
                put_varint(chunk.min_t, out);
                new.gap = usual_gap(new);
                0
            }
            Some((place, max_t, before)) if place < chunk.place && max_t < chunk.min_t => {
                let further = chunk.place.0 - place.0;
                if further >> (u64::BITS - LIKE_BITS) != 0 {
                    return false;
                }
                new.gap = chunk.min_t.wrapping_sub(max_t).cast_unsigned();
                let alike = new.as_before(before);
                put_uvarint(further << LIKE_BITS | alike, out);
                if alike < 3 {
                    put_uvarint(new.gap, out);
                }
                alike
            }
            Some(_) => return false,
        };
        if alike < 2 {
            put_uvarint(new.span, out);
        }
        if alike < 1 {
            put_uvarint(new.shape, out);
        }
        self.last = Some((chunk.place, chunk.max_t, new));
        self.count += 1;
        self.samples += u32::from(chunk.samples);
        true
    }

    /// Its encoding.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Number of chunks.
    pub fn len(&self) -> u32 {
        self.count
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Samples in all of them.
    pub fn samples(&self) -> u32 {
        self.samples
    }

    /// Numbers of the first and the last file; `None` without chunks.
    pub fn files(&self) -> Option<(u64, u64)> {
        self.last.map(|(last, ..)| (self.first_file, last.file()))
    }

    /// Time of the last sample; `None` without chunks.
    pub fn max_t(&self) -> Option<i64> {
        self.last.map(|(_, max_t, _)| max_t)
    }

    /// The chunks, oldest first.
    pub fn iter(&self) -> WrittenChunks<'_> {
        WrittenChunks::new(&self.bytes)
    }
}

/// Chunks of an encoded list, oldest first.
#[derive(Clone, Debug)]
pub struct WrittenChunks<'a> {
    rest: &'a [u8],
    last: Option<(u64, i64, Like)>,
}

impl<'a> WrittenChunks<'a> {
    /// Those that `bytes` encode.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, last: None }
    }

    /// The bytes of the first `count` of those that `bytes` encode.
    pub(super) fn first_of(bytes: &'a [u8], count: usize) -> &'a [u8] {
        let mut chunks = Self::new(bytes);
        chunks.by_ref().take(count).for_each(drop);
        bytes.get(..bytes.len() - chunks.rest.len()).unwrap_or_default()
    }
}

impl Iterator for WrittenChunks<'_> {
    type Item = WrittenChunk;

    fn next(&mut self) -> Option<WrittenChunk> {
        let rest = &mut self.rest;
        let first = take_uvarint(rest)?;
        let (place, min_t, mut like, alike) = match self.last {
            None => (first, take_varint(rest)?, Like::default(), 0),
            Some((before, behind, mut like)) => {
                let alike = first & ((1 << LIKE_BITS) - 1);
                if alike < 3 {
                    like.gap = take_uvarint(rest)?;
                }
                (before + (first >> LIKE_BITS), behind.wrapping_add(like.gap.cast_signed()), like, alike)
            }
        };
        if alike < 2 {
            like.span = take_uvarint(rest)?;
        }
        if alike < 1 {
            like.shape = take_uvarint(rest)?;
        }
        if self.last.is_none() {
            like.gap = usual_gap(like);
        }
        let max_t = min_t.wrapping_add(like.span.cast_signed());
        // Both halves were written from these types.
        let (samples, encoding) = ((like.shape >> 3) as u16, Encoding::from_id((like.shape & 7) as u8).ok()?);
        self.last = Some((place, max_t, like));
        Some(WrittenChunk { place: ChunkPlace(place), min_t, max_t, samples, encoding })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chunk(file: u64, offset: u64, min_t: i64, max_t: i64) -> WrittenChunk {
        let place = ChunkPlace::new(file, offset).unwrap();
        WrittenChunk { place, min_t, max_t, samples: 120, encoding: Encoding::Xor }
    }

    #[test]
    fn chunks_come_back_and_must_follow_each_other() {
        let chunks = [
            chunk(3, 8, -5_000, -20),
            chunk(3, 400, 7, 7),
            chunk(4, 8, 1_700_000_000_000, 1_700_001_785_000),
            WrittenChunk {
                samples: u16::MAX,
                encoding: Encoding::FloatHistogramStarts,
                ..chunk(9, 100, i64::MAX, i64::MAX)
            },
        ];
        let mut list = WrittenList::default();
        assert!(list.is_empty() && list.files().is_none());
        for one in &chunks {
            assert!(list.push(one));
            assert!(!list.push(one), "no second time");
        }
        assert_eq!(list.iter().collect::<Vec<_>>(), chunks);
        assert_eq!((list.len(), list.samples(), list.files()), (4, 360 + 65_535, Some((3, 9))));
        let mut list = WrittenList::default();
        assert!(list.push(&chunks[1]));
        assert!(!list.push(&chunk(2, 8, 100, 200)) && !list.push(&chunk(4, 8, 7, 9)) && !list.push(&chunk(4, 8, 9, 8)));
        assert!(ChunkPlace::new(1, 1 << 32).is_none());
    }

    #[test]
    fn a_chunk_like_the_one_before_takes_four_or_five_bytes() {
        let mut list = WrittenList::default();
        let chunks = (0..10u64).map(|i| {
            let from = 1_700_000_000_000 + i64::try_from(i).unwrap() * 1_800_000;
            chunk(3 + i / 4, 1_000_000 + (i % 4) * 30_000_000, from, from + 119 * 15_000)
        });
        let chunks: Vec<_> = chunks.collect();
        let mut lens = Vec::new();
        for one in &chunks {
            assert!(list.push(one));
            lens.push(list.bytes().len());
        }
        assert_eq!(list.iter().collect::<Vec<_>>(), chunks);
        // The fifth and the ninth begin a file.
        assert_eq!(lens, [16, 20, 24, 28, 33, 37, 41, 45, 50, 54]);
    }

    proptest! {
        #[test]
        fn lists_read_back(all in proptest::collection::vec((1u64..1 << 33, 0u8..8, -9i64..9, 1u16..300), 1..20)) {
            let (mut list, mut chunks) = (WrittenList::default(), Vec::new());
            let (mut place, mut t) = (0, -1000);
            for (further, alike, by, samples) in all {
                place += further;
                let (gap, span) = (if alike & 1 == 0 { 20 } else { 10 + by }, if alike & 2 == 0 { 50 } else { 20 + by });
                let samples = if alike & 4 == 0 { 120 } else { samples };
                let (min_t, max_t) = (t + gap, t + gap + span);
                t = max_t;
                let one = WrittenChunk { place: ChunkPlace(place), min_t, max_t, samples, encoding: Encoding::Xor };
                prop_assert!(list.push(&one));
                chunks.push(one);
            }
            prop_assert_eq!(list.iter().collect::<Vec<_>>(), chunks);
        }
    }
}
