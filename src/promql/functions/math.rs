//! Functions of one float.

use crate::model::{go_math, go_trig};

/// The function with this name.
pub(crate) fn float_function(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name {
        "abs" => f64::abs,
        "acos" => go_trig::acos,
        "acosh" => go_trig::acosh,
        "asin" => go_trig::asin,
        "asinh" => go_trig::asinh,
        "atan" => go_math::atan,
        "atanh" => go_trig::atanh,
        "ceil" => f64::ceil,
        "cos" => go_trig::cos,
        "cosh" => go_trig::cosh,
        "deg" => |v| v * 180.0 / std::f64::consts::PI,
        "exp" => go_math::exp,
        "floor" => f64::floor,
        "ln" => go_math::ln,
        "log10" => go_math::log10,
        "log2" => go_math::log2,
        "rad" => |v| v * std::f64::consts::PI / 180.0,
        "sgn" => sign,
        "sin" => go_trig::sin,
        "sinh" => go_trig::sinh,
        "sqrt" => f64::sqrt,
        "tan" => go_trig::tan,
        "tanh" => go_trig::tanh,
        _ => return None,
    })
}

/// -1, 1, or the value itself for zeros and NaN.
fn sign(v: f64) -> f64 {
    if v < 0.0 {
        -1.0
    } else if v > 0.0 {
        1.0
    } else {
        v
    }
}

/// Rounds to the nearest multiple, halves upwards. Multiplying by the inverse gives the digits that users expect.
pub(crate) fn round(v: f64, to_inverse: f64) -> f64 {
    (v * to_inverse + 0.5).floor() / to_inverse
}

/// `math.Max`: NaN if either is, positive zero above negative zero.
pub(crate) fn go_max(a: f64, b: f64) -> f64 {
    if a == f64::INFINITY || b == f64::INFINITY {
        f64::INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a == 0.0 && b == 0.0 {
        if a.is_sign_negative() { b } else { a }
    } else {
        a.max(b)
    }
}

/// `math.Min`: NaN if either is, negative zero below positive zero.
pub(crate) fn go_min(a: f64, b: f64) -> f64 {
    if a == f64::NEG_INFINITY || b == f64::NEG_INFINITY {
        f64::NEG_INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a == 0.0 && b == 0.0 {
        if a.is_sign_negative() { a } else { b }
    } else {
        a.min(b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extremes_as_in_go() {
        assert!(go_max(f64::NAN, 1.0).is_nan() && go_min(1.0, f64::NAN).is_nan());
        assert_eq!(go_max(f64::NAN, f64::INFINITY), f64::INFINITY);
        assert_eq!(go_min(f64::NEG_INFINITY, f64::NAN), f64::NEG_INFINITY);
        assert!(go_max(-0.0, 0.0).is_sign_positive() && go_min(0.0, -0.0).is_sign_negative());
    }

    #[test]
    fn rounds_halves_up() {
        assert_eq!((round(2.5, 1.0), round(-2.5, 1.0), round(-3.64, 1.0 / 0.1)), (3.0, -2.0, -3.6));
    }

    #[test]
    fn sign_keeps_zeros_and_nan() {
        assert_eq!((sign(-3.0), sign(2.0)), (-1.0, 1.0));
        assert!(sign(-0.0).is_sign_negative() && sign(f64::NAN).is_nan());
    }

    #[test]
    fn asinh_of_large_negative_numbers() {
        assert!((float_function("asinh").unwrap()(-1e18) + 42.139_678_854_452_77).abs() < 1e-9);
    }
}
