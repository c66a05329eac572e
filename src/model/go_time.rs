//! Times and durations in the text forms of Go's `time` package, which the HTTP API and the logs use.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::fmt::Write as _;

/// Nanoseconds in a second.
const SECOND: i64 = 1_000_000_000;

/// Formats nanoseconds since the Unix epoch as Go's RFC3339Nano in UTC: no trailing zeros of the fraction.
pub fn format_rfc3339_nano(unix_nanos: i64) -> String {
    let (seconds, nanos) = (unix_nanos.div_euclid(SECOND), unix_nanos.rem_euclid(SECOND));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil_from_days(days);
    let mut out =
        format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60);
    if nanos != 0 {
        let _ = write!(out, ".{nanos:09}");
        out.truncate(out.trim_end_matches('0').len());
    }
    out.push('Z');
    out
}

/// Parses what Go's `time.Parse(time.RFC3339Nano, …)` accepts: (seconds since the epoch, nanoseconds of that second).
pub fn parse_rfc3339(text: &str) -> Option<(i64, u32)> {
    let mut rest = text;
    let year = digits(&mut rest, 4)?;
    let month = separated(&mut rest, '-')?;
    let day = separated(&mut rest, '-')?;
    let hour = separated(&mut rest, 'T')?;
    let minute = separated(&mut rest, ':')?;
    let second = separated(&mut rest, ':')?;
    let nanos = fraction(&mut rest)?;
    let offset = zone(rest)?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_in_month = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if day < 1 || days_in_month < day || 23 < hour || 59 < minute || 59 < second {
        return None;
    }
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    Some((seconds - offset, nanos))
}

/// Go's `time.Duration.String()`: `1h2m3.5s`, `2ms`, `1.702µs`, `0s`.
pub fn format_duration(nanos: i64) -> String {
    let magnitude = nanos.unsigned_abs();
    let sign = if nanos < 0 { "-" } else { "" };
    let scaled = |unit: u64, name: &str| {
        let (whole, part) = (magnitude / unit, magnitude % unit);
        let width = unit.ilog10() as usize;
        let text = format!("{whole}.{part:0width$}");
        let text = if part == 0 { whole.to_string() } else { text.trim_end_matches('0').to_owned() };
        format!("{sign}{text}{name}")
    };
    match magnitude {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{magnitude}ns"),
        1_000..1_000_000 => scaled(1_000, "µs"),
        1_000_000..1_000_000_000 => scaled(1_000_000, "ms"),
        _ => {
            let total = magnitude / 1_000_000_000;
            let (hours, minutes, seconds) = (total / 3600, total / 60 % 60, total % 60);
            let part = magnitude % 1_000_000_000;
            let fraction = if part == 0 { String::new() } else { format!(".{part:09}") };
            let mut out = String::from(sign);
            if 0 < hours {
                let _ = write!(out, "{hours}h");
            }
            if 0 < hours || 0 < minutes {
                let _ = write!(out, "{minutes}m");
            }
            let _ = write!(out, "{seconds}{}s", fraction.trim_end_matches('0'));
            out
        }
    }
}

/// Parses a Go duration (`1.5s`, `2ms`, `1h30m`, `-3s`, `0`) into nanoseconds; `None` if it is none or too long.
pub fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, text.get(1..)?),
        b'+' => (false, text.get(1..)?),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0.0_f64;
    while !rest.is_empty() {
        let number_len = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let (number, tail) = rest.split_at_checked(number_len)?;
        let unit_len = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(unit_len)?;
        let scale = match unit {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * scale;
        rest = tail;
    }
    let signed = if negative { -total } else { total };
    (signed.abs() < i64::MAX as f64).then_some(signed.round() as i64)
}

fn digits(rest: &mut &str, count: usize) -> Option<i64> {
    let (head, tail) = rest.split_at_checked(count)?;
    *rest = tail;
    if head.bytes().all(|b| b.is_ascii_digit()) { head.parse().ok() } else { None }
}

fn separated(rest: &mut &str, separator: char) -> Option<i64> {
    *rest = rest.strip_prefix(separator)?;
    digits(rest, 2)
}

/// An optional fraction of a second; more than nine digits are cut.
fn fraction(rest: &mut &str) -> Option<u32> {
    let Some(tail) = rest.strip_prefix(['.', ',']) else { return Some(0) };
    let len = tail.bytes().take_while(u8::is_ascii_digit).count();
    let (head, tail) = tail.split_at_checked(len)?;
    if head.is_empty() {
        return None;
    }
    *rest = tail;
    let kept = head.get(..len.min(9))?;
    format!("{kept:0<9}").parse().ok()
}

fn zone(rest: &str) -> Option<i64> {
    if rest == "Z" {
        return Some(0);
    }
    let (sign, mut tail) = match rest.as_bytes().first()? {
        b'+' => (1, rest.get(1..)?),
        b'-' => (-1, rest.get(1..)?),
        _ => return None,
    };
    let hours = digits(&mut tail, 2)?;
    let minutes = separated(&mut tail, ':')?;
    (tail.is_empty() && hours <= 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

/// Days since 1970-01-01 of a date in the proleptic Gregorian calendar (Howard Hinnant's algorithm).
pub fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Year, month and day of a number of days since 1970-01-01: the inverse of [`days_from_civil`].
pub fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn formats_as_go() {
        assert_eq!(format_rfc3339_nano(0), "1970-01-01T00:00:00Z");
        assert_eq!(format_rfc3339_nano(1_795_472_377_845_065_333), "2026-11-23T22:19:37.845065333Z");
        assert_eq!(format_rfc3339_nano(1_795_472_377_500_000_000), "2026-11-23T22:19:37.5Z");
        assert_eq!(format_rfc3339_nano(-1), "1969-12-31T23:59:59.999999999Z");
    }

    #[test]
    fn parses_as_go() {
        assert_eq!(parse_rfc3339("2015-07-01T20:10:51.781Z"), Some((1_435_781_451, 781_000_000)));
        assert_eq!(parse_rfc3339("2015-07-01T20:10:51.781+02:00"), Some((1_435_774_251, 781_000_000)));
        assert_eq!(parse_rfc3339("0001-01-01T00:00:00Z"), Some((-62_135_596_800, 0)));
        for bad in ["2015-07-01", "2015-07-01t20:10:51Z", "2015-02-29T00:00:00Z", "2015-07-01T24:00:00Z", "x", ""] {
            assert_eq!(parse_rfc3339(bad), None, "{bad}");
        }
    }

    #[test]
    fn durations_print_and_parse_as_go() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_702, "1.702µs"),
            (2_000_000, "2ms"),
            (1_500_000_000, "1.5s"),
            (60_000_000_000, "1m0s"),
            (5_400_000_000_000, "1h30m0s"),
            (-1_000_000_000, "-1s"),
        ] {
            assert_eq!(format_duration(nanos), text);
            assert_eq!(parse_duration(text), Some(nanos), "{text}");
        }
        for bad in ["", "x", "1", "1d", "-", "1s2", ".s"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_formatted_parses_back(nanos: i64) {
            let (seconds, part) = parse_rfc3339(&format_rfc3339_nano(nanos)).unwrap();
            prop_assert_eq!(i128::from(seconds) * 1_000_000_000 + i128::from(part), i128::from(nanos));
        }
        #[test]
        fn hostile_texts_do_not_panic(text in ".{0,40}") {
            let _ = (parse_rfc3339(&text), parse_duration(&text));
        }
    }
}
