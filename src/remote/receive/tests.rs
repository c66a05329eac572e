//! Decoding compared with another library's, and on any bytes.

use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::model::append::{AppendReport, SeriesHandle, SeriesKey, ShardId};
use crate::model::labels::Labels;
use crate::model::sample::SeriesRef;
use crate::remote::receive::budget::Budget;

const NOW: TimestampMs = TimestampMs(1_700_000_000_000);

#[derive(Clone, PartialEq, prost::Message)]
struct LabelMessage {
    #[prost(bytes = "vec", tag = "1")]
    name: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SampleMessage {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
    #[prost(int64, tag = "3")]
    start_timestamp: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SeriesMessage {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<LabelMessage>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<SampleMessage>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RequestMessage {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<SeriesMessage>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SeriesMessageV2 {
    #[prost(uint32, repeated, tag = "1")]
    labels_refs: Vec<u32>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<SampleMessage>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RequestMessageV2 {
    #[prost(bytes = "vec", repeated, tag = "4")]
    symbols: Vec<Vec<u8>>,
    #[prost(message, repeated, tag = "5")]
    timeseries: Vec<SeriesMessageV2>,
}

type Row = (Vec<(String, String)>, Vec<(i64, f64)>);

fn v1_of(rows: &[Row]) -> Vec<u8> {
    let series = |(labels, samples): &Row| SeriesMessage {
        labels: labels
            .iter()
            .map(|(name, value)| LabelMessage { name: name.clone().into_bytes(), value: value.clone().into_bytes() })
            .collect(),
        samples: points(samples),
    };
    RequestMessage { timeseries: rows.iter().map(series).collect() }.encode_to_vec()
}

fn v2_of(rows: &[Row]) -> Vec<u8> {
    let mut request = RequestMessageV2 { symbols: vec![vec![]], timeseries: vec![] };
    for (labels, samples) in rows {
        let mut refs = Vec::new();
        for text in labels.iter().flat_map(|(name, value)| [name, value]) {
            let known = request.symbols.iter().position(|symbol| symbol == text.as_bytes());
            refs.push(known.unwrap_or(request.symbols.len()) as u32);
            if known.is_none() {
                request.symbols.push(text.clone().into_bytes());
            }
        }
        request.timeseries.push(SeriesMessageV2 { labels_refs: refs, samples: points(samples) });
    }
    request.encode_to_vec()
}

fn points(samples: &[(i64, f64)]) -> Vec<SampleMessage> {
    samples
        .iter()
        .map(|(timestamp, value)| SampleMessage {
            value: *value,
            timestamp: *timestamp,
            start_timestamp: timestamp / 2,
        })
        .collect()
}

fn read(message: Message, body: &[u8], lookup: Lookup<'_>) -> Result<Decoded, DecodeError> {
    decode(message, body, NOW, lookup, Extras::default(), &mut Budget::new(0).permit())
}

/// What storage would say to a batch: each series by labels gets a reference.
fn stored(decoded: &Decoded) -> AppendReport {
    let handle = |at: u32| SeriesHandle { series: SeriesRef(u64::from(at) + 1), shard: ShardId(0) };
    let by_labels = (0..).zip(&decoded.batch.samples).filter(|(_, s)| matches!(s.series, SeriesKey::Labels(_)));
    AppendReport { resolved: by_labels.map(|(at, _)| (at, handle(at))).collect(), ..AppendReport::default() }
}

fn row() -> impl Strategy<Value = Row> {
    let labels = vec(("[a-z]{1,6}", "\\PC{0,200}"), 0..6);
    (labels, vec((any::<i64>(), any::<f64>().prop_map(|v| v + 0.0)), 0..4)).prop_map(|(mut labels, samples)| {
        labels.push(("__name__".to_owned(), "m".to_owned()));
        (labels, samples)
    })
}

/// Starts are those of version 2 alone, and only where they are wanted; a series that is refused takes its own along.
#[test]
fn starts_go_with_their_samples() {
    let labels = |name: &str| vec![("__name__".to_owned(), name.to_owned())];
    let bad = vec![("a".to_owned(), "b".to_owned())];
    let rows: Vec<Row> =
        vec![(labels("x"), vec![(0, 1.0), (40, 2.0)]), (bad, vec![(6, 1.0)]), (labels("y"), vec![(80, 3.0)])];
    let wants = Extras { starts: true, ..Extras::default() };
    let cases = [
        (Message::V2, v2_of(&rows), wants, vec![(1, 20), (2, 40)]),
        (Message::V2, v2_of(&rows), Extras::default(), vec![]),
        (Message::V1, v1_of(&rows), wants, vec![]),
    ];
    for (message, body, extras, expected) in cases {
        let cache = SeriesCache::new();
        let mut held = Budget::new(0).permit();
        let decoded = decode(message, &body, NOW, Lookup::Cached(&cache), extras, &mut held).unwrap();
        assert_eq!(decoded.batch.samples.len(), 3);
        assert_eq!(decoded.batch.starts.samples, expected);
    }
    // The same with its fields in another order.
    assert_eq!(v1::sample(b"\x18\x07\x10\x09"), Ok((9, 7, 0.0)));
}

proptest! {
    #[test]
    fn both_versions_read_what_another_library_writes(rows in vec(row(), 0..20)) {
        for (message, body) in [(Message::V1, v1_of(&rows)), (Message::V2, v2_of(&rows))] {
            let cache = SeriesCache::new();
            let decoded = read(message, &body, Lookup::Cached(&cache)).unwrap();
            let mut expected = Vec::new();
            let mut refused = 0;
            for (labels, samples) in &rows {
                let mut names: Vec<&String> = labels.iter().map(|(name, _)| name).collect();
                names.sort();
                names.dedup();
                if names.len() < labels.len() {
                    refused += 1;
                    continue;
                }
                let labels = Labels::from_pairs(labels.iter().map(|(n, v)| (n, v)));
                expected.extend(samples.iter().map(|(t, v)| (labels.clone(), *t, v.to_bits())));
            }
            let found = decoded.batch.samples.iter().map(|sample| match &sample.series {
                SeriesKey::Labels(labels) => (labels.clone(), sample.at.0, sample.value.to_bits()),
                SeriesKey::Known(_) => unreachable!("the cache is empty"),
            });
            prop_assert!(found.eq(expected.iter().cloned()));
            prop_assert_eq!(decoded.invalid_series, refused);
            // The second time all series are known, under the references that storage gave.
            let report = stored(&decoded);
            decoded.enter(&cache, &report, 1 << 20);
            let again = read(message, &body, Lookup::Cached(&cache)).unwrap();
            for (first, second) in decoded.batch.samples.iter().zip(&again.batch.samples) {
                let (SeriesKey::Labels(labels), SeriesKey::Known(handle)) = (&first.series, &second.series) else {
                    panic!("{second:?} is not known");
                };
                let given = report.resolved.iter().rev().find(|(_, given)| given == handle).unwrap();
                let SeriesKey::Labels(of_handle) = &decoded.batch.samples[given.0 as usize].series else { panic!() };
                prop_assert_eq!(labels, of_handle);
                prop_assert_eq!((first.at, first.value.to_bits()), (second.at, second.value.to_bits()));
            }
            prop_assert_eq!(decoded.batch.samples.len(), again.batch.samples.len());
            let by_labels = read(message, &body, Lookup::ByLabels(&cache)).unwrap();
            prop_assert_eq!(stored(&by_labels), report);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(body in vec(any::<u8>(), 0..300)) {
        let cache = SeriesCache::new();
        for message in [Message::V1, Message::V2] {
            let _ = read(message, &body, Lookup::Cached(&cache));
        }
    }

    #[test]
    fn a_damaged_request_is_read_or_refused(rows in vec(row(), 1..5), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let cache = SeriesCache::new();
        for (message, mut body) in [(Message::V1, v1_of(&rows)), (Message::V2, v2_of(&rows))] {
            let at = at.index(body.len());
            body[at] = byte;
            if let Ok(decoded) = read(message, &body, Lookup::Cached(&cache)) {
                let report = AppendReport {
                    rejected: (0..decoded.batch.samples.len() as u32)
                        .map(|at| (at, crate::model::append::SampleRejection::OutOfOrder))
                        .collect(),
                    ..AppendReport::default()
                };
                prop_assert!(of_report(message, &body, &decoded, &report).status < 500);
            }
        }
    }
}

#[test]
fn labels_that_stand_behind_samples_belong_to_the_series() {
    let row = |labels: &[(&str, &str)], samples: &[(i64, f64)]| -> Row {
        (labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(), samples.to_vec())
    };
    // Two messages of the same field are one: their labels and samples follow each other.
    let parts = [row(&[("__name__", "m")], &[(1, 1.0)]), row(&[("b", "2")], &[(2, 2.0)])];
    let inner = parts.map(|part| {
        let mut one = SeriesMessage::decode(&v1_of(&[part])[2..]).unwrap();
        std::mem::take(&mut one).encode_to_vec()
    });
    let inner = inner.concat();
    let body = [&[0x0a, inner.len() as u8], &inner[..]].concat();
    let cache = SeriesCache::new();
    for _ in 0..2 {
        let decoded = read(Message::V1, &body, Lookup::Cached(&cache)).unwrap();
        assert_eq!(decoded.batch.samples.len(), 2);
        if cache.is_empty() {
            let labels = SeriesKey::Labels(Labels::from_pairs([("__name__", "m"), ("b", "2")]));
            assert!(decoded.batch.samples.iter().all(|sample| sample.series == labels));
        } else {
            assert!(decoded.batch.samples.iter().all(|sample| matches!(sample.series, SeriesKey::Known(_))));
        }
        decoded.enter(&cache, &stored(&decoded), 1 << 20);
    }
    assert_eq!(cache.len(), 1);
    let front = read(Message::V1, &v1_of(&[parts_of_front()]), Lookup::Cached(&cache)).unwrap();
    assert!(matches!(front.batch.samples[0].series, SeriesKey::Known(_)), "the same labels in front are the same key");
}

fn parts_of_front() -> Row {
    let labels = [("__name__", "m"), ("b", "2")].map(|(n, v)| (n.to_owned(), v.to_owned()));
    (labels.to_vec(), vec![(3, 3.0)])
}

#[test]
fn a_request_takes_no_more_than_it_is_given() {
    // A series of empty samples: two bytes each.
    let inner: Vec<u8> = [0x12, 0].repeat(100_000);
    let mut body = vec![0x0a, 0xc0, 0x9a, 0x0c];
    body.extend(&inner);
    let (cache, budget) = (SeriesCache::new(), Budget::new(1 << 20));
    let refused = decode(Message::V1, &body, NOW, Lookup::Cached(&cache), Extras::default(), &mut budget.permit());
    assert!(matches!(refused, Err(DecodeError::Room(NoRoom::Ever { .. }))));
    assert_eq!(budget.used(), 0);
    let symbols = [0x22, 0].repeat(100_000);
    let refused = decode(Message::V2, &symbols, NOW, Lookup::Cached(&cache), Extras::default(), &mut budget.permit());
    assert!(matches!(refused, Err(DecodeError::Room(NoRoom::Ever { .. }))));
}
