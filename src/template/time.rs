//! Points in time as Go's `time.Time`: an instant and the zone in which it is shown.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::model::go_time::{civil_from_days, days_from_civil};

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// An instant and its zone. Prints as Go's `Time.String`.
#[derive(Clone)]
pub struct Time {
    /// Seconds since the Unix epoch.
    pub(super) seconds: i64,
    /// Nanoseconds of that second.
    pub(super) nanos: u32,
    /// Where it is shown.
    pub(super) zone: Zone,
}

/// Where a time is shown.
#[derive(Clone, Debug)]
pub(super) enum Zone {
    Utc,
    /// A zone of the tz database.
    Named(TimeZone),
    /// Seconds east of UTC, and a name that may be empty.
    Fixed(i64, Arc<str>),
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Time({self})")
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&super::layout::format(self, "2006-01-02 15:04:05.999999999 -0700 MST"))
    }
}

/// Date and time of day in a zone.
#[derive(Clone, Debug)]
pub(super) struct Civil {
    pub(super) year: i64,
    pub(super) month: i64,
    pub(super) day: i64,
    pub(super) hour: i64,
    pub(super) minute: i64,
    pub(super) second: i64,
    /// 0 for Sunday.
    pub(super) weekday: i64,
    /// From 1.
    pub(super) year_day: i64,
    /// Seconds east of UTC.
    pub(super) offset: i64,
    pub(super) zone_name: String,
}

impl Time {
    /// Go's zero time, the start of year 1.
    pub const ZERO: Self = Self { seconds: -62_135_596_800, nanos: 0, zone: Zone::Utc };

    /// From nanoseconds since the Unix epoch, in UTC.
    pub fn from_unix_nanos(nanos: i64) -> Self {
        Self {
            seconds: nanos.div_euclid(NANOS_PER_SECOND),
            nanos: u32::try_from(nanos.rem_euclid(NANOS_PER_SECOND)).unwrap_or(0),
            zone: Zone::Utc,
        }
    }

    /// From milliseconds since the Unix epoch, in UTC.
    pub fn from_unix_millis(millis: i64) -> Self {
        Self {
            seconds: millis.div_euclid(1000),
            nanos: u32::try_from(millis.rem_euclid(1000) * 1_000_000).unwrap_or(0),
            zone: Zone::Utc,
        }
    }

    /// The same instant, shown in the named zone of the tz database; `None` if there is no such zone.
    pub(super) fn in_zone(&self, name: &str) -> Option<Self> {
        let zone = match name {
            "" | "UTC" | "Local" => Zone::Utc,
            _ => Zone::Named(TimeZone::get(name).ok()?),
        };
        Some(Self { zone, ..self.clone() })
    }

    pub(super) fn utc(&self) -> Self {
        Self { zone: Zone::Utc, ..self.clone() }
    }

    fn total_nanos(&self) -> i128 {
        i128::from(self.seconds) * i128::from(NANOS_PER_SECOND) + i128::from(self.nanos)
    }

    fn with_total_nanos(&self, nanos: i128) -> Self {
        let second = i128::from(NANOS_PER_SECOND);
        Self {
            seconds: i64::try_from(nanos.div_euclid(second)).unwrap_or(self.seconds),
            nanos: u32::try_from(nanos.rem_euclid(second)).unwrap_or(0),
            zone: self.zone.clone(),
        }
    }

    pub(super) fn add(&self, nanos: i64) -> Self {
        self.with_total_nanos(self.total_nanos() + i128::from(nanos))
    }

    /// The distance, at most what a duration can hold.
    pub(super) fn since(&self, other: &Self) -> i64 {
        let distance = self.total_nanos() - other.total_nanos();
        i64::try_from(distance).unwrap_or(if distance < 0 { i64::MIN } else { i64::MAX })
    }

    pub(super) fn is_zero(&self) -> bool {
        self.total_nanos() == Self::ZERO.total_nanos()
    }

    pub(super) fn unix_nanos(&self) -> i64 {
        self.seconds.wrapping_mul(NANOS_PER_SECOND).wrapping_add(i64::from(self.nanos))
    }

    /// Adds to the date, as Go's `AddDate`: days that the month does not have run over into the next.
    pub(super) fn add_date(&self, years: i64, months: i64, days: i64) -> Self {
        let civil = self.civil();
        let bounded = |n: i64| n.clamp(-1_000_000, 1_000_000);
        let month = civil.month - 1 + bounded(months);
        let (year, month) = (civil.year + bounded(years) + month.div_euclid(12), month.rem_euclid(12) + 1);
        let day = days_from_civil(year, month, 1) + civil.day - 1 + bounded(days);
        let seconds = day * 86_400 + civil.hour * 3600 + civil.minute * 60 + civil.second - civil.offset;
        Self { seconds, nanos: self.nanos, zone: self.zone.clone() }
    }

    /// Rounds down to a multiple of `step` nanoseconds since the zero time.
    pub(super) fn truncate(&self, step: i64) -> Self {
        if step <= 0 {
            return self.clone();
        }
        let since_zero = self.total_nanos() - Self::ZERO.total_nanos();
        self.with_total_nanos(self.total_nanos() - since_zero.rem_euclid(i128::from(step)))
    }

    /// The date and the time of day in its zone.
    pub(super) fn civil(&self) -> Civil {
        let (offset, zone_name) = self.offset();
        let local = self.seconds.saturating_add(offset);
        let (days, second) = (local.div_euclid(86_400), local.rem_euclid(86_400));
        let (year, month, day) = civil_from_days(days);
        Civil {
            year,
            month,
            day,
            hour: second / 3600,
            minute: second / 60 % 60,
            second: second % 60,
            weekday: (days + 4).rem_euclid(7),
            year_day: days - days_from_civil(year, 1, 1) + 1,
            offset,
            zone_name,
        }
    }

    fn offset(&self) -> (i64, String) {
        match (&self.zone, Timestamp::from_second(self.seconds)) {
            (Zone::Named(zone), Ok(at)) => {
                let info = zone.to_offset_info(at);
                (i64::from(info.offset().seconds()), info.abbreviation().to_owned())
            }
            (Zone::Fixed(offset, name), _) => (*offset, name.to_string()),
            _ => (0, "UTC".to_owned()),
        }
    }
}

impl PartialEq for Time {
    /// Whether it is the same instant.
    fn eq(&self, other: &Self) -> bool {
        self.total_nanos() == other.total_nanos()
    }
}
impl Eq for Time {}
impl PartialOrd for Time {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Time {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.total_nanos().cmp(&other.total_nanos())
    }
}
