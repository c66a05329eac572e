//! Counter resets between two histograms of a series.

use crate::model::histogram::{CounterResetHint, FloatHistogram, Span, bounds, layout};

impl FloatHistogram {
    /// True if the counter began anew between `previous` and this histogram: as the hint says, or else if a count became
    /// smaller, a filled bucket is missing, or the resolution or the zero bucket changed as they never do otherwise.
    pub fn detect_reset(&self, previous: &Self) -> bool {
        match self.counter_reset_hint {
            CounterResetHint::Reset => return true,
            CounterResetHint::NotReset => return false,
            CounterResetHint::Unknown | CounterResetHint::Gauge => {}
        }
        if self.count < previous.count {
            return true;
        }
        if self.uses_custom_buckets() {
            if !previous.uses_custom_buckets() {
                return true;
            }
            if self.custom_values != previous.custom_values {
                return self.detect_reset_between_bounds(previous);
            }
        } else if previous.uses_custom_buckets() {
            return true;
        }
        if self.schema > previous.schema || self.zero_threshold < previous.zero_threshold {
            return true;
        }
        let (zero_count, threshold, _) = previous.zero_bucket_up_to(self.zero_threshold, None);
        if threshold != self.zero_threshold || self.zero_count < zero_count {
            return true;
        }
        let is_lower = |spans: &[Span], counts: &[f64], before: &[Span], counts_before: &[f64]| {
            let shift = u32::try_from(previous.schema.saturating_sub(self.schema)).unwrap_or(0);
            let outside = |(index, _): &(i64, f64)| {
                self.uses_custom_buckets() || bounds::exponential(*index, self.schema) > self.zero_threshold
            };
            let now = layout::reduced(spans, counts, 0).skip_while(|bucket| !outside(bucket));
            let then = layout::reduced(before, counts_before, shift).skip_while(|bucket| !outside(bucket));
            is_lower_somewhere(now, then)
        };
        is_lower(&self.positive_spans, &self.positive_buckets, &previous.positive_spans, &previous.positive_buckets)
            || is_lower(
                &self.negative_spans,
                &self.negative_buckets,
                &previous.negative_spans,
                &previous.negative_buckets,
            )
    }

    /// With different listed bounds the counts between common bounds are compared.
    fn detect_reset_between_bounds(&self, previous: &Self) -> bool {
        let (mut now, mut then) = (self.positive().peekable(), previous.positive().peekable());
        let mut bounds_before = previous.custom_values.iter().copied().chain([f64::INFINITY]).peekable();
        for bound in self.custom_values.iter().copied().chain([f64::INFINITY]) {
            while bounds_before.next_if(|before| *before < bound).is_some() {}
            if bounds_before.next_if(|before| *before == bound).is_none() {
                continue;
            }
            let (mut count_now, mut count_then) = (0.0, 0.0);
            while let Some(bucket) = now.next_if(|bucket| bucket.upper <= bound) {
                count_now += bucket.count;
            }
            while let Some(bucket) = then.next_if(|bucket| bucket.upper <= bound) {
                count_then += bucket.count;
            }
            if count_now < count_then {
                return true;
            }
        }
        false
    }
}

/// True if a bucket has fewer observations than before, or is missing and was filled.
fn is_lower_somewhere(now: impl Iterator<Item = (i64, f64)>, mut then: impl Iterator<Item = (i64, f64)>) -> bool {
    let mut now = now.peekable();
    then.any(|(index, before)| {
        while now.next_if(|(at, _)| *at < index).is_some() {}
        match now.peek() {
            Some((at, count)) if *at == index => *count < before,
            _ => before != 0.0,
        }
    })
}
