//! Logarithms, powers and arc tangents with the bits of Go's standard library, whose results clients see: the classic
//! algorithms of fdlibm and Cephes, which are off by about one unit in the last place, and not always as the platform's are.

use std::f64::consts::{FRAC_PI_2, FRAC_PI_4, LOG2_E, LOG10_E, PI};

/// ln 2 in two parts: the high one has zeros at its end, so that multiples of it are exact.
const LN2_HIGH: f64 = 0.693_147_180_369_123_8;
const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;

/// A fraction from 0.5 on and below 1, and a power of two: their product is `v`, which is finite and not zero.
fn split(v: f64) -> (f64, i32) {
    let (v, shift) = if v.abs() < f64::MIN_POSITIVE { (v * (1u64 << 52) as f64, -52) } else { (v, 0) };
    let bits = v.to_bits();
    let exponent = i32::try_from(bits >> 52 & 0x7ff).unwrap_or(0) - 1022;
    (f64::from_bits(bits & !(0x7ff << 52) | 1022 << 52), exponent + shift)
}

/// `math.Log`: the natural logarithm.
pub fn ln(v: f64) -> f64 {
    const L1: f64 = 0.666_666_666_666_673_5;
    const L2: f64 = 0.399_999_999_994_094_2;
    const L3: f64 = 0.285_714_287_436_623_9;
    const L4: f64 = 0.222_221_984_321_497_84;
    const L5: f64 = 0.181_835_721_616_180_5;
    const L6: f64 = 0.153_138_376_992_093_73;
    const L7: f64 = 0.147_981_986_051_165_86;
    if v.is_nan() || v == f64::INFINITY {
        return v;
    }
    if v < 0.0 {
        return f64::NAN;
    }
    if v == 0.0 {
        return f64::NEG_INFINITY;
    }
    let (mut fraction, mut exponent) = split(v);
    if fraction < std::f64::consts::FRAC_1_SQRT_2 {
        fraction *= 2.0;
        exponent -= 1;
    }
    let f = fraction - 1.0;
    let k = f64::from(exponent);
    let s = f / (2.0 + f);
    let s2 = s * s;
    let s4 = s2 * s2;
    let odd = s2 * (L1 + s4 * (L3 + s4 * (L5 + s4 * L7)));
    let even = s4 * (L2 + s4 * (L4 + s4 * L6));
    let rest = odd + even;
    let half_square = 0.5 * f * f;
    k * LN2_HIGH - ((half_square - (s * (half_square + rest) + k * LN2_LOW)) - f)
}

/// `math.Log2`: the logarithm to base 2; exact for powers of two.
pub fn log2(v: f64) -> f64 {
    if v.is_nan() || v.is_infinite() || v == 0.0 {
        return ln(v);
    }
    let (fraction, exponent) = split(v);
    if fraction == 0.5 {
        return f64::from(exponent - 1);
    }
    ln(fraction) * LOG2_E + f64::from(exponent)
}

/// `math.Log10`: the logarithm to base 10.
pub fn log10(v: f64) -> f64 {
    ln(v) * LOG10_E
}

/// `math.Exp`, as Go computes it on processors with fused multiplication and addition (the method of SLEEF): the argument
/// is cut to a sixteenth, a Taylor series gives the power less one, and four squarings lead back.
pub fn exp(v: f64) -> f64 {
    /// ln 2 in two parts.
    const HIGH: f64 = 0.693_147_180_559_663;
    const LOW: f64 = 2.823_529_056_303_157_7e-13;
    /// Inverse factorials from 1/8! to 1/3!, then those of 2 and 1.
    const SERIES: [f64; 7] = [
        1.984_126_984_126_984e-4,
        0.001_388_888_888_888_889,
        0.008_333_333_333_333_333,
        0.041_666_666_666_666_664,
        0.166_666_666_666_666_66,
        0.5,
        1.0,
    ];
    if v.is_nan() || v == f64::INFINITY {
        return v;
    }
    if v > 709.782_712_893_384 {
        return f64::INFINITY;
    }
    if v < -1000.0 {
        return 0.0;
    }
    let k = (v * LOG2_E).round_ties_even();
    let rest = (-k).mul_add(LOW, (-k).mul_add(HIGH, v)) * 0.0625;
    let series = SERIES.iter().fold(2.480_158_730_158_73e-5, |sum: f64, term| sum.mul_add(rest, *term));
    // (1 + x)² is 1 + x(x + 2), so what is less by one squares without losing digits.
    let mut less_one = rest * series;
    for _ in 0..3 {
        less_one *= less_one + 2.0;
    }
    let power = (less_one + 2.0).mul_add(less_one, 1.0);
    // In range: `v` is bounded on both sides.
    let exponent = k as i64 + 1023;
    let float = |biased: i64| f64::from_bits(u64::try_from(biased).unwrap_or(0) << 52);
    if exponent >= 0x7ff {
        f64::INFINITY
    } else if exponent > 0 {
        power * float(exponent)
    } else if exponent < -52 {
        0.0
    } else {
        power * float(exponent + 1022) * float(1)
    }
}

