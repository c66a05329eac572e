//! Values of one series over the steps of an evaluation, side by side, with presence kept apart from the values.
//!
//! A column has floats, histograms, or both at different steps. Floats lie in an array from the first to the last; `gaps`
//! is `None` while every step between them is present, else one bit per step, set where there is a value. So a series that
//! lives for a part of the query takes room for that part only, and the usual series takes none for presence. Histograms
//! stand in a list beside them, which the usual series does not have.
//! Invariants: a column has at least one value; its first and its last float are present; no step has two values.

use std::sync::Arc;

use crate::model::histogram::FloatHistogram;
use crate::promql::eval::ledger::{allocated, list_entry, shared};

/// Values at ascending steps.
#[derive(Clone, Debug)]
pub(crate) struct StepColumn {
    first: usize,
    values: Values,
    gaps: Option<Box<[u64]>>,
    present: usize,
    histograms: Option<Box<[HistogramStep]>>,
}

/// A histogram and its step.
pub(crate) type HistogramStep = (usize, Arc<FloatHistogram>);

/// The value at a step.
#[derive(Clone, Copy, Debug)]
pub(crate) enum StepValue<'a> {
    /// A float.
    Float(f64),
    /// A histogram.
    Histogram(&'a Arc<FloatHistogram>),
}

/// An instant query has one value per series: it lives without an allocation of its own.
#[derive(Clone, Debug)]
enum Values {
    One(f64),
    /// Shared by copies, and copied by who changes them.
    Many(Arc<[f64]>),
}

impl Values {
    fn as_slice(&self) -> &[f64] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Many(values) => values,
        }
    }

    fn as_mut_slice(&mut self) -> &mut [f64] {
        match self {
            Self::One(value) => std::slice::from_mut(value),
            Self::Many(values) => Arc::make_mut(values),
        }
    }
}

impl StepColumn {
    /// One value.
    pub(crate) fn single(step: usize, value: f64) -> Self {
        Self { first: step, values: Values::One(value), gaps: None, present: 1, histograms: None }
    }

    /// A value for every step from 0 on; `None` if there is no value.
    pub(crate) fn full(values: Vec<f64>) -> Option<Self> {
        let present = values.len();
        match values.as_slice() {
            [] => None,
            [value] => Some(Self::single(0, *value)),
            _ => {
                let values = Values::Many(values.into());
                Some(Self { first: 0, values, gaps: None, present, histograms: None })
            }
        }
    }

    /// First step with a value.
    pub(crate) fn first(&self) -> usize {
        match (self.float_ends(), self.histograms().first()) {
            (Some((first, _)), Some((step, _))) => first.min(*step),
            (Some((first, _)), None) => first,
            (None, Some((step, _))) => *step,
            (None, None) => self.first,
        }
    }

    /// Last step with a value.
    pub(crate) fn last(&self) -> usize {
        match (self.float_ends(), self.histograms().last()) {
            (Some((_, last)), Some((step, _))) => last.max(*step),
            (Some((_, last)), None) => last,
            (None, Some((step, _))) => *step,
            (None, None) => self.first,
        }
    }

    /// First and last step with a float.
    pub(crate) fn float_ends(&self) -> Option<(usize, usize)> {
        self.values.as_slice().len().checked_sub(1).map(|more| (self.first, self.first + more))
    }

    /// Number of values.
    pub(crate) fn present(&self) -> usize {
        self.present + self.histograms().len()
    }

    /// Number of floats.
    pub(crate) fn float_count(&self) -> usize {
        self.present
    }

    /// Number of values, where a histogram counts for as many floats as it is large.
    pub(crate) fn sample_count(&self) -> usize {
        self.present + self.histograms().iter().map(|(_, h)| h.sample_count()).sum::<usize>()
    }

    /// True if every step between the first and the last float has a float.
    pub(crate) fn is_gapless(&self) -> bool {
        self.gaps.is_none()
    }

