//! Records of exemplars.
//!
//! ```text
//! 4 exemplars  ref₀ u64, t₀ u64, { varint(ref − ref₀), varint(t − t₀), value u64, n uvarint, n × (name, value) } …
//!              the first counts as well; strings: uvarint length, bytes
//! ```
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use crate::model::exemplar::{Exemplar, labels_of};
use crate::model::sample::SeriesRef;
use crate::model::time::TimestampMs;
use crate::storage::wal::record::{
    RECORD_LEN_TARGET, Record, RecordError, put_str, put_uvarint, put_varint, take_str, take_u64, take_uvarint,
    take_varint,
};

const EXEMPLARS: u8 = 4;

/// An exemplar as the log names it.
#[derive(Clone, Debug, PartialEq)]
pub struct RefExemplar {
    /// The series.
    pub series: SeriesRef,
    /// The exemplar. The log does not say whether it had a time of its own; one that is read has none.
    pub exemplar: Exemplar,
}

/// Encodes exemplars, in one record or in several of about [`RECORD_LEN_TARGET`] bytes.
pub fn encode_exemplars<'a>(exemplars: impl IntoIterator<Item = (SeriesRef, &'a Exemplar)>, out: &mut Vec<Record>) {
    let mut bytes = Vec::new();
    let mut base = (0, 0);
    for (series, exemplar) in exemplars {
        if bytes.is_empty() {
            base = (series.0, exemplar.at.0);
            bytes.push(EXEMPLARS);
            bytes.extend_from_slice(&base.0.to_be_bytes());
            bytes.extend_from_slice(&base.1.to_be_bytes());
        }
        put_varint(series.0.wrapping_sub(base.0).cast_signed(), &mut bytes);
        put_varint(exemplar.at.0.wrapping_sub(base.1), &mut bytes);
        bytes.extend_from_slice(&exemplar.value.to_bits().to_be_bytes());
        put_uvarint(exemplar.labels.len() as u64, &mut bytes);
        for (name, value) in &exemplar.labels {
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

/// Appends the exemplars of a record to `out`, which on an error is as before.
pub fn decode_exemplars(bytes: &[u8], out: &mut Vec<RefExemplar>) -> Result<(), RecordError> {
    let before = out.len();
    let done = read(bytes, out);
    if done.is_err() {
        out.truncate(before);
    }
    done
}

fn read(bytes: &[u8], out: &mut Vec<RefExemplar>) -> Result<(), RecordError> {
    const MALFORMED: RecordError = RecordError::Malformed { kind: "exemplars" };
    let mut rest = bytes.strip_prefix(&[EXEMPLARS]).ok_or(MALFORMED)?;
    if rest.is_empty() {
        return Ok(());
    }
    let base_ref = take_u64(&mut rest).ok_or(MALFORMED)?;
    let base_t = take_u64(&mut rest).ok_or(MALFORMED)?.cast_signed();
    while !rest.is_empty() {
        let series = SeriesRef(base_ref.wrapping_add(take_varint(&mut rest).ok_or(MALFORMED)?.cast_unsigned()));
        let at = TimestampMs(base_t.wrapping_add(take_varint(&mut rest).ok_or(MALFORMED)?));
        let value = f64::from_bits(take_u64(&mut rest).ok_or(MALFORMED)?);
        let count = take_uvarint(&mut rest).ok_or(MALFORMED)?;
        let mut pairs = Vec::new();
        for _ in 0..count {
            // A count that is too high ends here at the latest, as each label takes bytes.
            let name = take_str(&mut rest).ok_or(MALFORMED)?;
            let value = take_str(&mut rest).ok_or(MALFORMED)?;
            let text = |raw| std::str::from_utf8(raw).map_err(|_| RecordError::NotUtf8);
            pairs.push((text(name)?, text(value)?));
        }
        let exemplar = Exemplar { labels: labels_of(pairs), value, at, has_time: false };
        out.push(RefExemplar { series, exemplar });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn exemplars_round_trip(all in vec((any::<u64>(), any::<i64>(), -1e9..1e9f64, vec(("[a-z]{1,5}", ".{0,9}"), 0..4)), 0..20)) {
            let make = |(series, t, value, pairs): (u64, i64, f64, Vec<(String, String)>)| {
                let exemplar = Exemplar { labels: labels_of(pairs), value, at: TimestampMs(t), has_time: false };
                RefExemplar { series: SeriesRef(series), exemplar }
            };
            let all: Vec<RefExemplar> = all.into_iter().map(make).collect();
            let (mut records, mut back) = (Vec::new(), Vec::new());
            encode_exemplars(all.iter().map(|one| (one.series, &one.exemplar)), &mut records);
            for record in &records {
                decode_exemplars(record.as_bytes(), &mut back).unwrap();
            }
            prop_assert_eq!(back, all);
        }

        #[test]
        fn decoders_never_panic(mut bytes in vec(any::<u8>(), 0..200)) {
            bytes.insert(0, EXEMPLARS);
            let mut out = Vec::new();
            prop_assert!(decode_exemplars(&bytes, &mut out).is_ok() || out.is_empty());
        }
    }
}
