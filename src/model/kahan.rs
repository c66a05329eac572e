//! Summation with a running compensation (Kahan, with Neumaier's improvement), as Prometheus sums.

/// Sum and compensation after one more value; the compensated sum is the sum of both. An infinite sum has no compensation.
#[inline]
pub fn kahan_inc(value: f64, sum: f64, compensation: f64) -> (f64, f64) {
    let total = sum + value;
    let compensation = if total.is_infinite() {
        0.0
    } else if sum.abs() >= value.abs() {
        compensation + ((sum - total) + value)
    } else {
        compensation + ((value - total) + sum)
    };
    (total, compensation)
}
