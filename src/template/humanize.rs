//! Numbers, durations and times for people, as Prometheus's and Alertmanager's templates print them.

use std::fmt::Write as _;

use super::literal;
use super::methods;
use super::time::Time;
use super::value::Value;
use crate::model::go;
use crate::model::go_number;
use crate::model::histogram::{FloatHistogram, Span};

/// A number, or a text that is one.
pub(super) fn to_float(value: &Value) -> Result<f64, String> {
    match value {
        Value::Float(number) => Ok(*number),
        Value::Int(number) => Ok(*number as f64),
        Value::Uint(number) => Ok(*number as f64),
        Value::Duration(nanos) => Ok(methods::seconds(*nanos)),
        Value::Str(text) => {
            let number = go_number::parse_float(text).map_err(|error| error.to_string());
            number.or_else(|error| literal::signed_float(text).ok_or(error))
        }
        Value::Nil | Value::NilInterface => Err("can't convert <nil> to float".to_owned()),
        other => Err(format!("can't convert {} to float", other.type_name())),
    }
}

/// `%.4g`
fn four_digits(number: f64) -> String {
    go::format_float_g_digits(number, 4)
}

const LARGE: [&str; 8] = ["k", "M", "G", "T", "P", "E", "Z", "Y"];
const SMALL: [&str; 8] = ["m", "u", "n", "p", "f", "a", "z", "y"];
const BINARY: [&str; 8] = ["ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"];

fn divided(mut number: f64, step: f64, prefixes: &[&'static str]) -> (f64, &'static str) {
    let mut shown = "";
    for prefix in prefixes {
        if number.abs() < step {
            break;
        }
        shown = prefix;
        number /= step;
    }
    (number, shown)
}

fn multiplied(mut number: f64) -> (f64, &'static str) {
    let mut shown = "";
    for prefix in SMALL {
        if 1.0 <= number.abs() {
            break;
        }
        shown = prefix;
        number *= 1000.0;
    }
    (number, shown)
}

/// With metric prefixes.
pub(super) fn number(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return four_digits(value);
    }
    let (number, prefix) = if 1.0 <= value.abs() { divided(value, 1000.0, &LARGE) } else { multiplied(value) };
    format!("{}{prefix}", four_digits(number))
}

/// With binary prefixes.
pub(super) fn number_1024(value: f64) -> String {
    if value.abs() <= 1.0 || !value.is_finite() {
        return four_digits(value);
    }
    let (number, prefix) = divided(value, 1024.0, &BINARY);
    format!("{}{prefix}", four_digits(number))
}

/// Seconds as days, hours, minutes and seconds, or with a metric prefix below one second.
pub(super) fn duration(value: f64) -> String {
    if !value.is_finite() {
        return four_digits(value);
    }
    if value == 0.0 {
        return format!("{}s", four_digits(value));
    }
    if value.abs() < 1.0 {
        let (number, prefix) = multiplied(value);
        return format!("{}{prefix}s", four_digits(number));
    }
    let sign = if value < 0.0 { "-" } else { "" };
    let magnitude = value.abs();
    // Go's conversion gives the smallest number where this one would give the largest.
    let total = if magnitude < i64::MAX as f64 { magnitude as i64 } else { i64::MIN };
    let (seconds, minutes, hours, days) = (total % 60, total / 60 % 60, total / 3600 % 24, total / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{sign}{}s", four_digits(magnitude)),
        (0, 0, _) => format!("{sign}{minutes}m {seconds}s"),
        (0, _, _) => format!("{sign}{hours}h {minutes}m {seconds}s"),
        _ => format!("{sign}{days}d {hours}h {minutes}m {seconds}s"),
    }
}

/// A ratio as percentage.
pub(super) fn percentage(value: f64) -> String {
    format!("{}%", four_digits(value * 100.0))
}

/// Why seconds since the epoch are no time.
pub(super) enum NoTime {
    /// Not a number, or infinite.
    NotFinite,
    /// Too far away.
    Overflow(String),
}

/// A time from seconds since the epoch, to the millisecond.
pub(super) fn to_time(value: f64) -> Result<Time, NoTime> {
    if !value.is_finite() {
        return Err(NoTime::NotFinite);
    }
    let nanos = value * 1e9;
    if nanos.abs() > i64::MAX as f64 {
        let shown = go::format_float_g(value);
        return Err(NoTime::Overflow(format!(
            "{shown} cannot be represented as a nanoseconds timestamp since it overflows int64"
        )));
    }
    Ok(Time::from_unix_millis(nanos as i64 / 1_000_000))
}

