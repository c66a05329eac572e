//! Trimming: the observations below or above a value are kept, estimated where it lies inside of a bucket.

use crate::model::histogram::{Bucket, FloatHistogram};

/// Which observations go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrimSide {
    /// Those above the value (`</`).
    Upper,
    /// Those below the value (`>/`).
    Lower,
}

impl FloatHistogram {
    /// Removes the observations on one side of `at`. Count and sum are those of what is left, estimated from the buckets, if
    /// anything was removed.
    pub fn trim(&mut self, at: f64, side: TrimSide) {
        let is_linear = self.uses_custom_buckets();
        let mut kept = Kept { at, side, is_linear, count: 0.0, sum: 0.0, is_trimmed: false };
        let positive: Vec<Bucket> = self.positive().collect();
        let negative: Vec<Bucket> = self.negative().collect();
        let has_positive = kept.buckets(&positive, &mut self.positive_buckets, true);
        let has_negative = kept.buckets(&negative, &mut self.negative_buckets, false);
        if self.zero_count > 0.0 {
            let mut zero = self.zero_bucket();
            if has_negative && !has_positive {
                zero.upper = 0.0;
            }
            if has_positive && !has_negative {
                zero.lower = 0.0;
            }
            let (count, midpoint) = zero_bucket_trim(zero, at, side);
            if self.zero_count != count {
                self.zero_count = count;
                kept.is_trimmed = true;
            }
            kept.sum += midpoint * count;
            kept.count += count;
        }
        if kept.is_trimmed {
            (self.count, self.sum) = (kept.count, kept.sum);
            self.compact(0);
        }
    }
}

/// What is left, as the buckets are gone through.
struct Kept {
    at: f64,
    side: TrimSide,
    is_linear: bool,
    count: f64,
    sum: f64,
    is_trimmed: bool,
}

impl Kept {
    /// Trims the buckets of one side of zero; true if there was a filled one.
    fn buckets(&mut self, buckets: &[Bucket], counts: &mut [f64], is_positive: bool) -> bool {
        let mut has_filled = false;
        for (bucket, count) in buckets.iter().zip(counts) {
            if bucket.count == 0.0 {
                continue;
            }
            has_filled = true;
            let (stays, is_cut) = match self.side {
                TrimSide::Upper => (bucket.upper <= self.at, bucket.lower < self.at),
                TrimSide::Lower => (bucket.lower >= self.at, bucket.upper > self.at),
            };
            if stays {
                self.count += bucket.count;
                self.sum += midpoint(bucket.lower, bucket.upper, is_positive, self.is_linear) * bucket.count;
            } else if is_cut {
                let (rest, midpoint) = self.cut(bucket, is_positive);
                self.count += rest;
                self.sum += midpoint * rest;
                if *count != rest {
                    *count = rest;
                    self.is_trimmed = true;
                }
            } else {
                *count = 0.0;
                self.is_trimmed = true;
            }
        }
        has_filled
    }

    /// What is left of a bucket around the value, and where its middle is.
    fn cut(&self, bucket: &Bucket, is_positive: bool) -> (f64, f64) {
        let at = self.at;
        if bucket.lower == f64::NEG_INFINITY || bucket.upper == f64::INFINITY {
            return cut_infinite(bucket, at, self.side);
        }
        let below = if at <= bucket.lower {
            0.0
        } else if at >= bucket.upper {
            bucket.count
        } else {
            bucket.count * bucket.fraction_below(at, self.is_linear)
        };
        match self.side {
            TrimSide::Upper => (below, midpoint(bucket.lower, at, is_positive, self.is_linear)),
            TrimSide::Lower => (bucket.count - below, midpoint(at, bucket.upper, is_positive, self.is_linear)),
        }
    }
}

/// A bucket without end tells nothing of where its observations are: it stays or goes as a whole, except that a first
/// listed bound above zero is taken to begin at zero.
fn cut_infinite(bucket: &Bucket, at: f64, side: TrimSide) -> (f64, f64) {
    let finite_or_zero = |v: f64| if v.is_infinite() { 0.0 } else { v };
    let (count, upper) = (bucket.count, bucket.upper);
    if bucket.lower == f64::NEG_INFINITY {
        return match side {
            TrimSide::Upper if at >= upper => (count, 0.0),
            TrimSide::Upper if at > 0.0 && upper > 0.0 && upper != f64::INFINITY => (count * at / upper, at / 2.0),
            TrimSide::Upper if upper <= 0.0 => (count, at),
            TrimSide::Lower if at <= bucket.lower => (count, 0.0),
            TrimSide::Lower if at >= 0.0 && upper > at && upper != f64::INFINITY => {
                (count * (1.0 - at / upper), (at + upper) / 2.0)
            }
            TrimSide::Upper | TrimSide::Lower => (0.0, finite_or_zero(upper)),
        };
    }
    match side {
        TrimSide::Lower if at >= bucket.lower => (count, at),
        TrimSide::Upper | TrimSide::Lower => (0.0, finite_or_zero(bucket.lower)),
    }
}

fn zero_bucket_trim(zero: Bucket, at: f64, side: TrimSide) -> (f64, f64) {
    let Bucket { lower, upper, count, .. } = zero;
    let whole = (count, (lower + upper) / 2.0);
    match side {
        TrimSide::Upper if at <= lower => (0.0, 0.0),
        TrimSide::Upper if at >= upper => whole,
        TrimSide::Upper => (count * ((at - lower) / (upper - lower)), (lower + at) / 2.0),
        TrimSide::Lower if at <= lower => whole,
        TrimSide::Lower if at >= upper => (0.0, 0.0),
        TrimSide::Lower => (count * ((upper - at) / (upper - lower)), (at + upper) / 2.0),
    }
}

/// The middle of an interval: arithmetic, or geometric between exponential bounds.
fn midpoint(lower: f64, upper: f64, is_positive: bool, is_linear: bool) -> f64 {
    match (lower.is_infinite(), upper.is_infinite()) {
        (true, true) => 0.0,
        (true, false) => {
            if upper > 0.0 {
                upper / 2.0
            } else {
                upper
            }
        }
        (false, true) => lower,
        (false, false) if is_linear => (lower + upper) / 2.0,
        (false, false) => {
            let middle = (lower * upper).abs().sqrt();
            if is_positive { middle } else { -middle }
        }
    }
}
