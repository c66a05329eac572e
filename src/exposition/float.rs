//! Sample values as text: what Go's `strconv.ParseFloat` accepts, less hexadecimal floats and underscores.
//!
//! [`scan_sample_value`] is the hot path: it reads digits, decides exactness by the rule of Clinger (a mantissa below
//! 2^53 times or over a power of ten up to 10^22 is exact in one operation) and leaves everything else to the standard
//! library, which rounds correctly.
#![deny(clippy::indexing_slicing)]

use crate::model::go;
use crate::model::sample::normal_nan;

/// Why a text is not a sample value. The texts are those that Prometheus shows in `lastError`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FloatError {
    /// `p`, `P` or `_`, which newer Go versions would accept.
    #[error("unsupported character in float")]
    UnsupportedCharacter,
    /// Not a number.
    #[error("strconv.ParseFloat: parsing {}: invalid syntax", go::quote_bytes(.0))]
    Syntax(Vec<u8>),
    /// A decimal number beyond the largest float.
    #[error("strconv.ParseFloat: parsing {}: value out of range", go::quote_bytes(.0))]
    Range(Vec<u8>),
}

/// Longest text that an error repeats, in bytes: errors are kept per target, and targets may be hostile.
const QUOTED_LEN_MAX: usize = 1024;

/// Powers of ten that a float holds exactly.
const EXACT_POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// Largest mantissa below which every integer is a float.
const EXACT_MANTISSA_MAX: u64 = 1 << 53;

/// Reads one sample value; every NaN becomes the canonical one.
pub fn parse_float(raw: &[u8]) -> Result<f64, FloatError> {
    if raw.iter().any(|b| matches!(b, b'p' | b'P' | b'_')) {
        return Err(FloatError::UnsupportedCharacter);
    }
    let quoted = || raw.get(..QUOTED_LEN_MAX).unwrap_or(raw).to_vec();
    let (first, unsigned) = match raw {
        [b'+' | b'-', rest @ ..] => (rest.first(), rest),
        _ => (raw.first(), raw),
    };
    // Rust reads a signed NaN, Go does not.
    let signed_nan = unsigned.len() < raw.len() && matches!(first, Some(b'n' | b'N'));
    let text = std::str::from_utf8(raw).ok().filter(|_| !signed_nan);
    let value: f64 = text.and_then(|t| t.parse().ok()).ok_or_else(|| FloatError::Syntax(quoted()))?;
    if value.is_nan() {
        return Ok(normal_nan());
    }
    // An infinity that was not written as one is an overflow.
    if value.is_infinite() && !matches!(first, Some(b'i' | b'I')) {
        return Err(FloatError::Range(quoted()));
    }
    Ok(value)
}

/// Reads the value at the start of `raw`, up to a space, tab or line end, and the bytes it took. `None` when there is
/// no delimiter or the text is not a value: the caller then takes the slow path, which words the error.
pub fn scan_sample_value(raw: &[u8]) -> Option<(f64, usize)> {
    let mut at = 0;
    let negative = match raw.first()? {
        b'-' => {
            at = 1;
            true
        }
        b'+' => {
            at = 1;
            false
        }
        _ => false,
    };
    let mut mantissa: u64 = 0;
    let mut digits = 0_usize;
    let mut decimals = 0_usize;
    let mut in_fraction = false;
    loop {
        match *raw.get(at)? {
            b @ b'0'..=b'9' => {
                // Wrapping is harmless: a mantissa of more than 19 digits takes the general path.
                mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(b - b'0'));
                digits += 1;
                decimals += usize::from(in_fraction);
            }
            b'.' if !in_fraction => in_fraction = true,
            _ => break,
        }
        at += 1;
    }
    let mut exponent = 0_i32;
    if matches!(raw.get(at), Some(b'e' | b'E')) {
        let (read, len) = scan_exponent(raw.get(at + 1..)?)?;
        exponent = read;
        at += 1 + len;
    }
    if !matches!(raw.get(at)?, b' ' | b'\t' | b'\n') {
        return general(raw);
    }
    let power = exponent.checked_sub(i32::try_from(decimals).ok()?)?;
    let factor = EXACT_POWERS.get(usize::try_from(power.unsigned_abs()).ok()?);
    match factor {
        Some(factor) if 0 < digits && digits <= 19 && mantissa <= EXACT_MANTISSA_MAX => {
            let whole = mantissa as f64;
            let magnitude = if power < 0 { whole / factor } else { whole * factor };
            Some((if negative { -magnitude } else { magnitude }, at))
        }
        _ => general(raw),
    }
}

