//! Buckets with their bounds.

use crate::model::go_math;
use crate::model::histogram::{CUSTOM_BUCKETS_SCHEMA, FloatHistogram, bounds, layout};

/// One bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// Lower bound.
    pub lower: f64,
    /// Upper bound.
    pub upper: f64,
    /// True if the lower bound belongs to the bucket.
    pub lower_inclusive: bool,
    /// True if the upper bound belongs to the bucket.
    pub upper_inclusive: bool,
    /// Observations.
    pub count: f64,
}

impl Bucket {
    /// The share of the bucket's width that lies below `value`, a point strictly inside of finite bounds: of the width
    /// itself, or of its logarithm.
    pub fn fraction_below(&self, value: f64, is_linear: bool) -> f64 {
        if is_linear {
            return (value - self.lower) / (self.upper - self.lower);
        }
        let [lower, upper, value_log] = [self.lower, self.upper, value].map(|v| go_math::log2(v.abs()));
        if value > 0.0 { (value_log - lower) / (upper - lower) } else { 1.0 - ((value_log - upper) / (lower - upper)) }
    }
}

impl FloatHistogram {
    fn bound(&self, index: i64) -> f64 {
        if self.schema != CUSTOM_BUCKETS_SCHEMA {
            return bounds::exponential(index, self.schema);
        }
        match usize::try_from(index) {
            Ok(index) => self.custom_values.get(index).copied().unwrap_or(f64::INFINITY),
            Err(_) => f64::NEG_INFINITY,
        }
    }

    fn bucket(&self, index: i64, count: f64, is_negative: bool) -> Bucket {
        let (inner, outer) = (self.bound(index - 1), self.bound(index));
        let (lower, upper) = if is_negative { (-outer, -inner) } else { (inner, outer) };
        let (lower_inclusive, upper_inclusive) =
            if self.uses_custom_buckets() { (index == 0, true) } else { (lower < 0.0, upper > 0.0) };
        Bucket { lower, upper, lower_inclusive, upper_inclusive, count }
    }

    /// Positive buckets, from zero upwards.
    pub fn positive(&self) -> impl Iterator<Item = Bucket> + '_ {
        let counts = &self.positive_buckets;
        layout::indexes(&self.positive_spans, counts.len())
            .map(move |(place, index)| self.bucket(index, counts.get(place).copied().unwrap_or(0.0), false))
    }

    /// Negative buckets, from zero downwards.
    pub fn negative(&self) -> impl Iterator<Item = Bucket> + '_ {
        let counts = &self.negative_buckets;
        layout::indexes(&self.negative_spans, counts.len())
            .map(move |(place, index)| self.bucket(index, counts.get(place).copied().unwrap_or(0.0), true))
    }

    /// The zero bucket.
    pub fn zero_bucket(&self) -> Bucket {
        Bucket {
            lower: -self.zero_threshold,
            upper: self.zero_threshold,
            lower_inclusive: true,
            upper_inclusive: true,
            count: self.zero_count,
        }
    }

    /// All buckets in ascending order, the zero bucket among them if it is filled. Buckets that overlap with the zero
    /// bucket are cut at its bounds.
    pub fn buckets(&self) -> Vec<Bucket> {
        let threshold = self.zero_threshold;
        let mut all: Vec<Bucket> = self.negative().collect();
        all.reverse();
        if self.zero_count > 0.0 {
            all.push(self.zero_bucket());
        }
        all.extend(self.positive());
        for bucket in &mut all {
            if bucket.upper < 0.0 && bucket.upper > -threshold {
                bucket.upper = -threshold;
            } else if bucket.lower > 0.0 && bucket.lower < threshold {
                bucket.lower = threshold;
            }
        }
        all
    }
}
