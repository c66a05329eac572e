//! The XOR encoding: chunks of 120 samples at 15 s, a counter that grows unevenly, and floats without any pattern.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use watchfire::model::random::Random;
use watchfire::storage::chunk::words::OpenWords;
use watchfire::storage::chunk::xor::{XorDecoder, XorEncoder};

const SAMPLES: usize = 120;

fn samples(noise: bool) -> Vec<(i64, f64)> {
    let mut random = Random::seeded(1);
    let mut value = 1e6;
    let sample = |i: usize| {
        value = if noise { random.next_f64() } else { value + random.below(100) as f64 };
        (1_700_000_000_000 + i as i64 * 15_000, value)
    };
    (0..SAMPLES).map(sample).collect()
}

fn encode(samples: &[(i64, f64)]) -> OpenWords {
    let mut encoder = XorEncoder::default();
    let mut words: Option<OpenWords> = None;
    for (count, (t, value)) in (0..).zip(samples) {
        let sample = encoder.encode(count, *t, *value);
        words = Some(match words.take() {
            None => OpenWords::starting_with(&sample),
            Some(open) => {
                let at = open.published();
                let open = if open.has_room(at, sample.len()) { open } else { open.grown(at, sample.len()) };
                open.append(at, &sample);
                open
            }
        });
    }
    words.expect("there are samples")
}

fn chunk(c: &mut Criterion) {
    let mut group = c.benchmark_group("chunk");
    group.throughput(Throughput::Elements(SAMPLES as u64));
    for (name, noise) in [("counter", false), ("noise", true)] {
        let samples = samples(noise);
        let words = encode(&samples);
        let at = words.published();
        let sealed = words.to_chunk(at);
        group.bench_function(format!("encode_{name}"), |b| b.iter(|| encode(black_box(&samples))));
        group.bench_function(format!("decode_open_{name}"), |b| {
            b.iter(|| {
                let mut decoder = XorDecoder::new(words.words(), at.bits as usize, at.samples);
                while let Ok(Some(sample)) = decoder.next_sample() {
                    black_box(sample);
                }
            });
        });
        group.bench_function(format!("decode_sealed_{name}"), |b| {
            b.iter(|| {
                let mut decoder = XorDecoder::of_chunk(black_box(&sealed)).expect("it has a header");
                while let Ok(Some(sample)) = decoder.next_sample() {
                    black_box(sample);
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, chunk);
criterion_main!(benches);