/// Signed exponent digits and the bytes they took. `None` where there is no digit.
fn scan_exponent(raw: &[u8]) -> Option<(i32, usize)> {
    let (negative, start) = match raw.first()? {
        b'-' => (true, 1),
        b'+' => (false, 1),
        _ => (false, 0),
    };
    let mut exponent = 0_i32;
    let mut at = start;
    while let Some(b @ b'0'..=b'9') = raw.get(at) {
        exponent = exponent.saturating_mul(10).saturating_add(i32::from(b - b'0'));
        at += 1;
    }
    if at == start {
        return None;
    }
    Some((if negative { -exponent } else { exponent }, at))
}

fn general(raw: &[u8]) -> Option<(f64, usize)> {
    let len = raw.iter().position(|b| matches!(b, b' ' | b'\t' | b'\n'))?;
    let value = parse_float(raw.get(..len)?).ok()?;
    Some((value, len))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::sample::NORMAL_NAN_BITS;

    #[track_caller]
    fn check(text: &str, expected: f64) {
        let value = parse_float(text.as_bytes()).unwrap();
        assert_eq!(value.to_bits(), expected.to_bits(), "{text}");
        let line = format!("{text}\n");
        let (scanned, len) = scan_sample_value(line.as_bytes()).unwrap();
        assert_eq!((scanned.to_bits(), len), (expected.to_bits(), text.len()), "{text}");
    }

    #[track_caller]
    fn refuse(text: &str, error: &str) {
        assert_eq!(parse_float(text.as_bytes()).unwrap_err().to_string(), error);
        assert_eq!(scan_sample_value(format!("{text} ").as_bytes()), None, "{text}");
    }

    #[test]
    fn reads_what_go_reads() {
        check("0", 0.0);
        check("-0", -0.0);
        check("+1", 1.0);
        check("1.", 1.0);
        check(".5", 0.5);
        check("1e-3", 1e-3);
        check("1.7560473e+07", 1.756_047_3e7);
        check("9007199254740993", 9_007_199_254_740_992.0);
        check("123456789012345678901234567890", 1.234_567_890_123_456_8e29);
        check("4.9e-324", 5e-324);
        check("1e-400", 0.0);
        check("iNf", f64::INFINITY);
        check("-Infinity", f64::NEG_INFINITY);
        check("+inf", f64::INFINITY);
        check("nAn", f64::from_bits(NORMAL_NAN_BITS));
    }

    #[test]
    fn refuses_what_prometheus_refuses() {
        refuse("true", "strconv.ParseFloat: parsing \"true\": invalid syntax");
        refuse("-NaN", "strconv.ParseFloat: parsing \"-NaN\": invalid syntax");
        refuse(".", "strconv.ParseFloat: parsing \".\": invalid syntax");
        refuse("1e", "strconv.ParseFloat: parsing \"1e\": invalid syntax");
        refuse("0x1", "strconv.ParseFloat: parsing \"0x1\": invalid syntax");
        refuse("1e999", "strconv.ParseFloat: parsing \"1e999\": value out of range");
        refuse("0x1p-3", "unsupported character in float");
        refuse("1_2", "unsupported character in float");
    }

    proptest! {
        #[test]
        fn agrees_with_the_standard_library(value: f64) {
            for text in [format!("{value:e} "), format!("{value} ")] {
                let expected = parse_float(text.trim_end().as_bytes());
                let scanned = scan_sample_value(text.as_bytes());
                prop_assert_eq!(scanned.map(|(v, _)| v.to_bits()), expected.ok().map(f64::to_bits));
            }
        }

        #[test]
        fn decimal_texts_agree(text in "[+-]?[0-9]{0,25}(\\.[0-9]{0,25})?([eE][+-]?[0-9]{0,4})?") {
            let line = format!("{text}\t");
            let scanned = scan_sample_value(line.as_bytes()).map(|(v, _)| v.to_bits());
            prop_assert_eq!(scanned, parse_float(text.as_bytes()).ok().map(f64::to_bits));
        }

        #[test]
        fn never_panics(raw: Vec<u8>) {
            let _ = parse_float(&raw);
            let _ = scan_sample_value(&raw);
        }
    }
}