/// `math.Exp2`: 2 to the power of `v`.
pub fn exp2(v: f64) -> f64 {
    const P1: f64 = 0.166_666_666_666_666_66;
    const P2: f64 = -0.002_777_777_777_701_559_3;
    const P3: f64 = 6.613_756_321_437_934e-5;
    const P4: f64 = -1.653_390_220_546_525_2e-6;
    const P5: f64 = 4.138_136_797_057_238_5e-8;
    if v.is_nan() || v == f64::INFINITY {
        return v;
    }
    if v > 1_023.999_999_999_999_9 {
        return f64::INFINITY;
    }
    if v < -1074.0 {
        return 0.0;
    }
    let k = if v > 0.0 {
        (v + 0.5).trunc()
    } else if v < 0.0 {
        (v - 0.5).trunc()
    } else {
        0.0
    };
    let t = v - k;
    let high = t * LN2_HIGH;
    let low = -t * LN2_LOW;
    let r = high - low;
    let square = r * r;
    let c = r - square * (P1 + square * (P2 + square * (P3 + square * (P4 + square * P5))));
    let fraction = 1.0 - ((low - (r * c) / (2.0 - c)) - high);
    times_power(fraction, k)
}

/// `math.Atan`: an arc tangent in radians.
pub fn atan(v: f64) -> f64 {
    /// The tangent of three eighths of a half turn.
    const TAN_3_PI_8: f64 = 2.414_213_562_373_095;
    /// What a float leaves of a quarter turn.
    const MORE_BITS: f64 = 6.123_233_995_736_766e-17;
    let x = v.abs();
    let angle = if v == 0.0 || v.is_nan() {
        return v;
    } else if x <= 0.66 {
        small_atan(x)
    } else if x > TAN_3_PI_8 {
        FRAC_PI_2 - small_atan(1.0 / x) + MORE_BITS
    } else {
        FRAC_PI_4 + small_atan((x - 1.0) / (x + 1.0)) + 0.5 * MORE_BITS
    };
    if v > 0.0 { angle } else { -angle }
}

/// The arc tangent of a small number, as a fraction of polynomials (Cephes).
fn small_atan(v: f64) -> f64 {
    const P: [f64; 5] = [
        -0.875_060_860_003_190_4,
        -16.157_537_187_333_652,
        -75.008_557_923_147_05,
        -122.886_668_449_013_61,
        -64.850_219_049_420_25,
    ];
    const Q: [f64; 5] = [
        24.858_464_901_423_062,
        165.027_009_831_698_85,
        432.881_060_491_290_27,
        485.390_399_635_913_7,
        194.550_657_148_261_4,
    ];
    let square = v * v;
    let [p, rest @ ..] = P;
    let numerator = rest.iter().fold(p, |sum, p| sum * square + p);
    let denominator = Q.iter().fold(1.0, |sum, q| sum * square + q);
    v * (square * numerator / denominator) + v
}

/// `math.Atan2`: the angle of the point (x, y).
pub fn atan2(y: f64, x: f64) -> f64 {
    let is_plain = y.is_finite() && x.is_finite() && y != 0.0 && x != 0.0;
    if !is_plain {
        // The standards agree on these.
        return y.atan2(x);
    }
    let angle = atan(y / x);
    if x > 0.0 {
        angle
    } else if angle <= 0.0 {
        angle + PI
    } else {
        angle - PI
    }
}

