//! Parts of the date of a time given in seconds since the epoch, in UTC.

/// What part of a date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DatePart {
    /// Minute of the hour.
    Minute,
    /// Hour of the day.
    Hour,
    /// Day of the week, Sunday is 0.
    DayOfWeek,
    /// Day of the month, from 1.
    DayOfMonth,
    /// Day of the year, from 1.
    DayOfYear,
    /// Number of days in the month.
    DaysInMonth,
    /// Month, from 1.
    Month,
    /// Year.
    Year,
}

const SECONDS_PER_DAY: u64 = 86_400;
/// Days of 400 Gregorian years.
const DAYS_PER_CYCLE: u64 = 146_097;
/// Years before the year 0 that Go's calendar reaches: a whole number of cycles, so that dates repeat.
const YEARS_BEFORE_0: i64 = 292_277_022_400;
/// Days from 1 March 0000 to the epoch.
const EPOCH_FROM_MARCH_0000: u64 = 719_468;
/// Seconds from 1 March of the first year to the epoch.
const EPOCH_SECONDS: u64 = (YEARS_BEFORE_0 as u64 / 400 * DAYS_PER_CYCLE + EPOCH_FROM_MARCH_0000) * SECONDS_PER_DAY;

impl DatePart {
    /// The part that the function with this name gives.
    pub(crate) fn of(function: &str) -> Option<Self> {
        Some(match function {
            "minute" => Self::Minute,
            "hour" => Self::Hour,
            "day_of_week" => Self::DayOfWeek,
            "day_of_month" => Self::DayOfMonth,
            "day_of_year" => Self::DayOfYear,
            "days_in_month" => Self::DaysInMonth,
            "month" => Self::Month,
            "year" => Self::Year,
            _ => return None,
        })
    }

    /// The part of the date at `seconds`, cut to whole seconds.
    pub(crate) fn at(self, seconds: f64) -> f64 {
        let since_start = (whole_seconds(seconds) as u64).wrapping_add(EPOCH_SECONDS);
        let days = since_start / SECONDS_PER_DAY;
        let second_of_day = since_start % SECONDS_PER_DAY;
        let date = CivilDate::from_days(days);
        match self {
            Self::Minute => (second_of_day / 60 % 60) as f64,
            Self::Hour => (second_of_day / 3600) as f64,
            // The first day was a Wednesday, as each first day of a cycle.
            Self::DayOfWeek => ((days + 3) % 7) as f64,
            Self::DayOfMonth => date.day as f64,
            Self::DayOfYear => date.day_of_year() as f64,
            Self::DaysInMonth => days_in_month(date.year, date.month) as f64,
            Self::Month => date.month as f64,
            Self::Year => date.year as f64,
        }
    }
}

/// The integer part. What no signed 64-bit integer holds becomes the smallest one, as it does in Go on amd64.
fn whole_seconds(seconds: f64) -> i64 {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if -LIMIT <= seconds && seconds < LIMIT { seconds as i64 } else { i64::MIN }
}

struct CivilDate {
    year: i64,
    month: i64,
    day: i64,
}

impl CivilDate {
    /// The Gregorian date of a day counted from 1 March of the first year. Years are counted from March, in cycles of 400.
    fn from_days(days: u64) -> Self {
        let cycle = (days / DAYS_PER_CYCLE) as i64;
        let day_of_cycle = (days % DAYS_PER_CYCLE) as i64;
        let year_of_cycle = (day_of_cycle - day_of_cycle / 1460 + day_of_cycle / 36_524 - day_of_cycle / 146_096) / 365;
        let day_of_year = day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = year_of_cycle + cycle * 400 + i64::from(month <= 2) - YEARS_BEFORE_0;
        Self { year, month, day: day_of_year - (153 * month_from_march + 2) / 5 + 1 }
    }

    fn day_of_year(&self) -> i64 {
        (1..self.month).map(|month| days_in_month(self.year, month)).sum::<i64>() + self.day
    }
}

fn days_in_month(year: i64, month: i64) -> i64 {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(seconds: f64, expected: [f64; 8]) {
        let parts = [
            DatePart::Year,
            DatePart::Month,
            DatePart::DayOfMonth,
            DatePart::Hour,
            DatePart::Minute,
            DatePart::DayOfWeek,
            DatePart::DayOfYear,
            DatePart::DaysInMonth,
        ];
        assert_eq!(parts.map(|part| part.at(seconds)), expected);
    }

    #[test]
    fn dates_around_the_calendar() {
        check(0.0, [1970.0, 1.0, 1.0, 0.0, 0.0, 4.0, 1.0, 31.0]);
        check(-0.5, [1970.0, 1.0, 1.0, 0.0, 0.0, 4.0, 1.0, 31.0]);
        check(-1.0, [1969.0, 12.0, 31.0, 23.0, 59.0, 3.0, 365.0, 31.0]);
        check(951_782_400.0, [2000.0, 2.0, 29.0, 0.0, 0.0, 2.0, 60.0, 29.0]);
        check(1_735_603_200.0, [2024.0, 12.0, 31.0, 0.0, 0.0, 2.0, 366.0, 31.0]);
        check(4_107_542_400.0, [2100.0, 3.0, 1.0, 0.0, 0.0, 1.0, 60.0, 31.0]);
    }

    #[test]
    fn what_is_no_time_has_the_date_that_go_gives_it() {
        for seconds in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300] {
            check(seconds, [292_277_026_596.0, 12.0, 4.0, 15.0, 30.0, 0.0, 339.0, 31.0]);
        }
    }
}
