//! Times by layout, as Go's `Time.Format` and `time.Parse` read them: the layout shows how the reference time
//! `Mon Jan 2 15:04:05 MST 2006` would look.

use std::fmt::Write as _;
use std::sync::Arc;

use super::time::{Civil, Time, Zone};
use crate::model::go;
use crate::model::go_time::{civil_from_days, days_from_civil};

pub(super) const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
pub(super) const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// A part of a layout that stands for a part of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    LongMonth,
    Month,
    NumMonth,
    ZeroMonth,
    LongWeekday,
    Weekday,
    Day,
    UnderDay,
    ZeroDay,
    UnderYearDay,
    ZeroYearDay,
    Hour,
    Hour12,
    ZeroHour12,
    Minute,
    ZeroMinute,
    Second,
    ZeroSecond,
    LongYear,
    Year,
    UpperPm,
    LowerPm,
    ZoneName,
    Offset(OffsetForm),
    /// So many digits of the second's fraction, with zeros at the end.
    Fraction(usize),
    /// At most so many, without zeros at the end.
    ShortFraction(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OffsetForm {
    /// Whether UTC prints as `Z`.
    z: bool,
    colons: bool,
    /// Number of fields: hours, minutes, seconds.
    fields: usize,
}

/// Parts that a layout spells the same way whatever follows, longest first where one starts another.
const SPELLED: [(&str, Part); 23] = [
    ("January", Part::LongMonth),
    ("Monday", Part::LongWeekday),
    ("MST", Part::ZoneName),
    ("002", Part::ZeroYearDay),
    ("01", Part::ZeroMonth),
    ("02", Part::ZeroDay),
    ("03", Part::ZeroHour12),
    ("04", Part::ZeroMinute),
    ("05", Part::ZeroSecond),
    ("06", Part::Year),
    ("15", Part::Hour),
    ("1", Part::NumMonth),
    ("2006", Part::LongYear),
    ("2", Part::Day),
    ("_2", Part::UnderDay),
    ("__2", Part::UnderYearDay),
    ("3", Part::Hour12),
    ("4", Part::Minute),
    ("5", Part::Second),
    ("PM", Part::UpperPm),
    ("pm", Part::LowerPm),
    ("Jan", Part::Month),
    ("Mon", Part::Weekday),
];

/// How offsets are spelled behind `-` or `Z`, longest first.
const OFFSETS: [(&str, bool, usize); 5] =
    [("070000", false, 3), ("07:00:00", true, 3), ("0700", false, 2), ("07:00", true, 2), ("07", false, 1)];

/// The part at the start of a layout and its length.
fn part_at(layout: &str) -> Option<(Part, usize)> {
    // `_2006` is an underscore before a year.
    if layout.starts_with("_2006") {
        return None;
    }
    if let Some(tail) = layout.strip_prefix(['-', 'Z']) {
        let form = OFFSETS.iter().find(|(spelled, _, _)| tail.starts_with(spelled));
        let (spelled, colons, fields) = form?;
        let form = OffsetForm { z: layout.starts_with('Z'), colons: *colons, fields: *fields };
        return Some((Part::Offset(form), 1 + spelled.len()));
    }
    if let Some(tail) = layout.strip_prefix(['.', ',']) {
        let digit = tail.chars().next().filter(|c| matches!(c, '0' | '9'))?;
        let count = tail.chars().take_while(|c| *c == digit).count();
        let ends = !tail.get(count..).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        let part = if digit == '0' { Part::Fraction(count) } else { Part::ShortFraction(count) };
        return ends.then_some((part, 1 + count));
    }
    let (spelled, part) = SPELLED.iter().find(|(spelled, _)| layout.starts_with(spelled))?;
    let abbreviated = matches!(part, Part::Month | Part::Weekday);
    let tail = layout.get(spelled.len()..).unwrap_or("");
    // "Janet" is no month.
    if abbreviated && tail.starts_with(|c: char| c.is_ascii_lowercase()) {
        return None;
    }
    Some((*part, spelled.len()))
}

/// The literal text before the next part, the part as spelled, and what follows.
fn next_part(layout: &str) -> (&str, Option<(Part, &str)>, &str) {
    for (at, _) in layout.char_indices() {
        let (prefix, rest) = layout.split_at(at);
        if let Some((part, len)) = part_at(rest) {
            let (spelled, suffix) = rest.split_at(len);
            return (prefix, Some((part, spelled)), suffix);
        }
    }
    (layout, None, "")
}

/// Go's `Time.Format`.
pub(super) fn format(time: &Time, layout: &str) -> String {
    let civil = time.civil();
    let mut out = String::new();
    let mut rest = layout;
    loop {
        let (prefix, part, suffix) = next_part(rest);
        out.push_str(prefix);
        let Some((part, spelled)) = part else { return out };
        push_part(&mut out, part, spelled, &civil, time.nanos);
        rest = suffix;
    }
}

fn name_of<'n>(names: &[&'n str], index: i64) -> &'n str {
    usize::try_from(index).ok().and_then(|index| names.get(index)).copied().unwrap_or("")
}

