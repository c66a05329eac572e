//! Text forms of Go's standard library that Prometheus's users see: floats as `strconv.FormatFloat` prints them and
//! strings as `strconv.Quote` does.

use std::fmt::Write as _;

/// `strconv.FormatFloat(v, 'f', -1, 64)`: shortest decimal without exponent; `NaN`, `+Inf`, `-Inf`.
pub fn format_float_f(v: f64) -> String {
    if let Some(special) = special(v) {
        return special.to_owned();
    }
    let mut text = format!("{v}");
    round_to_even(v, &mut text);
    text
}

/// `strconv.FormatFloat(v, 'e', -1, 64)`: shortest decimal with at least two exponent digits, as `1e+06`.
pub fn format_float_e(v: f64) -> String {
    if let Some(special) = special(v) {
        return special.to_owned();
    }
    let text = format!("{v:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let mut mantissa = mantissa.to_owned();
    round_to_even(v, &mut mantissa);
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |d| ('-', d));
    format!("{mantissa}e{sign}{digits:0>2}")
}

/// `strconv.FormatFloat(v, 'g', -1, 64)`, which is also `%v` and `%g`: exponent form below 1e-4 and from 1e6 on.
pub fn format_float_g(v: f64) -> String {
    let magnitude = v.abs();
    if magnitude != 0.0 && (magnitude < 1e-4 || magnitude >= 1e6) { format_float_e(v) } else { format_float_f(v) }
}

