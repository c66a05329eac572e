//! Trigonometric and hyperbolic functions with the bits of Go's standard library, as [`crate::model::go_math`] has them for
//! logarithms and powers. The algorithms are those of Cephes and fdlibm, with their coefficients.

use std::f64::consts::{FRAC_PI_2, FRAC_PI_4, LN_2};

use crate::model::go_math::{atan, exp, ln};

/// The sum of a polynomial at `v`, highest power first.
fn polynomial<const N: usize>(coefficients: [f64; N], v: f64) -> f64 {
    let mut rest = coefficients.into_iter();
    let first = rest.next().unwrap_or(0.0);
    rest.fold(first, |sum, coefficient| sum * v + coefficient)
}

/// The eighth of a full turn in which an angle from 0 on lies, counted so that it is even, and the distance to its middle.
fn octant(angle: f64) -> (u64, f64) {
    /// From here on the angle is reduced with all the digits that it takes.
    const LARGE: f64 = 536_870_912.0;
    /// An eighth of a turn in three parts, of which the first two have zeros at their ends.
    const PARTS: [f64; 3] = [0.785_398_125_648_498_5, 3.774_894_707_930_798e-8, 2.695_151_429_079_059_5e-15];
    if angle >= LARGE {
        return large_octant(angle);
    }
    // In range: the angle is bounded.
    let mut number = (angle * (4.0 / std::f64::consts::PI)) as u64;
    number += number & 1;
    let count = number as f64;
    let [high, middle, low] = PARTS;
    (number & 7, ((angle - count * high) - count * middle) - count * low)
}

/// [`octant`] for large angles, by the method of Payne and Hanek: of 4/π only the digits are multiplied that matter.
fn large_octant(angle: f64) -> (u64, f64) {
    /// The binary digits of 4/π.
    const FOUR_BY_PI: [u64; 20] = [
        0x0000_0000_0000_0001,
        0x45f3_06dc_9c88_2a53,
        0xf84e_afa3_ea69_bb81,
        0xb6c5_2b32_7887_2083,
        0xfca2_c757_bd77_8ac3,
        0x6e48_dc74_849b_a5c0,
        0x0c92_5dd4_13a3_2439,
        0xfc3b_d639_6253_4e7d,
        0xd104_6bea_5d76_8909,
        0xd338_e04d_68be_fc82,
        0x7323_ac73_06a6_73e9,
        0x3908_bf17_7bf2_5076,
        0x3ff1_2fff_bc0b_301f,
        0xde5e_2316_b414_da3e,
        0xda6c_fd9e_4f96_136e,
        0x9e8c_7ecd_3cbf_d45a,
        0xea4f_758f_d7cb_e2f6,
        0x7a0e_73ef_14a5_25d4,
        0xd7f6_bf62_3f1a_ba10,
        0xac06_608d_f8f6_d757,
    ];
    let bits = angle.to_bits();
    let mantissa = bits & ((1 << 52) - 1) | 1 << 52;
    // The exponent of the mantissa as a whole number, moved so that the product's leading digit falls in place.
    let shift = (bits >> 52 & 0x7ff) + 61 - 1075;
    let (digit, bit) = ((shift / 64) as usize, shift % 64);
    let at = |place: usize| u128::from(FOUR_BY_PI.get(digit + place).copied().unwrap_or(0));
    let part = |place: usize| ((at(place) << 64 | at(place + 1)) << bit >> 64) as u64;
    let product = |place: usize| u128::from(part(place)) * u128::from(mantissa);
    let sum = (product(0) << 64).wrapping_add(product(1)).wrapping_add(product(2) >> 64);
    let mut number = (sum >> 125) as u64;
    // What follows the point, as a float that is cut, not rounded.
    let fraction = sum << 3;
    let zeros = (fraction >> 64) as u64;
    let zeros = zeros.leading_zeros();
    let cut = (fraction.checked_shl(zeros + 1).unwrap_or(0) >> 76) as u64;
    let mut fraction = f64::from_bits(cut | u64::from(1022 - zeros) << 52);
    if number & 1 == 1 {
        number = (number + 1) & 7;
        fraction -= 1.0;
    }
    (number, fraction * FRAC_PI_4)
}