fn short(name: &str) -> &str {
    name.get(..3).unwrap_or(name)
}

fn push_part(out: &mut String, part: Part, spelled: &str, civil: &Civil, nanos: u32) {
    let hour12 = if civil.hour % 12 == 0 { 12 } else { civil.hour % 12 };
    let month = name_of(&MONTHS, civil.month - 1);
    let weekday = name_of(&WEEKDAYS, civil.weekday);
    // Writing to a text does not fail.
    let _ = match part {
        Part::LongMonth => write!(out, "{month}"),
        Part::Month => write!(out, "{}", short(month)),
        Part::NumMonth => write!(out, "{}", civil.month),
        Part::ZeroMonth => write!(out, "{:02}", civil.month),
        Part::LongWeekday => write!(out, "{weekday}"),
        Part::Weekday => write!(out, "{}", short(weekday)),
        Part::Day => write!(out, "{}", civil.day),
        Part::UnderDay => write!(out, "{:2}", civil.day),
        Part::ZeroDay => write!(out, "{:02}", civil.day),
        Part::UnderYearDay => write!(out, "{:3}", civil.year_day),
        Part::ZeroYearDay => write!(out, "{:03}", civil.year_day),
        Part::Hour => write!(out, "{:02}", civil.hour),
        Part::Hour12 => write!(out, "{hour12}"),
        Part::ZeroHour12 => write!(out, "{hour12:02}"),
        Part::Minute => write!(out, "{}", civil.minute),
        Part::ZeroMinute => write!(out, "{:02}", civil.minute),
        Part::Second => write!(out, "{}", civil.second),
        Part::ZeroSecond => write!(out, "{:02}", civil.second),
        Part::LongYear if civil.year < 0 => write!(out, "-{:04}", -civil.year),
        Part::LongYear => write!(out, "{:04}", civil.year),
        Part::Year => write!(out, "{:02}", civil.year.rem_euclid(100)),
        Part::UpperPm => write!(out, "{}", if civil.hour < 12 { "AM" } else { "PM" }),
        Part::LowerPm => write!(out, "{}", if civil.hour < 12 { "am" } else { "pm" }),
        Part::ZoneName if civil.zone_name.is_empty() => {
            let form = OffsetForm { z: false, colons: false, fields: 2 };
            write!(out, "{}", offset_text(form, civil.offset))
        }
        Part::ZoneName => write!(out, "{}", civil.zone_name),
        Part::Offset(form) => write!(out, "{}", offset_text(form, civil.offset)),
        Part::Fraction(count) | Part::ShortFraction(count) => {
            let digits = format!("{nanos:09}");
            let digits = digits.get(..count.min(9)).unwrap_or("");
            let kept = if matches!(part, Part::ShortFraction(_)) { digits.trim_end_matches('0') } else { digits };
            let separator = spelled.get(..1).unwrap_or(".");
            let zeros = if matches!(part, Part::Fraction(_)) { count.saturating_sub(9) } else { 0 };
            match kept.is_empty() {
                true => Ok(()),
                false => write!(out, "{separator}{kept}{}", "0".repeat(zeros)),
            }
        }
    };
}

