//! Parameters of requests: the query string and form bodies merged as Go's `FormValue` does, then times, durations, limits
//! and selectors with the error texts that clients know.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::time::Duration;

use crate::http::error::ApiError;
use crate::model::duration::PromDuration;
use crate::model::go;
use crate::model::go_number;
use crate::model::go_time;
use crate::model::time::TimestampMs;

/// Start of an optional time range that is not given.
pub const TIME_MIN: TimestampMs = TimestampMs((i64::MIN / 1000 + 62_135_596_801) * 1000);
/// End of an optional time range that is not given.
pub const TIME_MAX: TimestampMs = TimestampMs((i64::MAX / 1000 - 62_135_596_801) * 1000 + 999);
const TIME_MIN_TEXT: &str = "-292273086-05-16T16:47:06Z";
const TIME_MAX_TEXT: &str = "292277025-08-18T07:12:54.999999999Z";

/// The most parameters of a request, as many as Go reads; each takes more memory than the two bytes that it may be written in.
const PAIRS_MAX: usize = 10_000;

/// A request has more parameters than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {PAIRS_MAX} parameters")]
pub struct TooMany;

/// Parameters in the order in which Go would list them: those of the body before those of the query string.
#[derive(Clone, Debug, Default)]
pub struct Params {
    body: Vec<(String, String)>,
    query: Vec<(String, String)>,
}

impl Params {
    /// Parameters of a query string and of a form body, either of which may be empty. An error if they are too many.
    pub fn read(query: &[u8], body: &[u8]) -> Result<Self, TooMany> {
        let parts = |raw: &[u8]| raw.iter().filter(|byte| **byte == b'&').count();
        if PAIRS_MAX <= parts(query) + parts(body) {
            return Err(TooMany);
        }
        Ok(Self { body: pairs(body), query: pairs(query) })
    }

    /// The first value of `name`, or the empty text.
    pub fn get(&self, name: &str) -> &str {
        self.all(name).next().unwrap_or("")
    }

    /// All values of `name`.
    pub fn all<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        self.body.iter().chain(&self.query).filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The first value of `name` in the query string alone, or the empty text.
    pub fn get_query(&self, name: &str) -> &str {
        self.query.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// A time that must be given.
    pub fn time(&self, name: &str) -> Result<TimestampMs, ApiError> {
        parse_time(self.get(name)).map_err(|text| ApiError::invalid_parameter(name, text))
    }

    /// A time that may be left out.
    pub fn time_or(&self, name: &str, default: TimestampMs) -> Result<TimestampMs, ApiError> {
        let text = self.get(name);
        if text.is_empty() {
            return Ok(default);
        }
        parse_time(text)
            .map_err(|error| ApiError::invalid_parameter(name, format!("invalid time value for '{name}': {error}")))
    }

    /// (start, end) of an optional range.
    pub fn time_range(&self) -> Result<(TimestampMs, TimestampMs), ApiError> {
        Ok((self.time_or("start", TIME_MIN)?, self.time_or("end", TIME_MAX)?))
    }

    /// `timeout`, if given; negative ones are none at all.
    pub fn timeout(&self) -> Result<Option<Duration>, ApiError> {
        match self.get("timeout") {
            "" => Ok(None),
            text => {
                let nanos = parse_duration(text).map_err(|text| ApiError::invalid_parameter("timeout", text))?;
                Ok(Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))))
            }
        }
    }

    /// `limit`; 0 for none.
    pub fn limit(&self) -> Result<usize, ApiError> {
        let invalid = |reason: String| ApiError::invalid_parameter("limit", reason);
        match self.get("limit") {
            "" => Ok(0),
            text => match go_number::atoi(text) {
                Ok(limit) => usize::try_from(limit).map_err(|_| invalid("limit must be non-negative".to_owned())),
                Err(error) => Err(invalid(error.to_string())),
            },
        }
    }

    /// `lookback_delta` in milliseconds, if given and not zero.
    pub fn lookback(&self) -> Result<Option<PromDuration>, ApiError> {
        match self.get("lookback_delta") {
            "" => Ok(None),
            text => {
                let nanos = parse_duration(text)
                    .map_err(|error| ApiError::bad_data(format!("error parsing lookback delta duration: {error}")))?;
                Ok(u64::try_from(nanos / 1_000_000).ok().filter(|ms| 0 < *ms).map(PromDuration::from_ms))
            }
        }
    }
}

/// Seconds since the epoch, RFC 3339, or Prometheus's ends of time. Milliseconds beyond an `i64` saturate.
pub fn parse_time(text: &str) -> Result<TimestampMs, String> {
    if let Ok(seconds) = go_number::parse_float(text) {
        let fraction_ms = (seconds.fract() * 1000.0).round();
        // Casts of floats saturate, and NaN becomes 0.
        return Ok(TimestampMs((seconds.trunc() as i64).saturating_mul(1000).saturating_add(fraction_ms as i64)));
    }
    if let Some((seconds, nanos)) = go_time::parse_rfc3339(text) {
        return Ok(TimestampMs(seconds.saturating_mul(1000).saturating_add(i64::from(nanos / 1_000_000))));
    }
    match text {
        TIME_MIN_TEXT => Ok(TIME_MIN),
        TIME_MAX_TEXT => Ok(TIME_MAX),
        _ => Err(format!("cannot parse {} to a valid timestamp", go::quote(text))),
    }
}

