//! The finished chunks of one series, in one allocation: their bytes one after another, then a directory.
//! ```text
//! │ chunk 0 │ chunk 1 │ … │ end of chunk 0 u32 LE, encoding u8 │ end of chunk 1, encoding │ …
//! ```
//! Five bytes of overhead for a chunk. The time of its first sample is read from the chunk itself, and the chunk that
//! follows bounds the time of its last.

use crate::storage::chunk::decode::{ChunkDecoder, first_t};
use crate::storage::chunk::words::Published;
use crate::storage::chunk::xor::HEADER_LEN;
use crate::storage::chunk::{ChunkError, Encoding};

/// Bytes that a chunk takes in the directory.
pub const DIRECTORY_ENTRY_LEN: usize = 5;

/// Finished chunks, oldest first. Immutable; adding or dropping makes a new one.
#[derive(Debug, Default)]
pub struct SealedChunks {
    blob: Box<[u8]>,
    chunk_count: u32,
    /// Samples in all chunks together.
    sample_count: u32,
}

/// One finished chunk.
#[derive(Clone, Copy, Debug)]
pub struct SealedChunk<'a> {
    /// How it is encoded.
    pub encoding: Encoding,
    /// The chunk as in files, without length and checksum.
    pub data: &'a [u8],
}

impl<'a> SealedChunk<'a> {
    /// Number of samples, from the header.
    pub fn sample_count(&self) -> u16 {
        self.data.first_chunk().map_or(0, |raw| u16::from_be_bytes(*raw))
    }

    /// Time of the first sample.
    pub fn min_t(&self) -> Result<i64, ChunkError> {
        let bits = self.data.get(HEADER_LEN..).ok_or(ChunkError::Truncated { samples: 0 })?;
        first_t(self.encoding, bits, bits.len() * 8)
    }

    /// Time of the last sample; decodes the chunk.
    pub fn max_t(&self) -> Result<i64, ChunkError> {
        let mut decoder = self.decoder()?;
        let mut last = self.min_t()?;
        while let Some(t) = decoder.next_t()? {
            last = t;
        }
        Ok(last)
    }

    /// Decodes its samples.
    pub fn decoder(&self) -> Result<ChunkDecoder<'a, [u8]>, ChunkError> {
        ChunkDecoder::of_chunk(self.encoding, self.data)
    }
}

impl SealedChunks {
    /// These chunks and one more at the end. `at` is its length in samples and bits.
    pub fn with(&self, encoding: Encoding, chunk: &[u8], at: Published) -> Self {
        let (data, directory) = self.parts();
        let mut blob = Vec::with_capacity(self.blob.len() + chunk.len() + DIRECTORY_ENTRY_LEN);
        blob.extend_from_slice(data);
        blob.extend_from_slice(chunk);
        // A chunk has at most about a kilobyte, and a head keeps some hours of them.
        let end = u32::try_from(blob.len()).expect("the chunks of one series stay below 4 GiB");
        blob.extend_from_slice(directory);
        push_entry(&mut blob, end, encoding);
        Self {
            blob: blob.into(),
            chunk_count: self.chunk_count + 1,
            sample_count: self.sample_count + u32::from(at.samples),
        }
    }

