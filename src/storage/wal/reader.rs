//! Reads a segment record by record, checking everything, and goes on behind damage.
//!
//! After damage the reader looks for the next place where a record can begin: right behind the damaged fragment if its
//! length leads to a sound one, else at the next page. So a flipped bit costs one record, at worst those of a page.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::io;

use crate::storage::fs::File;
use crate::storage::wal::fragment::{
    Compression, FRAGMENT_HEADER_LEN, FragmentError, FragmentHeader, FragmentKind, PAGE_LEN, page_rest,
};
use crate::storage::wal::record::{RECORD_LEN_MAX, RecordError};

/// Bytes that a byte of a compressed record can become: a copy of 64 bytes takes three.
const SNAPPY_RATIO_MAX: usize = 22;
/// Pages that are read from the file at once.
const WINDOW_PAGES: usize = 16;

/// A stretch of a segment that holds no sound record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where the record begins that is lost, or the first of them.
    pub offset: u64,
    /// Where reading goes on; the end of the segment if nothing sound follows.
    pub resumed: u64,
    /// What is wrong.
    pub error: FragmentError,
}

/// What a reader finds next.
#[derive(Debug)]
pub enum Item<'a> {
    /// A record.
    Record {
        /// Where it begins.
        offset: u64,
        /// Where it ends.
        end: u64,
        /// How `data` are compressed.
        compression: Compression,
        /// Its bytes as they stand in the segment.
        data: &'a [u8],
    },
    /// Something else.
    Damage(Damage),
}

/// A reader of one segment.
pub struct SegmentReader {
    file: Box<dyn File>,
    /// Bytes to read at most.
    end: u64,
    window: Vec<u8>,
    window_start: u64,
    /// Where the next fragment is.
    at: u64,
    record: Vec<u8>,
}

/// Where a record begins and how it is compressed, `None` at the end; or where it is wrong.
type RecordOrError = Result<Option<(u64, Compression)>, (u64, FragmentError)>;

/// What stands at a place.
enum Found {
    Fragment(FragmentHeader),
    /// Zeros up to the end of the page.
    Padding,
    End,
}

impl SegmentReader {
    /// Reads `file` up to `limit`, or to its end.
    pub fn new(file: Box<dyn File>, limit: Option<u64>) -> io::Result<Self> {
        let len = file.len()?;
        let end = limit.map_or(len, |limit| limit.min(len));
        Ok(Self { file, end, window: Vec::new(), window_start: 0, at: 0, record: Vec::new() })
    }

    /// Goes on at `at`, where a record ends.
    pub fn skip_to(&mut self, at: u64) {
        self.at = at;
    }

    /// The segment's length.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Bytes up to the end.
    pub fn rest_len(&self) -> u64 {
        self.end.saturating_sub(self.at)
    }

    /// Goes on at `offset`, where a record ends.
    pub fn seek(&mut self, offset: u64) {
        self.at = offset;
    }

    /// Reads up to `limit` from now on, or to the file's end: a segment that is being written has grown.
    pub fn extend(&mut self, limit: Option<u64>) -> io::Result<()> {
        let end = match limit {
            Some(limit) if limit <= self.end => self.end,
            limit => {
                let len = self.file.len()?;
                limit.map_or(len, |limit| limit.min(len))
            }
        };
        self.end = self.end.max(end);
        Ok(())
    }

    /// The bytes of the record that was read last, as they stand in the segment.
    pub fn last_record(&self) -> &[u8] {
        &self.record
    }

