//! Classic histograms as native ones with listed bounds (Prometheus's `util/convertnhcb`).

use crate::model::append::HistogramValue;
use crate::model::histogram::{CUSTOM_BUCKETS_SCHEMA, FloatHistogram, Histogram, Span, integer};

/// The parts of one classic histogram, in any order.
#[derive(Clone, Debug, Default)]
pub struct ClassicHistogram {
    /// Cumulative counts by bound, ascending.
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: f64,
}

impl ClassicHistogram {
    /// Sets the cumulative count up to `bound`, which is no NaN; the first of several for a bound holds. Errors when the
    /// count is negative, or does not fit between its neighbours.
    pub fn set_bucket(&mut self, bound: f64, count: f64) -> Result<(), String> {
        if count < 0.0 {
            return Err(format!("bucket count must be non-negative: le={bound}, count={count}"));
        }
        let place = self.buckets.partition_point(|(other, _)| *other < bound);
        if self.buckets.get(place).is_some_and(|(other, _)| *other == bound) {
            return Ok(());
        }
        let below = place.checked_sub(1).and_then(|place| self.buckets.get(place)).map_or(0.0, |(_, count)| *count);
        let above = self.buckets.get(place).map_or(f64::INFINITY, |(_, count)| *count);
        if count < below || above < count {
            return Err(format!("count is not cumulative: {count} at le={bound}"));
        }
        self.buckets.insert(place, (bound, count));
        Ok(())
    }

    /// Sets the number of observations. Errors when it is negative.
    pub fn set_count(&mut self, count: f64) -> Result<(), String> {
        if count < 0.0 {
            return Err(format!("count must be non-negative: count={count}"));
        }
        self.count = Some(count);
        Ok(())
    }

    /// Sets the sum of observations.
    pub fn set_sum(&mut self, sum: f64) {
        self.sum = sum;
    }

    /// The native histogram: with whole counts where all are, not validated. Errors when the count is not that of the last
    /// bucket.
    pub fn convert(mut self) -> Result<HistogramValue, String> {
        let highest = self.buckets.last().map(|(_, count)| *count);
        let count = self.count.or(highest).unwrap_or(0.0);
        if self.buckets.last().is_none_or(|(bound, _)| *bound != f64::INFINITY) {
            self.buckets.push((f64::INFINITY, count));
        }
        let last = self.buckets.last().map_or(0.0, |(_, count)| *count);
        if count != last {
            return Err(format!("count mismatch: count={count} != le=+Inf count={last}"));
        }
        let positive_spans = vec![Span { offset: 0, length: u32::try_from(self.buckets.len()).unwrap_or(u32::MAX) }];
        let custom_values =
            self.buckets.iter().map(|(bound, _)| *bound).filter(|bound| *bound != f64::INFINITY).collect();
        if self.buckets.iter().all(|(_, count)| is_whole(*count)) && is_whole(count) {
            let mut below = 0;
            let counts = self.buckets.iter().map(|(_, count)| {
                let count = *count as i64;
                count - std::mem::replace(&mut below, count)
            });
            let mut histogram = Histogram {
                schema: CUSTOM_BUCKETS_SCHEMA,
                count: count as u64,
                sum: self.sum,
                positive_spans,
                positive_buckets: integer::deltas(counts),
                custom_values,
                ..Histogram::default()
            };
            histogram.compact();
            return Ok(histogram.into());
        }
        let mut below = 0.0;
        let counts = self.buckets.iter().map(|(_, count)| count - std::mem::replace(&mut below, *count)).collect();
        let mut histogram = FloatHistogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            count,
            sum: self.sum,
            positive_spans,
            positive_buckets: counts,
            custom_values,
            ..FloatHistogram::default()
        };
        histogram.compact(0);
        Ok(histogram.into())
    }
}

/// Whether a count, which is not negative, is a whole number that an integer holds.
fn is_whole(count: f64) -> bool {
    count.fract() == 0.0 && count < i64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(parts: &ClassicHistogram) -> String {
        match parts.clone().convert() {
            Ok(HistogramValue::Integer(histogram)) => format!("whole {}", histogram.to_float().test_expression()),
            Ok(HistogramValue::Float(histogram)) => format!("float {}", histogram.test_expression()),
            Err(error) => error,
        }
    }

    #[test]
    fn parts_make_a_histogram_in_any_order() {
        let mut parts = ClassicHistogram::default();
        parts.set_sum(7.0);
        parts.set_bucket(f64::INFINITY, 4.0).unwrap();
        parts.set_bucket(1.0, 1.0).unwrap();
        parts.set_bucket(1.0, 3.0).unwrap();
        assert_eq!(text(&parts), "whole {{schema:-53 count:4 sum:7 custom_values:[1] buckets:[1 3]}}");
        parts.set_count(4.0).unwrap();
        parts.set_bucket(0.5, 0.5).unwrap();
        assert_eq!(text(&parts), "float {{schema:-53 count:4 sum:7 custom_values:[0.5 1] buckets:[0.5 0.5 3]}}");
        parts.set_count(5.0).unwrap();
        assert_eq!(text(&parts), "count mismatch: count=5 != le=+Inf count=4");
    }

    #[test]
    fn what_does_not_add_up_is_refused() {
        let mut parts = ClassicHistogram::default();
        assert!(parts.set_bucket(1.0, -1.0).is_err());
        assert!(parts.set_count(-1.0).is_err());
        parts.set_bucket(1.0, 5.0).unwrap();
        assert!(parts.set_bucket(2.0, 4.0).is_err());
        assert!(parts.set_bucket(0.5, 6.0).is_err());
        // Without the last bucket the count stands for it; without either the highest bucket does.
        assert_eq!(text(&parts), "whole {{schema:-53 count:5 custom_values:[1] buckets:[5]}}");
        parts.set_count(8.0).unwrap();
        assert_eq!(text(&parts), "whole {{schema:-53 count:8 custom_values:[1] buckets:[5 3]}}");
    }
}
