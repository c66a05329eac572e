//! Sizes in bytes with units (`15MB`, `1GiB512MiB`), all in powers of two, as `units.Base2Bytes` reads and prints them.

use std::fmt;

use super::yaml::{Abort, Decoded, Decoder, Node, Out, Yaml, text_of};

/// A number of bytes; negative values are possible and refused where they make no sense.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(i64);

const PREFIXES: [&str; 7] = ["", "K", "M", "G", "T", "P", "E"];

impl ByteSize {
    /// A size of so many bytes.
    pub const fn new(bytes: i64) -> Self {
        Self(bytes)
    }

    /// The number of bytes.
    pub const fn bytes(self) -> i64 {
        self.0
    }

    /// Parses `15MB`, `1.5GiB`, `0`. The texts of errors are those of Prometheus.
    pub fn parse(text: &str) -> Result<Self, String> {
        // Either all units are written with an i or none is.
        parse_units(text, "iB").or_else(|_| parse_units(text, "B")).map(Self)
    }
}

fn parse_units(text: &str, suffix: &str) -> Result<i64, String> {
    let invalid = || format!("units: invalid {text}");
    let (mut rest, negative) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (rest, text.starts_with('-')),
        None => (text, false),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let number = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let (number, tail) = rest.split_at_checked(number).ok_or_else(invalid)?;
        let unit = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(unit).ok_or_else(invalid)?;
        let digits = number.split('.').all(|part| part.len() <= 18);
        if !digits || number.matches('.').count() > 1 || !number.bytes().any(|b| b.is_ascii_digit()) {
            return Err(invalid());
        }
        let number: f64 = number.parse().map_err(|_| invalid())?;
        let power = match unit {
            "B" => 0,
            _ => PREFIXES
                .iter()
                .skip(1)
                .position(|prefix| unit.strip_prefix(prefix) == Some(suffix))
                .map(|at| at + 1)
                .ok_or_else(|| format!("units: unknown unit {unit} in {text}"))?,
        };
        total += number * 1024f64.powi(i32::try_from(power).unwrap_or(0));
        rest = tail;
    }
    if negative {
        total = -total;
    }
    if total < i64::MIN as f64 || i64::MAX as f64 <= total {
        return Err("units: overflow parsing unit".to_owned());
    }
    Ok(total as i64)
}

/// Prints each power of 1024 that takes part: `1GiB512MiB`, `0B`.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        let mut parts: Vec<String> = Vec::new();
        for (power, prefix) in PREFIXES.iter().enumerate() {
            if rest % 1024 != 0 || power == 0 && rest == 0 {
                let suffix = if power == 0 { "B" } else { "iB" };
                parts.push(format!("{}{prefix}{suffix}", rest % 1024));
            }
            rest /= 1024;
            if rest == 0 {
                break;
            }
        }
        parts.iter().rev().try_for_each(|part| f.write_str(part))
    }
}

impl Yaml for ByteSize {
    fn go_type() -> String {
        "units.Base2Bytes".to_owned()
    }
    fn decode(&mut self, node: &Node, decoder: &mut Decoder) -> Decoded {
        let Some(text) = text_of(node, decoder, "units.Base2Bytes")? else { return Ok(false) };
        *self = Self::parse(text).map_err(|message| Abort::at(node, message))?;
        Ok(true)
    }
    fn encode(&self) -> Out {
        Out::Text(self.to_string())
    }
    fn is_zero(&self) -> bool {
        self.0 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints_like_prometheus() {
        let check = |text: &str, bytes: i64, printed: &str| {
            let size = ByteSize::parse(text).unwrap();
            assert_eq!((size.bytes(), size.to_string().as_str()), (bytes, printed), "{text}");
        };
        check("15MB", 15 << 20, "15MiB");
        check("1.5GiB", 3 << 29, "1GiB512MiB");
        check("1MiB5B", (1 << 20) + 5, "1MiB5B");
        check("0", 0, "0B");
        check("-1KB", -1024, "-1KiB");
        for (bad, message) in [
            ("", "units: invalid "),
            ("10", "units: unknown unit  in 10"),
            ("3XB", "units: unknown unit XB in 3XB"),
            ("1kB", "units: unknown unit kB in 1kB"),
            ("B", "units: invalid B"),
            ("9EB", "units: overflow parsing unit"),
        ] {
            assert_eq!(ByteSize::parse(bad).unwrap_err(), message, "{bad}");
        }
    }
}
