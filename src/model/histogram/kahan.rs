//! Sums and means of many histograms, with what rounding takes away carried along for each number.

use crate::model::histogram::arithmetic::Direction;
use crate::model::histogram::{Combined, FloatHistogram, IncompatibleSchemas};

/// What is to be added to the numbers of a histogram with the same layout.
#[derive(Clone, Debug, Default)]
pub(super) struct Compensation {
    pub(super) zero_count: f64,
    pub(super) count: f64,
    pub(super) sum: f64,
    pub(super) positive: Vec<f64>,
    pub(super) negative: Vec<f64>,
}

impl Compensation {
    fn of(histogram: &FloatHistogram) -> Self {
        Self {
            positive: vec![0.0; histogram.positive_buckets.len()],
            negative: vec![0.0; histogram.negative_buckets.len()],
            ..Self::default()
        }
    }

    fn scale(&mut self, change: impl Fn(f64) -> f64) {
        for value in [&mut self.zero_count, &mut self.count, &mut self.sum] {
            *value = change(*value);
        }
        self.positive.iter_mut().chain(&mut self.negative).for_each(|v| *v = change(*v));
    }
}

/// A sum of histograms.
#[derive(Clone, Debug)]
pub struct HistogramSum {
    value: FloatHistogram,
    kept: Option<Compensation>,
}

impl HistogramSum {
    /// A sum of one histogram.
    pub fn of(first: &FloatHistogram) -> Self {
        Self { value: first.clone(), kept: None }
    }

    /// Adds a histogram. After an error the sum is of no use.
    pub fn add(&mut self, other: &FloatHistogram) -> Result<Combined, IncompatibleSchemas> {
        if self.value.uses_custom_buckets() != other.uses_custom_buckets() {
            return Err(IncompatibleSchemas);
        }
        let kept = self.kept.get_or_insert_with(|| Compensation::of(&self.value));
        self.value.combine(other, Direction::Add, Some(kept))
    }

    /// The sum.
    pub fn total(self) -> FloatHistogram {
        let Self { mut value, kept } = self;
        if let Some(kept) = kept {
            value.zero_count += kept.zero_count;
            value.count += kept.count;
            value.sum += kept.sum;
            value.positive_buckets.iter_mut().zip(kept.positive).for_each(|(count, more)| *count += more);
            value.negative_buckets.iter_mut().zip(kept.negative).for_each(|(count, more)| *count += more);
        }
        value
    }

    fn mul(&mut self, factor: f64) {
        self.value.mul(factor);
        self.kept.iter_mut().for_each(|kept| kept.scale(|v| v * factor));
    }

    fn div(&mut self, divisor: f64) {
        self.value.div(divisor);
        self.kept.iter_mut().for_each(|kept| kept.scale(|v| v / divisor));
    }
}

/// A mean: of the sum while that fits, from then on carried from histogram to histogram.
#[derive(Clone, Debug)]
pub struct HistogramMean {
    sum: HistogramSum,
    count: f64,
    is_incremental: bool,
}

impl HistogramMean {
    /// The mean of one histogram.
    pub fn of(first: &FloatHistogram) -> Self {
        Self { sum: HistogramSum::of(first), count: 1.0, is_incremental: false }
    }

    /// Adds a histogram. After an error the mean is of no use.
    pub fn add(&mut self, other: &FloatHistogram) -> Result<Combined, IncompatibleSchemas> {
        self.count += 1.0;
        if !self.is_incremental {
            let mut next = self.sum.clone();
            let combined = next.add(other)?;
            if !next.value.has_overflow() {
                self.sum = next;
                return Ok(combined);
            }
            // The sum would overflow: go on with the mean itself.
            self.is_incremental = true;
            self.sum.div(self.count - 1.0);
        }
        self.sum.mul((self.count - 1.0) / self.count);
        let mut share = other.clone();
        share.div(self.count);
        self.sum.add(&share)
    }

    /// The mean.
    pub fn mean(mut self) -> FloatHistogram {
        if !self.is_incremental {
            self.sum.div(self.count);
        }
        self.sum.total()
    }
}
