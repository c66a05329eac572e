//! Methods of values: those of Go's times and durations, and those of Alertmanager's label sets and alerts.

use std::collections::BTreeSet;

use super::call::{Signature, Type};
use super::layout;
use super::time::Time;
use super::value::{List, ListKind, MapKind, PAIR, Value};

/// What a method of the value takes; `None` if the value has no such method.
pub(super) fn signature(receiver: &Value, name: &str) -> Option<Signature> {
    const NONE: Signature = Signature::new(&[]);
    const TIME: Signature = Signature::new(&[Type::Time]);
    const DURATION: Signature = Signature::new(&[Type::Duration]);
    let signature = match receiver {
        Value::Time(_) => match name {
            "Format" => Signature::new(&[Type::Str]),
            "Add" | "Truncate" | "Round" => DURATION,
            "Sub" | "Before" | "After" | "Equal" | "Compare" => TIME,
            "AddDate" => Signature::new(&[Type::Int, Type::Int, Type::Int]),
            "String" | "Unix" | "UnixMilli" | "UnixMicro" | "UnixNano" | "UTC" | "Local" | "Year" | "Month" | "Day"
            | "Hour" | "Minute" | "Second" | "Nanosecond" | "Weekday" | "YearDay" | "IsZero" => NONE,
            _ => return None,
        },
        Value::Duration(_) => match name {
            "Truncate" | "Round" => DURATION,
            "String" | "Seconds" | "Minutes" | "Hours" | "Milliseconds" | "Microseconds" | "Nanoseconds" | "Abs" => {
                NONE
            }
            _ => return None,
        },
        Value::Map(map) if map.kind == MapKind::Kv => match name {
            "Remove" => Signature::new(&[Type::Strings]),
            "SortedPairs" | "Names" | "Values" | "String" => NONE,
            _ => return None,
        },
        Value::List(list) => match (list.kind, name) {
            (ListKind::Pairs, "Names" | "Values" | "String") | (ListKind::Alerts, "Firing" | "Resolved") => NONE,
            (ListKind::NamedStrings, "Join") => Signature::new(&[Type::Str]),
            _ => return None,
        },
        Value::Named { .. } | Value::Struct(_) if name == "String" && receiver.own_text().is_some() => NONE,
        _ => return None,
    };
    Some(signature)
}

/// Calls a method with arguments that fit its signature.
pub(super) fn call(receiver: &Value, name: &str, args: &[Value]) -> Result<Value, String> {
    if name == "String"
        && let Some(text) = receiver.own_text()
    {
        return Ok(Value::text(text));
    }
    match receiver {
        Value::Time(time) => of_time(time, name, args),
        Value::Duration(nanos) => of_duration(*nanos, name, args),
        Value::Map(map) => {
            let pairs = map.sorted_pairs();
            match (name, args) {
                ("SortedPairs", _) => Ok(pair_list(&pairs)),
                ("Names", _) => Ok(Value::strings(ListKind::NamedStrings, pairs.iter().map(|(name, _)| name))),
                ("Values", _) => Ok(Value::strings(ListKind::NamedStrings, pairs.iter().map(|(_, value)| value))),
                ("Remove", [names]) => {
                    let names: BTreeSet<&str> = match names {
                        Value::List(list) => list.items.iter().filter_map(Value::as_str).collect(),
                        _ => BTreeSet::new(),
                    };
                    let kept = map.entries.iter().filter(|(name, _)| !names.contains(&***name));
                    Ok(Value::map(MapKind::Kv, kept.map(|(name, value)| (name.clone(), value.clone())).collect()))
                }
                _ => unknown(name),
            }
        }
        Value::List(list) => of_list(list, name, args),
        _ => unknown(name),
    }
}

fn unknown(name: &str) -> Result<Value, String> {
    Err(format!("no method {name}"))
}

fn pair_list(pairs: &[(&str, &str)]) -> Value {
    let pair = |(name, value): &(&str, &str)| {
        Value::record(PAIR, vec![("Name", Value::text(*name)), ("Value", Value::text(*value))])
    };
    Value::list(ListKind::Pairs, pairs.iter().map(pair).collect())
}

fn of_list(list: &List, name: &str, args: &[Value]) -> Result<Value, String> {
    let field = |item: &Value, field: &str| match item.indirect() {
        Value::Struct(record) => record.text_of(field),
        _ => String::new(),
    };
    match (name, args) {
        ("Join", [separator]) => {
            let texts: Vec<_> = list.items.iter().filter_map(Value::as_str).collect();
            Ok(Value::text(joined(&texts, separator.as_str().unwrap_or(""))?))
        }
        ("Names", _) => Ok(Value::strings(ListKind::NamedStrings, list.items.iter().map(|item| field(item, "Name")))),
        ("Values", _) => Ok(Value::strings(ListKind::NamedStrings, list.items.iter().map(|item| field(item, "Value")))),
        ("Firing" | "Resolved", _) => {
            let status = name.to_ascii_lowercase();
            let alerts = list.items.iter().filter(|item| field(item, "Status") == status).cloned();
            Ok(Value::list(ListKind::SomeAlerts, alerts.collect()))
        }
        _ => unknown(name),
    }
}

