//! Aggregations of stored series at one time, without the label sets of these: a series counts for its group, which is that of its
//! class, by a number alone.
//!
//! What the usual way does is done here for all series at once: the same values are folded in the same order, and the same samples
//! counted. Where that is not so easily said (histograms, start times, names that make a difference, errors) nothing is done, and
//! the aggregation goes the usual way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use hashbrown::HashMap;

use crate::model::labels::{Labels, METRIC_NAME};
use crate::model::read::{ClassedSeries, LookedAt, SampleColumn, Wanted};
use crate::promql::eval::Helpers;
use crate::promql::eval::aggregate::{Folding, fold_with, group_labels};
use crate::promql::eval::column::StepColumn;
use crate::promql::eval::common;
use crate::promql::eval::error::EvalError;
use crate::promql::eval::exec::{Complete, Exec, Pace, SeriesWorker, is_metadata, without_metadata};
use crate::promql::eval::matching::write_key;
use crate::promql::eval::matrix::{Matrix, Series};
use crate::promql::eval::parallel::{self, Threads};
use crate::promql::eval::range::{Once, is_for_counters, note_unlikely_counter};
use crate::promql::eval::selector::Lookup;
use crate::promql::eval::steps::Steps;
use crate::promql::plan::{Aggregate, Fold, Grouping, Node, Operation, RangeCall, Selector};

/// Series that a thread takes at a time.
const BLOCK_LEN: usize = 512;

/// The labels that say what a metric is.
const METADATA: [&str; 3] = ["__name__", "__type__", "__unit__"];

/// What is aggregated.
#[derive(Clone, Copy)]
enum Source<'a> {
    Newest(&'a Selector),
    Windows(&'a RangeCall),
}

/// How a series becomes a value. Each thread has its own.
enum Valuer<'a> {
    Newest(Lookup),
    Window(Once<'a>),
}

/// What a block of series gave.
#[derive(Default)]
struct Block {
    /// Class and value of each series that has one.
    classes: Vec<u32>,
    values: Vec<f64>,
    /// Samples that were looked at, and read.
    total: u64,
    fresh: u64,
    /// Most samples held at once beside those of the blocks before.
    peak: usize,
}

/// The aggregation's value, if it can be had without the label sets of the series.
pub(super) fn eval(exec: &mut Exec<'_>, aggregate: &Aggregate, steps: Steps) -> Result<Option<Matrix>, EvalError> {
    let Some((source, selector)) = source_of(exec, aggregate, steps) else { return Ok(None) };
    let Some(valuer) = Valuer::of(exec, source, steps) else { return Ok(None) };
    let range_ms = valuer.range_ms(selector);
    let names = looked_at(&aggregate.grouping);
    let looked_at = if aggregate.grouping.without { LookedAt::AllBut(&names) } else { LookedAt::Only(&names) };
    let Some((series, _held)) = exec.select_classed(&selector.matchers, range_ms, looked_at)? else {
        // If the query has been stopped, it ends here.
        exec.check()?;
        return Ok(None);
    };
    let loses_name = match source {
        Source::Newest(_) => false,
        Source::Windows(call) => !call.function.keeps_name(),
    };
    if loses_name && !differ_without_names(series.classes()) {
        return Ok(None);
    }
    let Some((blocks, _blocks_held)) = blocks_of(exec, source, &*series, range_ms, steps)? else {
        exec.check()?;
        return Ok(None);
    };
    let before = exec.samples.current();
    for block in &blocks {
        exec.spend(block.values.len())?;
        exec.samples.probe(block.peak)?;
        exec.samples.hold(block.values.len())?;
        exec.samples.tally.all(block.total, block.fresh);
    }
    let groups = Groups::of(exec, &blocks, series.classes(), &aggregate.grouping, loses_name)?;
    if let (Source::Windows(call), Some(class)) = (source, groups.first_class)
        && is_for_counters(&call.function)
        && let Some(labels) = series.classes().get(class as usize)
    {
        // All have the same name.
        note_unlikely_counter(exec, labels, call.source_range)?;
    }
    let folding = InOrder { blocks: &blocks, groups: &groups };
    let values = fold_with(&aggregate.fold, folding).unwrap_or_default();
    let mut result = Matrix::new(exec)?;
    for (labels, value) in groups.labels.into_iter().zip(values) {
        result.push(Series { labels, drop_name: loses_name, column: StepColumn::single(0, value) })?;
    }
    exec.samples.settle(before, result.sample_count());
    Ok(Some(result))
}

/// What is aggregated, if it is a matter of floats of one selector that nobody else looks at.
fn source_of<'a>(exec: &Exec<'_>, aggregate: &'a Aggregate, steps: Steps) -> Option<(Source<'a>, &'a Selector)> {
    let opts = exec.opts;
    let names_matter = opts.delayed_name_removal || opts.type_and_unit_labels;
    let is_plain = opts.shortcuts.classes && steps.count() == 1 && !names_matter && !exec.samples.tally.has_steps();
    if !is_plain || matches!(aggregate.fold, Fold::Quantile | Fold::CountValues { .. }) {
        return None;
    }
    let inner: &Node = &aggregate.inner;
    let (source, selector) = match &inner.operation {
        Operation::Select(selector) => (Source::Newest(selector), selector),
        Operation::RangeCall(call) => (Source::Windows(call), &Once::of(exec, call, steps)?.1.selector),
        _ => return None,
    };
    common::is_asked_once(exec, inner, selector).then_some((source, selector))
}

