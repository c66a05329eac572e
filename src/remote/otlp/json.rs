//! OTLP as JSON: written as the protocol buffers that it stands for, by a table of the messages. Names may be written in
//! both styles, numbers as numbers or texts; names that are not known are stepped over.

use serde_json::Value;

use crate::model::go_number;

/// How a value is encoded.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Hex,
    Base64,
    Bool,
    Varint,
    ZigZag,
    Fixed64,
    Double,
    Message(&'static Table),
}

/// One field: its name, number and kind. All may be repeated.
type Field = (&'static str, u8, Kind);

/// The fields of a message; a table may name itself.
struct Table(&'static [Field]);

use Kind::{Base64, Bool, Double, Fixed64, Hex, Message, Text, Varint, ZigZag};

static ANY: Table = Table(&[
    ("stringValue", 1, Text),
    ("boolValue", 2, Bool),
    ("intValue", 3, Varint),
    ("doubleValue", 4, Double),
    ("arrayValue", 5, Message(&ARRAY)),
    ("kvlistValue", 6, Message(&LIST)),
    ("bytesValue", 7, Base64),
]);
static ARRAY: Table = Table(&[("values", 1, Message(&ANY))]);
static LIST: Table = Table(&[("values", 1, Message(&ATTRIBUTE))]);
static ATTRIBUTE: Table = Table(&[("key", 1, Text), ("value", 2, Message(&ANY))]);
static EXEMPLAR: Table = Table(&[
    ("filteredAttributes", 7, Message(&ATTRIBUTE)),
    ("timeUnixNano", 2, Fixed64),
    ("asDouble", 3, Double),
    ("asInt", 6, Fixed64),
    ("spanId", 4, Hex),
    ("traceId", 5, Hex),
]);
static NUMBER_POINT: Table = Table(&[
    ("attributes", 7, Message(&ATTRIBUTE)),
    ("startTimeUnixNano", 2, Fixed64),
    ("timeUnixNano", 3, Fixed64),
    ("asDouble", 4, Double),
    ("asInt", 6, Fixed64),
    ("exemplars", 5, Message(&EXEMPLAR)),
    ("flags", 8, Varint),
]);
static HISTOGRAM_POINT: Table = Table(&[
    ("attributes", 9, Message(&ATTRIBUTE)),
    ("startTimeUnixNano", 2, Fixed64),
    ("timeUnixNano", 3, Fixed64),
    ("count", 4, Fixed64),
    ("sum", 5, Double),
    ("bucketCounts", 6, Fixed64),
    ("explicitBounds", 7, Double),
    ("exemplars", 8, Message(&EXEMPLAR)),
    ("flags", 10, Varint),
    ("min", 11, Double),
    ("max", 12, Double),
]);
static BUCKETS: Table = Table(&[("offset", 1, ZigZag), ("bucketCounts", 2, Varint)]);
static EXPONENTIAL_POINT: Table = Table(&[
    ("attributes", 1, Message(&ATTRIBUTE)),
    ("startTimeUnixNano", 2, Fixed64),
    ("timeUnixNano", 3, Fixed64),
    ("count", 4, Fixed64),
    ("sum", 5, Double),
    ("scale", 6, ZigZag),
    ("zeroCount", 7, Fixed64),
    ("positive", 8, Message(&BUCKETS)),
    ("negative", 9, Message(&BUCKETS)),
    ("flags", 10, Varint),
    ("exemplars", 11, Message(&EXEMPLAR)),
    ("min", 12, Double),
    ("max", 13, Double),
    ("zeroThreshold", 14, Double),
]);
static QUANTILE: Table = Table(&[("quantile", 1, Double), ("value", 2, Double)]);
static SUMMARY_POINT: Table = Table(&[
    ("attributes", 7, Message(&ATTRIBUTE)),
    ("startTimeUnixNano", 2, Fixed64),
    ("timeUnixNano", 3, Fixed64),
    ("count", 4, Fixed64),
    ("sum", 5, Double),
    ("quantileValues", 6, Message(&QUANTILE)),
    ("flags", 8, Varint),
]);
static GAUGE: Table = Table(&[("dataPoints", 1, Message(&NUMBER_POINT))]);
static SUM: Table = Table(&[
    ("dataPoints", 1, Message(&NUMBER_POINT)),
    ("aggregationTemporality", 2, Varint),
    ("isMonotonic", 3, Bool),
]);
static HISTOGRAM: Table = Table(&[("dataPoints", 1, Message(&HISTOGRAM_POINT)), ("aggregationTemporality", 2, Varint)]);
static EXPONENTIAL: Table =
    Table(&[("dataPoints", 1, Message(&EXPONENTIAL_POINT)), ("aggregationTemporality", 2, Varint)]);
static SUMMARY: Table = Table(&[("dataPoints", 1, Message(&SUMMARY_POINT))]);
static METRIC: Table = Table(&[
    ("name", 1, Text),
    ("description", 2, Text),
    ("unit", 3, Text),
    ("gauge", 5, Message(&GAUGE)),
    ("sum", 7, Message(&SUM)),
    ("histogram", 9, Message(&HISTOGRAM)),
    ("exponentialHistogram", 10, Message(&EXPONENTIAL)),
    ("summary", 11, Message(&SUMMARY)),
]);
static SCOPE: Table = Table(&[("name", 1, Text), ("version", 2, Text), ("attributes", 3, Message(&ATTRIBUTE))]);
static SCOPE_METRICS: Table =
    Table(&[("scope", 1, Message(&SCOPE)), ("metrics", 2, Message(&METRIC)), ("schemaUrl", 3, Text)]);
static RESOURCE: Table = Table(&[("attributes", 1, Message(&ATTRIBUTE))]);
static RESOURCE_METRICS: Table =
    Table(&[("resource", 1, Message(&RESOURCE)), ("scopeMetrics", 2, Message(&SCOPE_METRICS)), ("schemaUrl", 3, Text)]);
static REQUEST: Table = Table(&[("resourceMetrics", 1, Message(&RESOURCE_METRICS))]);

/// The request as protocol buffers. Errors name what cannot be read.
pub(super) fn to_protobuf(body: &[u8]) -> Result<Vec<u8>, String> {
    let value: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let mut out = Vec::new();
    message(&value, &REQUEST, &mut out)?;
    Ok(out)
}

fn message(value: &Value, table: &'static Table, out: &mut Vec<u8>) -> Result<(), String> {
    let Value::Object(object) = value else { return Err(format!("an object is expected, not {value}")) };
    for (key, value) in object {
        let name = camel(key);
        let Some((name, number, kind)) = table.0.iter().find(|(known, _, _)| *known == name) else { continue };
        let values = match value {
            Value::Null => continue,
            Value::Array(values) => values.as_slice(),
            one => std::slice::from_ref(one),
        };
        for value in values {
            field(value, *number, *kind, out).map_err(|reason| format!("{name}: {reason}"))?;
        }
    }
    Ok(())
}

fn field(value: &Value, number: u8, kind: Kind, out: &mut Vec<u8>) -> Result<(), String> {
    let wire = match kind {
        Bool | Varint | ZigZag => 0,
        Fixed64 | Double => 1,
        Text | Hex | Base64 | Message(_) => 2,
    };
    put_varint(u64::from(number) << 3 | wire, out);
    match kind {
        Bool => out.push(u8::from(value.as_bool().ok_or_else(|| format!("no boolean: {value}"))?)),
        Varint => put_varint(whole(value)?.cast_unsigned(), out),
        ZigZag => {
            let n = whole(value)?;
            put_varint((n << 1 ^ n >> 63).cast_unsigned(), out);
        }
        Fixed64 => out.extend_from_slice(&whole(value)?.to_le_bytes()),
        Double => out.extend_from_slice(&double(value)?.to_le_bytes()),
        Text => put_bytes(text(value)?.as_bytes(), out),
        Hex => put_bytes(&from_hex(text(value)?)?, out),
        Base64 => put_bytes(&from_base64(text(value)?)?, out),
        Message(table) => {
            let mut inner = Vec::new();
            message(value, table, &mut inner)?;
            put_bytes(&inner, out);
        }
    }
    Ok(())
}

fn text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("no text: {value}"))
}