/// The texts with the separator between them, if that is not too long.
pub(super) fn joined(texts: &[&str], separator: &str) -> Result<String, String> {
    let len = texts.iter().map(|text| text.len()).sum::<usize>() + separator.len() * texts.len().saturating_sub(1);
    if super::OUTPUT_LEN_MAX < len {
        return Err(format!("text exceeds the limit of {} bytes", super::OUTPUT_LEN_MAX));
    }
    Ok(texts.join(separator))
}

fn nanos_of(value: &Value) -> i64 {
    if let Value::Duration(nanos) = value { *nanos } else { 0 }
}

fn int_of(value: &Value) -> i64 {
    if let Value::Int(int) = value { *int } else { 0 }
}

fn named(type_name: &'static str, number: i64, names: &[&'static str], first: i64) -> Value {
    let index = usize::try_from(number - first).unwrap_or(0);
    Value::Named { type_name, number, name: names.get(index).copied().unwrap_or("") }
}

fn of_time(time: &Time, name: &str, args: &[Value]) -> Result<Value, String> {
    let civil = time.civil();
    Ok(match (name, args) {
        ("Format", [layout]) => Value::text(layout::format(time, layout.as_str().unwrap_or(""))),
        ("Add", [duration]) => Value::Time(time.add(nanos_of(duration))),
        ("Truncate", [step]) => Value::Time(time.truncate(nanos_of(step))),
        ("Round", [step]) => {
            let step = nanos_of(step);
            Value::Time(if 0 < step { time.add(step / 2 + step % 2).truncate(step) } else { time.clone() })
        }
        ("Sub", [Value::Time(other)]) => Value::Duration(time.since(other)),
        ("Before", [Value::Time(other)]) => Value::Bool(time < other),
        ("After", [Value::Time(other)]) => Value::Bool(other < time),
        ("Equal", [Value::Time(other)]) => Value::Bool(time == other),
        ("Compare", [Value::Time(other)]) => Value::Int(time.cmp(other) as i64),
        ("AddDate", [years, months, days]) => Value::Time(time.add_date(int_of(years), int_of(months), int_of(days))),
        ("Unix", _) => Value::Int(time.seconds),
        ("UnixMilli", _) => Value::Int(time.seconds.wrapping_mul(1000).wrapping_add(i64::from(time.nanos / 1_000_000))),
        ("UnixMicro", _) => Value::Int(time.seconds.wrapping_mul(1_000_000).wrapping_add(i64::from(time.nanos / 1000))),
        ("UnixNano", _) => Value::Int(time.unix_nanos()),
        ("UTC" | "Local", _) => Value::Time(time.utc()),
        ("Year", _) => Value::Int(civil.year),
        ("Month", _) => named("time.Month", civil.month, &layout::MONTHS, 1),
        ("Day", _) => Value::Int(civil.day),
        ("Hour", _) => Value::Int(civil.hour),
        ("Minute", _) => Value::Int(civil.minute),
        ("Second", _) => Value::Int(civil.second),
        ("Nanosecond", _) => Value::Int(i64::from(time.nanos)),
        ("Weekday", _) => named("time.Weekday", civil.weekday, &layout::WEEKDAYS, 0),
        ("YearDay", _) => Value::Int(civil.year_day),
        ("IsZero", _) => Value::Bool(time.is_zero()),
        _ => return unknown(name),
    })
}

fn of_duration(nanos: i64, name: &str, args: &[Value]) -> Result<Value, String> {
    // Whole units and the rest apart, as Go does it to keep digits.
    let in_unit = |unit: i64| (nanos / unit) as f64 + (nanos % unit) as f64 / unit as f64;
    Ok(match (name, args) {
        ("Seconds", _) => Value::Float(in_unit(1_000_000_000)),
        ("Minutes", _) => Value::Float(in_unit(60_000_000_000)),
        ("Hours", _) => Value::Float(in_unit(3_600_000_000_000)),
        ("Milliseconds", _) => Value::Int(nanos / 1_000_000),
        ("Microseconds", _) => Value::Int(nanos / 1000),
        ("Nanoseconds", _) => Value::Int(nanos),
        ("Abs", _) => Value::Duration(nanos.saturating_abs()),
        ("Truncate", [step]) => Value::Duration(match nanos_of(step) {
            step if step <= 0 => nanos,
            step => nanos - nanos % step,
        }),
        ("Round", [step]) => Value::Duration(rounded(nanos, nanos_of(step))),
        _ => return unknown(name),
    })
}

/// To the nearest multiple, halves away from zero.
fn rounded(nanos: i64, step: i64) -> i64 {
    if step <= 0 {
        return nanos;
    }
    let rest = nanos % step;
    let down = nanos - rest;
    if rest.unsigned_abs() < step.unsigned_abs() - rest.unsigned_abs() {
        return down;
    }
    down.saturating_add(if nanos < 0 { -step } else { step })
}

/// The seconds of a duration as a float, for the functions that print numbers.
pub(super) fn seconds(nanos: i64) -> f64 {
    (nanos / 1_000_000_000) as f64 + (nanos % 1_000_000_000) as f64 / 1e9
}