    /// True if a value is a histogram.
    pub(crate) fn has_histograms(&self) -> bool {
        self.histograms.is_some()
    }

    /// The histograms in the order of their steps.
    pub(crate) fn histograms(&self) -> &[HistogramStep] {
        self.histograms.as_deref().unwrap_or(&[])
    }

    /// The float at `step`.
    pub(crate) fn get(&self, step: usize) -> Option<f64> {
        let at = step.checked_sub(self.first)?;
        let value = *self.values.as_slice().get(at)?;
        match &self.gaps {
            Some(bits) if !bit(bits, at) => None,
            _ => Some(value),
        }
    }

    /// The histogram at `step`.
    pub(crate) fn histogram_at(&self, step: usize) -> Option<&Arc<FloatHistogram>> {
        let histograms = self.histograms.as_deref()?;
        let place = histograms.binary_search_by_key(&step, |(at, _)| *at).ok()?;
        histograms.get(place).map(|(_, histogram)| histogram)
    }

    /// The value at `step`.
    pub(crate) fn value_at(&self, step: usize) -> Option<StepValue<'_>> {
        match self.get(step) {
            Some(value) => Some(StepValue::Float(value)),
            None => self.histogram_at(step).map(StepValue::Histogram),
        }
    }

    /// True if there is a value at `step`.
    pub(crate) fn has(&self, step: usize) -> bool {
        self.value_at(step).is_some()
    }

    /// Steps and floats in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, f64)> + '_ {
        let gaps = self.gaps.as_deref();
        let values = self.values.as_slice().iter().enumerate();
        values.filter(move |(at, _)| gaps.is_none_or(|bits| bit(bits, *at))).map(|(at, v)| (self.first + at, *v))
    }

    /// Calls `visit(step, value)` for each float in order. Faster than [`Self::iter`] for columns without gaps.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(usize, f64)) {
        let values = self.values.as_slice().iter().enumerate();
        match &self.gaps {
            None => values.for_each(|(at, value)| visit(self.first + at, *value)),
            Some(bits) => values.filter(|(at, _)| bit(bits, *at)).for_each(|(at, v)| visit(self.first + at, *v)),
        }
    }

    /// Calls `visit(step)` for each step with a value: first those with floats in order, then those with histograms.
    pub(crate) fn for_each_step(&self, mut visit: impl FnMut(usize)) {
        self.for_each(|step, _| visit(step));
        self.histograms().iter().for_each(|(step, _)| visit(*step));
    }

    /// All values in the order of their steps.
    pub(crate) fn values(&self) -> impl Iterator<Item = (usize, StepValue<'_>)> + '_ {
        let mut floats = self.iter().peekable();
        let mut histograms = self.histograms().iter().peekable();
        std::iter::from_fn(move || {
            let is_float_next = match (floats.peek(), histograms.peek()) {
                (Some((float, _)), Some((histogram, _))) => float < histogram,
                (float, _) => float.is_some(),
            };
            if is_float_next {
                return floats.next().map(|(step, value)| (step, StepValue::Float(value)));
            }
            histograms.next().map(|(step, histogram)| (*step, StepValue::Histogram(histogram)))
        })
    }

    /// Replaces each float. What stands in the gaps is replaced too and stays invisible.
    pub(crate) fn map(&mut self, change: impl Fn(f64) -> f64) {
        for value in self.values.as_mut_slice() {
            *value = change(*value);
        }
    }

    /// Changes each histogram; neighbours that share one share the changed one.
    pub(crate) fn map_histograms(&mut self, change: impl Fn(&mut FloatHistogram)) {
        let mut before: Option<(Arc<FloatHistogram>, Arc<FloatHistogram>)> = None;
        for (_, histogram) in self.histograms.iter_mut().flatten() {
            let changed = match &before {
                Some((from, to)) if Arc::ptr_eq(from, histogram) => Arc::clone(to),
                _ => {
                    let mut changed = FloatHistogram::clone(histogram);
                    change(&mut changed);
                    let changed = Arc::new(changed);
                    before = Some((Arc::clone(histogram), Arc::clone(&changed)));
                    changed
                }
            };
            *histogram = changed;
        }
    }

    /// Takes the histograms out; false if no value is left, so that the column is none any more.
    pub(crate) fn drop_histograms(&mut self) -> bool {
        self.histograms = None;
        self.present > 0
    }

    /// Bytes on the heap. A histogram that neighbours share counts once.
    pub(crate) fn heap_len(&self) -> usize {
        let values = match &self.values {
            Values::One(_) => 0,
            Values::Many(values) => shared(values.len() * 8),
        };
        let histograms = self.histograms.as_ref().map_or(0, |histograms| histograms_len(histograms));
        values + self.gaps.as_ref().map_or(0, |bits| allocated(bits.len() * 8)) + histograms
    }
}

