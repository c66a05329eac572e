//! Prometheus's functions, and what they share with Alertmanager's.

use std::net::IpAddr;

use super::builtins::{numbered, query_escape};
use super::call::{Functions, Signature, Type};
use super::humanize::{self, NoTime};
use super::regexps::Regexps;
use super::time::Time;
use super::value::{ListKind, Value};
use super::words;
use crate::model::duration::PromDuration;
use crate::model::external_url::{ExternalUrl, split_host_port};
use crate::model::time::TimestampMs;

/// Steps that a query counts for.
const QUERY_STEPS: usize = 2_000;

/// What `query` asks; the error is the engine's text.
pub(super) type Query<'a> = &'a dyn Fn(&str) -> Result<Vec<Value>, String>;

/// What Prometheus's functions need.
pub(super) struct PrometheusFunctions<'a> {
    pub(super) external_url: &'a ExternalUrl,
    pub(super) at: TimestampMs,
    pub(super) query: Query<'a>,
    pub(super) regexps: Regexps,
}

/// What one of Prometheus's functions takes.
pub(super) fn signature(name: &str) -> Option<Signature> {
    const STR: Type = Type::Str;
    Some(match name {
        "query" | "safeHtml" | "title" | "toUpper" | "toLower" | "graphLink" | "tableLink" | "stripPort"
        | "stripDomain" | "parseDuration" | "urlQueryEscape" => Signature::new(&[STR]),
        "first" => Signature::new(&[Type::QueryResult]),
        "label" => Signature::new(&[STR, Type::Sample]),
        "value" | "strvalue" => Signature::new(&[Type::Sample]),
        "args" => Signature::variadic(&[], Type::Any),
        "reReplaceAll" => Signature::new(&[STR, STR, STR]),
        "match" => Signature::new(&[STR, STR]),
        "sortByLabel" => Signature::new(&[STR, Type::QueryResult]),
        "humanize" | "humanize1024" | "humanizeDuration" | "humanizePercentage" | "humanizeTimestamp" | "toTime"
        | "toDuration" => Signature::new(&[Type::Any]),
        "now" | "pathPrefix" | "externalURL" => Signature::new(&[]),
        _ => return None,
    })
}

impl Functions for PrometheusFunctions<'_> {
    fn signature(&self, name: &str) -> Option<Signature> {
        signature(name)
    }

    fn steps(&self, name: &str, args: &[Value]) -> usize {
        match (name, args) {
            ("query", _) => QUERY_STEPS,
            ("match" | "reReplaceAll", [pattern, ..]) => self.regexps.steps(pattern),
            _ => 0,
        }
    }

    fn call(&self, name: &str, args: &[Value]) -> Result<Value, String> {
        if let [value] = args
            && let Some(result) = of_number(name, value)
        {
            return result;
        }
        let text = |index: usize| args.get(index).and_then(Value::as_str).unwrap_or("");
        let first = args.first().unwrap_or(&Value::Nil);
        let second = args.get(1).unwrap_or(&Value::Nil);
        match name {
            "query" => Ok(Value::list(ListKind::QueryResult, (self.query)(text(0))?)),
            "first" => {
                let found = if let Value::List(list) = first { list.items.first().cloned() } else { None };
                found.ok_or_else(|| "first() called on vector with no elements".to_owned())
            }
            "label" => sample_label(second, text(0)),
            "strvalue" => sample_label(first, "__value__"),
            "value" => sample_field(first, "Value"),
            "args" => numbered(args).check_nesting(),
            "sortByLabel" => Ok(sorted(second, text(0))),
            "reReplaceAll" => self.regexps.replace(text(0), text(1), text(2)),
            "match" => self.regexps.matches(text(0), text(1)),
            "safeHtml" => Ok(first.clone()),
            "title" => Ok(Value::text(words::title(text(0), words::Rest::Kept))),
            "toUpper" => Ok(Value::text(text(0).to_uppercase())),
            "toLower" => Ok(Value::text(text(0).to_lowercase())),
            "graphLink" => Ok(Value::text(format!("/graph?g0.expr={}&g0.tab=0", query_escape(text(0))))),
            "tableLink" => Ok(Value::text(format!("/graph?g0.expr={}&g0.tab=1", query_escape(text(0))))),
            "stripPort" => Ok(Value::text(split_host_port(text(0)).map_or(text(0), |(host, _)| host))),
            "stripDomain" => Ok(Value::text(strip_domain(text(0)))),
            "parseDuration" => parse_duration(text(0)).map(Value::Float),
            "urlQueryEscape" => Ok(Value::text(query_escape(text(0)))),
            "now" => Ok(Value::Float(self.at.0 as f64 / 1000.0)),
            "pathPrefix" => Ok(Value::text(self.external_url.path.as_str())),
            "externalURL" => Ok(Value::text(self.external_url.to_string())),
            _ => Err(format!("no function {name}")),
        }
    }
}

