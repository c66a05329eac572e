//! Classic histograms as native ones with listed bounds: what `load_with_nhcb` stores beside them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::append::HistogramValue;
use crate::model::histogram::classic::ClassicHistogram;
use crate::model::labels::{BUCKET, Labels, METRIC_NAME};
use crate::model::read::SampleColumn;
use crate::promql::parse_bucket_bound;
use crate::promql::parser::SequenceValue;
use crate::promqltest::script::LoadCommand;
use crate::promqltest::show;

/// The native histograms of a `load`, by series.
pub(crate) fn converted(load: &LoadCommand) -> Result<Vec<(Labels, SampleColumn)>, String> {
    let mut histograms: BTreeMap<Labels, BTreeMap<i64, ClassicHistogram>> = BTreeMap::new();
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
            let set = match part {
                Part::Bucket => parts.set_bucket(bound, *value),
                Part::Count => parts.set_count(*value),
                Part::Sum => {
                    parts.set_sum(*value);
                    Ok(())
                }
            };
            set.map_err(|error| format!("{}: {error}", show::Series(&series.labels)))?;
        }
    }
    let mut all = Vec::new();
    for (labels, at_times) in histograms {
        let mut column = SampleColumn::default();
        for (at_ms, parts) in at_times {
            let fail = |error: String| format!("{} at {at_ms} ms: {error}", show::Series(&labels));
            let histogram = parts.convert().map_err(fail)?;
            histogram.validate().map_err(|error| fail(error.to_string()))?;
            let histogram = match histogram {
                HistogramValue::Integer(histogram) => Arc::new(histogram.to_float()),
                HistogramValue::Float(histogram) => histogram,
            };
            column.push_histogram(at_ms, 0, histogram);
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
