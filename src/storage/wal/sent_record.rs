//! Records that are read only to be sent on: exemplars and metadata.
//!
//! ```text
//! 4 exemplars  ref₀ u64, t₀ u64, { varint(ref − ref₀), varint(t − t₀), value u64, n uvarint, n × (name, value) } …
//! 6 metadata   { ref uvarint, kind u8, n uvarint, n × (name, value) } …       names: `UNIT`, `HELP`
//! ```

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use crate::model::labels::Labels;
use crate::model::sample::SeriesRef;
use crate::storage::wal::record::{RecordError, labels_of, take_str, take_u64, take_uvarint, take_varint};

const EXEMPLARS: u8 = 4;
const METADATA: u8 = 6;

/// An exemplar as the log names it.
#[derive(Clone, Debug, PartialEq)]
pub struct LoggedExemplar {
    /// The series.
    pub series: SeriesRef,
    /// Milliseconds since the epoch.
    pub t: i64,
    /// The value.
    pub value: f64,
    /// Its own labels.
    pub labels: Labels,
}

/// What a series' metric is, as the log says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedMetadata {
    /// The series.
    pub series: SeriesRef,
    /// Number of the type: 0 unknown, 1 counter, 2 gauge, 3 histogram, 4 gauge histogram, 5 summary, 6 info, 7 state set.
    pub kind: u8,
    /// Unit of the values.
    pub unit: String,
    /// What it means.
    pub help: String,
}

/// Appends the exemplars of a record to `out`.
pub fn decode_exemplars(bytes: &[u8], out: &mut Vec<LoggedExemplar>) -> Result<(), RecordError> {
    const MALFORMED: RecordError = RecordError::Malformed { kind: "exemplars" };
    let mut rest = bytes.strip_prefix(&[EXEMPLARS]).ok_or(MALFORMED)?;
    if rest.is_empty() {
        return Ok(());
    }
    let base_ref = take_u64(&mut rest).ok_or(MALFORMED)?;
    let base_t = take_u64(&mut rest).ok_or(MALFORMED)?.cast_signed();
    while !rest.is_empty() {
        let series = SeriesRef(base_ref.wrapping_add(take_varint(&mut rest).ok_or(MALFORMED)?.cast_unsigned()));
        let t = base_t.wrapping_add(take_varint(&mut rest).ok_or(MALFORMED)?);
        let value = f64::from_bits(take_u64(&mut rest).ok_or(MALFORMED)?);
        let pairs = take_pairs(&mut rest, MALFORMED)?;
        out.push(LoggedExemplar { series, t, value, labels: labels_of(&pairs) });
    }
    Ok(())
}

/// Appends the entries of a metadata record to `out`.
pub fn decode_metadata(bytes: &[u8], out: &mut Vec<LoggedMetadata>) -> Result<(), RecordError> {
    const MALFORMED: RecordError = RecordError::Malformed { kind: "metadata" };
    let mut rest = bytes.strip_prefix(&[METADATA]).ok_or(MALFORMED)?;
    while !rest.is_empty() {
        let series = SeriesRef(take_uvarint(&mut rest).ok_or(MALFORMED)?);
        let (kind, after) = rest.split_first().ok_or(MALFORMED)?;
        rest = after;
        let mut entry = LoggedMetadata { series, kind: *kind, unit: String::new(), help: String::new() };
        for (name, value) in take_pairs(&mut rest, MALFORMED)? {
            match name {
                "UNIT" => value.clone_into(&mut entry.unit),
                "HELP" => value.clone_into(&mut entry.help),
                // A later version may say more.
                _ => {}
            }
        }
        out.push(entry);
    }
    Ok(())
}

fn take_pairs<'a>(rest: &mut &'a [u8], malformed: RecordError) -> Result<Vec<(&'a str, &'a str)>, RecordError> {
    let count = take_uvarint(rest).ok_or(malformed)?;
    let mut pairs = Vec::new();
    // A count that is too high ends here at the latest, as each text takes bytes.
    for _ in 0..count {
        let (name, value) = (take_str(rest).ok_or(malformed)?, take_str(rest).ok_or(malformed)?);
        let text = |raw| std::str::from_utf8(raw).map_err(|_| RecordError::NotUtf8);
        pairs.push((text(name)?, text(value)?));
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn records_of_prometheus_are_read() {
        let mut raw = vec![4];
        raw.extend(7u64.to_be_bytes());
        raw.extend(1000i64.to_be_bytes());
        raw.extend([0, 4]);
        raw.extend(2.5f64.to_bits().to_be_bytes());
        raw.extend(b"\x01\x01a\x02bc");
        let mut found = Vec::new();
        decode_exemplars(&raw, &mut found).unwrap();
        let labels = Labels::from_pairs([("a", "bc")]);
        assert_eq!(found, [LoggedExemplar { series: SeriesRef(7), t: 1002, value: 2.5, labels }]);
        let mut found = Vec::new();
        decode_metadata(b"\x06\x07\x01\x03\x04UNIT\x01s\x04HELP\x02hi\x03NEW\x00", &mut found).unwrap();
        let expected = LoggedMetadata { series: SeriesRef(7), kind: 1, unit: "s".into(), help: "hi".into() };
        assert_eq!(found, [expected]);
    }

    proptest! {
        #[test]
        fn decoders_never_panic(mut bytes in vec(any::<u8>(), 0..200)) {
            bytes.insert(0, EXEMPLARS);
            let _ = decode_exemplars(&bytes, &mut Vec::new());
            bytes[0] = METADATA;
            let _ = decode_metadata(&bytes, &mut Vec::new());
        }
    }
}
