//! Constants of templates: strings, characters and numbers, read as Go's `strconv` reads them.

use super::ast::Number;
use crate::model::go;

const INVALID: &str = "invalid syntax";

/// The value of a quoted or raw string. Bytes that are not UTF-8 become U+FFFD.
pub(super) fn unquote(quoted: &str) -> Result<String, String> {
    if let Some(raw) = quoted.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')) {
        return Ok(raw.replace('\r', ""));
    }
    let inner = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).ok_or(INVALID)?;
    let mut rest = inner;
    let mut out = Vec::with_capacity(inner.len());
    while !rest.is_empty() {
        let unit = unquote_unit(&mut rest, '"').ok_or(INVALID)?;
        unit.push_to(&mut out);
    }
    Ok(String::from_utf8(out).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

enum Unit {
    Char(char),
    /// `\xNN` or `\NNN`.
    Byte(u8),
}

impl Unit {
    fn push_to(&self, out: &mut Vec<u8>) {
        match self {
            Self::Char(c) => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            Self::Byte(byte) => out.push(*byte),
        }
    }
}

/// One character or escape from the start of `rest`.
fn unquote_unit(rest: &mut &str, quote: char) -> Option<Unit> {
    let mut chars = rest.chars();
    let c = chars.next()?;
    if c == quote || c == '\n' {
        return None;
    }
    if c != '\\' {
        *rest = chars.as_str();
        return Some(Unit::Char(c));
    }
    let escape = chars.next()?;
    let digits = |chars: &mut std::str::Chars<'_>, first: Option<char>, count: usize, radix: u32| {
        let mut value: u32 = match first {
            Some(c) => c.to_digit(radix)?,
            None => 0,
        };
        for _ in 0..count {
            value = value.checked_mul(radix)?.checked_add(chars.next()?.to_digit(radix)?)?;
        }
        Some(value)
    };
    let unit = match escape {
        'a' => Unit::Char('\x07'),
        'b' => Unit::Char('\x08'),
        'f' => Unit::Char('\x0c'),
        'n' => Unit::Char('\n'),
        'r' => Unit::Char('\r'),
        't' => Unit::Char('\t'),
        'v' => Unit::Char('\x0b'),
        '\\' => Unit::Char('\\'),
        'x' => Unit::Byte(u8::try_from(digits(&mut chars, None, 2, 16)?).ok()?),
        'u' => Unit::Char(char::from_u32(digits(&mut chars, None, 4, 16)?)?),
        'U' => Unit::Char(char::from_u32(digits(&mut chars, None, 8, 16)?)?),
        '0'..='7' => Unit::Byte(u8::try_from(digits(&mut chars, Some(escape), 2, 8)?).ok()?),
        c if c == quote => Unit::Char(c),
        _ => return None,
    };
    *rest = chars.as_str();
    Some(unit)
}

/// A character constant, which is a number.
pub(super) fn character(text: &str) -> Result<Number, String> {
    let mut rest = text.strip_prefix('\'').ok_or(INVALID)?;
    let code = match unquote_unit(&mut rest, '\'').ok_or(INVALID)? {
        Unit::Char(c) => u32::from(c),
        Unit::Byte(byte) => u32::from(byte),
    };
    if rest != "'" {
        return Err(format!("malformed character constant: {text}"));
    }
    Ok(Number {
        text: text.to_owned(),
        int: Some(i64::from(code)),
        uint: Some(u64::from(code)),
        float: Some(f64::from(code)),
    })
}

