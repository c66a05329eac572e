//! What all histograms of a chunk have in common.

use crate::model::histogram::{CUSTOM_BUCKETS_SCHEMA, Span};
use crate::storage::chunk::bits::{BitReader, LongBits, WordSource};

/// Resolution, zero bucket and buckets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Layout {
    pub(super) schema: i32,
    pub(super) zero_threshold: f64,
    /// Positive and negative spans.
    pub(super) spans: [Vec<Span>; 2],
    pub(super) custom_values: Vec<f64>,
}

/// Number of buckets in spans.
pub(super) fn bucket_count(spans: &[Span]) -> u64 {
    spans.iter().map(|span| u64::from(span.length)).sum()
}

impl Layout {
    pub(super) fn write(&self, out: &mut LongBits) {
        put_threshold(self.zero_threshold, out);
        out.push_varbit_int(i64::from(self.schema));
        for spans in &self.spans {
            out.push_varbit_uint(spans.len() as u64);
            for span in spans {
                out.push_varbit_uint(u64::from(span.length));
                out.push_varbit_int(i64::from(span.offset));
            }
        }
        if self.schema == CUSTOM_BUCKETS_SCHEMA {
            out.push_varbit_uint(self.custom_values.len() as u64);
            self.custom_values.iter().for_each(|bound| put_bound(*bound, out));
        }
    }

    /// Reads a layout; `None` if the bits end or make no sense. What it names takes bits in the first sample, so it is bounded by
    /// what is left.
    pub(super) fn read<S: WordSource + ?Sized>(from: &mut BitReader<'_, S>) -> Option<Self> {
        let zero_threshold = read_threshold(from)?;
        let schema = i32::try_from(from.read_varbit_int()?).ok()?;
        if schema != CUSTOM_BUCKETS_SCHEMA && !(-9..=52).contains(&schema) {
            return None;
        }
        let spans = [read_spans(from)?, read_spans(from)?];
        let mut custom_values = Vec::new();
        if schema == CUSTOM_BUCKETS_SCHEMA {
            let count = read_count(from)?;
            for _ in 0..count {
                custom_values.push(read_bound(from)?);
            }
        }
        let buckets: u64 = spans.iter().map(|spans| bucket_count(spans)).sum();
        (buckets <= from.left() as u64).then_some(Self { schema, zero_threshold, spans, custom_values })
    }
}

/// A number of things that take a bit each at least.
fn read_count<S: WordSource + ?Sized>(from: &mut BitReader<'_, S>) -> Option<usize> {
    let count = usize::try_from(from.read_varbit_uint()?).ok()?;
    (count <= from.left()).then_some(count)
}

fn read_spans<S: WordSource + ?Sized>(from: &mut BitReader<'_, S>) -> Option<Vec<Span>> {
    let count = read_count(from)?;
    let mut spans = Vec::new();
    for _ in 0..count {
        let length = u32::try_from(from.read_varbit_uint()?).ok()?;
        let offset = i32::try_from(from.read_varbit_int()?).ok()?;
        spans.push(Span { offset, length });
    }
    Some(spans)
}

/// The exponent `e` of a value that is `2^(e-1)`; `None` for other values.
fn exponent_of(value: f64) -> Option<i32> {
    let bits = value.to_bits();
    let exponent = i32::try_from(bits >> 52 & 0x7ff).ok()?;
    let is_power = value.is_sign_positive() && bits & ((1 << 52) - 1) == 0 && (1..0x7ff).contains(&exponent);
    is_power.then_some(exponent - 1022)
}

fn put_threshold(threshold: f64, out: &mut LongBits) {
    if threshold == 0.0 {
        return out.push(0, 8);
    }
    match exponent_of(threshold) {
        // From -242 to 11, so that it fits between 1 and 254.
        Some(exponent @ -242..=11) => out.push(u64::from((exponent + 243).cast_unsigned()), 8),
        _ => {
            out.push(255, 8);
            out.push(threshold.to_bits(), 64);
        }
    }
}

fn read_threshold<S: WordSource + ?Sized>(from: &mut BitReader<'_, S>) -> Option<f64> {
    match from.read(8)? {
        0 => Some(0.0),
        255 => from.read(64).map(f64::from_bits),
        // A power of two in the middle of what floats can say.
        code => Some(f64::from_bits((code + 1023 - 244) << 52)),
    }
}

/// Largest number of thousandths that is written as such.
const THOUSANDTHS_MAX: f64 = 33_554_430.0;

fn put_bound(bound: f64, out: &mut LongBits) {
    let thousandths = bound * 1000.0;
    let is_whole = || thousandths.round() / 1000.0 == bound;
    if (0.0..=THOUSANDTHS_MAX).contains(&thousandths) && is_whole() {
        return out.push_varbit_uint(thousandths.round() as u64 + 1);
    }
    out.push(0, 1);
    out.push(bound.to_bits(), 64);
}

fn read_bound<S: WordSource + ?Sized>(from: &mut BitReader<'_, S>) -> Option<f64> {
    match from.read_varbit_uint()? {
        0 => from.read(64).map(f64::from_bits),
        code => Some((code - 1) as f64 / 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_back<T>(bits: &LongBits, read: impl FnOnce(&mut BitReader<'_, [u8]>) -> Option<T>) -> T {
        use crate::storage::chunk::bits::SampleBits as _;
        let bytes: Vec<u8> = bits.each_word().flat_map(u64::to_be_bytes).collect();
        read(&mut BitReader::new(bytes.as_slice(), bits.bit_len() as usize)).unwrap()
    }

    #[test]
    fn thresholds_take_a_byte_if_they_are_usual() {
        use crate::storage::chunk::bits::SampleBits as _;
        let usual = [(0.0, 0), (2f64.powi(-128), 116), (2f64.powi(-243), 1), (1024.0, 254), (1.0, 244)];
        for (threshold, code) in usual {
            let mut bits = LongBits::default();
            put_threshold(threshold, &mut bits);
            assert_eq!((bits.bit_len(), read_back(&bits, |from| from.read(8))), (8, code), "{threshold}");
            assert_eq!(read_back(&bits, read_threshold), threshold);
        }
        for threshold in [1e-3, 2f64.powi(-244), 2048.0, -1.0, f64::INFINITY, f64::MIN_POSITIVE / 4.0] {
            let mut bits = LongBits::default();
            put_threshold(threshold, &mut bits);
            assert_eq!((bits.bit_len(), read_back(&bits, read_threshold)), (72, threshold));
        }
    }

    #[test]
    fn bounds_are_thousandths_or_floats() {
        use crate::storage::chunk::bits::SampleBits as _;
        let lens =
            [(0.0, 5), (0.005, 5), (0.1, 13), (2.5, 17), (33_554.43, 32), (33_554.431, 65), (-1.0, 65), (0.0001, 65)];
        for (bound, len) in lens {
            let mut bits = LongBits::default();
            put_bound(bound, &mut bits);
            assert_eq!((bits.bit_len(), read_back(&bits, read_bound)), (len, bound), "{bound}");
        }
    }
}