/// A whole number of up to 64 bits, with or without a sign, also as text.
fn whole(value: &Value) -> Result<i64, String> {
    let of_text = |text: &str| text.parse::<i64>().ok().or_else(|| text.parse::<u64>().ok().map(u64::cast_signed));
    let number = match value {
        Value::Number(number) => number.as_i64().or_else(|| number.as_u64().map(u64::cast_signed)),
        Value::String(text) => of_text(text).or_else(|| temporality(text)),
        _ => None,
    };
    number.ok_or_else(|| format!("no whole number: {value}"))
}

/// The number of an enumeration's name.
fn temporality(name: &str) -> Option<i64> {
    match name {
        "AGGREGATION_TEMPORALITY_UNSPECIFIED" => Some(0),
        "AGGREGATION_TEMPORALITY_DELTA" => Some(1),
        "AGGREGATION_TEMPORALITY_CUMULATIVE" => Some(2),
        _ => None,
    }
}

fn double(value: &Value) -> Result<f64, String> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => go_number::parse_float(text).ok(),
        _ => None,
    };
    number.ok_or_else(|| format!("no number: {value}"))
}

fn from_hex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits =
        digits.filter(|digits| digits.len().is_multiple_of(2)).ok_or_else(|| format!("no hex digits: {text}"))?;
    Ok(digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect())
}

