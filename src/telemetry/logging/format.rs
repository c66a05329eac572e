//! One event as one line. Keys and quoting are those of Go's `log/slog` handlers as Prometheus configures them.

use std::fmt::{self, Write as _};

use jiff::Timestamp;
use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use super::LogFormat;
use super::redact::cut_userinfo;
use crate::model::go;

/// Longest value that a line shows; the rest is cut. Keeps the queue's memory bounded.
const VALUE_LEN_MAX: usize = 16 << 10;

enum Value {
    Text(String),
    /// Numbers and booleans, which JSON shows without quotes.
    Bare(String),
}

#[derive(Default)]
struct Fields {
    message: String,
    pairs: Vec<(&'static str, Value)>,
}

pub(super) fn line(format: LogFormat, unix_nanos: i64, event: &Event<'_>) -> String {
    let mut fields = Fields::default();
    event.record(&mut fields);
    // The component belongs to the logger, not to the call, so it precedes the call's own fields.
    fields.pairs.sort_by_key(|(key, _)| *key != "component");
    let metadata = event.metadata();
    let file = metadata.file().map_or("unknown", |path| path.rsplit('/').next().unwrap_or(path));
    let source = format!("{file}:{}", metadata.line().unwrap_or(0));
    render(format, unix_nanos, *metadata.level(), &source, &fields)
}

/// The line that tells of lost lines.
pub(super) fn lost_line(format: LogFormat, unix_nanos: i64, lost: u64) -> String {
    let pairs = vec![("component", Value::Text("log".to_owned())), ("dropped", Value::Bare(lost.to_string()))];
    let message = "Log lines were dropped because the reader of the log does not keep up".to_owned();
    render(format, unix_nanos, Level::WARN, "logging.rs:0", &Fields { message, pairs })
}

fn render(format: LogFormat, unix_nanos: i64, level: Level, source: &str, fields: &Fields) -> String {
    let time = rfc3339_ms(unix_nanos);
    let mut out = String::with_capacity(256);
    match format {
        LogFormat::Logfmt => {
            let _ = write!(out, "time={time} level={level} source={source} msg=");
            push_logfmt(&mut out, &fields.message);
            for (key, value) in &fields.pairs {
                let _ = write!(out, " {key}=");
                match value {
                    Value::Text(text) | Value::Bare(text) => push_logfmt(&mut out, text),
                }
            }
        }
        LogFormat::Json => {
            let _ = write!(out, "{{\"time\":\"{time}\",\"level\":\"{level}\",\"source\":");
            push_json(&mut out, source);
            out.push_str(",\"msg\":");
            push_json(&mut out, &fields.message);
            for (key, value) in &fields.pairs {
                out.push(',');
                push_json(&mut out, key);
                out.push(':');
                match value {
                    Value::Text(text) => push_json(&mut out, text),
                    Value::Bare(text) => out.push_str(text),
                }
            }
            out.push('}');
        }
    }
    out.push('\n');
    out
}

fn rfc3339_ms(unix_nanos: i64) -> String {
    match Timestamp::from_nanosecond(i128::from(unix_nanos)) {
        Ok(at) => format!("{at:.3}"),
        Err(_) => unix_nanos.to_string(),
    }
}

fn push_logfmt(out: &mut String, text: &str) {
    let plain = |c: char| match c {
        ' ' | '=' | '"' => false,
        '!'..='~' => true,
        _ => !c.is_ascii() && !c.is_whitespace() && c != char::REPLACEMENT_CHARACTER && c.escape_debug().count() == 1,
    };
    if !text.is_empty() && text.chars().all(plain) {
        out.push_str(text);
    } else {
        out.push_str(&go::quote(text));
    }
}

fn push_json(out: &mut String, text: &str) {
    // A string always has a JSON form.
    out.push_str(&serde_json::to_string(text).unwrap_or_default());
}

fn bounded(text: &str) -> String {
    let mut text = cut_userinfo(text).into_owned();
    if VALUE_LEN_MAX < text.len() {
        let mut end = VALUE_LEN_MAX;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

impl Fields {
    fn add(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::Text(text) | Value::Bare(text)) => self.message = text,
            // A call's own `time` must not shadow the line's.
            ("time", value) => self.pairs.push(("logged_time", value)),
            ("level", value) => self.pairs.push(("logged_level", value)),
            ("source", value) => self.pairs.push(("logged_source", value)),
            ("msg", value) => self.pairs.push(("logged_msg", value)),
            (name, value) => self.pairs.push((name, value)),
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, Value::Text(bounded(value)));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, Value::Bare(value.to_string()));
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, Value::Bare(value.to_string()));
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, Value::Bare(value.to_string()));
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        let text = go::format_float_g(value);
        self.add(field, if value.is_finite() { Value::Bare(text) } else { Value::Text(text) });
    }
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            let _ = write!(text, ": {error}");
            cause = error.source();
        }
        self.add(field, Value::Text(bounded(&text)));
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, Value::Text(bounded(&format!("{value:?}"))));
    }
}
