//! `histogram_quantile`, `histogram_quantiles` and `histogram_fraction`. Classic histograms are series that differ in nothing
//! but `le`, each a bucket; native ones are values of their own. Where both have the same labels at a step, neither counts.

use std::collections::HashMap;

use crate::model::go;
use crate::model::histogram::FloatHistogram;
use crate::model::labels::{BUCKET, Labels};
use crate::promql::eval::annotations::{BucketRepair, for_metric_name};
use crate::promql::eval::column::{ColumnBuilder, HistogramStep, StepSet};
use crate::promql::eval::error::EvalError;
use crate::promql::eval::exec::{Exec, without_metadata};
use crate::promql::eval::ledger::{Charge, OverBudget, allocated, list_entry, shared, table_entry};
use crate::promql::eval::matrix::{Matrix, Series};
use crate::promql::eval::range::note_invalid_quantile;
use crate::promql::eval::steps::Steps;
use crate::promql::functions::histogram::{Bucket, bucket_fraction, bucket_quantile, parse_bound};
use crate::promql::functions::label::with_label;
use crate::promql::functions::native::{fraction as native_fraction, quantile as quantile_of_native};
use crate::promql::functions::note::Note;
use crate::promql::plan::Call;

/// The buckets of one histogram: bound and index of the series.
struct Histogram {
    /// Labels without `le`.
    labels: Labels,
    buckets: Vec<(f64, usize)>,
    /// Steps at which a native histogram with the same labels is in the way.
    hidden: Option<StepSet>,
}

/// What a histogram takes beside its labels: its place in the list and in the table, and the first buckets.
const HISTOGRAM_LEN: usize =
    list_entry(size_of::<Histogram>()) + table_entry(size_of::<(Labels, usize)>()) + 4 * size_of::<(f64, usize)>();

/// The histograms of a vector.
struct Histograms {
    classic: Vec<Histogram>,
    native: Vec<Native>,
    _held: Charge,
}

/// The native histograms of one series that count.
struct Native {
    labels: Labels,
    values: Vec<HistogramStep>,
}

/// `histogram_quantile(φ, v)`
pub(super) fn quantile(exec: &mut Exec<'_>, call: &Call, args: &[Matrix], steps: Steps) -> Result<Matrix, EvalError> {
    let [q, vector] = args else { return Err(wrong_arguments()) };
    check_quantiles(exec, call, 0, q, steps)?;
    let histograms = collect(exec, vector, call, 1, steps)?;
    let mut result = Matrix::new(exec)?;
    for native in &histograms.native {
        let labels = result_labels(exec, &native.labels);
        native_values(exec, call, 1, native, labels, &mut result, |step, h, notes| {
            quantile_of_native(q.scalar_at(step), h, notes)
        })?;
    }
    for histogram in &histograms.classic {
        let labels = result_labels(exec, &histogram.labels);
        quantile_of(exec, call, 1, vector, histogram, q, steps, labels, &mut result)?;
    }
    Ok(result)
}

/// `histogram_quantiles(v, label, φ…)`
pub(super) fn quantiles(
    exec: &mut Exec<'_>,
    call: &Call,
    label: &str,
    args: &[Matrix],
    steps: Steps,
) -> Result<Matrix, EvalError> {
    let Some((vector, quantiles)) = args.split_first() else { return Err(wrong_arguments()) };
    for (index, q) in quantiles.iter().enumerate() {
        check_quantiles(exec, call, index + 1, q, steps)?;
    }
    let histograms = collect(exec, vector, call, 0, steps)?;
    let mut result = Matrix::new(exec)?;
    for q in quantiles {
        let text = format_quantile(q.scalar_at(0));
        for native in &histograms.native {
            let labels = with_label(&result_labels(exec, &native.labels), label, &text);
            native_values(exec, call, 0, native, labels, &mut result, |step, h, notes| {
                quantile_of_native(q.scalar_at(step), h, notes)
            })?;
        }
        for histogram in &histograms.classic {
            let labels = with_label(&result_labels(exec, &histogram.labels), label, &text);
            quantile_of(exec, call, 0, vector, histogram, q, steps, labels, &mut result)?;
        }
    }
    Ok(result)
}

