//! Queries of little work: they are evaluated on a lane of their own without waiting for a turn, so that heavy ones do not
//! keep them waiting. What is heavy after all, by estimate or by its time, takes a turn and begins anew.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{GatewayDeps, Lane, Ordering, QueryFailure, QuerySpan, QueryTimings, RunQuery, Source, parse_failure};
#[cfg(debug_assertions)]
use super::{Point, QUERY_GATEWAY, failpoint};
use crate::model::read::{ReadView, without_files};
use crate::model::time::{TimeRange, TimestampMs};
use crate::promql::ast::{DurationValue, Expr, VectorSelector};
use crate::promql::eval::{Evaluated, ParsedQuery, QueryContext, is_shallow, parse};

/// Longer texts are not looked at: parsing them is work already.
const TEXT_LEN_MAX: usize = 1024;
/// What finding a series takes, in values.
const SERIES_WORK: f64 = 20.0;
/// A guess at the time between two samples.
const SAMPLE_EVERY_MS: f64 = 15_000.0;
/// How long a query may wait and run on the lane.
const WITHIN: Duration = Duration::from_secs(1);

/// What a query may take that takes no turn.
pub(super) struct Bounds {
    /// Values to compute, estimated; beyond them a query is heavy.
    pub(super) work_max: f64,
    /// How long it may run.
    pub(super) runs_for: Duration,
    /// Whether it may read files.
    pub(super) files: Files,
}

/// Whether samples may be read from files.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Files {
    Readable,
    Refused,
}

/// On the lane of their own.
const ON_LANE: Bounds = Bounds { work_max: 100_000.0, runs_for: Duration::from_millis(25), files: Files::Readable };

impl GatewayDeps {
    /// Evaluates a query of little work. `None` if it is to take a turn.
    pub(super) async fn query_quickly(
        self: &Arc<Self>,
        query: &Arc<RunQuery>,
        deadline: Instant,
    ) -> Option<Result<(Evaluated, QueryTimings), QueryFailure>> {
        if !self.may_be_quick(query) {
            return None;
        }
        let deadline = deadline.min(Instant::now() + WITHIN);
        let query = Arc::clone(query);
        let evaluate = move |deps: &Self, ctx: QueryContext, queue: Duration| {
            deps.evaluate_quickly(&query, ctx, queue, &ON_LANE).transpose()
        };
        match timeout_at(deadline, Arc::clone(self).admit(Lane::Quick, deadline, evaluate)).await {
            Ok(Err(QueryFailure::Overloaded(_))) | Err(_) => None,
            Ok(done) => done.transpose(),
        }
    }

    /// Whether the text may be looked at by who has no turn.
    pub(super) fn may_be_quick(&self, query: &RunQuery) -> bool {
        query.lane == Lane::Queries && !self.has_remotes() && may_be_quick(&query.text)
    }

    /// Whether others are asked, which takes its time.
    pub(super) fn has_remotes(&self) -> bool {
        self.remotes.get().is_some_and(|remotes| remotes.reading().is_some())
    }

