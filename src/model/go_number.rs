//! Numbers as Go's `strconv` reads them, with its error texts, which clients and users see.

use std::borrow::Cow;

use crate::model::go;

/// Why a text is not a number. Prints as Go's `*strconv.NumError`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("strconv.{function}: parsing {}: {}", go::quote(.text), .reason.text())]
pub struct NumberError {
    function: &'static str,
    text: String,
    reason: Reason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Syntax,
    Range,
}

impl Reason {
    fn text(self) -> &'static str {
        match self {
            Self::Syntax => "invalid syntax",
            Self::Range => "value out of range",
        }
    }
}

/// `strconv.ParseFloat(text, 64)` for decimal numbers, `inf` and `nan`. Hexadecimal floats are refused.
pub fn parse_float(text: &str) -> Result<f64, NumberError> {
    let fail = |reason| NumberError { function: "ParseFloat", text: text.to_owned(), reason };
    let unsigned = text.trim_start_matches(['+', '-']);
    if unsigned.eq_ignore_ascii_case("nan") && unsigned.len() < text.len() {
        return Err(fail(Reason::Syntax));
    }
    let bare = match text.contains('_') {
        true if are_between_digits(unsigned) => Cow::Owned(text.replace('_', "")),
        true => return Err(fail(Reason::Syntax)),
        false => Cow::Borrowed(text),
    };
    let value: f64 = bare.parse().map_err(|_| fail(Reason::Syntax))?;
    // Go tells an overflow from a written infinity.
    if value.is_infinite() && unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Err(fail(Reason::Range));
    }
    Ok(value)
}

/// Whether each underscore stands between two digits.
fn are_between_digits(text: &str) -> bool {
    let parts: Vec<&str> = text.split('_').collect();
    let is_digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
    parts.windows(2).all(|pair| match pair {
        [before, after] => is_digit(before.chars().next_back()) && is_digit(after.chars().next()),
        _ => true,
    })
}

/// `strconv.Atoi(text)`.
pub fn atoi(text: &str) -> Result<i64, NumberError> {
    signed("Atoi", text, i64::MIN, i64::MAX)
}

/// `strconv.ParseInt(text, 10, 32)`.
pub fn parse_int_32(text: &str) -> Result<i64, NumberError> {
    signed("ParseInt", text, i64::from(i32::MIN), i64::from(i32::MAX))
}

/// `strconv.ParseBool(text)`.
pub fn parse_bool(text: &str) -> Result<bool, NumberError> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(NumberError { function: "ParseBool", text: text.to_owned(), reason: Reason::Syntax }),
    }
}

fn signed(function: &'static str, text: &str, min: i64, max: i64) -> Result<i64, NumberError> {
    let fail = |reason| NumberError { function, text: text.to_owned(), reason };
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(fail(Reason::Syntax));
    }
    let value: i64 = text.parse().map_err(|_| fail(Reason::Range))?;
    if min <= value && value <= max { Ok(value) } else { Err(fail(Reason::Range)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn underscores_stand_between_digits() {
        for (text, expected) in [
            ("1_000", Some(1_000.0)),
            ("-1_0.2_5e1_0", Some(-10.25e10)),
            ("0_1", Some(1.0)),
            ("_1", None),
            ("1_", None),
            ("1__0", None),
            ("1_.5", None),
            ("1e_5", None),
            ("in_f", None),
            ("+_1", None),
        ] {
            assert_eq!(parse_float(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn error_texts_are_those_of_go() {
        let text = |error: NumberError| error.to_string();
        assert_eq!(text(atoi("x").unwrap_err()), "strconv.Atoi: parsing \"x\": invalid syntax");
        assert_eq!(text(atoi("").unwrap_err()), "strconv.Atoi: parsing \"\": invalid syntax");
        let huge = "99999999999999999999";
        assert_eq!(text(atoi(huge).unwrap_err()), format!("strconv.Atoi: parsing \"{huge}\": value out of range"));
        assert_eq!(text(parse_int_32("2147483648").unwrap_err()).split(": ").last(), Some("value out of range"));
        assert_eq!(text(parse_float("1e999").unwrap_err()).split(": ").last(), Some("value out of range"));
        assert_eq!(text(parse_bool("yes").unwrap_err()), "strconv.ParseBool: parsing \"yes\": invalid syntax");
    }

    #[test]
    fn reads_what_go_reads() {
        assert_eq!(parse_float("5e7"), Ok(5e7));
        assert_eq!(parse_float("+.5"), Ok(0.5));
        assert_eq!(parse_float("-Inf"), Ok(f64::NEG_INFINITY));
        assert!(parse_float("nan").unwrap().is_nan());
        for bad in ["", " 1", "0x10", "1__000", "-nan", "1e", "1d"] {
            assert!(parse_float(bad).is_err(), "{bad}");
        }
        assert_eq!((atoi("+7"), atoi("-7")), (Ok(7), Ok(-7)));
    }
}