/// `histogram_fraction(lower, upper, v)`
pub(super) fn fraction(exec: &mut Exec<'_>, call: &Call, args: &[Matrix], steps: Steps) -> Result<Matrix, EvalError> {
    let [lower, upper, vector] = args else { return Err(wrong_arguments()) };
    let histograms = collect(exec, vector, call, 2, steps)?;
    let mut result = Matrix::new(exec)?;
    for native in &histograms.native {
        let labels = result_labels(exec, &native.labels);
        native_values(exec, call, 2, native, labels, &mut result, |step, h, notes| {
            native_fraction(lower.scalar_at(step), upper.scalar_at(step), h, notes)
        })?;
    }
    for histogram in &histograms.classic {
        let mut builder = ColumnBuilder::new();
        each_step(exec, vector, histogram, steps, |_, step, buckets| {
            builder.push(step, bucket_fraction(lower.scalar_at(step), upper.scalar_at(step), buckets));
            Ok(())
        })?;
        if let Some(column) = builder.finish() {
            result.push(Series { labels: result_labels(exec, &histogram.labels), drop_name: true, column })?;
        }
    }
    Ok(result)
}

fn wrong_arguments() -> EvalError {
    EvalError::Execution("histogram function with wrong arguments".to_owned())
}

fn check_quantiles(exec: &mut Exec<'_>, call: &Call, arg: usize, q: &Matrix, steps: Steps) -> Result<(), EvalError> {
    let place = call.args.get(arg).map(|node| node.range).unwrap_or_default();
    (0..steps.count()).try_for_each(|step| note_invalid_quantile(exec, q.scalar_at(step), place))
}

fn result_labels(exec: &Exec<'_>, labels: &Labels) -> Labels {
    if exec.opts.delayed_name_removal { labels.clone() } else { without_metadata(labels) }
}

/// The name that remarks carry: names are known only where they are dropped late.
fn remark_name<'a>(exec: &Exec<'_>, labels: &'a Labels) -> &'a str {
    if exec.opts.delayed_name_removal { labels.metric_name() } else { "" }
}

#[expect(clippy::too_many_arguments, reason = "one histogram of one call; a struct would only rename the arguments")]
fn quantile_of(
    exec: &mut Exec<'_>,
    call: &Call,
    vector_arg: usize,
    vector: &Matrix,
    histogram: &Histogram,
    q: &Matrix,
    steps: Steps,
    labels: Labels,
    result: &mut Matrix,
) -> Result<(), EvalError> {
    let place = call.args.get(vector_arg).map(|node| node.range).unwrap_or_default();
    let mut builder = ColumnBuilder::new();
    each_step(exec, vector, histogram, steps, |exec, step, buckets| {
        let quantile = bucket_quantile(q.scalar_at(step), buckets);
        if let Some(raised) = quantile.repair {
            let at_ms = steps.at(step);
            let repair = BucketRepair {
                min_bound: raised.min_bound,
                max_bound: raised.max_bound,
                max_raise: raised.max_raise,
                first_ms: at_ms,
                last_ms: at_ms,
                count: 1,
            };
            let name = remark_name(exec, &histogram.labels);
            exec.annotations.bucket_repair(name, repair, place)?;
        }
        builder.push(step, quantile.value);
        Ok(())
    })?;
    match builder.finish() {
        Some(column) => result.push(Series { labels, drop_name: true, column }),
        None => Ok(()),
    }
}

/// Adds what `value` gives for each native histogram of a series.
fn native_values(
    exec: &mut Exec<'_>,
    call: &Call,
    arg: usize,
    native: &Native,
    labels: Labels,
    result: &mut Matrix,
    value: impl Fn(usize, &FloatHistogram, &mut Vec<Note>) -> f64,
) -> Result<(), EvalError> {
    let place = call.args.get(arg).map(|node| node.range).unwrap_or_default();
    let name = remark_name(exec, &native.labels).to_owned();
    let mut builder = ColumnBuilder::new();
    let mut notes = Vec::new();
    for (step, histogram) in &native.values {
        exec.spend(histogram.sample_count())?;
        builder.push(*step, value(*step, histogram, &mut notes));
        for note in notes.drain(..) {
            exec.annotations.note(note, &name, place)?;
        }
    }
    match builder.finish() {
        Some(column) => result.push(Series { labels, drop_name: true, column }),
        None => Ok(()),
    }
}

