//! What is encoded is decoded again, whatever comes after what; damaged chunks end in an error.

use proptest::collection::vec;
use proptest::prelude::*;

use super::encode::{EncodedChunk, encode_chunks};
use super::state::Native;
use crate::model::histogram::integer::deltas;
use crate::model::histogram::layout::spans_of;
use crate::model::histogram::{CUSTOM_BUCKETS_SCHEMA, CounterResetHint, FloatHistogram, Histogram, Span};
use crate::model::sample::stale_nan;
use crate::storage::chunk::bits::SampleBits;
use crate::storage::chunk::decode::{ChunkDecoder, first_t};
use crate::storage::chunk::words::OpenWords;
use crate::storage::chunk::{ChunkError, Encoding};

/// All samples of chunks, as floats.
pub(crate) fn decoded(encoding: Encoding, chunks: &[Vec<u8>]) -> Result<Vec<(i64, FloatHistogram)>, ChunkError> {
    let mut out = Vec::new();
    for chunk in chunks {
        match ChunkDecoder::of_chunk(encoding, chunk)? {
            ChunkDecoder::Floats(_) | ChunkDecoder::StartedFloats(_) => {}
            ChunkDecoder::Histograms(mut decoder) => {
                while let Some(t) = decoder.advance()? {
                    out.push((t, decoder.float_histogram()));
                }
            }
            ChunkDecoder::FloatHistograms(mut decoder) => {
                while let Some(t) = decoder.advance()? {
                    out.push((t, decoder.float_histogram()));
                }
            }
        }
    }
    Ok(out)
}

fn whole(kind: u8, buckets: &[(i8, u16)], negative: &[(i8, u16)], sum: f64) -> Histogram {
    if kind == 9 {
        return Histogram::stale(stale_nan());
    }
    let is_custom = kind == 8;
    let side = |buckets: &[(i8, u16)]| {
        let sorted: std::collections::BTreeMap<i64, i64> = buckets
            .iter()
            .map(|(index, count)| (i64::from(if is_custom { index.rem_euclid(8) } else { *index }), i64::from(*count)))
            .collect();
        (spans_of(sorted.keys().copied()), sorted.into_values().collect::<Vec<_>>())
    };
    let (positive_spans, positive) = side(buckets);
    let (negative_spans, negative) = if is_custom { Default::default() } else { side(negative) };
    let zero_count = if is_custom { 0 } else { u64::from(kind % 4) };
    let count = positive.iter().chain(&negative).sum::<i64>().cast_unsigned() + zero_count;
    Histogram {
        counter_reset_hint: match kind % 5 {
            3 => CounterResetHint::Gauge,
            4 => CounterResetHint::Reset,
            _ => CounterResetHint::Unknown,
        },
        schema: if is_custom { CUSTOM_BUCKETS_SCHEMA } else { i32::from(kind % 2) },
        zero_threshold: if is_custom { 0.0 } else { 0.001 },
        zero_count,
        count,
        sum,
        positive_spans,
        positive_buckets: deltas(positive),
        negative_spans,
        negative_buckets: deltas(negative),
        custom_values: if is_custom { (0..8).map(|i| f64::from(i) * 0.25).collect() } else { Vec::new() },
    }
}

fn samples() -> impl Strategy<Value = Vec<(i64, Histogram)>> {
    let buckets = || vec((-20i8..20, 0u16..9), 0..6);
    let one =
        (1i64..100_000, prop_oneof![4 => Just(0u8), 1 => Just(3), 2 => 0u8..10], buckets(), buckets(), any::<f32>());
    vec(one, 0..60).prop_map(|all| {
        let mut t = 1_700_000_000_000;
        let mut grown: Vec<(i8, u16)> = Vec::new();
        let mut next = |(step, kind, buckets, negative, sum): (i64, u8, Vec<(i8, u16)>, Vec<_>, f32)| {
            t += step;
            // A counter whose buckets mostly grow, so that chunks become long and are encoded anew.
            for (index, count) in &buckets {
                match grown.iter_mut().find(|(known, _)| known == index) {
                    Some((_, sum)) => *sum += count,
                    None => grown.push((*index, *count)),
                }
            }
            let buckets = if kind == 0 { &grown } else { &buckets };
            let negative: &[(i8, u16)] = if kind == 0 { &[] } else { &negative };
            (t, whole(kind, buckets, negative, f64::from(sum)))
        };
        all.into_iter().map(&mut next).collect()
    })
}

fn data(chunks: Vec<EncodedChunk>) -> Vec<Vec<u8>> {
    chunks.into_iter().map(|chunk| chunk.data).collect()
}

/// The same observations, whatever empty buckets there are.
fn same(a: &FloatHistogram, b: &FloatHistogram) -> bool {
    let (mut a, mut b) = (a.clone(), b.clone());
    a.compact(0);
    b.compact(0);
    a.equals(&b)
}

