//! Prometheus durations (`model.Duration`): a run of units from large to small, as `1h30m`; whole numbers only.

use std::fmt;
use std::time::Duration;

/// A duration as configuration files and PromQL write it, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PromDuration {
    ms: u64,
}

/// Why a text is not a duration. The texts are those of `model.ParseDuration`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Nothing between the quotes.
    #[error("empty duration string")]
    Empty,
    /// Not a run of units from large to small.
    #[error("not a valid duration string: {}", crate::model::go::quote(.0))]
    Malformed(String),
    /// A number is followed by something that is no unit.
    #[error("unknown unit {} in duration {}", crate::model::go::quote(.unit), crate::model::go::quote(.text))]
    UnknownUnit {
        /// What stands for a unit.
        unit: String,
        /// The whole text.
        text: String,
    },
    /// More than a signed 64-bit count of nanoseconds holds.
    #[error("duration out of range")]
    OutOfRange,
}

const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 24 * 3_600_000),
    ("w", 7 * 24 * 3_600_000),
    ("d", 24 * 3_600_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Longest duration, set by Go's 64-bit count of nanoseconds.
const MS_MAX: u64 = (i64::MAX as u64) / 1_000_000;

impl PromDuration {
    /// No time at all; in configuration usually "take the default".
    pub const ZERO: Self = Self { ms: 0 };

    /// A duration of `ms` milliseconds.
    pub const fn from_ms(ms: u64) -> Self {
        Self { ms }
    }

    /// A duration of `secs` seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self { ms: secs * 1000 }
    }

    /// Milliseconds.
    pub const fn as_ms(self) -> u64 {
        self.ms
    }

    /// Milliseconds, signed, for arithmetic with time stamps; fits by construction for parsed values.
    pub const fn as_ms_i64(self) -> i64 {
        if self.ms > i64::MAX as u64 { i64::MAX } else { self.ms as i64 }
    }

    /// Seconds as a float, as metrics and the API print them.
    pub fn as_secs_f64(self) -> f64 {
        self.ms as f64 / 1000.0
    }

    /// As the standard library's type.
    pub const fn to_std(self) -> Duration {
        Duration::from_millis(self.ms)
    }

    /// True for the zero duration.
    pub const fn is_zero(self) -> bool {
        self.ms == 0
    }

    /// Parses `1h30m`, `0`, `15s`. Errors carry Prometheus's texts.
    pub fn parse(text: &str) -> Result<Self, DurationError> {
        match text {
            "0" => return Ok(Self::ZERO),
            "" => return Err(DurationError::Empty),
            _ => {}
        }
        let malformed = || DurationError::Malformed(text.to_owned());
        let mut rest = text;
        let mut total: u64 = 0;
        let mut next_unit = 0;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, tail) = rest.split_at(digits);
            let count: u64 = number.parse().map_err(|_| malformed())?;
            let (unit, tail) = tail.split_at(tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len()));
            if unit.is_empty() {
                return Err(malformed());
            }
            let unknown = || DurationError::UnknownUnit { unit: unit.to_owned(), text: text.to_owned() };
            let index = UNITS.iter().position(|(name, _)| *name == unit).ok_or_else(unknown)?;
            if index < next_unit {
                return Err(malformed());
            }
            next_unit = index + 1;
            total = count
                .checked_mul(UNITS[index].1)
                .and_then(|ms| total.checked_add(ms))
                .filter(|ms| *ms <= MS_MAX)
                .ok_or(DurationError::OutOfRange)?;
            rest = tail;
        }
        Ok(Self { ms: total })
    }
}

/// Prints the largest units; years and weeks only for exact multiples (`model.Duration.String()`).
impl fmt::Display for PromDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ms = self.ms;
        if ms == 0 {
            return f.write_str("0s");
        }
        for (index, (unit, unit_ms)) in UNITS.iter().enumerate() {
            let exact_only = index < 2;
            if exact_only && !ms.is_multiple_of(*unit_ms) {
                continue;
            }
            let count = ms / unit_ms;
            if count > 0 {
                write!(f, "{count}{unit}")?;
                ms -= count * unit_ms;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, ms: u64, printed: &str) {
        let parsed = PromDuration::parse(text).unwrap();
        assert_eq!((parsed.as_ms(), parsed.to_string().as_str()), (ms, printed));
    }

    #[test]
    fn parses_and_prints_as_prometheus() {
        check("0", 0, "0s");
        check("0w", 0, "0s");
        check("324ms", 324, "324ms");
        check("5m", 300_000, "5m");
        check("1h30m", 5_400_000, "1h30m");
        check("4d1h1m", 349_260_000, "4d1h1m");
        check("14d", 1_209_600_000, "2w");
        check("3w2d1h", 1_990_800_000, "23d1h");
        check("10y", 315_360_000_000, "10y");
    }

    #[test]
    fn refuses_what_prometheus_refuses() {
        for bad in ["1", "1y1m1d", "-1w", "1.5d", "d", "294y", "200y10400w", "107675d", "2584200h"] {
            assert!(PromDuration::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(PromDuration::parse("").unwrap_err().to_string(), "empty duration string");
        assert_eq!(PromDuration::parse("5").unwrap_err().to_string(), "not a valid duration string: \"5\"");
    }
}