    /// Evaluates within the bounds. `None` if it takes more; nothing is counted or logged then.
    pub(super) fn evaluate_quickly(
        &self,
        query: &RunQuery,
        mut ctx: QueryContext,
        queue: Duration,
        bounds: &Bounds,
    ) -> Option<Result<(Evaluated, QueryTimings), QueryFailure>> {
        let until = self.clock.monotonic() + bounds.runs_for;
        let until = ctx.deadline.map_or(until, |deadline| deadline.min(until));
        ctx.deadline = Some(until);
        ctx.text.clone_from(&query.text);
        let ParsedQuery { held: _held, expr } = match parse(&self.parser, &ctx) {
            Ok(parsed) => parsed,
            Err(failure) => return Some(Err(parse_failure(failure))),
        };
        if bounds.files == Files::Refused && !is_shallow(&expr) {
            return None;
        }
        // Storage that cannot be read is the error of the evaluation proper.
        let view = self.queryable.view().ok()?;
        let lookback_ms = query.lookback_ms.unwrap_or(self.engine.lookback_ms);
        let subquery_step_ms = self.subquery_step_ms.load(Ordering::Relaxed);
        let estimate = Estimate { view: &*view, lookback_ms, subquery_step_ms, files: bounds.files };
        if estimate.of_query(&expr, query.span)? > bounds.work_max {
            return None;
        }
        drop(view);
        #[cfg(debug_assertions)]
        failpoint::hit(QUERY_GATEWAY.name, "", Point::Step("evaluate"));
        let began = self.clock.monotonic();
        let evaluate = || self.evaluate_parsed(query, &expr, &ctx, queue, &Source::local(self));
        let (evaluated, wants_files) = match bounds.files {
            Files::Readable => (evaluate(), false),
            Files::Refused => without_files(evaluate),
        };
        if evaluated.is_err() && (wants_files || until <= self.clock.monotonic()) {
            return None;
        }
        self.metrics.times.queued(queue);
        self.log_evaluated(query, began, queue, &evaluated);
        Some(evaluated)
    }
}

/// Whether parsing the text takes little for sure. Repetitions and classes of Unicode make large automata of short regular
/// expressions.
fn may_be_quick(text: &str) -> bool {
    let is_repetition = |pair: &[u8]| matches!(pair, [b'{', b'0'..=b'9'] | [b'\\', b'p' | b'P']);
    text.len() <= TEXT_LEN_MAX && !text.as_bytes().windows(2).any(is_repetition)
}

/// Guesses the work of an expression from the lengths of postings.
struct Estimate<'a> {
    view: &'a dyn ReadView,
    lookback_ms: i64,
    subquery_step_ms: i64,
    files: Files,
}

/// When an expression is evaluated.
#[derive(Clone, Copy)]
struct Times {
    first_ms: i64,
    last_ms: i64,
    steps: f64,
}

impl Times {
    fn span_ms(self) -> f64 {
        self.last_ms as f64 - self.first_ms as f64
    }
}

/// Values to compute, and series of the result.
#[derive(Clone, Copy)]
struct Work {
    values: f64,
    series: f64,
}

impl Estimate<'_> {
    /// `None` where nothing is known.
    fn of_query(&self, expr: &Expr, span: QuerySpan) -> Option<f64> {
        let times = match span {
            QuerySpan::Instant { at } => Times { first_ms: at.0, last_ms: at.0, steps: 1.0 },
            QuerySpan::Range { start, end, step_ms } => {
                let steps = ((end.0 as f64 - start.0 as f64) / step_ms.max(1) as f64).max(0.0) + 1.0;
                Times { first_ms: start.0, last_ms: end.0, steps }
            }
        };
        Some(self.of(expr, times)?.values)
    }

    fn of(&self, expr: &Expr, times: Times) -> Option<Work> {
        match expr {
            Expr::Vector(selector) => self.of_selector(selector, 0, times),
            Expr::Matrix(matrix) => self.of_selector(&matrix.selector, literal_ms(&matrix.window)?, times),
            Expr::Subquery(subquery) => {
                let window_ms = literal_ms(&subquery.window)?;
                let step_ms = subquery.step.as_ref().map_or(Some(self.subquery_step_ms), literal_ms)?.max(1);
                if !subquery.offset.is_zero() || subquery.at.is_some() {
                    return None;
                }
                let in_window = window_ms as f64 / step_ms as f64 + 1.0;
                let steps = times.span_ms() / step_ms as f64 + in_window;
                let inner = Times { first_ms: times.first_ms.saturating_sub(window_ms), steps, ..times };
                let Work { values, series } = self.of(&subquery.expr, inner)?;
                Some(Work { values: values + series * times.steps * in_window, series })
            }
            // It selects series that are not written.
            Expr::Call(call) if call.func.name == "info" => None,
            _ => {
                let (mut values, mut series) = (0.0, 0.0);
                for child in expr.children() {
                    let work = self.of(child, times)?;
                    values += work.values;
                    series += work.series;
                }
                let series = f64::max(series, 1.0);
                Some(Work { values: values + series * times.steps, series })
            }
        }
    }

    fn of_selector(&self, selector: &VectorSelector, window_ms: i64, times: Times) -> Option<Work> {
        let from_ms = times.first_ms.saturating_sub(window_ms.max(self.lookback_ms));
        let (from_ms, to_ms) = match selector.offset.is_zero() && selector.at.is_none() {
            true => (from_ms, times.last_ms),
            false => (i64::MIN, i64::MAX),
        };
        let range = TimeRange::new(TimestampMs(from_ms), TimestampMs(to_ms)).ok()?;
        if self.files == Files::Refused && self.view.reads_files(range) {
            return None;
        }
        let series = self.view.series_estimate(&selector.matchers, range).ok()?? as f64;
        let in_window = window_ms as f64 / SAMPLE_EVERY_MS + 1.0;
        let of_one = SERIES_WORK + times.steps * in_window + times.span_ms() / SAMPLE_EVERY_MS;
        Some(Work { values: series * of_one, series })
    }
}

