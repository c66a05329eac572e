//! Sums, differences, multiples and quotients of histograms.

use crate::model::histogram::kahan::Compensation;
use crate::model::histogram::layout::{self, Addend};
use crate::model::histogram::{CounterResetHint, FloatHistogram, Span, bounds};
use crate::model::kahan::kahan_inc;

/// Exponential and listed buckets do not mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot apply this operation on histograms with a mix of exponential and custom bucket schemas")]
pub struct IncompatibleSchemas;

/// What was noticed while two histograms were combined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Combined {
    /// One was marked as a counter reset, the other as none.
    pub resets_collide: bool,
    /// They had different listed bounds and were reduced to common ones.
    pub bounds_reconciled: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Add,
    Subtract,
}

impl FloatHistogram {
    /// Adds `other`. The result has the coarser resolution and the wider zero bucket of the two, or the listed bounds that
    /// both have; it may have empty buckets.
    pub fn add(&mut self, other: &Self) -> Result<Combined, IncompatibleSchemas> {
        self.combine(other, Direction::Add, None)
    }

    /// Subtracts `other`, as [`Self::add`] adds. The hint is that of a sum.
    pub fn sub(&mut self, other: &Self) -> Result<Combined, IncompatibleSchemas> {
        self.combine(other, Direction::Subtract, None)
    }

    /// Multiplies all counts and the sum. A negative factor makes a gauge.
    pub fn mul(&mut self, factor: f64) {
        self.scale(|v| v * factor);
        if factor < 0.0 {
            self.counter_reset_hint = CounterResetHint::Gauge;
        }
    }

    /// Divides all counts and the sum. Division by zero removes all buckets, a negative divisor makes a gauge.
    pub fn div(&mut self, divisor: f64) {
        if divisor == 0.0 {
            self.positive_spans.clear();
            self.positive_buckets.clear();
            self.negative_spans.clear();
            self.negative_buckets.clear();
        }
        self.scale(|v| v / divisor);
        if divisor < 0.0 {
            self.counter_reset_hint = CounterResetHint::Gauge;
        }
    }

    fn scale(&mut self, change: impl Fn(f64) -> f64) {
        for value in [&mut self.zero_count, &mut self.count, &mut self.sum] {
            *value = change(*value);
        }
        self.positive_buckets.iter_mut().chain(&mut self.negative_buckets).for_each(|v| *v = change(*v));
    }

    /// Adds or subtracts `other`; with compensation, which has the layout of `self` before and after.
    pub(super) fn combine(
        &mut self,
        other: &Self,
        direction: Direction,
        mut kept: Option<&mut Compensation>,
    ) -> Result<Combined, IncompatibleSchemas> {
        if self.uses_custom_buckets() != other.uses_custom_buckets() {
            return Err(IncompatibleSchemas);
        }
        let (hint, resets_collide) = merge_hints(self.counter_reset_hint, other.counter_reset_hint);
        self.counter_reset_hint = hint;
        let sign = if direction == Direction::Add { 1.0 } else { -1.0 };
        let mut combined = Combined { resets_collide, bounds_reconciled: false };
        if self.uses_custom_buckets() {
            self.combine_numbers(other, sign, kept.as_deref_mut());
            if self.custom_values == other.custom_values {
                let addend = Addend {
                    spans: &other.positive_spans,
                    counts: &other.positive_buckets,
                    sign,
                    skip: 0,
                    compensation: &[],
                };
                let compensation = kept.map(|kept| &mut kept.positive);
                layout::add(&mut self.positive_spans, &mut self.positive_buckets, compensation, addend);
            } else {
                combined.bounds_reconciled = true;
                self.combine_mismatched(other, direction, kept);
            }
            return Ok(combined);
        }
        let (zero_count, zero_compensation) = self.reconcile_zero_buckets(other, kept.as_deref_mut());
        match kept.as_deref_mut() {
            None => self.zero_count += sign * zero_count,
            Some(kept) => {
                let (sum, compensation) = kahan_inc(sign * zero_count, self.zero_count, kept.zero_count);
                let (sum, compensation) = kahan_inc(sign * zero_compensation, sum, compensation);
                (self.zero_count, kept.zero_count) = (sum, compensation);
            }
        }
        self.combine_numbers(other, sign, kept.as_deref_mut());
        self.combine_exponential(other, sign, kept);
        Ok(combined)
    }

    fn combine_numbers(&mut self, other: &Self, sign: f64, kept: Option<&mut Compensation>) {
        match kept {
            None => {
                self.count += sign * other.count;
                self.sum += sign * other.sum;
            }
            Some(kept) => {
                (self.count, kept.count) = kahan_inc(sign * other.count, self.count, kept.count);
                (self.sum, kept.sum) = kahan_inc(sign * other.sum, self.sum, kept.sum);
            }
        }
    }

