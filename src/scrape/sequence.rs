//! The lines of a scrape in their order, without values: what the next scrape is compared with.
//!
//! ```text
//! text     │ 0, # TYPE a counter │ 0, a{b="1"} │ 5, 2"} │ …  all lines end to end, one allocation for each target
//! entries  │ start u32, len u32, bits u64 │ …               16 bytes a line
//! bits     │ series reference (40) │ shard (16) │ tracked (1) │ family kind (3) │ role (3) │
//! ```
//! Neighbours mostly begin alike. A line is kept as the number of bytes that it shares with the one before, and the rest;
//! every [`WHOLE_EVERY`]th is whole, so that each can be read alone. A line of 60 bytes costs about 30 so. References stay
//! below 2^40 by the rules of storage; 0 means "not resolved".
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::sync::Arc;

use crate::exposition::text::FamilyKind;
use crate::model::append::{SeriesHandle, ShardId};
use crate::model::sample::SeriesRef;
use crate::scrape::error::ScrapeError;

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// A series that is stored.
    Series,
    /// A series that relabelling drops.
    Dropped,
    /// A series that an earlier line of the same scrape has named; the reference bits hold the index of that line.
    Repeat,
    /// A `# HELP` line.
    Help,
    /// A `# TYPE` line.
    Type,
    /// A `# UNIT` line.
    Unit,
}

const ROLES: [Role; 6] = [Role::Series, Role::Dropped, Role::Repeat, Role::Help, Role::Type, Role::Unit];
const KINDS: [FamilyKind; 8] = [
    FamilyKind::Unknown,
    FamilyKind::Counter,
    FamilyKind::Gauge,
    FamilyKind::Histogram,
    FamilyKind::Summary,
    FamilyKind::GaugeHistogram,
    FamilyKind::Info,
    FamilyKind::StateSet,
];

const KIND_SHIFT: u32 = 3;
const TRACKED_SHIFT: u32 = 6;
const SHARD_SHIFT: u32 = 7;
const REF_SHIFT: u32 = 23;
const THREE_BITS: u64 = 0b111;
const REF_MAX: u64 = (1 << 40) - 1;
const HANDLE_MASK: u64 = !((1 << SHARD_SHIFT) - 1);
/// One line in so many is kept whole.
const WHOLE_EVERY: usize = 16;
/// Most bytes that a line can share with the one before: their number takes a byte.
const SHARED_LEN_MAX: usize = u8::MAX as usize;

/// One line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    bits: u64,
    /// Where its part of the text begins.
    start: u32,
    /// Length of that part.
    len: u32,
}
const _: () = assert!(size_of::<Entry>() == 16);

impl Entry {
    pub(super) fn role(self) -> Role {
        let index = usize::try_from(self.bits & THREE_BITS).unwrap_or(0);
        ROLES.get(index).copied().unwrap_or(Role::Dropped)
    }

    pub(super) fn kind(self) -> FamilyKind {
        let index = usize::try_from(self.bits >> KIND_SHIFT & THREE_BITS).unwrap_or(0);
        KINDS.get(index).copied().unwrap_or_default()
    }

    /// Whether the series gets a stale marker when it is no longer exposed.
    pub(super) fn tracked(self) -> bool {
        self.bits >> TRACKED_SHIFT & 1 == 1
    }

    pub(super) fn set_tracked(&mut self, tracked: bool) {
        self.bits = self.bits & !(1 << TRACKED_SHIFT) | u64::from(tracked) << TRACKED_SHIFT;
    }

    /// Where storage keeps the series, once it has said so.
    pub(super) fn handle(self) -> Option<SeriesHandle> {
        let series = self.bits >> REF_SHIFT;
        let shard = u16::try_from(self.bits >> SHARD_SHIFT & u64::from(u16::MAX)).ok()?;
        let resolved = self.role() == Role::Series && series != 0;
        resolved.then_some(SeriesHandle { series: SeriesRef(series), shard: ShardId(shard) })
    }

    /// Notes the handle. One that does not fit is not kept: the series then goes on being named by its labels.
    pub(super) fn set_handle(&mut self, handle: Option<SeriesHandle>) {
        self.bits &= !HANDLE_MASK;
        if let Some(handle) = handle.filter(|handle| handle.series.0 <= REF_MAX) {
            self.bits |= handle.series.0 << REF_SHIFT | u64::from(handle.shard.0) << SHARD_SHIFT;
        }
    }

