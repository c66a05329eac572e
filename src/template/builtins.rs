//! The functions that every template has. `and` and `or` evaluate their arguments one by one and live in the executor.

use super::call::{Signature, Type};
use super::format;
use super::value::{MapKind, Value};
use crate::model::go;

/// What a built-in function takes.
pub(super) fn signature(name: &str) -> Option<Signature> {
    const ANY: Type = Type::Any;
    const REFLECT: Type = Type::Reflect;
    Some(match name {
        "and" | "or" | "eq" | "index" | "slice" | "call" => Signature::variadic(&[REFLECT], REFLECT),
        "len" | "not" => Signature::new(&[REFLECT]),
        "ge" | "gt" | "le" | "lt" | "ne" => Signature::new(&[REFLECT, REFLECT]),
        "html" | "js" | "urlquery" | "print" | "println" => Signature::variadic(&[], ANY),
        "printf" => Signature::variadic(&[Type::Str], ANY),
        _ => return None,
    })
}

/// Calls a built-in function with arguments that fit its signature.
pub(super) fn call(name: &str, args: &[Value]) -> Result<Value, String> {
    match (name, args) {
        ("eq", [first, rest @ ..]) => equal(first, rest).map(Value::Bool),
        ("ne", [a, b]) => Ok(Value::Bool(!equal(a, std::slice::from_ref(b))?)),
        ("lt", [a, b]) => less(a, b).map(Value::Bool),
        ("le", [a, b]) => less_or_equal(a, b).map(Value::Bool),
        ("gt", [a, b]) => less_or_equal(a, b).map(|yes| Value::Bool(!yes)),
        ("ge", [a, b]) => less(a, b).map(|yes| Value::Bool(!yes)),
        ("not", [value]) => Ok(Value::Bool(!value.is_true())),
        ("len", [value]) => length(value),
        ("index", [first, keys @ ..]) => index(first, keys),
        ("slice", [first, bounds @ ..]) => slice(first, bounds),
        ("print", args) => format::sprint(args).map(Value::text),
        ("println", args) => format::sprintln(args).map(Value::text),
        ("printf", [form, args @ ..]) => format::sprintf(form.as_str().unwrap_or(""), args).map(Value::text),
        ("html", args) => Ok(Value::text(html(&joined(args)?))),
        ("js", args) => Ok(Value::text(js(&joined(args)?))),
        ("urlquery", args) => Ok(Value::text(query_escape(&joined(args)?))),
        _ => Err("wrong arguments".to_owned()),
    }
}

/// No value is a function, so `call` always fails; `shown` is the word that should have been one.
pub(super) fn call_error(shown: Option<String>, value: &Value) -> String {
    match value {
        Value::Nil | Value::NilInterface => "call of nil".to_owned(),
        _ => {
            let name = shown.unwrap_or_else(|| match value {
                Value::Str(text) => text.to_string(),
                other => format!("<{} Value>", other.type_name()),
            });
            format!("non-function {name} of type {}", value.type_name())
        }
    }
}

/// Kinds whose values compare with `==` and, but for `Bool`, with `<`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Basic<'v> {
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    Str(&'v str),
}

fn basic(value: &Value) -> Option<Basic<'_>> {
    Some(match value {
        Value::Bool(value) => Basic::Bool(*value),
        Value::Int(value) | Value::Duration(value) => Basic::Int(*value),
        Value::Named { number, .. } => Basic::Int(*number),
        Value::Uint(value) => Basic::Uint(*value),
        Value::Byte(value) => Basic::Uint(u64::from(*value)),
        Value::Float(value) => Basic::Float(*value),
        Value::Str(text) => Basic::Str(text),
        _ => return None,
    })
}

fn is_nil(value: &Value) -> bool {
    matches!(value, Value::Nil | Value::NilInterface)
}

fn incompatible(a: &Value, b: &Value) -> String {
    format!("incompatible types for comparison: {} and {}", a.type_name(), b.type_name())
}