fn from_base64(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0u32, 0);
    for c in text.trim_end_matches('=').bytes() {
        let digit = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return Err("no base64".to_owned()),
        };
        bits = bits << 6 | u32::from(digit);
        count += 6;
        if 8 <= count {
            count -= 8;
            // The lowest byte of what is shifted.
            out.push((bits >> count) as u8);
        }
    }
    Ok(out)
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn put_varint(mut n: u64, out: &mut Vec<u8>) {
    while 0x80 <= n {
        // The low seven bits, with the mark that more follow.
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// `start_time_unix_nano` is `startTimeUnixNano`.
fn camel(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    let mut upper = false;
    for c in key.chars() {
        match c {
            '_' => upper = true,
            c if upper => {
                out.push(c.to_ascii_uppercase());
                upper = false;
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_styles_of_names_and_numbers_are_read() {
        let camel = br#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"a","gauge":{"dataPoints":[
            {"timeUnixNano":"5","asInt":"-1","flags":1,"unknown":[{}]},{"asDouble":"NaN"}]}}]}]}]}"#;
        let snake = br#"{"resource_metrics":[{"scope_metrics":[{"metrics":[{"name":"a","gauge":{"data_points":[
            {"time_unix_nano":5,"as_int":-1,"flags":"1"},{"as_double":"NaN"}]}}]}]}]}"#;
        let written = to_protobuf(camel).unwrap();
        assert_eq!(written, to_protobuf(snake).unwrap());
        let point = b"\x19\x05\x00\x00\x00\x00\x00\x00\x00\x31\xff\xff\xff\xff\xff\xff\xff\xff\x40\x01";
        assert!(written.windows(point.len()).any(|part| part == point));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let error = |text: &str| to_protobuf(text.as_bytes()).unwrap_err();
        assert_eq!(error("[]"), "an object is expected, not []");
        let text = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":5}]}]}]}"#;
        assert_eq!(error(text), "resourceMetrics: scopeMetrics: metrics: name: no text: 5");
        assert!(error("{").contains("EOF"));
        assert_eq!((from_hex("0aFF"), from_base64("YWJjZA==")), (Ok(vec![10, 255]), Ok(b"abcd".to_vec())));
        assert!(from_hex("0").is_err() && from_hex("zz").is_err() && from_base64("*").is_err());
    }
}