fn offset_text(form: OffsetForm, offset: i64) -> String {
    if form.z && offset == 0 {
        return "Z".to_owned();
    }
    let magnitude = offset.abs();
    let fields = [magnitude / 3600, magnitude / 60 % 60, magnitude % 60];
    let fields: Vec<_> = fields.iter().take(form.fields).map(|field| format!("{field:02}")).collect();
    format!("{}{}", if offset < 0 { '-' } else { '+' }, fields.join(if form.colons { ":" } else { "" }))
}

/// What was read of a time so far.
#[derive(Default)]
struct Read {
    year: i64,
    month: Option<i64>,
    day: Option<i64>,
    year_day: Option<i64>,
    hour: i64,
    minute: i64,
    second: i64,
    nanos: u32,
    afternoon: Option<bool>,
    utc: bool,
    offset: Option<i64>,
    zone_name: Option<String>,
}

/// Why a part was not read: it is not there, or is out of range.
enum Bad {
    Form,
    Range(&'static str),
}

/// Go's `time.Parse`, in UTC where the text names no zone. The error is Go's text.
pub(super) fn parse(layout: &str, text: &str) -> Result<Time, String> {
    let fail = |element: &str, at: &str, message: &str| {
        if message.is_empty() {
            let quoted = [text, layout, at, element].map(go::quote);
            let [text, layout, at, element] = quoted;
            return format!("parsing time {text} as {layout}: cannot parse {at} as {element}");
        }
        format!("parsing time {}{message}", go::quote(text))
    };
    let mut read = Read::default();
    let (mut layout_rest, mut rest) = (layout, text);
    loop {
        let (prefix, part, suffix) = next_part(layout_rest);
        rest = skip(rest, prefix).map_err(|at| fail(prefix, at, ""))?;
        let Some((part, spelled)) = part else {
            if rest.is_empty() {
                break;
            }
            return Err(fail("", rest, &format!(": extra text: {}", go::quote(rest))));
        };
        layout_rest = suffix;
        let at = rest;
        let fraction_follows = matches!(next_part(suffix).1, Some((Part::Fraction(_) | Part::ShortFraction(_), _)));
        read.part(part, &mut rest, fraction_follows).map_err(|bad| match bad {
            Bad::Form => fail(spelled, at, ""),
            Bad::Range(what) => fail(spelled, rest, &format!(": {what} out of range")),
        })?;
    }
    read.finish().map_err(|message| fail("", rest, message))
}

/// Takes the literal text of a layout off; a run of spaces stands for any number of them.
fn skip<'t>(mut text: &'t str, prefix: &str) -> Result<&'t str, &'t str> {
    let mut prefix = prefix;
    while let Some(c) = prefix.chars().next() {
        if c == ' ' {
            if !text.is_empty() && !text.starts_with(' ') {
                return Err(text);
            }
            prefix = prefix.trim_start_matches(' ');
            text = text.trim_start_matches(' ');
            continue;
        }
        text = text.strip_prefix(c).ok_or(text)?;
        prefix = prefix.get(c.len_utf8()..).unwrap_or("");
    }
    Ok(text)
}

/// One or two digits, or exactly as many as `max` if they are fixed.
fn digits(rest: &mut &str, max: usize, fixed: bool) -> Result<i64, Bad> {
    let count = rest.bytes().take(max).take_while(u8::is_ascii_digit).count();
    if count == 0 || (fixed && count < max) {
        return Err(Bad::Form);
    }
    let (number, tail) = rest.split_at_checked(count).ok_or(Bad::Form)?;
    *rest = tail;
    number.parse().map_err(|_| Bad::Form)
}

