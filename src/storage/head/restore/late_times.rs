//! What files hold of samples that came out of order, as a start finds it: chunks, and the times of their samples, which are held
//! until the log of such samples has been read.
//!
//! ```text
//! times of a chunk   │ min t varint │ max t less min t uvarint │ count uvarint │ step │ step │ …
//! step               how much longer it is than the one before, varint, not 0; or 0 and how many are as long, uvarint
//! ```
//! The first step is the one from the oldest time to the first. All stand in pages, one behind the other: of regular times a chunk
//! takes less than twenty bytes, of others a byte or two for each.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use crate::model::sample::SeriesRef;
use crate::storage::chunk::written::WrittenChunk;
use crate::storage::wal::record::{put_uvarint, put_varint, take_uvarint, take_varint};

/// Bits of a place for where in its page an entry begins.
const OFFSET_BITS: u32 = 16;
/// Bytes of a page of times; an entry that is longer has one of its own.
const PAGE_LEN: usize = if cfg!(test) { 64 } else { 1 << OFFSET_BITS };
/// Chunks of a page.
const PAGE_CHUNKS: usize = if cfg!(test) { 3 } else { 1024 };

/// Times of chunks.
#[derive(Debug, Default)]
pub(super) struct Times {
    pages: Vec<Vec<u8>>,
    entry: Vec<u8>,
}

/// A place among the times of a chunk.
#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    /// 0 before the first.
    at: u32,
    left: u32,
    /// Steps to come that are as long as the last.
    alike: u32,
    before: i64,
    step: i64,
}

impl Times {
    /// Adds those of a chunk; returns their place. `None` beyond what places can be.
    pub(super) fn push(&mut self, times: &[i64]) -> Option<u32> {
        let (min, max) = (times.iter().min().copied().unwrap_or(0), times.iter().max().copied().unwrap_or(0));
        let mut entry = std::mem::take(&mut self.entry);
        entry.clear();
        put_varint(min, &mut entry);
        put_uvarint(max.wrapping_sub(min).cast_unsigned(), &mut entry);
        put_uvarint(times.len() as u64, &mut entry);
        let (mut before, mut step, mut alike) = (min, 0i64, 0u64);
        for t in times {
            let next = t.wrapping_sub(before);
            if next == step {
                alike += 1;
            } else {
                put_alike(std::mem::take(&mut alike), &mut entry);
                put_varint(next.wrapping_sub(step), &mut entry);
            }
            (before, step) = (*t, next);
        }
        put_alike(alike, &mut entry);
        let place = self.put(&entry);
        self.entry = entry;
        place
    }

    fn put(&mut self, entry: &[u8]) -> Option<u32> {
        if self.pages.last().is_none_or(|page| PAGE_LEN < page.len() + entry.len()) {
            self.pages.push(Vec::with_capacity(PAGE_LEN.max(entry.len())));
        }
        let number = u32::try_from(self.pages.len() - 1).ok().filter(|number| *number < 1 << (32 - OFFSET_BITS))?;
        let page = self.pages.last_mut()?;
        let place = number << OFFSET_BITS | u32::try_from(page.len()).ok()?;
        page.extend_from_slice(entry);
        Some(place)
    }

    fn entry(&self, place: u32) -> Option<&[u8]> {
        let offset = place & ((1 << OFFSET_BITS) - 1);
        self.pages.get((place >> OFFSET_BITS) as usize)?.get(offset as usize..)
    }

    /// Oldest and newest time of a chunk.
    fn ends(&self, place: u32) -> Option<(i64, i64)> {
        let mut rest = self.entry(place)?;
        let min = take_varint(&mut rest)?;
        Some((min, min.wrapping_add(take_uvarint(&mut rest)?.cast_signed())))
    }

    pub(super) fn iter(&self, place: u32) -> impl Iterator<Item = i64> + '_ {
        let mut cursor = Cursor::default();
        std::iter::from_fn(move || self.next(place, &mut cursor))
    }

    /// The time at a cursor, which goes on to the next one.
    fn next(&self, place: u32, cursor: &mut Cursor) -> Option<i64> {
        let entry = self.entry(place)?;
        let mut rest = entry.get(cursor.at as usize..)?;
        if cursor.at == 0 {
            let (min, _) = (take_varint(&mut rest)?, take_uvarint(&mut rest)?);
            let left = u32::try_from(take_uvarint(&mut rest)?).ok()?;
            *cursor = Cursor { left, before: min, ..Cursor::default() };
        }
        let mut next = Cursor { left: cursor.left.checked_sub(1)?, ..*cursor };
        if next.alike == 0 {
            match take_varint(&mut rest)? {
                0 => next.alike = u32::try_from(take_uvarint(&mut rest)?).ok()?.checked_sub(1)?,
                longer => next.step = next.step.wrapping_add(longer),
            }
        } else {
            next.alike -= 1;
        }
        next.before = next.before.wrapping_add(next.step);
        next.at = u32::try_from(entry.len() - rest.len()).ok()?;
        *cursor = next;
        Some(next.before)
    }
}

fn put_alike(count: u64, entry: &mut Vec<u8>) {
    if 0 < count {
        entry.push(0);
        put_uvarint(count, entry);
    }
}

