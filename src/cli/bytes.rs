//! Sizes as flags write them (`512MB`, `1GiB`, `64B`): powers of 1024 either way, as in Prometheus's flags.

/// Why a text is no size. The texts are those that Prometheus's users see.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// No number where one should be.
    #[error("units: invalid {0}")]
    Invalid(String),
    /// A unit that does not exist, or none.
    #[error("units: unknown unit {unit} in {text}")]
    UnknownUnit {
        /// The unit.
        unit: String,
        /// The whole text.
        text: String,
    },
    /// More than fits, or less than nothing.
    #[error("units: overflow parsing unit")]
    Overflow,
}

const PREFIXES: [&str; 7] = ["", "K", "M", "G", "T", "P", "E"];

/// Parses a size in bytes. `0` needs no unit; everything else does.
pub fn parse(text: &str) -> Result<u64, SizeError> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(SizeError::Invalid(text.to_owned()));
    }
    let mut total = 0.0_f64;
    while !rest.is_empty() {
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let number_len = rest.find(|c: char| !is_number(c)).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(number_len);
        let number: f64 = number.parse().map_err(|_| SizeError::Invalid(text.to_owned()))?;
        let unit_len = tail.find(is_number).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let scale =
            scale(unit).ok_or_else(|| SizeError::UnknownUnit { unit: unit.to_owned(), text: text.to_owned() })?;
        total += number * scale;
        rest = tail;
    }
    if total < i64::MAX as f64 { Ok(total as u64) } else { Err(SizeError::Overflow) }
}

/// Prints a size as Prometheus does: `0B`, `1KiB512B`, `64MiB`.
pub fn format(bytes: u64) -> String {
    if bytes == 0 {
        return "0B".to_owned();
    }
    let mut parts = Vec::new();
    let mut rest = bytes;
    for prefix in PREFIXES {
        let digit = rest % 1024;
        if digit != 0 {
            parts.push(format!("{digit}{prefix}{}", if prefix.is_empty() { "B" } else { "iB" }));
        }
        rest /= 1024;
    }
    parts.reverse();
    parts.concat()
}

fn scale(unit: &str) -> Option<f64> {
    let prefix = unit.strip_suffix("iB").filter(|prefix| !prefix.is_empty()).or_else(|| unit.strip_suffix('B'))?;
    let power = PREFIXES.iter().position(|known| *known == prefix)?;
    Some(1024_f64.powi(i32::try_from(power).ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parses_and_prints_as_prometheus() {
        for (text, bytes, printed) in [
            ("0", 0, "0B"),
            ("512MB", 512 << 20, "512MiB"),
            ("1KiB512B", 1536, "1KiB512B"),
            ("1.5KB", 1536, "1KiB512B"),
            ("1EB", 1 << 60, "1EiB"),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
            assert_eq!(format(bytes), printed);
        }
    }

    #[test]
    fn refuses_with_prometheus_texts() {
        assert_eq!(parse("5").unwrap_err().to_string(), "units: unknown unit  in 5");
        assert_eq!(parse("5kB").unwrap_err().to_string(), "units: unknown unit kB in 5kB");
        assert_eq!(parse("").unwrap_err().to_string(), "units: invalid ");
        assert_eq!(parse("-1B").unwrap_err().to_string(), "units: invalid -1B");
        assert_eq!(parse("9EB"), Err(SizeError::Overflow));
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_back(bytes in 0_u64..(1 << 53)) {
            prop_assert_eq!(parse(&format(bytes)), Ok(bytes));
        }
        #[test]
        fn any_text_is_fine(text in ".{0,20}") {
            let _ = parse(&text);
        }
    }
}
