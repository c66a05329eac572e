//! JSON written straight into a buffer, byte for byte as Prometheus writes it: `<`, `>` and `&` escaped in strings (but not
//! in labels), shortest floats, no spaces.

use std::io::Write as _;

use crate::model::go;
use crate::model::go_time;
use crate::model::labels::Labels;
use crate::model::time::TimestampMs;

/// A time in nanoseconds since the Unix epoch, as the API prints times that are not samples' (RFC 3339).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixNanos(pub i64);

impl From<TimestampMs> for UnixNanos {
    fn from(at: TimestampMs) -> Self {
        Self(at.0.saturating_mul(1_000_000))
    }
}

/// A growing JSON text.
#[derive(Debug, Default)]
pub struct Json {
    out: Vec<u8>,
}

/// An object under construction; [`Object::end`] closes it.
#[must_use]
pub struct Object<'a> {
    json: &'a mut Json,
    is_empty: bool,
}

/// An array under construction; [`Array::end`] closes it.
#[must_use]
pub struct Array<'a> {
    json: &'a mut Json,
    is_empty: bool,
}

impl Json {
    /// An empty text.
    pub fn new() -> Self {
        Self::default()
    }

    /// The text so far.
    pub fn into_bytes(self) -> Vec<u8> {
        self.out
    }

    /// Appends text that is JSON already.
    pub fn raw(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    /// Opens an object.
    pub fn object(&mut self) -> Object<'_> {
        self.out.push(b'{');
        Object { json: self, is_empty: true }
    }

    /// Opens an array.
    pub fn array(&mut self) -> Array<'_> {
        self.out.push(b'[');
        Array { json: self, is_empty: true }
    }

    /// Appends a string with HTML's special characters and the two line separators of JavaScript escaped.
    pub fn string(&mut self, text: &str) {
        self.quoted(text, |c| matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}'));
    }

    /// Appends a string with JSON's own escapes alone, the form of label names and values.
    pub fn label_string(&mut self, text: &str) {
        self.quoted(text, |_| false);
    }

    fn quoted(&mut self, text: &str, also: impl Fn(char) -> bool) {
        self.out.push(b'"');
        let mut rest = text;
        while let Some(at) = rest.find(|c: char| c < ' ' || c == '"' || c == '\\' || also(c)) {
            let (plain, tail) = rest.split_at(at);
            self.raw(plain);
            let mut chars = tail.chars();
            match chars.next() {
                Some('"') => self.raw("\\\""),
                Some('\\') => self.raw("\\\\"),
                Some('\n') => self.raw("\\n"),
                Some('\r') => self.raw("\\r"),
                Some('\t') => self.raw("\\t"),
                Some(c) => drop(write!(self.out, "\\u{:04x}", u32::from(c))),
                None => {}
            }
            rest = chars.as_str();
        }
        self.raw(rest);
        self.out.push(b'"');
    }

    /// Appends a number; NaN and the infinities, which JSON lacks, as `null`.
    pub fn number(&mut self, value: f64) {
        if value.is_finite() { self.float_text(value) } else { self.raw("null") }
    }

    /// Appends a whole number.
    pub fn integer(&mut self, value: i64) {
        let _ = write!(self.out, "{value}");
    }

    /// Appends a sample's value: a string, exponent form below 1e-6 and from 1e21 on.
    pub fn sample_value(&mut self, value: f64) {
        self.out.push(b'"');
        self.float_text(value);
        self.out.push(b'"');
    }

    /// Appends a sample's time: seconds, with three decimals if it has milliseconds.
    pub fn sample_time(&mut self, at: TimestampMs) {
        let magnitude = at.0.unsigned_abs();
        let (seconds, ms) = (magnitude / 1000, magnitude % 1000);
        let sign = if at.0 < 0 { "-" } else { "" };
        let _ = match ms {
            0 => write!(self.out, "{sign}{seconds}"),
            _ => write!(self.out, "{sign}{seconds}.{ms:03}"),
        };
    }

    /// Appends a time as RFC 3339 in UTC; the absent time is Go's zero time.
    pub fn time(&mut self, at: Option<UnixNanos>) {
        match at {
            Some(UnixNanos(nanos)) => self.label_string(&go_time::format_rfc3339_nano(nanos)),
            None => self.raw("\"0001-01-01T00:00:00Z\""),
        }
    }

    /// Appends a label set as an object, in the set's order.
    pub fn labels(&mut self, labels: &Labels) {
        self.out.push(b'{');
        for (i, (name, value)) in labels.iter().enumerate() {
            if 0 < i {
                self.out.push(b',');
            }
            self.label_string(name);
            self.out.push(b':');
            self.label_string(value);
        }
        self.out.push(b'}');
    }

    /// Appends strings as an array.
    pub fn strings<S: AsRef<str>>(&mut self, texts: impl IntoIterator<Item = S>) {
        let mut array = self.array();
        texts.into_iter().for_each(|text| array.item().string(text.as_ref()));
        array.end();
    }

    fn float_text(&mut self, value: f64) {
        let magnitude = value.abs();
        let is_plain = magnitude == 0.0 || (1e-6 <= magnitude && magnitude < 1e21);
        if is_plain && go::halfway_digits(value).is_none() {
            let _ = write!(self.out, "{value}");
        } else {
            self.raw(&go::format_float_json(value));
        }
    }
}