fn literal_ms(duration: &DurationValue) -> Option<i64> {
    match duration {
        DurationValue::Literal(duration) => Some(duration.as_ms().max(0)),
        DurationValue::Expr(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::labels::Labels;
    use crate::model::matcher::Matcher;
    use crate::model::names::Names;
    use crate::model::read::{ReadBudget, ReadError, Scope, SelectedSeries};
    use crate::promql::parser::{ParseOptions, parse_expr};

    /// Ten series of each metric, a million of all.
    struct Counted;

    impl ReadView for Counted {
        fn select(&self, _: &[Matcher], _: TimeRange, _: &dyn ReadBudget) -> Result<Vec<SelectedSeries>, ReadError> {
            Ok(vec![])
        }
        fn label_names(&self, _: &Scope<'_>, _: &dyn ReadBudget) -> Result<Names, ReadError> {
            Ok(Names::default())
        }
        fn label_values(&self, _: &str, _: &Scope<'_>, _: &dyn ReadBudget) -> Result<Names, ReadError> {
            Ok(Names::default())
        }
        fn series_estimate(&self, matchers: &[Matcher], _: TimeRange) -> Result<Option<usize>, ReadError> {
            let labels = Labels::from_pairs([("__name__", "up")]);
            Ok(Some(if matchers.iter().any(|m| m.matches_labels(&labels) && m.value() == "up") {
                10
            } else {
                1_000_000
            }))
        }
    }

    #[test]
    fn little_work_is_told_from_much() {
        let hour = QuerySpan::Range { start: TimestampMs(0), end: TimestampMs(3_600_000), step_ms: 15_000 };
        let is_quick = |text: &str, span| {
            let expr = parse_expr(text, &ParseOptions::default()).unwrap();
            let estimate =
                Estimate { view: &Counted, lookback_ms: 300_000, subquery_step_ms: 60_000, files: Files::Readable };
            may_be_quick(text) && estimate.of_query(&expr, span).is_some_and(|work| work <= ON_LANE.work_max)
        };
        for text in
            ["1 + 1", "up", "sum by (job) (rate(up[5m]))", "max_over_time(up[10m:1m])", "up offset 1d", "vector(1)"]
        {
            assert!(is_quick(text, hour), "{text}");
        }
        let instant = QuerySpan::Instant { at: TimestampMs(0) };
        let heavy =
            ["{__name__=~\".+\"}", "count_over_time(vector(1)[100d:1ms])", "up + on() {a=\"b\"}", "rate(up[3650d])"];
        for text in heavy {
            assert!(!is_quick(text, instant), "{text}");
        }
        assert!(!may_be_quick("up{a=~\"x{1000}\"}") && !may_be_quick("up{a=~`\\pL`}"));
        assert!(!may_be_quick(&["1"; 1000].join("+")));
    }
}