fn equal(first: &Value, rest: &[Value]) -> Result<bool, String> {
    if rest.is_empty() {
        return Err("missing argument for comparison".to_owned());
    }
    for other in rest {
        let same = match (basic(first), basic(other)) {
            (Some(Basic::Int(int)), Some(Basic::Uint(uint))) | (Some(Basic::Uint(uint)), Some(Basic::Int(int))) => {
                u64::try_from(int) == Ok(uint)
            }
            (Some(a), Some(b)) if std::mem::discriminant(&a) == std::mem::discriminant(&b) => a == b,
            (None, None) => same_object(first, other)?,
            _ if is_nil(first) || is_nil(other) => false,
            _ => return Err(incompatible(first, other)),
        };
        if same {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Equality of what is no number, text or truth value.
fn same_object(a: &Value, b: &Value) -> Result<bool, String> {
    if is_nil(a) || is_nil(b) {
        return Ok(is_nil(a) == is_nil(b));
    }
    match (a, b) {
        (Value::Time(a), Value::Time(b)) => Ok(a == b),
        (Value::Pointer(a), Value::Pointer(b)) => Ok(std::sync::Arc::ptr_eq(a, b)),
        (Value::Struct(a), Value::Struct(b)) if a.fields.iter().all(|(_, value)| basic(value).is_some()) => {
            Ok(a.type_name == b.type_name
                && a.fields.iter().zip(&b.fields).all(|((_, a), (_, b))| basic(a) == basic(b)))
        }
        _ if std::mem::discriminant(a) != std::mem::discriminant(b) => {
            let shown = format::as_text(a);
            let other = format::printed(b).unwrap_or_default();
            Err(format!("non-comparable types {shown}: {}, {}: {other}", a.type_name(), b.type_name()))
        }
        _ => {
            let shown = format::as_text(b);
            Err(format!("non-comparable type {shown}: {}", b.type_name()))
        }
    }
}

fn less(a: &Value, b: &Value) -> Result<bool, String> {
    const BAD: &str = "invalid type for comparison";
    match (basic(a).ok_or(BAD)?, basic(b).ok_or(BAD)?) {
        (Basic::Int(a), Basic::Int(b)) => Ok(a < b),
        (Basic::Uint(a), Basic::Uint(b)) => Ok(a < b),
        (Basic::Float(a), Basic::Float(b)) => Ok(a < b),
        (Basic::Str(a), Basic::Str(b)) => Ok(a < b),
        (Basic::Int(a), Basic::Uint(b)) => Ok(u64::try_from(a).map_or(true, |a| a < b)),
        (Basic::Uint(a), Basic::Int(b)) => Ok(u64::try_from(b).is_ok_and(|b| a < b)),
        (Basic::Bool(_), Basic::Bool(_)) => Err(BAD.to_owned()),
        _ => Err(incompatible(a, b)),
    }
}

fn less_or_equal(a: &Value, b: &Value) -> Result<bool, String> {
    Ok(less(a, b)? || equal(a, std::slice::from_ref(b))?)
}

fn length(value: &Value) -> Result<Value, String> {
    let len = match value.indirect() {
        Value::List(list) => list.items.len(),
        Value::Map(map) => map.entries.len(),
        Value::Str(text) => text.len(),
        Value::Nil => return Err("reflect: call of reflect.Value.Type on zero Value".to_owned()),
        Value::NilInterface => return Err("len of nil pointer".to_owned()),
        other => return Err(format!("len of type {}", other.type_name())),
    };
    Ok(Value::Int(i64::try_from(len).unwrap_or(i64::MAX)))
}

/// An index or bound within `0..=max`.
fn position(index: &Value, max: usize) -> Result<usize, String> {
    let number = match index {
        Value::Int(number) | Value::Duration(number) | Value::Named { number, .. } => *number,
        Value::Uint(number) => i64::try_from(*number).unwrap_or(-1),
        Value::Byte(number) => i64::from(*number),
        Value::Nil | Value::NilInterface => return Err("cannot index slice/array with nil".to_owned()),
        other => return Err(format!("cannot index slice/array with type {}", other.type_name())),
    };
    let position = usize::try_from(number).ok().filter(|position| *position <= max);
    position.ok_or_else(|| format!("index out of range: {number}"))
}

fn index(first: &Value, keys: &[Value]) -> Result<Value, String> {
    if is_nil(first) {
        return Err("index of untyped nil".to_owned());
    }
    let mut item = first.clone();
    for key in keys {
        item = match item.indirect() {
            Value::Nil | Value::NilInterface => return Err("index of nil pointer".to_owned()),
            Value::List(list) => {
                let at = position(key, list.items.len())?;
                let found = list.items.get(at).cloned();
                found.ok_or_else(|| "reflect: slice index out of range".to_owned())?
            }
            Value::Str(text) => {
                let at = position(key, text.len())?;
                let found = text.as_bytes().get(at).copied();
                Value::Byte(found.ok_or_else(|| "reflect: string index out of range".to_owned())?)
            }
            Value::Map(map) => match key {
                Value::Str(key) => map.entries.get(key).cloned().unwrap_or_else(|| map.zero()),
                Value::Nil | Value::NilInterface => {
                    return Err("value is nil; should be of type string".to_owned());
                }
                other => return Err(format!("value has type {}; should be string", other.type_name())),
            },
            other => return Err(format!("can't index item of type {}", other.type_name())),
        };
    }
    Ok(item)
}

fn slice(first: &Value, bounds: &[Value]) -> Result<Value, String> {
    if is_nil(first) {
        return Err("slice of untyped nil".to_owned());
    }
    if 3 < bounds.len() {
        return Err(format!("too many slice indexes: {}", bounds.len()));
    }
    let item = first.indirect();
    let len = match item {
        Value::Str(_) if bounds.len() == 3 => return Err("cannot 3-index slice a string".to_owned()),
        Value::Str(text) => text.len(),
        Value::List(list) => list.items.len(),
        other => return Err(format!("can't slice item of type {}", other.type_name())),
    };
    let positions = bounds.iter().map(|bound| position(bound, len)).collect::<Result<Vec<_>, _>>()?;
    let at = |index: usize, default: usize| positions.get(index).copied().unwrap_or(default);
    let (start, end) = (at(0, 0), at(1, len));
    if end < start {
        return Err(format!("invalid slice index: {start} > {end}"));
    }
    if at(2, len) < end {
        return Err(format!("invalid slice index: {end} > {}", at(2, len)));
    }
    Ok(match item {
        Value::List(list) => Value::list(list.kind, list.items.get(start..end).unwrap_or(&[]).to_vec()),
        Value::Str(text) => {
            let raw = text.as_bytes().get(start..end).unwrap_or(&[]);
            Value::text(String::from_utf8_lossy(raw).into_owned())
        }
        _ => Value::Nil,
    })
}

/// The arguments as one text, for the functions that escape.
fn joined(args: &[Value]) -> Result<String, String> {
    let shown = |value: &Value| match value.indirect() {
        Value::Nil | Value::NilInterface => Value::text("<no value>"),
        value => value.clone(),
    };
    format::sprint(&args.iter().map(shown).collect::<Vec<_>>())
}

fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\0' => out.push('\u{fffd}'),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c => out.push(c),
        }
    }
    out
}

fn js(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\'' => out.push_str("\\'"),
            '"' => out.push_str("\\\""),
            '<' | '>' | '&' | '=' | '\0'..' ' => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c if c.is_ascii() || go::unicode_point(c).ends_with('\'') => out.push(c),
            c => out.push_str(&format!("\\u{:04X}", u32::from(c))),
        }
    }
    out
}

/// Go's `url.QueryEscape`.
pub(super) fn query_escape(text: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            _ => {
                out.push('%');
                for digit in [byte >> 4, byte & 15] {
                    out.push(HEX.get(usize::from(digit)).copied().map_or('0', char::from));
                }
            }
        }
    }
    out
}

/// A map of arguments by number, as Prometheus's `args` gives.
pub(super) fn numbered(args: &[Value]) -> Value {
    let entries = args.iter().enumerate().map(|(index, value)| (format!("arg{index}").into(), value.clone()));
    Value::map(MapKind::Any, entries.collect())
}
