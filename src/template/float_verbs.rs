//! Floats by verb and precision, as Go's `strconv.FormatFloat`.

use crate::model::go;

/// Beyond this many digits a float has nothing but zeros.
const DIGITS_MAX: usize = 1100;

/// The text of a float that is not negative. `form` is a verb; without `precision`, as many digits as it takes.
pub(super) fn text(number: f64, form: char, precision: Option<usize>) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return "Inf".to_owned();
    }
    match (form, precision) {
        ('f', Some(precision)) => {
            let kept = precision.min(DIGITS_MAX);
            format!("{number:.kept$}{}", "0".repeat(precision - kept))
        }
        ('e', Some(precision)) => exponent_form(number, precision),
        ('E', Some(precision)) => exponent_form(number, precision).to_uppercase(),
        ('g', None) => go::format_float_g(number),
        ('G', None) => go::format_float_g(number).to_uppercase(),
        ('g', Some(precision)) => go::format_float_g_digits(number, precision.min(DIGITS_MAX)),
        ('G', Some(precision)) => go::format_float_g_digits(number, precision.min(DIGITS_MAX)).to_uppercase(),
        ('x', _) => hexadecimal(number, precision),
        ('X', _) => hexadecimal(number, precision).to_uppercase(),
        _ => binary(number),
    }
}

fn exponent_form(number: f64, precision: usize) -> String {
    let kept = precision.min(DIGITS_MAX);
    let text = format!("{number:.kept$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    format!("{mantissa}{}e{sign}{digits:0>2}", "0".repeat(precision - kept))
}

/// The digits of the mantissa and the exponent of two.
fn parts(number: f64) -> (u64, i32) {
    const FRACTION_BITS: u32 = 52;
    let bits = number.to_bits();
    let fraction = bits & ((1 << FRACTION_BITS) - 1);
    let exponent = i32::try_from(bits >> FRACTION_BITS & 0x7ff).unwrap_or(0);
    if exponent == 0 { (fraction, -1074) } else { (fraction | 1 << FRACTION_BITS, exponent - 1075) }
}

fn binary(number: f64) -> String {
    let (mantissa, exponent) = parts(number);
    format!("{mantissa}p{exponent:+}")
}

fn hexadecimal(number: f64, precision: Option<usize>) -> String {
    let (mut mantissa, mut exponent) = parts(number);
    if mantissa == 0 {
        let zeros = precision.filter(|p| 0 < *p).map_or(String::new(), |p| format!(".{}", "0".repeat(p)));
        return format!("0x0{zeros}p+00");
    }
    // One bit before the point, 52 behind it.
    while mantissa >> 52 == 0 {
        mantissa <<= 1;
        exponent -= 1;
    }
    if let Some(digits) = precision.filter(|digits| *digits < 13) {
        let dropped = u32::try_from(4 * (13 - digits)).unwrap_or(0);
        let half = 1_u64 << (dropped - 1);
        let rest = mantissa & ((1 << dropped) - 1);
        mantissa >>= dropped;
        if half < rest || (rest == half && mantissa & 1 == 1) {
            mantissa += 1;
        }
        mantissa <<= dropped;
        if mantissa >> 53 != 0 {
            mantissa >>= 1;
            exponent += 1;
        }
    }
    let fraction = format!("{:013x}", mantissa & ((1 << 52) - 1));
    let fraction = match precision {
        None => fraction.trim_end_matches('0').to_owned(),
        Some(digits) if digits <= 13 => fraction.get(..digits).unwrap_or("").to_owned(),
        Some(digits) => format!("{fraction}{}", "0".repeat(digits - 13)),
    };
    let point = if fraction.is_empty() { "" } else { "." };
    let exponent = exponent + 52;
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("0x1{point}{fraction}p{sign}{:02}", exponent.unsigned_abs())
}

/// The text with a decimal point and the zeros that it would lose, as the flag `#` asks for.
pub(super) fn with_point(text: &str, form: char, precision: Option<usize>) -> String {
    let mut missing = match form {
        'g' | 'G' | 'x' => precision.unwrap_or(6),
        _ => 0,
    };
    let split = match form {
        'x' | 'X' => text.find(['p', 'P']),
        _ => text.find(['e', 'E']),
    };
    let (number, tail) = text.split_at(split.unwrap_or(text.len()));
    let significant = number.chars().filter(|c| *c != '.').skip_while(|c| *c == '0').count();
    missing = missing.saturating_sub(significant);
    let mut out = number.to_owned();
    if !number.contains('.') {
        if number == "0" {
            missing = missing.saturating_sub(1);
        }
        out.push('.');
    }
    out.push_str(&"0".repeat(missing));
    out.push_str(tail);
    out
}