    /// Index of the line that a [`Role::Repeat`] repeats.
    pub(super) fn repeats(self) -> usize {
        usize::try_from(self.bits >> REF_SHIFT).unwrap_or(usize::MAX)
    }
}

/// Lines in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Sequence {
    entries: Vec<Entry>,
    text: Vec<u8>,
    /// The line that was appended last, if it is known.
    newest: Vec<u8>,
}

/// A line that was read from a sequence; the next one is read from it.
#[derive(Debug, Default)]
pub(super) struct Line {
    bytes: Vec<u8>,
    /// Index of the line that follows it; 0 for none.
    next: usize,
}

impl Line {
    /// The bytes of line `index` of `lines`, which is the same sequence every time.
    #[inline]
    pub(super) fn read<'a>(&'a mut self, lines: &Sequence, index: usize) -> &'a [u8] {
        if self.next == index + 1 {
            return &self.bytes;
        }
        // From the line before, or from the last whole one.
        let from = if self.next == index { index } else { index - index % WHOLE_EVERY };
        for at in from..=index {
            let (shared, rest) = lines.parts(at);
            self.bytes.truncate(shared);
            self.bytes.extend_from_slice(rest);
        }
        self.next = index + 1;
        &self.bytes
    }

    /// Takes `bytes` for the line before `next`, as which they were recognised.
    pub(super) fn set(&mut self, bytes: &[u8], next: usize) {
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
        self.next = next;
    }
}