/// Bytes that histograms take; one that neighbours share counts once.
pub(crate) fn histograms_len(histograms: &[HistogramStep]) -> usize {
    let mut bytes = allocated(size_of_val(histograms));
    let mut before: Option<&Arc<FloatHistogram>> = None;
    for (_, histogram) in histograms {
        if before.is_none_or(|before| !Arc::ptr_eq(before, histogram)) {
            bytes += histogram.memory_len();
        }
        before = Some(histogram);
    }
    bytes
}

fn bit(bits: &[u64], at: usize) -> bool {
    bits.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
}

/// Collects values at ascending steps; used again for one series after the other.
#[derive(Debug, Default)]
pub(crate) struct ColumnBuilder {
    first: usize,
    values: Vec<f64>,
    /// Empty until the first gap.
    bits: Vec<u64>,
    present: usize,
    histograms: Vec<HistogramStep>,
}

impl ColumnBuilder {
    /// An empty builder.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Most bytes that a builder needs for steps below `count`, gaps included, as it grows.
    pub(crate) fn len_for(count: usize) -> usize {
        count.saturating_mul(Self::STEP_LEN)
    }

    /// What a step takes in a builder that grows.
    pub(crate) const STEP_LEN: usize = list_entry(size_of::<f64>()) + 1;

    /// Adds a value. Steps ascend from call to call.
    #[inline]
    pub(crate) fn push(&mut self, step: usize, value: f64) {
        if self.values.is_empty() {
            self.first = step;
        }
        if self.bits.is_empty() && step - self.first == self.values.len() {
            self.values.push(value);
            self.present += 1;
            return;
        }
        self.push_with_gaps(step, value);
    }

    /// The first float; nothing is left.
    pub(crate) fn take_first(&mut self) -> Option<f64> {
        let first = self.values.first().copied();
        self.values.clear();
        self.bits.clear();
        self.histograms.clear();
        self.present = 0;
        first
    }

    #[inline(never)]
    fn push_with_gaps(&mut self, step: usize, value: f64) {
        let at = step - self.first;
        debug_assert!(self.values.len() <= at, "steps must ascend");
        if self.values.len() < at || !self.bits.is_empty() {
            self.mark(at);
        }
        self.values.resize(at, f64::NAN);
        self.values.push(value);
        self.present += 1;
    }

    /// Adds a histogram. Steps ascend from call to call, and have no float.
    pub(crate) fn push_histogram(&mut self, step: usize, histogram: Arc<FloatHistogram>) {
        debug_assert!(self.histograms.last().is_none_or(|(last, _)| *last < step), "steps must ascend");
        self.histograms.push((step, histogram));
    }

    /// Adds a value of either kind.
    pub(crate) fn push_value(&mut self, step: usize, value: StepValue<'_>) {
        match value {
            StepValue::Float(value) => self.push(step, value),
            StepValue::Histogram(histogram) => self.push_histogram(step, Arc::clone(histogram)),
        }
    }

    /// Number of floats so far.
    pub(crate) fn present(&self) -> usize {
        self.present
    }