/// `%.<digits>g`: at most `digits` significant digits (at least one), trailing zeros cut.
pub fn format_float_g_digits(v: f64, digits: usize) -> String {
    if let Some(special) = special(v) {
        return special.to_owned();
    }
    let digits = digits.max(1);
    // Rounding may carry into the next power of ten, so the exponent is that of the rounded number.
    let rounded = format!("{v:.*e}", digits - 1);
    let (mantissa, exponent) = rounded.split_once('e').unwrap_or((&rounded, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trimmed = if mantissa.contains('.') { mantissa.trim_end_matches('0').trim_end_matches('.') } else { mantissa };
    let digits = i32::try_from(digits).unwrap_or(i32::MAX);
    if exponent < -4 || exponent >= digits {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{trimmed}e{sign}{:02}", exponent.unsigned_abs());
    }
    let decimals = usize::try_from(digits - 1 - exponent).unwrap_or(0);
    let fixed = format!("{v:.decimals$}");
    if fixed.contains('.') { fixed.trim_end_matches('0').trim_end_matches('.').to_owned() } else { fixed }
}

/// Sample values in JSON answers: exponent form below 1e-6 and from 1e21 on (Prometheus `util/jsonutil`).
pub fn format_float_json(v: f64) -> String {
    let magnitude = v.abs();
    if magnitude != 0.0 && (magnitude < 1e-6 || magnitude >= 1e21) { format_float_e(v) } else { format_float_f(v) }
}

/// Number of all decimal digits of a finite float if they are few and end with a 5 behind the point: its shortest form, if
/// that has one digit less, lies halfway between two. Go takes the even one, the formatter of Rust the larger one.
pub fn halfway_digits(v: f64) -> Option<usize> {
    /// From here on 5 to this power alone has more digits than matter.
    const POWER_MAX: u32 = 25;
    let bits = v.to_bits();
    let biased = u32::try_from(bits >> 52 & 0x7ff).unwrap_or(0);
    if biased == 0 {
        // Zero, or far too small.
        return None;
    }
    let mantissa = bits & ((1 << 52) - 1) | 1 << 52;
    let zeros = mantissa.trailing_zeros();
    // v is an odd number divided by 2 to this power, and so has as many decimals, of which the last one is a 5.
    let power = 1075u32.checked_sub(biased)?.checked_sub(zeros).filter(|power| (1..=POWER_MAX).contains(power))?;
    let digits = u128::from(mantissa >> zeros) * 5u128.pow(power);
    // Below a power of two floats lie closer: the smaller form may belong to another one there.
    if zeros == 52 && digits < 5 << 54 {
        return None;
    }
    let count = digits.checked_ilog10().map_or(0, |log| log as usize + 1);
    (17..=18).contains(&count).then_some(count)
}

/// Corrects the last digit of the shortest form where it lies halfway between two.
fn round_to_even(v: f64, text: &mut String) {
    let Some(count) = halfway_digits(v) else { return };
    let shown = text.trim_start_matches(['-', '0', '.']).bytes().filter(u8::is_ascii_digit).count();
    if shown + 1 != count {
        return;
    }
    if let Some(last @ b'0'..=b'9') = text.bytes().last().filter(|last| last % 2 == 1) {
        text.pop();
        text.push(char::from(last - 1));
    }
}

fn special(v: f64) -> Option<&'static str> {
    if v.is_nan() {
        Some("NaN")
    } else if v == f64::INFINITY {
        Some("+Inf")
    } else if v == f64::NEG_INFINITY {
        Some("-Inf")
    } else {
        None
    }
}

/// `strconv.Quote(text)`: double quotes, Go's escapes, printable runes kept.
pub fn quote(text: &str) -> String {
    quote_bytes(text.as_bytes())
}

/// `strconv.Quote` of a Go string that may hold invalid UTF-8, whose bytes print as `\xNN`.
pub fn quote_bytes(raw: &[u8]) -> String {
    let mut out = String::with_capacity(raw.len() + 2);
    out.push('"');
    for chunk in raw.utf8_chunks() {
        for c in chunk.valid().chars() {
            push_escaped(&mut out, c, '"');
        }
        for b in chunk.invalid() {
            let _ = write!(out, "\\x{b:02x}");
        }
    }
    out.push('"');
    out
}

/// `strconv.QuoteRune(c)`, as `%q` prints a rune: `'a'`, `'\n'`, `'\u200b'`.
pub fn quote_rune(c: char) -> String {
    let mut out = String::from("'");
    push_escaped(&mut out, c, '\'');
    out.push('\'');
    out
}

/// `%#U` of a rune: `U+0041 'A'`, without the character if it is not printable.
pub fn unicode_point(c: char) -> String {
    let point = format!("U+{:04X}", u32::from(c));
    let printable = c == ' ' || (c.is_ascii() && c.is_ascii_graphic()) || (!c.is_ascii() && is_print(c));
    if printable { format!("{point} '{c}'") } else { point }
}

fn push_escaped(out: &mut String, c: char, quote: char) {
    match c {
        _ if c == quote => {
            out.push('\\');
            out.push(quote);
        }
        '\\' => out.push_str("\\\\"),
        '\x07' => out.push_str("\\a"),
        '\x08' => out.push_str("\\b"),
        '\x0c' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\x0b' => out.push_str("\\v"),
        ' '..='~' => out.push(c),
        _ if u32::from(c) < 0x80 => {
            let _ = write!(out, "\\x{:02x}", u32::from(c));
        }
        _ if is_print(c) => out.push(c),
        _ if u32::from(c) < 0x10000 => {
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        }
        _ => {
            let _ = write!(out, "\\U{:08x}", u32::from(c));
        }
    }
}

/// Close to Go's `unicode.IsPrint` for runes above ASCII: `char::escape_debug` escapes the same classes (controls,
/// separators, unassigned), and grapheme extenders only at the start of a string, which is undone here.
fn is_print(c: char) -> bool {
    let mut escaped = c.escape_debug();
    let kept = escaped.next() == Some(c) && escaped.next().is_none();
    kept || ('\u{300}'..='\u{36f}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halfway_between_two_shortest_forms_the_even_one_is_taken() {
        let cases = [
            ("1542064908020821.25", "1542064908020821.2"),
            ("1542064908020821.75", "1542064908020821.8"),
            ("-845769853939720.25", "-845769853939720.2"),
            ("0.00000154972076416015625", "0.0000015497207641601562"),
            ("0.125", "0.125"),
        ];
        for (exact, shortest) in cases {
            assert_eq!(format_float_f(exact.parse().unwrap()), shortest);
        }
        let small = 2f64.powi(-25);
        assert_eq!(
            [format_float_e(small), format_float_json(small)],
            ["2.9802322387695312e-08", "2.9802322387695312e-08"]
        );
    }

    #[test]
    fn floats_print_as_in_go() {
        assert_eq!(format_float_f(1e21), "1000000000000000000000");
        assert_eq!(format_float_g(1e21), "1e+21");
        assert_eq!(format_float_g(100_000.0), "100000");
        assert_eq!(format_float_g(1_000_000.0), "1e+06");
        assert_eq!(format_float_g(123_456_789.0), "1.23456789e+08");
        assert_eq!(format_float_g(0.0001), "0.0001");
        for (value, text) in [
            (0.5, "0.5"),
            (12.0, "12"),
            (123.0, "1.2e+02"),
            (0.0000123, "1.2e-05"),
            (0.0001, "0.0001"),
            (99.9, "1e+02"),
        ] {
            assert_eq!(format_float_g_digits(value, 2), text);
        }
        assert_eq!(format_float_g(0.00001), "1e-05");
        assert_eq!(format_float_json(1e-7), "1e-07");
        assert_eq!(format_float_json(0.00001), "0.00001");
        assert_eq!(format_float_f(-0.0), "-0");
        assert_eq!(format_float_f(f64::INFINITY), "+Inf");
        assert_eq!(format_float_e(1.0), "1e+00");
    }

    #[test]
    fn quotes_as_in_go() {
        assert_eq!(quote("a\"b\n\u{1}é\u{200b}"), "\"a\\\"b\\n\\x01é\\u200b\"");
        assert_eq!(quote_bytes(b"\xffa"), "\"\\xffa\"");
        assert_eq!(quote_rune('\''), "'\\''");
        assert_eq!((unicode_point('x'), unicode_point('\n')), ("U+0078 'x'".to_owned(), "U+000A".to_owned()));
    }
}
