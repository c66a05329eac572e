//! What string and number tokens stand for.

use std::borrow::Cow;

use crate::model::go;
use crate::model::sample;

/// The bytes that a string token stands for: quotes removed, escapes resolved as in Go. `None` if it is no string token
/// that the lexer has let pass.
pub(crate) fn unquote(token: &str) -> Option<Vec<u8>> {
    let quote = token.chars().next()?;
    let body = token.get(1..)?.strip_suffix(quote)?;
    if quote == '`' {
        return Some(body.as_bytes().to_vec());
    }
    let mut out = Vec::with_capacity(body.len());
    let mut rest = body;
    while let Some((plain, escaped)) = rest.split_once('\\') {
        out.extend_from_slice(plain.as_bytes());
        rest = unescape(escaped, &mut out)?;
    }
    out.extend_from_slice(rest.as_bytes());
    Some(out)
}

/// Resolves the escape sequence at the start of `text`, behind its backslash; returns what follows it.
fn unescape<'a>(text: &'a str, out: &mut Vec<u8>) -> Option<&'a str> {
    let first = text.chars().next()?;
    let tail = text.get(first.len_utf8()..)?;
    let byte = match first {
        'a' => 0x07,
        'b' => 0x08,
        'f' => 0x0c,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 0x0b,
        '\\' | '\'' | '"' => u8::try_from(first).ok()?,
        '0'..='7' => {
            let (value, tail) = take_digits(text, 3, 8)?;
            out.push(u8::try_from(value).ok()?);
            return Some(tail);
        }
        'x' => {
            let (value, tail) = take_digits(tail, 2, 16)?;
            out.push(u8::try_from(value).ok()?);
            return Some(tail);
        }
        'u' | 'U' => {
            let (value, tail) = take_digits(tail, if first == 'u' { 4 } else { 8 }, 16)?;
            let c = char::from_u32(value)?;
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            return Some(tail);
        }
        _ => return None,
    };
    out.push(byte);
    Some(tail)
}

fn take_digits(text: &str, count: usize, base: u32) -> Option<(u32, &str)> {
    let (digits, tail) = text.split_at_checked(count)?;
    Some((u32::from_str_radix(digits, base).ok()?, tail))
}

/// A number token that stands for no number, with the text of Go's `strconv.ParseFloat` (the second of the two parsers
/// that Prometheus tries) and the value with which parsing goes on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NumberError {
    pub(crate) message: String,
    pub(crate) value: f64,
}

/// The value of a number token: an integer in Go's notation (`0x1F`, `017`, `1_000`), else a decimal float, `inf` or
/// `nan`.
pub(crate) fn parse_number(token: &str) -> Result<f64, NumberError> {
    let error = |reason: &str, value| NumberError {
        message: format!("strconv.ParseFloat: parsing {}: {reason}", go::quote(token)),
        value,
    };
    let fail = |reason: &str| Err(error(reason, 0.0));
    if !underscores_separate_digits(token) {
        return fail("invalid syntax");
    }
    let plain = if token.contains('_') { Cow::Owned(token.replace('_', "")) } else { Cow::Borrowed(token) };
    if let Some(digits) = plain.strip_prefix("0x").or_else(|| plain.strip_prefix("0X")) {
        return match i64::from_str_radix(digits, 16) {
            Ok(value) => Ok(value as f64),
            Err(_) => fail("invalid syntax"),
        };
    }
    if let Some(digits) = plain.strip_prefix('0').filter(|digits| !digits.is_empty())
        && let Ok(value) = i64::from_str_radix(digits, 8)
    {
        return Ok(value as f64);
    }
    if let Ok(value) = plain.parse::<i64>() {
        return Ok(value as f64);
    }
    if plain.eq_ignore_ascii_case("nan") {
        return Ok(sample::normal_nan());
    }
    match plain.parse::<f64>() {
        Ok(value) if value.is_infinite() && !plain.eq_ignore_ascii_case("inf") => {
            Err(error("value out of range", value))
        }
        Ok(value) => Ok(value),
        Err(_) => fail("invalid syntax"),
    }
}

/// Go's rule for `_` in number literals: only between digits, or between a base prefix and a digit.
fn underscores_separate_digits(token: &str) -> bool {
    if !token.contains('_') {
        return true;
    }
    let hexadecimal = token.starts_with("0x") || token.starts_with("0X");
    let is_digit = |c: char| c.is_ascii_digit() || (hexadecimal && c.is_ascii_hexdigit());
    let mut previous = if hexadecimal { '0' } else { '!' };
    for c in token.chars().skip(if hexadecimal { 2 } else { 0 }) {
        let class = match c {
            c if is_digit(c) => '0',
            '_' if previous == '0' => '_',
            _ if c == '_' || previous == '_' => return false,
            _ => '!',
        };
        previous = class;
    }
    previous != '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_go() {
        for (token, value) in [
            ("1", 1.0),
            ("017", 15.0),
            ("08", 8.0),
            ("0x1F", 31.0),
            ("0X_1f", 31.0),
            ("1_000", 1000.0),
            ("1_0.5", 10.5),
            ("5.", 5.0),
            (".5", 0.5),
            ("1e3", 1000.0),
            ("iNf", f64::INFINITY),
            ("9223372036854775808", 9223372036854775808.0),
        ] {
            assert_eq!(parse_number(token), Ok(value), "{token}");
        }
        assert!(parse_number("NaN").unwrap().is_nan());
        let error = parse_number("1e999").unwrap_err();
        assert_eq!(error.message, "strconv.ParseFloat: parsing \"1e999\": value out of range");
        assert_eq!(error.value, f64::INFINITY);
        let error = parse_number("0x").unwrap_err();
        assert_eq!(error.message, "strconv.ParseFloat: parsing \"0x\": invalid syntax");
    }

    #[test]
    fn strings_may_hold_any_bytes() {
        assert_eq!(unquote(r#""a\xff\101\u00e9\U0001F600\n\"""#), Some(b"a\xffA\xc3\xa9\xf0\x9f\x98\x80\n\"".to_vec()));
        assert_eq!(unquote(r"'\''"), Some(b"'".to_vec()));
        assert_eq!(unquote(r"`\n`"), Some(b"\\n".to_vec()));
        assert_eq!(unquote("\""), None);
    }
}
