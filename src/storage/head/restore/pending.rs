//! Finished chunks of files, by series, until the log names these. There may be a million, so they take little: what is known of a
//! series' newest chunk as it is, and a list of those before as differences from the one behind.
//! ```text
//! number of a reference ─ newest chunk, 32 bytes ─ │ place of the one before u32 │ 4 uvarints │ ─ the one before it …
//! ```
//! All of it is given back when the last one was taken.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use crate::storage::chunk::Encoding;
use crate::storage::chunk::written::{ChunkPlace, WrittenChunk};
use crate::storage::head::image::FileChunks;
use crate::storage::head::ref_table::RefTable;
use crate::storage::wal::record::{put_uvarint, take_uvarint};

/// Series of a page; few in tests, so that there are some.
const PAGE_SERIES: usize = if cfg!(test) { 3 } else { 1024 };
/// Bytes of a page of those before.
const PAGE_LEN: usize = if cfg!(test) { 96 } else { 32 << 10 };
/// The longest entry: a place, and numbers of up to 64, 64, 64 and 19 bits.
const ENTRY_LEN_MAX: usize = 4 + 10 + 10 + 10 + 3;
const _: () = assert!(ENTRY_LEN_MAX <= PAGE_LEN && size_of::<Newest>() == 32);

/// Chunks by reference.
#[derive(Default)]
pub(super) struct PendingChunks {
    /// By reference: the number of the series, plus one.
    numbers: RefTable<u32>,
    series: Vec<Vec<Newest>>,
    series_count: u32,
    taken_count: u32,
    before: Vec<Vec<u8>>,
}

/// The newest chunk of a series.
#[derive(Clone, Copy)]
struct Newest {
    place: ChunkPlace,
    min_t: i64,
    max_t: i64,
    /// Where the one before it stands, plus one; 0 if there is none.
    before: u32,
    samples: u16,
    encoding: Encoding,
    fit: Fit,
}

/// Whether chunks of a series follow each other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fit {
    All,
    /// Those up to the newest one do.
    UpToHere,
    /// The first that came is none.
    Nothing,
}

impl Newest {
    fn of(chunk: &WrittenChunk, before: u32) -> Self {
        let WrittenChunk { place, min_t, max_t, samples, encoding } = *chunk;
        let fit = if min_t <= max_t { Fit::All } else { Fit::Nothing };
        Self { place, min_t, max_t, before, samples, encoding, fit }
    }

    fn chunk(&self) -> WrittenChunk {
        let Self { place, min_t, max_t, samples, encoding, .. } = *self;
        WrittenChunk { place, min_t, max_t, samples, encoding }
    }
}

impl PendingChunks {
    /// Adds a chunk of a series. One that does not follow those before is left out, and so are others behind it.
    pub(super) fn push(&mut self, reference: u64, chunk: &WrittenChunk) {
        let known = self.newest_mut(reference).copied();
        let Some(newest) = known else { return self.begin(reference, chunk) };
        let follows = newest.place < chunk.place && newest.max_t < chunk.min_t && chunk.min_t <= chunk.max_t;
        let next = match newest.fit {
            Fit::UpToHere | Fit::Nothing => return,
            Fit::All => follows.then(|| self.put_before(&newest, chunk)).flatten(),
        };
        if let Some(place) = self.newest_mut(reference) {
            match next {
                Some(before) => *place = Newest::of(chunk, before),
                None => place.fit = Fit::UpToHere,
            }
        }
    }

    /// The chunks of a series, which are here no longer.
    pub(super) fn take(&mut self, reference: u64) -> Option<FileChunks> {
        if self.series_count == 0 {
            return None;
        }
        let newest = *self.newest_mut(reference)?;
        self.numbers.set(reference, 0);
        self.taken_count += 1;
        let mut chunks = vec![newest.chunk()];
        let mut at = newest.before;
        while let Some((chunk, before)) = chunks.last().and_then(|next| self.entry(at, next)) {
            chunks.push(chunk);
            at = before;
        }
        if newest.fit == Fit::Nothing {
            chunks.clear();
        }
        chunks.reverse();
        if self.taken_count == self.series_count {
            *self = Self::default();
        }
        Some(FileChunks::of(&chunks, newest.fit != Fit::All))
    }

    fn newest_mut(&mut self, reference: u64) -> Option<&mut Newest> {
        let number = self.numbers.get(reference).checked_sub(1)? as usize;
        self.series.get_mut(number / PAGE_SERIES)?.get_mut(number % PAGE_SERIES)
    }