/// The sine of a small angle whose square is given as well.
fn small_sine(angle: f64, square: f64) -> f64 {
    const SERIES: [f64; 6] = [
        1.589_623_015_765_465_6e-10,
        -2.505_074_776_285_780_7e-8,
        2.755_731_362_138_572_2e-6,
        -0.000_198_412_698_295_895_4,
        0.008_333_333_333_322_118,
        -0.166_666_666_666_666_3,
    ];
    angle + angle * square * polynomial(SERIES, square)
}

/// The cosine of a small angle with this square.
fn small_cosine(square: f64) -> f64 {
    const SERIES: [f64; 6] = [
        -1.135_853_652_138_768_2e-11,
        2.087_570_084_197_473e-9,
        -2.755_731_417_929_674e-7,
        2.480_158_728_885_170_4e-5,
        -0.001_388_888_888_887_305_6,
        0.041_666_666_666_666_595,
    ];
    1.0 - 0.5 * square + square * square * polynomial(SERIES, square)
}

/// The number without its sign, but for that of zero, which goes on to the result.
fn magnitude(v: f64) -> f64 {
    if v < 0.0 { -v } else { v }
}

/// `math.Sin`
pub fn sin(v: f64) -> f64 {
    if v == 0.0 || v.is_nan() {
        return v;
    }
    if v.is_infinite() {
        return f64::NAN;
    }
    let (number, rest) = octant(v.abs());
    let square = rest * rest;
    let sine = if number & 2 == 2 { small_cosine(square) } else { small_sine(rest, square) };
    if (number > 3) != (v < 0.0) { -sine } else { sine }
}

/// `math.Cos`
pub fn cos(v: f64) -> f64 {
    if !v.is_finite() {
        return f64::NAN;
    }
    let (number, rest) = octant(v.abs());
    let square = rest * rest;
    let cosine = if number & 2 == 2 { small_sine(rest, square) } else { small_cosine(square) };
    if (number > 3) != (number & 3 > 1) { -cosine } else { cosine }
}

/// `math.Tan`
pub fn tan(v: f64) -> f64 {
    const P: [f64; 3] = [-13_093.693_918_138_379, 1_153_516.648_385_874_2, -17_956_525.197_648_488];
    const Q: [f64; 5] =
        [1.0, 13_681.296_347_069_296, -1_320_892.344_402_109_7, 25_008_380.182_335_79, -53_869_575.592_945_464];
    if v == 0.0 || v.is_nan() {
        return v;
    }
    if v.is_infinite() {
        return f64::NAN;
    }
    let (number, rest) = octant(v.abs());
    let square = rest * rest;
    let mut tangent = rest;
    if square > 1e-14 {
        tangent = rest + rest * (square * polynomial(P, square) / polynomial(Q, square));
    }
    if number & 2 == 2 {
        tangent = -1.0 / tangent;
    }
    if v < 0.0 { -tangent } else { tangent }
}

/// `math.Asin`
pub fn asin(v: f64) -> f64 {
    if v == 0.0 {
        return v;
    }
    let x = v.abs();
    if x > 1.0 || v.is_nan() {
        return f64::NAN;
    }
    let other = (1.0 - x * x).sqrt();
    let angle = if x > 0.7 { FRAC_PI_2 - atan(other / x) } else { atan(x / other) };
    if v < 0.0 { -angle } else { angle }
}

/// `math.Acos`
pub fn acos(v: f64) -> f64 {
    FRAC_PI_2 - asin(v)
}

/// `math.Sinh`
pub fn sinh(v: f64) -> f64 {
    const P: [f64; 4] =
        [-26.305_632_133_974_97, -2_894.211_355_989_564, -89_912.720_220_395_09, -630_767.364_049_771_7];
    const Q: [f64; 4] = [1.0, -173.678_953_558_233_7, 15_215.173_787_900_19, -630_767.364_049_771_7];
    let x = magnitude(v);
    let sine = if x > 21.0 {
        exp(x) * 0.5
    } else if x > 0.5 {
        let power = exp(x);
        (power - 1.0 / power) * 0.5
    } else {
        let square = x * x;
        polynomial(P, square) * x / polynomial(Q, square)
    };
    if v < 0.0 { -sine } else { sine }
}

/// `math.Cosh`
pub fn cosh(v: f64) -> f64 {
    let x = v.abs();
    let power = exp(x);
    if x > 21.0 { power * 0.5 } else { (power + 1.0 / power) * 0.5 }
}