/// The functions that take a number, or a text that is one; `None` for all others.
fn of_number(name: &str, value: &Value) -> Option<Result<Value, String>> {
    let print = |shown: fn(f64) -> String| humanize::to_float(value).map(|number| Value::text(shown(number)));
    Some(match name {
        "humanize" => print(humanize::number),
        "humanize1024" => print(humanize::number_1024),
        "humanizeDuration" => print(humanize::duration),
        "humanizePercentage" => print(humanize::percentage),
        "humanizeTimestamp" => humanize::to_float(value).and_then(humanize::timestamp).map(Value::text),
        "toTime" => humanize::to_float(value).and_then(|number| match humanize::to_time(number) {
            Ok(time) => Ok(Value::Time(time).pointer()),
            Err(NoTime::NotFinite) => Err("value is NaN or Inf".to_owned()),
            Err(NoTime::Overflow(text)) => Err(text),
        }),
        "toDuration" => humanize::to_float(value).map(|number| Value::Duration((number * 1e9) as i64).pointer()),
        _ => return None,
    })
}

/// What Go says where a function follows a pointer that is nil.
const NIL_POINTER: &str = "runtime error: invalid memory address or nil pointer dereference";

fn sample_field(sample: &Value, name: &str) -> Result<Value, String> {
    match sample.indirect() {
        Value::Struct(record) => Ok(record.field(name).cloned().unwrap_or(Value::Nil)),
        _ => Err(NIL_POINTER.to_owned()),
    }
}

fn sample_label(sample: &Value, name: &str) -> Result<Value, String> {
    match sample_field(sample, "Labels")? {
        Value::Map(labels) => Ok(labels.entries.get(name).cloned().unwrap_or_else(|| Value::text(""))),
        _ => Err(NIL_POINTER.to_owned()),
    }
}

fn sorted(samples: &Value, name: &str) -> Value {
    let Value::List(list) = samples else { return samples.clone() };
    let label = |sample: &Value| sample_label(sample, name).ok().and_then(|value| value.as_str().map(str::to_owned));
    let mut items = list.items.to_vec();
    items.sort_by_cached_key(label);
    Value::list(ListKind::QueryResult, items)
}

fn strip_domain(host_port: &str) -> String {
    let (host, port) = split_host_port(host_port).unwrap_or((host_port, ""));
    if host.parse::<IpAddr>().is_ok() {
        return host_port.to_owned();
    }
    let name = host.split('.').next().unwrap_or("");
    match port {
        "" => name.to_owned(),
        _ if name.contains(':') => format!("[{name}]:{port}"),
        _ => format!("{name}:{port}"),
    }
}

/// Seconds of a duration as in configuration files, also negative.
fn parse_duration(text: &str) -> Result<f64, String> {
    let (sign, magnitude) = text.strip_prefix('-').map_or((1.0, text), |rest| (-1.0, rest));
    let duration = PromDuration::parse(magnitude).map_err(|error| error.to_string())?;
    Ok(sign * duration.as_ms() as f64 / 1000.0)
}

/// The current time as a value.
pub(super) fn time_value(at: TimestampMs) -> Value {
    Value::Time(Time::from_unix_millis(at.0))
}