/// A chunk that was found in a file.
#[derive(Debug)]
pub(super) struct FoundChunk {
    pub(super) series: SeriesRef,
    pub(super) chunk: WrittenChunk,
    /// Of its times.
    pub(super) times: u32,
}

/// Chunks that were found in files, in their order.
#[derive(Debug, Default)]
pub(crate) struct FoundLate {
    pub(super) chunks: Vec<Vec<FoundChunk>>,
    pub(super) times: Times,
}

impl FoundLate {
    /// Adds a chunk with the times of its samples.
    pub(crate) fn push(&mut self, series: SeriesRef, chunk: WrittenChunk, times: &[i64]) {
        // Without it the log gives its samples.
        let Some(times) = self.times.push(times) else { return };
        if self.chunks.last().is_none_or(|page| page.len() == PAGE_CHUNKS) {
            self.chunks.push(Vec::with_capacity(PAGE_CHUNKS));
        }
        if let Some(page) = self.chunks.last_mut() {
            page.push(FoundChunk { series, chunk, times });
        }
    }
}

/// Samples of one series that came out of order and that files hold.
#[derive(Debug, Default)]
pub(super) struct LateOfFiles {
    /// Its chunks, by the number of the first and how many there are.
    first: u32,
    count: u32,
    /// Behind the sample that was found last: the log has them mostly in the order in which they stand in files.
    last: u32,
    cursor: Cursor,
    /// What looking in vain has cost: 1 for a chunk, [`TIME_COST`] for each of its times.
    spent: u32,
    /// All times, once looking for them has cost more than sorting them does.
    sorted: Option<Box<[i64]>>,
}

/// What it costs to read a time of a chunk rather than its ends.
const TIME_COST: u32 = 4;
/// What looking in vain may have cost, for each chunk of the series, before all its times are sorted: as much as reading all of them four times.
const SPENT_MAX: u32 = if cfg!(test) { 4 } else { 4 * 32 * TIME_COST };

impl LateOfFiles {
    /// Chunks behind those that `places` has, of which `count` are to come.
    pub(super) fn behind(places: &[u32], count: usize) -> Option<Self> {
        let (first, count) = (u32::try_from(places.len()).ok()?, u32::try_from(count).ok()?);
        Some(Self { first, count, ..Self::default() })
    }

    /// Whether a chunk has a sample at `t`.
    pub(super) fn holds(&mut self, places: &[u32], times: &Times, t: i64) -> bool {
        let own = places.get(self.first as usize..).and_then(|own| own.get(..self.count as usize)).unwrap_or(&[]);
        let mut cursor = self.cursor;
        if own.get(self.last as usize).and_then(|place| times.next(*place, &mut cursor)) == Some(t) {
            self.cursor = cursor;
            return true;
        }
        if self.sorted.is_none() && self.count.saturating_mul(SPENT_MAX) < self.spent {
            // Chunks that overlap all have to be read for a sample that none of them has.
            let mut all: Vec<i64> = own.iter().flat_map(|place| times.iter(*place)).collect();
            all.sort_unstable();
            all.dedup();
            self.sorted = Some(all.into_boxed_slice());
        }
        if let Some(sorted) = &self.sorted {
            return sorted.binary_search(&t).is_ok();
        }
        let (before, from) = own.split_at((self.last as usize).min(own.len()));
        for (number, place) in (self.last..).zip(from).chain((0..).zip(before)) {
            self.spent = self.spent.saturating_add(1);
            if times.ends(*place).is_none_or(|(min, max)| t < min || max < t) {
                continue;
            }
            let mut cursor = Cursor::default();
            while let Some(found) = times.next(*place, &mut cursor) {
                if found == t {
                    (self.last, self.cursor) = (number, cursor);
                    return true;
                }
                self.spent = self.spent.saturating_add(TIME_COST);
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn regular_times_take_few_bytes() {
        let mut times = Times::default();
        let all: Vec<i64> = (0..32).map(|i| 1_700_000_000_000 + i * 15_000).collect();
        assert_eq!(times.push(&all), Some(0));
        assert!(times.pages[0].len() < 20, "{}", times.pages[0].len());
    }

    proptest! {
        #[test]
        fn times_come_back_and_are_found(
            series in proptest::collection::vec(proptest::collection::vec(
                proptest::collection::vec(prop_oneof![any::<i64>(), -9i64..9, -99i64..99, Just(i64::MAX), Just(0)], 0..40), 0..5), 1..4),
            asked in proptest::collection::vec(-99i64..99, 0..40),
        ) {
            let (mut times, mut places, mut held) = (Times::default(), Vec::new(), Vec::new());
            for chunks in &series {
                held.push(LateOfFiles::behind(&places, chunks.len()).unwrap());
                for own in chunks {
                    let place = times.push(own).unwrap();
                    prop_assert_eq!(times.iter(place).collect::<Vec<_>>(), own.clone());
                    places.push(place);
                }
            }
            for (chunks, own) in series.iter().zip(&mut held) {
                for t in &asked {
                    prop_assert_eq!(own.holds(&places, &times, *t), chunks.iter().flatten().any(|one| one == t), "{}", t);
                }
                prop_assert!(chunks.iter().flatten().all(|t| own.holds(&places, &times, *t)));
            }
        }
    }
}
