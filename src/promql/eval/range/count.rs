//! What the windows of one series look at, and what each of them sees first.

use crate::model::histogram::FloatHistogram;
use crate::model::read::SampleColumn;
use crate::promql::eval::error::EvalError;
use crate::promql::eval::exec::Exec;
use crate::promql::eval::range::Windows;

/// Counts the windows over one series, which hold `total` samples all in all. Samples of a subquery were read there.
pub(super) fn windows(
    exec: &mut Exec<'_>,
    windows: Windows,
    column: &SampleColumn,
    total: u64,
    is_subquery: bool,
) -> Result<(), EvalError> {
    if !exec.samples.tally.has_steps() && (is_subquery || !windows.has_gaps()) {
        // Every sample is in a window, and new to the first that it is in.
        let fresh = if is_subquery || total == 0 { 0 } else { weight(column) };
        exec.samples.tally.all(total, fresh);
        return Ok(());
    }
    exec.spend(windows.steps.count())?;
    let sums = sums(&column.histograms.values);
    let (floats, histograms) = (&column.floats.timestamps, &column.histograms.timestamps);
    let weight = |from: usize, to: usize| sums.get(to).zip(sums.get(from)).map_or(0, |(to, from)| to - from);
    let (mut in_floats, mut in_histograms) = ((0, 0), (0, 0));
    for step in 0..windows.steps.count() {
        let seen = (in_floats.1, in_histograms.1);
        if step == 0 || !windows.is_pinned {
            let end_ms = windows.steps.at(step).saturating_sub(windows.offset_ms);
            let start_ms = end_ms.saturating_sub(windows.range_ms);
            for (times, (from, to)) in [(floats, &mut in_floats), (histograms, &mut in_histograms)] {
                *to += times.get(*to..).unwrap_or(&[]).partition_point(|at| *at <= end_ms);
                *from += times.get(*from..*to).unwrap_or(&[]).partition_point(|at| *at <= start_ms);
            }
        }
        let held = (in_floats.1 - in_floats.0) as u64 + weight(in_histograms.0, in_histograms.1);
        let (float_seen, histogram_seen) = (seen.0.max(in_floats.0), seen.1.max(in_histograms.0));
        let new = (in_floats.1 - float_seen) as u64 + weight(histogram_seen, in_histograms.1);
        exec.samples.tally.at_step(step, held, if is_subquery { 0 } else { new });
    }
    Ok(())
}

/// Number of samples, where a histogram counts for as many floats as it is large.
fn weight(column: &SampleColumn) -> u64 {
    let histograms: usize = column.histograms.values.iter().map(|h| h.sample_count()).sum();
    (column.floats.len() + histograms) as u64
}

/// Sizes of histograms, summed up to each.
fn sums(histograms: &[std::sync::Arc<FloatHistogram>]) -> Vec<u64> {
    let mut sums = Vec::with_capacity(histograms.len() + 1);
    let mut sum = 0;
    sums.push(sum);
    for histogram in histograms {
        sum += histogram.sample_count() as u64;
        sums.push(sum);
    }
    sums
}
