//! Chunks cut and encoded by Prometheus 3.14 itself: `testdata/chunks-3.14` is the chunk file of a block that
//! `promtool tsdb create-blocks-from openmetrics` made of the samples below. Ours must be the same bytes.

use std::fmt::Write;

use crate::model::random::Random;
use crate::model::sample::SeriesRef;
use crate::storage::chunk::cut::CutRules;
use crate::storage::head::commit::CommitId;
use crate::storage::head::series::WriterSeries;

/// Start of a four-hour range.
const START: i64 = 1_700_006_400_000;

/// Series in label order. Each is there for another rule or branch of the encoding.
fn series() -> Vec<(&'static str, Vec<(i64, f64)>)> {
    let mut random = Random::seeded(314);
    let mut out = Vec::new();
    let regular = (0..480i64).map(|i| (START + i * 15_000, (i * 37) as f64));
    out.push(("a_counter", regular.collect()));
    let noise = (0..700i64).map(|i| (START + 3 + i * 1000, random.next_f64() * 1e9 - 5e8));
    out.push(("b_noise_cut_by_size", noise.collect()));
    let mut t = START + 17;
    let mut irregular = Vec::new();
    for _ in 0..400 {
        let bits = 1 + random.below(17);
        t += 1 + random.below(1 << bits) as i64 % 60_000;
        irregular.push((t, (random.below(200) as f64) / 8.0));
    }
    irregular.retain(|(t, _)| *t < START + 7_200_000);
    out.push(("c_irregular", irregular));
    out.push(("d_constant", (0..120i64).map(|i| (START + 59_999 + i * 55_000, 42.0)).collect()));
    let slow = (0..40i64).map(|i| (START + i * 60_000, 1.0));
    let fast = (0..900i64).map(|i| (START + 2_400_000 + i * 500, (i % 3) as f64));
    out.push(("e_rate_rises", slow.chain(fast).collect()));
    let special = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 0.0, f64::MAX, f64::MIN_POSITIVE, 5e-324, 1.0];
    let special = (0..60i64).map(|i| (START + i * 30_000 + i % 2, special[i as usize % special.len()]));
    out.push(("f_special", special.collect()));
    out
}

/// The input of `promtool`.
fn open_metrics() -> String {
    let mut text = String::new();
    for (name, samples) in series() {
        writeln!(text, "# TYPE {name} unknown").unwrap();
        for (t, value) in samples {
            // The exponent form prints every float so that it reads back as itself.
            let value = if value.is_nan() { "NaN".to_owned() } else { format!("{value:e}").replace("inf", "Inf") };
            writeln!(text, "{name} {value} {}.{:03}", t / 1000, t % 1000).unwrap();
        }
    }
    text + "# EOF\n"
}

fn our_chunks() -> Vec<Vec<u8>> {
    // The tool's block writer takes twice the block's two hours as its chunk range.
    let rules = CutRules { chunk_range_ms: 4 * 3_600_000, ..CutRules::default() };
    let mut chunks = Vec::new();
    for (_, samples) in series() {
        let mut writer = WriterSeries::new(SeriesRef(1));
        for (t, value) in samples {
            // The parser stores every NaN in its one form.
            let value = if value.is_nan() { crate::model::sample::normal_nan() } else { value };
            writer.append(t, value, CommitId(1), CommitId(1), &rules);
        }
        chunks.extend(writer.column().unwrap().chunks());
    }
    chunks
}

/// Chunk file: magic, version, padding; then for each chunk its length (uvarint), encoding, data, checksum.
fn chunks_of_file(file: &[u8]) -> Vec<Vec<u8>> {
    assert_eq!(file[..5], [0x85, 0xbd, 0x40, 0xdd, 1]);
    let mut rest = &file[8..];
    let mut chunks = Vec::new();
    while !rest.is_empty() {
        let bytes = rest.iter().take_while(|byte| **byte & 0x80 != 0).count() + 1;
        let len = rest[..bytes].iter().rev().fold(0, |len, byte| len << 7 | usize::from(byte & 0x7f));
        assert_eq!(rest[bytes], 1, "XOR encoding");
        chunks.push(rest[bytes + 1..bytes + 1 + len].to_vec());
        rest = &rest[bytes + 1 + len + 4..];
    }
    chunks
}

#[test]
fn chunks_are_those_of_prometheus() {
    if let Ok(path) = std::env::var("WATCHFIRE_WRITE_OPENMETRICS") {
        std::fs::write(path, open_metrics()).unwrap();
    }
    let expected = chunks_of_file(include_bytes!("testdata/chunks-3.14"));
    let ours = our_chunks();
    let counts = |chunks: &[Vec<u8>]| -> Vec<u16> { chunks.iter().map(|c| u16::from_be_bytes([c[0], c[1]])).collect() };
    assert_eq!(counts(&ours), counts(&expected));
    for (number, (ours, theirs)) in ours.iter().zip(&expected).enumerate() {
        assert_eq!(ours, theirs, "chunk {number}");
    }
}
