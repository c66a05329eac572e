//! Deleted ranges of series, as records of the log.
//!
//! ```text
//! 3 tombstones   { ref u64, min t varint, max t varint } …      both ends are deleted
//! ```
//! A range reaches from the first to the last sample that was deleted, so it does not matter where in the log it stands:
//! what is appended later is newer. One over all times says instead that the series is given up with all it has so far.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use crate::model::sample::SeriesRef;
use crate::storage::block::tombstones::Interval;
use crate::storage::wal::held::Held;
use crate::storage::wal::record::{RECORD_LEN_TARGET, Record, RecordError, put_varint, take_u64, take_varint};

const TOMBSTONES: u8 = 3;

/// A deleted range as the log names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefTombstone {
    /// The series.
    pub series: SeriesRef,
    /// What is deleted of it.
    pub interval: Interval,
}

/// Encodes deleted ranges, in one record or in several of about [`RECORD_LEN_TARGET`] bytes.
pub fn encode_tombstones(tombstones: impl IntoIterator<Item = RefTombstone>, out: &mut Vec<Record>) {
    let (mut bytes, mut count) = (Vec::new(), 0);
    let mut end = |bytes: &mut Vec<u8>, count: &mut usize| {
        out.push(Record::holding(Held::of_deletions(std::mem::take(count)), std::mem::take(bytes)));
    };
    for RefTombstone { series, interval } in tombstones {
        if bytes.is_empty() {
            bytes.push(TOMBSTONES);
        }
        count += 1;
        bytes.extend_from_slice(&series.0.to_be_bytes());
        put_varint(interval.min_t, &mut bytes);
        put_varint(interval.max_t, &mut bytes);
        if RECORD_LEN_TARGET <= bytes.len() {
            end(&mut bytes, &mut count);
        }
    }
    if !bytes.is_empty() {
        end(&mut bytes, &mut count);
    }
}

/// The deleted ranges of a record.
pub fn decode_tombstones(bytes: &[u8]) -> Result<Vec<RefTombstone>, RecordError> {
    let read = || {
        let mut rest = bytes.strip_prefix(&[TOMBSTONES])?;
        let mut tombstones = Vec::new();
        while !rest.is_empty() {
            let series = SeriesRef(take_u64(&mut rest)?);
            let interval = Interval { min_t: take_varint(&mut rest)?, max_t: take_varint(&mut rest)? };
            tombstones.push(RefTombstone { series, interval });
        }
        Some(tombstones)
    };
    read().ok_or(RecordError::Malformed { kind: "tombstones" })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn tombstones_round_trip(ranges in vec((any::<u64>(), any::<i64>(), any::<i64>()), 0..40)) {
            let stone = |(series, min_t, max_t)| RefTombstone {
                series: SeriesRef(series),
                interval: Interval { min_t, max_t },
            };
            let stones: Vec<_> = ranges.into_iter().map(stone).collect();
            let mut records = Vec::new();
            encode_tombstones(stones.iter().copied(), &mut records);
            let back: Vec<_> = records.iter().flat_map(|r| decode_tombstones(r.as_bytes()).unwrap()).collect();
            prop_assert_eq!(back, stones);
        }

        #[test]
        fn any_bytes_are_read_or_refused(mut bytes in vec(any::<u8>(), 0..60)) {
            bytes.insert(0, TOMBSTONES);
            let _ = decode_tombstones(&bytes);
        }
    }

    #[test]
    fn a_record_has_the_bytes_of_the_format() {
        let mut records = Vec::new();
        let interval = Interval { min_t: -1, max_t: 64 };
        encode_tombstones([RefTombstone { series: SeriesRef(258), interval }], &mut records);
        assert_eq!(records[0].as_bytes(), [3, 0, 0, 0, 0, 0, 0, 1, 2, 1, 0x80, 1]);
    }
}