    /// The next record or damage; `None` at the end. Errors when the file cannot be read.
    pub fn next_item(&mut self) -> io::Result<Option<Item<'_>>> {
        let start = self.at;
        match self.read_record()? {
            Ok(None) => Ok(None),
            Ok(Some((offset, compression))) => {
                Ok(Some(Item::Record { offset, end: self.at, compression, data: &self.record }))
            }
            Err((offset, error)) => {
                self.resynchronise()?;
                // Padding before the record is sound.
                Ok(Some(Item::Damage(Damage { offset: offset.max(start), resumed: self.at, error })))
            }
        }
    }

    /// Collects the fragments of a record; leaves `at` behind it, or at the fragment that is wrong.
    fn read_record(&mut self) -> io::Result<RecordOrError> {
        self.record.clear();
        let mut begun: Option<u64> = None;
        loop {
            let at = self.at;
            let offset = begun.unwrap_or(at);
            let header = match self.find(at)? {
                Ok(Found::Fragment(header)) => header,
                Ok(Found::Padding) => {
                    self.at = (at + page_rest(at) as u64).min(self.end);
                    continue;
                }
                Ok(Found::End) if begun.is_some() => return Ok(Err((offset, FragmentError::Torn))),
                Ok(Found::End) => return Ok(Ok(None)),
                Err(error) => return Ok(Err((offset, error))),
            };
            let starts = matches!(header.kind, FragmentKind::Full | FragmentKind::First);
            if starts == begun.is_some() {
                return Ok(Err((offset, FragmentError::Order { kind: header.kind })));
            }
            begun = Some(offset);
            let data_at = at + FRAGMENT_HEADER_LEN as u64;
            let len = usize::from(header.len);
            if RECORD_LEN_MAX < self.record.len() + len {
                return Ok(Err((offset, FragmentError::RecordTooLong { max: RECORD_LEN_MAX })));
            }
            // The fragment was checked by `find`, so the window holds it.
            let from = usize::try_from(data_at - self.window_start).unwrap_or(usize::MAX);
            self.record.extend_from_slice(self.window.get(from..from.saturating_add(len)).unwrap_or_default());
            self.at = data_at + len as u64;
            if matches!(header.kind, FragmentKind::Full | FragmentKind::Last) {
                return Ok(Ok(Some((offset, header.compression))));
            }
        }
    }

    /// Moves `at` behind what is wrong there, to a fragment that begins a record, or to the end.
    fn resynchronise(&mut self) -> io::Result<()> {
        let wrong = self.at;
        let mut at = match self.find(wrong)? {
            // Sound, but out of order: it may begin the next record itself.
            Ok(_) => wrong,
            Err(_) => match self.behind(wrong)? {
                Some(behind) if matches!(self.find(behind)?, Ok(Found::Fragment(_) | Found::Padding)) => behind,
                _ => wrong + page_rest(wrong) as u64,
            },
        };
        while at < self.end {
            match self.find(at)? {
                Ok(Found::Fragment(FragmentHeader { kind: FragmentKind::Full | FragmentKind::First, .. })) => break,
                Ok(Found::Fragment(header)) => at += FRAGMENT_HEADER_LEN as u64 + u64::from(header.len),
                Ok(Found::Padding) | Err(_) => at += page_rest(at) as u64,
                Ok(Found::End) => at = self.end,
            }
        }
        self.at = at.min(self.end);
        Ok(())
    }

    /// Where the fragment at `at` ends by its header, if that is within the page and the file.
    fn behind(&mut self, at: u64) -> io::Result<Option<u64>> {
        let page = self.page(at)?;
        let Some((raw, rest)) = page.split_first_chunk::<FRAGMENT_HEADER_LEN>() else { return Ok(None) };
        let [_, l0, l1, ..] = *raw;
        let len = usize::from(u16::from_be_bytes([l0, l1]));
        Ok((len <= rest.len()).then(|| at + (FRAGMENT_HEADER_LEN + len) as u64))
    }

    /// What stands at `at`; a fragment's checksum is right.
    fn find(&mut self, at: u64) -> io::Result<Result<Found, FragmentError>> {
        if self.end <= at {
            return Ok(Ok(Found::End));
        }
        let whole = page_rest(at);
        let page = self.page(at)?;
        if whole < FRAGMENT_HEADER_LEN || page.first() == Some(&0) {
            let padded = page.iter().all(|byte| *byte == 0);
            return Ok(if padded { Ok(Found::Padding) } else { Err(FragmentError::Padding) });
        }
        let Some((raw, rest)) = page.split_first_chunk::<FRAGMENT_HEADER_LEN>() else {
            return Ok(Err(FragmentError::Torn));
        };
        let header = match FragmentHeader::decode(*raw) {
            Ok(header) => header,
            Err(error) => return Ok(Err(error)),
        };
        let len = usize::from(header.len);
        if whole - FRAGMENT_HEADER_LEN < len {
            return Ok(Err(FragmentError::TooLong { len: header.len }));
        }
        let Some(data) = rest.get(..len) else { return Ok(Err(FragmentError::Torn)) };
        let actual = crc32c::crc32c(data);
        if actual != header.checksum {
            return Ok(Err(FragmentError::Checksum { actual, expected: header.checksum }));
        }
        Ok(Ok(Found::Fragment(header)))
    }

    /// The bytes from `at` to the end of its page or of the file.
    fn page(&mut self, at: u64) -> io::Result<&[u8]> {
        let page_start = at - at % PAGE_LEN as u64;
        let page_end = (page_start + PAGE_LEN as u64).min(self.end);
        if page_start < self.window_start || self.window_start + (self.window.len() as u64) < page_end {
            let wanted = (WINDOW_PAGES * PAGE_LEN) as u64;
            let len = usize::try_from(wanted.min(self.end.saturating_sub(page_start))).unwrap_or(0);
            self.window.resize(len, 0);
            let read = self.file.read_at(&mut self.window, page_start)?;
            self.window_start = page_start;
            if read < len {
                self.window.clear();
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let from = usize::try_from(at - self.window_start).unwrap_or(usize::MAX);
        let to = usize::try_from(page_end - self.window_start).unwrap_or(usize::MAX);
        Ok(self.window.get(from..to).unwrap_or_default())
    }
}

/// Undoes the compression of records; keeps its buffer.
#[derive(Default)]
pub struct Inflater {
    buffer: Vec<u8>,
    zstd: Option<zstd::bulk::Decompressor<'static>>,
}

/// The most that zstd makes of a byte: a block of 128 KiB takes four bytes at least.
const ZSTD_RATIO_MAX: usize = 1 << 15;
/// Largest window that a zstd frame without a declared size may ask for: 8 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

impl Inflater {
    /// The record's bytes.
    pub fn inflate<'a>(&'a mut self, compression: Compression, data: &'a [u8]) -> Result<&'a [u8], RecordError> {
        match compression {
            Compression::None => Ok(data),
            Compression::Snappy => {
                let len = inflate_snappy(data, (&mut self.buffer, 0))?;
                Ok(self.buffer.get(..len).unwrap_or_default())
            }
            Compression::Zstd => {
                let len = self.inflate_zstd(data).ok_or(RecordError::Compression)?;
                Ok(self.buffer.get(..len).unwrap_or_default())
            }
        }
    }

    /// The same, into `out` from `at` on, which grows as needed; returns where the bytes end.
    pub fn inflate_to(
        &mut self,
        compression: Compression,
        data: &[u8],
        (out, at): (&mut Vec<u8>, usize),
    ) -> Result<usize, RecordError> {
        if compression == Compression::Snappy {
            return inflate_snappy(data, (out, at));
        }
        let bytes = self.inflate(compression, data)?;
        out.truncate(at);
        out.extend_from_slice(bytes);
        Ok(out.len())
    }

    /// Bytes that now stand in the buffer.
    fn inflate_zstd(&mut self, data: &[u8]) -> Option<usize> {
        let Some(len) = zstd::zstd_safe::get_frame_content_size(data).ok()? else {
            return self.inflate_zstd_of_unknown_len(data);
        };
        // A length that the format cannot make of so many bytes is not worth the room.
        let len_max = data.len().saturating_mul(ZSTD_RATIO_MAX).min(RECORD_LEN_MAX);
        let len = usize::try_from(len).ok().filter(|len| *len <= len_max)?;
        if self.buffer.len() < len {
            self.buffer.resize(len, 0);
        }
        if self.zstd.is_none() {
            self.zstd = zstd::bulk::Decompressor::new().ok();
        }
        let inflated = self.zstd.as_mut()?.decompress_to_buffer(data, self.buffer.get_mut(..len)?).ok()?;
        (inflated == len).then_some(len)
    }

    /// The same for a frame that does not say how long its content is.
    fn inflate_zstd_of_unknown_len(&mut self, data: &[u8]) -> Option<usize> {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(data).ok()?;
        decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).ok()?;
        self.buffer.clear();
        let room = u64::try_from(RECORD_LEN_MAX).unwrap_or(u64::MAX).saturating_add(1);
        io::Read::read_to_end(&mut io::Read::take(decoder, room), &mut self.buffer).ok()?;
        Some(self.buffer.len()).filter(|len| *len <= RECORD_LEN_MAX)
    }
}

