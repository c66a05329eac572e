//! How records lie in a segment: in fragments that never cross a page.
//!
//! ```text
//! segment  │ page of 32 KiB │ page │ …             the last page may be short
//! page     │ fragment │ fragment │ … │ zeros       no fragment begins in the last 6 bytes
//! fragment │ flags u8 │ len u16 │ crc32c u32 │ data …        big-endian; the checksum is of the data
//! flags      bits 0–2  kind: 0 nothing more in this page, 1 full, 2 first, 3 middle, 4 last
//!            bit 3     the whole record is compressed with Snappy; bit 4 with zstd
//! ```

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

/// Bytes of a page.
pub const PAGE_LEN: usize = 32 << 10;
/// Bytes before a fragment's data.
pub const FRAGMENT_HEADER_LEN: usize = 7;
const _: () = assert!(PAGE_LEN - FRAGMENT_HEADER_LEN <= u16::MAX as usize);

const KIND_MASK: u8 = 0b111;
const SNAPPY: u8 = 1 << 3;
const ZSTD: u8 = 1 << 4;

/// Which part of a record a fragment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FragmentKind {
    /// All of it.
    Full,
    /// Its beginning.
    First,
    /// A part that more follows.
    Middle,
    /// Its end.
    Last,
}

/// How a record is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// Snappy's block format.
    Snappy,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Snappy => "snappy",
            Self::Zstd => "zstd",
        }
    }
}

/// Header of a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentHeader {
    /// Which part of a record follows.
    pub kind: FragmentKind,
    /// How the record is compressed; the same in all its fragments.
    pub compression: Compression,
    /// Bytes of data.
    pub len: u16,
    /// Checksum of the data.
    pub checksum: u32,
}

/// Why bytes are no fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FragmentError {
    /// The file ends within a fragment or a record.
    #[error("the segment ends within a record")]
    Torn,
    /// Bits that no writer sets.
    #[error("unexpected record type {flags}")]
    Flags {
        /// The first byte.
        flags: u8,
    },
    /// The fragment would reach into the next page.
    #[error("invalid record size {len}: it crosses the page")]
    TooLong {
        /// The length that its header names.
        len: u16,
    },
    /// The data are not what was written.
    #[error("unexpected checksum {actual:x}, expected {expected:x}")]
    Checksum {
        /// Of the data that are there.
        actual: u32,
        /// The one in the header.
        expected: u32,
    },
    /// A record that does not begin, or does not end.
    #[error("unexpected {kind:?} fragment")]
    Order {
        /// The fragment that does not fit its predecessor.
        kind: FragmentKind,
    },
    /// A page was marked as ended and is not.
    #[error("unexpected non-zero byte in padded page")]
    Padding,
    /// The record is longer than any writer makes it.
    #[error("the record is longer than {max} bytes")]
    RecordTooLong {
        /// The bound.
        max: usize,
    },
}

impl FragmentHeader {
    /// Its bytes.
    pub fn encode(self) -> [u8; FRAGMENT_HEADER_LEN] {
        let kind = match self.kind {
            FragmentKind::Full => 1,
            FragmentKind::First => 2,
            FragmentKind::Middle => 3,
            FragmentKind::Last => 4,
        };
        let compression = match self.compression {
            Compression::None => 0,
            Compression::Snappy => SNAPPY,
            Compression::Zstd => ZSTD,
        };
        let ([l0, l1], [c0, c1, c2, c3]) = (self.len.to_be_bytes(), self.checksum.to_be_bytes());
        [kind | compression, l0, l1, c0, c1, c2, c3]
    }