    fn combine_exponential(&mut self, other: &Self, sign: f64, mut kept: Option<&mut Compensation>) {
        if other.schema < self.schema {
            let (from, to) = (self.schema, other.schema);
            let positive = kept.as_deref_mut().map(|kept| &mut kept.positive);
            layout::reduce(&mut self.positive_spans, &mut self.positive_buckets, positive, from, to);
            let negative = kept.as_deref_mut().map(|kept| &mut kept.negative);
            layout::reduce(&mut self.negative_spans, &mut self.negative_buckets, negative, from, to);
            self.schema = to;
        }
        let (schema, threshold, from) = (self.schema, self.zero_threshold, other.schema);
        let add = |spans: &mut Vec<Span>,
                   counts: &mut Vec<f64>,
                   kept: Option<&mut Vec<f64>>,
                   other_spans: &[Span],
                   other_counts: &[f64]| {
            let mut coarse = (Vec::new(), Vec::new(), Vec::new());
            let (spans_b, counts_b) = if schema < from {
                coarse = (other_spans.to_vec(), other_counts.to_vec(), vec![0.0; other_counts.len()]);
                let compensation = kept.is_some().then_some(&mut coarse.2);
                layout::reduce(&mut coarse.0, &mut coarse.1, compensation, from, schema);
                (coarse.0.as_slice(), coarse.1.as_slice())
            } else {
                (other_spans, other_counts)
            };
            // What lies in the zero bucket has been counted there.
            let inside = |(_, index): &(usize, i64)| bounds::exponential(*index, schema) <= threshold;
            let skip = layout::indexes(spans_b, counts_b.len()).take_while(inside).count();
            let addend = Addend { spans: spans_b, counts: counts_b, sign, skip, compensation: &coarse.2 };
            layout::add(spans, counts, kept, addend);
        };
        let (positive, negative) = match kept {
            Some(kept) => (Some(&mut kept.positive), Some(&mut kept.negative)),
            None => (None, None),
        };
        let (spans, counts) = (&other.positive_spans, &other.positive_buckets);
        add(&mut self.positive_spans, &mut self.positive_buckets, positive, spans, counts);
        let (spans, counts) = (&other.negative_spans, &other.negative_buckets);
        add(&mut self.negative_spans, &mut self.negative_buckets, negative, spans, counts);
    }

    /// Combines histograms with different listed bounds: both are mapped to the bounds that they have in common.
    fn combine_mismatched(&mut self, other: &Self, direction: Direction, kept: Option<&mut Compensation>) {
        let common = common_bounds(&self.custom_values, &other.custom_values);
        let mut target = vec![(0.0, 0.0); common.len() + 1];
        let own_compensation = kept.as_ref().map_or(&[][..], |kept| &kept.positive);
        map_to(&common, self, 1.0, own_compensation, &mut target);
        let sign = if direction == Direction::Add { 1.0 } else { -1.0 };
        map_to(&common, other, sign, &[], &mut target);
        let mut packer = layout::Packer::with_room_for(target.len());
        for (index, (count, compensation)) in (0i64..).zip(target) {
            if count != 0.0 || compensation != 0.0 {
                packer.push(index, count, compensation);
            }
        }
        (self.positive_spans, self.positive_buckets) = (packer.spans, packer.counts);
        if let Some(kept) = kept {
            kept.positive = packer.compensation;
        }
        self.custom_values = common;
    }

    /// Widens the zero buckets of both until they are equally wide; returns count and compensation of `other`'s.
    fn reconcile_zero_buckets(&mut self, other: &Self, mut kept: Option<&mut Compensation>) -> (f64, f64) {
        let (mut other_count, mut other_threshold, mut other_compensation) =
            (other.zero_count, other.zero_threshold, 0.0);
        // A threshold that is not a number has no match.
        while other_threshold < self.zero_threshold || self.zero_threshold < other_threshold {
            if other_threshold < self.zero_threshold {
                (other_count, other_threshold, other_compensation) = other.zero_bucket_up_to(self.zero_threshold, None);
            }
            if self.zero_threshold < other_threshold {
                let (count, threshold, compensation) = self.zero_bucket_up_to(other_threshold, kept.as_deref());
                (self.zero_count, self.zero_threshold) = (count, threshold);
                if let Some(kept) = kept.as_deref_mut() {
                    kept.zero_count = compensation;
                }
                self.drop_buckets_in_zero_bucket(kept.as_deref_mut());
            }
        }
        (other_count, other_compensation)
    }