impl Sequence {
    pub(super) fn shared_empty() -> Arc<Self> {
        Arc::new(Self::default())
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn get(&self, index: usize) -> Option<Entry> {
        self.entries.get(index).copied()
    }

    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut Entry> {
        self.entries.get_mut(index)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Entry> + '_ {
        self.entries.iter().copied()
    }

    /// The bytes of the line at `index`. Who reads many of them keeps a [`Line`].
    pub(super) fn raw(&self, index: usize) -> Vec<u8> {
        let mut line = Line::default();
        line.read(self, index);
        line.bytes
    }

    /// How many bytes of the line at `index` are those of the line before, and the rest.
    #[inline]
    fn parts(&self, index: usize) -> (usize, &[u8]) {
        self.entries.get(index).map_or((0, &[]), |entry| self.parts_of(*entry))
    }

    /// The same of an entry of this sequence.
    #[inline]
    pub(super) fn parts_of(&self, entry: Entry) -> (usize, &[u8]) {
        let start = entry.start as usize;
        let part = self.text.get(start..start + entry.len as usize);
        match part.and_then(<[u8]>::split_first) {
            Some((shared, rest)) => (usize::from(*shared), rest),
            None => (0, &[]),
        }
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>() + self.text.capacity()
    }

    /// The first `len` lines, with their handles.
    pub(super) fn head(&self, len: usize) -> Self {
        let entries = self.entries.get(..len).unwrap_or(&self.entries);
        // Lines lie end to end in their order.
        let text_len = entries.last().map_or(0, |last| last.start as usize + last.len as usize);
        let text = self.text.get(..text_len).unwrap_or_default().to_vec();
        Self { entries: entries.to_vec(), text, newest: Vec::new() }
    }

    /// Appends a line that has no handle; answers its index.
    pub(super) fn push(&mut self, raw: &[u8], role: Role, kind: FamilyKind) -> Result<usize, ScrapeError> {
        let role_bits = ROLES.iter().position(|r| *r == role).unwrap_or(0) as u64;
        let kind_bits = KINDS.iter().position(|k| *k == kind).unwrap_or(0) as u64;
        self.push_entry(raw, role_bits | kind_bits << KIND_SHIFT)
    }

    /// Appends a line that repeats line `of`.
    pub(super) fn push_repeat(&mut self, raw: &[u8], of: usize) -> Result<usize, ScrapeError> {
        let index = self.push(raw, Role::Repeat, FamilyKind::Unknown)?;
        if let Some(entry) = self.entries.get_mut(index) {
            entry.bits |= (of as u64) << REF_SHIFT;
        }
        Ok(index)
    }

    /// Appends the line `raw` of another sequence with all that is known of it.
    pub(super) fn push_copy(&mut self, raw: &[u8], entry: Entry) -> Result<usize, ScrapeError> {
        self.push_entry(raw, entry.bits)
    }

    /// Gives back room that growing left over.
    pub(super) fn shrink(&mut self) {
        self.entries.shrink_to_fit();
        self.text.shrink_to_fit();
        self.newest = Vec::new();
    }

    fn push_entry(&mut self, raw: &[u8], bits: u64) -> Result<usize, ScrapeError> {
        let start = u32::try_from(self.text.len()).map_err(|_| ScrapeError::TooMuchText)?;
        let shared = if self.entries.len().is_multiple_of(WHOLE_EVERY) { 0 } else { shared_len(&self.newest, raw) };
        let rest = raw.get(shared..).unwrap_or_default();
        let len = u32::try_from(1 + rest.len()).map_err(|_| ScrapeError::TooMuchText)?;
        self.text.push(u8::try_from(shared).unwrap_or(u8::MAX));
        self.text.extend_from_slice(rest);
        self.newest.truncate(shared);
        self.newest.extend_from_slice(rest);
        self.entries.push(Entry { bits, start, len });
        Ok(self.entries.len() - 1)
    }
}

/// How many bytes both begin with, as far as that can be kept.
fn shared_len(before: &[u8], line: &[u8]) -> usize {
    let len_max = before.len().min(line.len()).min(SHARED_LEN_MAX);
    let (mut a, mut b) = (before.get(..len_max).unwrap_or_default(), line.get(..len_max).unwrap_or_default());
    while let (Some((word, rest_a)), Some((other, rest_b))) = (a.split_first_chunk::<8>(), b.split_first_chunk::<8>()) {
        let differing = u64::from_le_bytes(*word) ^ u64::from_le_bytes(*other);
        if differing != 0 {
            // The bytes before the first bit that differs.
            return len_max - a.len() + differing.trailing_zeros() as usize / 8;
        }
        (a, b) = (rest_a, rest_b);
    }
    len_max - a.len() + a.iter().zip(b).take_while(|(x, y)| x == y).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn handle(series: u64, shard: u16) -> SeriesHandle {
        SeriesHandle { series: SeriesRef(series), shard: ShardId(shard) }
    }

    #[test]
    fn an_entry_keeps_what_it_is_told() {
        let mut sequence = Sequence::default();
        let index = sequence.push(b"a", Role::Series, FamilyKind::Summary).unwrap();
        let entry = sequence.get_mut(index).unwrap();
        assert_eq!((entry.role(), entry.kind(), entry.handle()), (Role::Series, FamilyKind::Summary, None));
        entry.set_tracked(true);
        entry.set_handle(Some(handle(REF_MAX, u16::MAX)));
        assert_eq!((entry.handle(), entry.tracked()), (Some(handle(REF_MAX, u16::MAX)), true));
        assert_eq!((entry.role(), entry.kind()), (Role::Series, FamilyKind::Summary));
        entry.set_handle(Some(handle(1, 0)));
        entry.set_tracked(false);
        assert_eq!((entry.handle(), entry.tracked()), (Some(handle(1, 0)), false));
        entry.set_handle(Some(handle(REF_MAX + 1, 0)));
        assert_eq!(entry.handle(), None, "a reference that does not fit is not cut");
    }

    #[test]
    fn the_head_keeps_whole_lines() {
        let mut sequence = Sequence::default();
        for raw in [&b"one"[..], b"two", b"three"] {
            sequence.push(raw, Role::Series, FamilyKind::Unknown).unwrap();
        }
        let repeat = sequence.push_repeat(b"two", 1).unwrap();
        assert_eq!(sequence.get(repeat).unwrap().repeats(), 1);
        let head = sequence.head(2);
        assert_eq!((head.len(), head.raw(0), head.raw(1)), (2, b"one".to_vec(), b"two".to_vec()));
        assert_eq!(sequence.raw(repeat), b"two");
    }

    proptest! {
        #[test]
        fn every_line_reads_back(lines in proptest::collection::vec("(a{0,300}|node_[ab]{0,6})[a-c]{0,3}", 1..80), cut: usize,
            order in proptest::collection::vec(any::<usize>(), 0..80)) {
            let mut sequence = Sequence::default();
            for line in &lines {
                sequence.push(line.as_bytes(), Role::Series, FamilyKind::Unknown).unwrap();
            }
            // What is appended to a part of it reads back as well.
            let mut head = sequence.head(cut % lines.len());
            let len = head.len();
            head.push(b"node_a", Role::Series, FamilyKind::Unknown).unwrap();
            prop_assert_eq!(head.raw(len), b"node_a");
            sequence.shrink();
            let mut line = Line::default();
            for index in (0..lines.len()).chain(order.into_iter().map(|index| index % lines.len())) {
                prop_assert_eq!(line.read(&sequence, index), lines[index].as_bytes());
            }
        }
    }
}