    /// Reads a header. Its first byte is not zero: that is padding, which the caller knows.
    pub fn decode(raw: [u8; FRAGMENT_HEADER_LEN]) -> Result<Self, FragmentError> {
        let [flags, l0, l1, c0, c1, c2, c3] = raw;
        let kind = match flags & KIND_MASK {
            1 => FragmentKind::Full,
            2 => FragmentKind::First,
            3 => FragmentKind::Middle,
            4 => FragmentKind::Last,
            _ => return Err(FragmentError::Flags { flags }),
        };
        let compression = match flags & !KIND_MASK {
            0 => Compression::None,
            SNAPPY => Compression::Snappy,
            ZSTD => Compression::Zstd,
            _ => return Err(FragmentError::Flags { flags }),
        };
        let (len, checksum) = (u16::from_be_bytes([l0, l1]), u32::from_be_bytes([c0, c1, c2, c3]));
        Ok(Self { kind, compression, len, checksum })
    }
}

/// Bytes that fit into the page at `offset` of a segment.
pub fn page_rest(offset: u64) -> usize {
    // The remainder is below a page's length.
    PAGE_LEN - (offset % PAGE_LEN as u64) as usize
}

/// Appends zeros to `out`, which will stand at `start` of a segment, up to the end of the page.
pub fn pad_page(start: u64, out: &mut Vec<u8>) {
    let rest = page_rest(start + out.len() as u64);
    if rest < PAGE_LEN {
        out.resize(out.len() + rest, 0);
    }
}

/// Appends the fragments of a record to `out`, which will stand at `start` of a segment.
pub fn frame(data: &[u8], compression: Compression, start: u64, out: &mut Vec<u8>) -> u64 {
    let (mut rest, mut first, mut count) = (data, true, 0);
    loop {
        if page_rest(start + out.len() as u64) < FRAGMENT_HEADER_LEN {
            pad_page(start, out);
        }
        let room = page_rest(start + out.len() as u64) - FRAGMENT_HEADER_LEN;
        let (part, after) = rest.split_at(rest.len().min(room));
        rest = after;
        let kind = match (first, rest.is_empty()) {
            (true, true) => FragmentKind::Full,
            (true, false) => FragmentKind::First,
            (false, false) => FragmentKind::Middle,
            (false, true) => FragmentKind::Last,
        };
        let len = u16::try_from(part.len()).expect("a page is shorter than 64 KiB");
        let header = FragmentHeader { kind, compression, len, checksum: crc32c::crc32c(part) };
        out.extend_from_slice(&header.encode());
        out.extend_from_slice(part);
        first = false;
        count += 1;
        if rest.is_empty() {
            return count;
        }
    }
}

/// Most bytes that the fragments of a record of `len` bytes take, wherever it begins.
pub fn framed_len_max(len: usize) -> usize {
    let pages = len / (PAGE_LEN - FRAGMENT_HEADER_LEN) + 2;
    len + pages * 2 * FRAGMENT_HEADER_LEN
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn headers_round_trip(kind in 1u8..=4, compression in 0u8..3, len: u16, checksum: u32) {
            let mut raw = [0; FRAGMENT_HEADER_LEN];
            raw[0] = kind | [0, SNAPPY, ZSTD][usize::from(compression)];
            raw[1..3].copy_from_slice(&len.to_be_bytes());
            raw[3..].copy_from_slice(&checksum.to_be_bytes());
            prop_assert_eq!(FragmentHeader::decode(raw).unwrap().encode(), raw);
        }

        #[test]
        fn headers_never_panic(raw: [u8; FRAGMENT_HEADER_LEN]) {
            let _ = FragmentHeader::decode(raw);
        }

        #[test]
        fn the_length_of_fragments_is_bounded(len in 0usize..200_000, start in 0u64..70_000) {
            let mut out = Vec::new();
            frame(&vec![1; len], Compression::None, start, &mut out);
            prop_assert!(out.len() <= framed_len_max(len));
        }
    }

    #[test]
    fn a_record_is_laid_out_as_the_format_says() {
        let mut out = Vec::new();
        frame(b"abc", Compression::Snappy, 0, &mut out);
        assert_eq!(out, [0x09, 0, 3, 0x36, 0x4b, 0x3f, 0xb7, b'a', b'b', b'c']);
        // Six bytes before the page's end there is no room for a header.
        out.clear();
        frame(b"", Compression::None, PAGE_LEN as u64 - 6, &mut out);
        assert_eq!(out, [0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    }
}