/// The names of labels that the grouping looks at or does not, besides what remarks and names that are dropped need.
fn looked_at(grouping: &Grouping) -> Vec<&str> {
    let own = grouping.labels.iter().map(String::as_str).filter(|name| !is_metadata(name.as_bytes()));
    if grouping.without { own.collect() } else { own.chain(METADATA).collect() }
}

/// True if series that differ still do when they have lost their names: all have the same.
fn differ_without_names(classes: &[Labels]) -> bool {
    let Some(first) = classes.first().map(Labels::metric_name) else { return true };
    let others =
        |labels: &Labels| labels.iter_raw().any(|pair| is_metadata(pair.name) && pair.name != METRIC_NAME.as_bytes());
    classes.iter().all(|labels| labels.metric_name() == first && !others(labels))
}

impl<'a> Valuer<'a> {
    fn of(exec: &Exec<'_>, source: Source<'a>, steps: Steps) -> Option<Self> {
        Some(match source {
            Source::Newest(selector) => Self::Newest(Lookup::of(selector, steps, exec.opts.lookback_ms)),
            Source::Windows(call) => Self::Window(Once::of(exec, call, steps)?.0),
        })
    }

    fn range_ms(&self, selector: &Selector) -> (i64, i64) {
        selector.clip(match self {
            Self::Newest(lookup) => lookup.time_range(),
            Self::Window(once) => once.time_range(),
        })
    }

    /// Adds the value of a series, which has floats alone.
    fn add(
        &mut self,
        pace: &mut Pace<'_>,
        class: u32,
        column: &mut SampleColumn,
        block: &mut Block,
    ) -> Result<(), EvalError> {
        let held = block.values.len();
        let value = match self {
            Self::Newest(lookup) => {
                let mut value = None;
                lookup.for_each(&column.floats, |_, sample| value = column.floats.values.get(sample).copied());
                block.total += u64::from(value.is_some());
                block.fresh += u64::from(value.is_some());
                value
            }
            Self::Window(once) => {
                let found = once.value(pace, column)?;
                block.total += found.len as u64;
                block.fresh += found.fresh as u64;
                // As the windows of one series after the other are held beside the results of those before.
                block.peak = block.peak.max(held + found.len + usize::from(found.value.is_some()));
                found.value
            }
        };
        if let Some(value) = value {
            block.classes.push(class);
            block.values.push(value);
        }
        block.peak = block.peak.max(block.values.len());
        Ok(())
    }
}

