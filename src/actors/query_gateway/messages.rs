//! What the gateway is asked for, and what it answers.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::Message;

use crate::actors::pool::Lane;
use crate::actors::query_log::QueryOrigin;
use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::names::Names;
use crate::model::read::{ListingOf, ReadError};
use crate::model::time::{TimeRange, TimestampMs};
use crate::promql::eval::{Charge, EvalError, Evaluated};
use crate::rules::query::RuleQueries;

/// When a query is evaluated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum QuerySpan {
    /// Once.
    Instant {
        /// When.
        at: TimestampMs,
    },
    /// At `start`, `start + step_ms`, … up to `end`.
    Range {
        /// First evaluation.
        start: TimestampMs,
        /// No evaluation later than this.
        end: TimestampMs,
        /// Milliseconds between two evaluations, more than 0.
        step_ms: i64,
    },
}

/// Evaluate a query.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<QueryOutcome, QueryFailure>")]
pub struct RunQuery {
    /// PromQL as written.
    pub text: String,
    /// When.
    pub span: QuerySpan,
    /// Shorter than the server's own timeout, which holds as well.
    pub timeout: Option<Duration>,
    /// Instead of the server's lookback.
    pub lookback_ms: Option<i64>,
    /// Who asks: users and rules do not wait for each other.
    pub lane: Lane,
    /// Samples are counted for each step as well.
    pub counts_steps: bool,
    /// Who asks, for the query log.
    pub origin: QueryOrigin,
}

/// What to list.
#[derive(Clone, Debug)]
pub enum Listing {
    /// Label sets of series; each list of matchers selects some.
    Series,
    /// Names of labels.
    LabelNames,
    /// Values of this label.
    LabelValues(String),
}

impl Listing {
    pub(super) fn of(&self) -> ListingOf<'_> {
        match self {
            Self::Series => ListingOf::LabelSets,
            Self::LabelNames => ListingOf::Names,
            Self::LabelValues(name) => ListingOf::Values(name),
        }
    }
}

/// List series, label names or label values.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<FoundListing, QueryFailure>")]
pub struct RunListing {
    /// What.
    pub listing: Listing,
    /// A series counts when it fulfils all matchers of any of these; none: all series.
    pub selectors: Vec<Vec<Matcher>>,
    /// Of series that may have samples here.
    pub range: TimeRange,
    /// Results wanted at most; 0 for all.
    pub limit: usize,
}

impl RunListing {
    pub(super) fn cut(&self) -> usize {
        if self.limit == 0 { usize::MAX } else { self.limit }
    }
}

/// An answer to [`RunListing`].
#[derive(Debug)]
pub struct FoundListing {
    /// What was found.
    pub listed: Listed,
    /// What is missing, and why.
    pub warnings: Vec<String>,
    /// Keeps its memory charged.
    pub held: Charge,
}

/// Sorted and without repetitions.
#[derive(Debug)]
pub enum Listed {
    /// Label sets.
    Series(Vec<Labels>),
    /// Names or values.
    Names(Names),
}

/// Run a rule's job on the lane of the rules: its queries are evaluated within the limits of one query. The job may run
/// twice, as its queries only read.
#[derive(Message)]
#[rtype(result = "Result<T, QueryFailure>")]
pub struct RunRule<T: Send + 'static> {
    pub(super) job: Arc<RuleJob<T>>,
    pub(super) origin: QueryOrigin,
}

type RuleJob<T> = dyn Fn(&dyn RuleQueries) -> T + Send + Sync;

impl<T: Send + 'static> RunRule<T> {
    /// Runs this.
    pub fn new(job: impl Fn(&dyn RuleQueries) -> T + Send + Sync + 'static) -> Self {
        Self { job: Arc::new(job), origin: QueryOrigin::Unknown }
    }

    /// Names the group of the rule, for the query log.
    pub fn of_group(self, file: &str, group: &str) -> Self {
        Self { origin: QueryOrigin::Rule { file: file.to_owned(), group: group.to_owned() }, ..self }
    }
}

impl<T: Send + 'static> Clone for RunRule<T> {
    fn clone(&self) -> Self {
        Self { job: Arc::clone(&self.job), origin: self.origin.clone() }
    }
}

/// An evaluated query and what it took.
#[derive(Debug)]
pub struct QueryOutcome {
    /// Value, remarks, figures; its memory stays charged until it is dropped.
    pub evaluated: Evaluated,
    /// How long its parts took.
    pub timings: QueryTimings,
}

/// How long the parts of a query took, divided as in Prometheus's statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueryTimings {
    /// Waiting for a turn.
    pub queue: Duration,
    /// Opening storage.
    pub prepare: Duration,
    /// Evaluation proper, without the sorting of the result.
    pub inner_eval: Duration,
    /// Sorting of the result.
    pub sort: Duration,
}

impl QueryTimings {
    /// From the turn to the result.
    pub fn eval(&self) -> Duration {
        self.prepare + self.inner_eval + self.sort
    }

    /// All of it.
    pub fn total(&self) -> Duration {
        self.queue + self.eval()
    }
}

/// Why a query has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryFailure {
    /// It does not parse; text and position are Prometheus's.
    #[error("{0}")]
    Parse(String),
    /// The evaluation ended early.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// Storage could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It had no turn before its deadline.
    #[error("query timed out in query queue")]
    QueueTimeout,
    /// Too many wait already.
    #[error("too many queries are waiting: {0}")]
    Overloaded(String),
    /// A panic in the evaluation; a bug of ours.
    #[error("unexpected error: {0}")]
    Panicked(String),
}
