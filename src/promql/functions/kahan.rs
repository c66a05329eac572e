//! Sums and means with a running compensation, as Prometheus sums.

use crate::model::kahan::kahan_inc;

/// A sum and what rounding has taken from it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct KahanSum {
    /// The rounded sum.
    pub(crate) sum: f64,
    /// What to add to it.
    pub(crate) compensation: f64,
}

impl KahanSum {
    /// A sum of one value.
    pub(crate) fn of(value: f64) -> Self {
        Self { sum: value, compensation: 0.0 }
    }

    /// The sum after one more value. An infinite sum has no compensation.
    #[inline]
    pub(crate) fn plus(self, value: f64) -> Self {
        let (sum, compensation) = kahan_inc(value, self.sum, self.compensation);
        Self { sum, compensation }
    }

    /// The compensated sum.
    #[inline]
    pub(crate) fn total(self) -> f64 {
        self.sum + self.compensation
    }
}

/// A mean: of the sum while that fits, from then on carried from value to value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct KahanMean {
    acc: KahanSum,
    count: f64,
    is_incremental: bool,
}

impl KahanMean {
    /// The mean of one value.
    pub(crate) fn of(value: f64) -> Self {
        Self { acc: KahanSum::of(value), count: 1.0, is_incremental: false }
    }

    /// Adds a value.
    #[inline]
    pub(crate) fn add(&mut self, value: f64) {
        self.count += 1.0;
        if !self.is_incremental {
            let next = self.acc.plus(value);
            if !next.sum.is_infinite() {
                self.acc = next;
                return;
            }
            // The sum would overflow: go on with the mean itself.
            self.is_incremental = true;
            self.acc.sum /= self.count - 1.0;
            self.acc.compensation /= self.count - 1.0;
        }
        let share = (self.count - 1.0) / self.count;
        let kept = KahanSum { sum: share * self.acc.sum, compensation: share * self.acc.compensation };
        self.acc = kept.plus(value / self.count);
    }

    /// The mean.
    pub(crate) fn mean(self) -> f64 {
        if self.is_incremental {
            self.acc.total()
        } else {
            self.acc.sum / self.count + self.acc.compensation / self.count
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_plain_addition_loses() {
        let total = [1.0, 1e100, 1.0, -1e100].iter().fold(KahanSum::default(), |sum, v| sum.plus(*v)).total();
        assert_eq!(total, 2.0);
    }

    #[test]
    fn mean_survives_an_overflowing_sum() {
        let mut mean = KahanMean::of(f64::MAX);
        mean.add(f64::MAX);
        assert_eq!(mean.mean(), f64::MAX);
    }
}