    /// Number of values so far, where a histogram counts for as many floats as it is large.
    pub(crate) fn sample_count(&self) -> usize {
        self.present + self.histograms.iter().map(|(_, h)| h.sample_count()).sum::<usize>()
    }

    /// The column, or `None` if nothing was added. The builder is empty afterwards and keeps its room.
    pub(crate) fn finish(&mut self) -> Option<StepColumn> {
        let mut column = match self.values.as_slice() {
            [] => None,
            [value] => Some(StepColumn::single(self.first, *value)),
            values => Some(StepColumn {
                first: self.first,
                values: Values::Many(values.into()),
                gaps: (!self.bits.is_empty()).then(|| self.bits.as_slice().into()),
                present: self.present,
                histograms: None,
            }),
        };
        if !self.histograms.is_empty() {
            let no_floats = || StepColumn {
                first: 0,
                values: Values::Many(Arc::default()),
                gaps: None,
                present: 0,
                histograms: None,
            };
            column.get_or_insert_with(no_floats).histograms = Some(self.histograms.drain(..).collect());
        }
        self.values.clear();
        self.bits.clear();
        self.present = 0;
        column
    }

    fn mark(&mut self, at: usize) {
        if self.bits.is_empty() {
            // The first gap: everything before it is present.
            let held = self.values.len();
            self.bits.resize(held / 64, u64::MAX);
            if !held.is_multiple_of(64) {
                self.bits.push((1 << (held % 64)) - 1);
            }
        }
        self.bits.resize(at / 64 + 1, 0);
        if let Some(word) = self.bits.get_mut(at / 64) {
            *word |= 1 << (at % 64);
        }
    }
}

/// A set of steps.
#[derive(Clone, Debug, Default)]
pub(crate) struct StepSet {
    bits: Vec<u64>,
}

impl StepSet {
    /// An empty set with room for steps below `count`.
    pub(crate) fn with_steps(count: usize) -> Self {
        Self { bits: vec![0; count.div_ceil(64)] }
    }

    /// Bytes that [`Self::with_steps`] allocates.
    pub(crate) fn len_for(count: usize) -> usize {
        count.div_ceil(64) * 8
    }

    /// True if `step` is in the set.
    pub(crate) fn contains(&self, step: usize) -> bool {
        bit(&self.bits, step)
    }

    /// Adds `step`; false if it was in the set before.
    pub(crate) fn insert(&mut self, step: usize) -> bool {
        let Some(word) = self.bits.get_mut(step / 64) else {
            debug_assert!(false, "step {step} lies outside the evaluation");
            return false;
        };
        let fresh = *word >> (step % 64) & 1 == 0;
        *word |= 1 << (step % 64);
        fresh
    }

    /// Adds the steps of a column.
    pub(crate) fn insert_column(&mut self, column: &StepColumn) {
        column.for_each_step(|step| {
            self.insert(step);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_column_gives_back_what_was_pushed(steps in prop::collection::btree_set(0usize..400, 0..80)) {
            let mut builder = ColumnBuilder::new();
            for round in 0..2 {
                for step in &steps {
                    builder.push(*step, (*step + round) as f64);
                }
                let expected: Vec<_> = steps.iter().map(|s| (*s, (*s + round) as f64)).collect();
                match builder.finish() {
                    None => prop_assert!(steps.is_empty()),
                    Some(column) => {
                        prop_assert_eq!(column.iter().collect::<Vec<_>>(), expected.clone());
                        let mut visited = Vec::new();
                        column.for_each(|s, v| visited.push((s, v)));
                        prop_assert_eq!(visited, expected);
                        prop_assert_eq!(column.present(), steps.len());
                        for step in 0..410 {
                            prop_assert_eq!(column.get(step).is_some(), steps.contains(&step));
                        }
                        prop_assert_eq!(Some(&column.last()), steps.last());
                    }
                }
            }
        }
    }
}