/// The values of all series, block by block, with what they hold; `None` if there is more to some than floats.
fn blocks_of(
    exec: &mut Exec<'_>,
    source: Source<'_>,
    series: &dyn ClassedSeries,
    range_ms: (i64, i64),
    steps: Steps,
) -> Result<Option<(Vec<Block>, crate::promql::eval::ledger::Charge)>, EvalError> {
    let (ctx, shortcuts, count) = (exec.ctx, exec.opts.shortcuts, series.series_count());
    let wanted = match source {
        Source::Newest(_) if shortcuts.newest_only => Wanted::Newest,
        _ => Wanted::All,
    };
    let block_len = if shortcuts.helpers == Helpers::Always { 2 } else { BLOCK_LEN };
    let ranges: Vec<_> = (0..count).step_by(block_len).map(|from| from..count.min(from + block_len)).collect();
    let samples = usize::try_from(range_ms.1.saturating_sub(range_ms.0) / 15_000).unwrap_or(0);
    let threads = match Threads::for_series(shortcuts.helpers, count, samples) {
        Threads::One => Threads::One,
        Threads::Many(_) => Threads::Many(1),
    };
    let (opts_exec, gives_up) = (&*exec, AtomicBool::new(false));
    let begin = || {
        let valuer = Valuer::of(opts_exec, source, steps);
        Ok((SeriesWorker::begin(ctx)?, valuer))
    };
    let work = |(worker, valuer): &mut (SeriesWorker<'_>, Option<Valuer<'_>>), numbers: &std::ops::Range<usize>| {
        let mut block = Block::default();
        let Some(valuer) = valuer.as_mut().filter(|_| !gives_up.load(Ordering::Relaxed)) else { return Ok(None) };
        block.classes.reserve_exact(numbers.len());
        block.values.reserve_exact(numbers.len());
        worker.hold(numbers.len() * (size_of::<u32>() + size_of::<f64>()) + size_of::<Block>())?;
        let (decoder, pace) = (&mut worker.decoder, &mut worker.pace);
        let complete = decoder.decode_classed(series, numbers.clone(), range_ms, wanted, |class, column| {
            if !column.histograms.is_empty() {
                return Ok(false);
            }
            pace.spend(column.len())?;
            valuer.add(pace, class, column, &mut block).map(|()| true)
        })?;
        if complete == Complete::No {
            gives_up.store(true, Ordering::Relaxed);
            return Ok(None);
        }
        Ok(Some(block))
    };
    let held = Mutex::new(exec.charge(0)?);
    let end = |(worker, _): (SeriesWorker<'_>, Option<Valuer<'_>>)| worker.end(&held);
    let mut blocks = Vec::with_capacity(ranges.len());
    let outcome = parallel::in_order(&ranges, threads, begin, work, end, |_, block| {
        blocks.extend(block);
        Ok(())
    });
    // An error shows again on the usual way, in its turn.
    let is_whole = outcome.is_ok() && blocks.len() == ranges.len();
    Ok(is_whole.then(|| (blocks, held.into_inner().unwrap_or_else(PoisonError::into_inner))))
}

/// The groups of classes that have values, in the order of their first values.
struct Groups {
    labels: Vec<Labels>,
    /// By class.
    of_class: Vec<usize>,
    first_class: Option<u32>,
}

impl Groups {
    fn of(
        exec: &mut Exec<'_>,
        blocks: &[Block],
        classes: &[Labels],
        grouping: &Grouping,
        loses_name: bool,
    ) -> Result<Self, EvalError> {
        const UNKNOWN: usize = usize::MAX;
        let mut groups = Self { labels: Vec::new(), of_class: vec![UNKNOWN; classes.len()], first_class: None };
        let mut number_of: HashMap<Vec<u8>, usize, foldhash::fast::RandomState> = HashMap::default();
        let mut key = Vec::new();
        for class in blocks.iter().flat_map(|block| &block.classes) {
            let place = *class as usize;
            let (Some(number), Some(labels)) = (groups.of_class.get_mut(place), classes.get(place)) else { continue };
            if *number != UNKNOWN {
                continue;
            }
            exec.spend(1)?;
            groups.first_class.get_or_insert(*class);
            let labels = if loses_name { without_metadata(labels) } else { labels.clone() };
            write_key(&labels, &grouping.labels, !grouping.without, &mut key);
            *number = *number_of.entry_ref(key.as_slice()).or_insert_with(|| {
                groups.labels.push(group_labels(&labels, grouping));
                groups.labels.len() - 1
            });
        }
        Ok(groups)
    }
}

/// Values that are folded in the order of their series.
struct InOrder<'a> {
    blocks: &'a [Block],
    groups: &'a Groups,
}

impl Folding for InOrder<'_> {
    /// A value for each group.
    type Output = Vec<f64>;
    fn run<S: Copy>(
        self,
        first: impl Fn(f64) -> S,
        add: impl Fn(&mut S, f64),
        finish: impl Fn(S) -> f64,
    ) -> Self::Output {
        let mut states: Vec<Option<S>> = vec![None; self.groups.labels.len()];
        for block in self.blocks {
            for (class, value) in block.classes.iter().zip(&block.values) {
                let group = self.groups.of_class.get(*class as usize).and_then(|group| states.get_mut(*group));
                match group {
                    Some(Some(state)) => add(state, *value),
                    Some(empty) => *empty = Some(first(*value)),
                    None => {}
                }
            }
        }
        // Each group has a value.
        states.into_iter().map(|state| state.map_or(f64::NAN, &finish)).collect()
    }
}