/// A number as written: decimal, `0x`, `0o`, `0b`, leading zero for octal, with underscores, or a float.
pub(super) fn number(text: &str) -> Result<Number, String> {
    if text.ends_with('i') {
        return Err(format!("complex numbers are not supported: {}", go::quote(text)));
    }
    let illegal = || format!("illegal number syntax: {}", go::quote(text));
    let (negative, unsigned) = match text.as_bytes().first() {
        Some(b'-') => (true, text.get(1..).unwrap_or("")),
        Some(b'+') => (false, text.get(1..).unwrap_or("")),
        _ => (false, text),
    };
    let signed = unsigned.len() < text.len();
    let magnitude = integer(unsigned);
    let mut number = Number { text: text.to_owned(), int: None, uint: None, float: None };
    if let Some(magnitude) = magnitude {
        number.uint = (!signed).then_some(magnitude);
        number.int = if negative { 0_i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() };
        if number.int == Some(0) {
            number.uint = Some(0);
        }
    }
    number.float = match (number.int, number.uint) {
        (Some(int), _) => Some(int as f64),
        (None, Some(uint)) => Some(uint as f64),
        (None, None) => None,
    };
    if number.float.is_some() {
        return Ok(number);
    }
    let Some(float) = float(unsigned).map(|value| if negative { -value } else { value }) else {
        return Err(illegal());
    };
    if !text.contains(['.', 'e', 'E', 'p', 'P']) {
        return Err(format!("integer overflow: {}", go::quote(text)));
    }
    number.float = Some(float);
    // The casts saturate, so a float that is too large does not come back as itself.
    number.int = (float as i64 as f64 == float && float < 9.2e18).then_some(float as i64);
    number.uint = (0.0 <= float && float as u64 as f64 == float && float < 1.8e19).then_some(float as u64);
    Ok(number)
}

/// An integer without sign, if it is one and fits.
fn integer(text: &str) -> Option<u64> {
    if text.contains('_') && !underscores_fine(text) {
        return None;
    }
    let lower = text.to_ascii_lowercase();
    let (digits, radix) = match (lower.get(..2), lower.get(2..)) {
        (Some("0x"), Some(rest)) => (rest, 16),
        (Some("0o"), Some(rest)) => (rest, 8),
        (Some("0b"), Some(rest)) => (rest, 2),
        _ if lower.starts_with('0') && 1 < lower.len() => (lower.get(1..)?, 8),
        _ => (lower.as_str(), 10),
    };
    let digits = digits.replace('_', "");
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    u64::from_str_radix(&digits, radix).ok()
}

/// A float that may have a sign, underscores and a hexadecimal form.
pub(super) fn signed_float(text: &str) -> Option<f64> {
    match text.strip_prefix('-') {
        Some(rest) => float(rest).map(|number| -number),
        None => float(text.strip_prefix('+').unwrap_or(text)),
    }
}

/// A float without sign, if it is one and finite.
fn float(text: &str) -> Option<f64> {
    if text.contains('_') && !underscores_fine(text) {
        return None;
    }
    let plain = text.replace('_', "").to_ascii_lowercase();
    if let Some(hexadecimal) = plain.strip_prefix("0x") {
        return hexadecimal_float(hexadecimal);
    }
    let digits_first = plain.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    if !digits_first || !plain.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | '+' | '-')) {
        return None;
    }
    plain.parse().ok().filter(|value: &f64| value.is_finite())
}

fn hexadecimal_float(text: &str) -> Option<f64> {
    let (mantissa, exponent) = text.split_once('p')?;
    let exponent: i32 = exponent.parse().ok()?;
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.len() + part.len() == 0 || 13 < whole.len() + part.len() {
        return None;
    }
    let digits = u64::from_str_radix(&format!("{whole}{part}"), 16).ok()?;
    let shift = exponent.checked_sub(4 * i32::try_from(part.len()).ok()?)?;
    Some(digits as f64 * 2_f64.powi(shift)).filter(|value| value.is_finite())
}

/// Underscores stand between digits, or between a prefix and a digit.
fn underscores_fine(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let (mut before, rest) = match lower.get(..2) {
        Some("0x" | "0o" | "0b") => ('0', lower.get(2..).unwrap_or("")),
        _ => ('!', lower.as_str()),
    };
    let hexadecimal = lower.starts_with("0x");
    for c in rest.chars() {
        if c.is_ascii_digit() || (hexadecimal && c.is_ascii_hexdigit()) {
            before = '0';
        } else if c == '_' {
            if before != '0' {
                return false;
            }
            before = '_';
        } else {
            if before == '_' {
                return false;
            }
            before = '!';
        }
    }
    before != '_'
}