/// Seconds since the epoch as a time.
pub(super) fn timestamp(value: f64) -> Result<String, String> {
    match to_time(value) {
        Ok(time) => Ok(time.to_string()),
        Err(NoTime::NotFinite) => Ok(four_digits(value)),
        Err(NoTime::Overflow(text)) => Err(text),
    }
}

/// A native histogram with its buckets from the lowest to the highest.
pub(super) fn histogram(histogram: &FloatHistogram) -> String {
    let g = go::format_float_g;
    let mut out = format!("{{count:{}, sum:{}", g(histogram.count), g(histogram.sum));
    let custom = histogram.uses_custom_buckets();
    let bound = |index: i64| match custom {
        true => usize::try_from(index).ok().and_then(|i| histogram.custom_values.get(i)).copied(),
        false => Some(2_f64.powf(index as f64 * 2_f64.powi(-histogram.schema))),
    };
    let mut negative = indexed(&histogram.negative_spans, &histogram.negative_buckets);
    negative.reverse();
    for (index, count) in negative {
        let (upper, lower) = (bound(index).unwrap_or(f64::INFINITY), bound(index - 1).unwrap_or(0.0));
        push_bucket(&mut out, '[', -upper, -lower, ')', count);
    }
    if histogram.zero_count != 0.0 {
        push_bucket(&mut out, '[', -histogram.zero_threshold, histogram.zero_threshold, ']', histogram.zero_count);
    }
    for (index, count) in indexed(&histogram.positive_spans, &histogram.positive_buckets) {
        let lowest = if custom { f64::NEG_INFINITY } else { 0.0 };
        let (upper, lower) = (bound(index).unwrap_or(f64::INFINITY), bound(index - 1).unwrap_or(lowest));
        let open = if custom && lower == f64::NEG_INFINITY { '[' } else { '(' };
        push_bucket(&mut out, open, lower, upper, ']', count);
    }
    out.push('}');
    out
}

fn push_bucket(out: &mut String, open: char, lower: f64, upper: f64, close: char, count: f64) {
    if count == 0.0 {
        return;
    }
    let g = go::format_float_g;
    let _ = write!(out, ", {open}{},{}{close}:{}", g(lower), g(upper), g(count));
}

/// Buckets with their indexes.
fn indexed(spans: &[Span], buckets: &[f64]) -> Vec<(i64, f64)> {
    let mut counts = buckets.iter().copied();
    let mut index = 0_i64;
    let mut out = Vec::with_capacity(buckets.len());
    for span in spans {
        index += i64::from(span.offset);
        for count in counts.by_ref().take(usize::try_from(span.length).unwrap_or(0)) {
            out.push((index, count));
            index += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts that Prometheus printed.
    #[test]
    fn histograms_print_as_in_prometheus() {
        let spans = |runs: &[(i32, u32)]| -> Vec<Span> {
            runs.iter().map(|(offset, length)| Span { offset: *offset, length: *length }).collect()
        };
        let custom = FloatHistogram {
            schema: -53,
            count: 6.0,
            sum: 20.0,
            positive_spans: spans(&[(0, 3)]),
            positive_buckets: vec![1.0, 2.0, 3.0],
            custom_values: vec![5.0, 10.0],
            ..FloatHistogram::default()
        };
        assert_eq!(histogram(&custom), "{count:6, sum:20, [-Inf,5]:1, (5,10]:2, (10,+Inf]:3}");
        let coarse = FloatHistogram {
            schema: -2,
            count: 1e7,
            sum: 1e7,
            positive_spans: spans(&[(2, 1)]),
            positive_buckets: vec![1e7],
            ..FloatHistogram::default()
        };
        assert_eq!(histogram(&coarse), "{count:1e+07, sum:1e+07, (16,256]:1e+07}");
        let signed = FloatHistogram {
            zero_threshold: 0.001,
            zero_count: 2.0,
            count: 15.5,
            sum: -3.25,
            positive_spans: spans(&[(0, 2), (1, 1)]),
            positive_buckets: vec![1.0, 0.0, 3.5],
            negative_spans: spans(&[(-1, 2)]),
            negative_buckets: vec![4.0, 5.0],
            ..FloatHistogram::default()
        };
        let text = "{count:15.5, sum:-3.25, [-1,-0.5):5, [-0.5,-0.25):4, [-0.001,0.001]:2, (0.5,1]:1, (4,8]:3.5}";
        assert_eq!(histogram(&signed), text);
    }
}