fn check<H: Native>(samples: &[(i64, H)], expected: &[(i64, FloatHistogram)]) -> Result<(), TestCaseError> {
    let chunks = encode_chunks(samples, 30);
    for chunk in &chunks {
        prop_assert_eq!(first_t(H::ENCODING, &chunk.data[2..], (chunk.data.len() - 2) * 8).unwrap(), chunk.min_t);
    }
    let read = decoded(H::ENCODING, &data(chunks)).unwrap();
    prop_assert_eq!(read.len(), expected.len());
    let mut before: Option<&FloatHistogram> = None;
    for ((t, histogram), (expected_t, expected)) in read.iter().zip(expected) {
        prop_assert_eq!(t, expected_t);
        prop_assert!(same(histogram, expected), "{:?} is not {:?}", histogram, expected);
        let is_gauge = !histogram.is_stale() && expected.counter_reset_hint == CounterResetHint::Gauge;
        prop_assert_eq!(histogram.counter_reset_hint == CounterResetHint::Gauge, is_gauge);
        // What is told to have no reset has none.
        if let (CounterResetHint::NotReset, Some(before)) = (histogram.counter_reset_hint, before) {
            let plain = FloatHistogram { counter_reset_hint: CounterResetHint::Unknown, ..expected.clone() };
            prop_assert!(!plain.detect_reset(before));
        }
        before = Some(expected);
    }
    Ok(())
}

proptest! {
    #[test]
    fn histograms_round_trip(samples in samples()) {
        let floats: Vec<(i64, FloatHistogram)> = samples.iter().map(|(t, h)| (*t, h.to_float())).collect();
        check(&samples, &floats)?;
        check(&floats, &floats)?;
    }

    #[test]
    fn decoders_never_panic(mut chunk in vec(any::<u8>(), 0..300), head in prop_oneof![Just(0u8), any::<u8>()]) {
        if let Some(first) = chunk.first_mut() {
            *first = head;
        }
        for encoding in [Encoding::Histogram, Encoding::FloatHistogram] {
            let _ = decoded(encoding, &[chunk.clone()]);
        }
    }

    #[test]
    fn truncation_is_an_error(samples in samples(), cut in 1usize..20) {
        for chunk in data(encode_chunks(&samples, 30)) {
            let cut = chunk.len().saturating_sub(cut);
            prop_assert!(decoded(Encoding::Histogram, &[chunk[..cut].to_vec()]).is_err());
        }
    }
}

#[test]
fn bits_in_open_words_are_those_of_the_chunk() {
    let samples: Vec<(i64, Histogram)> =
        (0..20).map(|i| (i * 1000, whole(0, &[(1, 1 + i as u16), (3, i as u16)], &[], 1.5 * i as f64))).collect();
    let (mut encoder, first) = super::encode::HistogramEncoder::begin(None, 0, &samples[0].1);
    let mut words = OpenWords::starting_with(&first);
    for (t, histogram) in &samples[1..] {
        let bits = encoder.append(*t, histogram);
        let at = words.published();
        if !words.has_room(at, bits.bit_len()) {
            words = words.grown(at, bits.bit_len());
        }
        words.append(at, &bits);
    }
    assert_eq!(data(encode_chunks(&samples, 30)), [words.to_chunk(words.published())]);
}

#[test]
fn fine_resolutions_are_reduced_and_schemas_that_nobody_knows_refused() {
    let spans = vec![Span { offset: 0, length: 2 }, Span { offset: 1, length: 2 }];
    let float = |schema| FloatHistogram {
        schema,
        count: 10.0,
        sum: 15.0,
        zero_threshold: 1e-100,
        positive_spans: spans.clone(),
        positive_buckets: vec![1.0, 2.0, 3.0, 4.0],
        ..FloatHistogram::default()
    };
    let whole = |schema| Histogram {
        schema,
        count: 10,
        sum: 15.0,
        zero_threshold: 1e-100,
        positive_spans: spans.clone(),
        positive_buckets: vec![1, 1, 1, 1],
        ..Histogram::default()
    };
    for schema in [-101, -54, -10, -9, -4, 0, 8, 9, 52, 53, 101] {
        let chunks = encode_chunks(&[(1, float(schema))], u16::MAX);
        let floats = decoded(Encoding::FloatHistogram, &[chunks[0].data.clone()]);
        let chunks = encode_chunks(&[(1, whole(schema))], u16::MAX);
        let wholes = decoded(Encoding::Histogram, &[chunks[0].data.clone()]);
        if (-9..=52).contains(&schema) {
            let mut expected = float(schema);
            expected.reduce_resolution(8);
            assert_eq!(floats.unwrap()[0].1.schema, schema.min(8));
            assert_eq!(wholes.unwrap()[0].1.positive_buckets, expected.positive_buckets, "schema {schema}");
        } else {
            assert!(floats.is_err() && wholes.is_err(), "schema {schema}");
        }
    }
}
