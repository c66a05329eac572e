//! What storage asks of a histogram before it takes it in.

use crate::model::go::format_float_g;
use crate::model::histogram::integer::absolute;
use crate::model::histogram::{CUSTOM_BUCKETS_SCHEMA, FloatHistogram, Histogram, Span};

/// Resolutions that there are.
const SCHEMAS: std::ops::RangeInclusive<i32> = -4..=8;

/// Why a histogram is refused; the texts are Prometheus's.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum InvalidHistogram {
    /// A resolution that there is none of.
    #[error(
        "histogram has an invalid schema, which must be between -4 and 8 for exponential buckets, or -53 for custom \
         buckets, got schema {0}"
    )]
    Schema(i32),
    /// The count is negative.
    #[error("observation count is  {}: histogram's observation count is negative", format_float_g(*.0))]
    NegativeCount(f64),
    /// The zero bucket's count is negative.
    #[error(
        "zero bucket has observation count of {}: histogram has a bucket whose observation count is negative",
        format_float_g(*.0)
    )]
    NegativeZeroCount(f64),
    /// Listed bounds go with exponential buckets.
    #[error("histogram with exponential schema must not have custom bounds")]
    BoundsWithoutNeed,
    /// Listed buckets have no zero bucket.
    #[error("custom buckets: must have zero count of 0")]
    CustomZeroCount,
    /// Listed buckets have no zero bucket.
    #[error("custom buckets: must have zero threshold of 0")]
    CustomZeroThreshold,
    /// Listed buckets are positive ones.
    #[error("custom buckets: must not have negative spans")]
    CustomNegativeSpans,
    /// Listed buckets are positive ones.
    #[error("custom buckets: must not have negative buckets")]
    CustomNegativeBuckets,
    /// The bounds are no bounds.
    #[error("custom buckets: {0}")]
    Bounds(#[source] InvalidBounds),
    /// The counts of whole buckets do not add up to the count of all observations.
    #[error(
        "{buckets} observations found in buckets, but the Count field is {count}: histogram's observation count should \
         equal the number of observations found in the buckets (in absence of NaN)"
    )]
    CountMismatch {
        /// Observations in all buckets.
        buckets: u64,
        /// All observations.
        count: u64,
    },
    /// There are more observations in buckets than there are in all; some that are in none are possible, as not a number.
    #[error(
        "{buckets} observations found in buckets, but the Count field is {count}: histogram's observation count should be \
         at least the number of observations found in the buckets"
    )]
    CountTooSmall {
        /// Observations in all buckets.
        buckets: u64,
        /// All observations.
        count: u64,
    },
    /// A side's spans and counts do not fit, or a count is negative.
    #[error("{side} side: {problem}")]
    Side {
        /// `positive` or `negative`.
        side: &'static str,
        /// What does not fit.
        #[source]
        problem: InvalidBuckets,
    },
}

/// What is wrong with listed bounds.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum InvalidBounds {
    /// One is not a number.
    #[error("histogram custom bounds must not be NaN")]
    NotANumber,
    /// They do not ascend.
    #[error(
        "previous bound is {0:.6} and current is {1:.6}: histogram custom bounds must be in strictly increasing order"
    )]
    Order(f64, f64),
    /// The last one is infinite, which it is without being listed.
    #[error("last +Inf bound must not be explicitly defined: histogram custom bounds must be finite")]
    Infinite,
    /// There are more buckets than bounds make.
    #[error(
        "only {bounds} custom bounds defined which is insufficient to cover total span length of {buckets}: histogram \
         custom bounds are too few"
    )]
    TooFew {
        /// Bounds.
        bounds: usize,
        /// Buckets up to the last one, gaps included.
        buckets: i64,
    },
    /// The spans do not fit the counts.
    #[error("{0}")]
    Buckets(#[source] InvalidBuckets),
}

/// What is wrong with spans and counts.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum InvalidBuckets {
    /// A gap is negative.
    #[error("span number {number} with offset {offset}: histogram has a span whose offset is negative")]
    NegativeOffset {
        /// Number of the span, from 1.
        number: usize,
        /// Its gap.
        offset: i32,
    },
    /// Spans name more or fewer buckets than there are.
    #[error(
        "spans need {needed} buckets, have {found} buckets: histogram spans specify different number of buckets than \
         provided"
    )]
    Mismatch {
        /// Buckets that the spans name.
        needed: u64,
        /// Buckets that there are.
        found: usize,
    },
    /// A count is negative.
    #[error(
        "bucket number {number} has observation count of {}: histogram has a bucket whose observation count is negative",
        format_float_g(*.count)
    )]
    NegativeCount {
        /// Number of the bucket, from 1.
        number: usize,
        /// Its count.
        count: f64,
    },
}

