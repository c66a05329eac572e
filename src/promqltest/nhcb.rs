//! Classic histograms as native ones with listed bounds: what `load_with_nhcb` stores beside them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::histogram::{CUSTOM_BUCKETS_SCHEMA, FloatHistogram, Span};
use crate::model::labels::{BUCKET, Labels, METRIC_NAME};
use crate::model::read::SampleColumn;
use crate::promql::parse_bucket_bound;
use crate::promql::parser::SequenceValue;
use crate::promqltest::script::LoadCommand;
use crate::promqltest::show;

/// The parts of one classic histogram at one time.
#[derive(Default)]
struct Parts {
    /// Cumulative counts by bound, ascending.
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: f64,
}

/// The native histograms of a `load`, by series.
pub(crate) fn converted(load: &LoadCommand) -> Result<Vec<(Labels, SampleColumn)>, String> {
    let mut histograms: BTreeMap<Labels, BTreeMap<i64, Parts>> = BTreeMap::new();
    for series in &load.series {
        let name = series.labels.metric_name();
        let Some((base, part)) = [("_bucket", Part::Bucket), ("_sum", Part::Sum), ("_count", Part::Count)]
            .into_iter()
            .find_map(|(suffix, part)| Some((name.strip_suffix(suffix)?, part)))
        else {
            continue;
        };
        let bound = match part {
            Part::Bucket => {
                let bound = series
                    .labels
                    .get(BUCKET)
                    .ok_or_else(|| format!("expected bucket label in {}", show::Series(&series.labels)))?;
                match parse_bucket_bound(bound).filter(|bound| !bound.is_nan()) {
                    Some(bound) => bound,
                    None => continue,
                }
            }
            Part::Sum | Part::Count => f64::INFINITY,
        };
        let mut labels = series.labels.to_builder();
        labels.del(BUCKET).set(METRIC_NAME, base);
        let at_times = histograms.entry(labels.build()).or_default();
        for (place, value) in (0i64..).zip(&series.values) {
            let SequenceValue::Float(value) = value else { continue };
            let parts = at_times.entry(place * load.step_ms).or_default();
            match part {
                Part::Bucket => {
                    parts.insert(bound, *value).map_err(|error| format!("{}: {error}", show::Series(&series.labels)))?
                }
                Part::Sum => parts.sum = *value,
                Part::Count if *value < 0.0 => {
                    return Err(format!("{}: count must be non-negative: count={value}", show::Series(&series.labels)));
                }
                Part::Count => parts.count = Some(*value),
            }
        }
    }
    let mut all = Vec::new();
    for (labels, at_times) in histograms {
        let mut column = SampleColumn::default();
        for (at_ms, parts) in at_times {
            let fail = |error: String| format!("{} at {at_ms} ms: {error}", show::Series(&labels));
            let histogram = parts.convert().map_err(fail)?;
            histogram.validate().map_err(|error| fail(error.to_string()))?;
            column.push_histogram(at_ms, 0, Arc::new(histogram));
        }
        all.push((labels, column));
    }
    Ok(all)
}

#[derive(Clone, Copy)]
enum Part {
    Bucket,
    Sum,
    Count,
}

impl Parts {
    fn insert(&mut self, bound: f64, count: f64) -> Result<(), String> {
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

    fn convert(mut self) -> Result<FloatHistogram, String> {
        let highest = self.buckets.last().map(|(_, count)| *count);
        let count = self.count.or(highest).unwrap_or(0.0);
        if self.buckets.last().is_none_or(|(bound, _)| *bound != f64::INFINITY) {
            self.buckets.push((f64::INFINITY, count));
        }
        let last = self.buckets.last().map_or(0.0, |(_, count)| *count);
        if count != last {
            return Err(format!("count mismatch: count={count} != le=+Inf count={last}"));
        }
        let mut below = 0.0;
        let counts = self.buckets.iter().map(|(_, count)| count - std::mem::replace(&mut below, *count)).collect();
        let mut histogram = FloatHistogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            count,
            sum: self.sum,
            positive_spans: vec![Span { offset: 0, length: u32::try_from(self.buckets.len()).unwrap_or(u32::MAX) }],
            positive_buckets: counts,
            custom_values: self.buckets.iter().map(|(bound, _)| *bound).filter(|bound| bound.is_finite()).collect(),
            ..FloatHistogram::default()
        };
        let is_whole = self.buckets.iter().all(|(_, count)| count.fract() == 0.0) && count.fract() == 0.0;
        // Integer histograms keep short runs of empty buckets.
        histogram.compact(if is_whole { 2 } else { 0 });
        Ok(histogram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promqltest::script::{Command, Script};

    #[test]
    fn buckets_sum_and_count_make_one_histogram() {
        let text = "load_with_nhcb 1m\n x_bucket{le=\"1\",a=\"b\"} 1\n x_bucket{le=\"+Inf\",a=\"b\"} 4\n \
                    x_sum{a=\"b\"} 7\n x_count{a=\"b\"} 4\n y 1\n";
        let script = Script::parse(text).unwrap();
        let Some(Command::Load(load)) = script.commands.first() else { panic!("{script:?}") };
        let all = converted(load).unwrap();
        let [(labels, column)] = all.as_slice() else { panic!("{all:?}") };
        assert_eq!((labels.metric_name(), labels.get("a"), labels.len()), ("x", Some("b"), 2));
        let text = column.histograms.values[0].test_expression();
        assert_eq!(text, "{{schema:-53 count:4 sum:7 custom_values:[1] buckets:[1 3]}}");
    }
}
