//! The state of one evaluation: what it reads from, what it may use, what it has noted.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::model::histogram::{CounterResetHint, FloatHistogram};
use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::read::{
    ClassedSeries, HistogramColumn, LookedAt, ReadBudget, ReadError, ReadView, SampleColumn, SampleSource,
    SelectedSeries, Wanted,
};
use crate::model::time::{TimeRange, TimestampMs};
use crate::promql::eval::annotations::AnnotationSet;
use crate::promql::eval::column::ColumnBuilder;
use crate::promql::eval::common::{self, Common};
use crate::promql::eval::error::{EvalError, Phase};
use crate::promql::eval::ledger::Charge;
use crate::promql::eval::parallel;
use crate::promql::eval::samples::SampleCount;
use crate::promql::eval::{EngineOptions, Helpers, QueryContext};
use crate::promql::plan::{Selector, Sharing};

/// Points between two looks at deadline and cancellation.
const POINTS_PER_CHECK: usize = 4096;

/// Series without their label sets, and what they hold.
pub(crate) type HeldSeries = (Box<dyn ClassedSeries>, Charge);

/// State of one evaluation.
pub(crate) struct Exec<'a> {
    pub(crate) view: &'a dyn ReadView,
    pub(crate) opts: &'a EngineOptions,
    pub(crate) ctx: &'a QueryContext,
    pub(crate) annotations: AnnotationSet,
    pub(crate) samples: SampleCount,
    /// How long the result took to sort.
    pub(crate) sorted_in: Duration,
    pub(crate) pace: Pace<'a>,
    /// What is asked for more than once.
    pub(crate) common: Common<'a>,
}

/// Looks now and then whether the query is still wanted. Each thread that works on it has one.
pub(crate) struct Pace<'a> {
    ctx: &'a QueryContext,
    unchecked_points: usize,
}

impl<'a> Pace<'a> {
    /// A fresh one.
    pub(crate) fn new(ctx: &'a QueryContext) -> Self {
        Self { ctx, unchecked_points: 0 }
    }

    /// Notes that `points` were worked on; now and then looks whether the query is still wanted.
    #[inline]
    pub(crate) fn spend(&mut self, points: usize) -> Result<(), EvalError> {
        self.unchecked_points = self.unchecked_points.saturating_add(points).saturating_add(1);
        if self.unchecked_points < POINTS_PER_CHECK { Ok(()) } else { self.look() }
    }

    #[cold]
    fn look(&mut self) -> Result<(), EvalError> {
        self.unchecked_points = 0;
        self.ctx.check(Phase::Evaluation)
    }
}

/// Series of a selector, sorted by labels, with what the selection holds.
#[derive(Clone)]
pub(crate) struct Selection(Arc<Selected>);

struct Selected {
    series: Vec<SelectedSeries>,
    held: Charge,
}

impl std::fmt::Debug for Selection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Selection").field("series", &self.0.series.len()).finish_non_exhaustive()
    }
}

impl Selection {
    /// These series, which hold so much.
    pub(crate) fn new(series: Vec<SelectedSeries>, held: Charge) -> Self {
        Self(Arc::new(Selected { series, held }))
    }

    /// The series.
    pub(crate) fn series(&self) -> &[SelectedSeries] {
        &self.0.series
    }

    /// The series, each changed to something that holds no more.
    pub(crate) fn map(self, change: impl FnMut(SelectedSeries) -> SelectedSeries) -> Option<Self> {
        let Selected { series, held } = Arc::try_unwrap(self.0).ok()?;
        Some(Self::new(series.into_iter().map(change).collect(), held))
    }

    /// About how many samples each series has in a range, for the choice of the way; at a usual interval of scrapes.
    pub(crate) fn sample_estimate(&self, (min_ms, max_ms): (i64, i64)) -> usize {
        usize::try_from(max_ms.saturating_sub(min_ms) / 15_000).unwrap_or(0).saturating_add(60)
    }
}

impl<'a> Exec<'a> {
    /// A fresh state. Errors if the query has been stopped before it began.
    pub(crate) fn start(
        view: &'a dyn ReadView,
        opts: &'a EngineOptions,
        ctx: &'a QueryContext,
        sharing: &'a Sharing,
    ) -> Result<Self, EvalError> {
        ctx.check(Phase::Execution)?;
        let charge = ctx.ledger.charge(0).map_err(|over| EvalError::Budget(over.to_string()))?;
        Ok(Self {
            view,
            opts,
            ctx,
            annotations: AnnotationSet::new(charge),
            samples: SampleCount::new(opts.max_samples),
            pace: Pace::new(ctx),
            sorted_in: Duration::ZERO,
            common: Common::new(sharing, &ctx.ledger),
        })
    }

    /// Charges `bytes` until the result is dropped.
    pub(crate) fn charge(&self, bytes: usize) -> Result<Charge, EvalError> {
        self.ctx.ledger.charge(bytes).map_err(|over| EvalError::Budget(over.to_string()))
    }

