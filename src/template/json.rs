//! Values as JSON, as Go's `json.Marshal` writes them.

use std::fmt::Write as _;

use super::OUTPUT_LEN_MAX;
use super::layout;
use super::value::Value;
use crate::model::go;

/// The JSON text of a value.
pub(super) fn to_json(value: &Value) -> Result<String, String> {
    let mut out = String::new();
    write(&mut out, value)?;
    Ok(out)
}

fn write(out: &mut String, value: &Value) -> Result<(), String> {
    if OUTPUT_LEN_MAX < out.len() {
        return Err(format!("text exceeds the limit of {OUTPUT_LEN_MAX} bytes"));
    }
    match value {
        Value::Nil | Value::NilInterface => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Int(number) | Value::Duration(number) | Value::Named { number, .. } => {
            out.push_str(&number.to_string());
        }
        Value::Uint(number) => out.push_str(&number.to_string()),
        Value::Byte(number) => out.push_str(&number.to_string()),
        Value::Float(number) if number.is_finite() => out.push_str(&float(*number)),
        Value::Float(number) => return Err(format!("json: unsupported value: {}", go::format_float_g(*number))),
        Value::Str(text) => string(out, text),
        Value::Time(time) => string(out, &layout::format(time, "2006-01-02T15:04:05.999999999Z07:00")),
        Value::Pointer(inner) => write(out, inner)?,
        Value::List(list) => {
            out.push('[');
            for (index, item) in list.items.iter().enumerate() {
                separate(out, index);
                write(out, item)?;
            }
            out.push(']');
        }
        Value::Map(map) => {
            out.push('{');
            for (index, (key, item)) in map.entries.iter().enumerate() {
                separate(out, index);
                string(out, key);
                out.push(':');
                write(out, item)?;
            }
            out.push('}');
        }
        Value::Struct(record) => {
            out.push('{');
            for (index, (name, item)) in record.fields.iter().enumerate() {
                separate(out, index);
                string(out, &field_name(record.type_name, name));
                out.push(':');
                write(out, item)?;
            }
            out.push('}');
        }
    }
    Ok(())
}

fn separate(out: &mut String, index: usize) {
    if 0 < index {
        out.push(',');
    }
}

/// Fields of what Alertmanager hands to webhooks start with a small letter there.
fn field_name(type_name: &str, name: &str) -> String {
    match (type_name, name) {
        ("template.Data", "NotificationReason") => "notification_reason".to_owned(),
        ("template.Data" | "template.Alert", name) => {
            let mut chars = name.chars();
            let first = chars.next().map(|c| c.to_ascii_lowercase());
            first.into_iter().chain(chars).collect()
        }
        (_, name) => name.to_owned(),
    }
}

/// Exponents have no zero at the start, unlike those of `strconv`.
fn float(number: f64) -> String {
    let text = go::format_float_json(number);
    match text.strip_suffix(|c: char| c.is_ascii_digit()).and_then(|rest| rest.strip_suffix("e-0")) {
        Some(mantissa) => format!("{mantissa}e-{}", text.get(text.len() - 1..).unwrap_or("")),
        None => text,
    }
}

fn string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..' ' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