fn name(rest: &mut &str, names: &[&str], shortened: bool) -> Result<i64, Bad> {
    for (index, name) in (0..).zip(names) {
        let name = if shortened { short(name) } else { name };
        let Some((head, tail)) = rest.split_at_checked(name.len()) else { continue };
        if head.eq_ignore_ascii_case(name) {
            *rest = tail;
            return Ok(index);
        }
    }
    Err(Bad::Form)
}

fn within(value: i64, min: i64, max: i64, what: &'static str) -> Result<i64, Bad> {
    if min <= value && value <= max { Ok(value) } else { Err(Bad::Range(what)) }
}

impl Read {
    fn part(&mut self, part: Part, rest: &mut &str, fraction_follows: bool) -> Result<(), Bad> {
        match part {
            Part::Year => {
                let year = digits(rest, 2, true)?;
                self.year = if 69 <= year { 1900 + year } else { 2000 + year };
            }
            Part::LongYear => self.year = digits(rest, 4, true)?,
            Part::Month | Part::LongMonth => self.month = Some(1 + name(rest, &MONTHS, part == Part::Month)?),
            Part::NumMonth | Part::ZeroMonth => {
                self.month = Some(within(digits(rest, 2, part == Part::ZeroMonth)?, 1, 12, "month")?);
            }
            Part::Weekday | Part::LongWeekday => {
                name(rest, &WEEKDAYS, part == Part::Weekday)?;
            }
            Part::Day | Part::UnderDay | Part::ZeroDay => {
                if part == Part::UnderDay {
                    *rest = rest.strip_prefix(' ').unwrap_or(rest);
                }
                self.day = Some(digits(rest, 2, part == Part::ZeroDay)?);
            }
            Part::UnderYearDay | Part::ZeroYearDay => {
                if part == Part::UnderYearDay {
                    *rest = rest.trim_start_matches(' ');
                }
                self.year_day = Some(digits(rest, 3, part == Part::ZeroYearDay)?);
            }
            Part::Hour => self.hour = within(digits(rest, 2, false)?, 0, 23, "hour")?,
            Part::Hour12 | Part::ZeroHour12 => {
                self.hour = within(digits(rest, 2, part == Part::ZeroHour12)?, 0, 12, "hour")?;
            }
            Part::Minute | Part::ZeroMinute => {
                self.minute = within(digits(rest, 2, part == Part::ZeroMinute)?, 0, 59, "minute")?;
            }
            Part::Second | Part::ZeroSecond => {
                self.second = within(digits(rest, 2, part == Part::ZeroSecond)?, 0, 59, "second")?;
                // A fraction is taken even if the layout has none.
                if !fraction_follows {
                    self.optional_fraction(rest)?;
                }
            }
            Part::UpperPm | Part::LowerPm => {
                let (am, pm) = if part == Part::UpperPm { ("AM", "PM") } else { ("am", "pm") };
                let (head, tail) = rest.split_at_checked(2).ok_or(Bad::Form)?;
                if head != am && head != pm {
                    return Err(Bad::Form);
                }
                self.afternoon = Some(head == pm);
                *rest = tail;
            }
            Part::ZoneName => self.zone_name(rest)?,
            Part::Offset(form) => self.offset(form, rest)?,
            Part::Fraction(count) => {
                let tail = rest.strip_prefix(['.', ',']).ok_or(Bad::Form)?;
                let (number, tail) = tail.split_at_checked(count).ok_or(Bad::Form)?;
                if !number.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(Bad::Form);
                }
                self.fraction(number);
                *rest = tail;
            }
            Part::ShortFraction(_) => self.optional_fraction(rest)?,
        }
        Ok(())
    }

    fn fraction(&mut self, digits: &str) {
        let padded = format!("{digits:0<9}");
        self.nanos = padded.get(..9).and_then(|nanos| nanos.parse().ok()).unwrap_or(0);
    }

    fn optional_fraction(&mut self, rest: &mut &str) -> Result<(), Bad> {
        let Some(tail) = rest.strip_prefix(['.', ',']) else { return Ok(()) };
        let count = tail.bytes().take_while(u8::is_ascii_digit).count();
        if 0 < count {
            let (number, tail) = tail.split_at_checked(count).ok_or(Bad::Form)?;
            self.fraction(number);
            *rest = tail;
        }
        Ok(())
    }

    fn zone_name(&mut self, rest: &mut &str) -> Result<(), Bad> {
        if let Some(tail) = rest.strip_prefix("UTC") {
            self.utc = true;
            *rest = tail;
            return Ok(());
        }
        let len = rest.bytes().take(6).take_while(u8::is_ascii_uppercase).count();
        let (name, tail) = rest.split_at_checked(len).ok_or(Bad::Form)?;
        let known = match len {
            3 => true,
            4 => name.ends_with('T') || name == "WITA",
            5 => name.ends_with('T'),
            _ => false,
        };
        if !known {
            return Err(Bad::Form);
        }
        self.zone_name = Some(name.to_owned());
        *rest = tail;
        Ok(())
    }

    fn offset(&mut self, form: OffsetForm, rest: &mut &str) -> Result<(), Bad> {
        if let Some(tail) = rest.strip_prefix('Z').filter(|_| form.z) {
            self.utc = true;
            *rest = tail;
            return Ok(());
        }
        let sign = match rest.chars().next() {
            Some('+') => 1,
            Some('-') => -1,
            _ => return Err(Bad::Form),
        };
        *rest = rest.get(1..).ok_or(Bad::Form)?;
        let mut fields = [0_i64; 3];
        for (index, field) in fields.iter_mut().enumerate().take(form.fields) {
            if form.colons && 0 < index {
                *rest = rest.strip_prefix(':').ok_or(Bad::Form)?;
            }
            *field = digits(rest, 2, true)?;
        }
        let [hours, minutes, seconds] = fields;
        within(hours, 0, 24, "time zone offset hour")?;
        within(minutes, 0, 60, "time zone offset minute")?;
        within(seconds, 0, 60, "time zone offset second")?;
        self.offset = Some(sign * (hours * 3600 + minutes * 60 + seconds));
        Ok(())
    }

    fn finish(self) -> Result<Time, &'static str> {
        let hour = match self.afternoon {
            Some(true) if self.hour < 12 => self.hour + 12,
            Some(false) if self.hour == 12 => 0,
            _ => self.hour,
        };
        let (mut month, mut day) = (self.month.unwrap_or(1), self.day.unwrap_or(1));
        if let Some(year_day) = self.year_day {
            let first = days_from_civil(self.year, 1, 1);
            let (year, of_month, of_day) = civil_from_days(first + year_day - 1);
            if year_day < 1 || year != self.year {
                return Err(": day-of-year out of range");
            }
            if self.month.is_some_and(|month| month != of_month) {
                return Err(": day-of-year does not match month");
            }
            if self.day.is_some_and(|day| day != of_day) {
                return Err(": day-of-year does not match day");
            }
            (month, day) = (of_month, of_day);
        }
        let days = days_from_civil(self.year, month, day);
        if day < 1 || civil_from_days(days) != (self.year, month, day) {
            return Err(": day out of range");
        }
        let offset = if self.utc { 0 } else { self.offset.unwrap_or(0) };
        let zone = match (self.utc, self.offset, self.zone_name) {
            (true, ..) | (false, None | Some(0), None) => Zone::Utc,
            (false, Some(offset), name) => Zone::Fixed(offset, Arc::from(name.unwrap_or_default())),
            (false, None, Some(name)) => Zone::Fixed(0, Arc::from(name)),
        };
        let seconds = days * 86_400 + hour * 3600 + self.minute * 60 + self.second - offset;
        Ok(Time { seconds, nanos: self.nanos, zone })
    }
}
