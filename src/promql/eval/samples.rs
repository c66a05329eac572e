//! The count of samples that a query holds, kept as Prometheus keeps it: `--query.max-samples` gives the same verdicts and
//! `stats` the same figures, though nothing here is evaluated step by step.

use crate::model::histogram::FloatHistogram;
use crate::promql::eval::error::EvalError;
use crate::promql::eval::matrix::Matrix;
use crate::promql::eval::steps::Steps;
use crate::promql::eval::tally::Tally;

/// Samples held now, at most, and looked at.
#[derive(Debug)]
pub(crate) struct SampleCount {
    current: usize,
    limit: usize,
    peak: usize,
    /// Most that was checked against the limit, since the last mark.
    probed: usize,
    /// Samples that operators looked at.
    pub(crate) tally: Tally,
}

impl SampleCount {
    /// A count under `limit`.
    pub(crate) fn new(limit: usize) -> Self {
        Self { current: 0, limit, peak: 0, probed: 0, tally: Tally::default() }
    }

    /// Samples held now.
    pub(crate) fn current(&self) -> usize {
        self.current
    }

    /// Most samples held at once.
    pub(crate) fn peak(&self) -> usize {
        self.peak
    }

    /// Holds `samples` more.
    pub(crate) fn hold(&mut self, samples: usize) -> Result<(), EvalError> {
        self.probe(samples)?;
        self.current += samples;
        Ok(())
    }

    /// Errors if `samples` more could not be held; they count for the peak.
    pub(crate) fn probe(&mut self, samples: usize) -> Result<(), EvalError> {
        let held = self.current.saturating_add(samples);
        if held > self.limit {
            return Err(EvalError::TooManySamples);
        }
        self.peak = self.peak.max(held);
        self.probed = self.probed.max(held);
        Ok(())
    }

    /// Lets go of `samples`.
    pub(crate) fn release(&mut self, samples: usize) {
        self.current = self.current.saturating_sub(samples);
    }

    /// Begins to watch what is held from now on.
    pub(crate) fn mark(&mut self) -> Mark {
        let peak = std::mem::replace(&mut self.peak, self.current);
        Mark { before: self.current, peak, probed: std::mem::replace(&mut self.probed, self.current) }
    }

    /// What was held since the mark.
    pub(crate) fn footprint(&mut self, mark: Mark) -> Footprint {
        let above = |count: usize| count.saturating_sub(mark.before);
        let footprint = Footprint { probed: above(self.probed), most: above(self.peak), left: above(self.current) };
        self.peak = self.peak.max(mark.peak);
        self.probed = self.probed.max(mark.probed);
        footprint
    }

    /// Holds samples once more as they were held before.
    pub(crate) fn leave(&mut self, footprint: Footprint) -> Result<(), EvalError> {
        self.probe(footprint.probed)?;
        self.peak = self.peak.max(self.current.saturating_add(footprint.most));
        self.current = self.current.saturating_add(footprint.left);
        Ok(())
    }

    /// An operator is done that held `before` when it began: what remains of it is its result.
    pub(crate) fn settle(&mut self, before: usize, result: usize) {
        self.current = before.saturating_add(result);
        self.peak = self.peak.max(self.current);
    }
}

/// Since when what is held is watched.
#[derive(Debug)]
pub(crate) struct Mark {
    before: usize,
    peak: usize,
    probed: usize,
}

/// Samples that a part of the query held: at most where the limit was looked at, at most, and as its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Footprint {
    probed: usize,
    most: usize,
    left: usize,
}

/// How many series have a value, for each step.
#[derive(Debug)]
pub(crate) struct StepLoad {
    counts: Vec<u32>,
}

impl StepLoad {
    /// No series.
    pub(crate) fn new(steps: Steps) -> Self {
        Self { counts: vec![0; steps.count()] }
    }

    /// Bytes that [`Self::new`] allocates.
    pub(crate) fn len_for(steps: Steps) -> usize {
        steps.count().saturating_mul(4)
    }

    /// Adds one value.
    pub(crate) fn add_one(&mut self, step: usize) {
        if let Some(count) = self.counts.get_mut(step) {
            *count = count.saturating_add(1);
        }
    }

    /// Adds the series of a matrix that are gathered: each value counts once.
    pub(crate) fn add(&mut self, matrix: &Matrix) {
        self.add_weighted(matrix, |_| 1);
    }

    /// Adds the series of a matrix that are produced: a histogram counts by its size, and once more.
    pub(crate) fn add_output(&mut self, matrix: &Matrix) {
        self.add_weighted(matrix, |histogram| u32::try_from(1 + histogram.size() / 16).unwrap_or(u32::MAX));
    }

    fn add_weighted(&mut self, matrix: &Matrix, weight: impl Fn(&FloatHistogram) -> u32) {
        // Series without gaps are counted by their ends.
        let mut starts_less_ends = vec![0i64; self.counts.len() + 1];
        for series in &matrix.series {
            let column = &series.column;
            match column.float_ends() {
                Some((first, last)) if column.is_gapless() => {
                    starts_less_ends[first] += 1;
                    starts_less_ends[last + 1] -= 1;
                }
                _ => column.for_each(|step, _| self.counts[step] += 1),
            }
            for (step, histogram) in column.histograms() {
                self.counts[*step] = self.counts[*step].saturating_add(weight(histogram));
            }
        }
        let mut running = 0i64;
        for (count, change) in self.counts.iter_mut().zip(starts_less_ends) {
            running += change;
            *count = count.saturating_add(u32::try_from(running).unwrap_or(u32::MAX));
        }
    }

    /// Counts as an operator does that gathers, step by step, one element of each input series and keeps its output:
    /// at a step it holds what it held before, the inputs of this step and the outputs up to this step.
    pub(crate) fn check(&self, output: &Self, samples: &mut SampleCount) -> Result<(), EvalError> {
        let mut kept = 0usize;
        for (gathered, produced) in self.counts.iter().zip(&output.counts) {
            let produced = *produced as usize;
            samples.probe(kept.saturating_add(*gathered as usize).saturating_add(produced))?;
            kept = kept.saturating_add(produced);
        }
        Ok(())
    }

    /// Errors if the elements of both sides at one of the steps up to `last` are too many.
    pub(crate) fn probe_up_to(&self, last: usize, other: &Self, samples: &mut SampleCount) -> Result<(), EvalError> {
        let gathered = self.counts.iter().zip(&other.counts).take(last.saturating_add(1));
        gathered.map(|(a, b)| *a as usize + *b as usize).try_for_each(|held| samples.probe(held))
    }

    /// True if no series has a value at `step`.
    pub(crate) fn is_empty_at(&self, step: usize) -> bool {
        self.counts.get(step).is_none_or(|count| *count == 0)
    }
}
