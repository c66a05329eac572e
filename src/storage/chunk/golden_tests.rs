//! Chunks with start times that Prometheus's encoders wrote for samples listed beside them: read back and written the same.
//! ```text
//! kind name t,start,bits-of-value t,start,bits-of-value …      of histograms the value is the sum
//! the chunk in hexadecimal digits
//! ```

use super::histogram::Native;
use super::histogram::decode::HistogramDecoder;
use super::histogram::encode::encode_chunks;
use super::histogram::starts::with_starts;
use super::xor2::{StartedSample, encode_xor2};
use super::*;
use crate::model::histogram::{FloatHistogram, Histogram};
use crate::storage::chunk::decode::{ChunkDecoder, first_t};

type Listed = (i64, i64, u64);

fn parse(line: &str) -> (String, Vec<Listed>) {
    let mut words = line.split(' ');
    let kind = words.next().unwrap().to_owned();
    words.next();
    let sample = |word: &str| {
        let mut parts = word.split(',');
        let (t, start) = (parts.next().unwrap().parse().unwrap(), parts.next().unwrap().parse().unwrap());
        (t, start, u64::from_str_radix(parts.next().unwrap(), 16).unwrap())
    };
    (kind, words.map(sample).collect())
}

fn bytes_of(hex: &str) -> Vec<u8> {
    hex.as_bytes().chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
}

/// The samples of a chunk, and the chunk that is made of them.
fn rewritten<H: Native>(mut decoder: HistogramDecoder<'_, [u8], H>) -> (Vec<Listed>, Vec<u8>) {
    let (mut listed, mut samples) = (Vec::new(), Vec::new());
    while let Some(t) = decoder.advance().unwrap() {
        let histogram = decoder.histogram();
        listed.push((t, decoder.start(), histogram.sum().to_bits()));
        samples.push((t, histogram));
    }
    let start_of = |t| listed.iter().find(|one| one.0 == t).unwrap().1;
    let mut chunks = encode_chunks(&samples, u16::MAX).into_iter();
    let chunk = with_starts::<H>(&chunks.next().unwrap().data, start_of).unwrap();
    assert!(chunks.next().is_none());
    (listed, chunk)
}

#[test]
fn chunks_with_start_times_are_those_of_prometheus() {
    let text = include_str!("../../../tests/data/chunks/started.txt");
    let lines: Vec<&str> = text.lines().collect();
    for pair in lines.chunks(2) {
        let (kind, listed) = parse(pair[0]);
        let chunk = bytes_of(pair[1]);
        let encoding = match kind.as_str() {
            "xor2" => Encoding::Xor2,
            "histogram" => Encoding::HistogramStarts,
            _ => Encoding::FloatHistogramStarts,
        };
        let (found, again) = match ChunkDecoder::of_chunk(encoding, &chunk).unwrap() {
            ChunkDecoder::StartedFloats(mut decoder) => {
                let mut samples: Vec<StartedSample> = Vec::new();
                while let Some(sample) = decoder.next_sample().unwrap() {
                    samples.push(sample);
                }
                let found = samples.iter().map(|s| (s.t, s.start, s.value.to_bits())).collect();
                (found, encode_xor2(&samples))
            }
            ChunkDecoder::Histograms(decoder) => rewritten::<Histogram>(*decoder),
            ChunkDecoder::FloatHistograms(decoder) => rewritten::<FloatHistogram>(*decoder),
            ChunkDecoder::Floats(_) => panic!("no such chunk"),
        };
        assert_eq!(found, listed, "{}", &pair[0][..20.min(pair[0].len())]);
        assert_eq!(again, chunk, "{}", &pair[0][..20.min(pair[0].len())]);
        if let Some((t, ..)) = listed.first() {
            assert_eq!(first_t(encoding, &chunk[2..], (chunk.len() - 2) * 8), Ok(*t));
        }
    }
}