/// Groups series into histograms, in the order of their first buckets. Floats without a bound are left out with a warning.
fn collect(
    exec: &mut Exec<'_>,
    vector: &Matrix,
    call: &Call,
    arg: usize,
    steps: Steps,
) -> Result<Histograms, EvalError> {
    let place = call.args.get(arg).map(|node| node.range).unwrap_or_default();
    let mut classic: Vec<Histogram> = Vec::new();
    let mut place_of: HashMap<Labels, usize> = HashMap::new();
    let mut held = exec.charge(0)?;
    let over = |over: OverBudget| EvalError::Budget(over.to_string());
    for (index, series) in vector.series.iter().enumerate() {
        exec.spend(1)?;
        if series.column.float_count() == 0 {
            continue;
        }
        let text = series.labels.get(BUCKET).unwrap_or("");
        let Some(bound) = parse_bound(text) else {
            let name = for_metric_name(remark_name(exec, &series.labels));
            let quoted = go::quote(text);
            let text = format!("bucket label \"le\" is missing or has a malformed value of {quoted}{name}");
            exec.annotations.warn(&text, place)?;
            continue;
        };
        let labels = series.labels.without(&[BUCKET]);
        held.grow(list_entry(size_of::<(f64, usize)>())).map_err(over)?;
        if !place_of.contains_key(&labels) {
            held.grow(shared(labels.encoded_len()) + HISTOGRAM_LEN).map_err(over)?;
        }
        let at = *place_of.entry(labels).or_insert_with_key(|labels| {
            classic.push(Histogram { labels: labels.clone(), buckets: Vec::new(), hidden: None });
            classic.len() - 1
        });
        classic[at].buckets.push((bound, index));
    }
    let mut native = Vec::new();
    for series in vector.series.iter().filter(|series| series.column.has_histograms()) {
        let values_len = size_of_val(series.column.histograms());
        held.grow(list_entry(size_of::<Native>()) + allocated(values_len)).map_err(over)?;
        let mut values = series.column.histograms().to_vec();
        if let Some(rival) = place_of.get(&series.labels).and_then(|at| classic.get_mut(*at)) {
            let has_bucket =
                |step: usize| rival.buckets.iter().any(|(_, index)| vector.series[*index].column.get(step).is_some());
            let in_the_way: Vec<usize> =
                values.iter().map(|(step, _)| *step).filter(|step| has_bucket(*step)).collect();
            if !in_the_way.is_empty() {
                let name = remark_name(exec, &series.labels);
                exec.annotations.note(Note::MixedClassicNative, name, place)?;
                let hidden = rival.hidden.get_or_insert_with(|| StepSet::with_steps(steps.count()));
                in_the_way.into_iter().for_each(|step| {
                    hidden.insert(step);
                });
                values.retain(|(step, _)| !hidden.contains(*step));
            }
        }
        native.push(Native { labels: series.labels.clone(), values });
    }
    Ok(Histograms { classic, native, _held: held })
}

/// Calls `visit(step, buckets)` for each step at which the histogram has buckets.
fn each_step(
    exec: &mut Exec<'_>,
    vector: &Matrix,
    histogram: &Histogram,
    steps: Steps,
    mut visit: impl FnMut(&mut Exec<'_>, usize, &mut Vec<Bucket>) -> Result<(), EvalError>,
) -> Result<(), EvalError> {
    let _held = exec.charge(ColumnBuilder::len_for(steps.count()) + histogram.buckets.len() * size_of::<Bucket>())?;
    let mut buckets = Vec::with_capacity(histogram.buckets.len());
    for step in 0..steps.count() {
        buckets.clear();
        if histogram.hidden.as_ref().is_some_and(|hidden| hidden.contains(step)) {
            continue;
        }
        for (upper_bound, index) in &histogram.buckets {
            if let Some(count) = vector.series[*index].column.get(step) {
                buckets.push(Bucket { upper_bound: *upper_bound, count });
            }
        }
        exec.spend(histogram.buckets.len())?;
        if !buckets.is_empty() {
            visit(exec, step, &mut buckets)?;
        }
    }
    Ok(())
}

/// A quantile as a label value, in OpenMetrics form: always with a point or an exponent.
fn format_quantile(q: f64) -> String {
    let text = go::format_float_g(q);
    if !q.is_finite() || text.contains(['e', '.']) { text } else { format!("{text}.0") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_print_as_in_openmetrics() {
        assert_eq!([0.5, 1.0, 0.0, 1e-7].map(format_quantile), ["0.5", "1.0", "0.0", "1e-07"]);
        assert_eq!(format_quantile(f64::NAN), "NaN");
    }
}
