//! What is kept in memory of finished chunks that stand in files: where each stands, its times, its length, about 12 bytes.
//! ```text
//! │ place uvarint │ min t varint │ max t − min t uvarint │ samples << 3 | encoding uvarint │       of the first
//! │ place less the one before │ min t less max t before uvarint │ … │                            of the others
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

/// Chunks of one series, oldest first.
#[derive(Debug, Default)]
pub struct WrittenList {
    bytes: Vec<u8>,
    count: u32,
    samples: u32,
    first_file: u64,
    last: Option<(ChunkPlace, i64)>,
}

impl WrittenList {
    /// Adds a chunk; false, and nothing is done, if it does not lie behind those before.
    pub fn push(&mut self, chunk: &WrittenChunk) -> bool {
        let (place, behind) = match self.last {
            None => (0, 0),
            Some((place, max_t)) if place < chunk.place && max_t < chunk.min_t => (place.0, max_t),
            Some(_) => return false,
        };
        if chunk.max_t < chunk.min_t {
            return false;
        }
        if self.bytes.is_empty() {
            self.bytes.reserve(USUAL_LEN);
        }
        put_uvarint(chunk.place.0 - place, &mut self.bytes);
        if self.last.is_none() {
            self.first_file = chunk.place.file();
            put_varint(chunk.min_t, &mut self.bytes);
        } else {
            put_uvarint(chunk.min_t.wrapping_sub(behind).cast_unsigned(), &mut self.bytes);
        }
        put_uvarint(chunk.max_t.wrapping_sub(chunk.min_t).cast_unsigned(), &mut self.bytes);
        put_uvarint(u64::from(chunk.samples) << 3 | u64::from(chunk.encoding.id()), &mut self.bytes);
        self.last = Some((chunk.place, chunk.max_t));
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
        self.last.map(|(last, _)| (self.first_file, last.file()))
    }

    /// Time of the last sample; `None` without chunks.
    pub fn max_t(&self) -> Option<i64> {
        self.last.map(|(_, max_t)| max_t)
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
    last: Option<(u64, i64)>,
}

impl<'a> WrittenChunks<'a> {
    /// Those that `bytes` encode.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, last: None }
    }
}

impl Iterator for WrittenChunks<'_> {
    type Item = WrittenChunk;

    fn next(&mut self) -> Option<WrittenChunk> {
        let place = take_uvarint(&mut self.rest)?;
        let (place, min_t) = match self.last {
            None => (place, take_varint(&mut self.rest)?),
            Some((before, behind)) => {
                (before + place, behind.wrapping_add(take_uvarint(&mut self.rest)?.cast_signed()))
            }
        };
        let max_t = min_t.wrapping_add(take_uvarint(&mut self.rest)?.cast_signed());
        let packed = take_uvarint(&mut self.rest)?;
        // Both halves were written from these types.
        let encoding = Encoding::from_id((packed & 7) as u8).ok()?;
        self.last = Some((place, max_t));
        Some(WrittenChunk { place: ChunkPlace(place), min_t, max_t, samples: (packed >> 3) as u16, encoding })
    }
}

#[cfg(test)]
mod tests {
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
    fn a_chunk_takes_about_twelve_bytes() {
        let mut list = WrittenList::default();
        for i in 0..10u64 {
            let from = 1_700_000_000_000 + i64::try_from(i).unwrap() * 1_800_000;
            list.push(&chunk(3 + i / 4, 1_000_000 + (i % 4) * 30_000_000, from, from + 119 * 15_000));
        }
        assert!(list.bytes().len() <= 130, "{}", list.bytes().len());
    }
}