impl FloatHistogram {
    /// Errors unless the parts fit each other and no count is negative. Whether the counts add up is not looked at: floats
    /// that were rounded do not.
    pub fn validate(&self) -> Result<(), InvalidHistogram> {
        let side = |side, problem| InvalidHistogram::Side { side, problem };
        if self.schema == CUSTOM_BUCKETS_SCHEMA {
            check_bounds(&self.custom_values, &self.positive_spans, self.positive_buckets.len())
                .map_err(InvalidHistogram::Bounds)?;
            if self.zero_count != 0.0 {
                return Err(InvalidHistogram::CustomZeroCount);
            }
            if self.zero_threshold != 0.0 {
                return Err(InvalidHistogram::CustomZeroThreshold);
            }
            if !self.negative_spans.is_empty() {
                return Err(InvalidHistogram::CustomNegativeSpans);
            }
            if !self.negative_buckets.is_empty() {
                return Err(InvalidHistogram::CustomNegativeBuckets);
            }
        } else if SCHEMAS.contains(&self.schema) {
            check_spans(&self.positive_spans, self.positive_buckets.len(), 1).map_err(|p| side("positive", p))?;
            check_spans(&self.negative_spans, self.negative_buckets.len(), 1).map_err(|p| side("negative", p))?;
            check_counts(&self.negative_buckets).map_err(|p| side("negative", p))?;
            if self.zero_count < 0.0 {
                return Err(InvalidHistogram::NegativeZeroCount(self.zero_count));
            }
            if !self.custom_values.is_empty() {
                return Err(InvalidHistogram::BoundsWithoutNeed);
            }
        } else {
            return Err(InvalidHistogram::Schema(self.schema));
        }
        if self.count < 0.0 {
            return Err(InvalidHistogram::NegativeCount(self.count));
        }
        check_counts(&self.positive_buckets).map_err(|p| side("positive", p))
    }
}

impl Histogram {
    /// Errors unless the parts fit each other, no count is negative and the counts add up.
    pub fn validate(&self) -> Result<(), InvalidHistogram> {
        let side = |side, problem| InvalidHistogram::Side { side, problem };
        let mut negative = 0;
        if self.schema == CUSTOM_BUCKETS_SCHEMA {
            check_bounds(&self.custom_values, &self.positive_spans, self.positive_buckets.len())
                .map_err(InvalidHistogram::Bounds)?;
            if self.zero_count != 0 {
                return Err(InvalidHistogram::CustomZeroCount);
            }
            if self.zero_threshold != 0.0 {
                return Err(InvalidHistogram::CustomZeroThreshold);
            }
            if !self.negative_spans.is_empty() {
                return Err(InvalidHistogram::CustomNegativeSpans);
            }
            if !self.negative_buckets.is_empty() {
                return Err(InvalidHistogram::CustomNegativeBuckets);
            }
        } else if SCHEMAS.contains(&self.schema) {
            check_spans(&self.positive_spans, self.positive_buckets.len(), 1).map_err(|p| side("positive", p))?;
            check_spans(&self.negative_spans, self.negative_buckets.len(), 1).map_err(|p| side("negative", p))?;
            negative = check_whole_counts(&self.negative_buckets).map_err(|p| side("negative", p))?;
            if !self.custom_values.is_empty() {
                return Err(InvalidHistogram::BoundsWithoutNeed);
            }
        } else {
            return Err(InvalidHistogram::Schema(self.schema));
        }
        let positive = check_whole_counts(&self.positive_buckets).map_err(|p| side("positive", p))?;
        let (buckets, count) = (negative.wrapping_add(positive).wrapping_add(self.zero_count), self.count);
        if self.sum.is_nan() {
            if count < buckets { Err(InvalidHistogram::CountTooSmall { buckets, count }) } else { Ok(()) }
        } else if buckets != count {
            Err(InvalidHistogram::CountMismatch { buckets, count })
        } else {
            Ok(())
        }
    }
}