    /// These chunks, oldest first.
    pub fn of<'a>(chunks: impl Iterator<Item = (Encoding, &'a [u8])> + Clone) -> Self {
        let (data_len, count) = chunks.clone().fold((0, 0), |(len, count), (_, data)| (len + data.len(), count + 1));
        let mut blob = Vec::with_capacity(data_len + count * DIRECTORY_ENTRY_LEN);
        chunks.clone().for_each(|(_, data)| blob.extend_from_slice(data));
        let mut new = Self::default();
        let mut end = 0;
        for (encoding, data) in chunks {
            end += data.len();
            let in_blob = u32::try_from(end).expect("the chunks of one series stay below 4 GiB");
            push_entry(&mut blob, in_blob, encoding);
            new.chunk_count += 1;
            new.sample_count += u32::from(SealedChunk { encoding, data }.sample_count());
        }
        Self { blob: blob.into(), ..new }
    }

    /// These chunks without the `dropped` oldest.
    pub fn without_oldest(&self, dropped: usize) -> Self {
        let (data, _) = self.parts();
        let from = dropped.checked_sub(1).map_or(0, |last| self.end(last));
        let mut blob = data.get(from..).unwrap_or(&[]).to_vec();
        let mut kept = Self::default();
        for index in dropped..self.len() {
            let Some(chunk) = self.get(index) else { break };
            kept.chunk_count += 1;
            kept.sample_count += u32::from(chunk.sample_count());
            let end =
                u32::try_from(self.end(index) - from).expect("it was smaller than the 32-bit offset it came from");
            push_entry(&mut blob, end, chunk.encoding);
        }
        kept.blob = blob.into();
        kept
    }

    /// Number of chunks.
    pub fn len(&self) -> usize {
        self.chunk_count as usize
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.chunk_count == 0
    }

    /// Samples in all chunks together.
    pub fn sample_count(&self) -> u32 {
        self.sample_count
    }

    /// The chunk at `index`, oldest first.
    pub fn get(&self, index: usize) -> Option<SealedChunk<'_>> {
        let (data, directory) = self.parts();
        let from = index.checked_sub(1).map_or(0, |before| self.end(before));
        let entry = directory.get(index * DIRECTORY_ENTRY_LEN..)?.first_chunk::<DIRECTORY_ENTRY_LEN>()?;
        let encoding = Encoding::from_id(entry[4]).ok()?;
        Some(SealedChunk { encoding, data: data.get(from..self.end(index))? })
    }

    /// The chunks, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = SealedChunk<'_>> {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// Bytes on the heap.
    pub fn heap_len(&self) -> usize {
        self.blob.len()
    }

    fn parts(&self) -> (&[u8], &[u8]) {
        let split = self.blob.len().saturating_sub(self.len() * DIRECTORY_ENTRY_LEN);
        self.blob.split_at_checked(split).unwrap_or((&[], &[]))
    }

    fn end(&self, index: usize) -> usize {
        let (_, directory) = self.parts();
        let entry = directory.get(index * DIRECTORY_ENTRY_LEN..).and_then(|rest| rest.first_chunk::<4>());
        entry.map_or(0, |raw| u32::from_le_bytes(*raw) as usize)
    }
}

fn push_entry(blob: &mut Vec<u8>, end: u32, encoding: Encoding) {
    blob.extend_from_slice(&end.to_le_bytes());
    blob.push(encoding.id());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::chunk::words::OpenWords;
    use crate::storage::chunk::xor::XorEncoder;

    fn chunk_of(times: &[i64]) -> (Vec<u8>, Published) {
        let mut encoder = XorEncoder::default();
        let first = encoder.encode(0, times[0], 1.0);
        let mut words = OpenWords::starting_with(&first);
        for (i, t) in times.iter().enumerate().skip(1) {
            let sample = encoder.encode(u16::try_from(i).unwrap(), *t, 1.5);
            let at = words.published();
            if !words.has_room(at, sample.len()) {
                words = words.grown(at, sample.len());
            }
            words.append(at, &sample);
        }
        let at = words.published();
        (words.to_chunk(at), at)
    }

    #[test]
    fn chunks_are_added_found_and_dropped() {
        let mut sealed = SealedChunks::default();
        for start in [10, 100, 1000] {
            let (chunk, at) = chunk_of(&[start, start + 5, start + 7]);
            sealed = sealed.with(Encoding::Xor, &chunk, at);
        }
        let spans = |sealed: &SealedChunks| -> Vec<(i64, i64)> {
            sealed.iter().map(|c| (c.min_t().unwrap(), c.max_t().unwrap())).collect()
        };
        assert_eq!(spans(&sealed), [(10, 17), (100, 107), (1000, 1007)]);
        assert_eq!((sealed.len(), sealed.sample_count()), (3, 9));
        let rest = sealed.without_oldest(1);
        assert_eq!(spans(&rest), [(100, 107), (1000, 1007)]);
        assert_eq!(rest.sample_count(), 6);
        assert!(sealed.without_oldest(3).is_empty() && sealed.get(3).is_none());
    }
}