    fn begin(&mut self, reference: u64, chunk: &WrittenChunk) {
        if self.series.last().is_none_or(|page| page.len() == PAGE_SERIES) {
            self.series.push(Vec::with_capacity(PAGE_SERIES));
        }
        if let Some(page) = self.series.last_mut() {
            page.push(Newest::of(chunk, 0));
            self.series_count += 1;
            self.numbers.set(reference, self.series_count);
        }
    }

    /// Writes down a chunk that `next` follows; returns its place, plus one. `None` beyond what places can be.
    fn put_before(&mut self, chunk: &Newest, next: &WrittenChunk) -> Option<u32> {
        if self.before.last().is_none_or(|page| PAGE_LEN < page.len() + ENTRY_LEN_MAX) {
            self.before.push(Vec::with_capacity(PAGE_LEN));
        }
        let number = self.before.len() - 1;
        let page = self.before.last_mut()?;
        let place = u32::try_from(number * PAGE_LEN + page.len() + 1).ok()?;
        page.extend_from_slice(&chunk.before.to_le_bytes());
        put_uvarint(next.place.less(chunk.place), page);
        put_uvarint(next.min_t.wrapping_sub(chunk.max_t).cast_unsigned(), page);
        put_uvarint(chunk.max_t.wrapping_sub(chunk.min_t).cast_unsigned(), page);
        put_uvarint(u64::from(chunk.samples) << 3 | u64::from(chunk.encoding.id()), page);
        Some(place)
    }

    /// The chunk that stands at a place, before `next`, and the place of the one before it.
    fn entry(&self, place: u32, next: &WrittenChunk) -> Option<(WrittenChunk, u32)> {
        let at = place.checked_sub(1)? as usize;
        let (before, mut rest) = self.before.get(at / PAGE_LEN)?.get(at % PAGE_LEN..)?.split_first_chunk()?;
        let place = next.place.before(take_uvarint(&mut rest)?);
        let max_t = next.min_t.wrapping_sub(take_uvarint(&mut rest)?.cast_signed());
        let min_t = max_t.wrapping_sub(take_uvarint(&mut rest)?.cast_signed());
        let packed = take_uvarint(&mut rest)?;
        // Both halves were written from these types.
        let (samples, encoding) = ((packed >> 3) as u16, Encoding::from_id((packed & 7) as u8).ok()?);
        Some((WrittenChunk { place, min_t, max_t, samples, encoding }, u32::from_le_bytes(*before)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn chunk(file: u64, offset: u64, (min_t, max_t): (i64, i64), samples: u16) -> WrittenChunk {
        let place = ChunkPlace::new(file, offset).unwrap();
        let encoding = if samples.is_multiple_of(2) { Encoding::Xor } else { Encoding::FloatHistogramStarts };
        WrittenChunk { place, min_t, max_t, samples, encoding }
    }

    fn any_time() -> impl Strategy<Value = i64> {
        prop_oneof![0i64..60, 0i64..60, any::<i64>()]
    }

    proptest! {
        #[test]
        fn chunks_of_a_series_are_those_that_follow_each_other(
            chunks in proptest::collection::vec((0u64..6, 0u64..4, any::<u32>(), (any_time(), any_time()), any::<u16>()), 0..60),
        ) {
            let mut expected: BTreeMap<u64, FileChunks> = BTreeMap::new();
            for round in 0..2 {
                let mut pending = PendingChunks::default();
                for (index, (series, file, offset, range, samples)) in chunks.iter().enumerate() {
                    let (series, at) = (1 + series * 1000, index as u64 / 8);
                    // Mostly one behind the other.
                    let range = if index % 5 == 0 { *range } else { (index as i64 * 100, index as i64 * 100 + range.1.clamp(0, 99)) };
                    let chunk = chunk(at + file % 2, u64::from(*offset), range, *samples);
                    pending.push(series, &chunk);
                    expected.entry(series).or_default().push(chunk);
                }
                prop_assert!(pending.take(77).is_none());
                let last = expected.len().saturating_sub(1);
                for (number, (series, chunks)) in std::mem::take(&mut expected).into_iter().enumerate() {
                    let taken = pending.take(series);
                    prop_assert_eq!(format!("{taken:?}"), format!("{:?}", Some(chunks)), "{}", round);
                    prop_assert!(pending.take(series).is_none());
                    prop_assert_eq!(pending.series.is_empty(), number == last);
                }
            }
        }
    }
}