/// Seconds or a Prometheus duration, in nanoseconds.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    if let Ok(seconds) = go_number::parse_float(text) {
        let nanos = seconds * 1e9;
        return if nanos.abs() <= i64::MAX as f64 || nanos.is_nan() {
            Ok(nanos as i64)
        } else {
            Err(format!("cannot parse {} to a valid duration. It overflows int64", go::quote(text)))
        };
    }
    match PromDuration::parse(text) {
        Ok(duration) => Ok(duration.as_ms_i64().saturating_mul(1_000_000)),
        Err(_) => Err(format!("cannot parse {} to a valid duration", go::quote(text))),
    }
}

/// Decodes `a=b&c=d` as Go's `url.ParseQuery`: pairs with a semicolon or a broken escape are left out.
fn pairs(raw: &[u8]) -> Vec<(String, String)> {
    raw.split(|b| *b == b'&')
        .filter(|pair| !pair.is_empty() && !pair.contains(&b';'))
        .filter_map(|pair| {
            let mut halves = pair.splitn(2, |b| *b == b'=');
            let name = unescape(halves.next()?)?;
            let value = unescape(halves.next().unwrap_or_default())?;
            Some((name, value))
        })
        .collect()
}

/// Undoes percent escapes and `+`; invalid UTF-8 is replaced. `None` for a broken escape.
fn unescape(raw: &[u8]) -> Option<String> {
    let spaces: Vec<u8> = raw.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect();
    let bytes = percent_decode(&spaces)?;
    Some(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// Undoes percent escapes. `None` for a broken one.
pub(super) fn percent_decode(raw: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw.iter();
    while let Some(&byte) = rest.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |byte: &u8| char::from(*byte).to_digit(16);
        let value = digit(rest.next()?)? * 16 + digit(rest.next()?)?;
        out.push(u8::try_from(value).ok()?);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_body_comes_before_the_query_string() {
        let params = Params::read(b"time=6&match[]=a&x=%zz&y=1;2&z", b"query=1%2B1+2&time=5&match%5B%5D=b").unwrap();
        assert_eq!((params.get("time"), params.get("query")), ("5", "1+1 2"));
        assert_eq!(params.all("match[]").collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!((params.get_query("time"), params.get("x"), params.get("y"), params.get("z")), ("6", "", "", ""));
    }

    #[test]
    fn times_are_read_as_prometheus_reads_them() {
        for (text, ms) in [
            ("1435781430.781", 1_435_781_430_781),
            ("-1.007", -1_007),
            ("1.9999", 2_000),
            ("1e3", 1_000_000),
            ("2015-07-01T20:10:51.781+02:00", 1_435_774_251_781),
            ("1969-12-31T23:59:59.9999Z", -1),
            (TIME_MIN_TEXT, TIME_MIN.0),
            (TIME_MAX_TEXT, TIME_MAX.0),
            ("1e300", i64::MAX),
        ] {
            assert_eq!(parse_time(text), Ok(TimestampMs(ms)), "{text}");
        }
        assert_eq!(parse_time("0x10").unwrap_err(), "cannot parse \"0x10\" to a valid timestamp");
        assert_eq!(parse_time("").unwrap_err(), "cannot parse \"\" to a valid timestamp");
    }

    #[test]
    fn durations_are_seconds_or_units() {
        assert_eq!(parse_duration("1.5"), Ok(1_500_000_000));
        assert_eq!(parse_duration("5m"), Ok(300_000_000_000));
        assert_eq!(parse_duration("x").unwrap_err(), "cannot parse \"x\" to a valid duration");
        let overflow = "cannot parse \"1e100\" to a valid duration. It overflows int64";
        assert_eq!(parse_duration("1e100").unwrap_err(), overflow);
    }

    #[test]
    fn error_texts_are_those_of_prometheus() {
        let message = |result: Result<(), ApiError>| result.unwrap_err().message;
        let params = Params::read(b"time=x&limit=x&timeout=x&lookback_delta=x", b"").unwrap();
        assert_eq!(
            message(params.time_or("time", TIME_MIN).map(drop)),
            "invalid parameter \"time\": invalid time value for 'time': cannot parse \"x\" to a valid timestamp"
        );
        assert_eq!(
            message(params.limit().map(drop)),
            "invalid parameter \"limit\": strconv.Atoi: parsing \"x\": invalid syntax"
        );
        assert_eq!(
            message(params.timeout().map(drop)),
            "invalid parameter \"timeout\": cannot parse \"x\" to a valid duration"
        );
        assert_eq!(
            message(params.lookback().map(drop)),
            "error parsing lookback delta duration: cannot parse \"x\" to a valid duration"
        );
        assert_eq!(
            message(Params::read(b"limit=-1", b"").unwrap().limit().map(drop)),
            "invalid parameter \"limit\": limit must be non-negative"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_fine(query: Vec<u8>, body: Vec<u8>) {
            let params = Params::read(&query, &body).unwrap();
            let _ = (params.time("a"), params.timeout(), params.limit(), params.lookback());
        }
        #[test]
        fn any_text_is_fine(text in ".{0,30}") {
            let _ = (parse_time(&text), parse_duration(&text));
        }
    }
}