/// `math.Tanh`
pub fn tanh(v: f64) -> f64 {
    const P: [f64; 3] = [-0.964_399_179_425_052_3, -99.287_723_100_191_85, -1_614.687_684_417_084_5];
    const Q: [f64; 4] = [1.0, 112.811_678_491_632_93, 2_235.488_390_601_004_5, 4_844.063_053_251_255];
    /// The logarithm of 2^127, halved: from here on the result is 1.
    const ALL: f64 = 0.5 * 88.029_691_931_113_05;
    let x = v.abs();
    if x > ALL {
        return 1f64.copysign(v);
    }
    if x >= 0.625 {
        let tangent = 1.0 - 2.0 / (exp(2.0 * x) + 1.0);
        return if v < 0.0 { -tangent } else { tangent };
    }
    if v == 0.0 {
        return v;
    }
    let square = v * v;
    v + v * square * polynomial(P, square) / polynomial(Q, square)
}

/// Numbers below this are their own inverse hyperbolic sine.
const NEAR_ZERO: f64 = 1.0 / 268_435_456.0;
/// From here on a one beside the square is lost.
const LARGE: f64 = 268_435_456.0;

/// `math.Asinh`
pub fn asinh(v: f64) -> f64 {
    if !v.is_finite() {
        return v;
    }
    let x = magnitude(v);
    let area = if x > LARGE {
        ln(x) + LN_2
    } else if x > 2.0 {
        ln(2.0 * x + 1.0 / ((x * x + 1.0).sqrt() + x))
    } else if x < NEAR_ZERO {
        x
    } else {
        ln_1p(x + x * x / (1.0 + (1.0 + x * x).sqrt()))
    };
    if v < 0.0 { -area } else { area }
}

/// `math.Acosh`
pub fn acosh(v: f64) -> f64 {
    if v < 1.0 || v.is_nan() {
        return f64::NAN;
    }
    if v == 1.0 {
        return 0.0;
    }
    if v >= LARGE {
        return ln(v) + LN_2;
    }
    if v > 2.0 {
        return ln(2.0 * v - 1.0 / (v + (v * v - 1.0).sqrt()));
    }
    let t = v - 1.0;
    ln_1p(t + (2.0 * t + t * t).sqrt())
}

/// `math.Atanh`
pub fn atanh(v: f64) -> f64 {
    let x = magnitude(v);
    if x > 1.0 || v.is_nan() {
        return f64::NAN;
    }
    let area = if x == 1.0 {
        f64::INFINITY
    } else if x < NEAR_ZERO {
        x
    } else if x < 0.5 {
        let twice = x + x;
        0.5 * ln_1p(twice + twice * x / (1.0 - x))
    } else {
        0.5 * ln_1p((x + x) / (1.0 - x))
    };
    if v < 0.0 { -area } else { area }
}

/// `math.Log1p`: the natural logarithm of 1 + `v`.
fn ln_1p(v: f64) -> f64 {
    const LN2_HIGH: f64 = 0.693_147_180_369_123_8;
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    const SERIES: [f64; 7] = [
        0.147_981_986_051_165_86,
        0.153_138_376_992_093_73,
        0.181_835_721_616_180_5,
        0.222_221_984_321_497_84,
        0.285_714_287_436_623_9,
        0.399_999_999_994_094_2,
        0.666_666_666_666_673_5,
    ];
    if v < -1.0 || v.is_nan() {
        return f64::NAN;
    }
    if v == -1.0 {
        return f64::NEG_INFINITY;
    }
    if v == f64::INFINITY {
        return v;
    }
    let x = v.abs();
    if x < 1.0 / 536_870_912.0 {
        return if x < 1.0 / 18_014_398_509_481_984.0 { v } else { v - v * v * 0.5 };
    }
    let is_small = x < 0.414_213_562_373_095_03 && v > -0.292_893_218_813_452_5;
    // 1 + v is (1 + f) times a power of two; c is what rounding has taken from it.
    let (f, exponent, c, is_one) = if is_small { (v, 0.0, 0.0, false) } else { split_sum(v) };
    let half_square = 0.5 * f * f;
    if is_one {
        if f == 0.0 {
            return if exponent == 0.0 { 0.0 } else { exponent * LN2_HIGH + (c + exponent * LN2_LOW) };
        }
        let rest = half_square * (1.0 - 0.666_666_666_666_666_6 * f);
        if exponent == 0.0 {
            return f - rest;
        }
        return exponent * LN2_HIGH - ((rest - (exponent * LN2_LOW + c)) - f);
    }
    let s = f / (2.0 + f);
    let square = s * s;
    let rest = square * polynomial(SERIES, square);
    if exponent == 0.0 {
        return f - (half_square - s * (half_square + rest));
    }
    exponent * LN2_HIGH - ((half_square - (s * (half_square + rest) + (exponent * LN2_LOW + c))) - f)
}

