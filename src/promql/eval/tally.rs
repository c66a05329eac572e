//! The count of samples that operators look at, kept as Prometheus keeps it: `totalQueryableSamples` counts the samples of
//! overlapping windows once per window, `samplesRead` once for all; both by step where that is wanted.
//!
//! A part that is evaluated at times of its own (a subquery, or what is the same at every step) has a tally of its own
//! ([`Tally::begin`]), which [`Tally::end_subquery`] and its kin add to that of the whole.

use crate::promql::eval::column::StepColumn;
use crate::promql::eval::error::EvalError;
use crate::promql::eval::exec::Exec;
use crate::promql::eval::ledger::Charge;
use crate::promql::eval::steps::Steps;

/// Counts by step, next to each other.
#[derive(Debug)]
pub struct StepCounts {
    /// Samples looked at, by step.
    pub total: Vec<u64>,
    /// Samples read, by step.
    pub read: Vec<u64>,
    _held: Charge,
}

/// What was looked at so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    total: u64,
    read: u64,
    by_step: Option<StepCounts>,
}

/// Where the results of a subquery go: each of its times counts for the first step that sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Consumer {
    /// Steps of the evaluation around the subquery.
    pub(crate) steps: Steps,
    /// How far the windows lie before their steps.
    pub(crate) offset_ms: i64,
    /// Length of the windows; 0 if there is one for everything.
    pub(crate) range_ms: i64,
    /// True if there may be times that no window sees.
    pub(crate) has_gaps: bool,
}

impl Tally {
    /// An empty tally that counts by step as well.
    pub(crate) fn by_step(exec: &Exec<'_>, steps: Steps) -> Result<Self, EvalError> {
        let held = exec.charge(steps.count().saturating_mul(16))?;
        let by_step = StepCounts { total: vec![0; steps.count()], read: vec![0; steps.count()], _held: held };
        Ok(Self { by_step: Some(by_step), ..Self::default() })
    }

    /// Samples looked at.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Samples read.
    pub(crate) fn read(&self) -> u64 {
        self.read
    }

    /// True if steps are counted one by one.
    pub(crate) fn has_steps(&self) -> bool {
        self.by_step.is_some()
    }

    /// The counts by step, if there are any.
    pub(crate) fn into_steps(self) -> Option<StepCounts> {
        self.by_step
    }

    /// Counts the values of a selector, each a sample that its step looks at and reads.
    pub(crate) fn values(&mut self, column: &StepColumn) {
        let samples = column.sample_count() as u64;
        self.total = self.total.saturating_add(samples);
        self.read = self.read.saturating_add(samples);
        if let Some(counts) = &mut self.by_step {
            column.for_each(|step, _| counts.add(step, 1, 1));
            column.histograms().iter().for_each(|(step, h)| {
                let samples = h.sample_count() as u64;
                counts.add(*step, samples, samples);
            });
        }
    }

    /// Counts samples that the step looks at, and how many of them are new to it.
    pub(crate) fn at_step(&mut self, step: usize, samples: u64, fresh: u64) {
        self.total = self.total.saturating_add(samples);
        self.read = self.read.saturating_add(fresh);
        if let Some(counts) = &mut self.by_step {
            counts.add(step, samples, fresh);
        }
    }

    /// Counts samples at no step in particular. For tallies without steps.
    pub(crate) fn all(&mut self, samples: u64, fresh: u64) {
        self.total = self.total.saturating_add(samples);
        self.read = self.read.saturating_add(fresh);
    }

    /// Begins the tally of a part: what is counted until it is ended is that part's.
    pub(crate) fn begin(exec: &mut Exec<'_>) -> Self {
        std::mem::take(&mut exec.samples.tally)
    }

    /// As [`Self::begin`] for a subquery, whose times are counted one by one where that matters to the consumer.
    pub(crate) fn begin_subquery(exec: &mut Exec<'_>, own: Steps, consumer: Consumer) -> Result<Self, EvalError> {
        let steps = consumer.steps;
        let is_plain = steps.count() <= 1 || !(consumer.has_gaps || exec.samples.tally.has_steps());
        let tally = if is_plain { Self::default() } else { Self::by_step(exec, own)? };
        Ok(std::mem::replace(&mut exec.samples.tally, tally))
    }

    /// An empty tally that counts as this one does at `steps`; `None` if it counts at other steps.
    pub(crate) fn empty_copy(&self, exec: &Exec<'_>, steps: Steps) -> Result<Option<Self>, EvalError> {
        match &self.by_step {
            None => Ok(Some(Self::default())),
            Some(counts) if counts.total.len() == steps.count() => Self::by_step(exec, steps).map(Some),
            Some(_) => Ok(None),
        }
    }

    /// Adds what another counted.
    pub(crate) fn add(&mut self, other: &Self) {
        self.total = self.total.saturating_add(other.total);
        self.read = self.read.saturating_add(other.read);
        if let (Some(counts), Some(more)) = (&mut self.by_step, &other.by_step) {
            counts.total.iter_mut().zip(&more.total).for_each(|(sum, more)| *sum = sum.saturating_add(*more));
            counts.read.iter_mut().zip(&more.read).for_each(|(sum, more)| *sum = sum.saturating_add(*more));
        }
    }

    /// Ends the tally of what is the same at every step: each looks at it, the first reads it.
    pub(crate) fn end_invariant(exec: &mut Exec<'_>, around: Self, steps: Steps) {
        let part = std::mem::replace(&mut exec.samples.tally, around);
        let tally = &mut exec.samples.tally;
        match tally.has_steps() {
            true => (0..steps.count()).for_each(|step| tally.at_step(step, part.total, 0)),
            false => tally.all(part.total.saturating_mul(steps.count() as u64), 0),
        }
        tally.at_step(0, 0, part.read);
    }

    /// Ends the tally of a subquery whose results are samples of windows: the windows count what they look at.
    pub(crate) fn end_subquery(exec: &mut Exec<'_>, around: Self, own: Steps, consumer: Consumer) {
        let part = std::mem::replace(&mut exec.samples.tally, around);
        exec.samples.tally.read_subquery(&part, own, consumer);
    }

    /// Ends the tally of a subquery that is the answer: the last step looks at everything.
    pub(crate) fn end_root_subquery(exec: &mut Exec<'_>, around: Self, own: Steps, consumer: Consumer) {
        let part = std::mem::replace(&mut exec.samples.tally, around);
        exec.samples.tally.at_step(consumer.steps.count().saturating_sub(1), part.total, 0);
        exec.samples.tally.read_subquery(&part, own, consumer);
    }

    fn read_subquery(&mut self, part: &Self, own: Steps, consumer: Consumer) {
        let steps = consumer.steps;
        let Some(counts) = part.by_step.as_ref().filter(|_| steps.count() > 1) else {
            return self.at_step(0, 0, part.read);
        };
        for (time, read) in counts.read.iter().enumerate().filter(|(_, read)| **read > 0) {
            let at_ms = own.at(time).saturating_add(consumer.offset_ms);
            let step = steps.first_at_or_after(at_ms).min(steps.count() - 1);
            let is_in_gap = consumer.range_ms > 0 && at_ms <= steps.at(step).saturating_sub(consumer.range_ms);
            if !is_in_gap {
                self.at_step(step, 0, *read);
            }
        }
    }
}

impl StepCounts {
    fn add(&mut self, step: usize, samples: u64, fresh: u64) {
        if let (Some(total), Some(read)) = (self.total.get_mut(step), self.read.get_mut(step)) {
            *total += samples;
            *read += fresh;
        }
    }
}