    /// Notes that `points` were worked on; now and then looks whether the query is still wanted.
    #[inline]
    pub(crate) fn spend(&mut self, points: usize) -> Result<(), EvalError> {
        self.pace.spend(points)
    }

    /// Errors if the query has been stopped.
    pub(crate) fn check(&self) -> Result<(), EvalError> {
        self.ctx.check(Phase::Evaluation)
    }

    /// Series that fulfil a selector and may have samples from `min_ms` to `max_ms`, both inclusive.
    pub(crate) fn select(&self, selector: &Selector, min_ms: i64, max_ms: i64) -> Result<Selection, EvalError> {
        match common::select(self, selector, (min_ms, max_ms)) {
            Some(selection) => Ok(selection),
            None => self.select_alone(&selector.matchers, (min_ms, max_ms)),
        }
    }

    /// As [`Self::select`], for nobody else.
    pub(crate) fn select_alone(
        &self,
        matchers: &[Matcher],
        (min_ms, max_ms): (i64, i64),
    ) -> Result<Selection, EvalError> {
        let Ok(range) = TimeRange::new(TimestampMs(min_ms), TimestampMs(max_ms)) else {
            return Ok(Selection::new(Vec::new(), self.charge(0)?));
        };
        let (selected, mut held) = self.selecting(|budget| self.view.select(matchers, range, budget))?;
        match selected {
            Ok(series) => {
                let bytes = series.len() * size_of::<SelectedSeries>();
                held.grow(bytes).map_err(|over| EvalError::Budget(over.to_string()))?;
                Ok(Selection::new(series, held))
            }
            Err(ReadError::Budget(text)) => Err(EvalError::Budget(text)),
            Err(error @ ReadError::Interrupted(_)) => {
                self.check()?;
                Err(EvalError::Select(error))
            }
            Err(error) => Err(EvalError::Select(error)),
        }
    }

    /// The same series without their label sets, with what they hold, if there is a shorter way to them. Whatever is wrong shows
    /// again on the usual way.
    pub(crate) fn select_classed(
        &self,
        matchers: &[Matcher],
        (min_ms, max_ms): (i64, i64),
        looked_at: LookedAt<'_>,
    ) -> Result<Option<HeldSeries>, EvalError> {
        let Ok(range) = TimeRange::new(TimestampMs(min_ms), TimestampMs(max_ms)) else { return Ok(None) };
        let select = |budget: &dyn ReadBudget| self.view.select_classed(matchers, range, looked_at, budget);
        let (selected, held) = self.selecting(select)?;
        Ok(selected.ok().flatten().map(|series| (series, held)))
    }

