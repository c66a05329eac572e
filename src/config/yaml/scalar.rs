//! Types of plain scalars, as Go's yaml.v2 resolves them: YAML 1.1 with its many booleans and number forms.

/// What a scalar stands for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scalar {
    Null,
    Bool(bool),
    Int(i64),
    /// Too large for `Int`.
    Uint(u64),
    Float(f64),
    Timestamp,
    Text,
    /// A text with a tag that means nothing here.
    Tagged,
}

impl Scalar {
    /// The tag in Go's error texts.
    pub(super) fn tag(&self) -> &'static str {
        match self {
            Self::Null => "!!null",
            Self::Bool(_) => "!!bool",
            Self::Int(_) | Self::Uint(_) => "!!int",
            Self::Float(_) => "!!float",
            Self::Timestamp => "!!timestamp",
            Self::Text | Self::Tagged => "!!str",
        }
    }
}

/// Resolves a plain scalar without a tag.
pub(super) fn resolve(text: &str) -> Scalar {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => return Scalar::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Scalar::Bool(false);
        }
        ".nan" | ".NaN" | ".NAN" => return Scalar::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Scalar::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Scalar::Float(f64::NEG_INFINITY),
        _ => {}
    }
    match text.bytes().next() {
        Some(b'0'..=b'9' | b'+' | b'-') => number(text),
        Some(b'.') if is_float(text) => text.parse().map_or(Scalar::Text, Scalar::Float),
        _ => Scalar::Text,
    }
}

fn number(text: &str) -> Scalar {
    if is_timestamp(text) {
        return Scalar::Timestamp;
    }
    let plain = text.replace('_', "");
    let (negative, digits) = match plain.strip_prefix(['+', '-']) {
        Some(digits) => (plain.starts_with('-'), digits),
        None => (false, plain.as_str()),
    };
    if let Some(value) = integer(digits) {
        if negative {
            if value <= 1 << 63 {
                return Scalar::Int(0i64.wrapping_sub_unsigned(value));
            }
        } else {
            return i64::try_from(value).map_or(Scalar::Uint(value), Scalar::Int);
        }
    }
    if is_float(&plain) { plain.parse().map_or(Scalar::Text, Scalar::Float) } else { Scalar::Text }
}

/// Go's `ParseUint(text, 0, 64)`: decimal, `0x`, `0o`, `0b`, and a leading zero for octal.
fn integer(digits: &str) -> Option<u64> {
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, lower.get(2..)?),
        [b'0', b'o', ..] => (8, lower.get(2..)?),
        [b'0', b'b', ..] => (2, lower.get(2..)?),
        [b'0', _, ..] => (8, lower.get(1..)?),
        _ => (10, lower.as_str()),
    };
    if digits.starts_with('+') {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(text: &str) -> bool {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    let whole = digits(rest);
    let rest = rest.get(whole..).unwrap_or("");
    let rest = match rest.strip_prefix('.') {
        Some(after) => {
            let fraction = digits(after);
            if whole == 0 && fraction == 0 {
                return false;
            }
            after.get(fraction..).unwrap_or("")
        }
        None if whole == 0 => return false,
        None => rest,
    };
    match rest.strip_prefix(['e', 'E']) {
        None => rest.is_empty(),
        Some(exponent) => {
            let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            !exponent.is_empty() && digits(exponent) == exponent.len()
        }
    }
}

/// True for `2006-1-2`, alone or followed by a time of day, as far as it matters here: such values are no texts with
/// regard to quoting and error messages.
fn is_timestamp(text: &str) -> bool {
    let (date, time) = match text.find(['T', 't', ' ']) {
        Some(at) => (text.get(..at).unwrap_or(""), text.get(at + 1..)),
        None => (text, None),
    };
    let mut parts = date.split('-');
    let field = |part: Option<&str>, longest: usize, max: u32| {
        part.is_some_and(|p| {
            !p.is_empty()
                && p.len() <= longest
                && p.bytes().all(|b| b.is_ascii_digit())
                && p.parse::<u32>().is_ok_and(|n| 1 <= n && n <= max)
        })
    };
    let year = parts.next().is_some_and(|y| y.len() == 4 && y.bytes().all(|b| b.is_ascii_digit()));
    let day = year && field(parts.next(), 2, 12) && field(parts.next(), 2, 31) && parts.next().is_none();
    day && time.is_none_or(|t| {
        let clock = t.bytes().filter(|b| *b == b':').count();
        2 <= clock && t.bytes().all(|b| b.is_ascii_digit() || b":.+-Zz".contains(&b))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolves_as_go_does() {
        let cases = [
            ("yes", Scalar::Bool(true)),
            ("Off", Scalar::Bool(false)),
            ("oFF", Scalar::Text),
            ("010", Scalar::Int(8)),
            ("0o10", Scalar::Int(8)),
            ("08", Scalar::Float(8.0)),
            ("1_000", Scalar::Int(1000)),
            ("0x1F", Scalar::Int(31)),
            ("-0b11", Scalar::Int(-3)),
            ("-9223372036854775808", Scalar::Int(i64::MIN)),
            ("18446744073709551615", Scalar::Uint(u64::MAX)),
            ("1.5e3", Scalar::Float(1500.0)),
            (".5", Scalar::Float(0.5)),
            ("1.", Scalar::Float(1.0)),
            ("1e", Scalar::Text),
            ("-", Scalar::Text),
            ("15s", Scalar::Text),
            ("2020-01-02", Scalar::Timestamp),
            ("2020-13-02", Scalar::Text),
            ("190:20:30", Scalar::Text),
            ("~", Scalar::Null),
            ("hello", Scalar::Text),
        ];
        for (text, expected) in cases {
            assert_eq!(resolve(text), expected, "{text}");
        }
    }
}
