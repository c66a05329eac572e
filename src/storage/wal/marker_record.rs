//! Markers of chunks of samples that came out of order, as records of the log of those.
//!
//! ```text
//! 5 markers   { ref u64, place u64 } …      place   number of the file << 32 | offset of the chunk in it
//! ```
//! All samples of the series that stand before its marker in the log are in chunks up to that place, or behind the marker once more.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use crate::model::sample::SeriesRef;
use crate::storage::wal::record::{RECORD_LEN_TARGET, Record, RecordError, take_u64};

const MARKERS: u8 = 5;

/// A marker as the log names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefMarker {
    /// The series.
    pub series: SeriesRef,
    /// Where its newest chunk stands; 0 says that there is none.
    pub place: u64,
}

/// Encodes markers, in one record or in several of about [`RECORD_LEN_TARGET`] bytes.
pub fn encode_markers(markers: impl IntoIterator<Item = RefMarker>, out: &mut Vec<Record>) {
    let mut bytes = Vec::new();
    for RefMarker { series, place } in markers {
        if bytes.is_empty() {
            bytes.push(MARKERS);
        }
        bytes.extend_from_slice(&series.0.to_be_bytes());
        bytes.extend_from_slice(&place.to_be_bytes());
        if RECORD_LEN_TARGET <= bytes.len() {
            out.push(Record::from_bytes(std::mem::take(&mut bytes)));
        }
    }
    if !bytes.is_empty() {
        out.push(Record::from_bytes(bytes));
    }
}

/// The markers of a record.
pub fn decode_markers(bytes: &[u8]) -> Result<Vec<RefMarker>, RecordError> {
    let read = || {
        let mut rest = bytes.strip_prefix(&[MARKERS])?;
        let mut markers = Vec::with_capacity(rest.len() / 16);
        while !rest.is_empty() {
            markers.push(RefMarker { series: SeriesRef(take_u64(&mut rest)?), place: take_u64(&mut rest)? });
        }
        Some(markers)
    };
    read().ok_or(RecordError::Malformed { kind: "mmapmarkers" })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn markers_come_back(markers in vec((any::<u64>(), any::<u64>()), 0..50)) {
            let all: Vec<_> = markers.into_iter().map(|(series, place)| RefMarker { series: SeriesRef(series), place }).collect();
            let mut records = Vec::new();
            encode_markers(all.iter().copied(), &mut records);
            let back: Vec<_> = records.iter().flat_map(|record| decode_markers(record.as_bytes()).unwrap()).collect();
            prop_assert_eq!(back, all);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(mut bytes in vec(any::<u8>(), 0..60)) {
            let whole = bytes.len().is_multiple_of(16);
            bytes.insert(0, MARKERS);
            prop_assert_eq!(decode_markers(&bytes).is_ok(), whole);
        }
    }

    #[test]
    fn records_have_the_bytes_of_the_format() {
        let mut records = Vec::new();
        encode_markers([RefMarker { series: SeriesRef(258), place: 1 << 32 | 8 }], &mut records);
        let bytes = [5, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 1, 0, 0, 0, 8];
        assert_eq!(records.iter().map(Record::as_bytes).collect::<Vec<_>>(), [bytes]);
    }
}