    /// What a selection gives under the query's budget, and what it holds.
    fn selecting<T>(&self, select: impl FnOnce(&dyn ReadBudget) -> T) -> Result<(T, Charge), EvalError> {
        let budget =
            SelectBudget { charge: Mutex::new(self.charge(0)?), ctx: self.ctx, helpers: self.opts.shortcuts.helpers };
        let selected = select(&budget);
        Ok((selected, budget.charge.into_inner().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// Samples of one series at a time, in room that is used again and charged.
pub(crate) struct Decoder {
    column: SampleColumn,
    held: Charge,
}

impl Decoder {
    /// Empty room.
    pub(crate) fn new(ctx: &QueryContext) -> Result<Self, EvalError> {
        let held = ctx.ledger.charge(0).map_err(|over| EvalError::Budget(over.to_string()))?;
        Ok(Self { column: SampleColumn::default(), held })
    }

    /// Decodes the wanted samples of one series from `min_ms` to `max_ms`, both inclusive, oldest first.
    pub(crate) fn decode(
        &mut self,
        pace: &mut Pace<'_>,
        selector: &Selector,
        source: &dyn SampleSource,
        (min_ms, max_ms): (i64, i64),
        wanted: Wanted,
    ) -> Result<&mut SampleColumn, EvalError> {
        self.column.clear();
        if let Ok(range) = TimeRange::new(TimestampMs(min_ms), TimestampMs(max_ms)) {
            let decoded = match wanted {
                Wanted::All => source.decode_all(range, &mut self.column),
                Wanted::Newest => source.decode_newest(range, &mut self.column),
            };
            decoded.map_err(|error| match error {
                ReadError::Budget(text) => EvalError::Budget(text),
                other => EvalError::Decode(other),
            })?;
        }
        if selector.totals_only && !self.column.histograms.is_empty() {
            reduce_to_totals(&mut self.column.histograms);
        }
        hold_column(&mut self.held, &self.column)?;
        pace.spend(self.column.len())?;
        Ok(&mut self.column)
    }

    /// Calls `take` with class and wanted samples of each of the series with these numbers, until it returns false. Of
    /// errors of storage is only told that there is one.
    pub(crate) fn decode_classed(
        &mut self,
        series: &dyn ClassedSeries,
        numbers: Range<usize>,
        (min_ms, max_ms): (i64, i64),
        wanted: Wanted,
        mut take: impl FnMut(u32, &mut SampleColumn) -> Result<bool, EvalError>,
    ) -> Result<Complete, EvalError> {
        let Self { column, held } = self;
        let Ok(range) = TimeRange::new(TimestampMs(min_ms), TimestampMs(max_ms)) else { return Ok(Complete::No) };
        let mut outcome = Ok(true);
        let decoded = series.decode(numbers, range, wanted, column, &mut |class, column| {
            outcome = hold_column(held, column).and_then(|()| take(class, column));
            matches!(outcome, Ok(true))
        });
        Ok(if outcome? && decoded.is_ok() { Complete::Yes } else { Complete::No })
    }
}

/// Whether all was done that was to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Complete {
    /// All.
    Yes,
    /// A part, or nothing.
    No,
}

/// Charges what a column has grown by.
fn hold_column(held: &mut Charge, column: &SampleColumn) -> Result<(), EvalError> {
    let grown = column.memory_len().saturating_sub(held.bytes());
    if 0 < grown {
        held.grow(grown).map_err(|over| EvalError::Budget(over.to_string()))?;
    }
    Ok(())
}

/// What a thread needs that makes columns of series.
pub(crate) struct SeriesWorker<'a> {
    pub(crate) decoder: Decoder,
    pub(crate) builder: ColumnBuilder,
    pub(crate) pace: Pace<'a>,
    held: Charge,
}

impl<'a> SeriesWorker<'a> {
    /// Empty room.
    pub(crate) fn begin(ctx: &'a QueryContext) -> Result<Self, EvalError> {
        let held = ctx.ledger.charge(0).map_err(|over| EvalError::Budget(over.to_string()))?;
        Ok(Self { decoder: Decoder::new(ctx)?, builder: ColumnBuilder::new(), pace: Pace::new(ctx), held })
    }

    /// Charges what was made.
    pub(crate) fn hold(&mut self, bytes: usize) -> Result<(), EvalError> {
        self.held.grow_ahead(bytes).map_err(|over| EvalError::Budget(over.to_string()))
    }

    /// Leaves what is held to whoever takes what was made.
    pub(crate) fn end(self, to: &Mutex<Charge>) {
        to.lock().unwrap_or_else(PoisonError::into_inner).absorb(self.held);
    }
}

/// Leaves count and sum of each histogram. Its hint then says whether there was a counter reset before it, which cannot be
/// told from the totals any more.
fn reduce_to_totals(histograms: &mut HistogramColumn) {
    let mut before: Option<Arc<FloatHistogram>> = None;
    for histogram in &mut histograms.values {
        let mut totals = FloatHistogram {
            counter_reset_hint: histogram.counter_reset_hint,
            schema: histogram.schema,
            count: histogram.count,
            sum: histogram.sum,
            ..FloatHistogram::default()
        };
        if histogram.is_stale() {
            *histogram = Arc::new(totals);
            continue;
        }
        if let (CounterResetHint::Unknown, Some(before)) = (totals.counter_reset_hint, &before) {
            let is_reset = histogram.detect_reset(before);
            totals.counter_reset_hint = if is_reset { CounterResetHint::Reset } else { CounterResetHint::NotReset };
        }
        before = Some(std::mem::replace(histogram, Arc::new(totals)));
    }
}

/// What storage may hold for one selection.
struct SelectBudget<'a> {
    charge: Mutex<Charge>,
    ctx: &'a QueryContext,
    helpers: Helpers,
}

impl ReadBudget for SelectBudget<'_> {
    fn charge(&self, bytes: usize) -> Result<(), ReadError> {
        let mut charge = self.charge.lock().unwrap_or_else(PoisonError::into_inner);
        charge.grow_ahead(bytes).map_err(|over| ReadError::Budget(over.to_string()))
    }

    fn check(&self) -> Result<(), ReadError> {
        self.ctx.check(Phase::Evaluation).map_err(|stopped| ReadError::Interrupted(stopped.to_string()))
    }

    fn run_each(&self, count: usize, job: &(dyn Fn(usize) + Sync)) {
        match self.helpers {
            Helpers::Never => (0..count).for_each(job),
            Helpers::WhereWorthIt | Helpers::Always => parallel::each(count, job),
        }
    }
}

/// True for the name and the other labels that describe what the metric is.
pub(crate) fn is_metadata(name: &[u8]) -> bool {
    matches!(name, b"__name__" | b"__type__" | b"__unit__")
}

/// The labels without those that describe what the metric is.
pub(crate) fn without_metadata(labels: &Labels) -> Labels {
    if labels.iter_raw().any(|pair| is_metadata(pair.name)) {
        labels.filtered(|name| !is_metadata(name))
    } else {
        labels.clone()
    }
}
