//! Values of one series over the steps of an evaluation, side by side, with presence kept apart from the values.
//!
//! Invariants: a column has at least one value; its first and its last step are present. `gaps` is `None` while every
//! step between them is present, else one bit per step, set where there is a value. So a series that lives for a part of
//! the query takes room for that part only, and the usual series takes none for presence.

/// Values at ascending steps.
#[derive(Clone, Debug)]
pub(crate) struct StepColumn {
    first: usize,
    values: Values,
    gaps: Option<Box<[u64]>>,
    present: usize,
}

/// An instant query has one value per series: it lives without an allocation of its own.
#[derive(Clone, Debug)]
enum Values {
    One(f64),
    Many(Box<[f64]>),
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
            Self::Many(values) => values,
        }
    }
}

impl StepColumn {
    /// One value.
    pub(crate) fn single(step: usize, value: f64) -> Self {
        Self { first: step, values: Values::One(value), gaps: None, present: 1 }
    }

    /// A value for every step from 0 on; `None` if there is no value.
    pub(crate) fn full(values: Vec<f64>) -> Option<Self> {
        let present = values.len();
        match values.as_slice() {
            [] => None,
            [value] => Some(Self::single(0, *value)),
            _ => Some(Self { first: 0, values: Values::Many(values.into_boxed_slice()), gaps: None, present }),
        }
    }

    /// First step with a value.
    pub(crate) fn first(&self) -> usize {
        self.first
    }

    /// Last step with a value.
    pub(crate) fn last(&self) -> usize {
        self.first + self.values.as_slice().len() - 1
    }

    /// Number of values.
    pub(crate) fn present(&self) -> usize {
        self.present
    }

    /// True if every step between the first and the last has a value.
    pub(crate) fn is_gapless(&self) -> bool {
        self.gaps.is_none()
    }

    /// The value at `step`.
    pub(crate) fn get(&self, step: usize) -> Option<f64> {
        let at = step.checked_sub(self.first)?;
        let value = *self.values.as_slice().get(at)?;
        match &self.gaps {
            Some(bits) if !bit(bits, at) => None,
            _ => Some(value),
        }
    }

    /// Steps and values in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, f64)> + '_ {
        let gaps = self.gaps.as_deref();
        let values = self.values.as_slice().iter().enumerate();
        values.filter(move |(at, _)| gaps.is_none_or(|bits| bit(bits, *at))).map(|(at, v)| (self.first + at, *v))
    }

    /// Calls `visit(step, value)` for each value in order. Faster than [`Self::iter`] for columns without gaps.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(usize, f64)) {
        let values = self.values.as_slice().iter().enumerate();
        match &self.gaps {
            None => values.for_each(|(at, value)| visit(self.first + at, *value)),
            Some(bits) => values.filter(|(at, _)| bit(bits, *at)).for_each(|(at, v)| visit(self.first + at, *v)),
        }
    }

    /// Replaces each value. What stands in the gaps is replaced too and stays invisible.
    pub(crate) fn map(&mut self, change: impl Fn(f64) -> f64) {
        for value in self.values.as_mut_slice() {
            *value = change(*value);
        }
    }

    /// Bytes on the heap.
    pub(crate) fn heap_len(&self) -> usize {
        let values = match &self.values {
            Values::One(_) => 0,
            Values::Many(values) => values.len() * 8,
        };
        values + self.gaps.as_ref().map_or(0, |bits| bits.len() * 8)
    }
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
}

impl ColumnBuilder {
    /// An empty builder.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Most bytes that a builder needs for steps below `count`, gaps included.
    pub(crate) fn len_for(count: usize) -> usize {
        count.saturating_mul(9)
    }

    /// Adds a value. Steps ascend from call to call.
    pub(crate) fn push(&mut self, step: usize, value: f64) {
        if self.values.is_empty() {
            self.first = step;
        }
        let at = step - self.first;
        debug_assert!(self.values.len() <= at, "steps must ascend");
        if self.values.len() < at || !self.bits.is_empty() {
            self.mark(at);
        }
        self.values.resize(at, f64::NAN);
        self.values.push(value);
        self.present += 1;
    }

    /// Number of values so far.
    pub(crate) fn present(&self) -> usize {
        self.present
    }

    /// The column, or `None` if nothing was added. The builder is empty afterwards and keeps its room.
    pub(crate) fn finish(&mut self) -> Option<StepColumn> {
        let column = match self.values.as_slice() {
            [] => None,
            [value] => Some(StepColumn::single(self.first, *value)),
            values => Some(StepColumn {
                first: self.first,
                values: Values::Many(values.into()),
                gaps: (!self.bits.is_empty()).then(|| self.bits.as_slice().into()),
                present: self.present,
            }),
        };
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
        column.for_each(|step, _| {
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