impl Object<'_> {
    /// Writes a key; the value is to follow.
    pub fn key(&mut self, name: &str) -> &mut Json {
        if !std::mem::take(&mut self.is_empty) {
            self.json.out.push(b',');
        }
        self.json.string(name);
        self.json.out.push(b':');
        self.json
    }

    /// A string.
    pub fn string(&mut self, name: &str, value: &str) -> &mut Self {
        self.key(name).string(value);
        self
    }

    /// A string, left out if empty.
    pub fn string_if_any(&mut self, name: &str, value: &str) -> &mut Self {
        if value.is_empty() { self } else { self.string(name, value) }
    }

    /// A number.
    pub fn number(&mut self, name: &str, value: f64) -> &mut Self {
        self.key(name).number(value);
        self
    }

    /// A whole number.
    pub fn integer(&mut self, name: &str, value: i64) -> &mut Self {
        self.key(name).integer(value);
        self
    }

    /// A truth value.
    pub fn bool(&mut self, name: &str, value: bool) -> &mut Self {
        self.key(name).raw(if value { "true" } else { "false" });
        self
    }

    /// A time.
    pub fn time(&mut self, name: &str, value: Option<UnixNanos>) -> &mut Self {
        self.key(name).time(value);
        self
    }

    /// A label set.
    pub fn labels(&mut self, name: &str, value: &Labels) -> &mut Self {
        self.key(name).labels(value);
        self
    }

    /// Closes the object.
    pub fn end(self) {
        self.json.out.push(b'}');
    }
}

impl Array<'_> {
    /// Makes room for the next element, which is to follow.
    pub fn item(&mut self) -> &mut Json {
        if !std::mem::take(&mut self.is_empty) {
            self.json.out.push(b',');
        }
        self.json
    }

    /// Closes the array.
    pub fn end(self) {
        self.json.out.push(b']');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(write: impl FnOnce(&mut Json), expected: &str) {
        let mut json = Json::new();
        write(&mut json);
        assert_eq!(String::from_utf8(json.into_bytes()).unwrap(), expected);
    }

    #[test]
    fn strings_escape_html_and_labels_do_not() {
        check(|json| json.string("a<b>&\"\\\n\u{1}\u{2028}é"), r#""a\u003cb\u003e\u0026\"\\\n\u0001\u2028é""#);
        check(|json| json.label_string("<&>\u{1}\u{2028}"), "\"<&>\\u0001\u{2028}\"");
        let labels = Labels::from_pairs([("b", "<"), ("a", "1")]);
        check(|json| json.labels(&labels), r#"{"a":"1","b":"<"}"#);
    }

    #[test]
    fn sample_times_and_values() {
        for (ms, text) in [
            (1_435_781_430_781, "1435781430.781"),
            (7, "0.007"),
            (-1_007, "-1.007"),
            (-7, "-0.007"),
            (5_000, "5"),
            (i64::MIN, "-9223372036854775.808"),
        ] {
            check(|json| json.sample_time(TimestampMs(ms)), text);
        }
        for (value, text) in [
            (1e21, "\"1e+21\""),
            (1e-7, "\"1e-07\""),
            (0.000001, "\"0.000001\""),
            (-0.0, "\"-0\""),
            (f64::NAN, "\"NaN\""),
            (f64::NEG_INFINITY, "\"-Inf\""),
            (0.1 + 0.2, "\"0.30000000000000004\""),
        ] {
            check(|json| json.sample_value(value), text);
        }
    }

    #[test]
    fn objects_and_arrays_nest() {
        let write = |json: &mut Json| {
            let mut object = json.object();
            object.string("a", "x").number("b", 0.5).bool("c", true).time("d", None);
            let mut array = object.key("e").array();
            array.item().integer(1);
            array.item().strings(["y", "z"]);
            array.end();
            object.end();
        };
        check(write, r#"{"a":"x","b":0.5,"c":true,"d":"0001-01-01T00:00:00Z","e":[1,["y","z"]]}"#);
    }

    proptest! {
        #[test]
        fn strings_read_back(text in "\\PC*|[\\x00-\\x7f]*") {
            let mut json = Json::new();
            json.string(&text);
            let read: String = serde_json::from_slice(&json.into_bytes()).unwrap();
            prop_assert_eq!(read, text);
        }
        #[test]
        fn values_read_back(value: f64) {
            let mut json = Json::new();
            json.sample_value(value);
            let read: String = serde_json::from_slice(&json.into_bytes()).unwrap();
            let back: f64 = read.replace("+Inf", "inf").parse().unwrap();
            prop_assert!(back == value || (back.is_nan() && value.is_nan()));
        }
    }
}
