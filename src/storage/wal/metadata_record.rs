//! Records of metadata.
//!
//! ```text
//! 6 metadata  { ref uvarint, type u8, n uvarint, n × (name, value) } …     written: UNIT and HELP; strings: uvarint length, bytes
//! ```
//! Fields of other names are passed over.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use crate::model::metadata::{MetricType, SeriesMetadata};
use crate::model::sample::SeriesRef;
use crate::storage::wal::record::{
    RECORD_LEN_TARGET, Record, RecordError, put_str, put_uvarint, take_str, take_uvarint,
};

const METADATA: u8 = 6;
const UNIT: &str = "UNIT";
const HELP: &str = "HELP";

/// Metadata as the log names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefMetadata {
    /// The series.
    pub series: SeriesRef,
    /// What is said of it.
    pub metadata: SeriesMetadata,
}

/// Encodes metadata, in one record or in several of about [`RECORD_LEN_TARGET`] bytes.
pub fn encode_metadata<'a>(all: impl IntoIterator<Item = (SeriesRef, &'a SeriesMetadata)>, out: &mut Vec<Record>) {
    let mut bytes = Vec::new();
    for (series, metadata) in all {
        if bytes.is_empty() {
            bytes.push(METADATA);
        }
        put_uvarint(series.0, &mut bytes);
        bytes.push(metadata.kind.number());
        put_uvarint(2, &mut bytes);
        for (name, value) in [(UNIT, &metadata.unit), (HELP, &metadata.help)] {
            put_str(name, &mut bytes);
            put_str(value, &mut bytes);
        }
        if RECORD_LEN_TARGET <= bytes.len() {
            out.push(Record::from_bytes(std::mem::take(&mut bytes)));
        }
    }
    if !bytes.is_empty() {
        out.push(Record::from_bytes(bytes));
    }
}

/// Appends the metadata of a record to `out`, which on an error is as before.
pub fn decode_metadata(bytes: &[u8], out: &mut Vec<RefMetadata>) -> Result<(), RecordError> {
    let before = out.len();
    let done = read(bytes, out);
    if done.is_none() {
        out.truncate(before);
    }
    done.ok_or(RecordError::Malformed { kind: "metadata" })
}

fn read(bytes: &[u8], out: &mut Vec<RefMetadata>) -> Option<()> {
    let mut rest = bytes.strip_prefix(&[METADATA])?;
    while !rest.is_empty() {
        let series = SeriesRef(take_uvarint(&mut rest)?);
        let (kind, after) = rest.split_first()?;
        rest = after;
        let mut metadata = SeriesMetadata { kind: MetricType::from_number(u64::from(*kind)), ..Default::default() };
        // A count that is too high ends at the latest with the record, as each field takes bytes.
        for _ in 0..take_uvarint(&mut rest)? {
            let name = take_str(&mut rest)?;
            let value = String::from_utf8_lossy(take_str(&mut rest)?);
            if name == UNIT.as_bytes() {
                metadata.unit = value.into_owned();
            } else if name == HELP.as_bytes() {
                metadata.help = value.into_owned();
            }
        }
        out.push(RefMetadata { series, metadata });
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn metadata_is_read_back(all in vec((any::<u64>(), 0u64..8, ".{0,9}", ".{0,9}"), 0..20)) {
            let make = |(series, kind, unit, help)| {
                let metadata = SeriesMetadata { kind: MetricType::from_number(kind), unit, help };
                RefMetadata { series: SeriesRef(series), metadata }
            };
            let all: Vec<RefMetadata> = all.into_iter().map(make).collect();
            let (mut records, mut back) = (Vec::new(), Vec::new());
            encode_metadata(all.iter().map(|one| (one.series, &one.metadata)), &mut records);
            for record in &records {
                decode_metadata(record.as_bytes(), &mut back).unwrap();
            }
            prop_assert_eq!(back, all);
        }

        #[test]
        fn decoders_never_panic(mut bytes in vec(any::<u8>(), 0..200)) {
            bytes.insert(0, METADATA);
            let mut out = Vec::new();
            prop_assert!(decode_metadata(&bytes, &mut out).is_ok() || out.is_empty());
        }
    }

    #[test]
    fn other_fields_are_passed_over() {
        let bytes = b"\x06\x81\x01\x01\x03\x04UNIT\x01s\x01X\x02yz\x04HELP\x01h";
        let mut out = Vec::new();
        decode_metadata(bytes, &mut out).unwrap();
        let metadata = SeriesMetadata { kind: MetricType::Counter, unit: "s".into(), help: "h".into() };
        assert_eq!(out, [RefMetadata { series: SeriesRef(129), metadata }]);
    }
}