/// True if each side has as many buckets as its spans name, and the schema is one that a later version may have as well.
/// What comes from files is held to this: it was checked when it was taken in.
pub fn has_sound_layout(schema: i32, sides: [(&[Span], usize); 2]) -> bool {
    let is_known = schema == CUSTOM_BUCKETS_SCHEMA || (-9..=52).contains(&schema);
    is_known && sides.into_iter().all(|(spans, found)| check_spans(spans, found, spans.len()).is_ok())
}

/// The sum of the counts.
fn check_whole_counts(deltas: &[i64]) -> Result<u64, InvalidBuckets> {
    let mut sum = 0u64;
    for (place, count) in absolute(deltas).enumerate() {
        let whole = u64::try_from(count)
            .map_err(|_| InvalidBuckets::NegativeCount { number: place + 1, count: count as f64 })?;
        sum = sum.wrapping_add(whole);
    }
    Ok(sum)
}

fn check_bounds(bounds: &[f64], spans: &[Span], found: usize) -> Result<(), InvalidBounds> {
    let mut before: Option<f64> = None;
    for bound in bounds {
        if bound.is_nan() {
            return Err(InvalidBounds::NotANumber);
        }
        match before {
            Some(before) if *bound <= before => return Err(InvalidBounds::Order(before, *bound)),
            _ => before = Some(*bound),
        }
    }
    if before == Some(f64::INFINITY) {
        return Err(InvalidBounds::Infinite);
    }
    check_spans(spans, found, 0).map_err(InvalidBounds::Buckets)?;
    let buckets: i64 = spans.iter().map(|span| i64::from(span.offset) + i64::from(span.length)).sum();
    if i64::try_from(bounds.len() + 1).is_ok_and(|most| most < buckets) {
        return Err(InvalidBounds::TooFew { bounds: bounds.len(), buckets });
    }
    Ok(())
}

/// The first `free` offsets may be negative.
fn check_spans(spans: &[Span], found: usize, free: usize) -> Result<(), InvalidBuckets> {
    if let Some((place, span)) = spans.iter().enumerate().skip(free).find(|(_, span)| span.offset < 0) {
        return Err(InvalidBuckets::NegativeOffset { number: place + 1, offset: span.offset });
    }
    let needed: u64 = spans.iter().map(|span| u64::from(span.length)).sum();
    if needed != found as u64 {
        return Err(InvalidBuckets::Mismatch { needed, found });
    }
    Ok(())
}

fn check_counts(counts: &[f64]) -> Result<(), InvalidBuckets> {
    match counts.iter().enumerate().find(|(_, count)| **count < 0.0) {
        Some((place, count)) => Err(InvalidBuckets::NegativeCount { number: place + 1, count: *count }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(change: impl FnOnce(&mut FloatHistogram), expected: &str) {
        let mut histogram = FloatHistogram {
            positive_spans: vec![Span { offset: -2, length: 2 }],
            positive_buckets: vec![1.0, 2.0],
            ..FloatHistogram::default()
        };
        assert_eq!(histogram.validate(), Ok(()));
        change(&mut histogram);
        assert_eq!(histogram.validate().unwrap_err().to_string(), expected);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        check(
            |h| h.schema = 9,
            "histogram has an invalid schema, which must be between -4 and 8 for exponential buckets, or -53 for custom \
             buckets, got schema 9",
        );
        check(
            |h| h.positive_buckets.push(1.0),
            "positive side: spans need 2 buckets, have 3 buckets: histogram spans specify different number of buckets \
             than provided",
        );
        check(
            |h| h.positive_buckets[1] = -1.0,
            "positive side: bucket number 2 has observation count of -1: histogram has a bucket whose observation count \
             is negative",
        );
        check(|h| h.count = -1.0, "observation count is  -1: histogram's observation count is negative");
        check(|h| h.custom_values.push(1.0), "histogram with exponential schema must not have custom bounds");
        check(
            |h| {
                (h.schema, h.positive_spans[0].offset) = (CUSTOM_BUCKETS_SCHEMA, 1);
                h.custom_values.push(1.0);
            },
            "custom buckets: only 1 custom bounds defined which is insufficient to cover total span length of 3: \
             histogram custom bounds are too few",
        );
        check(
            |h| {
                (h.schema, h.positive_spans[0].offset) = (CUSTOM_BUCKETS_SCHEMA, 0);
                h.custom_values.extend([2.0, 1.0]);
            },
            "custom buckets: previous bound is 2.000000 and current is 1.000000: histogram custom bounds must be in \
             strictly increasing order",
        );
    }
}
