//! Deleted ranges of a block's series.
//! ```text
//! │ magic 0x0130BA30 u32 │ version 1 u8 │ { series ref uvarint, min t varint, max t varint } … │ crc32c u32 │
//! ```
//! The checksum is of the entries. Both ends of a range are deleted. No file means no ranges.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use crate::storage::block::bytes::{Slice, put_uvarint, put_varint};
use crate::storage::block::{BlockError, IoContext};
use crate::storage::fs::Fs;

/// Name of the file within a block.
pub const TOMBSTONES_FILE: &str = "tombstones";
const MAGIC: u32 = 0x0130_BA30;
const VERSION: u8 = 1;
const HEADER_LEN: usize = 5;
const CHECKSUM_LEN: usize = 4;
/// Longest file that is read into memory.
const LEN_MAX: u64 = 1 << 30;

/// A deleted range, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// First deleted time, in milliseconds.
    pub min_t: i64,
    /// Last deleted time.
    pub max_t: i64,
}

impl Interval {
    /// True if `t` is deleted.
    pub fn contains(self, t: i64) -> bool {
        self.min_t <= t && t <= self.max_t
    }
}

/// Deleted ranges by the series' reference; those of one series are ascending and do not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tombstones {
    by_series: BTreeMap<u64, Vec<Interval>>,
}

impl Tombstones {
    /// Adds a range; ranges that overlap or touch become one.
    pub fn add(&mut self, series: u64, new: Interval) {
        let of_series = self.by_series.entry(series).or_default();
        let mut merged = new;
        of_series.retain(|old| {
            let apart = old.max_t.saturating_add(1) < merged.min_t || merged.max_t.saturating_add(1) < old.min_t;
            if !apart {
                merged = Interval { min_t: merged.min_t.min(old.min_t), max_t: merged.max_t.max(old.max_t) };
            }
            apart
        });
        let at = of_series.partition_point(|old| old.min_t < merged.min_t);
        of_series.insert(at, merged);
    }

    /// The deleted ranges of a series, ascending.
    pub fn of_series(&self, series: u64) -> &[Interval] {
        self.by_series.get(&series).map_or(&[], Vec::as_slice)
    }

    /// All ranges with their series, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u64, Interval)> + '_ {
        self.by_series.iter().flat_map(|(series, of_series)| of_series.iter().map(|interval| (*series, *interval)))
    }

    /// Number of ranges.
    pub fn len(&self) -> usize {
        self.by_series.values().map(Vec::len).sum()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.by_series.is_empty()
    }

    /// The bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_be_bytes().to_vec();
        out.push(VERSION);
        for (series, intervals) in &self.by_series {
            for interval in intervals {
                put_uvarint(&mut out, *series);
                put_varint(&mut out, interval.min_t);
                put_varint(&mut out, interval.max_t);
            }
        }
        let checksum = crc32c::crc32c(out.get(HEADER_LEN..).unwrap_or(&[]));
        out.extend_from_slice(&checksum.to_be_bytes());
        out
    }

    /// Reads the bytes of a file; the error says what is wrong.
    pub fn decode(data: &[u8]) -> Result<Self, String> {
        let (body, checksum) = data
            .split_last_chunk::<CHECKSUM_LEN>()
            .filter(|(body, _)| HEADER_LEN <= body.len())
            .ok_or("it is too short")?;
        let mut read = Slice::new(body);
        match (read.u32(), read.u8()) {
            (Some(MAGIC), Some(VERSION)) => {}
            (Some(MAGIC), Some(version)) => return Err(format!("invalid tombstone format {version:x}")),
            (magic, _) => return Err(format!("invalid magic number {:x}", magic.unwrap_or(0))),
        }
        if crc32c::crc32c(body.get(HEADER_LEN..).unwrap_or(&[])) != u32::from_be_bytes(*checksum) {
            return Err("checksum did not match".to_owned());
        }
        let mut tombstones = Self::default();
        while 0 < read.len() {
            let entry = (read.uvarint(), read.varint(), read.varint());
            let (Some(series), Some(min_t), Some(max_t)) = entry else {
                return Err("an entry is cut short".to_owned());
            };
            tombstones.add(series, Interval { min_t, max_t });
        }
        Ok(tombstones)
    }

    /// Reads the file of the block in `dir`; none is fine. Returns its length as well.
    pub fn read(fs: &dyn Fs, dir: &Path) -> Result<(Self, u64), BlockError> {
        let path = dir.join(TOMBSTONES_FILE);
        let file = match fs.open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Self::default(), 0)),
            Err(source) => return Err(BlockError::Io { action: "open", path, source }),
        };
        let len = file.len().context("read", &path)?;
        if LEN_MAX < len {
            return Err(BlockError::corrupt(&path, 0, format!("it has {len} bytes")));
        }
        let mut data = vec![0; usize::try_from(len).unwrap_or(0)];
        let read = file.read_at(&mut data, 0).context("read", &path)?;
        data.truncate(read);
        let tombstones = Self::decode(&data).map_err(|reason| BlockError::corrupt(&path, 0, reason))?;
        Ok((tombstones, len))
    }

    /// Writes the file of the block in `dir`, in one step; returns its length.
    pub fn write(&self, fs: &dyn Fs, dir: &Path) -> Result<u64, BlockError> {
        let data = self.encode();
        super::write::write_in_one_step(fs, dir, TOMBSTONES_FILE, &data)?;
        Ok(data.len() as u64)
    }
}

impl FromIterator<(u64, Interval)> for Tombstones {
    fn from_iter<I: IntoIterator<Item = (u64, Interval)>>(ranges: I) -> Self {
        let mut tombstones = Self::default();
        ranges.into_iter().for_each(|(series, interval)| tombstones.add(series, interval));
        tombstones
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_empty_file_is_that_of_prometheus() {
        assert_eq!(Tombstones::default().encode(), [0x01, 0x30, 0xBA, 0x30, 1, 0, 0, 0, 0]);
    }

    proptest! {
        #[test]
        fn ranges_are_merged_and_read_back(ranges in proptest::collection::vec((0u64..3, 0i64..60, 0i64..9), 0..30)) {
            let mut tombstones = Tombstones::default();
            for (series, min_t, len) in &ranges {
                tombstones.add(*series, Interval { min_t: *min_t, max_t: min_t + len });
            }
            for series in 0..3 {
                for t in 0..80 {
                    let expected = ranges.iter().any(|(s, min, len)| *s == series && *min <= t && t <= min + len);
                    prop_assert_eq!(tombstones.of_series(series).iter().any(|i| i.contains(t)), expected);
                }
                let apart = tombstones.of_series(series).windows(2).all(|pair| pair[0].max_t + 1 < pair[1].min_t);
                prop_assert!(apart);
            }
            prop_assert_eq!(Tombstones::decode(&tombstones.encode()), Ok(tombstones));
        }

        #[test]
        fn any_bytes_are_read_or_refused(data in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Tombstones::decode(&data);
        }
    }
}
