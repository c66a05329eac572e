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

    /// An empty text with room for so many bytes.
    pub fn with_room(len: usize) -> Self {
        Self { out: Vec::with_capacity(len) }
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// The text so far.
    pub fn into_bytes(self) -> Vec<u8> {
        self.out
    }

    /// The text so far.
    pub fn into_text(self) -> String {
        // It is made of strings and digits.
        String::from_utf8(self.out).unwrap_or_default()
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

    /// Makes room for `more` bytes.
    pub fn reserve(&mut self, more: usize) {
        self.out.reserve(more);
    }

    /// Appends a string with HTML's special characters and the two line separators of JavaScript escaped.
    pub fn string(&mut self, text: &str) {
        // The line separators begin with 0xe2.
        if text.bytes().fold(false, |found, b| found | is_special(b) | matches!(b, b'<' | b'>' | b'&' | 0xe2)) {
            return self.quoted(text, |c| matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}'));
        }
        self.plain(text.as_bytes());
    }

    /// Appends a string with JSON's own escapes alone, the form of label names and values.
    pub fn label_string(&mut self, text: &str) {
        self.label_bytes(text.as_bytes());
    }

    fn label_bytes(&mut self, text: &[u8]) {
        if text.iter().fold(false, |found, b| found | is_special(*b)) {
            return self.quoted(&String::from_utf8_lossy(text), |_| false);
        }
        self.plain(text);
    }

    /// Appends a string that needs no escapes.
    fn plain(&mut self, text: &[u8]) {
        self.out.reserve(text.len() + 2);
        self.out.push(b'"');
        self.out.extend_from_slice(text);
        self.out.push(b'"');
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
        if at.0 < 0 {
            self.out.push(b'-');
        }
        self.digits(seconds);
        if ms != 0 {
            let digit = |n: u64| b'0' + (n % 10) as u8;
            self.out.extend_from_slice(&[b'.', digit(ms / 100), digit(ms / 10), digit(ms)]);
        }
    }

    fn digits(&mut self, mut value: u64) {
        let count = value.checked_ilog10().unwrap_or(0) as usize + 1;
        let mut room = [0; DIGITS_MAX];
        let mut from = count;
        while let Some(pair) = from.checked_sub(2) {
            let digits = (value % 100) as usize;
            value /= 100;
            if let (Some(to), Some(two)) = (room.get_mut(pair..from), PAIRS.get(digits * 2..digits * 2 + 2)) {
                to.copy_from_slice(two);
            }
            from = pair;
        }
        if from == 1 {
            room[0] = b'0' + (value % 10) as u8;
        }
        // A copy of fixed size takes no call.
        let end = self.out.len() + count;
        self.out.extend_from_slice(&room);
        self.out.truncate(end);
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
        for (i, pair) in labels.iter_raw().enumerate() {
            if 0 < i {
                self.out.push(b',');
            }
            self.label_bytes(pair.name);
            self.out.push(b':');
            self.label_bytes(pair.value);
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
        // The cast cuts off what is behind the point.
        let whole = magnitude as u64;
        if magnitude < EXACT_BELOW && whole as f64 == magnitude {
            if value.is_sign_negative() {
                self.out.push(b'-');
            }
            return self.digits(whole);
        }
        let from = self.out.len();
        // For most numbers this writes the shortest digits as they are wanted, and faster than the formatter.
        if 1e-4 <= magnitude
            && magnitude < 1e15
            && go::halfway_digits(value).is_none()
            && serde_json::to_writer(&mut self.out, &value).is_ok()
        {
            if !self.out.iter().skip(from).any(|b| *b == b'e') {
                return;
            }
            self.out.truncate(from);
        }
        if value.is_finite() && 1e-6 <= magnitude && magnitude < 1e21 && go::halfway_digits(value).is_none() {
            let _ = write!(self.out, "{value}");
        } else {
            self.raw(&go::format_float_json(value));
        }
    }
}

/// Writes label sets one after the other, as objects. What a set has in common with the one before it, which in sorted lists is
/// most of it, is copied.
#[derive(Debug, Default)]
pub struct LabelObjects {
    before: Labels,
    /// The pairs of that set, with commas between them.
    text: Vec<u8>,
    /// Where each pair ends: in the encoded set, and in the text.
    ends: Vec<(usize, usize)>,
}

impl LabelObjects {
    /// Appends a label set to `json`, as [`Json::labels`] does.
    pub fn write(&mut self, labels: Labels, json: &mut Json) {
        let common = self.before.common_len(&labels);
        self.ends.truncate(self.ends.partition_point(|(encoded, _)| *encoded <= common));
        let (mut encoded, text) = self.ends.last().copied().unwrap_or_default();
        self.text.truncate(text);
        let mut pairs = Json { out: std::mem::take(&mut self.text) };
        for pair in labels.iter_raw().skip(self.ends.len()) {
            if 0 < encoded {
                pairs.out.push(b',');
            }
            pairs.label_bytes(pair.name);
            pairs.out.push(b':');
            pairs.label_bytes(pair.value);
            encoded += pair.encoded.len();
            self.ends.push((encoded, pairs.out.len()));
        }
        self.text = pairs.out;
        self.before = labels;
        json.out.reserve(self.text.len() + 2);
        json.out.push(b'{');
        json.out.extend_from_slice(&self.text);
        json.out.push(b'}');
    }
}

/// Whole numbers below this have no digits that a float cannot tell apart.
const EXACT_BELOW: f64 = 9_007_199_254_740_992.0;

/// Digits of the largest number of 64 bits.
const DIGITS_MAX: usize = 20;

/// The numbers from 00 to 99.
const PAIRS: [u8; 200] = {
    let mut pairs = [0; 200];
    let mut number = 0;
    while number < 100 {
        pairs[number * 2] = b'0' + (number / 10) as u8;
        pairs[number * 2 + 1] = b'0' + (number % 10) as u8;
        number += 1;
    }
    pairs
};

/// True for what JSON cannot hold in strings as it is.
fn is_special(byte: u8) -> bool {
    byte < b' ' || byte == b'"' || byte == b'\\'
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

    /// Appends text that is JSON already: a comma and a member, or nothing.
    pub fn raw(&mut self, members: &str) {
        self.json.raw(members);
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

    proptest! {
        #[test]
        fn label_sets_in_a_row_are_written_as_each_is(
            sets in prop::collection::vec(prop::collection::btree_map("[ab\"]{1,2}", "[ab<\"]{1,3}", 0..4), 0..20),
        ) {
            let (mut row, mut each, mut objects) = (Json::new(), Json::new(), LabelObjects::default());
            for labels in sets.iter().map(Labels::from_pairs) {
                each.labels(&labels);
                objects.write(labels, &mut row);
            }
            prop_assert_eq!(row.into_text(), each.into_text());
        }
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
            (17_346_801_070_289.0 + 0.812_5, "\"17346801070289.812\""),
            (17_346_801_070_289.0 + 0.687_5, "\"17346801070289.688\""),
            (0.0, "\"0\""),
            (7.0, "\"7\""),
            (10.0, "\"10\""),
            (999.0, "\"999\""),
            (1_000.0, "\"1000\""),
            (-9_007_199_254_740_991.0, "\"-9007199254740991\""),
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
        fn values_are_printed_as_by_the_formatter(bits: u64, small in -1e17f64..1e17, exponent in -8i32..20, whole: i64) {
            let scaled = f64::from_bits(bits & !(0x7ff << 52) | 0x3ff << 52) * 10f64.powi(exponent);
            for value in [small, scaled, whole as f64, (whole >> 12) as f64, (whole >> 12) as f64 / 64.0] {
                let mut json = Json::new();
                json.sample_value(value);
                let plain = (1e-6..1e21).contains(&value.abs()) || value == 0.0;
                let expected = if plain { format!("\"{value}\"") } else { format!("\"{}\"", go::format_float_json(value)) };
                // Where two texts are equally short and equally near, Go takes the one that ends in an even digit.
                let (text, len) = (String::from_utf8(json.into_bytes()).unwrap(), expected.len());
                prop_assert!(text == expected || (text.len() == len && text[1..len - 1].parse() == Ok(value)), "{text} {expected}");
            }
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
