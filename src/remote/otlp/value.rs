//! Attributes: key and value, and how a value of any type reads as a label.
//!
//! ```text
//! KeyValue { 1 key, 2 AnyValue }
//! AnyValue { 1 string │ 2 bool │ 3 int64 │ 4 double │ 5 ArrayValue { 1 … } │ 6 KeyValueList { 1 … } │ 7 bytes }
//! ```
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::fmt::Write as _;

use crate::model::go;
use crate::model::wire::{Fields, WireError};

/// Values within values that are shown.
const DEPTH_MAX: usize = 64;

/// One attribute as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attribute {
    pub(super) key: String,
    pub(super) value: String,
}

/// Reads a `KeyValue`.
pub(super) fn attribute(message: &[u8]) -> Result<Attribute, WireError> {
    let (key, value) = key_value(message)?;
    let mut text = String::new();
    if let Some(Any::Text(raw)) = value {
        text.push_str(&String::from_utf8_lossy(raw));
    } else if let Some(Any::Double(value)) = value {
        text.push_str(&double(value));
    } else if let Some(Any::Bytes(raw)) = value {
        base64(raw, &mut text);
    } else if let Some(value) = value {
        json(value, 0, &mut text)?;
    }
    Ok(Attribute { key: String::from_utf8_lossy(key).into_owned(), value: text })
}

#[derive(Clone, Copy)]
enum Any<'a> {
    Text(&'a [u8]),
    Bool(bool),
    Int(i64),
    Double(f64),
    Array(&'a [u8]),
    Map(&'a [u8]),
    Bytes(&'a [u8]),
}

fn key_value(message: &[u8]) -> Result<(&[u8], Option<Any<'_>>), WireError> {
    let (mut key, mut value) = (&[][..], None);
    let mut fields = Fields::new("KeyValue", message);
    while let Some((field, found)) = fields.next()? {
        match field {
            1 => key = found.bytes("Key")?,
            2 => value = any(found.bytes("Value")?)?,
            _ => {}
        }
    }
    Ok((key, value))
}

fn any(message: &[u8]) -> Result<Option<Any<'_>>, WireError> {
    let mut value = None;
    let mut fields = Fields::new("AnyValue", message);
    while let Some((field, found)) = fields.next()? {
        value = Some(match field {
            1 => Any::Text(found.bytes("StringValue")?),
            2 => Any::Bool(found.varint("BoolValue")? != 0),
            3 => Any::Int(found.varint("IntValue")?.cast_signed()),
            4 => Any::Double(found.double("DoubleValue")?),
            5 => Any::Array(found.bytes("ArrayValue")?),
            6 => Any::Map(found.bytes("KvlistValue")?),
            7 => Any::Bytes(found.bytes("BytesValue")?),
            _ => continue,
        });
    }
    Ok(value)
}

/// As Go's `encoding/json` writes it without escapes for HTML, maps by their keys.
fn json(value: Any<'_>, depth: usize, out: &mut String) -> Result<(), WireError> {
    if DEPTH_MAX <= depth {
        return Err(WireError::TooDeep);
    }
    match value {
        Any::Text(raw) => push_text(out, &String::from_utf8_lossy(raw)),
        Any::Bool(value) => out.push_str(if value { "true" } else { "false" }),
        Any::Int(value) => {
            let _ = write!(out, "{value}");
        }
        Any::Double(value) => out.push_str(&double(value)),
        Any::Bytes(raw) => {
            out.push('"');
            base64(raw, out);
            out.push('"');
        }
        Any::Array(message) => {
            out.push('[');
            let mut fields = Fields::new("ArrayValue", message);
            let mut first = true;
            while let Some((field, found)) = fields.next()? {
                if field != 1 {
                    continue;
                }
                if !std::mem::take(&mut first) {
                    out.push(',');
                }
                match any(found.bytes("Values")?)? {
                    Some(value) => json(value, depth + 1, out)?,
                    None => out.push_str("null"),
                }
            }
            out.push(']');
        }
        Any::Map(message) => {
            let mut pairs = Vec::new();
            let mut fields = Fields::new("KeyValueList", message);
            while let Some((field, found)) = fields.next()? {
                if field == 1 {
                    pairs.push(key_value(found.bytes("Values")?)?);
                }
            }
            pairs.sort_by(|a, b| a.0.cmp(b.0));
            out.push('{');
            for (index, (key, value)) in pairs.into_iter().enumerate() {
                if 0 < index {
                    out.push(',');
                }
                push_text(out, &String::from_utf8_lossy(key));
                out.push(':');
                match value {
                    Some(value) => json(value, depth + 1, out)?,
                    None => out.push_str("null"),
                }
            }
            out.push('}');
        }
    }
    Ok(())
}

fn push_text(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\0'..='\u{1f}' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

fn double(value: f64) -> String {
    if value.is_finite() {
        return go::format_float_json(value);
    }
    format!("json: unsupported value: {}", go::format_float_g(value))
}

fn base64(raw: &[u8], out: &mut String) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for group in raw.chunks(3) {
        let bits = group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = DIGITS.get((bits >> (18 - 6 * place) & 63) as usize);
            match digit.filter(|_| place <= group.len()) {
                Some(digit) => out.push(char::from(*digit)),
                None => out.push('='),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: &[u8], expected: &str) {
        let message = [&b"\x0a\x01k\x12"[..], &[value.len() as u8], value].concat();
        assert_eq!(attribute(&message), Ok(Attribute { key: "k".to_owned(), value: expected.to_owned() }));
    }

    #[test]
    fn values_read_as_text() {
        check(b"", "");
        check(b"\x0a\x02ab", "ab");
        check(b"\x10\x01", "true");
        check(b"\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "-1");
        check(&[b"\x21", &1.5f64.to_le_bytes()[..]].concat(), "1.5");
        check(b"\x3a\x04abcd", "YWJjZA==");
        check(b"\x2a\x0b\x0a\x03\x0a\x01a\x0a\x00\x0a\x02\x10\x01", "[\"a\",null,true]");
        check(
            b"\x32\x14\x0a\x08\x0a\x01b\x12\x03\x0a\x01\x3c\x0a\x08\x0a\x01a\x12\x03\x3a\x01\x00",
            r#"{"a":"AA==","b":"<"}"#,
        );
    }
}
