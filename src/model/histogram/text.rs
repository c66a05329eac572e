//! Text forms of histograms.

use std::fmt::{self, Write as _};

use crate::model::go::format_float_g;
use crate::model::histogram::{Bucket, CounterResetHint, FloatHistogram, Span};

/// Longest run of empty buckets that is written out.
const EMPTY_WRITTEN_MAX: usize = 1024;

/// `{count:3, sum:5, [-1,1]:1, (1,2]:2}`, the form of labels and templates: filled buckets in ascending order.
impl fmt::Display for FloatHistogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{count:{}, sum:{}", format_float_g(self.count), format_float_g(self.sum))?;
        let mut negative: Vec<Bucket> = self.negative().filter(|bucket| bucket.count != 0.0).collect();
        negative.reverse();
        let zero = (self.zero_count != 0.0).then(|| self.zero_bucket());
        let positive = self.positive().filter(|bucket| bucket.count != 0.0);
        for bucket in negative.into_iter().chain(zero).chain(positive) {
            write!(f, ", {bucket}")?;
        }
        f.write_char('}')
    }
}

/// `(1,2]:2`
impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = if self.lower_inclusive { '[' } else { '(' };
        let close = if self.upper_inclusive { ']' } else { ')' };
        let [lower, upper, count] = [self.lower, self.upper, self.count].map(format_float_g);
        write!(f, "{open}{lower},{upper}{close}:{count}")
    }
}

impl FloatHistogram {
    /// The form of test scripts: `{{schema:1 count:3 sum:5 buckets:[1 2]}}`.
    pub fn test_expression(&self) -> String {
        let mut tidy = self.clone();
        tidy.compact(EMPTY_WRITTEN_MAX);
        let mut parts = Vec::new();
        if tidy.schema != 0 {
            parts.push(format!("schema:{}", tidy.schema));
        }
        for (key, value) in [
            ("count", tidy.count),
            ("sum", tidy.sum),
            ("z_bucket", tidy.zero_count),
            ("z_bucket_w", tidy.zero_threshold),
        ] {
            if value != 0.0 {
                parts.push(format!("{key}:{}", format_float_g(value)));
            }
        }
        if tidy.uses_custom_buckets() {
            parts.push(format!("custom_values:[{}]", joined(&tidy.custom_values)));
        }
        match tidy.counter_reset_hint {
            CounterResetHint::Unknown => {}
            CounterResetHint::Reset => parts.push("counter_reset_hint:reset".to_owned()),
            CounterResetHint::NotReset => parts.push("counter_reset_hint:not_reset".to_owned()),
            CounterResetHint::Gauge => parts.push("counter_reset_hint:gauge".to_owned()),
        }
        let mut side = |buckets: &str, offset: &str, spans: &[Span], counts: &[f64]| {
            spans.iter().filter(|s| s.offset != 0).for_each(|s| parts.push(format!("{offset}:{}", s.offset)));
            if !counts.is_empty() {
                parts.push(format!("{buckets}:[{}]", joined(counts)));
            }
        };
        side("buckets", "offset", &tidy.positive_spans, &tidy.positive_buckets);
        side("n_buckets", "n_offset", &tidy.negative_spans, &tidy.negative_buckets);
        format!("{{{{{}}}}}", parts.join(" "))
    }
}

fn joined(values: &[f64]) -> String {
    values.iter().map(|v| format_float_g(*v)).collect::<Vec<_>>().join(" ")
}
