//! Trends: `deriv`, `predict_linear`, `double_exponential_smoothing`.

use crate::promql::functions::kahan::KahanSum;
use crate::promql::functions::window::Window;

/// `deriv`: slope of the least-squares line, per second.
pub(crate) fn deriv(window: Window<'_>) -> Option<f64> {
    // Times relative to the first sample are small, which keeps the products exact enough.
    let origin_ms = *window.timestamps().first()?;
    (window.len() >= 2).then(|| linear_regression(&window, origin_ms).0)
}

/// `predict_linear`: value of the least-squares line `seconds` after the evaluation time.
pub(crate) fn predict_linear(window: Window<'_>, seconds: f64) -> Option<f64> {
    if window.len() < 2 {
        return None;
    }
    let (slope, intercept) = linear_regression(&window, window.at_ms);
    Some(slope * seconds + intercept)
}

/// Slope per second, and value at `origin_ms`.
fn linear_regression(window: &Window<'_>, origin_ms: i64) -> (f64, f64) {
    let values = window.values();
    let first = values.first().copied().unwrap_or(f64::NAN);
    let (mut sum_x, mut sum_y) = (KahanSum::default(), KahanSum::default());
    let (mut sum_xy, mut sum_x2) = (KahanSum::default(), KahanSum::default());
    let mut is_constant = true;
    for (i, (at_ms, y)) in window.timestamps().iter().zip(values).enumerate() {
        if i > 0 && *y != first {
            is_constant = false;
        }
        let x = at_ms.wrapping_sub(origin_ms) as f64 / 1e3;
        sum_x = sum_x.plus(x);
        sum_y = sum_y.plus(*y);
        sum_xy = sum_xy.plus(x * y);
        sum_x2 = sum_x2.plus(x * x);
    }
    if is_constant {
        return if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) };
    }
    let n = values.len() as f64;
    let (sum_x, sum_y) = (sum_x.total(), sum_y.total());
    let covariance = sum_xy.total() - sum_x * sum_y / n;
    let variance = sum_x2.total() - sum_x * sum_x / n;
    let slope = covariance / variance;
    (slope, sum_y / n - slope * sum_x / n)
}

/// Factors of `double_exponential_smoothing`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Smoothing {
    level: f64,
    trend: f64,
}

impl Smoothing {
    /// Errors with Prometheus's text unless both factors lie between 0 and 1.
    pub(crate) fn new(level: f64, trend: f64) -> Result<Self, String> {
        let refused = |v: f64| v <= 0.0 || v >= 1.0;
        if refused(level) {
            return Err(format!("invalid smoothing factor. Expected: 0 < sf < 1, got: {}", six_decimals(level)));
        }
        if refused(trend) {
            return Err(format!("invalid trend factor. Expected: 0 < tf < 1, got: {}", six_decimals(trend)));
        }
        Ok(Self { level, trend })
    }

    /// The smoothed value at the window's last sample (Holt's linear method).
    pub(crate) fn smooth(self, window: Window<'_>) -> Option<f64> {
        let [first, second, ..] = window.values() else { return None };
        let (mut before, mut smoothed, mut slope) = (0.0, *first, second - first);
        for (i, value) in window.values().iter().enumerate().skip(1) {
            let scaled = self.level * value;
            if i > 1 {
                slope = self.trend * (smoothed - before) + (1.0 - self.trend) * slope;
            }
            let carried = (1.0 - self.level) * (smoothed + slope);
            (before, smoothed) = (smoothed, scaled + carried);
        }
        Some(smoothed)
    }
}

/// Go's `%f`.
fn six_decimals(v: f64) -> String {
    if v.is_finite() { format!("{v:.6}") } else { crate::model::go::format_float_f(v) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::read::FloatColumn;
    use crate::promql::functions::window::testing;

    fn whole(column: &FloatColumn, at_ms: i64) -> Window<'_> {
        Window { column, from: 0, to: column.len(), start_ms: 0, end_ms: at_ms, at_ms }
    }

    #[test]
    fn a_line_is_found_again() {
        let column = testing::column(10_000, &[1.0, 3.0, 5.0, 7.0]);
        assert_eq!(deriv(whole(&column, 40_000)), Some(0.2));
        let predicted = predict_linear(whole(&column, 40_000), 10.0).unwrap();
        assert!((predicted - 9.0).abs() < 1e-12, "{predicted}");
    }

    #[test]
    fn constants_have_no_slope_and_infinities_none_that_is_a_number() {
        let constant = testing::column(10_000, &[0.1, 0.1, 0.1]);
        assert_eq!(deriv(whole(&constant, 30_000)), Some(0.0));
        let infinite = testing::column(10_000, &[f64::INFINITY, f64::INFINITY]);
        assert!(deriv(whole(&infinite, 30_000)).unwrap().is_nan());
        assert_eq!(deriv(whole(&testing::column(1, &[1.0]), 1)), None);
    }

    #[test]
    fn factors_are_checked() {
        let text = Smoothing::new(1.0, 0.5).unwrap_err();
        assert_eq!(text, "invalid smoothing factor. Expected: 0 < sf < 1, got: 1.000000");
        assert!(Smoothing::new(0.5, 0.0).unwrap_err().starts_with("invalid trend factor."));
        let column = testing::column(10, &[0.0, 10.0, 20.0, 30.0]);
        assert_eq!(Smoothing::new(0.5, 0.1).unwrap().smooth(whole(&column, 40)), Some(30.0));
    }
}