    /// Count and width of a zero bucket that reaches up to `threshold`, or further if that lies within a filled bucket.
    pub(super) fn zero_bucket_up_to(&self, mut threshold: f64, kept: Option<&Compensation>) -> (f64, f64, f64) {
        let mut compensation = kept.map_or(0.0, |kept| kept.zero_count);
        if threshold == self.zero_threshold {
            return (self.zero_count, threshold, compensation);
        }
        'again: loop {
            let mut count = self.zero_count;
            let sides = [
                (&self.positive_spans, &self.positive_buckets, kept.map(|kept| &kept.positive)),
                (&self.negative_spans, &self.negative_buckets, kept.map(|kept| &kept.negative)),
            ];
            for (number, (spans, counts, kept)) in sides.into_iter().enumerate() {
                for (place, index) in layout::indexes(spans, counts.len()) {
                    if bounds::exponential(index - 1, self.schema) >= threshold {
                        break;
                    }
                    let bucket = counts.get(place).copied().unwrap_or(0.0);
                    (count, compensation) = kahan_inc(bucket, count, compensation);
                    if let Some(kept) = kept {
                        let more = kept.get(place).copied().unwrap_or(0.0);
                        (count, compensation) = kahan_inc(more, count, compensation);
                    }
                    let end = bounds::exponential(index, self.schema);
                    if end > threshold {
                        if bucket != 0.0 {
                            threshold = end;
                            if number == 1 {
                                // What widened the zero bucket may have brought further positive buckets into it.
                                continue 'again;
                            }
                        }
                        break;
                    }
                }
            }
            return (count, threshold, compensation);
        }
    }

    fn drop_buckets_in_zero_bucket(&mut self, kept: Option<&mut Compensation>) {
        let (schema, threshold) = (self.schema, self.zero_threshold);
        let clear = |spans: &mut Vec<Span>, counts: &mut Vec<f64>, mut kept: Option<&mut Vec<f64>>| {
            let inside = |(_, index): &(usize, i64)| bounds::exponential(*index - 1, schema) < threshold;
            let dropped = layout::indexes(spans, counts.len()).take_while(inside).count();
            counts.iter_mut().take(dropped).for_each(|count| *count = 0.0);
            if let Some(kept) = kept.as_deref_mut() {
                kept.iter_mut().take(dropped).for_each(|count| *count = 0.0);
            }
            layout::compact(spans, counts, kept, 0);
        };
        let (positive, negative) = match kept {
            Some(kept) => (Some(&mut kept.positive), Some(&mut kept.negative)),
            None => (None, None),
        };
        clear(&mut self.positive_spans, &mut self.positive_buckets, positive);
        clear(&mut self.negative_spans, &mut self.negative_buckets, negative);
    }
}

/// What is known of the sum of two histograms, and whether they contradict each other: a gauge wins, then not knowing.
pub(super) fn merge_hints(a: CounterResetHint, b: CounterResetHint) -> (CounterResetHint, bool) {
    use CounterResetHint::{Gauge, Unknown};
    match (a, b) {
        _ if a == b => (a, false),
        (Gauge, _) | (_, Gauge) => (Gauge, false),
        (Unknown, _) | (_, Unknown) => (Unknown, false),
        _ => (Unknown, true),
    }
}

/// Bounds that are in both ascending lists.
fn common_bounds(a: &[f64], b: &[f64]) -> Vec<f64> {
    let mut common = Vec::new();
    let mut others = b.iter().copied().peekable();
    for bound in a {
        while others.next_if(|other| other < bound).is_some() {}
        if others.next_if(|other| other == bound).is_some() {
            common.push(*bound);
        }
    }
    common
}

/// Adds the buckets of a histogram to those between the `common` bounds, each to the first that reaches its own bound.
fn map_to(common: &[f64], from: &FloatHistogram, sign: f64, kept: &[f64], target: &mut [(f64, f64)]) {
    let last = target.len().saturating_sub(1);
    let mut reached = 0;
    for (place, index) in layout::indexes(&from.positive_spans, from.positive_buckets.len()) {
        let own = usize::try_from(index).ok().and_then(|index| from.custom_values.get(index));
        let mut at = last;
        if let Some(own) = own {
            while common.get(reached).is_some_and(|bound| bound < own) {
                reached += 1;
            }
            at = reached.min(last);
        }
        let Some((sum, compensation)) = target.get_mut(at) else { continue };
        let count = from.positive_buckets.get(place).copied().unwrap_or(0.0);
        (*sum, *compensation) = kahan_inc(sign * count, *sum, *compensation);
        if let Some(more) = kept.get(place) {
            (*sum, *compensation) = kahan_inc(*more, *sum, *compensation);
        }
    }
}