/// `math.Pow`
pub fn pow(base: f64, exponent: f64) -> f64 {
    let is_plain = base.is_finite() && base != 0.0 && base != 1.0 && exponent.is_finite() && exponent != 0.0;
    let magnitude = exponent.abs();
    if !is_plain || exponent == 1.0 || magnitude >= 9_223_372_036_854_775_808.0 {
        // The standards agree on these.
        return base.powf(exponent);
    }
    if magnitude == 0.5 {
        return if exponent > 0.0 { base.sqrt() } else { 1.0 / base.sqrt() };
    }
    let (mut whole, mut part) = (magnitude.trunc(), magnitude.fract());
    if part != 0.0 && base < 0.0 {
        return f64::NAN;
    }
    let (mut result, mut result_exponent) = (1.0, 0i64);
    if part != 0.0 {
        if part > 0.5 {
            part -= 1.0;
            whole += 1.0;
        }
        result = exp(part * ln(base));
    }
    // In range, as checked above.
    let mut bits = whole as u64;
    let (mut factor, factor_exponent) = split(base);
    let mut factor_exponent = i64::from(factor_exponent);
    while bits != 0 {
        if factor_exponent.abs() > 1 << 12 {
            // Overflows or vanishes, whatever comes.
            result_exponent += factor_exponent;
            break;
        }
        if bits & 1 == 1 {
            result *= factor;
            result_exponent += factor_exponent;
        }
        factor *= factor;
        factor_exponent <<= 1;
        if factor < 0.5 {
            factor += factor;
            factor_exponent -= 1;
        }
        bits >>= 1;
    }
    if exponent < 0.0 {
        result = 1.0 / result;
        result_exponent = -result_exponent;
    }
    scale(result, result_exponent)
}

/// `math.Ldexp`: `v` times 2^exponent, rounded once; `v` is finite and not zero.
fn scale(v: f64, exponent: i64) -> f64 {
    let (fraction, own) = split(v);
    let exponent = exponent.saturating_add(i64::from(own));
    if exponent < -1075 {
        return 0f64.copysign(v);
    }
    if exponent > 1024 {
        return f64::INFINITY.copysign(v);
    }
    times_power(fraction, exponent as f64)
}

/// `fraction` times 2^k, rounded once; `k` is a whole number from -1075 to 1024.
fn times_power(fraction: f64, k: f64) -> f64 {
    let power = |k: f64| f64::from_bits(((k + 1023.0) as u64) << 52);
    if k > 1023.0 {
        fraction * 2.0 * power(k - 1.0)
    } else if k < -1021.0 {
        fraction * power(k + 1000.0) * power(-1000.0)
    } else {
        fraction * power(k)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn powers_of_two_are_exact() {
        for k in [-1074, -1022, -1, 0, 1, 52, 1023] {
            let power = 2f64.powi(k / 2) * 2f64.powi(k - k / 2);
            assert_eq!((log2(power), exp2(f64::from(k))), (f64::from(k), power), "{k}");
        }
        assert_eq!([ln(0.0), ln(1.0), log10(f64::INFINITY)], [f64::NEG_INFINITY, 0.0, f64::INFINITY]);
        assert!(ln(-1.0).is_nan() && log2(-1.0).is_nan() && exp2(f64::NAN).is_nan());
        assert_eq!([exp2(1024.0), exp2(-1075.0), exp2(f64::NEG_INFINITY)], [f64::INFINITY, 0.0, 0.0]);
        assert_eq!([exp(0.0), exp(710.0), exp(-800.0), exp(f64::NEG_INFINITY)], [1.0, f64::INFINITY, 0.0, 0.0]);
    }

    #[test]
    fn powers_have_the_bits_of_go() {
        assert_eq!([pow(3.0, 2.0), pow(-2.0, 3.0), pow(2.0, -1.0), pow(9.0, 0.5)], [9.0, -8.0, 0.5, 3.0]);
        assert_eq!([pow(10.0, 400.0), pow(10.0, -400.0), pow(-10.0, 401.0)], [f64::INFINITY, 0.0, f64::NEG_INFINITY]);
        assert_eq!([pow(0.0, -1.0), pow(2.0, f64::INFINITY), pow(f64::NAN, 0.0)], [f64::INFINITY, f64::INFINITY, 1.0]);
        assert!(pow(-8.0, 1.0 / 3.0).is_nan());
    }

    proptest! {
        #[test]
        fn powers_are_close_to_those_of_the_platform(base in 1e-3f64..1e3, exponent in -20f64..20.0) {
            for exponent in [exponent, exponent.trunc()] {
                let (ours, theirs) = (pow(base, exponent), base.powf(exponent));
                prop_assert!((ours - theirs).abs() <= theirs.abs() * 1e-13, "{base} ^ {exponent}");
            }
        }

        #[test]
        fn results_are_close_to_those_of_the_platform(v in 1e-300f64..1e300, e in -1000f64..1000.0) {
            let close = |a: f64, b: f64| (a - b).abs() <= b.abs() * 4.0 * f64::EPSILON;
            prop_assert!(close(ln(v), v.ln()) && close(log2(v), v.log2()) && close(log10(v), v.log10()));
            prop_assert!(close(exp2(e), e.exp2()) && close(exp(e / 2.0), (e / 2.0).exp()) && close(atan(e), e.atan()) && close(atan2(e, v), e.atan2(v)));
        }
    }
}
