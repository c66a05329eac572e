//! What counters are counted from where nobody tells their start (`st-synthesis`): the first sample of a series is its reference
//! and is not stored; those after it tell what has been counted since then, until the series begins anew.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::FixedState;

use crate::model::append::HistogramValue;
use crate::model::histogram::integer::deltas;
use crate::model::histogram::{FloatHistogram, Histogram};

/// The references of a target, by line.
pub(super) type References = HashMap<u32, Reference, FixedState>;

/// What the samples of a series are counted from.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Reference {
    /// When counting began, as far as that is known; milliseconds since the epoch.
    pub(super) start_ms: i64,
    counted: Counted,
}

#[derive(Clone, Debug, PartialEq)]
enum Counted {
    Float {
        newest: f64,
        first: f64,
    },
    Histogram {
        newest: Arc<FloatHistogram>,
        /// `None` after a reset: all of it was counted since then.
        first: Option<Arc<FloatHistogram>>,
    },
}

impl Reference {
    /// Begins at a sample.
    pub(super) fn at_float(value: f64, at_ms: i64) -> Self {
        Self { start_ms: at_ms, counted: Counted::Float { newest: value, first: value } }
    }

    /// Begins at a histogram.
    pub(super) fn at_histogram(value: &HistogramValue, at_ms: i64) -> Self {
        let value = float_of(value);
        Self { start_ms: at_ms, counted: Counted::Histogram { first: Some(Arc::clone(&value)), newest: value } }
    }

    /// What the next sample has counted since the start; `None` if the reference is a histogram. A value that is smaller than
    /// the one before has begun anew, some time before: a millisecond is the least that can be said.
    pub(super) fn count_float(&mut self, value: f64, at_ms: i64) -> Option<f64> {
        let Counted::Float { newest, first } = &mut self.counted else { return None };
        if value < *newest {
            *first = 0.0;
            self.start_ms = at_ms - 1;
        }
        *newest = value;
        Some(value - *first)
    }

    /// As [`Self::count_float`], of a histogram; `None` if the reference is a float.
    pub(super) fn count_histogram(&mut self, value: &HistogramValue, at_ms: i64) -> Option<HistogramValue> {
        let Counted::Histogram { newest, first } = &mut self.counted else { return None };
        let now = float_of(value);
        let is_reset = now.detect_reset(newest);
        *newest = Arc::clone(&now);
        if is_reset {
            *first = None;
            self.start_ms = at_ms - 1;
        }
        let Some(first) = first else { return Some(value.clone()) };
        let mut counted = Arc::unwrap_or_clone(now);
        if counted.sub(first).is_err() {
            // Buckets of different kinds are a reset, so this is never reached.
            return Some(value.clone());
        }
        counted.compact(0);
        Some(match value {
            HistogramValue::Float(_) => counted.into(),
            HistogramValue::Integer(whole) => {
                Histogram { counter_reset_hint: whole.counter_reset_hint, ..whole_of(counted) }.into()
            }
        })
    }
}

fn float_of(value: &HistogramValue) -> Arc<FloatHistogram> {
    match value {
        HistogramValue::Integer(histogram) => Arc::new(histogram.to_float()),
        HistogramValue::Float(histogram) => Arc::clone(histogram),
    }
}

/// A difference of histograms with whole counts.
fn whole_of(float: FloatHistogram) -> Histogram {
    let side = |counts: &[f64]| deltas(counts.iter().map(|count| *count as i64));
    Histogram {
        counter_reset_hint: float.counter_reset_hint,
        schema: float.schema,
        zero_threshold: float.zero_threshold,
        zero_count: float.zero_count as u64,
        count: float.count as u64,
        sum: float.sum,
        positive_buckets: side(&float.positive_buckets),
        positive_spans: float.positive_spans,
        negative_buckets: side(&float.negative_buckets),
        negative_spans: float.negative_spans,
        custom_values: float.custom_values,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::histogram::Span;

    #[test]
    fn floats_are_counted_from_the_first_and_from_each_reset() {
        let mut reference = Reference::at_float(100.0, 1000);
        let mut count = |value, at| (reference.count_float(value, at), reference.start_ms);
        assert_eq!(count(105.0, 2000), (Some(5.0), 1000));
        assert_eq!(count(105.0, 3000), (Some(5.0), 1000));
        assert_eq!(count(5.0, 4000), (Some(5.0), 3999));
        assert_eq!(count(15.0, 5000), (Some(15.0), 3999));
        assert!(count(f64::NAN, 6000).0.unwrap().is_nan());
        assert_eq!(count(1.0, 7000), (Some(1.0), 3999), "nothing is less than what is no number");
        assert_eq!(Reference::at_histogram(&whole(&[1]), 1).count_float(1.0, 2), None);
    }

    /// Buckets side by side from index 0 on.
    fn whole(counts: &[i64]) -> HistogramValue {
        let sum: i64 = counts.iter().sum();
        let spans = vec![Span { offset: 0, length: counts.len() as u32 }];
        Histogram {
            schema: 1,
            zero_threshold: 0.001,
            zero_count: 1,
            count: 1 + sum as u64,
            sum: sum as f64,
            positive_spans: spans.clone(),
            positive_buckets: deltas(counts.iter().copied()),
            negative_spans: spans,
            negative_buckets: deltas(counts.iter().map(|_| 0)),
            ..Histogram::default()
        }
        .into()
    }

    fn float(counts: &[i64]) -> HistogramValue {
        HistogramValue::Float(float_of(&whole(counts)))
    }

    #[test]
    fn histograms_are_counted_bucket_by_bucket() {
        for make in [whole, float] {
            let mut reference = Reference::at_histogram(&make(&[1, 2]), 1000);
            let found = reference.count_histogram(&make(&[1, 4, 3]), 2000).unwrap();
            let is_whole = matches!(found, HistogramValue::Integer(_));
            assert_eq!(is_whole, matches!(make(&[]), HistogramValue::Integer(_)));
            let found = float_of(&found);
            assert_eq!((found.count, found.sum, found.zero_count), (5.0, 5.0, 0.0));
            assert_eq!(found.positive_spans, [Span { offset: 1, length: 2 }], "empty buckets are left out");
            assert_eq!((&found.positive_buckets[..], found.negative_buckets.len()), (&[2.0, 3.0][..], 0));
            assert_eq!(reference.start_ms, 1000);
            // A bucket is lower than before: all of it was counted since then.
            let anew = make(&[2, 0, 1]);
            assert_eq!(reference.count_histogram(&anew, 3000), Some(anew));
            assert_eq!(reference.start_ms, 2999);
            let more = make(&[2, 9, 1]);
            assert_eq!(reference.count_histogram(&more, 4000), Some(more));
            assert_eq!((reference.start_ms, reference.count_float(1.0, 5000)), (2999, None));
        }
    }

    #[test]
    fn other_kinds_of_buckets_are_a_reset() {
        let mut reference = Reference::at_histogram(&whole(&[1, 2]), 1000);
        let listed = HistogramValue::from(Histogram {
            schema: crate::model::histogram::CUSTOM_BUCKETS_SCHEMA,
            count: 9,
            positive_spans: vec![Span { offset: 0, length: 1 }],
            positive_buckets: vec![9],
            custom_values: vec![1.0],
            ..Histogram::default()
        });
        assert_eq!(reference.count_histogram(&listed, 2000), Some(listed));
        assert_eq!(reference.start_ms, 1999);
    }
}