/// Where the bytes end that now stand in `out` from `at` on.
fn inflate_snappy(data: &[u8], (out, at): (&mut Vec<u8>, usize)) -> Result<usize, RecordError> {
    let len = snap::raw::decompress_len(data).map_err(|_| RecordError::Compression)?;
    // The format cannot make more of a byte: a length that says so is not worth the room.
    if RECORD_LEN_MAX < len || data.len().saturating_mul(SNAPPY_RATIO_MAX) < len {
        return Err(RecordError::Compression);
    }
    if out.len() < at + len {
        out.resize(at + len, 0);
    }
    let room = out.get_mut(at..).unwrap_or_default();
    let len = snap::raw::Decoder::new().decompress(data, room).map_err(|_| RecordError::Compression)?;
    Ok(at + len)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::storage::fs::Fs;
    use crate::storage::fs::sim::SimFs;
    use crate::storage::wal::fragment::frame;

    /// The records and damages of a segment with these bytes.
    fn read(bytes: &[u8]) -> (Vec<Vec<u8>>, Vec<Damage>) {
        let fs = SimFs::new();
        fs.put(Path::new("/s"), bytes).unwrap();
        let mut reader = SegmentReader::new(fs.open(Path::new("/s")).unwrap(), None).unwrap();
        let (mut records, mut damages) = (Vec::new(), Vec::new());
        while let Some(item) = reader.next_item().unwrap() {
            match item {
                Item::Record { data, .. } => records.push(data.to_vec()),
                Item::Damage(damage) => damages.push(damage),
            }
        }
        (records, damages)
    }

    fn segment(records: &[Vec<u8>]) -> (Vec<u8>, Vec<usize>) {
        let (mut out, mut ends) = (Vec::new(), Vec::new());
        for record in records {
            frame(record, Compression::None, 0, &mut out);
            ends.push(out.len());
        }
        (out, ends)
    }

    fn records() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let lens = prop_oneof![Just(0usize), 1usize..50, 20_000usize..100_000];
        vec((lens, any::<u8>()).prop_map(|(len, byte)| vec![byte; len]), 0..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn segments_round_trip(records in records()) {
            prop_assert_eq!(read(&segment(&records).0), (records, vec![]));
        }

        #[test]
        fn a_cut_segment_keeps_the_records_before_the_cut(records in records(), cut in any::<prop::sample::Index>()) {
            let (bytes, ends) = segment(&records);
            let cut = cut.index(bytes.len() + 1);
            let whole = ends.iter().take_while(|end| **end <= cut).count();
            let (found, damages) = read(&bytes[..cut]);
            prop_assert_eq!(&found, &records[..whole]);
            prop_assert!(damages.len() <= 1);
        }

        #[test]
        fn a_flipped_bit_costs_one_record_or_a_page(records in records(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let (mut bytes, ends) = segment(&records);
            if bytes.is_empty() {
                return Ok(());
            }
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let (found, _) = read(&bytes);
            let before = ends.iter().take_while(|end| **end <= at).count();
            prop_assert!(found.starts_with(&records[..before]));
            // Everything that begins behind the page of the flipped bit is kept.
            let next_page = (at / PAGE_LEN + 1) * PAGE_LEN;
            let after = ends.iter().take_while(|end| **end < next_page).count() + 1;
            prop_assert!(found.ends_with(records.get(after..).unwrap_or_default()));
            prop_assert!(found.iter().all(|record| records.contains(record)));
        }

        #[test]
        fn garbage_never_panics_and_is_never_passed_twice(bytes in vec(any::<u8>(), 0..100_000)) {
            let (_, damages) = read(&bytes);
            prop_assert!(damages.windows(2).all(|pair| pair[0].resumed <= pair[1].offset));
        }
    }

    #[test]
    fn a_flipped_bit_in_the_data_costs_that_record_alone() {
        let records: Vec<Vec<u8>> = (0..10).map(|i| vec![i; 100]).collect();
        let (mut bytes, ends) = segment(&records);
        bytes[ends[3] + 50] ^= 1;
        let (found, damages) = read(&bytes);
        assert_eq!(found, [&records[..4], &records[5..]].concat());
        assert_eq!((damages[0].offset, damages[0].resumed), (ends[3] as u64, ends[4] as u64));
        assert!(matches!(damages[0].error, FragmentError::Checksum { .. }));
    }

    #[test]
    fn a_cut_at_every_byte_of_the_last_record_is_torn() {
        let records: Vec<Vec<u8>> = (0..4).map(|i| vec![i + 1; 40]).collect();
        let (bytes, ends) = segment(&records);
        for cut in ends[2] + 1..ends[3] {
            let (found, damages) = read(&bytes[..cut]);
            assert_eq!((found.len(), damages.len()), (3, 1), "cut at {cut}");
            assert_eq!((damages[0].error, damages[0].offset), (FragmentError::Torn, ends[2] as u64));
        }
    }
}