/// 1 + `v` as (1 + f) · 2^exponent with 1 + f between the roots of 1/2 and 2: f, the exponent, the share that rounding took,
/// and whether 1 + f is one but for its last digits.
fn split_sum(v: f64) -> (f64, f64, f64, bool) {
    const MANTISSA: u64 = (1 << 52) - 1;
    const MANTISSA_OF_SQRT_2: u64 = 0x0006_a09e_667f_3bcd;
    let is_exact = v.abs() >= 9_007_199_254_740_992.0;
    let sum = if is_exact { v } else { 1.0 + v };
    let bits = sum.to_bits();
    let mut exponent = (bits >> 52) as f64 - 1023.0;
    let c = if is_exact {
        0.0
    } else if exponent > 0.0 {
        (1.0 - (sum - v)) / sum
    } else {
        (v - (sum - 1.0)) / sum
    };
    let mantissa = bits & MANTISSA;
    let (normal, distance) = if mantissa < MANTISSA_OF_SQRT_2 {
        (f64::from_bits(mantissa | 0x3ff0_0000_0000_0000), mantissa)
    } else {
        exponent += 1.0;
        (f64::from_bits(mantissa | 0x3fe0_0000_0000_0000), ((1 << 52) - mantissa) >> 2)
    };
    (normal - 1.0, exponent, c, distance == 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn special_values_are_those_of_go() {
        for function in [sin, tan, asin, sinh, tanh, asinh, atanh] {
            assert!(function(-0.0).is_sign_negative() && function(0.0) == 0.0 && function(f64::NAN).is_nan());
        }
        assert!(
            [sin(f64::INFINITY), cos(f64::NEG_INFINITY), tan(f64::INFINITY), asin(1.5), acos(-2.0), acosh(0.5)]
                .iter()
                .all(|v| v.is_nan())
        );
        assert_eq!([cos(0.0), cosh(0.0), acosh(1.0), acos(1.0)], [1.0, 1.0, 0.0, 0.0]);
        assert_eq!([atanh(1.0), atanh(-1.0)], [f64::INFINITY, f64::NEG_INFINITY]);
        assert_eq!([sinh(f64::NEG_INFINITY), cosh(f64::NEG_INFINITY)], [f64::NEG_INFINITY, f64::INFINITY]);
        assert_eq!([asinh(f64::INFINITY), acosh(f64::INFINITY), tanh(-100.0)], [f64::INFINITY, f64::INFINITY, -1.0]);
    }

    proptest! {
        #[test]
        fn results_are_close_to_those_of_the_platform(v in -30f64..30.0, large in 1e8f64..1e18, share in -1f64..1.0) {
            let close = |ours: f64, theirs: f64| (ours - theirs).abs() <= 1e-14 * theirs.abs().max(1.0);
            prop_assert!(close(sin(v), v.sin()) && close(cos(v), v.cos()), "{v}");
            prop_assert!(close(sin(large), large.sin()) && close(cos(large), large.cos()), "{large}");
            prop_assert!(close(tan(v).atan(), v.tan().atan()) && close(tan(large).atan(), large.tan().atan()), "{v} {large}");
            prop_assert!(close(asin(share), share.asin()) && close(acos(share), share.acos()), "{share}");
            prop_assert!(close(sinh(v), v.sinh()) && close(cosh(v), v.cosh()) && close(tanh(v), v.tanh()), "{v}");
            prop_assert!(close(asinh(v), v.signum() * v.abs().asinh()) && close(asinh(share), share.signum() * share.abs().asinh()), "{v}");
            prop_assert!(close(acosh(v.abs() + 1.0), (v.abs() + 1.0).acosh()) && close(acosh(large), large.acosh()), "{v}");
            prop_assert!(close(atanh(share * 0.99), (share * 0.99).atanh()), "{share}");
            prop_assert!(close(ln_1p(v.abs()), v.abs().ln_1p()) && close(ln_1p(share * 0.99), (share * 0.99).ln_1p()), "{v} {share}");
        }
    }
}
